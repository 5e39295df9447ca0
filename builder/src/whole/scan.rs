//! [`Whole`] -> [`Uses`]: every reference that leaves a function, by decoding all code.
//!
//! PC-relative fields show themselves. Absolute fields are known from the relocations where the image kept them. Without, a
//! field is an address when no compiler would have a number there:
//!
//! - the displacement of a memory operand, sign-extended, that lies in the image (kernel code model: `table(,%rax,8)`),
//!   or in the per-CPU area with a `%gs` prefix;
//! - an immediate extended to 64 bits, or of 64 bits, that lies in the image;
//! - `mov $imm32,%r64` (REX.W C7 /0) of a per-CPU offset: for a number the shorter `mov $imm32,%r32` would do
//!   (System V ABI, kernel code model; GCC `-mcmodel=kernel`, R_X86_64_32S).
//!
//! Any other constant equal to the offset of a per-CPU variable, in a function that computes per-CPU addresses, may be one
//! or not: the function is noted as unproven, and refused where it must be carried.

use crate::isa::is_near_branch;
use crate::isa::{Decoder, DecoderOptions, Instruction, OpKind, Register};
use rayon::prelude::*;

use super::{Area, Field, Location, Proof, SpanId, SpanKind, Whole};
use crate::isa::reloc;
use crate::kernel::IMAGE_BASE;
use crate::symbolize::{Usage, memory_usage, usage};

/// A reference out of a function.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The address meant.
    pub target: u64,
    /// The span that holds it; `u32::MAX` when none does.
    pub span: u32,
    /// Offset of the field in its function.
    pub at: u32,
    /// Width of the field in bytes.
    pub width: u8,
    /// `R_X86_64_*`
    pub kind: u8,
    /// What is done with it.
    pub usage: Usage,
    /// Is it a `call rel32`?
    pub call: bool,
    /// Bytes read or written there, of an access.
    pub size: u8,
    /// Bytes from the field to the end of the instruction, of a PC-relative field in code.
    pub bias: u8,
}

impl Use {
    /// The span that holds the target.
    pub fn span(&self) -> Option<SpanId> {
        (self.span != u32::MAX).then_some(SpanId(self.span))
    }
}

/// Every reference, by function.
#[derive(Debug, Default)]
pub struct Uses {
    list: Vec<Use>,
    /// First of each span, and one behind the last.
    first: Vec<u32>,
    /// Functions that do not decode, by span.
    pub trouble: Vec<SpanId>,
    /// Constants that may be per-CPU offsets: function, offset of the instruction, value; by span.
    pub unproven: Vec<(SpanId, u32, u64)>,
}

impl Uses {
    /// The references of a span, by offset.
    pub fn of(&self, id: SpanId) -> &[Use] {
        match (self.first.get(id.0 as usize), self.first.get(id.0 as usize + 1)) {
            (Some(a), Some(b)) => self.list.get(*a as usize..*b as usize).unwrap_or(&[]),
            _ => &[],
        }
    }
    /// All of them, with the span each is in.
    pub fn iter(&self) -> impl Iterator<Item = (SpanId, &Use)> {
        (0..self.first.len().saturating_sub(1) as u32)
            .map(SpanId)
            .flat_map(|id| self.of(id).iter().map(move |u| (id, u)))
    }
    /// All of them, in the order of the functions.
    pub fn all(&self) -> &[Use] {
        &self.list
    }
    /// Number of references.
    pub fn len(&self) -> usize {
        self.list.len()
    }
    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[derive(Default)]
struct Part {
    uses: Vec<Use>,
    counts: Vec<u32>,
    trouble: Vec<SpanId>,
    unproven: Vec<(SpanId, u32, u64)>,
}

/// Spans decoded at one go.
const CHUNK: usize = 512;

/// Decodes everything, as if no more were known of the fields than `proof` says: both images of a pair have to be read alike.
pub fn scan(whole: &Whole<'_>, proof: Proof) -> Uses {
    let bases = PercpuBases::of(whole);
    let parts: Vec<Part> = (0..whole.spans.len().div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let mut part = Part::default();
            let end = (chunk * CHUNK + CHUNK).min(whole.spans.len());
            for i in chunk * CHUNK..end {
                let id = SpanId(i as u32);
                let before = part.uses.len();
                match whole.span(id).kind {
                    SpanKind::Function | SpanKind::Chunk => decode(whole, proof, &bases, id, &mut part),
                    SpanKind::Data => {
                        let (span, area) = (whole.span(id), whole.area_of(id));
                        pointers(whole, proof, area, (span.addr, span.end), &mut part.uses);
                    }
                    SpanKind::Extern => {}
                }
                part.counts.push((part.uses.len() - before) as u32);
            }
            part
        })
        .collect();
    let mut all = Uses { first: Vec::with_capacity(whole.spans.len() + 1), ..Uses::default() };
    all.list.reserve_exact(parts.iter().map(|p| p.uses.len()).sum());
    all.first.push(0);
    for part in parts {
        let mut at = all.list.len() as u32;
        for n in part.counts {
            at += n;
            all.first.push(at);
        }
        all.list.extend(part.uses);
        all.trouble.extend(part.trouble);
        all.unproven.extend(part.unproven);
    }
    all
}

/// The variables per-CPU addresses are computed with (arch/x86/include/asm/percpu.h, include/asm-generic/percpu.h).
struct PercpuBases([Option<u64>; 2]);

impl PercpuBases {
    fn of(whole: &Whole<'_>) -> Self {
        Self(["this_cpu_off", "__per_cpu_offset"].map(|n| whole.address_of(n)))
    }
    fn holds(&self, addr: u64) -> bool {
        // The array has a base of 8 bytes for each CPU.
        self.0[0] == Some(addr) || self.0[1].is_some_and(|a| addr.wrapping_sub(a) < 8 * 8192)
    }
}

fn decode(whole: &Whole<'_>, proof: Proof, bases: &PercpuBases, id: SpanId, part: &mut Part) {
    let span = *whole.span(id);
    let bytes = whole.bytes_of(id);
    let listed = whole.fields_in(span.addr, span.end);
    let mut pending = listed.iter().filter(|f| !reloc::is_pc_relative(u32::from(f.kind))).peekable();
    let mut decoder = Decoder::with_ip(64, bytes, span.addr, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    let (mut suspects, mut percpu): (Vec<(u32, u64)>, bool) = (Vec::new(), false);
    let (from, mut trouble) = (part.uses.len(), false);
    while decoder.can_decode() {
        let at = decoder.position();
        decoder.decode_out(&mut insn);
        if insn.is_invalid() {
            trouble = true;
            break;
        }
        let mut add = |field: usize, width: u8, kind: u32, usage: Usage, target: u64, call: bool| {
            let place = whole.locate(target);
            let holder = match place {
                Location::Span(s, _) => s.0,
                _ => u32::MAX,
            };
            let at = (at + field) as u32;
            let end = decoder.position() as u32;
            let bias = if reloc::is_pc_relative(kind) { (end - at) as u8 } else { 0 };
            let size = if usage == Usage::Access { insn.memory_size().size() as u8 } else { 0 };
            part.uses.push(Use { target, span: holder, at, width, kind: kind as u8, usage, call, size, bias });
        };
        let kinds = insn.op_kinds_packed();
        if kinds.branch {
            let target = insn.near_branch_target();
            if target < span.addr || target >= span.end {
                let fields = decoder.get_constant_offsets(&insn);
                let call = insn.flow_control() == crate::isa::FlowControl::Call;
                add(
                    fields.immediate_offset(),
                    fields.immediate_size() as u8,
                    reloc::PLT32,
                    Usage::Branch,
                    target,
                    call,
                );
            }
            continue;
        }
        if insn.is_ip_rel_memory_operand() {
            let target = insn.ip_rel_memory_address();
            percpu |= bases.holds(target);
            if target < span.addr || target >= span.end {
                let fields = decoder.get_constant_offsets(&insn);
                add(fields.displacement_offset(), 4, reloc::PC32, memory_usage(&insn), target, false);
            }
        }
        if proof >= Proof::Addresses {
            let end = span.addr + decoder.position() as u64;
            while let Some(f) = pending.next_if(|f| f.at < end) {
                let fields = decoder.get_constant_offsets(&insn);
                let offset = ((f.at - span.addr) as usize).wrapping_sub(at);
                let is_disp = fields.has_displacement() && offset == fields.displacement_offset();
                let is_imm = fields.has_immediate() && offset == fields.immediate_offset();
                if !is_disp && !is_imm {
                    trouble = true;
                    continue;
                }
                let Some(target) = whole.field_value(*f) else { continue };
                if proof < Proof::All && target < IMAGE_BASE {
                    continue;
                }
                percpu |= bases.holds(target);
                let width = reloc::width(u32::from(f.kind)).unwrap_or(0) as u8;
                add(offset, width, u32::from(f.kind), usage(&insn, is_disp), target, false);
            }
            if proof == Proof::All {
                continue;
            }
        }
        // By value.
        let displacement = insn.memory_displ_size();
        if displacement >= 4 && !insn.is_ip_rel_memory_operand() && kinds.memory {
            let value = insn.memory_displacement64();
            // With a register, the displacement may as well be the offset in a structure the register points to.
            let gs = insn.segment_prefix() == Register::GS
                && insn.memory_base() == Register::None
                && insn.memory_index() == Register::None;
            let is_address = proof == Proof::None && whole.is_address(value);
            if is_address || gs && whole.is_percpu(value) {
                percpu |= bases.holds(value);
                let fields = decoder.get_constant_offsets(&insn);
                let size = fields.displacement_size() as u8;
                let kind = if size == 8 { reloc::ABS64 } else { reloc::ABS32S };
                add(fields.displacement_offset(), size, kind, usage(&insn, true), value, false);
            } else if names_percpu(whole, value) {
                suspects.push((at as u32, value));
            }
        }
        if let Some(kind) = kinds.immediate {
            let value = match kind {
                OpKind::Immediate32to64 => insn.immediate32to64() as u64,
                OpKind::Immediate64 => insn.immediate64(),
                _ => continue,
            };
            let is_mov = kind == OpKind::Immediate32to64
                && insn.mnemonic() == crate::isa::Mnemonic::Mov
                && insn.op0_kind() == OpKind::Register;
            let is_address = proof == Proof::None && whole.is_address(value);
            if is_address || is_mov && whole.is_percpu(value) {
                let fields = decoder.get_constant_offsets(&insn);
                let size = fields.immediate_size() as u8;
                let kind = if size == 8 { reloc::ABS64 } else { reloc::ABS32S };
                add(fields.immediate_offset(), size, kind, Usage::Address, value, false);
            } else if names_percpu(whole, value) {
                suspects.push((at as u32, value));
            }
        }
        if let Some(value) = physical(whole, &insn) {
            part.unproven.push((id, at as u32, value));
        }
    }
    if trouble {
        part.trouble.push(id);
    }
    if percpu {
        part.unproven.extend(suspects.into_iter().map(|(at, value)| (id, at, value)));
    }
    part.uses[from..].sort_by_key(|u| u.at);
}

/// The address behind a number that may be the physical address of a place the linker script names: `__pa_symbol(_end)`
/// is `_end - __START_KERNEL_map` when the code is compiled (arch/x86/include/asm/page_64.h).
fn physical(whole: &Whole<'_>, insn: &Instruction) -> Option<u64> {
    const KERNEL_START: u64 = 16 << 20;
    let value = (0..insn.op_count()).find_map(|i| match insn.op_kind(i) {
        OpKind::Immediate32 => Some(u64::from(insn.immediate32())),
        OpKind::Immediate32to64 => u64::try_from(insn.immediate32to64()).ok(),
        _ => None,
    })?;
    let address = IMAGE_BASE.wrapping_add(value);
    (value > KERNEL_START && whole.markers_at(address).next().is_some()).then_some(address)
}

/// References of data in `[start, end)`: relocated fields, or 64-bit words that hold an address, and what lists of distances
/// hold.
pub fn pointers(whole: &Whole<'_>, proof: Proof, area: &Area<'_>, (start, end): (u64, u64), out: &mut Vec<Use>) {
    let bytes = area.bytes(start, end - start).unwrap_or(&[]);
    let mut add = |at: u64, kind: u32, target: u64| {
        let holder = match whole.locate(target) {
            Location::Span(s, _) => s.0,
            _ => u32::MAX,
        };
        let width = reloc::width(kind).unwrap_or(0) as u8;
        let (at, kind) = ((at - start) as u32, kind as u8);
        out.push(Use { target, span: holder, at, width, kind, usage: Usage::Pointer, call: false, size: 0, bias: 0 });
    };
    let distances = if proof == Proof::All { None } else { distances(&area.name) };
    if let Some((stride, first)) = distances {
        for at in (0..bytes.len() as u64).step_by(4).filter(|at| at % stride >= first) {
            let Some([a, b, c, d]) = bytes.get(at as usize..at as usize + 4) else { continue };
            let value = i32::from_le_bytes([*a, *b, *c, *d]);
            let place = start + at;
            if value != 0 {
                add(place, reloc::PC32, place.wrapping_add_signed(i64::from(value)));
            }
        }
        return;
    }
    if proof >= Proof::Addresses {
        let known = |f: &&Field| proof == Proof::All || !reloc::is_pc_relative(u32::from(f.kind));
        for f in whole.fields_in(start, end).iter().filter(known) {
            // The list for the boot code leaves out what does not move.
            let moves = |target: &u64| proof == Proof::All || *target >= IMAGE_BASE;
            if let Some(target) = whole.field_value(*f).filter(moves) {
                add(f.at, u32::from(f.kind), target);
            }
        }
        return;
    }
    let skew = (start.wrapping_neg() % 8) as usize;
    for (i, word) in bytes.get(skew..).unwrap_or(&[]).chunks_exact(8).enumerate() {
        let value = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        if whole.is_address(value) {
            add(start + (skew + i * 8) as u64, reloc::ABS64, value);
        }
    }
}

/// Lists of 32-bit distances from the field (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS, include/linux/init.h,
/// include/linux/export.h, include/linux/tracepoint-defs.h, include/linux/pci.h): bytes of an entry, and where the first is.
pub fn distances(area: &str) -> Option<(u64, u64)> {
    match area {
        ".pci_fixup" => Some((16, 12)),
        "__tracepoints_ptrs" => Some((4, 0)),
        _ if area.starts_with("__ksymtab") || area.starts_with(".initcall") || area.starts_with(".con_initcall") => {
            Some((4, 0))
        }
        _ => None,
    }
}

/// The start of a per-CPU variable, beyond the page that is the same in every kernel (struct fixed_percpu_data).
fn names_percpu(whole: &Whole<'_>, value: u64) -> bool {
    value >= 0x1000 && whole.is_percpu(value) && matches!(whole.locate(value), Location::Span(_, 0))
}

/// What kinds of operands an instruction has.
struct Kinds {
    branch: bool,
    memory: bool,
    immediate: Option<OpKind>,
}

trait Operands {
    fn op_kinds_packed(&self) -> Kinds;
}

impl Operands for Instruction {
    fn op_kinds_packed(&self) -> Kinds {
        let mut kinds = Kinds { branch: false, memory: false, immediate: None };
        for i in 0..self.op_count() {
            match self.op_kind(i) {
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => kinds.branch = true,
                OpKind::Memory => kinds.memory = true,
                k @ (OpKind::Immediate32to64 | OpKind::Immediate64) => kinds.immediate = Some(k),
                _ => {}
            }
        }
        debug_assert_eq!(kinds.branch, is_near_branch(self));
        kinds
    }
}
