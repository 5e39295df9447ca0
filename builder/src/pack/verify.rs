//! Reads the finished module again, with another ELF reader than the one that made its parts, and compares it with
//! the manifest, the exported symbols of the kernel and the rules of the module loader.
//!
//! Input: the module's bytes. Output: nothing. Refused: LP4007, LP4010, LP4011, LP4012 (`endbr`), LP4015, and what the back end finds
//! in its own sections, all findings at once.

use goblin::elf::{
    Elf,
    reloc::{
        R_X86_64_32, R_X86_64_32S, R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32, r_to_str,
    },
    section_header::{SHF_ALLOC, SHT_RELA},
    sym::STB_WEAK,
};
use lpbuild_abi as abi;

use super::{KernelSide, endbr, headers::Headers, input::PatchFolder, reader::Reread};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::symbolize::known_sections;

/// Checks everything; the error holds all problems found.
pub(super) fn verify(module: &[u8], input: &PatchFolder, headers: &Headers, side: &dyn KernelSide) -> Result<()> {
    let name = format!("{}.ko", input.manifest.patch.name);
    let elf = Elf::parse(module)
        .map_err(|e| Error::new(codes::LP4007, Place::object(&name), format!("goblin cannot read it: {e}")))?;
    let mut v = Reread::new(module, &elf, name);
    v.manifest(input);
    side.verify(&mut v, input);
    v.undefined(headers);
    v.relocations();
    v.init();
    v.formats();
    v.short_names();
    if headers.ibt {
        let found = endbr::check(module, &elf, &v.name, side.called_indirectly(&v, input));
        v.problems.extend(found);
    }
    if v.problems.is_empty() { Ok(()) } else { Err(Error { problems: v.problems }) }
}

impl Reread<'_> {
    fn manifest(&mut self, input: &PatchFolder) {
        let have = self.content(abi::SEC_MANIFEST);
        if have != input.manifest_text.as_bytes() {
            let place = self.place().in_section(abi::SEC_MANIFEST);
            self.problem(codes::LP4007, place, "the manifest in the module differs from the file");
        }
        // Folders of before do not have it.
        let have = self.section(abi::SEC_WHY).and_then(|(_, h)| self.bytes(h)).unwrap_or_default();
        if have != input.why.as_deref().unwrap_or_default() {
            let place = self.place().in_section(abi::SEC_WHY);
            self.problem(codes::LP4007, place, "why.json in the module differs from the file");
        }
    }

    fn undefined(&mut self, headers: &Headers) {
        // Index 0 is the null symbol.
        for sym in self.elf.syms.iter().skip(1).filter(|s| s.st_shndx == 0 && s.st_bind() != STB_WEAK) {
            let symbol = self.elf.strtab.get_at(sym.st_name).unwrap_or("");
            if !headers.exported.contains(symbol) {
                let place = Place::symbol(&self.name, symbol);
                self.problem(codes::LP4010, place, "not in Module.symvers");
            }
        }
    }

    /// The rules of `__apply_relocate_add` (arch/x86/kernel/module.c). It skips sections that are not loaded
    /// (`apply_relocations`, kernel/module/main.c).
    fn relocations(&mut self) {
        let elf = self.elf;
        for (i, relocs) in &elf.shdr_relocs {
            let Some(header) = elf.section_headers.get(*i) else { continue };
            let Some(target) = elf.section_headers.get(header.sh_info as usize) else { continue };
            if target.sh_flags & u64::from(SHF_ALLOC) == 0 {
                continue;
            }
            let section = self.section_name(target);
            if header.sh_type != SHT_RELA {
                let place = self.place().in_section(section);
                self.problem(codes::LP4011, place, "REL relocations; x86-64 modules have RELA");
                continue;
            }
            let bytes = self.bytes(target).unwrap_or(&[]);
            for r in relocs.iter() {
                let len = match r.r_type {
                    R_X86_64_NONE => 0,
                    R_X86_64_64 | R_X86_64_PC64 => 8,
                    R_X86_64_32 | R_X86_64_32S | R_X86_64_PC32 | R_X86_64_PLT32 => 4,
                    other => {
                        let place = self.place().in_section(section).at(r.r_offset);
                        self.problem(codes::LP4011, place, format!("type {}", r_to_str(other, elf.header.e_machine)));
                        continue;
                    }
                };
                let start = usize::try_from(r.r_offset).unwrap_or(usize::MAX);
                let field = start.checked_add(len).and_then(|end| bytes.get(start..end));
                if field.is_none_or(|f| f.iter().any(|&b| b != 0)) {
                    let place = self.place().in_section(section).at(r.r_offset);
                    self.problem(codes::LP4011, place, "the relocated field is not zero, or outside its section");
                }
            }
        }
    }
}

impl Reread<'_> {
    /// What the loader frees behind the module's init (`do_init_module`, kernel/module/main.c) is referred to by nothing that stays
    /// but the tables that the kernel is done with by then, or has cut (`ftrace_free_mem`); and by `mod->init`.
    fn init(&mut self) {
        let elf = self.elf;
        let is_init = |name: &str| name.starts_with(".init");
        for (i, relocs) in &elf.shdr_relocs {
            let from = elf.section_headers.get(*i).and_then(|h| elf.section_headers.get(h.sh_info as usize));
            let Some(from) = from.filter(|h| h.sh_flags & u64::from(SHF_ALLOC) != 0) else { continue };
            let name = self.section_name(from);
            if is_init(name) || name == known_sections::THIS_MODULE || endbr::TABLES.contains(&name) {
                continue;
            }
            for r in relocs.iter() {
                let Some(to) = self.target(&r) else { continue };
                if elf.section_headers.get(to.section).is_some_and(|h| is_init(self.section_name(h))) {
                    let place = self.place().in_section(name).at(r.r_offset);
                    let detail = format!("it refers to {}, which is freed when the module's init is over", to.symbol);
                    self.problem(codes::LP4007, place, detail);
                }
            }
        }
    }

    /// Formats of `trace_printk`: the loader reads the section as an array of addresses and follows each
    /// (kernel/trace/trace_printk.c, hold_module_trace_bprintk_format), so there must be no hole in it.
    fn formats(&mut self) {
        const NAME: &str = "__trace_printk_fmt";
        let Some((index, header)) = self.section(NAME) else { return };
        let place = || self.place().in_section(NAME);
        let word = |at: u64| self.relocation(index, at).is_some_and(|r| r.r_type == R_X86_64_64);
        let hole = (0..header.sh_size).step_by(8).find(|at| header.sh_size - at < 8 || !word(*at));
        let found = self.elf.section_headers.iter().filter(|h| self.section_name(h) == NAME).count();
        let problem = match hole {
            _ if found != 1 => Some((place(), format!("there are {found} of it, and the loader takes one"))),
            Some(at) => Some((place().at(at), "there is no address of a format".to_owned())),
            None => None,
        };
        if let Some((place, detail)) = problem {
            self.problem(codes::LP4007, place, detail);
        }
    }
}

/// KSYM_NAME_LEN (include/linux/kallsyms.h) of 6.1 and later, the NUL included.
const NAME_LIMIT: usize = 512;

impl Reread<'_> {
    /// What kallsyms will know of the module must fit its buffers.
    fn short_names(&mut self) {
        let elf = self.elf;
        for sym in elf.syms.iter().filter(|s| s.st_shndx != 0) {
            let symbol = elf.strtab.get_at(sym.st_name).unwrap_or("");
            if symbol.len() >= NAME_LIMIT {
                let beginning = symbol.get(..symbol.floor_char_boundary(100)).unwrap_or(symbol);
                let place = Place::symbol(&self.name, format!("{beginning}.."));
                self.problem(codes::LP4015, place, format!("has {} bytes", symbol.len()));
            }
        }
    }
}
