//! The whole of `lpbuild build`, phase after phase.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::compile::{self, Compiler, Work};
use super::kbuild::{Part, Recipe};
use super::locate::Target;
use super::makefiles::Recompiled;
use super::patch::{self, SourceChange};
use super::touched::{self, Touched, Unused};
use super::tree::Tree;
use super::{Progress, cache, elsewhere, generated};
use crate::accept::Accepted;
use crate::annotate::Rest;
use crate::codes;
use crate::config::{Config, check_expected};
use crate::emit::Output;
use crate::error::{self, Error, Place, Problem, Result};
use crate::hash;
use crate::pipeline::{self};
use crate::plan::Options;
use crate::plan::Source;
use crate::report::Report;
use crate::tool::Log;

/// How to build, beside what the configuration says.
#[derive(Clone, Debug)]
pub struct How {
    /// Compilers at a time.
    pub jobs: usize,
    /// Build although code of modules changes, and leave that as it is.
    pub leave_modules: bool,
}

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
    /// Hunks that applied at another line.
    pub moved: Vec<String>,
    /// Objects of modules that differ and keep their old code.
    pub left: Vec<String>,
    /// What changed.
    pub report: Report,
    /// The pairs that differ.
    pub sources: Vec<Source>,
    /// patch.o and the manifest; nothing when nothing changed or something was refused.
    pub output: Option<Output>,
    /// Name and time of each phase, in order.
    pub phases: Vec<(&'static str, Duration)>,
}

/// The phases up to emit. What is refused after the analysis is in the report, so that everything found can be shown. Where a
/// phase fails, `built` has what those before it found.
pub fn build(config: &Config, how: &How, log: &Log, progress: &dyn Progress, built: &mut Built) -> Result<()> {
    let mut clock = Instant::now();
    let mut lap = |built: &mut Built, name| {
        built.phases.push((name, clock.elapsed()));
        clock = Instant::now();
    };
    let target = Target::find(&config.kernel, log, progress)?;
    built.release.clone_from(&target.release);
    built.build_id = crate::hash::to_hex(target.image.build_id());
    built.image.clone_from(&target.image_path);
    built.headers.clone_from(&target.headers);
    built.source.clone_from(&target.source);
    built.config.clone_from(&target.config);
    lap(built, "locate");

    let change = patch::apply(&target.source, &config.patches)?;
    built.moved = change.moved.iter().map(ToString::to_string).collect();
    let mut accepted = touched::screen(&change, &config.accept)?;
    lap(built, "patch");

    let tree = Tree::ensure(&target, log, progress)?;
    built.tree.clone_from(&tree.build);
    lap(built, "tree");

    let mut touched = touched::touched(&tree, &change)?;
    built.unused = std::mem::take(&mut touched.unused);
    lap(built, "touched");

    let work = WorkDir::make(&tree, &change)?;
    let (sources, left) =
        compile_all(&target, &tree, &change, &touched, config, how, &work, built, &mut accepted, log, progress)?;
    lap(built, "compile");

    let options = options(config);
    progress.status("comparing");
    built.sources = sources;
    built.objects = built.sources.iter().map(|s| s.name.clone()).collect();
    let mut analysis = pipeline::analyse_in(&built.sources, Rest::Built { left: &left }, &options)?;
    analysis.accepted.splice(0..0, accepted);
    analysis.unneeded = options.accept.unneeded(&analysis.accepted);
    pipeline::check_names(&mut analysis, &target.image, &options);
    let nothing = analysis.set.items.is_empty() && analysis.refused.is_empty();
    if let Some(expected) = &config.functions {
        let report = Report::of(&analysis);
        let changed: Vec<_> = report.changed.iter().map(|c| (&c.object, &c.symbol)).collect();
        analysis.refused.extend(check_expected(expected, &changed));
    }
    if !nothing && analysis.refused.is_empty() {
        match pipeline::produce(&mut analysis, Some(&target.image), &options) {
            Ok(output) => {
                // What is handed out is read as somebody else's would be.
                error::refuse(crate::backend::detour::contradictions(&output.manifest, &target.image))?;
                built.output = Some(output);
            }
            Err(e) if e.exit_code() == 4 => analysis.refused = e.problems,
            Err(e) => return Err(e),
        }
    }
    built.report = Report::of(&analysis);
    built.phases.extend(analysis.timings.iter().copied());
    Ok(())
}

/// As the pipeline takes them.
pub fn options(config: &Config) -> Options {
    Options {
        name: config.name.clone(),
        version: config.version.clone(),
        description: config.description.clone(),
        mode: config.mode,
        after: config.after.clone(),
        replaces: config.replaces.clone(),
        deadline_ms: config.deadline_ms,
        patience_ms: config.patience_ms,
        jump: config.jump,
        oneshot: config.oneshot,
        callbacks: config.callbacks.clone(),
        accept: config.accept.clone(),
        lines_kept: true,
    }
}

/// Both versions of every object concerned, if they differ in more than debug information: those of the image, and those of
/// modules that keep their old code.
#[expect(clippy::too_many_arguments, reason = "one step of the flow above, on everything found before it")]
fn compile_all(
    target: &Target,
    tree: &Tree,
    change: &SourceChange,
    touched: &Touched,
    config: &Config,
    how: &How,
    work: &WorkDir,
    built: &mut Built,
    accepted: &mut Vec<Accepted>,
    log: &Log,
    progress: &dyn Progress,
) -> Result<(Vec<Source>, Vec<Source>)> {
    let mut asked = touched.objects.clone();
    asked.extend(touched.modules.iter().cloned());
    let elsewhere = touched.elsewhere.keys().filter_map(|o| Some(&tree.layout.elsewhere.get(o)?.source));
    let mut folders: BTreeSet<PathBuf> =
        asked.iter().chain(elsewhere).filter_map(|o| Path::new(o).parent().map(PathBuf::from)).collect();
    let compiler = Compiler::new(tree, &target.toolchain, &config.flags, &work.path, log);
    let mut shadow = compiler.shadow(change, &folders)?;
    let mut recipes = tree.kbuild(log).recipes(&tree.layout, &asked)?;
    let mut supposed: BTreeSet<String> = touched.supposed.union(&touched.modules).cloned().collect();
    supposed.retain(|o| !change.files.contains_key(&source_file(o)));
    let mut modules = touched.modules.clone();
    let (mut added, mut otherwise) = (BTreeSet::new(), BTreeMap::new());
    if !touched.folders.is_empty() {
        let changed = super::makefiles::compare(tree, &shadow, &touched.folders, log)?;
        folders.extend(changed.keys().filter_map(|o| Path::new(o).parent().map(PathBuf::from)));
        if !folders.iter().all(|f| shadow.covers(f)) {
            shadow = compiler.shadow(change, &folders)?;
        }
        for (object, Recompiled { part, old, new }) in changed {
            if part == Part::Module {
                modules.insert(object.clone());
            }
            if let Some(old) = old {
                otherwise.insert(object.clone(), new);
                recipes.insert(object, old);
            } else {
                added.insert(object.clone());
                recipes.insert(object, new);
            }
        }
    }
    if let Some(missing) = asked.iter().find(|o| !recipes.contains_key(*o)) {
        return Err(Error::new(codes::LP6212, Place::object(missing), "kbuild has no rule to compile it"));
    }
    generated::check(tree, change, &shadow, &work.path, log)?;
    let outside = elsewhere::Work { objects: &touched.elsewhere, change, jobs: how.jobs };
    let mut problems = elsewhere::check(tree, &compiler, &shadow, &outside)?;
    accepted.extend(config.accept.settle(&mut problems));
    error::refuse(problems)?;
    let stock: BTreeSet<PathBuf> =
        change.files.keys().filter_map(|p| tree.source.join(p).canonicalize().ok()).collect();
    progress.objects(recipes.len());
    let todo = Work { recipes: &recipes, otherwise: &otherwise, supposed: &supposed, added: &added, changed: &stock };
    let pairs = compile::pairs(&compiler, &shadow, &todo, how.jobs, &options(config), &|name| progress.object(name))?;
    built.compiled = pairs.compiled;
    let (of_modules, sources): (Vec<Source>, Vec<Source>) =
        pairs.differing.into_iter().partition(|s| modules.contains(&s.name));
    if !how.leave_modules && !of_modules.is_empty() {
        return Err(Error { problems: of_modules.iter().map(|s| module_problem(&recipes, s)).collect() });
    }
    built.left = of_modules.iter().map(|s| s.name.clone()).collect();
    Ok((sources, of_modules))
}

fn module_problem(recipes: &BTreeMap<String, Recipe>, source: &Source) -> Problem {
    let module = recipes.get(&source.name).and_then(Recipe::module);
    let what = module.map_or("it is part of a module".to_owned(), |m| format!("it is part of the module {m}"));
    Problem::new(codes::LP6307, Place::object(&source.name), what)
}

/// The source an object is usually made from.
fn source_file(object: &str) -> String {
    format!("{}.c", object.strip_suffix(".o").unwrap_or(object))
}

/// The folder of one build in the cache: the same for the same change, so that launchers that cache (ccache) see the same
/// paths again. Locked while it is used and removed at the end.
#[derive(Debug)]
struct WorkDir {
    path: PathBuf,
    _lock: cache::Lock,
}

impl WorkDir {
    fn make(tree: &Tree, change: &SourceChange) -> Result<Self> {
        let root = cache::root()?.join("work");
        remove_abandoned(&root);
        let key = hash::digest(format!("{}\n{}", tree.build.display(), change.digest()).as_bytes());
        let path = root.join(key.get(..16).unwrap_or(&key));
        let lock = cache::lock(&path)?;
        cache::empty_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next build.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Folders that an interrupted build left.
fn remove_abandoned(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir()
            && let Ok(Some(_lock)) = cache::try_lock(&path)
        {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
