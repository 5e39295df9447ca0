//! LP12xx, LP30xx: the kernel image and binding to it.

use super::Code;

pub(super) static CODES: &[Code] = &[];
