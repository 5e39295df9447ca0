//! Did a function change only because one that is inlined into it did?
//!
//! The first instruction that differs says which inlined function is concerned. That nothing else changed is only said when
//! the instructions outside of all inlined functions are the same, in the same order, with the fields of references blanked.

use super::Debug;
use crate::compare::first_difference;
use crate::correlate::{NewAtom, OldAtom};
use crate::debuginfo::Inlined;
use crate::plan::ObjectPair;
use crate::symbolize::{AtomId, Object};

/// In words, when the difference is in an inlined function on both sides.
pub fn explain(debug: Debug<'_, '_>, pair: &ObjectPair, old: (OldAtom, u64), new: (NewAtom, u64)) -> Option<String> {
    let (at_old, at_new) = first_difference(&pair.comparer(), old.0, new.0)?;
    let (a, b) = (debug.old.inlined_at(old.1 + at_old), debug.new.inlined_at(new.1 + at_new));
    // The innermost of those both builds have there.
    let there = a.iter().rev().find_map(|x| b.iter().rev().find(|y| y.name == x.name))?;
    let file = there.file.as_deref().unwrap_or("?");
    let only = own_code(debug.old.function_at(old.1)?.inlined, old.1, &pair.old, old.0.0)
        == own_code(debug.new.function_at(new.1)?.inlined, new.1, &pair.new, new.0.0);
    let how = if only { "changed only through" } else { "first difference in" };
    Some(format!("{how} {} ({file}), which is inlined into it", there.name))
}

/// Instructions that are in no inlined function.
fn own_code(inlined: Vec<Inlined>, address: u64, object: &Object, id: AtomId) -> Vec<Vec<u8>> {
    let atom = object.atom(id);
    let Some(code) = &atom.code else { return Vec::new() };
    let bytes = object.bytes(id);
    let outside = |at: u64| !inlined.iter().flat_map(|i| &i.ranges).any(|r| r.contains(&(address + at)));
    let mut refs = atom.refs.iter().peekable();
    let mut out = Vec::new();
    for insn in &code.insns {
        let (at, end) = (u64::from(insn.at), u64::from(insn.at) + u64::from(insn.len));
        let mut own = bytes.get(at as usize..end as usize).unwrap_or(&[]).to_vec();
        while let Some(r) = refs.next_if(|r| r.at < end) {
            if let Some(field) = own.get_mut((r.at - at) as usize..(r.at - at) as usize + usize::from(r.width)) {
                field.fill(0);
            }
        }
        if outside(at) {
            out.push(own);
        }
    }
    out
}
