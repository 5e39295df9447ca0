//! PID 1: mounts, runs the case, prints one verdict, powers off.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

/// The case's output; the kernel log has the first serial line for itself.
const OUTPUT: &str = "/dev/ttyS1";

const CASE: &str = "/case.sh";
/// What a guest without a case prints: the host keeps it at this point, and runs cases from there.
const WAITING: &str = "LPBUILD-GUEST: waiting";
/// The kernel's symbols, without those of modules, for cases that have them read often: the kernel writes each line anew, which
/// costs an emulated guest more than a load.
pub const SYMBOLS: &str = "/run/kallsyms";
/// Before the archive in the memory shared with the host; the length of the archive follows, 8 bytes, the low first.
const READY: [u8; 8] = *b"LPB-CASE";

/// Never returns: the guest is off or, should even that fail, idle until the host's limit.
pub fn main() -> ! {
    let verdict = match case() {
        Ok(None) => "PASS".to_string(),
        Ok(Some(reason)) => format!("FAIL {reason}"),
        Err(e) => format!("FAIL PID 1: {e:#}"),
    };
    let line = format!("LPBUILD-VERDICT: {}\n", verdict.replace('\n', " "));
    let printed = File::options().write(true).open(OUTPUT).and_then(|mut tty| {
        tty.write_all(line.as_bytes())?;
        rustix::termios::tcdrain(&tty).map_err(Into::into)
    });
    if let Err(e) = printed {
        eprintln!("PID 1: {OUTPUT}: {e}");
    }
    // A kernel without PCI cannot switch off and would halt; QEMU is told to end when the guest restarts.
    let end = if Path::new("/sys/bus/pci").exists() { RebootCommand::PowerOff } else { RebootCommand::Restart };
    if let Err(e) = reboot(end) {
        eprintln!("PID 1: power off: {e}");
    }
    loop {
        std::thread::park();
    }
}

/// Nothing when the case succeeded, else the reason.
fn case() -> Result<Option<String>> {
    let at = |kind: &str, target: &str| mount(kind, target, kind, MountFlags::empty(), None);
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]
    {
        at(kind, target).with_context(|| format!("mount {kind} on {target}"))?;
    }
    // A kernel without tracers makes no folder for theirs.
    for (kind, target) in [("debugfs", "/sys/kernel/debug"), ("tracefs", "/sys/kernel/tracing")] {
        if Path::new(target).exists() {
            at(kind, target).with_context(|| format!("mount {kind} on {target}"))?;
        }
    }
    fs::write("/proc/sys/kernel/printk", "7").context("show kernel messages")?;
    let mut output = File::options().write(true).open(OUTPUT).with_context(|| OUTPUT.to_string())?;
    if !Path::new(CASE).exists() {
        fs::copy("/proc/kallsyms", SYMBOLS).context(SYMBOLS)?;
        writeln!(output, "{WAITING}").with_context(|| OUTPUT.to_string())?;
        unpack(shared_memory()?)?;
    }
    // The host tells a guest that never got here from a silent case.
    writeln!(output, "LPBUILD-GUEST: up").with_context(|| OUTPUT.to_string())?;
    let case = Command::new("/bin/busybox")
        .args(["sh", CASE])
        .env_clear()
        .envs([("PATH", "/bin:/sbin"), ("HOME", "/root"), ("TERM", "dumb")])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("start the case")?;
    // All children are reaped: processes the case leaves behind come to PID 1.
    let status = loop {
        match wait(WaitOptions::empty()).context("wait for the case")? {
            Some((pid, status)) if pid.as_raw_nonzero().get() as u32 == case.id() => break status,
            _ => {}
        }
    };
    if status.exit_status() == Some(0) {
        return Ok(None);
    }
    let said = fs::read_to_string(Path::new("/run/reason")).ok();
    Ok(Some(match (said, status.exit_status(), status.terminating_signal()) {
        (Some(reason), ..) => reason.trim().to_string(),
        (None, Some(code), _) => format!("the case exited with status {code}"),
        (None, None, signal) => format!("the case was ended by signal {}", signal.unwrap_or_default()),
    }))
}

/// Where in physical memory the case will be, and how long that is: `lpbuild_case=960M-1024M` of the kernel's parameters.
/// The kernel knows nothing of this memory.
fn shared_memory() -> Result<(u64, usize)> {
    let parameters = fs::read_to_string("/proc/cmdline").context("read the kernel's parameters")?;
    let range = parameters.split_whitespace().find_map(|p| p.strip_prefix("lpbuild_case="));
    let ends =
        range.and_then(|r| r.split_once('-')).with_context(|| format!("there is no {CASE}, nor a place for it"))?;
    let bytes = |end: &str| end.strip_suffix('M').and_then(|n| n.parse::<u64>().ok()).map(|n| n << 20);
    let (Some(from), Some(to)) = (bytes(ends.0), bytes(ends.1)) else { bail!("{ends:?} are no sizes") };
    Ok((from, usize::try_from(to.saturating_sub(from))?))
}

/// Waits for the archive of the case's files and unpacks it.
fn unpack((from, size): (u64, usize)) -> Result<()> {
    let file = File::open("/dev/mem").context("open the memory")?;
    let (fd, from) = (file.as_raw_fd(), libc::off_t::try_from(from)?);
    // SAFETY: a new mapping, which stays until the guest ends.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd, from) };
    ensure!(start != libc::MAP_FAILED, "map the shared memory: {}", io::Error::last_os_error());
    let start = start.cast::<u8>();
    let read = |from: usize, to: &mut [u8]| {
        // SAFETY: the callers stay within the mapping; the host writes nothing after READY.
        unsafe { std::ptr::copy_nonoverlapping(start.add(from), to.as_mut_ptr(), to.len()) };
    };
    let mut head = [0; 8];
    loop {
        read(0, &mut head);
        if head == READY {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    read(8, &mut head);
    let length = usize::try_from(u64::from_le_bytes(head))?;
    ensure!(length <= size - 16, "the archive ends behind the shared memory");
    let mut archive = vec![0; length];
    read(16, &mut archive);
    let mut cpio = Command::new("/bin/busybox");
    cpio.args(["cpio", "-idu"]).current_dir("/").stdin(Stdio::piped()).stderr(Stdio::null());
    let mut cpio = cpio.spawn().context("start cpio")?;
    cpio.stdin.take().context("cpio has an input")?.write_all(&archive).context("unpack the case")?;
    ensure!(cpio.wait()?.success(), "the case could not be unpacked");
    Ok(())
}
