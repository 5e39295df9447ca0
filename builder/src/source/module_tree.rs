//! Where the modules of a kernel are as files, and those that a build needs as images.
//!
//! Input: the folders that may have them, in order; the kernel, and `Module.symvers` of its headers. Output: [`ModuleTree`] finds
//! the file of a module that is part of the kernel, by the path kbuild gives it: below `kernel/`, never another one of the same
//! name in `updates/`. [`ModuleImages`] opens them, and those they import from, each once. Refused: LP3009.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::debian::Unpacked;
use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::module::{self, Imported, LaidOut, ModuleArea};
use crate::kernel::{KernelImage, Symvers};

/// Endings of module files, plain and compressed (scripts/Makefile.modinst).
const ENDINGS: &[&str] = &["ko", "ko.xz", "ko.zst", "ko.gz"];
/// The exporter in `Module.symvers` that is no module.
const KERNEL: &str = crate::holder::HolderName::Vmlinux.as_str();

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

    /// The file of a module: `fs/binfmt_misc` is `kernel/fs/binfmt_misc.ko` or a compressed one.
    ///
    /// # Errors
    /// LP3009: it is in none of the folders.
    pub fn file(&self, modfile: &str) -> Result<PathBuf> {
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

/// Modules of one kernel as images; each is opened when it is first asked for.
#[derive(Debug)]
pub struct ModuleImages<'a> {
    kernel: &'a KernelImage,
    tree: &'a ModuleTree,
    symvers: &'a Symvers,
    area: RefCell<ModuleArea>,
    laid_out: RefCell<BTreeMap<String, Rc<LaidOut>>>,
}

impl<'a> ModuleImages<'a> {
    /// None is opened yet.
    pub fn of(kernel: &'a KernelImage, tree: &'a ModuleTree, symvers: &'a Symvers) -> Self {
        Self { kernel, tree, symvers, area: RefCell::default(), laid_out: RefCell::default() }
    }

    /// The image of a module.
    ///
    /// # Errors
    /// LP3009.
    pub fn open(&self, modfile: &str) -> Result<KernelImage> {
        let own = self.laid_out(modfile)?;
        for name in own.imports() {
            let exporter = self.symvers.exporter(name).filter(|by| *by != KERNEL);
            exporter.map(|by| self.laid_out(by)).transpose()?;
        }
        own.link(&|name| self.imported(name))
    }

    fn imported(&self, name: &str) -> Option<Imported> {
        match self.symvers.exporter(name)? {
            KERNEL => self.kernel.symbol_by_name(name).filter(|s| !s.is_local()).map(|s| (s.addr, s.kind)),
            by => self.laid_out.borrow().get(by)?.exported(name),
        }
    }

    fn laid_out(&self, modfile: &str) -> Result<Rc<LaidOut>> {
        if let Some(known) = self.laid_out.borrow().get(modfile) {
            return Ok(Rc::clone(known));
        }
        let path = self.tree.file(modfile)?;
        let file = path.display().to_string();
        let data = bounded::read(&path, bounded::LARGE)?;
        let found = Rc::new(module::lay_out(&file, &data, &mut self.area.borrow_mut())?);
        let odd = |what: String| Err(Error::new(codes::LP3009, Place::object(&file), what));
        if found.release() != self.kernel.release() {
            return odd(format!("it was built for {}, the kernel is {}", found.release(), self.kernel.release()));
        }
        self.laid_out.borrow_mut().insert(modfile.to_owned(), Rc::clone(&found));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let second = ModuleTree { roots: vec![dir.path().join("b")] };
        assert_eq!(second.all(), ["fs/one".to_owned(), "net/two".into()].into());
    }
}
