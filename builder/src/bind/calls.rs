//! Which functions of an image can run once others do: the closure of calls and jumps from where something begins.
//!
//! Input: an image, the functions it begins with, and rules where it ends. Output: [`Closure`], with who calls each. Refused is an image
//! whose alternatives cannot be read, and a closure without end (LP3005).
//! Followed are direct calls and jumps, those of the replacements of alternatives, the pointers of calls through `pv_ops`, and the
//! static calls that a hypervisor changes at boot. Calls of tracepoints are not followed but reported: what hangs on them depends on
//! who traces.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::resolve::by_name;
use crate::codes;
use crate::error::{Place, Problem};
use crate::isa::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use crate::kernel::{KernelImage, KernelSymbol};
use crate::symbolize::parent_name;

/// A name with the reason why it is where it is.
pub(super) type Listed = (&'static str, &'static str);

/// The end of the machine, and what is said on the way to it: a closure that these are part of would be all of the kernel.
const ENDS: &[Listed] = &[
    ("__stack_chk_fail", "the kernel is broken"),
    ("panic", "the kernel is broken"),
    ("nmi_panic", "the kernel is broken"),
    ("__warn_printk", "a warning"),
    ("_printk", "a message"),
    ("printk", "a message"),
    ("_printk_deferred", "a message"),
];

/// Static calls that have another target than in the image when a hypervisor or the hardware says so (paravirt_set_sched_clock).
const CHANGED_AT_BOOT: &[(&str, &[&str])] = &[(
    "__SCT__pv_sched_clock",
    &[
        "kvm_sched_clock_read",
        "read_hv_sched_clock_msr",
        "read_hv_sched_clock_tsc",
        "vmware_sched_clock",
        "xen_sched_clock",
    ],
)];

/// How names of a tracepoint's call begin (include/linux/tracepoint.h).
const TRACEPOINTS: &[&str] = &["__SCT__tp_func_", "__traceiter_"];

/// One function of a closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Where it is, at link time.
    pub address: u64,
    /// Its name in kallsyms.
    pub name: String,
    /// Who calls it; nothing for those it begins with.
    pub caller: Option<String>,
}

impl Called {
    /// A function that something begins with.
    pub(super) fn first(symbol: &KernelSymbol) -> Self {
        Self { address: symbol.addr, name: symbol.name.to_string(), caller: None }
    }
}

/// Where a closure ends.
pub(super) struct Rules {
    /// Functions that something in it can call, but not in this case.
    pub apart: &'static [&'static [Listed]],
    /// Functions in it that return before they call anything, or guard what they call.
    pub last: &'static [Listed],
    /// More functions than it can have: a call that leads out of it is missing in the tables.
    pub most: usize,
    /// What it is of, for the message when it has no end.
    pub what: &'static str,
}

/// Functions that run, by address, and the tracepoints they have.
#[derive(Clone, Debug, Default)]
pub(super) struct Closure {
    /// The functions.
    pub steps: BTreeMap<u64, Called>,
    /// Names of tracepoints that something in it calls.
    pub tracepoints: BTreeSet<String>,
}

/// An image whose calls can be followed.
pub(super) struct Calls<'k> {
    kernel: &'k KernelImage,
    /// Code that stays when the kernel has started.
    text: Range<u64>,
    /// Replacements of alternatives: where each is for, and where it is.
    replacements: BTreeMap<u64, Vec<(u64, usize)>>,
    /// The table of calls that a hypervisor may have other functions for.
    pv_ops: Option<Range<u64>>,
}

impl<'k> Calls<'k> {
    /// # Errors
    /// LP3005 when the alternatives are of no known form.
    pub fn of(kernel: &'k KernelImage) -> Result<Self, Problem> {
        let text = by_name(kernel, "_stext").unwrap_or(0)..by_name(kernel, "_etext").unwrap_or(u64::MAX);
        let Some(replacements) = replacements(kernel) else {
            let why = "the table of alternatives is not of a known form, so what an int3 runs cannot be found";
            return Err(lacks(kernel, "__alt_instructions", why));
        };
        Ok(Self { kernel, text, replacements, pv_ops: pv_ops(kernel) })
    }

    /// The functions of these names. Clones (`nmi_handle.part.0`) begin on their own as well.
    pub fn named(&self, names: &[&str]) -> Vec<Called> {
        let found = self.kernel.kallsyms().families(names).into_iter();
        found.filter(|s| s.is_text()).map(Called::first).collect()
    }

    /// All that can run once the first ones do; what `known` has is neither in it nor followed.
    ///
    /// # Errors
    /// LP3005 when it has no end.
    pub fn closure(
        &self,
        first: Vec<Called>,
        rules: &Rules,
        known: &BTreeMap<u64, Called>,
    ) -> Result<Closure, Problem> {
        let mut found = Closure::default();
        let mut waiting = VecDeque::new();
        for step in first {
            let address = step.address;
            if !known.contains_key(&address) && found.steps.insert(address, step).is_none() {
                waiting.push_back(address);
            }
        }
        while let Some(address) = waiting.pop_front() {
            let name = found.steps[&address].name.clone();
            if listed(rules.last, &name) {
                continue;
            }
            for to in self.calls(address) {
                let Some((to, callee)) = self.function(to) else { continue };
                if let Some(tracepoint) = TRACEPOINTS.iter().find_map(|begin| callee.strip_prefix(begin)) {
                    found.tracepoints.insert(tracepoint.to_owned());
                    continue;
                }
                let apart = listed(ENDS, &callee) || rules.apart.iter().any(|table| listed(table, &callee));
                if apart || known.contains_key(&to) {
                    continue;
                }
                found.steps.entry(to).or_insert_with(|| {
                    waiting.push_back(to);
                    Called { address: to, name: callee, caller: Some(name.clone()) }
                });
            }
            if found.steps.len() > rules.most {
                let (most, what) = (rules.most, rules.what);
                let why = format!("more than {most} functions seem to be {what}: {name} leads away from it");
                return Err(lacks(self.kernel, &name, &why));
            }
        }
        Ok(found)
    }

    /// The function that holds a place.
    pub fn function(&self, at: u64) -> Option<(u64, String)> {
        let (symbol, _) = self.kernel.kallsyms().containing(at)?;
        (symbol.is_text() && self.text.contains(&symbol.addr)).then(|| (symbol.addr, symbol.name.to_string()))
    }

    /// Where the function leads, in the order of its code; replacements of alternatives behind that.
    pub fn calls(&self, address: u64) -> Vec<u64> {
        let Some(end) = self.kernel.kallsyms().next_above(address) else { return Vec::new() };
        let len = usize::try_from(end - address).unwrap_or(0);
        let mut all = self.targets(address, len);
        for (at, len) in self.replacements.range(address..end).flat_map(|(_, list)| list) {
            all.extend(self.targets(*at, *len));
        }
        all.retain(|to| !(address..end).contains(to));
        for (call, targets) in CHANGED_AT_BOOT {
            if by_name(self.kernel, call).is_some_and(|at| all.contains(&at)) {
                all.extend(self.named(targets).iter().map(|step| step.address));
            }
        }
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

/// LP3005: the image does not show something.
pub(super) fn lacks(kernel: &KernelImage, what: &str, why: &str) -> Problem {
    Problem::new(codes::LP3005, Place::symbol(kernel.name(), what), why)
}

/// Is this function, or the one it is a clone of, in the table?
pub(super) fn listed(table: &[Listed], name: &str) -> bool {
    table.iter().any(|(listed, _)| *listed == parent_name(name))
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
