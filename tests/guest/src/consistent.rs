//! Whether one system call runs one version: a file made by several replaced functions is read, and each piece looked at.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

use crate::storms::{Limit, child, reap};

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    old: u64,
    new: u64,
    mixed: u64,
}

/// One process per CPU reads FILE, each time in one pread(2). A read is old when every piece has its OLD text and none its
/// NEW one, new the other way round, and mixed otherwise; the first mixed one is shown.
pub fn consistent(args: &[String]) -> Result<()> {
    let [path, time, pieces @ ..] = args else { bail!("usage: consistent FILE SECONDS|@FILE OLD=NEW..") };
    let split = |p: &String| p.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let pieces: Vec<(String, String)> = pieces.iter().map(split).collect::<Option<_>>().context("OLD=NEW")?;
    let file = File::open(path).with_context(|| path.clone())?;
    let cpus = std::thread::available_parallelism()?.get();
    let (mut pids, mut pipes) = (Vec::new(), Vec::new());
    for _ in 0..cpus {
        let (from, to) = std::io::pipe().context("pipe")?;
        pids.push(child(|| {
            let counts = look(&file, &Limit::parse(time)?, &pieces)?;
            use std::io::Write;
            let mut to = &to;
            write!(to, "{} {} {}", counts.old, counts.new, counts.mixed).context("pipe")
        })?);
        pipes.push(from);
        drop(to);
    }
    let mut sum = Counts::default();
    for (pid, from) in pids.into_iter().zip(pipes) {
        // Not asleep in read(2) of the pipe, which may be what is being replaced.
        if reap(pid)? != 0 {
            bail!("a reader failed");
        }
        let text = std::io::read_to_string(from)?;
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().context(text.clone())?;
        let [old, new, mixed] = numbers[..] else { bail!("a reader said {text:?}") };
        sum = Counts { old: sum.old + old, new: sum.new + new, mixed: sum.mixed + mixed };
    }
    println!("RESULT old={}", sum.old);
    println!("RESULT new={}", sum.new);
    println!("RESULT mixed={}", sum.mixed);
    Ok(())
}

fn look(file: &File, limit: &Limit, pieces: &[(String, String)]) -> Result<Counts> {
    let mut buffer = [0; 8192];
    let mut counts = Counts::default();
    while !limit.passed() {
        let n = file.read_at(&mut buffer, 0).context("read")?;
        let text = String::from_utf8_lossy(&buffer[..n]);
        let old = pieces.iter().filter(|(old, _)| text.contains(old.as_str())).count();
        let new = pieces.iter().filter(|(_, new)| text.contains(new.as_str())).count();
        match (old, new) {
            (o, 0) if o == pieces.len() => counts.old += 1,
            (0, n) if n == pieces.len() => counts.new += 1,
            _ => {
                if counts.mixed == 0 {
                    eprintln!("mixed: {old} pieces are old, {new} new:\n{text}");
                }
                counts.mixed += 1;
            }
        }
    }
    Ok(counts)
}
