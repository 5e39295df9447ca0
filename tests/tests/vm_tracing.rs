//! With tracers on everything that an int3 runs, a function that they run behind their guard is replaced: on the stock kernels, in
//! every mode, while it is hit all the time.
//!
//! The function begins a new page of the trace buffer. The new one counts a dropped event, which the statistics show.

use harness::edits::Edit;
use lpbuild_tests::bench::{Bench, passes};
use lpbuild_tests::on_both;

const MOVE_TAIL: Edit = (
    "kernel/trace/ring_buffer.c",
    "\tnext_page = tail_page;\n\n\trb_inc_page(&next_page);\n\n\t/*\n\t * If for some reason",
    "\tnext_page = tail_page;\n\tlocal_inc(&cpu_buffer->dropped_events);\n\n\trb_inc_page(&next_page);\n\n\t/*\n\t * If for some reason",
);

on_both! {
    what_a_tracer_guards_can_be_replaced_while_it_traces
}

fn what_a_tracer_guards_can_be_replaced_while_it_traces(series: &'static str) {
    let Some(bench) = Bench::find("what_a_tracer_guards_can_be_replaced_while_it_traces", series) else { return };
    let script = r#"
t=/sys/kernel/tracing
dropped() { cat $t/per_cpu/cpu*/stats | sed -n 's/^dropped events: //p' | { n=0; while read more; do n=$((n + more)); done; echo $n; }; }
# Tracepoints of what a kernel int3 runs are on too.
events() { for e in nmi notifier; do [ ! -d $t/events/$e ] || echo $1 > $t/events/$e/enable; done; }
for tracer in function_graph function; do
    echo $tracer > $t/current_tracer
    events 1
    echo 1 > $t/tracing_on
    grep -q . $t/trace || fail 'nothing is traced'
    for mode in drain stop-machine transition; do
        step "$tracer $mode"
        before=$(dropped)
        load ring mode=$mode deadline_ms=60000
        cat /proc/loadavg /proc/stat > /dev/null
        [ "$(dropped)" -gt $before ] || fail 'the new function does not run'
        unload ring
    done
    events 0
    echo nop > $t/current_tracer
done
before=$(dropped)
expect 'the old function counts' $before $(dropped)
clean
"#;
    // Whoever walks the stack of a task that an interrupt has stopped in `return_to_handler` has the kernel say so, once: its unwind
    // data are not those of every instruction there. The walk counts as unreliable, as it should.
    let said = "stack going in the wrong direction? at return_to_handler";
    passes(&bench.module("ring", &[MOVE_TAIL]).vm("tracing", script).allow(said));
}
