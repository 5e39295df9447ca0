//! What a patch carries: functions, data, table entries, their references, and the edge that pulled each in.

use super::manifest::{Callback, ShadowVariable};
use super::{Cause, ObjectPair, PairId};
use crate::correlate::{NewAtom, OldAtom};
use crate::error::Problem;
use crate::symbolize::{EntryId, Ref};

/// Where a reference of carried code leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dest {
    /// To something the patch carries.
    Carried(PairId, NewAtom, i64),
    /// To something of the old object that stays in the kernel.
    Old(PairId, OldAtom, i64),
    /// To a symbol of another object.
    Kernel(String, i64),
    /// To the original of a function that the patch replaces (`lp_original_NAME`).
    Original(PairId, NewAtom),
    /// To a function that the runtime has for the source of patches (one of [`lpbuild_abi::FOR_AUTHORS`]).
    Runtime(&'static str),
    /// To a string or constant, by content.
    Constant(Vec<u8>),
}

/// A reference and where it leads.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The field.
    pub field: Ref,
    /// Its destination.
    pub dest: Dest,
}

/// What an item is in the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Replaces this old function.
    Replaces(OldAtom),
    /// Belongs to a replaced or new function (`.cold` and the like).
    Piece,
    /// A function the old build does not have.
    NewFunction,
    /// Data.
    Data,
    /// The new content of a constant of the kernel, which changes in its place.
    InPlace(OldAtom),
}

/// One carried function or data object.
#[derive(Debug)]
pub struct Item {
    /// Which object.
    pub pair: PairId,
    /// Which atom of its new build.
    pub atom: NewAtom,
    /// What it is for.
    pub role: Role,
    /// Why it is in the patch.
    pub cause: Cause,
    /// The inlined function its difference is in, in words, where debug information says so.
    pub inlined: Option<String>,
    /// Its references.
    pub edges: Vec<Edge>,
    /// Its table entries.
    pub entries: Vec<ItemEntry>,
}

/// A carried table entry.
#[derive(Debug)]
pub struct ItemEntry {
    /// The entry in the new object.
    pub entry: EntryId,
    /// Its references; the one to the owner included.
    pub edges: Vec<Edge>,
    /// References of the replacement instructions of an alternative.
    pub replacement: Vec<Edge>,
}

/// Everything the patch carries.
#[derive(Debug, Default)]
pub struct PatchSet {
    /// In the order of objects and atoms.
    pub items: Vec<Item>,
    /// The function of each callback, among the items.
    pub callbacks: Vec<(Callback, (PairId, NewAtom))>,
    /// Shadow variables that are declared, by name.
    pub shadows: Vec<ShadowVariable>,
    /// What cannot be carried.
    pub refused: Vec<Problem>,
}

impl Item {
    /// All its references, those of its table entries and of their replacements included.
    pub fn all_edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().chain(self.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement)))
    }
    /// Why it is in the patch, in words.
    pub fn why(&self, pairs: &[ObjectPair]) -> String {
        let cause = self.cause.text(pairs);
        self.inlined.as_ref().map_or(cause.clone(), |inlined| format!("{cause}; {inlined}"))
    }
    /// Is it code?
    pub fn is_code(&self) -> bool {
        !matches!(self.role, Role::Data | Role::InPlace(_))
    }
}
