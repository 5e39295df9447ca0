//! Apply and revert, step by step. The caller (a kernel thread, or a test) performs the waits between the steps.
//!
//! Apply, in a first stop of the machine: sites and stacks are checked, and if nothing stands in the way the first
//! byte of every site becomes int3. From that instant every call runs the new code, for all functions at once. Then,
//! with the machine running, the caller waits for `synchronize_rcu_tasks`, and the jumps are completed behind the int3:
//! tails, serialise, first bytes, serialise.
//!
//! Two guards protect a task that is preempted *inside* the bytes of a site. The stack check sees every task on the
//! task list. A task that is exiting leaves the list (`release_task`, kernel/exit.c) while it still runs and can
//! still be preempted; `synchronize_rcu_tasks` waits for exactly those (`exit_tasks_rcu_start`, kernel/rcu/tasks.h).
//!
//! Revert happens in one stop: sites and stacks are checked, then int3, tails and first bytes are written in lockstep
//! with the other CPUs. It must not be spread out, since an int3 would still send callers into the new code. NMIs are
//! the only code that can run in that window, and they never see half a jump. Afterwards `synchronize_rcu_tasks` waits
//! for exiting tasks again, this time inside the new code, before the caller may let the module go.
//!
//! Callbacks of the patch are steps of their own, with the machine running and no lock held. Apply: pre-apply, attempts,
//! post-apply. Revert: pre-revert, attempts, post-revert. An apply that is refused after pre-apply agreed ends with
//! post-revert, a revert that is refused with post-apply: whatever the first callback of an operation did is undone by the
//! one that would also undo it later, as the kernel's livepatch does (Documentation/livepatch/callbacks.rst).

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use lpbuild_abi::Callback;

use crate::{
    kernel::Kernel,
    record::Patch,
    refusal::Refusal,
    rendezvous::{Lockstep, Rendezvous},
    site::{self, Expect, INT3, Site},
    stack::{self, Blockers},
    status::{State, Status},
};

/// Longest pause between two attempts, milliseconds.
const MAX_BACKOFF_MS: u64 = 100;
/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait this many milliseconds, then call again.
    Again(u64),
    /// Wait for `synchronize_rcu_tasks`, then call again.
    RcuTasks,
    /// Call this function of the patch with no lock held, hand what it returns to [`Machine::called`], then call again.
    Call(Callback),
    /// The operation is complete.
    Done,
    /// Not done; everything is as before.
    Refused(Refusal),
}

/// How far the sites are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Original,
    Trapped,
    Jumping,
    Restored,
}

/// One patch on one kernel.
#[derive(Debug)]
pub struct Machine<'a, K: Kernel> {
    k: &'a K,
    patch: Patch<'a>,
    sites: &'a [Site<K::Alias>],
    armed: &'a AtomicBool,
    seats: &'a [AtomicUsize],
    frames: &'a mut [u64],
    phase: Phase,
    started_ns: Option<u64>,
    backoff_ms: u64,
    deadline_ms: u64,
    /// The callback that comes before the first attempt of this operation has been called, or there is none.
    prepared: bool,
    /// What pre-apply returned, when that was not 0.
    veto: Option<i32>,
    /// How the operation ends when the callback that comes last has returned.
    ending: Option<(State, Step)>,
    /// A oneshot patch is reverted all the same.
    forced: bool,
    status: Status,
}

/// What the primary works on during a stop.
struct Work<'w> {
    frames: &'w mut [u64],
    blockers: &'w mut Blockers,
    result: Result<(), Refusal>,
    pause_ns: u64,
}

impl<'a, K: Kernel> Machine<'a, K> {
    /// A machine for a patch that is not applied.
    ///
    /// `sites[i]` belongs to function `i`; `armed` is what the int3 handler looks at; `seats` has one entry per
    /// possible CPU; `frames` must be as long as the deepest stack (deeper ones count as unreliable).
    pub fn new(
        k: &'a K,
        patch: Patch<'a>,
        sites: &'a [Site<K::Alias>],
        armed: &'a AtomicBool,
        seats: &'a [AtomicUsize],
        frames: &'a mut [u64],
    ) -> Self {
        let deadline_ms = u64::from(patch.record.deadline_ms);
        Self {
            k,
            patch,
            sites,
            armed,
            seats,
            frames,
            phase: Phase::Original,
            started_ns: None,
            backoff_ms: 1,
            deadline_ms,
            prepared: false,
            veto: None,
            ending: None,
            forced: false,
            status: Status::new(),
        }
    }

    /// What is shown of it.
    pub fn status(&self) -> &Status {
        &self.status
    }
    /// The patch.
    pub fn patch(&self) -> &Patch<'a> {
        &self.patch
    }
    /// The sites.
    pub fn sites(&self) -> &'a [Site<K::Alias>] {
        self.sites
    }
    /// Deadline of the operations that begin from now on, in milliseconds.
    pub fn set_deadline(&mut self, ms: u64) {
        self.deadline_ms = ms;
    }

    /// The module is going away whatever the patch wants: from now on a oneshot patch is reverted like any other.
    pub fn force(&mut self) {
        self.forced = true;
    }
    /// What the callback of the last [`Step::Call`] returned; only that of pre-apply means something.
    pub fn called(&mut self, callback: Callback, value: i32) {
        if callback == Callback::PreApply && value != 0 {
            self.veto = Some(value);
        }
    }

    /// One step of applying.
    pub fn apply(&mut self) -> Step {
        if let Some((state, step)) = self.ending.take() {
            return self.end(state, step);
        }
        match self.phase {
            Phase::Original => {}
            Phase::Trapped => {
                self.complete();
                self.phase = Phase::Jumping;
                return self.finish(Callback::PostApply, State::Applied, Step::Done);
            }
            Phase::Jumping | Phase::Restored => return Step::Done,
        }
        if let Some(call) = self.prepare(Callback::PreApply, State::Applying) {
            return call;
        }
        if let Some(value) = self.veto.take() {
            let why = Refusal::Vetoed { value };
            self.status.refusal = Some(why);
            return self.end(State::Refused, Step::Refused(why));
        }
        self.begin();
        match self.stop(Self::trap) {
            Ok(()) => {
                self.phase = Phase::Trapped;
                Step::RcuTasks
            }
            Err(why) => {
                self.disarm();
                self.retry(why, Callback::PostRevert, State::Refused)
            }
        }
    }

    /// One step of reverting.
    pub fn revert(&mut self) -> Step {
        if let Some((state, step)) = self.ending.take() {
            return self.end(state, step);
        }
        match self.phase {
            Phase::Jumping => {}
            Phase::Restored => return self.finish(Callback::PostRevert, State::Reverting, Step::Done),
            Phase::Original | Phase::Trapped => return Step::Done,
        }
        if self.patch.is_oneshot() && !self.forced {
            self.status.refusal = Some(Refusal::Oneshot);
            return self.end(State::Applied, Step::Refused(Refusal::Oneshot));
        }
        if let Some(call) = self.prepare(Callback::PreRevert, State::Reverting) {
            return call;
        }
        self.begin();
        let result = self.stop(Self::restore);
        self.disarm();
        match result {
            Ok(()) => {
                self.phase = Phase::Restored;
                Step::RcuTasks
            }
            Err(why) => self.retry(why, Callback::PostApply, State::Applied),
        }
    }

    /// To be called when nothing can be inside the new code any more and the module's own reference is gone.
    pub fn released(&mut self) {
        self.status.state = State::Reverted;
    }

    /// The beginning of an operation: its first callback, once, if the patch has it.
    fn prepare(&mut self, callback: Callback, state: State) -> Option<Step> {
        if self.prepared {
            return None;
        }
        self.prepared = true;
        self.status.state = state;
        self.status.attempts = 0;
        self.status.pause_ns = 0;
        self.status.refusal = None;
        self.status.blockers.clear();
        self.patch.has(callback).then_some(Step::Call(callback))
    }

    /// The beginning of an attempt; the deadline counts from the first, so not while a callback runs.
    fn begin(&mut self) {
        if self.started_ns.is_none() {
            self.started_ns = Some(self.k.now_ns());
            self.backoff_ms = 1;
        }
        self.status.attempts += 1;
    }

    /// The end of an operation, behind its last callback if the patch has it. The state changes when that has returned.
    fn finish(&mut self, callback: Callback, state: State, step: Step) -> Step {
        if self.patch.has(callback) {
            self.ending = Some((state, step));
            return Step::Call(callback);
        }
        self.end(state, step)
    }

    fn end(&mut self, state: State, step: Step) -> Step {
        self.status.state = state;
        self.started_ns = None;
        self.prepared = false;
        step
    }

    /// Another attempt while the deadline allows it, else the end: what the first callback has done is undone by `undo`,
    /// and back to `state`.
    fn retry(&mut self, why: Refusal, undo: Callback, state: State) -> Step {
        let now = self.k.now_ns();
        let spent_ms = now.saturating_sub(self.started_ns.unwrap_or(now)) / MS;
        let left_ms = self.deadline_ms.saturating_sub(spent_ms);
        if !why.is_transient() || left_ms == 0 {
            self.status.refusal = Some(why);
            return self.finish(undo, state, Step::Refused(why));
        }
        let wait = self.backoff_ms.min(left_ms);
        self.backoff_ms = (self.backoff_ms * 2).min(MAX_BACKOFF_MS);
        Step::Again(wait)
    }

    /// Late hits on an int3 that is already gone are sent back to the site, see [`site::divert`].
    fn disarm(&self) {
        self.k.serialize_all();
        self.armed.store(false, SeqCst);
    }

    /// Stops the machine for one attempt.
    fn stop(
        &mut self,
        primary: fn(&Order<'_, K>, &mut Work<'_>, &Lockstep<'_, '_, K, Work<'_>>),
    ) -> Result<(), Refusal> {
        let order = Order { k: self.k, patch: &self.patch, sites: self.sites, armed: self.armed, seats: self.seats };
        // Stays the result when the primary never gets to work.
        let result = Err(Refusal::CpusMissing);
        self.status.blockers.clear();
        let work = Work { frames: &mut *self.frames, blockers: &mut self.status.blockers, result, pause_ns: 0 };
        let meeting = Rendezvous::new(self.k.online_cpus(), self.seats, work);
        let ran = self.k.stop(&|| {
            let start = self.k.now_ns();
            meeting.enter(self.k, |work, lockstep| {
                primary(&order, work, lockstep);
                work.pause_ns = self.k.now_ns().saturating_sub(start);
            });
        });
        let work = meeting.finish();
        self.status.pause_ns = self.status.pause_ns.max(work.pause_ns);
        if ran { work.result } else { Err(Refusal::CpusMissing) }
    }

    fn trap(order: &Order<'_, K>, work: &mut Work<'_>, lockstep: &Lockstep<'_, '_, K, Work<'_>>) {
        let ranges = order.patch.ranges;
        work.result = order.check(work, Expect::Original, Refusal::Busy, |a| stack::in_ranges(ranges, a));
        if work.result.is_ok() {
            work.result = order.int3(lockstep, Site::original);
        }
    }

    fn restore(order: &Order<'_, K>, work: &mut Work<'_>, lockstep: &Lockstep<'_, '_, K, Work<'_>>) {
        let (start, end) = (order.patch.record.text_start, order.patch.record.text_end);
        let inside = |a| stack::in_range(start, end, a) || order.sites.iter().any(|s| s.interior(a));
        work.result = order.check(work, Expect::Jump, Refusal::StillInside, inside);
        if work.result.is_ok() {
            work.result = order.int3(lockstep, Site::jump);
        }
        if work.result.is_ok() {
            order.tails(Site::original);
            lockstep.serialize();
            order.first_bytes(Site::original);
        }
    }

    /// Turns the int3s into jumps. Nothing can enter a site, nothing is inside one.
    fn complete(&self) {
        let order = Order { k: self.k, patch: &self.patch, sites: self.sites, armed: self.armed, seats: self.seats };
        order.tails(Site::jump);
        self.k.serialize_all();
        order.first_bytes(Site::jump);
        self.disarm();
    }
}

/// The fixed part of what the primary needs.
struct Order<'o, K: Kernel> {
    k: &'o K,
    patch: &'o Patch<'o>,
    sites: &'o [Site<K::Alias>],
    armed: &'o AtomicBool,
    seats: &'o [AtomicUsize],
}

impl<K: Kernel> Order<'_, K> {
    /// Sites and stacks as they are now that nothing moves.
    fn check(
        &self,
        w: &mut Work<'_>,
        expect: Expect,
        busy: Refusal,
        inside: impl Fn(u64) -> bool,
    ) -> Result<(), Refusal> {
        site::check(self.k, self.sites, expect)?;
        stack::walk(self.k, self.seats, w.frames, inside, w.blockers);
        if w.blockers.total() == 0 { Ok(()) } else { Err(busy) }
    }

    /// int3 on every site, seen by every CPU; taken back when one does not answer.
    ///
    /// Diverting begins here and not earlier: until the sites have been compared in this stop, an int3 at one of them
    /// is that of another patch that is being applied to the same function, and whoever hits it must not get into
    /// code that may be refused and freed a moment later.
    fn int3(
        &self,
        lockstep: &Lockstep<'_, '_, K, Work<'_>>,
        before: fn(&Site<K::Alias>) -> &[u8],
    ) -> Result<(), Refusal> {
        self.armed.store(true, SeqCst);
        for s in self.sites {
            self.k.write(s.alias, 0, &[INT3]);
        }
        if lockstep.serialize_or_give_up() {
            return Ok(());
        }
        self.first_bytes(before);
        Err(Refusal::CpusMissing)
    }

    fn tails(&self, bytes: fn(&Site<K::Alias>) -> &[u8]) {
        for s in self.sites {
            self.k.write(s.alias, 1, bytes(s).get(1..).unwrap_or(&[]));
        }
    }

    fn first_bytes(&self, bytes: fn(&Site<K::Alias>) -> &[u8]) {
        for s in self.sites {
            self.k.write(s.alias, 0, bytes(s).get(..1).unwrap_or(&[]));
        }
    }
}
