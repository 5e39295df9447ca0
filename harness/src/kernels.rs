//! Stock kernels: image, headers and sources of the versions in `versions.toml`, from the Debian archive into the cache.
//!
//! ```text
//! kernels/selected-6.1.toml              the pair in use (see versions.toml for the fallback rule)
//! kernels/<release>/image/               boot/vmlinuz-*, boot/config-*, lib/modules/*
//! kernels/<release>/headers/             usr/src/linux-headers-*, ready for `make -C`
//! kernels/<release>/source-<version>/    one kernel source tree, never written to
//! downloads/*.deb                        only until they are extracted
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::archive::{self, Available, Choice, Version, Wanted};
use crate::{cache, cmd, packages, progress};

/// A stock kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` prints it, for example `6.1.0-53-cloud-amd64`.
    pub release: String,
    /// Package version of the kernel that runs.
    pub version: Version,
    /// Package version of the source fixes are taken from.
    pub new_version: Version,
    /// The compressed image.
    pub vmlinuz: PathBuf,
    /// The folder for `make -C`, also `lpbuild pack --headers`.
    pub headers: PathBuf,
    /// The configuration it was built with.
    pub config: PathBuf,
    /// Its modules (`lib/modules/<release>`).
    pub modules: PathBuf,
    root: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    kernel: Vec<Wanted>,
}

/// The entries of `versions.toml`.
pub fn wanted() -> Result<Vec<Wanted>> {
    let versions: Versions = toml::from_str(include_str!("../versions.toml")).context("harness/versions.toml")?;
    Ok(versions.kernel)
}

impl Kernel {
    /// The kernel of `series`, if setup has completed for it; asks nobody and downloads nothing.
    pub fn locate(series: &str) -> Result<Option<Self>> {
        let Some(choice) = selected(series)? else { return Ok(None) };
        let kernel = Self::of(&choice)?;
        let parts = [&kernel.vmlinuz, &kernel.headers, &kernel.source(&choice.old), &kernel.source(&choice.new)];
        Ok(parts.iter().all(|p| p.exists()).then_some(kernel))
    }

    /// Makes the kernel of `series` complete in the cache, downloading what is missing.
    pub fn ensure(series: &str) -> Result<Self> {
        if let Some(kernel) = Self::locate(series)? {
            return Ok(kernel);
        }
        let choice = match selected(series)? {
            Some(choice) => choice,
            None => select(series)?,
        };
        let kernel = Self::of(&choice)?;
        let release = &choice.release;
        cache::publish(&kernel.root.join("image"), |dir| {
            extract(&format!("linux-image-{release}-unsigned"), &choice.old, dir)
        })?;
        cache::publish(&kernel.root.join("headers"), |dir| {
            extract_headers(&choice, dir, &kernel.root.join("headers"))
        })?;
        for version in [&choice.old, &choice.new] {
            cache::publish(&kernel.source(version), |dir| extract_source(series, version, dir))?;
        }
        for path in [&kernel.vmlinuz, &kernel.headers, &kernel.config] {
            if !path.exists() {
                bail!("the packages of {} {} have no {}", choice.release, choice.old, path.display());
            }
        }
        Ok(kernel)
    }

    fn of(choice: &Choice) -> Result<Self> {
        let release = choice.release.clone();
        let root = cache::root()?.join("kernels").join(&release);
        Ok(Self {
            vmlinuz: root.join(format!("image/boot/vmlinuz-{release}")),
            config: root.join(format!("image/boot/config-{release}")),
            modules: root.join(format!("image/lib/modules/{release}")),
            headers: root.join(format!("headers/usr/src/linux-headers-{release}")),
            version: choice.old.clone(),
            new_version: choice.new.clone(),
            release,
            root,
        })
    }

    /// The source tree of a package version; shared, so it must not be written to.
    pub fn source(&self, version: &Version) -> PathBuf {
        self.root.join(format!("source-{version}"))
    }

    /// The source of the running kernel.
    pub fn old_source(&self) -> PathBuf {
        self.source(&self.version)
    }

    /// The source fixes are taken from.
    pub fn new_source(&self) -> PathBuf {
        self.source(&self.new_version)
    }
}

fn selected_path(series: &str) -> Result<PathBuf> {
    Ok(cache::root()?.join(format!("kernels/selected-{series}.toml")))
}

fn entry(series: &str) -> Result<Wanted> {
    let all = wanted()?;
    all.into_iter()
        .find(|w| w.series == series)
        .with_context(|| format!("harness/versions.toml has no series {series}"))
}

/// The recorded choice; one made for another wish is forgotten.
fn selected(series: &str) -> Result<Option<Choice>> {
    #[derive(Deserialize)]
    struct Recorded {
        wish: String,
        #[serde(flatten)]
        choice: Choice,
    }
    let path = selected_path(series)?;
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let recorded: Recorded = toml::from_str(&text).with_context(|| format!("{}: delete it", path.display()))?;
    Ok((recorded.wish == wish(&entry(series)?)).then_some(recorded.choice))
}

fn wish(wanted: &Wanted) -> String {
    format!("{} {} {}", wanted.flavour, wanted.old, wanted.new)
}

fn select(series: &str) -> Result<Choice> {
    let wanted = entry(series)?;
    let choice = choose(&wanted)?;
    if (&choice.old, &choice.new) != (&wanted.old, &wanted.new) {
        progress(format!(
            "the archive no longer has {} -> {}; falling back on {} -> {} (rule: harness/versions.toml)",
            wanted.old, wanted.new, choice.old, choice.new
        ));
    }
    let text = format!("wish = {:?}\n{}", wish(&wanted), toml::to_string(&choice)?);
    cache::write_atomic(&selected_path(series)?, text.as_bytes())?;
    Ok(choice)
}

/// The wanted pair. Before another one is taken, or none, apt's lists are renewed: they may only be old or incomplete.
fn choose(wanted: &Wanted) -> Result<Choice> {
    let first = Available::query(wanted)?.choose(wanted);
    let is_wanted = |c: &Choice| (&c.old, &c.new) == (&wanted.old, &wanted.new);
    if first.as_ref().is_ok_and(is_wanted) {
        return first;
    }
    match packages::update_lists() {
        Ok(()) => Available::query(wanted)?.choose(wanted),
        Err(why) => {
            progress(format!("{} -> {} is not in apt's lists, and {why:#}", wanted.old, wanted.new));
            first
        }
    }
}

/// Downloads one package (or finds it complete from an interrupted run) and unpacks it into `dir`.
fn extract(package: &str, version: &Version, dir: &Path) -> Result<()> {
    let downloads = cache::root()?.join("downloads");
    fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
    let _lock = cache::lock(&downloads)?;
    progress(format!("fetching {package} {version}"));
    let mut apt = cmd::command("apt-get");
    if packages::is_root() {
        apt.args(["-o", "APT::Sandbox::User=root"]);
    }
    apt.args(["download", "-q", &format!("{package}={version}")]).current_dir(&downloads);
    cmd::output(&mut apt)?;
    // apt escapes a colon in file names; kernel packages have no epoch.
    let prefix = format!("{package}_{version}_");
    let deb = fs::read_dir(&downloads)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .with_context(|| format!("apt-get download left no {prefix}*.deb in {}", downloads.display()))?;
    cmd::output(cmd::command("dpkg-deb").arg("-x").arg(&deb).arg(dir))?;
    fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))
}

/// Flavour headers, and the common headers and build tools they name, in one root; the path of the common Makefile, made
/// for `/`, is pointed at `final_root`. The links to the tools are relative and hold in any root.
fn extract_headers(choice: &Choice, dir: &Path, final_root: &Path) -> Result<()> {
    let release = &choice.release;
    extract(&format!("linux-headers-{release}"), &choice.old, dir)?;
    let flavour = dir.join(format!("usr/src/linux-headers-{release}"));
    let makefile = flavour.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| makefile.display().to_string())?;
    // `include /usr/src/linux-headers-ABI-common/Makefile`; how an ABI is named differs between series.
    let common = text.lines().find_map(|l| l.strip_prefix("include /usr/src/")?.strip_suffix("/Makefile"));
    let Some(common) = common else {
        bail!("{} does not include the common Makefile as expected:\n{text}", makefile.display());
    };
    extract(common, &choice.old, dir)?;
    let root = final_root.display();
    fs::write(&makefile, text.replace("include /usr/src/", &format!("include {root}/usr/src/")))?;
    // scripts and tools are links to ../../lib/linux-kbuild-*: a package of the series or of the ABI.
    let scripts = fs::read_link(flavour.join("scripts"))?;
    let kbuild = scripts.iter().filter_map(|c| c.to_str()).find(|c| c.starts_with("linux-kbuild-"));
    let kbuild = kbuild.with_context(|| format!("scripts leads to {}", scripts.display()))?;
    extract(kbuild, &archive::nearest(kbuild, &choice.old)?, dir)?;
    let found = flavour.join("scripts/Makefile.build");
    if !found.is_file() {
        bail!("the package {kbuild} {} has no scripts/Makefile.build", choice.old);
    }
    Ok(())
}

fn extract_source(series: &str, version: &Version, dir: &Path) -> Result<()> {
    let package = format!("linux-source-{series}");
    let temp = tempfile::tempdir_in(dir)?;
    extract(&package, version, temp.path())?;
    progress(format!("unpacking the source of {version}"));
    let tarball = temp.path().join(format!("usr/src/{package}.tar.xz"));
    let mut tar = cmd::command("tar");
    tar.arg("-C").arg(dir).args(["--strip-components=1", "-xf"]).arg(&tarball).env("XZ_DEFAULTS", "-T0");
    cmd::output(&mut tar)?;
    Ok(())
}
