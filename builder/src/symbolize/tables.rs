//! Takes the per-instruction tables apart and hangs every entry on the atom its first field points into.
//!
//! All tables have the same plan: fixed-size entries whose first field refers to the instruction. `.orc_unwind` has no
//! references of its own and is read together with `.orc_unwind_ip`.

use super::code::{refs_of, replacement_refs};
use super::known_sections::{self, Fate};
use super::layout;
use super::{AtomId, Class, Meaning, Object, Ref, RefKind, Table, Target, TextKind};
use crate::ingest::SectionId;

/// Index of an entry in [`Object::entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u32);

/// One table entry.
#[derive(Debug)]
pub struct Entry {
    /// Which table.
    pub table: Table,
    /// The section it is in.
    pub section: SectionId,
    /// Offset in the section.
    pub start: u64,
    /// The entry's bytes as in the file; for `OrcIp` the 6 (or more) bytes of the `.orc_unwind` entry follow.
    pub bytes: Vec<u8>,
    /// References, by offset in the entry.
    pub refs: Vec<Ref>,
    /// The atom the entry belongs to and the offset in it.
    pub owner: Option<Meaning>,
    /// For alternatives: the replacement instructions.
    pub replacement: Option<Box<Replacement>>,
}

/// The replacement instructions of an alternative.
#[derive(Debug)]
pub struct Replacement {
    /// The code.
    pub bytes: Vec<u8>,
    /// Its references.
    pub refs: Vec<Ref>,
    /// What could not be understood in it.
    pub trouble: Option<String>,
}

impl Entry {
    /// Bytes of code at the owner the kernel rewrites or reads for this entry, if the entry says so.
    pub fn patched_len(&self) -> Option<u64> {
        let at = match (self.table, self.bytes.len()) {
            (Table::Alternatives, 12) => 10, // s32 instr, s32 repl, u16 cpuid, u8 instrlen, u8 replacementlen
            (Table::Alternatives, 14) => 12, // s32 instr, s32 repl, u32 cpuid + flags, u8 instrlen, u8 replacementlen
            (Table::Paravirt, 16) => 9,      // u64 instr, u8 type, u8 len
            _ => return None,
        };
        self.bytes.get(at).map(|b| u64::from(*b))
    }
}

impl Object {
    /// Where the kernel itself, or the module loader, may write to the instructions of an atom: ranges in it. Locks lose or get
    /// one byte in front of the instruction, and calls another destination by themselves; those are not among them.
    pub fn rewritten(&self, id: AtomId) -> Vec<std::ops::Range<u64>> {
        let entries = self.atom(id).entries.iter().filter_map(|e| self.entries.get(e.0 as usize));
        entries.filter_map(|e| self.rewritten_for(id, e)).collect()
    }

    /// The same for one of its entries.
    pub fn rewritten_for(&self, id: AtomId, entry: &Entry) -> Option<std::ops::Range<u64>> {
        let passive = matches!(
            entry.table,
            Table::OrcIp
                | Table::Orc
                | Table::EndbrSeal
                | Table::Calls
                | Table::SmpLocks
                | Table::Bugs
                | Table::Exceptions
        );
        let start = entry.owner.filter(|_| !passive)?.delta as u64;
        let code = self.atom(id).code.as_ref();
        let insn = code.and_then(|c| c.covering(start)).map_or(1, |i| u64::from(i.len));
        Some(start..start.saturating_add(entry.patched_len().unwrap_or(insn)))
    }
}

/// Parses all tables.
pub fn attach(object: &mut Object) {
    let sections: Vec<(SectionId, Table)> = (0..object.image.sections.len() as u32)
        .map(SectionId)
        .filter_map(|id| match object.class(id) {
            Class::Table(t) if t != Table::Orc => Some((id, t)),
            _ => None,
        })
        .collect();
    let mut entries = std::mem::take(&mut object.entries);
    for (id, table) in sections {
        let before = entries.len();
        if let Err(what) = parse(object, id, table, &mut entries) {
            entries.truncate(before);
            object.odd_tables.push((id, what));
        }
    }
    object.entries = entries;
    for (id, section) in (0u32..).map(SectionId).zip(&object.image.sections) {
        let known = known_sections::find(&section.name).filter(|k| k.fate == Fate::Unsupported && section.size > 0);
        object.odd_tables.extend(known.map(|k| (id, k.why.to_owned())));
    }
    for index in 0..object.entries.len() {
        let Some(owner) = object.entries[index].owner else { continue };
        object.atoms[owner.atom.0 as usize].entries.push(EntryId(index as u32));
    }
    for index in 0..object.atoms.len() {
        let mut list = std::mem::take(&mut object.atoms[index].entries);
        list.sort_by_key(|e| {
            let entry = &object.entries[e.0 as usize];
            (entry.table, entry.owner.map(|o| o.delta), entry.start)
        });
        object.atoms[index].entries = list;
    }
    note_interior_pointers(object);
}

/// Adds the entries of one table.
fn parse(object: &Object, id: SectionId, table: Table, entries: &mut Vec<Entry>) -> Result<(), String> {
    let section = object.section(id);
    if section.size == 0 {
        return Ok(());
    }
    let stride = stride(object, id, table)?;
    let orc = if table == Table::OrcIp { Some(orc_entries(object, section.size / 4)?) } else { None };
    entries.reserve((section.size / stride) as usize);
    let mut relocs = &section.relocs[..];
    for start in (0..section.size).step_by(stride as usize) {
        let (own, rest) = relocs.split_at(relocs.iter().take_while(|r| r.offset < start + stride).count());
        relocs = rest;
        let mut bytes = section.data.get(start as usize..(start + stride) as usize).unwrap_or(&[]).to_vec();
        let refs = refs_of(object, own, start);
        if refs.iter().any(|r| r.width == 0) {
            return Err(format!("the entry at {start:#x} has a relocation of a type that is not understood"));
        }
        if let Some((orc, size)) = orc {
            let at = (start / 4) as usize * size;
            bytes.extend_from_slice(orc.get(at..at + size).unwrap_or(&[]));
        }
        let first = refs.first().filter(|r| r.at == 0);
        let owner = first.and_then(|r| owner(object, r));
        if let Some(Target::Section(s, o)) = first.map(|r| r.target).filter(|_| table != Table::OrcIp)
            && owner.is_none()
            && object.prefix_at(s, o).is_some()
        {
            return Err(format!("the entry at {start:#x} is for the padding before a function"));
        }
        // Unwind entries may be for padding, and replacement instructions are no function.
        let of_replacement = matches!(first.map(|r| r.target), Some(Target::Section(s, _))
            if object.class(s) == Class::Text(TextKind::AltReplacement));
        if owner.is_none() && table != Table::OrcIp && !of_replacement {
            return Err(format!("the entry at {start:#x} belongs to no code of this object"));
        }
        let mut entry = Entry { table, section: id, start, bytes, refs, owner, replacement: None };
        entry.replacement = replacement(object, &entry);
        entries.push(entry);
    }
    Ok(())
}

/// The one entry size whose layout the section has, in the places of its relocations and in its content (`layout`).
fn stride(object: &Object, id: SectionId, table: Table) -> Result<u64, String> {
    let section = object.section(id);
    let mut matching = table.strides().iter().copied().filter(|s| layout::fits(object, id, table, *s));
    match (matching.next(), matching.next()) {
        (Some(stride), None) => Ok(stride),
        (Some(a), Some(b)) => Err(format!("entries of {a} bytes and of {b} bytes fit it")),
        _ => Err(format!(
            "{:#x} bytes with {} relocations are no table of this kind",
            section.size,
            section.relocs.len()
        )),
    }
}

fn orc_entries(object: &Object, count: u64) -> Result<(&[u8], usize), String> {
    let mut found = object.image.sections.iter().filter(|s| s.name == ".orc_unwind");
    let (Some(section), None) = (found.next(), found.next()) else {
        return Err("there is not exactly one .orc_unwind beside it".into());
    };
    let size = section.size.checked_div(count).unwrap_or(0);
    if size != 6 || section.size != size * count {
        return Err(format!("{count} addresses do not fit {:#x} bytes of .orc_unwind", section.size));
    }
    if !section.relocs.is_empty() {
        return Err(".orc_unwind has relocations".into());
    }
    Ok((&section.data, 6))
}

/// The atom a table entry belongs to. ORC entries may sit on padding between functions: they belong to nobody then.
fn owner(object: &Object, r: &Ref) -> Option<Meaning> {
    let Target::Section(section, offset) = r.target else { return None };
    if !matches!(object.class(section), Class::Text(_)) {
        return None;
    }
    object.containing(section, offset)
}

pub(super) fn replacement(object: &Object, entry: &Entry) -> Option<Box<Replacement>> {
    if entry.table != Table::Alternatives {
        return None;
    }
    let len = u64::from(*entry.bytes.last()?);
    let Target::Section(section, offset) = entry.refs.iter().find(|r| r.at == 4)?.target else { return None };
    let start = u64::try_from(offset).ok()?;
    if object.class(section) != Class::Text(TextKind::AltReplacement) {
        return None;
    }
    let bytes = object.section(section).data.get(start as usize..(start + len) as usize)?.to_vec();
    let (mut refs, mut trouble) = replacement_refs(object, section, start, start + len);
    // Loops within the replacement move with it; a branch to another one would lead nowhere.
    refs.retain(|r| match r.target {
        Target::Section(s, o) if s == section && r.kind == RefKind::Resolved => {
            let own = (start as i64..=(start + len) as i64).contains(&o);
            if !own {
                trouble.get_or_insert_with(|| format!("the branch at +{:#x} leaves the replacement", r.at));
            }
            false
        }
        _ => true,
    });
    Some(Box::new(Replacement { bytes, refs, trouble }))
}

/// Remembers data that points into the middle of a function: such a function cannot be moved away from under it.
pub(super) fn note_interior_pointers(object: &mut Object) {
    let mut found: Vec<(AtomId, AtomId, u64)> = Vec::new();
    for atom in &object.atoms {
        if atom.is_code() {
            continue;
        }
        for r in &atom.refs {
            let Target::Section(section, offset) = r.target else { continue };
            if !matches!(object.class(section), Class::Text(_)) {
                continue;
            }
            if let Some(m) = object.containing(section, offset).filter(|m| m.delta != 0) {
                found.push((m.atom, atom.id, m.delta as u64));
            }
        }
    }
    for (atom, from, at) in found {
        object.atoms[atom.0 as usize].interior_pointers.push((from, at));
    }
}
