//! What a build is doing, on stderr: bars on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lpbuild::source::Progress;

use super::terminal;

/// A spinner that becomes a bar while objects are compiled.
#[derive(Debug)]
pub struct Bars {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl Bars {
    /// The clock starts.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, begun: Instant::now() }
    }

    /// So many objects are next.
    fn count(&self, doing: &str, total: usize, what: &str) {
        let Some(bar) = &self.bar else {
            if total > 0 {
                self.status(&format!("{doing} {total} object(s), {what}"));
            }
            return;
        };
        bar.set_length(total as u64);
        bar.set_position(0);
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{doing} {{wide_bar}} {{pos}}/{{len}} {{msg}} {{eta}}"))
        {
            bar.set_style(style);
        }
    }

    /// Nothing of it stays on the screen.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn status(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => terminal::progress(&format!("{:6.1} s  {text}", self.begun.elapsed().as_secs_f64())),
        }
    }

    fn reading(&self, total: usize) {
        self.count("reading", total, "that may read a changed header");
    }

    fn objects(&self, total: usize) {
        self.count("compiling", total, "old and new");
    }

    fn object(&self, name: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(name.to_owned());
        }
    }
}
