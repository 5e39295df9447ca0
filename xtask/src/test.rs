//! All tests, and one line of totals at the end.
//!
//! First the packages that need no kernel, then `tests/`, whose VM runs share the CPUs: two at a time. The kernels of our own
//! are built meanwhile, from the moment their source is there: downloading, unpacking and linking leave a CPU idle. Guests
//! do not run before that is done, as they have to answer in time.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use harness::own::{self, OwnKernel, Variant};
use harness::{SKIP, packages, workspace_root};

/// Its tests boot guests.
const VM_PACKAGE: &str = "lpbuild-tests";

/// Lines of what a failed test printed that are repeated at the end, and characters of each.
const SAID_LINES: usize = 30;
const SAID_WIDTH: usize = 400;

/// Seconds from which on a test binary is listed at the end.
const LONG: f64 = 20.0;

/// Summed over all runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// What failed tests said, the beginning.
    said: Vec<String>,
    /// Lines of the failed test being read that are still kept.
    left: usize,
    /// The test binary that runs.
    running: String,
    /// Seconds of the binaries that took long.
    took: Vec<(String, f64)>,
}

pub fn task(args: &[String]) -> Result<()> {
    packages::ensure_packages(&[packages::NEEDED, packages::CLANG].concat())?;
    crate::setup::run(own::SERIES)?;
    // Of tests that are named, few need them.
    let kernels = args.is_empty().then(|| std::thread::spawn(own_kernels));
    crate::setup::task(&[])?;
    let lpbuild = crate::build::lpbuild()?;
    let mut totals = Totals::default();
    let mut test = |selection: &[&str]| {
        let threads = ["--test-threads=2"];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(&[selection, &["--no-fail-fast", "--"], &args, &threads].concat(), &lpbuild, &mut totals)
    };
    test(&["--workspace", "--exclude", VM_PACKAGE])?;
    if let Some(kernels) = kernels {
        // A failure to compile is reported by the run below.
        run(&["--package", VM_PACKAGE, "--no-run"], &lpbuild, &mut Totals::default())?;
        if let Ok(Err(why)) = kernels.join() {
            // The tests that need one will try again, and say so themselves.
            harness::progress(format!("no kernel of our own: {why:#}"));
        }
    }
    test(&["--package", VM_PACKAGE])?;
    for (binary, seconds) in &totals.took {
        println!("{seconds:7.0} s  {binary}");
    }
    for line in &totals.said {
        println!("{line}");
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    if totals.failed > 0 {
        bail!("{} tests failed", totals.failed);
    }
    Ok(())
}

/// Builds what `tests/` has in common of them; all of it is kept in the cache.
fn own_kernels() -> Result<()> {
    for variant in Variant::ALL {
        OwnKernel::ensure(variant)?;
    }
    OwnKernel::ensure(Variant::Bare)?.elsewhere().map(drop)
}

fn run(args: &[&str], lpbuild: &Path, totals: &mut Totals) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut c = Command::new(cargo);
    c.arg("test").args(args).current_dir(workspace_root()).env("LPBUILD_BIN", lpbuild);
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start cargo test")?;
    let (out, err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
    let (send, lines) = mpsc::channel();
    let of_this_run = std::thread::scope(|scope| {
        let also = send.clone();
        scope.spawn(move || forward(out, false, &send));
        scope.spawn(move || forward(err, true, &also));
        let mut sum = Totals::default();
        for (line, stderr) in lines {
            if stderr {
                eprintln!("{line}");
            } else {
                println!("{line}");
            }
            count(&line, &mut sum);
            remember(&line, &mut sum);
        }
        sum
    });
    let status = child.wait().context("wait for cargo test")?;
    totals.said.extend(of_this_run.said);
    totals.took.extend(of_this_run.took);
    totals.passed += of_this_run.passed;
    totals.skipped += of_this_run.skipped;
    // A run that failed without a failed test did not compile or crashed: that counts as one.
    totals.failed += of_this_run.failed.max(u64::from(!status.success()));
    Ok(())
}

fn forward(stream: impl Read, stderr: bool, to: &mpsc::Sender<(String, bool)>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        if to.send((String::from_utf8_lossy(&line).into_owned(), stderr)).is_err() {
            return;
        }
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; a test that says it skips itself was counted as passed.
fn count(line: &str, totals: &mut Totals) {
    if line.contains(SKIP) {
        totals.skipped += 1;
        // The result line comes later; the sum is right at the end of the run.
        totals.passed = totals.passed.wrapping_sub(1);
        return;
    }
    let Some(result) = line.trim().strip_prefix("test result: ") else { return };
    let words: Vec<&str> = result.split([' ', ';']).filter(|w| !w.is_empty()).collect();
    for pair in words.windows(2) {
        let Ok(n) = pair[0].parse::<u64>() else { continue };
        match pair[1] {
            "passed" => totals.passed = totals.passed.wrapping_add(n),
            "failed" => totals.failed += n,
            "ignored" => totals.skipped += n,
            _ => {}
        }
    }
}

/// Keeps what a reader of a long log looks for: `Running tests/x.rs (..)`, `finished in 1.23s`, `---- name stdout ----`.
fn remember(line: &str, totals: &mut Totals) {
    if let Some((binary, _)) = line.trim().strip_prefix("Running ").and_then(|l| l.split_once(" (")) {
        binary.clone_into(&mut totals.running);
    } else if let Some((_, time)) = line.split_once("finished in ") {
        totals.left = 0;
        let seconds = time.trim_end_matches('s').parse().unwrap_or(0.0);
        if seconds >= LONG {
            totals.took.push((totals.running.clone(), seconds));
        }
    } else if line.starts_with("---- ") && line.ends_with(" stdout ----") {
        totals.left = SAID_LINES;
    } else if line.starts_with("stack backtrace:") || line.starts_with("note: run with") {
        totals.left = 0;
    }
    if totals.left > 0 && !line.trim().is_empty() {
        totals.left -= 1;
        totals.said.push(line.chars().take(SAID_WIDTH).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_and_skips_are_not_passes() {
        let mut t = Totals::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "LPBUILD-SKIP: boots: no kernel",
            "test boots ... ok",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            count(line, &mut t);
        }
        assert_eq!((t.passed, t.failed, t.skipped), (4, 1, 2));
    }
    #[test]
    fn what_failed_tests_said_is_repeated_without_the_rest() {
        let mut t = Totals::default();
        for line in [
            "     Running tests/a.rs (target/debug/deps/a-1)",
            "running 2 tests",
            "---- first stdout ----",
            "",
            "panicked at a.rs:1:1:",
            "one is not two",
            "stack backtrace:",
            "   0: core",
            "---- second stdout ----",
            "no kernel",
            "test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.50s",
            "error: test failed",
        ] {
            remember(line, &mut t);
        }
        let first = ["---- first stdout ----", "panicked at a.rs:1:1:", "one is not two"];
        assert_eq!(t.said, [&first[..], &["---- second stdout ----", "no kernel"]].concat());
        assert_eq!(t.took, [("tests/a.rs".to_owned(), 61.5)]);
    }
}
