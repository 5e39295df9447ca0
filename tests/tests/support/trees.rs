//! Cases of two build trees with modules, through the driver of `lpbuild diff`: sources that `modules` names are in `drivers/` with the lists
//! that kbuild writes, all others are the kernel's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use lpbuild::error::Problem;
use lpbuild::flow::{self, Ask, Verdict};
use lpbuild::plan::Options;

use super::compile::{Recipe, compile, sources};

/// What a case says of its modules.
#[derive(Debug, Default)]
pub struct Modules {
    /// The sources of each.
    pub modules: BTreeMap<String, Vec<String>>,
    /// Those whose `.ko` both trees have.
    pub linked: Vec<String>,
    /// Those of them that were not linked again in the new one.
    pub stale: Vec<String>,
    /// The kernel's objects are linked to a `vmlinux`.
    pub image: bool,
    /// A patch folder is asked for.
    pub written: bool,
}

/// What came of it: exit code, `object: symbol` of what changed, codes and objects of what is refused, modules that were not compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub exit: i64,
    pub changed: Vec<String>,
    pub refused: Vec<String>,
    pub unseen: Vec<String>,
}

/// Compiles, links and compares.
pub fn run(dir: &Path, recipe: &Recipe, said: &Modules, options: &Options) -> Found {
    let work = tempfile::tempdir().unwrap();
    let [old, new] = [("old", ""), ("new", "NEW")].map(|(side, define)| {
        let tree = work.path().join(side);
        make(dir, recipe, said, define, &tree);
        tree
    });
    for module in &said.stale {
        let ko = format!("drivers/{module}.ko");
        fs::copy(old.join(&ko), new.join(&ko)).unwrap();
    }
    let output = work.path().join("patch");
    let ask = Ask {
        old: &old,
        new: &new,
        kernel: None,
        modules: &[],
        headers: None,
        output: said.written.then_some(&output),
        no_debug_info: false,
    };
    let outcome = match flow::diff(&ask, options) {
        Ok(outcome) => outcome,
        Err(e) => {
            return Found { exit: i64::from(e.exit_code()), refused: problems(&e.problems), ..Found::default() };
        }
    };
    let exit = match outcome.verdict() {
        Verdict::Patch => 0,
        Verdict::Nothing => 3,
        Verdict::Refused => 4,
    };
    let report = outcome.report();
    let mut changed: Vec<String> = report.changed.iter().map(|c| format!("{}: {}", c.object, c.symbol)).collect();
    changed.sort();
    let unseen = report.modules.iter().filter(|m| m.only_in == "neither").map(|m| m.module.clone()).collect();
    Found { exit, changed, refused: problems(&outcome.analysis.refused), unseen }
}

/// One of the trees.
fn make(dir: &Path, recipe: &Recipe, said: &Modules, define: &str, tree: &Path) {
    fs::create_dir_all(tree.join("drivers")).unwrap();
    let mut kernel = Vec::new();
    for file in sources(dir) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let of_module = said.modules.values().any(|parts| parts.contains(&name));
        let folder = if of_module { tree.join("drivers") } else { tree.to_owned() };
        let object = folder.join(format!("{}.o", file.file_stem().unwrap().to_string_lossy()));
        compile(&file, recipe, define, &object);
        if !of_module {
            kernel.push(object);
        }
    }
    for (module, parts) in &said.modules {
        let objects: Vec<String> = parts.iter().map(|p| format!("drivers/{}.o", p.trim_end_matches(".c"))).collect();
        fs::write(tree.join(format!("drivers/{module}.mod")), objects.join("\n") + "\n").unwrap();
        if said.linked.contains(module) {
            let ko = tree.join(format!("drivers/{module}.ko"));
            ld(Command::new("ld").arg("-r").arg("-o").arg(ko).args(objects.iter().map(|o| tree.join(o))));
        }
    }
    if said.image {
        let mut link = Command::new("ld");
        link.args([
            "-static",
            "-Ttext=0xffffffff81000000",
            "--no-warn-rwx-segments",
            "--unresolved-symbols=ignore-all",
        ]);
        ld(link.args(["-e", "0xffffffff81000000", "-o"]).arg(tree.join("vmlinux")).args(kernel));
    }
}

fn ld(link: &mut Command) {
    let done = link.output().expect("ld is installed");
    assert!(done.status.success(), "{link:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Codes, and the names of the files they are said of.
fn problems(list: &[Problem]) -> Vec<String> {
    let name = |p: &Problem| {
        let object = p.place.symbol.clone().or_else(|| p.place.object.clone()).unwrap_or_default();
        object.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let mut all: Vec<String> = list.iter().map(|p| format!("{} {}", p.code.id, name(p))).collect();
    all.sort();
    all.dedup();
    all
}
