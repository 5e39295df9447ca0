//! One boot of a stock kernel in QEMU with a case to run; what is run again, and why, says [`Vm::run`].
//!
//! ```no_run
//! # fn f() -> anyhow::Result<()> {
//! let kernel = harness::kernels::Kernel::ensure("6.1")?;
//! let run = harness::vm::Vm::new("version", &kernel).case("result version $(uname -r)").run()?;
//! run.require_pass()?;
//! assert_eq!(run.result("version")?, kernel.release);
//! # Ok(()) }
//! ```

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lpbuild::trial::console::{ConsoleVerdict, Transcript};
use lpbuild::trial::initramfs::Initramfs;
use lpbuild::trial::programs::Programs;
use lpbuild::trial::qemu::{self, Accel, ImageSource, Machine, Watch};
use lpbuild::trial::stale;

use crate::kept::KeptBoot;
use crate::kernels::Kernel;
use crate::{cache, cmd, emulator, guest, kept, workspace_root};

/// CPUs of guests that run at one time for each CPU of this host, all test processes together. Guests wait at times, for a
/// deadline or for a program that sleeps; with many more threads than CPUs, one that spins burns what another needs.
const GUEST_CPUS: usize = 3;

/// Nearly half of a boot of the stock kernels are the self-tests of their cryptography (`crypto_algapi_init`).
const FAST_BOOT: &str = "cryptomgr.notests";

/// For guests that share a boot: a CPU that does not say that `rep movsb` is fast, for emulated it is a byte at a time, and the kernel
/// clears and copies pages with it (arch/x86/lib/clear_page_64.S, copy_user_64.S). Guests that boot have all that QEMU emulates.
const SHARED_CPU: &str = "max,-erms,-fsrm";

/// CPUs and memory of a guest unless told.
const CPUS: u32 = 2;
const MEMORY_MIB: u32 = 1024;

/// A place to run a guest of so many CPUs in, waited for; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    _held: Vec<cache::Lock>,
}

impl Place {
    /// For a guest run by the QEMU of [`emulator::find`].
    pub fn wait_for(cpus: u32) -> Result<Self> {
        let all = GUEST_CPUS * std::thread::available_parallelism().map_or(2, usize::from);
        // CPUs that take turns use no more than one of the host.
        let cpus = if qemu::has_threads(&emulator::find()?) { cpus as usize } else { GUEST_CPUS };
        Ok(Self { _held: cache::slots("vm", cpus, all)? })
    }
}
/// Shell functions every case can use; `set -e` makes any failing command the end of the case.
const PREAMBLE: &str = r#"set -eu
fail() { echo "$*" > /run/reason; echo "case: FAIL $*"; exit 1; }
result() { echo "RESULT $1=$2"; }
expect() { [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"; }
expect_in() { case "$3" in *"$2"*) ;; *) fail "$1: expected '$2' in '$3'";; esac; }
expect_not_in() { case "$3" in *"$2"*) fail "$1: unexpected '$2' in '$3'";; esac; }
refused() { if "$@"; then fail "not refused: $*"; fi; }
step() { echo "--- $*"; echo "lpbuild-case: $*" > /dev/kmsg; }
"#;

/// How guest time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// With the host ([`Accel::Emulated`]).
    Host,
    /// One instruction is one nanosecond; one CPU, and no random addresses: the same figures every run.
    Instructions,
}

/// A guest to be run.
#[derive(Clone, Debug)]
pub struct Vm {
    name: String,
    vmlinuz: PathBuf,
    stock: bool,
    files: Vec<(String, PathBuf)>,
    texts: Vec<(String, String)>,
    case: String,
    allowed: Vec<String>,
    append: String,
    devices: Vec<String>,
    clock: Clock,
    cpus: u32,
    take_turns: bool,
    memory_mib: u32,
    silence: Duration,
    overtime: Duration,
}

/// What a guest did.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub verdict: ConsoleVerdict,
    /// Everything it printed, by source.
    pub transcript: Transcript,
    /// The log: kernel lines begin with `k| `, lines of the case with `c| `, in the order they were read.
    pub log: PathBuf,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl Run {
    /// An error with the end of the log, unless the verdict is PASS.
    pub fn require_pass(&self) -> Result<&Self> {
        if self.verdict == ConsoleVerdict::Pass {
            return Ok(self);
        }
        bail!("verdict {:?}; the end of {}:\n{}", self.verdict, self.log.display(), self.log_end(60))
    }

    /// The last lines of the log.
    pub fn log_end(&self, lines: usize) -> String {
        cmd::tail(&fs::read_to_string(&self.log).unwrap_or_default(), lines)
    }

    /// Whether the kernel log has a line with this text.
    pub fn kernel_said(&self, text: &str) -> bool {
        self.transcript.kernel.iter().any(|l| l.contains(text))
    }

    /// What the case printed as `RESULT KEY=value`; the last one when it did so more than once.
    pub fn result(&self, key: &str) -> Result<&str> {
        let results = || self.transcript.case.iter().filter_map(|l| l.trim().strip_prefix("RESULT ")?.split_once('='));
        match results().rfind(|(k, _)| k.trim() == key) {
            Some((_, value)) => Ok(value.trim()),
            None => bail!("the case printed no `RESULT {key}=...`; it printed {:?}", results().collect::<Vec<_>>()),
        }
    }

    /// A result of the case as a number.
    pub fn number(&self, key: &str) -> Result<f64> {
        let value = self.result(key)?;
        value.parse().with_context(|| format!("RESULT {key}={value} is not a number"))
    }
}

impl Vm {
    /// A guest of a stock kernel; the name is that of the folder of its log, `target/vm/NAME`.
    pub fn new(name: &str, kernel: &Kernel) -> Self {
        Self { stock: true, ..Self::booting(name, &kernel.vmlinuz) }
    }

    /// A guest of any image, for example that of an [`crate::own::OwnKernel`].
    pub fn booting(name: &str, image: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_string(),
            vmlinuz: image.into(),
            stock: false,
            files: Vec::new(),
            texts: Vec::new(),
            case: String::new(),
            allowed: Vec::new(),
            append: String::new(),
            devices: Vec::new(),
            clock: Clock::Host,
            cpus: CPUS,
            take_turns: false,
            memory_mib: MEMORY_MIB,
            silence: Duration::from_secs(60),
            overtime: Duration::from_secs(300),
        }
    }

    /// Boots another image.
    #[must_use]
    pub fn image(mut self, vmlinuz: impl Into<PathBuf>) -> Self {
        self.vmlinuz = vmlinuz.into();
        self.stock = false;
        self
    }

    /// Puts a file of the host at an absolute path of the guest.
    #[must_use]
    pub fn file(mut self, guest: &str, host: impl Into<PathBuf>) -> Self {
        self.files.push((guest.to_string(), host.into()));
        self
    }

    /// Puts a text at an absolute path of the guest.
    #[must_use]
    pub fn text(mut self, guest: &str, content: &str) -> Self {
        self.texts.push((guest.to_string(), content.to_string()));
        self
    }

    /// The case: a script for busybox sh under `set -eu`, with the functions of the preamble (`fail`, `result`, `expect`,
    /// `expect_in`, `expect_not_in`, `refused`, `step`) and the guest's own applets (`tests/guest`) in PATH.
    #[must_use]
    pub fn case(mut self, script: &str) -> Self {
        self.case = script.to_string();
        self
    }

    /// Lines of the kernel log with this text are no faults.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allowed.push(text.to_string());
        self
    }

    /// More kernel parameters.
    #[must_use]
    pub fn append(mut self, parameters: &str) -> Self {
        self.append = format!("{} {parameters}", self.append);
        self
    }

    /// Another device, as QEMU's `-device` has it.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.devices.push(device.to_string());
        self
    }

    /// How guest time passes.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Number of CPUs with [`Clock::Host`]; 2 unless told.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// One thread for all CPUs, whatever QEMU can do.
    #[must_use]
    pub fn take_turns(mut self) -> Self {
        self.take_turns = true;
        self
    }

    /// Guest memory.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Stops the guest when it prints nothing for this long (60 s unless told).
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit;
        self
    }

    /// Stops the guest after this long (300 s unless told).
    #[must_use]
    pub fn overtime(mut self, limit: Duration) -> Self {
        self.overtime = limit;
        self
    }

    /// Builds the initramfs, boots, and follows the guest to its end. An error is a fault of the host side only.
    ///
    /// Two things are done once more, with a note: a guest that ends before PID 1 has said anything is booted again, as on a
    /// loaded host QEMU's TCG now and then loses the start of the second CPU or the timer; and a guest that died of an
    /// int3 only the emulator still had ([`stale`]) runs again with CPUs that take turns, where that cannot be.
    pub fn run(&self) -> Result<Run> {
        let mut run = self.run_once()?;
        if run.verdict != ConsoleVerdict::Pass && run.transcript.case.is_empty() {
            crate::progress(format!("{}: {:?} before PID 1 started; booting once more", self.name, run.verdict));
            run = self.run_once()?;
        }
        match stale::int3_not_in_memory(&run.transcript.kernel) {
            Some(place) if self.clock == Clock::Host && !self.take_turns => {
                let name = &self.name;
                crate::progress(format!("{name}: an int3 at {place} that is not in memory; again, with CPUs in turns"));
                self.clone().take_turns().overtime(2 * self.overtime).run_once()
            }
            _ => Ok(run),
        }
    }

    fn run_once(&self) -> Result<Run> {
        let dir = workspace_root().join("target/vm").join(&self.name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let _named = cache::lock(&dir)?;
        let (accel, cpus, fast) = match self.clock {
            Clock::Host if self.take_turns => (Accel::Turns, self.cpus, FAST_BOOT),
            Clock::Host => (Accel::Emulated, self.cpus, FAST_BOOT),
            Clock::Instructions => (Accel::Counted, 1, ""),
        };
        let _place = Place::wait_for(cpus)?;
        let mut machine = Machine {
            qemu: emulator::find()?,
            image: self.vmlinuz.clone(),
            initramfs: self.guest()?.archive()?,
            accel,
            cpus,
            memory_mib: self.memory_mib,
            append: format!("{fast} {}", self.append.trim()),
            allowed: self.allowed.clone(),
            overtime: self.overtime,
            extra: self.devices.iter().flat_map(|d| ["-device".to_owned(), d.clone()]).collect(),
        };
        if self.keeps() {
            machine.extra.extend(["-cpu", SHARED_CPU].map(str::to_owned));
        }
        let goes_on = if self.keeps() { KeptBoot::of(&machine)? } else { None };
        let case = self.add_case(Initramfs::default())?;
        match goes_on.map(|kept| kept.with(&machine, &dir, &case.archive()?)).transpose()?.flatten() {
            Some(kept) => machine = kept,
            None => machine.initramfs = self.add_case(self.guest()?)?.archive()?,
        }
        let log = dir.join("console.log");
        let end = machine.boot(&dir, &log, &mut Patience(self.silence))?;
        kept::remove_case(&dir)?;
        Ok(Run { verdict: end.verdict, transcript: end.transcript, log, took: end.took })
    }

    /// Whether guests of this kind are many enough to keep a boot for.
    fn keeps(&self) -> bool {
        let usual = (self.cpus, self.memory_mib) == (CPUS, MEMORY_MIB) && self.append.trim().is_empty();
        self.stock && usual && self.devices.is_empty() && self.clock == Clock::Host && !self.take_turns
    }

    /// What all guests have.
    fn guest(&self) -> Result<Initramfs> {
        let mut fs = Initramfs::new();
        fs.busybox(&Programs::find()?.busybox)?;
        fs.copy("/init", &guest::build()?)?;
        for applet in APPLETS {
            fs.link(&format!("/bin/{applet}"), "/init");
        }
        Ok(fs)
    }

    fn add_case(&self, mut fs: Initramfs) -> Result<Initramfs> {
        for (path, host) in &self.files {
            fs.copy(path, host)?;
        }
        for (path, content) in &self.texts {
            fs.file(path, 0o755, content.as_bytes());
        }
        fs.file("/case.sh", 0o755, format!("{PREAMBLE}{}\n", self.case));
        Ok(fs)
    }
}

/// Nothing but a limit of silence.
struct Patience(Duration);

impl Watch for Patience {
    fn line(&mut self, _: ImageSource, _: &str) {}
    fn silence(&self) -> Duration {
        self.0
    }
}

/// Helper programs of `tests/guest`, found in the guest's PATH under these names.
pub const APPLETS: &[&str] = &[
    "address",
    "arp-long-device",
    "bpf-count",
    "bridge-vlans-gone",
    "conntrack-filtered",
    "consistent",
    "cpustorm",
    "cycle",
    "device-checksums",
    "elapsed",
    "epoll-seeker",
    "exitstorm",
    "fanotify-uncounted",
    "faulting-getdents",
    "faulting-usercopy",
    "forkstorm",
    "hammer",
    "hot",
    "inotify-twice",
    "io-uring-rings",
    "kernel-cipher",
    "kernel-hash",
    "klogctl",
    "kmem",
    "ktext",
    "landlock-whiteout",
    "lost-key",
    "modstorm",
    "module-cost",
    "odd-clone",
    "packet-ring",
    "pipe-sleeper",
    "quantum",
    "raw-send",
    "read-cost",
    "sandboxed",
    "short-auxv",
    "slabsum",
    "sleepers",
    "socket",
    "tracestorm",
    "udp-disconnect",
    "vforker",
    "wait-for",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_the_last_of_their_key() {
        let lines = ["RESULT a=1", "noise", "RESULT b = x=y", "RESULT a=2"].map(str::to_owned).to_vec();
        let transcript = Transcript { case: lines, ..Transcript::default() };
        let run = Run { verdict: ConsoleVerdict::Pass, transcript, log: PathBuf::new(), took: Duration::ZERO };
        assert_eq!((run.result("a").unwrap(), run.result("b").unwrap()), ("2", "x=y"));
        assert_eq!(run.number("a").unwrap(), 2.0);
        assert!(run.result("c").is_err() && run.number("b").is_err());
    }
}
