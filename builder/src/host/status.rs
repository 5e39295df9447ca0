//! `lpbuild status`: the patches in the kernel.
//!
//! Input: the host. Output: [`StatusReport`], with a warning for each function that the kernel's own livepatch took later:
//! it redirects before our jump, so its version runs; and for one whose module does nothing any more. Refused: a name that is no patch,
//! a host whose sysfs is not there (LP5124).

use std::io::Write;

use serde::Serialize;

use super::Shown;
use super::load::{functions, pause};
use super::state::{PatchState, livepatched};
use super::system::Host;
use crate::codes;
use crate::error::{Error, Place, Result};

/// Every patch, in the order of their names.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// Empty when there is none.
    pub patches: Vec<PatchStatus>,
}

/// One patch.
#[derive(Clone, Debug, Serialize)]
pub struct PatchStatus {
    /// What the runtime shows.
    #[serde(flatten)]
    pub patch: PatchState,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Reads every patch, or the one called `name`.
pub fn status(host: &Host, name: Option<&str>) -> Result<StatusReport> {
    host.sysfs()?;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => PatchState::names(host),
    };
    let livepatched = livepatched(host);
    let mut patches = Vec::new();
    for n in &names {
        let Some(patch) = PatchState::read(host, n) else {
            if name.is_some() {
                return Err(Error::new(codes::LP5113, Place::object(n), "there is none of this name"));
            }
            continue;
        };
        let mut warnings = Vec::new();
        for f in &patch.functions {
            for l in livepatched.iter().filter(|l| l.symbol == f.symbol) {
                let what = format!("{} is also replaced by the livepatch {}, whose version runs", l.symbol, l.patch);
                warnings.push(if l.sympos > 1 { format!("{what}, if it is number {}", l.sympos) } else { what });
            }
        }
        if patch.states().is_idle() {
            warnings.push(format!("it does nothing any more; lpbuild unload {n} removes its module"));
        }
        patches.push(PatchStatus { patch, warnings });
    }
    Ok(StatusReport { patches })
}

impl Shown for StatusReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        if self.patches.is_empty() {
            return writeln!(out, "no patches");
        }
        for PatchStatus { patch: p, warnings } in &self.patches {
            let switched = p.switched.map_or(String::new(), |s| format!(", {} of {} tasks switched", s.tasks, s.of));
            writeln!(
                out,
                "{} {}: {}, {}{}{}{switched} (attempts {}, pause {})",
                p.name,
                p.version,
                p.state,
                p.mode,
                if p.oneshot { ", oneshot" } else { "" },
                if p.forced { ", forced" } else { "" },
                p.attempts,
                pause(p.pause_ns)
            )?;
            functions(p, out)?;
            p.holders(out)?;
            for (what, names) in [("after", &p.after), ("replaces", &p.replaces)] {
                if !names.is_empty() {
                    writeln!(out, "  {what}: {}", names.join(" "))?;
                }
            }
            if let Some(e) = &p.last_error {
                writeln!(out, "  last error: {e}")?;
            }
            p.tasks(out)?;
            for w in warnings {
                writeln!(out, "  warning: {w}")?;
            }
        }
        Ok(())
    }
}
