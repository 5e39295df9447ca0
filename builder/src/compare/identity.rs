//! May a constant be carried as a copy? Only where nobody can tell the copy from the original.
//!
//! Old code that stays goes on using the old constant, and what the kernel has stored of its address leads there. Where the
//! address is stored, passed on, returned or compared, old and new would not agree: a file opened before has the old
//! operations, so that `file->f_op == &new_fops` fails, and one opened while the patch is applied keeps an address of the
//! module. So every use of the address, in both objects, must be a read through it.

use std::collections::BTreeSet;

use super::Comparer;
use super::data::is_global;
use crate::correlate::{NewAtom, OldAtom};
use crate::symbolize::{AtomId, AtomKind, Class, Object, Ref, Target};
use crate::uses::{self, AddressUse, Found};

/// Uses that are named; there may be more.
const NAMED: usize = 3;

/// What else is done with the address than reading through it, in words; of the old constant and of the new one.
pub fn matters(c: &Comparer<'_>, o: Option<OldAtom>, n: Option<NewAtom>) -> Option<String> {
    let old = o.map(|o| (c.old, uses::of_data(c.old, o.0)));
    let new = n.map(|n| (c.new, uses::of_data(c.new, n.0)));
    let mut texts: Vec<(u8, String)> = Vec::new();
    for (object, found) in old.iter().chain(&new) {
        for f in found.iter().filter(|f| !f.is_read()) {
            let text = f.text(object);
            if !texts.iter().any(|(_, t)| *t == text) {
                texts.push((rank(f), text));
            }
        }
    }
    texts.sort_by_key(|t| t.0);
    let more = texts.len().saturating_sub(NAMED);
    let mut named: Vec<String> = texts.into_iter().take(NAMED).map(|t| t.1).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

/// The most telling use first.
fn rank(f: &Found) -> u8 {
    match f.what {
        AddressUse::Stored(_) => 0,
        AddressUse::Compared => 1,
        AddressUse::Passed { .. } | AddressUse::Left { .. } => 2,
        AddressUse::Returned => 3,
        AddressUse::Unknown(_) => 4,
        AddressUse::Read | AddressUse::Copied(_) | AddressUse::Written => 5,
    }
}

/// Data that refers to `id`.
pub fn pointed_to_by(object: &Object, id: AtomId) -> BTreeSet<AtomId> {
    let atom = object.atom(id);
    // A reference around the object may be meant for it as well: certain() says.
    let (from, to) = (atom.start as i64 - BIAS, atom.end as i64 + BIAS);
    let pointers = object.incoming(atom.section, from, to).iter().filter(|i| !object.atom(i.from).is_code());
    pointers.filter(|i| object.certain(i.section, i.to).iter().any(|m| m.atom == id)).map(|i| i.from).collect()
}

/// How far from an object a pointer that means it may point, in bytes.
pub const BIAS: i64 = 4096;

/// Is it a constant of one file?
pub fn is_local_constant(object: &Object, id: AtomId) -> bool {
    object.class_of(id) == Class::Rodata && !is_global(object, id)
}

/// Data that is no constant of one file, and points to `id` or to a constant that does: it keeps the old one.
pub fn kept_by(object: &Object, id: AtomId) -> Option<AtomId> {
    let (mut seen, mut waiting) = (BTreeSet::from([id]), vec![id]);
    while let Some(next) = waiting.pop() {
        for by in pointed_to_by(object, next) {
            if !is_local_constant(object, by) {
                return Some(by);
            }
            if seen.insert(by) {
                waiting.push(by);
            }
        }
    }
    None
}

/// Does a reference mean one of these?
pub fn refers_to(object: &Object, r: &Ref, set: &BTreeSet<NewAtom>) -> bool {
    let Target::Section(s, o) = r.target else { return false };
    object.certain(s, o).iter().any(|m| set.contains(&NewAtom(m.atom)))
}

/// New constants in the place of ones that are gone, where the new code compares the address: what the kernel has stored is
/// the address of the old one. With the comparison, in words.
pub fn renamed(c: &Comparer<'_>) -> Vec<(NewAtom, String)> {
    let named = |object: &Object, id: AtomId| object.atom(id).kind == AtomKind::Data && is_local_constant(object, id);
    let gone: Vec<AtomId> = c.old.atoms.iter().map(|a| a.id).collect();
    let gone = gone.into_iter().filter(|id| named(c.old, *id) && c.pairs.new_of(OldAtom(*id)).is_none());
    let gone: Vec<AtomId> = gone.filter(|id| matters(c, Some(OldAtom(*id)), None).is_some()).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    let new = c.new.atoms.iter().filter(|a| named(c.new, a.id) && c.pairs.old_of(NewAtom(a.id)).is_none());
    new.filter_map(|a| {
        // One of the same kind, if there is one; a member more makes another size.
        let alike = gone.iter().find(|id| c.old.atom(**id).size() == a.size());
        let before = alike.or(gone.first())?;
        let compared = uses::of_data(c.new, a.id).into_iter().find(|f| f.what == AddressUse::Compared)?;
        let what = format!(
            "it is new, and {}; what the kernel holds is at most the address of {}",
            compared.text(c.new),
            c.old.atom(*before).name
        );
        Some((NewAtom(a.id), what))
    })
    .collect()
}
