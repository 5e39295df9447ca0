//! LP51xx: refusals by the commands on the target, before the kernel sees the module.

use super::Code;

pub(super) static CODES: &[Code] = &[];
