//! A module has the same bytes whether kbuild was asked or its commands repeated, whatever has happened to what is kept of
//! them; and what is kept is not used for other headers than it was made of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::cmd;
use lpbuild_tests::{Env, in_checkout};

/// Folders of two fixes with patch.o and manifest.toml, and what packs them.
struct Patches {
    env: Env,
    lpbuild: PathBuf,
    dir: tempfile::TempDir,
}

impl Patches {
    fn of(name: &str, series: &str) -> Option<Self> {
        let (env, lpbuild) = Env::series_with_lpbuild(name, series)?;
        let dir = tempfile::tempdir().unwrap();
        let fix = in_checkout("examples/01-proc-cmdline/fix.patch");
        for name in ["first", "second_one"] {
            let mut c = env.maker(&lpbuild).build(&[&fix], &dir.path().join(name));
            let done = c.args(["--name", name, "--keep"]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Some(Self { env, lpbuild, dir })
    }

    fn command(&self, patch: &str, headers: &Path, cache: &Path, ko: &Path) -> Command {
        let mut c = cmd::command(&self.lpbuild);
        c.arg("pack").arg(self.dir.path().join(patch)).arg("--headers").arg(headers).arg("-o").arg(ko);
        c.env("XDG_CACHE_HOME", cache);
        c
    }

    fn pack(&self, patch: &str, headers: &Path, cache: &Path) -> Vec<u8> {
        let ko = self.dir.path().join("packed.ko");
        let _ = fs::remove_file(&ko);
        let done = self.command(patch, headers, cache, &ko).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::read(ko).unwrap()
    }

    /// What kbuild makes of it: this cache cannot be.
    fn asked(&self, patch: &str, headers: &Path) -> Vec<u8> {
        self.pack(patch, headers, Path::new("/dev/null/none"))
    }

    /// The headers with a folder of their own for what is generated.
    fn copied_headers(&self, to: &Path) -> PathBuf {
        let from = self.env.kernel.headers.canonicalize().unwrap();
        let unpacked = from.parent().and_then(Path::parent).unwrap();
        // Links in the headers lead to ../../lib.
        fs::create_dir_all(to).unwrap();
        symlink(unpacked.join("lib"), to.parent().unwrap().join("lib")).unwrap();
        for entry in fs::read_dir(from.parent().unwrap()).unwrap().flatten() {
            if entry.path() != from {
                symlink(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        assert!(Command::new("cp").arg("-a").arg(&from).arg(to).status().unwrap().success());
        // What was changed just now could be changing still.
        std::thread::sleep(std::time::Duration::from_millis(100));
        to.join(from.file_name().unwrap())
    }
}

/// The entries of a cache, with the file that names all others.
fn recipes(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("lpbuild/recipes")).into_iter().flatten().flatten();
    entries.map(|e| e.path().join("recipe.json")).filter(|p| p.is_file()).collect()
}

fn same_bytes_cold_warm_damaged_and_two_at_a_time(name: &str, series: &str) {
    let Some(patches) = Patches::of(name, series) else { return };
    let headers = patches.env.kernel.headers.as_path();
    let (asked, second) = (patches.asked("first", headers), patches.asked("second_one", headers));
    assert!(asked != second);

    // Two that find nothing there.
    let cache = patches.dir.path().join("cache");
    let kos = ["a.ko", "b.ko"].map(|ko| patches.dir.path().join(ko));
    let children: Vec<_> =
        kos.iter().map(|ko| patches.command("first", headers, &cache, ko).spawn().unwrap()).collect();
    for (mut child, ko) in children.into_iter().zip(&kos) {
        assert!(child.wait().unwrap().success());
        assert!(fs::read(ko).unwrap() == asked, "{}", ko.display());
    }
    let [recipe] = recipes(&cache).try_into().unwrap();
    let text = fs::read_to_string(&recipe).unwrap();
    assert!(!text.contains("\"unknown\""), "{text}");

    assert!(patches.pack("first", headers, &cache) == asked);
    assert!(patches.pack("second_one", headers, &cache) == second);
    assert_eq!(fs::read_to_string(&recipe).unwrap(), text, "it was made again");

    // A bit of an object, of a command; and half an entry.
    let object = recipe.with_file_name("lp-init.o");
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    let at = bad.windows(8).position(|w| w == b"lpbuild:").unwrap();
    bad[at] = b'L';
    fs::write(&object, &bad).unwrap();
    assert!(patches.pack("first", headers, &cache) == asked, "a damaged object was used");
    assert!(fs::read(&object).unwrap() == good);
    fs::write(&recipe, text.replace("--build-id=sha1", "--build-id=md5")).unwrap();
    assert!(patches.pack("first", headers, &cache) == asked, "a damaged command was used");
    fs::remove_file(&object).unwrap();
    assert!(patches.pack("first", headers, &cache) == asked);
    assert!(fs::read(&object).unwrap() == good);
}

#[test]
fn same_bytes_cold_warm_damaged_and_two_at_a_time_on_6_1() {
    same_bytes_cold_warm_damaged_and_two_at_a_time("same_bytes_cold_warm_damaged_and_two_at_a_time_on_6_1", "6.1");
}

#[test]
fn same_bytes_cold_warm_damaged_and_two_at_a_time_on_6_12() {
    same_bytes_cold_warm_damaged_and_two_at_a_time("same_bytes_cold_warm_damaged_and_two_at_a_time_on_6_12", "6.12");
}

#[test]
fn changed_headers_are_noticed_though_size_and_date_are_the_same() {
    let name = "changed_headers_are_noticed_though_size_and_date_are_the_same";
    let Some(patches) = Patches::of(name, "6.1") else { return };
    let asked = patches.asked("first", &patches.env.kernel.headers);
    let cache = patches.dir.path().join("cache");
    let headers = patches.copied_headers(&patches.dir.path().join("copy/src"));
    assert!(patches.pack("first", &headers, &cache) == asked, "the bytes depend on where the headers are");

    for (file, old, new) in [
        ("autoconf.h", "#define CONFIG_HZ 250\n", "#define CONFIG_HZ 300\n"),
        ("timeconst.h", "HZ != 250", "HZ != 300"),
    ] {
        let file = headers.join("include/generated").join(file);
        let date = fs::metadata(&file).unwrap().modified().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(old), "{}", file.display());
        fs::write(&file, text.replace(old, new)).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(date).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    let changed = patches.pack("first", &headers, &cache);
    assert!(changed != asked, "objects of other headers were used");
    assert!(changed == patches.asked("first", &headers));
}

#[test]
fn the_second_module_for_a_kernel_compiles_no_c_of_the_runtime() {
    for series in ["6.1", "6.12"] {
        let name = "the_second_module_for_a_kernel_compiles_no_c_of_the_runtime";
        let Some(patches) = Patches::of(name, series) else { return };
        let log = fs::read_to_string(patches.dir.path().join("second_one/build.log")).unwrap();
        let compiled: Vec<&str> = log
            .split([' ', '/', '\''])
            .filter(|w| w.starts_with("lp-") && w.ends_with(".c") || w.ends_with(".mod.c"))
            .collect();
        assert_eq!(compiled, ["lp-module.c", "second_one.mod.c"], "{series}: {log}");
    }
}
