//! Replacement instructions of alternatives and templates of code: instructions no function holds, whose references are found
//! by decoding them.

use crate::isa::is_near_branch;
use crate::isa::{Decoder, DecoderOptions, Instruction, OpKind, Register};

use super::{Proof, Whole};
use crate::isa::reloc;
use crate::symbolize::{Usage, memory_usage, usage};

/// A field that holds an address.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Offset of the field.
    pub at: usize,
    /// Bytes.
    pub width: usize,
    /// Offset of the next instruction.
    pub end: usize,
    /// `R_X86_64_*`
    pub kind: u32,
    /// The address meant.
    pub target: u64,
    /// What is done with it.
    pub usage: Usage,
}

/// The operands of the instructions in `[addr, addr + len)`, by offset; nothing when not all of them can be decoded.
pub fn operands(whole: &Whole<'_>, proof: Proof, addr: u64, len: u64) -> Option<Vec<Operand>> {
    let bytes = whole.bytes(addr, len)?;
    let mut decoder = Decoder::with_ip(64, bytes, addr, DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let at = decoder.position();
        let insn = decoder.decode();
        if insn.is_invalid() {
            return None;
        }
        let fields = decoder.get_constant_offsets(&insn);
        let end = decoder.position();
        let mut add = |field: usize, width: usize, kind: u32, target: u64, usage: Usage| {
            found.push(Operand { at: at + field, width, end, kind, target, usage });
        };
        if is_near_branch(&insn) {
            let (field, width) = (fields.immediate_offset(), fields.immediate_size());
            add(field, width, reloc::PLT32, insn.near_branch_target(), Usage::Branch);
            continue;
        }
        if insn.is_ip_rel_memory_operand() {
            add(fields.displacement_offset(), 4, reloc::PC32, insn.ip_rel_memory_address(), memory_usage(&insn));
        }
        if proof >= Proof::Addresses {
            let listed = whole.fields_in(addr + at as u64, addr + end as u64);
            for f in listed.iter().filter(|f| !reloc::is_pc_relative(u32::from(f.kind))) {
                let (offset, width) = ((f.at - addr) as usize - at, reloc::width(u32::from(f.kind))? as usize);
                let is_disp = fields.has_displacement() && offset == fields.displacement_offset();
                if let Some(target) = whole.field_value(*f) {
                    add(offset, width, u32::from(f.kind), target, usage(&insn, is_disp));
                }
            }
            if proof == Proof::All {
                continue;
            }
        }
        // By value, as in functions (`scan`).
        let listed = proof >= Proof::Addresses;
        let wide = |size: usize| if size == 8 { reloc::ABS64 } else { reloc::ABS32S };
        if let Some(value) = displacement(&insn)
            && (!listed && whole.is_address(value) || is_plain_gs(&insn) && whole.is_percpu(value))
        {
            let size = fields.displacement_size();
            add(fields.displacement_offset(), size, wide(size), value, usage(&insn, true));
        }
        if let Some(value) = immediate(&insn)
            && !listed
            && whole.is_address(value)
        {
            let size = fields.immediate_size();
            add(fields.immediate_offset(), size, wide(size), value, Usage::Address);
        }
    }
    found.sort_by_key(|o| o.at);
    Some(found)
}

fn displacement(insn: &Instruction) -> Option<u64> {
    let has = insn.memory_displ_size() >= 4 && !insn.is_ip_rel_memory_operand();
    (has && insn.op_kinds().any(|k| k == OpKind::Memory)).then(|| insn.memory_displacement64())
}

fn is_plain_gs(insn: &Instruction) -> bool {
    insn.segment_prefix() == Register::GS
        && insn.memory_base() == Register::None
        && insn.memory_index() == Register::None
}

fn immediate(insn: &Instruction) -> Option<u64> {
    insn.op_kinds().find_map(|k| match k {
        OpKind::Immediate32to64 => Some(insn.immediate32to64() as u64),
        OpKind::Immediate64 => Some(insn.immediate64()),
        _ => None,
    })
}
