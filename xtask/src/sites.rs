//! The lists objtool makes for C code, for the runtime's Rust: `.return_sites` and `.retpoline_sites`.
//!
//! The kernel rewrites every return and every indirect branch of a module to what the CPU needs, and finds them in these
//! lists (arch/x86/kernel/module.c, `apply_returns`, `apply_retpolines`). A return that is in none still goes through the
//! generic thunk, of which newer kernels complain once ("Unpatched return thunk in use").
//!
//! Input: the linked runtime. Output: the same object with the lists. An error: a reference to a thunk that is no branch.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, Relocation, SectionData, SectionId};
use object::elf;

/// Adds the lists to the object at `path`.
pub fn add(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut builder = Builder::read(bytes.as_slice())?;
    for (name, is_thunk) in LISTS {
        for (text, sites) in find(&builder, *is_thunk)? {
            list(&mut builder, name, text, &sites)?;
        }
    }
    builder.set_section_sizes();
    let mut out = Vec::new();
    builder.write(&mut out)?;
    fs::write(path, out).with_context(|| format!("write {}", path.display()))
}

type IsThunk = fn(&[u8]) -> bool;

const LISTS: &[(&str, IsThunk)] = &[
    (".return_sites", |name| name == b"__x86_return_thunk"),
    (".retpoline_sites", |name| name.starts_with(b"__x86_indirect_thunk_")),
];

/// Offsets of the branches to such thunks, by code section.
fn find(builder: &Builder<'_>, is_thunk: IsThunk) -> Result<Vec<(SectionId, Vec<u64>)>> {
    let mut found = Vec::new();
    for section in &builder.sections {
        let (SectionData::Relocation(relocations), Some(text)) = (&section.data, section.sh_info_section) else {
            continue;
        };
        let SectionData::Data(code) = &builder.sections.get(text).data else { continue };
        let mut sites = Vec::new();
        for r in relocations {
            let Some(symbol) = r.symbol.map(|s| builder.symbols.get(s)).filter(|s| is_thunk(&s.name)) else { continue };
            let at = usize::try_from(r.r_offset)?;
            let length = match code.get(at.saturating_sub(2)..at) {
                Some([_, 0xe8 | 0xe9]) => 1,
                Some([0x0f, 0x80..=0x8f]) => 2,
                _ => bail!("the reference to {} at {at:#x} is no branch", String::from_utf8_lossy(&symbol.name)),
            };
            sites.push(r.r_offset - length);
        }
        if !sites.is_empty() {
            found.push((text, sites));
        }
    }
    Ok(found)
}

/// A section of 4-byte distances to `sites` of the section `text`, and its relocations.
fn list(builder: &mut Builder<'_>, name: &str, text: SectionId, sites: &[u64]) -> Result<()> {
    let symbol = match builder.symbols.iter().find(|s| s.section == Some(text) && s.st_type() == elf::STT_SECTION) {
        Some(symbol) => symbol.id(),
        None => {
            let symbol = builder.symbols.add();
            symbol.section = Some(text);
            symbol.set_st_info(elf::STB_LOCAL, elf::STT_SECTION);
            symbol.id()
        }
    };
    let symtab = builder.sections.iter().find(|s| matches!(s.data, SectionData::Symbol));
    let symtab = symtab.context("the object has no symbol table")?.id();
    let section = builder.sections.add();
    section.name = name.as_bytes().to_vec().into();
    section.sh_type = elf::SHT_PROGBITS;
    section.sh_flags = elf::SHF_ALLOC;
    section.sh_addralign = 1;
    section.data = SectionData::Data(vec![0; sites.len() * 4].into());
    let own = section.id();
    let relocations = sites.iter().enumerate().map(|(i, site)| Relocation {
        r_offset: i as u64 * 4,
        symbol: Some(symbol),
        r_type: elf::R_X86_64_PC32,
        r_addend: *site as i64,
    });
    let section = builder.sections.add();
    section.name = format!(".rela{name}").into_bytes().into();
    section.sh_type = elf::SHT_RELA;
    section.sh_flags = elf::SHF_INFO_LINK;
    section.sh_addralign = 8;
    section.sh_entsize = 24;
    section.sh_info_section = Some(own);
    section.sh_link_section = Some(symtab);
    section.data = SectionData::Relocation(relocations.collect());
    Ok(())
}
