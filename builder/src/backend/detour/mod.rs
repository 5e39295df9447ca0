//! The detour: a jump in each old function leads to the new one, by the runtime of this project (runtime-kmod).
//!
//! ```text
//! judge      plan -> sites, mode        `sites` chooses where each jump goes
//! anchors    module -> anchors          how the runtime finds its sections
//! dispatch   behind the carried code    the original's beginning and the dispatcher of each function
//! records    -> sections of the abi     what the runtime reads; of kernel modules, `modules`, of constants in their place, `constants`
//! functions  -> manifest                the replaced functions
//! parts      -> kbuild                  the runtime and its C half
//! image      manifest x image -> ()     what the manifest says of the kernel is so
//! verify     module -> ()               the records again, as the second reader sees them; of kernel modules, `verify_modules`, of constants, `verify_constants`
//! ```

mod anchors;
mod constants;
mod dispatch;
mod fields;
mod functions;
mod image;
mod judge;
mod kernel_side;
mod lowering;
mod modules;
mod needs;
mod parts;
mod records;
pub mod sites;
mod verify;
mod verify_constants;
mod verify_modules;

pub use functions::of_analysis as functions;
pub use image::contradictions;
pub use judge::{judge, lasting};
pub use kernel_side::Runtime;
pub use lowering::Lowering;
pub use needs::Needs;
pub use verify::{record_contradictions, reseal};
#[cfg(test)]
pub(crate) use {parts::c_text, verify::digest};
