//! Why something is in a patch.

use super::manifest::Callback;
use super::{ObjectPair, PairId};
use crate::compare::Change;
use crate::correlate::NewAtom;

/// What put an item into the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is a function that differs.
    Changed(Change),
    /// The compiler split it off a function that is carried.
    PieceOf(PairId, NewAtom),
    /// livepatch.toml names it.
    Callback(Callback),
    /// The author has it change in its place.
    Declared,
    /// Something carried refers to it.
    ReferredTo {
        /// By what.
        by: (PairId, NewAtom),
        /// Is that in another object?
        from_outside: bool,
    },
}

impl Cause {
    /// In words.
    pub fn text(&self, pairs: &[ObjectPair]) -> String {
        let pair = |id: &PairId| &pairs[id.0 as usize];
        match self {
            Self::Changed(change) => change.to_string(),
            Self::PieceOf(id, n) => format!("piece of {}", pair(id).new.atom(n.0).name),
            Self::Callback(callback) => format!("{} callback", callback.name()),
            Self::Declared => "its content changes in its place".to_owned(),
            Self::ReferredTo { by: (id, n), from_outside: true } => {
                format!("{} of {} refers to it", pair(id).new.atom(n.0).name, pair(id).name)
            }
            Self::ReferredTo { by: (id, n), from_outside: false } => {
                format!("{} refers to it", pair(id).new.atom(n.0).name)
            }
        }
    }
}
