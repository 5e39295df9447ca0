//! livepatch.toml: every key, every rule, and the places errors point at.

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Problem;
use crate::plan::manifest::{Callbacks, Jump, Mode};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Dir(tempfile::tempdir().unwrap());
        for name in ["fix.patch", "b.patch", "vmlinuz", "config", "key.pem", "cert.pem"] {
            fs::write(dir.0.path().join(name), "x").unwrap();
        }
        for name in ["headers", "linux"] {
            fs::create_dir(dir.0.path().join(name)).unwrap();
        }
        dir
    }
    fn load(&self, text: &str) -> Result<Config> {
        let path = self.0.path().join("livepatch.toml");
        fs::write(&path, text).unwrap();
        load(&path)
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// Code, `line:column`, detail and excerpt of the only problem.
    fn problem(&self, text: &str) -> (String, String, String, String) {
        let problems = self.problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.into_iter().next().unwrap()
    }
    fn problems(&self, text: &str) -> Vec<(String, String, String, String)> {
        let e = self.load(text).expect_err(text);
        let place = |p: &Problem| p.place.object.clone().unwrap();
        let at = |p: &Problem| place(p).rsplit_once("livepatch.toml:").unwrap().1.to_owned();
        let parts = |p: &Problem| p.detail.split_once('\n').map(|(s, lines)| (s.to_owned(), lines.to_owned())).unwrap();
        e.problems.iter().map(|p| (p.code.id.to_owned(), at(p), parts(p).0, parts(p).1)).collect()
    }
}

const MINIMAL: &str = "[patch]\nname = \"fix\"\npatches = [\"fix.patch\"]\n";

fn minimal_with(more: &str) -> String {
    format!("{MINIMAL}{more}\n")
}

#[test]
fn minimal_file_gives_the_defaults() {
    let dir = Dir::new();
    let c = dir.load(MINIMAL).unwrap();
    assert_eq!((c.options.name.as_str(), c.options.version.as_str(), c.options.description.as_str()), ("fix", "1", ""));
    assert_eq!(c.patches, [dir.at("fix.patch")]);
    assert_eq!(
        (c.options.mode, c.options.deadline_ms, c.options.patience_ms, c.options.oneshot, c.options.jump),
        (None, None, 15_000, false, Jump::Rel32)
    );
    assert!(c.options.after.is_empty() && c.options.replaces.is_empty());
    assert_eq!(c.kernel, KernelChoice::default());
    assert_eq!(c.options.callbacks, Callbacks::default());
    assert!(c.functions.is_none() && c.flags.is_empty() && c.sign.is_none());
    assert_eq!(c.file, Some(dir.at("livepatch.toml")));
}

#[test]
fn every_key_arrives() {
    let dir = Dir::new();
    let c = dir
        .load(
            r#"
[patch]
name = "fix_2"
version = "2.1-rc1"
description = "It's \"quoted\"? ä"
patches = ["b.patch", "fix.patch"]
functions = ["one", "fs/proc/cmdline.o:two.isra.0"]
mode = "drain"
after = ["fix_1", "base"]
replaces = ["fix_0"]
deadline-ms = 250
patience-ms = 2500
oneshot = true
jump = "abs64"
[kernel]
release = "6.1.0-53-cloud-amd64"
image = "vmlinuz"
headers = "headers"
source = "linux"
config = "./config"
compiler = "ccache gcc-12"
module-dir = "headers"
[module]
source = "linux"
files = ["vmlinuz"]
[build]
flags = ["-DX=1", "-Wno-error"]
[callbacks]
pre-apply = "a"
post-apply = "_b1"
[sign]
key = "key.pem"
certificate = "cert.pem"
"#,
        )
        .unwrap();
    assert_eq!((c.options.name.as_str(), c.options.version.as_str()), ("fix_2", "2.1-rc1"));
    assert_eq!(c.options.description, "It's \"quoted\"? ä");
    assert_eq!(c.patches, [dir.at("b.patch"), dir.at("fix.patch")], "the order stays");
    assert_eq!(c.functions.unwrap(), ["one", "fs/proc/cmdline.o:two.isra.0"]);
    assert_eq!(
        (c.options.mode, c.options.deadline_ms, c.options.oneshot, c.options.jump),
        (Some(Mode::Drain), Some(250), true, Jump::Abs64)
    );
    assert_eq!(c.options.patience_ms, 2500);
    assert_eq!((c.options.after, c.options.replaces), (vec!["fix_1".into(), "base".into()], vec!["fix_0".into()]));
    let target = KernelChoice {
        release: Some("6.1.0-53-cloud-amd64".into()),
        image: Some(dir.at("vmlinuz")),
        headers: Some(dir.at("headers")),
        source: Some(dir.at("linux")),
        config: Some(dir.at("./config")),
        compiler: Some("ccache gcc-12".into()),
        module_dir: Some(dir.at("headers")),
    };
    assert_eq!(c.kernel, target);
    assert_eq!(c.external, Some(ExternalModules { source: dir.at("linux"), files: vec![dir.at("vmlinuz")] }));
    assert_eq!(c.flags, ["-DX=1", "-Wno-error"]);
    let callbacks = Callbacks { pre_apply: Some("a".into()), post_apply: Some("_b1".into()), ..Callbacks::default() };
    assert_eq!(c.options.callbacks, callbacks);
    let sign = c.sign.unwrap();
    assert_eq!((sign.key, sign.cert), (dir.at("key.pem"), dir.at("cert.pem")));
}

#[test]
fn what_is_accepted_arrives_by_kind_and_name() {
    let dir = Dir::new();
    let text = "[accept]\ntypes = [\"struct a\", \"b\"]\nconstants = [\"c\"]\nlists = [\".BTF_ids\"]\nsignatures = [\"d\"]\n\
                inlines = [\"e\"]\npromises = [\"fs/x.o:f\"]\nnames = [\"g\"]\nstates = [\"h.1\"]";
    let found = dir.load(&minimal_with(text)).unwrap().options.accept;
    let found: Vec<(&str, &str)> = found.iter().map(|(kind, name)| (kind.key(), name)).collect();
    let expected = [
        ("types", "struct a"),
        ("types", "b"),
        ("constants", "c"),
        ("lists", ".BTF_ids"),
        ("signatures", "d"),
        ("inlines", "e"),
        ("promises", "fs/x.o:f"),
        ("names", "g"),
        ("states", "h.1"),
    ];
    assert_eq!(found, expected);
    for (list, what) in [("[\"\"]", "is no name"), ("[\"a\", \"a\"]", "a is named twice"), ("[\" a\"]", "is no name")] {
        let (code, _, detail, _) = dir.problem(&minimal_with(&format!("[accept]\nconstants = {list}")));
        assert!(code == "LP6005" && detail.contains(what), "{list}: {code} {detail}");
    }
}

#[test]
fn key_on_a_token_is_no_path() {
    let dir = Dir::new();
    let text = minimal_with("[sign]\nkey = \"pkcs11:token=x\"\ncertificate = \"cert.pem\"");
    assert_eq!(dir.load(&text).unwrap().sign.unwrap().key, Path::new("pkcs11:token=x"));
}

#[test]
fn unknown_key_shows_line_column_mark_and_what_was_meant() {
    let dir = Dir::new();
    let (code, at, detail, excerpt) = dir.problem(&minimal_with("  deadlin-ms = 5"));
    assert_eq!((code.as_str(), at.as_str()), ("LP6002", "4:3"));
    assert!(detail.starts_with("there is no key `deadlin-ms` here, did you mean `deadline-ms`?"), "{detail}");
    assert_eq!(excerpt, "  |\n4 |   deadlin-ms = 5\n  |   ^^^^^^^^^^");
}

#[test]
fn suggestions() {
    let dir = Dir::new();
    for (line, meant) in [
        ("deadline_ms = 5", ", did you mean `deadline-ms`?"),
        ("Versoin = \"1\"", ", did you mean `version`?"),
        ("patch = \"fix.patch\"", ", did you mean `patches`?"),
        ("release = \"6.1\"", ", it belongs in [kernel]"),
        ("flags = []", ", it belongs in [build]"),
        ("nonsense = 1", "there is no key `nonsense` here; known: name, version,"),
        ("[kernal]", ", did you mean `kernel`?"),
    ] {
        let (code, _, detail, _) = dir.problem(&minimal_with(line));
        assert!(detail.contains(meant), "{line}: {detail}");
        assert_eq!(code, "LP6002");
    }
}

#[test]
fn wrong_types_missing_keys_and_bad_syntax() {
    let dir = Dir::new();
    let none = "[patch]\nname = \"x\"\n";
    for (text, code, at, part) in [
        (minimal_with("deadline-ms = \"5\""), "LP6003", "4:15", "expected an integer"),
        (minimal_with("oneshot = 1"), "LP6003", "4:11", "expected a boolean"),
        (minimal_with("functions = [\"a\", 2]"), "LP6003", "4:19", "expected a string"),
        (minimal_with("[kernel]\nimage = [1]"), "LP6003", "5:9", "expected a string"),
        (minimal_with("[sign]\nkey = \"key.pem\""), "LP6004", "4:1", "`certificate`"),
        (none.to_owned(), "LP6004", "1:1", "`patches`"),
        (String::new(), "LP6004", "1:1", "`patch`"),
        ("patch = 1\n".to_owned(), "LP6003", "1:9", "expected a table"),
        (minimal_with("functions = [\"a\""), "LP6001", "4:17", "unclosed array"),
        (minimal_with("version = \"1"), "LP6001", "4:13", "invalid basic string"),
        (minimal_with("name = \"again\""), "LP6001", "4:1", "duplicate key"),
    ] {
        let (c, a, detail, excerpt) = dir.problem(&text);
        assert_eq!((c.as_str(), a.as_str()), (code, at), "{text}\n{detail}");
        assert!(detail.contains(part), "{detail}");
        assert!(excerpt.contains('^'), "{excerpt}");
    }
}

#[test]
fn bad_values() {
    let dir = Dir::new();
    let patch = |line: &str| format!("[patch]\n{line}\n");
    for (text, code, at, part) in [
        (patch("name = \"Fix\"\npatches = [\"fix.patch\"]"), "LP6005", "2:8", "[a-z][a-z0-9_]*"),
        (patch("name = \"fix\"\npatches = []"), "LP6005", "3:11", "no patch"),
        (patch("name = \"fix\"\npatches = [\"no.patch\"]"), "LP6006", "3:12", "no.patch"),
        (patch("name = \"fix\"\npatches = [\"linux\"]"), "LP6006", "3:12", "a folder"),
        (patch("name = \"fix\"\npatches = [\"\"]"), "LP6005", "3:12", "empty"),
        (patch("name = \"fix\"\npatches = [\"fix.patch\", \"fix.patch\"]"), "LP6005", "3:25", "twice"),
        (minimal_with("version = \"\""), "LP6005", "4:11", "version"),
        (minimal_with("version = \"a b\""), "LP6005", "4:11", "version"),
        (minimal_with("version = \"1\\\"); evil(\\\"\""), "LP6005", "4:11", "version"),
        (minimal_with("description = \"a\\nb\""), "LP6005", "4:15", "one line"),
        (minimal_with("functions = []"), "LP6005", "4:13", "no function"),
        (minimal_with("functions = [\"f\", \"f\"]"), "LP6005", "4:19", "twice"),
        (minimal_with("functions = [\"f()\"]"), "LP6005", "4:14", "neither"),
        (minimal_with("functions = [\"a.c:f\"]"), "LP6005", "4:14", "neither"),
        (minimal_with("functions = [\"../a.o:f\"]"), "LP6005", "4:14", "neither"),
        (minimal_with("deadline-ms = 0"), "LP6005", "4:15", "milliseconds"),
        (minimal_with("patience-ms = 0"), "LP6005", "4:15", "milliseconds"),
        (minimal_with("deadline-ms = -1"), "LP6005", "4:15", "milliseconds"),
        (minimal_with("deadline-ms = 4294967296"), "LP6005", "4:15", "milliseconds"),
        (minimal_with("jump = \"rel23\""), "LP6005", "4:8", "did you mean `rel32`?"),
        (minimal_with("mode = \"stopmachine\""), "LP6005", "4:8", "did you mean `stop-machine`?"),
        (minimal_with("mode = \"none\""), "LP6005", "4:8", "known: stop-machine, drain, transition"),
        (minimal_with("after = [\"a\", \"A-b\"]"), "LP6005", "4:15", "[a-z][a-z0-9_]*"),
        (minimal_with("after = [\"fix\"]"), "LP6005", "4:10", "the patch itself"),
        (minimal_with("replaces = [\"fix\"]"), "LP6005", "4:13", "the patch itself"),
        (minimal_with("replaces = [\"a\", \"b\", \"a\"]"), "LP6005", "4:23", "twice"),
        (minimal_with("replaces = [\"a\"]\nafter = [\"b\", \"a\"]"), "LP6005", "4:13", "twice"),
        (minimal_with("[kernel]\nrelease = \"../6.1\""), "LP6005", "5:11", "release"),
        (minimal_with("[kernel]\nimage = \"headers\""), "LP6006", "5:9", "a folder"),
        (minimal_with("[kernel]\nsource = \"config\""), "LP6006", "5:10", "not a folder"),
        (minimal_with("[kernel]\nheaders = \"gone\""), "LP6006", "5:11", "gone"),
        (minimal_with("[module]\nsource = \"vmlinuz\""), "LP6006", "5:10", "not a folder"),
        (minimal_with("[module]\nsource = \"linux\"\nfiles = [\"linux\"]"), "LP6006", "6:10", "a folder"),
        (minimal_with("[kernel]\nmodule-dir = \"gone\""), "LP6006", "5:14", "gone"),
        (minimal_with("[kernel]\nconfig = \"gone\""), "LP6006", "5:10", "gone"),
        (minimal_with("[kernel]\ncompiler = \"\""), "LP6005", "5:12", "empty"),
        (minimal_with("[kernel]\ncompiler = \"bin/gcc\""), "LP6005", "5:12", "absolute"),
        (minimal_with("[kernel]\ncompiler = \"gcc;reboot\""), "LP6005", "5:12", "one word"),
        (minimal_with("[build]\nflags = [\"-O2\", \"O3\"]"), "LP6005", "5:17", "begins with"),
        (minimal_with("[build]\nflags = [\"-DA=$(x)\"]"), "LP6005", "5:10", "shell"),
        (minimal_with("[build]\nflags = [\"-DA -DB\"]"), "LP6005", "5:10", "blanks"),
        (minimal_with("[build]\nflags = [\"-c\"]"), "LP6005", "5:10", "kernel's build"),
        (minimal_with("[build]\nflags = [\"-o/tmp/x\"]"), "LP6005", "5:10", "kernel's build"),
        (minimal_with("[callbacks]\npre-apply = \"a-b\""), "LP6005", "5:13", "C function"),
        (minimal_with("[callbacks]\npre-apply = \"\""), "LP6005", "5:13", "C function"),
        (minimal_with("oneshot = true\n[callbacks]\npre-revert = \"f\""), "LP6005", "6:14", "never called"),
        (minimal_with("[sign]\nkey = \"no.pem\"\ncertificate = \"cert.pem\""), "LP6006", "5:7", "no.pem"),
    ] {
        let (c, a, detail, _) = dir.problem(&text);
        assert_eq!((c.as_str(), a.as_str()), (code, at), "{text}\n{detail}");
        assert!(detail.contains(part), "{text}\n{detail}");
    }
}

#[test]
fn all_bad_values_are_reported_at_once() {
    let dir = Dir::new();
    let problems = dir.problems("[patch]\nname = \"9\"\npatches = [\"gone\"]\nmode = \"no\"\n");
    let codes: Vec<&str> = problems.iter().map(|p| p.0.as_str()).collect();
    assert_eq!(codes, ["LP6005", "LP6006", "LP6005"]);
}

#[test]
fn every_mode_has_its_word() {
    for mode in Mode::ALL {
        assert_eq!(
            Dir::new().load(&minimal_with(&format!("mode = \"{}\"", mode.name()))).unwrap().options.mode,
            Some(mode)
        );
    }
    assert_eq!(Dir::new().load("[patch]").unwrap_err().exit_code(), 1);
}

#[test]
fn marks_stand_under_what_they_mean() {
    let dir = Dir::new();
    let (_, at, _, excerpt) = dir.problem(&minimal_with("description = \"ä\"\t\nversion = \"ö ö\""));
    assert_eq!(at, "5:11");
    assert_eq!(excerpt, "  |\n5 | version = \"ö ö\"\n  |           ^^^^^");
    // CRLF, a long line, an escape sequence.
    let (_, at, _, excerpt) = dir.problem("[patch]\r\nname = \"x\"\r\npatches = [\"gone\"]\r\n");
    assert_eq!((at.as_str(), excerpt.as_str()), ("3:12", "  |\n3 | patches = [\"gone\"]\n  |            ^^^^^^"));
    let long = format!("functions = [{}\"f\"]", "\"f\",".repeat(100));
    let (_, _, _, excerpt) = dir.problems(&minimal_with(&long)).pop().unwrap();
    let lines: Vec<&str> = excerpt.lines().collect();
    let mark = lines[2].find('^').unwrap();
    assert_eq!(&lines[1][mark..mark + 3], "\"f\"");
    assert!(lines[1].len() < 140, "{excerpt}");
    let (_, _, _, excerpt) = dir.problem(&minimal_with("nonsense = 1 # \u{1b}[2J"));
    assert!(!excerpt.contains('\u{1b}'));
}

#[test]
fn what_is_no_text_or_not_there() {
    let dir = Dir::new();
    assert_eq!(load(&dir.at("none.toml")).unwrap_err().problems[0].code.id, "LP1004");
    fs::write(dir.at("bad.toml"), b"[patch]\n\xff").unwrap();
    let e = load(&dir.at("bad.toml")).unwrap_err();
    assert_eq!(e.problems[0].code.id, "LP6001");
    assert!(e.problems[0].place.object.as_ref().unwrap().ends_with("bad.toml:2:1"), "{e}");
}

#[test]
fn excerpt_follows_the_message() {
    let e = Dir::new().load(&minimal_with("oneshit = true")).unwrap_err().to_string();
    assert!(e.contains("livepatch.toml:4:1: there is no key `oneshit` here, did you mean `oneshot`?"), "{e}");
    assert!(e.ends_with("\n  |\n4 | oneshit = true\n  | ^^^^^^^"), "{e}");
}

#[test]
fn tables_for_suggestions_are_those_serde_knows() {
    let dir = Dir::new();
    let known = |text: &str| -> Vec<String> {
        let (_, _, detail, _) = dir.problem(text);
        let list = detail.split_once("known: ").unwrap().1.split(", ");
        list.map(str::to_owned).collect()
    };
    let tables: Vec<&str> = schema::TABLES.iter().map(|(t, _)| *t).collect();
    assert_eq!(known("zzzzzzzzzzzz = 1"), tables);
    for (table, keys) in schema::TABLES {
        assert_eq!(known(&format!("[{table}]\nzzzzzzzzzzzz = 1")), *keys, "[{table}]");
    }
}

#[test]
fn patch_files_alone() {
    let dir = Dir::new();
    let c = Config::default_for(&[dir.at("b.patch"), dir.at("fix.patch")]).unwrap();
    assert_eq!(c.options.name, "b");
    assert_eq!(c.patches, [dir.at("b.patch"), dir.at("fix.patch")]);
    assert!(c.file.is_none());
    let e = Config::default_for(&[dir.at("gone.patch"), dir.at("linux")]).unwrap_err();
    assert_eq!(e.problems.iter().map(|p| p.code.id).collect::<Vec<_>>(), ["LP6006", "LP6006"]);
    assert_eq!(Config::default_for(&[]).unwrap_err().problems[0].code.id, "LP6004");
}

#[test]
fn name_of_a_patch_file() {
    for (file, name) in [
        ("fix.patch", "fix"),
        ("/a/b.c/0001-net-Fix-a--leak.patch", "net_fix_a_leak"),
        ("CVE-2024-1086.diff", "cve_2024_1086"),
        ("fix", "fix"),
        ("fix.v2.patch", "fix_v2"),
        ("fix-.patch", "fix"),
        ("ünder.patch", "nder"),
        ("0001.patch", "livepatch"),
        (".patch", "livepatch"),
        ("", "livepatch"),
    ] {
        assert_eq!(name_from_patch(Path::new(file)), name, "{file}");
    }
    let long = name_from_patch(Path::new(&format!("{}-x.patch", "a".repeat(47))));
    assert_eq!(long, "a".repeat(47));
    for file in ["a__-_b", "Z9", "x".repeat(300).as_str()] {
        crate::plan::manifest::check_name(&name_from_patch(Path::new(file)), "").unwrap();
    }
}

#[test]
fn expected_changes() {
    let changed = [("a.o", "f"), ("b.o", "f"), ("b.o", "g.isra.0"), ("b.o", "h")];
    let found = |expected: &[&str]| -> Vec<String> {
        check_expected(expected, &changed).iter().map(|p| format!("{} {}", p.code.id, p.place)).collect()
    };
    assert!(found(&["f", "g", "h"]).is_empty());
    assert!(found(&["a.o:f", "b.o:f", "b.o:g.isra.0", "h"]).is_empty());
    assert_eq!(found(&["a.o:f", "g", "h"]), ["LP6008 b.o: f"]);
    assert_eq!(found(&["f", "g", "h", "k"]), ["LP6009 k"]);
    assert_eq!(found(&["f", "g", "h", "a.o:h"]), ["LP6009 a.o: h"]);
    assert_eq!(found(&["f", "g.isra.1", "h"]), ["LP6008 b.o: g.isra.0", "LP6009 g.isra.1"]);
    assert_eq!(found(&[]).len(), 4);
    assert!(check_expected(&["f"], &[] as &[(&str, &str)]).iter().all(|p| p.code.id == "LP6009"));
}

/// The files that come with lpbuild.
#[test]
fn examples_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for folder in ["examples", "tests/bench"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let file = entry.unwrap().path().join("livepatch.toml");
            if file.exists() {
                load(&file).unwrap_or_else(|e| panic!("{e}"));
                seen += 1;
            }
        }
    }
    assert!(seen >= 2);
}

/// What `lpbuild init` writes, in the folder of a `Dir`.
fn template(dir: &Dir, name: Option<&str>, patches: &[&str]) -> String {
    let patches = patches.iter().map(|p| dir.at(p)).collect();
    let template = Template { name: name.map(str::to_owned), release: "6.1.0-53-cloud-amd64".into(), patches };
    template.text(dir.0.path()).unwrap()
}

#[test]
fn the_template_loads_as_it_is() {
    let dir = Dir::new();
    let c = dir.load(&template(&dir, None, &["b.patch", "fix.patch"])).unwrap();
    assert_eq!(c.options.name, "b");
    assert_eq!(c.patches, [dir.at("b.patch"), dir.at("fix.patch")]);
    assert_eq!(c.kernel.release.as_deref(), Some("6.1.0-53-cloud-amd64"));
    let c = dir.load(&template(&dir, Some("other"), &[])).unwrap();
    assert_eq!((c.options.name.as_str(), c.patches.as_slice()), ("other", [dir.at("fix.patch")].as_slice()));
    assert!(template(&dir, None, &["b.patch"]).contains("patches = [\"b.patch\"]\n"), "relative to the folder");
}

#[test]
fn every_key_of_the_template_can_be_uncommented() {
    let dir = Dir::new();
    let uncommented = |text: &str| -> String {
        let line = |l: &str| match l.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') && !key.is_empty() => format!("{key}\n"),
            _ => format!("{l}\n"),
        };
        text.lines().map(line).collect()
    };
    // What is at home in /boot and /lib is looked for below the folder of the test.
    let text = uncommented(&template(&dir, None, &[])).replace("\"/", "\"./");
    for folder in ["boot", "lib/modules/6.1.0-53-cloud-amd64/build", "usr/src/linux", "usr/src/NAME-VERSION"] {
        fs::create_dir_all(dir.at(folder)).unwrap();
    }
    for file in ["vmlinuz", "config"] {
        fs::write(dir.at(&format!("boot/{file}-6.1.0-53-cloud-amd64")), "x").unwrap();
    }
    for file in ["signing_key.pem", "signing_key.x509", "NAME.ko"] {
        fs::write(dir.at(file), "x").unwrap();
    }
    let c = dir.load(&text).unwrap();
    assert!(c.kernel.config.is_some() && c.sign.is_some() && c.options.callbacks.post_revert.is_some());
    // Each of them alone as well, and with its default unless it is an example.
    let template = template(&dir, None, &[]).replace("\"/", "\"./");
    for line in template.lines().filter(|l| l.starts_with('#') && !l.starts_with("# ") && !l.starts_with("#[")) {
        let one = template.replace(line, &line[1..]);
        let needs_table = ["#key", "#certificate", "#files"].iter().any(|key| line.starts_with(key));
        assert_eq!(dir.load(&one).is_ok(), !needs_table, "{line}");
    }
    // None is forgotten, and each has its explanation above it.
    let text: Vec<&str> = text.lines().collect();
    for (table, keys) in schema::TABLES {
        let start = text.iter().position(|l| *l == format!("[{table}]")).expect(table);
        for key in *keys {
            let at = text[start..].iter().position(|l| l.starts_with(&format!("{key} = "))).expect(key);
            assert!(*table == "sign" || text[start + at - 1].starts_with("# "), "{key} is not explained");
        }
    }
}

#[test]
fn commented_values_of_the_template_are_the_defaults() {
    let dir = Dir::new();
    let template = template(&dir, None, &[]);
    for line in [
        "#after = []",
        "#replaces = []",
        "#patience-ms = 15000",
        "#oneshot = false",
        "#jump = \"rel32\"",
        "#flags = []",
    ] {
        assert!(template.contains(&format!("\n{line}\n")), "{line}");
    }
    let defaults = dir.load(MINIMAL).unwrap();
    assert_eq!(
        (defaults.options.mode, defaults.options.patience_ms, defaults.options.jump),
        (None, 15_000, Jump::Rel32)
    );
}
