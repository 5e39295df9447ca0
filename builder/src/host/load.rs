//! `lpbuild load`: checks, finit_module(2), and what became of it.
//!
//! Input: a module. Output: [`LoadReport`]. Refused: all that [`super::preflight()`] finds, then what the kernel says: the
//! runtime's own refusals (LP50xx) come from the log with every task that stood in the way, everything else is LP5111 or
//! LP5112. After a refusal nothing is changed and the module is not loaded; the exception is a patch that could be taken
//! back neither at once nor while this command waited, which says so.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use lpbuild_abi::{DEADLINE_MS, Mode};
use rustix::io::Errno;
use serde::Serialize;

use super::Shown;
use super::failure::{Failure, Obstacle, runtime_cause};
use super::klog::{KernelMessages, Log};
use super::module::ModuleFile;
use super::preflight::{options, preflight};
use super::remove::remove;
use super::state::{Blocker, PatchState, States};
use super::system::{Host, PATCHES};
use crate::codes;
use crate::error::{Error, Problem};

/// What `--force` costs; said before it is used.
pub const PRICE_OF_FORCE: &str = "--force: when the deadline has passed, the tasks that are left are switched where they stand; \
                                  a call of one of them can then run old and new code mixed";
/// How long the runtime goes on behind the deadline, for the force to reach it and the last steps.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long a patch that is being taken back is waited for.
const TAKEN_BACK: Duration = Duration::from_secs(5);
/// How often a state is read that must change soon.
const POLL: Duration = Duration::from_millis(20);

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Another mode than the packed one.
    pub mode: Option<Mode>,
    /// Another deadline than the packed one, milliseconds.
    pub deadline_ms: Option<u32>,
    /// Another patience than the packed one, milliseconds.
    pub patience_ms: Option<u32>,
    /// Check everything, apply nothing.
    pub dry_run: bool,
    /// Switch what is left when the deadline has passed.
    pub force: bool,
    /// Never to be reverted.
    pub oneshot: bool,
}

/// A patch that was loaded, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// What the runtime shows, or showed before a dry run was over.
    #[serde(flatten)]
    pub patch: PatchState,
    /// Milliseconds until it was in effect, or until waiting for tasks in old code ended.
    pub took_ms: u64,
    /// Nothing was changed.
    pub dry_run: bool,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Loads the module at `path`.
pub fn load(host: &Host, path: &Path, wanted: &LoadOptions) -> Result<LoadReport, Failure> {
    let module = ModuleFile::open(path)?;
    options(&module, wanted)?;
    let here = preflight(host, &module);
    if let Err(failure) = &here
        && !(wanted.dry_run && can_be_asked(failure))
    {
        return Err(failure.clone());
    }
    let name = &module.manifest.patch.name;
    let patch = &module.manifest.patch;
    let packed = (patch.mode.to_abi().name(), patch.deadline_ms.into());
    let patience = wanted.patience_ms.unwrap_or(patch.patience_ms);
    let mut wanted = *wanted;
    wanted.deadline_ms = wanted.deadline_ms.or(deadline_of_transition(wanted.mode, packed, patience));
    let wanted = &wanted;
    let deadline = Duration::from_millis(u64::from(wanted.deadline_ms.unwrap_or(patch.deadline_ms)));
    let log = Log::from_now(host);
    let start = Instant::now();
    // finit_module(2) reads the file itself, once more.
    if !module.is_regular() {
        return Err(Error::new(codes::LP5102, module.place(), "it is no regular file").into());
    }
    let inserted = insert(host, &module, wanted, deadline);
    let log = log.about(name);
    let (note, mut causes) = match here {
        Ok(note) => (note, Vec::new()),
        Err(failure) => (None, failure.causes),
    };
    if let Err(errno) = inserted {
        causes.extend(refused(host, &module, errno, &log));
        return Err(Failure { causes });
    }
    let Some(mut patch) = settle(host, name, start, deadline) else {
        let detail = format!("the module is loaded, but there is no /{PATCHES}/{name}");
        return Err(Error::new(codes::LP5116, module.place(), detail).into());
    };
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let states = patch.states();
    if wanted.dry_run {
        remove(host, name)?;
        causes.extend(found(host, &module, &log, &patch));
    } else if matches!(states, States::Reverting | States::Reverted) {
        causes.extend(found(host, &module, &log, &patch));
        let end = taken_back(host, name)?;
        for cause in &mut causes {
            cause.problem.detail.push_str(&end);
        }
    }
    if !causes.is_empty() {
        return Err(Failure { causes });
    }
    let mut notes: Vec<String> = note.into_iter().collect();
    if wanted.dry_run {
        patch.last_error = None;
    } else if states == States::Draining {
        notes.push(
            "every new call runs the new code; tasks that were in the old code before are still there".to_owned(),
        );
    }
    if patch.forced {
        notes.push("it was applied by force: calls that were inside may run old and new code mixed".to_owned());
    }
    Ok(LoadReport { patch, took_ms, dry_run: wanted.dry_run, notes })
}

/// The deadline of a patch that says none and was packed for another mode, when it is switched task by task: behind the
/// patience, as if it had been packed so.
pub(super) fn deadline_of_transition(wanted: Option<Mode>, (mode, ms): (&str, u64), patience: u32) -> Option<u32> {
    let other = wanted == Some(Mode::Transition) && mode != Mode::Transition.name();
    (other && ms == u64::from(DEADLINE_MS)).then(|| Mode::Transition.default_deadline_ms(patience))
}

/// Whether the kernel can check a module against which these problems speak: only other owners of functions do.
fn can_be_asked(failure: &Failure) -> bool {
    failure.causes.iter().all(|c| matches!(c.problem.code, codes::LP5107 | codes::LP5108))
}

/// finit_module(2); with force, the rest is switched when the deadline has passed and it has not returned.
fn insert(host: &Host, module: &ModuleFile, wanted: &LoadOptions, deadline: Duration) -> Result<(), Errno> {
    let parameters = parameters(wanted, deadline);
    if !wanted.force {
        return host.insert(&module.file, &parameters);
    }
    let (done, wait) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                // A patch that has just come to its end takes no force, and says itself how it ended.
                let _ = host.write(&format!("{PATCHES}/{}/force", module.manifest.patch.name), "1");
            }
        });
        let inserted = host.insert(&module.file, &parameters);
        drop(done);
        inserted
    })
}

/// Module parameters; without any the patch is applied as packed.
fn parameters(wanted: &LoadOptions, deadline: Duration) -> String {
    let mut list = Vec::new();
    if let Some(mode) = wanted.mode {
        list.push(format!("mode={}", mode.name()));
    }
    if wanted.force {
        list.push(format!("deadline_ms={}", deadline.saturating_add(GRACE).as_millis().min(u128::from(u32::MAX))));
    } else if let Some(ms) = wanted.deadline_ms {
        list.push(format!("deadline_ms={ms}"));
    }
    if let Some(ms) = wanted.patience_ms {
        list.push(format!("patience_ms={ms}"));
    }
    if wanted.dry_run {
        list.push("dry_run=1".to_owned());
    }
    if wanted.oneshot {
        list.push("oneshot=1".to_owned());
    }
    list.join(" ")
}

/// The state once it holds, or when the deadline has passed.
fn settle(host: &Host, name: &str, start: Instant, deadline: Duration) -> Option<PatchState> {
    loop {
        let now = PatchState::read(host, name)?;
        if now.states() != States::Draining || start.elapsed() >= deadline {
            return Some(now);
        }
        std::thread::sleep(POLL);
    }
}

/// Removes a patch that is reverted by itself; what to add to its problems.
fn taken_back(host: &Host, name: &str) -> Result<String, Failure> {
    let start = Instant::now();
    loop {
        match PatchState::read(host, name).map(|p| p.states()) {
            None => return Ok(String::new()),
            Some(States::Reverted) => return remove(host, name).map(|()| String::new()),
            Some(_) if start.elapsed() < TAKEN_BACK => std::thread::sleep(POLL),
            Some(_) => {
                return Ok(format!(
                    "; taking it back is not finished either and goes on: the module stays until its state is reverted, \
                     then lpbuild unload {name} removes it"
                ));
            }
        }
    }
}

/// What the runtime found against a module that it took all the same.
fn found(host: &Host, module: &ModuleFile, log: &KernelMessages, patch: &PatchState) -> Vec<Obstacle> {
    let last = patch.last_error.as_deref().map(|e| e.split_once(": ").unwrap_or((e, "")));
    let mut said: Vec<(&str, &str)> = last.into_iter().collect();
    for (code, text) in &log.refusals {
        if !said.contains(&(code.as_str(), text.as_str())) {
            said.push((code, text));
        }
    }
    causes(host, module, &said, if patch.blockers.is_empty() { &log.blockers } else { &patch.blockers })
}

/// Each thing the runtime said; the tasks belong to the ones that speak of tasks.
fn causes(host: &Host, module: &ModuleFile, said: &[(&str, &str)], blockers: &[Blocker]) -> Vec<Obstacle> {
    let functions = || module.manifest.functions.iter().map(|f| f.symbol.as_str());
    let cause = |&(code, text): &(&str, &str)| {
        let theirs = if about_tasks(code) { blockers } else { &[] };
        runtime_cause(host, module.place(), (code, text), functions(), theirs)
    };
    said.iter().map(cause).collect()
}

/// Refusals because of tasks: busy until the deadline, still inside, cancelled while some were in the way, and codes this
/// lpbuild does not know.
fn about_tasks(code: &str) -> bool {
    let about = |code| matches!(code, codes::LP5007 | codes::LP5013 | codes::LP5016 | codes::LP5026);
    codes::find(code).is_none_or(about)
}

/// Translates the kernel's answer.
fn refused(host: &Host, module: &ModuleFile, errno: Errno, log: &KernelMessages) -> Vec<Obstacle> {
    let said: Vec<(&str, &str)> = log.refusals.iter().map(|(code, text)| (code.as_str(), text.as_str())).collect();
    if !said.is_empty() {
        return causes(host, module, &said, &log.blockers);
    }
    let said = match log.loader.as_slice() {
        [] if log.unreadable => " (/dev/kmsg cannot be read, so its reason is unknown)".to_owned(),
        [] => String::new(),
        lines => format!(" ({})", lines.join("; ")),
    };
    let problem = match errno {
        Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG | Errno::KEYEXPIRED | Errno::KEYREVOKED => {
            let signed =
                if module.signature.is_some() { "its signature is by no key it trusts" } else { "it is not signed" };
            Problem::new(codes::LP5111, module.place(), format!("{errno}: {signed}{said}"))
        }
        Errno::PERM | Errno::ACCESS => {
            let lockdown = host.lockdown().unwrap_or_else(|| "unknown, securityfs is not mounted".to_owned());
            Problem::new(codes::LP5111, module.place(), format!("{errno}; lockdown: {lockdown}{said}"))
        }
        Errno::EXIST => Problem::new(codes::LP5106, module.place(), format!("{errno}{said}")),
        _ => Problem::new(codes::LP5112, module.place(), format!("{errno}{said}")),
    };
    vec![problem.into()]
}

impl Shown for LoadReport {
    fn text(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let p = &self.patch;
        let attempts = if p.attempts == 1 { "attempt" } else { "attempts" };
        let state = if self.dry_run { "would be applied, nothing is changed" } else { &p.state };
        let (name, version, mode, pause) = (&p.name, &p.version, &p.mode, pause(p.pause_ns));
        writeln!(
            out,
            "{name} {version}: {state}, {mode} ({} {attempts}, {} ms, pause {pause})",
            p.attempts, self.took_ms
        )?;
        functions(p, out)?;
        p.holders(out)?;
        p.tasks(out)?;
        self.notes.iter().try_for_each(|n| writeln!(out, "  note: {n}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_only_those_asked_for() {
        let ten = Duration::from_secs(10);
        assert_eq!(parameters(&LoadOptions::default(), ten), "");
        let all = LoadOptions {
            mode: Some(Mode::Drain),
            deadline_ms: Some(7),
            patience_ms: Some(8),
            dry_run: true,
            force: false,
            oneshot: true,
        };
        assert_eq!(parameters(&all, ten), "mode=drain deadline_ms=7 patience_ms=8 dry_run=1 oneshot=1");
        // The runtime must not give up before it can be forced.
        let forced = LoadOptions { mode: Some(Mode::Transition), force: true, ..LoadOptions::default() };
        assert_eq!(parameters(&forced, ten), "mode=transition deadline_ms=40000");
        assert_eq!(parameters(&forced, Duration::MAX), format!("mode=transition deadline_ms={}", u32::MAX));
    }

    #[test]
    fn a_transition_ends_behind_its_patience() {
        let transition = Some(Mode::Transition);
        assert_eq!(deadline_of_transition(transition, ("drain", 10_000), 15_000), Some(30_000));
        assert_eq!(deadline_of_transition(transition, ("stop-machine", 10_000), u32::MAX), Some(u32::MAX));
        // What was said stays, and so does what was packed for it.
        assert_eq!(deadline_of_transition(transition, ("drain", 9_999), 15_000), None);
        assert_eq!(deadline_of_transition(transition, ("transition", 10_000), 15_000), None);
        assert_eq!(deadline_of_transition(Some(Mode::Drain), ("transition", 10_000), 15_000), None);
        assert_eq!(deadline_of_transition(None, ("drain", 10_000), 15_000), None);
    }
}
