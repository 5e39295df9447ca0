//! Lists: sections whose entries are read from one end to the other, under a name that nobody knows or that everybody does.
//!
//! Entries that changed are found like all other data (`data`); here is what is about the list as a whole. The kernel has its
//! own list, which no patch changes: what differs has no effect, and is refused (LP2001, LP2005) unless the author accepts that.

use std::collections::BTreeSet;

use super::targets::Comparer;
use super::{Ignored, Verdicts};
use crate::accept::Accept;
use crate::codes;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::ingest::{Section, SectionId};
use crate::symbolize::known_sections::{self, Fate};
use crate::symbolize::{AtomId, AtomKind, Class, NOT_LOADED, Object};

/// A difference in an entry of a list, which the author may accept by the name of the section.
pub fn refuse(object: &Object, id: AtomId, code: &'static codes::Code, what: impl Into<String>) -> Problem {
    let atom = object.atom(id);
    let section = &object.section(atom.section).name;
    let place = Place::symbol(&object.image.name, &atom.name).in_section(section);
    Problem::new(code, place, what).acceptable(Accept::List, section)
}

/// Is the new object an entry of a list, rather than a variable that has a section of its own for another reason? What code
/// refers to is one, unless the name of the section lets code refer to the whole of it.
pub fn is_new_entry(object: &Object, id: AtomId) -> bool {
    let section = &object.section(object.atom(id).section).name;
    object.is_listed(id) && (known_sections::has_bounds(section) || !object.is_referred_to(id))
}

/// Does nothing refer to it by an address of its own?
pub fn is_unnamed_entry(object: &Object, id: AtomId) -> bool {
    object.is_listed(id) && object.atom(id).kind == AtomKind::Gap && !object.is_referred_to(id)
}

/// What is about whole lists: their order, their size, and what is in no atom.
pub fn compare_lists(c: &Comparer<'_>, v: &mut Verdicts) {
    // Of whole images only what may differ is here.
    if c.pairs.are_partly_proven() {
        return;
    }
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for object in [c.old, c.new] {
        names.extend(object.image.sections.iter().map(|s| s.name.as_str()).filter(|n| !n.is_empty()));
    }
    for name in names {
        if v.refused.iter().any(|p| p.place.section.as_deref() == Some(name)) {
            continue;
        }
        let place = || Place::object(&c.new.image.name).in_section(name);
        let known = known_sections::find(name).map(|k| (k.fate, k.why));
        let collected = known_sections::is_list(name) || matches!(known, Some((Fate::Walked, _)));
        let what = match known {
            Some((Fate::Shown, why)) => {
                let bytes = |object| content(object, name).into_iter().map(|(data, size, _)| (data, size));
                if !bytes(c.old).eq(bytes(c.new)) {
                    let object = c.new.image.name.clone();
                    v.ignored.push(Ignored { object, symbol: name.into(), reason: why.into() });
                }
                continue;
            }
            _ if !collected => continue,
            _ if is_unloaded(c.old, name) || is_unloaded(c.new, name) => {
                if !known_sections::may_be_collected(name) || content(c.old, name) == content(c.new, name) {
                    continue;
                }
                (
                    codes::LP2001,
                    "its content differs; its flags say that it is not loaded, which a linker script may overrule"
                        .to_owned(),
                )
            }
            _ if has_other_zeroes(c, name) => {
                (codes::LP2005, format!("{} bytes became {}", size(c.old, name), size(c.new, name)))
            }
            _ if loose(c.old, name) != loose(c.new, name) => (codes::LP2001, "what no symbol names differs".to_owned()),
            Some(_) => continue,
            None if is_reordered(c, name) => (codes::LP2001, "its entries are in another order".to_owned()),
            None => continue,
        };
        let problem = Problem::new(what.0, place(), what.1);
        v.refused.push(if known.is_none() { problem.acceptable(Accept::List, name) } else { problem });
    }
}

fn sections<'o>(object: &'o Object, name: &'o str) -> impl Iterator<Item = (SectionId, &'o Section)> {
    (0u32..).map(SectionId).zip(&object.image.sections).filter(move |(_, s)| s.name == name)
}

fn is_unloaded(object: &Object, name: &str) -> bool {
    sections(object, name).any(|(id, _)| object.class(id) == Class::Ignored(NOT_LOADED))
}

fn size(object: &Object, name: &str) -> u64 {
    sections(object, name).map(|(_, s)| s.size).sum()
}

/// Entries that are all zeroes have no atom unless they have a name: more or fewer of them than padding explains?
fn has_other_zeroes(c: &Comparer<'_>, name: &str) -> bool {
    // Unnamed bytes, and how many of them can be padding in front of what one side has alone.
    let unnamed = |object: &Object, is_paired: &dyn Fn(AtomId) -> bool| {
        let (mut bytes, mut slack) = (0, 0);
        for (id, section) in sections(object, name) {
            let mut covered = 0;
            for atom in object.atoms_of(id).iter().map(|a| object.atom(*a)) {
                bytes += (atom.start - atom.prefix).saturating_sub(covered);
                covered = covered.max(atom.end);
                slack += if is_paired(atom.id) { 0 } else { section.align - 1 };
            }
            bytes += section.size.saturating_sub(covered);
        }
        (bytes, slack)
    };
    let (a, more) = unnamed(c.old, &|id| c.pairs.new_of(OldAtom(id)).is_some());
    let (b, less) = unnamed(c.new, &|id| c.pairs.old_of(NewAtom(id)).is_some());
    // Between functions padding depends on their size.
    !sections(c.new, name).any(|(_, s)| s.is_exec()) && a.abs_diff(b) > more + less
}

/// Bytes, size, and what is filled in where.
type Content<'o> = (&'o [u8], u64, Vec<(u64, &'o str, i64)>);

fn content<'o>(object: &'o Object, name: &'o str) -> Vec<Content<'o>> {
    let relocs = |s: &'o Section| {
        s.relocs.iter().map(|r| (r.offset, object.symbol_name(r.symbol), r.addend)).collect::<Vec<_>>()
    };
    let all = sections(object, name).map(|(_, s)| (&s.data[..], s.size, relocs(s)));
    all.filter(|(_, size, _)| *size > 0).collect()
}

/// What of the section is in no atom, but for padding: nothing compares it otherwise.
fn loose<'o>(object: &'o Object, name: &'o str) -> Vec<&'o [u8]> {
    let mut found = Vec::new();
    for (id, section) in sections(object, name) {
        let atoms = object.atoms_of(id).iter().map(|a| object.atom(*a)).map(|a| (a.start - a.prefix, a.end));
        let mut covered = 0;
        for (start, end) in atoms.chain([(section.size, section.size)]) {
            let run = section.data.get(covered as usize..start as usize).unwrap_or(&[]);
            // Between functions there are nops up to the next multiple of the alignment.
            let padding = section.is_exec() && (run.len() as u64) < section.align;
            if run.iter().any(|b| *b != 0) && !padding {
                found.push(run);
            }
            covered = covered.max(end);
        }
    }
    found
}

/// Do entries that both sides have follow each other differently?
fn is_reordered(c: &Comparer<'_>, name: &str) -> bool {
    let atoms = sections(c.old, name).flat_map(|(id, _)| c.old.atoms_of(id));
    let place = |id: AtomId| (c.new.atom(id).section, c.new.atom(id).start);
    let new: Vec<(SectionId, u64)> = atoms.filter_map(|a| Some(place(c.pairs.new_of(OldAtom(*a))?.0))).collect();
    !new.is_sorted()
}
