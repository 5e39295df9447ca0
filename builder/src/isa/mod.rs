//! The machine: x86-64 instructions and relocation types. iced-x86 is imported nowhere else.

pub mod moved;
pub mod reloc;
mod text;

pub use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
pub use text::{Disassembler, Style, disassemble};

/// `endbr64`
pub const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `nopl 0(%rax,%rax,1)`: arch/x86/include/asm/nops.h, ASM_NOP5; what objtool leaves of `call __fentry__`.
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Direct jump, call, jcc, loop, jrcxz or xbegin.
pub fn is_near_branch(insn: &Instruction) -> bool {
    (0..insn.op_count())
        .any(|i| matches!(insn.op_kind(i), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64))
}
