//! LP50xx: refusals by the runtime inside the kernel.

use super::Code;

pub(super) static CODES: &[Code] = &[];
