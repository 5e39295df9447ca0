//! The line table of an object, parsed: which lines each place in the code comes from (DWARF 5, 6.2).
//!
//! In an object file the addresses are relocations; every section gets an address range of its own while reading.

use rustc_hash::FxHashMap;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LittleEndian};
use object::elf;

use crate::ingest::{Image, SectionId, SymbolPlace};

/// Bits for an offset in a section.
const OFFSET_BITS: u32 = 40;

/// One row: from this offset on, the code comes from a line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    offset: u64,
    /// Index in [`LineTable::files`], or [`NONE`] behind the end of a sequence.
    file: u32,
    line: u32,
}

/// There is code of no file from here on.
const NONE: u32 = u32::MAX;

/// All rows of an object.
#[derive(Debug, Default)]
pub struct LineTable {
    /// File names without folders.
    files: Vec<String>,
    /// By section, in the order of the offsets; rows of one offset in the order of the table.
    rows: FxHashMap<u32, Vec<Row>>,
}

impl LineTable {
    /// Parses the table of `image`; empty when there is none, or when it is damaged.
    pub fn read(image: &Image) -> Self {
        Self::parse(image).unwrap_or_default()
    }

    /// File names and lines of the code at `offset` of `section`.
    pub fn at(&self, section: SectionId, offset: u64) -> impl Iterator<Item = (&str, u64)> {
        let rows = self.rows.get(&section.0).map_or(&[][..], Vec::as_slice);
        let end = rows.partition_point(|r| r.offset <= offset);
        let from = rows[..end].last().map_or(end, |last| rows.partition_point(|r| r.offset < last.offset));
        rows[from..end].iter().filter_map(|r| Some((self.files.get(r.file as usize)?.as_str(), u64::from(r.line))))
    }

    fn parse(image: &Image) -> Option<Self> {
        let info = &image.line_info;
        let mut bytes = info.line.clone();
        for reloc in &info.relocs {
            let symbol = image.symbols.get(reloc.symbol.0 as usize)?;
            let SymbolPlace::Section(section) = symbol.place else { continue };
            let value = symbol.value.wrapping_add_signed(reloc.addend);
            let at = usize::try_from(reloc.offset).ok()?;
            if reloc.kind == elf::R_X86_64_64.0 {
                let value = (u64::from(section.0) << OFFSET_BITS).wrapping_add(value);
                bytes.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&value.to_le_bytes());
            } else if reloc.kind == elf::R_X86_64_32.0 {
                bytes.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&u32::try_from(value).ok()?.to_le_bytes());
            }
        }
        let mut table = Self::default();
        let section = DebugLine::new(&bytes, LittleEndian);
        let mut at = 0;
        while at < bytes.len() {
            let program = section.program(DebugLineOffset(at), 8, None, None).ok()?;
            let header = program.header();
            at = at
                .checked_add(header.unit_length())?
                .checked_add(usize::from(header.format().initial_length_size()))?;
            let mut known: FxHashMap<u64, u32> = FxHashMap::default();
            let mut rows = program.rows();
            while let Some((header, row)) = rows.next_row().ok()? {
                let section = u32::try_from(row.address() >> OFFSET_BITS).ok()?;
                let offset = row.address() & ((1 << OFFSET_BITS) - 1);
                let file = match known.get(&row.file_index()) {
                    Some(file) => *file,
                    None => {
                        let name = header.file(row.file_index()).and_then(|f| name_of(f.path_name(), &info.strings));
                        let file = u32::try_from(table.files.len()).ok()?;
                        table.files.push(name.unwrap_or_default());
                        known.insert(row.file_index(), file);
                        file
                    }
                };
                // No file has more lines than fit: such a number is no line.
                let line = row.line().map_or(0, |l| u32::try_from(l.get()).unwrap_or(0));
                let file = if row.end_sequence() { NONE } else { file };
                table.rows.entry(section).or_default().push(Row { offset, file, line });
            }
        }
        // Stable: rows of one offset stay in the order of the table.
        for rows in table.rows.values_mut().filter(|rows| !rows.is_sorted_by_key(|r| r.offset)) {
            rows.sort_by_key(|r| r.offset);
        }
        Some(table)
    }
}

/// The name without folders.
fn name_of(value: AttributeValue<EndianSlice<'_, LittleEndian>>, strings: &[u8]) -> Option<String> {
    let bytes = match value {
        AttributeValue::String(name) => name.slice(),
        AttributeValue::DebugLineStrRef(at) => {
            let rest = strings.get(at.0..)?;
            &rest[..rest.iter().position(|b| *b == 0)?]
        }
        _ => return None,
    };
    let name = std::str::from_utf8(bytes).ok()?;
    Some(name.rsplit('/').next().unwrap_or(name).to_owned())
}
