//! Constants that the author has change in their place (`data` of livepatch.toml): everybody who has the address of one, code that
//! stays included, reads the new content there while the patch is applied. So nobody brings a copy, and no function changes for it.
//!
//! Refused here: what is not a constant of the same size in both builds, or does not differ (LP2030).

use std::collections::{BTreeMap, BTreeSet};

use super::data::difference;
use super::{Comparer, lists};
use crate::codes;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::hash::to_hex;
use crate::symbolize::{Atom, Class, Object, Ref, Target};

/// Does a name of the author mean this constant of this object?
pub fn means(given: &str, object: &str, atom: &Atom) -> bool {
    let name = match given.split_once(':') {
        Some((of, name)) if of == object => name,
        Some(_) => return false,
        None => given,
    };
    !atom.is_code() && atom.names().any(|n| n == name)
}

/// Those of the names that the object has, and what is wrong with the others that it has.
pub(super) fn declared(c: &Comparer<'_>, names: &[String]) -> (BTreeSet<NewAtom>, Vec<Problem>) {
    let (mut atoms, mut problems) = (BTreeSet::new(), Vec::new());
    let object = &c.new.image.name;
    for atom in c.new.atoms.iter().filter(|a| names.iter().any(|n| means(n, object, a))) {
        match fault(c, NewAtom(atom.id)) {
            None => drop(atoms.insert(NewAtom(atom.id))),
            Some(what) => {
                let place = Place::symbol(object, &atom.name).in_section(&c.new.section(atom.section).name);
                problems.push(Problem::new(codes::LP2030, place, what));
            }
        }
    }
    (atoms, problems)
}

/// Why a constant cannot change in its place.
fn fault(c: &Comparer<'_>, n: NewAtom) -> Option<String> {
    let Some(o) = c.pairs.old_of(n) else {
        return Some("the old build does not have it: what refers to it is new as well, and carried with it".into());
    };
    if c.pairs.ambiguous.contains(&n) {
        return Some("which object of the old build it is, is not certain".into());
    }
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    let classes = [c.old.class(old.section), c.new.class(new.section)];
    if classes.iter().any(|class| *class != Class::Rodata) {
        return Some(
            "it is not read-only: what it holds by now is not known, and somebody may be writing to it".into(),
        );
    }
    if c.old.is_listed(o.0) || c.new.is_listed(n.0) || lists::is_unnamed_entry(c.new, n.0) {
        return Some("it is an entry of a list, which is read when the kernel starts".into());
    }
    if old.size() != new.size() {
        return Some(format!("{} bytes became {}, and there is no room for them", old.size(), new.size()));
    }
    if new.size() > u64::from(lpbuild_abi::MAX_DATA) {
        return Some(format!("it has {} bytes; at most {} change in their place", new.size(), lpbuild_abi::MAX_DATA));
    }
    if difference(c, o, n).is_none() {
        return Some("it is the same in both builds".into());
    }
    None
}

/// Pieces of bytes that are shown; of more, how many.
const SHOWN: usize = 16;

/// What changes in a constant, in words: pointers by what they lead to, all else by the bytes.
pub fn changes_of(c: &Comparer<'_>, o: OldAtom, n: NewAtom) -> Vec<String> {
    let (old, new) = (c.old.atom(o.0), c.new.atom(n.0));
    let at = |object: &Object, refs: &[Ref], place: u64| {
        refs.iter().find(|r| r.at == place).map(|r| leads_to(object, r)).unwrap_or_else(|| "nothing".into())
    };
    let mut out = BTreeMap::new();
    for place in old.refs.iter().chain(&new.refs).map(|r| r.at).collect::<BTreeSet<_>>() {
        let find = |refs: &'_ [Ref]| refs.iter().position(|r| r.at == place);
        let same = match (find(&old.refs), find(&new.refs)) {
            (Some(x), Some(y)) => c.same_ref(&old.refs[x], &new.refs[y]),
            _ => false,
        };
        if !same {
            out.insert(place, format!("{} -> {}", at(c.old, &old.refs, place), at(c.new, &new.refs, place)));
        }
    }
    let is_field = |i: u64| old.refs.iter().chain(&new.refs).any(|r| (r.at..r.at + u64::from(r.width)).contains(&i));
    let (before, behind) = (c.old.bytes(o.0), c.new.bytes(n.0));
    let differs = |i: usize| !is_field(i as u64) && before.get(i) != behind.get(i);
    let mut i = 0;
    while i < behind.len() {
        if !differs(i) {
            i += 1;
            continue;
        }
        let end = (i..behind.len().min(i + 8)).take_while(|x| differs(*x)).last().unwrap_or(i) + 1;
        let hex = |bytes: &[u8]| to_hex(bytes.get(i..end).unwrap_or_default());
        out.insert(i as u64, format!("{} -> {}", hex(before), hex(behind)));
        i = end;
    }
    let more = out.len().saturating_sub(SHOWN);
    let mut lines: Vec<String> = out.into_iter().take(SHOWN).map(|(at, what)| format!("+{at:#x}: {what}")).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn leads_to(object: &Object, r: &Ref) -> String {
    let plus = |name: &str, delta: i64| if delta == 0 { name.to_owned() } else { format!("{name}{delta:+#x}") };
    match r.target {
        Target::Extern(symbol, addend) => plus(object.symbol_name(symbol), addend),
        Target::Section(section, offset) => match object.constant_at(section, offset).and_then(|t| t.split_last()) {
            Some((0, text)) => format!("{:?}", String::from_utf8_lossy(text)),
            _ => match object.containing(section, offset) {
                Some(m) => plus(&object.atom(m.atom).name, m.delta),
                None => plus(&object.section(section).name, offset),
            },
        },
    }
}
