//! Who is inside which version, and when a task may change from one to the other.
//!
//! A task is *inside* when its stack has an address of the version it is to leave, or of a dispatcher, or cannot be walked
//! reliably. Dispatchers and copied beginnings have no unwind data or are part of the carried text, so a task that has made
//! its choice and not yet arrived is inside as well.
//!
//! `transition` switches a task that is not inside when
//! - it is on its way back to user mode (it runs a task work there, [`Kernel::send_to_boundary`]);
//! - it waits in the kernel, has not run since the last pass, and [`SETTLE_NS`] have gone by: it is not in the middle of
//!   a short wait between two calls;
//! - it is a kernel thread that waits, or after [`SETTLE_NS`] wherever it is; idle tasks count as waiting;
//! - after [`STALL_NS`] it waits, after twice that wherever it is: the rule of the kernel's own livepatch
//!   (`klp_try_switch_task`, kernel/livepatch/transition.c), for tasks that do not come back to user mode.
//!
//! Interrupts run the version of the task they interrupt. After [`STALL_NS`], and every [`POKE_NS`] after it, kernel threads
//! that have not been switched are woken. Tasks in user space are disturbed last, when the patience of the patch is over: they are
//! sent to the boundary as if by a signal. That is not without a price (a system call that returns EINTR; `restart_syscall`, which
//! a sandbox may answer with death), so they have as long as with the kernel's own livepatch to come by themselves.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use lpbuild_abi::RangeRecord;

use crate::{
    board::{Board, Entry, Table, Use},
    constants::Constants,
    kernel::{Guard, Kernel, Seen},
    poke::Poke,
    record::Patch,
    refusal::Refusal,
    rendezvous::{Lockstep, Rendezvous},
    site::{self, Route},
    stack::{self, Blocker, Blockers, Located, Where},
    status::Status,
};

/// How long a task has to wait at one place before it is switched there, nanoseconds.
pub const SETTLE_NS: u64 = 100_000_000;
/// The shortest time without running that counts as waiting, nanoseconds.
pub const NOTE_NS: u64 = 25_000_000;
/// How long tasks have to come back by themselves before where they wait decides, nanoseconds.
pub const STALL_NS: u64 = 1_000_000_000;
/// Pause between two pokes, nanoseconds.
pub const POKE_NS: u64 = 5_000_000_000;
/// Tasks looked at before others may run.
const BATCH: usize = 64;

/// Since when the switch is under way.
#[derive(Debug)]
pub struct Clock {
    began_ns: Option<u64>,
    /// When kernel threads were woken.
    nudged_ns: Option<u64>,
    /// When tasks in user space were disturbed.
    poked_ns: Option<u64>,
    /// When it was last noted how often each task had left a CPU.
    noted_ns: Option<u64>,
}

impl Clock {
    /// Not yet.
    pub const fn new() -> Self {
        Self { began_ns: None, nudged_ns: None, poked_ns: None, noted_ns: None }
    }
    fn age(&mut self, now: u64) -> u64 {
        now.saturating_sub(*self.began_ns.get_or_insert(now))
    }
    /// Whether the last note is old enough to say that who has not run since has waited.
    fn notes(&mut self, now: u64) -> bool {
        let due = self.noted_ns.is_none_or(|t| now.saturating_sub(t) >= NOTE_NS);
        if due {
            self.noted_ns = Some(now);
        }
        due
    }
    fn nudges(&mut self, now: u64, age: u64) -> bool {
        again(&mut self.nudged_ns, now, age >= STALL_NS)
    }
    fn pokes(&mut self, now: u64, age: u64, patience_ns: u64) -> bool {
        again(&mut self.poked_ns, now, age >= patience_ns)
    }
}

/// Whether something is due: the first time when it `may` be, then every [`POKE_NS`].
fn again(last: &mut Option<u64>, now: u64, may: bool) -> bool {
    let due = may && last.is_none_or(|t| now.saturating_sub(t) >= POKE_NS);
    if due {
        *last = Some(now);
    }
    due
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everybody runs the goal.
    Done,
    /// Not everybody, because of this.
    Busy(Refusal),
    /// There is no table.
    NoMemory,
    /// The table has no room for the tasks that came; a new one is wanted.
    Overflow,
}

/// A patch that is there already, and that this one lies on or takes the place of.
#[derive(Clone, Copy, Debug)]
pub struct Other<'o> {
    /// First byte of its code, and one past the last.
    pub text: (u64, u64),
    /// The code it replaces.
    pub ranges: &'o [RangeRecord],
    /// Its dispatchers' board, when this patch takes its place.
    pub replaced: Option<&'o Board>,
}

/// Whose code a task may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOf {
    /// [`Scan::in_new`].
    New,
    /// [`Scan::in_old`].
    Old,
    /// [`Scan::in_replaced`].
    Replaced,
}

/// Questions about addresses.
#[derive(Debug)]
pub struct Scan<'s, K: Kernel> {
    /// The kernel.
    pub k: &'s K,
    /// The patch.
    pub patch: &'s Patch<'s>,
    /// Patches below it.
    pub others: &'s [Other<'s>],
    /// Replaced code of modules that are here.
    pub located: &'s [Located],
}

impl<K: Kernel> Scan<'_, K> {
    /// Carried code: new functions, dispatchers, copied beginnings.
    pub fn in_new(&self, a: u64) -> bool {
        stack::in_range(self.patch.record.text_start, self.patch.record.text_end, a)
    }
    /// Replaced code: the kernel's, that of modules that are here, and that of patches below.
    pub fn in_old(&self, a: u64) -> bool {
        let kernel = stack::in_ranges(self.patch.kernel_ranges(), a);
        kernel || self.located.iter().any(|l| l.has(a)) || self.others.iter().any(|o| in_text(o, a))
    }
    /// Code of patches whose place this one takes.
    pub fn in_replaced(&self, a: u64) -> bool {
        self.others.iter().any(|o| o.replaced.is_some() && in_text(o, a))
    }
    /// Code that a task must not be in when it changes to the goal.
    pub fn leaves(&self, goal_new: bool, a: u64) -> bool {
        if !self.k.guard(Guard::StackScan) {
            return false;
        }
        // Dispatchers of a replaced patch are in its code, and what it replaced is new where this patch leaves it alone.
        let dropped = |o: &Other<'_>| o.replaced.is_some() && stack::in_ranges(o.ranges, a);
        let left = if goal_new { self.in_old(a) } else { self.others.iter().any(dropped) };
        self.in_new(a) || self.in_replaced(a) || left
    }

    /// Looks at everybody who has not been seen outside of that code yet, and returns how many are left. Who has been outside
    /// once stays outside, because no way leads in any more.
    pub fn watch(&self, table: &Table, frames: &mut [u64], code: CodeOf, mut out: Option<&mut Blockers>) -> usize {
        let inside = |a| match code {
            CodeOf::New => self.in_new(a),
            CodeOf::Old => self.in_old(a),
            CodeOf::Replaced => self.in_replaced(a),
        };
        if let Some(out) = &mut out {
            out.clear();
        }
        let mut left = 0;
        self.each(table, |e| {
            let mut at = Where::Running;
            let seen = self.k.look(e.task(), frames, |v| match v.frames {
                Err(why) => at = Where::Unknown(why),
                Ok(f) => match f.iter().find(|&&a| inside(a)) {
                    Some(&a) => at = Where::Inside(a),
                    None => table.finish(e),
                },
            });
            self.note(table, e, seen, at, out.as_deref_mut());
            left += usize::from(!e.is_done());
        });
        left
    }

    /// Every task that is left, the operating thread aside: it is in the runtime.
    pub(crate) fn each(&self, table: &Table, mut f: impl FnMut(&Entry)) {
        let mut n = 0;
        for e in table.entries().iter().filter(|e| e.task() != 0 && !e.is_done()) {
            if self.k.is_operator(self.k.held(e.task())) {
                table.finish(e);
                continue;
            }
            f(e);
            n += 1;
            if n % BATCH == 0 {
                self.k.breathe();
            }
        }
    }

    fn note(&self, table: &Table, e: &Entry, seen: Seen, at: Where, out: Option<&mut Blockers>) {
        if matches!(seen, Seen::Dead | Seen::Offline) {
            table.finish(e);
        }
        if !e.is_done()
            && let Some(out) = out
        {
            out.push(Blocker { who: self.k.who(self.k.held(e.task())), at });
        }
    }
}

fn in_text(other: &Other<'_>, a: u64) -> bool {
    stack::in_range(other.text.0, other.text.1, a)
}

/// Publishes a table that marks calls; everybody is suspect of being inside. `false`: no memory.
///
/// For the time when nobody enters unmarked any more: behind the int3, so that a task born since is marked when it calls.
/// What it says is all there is to know when `synchronize_rcu_tasks` has passed: a task that has left the task list is in no
/// census, but it is marked when it calls, and what it called before is over by then.
pub fn track<K: Kernel>(k: &K, board: &Board) -> bool {
    // The goal does not matter: the answer is the same for everybody.
    if !board.publish(k, true, Use::Tracking) {
        return false;
    }
    if let Some(t) = board.table() {
        t.entries().iter().filter(|e| e.task() != 0).for_each(|e| e.suspect.store(1, SeqCst));
    }
    true
}

/// One attempt.
#[derive(Debug)]
pub struct Switch<'s, K: Kernel> {
    /// Questions.
    pub scan: Scan<'s, K>,
    /// What dispatchers look at.
    pub board: &'s Board,
    /// The version everybody shall run.
    pub goal_new: bool,
    /// Since when.
    pub clock: &'s mut Clock,
    /// When tasks in user space are disturbed, nanoseconds after the beginning.
    pub patience_ns: u64,
    /// Buffer for a stack.
    pub frames: &'s mut [u64],
    /// One per possible CPU.
    pub seats: &'s [AtomicUsize],
    /// Switch the rest wherever they are.
    pub force: &'s AtomicBool,
    /// Blockers, pause, how many are switched.
    pub status: &'s mut Status,
    /// It is on its way back: the blockers are those because of whom.
    pub turned: bool,
    /// What changes in the stop.
    pub constants: Option<&'s Constants<K::Alias>>,
}

impl<K: Kernel> Switch<'_, K> {
    fn busy(&self) -> Refusal {
        if self.goal_new { Refusal::Busy } else { Refusal::StillInside }
    }

    /// Task by task.
    pub fn by_task(&mut self) -> Progress {
        let k = self.scan.k;
        if self.board.table().is_none() && !self.board.publish(k, self.goal_new, Use::ByTask) {
            return Progress::NoMemory;
        }
        let Some(table) = self.board.table() else { return Progress::NoMemory };
        let now = k.now_ns();
        let age = self.clock.age(now);
        let patience = if k.guard(Guard::Undisturbed) { self.patience_ns } else { STALL_NS };
        let (nudge, poke) = (self.clock.nudges(now, age), self.clock.pokes(now, age, patience));
        let notes = self.clock.notes(now);
        let force = self.force.load(SeqCst);
        self.status.forced |= force;
        let (scan, goal_new, frames) = (&self.scan, self.goal_new, &mut *self.frames);
        let mut out = (!self.turned).then_some(&mut self.status.blockers);
        if let Some(out) = &mut out {
            out.clear();
        }
        scan.each(table, |e| {
            if force {
                return table.finish(e);
            }
            let (mut at, mut kernel) = (Where::Running, false);
            let seen = k.look(e.task(), frames, |v| {
                kernel = v.kernel;
                let waited = notes && e.switches.swap(v.switches, SeqCst) == v.switches;
                let may = v.kernel && (v.blocked || age >= SETTLE_NS)
                    || v.blocked && waited && age >= SETTLE_NS
                    || v.blocked && age >= STALL_NS
                    || age >= 2 * STALL_NS;
                at = match v.frames {
                    Err(why) => Where::Unknown(why),
                    Ok(f) => match f.iter().find(|&&a| scan.leaves(goal_new, a)) {
                        Some(&a) => Where::Inside(a),
                        None => Where::NotYet,
                    },
                };
                let may = may || !scan.k.guard(Guard::Patience);
                if may && at == Where::NotYet {
                    table.finish(e);
                }
            });
            scan.note(table, e, seen, at, out.as_deref_mut());
            if e.is_done() {
                return;
            }
            if k.guard(Guard::AskWhoWasSeen) && seen != Seen::Looked {
                // Perhaps a thread, and a signal sent to one stays with it.
                return;
            }
            if !kernel {
                table.send(k, e, poke);
            } else if nudge {
                k.nudge(e.task());
            }
        });
        let (all, done) = table.counts();
        self.status.switched = (done, all);
        if table.is_finished() { Progress::Done } else { Progress::Busy(self.busy()) }
    }

    /// All at one instant.
    ///
    /// Everybody is looked at with the machine running; calls of the functions mark their tasks from before that on ([`track`]).
    /// The stop looks only at those that were marked since, however many tasks are asleep.
    pub fn at_once(&mut self) -> Progress {
        let Some(table) = self.board.table() else { return Progress::NoMemory };
        if table.overflowed() {
            return Progress::Overflow;
        }
        self.suspects(table);
        if self.status.blockers.total() != 0 {
            return Progress::Busy(self.busy());
        }
        let flipped = self.stop(table);
        if table.overflowed() && flipped != Ok(()) {
            return Progress::Overflow;
        }
        match flipped {
            Ok(()) => Progress::Done,
            Err(why) => Progress::Busy(why),
        }
    }

    /// Looks at all suspects; those that are inside stay.
    fn suspects(&mut self, table: &Table) {
        table.take_marked(self.scan.k, |e| e.suspect.store(1, SeqCst));
        self.status.blockers.clear();
        let (scan, goal_new, frames) = (&self.scan, self.goal_new, &mut *self.frames);
        let out = &mut self.status.blockers;
        scan.each(table, |e| {
            if e.suspect.load(SeqCst) == 0 {
                return;
            }
            let mut at = Where::Running;
            let seen = scan.k.look(e.task(), frames, |v| match v.frames {
                Err(why) => at = Where::Unknown(why),
                Ok(f) => match f.iter().find(|&&a| scan.leaves(goal_new, a)) {
                    Some(&a) => at = Where::Inside(a),
                    None => e.suspect.store(0, SeqCst),
                },
            });
            if matches!(seen, Seen::Dead | Seen::Offline) {
                e.suspect.store(0, SeqCst);
            }
            if e.suspect.load(SeqCst) != 0 {
                out.push(Blocker { who: scan.k.who(scan.k.held(e.task())), at });
            }
        });
    }

    fn stop(&mut self, table: &Table) -> Result<(), Refusal> {
        let (scan, board, goal_new, busy) = (&self.scan, self.board, self.goal_new, self.busy());
        let (k, seats, constants) = (scan.k, self.seats, self.constants);
        let work = Work {
            frames: &mut *self.frames,
            blockers: &mut self.status.blockers,
            result: Err(Refusal::CpusMissing),
            pause_ns: 0,
        };
        let meeting = Rendezvous::new(k.online_cpus(), self.seats, work);
        let ran = k.stop(&|| {
            let start = k.now_ns();
            meeting.enter(k, |work, _| {
                work.blockers.clear();
                table.take_marked(k, |e| {
                    if !k.guard(Guard::StopLooks) {
                        return;
                    }
                    let task = k.held(e.task());
                    // An interrupt on top of one of these has called, and is over.
                    if stack::is_known(k, seats, task) {
                        return;
                    }
                    let at = match k.stack(task, work.frames) {
                        Err(why) => Where::Unknown(why),
                        Ok(n) => match work.frames.iter().take(n).find(|&&a| scan.leaves(goal_new, a)) {
                            Some(&a) => Where::Inside(a),
                            None => return,
                        },
                    };
                    e.suspect.store(1, SeqCst);
                    work.blockers.push(Blocker { who: k.who(task), at });
                });
                work.result = if work.blockers.total() == 0 && !table.overflowed() {
                    constants.map_or(Ok(()), |c| c.change_stopped(k, scan.patch, goal_new))
                } else {
                    Err(busy)
                };
                if work.result.is_ok() {
                    board.settle(goal_new);
                }
                work.pause_ns = k.now_ns().saturating_sub(start);
            });
        });
        let work = meeting.finish();
        self.status.pause_ns = self.status.pause_ns.max(work.pause_ns);
        if ran { work.result } else { Err(Refusal::CpusMissing) }
    }
}

/// What the primary works on during a stop.
struct Work<'w> {
    frames: &'w mut [u64],
    blockers: &'w mut Blockers,
    result: Result<(), Refusal>,
    pause_ns: u64,
}

/// Functions without dispatcher: everything in one stop.
///
/// Apply writes the int3s there, and the caller completes them behind `synchronize_rcu_tasks`. Revert writes all bytes in
/// lockstep with the other CPUs: it must not be spread out, since an int3 would still send callers into the new code.
#[derive(Debug)]
pub struct InStop<'s, K: Kernel> {
    /// Questions.
    pub scan: Scan<'s, K>,
    /// What the dispatchers look at of those functions that have one: the int3s lead there.
    pub board: &'s Board,
    /// The sites.
    pub poke: Poke<'s, K>,
    /// What changes with them.
    pub constants: &'s Constants<K::Alias>,
}

impl<K: Kernel> InStop<'_, K> {
    /// One attempt, and how long the machine was stopped, nanoseconds.
    pub fn run(
        &self,
        goal_new: bool,
        seats: &[AtomicUsize],
        frames: &mut [u64],
        blockers: &mut Blockers,
    ) -> (Result<(), Refusal>, u64) {
        let k = self.scan.k;
        blockers.clear();
        // Stays the result when the primary never gets to work.
        let work = Work { frames, blockers, result: Err(Refusal::CpusMissing), pause_ns: 0 };
        let meeting = Rendezvous::new(k.online_cpus(), seats, work);
        let ran = k.stop(&|| {
            let start = k.now_ns();
            meeting.enter(k, |work, lockstep| {
                work.result = self.check(goal_new, seats, work).and_then(|()| self.all(goal_new, lockstep));
                work.pause_ns = k.now_ns().saturating_sub(start);
            });
        });
        let work = meeting.finish();
        (if ran { work.result } else { Err(Refusal::CpusMissing) }, work.pause_ns)
    }

    fn all(&self, goal_new: bool, lockstep: &Lockstep<'_, '_, K, Work<'_>>) -> Result<(), Refusal> {
        let (k, patch) = (self.scan.k, self.scan.patch);
        self.constants.change_stopped(k, patch, goal_new)?;
        let written = self.write(goal_new, lockstep);
        if written.is_err() {
            // Compared a moment ago, and nobody else runs.
            self.constants.change_stopped(k, patch, !goal_new)?;
        }
        written
    }

    fn write(&self, goal_new: bool, lockstep: &Lockstep<'_, '_, K, Work<'_>>) -> Result<(), Refusal> {
        if goal_new {
            return self.int3(lockstep, Route::Original, true);
        }
        self.int3(lockstep, Route::New, false)?;
        self.poke.tails(Route::Original);
        lockstep.serialize();
        self.poke.first_bytes(Route::Original);
        Ok(())
    }

    /// Sites and stacks as they are now that nothing moves.
    fn check(&self, goal_new: bool, seats: &[AtomicUsize], w: &mut Work<'_>) -> Result<(), Refusal> {
        let (route, busy) =
            if goal_new { (Route::Original, Refusal::Busy) } else { (Route::New, Refusal::StillInside) };
        site::check(self.scan.k, self.poke.sites.iter(), route)?;
        let leaving = |a| self.scan.in_new(a) || self.poke.sites.iter().any(|s| s.interior(a));
        let inside = |a| if goal_new { self.scan.in_old(a) } else { leaving(a) };
        stack::walk(self.scan.k, seats, w.frames, inside, w.blockers);
        if w.blockers.total() == 0 { Ok(()) } else { Err(busy) }
    }

    /// int3 on every site, seen by every CPU; taken back when one does not answer.
    fn int3(&self, lockstep: &Lockstep<'_, '_, K, Work<'_>>, before: Route, new: bool) -> Result<(), Refusal> {
        // Not earlier: somebody may have been in a dispatcher since the apply, and shall not ask before it is decided.
        if self.scan.k.guard(Guard::SettleInStop) {
            self.board.settle(new);
            self.lead(Some(self.board));
        }
        self.poke.int3();
        if lockstep.serialize_or_give_up() {
            return Ok(());
        }
        self.poke.first_bytes(before);
        self.board.settle(!new);
        self.lead(None);
        Err(Refusal::CpusMissing)
    }

    /// Dispatchers of replaced patches answer the other way round.
    fn lead(&self, leader: Option<&Board>) {
        for other in self.scan.others.iter().filter_map(|o| o.replaced) {
            other.follow(leader);
        }
    }
}
