//! The machine: x86-64 instructions and relocation types. iced-x86 is imported nowhere else.

pub mod moved;
pub mod reloc;

pub use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// `endbr64`
pub const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `nopl 0(%rax,%rax,1)`: arch/x86/include/asm/nops.h, ASM_NOP5; what objtool leaves of `call __fentry__`.
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Direct jump, call, jcc, loop, jrcxz or xbegin.
pub fn is_near_branch(insn: &Instruction) -> bool {
    (0..insn.op_count())
        .any(|i| matches!(insn.op_kind(i), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64))
}

/// The covered instructions as text, AT&T syntax, addresses relative to the function.
pub fn disassemble(bytes: &[u8], offset: u64) -> Vec<String> {
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut decoder = Decoder::with_ip(64, bytes, offset, DecoderOptions::NONE);
    let mut out = Vec::new();
    while decoder.can_decode() {
        let insn = decoder.decode();
        let mut text = String::new();
        formatter.format(&insn, &mut text);
        out.push(text);
    }
    out
}
