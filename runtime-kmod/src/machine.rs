//! Apply and revert, step by step. The caller (a kernel thread, or a test) performs the waits between the steps.
//!
//! Both directions have the same parts:
//!
//! ```text
//! Prepare   the callback that comes first
//! Survey    is there anybody who would be waited for behind the int3?               (survey.rs)
//! Enter     the sites are compared; int3 on all of them: from here on nobody runs the bytes that change next
//! Write     tails, serialise, first bytes, serialise                (poke.rs)
//! Switch    who runs which version: all at one instant, or task by task      (switch.rs)
//! Settle    int3 again, to what the sites hold in the end
//! Retire    what dispatchers may still be reading is freed behind synchronize_rcu_tasks
//! Drain     new calls run the new code already: who is still inside the old?
//! Leave     no jump leads into the module any more: who is still inside?
//! ```
//!
//! ```text
//!                apply                                        revert
//! stop-machine   Enter Write Switch Settle Write Retire       Enter Write Switch Settle Write Leave
//! transition     the same                                     the same
//! drain          Enter Write Drain                            Enter Write Leave
//! in the stop    InStop Write Retire                          InStop Leave
//! ```
//!
//! During Switch the sites lead to dispatchers, which send each task to the version it runs ([`crate::board`]). So the
//! switch itself writes no code: in `stop-machine` it is one variable, in `transition` one per task. When it fails, it is
//! turned round ([`Stage::Turn`]) and ends on the other side. "In the stop" is for functions whose beginning cannot be
//! executed elsewhere, which have no dispatcher: there the first bytes are written while the machine is stopped.
//!
//! Two guards protect a task that is preempted *inside* the bytes of a site: nobody enters behind the int3, and
//! `synchronize_rcu_tasks` waits for everybody who was inside, on the task list or off it (`exit_tasks_rcu_start`,
//! kernel/rcu/tasks.h), and for softirqs on top of an idle task, because it begins with `synchronize_rcu`. Nobody can be inside
//! one instruction, as a `rel32` jump is: replacing one waits for nothing. What else the wait is good for (tasks that have left the
//! task list, which no census finds) is then waited for before the stop, and before draining is over.
//!
//! Callbacks of the patch are steps of their own, with the machine running and no lock held. Apply: pre-apply, attempts,
//! post-apply. Revert: pre-revert, attempts, post-revert. An apply that is refused after pre-apply agreed ends with
//! post-revert, a revert that is refused with post-apply: whatever the first callback of an operation did is undone by the
//! one that would also undo it later, as the kernel's livepatch does (Documentation/livepatch/callbacks.rst).

mod bound;
mod ending;
mod placed;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use lpbuild_abi::{Callback, Mode};

use crate::{
    board::{Board, Watch},
    constants::Constants,
    holders::Joining,
    kernel::{Guard, Kernel},
    poke::Poke,
    record::{self, Patch},
    refusal::Refusal,
    site::{self, Route, Site},
    sites::SiteSet,
    stack::Located,
    status::{State, Status},
    switch::{self, CodeOf, Other, Scan},
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
    /// Nobody is inside the patches whose place this one took: let them go, hand the sites that are left to
    /// [`Machine::replaced_others`], then call again.
    Replaced,
    /// From here on the module stays, and whoever waits for the operation need not wait any longer; then call again.
    Effective,
    /// The operation is complete.
    Done,
    /// Not done; everything is as before.
    Refused(Refusal),
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Apply,
    Revert,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Rest,
    Prepare,
    Enter,
    Survey,
    InStop,
    Write(Route),
    Switch,
    /// The other way round: a table for the other goal, and the one before it is freed.
    Turn,
    TurnRecall,
    TurnFree,
    Settle,
    Retire,
    RetireFree,
    Drain,
    DrainFree,
    Arrive,
    Leave,
    LeaveWatch,
    LeaveFree,
}

/// What a machine works with, made by the caller and kept by it.
#[derive(Debug)]
pub struct Parts<'a, K: Kernel> {
    /// Those in the kernel, behind them what only a replaced patch has; and those in modules that are here.
    pub sites: SiteSet<'a, K::Alias>,
    /// Replaced code of modules that are here.
    pub located: &'a [Located],
    /// Patches below, on which this one lies or whose place it takes.
    pub others: &'a [Other<'a>],
    /// What changes in its place.
    pub constants: &'a Constants<K::Alias>,
    /// What the int3 handler looks at.
    pub armed: &'a AtomicBool,
    /// What the dispatchers look at.
    pub board: &'a Board,
    /// Set when a revert is asked for while an apply is under way.
    pub cancel: &'a AtomicBool,
    /// Set when the tasks that are left shall be switched wherever they are.
    pub force: &'a AtomicBool,
    /// One entry per possible CPU.
    pub seats: &'a [AtomicUsize],
    /// As long as the deepest stack (deeper ones count as unreliable).
    pub frames: &'a mut [u64],
}

/// One patch on one kernel.
#[derive(Debug)]
pub struct Machine<'a, K: Kernel> {
    k: &'a K,
    patch: Patch<'a>,
    parts: Parts<'a, K>,
    mode: Mode,
    op: Op,
    stage: Stage,
    /// What the sites hold.
    route: Route,
    /// The version everybody runs in the end.
    goal_new: bool,
    /// Why it is being turned round, or has to end where it began.
    failing: Option<Refusal>,
    /// [`Step::Effective`] has been returned.
    effective: bool,
    /// `synchronize_rcu_tasks` has passed since nobody enters what was there any more, and since calls are marked.
    waited: bool,
    /// Everybody has rested since the operation began.
    surveyed: bool,
    watch: Watch,
    started_ns: Option<u64>,
    switch: switch::Clock,
    backoff_ms: u64,
    deadline_ms: u64,
    patience_ms: u64,
    /// What pre-apply returned, when that was not 0.
    veto: Option<i32>,
    /// How the operation ends when the callback that comes last has returned.
    ending: Option<(State, Step)>,
    /// A oneshot patch is reverted all the same.
    forced: bool,
    oneshot: bool,
    status: Status,
}

impl<'a, K: Kernel> Machine<'a, K> {
    /// A machine for a patch that is not applied.
    pub fn new(k: &'a K, patch: Patch<'a>, parts: Parts<'a, K>) -> Self {
        let mode = record::mode(patch.record.mode).unwrap_or(Mode::StopMachine);
        Self {
            k,
            patch,
            parts,
            mode,
            op: Op::Apply,
            stage: Stage::Rest,
            route: Route::Original,
            goal_new: false,
            failing: None,
            effective: false,
            waited: false,
            surveyed: false,
            watch: Watch::new(),
            started_ns: None,
            switch: switch::Clock::new(),
            backoff_ms: 1,
            deadline_ms: u64::from(patch.record.deadline_ms),
            patience_ms: u64::from(patch.record.patience_ms),
            veto: None,
            ending: None,
            forced: false,
            oneshot: patch.is_oneshot(),
            status: Status { mode, ..Status::new() },
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
    pub fn sites(&self) -> SiteSet<'a, K::Alias> {
        self.parts.sites
    }
    /// What the sites hold.
    pub fn route(&self) -> Route {
        self.route
    }
    /// What a site that comes now has to hold. Between two steps nothing else is ever on one: it is what all others hold.
    pub fn joining(&self) -> Joining {
        Joining { route: self.route, trapped: matches!(self.stage, Stage::Write(_)) }
    }
    /// Deadline of the operations that begin from now on, in milliseconds.
    pub fn set_deadline(&mut self, ms: u64) {
        self.deadline_ms = ms;
    }
    /// When the transitions that begin from now on disturb tasks in user space, in milliseconds.
    pub fn set_patience(&mut self, ms: u64) {
        self.patience_ms = ms;
    }
    /// How the operations that begin from now on switch.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        if self.stage == Stage::Rest {
            self.status.mode = mode;
        }
    }
    /// Whether the patch stays.
    pub fn is_oneshot(&self) -> bool {
        self.oneshot
    }
    /// The patch stays, whatever it says itself.
    pub fn set_oneshot(&mut self) {
        self.oneshot = true;
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
    /// Whether the next step writes code, so that `text_mutex` is to be held.
    pub fn pokes(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Survey
                | Stage::Switch
                | Stage::TurnRecall
                | Stage::TurnFree
                | Stage::Drain
                | Stage::DrainFree
                | Stage::Leave
                | Stage::LeaveWatch
        )
    }

    /// One step of applying.
    pub fn apply(&mut self) -> Step {
        if self.stage == Stage::Rest && self.ending.is_none() {
            if self.route != Route::Original {
                return Step::Done;
            }
            self.start(Op::Apply);
        }
        self.step()
    }

    /// One step of reverting.
    pub fn revert(&mut self) -> Step {
        if self.stage == Stage::Rest && self.ending.is_none() {
            if self.route == Route::Original {
                return Step::Done;
            }
            self.start(Op::Revert);
        }
        self.step()
    }

    /// The sites and the patches below, without those that are gone.
    pub fn replaced_others(&mut self, sites: SiteSet<'a, K::Alias>, others: &'a [Other<'a>]) {
        self.parts.sites = sites;
        self.parts.others = others;
    }
    /// Another patch has taken the place of this one.
    pub fn replaced(&mut self) {
        self.route = Route::Original;
        self.status.state = State::Replaced;
    }

    /// To be called when nothing can be inside the new code any more and the module's own reference is gone.
    pub fn released(&mut self) {
        self.status.state = State::Reverted;
    }

    /// Every check of an apply, and who would be in the way; nothing is changed.
    pub fn rehearse(&mut self) -> Result<(), Refusal> {
        self.status.mode = self.mode;
        self.status.state = State::Checked;
        let mut result = self.possible().and_then(|()| site::check(self.k, self.parts.sites.iter(), Route::Original));
        result = result.and_then(|()| self.parts.constants.check(self.k, &self.patch));
        if !self.watch.begin(self.k) {
            result = result.and(Err(Refusal::NoMemory));
        }
        let scan = Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located };
        if let Some(table) = self.watch.table() {
            let left = scan.watch(table, self.parts.frames, CodeOf::Old, Some(&mut self.status.blockers));
            if left != 0 && self.mode == Mode::StopMachine {
                result = result.and(Err(Refusal::Busy));
            }
        }
        self.watch.end(self.k);
        self.status.refusal = result.err();
        result
    }

    fn start(&mut self, op: Op) {
        self.op = op;
        self.stage = Stage::Prepare;
        self.goal_new = op == Op::Apply;
        self.failing = None;
        self.effective = false;
        self.waited = false;
        self.surveyed = false;
        self.started_ns = None;
        if self.k.guard(Guard::FreshClock) {
            self.switch = switch::Clock::new();
        }
        self.backoff_ms = 1;
        if op == Op::Revert {
            // It ended the draining.
            self.parts.cancel.store(false, SeqCst);
        }
        self.parts.force.store(false, SeqCst);
        self.status.mode = self.mode;
        self.status.attempts = 0;
        self.status.pause_ns = 0;
        self.status.refusal = None;
        self.status.switched = (0, 0);
        self.status.blockers.clear();
    }

    fn step(&mut self) -> Step {
        if let Some((state, step)) = self.ending.take() {
            return self.end(state, step);
        }
        let pokes = self.pokes();
        loop {
            if let Some(step) = self.advance() {
                return step;
            }
            if self.pokes() != pokes {
                // With the other locks.
                return Step::Again(0);
            }
        }
    }

    /// `None`: on to the next stage.
    fn advance(&mut self) -> Option<Step> {
        match self.stage {
            Stage::Rest => Some(Step::Done),
            Stage::Prepare => self.prepare(),
            Stage::Enter => self.enter(),
            Stage::Survey => self.survey(),
            Stage::InStop => self.in_stop(),
            Stage::Write(route) => self.write(route),
            Stage::Switch => self.switch(),
            Stage::Turn => self.turn(),
            Stage::TurnRecall => self.recall(Stage::TurnFree),
            Stage::TurnFree => {
                self.parts.board.free_retired(self.k);
                self.stage = Stage::Switch;
                None
            }
            Stage::Settle => self.settle(),
            Stage::Retire => self.recall(Stage::RetireFree),
            Stage::RetireFree => {
                self.parts.board.free_retired(self.k);
                self.stage = if self.replacing() { Stage::Drain } else { Stage::Arrive };
                None
            }
            Stage::Drain => self.drain(),
            Stage::DrainFree => {
                self.stage = Stage::Arrive;
                Some(Step::Replaced)
            }
            Stage::Arrive => Some(self.arrive()),
            Stage::Leave => self.leave(),
            Stage::LeaveWatch => self.leave_watch(),
            Stage::LeaveFree => {
                self.watch.end(self.k);
                self.parts.board.free_retired(self.k);
                Some(self.left())
            }
        }
    }

    fn prepare(&mut self) -> Option<Step> {
        self.stage = Stage::Enter;
        let (callback, state) = match self.op {
            Op::Apply => (Callback::PreApply, State::Applying),
            Op::Revert if self.oneshot && !self.forced => {
                return Some(self.refuse(Refusal::Oneshot, None, State::Applied));
            }
            Op::Revert => (Callback::PreRevert, State::Reverting),
        };
        self.status.state = state;
        self.patch.has(callback).then_some(Step::Call(callback))
    }

    /// Whether the mode can do all functions, and calls come to them.
    fn possible(&self) -> Result<(), Refusal> {
        match self.bare() {
            // In the place of another patch there is a time when both are half in place, which dispatchers bridge.
            Some(func) if self.mode != Mode::StopMachine || self.replaced_boards().next().is_some() => {
                return Err(Refusal::NoDispatcher { func });
            }
            _ => {}
        }
        // What a module is sent elsewhere from when it comes later is asked then.
        let entry = |s: &Site<K::Alias>| Some(s.addr - u64::from(self.patch.funcs.get(s.func)?.site_offset));
        let redirected = |s: &&Site<K::Alias>| entry(s).is_some_and(|at| self.k.is_redirected(at));
        match self.parts.sites.iter().find(redirected) {
            Some(s) if self.route == Route::Original => Err(Refusal::Redirected { func: s.func }),
            _ => Ok(()),
        }
    }

    /// A function without a dispatcher, whether or not its module is here: the mode does not depend on who is.
    fn bare(&self) -> Option<usize> {
        let own = self.patch.funcs.iter().position(|f| f.dispatch == 0);
        own.or_else(|| self.parts.sites.own().iter().find(|s| s.dispatcher == 0).map(|s| s.func))
    }

    fn enter(&mut self) -> Option<Step> {
        if let Some(value) = self.veto.take().filter(|_| self.k.guard(Guard::VetoEnds)) {
            return Some(self.refuse(Refusal::Vetoed { value }, None, State::Refused));
        }
        if let Err(why) = self.possible() {
            return Some(self.give_up(why));
        }
        self.started_ns.get_or_insert(self.k.now_ns());
        if let Err(why) = self.constants_before() {
            let left = self.left_ms();
            return Some(if why.is_transient() && left > 0 { self.again(left) } else { self.give_up(why) });
        }
        if self.parts.sites.iter().next().is_none() {
            return self.enter_nowhere();
        }
        let in_stop = self.bare().is_some();
        if !in_stop && let Err(why) = site::check(self.k, self.parts.sites.iter(), self.route) {
            return Some(self.give_up(why));
        }
        // Whoever would be waited for while calls trap, or with everybody in the dispatchers.
        let waits = if in_stop { self.goal_new } else { self.mode == Mode::StopMachine };
        let single = self.parts.sites.iter().all(|s| s.is_single(self.route));
        let survey = if in_stop { waits && !single } else { waits || !single };
        // Mostly one look is enough, and the locks need not be left for it.
        if survey && !self.surveyed && !self.all_rested() {
            self.stage = Stage::Survey;
            return Some(self.again(self.left_ms()));
        }
        if in_stop {
            self.stage = Stage::InStop;
            return None;
        }
        for other in self.replaced_boards().filter(|_| self.k.guard(Guard::Follow)) {
            other.follow(Some(self.parts.board));
        }
        if self.mode == Mode::Drain {
            // The int3 sends everybody to the dispatcher, and that to where the sites will lead.
            self.parts.board.settle(self.goal_new);
            self.status.attempts += 1;
            return self.trap(if self.goal_new { Route::New } else { Route::Original });
        }
        self.parts.board.settle(!self.goal_new);
        if self.route == Route::Dispatcher {
            self.stage = Stage::Switch;
            return None;
        }
        let step = self.trap(Route::Dispatcher);
        // Nobody enters unmarked from here on, and the wait is for everybody who has. A newborn task that has entered before the
        // int3 must not be missing either. Without a wait, or without memory, it is made later.
        if self.mode == Mode::StopMachine && step.is_some() && !switch::track(self.k, self.parts.board) {
            self.waited = false;
        }
        step
    }

    /// All functions are in modules, and none of those is here: what comes gets the end.
    fn enter_nowhere(&mut self) -> Option<Step> {
        self.parts.board.settle(self.goal_new);
        self.route = if self.goal_new { Route::New } else { Route::Original };
        self.stage = match (self.goal_new, self.replacing()) {
            (true, true) => Stage::Drain,
            (true, false) => Stage::Arrive,
            (false, _) => Stage::Leave,
        };
        let tell = self.drains() && self.patch.has(Callback::PostApply);
        tell.then_some(Step::Call(Callback::PostApply))
    }

    /// int3 on every site, on the way to `route`.
    fn trap(&mut self, route: Route) -> Option<Step> {
        self.poke().trap();
        self.stage = Stage::Write(route);
        self.wait_for_tails()
    }

    /// Somebody can stand behind the first byte of a site, unless what is there now is one instruction.
    fn wait_for_tails(&mut self) -> Option<Step> {
        let wait = !self.parts.sites.iter().all(|s| s.is_single(self.route));
        self.waited |= wait;
        (wait && self.k.guard(Guard::RcuBeforeTails)).then_some(Step::RcuTasks)
    }

    fn write(&mut self, route: Route) -> Option<Step> {
        // `text_mutex` was left while this waited. The int3 is a good place to wait until whoever came is gone.
        if let Err(why) = site::check_trapped(self.k, self.parts.sites.iter(), self.route) {
            self.status.refusal = Some(why);
            return Some(self.patiently());
        }
        if self.failing.is_none() {
            self.status.refusal = None;
        }
        self.poke().complete(route);
        self.route = route;
        if self.op == Op::Apply && route != Route::Dispatcher {
            for other in self.replaced_boards() {
                other.settle(route == Route::Original);
                if self.k.guard(Guard::FollowNoLonger) {
                    other.follow(None);
                }
            }
        }
        self.stage = match route {
            Route::Dispatcher => Stage::Switch,
            Route::Original => Stage::Leave,
            Route::New if self.drains() => Stage::Drain,
            Route::New => Stage::Retire,
        };
        self.switch = switch::Clock::new();
        let tell = self.stage == Stage::Drain && self.patch.has(Callback::PostApply);
        tell.then_some(Step::Call(Callback::PostApply))
    }

    /// Whether new calls run the new code while old ones go on.
    fn drains(&self) -> bool {
        self.status.mode == Mode::Drain && self.op == Op::Apply
    }
    fn replacing(&self) -> bool {
        self.op == Op::Apply && self.failing.is_none() && self.replaced_boards().next().is_some()
    }
    fn replaced_boards(&self) -> impl Iterator<Item = &'a Board> + use<'a, K> {
        self.parts.others.iter().filter_map(|o| o.replaced)
    }

    fn poke(&self) -> Poke<'_, K> {
        Poke { k: self.k, sites: self.parts.sites, armed: self.parts.armed }
    }

    /// One attempt to switch everybody, or some.
    fn switch(&mut self) -> Option<Step> {
        if self.op == Op::Apply && self.failing.is_none() && self.parts.cancel.load(SeqCst) {
            return self.fail(Refusal::Cancelled);
        }
        let by_task = self.status.mode == Mode::Transition;
        if !by_task && (self.parts.board.table().is_some() || switch::track(self.k, self.parts.board)) && !self.waited {
            self.waited = true;
            if self.k.guard(Guard::RcuBeforeStop) {
                return Some(Step::RcuTasks);
            }
        }
        self.status.attempts += 1;
        let in_the_stop = self.in_the_stop();
        let mut scan = switch::Switch {
            scan: Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located },
            board: self.parts.board,
            goal_new: self.goal_new,
            clock: &mut self.switch,
            patience_ns: self.patience_ms.saturating_mul(MS),
            frames: self.parts.frames,
            seats: self.parts.seats,
            force: self.parts.force,
            status: &mut self.status,
            turned: self.failing.is_some(),
            constants: Some(self.parts.constants).filter(|_| in_the_stop),
        };
        match if by_task { scan.by_task() } else { scan.at_once() } {
            switch::Progress::Done => {
                self.stage = Stage::Settle;
                None
            }
            switch::Progress::NoMemory => self.fail(Refusal::NoMemory),
            switch::Progress::Overflow if self.left_ms() == 0 && self.failing.is_none() => self.fail(Refusal::Busy),
            switch::Progress::Overflow => {
                self.parts.board.retire();
                self.waited = false;
                self.stage = Stage::TurnRecall;
                None
            }
            switch::Progress::Busy(why) => {
                let left = self.left_ms();
                if left > 0 {
                    return Some(self.again(left));
                }
                if self.failing.is_none() {
                    return self.fail(why);
                }
                // Neither forth nor back: the module has to stay until it is back, so nobody waits for it.
                if self.op == Op::Apply && !self.effective {
                    return Some(self.effective(State::Reverting));
                }
                Some(self.again(MAX_BACKOFF_MS))
            }
        }
    }

    /// The switch is not going to be made: what was switched goes back.
    fn fail(&mut self, why: Refusal) -> Option<Step> {
        self.status.refusal = Some(why);
        if self.failing.is_some() {
            // No memory on the way back.
            return Some(self.patiently());
        }
        self.failing = Some(why);
        self.goal_new = !self.goal_new;
        self.started_ns = Some(self.k.now_ns());
        let begun = self.status.mode == Mode::Transition && self.parts.board.table().is_some();
        self.stage = if begun { Stage::Turn } else { Stage::Settle };
        None
    }

    fn turn(&mut self) -> Option<Step> {
        if !self.parts.board.publish(self.k, self.goal_new, crate::board::Use::ByTask) {
            return Some(self.patiently());
        }
        self.switch = switch::Clock::new();
        self.backoff_ms = 1;
        self.stage = Stage::TurnRecall;
        None
    }

    /// The first half of freeing what is retired, then `next` behind `synchronize_rcu_tasks`.
    fn recall(&mut self, next: Stage) -> Option<Step> {
        if !self.parts.board.has_retired() {
            self.stage = next;
            return None;
        }
        if !self.parts.board.recall_retired(self.k) {
            return Some(self.patiently());
        }
        self.backoff_ms = 1;
        self.stage = next;
        self.k.guard(Guard::RcuBeforeFree).then_some(Step::RcuTasks)
    }

    fn settle(&mut self) -> Option<Step> {
        self.parts.board.settle(self.goal_new);
        self.parts.board.retire();
        if let Err(why) = site::check(self.k, self.parts.sites.iter(), Route::Dispatcher) {
            // Somebody has set a probe on a site meanwhile. The dispatchers give the right answer for good, but those of a
            // replaced patch are to go, and so is this one when it is reverted.
            if self.goal_new && !self.replacing() {
                self.stage = Stage::Retire;
                return None;
            }
            self.status.refusal = Some(why);
            return Some(self.patiently());
        }
        if self.failing.is_none() {
            self.status.refusal = None;
        }
        self.trap(if self.goal_new { Route::New } else { Route::Original })
    }

    fn drain(&mut self) -> Option<Step> {
        if self.watch.table().is_none() && !self.watch.begin(self.k) {
            return Some(self.patiently());
        }
        if self.drains() && !self.effective {
            return Some(self.effective(State::Draining));
        }
        let (drains, replacing) = (self.drains(), self.replacing());
        let scan = Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located };
        let code = if drains { CodeOf::Old } else { CodeOf::Replaced };
        let left =
            self.watch.table().map_or(0, |t| scan.watch(t, self.parts.frames, code, Some(&mut self.status.blockers)));
        if left != 0 && !self.effective && self.left_ms() == 0 {
            return Some(self.effective(State::Draining));
        }
        // A revert that was asked for waits for the replaced patches: they cannot come back.
        let left = if replacing && !self.k.guard(Guard::ReplacedWatch) { 0 } else { left };
        if left != 0 && (replacing || !self.parts.cancel.load(SeqCst)) {
            return Some(self.again(MAX_BACKOFF_MS));
        }
        self.watch.end(self.k);
        self.stage = if replacing { Stage::DrainFree } else { Stage::Arrive };
        // Tasks that are on the list no more.
        let off_list = left == 0 && !self.waited && self.k.guard(Guard::RcuBeforeDrained);
        let wait = if replacing { self.k.guard(Guard::RcuBeforeReplaced) } else { off_list };
        wait.then_some(Step::RcuTasks)
    }

    fn leave(&mut self) -> Option<Step> {
        self.status.state = State::Reverting;
        if self.parts.board.has_retired() && !self.parts.board.recall_retired(self.k) {
            return Some(self.patiently());
        }
        if !self.watch.begin(self.k) {
            return Some(self.patiently());
        }
        self.backoff_ms = 1;
        if self.failing.is_some() {
            self.started_ns = Some(self.k.now_ns());
        }
        self.stage = Stage::LeaveWatch;
        None
    }

    fn leave_watch(&mut self) -> Option<Step> {
        let scan = Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located };
        // Those because of whom it failed are what a failed apply reports.
        let found = self.failing.is_none().then_some(&mut self.status.blockers);
        let left = self.watch.table().map_or(0, |t| scan.watch(t, self.parts.frames, CodeOf::New, found));
        if left == 0 || !self.k.guard(Guard::LeaveWatch) {
            self.stage = Stage::LeaveFree;
            return self.k.guard(Guard::RcuBeforeLeave).then_some(Step::RcuTasks);
        }
        if self.failing.is_none() {
            if self.left_ms() == 0 {
                self.status.refusal = Some(Refusal::StillInside);
            }
        } else if self.left_ms() == 0 && self.op == Op::Apply && !self.effective {
            return Some(self.effective(State::Reverting));
        }
        Some(self.again(MAX_BACKOFF_MS))
    }

    /// Functions without dispatcher: sites and stacks are checked, and the code is changed, in one stop of the machine.
    fn in_stop(&mut self) -> Option<Step> {
        self.status.attempts += 1;
        let poke = Poke { k: self.k, sites: self.parts.sites, armed: self.parts.armed };
        let scan = Scan { k: self.k, patch: &self.patch, others: self.parts.others, located: self.parts.located };
        let constants = self.parts.constants;
        let order = switch::InStop { scan, board: self.parts.board, poke, constants };
        let (result, pause) = order.run(self.goal_new, self.parts.seats, self.parts.frames, &mut self.status.blockers);
        self.status.pause_ns = self.status.pause_ns.max(pause);
        let why = match result {
            Ok(()) if self.goal_new => {
                self.stage = Stage::Write(Route::New);
                return self.wait_for_tails();
            }
            Ok(()) => {
                self.poke().disarm();
                self.route = Route::Original;
                self.stage = Stage::Leave;
                return None;
            }
            Err(why) => why,
        };
        self.poke().disarm();
        let left = self.left_ms();
        let cancelled = self.op == Op::Apply && self.parts.cancel.load(SeqCst);
        if why.is_transient() && left > 0 && !cancelled {
            return Some(self.again(left));
        }
        Some(self.give_up(if cancelled { Refusal::Cancelled } else { why }))
    }
}
