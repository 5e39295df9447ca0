//! Names that moved to another function or object.
//!
//! Unpatched code has the address an alias had when it was linked. A patch can make the old function do what the new one
//! does, but it cannot make one name of it lead elsewhere and leave the others, so a name visible to other objects that
//! belongs to another atom than before is refused (LP2022). Local names do no harm: whoever uses one is in this object, and
//! counts as changed because the reference does.

use super::targets::Comparer;
use super::{Ignored, Verdicts};
use crate::accept::Accept;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::ingest::SymbolPlace;
use crate::symbolize::{Atom, AtomId, Object};
use object::elf;

/// Names visible to other objects and what they stand for.
fn visible(object: &Object) -> impl Iterator<Item = (&str, AtomId)> {
    let symbols = object.image.symbols.iter().filter(|s| s.bind != elf::STB_LOCAL.0 && !s.name.is_empty());
    let defined = symbols.filter(|s| matches!(s.place, SymbolPlace::Section(_)));
    defined.filter_map(|s| Some((s.name.as_str(), object.named(&s.name)?)))
}

/// Refuses names that moved, and notes those that are gone.
pub fn judge(c: &Comparer<'_>, v: &mut Verdicts) {
    for (name, o) in visible(c.old) {
        let (old, there) = (c.old.atom(o), c.pairs.new_of(OldAtom(o)));
        let Some(n) = c.new.named(name) else {
            if let Some(n) = there {
                note_gone(c, v, name, n);
            }
            continue;
        };
        let new = c.new.atom(n);
        if there == Some(NewAtom(n)) || reshaped(c, old, new) {
            continue;
        }
        let stands_for = |object: &Object, atom: &Atom, other: Option<&Atom>| {
            let own = atom.names().find(|a| *a != name && other.is_none_or(|o| !o.names().any(|b| b == *a)));
            match own {
                Some(own) => format!("a name of {own}"),
                None if atom.is_code() => "a function of its own".into(),
                None => format!("an object of its own in {}", object.section(atom.section).name),
            }
        };
        let what =
            format!("it was {} and is now {}", stands_for(c.old, old, Some(new)), stands_for(c.new, new, Some(old)));
        let place = Place::symbol(&c.new.image.name, name);
        v.refused.push(Problem::new("LP2022", place, what).acceptable(Accept::Name, name));
    }
}

/// The same variable in another kind of section: LP2002, or LP2001.
fn reshaped(c: &Comparer<'_>, old: &Atom, new: &Atom) -> bool {
    let alone = c.pairs.new_of(OldAtom(old.id)).is_none() && c.pairs.old_of(NewAtom(new.id)).is_none();
    alone && !old.is_code() && !new.is_code() && old.names().eq(new.names())
}

fn note_gone(c: &Comparer<'_>, v: &mut Verdicts, name: &str, n: NewAtom) {
    // The same symbol may only have become local.
    if c.new.image.symbols.iter().any(|s| s.name == name && s.place != SymbolPlace::Undefined) {
        return;
    }
    v.ignored.push(Ignored {
        object: c.new.image.name.clone(),
        symbol: name.to_owned(),
        reason: format!(
            "one name less of {}; it stays in the kernel for whoever still refers to it",
            c.new.atom(n.0).name
        ),
    });
}
