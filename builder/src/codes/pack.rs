//! LP40xx: making the module.

use super::Code;

pub(super) static CODES: &[Code] = &[];
