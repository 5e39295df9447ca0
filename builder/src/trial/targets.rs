//! The modules that a patch has functions of, for a guest: their files and those of what they need, in the order they load.
//!
//! Input: a manifest, folders of modules, files that somebody names. Output: [`Target`]s; none for a patch of the kernel alone. Refused: a
//! module that is in none of the folders, a file of one that is not needed (LP3009), another build than the patch was made for (LP6404).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::hash::to_hex;
use crate::holder::{HolderName, ModuleBinary, ModuleFinder};
use crate::plan::manifest::Manifest;
use crate::source::module_tree::ModuleTree;

/// A module that is brought along.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its file.
    pub file: ModuleBinary,
    /// The patch has functions of it; else it is needed by one that it has functions of.
    pub patched: bool,
}

/// All of them, what is needed before what needs it.
pub(super) fn find(manifest: &Manifest, tree: &ModuleTree, files: &[PathBuf]) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    let mut given: BTreeMap<String, (ModuleBinary, &PathBuf)> = BTreeMap::new();
    let odd = |path: &PathBuf, what: String| Error::new(codes::LP3009, Place::object(path.display().to_string()), what);
    for path in files {
        let file = ModuleBinary::read(path)?;
        let name = file.name.clone();
        if let Some((_, other)) = given.insert(name.clone(), (file, path)) {
            return Err(odd(path, format!("it is the module {name}, and so is {}", other.display())));
        }
    }
    let known = if manifest.holders.is_empty() { BTreeSet::new() } else { tree.all() };
    let named = |file: &String| (HolderName::of_file(file).to_string(), file.clone());
    let known = Known { tree, by_name: known.iter().map(named).collect(), given: &given };
    for holder in &manifest.holders {
        add(&holder.name, &known, &mut Vec::new(), &mut all)?;
    }
    if let Some((name, (_, path))) = given.iter().find(|(name, _)| all.iter().all(|t| t.file.name != **name)) {
        return Err(odd(
            path,
            format!("it is the module {name}, which the patch has nothing of, nor needs what it has"),
        ));
    }
    for holder in &manifest.holders {
        let Some(target) = all.iter_mut().find(|t| t.file.name == holder.name) else { continue };
        target.patched = manifest.functions.iter().any(|f| f.object == holder.name);
        let found = to_hex(&target.file.build_id);
        if found != holder.build_id {
            let what = format!(
                "the module {} there has the build id {found}, the patch was made for {}",
                holder.name, holder.build_id
            );
            return Err(Error::new(codes::LP6404, Place::object(&holder.name), what));
        }
    }
    Ok(all)
}

/// Where modules are looked for.
struct Known<'a> {
    tree: &'a ModuleTree,
    /// Those of the kernel, as kbuild calls them.
    by_name: BTreeMap<String, String>,
    /// Those that somebody names come first.
    given: &'a BTreeMap<String, (ModuleBinary, &'a PathBuf)>,
}

impl Known<'_> {
    fn file(&self, name: &str, needed_by: Option<&String>) -> Result<ModuleBinary> {
        if let Some((file, _)) = self.given.get(name) {
            return Ok(file.clone());
        }
        if let Some(file) = self.by_name.get(name) {
            return ModuleBinary::read(&self.tree.file(file)?);
        }
        // Those that are built beside the kernel are not below `kernel/`.
        let path = self.tree.external(&HolderName::module(name)).map_err(|mut e| {
            for problem in &mut e.problems {
                problem.detail.push_str(&needed_by.map_or_else(String::new, |by| format!("; {by} needs it")));
            }
            e
        })?;
        ModuleBinary::read(&path)
    }
}

fn add(name: &str, known: &Known<'_>, way: &mut Vec<String>, all: &mut Vec<Target>) -> Result<()> {
    // Two modules that need each other cannot be loaded; depmod says so.
    if all.iter().any(|t| t.file.name == name) || way.iter().any(|w| w == name) {
        return Ok(());
    }
    let file = known.file(name, way.last())?;
    way.push(name.to_owned());
    for needed in &file.depends {
        add(needed, known, way, all)?;
    }
    way.pop();
    all.push(Target { file, patched: false });
    Ok(())
}
