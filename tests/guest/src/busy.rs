//! Load for a patched function: reading in a loop, sleeping in a read, loading and unloading.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::exactly;

/// One thread per CPU, each pinned to its own.
pub fn hammer(args: &[String]) -> Result<()> {
    let [file, time, texts @ ..] = args else { bail!("usage: hammer FILE SECONDS|forever [TEXT..]") };
    let end = match time.as_str() {
        "forever" => None,
        seconds => Some(Instant::now() + Duration::from_secs_f64(seconds.parse().context("SECONDS")?)),
    };
    let stop = AtomicBool::new(false);
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|c| allowed.is_set(*c)).collect();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|cpu| scope.spawn(|| pound(*cpu, file, texts, end, &stop))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect::<Result<Vec<_>>>()
    })?;
    println!("RESULT hammered={}", counts.iter().sum::<u64>());
    Ok(())
}

fn pound(cpu: usize, file: &str, texts: &[String], end: Option<Instant>, stop: &AtomicBool) -> Result<u64> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("pin to CPU {cpu}"))?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) && end.is_none_or(|e| Instant::now() < e) {
        let read = fs::read_to_string(file).with_context(|| format!("read {file}"));
        let wrong = |t: &String| !texts.is_empty() && !texts.iter().any(|x| t.contains(x.as_str()));
        match read {
            Ok(text) if !wrong(&text) => count += 1,
            read => {
                stop.store(true, Ordering::Relaxed);
                bail!("read {count} on CPU {cpu}: {:?} holds none of {texts:?}", read?);
            }
        }
    }
    Ok(count)
}

/// Opened for reading and writing, so that only the read sleeps, not the open.
pub fn pipe_sleeper(args: &[String]) -> Result<()> {
    let [fifo] = exactly(args, "pipe-sleeper FIFO")?;
    let mut file = File::options().read(true).write(true).open(fifo).with_context(|| fifo.to_string())?;
    let mut buffer = [0; 4096];
    let n = file.read(&mut buffer).with_context(|| format!("read {fifo}"))?;
    println!("RESULT fed={}", String::from_utf8_lossy(&buffer[..n]).trim());
    Ok(())
}

/// Prints how far it came also when it fails.
pub fn cycle(args: &[String]) -> Result<()> {
    let [n, lpbuild, ko, name, options @ ..] = args else { bail!("usage: cycle N LPBUILD KO NAME [OPTION..]") };
    let n: u32 = n.parse().context("N")?;
    let started = Instant::now();
    for i in 0..n {
        for arguments in [["load", ko.as_str()], ["unload", name.as_str()]] {
            let out = Command::new(lpbuild)
                .args(arguments)
                .args(options)
                .output()
                .with_context(|| format!("start {lpbuild}"))?;
            if !out.status.success() {
                println!("RESULT cycles={i}");
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                bail!("cycle {i}, {arguments:?}: {}\n{}{}", out.status, text(&out.stdout), text(&out.stderr));
            }
        }
        if i % 20 == 19 {
            println!("cycle: {} of {n}", i + 1);
        }
    }
    println!("RESULT cycles={n}");
    println!("RESULT cycle_ms={:.1}", started.elapsed().as_secs_f64() * 1e3 / f64::from(n.max(1)));
    Ok(())
}
