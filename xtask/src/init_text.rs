//! Which functions of the runtime run in the module's init alone: the loader gives their memory back when that has returned.
//!
//! Input: the runtime with a section for each function, the beginning of its entry points' names, and those entry points that only
//! the C half's `__init` functions call.
//! Output: names of the sections that make `.init.text`: what nothing but those entry points can reach. So no other code leads
//! into memory that is gone. What stays as well is every function whose address is taken, for nobody can say who calls that, and
//! all data. That the C half calls those entry points from init alone is checked in the finished module (`builder/src/pack/verify.rs`).

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionKind, elf};

/// Sections of `object` that only `entries` reach.
pub fn find(object: &[u8], prefix: &str, entries: &[&str]) -> Result<Vec<String>> {
    let file = object::File::parse(object)?;
    let mut names = Vec::new();
    let mut reached = HashMap::new();
    let mut stays = HashSet::new();
    for symbol in file.symbols().filter(|s| s.is_global() && s.is_definition()) {
        let name = symbol.name()?;
        if name.starts_with(prefix) && !entries.contains(&name) {
            stays.insert(symbol.section_index().with_context(|| format!("{name} is in no section"))?);
        }
    }
    for name in entries {
        let symbol = file.symbol_by_name(name).filter(|s| s.is_definition());
        symbol.with_context(|| format!("the runtime has no {name}"))?;
    }
    for section in file.sections() {
        let (code, is_code) = (section.data()?, section.kind() == SectionKind::Text);
        if is_code {
            names.push((section.index(), section.name()?.to_owned()));
        } else {
            stays.insert(section.index());
        }
        for (at, r) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = r.target() else { bail!("a relocation without a symbol") };
            let Some(target) = file.symbol_by_index(symbol)?.section_index() else { continue };
            if is_code && is_branch(code, at, r.flags()) {
                reached.entry(section.index()).or_insert_with(HashSet::new).insert(target);
            } else {
                stays.insert(target);
            }
        }
    }
    let mut new: Vec<_> = stays.iter().copied().collect();
    while let Some(section) = new.pop() {
        new.extend(reached.get(&section).into_iter().flatten().copied().filter(|s| stays.insert(*s)));
    }
    Ok(names.into_iter().filter(|(section, _)| !stays.contains(section)).map(|(_, name)| name).collect())
}

/// Whether the field at `at` is that of a direct call or jump.
fn is_branch(code: &[u8], at: u64, flags: RelocationFlags) -> bool {
    let RelocationFlags::Elf { r_type: elf::R_X86_64_PLT32 | elf::R_X86_64_PC32 } = flags else { return false };
    let Ok(at) = usize::try_from(at) else { return false };
    match code.get(at.saturating_sub(2)..at) {
        Some([0x0f, 0x80..=0x8f]) => true,
        // `e8` and `e9` are no ModRM bytes of a field that is relative to the next instruction.
        Some([_, 0xe8 | 0xe9]) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use object::write::{Object, Relocation, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

    use super::*;

    /// Functions, each of them in a section of its own, that refer to each other: by a call, or by a pointer.
    fn names(functions: &[&str], refer: &[(&str, &str, u8)]) -> Vec<String> {
        let mut o = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let made: HashMap<&str, _> = functions
            .iter()
            .map(|name| {
                let kind = if name.starts_with("data") { SectionKind::Data } else { SectionKind::Text };
                let section = o.add_section(vec![], format!(".text.{name}").into_bytes(), kind);
                let symbol = o.add_symbol(Symbol {
                    name: name.as_bytes().to_vec(),
                    value: 0,
                    size: 0,
                    kind: SymbolKind::Text,
                    scope: SymbolScope::Linkage,
                    weak: false,
                    section: SymbolSection::Section(section),
                    flags: SymbolFlags::None,
                });
                (*name, (section, symbol))
            })
            .collect();
        for (from, to, opcode) in refer {
            let at = o.append_section_data(made[from].0, &[0x90, *opcode, 0, 0, 0, 0], 1) + 2;
            let r_type = if *opcode == 0xb8 { elf::R_X86_64_32S } else { elf::R_X86_64_PLT32 };
            let flags = RelocationFlags::Elf { r_type };
            o.add_relocation(made[from].0, Relocation { offset: at, symbol: made[to].1, addend: -4, flags }).unwrap();
        }
        let mut found = find(&o.write().unwrap(), "entry_", &["entry_init"]).unwrap();
        found.sort();
        found
    }

    #[test]
    fn what_init_alone_reaches() {
        const ALL: &[&str] = &["entry_init", "entry_other", "a", "b", "both", "taken", "data"];
        const CALLS: &[(&str, &str, u8)] =
            &[("entry_init", "a", 0xe8), ("a", "b", 0xe9), ("a", "both", 0xe8), ("entry_other", "both", 0xe8)];
        assert_eq!(names(ALL, CALLS), [".text.a", ".text.b", ".text.entry_init", ".text.taken"]);
        let with = |more: (&'static str, &'static str, u8)| names(ALL, &[CALLS, &[more]].concat());
        // Somebody may call it later, whoever has the pointer.
        assert_eq!(with(("a", "taken", 0xb8)), [".text.a", ".text.b", ".text.entry_init"]);
        assert_eq!(with(("data", "taken", 0xb8)), [".text.a", ".text.b", ".text.entry_init"]);
        assert_eq!(with(("both", "b", 0xe9)), [".text.a", ".text.entry_init", ".text.taken"]);
        assert_eq!(with(("both", "entry_init", 0xe8)), [".text.taken"]);
    }

    #[test]
    fn an_entry_that_is_not_there() {
        let o = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little).write().unwrap();
        assert!(find(&o, "entry_", &["entry_init"]).is_err());
    }
}
