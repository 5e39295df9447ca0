//! Run-pre matching of the objects of stock modules against the files of those modules: is what lpbuild compiles what was shipped?
//!
//! Input: a stock kernel, its prepared tree and the paths of modules as kbuild has them. Output: of each module which functions and
//! read-only data are the file's, which are not and why, and how many entries each table has here and there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use lpbuild::bind;
use lpbuild::holder::{ModuleFinder, ModuleHolder, ModuleImages};
use lpbuild::ingest;
use lpbuild::kernel::{KernelImage, Symvers};
use lpbuild::source::compile::Compiler;
use lpbuild::source::kbuild::{ObjectPart, Recipe};
use lpbuild::source::locate::TargetKernel;
use lpbuild::source::module_tree::ModuleTree;
use lpbuild::source::tree as prepared;
use lpbuild::symbolize::{AtomKind, Class, Object, Table, TextKind};
use lpbuild::tool::Log;

use crate::kernels::Kernel;
use crate::tree::Tree;

/// What was found of one module.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// As kbuild calls it: `fs/binfmt_misc`.
    pub modfile: String,
    /// Objects it is linked from.
    pub objects: usize,
    /// Functions, and pieces of functions, that are the file's.
    pub functions: usize,
    /// Data that nothing writes, of which content and place are the file's.
    pub constants: usize,
    /// What is not, with the code and the reason.
    pub others: Vec<String>,
    /// Entries of each table: in the objects, in the file.
    pub tables: BTreeMap<String, (usize, usize)>,
}

impl Found {
    /// The tables of which the objects and the file do not have the same number of entries.
    pub fn odd_tables(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.tables.iter().filter(|(_, n)| n.0 != n.1).map(|(name, n)| (name.as_str(), n.0, n.1))
    }
}

/// A kernel whose modules are looked at.
#[derive(Debug)]
pub struct RunPre {
    target: TargetKernel,
    tree: prepared::Tree,
    modules: ModuleTree,
    symvers: Symvers,
}

impl RunPre {
    /// Everything of a stock kernel.
    pub fn of(kernel: &Kernel) -> Result<Self> {
        let target = Tree::target(kernel)?;
        let tree = prepared::Tree::locate(&target)?.context("no prepared build folder")?;
        let path = kernel.headers.join("Module.symvers");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let modules = ModuleTree { roots: vec![kernel.modules.clone()] };
        Ok(Self { target, tree, modules, symvers: Symvers::parse(&text) })
    }

    /// The kernel's image.
    pub fn image(&self) -> &KernelImage {
        &self.target.image
    }

    /// A module as `lpbuild build` opens it, found by `files`.
    pub fn holder(&self, modfile: &str, files: &dyn ModuleFinder) -> Result<ModuleHolder> {
        Ok(ModuleImages::of(&self.target.image, files, self.symvers.clone()).open(modfile)?)
    }

    /// The same with those it imports from, in the order of their names.
    pub fn holders(&self, modfile: &str) -> Result<Vec<ModuleHolder>> {
        let images = ModuleImages::of(&self.target.image, &self.modules, self.symvers.clone());
        Ok(images.open_with_exporters([modfile].into_iter())?)
    }

    /// Where its modules are.
    pub fn files(&self) -> &ModuleTree {
        &self.modules
    }

    /// The modules of that name, or all.
    pub fn named(&self, name: Option<&str>) -> Vec<String> {
        let all = self.modules.all().into_iter();
        let last = |m: &str| m.rsplit('/').next().unwrap_or_default().replace('-', "_");
        all.filter(|m| name.is_none_or(|n| m == n || last(m) == n.replace('-', "_"))).collect()
    }

    /// The commands for the objects of a module. None for one whose sources are not C or assembly alone, or are in no Makefile.
    pub fn recipes(&self, modfile: &str) -> Result<Vec<Recipe>> {
        let folder = modfile.rsplit_once('/').map_or(".", |(d, _)| d);
        let mut asked = self.tree.layout.named_in(folder);
        asked.retain(|o| self.tree.layout.objects.get(o) == Some(&ObjectPart::Module));
        let recipes = self.tree.kbuild(&Log::default()).recipes(&self.tree.layout, &asked)?;
        Ok(recipes.into_values().filter(|r| r.modfile() == Some(modfile)).collect())
    }

    /// Compiles the objects of a module as they are and looks for them in its file.
    pub fn module(&self, modfile: &str) -> Result<Found> {
        let image = self.holder(modfile, &self.modules)?.image;
        let mut found = Found { modfile: modfile.to_owned(), ..Found::default() };
        let work = tempfile::tempdir()?;
        let log = Log::default();
        let compiler = Compiler::new(&self.tree, &self.target.toolchain, &[], work.path(), &log);
        let mut strides = BTreeMap::new();
        for recipe in self.recipes(modfile)? {
            let made = work.path().join("object.o");
            compiler.stock_to(&recipe, &made)?;
            let object = read(&recipe.object, &made)?;
            found.objects += 1;
            found.object(&object, &image);
            for entry in &object.entries {
                let name = &object.section(entry.section).name;
                let size = if entry.table == Table::OrcIp { 4 } else { entry.bytes.len() };
                strides.insert(name.clone(), size.max(1));
                found.tables.entry(name.clone()).or_default().0 += 1;
            }
        }
        if found.objects == 0 {
            bail!("{modfile}: kbuild names no object of it");
        }
        for (name, size) in strides {
            let of = image.section_named(&name).map_or(0, |s| s.data.len() / size);
            found.tables.entry(name).or_default().1 = of;
        }
        Ok(found)
    }
}

fn read(name: &str, path: &Path) -> Result<Object> {
    let data = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(Object::new(ingest::read(name, &data)?)?)
}

impl Found {
    fn object(&mut self, object: &Object, image: &KernelImage) {
        let placement = bind::place(object, image);
        let mut seen = BTreeSet::new();
        for atom in &object.atoms {
            let class = object.class_of(atom.id);
            let code = atom.is_code() && class != Class::Text(TextKind::AltReplacement);
            let data = atom.kind == AtomKind::Data && class == Class::Rodata && atom.size() > 0;
            if !code && !data || !seen.insert((atom.section, atom.start)) {
                continue;
            }
            let right = match (code, placement.address(atom.id)) {
                (true, _) => placement.check(atom.id),
                (false, Some(_)) => placement.check_data(atom.id, true),
                // What no code refers to is in the file all the same, but nothing shows where.
                (false, None) => continue,
            };
            match right {
                Ok(()) if code => self.functions += 1,
                Ok(()) => self.constants += 1,
                Err((code, why)) => {
                    self.others.push(format!("{} {}: {}: {why}", object.image.name, atom.name, code.id))
                }
            }
        }
    }
}
