//! Mutants of a compiled object: one field, byte or reference changed, by a rule that says what that means.
//!
//! Input: an object that was read, and random numbers. Output: the file with the change. Nothing is compiled, so one object
//! serves for hundreds of mutants. What moves things about without changing their meaning is in `moves`.

use iced_x86::{Decoder, DecoderOptions, OpKind};

use super::elf::{At, Reloc, flags, put_reloc, reloc};
use super::moves;
use super::random::Random;
use super::reading::{Entity, Insn, Kind, Names, Place, Reading};

/// What a mutation is known to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This entity means something else now.
    Changes(String),
    /// Whether anything does is for the comparison to say: a string nobody reads, a reference to equal content.
    Compared,
    /// Nothing does.
    Nothing,
}

/// A changed object.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The file.
    pub bytes: Vec<u8>,
    /// What was done, for people.
    pub what: String,
    /// What that does.
    pub expect: Expect,
    /// Whether names count.
    pub names: Names,
}

type Rule = fn(&Reading, &mut Random) -> Option<Mutant>;

/// Rules by name, with how often each is tried.
const RULES: &[(&str, usize, Rule)] = &[
    ("immediate", 4, immediate),
    ("displacement", 3, displacement),
    ("condition", 3, condition),
    ("opcode", 3, opcode),
    ("data", 4, data),
    ("string", 3, string),
    ("reference", 6, reference),
    ("addend", 3, addend),
    ("entry", 4, entry),
    ("replacement", 2, replacement),
    ("swapped", 2, moves::swapped),
    ("renumbered", 2, moves::renumbered),
];

/// Tries before a rule is given up.
const TRIES: usize = 40;

/// One mutant; nothing when no rule finds anything in this object.
pub fn mutate(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let all: usize = RULES.iter().map(|r| r.1).sum();
    for _ in 0..TRIES {
        let mut at = random.below(all);
        let rule = RULES.iter().find(|r| {
            let found = at < r.1;
            at = at.wrapping_sub(r.1);
            found
        });
        let (name, _, rule) = rule?;
        for _ in 0..TRIES {
            if let Some(mut mutant) = rule(reading, random) {
                mutant.what = format!("{name}: {}", mutant.what);
                return Some(mutant);
            }
        }
    }
    None
}

/// A mutant of one field of one function, by a rule whose result always differs: what a fix of that function could be.
pub fn fix_of(reading: &Reading, function: usize, random: &mut Random) -> Option<Mutant> {
    let e = reading.entities.get(function)?;
    (0..TRIES).find_map(|_| {
        let insn = random.pick(&e.insns)?;
        match random.below(3) {
            0 => condition_of(reading, e, insn),
            1 => constant_of(reading, e, insn, true, random),
            _ => constant_of(reading, e, insn, false, random),
        }
    })
}

/// Functions, pieces of functions included.
pub fn functions(reading: &Reading) -> Vec<usize> {
    let all = 0..reading.entities.len();
    all.filter(|e| reading.entities[*e].kind == Kind::Code && reading.entities[*e].insns.len() > 1).collect()
}

fn instruction<'r>(reading: &'r Reading, random: &mut Random) -> Option<(&'r Entity, &'r Insn)> {
    let e = &reading.entities[*random.pick(&functions(reading))?];
    Some((e, random.pick(&e.insns)?))
}

/// The bytes of an instruction.
fn bytes_of<'r>(reading: &'r Reading, e: &Entity, insn: &Insn) -> &'r [u8] {
    reading.elf.data(e.section).get(insn.at as usize..insn.end() as usize).unwrap_or(&[])
}

/// Gives an instruction other bytes, which must be one instruction of the same length that differs.
fn replaced(reading: &Reading, e: &Entity, insn: &Insn, new: &[u8]) -> Option<Mutant> {
    let decoded = Decoder::with_ip(64, new, insn.at, DecoderOptions::NONE).decode();
    let old = bytes_of(reading, e, insn);
    if decoded.is_invalid() || decoded.len() != new.len() || new == old {
        return None;
    }
    let file = reading.elf.sections[e.section].file.start + insn.at as usize;
    let mut bytes = reading.elf.bytes.clone();
    bytes[file..file + new.len()].copy_from_slice(new);
    let what = format!("{} at {}+{:#x}: {} became {decoded}", e.names.first()?, "", insn.at - e.start, insn.decoded);
    Some(Mutant {
        bytes,
        what: what.replace(" at +", "+"),
        expect: Expect::Changes(e.key.clone()),
        names: Names::Exact,
    })
}

fn immediate(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, insn) = instruction(reading, random)?;
    constant_of(reading, e, insn, true, random)
}

fn displacement(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, insn) = instruction(reading, random)?;
    constant_of(reading, e, insn, false, random)
}

/// Another immediate or displacement, where no relocation fills it in.
fn constant_of(reading: &Reading, e: &Entity, insn: &Insn, immediate: bool, random: &mut Random) -> Option<Mutant> {
    let mut new = bytes_of(reading, e, insn).to_vec();
    let mut decoder = Decoder::with_ip(64, &new, insn.at, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let place = decoder.get_constant_offsets(&decoded);
    let (at, size) = match immediate {
        true if place.has_immediate() && !insn.is_branch() => (place.immediate_offset(), place.immediate_size()),
        false if place.has_displacement() && !insn.is_branch() => {
            (place.displacement_offset(), place.displacement_size())
        }
        _ => return None,
    };
    let byte = at + random.below(size);
    if size == 0 || reading.elf.is_relocated(e.section, insn.at + byte as u64) {
        return None;
    }
    new[byte] ^= 1 << random.below(8);
    replaced(reading, e, insn, &new)
}

fn condition(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, insn) = instruction(reading, random)?;
    condition_of(reading, e, insn)
}

/// The opposite condition of a jump.
fn condition_of(reading: &Reading, e: &Entity, insn: &Insn) -> Option<Mutant> {
    let mut new = bytes_of(reading, e, insn).to_vec();
    match &mut new[..] {
        [op @ 0x70..=0x7f, _] => *op ^= 1,
        [0x0f, op @ 0x80..=0x8f, ..] => *op ^= 1,
        _ => return None,
    }
    replaced(reading, e, insn, &new)
}

/// Any other bit that leaves an instruction of the same length.
fn opcode(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, insn) = instruction(reading, random)?;
    let mut new = bytes_of(reading, e, insn).to_vec();
    let byte = random.below(new.len().min(3));
    // A branch elsewhere, perhaps out of the function, is for the rules of references.
    if insn.is_branch() || reading.elf.is_relocated(e.section, insn.at + byte as u64) {
        return None;
    }
    new[byte] ^= 1 << random.below(8);
    let decoded = Decoder::with_ip(64, &new, insn.at, DecoderOptions::NONE).decode();
    let becomes_branch = decoded.op_count() > 0 && decoded.op0_kind() == OpKind::NearBranch64;
    if becomes_branch { None } else { replaced(reading, e, insn, &new) }
}

/// A byte of the file at an offset of a section.
fn poked(reading: &Reading, section: usize, at: u64, to: u8) -> Option<Vec<u8>> {
    let file = reading.elf.sections[section].file.start + at as usize;
    let mut bytes = reading.elf.bytes.clone();
    *bytes.get_mut(file).filter(|b| **b != to)? = to;
    Some(bytes)
}

fn data(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let e = random.pick(&reading.entities)?;
    let section = &reading.elf.sections[e.section];
    if section.is(flags::EXEC) || section.file.is_empty() || e.end == e.start {
        return None;
    }
    let at = e.start + random.below((e.end - e.start) as usize) as u64;
    let was = *reading.elf.data(e.section).get(at as usize)?;
    // The line of a descriptor of pr_debug is printed and nothing else (include/linux/dynamic_debug.h).
    let is_line = section.name == "__dyndbg" && (32..36).contains(&((at - e.start) % 56));
    if reading.elf.is_relocated(e.section, at) || is_line {
        return None;
    }
    let bytes = poked(reading, e.section, at, was ^ (1 << random.below(8)))?;
    let name = e.names.first().unwrap_or(&e.key);
    let expect = if e.kind == Kind::Unnamed { Expect::Compared } else { Expect::Changes(e.key.clone()) };
    Some(Mutant { bytes, what: format!("{name}+{:#x} in {}", at - e.start, section.name), expect, names: Names::Exact })
}

fn string(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let sections: Vec<usize> = (0..reading.elf.sections.len())
        .filter(|s| {
            let s = &reading.elf.sections[*s];
            s.is(flags::MERGE) && s.is(flags::ALLOC) && !s.file.is_empty()
        })
        .collect();
    let section = *random.pick(&sections)?;
    let at = random.below(reading.elf.data(section).len());
    let was = reading.elf.data(section)[at];
    let to = was ^ (1 << random.below(5));
    if reading.elf.sections[section].is(flags::STRINGS) && (was == 0 || to == 0) {
        return None;
    }
    let bytes = poked(reading, section, at as u64, to)?;
    let what = format!("{}+{at:#x}", reading.elf.sections[section].name);
    Some(Mutant { bytes, what, expect: Expect::Compared, names: Names::Exact })
}

/// A relocation of something that is read as an entity.
fn field<'r>(reading: &'r Reading, random: &mut Random) -> Option<(&'r Entity, &'r Reloc)> {
    let e = random.pick(&reading.entities)?;
    let r = random.pick(reading.elf.relocs(e.section, e.start, e.end))?;
    Some((e, r))
}

/// Leads a field to where another field of the object leads.
pub fn redirected(reading: &Reading, section: usize, r: &Reloc, random: &mut Random) -> Option<(Vec<u8>, String)> {
    let symbol = &reading.elf.symbols[r.symbol];
    let fits = |at: At| match (symbol.at, at) {
        (At::Undefined, At::Undefined) => true,
        (At::Section(a), At::Section(b)) => {
            let (a, b) = (&reading.elf.sections[a], &reading.elf.sections[b]);
            a.is(flags::EXEC) == b.is(flags::EXEC) && b.is(flags::ALLOC)
        }
        _ => false,
    };
    let others: Vec<&Reloc> = reading
        .elf
        .sections
        .iter()
        .filter(|s| s.is(flags::ALLOC) && !s.name.starts_with('_') && !s.name.starts_with(".orc"))
        .flat_map(|s| &s.relocs)
        .filter(|o| fits(reading.elf.symbols[o.symbol].at) && (o.symbol, o.addend) != (r.symbol, r.addend))
        .filter(|o| reloc::is_relative(o.kind) == reloc::is_relative(r.kind))
        .collect();
    let other = *random.pick(&others)?;
    let new = Reloc { symbol: other.symbol, addend: other.addend, ..r.clone() };
    let mut bytes = reading.elf.bytes.clone();
    put_reloc(&mut bytes, &new);
    let lead = |r: &Reloc| reading.show(&reading.target(section, r), 0);
    Some((bytes, format!("leads to {} instead of {}", lead(&new), lead(r))))
}

fn reference(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, r) = field(reading, random)?;
    let (bytes, what) = redirected(reading, e.section, r, random)?;
    let what = format!("{}+{:#x} {what}", e.names.first().unwrap_or(&e.key), r.at - e.start);
    Some(Mutant { bytes, what, expect: Expect::Compared, names: Names::Exact })
}

fn addend(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let (e, r) = field(reading, random)?;
    let step = *random.pick(&[1i64, 4, 8, -8, 16])?;
    // Into the middle of a call there is nothing.
    let branch = e.insns.iter().any(|i| i.at <= r.at && r.at < i.end() && i.is_branch());
    let to_code = matches!(reading.target(e.section, r), Place::In(s, _) if reading.elf.sections[s].is(flags::EXEC));
    if branch || to_code {
        return None;
    }
    let mut bytes = reading.elf.bytes.clone();
    put_reloc(&mut bytes, &Reloc { addend: r.addend + step, ..r.clone() });
    let name = e.names.first().unwrap_or(&e.key);
    let what = format!("{}+{:#x} leads {step:+} further: {:?}", name, r.at - e.start, reading.target(e.section, r));
    Some(Mutant { bytes, what, expect: Expect::Compared, names: Names::Exact })
}

/// A field of an entry of a table.
fn entry(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let entry = random.pick(&reading.entries)?;
    let name = reading.elf.sections[entry.section].name.as_str();
    let owner = &reading.entities[entry.owner];
    let about = format!("{name} of {}+{:#x}", owner.names.first().unwrap_or(&owner.key), entry.about - owner.start);
    let byte = match name {
        // u16 flags (include/asm-generic/bug.h).
        "__bug_table" => 10 + random.below(2),
        // How to go on after the exception (arch/x86/include/asm/extable_fixup_types.h).
        "__ex_table" => 8 + random.below(4),
        // cpuid, flags; the lengths would claim other bytes.
        ".altinstructions" => 8 + random.below(entry.size as usize - 10),
        ".parainstructions" => 8,
        // The key, with the kind of branch in its low bits (include/linux/jump_label.h), and of the call.
        "__jump_table" | ".static_call_sites" => {
            let at = if name == "__jump_table" { 8 } else { 4 };
            let from = entry.start + at;
            let r = reading.elf.relocs(entry.section, from, from + 1).first()?;
            let (bytes, what) = if random.below(2) == 0 {
                redirected_key(reading, entry.section, r, at, random)?
            } else {
                let mut bytes = reading.elf.bytes.clone();
                put_reloc(&mut bytes, &Reloc { addend: r.addend ^ 1, ..r.clone() });
                (bytes, "has another low bit".into())
            };
            return Some(Mutant {
                bytes,
                what: format!("{about} {what}"),
                expect: Expect::Changes(owner.key.clone()),
                names: Names::Exact,
            });
        }
        _ => return None,
    };
    let at = entry.start + byte as u64;
    let was = *reading.elf.data(entry.section).get(at as usize)?;
    let bytes = poked(reading, entry.section, at, was ^ (1 << random.below(8)))?;
    let expect = Expect::Changes(owner.key.clone());
    Some(Mutant { bytes, what: format!("{about}, byte {byte}"), expect, names: Names::Exact })
}

/// Another key of the same table.
fn redirected_key(
    reading: &Reading,
    section: usize,
    r: &Reloc,
    at: u64,
    random: &mut Random,
) -> Option<(Vec<u8>, String)> {
    let size = if at == 8 { 16 } else { 8 };
    let all = reading.elf.sections[section].relocs.iter();
    let others: Vec<&Reloc> =
        all.filter(|o| o.at % size == at && (o.symbol, o.addend & !3) != (r.symbol, r.addend & !3)).collect();
    let other = *random.pick(&others)?;
    let mut bytes = reading.elf.bytes.clone();
    put_reloc(&mut bytes, &Reloc { symbol: other.symbol, addend: other.addend, ..r.clone() });
    Some((bytes, format!("has the key {}", reading.show(&reading.target(section, other), 0))))
}

/// A byte of a replacement instruction.
fn replacement(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let alternatives: Vec<_> =
        reading.entries.iter().filter(|e| reading.elf.sections[e.section].name == ".altinstructions").collect();
    let entry = random.pick(&alternatives)?;
    let (section, from, len) = reading.replacement(entry.section, entry.start, entry.size)?;
    let at = from + random.below(len as usize) as u64;
    if len == 0 || reading.elf.is_relocated(section, at) {
        return None;
    }
    let code = reading.elf.data(section).get(from as usize..(from + len) as usize)?;
    let mut new = code.to_vec();
    new[(at - from) as usize] ^= 1 << random.below(8);
    // Still the same number of instructions of the same lengths, or it would be another kind of object.
    let lengths = |code: &[u8]| {
        let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        decoder.into_iter().map(|i| (!i.is_invalid()).then_some(i.len())).collect::<Option<Vec<_>>>()
    };
    if lengths(code)? != lengths(&new)? {
        return None;
    }
    let bytes = poked(reading, section, at, new[(at - from) as usize])?;
    let owner = &reading.entities[entry.owner];
    let what = format!("of {}+{:#x}, byte {}", owner.key, entry.about - owner.start, at - from);
    Some(Mutant { bytes, what, expect: Expect::Changes(owner.key.clone()), names: Names::Exact })
}
