//! Whose memory the records of a patch may lie in.

use super::ffi;
use crate::record::Memory;

/// One type for both, so that what looks at records is there once.
pub(super) enum Whose {
    /// That of this module.
    Own,
    /// That of a module with the same runtime, which has checked its record against it before it applied the patch.
    Theirs,
}

impl Memory for Whose {
    fn holds(&self, addr: u64, len: u64) -> bool {
        match self {
            // SAFETY: compares numbers.
            Whose::Own => unsafe { ffi::lpb_owns(addr, len) != 0 },
            Whose::Theirs => true,
        }
    }
}
