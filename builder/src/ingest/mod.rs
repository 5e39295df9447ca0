//! Bytes -> [`Image`]: the sections, symbols and relocations of one relocatable object, checked and in plain vectors.
//!
//! Refused (broken): anything but ELF64 little-endian `ET_REL` for x86-64; tables that point outside the file.

mod debug;
mod elf;

pub use debug::LineInfo;
pub use elf::read;
use object::elf as sys;

/// Index of a section in [`Image::sections`]; the same as in the file, so that diagnostics match `readelf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u32);

/// Index of a symbol in [`Image::symbols`]; the same as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u32);

/// One relocatable object.
#[derive(Debug)]
pub struct Image {
    /// Path relative to the tree, for diagnostics and the manifest.
    pub name: String,
    /// Section 0 is the null section.
    pub sections: Vec<Section>,
    /// Symbol 0 is the null symbol.
    pub symbols: Vec<Symbol>,
    /// Line table, when the object has debug information.
    pub line_info: LineInfo,
}

/// One section.
#[derive(Debug)]
pub struct Section {
    /// Name.
    pub name: String,
    /// `SHT_*`
    pub kind: u32,
    /// `SHF_*`
    pub flags: u64,
    /// Alignment in bytes, at least 1.
    pub align: u64,
    /// Entry size in bytes, 0 when there is none.
    pub entsize: u64,
    /// Size in bytes, also for `SHT_NOBITS`.
    pub size: u64,
    /// Contents; empty for `SHT_NOBITS`.
    pub data: Vec<u8>,
    /// Relocations that apply to this section, by offset.
    pub relocs: Vec<Reloc>,
}

/// One RELA entry.
#[derive(Clone, Copy, Debug)]
pub struct Reloc {
    /// Offset of the field in the section, in bytes.
    pub offset: u64,
    /// `R_X86_64_*`
    pub kind: u32,
    /// The symbol.
    pub symbol: SymbolId,
    /// The addend.
    pub addend: i64,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolPlace {
    /// Defined elsewhere.
    Undefined,
    /// A number.
    Absolute,
    /// A tentative definition (`-fcommon`), which the kernel does not use.
    Common,
    /// In a section of this object.
    Section(SectionId),
}

/// One symbol.
#[derive(Debug)]
pub struct Symbol {
    /// Name; empty for section symbols.
    pub name: String,
    /// Where it is defined.
    pub place: SymbolPlace,
    /// Offset in its section.
    pub value: u64,
    /// Size in bytes.
    pub size: u64,
    /// `STT_*`
    pub kind: u8,
    /// `STB_*`
    pub bind: u8,
}

impl Section {
    /// Is it part of the running image?
    pub fn is_alloc(&self) -> bool {
        self.flags & sys::SHF_ALLOC.0 != 0
    }
    /// Are its contents kept? Those of loaded sections, and of others that are not known to be for tools only: a linker script
    /// can collect what its flags leave out.
    pub fn is_kept(&self) -> bool {
        const TOOLS: &[&str] =
            &[".debug", ".zdebug", ".discard", ".comment", ".note", ".gnu", ".GCC", ".llvm", ".stab"];
        let contents = self.kind == sys::SHT_PROGBITS.0 && self.flags & sys::SHF_COMPRESSED.0 == 0;
        self.is_alloc() || contents && !TOOLS.iter().any(|t| self.name.starts_with(t))
    }
    /// Is it code?
    pub fn is_exec(&self) -> bool {
        self.flags & sys::SHF_EXECINSTR.0 != 0
    }
    /// Is it writable?
    pub fn is_write(&self) -> bool {
        self.flags & sys::SHF_WRITE.0 != 0
    }
    /// May the linker merge its entries with equal ones?
    pub fn is_merge(&self) -> bool {
        self.flags & sys::SHF_MERGE.0 != 0
    }
}
