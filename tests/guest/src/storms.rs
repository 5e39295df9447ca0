//! Load that changes the set of tasks, CPUs, modules and tracers while a patch comes and goes.
//!
//! Each runs for SECONDS, with `@FILE` until there is such a file, or with `forever` until it is ended, and prints how often it went round.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exactly;

/// Bytes of stack of a thread that makes one system call after the other.
const STACK: usize = 4096;
/// Threads of a process that ends as a whole.
const THREADS: usize = 6;

/// When to stop.
pub enum Limit {
    Never,
    At(Instant),
    /// When there is such a file.
    File(PathBuf),
}

impl Limit {
    pub fn parse(time: &str) -> Result<Self> {
        match time {
            "forever" => Ok(Self::Never),
            time => match time.strip_prefix('@') {
                Some(file) => Ok(Self::File(file.into())),
                None => Ok(Self::At(Instant::now() + Duration::from_secs_f64(time.parse().context("SECONDS")?))),
            },
        }
    }

    pub fn passed(&self) -> bool {
        match self {
            Self::Never => false,
            Self::At(end) => Instant::now() >= *end,
            Self::File(file) => file.exists(),
        }
    }
}

/// Runs `work` in a child of this process; it ends with the status 0 when `work` succeeded.
pub fn child(work: impl FnOnce() -> Result<()>) -> Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the child has a whole copy of everything.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => {
            // SAFETY: takes two numbers; the child does not outlive its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let status = match work() {
                Ok(()) => 0,
                Err(e) => {
                    eprintln!("child: {e:#}");
                    1
                }
            };
            // SAFETY: ends the child at once; nothing of the parent's is flushed twice.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child, also one without the usual exit signal; its status.
pub fn reap(pid: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives until the call returns.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if got == pid {
            return Ok(status);
        }
        let e = std::io::Error::last_os_error();
        if e.kind() != std::io::ErrorKind::Interrupted {
            return Err(e).with_context(|| format!("wait for {pid}"));
        }
    }
}

/// A process after the other, that ends at once.
pub fn forkstorm(args: &[String]) -> Result<()> {
    let [time] = exactly(args, "forkstorm SECONDS|forever")?;
    rounds("forks", time, || {
        let pid = child(|| Ok(()))?;
        reap(pid).and_then(|status| if status == 0 { Ok(()) } else { bail!("a child ended with {status:#x}") })
    })
}

/// Processes with threads asleep, that end as a whole.
pub fn exitstorm(args: &[String]) -> Result<()> {
    let [time] = exactly(args, "exitstorm SECONDS|forever")?;
    rounds("exits", time, || {
        let pid = child(|| {
            let stacks = Stacks::map(THREADS)?;
            (0..THREADS).try_for_each(|i| stacks.thread(i, asleep, std::ptr::null_mut()).map(drop))
        })?;
        reap(pid).and_then(|status| if status == 0 { Ok(()) } else { bail!("a child ended with {status:#x}") })
    })
}

/// CPU 1 goes and comes back. The last state is online.
pub fn cpustorm(args: &[String]) -> Result<()> {
    let [time] = exactly(args, "cpustorm SECONDS|forever")?;
    const FILE: &str = "/sys/devices/system/cpu/cpu1/online";
    rounds("hotplugs", time, || {
        // Somebody else may hold the lock of hotplug: EBUSY is no fault.
        let busy = |e: &std::io::Error| e.raw_os_error() == Some(libc::EBUSY);
        for state in ["0", "1"] {
            match fs::write(FILE, state) {
                Err(e) if !busy(&e) => return Err(e).with_context(|| format!("write {state} to {FILE}")),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Ok(())
    })
}

/// A module is loaded and removed.
pub fn modstorm(args: &[String]) -> Result<()> {
    let [ko, name, time] = exactly(args, "modstorm KO NAME SECONDS|forever")?;
    let file = File::open(ko).with_context(|| ko.to_string())?;
    rounds("modules", time, || {
        rustix::system::finit_module(&file, c"", 0).with_context(|| format!("load {ko}"))?;
        let name = std::ffi::CString::new(name)?;
        rustix::system::delete_module(&name, libc::O_NONBLOCK).context("remove it")
    })
}

/// Function tracer, graph tracer, kprobe and kretprobe on a function come and go. Never a tracer together with a kretprobe: both
/// change the return address, and stock 6.1 jumps to 0 when they come and go on a busy function.
pub fn tracestorm(args: &[String]) -> Result<()> {
    let [function, time] = exactly(args, "tracestorm FUNCTION SECONDS|forever")?;
    const TRACING: &str = "/sys/kernel/tracing";
    let put = |file: &str, text: &str| {
        let path = Path::new(TRACING).join(file);
        let mut open = OpenOptions::new();
        let file = if file == "kprobe_events" { open.append(true) } else { open.write(true).truncate(true) };
        let mut file = file.open(&path).with_context(|| path.display().to_string())?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {text:?} to {}", path.display()))
    };
    put("set_ftrace_filter", function)?;
    put("set_graph_function", function)?;
    // By address: while a patch is applied its name means two functions.
    let address = crate::memory::resolve_first(function)?;
    let result = rounds("tracers", time, || {
        for tracer in ["function", "function_graph", "nop"] {
            put("current_tracer", tracer)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        put("kprobe_events", &format!("p:lp/entry {address:#x}\nr:lp/back {address:#x}\n"))?;
        put("events/lp/enable", "1")?;
        std::thread::sleep(Duration::from_millis(20));
        put("events/lp/enable", "0")?;
        put("kprobe_events", "-:lp/entry\n-:lp/back\n")
    });
    put("set_ftrace_filter", "")?;
    put("set_graph_function", "")?;
    result
}

/// N processes that read FILE without a pause.
pub fn hot(args: &[String]) -> Result<()> {
    let [n, path] = exactly(args, "hot N FILE")?;
    let n: usize = n.parse().context("N")?;
    let file = File::open(path).with_context(|| path.to_string())?;
    let read = || {
        let mut buffer = [0; 4096];
        loop {
            file.read_at(&mut buffer, 0).with_context(|| format!("read {path}"))?;
        }
    };
    let children = (0..n).map(|_| child(read)).collect::<Result<Vec<_>>>()?;
    println!("RESULT hot={}", children.len());
    children.into_iter().try_for_each(|pid| reap(pid).map(drop))
}

/// N threads asleep: in read(2) of a FIFO, or in pause(2).
pub fn sleepers(args: &[String]) -> Result<()> {
    let (n, fifo) = match args {
        [n] => (n, None),
        [n, fifo] => (n, Some(fifo)),
        _ => bail!("usage: sleepers N [FIFO]"),
    };
    let n: usize = n.parse().context("N")?;
    // The kernel allows as many as its memory holds in theory.
    for limit in ["threads-max", "pid_max"] {
        let path = format!("/proc/sys/kernel/{limit}");
        let have: usize = fs::read_to_string(&path)?.trim().parse().with_context(|| path.clone())?;
        if have < n + 1000 {
            fs::write(&path, (n + 1000).to_string()).with_context(|| path.clone())?;
        }
    }
    fs::write("/proc/sys/vm/max_map_count", "262144").context("vm.max_map_count")?;
    // Opened for reading and writing, so that only the read sleeps, not the open.
    let file = fifo.map(|f| File::options().read(true).write(true).open(f).with_context(|| f.clone())).transpose()?;
    let stacks = Stacks::map(n)?;
    for i in 0..n {
        match &file {
            Some(file) => {
                use std::os::fd::AsRawFd;
                stacks.thread(i, reading, std::ptr::without_provenance_mut(file.as_raw_fd() as usize))?;
            }
            None => {
                stacks.thread(i, asleep, std::ptr::null_mut())?;
            }
        }
    }
    println!("RESULT sleeping={n}");
    loop {
        std::thread::park();
    }
}

/// clone(2) with the exit signal 63, which nobody uses; its errno.
pub fn odd_clone(args: &[String]) -> Result<()> {
    let [] = exactly(args, "odd-clone")?;
    // SAFETY: to be sent to this process when the child ends; ignored.
    unsafe { libc::signal(63, libc::SIG_IGN) };
    // SAFETY: without CLONE_VM and with no stack this is fork(2) with another exit signal.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 63usize, 0usize, 0usize, 0usize, 0usize) };
    match pid {
        0 => {
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        }
        -1 => println!("RESULT errno={}", std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)),
        pid => {
            reap(libc::pid_t::try_from(pid)?)?;
            println!("RESULT errno=0");
        }
    }
    Ok(())
}

/// The parent is asleep in `kernel_clone`, killable but not interruptible, until the child ends.
pub fn vforker(args: &[String]) -> Result<()> {
    let [] = exactly(args, "vforker")?;
    println!("RESULT vforking=1");
    // SAFETY: without CLONE_VM the child has a copy of everything, as with fork(2).
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) };
    match pid {
        0 => {
            // SAFETY: takes two numbers; the child does not outlive its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            loop {
                // SAFETY: takes nothing.
                unsafe { libc::syscall(libc::SYS_pause) };
            }
        }
        -1 => Err(std::io::Error::last_os_error()).context("vfork"),
        pid => reap(libc::pid_t::try_from(pid)?).map(drop),
    }
}

/// Goes round until the time is over; says how often, also when it fails.
fn rounds(what: &str, time: &str, mut once: impl FnMut() -> Result<()>) -> Result<()> {
    let limit = Limit::parse(time)?;
    let mut n = 0u64;
    let mut result = Ok(());
    while result.is_ok() && !limit.passed() {
        result = once();
        n += u64::from(result.is_ok());
    }
    println!("RESULT {what}={n}");
    result.with_context(|| format!("round {n}"))
}

/// Stacks for threads that know nothing of the C library: they make system calls and share everything.
struct Stacks {
    start: *mut libc::c_void,
}

impl Stacks {
    fn map(n: usize) -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), n * STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mmap");
        }
        Ok(Self { start })
    }

    fn thread(&self, i: usize, run: extern "C" fn(*mut libc::c_void) -> i32, arg: *mut libc::c_void) -> Result<i32> {
        let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        // SAFETY: stack `i` is inside the mapping, which is never unmapped, and belongs to this thread alone; `run` makes
        // raw system calls only, so that it does not matter whose thread-local storage it sees.
        let tid = unsafe { libc::clone(run, self.start.byte_add((i + 1) * STACK), flags | libc::CLONE_SYSVSEM, arg) };
        if tid == -1 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("thread {i}"));
        }
        Ok(tid)
    }
}

extern "C" fn asleep(_: *mut libc::c_void) -> i32 {
    loop {
        // SAFETY: takes nothing and returns when a signal was handled, which does not happen.
        unsafe { libc::syscall(libc::SYS_pause) };
    }
}

extern "C" fn reading(file: *mut libc::c_void) -> i32 {
    let mut buffer = [0u8; 64];
    loop {
        // SAFETY: the buffer is on this thread's stack and lives until the call returns.
        unsafe { libc::syscall(libc::SYS_read, file.addr(), buffer.as_mut_ptr(), buffer.len()) };
    }
}
