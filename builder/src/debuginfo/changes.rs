//! Types that changed functions use and that have another layout in the new build.
//!
//! A live patch changes code, not the objects that exist: new code that expects another layout reads and writes at the wrong
//! places, as does code that stays old. Types are compared by name within the unit of each function. One that is only declared
//! on a side is not known there and does not count as changed. Numbers of an enumeration without a name are compared each by its
//! own: code that uses one says nowhere which it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::alike::Alike;
use super::entries::Reader;
use super::layout::{Difference, Layout};
use super::reach::{Key, Reached, Start, Types};
use super::{DebugInfo, Unit};
use crate::parallel;

/// A function of the new build whose types are looked at.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// Where it was; nothing for one that is new.
    pub old: Option<u64>,
    /// Where it is.
    pub new: u64,
    /// Names of the variables of its file, or of others, that its code refers to in either build.
    pub globals: Vec<String>,
}

/// A type that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeChange {
    /// `struct foo`, `union foo`, `enum foo`; `foo` when only a typedef names it; `struct of foo` when it has no name but is what
    /// the variable `foo` has or leads to; `enum of FOO` when it has no name but the number `FOO`, the first that differs.
    pub name: String,
    /// How it differs: ``40 bytes became 48, member `bar` moved from 8 to 16 bytes``.
    pub what: String,
    /// All that was there is where it was: there are only new members in what was padding, or new values of an enumeration.
    pub additive: bool,
    /// There are only new values of an enumeration.
    pub more_values: bool,
    /// Both layouts near the difference, a part a line.
    pub shown: String,
    /// Index of the changed function that reaches it by the shortest way.
    pub function: usize,
    /// Structures on that way: 0 when the function itself names the type (or a pointer to it). Nothing when no function leads
    /// to it, but its unit has it: one may use it in a cast, which debug information does not tell.
    pub distance: Option<u32>,
    /// Offsets, sizes and values that only one of the two layouts has.
    pub numbers: Vec<u64>,
    /// The functions that may use it, where none leads to it.
    pub users: Vec<usize>,
    /// It counts even where the code of none of them differs in one of the numbers: a number may stand in code as a factor, a bit,
    /// a mask or the width of an access, or within the address of an element.
    pub always: bool,
}

/// Types that are used by these functions and have another layout in the new build, by name.
///
/// Used is what parameters, results and variables of a function, of what is inlined into it, and of what it calls, and the
/// variables it refers to lead to through members, pointers and arrays. So a type may be reached without being touched.
/// [`TypeChange::distance`] tells how far away it is. Parses the units that hold the functions, in parallel.
pub fn changed_types(old: &DebugInfo<'_>, new: &DebugInfo<'_>, functions: &[User]) -> Vec<TypeChange> {
    // What both have to do first.
    let many = old.is_large() || new.is_large();
    if many {
        rayon::join(|| old.cells(), || new.cells());
    }
    let place = |user: &User| (user.old.map(|was| old.function_place(was)), new.function_place(user.new));
    let places = parallel::map_if(many, functions, place);
    let mut pairs: BTreeMap<(Unit, Unit), Pair<'_>> = BTreeMap::new();
    for (index, (user, (was, is))) in functions.iter().zip(&places).enumerate() {
        let Some(is) = is else { continue };
        let was = match was {
            Some(was) => was.map(|(unit, entry)| (unit, Some(entry))),
            None => old.unit_like(new, is.0).map(|unit| (unit, None)),
        };
        let Some(was) = was else { continue };
        let pair = pairs.entry((was.0, is.0)).or_default();
        let start = |entry| Start { index, entry, globals: &user.globals };
        pair.old.extend(was.1.map(start));
        pair.new.push(start(is.1));
    }
    let pairs: Vec<_> = pairs.into_iter().collect();
    let found = parallel::map(&pairs, |((was, is), pair)| compare(old, *was, new, *is, pair).unwrap_or_default());
    let mut nearest: BTreeMap<(String, String), TypeChange> = BTreeMap::new();
    for change in found.into_iter().flatten() {
        let key = (change.name.clone(), change.what.clone());
        let rank = |c: &TypeChange| (c.distance.is_none(), c.distance, c.function);
        match nearest.get_mut(&key) {
            Some(have) if have.distance.is_none() && change.distance.is_none() => have.users.extend(change.users),
            Some(have) if rank(have) <= rank(&change) => {}
            _ => {
                nearest.insert(key, change);
            }
        }
    }
    nearest.into_values().collect()
}

/// Functions of a unit of each build.
#[derive(Default)]
struct Pair<'u> {
    old: Vec<Start<'u>>,
    new: Vec<Start<'u>>,
}

fn compare(old: &DebugInfo<'_>, was: Unit, new: &DebugInfo<'_>, is: Unit, pair: &Pair<'_>) -> Option<Vec<TypeChange>> {
    let (before, after) = (Reader::new(old, was)?, Reader::new(new, is)?);
    let mut old = Types::of(&before, &pair.old);
    let mut new = Types::of(&after, &pair.new);
    // Where all types of both units are the same, only the types that variables have can be others.
    if Alike::of(&before, &after).is_some_and(|alike| old.begin_alike(&new, &alike)) {
        return Some(variables(&old, &new));
    }
    old.follow();
    new.follow();
    let mut out = Vec::new();
    let first = pair.new.first()?.index;
    let users: Vec<usize> = pair.new.iter().map(|s| s.index).collect();
    let change = |key: &Key<'_>, difference: Difference, by: &[&Reached<'_>]| {
        let (distance, function) = by.iter().map(|r| (r.distance, r.function)).min().unzip();
        TypeChange {
            name: format!("{} {}", key.0, key.1).trim_start().to_owned(),
            what: difference.what,
            additive: difference.additive,
            more_values: difference.more_values,
            shown: difference.shown,
            function: function.unwrap_or(first),
            distance,
            numbers: difference.numbers,
            users: if by.is_empty() { users.clone() } else { Vec::new() },
            always: by.is_empty() && difference.unseen,
        }
    };
    let (was, is) = (std::mem::take(&mut old.reached), std::mem::take(&mut new.reached));
    // Numbers of types that are told of themselves.
    let mut told: FxHashSet<Cow<'_, str>> = FxHashSet::default();
    for (key, reached) in &was {
        let found = match is.get(key) {
            Some(other) => difference(&reached.layouts, &other.layouts).map(|d| {
                let layouts = reached.layouts.iter().chain(&other.layouts);
                told.extend(layouts.flat_map(|l| l.values()).map(|v| v.0.clone()));
                change(key, d, &[reached, other])
            }),
            None => difference(&reached.layouts, &new.defined(key)).map(|d| change(key, d, &[reached])),
        };
        out.extend(found);
    }
    for (key, reached) in is.iter().filter(|(key, _)| !was.contains_key(*key)) {
        out.extend(difference(&old.defined(key), &reached.layouts).map(|d| change(key, d, &[reached])));
    }
    for key in new.names().into_iter().filter(|key| !was.contains_key(key) && !is.contains_key(key)) {
        out.extend(difference(&old.defined(&key), &new.defined(&key)).map(|d| change(&key, d, &[])));
    }
    for (first, difference) in constants(&old.enumerations(), &new.enumerations(), &told) {
        out.push(TypeChange { always: true, ..change(&("enum", format!("of {first}").into()), difference, &[]) });
    }
    out.extend(variables(&old, &new));
    Some(out)
}

/// An enumeration, and what it goes by.
type Enumeration<'a> = (Option<Key<'a>>, Layout<'a>);

/// Names that stand for another number, by enumeration, except where both are in one that is compared by its own name: the
/// first, and how they differ. One that is new or gone is nothing to code that is there.
fn constants<'a>(
    old: &[Enumeration<'a>],
    new: &[Enumeration<'a>],
    told: &FxHashSet<Cow<'_, str>>,
) -> Vec<(Cow<'a, str>, Difference)> {
    let values = old.iter().flat_map(|(key, layout)| layout.values().iter().map(move |v| (&*v.0, (key, v.1))));
    let known: FxHashMap<&str, (&Option<Key<'_>>, i128)> = values.collect();
    let mut out = Vec::new();
    for (key, layout) in new {
        let mut differ = Vec::new();
        for (name, number) in layout.values().iter().filter(|v| !told.contains(&v.0)) {
            match known.get(&**name) {
                Some((of, before)) if before != number && (key.is_none() || *of != key) => {
                    differ.push((*before, *number, name.clone()));
                }
                _ => {}
            }
        }
        differ.sort();
        let was: Vec<_> = differ.iter().map(|(before, _, name)| (name.clone(), *before)).collect();
        let is = differ.into_iter().map(|(_, number, name)| (name, number)).collect();
        let Some((first, _)) = was.first().cloned() else { continue };
        out.extend(Layout::of_values(was).difference(&Layout::of_values(is)).map(|d| (first, d)));
    }
    out
}

/// Variables that live in both builds and whose content means something else. How many elements an array has is seen by its
/// size, where data is compared.
fn variables(old: &Types<'_, '_>, new: &Types<'_, '_>) -> Vec<TypeChange> {
    let both = new.variables.iter().filter_map(|(key, is)| Some((key, old.variables.get(key)?, is)));
    let differ = both.filter(|(_, was, is)| without_lengths(was) != without_lengths(is));
    differ
        .map(|((function, name), was, is)| TypeChange {
            name: name.clone(),
            what: format!("the variable was `{was}` and is `{is}`"),
            additive: false,
            more_values: false,
            shown: format!("  old: {was} {name}\n  new: {is} {name}"),
            function: *function,
            distance: Some(0),
            numbers: Vec::new(),
            users: Vec::new(),
            always: false,
        })
        .collect()
}

fn without_lengths(spelled: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    for c in spelled.chars() {
        within = if c == '[' { true } else { within && c != ']' };
        if !within || c == '[' {
            out.push(c);
        }
    }
    out
}

/// How the definitions of a name differ. Where there are several, each new one must be one of the old ones.
fn difference(old: &[Layout<'_>], new: &[Layout<'_>]) -> Option<Difference> {
    let first = old.first()?;
    let unknown = new.iter().find(|n| !old.iter().any(|o| o.difference(n).is_none()))?;
    old.iter().find(|o| !new.contains(o)).unwrap_or(first).difference(unknown)
}
