//! The units: their names and the code they own (DWARF 5, 3.1.1 "Full and Partial Compilation Unit Entries", 6.1.2 "Lookup by
//! Address").

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gimli::{Abbreviations, DebugAranges, DebugInfoOffset, LittleEndian};

use super::entries::Reader;
use super::functions::Functions;
use super::lines::LineTable;
use super::sections::Kind;
use super::signatures::Names;
use super::variables::Variables;
use super::{DebugInfo, Unit, paths};
use crate::parallel;

/// What is known of one unit; each part is read when first asked for.
pub(super) struct Cell {
    /// Where the header is in `.debug_info`.
    pub(super) offset: usize,
    pub(super) abbreviations: OnceLock<Option<Arc<Abbreviations>>>,
    root: OnceLock<Root>,
    name: OnceLock<Option<String>>,
    pub(super) lines: OnceLock<LineTable>,
    pub(super) functions: OnceLock<Functions>,
    pub(super) signatures: OnceLock<Names>,
    pub(super) variables: OnceLock<Variables>,
}

/// What the root entry says.
#[derive(Default)]
struct Root {
    /// As it is written there.
    name: Option<String>,
    comp_dir: String,
    /// Empty when `.debug_aranges` knows the unit.
    ranges: Vec<Range<u64>>,
}

/// Code and the unit that owns it.
#[derive(Clone, Copy)]
pub(super) struct Owned {
    start: u64,
    end: u64,
    unit: Unit,
}

/// What `.debug_aranges` says.
pub(super) struct Aranges {
    ranges: Vec<Owned>,
    /// By unit: is it described there?
    known: Vec<bool>,
}

impl Aranges {
    fn knows(&self, unit: Unit) -> bool {
        self.known.get(unit.0 as usize).is_some_and(|k| *k)
    }
}

/// A unit, its name and its code.
#[derive(Clone, Debug)]
pub struct UnitInfo<'a> {
    /// Which.
    pub unit: Unit,
    /// Source file relative to the source or build folder: `fs/proc/cmdline.c`.
    pub name: Option<&'a str>,
    /// Addresses of its code, in ascending order. Data is not listed.
    pub ranges: Vec<Range<u64>>,
}

/// Ranges that are looked at below an address. They overlap only in damaged or unplaced files.
const BACK: usize = 8;

impl DebugInfo<'_> {
    /// The unit that has code or data at this address. Code is found by `.debug_aranges`, or by the root entries if that has
    /// no answer; data by its variables (see [`DebugInfo::variable_scope`] for the cost).
    pub fn unit_at(&self, address: u64) -> Option<Unit> {
        self.code_unit_at(address).or_else(|| self.variable_unit_at(address))
    }

    /// All units that have a name or code, in the order of `.debug_info`. Reads their root entries.
    pub fn units(&self) -> Vec<UnitInfo<'_>> {
        let mut ranges: Vec<Vec<Range<u64>>> = vec![Vec::new(); self.cells().len()];
        for owned in self.ranges() {
            if let Some(ranges) = ranges.get_mut(owned.unit.0 as usize) {
                ranges.push(owned.start..owned.end);
            }
        }
        let infos = self.ids().zip(ranges).map(|(unit, ranges)| UnitInfo { unit, name: self.unit_name(unit), ranges });
        infos.filter(|u| u.name.is_some() || !u.ranges.is_empty()).collect()
    }

    /// The source file of a unit relative to the source or build folder: `fs/proc/cmdline.c`.
    pub fn unit_name(&self, unit: Unit) -> Option<&str> {
        let name = self.cell(unit)?.name.get_or_init(|| {
            let root = self.root(unit)?;
            Some(self.tidy(root.name.as_deref()?, &root.comp_dir))
        });
        name.as_deref()
    }

    /// The unit made from the same file as `unit` of another build.
    pub(super) fn unit_like(&self, other: &DebugInfo<'_>, unit: Unit) -> Option<Unit> {
        let name = other.unit_name(unit)?;
        self.ids().find(|u| self.unit_name(*u) == Some(name))
    }

    /// The unit that has code at this address.
    pub(super) fn code_unit_at(&self, address: u64) -> Option<Unit> {
        find(&self.aranges().ranges, address).or_else(|| find(self.ranges(), address))
    }

    pub(super) fn cells(&self) -> &[Cell] {
        self.units.get_or_init(|| {
            let mut cells = Vec::new();
            let section = gimli::DebugInfo::new(self.sections.bytes(Kind::Info), LittleEndian);
            let mut headers = section.units();
            while let Ok(Some(header)) = headers.next() {
                let Some(offset) = header.debug_info_offset() else { continue };
                cells.push(Cell {
                    offset: offset.0,
                    abbreviations: OnceLock::new(),
                    root: OnceLock::new(),
                    name: OnceLock::new(),
                    lines: OnceLock::new(),
                    functions: OnceLock::new(),
                    signatures: OnceLock::new(),
                    variables: OnceLock::new(),
                });
            }
            cells
        })
    }

    pub(super) fn cell(&self, unit: Unit) -> Option<&Cell> {
        self.cells().get(unit.0 as usize)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Unit> {
        (0..u32::try_from(self.cells().len()).unwrap_or(u32::MAX)).map(Unit)
    }

    /// The unit whose header or entries are at this offset of `.debug_info`.
    pub(super) fn unit_of_offset(&self, offset: usize) -> Option<Unit> {
        let index = self.cells().partition_point(|c| c.offset <= offset).checked_sub(1)?;
        Some(Unit(u32::try_from(index).ok()?))
    }

    /// A path without the folder of the sources or of the build.
    pub(super) fn tidy(&self, path: &str, comp_dir: &str) -> String {
        paths::relative(path, comp_dir, || self.source_root())
    }

    fn source_root(&self) -> &str {
        // One after the other: names and line tables ask for this while they are made, and a thread that waits for others may
        // take up work that waits for it.
        self.source_root.get_or_init(|| {
            let roots = self.ids().filter_map(|u| self.root(u));
            paths::source_root(roots.filter_map(|r| Some((r.name.as_deref()?, r.comp_dir.as_str()))))
        })
    }

    fn root(&self, unit: Unit) -> Option<&Root> {
        Some(self.cell(unit)?.root.get_or_init(|| self.read_root(unit).unwrap_or_default()))
    }

    fn read_root(&self, unit: Unit) -> Option<Root> {
        let reader = Reader::once(self, unit)?;
        let text = |bytes: &gimli::EndianSlice<'_, LittleEndian>| String::from_utf8_lossy(bytes.slice()).into_owned();
        let ranges = if self.aranges().knows(unit) {
            Vec::new()
        } else {
            reader.root().map(|r| reader.ranges(&r)).unwrap_or_default()
        };
        let comp_dir = reader.unit.comp_dir.as_ref().map(text).unwrap_or_default();
        Some(Root { name: reader.unit.name.as_ref().map(text), comp_dir, ranges })
    }

    fn aranges(&self) -> &Aranges {
        self.aranges.get_or_init(|| {
            let mut out = Aranges { known: vec![false; self.cells().len()], ranges: Vec::new() };
            let section = DebugAranges::new(self.sections.bytes(Kind::Aranges), LittleEndian);
            let mut headers = section.headers();
            while let Ok(Some(header)) = headers.next() {
                let DebugInfoOffset(offset) = header.debug_info_offset();
                let Ok(index) = self.cells().binary_search_by_key(&offset, |c| c.offset) else { continue };
                out.known[index] = true;
                let Ok(index) = u32::try_from(index) else { continue };
                let mut entries = header.entries();
                while let Ok(Some(entry)) = entries.next() {
                    out.ranges.push(Owned { start: entry.range().begin, end: entry.range().end, unit: Unit(index) });
                }
            }
            out.ranges = sorted(out.ranges);
            out
        })
    }

    fn ranges(&self) -> &[Owned] {
        super::once::<Vec<Owned>>(&self.ranges, || {
            let units: Vec<Unit> = self.ids().collect();
            parallel::map_if(self.is_large(), &units, |unit| self.root(*unit).is_some());
            let mut out = self.aranges().ranges.clone();
            for unit in self.ids() {
                let ranges = self.root(unit).map_or(&[][..], |r| &r.ranges);
                out.extend(ranges.iter().map(|r| Owned { start: r.start, end: r.end, unit }));
            }
            sorted(out)
        })
    }
}

fn sorted(mut ranges: Vec<Owned>) -> Vec<Owned> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_unstable_by_key(|r| (r.start, r.end, r.unit));
    ranges
}

fn find(ranges: &[Owned], address: u64) -> Option<Unit> {
    let end = ranges.partition_point(|r| r.start <= address);
    ranges[..end].iter().rev().take(BACK).find(|r| address < r.end).map(|r| r.unit)
}
