//! What makes the deadline a bound: nobody traps because of a wait that does not end.
//!
//! Before the int3 is written, everybody is asked whether they would be waited for ([`crate::survey`]); a wait behind it that has not ended
//! at the deadline is taken back where there is a way back, else whoever waits for the operation need not wait any longer.

use core::sync::atomic::Ordering::SeqCst;

use super::{MAX_BACKOFF_MS, MS, Machine, Op, Stage, Step};
use crate::{
    kernel::{Guard, Kernel},
    refusal::Refusal,
    site::{self, Route},
    status::State,
    survey,
    switch::Scan,
};

impl<K: Kernel> Machine<'_, K> {
    /// Until everybody has rested, or the deadline: no site has been written.
    pub(super) fn survey(&mut self) -> Option<Step> {
        let cancelled = self.op == Op::Apply && self.parts.cancel.load(SeqCst);
        if cancelled {
            return Some(self.end_survey(Refusal::Cancelled));
        }
        if self.all_rested() {
            self.stage = Stage::Enter;
            return None;
        }
        let why = if self.watch.table().is_some() { Refusal::Restless } else { Refusal::NoMemory };
        let left = self.left_ms();
        Some(if left > 0 { self.again(left) } else { self.end_survey(why) })
    }

    pub(super) fn all_rested(&mut self) -> bool {
        if self.watch.table().is_none() && !self.watch.begin(self.k) {
            return false;
        }
        let scan = Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located };
        let found = &mut self.status.blockers;
        let left = self.watch.table().map_or(0, |t| survey::pass(&scan, t, self.parts.frames, found));
        if left != 0 && self.k.guard(Guard::Survey) {
            return false;
        }
        self.watch.end(self.k);
        self.status.blockers.clear();
        self.backoff_ms = 1;
        self.surveyed = true;
        true
    }

    fn end_survey(&mut self, why: Refusal) -> Step {
        self.watch.end(self.k);
        self.give_up(why)
    }

    /// How long a wait of [`Step::RcuTasks`] may last until [`Machine::overdue`] is to be asked; `None`: as long as it takes.
    pub fn wait_ms(&self) -> Option<u64> {
        let turns = self.failing.is_none() && self.stage == Stage::Switch;
        (turns || self.op == Op::Apply && !self.effective).then(|| self.left_ms())
    }

    /// The deadline has come and the wait for `synchronize_rcu_tasks` has not ended. `None`: it is waited for. The next
    /// [`Step::RcuTasks`] is for one that begins behind that step.
    pub fn overdue(&mut self) -> Option<Step> {
        self.wait_ms()?;
        match self.stage {
            // In the stop everybody has changed over at one instant: there is no way back but another stop.
            Stage::Write(Route::New) if self.bare().is_some() => Some(self.effective(State::Draining)),
            Stage::Write(_) if self.failing.is_none() && self.route == Route::Original => self.take_back(),
            Stage::Switch if self.failing.is_none() => {
                // Its table is not complete without the wait.
                self.fail(Refusal::Restless).or(Some(Step::Again(0)))
            }
            _ => {
                let state = if self.failing.is_none() { State::Draining } else { State::Reverting };
                Some(self.effective(state))
            }
        }
    }

    /// The int3s go again; what is behind them has not changed.
    pub(super) fn take_back(&mut self) -> Option<Step> {
        if !self.k.guard(Guard::TakeBack) || site::check_trapped(self.k, self.parts.sites.iter(), self.route).is_err() {
            return None;
        }
        self.poke().first_bytes(self.route);
        self.poke().disarm();
        self.parts.board.settle(false);
        self.parts.board.retire();
        for other in self.replaced_boards() {
            other.follow(None);
        }
        self.failing = Some(Refusal::Restless);
        self.status.refusal = self.failing;
        self.goal_new = false;
        self.stage = Stage::Leave;
        Some(Step::Again(0))
    }

    /// Milliseconds until the deadline.
    pub(super) fn left_ms(&self) -> u64 {
        let now = self.k.now_ns();
        let spent_ms = now.saturating_sub(self.started_ns.unwrap_or(now)) / MS;
        self.deadline_ms.saturating_sub(spent_ms)
    }

    pub(super) fn again(&mut self, at_most: u64) -> Step {
        let wait = self.backoff_ms.min(at_most);
        self.backoff_ms = (self.backoff_ms * 2).min(MAX_BACKOFF_MS);
        Step::Again(wait)
    }

    /// Another try at what has to be done before the operation can end, either way: whoever waits for it does not wait
    /// beyond the deadline.
    pub(super) fn patiently(&mut self) -> Step {
        if self.op == Op::Apply && !self.effective && self.left_ms() == 0 {
            return self.effective(if self.failing.is_none() { State::Draining } else { State::Reverting });
        }
        self.again(MAX_BACKOFF_MS)
    }

    pub(super) fn effective(&mut self, state: State) -> Step {
        self.effective = true;
        self.status.state = state;
        Step::Effective
    }
}
