//! Reads one ELF file into an [`Image`]. Only sections that are part of the running kernel keep contents and relocations.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};

use super::{Image, Reloc, Section, SectionId, Symbol, SymbolId, SymbolPlace};
use crate::codes;
use crate::error::{Error, Place, Result};

type Header = FileHeader64<LE>;

/// Reads `data`, the contents of the object `name`.
pub fn read(name: &str, data: &[u8]) -> Result<Image> {
    let not_object = |what: &str| Error::new(codes::LP1002, Place::object(name), what);
    let header = Header::parse(data).map_err(|e| not_object(&e.to_string()))?;
    let endian = header.endian().map_err(|e| not_object(&e.to_string()))?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(not_object("the machine is not x86-64"));
    }
    if header.e_type(endian) != elf::ET_REL {
        return Err(not_object("the file is not relocatable (ET_REL)"));
    }
    read_rel(name, header, endian, data)
}

fn read_rel(name: &str, header: &Header, endian: LE, data: &[u8]) -> Result<Image> {
    let bad = |section: &str, what: String| Error::new(codes::LP1003, Place::object(name).in_section(section), what);
    let table = header.sections(endian, data).map_err(|e| bad("section headers", e.to_string()))?;
    if table.is_empty() {
        return Err(bad("section headers", "the object has no sections".into()));
    }
    let mut sections = Vec::with_capacity(table.len());
    for (index, header) in table.enumerate() {
        let name = table.section_name(endian, header).map_err(|e| bad(&format!("[{}]", index.0), e.to_string()))?;
        let name = text_of(name);
        let mut section = Section {
            kind: header.sh_type(endian).0,
            flags: header.sh_flags(endian).0,
            align: header.sh_addralign(endian).max(1),
            entsize: header.sh_entsize(endian),
            size: header.sh_size(endian),
            data: Vec::new(),
            relocs: Vec::new(),
            name,
        };
        if section.align > 1 << 20 || !section.align.is_power_of_two() {
            return Err(bad(&section.name, format!("alignment {:#x} is not a sensible power of two", section.align)));
        }
        if header.sh_type(endian) != elf::SHT_NOBITS {
            // Checked for every section, kept only for those that can become part of the kernel.
            let bytes = header.data(endian, data).map_err(|e| bad(&section.name, e.to_string()))?;
            if section.is_kept() {
                section.data = bytes.to_vec();
            }
        } else if section.size > 1 << 31 {
            return Err(bad(&section.name, format!("{:#x} bytes of zeroes are too many", section.size)));
        }
        if section.flags & (elf::SHF_COMPRESSED.0) != 0 && section.is_alloc() {
            return Err(bad(&section.name, "a loaded section is compressed".into()));
        }
        sections.push(section);
    }
    let symbols = read_symbols(name, &table, endian, data, &sections)?;
    read_relocs(name, &table, endian, data, &mut sections, symbols.len())?;
    let line_info = super::debug::read(&table, endian, data, symbols.len());
    Ok(Image { name: name.to_owned(), sections, symbols, line_info })
}

fn text_of(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| String::from_utf8_lossy(name).into_owned(), str::to_owned)
}

type Table<'d> = object::read::elf::SectionTable<'d, Header>;

fn read_symbols(name: &str, table: &Table<'_>, endian: LE, data: &[u8], sections: &[Section]) -> Result<Vec<Symbol>> {
    let bad = |what: String| Error::new(codes::LP1003, Place::object(name).in_section(".symtab"), what);
    let symtab = table.symbols(endian, data, elf::SHT_SYMTAB).map_err(|e| bad(e.to_string()))?;
    let mut symbols = Vec::with_capacity(symtab.len());
    for (index, sym) in symtab.enumerate() {
        let text = symtab.symbol_name(endian, sym).map_err(|e| bad(format!("symbol {}: {e}", index.0)))?;
        let shndx = sym.st_shndx(endian);
        let place = if shndx == elf::SHN_UNDEF {
            SymbolPlace::Undefined
        } else if shndx == elf::SHN_ABS {
            SymbolPlace::Absolute
        } else if shndx == elf::SHN_COMMON {
            SymbolPlace::Common
        } else {
            let at = symtab.symbol_section(endian, sym, index).map_err(|e| bad(format!("symbol {}: {e}", index.0)))?;
            let at = at.map(|i| i.0).filter(|i| *i < sections.len());
            let at = at.ok_or_else(|| bad(format!("symbol {} is in no section", index.0)))?;
            SymbolPlace::Section(SectionId(at as u32))
        };
        let symbol = Symbol {
            name: text_of(text),
            place,
            value: sym.st_value(endian),
            size: sym.st_size(endian),
            kind: sym.st_type().0,
            bind: sym.st_bind().0,
        };
        if let SymbolPlace::Section(id) = place {
            let end = symbol.value.checked_add(symbol.size);
            let section = &sections[id.0 as usize];
            if section.is_alloc() && end.is_none_or(|e| e > section.size) {
                return Err(bad(format!("{} reaches past the end of {}", symbol.name, section.name)));
            }
        }
        symbols.push(symbol);
    }
    Ok(symbols)
}

fn read_relocs(
    name: &str,
    table: &Table<'_>,
    endian: LE,
    data: &[u8],
    sections: &mut [Section],
    n_symbols: usize,
) -> Result<()> {
    for (index, header) in table.enumerate() {
        let own = sections[index.0].name.clone();
        let bad = |what: String| Error::new(codes::LP1003, Place::object(name).in_section(&own), what);
        let kind = header.sh_type(endian);
        if kind != elf::SHT_RELA && kind != elf::SHT_REL && kind != elf::SHT_RELR && kind != elf::SHT_CREL {
            continue;
        }
        let target = header.sh_info(endian) as usize;
        let Some(section) = sections.get_mut(target) else {
            return Err(bad(format!("applies to section {target}, which does not exist")));
        };
        if !section.is_kept() {
            continue;
        }
        let Some((relas, _)) = header.rela(endian, data).map_err(|e| bad(e.to_string()))? else {
            return Err(bad("relocations without addends do not occur on x86-64".into()));
        };
        section.relocs.reserve(relas.len());
        for rela in relas {
            let offset = rela.r_offset(endian);
            let symbol = rela.r_sym(endian, false);
            if symbol as usize >= n_symbols {
                return Err(bad(format!("the relocation at {offset:#x} names symbol {symbol}, which does not exist")));
            }
            let kind = rela.r_type(endian, false).0;
            let width = crate::isa::reloc::width(kind).unwrap_or(1);
            if offset.checked_add(width).is_none_or(|end| end > section.data.len() as u64) {
                return Err(bad(format!("the relocation at {offset:#x} is outside {}", section.name)));
            }
            section.relocs.push(Reloc { offset, kind, symbol: SymbolId(symbol), addend: rela.r_addend(endian) });
        }
        // As assemblers write them; a sort takes memory even where there is nothing to do.
        if !section.relocs.is_sorted_by_key(|r| r.offset) {
            section.relocs.sort_by_key(|r| r.offset);
        }
    }
    Ok(())
}
