//! The cache of `lpbuild build` survives whatever happens to a build: a full disk, Ctrl-C in each phase; and it is listed
//! and removed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lpbuild_tests::{Env, in_checkout};
use serde_json::Value;

fn fix() -> PathBuf {
    in_checkout("examples/01-proc-cmdline/fix.patch")
}

/// A build that is interrupted when it says `phase`: exit code and stderr.
fn interrupted(mut c: Command, phase: &str) -> (i32, String) {
    let mut child = c.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut seen = String::new();
    let mut sent = false;
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if !sent && line.contains(phase) {
            // As the terminal does it: to lpbuild and to all it has started.
            let group = format!("-{}", child.id());
            assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
            sent = true;
        }
        seen += &format!("{line}\n");
    }
    assert!(sent, "it never said {phase:?}:\n{seen}");
    (child.wait().unwrap().code().unwrap_or(-1), seen)
}

/// A file system of this size, if this user may mount one.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "lpbuild-test"])
            .arg(dir)
            .output();
        done.is_ok_and(|o| o.status.success()).then(|| Self(dir.to_path_buf()))
    }

    fn resize(&self, size: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_and_the_next_one_works() {
    let Some((env, lpbuild)) = Env::with_lpbuild("an_interrupted_build_leaves_nothing") else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let temp = dir.path().join("tmp");
    fs::create_dir(&temp).unwrap();
    let build = || {
        let mut c = env.maker(&lpbuild).build(&[&fix()], &out);
        c.env("TMPDIR", &temp);
        c
    };
    for phase in ["compiling", "comparing", "packing"] {
        let (code, err) = interrupted(build(), phase);
        assert!(code == 1 && err.contains("LP6215"), "{phase}: {code}\n{err}");
        assert!(!out.exists(), "{phase}: the output folder is there");
        let left: Vec<_> = fs::read_dir(&temp).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "{phase}: {left:?} was left behind");
    }
    assert!(build().output().unwrap().status.success());
    assert!(out.join("fix.ko").is_file());
}

#[test]
fn a_full_disk_is_an_error_and_no_half_output() {
    let name = "a_full_disk_is_an_error_and_no_half_output";
    let Some((env, lpbuild)) = Env::with_lpbuild(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(&dir.path().join("small"), "32k") else {
        return harness::skip(name, "this user cannot mount a tmpfs");
    };
    let out = dir.path().join("small/out");
    let full = env.maker(&lpbuild).build(&[&fix()], &out).output().unwrap();
    let err = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert!(fs::read_dir(dir.path().join("small")).unwrap().next().is_none(), "something was left behind");
    // The same for temporary files.
    let out = dir.path().join("out");
    let mut c = env.maker(&lpbuild).build(&[&fix()], &out);
    let full = c.env("TMPDIR", dir.path().join("small")).output().unwrap();
    let err = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert!(!out.exists());
}

#[test]
fn a_cache_that_was_full_and_interrupted_is_finished_listed_and_removed() {
    let name = "a_cache_that_was_full_and_interrupted_is_finished";
    let Some((env, lpbuild)) = Env::with_lpbuild(name) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let Some(small) = Small::mount(&cache, "4m") else {
        return harness::skip(name, "this user cannot mount a tmpfs");
    };
    let out = dir.path().join("out");
    let build = || {
        let mut c = env.maker(&lpbuild).build(&[&fix()], &out);
        c.env("XDG_CACHE_HOME", &cache);
        c
    };
    let full = build().output().unwrap();
    let err = String::from_utf8_lossy(&full.stderr);
    assert!(full.status.code() == Some(1) && err.contains("No space left"), "{err}");
    small.resize("400m");
    let (code, err) = interrupted(build(), ": prepare");
    assert!(code == 1 && err.contains("LP6215"), "{code}\n{err}");
    assert!(build().output().unwrap().status.success());
    assert!(out.join("fix.ko").is_file());

    let command = |args: &[&str]| {
        let out = Command::new(&lpbuild).arg("cache").args(args).env("XDG_CACHE_HOME", &cache).output().unwrap();
        (
            out.status.code().unwrap_or(-1),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (code, text, _) = command(&["--json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let entries = list["entries"].as_array().unwrap();
    let kinds: Vec<_> = entries.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(code == 0 && kinds == ["tree", "recipe"], "{text}");
    assert_eq!(entries[0]["stamp"]["release"], env.kernel.release.as_str());
    let (code, _, err) = command(&["remove", "no-such-tree"]);
    assert!(code == 4 && err.contains("LP6202"), "{code} {err}");
    for entry in entries {
        let name = entry["name"].as_str().unwrap();
        let (code, text, _) = command(&["remove", name]);
        assert!(code == 0 && text.contains(name), "{text}");
    }
    let list: Value = serde_json::from_str(&command(&["--json"]).1).unwrap();
    assert!(list["entries"].as_array().unwrap().is_empty(), "{list}");
}
