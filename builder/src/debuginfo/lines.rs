//! The line table of a unit: which source line an instruction comes from (DWARF 5, 6.2).

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::entries::Reader;
use super::{DebugInfo, Unit};

/// Source line of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line<'a> {
    /// Relative to the source or build folder.
    pub file: &'a str,
    /// From 1 on; 0 is code of no line.
    pub line: u64,
}

/// From this address on, the code comes from a line of a file.
#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    /// Index in [`LineTable::files`], or [`NONE`] behind the end of a sequence.
    file: u32,
    line: u32,
}

/// There is code of no file from here on.
const NONE: u32 = u32::MAX;

/// All rows of a unit.
#[derive(Debug, Default)]
pub(super) struct LineTable {
    files: Vec<String>,
    /// In the order of the addresses. Of several rows at one address the last one counts.
    rows: Vec<Row>,
}

/// Bytes of a line program that make a row, about: an advance, a column, a statement or not.
const ROW: usize = 4;

impl DebugInfo<'_> {
    /// The source line of the instruction at this address. Parses the line table of its unit once.
    pub fn line(&self, address: u64) -> Option<Line<'_>> {
        self.line_in(self.code_unit_at(address)?, address)
    }

    /// The last line of a file that some of this code comes from, but for other code in it.
    pub(super) fn last_line(&self, unit: Unit, code: &[Range<u64>], without: &[Range<u64>], file: &str) -> Option<u64> {
        let table = self.cell(unit)?.lines.get_or_init(|| self.read_lines(unit).unwrap_or_default());
        let holds = |list: &[Range<u64>], row: &Row| list.iter().any(|r| r.contains(&row.address));
        let rows = table.rows.iter().filter(|row| holds(code, row) && !holds(without, row));
        let of_file = rows.filter(|row| table.files.get(row.file as usize).is_some_and(|f| f == file));
        of_file.map(|row| u64::from(row.line)).max()
    }

    fn line_in(&self, unit: Unit, address: u64) -> Option<Line<'_>> {
        let table = self.cell(unit)?.lines.get_or_init(|| self.read_lines(unit).unwrap_or_default());
        let row = table.rows[..table.rows.partition_point(|r| r.address <= address)].last()?;
        Some(Line { file: table.files.get(row.file as usize)?, line: u64::from(row.line) })
    }

    fn read_lines(&self, unit: Unit) -> Option<LineTable> {
        let reader = Reader::new(self, unit)?;
        let mut table = LineTable::default();
        let mut known: FxHashMap<u64, u32> = FxHashMap::default();
        let mut rows = reader.unit.line_program.clone()?.rows();
        table.rows.reserve(rows.header().raw_program_buf().len() / ROW);
        while let Ok(Some((header, row))) = rows.next_row() {
            let file = match known.get(&row.file_index()) {
                Some(file) => *file,
                None => {
                    let file = u32::try_from(table.files.len()).ok()?;
                    table.files.push(reader.file_name(header, row.file_index()).unwrap_or_default());
                    known.insert(row.file_index(), file);
                    file
                }
            };
            let file = if row.end_sequence() { NONE } else { file };
            // No file has more lines than fit: such a number is no line.
            let line = row.line().map_or(0, |l| u32::try_from(l.get()).unwrap_or(0));
            table.rows.push(Row { address: row.address(), file, line });
        }
        // Stable: rows of one address stay in the order of the table. One sequence may begin where another ends.
        let place = |r: &Row| (r.address, r.file != NONE);
        if !table.rows.is_sorted_by_key(place) {
            table.rows.sort_by_key(place);
        }
        Some(table)
    }
}
