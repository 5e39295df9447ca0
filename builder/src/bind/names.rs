//! What the image's own name table says about the symbols of an object.
//!
//! Input: the symbols of an old object, and kallsyms. Output: for each section the addresses that its names allow, and for
//! each undefined symbol the addresses it may have. Several names of one address and several addresses of one name are
//! both usual; a name kallsyms does not list says nothing (without CONFIG_KALLSYMS_ALL it lists no data, and
//! scripts/mksysmap leaves some names out). Nothing is refused here.

use object::elf;

use crate::ingest::{SectionId, SymbolPlace};
use crate::kernel::{IMAGE_BASE, KernelImage, KernelSymbol};
use crate::symbolize::{Class, Object};

/// The addresses the names of an object allow.
pub(super) struct Names<'k> {
    kernel: &'k KernelImage,
    /// Of each section: offset of a symbol, and every address the image lists for its name.
    sections: Vec<Vec<(u64, Vec<u64>)>>,
    lists_data: bool,
}

impl<'k> Names<'k> {
    pub(super) fn of(object: &Object, kernel: &'k KernelImage) -> Self {
        let lists_data = kernel.kallsyms().iter().any(|s| matches!(s.kind, b'd' | b'D' | b'b' | b'B'));
        let mut sections = vec![Vec::new(); object.image.sections.len()];
        for symbol in &object.image.symbols {
            let SymbolPlace::Section(id) = symbol.place else { continue };
            let marks = symbol.kind == elf::STT_SECTION.0 || symbol.kind == elf::STT_FILE.0;
            // Another object may define a weak name, and this one then has none in the image.
            if marks || symbol.name.is_empty() || symbol.bind == elf::STB_WEAK.0 {
                continue;
            }
            if !lists_data && !matches!(object.class(id), Class::Text(_)) {
                continue;
            }
            let percpu = object.class(id) == Class::Percpu;
            let named = kernel.kallsyms().named(&symbol.name).filter(|s| percpu || !s.is_percpu());
            let addresses: Vec<u64> = named.map(|s| s.addr).collect();
            if !addresses.is_empty() {
                sections[id.0 as usize].push((symbol.value, addresses));
            }
        }
        Self { kernel, sections, lists_data }
    }

    /// Does the image list the names of data?
    pub(super) fn list_data(&self) -> bool {
        self.lists_data
    }

    /// Does the image list any name of the section?
    pub(super) fn know(&self, section: SectionId) -> bool {
        self.sections.get(section.0 as usize).is_some_and(|names| !names.is_empty())
    }

    /// Would every name of the section that the image lists be where it lists it?
    pub(super) fn allow(&self, section: SectionId, base: u64) -> bool {
        let names = self.sections.get(section.0 as usize).map_or(&[][..], Vec::as_slice);
        names.iter().all(|(value, addresses)| addresses.contains(&base.wrapping_add(*value)))
    }

    /// A base that one of the section's names alone would allow.
    pub(super) fn one_of(&self, section: SectionId) -> Option<u64> {
        let (value, addresses) = self.sections.get(section.0 as usize)?.first()?;
        Some(addresses.first()?.wrapping_sub(*value))
    }

    /// Every address an undefined symbol of this name can have; empty when the image does not list it. A local symbol of
    /// another file is not meant where there is a global one.
    pub(super) fn addresses(&self, name: &str) -> Vec<u64> {
        let all: Vec<&KernelSymbol> = self.kernel.kallsyms().named(name).collect();
        let global = all.iter().any(|s| !s.is_local());
        all.iter().filter(|s| !global || !s.is_local()).map(|s| s.addr).collect()
    }

    /// Can a symbol that the image does not list be here? Not where it lists another one: all names of code are listed, and
    /// with CONFIG_KALLSYMS_ALL those of data.
    pub(super) fn free(&self, address: u64) -> bool {
        address < IMAGE_BASE || !self.kernel.kallsyms().at(address).iter().any(|s| s.is_text() || self.lists_data)
    }

    /// An address for people: what the image lists there.
    pub(super) fn describe(&self, address: u64) -> String {
        let here = self.kernel.kallsyms().at(address);
        if let Some(first) = here.first() {
            return format!("{} at {address:#x}", first.name);
        }
        match self.kernel.kallsyms().containing(address) {
            Some((s, distance)) if distance < 0x10_0000 => format!("{}+{distance:#x} at {address:#x}", s.name),
            _ => format!("{address:#x}"),
        }
    }
}
