//! The ELF of the kernel: loaded sections, build id, release.
//!
//! Input: a vmlinux, with or without a section table, symbols, or bytes behind its end. Output: [`KernelSection`]s.
//! Refused: anything but ELF64 ET_EXEC for x86-64, sections outside the file, images without build id or banner.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, PT_LOAD, PT_NOTE, SHF_ALLOC, SHT_NOBITS, SHT_NOTE};
use object::elf::{FileHeader64, NT_GNU_BUILD_ID, PF_W, PF_X, SHF_EXECINSTR, SHF_WRITE};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use crate::codes;
use crate::error::{Error, Place, Result};

const LE: LittleEndian = LittleEndian;
/// Upper bound of the memory sections may claim together: the kernel's range is 1 GiB, per-CPU data comes on top.
const MAX_LOADED: u64 = 2 << 30;

/// A section (or, without a section table, a segment) that occupies memory.
#[derive(Clone, Debug)]
pub struct KernelSection {
    /// Name; segments are called `segment N`.
    pub name: String,
    /// Link-time address of the first byte.
    pub addr: u64,
    /// Bytes in memory.
    pub size: u64,
    /// Bytes in the file: all of them, or none for `.bss` and the like.
    pub data: Vec<u8>,
    /// `SHF_*`.
    pub flags: u64,
    /// Holds ELF notes.
    pub notes: bool,
}

impl KernelSection {
    /// True when `addr` is inside.
    pub fn contains(&self, addr: u64) -> bool {
        addr.checked_sub(self.addr).is_some_and(|offset| offset < self.size)
    }
    /// The link-time addresses.
    pub fn range(&self) -> Range<u64> {
        self.addr..self.addr.saturating_add(self.size)
    }
    /// True for code.
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR.0 != 0
    }
    /// True for what is writable by its flags.
    pub fn is_writable(&self) -> bool {
        self.flags & SHF_WRITE.0 != 0
    }
    /// True for what of a module is writable until its init is over (`module_mark_ro_after_init`, kernel/module/main.c).
    pub fn is_sealed(&self) -> bool {
        self.is_writable() && matches!(self.name.as_str(), ".data..ro_after_init" | "__jump_table")
    }
}

/// True when `data` begins like any ELF file.
pub(super) fn is_elf(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF")
}

/// Copies out every section that occupies memory.
pub(super) fn sections(name: &str, data: &[u8]) -> Result<Vec<KernelSection>> {
    let not_kernel = |detail: String| Error::new(codes::LP1201, Place::object(name), detail);
    let bad = |e: object::read::Error| Error::new(codes::LP1205, Place::object(name), e.to_string());
    if data.get(4) != Some(&ELFCLASS64.0) || data.get(5) != Some(&ELFDATA2LSB.0) {
        return Err(not_kernel("an ELF file, but not 64-bit little endian".to_owned()));
    }
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(bad)?;
    let (machine, kind) = (header.e_machine(LE), header.e_type(LE));
    if machine != EM_X86_64 || kind != ET_EXEC {
        return Err(not_kernel(format!(
            "an ELF file of machine {} and type {}, not EM_X86_64 and ET_EXEC",
            machine.0, kind.0
        )));
    }
    let table = header.sections(LE, data).map_err(bad)?;
    let mut budget = Budget { left: MAX_LOADED };
    let mut out = Vec::new();
    for section in table.iter() {
        let flags = section.sh_flags(LE);
        if flags.0 & SHF_ALLOC.0 == 0 {
            continue;
        }
        let section_name = String::from_utf8_lossy(table.section_name(LE, section).map_err(bad)?).into_owned();
        let place = || Place::object(name).in_section(&section_name);
        let kind = section.sh_type(LE);
        budget.take(section.sh_addr(LE), section.sh_size(LE)).map_err(|e| Error::new(codes::LP1205, place(), e))?;
        let bytes = section.data(LE, data).map_err(|e| Error::new(codes::LP1205, place(), e.to_string()))?;
        out.push(KernelSection {
            addr: section.sh_addr(LE),
            size: section.sh_size(LE),
            data: if kind == SHT_NOBITS { Vec::new() } else { bytes.to_vec() },
            flags: flags.0,
            notes: kind == SHT_NOTE,
            name: section_name,
        });
    }
    if out.is_empty() {
        out = segments(name, header, data, &mut budget)?;
    }
    Ok(out)
}

/// What may still be loaded: sections that overlap must not multiply the file.
struct Budget {
    left: u64,
}

impl Budget {
    fn take(&mut self, addr: u64, size: u64) -> Result<(), String> {
        match (self.left.checked_sub(size), addr.checked_add(size)) {
            (Some(left), Some(_)) => {
                self.left = left;
                Ok(())
            }
            _ => Err(format!("{size:#x} bytes at {addr:#x} do not fit into the kernel's address range")),
        }
    }
}

/// The loaded segments, for images whose section table was stripped as well. What is behind a segment's bytes in the
/// file is a section of its own without data, and notes are found through PT_NOTE.
fn segments(
    name: &str,
    header: &FileHeader64<LittleEndian>,
    data: &[u8],
    budget: &mut Budget,
) -> Result<Vec<KernelSection>> {
    let bad = |detail: String| Error::new(codes::LP1205, Place::object(name), detail);
    let mut out = Vec::new();
    for (i, segment) in header.program_headers(LE, data).map_err(|e| bad(e.to_string()))?.iter().enumerate() {
        let kind = segment.p_type(LE);
        if kind != PT_LOAD && kind != PT_NOTE {
            continue;
        }
        budget.take(segment.p_vaddr(LE), segment.p_memsz(LE)).map_err(bad)?;
        let bytes = segment.data(LE, data).map_err(|()| bad(format!("segment {i} ends behind the file")))?;
        let (addr, filled) = (segment.p_vaddr(LE), segment.p_filesz(LE));
        let mut flags = SHF_ALLOC.0;
        for (segment_flag, section_flag) in [(PF_W, SHF_WRITE), (PF_X, SHF_EXECINSTR)] {
            if segment.p_flags(LE).0 & segment_flag.0 != 0 {
                flags |= section_flag.0;
            }
        }
        let section =
            |name: String, addr, size, data| KernelSection { name, addr, size, data, flags, notes: kind == PT_NOTE };
        out.push(section(format!("segment {i}"), addr, filled, bytes.to_vec()));
        if let (Some(behind), Some(size @ 1..)) = (addr.checked_add(filled), segment.p_memsz(LE).checked_sub(filled)) {
            out.push(section(format!("segment {i} (zero)"), behind, size, Vec::new()));
        }
    }
    if out.is_empty() { Err(bad("neither loaded sections nor loaded segments".to_owned())) } else { Ok(out) }
}

/// The GNU build id. The Xen notes of distribution kernels come before it.
pub(super) fn build_id(name: &str, sections: &[KernelSection]) -> Result<Vec<u8>> {
    sections
        .iter()
        .filter(|s| s.notes)
        .find_map(|s| find_build_id(&s.data))
        .ok_or_else(|| Error::new(codes::LP1206, Place::object(name), "none of its notes is NT_GNU_BUILD_ID"))
}

/// The GNU build id among ELF notes (also those of `/sys/kernel/notes`), when it is there and neither empty nor too long.
pub fn find_build_id(notes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = notes;
    loop {
        let (head, behind) = rest.split_first_chunk::<12>()?;
        let word = |at: usize| head.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
        let (name_len, desc_len, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let owner = behind.get(..name_len)?;
        let behind = behind.get(name_len.checked_next_multiple_of(4)?..)?;
        let description = behind.get(..desc_len)?;
        if owner == b"GNU\0" && kind == NT_GNU_BUILD_ID.0 {
            let fits = (1..=lpbuild_abi::MAX_BUILD_ID).contains(&desc_len);
            return fits.then(|| description.to_vec());
        }
        rest = behind.get(desc_len.checked_next_multiple_of(4)?..)?;
    }
}

/// `linux_banner`: from "Linux version RELEASE (" to the end of its line.
pub(super) fn banner(name: &str, sections: &[KernelSection]) -> Result<String> {
    const BANNER: &[u8] = b"Linux version ";
    for s in sections.iter().filter(|s| !s.is_code()) {
        for at in memchr_all(&s.data, BANNER) {
            let text = s.data.get(at..).unwrap_or_default();
            let end = text.iter().take(1024).position(|&c| c == b'\n' || c == 0);
            let line = end.and_then(|end| text.get(..end)).and_then(|l| std::str::from_utf8(l).ok());
            if let Some(line) = line
                && let Some(word) = release(line)
                && word.len() < 64
                && word.starts_with(|c: char| c.is_ascii_digit())
                && word.bytes().all(|c| c.is_ascii_graphic())
            {
                return Ok(line.to_owned());
            }
        }
    }
    Err(Error::new(codes::LP1207, Place::object(name), "there is no \"Linux version RELEASE (\" in its data"))
}

/// The release in a banner: the word behind "Linux version".
pub(super) fn release(banner: &str) -> Option<&str> {
    banner.split(' ').nth(2)
}

/// Every place of `needle` in `hay`.
pub(super) fn memchr_all<'d>(hay: &'d [u8], needle: &'d [u8]) -> impl Iterator<Item = usize> + 'd {
    memchr::memmem::find_iter(hay, needle)
}
