//! Relocation types the x86 module loader knows (arch/x86/kernel/module.c, `__write_relocate_add`).

use lpbuild_abi as abi;
use object::elf as sys;

/// Nothing.
pub const NONE: u32 = sys::R_X86_64_NONE.0;
/// `S + A`, 64 bits.
pub const ABS64: u32 = sys::R_X86_64_64.0;
/// `S + A - P`, 32 bits.
pub const PC32: u32 = sys::R_X86_64_PC32.0;
/// As `PC32`, for branches.
pub const PLT32: u32 = sys::R_X86_64_PLT32.0;
/// `S + A`, 32 bits, zero-extended.
pub const ABS32: u32 = sys::R_X86_64_32.0;
/// `S + A`, 32 bits, sign-extended.
pub const ABS32S: u32 = sys::R_X86_64_32S.0;
/// `S + A - P`, 64 bits.
pub const PC64: u32 = sys::R_X86_64_PC64.0;

/// Width of the field in bytes, for the types above.
pub fn width(kind: u32) -> Option<u64> {
    match kind {
        NONE => Some(0),
        ABS64 | PC64 => Some(8),
        PC32 | PLT32 | ABS32 | ABS32S => Some(4),
        _ => None,
    }
}

/// The kind of a field that is filled in later, of a relocation's.
pub fn late_kind(kind: u32) -> Option<abi::FieldKind> {
    match kind {
        ABS64 => Some(abi::FieldKind::Abs64),
        ABS32S => Some(abi::FieldKind::Abs32S),
        ABS32 => Some(abi::FieldKind::Abs32),
        PC32 => Some(abi::FieldKind::Pc32),
        PLT32 => Some(abi::FieldKind::Plt32),
        PC64 => Some(abi::FieldKind::Pc64),
        _ => None,
    }
}

/// Is the value relative to the place?
pub fn is_pc_relative(kind: u32) -> bool {
    matches!(kind, PC32 | PLT32 | PC64)
}
