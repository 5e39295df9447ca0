//! Two builds, whatever form they have: objects and trees here, whole kernels in `images`, modules in `modules`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::inputs::Inputs;
use super::{Outcome, folder, images, inputs, modules};
use crate::error::Result;
use crate::kernel::KernelImage;
use crate::pipeline;
use crate::plan::{Options, Source};

/// What `lpbuild diff` is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The build that runs.
    pub old: &'a Path,
    /// The fixed build.
    pub new: &'a Path,
    /// The kernel to bind to.
    pub kernel: Option<&'a Path>,
    /// Files of modules as they run, for objects of modules.
    pub modules: &'a [PathBuf],
    /// Its headers, which say what modules import from whom.
    pub headers: Option<&'a Path>,
    /// The patch folder to write.
    pub output: Option<&'a Path>,
    /// Leave debug information of whole images aside.
    pub no_debug_info: bool,
}

/// Compares the two builds and writes the patch folder, if one is wanted and there is a patch.
///
/// # Errors
/// What cannot be read or compared at all; refusals of the patch are part of the outcome.
pub fn diff(ask: &Ask<'_>, options: &Options) -> Result<Outcome> {
    let options = &Options { explain: options.explain || ask.output.is_some(), ..options.clone() };
    let (mut outcome, symbolic) = match images::kernels(ask.old, ask.new)? {
        Some((old, new)) => (images::compare(ask, &old, &new, options)?, Vec::new()),
        None if modules::are_modules(ask.old, ask.new)? => (modules::diff_pair(ask, options)?, Vec::new()),
        None if modules::are_trees(ask.old, ask.new)? => (modules::diff_trees(ask, options)?, Vec::new()),
        None => objects(ask, options)?,
    };
    if let (Some(dir), Some(patch)) = (ask.output, &outcome.patch) {
        let start = Instant::now();
        folder::write(dir, patch, &symbolic)?;
        outcome.analysis.timings.push(("write", start.elapsed()));
    }
    Ok(outcome)
}

/// With the objects that a symbolic patch keeps.
fn objects(ask: &Ask<'_>, options: &Options) -> Result<(Outcome, Vec<Source>)> {
    let start = Instant::now();
    let Inputs { sources, alone } = inputs::read(ask.old, ask.new, options)?;
    let read = start.elapsed();
    let image = ask.kernel.map(KernelImage::open).transpose()?;
    let analysis = pipeline::analyse(&sources, options)?;
    let mut outcome = modules::finish(ask, analysis, image.as_ref(), &sources, options)?;
    outcome.modules = alone;
    outcome.analysis.timings.insert(0, ("read", read));
    let kept = sources.into_iter().filter(|s| image.is_none() && s.old != s.new).collect();
    Ok((outcome, kept))
}
