//! `lpbuild build --module-source`: modules that are built beside the kernel. Which file is taken for what runs, that nothing is
//! written to the source, and what is refused. What the patches do is seen in tests/vm_external_modules.rs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lpbuild_tests::Env;
use lpbuild_tests::external::{Edit, External, FIX};
use serde_json::Value;
use tempfile::TempDir;

struct Bench {
    env: Env,
    lpbuild: PathBuf,
    modules: External,
    _dir: TempDir,
}

impl Bench {
    fn find(name: &str, series: &str) -> Option<Self> {
        let (env, lpbuild) = Env::series_with_lpbuild(name, series)?;
        let dir = tempfile::tempdir().unwrap();
        let modules = External::make(&env, dir.path());
        Some(Self { env, lpbuild, modules, _dir: dir })
    }

    fn command(&self, patch: &Path) -> Command {
        self.modules.command(&self.env, &self.lpbuild, patch)
    }

    /// Exit code, report, stderr.
    fn run(&self, name: &str, edits: &[Edit<'_>], more: &[&str]) -> (i32, Value, String) {
        let patch = self.modules.patch(name, edits);
        let out = self.command(&patch).arg("--json").args(more).output().unwrap();
        let report = serde_json::from_slice(&out.stdout).unwrap_or_default();
        (out.status.code().unwrap(), report, String::from_utf8_lossy(&out.stderr).into_owned())
    }

    #[track_caller]
    fn refused(&self, name: &str, edits: &[Edit<'_>], more: &[&str], words: &[&str]) {
        let (code, report, err) = self.run(name, edits, more);
        assert!(code == 4 && words.iter().all(|w| err.contains(w)), "{name}: {code} {err} {report}");
    }

    #[track_caller]
    fn built(&self, name: &str, edits: &[Edit<'_>], more: &[&str]) -> (Vec<String>, Value) {
        let (code, report, err) = self.run(name, edits, more);
        assert_eq!(code, 0, "{name}: {err} {report}");
        let changed = report["changed"].as_array().unwrap().iter();
        let symbol = |c: &Value| format!("{} {}", c["object"].as_str().unwrap(), c["symbol"].as_str().unwrap());
        let mut changed: Vec<String> = changed.map(symbol).collect();
        changed.sort();
        (changed, report)
    }
}

/// Every file with its content.
fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut all, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { drop(all.insert(path.clone(), fs::read(path).unwrap())) }
        }
    }
    all
}

const BOTH: [&str; 3] = ["lpt-user.o lpt_user_show", "sub/lpt_part.o lpt_part", "sub/lpt_part.o lpt_twice"];

fn one_patch_has_what_changes_in_all_modules_of_a_source(series: &str) {
    let Some(b) = Bench::find("one_patch_has_what_changes_in_all_modules", series) else { return };
    let before = content(&b.modules.source);
    let (changed, report) = b.built("fix", &FIX, &[]);
    assert_eq!(changed, BOTH);
    assert_eq!(report["objects"], serde_json::json!(["lpt-user.o", "sub/lpt_part.o"]));
    let manifest = fs::read_to_string(b.modules.dir.join("out/manifest.toml")).unwrap();
    for holder in ["lpt_ext", "lpt_user"] {
        assert!(manifest.contains(&format!("[[holder]]\nname = \"{holder}\"\n")), "{manifest}");
    }
    let module = fs::read(b.modules.dir.join("out/fix.ko")).unwrap();
    b.built("fix", &FIX, &[]);
    assert!(module == fs::read(b.modules.dir.join("out/fix.ko")).unwrap(), "the same bytes each time");
    assert!(before == content(&b.modules.source), "the source is only read");
    // The table of livepatch.toml says the same.
    let toml = b.modules.dir.join("livepatch.toml");
    let text = "[patch]\nname = \"fix\"\npatches = [\"fix.patch\"]\n[kernel]\nmodule-dir = \"modules\"\n[module]\nsource = \"lpt-1.0\"\n";
    fs::write(&toml, text).unwrap();
    let mut c = harness::cmd::command(&b.lpbuild);
    c.arg("build").arg(&toml).arg("-o").arg(b.modules.dir.join("out2")).arg("--image").arg(&b.env.kernel.vmlinuz);
    c.arg("--headers").arg(&b.env.kernel.headers).arg("--config").arg(&b.env.kernel.config);
    let out = c.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(module == fs::read(b.modules.dir.join("out2/fix.ko")).unwrap());
    // A flag of a Makefile makes another object as well; what kbuild has made in the source is not copied.
    b.modules.build(&b.env, &b.modules.source);
    let flag = ("Makefile", "lpt_ext-y :=", "CFLAGS_sub/lpt_part.o := -fno-inline\nlpt_ext-y :=");
    let (changed, report) = b.built("flag", &[flag], &[]);
    assert_eq!((changed, &report["unused"]), (vec![BOTH[1].to_owned(), BOTH[2].to_owned()], &serde_json::json!([])));
    // A source that is added.
    let more = [
        ("Makefile", "sub/lpt_part.o\n", "sub/lpt_part.o lpt_more.o\n"),
        (
            "lpt_more.c",
            "",
            "#include <linux/kernel.h>\n#include <lpt.h>\nint lpt_more(int n);\nint lpt_more(int n)\n{\n\tbarrier();\n\treturn n + 7;\n}\n",
        ),
        ("sub/lpt_part.c", "return 2 * lpt_part(n);", "extern int lpt_more(int);\n\n\treturn lpt_more(lpt_part(n));"),
    ];
    let (changed, report) = b.built("more", &more, &[]);
    assert_eq!(changed, ["sub/lpt_part.o lpt_twice"], "{report}");
}

#[test]
fn one_patch_has_what_changes_in_all_modules_of_a_source_61() {
    one_patch_has_what_changes_in_all_modules_of_a_source("6.1");
}

#[test]
fn one_patch_has_what_changes_in_all_modules_of_a_source_612() {
    one_patch_has_what_changes_in_all_modules_of_a_source("6.12");
}

#[test]
fn the_file_of_the_module_that_runs_is_one_and_fits() {
    let Some(b) = Bench::find("the_file_of_the_module_that_runs_is_one_and_fits", "6.1") else { return };
    let part = &FIX[1..];
    assert_eq!(b.built("part", part, &[]).0, ["sub/lpt_part.o lpt_part", "sub/lpt_part.o lpt_twice"]);
    // Another one of that name.
    b.modules.install(&b.modules.file("lpt_ext"), "extra");
    b.refused("part", part, &[], &["LP3009", "extra/lpt_ext.ko", "updates/dkms/lpt_ext.ko", "--module"]);
    let (dkms, user) = (b.modules.file("lpt_ext"), b.modules.file("lpt-user"));
    let [dkms, user] = [&dkms, &user].map(|p| p.to_str().unwrap());
    b.built("part", part, &["--module", dkms]);
    b.refused("part", part, &["--module", dkms, "--module", dkms], &["LP3009", "and so is"]);
    fs::remove_dir_all(b.modules.modules.join("extra")).unwrap();
    // One that was made of another source is not what would be replaced.
    let other = b.modules.dir.join("other");
    assert!(Command::new("cp").arg("-r").arg(&b.modules.source).arg(&other).status().unwrap().success());
    let file = other.join("sub/lpt_part.c");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("calls++", "calls += 3")).unwrap();
    b.modules.build(&b.env, &other);
    let other = other.join("lpt_ext.ko");
    b.refused("part", part, &["--module", other.to_str().unwrap()], &["LP3001", "lpt_part"]);
    // No module of the source.
    let stock = harness::runpre::RunPre::of(&b.env.kernel).unwrap();
    let stock = lpbuild::holder::ModuleFinder::file(stock.files(), "fs/binfmt_misc").unwrap();
    b.refused(
        "part",
        part,
        &["--module", stock.to_str().unwrap()],
        &["LP3009", "binfmt_misc; from the source come lpt_ext, lpt_user"],
    );
    // Exported by a module that is away: only what imports from it needs it.
    fs::remove_file(dkms).unwrap();
    let words = ["LP3009", "lpt_ext", "/modules or /lib/modules/", "--module"];
    b.refused("part", part, &[], &words);
    let show = ("lpt-user.c", "\"%d\\n\"", "\": %d\\n\"");
    b.refused("user", &[show], &["--module", user], &words);
}

#[test]
fn what_no_patch_of_a_module_can_be_is_refused() {
    let Some(b) = Bench::find("what_no_patch_of_a_module_can_be_is_refused", "6.1") else { return };
    b.refused("generated", &[("number.in", "2", "3")], &[], &["LP6305", "lpt_generated.h"]);
    b.refused("gone", &[("Makefile", " sub/lpt_part.o\n", "\n")], &[], &["LP6306", "sub/lpt_part.o"]);
    b.refused(
        "init",
        &[("lpt_main.c", "return entry ? 0 : -ENOMEM;", "return entry ? 0 : -EINVAL;")],
        &[],
        &["LP6302"],
    );
    let twice = (
        "sub/lpt_part.c",
        "int lpt_twice(int n)\n{\n\treturn 2 * lpt_part(n);",
        "int lpt_twice(int n, int m)\n{\n\treturn m * lpt_part(n);",
    );
    let declared = ("include/lpt.h", "int lpt_twice(int n);", "int lpt_twice(int n, int m);");
    let used = ("lpt-user.c", "lpt_twice(4)", "lpt_twice(4, 3)");
    b.refused("signature", &[twice, declared, used], &[], &["LP2019", "lpt_twice"]);
    let (code, report, err) = b.run("text", &[("README", "modules", "external modules")], &[]);
    assert!(code == 3 && report["unused"][0]["file"] == "README", "{code} {err} {report}");
    let (code, _, err) = b.run("broken", &[("lpt_main.c", "lpt_part(LPT_NUMBER)", "lpt_part(LPT_NUMBERS)")], &[]);
    assert!(code == 1 && err.contains("LP6213") && err.contains("lpt_main.c"), "{code} {err}");
    // Two modules that would have one name.
    fs::create_dir(b.modules.source.join("second")).unwrap();
    fs::write(b.modules.source.join("second/Makefile"), "obj-m := lpt_user.o\n").unwrap();
    fs::copy(b.modules.source.join("lpt-user.c"), b.modules.source.join("second/lpt_user.c")).unwrap();
    let file = b.modules.source.join("Makefile");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("obj-m :=", "obj-m := second/")).unwrap();
    b.refused("twice", &FIX, &[], &["LP3009", "lpt-user and second/lpt_user of the source"]);
    fs::write(&file, "all:\n\ttrue\n").unwrap();
    let (code, _, err) = b.run("none", &FIX, &[]);
    assert!(code == 1 && err.contains("LP6216"), "{code} {err}");
    // The command line.
    let patch = b.modules.patch("usage", &FIX);
    for (more, want, word) in [
        (&["--leave-modules"][..], 2, "--leave-modules"),
        (&["--source", "/"], 2, "--source"),
        (&["--module", "/nowhere.ko"], 1, "/nowhere.ko"),
    ] {
        let out = b.command(&patch).args(more).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(want) && err.contains(word), "{more:?}: {err}");
    }
}

/// What DKMS does before make is not done here: a file that says so is no folder's that kbuild alone makes the modules of.
#[test]
fn dkms_conf_is_followed_or_refused() {
    let Some(b) = Bench::find("dkms_conf_is_followed_or_refused", "6.1") else { return };
    const LINE: &str = "-C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build";
    let conf = |dir: &Path, text: &str| {
        let head =
            "PACKAGE_NAME=\"lpt\"\nPACKAGE_VERSION=\"1.0\"\nBUILT_MODULE_NAME[0]=\"lpt_ext\"\nAUTOINSTALL=\"yes\"\n";
        fs::write(dir.join("dkms.conf"), format!("{head}{text}\n")).unwrap();
    };
    // A module that the variable of a MAKE line asks for; the others are not built at all.
    let makefile = b.modules.source.join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    let asked = "obj-m := lpt_ext.o\nCONFIG_LPT_USER ?= n\nobj-$(CONFIG_LPT_USER) += lpt-user.o";
    fs::write(&makefile, text.replace("obj-m := lpt_ext.o lpt-user.o", asked)).unwrap();
    conf(
        &b.modules.source,
        &format!("MAKE[0]=\"'make' -j4 {LINE} CONFIG_LPT_USER=m KVER=$kernelver modules\"\nPOST_BUILD=sign"),
    );
    assert_eq!(b.built("asked", &FIX, &[]).0, BOTH);
    let log = fs::read_to_string(b.modules.dir.join("out/build.log")).unwrap();
    assert!(log.contains("dkms.conf gives make CONFIG_LPT_USER=m KVER=6.1."), "{log}");
    conf(&b.modules.source, &format!("MAKE[0]=\"make {LINE}\""));
    assert_eq!(b.built("not_asked", &FIX, &[]).0, BOTH[1..], "nobody asks for the other one");
    // The Makefile of the folder calls kbuild, for these headers or for others, and does something else besides.
    let own = "MAKE[0]=\"'make' CONFIG_LPT_USER=m KERNEL=$kernel_source_dir\"";
    conf(&b.modules.source, own);
    assert_eq!(b.built("own", &FIX, &[]).0, BOTH);
    conf(&b.modules.source, &own.replace("$kernel_source_dir", "/nowhere"));
    b.refused("elsewhere", &FIX, &[], &["LP6217", "/nowhere, which are not the headers of 6.1."]);
    let text = fs::read_to_string(&makefile).unwrap();
    fs::write(&makefile, text.replace("\nmodules:\n", "\nexport LPT_MORE := 1\nmodules:\n")).unwrap();
    conf(&b.modules.source, own);
    b.refused("exports", &FIX, &[], &["LP6217", "dkms.conf", "exports LPT_MORE"]);
    fs::write(&makefile, text).unwrap();
    for (text, words) in [
        ("PRE_BUILD=\"configure.sh\"", "PRE_BUILD=configure.sh"),
        ("PATCH[0]=\"old-kernels.patch\"", "PATCH[0]=old-kernels.patch"),
        // DKMS tells that make the release, and then the Makefile is kbuild's.
        ("MAKE[0]=\"make\"", "make"),
        (&format!("MAKE[0]=\"make {LINE} KCFLAGS=-DMORE\""), "KCFLAGS=-DMORE"),
    ] {
        conf(&b.modules.source, text);
        b.refused("refused", &FIX, &[], &["LP6217", "dkms.conf", words]);
    }
    // A change of the line itself is one of what is built.
    conf(&b.modules.source, &format!("MAKE[0]=\"make {LINE} CONFIG_LPT_USER=m\""));
    let unasked = [FIX.as_slice(), &[("dkms.conf", "CONFIG_LPT_USER=m", "CONFIG_LPT_USER=n")]].concat();
    b.refused("unasked", &unasked, &[], &["LP6306"]);
    // In the folder above it says which folder below is built.
    fs::remove_file(b.modules.source.join("dkms.conf")).unwrap();
    conf(&b.modules.dir, &format!("MAKE[0]=\"make {LINE}/lpt-1.0 CONFIG_LPT_USER=m\""));
    assert_eq!(b.built("above", &FIX, &[]).0, BOTH);
    conf(&b.modules.dir, &format!("MAKE[0]=\"make {LINE}/other\""));
    b.refused("other", &FIX, &[], &["LP6217", "not the folder"]);
}
