//! Stock kernels: image, headers and sources of the versions in `versions.toml`, from the Debian archive into the cache.
//!
//! ```text
//! selected-6.1.toml   the pair in use (see versions.toml for the fallback rule)
//! ```
//!
//! Everything else is where `lpbuild build` looks for it and would put it itself (`lpbuild::source::debian`).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lpbuild::source::Progress;
use lpbuild::source::debian::{Archive, Unpacked, source_path};
use lpbuild::tool::Log;
use serde::Deserialize;

use crate::archive::{Available, Choice, Version, Wanted};
use crate::{cache, packages, progress};

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
    old_source: PathBuf,
    new_source: PathBuf,
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
        let parts = [&kernel.vmlinuz, &kernel.headers, &kernel.old_source, &kernel.new_source];
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
        let log = Log::default();
        let archive = Archive::new(&log, &Said)?;
        archive.image_of(&choice.release, &choice.old)?;
        archive.headers(&choice.release, &choice.old)?;
        for version in [&choice.old, &choice.new] {
            archive.source(version)?;
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
        let at = Unpacked::of(&release)?;
        Ok(Self {
            vmlinuz: at.image,
            config: at.config,
            modules: at.modules,
            headers: at.headers,
            old_source: source_path(&choice.old)?,
            new_source: source_path(&choice.new)?,
            version: choice.old.clone(),
            new_version: choice.new.clone(),
            release,
        })
    }

    /// The source of the running kernel; shared, so it must not be written to.
    pub fn old_source(&self) -> PathBuf {
        self.old_source.clone()
    }

    /// The source fixes are taken from; shared as well.
    pub fn new_source(&self) -> PathBuf {
        self.new_source.clone()
    }
}

/// What lpbuild is doing, as progress of the harness.
#[derive(Debug)]
pub(crate) struct Said;

impl Progress for Said {
    fn status(&self, text: &str) {
        progress(text);
    }
}

fn selected_path(series: &str) -> Result<PathBuf> {
    Ok(cache::root()?.join(format!("selected-{series}.toml")))
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
