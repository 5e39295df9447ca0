//! Is a function still the same? Instruction by instruction, then table entry by table entry.

use std::collections::BTreeSet;

use super::change::Change;
use super::targets::Comparer;
use crate::correlate::{NewAtom, OldAtom};
use crate::symbolize::{AtomId, Entry, Insn, Meaning, Object, Ref, RefKind, Table, Target, Usage};

/// What differs in a pair of instructions.
pub struct Differing<'a> {
    /// Index of the instruction in both functions.
    pub index: usize,
    /// What it is.
    pub what: DifferingPart<'a>,
}

/// The two sides.
pub enum DifferingPart<'a> {
    /// Other bytes, with the fields of references blanked.
    Bytes(&'a [u8], &'a [u8]),
    /// One of the references; all else up to it is the same.
    Reference(&'a Ref, &'a Ref),
}

/// What differs first; nothing when the functions are the same. Pairs for which `excuse` holds do not count.
pub fn difference(
    c: &Comparer<'_>,
    o: OldAtom,
    n: NewAtom,
    changed_constants: &BTreeSet<NewAtom>,
    excuse: &mut dyn FnMut(Differing<'_>) -> bool,
) -> Option<Change> {
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    let (Some(oc), Some(nc)) = (&old.code, &new.code) else { return None };
    if c.old.class(old.section) != c.new.class(new.section) {
        // Same code, but freed after boot, or never to be probed, on one side only.
        let section = |object: &Object, id| object.section(id).name.clone();
        return Some(Change::Section { from: section(c.old, old.section), to: section(c.new, new.section) });
    }
    if oc.insns.len() != nc.insns.len() {
        return Some(Change::Instructions { old: oc.insns.len(), new: nc.insns.len() });
    }
    if c.old.prefix_bytes(o.0) != c.new.prefix_bytes(n.0) {
        return Some(Change::Padding { old: old.prefix, new: new.prefix });
    }
    let (ob, nb) = (c.old.bytes(o.0), c.new.bytes(n.0));
    if oc.trouble.is_some() || nc.trouble.is_some() {
        // Not all of it could be decoded: only the same bytes are the same.
        if ob != nb {
            return Some(Change::Bytes);
        }
        if let Some(at) = c.raw_difference(o, n) {
            return Some(Change::Relocation { at });
        }
    }
    let (mut orefs, mut nrefs) = (&old.refs[..], &new.refs[..]);
    for (index, (io, ino)) in oc.insns.iter().zip(&nc.insns).enumerate() {
        let ro = take(&mut orefs, io);
        let rn = take(&mut nrefs, ino);
        if !same_opcode(ob, io, ro, nb, ino, rn) && !excused(ob, io, ro, nb, ino, rn, index, excuse) {
            return Some(Change::Instruction { at: ino.at.into() });
        }
        for (a, b) in ro.iter().zip(rn) {
            if !c.same_ref(a, b) && !excuse(Differing { index, what: DifferingPart::Reference(a, b) }) {
                return Some(Change::Reference { at: ino.at.into() });
            }
            if let Some(name) = changed_constant(c.new, b, changed_constants) {
                return Some(Change::Constant { name: name.to_owned() });
            }
        }
    }
    entries_differ(c, o.0, n.0, changed_constants)
}

/// Offsets of the first instruction that differs, on both sides; the end of the shorter one when it is only shorter.
pub fn first_difference(c: &Comparer<'_>, o: OldAtom, n: NewAtom) -> Option<(u64, u64)> {
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    let (oc, nc) = (old.code.as_ref()?, new.code.as_ref()?);
    let (ob, nb) = (c.old.bytes(o.0), c.new.bytes(n.0));
    let (mut orefs, mut nrefs) = (&old.refs[..], &new.refs[..]);
    for (io, ino) in oc.insns.iter().zip(&nc.insns) {
        let (ro, rn) = (take(&mut orefs, io), take(&mut nrefs, ino));
        let same = same_opcode(ob, io, ro, nb, ino, rn)
            // Jumps within the function lead elsewhere once anything else has another length.
            && ro.iter().zip(rn).all(|(a, b)| a.usage == Usage::Branch && a.kind == RefKind::Resolved || c.same_ref(a, b));
        if !same {
            return Some((u64::from(io.at), u64::from(ino.at)));
        }
    }
    let last = |i: Option<&Insn>| i.map(|i| u64::from(i.at));
    Some((last(oc.insns.last())?, last(nc.insns.last())?))
}

/// The references of an instruction, taken off those that are left.
fn take<'r>(refs: &mut &'r [Ref], insn: &Insn) -> &'r [Ref] {
    let end = u64::from(insn.at) + u64::from(insn.len);
    let (own, rest) = refs.split_at(refs.iter().take_while(|r| r.at < end).count());
    *refs = rest;
    own
}

/// Asks `excuse` about instructions that differ, with the fields of references blanked.
#[expect(clippy::too_many_arguments, reason = "both sides of one instruction, as for same_opcode")]
fn excused(
    ob: &[u8],
    io: &Insn,
    ro: &[Ref],
    nb: &[u8],
    ino: &Insn,
    rn: &[Ref],
    index: usize,
    excuse: &mut dyn FnMut(Differing<'_>) -> bool,
) -> bool {
    if ro.len() != rn.len() || ro.iter().chain(rn).any(|r| r.usage == Usage::Branch) {
        return false;
    }
    match (blanked(ob, io, ro), blanked(nb, ino, rn)) {
        (Some(old), Some(new)) => excuse(Differing { index, what: DifferingPart::Bytes(&old, &new) }),
        _ => false,
    }
}

/// Up to as many bytes as an instruction can have (Intel SDM vol. 2, 2.3.11), with room for an opcode that got longer.
#[derive(Clone, Copy, Default)]
struct Short {
    bytes: [u8; 16],
    len: usize,
}

impl Short {
    fn of(parts: &[&[u8]]) -> Option<Self> {
        let mut out = Self::default();
        for part in parts {
            out.bytes.get_mut(out.len..out.len + part.len())?.copy_from_slice(part);
            out.len += part.len();
        }
        Some(out)
    }
}

impl std::ops::Deref for Short {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::DerefMut for Short {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

/// The bytes of an instruction.
fn bytes_of<'b>(bytes: &'b [u8], insn: &Insn) -> Option<&'b [u8]> {
    bytes.get(insn.at as usize..insn.at as usize + usize::from(insn.len))
}

/// The same with the fields of references blanked.
fn blanked(bytes: &[u8], insn: &Insn, refs: &[Ref]) -> Option<Short> {
    let mut own = Short::of(&[bytes_of(bytes, insn)?])?;
    for r in refs {
        let at = (r.at - u64::from(insn.at)) as usize;
        if let Some(field) = own.get_mut(at..at + usize::from(r.width)) {
            field.fill(0);
        }
    }
    Some(own)
}

/// Same instruction once the fields of references are blanked; a resolved branch may be short or near.
fn same_opcode(ob: &[u8], io: &Insn, ro: &[Ref], nb: &[u8], ino: &Insn, rn: &[Ref]) -> bool {
    if ro.len() != rn.len() {
        return false;
    }
    let (Some(a), Some(b)) = (bytes_of(ob, io), bytes_of(nb, ino)) else { return false };
    if ro.is_empty() {
        return a == b;
    }
    let branch = |refs: &[Ref]| refs.iter().any(|r| r.usage == Usage::Branch);
    let (a, b) = if branch(ro) && branch(rn) {
        (branch_opcode(a, ro), branch_opcode(b, rn))
    } else {
        (blanked(ob, io, ro), blanked(nb, ino, rn))
    };
    matches!((a, b), (Some(a), Some(b)) if *a == *b)
}

/// Everything before the displacement, in the near form.
fn branch_opcode(bytes: &[u8], refs: &[Ref]) -> Option<Short> {
    let width = refs.iter().find(|r| r.usage == Usage::Branch).map_or(0, |r| usize::from(r.width));
    let opcode = &bytes[..bytes.len().saturating_sub(width)];
    match opcode {
        [prefix @ .., 0xeb] => Short::of(&[prefix, &[0xe9]]),
        [prefix @ .., cc @ 0x70..=0x7f] => Short::of(&[prefix, &[0x0f, cc + 0x10]]),
        _ => Short::of(&[opcode]),
    }
}

fn changed_constant<'o>(new: &'o Object, r: &Ref, changed: &BTreeSet<NewAtom>) -> Option<&'o str> {
    let Target::Section(s, o) = r.target else { return None };
    if changed.is_empty() || r.kind == RefKind::Resolved {
        return None;
    }
    let hit = new.certain(s, o).into_iter().find(|m| changed.contains(&NewAtom(m.atom)))?;
    Some(&new.atom(hit.atom).name)
}

/// ORC follows from the code, and whether an ENDBR is sealed from everything else in the object: not compared.
fn compared(object: &Object, id: AtomId) -> Vec<&Entry> {
    let all = object.atom(id).entries.iter().map(|e| &object.entries[e.0 as usize]);
    all.filter(|e| !matches!(e.table, Table::OrcIp | Table::EndbrSeal)).collect()
}

fn entries_differ(c: &Comparer<'_>, o: AtomId, n: AtomId, changed: &BTreeSet<NewAtom>) -> Option<Change> {
    let (eo, en) = (compared(c.old, o), compared(c.new, n));
    let name = |e: &Entry| c.new.section(e.section).name.clone();
    if eo.len() != en.len() {
        let table = en.first().or(eo.first()).map(|e| name(e)).unwrap_or_default();
        return Some(Change::Entries { old: eo.len(), new: en.len(), table });
    }
    for (a, b) in eo.iter().zip(&en) {
        let at = b.owner.map_or(0, |m| m.delta);
        let same_owner = match (a.owner, b.owner) {
            (Some(x), Some(y)) => place_of(c.old, &x) == place_of(c.new, &y),
            _ => false,
        };
        // Of some tables there are several, named for what they are about.
        let same_table = a.table == b.table && c.old.section(a.section).name == c.new.section(b.section).name;
        if !same_table || !same_owner || !same_entry(c, a, b) {
            return Some(Change::Entry { table: name(b), at });
        }
        if let Some(constant) = b.refs.iter().find_map(|r| changed_constant(c.new, r, changed)) {
            return Some(Change::EntryConstant { table: name(b), name: constant.to_owned() });
        }
    }
    None
}

/// The instruction a place is in and the offset in it; the offset in the function when no instruction is there.
fn place_of(object: &Object, m: &Meaning) -> (Option<usize>, i64) {
    let insns = object.atom(m.atom).code.as_ref().map_or(&[][..], |c| &c.insns[..]);
    let index = insns.partition_point(|i| i64::from(i.at) <= m.delta).checked_sub(1);
    let inside = index.filter(|i| m.delta < i64::from(insns[*i].at) + i64::from(insns[*i].len));
    (inside, inside.map_or(m.delta, |i| m.delta - i64::from(insns[i].at)))
}

fn same_entry(c: &Comparer<'_>, a: &Entry, b: &Entry) -> bool {
    let masked = |e: &Entry| {
        let mut bytes = e.bytes.clone();
        for r in &e.refs {
            if let Some(field) = bytes.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
                field.fill(0);
            }
        }
        // u16 line (include/asm-generic/bug.h): only printed.
        match (e.table, bytes.len()) {
            (Table::Bugs, 12) => bytes[8..10].fill(0),
            (Table::Bugs, 16) => bytes[12..14].fill(0),
            _ => {}
        }
        bytes
    };
    let is_replacement = |e: &Entry, r: &Ref| e.table == Table::Alternatives && r.at == 4;
    let fields = a.refs.len() == b.refs.len()
        && a.refs.iter().zip(&b.refs).all(|(x, y)| x.at == y.at && (is_replacement(a, x) || c.same_ref(x, y)));
    if masked(a) != masked(b) || !fields {
        return false;
    }
    match (&a.replacement, &b.replacement) {
        (Some(x), Some(y)) => {
            let blank = |bytes: &[u8], refs: &[Ref]| {
                let mut bytes = bytes.to_vec();
                for r in refs {
                    if let Some(f) = bytes.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
                        f.fill(0);
                    }
                }
                bytes
            };
            blank(&x.bytes, &x.refs) == blank(&y.bytes, &y.refs)
                && x.refs.len() == y.refs.len()
                && x.refs.iter().zip(&y.refs).all(|(p, q)| p.at == q.at && c.same_ref(p, q))
        }
        (None, None) => true,
        _ => false,
    }
}
