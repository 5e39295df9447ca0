//! `lpbuild why` and `-v`: what was decided about a symbol, of a folder and while comparing.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use lpbuild_tests::{built_lpbuild, in_checkout};
use serde_json::Value;
use support::compile::{Recipe, Variant, compile, sources};

/// A case of the corpus with debug information, below `dir`.
fn trees(case: &str, dir: &Path) {
    let recipe = Recipe { variant: Variant::Plain, fentry: true, flags: vec!["-g".into()] };
    for (side, define) in [("old", ""), ("new", "NEW")] {
        for source in sources(&in_checkout("tests/corpus").join(case)) {
            let folder = dir.join(side).join("sub");
            std::fs::create_dir_all(&folder).unwrap();
            let out = folder.join(format!("{}.o", source.file_stem().unwrap().to_string_lossy()));
            compile(&source, &recipe, define, &out);
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn of(case: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        trees(case, dir.path());
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(built_lpbuild()).args(args).current_dir(self.dir.path()).output().unwrap()
    }

    fn diff(&self, more: &[&str]) -> Output {
        self.run(&[&["diff", "old", "new", "-o", "patch"], more].concat())
    }

    /// Exit code, and what is printed as JSON.
    fn why(&self, symbol: &str) -> (i32, Value) {
        let o = self.run(&["why", "--json", symbol, "patch"]);
        (o.status.code().unwrap(), serde_json::from_slice(&o.stdout).unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_changed_function_says_how_where_and_by_which_rule() {
    let b = Bench::of("26-new-function");
    assert!(b.diff(&[]).status.success());
    let (exit, told) = b.why("check");
    assert_eq!((exit, &told["known"]), (0, &Value::from("in-patch")), "{told}");
    let check = &told["subjects"][0];
    assert_eq!(check["matched"]["rule"], "name");
    assert_eq!(check["difference"]["old"]["at"], 5, "{told}");
    assert_eq!(check["difference"]["new"]["line"], "case.c:8", "{told}");
    assert_eq!(check["site"]["rule"], "after-fentry");
    assert_eq!(check["carried"][0], "vet");
    let out = text(&b.run(&["why", "check", "patch"]).stdout);
    for part in ["matched   name", "old       +0x5  sub $8, %rsp", "case.c:8", "behind the fentry nop", "not bound"] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

#[test]
fn what_is_brought_along_names_the_chain_to_what_differs() {
    let b = Bench::of("26-new-function");
    assert!(b.diff(&[]).status.success());
    let (exit, told) = b.why("sub/case.o:vet");
    assert_eq!(exit, 0, "{told}");
    let chain: Vec<&str> =
        told["subjects"][0]["chain"].as_array().unwrap().iter().map(|l| l["symbol"].as_str().unwrap()).collect();
    assert_eq!(chain, ["vet", "check"]);
    assert!(told["subjects"][0].get("matched").is_none(), "it is new: {told}");
    // What stays outside.
    let (exit, told) = b.why("handle");
    assert_eq!(
        (exit, &told["known"], &told["bound"][0]["by"][0]),
        (0, &"referred-to".into(), &"check".into()),
        "{told}"
    );
}

#[test]
fn the_piece_and_the_rung_are_named() {
    let b = Bench::of("21-cold");
    assert!(b.diff(&[]).status.success());
    let (_, told) = b.why("check");
    assert_eq!(told["subjects"][0]["difference"]["piece"], "check.cold", "{told}");
    assert!(told["subjects"][0]["difference"]["new"]["text"].as_str().unwrap().contains("\"and new\""), "{told}");
    let b = Bench::of("23-part");
    assert!(b.diff(&[]).status.success());
    assert_eq!(b.why("work.part.0").1["subjects"][0]["matched"]["rule"], "base-name");
}

#[test]
fn a_type_that_grew_is_named_with_the_function_that_shows_it() {
    let b = Bench::of("150-type-grew");
    let o = b.diff(&["-v"]);
    let out = text(&o.stdout);
    assert_eq!(o.status.code(), Some(4), "{out}");
    assert!(out.contains("type      struct middle: 16 bytes became 24"), "{out}");
    assert!(out.contains("old       +0x9  mov 8(%rdi), %rdi    case.c:12"), "{out}");
    assert!(!b.dir.path().join("patch").exists());
    let types = ["middle", "end", "hole", "far"].map(|t| format!("struct {t}"));
    let accept: Vec<&str> = types.iter().flat_map(|t| ["--accept-type", t]).collect();
    assert!(b.diff(&accept).status.success());
    let told = b.why("in_middle").1;
    assert!(told["subjects"][0]["types"][0].as_str().unwrap().contains("struct middle: 16 bytes became 24"), "{told}");
}

#[test]
fn what_is_not_in_the_patch_is_the_same_or_not_known() {
    let b = Bench::of("21-cold");
    assert!(b.diff(&[]).status.success());
    let (exit, told) = b.why("other");
    assert_eq!((exit, &told["known"], &told["same_in"][0]), (3, &"same".into(), &"sub/case.o".into()), "{told}");
    let o = b.run(&["why", "other", "patch"]);
    assert!(text(&o.stdout).contains("it is the same in both builds"), "{}", text(&o.stdout));
    let (exit, told) = b.why("chekc");
    assert_eq!((exit, &told["refused"][0]["code"]), (1, &"LP1111".into()), "{told}");
    assert!(told["refused"][0]["detail"].as_str().unwrap().contains("near names: check"), "{told}");
}

#[test]
fn verbose_json_has_the_answers_and_without_it_nothing_more_is_said() {
    let b = Bench::of("26-new-function");
    let json = |args: &[&str]| -> Value { serde_json::from_slice(&b.run(args).stdout).unwrap() };
    let told = json(&["diff", "old", "new", "-v", "--json"]);
    assert_eq!(told["why"][0]["symbol"], "check", "{told}");
    assert_eq!(told["why"][1]["symbol"], "vet", "{told}");
    assert!(json(&["diff", "old", "new", "--json"]).get("why").is_none());
    assert!(!text(&b.run(&["diff", "old", "new"]).stdout).contains("matched"));
}

#[test]
fn the_record_is_of_its_patch_or_it_is_none() {
    let b = Bench::of("26-new-function");
    assert!(b.diff(&[]).status.success());
    let path = b.dir.path().join("patch/why.json");
    let kept = std::fs::read_to_string(&path).unwrap();
    let hash = &kept[kept.find("object-sha256").unwrap() + 16..][..8];
    for (from, to) in [(hash, "00000000"), ("\"schema\":1", "\"schema\":9"), ("\"by\":1", "\"by\":7"), ("{", "[")] {
        std::fs::write(&path, kept.replacen(from, to, 1)).unwrap();
        let (exit, told) = b.why("check");
        assert_eq!((exit, &told["refused"][0]["code"]), (1, &"LP1112".into()), "{from}: {told}");
    }
    // A folder of an older lpbuild has none, and still tells what its manifest has.
    std::fs::remove_file(&path).unwrap();
    let o = b.run(&["why", "check", "patch"]);
    assert!(o.status.success() && text(&o.stderr).contains("without why.json"), "{}", text(&o.stderr));
    assert!(text(&o.stdout).contains("changed   6 instructions became 22"), "{}", text(&o.stdout));
}
