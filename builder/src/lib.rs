//! lpbuild: from two builds of a kernel object to a live patch that is proven to fit one kernel.
//!
//! `pipeline.rs` is the architecture; one folder per phase.

pub mod codes;
pub mod error;
pub mod kernel;
pub mod manifest;
pub mod pack;
pub mod target;
