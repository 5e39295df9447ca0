//! What the three modes promise, under load that one of them cannot cope with, on the stock kernels.
//!
//! | mode | promise |
//! |---|---|
//! | stop-machine | all at one instant; with a task inside until the deadline it is refused, names the task, changes nothing |
//! | drain | in however hot the function is: new calls run the new code, then tasks in old code are waited for |
//! | transition | converges however hot the functions are, and no system call sees two versions |
//!
//! Whatever the mode, the kernel's text is the same byte for byte afterwards. `LPBUILD_CYCLES=500` makes the cycles many.
//! The scripts use no `$(..)` and no pipe where `pipe_read` is replaced: the shell would itself sleep in it.

use std::time::Duration;

use harness::edits::{CLONE, Edit, PIPE, SHORT};
use harness::vm::Vm;
use lpbuild_tests::bench::{Bench, cycles, passes};
use lpbuild_tests::on_both;
use object::{Object, ObjectSection, ObjectSymbol};

/// `show_stat` takes long: each read goes over all interrupts of all CPUs.
const STAT: &[Edit] = &[("fs/proc/stat.c", "\t\t\"processes %lu\\n\"", "\t\t\"PROCESSES %lu\\n\"")];

/// With it, status 42 becomes 43 in the new `do_group_exit`, which never returns.
const EXIT: Edit = (
    "kernel/exit.c",
    "\tstruct signal_struct *sig = current->signal;\n\n\tif (sig->flags & SIGNAL_GROUP_EXIT)\n",
    "\tstruct signal_struct *sig = current->signal;\n\n\tif (exit_code == (42 << 8))\n\t\texit_code = 43 << 8;\n\n\
     \tif (sig->flags & SIGNAL_GROUP_EXIT)\n",
);

/// `proc_pid_status` calls `task_mem` and `cpuset_task_status_allowed`: three objects, one system call.
const STATUS: &[Edit] = &[
    ("fs/proc/array.c", "seq_puts(m, \"State:\\t\");", "seq_puts(m, \"STATE:\\t\");"),
    ("fs/proc/task_mmu.c", "SEQ_PUT_DEC(\"VmPeak:\\t\"", "SEQ_PUT_DEC(\"VMPEAK:\\t\""),
    ("kernel/cgroup/cpuset.c", "\"Mems_allowed:\\t%*pb\\n\"", "\"MEMS_ALLOWED:\\t%*pb\\n\""),
];
/// Its pieces for `consistent`.
const PIECES: &str = "State:=STATE: VmPeak:=VMPEAK: Mems_allowed:=MEMS_ALLOWED:";

/// `pick_next_task_fair` counts: it runs in `schedule()`, with the lock of the run queue held.
const SCHEDULE: &[Edit] = &[
    (
        "kernel/sched/fair.c",
        "struct task_struct *\npick_next_task_fair(struct rq *rq, struct task_struct *prev, struct rq_flags *rf)\n{\n",
        "static unsigned long lpt_scheduled;\nstruct task_struct *\n\
         pick_next_task_fair(struct rq *rq, struct task_struct *prev, struct rq_flags *rf)\n{\n",
    ),
    ("kernel/sched/fair.c", "\tint new_tasks;\n\nagain:\n", "\tint new_tasks;\n\n\tlpt_scheduled++;\nagain:\n"),
];

/// `hrtimer_interrupt` counts: it runs in the timer's interrupt.
const INTERRUPT: &[Edit] = &[
    (
        "kernel/time/hrtimer.c",
        "void hrtimer_interrupt(struct clock_event_device *dev)\n{\n",
        "static unsigned long lpt_interrupted;\nvoid hrtimer_interrupt(struct clock_event_device *dev)\n{\n",
    ),
    ("kernel/time/hrtimer.c", "\tcpu_base->nr_events++;\n", "\tlpt_interrupted++;\n\tcpu_base->nr_events++;\n"),
];

/// `load MODE MODULE [OPTION..]` and `unload MODE MODULE [OPTION..]` leave what was printed in /tmp/out and the exit status
/// in `status`; `loaded` and `unloaded` want it to be 0. `took` is the time in the guest by its own clock.
const FUNCTIONS: &str = r#"
load() {
    mode=$1 module=$2; shift 2; status=0
    lpbuild load --mode $mode "$@" /$module.ko > /tmp/out 2>&1 || status=$?
    cat /tmp/out
}
unload() {
    mode=$1 module=$2; shift 2; status=0
    lpbuild unload --mode $mode "$@" $module > /tmp/out 2>&1 || status=$?
    cat /tmp/out
}
out() { out=; while read -r line; do out="$out$line
"; done < /tmp/out; }
loaded() { load "$@"; [ $status = 0 ] || { out; fail "load $*: status $status: $out"; }; took load "$1"; }
unloaded() { unload "$@"; [ $status = 0 ] || { out; fail "unload $*: status $status: $out"; }; took unload "$1"; }
took() { sed -n "s/.*(\([0-9]*\) attempts\?, \([0-9]*\) ms, pause \(.*\))/RESULT $1_$2=\2 ms, \1 attempts, pause \3/p" /tmp/out; }
is() { read -r state < /sys/kernel/lpbuild/$1/state; [ "$state" = "$2" ] || fail "$1 is $state, not $2"; }
# MODULE FILE TEXT: `grep` in a file of a patch.
shows() { grep -q "$3" /sys/kernel/lpbuild/$1/$2 || { cat /sys/kernel/lpbuild/$1/$2; fail "no $3 in $2 of $1"; }; }
# What a refused stop-machine says, and that it left nothing.
busy() {
    out
    expect status 4 $status
    # Inside the function, or on a loaded host so busy that the wait before the int3 did not end: both are refusals of a busy machine.
    case "$out" in *LP5007*|*LP5026*) ;; *) fail "neither LP5007 nor LP5026 in '$out'" ;; esac
    expect_in place "$1" "$out"
    [ ! -e /sys/module/$module ] || fail 'the refused module stayed'
    ktext diff /tmp/text
}
gone() { [ ! -e /sys/module/$1 ] || fail "$1 stayed"; ktext diff /tmp/text; }
background() { "$@" & pids="${pids:-} $!"; }
# What nobody else wants of the CPUs: a step of the script takes no longer for it.
idly() { background sh -c 'renice 19 $$ > /dev/null; exec "$@"' sh "$@"; }
stop() { kill $pids; for pid in $pids; do wait $pid || true; done; pids=; }
ktext save /tmp/text
# `lpbuild load` compares addresses with it. Those of the kernel stay; /run/proc has the modules' as well.
[ -e /run/kallsyms ] || cat /proc/kallsyms > /run/kallsyms
mkdir /run/proc; mount -t proc proc /run/proc
mount -o bind /run/kallsyms /proc/kallsyms
"#;

/// With these functions, in place of those all scripts share.
fn vm(bench: &Bench, name: &str, script: &str) -> Vm {
    bench.vm(&format!("modes-{name}"), &format!("{FUNCTIONS}{script}"))
}

on_both! {
    a_function_hot_on_every_cpu
    many_tasks_asleep_in_the_function
    fork_and_exit_storms
    in_the_scheduler_and_in_an_interrupt
    ten_thousand_sleeping_threads
    cycles_of_a_consistent_fix_under_every_load
    many_cycles_leave_nothing
    nmis_while_the_code_changes
    a_task_that_cannot_be_switched
    a_dry_run_changes_nothing
}

/// With full preemption eight processes are nearly always somewhere inside `show_stat`, whichever two or four run.
fn a_function_hot_on_every_cpu(series: &'static str) {
    let Some(b) = Bench::find("a_function_hot_on_every_cpu", series) else { return };
    let b = b.module("stat", STAT);
    let script = r#"
background hot 8 /proc/stat
sleep 1
# It can have luck: once in a while everybody is outside.
load stop-machine stat --deadline-ms 1500
if [ $status = 0 ]; then result lucky 1; unloaded stop-machine stat --deadline-ms 30000; else busy "(hot)"; fi
for mode in drain transition; do
    loaded $mode stat --deadline-ms 30000
    is stat applied
    grep -q PROCESSES /proc/stat || fail 'the new code does not run'
    unloaded $mode stat --deadline-ms 30000
    grep -q '^processes' /proc/stat || fail 'the old code does not run'
    gone stat
done
kill -0 $pids || fail 'the load ended early'
stop
"#;
    // Four CPUs on one of them, two on the other: each number is tried.
    let run = passes(&vm(&b, "hot", script).append("preempt=full").cpus(if series == "6.1" { 4 } else { 2 }));
    for mode in ["drain", "transition"] {
        harness::progress(format!("{series}, hot, {mode}: load {}", run.result(&format!("load_{mode}")).unwrap()));
    }
}

/// A backtrace of all CPUs is an NMI to each: hundreds a second, while the bytes of a function that is called all the time change.
fn nmis_while_the_code_changes(series: &'static str) {
    let Some(b) = Bench::find("nmis_while_the_code_changes", series) else { return };
    let b = b.module("short", &[SHORT]);
    let n = cycles(2);
    let script = format!(
        r#"
nmis() {{
    sum=0
    for word in $(grep NMI: /proc/interrupts); do
        case $word in *[!0-9]*) ;; *) sum=$((sum + word)) ;; esac
    done
    echo $sum
}}
echo 1 > /proc/sys/kernel/sysrq
dmesg -n 1
idly hot 2 /proc/cmdline
(while :; do echo l > /proc/sysrq-trigger; sleep 0.003; done) & storm=$!
before=$(nmis)
for mode in stop-machine drain transition; do
    i=0
    while [ $i -lt {n} ]; do
        i=$((i + 1))
        loaded $mode short --deadline-ms 30000
        # The NMIs print where each CPU is, and names that fill their buffers kill the kernel.
        if [ $i = 1 ]; then
            long=$(awk '$4 == "[short]" && length($3) > 127 {{ print $3 }}' /run/proc/kallsyms)
            expect 'names too long to be printed' '' "$long"
        fi
        unloaded $mode short --deadline-ms 30000
        gone short
    done
done
after=$(nmis)
kill $storm
kill -0 $pids || fail 'the load ended early'
stop
result nmis $((after - before))
[ $((after - before)) -gt 100 ] || fail "only $((after - before)) NMIs"
"#
    );
    passes(&vm(&b, "nmis", &script));
}

fn many_tasks_asleep_in_the_function(series: &'static str) {
    let Some(b) = Bench::find("many_tasks_asleep_in_the_function", series) else { return };
    let b = b.module("pipe", &[PIPE]);
    let script = r#"
odd() { dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null 2>/dev/null; }
asleep() { sleepers 50 /tmp/fifo > /tmp/sleeping & sleeper=$!; wait-for /tmp/sleeping sleeping= 30; sleep 1; }
awake() { kill $sleeper; wait $sleeper || true; }
mkfifo /tmp/fifo
step stop-machine
asleep
load stop-machine pipe --deadline-ms 700
busy pipe_read
expect_in blocker sleepers "$out"

step drain
loaded drain pipe --deadline-ms 1000
is pipe draining
shows pipe blockers '[0-9] sleepers pipe_read+'
grep -q 'still in old code: .*sleepers' /tmp/out || fail 'who is still in old code is not said'
odd && fail 'new calls do not run the new code'
awake
wait-for /sys/kernel/lpbuild/pipe/state applied 30
asleep
unload drain pipe --deadline-ms 1000
out; expect status 4 $status
expect_in code LP5122 "$out"
expect_in blocker sleepers "$out"
is pipe reverting
odd || fail 'new calls do not run the old code'
refused rmmod pipe
awake
wait-for /sys/kernel/lpbuild/pipe/state reverted 30
lpbuild unload pipe
gone pipe

step transition
asleep
loaded transition pipe --patience-ms 1000 --deadline-ms 20000
is pipe applied
kill -0 $sleeper || fail 'the sleepers did not survive'
odd && fail 'the new code does not run'
unloaded transition pipe --patience-ms 1000 --deadline-ms 20000
odd || fail 'the old code does not run'
kill -0 $sleeper || fail 'the sleepers did not survive'
gone pipe
awake
"#;
    passes(&vm(&b, "asleep", script));
}

fn fork_and_exit_storms(series: &'static str) {
    let Some(b) = Bench::find("fork_and_exit_storms", series) else { return };
    let b = b.module("life", &[CLONE, EXIT]);
    let script = r#"
exits() { sh -c 'exit 42' && code=0 || code=$?; expect "status of exit 42" $1 $code; }
clones() { odd-clone > /tmp/clone; grep -q "^RESULT errno=$1$" /tmp/clone || { cat /tmp/clone; fail "not errno $1"; }; }
background forkstorm forever
background exitstorm forever
background exitstorm forever
sleep 1
exits 42; clones 0
# Somebody is nearly always in a function that never returns.
load stop-machine life --deadline-ms 2000
if [ $status = 0 ]; then result lucky 1; exits 43; unloaded stop-machine life --deadline-ms 60000; else busy ''; fi
for mode in drain transition; do
    for round in 1 2 3; do
        loaded $mode life --deadline-ms 30000
        wait-for /sys/kernel/lpbuild/life/state applied 30
        exits 43; clones 71
        unloaded $mode life --deadline-ms 30000
        exits 42; clones 0
    done
    gone life
done
kill -0 $pids || fail 'the load ended early'
stop
"#;
    passes(&vm(&b, "storms", script));
}

fn in_the_scheduler_and_in_an_interrupt(series: &'static str) {
    let Some(b) = Bench::find("in_the_scheduler_and_in_an_interrupt", series) else { return };
    let b = b.module("schedule", SCHEDULE).module("interrupt", INTERRUPT);
    let counter = |module: &str, name: &str| {
        let data = std::fs::read(&b.made(module).ko).unwrap();
        let elf = object::File::parse(&*data).unwrap();
        let symbol = elf.symbols().find(|s| s.name() == Ok(name)).unwrap();
        let section = elf.section_by_index(symbol.section_index().unwrap()).unwrap();
        format!("/sys/module/{module}/sections/{} {}", section.name().unwrap(), symbol.address())
    };
    let script = format!(
        r#"
scheduled='{}'
interrupted='{}'
# By the section of the module: /proc/kallsyms takes longer to read than all else here.
counts() {{
    at=$(printf 0x%x $(($(cat $1) + $2)))
    before=$(kmem $at 8); sleep 0.3; after=$(kmem $at 8)
    [ $before != $after ] || fail "$at does not count: $before"
}}
idly hot 4 /proc/stat
idly forkstorm forever
for mode in stop-machine drain transition; do
    for module in schedule interrupt; do
        loaded $mode $module --deadline-ms 30000
        wait-for /sys/kernel/lpbuild/$module/state applied 30
        case $module in schedule) counts $scheduled ;; *) counts $interrupted ;; esac
        unloaded $mode $module --deadline-ms 30000
        gone $module
    done
done
stop
"#,
        counter("schedule", "lpt_scheduled"),
        counter("interrupt", "lpt_interrupted"),
    );
    passes(&vm(&b, "schedule", &script).cpus(if series == "6.12" { 4 } else { 2 }));
}

/// The first round is without the threads, for comparison. In the last they sleep in the function itself.
fn ten_thousand_sleeping_threads(series: &'static str) {
    let Some(b) = Bench::find("ten_thousand_sleeping_threads", series) else { return };
    let b = b.module("short", &[SHORT]).module("pipe", &[PIPE]);
    let script = r#"
mkfifo /tmp/fifo
round() {
    for mode in stop-machine drain transition; do
        loaded $mode short --deadline-ms 60000
        is short applied
        grep -q patched /proc/cmdline || fail 'the new code does not run'
        pause=$(cat /sys/kernel/lpbuild/short/pause_ns)
        result ${1}_pause_$mode $pause
        unloaded $mode short --deadline-ms 60000
        gone short
    done
}
step few
round few
step many
sleepers 10000 > /tmp/sleeping & sleeper=$!
wait-for /tmp/sleeping sleeping= 100
slabsum
round many
kill -9 $sleeper; wait $sleeper || true
step inside
sleepers 10000 /tmp/fifo > /tmp/sleeping & sleeper=$!
wait-for /tmp/sleeping sleeping= 100
sleep 2
loaded transition pipe --patience-ms 1000 --deadline-ms 100000
is pipe applied
unloaded transition pipe --patience-ms 1000 --deadline-ms 100000
kill -0 $sleeper || fail 'the sleepers did not survive'
loaded drain pipe --deadline-ms 2000
is pipe draining
kill -9 $sleeper; wait $sleeper || true
wait-for /sys/kernel/lpbuild/pipe/state applied 100
unloaded drain pipe --deadline-ms 60000
gone pipe
"#;
    let run = passes(&vm(&b, "ten-thousand", script).memory_mib(2048));
    let pause = |key: &str| run.number(key).unwrap() / 1e6;
    for mode in ["stop-machine", "drain", "transition"] {
        let (few, many) = (pause(&format!("few_pause_{mode}")), pause(&format!("many_pause_{mode}")));
        harness::progress(format!("{series}, {mode}: pause {few:.3} ms, with 10,000 threads {many:.3} ms"));
        // Emulation on a busy host doubles a figure now and then.
        assert!(
            mode == "stop-machine" || many < 10.0 * few + 20.0,
            "{mode}: the pause grows with sleeping threads: {few:.3} ms, {many:.3} ms"
        );
    }
}

/// One system call makes its text with three replaced functions. New processes, modules, CPUs and tracers come and go.
fn cycles_of_a_consistent_fix_under_every_load(series: &'static str) {
    let Some(b) = Bench::find("cycles_of_a_consistent_fix_under_every_load", series) else { return };
    let b = b.module("status", STATUS);
    let release = &b.env.kernel.release;
    let drivers = b.env.kernel.vmlinuz.parent().unwrap().parent().unwrap();
    let drivers = drivers.join(format!("lib/modules/{release}/kernel/drivers/net"));
    let dummy = ["dummy.ko", "dummy.ko.xz"].map(|n| drivers.join(n)).into_iter().find(|p| p.exists()).unwrap();
    let packed = dummy.extension().is_some_and(|e| e == "xz");
    let script = format!(
        r#"
{unpack}
tracing=/sys/kernel/tracing
# Function and graph tracers, kprobes, modules, CPUs, processes, threads; and readers on every CPU all the time.
for mode in stop-machine drain transition; do
    step $mode
    idly forkstorm forever
    idly exitstorm forever
    background modstorm /dummy.ko dummy forever
    background cpustorm forever
    background tracestorm proc_pid_status forever
    rm -f /tmp/enough
    consistent /proc/self/status @/tmp/enough {PIECES} > /tmp/consistent & reader=$!
    cycle {cycles} /bin/lpbuild /status.ko status --mode $mode --deadline-ms 60000
    : > /tmp/enough
    wait $reader
    cat /tmp/consistent
    # Each function by itself is switched at once in a drain, so there a call may see both.
    [ $mode = drain ] || grep -q 'mixed=0$' /tmp/consistent || fail "$mode: a system call saw two versions"
    grep -q '^RESULT new=[1-9]' /tmp/consistent || fail "$mode: the new version was never seen"
    grep -q '^RESULT old=[1-9]' /tmp/consistent || fail "$mode: the old version was never seen"
    kill -0 $pids || fail 'the load ended early'
    stop
    # What the tracers themselves have written into the kernel's text is taken out again.
    echo nop > $tracing/current_tracer
    [ ! -e $tracing/events/lp/enable ] || echo 0 > $tracing/events/lp/enable
    echo > $tracing/kprobe_events
    echo > $tracing/set_ftrace_filter
    echo > $tracing/set_graph_function
    echo 1 > /sys/devices/system/cpu/cpu1/online 2>/dev/null || true
    rmmod dummy 2>/dev/null || true
    gone status
done
"#,
        unpack = if packed { "unxz /dummy.ko.xz" } else { "" },
        cycles = cycles(3),
    );
    let file = if packed { "/dummy.ko.xz" } else { "/dummy.ko" };
    passes(&vm(&b, "cycles", &script).file(file, dummy).cpus(if series == "6.1" { 4 } else { 2 }));
}

/// Beside a reader that takes every call apart, and without other load: as fast as it goes.
fn many_cycles_leave_nothing(series: &'static str) {
    let Some(b) = Bench::find("many_cycles_leave_nothing", series) else { return };
    let b = b.module("short", &[SHORT]);
    let script = r#"
modules=$(cat /proc/modules)
hammer /proc/cmdline forever console patched > /tmp/hammer & hammer=$!
for mode in $modes; do cycle 2 /bin/lpbuild /short.ko short --mode $mode; done
slabsum lpbuild > /tmp/slab.before; cat /tmp/slab.before
for mode in $modes; do
    step $mode
    cycle CYCLES /bin/lpbuild /short.ko short --mode $mode
    gone short
done
slabsum lpbuild > /tmp/slab.after; cat /tmp/slab.after
kill -0 $hammer || fail 'the load ended early'
kill $hammer
expect modules "$modules" "$(cat /proc/modules)"
[ ! -e /sys/kernel/lpbuild ] || fail 'the folder of the patches is still there'
slab() { sed -n 's/^RESULT .*slab[a-z_]*=\([0-9]*\).*/\1/p' $1 | head -1; }
before=$(slab /tmp/slab.before); after=$(slab /tmp/slab.after)
[ $((after - before)) -lt 4096 ] || fail "slab memory grew from $before to $after KiB"
"#;
    let vm = vm(&b, "many", &script.replace("CYCLES", &cycles(3).to_string()));
    // A cycle takes two seconds at most.
    passes(&vm.overtime(Duration::from_secs(1800.max(6 * u64::from(cycles(3))))));
}

/// A task that waits in vfork(2) is killable, but no signal to restart its system call wakes it.
fn a_task_that_cannot_be_switched(series: &'static str) {
    let Some(b) = Bench::find("a_task_that_cannot_be_switched", series) else { return };
    let b = b.module("clone", &[CLONE]);
    let script = r#"
clones() { odd-clone > /tmp/clone; grep -q "^RESULT errno=$1$" /tmp/clone || { cat /tmp/clone; fail "not errno $1"; }; }
stuck() { vforker > /tmp/forking & forker=$!; wait-for /tmp/forking vforking 30; sleep 1; }
# It waits for its child: both are ended.
free() { kill -9 $forker; wait $forker || true; }
stuck
step deadline
for mode in stop-machine transition; do
    load $mode clone --deadline-ms 1000
    busy kernel_clone
    expect_in blocker "$forker (vforker)" "$out"
    clones 0
done

step half-way reversal
for mode in stop-machine transition; do
    lpbuild load --mode $mode --deadline-ms 100000 /clone.ko > /tmp/out 2>&1 & loader=$!
    wait-for /sys/kernel/lpbuild/clone/state applying 30
    wait-for /sys/kernel/lpbuild/clone/blockers kernel_clone 30
    if [ $mode = transition ]; then
        cat /sys/kernel/lpbuild/clone/switched
        shows clone switched '^[1-9][0-9]*/[1-9]'
        lpbuild status
    fi
    cp /proc/uptime /tmp/before
    echo 0 > /sys/kernel/lpbuild/clone/enabled
    status=0; wait $loader || status=$?
    cat /tmp/before /proc/uptime /tmp/out
    out; expect status 4 $status
    expect_in code LP5016 "$out"
    clones 0
    gone clone
done

step drain
loaded drain clone --deadline-ms 1000
is clone draining
shows clone blockers "^$forker vforker kernel_clone+"
clones 71
# It is in old code, which is no reason not to revert.
unloaded drain clone --deadline-ms 20000
clones 0
gone clone

step 'the same inside the new code'
free
loaded transition clone --deadline-ms 30000
clones 71
stuck
unload transition clone --deadline-ms 1000
out; expect status 4 $status
expect_in code LP5013 "$out"
expect_in blocker "$forker (vforker)" "$out"
is clone applied
clones 71
free
unloaded transition clone --deadline-ms 30000
clones 0
gone clone

step force
stuck
loaded transition clone --deadline-ms 1000 --force
is clone applied
shows clone force 1
clones 71
free
# Who was switched by force is looked at like all others before the module goes.
unloaded transition clone --deadline-ms 30000
clones 0
gone clone
"#;
    passes(&vm(&b, "stuck", script).allow("module verification failed"));
}

fn a_dry_run_changes_nothing(series: &'static str) {
    let Some(b) = Bench::find("a_dry_run_changes_nothing", series) else { return };
    let b = b.module("pipe", &[PIPE]).module("also", &[PIPE]);
    let script = r#"
mkfifo /tmp/fifo
sleepers 3 /tmp/fifo > /tmp/sleeping & sleeper=$!
wait-for /tmp/sleeping sleeping= 30
sleep 1
for mode in drain transition; do
    load $mode pipe --dry-run
    out; expect status 0 $status
    expect_in said 'would be applied' "$out"
    gone pipe
done
load stop-machine pipe --dry-run --deadline-ms 500
busy pipe_read
load stop-machine pipe --dry-run --deadline-ms 500 --json
out
for key in '"code": "LP5007"' '"message": "LP5007: ' '"comm": "sleepers"' '"place": "pipe_read+'; do expect_in json "$key" "$out"; done
kill $sleeper; wait $sleeper || true
load stop-machine pipe --dry-run
expect status 0 $status
gone pipe

loaded stop-machine pipe
ktext save /tmp/applied
load stop-machine also --dry-run --json
out; expect status 4 $status
for key in '"code": "LP5107"' '"function": "pipe_read"' "\"owner\": \"pipe\""; do expect_in json "$key" "$out"; done
ktext diff /tmp/applied
unloaded stop-machine pipe
gone pipe
"#;
    passes(&vm(&b, "dry-run", script));
}
