//! Where the modules of a kernel are as files.
//!
//! Input: the folders that may have them, in order. Output: the file of a module that is part of the kernel, by the path kbuild
//! gives it: below `kernel/`, never another one of the same name in `updates/`. Refused: LP3009.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::debian::Unpacked;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::holder::{HolderName, ModuleFinder};

/// Endings of module files, plain and compressed (scripts/Makefile.modinst).
pub const ENDINGS: &[&str] = &["ko", "ko.xz", "ko.zst", "ko.gz"];

/// Folders like `/lib/modules/RELEASE`.
#[derive(Clone, Debug, Default)]
pub struct ModuleTree {
    /// In the order in which they are looked into.
    pub roots: Vec<PathBuf>,
}

impl ModuleTree {
    /// Those of a release: installed, or unpacked into the cache with its image.
    ///
    /// # Errors
    /// There is no place for a cache.
    pub fn of(release: &str) -> Result<Self> {
        let installed = ["/lib/modules", "/usr/lib/modules"].map(|d| Path::new(d).join(release));
        let cached = Unpacked::of(release)?.modules;
        Ok(Self { roots: installed.into_iter().chain([cached]).collect() })
    }

    /// The same behind a folder that somebody names.
    ///
    /// # Errors
    /// There is no place for a cache.
    pub fn with(first: Option<&Path>, release: &str) -> Result<Self> {
        let mut tree = Self::of(release)?;
        tree.roots.splice(0..0, first.map(Path::to_path_buf));
        Ok(tree)
    }

    /// The file of an external module, by its name: the one below `updates/` (DKMS has `updates/dkms/`) and `extra/`, else anywhere else,
    /// of the first folder that has any.
    ///
    /// # Errors
    /// LP3009 where there is none, or more than one.
    pub fn external(&self, name: &HolderName) -> Result<PathBuf> {
        let odd = |what: String| Error::new(codes::LP3009, Place::object(name.as_str()), what);
        for root in &self.roots {
            let (mut first, mut others) = (BTreeMap::new(), BTreeMap::new());
            for path in below(root) {
                let relative = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
                let stem = ENDINGS.iter().find_map(|e| relative.strip_suffix(e)?.strip_suffix('.'));
                if stem.is_none_or(|s| HolderName::of_file(s) != *name) {
                    continue;
                }
                let Ok(real) = path.canonicalize() else { continue };
                let is_first = ["updates/", "extra/"].iter().any(|f| relative.starts_with(f));
                if is_first { &mut first } else { &mut others }.insert(real, path);
            }
            let found = Vec::from_iter(if first.is_empty() { others } else { first }.into_values());
            match &found[..] {
                [] => {}
                [one] => return Ok(one.clone()),
                several => {
                    let all: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
                    return Err(odd(format!(
                        "{} are both it; name the one that is loaded with --module",
                        all.join(" and ")
                    )));
                }
            }
        }
        let roots: Vec<String> = self.roots.iter().map(|r| r.display().to_string()).collect();
        let what = format!(
            "no {name}.ko, plain or compressed, is in {}; install it, or name its file with --module",
            roots.join(" or ")
        );
        Err(odd(what))
    }

    /// Every module that is part of the kernel, as kbuild calls it, of the first folder that has any.
    pub fn all(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for root in &self.roots {
            let top = root.join("kernel");
            let mut folders = vec![top.clone()];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let path = entry.path();
                    if path.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    let name = path.strip_prefix(&top).ok().and_then(Path::to_str).unwrap_or_default();
                    let stem = ENDINGS.iter().find_map(|e| name.strip_suffix(e)?.strip_suffix('.'));
                    found.extend(stem.map(str::to_owned));
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }
}

/// The files below a folder; links to folders (`build`, `source`) are not followed. In the order of their names.
fn below(root: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => drop(found.insert(entry.path())),
            }
        }
    }
    found
}

impl ModuleFinder for ModuleTree {
    /// `fs/binfmt_misc` is `kernel/fs/binfmt_misc.ko` or a compressed one.
    fn file(&self, modfile: &str) -> Result<PathBuf> {
        let plain = !modfile.is_empty() && !modfile.split('/').any(|p| p.is_empty() || p == "." || p == "..");
        let candidates =
            self.roots.iter().filter(|_| plain).flat_map(|root| {
                ENDINGS.iter().map(move |ending| root.join("kernel").join(format!("{modfile}.{ending}")))
            });
        candidates.into_iter().find(|p| p.is_file()).ok_or_else(|| {
            let roots: Vec<String> = self.roots.iter().map(|r| r.join("kernel").display().to_string()).collect();
            let what = format!("no {modfile}.ko, plain or compressed, is in {}", roots.join(" or "));
            Error::new(codes::LP3009, Place::object(modfile), what)
        })
    }
}

/// Files that somebody names, and the folders for all other modules.
#[derive(Clone, Debug, Default)]
pub struct GivenModules {
    /// By the name of the module.
    pub given: BTreeMap<HolderName, PathBuf>,
    /// For those that are not given.
    pub tree: ModuleTree,
}

impl GivenModules {
    /// What a module is opened as: its name where its file is given, else the path kbuild gives it.
    ///
    /// # Errors
    /// LP3009: no module of the kernel has this name.
    pub fn modfile(&self, name: &HolderName) -> Result<String> {
        if self.given.contains_key(name) {
            return Ok(name.to_string());
        }
        self.tree.all().into_iter().find(|m| HolderName::of_file(m) == *name).ok_or_else(|| {
            let roots: Vec<String> = self.tree.roots.iter().map(|r| r.join("kernel").display().to_string()).collect();
            let what = format!("no module of this name is in {}; name its file with --module", roots.join(" or "));
            Error::new(codes::LP3009, Place::object(name.as_str()), what)
        })
    }
}

impl ModuleFinder for GivenModules {
    fn file(&self, modfile: &str) -> Result<PathBuf> {
        match self.given.get(&HolderName::of_file(modfile)) {
            Some(path) => Ok(path.clone()),
            None => self.tree.file(modfile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_module_is_found_by_its_name_and_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let files = [
            "kernel/net/one-x.ko",
            "updates/dkms/one_x.ko.xz",
            "extra/two.ko",
            "updates/two.ko.zst",
            "kernel/fs/three.ko",
        ];
        files.iter().for_each(|f| make(f));
        // A link to the same file is no other one.
        std::os::unix::fs::symlink("one_x.ko.xz", dir.path().join("updates/dkms/one-x.ko.xz")).unwrap();
        let tree = ModuleTree { roots: vec![dir.path().join("none"), dir.path().to_path_buf()] };
        let find = |name: &str| tree.external(&HolderName::module(name));
        let real = |path: PathBuf| path.canonicalize().unwrap();
        assert_eq!(real(find("one-x").unwrap()), real(dir.path().join("updates/dkms/one_x.ko.xz")));
        assert_eq!(find("three").unwrap(), dir.path().join("kernel/fs/three.ko"));
        let e = find("two").unwrap_err().to_string();
        assert!(e.contains("extra/two.ko and ") && e.contains("updates/two.ko.zst") && e.contains("--module"), "{e}");
        let e = find("four").unwrap_err().to_string();
        assert!(e.contains("LP3009") && e.contains("/none or ") && e.contains("--module"), "{e}");
    }

    #[test]
    fn a_module_is_found_by_the_path_kbuild_gives_it_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for path in ["b/kernel/fs/one.ko.xz", "b/updates/fs/two.ko", "b/kernel/net/two.ko", "a/kernel/fs/three.ko.zst"]
        {
            make(path);
        }
        let tree = ModuleTree { roots: ["a", "b"].map(|r| dir.path().join(r)).into() };
        assert_eq!(tree.file("fs/one").unwrap(), dir.path().join("b/kernel/fs/one.ko.xz"));
        assert_eq!(tree.file("fs/three").unwrap(), dir.path().join("a/kernel/fs/three.ko.zst"));
        for absent in ["fs/two", "../updates/fs/two", "", "fs//one", "one"] {
            let e = tree.file(absent).unwrap_err();
            assert!(e.to_string().contains("LP3009") && e.is_refusal(), "{absent}: {e}");
        }
        assert_eq!(tree.all(), ["fs/three".to_owned()].into(), "the first folder that has any");
        let e =
            ModuleTree::with(Some(Path::new("/given")), "6.1.0-none").unwrap().file("fs/one").unwrap_err().to_string();
        let places = ["/given/kernel or ", "/lib/modules/6.1.0-none/kernel or ", "kernels/6.1.0-none"];
        assert!(places.iter().all(|p| e.contains(p)), "every place is named: {e}");
        let second = ModuleTree { roots: vec![dir.path().join("b")] };
        assert_eq!(second.all(), ["fs/one".to_owned(), "net/two".into()].into());
    }
}
