//! Run-pre matching: where each section of an old object lies in the kernel image.
//!
//! The linker moves an input section as one piece, so one base address per section says everything, mergeable sections
//! apart. Code is compared with the image byte by byte, relocated fields masked; the fields are then read back, and each
//! shows where the section or symbol it refers to is. This also finds static symbols no name table can tell apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ingest::{SectionId, reloc};
use crate::kernel::KernelImage;
use crate::symbolize::{Atom, AtomId, AtomKind, Class, Object, Ref, RefKind, Target, TextKind};

/// Where things of one old object are in the image.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    bases: BTreeMap<SectionId, u64>,
    starts: Vec<(SectionId, u64)>,
    names: Vec<String>,
    matched: BTreeSet<AtomId>,
    mismatches: BTreeMap<AtomId, String>,
    overridden: BTreeSet<AtomId>,
    contradictions: BTreeMap<SectionId, (u64, u64)>,
    extern_contradictions: BTreeMap<String, (u64, u64)>,
    by_name_only: BTreeSet<SectionId>,
    /// Address of each atom and whether it is proven, where that was found otherwise.
    exact: Option<Vec<Option<(u64, bool)>>>,
    /// Addresses of undefined symbols, as the image's code refers to them.
    pub externs: HashMap<String, u64>,
    /// Addresses of strings and constants, by content.
    pub constants: HashMap<Vec<u8>, u64>,
}

impl Placement {
    /// Addresses that are known: of each atom (and whether its code is the kernel's), of names, and of strings.
    pub fn exact(
        atoms: Vec<Option<(u64, bool)>>,
        externs: HashMap<String, u64>,
        constants: HashMap<Vec<u8>, u64>,
    ) -> Self {
        Self { exact: Some(atoms), externs, constants, ..Self::default() }
    }

    /// Address of an atom, if its section was placed.
    pub fn address(&self, id: AtomId) -> Option<u64> {
        if let Some(atoms) = &self.exact {
            return atoms.get(id.0 as usize).copied().flatten().map(|a| a.0);
        }
        let (section, start) = self.starts.get(id.0 as usize)?;
        Some(self.bases.get(section)?.wrapping_add(*start))
    }
    /// Was its section placed by a name alone, without code that refers to it?
    pub fn is_by_name(&self, id: AtomId) -> bool {
        self.starts.get(id.0 as usize).is_some_and(|(s, _)| self.by_name_only.contains(s))
    }
    /// Is the atom's code the image's code?
    pub fn check(&self, id: AtomId) -> Result<(), (&'static str, String)> {
        if let Some(atoms) = &self.exact {
            return match atoms.get(id.0 as usize).copied().flatten() {
                Some((_, true)) => Ok(()),
                Some((at, false)) => Err(("LP3001", format!("the kernel image has other code at {at:#x}"))),
                None => Err(("LP3001", "it was not found in the kernel image".into())),
            };
        }
        let Some((section, _)) = self.starts.get(id.0 as usize) else {
            return Err(("LP3001", "it was not found in the kernel image".into()));
        };
        if let Some((a, b)) = self.contradictions.get(section) {
            return Err(("LP3002", format!("its section would be both at {a:#x} and at {b:#x}")));
        }
        if self.overridden.contains(&id) {
            return Err(("LP3004", "the kernel image has another function under this name".into()));
        }
        match self.mismatches.get(&id) {
            Some(why) => Err(("LP3001", why.clone())),
            None if self.matched.contains(&id) => Ok(()),
            None => Err(("LP3001", format!("{} was not found in the kernel image", self.names[id.0 as usize]))),
        }
    }
    /// Two addresses the image's code shows for one undefined symbol.
    pub fn contradiction(&self, name: &str) -> Option<(u64, u64)> {
        self.extern_contradictions.get(name).copied()
    }
    /// Is it certain where the data is, and, if it is read-only, that it is the same?
    pub fn check_data(&self, id: AtomId, read_only: bool) -> Result<(), (&'static str, String)> {
        let section = self.starts.get(id.0 as usize).map(|s| s.0);
        if let Some((a, b)) = section.and_then(|s| self.contradictions.get(&s)) {
            return Err(("LP3002", format!("its section would be both at {a:#x} and at {b:#x}")));
        }
        match self.mismatches.get(&id) {
            Some(why) if read_only => Err(("LP3001", why.clone())),
            _ => Ok(()),
        }
    }
    /// Number of functions proven equal, and of those that differ.
    pub fn counts(&self) -> (usize, usize) {
        if let Some(atoms) = &self.exact {
            let proven = atoms.iter().flatten().filter(|a| a.1).count();
            return (proven, atoms.iter().flatten().count() - proven);
        }
        (self.matched.len(), self.mismatches.len())
    }
}

/// A value read from the image and what it says.
enum Shows {
    Base(SectionId, u64),
    Extern(String, u64),
    Constant(Vec<u8>, u64),
}

/// Places all sections of `object`.
pub fn place(object: &Object, kernel: &KernelImage) -> Placement {
    let mut p = Placement {
        starts: object.atoms.iter().map(|a| (a.section, a.start)).collect(),
        names: object.atoms.iter().map(|a| a.name.clone()).collect(),
        ..Placement::default()
    };
    let mut votes: BTreeMap<SectionId, BTreeMap<u64, u32>> = BTreeMap::new();
    for section in code_sections(object) {
        if let Some(base) = best_base(object, kernel, section) {
            p.bases.insert(section, base);
            read_code(object, kernel, section, base, &mut p, &mut votes);
        }
    }
    // Data shows where other data is; code without names is found by the jumps into it.
    loop {
        let mut progress = false;
        let ready: Vec<(SectionId, u64)> = votes
            .iter()
            .filter(|(s, _)| !p.bases.contains_key(s))
            .filter_map(|(s, v)| Some((*s, winner(v)?)))
            .collect();
        for (section, base) in ready {
            progress = true;
            settle(object, kernel, section, base, &mut p, &mut votes);
        }
        if !progress && !place_by_name(object, kernel, &mut p, &mut votes) {
            break;
        }
    }
    for (section, v) in &votes {
        let Some(base) = p.bases.get(section) else { continue };
        if let Some((other, n)) = v.iter().filter(|(b, _)| *b != base).max_by_key(|(_, n)| **n) {
            let weak_only = object.atoms_of(*section).iter().any(|a| object.atom(*a).weak);
            if !weak_only || *n > 1 && object.atoms_of(*section).len() == 1 {
                p.contradictions.insert(*section, (*base, *other));
            }
        }
    }
    find_overridden(object, kernel, &mut p);
    p
}

fn code_sections(object: &Object) -> Vec<SectionId> {
    (0..object.image.sections.len() as u32)
        .map(SectionId)
        .filter(
            |s| matches!(object.class(*s), Class::Text(k) if !matches!(k, TextKind::AltReplacement | TextKind::Exit)),
        )
        .filter(|s| !object.atoms_of(*s).is_empty())
        .collect()
}

fn winner(votes: &BTreeMap<u64, u32>) -> Option<u64> {
    votes.iter().max_by_key(|(base, n)| (**n, std::cmp::Reverse(**base))).map(|(base, _)| *base)
}

/// Of the bases the names suggest, the one where most functions match; a tie between different places is no answer.
fn best_base(object: &Object, kernel: &KernelImage, section: SectionId) -> Option<u64> {
    let mut votes: BTreeMap<u64, u32> = BTreeMap::new();
    for id in object.atoms_of(section) {
        let atom = object.atom(*id);
        for name in std::iter::once(&atom.name).chain(&atom.aliases) {
            for symbol in kernel.kallsyms().named(name).filter(|s| !s.is_percpu()) {
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
            let matching =
                object.atoms_of(section).iter().filter(|a| mismatch(object, kernel, object.atom(**a), base).is_none());
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

/// How the atom's bytes differ from the image's at this base, relocated fields masked.
fn mismatch(object: &Object, kernel: &KernelImage, atom: &Atom, base: u64) -> Option<String> {
    let bytes = object.bytes(atom.id);
    let address = base.wrapping_add(atom.start);
    let Some(image) = kernel.read(address, bytes.len()) else {
        return Some(format!("{} bytes at {address:#x} are not in the kernel image", bytes.len()));
    };
    let mut masked = vec![false; bytes.len()];
    for r in atom.refs.iter().filter(|r| matches!(r.kind, RefKind::Reloc(_))) {
        if let Some(m) = masked.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
            m.fill(true);
        }
    }
    let at = (0..bytes.len()).find(|i| !masked[*i] && bytes[*i] != image[*i])?;
    Some(format!(
        "the byte at +{at:#x} is {:02x} in the old object and {:02x} in the kernel image",
        bytes[at], image[at]
    ))
}

/// A string or constant the atom refers to that is another one in the image.
fn other_constant(object: &Object, kernel: &KernelImage, atom: &Atom, base: u64) -> Option<String> {
    atom.refs.iter().find_map(|r| {
        let Target::Section(section, offset) = r.target else { return None };
        let mergeable = matches!(object.class(section), Class::Strings | Class::Constants);
        let bytes = object.constant_at(section, offset).filter(|_| mergeable)?;
        let there = field_means(kernel, atom, r, base)?;
        let same = kernel.read(there, bytes.len()) == Some(bytes);
        (!same).then(|| {
            let text = String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned();
            format!(
                "the field at +{:#x} refers to {text:?} in the old object and to something else in the kernel image",
                r.at
            )
        })
    })
}

fn read_code(
    object: &Object,
    kernel: &KernelImage,
    section: SectionId,
    base: u64,
    p: &mut Placement,
    votes: &mut BTreeMap<SectionId, BTreeMap<u64, u32>>,
) {
    for id in object.atoms_of(section) {
        let atom = object.atom(*id);
        match mismatch(object, kernel, atom, base).or_else(|| other_constant(object, kernel, atom, base)) {
            None => {
                p.matched.insert(*id);
                learn(object, kernel, atom, base, p, votes);
            }
            Some(why) => {
                p.mismatches.insert(*id, why);
            }
        }
    }
}

fn learn(
    object: &Object,
    kernel: &KernelImage,
    atom: &Atom,
    base: u64,
    p: &mut Placement,
    votes: &mut BTreeMap<SectionId, BTreeMap<u64, u32>>,
) {
    for r in &atom.refs {
        match shows(object, kernel, atom, r, base) {
            Some(Shows::Base(section, at)) => *votes.entry(section).or_default().entry(at).or_default() += 1,
            Some(Shows::Extern(name, at)) => {
                let first = *p.externs.entry(name.clone()).or_insert(at);
                if first != at {
                    p.extern_contradictions.insert(name, (first, at));
                }
            }
            Some(Shows::Constant(bytes, at)) => {
                p.constants.entry(bytes).or_insert(at);
            }
            None => {}
        }
    }
}

/// The address a relocated field of the image means.
fn field_means(kernel: &KernelImage, atom: &Atom, r: &Ref, base: u64) -> Option<u64> {
    let RefKind::Reloc(kind) = r.kind else { return None };
    let at = base.wrapping_add(atom.start).wrapping_add(r.at);
    let field = kernel.read(at, usize::from(r.width))?;
    let value = match *field {
        [a, b, c, d] if kind == reloc::ABS32 => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])) as u64,
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return None,
    };
    Some(if reloc::is_pc_relative(kind) { value.wrapping_add(at).wrapping_add(u64::from(r.bias)) } else { value })
}

/// Reads a relocated field back.
fn shows(object: &Object, kernel: &KernelImage, atom: &Atom, r: &Ref, base: u64) -> Option<Shows> {
    let means = field_means(kernel, atom, r, base)?;
    match r.target {
        Target::Extern(symbol, addend) => {
            Some(Shows::Extern(object.symbol_name(symbol).to_owned(), means.wrapping_sub(addend as u64)))
        }
        Target::Section(section, offset) => match object.class(section) {
            Class::Strings | Class::Constants => {
                let bytes = object.constant_at(section, offset)?;
                let same = kernel.read(means, bytes.len()) == Some(bytes);
                same.then(|| Shows::Constant(bytes.to_vec(), means))
            }
            _ => Some(Shows::Base(section, means.wrapping_sub(offset as u64))),
        },
    }
}

/// Accepts a base for a section that code or data refers to, and reads on from there.
fn settle(
    object: &Object,
    kernel: &KernelImage,
    section: SectionId,
    base: u64,
    p: &mut Placement,
    votes: &mut BTreeMap<SectionId, BTreeMap<u64, u32>>,
) {
    p.bases.insert(section, base);
    match object.class(section) {
        Class::Text(_) => read_code(object, kernel, section, base, p, votes),
        Class::Rodata | Class::Data => {
            for id in object.atoms_of(section) {
                let atom = object.atom(*id);
                match mismatch(object, kernel, atom, base) {
                    None => learn(object, kernel, atom, base, p, votes),
                    Some(why) => {
                        p.mismatches.insert(*id, why);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Sections nothing placed refers to: by the names of their objects, if one base fits all that have a name.
fn place_by_name(
    object: &Object,
    kernel: &KernelImage,
    p: &mut Placement,
    votes: &mut BTreeMap<SectionId, BTreeMap<u64, u32>>,
) -> bool {
    for index in 0..object.image.sections.len() as u32 {
        let section = SectionId(index);
        let data =
            matches!(object.class(section), Class::Rodata | Class::Data | Class::Bss | Class::Percpu | Class::Ids);
        if !data || p.bases.contains_key(&section) {
            continue;
        }
        let mut bases = BTreeSet::new();
        for id in object.atoms_of(section) {
            let atom = object.atom(*id);
            if atom.kind != AtomKind::Data || atom.size() == 0 {
                continue;
            }
            let mut found = kernel.kallsyms().named(&atom.name);
            if let (Some(symbol), None) = (found.next(), found.next()) {
                bases.insert(symbol.addr.wrapping_sub(atom.start));
            }
        }
        if let (Some(base), 1) = (bases.first().copied(), bases.len()) {
            p.by_name_only.insert(section);
            settle(object, kernel, section, base, p, votes);
            return true;
        }
    }
    false
}

/// Functions whose name the image gives to another place.
fn find_overridden(object: &Object, kernel: &KernelImage, p: &mut Placement) {
    for atom in object.atoms.iter().filter(|a| a.kind == AtomKind::Function && a.global) {
        let address = p.address(atom.id);
        let mut named = kernel.kallsyms().named(&atom.name).peekable();
        if named.peek().is_none() || named.any(|s| Some(s.addr) == address) {
            continue;
        }
        if atom.weak {
            p.overridden.insert(atom.id);
        } else if address.is_some() {
            let why = "the kernel image has this name at another place than the code around it shows";
            p.mismatches.entry(atom.id).or_insert_with(|| why.into());
        }
    }
}
