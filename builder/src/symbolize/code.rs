//! Decodes code atoms and finds every reference in them: relocations, and branches the assembler has already resolved.
//!
//! The displacement of a PC-relative relocation counts from the end of its instruction, so the instruction is decoded to
//! find the address that is meant (Intel SDM vol. 2, 2.2.1.6: RIP-relative addressing).

use crate::isa::is_near_branch;
use crate::isa::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};

use super::{Atom, AtomKind, Class, Object, Ref, RefKind, Target, TextKind, Usage};
use crate::ingest::{Reloc, SectionId, Symbol, SymbolPlace};
use crate::isa::reloc;

/// One instruction of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Offset from the start of the atom.
    pub at: u32,
    /// Length in bytes.
    pub len: u8,
    /// Does control never fall through to the next instruction?
    pub ends_flow: bool,
    /// Is it a call?
    pub is_call: bool,
}

/// Decoded code.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Every instruction, in order.
    pub insns: Vec<Insn>,
    /// Why the decoding stopped early or a relocation could not be placed.
    pub trouble: Option<String>,
}

impl Decoded {
    /// Index of the instruction that begins at `at`.
    pub fn index_at(&self, at: u64) -> Option<usize> {
        let at = u32::try_from(at).ok()?;
        self.insns.binary_search_by_key(&at, |i| i.at).ok()
    }
    /// The instruction that holds the byte `at`.
    pub fn covering(&self, at: u64) -> Option<&Insn> {
        let at = u32::try_from(at).ok()?;
        let after = self.insns.partition_point(|i| i.at <= at);
        self.insns.get(after.checked_sub(1)?).filter(|i| at < i.at + u32::from(i.len))
    }
}

/// Where a relocation leads, without PC bias.
pub(super) fn target_of(symbols: &[Symbol], r: &Reloc, bias: i64) -> Target {
    let addend = r.addend.saturating_add(bias);
    match symbols[r.symbol.0 as usize].place {
        SymbolPlace::Section(s) => {
            // Beyond any section; kept small enough that distances between offsets do not overflow.
            const FAR: i64 = 1 << 60;
            let offset = (symbols[r.symbol.0 as usize].value as i64).saturating_add(addend);
            Target::Section(s, offset.clamp(-FAR, FAR))
        }
        SymbolPlace::Undefined | SymbolPlace::Absolute | SymbolPlace::Common => Target::Extern(r.symbol, addend),
    }
}

/// Decodes every code atom and collects the references of all atoms.
pub fn decode(object: &mut Object) {
    for index in 0..object.atoms.len() {
        let atom = &object.atoms[index];
        let class = object.class(atom.section);
        let (refs, code) = match class {
            Class::Text(TextKind::AltReplacement) | Class::Table(_) | Class::Ignored(_) => continue,
            Class::Text(_) => {
                let (refs, code) = decode_atom(object, atom);
                (refs, Some(code))
            }
            _ => (data_refs(object, atom.section, atom.start, atom.end), None),
        };
        object.atoms[index].refs = refs;
        object.atoms[index].code = code;
    }
}

/// Relocations of `[start, end)` as references of data.
pub(super) fn data_refs(object: &Object, section: SectionId, start: u64, end: u64) -> Vec<Ref> {
    refs_of(object, in_range(&object.section(section).relocs, start, end), start)
}

/// Relocations as references of data that begins at `start`.
pub(super) fn refs_of(object: &Object, relocs: &[Reloc], start: u64) -> Vec<Ref> {
    let referring = relocs.iter().filter(|r| r.kind != reloc::NONE);
    // As many as there are and no more: most lists have one.
    let mut refs = Vec::with_capacity(referring.clone().count());
    refs.extend(referring.map(|r| Ref {
        at: r.offset - start,
        width: reloc::width(r.kind).unwrap_or(0) as u8,
        kind: RefKind::Reloc(r.kind),
        target: target_of(&object.image.symbols, r, 0),
        bias: 0,
        usage: Usage::Pointer,
    }));
    refs
}

/// Relocations of a replacement sequence of an alternative: code that is not decoded in its own right.
pub(super) fn replacement_refs(
    object: &Object,
    section: SectionId,
    start: u64,
    end: u64,
) -> (Vec<Ref>, Option<String>) {
    let bytes = object.section(section).data.get(start as usize..end as usize).unwrap_or(&[]);
    let (refs, code) = decode_range(object, section, start, bytes);
    (refs, code.trouble)
}

fn in_range(relocs: &[Reloc], start: u64, end: u64) -> &[Reloc] {
    let from = relocs.partition_point(|r| r.offset < start);
    let to = relocs.partition_point(|r| r.offset < end);
    relocs.get(from..to).unwrap_or(&[])
}

pub(super) fn decode_atom(object: &Object, atom: &Atom) -> (Vec<Ref>, Decoded) {
    debug_assert!(matches!(atom.kind, AtomKind::Function | AtomKind::Chunk));
    let bytes = object.section(atom.section).data.get(atom.start as usize..atom.end as usize).unwrap_or(&[]);
    decode_range(object, atom.section, atom.start, bytes)
}

fn decode_range(object: &Object, section: SectionId, start: u64, bytes: &[u8]) -> (Vec<Ref>, Decoded) {
    let relocs = in_range(&object.section(section).relocs, start, start + bytes.len() as u64);
    let mut refs = Vec::with_capacity(relocs.len());
    let mut code = Decoded::default();
    // x86-64 code of a compiler has about four bytes per instruction.
    code.insns.reserve(bytes.len() / 4 + 1);
    let mut pending = relocs.iter().peekable();
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    while decoder.can_decode() {
        let at = decoder.position() as u64;
        decoder.decode_out(&mut insn);
        if insn.is_invalid() {
            code.trouble.get_or_insert_with(|| format!("the bytes at +{at:#x} are no instruction"));
            break;
        }
        let end = at + insn.len() as u64;
        let fields = decoder.get_constant_offsets(&insn);
        let mut relocated = [false; 2]; // displacement, immediate
        while let Some(r) = pending.next_if(|r| r.offset - start < end) {
            let field = r.offset - start - at.min(r.offset - start);
            let is_disp = fields.has_displacement() && field == fields.displacement_offset() as u64;
            let is_imm = fields.has_immediate() && field == fields.immediate_offset() as u64;
            let Some(width) = reloc::width(r.kind).filter(|w| *w > 0 || r.kind == reloc::NONE) else {
                code.trouble.get_or_insert_with(|| format!("relocation type {} at +{:#x}", r.kind, r.offset - start));
                continue;
            };
            if r.kind == reloc::NONE {
                continue;
            }
            if !is_disp && !is_imm || r.offset - start + width > end {
                let what = format!("the relocation at +{:#x} is no operand of its instruction", r.offset - start);
                code.trouble.get_or_insert(what);
                continue;
            }
            relocated[usize::from(is_imm && !is_disp)] = true;
            let bias = if reloc::is_pc_relative(r.kind) { end - (r.offset - start) } else { 0 };
            refs.push(Ref {
                at: r.offset - start,
                width: width as u8,
                kind: RefKind::Reloc(r.kind),
                target: target_of(&object.image.symbols, r, bias as i64),
                bias: bias as u8,
                usage: usage(&insn, is_disp),
            });
        }
        let resolved = if is_near_branch(&insn) && !relocated[0] && !relocated[1] {
            Some((fields.immediate_offset(), fields.immediate_size(), insn.near_branch_target(), Usage::Branch))
        } else if insn.is_ip_rel_memory_operand() && !relocated[0] {
            Some((fields.displacement_offset(), 4, insn.ip_rel_memory_address(), memory_usage(&insn)))
        } else {
            None
        };
        if let Some((field, width, target, usage)) = resolved {
            refs.push(Ref {
                at: at + field as u64,
                width: width as u8,
                kind: RefKind::Resolved,
                target: Target::Section(section, target as i64),
                bias: (end - at - field as u64) as u8,
                usage,
            });
        }
        let flow = insn.flow_control();
        code.insns.push(Insn {
            at: at as u32,
            len: insn.len() as u8,
            ends_flow: matches!(
                flow,
                FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Return
                    | FlowControl::Exception
            ),
            is_call: matches!(flow, FlowControl::Call | FlowControl::IndirectCall),
        });
    }
    if !refs.is_sorted_by_key(|r| r.at) {
        refs.sort_by_key(|r| r.at);
    }
    (refs, code)
}

/// What an instruction does with its displacement or immediate.
pub fn usage(insn: &Instruction, is_disp: bool) -> Usage {
    if is_near_branch(insn) {
        return Usage::Branch;
    }
    let with_register = insn.memory_index() != Register::None
        || !matches!(insn.memory_base(), Register::None | Register::RIP | Register::EIP);
    match is_disp {
        true if with_register => Usage::Indexed,
        true => memory_usage(insn),
        false => Usage::Address,
    }
}

/// A memory operand without registers.
pub fn memory_usage(insn: &Instruction) -> Usage {
    if insn.mnemonic() == Mnemonic::Lea { Usage::Address } else { Usage::Access }
}
