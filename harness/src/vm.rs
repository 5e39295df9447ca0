//! One boot of a stock kernel in QEMU with a case to run; once the case has begun, nothing is retried.
//!
//! ```no_run
//! # fn f() -> anyhow::Result<()> {
//! let kernel = harness::kernels::Kernel::ensure("6.1")?;
//! let run = harness::vm::Vm::new("version", &kernel).case("result version $(uname -r)").run()?;
//! run.require_pass()?;
//! assert_eq!(run.transcript.result("version")?, kernel.release);
//! # Ok(()) }
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console::{Lines, Transcript, Verdict};
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;
use crate::{cache, cmd, guest, workspace_root};

/// Guests that run at one time on this host, all test processes together.
const SLOTS: usize = 2;
/// How long the output is followed after a fault, for the trace that comes with it.
const AFTER_FAULT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const BUSYBOX: &str = "/bin/busybox";

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
    /// With the host; two CPUs in parallel.
    Host,
    /// One instruction is one nanosecond; one CPU, and no random addresses: the same figures every run.
    Instructions,
}

/// A guest to be run.
#[derive(Clone, Debug)]
pub struct Vm {
    name: String,
    vmlinuz: PathBuf,
    files: Vec<(String, PathBuf)>,
    texts: Vec<(String, String)>,
    case: String,
    allowed: Vec<String>,
    append: String,
    clock: Clock,
    memory_mib: u32,
    silence: Duration,
    overtime: Duration,
}

/// What a guest did.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub verdict: Verdict,
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
        if self.verdict == Verdict::Pass {
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

    /// A result of the case as a number.
    pub fn number(&self, key: &str) -> Result<f64> {
        let value = self.transcript.result(key)?;
        value.parse().with_context(|| format!("RESULT {key}={value} is not a number"))
    }
}

impl Vm {
    /// A guest of a stock kernel; the name is that of the folder of its log, `target/vm/NAME`.
    pub fn new(name: &str, kernel: &Kernel) -> Self {
        Self {
            name: name.to_string(),
            vmlinuz: kernel.vmlinuz.clone(),
            files: Vec::new(),
            texts: Vec::new(),
            case: String::new(),
            allowed: Vec::new(),
            append: String::new(),
            clock: Clock::Host,
            memory_mib: 1024,
            silence: Duration::from_secs(60),
            overtime: Duration::from_secs(300),
        }
    }

    /// Boots another image.
    #[must_use]
    pub fn image(mut self, vmlinuz: impl Into<PathBuf>) -> Self {
        self.vmlinuz = vmlinuz.into();
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

    /// How guest time passes.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
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
    /// A guest that ends before PID 1 has said anything is booted once more, with a note: on a loaded host QEMU's TCG now
    /// and then loses the start of the second CPU or the timer. Once the case has begun nothing is repeated.
    pub fn run(&self) -> Result<Run> {
        let run = self.run_once()?;
        if run.verdict == Verdict::Pass || !run.transcript.case.is_empty() {
            return Ok(run);
        }
        crate::progress(format!("{}: {:?} before PID 1 started; booting once more", self.name, run.verdict));
        self.run_once()
    }

    fn run_once(&self) -> Result<Run> {
        let dir = workspace_root().join("target/vm").join(&self.name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let _named = cache::lock(&dir)?;
        let initramfs = dir.join("initramfs.cpio");
        fs::write(&initramfs, self.initramfs()?).with_context(|| format!("write {}", initramfs.display()))?;
        let _slot = cache::slot("vm", SLOTS)?;
        let (kernel, case) = (dir.join("kernel.raw"), dir.join("case.raw"));
        for file in [&kernel, &case] {
            File::create(file).with_context(|| format!("create {}", file.display()))?;
        }
        let mut qemu = self.qemu(&initramfs, &kernel, &case);
        let errors = File::create(dir.join("qemu.log"))?;
        qemu.stdout(Stdio::null()).stderr(errors);
        let started = Instant::now();
        let child = qemu.spawn().with_context(|| format!("cannot start `{}`", cmd::describe(&qemu)))?;
        let log = dir.join("console.log");
        let mut guest = Guest { child, started, transcript: Transcript::default(), log: File::create(&log)? };
        let verdict = self.follow(&mut guest, File::open(&kernel)?, File::open(&case)?)?;
        let transcript = std::mem::take(&mut guest.transcript);
        let run = Run { verdict, transcript, log, took: started.elapsed() };
        let complaint = fs::read_to_string(dir.join("qemu.log"))?;
        if run.transcript.kernel.is_empty() && run.transcript.case.is_empty() && !complaint.is_empty() {
            bail!("QEMU printed no guest output, but this:\n{complaint}");
        }
        Ok(run)
    }

    fn initramfs(&self) -> Result<Vec<u8>> {
        let mut fs = Initramfs::new();
        fs.busybox(Path::new(BUSYBOX)).context("the package busybox-static is needed")?;
        fs.copy("/init", &guest::build()?)?;
        for applet in APPLETS {
            fs.link(&format!("/bin/{applet}"), "/init");
        }
        for (path, host) in &self.files {
            fs.copy(path, host)?;
        }
        for (path, content) in &self.texts {
            fs.file(path, 0o755, content.as_bytes());
        }
        fs.file("/case.sh", 0o755, format!("{PREAMBLE}{}\n", self.case));
        fs.archive()
    }

    fn qemu(&self, initramfs: &Path, kernel: &Path, case: &Path) -> std::process::Command {
        // The guest must not outlive a test process that is killed.
        let mut c = cmd::command("setpriv");
        c.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        match self.clock {
            Clock::Host => c.args(["-accel", "tcg,thread=multi", "-smp", "2"]),
            Clock::Instructions => {
                c.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"]);
                // Random numbers and the date decide where the guest puts things, which costs an instruction here or there.
                c.args(["-seed", "1", "-rtc", "base=2024-01-01,clock=vm"])
            }
        };
        c.args(["-cpu", "max", "-m", &self.memory_mib.to_string(), "-no-reboot", "-nodefaults", "-display", "none"]);
        c.arg("-kernel").arg(&self.vmlinuz).arg("-initrd").arg(initramfs);
        let fixed =
            if self.clock == Clock::Instructions { " nokaslr norandmaps randomize_kstack_offset=off" } else { "" };
        c.arg("-append").arg(format!("console=ttyS0 quiet panic=-1{fixed}{}", self.append));
        for file in [kernel, case] {
            c.arg("-serial").arg(format!("file:{}", file.display()));
        }
        c
    }

    /// Polls both outputs until the guest ends or has to be stopped.
    fn follow(&self, guest: &mut Guest, mut kernel: File, mut case: File) -> Result<Verdict> {
        let (mut kernel_lines, mut case_lines) = (Lines::default(), Lines::default());
        let mut last_output = Instant::now();
        let mut stop_at: Option<Instant> = None;
        loop {
            // Asked before reading, so that what the guest printed last is read as well.
            let ended = guest.child.try_wait().context("wait for QEMU")?.is_some();
            let (k, c) = (rest(&mut kernel)?, rest(&mut case)?);
            if !k.is_empty() || !c.is_empty() {
                last_output = Instant::now();
            }
            let mut k_lines = kernel_lines.push(&k);
            let mut c_lines = case_lines.push(&c);
            if ended {
                k_lines.extend(kernel_lines.finish());
                c_lines.extend(case_lines.finish());
            }
            for line in k_lines {
                writeln!(guest.log, "k| {line}")?;
                guest.transcript.kernel_line(&line, &self.allowed);
            }
            for line in c_lines {
                writeln!(guest.log, "c| {line}")?;
                guest.transcript.case_line(&line);
            }
            if ended {
                return Ok(guest.transcript.verdict());
            }
            if guest.transcript.fault.is_some() && stop_at.is_none() {
                stop_at = Some(Instant::now() + AFTER_FAULT);
            }
            if stop_at.is_some_and(|t| Instant::now() >= t) {
                guest.stop()?;
                return Ok(guest.transcript.verdict());
            }
            if last_output.elapsed() >= self.silence {
                guest.stop()?;
                return Ok(Verdict::Silent(self.silence));
            }
            if guest.started.elapsed() >= self.overtime {
                guest.stop()?;
                return Ok(Verdict::Overtime(self.overtime));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Helper programs of `tests/guest`, found in the guest's PATH under these names.
pub const APPLETS: &[&str] = &[
    "cycle",
    "faulting-getdents",
    "faulting-usercopy",
    "hammer",
    "klogctl",
    "kmem",
    "ktext",
    "pipe-sleeper",
    "read-cost",
    "short-auxv",
    "slabsum",
    "wait-for",
];

fn rest(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("read the guest's output")?;
    Ok(bytes)
}

/// A running QEMU; stopped when dropped.
struct Guest {
    child: Child,
    started: Instant,
    transcript: Transcript,
    log: File,
}

impl Guest {
    fn stop(&mut self) -> Result<()> {
        self.child.kill().context("stop QEMU")?;
        self.child.wait().context("wait for QEMU")?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Already ended in the usual case; after an error on the host side nothing more can be done about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
