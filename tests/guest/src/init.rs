//! PID 1: mounts, runs the case, prints one verdict, powers off.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

/// The case's output; the kernel log has the first serial line for itself.
const OUTPUT: &str = "/dev/ttyS1";

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
    // The host tells a guest that never got here from a silent case.
    writeln!(output, "LPBUILD-GUEST: up").with_context(|| OUTPUT.to_string())?;
    let case = Command::new("/bin/busybox")
        .args(["sh", "/case.sh"])
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
