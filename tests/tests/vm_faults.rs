//! Every call of the runtime that can fail is made to fail once, in every mode: the patch is refused or reverted cleanly, or
//! it works all the same. The kernel's text is the same afterwards, and nothing was complained about.

use harness::edits::{LOADAVG, SHORT};
use harness::module::TEST_HOOKS;
use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::on_both;

on_both! { every_call_that_can_fail_fails_once }

fn every_call_that_can_fail_fails_once(series: &'static str) {
    let Some(bench) = Bench::find("every_call_that_can_fail_fails_once", series) else { return };
    // The files are not read: that would count, too. What the runtime says in the log is waited for.
    let script = r#"
first_at=$(address cmdline_proc_show) second_at=$(address loadavg_proc_show)
first=$(kmem $first_at 16) second=$(kmem $second_at 16)
count() { dmesg | grep -c "lpbuild: low: $1" || true; }
said() { for turn in $(seq 200); do [ $(count "$1") -le $2 ] || return 0; sleep 0.02; done; return 1; }
round() {
    if ! insmod /low.ko mode=$mode deadline_ms=3000 fail_call=$n 2> /tmp/err; then
        [ ! -e /sys/module/low ] || fail "$mode $n: refused, but it stayed"
        how=refused
        return
    fi
    said 'applied ' 0 || fail "$mode $n: not applied"
    how=done
    for try in 1 2 3; do
        before=$(count LP5)
        echo 0 > /sys/kernel/lpbuild/low/enabled
        if said "\(reverted\|LP5\)" $before && [ $(count 'reverted ') = 1 ]; then break; fi
        how="repeated after $(dmesg | sed -n 's/.*low: \(LP5[0-9]*\).*/\1/p' | tail -1)"
    done
    for turn in $(seq 100); do rmmod low 2> /dev/null && return 0; sleep 0.02; done
    dmesg | tail -5
    fail "$mode $n: not reverted"
}
for mode in $modes; do
    n=0 missed=0
    while [ $missed = 0 ]; do
        n=$((n + 1))
        [ $n -lt 400 ] || fail "$mode: there is no end"
        dmesg -c > /dev/null
        round
        expect "$mode $n: site" "$first" "$(kmem $first_at 16)"
        expect "$mode $n: site" "$second" "$(kmem $second_at 16)"
        hit=$(dmesg | sed -n 's/.*made to fail: //p' | head -1)
        code=$(dmesg | sed -n 's/.*\(LP5[0-9]*\).*/\1/p' | head -1)
        if [ -n "$hit" ]; then echo "$mode $n $hit: $how $code"; else missed=1; fi
    done
    [ ! -e /sys/kernel/lpbuild ] || fail 'the folder of the patches is still there'
    # Every byte of the kernel's text.
    clean
    result calls_$mode $((n - 1))
done
"#;
    let run = passes(&bench.module_as("low", "low", &[SHORT, LOADAVG], &[TEST_HOOKS]).vm("faults", script));
    for mode in ["transition", "stop-machine", "drain"] {
        let calls = run.number(&format!("calls_{mode}")).unwrap();
        assert!(calls >= 10.0, "{mode}: only {calls} calls can fail");
    }
}
