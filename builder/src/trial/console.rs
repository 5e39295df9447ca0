//! Reading a guest's output: what is a fault, what is a verdict.
//!
//! Input: the kernel log (ttyS0) and what PID 1 and its programs print (ttyS1). They come on two lines, so that a message
//! of the kernel never lands in the middle of a verdict. Output: [`Transcript`] and its [`ConsoleVerdict`]. Nothing is refused:
//! bytes that are no UTF-8 are replaced.

use std::time::Duration;

/// What PID 1 prints exactly once.
pub const VERDICT: &str = "LPBUILD-VERDICT:";

/// Texts in the kernel log after which the guest is stopped, unless the run allows the line.
pub const FAULTS: &[&str] = &[
    "Kernel panic",
    "BUG:",
    "Oops",
    "[#1]",
    "WARNING:",
    "general protection fault",
    "soft lockup",
    "hard LOCKUP",
    "self-detected stall",
    "detected stalls",
    "blocked for more than",
    "scheduling while atomic",
];

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleVerdict {
    /// PID 1 said PASS, once, and the guest powered off.
    Pass,
    /// PID 1 said FAIL, with this reason.
    Fail(String),
    /// The kernel log had this line; the guest was stopped.
    Fault(String),
    /// Nothing was printed for this long; the guest was stopped.
    Silent(Duration),
    /// Still running after this long; the guest was stopped.
    Overtime(Duration),
    /// The guest ended without a verdict.
    None,
    /// More than one verdict was printed; they are in the log.
    Several(usize),
}

/// Complete lines read so far and what they mean.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// Verdict lines, without the marker.
    pub verdicts: Vec<String>,
    /// Lines of PID 1 and its programs.
    pub case: Vec<String>,
    /// Lines of the kernel.
    pub kernel: Vec<String>,
    /// The first line of the kernel that is a fault and not allowed.
    pub fault: Option<String>,
}

impl Transcript {
    /// Takes in a line of the kernel log.
    pub fn kernel_line(&mut self, line: &str, allowed: &[String]) {
        let bad = FAULTS.iter().any(|f| line.contains(f)) && !allowed.iter().any(|a| line.contains(a.as_str()));
        if bad && self.fault.is_none() {
            self.fault = Some(line.to_string());
        }
        self.kernel.push(line.to_string());
    }

    /// Takes in a line of PID 1 or its programs.
    pub fn case_line(&mut self, line: &str) {
        if let Some(verdict) = line.trim().strip_prefix(VERDICT) {
            self.verdicts.push(verdict.trim().to_string());
        }
        self.case.push(line.to_string());
    }

    /// The verdict of a guest that has ended by itself.
    pub fn verdict(&self) -> ConsoleVerdict {
        if let Some(line) = &self.fault {
            return ConsoleVerdict::Fault(line.clone());
        }
        match self.verdicts.as_slice() {
            [] => ConsoleVerdict::None,
            [one] if one == "PASS" => ConsoleVerdict::Pass,
            [one] => ConsoleVerdict::Fail(one.strip_prefix("FAIL").unwrap_or(one).trim().to_string()),
            several => ConsoleVerdict::Several(several.len()),
        }
    }
}

/// Cuts a growing byte stream into lines.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines completed by `bytes`, without line ends.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let done: Vec<u8> = self.rest.drain(..=end).collect();
        done[..end].split(|b| *b == b'\n').map(text).collect()
    }

    /// An unfinished last line, if there is one.
    pub fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches('\r').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_verdict_counts_and_none_or_two_do_not() {
        let of = |lines: &[&str]| {
            let mut t = Transcript::default();
            lines.iter().for_each(|l| t.case_line(l));
            t.verdict()
        };
        assert_eq!(of(&["LPBUILD-VERDICT: PASS"]), ConsoleVerdict::Pass);
        assert_eq!(of(&["x", "LPBUILD-VERDICT: FAIL status 3"]), ConsoleVerdict::Fail("status 3".into()));
        assert_eq!(of(&["x"]), ConsoleVerdict::None);
        assert_eq!(of(&["LPBUILD-VERDICT: PASS", "LPBUILD-VERDICT: PASS"]), ConsoleVerdict::Several(2));
    }

    #[test]
    fn a_fault_beats_a_pass_unless_it_is_allowed() {
        let mut t = Transcript::default();
        t.case_line("LPBUILD-VERDICT: PASS");
        t.kernel_line("[ 1.0] WARNING: CPU: 0 PID: 9 at fs/proc/cmdline.c:9", &["WARNING: CPU".into()]);
        assert_eq!(t.verdict(), ConsoleVerdict::Pass);
        t.kernel_line("[ 1.1] BUG: unable to handle page fault", &[]);
        assert!(matches!(t.verdict(), ConsoleVerdict::Fault(l) if l.contains("page fault")));
    }

    #[test]
    fn lines_survive_any_cut() {
        let stream = b"one\r\n\r\nLPBUILD-VERDICT: PASS\r\nunfinished";
        for cut in 0..stream.len() {
            let (mut lines, mut t) = (Lines::default(), Transcript::default());
            for part in [&stream[..cut], &stream[cut..]] {
                lines.push(part).iter().for_each(|l| t.case_line(l));
            }
            assert_eq!(lines.finish().as_deref(), Some("unfinished"));
            assert_eq!(t.case, ["one", "", "LPBUILD-VERDICT: PASS"]);
            assert_eq!(t.verdict(), ConsoleVerdict::Pass);
        }
    }
}
