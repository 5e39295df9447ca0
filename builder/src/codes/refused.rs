//! LP20xx, LP21xx: changes and sites that cannot be live-patched.

use super::Code;

pub(super) static CODES: &[Code] = &[];
