//! The functions that a CPU runs before it has an IDT: an int3 in one of them resets the machine.
//!
//! Input: the calls of an image. Output: the closure from where a CPU comes in (arch/x86/kernel/head_64.S, smpboot.c) or comes back
//! from suspend (arch/x86/kernel/acpi/wakeup_64.S, arch/x86/power/cpu.c) until it has loaded one. Refused is an image in which it has no
//! end (LP3005).

use std::collections::BTreeMap;

use super::calls::{Called, Calls, Closure, Listed, Rules};
use crate::error::Problem;
use crate::symbolize::parent_name;

/// Everything these call.
const ROOTS: &[&str] = &[
    "secondary_startup_64",
    "secondary_startup_64_no_verify",
    "common_startup_64",
    "soft_restart_cpu",
    "start_cpu0",
    "wakeup_long64",
];

/// Of these, what is called up to the last of a set, that included: of the first set of which there is one. That is in the order of
/// the code, which the compiler keeps for calls, but for branches that are rarely taken; in none of these is one before the load.
const UNTIL: &[(&str, &[&[&str]])] = &[
    ("start_secondary", &[&["cpu_init_exception_handling", "cpu_init_secondary"], &["load_current_idt"]]),
    ("cpu_init_secondary", &[&["cpu_init_exception_handling"], &["load_current_idt"]]),
    ("restore_processor_state", &[&["__restore_processor_state"], LOADED, RESTORED]),
    ("__restore_processor_state", &[LOADED, RESTORED]),
];

const LOADED: &[&str] = &["native_load_idt", "cpu_init_fred_exceptions", "cpu_init_fred_rsps"];

/// Where the load itself is not a call, what comes behind it.
const RESTORED: &[&str] = &["fix_processor_context", "load_fixmap_gdt"];

/// What something there can call, but not then.
const APART: &[Listed] = &[
    ("do_trace_write_msr", "an event"),
    ("do_trace_read_msr", "an event"),
    ("preempt_schedule_notrace", "interrupts are off"),
    ("preempt_schedule_notrace_thunk", "interrupts are off"),
    ("preempt_schedule_thunk", "interrupts are off"),
    ("__SCT__preempt_schedule_notrace", "interrupts are off"),
    ("__SCT__preempt_schedule", "interrupts are off"),
    ("sev_es_terminate", "the end of the machine"),
];

/// More functions than a CPU can run until then: 39 of 6.1 cloud, 42 of 6.12 cloud.
const MOST: usize = 200;

/// All of them.
///
/// # Errors
/// LP3005 when there is no end to them.
pub(super) fn path(calls: &Calls<'_>) -> Result<Closure, Problem> {
    let mut first = calls.named(ROOTS);
    let mut alone = BTreeMap::new();
    for (name, until) in UNTIL {
        for step in calls.named(&[name]) {
            let all: Vec<_> = calls.calls(step.address).into_iter().filter_map(|to| calls.function(to)).collect();
            let end = until.iter().find_map(|set| all.iter().rposition(|(_, name)| set.contains(&parent_name(name))));
            // Without an end all of it is followed, and that is too much.
            for (address, callee) in all.iter().take(end.map_or(all.len(), |at| at + 1)) {
                first.push(Called { address: *address, name: callee.clone(), caller: Some(step.name.clone()) });
            }
            alone.insert(step.address, step);
        }
    }
    let rules = Rules { apart: &[APART], last: &[], most: MOST, what: "run by a CPU without an IDT" };
    let mut all = calls.closure(first, &rules, &alone)?;
    all.steps.extend(alone);
    Ok(all)
}
