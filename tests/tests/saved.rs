//! `lpbuild build --save-dir`: what was saved gives the same module again, whatever the build found elsewhere: files of modules, what was
//! left out of the patches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lpbuild_tests::Env;
use lpbuild_tests::external::{External, FIX};

/// The command that saves, with its result in `dir/out`.
fn saves(mut build: Command, dir: &Path) -> PathBuf {
    let saved = dir.join("saved");
    let out = build.arg("--save-dir").arg(&saved).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    saved
}

/// The exit code of the replay, and what it said.
fn replays(saved: &Path, lpbuild: &Path) -> (Option<i32>, String) {
    let out = Command::new(saved.join("replay.sh")).env("LPBUILD", lpbuild).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned())
}

/// The module and its manifest are those of the build.
#[track_caller]
fn is_the_same(saved: &Path, built: &Path, name: &str) {
    let text = |dir: &Path| fs::read_to_string(dir.join("manifest.toml")).unwrap();
    assert_eq!(text(&saved.join("replayed")), text(built));
    let ko = |dir: &Path| fs::read(dir.join(name)).unwrap();
    assert!(ko(&saved.join("replayed")) == ko(built), "the replay gives another module");
}

/// One of the kernel and one of a module in one patch, of which something was left out.
#[test]
fn a_patch_of_a_module_without_a_part_is_repeated_as_it_was() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_patch_of_a_module_without_a_part") else { return };
    let dir = tempfile::tempdir().unwrap();
    let edits = [
        ("Documentation/admin-guide/README.rst", "What is Linux?\n", "What was Linux?\n"),
        ("fs/binfmt_misc.c", "enabled ? \"enabled\\n\"", "enabled ? \"enabled, saved\\n\""),
        ("fs/proc/cmdline.c", "seq_putc(m, '\\n');", "seq_puts(m, \" saved\\n\");"),
    ];
    for (file, from, to) in edits {
        let text = fs::read_to_string(env.tree.source.join(file)).unwrap();
        for (side, from, to) in [("a", from, from), ("b", from, to)] {
            let path = dir.path().join(side).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = fs::read_to_string(&path).unwrap_or_else(|_| text.clone());
            assert_eq!(text.matches(from).count(), 1, "{file}: {from:?}");
            fs::write(&path, text.replace(from, to)).unwrap();
        }
    }
    let diff = Command::new("diff").args(["-ru", "a", "b"]).current_dir(&dir).output().unwrap();
    let patch = dir.path().join("fix.patch");
    fs::write(&patch, diff.stdout).unwrap();
    let built = dir.path().join("out");
    let mut build = env.maker(&lpbuild).build(&[&patch], &built);
    build.args(["--name", "both", "--leave-out", "Documentation/", "--accept", "promise=bm_status_read"]);
    let saved = saves(build, dir.path());
    let manifest = fs::read_to_string(built.join("manifest.toml")).unwrap();
    assert!(manifest.contains("[[holder]]\nname = \"binfmt_misc\"") && manifest.contains("[[left-out]]"), "{manifest}");
    let (code, said) = replays(&saved, &lpbuild);
    assert_eq!(code, Some(0), "{said}");
    is_the_same(&saved, &built, "both.ko");
    let stock = harness::runpre::RunPre::of(&env.kernel).unwrap();
    let file = lpbuild::holder::ModuleFinder::file(stock.files(), "fs/binfmt_misc").unwrap();
    assert!(fs::read(saved.join("modules/binfmt_misc.ko")).unwrap() == fs::read(file).unwrap());
    // What a file for --of-source says is read as strictly as a manifest.
    fs::write(saved.join("source.toml"), "[[left-out]]\npatch = \"p\"\n").unwrap();
    let (code, said) = replays(&saved, &lpbuild);
    assert!(code == Some(1) && said.contains("LP1104") && said.contains("source.toml"), "{said}");
}

/// Modules that no folder has where anybody would look, one of which exports something to the other.
#[test]
fn a_patch_of_modules_from_elsewhere_has_their_files() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_patch_of_modules_from_elsewhere") else { return };
    let dir = tempfile::tempdir().unwrap();
    let modules = External::make(&env, dir.path());
    let patch = modules.patch("lpt_fix", &FIX);
    let saved = saves(modules.command(&env, &lpbuild, &patch), dir.path());
    fs::remove_dir_all(&modules.modules).unwrap();
    let (code, said) = replays(&saved, &lpbuild);
    assert_eq!(code, Some(0), "{said}");
    is_the_same(&saved, &modules.dir.join("out"), "lpt_fix.ko");
    let script = fs::read_to_string(saved.join("replay.sh")).unwrap();
    let (user, ext) = ("--module modules/lpt_user.ko", "--module modules/lpt_ext.ko");
    for (more, words) in [
        // Without the file of a module there is nothing to compare with, and nobody exports what it imports.
        (script.replace(user, ""), ["LP3009", "lpt_user"]),
        (script.replace(user, &format!("{user} {user}")), ["LP3009", "and so is"]),
        (script.replace(ext, &format!("{ext} --module modules/other.ko")), ["LP3009", "nothing that differs"]),
    ] {
        let stock = harness::runpre::RunPre::of(&env.kernel).unwrap();
        let file = lpbuild::holder::ModuleFinder::file(stock.files(), "fs/binfmt_misc").unwrap();
        fs::copy(file, saved.join("modules/other.ko")).unwrap();
        fs::write(saved.join("replay.sh"), more).unwrap();
        let (code, said) = replays(&saved, &lpbuild);
        assert!(code == Some(4) && words.iter().all(|w| said.contains(w)), "{code:?}: {said}");
    }
}
