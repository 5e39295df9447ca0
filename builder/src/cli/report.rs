//! `--report FILE`: the page for reviewers, of whatever a command came to.

use std::path::{Path, PathBuf};

use lpbuild::error::{Error, Result};
use lpbuild::flow::{Outcome, Verdict};
use lpbuild::page::{self, Ending, ReportPage};
use lpbuild::plan::Options;
use lpbuild::trial::TrialReport;

/// Where the report goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ReportArg {
    /// Also write a report for reviewers to this file: one HTML page that needs nothing else. It is written when the outcome is a
    /// refusal as well, and replaces an earlier report only.
    #[arg(long = "report", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ReportArg {
    /// Is a report wanted?
    pub fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Can it be written? Asked before anything is fetched or compiled.
    pub fn check(&self, folder: Option<&Path>, others: &[&Path]) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| page::check(path, folder, others))
    }

    /// One of before goes, whatever the command comes to.
    pub fn clear(&self) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| page::clear(path))
    }

    fn write(&self, page: &ReportPage<'_>) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| page::write(path, &page.html()))
    }

    /// Of a comparison.
    pub fn outcome(&self, options: &Options, outcome: &Outcome, facts: Vec<(&'static str, String)>) -> Result<()> {
        if !self.is_wanted() {
            return Ok(());
        }
        let explanation = outcome.explanation();
        self.write(&ReportPage {
            name: &options.name,
            version: &options.version,
            description: &options.description,
            ending: match outcome.verdict() {
                Verdict::Patch => Ending::Made,
                Verdict::Nothing => Ending::Nothing,
                Verdict::Refused => Ending::Refused,
            },
            facts,
            explanation: Some(&explanation),
            listings: outcome.listings(),
            refused: &outcome.analysis.refused,
            promises: &outcome.analysis.promises,
            trial: None,
        })
    }

    /// Of a command that did not come to a comparison, or failed behind it. What was decided until then is told.
    pub fn failed(
        &self,
        options: &Options,
        outcome: Option<&Outcome>,
        error: &Error,
        facts: Vec<(&'static str, String)>,
    ) -> Result<()> {
        if !self.is_wanted() {
            return Ok(());
        }
        let explanation = outcome.map(Outcome::explanation);
        self.write(&ReportPage {
            name: &options.name,
            version: &options.version,
            description: &options.description,
            ending: if error.is_refusal() { Ending::Refused } else { Ending::Broken },
            facts,
            explanation: explanation.as_ref(),
            listings: outcome.map(Outcome::listings).unwrap_or_default(),
            refused: &error.problems,
            promises: outcome.map_or(&[], |o| &o.analysis.promises),
            trial: None,
        })
    }

    /// Of a trial.
    pub fn trial(&self, trial: &TrialReport) -> Result<()> {
        let passed = trial.refused.is_empty();
        let module = trial.module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = trial.explanation.manifest.as_ref();
        self.write(&ReportPage {
            name: &trial.name,
            version: &trial.version,
            description: manifest.map_or("", |m| &m.patch.description),
            ending: if passed { Ending::Passed } else { Ending::Failed },
            facts: vec![("File", module)],
            explanation: Some(&trial.explanation),
            listings: Vec::new(),
            refused: &trial.refused,
            promises: &[],
            trial: Some(trial),
        })
    }

    /// Of a trial that could not be made.
    pub fn untried(&self, module: &Path, error: &Error) -> Result<()> {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        self.write(&ReportPage {
            name: &name,
            version: "",
            description: "",
            ending: if error.is_refusal() { Ending::Failed } else { Ending::Broken },
            facts: Vec::new(),
            explanation: None,
            listings: Vec::new(),
            refused: &error.problems,
            promises: &[],
            trial: None,
        })
    }
}
