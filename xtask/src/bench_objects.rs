//! The object part of `cargo xtask bench`: what `lpbuild diff OLD.o NEW.o -o DIR` costs, on objects of the prepared tree.
//!
//! Input: the tree and the program. Output: for large pairs the speed of each phase, and for those and a set of small pairs, each its
//! own process, time, CPU time, page faults and instructions; with debug information and without. The objects differ in one function, the
//! middle one of the file, which got an instruction more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::change::Change;
use harness::cmd;
use harness::tree::{Flags, Tree};
use lpbuild::source::kbuild::ObjectPart;
use serde_json::Value;

/// An object of 1.2 MB with debug information, and the biggest the tests use.
const LARGE: &[&str] = &["kernel/signal.c", "net/core/dev.c"];
/// Folders whose objects make the set.
const FOLDERS: &[&str] = &["fs/proc/", "ipc/", "kernel/time/", "kernel/locking/", "kernel/sched/", "lib/", "mm/"];
/// How many they are.
const SET: usize = 55;
/// How often everything is measured; the best counts.
const RUNS: usize = 7;

/// Old and new.
type Files = (PathBuf, PathBuf);

pub fn run(tree: &Tree, lpbuild: &Path) -> Result<()> {
    let bench = Bench { lpbuild, temp: tempfile::tempdir()?, counter: Counter::find() };
    println!("instructions: {}", bench.counter.describe());
    for source in LARGE {
        let pair = pair(tree, source)?.with_context(|| format!("{source} does not compile with its change"))?;
        bench.one(source, &pair)?;
        bench.one(&format!("{source} without debug information"), &bench.stripped(&pair)?)?;
    }
    let mut set = Vec::new();
    for source in sources(tree) {
        if set.len() < SET {
            set.extend(pair(tree, &source)?);
        }
    }
    bench.all("with debug information", &set)?;
    let plain = set.iter().map(|pair| bench.stripped(pair)).collect::<Result<Vec<_>>>()?;
    bench.all("without debug information", &plain)
}

/// Sources of the folders, in order.
fn sources(tree: &Tree) -> Vec<String> {
    let own = tree.layout().objects.iter().filter(|(_, part)| **part == ObjectPart::Builtin).map(|(name, _)| name);
    let sources = own.filter_map(|o| Some(format!("{}.c", o.strip_suffix(".o")?)));
    let found: Vec<String> = sources.filter(|s| tree.source.join(s).is_file()).collect();
    let below = |folder: &'static str| {
        let own = move |s: &&String| s.strip_prefix(folder).is_some_and(|rest| !rest.contains('/'));
        found.iter().filter(own).cloned()
    };
    FOLDERS.iter().flat_map(|folder| below(folder)).collect()
}

/// Both builds of the object of a source; nothing when there is no function to change, or the compiler does not take it.
fn pair(tree: &Tree, source: &str) -> Result<Option<Files>> {
    let text = fs::read(tree.source.join(source)).with_context(|| format!("read {source}"))?;
    // As the kernel writes functions, and only them.
    let bodies: Vec<usize> =
        text.windows(4).enumerate().filter(|(_, w)| w == b")\n{\n").map(|(at, _)| at + 4).collect();
    let Some(at) = bodies.get(bodies.len() / 2) else { return Ok(None) };
    let changed = [&text[..*at], b"\tasm volatile(\"nop\");\n", &text[*at..]].concat();
    match tree.pair(&Change::none().file(source, changed), Flags::Plain) {
        Ok(pair) => Ok(pair.objects.first().map(|object| pair.files(object))),
        Err(_) => Ok(None),
    }
}

fn size((old, new): &Files) -> Result<u64> {
    Ok(fs::metadata(old)?.len() + fs::metadata(new)?.len())
}

/// Who counts instructions here.
enum Counter {
    /// The CPU.
    Perf,
    /// The instructions of the program alone; one without SHA extensions, so that digests count for more than they cost.
    Callgrind,
    Nobody,
}

impl Counter {
    fn find() -> Self {
        let mut perf = cmd::command("perf");
        let counts = perf.args(["stat", "-x,", "-e", "instructions:u", "true"]).output();
        if counts.is_ok_and(|o| count(&String::from_utf8_lossy(&o.stderr), "instructions").is_some()) {
            return Self::Perf;
        }
        if cmd::found("valgrind") { Self::Callgrind } else { Self::Nobody }
    }

    fn describe(&self) -> &'static str {
        match self {
            Self::Perf => "counted by the CPU (perf stat), user space",
            Self::Callgrind => "counted by valgrind, whose CPU has no SHA instructions",
            Self::Nobody => "not counted: there is neither perf with counters nor valgrind",
        }
    }

    fn instructions(&self, program: &Path, args: &[&Path]) -> Result<Option<f64>> {
        match self {
            Self::Perf => {
                let mut c = cmd::command("perf");
                c.args(["stat", "-x,", "-e", "instructions:u", "--"]).arg(program).args(args);
                Ok(count(&String::from_utf8_lossy(&c.output()?.stderr), "instructions"))
            }
            Self::Callgrind => {
                let mut c = cmd::command("valgrind");
                c.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args(args);
                let said = c.output()?.stderr;
                let said = String::from_utf8_lossy(&said);
                let line = said.lines().find_map(|l| l.split_once("Collected : "));
                Ok(line.and_then(|(_, number)| number.trim().parse().ok()))
            }
            Self::Nobody => Ok(None),
        }
    }
}

/// The number of an event in what `perf stat -x,` says.
fn count(said: &str, event: &str) -> Option<f64> {
    said.lines().find(|l| l.contains(event))?.split(',').next()?.parse().ok()
}

struct Bench<'b> {
    lpbuild: &'b Path,
    temp: tempfile::TempDir,
    counter: Counter,
}

impl Bench<'_> {
    /// Copies without debug information.
    fn stripped(&self, (old, new): &Files) -> Result<Files> {
        let name = new.file_name().context("an object has a name")?;
        let mut out = Vec::new();
        for file in [old, new] {
            let folder = tempfile::tempdir_in(self.temp.path())?.keep();
            cmd::output(cmd::command("objcopy").arg("--strip-debug").arg(file).arg(folder.join(name)))?;
            out.push(folder.join(name));
        }
        let new = out.pop().context("two were copied")?;
        Ok((out.pop().context("two were copied")?, new))
    }

    /// The comparison of a pair, into a folder of its own.
    fn command(&self, pair: &Files) -> Result<Command> {
        self.complete(cmd::command(self.lpbuild), pair)
    }

    fn complete(&self, mut c: Command, (old, new): &Files) -> Result<Command> {
        let out = tempfile::tempdir_in(self.temp.path())?.keep().join("out");
        c.arg("diff").args([old, new]).arg("-o").arg(out);
        Ok(c)
    }

    /// What a comparison costs at best, as the kernel accounts for it; nothing where there is no perf.
    fn spent(&self, pair: &Files) -> Result<Option<Spent>> {
        let mut best: Option<Spent> = None;
        for _ in 0..RUNS {
            let mut c = cmd::command("perf");
            c.args(["stat", "-x,", "-e", "task-clock,page-faults", "--"]).arg(self.lpbuild);
            let Ok(out) = self.complete(c, pair)?.output() else { return Ok(None) };
            let said = String::from_utf8_lossy(&out.stderr);
            let (Some(ms), Some(faults)) = (count(&said, "task-clock"), count(&said, "page-faults")) else {
                return Ok(None);
            };
            best =
                Some(best.map_or(Spent { ms, faults }, |b| Spent { ms: b.ms.min(ms), faults: b.faults.min(faults) }));
        }
        Ok(best)
    }

    fn run(&self, mut c: Command) -> Result<std::process::Output> {
        let out = c.output().with_context(|| format!("start {}", self.lpbuild.display()))?;
        // Refusals are fine here: all phases up to the verdict have run.
        ensure!(matches!(out.status.code(), Some(0 | 3 | 4)), "`{}`: {}", cmd::describe(&c), out.status);
        Ok(out)
    }

    fn one(&self, what: &str, pair: &Files) -> Result<()> {
        let mb = size(pair)? as f64 / 1e6;
        let mut best = f64::INFINITY;
        let mut phases: Vec<(String, f64)> = Vec::new();
        for _ in 0..RUNS {
            let mut c = self.command(pair)?;
            c.arg("--json");
            let started = Instant::now();
            let out = self.run(c)?;
            best = best.min(started.elapsed().as_secs_f64());
            let report: Value = serde_json::from_slice(&out.stdout)?;
            for timing in report["timings_us"].as_array().into_iter().flatten() {
                let (Some(name), Some(us)) = (timing[0].as_str(), timing[1].as_f64()) else { continue };
                match phases.iter_mut().find(|p| p.0 == name) {
                    Some(known) => known.1 = known.1.min(us),
                    None => phases.push((name.to_owned(), us)),
                }
            }
        }
        let (old, new) = pair;
        let args = [Path::new("diff"), old, new, Path::new("-o"), &self.temp.path().join("counted")];
        let counted = self.counter.instructions(self.lpbuild, &args)?;
        let (spent, counted) = (Spent::text(self.spent(pair)?), millions(counted));
        println!("diff {what}: {:.1} ms for {mb:.2} MB, {:.0} MB/s{spent}{counted}", best * 1e3, mb / best);
        for (name, us) in phases.iter().filter(|p| p.1 > 0.0) {
            println!("    {name:<10} {:>7.2} ms {:>7.0} MB/s", us / 1e3, mb / us * 1e6);
        }
        Ok(())
    }

    fn all(&self, what: &str, pairs: &[Files]) -> Result<()> {
        let mb = pairs.iter().map(size).sum::<Result<u64>>()? as f64 / 1e6;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let started = Instant::now();
            for pair in pairs {
                self.run(self.command(pair)?)?;
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        let (mut counted, mut spent) = (Some(0.0), Some(Spent { ms: 0.0, faults: 0.0 }));
        for pair in pairs {
            let sum = |(a, b): (Spent, Spent)| Spent { ms: a.ms + b.ms, faults: a.faults + b.faults };
            spent = spent.zip(self.spent(pair)?).map(sum);
            let (old, new) = pair;
            let args = [Path::new("diff"), old, new, Path::new("-o"), &self.temp.path().join("counted")];
            counted = counted.zip(self.counter.instructions(self.lpbuild, &args)?).map(|(a, b)| a + b);
        }
        let (n, each) = (pairs.len(), best / pairs.len().max(1) as f64);
        println!(
            "diff of {n} pairs {what}, a process each: {:.2} s for {mb:.1} MB, {:.1} ms each, {:.0} MB/s{}{}",
            best,
            each * 1e3,
            mb / best,
            Spent::text(spent),
            millions(counted)
        );
        Ok(())
    }
}

/// What a process, or several, took.
#[derive(Clone, Copy)]
struct Spent {
    /// Of the CPU, its own and the kernel's for it.
    ms: f64,
    faults: f64,
}

impl Spent {
    fn text(spent: Option<Self>) -> String {
        spent.map_or(String::new(), |s| format!(", {:.1} ms of CPU, {:.0} page faults", s.ms, s.faults))
    }
}

fn millions(counted: Option<f64>) -> String {
    counted.map_or(String::new(), |n| format!(", {:.0} million instructions", n / 1e6))
}
