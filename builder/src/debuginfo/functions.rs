//! Functions by address, and what is inlined into them (DWARF 5, 3.3 "Subroutine and Entry Point Entries").

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::rc::Rc;

use gimli::{AttributeValue, Expression, Operation, constants};
use rustc_hash::FxHashMap;

use super::entries::{Bytes, Entry, Reader, Step, every};
use super::spelling::Spelling;
use super::{DebugInfo, Unit, within};

/// A function that has code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// As in the source: without `.cold`, `.isra.0` and the like.
    pub name: String,
    /// Where it is declared, relative to the source or build folder.
    pub file: Option<String>,
    /// Line of the declaration.
    pub line: Option<u64>,
    /// All its code, `.cold` pieces included.
    pub ranges: Vec<Range<u64>>,
    /// Every call that was inlined; what was inlined into one follows it with a greater depth.
    pub inlined: Vec<Inlined>,
}

/// One call that was replaced by the code of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inlined {
    /// The function that was inlined.
    pub name: String,
    /// Where that is declared.
    pub file: Option<String>,
    /// Line of the declaration.
    pub line: Option<u64>,
    /// File of the call.
    pub call_file: Option<String>,
    /// Line of the call.
    pub call_line: Option<u64>,
    /// Its code.
    pub ranges: Vec<Range<u64>>,
    /// 1 for a call in the function itself, 2 for a call in such a one, and so on.
    pub depth: usize,
    /// Numbers in the arguments, as far as their places tell: constants, and offsets from a register. Only in full.
    pub arguments: BTreeSet<u64>,
    /// What its definition says of it beside the code: parameters, variables, blocks, labels, and on which of its lines. Only in
    /// full.
    pub shape: Rc<str>,
}

/// The functions of a unit.
#[derive(Default)]
pub(super) struct Functions {
    /// Start, end and entry of each piece of code, in the order of the addresses.
    pieces: Vec<(u64, u64, usize)>,
}

impl DebugInfo<'_> {
    /// The function that has code at this address, pieces such as `.cold` included.
    pub fn function_at(&self, address: u64) -> Option<FunctionInfo> {
        self.function(address, false)
    }

    /// The same with the arguments and shapes of what is inlined, which takes longer.
    pub fn function_in_full(&self, address: u64) -> Option<FunctionInfo> {
        self.function(address, true)
    }

    fn function(&self, address: u64, full: bool) -> Option<FunctionInfo> {
        let (reader, entry) = self.function_entry(address)?;
        let (file, line) = reader.declared(&entry);
        Some(FunctionInfo {
            name: reader.name(&entry).unwrap_or_default(),
            file,
            line,
            ranges: reader.ranges(&entry),
            inlined: inlined(&reader, entry.offset.0, full, |_| true),
        })
    }

    /// The inlined calls the instruction at this address comes from, the innermost last; nothing when it belongs to the
    /// function itself.
    pub fn inlined_at(&self, address: u64) -> Vec<Inlined> {
        self.function_entry(address)
            .map(|(reader, entry)| inlined(&reader, entry.offset.0, false, |ranges| within(ranges, address)))
            .unwrap_or_default()
    }

    /// The entry of the function at this address.
    fn function_entry(&self, address: u64) -> Option<(Reader<'_>, Entry<'_>)> {
        let (unit, offset) = self.function_place(address)?;
        let reader = Reader::new(self, unit)?;
        let entry = reader.entry(offset)?;
        Some((reader, entry))
    }

    /// Unit and offset of the entry of the function at this address.
    pub(super) fn function_place(&self, address: u64) -> Option<(Unit, usize)> {
        let unit = self.code_unit_at(address)?;
        let functions = self.cell(unit)?.functions.get_or_init(|| read(self, unit).unwrap_or_default());
        let end = functions.pieces.partition_point(|p| p.0 <= address);
        let piece = functions.pieces[..end].iter().rev().take(2).find(|p| address < p.1)?;
        Some((unit, piece.2))
    }
}

fn read(info: &DebugInfo<'_>, unit: Unit) -> Option<Functions> {
    let reader = Reader::new(info, unit)?;
    let mut out = Functions::default();
    let root = reader.unit.header.root_offset().0;
    let wanted = |tag| {
        // Functions of C are at the top; those of Rust are in namespaces and types.
        tag == constants::DW_TAG_subprogram
            || tag == constants::DW_TAG_namespace
            || tag == constants::DW_TAG_compile_unit
            || tag == constants::DW_TAG_partial_unit
            || tag == constants::DW_TAG_structure_type
    };
    let is_rust = is_rust(&reader);
    let places =
        |attribute| matches!(attribute, constants::DW_AT_low_pc | constants::DW_AT_high_pc | constants::DW_AT_ranges);
    reader.walk(root, wanted, places, |entry, _| match entry.tag {
        constants::DW_TAG_subprogram => {
            out.pieces.extend(reader.ranges(entry).into_iter().map(|r| (r.start, r.end, entry.offset.0)));
            Step::Over
        }
        constants::DW_TAG_structure_type if !is_rust => Step::Over,
        _ => Step::Into,
    })?;
    out.pieces.sort_unstable();
    Some(out)
}

fn is_rust(reader: &Reader<'_>) -> bool {
    let language = reader.root().and_then(|r| r.attr_value(constants::DW_AT_language));
    matches!(language, Some(gimli::AttributeValue::Language(constants::DW_LANG_Rust)))
}

/// The inlined calls below the function at `offset` whose code `wanted` takes, with those they are in.
fn inlined(reader: &Reader<'_>, offset: usize, full: bool, wanted: impl Fn(&[Range<u64>]) -> bool) -> Vec<Inlined> {
    let mut out = Vec::new();
    // Depths below the function of the calls that are open.
    let mut open: Vec<usize> = Vec::new();
    let mut shapes = Shapes::new(reader);
    let tags = |tag| {
        tag == constants::DW_TAG_subprogram
            || tag == constants::DW_TAG_inlined_subroutine
            || tag == constants::DW_TAG_lexical_block
    };
    let _ = reader.walk(offset, tags, every, |entry, depth| {
        while open.last().is_some_and(|o| *o >= depth) {
            open.pop();
        }
        match entry.tag {
            constants::DW_TAG_inlined_subroutine => {
                let ranges = reader.ranges(entry);
                if !wanted(&ranges) {
                    return Step::Over;
                }
                open.push(depth);
                let (file, line) = reader.declared(entry);
                out.push(Inlined {
                    name: reader.name(entry).unwrap_or_default(),
                    file,
                    line,
                    call_file: reader.file(entry, constants::DW_AT_call_file),
                    call_line: Reader::number(entry, constants::DW_AT_call_line),
                    ranges,
                    depth: open.len(),
                    arguments: if full { arguments(reader, entry.offset.0) } else { BTreeSet::new() },
                    shape: if full { shapes.of(entry) } else { "".into() },
                });
                Step::Into
            }
            // A function within the function has code of its own.
            constants::DW_TAG_subprogram if depth > 0 => Step::Over,
            _ => Step::Into,
        }
    });
    out
}

impl DebugInfo<'_> {
    /// Functions that are inlined somewhere in code: name, and where they are declared.
    pub fn inlined_functions(&self) -> BTreeSet<(String, Option<String>)> {
        let mut out = BTreeSet::new();
        for unit in self.ids() {
            let Some(reader) = Reader::new(self, unit) else { continue };
            let _ = reader.walk(
                reader.unit.header.root_offset().0,
                |_| true,
                every,
                |entry, _| {
                    if entry.tag == constants::DW_TAG_inlined_subroutine && !reader.ranges(entry).is_empty() {
                        out.insert((reader.name(entry).unwrap_or_default(), reader.declared(entry).0));
                    }
                    Step::Into
                },
            );
        }
        out
    }
}

/// Numbers in the places of the parameters of an inlined call.
fn arguments(reader: &Reader<'_>, call: usize) -> BTreeSet<u64> {
    let mut out = BTreeSet::new();
    reader.children(call, every, |child| {
        if child.tag != constants::DW_TAG_formal_parameter {
            return;
        }
        out.extend(child.attr_value(constants::DW_AT_const_value).and_then(|v| number(&v)));
        match child.attr_value(constants::DW_AT_location) {
            Some(AttributeValue::Exprloc(expression)) => numbers(reader, expression, &mut out),
            Some(value) => {
                let Ok(Some(mut list)) = reader.dwarf.attr_locations(&reader.unit, value) else { return };
                while let Ok(Some(location)) = list.next() {
                    numbers(reader, location.data, &mut out);
                }
            }
            None => {}
        }
    });
    out
}

fn number(value: &AttributeValue<Bytes<'_>>) -> Option<u64> {
    match value {
        AttributeValue::Sdata(value) => Some(*value as u64),
        value => value.udata_value(),
    }
}

fn numbers(reader: &Reader<'_>, expression: Expression<Bytes<'_>>, out: &mut BTreeSet<u64>) {
    let mut operations = expression.operations(reader.unit.encoding());
    while let Ok(Some(operation)) = operations.next() {
        out.extend(match operation {
            Operation::RegisterOffset { offset, .. } | Operation::FrameOffset { offset } => Some(offset as u64),
            Operation::PlusConstant { value } | Operation::UnsignedConstant { value } => Some(value),
            Operation::SignedConstant { value } => Some(value as u64),
            _ => None,
        });
    }
}

/// The definitions of inlined functions as text, each made once.
struct Shapes<'r, 'a> {
    reader: &'r Reader<'a>,
    /// By the offset of the definition.
    known: FxHashMap<usize, Rc<str>>,
}

impl<'r, 'a> Shapes<'r, 'a> {
    fn new(reader: &'r Reader<'a>) -> Self {
        Self { reader, known: FxHashMap::default() }
    }

    /// That of the function behind a call.
    fn of(&mut self, call: &Entry<'a>) -> Rc<str> {
        let Some(definition) = self.reader.reference(call, constants::DW_AT_abstract_origin) else { return "".into() };
        let made = || shape(self.reader, definition).into();
        Rc::clone(self.known.entry(definition).or_insert_with(made))
    }
}

fn shape(reader: &Reader<'_>, definition: usize) -> String {
    let first = |entry: &Entry<'_>| Reader::number(entry, constants::DW_AT_decl_line).unwrap_or(0);
    let base = reader.entry(definition).map_or(0, |e| first(&e));
    let mut spelling = Spelling::new(reader);
    let mut out = String::new();
    let _ = reader.walk(
        definition,
        |_| true,
        every,
        |entry, depth| {
            let name = reader.string(entry, constants::DW_AT_name).unwrap_or_default();
            let line = first(entry).wrapping_sub(base) as i64;
            // A string takes everything.
            let _ = write!(out, "{depth} {} {name} {} {line};", entry.tag, spelling.of(entry));
            Step::Into
        },
    );
    out
}
