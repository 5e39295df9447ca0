//! Who holds the old code: the kernel image.

mod placement;

pub use placement::{Doubt, Exact, Placement, RunPre};
