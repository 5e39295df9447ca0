//! Modules as files: two builds of one, or all of two trees, paired by name.
//!
//! Input: `.ko` files, plain or compressed, stripped of debug information or not. Output: a patch of the functions that differ, bound
//! to the old files, which are the modules that the kernel runs: each is the image of its holder, as the file beside the kernel is
//! for `lpbuild build`. What else differs of the two builds, images or objects, is in the same patch. Refused: files that are no two builds of one module (LP2004), what cannot be used as a module of that kernel
//! (LP3009), a folder to write and no kernel to bind to (LP3007).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::backend::detour::Runtime;
use crate::codes;
use crate::error::{Error, Place, Problem, Result, refuse};
use crate::holder::{HolderName, ModuleBinary, ModuleHolder, ModuleImages, Running, unpacked_module};
use crate::kernel::KernelImage;
use crate::pack::{self, KernelSide};
use crate::pipeline;
use crate::plan::manifest::Callbacks;
use crate::plan::{Analysis, Options, Source};
use crate::report::{ModuleReport, Report};
use crate::source::debian::Unpacked;
use crate::source::module_tree::{ENDINGS, GivenModules, ModuleTree};
use rayon::prelude::*;

use super::inputs::{self, below};
use super::{Ask, Outcome, conclude, conclude_on};

/// Modules of two trees.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Those that differ in what runs.
    pub differing: Vec<Source>,
    /// Those that only one side has: in no patch, and not passed over.
    pub alone: Vec<ModuleReport>,
}

/// Is a file called as modules are? The name of it without what it is compressed with.
fn plain_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = ENDINGS.iter().find_map(|e| name.strip_suffix(e)?.strip_suffix('.'))?;
    Some(format!("{stem}.ko"))
}

/// Are both files modules? A module and something else cannot be compared.
pub(super) fn are_modules(old: &Path, new: &Path) -> Result<bool> {
    if old.is_dir() || new.is_dir() {
        return Ok(false);
    }
    match (plain_name(old).is_some(), plain_name(new).is_some()) {
        (a, b) if a == b => Ok(a),
        (a, _) => {
            let (module, other) = if a { (old, new) } else { (new, old) };
            let what = format!("{} is a module by its name and {} is not", module.display(), other.display());
            Err(Error::new(codes::LP2004, Place::object(other.display().to_string()), what))
        }
    }
}

/// Do both trees have modules, and neither an object file?
pub(super) fn are_trees(old: &Path, new: &Path) -> Result<bool> {
    if !old.is_dir() || !new.is_dir() {
        return Ok(false);
    }
    let bare = |root: &Path| -> Result<bool> { Ok(below(root, "o")?.is_empty() && !modules(root)?.is_empty()) };
    Ok(bare(old)? && bare(new)?)
}

/// Two builds of one module.
pub(super) fn diff_pair(ask: &Ask<'_>, options: &Options) -> Result<Outcome> {
    let (old, new) = (ModuleBinary::read(ask.old)?, ModuleBinary::read(ask.new)?);
    if old.name != new.name {
        let what = format!("it is the module {}, {} is {}", new.name, ask.old.display(), old.name);
        return Err(Error::new(codes::LP2004, Place::object(ask.new.display().to_string()), what));
    }
    let source = Source {
        name: format!("{}.ko", old.name),
        old_path: ask.old.to_owned(),
        new_path: ask.new.to_owned(),
        holder: HolderName::named(&old.name),
        old: old.content,
        new: new.content,
    };
    patch(ask, &[source], options)
}

/// The modules of two trees without anything else.
pub(super) fn diff_trees(ask: &Ask<'_>, options: &Options) -> Result<Outcome> {
    let mut compared = compare(ask.old, ask.new, options)?;
    compared.alone.extend(inputs::unseen(ask.old, ask.new)?);
    let outcome = patch(ask, &compared.differing, options)?;
    Ok(Outcome { modules: compared.alone, ..outcome })
}

/// The patch of modules that differ.
fn patch(ask: &Ask<'_>, sources: &[Source], options: &Options) -> Result<Outcome> {
    let analysis = pipeline::analyse(sources, options)?;
    let kernel = ask.kernel.map(KernelImage::open).transpose()?;
    finish(ask, analysis, kernel.as_ref(), sources, options)
}

/// Has a patch anything for modules?
pub(super) fn concerned(analysis: &Analysis) -> BTreeSet<&HolderName> {
    let holders = analysis.set.items.iter().filter_map(|i| Some(&analysis.pairs.get(i.pair.0 as usize)?.holder));
    holders.filter(|h| **h != HolderName::Vmlinux).collect()
}

/// The patch of an analysis in which modules differ, whatever else does.
pub(super) fn finish(
    ask: &Ask<'_>,
    mut analysis: Analysis,
    kernel: Option<&KernelImage>,
    sources: &[Source],
    options: &Options,
) -> Result<Outcome> {
    let has_modules = !concerned(&analysis).is_empty();
    let Some(kernel) = kernel else {
        if let Some(dir) = ask.output.filter(|_| has_modules && analysis.refused.is_empty()) {
            let what = "a patch of modules is made for one kernel; name its image with --kernel";
            return Err(Error::new(codes::LP3007, Place::object(dir.display().to_string()), what));
        }
        return conclude::<KernelImage>(analysis, || Ok(None), options);
    };
    let holders = open(ask, &analysis, sources, kernel)?;
    let running = Running { kernel, modules: &holders };
    pipeline::check_names_on(&mut analysis, running, options);
    let outcome = conclude_on(analysis, running, options)?;
    if let Some(patch) = outcome.patch.as_ref().filter(|_| has_modules) {
        // What is handed out is read as somebody else's would be.
        refuse(Runtime::default().contradictions(&patch.manifest, running))?;
    }
    Ok(outcome)
}

/// The old files of what the patch replaces something in, and the modules that export something to those.
fn open(ask: &Ask<'_>, analysis: &Analysis, sources: &[Source], kernel: &KernelImage) -> Result<Vec<ModuleHolder>> {
    let concerned = concerned(analysis);
    if concerned.is_empty() {
        return match ask.modules.first() {
            Some(path) => Err(of_nothing(path)),
            None => Ok(Vec::new()),
        };
    }
    // An object of a module is bound to the file of that in the same tree, else to the one of the kernel.
    let compared = sources.iter().filter(|s| plain_name(&s.old_path).is_some());
    let mut given: BTreeMap<_, _> = compared.map(|s| (s.holder.clone(), s.old_path.clone())).collect();
    let mut exports = symvers(kernel.release(), ask.headers)?;
    let mut needed: BTreeSet<HolderName> = sources.iter().map(|s| s.holder.clone()).collect();
    let mut named = Vec::new();
    for path in ask.modules {
        let file = ModuleBinary::read(path)?;
        let name = HolderName::named(&file.name);
        if let Some(other) = given.insert(name.clone(), path.clone()) {
            let what = format!("it is the module {name}, and so is {}", other.display());
            return Err(Error::new(codes::LP3009, Place::object(path.display().to_string()), what));
        }
        // The headers do not tell of modules that are not the kernel's.
        if !exports.names(name.as_str()) {
            file.exports(path)?.iter().for_each(|symbol| exports.add(symbol, name.as_str()));
        }
        needed.extend(file.depends.iter().map(|d| HolderName::named(d)));
        named.push((name, path));
    }
    if let Some((_, path)) = named.iter().find(|(name, _)| !needed.contains(name)) {
        return Err(of_nothing(path));
    }
    let files = GivenModules { given, tree: ModuleTree::of(kernel.release())? };
    let modfiles: Vec<String> = concerned.into_iter().map(|name| files.modfile(name)).collect::<Result<_>>()?;
    let images = ModuleImages::of(kernel, &files, exports);
    images.open_with_exporters(modfiles.iter().map(String::as_str))
}

/// A file of a module that somebody names for nothing: another one was meant.
fn of_nothing(path: &Path) -> Error {
    let what = "nothing that differs is part of this module, or imports from it";
    Error::new(codes::LP3009, Place::object(path.display().to_string()), what)
}

/// What the headers of the release say that is exported: those that are named, installed or in the cache.
pub(super) fn symvers(release: &str, headers: Option<&Path>) -> Result<crate::kernel::Symvers> {
    if headers.is_some() {
        return pack::symvers(release, headers);
    }
    let cached = Unpacked::of(release)?.headers;
    match pack::symvers(release, None) {
        Err(_) if cached.is_dir() => pack::symvers(release, Some(&cached)),
        found => found,
    }
}

/// Compares the modules of two trees; those that are the same are left out.
pub(super) fn compare(old: &Path, new: &Path, options: &Options) -> Result<Compared> {
    let (olds, news) = (modules(old)?, modules(new)?);
    let pairs: Vec<Option<Source>> = olds
        .par_iter()
        .filter_map(|(name, path)| Some((name, path, news.get(name)?)))
        .map(|(name, old, new)| {
            let source = pair(name, old, new)?;
            Ok(differs(&source, options)?.then_some(source))
        })
        .collect::<Result<_>>()?;
    Ok(Compared { differing: pairs.into_iter().flatten().collect(), alone: alone(&olds, &news) })
}

/// Modules that only one side has.
pub(super) fn alone(olds: &BTreeMap<String, PathBuf>, news: &BTreeMap<String, PathBuf>) -> Vec<ModuleReport> {
    let mut found = Vec::new();
    for (mine, other, only_in) in [(olds, news, "old"), (news, olds, "new")] {
        let alone = mine.keys().filter(|n| !other.contains_key(*n));
        found.extend(alone.map(|n| ModuleReport { module: n.clone(), only_in }));
    }
    found.sort_by(|a, b| a.module.cmp(&b.module));
    found
}

/// By file name: a kernel has no two modules of one name, but `updates/` may have another build of one.
pub(super) fn modules(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut problems = Vec::new();
    for ending in ENDINGS.iter().filter_map(|e| e.rsplit('.').next()) {
        for path in below(root, ending)?.into_values() {
            let Some(name) = plain_name(&path) else { continue };
            if let Some(other) = found.insert(name.clone(), path.clone()) {
                let what = format!("{} and {} are both it", other.display(), path.display());
                problems.push(Problem::new(codes::LP2004, Place::object(name), what));
            }
        }
    }
    refuse(problems)?;
    Ok(found)
}

/// Two builds of a module, unpacked.
pub(super) fn pair(name: &str, old_path: &Path, new_path: &Path) -> Result<Source> {
    let read = |p: &Path| std::fs::read(p).map_err(|e| Error::io(p, &e));
    let (old, new) = (read(old_path)?, read(new_path)?);
    Ok(Source {
        name: name.to_owned(),
        old_path: old_path.to_owned(),
        new_path: new_path.to_owned(),
        old: unpacked_module(old_path, &old)?,
        new: unpacked_module(new_path, &new)?,
        holder: HolderName::of_file(name.strip_suffix(".ko").unwrap_or(name)),
    })
}

/// Do two builds differ in what runs?
pub(super) fn differs(source: &Source, options: &Options) -> Result<bool> {
    if source.old == source.new {
        return Ok(false);
    }
    // What is said of the patch as a whole need not be in this one.
    let options = Options { callbacks: Callbacks::default(), data: Vec::new(), ..options.clone() };
    let report = Report::of(&pipeline::analyse(std::slice::from_ref(source), &options)?);
    Ok(!report.changed.is_empty() || !report.refused.is_empty())
}
