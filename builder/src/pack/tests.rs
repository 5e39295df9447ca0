//! Headers in every arrangement, inputs that do not belong together, and modules that are not what was asked for.

use std::{fs, mem::offset_of, os::unix::fs::symlink, path::Path};

use lpbuild_abi as abi;
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection},
};

use super::{headers, input, verify};
use crate::backend::detour::{self, Runtime};
use crate::{error::Error, plan::manifest::Manifest};

const RELEASE: &str = "6.1.0-0-test";
const MANIFEST: &str = r#"schema = 1
[patch]
name = "demo"
version = "1.0"
description = "why \"it\" is"
mode = "stop-machine"
deadline-ms = 500
oneshot = true
[callbacks]
pre-apply = "ready"
[kernel]
release = "6.1.0-0-test"
build-id = "0707"
anchor = "_printk"
anchor-address = "0xffffffff81000000"
[[function]]
object = "vmlinux"
source = "fs/a.o"
symbol = "func_a"
sympos = 0
anchor-offset = -4096
old-size = 64
new-size = 16
why = "changed"
[function.site]
offset = 5
size = 6
jump = "rel32"
original = "535455565790"
instructions = []
rule = "after-fentry"
[[function.piece]]
symbol = "func_a.cold"
anchor-offset = 8192
size = 32
"#;

/// The manifest of the tests with another form of jump.
pub(super) fn manifest(jump: crate::plan::manifest::Jump) -> String {
    match jump {
        crate::plan::manifest::Jump::Rel32 => MANIFEST.to_owned(),
        crate::plan::manifest::Jump::Abs64 => MANIFEST
            .replace("rel32", "abs64")
            .replace("\nsize = 6\n", "\nsize = 12\n")
            .replace("535455565790", "535455565790909090909090"),
    }
}

fn code<T>(r: Result<T, Error>) -> Vec<&'static str> {
    r.err().map_or(vec![], |e| e.problems.iter().map(|p| p.code.id).collect())
}

/// Headers as Debian splits them, unpacked below `root`; make's include leads to a path that is not there.
fn split_headers(root: &Path) -> std::path::PathBuf {
    let objects = root.join("usr/src/linux-headers-test-amd64");
    let common = root.join("usr/src/linux-headers-test-common");
    fs::create_dir_all(objects.join("include/generated")).unwrap();
    fs::create_dir_all(common.join("scripts")).unwrap();
    fs::write(objects.join("Makefile"), "include /nowhere/linux-headers-test-common/Makefile\n").unwrap();
    fs::write(objects.join(".config"), "CONFIG_CC_VERSION_TEXT=\"sh (x) 1\"\nCONFIG_MODULE_SIG_HASH=\"sha512\"\n")
        .unwrap();
    fs::write(objects.join("Module.symvers"), "0x1\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n").unwrap();
    fs::write(objects.join("vmlinux"), "").unwrap();
    let release = format!("#define UTS_RELEASE \"{RELEASE}\"\n");
    fs::write(objects.join("include/generated/utsrelease.h"), release).unwrap();
    fs::write(common.join("Makefile"), "all:\n").unwrap();
    fs::write(common.join("scripts/Makefile.build"), "").unwrap();
    symlink("../linux-headers-test-common/scripts", objects.join("scripts")).unwrap();
    objects
}

#[test]
fn split_headers_work_where_they_were_unpacked_and_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let objects = split_headers(root.path());
    let found = headers::find(RELEASE, Some(&objects)).unwrap();
    assert_eq!(found.sign_hash, "sha512");
    assert!(found.exported.contains("_printk") && found.compiler.ends_with("sh"));
    let shadow = tempfile::tempdir().unwrap();
    let (dir, makefile) = found.shadow(shadow.path()).unwrap();
    assert!(dir.join("Module.symvers").is_file() && dir.join("scripts/Makefile.build").is_file());
    assert!(!dir.join("vmlinux").exists(), "the module would depend on it");
    assert_eq!(fs::read_to_string(&makefile).unwrap(), "all:\n");
    assert!(makefile.starts_with(shadow.path()) && dir.starts_with(shadow.path()));
}

#[test]
fn headers_that_cannot_be_used() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(code(headers::find(RELEASE, Some(root.path()))), ["LP4003"]);
    let objects = split_headers(root.path());
    assert_eq!(code(headers::find("6.1.0-1-test", Some(&objects))), ["LP4004"]);
    let common = root.path().join("usr/src/linux-headers-test-common");
    fs::remove_dir_all(common.join("scripts")).unwrap();
    symlink("../../lib/linux-kbuild-0.0/scripts", common.join("scripts")).unwrap();
    assert_eq!(code(headers::find(RELEASE, Some(&objects))), ["LP4003"]);
    fs::remove_dir_all(&common).unwrap();
    assert_eq!(code(headers::find(RELEASE, Some(&objects))), ["LP4003"]);
    let objects = split_headers(tempfile::tempdir().unwrap().path());
    assert_eq!(code(headers::find(RELEASE, Some(&objects))), ["LP4003"], "gone meanwhile");
}

#[test]
fn a_compiler_that_is_not_installed_is_named() {
    let root = tempfile::tempdir().unwrap();
    let objects = split_headers(root.path());
    fs::write(objects.join(".config"), "CONFIG_CC_VERSION_TEXT=\"no-such-gcc-99 (Debian) 99\"\n").unwrap();
    let e = headers::find(RELEASE, Some(&objects)).err().unwrap();
    assert_eq!(e.problems[0].code.id, "LP4005");
    assert!(e.to_string().contains("no-such-gcc-99"));
}

/// The manifest of exactly this object.
fn hashed(manifest: &str, object: &[u8]) -> String {
    let hash = format!("schema = 2\n[patch]\nobject-sha256 = \"{}\"", crate::hash::digest(object));
    manifest.replacen("schema = 1\n[patch]", &hash, 1)
}

fn read(manifest: &str, object: &[u8]) -> Result<input::PatchFolder, Error> {
    let manifest = hashed(manifest, object);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("manifest.toml"), manifest).unwrap();
    fs::write(dir.path().join("patch.o"), object).unwrap();
    input::read(dir.path(), &Runtime::default())
}

#[test]
fn another_object_than_the_manifest_was_written_for() {
    let good = Parts::new().write();
    let mut parts = Parts::new();
    parts.old += 1;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("patch.o"), parts.write()).unwrap();
    for (manifest, want) in [
        (hashed(MANIFEST, &parts.write()), &[""; 0][..]),
        (hashed(MANIFEST, &good), &["LP4013"]),
        // Nothing says which one it was.
        (MANIFEST.to_owned(), &["LP4013"]),
        (MANIFEST.replacen("schema = 1", "schema = 2", 1), &["LP1101"]),
        (hashed(MANIFEST, &good).replacen("schema = 2", "schema = 1", 1), &["LP1101"]),
        (hashed(MANIFEST, &good).replacen("schema = 2", "schema = 3", 1), &["LP1101"]),
    ] {
        fs::write(dir.path().join("manifest.toml"), &manifest).unwrap();
        assert_eq!(code(input::read(dir.path(), &Runtime::default())), want, "{manifest}");
    }
}

#[test]
fn records_the_manifest_does_not_have() {
    let wrong = |from: &str, to: &str| verified_as(&MANIFEST.replacen(from, to, 1), |_| {});
    assert_eq!(wrong("rule = \"after-fentry\"", "rule = \"over-fentry\""), ["LP4009"]);
    assert_eq!(wrong("size = 32", "size = 31"), ["LP4009"], "part of a piece");
    let end = MANIFEST.find("[[function.piece]]").unwrap();
    assert_eq!(verified_as(&MANIFEST[..end], |_| {}), ["LP4009"], "one range too many");
    for import in ["text_mutex", "no_such_import"] {
        let import = format!("{MANIFEST}[[import]]\nsymbol = \"{import}\"\nanchor-offset = 8\n");
        assert_eq!(verified_as(&import, |_| {}), ["LP4009"], "{import}");
    }
}

#[test]
fn a_folder_that_cannot_be_packed() {
    let good = Parts::new().write();
    assert_eq!(code(read(MANIFEST, &good)), [""; 0]);
    let start = MANIFEST.find("[kernel]").unwrap();
    let end = MANIFEST.find("[[function]]").unwrap();
    let symbolic = format!("{}{}", &MANIFEST[..start], &MANIFEST[end..]);
    assert_eq!(code(read(&symbolic, &good)), ["LP4002"]);
    assert_eq!(code(read("schema = 9", &good)), ["LP1101"]);
    // Would end up in C source.
    let evil = MANIFEST.replace("version = \"1.0\"", "version = '1\"); evil('");
    assert_eq!(code(read(&evil, &good)), ["LP1101"]);
    let two = format!("{MANIFEST}{}", &MANIFEST[end..]);
    assert_eq!(code(read(&two, &good)), ["LP4009"]);
    assert_eq!(code(read(MANIFEST, b"no object")), ["LP1003"]);
    for cut in (0..good.len()).step_by(7) {
        assert_ne!(code(read(MANIFEST, &good[..cut])), [""; 0], "cut at {cut}");
    }
    assert_eq!(code(input::read(Path::new("/nowhere"), &Runtime::default())), ["LP1004"]);
}

/// The parts of a module, to be changed before it is written.
struct Parts {
    modinfo: Vec<String>,
    why: Vec<u8>,
    manifest: String,
    patch: Vec<u8>,
    funcs: Vec<u8>,
    ranges: Vec<u8>,
    strings: Vec<u8>,
    old: i64,
    start: i64,
    piece: i64,
    /// Where the thunk of each callback leads in the carried code, without the 4 bytes of the field.
    calls: [Option<i64>; 4],
    thunks: usize,
    extra_symbol: Option<&'static str>,
    /// The runtime's list of shadow variables.
    shadows: Vec<u8>,
    /// A declaration in the patch.
    declared: Option<Vec<u8>>,
    /// Bytes of the name of one more function.
    long_name: usize,
    extra_reloc: Option<u32>,
    /// Sections, the first of which refers to the second.
    freed: Option<(&'static str, &'static str)>,
    text_byte: u8,
    /// Offsets in the code of the original's beginning and of the dispatcher.
    resume: Option<i64>,
    dispatch: Option<i64>,
    /// Both, from offset 16.
    entrances: Vec<u8>,
    /// Where the original goes on, without the 4 bytes of the field.
    back: i64,
    chooses: &'static str,
    /// Names of other patches, in the order of the record.
    others: [Option<i64>; 2],
    /// What the digest is changed by.
    other_digest: u64,
}

const RANGE: usize = size_of::<abi::RangeRecord>();
const DIGEST: usize = offset_of!(abi::PatchRecord, digest);

impl Parts {
    fn new() -> Self {
        let mut patch = vec![0; size_of::<abi::PatchRecord>()];
        patch[..8].copy_from_slice(&abi::MAGIC.to_le_bytes());
        patch[8] = abi::ABI_VERSION as u8;
        (patch[12], patch[13], patch[14], patch[16], patch[17]) = (1, 2, 3, 7, 7);
        patch[48..50].copy_from_slice(&500u16.to_le_bytes());
        patch[60..64].copy_from_slice(&abi::PATIENCE_MS.to_le_bytes());
        (patch[52], patch[56]) = (1, 2);
        patch[offset_of!(abi::PatchRecord, n_kernel_funcs)] = 1;
        patch[offset_of!(abi::PatchRecord, n_kernel_ranges)] = 2;
        let mut funcs = vec![0; size_of::<abi::FuncRecord>()];
        (funcs[24], funcs[28], funcs[32], funcs[34], funcs[35]) = (64, 16, 5, 6, 1);
        funcs[37..43].copy_from_slice(&[0x53, 0x54, 0x55, 0x56, 0x57, 0x90]);
        let mut ranges = vec![0; 2 * size_of::<abi::RangeRecord>()];
        (ranges[8], ranges[RANGE + 8]) = (64, 32);
        let abi_version = format!("lpbuild_abi={}", abi::ABI_VERSION);
        let info = [
            "license=GPL",
            "version=1.0",
            "name=demo",
            "lpbuild_name=demo",
            "lpbuild_build_id=0707",
            &abi_version,
            "description=why \"it\" is",
            "vermagic=6.1.0-0-test SMP mod_unload",
        ];
        Self {
            modinfo: info.map(str::to_owned).to_vec(),
            manifest: MANIFEST.to_owned(),
            why: Vec::new(),
            patch,
            funcs,
            ranges,
            strings: b"demo\x001.0\0func_a\0".to_vec(),
            old: -4096,
            start: -4096,
            piece: 8192,
            calls: [Some(8), None, None, None],
            thunks: 4,
            extra_symbol: None,
            shadows: vec![0; 52],
            declared: None,
            long_name: 511,
            extra_reloc: None,
            freed: None,
            text_byte: 0,
            resume: Some(16),
            dispatch: Some(32),
            entrances: [
                &[0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0x54, 0x55, 0x56, 0x57, 0x90, 0xe9, 0, 0, 0, 0, 0xcc][..],
                &[
                    0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0, 0x0f, 0x85, 0xd1, 0xff, 0xff, 0xff, 0xe9, 0xdc, 0xff,
                    0xff, 0xff,
                ],
            ]
            .concat(),
            back: -4096 + 5 + 6,
            chooses: abi::SYM_CHOOSES_NEW,
            others: [None, None],
            other_digest: 0,
        }
    }

    fn seal(&mut self, kernel: &crate::plan::manifest::Kernel) {
        let digest = detour::digest(&self.write(), kernel).unwrap_or(0) ^ self.other_digest;
        self.patch[DIGEST..DIGEST + 8].copy_from_slice(&digest.to_le_bytes());
    }

    fn write(&self) -> Vec<u8> {
        let mut o = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let mut section = |name: &str, kind, data: &[u8]| {
            let id = o.add_section(vec![], name.as_bytes().to_vec(), kind);
            o.append_section_data(id, data, 8);
            id
        };
        let info: Vec<u8> = self.modinfo.iter().flat_map(|l| l.bytes().chain([0])).collect();
        section(".modinfo", SectionKind::ReadOnlyData, &info);
        section(abi::SEC_MANIFEST, SectionKind::Other, self.manifest.as_bytes());
        if !self.why.is_empty() {
            section(abi::SEC_WHY, SectionKind::Other, &self.why);
        }
        let patch = section(abi::SEC_PATCH, SectionKind::Data, &self.patch);
        let funcs = section(abi::SEC_FUNCS, SectionKind::Data, &self.funcs);
        let ranges = section(abi::SEC_RANGES, SectionKind::Data, &self.ranges);
        let strings = section(abi::SEC_STRINGS, SectionKind::ReadOnlyData, &self.strings);
        let code = [&[self.text_byte; 16], self.entrances.as_slice()].concat();
        let text = section(abi::SEC_TEXT, SectionKind::Text, &code);
        let shadows = section(".rodata", SectionKind::ReadOnlyData, &self.shadows);
        let declared = self.declared.as_ref().map(|d| section(".data", SectionKind::Data, d));
        let names = section(".lpbuild.names", SectionKind::ReadOnlyData, &[0; 16]);
        // `jmp`, four times.
        let mut jumps = [0; 64];
        jumps.iter_mut().step_by(16).for_each(|b| *b = 0xe9);
        let thunks = section(abi::SEC_IMPORT, SectionKind::Text, &jumps);
        let freed = self.freed.map(|(from, to)| {
            let kind = |name: &str| if name.contains("data") { SectionKind::Data } else { SectionKind::Text };
            [from, to].map(|name| section(name, kind(name), &[0; 16]))
        });
        let anchor = undefined(&mut o, "_printk");
        defined(&mut o, "ready", text, 8);
        let chooses = defined(&mut o, self.chooses, text, 12);
        for callback in abi::Callback::ALL.into_iter().take(self.thunks) {
            defined(&mut o, callback.symbol(), thunks, 16 * callback as u64);
        }
        let local = |o: &mut Object<'_>, id| o.section_symbol(id);
        let (funcs_sym, ranges_sym) = (local(&mut o, funcs), local(&mut o, ranges));
        let (strings_sym, text_sym) = (local(&mut o, strings), local(&mut o, text));
        for (at, to, symbol, addend) in [
            (patch, 64, funcs_sym, 0),
            (patch, 72, ranges_sym, 0),
            (patch, 80, strings_sym, 0),
            (patch, 88, strings_sym, 5),
            (patch, 96, anchor, 64),
            (patch, 104, anchor, 128),
            (patch, 112, text_sym, 0),
            (patch, 120, text_sym, 52),
            (funcs, 0, anchor, self.old),
            (funcs, 8, text_sym, 0),
            (funcs, 16, strings_sym, 9),
            (ranges, 0, anchor, self.start),
            (ranges, RANGE as u64, anchor, self.piece),
        ] {
            reloc(&mut o, at, to, symbol, addend, object::elf::R_X86_64_64.0);
        }
        for (field, to) in [(64, self.resume), (72, self.dispatch)] {
            if let Some(to) = to {
                reloc(&mut o, funcs, field, text_sym, to, object::elf::R_X86_64_64.0);
            }
        }
        reloc(&mut o, text, 27, anchor, self.back - 4, object::elf::R_X86_64_PLT32.0);
        reloc(&mut o, text, 37, chooses, -4, object::elf::R_X86_64_PLT32.0);
        let names_sym = local(&mut o, names);
        for (i, to) in self.others.iter().enumerate() {
            if let Some(to) = to {
                let at = i as u64 * 8;
                reloc(&mut o, patch, 128 + at, names_sym, at.cast_signed(), object::elf::R_X86_64_64.0);
                reloc(&mut o, names, at, strings_sym, *to, object::elf::R_X86_64_64.0);
            }
        }
        for (i, to) in self.calls.iter().enumerate() {
            if let Some(to) = to {
                reloc(&mut o, thunks, 16 * i as u64 + 1, text_sym, to - 4, object::elf::R_X86_64_PLT32.0);
            }
        }
        if let Some(name) = self.extra_symbol {
            undefined(&mut o, name);
        }
        if let Some([from, to]) = freed {
            let to = o.section_symbol(to);
            reloc(&mut o, from, 8, to, 0, object::elf::R_X86_64_PC32.0);
        }
        defined(&mut o, abi::SYM_SHADOWS, shadows, 0);
        if let Some(declared) = declared {
            defined(&mut o, &format!("{}hits", abi::SHADOW_PREFIX), declared, 0);
        }
        defined(&mut o, &"f".repeat(self.long_name), text, 0);
        if let Some(kind) = self.extra_reloc {
            reloc(&mut o, text, 4, anchor, 0, kind);
        }
        o.write().unwrap()
    }
}

fn undefined(o: &mut Object<'_>, name: &str) -> SymbolId {
    o.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Unknown,
        scope: SymbolScope::Unknown,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    })
}

fn defined(o: &mut Object<'_>, name: &str, section: SectionId, value: u64) -> SymbolId {
    o.add_symbol(Symbol {
        name: name.as_bytes().to_vec(),
        value,
        size: 4,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    })
}

fn reloc(o: &mut Object<'_>, section: SectionId, offset: u64, symbol: SymbolId, addend: i64, kind: u32) {
    let flags = RelocationFlags::Elf { r_type: object::elf::RelocationType(kind) };
    o.add_relocation(section, Relocation { offset, symbol, addend, flags }).unwrap();
}

/// The codes that `verify` finds after `change`.
fn verified(change: impl FnOnce(&mut Parts)) -> Vec<&'static str> {
    verified_as(MANIFEST, change)
}

/// The same with another manifest.
fn verified_as(text: &str, change: impl FnOnce(&mut Parts)) -> Vec<&'static str> {
    let root = tempfile::tempdir().unwrap();
    let headers = headers::find(RELEASE, Some(&split_headers(root.path()))).unwrap();
    let manifest = Manifest::parse(text, "manifest.toml").unwrap();
    let kernel = manifest.kernel.clone().unwrap();
    let input = input::PatchFolder { manifest, manifest_text: text.to_owned(), why: None, kernel, object: vec![] };
    let mut parts = Parts::new();
    text.clone_into(&mut parts.manifest);
    change(&mut parts);
    parts.seal(&input.kernel);
    code(verify::verify(&parts.write(), &input, &headers, &Runtime::default()))
}

#[test]
fn a_module_as_it_was_asked_for_passes() {
    assert_eq!(verified(|_| {}), [""; 0]);
}

#[test]
fn every_field_of_the_module_is_compared() {
    for i in 0..8 {
        assert_eq!(verified(|p| p.modinfo[i] = "x=y".into()), ["LP4007"], "modinfo {i}");
    }
    assert_eq!(verified(|p| p.manifest.push(' ')), ["LP4007"]);
    assert_eq!(verified(|p| p.why = b"{}".to_vec()), ["LP4007"], "the folder has none");
    for at in [0, 8, 12, 13, 14, 16, 48, 52, 60, 128, 136] {
        let found = verified(|p| p.patch[at] ^= 4);
        assert!(!found.is_empty() && found.iter().all(|c| *c == "LP4009"), "patch record {at}: {found:?}");
    }
    for at in (offset_of!(abi::PatchRecord, holders)..size_of::<abi::PatchRecord>()).step_by(4) {
        assert_ne!(verified(|p| p.patch[at] ^= 4), [""; 0], "patch record {at}");
    }
    for field in [offset_of!(abi::FuncRecord, anchor), offset_of!(abi::FuncRecord, zero)] {
        assert_eq!(verified(|p| p.funcs[field] = 1), ["LP4009"], "function record {field}");
    }
    for field in [offset_of!(abi::RangeRecord, anchor), offset_of!(abi::RangeRecord, zero)] {
        assert_eq!(verified(|p| p.ranges[field] = 1), ["LP4009"], "range {field}");
    }
    assert_eq!(verified(|p| p.other_digest = 1), ["LP4009"], "digest");
    for at in [24, 28, 32, 34, 35, 37, 42, 43, 62] {
        assert_ne!(verified(|p| p.funcs[at] ^= 4), [""; 0], "function record {at}");
    }
    let single = offset_of!(abi::FuncRecord, single);
    assert_eq!(verified(|p| p.funcs[single] = 1), ["LP4009"], "several instructions that nobody is waited for in");
    for at in [8, 12, RANGE + 12] {
        assert_eq!(verified(|p| p.ranges[at] = 9), ["LP4009"], "range {at}");
    }
    assert_eq!(verified(|p| p.strings[0] = b'x'), ["LP4009"], "name of the patch");
    assert_eq!(verified(|p| p.strings[5] = b'2'), ["LP4009"], "version");
    assert_eq!(verified(|p| p.strings[9] = b'x'), ["LP4009"], "name of the function");
    assert_eq!(verified(|p| p.old += 1), ["LP4009"], "address of the old code");
    assert_eq!(verified(|p| p.start += 1), ["LP4009"], "guard of the function");
    assert_eq!(verified(|p| p.piece += 1), ["LP4009"], "guard of the piece");
}

#[test]
fn the_way_into_the_original_is_what_the_record_says() {
    for at in 16..52 {
        let field = (26..31).contains(&at) || (37..41).contains(&at);
        // A field that is relocated must be zero, and the byte between the two is nothing.
        let want = match at {
            31 => vec![],
            _ if field && at != 26 => vec!["LP4009", "LP4011"],
            _ => vec!["LP4009"],
        };
        let found = verified(|p| p.entrances[at - 16] ^= 1);
        assert!(found == want || field && found == ["LP4011"], "byte {at}: {found:?}");
    }
    assert_eq!(verified(|p| p.back += 1), ["LP4009"], "it goes on elsewhere");
    assert_eq!(verified(|p| p.chooses = "something_else"), ["LP4009"], "nobody is asked");
    assert_eq!(verified(|p| p.resume = Some(17)), ["LP4009", "LP4009"], "elsewhere");
    assert_eq!(verified(|p| p.resume = None), ["LP4009"], "one of the two");
    assert_eq!(verified(|p| p.dispatch = None), ["LP4009"], "the other one");
    let none = |p: &mut Parts| (p.resume, p.dispatch) = (None, None);
    assert_eq!(verified(none), [""; 0], "the machine is stopped");
    let drain = MANIFEST.replace("stop-machine", "drain");
    let mode = |p: &mut Parts| p.patch[12] = abi::Mode::Drain as u8;
    assert_eq!(verified_as(&drain, mode), [""; 0]);
    assert_eq!(verified_as(&drain, |p| (mode(p), none(p)).1), ["LP4009"], "it is not");
}

#[test]
fn names_of_other_patches_are_those_of_the_manifest() {
    let others = MANIFEST.replace("oneshot", "after = [\"demo2\"]\nreplaces = [\"func_a\"]\noneshot");
    let change = |p: &mut Parts| {
        (p.patch[144], p.patch[148]) = (1, 1);
        p.strings.extend_from_slice(b"demo2\0");
        p.others = [Some(16), Some(9)];
    };
    assert_eq!(verified_as(&others, change), [""; 0]);
    let wrong = |further: fn(&mut Parts)| verified_as(&others, |p| (change(p), further(p)).1);
    assert_eq!(wrong(|p| p.others[0] = Some(17)), ["LP4009"]);
    assert_eq!(wrong(|p| p.others.swap(0, 1)), ["LP4009", "LP4009"]);
    assert_eq!(wrong(|p| p.others[1] = None), ["LP4009"]);
    assert_eq!(wrong(|p| p.patch[148] = 2), ["LP4009"]);
    assert_eq!(verified(|p| p.patch[144] = 1), ["LP4009"]);
}

#[test]
fn shadow_variables_are_those_of_the_manifest() {
    let text = hashed(MANIFEST, b"").replacen("schema = 2", "schema = 4", 1);
    let text = format!("{text}\n[[shadow]]\nname = \"hits\"\nsize = 24\n");
    let list = || {
        let mut list = vec![24, 0, 0, 0];
        list.extend(b"hits");
        list.resize(104, 0);
        list
    };
    let declared = || {
        let mut bytes = vec![0; 16];
        (bytes[8], bytes[12]) = (24, 1);
        bytes.extend(b"hits");
        bytes.resize(64, 0);
        Some(bytes)
    };
    assert_eq!(verified_as(&text, |p| (p.shadows, p.declared) = (list(), declared())), [""; 0]);
    assert_eq!(verified_as(&text, |p| p.shadows = list()), ["LP4009"], "not declared");
    assert_eq!(verified(|p| p.declared = declared()), ["LP4009"], "declared and not in the manifest");
    let short = || list()[..103].to_vec();
    assert_eq!(verified_as(&text, |p| (p.shadows, p.declared) = (short(), declared())), ["LP4009"]);
    for (at, what) in [(0, "size"), (4, "name"), (10, "behind the name"), (52, "one more")] {
        let found = verified_as(&text, |p| {
            (p.shadows, p.declared) = (list(), declared());
            p.shadows[at] ^= 1;
        });
        assert_eq!(found, ["LP4009"], "{what}");
    }
    assert_eq!(verified(|p| p.shadows = list()), ["LP4009"]);
}

#[test]
fn callbacks_lead_to_the_functions_named() {
    assert_eq!(verified(|p| p.calls[0] = None), ["LP4009"], "a callback that is not called");
    assert_eq!(verified(|p| p.calls[0] = Some(9)), ["LP4009"], "into the middle");
    assert_eq!(verified(|p| p.calls[0] = Some(0)), ["LP4009"], "another function");
    assert_eq!(verified(|p| p.calls[2] = Some(8)), ["LP4009"], "one too many");
    assert_eq!(verified(|p| p.thunks = 3), ["LP4009"], "no thunk");
    assert_eq!(verified(|p| p.patch[14] = 1), ["LP4009"], "not among the flags");
}

#[test]
fn texts_in_c_source() {
    assert_eq!(detour::c_text("a \"b\" \\ ??/ ä"), "a \\\"b\\\" \\\\ \\?\\?/ ä");
}

#[test]
fn a_kernel_with_ibt_wants_endbr_in_the_module() {
    // The record's new function is reached by an indirect jump.
    let abs64 = manifest(crate::plan::manifest::Jump::Abs64);
    for (config, want) in [("", &[""; 0][..]), ("CONFIG_X86_KERNEL_IBT=y\n", &["LP4012"])] {
        let root = tempfile::tempdir().unwrap();
        let objects = split_headers(root.path());
        let path = objects.join(".config");
        fs::write(&path, fs::read_to_string(&path).unwrap() + config).unwrap();
        let headers = headers::find(RELEASE, Some(&objects)).unwrap();
        let parsed = Manifest::parse(&abs64, "manifest.toml").unwrap();
        let kernel = parsed.kernel.clone().unwrap();
        let input =
            input::PatchFolder { manifest: parsed, manifest_text: abs64.clone(), why: None, kernel, object: vec![] };
        let mut parts = Parts::new();
        parts.manifest = abs64.clone();
        parts.funcs[34] = 12;
        parts.funcs[43..49].fill(0x90);
        parts.funcs[35] = crate::plan::manifest::Jump::Abs64.to_abi() as u8;
        (parts.resume, parts.dispatch) = (None, None);
        parts.seal(&input.kernel);
        let found = verify::verify(&parts.write(), &input, &headers, &Runtime::default());
        assert_eq!(code(found), want, "{config}");
    }
}

#[test]
fn nothing_that_stays_refers_to_what_is_freed_behind_init() {
    let refers = |from, to| verified(|p| p.freed = Some((from, to)));
    for (from, to) in
        [(".text", ".init.text"), (".exit.text", ".init.text"), (".data", ".init.data"), (".text", ".init.data")]
    {
        assert_eq!(refers(from, to), ["LP4007"], "{from} to {to}");
    }
    for (from, to) in [
        (".init.text", ".init.data"),
        (".init.text", ".text"),
        (".gnu.linkonce.this_module", ".init.text"),
        ("__mcount_loc", ".init.text"),
        (".return_sites", ".init.text"),
    ] {
        assert_eq!(refers(from, to), [""; 0], "{from} to {to}");
    }
}

#[test]
fn what_the_module_loader_would_reject() {
    assert_eq!(verified(|p| p.extra_symbol = Some("not_exported")), ["LP4010"]);
    for kind in [1, 2, 4, 10, 11, 24] {
        assert_eq!(verified(|p| p.extra_reloc = Some(kind)), [""; 0], "type {kind}");
    }
    assert_eq!(verified(|p| p.long_name = 512), ["LP4015"]);
    // GOTPCREL, GOTPCRELX, PC8: "Unknown rela relocation".
    for kind in [9, 42, 15] {
        assert_eq!(verified(|p| p.extra_reloc = Some(kind)), ["LP4011"], "type {kind}");
    }
    let nonzero = verified(|p| (p.extra_reloc, p.text_byte) = (Some(2), 0x90));
    assert_eq!(nonzero, ["LP4011"], "the loader wants the field to be zero");
}
