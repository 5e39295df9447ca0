//! A thin layer over `object::write` that knows how the kernel's module loader wants things.

use std::collections::HashMap;

use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};

use lpbuild_abi as abi;

use crate::isa::reloc;
use crate::plan::PairId;

/// A field that no relocation can fill, because what it refers to has no address before a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Of whose code or data the field is.
    pub pair: PairId,
    /// Section of the patch.
    pub section: SectionId,
    /// Where the field is there.
    pub offset: u64,
    /// What it holds.
    pub kind: abi::FieldKind,
    /// Something in the section that is meant, by its address in the image of the module.
    pub to: u64,
    /// What is meant, with what the kind of the field adds, less that address.
    pub addend: i64,
}

/// `patch.o` being written.
#[derive(Debug)]
pub struct Writer {
    lates: Vec<Late>,
    absent: Option<u64>,
    object: Object<'static>,
    sections: HashMap<String, SectionId>,
    externs: HashMap<String, SymbolId>,
    absolutes: HashMap<(String, u64), SymbolId>,
}

/// What a section is for; decides its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `ax`
    Code,
    /// `a`
    ReadOnly,
    /// `wa`
    Writable,
    /// `wa`, no contents
    Zeroed,
}

/// What a relocation counts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A section of the patch.
    Section(SectionId),
    /// An undefined symbol, resolved by the module loader.
    Extern(String),
    /// A number under a name: per-CPU offsets, which do not move with the image.
    Absolute(String, u64),
}

/// `ud2`
const UD2: [u8; 2] = [0x0f, 0x0b];

impl Writer {
    /// An empty object.
    pub(super) fn new() -> Self {
        let object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let (sections, externs, absolutes) = Default::default();
        Self { object, sections, externs, absolutes, lates: Vec::new(), absent: None }
    }

    /// The section `name`, made on first use.
    pub fn section(&mut self, name: &str, kind: Access) -> SectionId {
        if let Some(id) = self.sections.get(name) {
            return *id;
        }
        let (sort, flags, sh_type) = match kind {
            Access::Code => (SectionKind::Text, elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0, elf::SHT_PROGBITS),
            Access::ReadOnly => (SectionKind::ReadOnlyData, elf::SHF_ALLOC.0, elf::SHT_PROGBITS),
            Access::Writable => (SectionKind::Data, elf::SHF_ALLOC.0 | elf::SHF_WRITE.0, elf::SHT_PROGBITS),
            Access::Zeroed => (SectionKind::UninitializedData, elf::SHF_ALLOC.0 | elf::SHF_WRITE.0, elf::SHT_NOBITS),
        };
        let id = self.object.add_section(Vec::new(), name.as_bytes().to_vec(), sort);
        *self.object.section_flags_mut(id) = SectionFlags::Elf { sh_type, sh_flags: elf::SectionFlags(flags) };
        self.sections.insert(name.to_owned(), id);
        id
    }

    /// Appends bytes and returns their offset.
    pub fn append(&mut self, section: SectionId, bytes: &[u8], align: u64) -> u64 {
        self.object.append_section_data(section, bytes, align)
    }

    /// Appends zeroes to a section without contents.
    pub fn append_zeroed(&mut self, section: SectionId, size: u64, align: u64) -> u64 {
        self.object.append_section_bss(section, size, align)
    }

    /// Appends code; what lies before it up to the alignment is filled with int3.
    pub fn append_code(&mut self, section: SectionId, bytes: &[u8], align: u64) -> u64 {
        let at = self.object.section(section).data().len() as u64;
        let padding = at.next_multiple_of(align) - at;
        self.object.append_section_data(section, &vec![0xcc; padding as usize], 1);
        self.object.append_section_data(section, bytes, align)
    }

    /// Overwrites bytes that were appended before.
    pub fn patch(&mut self, section: SectionId, offset: u64, bytes: &[u8]) {
        let at = offset as usize;
        if let Some(place) = self.object.section_mut(section).data_mut().get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Bytes in the section so far.
    pub fn len(&self, section: SectionId) -> u64 {
        self.object.section(section).data().len() as u64
    }

    /// A section that has anything in it, and how much.
    pub fn extent(&mut self, name: &str) -> Option<(SectionId, u64)> {
        let id = *self.sections.get(name)?;
        let zeroed = self.object.section(id).is_bss();
        let size = if zeroed { self.append_zeroed(id, 0, 1) } else { self.len(id) };
        (size > 0).then_some((id, size))
    }

    /// A symbol of the patch.
    pub fn define(&mut self, name: &str, section: SectionId, value: u64, size: u64, function: bool, global: bool) {
        self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size,
            kind: if function { SymbolKind::Text } else { SymbolKind::Data },
            scope: if global { SymbolScope::Linkage } else { SymbolScope::Compilation },
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }

    /// A relocation of `kind` at `offset`: `base + addend`.
    pub fn relocate(&mut self, section: SectionId, offset: u64, kind: u32, base: &Base, addend: i64) {
        let symbol = match base {
            Base::Section(id) => self.object.section_symbol(*id),
            Base::Extern(name) => self.undefined(name),
            Base::Absolute(name, value) => self.absolute(name, *value),
        };
        let flags = RelocationFlags::Elf { r_type: elf::RelocationType(kind) };
        let done = self.object.add_relocation(section, Relocation { offset, symbol, addend, flags });
        debug_assert!(done.is_ok(), "ELF takes every relocation type");
    }

    /// A field that is filled in when a module is here. Until then a branch leads to [`abi::SYM_ABSENT`], by a relocation like any
    /// other: one that led to itself would lie in carried code, whose surroundings kernels with call depth tracking look at, and
    /// may write to (`patch_dest`, arch/x86/kernel/callthunks.c). Anything else holds zeroes.
    pub fn late(&mut self, late: Late) {
        if late.kind == abi::FieldKind::Plt32 {
            let (code, at) = self.absent();
            self.relocate(late.section, late.offset, reloc::PLT32, &Base::Section(code), (at as i64).wrapping_sub(4));
        }
        self.lates.push(late);
    }

    /// All of those so far.
    pub fn lates(&self) -> &[Late] {
        &self.lates
    }

    /// Keeps kprobes off a function of the patch: they work on a copy of the instruction, in which a field would stay as it was.
    pub fn no_kprobes(&mut self, section: SectionId, offset: u64) {
        let list = self.section("_kprobe_blacklist", Access::Writable);
        let at = self.append(list, &[0; 8], 8);
        self.pointer(list, at, &Base::Section(section), offset as i64);
    }

    /// Where branches lead before they lead anywhere.
    fn absent(&mut self) -> (SectionId, u64) {
        let code = self.section(abi::SEC_IMPORT, Access::Code);
        if let Some(at) = self.absent {
            return (code, at);
        }
        // Padding as before any function that is called (call depth tracking writes there).
        self.append_code(code, &[0x90; 16], 16);
        let at = self.append_code(code, &UD2, 16);
        self.define(abi::SYM_ABSENT, code, at, UD2.len() as u64, true, false);
        self.absent = Some(at);
        (code, at)
    }

    /// An 8-byte pointer.
    pub fn pointer(&mut self, section: SectionId, offset: u64, base: &Base, addend: i64) {
        self.relocate(section, offset, reloc::ABS64, base, addend);
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        if let Some(id) = self.externs.get(name) {
            return *id;
        }
        let id = self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        self.externs.insert(name.to_owned(), id);
        id
    }

    fn absolute(&mut self, name: &str, value: u64) -> SymbolId {
        if let Some(id) = self.absolutes.get(&(name.to_owned(), value)) {
            return *id;
        }
        let id = self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: 0,
            kind: SymbolKind::Data,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Absolute,
            flags: SymbolFlags::None,
        });
        self.absolutes.insert((name.to_owned(), value), id);
        id
    }

    /// The finished file.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        self.object.write().map_err(|e| e.to_string())
    }
}
