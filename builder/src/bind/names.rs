//! What the image's own name table says about the symbols of an object.
//!
//! Input: the symbols of an old object, and kallsyms. Output: for each section the addresses that its names allow, and for
//! each undefined symbol the addresses it may have. Several names of one address and several addresses of one name are
//! both usual. A name the image does not list is of nothing that is where it lists all names: in code always, in data with
//! CONFIG_KALLSYMS_ALL. Elsewhere, and of the few names that no image lists, it says nothing. Nothing is refused here.

use std::ops::Range;

use object::elf;

use crate::ingest::{SectionId, SymbolPlace};
use crate::kernel::{IMAGE_BASE, KernelImage, KernelSymbol};
use crate::symbolize::{Class, Object};

/// What no image lists, by how it begins: scripts/mksysmap, `is_ignored_symbol` of scripts/kallsyms.c, and the absolute
/// symbols of arch/x86/kernel/vmlinux.lds.S, which both leave out.
const NEVER_LISTED: &[&str] =
    &["$", ".L", "__crc_", "__kstrtab", "__efistub_", "__kcfi_typeid_", "init_per_cpu__", "phys_startup_", "kallsyms_"];

/// A name of this length may be left out as too long (KSYM_NAME_LEN, 128 before 6.1).
const LONG: usize = 127;

/// The addresses the names of an object allow.
pub(super) struct Names<'k> {
    kernel: &'k KernelImage,
    /// Of each section: offset of a symbol, and every address the image lists for its name.
    sections: Vec<Vec<(u64, Vec<u64>)>>,
    /// The same of names that the image does not list, although it lists names like them.
    strange: Vec<Vec<(u64, String)>>,
    lists_data: bool,
    /// Where every name is listed.
    complete: Vec<Range<u64>>,
}

impl<'k> Names<'k> {
    pub(super) fn of(object: &Object, kernel: &'k KernelImage) -> Self {
        let lists_data = match kernel.module() {
            Some(module) => module.has_locals,
            None => kernel.kallsyms().iter().any(|s| matches!(s.kind, b'd' | b'D' | b'b' | b'B')),
        };
        let mut sections = vec![Vec::new(); object.image.sections.len()];
        let mut strange = vec![Vec::new(); object.image.sections.len()];
        for symbol in &object.image.symbols {
            let SymbolPlace::Section(id) = symbol.place else { continue };
            let marks = symbol.kind == elf::STT_SECTION.0 || symbol.kind == elf::STT_FILE.0;
            if marks || symbol.name.is_empty() {
                continue;
            }
            if !lists_data && !matches!(object.class(id), Class::Text(_)) {
                continue;
            }
            let percpu = object.class(id) == Class::Percpu;
            let named = kernel.kallsyms().named(&symbol.name).filter(|s| percpu || !s.is_percpu());
            let addresses: Vec<u64> = named.map(|s| s.addr).collect();
            if !addresses.is_empty() {
                // Another object may define a weak name, and this one then has none in the image.
                if symbol.bind != elf::STB_WEAK.0 {
                    sections[id.0 as usize].push((symbol.value, addresses));
                }
            } else if is_listed(&symbol.name) {
                strange[id.0 as usize].push((symbol.value, symbol.name.clone()));
            }
        }
        // Of two names of one place it is enough that the image lists one.
        for (strange, listed) in strange.iter_mut().zip(&sections) {
            strange.retain(|s| !listed.iter().any(|l| l.0 == s.0));
        }
        Self { kernel, sections, strange, lists_data, complete: complete(kernel, lists_data) }
    }

    /// Does the image list the names of data?
    pub(super) fn list_data(&self) -> bool {
        self.lists_data
    }

    /// Does the image list any name of the section?
    pub(super) fn know(&self, section: SectionId) -> bool {
        self.sections.get(section.0 as usize).is_some_and(|names| !names.is_empty())
    }

    /// Would every name of the section that the image lists be where it lists it, and nothing be called otherwise there?
    pub(super) fn allow(&self, section: SectionId, base: u64) -> bool {
        let names = self.sections.get(section.0 as usize).map_or(&[][..], Vec::as_slice);
        let strange = self.strange.get(section.0 as usize).map_or(&[][..], Vec::as_slice);
        names.iter().all(|(value, addresses)| addresses.contains(&base.wrapping_add(*value)))
            && strange.iter().all(|(value, name)| self.other_name(name, base.wrapping_add(*value)).is_none())
    }

    /// The name that the image has, with the section at this base, for what the object calls otherwise there.
    pub(super) fn called_otherwise(&self, section: SectionId, value: u64, base: u64) -> Option<&'k str> {
        let strange = self.strange.get(section.0 as usize)?.iter().filter(|s| s.0 == value);
        strange.filter_map(|(_, name)| self.other_name(name, base.wrapping_add(value))).next()
    }

    /// Does the image have something of another name where a reference into a section leads of which it lists no name? One
    /// that it lists has a place for all of the section. What the linker script puts anywhere (arch/x86/kernel/vmlinux.lds.S:
    /// `_sdata`, `__start_rodata`) is the name of nothing.
    pub(super) fn foreign(&self, object: &Object, section: SectionId, offset: i64, means: u64) -> bool {
        if self.know(section) || !self.complete.iter().any(|r| r.contains(&means)) {
            return false;
        }
        let here = self.kernel.kallsyms().at(means);
        // Behind its end is something else in any case.
        let inside = u64::try_from(offset).is_ok_and(|o| o < object.section(section).size);
        let place = SymbolPlace::Section(section);
        let own = |s: &KernelSymbol| {
            let mut names = object.image.symbols.iter().filter(|o| o.place == place && o.value as i64 == offset);
            names.any(|o| unnumbered(&o.name) == unnumbered(&s.name))
        };
        inside && here.iter().any(|s| s.is_local() || !s.name.starts_with('_')) && !here.iter().any(own)
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

    /// Can a symbol of a name that the image does not list be here? Not where it lists all names, nor where it lists another.
    pub(super) fn free(&self, name: &str, address: u64) -> bool {
        if is_listed(name) && self.complete.iter().any(|r| r.contains(&address)) {
            return false;
        }
        let here = self.kernel.kallsyms().at(address);
        address < IMAGE_BASE || !here.iter().any(|s| s.is_text() || self.lists_data)
    }

    /// The name that the image has here for what an object calls by one that the image does not have at all, although it lists
    /// all names of this place. What the compiler numbers is the same with another number.
    fn other_name(&self, name: &str, address: u64) -> Option<&'k str> {
        let here = self.kernel.kallsyms().at(address);
        let differs = self.complete.iter().any(|r| r.contains(&address))
            && here.iter().all(|s| unnumbered(&s.name) != unnumbered(name));
        here.first().filter(|_| differs).map(|s| &*s.name)
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

/// The ranges in which the image lists every name: those of `text_ranges` of scripts/kallsyms.c, and the image and the
/// per-CPU area where data is listed as well. A module has a symbol table like any object: all names, or without those of what is
/// local to one of its objects.
fn complete(kernel: &KernelImage, lists_data: bool) -> Vec<Range<u64>> {
    if let Some(module) = kernel.module() {
        return module.ranges.iter().filter(|_| module.has_locals).cloned().collect();
    }
    let one = |name: &str| kernel.kallsyms().named(name).map(|s| s.addr).next();
    let range = |from: &str, to: &str| Some(one(from)?..one(to)?);
    let data = || [range("_text", "_end"), range("__per_cpu_start", "__per_cpu_end")].into_iter().flatten();
    let code = [range("_stext", "_etext"), range("_sinittext", "_einittext")].into_iter().flatten();
    code.chain(lists_data.then(data).into_iter().flatten()).collect()
}

/// Is a name one that an image lists where it lists all?
fn is_listed(name: &str) -> bool {
    name.len() < LONG && !NEVER_LISTED.iter().any(|n| name.starts_with(n))
}

/// A name without what the compiler adds to it (`.N` of static locals and clones), and without the numbers of
/// `__UNIQUE_ID` (include/linux/compiler.h) and `BTF_ID` (include/linux/btf_ids.h).
fn unnumbered(name: &str) -> &str {
    let name = name.split_once('.').map_or(name, |n| n.0);
    let numbered = name.starts_with("__UNIQUE_ID_") || name.starts_with("__BTF_ID__");
    if numbered { name.trim_end_matches(|c: char| c.is_ascii_digit()) } else { name }
}
