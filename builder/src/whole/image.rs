//! Bytes -> [`Whole`]: a `vmlinux`, `vmlinux.o` or `vmlinuz` in one flat address space.
//!
//! Only section headers, symbols and the relocations of loaded sections are read; debug information stays untouched in the
//! file. A relocatable file is laid out and relocated as a linker would, undefined symbols get addresses of their own.
//!
//! Refused (broken): other machines and classes; tables that point outside the file; linked images without section table.

use std::borrow::Cow;
use std::collections::HashMap;

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader, SectionTable, Sym};

use super::area::{self, Area};
use super::spans;
use super::{Field, Form, ImageSymbol, Named, Proof, Whole};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::isa::reloc;
use crate::kernel::{IMAGE_BASE, KernelSymbol};
use crate::symbolize::{Class, TextKind};

type Header = FileHeader64<LE>;

/// Where the loaded sections of relocatable files are put.
const FIRST: u64 = IMAGE_BASE + (16 << 20);
/// Where undefined symbols are put: behind every kernel, in reach of 32-bit fields.
const EXTERNS: u64 = 0xffff_ffff_f000_0000;
/// Bytes all sections may have together: the kernel's range is 1 GiB (CONFIG_RANDOMIZE_BASE), per-CPU data comes on top.
const LARGEST: u64 = 2 << 30;
/// Bytes between two undefined symbols.
pub const EXTERN_STEP: u64 = 0x1_0000;
/// Offset 0 in the per-CPU area is a valid address; nothing else is.
const PERCPU: &str = ".data..percpu";

/// Reads an ELF file. `names` stands in for the symbol table where there is none, `places` for the relocations: the list that
/// follows the ELF in a vmlinuz.
pub fn read<'d>(name: &str, data: &'d [u8], names: Option<&'d [KernelSymbol]>, places: bool) -> Result<Whole<'d>> {
    let bad = |e: String| Error::new(codes::LP1205, Place::object(name), e);
    let header = Header::parse(data).map_err(|e| bad(e.to_string()))?;
    let endian = header.endian().map_err(|e| bad(e.to_string()))?;
    let not_kernel = |what: &str| Error::new(codes::LP1201, Place::object(name), what);
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(not_kernel("the machine is not x86-64"));
    }
    let form = if header.e_type(endian) == elf::ET_EXEC {
        Form::Linked
    } else if header.e_type(endian) == elf::ET_REL {
        Form::Relocatable
    } else {
        return Err(not_kernel("neither a linked image (ET_EXEC) nor a relocatable file (ET_REL)"));
    };
    let table = header.sections(endian, data).map_err(|e| bad(e.to_string()))?;
    let loaded = sections(name, &table, endian, data, form)?;
    if loaded.is_empty() {
        return Err(bad("there is no section table; a whole image is compared section by section".into()));
    }
    let mut r = Reader { name, table, endian, data, form };
    let (symbols, files, externs) = match names {
        Some(names) => from_kallsyms(names),
        None => r.symbols(&loaded)?,
    };
    if symbols.is_empty() {
        return Err(bad("there is no symbol table".into()));
    }
    let mut sections = vec![None; r.table.len()];
    for l in &loaded {
        sections[l.index] = Some(l.area.addr);
    }
    let mut areas: Vec<Area<'d>> = loaded.into_iter().map(|s| s.area).collect();
    let (mut fields, mut named, mut strays) = (Vec::new(), Vec::new(), Vec::new());
    let mut proof = if form == Form::Relocatable { Proof::All } else { Proof::None };
    if form == Form::Relocatable {
        r.relocate(&mut areas, &externs, &mut fields, (&mut named, &mut strays))?;
        areas.extend(extern_area(&externs));
    } else {
        if r.kept_relocations(&areas, &mut fields, &mut named)? {
            proof = Proof::All;
        } else if places && boot_relocations(data, &areas, percpu_load(header, endian, data), &mut fields) {
            proof = Proof::Addresses;
        }
        let by_name: HashMap<&str, u64> =
            symbols.iter().filter(|s| !s.name.is_empty()).map(|s| (s.name, s.value)).collect();
        areas = area::split(areas, &|n| by_name.get(n).copied(), head(&symbols, &by_name));
    }
    areas.sort_by_key(|a| (a.addr, a.size));
    fields.sort_unstable_by_key(|f| f.at);
    fields.dedup_by_key(|f| f.at);
    let mut symbols = symbols;
    for (_, name, at) in &externs {
        symbols.push(ImageSymbol {
            name,
            value: *at,
            size: 0,
            kind: 0,
            bind: elf::STB_GLOBAL.0,
            file: 0,
            absolute: false,
        });
    }
    symbols.push(ImageSymbol {
        name: spans::AUX_NAME,
        value: 0,
        size: 0,
        kind: 0,
        bind: elf::STB_LOCAL.0,
        file: 0,
        absolute: false,
    });
    let spans = spans::build(&areas, &symbols, names.is_some());
    let mut whole =
        Whole::assemble(name.to_owned(), form, areas, symbols, files, fields, (named, strays), proof, spans);
    whole.sections = sections;
    whole.sizeless = names.is_some();
    Ok(whole)
}

struct Reader<'n, 'd> {
    name: &'n str,
    table: SectionTable<'d, Header>,
    endian: LE,
    data: &'d [u8],
    form: Form,
}

struct Loaded<'d> {
    index: usize,
    area: Area<'d>,
}

/// Address of each undefined symbol, by its index.
type Externs<'d> = Vec<(u32, &'d str, u64)>;

fn sections<'d>(
    name: &str,
    table: &SectionTable<'d, Header>,
    endian: LE,
    data: &'d [u8],
    form: Form,
) -> Result<Vec<Loaded<'d>>> {
    let mut out = Vec::new();
    let (mut next, mut total) = (FIRST, 0);
    for (index, header) in table.enumerate() {
        let bad = |e: String| Error::new(codes::LP1205, Place::object(name).in_section(format!("[{}]", index.0)), e);
        let flags = header.sh_flags(endian).0;
        if flags & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        let section_name = table.section_name(endian, header).map_err(|e| bad(e.to_string()))?;
        let section_name = String::from_utf8_lossy(section_name).into_owned();
        let (mut addr, size) = (header.sh_addr(endian), header.sh_size(endian));
        let align = header.sh_addralign(endian).max(1);
        if align > 1 << 30 || !align.is_power_of_two() || size > 1 << 30 {
            return Err(bad(format!("{size:#x} bytes aligned to {align:#x} are no section of a kernel")));
        }
        let bytes = if header.sh_type(endian) == elf::SHT_NOBITS {
            &[][..]
        } else {
            header.data(endian, data).map_err(|e| bad(e.to_string()))?
        };
        if form == Form::Relocatable {
            if section_name.starts_with(PERCPU) {
                addr = out
                    .iter()
                    .filter(|l: &&Loaded<'_>| l.area.addr < IMAGE_BASE)
                    .map(|l| l.area.end())
                    .max()
                    .unwrap_or(0);
                addr = addr.next_multiple_of(align);
            } else {
                addr = next.next_multiple_of(align.max(16));
                // A gap, so that one past the end of a section is not the start of another.
                next = addr + size + 64;
            }
        }
        // The image, or what is not part of it: per-CPU offsets.
        let limit = if addr < IMAGE_BASE { LARGEST } else { EXTERNS };
        total += size;
        if addr.checked_add(size).is_none_or(|end| end > limit) || next > EXTERNS || total > LARGEST {
            return Err(bad(format!("{size:#x} bytes at {addr:#x} are not in the kernel's address range")));
        }
        if out.len() >= usize::from(u16::MAX) {
            return Err(bad("there are too many sections".into()));
        }
        let area = Area {
            name: section_name,
            class: Class::Ignored(""),
            addr,
            size,
            data: Cow::Borrowed(bytes),
            kind: header.sh_type(endian).0,
            flags,
            entsize: header.sh_entsize(endian),
            align,
        };
        let class = area::class_of(&area.as_section(false));
        out.push(Loaded { index: index.0, area: Area { class, ..area } });
    }
    Ok(out)
}

/// From the kernel's own start to the end of what runs without page tables.
fn head(symbols: &[ImageSymbol<'_>], by_name: &HashMap<&str, u64>) -> Option<(u64, u64)> {
    const WINDOW: u64 = 64 << 10;
    let start = *by_name.get("_text")?;
    let near = |s: &&ImageSymbol<'_>| area::is_head(s.name) && s.value.wrapping_sub(start) < WINDOW;
    let last = symbols.iter().filter(near).map(|s| s.value).max()?;
    let next = symbols.iter().filter(|s| s.value > last).map(|s| s.value).min()?;
    Some((start, next))
}

fn from_kallsyms(names: &[KernelSymbol]) -> (Vec<ImageSymbol<'_>>, Vec<&str>, Externs<'_>) {
    let symbols = names.iter().map(|s| ImageSymbol {
        name: &s.name,
        value: s.addr,
        size: 0,
        kind: if s.is_text() { elf::STT_FUNC.0 } else { elf::STT_OBJECT.0 },
        bind: match s.kind {
            b'w' | b'W' | b'v' | b'V' => elf::STB_WEAK.0,
            _ if s.is_local() => elf::STB_LOCAL.0,
            _ => elf::STB_GLOBAL.0,
        },
        file: 0,
        // Per-CPU offsets are of this kind as well.
        absolute: s.kind.eq_ignore_ascii_case(&b'A') && s.addr >= IMAGE_BASE,
    });
    (symbols.collect(), vec![""], Vec::new())
}

impl<'d> Reader<'_, 'd> {
    /// Symbols of loaded sections, by address; names of source files, the first one empty; undefined symbols.
    fn symbols(&self, loaded: &[Loaded<'d>]) -> Result<(Vec<ImageSymbol<'d>>, Vec<&'d str>, Externs<'d>)> {
        let bad = |e: String| Error::new(codes::LP1205, Place::object(self.name).in_section(".symtab"), e);
        let symtab = self.table.symbols(self.endian, self.data, elf::SHT_SYMTAB).map_err(|e| bad(e.to_string()))?;
        let (mut out, mut files, mut externs) = (Vec::with_capacity(symtab.len()), vec![""], Vec::new());
        let mut base = vec![None; self.table.len()];
        for l in loaded {
            if let Some(slot) = base.get_mut(l.index) {
                *slot = Some(if self.form == Form::Relocatable { l.area.addr } else { 0 });
            }
        }
        for (index, sym) in symtab.enumerate() {
            let text = symtab.symbol_name(self.endian, sym).map_err(|e| bad(format!("symbol {}: {e}", index.0)))?;
            let text = std::str::from_utf8(text).unwrap_or_default();
            let (kind, bind) = (sym.st_type().0, sym.st_bind().0);
            if kind == elf::STT_FILE.0 {
                files.push(text);
                continue;
            }
            let file = if bind == elf::STB_LOCAL.0 { files.len() as u32 - 1 } else { 0 };
            let shndx = sym.st_shndx(self.endian);
            if shndx == elf::SHN_UNDEF {
                if self.form == Form::Relocatable && index.0 > 0 {
                    let at = EXTERNS + externs.len() as u64 * EXTERN_STEP + EXTERN_STEP / 2;
                    if at >= u64::MAX - EXTERN_STEP {
                        return Err(bad("there are too many undefined symbols".into()));
                    }
                    externs.push((index.0 as u32, text, at));
                }
                continue;
            }
            let value = sym.st_value(self.endian);
            if shndx == elf::SHN_ABS && value >= IMAGE_BASE && self.form == Form::Linked {
                // init_per_cpu__NAME and the like: addresses the linker script computes.
                out.push(ImageSymbol {
                    name: text,
                    value,
                    size: 0,
                    kind: elf::STT_NOTYPE.0,
                    bind,
                    file,
                    absolute: true,
                });
                continue;
            }
            if shndx == elf::SHN_ABS || shndx == elf::SHN_COMMON || kind == elf::STT_SECTION.0 {
                continue;
            }
            let section = symtab.symbol_section(self.endian, sym, index).map_err(|e| bad(e.to_string()))?;
            let Some(Some(base)) = section.and_then(|s| base.get(s.0)) else { continue };
            let value = base.wrapping_add(sym.st_value(self.endian));
            let size = sym.st_size(self.endian);
            if value.checked_add(size).is_none() {
                return Err(bad(format!("{text} is larger than the address space")));
            }
            out.push(ImageSymbol { name: text, value, size, kind, bind, file, absolute: false });
        }
        Ok((out, files, externs))
    }

    /// Applies the relocations of a relocatable file and remembers where they are.
    fn relocate(
        &mut self,
        areas: &mut [Area<'d>],
        externs: &Externs<'d>,
        fields: &mut Vec<Field>,
        (named, strays): (&mut Vec<Named<'d>>, &mut Vec<(u64, u64)>),
    ) -> Result<()> {
        let table = &self.table;
        let bad = |e: String| Error::new(codes::LP1205, Place::object(self.name), e);
        let symtab = table.symbols(self.endian, self.data, elf::SHT_SYMTAB).map_err(|e| bad(e.to_string()))?;
        let mut base: Vec<Option<u64>> = vec![None; table.len()];
        let mut area_of: Vec<Option<usize>> = vec![None; table.len()];
        let mut loaded = areas.iter().enumerate();
        for (index, header) in table.enumerate() {
            if header.sh_flags(self.endian).0 & elf::SHF_ALLOC.0 != 0
                && let Some((i, area)) = loaded.next()
            {
                (base[index.0], area_of[index.0]) = (Some(area.addr), Some(i));
            }
        }
        let ends: HashMap<u64, u64> = areas.iter().map(|a| (a.addr, a.end())).collect();
        let mut homes: Vec<Option<(u64, u64)>> = vec![None; symtab.len()];
        let mut value: Vec<Option<u64>> = vec![None; symtab.len()];
        let mut numbers: HashMap<usize, (u64, &'d str)> = HashMap::new();
        for (index, sym) in symtab.enumerate() {
            let shndx = sym.st_shndx(self.endian);
            value[index.0] = if shndx == elf::SHN_ABS {
                let name = symtab.symbol_name(self.endian, sym).ok().and_then(|n| std::str::from_utf8(n).ok());
                numbers.insert(index.0, (sym.st_value(self.endian), name.unwrap_or_default()));
                Some(sym.st_value(self.endian))
            } else {
                let section = symtab.symbol_section(self.endian, sym, index).ok().flatten();
                let home = section.and_then(|s| *base.get(s.0)?);
                homes[index.0] = home.and_then(|b| Some((b, *ends.get(&b)?)));
                home.map(|b| b.wrapping_add(sym.st_value(self.endian)))
            };
        }
        for (index, _, at) in externs {
            value[*index as usize] = Some(*at);
        }
        for header in table.iter().filter(|h| h.sh_type(self.endian) == elf::SHT_RELA) {
            let Some(Some(i)) = area_of.get(header.sh_info(self.endian) as usize) else { continue };
            let Some(area) = areas.get_mut(*i) else { continue };
            if matches!(area.class, Class::Ignored(_)) {
                continue;
            }
            let Some((relas, _)) = header.rela(self.endian, self.data).map_err(|e| bad(e.to_string()))? else {
                continue;
            };
            let keep = keeps_fields(&area.class);
            let addr = area.addr;
            let bytes = area.data.to_mut();
            for rela in relas {
                let (offset, kind) = (rela.r_offset(self.endian), rela.r_type(self.endian, false).0);
                let width = reloc::width(kind)
                    .ok_or_else(|| bad(format!("relocation type {kind} at {}+{offset:#x}", area.name)))?;
                let index = rela.r_sym(self.endian, false) as usize;
                let symbol = *value.get(index).ok_or_else(|| bad(format!("there is no symbol {index}")))?;
                let place = addr.wrapping_add(offset);
                // Relocations against sections that are not loaded lead nowhere.
                let Some(symbol) = symbol else { continue };
                let means = symbol.wrapping_add(rela.r_addend(self.endian) as u64);
                if let Some(Some(home)) = homes.get(index)
                    && !(home.0..home.1).contains(&means.wrapping_add(if reloc::is_pc_relative(kind) { 4 } else { 0 }))
                {
                    strays.push((place, home.0));
                }
                if let Some((number, name)) = numbers.get(&index).filter(|_| index > 0) {
                    named.push(Named { at: place, name, addend: rela.r_addend(self.endian), number: Some(*number) });
                }
                let stored = if reloc::is_pc_relative(kind) { means.wrapping_sub(place) } else { means };
                let field = usize::try_from(offset).ok().and_then(|o| bytes.get_mut(o..o.checked_add(width as usize)?));
                let field =
                    field.ok_or_else(|| bad(format!("the relocation at {offset:#x} is outside {}", area.name)))?;
                field.copy_from_slice(&stored.to_le_bytes()[..width as usize]);
                if kind != reloc::NONE && (keep || !reloc::is_pc_relative(kind)) {
                    fields.push(Field { at: place, kind: kind as u8 });
                }
            }
        }
        Ok(())
    }

    /// Where a linked image that kept its relocations (`--emit-relocs`) has fields that hold addresses. The values are in the
    /// bytes; only the places are taken. False when the code has none.
    fn kept_relocations(
        &self,
        areas: &[Area<'d>],
        fields: &mut Vec<Field>,
        named: &mut Vec<Named<'d>>,
    ) -> Result<bool> {
        let bad = |e: String| Error::new(codes::LP1205, Place::object(self.name), e);
        let symtab = self.table.symbols(self.endian, self.data, elf::SHT_SYMTAB).map_err(|e| bad(e.to_string()))?;
        let mut of_code = false;
        for header in self.table.iter().filter(|h| h.sh_type(self.endian) == elf::SHT_RELA) {
            let target = self.table.section(object::SectionIndex(header.sh_info(self.endian) as usize));
            let Ok(target) = target else { continue };
            if target.sh_flags(self.endian).0 & elf::SHF_ALLOC.0 == 0 {
                continue;
            }
            let addr = target.sh_addr(self.endian);
            let Some(area) = areas.iter().find(|a| a.addr == addr && a.size == target.sh_size(self.endian)) else {
                continue;
            };
            of_code |= area.name == ".text";
            if matches!(area.class, Class::Ignored(_) | Class::Table(_)) {
                continue;
            }
            let keep = keeps_fields(&area.class);
            let Some((relas, _)) = header.rela(self.endian, self.data).map_err(|e| bad(e.to_string()))? else {
                continue;
            };
            for rela in relas {
                let kind = rela.r_type(self.endian, false).0;
                if kind == reloc::NONE || !keep && reloc::is_pc_relative(kind) {
                    continue;
                }
                let at = rela.r_offset(self.endian);
                if reloc::width(kind).is_none() || !area.contains(at) {
                    return Err(bad(format!("the relocation of type {kind} at {at:#x} is not understood")));
                }
                fields.push(Field { at, kind: kind as u8 });
                // Sums and differences that are not in the image have only the symbol to be recognised by.
                let index = object::SymbolIndex(rela.r_sym(self.endian, false) as usize);
                if let Ok(symbol) = symtab.symbol(index)
                    && !reloc::is_pc_relative(kind)
                {
                    let value = symbol.st_value(self.endian).wrapping_add(rela.r_addend(self.endian) as u64);
                    let is_number = symbol.st_shndx(self.endian) == elf::SHN_ABS && index.0 > 0;
                    let number = Some(symbol.st_value(self.endian)).filter(|_| is_number);
                    // A number may look like a per-CPU offset.
                    let known = number.is_none() && areas.iter().any(|a| a.contains(value));
                    let name = symtab.symbol_name(self.endian, symbol).ok().and_then(|n| std::str::from_utf8(n).ok());
                    if let Some(name) = name.filter(|n| !n.is_empty() && !known) {
                        named.push(Named { at, name, addend: rela.r_addend(self.endian), number });
                    }
                }
            }
        }
        Ok(of_code)
    }
}

/// PC-relative fields of code are found by decoding it.
fn keeps_fields(class: &Class) -> bool {
    !matches!(class, Class::Text(kind) if *kind != TextKind::AltReplacement)
}

fn extern_area<'d>(externs: &Externs<'d>) -> Option<Area<'d>> {
    let (_, _, last) = externs.last()?;
    Some(Area {
        name: super::EXTERN_AREA.into(),
        class: Class::Ignored("undefined symbols"),
        addr: EXTERNS,
        size: last + EXTERN_STEP / 2 - EXTERNS,
        data: Cow::Borrowed(&[]),
        kind: elf::SHT_NOBITS.0,
        flags: elf::SHF_ALLOC.0,
        entsize: 0,
        align: 1,
    })
}

/// Where the per-CPU area, whose addresses begin at 0, lies in the image that is loaded.
fn percpu_load(header: &Header, endian: LE, data: &[u8]) -> Option<u64> {
    let segments = header.program_headers(endian, data).ok()?;
    let first = segments.iter().find(|s| s.p_type(endian) == elf::PT_LOAD && s.p_vaddr(endian) == 0)?;
    Some(IMAGE_BASE.wrapping_add(first.p_paddr(endian)))
}

/// The list of absolute fields the boot code needs to move the kernel, behind the ELF in a vmlinuz: read from the end,
/// 32-bit fields, per-CPU fields, 64-bit fields, each set ended by a zero (arch/x86/boot/compressed/misc.c,
/// handle_relocations). False when there is none.
///
/// Fields inside the per-CPU area are listed where the boot code finds them: `percpu` bytes behind their addresses.
fn boot_relocations(data: &[u8], areas: &[Area<'_>], percpu: Option<u64>, fields: &mut Vec<Field>) -> bool {
    let mut words = data.rchunks_exact(4).map(|w| i32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let mut found = Vec::new();
    for kind in [reloc::ABS32S, reloc::NONE, reloc::ABS64] {
        loop {
            let Some(word) = words.next() else { return false };
            if word == 0 {
                break;
            }
            let at = i64::from(word) as u64;
            let moved = percpu.map(|load| at.wrapping_sub(load));
            let find = |at: u64| areas.iter().find(|a| a.contains(at)).map(|a| (at, a));
            let Some((at, area)) = find(at).or_else(|| find(moved?)) else { return false };
            if kind != reloc::NONE && !matches!(area.class, Class::Ignored(_) | Class::Table(_)) {
                found.push(Field { at, kind: kind as u8 });
            }
        }
    }
    let any = !found.is_empty();
    fields.append(&mut found);
    any
}
