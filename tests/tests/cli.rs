//! The command line: exit codes, output folders, trees, determinism.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lpbuild_tests::built_lpbuild;
use support::compile::{Recipe, Variant, compile, sources};

fn run(args: &[&str], dir: &Path) -> Output {
    Command::new(built_lpbuild()).args(args).current_dir(dir).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn case(name: &str) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let found = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path());
    found
        .into_iter()
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().split_once('-').is_some_and(|(_, n)| n == name)))
        .unwrap_or_else(|| panic!("no case {name}"))
}

/// `old/` and `new/` trees of a case below `dir`.
fn trees(name: &str, dir: &Path) {
    let recipe = Recipe { variant: Variant::Plain, fentry: true, flags: vec![] };
    let expect: toml::Table = std::fs::read_to_string(case(name).join("expect.toml")).unwrap().parse().unwrap();
    for (side, define) in [("old", ""), ("new", "NEW")] {
        for source in sources(&case(name)) {
            let file = source.file_name().unwrap().to_string_lossy().into_owned();
            let only_new = expect
                .get("only-new")
                .and_then(|o| o.as_array())
                .is_some_and(|l| l.iter().any(|f| f.as_str() == Some(&file)));
            if only_new && side == "old" {
                continue;
            }
            let folder = dir.join(side).join("sub");
            std::fs::create_dir_all(&folder).unwrap();
            let out = folder.join(format!("{}.o", source.file_stem().unwrap().to_string_lossy()));
            compile(&source, &recipe, define, &out);
        }
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_kind_of_answer_has_its_exit_code() {
    for (name, exit, refused) in [
        ("string", 0, None),
        ("moved", 3, None),
        ("changed-data", 4, Some("LP2001")),
        ("only-in-one-tree", 4, Some("LP2004")),
        ("two-objects", 0, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        trees(name, dir.path());
        let output = run(&["diff", "old", "new", "--json"], dir.path());
        assert_eq!(code(&output), exit, "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output);
        for key in ["changed", "new", "ignored", "refused"] {
            assert!(report[key].is_array(), "{name}: no {key}");
        }
        let first = report["refused"].get(0).and_then(|r| r["code"].as_str());
        assert_eq!(first, refused, "{name}");
        if let Some(id) = refused {
            assert!(String::from_utf8_lossy(&output.stderr).contains(id), "{name}");
            assert!(report["refused"][0]["advice"].as_str().is_some_and(|a| !a.is_empty()));
        }
    }
}

#[test]
fn wrong_usage_and_broken_input() {
    let dir = tempfile::tempdir().unwrap();
    trees("string", dir.path());
    let object = dir.path().join("old/sub/case.o");
    let bytes = std::fs::read(&object).unwrap();
    std::fs::write(dir.path().join("cut.o"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(dir.path().join("text.o"), "not an object").unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    for (args, exit, id) in [
        (vec!["diff"], 2, ""),
        (vec!["diff", "old", "new", "--jump", "none"], 2, ""),
        (vec!["diff", "cut.o", "new/sub/case.o"], 1, "LP1003"),
        (vec!["diff", "text.o", "new/sub/case.o"], 1, "LP1002"),
        (vec!["diff", "missing.o", "new/sub/case.o"], 1, "LP1004"),
        (vec!["diff", "old", "new/sub/case.o"], 4, "LP2004"),
        (vec!["diff", "empty", "empty"], 4, "LP2004"),
        (vec!["diff", "old", "new", "--name", "Not A Name"], 2, "--name"),
        (vec!["diff", "old", "new", "--callback", "pre-aply=f"], 2, "pre-apply, post-apply, pre-revert, post-revert"),
        (vec!["diff", "old", "new", "--callback", "pre-apply=f()"], 2, "C function"),
        (vec!["diff", "old", "new", "--callback", "pre-apply"], 2, "KIND=FUNCTION"),
        (vec!["diff", "old", "new", "--patch-description", "a\nb"], 2, "one line"),
        (vec!["diff", "old", "new", "--kernel", "text.o"], 1, "LP1201"),
        (vec!["diff", "old", "new", "--kernel", "missing"], 1, "LP1004"),
        (vec!["diff", "old", "new", "--kernel", "empty"], 1, "LP1007"),
        (vec!["try", "empty"], 1, "LP1007"),
        (vec!["explain", "LP9999"], 1, "LP1102"),
        (vec!["try"], 2, "MODULE"),
        (vec!["try", "m.ko", "--add", "relative=/bin/true"], 2, "--add"),
        (vec!["try", "m.ko", "--add", "/a/../b=/bin/true"], 2, "--add"),
        (vec!["try", "m.ko", "--add", "/bin/true"], 2, "--add"),
        (vec!["try", "m.ko", "--script", "a", "--during", "b"], 2, "--during"),
        (vec!["try", "m.ko", "--strict"], 2, "--script"),
        (vec!["try", "m.ko", "--cpus", "0"], 2, "--cpus"),
        (vec!["try", "m.ko", "--cycles", "0"], 2, "--cycles"),
        (vec!["try", "m.ko", "--memory", "64"], 2, "--memory"),
        (vec!["try", "m.ko", "--timeout", "soon"], 2, "--timeout"),
        (vec!["try", "m.ko", "--silence", "0"], 2, "--silence"),
        (vec!["build", "fix.patch", "--deadline-ms", "0"], 2, "--deadline-ms"),
        (vec!["diff", "old", "new", "--deadline-ms", "0"], 2, "--deadline-ms"),
        (vec!["load", "m.ko", "--deadline-ms", "0"], 2, "--deadline-ms"),
        (vec!["load", "m.ko", "--patience-ms", "0"], 2, "--patience-ms"),
        (vec!["build", "fix.patch", "--patience-ms", "0"], 2, "--patience-ms"),
        (vec!["unload", "fix", "--deadline-ms", "0"], 2, "--deadline-ms"),
        (vec!["try", "missing.ko"], 1, "LP1004"),
        (vec!["try", "text.o"], 4, "LP5102"),
        (vec!["try", "new/sub/case.o"], 4, "LP5101"),
    ] {
        let output = run(&args, dir.path());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), exit, "{args:?}: {errors}");
        assert!(errors.contains(id), "{args:?}: {errors}");
        assert!(output.stdout.is_empty(), "{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn oneshot_callbacks_and_description_are_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    trees("callbacks", dir.path());
    let options = ["--oneshot", "--patch-description", "what it is for", "--callback", "pre-apply=ready"];
    let args = [&["diff", "old", "new", "-o", "patch"], options.as_slice()].concat();
    let output = run(&args, dir.path());
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = std::fs::read_to_string(dir.path().join("patch/manifest.toml")).unwrap();
    for line in ["oneshot = true", "description = \"what it is for\"", "[callbacks]\npre-apply = \"ready\""] {
        assert!(manifest.contains(line), "{line}: {manifest}");
    }
    assert!(!manifest.contains("symbol = \"gone\""), "only what is named or referred to is carried: {manifest}");
    let output = run(&["diff", "old", "new", "--callback", "pre-apply=missing"], dir.path());
    assert_eq!(code(&output), 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("LP2014"));
}

/// The manifest that `diff` writes for a case.
fn manifest_of(name: &str, options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    trees(name, dir.path());
    let output = run(&[&["diff", "old", "new", "-o", "patch"], options].concat(), dir.path());
    assert_eq!(code(&output), 0, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(dir.path().join("patch/manifest.toml")).unwrap()
}

#[test]
fn the_mode_is_the_one_asked_for_or_the_least_that_will_do() {
    for (name, options, mode) in [
        ("string", &[][..], "drain"),
        ("original", &[], "transition"),
        ("call-in-site", &[], "stop-machine"),
        ("string", &["--mode", "transition"], "transition"),
        ("call-in-site", &["--mode", "stop-machine"], "stop-machine"),
    ] {
        let manifest = manifest_of(name, options);
        assert!(manifest.contains(&format!("\nmode = \"{mode}\"\n")), "{name} {options:?}: {manifest}");
        assert!(!manifest.contains("\nafter = ") && !manifest.contains("\nreplaces = "), "{manifest}");
    }
    let dir = tempfile::tempdir().unwrap();
    trees("call-in-site", dir.path());
    let output = run(&["diff", "old", "new", "--mode", "drain"], dir.path());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 4, "{errors}");
    for part in ["LP2102", "check", "`call take`", "stop-machine"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(code(&run(&["diff", "old", "new", "--mode", "stop"], dir.path())), 2);
}

#[test]
fn names_of_other_patches_are_in_the_manifest() {
    let manifest = manifest_of("string", &["--name", "c", "--after", "a", "--after", "b", "--replaces", "d"]);
    assert!(manifest.contains("after = [\"a\", \"b\"]") && manifest.contains("replaces = [\"d\"]"), "{manifest}");
    for (options, exit) in [
        (["--name", "c", "--after", "c"], 1),
        (["--after", "a", "--replaces", "a"], 1),
        (["--after", "a", "--after", "B"], 2),
    ] {
        let output = run(&[&["diff", "gone", "gone"], &options[..]].concat(), Path::new("/"));
        assert_eq!(code(&output), exit, "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_failure_leaves_the_output_folder_alone() {
    let dir = tempfile::tempdir().unwrap();
    trees("string", dir.path());
    assert_eq!(code(&run(&["diff", "old", "new", "-o", "patch"], dir.path())), 0);
    let before = files(&dir.path().join("patch"));
    assert!(before.contains_key(Path::new("patch.o")) && before.contains_key(Path::new("manifest.toml")));
    let bytes = std::fs::read(dir.path().join("new/sub/case.o")).unwrap();
    std::fs::write(dir.path().join("cut.o"), &bytes[..bytes.len() - 70]).unwrap();
    let refused = tempfile::tempdir().unwrap();
    trees("changed-data", refused.path());
    let (old, new) = (refused.path().join("old"), refused.path().join("new"));
    for (args, exit) in [
        (vec!["diff", "old/sub/case.o", "cut.o", "-o", "patch"], 1),
        (vec!["diff", "old", "old", "-o", "patch"], 3),
        (vec!["diff", old.to_str().unwrap(), new.to_str().unwrap(), "-o", "patch"], 4),
        (vec!["diff", "old", "new", "--kernel", "cut.o", "-o", "patch"], 1),
    ] {
        assert_eq!(code(&run(&args, dir.path())), exit, "{args:?}");
        assert_eq!(files(&dir.path().join("patch")), before, "{args:?} touched the folder");
    }
    // Somebody else's folder is not replaced.
    std::fs::create_dir(dir.path().join("mine")).unwrap();
    std::fs::write(dir.path().join("mine/notes"), "keep").unwrap();
    assert_eq!(code(&run(&["diff", "old", "new", "-o", "mine"], dir.path())), 1);
    assert_eq!(files(&dir.path().join("mine")).len(), 1);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with('.')), "left behind: {left:?}");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    for name in ["two-objects", "new-data", "warn", "dyndbg"] {
        let mut results = Vec::new();
        for folder in ["one", "a/longer/path/two"] {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join(folder);
            std::fs::create_dir_all(&place).unwrap();
            trees(name, &place);
            assert_eq!(code(&run(&["diff", "old", "new", "-o", "patch"], &place)), 0, "{name}");
            results.push(files(&place.join("patch")));
        }
        assert_eq!(results[0].keys().collect::<Vec<_>>(), results[1].keys().collect::<Vec<_>>());
        for (path, bytes) in &results[0] {
            assert!(*bytes == results[1][path], "{name}: {} differs from folder to folder", path.display());
        }
    }
}

#[test]
fn explain_knows_every_code() {
    let dir = tempfile::tempdir().unwrap();
    let all = run(&["explain"], dir.path());
    assert_eq!(code(&all), 0);
    let list = String::from_utf8_lossy(&all.stdout).into_owned();
    for c in lpbuild::codes::all() {
        assert!(list.contains(c.id));
        let one = run(&["explain", &c.id.to_lowercase()], dir.path());
        assert_eq!(code(&one), 0, "{}", c.id);
        assert!(String::from_utf8_lossy(&one.stdout).contains(c.title));
    }
}
