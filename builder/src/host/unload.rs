//! `lpbuild unload`: reverts a patch, waits until nothing can be inside its code, and removes the module.
//!
//! Input: the name. Output: [`UnloadReport`]. Refused: names that are no patch, reverts that found the functions busy
//! until the deadline (every task is named; the patch stays applied, or, where the mode says so, goes on being reverted),
//! modules the kernel does not let go.

use std::io::Write;
use std::time::{Duration, Instant};

use lpbuild_abi::{Mode, PATIENCE_MS};
use serde::Serialize;

use super::Shown;
use super::failure::{Failure, runtime_cause};
use super::load::{GRACE, deadline_of_transition, pause};
use super::remove::remove;
use super::state::{PatchState, States};
use super::system::{Host, PATCHES};
use crate::codes;
use crate::error::{Error, Place};

/// The deadline of a patch that shows none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a patch without an error may still be shown as applied.
const SETTLE: Duration = Duration::from_millis(500);

/// How to unload.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnloadOptions {
    /// Another mode than that of the patch.
    pub mode: Option<Mode>,
    /// Another deadline than that of the patch, milliseconds.
    pub deadline_ms: Option<u32>,
    /// Another patience than that of the patch, milliseconds.
    pub patience_ms: Option<u32>,
    /// Switch what is left when the deadline has passed.
    pub force: bool,
}

/// A patch that was reverted.
#[derive(Clone, Debug, Serialize)]
pub struct UnloadReport {
    /// Name of the patch.
    pub name: String,
    /// `removed`.
    pub state: &'static str,
    /// Mode of the revert.
    pub mode: String,
    /// Attempts the revert took.
    pub attempts: u64,
    /// Longest stop of the machine by the revert, nanoseconds.
    pub pause_ns: u64,
    /// Milliseconds from the request to the removal.
    pub took_ms: u64,
}

/// Reverts and removes the patch `name`.
pub fn unload(host: &Host, name: &str, wanted: &UnloadOptions) -> Result<UnloadReport, Failure> {
    let start = Instant::now();
    host.sysfs().map_err(Error::from)?;
    let Some(before) = PatchState::read(host, name) else {
        let module = !name.contains(['/', '.']) && host.exists(&format!("sys/module/{name}"));
        let detail = if module { "the module of this name is not a patch" } else { "there is none of this name" };
        return Err(Error::new(codes::LP5113, Place::object(name), detail).into());
    };
    if !host.may_load() {
        return Err(Error::new(codes::LP5109, Place::object(name), "this process has no CAP_SYS_MODULE").into());
    }
    let states = before.states();
    let mode = wanted.mode.map_or(before.mode.clone(), |m| m.name().to_owned());
    if wanted.force && !states.is_idle() && mode != Mode::Transition.name() {
        return Err(Error::new(codes::LP5121, Place::object(name), format!("its mode is {mode}")).into());
    }
    let shown = before.patience_ms.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(PATIENCE_MS);
    let patience = wanted.patience_ms.unwrap_or(shown);
    let packed = (before.mode.as_str(), before.deadline_ms.unwrap_or(0));
    let mut wanted = *wanted;
    wanted.deadline_ms = wanted.deadline_ms.or(deadline_of_transition(wanted.mode, packed, patience));
    let wanted = &wanted;
    let own = wanted.deadline_ms.map(u64::from).or(before.deadline_ms);
    let revert = Revert {
        host,
        name,
        drain: mode == Mode::Drain.name(),
        deadline: own.map_or(DEFAULT_DEADLINE, Duration::from_millis),
        force: wanted.force,
    };
    if !states.is_idle() && states != States::Reverting {
        revert.request(&before, wanted)?;
    }
    let after = if states.is_idle() { Some(before) } else { revert.wait()? };
    remove(host, name)?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (attempts, pause_ns) = after.map_or((0, 0), |p| (p.attempts, p.pause_ns));
    Ok(UnloadReport { name: name.to_owned(), state: "removed", mode, attempts, pause_ns, took_ms })
}

/// A revert that is asked for and waited for.
struct Revert<'a> {
    host: &'a Host,
    name: &'a str,
    drain: bool,
    deadline: Duration,
    force: bool,
}

impl Revert<'_> {
    /// Mode and deadline can be set while the patch is applied; what is under way keeps its own.
    fn request(&self, before: &PatchState, wanted: &UnloadOptions) -> Result<(), Failure> {
        if let Some(mode) = wanted.mode.filter(|m| m.name() != before.mode) {
            self.store("mode", mode.name())?;
        }
        if let Some(ms) = wanted.patience_ms {
            self.store("patience_ms", &ms.to_string())?;
        }
        if self.force {
            // The runtime must not give up before it can be forced.
            let ms = self.deadline.saturating_add(GRACE).as_millis().min(u128::from(u32::MAX));
            self.store("deadline_ms", &ms.to_string())?;
        } else if let Some(ms) = wanted.deadline_ms {
            self.store("deadline_ms", &ms.to_string())?;
        }
        self.store("enabled", "0").map_err(|failure| {
            // A request that is refused at once leaves its reason where a later refusal would be. That another patch lies
            // on this one is the same reason as often as it is asked.
            let now = PatchState::read(self.host, self.name);
            let said = |e: &String| before.last_error.as_ref() != Some(e) || e.starts_with(codes::LP5020.id);
            let new = now.filter(|now| now.last_error.as_ref().is_some_and(said));
            new.map_or(failure, |now| self.still_applied(&now))
        })
    }

    fn store(&self, file: &str, value: &str) -> Result<(), Failure> {
        self.host.write(&format!("{PATCHES}/{}/{file}", self.name), value).map_err(|e| {
            let detail = format!("writing {value} to /{PATCHES}/{}/{file}: {e}", self.name);
            Error::new(codes::LP5114, Place::object(self.name), detail).into()
        })
    }

    /// Waits until the patch is reverted, or applied again because it could not be; `None` when it went away meanwhile.
    fn wait(&self) -> Result<Option<PatchState>, Failure> {
        // A drain has no deadline in the kernel; the others have, and come to an end a while after it.
        let patience = if self.drain { self.deadline } else { self.deadline.saturating_add(GRACE) };
        self.wait_for(patience)
    }

    fn wait_for(&self, patience: Duration) -> Result<Option<PatchState>, Failure> {
        let start = Instant::now();
        let mut step = Duration::from_millis(1);
        let mut forced = false;
        loop {
            let Some(now) = PatchState::read(self.host, self.name) else { return Ok(None) };
            match now.states() {
                States::Reverted | States::Replaced | States::Checked => return Ok(Some(now)),
                // A draining patch can come to the end of that before the revert begins.
                States::Applied if now.last_error.is_some() || start.elapsed() > SETTLE => {
                    return Err(self.still_applied(&now));
                }
                _ => {}
            }
            if self.force && !forced && start.elapsed() > self.deadline {
                self.store("force", "1")?;
                forced = true;
            }
            if start.elapsed() > patience {
                return Err(self.unfinished(&now, start.elapsed()));
            }
            std::thread::sleep(step);
            step = step.saturating_mul(2).min(Duration::from_millis(50));
        }
    }

    fn still_applied(&self, now: &PatchState) -> Failure {
        let place = Place::object(self.name);
        match now.last_error.as_deref() {
            Some(e) => {
                let said = e.split_once(": ").unwrap_or((e, "the patch stays applied"));
                let functions = now.functions.iter().map(|f| f.symbol.as_str());
                runtime_cause(self.host, place, said, functions, &now.blockers).into()
            }
            None => {
                let detail = "the patch is still applied, and the kernel does not say why";
                Error::new(codes::LP5114, place, detail).into()
            }
        }
    }

    /// Waiting is over before the revert is: tasks are in the way, or the runtime is not well.
    fn unfinished(&self, now: &PatchState, waited: Duration) -> Failure {
        let text = format!("still {} after {:.1} s", now.state, waited.as_secs_f64());
        let tasks = now.switched.is_some_and(|s| s.tasks < s.of) || !now.blockers.is_empty();
        // A patch that still drains has been told, and reverts as soon as RCU-tasks lets it: a task has been in the kernel without
        // sleeping since before.
        let told = now.states() == States::Draining;
        if told || now.states() == States::Reverting && (tasks || self.drain) {
            let functions = now.functions.iter().map(|f| f.symbol.as_str());
            let said = (codes::LP5122.id, text.as_str());
            return runtime_cause(self.host, Place::object(self.name), said, functions, &now.blockers).into();
        }
        Error::new(codes::LP5116, Place::object(self.name), text).into()
    }
}

impl Shown for UnloadReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let attempts = if self.attempts == 1 { "attempt" } else { "attempts" };
        let pause = pause(self.pause_ns);
        let (name, state, n) = (&self.name, self.state, self.attempts);
        writeln!(out, "{name}: {state} ({n} {attempts}, {} ms, pause {pause})", self.took_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A patch that stays `reverting` is waited for, and then?
    fn given_up(files: &[(&str, &str)], drain: bool) -> Failure {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join(PATCHES).join("p");
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("state", "reverting\n"), ("force", "0\n")].iter().chain(files) {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let host = Host::at(dir.path());
        let revert = Revert { host: &host, name: "p", drain, deadline: Duration::from_millis(20), force: !drain };
        let failure = revert.wait_for(Duration::from_millis(40)).unwrap_err();
        let force = std::fs::read_to_string(folder.join("force")).unwrap();
        assert_eq!(force.trim(), if drain { "0" } else { "1" }, "forced when the deadline has passed");
        failure
    }

    #[test]
    fn a_runtime_that_does_not_answer() {
        let failure = given_up(&[], false);
        assert_eq!(failure.causes[0].problem.code.id, "LP5116");
        assert_eq!(failure.error().exit_code(), 1);
    }

    #[test]
    fn a_revert_that_goes_on() {
        for (files, drain) in [
            (&[("switched", "3/120\n")][..], false),
            (&[("blockers", "812 cat seq_read+0x1f\n")], false),
            (&[("blockers", "812 cat seq_read+0x1f\n")], true),
            (&[], true),
        ] {
            let failure = given_up(files, drain);
            assert_eq!(failure.causes[0].problem.code.id, "LP5122");
            assert_eq!(failure.error().exit_code(), 4);
            assert_eq!(failure.blockers().len(), usize::from(files.iter().any(|f| f.0 == "blockers")));
        }
    }
}
