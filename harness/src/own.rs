//! Small kernels of our own configuration: built from the source of the stock kernel in minutes, booted like it, and built
//! again with a source patch in seconds. They have what a stock kernel has not: a `vmlinux` with symbols, old and new.
//!
//! ```text
//! Variant    -> OwnKernel     configured and built once (tests/own/*.config), kept in the cache
//! OwnKernel  -> Patched       the same kernel with a patch: vmlinux, vmlinux.o, and the objects that differ
//! OwnKernel  -> elsewhere()   built again in another folder, by another user on another host at another time
//! OwnKernel  -> reordered()   the same objects linked in another order
//! ```
//!
//! In the cache, one folder per kernel:
//!
//! ```text
//! own/NAME-KEY/
//!     build/     the O= folder as it was after the build; never written to again
//!     work/      the O= folder that builds go on in; between them the same as build/
//!     source/    hard links to the source tree; files of a patch are replaced while it is built
//!     dirty      what a running or interrupted build may have left in work/ and source/
//!     patched/   one folder per patch
//!     complete   written last
//! ```

mod config;
mod folder;
mod patched;
mod relink;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub use patched::Patched;

use crate::kernels::Kernel;
use crate::{cache, cmd, packages, progress};
use folder::How;

/// Series the source is taken from.
pub const SERIES: &str = "6.1";
/// Raised when a kernel would come out another for reasons that are not in its configuration.
const RECIPE: u32 = 1;

/// A configuration and its compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Like a distribution's: tracers, kprobes, all of kallsyms, relocations and line tables in vmlinux.
    Full,
    /// None of these.
    Bare,
    /// As [`Variant::Bare`], optimised for size.
    BareSize,
    /// As [`Variant::Bare`], compiled by clang.
    BareClang,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Variant; 4] = [Variant::Full, Variant::Bare, Variant::BareSize, Variant::BareClang];

    /// As in lists of fixes and at the end of the release.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Full => "full",
            Variant::Bare => "bare",
            Variant::BareSize => "bare-size",
            Variant::BareClang => "bare-clang",
        }
    }

    /// The compiler, as given to make.
    pub fn compiler(self) -> &'static str {
        match self {
            Variant::BareClang => "clang-14",
            _ => "gcc-12",
        }
    }

    fn fragments(self) -> &'static [&'static str] {
        match self {
            Variant::Full => &["common", "gcc", "full"],
            Variant::Bare => &["common", "gcc", "bare"],
            Variant::BareSize => &["common", "gcc", "bare", "size"],
            Variant::BareClang => &["common", "bare", "clang"],
        }
    }
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct OwnKernel {
    /// What it is.
    pub variant: Variant,
    /// As `uname -r` prints it.
    pub release: String,
    /// The source it was built from. Shared, and briefly changed while a patch is built: not to be written to.
    pub source: PathBuf,
    /// The `O=` folder as it was left by the build, also `lpbuild pack --headers`; not to be written to.
    pub build: PathBuf,
    /// The linked kernel, with symbols.
    pub vmlinux: PathBuf,
    /// What it was linked from.
    pub vmlinux_o: PathBuf,
    /// The image to boot.
    pub bzimage: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    root: PathBuf,
    stock_source: PathBuf,
}

impl OwnKernel {
    /// The kernel, if it has been built; builds and downloads nothing.
    pub fn locate(variant: Variant) -> Result<Option<Self>> {
        let Some(stock) = Kernel::locate(SERIES)? else { return Ok(None) };
        if !cmd::found(variant.compiler()) {
            return Ok(None);
        }
        let (root, _) = root(variant, &stock)?;
        if root.join("complete").exists() { Self::at(variant, root, &stock).map(Some) } else { Ok(None) }
    }

    /// Builds the kernel, once.
    pub fn ensure(variant: Variant) -> Result<Self> {
        if let Some(kernel) = Self::locate(variant)? {
            return Ok(kernel);
        }
        packages::ensure_packages(packages::NEEDED)?;
        if variant == Variant::BareClang {
            packages::ensure_packages(packages::CLANG)?;
        }
        let stock = Kernel::ensure(SERIES)?;
        let (root, options) = root(variant, &stock)?;
        let _lock = cache::lock(&root)?;
        if !root.join("complete").exists() {
            folder::remove(&root)?;
            progress(format!("building the {} kernel", variant.name()));
            build(variant, &stock, &root, &options)?;
            cache::write_atomic(&root.join("complete"), b"")?;
        }
        Self::at(variant, root, &stock)
    }

    /// `vmlinux` of the same source and configuration, built in another folder and with other stamps.
    pub fn elsewhere(&self) -> Result<PathBuf> {
        let entry = cache::publish(&self.root.join("elsewhere"), |dir| {
            let _lock = cache::lock(&self.root)?;
            self.clean_up()?;
            progress(format!("building the {} kernel in another folder", self.variant.name()));
            // Not in `dir`: it is going to be renamed.
            let work = self.root.join("another-folder");
            folder::remove(&work)?;
            fs::create_dir_all(&work)?;
            fs::copy(&self.config, work.join(".config")).context("copy the configuration")?;
            make_as(&STRANGER, self.variant, &self.source, &work, &["olddefconfig"])?;
            make_as(&STRANGER, self.variant, &self.source, &work, &["vmlinux"])?;
            fs::rename(work.join("vmlinux"), dir.join("vmlinux")).context("keep vmlinux")?;
            folder::remove(&work)
        })?;
        Ok(entry.join("vmlinux"))
    }

    fn at(variant: Variant, root: PathBuf, stock: &Kernel) -> Result<Self> {
        let build = root.join("build");
        let release = fs::read_to_string(build.join("include/config/kernel.release")).context("kernel.release")?;
        Ok(Self {
            variant,
            release: release.trim().to_string(),
            source: root.join("source"),
            vmlinux: build.join("vmlinux"),
            vmlinux_o: build.join("vmlinux.o"),
            bzimage: build.join("arch/x86/boot/bzImage"),
            config: build.join(".config"),
            build,
            root,
            stock_source: stock.old_source(),
        })
    }
}

/// Where the kernel is or will be, and its configuration.
fn root(variant: Variant, stock: &Kernel) -> Result<(PathBuf, String)> {
    let options = config::merged(variant.fragments())?;
    let compiler = cmd::output(cmd::command(variant.compiler()).arg("--version"))?;
    let mut hash = Sha256::new();
    for part in [&RECIPE.to_string(), &stock.version.to_string(), &options, &compiler] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let name = format!("{}-{}", variant.name(), short(hash));
    Ok((cache::root()?.join("own").join(name), options))
}

/// The first 12 digits.
fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
}

fn build(variant: Variant, stock: &Kernel, root: &Path, options: &str) -> Result<()> {
    let (source, work, build) = (root.join("source"), root.join("work"), root.join("build"));
    folder::duplicate(&stock.old_source(), &source, How::Link)?;
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let wanted = root.join("wanted.config");
    fs::write(&wanted, options).with_context(|| format!("write {}", wanted.display()))?;
    let all = format!("KCONFIG_ALLCONFIG={}", wanted.display());
    make(variant, &source, &work, &[&all, "allnoconfig"])?;
    config::check(options, &work.join(".config"))?;
    make(variant, &source, &work, &["vmlinux"])?;
    // modpost of no modules: Module.symvers is what modules built later are checked against.
    make(variant, &source, &work, &["bzImage", "modules"])?;
    folder::duplicate(&work, &build, How::Copy)?;
    // For those who use it as headers, the source must not change under their hands.
    let makefile = build.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("read {}", makefile.display()))?;
    let text = text.replace(&path_str(&source), &path_str(&stock.old_source()));
    fs::write(&makefile, text).with_context(|| format!("write {}", makefile.display()))
}

fn path_str(path: &Path) -> String {
    path.display().to_string()
}

/// What the kernel says of its build (`linux_banner`, `init_uts_ns`).
struct Stamps {
    user: &'static str,
    host: &'static str,
    version: &'static str,
    date: &'static str,
}

/// The same at any time and on any host.
const OURS: Stamps = Stamps { user: "lpbuild", host: "lpbuild", version: "1", date: "Thu Jan  1 00:00:00 UTC 2026" };
/// None of them as in [`OURS`], and of other lengths.
const STRANGER: Stamps =
    Stamps { user: "a-stranger", host: "some.other.host", version: "23", date: "Sat Oct 31 12:34:56 UTC 2026" };

/// make in an `O=` folder, so that the same source gives the same bytes.
fn make(variant: Variant, source: &Path, work: &Path, what: &[&str]) -> Result<()> {
    make_as(&OURS, variant, source, work, what)
}

fn make_as(stamps: &Stamps, variant: Variant, source: &Path, work: &Path, what: &[&str]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    // Tests run meanwhile, some with guests that have to answer in time.
    let mut c = cmd::command("nice");
    c.args(["-n", "15", "make"]).arg("-C").arg(source).arg(format!("O={}", work.display()));
    c.args(["ARCH=x86", "--silent", &format!("-j{jobs}"), &format!("CC={}", variant.compiler())]);
    c.env("KBUILD_BUILD_TIMESTAMP", stamps.date).env("KBUILD_BUILD_VERSION", stamps.version);
    c.env("KBUILD_BUILD_USER", stamps.user).env("KBUILD_BUILD_HOST", stamps.host);
    cmd::output(c.args(what)).map(drop)
}
