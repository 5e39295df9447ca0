//! Who may import whom in the library, and other rules of the house that a compiler does not know.
//!
//! Read from the sources: `crate::NAME` outside of comments and tests. A violation names file and line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders and files of `src`, from the bottom to the top: each may import those above it in this list, and itself.
const LAYERS: &[&str] = &[
    // Words everybody uses.
    "codes",
    "error",
    "accept",
    "bounded",
    "hash",
    "parallel",
    "interrupt",
    "style",
    "tool",
    "toolchain",
    "cache",
    // One object.
    "isa",
    "ingest",
    "symbolize",
    "debuginfo",
    // Two of them.
    "correlate",
    "uses",
    "compare",
    // Who runs the old code.
    "kernel",
    "holder",
    // What is decided, as data, and the phases that decide it.
    "plan",
    "marks",
    "pairing",
    "closure",
    "owners",
    "promises",
    "bind",
    "whole",
    "annotate",
    // What is told of all that.
    "explain",
    // What is written, blind to the back end.
    "emit",
    "pack",
    // How the kernel is made to run it.
    "backend",
    // The phases in order.
    "pipeline",
    // What goes in and comes out.
    "config",
    "report",
    "source",
    "flow",
    // The target, and its trial.
    "host",
    "trial",
    // All of it on one page.
    "page",
    // The binary.
    "memory",
    "cli",
    "main",
];

/// Crates and modules that only some may name.
const ONLY: &[(&str, &[&str], &str)] = &[
    ("iced_x86", &["isa"], "instructions are decoded by the words of isa/"),
    ("gimli", &["debuginfo", "compare"], "DWARF is debuginfo's, the line table of one object compare's"),
    ("goblin", &["pack", "backend", "trial"], "the second reader reads finished modules"),
    ("object::write", &["emit", "backend"], "objects are written by emit"),
    ("clap", &["cli", "main"], "arguments are the binary's"),
    (
        "rayon",
        &["parallel", "debuginfo", "whole", "annotate", "source", "flow", "cli"],
        "threads are for what is large",
    ),
    ("crate::backend", &["backend", "pipeline", "flow", "host", "source"], "the plan and emit know no back end"),
];

struct Line {
    path: String,
    number: usize,
    /// The folder or file of `src` it is in.
    part: String,
    text: String,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every line of code, without comments and tests.
fn lines() -> Vec<Line> {
    let mut files = Vec::new();
    rust_files(&src(), &mut files);
    files.sort();
    let mut out = Vec::new();
    for file in files.iter().filter(|f| f.file_name().is_some_and(|n| n != "tests.rs")) {
        let path = file.strip_prefix(src()).unwrap().display().to_string();
        let part = path.split(['/', '.']).next().unwrap().to_owned();
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for (i, line) in code.lines().enumerate() {
            let text = line.split("//").next().unwrap_or("").to_owned();
            out.push(Line { path: path.clone(), number: i + 1, part: part.clone(), text });
        }
    }
    out
}

/// `crate::a`, and the first of `crate::{a, b::c}` on one line; `lpbuild::` in the binary.
fn imports(line: &Line) -> Vec<String> {
    let own = if ["cli", "main"].contains(&line.part.as_str()) { "lpbuild::" } else { "crate::" };
    let mut found = Vec::new();
    for (at, _) in line.text.match_indices(own) {
        if line.text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line.text[at + own.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        };
        let word = |n: &str| -> String {
            n.trim().chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect()
        };
        found.extend(names.into_iter().map(word).filter(|w| !w.is_empty()));
    }
    found
}

#[test]
fn each_part_imports_only_what_is_below_it() {
    let rank = |part: &str| LAYERS.iter().position(|l| *l == part);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for line in lines() {
        if line.part == "lib" {
            continue;
        }
        seen.insert(line.part.clone());
        let Some(own) = rank(&line.part) else {
            wrong.push(format!("src/{}: {} has no place in LAYERS", line.path, line.part));
            continue;
        };
        for name in imports(&line) {
            if rank(&name).is_some_and(|r| r > own) {
                wrong.push(format!(
                    "src/{}:{}: {} imports {name}, which is above it",
                    line.path, line.number, line.part
                ));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unknown: Vec<_> = LAYERS.iter().filter(|l| !seen.contains(**l)).collect();
    assert!(unknown.is_empty(), "not there any more: {unknown:?}");
}

#[test]
fn some_names_belong_to_some_parts_alone() {
    let mut wrong = Vec::new();
    for line in lines() {
        for (name, allowed, why) in ONLY {
            let named = line.text.match_indices(name).any(|(at, _)| {
                let before = line.text[..at].chars().next_back();
                let after = line.text[at + name.len()..].chars().next();
                let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !word(before) && !word(after) && after == Some(':')
            });
            if named && !allowed.contains(&line.part.as_str()) {
                wrong.push(format!("src/{}:{}: {name}: {why}", line.path, line.number));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_holder_is_called_stands_in_one_place() {
    let word = "\"vmlinux\"";
    // As the name of a file it is another thing.
    let files = ["source/debian.rs", "whole/open.rs", "pack/headers.rs"];
    let allowed = |l: &Line| l.part == "holder" || files.contains(&l.path.as_str());
    let wrong: Vec<String> = lines()
        .iter()
        .filter(|l| l.text.contains(word) && !allowed(l))
        .map(|l| format!("src/{}:{}: {}", l.path, l.number, l.text.trim()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_folder_is_called_as_what_a_build_leaves() {
    let root = src().join("../..").canonicalize().unwrap();
    let mut folders = vec![root.join("builder/src"), root.join("tests"), root.join("harness"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(!["build", "target"].contains(&name.as_str()), "{}", path.display());
                folders.push(path);
            }
        }
    }
}

#[test]
fn cases_of_the_corpus_have_numbers_of_their_own() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(src().join("../../tests/corpus")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("expect.toml").is_file() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number = name.split('-').next().unwrap().to_owned();
            assert!(seen.insert(number), "{name}: another case has its number");
        }
    }
    assert!(seen.len() > 100, "{} cases", seen.len());
}

/// Types of the library that others can name, and the file of each.
fn types() -> Vec<(String, String)> {
    let named = |l: &Line| {
        // Those a trait or an impl names are indented.
        let mut words = l.text.split(' ');
        let kind = (words.next() == Some("pub")).then(|| words.next()).flatten()?;
        let name = ["struct", "enum", "trait", "type"].contains(&kind).then(|| words.next()).flatten()?;
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        Some((name, l.path.clone()))
    };
    lines().iter().filter(|l| l.part != "cli").filter_map(named).collect()
}

#[test]
fn a_name_of_a_type_has_one_meaning() {
    let mut all = types();
    all.sort();
    assert!(all.len() > 200, "{} types", all.len());
    let twice: Vec<String> = all
        .windows(2)
        .filter(|w| w[0].0 == w[1].0)
        .map(|w| format!("{}: src/{} and src/{}", w[0].0, w[0].1, w[1].1))
        .collect();
    assert!(twice.is_empty(), "{}", twice.join("\n"));
}
