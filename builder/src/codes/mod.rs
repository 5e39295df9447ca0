//! The table of stable codes. `lpbuild explain LPnnnn` prints an entry; docs/refusals.md lists them all. Each is a
//! constant, so a code that does not exist does not compile.
//!
//! ```text
//! LP10xx broken input: objects          LP20xx refused: what changed cannot be live-patched
//! LP11xx broken input: manifest, files  LP21xx refused: jump site
//! LP12xx broken input: kernel image     LP30xx refused: does not bind to the kernel image
//! LP40xx pack                           LP50xx refused by the runtime in the kernel
//! LP60xx livepatch.toml                 LP51xx refused by load, unload, status, inspect
//! LP61xx source patches                 LP62xx finding and preparing a kernel, compiling
//! LP63xx refused before any compile
//! LP64xx trials (`lpbuild try`)
//! ```

use serde::Serialize;

/// A table of codes: a constant of each, and `CODES`, all of them.
macro_rules! codes {
    ($($id:ident { class: $class:expr, title: $title:literal, why: $why:literal, advice: $advice:literal $(,)? })*) => {
        $(
            #[doc = $title]
            pub const $id: &super::Code =
                &super::Code { id: stringify!($id), class: $class, title: $title, why: $why, advice: $advice };
        )*
        pub(super) const CODES: &[&super::Code] = &[$($id),*];
    };
}

mod bind;
mod config;
mod host;
mod input;
mod kernel;
mod pack;
mod patchfile;
mod refused;
mod runtime;
mod source;
mod touched;
mod trial;

pub use self::bind::*;
pub use self::config::*;
pub use self::host::*;
pub use self::input::*;
pub use self::kernel::*;
pub use self::pack::*;
pub use self::patchfile::*;
pub use self::refused::*;
pub use self::runtime::*;
pub use self::source::*;
pub use self::touched::*;
pub use self::trial::*;

/// Which exit code an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Malformed input, I/O, a bug: exit 1.
    Broken,
    /// Understood, but not live-patchable, or not now: exit 4.
    Refused,
}

/// One entry.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Code {
    /// `LPnnnn`, never reused.
    #[serde(rename = "code")]
    pub id: &'static str,
    /// Broken or refused.
    pub class: Severity,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Why lpbuild stops there, with the kernel or manual source of the rule.
    pub why: &'static str,
    /// What to do instead; one sentence that fits behind the error.
    pub advice: &'static str,
}

/// Every entry, in the order of the codes.
pub fn all() -> impl Iterator<Item = &'static Code> {
    [
        input::CODES,
        kernel::CODES,
        refused::CODES,
        bind::CODES,
        pack::CODES,
        runtime::CODES,
        host::CODES,
        config::CODES,
        patchfile::CODES,
        source::CODES,
        touched::CODES,
        trial::CODES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The entry `id`, if there is one.
pub fn find(id: &str) -> Option<&'static Code> {
    all().find(|c| c.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    #[test]
    fn codes_are_unique_and_complete() {
        let mut seen = std::collections::BTreeSet::new();
        for c in super::all() {
            assert!(seen.insert(c.id), "{} twice", c.id);
            assert!(c.id.len() == 6 && c.id.starts_with("LP"), "{}", c.id);
            assert!(!c.title.is_empty() && !c.why.is_empty() && !c.advice.is_empty(), "{}", c.id);
        }
    }
}
