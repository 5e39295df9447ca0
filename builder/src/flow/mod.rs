//! From what a user has to a patch: one driver for every kind of input, with one [`Outcome`].
//!
//! ```text
//! patches    source patches            lpbuild build
//! objects    two objects or trees      lpbuild diff
//! images     two whole kernels         lpbuild diff
//! folder     a symbolic patch folder   lpbuild pack --kernel
//! ```
//!
//! Each brings an analysis and a kernel; [`conclude`] makes the patch, or says why there is none. The phases are in
//! `pipeline.rs`.

pub mod folder;
mod images;
mod inputs;
mod modules;
mod objects;
mod parts;
pub mod patches;
pub mod savedir;

use std::borrow::Borrow;

use crate::backend::detour;
use crate::closure;
use crate::emit::Output;
use crate::error::{Problem, Result};
use crate::explain::code::{self, ListingRow};
use crate::explain::{Explanation, gather};
use crate::holder::Running;
use crate::kernel::KernelImage;
use crate::pipeline;
use crate::plan::{Analysis, Options};
use crate::report::{ModuleReport, Report};

pub use objects::{Ask, diff};

/// What came of an input.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that was found out.
    pub analysis: Analysis,
    /// The patch, if there is one.
    pub patch: Option<Output>,
    /// Modules of two trees that only one of them has.
    pub modules: Vec<ModuleReport>,
}

/// An outcome in one word; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a patch.
    Patch,
    /// No function differs.
    Nothing,
    /// Something stands against the patch.
    Refused,
}

impl Outcome {
    /// In one word.
    pub fn verdict(&self) -> Verdict {
        match &self.patch {
            _ if !self.analysis.refused.is_empty() => Verdict::Refused,
            Some(_) => Verdict::Patch,
            None => Verdict::Nothing,
        }
    }
    /// Has the patch functions of modules?
    pub fn is_of_modules(&self) -> bool {
        !modules::concerned(&self.analysis).is_empty()
    }
    /// Everything that was decided, and why.
    pub fn explanation(&self) -> Explanation {
        let record = gather::of(&self.analysis);
        match &self.patch {
            Some(patch) => Explanation::of(patch.manifest.clone(), Some(record)),
            None => Explanation {
                record,
                functions: detour::functions(&self.analysis),
                accepted: self.analysis.accepted.clone(),
                ..Explanation::default()
            },
        }
    }
    /// The code of everything that is carried, old and new, by the number of the item; at most so many instructions as a page can
    /// show.
    pub fn listings(&self) -> Vec<(usize, Vec<ListingRow>)> {
        /// Of all functions together; whole kernels can differ in all of theirs.
        const ROWS: usize = 100_000;
        let (mut out, mut rows) = (Vec::new(), 0);
        for (index, item) in self.analysis.set.items.iter().enumerate().filter(|(_, i)| i.is_code()) {
            let pair = &self.analysis.pairs[item.pair.0 as usize];
            let listed = code::listing(pair, item.atom, self.analysis.code_lines(index));
            rows += listed.len();
            if rows > ROWS {
                break;
            }
            out.push((index, listed));
        }
        out
    }
    /// For people and programs.
    pub fn report(&self) -> Report {
        Report { modules: self.modules.clone(), ..Report::of(&self.analysis) }
    }
}

/// Makes the patch of an analysis that refused nothing. What is refused on the way is part of the outcome; `kernel` is asked only
/// when there is something to bind.
///
/// # Errors
/// What is broken (exit 1); refusals are no errors here.
pub fn conclude<K: Borrow<KernelImage>>(
    mut analysis: Analysis,
    kernel: impl FnOnce() -> Result<Option<K>>,
    options: &Options,
) -> Result<Outcome> {
    if analysis.set.items.is_empty() || !analysis.refused.is_empty() {
        return Ok(without_patch(analysis));
    }
    let kernel = kernel()?;
    let made = pipeline::produce(&mut analysis, kernel.as_ref().map(Borrow::borrow), options);
    concluded(analysis, made)
}

/// The same for a kernel with modules.
///
/// # Errors
/// What is broken.
pub fn conclude_on(mut analysis: Analysis, running: Running<'_>, options: &Options) -> Result<Outcome> {
    if analysis.set.items.is_empty() || !analysis.refused.is_empty() {
        return Ok(without_patch(analysis));
    }
    let made = pipeline::produce_on(&mut analysis, Some(running), options);
    concluded(analysis, made)
}

/// Of a patch that is to have callbacks and has nothing, they are missing.
fn without_patch(mut analysis: Analysis) -> Outcome {
    if analysis.set.items.is_empty() && analysis.refused.is_empty() {
        analysis.refused = closure::no_callbacks(&analysis.options.callbacks);
    }
    Outcome { analysis, patch: None, modules: Vec::new() }
}

fn concluded(mut analysis: Analysis, made: Result<Output>) -> Result<Outcome> {
    let patch = match made {
        Ok(output) => Some(output),
        Err(e) if e.is_refusal() => {
            analysis.refused = e.problems;
            None
        }
        Err(e) => return Err(e),
    };
    Ok(Outcome { analysis, patch, modules: Vec::new() })
}

impl Outcome {
    /// The same with more that stands against it: then there is no patch.
    #[must_use]
    pub fn refused_as_well(mut self, problems: Vec<Problem>) -> Self {
        if !problems.is_empty() {
            self.analysis.refused.extend(problems);
            self.patch = None;
        }
        self
    }
}
