//! Old atoms x new atoms -> [`Pairs`]: which new function or object is which old one.
//!
//! A ladder; the rung that matched is kept and shown by `why`:
//!
//! 1. `name`       one of its own names on both sides, none of which went elsewhere: `pipe_read`
//! 2. `base-name`  the same name without the number of the compiler, once on each side; not for state
//! 3. `clone-name` several clones of one function, paired by content, then by their full names: `foo.part.0`
//! 4. `declared`   static variables declared at the same place, says the debug information (`declared.rs`)
//! 5. `reference`  referred to at the same place of one unchanged neighbourhood (`evidence.rs`)
//! 6. `content`    the same bytes and references, unique on both sides; not for state
//! 7. `order`      as many on both sides, same sizes, in the same order; constants and lists, whose content is compared, and flags of messages
//!
//! A wrong pair of functions does no harm: compare then finds every caller changed. Nor does one of constants. State is
//! what a wrong pair would mix up: writable data the compiler numbered (`hits.0`, a static variable of a block) or that has no
//! name. Its number means nothing, so it needs rung 4 or 5, and rungs that contradict each other are no pair. What stays open
//! there is remembered and refused when a carried function refers to it (LP2006).
//!
//! Not state: one-shot flags, rate limits and lock classes. One taken for another, or a fresh one, means one message more or
//! less, so that their order is enough where nothing else speaks; and descriptors of debug messages (`__dyndbg`), which are the same only with the same function, format and file:
//! a message with another text is another message, and of equal ones without evidence the new code brings its own.

mod content;
mod debug;
mod declared;
mod evidence;
mod flow;
mod named;

use crate::symbolize::base_name;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use content::blank_line_number;
pub use debug::Files;
pub use declared::{Declarations, Declared, DeclaredSide, Unknown};

use crate::symbolize::{AtomId, AtomKind, Class, Object, TextKind};
use declared::Places;
use evidence::Evidence;

/// The rung of the ladder that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Same name.
    Name,
    /// Same name without number, unique.
    BaseName,
    /// Same full name among several clones.
    CloneName,
    /// Declared at the same place.
    Declared,
    /// Same place of one unchanged neighbourhood.
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
    /// Of those, the ones with a name of their own, and what may have been moved there: a variable of a function that is gone.
    pub instead_of: BTreeMap<NewAtom, OldAtom>,
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
type GroupKey = (bool, Cow<'static, str>, String);

#[derive(Default)]
struct Group {
    old: Vec<OldAtom>,
    new: Vec<NewAtom>,
}

/// Correlates two builds of one object of which only the objects themselves are known.
pub fn correlate(old: &Object, new: &Object) -> Pairs {
    correlate_with(old, new, &Unknown)
}

/// Correlates two builds of one object.
pub fn correlate_with(old: &Object, new: &Object, debug: &dyn Declarations) -> Pairs {
    let mut pairs = Pairs::default();
    named::pair(old, new, &mut pairs);
    let groups = groups(old, new, &pairs);
    if groups.is_empty() {
        moved_out(old, new, &mut pairs);
        return pairs;
    }
    for group in groups.values() {
        by_base_name(old, new, group, &mut pairs);
    }
    let places = places(old, new, &groups, debug);
    by_evidence(old, new, &groups, &places, &mut pairs);
    for group in groups.values() {
        by_content(old, new, group, &mut pairs);
        by_order(old, new, group, &mut pairs);
        let unsure = |n: &&NewAtom| {
            let open = |o: &OldAtom| pairs.new_of(*o).is_none() && !places.differ(*o, **n) && !is_once(old, o.0);
            pairs.old_of(**n).is_none() && !is_once(new, n.0) && !is_message(new, n.0) && group.old.iter().any(open)
        };
        let unsure: Vec<NewAtom> = group.new.iter().filter(unsure).copied().collect();
        pairs.ambiguous.extend(unsure);
    }
    moved_out(old, new, &mut pairs);
    pairs
}

/// A static variable of a function that is gone, and a new variable of the same kind and size: the same one, moved to the file or
/// to another function, as far as anybody can tell. Carried, it would begin anew, and a lock would be another one.
fn moved_out(old: &Object, new: &Object, pairs: &mut Pairs) {
    let named = |object: &Object, id: AtomId| object.atom(id).kind == AtomKind::Data && is_state(object, id);
    let of_a_function = |name: &str| base_name(name) != name;
    let lost = old.atoms.iter().filter(|a| pairs.new_of(OldAtom(a.id)).is_none());
    let lost: Vec<AtomId> = lost.filter(|a| of_a_function(&a.name) && named(old, a.id)).map(|a| a.id).collect();
    if lost.is_empty() {
        return;
    }
    for atom in new.atoms.iter().filter(|a| named(new, a.id)) {
        let n = NewAtom(atom.id);
        if pairs.old_of(n).is_some() || pairs.ambiguous.contains(&n) {
            continue;
        }
        let alike = |o: &&AtomId| kind_of(old, **o) == kind_of(new, atom.id) && old.atom(**o).size() == atom.size();
        let by_name = |o: &&AtomId| base_name(&old.atom(**o).name) == base_name(&atom.name);
        let found = lost.iter().filter(alike).find(by_name).or_else(|| lost.iter().find(alike));
        if let Some(o) = found {
            pairs.ambiguous.insert(n);
            pairs.instead_of.insert(n, OldAtom(*o));
        }
    }
}

/// What has no pair yet, where there is something on both sides.
fn groups(old: &Object, new: &Object, pairs: &Pairs) -> BTreeMap<GroupKey, Group> {
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    for atom in old.atoms.iter().filter(|a| pairs.new_of(OldAtom(a.id)).is_none()) {
        groups.entry(group_key(old, atom.id)).or_default().old.push(OldAtom(atom.id));
    }
    for atom in new.atoms.iter().filter(|a| pairs.old_of(NewAtom(a.id)).is_none()) {
        groups.entry(group_key(new, atom.id)).or_default().new.push(NewAtom(atom.id));
    }
    groups.retain(|_, g| !g.old.is_empty() && !g.new.is_empty());
    groups
}

/// Code or data, and the kind of section.
fn kind_of(object: &Object, id: AtomId) -> (bool, Cow<'static, str>) {
    let atom = object.atom(id);
    let class = match object.class(atom.section) {
        // With -ffunction-sections the section is named for the function.
        Class::Text(_) => "text".into(),
        // A variable that gains or loses its initial value moves between these; it is still the same variable.
        Class::Data | Class::Bss => "writable".into(),
        Class::Rodata => "Rodata".into(),
        c => format!("{c:?}").into(),
    };
    (atom.is_code(), class)
}

fn group_key(object: &Object, id: AtomId) -> GroupKey {
    let atom = object.atom(id);
    let (code, class) = kind_of(object, id);
    let section = &object.section(atom.section).name;
    let name = if is_unnamed(object, id) { section_base(section) } else { base_name(&atom.name).into_owned() };
    (code, class, name)
}

/// Is its name only its place?
fn is_unnamed(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    atom.name.contains('+') && atom.name.starts_with(&object.section(atom.section).name)
}

/// Without a name that means something: numbered by the compiler, or none at all. GCC numbers every static variable of a
/// block; clang puts the function in front (`check.hits`) and numbers the second one.
fn is_loose(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    let of_a_block = !atom.is_code() && !atom.global && atom.name.trim_start_matches('.').contains('.');
    is_unnamed(object, id) || base_name(&atom.name) != atom.name.as_str() || of_a_block
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

/// One-shot flags (`WARN_ON_ONCE`, `pr_warn_once`), rate limits (include/linux/ratelimit.h) and lock class keys: a fresh one
/// only means one more message. They go by the names the kernel's macros give them: in `.data.once` are also flags of other
/// kinds, such as `___done` of DO_ONCE (include/linux/once.h), behind which secrets are made, and authors' own.
fn is_once(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    if atom.kind == AtomKind::Gap {
        // Padding behind a key without content: without lockdep all are empty (include/linux/lockdep_types.h).
        let mut empty = object.atoms_of(atom.section).iter().map(|a| object.atom(*a));
        return empty.any(|a| a.start == atom.start && a.size() == 0 && a.id != id && is_once(object, a.id));
    }
    let name = &atom.name;
    // `check.__warned.3` of clang.
    let own = name.rsplit('.').find(|part| part.contains(|c: char| !c.is_ascii_digit()));
    matches!(own, Some("__key" | "__already_done" | "__warned" | "__print_once" | "_rs"))
}

/// A descriptor of a debug message (include/linux/dynamic_debug.h), or the format of a trace message.
fn is_message(object: &Object, id: AtomId) -> bool {
    matches!(&*object.section(object.atom(id).section).name, "__dyndbg" | "__trace_printk_fmt")
}

/// Does it hold what a wrong pair would mix up?
fn is_state(object: &Object, id: AtomId) -> bool {
    let atom = object.atom(id);
    let writable = matches!(object.class(atom.section), Class::Data | Class::Bss | Class::Percpu);
    let used = || {
        let (from, to) = (atom.start as i64, atom.end as i64);
        object.incoming(atom.section, from, to).iter().any(|i| object.atom(i.from).is_code())
            || object.entries_into(atom.section, from, to).next().is_some()
    };
    writable && atom.size() > 0 && !is_once(object, id) && !is_message(object, id) && used()
}

/// May the two be paired by where they are used or declared?
fn fits(old: &Object, o: OldAtom, new: &Object, n: NewAtom) -> bool {
    let same_size = old.atom(o.0).is_code() || old.atom(o.0).size() == new.atom(n.0).size();
    let same_message = !is_message(old, o.0) || content::signature(old, o.0) == content::signature(new, n.0);
    same_size && same_message
}

/// Numbered constants and functions; of state the number says nothing, nor does the place of what has no name.
fn by_base_name(old: &Object, new: &Object, group: &Group, pairs: &mut Pairs) {
    if let ([o], [n]) = (&group.old[..], &group.new[..]) {
        let both = is_loose(old, o.0) && is_loose(new, n.0);
        let weak =
            is_state(old, o.0) || is_state(new, n.0) || is_aux(old, o.0) || is_once(new, n.0) || is_message(new, n.0);
        if both && !weak {
            pairs.pair(*o, *n, Level::BaseName);
        }
        return;
    }
    if group.old.iter().any(|o| !old.atom(o.0).is_code() || is_unnamed(old, o.0)) {
        return;
    }
    by_content(old, new, group, pairs);
    for o in &group.old {
        let name = &old.atom(o.0).name;
        if let Some(n) = group.new.iter().find(|n| new.atom(n.0).name == *name) {
            pairs.pair(*o, *n, Level::CloneName);
        }
    }
}

/// Code of feature tests, which belongs to whoever jumps there.
fn is_aux(object: &Object, id: AtomId) -> bool {
    object.class_of(id) == Class::Text(TextKind::AltAux)
}

fn places(old: &Object, new: &Object, groups: &BTreeMap<GroupKey, Group>, debug: &dyn Declarations) -> Places {
    let variable = |object: &Object, id: &AtomId| {
        object.atom(*id).kind == AtomKind::Data && (is_state(object, *id) || is_once(object, *id))
    };
    let olds: Vec<AtomId> = groups.values().flat_map(|g| &g.old).map(|o| o.0).filter(|a| variable(old, a)).collect();
    let news: Vec<AtomId> = groups.values().flat_map(|g| &g.new).map(|n| n.0).filter(|a| variable(new, a)).collect();
    Places::of(debug, (old, &olds), (new, &news))
}

fn by_evidence(old: &Object, new: &Object, groups: &BTreeMap<GroupKey, Group>, places: &Places, pairs: &mut Pairs) {
    let open_old: BTreeSet<AtomId> =
        groups.values().flat_map(|g| &g.old).filter(|o| pairs.new_of(**o).is_none()).map(|o| o.0).collect();
    let open_new: BTreeSet<AtomId> =
        groups.values().flat_map(|g| &g.new).filter(|n| pairs.old_of(**n).is_none()).map(|n| n.0).collect();
    if open_old.is_empty() || open_new.is_empty() {
        return;
    }
    let open = [&open_old, &open_new];
    let declared = places.evidence(old, new);
    let used = Evidence::of_functions(old, new, open, pairs);
    let fits = |o, n| fits(old, o, new, n) && !places.differ(o, n);
    // Of flags of messages the use is at most their order.
    let is_flag = |o: OldAtom, n: NewAtom| is_once(old, o.0) && is_once(new, n.0);
    declared.settle(pairs, Level::Declared, |o, n| fits(o, n) && (is_flag(o, n) || used.is_for(o, n)));
    used.settle(pairs, Level::Reference, |o, n| fits(o, n) && declared.is_for(o, n));
    // What pairs of data point to, and those in turn.
    while Evidence::of_data(old, new, open, pairs)
        .settle(pairs, Level::Reference, |o, n| fits(o, n) && declared.is_for(o, n) && used.is_for(o, n))
    {}
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
    for a in o.into_iter().filter(|a| !is_state(old, a.0) && !is_once(old, a.0) && !is_aux(old, a.0)) {
        sides.entry(content::signature(old, a.0)).or_default().0.push(*a);
    }
    for a in n.into_iter().filter(|a| !is_state(new, a.0) && !is_once(new, a.0) && !is_aux(new, a.0)) {
        sides.entry(content::signature(new, a.0)).or_default().1.push(*a);
    }
    for (o, n) in sides.into_values() {
        if let ([o], [n]) = (&o[..], &n[..]) {
            pairs.pair(*o, *n, Level::Content);
        }
    }
}

/// Only what is compared by content afterwards, or by nobody.
fn by_order(old: &Object, new: &Object, group: &Group, pairs: &mut Pairs) {
    let (o, n) = left(group, pairs);
    let flags =
        |o: &[&OldAtom], n: &[&NewAtom]| o.iter().all(|o| is_once(old, o.0)) && n.iter().all(|n| is_once(new, n.0));
    let sizes = o.iter().zip(&n).all(|(o, n)| old.atom(o.0).size() == new.atom(n.0).size());
    if flags(&o, &n) && o.len() == n.len() && sizes {
        let list: Vec<_> = o.into_iter().copied().zip(n.into_iter().copied()).collect();
        for (o, n) in list {
            pairs.pair(o, n, Level::Order);
        }
        return;
    }
    let apart = |object: &Object, a: AtomId| is_state(object, a) || is_once(object, a) || is_message(object, a);
    let fits = o.len() == n.len()
        && o.iter().zip(&n).all(|(o, n)| {
            let loose = is_loose(old, o.0) || is_loose(new, n.0);
            loose && old.atom(o.0).size() == new.atom(n.0).size() && !apart(old, o.0) && !apart(new, n.0)
        });
    if !fits || o.is_empty() || old.atom(o[0].0).is_code() {
        return;
    }
    let list: Vec<_> = o.into_iter().copied().zip(n.into_iter().copied()).collect();
    for (o, n) in list {
        pairs.pair(o, n, Level::Order);
    }
}
