//! Fixes of functions of stock modules, made by `lpbuild build`: in effect when the module is here, when it comes, and before its init;
//! out of effect when it goes, and nothing of them left in kernel or module when the patch is reverted.

use std::fs;

use harness::change::Change;
use lpbuild_tests::bench::{Bench, cycles, module_of, passes};
use lpbuild_tests::{ko_pair, on_both};

on_both! {
    a_fix_is_in_effect_whether_its_module_is_here_or_comes
    kernel_and_module_are_patched_together
    before_the_init_of_a_module_its_functions_are_the_new_ones
    what_a_patch_brings_for_a_module_begins_anew_whenever_it_comes
    another_build_of_the_module_is_left_alone
    a_trial_brings_the_module_away_and_here
    what_another_module_exports_is_found_whenever_both_come
    a_storm_of_comings_and_goings_leaves_nothing
    patches_lie_on_each_other_in_a_module
    a_storm_under_two_patches_leaves_nothing
    of_two_files_of_a_module_comes_a_patch
    of_two_trees_of_objects_and_modules_comes_one_patch
    a_jump_of_a_key_of_the_module_follows_it
    a_tracepoint_of_the_module_sees_the_new_code
    a_static_call_of_the_module_follows_it
    a_key_that_is_constant_behind_the_init_of_its_module_is_followed_until_then
}

const FILE: &str = "fs/binfmt_misc.c";
const ACCEPT: &str = "[accept]\npromises = [\"bm_status_read\"]\n";

/// `status` of binfmt_misc: a static of the module is read, and a string of it is used beside one of the patch.
const STATUS: (&str, &str, &str) = (FILE, "enabled ? \"enabled\\n\"", "enabled ? \"enabled, patched\\n\"");
const CMDLINE: (&str, &str, &str) = ("fs/proc/cmdline.c", "seq_putc(m, '\\n');", "seq_puts(m, \" patched\\n\");");

const FUNCTIONS: &str = r#"
status() { cat /proc/sys/fs/binfmt_misc/status; }
up() { insmod /binfmt_misc.ko; mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; }
down() { umount /proc/sys/fs/binfmt_misc; rmmod binfmt_misc || fail 'the module cannot be removed'; }
code() { kmem bm_status_read 64; }
new() { expect status 'enabled, patched' "$(status)"; expect holders 'binfmt_misc applied' "$(of $1 holders)"; }
old() { expect status enabled "$(status)"; }
waits() { expect holders 'binfmt_misc waiting' "$(of $1 holders)"; }
"#;

fn bench(name: &str, series: &'static str) -> Option<Bench> {
    Some(Bench::find(name, series)?.stock("fs/binfmt_misc"))
}

fn a_fix_is_in_effect_whether_its_module_is_here_or_comes(series: &'static str) {
    let Some(b) = bench("a_fix_is_in_effect", series) else { return };
    let b = b.fix("bm_status", &[STATUS], ACCEPT);
    let script = r#"
for mode in $modes; do
    up; old; before=$(code)
    load bm_status mode=$mode; new bm_status
    expect 'references to the module' 1 "$(cat /sys/module/binfmt_misc/refcnt)"
    echo 0 > /proc/sys/fs/binfmt_misc/status; expect status disabled "$(status)"; echo 1 > /proc/sys/fs/binfmt_misc/status
    revert bm_status; old; rmmod bm_status; expect code "$before" "$(code)"
    load bm_status mode=$mode
    for turn in $(seq 5); do down; waits bm_status; up; new bm_status; done
    unload bm_status; old; expect code "$before" "$(code | cut -c1-)"
    down
    load bm_status mode=$mode; waits bm_status; up; new bm_status; unload bm_status; old; down
    load bm_status mode=$mode; waits bm_status; unload bm_status
done
clean
lpbuild inspect /bm_status.ko > /tmp/out; expect_in inspect 'target     binfmt_misc build id' "$(cat /tmp/out)"
up
insmod /bm_status.ko dry_run=1; until_is bm_status checked; old; rmmod bm_status
lpbuild load /bm_status.ko; new bm_status
lpbuild status bm_status > /tmp/out; expect_in status 'module binfmt_misc: applied' "$(cat /tmp/out)"
lpbuild unload bm_status; old; down
clean
"#;
    passes(&b.vm("module-fix", &format!("{FUNCTIONS}{script}")));
}

fn kernel_and_module_are_patched_together(series: &'static str) {
    let Some(b) = bench("kernel_and_module_are_patched_together", series) else { return };
    let b = b.fix("bm_mixed", &[STATUS, CMDLINE], ACCEPT);
    let script = r#"
for mode in $modes; do
    load bm_mixed mode=$mode; patched; waits bm_mixed
    up; new bm_mixed; revert bm_mixed; original; old
    rmmod bm_mixed; load bm_mixed mode=$mode; patched; new bm_mixed
    down; patched; up; new bm_mixed; unload bm_mixed; original; old; down
done
clean
"#;
    passes(&b.vm("module-mixed", &format!("{FUNCTIONS}{script}")));
}

/// `dummy` makes a device as it is loaded, by a function that the patch replaces.
fn before_the_init_of_a_module_its_functions_are_the_new_ones(series: &'static str) {
    let Some(b) = Bench::find("before_the_init_of_a_module", series) else { return };
    let edit =
        ("drivers/net/dummy.c", "\teth_hw_addr_random(dev);\n", "\tdev->mtu = 1234;\n\teth_hw_addr_random(dev);\n");
    let b = b.stock("drivers/net/dummy").fix("dummy_mtu", &[edit], "");
    let script = r#"
mtu() { cat /sys/class/net/dummy0/mtu; }
for mode in $modes; do
    load dummy_mtu mode=$mode; expect holders 'dummy waiting' "$(of dummy_mtu holders)"
    insmod /dummy.ko; expect mtu 1234 "$(mtu)"; rmmod dummy
    insmod /dummy.ko; expect mtu 1234 "$(mtu)"; unload dummy_mtu; rmmod dummy
    insmod /dummy.ko; expect_not_in mtu 1234 "$(mtu)"; rmmod dummy
done
clean
"#;
    passes(&b.vm("module-init", script));
}

/// A variable, one that begins as zero, and a table of constants that refers to a function of the module.
fn what_a_patch_brings_for_a_module_begins_anew_whenever_it_comes(series: &'static str) {
    let Some(b) = bench("what_a_patch_brings_for_a_module", series) else { return };
    let edit = (
        FILE,
        "\treturn simple_read_from_buffer(buf, nbytes, ppos, s, strlen(s));\n}\n\nstatic ssize_t bm_status_write(",
        "\t{\n\t\tstatic int left = 7;\n\t\tstatic int reads;\n\t\tstatic char text[64];\n\
         \t\tstatic const void *const own[] = { bm_status_read, simple_read_from_buffer };\n\
         \t\tssize_t n;\n\n\
         \t\tif (!*ppos)\n\t\t\tsnprintf(text, sizeof(text), \"%d %d %ps %s\", --left, ++reads, own[reads >> 9], s);\n\
         \t\tn = simple_read_from_buffer(buf, nbytes, ppos, text, strlen(text));\n\
         \t\tbarrier();\n\t\treturn n;\n\t}\n}\n\nstatic ssize_t bm_status_write(",
    );
    let b = b.fix("bm_counts", &[edit], "");
    let script = r#"
counts() { for n in 1 2 3; do expect_in "read $n" "$((7 - n)) $n bm_status_read" "$(status)"; done; }
for mode in $modes; do
    load bm_counts mode=$mode
    for turn in 1 2 3; do up; counts; down; done
    up; counts; unload bm_counts; old; load bm_counts mode=$mode; counts; down; unload bm_counts
done
clean
"#;
    passes(&b.vm("module-data", &format!("{FUNCTIONS}{script}")));
}

fn another_build_of_the_module_is_left_alone(series: &'static str) {
    let Some(b) = bench("another_build_of_the_module_is_left_alone", series) else { return };
    let b = b.fix("bm_status", &[STATUS], ACCEPT);
    let manifest = fs::read_to_string(b.made("bm_status").dir.join("manifest.toml")).unwrap();
    let mut lines = manifest.lines().skip_while(|l| *l != "[[holder]]");
    let id = lines.find_map(|l| l.strip_prefix("build-id = \"")).unwrap();
    let id: Vec<u8> = (0..40).step_by(2).map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()).collect();
    let mut other = fs::read(b.file("binfmt_misc")).unwrap();
    let at = other.windows(id.len()).position(|w| w == &id[..]).unwrap();
    other[at] ^= 1;
    // A signature that does not fit is refused; one that is not there is not asked for.
    const SIGNED: &[u8] = b"~Module signature appended~\n";
    if other.ends_with(SIGNED) {
        // Of `struct module_signature` in front of that, the last four bytes say how long the signature is.
        let info = other.len() - SIGNED.len();
        let len = u32::from_be_bytes(other[info - 4..info].try_into().unwrap()) as usize;
        other.truncate(info - 12 - len);
    }
    let path = b.made("bm_status").dir.with_extension("other.ko");
    fs::write(&path, other).unwrap();
    let b = b.ko("other", path);
    let script = r#"
other() { insmod /other.ko; mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; }
other; old
refuses LP5028 bm_status; old
if lpbuild load /bm_status.ko > /tmp/out 2>&1; then fail 'loaded'; fi
expect_in 'why it is not loaded' LP5125 "$(cat /tmp/out)"
down
load bm_status; waits bm_status
other; old; expect_in holders 'binfmt_misc refused LP5028' "$(of bm_status holders)"
down; up; new bm_status
unload bm_status; old; down
clean
"#;
    passes(&b.vm("module-other-build", &format!("{FUNCTIONS}{script}")));
}

/// Nobody says where the modules are. The script leaves `binfmt_misc` as it was. `sctp` holds itself, by the socket it answers from: it
/// cannot be away, the other can.
fn a_trial_brings_the_module_away_and_here(series: &'static str) {
    let Some(b) = bench("a_trial_brings_the_module", series) else { return };
    let sctp = ("net/sctp/proc.c", "\" ENDPT ", "\" PATCHED ");
    let b = b.fix("bm_sctp", &[STATUS, sctp], ACCEPT);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("check.sh");
    let text = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; cat /proc/sys/fs/binfmt_misc/status; ls /sys/module/binfmt_misc > \
                /dev/null && umount /proc/sys/fs/binfmt_misc && grep -c PATCHED /proc/net/sctp/eps || true\n";
    fs::write(&script, text).unwrap();
    let mut c = std::process::Command::new(b.lpbuild());
    c.arg("try").arg(&b.made("bm_sctp").ko).arg("--image").arg(&b.env.kernel.vmlinuz);
    c.args(["--json", "--strict", "--no-kvm", "--script"]).arg(&script);
    let _place = harness::vm::Place::wait_for(2).unwrap();
    let out = c.env("PATH", harness::emulator::path().unwrap()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let steps = json["steps"].as_array().unwrap().iter();
    let steps: Vec<(&str, u64)> =
        steps.map(|s| (s["step"].as_str().unwrap(), s["cycle"].as_u64().unwrap_or(0))).collect();
    let of = |cycle: u64| steps.iter().filter(|s| s.1 == cycle).map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(of(0), ["boot", "arrive", "before", "after"], "{said}");
    let away = ["absent", "load", "arrive", "during", "leave", "return", "during", "status", "unload", "gone"];
    assert_eq!(of(1), away, "{said}");
    assert_eq!(of(2), ["load", "during", "status", "unload", "gone"], "{said}");
    assert_eq!(
        (&json["outputs"]["during"][0], &json["outputs"]["during"][1]),
        (&"enabled, patched".into(), &"1".into()),
        "{said}"
    );
    assert_eq!(json["stayed"].as_array().unwrap(), &["sctp"], "{said}");
    assert!(
        json["notes"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains("sctp cannot be removed")),
        "{said}"
    );
    assert_eq!((json["outputs"]["before"][0].as_str(), &json["after_equals_before"]), (Some("enabled"), &true.into()));
    // One that could be removed, and cannot be while the patch is there, is no such module.
    if series == "6.12" {
        fs::write(&script, "[ $1 != during ] || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc\n").unwrap();
        let out = c.output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let why = &json["refused"][0];
        assert_eq!((out.status.code(), why["code"].as_str()), (Some(4), Some("LP6409")), "{json}");
        assert!(why["detail"].as_str().unwrap().starts_with("leave ended with status 1: rmmod: "), "{json}");
    }
}

/// `8021q` comes behind `garp`, which exports the function that is named; the kernel has another that the patch adds.
fn what_another_module_exports_is_found_whenever_both_come(series: &'static str) {
    let Some(b) = Bench::find("what_another_module_exports", series) else { return };
    let module = (
        "net/8021q/vlanproc.c",
        "\t\tseq_puts(seq, \"VLAN Dev name\t | VLAN ID\\n\");\n",
        "\t\tseq_puts(seq, \"VLAN Dev name\t | VLAN ID\\n\");\n\
         \t\t{\n\t\t\textern void garp_uninit_applicant(void);\n\t\t\textern int lpt_seven(int);\n\n\
         \t\t\tseq_printf(seq, \"%ps %d\\n\", garp_uninit_applicant, lpt_seven(7));\n\t\t}\n",
    );
    let kernel = (
        "fs/proc/cmdline.c",
        "static int cmdline_proc_show(",
        "int lpt_seven(int n);\nint noinline lpt_seven(int n)\n{\n\treturn saved_command_line[0] ? n : 0;\n}\n\n\
         static int cmdline_proc_show(",
    );
    let modules = ["net/llc/llc", "net/802/stp", "net/802/garp", "net/802/mrp", "net/8021q/8021q"];
    let b = modules.into_iter().fold(b, Bench::stock).fix("vlan", &[kernel, module], "");
    let script = r#"
up() { for m in llc stp garp mrp 8021q; do insmod /$m.ko; done; }
down() { for m in 8021q mrp garp stp llc; do rmmod $m || fail "$m cannot be removed"; done; }
config() { sed -n 2p /proc/net/vlan/config; }
new() { expect config 'garp_uninit_applicant [garp] 7' "$(config)"; }
old() { expect_in config 'Name-Type' "$(config)"; }
for mode in $modes; do
    up; old
    load vlan mode=$mode; new
    expect_in holders '8021q applied' "$(of vlan holders)"; expect_in holders 'garp needed' "$(of vlan holders)"
    for turn in 1 2 3; do down; up; new; done
    unload vlan; old; down
    load vlan mode=$mode; expect_in holders '8021q waiting' "$(of vlan holders)"; up; new; down; unload vlan
done
clean
"#;
    passes(&b.vm("module-exports", script));
}

/// The module comes and goes as fast as it can, and so does the patch. `LPBUILD_CYCLES=500` makes the rounds many.
fn a_storm_of_comings_and_goings_leaves_nothing(series: &'static str) {
    let Some(b) = bench("a_storm_of_comings_and_goings", series) else { return };
    let b = b.fix("bm_status", &[STATUS], ACCEPT);
    let script = r#"
round() { cycle $1 /bin/lpbuild /bm_status.ko bm_status --mode $2 --deadline-ms 60000; }
slab() { slabsum lpbuild > /tmp/slab; sed -n 's/^RESULT .*slab[a-z_]*=\([0-9]*\).*/\1/p' /tmp/slab | head -1; }
background modstorm /binfmt_misc.ko binfmt_misc forever
for mode in $modes; do round 1 $mode; done
before=$(slab)
for mode in $modes; do round ROUNDS $mode; done
stop
rmmod binfmt_misc 2> /dev/null || true
after=$(slab)
[ $((after - before)) -lt 4096 ] || fail "slab memory grew from $before to $after KiB"
up; old; expect 'references to the module' 1 "$(cat /sys/module/binfmt_misc/refcnt)"; down
clean
"#;
    let script = script.replace("ROUNDS", &cycles(5).to_string());
    // Each kernel in the other preemption: 6.12 is not preempted unless told, 6.1 is asked to be.
    let preempt = if series == "6.1" { "preempt=full" } else { "" };
    let overtime = std::time::Duration::from_secs(600.max(20 * u64::from(cycles(5))));
    passes(&b.vm("module-storm", &format!("{FUNCTIONS}{script}")).append(preempt).overtime(overtime));
}

/// The same function of a module, again, and one of the kernel.
const OVER: (&str, &str, &str) = (FILE, "enabled ? \"enabled\\n\"", "enabled ? \"enabled, twice\\n\"");

fn stacked(b: Bench) -> Bench {
    let after = format!("after = [\"bm_status\"]\n{ACCEPT}");
    let b = b.fix("bm_status", &[STATUS], ACCEPT).fix("bm_over", &[OVER], &after);
    b.fix("bm_place", &[STATUS, CMDLINE], &format!("replaces = [\"cmdline_only\"]\n{ACCEPT}")).fix(
        "cmdline_only",
        &[CMDLINE],
        "",
    )
}

/// The upper one is laid over the lower one whenever the module comes, and taken away first whenever it goes.
fn patches_lie_on_each_other_in_a_module(series: &'static str) {
    let Some(b) = bench("patches_lie_on_each_other_in_a_module", series) else { return };
    let b = stacked(b);
    let script = r#"
over() { expect status 'enabled, twice' "$(status)"; expect holders 'binfmt_misc applied' "$(of bm_over holders)"; }
for mode in $modes; do
    # It is here.
    up; old; before=$(code)
    load bm_status mode=$mode; new bm_status
    load bm_over mode=$mode; over; stays LP5020 bm_status; over
    unload bm_over; new bm_status; unload bm_status; old; expect code "$before" "$(code)"
    load bm_status mode=$mode
    load bm_over mode=$mode; over
    for turn in $(seq 3); do down; waits bm_status; waits bm_over; up; over; done
    revert bm_over; new bm_status; rmmod bm_over; down; up; new bm_status
    # It comes under both, and goes before the upper one is taken away.
    down; load bm_over mode=$mode; waits bm_over; up; over; down; unload bm_over; up; new bm_status; down
    # It goes, with nothing left below but the lower one, while the upper one comes and goes without it.
    load bm_over mode=$mode; waits bm_over; unload bm_over; up; new bm_status
    unload bm_status; old
    refuses LP5019 bm_over; old; down
    clean
done
# A patch with functions in modules takes the place of one that has none, but not the other way round.
for mode in $modes; do
    load cmdline_only mode=$mode; patched; load bm_place mode=$mode; patched; is cmdline_only replaced; rmmod cmdline_only
    up; new bm_place; down; up; new bm_place; unload bm_place; original; old; down
    clean
done
"#;
    passes(&b.vm("module-stack", &format!("{FUNCTIONS}{script}")));
}

/// The module comes and goes on one CPU, the upper patch on the other.
fn a_storm_under_two_patches_leaves_nothing(series: &'static str) {
    let Some(b) = bench("a_storm_under_two_patches", series) else { return };
    let b = stacked(b);
    let script = r#"
round() { cycle $1 /bin/lpbuild /bm_over.ko bm_over --mode $2 --deadline-ms 60000; }
load bm_status mode=drain
background modstorm /binfmt_misc.ko binfmt_misc forever
for mode in $modes; do round ROUNDS $mode; done
stop
rmmod binfmt_misc 2> /dev/null || true
up; new bm_status; unload bm_status; old; expect 'references to the module' 1 "$(cat /sys/module/binfmt_misc/refcnt)"; down
clean
"#;
    let script = script.replace("ROUNDS", &cycles(5).to_string());
    let preempt = if series == "6.1" { "preempt=full" } else { "" };
    let overtime = std::time::Duration::from_secs(600.max(20 * u64::from(cycles(5))));
    passes(&b.vm("module-stack-storm", &format!("{FUNCTIONS}{script}")).append(preempt).overtime(overtime));
}

/// Two builds of a module as files: nothing else of its source is there.
fn of_two_files_of_a_module_comes_a_patch(series: &'static str) {
    let Some(b) = Bench::find("of_two_files_of_a_module_comes_a_patch", series) else { return };
    let [old, new] = ko_pair::sources().map(|s| module_of(&b.env, series, ko_pair::NAME, &s));
    let b = b.between("ko_fix", &old, &new).ko("ko_pair", old);
    let script = r#"
number() { expect_in number "number $1" "$(cat /proc/ko_pair)"; }
for mode in $modes; do
    insmod /ko_pair.ko; number 100; number 101; load ko_fix mode=$mode; number 202; rmmod ko_pair
    insmod /ko_pair.ko; number 200; unload ko_fix; number 101; rmmod ko_pair
done
clean
"#;
    passes(&b.vm("module-files", script));
}

/// A built-in object and a module, each in two builds, and a stock module of which there are only objects.
fn of_two_trees_of_objects_and_modules_comes_one_patch(series: &'static str) {
    let Some(b) = bench("of_two_trees_of_objects_and_modules", series) else { return };
    let files = ko_pair::sources().map(|s| module_of(&b.env, series, ko_pair::NAME, &s));
    let edit = |c: Change, (file, from, to): (&str, &str, &str)| c.edit(&b.env.tree.source, file, from, to).unwrap();
    let changes = [Change::none(), edit(edit(Change::none(), CMDLINE), STATUS)];
    let dir = tempfile::tempdir().unwrap();
    let trees = ["old", "new"].map(|side| dir.path().join(side));
    for ((tree, change), file) in trees.iter().zip(&changes).zip(&files) {
        for object in ["fs/proc/cmdline.o", "fs/binfmt_misc.o"] {
            let to = tree.join(object);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, b.env.tree.built(object, change).unwrap().unwrap()).unwrap();
        }
        fs::write(tree.join("fs/binfmt_misc.mod"), "fs/binfmt_misc.o\n").unwrap();
        fs::copy(file, tree.join("ko_pair.ko")).unwrap();
    }
    let accept = ["--accept", "promise=bm_status_read"];
    let [old, new] = [&trees[0], &trees[1]].map(|t| t.as_path());
    let b = b.between_trees("trees_fix", [old, new], &[&files[0]], &accept).ko("ko_pair", files[0].clone());
    let script = r#"
number() { expect_in number "number $1" "$(cat /proc/ko_pair)"; }
has() { expect_in holders "$1" "$(of trees_fix holders)"; }
both() { expect status 'enabled, patched' "$(status)"; has 'binfmt_misc applied'; has 'ko_pair applied'; }
for mode in $modes; do
    insmod /ko_pair.ko; number 100; load trees_fix mode=$mode; patched; number 201; has 'binfmt_misc waiting'
    up; both; revert trees_fix; original; old; number 102
    rmmod trees_fix; load trees_fix mode=$mode; patched; both; number 203
    rmmod ko_pair; has 'ko_pair waiting'; insmod /ko_pair.ko; number 200; down
    unload trees_fix; original; number 101; rmmod ko_pair
done
clean
"#;
    passes(&b.vm("module-trees", &format!("{FUNCTIONS}{script}")));
}

/// The keys of `pr_debug` are in the module, beside what the lines of the source say; who writes to `control` turns them. The fix has
/// jumps of the same keys as what it replaces: whatever is in effect follows, whether the key is turned before, meanwhile, or behind it.
fn a_jump_of_a_key_of_the_module_follows_it(series: &'static str) {
    let Some(b) = bench("a_jump_of_a_key_of_the_module", series) else { return };
    let edit = (FILE, "\tdel = *p++;\t/*", "\tdel = *p++;\n\tif (del == 0x40)\n\t\tgoto einval;\t/*");
    let b = b.failing_fix("bm_delim", &[edit], "");
    let script = r#"
at=/proc/sys/fs/binfmt_misc
debug() { echo "func create_entry $1" > /proc/dynamic_debug/control; }
lines() { dmesg | grep -c 'register: delim' || true; }
# `register DELIM`: whether the kernel took it, and how often it said so.
register() {
    before=$(lines); taken=taken
    echo "$1x$1M$1$1AB$1$1/bin/sh$1" > $at/register 2> /dev/null || taken=not
    [ ! -e $at/x ] || echo -1 > $at/x
    echo "$taken $(($(lines) - before))"
}
fixed() { expect "$1 @" "not 0" "$(register @)"; expect "$1 :" "taken $2" "$(register :)"; }
broken() { expect "$1 @" "taken $2" "$(register @)"; expect "$1 :" "taken $2" "$(register :)"; }
text() { kmem bm_register_write 2048; }
turned() { for now in 1 0 1 0; do debug $([ $now = 1 ] && echo +p || echo -p); $1 "$2, turned" $now; done; }
up; was=$(text); down
# No `enabled, patched` here.
new() { expect holders 'binfmt_misc applied' "$(of $1 holders)"; }
for mode in $modes; do
    up; broken first 0; debug +p; broken 'turned before' 1
    load bm_delim mode=$mode; fixed 'on when it came' 1; turned fixed 'while applied'
    debug +p; revert bm_delim; broken 'on behind it' 1; turned broken 'behind it'
    rmmod bm_delim; turned broken 'when it has gone'; expect code "$was" "$(text)"
    load bm_delim mode=$mode; fixed again 0; debug +p
    for turn in 1 2 3; do down; waits bm_delim; up; fixed 'a new one' 0; turned fixed 'a new one'; debug +p; done
    fixed 'on at the end' 1; unload bm_delim; broken 'left on' 1; debug -p; broken off 0; expect code "$was" "$(text)"; down
done
turner() { while :; do debug +p; debug -p; done; }
up; background idly turner
for turn in $(seq ROUNDS); do
    load bm_delim; register : > /dev/null; unload bm_delim
    # In 6.1 a key that is turned while its module is loaded stops the machine, patch or not.
    case $(uname -r) in 6.1.*) continue ;; esac
    load bm_delim; down; up; register : > /dev/null; unload bm_delim
done
stop; debug -p; down
# The kernel has no memory for the list in a key.
for n in $(seq 40); do
    insmod /bm_delim.ko fail_call=$n 2> /tmp/err || continue
    until_is bm_delim applied
    if insmod /binfmt_misc.ko 2> /tmp/err; then rmmod binfmt_misc; else
        expect_in 'what happened' LP5030 "$(dmesg | tail -2)"; expect_in holders 'refused LP5010' "$(of bm_delim holders)"
        up; new bm_delim; fixed 'with memory' 0; down
    fi
    unload bm_delim
    if dmesg | grep -q 'fail: handing over jumps of keys'; then break; fi
done
expect_in 'calls that fail' 'fail: handing over jumps of keys' "$(dmesg)"
up
load bm_delim; turned fixed 'with memory'; unload bm_delim
broken 'at the end' 0; expect code "$was" "$(text)"; down
clean
"#;
    let script = script.replace("ROUNDS", &cycles(3).to_string());
    passes(&b.vm("module-keys", &format!("{FUNCTIONS}{script}")));
}

/// A tracepoint is a key and a static call, both of the module. Its events are those of whatever is in effect, whether it is turned on
/// before, meanwhile, or behind it; a second tracer makes the kernel call something else.
fn a_tracepoint_of_the_module_sees_the_new_code(series: &'static str) {
    let Some(b) = Bench::find("a_tracepoint_of_the_module", series) else { return };
    let edit = (
        "net/tipc/socket.c",
        "\ttrace_tipc_sk_create(sk, NULL, TIPC_DUMP_NONE, \" \");\n",
        "\ttrace_tipc_sk_create(sk, NULL, TIPC_DUMP_NONE, \"patched\");\n",
    );
    let modules = ["net/ipv4/udp_tunnel", "net/ipv6/ip6_udp_tunnel", "net/tipc/tipc"];
    let b = modules.into_iter().fold(b, Bench::stock).failing_fix(
        "tipc_trace",
        &[edit],
        "[accept]\npromises = [\"tipc_sk_create\"]\n",
    );
    let script = r#"
t=/sys/kernel/tracing
on() { echo $1 > $t/events/tipc/tipc_sk_create/enable; }
second() { echo $1 > $t/instances/second/events/tipc/tipc_sk_create/enable; }
up() { insmod /tipc.ko; }
# A socket that was closed holds it until RCU has freed that.
down() { for turn in $(seq 100); do rmmod tipc 2> /tmp/err && return; sleep 0.1; done; fail "the module cannot be removed: $(cat /tmp/err)"; }
# Events of one socket, and those of the new code: of both tracers.
seen() {
    for trace in $t/trace $t/instances/second/trace; do echo > $trace; done
    socket 30 2
    for trace in $t/trace $t/instances/second/trace; do
        echo $(grep -c 'tipc_sk_create: ' $trace || true) $(grep -c 'tipc_sk_create: <[0-9]*> patched' $trace || true)
    done | tr '\n' ' '
}
new() { expect holders 'tipc applied' "$(of tipc_trace holders)"; }
waits() { expect holders 'tipc waiting' "$(of tipc_trace holders)"; }
fixed() { new; turned "$1" 1; }
broken() { turned "$1" 0; }
turned() {
    expect "$1, off" "0 0 0 0 " "$(seen)"; on 1; expect "$1, on" "1 $2 0 0 " "$(seen)"
    second 1; expect "$1, both" "1 $2 1 $2 " "$(seen)"; on 0; expect "$1, the other" "0 0 1 $2 " "$(seen)"; second 0
}
text() { kmem tipc_sk_create 1024; }
insmod /udp_tunnel.ko; insmod /ip6_udp_tunnel.ko
up; mkdir $t/instances/second; socket 30 2; was=$(text); down
for mode in $modes; do
    up; broken first; on 1; expect 'turned before' "1 0 0 0 " "$(seen)"
    load tipc_trace mode=$mode; new; expect 'on when it came' "1 1 0 0 " "$(seen)"; on 0; fixed 'while applied'
    on 1; second 1; revert tipc_trace; expect 'on behind it' "1 0 1 0 " "$(seen)"; on 0; second 0; broken 'behind it'
    rmmod tipc_trace; broken 'when it has gone'; expect code "$was" "$(text)"
    load tipc_trace mode=$mode; fixed again; on 1
    for turn in 1 2 3; do down; waits; up; fixed 'a new one'; on 1; done
    expect 'on at the end' "1 1 0 0 " "$(seen)"; unload tipc_trace; expect 'left on' "1 0 0 0 " "$(seen)"; on 0; broken off
    expect code "$was" "$(text)"; down
    load tipc_trace mode=$mode; waits; up; fixed 'it comes'; on 1; rmmod tipc; waits; unload tipc_trace
done
turner() { while :; do on 1; second 1; on 0; second 0; done 2> /dev/null; }
opener() { while :; do socket 30 2; done 2> /dev/null; }
up; background idly turner; background idly opener
for turn in $(seq ROUNDS); do load tipc_trace; unload tipc_trace; done
stop; on 0; second 0; down
# The kernel has no memory for the list in a key.
for n in $(seq 40); do
    insmod /tipc_trace.ko fail_call=$n 2> /tmp/err || continue
    until_is tipc_trace applied
    if insmod /tipc.ko 2> /tmp/err; then down; else
        expect_in 'what happened' LP5030 "$(dmesg | tail -2)"; expect_in holders 'refused LP5010' "$(of tipc_trace holders)"
        up; new; on 1; expect 'with memory' "1 1 0 0 " "$(seen)"; on 0; down
    fi
    unload tipc_trace
    if dmesg | grep -q 'fail: handing over jumps of keys'; then break; fi
done
expect_in 'calls that fail' 'fail: handing over static calls' "$(dmesg)"
expect_in 'calls that fail' 'fail: handing over jumps of keys' "$(dmesg)"
up; load tipc_trace; fixed 'with memory'; unload tipc_trace; broken 'at the end'; expect code "$was" "$(text)"; down
rmdir $t/instances/second
clean
"#;
    passes(&b.vm("module-tracepoint", &script.replace("ROUNDS", &cycles(3).to_string())));
}

/// A static call that is no tracepoint's: which code a cipher uses, its module decides as it is loaded.
fn a_static_call_of_the_module_follows_it(series: &'static str) {
    let Some(b) = Bench::find("a_static_call_of_the_module", series) else { return };
    let edit = (
        "arch/x86/crypto/aesni-intel_glue.c",
        "\t\tkernel_fpu_begin();\n\t\tif (nbytes & AES_BLOCK_MASK)\n\t\t\tstatic_call(aesni_ctr_enc_tfm)",
        "\t\tpr_info(\"lpt: ctr %u\\n\", nbytes);\n\
         \t\tkernel_fpu_begin();\n\t\tif (nbytes & AES_BLOCK_MASK)\n\t\t\tstatic_call(aesni_ctr_enc_tfm)",
    );
    let b = if series == "6.1" { b } else { b.stock("lib/crypto/gf128mul") };
    let modules = [
        "crypto/cryptd",
        "crypto/crypto_simd",
        "arch/x86/crypto/aesni-intel",
        "crypto/af_alg",
        "crypto/algif_skcipher",
    ];
    let b = modules.into_iter().fold(b, Bench::stock).fix("ctr_say", &[edit], "");
    let script = r#"
up() { insmod /aesni-intel.ko; }
down() { rmmod aesni_intel || fail 'the module cannot be removed'; }
lines() { dmesg | grep -c 'lpt: ctr 64' || true; }
cipher() { before=$(lines); kernel-cipher 'ctr(aes)' > /tmp/out; echo "$(cat /tmp/out) $(($(lines) - before))"; }
new() { expect holders 'aesni_intel applied' "$(of ctr_say holders)"; expect cipher "$right 1" "$(cipher)"; }
old() { expect cipher "$right 0" "$(cipher)"; }
waits() { expect holders 'aesni_intel waiting' "$(of ctr_say holders)"; }
for m in cryptd crypto_simd af_alg algif_skcipher gf128mul; do [ ! -e /$m.ko ] || insmod /$m.ko; done
up; right=$(kernel-cipher 'ctr(aes)'); down; expect_in cipher 'RESULT cipher=' "$right"
for mode in $modes; do
    up; old; load ctr_say mode=$mode; new; unload ctr_say; old
    load ctr_say mode=$mode; new
    for turn in 1 2 3; do down; waits; up; new; done
    unload ctr_say; old; down
    load ctr_say mode=$mode; waits; up; new; down; waits; unload ctr_say
done
clean
"#;
    passes(&b.vm("module-static-call", script));
}

/// The module turns its keys as it is loaded, and never again: they are constant then. Of one that is here the fix has what they say, and
/// with one that comes it turns as they do.
fn a_key_that_is_constant_behind_the_init_of_its_module_is_followed_until_then(series: &'static str) {
    let Some(b) = Bench::find("a_key_that_is_constant", series) else { return };
    let edit = (
        "arch/x86/crypto/poly1305_glue.c",
        "\tif (!static_branch_likely(&poly1305_use_avx) ||\n",
        "\tpr_info(\"lpt: %d%d%d%d\\n\", static_branch_likely(&poly1305_use_avx) ? 1 : 0,\n\
         \t\tstatic_branch_unlikely(&poly1305_use_avx) ? 1 : 0, static_branch_likely(&poly1305_use_avx512) ? 1 : 0,\n\
         \t\tstatic_branch_unlikely(&poly1305_use_avx512) ? 1 : 0);\n\
         \tif (!static_branch_likely(&poly1305_use_avx) ||\n",
    );
    let modules = ["arch/x86/crypto/poly1305-x86_64", "crypto/af_alg", "crypto/algif_hash"];
    let b = modules.into_iter().fold(b, Bench::stock).failing_fix("poly_say", &[edit], "");
    let script = r#"
up() { insmod /poly1305-x86_64.ko; }
down() { rmmod poly1305_x86_64 || fail 'the module cannot be removed'; }
said() { dmesg | grep 'lpt: ' | tail -1 | sed 's/.*lpt: //'; }
lines() { dmesg | grep -c 'lpt: ' || true; }
has() { if grep -qw "$1" /proc/cpuinfo; then echo 11; else echo 00; fi; }
keys=$(has avx)$(has avx512f)
expect_in 'the keys' 11 "$keys"
hash() { before=$(lines); kernel-hash poly1305-simd > /tmp/out; [ $(lines) -gt $before ] && now=$(said) || now=none; echo "$(cat /tmp/out) $now"; }
new() { expect holders 'poly1305_x86_64 applied' "$(of poly_say holders)"; expect hash "$right $keys" "$(hash)"; }
old() { expect hash "$right none" "$(hash)"; }
waits() { expect holders 'poly1305_x86_64 waiting' "$(of poly_say holders)"; }
for m in af_alg algif_hash; do insmod /$m.ko; done
up; right=$(kernel-hash poly1305-simd); expect_in hash 'RESULT digest=' "$right"; down
for mode in $modes; do
    up; old; load poly_say mode=$mode; new; unload poly_say; old
    load poly_say mode=$mode; new
    for turn in 1 2 3; do down; waits; up; new; done
    unload poly_say; old; down
    load poly_say mode=$mode; waits; up; new; down; waits; up; unload poly_say; old; down
done
for n in $(seq 40); do
    insmod /poly_say.ko fail_call=$n 2> /tmp/err || continue
    until_is poly_say applied
    if insmod /poly1305-x86_64.ko 2> /tmp/err; then down; else
        expect_in 'what happened' LP5030 "$(dmesg | tail -2)"; expect_in holders 'refused LP5010' "$(of poly_say holders)"
    fi
    up; new; down; unload poly_say
    if dmesg | grep -q 'fail: handing over jumps of constant keys'; then break; fi
done
expect_in 'calls that fail' 'fail: handing over jumps of constant keys' "$(dmesg)"
clean
"#;
    passes(&b.vm("module-constant-keys", script));
}
