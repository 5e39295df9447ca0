//! Pairs what has names of its own. Every name of an atom counts: an alias may stand for it in one build and not in the other,
//! and an alias that moved must not take its function along.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::{Level, NewAtom, OldAtom, Pairs, content, is_loose, kind_of};
use crate::symbolize::{AtomId, Object};

/// Which atoms of the other side have a name of this one.
type Links = BTreeMap<AtomId, BTreeSet<AtomId>>;

/// Adds pairs on the rung [`Level::Name`].
pub fn pair(old: &Object, new: &Object, pairs: &mut Pairs) {
    let (mut forth, mut back) = links(old, new);
    let sole: Vec<(AtomId, AtomId)> = forth
        .iter()
        .filter_map(|(o, found)| {
            let n = only(found)?;
            (back.get(&n).and_then(only) == Some(*o)).then_some((*o, n))
        })
        .collect();
    for (o, n) in sole {
        forth.remove(&o);
        back.remove(&n);
        pairs.pair(OldAtom(o), NewAtom(n), Level::Name);
    }
    // Names that moved: the content says which is which, then what is left for one that only one can be.
    by_content(old, new, &forth, &back, pairs);
    loop {
        forth.retain(|o, _| pairs.new_of(OldAtom(*o)).is_none());
        back.retain(|n, _| pairs.old_of(NewAtom(*n)).is_none());
        forth.values_mut().for_each(|found| found.retain(|n| back.contains_key(n)));
        back.values_mut().for_each(|found| found.retain(|o| forth.contains_key(o)));
        let Some((o, n)) = forced(&forth, &back) else { return };
        pairs.pair(OldAtom(o), NewAtom(n), Level::Name);
    }
}

/// What shares a name. What the compiler numbered and what has no name is left out.
fn links(old: &Object, new: &Object) -> (Links, Links) {
    let mut names: FxHashMap<&str, AtomId> = FxHashMap::with_capacity_and_hasher(new.atoms.len(), Default::default());
    for atom in new.atoms.iter().filter(|a| !is_loose(new, a.id)) {
        for name in atom.names() {
            names.entry(name).or_insert(atom.id);
        }
    }
    let (mut forth, mut back) = (Links::new(), Links::new());
    for atom in old.atoms.iter().filter(|a| !is_loose(old, a.id)) {
        for name in atom.names() {
            let Some(n) = names.get(name).filter(|n| kind_of(old, atom.id) == kind_of(new, **n)) else { continue };
            forth.entry(atom.id).or_default().insert(*n);
            back.entry(*n).or_default().insert(atom.id);
        }
    }
    (forth, back)
}

fn only(set: &BTreeSet<AtomId>) -> Option<AtomId> {
    set.first().copied().filter(|_| set.len() == 1)
}

fn by_content(old: &Object, new: &Object, forth: &Links, back: &Links, pairs: &mut Pairs) {
    let of = |object: &Object, links: &Links| -> FxHashMap<AtomId, Vec<u8>> {
        links.keys().map(|a| (*a, content::signature(object, *a))).collect()
    };
    let (a, b) = (of(old, forth), of(new, back));
    for (o, found) in forth {
        let mut same = found.iter().filter(|n| b.get(n) == a.get(o));
        let (Some(n), None) = (same.next(), same.next()) else { continue };
        if back.get(n).is_some_and(|olds| olds.iter().filter(|x| a.get(x) == a.get(o)).count() == 1) {
            pairs.pair(OldAtom(*o), NewAtom(*n), Level::Name);
        }
    }
}

/// Something that can be only one on the other side, which nothing else needs.
fn forced(forth: &Links, back: &Links) -> Option<(AtomId, AtomId)> {
    let needed = |links: &Links, what: AtomId, by: AtomId| {
        links.iter().any(|(other, found)| *other != by && only(found) == Some(what))
    };
    let o = forth.iter().find_map(|(o, found)| only(found).filter(|n| !needed(forth, *n, *o)).map(|n| (*o, n)));
    o.or_else(|| back.iter().find_map(|(n, found)| only(found).filter(|o| !needed(back, *o, *n)).map(|o| (o, *n))))
}
