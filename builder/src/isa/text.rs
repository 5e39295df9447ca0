//! Instructions as text: AT&T syntax, addresses relative to the function.
//!
//! What most code consists of (moves, the frame, plain arithmetic, tests, jumps and calls) is written here, because the tables of
//! the full formatter take longer to make than most pairs of objects to compare. All else, whatever has a prefix, a scaled
//! index or an operand of another kind, is the full formatter's. A test holds one against the other.

use iced_x86::{Code, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, Mnemonic, OpKind, Register};

/// How numbers and lists of operands are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As manifests have them: `mov 0x1A(%rdi),%rax`, `call 0x0000000000000080`.
    Manifest,
    /// For people: `mov 0x1a(%rdi), %rax`, `call 0x80`.
    Listing,
}

/// Writes instructions.
pub struct Disassembler {
    style: Style,
    full: Option<GasFormatter>,
}

impl std::fmt::Debug for Disassembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disassembler").field("style", &self.style).finish_non_exhaustive()
    }
}

impl Disassembler {
    /// One that has no tables yet.
    pub fn new(style: Style) -> Self {
        Self { style, full: None }
    }

    /// The whole instruction.
    pub fn text(&mut self, insn: &Instruction) -> String {
        plain(insn, self.style).unwrap_or_else(|| {
            let mut text = String::new();
            self.full().format(insn, &mut text);
            text
        })
    }

    /// What it does, without its operands.
    pub fn mnemonic(&mut self, insn: &Instruction) -> String {
        match branch_name(insn) {
            Some(name) if !is_prefixed(insn) => name.to_owned(),
            _ => {
                let mut text = String::new();
                self.full().format_mnemonic(insn, &mut text);
                text
            }
        }
    }

    fn full(&mut self) -> &mut GasFormatter {
        self.full.get_or_insert_with(|| formatter(self.style))
    }
}

/// The covered instructions as text.
pub fn disassemble(bytes: &[u8], offset: u64) -> Vec<String> {
    let mut writer = Disassembler::new(Style::Manifest);
    let mut decoder = Decoder::with_ip(64, bytes, offset, DecoderOptions::NONE);
    let mut out = Vec::new();
    while decoder.can_decode() {
        out.push(writer.text(&decoder.decode()));
    }
    out
}

fn formatter(style: Style) -> GasFormatter {
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_rip_relative_addresses(true);
    if style == Style::Listing {
        options.set_branch_leading_zeros(false);
        options.set_uppercase_hex(false);
        options.set_space_after_operand_separator(true);
    }
    formatter
}

/// Prefixes that change what is written.
fn is_prefixed(insn: &Instruction) -> bool {
    insn.has_rep_prefix()
        || insn.has_repne_prefix()
        || insn.has_lock_prefix()
        || insn.segment_prefix() != Register::None
}

/// The name of a direct jump or call; nothing for others.
fn branch_name(insn: &Instruction) -> Option<&'static str> {
    if insn.op_count() != 1 || insn.op0_kind() != OpKind::NearBranch64 {
        return None;
    }
    Some(match insn.mnemonic() {
        Mnemonic::Call => "call",
        Mnemonic::Jmp => "jmp",
        Mnemonic::Jo => "jo",
        Mnemonic::Jno => "jno",
        Mnemonic::Jb => "jb",
        Mnemonic::Jae => "jae",
        Mnemonic::Je => "je",
        Mnemonic::Jne => "jne",
        Mnemonic::Jbe => "jbe",
        Mnemonic::Ja => "ja",
        Mnemonic::Js => "js",
        Mnemonic::Jns => "jns",
        Mnemonic::Jp => "jp",
        Mnemonic::Jnp => "jnp",
        Mnemonic::Jl => "jl",
        Mnemonic::Jge => "jge",
        Mnemonic::Jle => "jle",
        Mnemonic::Jg => "jg",
        _ => return None,
    })
}

/// The text of an instruction of the plain kind; nothing for others.
fn plain(insn: &Instruction, style: Style) -> Option<String> {
    if let Some(name) = branch_name(insn) {
        if is_prefixed(insn) {
            return None;
        }
        let mut text = format!("{name} ");
        match (insn.near_branch64(), style) {
            (small @ 0..10, _) => push_number(&mut text, small, style),
            (address, Style::Manifest) => text.push_str(&format!("0x{address:016X}")),
            (address, Style::Listing) => push_number(&mut text, address, style),
        }
        return Some(text);
    }
    let name = match insn.mnemonic() {
        Mnemonic::Push => "push",
        Mnemonic::Pop => "pop",
        Mnemonic::Mov => "mov",
        Mnemonic::Lea => "lea",
        Mnemonic::Xor => "xor",
        Mnemonic::Test => "test",
        Mnemonic::Cmp => "cmp",
        Mnemonic::Add => "add",
        Mnemonic::Sub => "sub",
        Mnemonic::And => "and",
        Mnemonic::Or => "or",
        // The register may be the count, which says nothing of the width.
        Mnemonic::Shl if insn.op0_kind() == OpKind::Register => "shl",
        Mnemonic::Shr if insn.op0_kind() == OpKind::Register => "shr",
        Mnemonic::Movsxd if insn.code() == Code::Movsxd_r64_rm32 => "movslq",
        Mnemonic::Nop if insn.code() == Code::Nopd => "nop",
        Mnemonic::Ret if insn.code() == Code::Retnq => "ret",
        _ => return None,
    };
    let count = insn.op_count();
    // Without a register the name would say how wide the operands are.
    let sized = count == 0 || (0..count).any(|i| insn.op_kind(i) == OpKind::Register);
    if !sized || insn.has_rep_prefix() || insn.has_repne_prefix() || insn.has_lock_prefix() {
        return None;
    }
    let mut text = String::with_capacity(24);
    text.push_str(name);
    // The source stands first.
    for (n, operand) in (0..count).rev().enumerate() {
        text.push_str(match (n, style) {
            (0, _) => " ",
            (_, Style::Manifest) => ",",
            (_, Style::Listing) => ", ",
        });
        match insn.op_kind(operand) {
            OpKind::Register => push_register(&mut text, insn.op_register(operand))?,
            OpKind::Memory => push_memory(&mut text, insn, style)?,
            // A number of 64 bits has a name of its own.
            OpKind::Immediate8 | OpKind::Immediate16 | OpKind::Immediate32 => {
                text.push('$');
                push_number(&mut text, insn.try_immediate(operand).ok()?, style);
            }
            OpKind::Immediate8to16 => push_immediate(&mut text, insn.immediate8to16() as u16, style),
            OpKind::Immediate8to32 => push_immediate(&mut text, insn.immediate8to32() as u32, style),
            OpKind::Immediate8to64 => push_immediate(&mut text, insn.immediate8to64() as u64, style),
            OpKind::Immediate32to64 => push_immediate(&mut text, insn.immediate32to64() as u64, style),
            _ => return None,
        }
    }
    Some(text)
}

fn push_register(text: &mut String, register: Register) -> Option<()> {
    if !register.is_gpr() {
        return None;
    }
    let mut name = format!("{register:?}").to_ascii_lowercase();
    if name.ends_with('l') && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
        // `r8l` in the manual of one vendor, `r8b` in that of the other and here.
        name.pop();
        name.push('b');
    }
    text.push('%');
    text.push_str(&name);
    Some(())
}

fn push_immediate(text: &mut String, number: impl Into<u64>, style: Style) {
    text.push('$');
    push_number(text, number.into(), style);
}

/// Up to 9 as it is, else in hex.
fn push_number(text: &mut String, number: u64, style: Style) {
    match (number, style) {
        (0..10, _) => text.push_str(&number.to_string()),
        (_, Style::Manifest) => text.push_str(&format!("0x{number:X}")),
        (_, Style::Listing) => text.push_str(&format!("{number:#x}")),
    }
}

fn push_memory(text: &mut String, insn: &Instruction, style: Style) -> Option<()> {
    match insn.segment_prefix() {
        Register::None => {}
        Register::GS if insn.mnemonic() != Mnemonic::Lea => text.push_str("%gs:"),
        _ => return None,
    }
    let (base, displacement) = (insn.memory_base(), insn.memory_displacement64());
    if insn.memory_index() != Register::None || insn.memory_index_scale() != 1 || is_absolute(insn.code()) {
        return None;
    }
    match base {
        // Where nothing is added the number is no distance.
        Register::None if insn.memory_displ_size() >= 4 => {
            push_number(text, displacement, style);
            return Some(());
        }
        Register::RIP => push_distance(text, displacement.wrapping_sub(insn.next_ip()), style),
        base if base.is_gpr64() => push_distance(text, displacement, style),
        _ => return None,
    }
    text.push('(');
    if base == Register::RIP {
        text.push_str("%rip");
    } else {
        push_register(text, base)?;
    }
    text.push(')');
    Some(())
}

/// Forms with an address of 64 bits, which have a name of their own.
fn is_absolute(code: Code) -> bool {
    matches!(
        code,
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    )
}

/// A signed number; nothing for 0.
fn push_distance(text: &mut String, distance: u64, style: Style) {
    match distance as i64 {
        0 => {}
        number @ ..0 => {
            text.push('-');
            push_number(text, number.unsigned_abs(), style);
        }
        _ => push_number(text, distance, style),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLES: [Style; 2] = [Style::Manifest, Style::Listing];

    /// Both ways of writing the first instruction of `bytes`; whether it was a plain one.
    fn compared(full: &mut [GasFormatter; 2], bytes: &[u8], at: u64) -> bool {
        let insn = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
        let mut is_plain = false;
        for (full, style) in full.iter_mut().zip(STYLES) {
            if let Some(text) = plain(&insn, style) {
                let mut expected = String::new();
                full.format(&insn, &mut expected);
                assert_eq!(text, expected, "{bytes:02x?}");
                is_plain = true;
            }
            if branch_name(&insn).is_some() {
                let mut expected = String::new();
                full.format_mnemonic(&insn, &mut expected);
                assert_eq!(Disassembler::new(style).mnemonic(&insn), expected, "{bytes:02x?}");
            }
        }
        is_plain
    }

    #[test]
    fn plain_instructions_are_written_as_the_full_formatter_does() {
        let mut full = STYLES.map(formatter);
        // One after the other of the opcodes, with every form of operand and small, large and negative numbers behind.
        let mut plain = 0_u32;
        for prefix in [
            &[][..],
            &[0x48],
            &[0x4d],
            &[0x66],
            &[0x65, 0x48],
            &[0x64],
            &[0xf2],
            &[0xf3],
            &[0xf0],
            &[0x67],
            &[0x0f],
            &[0x3e],
        ] {
            for opcode in 0..=255_u8 {
                for form in 0..=255_u8 {
                    for tail in [[0_u8; 9], [7; 9], [0xff; 9], [0x25, 0x28, 0, 0, 0, 0, 0, 0, 0], [0x80; 9]] {
                        let bytes = [prefix, &[opcode, form], &tail].concat();
                        plain += u32::from(compared(&mut full, &bytes, 0x10));
                    }
                }
            }
        }
        assert!(plain > 100_000, "{plain}");
    }

    #[test]
    fn any_bytes_are_written_as_the_full_formatter_does() {
        let mut full = STYLES.map(formatter);
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut plain = 0_u32;
        for _ in 0..300_000 {
            let bytes = [next().to_le_bytes(), next().to_le_bytes()].concat();
            plain += u32::from(compared(&mut full, &bytes, next() >> 16));
        }
        assert!(plain > 10_000, "{plain}");
    }

    #[test]
    fn the_start_of_a_function_needs_no_tables() {
        let code = [
            &[0x41, 0x57][..],                              // push %r15
            &[0x48, 0x89, 0xe5],                            // mov %rsp,%rbp
            &[0x48, 0x83, 0xec, 0x10],                      // sub $0x10,%rsp
            &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], // mov %gs:0x28,%rax
            &[0x31, 0xc0],                                  // xor %eax,%eax
            &[0x48, 0x8b, 0x47, 0xf8],                      // mov -8(%rdi),%rax
            &[0xe8, 0x67, 0, 0, 0],                         // call, to 0x80
        ]
        .concat();
        let mut decoder = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE);
        assert!(decoder.iter().all(|insn| plain(&insn, Style::Manifest).is_some()));
        let text = disassemble(&code, 0);
        assert_eq!(text[..3], ["push %r15", "mov %rsp,%rbp", "sub $0x10,%rsp"]);
        assert_eq!(text[3..], ["mov %gs:0x28,%rax", "xor %eax,%eax", "mov -8(%rdi),%rax", "call 0x0000000000000084"]);
    }
}
