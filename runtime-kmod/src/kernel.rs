//! What the runtime asks of a kernel. The binding implements it with kernel functions, the tests with a simulation.

/// Why the frames of a task are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreliable {
    /// The unwinder met something it cannot vouch for, or the stack has more frames than the buffer: the kernel
    /// reports both as -EINVAL (`stack_trace_consume_entry`, kernel/stacktrace.c).
    Unwind,
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

/// One kernel. All addresses are run-time addresses of that kernel; all times are nanoseconds.
pub trait Kernel: Sync {
    /// A task. Valid while the machine is stopped.
    type Task: Copy;
    /// A writable view of a few bytes of kernel text.
    type Alias: Copy + Send + Sync;

    /// Copies kernel memory; `false` when any byte is not mapped. Never faults.
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool;
    /// Whether a kprobe is registered at exactly `addr`.
    fn probe_at(&self, addr: u64) -> bool;
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
    /// A serialising instruction on this CPU.
    fn serialize(&self);
    /// A serialising instruction on every online CPU; returns when all have executed it. Interrupts are on.
    fn serialize_all(&self);

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
}
