//! A module of our own (tests/modules/kinds) whose fix has every kind of reference and table entry that is supported, on both kernels
//! and in each mode, with the module here and coming; and moments in the life of a module at which a patch is loaded, applied or
//! reverted (docs/runtime.md, "Modules").
//!
//! Left out: the module's own static calls, tracepoints, and keys that are constant behind its init, which vm_modules.rs has in stock modules;
//! alternatives that call into it, which the builder refuses (LP2026).

use std::path::PathBuf;

use lpbuild_tests::bench::{Bench, modules_of, passes};
use lpbuild_tests::{in_checkout, on_both};

on_both! {
    every_kind_of_reference_leads_where_the_module_is
    every_moment_of_a_module_has_its_answer
}

/// Its build of this number: 1, or 2 for the fixed one. With `more` macros.
fn build(b: &Bench, series: &'static str, number: u32, more: &str) -> PathBuf {
    let files = ["Kbuild", "kinds.h", "main.c", "second.c", "kinds_user.c"].map(|file| {
        let text = std::fs::read_to_string(in_checkout(format!("tests/modules/kinds/{file}"))).unwrap();
        (file, text.replace("-DBUILD=1", &format!("-DBUILD={number}{more}")))
    });
    modules_of(&b.env, series, "kinds", &files)
}

/// The modules, and the patch between their builds in `/kinds_fix.ko`.
fn kinds(b: Bench, series: &'static str) -> Bench {
    let [old, new] = [1, 2].map(|number| build(&b, series, number, "").join("kinds.ko"));
    let b = b.between("kinds_fix", &old, &new).ko("kinds_user", old.with_file_name("kinds_user.ko"));
    b.ko("kinds", old)
}

/// The same in another build, where each function has room for a jump of the long form, in `/kinds_long.ko` and `/kinds_far.ko`.
fn far(b: Bench, series: &'static str) -> Bench {
    let [old, new] = [1, 2].map(|number| build(&b, series, number, " -DLONG").join("kinds.ko"));
    b.between_with("kinds_far", &old, &new, &["--jump", "abs64"]).ko("kinds_long", old)
}

/// `shows BUILD`: all that the module shows the next time, and what the other one shows. `was` is how often it was shown, `at_init` the
/// build that ran then, `on` 1 while the key is.
const KINDS: &str = r#"
up() { insmod /${file:-kinds}.ko; insmod /kinds_user.ko; was=0; on=0; }
down() { rmmod kinds_user; rmmod kinds || fail 'the module cannot be removed'; }
rodata='5 7 11 13 17 19 23 29'
shows() {
    set -- $1 $rodata; b=$1; shift; shift $(((was + 1) % 8))
    if [ $b = 2 ]; then echo 'text of the fix 2'; else echo 'text as it was 1'; fi > /tmp/wanted
    cat >> /tmp/wanted << END
init 3$at_init
data $((3 + was))$b
bss $((1 + was))$b
rodata $1$b
cpu $((1 + was))$b
key $((1 + on))$b
debug 1$b
warning 1$b
exception 1$b
srcu $((4 + was))$b
alternative 6$b
lock $((1 + was))$b
kernel 1$b
same $b
other 1$b
named 41$b
static $((7 + was))$b
second $((1 + was))$b
END
    cat /proc/kinds > /tmp/shown
    diff /tmp/wanted /tmp/shown > /tmp/diff || fail "as shown for the $was. time: $(cat /tmp/diff)"
    expect exported "exported 4$b" "$(cat /proc/kinds_user)"
    was=$((was + 1))
}
turn() { on=$1; echo $1 > /proc/kinds; }
said() { dmesg | grep -c "$1" || true; }
debugs() {
    echo 'func of_debug +p' > /proc/dynamic_debug/control
    n=$(said "debug $1"); shows $1; expect 'debug messages' $((n + 1)) "$(said "debug $1")"
    echo 'func of_debug -p' > /proc/dynamic_debug/control
    n=$(said "debug $1"); shows $1; expect 'debug messages' $n "$(said "debug $1")"
}
warns() {
    echo 1 > /sys/module/kinds/parameters/warn
    n=$(said "warned by $1"); shows $1; expect warnings $((n + 1)) "$(said "warned by $1")"
    echo 0 > /sys/module/kinds/parameters/warn
}
"#;

fn every_kind_of_reference_leads_where_the_module_is(series: &'static str) {
    let Some(b) = Bench::find("every_kind_of_reference", series) else { return };
    let b = far(kinds(b, series), series);
    let script = r#"
at_init=1 file=kinds
for patch in kinds_fix kinds_far; do
    # Of the long form, which differs by its sites, each way once.
    [ $patch = kinds_fix ] || { modes=transition; file=kinds_long; }
    for mode in $modes; do
        step $patch $mode
        up; shows 1; load $patch mode=$mode; shows 2
        turn 1; shows 2; turn 0; shows 2; debugs 2
        down; expect holders 'kinds waiting' "$(of $patch holders)"
        at_init=2; up; shows 2; turn 1; debugs 2
        expect 'references to the module' 1 "$(cat /sys/module/kinds/refcnt)"
        unload $patch; shows 1; turn 0; shows 1; debugs 1; down; at_init=1
    done
done
step 'an entry of the table of bugs'
file=kinds
load kinds_fix; at_init=2; up; warns 2; shows 2; unload kinds_fix; warns 1; down
expect_in 'the place of the warning' 'of_warning+' "$(dmesg | grep 'WARNING:')"
expect_in 'whose place it is' '[kinds_fix]' "$(dmesg | grep 'WARNING:')"
clean
"#;
    passes(&b.vm("module-kinds", &format!("{KINDS}{script}")).allow(" of_warning+"));
}

const STATUS: (&str, &str, &str) =
    ("fs/binfmt_misc.c", "enabled ? \"enabled\\n\"", "enabled ? \"enabled, patched\\n\"");
const PIPE: (&str, &str, &str) = (
    "fs/pipe.c",
    "\t/* Null read succeeds. */\n",
    "\tif (total_len == 4242)\n\t\treturn -EPROTO;\n\t/* Null read succeeds. */\n",
);

fn every_moment_of_a_module_has_its_answer(series: &'static str) {
    let Some(b) = Bench::find("every_moment_of_a_module", series) else { return };
    let b = kinds(b.stock("fs/binfmt_misc"), series);
    let accept = "[accept]\npromises = [\"bm_status_read\"]\n";
    let b = b.fix("bm_status", &[STATUS], accept).fix("bm_pipe", &[STATUS, PIPE], accept);
    let script = r#"
# Its notifiers have been called, and it is not in sysfs yet.
half() {
    rm -f /tmp/go; insmod /kinds.ko slow=/tmp/go & slow=$!
    wait-for /proc/modules ' Loading ' 60; [ ! -e /sys/module/kinds ] || fail 'it is loaded'
}
modes_of_kinds() {
    for mode in $modes; do
        step 'an init that fails, and one that does not' $mode
        load kinds_fix mode=$mode
        n=$(said 'goes with'); refused insmod /kinds.ko fail=1
        expect holders 'kinds waiting' "$(of kinds_fix holders)"; expect 'exits that ran' $n "$(said 'goes with')"
        at_init=2; up; shows 2; down; unload kinds_fix
        step 'a module that is half loaded when the patch comes' $mode
        half
        insmod /kinds_fix.ko mode=$mode & load=$!; sleep 1; [ -e /proc/$load ] || fail 'it was not waited for'
        touch /tmp/go; wait $load; until_is kinds_fix applied; expect holders 'kinds applied' "$(of kinds_fix holders)"
        wait $slow; expect 'set before the patch' 'slow 31' "$(grep slow /proc/kinds)"; unload kinds_fix; rmmod kinds
    done
    step 'a module whose init is under way'
    insmod /kinds.ko late=1 & late=$!
    wait-for /sys/module/kinds/initstate coming 60; load kinds_fix mode=stop-machine
    expect 'state of the module' coming "$(cat /sys/module/kinds/initstate)"
    echo 0 > /sys/module/kinds/parameters/late; wait $late; expect 'what init called' 'init 32' "$(grep init /proc/kinds)"; unload kinds_fix; rmmod kinds
    step 'a module that is half loaded for too long'
    half
    refuses LP5031 kinds_fix deadline_ms=200
    touch /tmp/go; wait $slow; expect 'nothing was done to it' 'text as it was 1' "$(head -1 /proc/kinds)"; rmmod kinds
}
modes_of_kinds
at=/proc/sys/fs/binfmt_misc
up() { insmod /binfmt_misc.ko; mount -t binfmt_misc none $at; }
down() { umount $at; rmmod binfmt_misc || fail 'the module cannot be removed'; }
status() { cat $at/status; }
new() { expect status 'enabled, patched' "$(status)"; }
# The state is said before the first task changes over.
comes_to() { for turn in $(seq 200); do [ "$(status)" != "$1" ] || break; sleep 0.05; done; }
old() { expect status enabled "$(status)"; }
mkfifo /tmp/fifo
# Somebody sleeps in the function of the kernel that the patch replaces beside that of the module.
sleeper() { pipe-sleeper /tmp/fifo & sleeper=$!; sleep 1; }
wakes() { echo > /tmp/fifo; wait $sleeper; }
for mode in $modes; do
    step 'it goes, comes and goes while the patch is applied' $mode
    up; sleeper
    insmod /bm_pipe.ko mode=$mode deadline_ms=120000 patience_ms=110000 & insmod=$!
    case $mode in transition) during=applying ;; drain) during=draining ;; *) during=applying ;; esac
    for turn in $(seq 200); do [ ! -e /sys/kernel/lpbuild/bm_pipe/state ] || break; sleep 0.05; done
    until_is bm_pipe $during
    # Whoever begins now runs the new code at once, but where all change at one instant.
    begun() { if [ $mode = stop-machine ]; then old; else new; fi; }
    [ $mode = stop-machine ] || comes_to 'enabled, patched'
    begun; down; expect holders 'binfmt_misc waiting' "$(of bm_pipe holders)"; is bm_pipe $during
    up; begun; is bm_pipe $during
    down; wakes; wait $insmod; until_is bm_pipe applied; up; new
    step 'it goes, comes and goes while the patch is reverted' $mode
    sleeper
    echo 0 > /sys/kernel/lpbuild/bm_pipe/enabled; until_is bm_pipe reverting
    ended() { if [ $mode = stop-machine ]; then new; else old; fi; }
    [ $mode = stop-machine ] || comes_to enabled
    ended; down; expect holders 'binfmt_misc waiting' "$(of bm_pipe holders)"; is bm_pipe reverting
    up; ended; is bm_pipe reverting
    wakes; until_is bm_pipe reverted; old; rmmod bm_pipe; old; down
done
step 'a kprobe is on the site of a module that comes'
t=/sys/kernel/tracing
load bm_status; up; new
site=$(lpbuild status --json bm_status | sed -n 's/.*"site_offset": *\([0-9]*\).*/\1/p' | head -1)
down
echo "p:held binfmt_misc:bm_status_read+$site" > $t/kprobe_events; echo 1 > $t/events/kprobes/held/enable
if insmod /binfmt_misc.ko 2> /tmp/err; then fail 'it was loaded'; fi
expect_in 'why it is not loaded' LP5030 "$(dmesg | tail -3)"
expect_in holders 'binfmt_misc refused LP50' "$(of bm_status holders)"; is bm_status applied
echo 0 > $t/events/kprobes/held/enable; echo > $t/kprobe_events
up; new; expect holders 'binfmt_misc applied' "$(of bm_status holders)"
step 'a function tracer over a reload'
# A filter for a module that is away is kept until that comes.
for turn in 1 2; do
    down; echo '*:mod:binfmt_misc' > $t/set_ftrace_filter; echo function > $t/current_tracer
    up; new; expect_in 'what is traced' 'bm_status_read <-' "$(cat $t/trace)"
    echo nop > $t/current_tracer; new; echo function_graph > $t/current_tracer; new
    expect_in 'what is in the graph' bm_status_read "$(cat $t/trace)"; echo nop > $t/current_tracer
done
new; unload bm_status; old
echo nop > $t/current_tracer; echo > $t/set_ftrace_filter; down
clean
"#;
    passes(&b.vm("module-moments", &format!("{KINDS}{script}")));
}
