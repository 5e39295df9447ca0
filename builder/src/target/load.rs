//! `lpbuild load`: checks, finit_module(2), and what became of it.
//!
//! Input: a module. Output: [`LoadReport`]. Refused: all that [`super::preflight()`] finds, then what the kernel says: the
//! runtime's own refusals (LP50xx) come from the log with every task that stood in the way, everything else is LP5111 or
//! LP5112. After a refusal nothing is changed and the module is not loaded.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use serde::Serialize;

use super::host::Host;
use super::klog::{KernelMessages, Log};
use super::module::ModuleFile;
use super::preflight::preflight;
use super::state::{Blocker, PatchState};
use super::{Failure, Report};
use crate::codes;
use crate::error::{Error, Problem};

/// A patch that was loaded.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// What the runtime shows.
    #[serde(flatten)]
    pub patch: PatchState,
    /// Milliseconds finit_module took: checking, waiting, applying.
    pub took_ms: u64,
}

/// Loads the module at `path`.
pub fn load(host: &Host, path: &Path, deadline_ms: Option<u32>) -> Result<LoadReport, Failure> {
    let module = ModuleFile::open(path)?;
    preflight(host, &module)?;
    let name = &module.manifest.patch.name;
    let parameters = deadline_ms.map(|n| format!("deadline_ms={n}")).unwrap_or_default();
    let log = Log::from_now(host);
    let start = Instant::now();
    host.insert(&module.file, &parameters).map_err(|errno| refused(host, &module, errno, log.about(name)))?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Some(patch) = PatchState::read(host, name) else {
        let detail = format!("the module is loaded, but there is no /sys/kernel/lpbuild/{name}");
        return Err(Error::new("LP5116", module.place(), detail).into());
    };
    Ok(LoadReport { patch, took_ms })
}

/// Translates the kernel's answer.
fn refused(host: &Host, module: &ModuleFile, errno: Errno, log: KernelMessages) -> Failure {
    let blockers = log.blockers;
    let mut problems: Vec<Problem> =
        log.refusals.iter().map(|(code, text)| runtime_problem(module.place(), code, text, &blockers)).collect();
    if problems.is_empty() {
        let said = match log.loader.as_slice() {
            [] if log.unreadable => " (/dev/kmsg cannot be read, so its reason is unknown)".to_owned(),
            [] => String::new(),
            lines => format!(" ({})", lines.join("; ")),
        };
        problems.push(match errno {
            Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG | Errno::KEYEXPIRED | Errno::KEYREVOKED => {
                let signed = if module.signature.is_some() {
                    "its signature is by no key it trusts"
                } else {
                    "it is not signed"
                };
                Problem::new("LP5111", module.place(), format!("{errno}: {signed}{said}"))
            }
            Errno::PERM | Errno::ACCESS => {
                let lockdown = host.lockdown().unwrap_or_else(|| "unknown, securityfs is not mounted".to_owned());
                Problem::new("LP5111", module.place(), format!("{errno}; lockdown: {lockdown}{said}"))
            }
            Errno::EXIST => Problem::new("LP5106", module.place(), format!("{errno}{said}")),
            _ => Problem::new("LP5112", module.place(), format!("{errno}{said}")),
        });
    }
    Failure { error: Error { problems }, blockers }
}

/// A refusal of the runtime, with every task that stood in the way.
pub(super) fn runtime_problem(place: crate::error::Place, code: &str, text: &str, blockers: &[Blocker]) -> Problem {
    let mut detail = text.to_owned();
    for (i, b) in blockers.iter().enumerate() {
        detail.push_str(if i == 0 { ": " } else { ", " });
        detail.push_str(&b.to_string());
    }
    match codes::find(code) {
        Some(code) => Problem { code, place, detail },
        None => Problem::new("LP5119", place, format!("{code}: {detail}")),
    }
}

impl Report for LoadReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let p = &self.patch;
        let attempts = if p.attempts == 1 { "attempt" } else { "attempts" };
        writeln!(
            out,
            "{} {}: {}, {} ({} {attempts}, {} ms, pause {})",
            p.name,
            p.version,
            p.state,
            p.mode,
            p.attempts,
            self.took_ms,
            pause(p.pause_ns)
        )?;
        functions(p, out)
    }
}

/// Nanoseconds for people.
pub(crate) fn pause(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", ns / 1_000),
        _ => format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000),
    }
}

/// The functions of a patch in aligned columns.
pub(super) fn functions(p: &PatchState, out: &mut dyn Write) -> std::io::Result<()> {
    let width = p.functions.iter().map(|f| f.symbol.len()).max().unwrap_or(0);
    for f in &p.functions {
        writeln!(out, "  {:width$}  +{:#x}/{}  {}  {}", f.symbol, f.site_offset, f.site_size, f.jump, f.state)?;
    }
    Ok(())
}
