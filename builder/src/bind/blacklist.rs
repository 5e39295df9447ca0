//! Code of the image that must not be replaced: what kprobes refuses, and what carries out the switch itself.
//!
//! Sources: kernel/kprobes.c (populate_kprobe_blacklist), arch/x86/kernel/kprobes/core.c, include/asm-generic/sections.h.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use lpbuild_abi as abi;

use super::calls::{Calls, Closure};
use super::resolve::by_name;
use super::{bringup, int3, tracing};
use crate::error::Problem;
use crate::kernel::KernelImage;

/// Address ranges with the reason.
#[derive(Debug)]
pub struct Blacklist {
    ranges: Vec<(u64, u64, &'static str)>,
    functions: BTreeMap<u64, Cow<'static, str>>,
}

/// Code of an image that must not be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpatchable {
    /// A function, or what an area is called.
    pub name: String,
    /// Where it is, at link time.
    pub address: u64,
    /// Why.
    pub why: Cow<'static, str>,
}

const AREAS: &[(&str, &str, &str)] = &[
    ("__entry_text_start", "__entry_text_end", "it is entry code"),
    ("__noinstr_text_start", "__noinstr_text_end", "it is noinstr code"),
    ("__kprobes_text_start", "__kprobes_text_end", "it is in .kprobes.text"),
    ("__irqentry_text_start", "__irqentry_text_end", "it is interrupt entry code"),
    ("__cpuidle_text_start", "__cpuidle_text_end", IDLE),
];

/// Sections of a module that kprobes refuses as a whole.
const MODULE_AREAS: &[(&str, &str)] = &[
    (".noinstr.text", "it is noinstr code"),
    (".kprobes.text", "it is in .kprobes.text"),
    (".entry.text", "it is entry code"),
];

/// `synchronize_rcu_tasks` does not wait for an idle task that is where RCU does not watch, so that it may stand in the bytes that
/// change, or read a table that is freed.
const IDLE: &str = "the idle task runs it where RCU does not watch (ct_idle_enter)";

/// What enters an idle state, in kernels that have it in ordinary text (drivers/acpi/processor_idle.c, drivers/idle/intel_idle.c,
/// drivers/cpuidle/poll_state.c, arch/x86/kernel/process.c, arch/x86/kernel/acpi/cstate.c).
const ENTER_IDLE: &[&str] = &[
    "acpi_idle_do_entry",
    "acpi_idle_enter",
    "acpi_idle_enter_bm",
    "acpi_idle_enter_s2idle",
    "acpi_idle_lpi_enter",
    "acpi_idle_play_dead",
    "acpi_processor_ffh_cstate_enter",
    "acpi_processor_ffh_lpi_enter",
    "cpuidle_poll_time",
    "default_enter_idle",
    "default_idle",
    "intel_idle",
    "intel_idle_hlt",
    "intel_idle_hlt_irq_on",
    "intel_idle_ibrs",
    "intel_idle_irq",
    "intel_idle_s2idle",
    "intel_idle_xstate",
    "mwait_idle",
    "poll_idle",
];

/// The least of what tracers and events run for each function they follow, before they notice that they are in themselves
/// (kernel/trace/{trace_functions,trace_functions_graph,fgraph,trace,ring_buffer}.c); [`tracing`] finds it in the image.
const TRACING: &[&str] = &[
    "__ftrace_return_to_handler",
    "__trace_buffer_lock_reserve",
    "__trace_graph_entry",
    "__trace_graph_return",
    "ftrace_graph_func",
    "ftrace_return_to_handler",
    "function_graph_enter",
    "function_graph_enter_regs",
    "function_no_repeats_trace_call",
    "function_stack_no_repeats_trace_call",
    "function_stack_trace_call",
    "function_trace_call",
    "prepare_ftrace_return",
    "ring_buffer_lock_reserve",
    "ring_buffer_unlock_commit",
    "trace_buffer_unlock_commit_nostack",
    "trace_buffer_unlock_commit_regs",
    "trace_event_buffer_commit",
    "trace_event_buffer_lock_reserve",
    "trace_event_buffer_reserve",
    "trace_function",
    "trace_graph_entry",
    "trace_graph_return",
];

/// The least of what a CPU that comes runs before it has an IDT (start_secondary, arch/x86/kernel/smpboot.c;
/// cpu_init_exception_handling, arch/x86/kernel/cpu/common.c); [`bringup`] finds it in the image.
const BEFORE_IDT: &[&str] = &[
    "start_secondary",
    "ap_starting",
    "cr4_init",
    "cpu_init_exception_handling",
    "cpu_init_fred_exceptions",
    "load_ucode_ap",
    "load_ucode_amd_ap",
    "load_ucode_intel_ap",
    "load_direct_gdt",
    "load_fixmap_gdt",
    "switch_gdt_and_percpu_base",
    "switch_to_new_gdt",
    "setup_getcpu",
    "tss_setup_ist",
    "tss_setup_io_bitmap",
    "load_current_idt",
    "setup_ghcb",
    "x86_configure_nx",
];

/// The lists kept by hand, with the reason: the least that is refused, whatever the image shows.
pub const BY_HAND: &[(&[&str], &str)] = &[
    (abi::UNPATCHABLE, "the runtime or the int3 handler depends on it while it switches"),
    (ENTER_IDLE, IDLE),
    (BEFORE_IDT, BEFORE),
    (TRACING, TRACED),
];

const BEFORE: &str = "a CPU that comes runs it before it has an IDT";
const TRACED: &str = "tracers run it on what an int3 runs";

impl Blacklist {
    /// The lists of an image.
    ///
    /// # Errors
    /// LP3005 when the image does not show what an int3 runs.
    pub fn of(kernel: &KernelImage) -> Result<Arc<Self>, Problem> {
        let read: Arc<Result<Arc<Self>, Problem>> = kernel.derived(|| Self::read(kernel).map(Arc::new));
        Result::clone(&read)
    }

    fn read(kernel: &KernelImage) -> Result<Self, Problem> {
        let mut ranges = Vec::new();
        for (start, end, why) in AREAS {
            if let (Some(a), Some(b)) = (by_name(kernel, start), by_name(kernel, end)) {
                ranges.extend((a < b).then_some((a, b, *why)));
            }
        }
        let mut functions: BTreeMap<u64, Cow<'static, str>> = BTreeMap::new();
        if let (Some(a), Some(b)) =
            (by_name(kernel, "__start_kprobe_blacklist"), by_name(kernel, "__stop_kprobe_blacklist"))
        {
            let len = usize::try_from(b.saturating_sub(a)).unwrap_or(0);
            for entry in kernel.read(a, len).unwrap_or(&[]).chunks_exact(8) {
                let address = entry.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                functions.insert(address, "it is on the kprobe blacklist".into());
            }
        }
        // Clones (.isra, .constprop, .part, .cold) of a listed function are as much in the way as the function.
        for (names, why) in BY_HAND {
            for symbol in kernel.kallsyms().families(names).into_iter().filter(|s| s.is_text()) {
                functions.insert(symbol.addr, (*why).into());
            }
        }
        let calls = Calls::of(kernel)?;
        // The most urgent reason is written last.
        let way = int3::path(kernel, &calls)?;
        let mut add = |closure: Closure, first: &str, then: &str| {
            for step in closure.steps.into_values() {
                let why = step.caller.map_or_else(|| first.to_owned(), |by| format!("{then}: {by} calls it"));
                functions.insert(step.address, why.into());
            }
        };
        add(tracing::path(kernel, &calls, &way)?, TRACED, TRACED);
        add(bringup::path(&calls)?, BEFORE, BEFORE);
        add(way, "an int3 or an NMI begins with it", "it is on the way from an int3 to its handler");
        Ok(Self { ranges, functions })
    }

    /// The lists of a module: what kprobes refuses in it (add_module_kprobe_blacklist, kernel/kprobes.c). No way from an int3 to
    /// its handler leads through a module.
    pub fn of_module(module: &KernelImage) -> Self {
        let ranges = MODULE_AREAS.iter().filter_map(|(name, why)| {
            let range = module.section_named(name)?.range();
            Some((range.start, range.end, *why))
        });
        let listed = module.section_named("_kprobe_blacklist").map_or(&[][..], |s| &s.data);
        let functions = listed.chunks_exact(8).map(|entry| {
            let address = entry.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
            (address, Cow::Borrowed("it is on the kprobe blacklist"))
        });
        Self { ranges: ranges.collect(), functions: functions.collect() }
    }

    /// Why `[address, address + size)` must not be replaced, if so.
    pub fn why(&self, address: u64, size: u64) -> Option<&str> {
        let end = address.wrapping_add(size.max(1));
        let listed = self.functions.range(address..end).next().map(|(_, why)| &**why);
        listed.or_else(|| self.ranges.iter().find(|(a, b, _)| address < *b && end > *a).map(|r| r.2))
    }

    /// All of it: the areas, then the functions, by address.
    pub fn list(&self, kernel: &KernelImage) -> Vec<Unpatchable> {
        let area = |(start, _, why): &(u64, u64, &'static str)| {
            let name = AREAS.iter().find(|a| a.2 == *why).map_or("", |a| a.0);
            Unpatchable { name: name.to_owned(), address: *start, why: Cow::Borrowed(*why) }
        };
        let function = |(address, why): (&u64, &Cow<'static, str>)| {
            let name = kernel.kallsyms().at(*address).first().map(|s| s.name.to_string()).unwrap_or_default();
            Unpatchable { name, address: *address, why: why.clone() }
        };
        self.ranges.iter().map(area).chain(self.functions.iter().map(function)).collect()
    }
}
