//! Commands on the target host: `load`, `unload`, `status`, `inspect`.
//!
//! Input: a finished module, or the name of a patch, and the [`Host`] they run on. Output: reports for people and, with
//! `--json`, one JSON object. They need no other program: the module goes in and out by system call.
//! Refused (LP51xx): whatever can be seen from user space before the kernel is bothered. What the runtime refuses inside
//! the kernel (LP50xx) is fetched from the kernel's log and reported as if it had been found here.
//!
//! A command writes its report to `out` and, when it failed, returns the error as well: the caller prints that to stderr
//! and takes the exit code from it. With `--json` a failure is also an object: `refused` has every problem with `code`,
//! `message`, and where they are known `function`, `blockers` and `owner`; `blockers` has all tasks.

mod addresses;
mod failure;
mod inspect;
mod klog;
mod load;
mod module;
mod preflight;
mod remove;
mod state;
mod status;
mod system;
mod unload;

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Place, Result};

pub use failure::{Failure, Obstacle};
pub use inspect::{InspectReport, InspectedFunction, InspectedKernel, InspectedSite, Instruction, inspect};
pub use klog::{KernelMessages, parse_log};
pub(crate) use load::pause;
pub use load::{LoadOptions, LoadReport, PRICE_OF_FORCE, load};
pub use module::{ModuleFile, Signature};
pub use preflight::preflight;
pub use state::{Blocker, FunctionState, PatchState, States, Switched};
pub use status::{PatchStatus, StatusReport, status};
pub use system::Host;
pub use unload::{UnloadOptions, UnloadReport, unload};

/// A report for people.
pub trait Shown: Serialize {
    /// Writes it.
    ///
    /// # Errors
    /// Those of `out`.
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()>;
}

/// Writes what came of a command: a report to `out`, with `json` a failure as well.
///
/// # Errors
/// The failure, and that of [`Error::io_at`] where `out` cannot be written; a reader that has gone away is none.
pub fn finish<R: Shown>(result: Result<R, Failure>, json: bool, out: &mut dyn Write) -> Result<()> {
    let written = match &result {
        Ok(report) if json => to_json(report, out),
        Ok(report) => report.text(out),
        Err(f) if json => to_json(&failure::FailureReport::from(f), out),
        Err(_) => Ok(()),
    };
    result.map_err(|f| f.error())?;
    // A reader that has gone away has seen what it wanted, and what was done is done.
    let written = written.and_then(|()| out.flush()).or_else(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(e),
    });
    written.map_err(|e| Error::io_at(Place::object("standard output"), &e))
}

fn to_json(value: &impl Serialize, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
