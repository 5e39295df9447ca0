//! Constants the kernel writes into its own instructions at boot (`runtime_const_ptr`, arch/x86/include/asm/runtime-const.h).
//!
//! The kernel does this once and for the image only: `mov $0x0123456789abcdef,%reg` in a module would keep its placeholder.
//! A module is compiled with the variable itself in the constant's place (arch/x86/include/asm/uaccess_64.h, `#ifdef
//! MODULE`), and so carried code becomes `mov NAME(%rip),%reg`, padded to the same length.
//!
//! Not understood, and left to the caller to refuse: any other instruction.

use super::{Entry, Object, Table};

/// An instruction with such a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootConstant {
    /// Offset of the instruction in its atom, in bytes.
    pub at: u64,
    /// Name of the variable.
    pub variable: String,
    /// The instruction that loads the variable; its displacement, at [`DISPLACEMENT`], is zero.
    pub code: [u8; LEN],
}

/// `movabs $imm64,%reg`: REX, opcode, 8 bytes.
const LEN: usize = 10;

/// Offset of the 4-byte displacement in [`BootConstant::code`].
pub const DISPLACEMENT: u64 = 3;

/// Bytes from the displacement to the end of the load, from where the CPU counts.
pub const BIAS: u8 = 4;

/// What the instruction of a `runtime_ptr_NAME` entry becomes in a module.
pub fn boot_constant(object: &Object, entry: &Entry) -> Option<BootConstant> {
    const REX_W: u8 = 0x48;
    const REX_B: u8 = 0x01;
    let owner = entry.owner.filter(|_| entry.table == Table::BootConstant)?;
    let variable = object.section(entry.section).name.strip_prefix("runtime_ptr_")?.to_owned();
    let field = u64::try_from(owner.delta).ok()?;
    let insn = object.atom(owner.atom).code.as_ref()?.covering(field)?;
    let at = u64::from(insn.at);
    let bytes = object.bytes(owner.atom).get(at as usize..at as usize + usize::from(insn.len))?;
    let [rex, opcode @ 0xb8..=0xbf, _, _, _, _, _, _, _, _] = *bytes else { return None };
    if rex & !REX_B != REX_W || field != at + 2 {
        return None;
    }
    // The register moves from the opcode (extended by REX.B) to ModRM.reg (REX.R); ModRM.rm 101 is RIP-relative.
    let rex = REX_W | (rex & REX_B) << 2;
    let modrm = (opcode & 7) << 3 | 0b101;
    Some(BootConstant { at, variable, code: [rex, 0x8b, modrm, 0, 0, 0, 0, 0x0f, 0x1f, 0x00] })
}
