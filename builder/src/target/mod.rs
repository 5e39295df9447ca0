//! Commands on the target host: `load`, `unload`, `status`, `inspect`.
//!
//! Input: a finished module, or the name of a patch, and the [`Host`] they run on. Output: reports for people and, with
//! `--json`, one JSON object. They need no other program: the module goes in and out by system call.
//! Refused (LP51xx): whatever can be seen from user space before the kernel is bothered. What the runtime refuses inside
//! the kernel (LP50xx) is fetched from the kernel's log and reported as if it had been found here.
//!
//! A command writes its report to `out` and, when it failed, returns the error as well: the caller prints that to stderr
//! and takes the exit code from it. With `--json` a failure is also an object, with `refused` and `blockers`.

mod host;
mod inspect;
mod klog;
mod load;
mod module;
mod preflight;
mod state;
mod status;
mod unload;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Place, Problem, Result};

pub use host::Host;
pub use inspect::{InspectReport, InspectedFunction, InspectedKernel, InspectedSite, Instruction, inspect};
pub use klog::{KernelMessages, parse_log};
pub(crate) use load::pause;
pub use load::{LoadReport, load};
pub use module::{ModuleFile, Signature};
pub use preflight::preflight;
pub use state::{Blocker, FunctionState, PatchState};
pub use status::{PatchStatus, StatusReport, status};
pub use unload::{UnloadReport, unload};

/// `lpbuild load`
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// The module lpbuild made.
    pub module: PathBuf,
    /// Give up after so many milliseconds when tasks stay inside the functions to replace.
    #[arg(long, value_name = "N")]
    pub deadline_ms: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild unload`
#[derive(Clone, Debug, clap::Args)]
pub struct UnloadArgs {
    /// Name of the patch, as `lpbuild status` shows it.
    pub name: String,
    /// Give up after so many milliseconds when tasks stay inside the new functions.
    #[arg(long, value_name = "N")]
    pub deadline_ms: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild status`
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Only this patch.
    pub name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild inspect`
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// The module lpbuild made.
    pub module: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl LoadArgs {
    /// Loads the module and reports.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        finish(load(host, &self.module, self.deadline_ms), self.json, out)
    }
}

impl UnloadArgs {
    /// Reverts and removes the patch and reports.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        finish(unload(host, &self.name, self.deadline_ms), self.json, out)
    }
}

impl StatusArgs {
    /// Reports every patch, or one.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        finish(status(host, self.name.as_deref()).map_err(Failure::from), self.json, out)
    }
}

impl InspectArgs {
    /// Reports what a module would do.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        finish(inspect(&self.module).map_err(Failure::from), self.json, out)
    }
}

/// Why a command failed, and which tasks stood in the way.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The problems.
    pub error: Error,
    /// Tasks that were inside the functions.
    pub blockers: Vec<Blocker>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, blockers: Vec::new() }
    }
}

/// A report for people.
trait Report: Serialize {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()>;
}

#[derive(Serialize)]
struct FailureReport<'a> {
    refused: &'a [Problem],
    blockers: &'a [Blocker],
}

fn finish<R: Report>(result: Result<R, Failure>, json: bool, out: &mut dyn Write) -> Result<()> {
    let written = match &result {
        Ok(report) if json => to_json(report, out),
        Ok(report) => report.text(out),
        Err(f) if json => to_json(&FailureReport { refused: &f.error.problems, blockers: &f.blockers }, out),
        Err(_) => Ok(()),
    };
    result.map_err(|f| f.error)?;
    written.map_err(|e| Error::new("LP1001", Place::object("standard output"), e.to_string()))
}

fn to_json(value: &impl Serialize, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
