//! Whose memory the records of a patch may lie in.

use super::ffi;
use crate::record::Memory;

/// The memory of this module.
pub(super) struct Own;

impl Memory for Own {
    fn holds(&self, addr: u64, len: u64) -> bool {
        // SAFETY: compares numbers.
        unsafe { ffi::lpb_owns(addr, len) != 0 }
    }
}

/// The memory of a module with the same runtime, which has checked its record against it before it applied the patch.
pub(super) struct Theirs;

impl Memory for Theirs {
    fn holds(&self, _: u64, _: u64) -> bool {
        true
    }
}
