//! The files of external modules: which one the kernel loads, what it says of where it was built, and what it imports from others.
//!
//! Input: files that somebody names, and the folders of modules. Refused (LP3009): one that is in none of the folders, or in several
//! places of one, as what is loaded then hangs on depmod's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::holder::{HolderName, ModuleBinary};
use crate::kernel::Symvers;
use crate::source::module_tree::ModuleTree;

/// Files by the names of their modules.
#[derive(Debug)]
pub(super) struct Files<'a> {
    tree: &'a ModuleTree,
    found: BTreeMap<HolderName, ModuleFile>,
}

/// One of them.
#[derive(Debug)]
struct ModuleFile {
    path: PathBuf,
    binary: ModuleBinary,
}

impl<'a> Files<'a> {
    /// Those that are named, which must be of these modules.
    pub(super) fn of(named: &[PathBuf], tree: &'a ModuleTree, modules: &BTreeSet<HolderName>) -> Result<Self> {
        let mut found: BTreeMap<HolderName, ModuleFile> = BTreeMap::new();
        for path in named {
            let binary = ModuleBinary::read(path)?;
            let name = HolderName::module(&binary.name);
            let odd = |what: String| Error::new(codes::LP3009, Place::object(path.display().to_string()), what);
            if !modules.contains(&name) {
                let known: Vec<&str> = modules.iter().map(HolderName::as_str).collect();
                return Err(odd(format!("it is the module {name}; from the source come {}", known.join(", "))));
            }
            if let Some(other) = found.get(&name) {
                return Err(odd(format!("it is the module {name}, and so is {}", other.path.display())));
            }
            found.insert(name, ModuleFile { path: path.clone(), binary });
        }
        Ok(Self { tree, found })
    }

    /// The file of a module.
    fn get(&mut self, name: &HolderName) -> Result<&ModuleFile> {
        if !self.found.contains_key(name) {
            let path = self.tree.external(name)?;
            let binary = ModuleBinary::read(&path)?;
            self.found.insert(name.clone(), ModuleFile { path, binary });
        }
        self.found.get(name).ok_or_else(|| Error::new(codes::LP1000, Place::object(name.as_str()), "it was just found"))
    }

    /// Where the sources were when these modules were built: what comes before their relative paths in the names of files that messages
    /// of WARN and BUG have. Modules that are not here say nothing.
    pub(super) fn built_in(&mut self, modules: &BTreeSet<HolderName>, sources: &BTreeSet<String>) -> Option<String> {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for name in modules {
            let Ok(file) = self.get(name) else { continue };
            for folder in file.binary.content.split(|b| *b == 0).filter_map(|text| folder_of(text, sources)) {
                *count.entry(folder).or_default() += 1;
            }
        }
        count.into_iter().max_by_key(|(_, n)| *n).map(|(folder, _)| folder)
    }

    /// The files of these modules, and of other external ones that they import from; adds to `exports` what those export.
    pub(super) fn with_exporters(
        mut self,
        modules: BTreeSet<HolderName>,
        exports: &mut Symvers,
    ) -> Result<BTreeMap<HolderName, PathBuf>> {
        let (mut todo, mut done) = (Vec::from_iter(modules), BTreeSet::new());
        while let Some(name) = todo.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            let depends: Vec<HolderName> =
                self.get(&name)?.binary.depends.iter().map(|d| HolderName::module(d)).collect();
            for needed in depends {
                if exports.names(needed.as_str()) {
                    continue;
                }
                let file = self.get(&needed)?;
                for symbol in file.binary.exports(&file.path)? {
                    exports.add(&symbol, needed.as_str());
                }
                todo.push(needed);
            }
        }
        Ok(self.found.into_iter().filter(|(n, _)| done.contains(n)).map(|(n, f)| (n, f.path)).collect())
    }
}

/// The folder that a text names a source file in.
fn folder_of(text: &[u8], sources: &BTreeSet<String>) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.starts_with('/') && t.len() < 4096)?;
    let mut slashes = text.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    let at = slashes.find(|at| text.get(at + 1..).is_some_and(|name| sources.contains(name)))?;
    text.get(..at).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_file_says_where_the_module_was_built() {
        let sources: BTreeSet<String> = ["m.c", "sub/m.c"].map(str::to_owned).into();
        for (text, want) in [
            ("/var/lib/dkms/m/1.0/build/m.c", Some("/var/lib/dkms/m/1.0/build")),
            ("/b/sub/m.c", Some("/b")),
            ("/b/other/n.c", None),
            ("m.c", None),
            ("/m.c", None),
        ] {
            assert_eq!(folder_of(text.as_bytes(), &sources).as_deref(), want, "{text}");
        }
    }
}
