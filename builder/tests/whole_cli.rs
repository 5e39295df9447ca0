//! `lpbuild diff` of whole kernels on the command line: trees with modules, files that do not go together, exit codes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::run;
use tempfile::TempDir;

const KERNEL: &str = "int say(int x); int one(int x) { return say(x) + NUMBER; } int say(int x) { return x * 3; }\n";
const MODULE: &str =
    "extern int say(int); int probe(int x) { return say(x) + NUMBER; } int same(int x) { return say(x); }\n";

struct Trees(TempDir);

impl Trees {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// A tree with a kernel and a module, each with its number.
    fn tree(&self, name: &str, kernel: u32, module: u32) -> PathBuf {
        let tree = self.path(name);
        std::fs::create_dir_all(tree.join("drivers")).unwrap();
        let object = self.compile(KERNEL, kernel, &tree.join("kernel.o"));
        run(Command::new("ld")
            .args(["-static", "-Ttext=0xffffffff81000000", "--no-warn-rwx-segments", "-e", "one", "-o"])
            .args([&tree.join("vmlinux"), &object]));
        self.compile(MODULE, module, &tree.join("drivers/thing.ko"));
        tree
    }
    fn compile(&self, text: &str, number: u32, to: &Path) -> PathBuf {
        let source = self.path("source.c");
        std::fs::write(&source, text).unwrap();
        let flags = ["-c", "-O1", "-mcmodel=kernel", "-fno-pic", "-fno-pie", "-ffreestanding", "-fno-stack-protector"];
        run(Command::new("gcc").args(flags).arg(format!("-DNUMBER={number}")).arg(&source).arg("-o").arg(to));
        to.to_owned()
    }
}

fn diff(old: &Path, new: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lpbuild")).args(["diff", "--json"]).args([old, new]).output().unwrap()
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn modules_beside_two_kernels_are_paired_by_name() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    // In another folder of the tree: the name counts.
    std::fs::create_dir_all(new.join("elsewhere")).unwrap();
    std::fs::rename(new.join("drivers/thing.ko"), new.join("elsewhere/thing.ko")).unwrap();
    std::fs::copy(new.join("elsewhere/thing.ko"), new.join("extra.ko")).unwrap();
    let out = diff(&old, &new);
    assert_eq!(out.status.code(), Some(4));
    let json = json(&out);
    let modules = json["modules"].as_array().unwrap();
    assert_eq!(modules[0]["module"], "extra.ko");
    assert_eq!(modules[0]["only_in"], "new");
    assert_eq!(modules[1]["module"], "thing.ko");
    assert_eq!(modules[1]["changed"], serde_json::json!(["probe"]));
    assert_eq!(json["refused"][0]["code"], "LP3008");
}

#[test]
fn the_same_trees_change_nothing() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 1));
    assert_eq!(diff(&old, &new).status.code(), Some(3));
}

#[test]
fn a_kernel_and_an_object_do_not_go_together() {
    let trees = Trees::new();
    let tree = trees.tree("tree", 1, 1);
    let out = diff(&tree.join("vmlinux"), &tree.join("kernel.o"));
    assert_eq!(out.status.code(), Some(4));
    assert_eq!(json(&out)["refused"][0]["code"], "LP2004");
}

#[test]
fn compressed_modules_are_refused_and_not_passed_over() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 1));
    std::fs::write(new.join("drivers/other.ko.xz"), b"").unwrap();
    let out = diff(&old, &new);
    assert_eq!(out.status.code(), Some(4));
    assert_eq!(json(&out)["refused"][0]["code"], "LP2004");
}
