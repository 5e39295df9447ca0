//! Variables by address, and the function a static one is declared in (DWARF 5, 4.1 "Data Object Entries").
//!
//! No section lists data by address, and walking all entries of a kernel takes seconds. But a variable with a place of its own
//! has the location `DW_OP_addr` and nothing else (2.6.1.1.2), which is the same ten bytes everywhere in `.debug_info`: a block
//! of nine bytes, the operation, the address. These are searched once; what is found is believed only after its unit was parsed.

use gimli::{AttributeValue, Operation, constants};
use memchr::memmem;

use super::entries::{Entry, Reader, Step};
use super::sections::Kind;
use super::{DebugInfo, Unit};
use crate::parallel;

/// Where a variable is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The unit that defines it.
    pub unit: Unit,
    /// The function of a static local variable; nothing for a variable of the file.
    pub function: Option<String>,
    /// Its name as in the source: without `.0`.
    pub name: String,
    /// Where it is declared, relative to the source or build folder.
    pub file: Option<String>,
    /// Line of the declaration.
    pub line: Option<u64>,
    /// The line its function is declared at.
    pub function_line: Option<u64>,
}

/// A place in `.debug_info` that looks like the location of a variable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    address: u64,
    unit: Unit,
}

/// The variables of a unit that have an address.
#[derive(Default)]
pub(super) struct Variables {
    /// In the order of the addresses.
    list: Vec<Variable>,
}

#[derive(Clone, Copy)]
struct Variable {
    address: u64,
    /// One past the last byte; the address itself when its type has no size.
    end: u64,
    /// Offset of its entry.
    entry: usize,
    /// Offset of the entry of the function it is in.
    function: Option<usize>,
}

/// `DW_FORM_exprloc` or `DW_FORM_block1` of nine bytes, `DW_OP_addr`.
const LOCATION: [u8; 2] = [9, 3];
/// Bytes of `.debug_info` searched at a time.
const PIECE: usize = 1 << 22;
/// Candidates looked at below an address; those that are wrong are rare.
const BACK: usize = 16;
/// Types on the way to the size of a variable.
const TYPES: usize = 16;

impl DebugInfo<'_> {
    /// The variable at this address: name, and function for a static local one. The address may be within the variable.
    ///
    /// The first question searches all of `.debug_info` for locations (in parallel, at the speed of memory).
    pub fn variable_scope(&self, address: u64) -> Option<Scope> {
        let (unit, variable) = self.variable_at(address)?;
        let reader = Reader::new(self, unit)?;
        let entry = reader.entry(variable.entry)?;
        let of = variable.function.and_then(|f| reader.entry(f));
        let function = of.as_ref().and_then(|f| reader.name(f));
        let function_line = of.as_ref().and_then(|f| reader.declared(f).1);
        let (file, line) = reader.declared(&entry);
        Some(Scope { unit, function, name: reader.name(&entry).unwrap_or_default(), file, line, function_line })
    }

    /// How many lines behind its declaration the function of the static local variable at this address has its last code; nothing
    /// where what is inlined elsewhere is all there is of the function.
    pub fn variable_frame(&self, address: u64) -> Option<u64> {
        let (unit, variable) = self.variable_at(address)?;
        let reader = Reader::new(self, unit)?;
        let function = reader.entry(variable.function?)?;
        if function.tag != constants::DW_TAG_subprogram {
            return None;
        }
        let (Some(file), Some(line)) = reader.declared(&function) else { return None };
        let ranges = reader.ranges(&function);
        let inlined = self.function_at(ranges.first()?.start)?.inlined;
        let without: Vec<_> = inlined.into_iter().flat_map(|i| i.ranges).collect();
        self.last_line(unit, &ranges, &without, &file)?.checked_sub(line)
    }

    /// The unit with a variable at this address.
    pub(super) fn variable_unit_at(&self, address: u64) -> Option<Unit> {
        self.variable_at(address).map(|found| found.0)
    }

    fn variable_at(&self, address: u64) -> Option<(Unit, Variable)> {
        if !self.sections.is_placed(address) {
            return None;
        }
        let candidates = super::once(&self.variables, || self.find_variables());
        let end = candidates.partition_point(|c| c.address <= address);
        let mut below = candidates[..end].iter().rev().take(BACK);
        below.find_map(|candidate| {
            let variables = self.variables_of(candidate.unit)?;
            let first = variables.list.partition_point(|v| v.address < candidate.address);
            let mut here = variables.list[first..].iter().take_while(|v| v.address == candidate.address);
            Some((candidate.unit, *here.find(|v| address == v.address || address < v.end)?))
        })
    }

    fn variables_of(&self, unit: Unit) -> Option<&Variables> {
        Some(self.cell(unit)?.variables.get_or_init(|| read(self, unit).unwrap_or_default()))
    }

    fn find_variables(&self) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = if self.sections.bytes(Kind::Addr).is_empty() {
            let bytes = self.sections.bytes(Kind::Info);
            self.cells();
            let pieces: Vec<usize> = (0..bytes.len()).step_by(PIECE).collect();
            parallel::map(&pieces, |start| self.search(bytes, *start)).concat()
        } else {
            // Addresses are numbers of an entry of `.debug_addr` (`DW_OP_addrx`), as clang has them: no bytes to search for.
            let all = |unit: &Unit| -> Vec<Candidate> {
                let list = self.variables_of(*unit).map_or(&[][..], |v| &v.list);
                list.iter().map(|v| Candidate { address: v.address, unit: *unit }).collect()
            };
            let units: Vec<Unit> = self.ids().collect();
            parallel::map_if(self.is_large(), &units, all).concat()
        };
        // Of the same address, the first unit is the last one: it is looked at first.
        found.sort_unstable_by_key(|c| (c.address, std::cmp::Reverse(c.unit)));
        found.dedup();
        found
    }

    /// Locations that begin in the piece at `start`.
    fn search(&self, bytes: &[u8], start: usize) -> Vec<Candidate> {
        let end = bytes.len().min(start + PIECE + LOCATION.len() - 1);
        let piece = bytes.get(start..end).unwrap_or_default();
        let candidate = |at: usize| {
            let at = start + at + LOCATION.len();
            let address = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
            let unit = self.sections.is_placed(address).then(|| self.unit_of_offset(at))??;
            Some(Candidate { address, unit })
        };
        memmem::find_iter(piece, &LOCATION).filter_map(candidate).collect()
    }
}

fn read(info: &DebugInfo<'_>, unit: Unit) -> Option<Variables> {
    let reader = Reader::new(info, unit)?;
    let mut list = Vec::new();
    // Functions that are open, with their depth.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let wanted = |tag| {
        matches!(
            tag,
            constants::DW_TAG_compile_unit
                | constants::DW_TAG_partial_unit
                | constants::DW_TAG_namespace
                | constants::DW_TAG_subprogram
                | constants::DW_TAG_inlined_subroutine
                | constants::DW_TAG_lexical_block
                | constants::DW_TAG_variable
        )
    };
    // What has no location is passed over with all below it; where addresses are numbers, nothing shows.
    let bytes = info.sections.bytes(Kind::Info).get(info.cell(unit)?.offset..);
    let bytes = bytes.filter(|_| info.sections.bytes(Kind::Addr).is_empty());
    let may_hold_some = |from: usize, to: usize| {
        bytes.and_then(|b| b.get(from..to)).is_none_or(|b| memmem::find(b, &LOCATION).is_some())
    };
    let places = |attribute| {
        matches!(
            attribute,
            constants::DW_AT_location
                | constants::DW_AT_type
                | constants::DW_AT_abstract_origin
                | constants::DW_AT_specification
        )
    };
    let _ = reader.walk(reader.unit.header.root_offset().0, wanted, places, |entry, depth| {
        while open.last().is_some_and(|o| o.0 >= depth) {
            open.pop();
        }
        if let Some(AttributeValue::UnitRef(next)) = entry.attr_value(constants::DW_AT_sibling)
            && !may_hold_some(entry.offset.0, next.0)
        {
            return Step::Over;
        }
        match entry.tag {
            constants::DW_TAG_subprogram | constants::DW_TAG_inlined_subroutine => open.push((depth, entry.offset.0)),
            constants::DW_TAG_variable => {
                if let Some(address) = address(&reader, entry) {
                    let end = size(&reader, entry).and_then(|s| address.checked_add(s)).unwrap_or(address);
                    let function = open.last().map(|o| o.1);
                    list.push(Variable { address, end, entry: entry.offset.0, function });
                }
            }
            _ => {}
        }
        Step::Into
    });
    list.sort_by_key(|v| v.address);
    Some(Variables { list })
}

/// The address of a variable that always has the same one.
fn address(reader: &Reader<'_>, entry: &Entry<'_>) -> Option<u64> {
    let AttributeValue::Exprloc(expression) = entry.attr_value(constants::DW_AT_location)? else { return None };
    let mut operations = expression.operations(reader.unit.encoding());
    let address = match operations.next().ok()?? {
        Operation::Address { address } => address,
        Operation::AddressIndex { index } => reader.dwarf.address(&reader.unit, index).ok()?,
        _ => return None,
    };
    operations.next().ok()?.is_none().then_some(address)
}

/// Bytes of a variable: the size of its type (DWARF 5, 5.4 to 5.7), times the number of elements.
fn size<'a>(reader: &Reader<'a>, entry: &Entry<'a>) -> Option<u64> {
    let own = |r: &Reader<'a>, e: &Entry<'a>| r.reference(e, constants::DW_AT_type).filter(|_| r.id == reader.id);
    let mut offset = reader.origins(entry, own)?;
    let mut count = 1_u64;
    for _ in 0..TYPES {
        let entry = reader.type_entry(offset)?;
        if let Some(size) = Reader::number(&entry, constants::DW_AT_byte_size) {
            return size.checked_mul(count);
        }
        if entry.tag == constants::DW_TAG_array_type {
            let dimensions = reader.dimensions(&entry);
            count = dimensions.iter().try_fold(count, |all, one| all.checked_mul((*one)?))?;
        }
        offset = reader.reference(&entry, constants::DW_AT_type)?;
    }
    None
}
