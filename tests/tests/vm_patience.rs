//! Who sleeps in a function is left alone as long as the kernel's own livepatch would leave it alone, on the stock kernels.
//!
//! A task that is sent to user mode as if by a signal restarts its system call: `nanosleep` by `restart_syscall`, for which a
//! sandbox that does not know it kills its program.

use harness::edits::NANOSLEEP;
use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::on_both;

on_both! {
    a_sandboxed_sleeper_is_left_alone
    times_of_nothing_are_refused
}

/// It sleeps for less than the patience: operations wait for it, and nothing else takes that long.
fn a_sandboxed_sleeper_is_left_alone(series: &'static str) {
    let Some(bench) = Bench::find("a_sandboxed_sleeper_is_left_alone", series) else { return };
    let script = r#"
now() { read -r up _ < /proc/uptime; echo ${up%.*}; }
# SECONDS: asleep, with two that nobody watches over.
asleep() {
    sandboxed $1 > /tmp/sandboxed & sleeper=$!
    sleep 100 & other=$!
    wait-for /tmp/sandboxed pid= 30
    sleep 1
}
ended() { wait $sleeper; expect 'the sandboxed program' "$1" "$(sed -n 's/^RESULT sandboxed=//p' /tmp/sandboxed)"; }
alive() { kill -0 $other || fail 'an ordinary sleeper was ended'; kill $other; wait $other 2> /dev/null || true; }
# Whoever else sleeps there is disturbed when the patience is over, so that the operation ends.
operation() {
    from=$(now)
    lpbuild "$@" || fail "$*: status $?"
    took=$(($(now) - from))
    result "$1_took" $took
}

step 'as packed'
asleep 8
operation load --mode transition /nanosleep.ko
expect patience 15000 "$(of nanosleep patience_ms)"
expect deadline 30000 "$(of nanosleep deadline_ms)"
[ $took -ge 13 ] || fail "somebody who sleeps was disturbed after $took s"
[ $took -lt 25 ] || fail "nobody was disturbed in $took s"
ended exit0
alive

step 'the way back'
asleep 8
operation unload --mode transition nanosleep
[ $took -ge 13 ] || fail "somebody who sleeps was disturbed after $took s"
ended exit0
alive
clean

step 'with less patience'
asleep 100
operation load --mode transition --patience-ms 1000 /nanosleep.ko
[ $took -lt 10 ] || fail "it took $took s"
ended signal31
alive
echo 2000 > /sys/kernel/lpbuild/nanosleep/patience_ms
operation unload nanosleep
[ $took -lt 10 ] || fail "it took $took s"
clean

step 'where nobody sleeps inside nobody waits'
lpbuild load --mode transition --json /short.ko > /tmp/json || fail "status $?"
patched
took=$(sed -n 's/.*"took_ms": \([0-9]*\).*/\1/p' /tmp/json)
result free_load_ms $took
[ $took -lt 5000 ] || fail "kernel threads and idle tasks took $took ms"
unload short
clean

step 'with less time than patience it is given up'
asleep 8
if out=$(lpbuild load --mode transition --deadline-ms 2000 /nanosleep.ko 2>&1); then fail "loaded: $out"; fi
expect_in code LP5007 "$out"
expect_in function do_nanosleep "$out"
ended exit0
alive
clean
"#;
    let bench = bench.module("nanosleep", &[NANOSLEEP]).module("short", &[harness::edits::SHORT]);
    let preempt = if series == "6.12" { "preempt=full" } else { "" };
    passes(&bench.vm("patience", script).append(preempt));
}

fn times_of_nothing_are_refused(series: &'static str) {
    let Some(bench) = Bench::find("times_of_nothing_are_refused", series) else { return };
    let script = r#"
refuses LP5025 short deadline_ms=0
refuses LP5025 short patience_ms=0
refuses LP5025 short mode=drain deadline_ms=0
load short deadline_ms=1234 patience_ms=5678
expect deadline 1234 "$(of short deadline_ms)"
expect patience 5678 "$(of short patience_ms)"
for file in deadline_ms patience_ms; do
    for bad in 0 -1 '' x 4294967296; do
        if (echo "$bad" > /sys/kernel/lpbuild/short/$file) 2> /dev/null; then fail "$file took '$bad'"; fi
    done
done
expect deadline 1234 "$(of short deadline_ms)"
expect patience 5678 "$(of short patience_ms)"
unload short
clean
step 'no sysfs'
load short
umount /sys/kernel/tracing /sys/kernel/debug 2> /dev/null || true
umount -l /sys
if out=$(lpbuild status 2>&1); then fail "status without sysfs: $out"; else expect status 1 $?; fi
expect_in code LP5124 "$out"
expect_not_in text 'no patches' "$out"
mount -t sysfs sysfs /sys
lpbuild status | { read -r first; expect_in status applied "$first"; }
unload short
"#;
    passes(&bench.module("short", &[harness::edits::SHORT]).vm("times", script));
}
