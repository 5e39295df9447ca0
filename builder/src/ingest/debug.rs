//! The line table of an object (`.debug_line`), kept as bytes: it is parsed only when a question needs it.
//!
//! Nothing is refused: a table that is absent, compressed or damaged counts as absent.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{Rela, SectionHeader, SectionTable};

use super::{Reloc, SymbolId};

/// Bytes of the sections that hold a line table.
#[derive(Debug, Default)]
pub struct LineInfo {
    /// `.debug_line`; empty when there is none.
    pub line: Vec<u8>,
    /// `.debug_line_str`
    pub strings: Vec<u8>,
    /// Relocations of `.debug_line`.
    pub relocs: Vec<Reloc>,
}

type Header = FileHeader64<LE>;

/// Reads the sections out of the file `data`.
pub fn read(table: &SectionTable<'_, Header>, endian: LE, data: &[u8], n_symbols: usize) -> LineInfo {
    try_read(table, endian, data, n_symbols).unwrap_or_default()
}

fn try_read(table: &SectionTable<'_, Header>, endian: LE, data: &[u8], n_symbols: usize) -> Option<LineInfo> {
    let mut info = LineInfo::default();
    let mut line_index = None;
    for (index, header) in table.enumerate() {
        let name = table.section_name(endian, header).ok()?;
        let to = match name {
            b".debug_line" => &mut info.line,
            b".debug_line_str" => &mut info.strings,
            _ => continue,
        };
        // Several (as groups have them) or compressed ones are no use.
        if !to.is_empty() || header.sh_flags(endian).0 & elf::SHF_COMPRESSED.0 != 0 {
            return None;
        }
        if name == b".debug_line" {
            line_index = Some(index.0);
        }
        *to = header.data(endian, data).ok()?.to_vec();
    }
    let line_index = line_index?;
    for header in table.iter().filter(|h| h.sh_info(endian) as usize == line_index) {
        let Some((relas, _)) = header.rela(endian, data).ok()? else { continue };
        for rela in relas {
            let symbol = rela.r_sym(endian, false);
            if symbol as usize >= n_symbols {
                return None;
            }
            let (offset, kind, addend) = (rela.r_offset(endian), rela.r_type(endian, false).0, rela.r_addend(endian));
            info.relocs.push(Reloc { offset, kind, symbol: SymbolId(symbol), addend });
        }
    }
    Some(info)
}
