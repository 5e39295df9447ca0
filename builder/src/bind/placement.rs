//! Run-pre matching: where each section of an old object lies in the kernel image.
//!
//! The linker moves an input section as one piece, so one base address per section says everything, mergeable sections
//! apart. Code is compared with the image byte by byte, relocated fields masked; the fields are then read back, and each
//! shows where the section or symbol it refers to is. This also finds static symbols no name table can tell apart. What the
//! fields show must agree with the names the image has (`names`), and then every field with the result (`proof`); code and
//! data that do not are no proof of anything, and the places are sought once more without them.

use crate::holder::{Placement, RunPre};
use std::collections::{BTreeMap, BTreeSet};

use super::field;
use super::names::Names;
use super::proof::Proof;
use super::tables::Tables;
use crate::ingest::SectionId;
use crate::kernel::KernelImage;
use crate::symbolize::{Atom, AtomId, AtomKind, Class, Object, Ref, Target, TextKind};

/// Votes for places: how many atoms show each.
type Votes<K> = BTreeMap<K, BTreeMap<u64, u32>>;

/// Places all sections of `object`.
pub fn place(object: &Object, kernel: &KernelImage) -> Placement {
    place_with(object, kernel, &Tables::of(kernel))
}

/// The same with the tables of the image, which several objects share.
pub(super) fn place_with(object: &Object, kernel: &KernelImage, tables: &Tables<'_>) -> Placement {
    let names = Names::of(object, kernel);
    let mut doubted: BTreeMap<AtomId, String> = BTreeMap::new();
    let (mut contradictions, mut extern_contradictions) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let mut p = Search::new(object, kernel, &names, &doubted).run();
        // What contradicted itself once is not certain because one side of it is left out now.
        contradictions.append(&mut p.contradictions.clone());
        extern_contradictions.append(&mut p.extern_contradictions.clone());
        p.contradictions.clone_from(&contradictions);
        p.extern_contradictions.clone_from(&extern_contradictions);
        let proof = Proof { object, kernel, names: &names, tables, placement: &p };
        let found = proof.doubts();
        if found.is_empty() {
            return Placement::RunPre(Box::new(p));
        }
        doubted.extend(found);
    }
}

/// Code that is in the image: not what the linker script drops, which of a module is there as well (module_exit_section of
/// kernel/module/main.c).
fn code_sections(object: &Object, kernel: &KernelImage) -> Vec<SectionId> {
    let exit = kernel.module().is_some();
    let linked = |k: TextKind| k != TextKind::AltReplacement && (k != TextKind::Exit || exit);
    (0..object.image.sections.len() as u32)
        .map(SectionId)
        .filter(|s| matches!(object.class(*s), Class::Text(k) if linked(k)))
        .filter(|s| !object.atoms_of(*s).is_empty())
        .collect()
}

/// One attempt to place an object.
struct Search<'a> {
    object: &'a Object,
    kernel: &'a KernelImage,
    names: &'a Names<'a>,
    /// What is known to differ, and therefore shows nothing.
    doubted: &'a BTreeMap<AtomId, String>,
    p: RunPre,
    bases: Votes<SectionId>,
    /// Of undefined symbols the image does not list.
    externs: Votes<String>,
}

impl<'a> Search<'a> {
    fn new(
        object: &'a Object,
        kernel: &'a KernelImage,
        names: &'a Names<'a>,
        doubted: &'a BTreeMap<AtomId, String>,
    ) -> Self {
        let p = RunPre {
            holder: kernel.called(),
            starts: object.atoms.iter().map(|a| (a.section, a.start)).collect(),
            names: object.atoms.iter().map(|a| a.name.clone()).collect(),
            ..RunPre::default()
        };
        Self { object, kernel, names, doubted, p, bases: Votes::new(), externs: Votes::new() }
    }

    fn run(mut self) -> RunPre {
        for section in code_sections(self.object, self.kernel) {
            if let Some(base) = self.best_base(section) {
                self.settle(section, base);
            }
        }
        // Data shows where other data is; code without names is found by the jumps into it.
        loop {
            let ready: Vec<(SectionId, u64)> = self
                .bases
                .iter()
                .filter(|(s, _)| !self.p.bases.contains_key(s))
                .filter_map(|(s, votes)| Some((*s, self.winner(*s, votes)?)))
                .collect();
            let progress = !ready.is_empty();
            for (section, base) in ready {
                self.settle(section, base);
            }
            if !progress && !self.place_by_name() {
                break;
            }
        }
        self.find_contradictions();
        self.find_overlaps();
        self.find_overridden();
        self.p
    }

    /// The place most atoms show, of those where the names of the section are.
    fn winner(&self, section: SectionId, votes: &BTreeMap<u64, u32>) -> Option<u64> {
        let allowed = votes.iter().filter(|(base, _)| self.names.allow(section, **base));
        allowed.max_by_key(|(base, n)| (**n, std::cmp::Reverse(**base))).map(|(base, _)| *base)
    }

    /// Of the bases the names suggest, the one where most functions match; a tie between different places is no answer.
    fn best_base(&self, section: SectionId) -> Option<u64> {
        let object = self.object;
        let mut votes: BTreeMap<u64, u32> = BTreeMap::new();
        for id in object.atoms_of(section) {
            let atom = object.atom(*id);
            for name in std::iter::once(&atom.name).chain(&atom.aliases) {
                for symbol in self.kernel.kallsyms().named(name).filter(|s| !s.is_percpu()) {
                    *votes.entry(symbol.addr.wrapping_sub(atom.start)).or_default() += 1;
                }
            }
        }
        let mut ranked: Vec<(u32, u64)> = votes.into_iter().map(|(base, n)| (n, base)).collect();
        ranked.sort_by_key(|(n, base)| (std::cmp::Reverse(*n), *base));
        let mut scored: Vec<(u32, u64)> = ranked
            .into_iter()
            .take(64)
            .map(|(_, base)| {
                let atoms = object.atoms_of(section).iter().map(|a| object.atom(*a));
                let matching = atoms.filter(|a| self.other_bytes(a, base).is_none());
                (matching.count() as u32, base)
            })
            .filter(|(n, _)| *n > 0)
            .collect();
        scored.sort_by_key(|(n, base)| (std::cmp::Reverse(*n), *base));
        match &scored[..] {
            [(a, _), (b, _), ..] if a == b => None,
            [(_, base), ..] => Some(*base),
            [] => None,
        }
    }

    /// How the atom's bytes differ from the image's at this base.
    fn other_bytes(&self, atom: &Atom, base: u64) -> Option<String> {
        field::other_bytes(self.kernel, self.object.bytes(atom.id), &atom.refs, base.wrapping_add(atom.start))
    }

    /// Accepts a base for a section, and reads on from there.
    fn settle(&mut self, section: SectionId, base: u64) {
        self.p.bases.insert(section, base);
        let class = self.object.class(section);
        if !matches!(class, Class::Text(_) | Class::Rodata | Class::Data) {
            return;
        }
        for id in self.object.atoms_of(section) {
            let atom = self.object.atom(*id);
            if let Some(why) = self.doubted.get(id) {
                self.p.mismatches.insert(*id, why.clone());
                continue;
            }
            let other = || {
                let at = base.wrapping_add(atom.start);
                let constants = atom.refs.iter().filter(|_| atom.is_code());
                constants
                    .clone()
                    .find_map(|r| field::other_constant(self.object, self.kernel, r, at.wrapping_add(r.at)))
            };
            if let Some(why) = self.other_bytes(atom, base).or_else(other) {
                self.p.mismatches.insert(*id, why);
                continue;
            }
            if atom.is_code() {
                self.p.matched.insert(*id);
            } else {
                self.p.same_data.insert(*id);
            }
            self.learn(atom, base);
        }
    }

    /// Reads the relocated fields of matching bytes back.
    fn learn(&mut self, atom: &Atom, base: u64) {
        for r in &atom.refs {
            let at = base.wrapping_add(atom.start).wrapping_add(r.at);
            let Some(means) = field::means(self.kernel, r, at) else { continue };
            match r.target {
                Target::Extern(symbol, addend) => self.learn_extern(symbol, means.wrapping_sub(addend as u64)),
                Target::Section(section, offset) => self.learn_section(r, section, offset, means),
            }
        }
    }

    fn learn_extern(&mut self, symbol: crate::ingest::SymbolId, address: u64) {
        let name = self.object.symbol_name(symbol);
        let listed = self.names.addresses(name);
        if listed.is_empty() {
            if self.names.free(name, address) {
                *self.externs.entry(name.to_owned()).or_default().entry(address).or_default() += 1;
            }
        } else if listed.contains(&address) {
            self.p.externs.entry(name.to_owned()).or_insert(address);
        }
    }

    fn learn_section(&mut self, r: &Ref, section: SectionId, offset: i64, means: u64) {
        if matches!(self.object.class(section), Class::Strings | Class::Constants) {
            let bytes = field::constant(self.object, r);
            let same = bytes.filter(|b| self.kernel.read(means, b.len()) == Some(b));
            if let Some(bytes) = same {
                self.p.constants.entry(bytes.to_vec()).or_insert(means);
            }
            return;
        }
        // A weak function may be another object's.
        let weak = self.object.containing(section, offset).is_some_and(|m| self.object.atom(m.atom).weak);
        if !weak {
            let base = means.wrapping_sub(offset as u64);
            *self.bases.entry(section).or_default().entry(base).or_default() += 1;
        }
    }

    /// Sections nothing placed refers to: by the names of their objects, if one base fits all that have a name.
    fn place_by_name(&mut self) -> bool {
        for index in 0..self.object.image.sections.len() as u32 {
            let section = SectionId(index);
            let class = self.object.class(section);
            let data = matches!(class, Class::Rodata | Class::Data | Class::Bss | Class::Percpu | Class::Ids);
            if !data || self.p.bases.contains_key(&section) {
                continue;
            }
            let mut bases = BTreeSet::new();
            for id in self.object.atoms_of(section) {
                let atom = self.object.atom(*id);
                if atom.kind != AtomKind::Data || atom.size() == 0 {
                    continue;
                }
                let mut found = self.kernel.kallsyms().named(&atom.name);
                if let (Some(symbol), None) = (found.next(), found.next()) {
                    bases.insert(symbol.addr.wrapping_sub(atom.start));
                }
            }
            if let (Some(base), 1) = (bases.first().copied(), bases.len())
                && self.names.allow(section, base)
            {
                self.p.by_name_only.insert(section);
                self.settle(section, base);
                return true;
            }
        }
        false
    }

    /// What different atoms show at different places, where the image lists no name that says which is right.
    fn find_contradictions(&mut self) {
        let two = |votes: &BTreeMap<u64, u32>| {
            let mut ranked: Vec<(u32, u64)> = votes.iter().map(|(at, n)| (*n, *at)).collect();
            ranked.sort_by_key(|(n, at)| (std::cmp::Reverse(*n), *at));
            (ranked.first().map(|r| r.1), ranked.get(1).map(|r| r.1))
        };
        for (section, votes) in &self.bases {
            match (self.p.bases.get(section), two(votes)) {
                (Some(base), (Some(a), Some(b))) if !self.names.know(*section) => {
                    self.p.contradictions.insert(*section, (*base, if a == *base { b } else { a }));
                }
                // No place that was shown is where its names are.
                (None, (Some(shown), _)) => {
                    self.p.contradictions.insert(*section, (self.names.one_of(*section).unwrap_or(shown), shown));
                }
                _ => {}
            }
        }
        for (name, votes) in &self.externs {
            match two(votes) {
                (Some(first), None) => {
                    self.p.externs.insert(name.clone(), first);
                }
                (Some(first), Some(other)) => {
                    self.p.externs.insert(name.clone(), first);
                    self.p.extern_contradictions.insert(name.clone(), (first, other));
                }
                (None, _) => {}
            }
        }
    }

    /// Sections the image would have one over the other: a name says which of them is right, or neither is.
    fn find_overlaps(&mut self) {
        let linked = |s: &SectionId| {
            use Class::{Bss, Data, Percpu, Rodata, Text};
            matches!(self.object.class(*s), Text(_) | Rodata | Data | Bss | Percpu)
        };
        let mut spans: Vec<(u64, u64, SectionId)> = self
            .p
            .bases
            .iter()
            .filter(|(s, _)| linked(s))
            .map(|(s, base)| (*base, base.saturating_add(self.object.section(*s).size), *s))
            .filter(|(start, end, _)| start < end)
            .collect();
        spans.sort_unstable();
        let mut reach: Option<(u64, u64, SectionId)> = None;
        for span in spans {
            if let Some(before) = reach.filter(|b| b.1 > span.0) {
                for (own, other) in [(before, span), (span, before)] {
                    if !self.names.know(own.2) {
                        self.p.contradictions.entry(own.2).or_insert((own.0, other.0));
                    }
                }
            }
            if reach.is_none_or(|b| b.1 < span.1) {
                reach = Some(span);
            }
        }
    }

    /// Code and data whose name the image has, but not at this place; code whose name it does not have.
    fn find_overridden(&mut self) {
        for atom in &self.object.atoms {
            let address = self.p.address(atom.id);
            if self.object.class(atom.section) == Class::Percpu || address.is_none() && !(atom.weak && atom.is_code()) {
                continue;
            }
            let mut named = self.kernel.kallsyms().named(&atom.name).filter(|s| !s.is_percpu()).peekable();
            let base = self.p.base(atom.section).filter(|_| atom.is_code());
            if let Some(other) = base.and_then(|base| self.names.called_otherwise(atom.section, atom.start, base)) {
                self.differs(atom.id, format!("{} calls this {other}, and has nothing of this name", self.p.holder));
                continue;
            }
            let known = named.peek().is_some() && (atom.is_code() || self.names.know(atom.section));
            if !known || named.any(|s| Some(s.addr) == address) {
                continue;
            }
            if atom.weak {
                self.p.overridden.insert(atom.id);
            } else if atom.kind != AtomKind::Gap {
                let why = format!("{} has this name at another place than the code around it shows", self.p.holder);
                self.differs(atom.id, why);
            }
        }
    }

    /// What matched is not what it is taken for.
    fn differs(&mut self, id: AtomId, why: String) {
        self.p.matched.remove(&id);
        self.p.same_data.remove(&id);
        self.p.mismatches.entry(id).or_insert(why);
    }
}
