//! Finds the pairs `lpbuild diff OLD NEW` is about: two objects, or two trees with the same relative paths and what they have of
//! modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::holder::HolderName;
use crate::plan::{Options, Source};
use crate::report::ModuleReport;

use super::modules;
use super::parts::{BuildTree, Parts, parts, unseen_in};

/// Objects of a build that are made from others, or are not part of the kernel proper.
const DERIVED: &[&str] = &["vmlinux.o", ".tmp_vmlinux.o", "built-in.o"];

/// Are both files whole kernels? One whole kernel and something else cannot be compared.
pub fn are_whole(old: &Path, new: &Path) -> Result<bool> {
    if !old.is_file() || !new.is_file() {
        return Ok(false);
    }
    match (crate::whole::is_whole(old), crate::whole::is_whole(new)) {
        (a, b) if a == b => Ok(a),
        (a, _) => {
            let (whole, other) = if a { (old, new) } else { (new, old) };
            let what = format!("{} is a whole kernel and {} is not", whole.display(), other.display());
            Err(Error::new(codes::LP2004, Place::object(other.display().to_string()), what))
        }
    }
}

/// Everything two builds have.
#[derive(Debug, Default)]
pub struct Inputs {
    /// What can be compared.
    pub sources: Vec<Source>,
    /// Modules that only one side has.
    pub alone: Vec<ModuleReport>,
}

/// Reads the pairs.
pub fn read(old: &Path, new: &Path, options: &Options) -> Result<Inputs> {
    match (old.is_dir(), new.is_dir()) {
        (false, false) => {
            let name = new.file_name().unwrap_or(new.as_os_str()).to_string_lossy().into_owned();
            Ok(Inputs { sources: vec![Source::read(name, old, new)?], ..Inputs::default() })
        }
        (true, true) => read_trees(old, new, options),
        (old_is_dir, _) => {
            let (dir, file) = if old_is_dir { (old, new) } else { (new, old) };
            let what = format!("{} is a folder and {} is not", dir.display(), file.display());
            Err(Error::new(codes::LP2004, Place::object(file.display().to_string()), what))
        }
    }
}

fn read_trees(old: &Path, new: &Path, options: &Options) -> Result<Inputs> {
    let (mut olds, mut news) = (tree(old)?, tree(new)?);
    let both = olds.modules.par_iter().filter_map(|(name, path)| Some((name, path, news.modules.get(name)?)));
    let both = both.map(|(name, old, new)| settled(modules::pair(name, old, new)?, options));
    let files: Vec<Source> = both.collect::<Result<_>>()?;
    let differ = files.iter().filter(|s| s.old != s.new).map(|s| s.name.clone()).collect();
    let Parts { holders, unseen } = parts(&mut olds, &mut news, &differ, options)?;
    let mut sources = paired(&olds, &news, &holders, options)?;
    sources.extend(files);
    if sources.is_empty() {
        let what = format!("there is no object file below {}", old.display());
        return Err(Error::new(codes::LP2004, Place::object(old.display().to_string()), what));
    }
    let mut alone = modules::alone(&olds.modules, &news.modules);
    alone.extend(unseen);
    Ok(Inputs { sources, alone })
}

/// Objects of modules beside two images, where the trees do not have the modules themselves; and modules of which there is nothing.
/// `differ` are the files of modules that differ.
pub(super) fn unlinked(
    old: &Path,
    new: &Path,
    differ: &BTreeSet<String>,
    options: &Options,
) -> Result<(Vec<Source>, Vec<ModuleReport>)> {
    let (mut olds, mut news) = (tree(old)?, tree(new)?);
    let Parts { holders, unseen } = parts(&mut olds, &mut news, differ, options)?;
    // All else is in the image.
    olds.objects.retain(|name, _| holders.contains_key(name));
    news.objects.retain(|name, _| holders.contains_key(name));
    let mut found = paired(&olds, &news, &holders, options)?;
    found.retain(|s| s.old != s.new);
    Ok((found, unseen))
}

/// Modules that kbuild lists in trees without an object, and that are in none.
pub(super) fn unseen(old: &Path, new: &Path) -> Result<Vec<ModuleReport>> {
    unseen_in(&tree(old)?, &tree(new)?)
}

fn tree(root: &Path) -> Result<BuildTree<'_>> {
    Ok(BuildTree { root, objects: objects_below(root)?, modules: modules::modules(root)? })
}

/// The objects of both trees, which have to be the same ones.
fn paired(
    old: &BuildTree<'_>,
    new: &BuildTree<'_>,
    holders: &BTreeMap<String, HolderName>,
    options: &Options,
) -> Result<Vec<Source>> {
    let (olds, news) = (&old.objects, &new.objects);
    let alone = |mine: &BTreeMap<String, PathBuf>, other: &BTreeMap<String, PathBuf>, side: &str| -> Vec<Problem> {
        let missing = mine.keys().filter(|k| !other.contains_key(*k));
        missing.map(|k| Problem::new(codes::LP2004, Place::object(k), format!("only the {side} tree has it"))).collect()
    };
    let mut problems = alone(olds, news, "old");
    problems.extend(alone(news, olds, "new"));
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    let source = |(name, path): (&String, &PathBuf)| {
        let holder = holders.get(name).cloned().unwrap_or(HolderName::Vmlinux);
        settled(Source { holder, ..Source::read(name.clone(), path, &news[name])? }, options)
    };
    olds.iter().map(source).collect()
}

/// A part of a module that does not differ in what runs stays as it is, and what its new build has inlined is what it keeps.
fn settled(mut source: Source, options: &Options) -> Result<Source> {
    if source.holder != HolderName::Vmlinux && !modules::differs(&source, options)? {
        source.old.clone_from(&source.new);
    }
    Ok(source)
}

/// All but those that others stand for.
fn objects_below(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut all = below(root, "o")?;
    all.retain(|_, path| !DERIVED.iter().any(|d| path.file_name().is_some_and(|n| n == *d)));
    Ok(all)
}

/// Files with an ending below a folder, by their path in it.
pub fn below(root: &Path, ending: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, &e))? {
            let entry = entry.map_err(|e| Error::io(&folder, &e))?;
            let kind = entry.file_type().map_err(|e| Error::io(&entry.path(), &e))?;
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.insert(relative, path);
            }
        }
    }
    Ok(found)
}
