//! Looking at the kernel from user space: a faulting copy, the cost of a call, memory in use, a state to wait for.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exactly;

/// The last page below the kernel's half is never mapped.
pub const BAD_POINTER: usize = 0x7fff_ffff_e000;

/// Prints `errno=0` with the count when the kernel copied all the same.
pub fn faulting_usercopy(args: &[String]) -> Result<()> {
    let [path, action] = exactly(args, "faulting-usercopy FILE read|write")?;
    let file =
        File::options().read(action == "read").write(action == "write").open(path).with_context(|| path.to_string())?;
    let fd = file.as_raw_fd();
    let returned = match action {
        // SAFETY: the kernel checks the pointer itself and nothing is mapped there, so no memory of ours is written.
        "read" => unsafe { libc::read(fd, BAD_POINTER as *mut libc::c_void, 64) },
        // SAFETY: as above; the kernel only reads through the pointer.
        "write" => unsafe { libc::write(fd, BAD_POINTER as *const libc::c_void, 64) },
        other => bail!("{other:?} is neither read nor write"),
    };
    let errno = if returned < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
    println!("RESULT returned={returned}");
    println!("RESULT errno={errno}");
    Ok(())
}

/// Under `-icount` one nanosecond is one instruction. The least of ten rounds counts: a timer tick may hit the others.
pub fn read_cost(args: &[String]) -> Result<()> {
    let [path, n] = exactly(args, "read-cost FILE N")?;
    let n: u32 = n.parse().context("N")?;
    let file = File::open(path).with_context(|| path.to_string())?;
    let mut buffer = [0; 4096];
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let started = Instant::now();
        for _ in 0..n {
            file.read_at(&mut buffer, 0).with_context(|| format!("read {path}"))?;
        }
        least = least.min(started.elapsed().as_nanos() as f64 / f64::from(n.max(1)));
    }
    println!("RESULT ns_per_read={least:.3}");
    Ok(())
}

/// The sum over /proc/slabinfo, and what /proc/meminfo says.
pub fn slabsum(args: &[String]) -> Result<()> {
    let prefix = match args {
        [] => String::new(),
        [prefix] => format!("{prefix}_"),
        _ => bail!("usage: slabsum [PREFIX]"),
    };
    let info = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let mut bytes = 0;
    for line in info.lines().skip(2) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
        bytes += number(1).zip(number(3)).map_or(0, |(active, size)| active * size);
    }
    println!("RESULT {prefix}slab_active_kb={}", bytes / 1024);
    let info = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    for (field, key) in [("Slab:", "slab_kb"), ("MemAvailable:", "available_kb"), ("VmallocUsed:", "vmalloc_kb")] {
        let value = info.lines().find_map(|l| l.strip_prefix(field)).with_context(|| format!("no {field}"))?;
        println!("RESULT {prefix}{key}={}", value.trim().trim_end_matches(" kB"));
    }
    Ok(())
}

/// Fails with what the file held last.
pub fn wait_for(args: &[String]) -> Result<()> {
    let [path, text, seconds] = exactly(args, "wait-for FILE TEXT SECONDS")?;
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse().context("SECONDS")?);
    loop {
        let content = fs::read_to_string(path);
        if content.as_ref().is_ok_and(|c| c.contains(text)) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("{path} does not contain {text:?} after {seconds} s: {content:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The files are looked at every millisecond; five minutes are too long.
pub fn elapsed(args: &[String]) -> Result<()> {
    let [file, part, path, text, command, args @ ..] = args else {
        bail!("usage: elapsed FILE PART STATE TEXT COMMAND..")
    };
    let started = Instant::now();
    let mut child = Command::new(command).args(args).stdout(Stdio::null()).spawn().with_context(|| command.clone())?;
    let (mut ended, mut effect) = (false, None);
    let now = || started.elapsed().as_secs_f64() * 1e3;
    loop {
        if effect.is_none() && fs::read_to_string(file).is_ok_and(|c| c.contains(part)) {
            effect = Some(now());
        }
        if !ended && let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{command} {args:?}: {status}");
            }
            ended = true;
        }
        if ended && fs::read_to_string(path).is_ok_and(|c| c.trim_end() == text) {
            break;
        }
        if started.elapsed() > Duration::from_secs(300) {
            bail!("{path} is not {text:?} after five minutes: {:?}", fs::read_to_string(path));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = now();
    println!("RESULT effect_ms={:.1}", effect.with_context(|| format!("{file} never held {part:?}"))?);
    println!("RESULT elapsed_ms={ended:.1}");
    Ok(())
}

/// The least, since some of them wait for others: the init of a module for a grace period, say.
pub fn module_cost(args: &[String]) -> Result<()> {
    let [ko, name, rounds] = exactly(args, "module-cost KO NAME N")?;
    let (file, n) = (File::open(ko).with_context(|| ko.to_owned())?, rounds.parse::<usize>().context("N")?);
    let name = std::ffi::CString::new(name)?;
    let mut all = Vec::new();
    for _ in 0..n {
        let started = Instant::now();
        rustix::system::finit_module(&file, c"", 0).with_context(|| format!("load {ko}"))?;
        all.push(started.elapsed().as_nanos());
        rustix::system::delete_module(&name, libc::O_NONBLOCK).context("remove it")?;
    }
    println!("RESULT module_ns={}", all.iter().min().copied().unwrap_or_default());
    Ok(())
}
