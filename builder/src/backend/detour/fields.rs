//! The fields among the covered instructions whose bytes depend on where kernel and modules were loaded.
//!
//! KASLR moves the kernel as one piece: of its code only absolute addresses change. Every section of a module lies somewhere else each
//! time: every relocated field of it is another one, but where a section refers to itself.

use crate::bind::{Bound, IMAGE_BASE};
use crate::correlate::OldAtom;
use crate::isa::reloc;
use crate::kernel::module::is_in_area;
use crate::plan::{JumpSite, ObjectPair, Rule};
use crate::symbolize::RefKind;

/// A field of the covered bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LooseField {
    /// Offset in the covered bytes.
    pub at: usize,
    /// Width in bytes.
    pub width: usize,
    /// Type of the relocation.
    pub kind: u32,
    /// What the relocation says, symbol and addend, as kernel and module are linked.
    pub value: u64,
    /// What it is near to: an address by which the section can be told that is meant.
    pub symbol: u64,
}

impl LooseField {
    /// Is it known only when a module is here?
    pub fn is_late(&self) -> bool {
        is_in_area(self.symbol)
    }
    /// Does it count from where it is?
    pub fn is_relative(&self) -> bool {
        reloc::is_pc_relative(self.kind)
    }
}

/// All of them, of the function at `address`; `original` is what is expected at its site.
pub fn loose(
    bound: &Bound<'_>,
    pair: &ObjectPair,
    old: OldAtom,
    address: u64,
    site: &JumpSite,
    original: &[u8],
) -> Vec<LooseField> {
    let image = bound.running.image_at(address);
    let Some(facts) = image.module() else { return of_kernel(pair, old, site, original) };
    // The call of __fentry__ is a nop by then.
    if site.rule == Rule::OverFentry {
        return Vec::new();
    }
    let at = address.wrapping_add(site.offset.into());
    let own = image.part_at(address).map(|s| s.addr);
    let mut out = Vec::new();
    for f in facts.fields_in(at..at.saturating_add(site.size.into())) {
        let offset = (f.at - at) as usize;
        let Some(width) = reloc::width(f.kind).map(|w| w as usize).filter(|w| *w > 0) else { continue };
        let Some(value) = original.get(offset..offset + width).and_then(|field| number(field, f.kind)) else {
            continue;
        };
        let relative = reloc::is_pc_relative(f.kind);
        if relative && image.part_at(f.symbol).map(|s| s.addr) == own {
            continue;
        }
        let value = if relative { value.wrapping_add(f.at) } else { value };
        // Per-CPU offsets of the kernel, and nothing at all, do not move.
        if !relative && !is_in_area(f.symbol) && f.symbol < IMAGE_BASE {
            continue;
        }
        out.push(LooseField { at: offset, width, kind: f.kind, value, symbol: f.symbol });
    }
    out
}

fn of_kernel(pair: &ObjectPair, old: OldAtom, site: &JumpSite, original: &[u8]) -> Vec<LooseField> {
    let mut out = Vec::new();
    for r in &pair.old.atom(old.0).refs {
        let RefKind::Reloc(kind) = r.kind else { continue };
        let Some(at) = r.at.checked_sub(u64::from(site.offset)).map(|a| a as usize) else { continue };
        let width = usize::from(r.width);
        let Some(field) = original.get(at..at + width).filter(|_| !reloc::is_pc_relative(kind)) else { continue };
        let value = match *field {
            [a, b, c, d] if kind == reloc::ABS32S => i64::from(i32::from_le_bytes([a, b, c, d])) as u64,
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => continue,
        };
        // Per-CPU offsets are absolute and stay.
        if value >= IMAGE_BASE {
            out.push(LooseField { at, width, kind, value, symbol: value });
        }
    }
    out
}

fn number(field: &[u8], kind: u32) -> Option<u64> {
    match *field {
        [a, b, c, d] if kind == reloc::ABS32 => Some(u32::from_le_bytes([a, b, c, d]).into()),
        [a, b, c, d] => Some(i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}
