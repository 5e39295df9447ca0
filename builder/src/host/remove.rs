//! delete_module(2) for a patch that does nothing any more.
//!
//! Input: the name. Output: nothing; the module is gone. Refused: a module that something else still holds (LP5115).

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::failure::Failure;
use super::system::Host;
use crate::codes;
use crate::error::{Error, Place};

/// How long a module may stay referenced after its patch is reverted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes the module; the reference it held on itself may be given back a moment after the state changes.
pub(super) fn remove(host: &Host, name: &str) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        match host.remove(name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::AGAIN | Errno::BUSY) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => {
                let users = host.text(&format!("sys/module/{name}/refcnt")).unwrap_or_else(|| "unknown".to_owned());
                let detail = format!("{e}; references: {users}; the patch itself is not in effect");
                return Err(Error::new(codes::LP5115, Place::object(name), detail).into());
            }
        }
    }
}
