//! Names that moved: to another function or object, to another place inside one, to another number.
//!
//! Unpatched code has the address a name had when it was linked. A patch can make the old function do what the new one
//! does, but it cannot make one name of it lead elsewhere and leave the others, so a name visible to other objects that
//! stands for something else than before is refused (LP2022). Every name counts: a label in the middle of a function, `.set
//! middle, table + 8`, the end of a table, `.set size, 5`. A label in a function that is replaced leads into the old
//! code, and is refused as well. Local names do no harm: whoever uses one is in this object, and counts as changed because the
//! reference does.

use rustc_hash::FxHashMap;

use super::targets::{Comparer, insn_index};
use super::{Ignored, Verdicts};
use crate::accept::Accept;
use crate::codes;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::ingest::{Symbol, SymbolPlace};
use crate::symbolize::{Atom, Meaning, Object};
use object::elf;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// A place in an atom, or its end.
    Place(Meaning),
    /// A number.
    Number(u64),
}

/// Names visible to other objects and what they stand for.
fn visible(object: &Object) -> impl Iterator<Item = (&str, Stand)> {
    let symbols = object.image.symbols.iter().filter(|s| is_visible(s));
    symbols.filter_map(|s| Some((s.name.as_str(), stand(object, s)?)))
}

fn is_visible(symbol: &Symbol) -> bool {
    // Versions of exported symbols are read where the exports are (LP2005), and only as modules are loaded.
    symbol.bind != elf::STB_LOCAL.0 && !symbol.name.is_empty() && !symbol.name.starts_with("__crc_")
}

fn stand(object: &Object, symbol: &Symbol) -> Option<Stand> {
    let section = match symbol.place {
        SymbolPlace::Section(section) => section,
        SymbolPlace::Absolute if symbol.kind != elf::STT_FILE.0 => return Some(Stand::Number(symbol.value)),
        _ => return None,
    };
    let at = i64::try_from(symbol.value).ok()?;
    let Some(named) = object.named(&symbol.name) else {
        // Not everything with a name is an atom: call padding, ids.
        let holder = object.outermost(section, at)?;
        let is_inner = object.atom(holder.atom).inner.iter().any(|i| i.name == symbol.name);
        return is_inner.then_some(Stand::Place(holder));
    };
    let own = Meaning { atom: named, delta: 0 };
    let holder = object.outermost(section, at).unwrap_or(own);
    let atom = object.atom(named);
    if holder.delta > 0 && !atom.is_code() {
        return Some(Stand::Place(holder));
    }
    // A label behind everything is the end of what is before it.
    let is_label = atom.size() == 0 && symbol.kind == elf::STT_NOTYPE.0 && holder.atom == named;
    let ends = object.meanings(section, at).into_iter().find(|m| is_label && m.atom != named);
    Some(Stand::Place(ends.unwrap_or(own)))
}

fn same(c: &Comparer<'_>, old: Stand, new: Stand) -> bool {
    match (old, new) {
        (Stand::Number(a), Stand::Number(b)) => a == b,
        (Stand::Place(o), Stand::Place(n)) => {
            let (a, b) = (insn_index(c.old, &o), insn_index(c.new, &n));
            let offset = if a.is_some() && b.is_some() { a == b } else { o.delta == n.delta };
            offset && c.pairs.new_of(OldAtom(o.atom)) == Some(NewAtom(n.atom))
        }
        _ => false,
    }
}

/// Does the name stand for the same in both builds? Not one that only one of them has.
pub fn stays(c: &Comparer<'_>, name: &str) -> bool {
    let of = |object: &Object| {
        let symbol = object.image.symbols.iter().find(|s| s.name == name && is_visible(s))?;
        stand(object, symbol)
    };
    of(c.old).zip(of(c.new)).is_some_and(|(o, n)| same(c, o, n))
}

/// Refuses names that moved, and notes those that are gone.
pub fn judge(c: &Comparer<'_>, v: &mut Verdicts) {
    let there: FxHashMap<&str, Stand> = visible(c.new).collect();
    for (name, o) in visible(c.old) {
        let Some(n) = there.get(name).copied() else {
            note_gone(c, v, name, o);
            continue;
        };
        let what = if same(c, o, n) {
            let Some(what) = leads_into_old(c, v, o, n) else { continue };
            what
        } else if reshaped(c, o, n) {
            continue;
        } else {
            let (was, is) = (described(c.old, name, o, Some((c.new, n))), described(c.new, name, n, Some((c.old, o))));
            format!("it was {was} and is now {is}")
        };
        let place = Place::symbol(&c.new.image.name, name);
        v.refused.push(Problem::new(codes::LP2022, place, what).acceptable(Accept::Name, name));
    }
}

/// A label in a function that is replaced: whoever comes in there goes on in the old code.
fn leads_into_old(c: &Comparer<'_>, v: &Verdicts, o: Stand, n: Stand) -> Option<String> {
    let (Stand::Place(old), Stand::Place(new)) = (o, n) else { return None };
    let parent = NewAtom(c.new.parent(new.atom));
    let inside = old.delta > 0 && c.old.atom(old.atom).is_code() && v.changed.contains_key(&parent);
    inside.then(|| format!("it leads into the old code of {}, behind the jump", c.new.atom(parent.0).name))
}

fn described(object: &Object, name: &str, stand: Stand, other: Option<(&Object, Stand)>) -> String {
    let m = match stand {
        Stand::Number(value) => return format!("the number {value:#x}"),
        Stand::Place(m) => m,
    };
    let atom = object.atom(m.atom);
    if m.delta != 0 {
        return format!("{}+{:#x}", atom.name, m.delta);
    }
    let other = match other {
        Some((object, Stand::Place(m))) if m.delta == 0 => Some(object.atom(m.atom)),
        _ => None,
    };
    let own = atom.names().find(|a| *a != name && other.is_none_or(|o| !o.names().any(|b| b == *a)));
    match own {
        Some(own) => format!("a name of {own}"),
        None if atom.is_code() => "a function of its own".into(),
        None => format!("an object of its own in {}", object.section(atom.section).name),
    }
}

/// The same variable in another kind of section: LP2002, or LP2001.
fn reshaped(c: &Comparer<'_>, old: Stand, new: Stand) -> bool {
    let (Stand::Place(o), Stand::Place(n)) = (old, new) else { return false };
    let alone = c.pairs.new_of(OldAtom(o.atom)).is_none() && c.pairs.old_of(NewAtom(n.atom)).is_none();
    let (old, new): (&Atom, &Atom) = (c.old.atom(o.atom), c.new.atom(n.atom));
    alone && o.delta == n.delta && !old.is_code() && !new.is_code() && old.names().eq(new.names())
}

fn note_gone(c: &Comparer<'_>, v: &mut Verdicts, name: &str, o: Stand) {
    // The same symbol may only have become local.
    if c.new.image.symbols.iter().any(|s| s.name == name && s.place != SymbolPlace::Undefined) {
        return;
    }
    let of = match o {
        Stand::Number(value) => format!("the number {value:#x}"),
        Stand::Place(o) => {
            let Some(n) = c.pairs.new_of(OldAtom(o.atom)) else { return };
            let parent = c.new.atom(c.new.parent(n.0));
            if o.delta > 0 && parent.is_code() && v.changed.contains_key(&NewAtom(parent.id)) {
                let what = format!("it is gone, and leads into the old code of {}, behind the jump", parent.name);
                let place = Place::symbol(&c.new.image.name, name);
                v.refused.push(Problem::new(codes::LP2022, place, what).acceptable(Accept::Name, name));
                return;
            }
            c.new.atom(n.0).name.clone()
        }
    };
    v.ignored.push(Ignored {
        object: c.new.image.name.clone(),
        symbol: name.to_owned(),
        reason: format!("one name less of {of}; it stays in the kernel for whoever still refers to it"),
    });
}
