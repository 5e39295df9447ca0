//! The activeness check: which task has an address of certain code on its stack?

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use lpbuild_abi::RangeRecord;

use crate::kernel::{Guard, Kernel, Unreliable, Who};

/// Blockers that are kept with name and place; all are counted.
pub const MAX_BLOCKERS: usize = 64;

/// Why a task blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// This address is on its stack.
    Inside(u64),
    /// Its stack cannot be walked reliably, so it may be anywhere.
    Unknown(Unreliable),
    /// It was running all the time.
    Running,
    /// It has neither slept nor been in user mode.
    Restless,
    /// Nothing is in the way, but it is in the middle of something: it is switched when it returns to user mode.
    NotYet,
}

/// A task that must move on first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Its name and pid.
    pub who: Who,
    /// What was found.
    pub at: Where,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Blockers {
    list: [Blocker; MAX_BLOCKERS],
    total: usize,
}

impl Blockers {
    /// None.
    pub const fn new() -> Self {
        let none = Blocker { who: Who { pid: 0, comm: [0; 16] }, at: Where::Inside(0) };
        Self { list: [none; MAX_BLOCKERS], total: 0 }
    }
    /// Forgets all.
    pub fn clear(&mut self) {
        self.total = 0;
    }
    /// Forgets all unless `keep`.
    pub fn retain_if(&mut self, keep: bool) {
        if !keep {
            self.clear();
        }
    }
    /// Counts one, and keeps it while there is room.
    pub fn push(&mut self, b: Blocker) {
        if let Some(slot) = self.list.get_mut(self.total) {
            *slot = b;
        }
        self.total += 1;
    }
    /// Those kept.
    pub fn kept(&self) -> &[Blocker] {
        self.list.get(..self.total.min(MAX_BLOCKERS)).unwrap_or(&[])
    }
    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

impl Default for Blockers {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether it is known during a stop where a task is: in code that is never patched (`lpbuild_abi::UNPATCHABLE`). These are
/// the thread that performs the operation, and each CPU's stopper thread, which sits in `seats` because it is at this moment
/// inside the rendezvous. Neither can be walked.
pub fn is_known<K: Kernel>(k: &K, seats: &[AtomicUsize], task: K::Task) -> bool {
    let seat = seats.get(k.task_cpu(task)).map_or(0, |s| s.load(SeqCst));
    k.guard(Guard::KnownTasks) && (k.is_operator(task) || seat == k.task_id(task))
}

/// Walks the stacks of all tasks and fills `out` with those that have an address for which `inside` holds. Those of which it
/// is known where they are ([`is_known`]) are left out.
pub fn walk<K: Kernel>(
    k: &K,
    seats: &[AtomicUsize],
    frames: &mut [u64],
    inside: impl Fn(u64) -> bool,
    out: &mut Blockers,
) {
    out.clear();
    k.for_each_task(|task| {
        if is_known(k, seats, task) {
            return;
        }
        let at = match k.stack(task, frames) {
            Ok(n) => match frames.iter().take(n).find(|&&a| inside(a)) {
                Some(&a) => Where::Inside(a),
                None => return,
            },
            Err(why) => Where::Unknown(why),
        };
        out.push(Blocker { who: k.who(task), at });
    });
}

/// Whether an address on a stack means that a task is inside one of the ranges.
///
/// The end counts as well: behind a call that never returns, the return address is the first byte of what follows.
pub fn in_ranges(ranges: &[RangeRecord], addr: u64) -> bool {
    ranges.iter().any(|r| in_range(r.start, r.start + u64::from(r.len), addr))
}

/// A range of a module: where it is while that is here.
#[derive(Debug)]
pub struct Located {
    start: AtomicU64,
    len: u64,
}

/// Where no code is.
const NOWHERE: u64 = 0;

impl Located {
    /// A range that is nowhere yet.
    pub const fn new(len: u32) -> Self {
        Self { start: AtomicU64::new(NOWHERE), len: len as u64 }
    }
    /// It begins there.
    pub fn place(&self, start: u64) {
        self.start.store(start, SeqCst);
    }
    /// It is nowhere: what comes to be there is somebody else's.
    pub fn lose(&self) {
        self.start.store(NOWHERE, SeqCst);
    }
    /// Whether an address on a stack means that a task is inside, as of [`in_ranges`]. Without a lock.
    pub fn has(&self, addr: u64) -> bool {
        let start = self.start.load(SeqCst);
        start != NOWHERE && in_range(start, start + self.len, addr)
    }
}

/// The same for one range.
pub fn in_range(start: u64, end: u64, addr: u64) -> bool {
    start <= addr && addr <= end
}
