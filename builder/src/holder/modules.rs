//! Modules as holders: their files as images, and what more each of them could import.
//!
//! Input: the kernel, `Module.symvers` of its headers and who finds the file of a module. Output: a [`ModuleHolder`] of each module
//! that is asked for; those they import from are laid out as well, each once. Refused: LP3009.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use super::{HolderName, VMLINUX};
use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::module::{self, Imported, LaidOut, ModuleArea};
use crate::kernel::{KernelImage, Symvers};

/// Knows where the files of modules are.
pub trait ModuleFinder: Debug {
    /// The file of a module, by the path kbuild gives it: `fs/binfmt_misc`.
    ///
    /// # Errors
    /// LP3009.
    fn file(&self, modfile: &str) -> Result<PathBuf>;
}

/// A module that has old code.
#[derive(Debug)]
pub struct ModuleHolder {
    /// What it is called.
    pub name: HolderName,
    /// Its file, linked at addresses of our choice.
    pub image: KernelImage,
    /// The modules it imports from, by path; they are loaded whenever it is (`ref_module` of kernel/module/main.c).
    exporters: BTreeMap<String, Arc<LaidOut>>,
    symvers: Arc<Symvers>,
}

impl ModuleHolder {
    /// Where a symbol is that the module may import, whether it does or not.
    ///
    /// # Errors
    /// Why it may not.
    pub fn import(&self, symbol: &str, kernel: &KernelImage) -> std::result::Result<u64, String> {
        let exporter = self.symvers.exporter(symbol).ok_or("neither the kernel nor a module exports it")?;
        let found = match exporter {
            VMLINUX => exported_by(kernel, symbol),
            by => match self.exporters.get(by) {
                Some(module) => module.exported(symbol),
                None => return Err(format!("{by} exports it, which {} does not depend on", self.name)),
            },
        };
        found.map(|f| f.0).ok_or_else(|| format!("{exporter} is said to export it and does not have it"))
    }
}

impl ModuleHolder {
    /// Is a module there whenever this one is, because this one imports from it?
    pub fn depends_on(&self, other: &HolderName) -> bool {
        self.exporters.keys().any(|by| HolderName::of_file(by) == *other)
    }
}

fn exported_by(kernel: &KernelImage, symbol: &str) -> Option<Imported> {
    kernel.symbol_by_name(symbol).filter(|s| !s.is_local()).map(|s| (s.addr, s.kind))
}

/// Modules of one kernel; each is opened when it is first asked for.
#[derive(Debug)]
pub struct ModuleImages<'a> {
    kernel: &'a KernelImage,
    files: &'a dyn ModuleFinder,
    symvers: Arc<Symvers>,
    area: RefCell<ModuleArea>,
    /// By name: a module that is given as a file and one that is found by its path are the same.
    laid_out: RefCell<BTreeMap<HolderName, Arc<LaidOut>>>,
    /// What was read, of whatever use it was.
    read: RefCell<BTreeMap<HolderName, PathBuf>>,
}

impl<'a> ModuleImages<'a> {
    /// None is opened yet.
    pub fn of(kernel: &'a KernelImage, files: &'a dyn ModuleFinder, symvers: Symvers) -> Self {
        let symvers = Arc::new(symvers);
        Self {
            kernel,
            files,
            symvers,
            area: RefCell::default(),
            laid_out: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// The files that were asked for by now, those with something wrong among them.
    pub fn read(&self) -> BTreeMap<HolderName, PathBuf> {
        self.read.borrow().clone()
    }

    /// A module as a holder.
    ///
    /// # Errors
    /// LP3009.
    pub fn open(&self, modfile: &str) -> Result<ModuleHolder> {
        let own = self.laid_out(modfile)?;
        let mut exporters = BTreeMap::new();
        for by in own.imports().filter_map(|name| self.symvers.exporter(name)).filter(|by| *by != VMLINUX) {
            if !exporters.contains_key(by) {
                exporters.insert(by.to_owned(), self.laid_out(by)?);
            }
        }
        let image = own.link(&|name| match self.symvers.exporter(name)? {
            VMLINUX => exported_by(self.kernel, name),
            by => exporters.get(by)?.exported(name),
        })?;
        let name = HolderName::module(own.name());
        Ok(ModuleHolder { name, image, exporters, symvers: Arc::clone(&self.symvers) })
    }

    /// Several modules as holders, and those that they import from, in the order of their names.
    ///
    /// # Errors
    /// LP3009.
    pub fn open_with_exporters<'m>(&self, modfiles: impl Iterator<Item = &'m str>) -> Result<Vec<ModuleHolder>> {
        let mut all: BTreeMap<HolderName, ModuleHolder> = BTreeMap::new();
        for modfile in modfiles {
            let module = self.open(modfile)?;
            for by in module.exporters.keys() {
                if let Entry::Vacant(free) = all.entry(HolderName::of_file(by)) {
                    free.insert(self.open(by)?);
                }
            }
            all.entry(module.name.clone()).or_insert(module);
        }
        Ok(all.into_values().collect())
    }

    fn laid_out(&self, modfile: &str) -> Result<Arc<LaidOut>> {
        if let Some(known) = self.laid_out.borrow().get(&HolderName::of_file(modfile)) {
            return Ok(Arc::clone(known));
        }
        let path = self.files.file(modfile)?;
        self.read.borrow_mut().insert(HolderName::of_file(modfile), path.clone());
        let file = path.display().to_string();
        let data = bounded::read(&path, bounded::LARGE)?;
        let found = Arc::new(module::lay_out(&file, &data, &mut self.area.borrow_mut())?);
        let odd = |what: String| Err(Error::new(codes::LP3009, Place::object(&file), what));
        if found.release() != self.kernel.release() {
            return odd(format!("it was built for {}, the kernel is {}", found.release(), self.kernel.release()));
        }
        if HolderName::module(found.name()) != HolderName::of_file(modfile) {
            return odd(format!("it calls itself {}", found.name()));
        }
        self.laid_out.borrow_mut().insert(HolderName::of_file(modfile), Arc::clone(&found));
        Ok(found)
    }
}
