//! Every function of the module that something may call or jump to through a pointer begins with ENDBR.
//!
//! With CONFIG_X86_KERNEL_IBT the CPU faults on an indirect branch to anything else (Intel SDM vol. 1, 17.3). Emulators do
//! not, so it is proven here, in the finished module: from every relocation that takes an address in its code, and every
//! `lea` the assembler has resolved itself. Input: the module. Output: what was found, LP4012.
//!
//! Not meant: fields of direct branches, tables that name instructions, labels inside functions.

use std::collections::{BTreeMap, BTreeSet};

use crate::isa::{Decoder, DecoderOptions, Mnemonic};
use goblin::elf::{
    Elf, Reloc,
    reloc::{R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32},
    section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS},
    sym::STT_FUNC,
};
use lpbuild_abi as abi;

use crate::codes;
use crate::error::{Place, Problem};

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Sections whose fields name instructions for the kernel to read or rewrite; nothing is called through them.
pub(super) const TABLES: &[&str] = &[
    ".altinstructions",
    ".orc_unwind_ip",
    ".retpoline_sites",
    ".return_sites",
    ".call_sites",
    ".ibt_endbr_seal",
    ".smp_locks",
    ".parainstructions",
    ".static_call_sites",
    "__bug_table",
    "__ex_table",
    "__jump_table",
    "__mcount_loc",
    "__patchable_function_entries",
    "_kprobe_blacklist",
    abi::SEC_PATCH,
    abi::SEC_FUNCS,
    abi::SEC_RANGES,
];

/// Section and offset.
pub(super) type Spot = (usize, u64);

struct Module<'a> {
    bytes: &'a [u8],
    elf: &'a Elf<'a>,
    /// Name and size of each function, by place.
    functions: BTreeMap<Spot, (&'a str, u64)>,
}

/// What lacks its ENDBR, or has one the kernel is told to remove. `more`: what else is reached indirectly, and by what.
pub(super) fn check(bytes: &[u8], elf: &Elf<'_>, name: &str, more: Vec<(Spot, String)>) -> Vec<Problem> {
    let m = Module::new(bytes, elf);
    let mut wanted: BTreeMap<Spot, String> = BTreeMap::new();
    for (place, by) in m.taken().into_iter().chain(more) {
        wanted.entry(place).or_insert(by);
    }
    let sealed: BTreeSet<Spot> = m.relocs(".ibt_endbr_seal").filter_map(|(_, r)| m.target(&r)).collect();
    let mut problems = Vec::new();
    for (place, by) in wanted {
        let (symbol, inside) = m.function_at(place);
        if inside {
            continue;
        }
        let what = if m.code(place.0).get(place.1 as usize..).is_none_or(|c| !c.starts_with(&ENDBR64)) {
            "it does not begin with ENDBR"
        } else if sealed.contains(&place) {
            "its ENDBR is listed in .ibt_endbr_seal, to be removed"
        } else {
            continue;
        };
        problems.push(Problem::new(codes::LP4012, Place::symbol(name, symbol), format!("{what}, and {by}")));
    }
    problems
}

impl<'a> Module<'a> {
    fn new(bytes: &'a [u8], elf: &'a Elf<'a>) -> Self {
        let named = elf.syms.iter().filter(|s| s.st_type() == STT_FUNC && s.st_shndx != 0);
        let functions = named
            .map(|s| ((s.st_shndx, s.st_value), (elf.strtab.get_at(s.st_name).unwrap_or(""), s.st_size)))
            .collect();
        Self { bytes, elf, functions }
    }

    fn name(&self, section: usize) -> &'a str {
        let header = self.elf.section_headers.get(section);
        header.and_then(|h| self.elf.shdr_strtab.get_at(h.sh_name)).unwrap_or("")
    }

    fn has(&self, section: usize, flag: u32) -> bool {
        self.elf.section_headers.get(section).is_some_and(|h| h.sh_flags & u64::from(flag) != 0)
    }

    /// Contents of a section; empty when it has none.
    fn code(&self, section: usize) -> &'a [u8] {
        let Some(h) = self.elf.section_headers.get(section).filter(|h| h.sh_type != SHT_NOBITS) else { return &[] };
        let start = usize::try_from(h.sh_offset).unwrap_or(usize::MAX);
        let end = usize::try_from(h.sh_size).ok().and_then(|size| start.checked_add(size)).unwrap_or(usize::MAX);
        self.bytes.get(start..end).unwrap_or(&[])
    }

    /// Relocations of all loaded sections of this name (of all of them for the empty name), with the section they apply to.
    fn relocs(&self, of: &str) -> impl Iterator<Item = (usize, Reloc)> {
        self.elf.shdr_relocs.iter().flat_map(move |(table, relocs)| {
            let section = self.elf.section_headers.get(*table).map_or(0, |h| h.sh_info as usize);
            let wanted = self.has(section, SHF_ALLOC) && (of.is_empty() || self.name(section) == of);
            relocs.iter().filter(move |_| wanted).map(move |r| (section, r))
        })
    }

    /// The place in this module's code a relocation leads to, without the bias of PC-relative fields of instructions.
    fn target(&self, r: &Reloc) -> Option<Spot> {
        let symbol = self.elf.syms.get(r.r_sym)?;
        if !self.has(symbol.st_shndx, SHF_EXECINSTR) {
            return None;
        }
        Some((symbol.st_shndx, symbol.st_value.wrapping_add_signed(r.r_addend.unwrap_or(0))))
    }

    /// The function a place is in, and whether it is behind its beginning.
    fn function_at(&self, place: Spot) -> (String, bool) {
        match self.functions.range(..=place).next_back() {
            Some((start, (name, _))) if *start == place => ((*name).to_owned(), false),
            Some((start, (name, size))) if start.0 == place.0 && place.1 < start.1 + size => ((*name).to_owned(), true),
            _ => (format!("{}+{:#x}", self.name(place.0), place.1), false),
        }
    }

    /// Every place whose address something takes, and what does.
    fn taken(&self) -> Vec<(Spot, String)> {
        let mut found = Vec::new();
        let mut fields = BTreeSet::new();
        for (section, r) in self.relocs("") {
            fields.insert((section, r.r_offset));
            let name = self.name(section);
            let Some(mut place) = self.target(&r).filter(|_| !TABLES.contains(&name)) else { continue };
            let relative = matches!(r.r_type, R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_PC64);
            if relative && self.has(section, SHF_EXECINSTR) {
                if is_branch(self.code(section), r.r_offset) {
                    continue;
                }
                // `lea`: nothing follows the displacement.
                place.1 = place.1.wrapping_add(4);
            }
            found.push((place, format!("{name}+{:#x} takes its address", r.r_offset)));
        }
        for (place, by) in self.resolved(&fields) {
            found.push((place, by));
        }
        found
    }

    /// `lea` of a place in the same section, for which the assembler needs no relocation.
    fn resolved(&self, fields: &BTreeSet<Spot>) -> Vec<(Spot, String)> {
        let mut found = Vec::new();
        for ((section, start), (name, size)) in &self.functions {
            let end = start.saturating_add(*size) as usize;
            let Some(code) = self.code(*section).get(*start as usize..end) else { continue };
            let mut decoder = Decoder::with_ip(64, code, *start, DecoderOptions::NONE);
            while decoder.can_decode() {
                let insn = decoder.decode();
                let field = decoder.get_constant_offsets(&insn).displacement_offset() as u64;
                let lea = insn.mnemonic() == Mnemonic::Lea && insn.is_ip_rel_memory_operand();
                if lea && !fields.contains(&(*section, insn.ip() + field)) {
                    let by = format!("{name}+{:#x} takes its address", insn.ip() - start);
                    found.push(((*section, insn.ip_rel_memory_address()), by));
                }
            }
        }
        found
    }
}

/// Is the PC-relative field at `offset` the operand of `call`, `jmp` or `jcc`? No other operand that counts from the
/// instruction follows these bytes: its ModRM byte would be 05, 0d, 15, .. 3d.
fn is_branch(code: &[u8], offset: u64) -> bool {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let before = |n: usize| at.checked_sub(n).and_then(|i| code.get(i)).copied();
    match (before(2), before(1)) {
        (_, Some(0xe8 | 0xe9)) => true,
        (Some(0x0f), Some(cc)) => (0x80..=0x8f).contains(&cc),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use object::write::{Object, Relocation, Symbol, SymbolId, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    };

    use super::super::{KernelSide, PatchFolder, Reread};
    use super::*;
    use crate::backend::detour::Runtime;
    use crate::plan::manifest::Jump;

    /// How `user`, at 0, refers to `taken`, at 32.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        Pointer,
        Lea,
        LeaWithoutRelocation,
        Immediate,
        Call,
        CallSites,
        ToLabel,
        /// The record of a patched function.
        Record,
    }

    /// A module in which `taken` begins with `entry`, and whether its ENDBR is listed to be removed.
    fn found(way: Way, entry: &[u8], sealed: bool, jump: Jump) -> Vec<&'static str> {
        let mut o = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = o.add_section(vec![], b".text".to_vec(), SectionKind::Text);
        let mut code = vec![0xcc; 64];
        let user: &[u8] = match way {
            Way::Lea => &[0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3],
            // From the end of the instruction, at 7, to 32.
            Way::LeaWithoutRelocation => &[0x48, 0x8d, 0x05, 25, 0, 0, 0, 0xc3],
            Way::Immediate => &[0x48, 0xc7, 0xc0, 0, 0, 0, 0, 0xc3],
            Way::Call => &[0x90, 0x90, 0xe8, 0, 0, 0, 0, 0xc3],
            Way::Pointer | Way::CallSites | Way::ToLabel | Way::Record => &[0xc3],
        };
        code[..user.len()].copy_from_slice(user);
        code[32..32 + entry.len()].copy_from_slice(entry);
        o.append_section_data(text, &code, 16);
        let function = |o: &mut Object<'_>, name: &str, value, size| {
            o.add_symbol(Symbol {
                name: name.into(),
                value,
                size,
                kind: SymbolKind::Text,
                scope: SymbolScope::Compilation,
                weak: false,
                section: SymbolSection::Section(text),
                flags: SymbolFlags::None,
            })
        };
        function(&mut o, "user", 0, 8);
        let taken = function(&mut o, "taken", 32, 16);
        let relocate = |o: &mut Object<'_>, section: &str, offset, symbol: SymbolId, addend, kind: u32| {
            let id = if section == ".text" {
                text
            } else {
                let id = o.add_section(vec![], section.into(), SectionKind::ReadOnlyData);
                o.append_section_data(id, &[0; size_of::<abi::FuncRecord>()], 8);
                id
            };
            let flags = RelocationFlags::Elf { r_type: object::elf::RelocationType(kind) };
            o.add_relocation(id, Relocation { offset, symbol, addend, flags }).unwrap();
        };
        let (abs64, pc32, abs32s) = (1, 2, 11);
        match way {
            Way::Pointer => relocate(&mut o, ".rodata", 0, taken, 0, abs64),
            Way::ToLabel => relocate(&mut o, ".rodata", 0, taken, 6, abs64),
            Way::Lea => relocate(&mut o, ".text", 3, taken, -4, pc32),
            Way::Immediate => relocate(&mut o, ".text", 3, taken, 0, abs32s),
            Way::Call => relocate(&mut o, ".text", 3, taken, -4, pc32),
            Way::CallSites => relocate(&mut o, ".call_sites", 0, taken, 0, pc32),
            Way::Record => relocate(&mut o, abi::SEC_FUNCS, 8, taken, 0, abs64),
            Way::LeaWithoutRelocation => {}
        }
        if sealed {
            relocate(&mut o, ".ibt_endbr_seal", 0, taken, 0, pc32);
        }
        let bytes = o.write().unwrap();
        let manifest =
            crate::plan::manifest::Manifest::parse(&super::super::tests::manifest(jump), "manifest.toml").unwrap();
        let kernel = manifest.kernel.clone().unwrap();
        let input = PatchFolder { manifest, manifest_text: String::new(), why: None, kernel, object: Vec::new() };
        let elf = Elf::parse(&bytes).unwrap();
        let more = Runtime::default().called_indirectly(&Reread::new(&bytes, &elf, "m.ko".into()), &input);
        let problems = check(&bytes, &elf, "m.ko", more);
        for p in &problems {
            assert_eq!(p.place.symbol.as_deref(), Some("taken"));
        }
        problems.iter().map(|p| p.code.id).collect()
    }

    #[test]
    fn whatever_is_called_through_a_pointer_needs_its_endbr() {
        for way in [Way::Pointer, Way::Lea, Way::LeaWithoutRelocation, Way::Immediate] {
            assert_eq!(found(way, &ENDBR64, false, Jump::Rel32), [""; 0], "{way:?}");
            assert_eq!(found(way, &[0x90; 4], false, Jump::Rel32), ["LP4012"], "{way:?} without ENDBR");
            assert_eq!(found(way, &ENDBR64, true, Jump::Rel32), ["LP4012"], "{way:?}, sealed");
        }
    }

    #[test]
    fn what_is_called_directly_or_only_listed_does_not() {
        for way in [Way::Call, Way::CallSites, Way::ToLabel, Way::Record] {
            assert_eq!(found(way, &[0x90; 4], false, Jump::Rel32), [""; 0], "{way:?}");
            assert_eq!(found(way, &ENDBR64, true, Jump::Rel32), [""; 0], "{way:?}, sealed");
        }
    }

    #[test]
    fn an_indirect_jump_at_a_site_wants_one_too() {
        assert_eq!(found(Way::Record, &ENDBR64, false, Jump::Abs64), [""; 0]);
        assert_eq!(found(Way::Record, &[0x90; 4], false, Jump::Abs64), ["LP4012"]);
    }
}
