//! Compares data. Existing data is live: a live patch cannot give it another content, size or meaning.

use std::collections::BTreeSet;

use super::targets::Comparer;
use super::{Ignored, Verdicts, identity, lists};
use crate::accept::Accept;
use crate::codes;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::symbolize::base_name;
use crate::symbolize::{Atom, AtomId, AtomKind, Class, Ids, Object, TextKind, id_difference, known_sections};
use crate::uses::{self, AddressUse};

/// Fills the data part of the verdicts.
pub fn compare_data(c: &Comparer<'_>, v: &mut Verdicts) {
    let mut changed: BTreeSet<NewAtom> = BTreeSet::new();
    for (o, n) in c.pairs.open() {
        if c.new.atom(n.0).is_code() || v.in_place.contains(&n) {
            continue;
        }
        let Some(what) = difference(c, o, n) else {
            judge_sealed(c, o, n, v);
            continue;
        };
        changed.insert(n);
        judge(c, o, n, &what, v);
    }
    add_referring(c, v);
    for (n, what) in identity::renamed(c) {
        let atom = c.new.atom(n.0);
        let place = Place::symbol(&c.new.image.name, &atom.name).in_section(&c.new.section(atom.section).name);
        v.refused.push(Problem::new(codes::LP2001, place, what).acceptable(Accept::Constant, &atom.name));
    }
    for atom in c.new.atoms.iter().filter(|a| !a.is_code() && c.pairs.old_of(NewAtom(a.id)).is_none()) {
        let place = Place::symbol(&c.new.image.name, &atom.name).in_section(&c.new.section(atom.section).name);
        match c.new.class(atom.section) {
            Class::Registered if !c.pairs.ambiguous.contains(&NewAtom(atom.id)) => {
                v.refused.push(Problem::new(codes::LP2005, place, "a new entry"));
            }
            Class::Registered => v.refused.push(Problem::new(codes::LP2005, place, "an entry that differs")),
            Class::Ids => v.refused.push(ids_problem(c.new, atom.id, "the kernel has no list of this name")),
            _ if lists::is_new_entry(c.new, atom.id) => {
                v.refused.push(lists::refuse(c.new, atom.id, codes::LP2005, "a new entry of a list"));
            }
            _ => {}
        }
    }
}

/// Variables that are gone: the running kernel keeps them, but whoever else uses them (modules, the other code of the
/// kernel) and the new code would no longer agree. What only one function knew goes with its old code.
pub fn judge_gone(c: &Comparer<'_>, v: &mut Verdicts) {
    let gone = |a: &&Atom| !a.is_code() && c.pairs.new_of(OldAtom(a.id)).is_none();
    // What has no name of its own is only looked at where it is an entry of a list.
    let entry =
        |a: &Atom| a.kind == AtomKind::Data || c.old.is_listed(a.id) || c.old.class_of(a.id) == Class::Registered;
    // A label that is one inside something now: the names are judged elsewhere.
    let label =
        |a: &Atom| a.size() == 0 && c.new.atoms.iter().any(|n| n.inner.iter().any(|i| a.names().any(|x| x == i.name)));
    for atom in c.old.atoms.iter().filter(gone).filter(|a| entry(a) && !label(a)) {
        let section = &c.old.section(atom.section).name;
        let place = Place::symbol(&c.new.image.name, &atom.name).in_section(section);
        let numbered = base_name(&atom.name) != atom.name.as_str();
        // With an initial value of another kind the same name stands in another class of section.
        let reshaped = !numbered && c.new.named(&atom.name).is_some();
        match c.old.class(atom.section) {
            _ if reshaped => {
                let problem = Problem::new(codes::LP2002, place, "it moved to another kind of section");
                let anew = may_begin_anew(c, atom);
                v.refused.push(if anew { problem.acceptable(Accept::State, &atom.name) } else { problem });
            }
            Class::Registered => v.refused.push(Problem::new(codes::LP2005, place, "an entry is gone")),
            _ if c.old.is_listed(atom.id) => {
                v.refused.push(lists::refuse(c.old, atom.id, codes::LP2005, "an entry of a list is gone"));
            }
            Class::Ids if atom.global || c.old.ids(atom.id) != Ids::List => {
                v.refused.push(ids_problem(c.old, atom.id, "the new build does not have it"));
            }
            Class::Data | Class::Bss | Class::Percpu if !numbered => {
                v.refused.push(Problem::new(codes::LP2013, place, "the new build does not have it"));
            }
            Class::Rodata if atom.global => {
                v.refused.push(Problem::new(codes::LP2013, place, "the new build does not have it"))
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

/// Could the patch bring a variable of its own in the place of one that moved to another kind of section? One of this file: all
/// functions that refer to it change, so that nobody but the old ones knows the kernel's.
fn may_begin_anew(c: &Comparer<'_>, old: &Atom) -> bool {
    let plain = |class| matches!(class, Class::Data | Class::Bss | Class::Rodata | Class::Percpu);
    let is_plain =
        |object: &Object, id: AtomId| plain(object.class_of(id)) && !is_global(object, id) && !object.is_listed(id);
    is_plain(c.old, old.id) && c.new.named(&old.name).is_some_and(|n| is_plain(c.new, n))
}

/// A constant that refers to a changed constant is another constant, and its address matters as well.
fn add_referring(c: &Comparer<'_>, v: &mut Verdicts) {
    while !v.changed_constants.is_empty() {
        let constants = c.new.atoms.iter().filter(|a| {
            !v.in_place.contains(&NewAtom(a.id)) && !a.is_code() && c.new.class(a.section) == Class::Rodata
        });
        let more: Vec<(OldAtom, NewAtom)> = constants
            .map(|a| NewAtom(a.id))
            .filter(|n| !v.changed_constants.contains(n))
            .filter(|n| c.new.atom(n.0).refs.iter().any(|r| identity::refers_to(c.new, r, &v.changed_constants)))
            .filter_map(|n| Some((c.pairs.old_of(n)?, n)))
            .collect();
        if more.is_empty() {
            break;
        }
        for (o, n) in more {
            v.changed_constants.insert(n);
            judge_copy(c, o, n, "it refers to a constant that changed", v);
        }
    }
}

/// A constant of one file that is carried as a copy: refused where anybody can tell the copy from the original.
fn judge_copy(c: &Comparer<'_>, o: OldAtom, n: NewAtom, what: &str, v: &mut Verdicts) {
    let name = &c.new.atom(n.0).name;
    let problem = |what: String| {
        let place = Place::symbol(&c.new.image.name, name).in_section(&c.new.section(c.new.atom(n.0).section).name);
        Problem::new(codes::LP2001, place, what).acceptable(Accept::Constant, name)
    };
    let by: BTreeSet<&str> = identity::pointed_to_by(c.old, o.0)
        .into_iter()
        .map(|id| c.old.atom(id).name.as_str())
        .chain(identity::pointed_to_by(c.new, n.0).into_iter().map(|id| c.new.atom(id).name.as_str()))
        .collect();
    if let Some(first) = by.first() {
        v.refused.push(problem(format!("{what}, and {first} points to it")));
    }
    if let Some(uses) = identity::matters(c, Some(o), Some(n)) {
        v.refused.push(problem(format!("{what}, and {uses}")));
    }
}

/// A list of BTF ids that differs; it is accepted by its name.
fn ids_problem(object: &Object, id: AtomId, what: impl Into<String>) -> Problem {
    let atom = object.atom(id);
    let place = Place::symbol(&object.image.name, &atom.name).in_section(&object.section(atom.section).name);
    Problem::new(codes::LP2023, place, what).acceptable(Accept::List, &atom.name)
}

/// Does anything of the object refer to it?
fn is_reached(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    let (from, to) = (atom.start as i64 - identity::BIAS, atom.end.max(atom.start + 1) as i64 + identity::BIAS);
    let meant = |to: i64| object.certain(atom.section, to).iter().any(|m| m.atom == id);
    object.incoming(atom.section, from, to).iter().any(|i| i.from != id && meant(i.to))
        || object.entries_into(atom.section, from, to).any(|(to, _)| meant(to))
}

/// Can other objects refer to it? Labels of assembly need have no size: what they name is unnamed data behind them.
pub(super) fn is_global(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    let before = object.atoms_of(atom.section).iter().map(|a| object.atom(*a)).take_while(|a| a.start <= atom.start);
    let mut before = before.filter(|a| a.id != id).collect::<Vec<_>>().into_iter().rev();
    atom.global || atom.kind == AtomKind::Gap && before.by_ref().take_while(|a| a.size() == 0).any(|a| a.global)
}

fn judge(c: &Comparer<'_>, o: OldAtom, n: NewAtom, what: &str, v: &mut Verdicts) {
    let atom = c.new.atom(n.0);
    let section = &c.new.section(atom.section).name;
    let place = Place::symbol(&c.new.image.name, &atom.name).in_section(section);
    let reshaped = c.old.atom(o.0).size() != atom.size() || sealed(c.old, o.0) != sealed(c.new, n.0);
    match c.new.class(atom.section) {
        Class::Registered => v.refused.push(Problem::new(codes::LP2005, place, what)),
        Class::InitData => v.refused.push(Problem::new(codes::LP2003, place, format!("init data: {what}"))),
        Class::Ids => {
            v.changed_ids.insert(n);
            v.refused.push(ids_problem(c.new, n.0, what));
        }
        _ if lists::is_unnamed_entry(c.new, n.0) => {
            v.refused.push(lists::refuse(c.new, n.0, codes::LP2005, format!("nothing refers to it: {what}")));
        }
        _ if c.new.is_listed(n.0) => {
            let code = if reshaped { codes::LP2002 } else { codes::LP2001 };
            v.refused.push(lists::refuse(c.new, n.0, code, format!("an entry of a list: {what}")));
        }
        // Only read, by the functions that print it: they bring their own, and the loader keeps it.
        _ if known_sections::carried_as(section) == Some("__trace_printk_fmt") => {
            v.changed_constants.insert(n);
        }
        // A constant of one file, reached only through code: the functions that use it bring the new one.
        Class::Rodata if is_copied(c, o, n) => {
            if is_reached(c.new, n.0) {
                v.changed_constants.insert(n);
                judge_copy(c, o, n, what, v);
            } else {
                v.ignored.push(Ignored {
                    object: c.new.image.name.clone(),
                    symbol: atom.name.clone(),
                    reason: "nothing refers to it".into(),
                });
            }
        }
        Class::Rodata if only_printk_index(c.new, n.0) => v.ignored.push(Ignored {
            object: c.new.image.name.clone(),
            symbol: atom.name.clone(),
            reason: "read only through the printk index in debugfs".into(),
        }),
        Class::Rodata if is_reached(c.new, n.0) => {
            let keeper = |object: &Object, id| Some(object.atom(identity::kept_by(object, id)?).name.clone());
            let code = if reshaped { codes::LP2002 } else { codes::LP2001 };
            v.refused.push(match keeper(c.old, o.0).or_else(|| keeper(c.new, n.0)) {
                Some(by) => Problem::new(code, place, format!("{what}, and {by} points to it and stays as it is")),
                // Functions of this object bring the new one.
                None => {
                    v.changed_constants.insert(n);
                    let uses = identity::matters(c, Some(o), Some(n)).map_or(String::new(), |uses| format!(", {uses}"));
                    Problem::new(code, place, format!("{what}, and other objects can refer to it{uses}"))
                        .acceptable(Accept::Constant, &atom.name)
                }
            });
        }
        _ if reshaped => v.refused.push(Problem::new(codes::LP2002, place, what)),
        _ => v.refused.push(Problem::new(codes::LP2001, place, what)),
    }
}

/// Can the functions that use a constant bring the new one? Not where variables, or constants of other files, lead to it.
fn is_copied(c: &Comparer<'_>, o: OldAtom, n: NewAtom) -> bool {
    identity::is_local_constant(c.new, n.0)
        && identity::kept_by(c.old, o.0).is_none()
        && identity::kept_by(c.new, n.0).is_none()
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

/// Equal data that is read-only after boot in one build only. The kernel's object stays what it is: where it is writable, nothing
/// else is needed; where it is read-only, a function that writes to it later would be a fault.
fn judge_sealed(c: &Comparer<'_>, o: OldAtom, n: NewAtom, v: &mut Verdicts) {
    let (was, is) = (sealed(c.old, o.0), sealed(c.new, n.0));
    if was == is {
        return;
    }
    let atom = c.new.atom(n.0);
    let (object, symbol) = (c.new.image.name.clone(), atom.name.clone());
    let Some(what) = written_after_boot(c.new, n.0).filter(|_| was) else {
        let reason =
            if was { "read-only after boot in the kernel, and nothing writes to it later" } else { STAYS_WRITABLE };
        v.ignored.push(Ignored { object, symbol, reason: reason.into() });
        return;
    };
    let place = Place::symbol(&object, &symbol).in_section(&c.new.section(atom.section).name);
    let what = format!("it is read-only after boot in the kernel, and {what}");
    v.refused.push(Problem::new(codes::LP2002, place, what).acceptable(Accept::State, symbol));
}

const STAYS_WRITABLE: &str = "read-only after boot in the new build; the kernel's stays writable";

/// Who may write to a variable when the kernel runs, in words. Init code has done so before.
fn written_after_boot(object: &Object, id: AtomId) -> Option<String> {
    let is_init = |at: AtomId| object.class_of(at) == Class::Text(TextKind::Init);
    let found = uses::of_data(object, id);
    let written = found.iter().find(|f| match f.what {
        AddressUse::Read => false,
        AddressUse::Written => !is_init(f.atom),
        _ => true,
    });
    written.map(|f| f.text(object)).or_else(|| {
        let by = identity::pointed_to_by(object, id).into_iter().next();
        by.map(|by| format!("{} points to it", object.atom(by).name))
            .or_else(|| is_global(object, id).then(|| "other objects may write to it".into()))
    })
}

/// What differs between two data objects.
pub(super) fn difference(c: &Comparer<'_>, o: OldAtom, n: NewAtom) -> Option<String> {
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    if c.new.class(new.section) == Class::Ids {
        let same_refs =
            old.refs.len() == new.refs.len() && old.refs.iter().zip(&new.refs).all(|(x, y)| c.same_ref(x, y));
        let words = id_difference(&c.old.id_words(o.0), &c.new.id_words(n.0));
        return words.or_else(|| (!same_refs).then(|| "it refers to other things".into()));
    }
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
