//! The sections of debug information of one ELF file: found by name at once, unpacked and relocated when first asked for.
//!
//! Rules: ELF gABI, "Section Compression" (`SHF_COMPRESSED`); x86-64 psABI, "Relocation"; DWARF 5, 7.3.1 (in a relocatable
//! file the addresses and the offsets between sections are relocations).
//!
//! Nothing is refused: a section that is damaged counts as empty.

use std::io::Read;
use std::sync::OnceLock;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym};
use object::{LittleEndian as LE, SectionIndex, SymbolIndex};

type Header = FileHeader64<LE>;

/// The sections that are read, by their place in [`NAMES`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Info,
    Abbrev,
    Aranges,
    Line,
    Str,
    LineStr,
    StrOffsets,
    Addr,
    RngLists,
    Ranges,
    LocLists,
    Loc,
}

/// Names in the order of [`Kind`].
const NAMES: [&[u8]; 12] = [
    b".debug_info",
    b".debug_abbrev",
    b".debug_aranges",
    b".debug_line",
    b".debug_str",
    b".debug_line_str",
    b".debug_str_offsets",
    b".debug_addr",
    b".debug_rnglists",
    b".debug_ranges",
    b".debug_loclists",
    b".debug_loc",
];

/// No section unpacks to more: 32-bit DWARF cannot address it.
const UNPACKED: u64 = 1 << 32;

/// What deflate and zstd reach at best per packed byte, with room.
const RATIO: u64 = 1 << 17;

/// What stands for the address of something that is not there (DWARF 5 readers take -1 as such).
const TOMBSTONE: u64 = u64::MAX;

pub(super) struct Sections<'d> {
    data: &'d [u8],
    table: SectionTable<'d, Header>,
    /// By [`Kind`].
    found: [Option<SectionIndex>; NAMES.len()],
    /// Those that had to be unpacked or relocated.
    made: [OnceLock<Vec<u8>>; NAMES.len()],
    /// Of a relocatable file: where each section is placed.
    bases: Option<Vec<Option<u64>>>,
    /// Addresses of what is loaded, first and one past the last.
    placed: Vec<(u64, u64)>,
}

impl<'d> Sections<'d> {
    /// `place` gives the addresses of the sections of a relocatable file.
    pub(super) fn open(data: &'d [u8], place: &dyn Fn(usize) -> Option<u64>) -> Option<Self> {
        let header = Header::parse(data).ok()?;
        header.endian().ok()?;
        if header.e_machine(LE) != elf::EM_X86_64 {
            return None;
        }
        let table = header.sections(LE, data).ok()?;
        let relocatable = header.e_type(LE) == elf::ET_REL;
        let mut found = [None; NAMES.len()];
        let mut bases = Vec::new();
        let mut placed = Vec::new();
        for (index, section) in table.enumerate() {
            let allocated = section.sh_flags(LE).contains(elf::SHF_ALLOC);
            let base = match (relocatable, allocated) {
                (true, true) => place(index.0),
                (true, false) => Some(0),
                (false, _) => Some(section.sh_addr(LE)),
            };
            if let Some(base) = base.filter(|_| allocated && section.sh_size(LE) > 0) {
                placed.push((base, base.saturating_add(section.sh_size(LE))));
            }
            if relocatable {
                bases.push(base);
            }
            let Ok(name) = table.section_name(LE, section) else { continue };
            let Some(kind) = NAMES.iter().position(|n| *n == name) else { continue };
            // Several of a kind are parts of groups, which nothing here would keep apart.
            if allocated || found[kind].replace(index).is_some() {
                return None;
            }
        }
        found[Kind::Info as usize]?;
        found[Kind::Abbrev as usize]?;
        placed.sort_unstable();
        let bases = relocatable.then_some(bases);
        Some(Self { data, table, found, made: Default::default(), bases, placed })
    }

    /// The bytes of a section; empty when there is none.
    pub(super) fn bytes(&self, kind: Kind) -> &[u8] {
        self.try_bytes(kind).unwrap_or_default()
    }

    fn try_bytes(&self, kind: Kind) -> Option<&[u8]> {
        let section = self.table.section(self.found[kind as usize]?).ok()?;
        let index = self.found[kind as usize]?;
        let is_relocated = || self.table.iter().any(|s| s.info_link(LE) == index);
        if !section.sh_flags(LE).contains(elf::SHF_COMPRESSED) && (self.bases.is_none() || !is_relocated()) {
            return section.data(LE, self.data).ok();
        }
        Some(self.made[kind as usize].get_or_init(|| self.load(kind).unwrap_or_default()))
    }

    /// Is the address within something that is loaded?
    pub(super) fn is_placed(&self, address: u64) -> bool {
        // Sections of a relocatable file may overlap when they have no places of their own.
        let end = self.placed.partition_point(|p| p.0 <= address);
        self.placed[..end].iter().rev().take(8).any(|p| address < p.1)
    }

    fn load(&self, kind: Kind) -> Option<Vec<u8>> {
        let index = self.found[kind as usize]?;
        let section = self.table.section(index).ok()?;
        let mut bytes = match section.compression(LE, self.data).ok()? {
            None => section.data(LE, self.data).ok()?.to_vec(),
            Some((header, offset, size)) => {
                let (start, size) = (usize::try_from(offset).ok()?, usize::try_from(size).ok()?);
                let packed = self.data.get(start..start.checked_add(size)?)?;
                unpack(header.ch_type.get(LE), packed, header.ch_size.get(LE))?
            }
        };
        if let Some(bases) = &self.bases {
            self.relocate(index, &mut bytes, bases)?;
        }
        Some(bytes)
    }

    /// Applies the relocations of the section `index` to its bytes.
    fn relocate(&self, index: SectionIndex, bytes: &mut [u8], bases: &[Option<u64>]) -> Option<()> {
        for section in self.table.iter().filter(|s| s.info_link(LE) == index) {
            let Some((relas, link)) = section.rela(LE, self.data).ok()? else { continue };
            let symbols = self.table.symbol_table_by_index(LE, self.data, link).ok()?;
            for rela in relas {
                let index = SymbolIndex(rela.r_sym(LE, false) as usize);
                let value = match symbols.symbol(index) {
                    Ok(symbol) => {
                        let base = match symbols.symbol_section(LE, symbol, index).ok()? {
                            Some(section) => *bases.get(section.0)?,
                            // Absolute, or somewhere else, where its address is not known.
                            None => (symbol.st_shndx(LE) == elf::SHN_ABS).then_some(0),
                        };
                        base.map(|b| b.wrapping_add(symbol.st_value(LE)))
                    }
                    // The null symbol.
                    Err(_) if index.0 == 0 => Some(0),
                    Err(_) => return None,
                };
                let value = value.map(|v| v.wrapping_add_signed(rela.r_addend(LE)));
                apply(bytes, rela.r_offset(LE), rela.r_type(LE, false), value)?;
            }
        }
        Some(())
    }
}

/// Writes one value. Types that debug information has no use for are left alone.
fn apply(bytes: &mut [u8], at: u64, kind: elf::RelocationType, value: Option<u64>) -> Option<()> {
    let at = usize::try_from(at).ok()?;
    match kind {
        elf::R_X86_64_64 | elf::R_X86_64_DTPOFF64 => {
            let to = bytes.get_mut(at..at.checked_add(8)?)?;
            to.copy_from_slice(&value.unwrap_or(TOMBSTONE).to_le_bytes());
        }
        elf::R_X86_64_32 | elf::R_X86_64_32S | elf::R_X86_64_DTPOFF32 => {
            let to = bytes.get_mut(at..at.checked_add(4)?)?;
            to.copy_from_slice(&value.unwrap_or(0).to_le_bytes()[..4]);
        }
        _ => {}
    }
    Some(())
}

fn unpack(kind: elf::CompressionType, packed: &[u8], size: u64) -> Option<Vec<u8>> {
    if size > UNPACKED || size > (packed.len() as u64).saturating_mul(RATIO) {
        return None;
    }
    let mut out = Vec::new();
    out.try_reserve_exact(usize::try_from(size).ok()?).ok()?;
    match kind {
        elf::ELFCOMPRESS_ZLIB => {
            flate2::read::ZlibDecoder::new(packed).take(size).read_to_end(&mut out).ok()?;
        }
        elf::ELFCOMPRESS_ZSTD => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
            decoder.take(size).read_to_end(&mut out).ok()?;
        }
        _ => return None,
    }
    (out.len() as u64 == size).then_some(out)
}
