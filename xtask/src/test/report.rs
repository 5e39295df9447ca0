//! The end of a run: the slowest tests, what failed, and one line of totals. And what each test took, for the next run,
//! which begins with the longest.
//!
//! Input: [`Done`]s. Output: text; `target/test-times`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use harness::workspace_root;

use super::job::{Done, Outcome};

/// How many of the slowest are listed.
const SLOWEST: usize = 10;

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Totals {
    pub fn of(all: &[Done]) -> Self {
        let count = |o: Outcome| all.iter().filter(|d| d.outcome == o).count();
        Self { passed: count(Outcome::Passed), failed: count(Outcome::Failed), skipped: count(Outcome::Skipped) }
    }
}

/// Everything after the last test.
pub fn end(all: &[Done], took: f64) -> String {
    let mut text = String::new();
    let mut by_time: Vec<&Done> = all.iter().collect();
    by_time.sort_by(|a, b| b.took.total_cmp(&a.took));
    text += "\nThe slowest tests:\n";
    for done in by_time.iter().take(SLOWEST) {
        let cpu = done.cpu.map_or(String::new(), |cpu| format!("{cpu:7.1} s CPU"));
        text += &format!("{:7.1} s {cpu}  {}\n", done.took, done.name);
    }
    for done in all.iter().filter(|d| d.outcome == Outcome::Failed) {
        text += &format!("\nFAILED {}\n", done.name);
        text += &done.said.iter().map(|l| format!("    {l}\n")).collect::<String>();
    }
    for done in all.iter().filter(|d| d.alone) {
        text += &format!("\nRun again alone, as it lacked time beside others: {}\n", done.name);
    }
    let cpu: f64 = all.iter().filter_map(|d| d.cpu).sum();
    text += &format!("\n{} tests in {took:.0} s, {cpu:.0} s of processors\n", all.len());
    let Totals { passed, failed, skipped } = Totals::of(all);
    text + &format!("{passed} passed, {failed} failed, {skipped} skipped")
}

fn path() -> PathBuf {
    workspace_root().join("target/test-times")
}

/// Seconds each test took when it last ran; empty when none has.
pub fn remembered() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let read = |l: &str| l.split_once(' ').and_then(|(t, name)| Some((name.to_owned(), t.parse().ok()?)));
    text.lines().filter_map(read).collect()
}

/// Keeps the times of those that ran, beside what is known of others.
pub fn remember(all: &[Done]) {
    let mut known = remembered();
    known.extend(all.iter().filter(|d| d.outcome == Outcome::Passed).map(|d| (d.name.clone(), d.took)));
    let text: String = known.iter().map(|(name, t)| format!("{t:.2} {name}\n")).collect();
    // Only the order of the next run depends on it.
    let _ = std::fs::write(path(), text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_has_the_slowest_the_failed_and_the_totals() {
        let done = |i: u32, outcome| Done {
            name: format!("p t{i}"),
            outcome,
            took: f64::from(i),
            cpu: Some(0.5),
            said: if outcome == Outcome::Failed { vec!["why".to_owned()] } else { Vec::new() },
            alone: outcome == Outcome::Failed,
        };
        let mut all: Vec<Done> = (1..=12).map(|i| done(i, Outcome::Passed)).collect();
        all.push(done(0, Outcome::Failed));
        all.push(done(0, Outcome::Skipped));
        let text = end(&all, 7.0);
        assert!(text.contains("12.0 s     0.5 s CPU  p t12\n") && text.contains(" p t3\n"), "{text}");
        assert!(!text.contains(" p t2\n"), "{text}");
        assert!(text.contains("FAILED p t0\n    why\n") && text.contains("beside others: p t0\n"), "{text}");
        assert!(text.ends_with("14 tests in 7 s, 7 s of processors\n12 passed, 1 failed, 1 skipped"), "{text}");
    }
}
