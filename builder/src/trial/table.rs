//! A trial's report for people.
//!
//! Input: [`TrialReport`]. Output: text: a line per step, the functions, the outputs of the scripts side by side, notes, and the
//! verdict last. Cycles beyond the first are one line for loads and one for unloads. Nothing is refused.

use std::io::{self, Write};

use super::report::{StepReport, TrialReport};
use crate::host::pause;
use crate::style::{BAD, DIM, GOOD, HEAD, NOTE};

/// Lines of a script's output shown; the log and the JSON have all.
const SHOWN: usize = 40;
/// Between two columns.
const GAP: &str = " | ";

impl TrialReport {
    /// Writes the report, `width` columns wide.
    pub fn text(&self, width: usize, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{HEAD}{:<10}  {:>9}  {:>9}  result{HEAD:#}", "step", "host", "guest")?;
        for s in self.steps.iter().filter(|s| s.cycle.is_none_or(|c| c == 1) || s.status != Some(0)) {
            let line = format!("{:<10}  {:>9}  {:>9}  {}", s.step, time(s.host_ms), guest_time(s), s.result);
            writeln!(out, "{}", line.trim_end())?;
        }
        for step in ["load", "unload"] {
            self.cycles(step, out)?;
        }
        if !self.functions.is_empty() {
            writeln!(out)?;
        }
        for f in &self.functions {
            let text = |key: &str| f.get(key).and_then(|v| v.as_str()).unwrap_or("?").to_owned();
            let number = |key: &str| f.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
            let (at, size) = (number("site_offset"), number("site_size"));
            writeln!(out, "{}  +{at:#x}/{size}  {}  {}", text("symbol"), text("jump"), text("state"))?;
        }
        self.outputs(width, out)?;
        if !self.console.is_empty() {
            writeln!(out, "\n{HEAD}console{HEAD:#}")?;
            for line in &self.console {
                writeln!(out, "{DIM}{line}{DIM:#}")?;
            }
        }
        if !self.notes.is_empty() {
            writeln!(out)?;
        }
        for note in &self.notes {
            writeln!(out, "{NOTE}note:{NOTE:#} {note}")?;
        }
        let (style, word) = if self.verdict == "pass" { (GOOD, "PASS") } else { (BAD, "FAIL") };
        let how = if self.accelerator == "kvm" { "with KVM" } else { "emulated" };
        writeln!(
            out,
            "\n{style}{word}{style:#}  {} {} on {} (build id {}), {:.1} s, {how}",
            self.name, self.version, self.release, self.build_id, self.took_s
        )
    }

    /// Cycles from the second on.
    fn cycles(&self, step: &str, out: &mut dyn Write) -> io::Result<()> {
        let all = self.steps.iter().filter(|s| s.step == step && s.cycle > Some(1) && s.status == Some(0));
        let all: Vec<&StepReport> = all.collect();
        let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(()) };
        let mean = |value: fn(&StepReport) -> u64| all.iter().map(|s| value(s)).sum::<u64>() / all.len() as u64;
        let most = |value: fn(&StepReport) -> Option<u64>| all.iter().filter_map(|s| value(s)).max().unwrap_or(0);
        let host = time(mean(|s| s.host_ms));
        let guest = time(mean(|s| s.took_ms.unwrap_or(s.guest_ms)));
        let (a, b) = (first.cycle.unwrap_or(0), last.cycle.unwrap_or(0));
        let (attempts, longest) = (most(|s| s.attempts), pause(most(|s| s.pause_ns)));
        let what = format!("cycles {a} to {b}: times on average, attempts at most {attempts}, pause at most {longest}");
        writeln!(out, "{step:<10}  {host:>9}  {guest:>9}  {what}")
    }

    fn outputs(&self, width: usize, out: &mut dyn Write) -> io::Result<()> {
        let o = &self.outputs;
        let columns: Vec<(&str, &[String])> = match (&o.before, &o.during, &o.after) {
            (Some(b), Some(d), Some(_)) if self.after_equals_before == Some(true) => {
                vec![("before, and after", b), ("during", d)]
            }
            (b, d, a) => [("before", b), ("during", d), ("after", a)]
                .into_iter()
                .filter_map(|(name, lines)| Some((name, lines.as_deref()?)))
                .collect(),
        };
        if columns.iter().all(|(_, lines)| lines.is_empty()) {
            return Ok(());
        }
        writeln!(out)?;
        for line in side_by_side(&columns, width) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

/// Columns of equal width with a heading each; long lines are cut, and so are long columns.
fn side_by_side(columns: &[(&str, &[String])], width: usize) -> Vec<String> {
    let n = columns.len().max(1);
    let each = (width.saturating_sub(GAP.len() * (n - 1)) / n).max(16);
    let row = |cells: Vec<String>| cells.join(GAP).trim_end().to_owned();
    let cell = |text: &str| {
        // A tab would move the columns; control characters would do worse.
        let text = text.replace('\t', "    ").replace(|c: char| c.is_control(), "?");
        let length = text.chars().count();
        let cut: String = if length > each { text.chars().take(each - 1).chain(['~']).collect() } else { text };
        format!("{cut:<each$}")
    };
    let heading = row(columns.iter().map(|(name, _)| cell(name)).collect());
    let mut out = vec![format!("{HEAD}{heading}{HEAD:#}")];
    let longest = columns.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
    for i in 0..longest.min(SHOWN) {
        out.push(row(columns.iter().map(|(_, lines)| cell(lines.get(i).map_or("", String::as_str))).collect()));
    }
    if longest > SHOWN {
        out.push(format!("{DIM}and {} more lines; --json and --log have them{DIM:#}", longest - SHOWN));
    }
    out
}

/// What the command measured itself is finer than the steps of 10 ms.
fn guest_time(s: &StepReport) -> String {
    time(s.took_ms.unwrap_or(s.guest_ms))
}

fn time(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{}.{:02} s", ms / 1000, ms % 1000 / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_cut_and_free_of_control_characters() {
        let one: Vec<String> =
            ["short", "a line that is much longer than its column", "\x1b[31mred\ttab"].map(str::to_owned).to_vec();
        let two: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let lines = side_by_side(&[("before", &one), ("during", &two)], 43);
        assert!(lines[0].contains("before               | during"), "{lines:?}");
        assert_eq!(lines[1], "short                | 0");
        assert_eq!(lines[2], "a line that is much~ | 1");
        assert_eq!(lines[3], "?[31mred    tab      | 2");
        assert_eq!(lines[4], "                     | 3");
        assert!(lines.last().unwrap().contains("10 more lines"), "{lines:?}");
        assert_eq!(lines.len(), 1 + SHOWN + 1);
    }

    #[test]
    fn times() {
        assert_eq!((time(999), time(1000), time(61_239)), ("999 ms".into(), "1.00 s".into(), "61.23 s".into()));
    }
}
