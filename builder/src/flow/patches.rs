//! The whole of `lpbuild build`, phase after phase.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Outcome, conclude_on};
use crate::accept::Accepted;
use crate::annotate::{Left, Rest};
use crate::backend::detour::Runtime;
use crate::config::{Config, ExternalModules, check_expected};
use crate::error::{Error, Result, refuse};
use crate::holder::{HolderName, ModuleImages, Running};
use crate::kernel::Symvers;
use crate::pack::KernelSide;
use crate::pipeline;
use crate::plan::manifest::LeftOut;
use crate::plan::{Options, Source};
use crate::report::Report;
use crate::source::concern::WideHeader;
use crate::source::diagnostics;
use crate::source::external::{self, ExternalJob};
use crate::source::locate::TargetKernel;
use crate::source::module_tree::GivenModules;
use crate::source::pairs::{self, Job};
use crate::source::patch::{self, SourceChange};
use crate::source::touched::{self, Unused};
use crate::source::tree::Tree;
use crate::source::{Progress, outline};
use crate::tool::Log;

pub use crate::source::pairs::BuildOptions;

/// What a build found and made; the module is not packed yet.
#[derive(Debug, Default)]
pub struct Built {
    /// As `uname -r` prints it.
    pub release: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
    /// The image used.
    pub image: PathBuf,
    /// The headers used.
    pub headers: PathBuf,
    /// The source used.
    pub source: PathBuf,
    /// The configuration used.
    pub config: PathBuf,
    /// The prepared tree used.
    pub tree: PathBuf,
    /// Objects compiled in both versions.
    pub compiled: Vec<String>,
    /// Those of them that differ.
    pub objects: Vec<String>,
    /// Changed files without a part in this kernel.
    pub unused: Vec<Unused>,
    /// Changed headers that more objects read than can be concerned.
    pub wide: Vec<WideHeader>,
    /// Hunks that applied at another line.
    pub moved: Vec<String>,
    /// What of the patches was left out.
    pub left_out: Vec<LeftOut>,
    /// What of the patches was accepted before anything was compared.
    pub accepted: Vec<Accepted>,
    /// The files of modules that were held against something.
    pub modules: BTreeMap<HolderName, PathBuf>,
    /// Objects of modules that are concerned, were not compiled and keep the code they have.
    pub left: Vec<String>,
    /// The pairs that differ.
    pub sources: Vec<Source>,
    /// What was found and made; nothing while the build is not that far.
    pub outcome: Option<Outcome>,
    /// Name and time of each phase, in order.
    pub phases: Vec<(&'static str, Duration)>,
}

/// The phases up to emit. What is refused after the analysis is in the report, so that everything found can be shown. Where a
/// phase fails, `built` has what those before it found.
pub fn build(config: &Config, how: &BuildOptions, log: &Log, progress: &dyn Progress, built: &mut Built) -> Result<()> {
    let mut clock = Clock(Instant::now());
    // What is wrong with them by themselves needs no kernel, which may have to be fetched.
    patch::check(&config.patches, &config.leave_out)?;
    let target = match &config.external {
        None => TargetKernel::find(&config.kernel, log, progress)?,
        Some(_) => TargetKernel::find_headers(&config.kernel, log, progress)?,
    };
    built.release.clone_from(&target.release);
    built.build_id = crate::hash::to_hex(target.image.build_id());
    built.image.clone_from(&target.image_path);
    built.headers.clone_from(&target.headers);
    built.source.clone_from(config.external.as_ref().map_or(&target.source, |e| &e.source));
    built.config.clone_from(&target.config);
    clock.lap(built, "locate");

    let change = patch::apply(&built.source, &config.patches, &config.leave_out)?;
    built.left_out.clone_from(&change.left_out);
    built.moved = change.moved.iter().map(ToString::to_string).collect();
    let work = Work { target: &target, change: &change, config, how, log, progress };
    let made = match &config.external {
        None => work.kernel(&mut clock, built)?,
        Some(modules) => work.external(modules, &mut clock, built)?,
    };
    let Made { accepted, modfiles, files, exports } = made;

    let left_out = change.left_out.clone();
    built.accepted.clone_from(&accepted);
    let options = Options { lines_kept: true, explain: true, left_out, accepted, ..config.options.clone() };
    progress.status("comparing");
    built.objects = built.sources.iter().map(|s| s.name.clone()).collect();
    let edited = outline::edited_headers(&change);
    let left = if built.left.is_empty() { Left::Nothing } else { Left::Unknown { edited: &edited } };
    let rest = Rest::Built { exports: &exports, left };
    let mut analysis = pipeline::analyse_in(&built.sources, rest, &options)?;
    // Lines that are new were compiled under numbers that no file has.
    let number = |file: &str, line| diagnostics::line_of(&change, file, line);
    analysis.lines.iter_mut().for_each(|lines| lines.renumber(number));
    let files = GivenModules { given: files, tree: target.modules.clone() };
    let images = ModuleImages::of(&target.image, &files, exports);
    let modules = images.open_with_exporters(modfiles.iter().map(String::as_str));
    built.modules = images.read();
    let modules = modules?;
    let running = Running { kernel: &target.image, modules: &modules };
    pipeline::check_names_on(&mut analysis, running, &options);
    if let Some(expected) = &config.functions {
        let report = Report::of(&analysis);
        let changed: Vec<_> = report.changed.iter().map(|c| (&c.object, &c.symbol)).collect();
        analysis.refused.extend(check_expected(expected, &changed));
    }
    let outcome = conclude_on(analysis, running, &options)?;
    if let Some(patch) = &outcome.patch {
        // What is handed out is read as somebody else's would be.
        refuse(Runtime::default().contradictions(&patch.manifest, running))?;
    }
    built.phases.extend(outcome.analysis.timings.iter().copied());
    built.outcome = Some(outcome);
    Ok(())
}

/// Measures phases.
struct Clock(Instant);

impl Clock {
    fn lap(&mut self, built: &mut Built, name: &'static str) {
        built.phases.push((name, self.0.elapsed()));
        self.0 = Instant::now();
    }
}

/// What objects are made from.
#[derive(Clone, Copy)]
struct Work<'a> {
    target: &'a TargetKernel,
    change: &'a SourceChange,
    config: &'a Config,
    how: &'a BuildOptions,
    log: &'a Log,
    progress: &'a dyn Progress,
}

/// What is known when they are made, beside the objects.
struct Made {
    accepted: Vec<Accepted>,
    /// The modules that have some of them.
    modfiles: BTreeSet<String>,
    /// Files of modules that are not the kernel's.
    files: BTreeMap<HolderName, PathBuf>,
    exports: Symvers,
}

impl Work<'_> {
    /// Objects of the kernel and of its own modules.
    fn kernel(self, clock: &mut Clock, built: &mut Built) -> Result<Made> {
        let Self { target, change, config, how, log, progress } = self;
        let mut accepted = touched::screen(change, &config.options.accept)?;
        clock.lap(built, "patch");

        let tree = Tree::ensure(target, log, progress)?;
        built.tree.clone_from(&tree.build);
        clock.lap(built, "tree");

        let mut touched = touched::touched(&tree, change)?;
        built.unused = std::mem::take(&mut touched.unused);
        clock.lap(built, "touched");

        let job = Job { target, tree: &tree, change, touched: &touched, config, how, log, progress };
        let compiled = pairs::compile(&job)?;
        built.compiled = compiled.objects;
        built.sources = compiled.sources;
        built.wide = compiled.wide;
        built.left = compiled.left.into_iter().collect();
        accepted.extend(compiled.accepted);
        clock.lap(built, "compile");
        let exports = match exports(target) {
            // The objects say of themselves what they export.
            Err(_) if built.left.is_empty() && compiled.modfiles.is_empty() => Symvers::default(),
            found => found?,
        };
        Ok(Made { accepted, modfiles: compiled.modfiles, files: BTreeMap::new(), exports })
    }

    /// Objects of modules from sources beside the kernel's.
    fn external(self, modules: &ExternalModules, clock: &mut Clock, built: &mut Built) -> Result<Made> {
        let Self { target, change, config, how, log, progress } = self;
        external::screen(change)?;
        clock.lap(built, "patch");
        let mut exports = exports(target)?;
        let job = ExternalJob { target, modules, change, config, how, log, progress };
        let pairs = external::compile(&job, &mut exports)?;
        built.compiled = pairs.objects;
        built.unused = pairs.unused;
        built.sources = pairs.sources;
        clock.lap(built, "compile");
        let modfiles = built.sources.iter().map(|s| s.holder.to_string()).collect();
        Ok(Made { accepted: Vec::new(), modfiles, files: pairs.files, exports })
    }
}

/// What the headers say that is exported.
fn exports(target: &TargetKernel) -> Result<Symvers> {
    let path = target.headers.join("Module.symvers");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
    Ok(Symvers::parse(&text))
}
