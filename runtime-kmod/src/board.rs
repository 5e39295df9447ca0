//! Which version does this task run? The one question of every dispatcher, and who may change the answer.
//!
//! Outside of an operation the answer is the same for everybody. While one is under way there is a table of the tasks
//! that existed when it began. It has one of two uses:
//!
//! - *by task* (mode `transition`): each entry says which version its task runs. A task that is not in the table was born
//!   after the table was published, has never been in code of the other version, and runs the one that is the goal.
//! - *tracking* (mode `stop-machine`): everybody runs the version that was, and each call marks its task. Whoever was
//!   seen with a clean stack and is not marked is still clean, so the stop only looks at those that are.
//!
//! The table is published while the kernel's task list cannot grow ([`Kernel::census`]), so no task that is missing has
//! ever run. Entries hold a reference on their task: neither exit nor another task at the same address can confuse them.
//! Dispatchers read the table without a lock and in any context; it is freed when `synchronize_rcu_tasks` has passed after it
//! was taken down.

use core::{
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use crate::kernel::{Guard, Kernel, Unreliable, Work};

/// The task runs the new version.
const NEW: u32 = 1;
/// Nothing is left to do for the task.
const DONE: u32 = 2;
/// The entry does not change any more: another table takes over.
const FROZEN: u32 = 4;
/// The task has called a replaced function since it was last looked at.
const DIRTY: u32 = 8;

/// One task.
#[repr(C)]
#[derive(Debug)]
pub struct Entry {
    work: Work,
    task: AtomicUsize,
    state: AtomicU32,
    /// `work` is in the hands of the kernel.
    queued: AtomicU32,
    /// Context switches when it was last looked at.
    pub switches: AtomicU64,
    /// The next entry of the chain of marked ones, plus 1.
    next: AtomicU32,
    /// Touched only by the thread of the operation: the entry is in its list of tasks to look at again.
    pub suspect: AtomicU32,
}

impl Entry {
    /// The task; 0 in an unused entry.
    pub fn task(&self) -> usize {
        self.task.load(SeqCst)
    }
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.state.load(SeqCst) & DONE != 0
    }
    fn set(&self, goal_new: bool) -> bool {
        let to = DONE | if goal_new { NEW } else { 0 };
        self.state.fetch_update(SeqCst, SeqCst, |s| (s & (FROZEN | DONE) == 0).then_some((s & !NEW) | to)).is_ok()
    }
}

/// The tasks of one operation.
#[derive(Debug)]
pub struct Table {
    entries: *mut Entry,
    mask: usize,
    goal_new: bool,
    tracking: bool,
    used: AtomicUsize,
    /// First of the chain of marked entries, plus 1.
    marked: AtomicU32,
    /// A task could not be entered: the table says nothing about it.
    overflow: AtomicBool,
    done: AtomicUsize,
}

// SAFETY: `entries` is written only by `allocate`; what it points to is atomic, and `Work` is passed on by its address alone.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// What a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One version per task.
    ByTask,
    /// Marks of calls.
    Tracking,
}

impl Table {
    /// Room for twice as many tasks as there are, and as many places that stay free.
    fn allocate<K: Kernel>(k: &K, tasks: usize, goal_new: bool, tracking: bool) -> Option<*mut Table> {
        let n = (tasks + k.spare_entries()).max(1).checked_mul(4)?.checked_next_power_of_two()?;
        let entries = k.allocate(n.checked_mul(size_of::<Entry>())?)?.cast::<Entry>();
        let Some(table) = k.allocate(size_of::<Table>()) else {
            k.free(entries.cast());
            return None;
        };
        let table = table.cast::<Table>();
        let zero = || AtomicUsize::new(0);
        let value = Table {
            entries,
            mask: n - 1,
            goal_new,
            tracking,
            used: zero(),
            marked: AtomicU32::new(0),
            overflow: AtomicBool::new(false),
            done: zero(),
        };
        // SAFETY: memory for one `Table`, aligned to 8 bytes.
        unsafe { table.write(value) };
        Some(table)
    }

    /// Every place, used or not.
    pub fn entries(&self) -> &[Entry] {
        // SAFETY: `allocate` made that many; zeroed memory is an unused entry.
        unsafe { slice::from_raw_parts(self.entries, self.mask + 1) }
    }
    /// Tasks in it, and those done.
    pub fn counts(&self) -> (usize, usize) {
        (self.used.load(SeqCst), self.done.load(SeqCst))
    }
    /// Whether it fails to say something about every task.
    pub fn overflowed(&self) -> bool {
        self.overflow.load(SeqCst)
    }

    fn start(&self, task: usize) -> usize {
        // The low bits of the address of a task are always the same.
        (task >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    }

    fn find(&self, task: usize) -> Option<&Entry> {
        let start = self.start(task);
        for i in 0..=self.mask {
            let e = self.entries().get(start.wrapping_add(i) & self.mask)?;
            match e.task() {
                0 => return None,
                t if t == task => return Some(e),
                _ => {}
            }
        }
        None
    }

    /// Enters a task and holds it; several may do so at once. `None`: no room.
    fn enter<K: Kernel>(&self, k: &K, task: usize) -> Option<&Entry> {
        // Half of the places stay free, so that every search ends soon.
        if self.used.load(SeqCst) > self.mask / 2 {
            return None;
        }
        let start = self.start(task);
        for i in 0..=self.mask {
            let e = self.entries().get(start.wrapping_add(i) & self.mask)?;
            match e.task.compare_exchange(0, task, SeqCst, SeqCst) {
                Ok(_) => {
                    k.hold(task);
                    self.used.fetch_add(1, SeqCst);
                    return Some(e);
                }
                Err(t) if t == task => return Some(e),
                Err(_) => {}
            }
        }
        None
    }

    fn mark<K: Kernel>(&self, k: &K, e: &Entry) {
        if e.state.fetch_or(DIRTY, SeqCst) & DIRTY != 0 {
            return;
        }
        k.moment();
        // SAFETY: `e` is one of `entries`.
        let index = unsafe { ptr::from_ref(e).offset_from(self.entries) } as u32;
        let mut head = self.marked.load(SeqCst);
        loop {
            e.next.store(head, SeqCst);
            k.moment();
            match self.marked.compare_exchange(head, index + 1, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the marks off and calls `f` for every entry that had one. One caller at a time.
    pub fn take_marked<K: Kernel>(&self, k: &K, mut f: impl FnMut(&Entry)) {
        let mut at = self.marked.swap(0, SeqCst);
        while let Some(e) = (at as usize).checked_sub(1).and_then(|i| self.entries().get(i)) {
            at = e.next.load(SeqCst);
            k.moment();
            // From here on a call puts it into the next chain; so the look comes behind this.
            e.state.fetch_and(!DIRTY, SeqCst);
            f(e);
        }
    }

    /// The task has reached the goal.
    pub fn finish(&self, e: &Entry) {
        if e.set(self.goal_new) {
            self.done.fetch_add(1, SeqCst);
        }
    }

    /// Whether everybody has.
    pub fn is_finished(&self) -> bool {
        let (used, done) = self.counts();
        used == done
    }

    /// Asks for [`Board::at_boundary`]; nothing happens when that is under way already.
    pub fn send<K: Kernel>(&self, k: &K, e: &Entry, urgent: bool) {
        if e.queued.load(SeqCst) != 0 {
            if !urgent || !k.recall(e.task(), work(e)) {
                return;
            }
            e.queued.store(0, SeqCst);
        }
        e.queued.store(1, SeqCst);
        if !k.send_to_boundary(e.task(), work(e), urgent) {
            e.queued.store(0, SeqCst);
        }
    }

    /// Takes every request back; `false`: some are being called, ask again.
    fn recall<K: Kernel>(&self, k: &K) -> bool {
        let mut all = true;
        for e in self.entries() {
            if e.queued.load(SeqCst) == 0 {
                continue;
            }
            if k.recall(e.task(), work(e)) {
                e.queued.store(0, SeqCst);
            } else if e.queued.load(SeqCst) != 0 {
                all = false;
            }
        }
        all
    }
}

fn work(e: &Entry) -> *mut Work {
    ptr::from_ref(&e.work).cast_mut()
}

/// The answer of one patch's dispatchers.
#[derive(Debug)]
pub struct Board {
    /// The board of the patch that is taking this one's place: whoever runs that one's new version runs this one's old.
    leader: AtomicPtr<Board>,
    settled_new: AtomicBool,
    table: AtomicPtr<Table>,
    /// Taken down, but perhaps still being read.
    retired: AtomicPtr<Table>,
}

impl Board {
    /// Everybody runs the old version.
    pub const fn new() -> Self {
        Self {
            leader: AtomicPtr::new(ptr::null_mut()),
            settled_new: AtomicBool::new(false),
            table: AtomicPtr::new(ptr::null_mut()),
            retired: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether the task that calls runs the new version. In any context, NMIs included.
    pub fn chooses_new<K: Kernel>(&self, k: &K, current: usize) -> bool {
        // SAFETY: a leader stays until `synchronize_rcu_tasks` has passed after it was taken away.
        if let Some(leader) = unsafe { self.leader.load(SeqCst).as_ref() } {
            return !leader.chooses_new(k, current);
        }
        let Some(t) = self.table() else { return self.settled_new.load(SeqCst) };
        k.moment();
        if t.tracking {
            let early = (!k.guard(Guard::MarkBeforeRead)).then(|| self.settled_new.load(SeqCst));
            k.moment();
            match t.find(current).or_else(|| t.enter(k, current)) {
                Some(e) => t.mark(k, e),
                None => t.overflow.store(k.guard(Guard::NoticeFull), SeqCst),
            }
            k.moment();
            // Read last: whoever reads "old" here has been marked before.
            return early.unwrap_or_else(|| self.settled_new.load(SeqCst));
        }
        match t.find(current) {
            Some(e) => e.state.load(SeqCst) & NEW != 0,
            None if !k.guard(Guard::NewbornRunsGoal) => !t.goal_new,
            None => t.goal_new,
        }
    }

    /// Lets another board answer, the other way round; `None`: no longer.
    pub fn follow(&self, leader: Option<&Board>) {
        self.leader.store(leader.map_or(ptr::null_mut(), |b| ptr::from_ref(b).cast_mut()), SeqCst);
    }

    /// What everybody runs who is not asked for; the table decides while there is one.
    pub fn settle(&self, new: bool) {
        self.settled_new.store(new, SeqCst);
    }

    /// The table in use.
    pub fn table(&self) -> Option<&Table> {
        // SAFETY: `free_retired` frees only what was taken down and is no longer read.
        unsafe { self.table.load(SeqCst).as_ref() }
    }

    /// Makes and publishes a table of all tasks for a goal. `false`: no memory. The table before it, if there was one, is retired.
    ///
    /// [`Use::ByTask`]: each task starts with the version it ran until now.
    pub fn publish<K: Kernel>(&self, k: &K, goal_new: bool, what: Use) -> bool {
        // While memory was being had, more tasks may have come.
        for factor in 1..=4 {
            let Some(made) = Table::allocate(k, k.count_tasks() * factor, goal_new, what == Use::Tracking) else {
                return false;
            };
            // SAFETY: just made, and freed only below or by `free_retired`.
            let t = unsafe { &*made };
            let (before, settled) = (self.table(), self.settled_new.load(SeqCst));
            if what == Use::ByTask
                && let Some(old) = before
                && k.guard(Guard::FreezeTable)
            {
                for e in old.entries() {
                    e.state.fetch_or(FROZEN, SeqCst);
                }
            }
            let full = core::cell::Cell::new(false);
            k.census(
                |task| {
                    let task = k.task_id(task);
                    let Some(e) = t.enter(k, task) else { return full.set(k.guard(Guard::WholeCensus)) };
                    let was_new = match before {
                        Some(old) if what == Use::ByTask => {
                            old.find(task).map_or(old.goal_new, |o| o.state.load(SeqCst) & NEW != 0)
                        }
                        _ => settled,
                    };
                    if what == Use::ByTask && was_new {
                        e.state.store(NEW, SeqCst);
                    }
                    if what == Use::ByTask && was_new == goal_new {
                        t.finish(e);
                    }
                },
                || {
                    if !full.get() {
                        self.retired.store(self.table.swap(made, SeqCst), SeqCst);
                    }
                },
            );
            if !full.get() {
                return true;
            }
            // SAFETY: nobody has seen it.
            unsafe { free(k, made) };
        }
        false
    }

    /// Takes the table down. To be settled before, so that the answer stays the same.
    pub fn retire(&self) {
        let t = self.table.swap(ptr::null_mut(), SeqCst);
        if !t.is_null() {
            self.retired.store(t, SeqCst);
        }
    }

    /// First half of freeing what is retired: `false`: some tasks are about to call, ask again. Then `synchronize_rcu_tasks`.
    pub fn recall_retired<K: Kernel>(&self, k: &K) -> bool {
        // SAFETY: freed only by `free_retired`, by the same thread.
        unsafe { self.retired.load(SeqCst).as_ref() }.is_none_or(|t| t.recall(k) || !k.guard(Guard::RecallBeforeFree))
    }

    /// Second half, behind `synchronize_rcu_tasks`.
    pub fn free_retired<K: Kernel>(&self, k: &K) {
        let t = self.retired.swap(ptr::null_mut(), SeqCst);
        if !t.is_null() {
            // SAFETY: taken down, no request is outstanding, and nobody who read its address is still running with it.
            unsafe { free(k, t) };
        }
    }

    /// Whether there is something to free.
    pub fn has_retired(&self) -> bool {
        !self.retired.load(SeqCst).is_null()
    }

    /// A task is on its way back to user mode; `frames` is its stack, `leaving` that it exits and does not get there.
    /// `inside` says what belongs to a version.
    pub fn at_boundary<K: Kernel>(
        &self,
        k: &K,
        e: &Entry,
        frames: Result<&[u64], Unreliable>,
        inside: impl Fn(bool, u64) -> bool,
    ) {
        // SAFETY: an entry with a request outstanding is in the table in use or in the retired one.
        for t in unsafe { [self.table.load(SeqCst).as_ref(), self.retired.load(SeqCst).as_ref()] }.into_iter().flatten()
        {
            let all = t.entries().as_ptr_range();
            if !all.contains(&ptr::from_ref(e)) {
                continue;
            }
            k.moment();
            let clean = frames.is_ok_and(|f| !f.iter().any(|&a| inside(t.goal_new, a)));
            if clean || !k.guard(Guard::BoundaryStack) {
                k.moment();
                t.finish(e);
            }
        }
        k.moment();
        // The last access: the table may go from here on.
        e.queued.store(0, SeqCst);
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

/// # Safety
/// Nobody refers to the table any more.
unsafe fn free<K: Kernel>(k: &K, table: *mut Table) {
    // SAFETY: made by `allocate`.
    let t = unsafe { &*table };
    for e in t.entries() {
        if e.task() != 0 {
            k.release(e.task());
        }
    }
    let entries = t.entries;
    k.free(entries.cast());
    k.free(table.cast());
}

/// The same, for whoever watches who is left without any dispatcher asking.
#[derive(Debug)]
pub struct Watch {
    table: *mut Table,
}

// SAFETY: the table behind it is reached through atomics.
unsafe impl Send for Watch {}

impl Watch {
    /// Nobody.
    pub const fn new() -> Self {
        Self { table: ptr::null_mut() }
    }
    /// All tasks there are now; `false`: no memory.
    pub fn begin<K: Kernel>(&mut self, k: &K) -> bool {
        self.end(k);
        for factor in 1..=4 {
            let Some(made) = Table::allocate(k, k.count_tasks() * factor, false, false) else { return false };
            // SAFETY: just made.
            let t = unsafe { &*made };
            let mut full = false;
            k.census(|task| full |= t.enter(k, k.task_id(task)).is_none() && k.guard(Guard::WholeWatch), || ());
            if !full {
                self.table = made;
                return true;
            }
            // SAFETY: nobody else knows it.
            unsafe { free(k, made) };
        }
        false
    }
    /// The tasks, when it has begun.
    pub fn table(&self) -> Option<&Table> {
        // SAFETY: made by `begin`, freed only by `end`.
        unsafe { self.table.as_ref() }
    }
    /// Gives everything back.
    pub fn end<K: Kernel>(&mut self, k: &K) {
        if !self.table.is_null() {
            // SAFETY: only this knows the table.
            unsafe { free(k, self.table) };
            self.table = ptr::null_mut();
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}
