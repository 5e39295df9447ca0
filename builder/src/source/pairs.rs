//! Touched -> pairs of objects: both versions of everything a change concerns, compiled by the kernel's own commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::compile::{self, Compilation, Compiler};
use super::concern::{self, Readers, WideHeader};
use super::kbuild::{ObjectPart, Recipe};
use super::locate::TargetKernel;
use super::makefiles::{self, Recompiled};
use super::patch::SourceChange;
use super::touched::Touched;
use super::tree::Tree;
use super::{Progress, authors, diagnostics, elsewhere, generated};
use crate::accept::Accepted;
use crate::cache;
use crate::codes;
use crate::config::Config;
use crate::error::{Error, Place, Problem, Result, refuse};
use crate::hash;
use crate::holder::HolderName;
use crate::plan::{Options, Source};
use crate::tool::Log;

/// How to build, beside what the configuration says.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Compilers at a time.
    pub jobs: usize,
    /// Build although code of modules changes, and leave that as it is.
    pub leave_modules: bool,
    /// Compile every object that may read a changed header, also those that cannot come out otherwise.
    pub compile_all: bool,
}

/// Everything a compilation works on.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The kernel.
    pub target: &'a TargetKernel,
    /// Its prepared tree.
    pub tree: &'a Tree,
    /// What the patches change.
    pub change: &'a SourceChange,
    /// The objects concerned.
    pub touched: &'a Touched,
    /// What was asked for.
    pub config: &'a Config,
    /// How to go about it.
    pub how: &'a BuildOptions,
    /// Where commands are noted.
    pub log: &'a Log,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// What came out.
#[derive(Debug)]
pub struct Compiled {
    /// Names of the objects that were compiled in both versions.
    pub objects: Vec<String>,
    /// Those that differ, of the image and of modules.
    pub sources: Vec<Source>,
    /// The modules that have some of them, by the paths of their files without `.ko`.
    pub modfiles: BTreeSet<String>,
    /// Those of modules that are concerned, were not compiled and keep the code they have.
    pub left: BTreeSet<String>,
    /// Headers that more objects read than can be concerned.
    pub wide: Vec<WideHeader>,
    /// What the author answers for.
    pub accepted: Vec<Accepted>,
}

/// Both versions of every object concerned, if they differ in more than debug information.
pub fn compile(job: &Job<'_>) -> Result<Compiled> {
    let Job { target, tree, change, touched, config, how, log, progress } = *job;
    let work = WorkDir::make(&format!("{}\n{}", tree.build.display(), change.digest()))?;
    let mut modules = touched.modules.clone();
    let asked: BTreeSet<String> = touched.objects.union(&modules).cloned().collect();
    let elsewhere = touched.elsewhere.keys().filter_map(|o| Some(&tree.layout.elsewhere.get(o)?.source));
    let mut folders: BTreeSet<PathBuf> =
        asked.iter().chain(elsewhere).filter_map(|o| Path::new(o).parent().map(PathBuf::from)).collect();
    let compiler = Compiler::new(tree, &target.toolchain, &config.flags, &work.path, log);
    let mut shadow = compiler.shadow(change, &folders)?;
    let mut recipes = tree.kbuild(log).recipes(&tree.layout, &asked)?;
    let mut supposed: BTreeSet<String> = touched.supposed.union(&modules).cloned().collect();
    supposed.retain(|o| !change.files.contains_key(&source_file(o)));
    let (mut added, mut otherwise) = (BTreeSet::new(), BTreeMap::new());
    if !touched.folders.is_empty() {
        let changed = makefiles::compare(tree, &shadow, &touched.folders, log)?;
        folders.extend(changed.keys().filter_map(|o| Path::new(o).parent().map(PathBuf::from)));
        if !folders.iter().all(|f| shadow.covers(f)) {
            shadow = compiler.shadow(change, &folders)?;
        }
        for (object, Recompiled { part, old, new }) in changed {
            if part == ObjectPart::Module {
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
    let outside = elsewhere::Suspects { objects: &touched.elsewhere, change, jobs: how.jobs };
    let mut problems = elsewhere::check(tree, &compiler, &shadow, &outside)?;
    let accepted = config.options.accept.settle(&mut problems);
    refuse(problems)?;
    let real = |p: &String| Some((tree.source.join(p).canonicalize().ok()?, p.clone()));
    let by_path: BTreeMap<PathBuf, String> = change.files.keys().filter_map(real).collect();
    let stock: BTreeSet<PathBuf> = by_path.keys().cloned().collect();
    let mut wide = Vec::new();
    if !how.compile_all {
        supposed.retain(|o| !otherwise.contains_key(o) && !added.contains(o));
        let readers = Readers { recipes: &recipes, supposed: &supposed, changed: &by_path, jobs: how.jobs };
        let found = concern::unconcerned(&compiler, &shadow, &readers, progress)?;
        recipes.retain(|o, _| !found.objects.contains(o));
        wide = found.wide;
    }
    let mut left = BTreeSet::new();
    if how.leave_modules {
        left.extend(recipes.keys().filter(|o| modules.contains(*o)).cloned());
        recipes.retain(|o, _| !left.contains(o));
    }
    progress.objects(recipes.len());
    let todo =
        Compilation { recipes: &recipes, otherwise: &otherwise, supposed: &supposed, added: &added, changed: &stock };
    let options = Options { lines_kept: true, ..config.options.clone() };
    let pairs = compile::pairs(&compiler, &shadow, &todo, how.jobs, &options, &|name| progress.object(name));
    let pairs = pairs.map_err(|e| diagnostics::in_patch(e, &shadow.source, change))?;
    let sources = pairs.differing;
    let of = |s: &Source| otherwise.get(&s.name).or_else(|| recipes.get(&s.name));
    let shared: Vec<Problem> = sources.iter().filter_map(|s| shared(of(s)?)).collect();
    refuse(shared)?;
    let modfiles = sources.iter().filter(|s| s.holder != HolderName::Vmlinux);
    let modfiles = modfiles.filter_map(|s| Some(of(s)?.modfile()?.to_owned())).collect();
    Ok(Compiled { objects: pairs.compiled, sources, modfiles, left, wide, accepted })
}

/// An object in several modules has a copy in each.
pub(super) fn shared(recipe: &Recipe) -> Option<Problem> {
    let names: Vec<&str> = recipe.module_names().collect();
    let what = format!("it is part of the modules {}", names.join(", "));
    (names.len() > 1).then(|| Problem::new(codes::LP6307, Place::object(&recipe.object), what))
}

/// The source an object is usually made from.
fn source_file(object: &str) -> String {
    format!("{}.c", object.strip_suffix(".o").unwrap_or(object))
}

/// The folder of one build in the cache: the same for the same change, so that launchers that cache (ccache) see the same
/// paths again. Locked while it is used and removed at the end.
#[derive(Debug)]
pub(super) struct WorkDir {
    pub(super) path: PathBuf,
    _lock: cache::Lock,
}

impl WorkDir {
    /// `text` says what is built.
    pub(super) fn make(text: &str) -> Result<Self> {
        let root = cache::root()?.join("work");
        remove_abandoned(&root);
        let key = hash::digest(text.as_bytes());
        let path = root.join(key.get(..16).unwrap_or(&key));
        let lock = cache::lock(&path)?;
        cache::empty_dir(&path)?;
        authors::put(&path)?;
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
