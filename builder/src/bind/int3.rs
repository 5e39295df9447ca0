//! The functions between an int3 and its handler, found in the image: an int3 on one of them never gets to the handler, or
//! comes again on the way back, until the stack is used up.
//!
//! Input: the calls of an image. Output: the closure from the entries of int3 and NMI. Refused is an image that does not show it: a
//! beginning is missing, or it has no end (LP3005).
//! The notifier of the runtime ends its chain (c/kernel.c) and has the highest priority; only those that have it as well and
//! were there before are called through `notifier_call_chain`. What an int3 of a site in the kernel does not get to, although
//! something on its way can call it, is in a table with the reason ([`APART`]).

use std::collections::BTreeMap;

use super::calls::{Calls, Closure, Listed, Rules, lacks};
use crate::error::Problem;
use crate::kernel::KernelImage;
use crate::symbolize::parent_name;

/// Where the CPU begins (arch/x86/entry/entry_64.S), and the C behind it, which some kernels reach by a pointer only.
const ROOTS: &[&str] = &[
    "asm_exc_int3",
    "exc_int3",
    "notify_die",
    "notifier_call_chain",
    "asm_exc_nmi",
    "asm_exc_nmi_noist",
    "exc_nmi",
    "exc_nmi_noist",
    "nmi_handle",
    // In the same chain as the runtime, with the highest priority there is, and there before it (kernel/notifier.c,
    // notifier_chain_register).
    "hw_breakpoint_exceptions_notify",
    "kprobe_exceptions_notify",
];

/// Those that every kernel has.
const ALWAYS: &[&str] = &["exc_int3", "notify_die", "exc_nmi"];

/// Functions that something on the way calls, but not for an int3 of a site in the kernel.
pub(super) const APART: &[Listed] = &[
    // In the kernel, exc_int3 counts as an NMI (irqentry_nmi_enter).
    ("__rcu_irq_enter_check_tick", "ct_nmi_enter calls it outside of NMIs only (kernel/context_tracking.c)"),
    ("preempt_schedule_notrace", "nothing is preempted in an NMI"),
    ("preempt_schedule_notrace_thunk", "nothing is preempted in an NMI"),
    ("preempt_schedule_thunk", "nothing is preempted in an NMI"),
    ("__SCT__preempt_schedule_notrace", "nothing is preempted in an NMI"),
    ("__SCT__preempt_schedule", "nothing is preempted in an NMI"),
    // An int3 of user mode, or of somebody else.
    ("irqentry_enter_from_user_mode", "an int3 of user mode"),
    ("irqentry_exit_to_user_mode", "an int3 of user mode"),
    ("do_int3_user", "an int3 of user mode"),
    ("fixup_bad_iret", "a return to user mode that failed"),
    ("do_trap", "an int3 that is nobody's"),
    ("die", "an int3 that is nobody's"),
    ("kgdb_ll_trap", "an int3 of the debugger"),
    ("setup_singlestep", "an int3 of a kprobe (arch/x86/kernel/kprobes/core.c)"),
    ("reenter_kprobe", "an int3 of a kprobe"),
    // A report of the hardware.
    ("___ratelimit", "whether there is to be a message (kernel/nmi.c, nmi_check_duration)"),
    ("irq_work_queue", "for a message later (kernel/nmi.c, nmi_check_duration)"),
    ("run_crash_ipi_callback", "the machine is being stopped"),
    ("unknown_nmi_error", "a report of the hardware"),
    ("pci_serr_error", "a report of the hardware"),
    ("io_check_error", "a report of the hardware"),
];

/// Functions on the way that return before they call anything.
const LAST: &[Listed] = &[
    ("rcu_read_unlock_special", "it returns at once in an NMI (kernel/rcu/tree_plugin.h)"),
    ("hw_breakpoint_exceptions_notify", "it returns at once unless for DIE_DEBUG (arch/x86/kernel/hw_breakpoint.c)"),
    ("kprobe_exceptions_notify", "it returns at once unless for DIE_GPF (arch/x86/kernel/kprobes/core.c)"),
];

/// More functions than any way from an int3 to a handler has.
const MOST: usize = 400;

/// All of them.
///
/// # Errors
/// LP3005 when the image does not show them.
pub(super) fn path(kernel: &KernelImage, calls: &Calls<'_>) -> Result<Closure, Problem> {
    let first = calls.named(ROOTS);
    for name in ALWAYS {
        if !first.iter().any(|step| parent_name(&step.name) == *name) {
            return Err(lacks(kernel, name, "an int3 begins in it, and kallsyms does not have it"));
        }
    }
    let rules = Rules { apart: &[APART], last: LAST, most: MOST, what: "on the way from an int3 to its handler" };
    calls.closure(first, &rules, &BTreeMap::new())
}
