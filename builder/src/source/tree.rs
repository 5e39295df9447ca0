//! A prepared build folder of one kernel: configured and prepared once, out of tree, then used by every build.
//!
//! `trees/RELEASE-KEY/` in the cache; KEY stands for build id, source, configuration and the compiler that runs
//! ([`crate::toolchain`]), so that another kernel of the same release gets a folder of its own. The source is only read. Steps that are done are noted in the folder: an
//! interrupted preparation goes on with the step it was in. One build prepares while others wait.
//! Refused: a configuration the source does not keep (LP6210), build tools that are missing (LP6209).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::includes::IncludeIndex;
use super::kbuild::{Kbuild, TreeLayout};
use super::locate::TargetKernel;
use super::{Progress, elsewhere};
use crate::cache;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::hash::to_hex;
use crate::tool::{self, Log};

/// Part of every key; raise it when the way trees are prepared changes.
const RECIPE: &str = "7";
/// The steps, in order: targets of kbuild.
const STEPS: &[&str] = &["olddefconfig", "prepare", "modules_prepare"];
/// What [`Tree::ensure`] writes last.
const STAMP: &str = "lpbuild-tree.toml";
const LAYOUT: &str = "lpbuild-layout.json";

/// A prepared tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The kernel source; only read.
    pub source: PathBuf,
    /// The `O=` folder.
    pub build: PathBuf,
    /// The objects of this configuration.
    pub layout: TreeLayout,
}

/// What is noted of a tree, for `lpbuild cache`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stamp {
    /// As `uname -r` prints it.
    pub release: String,
    /// GNU build id, lower-case hex.
    pub build_id: String,
    /// The source it was made from.
    pub source: PathBuf,
    /// The compiler as the configuration names it.
    pub compiler: String,
}

impl Tree {
    /// The tree of a target; configures and prepares it first if that has not been done.
    pub fn ensure(target: &TargetKernel, log: &Log, progress: &dyn Progress) -> Result<Self> {
        let config = fs::read_to_string(&target.config).map_err(|e| Error::io(&target.config, &e))?;
        let build = folder(target, &config)?;
        if !build.join(STAMP).exists() {
            let _lock = cache::lock(&build)?;
            if !build.join(STAMP).exists() {
                prepare(target, &config, &build, log, progress)?;
            }
        }
        Self::open(target, build)
    }

    /// The tree of a target, if it is prepared.
    pub fn locate(target: &TargetKernel) -> Result<Option<Self>> {
        let config = fs::read_to_string(&target.config).map_err(|e| Error::io(&target.config, &e))?;
        let build = folder(target, &config)?;
        if build.join(STAMP).exists() { Self::open(target, build).map(Some) } else { Ok(None) }
    }

    fn open(target: &TargetKernel, build: PathBuf) -> Result<Self> {
        // The time of the last use, for `lpbuild cache`; a read-only cache still works.
        let _ = fs::File::open(build.join(STAMP)).and_then(|f| f.set_modified(SystemTime::now()));
        let path = build.join(LAYOUT);
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
        let layout = serde_json::from_str(&text).map_err(|e| damaged(&path, &e.to_string()))?;
        Ok(Self { source: target.source.clone(), build, layout })
    }

    /// Asks kbuild about this tree.
    pub fn kbuild<'a>(&'a self, log: &'a Log) -> Kbuild<'a> {
        Kbuild { source: &self.source, build: &self.build, external: None, log }
    }
}

/// What make is called with for this target.
pub fn make_args(target: &TargetKernel, build: &Path) -> Vec<String> {
    let source = target.source.display();
    let mut args = vec![
        "ARCH=x86".into(),
        format!("CC={}", target.toolchain.compiler.display()),
        format!("KERNELRELEASE={}", target.release),
        // Debug information names files relative to the tree, so that it does not depend on where the source is.
        format!("KCFLAGS=-fdebug-prefix-map={source}/= -fdebug-prefix-map={}=.", build.display()),
    ];
    args.extend(package_args(&target.headers).into_iter().flatten());
    args
}

/// What Debian's Makefile makes include/generated/package.h of (`filechk_package.h`): a few messages have the version of the package,
/// so without it their functions are not what runs. As the headers that came with the image have it.
fn package_args(headers: &Path) -> Option<[String; 3]> {
    let text = fs::read_to_string(headers.join("include/generated/package.h")).ok()?;
    let id = text.split_once("LINUX_PACKAGE_ID")?.1.split('"').nth(1)?;
    let (distributor, version) = id.trim().split_once(' ')?;
    let plain = |s: &str| s.chars().all(|c| c.is_ascii_alphanumeric() || "+-.~:".contains(c));
    (plain(distributor) && plain(version)).then(|| {
        let official = "DISTRIBUTION_OFFICIAL_BUILD=1".to_owned();
        [official, format!("DISTRIBUTOR={distributor}"), format!("DISTRIBUTION_VERSION={version}")]
    })
}

fn folder(target: &TargetKernel, config: &str) -> Result<PathBuf> {
    let id = to_hex(target.image.build_id());
    let parts = [RECIPE, &id, &target.source.to_string_lossy(), config, &target.toolchain.key];
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("{}:{part}", part.len()));
    }
    let key = crate::hash::digest(text.as_bytes());
    let name = format!("{}-{}-{}", target.release, id.get(..8).unwrap_or(&id), key.get(..8).unwrap_or(&key));
    let folder = cache::root()?.join("trees").join(name);
    if folder.to_str().is_none_or(|p| p.contains([' ', ':', '\t', '%'])) {
        let what = "make cannot handle blanks and colons in the path of the cache; set XDG_CACHE_HOME";
        return Err(Error::new(codes::LP6201, Place::object(folder.display().to_string()), what));
    }
    Ok(folder)
}

fn prepare(target: &TargetKernel, config: &str, build: &Path, log: &Log, progress: &dyn Progress) -> Result<()> {
    check_source(&target.source)?;
    for program in ["make", "flex", "bison", "bc", "perl", "ld", "objcopy"] {
        tool::find(program).map_err(|_| Error::new(codes::LP6209, Place::object(program), "not found in PATH"))?;
    }
    if config.contains("CONFIG_DEBUG_INFO_BTF=y") {
        let what = "not found in PATH; without it the configuration would lose CONFIG_DEBUG_INFO_BTF";
        tool::find("pahole").map_err(|_| Error::new(codes::LP6209, Place::object("pahole"), what))?;
    }
    let begun = build.join(".config").exists();
    match steps(target, config, build, log, progress) {
        Err(_) if begun => {
            // What an interruption left can be beyond repair: once more, from nothing.
            cache::empty_dir(build)?;
            steps(target, config, build, log, progress)
        }
        other => other,
    }
    .inspect_err(|_| {
        // The cache is left without a folder that cannot be finished.
        let _ = fs::remove_dir_all(build);
    })
}

fn steps(target: &TargetKernel, config: &str, build: &Path, log: &Log, progress: &dyn Progress) -> Result<()> {
    let args = make_args(target, build);
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    if !build.join(".config").exists() {
        cache::empty_dir(build)?;
        let mut lines: Vec<&str> = config.lines().filter(|l| !l.contains("CONFIG_BUILD_SALT")).collect();
        // Distributions set the salt to the release when they build, after the configuration they publish was made.
        let salt = format!("CONFIG_BUILD_SALT=\"{}\"", target.release);
        lines.push(&salt);
        cache::write_atomic(&build.join(".config"), (lines.join("\n") + "\n").as_bytes())?;
    }
    for step in STEPS {
        let done = build.join(format!(".lpbuild-{step}"));
        if done.exists() {
            continue;
        }
        progress.status(&format!("preparing the build folder of {}: {step}", target.release));
        let mut make = tool::command("make");
        make.arg("-C").arg(&target.source).args(["-s", &format!("-j{jobs}"), &format!("O={}", build.display())]);
        log.run(make.args(&args).arg(step), codes::LP6211)?;
        if *step == "olddefconfig" {
            check_kept(config, &build.join(".config"))?;
        }
        fs::write(&done, "").map_err(|e| Error::io(&done, &e))?;
    }
    progress.status(&format!("asking kbuild for the objects of {}", target.release));
    let kbuild = Kbuild { source: &target.source, build, external: None, log };
    let mut layout = kbuild.layout(&args)?;
    layout.elsewhere = elsewhere::find(&kbuild, &layout)?;
    // kbuild calls it a library of the kernel's.
    layout.objects.retain(|o, _| !o.starts_with("drivers/firmware/efi/libstub/"));
    layout.included_sources = IncludeIndex::read(&target.source, build, &layout).included_sources();
    let text = serde_json::to_string(&layout).map_err(|e| damaged(build, &e.to_string()))?;
    cache::write_atomic(&build.join(LAYOUT), text.as_bytes())?;
    let stamp = Stamp {
        release: target.release.clone(),
        build_id: to_hex(target.image.build_id()),
        source: target.source.clone(),
        compiler: target.compiler_name.clone(),
    };
    let text = toml::to_string(&stamp).map_err(|e| damaged(build, &e.to_string()))?;
    cache::write_atomic(&build.join(STAMP), text.as_bytes())
}

/// kbuild refuses an out-of-tree build of a source that was built in place; said before anything is done.
fn check_source(source: &Path) -> Result<()> {
    for made in [".config", "include/config", "arch/x86/include/generated"] {
        if source.join(made).exists() {
            let what =
                format!("the source was configured or built in place (it has {made}), so kbuild will not use it");
            return Err(Error::new(codes::LP6208, Place::object(source.display().to_string()), what));
        }
    }
    if source.to_str().is_none_or(|p| p.contains([' ', ':', '\t', '%'])) {
        let what = "make cannot handle blanks and colons in the path of the source";
        return Err(Error::new(codes::LP6208, Place::object(source.display().to_string()), what));
    }
    Ok(())
}

/// Every option that was `y` or `m` must still be: what olddefconfig drops, this host's tools cannot build.
fn check_kept(config: &str, made: &Path) -> Result<()> {
    let text = fs::read_to_string(made).map_err(|e| Error::io(made, &e))?;
    let lost = lost_options(config, &text);
    if lost.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = lost.iter().copied().take(5).collect();
    let what = format!(
        "{} options of the kernel's configuration are not possible with this source and these tools: {}{}",
        lost.len(),
        first.join(" "),
        if lost.len() > first.len() { " .." } else { "" }
    );
    Err(Error::new(codes::LP6210, Place::object(made.display().to_string()), what))
}

fn lost_options<'a>(wanted: &'a str, have: &str) -> Vec<&'a str> {
    let have: std::collections::BTreeSet<&str> = have.lines().collect();
    let set = wanted.lines().filter(|l| l.starts_with("CONFIG_") && (l.ends_with("=y") || l.ends_with("=m")));
    // What tools on the build host can do beyond what the kernel needs of them, and what only packaging uses.
    let of_the_host = ["CONFIG_RUST_IS_AVAILABLE", "CONFIG_RUSTC_", "CONFIG_TOOLS_SUPPORT_RELR", "CONFIG_CC_CAN_LINK"];
    set.filter(|l| !have.contains(l) && !of_the_host.iter().any(|o| l.starts_with(o))).collect()
}

/// What an entry of the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeKind {
    /// A prepared tree.
    Tree,
    /// Kernel source.
    Source,
    /// Image and headers of a release.
    Kernel,
    /// How a module for some headers is made.
    Recipe,
}

impl TreeKind {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            TreeKind::Tree => "tree",
            TreeKind::Source => "source",
            TreeKind::Kernel => "kernel",
            TreeKind::Recipe => "recipe",
        }
    }
}

/// A tree, source or kernel in the cache, finished or not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CachedTree {
    /// What it is.
    pub kind: TreeKind,
    /// Name of its folder.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// What it was made for; nothing for one that is not finished.
    pub stamp: Option<Stamp>,
    /// Whether a build is preparing it right now.
    pub busy: bool,
    /// Bytes on disk.
    pub size: u64,
    /// Seconds since 1970-01-01 at which it was last used.
    pub used: u64,
}

/// What is in the cache, by kind and name.
pub fn list() -> Result<Vec<CachedTree>> {
    let root = cache::root()?;
    let mut found = Vec::new();
    for (kind, folder) in [
        (TreeKind::Tree, "trees"),
        (TreeKind::Source, "sources"),
        (TreeKind::Kernel, "kernels"),
        (TreeKind::Recipe, "recipes"),
    ] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        paths.sort();
        for path in paths {
            let stamp_path = path.join(STAMP);
            let stamp = fs::read_to_string(&stamp_path).ok().and_then(|t| toml::from_str(&t).ok());
            let used = fs::metadata(if stamp.is_some() { &stamp_path } else { &path }).and_then(|m| m.modified());
            let used = used.ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let busy = cache::try_lock(&path)?.is_none();
            found.push(CachedTree { kind, name, busy, size: size_of_dir(&path), path, stamp, used });
        }
    }
    Ok(found)
}

/// Bytes below a folder; links are not followed.
pub fn size_of_dir(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(m) if m.is_dir() => folders.push(entry.path()),
                Ok(m) => sum += m.len(),
                Err(_) => {}
            }
        }
    }
    sum
}

fn damaged(path: &Path, e: &str) -> Error {
    let what = format!("this part of the cache is damaged: {e}; remove the tree with lpbuild cache remove");
    Error::new(codes::LP6201, Place::object(path.display().to_string()), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_package_is_that_of_the_headers() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(package_args(dir.path()), None);
        let file = dir.path().join("include/generated/package.h");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (text, version) in [
            ("#define LINUX_PACKAGE_ID \" Debian 6.1.187-1\"\n", Some("DISTRIBUTION_VERSION=6.1.187-1")),
            ("#define LINUX_PACKAGE_ID \"\"\n", None),
            ("#define LINUX_PACKAGE_ID \" Debian $(rm -r /)\"\n", None),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(package_args(dir.path()).as_ref().map(|args| &*args[2]), version);
        }
    }

    #[test]
    fn a_lost_option_is_noticed_and_what_the_host_can_do_is_not_compared() {
        let wanted = "CONFIG_A=y\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_CC_CAN_LINK=y\nCONFIG_N=3\n# CONFIG_Z is not set\n";
        assert_eq!(lost_options(wanted, "CONFIG_A=y\n"), ["CONFIG_DEBUG_INFO_BTF=y"]);
        assert_eq!(lost_options(wanted, "CONFIG_A=m\nCONFIG_DEBUG_INFO_BTF=y\n"), ["CONFIG_A=y"]);
    }

    #[test]
    fn a_source_built_in_place_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_source(dir.path()).is_ok());
        fs::write(dir.path().join(".config"), "").unwrap();
        assert!(check_source(dir.path()).unwrap_err().to_string().contains("LP6208"));
    }
}
