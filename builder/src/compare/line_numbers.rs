//! Line numbers as operands (`__LINE__`): functions that differ in nothing else are the same.
//!
//! An immediate that differs counts as a line number only when everything speaks for it:
//!
//! 1. it is only handed on: moved to a register or the stack on the straight way to a call, never compared or computed with;
//! 2. the line table of the old object says that this instruction, or one on the way to that call, comes from the line the
//!    old value names; the table of the new object says the same of the new value, for the same instruction and file;
//! 3. the call also gets the name of that file (`__FILE__`, or a part of it), or that of a function (`__func__`); or every
//!    other call of the same function in the object gets its own line there, and there is another one.
//!
//! A string that differs counts when the number stands behind the name of the file (`net/core/dev.c:123`) and is proven so
//! by the tables.
//!
//! So a constant that happens to be the number of its own line stays a change unless all three hold by accident, on both
//! sides. Without line tables, everything stays a change. What is recognised is reported as ignored.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::isa::{Code, Decoder, DecoderOptions, OpKind};

use super::function::{self, Differing, DifferingPart};
use super::line_table::LineTable;
use super::targets::Comparer;
use crate::correlate::{NewAtom, OldAtom};
use crate::symbolize::base_name;
use crate::symbolize::{Atom, AtomId, Class, Decoded, Insn, Object, Ref, Target, Usage};

/// What is read from both objects at the first question.
#[derive(Debug, Default)]
pub struct LineEvidence {
    tables: Option<Tables>,
}

#[derive(Debug)]
struct Tables {
    old: LineTable,
    new: LineTable,
    /// Of the old object.
    calls: FxHashMap<Target, Vec<(AtomId, usize)>>,
}

/// A pair of instructions that differ in a number.
struct Found {
    index: usize,
    old: u64,
    new: u64,
    rest: Rest,
}

/// What both sides have besides the number.
enum Rest {
    /// An operand: the bytes of the instruction with the number blanked.
    Operand(Vec<u8>),
    /// A number in a string it refers to: the text in front of it.
    Text(Vec<u8>),
}

/// Instructions between a number and the call that gets it.
const REACH: usize = 32;

impl LineEvidence {
    /// Do the functions differ in proven line numbers only?
    pub fn only_line_numbers(&mut self, c: &Comparer<'_>, o: OldAtom, n: NewAtom, changed: &BTreeSet<NewAtom>) -> bool {
        if c.old.image.line_info.line.is_empty() || c.new.image.line_info.line.is_empty() {
            return false;
        }
        let mut found: Vec<Found> = Vec::new();
        let mut collect = |d: Differing<'_>| {
            let number = match d.what {
                DifferingPart::Bytes(old, new) => operands(d.index, old, new),
                DifferingPart::Reference(old, new) => texts(c, d.index, old, new),
            };
            number.map(|n| found.push(n)).is_some()
        };
        if function::difference(c, o, n, changed, &mut collect).is_some() || found.is_empty() {
            return false;
        }
        let tables = self.tables.get_or_insert_with(|| Tables {
            old: LineTable::read(&c.old.image),
            new: LineTable::read(&c.new.image),
            calls: calls(c.old),
        });
        let sides = Sides { c, o, n, tables };
        found.iter().all(|f| sides.proven(f))
    }
}

/// No file of the kernel has more lines; that leaves out addresses, errors and masks.
const LINES: std::ops::Range<u64> = 1..1_000_000;

/// The immediates of two instructions that differ in nothing else and only hand the number on.
fn operands(index: usize, old: &[u8], new: &[u8]) -> Option<Found> {
    let (old, new) = (immediate(old)?, immediate(new)?);
    let fits = old.1 == new.1 && LINES.contains(&old.0) && LINES.contains(&new.0);
    fits.then_some(Found { index, old: old.0, new: new.0, rest: Rest::Operand(new.1) })
}

/// The numbers behind `FILE:` of two strings that differ in nothing else: `__FILE__ ":" __stringify(__LINE__)`, as in the
/// messages of memcpy (include/linux/fortify-string.h).
fn texts(c: &Comparer<'_>, index: usize, old: &Ref, new: &Ref) -> Option<Found> {
    let text = |object: &'_ Object, r: &Ref| match r.target {
        Target::Section(s, o) if object.class(s) == Class::Strings => object.constant_at(s, o).map(<[u8]>::to_vec),
        _ => None,
    };
    if (old.kind, old.width, old.usage) != (new.kind, new.width, new.usage) {
        return None;
    }
    let (old, new) = (text(c.old, old)?, text(c.new, new)?);
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let front = old[..same].iter().rposition(|b| !b.is_ascii_digit())? + 1;
    let number = |text: &[u8]| {
        let rest = &text[front..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        LINES.contains(&number).then(|| (number, rest[digits..].to_vec()))
    };
    let (was, is) = (number(&old)?, number(&new)?);
    (was.1 == is.1).then(|| Found { index, old: was.0, new: is.0, rest: Rest::Text(old[..front].to_vec()) })
}

/// The number an instruction hands on, and its bytes with the number blanked.
fn immediate(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let insn = decoder.decode();
    let place = decoder.get_constant_offsets(&insn);
    let hands_on = matches!(
        insn.code(),
        Code::Mov_r32_imm32
            | Code::Mov_rm32_imm32
            | Code::Mov_rm64_imm32
            | Code::Mov_r64_imm64
            | Code::Mov_rm16_imm16
            | Code::Mov_r16_imm16
            | Code::Pushq_imm32
            | Code::Pushq_imm8
    );
    if !hands_on || insn.len() != bytes.len() || !place.has_immediate() {
        return None;
    }
    let operand = (0..insn.op_count()).find(|i| !matches!(insn.op_kind(*i), OpKind::Register | OpKind::Memory))?;
    let mut rest = bytes.to_vec();
    let at = place.immediate_offset();
    rest.get_mut(at..at + place.immediate_size())?.fill(0);
    Some((insn.immediate(operand), rest))
}

struct Sides<'a, 'c> {
    c: &'a Comparer<'c>,
    o: OldAtom,
    n: NewAtom,
    tables: &'a Tables,
}

impl Sides<'_, '_> {
    fn proven(&self, found: &Found) -> bool {
        let (o, n, t) = (self.c.old.atom(self.o.0), self.c.new.atom(self.n.0), self.tables);
        let (Some(old), Some(new)) = (&o.code, &n.code) else { return false };
        let run = match (&found.rest, run(self.c.new, n, new, found.index)) {
            (_, Some(run)) => run,
            // A pointer to a text may be used in any way.
            (Rest::Text(_), None) => (start_of_run(n, &new.insns, found.index)..=found.index).collect(),
            (Rest::Operand(_), None) => return false,
        };
        let lines = run.iter().filter_map(|i| {
            let i = *i;
            let (a, b) = (old.insns.get(i)?, new.insns.get(i)?);
            let was = t.old.at(o.section, o.start + u64::from(a.at)).find(|(_, line)| *line == found.old)?.0;
            let mut is = t.new.at(n.section, n.start + u64::from(b.at));
            is.any(|(file, line)| line == found.new && file == was).then_some(was)
        });
        let files: Vec<&str> = lines.collect();
        match &found.rest {
            Rest::Text(front) => front.strip_suffix(b":").is_some_and(|f| files.iter().any(|file| is_name(f, file))),
            Rest::Operand(rest) => {
                let Some((call, before)) = run.split_last() else { return false };
                let mut handed = before.iter().flat_map(|i| refs_of(n, &new.insns[*i]));
                !files.is_empty()
                    && (handed.any(|r| names(self.c.new, r, &files))
                        || self.always_a_line(&old.insns[*call], found.old, rest))
            }
        }
    }

    /// Does every other call of the same function in the old object get its own line in this register, and is there one?
    fn always_a_line(&self, call: &Insn, own: u64, rest: &[u8]) -> bool {
        let object = self.c.old;
        let Some(target) = callee(object.atom(self.o.0), call) else { return false };
        let mut others = 0;
        for (id, index) in self.tables.calls.get(&target).into_iter().flatten() {
            let atom = object.atom(*id);
            let Some(code) = atom.code.as_ref().filter(|c| *id != self.o.0 || c.insns[*index].at != call.at) else {
                continue;
            };
            let first = start_of_run(atom, &code.insns, *index);
            let bytes = object.bytes(*id);
            let number = (first..*index).rev().find_map(|i| {
                let insn = code.insns[i];
                let bytes = bytes.get(insn.at as usize..insn.at as usize + usize::from(insn.len))?;
                immediate(bytes).filter(|i| i.1 == rest)
            });
            let Some((number, _)) = number else { continue };
            let comes_from = |i: usize| {
                let at = atom.start + u64::from(code.insns[i].at);
                self.tables.old.at(atom.section, at).any(|(_, line)| line == number)
            };
            // A line that inlined code with branches keeps apart from the call neither speaks for nor against it.
            if (first..=*index).any(comes_from) {
                others += usize::from(number != own);
            } else if !(0..code.insns.len()).any(comes_from) {
                return false;
            }
        }
        others > 0
    }
}

fn branches(atom: &Atom, insn: &Insn) -> bool {
    callee(atom, insn).is_some()
}

/// The references of an instruction.
fn refs_of<'a>(atom: &'a Atom, insn: &Insn) -> impl Iterator<Item = &'a Ref> {
    let (start, end) = (u64::from(insn.at), u64::from(insn.at) + u64::from(insn.len));
    let first = atom.refs.partition_point(|r| r.at < start);
    atom.refs[first..].iter().take_while(move |r| r.at < end)
}

/// Where an instruction branches to.
fn callee(atom: &Atom, insn: &Insn) -> Option<Target> {
    refs_of(atom, insn).find(|r| r.usage == Usage::Branch).map(|r| r.target)
}

/// The plain instructions around `index` up to the call they lead to, which is the last: cold code of several places often
/// shares one, so jumps within the function are followed.
fn run(object: &Object, atom: &Atom, code: &Decoded, index: usize) -> Option<Vec<usize>> {
    let mut run: Vec<usize> = (start_of_run(atom, &code.insns, index)..=index).collect();
    let mut at = index + 1;
    for _ in 0..REACH {
        let insn = code.insns.get(at)?;
        run.push(at);
        if insn.is_call || insn.ends_flow && tail_call(object, atom, insn) {
            return Some(run);
        }
        at = match callee(atom, insn) {
            Some(Target::Section(section, offset)) if insn.ends_flow && section == atom.section => {
                code.index_at(u64::try_from(offset).ok()?.checked_sub(atom.start)?)?
            }
            None if !insn.ends_flow => at + 1,
            _ => return None,
        };
    }
    None
}

/// Is it a jump to another function, and not the one that returns?
fn tail_call(object: &Object, atom: &Atom, insn: &Insn) -> bool {
    match callee(atom, insn) {
        Some(Target::Extern(symbol, _)) => object.symbol_name(symbol) != "__x86_return_thunk",
        Some(Target::Section(section, offset)) => {
            object.containing(section, offset).is_some_and(|m| m.atom != atom.id && m.delta == 0)
        }
        None => false,
    }
}

fn start_of_run(atom: &Atom, insns: &[Insn], index: usize) -> usize {
    let ends = |i: &usize| insns[*i].is_call || insns[*i].ends_flow || branches(atom, &insns[*i]);
    (index.saturating_sub(REACH)..index).rev().find(ends).map_or(index.saturating_sub(REACH), |i| i + 1)
}

/// Every call of the object by what is called.
fn calls(object: &Object) -> FxHashMap<Target, Vec<(AtomId, usize)>> {
    let mut out: FxHashMap<Target, Vec<(AtomId, usize)>> = FxHashMap::default();
    for atom in &object.atoms {
        let insns = atom.code.as_ref().map_or(&[][..], |c| &c.insns);
        for (index, insn) in insns.iter().enumerate().filter(|(_, i)| i.is_call) {
            if let Some(target) = callee(atom, insn) {
                out.entry(target).or_default().push((atom.id, index));
            }
        }
    }
    out
}

/// Is what `r` refers to the name of one of the files, without or with folders, or of a function?
fn names(object: &Object, r: &Ref, files: &[&str]) -> bool {
    let Target::Section(section, offset) = r.target else { return false };
    if let Some(m) = object.containing(section, offset) {
        let name = base_name(&object.atom(m.atom).name);
        if matches!(&*name, "__func__" | "__FUNCTION__" | "__PRETTY_FUNCTION__") {
            return true;
        }
    }
    if object.class(section) != Class::Strings {
        return false;
    }
    let Some(text) = object.constant_at(section, offset).and_then(|t| t.strip_suffix(b"\0")) else { return false };
    files.iter().any(|file| is_name(text, file))
}

/// Does the text end with the name of the file, and not within another name?
fn is_name(text: &[u8], file: &str) -> bool {
    let front = text.strip_suffix(file.as_bytes()).filter(|_| !file.is_empty());
    front.is_some_and(|f| f.last().is_none_or(|b| matches!(b, b'/' | b' ' | b'\t' | b'"' | b'(')))
}
