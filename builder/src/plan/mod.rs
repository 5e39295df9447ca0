//! The plan of a patch: all that is known and decided, as data. The phases fill it; back ends, reports and the manifest, which is
//! the plan on disk, read it.
//!
//! Nothing here knows how an entrance is redirected, or where anything is written.

mod analysis;
mod cause;
mod entrance;
mod holders;
mod leave;
mod lines;
pub mod manifest;
mod options;
mod pairs;
mod promise;
mod set;
mod summary;

pub use analysis::{Analysis, Note};
pub use cause::Cause;
pub use entrance::{Detour, JumpSite, Rule};
pub use leave::Leave;
pub use lines::CodeLines;
pub use options::Options;
pub use pairs::{ObjectPair, PairId, Source};
pub use promise::Promise;
pub use set::{Dest, Edge, Item, ItemEntry, PatchSet, Role};
pub use summary::{Counts, Summary};
