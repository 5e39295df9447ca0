//! A prepared kernel build folder, and objects compiled in it, as shipped or with a change.
//!
//! Stock objects are made by kbuild itself (`make path/file.o`), which runs objtool as well. A changed object is made by
//! the very command kbuild recorded for the stock one (`.file.o.cmd`), in shadow copies of source and build folder (see
//! [`crate::shadow`]): same flags, same relative file names, and neither the shared source nor the stock objects are
//! touched. Where the configuration delays objtool to the link of `vmlinux.o` (IBT), either kind is brought through the
//! tree's own objtool here (see `lpbuild::build::objtool`). The debug information's absolute paths are mapped to relative ones, so that compiling an unchanged file this
//! way gives the stock object byte by byte.
//!
//! Not supported, and not noticed here: changes to Makefiles, Kconfig files and headers that generated headers depend on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lpbuild::build::objtool;

use crate::change::Change;
use crate::kernels::Kernel;
use crate::{cache, cmd, progress, shadow};

/// Part of every cache key; raise it when the way objects are made changes.
const RECIPE: &str = "1";

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

    fn extra(self) -> &'static str {
        match self {
            Flags::Plain => "",
            Flags::Sections => " -ffunction-sections -fdata-sections",
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
    release: String,
    compiler: String,
    objects: PathBuf,
}

impl Tree {
    /// The tree of `kernel`, if setup has prepared it.
    pub fn locate(kernel: &Kernel) -> Result<Option<Self>> {
        let tree = Self::of(kernel)?;
        Ok(tree.stamp().exists().then_some(tree))
    }

    /// Configures and prepares the tree of `kernel`, once.
    pub fn ensure(kernel: &Kernel) -> Result<Self> {
        let tree = Self::of(kernel)?;
        if tree.stamp().exists() {
            return Ok(tree);
        }
        let _lock = cache::lock(&tree.build)?;
        if tree.stamp().exists() {
            return Ok(tree);
        }
        // kbuild records absolute paths: the folder is made in place and counts as absent until the stamp is written.
        if tree.build.exists() {
            fs::remove_dir_all(&tree.build).with_context(|| format!("remove {}", tree.build.display()))?;
        }
        fs::create_dir_all(&tree.build).with_context(|| format!("create {}", tree.build.display()))?;
        let config = fs::read_to_string(&kernel.config).with_context(|| format!("read {}", kernel.config.display()))?;
        let mut lines: Vec<&str> = config.lines().filter(|l| !l.contains("CONFIG_BUILD_SALT")).collect();
        let salt = format!("CONFIG_BUILD_SALT=\"{}\"", kernel.release);
        lines.push(&salt);
        fs::write(tree.build.join(".config"), lines.join("\n") + "\n")?;
        progress(format!("preparing the build folder of {}", kernel.release));
        for target in ["olddefconfig", "prepare", "modules_prepare"] {
            tree.make(&[target])?;
        }
        if !fs::read_to_string(tree.build.join(".config"))?.contains("\nCONFIG_DEBUG_INFO_BTF=y\n") {
            bail!("olddefconfig dropped CONFIG_DEBUG_INFO_BTF: the package dwarves (pahole 1.24 or newer) is missing");
        }
        fs::write(tree.stamp(), RECIPE)?;
        Ok(tree)
    }

    fn of(kernel: &Kernel) -> Result<Self> {
        let root = cache::root()?;
        let release = kernel.release.clone();
        let config = fs::read_to_string(&kernel.config).with_context(|| format!("read {}", kernel.config.display()))?;
        Ok(Self {
            compiler: compiler(&config)?,
            source: kernel.old_source(),
            build: root.join("trees").join(format!("{release}-{RECIPE}")),
            objects: root.join("objects").join(format!("{release}-{RECIPE}")),
            release,
        })
    }

    fn stamp(&self) -> PathBuf {
        self.build.join(".lpbuild-prepared")
    }

    /// A stock object, as kbuild makes it (plus `flags`).
    pub fn object(&self, object: &str, flags: Flags) -> Result<PathBuf> {
        self.changed_object(object, &Change::none(), flags)
    }

    /// The object with `change` applied to the source.
    pub fn changed_object(&self, object: &str, change: &Change, flags: Flags) -> Result<PathBuf> {
        let key = if change.files().next().is_none() { "stock".to_string() } else { change.key() };
        let entry = self.objects.join(flags.name()).join(key).join(object);
        if entry.exists() {
            return Ok(entry);
        }
        let _lock = cache::lock(&entry)?;
        if entry.exists() {
            return Ok(entry);
        }
        self.stock(&[object])?;
        let compiled = if flags == Flags::Plain && change.files().next().is_none() {
            read(&self.build.join(object))?
        } else {
            self.replay(object, change, flags)?
        };
        cache::write_atomic(&entry, &self.finish(compiled)?)?;
        Ok(entry)
    }

    /// The object as objtool leaves it, where kbuild has not run it on single objects.
    fn finish(&self, compiled: Vec<u8>) -> Result<Vec<u8>> {
        let path = self.build.join(".config");
        let config = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let args = objtool::objtool_args(&config);
        if args.is_empty() {
            return Ok(compiled);
        }
        let temp = tempfile::tempdir()?;
        let object = temp.path().join("object.o");
        fs::write(&object, compiled).with_context(|| format!("write {}", object.display()))?;
        cmd::output(cmd::command(self.build.join("tools/objtool/objtool")).args(args).arg(&object))?;
        read(&object)
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
        self.stock(&objects.iter().map(String::as_str).collect::<Vec<_>>())?;
        let root = self.objects.join(flags.name()).join(format!("pair-{}", change.key()));
        let pair = Pair { old: root.join("old"), new: root.join("new"), objects: objects.to_vec() };
        for object in objects {
            let (old, new) = pair.files(object);
            for (to, change) in [(old, &Change::none()), (new, change)] {
                if !to.exists() {
                    cache::write_atomic(&to, &read(&self.changed_object(object, change, flags)?)?)?;
                }
            }
        }
        Ok(pair)
    }

    /// Makes stock objects in the build folder with one call of make.
    fn stock(&self, objects: &[&str]) -> Result<()> {
        let absent: Vec<&str> = objects.iter().copied().filter(|o| !self.has(o)).collect();
        if absent.is_empty() {
            return Ok(());
        }
        let _lock = cache::lock(&self.build)?;
        let absent: Vec<&str> = absent.into_iter().filter(|o| !self.has(o)).collect();
        if absent.is_empty() {
            return Ok(());
        }
        progress(format!("compiling {} of {}", absent.join(" "), self.release));
        self.make(&absent)
    }

    /// kbuild writes the `.cmd` file last.
    fn has(&self, object: &str) -> bool {
        self.build.join(object).exists() && self.recorded(object).exists()
    }

    fn recorded(&self, object: &str) -> PathBuf {
        let (dir, name) = split(object);
        self.build.join(dir).join(format!(".{name}.cmd"))
    }

    fn make(&self, targets: &[&str]) -> Result<()> {
        let (source, build) = (self.source.display(), self.build.display());
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        let mut make = cmd::command("make");
        make.arg("-C").arg(&self.source).args([
            "-s".to_string(),
            format!("-j{jobs}"),
            format!("O={build}"),
            "ARCH=x86".to_string(),
            format!("CC={}", self.compiler),
            format!("KERNELRELEASE={}", self.release),
            format!("KCFLAGS=-fdebug-prefix-map={source}/= -fdebug-prefix-map={build}=."),
        ]);
        cmd::output(make.args(targets)).map(drop)
    }

    /// Runs the recorded command of `object` in shadow trees; returns the object's bytes.
    fn replay(&self, object: &str, change: &Change, flags: Flags) -> Result<Vec<u8>> {
        let (dir, name) = split(object);
        let scratch = cache::root()?.join("scratch");
        fs::create_dir_all(&scratch)?;
        let temp = tempfile::tempdir_in(&scratch)?;
        // The same lengths as the originals would not matter: paths are mapped away. Neither name may contain the other.
        let (source, build) = (temp.path().join("source"), temp.path().join("build"));
        let folder = |p: &str| PathBuf::from(split(p).0);
        let real: BTreeSet<PathBuf> = change.files().map(|(p, _)| folder(p)).chain([folder(object)]).collect();
        shadow::mirror(&self.source, &source, &real, &|_| false)?;
        for (path, content) in change.files() {
            shadow::replace(&source, path, content)?;
        }
        let own = [name.to_string(), format!(".{name}.cmd"), format!(".{name}.d")].map(|n| Path::new(dir).join(n));
        shadow::mirror(&self.build, &build, &[folder(object)].into(), &|p| own.iter().any(|o| o == p))?;

        let recorded = String::from_utf8(read(&self.recorded(object))?).context("a .cmd file is text")?;
        let (_, command) = recorded
            .lines()
            .next()
            .and_then(|l| l.split_once(" := "))
            .with_context(|| format!("{} has no command", self.recorded(object).display()))?;
        let output = format!(" -c -o {object} ");
        if command.matches(&output).count() != 1 {
            bail!("the command kbuild recorded for {object} has another form than expected:\n{command}");
        }
        let command = command
            .replace(&output, &format!("{}{output}", flags.extra()))
            .replace("$(pound)", "#")
            .replace("$$", "$")
            .replace(&self.source.display().to_string(), &source.display().to_string())
            .replace(&self.build.display().to_string(), &build.display().to_string());
        // `cc ...; objtool ...`: -e, because the recorded command relies on make's shell flags.
        let mut sh = cmd::command("sh");
        cmd::output(sh.args(["-e", "-c", &command]).current_dir(&build).env("PWD", &build))
            .with_context(|| format!("compile {object} with the change"))?;
        self.check_inputs(&build, &Path::new(dir).join(format!(".{name}.d")), change)?;
        read(&build.join(object))
    }

    /// No file read by the compiler may be the stock version of a changed one (reached through `../` of a link).
    fn check_inputs(&self, build: &Path, dependencies: &Path, change: &Change) -> Result<()> {
        let text = String::from_utf8(read(&build.join(dependencies))?).context("a dependency file is text")?;
        let stock: Vec<PathBuf> = change.files().map(|(p, _)| self.source.join(p)).collect();
        let stock: BTreeSet<PathBuf> = stock.iter().filter_map(|p| p.canonicalize().ok()).collect();
        for word in text.split_whitespace().filter(|w| *w != "\\" && !w.ends_with(':')) {
            if let Ok(path) = build.join(word).canonicalize()
                && stock.contains(&path)
            {
                bail!(
                    "the compiler read the unchanged {word}: it is included by a path the shadow tree does not cover"
                );
            }
        }
        Ok(())
    }
}

/// The compiler as the configuration names it: the first word of CONFIG_CC_VERSION_TEXT. Under another name of the same
/// compiler olddefconfig would count it as changed.
fn compiler(config: &str) -> Result<String> {
    let text = config.lines().find_map(|l| l.strip_prefix("CONFIG_CC_VERSION_TEXT=\"")?.strip_suffix('"'));
    let text = text.and_then(|t| t.split_whitespace().next());
    text.map(str::to_string).context("the configuration has no CONFIG_CC_VERSION_TEXT")
}

fn split(object: &str) -> (&str, &str) {
    object.rsplit_once('/').unwrap_or(("", object))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_called_as_the_configuration_calls_it() {
        let config = |text: &str| format!("CONFIG_X=y\nCONFIG_CC_VERSION_TEXT=\"{text}\"\n");
        assert_eq!(compiler(&config("gcc-12 (Debian 12.2.0-14) 12.2.0")).unwrap(), "gcc-12");
        assert_eq!(compiler(&config("x86_64-linux-gnu-gcc-12 (Debian) 12")).unwrap(), "x86_64-linux-gnu-gcc-12");
        assert!(compiler("CONFIG_X=y\n").is_err() && compiler(&config("")).is_err());
    }
}
