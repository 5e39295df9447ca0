//! Do the fields of the image lead where the object's references lead?
//!
//! Bytes that match around relocated fields prove the instructions, not their operands. Here every field of an atom that
//! matched is held against the place of what the object refers to: the address the image's name table lists for an
//! undefined symbol, the place of the section for what is in the object, the content for strings and constants. The table
//! entries of a function (alternatives, jump labels, WARN, exceptions, ..) are looked up in the image's tables and treated
//! the same, both ways: no entry may be missing there or here. Read-only data counts with the functions that refer to it.
//! Of unwind entries only the ORC state counts that each instruction has: the linked image leaves out those that repeat the
//! state before. Output: the atoms that are not what runs, and why.

use std::collections::BTreeMap;

use super::field;
use super::names::Names;
use super::tables::Tables;
use crate::holder::RunPre;
use crate::ingest::{SectionId, SymbolPlace};
use crate::kernel::KernelImage;
use crate::symbolize::{Atom, AtomId, Class, Entry, Object, Ref, RefKind, Table, Target, TextKind, Usage};

/// One attempt to place the object, and what it is held against.
pub(super) struct Proof<'a> {
    pub(super) object: &'a Object,
    pub(super) kernel: &'a KernelImage,
    pub(super) names: &'a Names<'a>,
    pub(super) tables: &'a Tables<'a>,
    pub(super) placement: &'a RunPre,
}

/// What is known of the tables of the object.
struct Own<'o> {
    /// An entry of each: the layout of that table in the image is known from it.
    samples: BTreeMap<(Table, &'o str), &'o Entry>,
    /// Unwind entries by the place they begin to hold at.
    unwind: Vec<(SectionId, i64, &'o Entry)>,
}

impl<'o> Own<'o> {
    fn of(object: &'o Object) -> Self {
        let mut own = Self { samples: BTreeMap::new(), unwind: Vec::new() };
        for entry in &object.entries {
            let section = object.section(entry.section).name.as_str();
            own.samples.entry((entry.table, section)).or_insert(entry);
            if let (Table::OrcIp, Some(Target::Section(s, offset))) =
                (entry.table, entry.refs.first().map(|r| r.target))
            {
                own.unwind.push((s, offset, entry));
            }
        }
        own.unwind.sort_by_key(|u| (u.0, u.1));
        own
    }

    /// The unwind entries that hold at a place.
    fn holding(&self, section: SectionId, offset: i64) -> impl Iterator<Item = &'o Entry> {
        let before = self.unwind.get(..self.unwind.partition_point(|u| (u.0, u.1) <= (section, offset)));
        let before = before.unwrap_or(&[]);
        let last = before.last().filter(|u| u.0 == section).map(|u| u.1);
        let same = before.iter().rev().take_while(move |u| u.0 == section && Some(u.1) == last);
        same.map(|u| u.2)
    }
}

impl Proof<'_> {
    /// Every matching atom of which a reference leads elsewhere in the image.
    pub(super) fn doubts(&self) -> BTreeMap<AtomId, String> {
        let p = self.placement;
        let own = Own::of(self.object);
        let agree = self.object.atoms.iter().filter(|a| p.agrees(a.id));
        agree.filter_map(|a| Some((a.id, self.doubt(a, p.address(a.id)?, &own)?))).collect()
    }

    fn section_of(&self, entry: &Entry) -> &str {
        &self.object.section(entry.section).name
    }

    fn doubt(&self, atom: &Atom, address: u64, own: &Own<'_>) -> Option<String> {
        let fields = atom
            .refs
            .iter()
            .find_map(|r| self.consumed(atom.section, r).or_else(|| self.elsewhere(r, address.wrapping_add(r.at))));
        let others = || self.constants(atom).or_else(|| self.entries(atom, address, own));
        fields.or_else(|| if atom.is_code() { others() } else { None })
    }

    /// A reference of code or data, not of a table, to what is only there until the kernel has booted. Replacement
    /// instructions are found by the table of alternatives alone; `.altinstr_aux` is jumped to (`_static_cpu_has` of
    /// arch/x86/include/asm/cpufeature.h).
    fn consumed(&self, from: SectionId, r: &Ref) -> Option<String> {
        let Target::Section(section, offset) = r.target else { return None };
        let usual = match self.object.class(section) {
            Class::Text(TextKind::AltReplacement) => false,
            Class::Text(TextKind::AltAux) => r.usage == Usage::Branch,
            _ => true,
        };
        let what = with_offset(&self.object.section(section).name, offset);
        (!usual && from != section)
            .then(|| format!("the field at +{:#x} refers to {what} in the old object, as ordinary code does not", r.at))
    }

    /// Does a section without names not have its bytes in the image, if it began here? A jump into the middle of it could
    /// else take a few masked bytes for all of it.
    fn is_other_block(&self, section: SectionId, base: u64) -> bool {
        let atoms = self.object.atoms_of(section).iter().map(|id| self.object.atom(*id));
        let mut others = atoms.map(|a| (self.object.bytes(a.id), &a.refs, base.wrapping_add(a.start)));
        others.any(|(bytes, refs, at)| field::other_bytes(self.kernel, bytes, refs, at).is_some())
    }

    /// Why the field at `at` does not mean what the reference does.
    fn elsewhere(&self, r: &Ref, at: u64) -> Option<String> {
        if !matches!(r.kind, RefKind::Reloc(_)) {
            return None;
        }
        let means = field::means(self.kernel, r, at)?;
        let wrong = |what: String| {
            let there = self.names.describe(means);
            Some(format!(
                "the field at +{:#x} refers to {what} in the old object, in {} to {there}",
                r.at,
                self.kernel.called()
            ))
        };
        match r.target {
            Target::Extern(id, addend) => {
                let symbol = self.object.image.symbols.get(id.0 as usize)?;
                let name = with_offset(&symbol.name, addend);
                let place = means.wrapping_sub(addend as u64);
                if symbol.place == SymbolPlace::Absolute {
                    return if place == symbol.value { None } else { wrong(name) };
                }
                let listed = self.names.addresses(&symbol.name);
                let weak = symbol.bind == object::elf::STB_WEAK.0;
                let right = match &listed[..] {
                    // What nobody defines is 0 when the reference is weak.
                    [] if place == 0 => weak,
                    [] => {
                        self.names.free(&symbol.name, place)
                            && self.placement.contradiction(&symbol.name).is_none()
                            && self.placement.externs.get(&symbol.name).is_none_or(|a| *a == place)
                    }
                    _ => listed.contains(&place),
                };
                if right { None } else { wrong(name) }
            }
            Target::Section(section, offset) => {
                if matches!(self.object.class(section), Class::Strings | Class::Constants) {
                    return field::other_constant(self.object, self.kernel, r, at);
                }
                let what = self.name_of(section, offset);
                if self.has_content(section, offset, means) {
                    return None;
                }
                let unlinked = matches!(self.object.class(section), Class::Ignored(_) | Class::Table(_));
                if self.placement.is_contradicted(section) || unlinked && !self.names.know(section) {
                    return wrong(what);
                }
                let aux = self.object.class(section) == Class::Text(TextKind::AltAux);
                let branch = r.usage == Usage::Branch && !self.names.know(section);
                let outside = branch && self.object.meanings(section, offset).is_empty();
                if outside
                    || aux && self.is_other_block(section, means.wrapping_sub(offset as u64))
                    || self.names.foreign(self.object, section, offset, means)
                {
                    return wrong(what);
                }
                let Some(base) = self.placement.base(section) else {
                    // Only what a table entry refers to is in no place here.
                    let here = means.wrapping_sub(offset as u64);
                    let right = self.names.allow(section, here) && self.names.know(section) == self.names.list_data();
                    return if right { None } else { wrong(what) };
                };
                if means == base.wrapping_add(offset as u64) || self.is_overridden(section, offset, means) {
                    return None;
                }
                wrong(what)
            }
        }
    }

    /// Is what the reference leads to the constant that is meant? With -fdata-sections those without a name are a section of
    /// their own, and are not where one base for all of them says: in the image they lie between the others.
    fn has_content(&self, section: SectionId, offset: i64, means: u64) -> bool {
        if self.object.class(section) != Class::Rodata || self.names.know(section) {
            return false;
        }
        let Some(m) = self.object.containing(section, offset) else { return false };
        let (bytes, refs) = (self.object.bytes(m.atom), &self.object.atom(m.atom).refs);
        !bytes.is_empty() && field::other_bytes(self.kernel, bytes, refs, means.wrapping_sub(m.delta as u64)).is_none()
    }

    /// A reference to a weak function leads to the strong one of another object.
    fn is_overridden(&self, section: SectionId, offset: i64, means: u64) -> bool {
        let Some(m) = self.object.containing(section, offset) else { return false };
        let atom = self.object.atom(m.atom);
        let place = means.wrapping_sub(m.delta as u64);
        let mut names = std::iter::once(&atom.name).chain(&atom.aliases);
        atom.weak && names.any(|n| self.names.addresses(n).contains(&place))
    }

    fn name_of(&self, section: SectionId, offset: i64) -> String {
        match self.object.containing(section, offset) {
            Some(m) => with_offset(&self.object.atom(m.atom).name, m.delta),
            None => with_offset(&self.object.section(section).name, offset),
        }
    }

    /// Data the function refers to, and that the image has with another content.
    fn constants(&self, atom: &Atom) -> Option<String> {
        atom.refs.iter().find_map(|r| {
            let Target::Section(section, offset) = r.target else { return None };
            // What writable data begins as is nothing to the code, but proves the place where no name does.
            let counts = match self.object.class(section) {
                Class::Rodata => true,
                Class::Data => !self.names.know(section),
                _ => false,
            };
            if !counts || self.placement.is_contradicted(section) {
                return None;
            }
            let data = self.object.atom(self.object.containing(section, offset)?.atom);
            let why = self.placement.mismatch(data.id)?;
            Some(format!("it refers to {}: {why}", data.name))
        })
    }

    fn entries(&self, atom: &Atom, address: u64, known: &Own<'_>) -> Option<String> {
        let own = || atom.entries.iter().map(|e| &self.object.entries[e.0 as usize]);
        let other = own().find_map(|e| self.entry(e, address));
        other.or_else(|| self.more(atom, address, known)).or_else(|| self.unwind(atom, address, known))
    }

    /// The entry must be in the image's table, and mean the same there.
    fn entry(&self, entry: &Entry, address: u64) -> Option<String> {
        if entry.table == Table::OrcIp {
            return None;
        }
        let section = self.section_of(entry);
        let index = self.tables.like(entry, section)?;
        let delta = entry.owner?.delta as u64;
        let at = address.wrapping_add(delta);
        let place = format!("the entry of {section} for +{delta:#x}");
        let mut whys = Vec::new();
        for (_, there) in index.within(at..at.saturating_add(1)) {
            match self.other_entry(entry, *there) {
                None => return None,
                Some(why) => whys.push(why),
            }
        }
        Some(match whys.into_iter().next() {
            Some(why) => format!("{place}: {why}"),
            None => format!("{place} is not in {}", self.kernel.called()),
        })
    }

    fn other_entry(&self, entry: &Entry, there: u64) -> Option<String> {
        if let Some(why) = field::other_bytes(self.kernel, &entry.bytes, &entry.refs, there) {
            return Some(why);
        }
        let replacement = entry.refs.iter().find(|r| r.at == 4).filter(|_| entry.replacement.is_some());
        let others = entry.refs.iter().filter(|r| replacement.is_none_or(|x| x.at != r.at));
        if let Some(why) = others.clone().find_map(|r| self.elsewhere(r, there.wrapping_add(r.at))) {
            return Some(why);
        }
        // One without instructions may be at the end of its section, where nothing is.
        let (code, r) = entry.replacement.as_ref().zip(replacement).filter(|(code, _)| !code.bytes.is_empty())?;
        let to = field::means(self.kernel, r, there.wrapping_add(r.at))?;
        let why = field::other_bytes(self.kernel, &code.bytes, &code.refs, to);
        let why = why.or_else(|| code.refs.iter().find_map(|r| self.elsewhere(r, to.wrapping_add(r.at))));
        why.map(|w| format!("its replacement: {w}"))
    }

    /// Entries of the image for this function that the object does not have.
    fn more(&self, atom: &Atom, address: u64, known: &Own<'_>) -> Option<String> {
        let range = address..address.saturating_add(atom.size());
        if range.is_empty() {
            return None;
        }
        known.samples.iter().filter(|s| s.0.0 != Table::OrcIp).find_map(|(&(table, section), like)| {
            let index = self.tables.like(like, section)?;
            let there: Vec<u64> = index.within(range.clone()).iter().map(|e| e.0.wrapping_sub(address)).collect();
            let own = atom.entries.iter().map(|e| &self.object.entries[e.0 as usize]);
            let own = own.filter(|e| (e.table, self.section_of(e)) == (table, section));
            let mut here: Vec<u64> = own.filter_map(|e| Some(e.owner?.delta as u64)).collect();
            here.sort_unstable();
            (there != here).then(|| {
                format!(
                    "its {} entries of {section} are not for the places of the {} in {}",
                    here.len(),
                    there.len(),
                    self.kernel.called()
                )
            })
        })
    }

    /// How the stack is unwound at an instruction of the function, where the image has another way.
    fn unwind(&self, atom: &Atom, address: u64, known: &Own<'_>) -> Option<String> {
        let (&(_, section), like) = known.samples.iter().find(|s| s.0.0 == Table::OrcIp)?;
        let index = self.tables.like(like, section)?;
        let here = atom.entries.iter().map(|e| &self.object.entries[e.0 as usize]);
        let here = here.filter(|e| e.table == Table::OrcIp).filter_map(|e| Some(e.owner?.delta as u64));
        let range = address..address.saturating_add(atom.size());
        let there = index.within(range).iter().map(|e| e.0.wrapping_sub(address));
        let mut places: Vec<u64> = here.chain(there).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().find_map(|at| {
            let own: Vec<&[u8]> = known
                .holding(atom.section, atom.start.wrapping_add(at) as i64)
                .filter_map(|e| e.bytes.get(4..))
                .collect();
            let same = index.holding(address.wrapping_add(at)).iter().any(|(_, entry)| {
                let state = index.unwind(*entry).and_then(|a| self.kernel.read(a, own.first().map_or(0, |o| o.len())));
                state.is_some_and(|s| own.contains(&s))
            });
            (!own.is_empty() && !same).then(|| format!("the stack is unwound otherwise at +{at:#x}"))
        })
    }
}

fn with_offset(name: &str, offset: i64) -> String {
    match offset {
        0 => name.to_owned(),
        _ if offset < 0 => format!("{name}-{:#x}", offset.unsigned_abs()),
        _ => format!("{name}+{offset:#x}"),
    }
}
