//! Why a command on the target failed: each problem with the function it is about, the tasks in the way, and who owns it.
//!
//! Input: problems found here, and what the runtime says (`LP50nn: [FUNCTION: ]text`). Output: [`Failure`]. Nothing is
//! refused: what a text does not tell is left out.

use serde::Serialize;

use super::state::{Blocker, PatchState};
use super::system::Host;
use crate::codes;
use crate::error::{Error, Place, Problem};

/// Tasks named in the message itself; all of them are in the JSON object.
const NAMED: usize = 20;

/// Why a command failed.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// Never empty; in the order they were found.
    pub causes: Vec<Obstacle>,
}

/// One problem, and whom it concerns.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// Code, place and sentence.
    pub problem: Problem,
    /// The function it is about.
    pub function: Option<String>,
    /// Tasks that stood in the way.
    pub blockers: Vec<Blocker>,
    /// The patch, livepatch or module that holds the function.
    pub owner: Option<String>,
}

impl Obstacle {
    /// The same problem, held by another patch or livepatch.
    #[must_use]
    pub(super) fn owned_by(mut self, owner: &str) -> Self {
        self.owner = Some(owner.to_owned());
        self
    }
}

impl From<Problem> for Obstacle {
    fn from(problem: Problem) -> Self {
        Self { function: problem.place.symbol.clone(), problem, blockers: Vec::new(), owner: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { causes: error.problems.into_iter().map(Obstacle::from).collect() }
    }
}

impl From<Obstacle> for Failure {
    fn from(cause: Obstacle) -> Self {
        Self { causes: vec![cause] }
    }
}

impl Failure {
    /// Every task that stood in the way, once.
    pub fn blockers(&self) -> Vec<&Blocker> {
        let mut all: Vec<&Blocker> = Vec::new();
        for blocker in self.causes.iter().flat_map(|c| &c.blockers) {
            if !all.contains(&blocker) {
                all.push(blocker);
            }
        }
        all
    }

    /// The problems, for the caller's stderr and exit code.
    pub fn error(&self) -> Error {
        Error { problems: self.causes.iter().map(|c| c.problem.clone()).collect() }
    }
}

/// What the runtime said, with every task that stood in the way. `functions` are those of the patch.
pub(super) fn runtime_cause<'a>(
    host: &Host,
    place: Place,
    (code, text): (&str, &str),
    functions: impl IntoIterator<Item = &'a str>,
    blockers: &[Blocker],
) -> Obstacle {
    let first = text.split_once(": ").map(|(name, _)| name);
    let function = functions.into_iter().find(|f| Some(*f) == first).map(str::to_owned);
    let own = place.object.clone();
    let mut detail = text.to_owned();
    for (i, b) in blockers.iter().take(NAMED).enumerate() {
        detail.push_str(if i == 0 { ": " } else { ", " });
        detail.push_str(&b.to_string());
    }
    if blockers.len() > NAMED {
        detail.push_str(&format!(", and {} more", blockers.len() - NAMED));
    }
    // The kernel's loader runs in our own task, which cannot leave a function that is on its way.
    if blockers.iter().any(|b| b.pid == i64::from(std::process::id())) {
        detail.push_str("; one of them is this lpbuild, which is loading the module: of such a function only --mode drain makes sense");
    }
    let problem = match codes::find(code) {
        Some(code) => Problem { code, place, detail, accept: None },
        None => Problem::new(codes::LP5119, place, format!("{code}: {detail}")),
    };
    Obstacle { problem, function, blockers: blockers.to_vec(), owner: owner(host, text, own.as_deref()) }
}

/// The module in brackets behind an address, or the first loaded patch the text names.
fn owner(host: &Host, text: &str, own: Option<&str>) -> Option<String> {
    let bracketed = text.split_once(" [").and_then(|(_, rest)| rest.split_once(']')).map(|(name, _)| name.to_owned());
    bracketed.or_else(|| {
        let names = PatchState::names(host);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|w| Some(*w) != own).find(|w| names.iter().any(|n| n == w)).map(str::to_owned)
    })
}

/// A failure as one JSON object.
#[derive(Serialize)]
pub(super) struct FailureReport<'a> {
    refused: Vec<Entry<'a>>,
    blockers: Vec<&'a Blocker>,
}

/// One problem in it.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    blockers: &'a [Blocker],
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
}

impl<'a> From<&'a Failure> for FailureReport<'a> {
    fn from(failure: &'a Failure) -> Self {
        let entry = |c: &'a Obstacle| Entry {
            problem: &c.problem,
            function: c.function.as_deref(),
            blockers: &c.blockers,
            owner: c.owner.as_deref(),
        };
        Self { refused: failure.causes.iter().map(entry).collect(), blockers: failure.blockers() }
    }
}
