//! What the host-side tests share: compiling pairs, a small kernel to bind to, and an independent reader of `patch.o`.

#![allow(dead_code, reason = "every test file uses another part of it")]

pub mod check;
pub mod compile;
pub mod image;
pub mod read;
pub mod values;

use lpbuild::accept::Acceptances;
use lpbuild::plan::Options;
use lpbuild::plan::manifest::{Callbacks, Jump};

/// Options every test uses.
pub fn options() -> Options {
    Options {
        name: "corpus".into(),
        version: "1".into(),
        description: String::new(),
        mode: None,
        after: Vec::new(),
        replaces: Vec::new(),
        deadline_ms: Some(10_000),
        patience_ms: 15_000,
        jump: Jump::Rel32,
        oneshot: false,
        callbacks: Callbacks::default(),
        accept: Acceptances::default(),
        lines_kept: false,
    }
}
