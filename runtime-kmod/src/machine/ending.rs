//! How an operation ends: what is left to call, what the state is then, and what the caller is told.

use lpbuild_abi::Callback;

use super::{Machine, Op, Stage, Step};
use crate::{
    kernel::{Guard, Kernel},
    refusal::Refusal,
    status::State,
};

impl<K: Kernel> Machine<'_, K> {
    /// Everybody runs the new version.
    pub(super) fn arrived(&mut self) -> Step {
        self.status.blockers.retain_if(self.failing.is_some());
        match self.failing {
            // The callback came when the jumps were there.
            None if self.drains() => self.end(State::Applied, Step::Done),
            None => self.finish(Callback::PostApply, State::Applied, Step::Done),
            Some(why) => self.refuse(why, Some(Callback::PostApply), State::Applied),
        }
    }

    /// Nobody is inside the new version, nothing leads there.
    pub(super) fn left(&mut self) -> Step {
        match self.failing {
            None => {
                self.status.refusal = None;
                self.status.blockers.clear();
                self.finish(Callback::PostRevert, State::Reverting, Step::Done)
            }
            Some(why) => {
                let state = if self.effective { State::Reverting } else { State::Refused };
                self.refuse(why, Some(Callback::PostRevert), state)
            }
        }
    }

    /// Nothing was written, or it was put back.
    pub(super) fn give_up(&mut self, why: Refusal) -> Step {
        match self.op {
            Op::Apply => self.refuse(why, Some(Callback::PostRevert), State::Refused),
            Op::Revert => self.refuse(why, Some(Callback::PostApply), State::Applied),
        }
    }

    /// The end of an operation that is not done: what the first callback has done is undone by `undo`.
    pub(super) fn refuse(&mut self, why: Refusal, undo: Option<Callback>, state: State) -> Step {
        self.status.refusal = Some(why);
        match undo.filter(|_| self.k.guard(Guard::UndoCallback)) {
            Some(callback) => self.finish(callback, state, Step::Refused(why)),
            None => self.end(state, Step::Refused(why)),
        }
    }

    /// The end of an operation, behind its last callback if the patch has it. The state changes when that has returned.
    pub(super) fn finish(&mut self, callback: Callback, state: State, step: Step) -> Step {
        if self.patch.has(callback) {
            self.ending = Some((state, step));
            return Step::Call(callback);
        }
        self.end(state, step)
    }

    pub(super) fn end(&mut self, state: State, step: Step) -> Step {
        self.status.state = state;
        self.stage = Stage::Rest;
        step
    }
}
