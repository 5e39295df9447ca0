//! Pairs -> [`Verdicts`]: what is the same, changed, new or gone, and which of it can never be live-patched.
//!
//! Functions are compared instruction by instruction, references by what they mean. A function also counts as changed
//! when a table entry of it changed (a WARN's flags, an alternative) or a constant only it and its like refer to.
//!
//! Refused here: changed live data, and changed constants whose address is more than read through (LP2001), changed init
//! code or data (LP2003), changed registrations (LP2005), code in sections that cannot be patched (LP2007), data that changed
//! its size or kind (LP2002), names that moved (LP2022), changed lists of BTF ids (LP2023), constants that cannot change in their place
//! (LP2030).

mod change;
mod data;
mod function;
mod identity;
mod in_place;
mod line_numbers;
mod line_table;
mod lists;
mod moved;
mod targets;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codes;
use crate::correlate::{NewAtom, OldAtom, Pairs};
use crate::error::{Place, Problem};
use crate::ingest::SectionId;
use crate::symbolize::{AtomId, AtomKind, Class, Object, Target, TextKind};

pub use change::Change;
pub use function::first_difference;
pub use identity::matters as identity_matters;
pub use in_place::{changes_of, means as means_constant};
pub use moved::stays as name_stays;
pub use targets::Comparer;

/// Something that differs and does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignored {
    /// Object file.
    pub object: String,
    /// Symbol.
    pub symbol: String,
    /// Why it does not matter.
    pub reason: String,
}

/// What became of each atom.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Functions to replace (parents, not their cold pieces), with what changed.
    pub changed: BTreeMap<NewAtom, Change>,
    /// Read-only data whose content changed and that only code refers to: carried anew by the functions that use it.
    pub changed_constants: BTreeSet<NewAtom>,
    /// Constants that change in their place, because the author says so.
    pub in_place: BTreeSet<NewAtom>,
    /// Lists of BTF ids whose content changed; the kernel keeps its own.
    pub changed_ids: BTreeSet<NewAtom>,
    /// What cannot be live-patched.
    pub refused: Vec<Problem>,
    /// What differs without effect.
    pub ignored: Vec<Ignored>,
}

/// The function a cold piece or unnamed chunk belongs to; itself for everything else.
pub fn parent_of(object: &Object, id: AtomId) -> AtomId {
    object.parent(id)
}

/// Compares two correlated objects; `data` has the names of the constants that change in their place.
pub fn compare(old: &Object, new: &Object, pairs: &Pairs, data: &[String]) -> Verdicts {
    let mut v = Verdicts::default();
    let comparer = Comparer { old, new, pairs };
    (v.in_place, v.refused) = in_place::declared(&comparer, data);
    data::compare_data(&comparer, &mut v);
    data::judge_gone(&comparer, &mut v);
    lists::compare_lists(&comparer, &mut v);
    let mut differing: BTreeMap<NewAtom, Change> = BTreeMap::new();
    let (mut evidence, mut moved) = (line_numbers::LineEvidence::default(), Vec::new());
    for (o, n) in pairs.open() {
        if !new.atom(n.0).is_code() {
            continue;
        }
        let Some(why) = function::difference(&comparer, o, n, &v.changed_constants, &mut |_| false) else { continue };
        if evidence.only_line_numbers(&comparer, o, n, &v.changed_constants) {
            moved.push(n);
        } else {
            differing.insert(n, why);
        }
    }
    for (n, why) in differing {
        let parent = NewAtom(parent_of(new, n.0));
        let name = || new.atom(n.0).name.clone();
        let why = if parent == n { why } else { Change::InPiece { name: name(), change: Box::new(why) } };
        v.changed.entry(parent).or_insert(why);
    }
    // A piece that appeared or vanished changes its parent as well; the parent's own code shows it, but for certain.
    for atom in new.atoms.iter().filter(|a| a.is_code() && pairs.old_of(NewAtom(a.id)).is_none()) {
        let parent = NewAtom(parent_of(new, atom.id));
        if parent.0 != atom.id && pairs.old_of(parent).is_some() {
            v.changed.entry(parent).or_insert_with(|| Change::NewPiece { name: atom.name.clone() });
        }
    }
    // A piece of a function that changed otherwise is replaced with it.
    for n in moved.into_iter().filter(|n| !v.changed.contains_key(&NewAtom(parent_of(new, n.0)))) {
        let (object, symbol) = (new.image.name.clone(), new.atom(n.0).name.clone());
        v.ignored.push(Ignored { object, symbol, reason: "line number".into() });
    }
    refuse_unpatchable(&comparer, &mut v);
    refuse_read_sections(&comparer, &mut v);
    report_gone(&comparer, &mut v);
    moved::judge(&comparer, &mut v);
    v.refused.sort();
    v.ignored.sort();
    v
}

/// A section without a meaning for running code has one when code refers to it: what changed in it would be read from the old
/// one, or by functions that seem unchanged.
fn refuse_read_sections(c: &Comparer<'_>, v: &mut Verdicts) {
    let read = |object: &Object| -> BTreeMap<String, (SectionId, String)> {
        let mut all = BTreeMap::new();
        for atom in object.atoms.iter().filter(|a| a.is_code()) {
            for r in &atom.refs {
                let Target::Section(section, _) = r.target else { continue };
                if matches!(object.class(section), Class::Ignored(_)) {
                    let name = object.section(section).name.clone();
                    all.entry(name).or_insert_with(|| (section, atom.name.clone()));
                }
            }
        }
        all
    };
    let old = read(c.old);
    for (name, (section, by)) in read(c.new) {
        let Some((before, _)) = old.get(&name) else { continue };
        if c.old.section(*before).data != c.new.section(section).data {
            let place = Place::object(&c.new.image.name).in_section(&name);
            v.refused.push(Problem::new(
                codes::LP2001,
                place,
                format!("{by} refers to this section, and its content differs"),
            ));
        }
    }
}

/// Why changed exit code of the kernel does not matter.
const NEVER_LEAVES: &str = "exit code of a built-in object never runs";

impl Verdicts {
    /// Of an object of a module, whose exit code runs when it is removed (`delete_module`, kernel/module/main.c): what was ignored
    /// of it is refused.
    pub fn of_module(&mut self) {
        let all = std::mem::take(&mut self.ignored);
        let (exit, rest): (Vec<Ignored>, Vec<Ignored>) = all.into_iter().partition(|i| i.reason == NEVER_LEAVES);
        self.ignored = rest;
        let what = "exit function: it runs when the module is removed, and is not replaced";
        self.refused
            .extend(exit.iter().map(|i| Problem::new(codes::LP2003, Place::symbol(&i.object, &i.symbol), what)));
    }
}

/// Changed code in sections that cannot be patched.
fn refuse_unpatchable(c: &Comparer<'_>, v: &mut Verdicts) {
    let mut drop = Vec::new();
    for (n, why) in &v.changed {
        let atom = c.new.atom(n.0);
        let place = Place::symbol(&c.new.image.name, &atom.name);
        let old_class = c.pairs.old_of(*n).map(|o| c.old.class_of(o.0));
        for class in [Some(c.new.class(atom.section)), old_class].into_iter().flatten() {
            let problem = match class {
                Class::Text(TextKind::Normal | TextKind::AltAux) => continue,
                Class::Text(TextKind::Init) => {
                    Problem::new(codes::LP2003, place.clone(), format!("init function: {why}"))
                }
                Class::Text(TextKind::Exit) => {
                    v.ignored.push(Ignored {
                        object: c.new.image.name.clone(),
                        symbol: atom.name.clone(),
                        reason: NEVER_LEAVES.into(),
                    });
                    drop.push(*n);
                    break;
                }
                _ => {
                    let section = &c.new.section(atom.section).name;
                    Problem::new(codes::LP2007, place.clone(), format!("it is in {section}: {why}"))
                }
            };
            v.refused.push(problem);
            drop.push(*n);
            break;
        }
    }
    for n in drop {
        v.changed.remove(&n);
    }
}

fn report_gone(c: &Comparer<'_>, v: &mut Verdicts) {
    for atom in c.old.atoms.iter().filter(|a| a.kind == AtomKind::Function) {
        let gone = c.pairs.new_of(OldAtom(atom.id)).is_none() && parent_of(c.old, atom.id) == atom.id;
        if gone && c.old.class(atom.section) == Class::Text(TextKind::Normal) {
            v.ignored.push(Ignored {
                object: c.new.image.name.clone(),
                symbol: atom.name.clone(),
                reason: "gone from the new build; it stays in the kernel for whoever still refers to it".into(),
            });
        }
    }
}
