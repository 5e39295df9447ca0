//! Objects of a stock kernel, as shipped or with a change; made as `lpbuild build` makes them (`lpbuild::source`), but with
//! the lines of the change as they are, and kept from run to run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lpbuild::config;
use lpbuild::source::compile::Compiler;
use lpbuild::source::kbuild::TreeLayout;
use lpbuild::source::locate::TargetKernel;
use lpbuild::source::patch::SourceChange;
use lpbuild::source::tree as prepared;
use lpbuild::tool::Log;
use lpbuild::toolchain::Toolchain;

use crate::change::Change;
use crate::kernels::{Kernel, Said};
use crate::{cache, cmd, workspace_root};

/// Compiler flags on top of those of kbuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Exactly those the distribution used.
    Plain,
    /// `-ffunction-sections -fdata-sections`
    Sections,
}

impl Flags {
    fn name(self) -> &'static str {
        match self {
            Flags::Plain => "plain",
            Flags::Sections => "sections",
        }
    }

    fn extra(self) -> Vec<String> {
        match self {
            Flags::Plain => vec![],
            Flags::Sections => vec!["-ffunction-sections".into(), "-fdata-sections".into()],
        }
    }
}

/// Objects before and after a change, under the same relative paths; the input of `lpbuild diff`.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Folder with the stock objects.
    pub old: PathBuf,
    /// Folder with the changed objects.
    pub new: PathBuf,
    /// Relative paths, in order.
    pub objects: Vec<String>,
}

impl Pair {
    /// Both files of one object.
    pub fn files(&self, object: &str) -> (PathBuf, PathBuf) {
        (self.old.join(object), self.new.join(object))
    }
}

/// The prepared build folder of one stock kernel.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Source of the running kernel.
    pub source: PathBuf,
    /// The `O=` folder.
    pub build: PathBuf,
    tree: prepared::Tree,
    toolchain: Toolchain,
    make_args: Vec<String>,
}

impl Tree {
    /// The tree of `kernel`, if setup has prepared it.
    pub fn locate(kernel: &Kernel) -> Result<Option<Self>> {
        let target = Self::target(kernel)?;
        match prepared::Tree::locate(&target)? {
            Some(tree) => Ok(Some(Self::of(tree, &target))),
            None => Ok(None),
        }
    }

    /// Configures and prepares the tree of `kernel`, once.
    pub fn ensure(kernel: &Kernel) -> Result<Self> {
        let target = Self::target(kernel)?;
        Ok(Self::of(prepared::Tree::ensure(&target, &Log::default(), &Said)?, &target))
    }

    /// Everything a patch for a stock kernel is made from.
    pub fn target(kernel: &Kernel) -> Result<TargetKernel> {
        let wish = config::KernelChoice {
            release: Some(kernel.release.clone()),
            image: Some(kernel.vmlinuz.clone()),
            headers: Some(kernel.headers.clone()),
            source: Some(kernel.old_source()),
            config: Some(kernel.config.clone()),
            compiler: None,
            module_dir: None,
        };
        Ok(TargetKernel::find(&wish, &Log::default(), &Said)?)
    }

    fn of(tree: prepared::Tree, target: &TargetKernel) -> Self {
        let toolchain = target.toolchain.clone();
        let make_args = prepared::make_args(target, &tree.build);
        Self { source: tree.source.clone(), build: tree.build.clone(), tree, toolchain, make_args }
    }

    /// Builds the modules of a folder with a Kbuild file as any external module is built; copies and results are in
    /// `target/modules/NAME`, which is returned.
    pub fn external_modules(&self, kernel: &Kernel, name: &str, from: &Path) -> Result<PathBuf> {
        let dir = workspace_root().join("target/modules").join(name);
        let _lock = cache::lock(&dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let entry = entry?;
            let to = dir.join(entry.file_name());
            std::fs::copy(entry.path(), &to).with_context(|| format!("write {}", to.display()))?;
        }
        let mut make = cmd::command("make");
        make.arg("-C").arg(&self.build).arg("-s").arg(format!("M={}", dir.display()));
        make.arg(format!("KBUILD_EXTRA_SYMBOLS={}", kernel.headers.join("Module.symvers").display()));
        // The last KCFLAGS counts: without debug information, which would be larger than all the rest.
        cmd::output(make.args(&self.make_args).args(["KCFLAGS=-g0", "modules"]))?;
        Ok(dir)
    }

    /// The objects of its configuration.
    pub fn layout(&self) -> &TreeLayout {
        &self.tree.layout
    }

    /// The stock object with `change` applied to the source, and `flags`.
    pub fn changed_object(&self, object: &str, change: &Change, flags: Flags) -> Result<PathBuf> {
        let entry = self.entry(flags, change, object)?;
        if entry.exists() {
            return Ok(entry);
        }
        let _lock = cache::lock(&entry)?;
        if entry.exists() {
            return Ok(entry);
        }
        let log = Log::default();
        let asked: BTreeSet<String> = [object.to_string()].into();
        let recipes = self.tree.kbuild(&log).recipes(&self.tree.layout, &asked)?;
        let recipe = recipes.get(object).with_context(|| format!("kbuild cannot make {object}"))?;
        let scratch = cache::root()?.join("scratch");
        std::fs::create_dir_all(&scratch)?;
        let work = tempfile::tempdir_in(scratch)?;
        let extra = flags.extra();
        let compiler = Compiler::foreign(&self.tree, &self.toolchain, &extra, work.path(), &log);
        let made = if change.files().next().is_none() {
            compiler.old(recipe)?
        } else {
            let folder = Path::new(object).parent().map(PathBuf::from).unwrap_or_default();
            let shadow = compiler.shadow(&self.source_change(change), &[folder].into())?;
            compiler.new_object(recipe, &shadow)?
        };
        cache::write_atomic(&entry, &std::fs::read(&made).with_context(|| format!("read {}", made.display()))?)?;
        Ok(entry)
    }

    /// An object as `lpbuild build` makes it: with its data named, unchanged lines keeping their numbers. The stock one is
    /// kept in the build folder; nothing when the changed source does not compile.
    pub fn built(&self, object: &str, change: &Change) -> Result<Option<Vec<u8>>> {
        let log = Log::default();
        let asked: BTreeSet<String> = [object.to_string()].into();
        let recipes = self.tree.kbuild(&log).recipes(&self.tree.layout, &asked)?;
        let recipe = recipes.get(object).with_context(|| format!("kbuild cannot make {object}"))?;
        let scratch = cache::root()?.join("scratch");
        std::fs::create_dir_all(&scratch)?;
        let work = tempfile::tempdir_in(scratch)?;
        let compiler = Compiler::new(&self.tree, &self.toolchain, &[], work.path(), &log);
        let made = if change.files().next().is_none() {
            compiler.old(recipe)?
        } else {
            let folder = Path::new(object).parent().map(PathBuf::from).unwrap_or_default();
            let shadow = compiler.shadow(&self.source_change(change), &[folder].into())?;
            match compiler.new_object(recipe, &shadow) {
                Ok(made) => made,
                Err(e) if e.problems.iter().any(|p| p.code.id == "LP6213") => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        };
        Ok(Some(std::fs::read(&made).with_context(|| format!("read {}", made.display()))?))
    }

    /// The time of compiling a stock object by its command, without anything around it.
    pub fn bare_compile(&self, object: &str) -> Result<Duration> {
        let log = Log::default();
        let asked: BTreeSet<String> = [object.to_string()].into();
        let recipes = self.tree.kbuild(&log).recipes(&self.tree.layout, &asked)?;
        let recipe = recipes.get(object).with_context(|| format!("kbuild cannot make {object}"))?;
        let work = tempfile::tempdir()?;
        let compiler = Compiler::new(&self.tree, &self.toolchain, &[], work.path(), &log);
        let started = Instant::now();
        compiler.stock_to(recipe, &work.path().join(object))?;
        Ok(started.elapsed())
    }

    /// Old and new of every object compiled from a changed source file.
    pub fn pair(&self, change: &Change, flags: Flags) -> Result<Pair> {
        self.pair_of(&change.objects(), change, flags)
    }

    /// Old and new of the named objects, for changes of headers.
    pub fn pair_of(&self, objects: &[String], change: &Change, flags: Flags) -> Result<Pair> {
        if objects.is_empty() {
            bail!("the change touches no source file of which an object is made; name the objects");
        }
        let root = self.root(flags)?.join(format!("pair-{}", change.key()));
        let pair = Pair { old: root.join("old"), new: root.join("new"), objects: objects.to_vec() };
        for object in objects {
            let (old, new) = pair.files(object);
            for (to, change) in [(old, &Change::none()), (new, change)] {
                if !to.exists() {
                    cache::write_atomic(&to, &std::fs::read(self.changed_object(object, change, flags)?)?)?;
                }
            }
        }
        Ok(pair)
    }

    fn source_change(&self, change: &Change) -> SourceChange {
        SourceChange::from_contents(change.files().map(|(path, new)| {
            let old = std::fs::read(self.source.join(path)).ok();
            // A file that is given as it was counts as changed all the same: it is compiled from the shadow.
            (path.to_string(), old.filter(|o| o != new), Some(new.to_vec()))
        }))
    }

    fn root(&self, flags: Flags) -> Result<PathBuf> {
        let name = self.build.file_name().context("a build folder has a name")?;
        Ok(cache::root()?.join("objects").join(name).join(flags.name()))
    }

    fn entry(&self, flags: Flags, change: &Change, object: &str) -> Result<PathBuf> {
        let key = if change.files().next().is_none() { "stock".to_string() } else { change.key() };
        Ok(self.root(flags)?.join(key).join(object))
    }
}
