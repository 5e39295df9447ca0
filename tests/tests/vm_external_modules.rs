//! Patches of modules that were built beside the kernel, made by `lpbuild build --module-source`: in effect whether the modules are here
//! or come later, in any order of coming and going, and gone without a trace.

use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::external::{External, FIX};
use lpbuild_tests::on_both;

on_both! {
    external_modules_are_patched_whether_they_are_here_or_come
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
