//! Fixes of stock modules: what changes is found in the file of the module, every reference gets an address or a record that says how
//! the runtime finds it, and what cannot wait for the module is refused (LP2026).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::change::Change;
use harness::runpre::RunPre;
use lpbuild::backend::detour;
use lpbuild::emit::Output;
use lpbuild::error::{Error, Problem};
use lpbuild::flow::{self, Ask, folder};
use lpbuild::holder::{HolderName, ModuleFinder, ModuleHolder, Running};
use lpbuild::pipeline;
use lpbuild::plan::Source;
use lpbuild::plan::manifest::{HolderEntry, Manifest, SectionSymbol};
use lpbuild_tests::bench::module_of;
use lpbuild_tests::{Env, ko_pair};
use object::{Object, ObjectSection, ObjectSymbol};

mod support;

use support::values;

const COUNTERS: &str = "\tif (static_branch_unlikely(&nft_counters_enabled))\n";
const PROBE: &str = "\ttrace_sctp_probe(ep, asoc, chunk);\n";
const MODULE: &str = "fs/binfmt_misc";
const READ: &str = "s, strlen(s));\n}\n\nstatic ssize_t bm_status_write(";

struct Bench {
    env: Env,
    kernel: RunPre,
}

impl Bench {
    fn find(name: &str, series: &str) -> Option<Self> {
        let env = Env::find_series(name, series)?;
        let kernel = RunPre::of(&env.kernel).unwrap();
        Some(Self { env, kernel })
    }

    fn module(&self) -> ModuleHolder {
        self.kernel.holder(MODULE, self.kernel.files()).unwrap()
    }

    /// A change of the function that shows the state, and perhaps of another file as well.
    fn source(&self, object: &str, change: &Change, holder: HolderName) -> Source {
        let built = |change: &Change| self.env.tree.built(object, change).unwrap().unwrap();
        let (old, new) = (built(&Change::none()), built(change));
        Source { name: object.into(), old_path: object.into(), new_path: object.into(), old, new, holder }
    }

    fn edit(&self, to: &str) -> Change {
        let file = format!("{MODULE}.c");
        Change::none().edit(&self.env.tree.source, &file, READ, to).unwrap()
    }

    fn produce(&self, sources: &[Source], modules: &[ModuleHolder]) -> Result<Output, Error> {
        let options = support::options();
        let mut analysis = pipeline::analyse(sources, &options).unwrap();
        assert_eq!(analysis.refused, []);
        pipeline::produce_on(&mut analysis, Some(self.running(modules)), &options)
    }

    fn running<'a>(&'a self, modules: &'a [ModuleHolder]) -> Running<'a> {
        Running { kernel: self.kernel.image(), modules }
    }

    fn refused(&self, sources: &[Source], modules: &[ModuleHolder]) -> Vec<Problem> {
        self.produce(sources, modules).map_or_else(|e| e.problems, |_| panic!("nothing is refused"))
    }

    /// The patch, in which the second reader and the images find what its manifest says.
    fn made(&self, sources: &[Source], modules: &[ModuleHolder]) -> Output {
        let output = self.produce(sources, modules).unwrap_or_else(|e| panic!("{e}"));
        let again = self.produce(sources, modules).unwrap();
        assert!(output.patch_o == again.patch_o && output.manifest == again.manifest, "the same bytes each time");
        assert_eq!(self.contradictions(&output, &output.manifest, modules), [""; 0]);
        output
    }

    fn contradictions(&self, output: &Output, manifest: &Manifest, modules: &[ModuleHolder]) -> Vec<String> {
        let mut found = detour::contradictions(manifest, self.running(modules));
        let text = manifest.to_toml().unwrap();
        let records = detour::record_contradictions("patch.o", &output.patch_o, &text, manifest);
        // patch.o has no .modinfo yet: kbuild makes it of the manifest.
        found.extend(records.into_iter().filter(|p| p.code.id != "LP4007"));
        found.iter().map(ToString::to_string).collect()
    }

    /// An object of a module, with another text in its source.
    fn other(&self, object: &str, module: &str, from: &str, to: &str) -> Source {
        let change = Change::none().edit(&self.env.tree.source, &object.replace(".o", ".c"), from, to).unwrap();
        self.source(object, &change, HolderName::of_file(module))
    }

    /// The object of the module, with a call in the function that shows the state.
    fn calling(&self, function: &str) -> Source {
        let file = format!("{MODULE}.c");
        let text = fs::read_to_string(self.env.tree.source.join(&file)).unwrap();
        let to = READ.replace("strlen(s)", &format!("({function}(), strlen(\"disabled\\n\"))"));
        assert_eq!(text.matches(READ).count(), 1);
        let text = text.replace(READ, &to);
        let (head, rest) = text.split_once("\n#define").unwrap();
        let change = Change::none().file(&file, format!("{head}\nextern void {function}(void);\n#define{rest}"));
        self.source(&format!("{MODULE}.o"), &change, HolderName::of_file(MODULE))
    }
}

/// With new references to a string the module has already and to a function that the kernel exports and it did not import before.
fn a_fix_waits_for_its_module(name: &str, series: &str) {
    let Some(b) = Bench::find(name, series) else { return };
    let modules = [b.module()];
    let output = b.made(&[b.calling("touch_softlockup_watchdog")], &modules);
    let m = &output.manifest;
    assert_eq!((m.schema, m.holders.len(), m.functions.len()), (3, 1, 1));
    let f = &m.functions[0];
    assert_eq!((f.object.as_str(), f.section.as_deref(), f.anchor_offset), ("binfmt_misc", Some(".text"), None));
    found_by_a_loader(&b, MODULE, &m.holders[0]);
    // What it does not depend on may not be there when it is, and what is not exported it could not have.
    for (function, why) in
        [("nf_ct_iterate_destroy", "does not depend on"), ("cmdline_proc_show", "a module exports it")]
    {
        let problems = b.refused(&[b.calling(function)], &modules);
        let found = problems.iter().find(|p| p.code.id == "LP3003").map(ToString::to_string).unwrap_or_default();
        assert!(found.contains(function) && found.contains(why), "{problems:?}");
    }
}

/// What a loader that puts every section somewhere else, and keeps the symbol table in its order, leads to.
fn found_by_a_loader(b: &Bench, module: &str, holder: &HolderEntry) {
    let file = fs::read(b.kernel.files().file(module).unwrap()).unwrap();
    let file = unpacked(&file);
    let elf = object::File::parse(&*file).unwrap();
    let base = |index: object::SectionIndex| 0xffff_ffff_c100_0000 + (index.0 as u64 * 7919 % 251) * 0x10_0000;
    let named = |name: &str| elf.section_by_name(name).unwrap_or_else(|| panic!("{name} in {module}"));
    let value = |s: &object::Symbol<'_, '_>| s.section_index().map_or(0, base) + s.address();
    let symbol = |s: &SectionSymbol| {
        let core = |x: &object::Symbol<'_, '_>| {
            let section = x.section_index().and_then(|i| elf.section_by_index(i).ok());
            x.name() == Ok(&s.name) && section.is_some_and(|s| !s.name().unwrap().starts_with(".init"))
        };
        let all: Vec<u64> = elf.symbols().filter(core).map(|x| value(&x)).collect();
        assert_eq!(all.len(), s.count as usize, "{s:?}");
        all[s.position as usize] - s.offset
    };
    for section in &holder.sections {
        let want = base(named(&section.name).index());
        for by in section.symbol.iter().chain(&section.witness) {
            assert_eq!(symbol(by), want, "{module}: {by:?}");
        }
        if let Some(field) = &section.field {
            let host = named(&field.section);
            let (_, r) = host.relocations().find(|(at, _)| *at == field.offset).expect("a field");
            let object::RelocationTarget::Symbol(to) = r.target() else { panic!("{field:?}") };
            // The runtime takes away what the kind of a field adds: its place.
            let says = value(&elf.symbol_by_index(to).unwrap()).wrapping_add_signed(r.addend());
            assert_eq!(says.wrapping_add_signed(-field.delta), want, "{module}: {field:?}");
        }
    }
}

fn unpacked(file: &[u8]) -> Vec<u8> {
    if !file.starts_with(b"\xfd7zXZ") {
        return file.to_vec();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.xz");
    fs::write(&path, file).unwrap();
    Command::new("xz").arg("-dc").arg(path).output().unwrap().stdout
}

#[test]
fn a_fix_waits_for_its_module_61() {
    a_fix_waits_for_its_module("a_fix_waits_for_its_module_61", "6.1");
}

#[test]
fn a_fix_waits_for_its_module_612() {
    a_fix_waits_for_its_module("a_fix_waits_for_its_module_612", "6.12");
}

/// Finds one module somewhere else.
#[derive(Debug)]
struct Elsewhere<'a>(PathBuf, &'a dyn ModuleFinder);

impl ModuleFinder for Elsewhere<'_> {
    fn file(&self, modfile: &str) -> Result<PathBuf, Error> {
        if modfile == MODULE { Ok(self.0.clone()) } else { self.1.file(modfile) }
    }
}

/// The file with another byte in a function.
fn altered(file: &Path, function: &str) -> Vec<u8> {
    let packed = file.extension().is_some_and(|e| e == "xz");
    let mut data = match packed {
        true => Command::new("xz").arg("-dc").arg(file).output().unwrap().stdout,
        false => fs::read(file).unwrap(),
    };
    let elf = object::File::parse(&*data).unwrap();
    let symbol = elf.symbols().find(|s| s.name() == Ok(function)).unwrap();
    let section = elf.section_by_index(symbol.section_index().unwrap()).unwrap();
    let relocated = |at: u64| section.relocations().any(|(r, _)| (r..r + 8).contains(&at));
    let at = (symbol.address()..symbol.address() + symbol.size()).find(|at| !relocated(*at)).unwrap();
    let at = usize::try_from(section.file_range().unwrap().0 + at).unwrap();
    data[at] ^= 1;
    data
}

#[test]
fn another_build_of_the_module_is_told_by_its_code() {
    let Some(b) = Bench::find("another_build_of_the_module_is_told_by_its_code", "6.1") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("binfmt_misc.ko");
    fs::write(&path, altered(&b.kernel.files().file(MODULE).unwrap(), "bm_status_read")).unwrap();
    let other = b.kernel.holder(MODULE, &Elsewhere(path, b.kernel.files())).unwrap();
    let change = b.edit(&READ.replace("strlen(s)", "strlen(s) - 1"));
    let source = b.source(&format!("{MODULE}.o"), &change, HolderName::of_file(MODULE));
    let problems = b.refused(&[source], &[other]);
    let found = problems.iter().find(|p| p.code.id == "LP3001").map(ToString::to_string).unwrap_or_default();
    assert!(found.contains("bm_status_read"), "{problems:?}");
}

#[test]
fn a_module_beside_the_kernel_does_not_keep_its_code_from_being_bound() {
    let Some(b) = Bench::find("a_module_beside_the_kernel", "6.1") else { return };
    let of_module = b.source(
        &format!("{MODULE}.o"),
        &b.edit(&READ.replace("strlen(s)", "strlen(s) - 1")),
        HolderName::of_file(MODULE),
    );
    let change = Change::none()
        .edit(&b.env.tree.source, "fs/proc/cmdline.c", "seq_putc(m, '\\n');", "seq_puts(m, \" .\\n\");")
        .unwrap();
    let of_kernel = b.source("fs/proc/cmdline.o", &change, HolderName::Vmlinux);
    let output = b.made(&[of_module, of_kernel], &[b.module()]);
    let objects: Vec<_> = output.manifest.functions.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(objects, ["vmlinux", "binfmt_misc"], "the kernel's first");
}

/// A section of strings has no symbol, or names that others have as well.
#[test]
fn sections_without_a_name_of_their_own_are_found() {
    let Some(b) = Bench::find("sections_without_a_name_of_their_own", "6.1") else { return };
    let cases = [
        (
            "net/8021q/vlanproc.o",
            "net/8021q/8021q",
            "seq_printf(seq, \"Device: %s\", vlan->real_dev->name)",
            "seq_printf(seq, \"Device %s\", vlan->real_dev->name)",
        ),
        (
            "fs/fuse/inode.o",
            "fs/fuse/fuse",
            "\t\t\tseq_puts(m, \",allow_other\");\n",
            "\t\t\tseq_puts(m, \",default_permissions\");\n",
        ),
        // Its messages are named in pieces that are shorter than anybody's jump.
        (
            "fs/fat/nfs.o",
            "fs/fat/fat",
            "\tbrelse(parent_bh);\n\tiput(dummy_grand_parent);\n",
            "\tiput(dummy_grand_parent);\n\tbrelse(parent_bh);\n",
        ),
    ];
    let mut by = BTreeSet::new();
    for (object, module, from, to) in cases {
        let holder = b.kernel.holder(module, b.kernel.files()).unwrap();
        let modules = [holder];
        let output = b.made(&[b.other(object, module, from, to)], &modules);
        let holder = &output.manifest.holders[0];
        found_by_a_loader(&b, module, holder);
        by.extend(holder.sections.iter().map(|s| (s.found.clone(), s.symbol.as_ref().is_some_and(|s| s.count > 1))));
    }
    assert!(by.contains(&("field".into(), false)) && by.contains(&("symbol".into(), true)), "{by:?}");
}

/// A key that the patch adds, whose list the kernel would have in what begins anew with each coming of the module.
#[test]
fn what_the_kernel_keeps_beyond_the_going_of_a_module_is_not_added_for_it() {
    let Some(b) = Bench::find("what_the_kernel_keeps", "6.1") else { return };
    let (object, module) = ("net/sctp/sm_statefuns.o", "net/sctp/sctp");
    let modules = [b.kernel.holder(module, b.kernel.files()).unwrap()];
    let key = "\t{\n\t\tstatic DEFINE_STATIC_KEY_FALSE(lpt_key);\n\n\t\tif (static_branch_unlikely(&lpt_key))\n\
               \t\t\tsmp_mb();\n\t}\n";
    let source = b.other(object, module, PROBE, &format!("{key}{PROBE}"));
    let problems: Vec<String> = b.refused(&[source], &modules).iter().map(ToString::to_string).collect();
    let found = |p: &String| {
        p.contains("LP2026")
            && p.contains("__jump_table")
            && p.contains("lpt_key")
            && p.contains("which the patch adds")
    };
    assert!(problems.iter().any(found), "{problems:?}");
    assert!(!problems.iter().any(|p| p.contains("sctp_probe")), "{problems:?}");
}

/// A patch whose entries of keys are handed to the kernel when the module is here; the module loader does not see them.
struct Waiting<'a> {
    output: Output,
    object: &'a str,
    module: &'a str,
}

impl Waiting<'_> {
    /// Where the file has the records that fill in something among what is brought for the module, of that kind: keys.
    fn keys(&self, kind: lpbuild_abi::FieldKind) -> Vec<usize> {
        let file = object::File::parse(&*self.output.patch_o).unwrap();
        let relocs = file.section_by_name(".lpbuild.relocs").unwrap();
        let data = file.section_by_name(&format!(".data.lpbuild.{}", self.module)).unwrap().index();
        let (start, records) = (relocs.file_range().unwrap().0 as usize, relocs.data().unwrap());
        let leads: Vec<(u64, bool)> = relocs
            .relocations()
            .map(|(at, r)| match r.target() {
                object::RelocationTarget::Symbol(s) => {
                    (at, file.symbol_by_index(s).is_ok_and(|s| s.section_index() == Some(data)))
                }
                _ => (at, false),
            })
            .collect();
        let own = |at: &usize| records[at + 32] == kind as u8 && leads.contains(&(*at as u64, true));
        (0..records.len()).step_by(40).filter(own).map(|at| start + at).collect()
    }

    /// The second reader looks at every key.
    fn held(&self, b: &Bench, modules: &[ModuleHolder], keys: &[usize], what: &str) {
        assert!(!keys.is_empty(), "{} has none", self.object);
        for key in keys {
            // Another kind; flags that say something else than the code; another place.
            for (at, change) in [(32, lpbuild_abi::FieldKind::Abs64 as u8), (8, 2)] {
                let mut other =
                    Output { patch_o: self.output.patch_o.clone(), manifest: self.output.manifest.clone(), why: None };
                if at == 8 {
                    other.patch_o[key + at] ^= change
                } else {
                    other.patch_o[key + at] = change
                }
                let found = b.contradictions(&other, &self.output.manifest, modules);
                let right = found.iter().any(|p| p.contains("LP4009") && p.contains(what));
                assert!(right || at == 8 && what != "its static calls", "{found:?}");
            }
        }
    }
}

fn waiting<'a>(
    b: &Bench,
    modules: &[ModuleHolder],
    object: &'a str,
    module: &'a str,
    text: &str,
    to: &str,
) -> Waiting<'a> {
    let output = b.made(&[b.other(object, module, text, to)], modules);
    let name = module.rsplit('/').next().unwrap();
    Waiting { output, object, module: name }
}

fn loaders(output: &Output, section: &str) -> usize {
    let file = object::File::parse(&*output.patch_o).unwrap();
    file.section_by_name(section).map_or(0, |s| s.relocations().count())
}

#[test]
fn jumps_of_keys_that_a_module_has_wait_for_it() {
    for series in ["6.1", "6.12"] {
        let Some(b) = Bench::find("jumps_of_keys_that_a_module_has", series) else { return };
        let (object, module) = ("net/netfilter/nf_tables_core.o", "net/netfilter/nf_tables");
        let modules = [b.kernel.holder(module, b.kernel.files()).unwrap()];
        let it = waiting(&b, &modules, object, module, COUNTERS, &format!("\tsmp_mb();\n{COUNTERS}"));
        let keys = it.keys(lpbuild_abi::FieldKind::Pc64);
        // Of each the code and its destination; the key is none of the loader's.
        let own = loaders(&it.output, ".data.lpbuild.nf_tables");
        assert!(own == 2 * keys.len() && loaders(&it.output, "__jump_table").is_multiple_of(3), "{own} {}", keys.len());
        it.held(&b, &modules, &keys, "jumps of its keys");
    }
}

#[test]
fn static_calls_of_a_module_wait_for_it_and_its_tracepoints_do() {
    for series in ["6.1", "6.12"] {
        let Some(b) = Bench::find("static_calls_of_a_module", series) else { return };
        let (object, module) = ("net/sctp/sm_statefuns.o", "net/sctp/sctp");
        let modules = [b.kernel.holder(module, b.kernel.files()).unwrap()];
        let it = waiting(&b, &modules, object, module, PROBE, &format!("\tsmp_mb();\n{PROBE}"));
        let (jumps, calls) = (it.keys(lpbuild_abi::FieldKind::Pc64), it.keys(lpbuild_abi::FieldKind::Pc32));
        assert_eq!(loaders(&it.output, ".data.lpbuild.sctp"), 2 * jumps.len() + calls.len());
        it.held(&b, &modules, &calls, "its static calls");
        it.held(&b, &modules, &jumps, "jumps of its keys");
    }
}

/// One of them is the last call of a function, and so a jump.
#[test]
fn a_static_call_that_is_no_tracepoint_waits_as_well() {
    for series in ["6.1", "6.12"] {
        let Some(b) = Bench::find("a_static_call_that_is_no_tracepoint", series) else { return };
        let (object, module) = ("arch/x86/kvm/pmu.o", "arch/x86/kvm/kvm");
        let modules = [b.kernel.holder(module, b.kernel.files()).unwrap()];
        let text = if series == "6.1" {
            "\treturn static_call(kvm_x86_pmu_set_msr)(vcpu, msr_info);\n"
        } else {
            "\treturn kvm_pmu_call(set_msr)(vcpu, msr_info);\n"
        };
        let it = waiting(&b, &modules, object, module, text, &format!("\tsmp_mb();\n{text}"));
        it.held(&b, &modules, &it.keys(lpbuild_abi::FieldKind::Pc32), "its static calls");
    }
}

#[test]
fn jumps_of_keys_that_are_constant_behind_the_init_wait_apart() {
    for series in ["6.1", "6.12"] {
        let Some(b) = Bench::find("jumps_of_keys_that_are_constant", series) else { return };
        let (object, module) = ("arch/x86/crypto/poly1305_glue.o", "arch/x86/crypto/poly1305-x86_64");
        let modules = [b.kernel.holder(module, b.kernel.files()).unwrap()];
        let text = "\tif (!static_branch_likely(&poly1305_use_avx) ||\n";
        let it = waiting(&b, &modules, object, module, text, &format!("\tsmp_mb();\n{text}"));
        let it = Waiting { module: "poly1305_x86_64", ..it };
        it.held(&b, &modules, &it.keys(lpbuild_abi::FieldKind::Pc64), "jumps of its constant keys");
    }
}

const VLAN: (&str, &str) = ("net/8021q/vlanproc.o", "net/8021q/8021q");
const VLAN_TITLE: &str = "\t\tseq_puts(seq, \"VLAN Dev name\t | VLAN ID\\n\");\n";

/// `garp` exports it to `8021q`, which imports others of it; `psnap` imports nothing of either.
#[test]
fn what_another_module_exports_is_found_in_that() {
    let Some(b) = Bench::find("what_another_module_exports_is_found", "6.1") else { return };
    let modules = b.kernel.holders(VLAN.1).unwrap();
    let names: Vec<_> = modules.iter().map(|m| m.name.to_string()).collect();
    assert_eq!(names, ["8021q", "garp", "mrp"]);
    let more = "\t\t{ extern void garp_uninit_applicant(void); seq_printf(seq, \"%ps\", garp_uninit_applicant); }\n";
    let source = || b.other(VLAN.0, VLAN.1, VLAN_TITLE, &format!("{VLAN_TITLE}{more}"));
    let output = b.made(&[source()], &modules);
    let holders = &output.manifest.holders;
    let needs: Vec<_> = holders.iter().map(|h| (h.name.as_str(), h.needs.clone())).collect();
    assert_eq!(needs, [("8021q", vec!["garp".to_owned()]), ("garp", vec![])]);
    found_by_a_loader(&b, "net/802/garp", &holders[1]);
    // The records say so as well.
    for (i, needs) in [vec![], vec!["8021q".to_owned()]].into_iter().enumerate() {
        let mut other = output.manifest.clone();
        other.holders[i].needs = needs;
        assert_ne!(b.contradictions(&output, &other, &modules), [""; 0], "{i}");
    }
    // A module that is not loaded whenever this one is may be gone.
    let more = more.replace("garp_uninit_applicant", "register_snap_client");
    let source = b.other(VLAN.0, VLAN.1, VLAN_TITLE, &format!("{VLAN_TITLE}{more}"));
    let problems = b.refused(&[source], &modules);
    assert!(
        problems.iter().any(|p| p.code.id == "LP3003" && p.to_string().contains("does not depend on")),
        "{problems:?}"
    );
}

/// As of the kernel alone: manifest_fields.rs.
#[test]
fn every_value_about_a_module_is_held_against_something() {
    let Some(b) = Bench::find("every_value_about_a_module", "6.1") else { return };
    let modules = [b.module()];
    let output = b.made(&[b.calling("touch_softlockup_watchdog")], &modules);
    let text = output.manifest.to_toml().unwrap();
    let value: toml::Value = text.parse::<toml::Table>().unwrap().into();
    let mut passed = Vec::new();
    let all = values::changed(&value);
    for (path, other) in &all {
        let of_module = ["holder", "function", "symbol."].iter().any(|key| path.starts_with(key));
        let text = path.starts_with("function.why")
            || path.starts_with("function.source")
            || path.starts_with("symbol.source");
        if !of_module || text {
            continue;
        }
        let text = toml::to_string(other).unwrap();
        let Ok(manifest) = Manifest::parse(&text, "manifest.toml") else { continue };
        if b.contradictions(&output, &manifest, &modules).is_empty() {
            passed.push(path);
        }
    }
    assert!(passed.is_empty(), "{passed:#?} change nothing that is looked at");
    for key in ["holder.section.symbol.offset", "holder.file-sha256", "function.section-offset", "symbol.section"] {
        assert!(all.iter().any(|(path, _)| path.starts_with(key)), "{key} is not in the manifest of this test");
    }
}

#[test]
fn what_a_module_frees_seals_or_hides_is_not_referred_to() {
    let Some(b) = Bench::find("what_a_module_frees_seals_or_hides_is_not_referred_to", "6.12") else { return };
    let (file, module) = ("net/8021q/vlan_dev.c", "net/8021q/8021q");
    let line = "\tdev_mc_sync(vlan_dev_priv(vlan_dev)->real_dev, vlan_dev);\n\tdev_uc_sync(";
    let cases = [
        ("vlan_netlink_init();", "LP2003", "8021q frees when its init function is done"),
        ("vlan_dev->watchdog_timeo = (int)(long)vlan_gvrp_uninit;", "LP3006", "the kernel removes its ENDBR"),
        // Static in another object of the module, which does not mean it.
        ("{ extern void vlan_seq_start(void); vlan_seq_start(); }", "LP3003", "no global symbol of this name"),
    ];
    for (more, code, why) in cases {
        let change = Change::none().edit(&b.env.tree.source, file, line, &format!("\t{more}\n{line}")).unwrap();
        let source = b.source("net/8021q/vlan_dev.o", &change, HolderName::of_file(module));
        let holder = b.kernel.holder(module, b.kernel.files()).unwrap();
        let problems = b.refused(&[source], &[holder]);
        let found = problems.iter().find(|p| p.code.id == code).map(ToString::to_string).unwrap_or_default();
        assert!(found.contains(why), "{problems:?}");
    }
}

#[test]
fn a_module_does_not_begin_to_have_what_it_imports() {
    let Some(b) = Bench::find("a_module_does_not_begin_to_have_what_it_imports", "6.1") else { return };
    let file = format!("{MODULE}.c");
    let own = "\nssize_t simple_read_from_buffer(void __user *to, size_t count, loff_t *at, const void *from, size_t size)\n\
               {\n\treturn *at + size;\n}\n";
    let text = fs::read_to_string(b.env.tree.source.join(&file)).unwrap() + own;
    let source = b.source(&format!("{MODULE}.o"), &Change::none().file(&file, text), HolderName::of_file(MODULE));
    let problems = b.refused(&[source], &[b.module()]);
    let found = problems.iter().find(|p| p.code.id == "LP2022").map(ToString::to_string).unwrap_or_default();
    assert!(found.contains("simple_read_from_buffer") && found.contains("or imports it"), "{problems:?}");
}

/// As for `lpbuild build`: what it imports from is found beside the kernel.
#[test]
fn two_files_of_a_module_that_imports_from_another_give_a_patch() {
    let Some(b) = Bench::find("two_files_of_a_module_that_imports", "6.1") else { return };
    let importing = |s: String| {
        let declared =
            "extern void garp_uninit_applicant(void);\nstatic void *volatile kept = garp_uninit_applicant;\n";
        let s = s.replacen("static unsigned int reads;\n", &format!("{declared}static unsigned int reads;\n"), 1);
        s.replace("m->size ? 200 : 300", "(unsigned long)garp_uninit_applicant > 200 ? 200 : 300")
            .replace("seq_has_overflowed(m) ? -1 :", "seq_has_overflowed(m) ? !kept :")
            .replace("ko_pair", "ko_imports")
    };
    let [old, new] = ko_pair::sources().map(importing).map(|s| module_of(&b.env, "6.1", "ko_imports", &s));
    let kernel = &b.env.kernel;
    let ask = Ask {
        old: &old,
        new: &new,
        kernel: Some(&kernel.vmlinuz),
        modules: &[],
        headers: Some(&kernel.headers),
        output: None,
        no_debug_info: true,
    };
    let found = flow::diff(&ask, &support::options()).unwrap();
    assert_eq!(found.analysis.refused, []);
    let holders = found.patch.unwrap().manifest.holders;
    let holders: Vec<_> = holders.iter().map(|h| (h.name.as_str(), h.needs.join(" "))).collect();
    assert_eq!(holders, [("garp", String::new()), ("ko_imports", "garp".to_owned())]);
}

/// The files of two builds are all there is: stripped, compressed, and the functions of the new one at other places.
fn two_files_of_a_module_give_a_patch(name: &str, series: &'static str, other: &str) {
    let Some(b) = Bench::find(name, series) else { return };
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = ko_pair::sources().map(|s| module_of(&b.env, series, ko_pair::NAME, &s));
    let [stripped, packed] = ["old.ko", "new.ko"].map(|f| dir.path().join(f));
    for (from, to) in [(&old, &stripped), (&new, &packed)] {
        let strip = Command::new("strip").arg("--strip-debug").arg(from).arg("-o").arg(to).status().unwrap();
        assert!(strip.success());
    }
    assert!(Command::new("xz").arg("--check=crc32").arg(&packed).status().unwrap().success());
    let packed = dir.path().join("new.ko.xz");
    let kernel = &b.env.kernel;
    let out = dir.path().join("out");
    let ask = Ask {
        old: &stripped,
        new: &packed,
        kernel: Some(&kernel.vmlinuz),
        modules: &[],
        headers: Some(&kernel.headers),
        output: Some(&out),
        no_debug_info: false,
    };
    let mut options = support::options();
    options.lines_kept = true;
    let found = flow::diff(&ask, &options).unwrap();
    assert_eq!(found.analysis.refused, []);
    let output = found.patch.unwrap();
    let m = &output.manifest;
    assert_eq!((m.schema, m.holders.len(), m.functions.len()), (3, 1, 1));
    assert_eq!((m.holders[0].name.as_str(), m.functions[0].object.as_str()), (ko_pair::NAME, ko_pair::NAME));
    assert!(m.functions[0].symbol.starts_with("number"), "{:?}", m.functions);
    folder::check(&out, &kernel.vmlinuz, Some(&kernel.headers), std::slice::from_ref(&stripped)).unwrap();
    // Another build of it, one that is not there, one the patch is not for.
    let check = |files: &[PathBuf]| folder::check(&out, &kernel.vmlinuz, Some(&kernel.headers), files);
    let why = |files: &[PathBuf]| check(files).unwrap_err().to_string();
    let text = why(std::slice::from_ref(&packed));
    assert!(text.contains("LP4014") && text.contains("build id of ko_pair"), "{text}");
    let text = why(&[]);
    assert!(text.contains("LP3009") && text.contains("--module"), "{text}");
    let text = why(&[b.kernel.files().file(MODULE).unwrap()]);
    assert!(text.contains("LP3009") && text.contains("binfmt_misc"), "{text}");
    // A stock module against itself with other bytes, and against the kernel of another release.
    let stock = b.kernel.files().file(MODULE).unwrap();
    let same = flow::diff(&Ask { old: &stock, new: &stock, output: None, ..ask }, &options).unwrap();
    assert!(same.patch.is_none() && same.analysis.set.items.is_empty());
    if let Ok(Some(other)) = harness::kernels::Kernel::locate(other) {
        let wrong = flow::diff(&Ask { kernel: Some(&other.vmlinuz), headers: Some(&other.headers), ..ask }, &options)
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("LP3009") && wrong.contains(&kernel.release) && wrong.contains(&other.release),
            "{wrong}"
        );
    }
}

#[test]
fn two_files_of_a_module_give_a_patch_61() {
    two_files_of_a_module_give_a_patch("two_files_of_a_module_give_a_patch_61", "6.1", "6.12");
}

#[test]
fn two_files_of_a_module_give_a_patch_612() {
    two_files_of_a_module_give_a_patch("two_files_of_a_module_give_a_patch_612", "6.12", "6.1");
}
