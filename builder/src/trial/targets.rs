//! The modules that a patch has functions of, for a guest: their files and those of what they need, in the order they load.
//!
//! Input: a manifest, folders of modules. Output: [`Target`]s; none for a patch of the kernel alone. Refused: a module that is in none of
//! the folders (LP3009), or is another build than the patch was made for (LP6404).

use std::collections::BTreeMap;

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
pub(super) fn find(manifest: &Manifest, tree: &ModuleTree) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    if manifest.holders.is_empty() {
        return Ok(all);
    }
    let known = tree.all();
    let named = |file: &String| (HolderName::of_file(file).to_string(), file.clone());
    let by_name: BTreeMap<String, String> = known.iter().map(named).collect();
    for holder in &manifest.holders {
        add(&holder.name, tree, &by_name, &mut Vec::new(), &mut all)?;
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

fn add(
    name: &str,
    tree: &ModuleTree,
    by_name: &BTreeMap<String, String>,
    way: &mut Vec<String>,
    all: &mut Vec<Target>,
) -> Result<()> {
    // Two modules that need each other cannot be loaded; depmod says so.
    if all.iter().any(|t| t.file.name == name) || way.iter().any(|w| w == name) {
        return Ok(());
    }
    let known = by_name.get(name).map(|file| tree.file(file)).transpose()?;
    // Those that are built beside the kernel are not below `kernel/`.
    let Some(path) = known.or_else(|| tree.external(&HolderName::module(name)).ok()) else {
        let roots: Vec<String> = tree.roots.iter().map(|r| r.join("kernel").display().to_string()).collect();
        let by = way.last().map_or_else(String::new, |by| format!(", which {by} needs"));
        let what = format!("no {name}.ko{by}, plain or compressed, is in {}", roots.join(" or "));
        return Err(Error::new(codes::LP3009, Place::object(name), what));
    };
    let file = ModuleBinary::read(&path)?;
    way.push(name.to_owned());
    for needed in &file.depends {
        add(needed, tree, by_name, way, all)?;
    }
    way.pop();
    all.push(Target { file, patched: false });
    Ok(())
}
