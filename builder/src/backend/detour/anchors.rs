//! How the runtime finds the sections of a module: one anchor for each section that the patch refers to.
//!
//! Input: a module, addresses in its image. Output: anchors, those found by a field behind the others. The sections of a module lie
//! wherever there was room, and the loader keeps no list of them that is complete when a module comes (`sect_attrs` is made
//! behind the notifiers); what it keeps is the symbol table. A section is found by a symbol of it: its name, and its place
//! among all symbols of that name, which is the same in the table of a module that comes and of one that is here, when what belongs to
//! init is not counted (`add_kallsyms` keeps the order). A second symbol must lead to the same place. A section without a
//! symbol (strings) is found by what the loader has written into a field that refers to it.
//! Refused (LP3003): nothing shows where a section is.

use std::collections::{BTreeMap, BTreeSet};

use lpbuild_abi as abi;

use crate::bind::Bound;
use crate::codes;
use crate::compare::parent_of;
use crate::error::{Place, Problem};
use crate::holder::ModuleHolder;
use crate::isa::reloc;
use crate::kernel::{KernelImage, KernelSection, ModuleField};
use crate::plan::ObjectPair;
use crate::symbolize::Class;
use crate::symbolize::known_sections::THIS_MODULE;

/// A section of a module, and how it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionAnchor {
    /// Name of the section.
    pub section: String,
    /// Where the image of the module has it.
    pub address: u64,
    /// Its size in bytes; an empty one counts as one byte, since something may be there by its name.
    pub size: u64,
    /// The part of memory it lies in.
    pub region: abi::Region,
    /// How it is found.
    pub by: By,
}

/// How a section is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// It is `struct module`.
    Module,
    /// It has the per-CPU variables.
    Percpu,
    /// By a symbol, and a second one if it has more.
    Symbol(AnchorSymbol, Option<AnchorSymbol>),
    /// By a field.
    Field {
        /// The section it is in, among the anchors of the module.
        of: usize,
        /// Where it is there.
        at: u64,
        /// What it holds.
        kind: abi::FieldKind,
        /// The section begins so much before what it says.
        delta: i64,
    },
}

/// A symbol of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorSymbol {
    /// Its name.
    pub name: String,
    /// Its place among those of that name that are not init's, from 0.
    pub position: u32,
    /// How many there are.
    pub count: u32,
    /// Its distance from the beginning of the section.
    pub offset: u64,
}

/// The section of per-CPU variables.
const PERCPU: &str = ".data..percpu";

/// Anchors for the sections of a module that have something at these addresses.
///
/// # Errors
/// LP3003.
pub fn find(
    bound: &Bound<'_>,
    pairs: &[ObjectPair],
    module: &ModuleHolder,
    addresses: &BTreeSet<u64>,
) -> Result<Vec<SectionAnchor>, Problem> {
    let image = &module.image;
    let seek = Seek { image, symbols: symbols(image), all_names: lists_data(bound.running.kernel) };
    let mut sections: BTreeMap<u64, &KernelSection> = BTreeMap::new();
    for address in addresses {
        let lost = || lost(image, &format!("nothing is known at {address:#x}"));
        let section = image.part_at(*address).ok_or_else(lost)?;
        sections.insert(section.addr, section);
    }
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    for section in sections.values() {
        match seek.by_itself(section) {
            Some(by) => found.push(anchor(section, by)),
            None => rest.push(*section),
        }
    }
    for section in rest {
        let (field, host) = seek.field(bound, pairs, module, section).ok_or_else(|| lost(image, &section.name))?;
        let of = match found.iter().position(|a| a.address == host.addr) {
            Some(of) => of,
            None => {
                let by = seek.by_itself(host).ok_or_else(|| lost(image, &section.name))?;
                found.push(anchor(host, by));
                found.len() - 1
            }
        };
        let (kind, says) = says(image, &field).ok_or_else(|| lost(image, &section.name))?;
        let delta = says.wrapping_sub(section.addr).cast_signed();
        let by = By::Field { of, at: field.at - host.addr, kind, delta };
        found.push(anchor(section, by));
    }
    Ok(found)
}

fn lost(image: &KernelImage, section: &str) -> Problem {
    let what = format!("nothing in {} shows where {section} is", image.called());
    Problem::new(codes::LP3003, Place::object(image.name()).in_section(section), what)
}

fn anchor(section: &KernelSection, by: By) -> SectionAnchor {
    let region = region(section);
    SectionAnchor { section: section.name.clone(), address: section.addr, size: section.size.max(1), region, by }
}

/// As the loader sorts sections (`layout_sections`).
fn region(section: &KernelSection) -> abi::Region {
    match section.name.as_str() {
        PERCPU => abi::Region::Percpu,
        _ if section.is_code() => abi::Region::Text,
        _ if !section.is_writable() => abi::Region::Rodata,
        _ if section.is_sealed() => abi::Region::RoAfterInit,
        _ => abi::Region::Data,
    }
}

/// Without CONFIG_KALLSYMS_ALL there are names of code only.
fn lists_data(kernel: &KernelImage) -> bool {
    kernel.kallsyms().iter().any(|s| s.listed && matches!(s.kind, b'd' | b'D' | b'b' | b'B'))
}

/// Every name with the places of its symbols in the order of the table.
fn symbols(image: &KernelImage) -> BTreeMap<&str, Vec<u64>> {
    let mut all: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (name, address) in image.module().map_or(&[][..], |m| &m.symbols) {
        all.entry(name).or_default().push(*address);
    }
    all
}

/// What a field of an image says: its kind, and the address without what the kind adds.
fn says(image: &KernelImage, field: &ModuleField) -> Option<(abi::FieldKind, u64)> {
    let kind = reloc::late_kind(field.kind)?;
    let bytes = image.read(field.at, kind.width() as usize)?;
    let number = match *bytes {
        [a, b, c, d] if kind == abi::FieldKind::Abs32 => u32::from_le_bytes([a, b, c, d]).into(),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned(),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return None,
    };
    Some((kind, if reloc::is_pc_relative(field.kind) { number.wrapping_add(field.at) } else { number }))
}

struct Seek<'a> {
    image: &'a KernelImage,
    symbols: BTreeMap<&'a str, Vec<u64>>,
    all_names: bool,
}

/// In a function, so far behind its beginning nobody's jump covers anything.
const BEHIND_SITES: u64 = abi::MAX_SITE as u64 + 16;

impl Seek<'_> {
    /// Without another section.
    fn by_itself(&self, section: &KernelSection) -> Option<By> {
        match section.name.as_str() {
            THIS_MODULE => return Some(By::Module),
            PERCPU => return Some(By::Percpu),
            _ if !self.all_names && !section.is_code() => return None,
            _ => {}
        }
        let within = |at: u64| section.addr <= at && at <= section.range().end;
        let mut named: Vec<(bool, bool, AnchorSymbol)> = Vec::new();
        for (name, places) in &self.symbols {
            for (address, position) in places.iter().zip(0u32..).filter(|(a, _)| within(**a)) {
                let (count, offset) = (places.len() as u32, address - section.addr);
                let made_up = name.starts_with('.') || name.starts_with("__pfx_") || name.starts_with("__UNIQUE_ID");
                named.push((count > 1, made_up, AnchorSymbol { name: (*name).to_owned(), position, count, offset }));
            }
        }
        // The best of each name, the names in the order of places.
        named.sort_by(|a, b| (a.0, a.1, a.2.offset, &a.2.name).cmp(&(b.0, b.1, b.2.offset, &b.2.name)));
        let mut named = named.into_iter().map(|(_, _, n)| n);
        let first = named.next()?;
        let second = named.find(|n| n.name != first.name);
        Some(By::Symbol(first, second))
    }

    /// A field that the loader fills in with something of a section, and that nothing changes afterwards: of constants with a name; else
    /// of code that was compared.
    fn field(
        &self,
        bound: &Bound<'_>,
        pairs: &[ObjectPair],
        module: &ModuleHolder,
        section: &KernelSection,
    ) -> Option<(ModuleField, &KernelSection)> {
        let image = self.image;
        let facts = image.module()?;
        let means = |f: &&ModuleField| {
            let of = image.part_at(f.symbol).is_some_and(|s| s.addr == section.addr);
            let near = says(image, f)
                .is_some_and(|(_, to)| i32::try_from(to.wrapping_sub(section.addr).cast_signed()).is_ok());
            of && near
        };
        let constants = image.sections().iter().filter(|s| s.name.starts_with(".rodata") && !s.is_writable());
        for host in constants.filter(|s| s.addr != section.addr && self.by_itself(s).is_some()) {
            if let Some(field) = facts.fields_in(host.range()).iter().find(means) {
                return Some((*field, host));
            }
        }
        for (index, pair) in pairs.iter().enumerate().filter(|(_, p)| p.holder == module.name) {
            let placement = bound.placements.get(index)?;
            for atom in pair.old.atoms.iter().filter(|a| matches!(pair.old.class(a.section), Class::Text(_))) {
                let Some(at) = placement.address(atom.id).filter(|_| placement.check(atom.id).is_ok()) else {
                    continue;
                };
                let Some(host) = image.part_at(at).filter(|s| self.by_itself(s).is_some()) else { continue };
                let rewritten = pair.old.rewritten(atom.id);
                // Nobody's jump is at the beginning of a piece.
                let piece = parent_of(&pair.old, atom.id) != atom.id;
                let behind = at.saturating_add(if piece { 0 } else { BEHIND_SITES });
                let fields = facts.fields_in(behind..at.saturating_add(atom.size()));
                let whole = |f: &&ModuleField| {
                    let (from, to) = (f.at - at, f.at - at + reloc::width(f.kind).unwrap_or(8));
                    !rewritten.iter().any(|r| r.start < to && from < r.end)
                };
                let init = facts.init.iter().any(|r| r.contains(&at));
                if let Some(field) = fields.iter().filter(means).find(whole).filter(|_| !init) {
                    return Some((*field, host));
                }
            }
        }
        None
    }
}
