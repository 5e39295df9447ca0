//! The steps of a trial as the guest tells them: when each began and ended, with which status, and what it printed.
//!
//! Input: the lines of the guest while they come. Output: [`Steps`]. Nothing is refused: what is not told did not happen,
//! and the step that was running when the guest ended has no end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::console;
use super::guest::MARK;
use super::qemu::{ImageSource, Watch};
use crate::source::Progress;

/// Lines of the console kept for people.
const TAIL: usize = 30;
/// Steps in which a script decides how long nothing is printed.
const SCRIPTS: &[&str] = &["before", "during", "after"];

/// One step.
#[derive(Clone, Debug)]
pub struct TrialStep {
    /// `boot`, `before`, `load`, `during`, `status`, `unload`, `gone`, `after`, `end`.
    pub name: String,
    /// Number of the cycle it belongs to, from 1; 0: to none.
    pub cycle: u32,
    /// Time of the host.
    pub host: Duration,
    /// Time of the guest, in steps of 10 ms.
    pub guest: Duration,
    /// Exit status; none when the guest ended first.
    pub status: Option<i32>,
    /// What it printed.
    pub output: Vec<String>,
}

/// All steps so far.
pub struct Steps<'a> {
    /// In their order.
    pub steps: Vec<TrialStep>,
    /// The last lines of the console, as in the log.
    pub tail: VecDeque<String>,
    started: Instant,
    open: Option<(Instant, f64)>,
    patience: [Duration; 3],
    cycles: u32,
    progress: &'a dyn Progress,
}

impl std::fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl<'a> Steps<'a> {
    /// Nothing yet. `patience` is how long the guest may print nothing: before its first word, while no script runs, and
    /// while one does. `cycles` is how many there will be, for the progress.
    pub fn new(patience: [Duration; 3], cycles: u32, progress: &'a dyn Progress) -> Self {
        let (steps, tail) = (Vec::new(), VecDeque::new());
        Self { steps, tail, started: Instant::now(), open: None, patience, cycles, progress }
    }

    /// The step that was running when the guest ended.
    pub fn unfinished(&self) -> Option<&TrialStep> {
        self.steps.last().filter(|s| s.status.is_none())
    }

    fn begin(&mut self, name: &str, cycle: u32, uptime: f64) {
        // Booting began with QEMU and ends when PID 1 says the first word.
        let (host, since) =
            if name == "boot" { (self.started.elapsed(), self.started) } else { (Duration::ZERO, Instant::now()) };
        let guest = if name == "boot" { uptime } else { 0.0 };
        match cycle {
            0 | 1 => self.progress.status(name),
            n if n % 10 == 0 && name == "load" => self.progress.status(&format!("cycle {n} of {}", self.cycles)),
            _ => {}
        }
        self.open = Some((since, if name == "boot" { 0.0 } else { uptime }));
        self.steps.push(TrialStep {
            name: name.into(),
            cycle,
            host,
            guest: seconds(guest),
            status: None,
            output: vec![],
        });
    }

    fn end(&mut self, status: i32, uptime: f64) {
        let Some((since, began)) = self.open.take() else { return };
        let Some(step) = self.steps.last_mut() else { return };
        step.host = since.elapsed();
        step.guest = seconds(uptime - began);
        step.status = Some(status);
        // The mark begins with a line end of its own, in case the output has none.
        if step.output.last().is_some_and(String::is_empty) {
            step.output.pop();
        }
    }

    /// `LPBUILD-STEP: UPTIME begin|end NAME CYCLE [STATUS]`
    fn mark(&mut self, line: &str) -> Option<()> {
        let mut words = line.strip_prefix(MARK)?.split_whitespace();
        let uptime: f64 = words.next()?.parse().ok()?;
        let (what, name, cycle) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        // What a script prints that looks like a mark is output all the same.
        let running = self.unfinished().is_some_and(|s| s.name == name && s.cycle == cycle);
        match what {
            "begin" if self.open.is_none() => self.begin(name, cycle, uptime),
            "end" if running => self.end(words.next()?.parse().ok()?, uptime),
            _ => return None,
        }
        Some(())
    }
}

impl Watch for Steps<'_> {
    fn line(&mut self, source: ImageSource, line: &str) {
        let prefix = if source == ImageSource::Kernel { "k| " } else { "c| " };
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        if !line.is_empty() {
            self.tail.push_back(format!("{prefix}{line}"));
        }
        if source == ImageSource::Kernel || self.mark(line).is_some() || line.starts_with(console::VERDICT) {
            return;
        }
        if self.open.is_some()
            && let Some(step) = self.steps.last_mut()
        {
            step.output.push(line.to_owned());
        }
    }

    fn silence(&self) -> Duration {
        let [first_word, quiet, script] = self.patience;
        match self.unfinished() {
            _ if self.steps.is_empty() => first_word,
            Some(s) if SCRIPTS.contains(&s.name.as_str()) => script,
            _ => quiet,
        }
    }
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Vec<TrialStep>, Duration) {
        let mut s = Steps::new([5, 1, 9].map(Duration::from_secs), 1, &crate::source::Silent);
        for line in lines {
            s.line(ImageSource::Case, line);
        }
        let silence = s.silence();
        (s.steps, silence)
    }

    #[test]
    fn output_is_what_is_between_two_marks() {
        let (steps, silence) = read(&[
            "noise before",
            "",
            "LPBUILD-STEP: 2.50 begin load 1",
            "one",
            "",
            "two",
            "",
            "LPBUILD-STEP: 2.75 end load 1 0",
            "",
            "LPBUILD-STEP: 2.80 begin during 1",
            "LPBUILD-STEP: 2.90 begin status 1",
            "LPBUILD-STEP: 2.90 end load 1 0",
            "no line end",
            "LPBUILD-STEP: 3.00 end during 1 7",
        ]);
        assert_eq!(steps[0].output, ["one", "", "two"]);
        assert_eq!((steps[0].status, steps[0].guest), (Some(0), Duration::from_millis(250)));
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[1].output.len(), steps[1].output[2].as_str()), (3, "no line end"));
        assert_eq!(steps[1].status, Some(7));
        assert_eq!(silence, Duration::from_secs(1));
    }

    #[test]
    fn a_guest_that_dies_leaves_a_step_without_end() {
        let (steps, silence) = read(&["LPBUILD-STEP: 1.0 begin during 3", "last words"]);
        assert_eq!((steps[0].status, steps[0].cycle), (None, 3));
        assert_eq!(steps[0].output, ["last words"]);
        assert_eq!(silence, Duration::from_secs(9), "a script may be silent for longer");
        for odd in
            ["LPBUILD-STEP: x begin a 1", "LPBUILD-STEP: 1 end a 1 0", "LPBUILD-STEP: 1 begin a", "LPBUILD-STEP:"]
        {
            let (steps, silence) = read(&[odd]);
            assert!(steps.is_empty() && silence == Duration::from_secs(5), "{odd}");
        }
    }
}
