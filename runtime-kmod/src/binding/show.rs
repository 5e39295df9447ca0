//! The text of the files in /sys/kernel/lpbuild/NAME. Who may call what says `entry`.

use core::{ffi::c_int, slice, sync::atomic::Ordering::SeqCst};

use lpbuild_abi::Mode;

use super::entry::{DEADLINE_MS, LINUX, MODE, ONESHOT, PATIENCE_MS, SHOWN, holders, patch};
use crate::{
    record::{self, MAX_OTHERS, MAX_SYMBOL},
    stack::MAX_BLOCKERS,
    status::{self, State},
    text::{LINE, Text},
    wire,
};

// Operations shown by lpbuild_show.
const SHOW_STATE: c_int = wire::show("STATE");
const SHOW_MODE: c_int = wire::show("MODE");
const SHOW_FUNCTIONS: c_int = wire::show("FUNCTIONS");
const SHOW_BLOCKERS: c_int = wire::show("BLOCKERS");
const SHOW_PAUSE: c_int = wire::show("PAUSE");
const SHOW_ATTEMPTS: c_int = wire::show("ATTEMPTS");
const SHOW_LAST_ERROR: c_int = wire::show("LAST_ERROR");
const SHOW_VERSION: c_int = wire::show("VERSION");
const SHOW_DEADLINE: c_int = wire::show("DEADLINE");
const SHOW_ENABLED: c_int = wire::show("ENABLED");
const SHOW_ONESHOT: c_int = wire::show("ONESHOT");
const SHOW_SWITCHED: c_int = wire::show("SWITCHED");
const SHOW_FORCE: c_int = wire::show("FORCE");
const SHOW_ABI: c_int = wire::show("ABI");
const SHOW_AFTER: c_int = wire::show("AFTER");
const SHOW_REPLACES: c_int = wire::show("REPLACES");
const SHOW_PATIENCE: c_int = wire::show("PATIENCE");
const SHOW_HOLDERS: c_int = wire::show("HOLDERS");

/// Bytes that `lpbuild_show` needs at most.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_show_size(what: c_int) -> usize {
    match what {
        // SAFETY: setup has succeeded.
        SHOW_FUNCTIONS => unsafe { patch() }.funcs.len() * (MAX_SYMBOL + 64),
        // SAFETY: setup has succeeded.
        SHOW_HOLDERS => unsafe { patch() }.holders.len() * (record::MAX_MODULE + LINE),
        SHOW_BLOCKERS => (MAX_BLOCKERS + 1) * (MAX_SYMBOL + 64),
        SHOW_AFTER | SHOW_REPLACES => MAX_OTHERS as usize * (record::MAX_NAME + 1) + 1,
        _ => LINE + 1,
    }
}

/// Writes the text of one sysfs file and returns its length.
///
/// # Safety
/// See the head of this file; `out` is writable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_show(what: c_int, out: *mut u8, len: usize) -> usize {
    // SAFETY: under the status mutex; the machine's patch never changes.
    let (shown, patch, buf) = unsafe { (&*SHOWN.0.get(), &patch(), slice::from_raw_parts_mut(out, len)) };
    let mut t = Text::new(buf);
    match what {
        SHOW_STATE => t.str(shown.state.name()).str("\n"),
        SHOW_MODE => t.str(record::mode(MODE.load(SeqCst)).map_or("", Mode::name)).str("\n"),
        SHOW_PAUSE => t.dec(shown.pause_ns).str("\n"),
        SHOW_ATTEMPTS => t.dec(shown.attempts).str("\n"),
        SHOW_VERSION => t.bytes(patch.version).str("\n"),
        SHOW_DEADLINE => t.dec(u64::from(DEADLINE_MS.load(SeqCst))).str("\n"),
        SHOW_PATIENCE => t.dec(u64::from(PATIENCE_MS.load(SeqCst))).str("\n"),
        SHOW_ENABLED => t.str(match shown.state {
            State::Applying | State::Draining | State::Applied | State::Reverting => "1\n",
            State::Reverted | State::Refused | State::Checked | State::Replaced => "0\n",
        }),
        SHOW_ONESHOT => t.str(if ONESHOT.load(SeqCst) { "1\n" } else { "0\n" }),
        SHOW_SWITCHED => t.dec(shown.switched.0 as u64).str("/").dec(shown.switched.1 as u64).str("\n"),
        SHOW_ABI => t.dec(u64::from(lpbuild_abi::ABI_VERSION)).str("\n"),
        SHOW_AFTER | SHOW_REPLACES => {
            for i in (0..patch.others()).filter(|&i| patch.replaces(i) == (what == SHOW_REPLACES)) {
                t.bytes(patch.other_name(i)).str(" ");
            }
            t.str("\n")
        }
        SHOW_FORCE => t.str(if shown.forced { "1\n" } else { "0\n" }),
        SHOW_FUNCTIONS => {
            status::functions(patch, shown, &mut t);
            &mut t
        }
        SHOW_HOLDERS => {
            // SAFETY: under the lock of the steps.
            let holders = unsafe { holders() };
            status::holders(&LINUX, patch, |i| holders.presence(i), shown, &mut t);
            &mut t
        }
        SHOW_BLOCKERS => {
            status::blockers(&LINUX, shown, &mut t);
            &mut t
        }
        SHOW_LAST_ERROR => {
            status::last_error(&LINUX, patch, shown, &mut t);
            &mut t
        }
        _ => &mut t,
    };
    t.len()
}
