//! Do two patches mean the same?
//!
//! A patch brings a string along where it does not know the kernel's own, and then refers to itself instead of to the image.
//! Input: two patch objects and the image. Output: the first field or byte that means something else.

use std::collections::BTreeMap;

use anyhow::Result;
use lpbuild::kernel::KernelImage;

use super::elf::{At, Elf, Reloc, reloc};

/// Where a patch keeps the strings it brings along.
const STRINGS: &str = ".rodata.lpbuild";

/// What differs, in words; nothing when both mean the same.
pub fn difference(a: &[u8], b: &[u8], kernel: &KernelImage) -> Result<Option<String>> {
    let (a, b) = (Patch::of(a)?, Patch::of(b)?);
    let mut names: Vec<&String> = a.sections.keys().chain(b.sections.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        if let Some(what) = section(name, &a, &b, kernel) {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// One patch.
struct Patch {
    elf: Elf,
    /// The sections that count, by name.
    sections: BTreeMap<String, usize>,
}

impl Patch {
    fn of(bytes: &[u8]) -> Result<Self> {
        let elf = Elf::read(bytes.to_vec())?;
        let counts = |name: &str| {
            !name.is_empty() && !name.starts_with(STRINGS) && !name.starts_with(".rela") && !name.ends_with("tab")
        };
        let all = elf.sections.iter().enumerate().filter(|(_, s)| counts(&s.name) || s.name == "__bug_table");
        let sections = all.map(|(i, s)| (s.name.clone(), i)).collect();
        Ok(Self { elf, sections })
    }

    /// Name of what a field refers to: a section for what has no other.
    fn target(&self, r: &Reloc) -> &str {
        let symbol = &self.elf.symbols[r.symbol];
        match symbol.at {
            At::Section(s) if symbol.is_section() => &self.elf.sections[s].name,
            _ => &symbol.name,
        }
    }

    /// The text a field refers to, with so many bytes between the field and where it counts from.
    fn text<'k>(&'k self, r: &Reloc, bias: i64, kernel: &'k KernelImage) -> Option<&'k [u8]> {
        let symbol = &self.elf.symbols[r.symbol];
        let bytes = match symbol.at {
            At::Section(s) if self.elf.sections[s].name.starts_with(STRINGS) => {
                self.elf.data(s).get(usize::try_from(symbol.value as i64 + r.addend + bias).ok()?..)?
            }
            At::Undefined => {
                let place = kernel.kallsyms().named(&symbol.name).next()?.addr;
                let place = place.wrapping_add_signed(r.addend + bias);
                let section = kernel.section_at(place)?;
                section.data.get(usize::try_from(place - section.addr).ok()?..)?
            }
            _ => return None,
        };
        bytes.get(..bytes.iter().position(|b| *b == 0)?)
    }
}

/// Bytes between a field and where it counts from: none in a table, an immediate of up to four bytes in code.
const BIASES: &[i64] = &[0, 4, 5, 6, 8];

fn section(name: &str, a: &Patch, b: &Patch, kernel: &KernelImage) -> Option<String> {
    let (Some(&x), Some(&y)) = (a.sections.get(name), b.sections.get(name)) else {
        return Some(format!("one patch has no {name}"));
    };
    let (fields, others) = (&a.elf.sections[x].relocs, &b.elf.sections[y].relocs);
    if fields.len() != others.len() {
        return Some(format!("{name} has {} references and {}", fields.len(), others.len()));
    }
    let mut bytes = [a.elf.data(x).to_vec(), b.elf.data(y).to_vec()];
    for (r, o) in fields.iter().zip(others) {
        let same = (r.at, r.kind) == (o.at, o.kind)
            && ((a.target(r), r.addend) == (b.target(o), o.addend)
                || BIASES.iter().any(|bias| {
                    a.text(r, *bias, kernel).is_some_and(|t| !t.is_empty() && b.text(o, *bias, kernel) == Some(t))
                }));
        if !same {
            let (r_to, o_to) = (a.target(r), b.target(o));
            return Some(format!("{name}+{:#x}: {r_to}{:+#x} became {o_to}{:+#x}", r.at, r.addend, o.addend));
        }
        for bytes in &mut bytes {
            if let Some(field) = bytes.get_mut(r.at as usize..r.at as usize + reloc::width(r.kind)) {
                field.fill(0);
            }
        }
    }
    (bytes[0] != bytes[1]).then(|| format!("the bytes of {name} differ"))
}
