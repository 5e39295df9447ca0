//! The functions that tracers run for what an int3 runs, before they notice that they are in themselves: with a tracer on something of
//! that way ([`super::int3`]), an int3 in one of these comes again and again.
//!
//! Input: the calls of an image and the way from an int3. Output: the closure from what ftrace, kprobes, BPF and the tracepoints of
//! the way call. Refused is an image in which it has no end (LP3005).
//! A kernel int3 is an NMI for all guards (`irqentry_nmi_enter`), so what is behind a guard runs once, and once more for a transition
//! (`trace_test_and_set_recursion`, include/linux/trace_recursion.h). What a guard holds back is in tables with the guard.

use super::calls::{Called, Calls, Closure, Listed, Rules};
use super::int3;
use super::resolve::by_name;
use crate::error::Problem;
use crate::kernel::{KernelImage, KernelSymbol};

/// What a traced function calls at its beginning or its end (`ftrace_ops::func`, `fgraph_ops`, rethook, the trampolines of BPF), and
/// what those call by a pointer.
const ROOTS: &[&str] = &[
    // kernel/trace/ftrace.c
    "arch_ftrace_ops_list_func",
    "ftrace_ops_list_func",
    "ftrace_ops_no_ops",
    "ftrace_ops_assist_func",
    "call_direct_funcs",
    "function_profile_call",
    "function_trace_probe_call",
    "profile_graph_return",
    // kernel/trace/trace_functions.c, trace_irqsoff.c, trace_sched_wakeup.c, trace_stack.c, trace_event_perf.c
    "function_trace_call",
    "function_stack_trace_call",
    "function_no_repeats_trace_call",
    "function_stack_no_repeats_trace_call",
    "irqsoff_tracer_call",
    "wakeup_tracer_call",
    "stack_trace_call",
    "perf_ftrace_function_call",
    "rcu_is_watching",
    // Commands of set_ftrace_filter, which function_trace_probe_call calls.
    "ftrace_traceon",
    "ftrace_traceon_count",
    "ftrace_traceoff",
    "ftrace_traceoff_count",
    "ftrace_stacktrace",
    "ftrace_stacktrace_count",
    "ftrace_snapshot",
    "ftrace_count_snapshot",
    "event_enable_probe",
    "event_enable_count_probe",
    // The graph tracer: kernel/trace/fgraph.c, trace_functions_graph.c, arch/x86/kernel/ftrace.c.
    "ftrace_graph_func",
    "prepare_ftrace_return",
    "ftrace_return_to_handler",
    "trace_graph_return",
    "trace_graph_thresh_return",
    "irqsoff_graph_return",
    "wakeup_graph_return",
    // kernel/kprobes.c, kernel/trace/rethook.c, fprobe.c, bpf_trace.c, arch/x86/kernel/kprobes/opt.c
    "kprobe_ftrace_handler",
    "optimized_callback",
    "arch_rethook_trampoline_callback",
    "rethook_trampoline_handler",
    "kretprobe_rethook_handler",
    "trampoline_handler",
    "fprobe_handler",
    "fprobe_kprobe_handler",
    "fprobe_exit_handler",
    "kprobe_multi_link_exit_handler",
    // kernel/livepatch/patch.c
    "klp_ftrace_handler",
    // kernel/bpf/trampoline.c. Sleepable programs hang on functions that may sleep, and nothing on the way does.
    "__bpf_tramp_enter",
    "__bpf_tramp_exit",
    "__bpf_prog_enter",
    "__bpf_prog_exit",
    "__bpf_prog_enter_recur",
    "__bpf_prog_exit_recur",
    // Commands of an event's trigger, without its record (__trace_trigger_soft_disabled): kernel/trace/trace_events_trigger.c.
    "traceon_trigger",
    "traceon_count_trigger",
    "traceoff_trigger",
    "traceoff_count_trigger",
    "stacktrace_trigger",
    "stacktrace_count_trigger",
    "snapshot_trigger",
    "snapshot_count_trigger",
    "event_enable_trigger",
    "event_enable_count_trigger",
];

const TRYLOCK: &str = "it begins with ftrace_test_recursion_trylock";
const DISABLED: &str = "it counts trace_array_cpu.disabled up first";
const RECURSIVE: &str = "the ring buffer's own guard (trace_recursive_lock, kernel/trace/ring_buffer.c)";

/// What asks a guard before it calls anything.
const LAST: &[Listed] = &[
    ("arch_ftrace_ops_list_func", TRYLOCK),
    ("ftrace_ops_list_func", TRYLOCK),
    ("ftrace_ops_no_ops", TRYLOCK),
    ("ftrace_ops_assist_func", TRYLOCK),
    ("function_trace_call", TRYLOCK),
    ("function_no_repeats_trace_call", TRYLOCK),
    ("prepare_ftrace_return", TRYLOCK),
    ("kprobe_ftrace_handler", TRYLOCK),
    ("fprobe_handler", TRYLOCK),
    ("fprobe_kprobe_handler", TRYLOCK),
    ("klp_ftrace_handler", TRYLOCK),
    ("perf_ftrace_function_call", TRYLOCK),
    ("function_stack_trace_call", DISABLED),
    ("function_stack_no_repeats_trace_call", DISABLED),
    ("irqsoff_tracer_call", DISABLED),
    ("wakeup_tracer_call", DISABLED),
    ("trace_graph_return", DISABLED),
    ("irqsoff_graph_return", DISABLED),
    ("wakeup_graph_return", DISABLED),
    ("stack_trace_call", "one at a time on a CPU (disable_stack_tracer)"),
    ("optimized_callback", "one probe at a time on a CPU (kprobe_running)"),
    ("ring_buffer_lock_reserve", RECURSIVE),
    ("ring_buffer_write", RECURSIVE),
    ("ring_buffer_unlock_commit", RECURSIVE),
    ("ring_buffer_discard_commit", RECURSIVE),
    ("__ftrace_trace_stack", "at most four times on a CPU (ftrace_stack_reserve)"),
    ("perf_trace_run_bpf_submit", "its caller has the recursion context of perf (perf_trace_buf_alloc)"),
    ("perf_tp_event", "its caller has the recursion context of perf (perf_trace_buf_alloc)"),
    ("kprobe_multi_link_prog_run", "one program at a time on a CPU (bpf_prog_active)"),
];

/// What is called behind a guard of the caller, or not at all.
const APART: &[Listed] = &[
    ("output_printk", "a message, while the record is held"),
    ("filter_match_preds", "the record is held: trace_buffered_event_cnt, then the ring buffer's guard"),
    ("static_key_enable", "the graph tracer is broken (ftrace_graph_stop)"),
    ("call_rcu", "a node of a rethook that is taken away (rethook_recycle)"),
    ("task_rq_lock", "a task that was to move meanwhile (migrate_enable), and an NMI is not scheduled"),
    ("__set_cpus_allowed_ptr", "a task that was to move meanwhile (migrate_enable), and an NMI is not scheduled"),
    (
        "__set_cpus_allowed_ptr_locked",
        "a task that was to move meanwhile (migrate_enable), and an NMI is not scheduled",
    ),
    ("_raw_spin_lock_irqsave", "an NMI takes no lock but for a message (output_printk), while the record is held"),
    ("_raw_spin_unlock_irqrestore", "as the lock"),
    ("trace_seq_putc", "a message (output_printk), while the record is held"),
    ("ct_irq_enter_irqson", "not in an NMI (__trace_stack)"),
    ("ct_irq_exit_irqson", "not in an NMI (__trace_stack)"),
    ("update_max_tr", "there is no snapshot in an NMI (tracing_snapshot_instance_cond)"),
    ("ftrace_trace_userstack", "not in an NMI"),
    ("stack_trace_save_user", "not in an NMI (ftrace_trace_userstack)"),
];

/// More functions than tracers can run for it: 123 of 6.1 cloud, 129 of 6.12 cloud.
const MOST: usize = 600;

/// All of them, without those of the way itself.
///
/// # Errors
/// LP3005 when there is no end to them.
pub(super) fn path(kernel: &KernelImage, calls: &Calls<'_>, way: &Closure) -> Result<Closure, Problem> {
    let rules =
        Rules { apart: &[int3::APART, APART], last: LAST, most: MOST, what: "run by tracers of what an int3 runs" };
    let mut all = Closure { steps: Default::default(), tracepoints: way.tracepoints.clone() };
    // What tracers run may have tracepoints of its own.
    loop {
        let mut first = calls.named(ROOTS);
        first.extend(all.tracepoints.iter().flat_map(|name| probes(kernel, calls, name)));
        let found = calls.closure(first, &rules, &way.steps)?;
        let known = all.tracepoints.len();
        all.tracepoints.extend(found.tracepoints);
        all.steps = found.steps;
        if all.tracepoints.len() == known {
            return Ok(all);
        }
    }
}

/// What a tracepoint can call: its iterator, and the probes of its event: those of its class, which the image tells (`struct
/// trace_event_call`, include/linux/trace_events.h: a list, then the class; there a name, then the probes of ftrace and perf; `struct
/// bpf_raw_event_map`, include/linux/tracepoint-defs.h: the tracepoint, then BPF's). Where it does not name its data, those of all events.
fn probes(kernel: &KernelImage, calls: &Calls<'_>, name: &str) -> Vec<Called> {
    let pointer = |at: u64| kernel.read(at, 8)?.try_into().ok().map(u64::from_le_bytes);
    let mut all = calls.named(&[&format!("__traceiter_{name}")]);
    let class = by_name(kernel, &format!("event_{name}")).and_then(|event| pointer(event + 16));
    let bpf = by_name(kernel, &format!("__bpf_trace_tp_map_{name}")).map(|map| map + 8);
    for (begin, at) in [
        ("trace_event_raw_event_", class.map(|c| c + 8)),
        ("perf_trace_", class.map(|c| c + 16)),
        ("__bpf_trace_", bpf),
    ] {
        let of = |s: &&KernelSymbol| s.is_text() && s.name.starts_with(begin);
        let told = at.and_then(pointer).and_then(|probe| kernel.kallsyms().at(probe).iter().find(of));
        match told {
            Some(symbol) => all.push(Called::first(symbol)),
            None => all.extend(kernel.kallsyms().beginning(begin).into_iter().filter(of).map(Called::first)),
        }
    }
    all
}
