//! Records of constants that change in their place, and what is expected there.
//!
//! The kernel moves as one piece when it boots, so absolute addresses among the expected bytes are others than in the image: they get the
//! same relocations as the kernel's own, as the bytes expected at a site.

use lpbuild_abi as abi;

use super::records::c_string;
use crate::bind::{Bound, IMAGE_BASE};
use crate::codes;
use crate::correlate::OldAtom;
use crate::emit::{Access, Base, Layout, Writer};
use crate::error::{Place, Problem, Result};
use crate::isa::reloc;
use crate::plan::{Analysis, Item, ObjectPair, Role};
use crate::symbolize::RefKind;

/// Writes all of them behind the new contents, by object and symbol; what they say, for the digest.
pub fn write<'a>(
    w: &mut Writer,
    analysis: &'a Analysis,
    bound: &Bound<'_>,
    layout: &Layout,
) -> Result<Vec<(abi::DataRecord, &'a [u8])>> {
    let of = |item: &'a Item| match item.role {
        Role::InPlace(old) => Some((item, &analysis.pairs[item.pair.0 as usize], old)),
        _ => None,
    };
    let mut all: Vec<(&Item, &ObjectPair, OldAtom)> = analysis.set.items.iter().filter_map(of).collect();
    all.sort_by_key(|(_, pair, old)| (&pair.name, &pair.old.atom(old.0).name));
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let data = w.section(abi::SEC_DATA, Access::ReadOnly);
    let strings = w.section(abi::SEC_STRINGS, Access::ReadOnly);
    let anchor = Base::Extern(bound.holder.anchor.symbol.into());
    let mut written = Vec::new();
    for (item, pair, old) in &all {
        let atom = pair.old.atom(old.0);
        let lost = || Problem::new(codes::LP1000, Place::symbol(&pair.name, &atom.name), "its place was not found");
        let address = bound.old_address(item.pair, *old).ok_or_else(lost)?;
        let content = bound.read(address, atom.size() as usize).ok_or_else(lost)?;
        let expected = w.append(data, content, 8);
        for r in &atom.refs {
            let RefKind::Reloc(kind) = r.kind else { continue };
            let Some(value) = absolute(content, r.at, kind) else { continue };
            w.patch(data, expected + r.at, &vec![0; usize::from(r.width)]);
            w.relocate(data, expected + r.at, kind, &anchor, bound.holder.anchored(value));
        }
        let name = c_string(w, strings, &atom.name);
        let new = layout.items[&(item.pair, item.atom)].offset;
        written.push((address, expected, new, name, atom));
    }
    let start = w.append(data, &vec![0; written.len() * size_of::<abi::DataRecord>()], 8);
    let mut said = Vec::new();
    for (i, (address, expected, new, name, atom)) in written.into_iter().enumerate() {
        let at = start + (i * size_of::<abi::DataRecord>()) as u64;
        let len = atom.size() as u32;
        w.pointer(data, at, &anchor, bound.holder.anchored(address));
        w.pointer(data, at + 8, &Base::Section(data), expected as i64);
        w.pointer(data, at + 16, &Base::Section(data), new as i64);
        w.pointer(data, at + 24, &Base::Section(strings), name as i64);
        w.patch(data, at + 32, &len.to_le_bytes());
        // Of these two only the distance from the first record counts.
        let from_records = |offset: u64| offset.wrapping_sub(start);
        let (old, new) = (from_records(expected), from_records(new));
        said.push((abi::DataRecord { addr: address, old, new, name: 0, len, zero: 0 }, atom.name.as_bytes()));
    }
    Ok(said)
}

/// The records of a section that has all contents and, behind them, `n` records begin there.
pub fn records_at(section_len: u64, n: u32) -> Option<u64> {
    section_len.checked_sub(u64::from(n) * size_of::<abi::DataRecord>() as u64)
}

/// What a field holds that moves with the kernel. Per-CPU offsets do not.
fn absolute(content: &[u8], at: u64, kind: u32) -> Option<u64> {
    if reloc::is_pc_relative(kind) {
        return None;
    }
    let from = content.get(at as usize..)?;
    let value = match kind {
        reloc::ABS64 => u64::from_le_bytes(*from.first_chunk()?),
        reloc::ABS32S => i64::from(i32::from_le_bytes(*from.first_chunk()?)).cast_unsigned(),
        _ => return None,
    };
    (value >= IMAGE_BASE).then_some(value)
}
