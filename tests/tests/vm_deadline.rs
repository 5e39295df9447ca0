//! The deadline is a bound, and nobody traps while something is waited for that does not come: a task that works in the kernel
//! without a pause, on the stock kernels.
//!
//! The task ends only when the script ends it, so that "before it ended" is not a matter of time. While it works it looks at the
//! first byte of the site all the time, and counts how often that was an int3.

use harness::edits::{Edit, SHORT};
use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::on_both;

/// `version_proc_show` begins with one long instruction, or its site is the fentry nop: nobody stands in the middle.
const VERSION: Edit = (
    "fs/proc/version.c",
    "\tseq_printf(m, linux_proc_banner,\n",
    "\tseq_puts(m, \"patched \");\n\tseq_printf(m, linux_proc_banner,\n",
);

/// Who writes to `work` works until a signal comes, from when there is an int3 if he is to `wait` for one; `traps`: how often there was an int3 at `site` + `offset`. A write to a parameter
/// holds a lock of its module, so `traps` can be read when the work has ended.
const WORKER: &str = r#"
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
static unsigned long site, offset, traps;
static bool slept, wait;
module_param(site, ulong, 0444);
module_param(offset, ulong, 0444);
module_param(traps, ulong, 0444);
module_param(slept, bool, 0444);
module_param(wait, bool, 0644);
static int work(const char *value, const struct kernel_param *param)
{
	unsigned long before;

	pr_info("worker: begins\n");
	while (wait && READ_ONCE(*(u8 *)(site + offset)) != 0xcc && !signal_pending(current))
		usleep_range(50, 100);
	before = current->nvcsw;
	traps = 0;
	while (!signal_pending(current)) {
		traps += READ_ONCE(*(u8 *)(site + offset)) == 0xcc;
		cpu_relax();
		cond_resched();
	}
	slept = current->nvcsw != before;
	return 0;
}
static const struct kernel_param_ops ops = { .set = work };
module_param_cb(work, &ops, NULL, 0200);
MODULE_LICENSE("GPL");
"#;

const FUNCTIONS: &str = r#"
# MODULE SYMBOL: the worker looks at the site of the function.
worker() {
    load $1
    offset=$(of $1 functions | sed 's/.*site=+\([^/]*\).*/\1/')
    unload $1
    insmod /worker.ko site=$(address $2) offset=$offset
}
begins() {
    dmesg -c > /dev/null
    sh -c 'echo 1 > /sys/module/worker/parameters/work' & work=$!
    for turn in $(seq 600); do dmesg | grep -q 'worker: begins' && return 0; sleep 0.1; done
    fail 'nobody works'
}
works() { kill -0 $work 2> /dev/null || fail "$1: the work ended first"; }
ends() {
    kill -9 $work; wait $work 2> /dev/null || true
    expect slept N "$(cat /sys/module/worker/parameters/slept)"
    traps=$(cat /sys/module/worker/parameters/traps)
}
"#;

on_both! {
    nobody_traps_while_somebody_works
    one_instruction_waits_for_nobody
    an_operation_that_has_begun_is_given_up
}

/// As the kernel is set up, and fully preemptible.
fn boots(bench: &Bench, name: &str, script: &str) {
    for preempt in ["", "preempt=full"] {
        let name = format!("deadline-{name}{}", if preempt.is_empty() { "" } else { "-full" });
        passes(&bench.vm(&name, &format!("{FUNCTIONS}{script}")).append(preempt));
    }
}

fn nobody_traps_while_somebody_works(series: &'static str) {
    let Some(bench) = Bench::find("nobody_traps_while_somebody_works", series) else { return };
    let script = r#"
worker short cmdline_proc_show
for mode in drain stop-machine transition; do
    step $mode
    begins
    if out=$(lpbuild load --mode $mode --deadline-ms 2000 /short.ko 2>&1); then fail "$mode: loaded: $out"; else expect status 4 $?; fi
    works "$mode"
    expect_in code LP5026 "$out"
    expect_in "who it is" "$work" "$out"
    [ ! -e /sys/module/short ] || fail "$mode: the refused module stayed"
    original
    clean
    works "$mode"
    ends
    expect "calls that would have trapped ($mode)" 0 $traps
    # And when the work is over in time, it goes on.
    begins
    insmod /short.ko mode=$mode deadline_ms=100000 & load=$!
    sleep 1
    original
    works "$mode"
    ends
    expect "calls that would have trapped ($mode, later)" 0 $traps
    wait $load || fail "$mode: not loaded: $(dmesg | tail -3)"
    until_is short applied
    patched
    unload short
    clean
done
"#;
    boots(&bench.module("short", &[SHORT]).other("worker", WORKER), "works", script);
}

/// The load comes to its end beside the work, and what is left to be waited for keeps nobody.
fn one_instruction_waits_for_nobody(series: &'static str) {
    let Some(bench) = Bench::find("one_instruction_waits_for_nobody", series) else { return };
    let script = r#"
worker version version_proc_show
for mode in drain transition; do
    step $mode
    begins
    insmod /version.ko mode=$mode deadline_ms=5000 || fail "$mode: $(dmesg | tail -3)"
    works $mode
    expect_in effect patched "$(cat /proc/version)"
    expect state draining "$(of version state)"
    works $mode
    ends
    until_is version applied
    unload version
    clean
done
"#;
    boots(&bench.module("version", &[VERSION]).other("worker", WORKER), "single", script);
}

/// The work begins when the int3 is there: that goes again, and the module follows when it can.
fn an_operation_that_has_begun_is_given_up(series: &'static str) {
    let Some(bench) = Bench::find("an_operation_that_has_begun_is_given_up", series) else { return };
    let script = r#"
worker short cmdline_proc_show
echo 1 > /sys/module/worker/parameters/wait
for mode in drain stop-machine transition; do
    step $mode
    # Mostly the first time: the grace period begins behind the int3.
    for turn in 1 2 3 4 5 6 7 8 9 10; do
        begins
        insmod /short.ko mode=$mode deadline_ms=2000 || fail "$mode: $(dmesg | tail -3)"
        works "$mode"
        [ "$(of short state)" = reverting ] && break
        ends
        unload short
    done
    is short reverting
    expect_in why LP5026 "$(of short last_error)"
    original
    clean
    works "$mode"
    (rmmod short) 2> /dev/null && fail 'it went while somebody may be inside'
    ends
    [ $traps -gt 0 ] || fail 'the work began too late'
    until_is short reverted
    rmmod short
    clean
done
"#;
    boots(&bench.module("short", &[SHORT]).other("worker", WORKER), "begun", script);
}
