//! What the atoms of an object have to do with each other: which piece belongs to which function, and who refers to what.
//!
//! Made once, so that no later phase has to walk all atoms to ask about one.

use rustc_hash::FxHashMap;

use super::is_cold;
use super::{AtomId, AtomKind, Class, EntryId, Object, Ref, Target, TextKind, Usage};
use crate::ingest::SectionId;

/// A reference, seen from its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The section referred to.
    pub section: SectionId,
    /// The offset in it.
    pub to: i64,
    /// The atom the reference is in.
    pub from: AtomId,
    /// What is done with it.
    pub usage: Usage,
    /// Is it a `call rel32` (e8)?
    pub call: bool,
}

/// Both indexes.
#[derive(Debug, Default)]
pub struct Relations {
    parents: Vec<AtomId>,
    pieces: FxHashMap<AtomId, Vec<AtomId>>,
    incoming: Vec<Incoming>,
    entries: Vec<(SectionId, i64, EntryId)>,
}

impl Relations {
    /// From the atoms of `object` and `others`: references of atoms whose own are not kept.
    pub fn of(object: &Object, parent: impl Fn(AtomId) -> AtomId, others: Vec<Incoming>) -> Self {
        let parents: Vec<AtomId> = object.atoms.iter().map(|a| parent(a.id)).collect();
        let mut pieces: FxHashMap<AtomId, Vec<AtomId>> = FxHashMap::default();
        for atom in object.atoms.iter().filter(|a| a.is_code()) {
            let parent = parents[atom.id.0 as usize];
            if parent != atom.id {
                pieces.entry(parent).or_default().push(atom.id);
            }
        }
        let mut incoming = others;
        incoming.reserve(object.atoms.iter().map(|a| a.refs.len()).sum());
        for atom in &object.atoms {
            for r in &atom.refs {
                let Target::Section(section, to) = r.target else { continue };
                let opcode = (atom.start + r.at).checked_sub(1).and_then(|at| usize::try_from(at).ok());
                let call = atom.is_code()
                    && r.usage == Usage::Branch
                    && opcode.and_then(|at| object.section(atom.section).data.get(at)) == Some(&0xe8);
                incoming.push(Incoming { section, to, from: atom.id, usage: r.usage, call });
            }
        }
        incoming.sort_unstable_by_key(|i| (i.section, i.to, i.from));
        let mut entries = Vec::with_capacity(object.entries.len());
        for (id, entry) in (0u32..).zip(&object.entries) {
            let replacement = entry.replacement.iter().flat_map(|r| &r.refs);
            for r in entry.refs.iter().chain(replacement) {
                if let Target::Section(section, to) = r.target {
                    entries.push((section, to, EntryId(id)));
                }
            }
        }
        entries.sort_unstable();
        Self { parents, pieces, incoming, entries }
    }
}

impl Object {
    /// The function a cold piece or unnamed chunk belongs to; itself for everything else.
    pub fn parent(&self, id: AtomId) -> AtomId {
        self.relations.parents.get(id.0 as usize).copied().unwrap_or(id)
    }
    /// The pieces of a function, itself apart, by id.
    pub fn pieces(&self, id: AtomId) -> &[AtomId] {
        self.relations.pieces.get(&id).map_or(&[], Vec::as_slice)
    }
    /// A function and its pieces, by id.
    pub fn family(&self, id: AtomId) -> Vec<AtomId> {
        let mut all = vec![id];
        all.extend(self.pieces(id));
        all.sort_unstable();
        all
    }
    /// Who refers to `[from, to)` of a section.
    pub fn incoming(&self, section: SectionId, from: i64, to: i64) -> &[Incoming] {
        let all = &self.relations.incoming;
        let a = all.partition_point(|i| (i.section, i.to) < (section, from));
        let b = a + all[a..].partition_point(|i| (i.section, i.to) < (section, to));
        &all[a..b]
    }
    /// Table entries that refer to `[from, to)` of a section, their replacement instructions included.
    pub fn entries_into(&self, section: SectionId, from: i64, to: i64) -> impl Iterator<Item = (i64, EntryId)> + '_ {
        let all = &self.relations.entries;
        let a = all.partition_point(|e| (e.0, e.1) < (section, from));
        all[a..].iter().take_while(move |e| e.0 == section && e.1 < to).map(|e| (e.1, e.2))
    }
    /// Who refers to an atom: at least to its start, when it is empty.
    pub fn incoming_of(&self, id: AtomId) -> &[Incoming] {
        let atom = self.atom(id);
        self.incoming(atom.section, atom.start as i64, atom.end.max(atom.start + 1) as i64)
    }
}

/// The parent of an atom, by its name and by where an unnamed chunk jumps back to: a function, or a piece of one.
pub fn parent_of(object: &Object, id: AtomId) -> AtomId {
    // Pieces of pieces end somewhere, unless they go round in a circle.
    const LONGEST: usize = 4;
    let mut at = id;
    for _ in 0..LONGEST {
        match holder_of(object, at) {
            Some(next) if next != at => at = next,
            _ => return at,
        }
    }
    id
}

fn holder_of(object: &Object, id: AtomId) -> Option<AtomId> {
    let atom = object.atom(id);
    if is_cold(&atom.name) {
        let stem: Vec<&str> = atom.name.split('.').take_while(|p| *p != "cold").collect();
        return object.named(&stem.join("."));
    }
    if atom.kind == AtomKind::Chunk && object.class(atom.section) == Class::Text(TextKind::AltAux) {
        // The function jumps into the chunk, and the chunk back; where else the chunk leads does not make it a piece of that.
        let leads_to: Vec<AtomId> = atom
            .refs
            .iter()
            .filter_map(|r| match r.target {
                Target::Section(s, o) if s != atom.section => object.containing(s, o).map(|m| m.atom),
                _ => None,
            })
            .collect();
        let inside = |r: &Ref| {
            let Target::Section(s, o) = r.target else { return false };
            s == atom.section && (atom.start as i64..atom.end as i64).contains(&o)
        };
        let jumps_here = |id: &&AtomId| object.atom(**id).refs.iter().any(inside);
        return leads_to.iter().find(jumps_here).or(leads_to.first()).copied();
    }
    None
}
