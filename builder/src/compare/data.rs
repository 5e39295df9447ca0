//! Compares data. Existing data is live: a live patch cannot give it another content, size or meaning.

use std::collections::BTreeSet;

use super::targets::{Comparer, certain};
use super::{Ignored, Verdicts};
use crate::correlate::{NewAtom, OldAtom, base_name};
use crate::error::{Place, Problem};
use crate::symbolize::{AtomId, AtomKind, Class, Object, Ref, Target};

/// Fills the data part of the verdicts.
pub fn compare_data(c: &Comparer<'_>, v: &mut Verdicts) {
    let mut changed: BTreeSet<NewAtom> = BTreeSet::new();
    for (o, n) in c.pairs.open() {
        if c.new.atom(n.0).is_code() {
            continue;
        }
        let Some(what) = difference(c, o, n) else { continue };
        changed.insert(n);
        judge(c, o, n, &what, v);
    }
    // A constant that refers to a changed constant is another constant.
    while !v.changed_constants.is_empty() {
        let more: Vec<NewAtom> = c
            .new
            .atoms
            .iter()
            .filter(|a| !a.is_code() && c.new.class(a.section) == Class::Rodata)
            .map(|a| NewAtom(a.id))
            .filter(|n| !v.changed_constants.contains(n) && c.pairs.old_of(*n).is_some())
            .filter(|n| c.new.atom(n.0).refs.iter().any(|r| refers_to(c.new, r, &v.changed_constants)))
            .collect();
        if more.is_empty() {
            break;
        }
        v.changed_constants.extend(more);
    }
    for atom in c.new.atoms.iter().filter(|a| !a.is_code() && c.pairs.old_of(NewAtom(a.id)).is_none()) {
        let place = Place::symbol(&c.new.image.name, &atom.name).in_section(&c.new.section(atom.section).name);
        match c.new.class(atom.section) {
            Class::Registered if !c.pairs.ambiguous.contains(&NewAtom(atom.id)) => {
                v.refused.push(Problem::new("LP2005", place, "a new entry"));
            }
            Class::Registered => v.refused.push(Problem::new("LP2005", place, "an entry that differs")),
            _ if is_unknown_list(c.new, atom.id) => {
                v.refused.push(Problem::new("LP2005", place, "nothing refers to it"))
            }
            _ => {}
        }
    }
}

/// Variables that are gone: the running kernel keeps them, but whoever else uses them (modules, the other code of the
/// kernel) and the new code would no longer agree. What only one function knew goes with its old code.
pub fn judge_gone(c: &Comparer<'_>, v: &mut Verdicts) {
    for atom in c.old.atoms.iter().filter(|a| a.kind == AtomKind::Data && c.pairs.new_of(OldAtom(a.id)).is_none()) {
        let section = &c.old.section(atom.section).name;
        let place = Place::symbol(&c.new.image.name, &atom.name).in_section(section);
        let numbered = base_name(&atom.name) != atom.name.as_str();
        // With an initial value of another kind the same name stands in another class of section.
        let reshaped = !numbered && c.new.named(&atom.name).is_some();
        match c.old.class(atom.section) {
            _ if reshaped => v.refused.push(Problem::new("LP2002", place, "it moved to another kind of section")),
            Class::Registered => v.refused.push(Problem::new("LP2005", place, "an entry is gone")),
            Class::Data | Class::Bss | Class::Percpu if !numbered => {
                v.refused.push(Problem::new("LP2013", place, "the new build does not have it"));
            }
            Class::Rodata if atom.global => {
                v.refused.push(Problem::new("LP2013", place, "the new build does not have it"))
            }
            Class::InitData => {}
            _ => v.ignored.push(Ignored {
                object: c.new.image.name.clone(),
                symbol: atom.name.clone(),
                reason: "gone from the new build; only the old code of its function used it".into(),
            }),
        }
    }
}

fn refers_to(object: &Object, r: &Ref, set: &BTreeSet<NewAtom>) -> bool {
    let Target::Section(s, o) = r.target else { return false };
    certain(object, (s, o)).iter().any(|m| set.contains(&NewAtom(m.atom)))
}

/// Entries without names, in a section of its own name: somebody walks it from one end to the other.
fn is_unknown_list(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    let section = &object.section(atom.section).name;
    let ordinary = [".rodata", ".data", ".bss"].iter().any(|s| section.starts_with(s));
    let code = |r: &Ref| matches!(r.target, Target::Section(s, _) if object.section(s).is_exec());
    // Lists of instructions matter only to the functions they belong to; closure sees to those.
    atom.kind == AtomKind::Gap && !ordinary && !object.is_referred_to(id) && !atom.refs.iter().any(code)
}

/// Does data (not code) refer to it?
fn is_pointed_to(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    // A reference around the object may be meant for it as well: certain() says.
    let (from, to) = (atom.start as i64 - BIAS, atom.end as i64 + BIAS);
    object
        .incoming(atom.section, from, to)
        .iter()
        .any(|i| !object.atom(i.from).is_code() && certain(object, (i.section, i.to)).iter().any(|m| m.atom == id))
}

/// How far from an object a pointer that means it may point, in bytes.
const BIAS: i64 = 4096;

fn judge(c: &Comparer<'_>, o: OldAtom, n: NewAtom, what: &str, v: &mut Verdicts) {
    let atom = c.new.atom(n.0);
    let section = &c.new.section(atom.section).name;
    let place = Place::symbol(&c.new.image.name, &atom.name).in_section(section);
    let reshaped = c.old.atom(o.0).size() != atom.size() || sealed(c.old, o.0) != sealed(c.new, n.0);
    match c.new.class(atom.section) {
        Class::Registered => v.refused.push(Problem::new("LP2005", place, what)),
        Class::InitData => v.refused.push(Problem::new("LP2003", place, format!("init data: {what}"))),
        _ if is_unknown_list(c.new, n.0) => {
            v.refused.push(Problem::new("LP2005", place, format!("nothing refers to it: {what}")))
        }
        // A constant of one file, reached only through code: the functions that use it bring the new one.
        Class::Rodata if !atom.global && !is_pointed_to(c.new, n.0) => {
            v.changed_constants.insert(n);
        }
        Class::Rodata if only_printk_index(c.new, n.0) => v.ignored.push(Ignored {
            object: c.new.image.name.clone(),
            symbol: atom.name.clone(),
            reason: "read only through the printk index in debugfs".into(),
        }),
        _ if reshaped => v.refused.push(Problem::new("LP2002", place, what)),
        _ => v.refused.push(Problem::new("LP2001", place, what)),
    }
}

/// `_entry.N` of printk_index (include/linux/printk.h): nothing but the index points to it.
fn only_printk_index(object: &Object, id: AtomId) -> bool {
    let name = &object.atom(id).name;
    name.starts_with("_entry.") || name.starts_with("_entry_ptr.")
}

/// `__ro_after_init`: the running kernel has made it read-only (include/linux/cache.h).
fn sealed(object: &Object, id: AtomId) -> bool {
    object.section(object.atom(id).section).name.starts_with(".data..ro_after_init")
}

/// What differs between two data objects.
fn difference(c: &Comparer<'_>, o: OldAtom, n: NewAtom) -> Option<String> {
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    if old.size() != new.size() {
        return Some(format!("{} bytes became {}", old.size(), new.size()));
    }
    let masked = |object: &Object, id: AtomId| {
        let mut bytes = object.bytes(id).to_vec();
        crate::correlate::blank_line_number(&object.section(object.atom(id).section).name, &mut bytes);
        for r in &object.atom(id).refs {
            if let Some(field) = bytes.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
                field.fill(0);
            }
        }
        bytes
    };
    if sealed(c.old, o.0) != sealed(c.new, n.0) {
        return Some("it is read-only after boot on one side only".into());
    }
    let (a, b) = (masked(c.old, o.0), masked(c.new, n.0));
    // .bss against .data: one side has no bytes and stands for zeroes.
    if let Some(at) = (0..a.len().max(b.len())).find(|i| a.get(*i).unwrap_or(&0) != b.get(*i).unwrap_or(&0)) {
        return Some(format!("its content differs at +{at:#x}"));
    }
    if old.refs.len() != new.refs.len() {
        return Some("it refers to other things".into());
    }
    let differing = old.refs.iter().zip(&new.refs).find(|(x, y)| x.at != y.at || !c.same_ref(x, y));
    differing.map(|(_, y)| format!("the pointer at +{:#x} refers to something else", y.at))
}
