//! Pairs numbered data (and code chunks without a name) by where the functions refer to it.
//!
//! `__func__.12` of the old `dev_open` is `__func__.9` of the new one when it is the first `__func__` both refer to. Pairs
//! of functions that look alike go first, so that changed functions only decide what is left.

use std::collections::BTreeMap;

use super::{Level, NewAtom, OldAtom, Pairs};
use crate::symbolize::{AtomId, Class, Object, RefKind, Target};

/// Groups by name, as in the parent.
pub type KeyOf<'a> = &'a dyn Fn(&Object, AtomId) -> super::GroupKey;

/// Adds pairs on the rung [`Level::Reference`].
pub fn pair(old: &Object, new: &Object, key: KeyOf<'_>, pairs: &mut Pairs) {
    let mut functions: Vec<(OldAtom, NewAtom)> = pairs.iter().filter(|(o, _)| old.atom(o.0).is_code()).collect();
    let alike = |(o, n): &(OldAtom, NewAtom)| {
        let shape = |object: &Object, a: AtomId| (object.atom(a).size(), object.atom(a).refs.len());
        shape(old, o.0) == shape(new, n.0)
    };
    functions.sort_by_key(|p| (!alike(p), p.0));
    // Twice: chunks paired in the first round refer to data themselves.
    for _ in 0..2 {
        for (o, n) in &functions {
            let mut sides: BTreeMap<super::GroupKey, (Vec<AtomId>, Vec<AtomId>)> = BTreeMap::new();
            for a in appearances(old, o.0) {
                sides.entry(key(old, a)).or_default().0.push(a);
            }
            for a in appearances(new, n.0) {
                sides.entry(key(new, a)).or_default().1.push(a);
            }
            for (o, n) in sides.into_values().filter(|(o, n)| o.len() == n.len()) {
                let fits = o.iter().zip(&n).all(|(o, n)| {
                    let taken = pairs.new_of(OldAtom(*o)).is_some_and(|p| p.0 != *n)
                        || pairs.old_of(NewAtom(*n)).is_some_and(|p| p.0 != *o);
                    !taken && (old.atom(*o).is_code() || old.atom(*o).size() == new.atom(*n).size())
                });
                for (o, n) in o.into_iter().zip(n).filter(|_| fits) {
                    pairs.pair(OldAtom(o), NewAtom(n), Level::Reference);
                }
            }
        }
        let more: Vec<_> = pairs.iter().filter(|p| old.atom(p.0.0).is_code() && !functions.contains(p)).collect();
        functions = more;
    }
}

/// Atoms a function refers to, in the order of first reference, each once.
fn appearances(object: &Object, id: AtomId) -> Vec<AtomId> {
    let atom = object.atom(id);
    let own = atom.entries.iter().flat_map(|e| &object.entries[e.0 as usize].refs);
    let mut seen = Vec::new();
    for r in atom.refs.iter().chain(own) {
        let Target::Section(section, offset) = r.target else { continue };
        if r.kind == RefKind::Resolved {
            continue;
        }
        if let Some(m) = object.containing(section, offset).filter(|m| m.atom != id && !seen.contains(&m.atom)) {
            seen.push(m.atom);
        }
    }
    seen
}

/// Bytes that stand for the content of an atom: its own with reference fields blanked, then what they refer to by name or
/// by content. Line numbers of dynamic debug descriptors are blanked (include/linux/dynamic_debug.h, struct _ddebug).
pub fn signature(object: &Object, id: AtomId) -> Vec<u8> {
    let atom = object.atom(id);
    let mut out = object.bytes(id).to_vec();
    if out.is_empty() {
        out.extend_from_slice(&atom.size().to_le_bytes());
    }
    blank_line_number(&object.section(atom.section).name, &mut out);
    for r in &atom.refs {
        if let Some(field) = out.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
            field.fill(0);
        }
    }
    for r in &atom.refs {
        out.extend_from_slice(&r.at.to_le_bytes());
        match r.target {
            Target::Extern(s, addend) => {
                out.extend_from_slice(object.symbol_name(s).as_bytes());
                out.extend_from_slice(&addend.to_le_bytes());
            }
            Target::Section(s, offset) => match object.class(s) {
                Class::Strings | Class::Constants => {
                    out.extend_from_slice(object.constant_at(s, offset).unwrap_or(b"?"))
                }
                _ => {
                    if let Some(m) = object.containing(s, offset) {
                        out.extend_from_slice(super::base_name(&object.atom(m.atom).name).as_bytes());
                        out.extend_from_slice(&m.delta.to_le_bytes());
                    }
                }
            },
        }
    }
    out
}

/// `lineno:18` of struct _ddebug sits behind four pointers, in the low bits of a 32-bit word.
pub fn blank_line_number(section: &str, bytes: &mut [u8]) {
    if section != "__dyndbg" {
        return;
    }
    for entry in bytes.chunks_mut(56) {
        if let Some([a, b, c]) = entry.get_mut(32..35).and_then(|s| <&mut [u8; 3]>::try_from(s).ok()) {
            (*a, *b) = (0, 0);
            *c &= !3;
        }
    }
}
