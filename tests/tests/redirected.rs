//! Old objects that are not what runs: each reference of real objects made to lead elsewhere, one at a time, and each symbol
//! of another object called by a name the kernel does not have, bound to the stock image. All must be refused that lead
//! elsewhere in the kernel; the undamaged objects must bind.
//!
//! `LPBUILD_TEST_REDIRECT_ALL=1` takes every reference, else a part of them in a fixed order.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use harness::change::Change;
use harness::damage::{self, Field, Symbol};
use harness::mutate::elf::Elf;
use harness::tree::Flags;
use lpbuild::codes;
use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline::{self};
use lpbuild::plan::Role;
use lpbuild::plan::Source;
use lpbuild::symbolize::Target;
use lpbuild::{bind, ingest, symbolize};
use lpbuild_tests::Env;

/// Sections of which no reference means anything to the running kernel: dropped by the linker, read when vmlinux is linked,
/// or a list that a single object cannot know.
const MEANINGLESS: &[&str] = &[".discard.", "__patchable_function_entries", ".ibt_endbr_seal"];
/// Unwind entries count by the state they give each instruction, which a move within one state does not change, and only
/// with functions that are replaced.
const UNWIND: &str = ".orc_unwind_ip";

/// One kernel, its image, and how much is taken.
struct Bench<'a> {
    kernel: &'a KernelImage,
    every: usize,
    /// The same of what is tried with the references of code alone.
    near: usize,
    /// Tried, refused, and those that were not although they lead elsewhere.
    tried: usize,
    refused: usize,
    accepted: Vec<String>,
}

/// The place a reference leads to, as far as the object says; equal for two names of one place.
fn place(kernel: &KernelImage, symbol: &Symbol, addend: i64) -> (Option<usize>, i64) {
    match symbol.section {
        Some(section) => (Some(section), symbol.value.cast_signed() + addend),
        None => {
            let at =
                kernel.kallsyms().named(&symbol.name).next().map_or(i64::from(symbol.index), |s| s.addr.cast_signed());
            (None, at.wrapping_add(addend))
        }
    }
}

/// Whether a field is where an entry of `.altinstructions` has its replacement, and that has no bytes: then it leads to
/// nothing. The length is the last byte of an entry (struct alt_instr, arch/x86/include/asm/alternative.h).
fn is_empty_replacement(object: &[u8], field: &Field) -> bool {
    if field.section_name != ".altinstructions" {
        return false;
    }
    let elf = Elf::read(object.to_vec()).unwrap();
    let entries = elf.data(field.section);
    let relocs = elf.relocs(field.section, 0, entries.len() as u64);
    let Some(at) = relocs.iter().position(|r| r.at == field.offset) else { return false };
    let end = relocs.get(at + 1).map_or(entries.len(), |next| next.at as usize);
    at % 2 == 1 && entries[end - 1] == 0
}

impl Bench<'_> {
    /// The code of the refusal, if there is one.
    fn refusal(&self, name: &str, old: Vec<u8>, new: &[u8]) -> Option<&'static str> {
        let path = Path::new(name).to_owned();
        let source = Source {
            name: name.into(),
            old_path: path.clone(),
            new_path: path,
            old,
            new: new.to_vec(),
            holder: HolderName::Vmlinux,
        };
        let options = support::options();
        let mut analysis = match pipeline::analyse(&[source], &options) {
            Ok(analysis) => analysis,
            Err(e) => return Some(e.problems[0].code.id),
        };
        if let Some(first) = analysis.refused.first() {
            return Some(first.code.id);
        }
        pipeline::produce(&mut analysis, Some(self.kernel), &options).err().map(|e| e.problems[0].code.id)
    }

    fn object(&mut self, name: &str, old: &[u8], new: &[u8]) {
        let object = symbolize::Object::new(ingest::read(name, old).unwrap()).unwrap();
        let placed = bind::place(&object, self.kernel);
        for atom in object.atoms.iter().filter(|a| a.is_code() && object.section(a.section).name != ".exit.text") {
            let check = placed.check(atom.id);
            let overridden = matches!(check, Err((codes::LP3004, _)));
            assert!(check.is_ok() || overridden, "{name}: {} is what runs: {check:?}", atom.name);
        }
        assert_eq!(self.refusal(name, old.to_vec(), new), None, "{name}");
        let symbols = damage::symbols(old);
        let linked = |s: &&Symbol| s.loaded && !s.name.is_empty() && !s.name.starts_with(".discard");
        let usable: Vec<&Symbol> = symbols.iter().filter(linked).collect();
        let fields: Vec<Field> = damage::fields(old)
            .into_iter()
            .filter(|f| f.loaded && !MEANINGLESS.iter().any(|m| f.section_name.starts_with(m)))
            .filter(|f| f.section_name != UNWIND && !is_empty_replacement(old, f))
            .collect();
        let mut how: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, field) in fields.iter().enumerate().filter(|(i, _)| i % self.every == 0) {
            let own = &symbols[field.symbol as usize];
            let other = usable[(i * 7919 + 1) % usable.len()];
            for (to, addend) in [(other, field.addend), (own, field.addend + 8), (own, field.addend - 1)] {
                if place(self.kernel, own, field.addend) == place(self.kernel, to, addend) {
                    continue;
                }
                self.tried += 1;
                match self.refusal(name, damage::redirect(old, field, to.index, addend), new) {
                    Some(code) => {
                        self.refused += 1;
                        *how.entry(code).or_default() += 1;
                    }
                    None => self.accepted.push(format!(
                        "{name} {}+{:#x}: {}+{:#x} became {}+{addend:#x}",
                        field.section_name, field.offset, own.name, field.addend, to.name
                    )),
                }
            }
        }
        self.out_of_the_ordinary(name, old, new, &symbols, &fields);
        self.unknown_names(name, old, new);
        println!("{name}: {how:?}");
    }

    /// Each reference of code out of its section, a little way off, into replacement instructions, and to the strings of
    /// exported names with an offset that is none of theirs.
    fn out_of_the_ordinary(&mut self, name: &str, old: &[u8], new: &[u8], symbols: &[Symbol], fields: &[Field]) {
        let strange: Vec<&Symbol> = symbols
            .iter()
            .filter(|s| s.is_section && s.name == ".altinstr_replacement" || s.name.starts_with("__kstrtab"))
            .collect();
        let of_code = fields.iter().filter(|f| f.section_name.starts_with(".text"));
        for (i, field) in of_code.enumerate().filter(|(i, _)| i % self.near == 0) {
            let own = &symbols[field.symbol as usize];
            let mut tries: Vec<(&Symbol, i64)> =
                [-8, 16, 64, 4096].into_iter().map(|by| (own, field.addend + by)).collect();
            tries.extend(strange.get(i % strange.len().max(1)).map(|s| (*s, field.addend)));
            tries.extend(strange.iter().find(|s| s.is_section).map(|s| (*s, field.addend)));
            for (to, addend) in tries {
                self.tried += 1;
                match self.refusal(name, damage::redirect(old, field, to.index, addend), new) {
                    Some(_) => self.refused += 1,
                    None => self.accepted.push(format!(
                        "{name} {}+{:#x}: {}+{:#x} became {}+{addend:#x}",
                        field.section_name, field.offset, own.name, field.addend, to.name
                    )),
                }
            }
        }
    }

    /// Each symbol of another object that a replaced function refers to, called in both builds by a name that the kernel does
    /// not have: only the kernel can tell.
    fn unknown_names(&mut self, name: &str, old: &[u8], new: &[u8]) {
        const UNKNOWN: &str = "no_such_name";
        let path = Path::new(name).to_owned();
        let (old_path, new_path) = (path.clone(), path);
        let source = Source {
            name: name.into(),
            old_path,
            new_path,
            old: old.to_vec(),
            new: new.to_vec(),
            holder: HolderName::Vmlinux,
        };
        let analysis = pipeline::analyse(&[source], &support::options()).unwrap();
        let mut names = BTreeSet::new();
        for item in &analysis.set.items {
            let Role::Replaces(atom) = item.role else { continue };
            let object = &analysis.pairs[item.pair.0 as usize].old;
            for r in &object.atom(atom.0).refs {
                let Target::Extern(symbol, _) = r.target else { continue };
                let name = object.symbol_name(symbol);
                if self.kernel.kallsyms().named(name).len() > 0 {
                    names.insert(name.to_owned());
                }
            }
        }
        assert!(!names.is_empty());
        for known in names {
            self.tried += 1;
            // The new build may not have it any more.
            let renamed = |bytes: &[u8]| match damage::symbols(bytes).into_iter().find(|s| s.name == known) {
                Some(s) => Elf::read(bytes.to_vec()).unwrap().with_name(s.index as usize, UNKNOWN).unwrap(),
                None => bytes.to_vec(),
            };
            match self.refusal(name, renamed(old), &renamed(new)) {
                Some(_) => self.refused += 1,
                None => self.accepted.push(format!("{name}: {known} called {UNKNOWN}")),
            }
        }
    }
}

fn run(test: &str, series: &str) {
    let Some(env) = Env::find_series(test, series) else { return };
    let kernel = KernelImage::open(&env.kernel.vmlinuz).unwrap();
    let all = std::env::var_os("LPBUILD_TEST_REDIRECT_ALL").is_some();
    let source = env.kernel.old_source();
    let mut bench = Bench { kernel: &kernel, every: 1, near: 1, tried: 0, refused: 0, accepted: Vec::new() };
    for (file, from, to, every, near) in [
        ("fs/proc/cmdline.c", "seq_putc(m, '\\n');", "seq_puts(m, \" x\\n\");", 1, 1),
        (
            "fs/pipe.c",
            "/* Null read succeeds. */\n\tif (unlikely(total_len == 0))",
            "if (unlikely(total_len == 0 || iocb->ki_pos == 77))",
            13,
            13,
        ),
        // Its function reads a per-CPU variable of another object.
        (
            "kernel/capability.c",
            "if (pid != 0 && pid != task_pid_vnr(current))",
            "if (pid != 0 && pid != 77 && pid != task_pid_vnr(current))",
            13,
            7,
        ),
        // Nearly all it refers to are strings, and it has a feature test, whose empty replacement may be anywhere.
        ("fs/proc/meminfo.c", "i.totalram);", "i.totalram + 77);", 13, 1),
    ] {
        let change = Change::none().edit(&source, file, from, to).unwrap_or_else(|e| panic!("{e:#}"));
        let pair = env.tree.pair(&change, Flags::Plain).unwrap_or_else(|e| panic!("{e:#}"));
        (bench.every, bench.near) = if all { (1, 1) } else { (every, near) };
        for object in &pair.objects {
            let (old, new) = pair.files(object);
            bench.object(object, &std::fs::read(old).unwrap(), &std::fs::read(new).unwrap());
        }
    }
    println!("{} of {} references that lead elsewhere are refused", bench.refused, bench.tried);
    assert!(bench.tried > 100 && bench.accepted.is_empty(), "{:#?}", bench.accepted);
}

#[test]
fn references_that_lead_elsewhere_are_refused() {
    run("references_that_lead_elsewhere_are_refused", "6.1");
}

#[test]
fn references_that_lead_elsewhere_are_refused_in_a_newer_series() {
    run("references_that_lead_elsewhere_are_refused_in_a_newer_series", "6.12");
}

/// Whatever stock objects there are: `LPBUILD_TEST_STOCK` names a folder with them, `LPBUILD_TEST_KERNEL` their image.
#[test]
fn stock_objects_are_what_runs() {
    let named = |key| std::env::var_os(key).map(std::path::PathBuf::from);
    let (Some(folder), Some(image)) = (named("LPBUILD_TEST_STOCK"), named("LPBUILD_TEST_KERNEL")) else {
        println!("skipped: LPBUILD_TEST_STOCK and LPBUILD_TEST_KERNEL name no stock objects and no image");
        return;
    };
    let kernel = KernelImage::open(&image).unwrap();
    let (mut todo, mut wrong, mut proven) = (vec![folder], Vec::new(), 0);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            continue;
        }
        let name = path.display().to_string();
        let Ok(image) = ingest::read(&name, &std::fs::read(&path).unwrap()) else { continue };
        let object = symbolize::Object::new(image).unwrap();
        let placed = bind::place(&object, &kernel);
        if placed.counts() == (0, 0) {
            println!("{name}: not in the image");
            continue;
        }
        for atom in object.atoms.iter().filter(|a| a.is_code()) {
            match placed.check(atom.id) {
                Ok(()) => proven += 1,
                Err((codes::LP3004, _)) => {}
                Err(why) => wrong.push(format!("{name}: {}: {why:?}", atom.name)),
            }
        }
        for atom in object.atoms.iter().filter(|a| !a.is_code() && placed.address(a.id).is_some()) {
            if let Err(why) = placed.check_data(atom.id, object.class_of(atom.id) == symbolize::Class::Rodata) {
                wrong.push(format!("{name}: {}: {why:?}", atom.name));
            }
        }
    }
    println!("{proven} functions proven");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
