//! `lpbuild unload`: reverts a patch, waits until nothing can be inside its code, and removes the module.
//!
//! Input: the name. Output: [`UnloadReport`]. Refused: names that are no patch, reverts that found the functions busy
//! until the deadline (the patch stays applied and every task is named), modules the kernel does not let go.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Serialize;

use super::host::{Host, PATCHES};
use super::load::{pause, runtime_problem};
use super::state::PatchState;
use super::{Failure, Report};
use crate::error::{Error, Place};

/// What the kernel may take beyond the deadline: an attempt in progress, and waiting for RCU tasks.
const GRACE: Duration = Duration::from_secs(30);
/// The deadline of a patch that shows none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a reverted module may stay referenced.
const REMOVE: Duration = Duration::from_secs(5);

/// A patch that was removed.
#[derive(Clone, Debug, Serialize)]
pub struct UnloadReport {
    /// Name of the patch.
    pub name: String,
    /// Always `removed`.
    pub state: &'static str,
    /// Attempts the revert took.
    pub attempts: u64,
    /// Longest stop of the machine by the revert, nanoseconds.
    pub pause_ns: u64,
    /// Milliseconds from the request to the removal.
    pub took_ms: u64,
}

/// Reverts and removes the patch `name`.
pub fn unload(host: &Host, name: &str, deadline_ms: Option<u32>) -> Result<UnloadReport, Failure> {
    let start = Instant::now();
    let Some(before) = PatchState::read(host, name) else {
        let module = !name.contains(['/', '.']) && host.exists(&format!("sys/module/{name}"));
        let detail = if module { "the module of this name is not a patch" } else { "there is none of this name" };
        return Err(Error::new("LP5113", Place::object(name), detail).into());
    };
    if !host.may_load() {
        return Err(Error::new("LP5109", Place::object(name), "this process has no CAP_SYS_MODULE").into());
    }
    if let Some(ms) = deadline_ms {
        store(host, name, "deadline_ms", &ms.to_string())?;
    }
    let deadline = deadline_ms.map(u64::from).or(before.deadline_ms).map_or(DEFAULT_DEADLINE, Duration::from_millis);
    if !matches!(before.state.as_str(), "reverting" | "reverted") {
        store(host, name, "enabled", "0")?;
    }
    let reverted = wait(host, name, deadline.saturating_add(GRACE))?;
    remove(host, name)?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (attempts, pause_ns) = reverted.map_or((0, 0), |p| (p.attempts, p.pause_ns));
    Ok(UnloadReport { name: name.to_owned(), state: "removed", attempts, pause_ns, took_ms })
}

fn store(host: &Host, name: &str, file: &str, value: &str) -> Result<(), Failure> {
    host.write(&format!("{PATCHES}/{name}/{file}"), value).map_err(|e| {
        let detail = format!("writing {value} to /{PATCHES}/{name}/{file}: {e}");
        Error::new("LP5114", Place::object(name), detail).into()
    })
}

/// Waits until the patch is reverted, or applied again because it could not be; `None` when it went away meanwhile.
fn wait(host: &Host, name: &str, patience: Duration) -> Result<Option<PatchState>, Failure> {
    let start = Instant::now();
    let mut step = Duration::from_millis(1);
    loop {
        let Some(now) = PatchState::read(host, name) else { return Ok(None) };
        match now.state.as_str() {
            "reverted" => return Ok(Some(now)),
            "applied" => return Err(still_applied(name, now)),
            _ => {}
        }
        if start.elapsed() > patience {
            let detail = format!("still {} after {} s", now.state, start.elapsed().as_secs());
            return Err(Error::new("LP5116", Place::object(name), detail).into());
        }
        std::thread::sleep(step);
        step = step.saturating_mul(2).min(Duration::from_millis(50));
    }
}

fn still_applied(name: &str, now: PatchState) -> Failure {
    let place = Place::object(name);
    let error = match now.last_error.as_deref().map(|e| e.split_once(": ").unwrap_or((e, "the patch stays applied"))) {
        Some((code, text)) => runtime_problem(place, code, text, &now.blockers).into(),
        None => Error::new("LP5114", place, "the patch is still applied, and the kernel does not say why"),
    };
    Failure { error, blockers: now.blockers }
}

/// Removes the module; the reference it held on itself may be given back a moment after the state changes.
fn remove(host: &Host, name: &str) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        match host.remove(name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::AGAIN | Errno::BUSY) if start.elapsed() < REMOVE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => {
                let users = host.text(&format!("sys/module/{name}/refcnt")).unwrap_or_else(|| "unknown".to_owned());
                let detail = format!("{e}; references: {users}; the patch is reverted");
                return Err(Error::new("LP5115", Place::object(name), detail).into());
            }
        }
    }
}

impl Report for UnloadReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let attempts = if self.attempts == 1 { "attempt" } else { "attempts" };
        let pause = pause(self.pause_ns);
        writeln!(out, "{}: removed ({} {attempts}, {} ms, pause {pause})", self.name, self.attempts, self.took_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_does_not_answer() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join(PATCHES).join("p");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("state"), "reverting\n").unwrap();
        let failure = wait(&Host::at(dir.path()), "p", Duration::from_millis(20)).unwrap_err();
        assert_eq!(failure.error.problems[0].code.id, "LP5116");
        assert_eq!(failure.error.exit_code(), 1);
    }
}
