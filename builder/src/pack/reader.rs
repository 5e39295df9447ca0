//! The second reader: a finished module as goblin sees it, and what was found wrong in it.

use goblin::elf::{
    Elf, Reloc,
    reloc::R_X86_64_64,
    section_header::{SHT_NOBITS, SectionHeader},
};

use crate::codes;
use crate::error::{Place, Problem};

/// A module that is read again.
#[derive(Debug)]
pub struct Reread<'a> {
    /// Its bytes.
    pub module: &'a [u8],
    /// As goblin reads it.
    pub elf: &'a Elf<'a>,
    /// What it is called in messages.
    pub name: String,
    /// What was found.
    pub problems: Vec<Problem>,
}

/// What a relocated field refers to.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'a> {
    /// Name of the symbol; that of the section for a section symbol.
    pub symbol: &'a str,
    /// Index of the section it is in; 0: not in this module.
    pub section: usize,
    /// Offset from the symbol.
    pub addend: i64,
    /// Offset in the section.
    pub offset: i64,
}

impl<'a> Reread<'a> {
    /// A module, and nothing wrong with it so far.
    pub fn new(module: &'a [u8], elf: &'a Elf<'a>, name: String) -> Self {
        Self { module, elf, name, problems: Vec::new() }
    }
    /// The module itself.
    pub fn place(&self) -> Place {
        Place::object(&self.name)
    }
    /// Notes a problem.
    pub fn problem(&mut self, code: &'static codes::Code, place: Place, detail: impl Into<String>) {
        self.problems.push(Problem::new(code, place, detail));
    }
    /// Notes a problem where a value is another one than it should be.
    pub fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        code: &'static codes::Code,
        place: Place,
        what: &str,
        have: T,
        want: T,
    ) {
        if have != want {
            self.problem(code, place, format!("{what} is {have:?}, expected {want:?}"));
        }
    }

    /// The name of a section.
    pub fn section_name(&self, header: &SectionHeader) -> &'a str {
        self.elf.shdr_strtab.get_at(header.sh_name).unwrap_or("")
    }
    /// Index and header of the section of a name.
    pub fn section(&self, name: &str) -> Option<(usize, &'a SectionHeader)> {
        self.elf.section_headers.iter().enumerate().find(|(_, h)| self.section_name(h) == name)
    }
    /// What a section holds in the file.
    pub fn bytes(&self, header: &SectionHeader) -> Option<&'a [u8]> {
        if header.sh_type == SHT_NOBITS {
            return None;
        }
        let start = usize::try_from(header.sh_offset).ok()?;
        self.module.get(start..start.checked_add(usize::try_from(header.sh_size).ok()?)?)
    }
    /// Bytes of a section by name; a missing one is a problem and empty.
    pub fn content(&mut self, name: &str) -> &'a [u8] {
        let found = self.section(name).and_then(|(_, h)| self.bytes(h));
        if found.is_none() {
            let place = self.place().in_section(name);
            self.problem(codes::LP4007, place, "the section is missing");
        }
        found.unwrap_or(&[])
    }

    /// The relocation at `offset` of the section with this index.
    pub fn relocation(&self, index: usize, offset: u64) -> Option<Reloc> {
        let (_, relocs) = self
            .elf
            .shdr_relocs
            .iter()
            .find(|(i, _)| self.elf.section_headers.get(*i).is_some_and(|h| h.sh_info as usize == index))?;
        relocs.iter().find(|r| r.r_offset == offset)
    }
    /// What the 8-byte field at `offset` of a section is filled with at load time.
    pub fn pointer(&self, section: &str, offset: u64) -> Option<Reached<'a>> {
        let (index, _) = self.section(section)?;
        self.target(&self.relocation(index, offset).filter(|r| r.r_type == R_X86_64_64)?)
    }
    /// What a relocation means.
    pub fn target(&self, r: &Reloc) -> Option<Reached<'a>> {
        let sym = self.elf.syms.get(r.r_sym)?;
        let addend = r.r_addend.unwrap_or(0);
        let section = if sym.st_shndx < 0xff00 { sym.st_shndx } else { 0 };
        let symbol = match self.elf.strtab.get_at(sym.st_name) {
            Some("") | None => self.elf.section_headers.get(section).map_or("", |h| self.section_name(h)),
            Some(name) => name,
        };
        Some(Reached { symbol, section, addend, offset: addend.wrapping_add(sym.st_value.cast_signed()) })
    }
    /// The NUL-terminated string a pointer leads to.
    pub fn string(&self, t: &Reached<'_>) -> Option<&'a str> {
        let bytes = self.bytes(self.elf.section_headers.get(t.section)?)?;
        let rest = bytes.get(usize::try_from(t.offset).ok()?..)?;
        std::str::from_utf8(rest.split(|&b| b == 0).next()?).ok()
    }

    /// Section and offset of a symbol of this module.
    pub fn defined(&self, name: &str) -> Option<(usize, u64)> {
        let named = |s: &goblin::elf::Sym| s.st_shndx != 0 && self.elf.strtab.get_at(s.st_name) == Some(name);
        self.elf.syms.iter().find(named).map(|s| (s.st_shndx, s.st_value))
    }
}

/// A little-endian number of `len` bytes; all ones when it is not there, which no field holds.
pub fn int(bytes: &[u8], offset: usize, len: usize) -> u64 {
    let Some(field) = bytes.get(offset..offset + len) else { return u64::MAX };
    field.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
}
