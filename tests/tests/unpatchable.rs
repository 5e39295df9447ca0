//! What of a stock kernel cannot be replaced: the way from an int3 to its handler is found in the image, and everything on it
//! is refused.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use harness::change::Change;
use harness::tree::Flags;
use lpbuild::accept::Accept;
use lpbuild::bind::{self, Blacklist};
use lpbuild::error::Problem;
use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline::{self};
use lpbuild::plan::Source;
use lpbuild_tests::Env;

/// Each of these is executed by an int3 of a site, or by an NMI before it may be interrupted by one.
const ON_THE_WAY: &[&str] = &[
    "asm_exc_int3",
    "exc_int3",
    "error_entry",
    "kprobe_int3_handler",
    "get_kprobe",
    "notify_die",
    "notifier_call_chain",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "rcu_read_unlock_special",
    "irqentry_nmi_enter",
    "ct_nmi_exit",
    "exc_nmi",
    "default_do_nmi",
    "nmi_handle",
    "__x86_return_thunk",
];

/// None of these is, although something on the way can call the first ones.
const APART: &[&str] = &[
    "do_trap",
    "die",
    "panic",
    "_printk",
    "__warn_printk",
    "irq_work_queue",
    "cmdline_proc_show",
    "seq_printf",
    "vfs_read",
    "tcp_sendmsg",
    "kmalloc_large",
    "__kmalloc_large_node",
    "try_to_wake_up",
    "raise_softirq",
];

/// Of the list that is kept by hand, what runs when an int3 is hit: found again in the image, where the kernel has it.
const BY_HAND: &[&str] = &[
    "asm_exc_int3",
    "exc_int3",
    "poke_int3_handler",
    "irqentry_nmi_enter",
    "irqentry_nmi_exit",
    "error_entry",
    "error_return",
    "kprobe_int3_handler",
    "notify_die",
    "notifier_call_chain",
    "ct_nmi_enter",
    "ct_nmi_exit",
    "__rcu_read_lock",
    "__rcu_read_unlock",
    "asm_exc_nmi",
    "exc_nmi",
    "default_do_nmi",
    "nmi_handle",
    "first_nmi",
    "__fentry__",
    "__x86_return_thunk",
];

/// Tracers run these with no guard, or before it.
const TRACED: &[&str] = &[
    "function_trace_call",
    "ftrace_return_to_handler",
    "trace_graph_return",
    "trace_clock_local",
    "tracing_gen_ctx_irq_test",
    "trace_event_raw_event_nmi_handler",
    "trace_event_buffer_lock_reserve",
    "__trace_trigger_soft_disabled",
    "perf_trace_nmi_handler",
    "perf_swevent_get_recursion_context",
    "__bpf_trace_nmi_handler",
    "bpf_trace_run3",
    "__bpf_prog_enter_recur",
    "migrate_disable",
    "update_prog_stats",
    "rethook_trampoline_handler",
    "kvm_sched_clock_read",
];

/// These behind a guard, or never for what an int3 runs.
const NOT_TRACED: &[&str] = &[
    "rb_move_tail",
    "filter_match_preds",
    "stack_trace_save",
    "trace_seq_printf",
    "print_trace_line",
    "ring_buffer_read_start",
    "event_hist_trigger",
    "trace_event_raw_event_sched_switch",
    "perf_event_overflow",
    "__set_cpus_allowed_ptr",
    "call_rcu",
    "bpf_prog_put",
    "register_ftrace_function",
];

/// A CPU runs these while an int3 resets the machine.
const BEFORE_IDT: &[&str] = &[
    "secondary_startup_64",
    "early_setup_idt",
    "start_secondary",
    "cr4_init",
    "cr4_set_bits",
    "cpu_init_exception_handling",
    "get_cpu_entry_area",
    "native_load_tr_desc",
    "load_direct_gdt",
    "load_current_idt",
    "wakeup_long64",
    "restore_processor_state",
    "native_write_cr4",
];

/// These behind that.
const BEHIND_IDT: &[&str] = &[
    "cpu_init",
    "smp_store_cpu_info",
    "calibrate_delay",
    "notify_cpu_starting",
    "set_cpu_sibling_map",
    "perf_restore_debug_store",
    "initialize_tlbstate_and_flush",
    "load_mm_ldt",
    "save_processor_state",
    "do_trace_write_msr",
];

fn check(test: &str, series: &str) {
    let Some(env) = Env::find_series(test, series) else { return };
    let kernel = KernelImage::open(&env.kernel.vmlinuz).unwrap();
    let all = bind::unpatchable(&kernel).unwrap();
    let why: BTreeMap<&str, &str> = all.iter().map(|u| (&*u.name, &*u.why)).collect();
    let way: BTreeSet<&str> = all
        .iter()
        .filter(|u| u.why.contains("the way from an int3") || u.why.starts_with("an int3 or an NMI begins"))
        .map(|u| &*u.name)
        .collect();
    for name in ON_THE_WAY.iter().chain(BY_HAND) {
        assert!(way.contains(name), "{name} is not on the way: {:?}", why.get(name));
    }
    for name in APART {
        assert!(!way.contains(name), "{name}: {:?}", why.get(name));
    }
    // All of it is little: a call that leads away from it would bring half of the kernel.
    assert!((30..150).contains(&way.len()), "{} functions: {way:?}", way.len());
    assert!(way.contains("hw_breakpoint_exceptions_notify"));
    for (begin, inside, outside, most) in [
        ("tracers run it on what an int3 runs", TRACED, NOT_TRACED, 250),
        ("a CPU that comes runs it before it has an IDT", BEFORE_IDT, BEHIND_IDT, 100),
    ] {
        let class: BTreeSet<&str> = all.iter().filter(|u| u.why.starts_with(begin)).map(|u| &*u.name).collect();
        for name in inside {
            // What a kernel does not have, or another reason has already.
            let there = kernel.kallsyms().named(name).next().is_some();
            assert!(!there || class.contains(name) || way.contains(name), "{name}: {:?}", why.get(name));
        }
        for name in outside {
            assert!(!class.contains(name), "{name}: {:?}", why.get(name));
        }
        assert!((30..most).contains(&class.len()), "{}: {class:?}", class.len());
    }
    // The probes of a tracepoint on the way are those of its class.
    if series == "6.12" {
        for name in ["trace_event_raw_event_notifier_info", "perf_trace_notifier_info", "__bpf_trace_notifier_info"] {
            assert!(why.get(name).is_some_and(|w| w.starts_with("tracers")), "{name}: {:?}", why.get(name));
        }
    }
    assert!(why.contains_key("__cpuidle_text_start"), "the area of idle code is not listed");
    // Where RCU does not watch, nobody waits for an idle task.
    for name in ["default_idle", "acpi_idle_enter", "poll_idle"] {
        assert!(
            why.get(name).is_some_and(|w| w.contains("idle task") || w.contains("noinstr")),
            "{name}: {:?}",
            why.get(name)
        );
    }
    // And each is refused, the list by hand included.
    let black = Blacklist::of(&kernel).unwrap();
    for u in &all {
        assert!(black.why(u.address, 1).is_some(), "{} is listed and not refused", u.name);
    }
    for name in bind::BY_HAND.iter().flat_map(|(names, _)| names.iter()) {
        for symbol in kernel.kallsyms().named(name).filter(|s| s.is_text()) {
            assert!(black.why(symbol.addr, 1).is_some(), "{name} is not refused");
        }
    }
}

#[test]
fn the_way_from_an_int3_to_its_handler_in_6_1() {
    check("the_way_from_an_int3_to_its_handler_in_6_1", "6.1");
}

#[test]
fn the_way_from_an_int3_to_its_handler_in_6_12() {
    check("the_way_from_an_int3_to_its_handler_in_6_12", "6.12");
}

/// A change of a function that no list has, in a header of one object.
#[test]
fn a_change_on_the_way_is_refused() {
    let test = "a_change_on_the_way_is_refused";
    for series in ["6.1", "6.12"] {
        let Some(env) = Env::find_series(test, series) else { return };
        let kernel = KernelImage::open(&env.kernel.vmlinuz).unwrap();
        let (file, from) = ("kernel/rcu/tree_plugin.h", "manipulate state. */\n\tif (in_nmi())");
        let to = "manipulate state. */\n\tif (in_nmi() || !t)";
        let change = Change::none().edit(&env.kernel.old_source(), file, from, to).unwrap();
        let pair = env
            .tree
            .pair_of(&["kernel/rcu/tree.o".to_owned()], &change, Flags::Plain)
            .unwrap_or_else(|e| panic!("{e:#}"));
        let sources: Vec<Source> = pair
            .objects
            .iter()
            .map(|object| {
                let (old, new) = pair.files(object);
                let (a, b) = (std::fs::read(&old).unwrap(), std::fs::read(&new).unwrap());
                Source {
                    name: object.clone(),
                    old_path: old,
                    new_path: new,
                    old: a,
                    new: b,
                    holder: HolderName::Vmlinux,
                }
            })
            .collect();
        let mut options = support::options();
        // Objects that inline it are not at hand.
        options.accept.add(Accept::Inline, "rcu_read_unlock_special");
        let mut analysis = pipeline::analyse(&sources, &options).unwrap();
        let bound = pipeline::produce(&mut analysis, Some(&kernel), &options);
        let refused = bound.err().map(|e| e.problems).unwrap_or_default();
        let found = |p: &Problem| p.code.id == "LP2007" && p.detail.contains("__rcu_read_unlock calls it");
        assert!(refused.iter().any(found), "{series}: {refused:?}");
    }
}

/// The loader would write to a key that is read-only, where the kernel does not seal it.
#[test]
fn a_jump_of_a_read_only_key_is_refused() {
    for (series, expected) in [("6.1", true), ("6.12", false)] {
        let Some(env) = Env::find_series("a_jump_of_a_read_only_key_is_refused", series) else { return };
        let kernel = KernelImage::open(&env.kernel.vmlinuz).unwrap();
        let (from, to) = ("/* Skip all tests if size is zero. */\n\tif (!n)", "if (!n || n == 0x7777777777)");
        let change = Change::none().edit(&env.kernel.old_source(), "mm/usercopy.c", from, to).unwrap();
        let object = "mm/usercopy.o".to_owned();
        let pair = env.tree.pair_of(&[object], &change, Flags::Plain).unwrap_or_else(|e| panic!("{e:#}"));
        let source = |object: &String| {
            let (old, new) = pair.files(object);
            let (a, b) = (std::fs::read(&old).unwrap(), std::fs::read(&new).unwrap());
            Source { name: object.clone(), old_path: old, new_path: new, old: a, new: b, holder: HolderName::Vmlinux }
        };
        let sources: Vec<Source> = pair.objects.iter().map(source).collect();
        let options = support::options();
        let mut analysis = pipeline::analyse(&sources, &options).unwrap();
        let bound = pipeline::produce(&mut analysis, Some(&kernel), &options);
        let refused = bound.err().map(|e| e.problems).unwrap_or_default();
        let found = refused.iter().any(|p| p.code.id == "LP2025" && p.detail.contains("bypass_usercopy_checks"));
        assert_eq!((found, refused.is_empty()), (expected, !expected), "{series}: {refused:?}");
    }
}
