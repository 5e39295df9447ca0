//! Memory of the image that is gone once the kernel has booted: what lies between `__init_begin` and `__init_end`
//! (arch/x86/kernel/vmlinux.lds.S, free_initmem in arch/x86/mm/init.c), whatever the section of the object was called.
//!
//! `.meminit.text` is linked there or not, depending on the configuration, and a symbol of another object does not say where it
//! is. Refused (LP2003): a replaced function there, and a reference to something there, unless the replaced code has the same
//! one: it then knows when that may be used. Without an image, what a compared object itself has in `.init.*` and `.exit.*` is
//! there in every kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bound, Resolved};
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::HolderName;
use crate::kernel::KernelImage;
use crate::plan::{Dest, Item, ObjectPair, PatchSet, Role};
use crate::symbolize::{Class, Object, Target, TextKind};

/// Symbols of the linker script that are compared with, not read (include/asm-generic/sections.h).
const BOUNDARIES: &[&str] =
    &["__init_begin", "__init_end", "_sinittext", "_einittext", "__per_cpu_start", "__per_cpu_load"];

/// The init range of an image.
#[derive(Debug)]
pub struct Init {
    ranges: Vec<(u64, u64)>,
    /// Since 6.15 the first per-CPU area has its addresses here; variables are never used there.
    percpu: (u64, u64),
    boundaries: BTreeSet<u64>,
}

impl Init {
    /// Reads it from the image's names; of an image that names no data, its code.
    pub fn of(kernel: &KernelImage) -> Option<Self> {
        if let Some(module) = kernel.module() {
            // `.exit` stays with the rest (module_init_section and module_exit_section, kernel/module/main.c).
            let ranges: Vec<_> = module.init.iter().map(|r| (r.start, r.end)).collect();
            let (percpu, boundaries) = Default::default();
            return (!ranges.is_empty()).then_some(Self { ranges, percpu, boundaries });
        }
        let at = |name: &str| super::resolve::by_name(kernel, name);
        let pair = |from: &str, to: &str| at(from).zip(at(to)).filter(|(a, b)| a < b);
        let range = pair("__init_begin", "__init_end").or_else(|| pair("_sinittext", "_einittext"))?;
        let percpu = pair("__per_cpu_start", "__per_cpu_end").unwrap_or_default();
        Some(Self { ranges: vec![range], percpu, boundaries: BOUNDARIES.iter().filter_map(|n| at(n)).collect() })
    }

    /// Whether an address is of something that is gone.
    pub fn holds(&self, address: u64) -> bool {
        let within = |(from, to): (u64, u64)| from <= address && address < to;
        self.ranges.iter().copied().any(within) && !within(self.percpu)
    }

    /// The replaced function and its pieces.
    pub fn check_old(&self, bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, out: &mut Vec<Problem>) {
        let Role::Replaces(old) = item.role else { return };
        let pair = &pairs[item.pair.0 as usize];
        let placement = &bound.placements[item.pair.0 as usize];
        for atom in pair.old.family(old.0).into_iter().map(|id| pair.old.atom(id)).filter(|a| a.is_code()) {
            // It runs until the alternatives are in place, which is before anything is freed.
            if pair.old.class_of(atom.id) == Class::Text(TextKind::AltAux) {
                continue;
            }
            if let Some(address) = placement.address(atom.id).filter(|a| self.holds(*a)) {
                let what = match &pair.holder {
                    HolderName::Vmlinux => {
                        format!("the kernel image has it at {address:#x}, in memory that is freed after the start")
                    }
                    HolderName::Module(module) => format!("memory that {module} frees when its init function is done"),
                };
                out.push(Problem::new(codes::LP2003, Place::symbol(&pair.name, &atom.name), what));
            }
        }
    }

    /// A reference of carried code or data.
    pub fn check_edge(
        &self,
        bound: &Bound<'_>,
        pairs: &[ObjectPair],
        set: &PatchSet,
        item: &Item,
        dest: &Dest,
        out: &mut Vec<Problem>,
    ) {
        let Some(Resolved::Image(address, _)) = bound.of(item.pair, dest) else { return };
        if !self.holds(address) || self.boundaries.contains(&address) || is_known(pairs, set, dest) {
            return;
        }
        let pair = &pairs[item.pair.0 as usize];
        let name = match dest {
            Dest::Kernel(name, _) => name.as_str(),
            Dest::Old(of, old, _) => &pairs[of.0 as usize].old.atom(old.0).name,
            _ => "something",
        };
        let what = match bound.module_at(address) {
            None => format!("it refers to {name}, which is in memory that is freed after the start ({address:#x})"),
            Some(module) => {
                format!("it refers to {name}, in memory that {module} frees when its init function is done")
            }
        };
        out.push(Problem::new(codes::LP2003, Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name), what));
    }
}

/// References that no kernel could serve: to what compared objects have in sections that are always freed.
pub fn references(pairs: &[ObjectPair], set: &PatchSet) -> Vec<Problem> {
    let mut names = BTreeMap::new();
    for pair in pairs {
        for atom in pair.old.atoms.iter().filter(|a| a.global) {
            let section = pair.old.section(atom.section).name.as_str();
            names.extend(atom.names().filter(|_| is_freed(section)).map(|n| (n, section)));
        }
    }
    let mut found = Vec::new();
    for item in &set.items {
        for edge in item.all_edges() {
            let (name, section) = match &edge.dest {
                Dest::Old(of, old, _) => {
                    let object = &pairs[of.0 as usize].old;
                    let atom = object.atom(old.0);
                    (atom.name.as_str(), object.section(atom.section).name.as_str())
                }
                Dest::Kernel(name, _) => (name.as_str(), names.get(name.as_str()).copied().unwrap_or_default()),
                _ => continue,
            };
            if !is_freed(section) || is_known(pairs, set, &edge.dest) {
                continue;
            }
            let pair = &pairs[item.pair.0 as usize];
            let place = Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name);
            found.push(Problem::new(codes::LP2003, place, format!("it refers to {name}, which is in {section}")));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Is the section between `__init_begin` and `__init_end` of every kernel (INIT_TEXT, INIT_DATA, EXIT_TEXT and EXIT_DATA of
/// include/asm-generic/vmlinux.lds.h)?
fn is_freed(section: &str) -> bool {
    [".init.", ".exit."].iter().any(|p| section.starts_with(p))
}

/// Whether one of the replaced functions refers to it as well.
fn is_known(pairs: &[ObjectPair], set: &PatchSet, dest: &Dest) -> bool {
    let replaced = set.items.iter().filter_map(|i| match i.role {
        Role::Replaces(old) => Some((i.pair, old)),
        _ => None,
    });
    let refers = |object: &Object, atom: crate::symbolize::AtomId, of: crate::plan::PairId| {
        object.family(atom).into_iter().flat_map(|id| &object.atom(id).refs).any(|r| match (r.target, dest) {
            (Target::Extern(symbol, _), Dest::Kernel(name, _)) => object.symbol_name(symbol) == name,
            (Target::Section(section, at), Dest::Old(pair, old, _)) => {
                let there = pairs[pair.0 as usize].old.atom(old.0);
                let (start, end) = (there.start as i64, there.end as i64);
                of == *pair && section == there.section && (start..end.max(start + 1)).contains(&at)
            }
            _ => false,
        })
    };
    replaced.into_iter().any(|(pair, old)| refers(&pairs[pair.0 as usize].old, old.0, pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_percpu_area_is_no_init_memory_and_the_end_is_not_part_of_it() {
        let init = Init { ranges: vec![(0x1000, 0x5000)], percpu: (0x2000, 0x3000), boundaries: BTreeSet::new() };
        let held: Vec<bool> =
            [0xfff, 0x1000, 0x1fff, 0x2000, 0x2fff, 0x3000, 0x4fff, 0x5000].map(|a| init.holds(a)).into();
        assert_eq!(held, [false, true, true, false, false, true, true, false]);
    }
}
