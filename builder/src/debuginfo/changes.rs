//! Types that changed functions use and that have another layout in the new build.
//!
//! A live patch changes code, not the objects that exist: new code that expects another layout reads and writes at the wrong
//! places, as does code that stays old. Types are compared by name within the unit of each function. One that is only declared
//! on a side is not known there and does not count as changed.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::entries::Reader;
use super::layout::{Difference, Layout};
use super::reach::{Key, Reached, Types};
use super::{DebugInfo, Unit};

/// A type that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeChange {
    /// `struct foo`, `union foo`, `enum foo`; `foo` when only a typedef names it.
    pub name: String,
    /// How it differs: ``40 bytes became 48, member `bar` moved from 8 to 16 bytes``.
    pub what: String,
    /// All that was there is where it was: there are only new members in what was padding, or new values of an enumeration.
    pub additive: bool,
    /// Index of the changed function that reaches it by the shortest way.
    pub function: usize,
    /// Structures on that way: 0 when the function itself names the type (or a pointer to it).
    pub distance: u32,
}

/// Types that are used by these functions (old and new address of each) and have another layout in the new build, by name.
///
/// Used is what parameters, results and variables of a function, and of what is inlined into it, lead to through members,
/// pointers and arrays. So a type may be reached without being touched; [`TypeChange::distance`] tells how far away it is.
/// Parses the units that hold the functions, in parallel.
pub fn changed_types(old: &DebugInfo<'_>, new: &DebugInfo<'_>, functions: &[(u64, u64)]) -> Vec<TypeChange> {
    // What both have to do first.
    rayon::join(|| old.cells(), || new.cells());
    let places: Vec<_> = functions
        .par_iter()
        .enumerate()
        .map(|(index, (was, is))| (index, old.function_place(*was), new.function_place(*is)))
        .collect();
    let mut pairs: BTreeMap<(Unit, Unit), Pair> = BTreeMap::new();
    for (index, was, is) in places {
        let (Some(was), Some(is)) = (was, is) else { continue };
        let pair = pairs.entry((was.0, is.0)).or_default();
        pair.old.push((index, was.1));
        pair.new.push((index, is.1));
    }
    let pairs: Vec<_> = pairs.into_iter().collect();
    let found: Vec<TypeChange> = pairs
        .par_iter()
        .flat_map_iter(|((was, is), pair)| compare(old, *was, new, *is, pair).unwrap_or_default())
        .collect();
    let mut nearest: BTreeMap<(String, String), TypeChange> = BTreeMap::new();
    for change in found {
        let key = (change.name.clone(), change.what.clone());
        let nearer = |have: &TypeChange| (have.distance, have.function) <= (change.distance, change.function);
        if !nearest.get(&key).is_some_and(nearer) {
            nearest.insert(key, change);
        }
    }
    nearest.into_values().collect()
}

/// Functions of a unit of each build, as index and entry.
#[derive(Default)]
struct Pair {
    old: Vec<(usize, usize)>,
    new: Vec<(usize, usize)>,
}

fn compare(old: &DebugInfo<'_>, was: Unit, new: &DebugInfo<'_>, is: Unit, pair: &Pair) -> Option<Vec<TypeChange>> {
    let (old, new) = (Reader::new(old, was)?, Reader::new(new, is)?);
    let mut old = Types::of(&old, &pair.old);
    let mut new = Types::of(&new, &pair.new);
    let mut out = Vec::new();
    let change = |key: &Key<'_>, difference: Difference, by: &[&Reached<'_>]| {
        let (distance, function) = by.iter().map(|r| (r.distance, r.function)).min().unwrap_or_default();
        let name = format!("{} {}", key.0, key.1).trim_start().to_owned();
        TypeChange { name, what: difference.what, additive: difference.additive, function, distance }
    };
    for (key, reached) in std::mem::take(&mut old.reached) {
        match new.reached.remove(&key) {
            Some(other) => {
                out.extend(difference(&reached.layouts, &other.layouts).map(|d| change(&key, d, &[&reached, &other])));
            }
            None => {
                let layouts = new.defined(&key);
                out.extend(difference(&reached.layouts, &layouts).map(|d| change(&key, d, &[&reached])));
            }
        }
    }
    for (key, reached) in std::mem::take(&mut new.reached) {
        let layouts = old.defined(&key);
        out.extend(difference(&layouts, &reached.layouts).map(|d| change(&key, d, &[&reached])));
    }
    Some(out)
}

/// How the definitions of a name differ. Where there are several, each new one must be one of the old ones.
fn difference(old: &[Layout<'_>], new: &[Layout<'_>]) -> Option<Difference> {
    let first = old.first()?;
    let unknown = new.iter().find(|n| !old.iter().any(|o| o.difference(n).is_none()))?;
    old.iter().find(|o| !new.contains(o)).unwrap_or(first).difference(unknown)
}
