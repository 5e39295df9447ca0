//! The symbol table of a `vmlinux` that has one: names of data that kallsyms leaves out.
//!
//! Without CONFIG_KALLSYMS_ALL kallsyms lists code only. Input: the ELF file. Output: the symbols of its loaded sections
//! that are not code; code is in kallsyms of every kernel, completely and in the order that sympos counts. An image
//! without a symbol table gives nothing. Refused: a table that does not fit its file.

use object::LittleEndian;
use object::elf::{FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS, SHT_SYMTAB};
use object::elf::{STB_LOCAL, STB_WEAK, STT_FILE, STT_SECTION};
use object::read::elf::{FileHeader, SectionHeader, Sym};

use super::kallsyms::KernelSymbol;
use crate::codes;
use crate::error::{Error, Place, Result};

const LE: LittleEndian = LittleEndian;

/// Reads the table.
pub(super) fn read(name: &str, data: &[u8]) -> Result<Vec<KernelSymbol>> {
    let bad =
        |e: object::read::Error| Error::new(codes::LP1205, Place::object(name).in_section(".symtab"), e.to_string());
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(bad)?;
    let sections = header.sections(LE, data).map_err(bad)?;
    let table = sections.symbols(LE, data, SHT_SYMTAB).map_err(bad)?;
    let mut out = Vec::new();
    for (index, symbol) in table.enumerate() {
        if [STT_FILE, STT_SECTION].contains(&symbol.st_type()) {
            continue;
        }
        let Some(section) = table.symbol_section(LE, symbol, index).map_err(bad)? else { continue };
        let section = sections.section(section).map_err(bad)?;
        let flags = section.sh_flags(LE).0;
        let text = String::from_utf8_lossy(table.symbol_name(LE, symbol).map_err(bad)?);
        if flags & SHF_ALLOC.0 == 0 || flags & SHF_EXECINSTR.0 != 0 || text.is_empty() {
            continue;
        }
        let local = symbol.st_bind() == STB_LOCAL;
        let letter = match (symbol.st_bind() == STB_WEAK, section.sh_type(LE) == SHT_NOBITS) {
            (true, _) => b'V',
            (false, true) => b'B',
            (false, false) if flags & SHF_WRITE.0 != 0 => b'D',
            (false, false) => b'R',
        };
        out.push(KernelSymbol {
            addr: symbol.st_value(LE),
            kind: if local { letter.to_ascii_lowercase() } else { letter },
            name: text.into(),
            listed: false,
        });
    }
    Ok(out)
}
