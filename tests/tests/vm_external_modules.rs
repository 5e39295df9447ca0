//! Patches of modules that were built beside the kernel, made by `lpbuild build --module-source`: in effect whether the modules are here
//! or come later, in any order of coming and going, and gone without a trace.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::external::{External, FIX};
use lpbuild_tests::on_both;

on_both! {
    external_modules_are_patched_whether_they_are_here_or_come
    a_trial_brings_external_modules_away_and_here
}

fn external_modules_are_patched_whether_they_are_here_or_come(series: &'static str) {
    let Some(b) = Bench::find("external_modules_are_patched", series) else { return };
    let dir = tempfile::tempdir().unwrap();
    let modules = External::make(&b.env, dir.path());
    let patch = modules.patch("lpt_fix", &FIX);
    let out = modules.command(&b.env, b.lpbuild(), &patch).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let b = b.ko("lpt_ext", modules.file("lpt_ext")).ko("lpt-user", modules.file("lpt-user"));
    let b = b.ko("lpt_fix", modules.dir.join("out/lpt_fix.ko"));
    let script = r#"
up() { insmod /lpt_ext.ko; insmod /lpt-user.ko; }
down() { rmmod lpt_user || fail 'lpt_user stays'; rmmod lpt_ext || fail 'lpt_ext stays'; }
ext() { expect ext "ext $1" "$(cat /proc/lpt_ext)"; }
user() { expect user "user $1" "$(cat /proc/lpt_user)"; }
old() { ext 106; user 227; }
new() { ext 210; user 445; expect_in holders "lpt_ext applied" "$(of lpt_fix holders)"; expect_in holders "lpt_user applied" "$(of lpt_fix holders)"; }
waits() { expect_in holders "$1 waiting" "$(of lpt_fix holders)"; }
for mode in $modes; do
    up; old; before=$(kmem lpt_part 32)
    load lpt_fix mode=$mode; new
    for turn in 1 2 3; do down; waits lpt_ext; waits lpt_user; up; new; done
    rmmod lpt_user; waits lpt_user; ext 210; insmod /lpt-user.ko; new
    revert lpt_fix; old; rmmod lpt_fix; expect code "$before" "$(kmem lpt_part 32)"; down
    load lpt_fix mode=$mode; waits lpt_ext; insmod /lpt_ext.ko; ext 210; waits lpt_user; insmod /lpt-user.ko; new
    unload lpt_fix; old; down
done
up; lpbuild load /lpt_fix.ko; new; lpbuild unload lpt_fix; old; down
clean
"#;
    passes(&b.vm("external-modules", script));
}

/// `lpbuild try`: they are found below `updates/` of a folder of modules, or named one by one where they lie anywhere.
fn a_trial_brings_external_modules_away_and_here(series: &'static str) {
    let Some(b) = Bench::find("a_trial_brings_external_modules", series) else { return };
    let dir = tempfile::tempdir().unwrap();
    let modules = External::make(&b.env, dir.path());
    let patch = modules.patch("lpt_fix", &FIX);
    let out = modules.command(&b.env, b.lpbuild(), &patch).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let script = dir.path().join("check.sh");
    fs::write(&script, "cat /proc/lpt_ext /proc/lpt_user\n").unwrap();
    let command = |more: &[&Path]| {
        let mut c = Command::new(b.lpbuild());
        c.arg("try").arg(modules.dir.join("out/lpt_fix.ko")).arg("--image").arg(&b.env.kernel.vmlinuz);
        c.args(["--json", "--strict", "--no-kvm", "--script"]).arg(&script).args(more);
        c.env("PATH", harness::emulator::path().unwrap()).output().unwrap()
    };
    let said = |out: &Output| String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
    let option = Path::new("--module");
    let (ext, user) = (modules.file("lpt_ext"), modules.file("lpt-user"));
    // Before anything is booted: nobody says where they are, one is named twice, one is of no use.
    let stock = harness::runpre::RunPre::of(&b.env.kernel).unwrap();
    let stock = lpbuild::holder::ModuleFinder::file(stock.files(), "fs/binfmt_misc").unwrap();
    for (more, words) in [
        (&[option, &user][..], ["lpt_ext.ko", "--module"]),
        (&[option, &ext, option, &ext], ["lpt_ext", "and so is"]),
        (&[option, &ext, option, &user, option, &stock], ["binfmt_misc", "nothing of"]),
    ] {
        let out = command(more);
        let text = said(&out);
        assert!(out.status.code() == Some(4) && text.contains("LP3009"), "{text}");
        assert!(words.iter().all(|w| text.contains(w)), "{words:?}: {text}");
    }
    let _place = harness::vm::Place::wait_for(2).unwrap();
    let out = if series == "6.1" {
        // As `depmod` leaves it on a machine with a kernel of its own beside them.
        fs::create_dir(modules.modules.join("kernel")).unwrap();
        command(&[Path::new("--modules"), &modules.modules])
    } else {
        command(&[option, &ext, option, &user])
    };
    let said = said(&out);
    assert!(out.status.success(), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let steps = json["steps"].as_array().unwrap().iter();
    let of = |cycle: u64| -> Vec<&str> {
        steps.clone().filter(|s| s["cycle"].as_u64() == Some(cycle)).map(|s| s["step"].as_str().unwrap()).collect()
    };
    let away = ["absent", "load", "arrive", "during", "leave", "return", "during", "status", "unload", "gone"];
    assert_eq!(of(1), away, "{said}");
    assert_eq!(of(2), ["load", "during", "status", "unload", "gone"], "{said}");
    assert_eq!(json["outputs"]["before"], serde_json::json!(["ext 106", "user 227"]), "{said}");
    assert_eq!(json["outputs"]["during"], serde_json::json!(["ext 210", "user 445"]), "{said}");
    assert_eq!((&json["after_equals_before"], &json["stayed"]), (&true.into(), &serde_json::json!([])), "{said}");
}
