//! Makefiles of folders that a change touches: which objects come, and which are compiled otherwise than before.
//!
//! kbuild is asked about the folders twice, as they are and with the change, and the answers are compared; nothing in the
//! Makefiles is interpreted here. Refused: objects that go, or move between kernel and module (LP6306).

use std::collections::{BTreeMap, BTreeSet};

use super::compile::Shadow;
use super::kbuild::{Kbuild, Part, Recipe};
use super::tree::Tree;
use crate::error::{Error, Place, Problem, Result};
use crate::tool::Log;

/// Objects of vmlinux that the changed Makefiles (paths relative to the tree) add or compile otherwise, and whether each is
/// new. The recipes name the stock source.
pub fn compare(tree: &Tree, shadow: &Shadow, makefiles: &BTreeSet<String>, log: &Log) -> Result<Vec<(Recipe, bool)>> {
    let changed = Kbuild { source: &shadow.source, build: &tree.build, log };
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for makefile in makefiles {
        let folder = makefile.rsplit_once('/').map_or(".", |(d, _)| d);
        let below = |o: &String| folder == "." || o.strip_prefix(folder).is_some_and(|r| r.starts_with('/'));
        let old: BTreeMap<String, Part> =
            tree.layout.objects.iter().filter(|(o, _)| below(o)).map(|(o, p)| (o.clone(), *p)).collect();
        let new = changed.list(&tree.layout, folder)?;
        for (object, part) in &old {
            if new.get(object) != Some(part) {
                let what = match new.get(object) {
                    None => format!("with the changed {makefile} it is not built any more"),
                    Some(_) => format!("with the changed {makefile} it moves between the kernel and a module"),
                };
                problems.push(Problem::new("LP6306", Place::object(object), what));
            }
        }
        let builtin = |of: &BTreeMap<String, Part>| -> BTreeSet<String> {
            of.iter().filter(|(_, p)| **p == Part::Builtin).map(|(o, _)| o.clone()).collect()
        };
        let before = tree.kbuild(log).recipes(&tree.layout, &builtin(&old))?;
        let after = changed.dry_recipes(&tree.layout, &builtin(&new))?;
        let (from, to) = (shadow.source.to_string_lossy(), tree.source.to_string_lossy());
        for (object, mut recipe) in after {
            recipe.flags = recipe.flags.replace(from.as_ref(), &to);
            recipe.source = recipe.source.replace(from.as_ref(), &to);
            let is_new = !old.contains_key(&object);
            if is_new || before.get(&object) != Some(&recipe) {
                found.push((recipe, is_new));
            }
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Error { problems }) }
}
