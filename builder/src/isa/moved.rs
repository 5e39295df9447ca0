//! The covered instructions, encoded again at another place: the same operands, and branches of 32 bits to where they led.
//!
//! Output: bytes, and the fields that count from the instruction pointer, which only a relocation can fill. Refused:
//! calls, which would leave an address on the stack that belongs to no function, and what has no form that reaches further.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use super::is_near_branch;
use super::reloc;

/// Instructions at a place that is not known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovedCode {
    /// The code; fields are zero.
    pub bytes: Vec<u8>,
    /// What counts from the instruction pointer.
    pub fields: Vec<PcField>,
    /// Old and new offset and the length of each instruction that was copied.
    copied: Vec<(usize, usize, usize)>,
}

/// A PC-relative field of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcField {
    /// Offset in the code.
    pub at: usize,
    /// Type of the relocation.
    pub kind: u32,
    /// The address it means.
    pub target: u64,
    /// Bytes between the field and the address the CPU counts from.
    pub bias: i64,
}

/// An instruction that cannot be executed elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Offset in the covered bytes.
    pub at: usize,
    /// What stands against it.
    pub why: &'static str,
}

impl MovedCode {
    /// Where a byte of a copied instruction went.
    pub fn at(&self, old: usize) -> Option<usize> {
        self.copied
            .iter()
            .find(|(from, _, len)| (*from..from + len).contains(&old))
            .map(|(from, to, _)| to + old - from)
    }
}

/// Encodes the instructions that are at `ip` again. What lies behind the end of the flow is padding, or never reached: no
/// branch leads into a site.
pub fn encode(bytes: &[u8], ip: u64) -> Result<MovedCode, Fixed> {
    let mut out = MovedCode::default();
    let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
    while decoder.can_decode() {
        let at = decoder.position();
        let insn = decoder.decode();
        let fixed = |why| Err(Fixed { at, why });
        let raw = bytes.get(at..at + insn.len()).unwrap_or_default();
        if insn.is_invalid() {
            return fixed("it does not decode");
        }
        if matches!(insn.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            return fixed("a call leaves an address on the stack that would belong to no function");
        }
        let to = out.bytes.len();
        if is_near_branch(&insn) {
            let Some(opcode) = long_form(&insn) else { return fixed("a branch of this kind reaches 127 bytes") };
            out.bytes.extend_from_slice(opcode.as_slice());
            let (at, target) = (out.bytes.len(), insn.near_branch_target());
            out.bytes.extend_from_slice(&[0; 4]);
            out.fields.push(PcField { at, kind: reloc::PLT32, target, bias: 4 });
        } else {
            out.bytes.extend_from_slice(raw);
            out.copied.push((at, to, raw.len()));
            if insn.is_ip_rel_memory_operand() {
                if insn.memory_base() != Register::RIP || insn.has_segment_prefix() {
                    return fixed("what it refers to depends on where it is");
                }
                let field = decoder.get_constant_offsets(&insn).displacement_offset();
                out.bytes[to + field..to + field + 4].fill(0);
                let (target, bias) = (insn.ip_rel_memory_address(), (raw.len() - field) as i64);
                out.fields.push(PcField { at: to + field, kind: reloc::PC32, target, bias });
            }
        }
        if matches!(
            insn.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        ) {
            break;
        }
    }
    Ok(out)
}

/// Opcode of the form with 32 bits of a direct jump; conditions are numbered as in the instruction (Intel SDM vol. 2, B.1.4.7).
fn long_form(insn: &Instruction) -> Option<Vec<u8>> {
    if insn.op0_kind() != OpKind::NearBranch64 {
        return None;
    }
    if insn.is_jmp_short_or_near() {
        return Some(vec![0xe9]);
    }
    let condition = (insn.condition_code() as u8).checked_sub(1)?;
    insn.is_jcc_short_or_near().then(|| vec![0x0f, 0x80 + condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_ffff_8100_0000;

    fn field(at: usize, kind: u32, target: u64, bias: i64) -> PcField {
        PcField { at, kind, target, bias }
    }

    #[test]
    fn instructions_without_the_instruction_pointer_are_copied() {
        // push %rbx; mov $0xffffffff82000000,%rdi
        let code = [0x53, 0x48, 0xc7, 0xc7, 0, 0, 0, 0x82];
        let moved = encode(&code, AT).unwrap();
        assert_eq!((moved.bytes.as_slice(), moved.fields.as_slice()), (&code[..], &[][..]));
        assert_eq!((moved.at(0), moved.at(4), moved.at(8)), (Some(0), Some(4), None));
    }

    #[test]
    fn operands_and_branches_keep_what_they_mean() {
        // cmpl $1,0x10(%rip); je +4; mov %edi,%eax
        let moved = encode(&[0x83, 0x3d, 0x10, 0, 0, 0, 1, 0x74, 4, 0x89, 0xf8], AT).unwrap();
        assert_eq!(moved.bytes, [0x83, 0x3d, 0, 0, 0, 0, 1, 0x0f, 0x84, 0, 0, 0, 0, 0x89, 0xf8]);
        let wanted = [field(2, reloc::PC32, AT + 7 + 0x10, 5), field(9, reloc::PLT32, AT + 9 + 4, 4)];
        assert_eq!(moved.fields, wanted);
        assert_eq!((moved.at(7), moved.at(10)), (None, Some(14)));
        for cc in 0..16 {
            for code in [vec![0x70 + cc, 0x20], vec![0x0f, 0x80 + cc, 0x20, 0, 0, 0]] {
                let moved = encode(&code, AT).unwrap();
                assert_eq!(moved.bytes, [0x0f, 0x80 + cc, 0, 0, 0, 0]);
                assert_eq!(moved.fields, [field(2, reloc::PLT32, AT + code.len() as u64 + 0x20, 4)]);
            }
        }
    }

    #[test]
    fn nothing_behind_the_end_of_the_flow_is_taken_along() {
        // The padding is cut in the middle of a nop.
        for (code, want) in [
            (&[0x31, 0xc0, 0xc3, 0x0f, 0x1f][..], &[0x31, 0xc0, 0xc3][..]),
            (&[0xeb, 0x10, 0xcc, 0xcc, 0xcc], &[0xe9, 0, 0, 0, 0]),
            (&[0x0f, 0x0b, 0x0f, 0x1f, 0x84], &[0x0f, 0x0b]),
        ] {
            assert_eq!(encode(code, AT).unwrap().bytes, want);
        }
    }

    #[test]
    fn what_cannot_be_executed_elsewhere() {
        for code in [
            &[0x90, 0xe8, 0, 0, 0, 0][..],
            &[0x90, 0xff, 0xd0],
            // loop, jrcxz, xbegin
            &[0x90, 0xe2, 0xfd],
            &[0x90, 0xe3, 0x05],
            &[0x90, 0xc7, 0xf8, 0, 0, 0, 0],
            // mov %gs:0x10(%rip),%rax; mov 0x10(%eip),%eax; a bad opcode
            &[0x90, 0x65, 0x48, 0x8b, 0x05, 0x10, 0, 0, 0],
            &[0x90, 0x67, 0x8b, 0x05, 0x10, 0, 0, 0],
            &[0x90, 0x06],
        ] {
            assert_eq!(encode(code, AT).unwrap_err().at, 1, "{code:02x?}");
        }
    }
}
