//! Splits the sections of an object into atoms along its symbols.
//!
//! What no symbol covers becomes a gap atom when something refers to it, so that a reference never falls through.
//!
//! Call padding (CONFIG_CALL_PADDING) is no atom: the `__pfx_NAME` symbol objtool makes of it (elf_create_prefix_symbol,
//! tools/objtool/elf.c) ends where NAME begins, and the bytes belong to that function. A reference into it falls through
//! on purpose: nobody may have one.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;

use object::elf;

use super::{Atom, AtomId, AtomKind, Class, Inner, Object, Table, TextKind, ids};
use crate::error::Result;
use crate::ingest::{Section, SectionId, SymbolPlace};

/// Symbols of one place.
#[derive(Default)]
struct Names {
    end: u64,
    /// Bind, size, name.
    all: Vec<(u8, u64, String)>,
    is_function: bool,
}

/// Fills `object.atoms` with everything but references.
pub fn split(object: &mut Object) -> Result<()> {
    let mut places: Vec<BTreeMap<u64, Names>> = Vec::new();
    places.resize_with(object.image.sections.len(), BTreeMap::new);
    let prefixes = prefixes(object);
    for symbol in &object.image.symbols {
        let SymbolPlace::Section(id) = symbol.place else { continue };
        let behind = symbol.value + symbol.size;
        if symbol.name.starts_with(PREFIX) && prefixes[id.0 as usize].get(&behind) == Some(&symbol.size) {
            continue;
        }
        let section = &object.image.sections[id.0 as usize];
        let wanted = section.is_alloc() && !section.is_merge() && !symbol.name.is_empty();
        if !wanted || symbol.kind == elf::STT_SECTION.0 || symbol.kind == elf::STT_FILE.0 {
            continue;
        }
        if symbol.name.starts_with(".L") {
            continue;
        }
        let of_ids = object.class(id) == Class::Ids;
        if of_ids && ids::is_entry(&symbol.name) {
            continue;
        }
        let names = places[id.0 as usize].entry(symbol.value).or_default();
        names.end = names.end.max(symbol.value + symbol.size);
        if of_ids {
            // The label of the list stands for it, and not the symbol at its first word.
            let size = if ids::is_head(&symbol.name) { 0 } else { 1 };
            names.all.push((symbol.bind, size, symbol.name.clone()));
            continue;
        }
        names.is_function |= symbol.kind == elf::STT_FUNC.0;
        names.all.push((symbol.bind, symbol.size, symbol.name.clone()));
    }
    let cuts = gap_cuts(object);
    object.atoms.reserve(places.iter().map(BTreeMap::len).sum());
    for index in 0..object.image.sections.len() {
        let id = SectionId(index as u32);
        let class = object.class(id);
        if matches!(class, Class::Ignored(_) | Class::Strings | Class::Constants | Class::Table(_)) {
            continue;
        }
        split_section(object, id, std::mem::take(&mut places[index]), &cuts[index], &prefixes[index]);
    }
    for atom in &object.atoms {
        for name in std::iter::once(&atom.name).chain(&atom.aliases) {
            object.by_name.entry(name.clone()).or_insert(atom.id);
        }
    }
    Ok(())
}

const PREFIX: &str = "__pfx_";

/// Size of the call padding before each function that has one, per section, by the function's offset.
fn prefixes(object: &Object) -> Vec<BTreeMap<u64, u64>> {
    let mut found = vec![BTreeMap::new(); object.image.sections.len()];
    let functions = object.image.symbols.iter().filter(|s| s.kind == elf::STT_FUNC.0);
    let named: FxHashSet<(&str, SymbolPlace, u64)> =
        functions.clone().map(|s| (s.name.as_str(), s.place, s.value)).collect();
    for symbol in functions {
        let (Some(name), SymbolPlace::Section(id)) = (symbol.name.strip_prefix(PREFIX), symbol.place) else { continue };
        let behind = symbol.value + symbol.size;
        if symbol.size > 0 && named.contains(&(name, symbol.place, behind)) {
            found[id.0 as usize].insert(behind, symbol.size);
        }
    }
    found
}

/// Offsets relocations refer to, per section: where gaps are cut. Who names an object of known size means that one, its end
/// and a base before it included, and no padding beside it.
fn gap_cuts(object: &Object) -> Vec<BTreeSet<u64>> {
    let mut cuts = vec![BTreeSet::new(); object.image.sections.len()];
    for (section, class) in object.image.sections.iter().zip(&object.classes) {
        // Unwind entries also say where a function ends: what begins there is padding.
        if *class == Class::Table(Table::OrcIp) {
            continue;
        }
        for reloc in &section.relocs {
            let symbol = &object.image.symbols[reloc.symbol.0 as usize];
            let SymbolPlace::Section(target) = symbol.place else { continue };
            if symbol.kind == elf::STT_OBJECT.0 && symbol.size > 0 {
                continue;
            }
            // The bias of a PC-relative field in code is 4 plus an immediate; cutting early is harmless only for code
            // chunks, which are reached by jumps without immediates.
            let bias = if crate::isa::reloc::is_pc_relative(reloc.kind) && section.is_exec() { 4 } else { 0 };
            if let Ok(offset) = u64::try_from((symbol.value as i64).saturating_add(reloc.addend).saturating_add(bias)) {
                cuts[target.0 as usize].insert(offset);
            }
        }
    }
    cuts
}

fn split_section(
    object: &mut Object,
    id: SectionId,
    places: BTreeMap<u64, Names>,
    cuts: &BTreeSet<u64>,
    prefixes: &BTreeMap<u64, u64>,
) {
    let size = object.section(id).size;
    let exec = object.section(id).is_exec();
    let starts: Vec<u64> = places.keys().copied().collect();
    let mut covered = 0;
    // Those that may hold what follows, the last one on top.
    let mut owners: Vec<(u64, AtomId)> = Vec::new();
    for (i, (start, mut names)) in places.into_iter().enumerate() {
        let prefix = |of: u64| prefixes.get(&of).copied().unwrap_or(0);
        let next = starts.get(i + 1).map_or(size, |n| n - prefix(*n));
        // Padding that something else covers is none.
        let padding = if start - prefix(start) >= covered { prefix(start) } else { 0 };
        if start - padding > covered {
            add_gap(object, id, covered, start - padding, cuts);
        }
        // A symbol inside a function (a label) does not end it, nor is one without a size an object of its own.
        let inside = start < covered;
        let ids = object.class(id) == Class::Ids;
        let end = if names.end > start && !ids {
            names.end
        } else if exec && !inside || ids {
            next
        } else {
            start
        };
        // The name that stands for the atom: an object rather than an empty lock class key, global, short.
        names.all.sort_by_key(|(bind, size, name)| (*size == 0, *bind != elf::STB_GLOBAL.0, name.len(), name.clone()));
        if inside && (names.end == start && !ids || exec && !names.is_function) {
            while owners.pop_if(|o| o.0 <= start).is_some() {}
            if let Some((_, owner)) = owners.last() {
                let owner = &mut object.atoms[owner.0 as usize];
                let at = start - owner.start;
                let named = |(bind, _, name)| Inner { name, at, global: bind == elf::STB_GLOBAL.0 };
                owner.inner.extend(names.all.into_iter().map(named));
                continue;
            } else if exec {
                continue;
            }
        }
        // Who refers to an empty object (a lock class key) means that and not the padding behind it.
        if !exec && end == start && starts.get(i + 1).is_some_and(|next| is_padding(object.section(id), start, *next)) {
            covered = covered.max(next);
        }
        let global = names.all.iter().any(|(b, _, _)| *b != elf::STB_LOCAL.0);
        let weak = names.all.iter().all(|(b, _, _)| *b == elf::STB_WEAK.0);
        let mut all = names.all.into_iter().map(|(_, _, n)| n);
        let name = all.next().unwrap_or_default();
        let kind = match (exec, names.is_function) {
            (true, true) => AtomKind::Function,
            (true, false) => AtomKind::Chunk,
            _ => AtomKind::Data,
        };
        push(object, id, start, end.min(size), kind, name, all.collect(), (global, weak));
        if let Some(atom) = object.atoms.last_mut() {
            atom.prefix = padding;
            while owners.pop_if(|o| o.0 <= start).is_some() {}
            owners.push((atom.end, atom.id));
        }
        covered = covered.max(end);
    }
    if covered < size {
        add_gap(object, id, covered, size, cuts);
    }
}

/// A stretch without symbols: cut where it is referred to; padding nobody refers to gets no atom.
fn add_gap(object: &mut Object, id: SectionId, start: u64, end: u64, cuts: &BTreeSet<u64>) {
    let exec = object.section(id).is_exec();
    if object.class(id) == Class::Text(TextKind::AltReplacement) {
        return;
    }
    let mut points: Vec<u64> = cuts.range(start..end).copied().collect();
    let first = points.first().copied().unwrap_or(end);
    if !exec && first != start && has_content(object.section(id), start, first) {
        // Nobody refers to it by an address of its own: entries of a list the kernel walks.
        points.insert(0, start);
    }
    for (i, from) in points.iter().enumerate() {
        let to = points.get(i + 1).copied().unwrap_or(end);
        let name = format!("{}+{from:#x}", object.section(id).name);
        let kind = if exec { AtomKind::Chunk } else { AtomKind::Gap };
        push(object, id, *from, to, kind, name, Vec::new(), (false, false));
    }
}

/// Nothing but zeros, and fewer than what follows is aligned to.
fn is_padding(section: &Section, start: u64, end: u64) -> bool {
    let align = (1 << end.trailing_zeros().min(63)).min(section.align);
    end - start < align && !has_content(section, start, end)
}

/// Anything but padding?
fn has_content(section: &Section, start: u64, end: u64) -> bool {
    let bytes = section.data.get(start as usize..end as usize).unwrap_or(&[]);
    let first = section.relocs.partition_point(|r| r.offset < start);
    bytes.iter().any(|b| *b != 0) || section.relocs.get(first).is_some_and(|r| r.offset < end)
}

#[expect(clippy::too_many_arguments, reason = "the one place atoms are made")]
fn push(
    object: &mut Object,
    section: SectionId,
    start: u64,
    end: u64,
    kind: AtomKind,
    name: String,
    aliases: Vec<String>,
    (global, weak): (bool, bool),
) {
    let id = AtomId(object.atoms.len() as u32);
    object.by_section[section.0 as usize].push(id);
    object.atoms.push(Atom {
        id,
        section,
        start,
        end,
        prefix: 0,
        kind,
        name,
        aliases,
        inner: Vec::new(),
        global,
        weak,
        refs: Vec::new(),
        code: None,
        entries: Vec::new(),
        interior_pointers: Vec::new(),
    });
}
