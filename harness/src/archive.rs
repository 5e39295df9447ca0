//! What the Debian archive holds right now, and which pair of kernels to take from it.
//!
//! Input: the text of `apt-cache madison`, and the wanted pair of `versions.toml`. Output: [`Choice`]. A wanted pair the
//! archive no longer has falls back on the newest complete pair of neighbouring upstream versions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{cmd, packages};

/// A Debian package version; ordered as dpkg orders them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

impl Version {
    /// The part before the Debian revision.
    pub fn upstream(&self) -> &str {
        self.0.rsplit_once('-').map_or(&self.0, |(u, _)| u)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Alternating runs of non-digits (`~` before everything, letters before the rest) and numbers.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() || !b.is_empty() {
        let ((ta, ra), (tb, rb)) = (split(a, |c| !c.is_ascii_digit()), split(b, |c| !c.is_ascii_digit()));
        let weight = |c: Option<char>| match c {
            Some('~') => -1,
            None => 0,
            Some(c) if c.is_ascii_alphabetic() => c as i32,
            Some(c) => c as i32 + 256,
        };
        let len = ta.chars().count().max(tb.chars().count());
        for i in 0..len {
            let order = weight(ta.chars().nth(i)).cmp(&weight(tb.chars().nth(i)));
            if order.is_ne() {
                return order;
            }
        }
        let ((na, ra), (nb, rb)) = (split(ra, |c| c.is_ascii_digit()), split(rb, |c| c.is_ascii_digit()));
        let number = |s: &str| s.parse::<u64>().unwrap_or(0);
        let order = number(na).cmp(&number(nb));
        if order.is_ne() {
            return order;
        }
        (a, b) = (ra, rb);
    }
    Ordering::Equal
}

fn split(s: &str, f: impl Fn(char) -> bool) -> (&str, &str) {
    s.split_at(s.find(|c| !f(c)).unwrap_or(s.len()))
}

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

/// The version of `package` to take beside `version` of the kernel: the same, or the newest there is. The build tools of a
/// whole series are one package, of which the archive keeps no older version.
pub fn nearest(package: &str, version: &Version) -> Result<Version> {
    let mut all: Vec<Version> = madison(&[package.to_string()])?.into_iter().map(|(_, v)| v).collect();
    all.sort();
    let found = if all.contains(version) { Some(version.clone()) } else { all.pop() };
    found.with_context(|| format!("the archive has no {package}"))
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
    fn versions_are_ordered_as_dpkg_orders_them() {
        for (a, b) in
            [("6.1.99-1", "6.1.187-1"), ("6.1.192-1", "6.1.192-2"), ("6.12.9-1~bpo12+1", "6.12.9-1"), ("1", "1a")]
        {
            assert!(v(a) < v(b), "{a} {b}");
        }
        assert_eq!(v("6.1.187-1").upstream(), "6.1.187");
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
