//! What the host-side tests share: compiling pairs, a small kernel to bind to, and an independent reader of `patch.o`.

#![allow(dead_code, reason = "every test file uses another part of it")]

pub mod check;
pub mod compile;
pub mod image;
pub mod read;
pub mod trees;
pub mod values;

use lpbuild::plan::Options;

/// Options every test uses.
pub fn options() -> Options {
    Options { deadline_ms: Some(10_000), ..Options::named("corpus") }
}
