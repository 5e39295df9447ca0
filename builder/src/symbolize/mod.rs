//! [`Image`] -> [`Object`]: functions and data objects (*atoms*), their references, and the table entries that belong to them.
//!
//! A reference is kept as (place, kind, target section + offset) or (place, kind, undefined symbol + addend). Which atom
//! a section offset means is asked of the object when it is needed, because it can be ambiguous (`Object::atoms_at`).
//! Nothing is refused here: what cannot be decoded is noted in the atom and refused by whoever needs it.

mod assemble;
mod atoms;
mod boot;
mod code;
mod cover;
mod ids;
pub mod known_sections;
mod layout;
mod names;
mod relations;
mod sections;
mod tables;

use rustc_hash::FxHashMap;

use crate::error::Result;
use crate::ingest::{Image, SectionId, SymbolId};

pub use assemble::Parts;
pub use boot::{BIAS, BootConstant, DISPLACEMENT, boot_constant};
pub use code::{Decoded, Insn, memory_usage, usage};
pub use cover::Cover;
pub use ids::{Ids, Words, difference as id_difference};
pub use names::{base_name, is_cold, parent_name};
pub use relations::{Incoming, Relations};
pub use sections::{Class, NOT_LOADED, Table, TextKind, classify};
pub use tables::{Entry, EntryId, Replacement};

/// Index of an atom in [`Object::atoms`]; meaningful only together with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomId(pub u32);

/// One relocatable object, taken apart.
#[derive(Debug)]
pub struct Object {
    /// Sections and symbols as in the file.
    pub image: Image,
    /// Class of each section, by [`SectionId`].
    pub classes: Vec<Class>,
    /// Every function and data object, by section and offset.
    pub atoms: Vec<Atom>,
    /// Table entries, in file order.
    pub entries: Vec<Entry>,
    /// Tables that do not have the shape their name promises: section and what is odd.
    pub odd_tables: Vec<(SectionId, String)>,
    by_section: Vec<Vec<AtomId>>,
    /// How far the atoms of each section reach.
    covers: Vec<Cover>,
    by_name: FxHashMap<String, AtomId>,
    relations: Relations,
    sources: Sources,
    doubts: FxHashMap<AtomId, (u64, String)>,
}

/// Source files, where one object is made of many.
#[derive(Debug, Default)]
pub struct Sources {
    /// Their names; the first one stands for "not known".
    pub names: Vec<String>,
    /// Index of each atom's.
    pub of: Vec<u32>,
}

/// What an atom is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomKind {
    /// A function, or a piece of one (`.cold`).
    Function,
    /// Code without a function symbol.
    Chunk,
    /// Data with a symbol.
    Data,
    /// Data no symbol names, between two that have one.
    Gap,
}

/// A function or data object.
#[derive(Debug)]
pub struct Atom {
    /// Its index.
    pub id: AtomId,
    /// Where it is.
    pub section: SectionId,
    /// First byte, offset in the section.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Bytes of call padding right before `start` that belong to it (`__pfx_NAME`), 0 for almost everything else.
    pub prefix: u64,
    /// What it is.
    pub kind: AtomKind,
    /// Name: the symbol's, or `section+0xoffset` when there is none.
    pub name: String,
    /// Other names of the same place.
    pub aliases: Vec<String>,
    /// Names of places inside it, by place.
    pub inner: Vec<Inner>,
    /// Is a name of it visible to other objects?
    pub global: bool,
    /// Are all its names weak?
    pub weak: bool,
    /// References out of it, by offset.
    pub refs: Vec<Ref>,
    /// Decoded instructions, for code.
    pub code: Option<Decoded>,
    /// Table entries whose first field points into it, by table and offset.
    pub entries: Vec<EntryId>,
    /// Data that points inside the atom (not at its start), and the offset it points to.
    pub interior_pointers: Vec<(AtomId, u64)>,
}

/// A name inside an atom: a label of assembly, `.set middle, table + 8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The name.
    pub name: String,
    /// Offset from the start of the atom.
    pub at: u64,
    /// Does it stand for that place in all objects? A weak one may be another's.
    pub global: bool,
}

/// How a reference is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefKind {
    /// A relocation of this type.
    Reloc(u32),
    /// A PC-relative field of `width` bytes that the assembler has already resolved (same section).
    Resolved,
}

/// A reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// Offset of the field from the start of the atom or entry, in bytes.
    pub at: u64,
    /// Width of the field in bytes.
    pub width: u8,
    /// How it is encoded.
    pub kind: RefKind,
    /// What it refers to: the address the instruction means, PC bias taken out.
    pub target: Target,
    /// Bytes between the field and the address the CPU counts from (PC-relative fields in code), else 0.
    pub bias: u8,
    /// What the instruction does with it.
    pub usage: Usage,
}

/// What is done with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Called or jumped to.
    Branch,
    /// Read or written at exactly that address, so never one past the end of something.
    Access,
    /// Its address taken; may be one past the end of what is meant.
    Address,
    /// As `Address`, with a register added: the base may lie outside the object that is meant.
    Indexed,
    /// A field of data.
    Pointer,
}

/// What a reference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An offset in a section of this object; may lie outside it (biased bases).
    Section(SectionId, i64),
    /// An undefined (or absolute) symbol and an addend.
    Extern(SymbolId, i64),
}

impl Atom {
    /// All its names, the one that stands for it first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }
    /// Is it code?
    pub fn is_code(&self) -> bool {
        matches!(self.kind, AtomKind::Function | AtomKind::Chunk)
    }
}

/// What a section offset can mean, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The atom.
    pub atom: AtomId,
    /// Offset from its start; its size for a one-past-the-end pointer.
    pub delta: i64,
}

impl Object {
    /// Takes an object apart.
    pub fn new(image: Image) -> Result<Self> {
        let classes: Vec<Class> = image.sections.iter().map(sections::classify).collect();
        let mut object = Self {
            by_section: vec![Vec::new(); image.sections.len()],
            covers: Vec::new(),
            image,
            classes,
            atoms: Vec::new(),
            entries: Vec::new(),
            odd_tables: Vec::new(),
            by_name: FxHashMap::default(),
            relations: Relations::default(),
            sources: Sources::default(),
            doubts: FxHashMap::default(),
        };
        atoms::split(&mut object)?;
        object.covers = covers(&object.atoms, &object.by_section);
        code::decode(&mut object);
        tables::attach(&mut object);
        object.relations = Relations::of(&object, |id| relations::parent_of(&object, id), Vec::new());
        Ok(object)
    }

    /// The atom.
    pub fn atom(&self, id: AtomId) -> &Atom {
        &self.atoms[id.0 as usize]
    }
    /// Notes that an operand of a function may be an address, and which; only the first one counts.
    pub fn doubt(&mut self, id: AtomId, at: u64, what: String) {
        self.doubts.entry(id).or_insert((at, what));
    }
    /// The operand of a function of which it is not known whether it is an address.
    pub fn doubt_of(&self, id: AtomId) -> Option<(u64, &str)> {
        self.doubts.get(&id).map(|(at, what)| (*at, what.as_str()))
    }
    /// The source file of an atom, where the object is made of many.
    pub fn source_of(&self, id: AtomId) -> Option<&str> {
        let name = self.sources.names.get(*self.sources.of.get(id.0 as usize)? as usize)?;
        (!name.is_empty()).then_some(name)
    }
    /// Is it an entry of a list under a name that nobody knows?
    pub fn is_listed(&self, id: AtomId) -> bool {
        let data = matches!(self.class_of(id), Class::Rodata | Class::Data | Class::Bss);
        data && known_sections::is_list(&self.section(self.atom(id).section).name)
    }
    /// The class of an atom's section.
    pub fn class_of(&self, id: AtomId) -> Class {
        self.class(self.atom(id).section)
    }
    /// The class of a section.
    pub fn class(&self, id: SectionId) -> Class {
        self.classes.get(id.0 as usize).copied().unwrap_or(Class::Ignored("no such section"))
    }
    /// The section.
    pub fn section(&self, id: SectionId) -> &crate::ingest::Section {
        &self.image.sections[id.0 as usize]
    }
    /// The name of an undefined symbol.
    pub fn symbol_name(&self, id: SymbolId) -> &str {
        self.image.symbols.get(id.0 as usize).map_or("", |s| s.name.as_str())
    }
    /// Bytes of an atom; empty for zeroed data.
    pub fn bytes(&self, id: AtomId) -> &[u8] {
        let a = self.atom(id);
        self.section(a.section).data.get(a.start as usize..a.end as usize).unwrap_or(&[])
    }
    /// The call padding before a function; empty when it has none.
    pub fn prefix_bytes(&self, id: AtomId) -> &[u8] {
        let a = self.atom(id);
        self.section(a.section).data.get((a.start - a.prefix) as usize..a.start as usize).unwrap_or(&[])
    }
    /// The function whose call padding holds `offset`.
    pub fn prefix_at(&self, section: SectionId, offset: i64) -> Option<AtomId> {
        let offset = u64::try_from(offset).ok()?;
        let list = self.atoms_of(section);
        let next = *list.get(list.partition_point(|id| self.atom(*id).start <= offset))?;
        (offset >= self.atom(next).start - self.atom(next).prefix).then_some(next)
    }
    /// The atom with this name (symbol or alias).
    pub fn named(&self, name: &str) -> Option<AtomId> {
        self.by_name.get(name).copied()
    }
    /// Atoms of a section by offset.
    pub fn atoms_of(&self, section: SectionId) -> &[AtomId] {
        self.by_section.get(section.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The atom that holds `offset`; of those that begin there, and of those one of which lies inside another, the last.
    pub fn containing(&self, section: SectionId, offset: i64) -> Option<Meaning> {
        let offset = u64::try_from(offset).ok()?;
        let list = self.atoms_of(section);
        let after = list.partition_point(|id| self.atom(*id).start <= offset);
        let found = self.covers.get(section.0 as usize)?.last_beyond(after, offset)?;
        let atom = *list.get(found)?;
        Some(Meaning { atom, delta: (offset - self.atom(atom).start) as i64 })
    }

    /// As [`Object::containing`]; of data objects one of which lies inside another, the outermost. Where a name in the
    /// middle of a table has a size, the place is one of the table all the same.
    pub fn outermost(&self, section: SectionId, offset: i64) -> Option<Meaning> {
        let mut found = self.containing(section, offset)?;
        let (list, cover) = (self.atoms_of(section), self.covers.get(section.0 as usize)?);
        while !self.atom(found.atom).is_code() {
            let start = self.atom(found.atom).start;
            let before = list.partition_point(|id| self.atom(*id).start < start);
            let outer = cover.last_beyond(before, u64::try_from(offset).ok()?).and_then(|i| list.get(i));
            let Some(outer) = outer else { break };
            found = Meaning { atom: *outer, delta: offset - self.atom(*outer).start as i64 };
        }
        Some(found)
    }

    /// Does any code or other data refer to the atom?
    pub fn is_referred_to(&self, id: AtomId) -> bool {
        let own = self.atom(id);
        self.incoming(own.section, own.start as i64, own.end as i64).iter().any(|i| i.from != id)
    }

    /// Everything `offset` can mean: the atom that holds it first, then the one that ends there.
    pub fn meanings(&self, section: SectionId, offset: i64) -> Vec<Meaning> {
        let mut found: Vec<Meaning> = self.outermost(section, offset).into_iter().collect();
        if let Ok(offset) = u64::try_from(offset) {
            let list = self.atoms_of(section);
            let after = list.partition_point(|id| self.atom(*id).start < offset);
            for id in list[..after].iter().rev().take(8) {
                let a = self.atom(*id);
                if a.end == offset && a.size() > 0 {
                    found.push(Meaning { atom: *id, delta: a.size() as i64 });
                }
            }
        }
        found
    }

    /// What holds the place, if anything does: the first of [`Self::meanings_around`] it.
    pub fn holder(&self, section: SectionId, offset: i64) -> Option<Meaning> {
        self.outermost(section, offset).filter(|found| self.is_held(found))
    }

    fn is_held(&self, meaning: &Meaning) -> bool {
        (0..(self.atom(meaning.atom).size() as i64).max(1)).contains(&meaning.delta)
    }

    /// What holds the place, of [`Self::meanings_around`] it, if anything does.
    pub fn holder_of(&self, meanings: &[Meaning]) -> Option<Meaning> {
        meanings.first().copied().filter(|first| self.is_held(first))
    }

    /// What the place means for certain: what holds it, else everything around it.
    pub fn certain(&self, section: SectionId, offset: i64) -> Vec<Meaning> {
        let all = self.meanings_around(section, offset);
        self.holder_of(&all).map_or(all, |one| vec![one])
    }

    /// As [`Object::meanings`]; for biased bases outside any atom, the neighbours.
    pub fn meanings_around(&self, section: SectionId, offset: i64) -> Vec<Meaning> {
        let found = self.meanings(section, offset);
        if !found.is_empty() {
            return found;
        }
        let list = self.atoms_of(section);
        let start = |id: &AtomId| self.atom(*id).start as i64;
        let after = list.partition_point(|id| start(id) <= offset);
        let around = [after.checked_sub(1).and_then(|i| list.get(i)), list.get(after)];
        around.into_iter().flatten().map(|id| Meaning { atom: *id, delta: offset - start(id) }).collect()
    }

    /// Where a relocation leads when the instruction around it is not known; off by the PC bias.
    pub fn raw_target(&self, r: &crate::ingest::Reloc) -> Target {
        let bias = if crate::isa::reloc::is_pc_relative(r.kind) { 4 } else { 0 };
        code::target_of(&self.image.symbols, r, bias)
    }

    /// The string or constant at `offset` of a mergeable section.
    pub fn constant_at(&self, section: SectionId, offset: i64) -> Option<&[u8]> {
        let s = self.section(section);
        let at = usize::try_from(offset).ok()?;
        match self.class(section) {
            Class::Strings => {
                // Characters of 1, 2 (-fshort-wchar) or 4 bytes.
                let unit = usize::try_from(s.entsize.max(1)).ok()?;
                let rest = s.data.get(at..)?;
                let len = rest.chunks_exact(unit).position(|c| c.iter().all(|b| *b == 0))?;
                rest.get(..(len + 1) * unit)
            }
            Class::Constants => {
                let unit = usize::try_from(s.entsize.max(1)).ok()?;
                // Half of a 16-byte constant is a constant as well.
                s.data.get(at..(at / unit + 1).checked_mul(unit)?)
            }
            _ => None,
        }
    }
}

/// How far the atoms of each section reach.
fn covers(atoms: &[Atom], by_section: &[Vec<AtomId>]) -> Vec<Cover> {
    let place = |id: &AtomId| (atoms[id.0 as usize].start, atoms[id.0 as usize].end);
    by_section.iter().map(|list| Cover::of(list.iter().map(place))).collect()
}
