//! Changes without a meaning: functions in another order, other numbers in the names the compiler numbers. lpbuild must
//! report nothing.

use std::collections::BTreeSet;

use super::binary::{Expect, Mutant};
use super::elf::{At, Elf, Reloc, flags, put_reloc};
use super::random::Random;
use super::reading::{Names, Reading};

/// Alignment of functions.
const ALIGN: u64 = 16;

/// A stretch of code that moves as one: a function and the padding behind it.
#[derive(Clone, Copy)]
struct Piece {
    from: u64,
    to: u64,
    new: u64,
}

/// Two functions of a section change places, with everything that leads to them.
pub fn swapped(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let elf = &reading.elf;
    let texts: Vec<usize> = (0..elf.sections.len()).filter(|s| elf.sections[*s].name == ".text").collect();
    let section = *random.pick(&texts)?;
    let mut starts: BTreeSet<u64> = BTreeSet::new();
    for s in elf.symbols.iter().filter(|s| s.at == At::Section(section) && s.is_function() && s.size > 0) {
        let padded = elf.symbols.iter().any(|p| {
            p.at == s.at && p.name.starts_with("__pfx_") && p.value + p.size == s.value && !s.name.starts_with("__pfx_")
        });
        if !padded {
            starts.insert(s.value);
        }
    }
    let starts: Vec<u64> = starts.into_iter().collect();
    // What is last has no padding behind it.
    let count = starts.len().checked_sub(1)?;
    let (a, b) = (random.below(count), random.below(count));
    let (a, b) = (a.min(b), a.max(b));
    if a == b || starts.iter().any(|s| s % ALIGN != 0) {
        return None;
    }
    let mut order: Vec<usize> = (0..starts.len()).collect();
    order.swap(a, b);
    let size = elf.sections[section].size;
    let end = |i: usize| starts.get(i + 1).copied().unwrap_or(size);
    let mut pieces = vec![Piece { from: 0, to: starts[0], new: 0 }];
    let mut next = starts[0];
    for i in order {
        pieces.push(Piece { from: starts[i], to: end(i), new: next });
        next += end(i) - starts[i];
    }
    let bytes = moved(reading, section, &pieces)?;
    let name = |at: u64| reading.holder(section, at as i64).map(|h| reading.entities[h.0].key.clone());
    let what = format!("{} and {}", name(starts[a])?, name(starts[b])?);
    Some(Mutant { bytes, what, expect: Expect::Nothing, names: Names::Exact })
}

/// The object with the pieces of a section at their new places; nothing when a short jump would not reach.
fn moved(reading: &Reading, section: usize, pieces: &[Piece]) -> Option<Vec<u8>> {
    let elf = &reading.elf;
    let new_of = |at: i64| -> i64 {
        let piece = pieces.iter().find(|p| (p.from as i64..p.to as i64).contains(&at));
        piece.map_or(at, |p| at - p.from as i64 + p.new as i64)
    };
    let mut bytes = elf.bytes.clone();
    let file = elf.sections[section].file.start;
    let old = elf.data(section);
    for p in pieces {
        let to = file + p.new as usize;
        bytes.get_mut(to..to + (p.to - p.from) as usize)?.copy_from_slice(&old[p.from as usize..p.to as usize]);
    }
    // What the assembler resolved: distances between pieces.
    for e in reading.entities.iter().filter(|e| e.section == section) {
        for insn in e.insns.iter().filter(|i| i.is_branch()) {
            if !elf.relocs(section, insn.at, insn.end()).is_empty() {
                continue;
            }
            let target = insn.decoded.near_branch_target() as i64;
            let (end, place) =
                (new_of(insn.at as i64) + (insn.end() - insn.at) as i64, file + new_of(insn.at as i64) as usize);
            let distance = new_of(target) - end;
            if distance == target - insn.end() as i64 {
                continue;
            }
            let len = (insn.end() - insn.at) as usize;
            let near = matches!(old[insn.at as usize..].get(len.checked_sub(5)?), Some(0xe8 | 0xe9))
                || len >= 6 && matches!(old[insn.at as usize + len - 5], 0x80..=0x8f);
            if !near {
                return None;
            }
            bytes[place + len - 4..place + len].copy_from_slice(&i32::try_from(distance).ok()?.to_le_bytes());
        }
    }
    // Relocations, those of debug information too.
    for (index, s) in elf.sections.iter().enumerate() {
        let mut list: Vec<Reloc> = s.relocs.clone();
        for r in &mut list {
            if elf.symbols[r.symbol].is_section() && elf.symbols[r.symbol].at == At::Section(section) {
                let behind = match reading.target(index, r) {
                    super::reading::Place::In(_, offset) => offset - r.addend,
                    super::reading::Place::Outside(..) => return None,
                };
                // An end is that of the piece that ends there: only unwind and debug information have those.
                r.addend = new_of(r.addend + behind) - behind;
            }
            if index == section {
                r.at = new_of(r.at as i64) as u64;
            }
        }
        let mut records: Vec<usize> = list.iter().map(|r| r.record).collect();
        records.sort_unstable();
        list.sort_by_key(|r| r.at);
        for (r, record) in list.iter().zip(records) {
            put_reloc(&mut bytes, &Reloc { record, ..r.clone() });
        }
    }
    for s in elf.symbols.iter().filter(|s| s.at == At::Section(section) && !s.is_section()) {
        let value = new_of(s.value as i64) as u64;
        bytes[s.record + 8..s.record + 16].copy_from_slice(&value.to_le_bytes());
    }
    Some(bytes)
}

/// All static variables of functions get other numbers, as after a line that adds one.
pub fn renumbered(reading: &Reading, random: &mut Random) -> Option<Mutant> {
    let elf = &reading.elf;
    let step = 1 + random.below(8) as u8;
    let mut bytes = elf.bytes.clone();
    let mut done = BTreeSet::new();
    let mut count = 0;
    for s in elf.symbols.iter().filter(|s| s.kind == 1 && s.bind == 0) {
        if !is_numbered(elf, s.at) {
            continue;
        }
        let Some((front, number)) = s.name.rsplit_once('.') else { continue };
        if number.is_empty() || number.len() > 6 || !number.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        count += 1;
        let at = s.name_at + front.len() + 1;
        // Names may share their ends.
        if !done.insert(at) {
            continue;
        }
        let limit = 10u32.pow(number.len() as u32);
        let new = (number.parse::<u32>().ok()? + u32::from(step)) % limit;
        bytes[at..at + number.len()].copy_from_slice(format!("{new:0width$}", width = number.len()).as_bytes());
    }
    (count > 0).then(|| Mutant {
        bytes,
        what: format!("{count} variables, by {step}"),
        expect: Expect::Nothing,
        names: Names::Normal,
    })
}

fn is_numbered(elf: &Elf, at: At) -> bool {
    matches!(at, At::Section(s) if elf.sections[s].is(flags::ALLOC))
}
