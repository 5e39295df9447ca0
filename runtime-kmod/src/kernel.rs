//! What the runtime asks of a kernel. The binding implements it with kernel functions, the tests with a simulation.

use lpbuild_abi::Region;

/// Why the frames of a task are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreliable {
    /// The unwinder met something it cannot vouch for, or the stack has more frames than the buffer: the kernel
    /// reports both as -EINVAL (`stack_trace_consume_entry`, kernel/stacktrace.c).
    Unwind,
}

/// What is known of a task at a moment at which it cannot run, or, if it is running, from an interrupt of its CPU.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    /// The addresses on its stack, all of them or an error.
    pub frames: Result<&'v [u64], Unreliable>,
    /// It waits for something and is on no run queue.
    pub blocked: bool,
    /// How often it has left a CPU until now.
    pub switches: u64,
    /// It never returns to user mode.
    pub kernel: bool,
}

/// Whether `synchronize_rcu_tasks` waits for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Not where it is.
    Rests,
    /// It does, if the task has not rested since: another number whenever it has slept of its own, or was found in user mode by the
    /// clock. Not 0.
    Works(u64),
}

/// How a look at a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was looked at.
    Looked,
    /// It kept on running, from one CPU to the next.
    Running,
    /// It will never run again.
    Dead,
    /// It is the idle task of a CPU that is offline, and will start from its beginning.
    Offline,
}

/// Who a task is, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Who {
    /// Process id as the initial namespace sees it.
    pub pid: i32,
    /// `task_struct.comm`, NUL padded.
    pub comm: [u8; 16],
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Level {
    /// Something was refused.
    Error = 3,
    /// Something was done.
    Info = 6,
}

/// A rule that keeps an operation from going wrong. All of them hold in a kernel; the model of the tests takes them away one
/// by one, to see that each is needed and that its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The bytes of the sites are compared before they are changed.
    CheckSites,
    /// The first byte becomes int3 before anything else changes.
    Int3First,
    /// All CPUs have seen the int3 before the tail changes.
    Int3Seen,
    /// All CPUs have seen the tail before the first byte changes.
    TailSeen,
    /// Int3 hits are diverted until no CPU can be looking at one.
    LateHits,
    /// Who would be waited for behind the int3 is waited for before it.
    Survey,
    /// An int3 behind which the wait does not end is taken back at the deadline.
    TakeBack,
    /// Nobody is preempted inside a site when its tail changes.
    RcuBeforeTails,
    /// Whose stack has an address of the other version is inside.
    StackScan,
    /// The stop looks at those who called since they were last looked at.
    StopLooks,
    /// A call is marked before it asks which version is the right one.
    MarkBeforeRead,
    /// A task in the middle of something is not switched at once.
    Patience,
    /// Nobody in user space is disturbed before the time for that has come.
    Undisturbed,
    /// A task works on its way to user mode only counts as there when its stack is clean.
    BoundaryStack,
    /// A table that another one takes over from does not change any more.
    FreezeTable,
    /// Tasks that came after the table run the goal.
    NewbornRunsGoal,
    /// Requests are taken back before the table goes.
    RecallBeforeFree,
    /// `synchronize_rcu_tasks` comes before the table goes.
    RcuBeforeFree,
    /// `synchronize_rcu_tasks` comes before the stop, for those who are on the task list no more.
    RcuBeforeStop,
    /// The same before draining is over.
    RcuBeforeDrained,
    /// Everybody is seen outside before the module goes.
    LeaveWatch,
    /// `synchronize_rcu_tasks` comes before the module goes.
    RcuBeforeLeave,
    /// The stop does not walk those of which it is known where they are.
    KnownTasks,
    /// Where some functions have no dispatcher, the dispatchers of the others follow in the same stop.
    SettleInStop,
    /// How long tasks have had is counted from the beginning of the operation.
    FreshClock,
    /// Only tasks that were seen are asked to come to the boundary.
    AskWhoWasSeen,
    /// Dispatchers of a patch whose place is taken answer as the other one's board says.
    Follow,
    /// They answer for themselves when that is over.
    FollowNoLonger,
    /// Everybody is seen outside of a replaced patch before that goes.
    ReplacedWatch,
    /// `synchronize_rcu_tasks` comes before a replaced patch goes.
    RcuBeforeReplaced,
    /// What pre-apply returns is obeyed.
    VetoEnds,
    /// What the first callback of an operation did is undone when that is refused.
    UndoCallback,
    /// A task for which there was no room in the table has to be looked for again.
    NoticeFull,
    /// A table that says nothing about some task is not published.
    WholeCensus,
    /// Nor watched.
    WholeWatch,
    /// A patch takes the place of another only if it holds what that lies on.
    HoldWhatIsBelow,
    /// No patch below calls a function of its own, on which this one lies, directly.
    NoBypass,
    /// Whoever runs the old version of a function runs that of the patch below.
    OldIsBelow,
    /// `lp_original_NAME` leads to the patch below.
    OriginalIsBelow,
    /// When a replaced patch has gone, the old version is what was below that.
    OldAfterwards,
    /// When a replaced patch has gone, the sites come back to what was below that.
    ComeBackToTheRest,
    /// A module is the build that the patch was made for.
    ModuleId,
    /// Fields that refer to a module are filled in whenever it comes.
    FieldsAnew,
    /// What is brought for a module begins anew whenever it comes.
    DataAnew,
    /// The sites of a module that comes are compared, and not used by a kprobe.
    LateSites,
    /// A module that comes gets what the sites of the others hold.
    JoinAsOthers,
    /// The code of a module that goes is put back.
    RestoreAtGoing,
    /// Nobody stands in the middle of a jump when that is taken out of a module that goes.
    TailAtGoing,
    /// Sites are written again when nobody looks at them.
    HideBeforeReuse,
    /// The ranges of a module that is gone are nobody's.
    RangesNowhere,
    /// What was laid over a patch below leads to the module's function again where none is below it the next time.
    StandAlone,
    /// Constants are compared before they are changed.
    CheckData,
    /// They change when nobody runs old code any more, ..
    DataBehindOldCode,
    /// .. and back before anybody can.
    DataBeforeOldCode,
    /// In `stop-machine` they change at the instant at which the code does.
    DataInTheStop,
}

/// One kernel. All addresses are run-time addresses of that kernel; all times are nanoseconds.
pub trait Kernel: Sync {
    /// A task. Valid while the machine is stopped.
    type Task: Copy;
    /// A writable view of a few bytes of kernel text.
    type Alias: Copy + Send + Sync + core::fmt::Debug;

    /// Copies kernel memory; `false` when any byte is not mapped. Never faults.
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool;
    /// Whether a kprobe is registered at exactly `addr`.
    fn probe_at(&self, addr: u64) -> bool;
    /// Whether ftrace sends calls of the function at `addr` to a function of somebody's choice, as the kernel's own livepatch
    /// has it: that comes before the jump.
    fn is_redirected(&self, _addr: u64) -> bool {
        false
    }
    /// Monotonic time; callable with interrupts off.
    fn now_ns(&self) -> u64;
    /// Writes `function+0xOFF/0xSIZE [module]` of an address and returns the length; 0 when unknown.
    fn symbol(&self, addr: u64, out: &mut [u8]) -> usize;
    /// A log line of the patch.
    fn log(&self, level: Level, line: &[u8]);

    /// A writable alias of `len` bytes of text at `addr`.
    fn map(&self, addr: u64, len: usize) -> Option<Self::Alias>;
    /// Gives an alias back.
    fn unmap(&self, alias: Self::Alias);
    /// Stores `bytes` at `offset` behind the start of the alias; one byte is stored at once.
    fn write(&self, alias: Self::Alias, offset: usize, bytes: &[u8]);
    /// Stores bytes of data behind the start of the alias: each aligned eight of them at once, the others one by one.
    fn change(&self, alias: Self::Alias, bytes: &[u8]);
    /// A serialising instruction on this CPU.
    fn serialize(&self);
    /// A serialising instruction on every online CPU; returns when all have executed it. Interrupts are on.
    fn serialize_all(&self);

    /// A kernel module of that name, if there is one that has its memory and is not going. Looked at, as all modules, only
    /// while none can go ([`crate::holders`]).
    fn module(&self, name: &[u8]) -> Option<usize>;
    /// Address of a symbol of a module: the one at `position` of all `count` with that name, in the order of its table, those of
    /// its init left out. Nothing if there are more or fewer.
    fn module_symbol(&self, module: usize, name: &[u8], position: u32, count: u32) -> Option<u64>;
    /// First byte and length of a part of the memory of a module that stays behind its init.
    fn module_region(&self, module: usize, region: Region) -> (u64, u64);
    /// Nobody who looks at something without a lock now does so any more when this returns (`synchronize_rcu`); may sleep.
    fn synchronize(&self);

    /// CPUs online; does not change while an operation holds the hotplug lock.
    fn online_cpus(&self) -> usize;
    /// Number of this CPU, smaller than the number of seats given to the machine.
    fn this_cpu(&self) -> usize;
    /// Identity of the task running on this CPU.
    fn current(&self) -> usize;
    /// Calls `f` on every online CPU, all at once, with interrupts off, while nothing else runs. `false`: not done.
    fn stop<F: Fn() + Sync>(&self, f: &F) -> bool;
    /// One turn of a waiting loop; keeps watchdogs quiet.
    fn relax(&self);

    /// Calls `f` for every task of the machine and the idle task of every online CPU. Only while stopped.
    fn for_each_task<F: FnMut(Self::Task)>(&self, f: F);
    /// Identity of a task, comparable with [`Kernel::current`].
    fn task_id(&self, task: Self::Task) -> usize;
    /// The CPU a task last ran on.
    fn task_cpu(&self, task: Self::Task) -> usize;
    /// Whether it is the thread that performs the operation.
    fn is_operator(&self, task: Self::Task) -> bool;
    /// The addresses on a task's stack, all of them or an error.
    fn stack(&self, task: Self::Task, frames: &mut [u64]) -> Result<usize, Unreliable>;
    /// Name and pid.
    fn who(&self, task: Self::Task) -> Who;

    /// Zeroed memory, aligned to 8 bytes; may sleep.
    fn allocate(&self, bytes: usize) -> Option<*mut u8>;
    /// Gives memory of [`Kernel::allocate`] back.
    fn free(&self, memory: *mut u8);
    /// Tasks there are, roughly.
    fn count_tasks(&self) -> usize;
    /// Room in a table for tasks that come meanwhile; the model has less, so that tables run full.
    #[inline(always)]
    fn spare_entries(&self) -> usize {
        64
    }
    /// Calls `f` for every task on the task list and the idle task of every possible CPU, then `last`, while no task can be
    /// added to the list. Interrupts are on, the machine is running; `f` and `last` do not sleep.
    fn census<F: FnMut(Self::Task), L: FnOnce()>(&self, f: F, last: L);
    /// Keeps the memory of a task that exists until [`Kernel::release`], in any context.
    fn hold(&self, task: usize);
    /// The end of that.
    fn release(&self, task: usize);
    /// The task, held, as [`Kernel::who`] and [`Kernel::stack`] want it.
    fn held(&self, task: usize) -> Self::Task;
    /// Calls `f` with a view of a task that is held, at most once, while it cannot run or from an interrupt of its CPU; `f`
    /// does not sleep. The hotplug lock is held.
    fn look<F: FnMut(View<'_>)>(&self, task: usize, frames: &mut [u64], f: F) -> Seen;
    /// Whether a task that is held rests, or when it last did. A guess is good enough. The hotplug lock is held.
    fn rest(&self, task: usize, frames: &mut [u64]) -> Rest;
    /// Has [`crate::board::Board::at_boundary`] called by a task that is held, on its way back to user mode. `work` is memory of
    /// the binding's, unused until then. `urgent`: a task that waits interruptibly is sent there at once, as by a signal: its
    /// system call is restarted or returns EINTR.
    /// `false`: it is on its way out and will not.
    fn send_to_boundary(&self, task: usize, work: *mut Work, urgent: bool) -> bool;
    /// Takes that back; `false`: it is about to be called, is being called or has been.
    fn recall(&self, task: usize, work: *mut Work) -> bool;
    /// Wakes a kernel thread that waits interruptibly, so that it looks around.
    fn nudge(&self, task: usize);
    /// Lets others run; in long loops without locks.
    fn breathe(&self);

    /// Whether a rule holds: always, but in the model.
    #[inline(always)]
    fn guard(&self, _: Guard) -> bool {
        true
    }
    /// A moment at which others may come in between; only the model takes the opportunity.
    #[inline(always)]
    fn moment(&self) {}
}

/// The binding's part of an entry of the table of tasks: `struct callback_head`.
#[repr(C)]
#[derive(Debug)]
pub struct Work {
    /// Opaque.
    pub words: [core::cell::UnsafeCell<usize>; 2],
}
