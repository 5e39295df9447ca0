//! A relocatable object with the place of every record in the file, so that single fields can be changed.
//!
//! Read by hand and without the libraries that lpbuild reads with: what one of them gets wrong must not be wrong here too.
//! Input: ELF64, little endian, ET_REL, from a compiler. Anything else is an error.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

/// Section flags (gABI).
pub mod flags {
    /// Written to while the kernel runs.
    pub const WRITE: u64 = 1;
    /// Part of the running kernel.
    pub const ALLOC: u64 = 2;
    /// Code.
    pub const EXEC: u64 = 4;
    /// Equal entries become one.
    pub const MERGE: u64 = 0x10;
    /// Entries end with a zero byte.
    pub const STRINGS: u64 = 0x20;
}

const NOBITS: u32 = 8;
const SYMTAB: u32 = 2;
const RELA: u32 = 4;

/// Relocation types (psABI).
pub mod reloc {
    /// 8 bytes.
    pub const R64: u32 = 1;
    /// 4 bytes, from the field on.
    pub const PC32: u32 = 2;
    /// As [`PC32`], for calls.
    pub const PLT32: u32 = 4;
    /// 4 bytes, unsigned.
    pub const R32: u32 = 10;
    /// 4 bytes, signed.
    pub const R32S: u32 = 11;
    /// 8 bytes, from the field on.
    pub const PC64: u32 = 24;

    /// Bytes of the field.
    pub fn width(kind: u32) -> usize {
        match kind {
            R64 | PC64 => 8,
            PC32 | PLT32 | R32 | R32S => 4,
            12 | 13 => 2,
            14 | 15 => 1,
            _ => 0,
        }
    }

    /// Does it count from the field?
    pub fn is_relative(kind: u32) -> bool {
        matches!(kind, PC32 | PLT32 | PC64)
    }
}

/// One section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// `SHF_*`
    pub flags: u64,
    /// Size of an entry.
    pub entsize: u64,
    /// Bytes in memory.
    pub size: u64,
    /// Bytes in the file; empty for what is zero at the start.
    pub file: Range<usize>,
    /// By offset.
    pub relocs: Vec<Reloc>,
}

impl Section {
    /// Does it have this flag?
    pub fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// One relocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloc {
    /// Offset of the field in its section.
    pub at: u64,
    /// Its type.
    pub kind: u32,
    /// Index of the symbol.
    pub symbol: usize,
    /// Addend.
    pub addend: i64,
    /// Where its record is in the file.
    pub record: usize,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In another object.
    Undefined,
    /// In a section of this one.
    Section(usize),
    /// A number, or a tentative definition.
    Number,
}

/// One symbol.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// `STT_*`
    pub kind: u8,
    /// `STB_*`
    pub bind: u8,
    /// Where it is.
    pub at: At,
    /// Offset in the section.
    pub value: u64,
    /// Bytes.
    pub size: u64,
    /// Where its record is in the file.
    pub record: usize,
    /// Where its name is in the file.
    pub name_at: usize,
}

impl Symbol {
    /// Does it stand for a section?
    pub fn is_section(&self) -> bool {
        self.kind == 3
    }
    /// Is it a function?
    pub fn is_function(&self) -> bool {
        self.kind == 2
    }
}

/// One object.
#[derive(Clone, Debug)]
pub struct Elf {
    /// The file.
    pub bytes: Vec<u8>,
    /// By index, the first one empty.
    pub sections: Vec<Section>,
    /// By index, the first one empty.
    pub symbols: Vec<Symbol>,
}

impl Elf {
    /// Reads an object.
    pub fn read(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01") && half(&bytes, 16)? == 1, "not an object file for x86-64");
        let (table, count, names) = (long(&bytes, 40)? as usize, half(&bytes, 60)?, half(&bytes, 62)?);
        let header = |i: u16| table + usize::from(i) * 64;
        let span = |i: u16| -> Result<Range<usize>> {
            let at = header(i);
            let start = long(&bytes, at + 24)? as usize;
            let size = if word(&bytes, at + 4)? == NOBITS { 0 } else { long(&bytes, at + 32)? as usize };
            ensure!(start.checked_add(size).is_some_and(|end| end <= bytes.len()), "section {i} is outside the file");
            Ok(start..start + size)
        };
        let names = span(names)?.start;
        let mut elf = Self { bytes: Vec::new(), sections: Vec::new(), symbols: Vec::new() };
        let (mut relocations, mut symbols) = (Vec::new(), None);
        for i in 0..count {
            let at = header(i);
            let kind = word(&bytes, at + 4)?;
            elf.sections.push(Section {
                name: text(&bytes, names + word(&bytes, at)? as usize)?,
                flags: long(&bytes, at + 8)?,
                entsize: long(&bytes, at + 56)?,
                size: long(&bytes, at + 32)?,
                file: span(i)?,
                relocs: Vec::new(),
            });
            match kind {
                RELA => relocations.push((word(&bytes, at + 44)? as usize, span(i)?)),
                SYMTAB => symbols = Some((span(i)?, word(&bytes, at + 40)? as u16)),
                _ => {}
            }
        }
        let (records, strings) = symbols.context("the object has no symbols")?;
        let strings = span(strings)?.start;
        for record in records.step_by(24) {
            let name_at = strings + word(&bytes, record)? as usize;
            let (info, index) = (bytes[record + 4], half(&bytes, record + 6)?);
            elf.symbols.push(Symbol {
                name: text(&bytes, name_at)?,
                kind: info & 15,
                bind: info >> 4,
                at: match index {
                    0 => At::Undefined,
                    i if i < count => At::Section(i.into()),
                    _ => At::Number,
                },
                value: long(&bytes, record + 8)?,
                size: long(&bytes, record + 16)?,
                record,
                name_at,
            });
        }
        for (of, records) in relocations {
            let section = elf.sections.get_mut(of).context("relocations of no section")?;
            for record in records.step_by(24) {
                section.relocs.push(Reloc {
                    at: long(&bytes, record)?,
                    kind: word(&bytes, record + 8)?,
                    symbol: word(&bytes, record + 12)? as usize,
                    addend: long(&bytes, record + 16)? as i64,
                    record,
                });
            }
            ensure!(section.relocs.iter().all(|r| r.symbol < elf.symbols.len()), "a relocation has no symbol");
            section.relocs.sort_by_key(|r| r.at);
        }
        elf.bytes = bytes;
        Ok(elf)
    }

    /// The bytes of a section; what has none in the file is empty.
    pub fn data(&self, section: usize) -> &[u8] {
        self.sections.get(section).and_then(|s| self.bytes.get(s.file.clone())).unwrap_or(&[])
    }

    /// The relocations whose field begins in a stretch of a section.
    pub fn relocs(&self, section: usize, from: u64, to: u64) -> &[Reloc] {
        let all = self.sections.get(section).map_or(&[][..], |s| &s.relocs);
        let (a, b) = (all.partition_point(|r| r.at < from), all.partition_point(|r| r.at < to));
        all.get(a..b).unwrap_or(&[])
    }

    /// The file with another name of a symbol: the names are copied behind the end, with the new one.
    pub fn with_name(&self, symbol: usize, name: &str) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let table = long(&bytes, 40).ok()? as usize;
        let header = |i: usize| table + i * 64;
        let symbols = (0..self.sections.len()).find(|i| word(&bytes, header(*i) + 4).ok() == Some(SYMTAB))?;
        let strings = word(&bytes, header(symbols) + 40).ok()? as usize;
        let old = bytes.get(self.sections.get(strings)?.file.clone())?.to_vec();
        let at = bytes.len();
        bytes.extend_from_slice(&old);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        let size = bytes.len() - at;
        let place = header(strings);
        bytes.get_mut(place + 24..place + 32)?.copy_from_slice(&(at as u64).to_le_bytes());
        bytes.get_mut(place + 32..place + 40)?.copy_from_slice(&(size as u64).to_le_bytes());
        let record = self.symbols.get(symbol)?.record;
        bytes.get_mut(record..record + 4)?.copy_from_slice(&(old.len() as u32).to_le_bytes());
        Some(bytes)
    }

    /// Does a relocated field cover this byte?
    pub fn is_relocated(&self, section: usize, at: u64) -> bool {
        self.relocs(section, at.saturating_sub(7), at + 1).iter().any(|r| r.at + reloc::width(r.kind) as u64 > at)
    }
}

/// Writes the record of a relocation.
pub fn put_reloc(bytes: &mut [u8], r: &Reloc) {
    let (at, record) = (r.record, &mut bytes[r.record..r.record + 24]);
    debug_assert!(at > 0, "a record is behind the header");
    record[..8].copy_from_slice(&r.at.to_le_bytes());
    record[8..12].copy_from_slice(&r.kind.to_le_bytes());
    record[12..16].copy_from_slice(&(r.symbol as u32).to_le_bytes());
    record[16..].copy_from_slice(&r.addend.to_le_bytes());
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..at + N).and_then(|f| f.try_into().ok());
    found.with_context(|| format!("the file ends before {at:#x}"))
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(field(bytes, at)?))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(field(bytes, at)?))
}

fn long(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(field(bytes, at)?))
}

fn text(bytes: &[u8], at: usize) -> Result<String> {
    let rest = bytes.get(at..).context("a name is outside the file")?;
    let end = rest.iter().position(|b| *b == 0).context("a name has no end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}
