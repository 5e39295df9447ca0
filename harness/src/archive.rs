//! What the Debian archive holds right now, and which pair of kernels to take from it.
//!
//! Input: the text of `apt-cache madison`, and the wanted pair of `versions.toml`. Output: [`Choice`]. A wanted pair the
//! archive no longer has falls back on the newest complete pair of neighbouring upstream versions.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
pub use lpbuild::source::debian::Version;
use serde::{Deserialize, Serialize};

use crate::{cmd, packages};

/// One entry of `versions.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Kernel series, the suffix of the source package.
    pub series: String,
    /// Debian flavour.
    pub flavour: String,
    /// Version of the kernel that runs.
    pub old: Version,
    /// Version the fixes come from.
    pub new: Version,
}

/// The pair to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// As `uname -r` prints it.
    pub release: String,
    /// Package version of image, headers and source of the running kernel.
    pub old: Version,
    /// Package version of the source the fixes come from.
    pub new: Version,
}

/// What the archive offers for one series and flavour.
#[derive(Clone, Debug, Default)]
pub struct Available {
    /// Versions of the source package.
    pub sources: BTreeSet<Version>,
    /// Releases with an image, by version.
    pub images: BTreeMap<Version, String>,
    /// Releases with flavour headers and common headers, by version.
    pub headers: BTreeMap<Version, String>,
}

impl Available {
    /// Asks apt; without any source version the package lists are updated once.
    pub fn query(wanted: &Wanted) -> Result<Self> {
        packages::ensure_lists()?;
        let found = Self::ask(wanted)?;
        if !found.sources.is_empty() && !found.images.is_empty() {
            return Ok(found);
        }
        packages::update_lists()?;
        Self::ask(wanted)
    }

    fn ask(wanted: &Wanted) -> Result<Self> {
        let series = &wanted.series;
        let flavour = format!("{}-amd64", wanted.flavour);
        let mut found = Available::default();
        for (_, version) in madison(&[format!("linux-source-{series}")])? {
            found.sources.insert(version);
        }
        for (package, version) in madison(&names("linux-image-", series, &format!("-{flavour}-unsigned"))?)? {
            if let Some(release) = package.strip_prefix("linux-image-").and_then(|s| s.strip_suffix("-unsigned")) {
                found.images.insert(version, release.to_string());
            }
        }
        for (package, version) in madison(&names("linux-headers-", series, &format!("-{flavour}"))?)? {
            if let Some(release) = package.strip_prefix("linux-headers-") {
                found.headers.insert(version, release.to_string());
            }
        }
        Ok(found)
    }

    fn complete(&self, version: &Version) -> Option<&String> {
        let release = self.images.get(version)?;
        (self.sources.contains(version) && self.headers.get(version) == Some(release)).then_some(release)
    }

    /// The wanted pair, or the newest complete one.
    pub fn choose(&self, wanted: &Wanted) -> Result<Choice> {
        if let Some(release) = self.complete(&wanted.old)
            && self.sources.contains(&wanted.new)
        {
            return Ok(Choice { release: release.clone(), old: wanted.old.clone(), new: wanted.new.clone() });
        }
        // The newest Debian revision of each upstream version, newest first.
        let mut newest: Vec<&Version> = Vec::new();
        for v in self.sources.iter().rev() {
            if newest.last().is_none_or(|n| n.upstream() != v.upstream()) {
                newest.push(v);
            }
        }
        for pair in newest.windows(2) {
            let (new, upstream) = (pair[0], pair[1].upstream());
            // An older revision of the same upstream version will do when only that one has its image.
            let mut olds = self.sources.iter().rev().filter(|v| v.upstream() == upstream);
            if let Some((old, release)) = olds.find_map(|v| self.complete(v).map(|r| (v, r))) {
                return Ok(Choice { release: release.clone(), old: old.clone(), new: new.clone() });
            }
        }
        bail!(
            "the archive has no neighbouring versions of linux-source-{} with image and headers of the older: {self:?}",
            wanted.series
        )
    }
}

fn names(prefix: &str, series: &str, suffix: &str) -> Result<Vec<String>> {
    let mut c = cmd::command("apt-cache");
    c.args(["pkgnames", &format!("{prefix}{series}.")]);
    // `linux-image-6.1.0-53-cloud-amd64-unsigned`, but not the `rt` flavour of the same ABI.
    let abi = |n: &str| n.strip_prefix(prefix)?.strip_suffix(suffix).map(|abi| abi.split('-').count() <= 2);
    Ok(cmd::output(&mut c)?.lines().filter(|n| abi(n) == Some(true)).map(str::to_string).collect())
}

fn madison(packages: &[String]) -> Result<Vec<(String, Version)>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    parse_madison(&cmd::output(cmd::command("apt-cache").arg("madison").args(packages))?)
}

/// Lines of `package | version | origin`; entries that stand for source packages are left out.
fn parse_madison(text: &str) -> Result<Vec<(String, Version)>> {
    let mut found = Vec::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let mut fields = line.split('|').map(str::trim);
        let (Some(package), Some(version), Some(origin)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(anyhow::anyhow!("{line:?}")).context("apt-cache madison printed a line of another form");
        };
        if !origin.ends_with("Sources") {
            found.push((package.to_string(), Version(version.to_string())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(s: &str) -> Version {
        Version(s.to_string())
    }

    fn wanted() -> Wanted {
        Wanted { series: "6.1".into(), flavour: "cloud".into(), old: v("6.1.187-1"), new: v("6.1.190-1") }
    }

    fn available(sources: &[&str], images: &[(&str, &str)]) -> Available {
        let images: BTreeMap<_, _> = images.iter().map(|(k, r)| (v(k), r.to_string())).collect();
        Available { sources: sources.iter().map(|s| v(s)).collect(), headers: images.clone(), images }
    }

    #[test]
    fn the_wanted_pair_is_taken_while_it_is_there() {
        let a = available(&["6.1.187-1", "6.1.190-1", "6.1.192-2"], &[("6.1.187-1", "53"), ("6.1.190-1", "54")]);
        assert_eq!(
            a.choose(&wanted()).unwrap(),
            Choice { release: "53".into(), old: v("6.1.187-1"), new: v("6.1.190-1") }
        );
    }

    #[test]
    fn else_the_newest_complete_pair_of_upstream_neighbours() {
        let mut a = available(
            &["6.1.190-1", "6.1.192-1", "6.1.192-2", "6.1.195-1"],
            &[("6.1.190-1", "54"), ("6.1.192-1", "55"), ("6.1.192-2", "56")],
        );
        assert_eq!(
            a.choose(&wanted()).unwrap(),
            Choice { release: "56".into(), old: v("6.1.192-2"), new: v("6.1.195-1") }
        );
        a.headers.remove(&v("6.1.192-2"));
        assert_eq!(a.choose(&wanted()).unwrap().release, "55");
        a.images.remove(&v("6.1.192-1"));
        assert_eq!(
            a.choose(&wanted()).unwrap(),
            Choice { release: "54".into(), old: v("6.1.190-1"), new: v("6.1.192-2") }
        );
        a.sources.remove(&v("6.1.190-1"));
        assert!(a.choose(&wanted()).is_err());
    }

    #[test]
    fn madison_lines_are_read_and_source_entries_left_out() {
        let text = " linux-source-6.1 |  6.1.192-2 | http://h/debian bookworm/main amd64 Packages\n\
                    linux-source-6.1 | 6.1.1-1 | http://h/debian bookworm/main Sources\n";
        assert_eq!(parse_madison(text).unwrap(), [("linux-source-6.1".to_string(), v("6.1.192-2"))]);
        assert!(parse_madison("nonsense\n").is_err());
    }
}
