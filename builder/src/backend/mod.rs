//! Back ends: how the kernel is made to run the new code.
//!
//! A back end judges the plan (what it cannot redirect is refused), writes into the patch object what it needs beside the carried
//! code ([`crate::emit::BackEnd`]), gives kbuild the parts of its runtime, and reads the finished module again. What comes before,
//! up to [`crate::plan`], and [`crate::emit`] know nothing of any of them.

pub mod detour;
