//! Objects that may read a changed header -> those that can come out otherwise, before they are compiled.
//!
//! Each is read twice behind the preprocessor, as it was and with the change, and stays unless [`unit::differs`] says that nothing of what
//! differs gets into its code or data. That takes a quarter of the time of compiling both. In doubt (assembly, a source the
//! preprocessor refuses, a changed file that is read by a path around the change) it stays, and the compile says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::compile::{Compiler, Shadow};
use super::kbuild::Recipe;
use super::{Progress, unit};
use crate::codes;
use crate::error::{Error, Place, Result};

/// So many objects are compiled sooner than read.
const FEW: usize = 8;

/// A changed header, or source that others include.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WideHeader {
    /// Relative to the tree.
    pub file: String,
    /// Objects that read it.
    pub included_by: usize,
    /// Those of them that can come out otherwise.
    pub concerned: usize,
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Readers<'a> {
    /// How objects are compiled.
    pub recipes: &'a BTreeMap<String, Recipe>,
    /// Those that may read a changed file.
    pub supposed: &'a BTreeSet<String>,
    /// The changed files as they really are, and as the tree names them.
    pub changed: &'a BTreeMap<PathBuf, String>,
    /// Preprocessors at a time.
    pub jobs: usize,
}

/// What is found.
#[derive(Debug, Default)]
pub struct Unconcerned {
    /// Objects that come out as before.
    pub objects: BTreeSet<String>,
    /// By changed file: who reads it.
    pub wide: Vec<WideHeader>,
}

/// Finds the objects that come out as before.
pub fn unconcerned<'a>(
    compiler: &Compiler<'_>,
    shadow: &Shadow,
    readers: &Readers<'a>,
    progress: &dyn Progress,
) -> Result<Unconcerned> {
    let Readers { recipes, supposed, changed, jobs } = *readers;
    let todo: Vec<&Recipe> = supposed.iter().filter_map(|o| recipes.get(o)).collect();
    if todo.len() <= FEW {
        return Ok(Unconcerned::default());
    }
    progress.reading(todo.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.max(1)).build();
    let pool = pool.map_err(|e| Error::new(codes::LP1000, Place::default(), e.to_string()))?;
    let one = |recipe: &&'a Recipe| {
        let found = read(compiler, shadow, recipe, changed)?;
        progress.object(&recipe.object);
        Ok((recipe.object.as_str(), found))
    };
    // The first failure ends it.
    let found: BTreeMap<&str, (bool, BTreeSet<&str>)> =
        pool.install(|| todo.par_iter().map(one).collect::<Result<_>>())?;
    let of = |file: &str| {
        let readers = found.values().filter(|(_, files)| files.contains(file));
        let included_by = readers.clone().count();
        let concerned = readers.filter(|(concerned, _)| *concerned).count();
        WideHeader { file: file.to_owned(), included_by, concerned }
    };
    let wide = changed.values().map(|f| of(f)).filter(|w| w.concerned < w.included_by).collect();
    let objects = found.iter().filter(|(_, (concerned, _))| !concerned).map(|(o, _)| (*o).to_owned()).collect();
    Ok(Unconcerned { objects, wide })
}

/// Whether an object can come out otherwise, and the changed files it reads.
fn read<'c>(
    compiler: &Compiler<'_>,
    shadow: &Shadow,
    recipe: &Recipe,
    changed: &'c BTreeMap<PathBuf, String>,
) -> Result<(bool, BTreeSet<&'c str>)> {
    let unknown = |e: Error| match e.problems.first() {
        Some(p) if p.code == codes::LP6213 => Ok((true, BTreeSet::new())),
        _ => Err(e),
    };
    let old = match compiler.stock_unit(recipe) {
        Ok(old) => old,
        Err(e) => return unknown(e),
    };
    let files: BTreeSet<&str> =
        changed.iter().filter(|(path, _)| old.inputs.contains(*path)).map(|(_, f)| f.as_str()).collect();
    if files.is_empty() {
        return Ok((false, files));
    }
    let new = match compiler.new_unit(recipe, shadow) {
        Ok(new) => new,
        Err(e) => return unknown(e),
    };
    let is_c = recipe.source.ends_with(".c");
    let same = old.text == new.text || is_c && !unit::differs(&old.text, &new.text);
    Ok((!same || shadow.is_led_around(&new.inputs), files))
}
