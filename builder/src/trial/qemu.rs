//! One boot of a kernel image in QEMU, followed to its end.
//!
//! Input: a [`Machine`] and a folder for its files. Output: [`End`]: the verdict and everything the guest printed, and the
//! log. The guest is stopped when it is silent or runs for too long, a moment after a fault, and when this process is
//! asked to end; it never outlives this process. Refused: a QEMU that cannot be started or prints nothing but a complaint
//! (LP6402), files that cannot be written (LP6405).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::console::{ConsoleVerdict, Lines, Transcript};
use super::kvm;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::{interrupt, tool};

/// How long the output is followed after a fault, for the trace that comes with it.
const AFTER_FAULT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor where this user may use KVM, else emulation.
    Any,
    /// Emulation, with a thread for each CPU where QEMU can be trusted with that ([`has_threads`]).
    Emulated,
    /// Emulation, one thread for all CPUs.
    Turns,
    /// Emulation of one CPU where an instruction takes one nanosecond, without random addresses: the same figures every
    /// run.
    Counted,
}

/// The first version of QEMU whose emulated CPUs get a thread each. With a thread for each, QEMU 7.2 now and then executes a
/// breakpoint that is long gone from memory, and the kernel dies of it, whoever changes the code; QEMU 10.0 never did in
/// millions of calls of functions that came and went. CPUs of older ones take turns in one thread.
pub const THREADS_SINCE: (u32, u32) = (8, 1);

/// Whether this QEMU is new enough for a thread per emulated CPU; one that does not say its version is not.
pub fn has_threads(qemu: &Path) -> bool {
    version_of(qemu).is_some_and(|v| v >= THREADS_SINCE)
}

/// Major and minor version, if it says so.
pub fn version_of(qemu: &Path) -> Option<(u32, u32)> {
    let said = Command::new(qemu).arg("--version").env("LC_ALL", "C").stdin(Stdio::null()).output().ok()?;
    version(&String::from_utf8_lossy(&said.stdout))
}

/// `QEMU emulator version 10.0.2 (Debian ..)`
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once(" version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A guest.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulator.
    pub qemu: PathBuf,
    /// The kernel.
    pub image: PathBuf,
    /// Content of its initramfs.
    pub initramfs: Vec<u8>,
    /// How it is run.
    pub accel: Accel,
    /// Number of CPUs; one with [`Accel::Counted`].
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// More kernel parameters.
    pub append: String,
    /// Lines of the kernel log with one of these texts are no faults.
    pub allowed: Vec<String>,
    /// Stops the guest after this long.
    pub overtime: Duration,
    /// More arguments for the emulator.
    pub extra: Vec<String>,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The kernel log.
    Kernel,
    /// PID 1 and its programs.
    Case,
}

/// Sees every line when it is read.
pub trait Watch {
    /// A line, without its end.
    fn line(&mut self, source: ImageSource, line: &str);
    /// The guest is stopped when it prints nothing for this long, as things stand.
    fn silence(&self) -> Duration;
}

/// How a guest ended.
#[derive(Clone, Debug)]
pub struct End {
    /// What it comes to.
    pub verdict: ConsoleVerdict,
    /// What it printed, by source.
    pub transcript: Transcript,
    /// From the start of QEMU to its end.
    pub took: Duration,
    /// Whether instructions were emulated.
    pub emulated: bool,
}

impl Machine {
    /// Boots. `dir` takes the working files; the log goes to `log`: kernel lines begin with `k| `, others with `c| `, in
    /// the order they were read.
    pub fn boot(&self, dir: &Path, log: &Path, watch: &mut dyn Watch) -> Result<End> {
        let initramfs = dir.join("initramfs.cpio");
        fs::write(&initramfs, &self.initramfs).map_err(|e| unwritable(&initramfs, &e))?;
        let (kernel, case, complaints) = (dir.join("kernel.raw"), dir.join("case.raw"), dir.join("qemu.log"));
        for file in [&kernel, &case] {
            File::create(file).map_err(|e| unwritable(file, &e))?;
        }
        let errors = File::create(&complaints).map_err(|e| unwritable(&complaints, &e))?;
        let emulated = self.emulated();
        let threads = matches!(self.accel, Accel::Any | Accel::Emulated) && has_threads(&self.qemu);
        let mut qemu = self.command(emulated, threads, &initramfs, [&kernel, &case]);
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let log_file = File::create(log).map_err(|e| unwritable(log, &e))?;
        let started = Instant::now();
        let child = qemu.spawn().map_err(|e| {
            let place = Place::object(self.qemu.display().to_string());
            Error::new(codes::LP6402, place, format!("cannot be started: {e}"))
        })?;
        let mut guest = Guest { child, started, transcript: Transcript::default(), log: log_file, log_path: log };
        let open = |path: &Path| File::open(path).map_err(|e| unwritable(path, &e));
        let verdict = self.follow(&mut guest, open(&kernel)?, open(&case)?, watch)?;
        let transcript = std::mem::take(&mut guest.transcript);
        let complaint = fs::read_to_string(&complaints).unwrap_or_default();
        if transcript.kernel.is_empty() && transcript.case.is_empty() && !complaint.trim().is_empty() {
            let place = Place::object(self.qemu.display().to_string());
            return Err(Error::new(codes::LP6402, place, format!("no guest output, but this: {}", complaint.trim())));
        }
        let emulated = emulated || complaint.contains("falling back to tcg");
        Ok(End { verdict, transcript, took: started.elapsed(), emulated })
    }

    /// Whether instructions will be emulated, as far as can be said before QEMU is asked.
    pub fn emulated(&self) -> bool {
        self.accel != Accel::Any || !kvm::usable()
    }

    fn command(&self, emulated: bool, threads: bool, initramfs: &Path, serial: [&Path; 2]) -> Command {
        // The guest must not outlive a process that is killed.
        let mut c = match tool::find("setpriv") {
            Ok(setpriv) => {
                let mut c = Command::new(setpriv);
                c.args(["--pdeathsig", "KILL"]).arg(&self.qemu);
                c
            }
            Err(_) => Command::new(&self.qemu),
        };
        // Ctrl-C at a terminal is for this process, which then stops the guest.
        c.env("LC_ALL", "C").process_group(0);
        let counted = self.accel == Accel::Counted;
        let emulation = if threads { "tcg,thread=multi" } else { "tcg,thread=single" };
        match (counted, emulated) {
            (true, _) => {
                c.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
                // Random numbers and the date decide where the guest puts things, which costs an instruction here or there.
                c.args(["-seed", "1", "-rtc", "base=2024-01-01,clock=vm"])
            }
            (false, true) => c.args(["-accel", emulation]),
            (false, false) => c.args(["-accel", "kvm", "-accel", emulation]),
        };
        let cpus = if counted { 1 } else { self.cpus };
        c.args(["-cpu", "max", "-smp", &cpus.to_string(), "-m", &self.memory_mib.to_string()]);
        c.args(["-no-reboot", "-nodefaults", "-display", "none"]);
        c.arg("-kernel").arg(&self.image).arg("-initrd").arg(initramfs);
        let fixed = if counted { " nokaslr norandmaps randomize_kstack_offset=off" } else { "" };
        let append = self.append.trim();
        let space = if append.is_empty() { "" } else { " " };
        // An emulated CPU of a loaded host may get too few ticks of the timer while the kernel counts them, which then panics
        // (timer_irq_works, arch/x86/kernel/apic/io_apic.c). Under KVM the kernel does not count them anyway.
        c.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 no_timer_check{fixed}{space}{append}"));
        for file in serial {
            // A comma in a path begins the next option, unless it is doubled.
            c.arg("-serial").arg(format!("file:{}", file.display().to_string().replace(',', ",,")));
        }
        c.args(&self.extra);
        c
    }

    /// Polls both outputs until the guest ends or has to be stopped.
    fn follow(
        &self,
        guest: &mut Guest<'_>,
        mut kernel: File,
        mut case: File,
        watch: &mut dyn Watch,
    ) -> Result<ConsoleVerdict> {
        let (mut kernel_lines, mut case_lines) = (Lines::default(), Lines::default());
        let mut last_output = Instant::now();
        let mut stop_at: Option<Instant> = None;
        loop {
            // Asked before reading, so that what the guest printed last is read as well.
            let ended = guest.child.try_wait().map_err(|e| host(&e))?.is_some();
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
                guest.logged(&format!("k| {line}\n"))?;
                guest.transcript.kernel_line(&line, &self.allowed);
                watch.line(ImageSource::Kernel, &line);
            }
            for line in c_lines {
                guest.logged(&format!("c| {line}\n"))?;
                guest.transcript.case_line(&line);
                watch.line(ImageSource::Case, &line);
            }
            if ended {
                return Ok(guest.transcript.verdict());
            }
            if interrupt::requested() {
                guest.stop()?;
                return Err(Error::new(codes::LP6413, Place::default(), "the guest was stopped"));
            }
            if guest.transcript.fault.is_some() && stop_at.is_none() {
                stop_at = Some(Instant::now() + AFTER_FAULT);
            }
            if stop_at.is_some_and(|t| Instant::now() >= t) {
                guest.stop()?;
                return Ok(guest.transcript.verdict());
            }
            let silence = watch.silence();
            if last_output.elapsed() >= silence {
                guest.stop()?;
                return Ok(ConsoleVerdict::Silent(silence));
            }
            if guest.started.elapsed() >= self.overtime {
                guest.stop()?;
                return Ok(ConsoleVerdict::Overtime(self.overtime));
            }
            std::thread::sleep(POLL);
        }
    }
}

fn rest(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| host(&e))?;
    Ok(bytes)
}

fn host(e: &std::io::Error) -> Error {
    Error::io_at(Place::object("the guest's process and output"), e)
}

/// A file of the trial that could not be made.
pub(super) fn unwritable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(codes::LP6405, Place::object(path.display().to_string()), e.to_string())
}

/// A running QEMU; stopped when dropped.
struct Guest<'a> {
    child: Child,
    started: Instant,
    transcript: Transcript,
    log: File,
    log_path: &'a Path,
}

impl Guest<'_> {
    fn logged(&mut self, line: &str) -> Result<()> {
        self.log.write_all(line.as_bytes()).map_err(|e| unwritable(self.log_path, &e))
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill().map_err(|e| host(&e))?;
        self.child.wait().map_err(|e| host(&e))?;
        Ok(())
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // Already ended in the usual case; after an error on the host side nothing more can be done about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(accel: Accel, emulated: bool, threads: bool) -> Vec<String> {
        let machine = Machine {
            qemu: "qemu".into(),
            image: "vmlinuz".into(),
            initramfs: Vec::new(),
            accel,
            cpus: 2,
            memory_mib: 512,
            append: "preempt=full".into(),
            allowed: Vec::new(),
            overtime: Duration::ZERO,
            extra: Vec::new(),
        };
        let c = machine.command(emulated, threads, Path::new("i"), [Path::new("k"), Path::new("c")]);
        c.get_args().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_kernel_does_not_count_ticks() {
        for (accel, emulated) in [(Accel::Any, false), (Accel::Any, true), (Accel::Counted, true)] {
            let args = arguments(accel, emulated, true);
            let at = args.iter().position(|a| a == "-append").unwrap();
            assert!(args[at + 1].split(' ').any(|p| p == "no_timer_check"), "{args:?}");
            assert!(args[at + 1].ends_with(" preempt=full"), "what the user says comes last: {args:?}");
        }
    }

    #[test]
    fn cpus_have_threads_where_qemu_is_new_enough_and_instructions_are_not_counted() {
        let said = |v: &str| version(&format!("QEMU emulator version {v}\nCopyright (c) 2003-2025\n"));
        for (text, threads) in [("7.2.22 (Debian 1:7.2)", false), ("8.0.5", false), ("8.1.0", true), ("10.0.2", true)] {
            assert_eq!(said(text).unwrap() >= THREADS_SINCE, threads, "{text}");
        }
        assert_eq!(version("what?"), None);
        let has = |args: &[String], what: &str| args.iter().any(|a| a == what);
        let all = |accel, threads| arguments(accel, true, threads);
        assert!(has(&all(Accel::Emulated, true), "tcg,thread=multi"));
        assert!(has(&all(Accel::Emulated, false), "tcg,thread=single"));
        assert!(has(&all(Accel::Counted, true), "tcg,thread=single"), "the figures would not be the same every run");
        assert!(has(&arguments(Accel::Any, false, true), "tcg,thread=multi"), "what KVM falls back on");
    }
}
