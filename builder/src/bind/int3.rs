//! The functions between an int3 and its handler, found in the image: an int3 on one of them never gets to the handler, or
//! comes again on the way back, until the stack is used up.
//!
//! Input: an image. Output: the closure of calls and jumps from the entries of int3 and NMI, with who calls each. Refused is an
//! image that does not show it: a beginning is missing, the alternatives cannot be read, or it has no end (LP3005).
//! Followed are direct calls and jumps, those of the replacements of alternatives, and the pointers of calls through `pv_ops`.
//! The notifier of the runtime ends its chain (c/kernel.c) and has the highest priority; only those that have it as well and
//! were there before are called through `notifier_call_chain`. What an int3 of a site in the kernel does not get to, although something on its way can call it, is in
//! a table with the reason ([`APART`]).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::isa::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use super::resolve::by_name;
use crate::codes;
use crate::error::{Place, Problem};
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
const APART: &[(&str, &str)] = &[
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
    // The end of the machine, or a report of its hardware.
    ("__stack_chk_fail", "the kernel is broken"),
    ("panic", "the kernel is broken"),
    ("nmi_panic", "the kernel is broken"),
    ("__warn_printk", "a warning"),
    ("_printk", "a message"),
    ("printk", "a message"),
    ("_printk_deferred", "a message"),
    ("___ratelimit", "whether there is to be a message (kernel/nmi.c, nmi_check_duration)"),
    ("irq_work_queue", "for a message later (kernel/nmi.c, nmi_check_duration)"),
    ("run_crash_ipi_callback", "the machine is being stopped"),
    ("unknown_nmi_error", "a report of the hardware"),
    ("pci_serr_error", "a report of the hardware"),
    ("io_check_error", "a report of the hardware"),
];

/// Functions on the way that return before they call anything.
const LAST: &[(&str, &str)] = &[
    ("rcu_read_unlock_special", "it returns at once in an NMI (kernel/rcu/tree_plugin.h)"),
    ("hw_breakpoint_exceptions_notify", "it returns at once unless for DIE_DEBUG (arch/x86/kernel/hw_breakpoint.c)"),
    ("kprobe_exceptions_notify", "it returns at once unless for DIE_GPF (arch/x86/kernel/kprobes/core.c)"),
];

/// Beginnings of names that are apart as well: tracepoints, and what hangs on them is not known.
const TRACEPOINTS: &[&str] = &["__SCT__tp_func_", "__traceiter_"];

/// More functions than any way from an int3 to a handler has: a call that leads out of it is missing in [`APART`].
const MOST: usize = 400;

/// One function on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is, at link time.
    pub address: u64,
    /// Its name in kallsyms.
    pub name: String,
    /// Who calls it; nothing for where the CPU begins.
    pub caller: Option<String>,
}

/// All of them, by address.
///
/// # Errors
/// LP3005 when the image does not show them.
pub fn path(kernel: &KernelImage) -> Result<Vec<Step>, Problem> {
    let lacks = |what: &str, why: &str| Problem::new(codes::LP3005, Place::symbol(kernel.name(), what), why);
    let text = by_name(kernel, "_stext").unwrap_or(0)..by_name(kernel, "_etext").unwrap_or(u64::MAX);
    let Some(replacements) = replacements(kernel) else {
        let why = "the table of alternatives is not of a known form, so what an int3 runs cannot be found";
        return Err(lacks("__alt_instructions", why));
    };
    let walk = Walk { kernel, text, replacements, pv_ops: pv_ops(kernel) };
    let mut found: BTreeMap<u64, Step> = BTreeMap::new();
    let mut waiting = VecDeque::new();
    // Clones (`nmi_handle.part.0`) begin on their own as well.
    for symbol in kernel.kallsyms().iter().filter(|s| s.is_text() && ROOTS.contains(&parent_name(&s.name))) {
        let step = Step { address: symbol.addr, name: symbol.name.to_string(), caller: None };
        if found.insert(symbol.addr, step).is_none() {
            waiting.push_back(symbol.addr);
        }
    }
    for name in ALWAYS {
        if !found.values().any(|step| parent_name(&step.name) == *name) {
            return Err(lacks(name, "an int3 begins in it, and kallsyms does not have it"));
        }
    }
    while let Some(address) = waiting.pop_front() {
        let name = found[&address].name.clone();
        if listed(LAST, &name) {
            continue;
        }
        for to in walk.calls(address) {
            let Some((to, callee)) = walk.function(to) else { continue };
            if listed(APART, &callee) || TRACEPOINTS.iter().any(|begin| callee.starts_with(begin)) {
                continue;
            }
            found.entry(to).or_insert_with(|| {
                waiting.push_back(to);
                Step { address: to, name: callee, caller: Some(name.clone()) }
            });
        }
        if found.len() > MOST {
            let why = format!("more than {MOST} functions seem to run on an int3: {name} leads away from it");
            return Err(lacks("exc_int3", &why));
        }
    }
    Ok(found.into_values().collect())
}

fn listed(table: &[(&str, &str)], name: &str) -> bool {
    table.iter().any(|(listed, _)| *listed == parent_name(name))
}

struct Walk<'k> {
    kernel: &'k KernelImage,
    /// Code that stays when the kernel has started.
    text: Range<u64>,
    /// Replacements of alternatives: where each is for, and where it is.
    replacements: BTreeMap<u64, Vec<(u64, usize)>>,
    /// The table of calls that a hypervisor may have other functions for.
    pv_ops: Option<Range<u64>>,
}

impl Walk<'_> {
    /// The function that holds a place.
    fn function(&self, at: u64) -> Option<(u64, String)> {
        let (symbol, _) = self.kernel.kallsyms().containing(at)?;
        (symbol.is_text() && self.text.contains(&symbol.addr)).then(|| (symbol.addr, symbol.name.to_string()))
    }

    /// Where the function leads.
    fn calls(&self, address: u64) -> Vec<u64> {
        let Some(end) = self.kernel.kallsyms().next_above(address) else { return Vec::new() };
        let len = usize::try_from(end - address).unwrap_or(0);
        let mut all = self.targets(address, len);
        for (at, len) in self.replacements.range(address..end).flat_map(|(_, list)| list) {
            all.extend(self.targets(*at, *len));
        }
        all.retain(|to| !(address..end).contains(to));
        all
    }

    fn targets(&self, address: u64, len: usize) -> Vec<u64> {
        let Some(bytes) = self.kernel.read(address, len) else { return Vec::new() };
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        let mut all = Vec::new();
        while decoder.can_decode() {
            let insn = decoder.decode();
            match insn.flow_control() {
                FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
                    if insn.near_branch_target() != 0 =>
                {
                    all.push(insn.near_branch_target());
                }
                FlowControl::IndirectCall | FlowControl::IndirectBranch => all.extend(self.through_pv_ops(&insn)),
                _ => {}
            }
        }
        all
    }

    /// `call *pv_ops+0x..`: the pointer the image has there (arch/x86/include/asm/paravirt_types.h).
    fn through_pv_ops(&self, insn: &Instruction) -> Option<u64> {
        let absolute = insn.op0_kind() == OpKind::Memory && insn.memory_index() == Register::None;
        let plain = absolute && (insn.memory_base() == Register::None || insn.is_ip_rel_memory_operand());
        let at = insn.memory_displacement64();
        if !plain || !self.pv_ops.as_ref().is_some_and(|ops| ops.contains(&at)) {
            return None;
        }
        self.kernel.read(at, 8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

fn pv_ops(kernel: &KernelImage) -> Option<Range<u64>> {
    let start = by_name(kernel, "pv_ops")?;
    Some(start..kernel.kallsyms().next_above(start)?)
}

/// The table of alternatives of the image: two relative addresses, then 4 bytes of the CPU's feature or 2, then the lengths
/// (`struct alt_instr`, arch/x86/include/asm/alternative.h). None when neither form fits all of
/// it; a kernel without the table has none.
fn replacements(kernel: &KernelImage) -> Option<BTreeMap<u64, Vec<(u64, usize)>>> {
    let (Some(from), Some(to)) = (by_name(kernel, "__alt_instructions"), by_name(kernel, "__alt_instructions_end"))
    else {
        return Some(BTreeMap::new());
    };
    let table = match usize::try_from(to.checked_sub(from)?).ok()? {
        0 => &[][..],
        len => kernel.read(from, len)?,
    };
    let fits = |size: usize| -> Option<BTreeMap<u64, Vec<(u64, usize)>>> {
        let mut all: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        if table.len() % size != 0 {
            return None;
        }
        for (i, entry) in table.chunks_exact(size).enumerate() {
            let relative = |at: usize| -> Option<u64> {
                let field: [u8; 4] = entry.get(at..at + 4)?.try_into().ok()?;
                let base = from + (i * size + at) as u64;
                Some(base.wrapping_add_signed(i32::from_le_bytes(field).into()))
            };
            let (what, with) = (relative(0)?, relative(4)?);
            if !kernel.section_at(what).is_some_and(|s| s.is_code()) {
                return None;
            }
            let len = usize::from(*entry.last()?);
            if len > 0 {
                all.entry(what).or_default().push((with, len));
            }
        }
        Some(all)
    };
    fits(14).or_else(|| fits(12))
}
