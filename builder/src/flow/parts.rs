//! Which objects of a build tree are parts of modules, as kbuild wrote it down.
//!
//! Input: a tree. Output: for each `NAME.mod` in it the objects it lists (`cmd_mod` of scripts/Makefile.build: `$(obj)/X.o`, one a
//! line), and what kbuild makes of those: `NAME.mod.o`, which modpost writes, and `NAME.o`, where that is none of them but all of them
//! linked; it stands for those that are not in the tree. Where both trees have the `.ko`, that is compared and stands for its objects;
//! else they are, as parts of the module. An object of which no such file says anything is taken as a part of the kernel. A module of
//! which there is neither an object nor the `.ko` is named as one that was not compared. Refused: an object of several modules without
//! their files (LP6307), a `.ko` that is the same where its objects are not (LP2004).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::inputs::below;
use super::modules;
use crate::bounded;
use crate::codes;
use crate::error::{Place, Problem, Result, refuse};
use crate::holder::HolderName;
use crate::plan::{Options, Source};
use crate::report::ModuleReport;

/// A tree: its objects and the files of its modules, by name.
#[derive(Debug)]
pub(super) struct BuildTree<'a> {
    /// The folder.
    pub root: &'a Path,
    /// By the path in it.
    pub objects: BTreeMap<String, PathBuf>,
    /// By the name of the file.
    pub modules: BTreeMap<String, PathBuf>,
}

/// What the lists of two trees say.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Objects that are parts of modules.
    pub holders: BTreeMap<String, HolderName>,
    /// Modules that neither tree has anything of.
    pub unseen: Vec<ModuleReport>,
}

/// Takes out of two trees the objects that others stand for, and says of which module the rest are that are parts of any. `differ`
/// are the files of modules, by name, that differ in what runs.
pub(super) fn parts(
    old: &mut BuildTree<'_>,
    new: &mut BuildTree<'_>,
    differ: &BTreeSet<String>,
    options: &Options,
) -> Result<Parts> {
    let lists = [listed(old.root, &old.objects)?, listed(new.root, &new.objects)?];
    let unseen = unseen(&lists, [old, new]);
    let modfiles: BTreeSet<&String> = lists.iter().flat_map(BTreeMap::keys).collect();
    let mut owners: BTreeMap<String, BTreeSet<HolderName>> = BTreeMap::new();
    let (mut stood_for, mut problems) = (BTreeSet::new(), Vec::new());
    for modfile in modfiles {
        let both = || lists.iter().filter_map(|l| l.get(modfile));
        let objects: BTreeSet<&String> = both().flat_map(|l| &l.objects).collect();
        stood_for.extend(both().flat_map(|l| &l.derived).cloned());
        let holder = HolderName::of_file(modfile);
        let file = format!("{}.ko", modfile.rsplit('/').next().unwrap_or(modfile));
        if !old.modules.contains_key(&file) || !new.modules.contains_key(&file) {
            for object in objects {
                owners.entry(object.clone()).or_default().insert(holder.clone());
            }
            continue;
        }
        if !differ.contains(&file)
            && let Some(object) = differing(&objects, old, new, options)?
        {
            let what =
                format!("it does not differ, and {object} does, which is a part of it: the file is older than that");
            problems.push(Problem::new(codes::LP2004, Place::object(file), what));
        }
        stood_for.extend(objects.into_iter().cloned());
    }
    let stays = |name: &String| owners.contains_key(name) || !stood_for.contains(name);
    old.objects.retain(|name, _| stays(name));
    new.objects.retain(|name, _| stays(name));
    let mut holders = BTreeMap::new();
    for (object, mut of) in owners {
        match (of.pop_first(), of.pop_first()) {
            (Some(one), None) => drop(holders.insert(object, one)),
            (Some(a), Some(b)) if differing(&BTreeSet::from([&object]), old, new, options)?.is_some() => {
                problems.push(Problem::new(codes::LP6307, Place::object(object), format!("it is part of {a} and {b}")));
            }
            _ => {}
        }
    }
    refuse(problems)?;
    Ok(Parts { holders, unseen })
}

/// Modules of which there is a list and nothing else. One whose file only one tree has is named anyway.
fn unseen(lists: &[BTreeMap<String, Listed>; 2], trees: [&BuildTree<'_>; 2]) -> Vec<ModuleReport> {
    let any = |modfile: &String| lists.iter().any(|l| l.get(modfile).is_some_and(|l| !l.objects.is_empty()));
    let modfiles: BTreeSet<&String> = lists.iter().flat_map(BTreeMap::keys).collect();
    let named = modfiles.into_iter().filter(|modfile| !any(modfile)).map(|modfile| format!("{modfile}.ko"));
    let is_there = |ko: &String| trees.iter().any(|t| t.modules.contains_key(ko.rsplit('/').next().unwrap_or(ko)));
    named.filter(|ko| !is_there(ko)).map(|module| ModuleReport { module, only_in: "neither" }).collect()
}

/// The same for two trees that have no object.
pub(super) fn unseen_in(old: &BuildTree<'_>, new: &BuildTree<'_>) -> Result<Vec<ModuleReport>> {
    Ok(unseen(&[listed(old.root, &old.objects)?, listed(new.root, &new.objects)?], [old, new]))
}

/// An object that differs in what runs, or that only one side has.
fn differing<'o>(
    objects: &BTreeSet<&'o String>,
    old: &BuildTree<'_>,
    new: &BuildTree<'_>,
    options: &Options,
) -> Result<Option<&'o String>> {
    for object in objects {
        match (old.objects.get(*object), new.objects.get(*object)) {
            (Some(a), Some(b)) => {
                if modules::differs(&Source::read(object.as_str(), a, b)?, options)? {
                    return Ok(Some(object));
                }
            }
            (None, None) => {}
            _ => return Ok(Some(object)),
        }
    }
    Ok(None)
}

/// A module of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listed {
    /// Its objects, by their paths in the tree; those that are there.
    objects: BTreeSet<String>,
    /// Objects that consist of these.
    derived: BTreeSet<String>,
}

/// The modules of a tree, as kbuild calls them: the path of the `.ko` without the ending.
fn listed(root: &Path, objects: &BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Listed>> {
    let mut found = BTreeMap::new();
    for (name, path) in below(root, "mod")? {
        let Some(modfile) = name.strip_suffix(".mod") else { continue };
        let bytes = bounded::read(&path, bounded::TEXT)?;
        let text = String::from_utf8_lossy(&bytes);
        // What lists no object is of another program.
        if parts_in(&text).next().is_some() {
            found.insert(modfile.to_owned(), of(modfile, &text, &|object| objects.contains_key(object)));
        }
    }
    Ok(found)
}

fn of(modfile: &str, text: &str, is_there: &dyn Fn(&str) -> bool) -> Listed {
    let mut objects: BTreeSet<String> = parts_in(text).filter_map(|o| in_tree(o, is_there)).collect();
    let linked = format!("{modfile}.o");
    if objects.is_empty() && parts_in(text).next().is_some() && is_there(&linked) {
        objects.insert(linked.clone());
    }
    let derived = [format!("{modfile}.mod.o"), linked];
    let derived = derived.into_iter().filter(|d| is_there(d) && !objects.contains(d)).collect();
    Listed { objects, derived }
}

fn parts_in(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| word.ends_with(".o"))
}

/// A path that begins at the root of the build, of which the tree may be a folder: what is left when what leads there is taken away.
fn in_tree(object: &str, is_there: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in object.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    (0..parts.len()).map(|from| parts[from..].join("/")).find(|path| is_there(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kbuild_lists_is_found_in_a_tree_and_in_a_folder_of_it() {
        let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|n| (*n).to_owned()).collect() };
        // tree, module, what its file says, its objects, what is made of them
        type Case<'a> = (&'a [&'a str], &'a str, &'a str, &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (&["fs/a.o", "fs/a.mod.o"], "fs/a", "fs/a.o\n", &["fs/a.o"], &["fs/a.mod.o"]),
            (&["a.o", "a.mod.o"], "a", "fs/a.o\n", &["a.o"], &["a.mod.o"]),
            (&["k/k.o", "k/x.o", "v/y.o"], "k/k", "k/x.o\nk/../v/y.o\n", &["k/x.o", "v/y.o"], &["k/k.o"]),
            (&["out/m.o"], "out/m", "/build/out/m.o", &["out/m.o"], &[]),
            // Before 5.10: all in one line, and a second one of undefined symbols.
            (&["b/x.o", "b/y.o"], "b/b", "b/x.o b/y.o\n\nsymbol\n", &["b/x.o", "b/y.o"], &[]),
            (&["a.o"], "other", "module other.example\n", &[], &[]),
            // The parts are away, and all of them linked are there.
            (&["b/b.o", "b/b.mod.o"], "b/b", "b/x.o\nb/y.o\n", &["b/b.o"], &["b/b.mod.o"]),
        ];
        for (tree, module, text, objects, derived) in cases {
            let found = of(module, text, &|o| tree.contains(&o));
            assert_eq!((found.objects, found.derived), (set(objects), set(derived)), "{module}: {text}");
        }
    }
}
