//! `lpbuild diff` of whole kernels on the command line: trees with modules, files that do not go together, exit codes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::run;
use tempfile::TempDir;

const KERNEL: &str = "int say(int x); int one(int x) { return say(x) + NUMBER; } int say(int x) { return x * 3; }\n";
const MODULE: &str = "extern int say(int); int probe(int x) { return say(x) + NUMBER; } int same(int x) { return say(x); }\n\
     static const char name[] __attribute__((section(\".modinfo\"), used)) = \"name=thing\";\n";

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
    assert_eq!(out.status.code(), Some(0));
    let found = json(&out);
    assert_eq!(found["modules"].as_array().unwrap().len(), 1);
    assert_eq!((&found["modules"][0]["module"], &found["modules"][0]["only_in"]), (&"extra.ko".into(), &"new".into()));
    assert_eq!((&found["changed"][0]["object"], &found["changed"][0]["symbol"]), (&"thing.ko".into(), &"probe".into()));
    // With a kernel that differs as well it is one patch.
    trees.tree("new", 2, 2);
    std::fs::remove_file(new.join("drivers/thing.ko")).unwrap();
    let out = diff(&old, &new);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let found = json(&out);
    assert_eq!(changed(&found), ["thing.ko: probe", "vmlinux: one"]);
    assert_eq!(found["modules"], serde_json::json!([{ "module": "extra.ko", "only_in": "new" }]));
    let functions = ["functions", "changed"].map(|key| found["summary"][key].clone());
    assert_eq!(functions, [2, 1].map(Value::from), "those of the module are none of the image's: {}", found["summary"]);
    // The module's sections are found in the kernel that runs it.
    let mut lpbuild = Command::new(env!("CARGO_BIN_EXE_lpbuild"));
    let out = lpbuild.args(["diff", "-o", "d"]).args([&old, &new]).current_dir(trees.path("old")).output().unwrap();
    assert_ne!(out.status.code(), Some(0));
    assert!(!trees.path("old/d").exists());
}

/// What is replaced, with the object it is in.
fn changed(found: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let all = found["changed"].as_array().unwrap().iter();
    let mut all: Vec<_> = all.map(|c| format!("{}: {}", text(&c["object"]), text(&c["symbol"]))).collect();
    all.sort();
    all
}

/// kbuild lists the objects of each module; the file of the module stands for them where both trees have it.
#[test]
fn objects_and_modules_of_two_trees_are_compared_together() {
    let trees = Trees::new();
    // A built-in object, and a module of two; `kernel.mod` would be a module of the first.
    let tree = |name: &str, kernel: u32, part: u32, ko: u32| {
        let tree = trees.tree(name, kernel, ko);
        std::fs::remove_file(tree.join("vmlinux")).unwrap();
        let _ = std::fs::remove_dir_all(tree.join("drivers/sub"));
        std::fs::create_dir_all(tree.join("drivers/sub")).unwrap();
        trees.compile(
            "extern int say(int); int part(int x) { return say(x) + NUMBER; }\n",
            part,
            &tree.join("drivers/sub/part.o"),
        );
        trees.compile(MODULE, ko, &tree.join("drivers/main.o"));
        // What is made of the parts of the module.
        trees.compile(MODULE, ko, &tree.join("drivers/thing.o"));
        trees.compile("int written_by_modpost = NUMBER;\n", ko, &tree.join("drivers/thing.mod.o"));
        std::fs::write(tree.join("drivers/thing.mod"), "drivers/main.o\ndrivers/sub/part.o\n").unwrap();
        tree
    };
    let answer = |old: &Path, new: &Path| {
        let out = diff(old, new);
        let found = json(&out);
        let codes = found["refused"].as_array().unwrap().iter();
        let codes: Vec<_> = codes.map(|r| format!("{} {}", r["code"].as_str().unwrap(), r["object"])).collect();
        (out.status.code().unwrap(), changed(&found), codes.concat())
    };
    let old = tree("old", 1, 1, 1);
    // Both: before, the objects alone were compared.
    let new = tree("new", 2, 1, 2);
    assert_eq!(answer(&old, &new), (0, vec!["kernel.o: one".into(), "thing.ko: probe".into()], String::new()));
    // The module alone.
    assert_eq!(answer(&old, &tree("new", 1, 1, 2)), (0, vec!["thing.ko: probe".into()], String::new()));
    // A folder of the tree.
    let below = |tree: &Path| tree.join("drivers");
    assert_eq!(answer(&below(&old), &below(&new)), (0, vec!["thing.ko: probe".into()], String::new()));
    // An object that the file of the module does not have yet.
    let (exit, _, codes) = answer(&old, &tree("new", 1, 2, 1));
    assert_eq!((exit, codes.as_str()), (4, "LP2004 \"thing.ko\""));
    // Without the file they are what is compared, as parts of the module.
    for tree in [&old, &new] {
        std::fs::remove_file(tree.join("drivers/thing.ko")).unwrap();
    }
    let parts = tree("new", 2, 2, 1);
    std::fs::remove_file(parts.join("drivers/thing.ko")).unwrap();
    let both = vec!["drivers/sub/part.o: part".into(), "kernel.o: one".into()];
    assert_eq!(answer(&old, &parts), (0, both, String::new()));
    // Whose patch would be for a kernel nobody has named.
    let mut lpbuild = Command::new(env!("CARGO_BIN_EXE_lpbuild"));
    let out = lpbuild.args(["diff", "-o"]).arg(trees.path("d")).args([&old, &parts]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("LP3007") && !trees.path("d").exists(), "{text}");
    // Two modules that have one object, and only one side of a module.
    for tree in [&old, &parts] {
        std::fs::write(tree.join("drivers/other.mod"), "drivers/sub/part.o\n").unwrap();
    }
    let (exit, _, codes) = answer(&old, &parts);
    assert_eq!((exit, codes.as_str()), (4, "LP6307 \"drivers/sub/part.o\""));
}

/// An image has no objects of modules.
#[test]
fn objects_of_modules_beside_two_kernels_are_not_passed_over() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    for tree in [&old, &new] {
        std::fs::rename(tree.join("drivers/thing.ko"), tree.join("drivers/thing.o")).unwrap();
        std::fs::write(tree.join("drivers/thing.mod"), "drivers/thing.o\n").unwrap();
    }
    let found = json(&diff(&old, &new));
    assert_eq!((changed(&found), &found["modules"]), (vec!["drivers/thing.o: probe".to_owned()], &Value::Null));
}

/// kbuild's list of a module is left, and neither its file nor an object of it: it cannot have been compared.
#[test]
fn modules_of_which_there_is_only_a_list_are_named() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    let unseen = serde_json::json!([{ "module": "drivers/away.ko", "only_in": "neither" }]);
    let lists = |tree: &Path| {
        std::fs::write(tree.join("drivers/away.mod"), "drivers/away_a.o\ndrivers/away_b.o\n").unwrap();
        std::fs::write(tree.join("drivers/go.mod"), "module example\n").unwrap();
        std::fs::write(tree.join("drivers/thing.mod"), "drivers/gone.o\n").unwrap();
    };
    lists(&old);
    for of in ["one tree has it", "both have it"] {
        let found = json(&diff(&old, &new));
        assert_eq!((changed(&found), &found["modules"]), (vec!["thing.ko: probe".into()], &unseen), "images, {of}");
        lists(&new);
    }
    // The same without images: objects, or nothing but modules. The report says it in words as well.
    for tree in [&old, &new] {
        std::fs::remove_file(tree.join("vmlinux")).unwrap();
    }
    assert_eq!(json(&diff(&old, &new))["modules"], unseen);
    let below = |tree: &Path| tree.join("drivers");
    let found = json(&diff(&below(&old), &below(&new)));
    assert_eq!(found["modules"], serde_json::json!([{ "module": "away.ko", "only_in": "neither" }]), "{found}");
    let out = Command::new(env!("CARGO_BIN_EXE_lpbuild")).arg("diff").args([&old, &new]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("module   drivers/away.ko: it was not compared"), "{text}");
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
fn compressed_modules_are_read_and_damaged_ones_refused() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    let (plain, packed) = (new.join("drivers/thing.ko"), new.join("drivers/thing.ko.xz"));
    run(Command::new("xz").args(["--check=crc32"]).arg(&plain));
    let out = diff(&old, &new);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(json(&out)["changed"][0]["symbol"], "probe");
    let whole = std::fs::read(&packed).unwrap();
    for (len, code) in [(whole.len() / 2, "LP3009"), (0, "LP1002")] {
        std::fs::write(&packed, &whole[..len]).unwrap();
        let out = diff(&old, &new);
        let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        assert!(text.contains(code) && text.contains("thing.ko"), "{len}: {text}");
    }
    std::fs::write(&packed, &whole).unwrap();
    std::fs::copy(old.join("drivers/thing.ko"), &plain).unwrap();
    assert_eq!(json(&diff(&old, &new))["refused"][0]["code"], "LP2004", "two of one name");
}

#[test]
fn two_files_that_are_no_two_builds_of_a_module_are_refused() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    let (thing, other) = (old.join("drivers/thing.ko"), new.join("drivers/thing.ko"));
    let refused = |a: &Path, b: &Path| json(&diff(a, b))["refused"][0].clone();
    let named = std::fs::read(&other).unwrap();
    let at = named.windows(10).position(|w| w == b"name=thing").unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = trees.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let alien = put("alien.ko", &[&named[..at], b"name=thong", &named[at + 10..]].concat());
    let nameless = put("nameless.ko", &[&named[..at], b"mane=thing", &named[at + 10..]].concat());
    let problem = refused(&thing, &alien);
    assert_eq!(problem["code"], "LP2004");
    let text = problem.to_string();
    assert!(text.contains("thong") && text.contains("module thing") || text.contains("is thing"), "{text}");
    assert_eq!(refused(&thing, &nameless)["code"], "LP3009");
    assert_eq!(refused(&thing, &new.join("kernel.o"))["code"], "LP2004");
    assert_eq!(diff(&thing, &thing).status.code(), Some(3), "nothing differs");
    let mut lpbuild = Command::new(env!("CARGO_BIN_EXE_lpbuild"));
    let out = lpbuild.args(["diff", "-o", "d"]).args([&thing, &other]).current_dir(trees.path("old")).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("LP3007"), "nothing to bind to");
}

#[test]
fn trees_of_modules_alone_are_compared_and_what_one_side_has_is_named() {
    let trees = Trees::new();
    let (old, new) = (trees.tree("old", 1, 1), trees.tree("new", 1, 2));
    std::fs::copy(new.join("drivers/thing.ko"), new.join("drivers/extra.ko")).unwrap();
    let found = json(&diff(&old.join("drivers"), &new.join("drivers")));
    assert_eq!((&found["changed"][0]["object"], &found["changed"][0]["symbol"]), (&"thing.ko".into(), &"probe".into()));
    assert_eq!((&found["modules"][0]["module"], &found["modules"][0]["only_in"]), (&"extra.ko".into(), &"new".into()));
}
