//! Everything that was found out about two builds, and decided.

use std::time::Duration;

use super::{CodeLines, Detour, ObjectPair, Options, PatchSet, Promise, Summary};
use crate::accept::{Acceptances, Accepted};
use crate::error::Problem;

/// What is known about one replaced or new function.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Index of the item in the patch set.
    pub item: usize,
    /// The file it was compiled from.
    pub unit: Option<String>,
    /// Where it begins in the source, `file:line`.
    pub source: Option<String>,
    /// The inlined function the difference is in.
    pub inlined: Option<String>,
}

/// What the analysis found; nothing has been written yet.
#[derive(Debug)]
pub struct Analysis {
    /// The objects that differ.
    pub pairs: Vec<ObjectPair>,
    /// SHA-256 of each, old and new.
    pub digests: Vec<(String, String)>,
    /// What is carried.
    pub set: PatchSet,
    /// How the functions are redirected.
    pub detour: Detour,
    /// Everything that stands against the patch.
    pub refused: Vec<Problem>,
    /// What would stand against it and the author answers for.
    pub accepted: Vec<Accepted>,
    /// Names the author accepts and nothing needs, `KIND=NAME`.
    pub unneeded: Vec<String>,
    /// Objects with changed functions and no debug information: their types were not compared.
    pub untyped: Vec<String>,
    /// Those of them that a callback gives back by name.
    pub given_back: Vec<Accepted>,
    /// What the author decides, with what the source says of it.
    pub options: Options,
    /// Addresses of the patch that the kernel keeps, or may.
    pub promises: Vec<Promise>,
    /// What debug information says about the carried functions.
    pub notes: Vec<Note>,
    /// Source lines of the carried functions, where somebody wants to explain them.
    pub lines: Vec<CodeLines>,
    /// Everything in numbers, for whole images.
    pub summary: Option<Summary>,
    /// Time of each phase.
    pub timings: Vec<(&'static str, Duration)>,
}

impl Analysis {
    /// Source lines of an item.
    pub fn code_lines(&self, item: usize) -> Option<&CodeLines> {
        self.lines.iter().find(|l| l.item == item)
    }
    /// Sets aside what the author answers for. The last step: whatever is refused later cannot be accepted.
    pub(crate) fn settle(&mut self, accept: &Acceptances) {
        self.refused.sort();
        self.refused.dedup();
        self.accepted = accept.settle(&mut self.refused);
        self.accepted.extend(self.given_back.iter().cloned());
        self.accepted.sort();
        self.unneeded = accept.unneeded(&self.accepted);
    }
}
