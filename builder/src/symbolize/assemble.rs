//! An [`Object`] made of parts that were found elsewhere: of a whole image, of which only some functions matter.
//!
//! Sections hold their contents and the relocations of what matters; everything has an atom, and only what is wanted gets
//! its references.

use rustc_hash::FxHashMap;

use super::code::{data_refs, decode_atom};
use super::relations::Relations;
use super::tables::{note_interior_pointers, replacement};
use super::{Atom, AtomId, Class, Entry, EntryId, Incoming, Object, Sources, covers};
use crate::ingest::{Image, SectionId};

/// The parts.
#[derive(Debug)]
pub struct Parts {
    /// Sections with contents and relocations, symbols the relocations name.
    pub image: Image,
    /// Class of each section.
    pub classes: Vec<Class>,
    /// Every function and data object, without references; ids are positions.
    pub atoms: Vec<Atom>,
    /// The code to decode.
    pub wanted: Vec<AtomId>,
    /// Table entries of the wanted code, without replacement instructions.
    pub entries: Vec<Entry>,
    /// Tables that are not understood.
    pub odd_tables: Vec<(SectionId, String)>,
    /// The function each atom belongs to.
    pub parents: Vec<AtomId>,
    /// References of code that is not decoded.
    pub incoming: Vec<Incoming>,
    /// The source file of each atom.
    pub sources: Sources,
}

impl Object {
    /// Puts the parts together.
    pub fn assemble(parts: Parts) -> Self {
        let mut by_section = vec![Vec::new(); parts.image.sections.len()];
        for atom in &parts.atoms {
            by_section[atom.section.0 as usize].push(atom.id);
        }
        for list in &mut by_section {
            list.sort_by_key(|id: &AtomId| parts.atoms[id.0 as usize].start);
        }
        let mut by_name = FxHashMap::with_capacity_and_hasher(parts.atoms.len(), Default::default());
        for atom in &parts.atoms {
            by_name.entry(atom.name.clone()).or_insert(atom.id);
        }
        let covers = covers(&parts.atoms, &by_section);
        let mut object = Self {
            image: parts.image,
            classes: parts.classes,
            atoms: parts.atoms,
            entries: parts.entries,
            odd_tables: parts.odd_tables,
            covers,
            by_section,
            by_name,
            relations: Relations::default(),
            sources: parts.sources,
            doubts: FxHashMap::default(),
        };
        for id in parts.wanted {
            let (refs, code) = decode_atom(&object, object.atom(id));
            let atom = &mut object.atoms[id.0 as usize];
            (atom.refs, atom.code) = (refs, Some(code));
        }
        for index in 0..object.atoms.len() {
            let atom = &object.atoms[index];
            if !atom.is_code() && !object.section(atom.section).relocs.is_empty() {
                object.atoms[index].refs = data_refs(&object, atom.section, atom.start, atom.end);
            }
        }
        for index in 0..object.entries.len() {
            object.entries[index].replacement = replacement(&object, &object.entries[index]);
            if let Some(owner) = object.entries[index].owner {
                object.atoms[owner.atom.0 as usize].entries.push(EntryId(index as u32));
            }
        }
        note_interior_pointers(&mut object);
        object.relations = Relations::of(&object, |id| parts.parents[id.0 as usize], parts.incoming);
        object
    }
}
