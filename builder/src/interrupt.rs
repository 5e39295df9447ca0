//! Ctrl-C: the signals that ask a process to end are noticed instead of ending it on the spot, so that what it started is
//! stopped and its temporary files go.
//!
//! Input: SIGINT, SIGTERM, SIGHUP. Output: [`requested`]. Refused: nothing; where the handlers cannot be set the signals
//! do what they did before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the signals are noticed only.
pub fn watch() {
    REQUESTED.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // A signal that cannot be caught ends the process as before.
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    });
}

/// True when one of them has come since [`watch`].
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|f| f.load(Ordering::Relaxed))
}

/// True when a program was ended by one of them, itself or by way of a shell (128 and the signal, sh(1)).
pub fn ended(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().or_else(|| status.code().and_then(|c| c.checked_sub(128)));
    signal.is_some_and(|s| [SIGINT, SIGTERM, SIGHUP].contains(&s))
}
