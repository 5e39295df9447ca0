//! Where debug information says a static variable is declared.
//!
//! `lpbuild build` keeps the line numbers of lines that did not change, and gives those that did numbers of their own
//! (`source/lines.rs`): two variables declared in one function at one line are the same. Elsewhere lines move. Where a function has
//! one variable of the name, as far from its beginning as before, that is the same one. Of several, the place must be the same as
//! counted from both ends of the function, which then has as many lines as before, and all variables of the name that one
//! build has must be at such places of the other: lines that moved by as much as others came or went would otherwise
//! look the same. Where the code says otherwise, both stay open.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, NewAtom, OldAtom};
use crate::ingest::SectionId;
use crate::symbolize::{AtomId, Object};

/// The place of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The function it is in; nothing for a variable of the file.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line.
    pub line: u64,
    /// The line its function is declared at.
    pub function_line: Option<u64>,
    /// From there to the last line of its code, where that matters.
    pub function_lines: Option<u64>,
}

/// Which of the two builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclaredSide {
    /// The old one.
    Old,
    /// The new one.
    New,
}

/// What debug information says, read when it is asked.
pub trait Declarations {
    /// Where the variable at this place is declared.
    fn of(&self, side: DeclaredSide, section: SectionId, offset: u64) -> Option<Declared>;
    /// Do lines that did not change have the same numbers in both builds, and no others?
    fn lines_kept(&self) -> bool;
}

/// No debug information.
#[derive(Clone, Copy, Debug)]
pub struct Unknown;

impl Declarations for Unknown {
    fn of(&self, _: DeclaredSide, _: SectionId, _: u64) -> Option<Declared> {
        None
    }
    fn lines_kept(&self) -> bool {
        false
    }
}

/// The declarations of what is open.
pub struct Places {
    old: BTreeMap<AtomId, Declared>,
    new: BTreeMap<AtomId, Declared>,
    /// Names of which some variables are not in the debug information.
    partly: BTreeSet<super::GroupKey>,
    lines_kept: bool,
}

/// Name, function and file.
type Home<'a> = (super::GroupKey, &'a str, Option<&'a str>);

impl Places {
    /// Asks about the atoms of both sides.
    pub fn of(debug: &dyn Declarations, (old, a): (&Object, &[AtomId]), (new, b): (&Object, &[AtomId])) -> Self {
        let mut partly = BTreeSet::new();
        let mut ask = |side, object: &Object, list: &[AtomId]| {
            let mut found = BTreeMap::new();
            for id in list {
                match debug.of(side, object.atom(*id).section, object.atom(*id).start) {
                    Some(declared) => {
                        found.insert(*id, declared);
                    }
                    None => {
                        partly.insert(super::group_key(object, *id));
                    }
                }
            }
            found
        };
        let (old, new) = (ask(DeclaredSide::Old, old, a), ask(DeclaredSide::New, new, b));
        Self { old, new, partly, lines_kept: debug.lines_kept() }
    }

    /// Are they variables of two functions?
    pub fn differ(&self, o: OldAtom, n: NewAtom) -> bool {
        let function = |d: Option<&Declared>| d.map(|d| d.function.clone());
        matches!((function(self.old.get(&o.0)), function(self.new.get(&n.0))), (Some(a), Some(b)) if a != b)
    }

    /// What is declared at the same place.
    pub fn evidence(&self, old: &Object, new: &Object) -> Evidence {
        let mut homes: BTreeMap<Home<'_>, (Vec<AtomId>, Vec<AtomId>)> = BTreeMap::new();
        for (id, d) in &self.old {
            homes.entry(home(old, *id, d)).or_default().0.push(*id);
        }
        for (id, d) in &self.new {
            homes.entry(home(new, *id, d)).or_default().1.push(*id);
        }
        let mut evidence = Evidence::default();
        for (home, (o, n)) in &homes {
            let key = |d: &Declared| if self.lines_kept { Some(d.line) } else { d.line.checked_sub(d.function_line?) };
            let (Some(a), Some(b)) = (by_line(&self.old, o, key), by_line(&self.new, n, key)) else { continue };
            let several = o.len() != 1 || n.len() != 1;
            if !self.lines_kept
                && several
                && (self.partly.contains(&home.0) || !self.are_in_place((&o[..], &a), (&n[..], &b)))
            {
                continue;
            }
            for (line, o) in a {
                // Of two at one line, as a macro makes them, nothing tells which is which.
                if let (Some(o), Some(n)) = (only(&o), b.get(&line).and_then(only)) {
                    evidence.add(old, o, new, n);
                }
            }
        }
        evidence
    }

    /// Are the lines of the function as many as before, and all lines of variables of one build lines of some of the other?
    fn are_in_place(&self, (o, a): (&[AtomId], &Lines), (n, b): (&[AtomId], &Lines)) -> bool {
        let frames = o.iter().map(|id| self.old.get(id)).chain(n.iter().map(|id| self.new.get(id)));
        let frames: BTreeSet<Option<u64>> = frames.map(|d| d.and_then(|d| d.function_lines)).collect();
        let within = |few: &Lines, all: &Lines| few.keys().all(|line| all.contains_key(line));
        frames.len() == 1 && !frames.contains(&None) && (within(a, b) || within(b, a))
    }
}

/// Variables by line.
type Lines = BTreeMap<u64, BTreeSet<AtomId>>;

fn home<'a>(object: &Object, id: AtomId, d: &'a Declared) -> Home<'a> {
    (super::group_key(object, id), d.function.as_deref().unwrap_or(""), d.file.as_deref())
}

fn by_line(all: &BTreeMap<AtomId, Declared>, list: &[AtomId], key: impl Fn(&Declared) -> Option<u64>) -> Option<Lines> {
    let mut lines = Lines::new();
    for id in list {
        lines.entry(key(all.get(id)?)?).or_default().insert(*id);
    }
    Some(lines)
}

fn only(set: &BTreeSet<AtomId>) -> Option<AtomId> {
    set.first().copied().filter(|_| set.len() == 1)
}
