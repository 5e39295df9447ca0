//! One test, run as a process of its own.
//!
//! Input: a [`Job`]. Output: a [`Done`]: how it ended, what it took of the clock and of the processors (with all its children,
//! guests included), and what it said when it failed. What is written to stderr past the capture of the test runner is
//! shown at once.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use harness::SKIP;

use super::built::Program;

/// Lines of what a failed test printed that are repeated at the end, and characters of each.
const SAID_LINES: usize = 40;
const SAID_WIDTH: usize = 400;

/// A test to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where it is.
    pub program: Program,
    /// Its name there.
    pub test: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// It said itself that it could not do its work here, or is not run unless asked for.
    Skipped,
}

/// A test that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Of the job.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds by the clock.
    pub took: f64,
    /// Seconds of processors, when that could be measured.
    pub cpu: Option<f64>,
    /// What it said, when it failed.
    pub said: Vec<String>,
    /// It failed beside others for want of time, and this is how it ended alone.
    pub alone: bool,
}

impl Done {
    /// Whether the test failed because its guest was not given enough of this host: nothing was printed for too long, or
    /// something that was waited for did not come. Never after a fault of the kernel or a wrong result.
    pub fn lacked_time(&self) -> bool {
        let says = |texts: &[&str]| self.said.iter().any(|l| texts.iter().all(|t| l.contains(t)));
        // The last is what `wait-for` of the guests says.
        let late = says(&["verdict Silent("]) || says(&["verdict Overtime("]);
        let late = late || says(&[" does not contain ", " after ", " s: "]);
        self.outcome == Outcome::Failed && late && !says(&["verdict Fault("])
    }
}

impl Job {
    /// Program and test, as a reader looks for them.
    pub fn name(&self) -> String {
        format!("{} {}", self.program.name, self.test)
    }

    /// Runs it to the end. `env` is what it gets to know of this run.
    pub fn run(&self, env: &[(String, std::ffi::OsString)]) -> Done {
        let started = Instant::now();
        let measured = tempfile::NamedTempFile::new().ok();
        let (outcome, said) = match self.output(env, measured.as_ref().map(tempfile::NamedTempFile::path)) {
            Ok((success, out, skipped)) => {
                let outcome = outcome(success, &out, skipped);
                (outcome, if outcome == Outcome::Failed { said(&out) } else { Vec::new() })
            }
            Err(why) => (Outcome::Failed, vec![format!("{why:#}")]),
        };
        let cpu = measured.and_then(|file| cpu(&std::fs::read_to_string(file.path()).ok()?));
        Done { name: self.name(), outcome, took: started.elapsed().as_secs_f64(), cpu, said, alone: false }
    }

    /// Whether it ended well, all it printed, and whether it said that it was skipped.
    fn output(
        &self,
        env: &[(String, std::ffi::OsString)],
        measured: Option<&std::path::Path>,
    ) -> Result<(bool, Vec<String>, bool)> {
        // GNU time counts what children of children used, as far as somebody waited for them.
        let mut c = match (measured, harness::cmd::found("time")) {
            (Some(file), true) => {
                let mut c = Command::new("time");
                c.args(["--quiet", "--format=%U %S", "--output"]).arg(file).arg(&self.program.path);
                c
            }
            _ => Command::new(&self.program.path),
        };
        c.args(["--exact", &self.test, "--test-threads=1"]).current_dir(&self.program.folder);
        c.env("CARGO_MANIFEST_DIR", &self.program.folder).envs(env.iter().map(|(k, v)| (k, v)));
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().with_context(|| format!("start {}", self.program.path.display()))?;
        let (out, err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let (mut lines, skipped) = std::thread::scope(|scope| {
            let heard = scope.spawn(|| {
                let mut heard = Vec::new();
                for line in lines(err) {
                    eprintln!("{line}");
                    heard.push(line);
                }
                heard
            });
            let out: Vec<String> = lines(out).collect();
            let heard = heard.join().unwrap_or_default();
            let skipped = heard.iter().any(|l| l.contains(SKIP));
            (out.into_iter().chain(heard).collect::<Vec<_>>(), skipped)
        });
        let status = child.wait().context("wait for the test")?;
        if !status.success() {
            lines.push(status.to_string());
        }
        Ok((status.success(), lines, skipped))
    }
}

fn lines(stream: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    lines.map(|l| String::from_utf8_lossy(&l).into_owned())
}

/// `test result: ok. 1 passed; 0 failed; ..`: a program that ends well without having run the test has not passed it.
fn outcome(success: bool, out: &[String], skipped: bool) -> Outcome {
    let ran = out.iter().any(|l| l.trim().starts_with("test result: ok. 1 passed; 0 failed;"));
    match (success && ran, skipped) {
        (true, false) => Outcome::Passed,
        (true, true) => Outcome::Skipped,
        (false, _) => Outcome::Failed,
    }
}

/// What a reader of a long log looks for: all but the frame of the test runner and the backtrace.
fn said(out: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut in_trace = false;
    for line in out {
        if line.starts_with("stack backtrace:") {
            in_trace = true;
        } else if in_trace && !line.starts_with(' ') {
            in_trace = false;
        }
        let frame = ["running ", "test ", "failures:", "---- ", "note: run with", "note: Some details"];
        if !in_trace && !line.trim().is_empty() && !frame.iter().any(|f| line.starts_with(f)) {
            kept.push(line.chars().take(SAID_WIDTH).collect());
        }
    }
    let more = kept.len().saturating_sub(SAID_LINES);
    if more > 0 {
        kept.truncate(SAID_LINES);
        kept.push(format!("({more} more lines)"));
    }
    kept
}

/// User and system seconds.
fn cpu(text: &str) -> Option<f64> {
    let mut words = text.lines().last()?.split_whitespace().map(|w| w.parse::<f64>().ok());
    Some(words.next()?? + words.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_a_test_that_ran_has_passed() {
        let ran = text(&["running 1 test", "test result: ok. 1 passed; 0 failed; 0 ignored; finished in 0.00s"]);
        let none = text(&["running 0 tests", "test result: ok. 0 passed; 0 failed; 0 ignored; finished in 0.00s"]);
        assert_eq!(outcome(true, &ran, false), Outcome::Passed);
        assert_eq!(outcome(true, &ran, true), Outcome::Skipped);
        assert_eq!(outcome(false, &ran, false), Outcome::Failed, "it died while ending");
        assert_eq!(outcome(true, &none, false), Outcome::Failed);
    }

    #[test]
    fn only_a_guest_that_lacked_time_has_a_second_chance() {
        let failed = |said: &[&str]| Done {
            name: "vm_x y".to_owned(),
            outcome: Outcome::Failed,
            took: 1.0,
            cpu: None,
            said: text(said),
            alone: false,
        };
        assert!(failed(&["panicked at", "verdict Silent(180s); the end of console.log:"]).lacked_time());
        assert!(failed(&["verdict Fail(\"/state does not contain \\\"applied\\\" after 30 s: Ok\")"]).lacked_time());
        assert!(!failed(&["verdict Fault(\"Oops\"); the end", "x does not contain y after 3 s"]).lacked_time());
        assert!(!failed(&["the answer does not contain LP1000"]).lacked_time());
        assert!(!failed(&["verdict Fail(\"a system call saw two versions\")"]).lacked_time());
        assert!(!Done { outcome: Outcome::Passed, ..failed(&["verdict Silent(1s)"]) }.lacked_time());
    }

    #[test]
    fn what_a_failed_test_said_is_kept_without_the_rest() {
        let out = text(&[
            "running 1 test",
            "test a ... FAILED",
            "---- a stdout ----",
            "",
            "panicked at a.rs:1:1:",
            "one is not two",
            "stack backtrace:",
            "   0: core",
            "note: Some details are omitted",
            "test result: FAILED. 0 passed; 1 failed",
        ]);
        assert_eq!(said(&out), ["panicked at a.rs:1:1:", "one is not two"]);
        assert_eq!(said(&vec!["x".to_owned(); SAID_LINES + 2]).last().unwrap(), "(2 more lines)");
    }

    #[test]
    fn seconds_of_processors_are_user_and_system() {
        assert_eq!(cpu("1.25 0.50\n"), Some(1.75));
        assert_eq!(cpu(""), None);
    }
}
