//! `lpbuild init` as it is called.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lpbuild::config;

fn init(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lpbuild")).arg("init").args(args).current_dir(dir).output().unwrap()
}

fn exit(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn file_is_written_for_the_release_and_the_patches() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0001-a-fix.patch"), "x").unwrap();
    // A patch in the place of the folder.
    let output = init(dir.path(), &["0001-a-fix.patch", "--release", "6.1.0-1-test"]);
    assert_eq!(exit(&output), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "./livepatch.toml");
    let c = config::load(&dir.path().join("livepatch.toml")).unwrap();
    assert_eq!((c.options.name.as_str(), c.kernel.release.as_deref()), ("a_fix", Some("6.1.0-1-test")));
    // A new folder: the patch is outside of it, so its path is absolute.
    let output = init(dir.path(), &["sub/folder", "0001-a-fix.patch", "--name", "n"]);
    assert_eq!(exit(&output), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let c = config::load(&dir.path().join("sub/folder/livepatch.toml")).unwrap();
    assert_eq!(c.options.name, "n");
    assert_eq!(c.patches, [dir.path().join("0001-a-fix.patch")]);
    let running = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(c.kernel.release.as_deref(), Some(running.trim()));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("livepatch.toml");
    fs::write(&file, "mine").unwrap();
    let output = init(dir.path(), &[]);
    assert_eq!(exit(&output), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LP6010"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(exit(&init(dir.path(), &["--force"])), Some(0));
    assert!(fs::read_to_string(&file).unwrap().contains("[patch]"));
}

#[test]
fn wrong_usage_and_missing_patches() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(exit(&init(dir.path(), &["--name", "Not A Name"])), Some(2));
    let output = init(dir.path(), &["missing.patch"]);
    assert_eq!(exit(&output), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("LP6006"));
    assert!(!dir.path().join("livepatch.toml").exists());
}
