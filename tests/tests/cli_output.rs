//! What every command prints and where: one JSON object with `--json`, also when it fails; colour only when wanted; no panic
//! when nobody reads.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use lpbuild_tests::built_lpbuild;
use serde_json::Value;

fn run(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Output {
    let mut c = Command::new(built_lpbuild());
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
        c.env_remove(name);
    }
    // Nothing of this user's cache is listed or written.
    c.args(args).envs(env.iter().copied()).env("XDG_CACHE_HOME", dir.join("cache")).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Each command that reports has `--json`; a failure is an object with its codes, and is said on stderr as well.
#[test]
fn a_failure_is_one_json_object() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "neither object nor patch nor module").unwrap();
    std::fs::write(dir.path().join("other"), "nor this").unwrap();
    for (args, exit, code) in [
        (vec!["build", "--json"], 1, "LP6004"),
        (vec!["build", "--json", "missing.patch"], 1, ""),
        (vec!["diff", "--json", "text", "other"], 1, "LP1002"),
        (vec!["diff", "--json", "missing", "text"], 1, "LP1004"),
        (vec!["pack", "--json", "missing"], 1, ""),
        (vec!["try", "--json", "missing.ko"], 1, "LP1004"),
        (vec!["try", "--json", "text"], 4, "LP5102"),
        (vec!["load", "--json", "text"], 4, "LP5102"),
        (vec!["unload", "--json", "no_such_patch"], 4, "LP5113"),
        (vec!["status", "--json", "no_such_patch"], 4, "LP5113"),
        (vec!["inspect", "--json", "text"], 4, "LP5102"),
        (vec!["cache", "--json", "remove", "no-such-entry"], 4, "LP6202"),
        (vec!["explain", "--json", "LP9999"], 1, "LP1102"),
        (vec!["why", "--json", "symbol", "text"], 4, "LP5102"),
        (vec!["why", "--json", "symbol", "."], 1, "LP1004"),
    ] {
        let o = run(&args, &[], dir.path());
        let (out, err) = (text(&o.stdout), text(&o.stderr));
        assert_eq!(o.status.code(), Some(exit), "{args:?}: {out}{err}");
        let json: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"));
        let found = json["refused"][0]["code"].as_str().unwrap_or_else(|| panic!("{args:?}: {out}"));
        assert!(code.is_empty() || found == code, "{args:?}: {out}");
        assert!(err.contains(found), "{args:?}: {err}");
    }
}

#[test]
fn a_success_is_one_json_object() {
    let dir = tempfile::tempdir().unwrap();
    let json = |args: &[&str]| -> Value {
        let o = run(args, &[], dir.path());
        assert_eq!(o.status.code(), Some(0), "{args:?}: {}", text(&o.stderr));
        assert!(o.stderr.is_empty(), "{args:?}: {}", text(&o.stderr));
        serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&o.stdout)))
    };
    let one = json(&["explain", "--json", "lp5007"]);
    assert_eq!(one["codes"].as_array().unwrap().len(), 1);
    assert_eq!(
        (one["codes"][0]["code"].as_str(), one["codes"][0]["class"].as_str()),
        (Some("LP5007"), Some("refused"))
    );
    assert_eq!(json(&["explain", "--json"])["codes"].as_array().unwrap().len(), lpbuild::codes::all().count());
    let cache = json(&["cache", "--json"]);
    assert!(cache["entries"].as_array().unwrap().is_empty() && cache["cache"].is_string(), "{cache}");
    assert_eq!(json(&["cache", "remove", "--all", "--json"])["removed"], serde_json::json!([]));
    assert!(json(&["status", "--json"])["patches"].is_array());
}

#[test]
fn colour_is_for_terminals_or_when_forced() {
    let dir = tempfile::tempdir().unwrap();
    for (args, env, colour) in [
        (["explain", "LP6401"], vec![], false),
        (["explain", "LP6401"], vec![("CLICOLOR_FORCE", "1")], true),
        (["explain", "LP6401"], vec![("NO_COLOR", "1")], false),
        (["explain", "LP9999"], vec![], false),
        (["explain", "LP9999"], vec![("CLICOLOR_FORCE", "1")], true),
        (["explain", "LP9999"], vec![("NO_COLOR", "1")], false),
    ] {
        let o = run(&args, &env, dir.path());
        let all = text(&o.stdout) + &text(&o.stderr);
        assert_eq!(all.contains('\x1b'), colour, "{args:?} {env:?}: {all:?}");
        assert!(all.contains(args[1]), "{all}");
    }
    // JSON is for programs: no colour in it, whatever the terminal.
    let o = run(&["explain", "--json", "LP6401"], &[("CLICOLOR_FORCE", "1")], dir.path());
    assert!(!text(&o.stdout).contains('\x1b'));
}

/// NO_COLOR on a terminal: `script` gives the command one.
#[test]
fn no_color_is_honoured_on_a_terminal() {
    let binary = built_lpbuild().display();
    for (env, colour) in [("TERM=xterm", true), ("TERM=xterm NO_COLOR=1", false)] {
        let command = format!("env -u NO_COLOR -u CLICOLOR_FORCE {env} {binary} explain LP6401");
        let o = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
        let Ok(o) = o else {
            harness::skip("no_color_is_honoured_on_a_terminal", "the program `script` is not installed");
            return;
        };
        let out = text(&o.stdout);
        assert!(out.contains("LP6401") && out.contains('\x1b') == colour, "{env}: {out:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [&["explain"][..], &["explain", "--json"], &["cache", "list"], &["status"], &["status", "--json"]] {
        let mut c = Command::new(built_lpbuild());
        let mut child = c.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let o = child.wait_with_output().unwrap();
        assert!(o.stderr.is_empty() && o.status.success(), "{args:?}: {}: {}", o.status, text(&o.stderr));
    }
}
