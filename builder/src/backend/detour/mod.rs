//! The detour: a jump in each old function leads to the new one, by the runtime of this project (runtime-kmod).
//!
//! ```text
//! judge      plan -> sites, mode        `sites` chooses where each jump goes
//! dispatch   behind the carried code    the original's beginning and the dispatcher of each function
//! records    -> sections of the abi     what the runtime reads
//! functions  -> manifest                the replaced functions
//! ```

mod dispatch;
mod functions;
mod judge;
mod lowering;
mod needs;
mod records;
pub mod sites;

pub use judge::judge;
pub use lowering::Lowering;
pub use needs::Needs;
