//! Numbers that both halves of the runtime know; c/lp-runtime.h has the same (a test of the host compares them).

use core::ffi::c_int;

/// Results of a step, besides a positive number of milliseconds to wait and a negative errno.
pub const DONE: c_int = 0;
/// RCU-tasks is to be waited for.
pub const RCU_TASKS: c_int = c_int::MAX;
/// The new code is in effect, not all is done.
pub const EFFECTIVE: c_int = c_int::MAX - 1;
/// The patch was replaced, and its module may go.
pub const LET_GO: c_int = c_int::MAX - 2;
/// The next step at once, with other locks.
pub const NOW: c_int = c_int::MAX - 3;
/// This and the number of the callback to call.
pub const CALL: c_int = 0x4000_0000;

/// What `lpb_look` says of a task: it sleeps in the kernel and cannot run.
pub const BLOCKED: c_int = 1;
/// It never runs in user mode.
pub const KERNEL: c_int = 2;

/// Files below /sys/kernel/lpbuild/NAME, as `lpbuild_show` counts them.
pub const SHOW: [&str; 18] = [
    "STATE",
    "MODE",
    "FUNCTIONS",
    "BLOCKERS",
    "PAUSE",
    "ATTEMPTS",
    "LAST_ERROR",
    "VERSION",
    "DEADLINE",
    "ENABLED",
    "ONESHOT",
    "SWITCHED",
    "FORCE",
    "ABI",
    "AFTER",
    "REPLACES",
    "PATIENCE",
    "HOLDERS",
];

/// The number of one of them.
#[must_use]
pub const fn show(name: &str) -> c_int {
    let mut i = 0;
    while i < SHOW.len() {
        if same(SHOW[i].as_bytes(), name.as_bytes()) {
            return i as c_int;
        }
        i += 1;
    }
    panic!("no such file")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
