//! Old atoms x new atoms -> [`Pairs`]: which new function or object is which old one.
//!
//! A ladder, widest one-to-one match first; the rung that matched is kept and shown by `why`:
//!
//! 1. `name`       the same name on both sides, not numbered by the compiler: `pipe_read`
//! 2. `base-name`  the same name without its number, once on each side: `__already_done.3` and `__already_done.5`
//! 3. `clone-name` several clones of one function, paired by their full names: `foo.part.0`
//! 4. `reference`  referred to at the same place of a pair of functions: `__func__.12` in `dev_open`
//! 5. `content`    the same bytes and references, unique on both sides: dynamic debug descriptors
//! 6. `order`      as many on both sides, same sizes, in the same order: the weak rung, shown as such
//!
//! A wrong pair of functions does no harm: compare then finds every caller changed. A wrong pair of writable data would
//! mix up state, so what stays ambiguous there is remembered and refused when a carried function refers to it.

mod names;
mod references;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use names::{base_name, is_cold, parent_name};
pub use references::blank_line_number;

use crate::symbolize::{AtomId, Class, Object};

/// The rung of the ladder that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Same name.
    Name,
    /// Same name without number, unique.
    BaseName,
    /// Same full name among several clones.
    CloneName,
    /// Same place of a pair of functions.
    Reference,
    /// Same content.
    Content,
    /// Same order.
    Order,
}

/// An atom of the old object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OldAtom(pub AtomId);

/// An atom of the new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NewAtom(pub AtomId);

/// Which is which.
#[derive(Debug, Default)]
pub struct Pairs {
    to_new: Vec<Option<(NewAtom, Level)>>,
    to_old: Vec<Option<(OldAtom, Level)>>,
    all_but: Option<BTreeSet<OldAtom>>,
    /// New data that may or may not be one of several old objects, also where one of them was taken for it.
    pub ambiguous: BTreeSet<NewAtom>,
}

impl Pairs {
    /// The new atom of an old one.
    pub fn new_of(&self, old: OldAtom) -> Option<NewAtom> {
        self.to_new.get(old.0.0 as usize).copied().flatten().map(|p| p.0)
    }
    /// The old atom of a new one.
    pub fn old_of(&self, new: NewAtom) -> Option<OldAtom> {
        self.to_old.get(new.0.0 as usize).copied().flatten().map(|p| p.0)
    }
    /// How a new atom was matched.
    pub fn level(&self, new: NewAtom) -> Option<Level> {
        self.to_old.get(new.0.0 as usize).copied().flatten().map(|p| p.1)
    }
    /// All pairs in the order of the old atoms.
    pub fn iter(&self) -> impl Iterator<Item = (OldAtom, NewAtom)> + '_ {
        (0u32..).zip(&self.to_new).filter_map(|(o, n)| n.map(|(n, _)| (OldAtom(AtomId(o)), n)))
    }
    /// The pairs that are not known to be the same.
    pub fn open(&self) -> impl Iterator<Item = (OldAtom, NewAtom)> + '_ {
        self.iter().filter(|(o, _)| !self.is_proven(*o))
    }
    /// Is the pair of this old atom known to be the same?
    pub fn is_proven(&self, old: OldAtom) -> bool {
        self.all_but.as_ref().is_some_and(|open| !open.contains(&old))
    }
    /// Are some pairs known to be the same without being compared, as those of whole images?
    pub fn are_partly_proven(&self) -> bool {
        self.all_but.is_some()
    }
    /// Marks all pairs but these as compared elsewhere and found to be the same.
    pub fn prove_all_but(&mut self, open: BTreeSet<OldAtom>) {
        self.all_but = Some(open);
    }

    /// Makes a pair, unless one of the two has another partner.
    pub fn pair(&mut self, old: OldAtom, new: NewAtom, level: Level) {
        let (o, n) = (old.0.0 as usize, new.0.0 as usize);
        if self.to_new.len() <= o {
            self.to_new.resize(o + 1, None);
        }
        if self.to_old.len() <= n {
            self.to_old.resize(n + 1, None);
        }
        if self.to_new[o].is_none() && self.to_old[n].is_none() {
            self.to_new[o] = Some((new, level));
            self.to_old[n] = Some((old, level));
        }
    }
}

/// What must agree for two atoms to be the same thing: code or data, class of section, name without numbers.
type GroupKey = (bool, String, String);

#[derive(Default)]
struct Group {
    old: Vec<OldAtom>,
    new: Vec<NewAtom>,
}

/// Correlates two builds of one object.
pub fn correlate(old: &Object, new: &Object) -> Pairs {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for atom in &old.atoms {
        groups.entry(key(old, atom.id)).or_default().old.push(OldAtom(atom.id));
    }
    for atom in &new.atoms {
        groups.entry(key(new, atom.id)).or_default().new.push(NewAtom(atom.id));
    }
    let mut pairs = Pairs::default();
    for group in groups.values() {
        by_name(old, new, group, &mut pairs);
    }
    references::pair(old, new, &|o, a| key(o, a), &mut pairs);
    for group in groups.values() {
        by_content(old, new, group, &mut pairs);
        by_order(old, new, group, &mut pairs);
        let left_old = group.old.iter().any(|o| pairs.new_of(*o).is_none());
        let unsure: Vec<NewAtom> = group
            .new
            .iter()
            .copied()
            .filter(|n| pairs.old_of(*n).is_none() && left_old && !is_once(new, n.0))
            .collect();
        pairs.ambiguous.extend(unsure);
    }
    pairs
}

fn key(object: &Object, id: AtomId) -> GroupKey {
    let atom = object.atom(id);
    let class = match object.class(atom.section) {
        // With -ffunction-sections the section is named for the function.
        Class::Text(_) => String::from("text"),
        // A variable that gains or loses its initial value moves between these; it is still the same variable.
        Class::Data | Class::Bss => String::from("writable"),
        c => format!("{c:?}"),
    };
    let unnamed = atom.name.starts_with(&object.section(atom.section).name) && atom.name.contains('+');
    let name =
        if unnamed { section_base(&object.section(atom.section).name) } else { base_name(&atom.name).into_owned() };
    (atom.is_code(), class, name)
}

/// `.rodata.foo` of `-fdata-sections` and `.rodata` of plain objects.
fn section_base(name: &str) -> String {
    for base in [".rodata", ".data", ".bss", ".text"] {
        if name == base || name.strip_prefix(base).is_some_and(|r| r.starts_with('.') && !r.starts_with("..")) {
            return base.into();
        }
    }
    name.into()
}

/// One-shot flags (`WARN_ON_ONCE`, `pr_warn_once`) and lock class keys: a fresh one only means one more message.
fn is_once(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    // `.data..once` since 6.13 (and 6.12.y). A format that is printed has no state either.
    matches!(&*object.section(atom.section).name, ".data.once" | ".data..once" | "__trace_printk_fmt")
        || matches!(&*base_name(&atom.name), "__key" | "__already_done" | "__warned")
}

fn by_name(old: &Object, new: &Object, group: &Group, pairs: &mut Pairs) {
    if let ([o], [n]) = (&group.old[..], &group.new[..]) {
        let same = old.atom(o.0).name == new.atom(n.0).name;
        pairs.pair(*o, *n, if same { Level::Name } else { Level::BaseName });
        return;
    }
    for o in &group.old {
        let atom = old.atom(o.0);
        let numbered = base_name(&atom.name) != atom.name.as_str();
        let found = group.new.iter().find(|n| new.atom(n.0).name == atom.name);
        if let Some(n) = found.filter(|_| atom.is_code() && !atom.name.contains('+') || !numbered) {
            pairs.pair(*o, *n, if numbered { Level::CloneName } else { Level::Name });
        }
    }
}

fn left<'g>(group: &'g Group, pairs: &Pairs) -> (Vec<&'g OldAtom>, Vec<&'g NewAtom>) {
    (
        group.old.iter().filter(|o| pairs.new_of(**o).is_none()).collect(),
        group.new.iter().filter(|n| pairs.old_of(**n).is_none()).collect(),
    )
}

fn by_content(old: &Object, new: &Object, group: &Group, pairs: &mut Pairs) {
    let (o, n) = left(group, pairs);
    if o.is_empty() || n.is_empty() {
        return;
    }
    let mut sides: BTreeMap<Vec<u8>, (Vec<OldAtom>, Vec<NewAtom>)> = BTreeMap::new();
    for a in o {
        sides.entry(references::signature(old, a.0)).or_default().0.push(*a);
    }
    for a in n {
        sides.entry(references::signature(new, a.0)).or_default().1.push(*a);
    }
    for (o, n) in sides.into_values() {
        if let ([o], [n]) = (&o[..], &n[..]) {
            pairs.pair(*o, *n, Level::Content);
        }
    }
}

fn by_order(old: &Object, new: &Object, group: &Group, pairs: &mut Pairs) {
    let (o, n) = left(group, pairs);
    let fits = o.len() == n.len() && o.iter().zip(&n).all(|(o, n)| old.atom(o.0).size() == new.atom(n.0).size());
    if !fits || o.is_empty() || old.atom(o[0].0).is_code() {
        return;
    }
    let list: Vec<_> = o.into_iter().copied().zip(n.into_iter().copied()).collect();
    for (o, n) in list {
        pairs.pair(o, n, Level::Order);
    }
}
