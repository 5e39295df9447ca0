//! When an operation changes constants in their place ([`crate::constants`]): behind the last old code, and back before the first.

use core::sync::atomic::Ordering::SeqCst;

use lpbuild_abi::Mode;

use super::{Machine, Op, Step};
use crate::{
    kernel::{Guard, Kernel},
    refusal::Refusal,
};

impl<K: Kernel> Machine<'_, K> {
    /// Before anything is written: constants hold what they should, and what an operation takes away from them goes before anybody can
    /// run old code. In `stop-machine` it goes at the instant at which old code comes. Where no function is here nobody runs any of
    /// them, and what comes finds the end.
    pub(super) fn constants_before(&self) -> Result<(), Refusal> {
        let (constants, new) = (self.parts.constants, self.goal_new);
        constants.check(self.k, &self.patch)?;
        let later = if new {
            self.k.guard(Guard::DataBehindOldCode)
        } else {
            self.in_the_stop() || !self.k.guard(Guard::DataBeforeOldCode)
        };
        if later && self.parts.sites.iter().next().is_some() {
            return Ok(());
        }
        constants.change(self.k, &self.patch, self.parts.seats, new)
    }

    pub(super) fn in_the_stop(&self) -> bool {
        self.status.mode == Mode::StopMachine && self.k.guard(Guard::DataInTheStop)
    }

    /// Everybody runs the new code.
    pub(super) fn arrive(&mut self) -> Step {
        // Somebody may be in old code for good when a revert was asked for. It takes nothing back that has not been written.
        let cancelled = self.op == Op::Apply && self.parts.cancel.load(SeqCst);
        if !cancelled && let Err(why) = self.parts.constants.change(self.k, &self.patch, self.parts.seats, true) {
            self.status.refusal = Some(why);
            return self.patiently();
        }
        if self.failing.is_none() {
            self.status.refusal = None;
        }
        self.arrived()
    }
}
