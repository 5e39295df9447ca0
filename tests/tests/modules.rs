//! Fixes of stock modules: what changes is found in the file of the module, every reference gets an address, and all that stands
//! against the patch is that this version cannot write it before the module is loaded (LP2026).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::change::Change;
use harness::runpre::RunPre;
use lpbuild::error::{Error, Problem};
use lpbuild::holder::{HolderName, ModuleFinder, ModuleHolder, Running};
use lpbuild::pipeline;
use lpbuild::plan::Source;
use lpbuild_tests::Env;
use object::{Object, ObjectSection, ObjectSymbol};

mod support;

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

    fn refused(&self, sources: &[Source], modules: &[ModuleHolder]) -> Vec<Problem> {
        let options = support::options();
        let mut analysis = pipeline::analyse(sources, &options).unwrap();
        assert_eq!(analysis.refused, []);
        let running = Running { kernel: self.kernel.image(), modules };
        let made: Result<_, Error> = pipeline::produce_on(&mut analysis, Some(running), &options);
        made.map_or_else(|e| e.problems, |_| panic!("there is no way to make it"))
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

fn codes(problems: &[Problem]) -> Vec<&'static str> {
    let mut codes: Vec<_> = problems.iter().map(|p| p.code.id).collect();
    codes.dedup();
    codes
}

/// With new references to a string the module has already and to a function that the kernel exports and it did not import before.
fn everything_but_the_module_itself_is_known(name: &str, series: &str) {
    let Some(b) = Bench::find(name, series) else { return };
    let problems = b.refused(&[b.calling("touch_softlockup_watchdog")], &[b.module()]);
    assert_eq!(codes(&problems), ["LP2026"], "{problems:?}");
    assert!(
        problems.iter().any(|p| p.to_string().contains("bm_status_read: it is a function of the module binfmt_misc"))
    );
    // What it does not depend on may not be there when it is, and what is not exported it could not have.
    for (function, why) in
        [("nf_ct_iterate_destroy", "does not depend on"), ("cmdline_proc_show", "a module exports it")]
    {
        let problems = b.refused(&[b.calling(function)], &[b.module()]);
        let found = problems.iter().find(|p| p.code.id == "LP3003").map(ToString::to_string).unwrap_or_default();
        assert!(found.contains(function) && found.contains(why), "{problems:?}");
    }
}

#[test]
fn everything_but_the_module_itself_is_known_61() {
    everything_but_the_module_itself_is_known("everything_but_the_module_itself_is_known_61", "6.1");
}

#[test]
fn everything_but_the_module_itself_is_known_612() {
    everything_but_the_module_itself_is_known("everything_but_the_module_itself_is_known_612", "6.12");
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
    let problems = b.refused(&[of_kernel, of_module], &[b.module()]);
    assert!(problems.iter().all(|p| p.code.id == "LP2026" && p.to_string().contains("binfmt_misc")), "{problems:?}");
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
