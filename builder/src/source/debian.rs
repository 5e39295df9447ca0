//! Kernel packages of Debian and Ubuntu: what the archive holds, and image, headers and source of one kernel, unpacked
//! into the cache without touching the host (no root needed).
//!
//! apt is asked with the host's package lists first; when a package is not in them, with lists of lpbuild's own that are
//! fetched into the cache. What is asked for is never installed, only unpacked:
//!
//! ```text
//! kernels/RELEASE/image/     boot/vmlinuz-*, boot/config-*, lib/modules/*
//! kernels/RELEASE/headers/   usr/src/linux-headers-*, ready for `make -C`
//! sources/PACKAGE_VERSION/   one kernel source tree
//! downloads/                 packages, only until they are unpacked
//! ```
//!
//! Refused: packages the archive does not have (LP6204), a host without apt (LP6203).

use std::cmp::Ordering;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Progress;
use crate::cache;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::tool::{self, Log};

/// A Debian package version; ordered as dpkg orders them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

impl Version {
    /// The part before the Debian revision.
    pub fn upstream(&self) -> &str {
        self.0.rsplit_once('-').map_or(&self.0, |(u, _)| u)
    }

    /// The first two numbers, as source packages are named: `6.1` of `6.1.187-1`.
    pub fn series(&self) -> String {
        self.upstream().split('.').take(2).collect::<Vec<_>>().join(".")
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

/// Alternating runs of non-digits (`~` before everything, letters before the rest) and numbers (deb-version(7)).
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

/// Where unpacked packages of one release are.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The compressed image.
    pub image: PathBuf,
    /// The configuration it was built with.
    pub config: PathBuf,
    /// `lib/modules/RELEASE`
    pub modules: PathBuf,
    /// The folder for `make -C`.
    pub headers: PathBuf,
    root: PathBuf,
}

impl Unpacked {
    /// Where they are or would be.
    pub fn of(release: &str) -> Result<Self> {
        let root = cache::root()?.join("kernels").join(release);
        Ok(Self {
            image: root.join(format!("image/boot/vmlinuz-{release}")),
            config: root.join(format!("image/boot/config-{release}")),
            modules: root.join(format!("image/lib/modules/{release}")),
            headers: root.join(format!("headers/usr/src/linux-headers-{release}")),
            root,
        })
    }
}

/// The source of a package version, in the cache or not yet.
pub fn source_path(version: &Version) -> Result<PathBuf> {
    Ok(cache::root()?.join("sources").join(format!("linux-source-{}_{version}", version.series())))
}

/// A way to ask the distribution's archive.
#[derive(Debug)]
pub struct Archive<'a> {
    log: &'a Log,
    progress: &'a dyn Progress,
}

impl<'a> Archive<'a> {
    /// `progress` is told what takes long.
    pub fn new(log: &'a Log, progress: &'a dyn Progress) -> Result<Self> {
        if tool::find("apt-get").is_err() || tool::find("dpkg-deb").is_err() {
            let what = "this host has no apt; kernel packages can be found by themselves on Debian and Ubuntu only";
            return Err(Error::new(codes::LP6203, Place::default(), what));
        }
        Ok(Self { log, progress })
    }

    /// The image of `release`, unpacked. Debian's unsigned one is preferred: the same kernel, and its configuration with it.
    pub fn image(&self, release: &str) -> Result<Unpacked> {
        let at = Unpacked::of(release)?;
        cache::publish(&at.root.join("image"), |dir| {
            let unsigned = [format!("linux-image-{release}-unsigned"), format!("linux-image-unsigned-{release}")];
            let names = [&unsigned[0], &unsigned[1], &format!("linux-image-{release}")];
            let found = names.iter().find_map(|n| Some((n, self.versions(n).ok()?.pop()?)));
            let found = match found {
                Some(found) => found,
                None => {
                    self.update()?;
                    let again = names.iter().find_map(|n| Some((n, self.versions(n).ok()?.pop()?)));
                    again.ok_or_else(|| absent(&format!("linux-image-{release}"), None))?
                }
            };
            self.unpack(found.0, &found.1, dir)?;
            // Ubuntu ships configuration and modules in a package of their own.
            if !dir.join(format!("boot/config-{release}")).exists() {
                self.unpack(&format!("linux-modules-{release}"), &found.1, dir)?;
            }
            Ok(())
        })?;
        Ok(at)
    }

    /// The image of `release` in exactly this version, unpacked.
    pub fn image_of(&self, release: &str, version: &Version) -> Result<Unpacked> {
        let at = Unpacked::of(release)?;
        cache::publish(&at.root.join("image"), |dir| {
            self.unpack(&format!("linux-image-{release}-unsigned"), version, dir)
        })?;
        Ok(at)
    }

    /// The vmlinux with symbols and debug information of `release`, from its `-dbg` package; nothing else of that is kept.
    pub fn debug_image(&self, release: &str, version: &Version) -> Result<PathBuf> {
        let at = Unpacked::of(release)?;
        let path = format!("usr/lib/debug/boot/vmlinux-{release}");
        let entry = cache::publish(&at.root.join("debug"), |dir| {
            let whole = tempfile::tempdir_in(dir).map_err(|e| Error::io(dir, &e))?;
            self.unpack(&format!("linux-image-{release}-dbg"), version, whole.path())?;
            let to = dir.join("vmlinux");
            fs::rename(whole.path().join(&path), &to).map_err(|e| Error::io(&to, &e))
        })?;
        Ok(entry.join("vmlinux"))
    }

    /// Names of packages of the archive that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = self.log.run(self.apt("apt-cache")?.arg("pkgnames").arg(prefix), codes::LP6205)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The headers of `release`: those of the flavour, and the common ones and build tools they name, in one root.
    pub fn headers(&self, release: &str, version: &Version) -> Result<PathBuf> {
        let at = Unpacked::of(release)?;
        cache::publish(&at.root.join("headers"), |dir| {
            let package = format!("linux-headers-{release}");
            self.unpack(&package, version, dir)?;
            let flavour = dir.join("usr/src").join(&package);
            let makefile = flavour.join("Makefile");
            // `include /usr/src/linux-headers-ABI-common/Makefile`; how an ABI is named differs between series. Ubuntu links
            // everything to linux-headers-ABI instead.
            if let Ok(text) = fs::read_to_string(&makefile)
                && let Some(common) =
                    text.lines().find_map(|l| l.strip_prefix("include /usr/src/")?.strip_suffix("/Makefile"))
            {
                self.unpack(common, version, dir)?;
                let text =
                    text.replace("include /usr/src/", &format!("include {}/headers/usr/src/", at.root.display()));
                fs::write(&makefile, text).map_err(|e| Error::io(&makefile, &e))?;
            } else if let Ok(link) = fs::read_link(&makefile)
                && let Some(common) = link.iter().filter_map(|c| c.to_str()).find(|c| c.starts_with("linux-headers-"))
            {
                self.unpack(common, version, dir)?;
            }
            // scripts and tools are links to ../../lib/linux-kbuild-*: a package of the series or of the ABI.
            if let Ok(link) = fs::read_link(flavour.join("scripts"))
                && let Some(kbuild) = link.iter().filter_map(|c| c.to_str()).find(|c| c.starts_with("linux-kbuild-"))
            {
                self.unpack(kbuild, &self.nearest(kbuild, version)?, dir)?;
            }
            if !flavour.join("scripts/Makefile.build").is_file() {
                let what = format!("version {version} brings no scripts/Makefile.build");
                return Err(Error::new(codes::LP6204, Place::object(package), what));
            }
            Ok(())
        })?;
        Ok(at.headers)
    }

    /// The source tree of a package version.
    pub fn source(&self, version: &Version) -> Result<PathBuf> {
        let package = format!("linux-source-{}", version.series());
        cache::publish(&source_path(version)?, |dir| {
            let temp = tempfile::tempdir_in(dir).map_err(|e| Error::io(dir, &e))?;
            let installed = PathBuf::from(format!("/usr/src/{package}.tar.xz"));
            let tarball = if installed.is_file() && self.installed(&package).as_ref() == Some(version) {
                installed
            } else {
                self.unpack(&package, version, temp.path())?;
                temp.path().join(format!("usr/src/{package}.tar.xz"))
            };
            self.progress.status(&format!("unpacking the source of {version}"));
            let mut tar = tool::command("tar");
            tar.arg("-C").arg(dir).args(["--strip-components=1", "-xf"]).arg(&tarball).env("XZ_DEFAULTS", "-T0");
            self.log.run(&mut tar, codes::LP6205).map(drop)
        })
    }

    /// Versions of a package the archive has, oldest first.
    pub fn versions(&self, package: &str) -> Result<Vec<Version>> {
        let text = self.log.run(self.apt("apt-cache")?.arg("madison").arg(package), codes::LP6205)?;
        let mut found: Vec<Version> = parse_madison(&text);
        found.sort();
        Ok(found)
    }

    /// The version of `package` to take beside `version` of the kernel: the same, or the newest there is. The build tools of
    /// a whole series are one package, of which the archive keeps no older version.
    fn nearest(&self, package: &str, version: &Version) -> Result<Version> {
        let mut all = self.versions(package)?;
        if all.is_empty() {
            self.update()?;
            all = self.versions(package)?;
        }
        let found = if all.contains(version) { Some(version.clone()) } else { all.pop() };
        found.ok_or_else(|| absent(package, None))
    }

    fn installed(&self, package: &str) -> Option<Version> {
        let mut query = tool::command("dpkg-query");
        query.args(["-W", "-f", "${Version}", package]);
        self.log.run(&mut query, codes::LP6205).ok().map(|v| Version(v.trim().to_owned()))
    }

    /// Downloads one package and unpacks it into `dir`.
    fn unpack(&self, package: &str, version: &Version, dir: &Path) -> Result<()> {
        if !self.versions(package)?.contains(version) {
            self.update()?;
            if !self.versions(package)?.contains(version) {
                return Err(absent(package, Some(version)));
            }
        }
        self.progress.status(&format!("fetching {package} {version}"));
        let downloads = cache::root()?.join("downloads");
        fs::create_dir_all(&downloads).map_err(|e| Error::io(&downloads, &e))?;
        let folder = tempfile::tempdir_in(&downloads).map_err(|e| Error::io(&downloads, &e))?;
        let mut apt = self.apt("apt-get")?;
        apt.args(["download", "-q", &format!("{package}={version}")]).current_dir(folder.path());
        self.log.run(&mut apt, codes::LP6205)?;
        let mut files = fs::read_dir(folder.path()).map_err(|e| Error::io(folder.path(), &e))?.flatten();
        let deb = files.find(|f| f.path().extension().is_some_and(|e| e == "deb"));
        let deb =
            deb.ok_or_else(|| Error::new(codes::LP6205, Place::object(package), "apt-get download left no package"))?;
        let mut dpkg = tool::command("dpkg-deb");
        self.log.run(dpkg.arg("-x").arg(deb.path()).arg(dir), codes::LP6205).map(drop)
    }

    /// Fetches package lists into the cache, whatever the host's are like.
    fn update(&self) -> Result<()> {
        self.progress.status("fetching the package lists");
        let root = lists()?;
        let partial = root.join("lists/partial");
        fs::create_dir_all(&partial).map_err(|e| Error::io(&partial, &e))?;
        let mut apt = tool::command("apt-get");
        private(&mut apt, &root);
        self.log.run(apt.args(["update", "-q"]), codes::LP6205).map(drop)
    }

    /// apt with lpbuild's own lists once there are some, else with those of the host.
    fn apt(&self, program: &str) -> Result<Command> {
        let mut c = tool::command(program);
        // Root would hand downloads to the user _apt, who cannot write to the cache.
        c.args(["-o", "APT::Sandbox::User=root"]);
        let root = lists()?;
        if root.join("lists/lock").exists() {
            private(&mut c, &root);
        }
        Ok(c)
    }
}

fn lists() -> Result<PathBuf> {
    Ok(cache::root()?.join("apt"))
}

fn private(c: &mut Command, root: &Path) {
    c.args(["-o", "APT::Sandbox::User=root", "-o", &format!("Dir::State::lists={}", root.join("lists").display())]);
    c.args(["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]);
    c.args(["-o", &format!("Dir::Cache={}", root.display())]);
}

fn absent(package: &str, version: Option<&Version>) -> Error {
    let what = match version {
        Some(v) => format!("the archive has no version {v} of it"),
        None => "the archive does not have it".to_owned(),
    };
    Error::new(codes::LP6204, Place::object(package), what)
}

/// Lines of `package | version | origin`; entries that stand for source packages are left out.
fn parse_madison(text: &str) -> Vec<Version> {
    let fields = |line: &str| -> Option<Version> {
        let mut f = line.split('|').map(str::trim);
        let (_, version, origin) = (f.next()?, f.next()?, f.next()?);
        (!origin.ends_with("Sources")).then(|| Version(version.to_owned()))
    };
    text.lines().filter_map(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let v = |s: &str| Version(s.to_owned());
        for (a, b) in
            [("6.1.99-1", "6.1.187-1"), ("6.1.192-1", "6.1.192-2"), ("6.12.9-1~bpo12+1", "6.12.9-1"), ("1", "1a")]
        {
            assert!(v(a) < v(b), "{a} {b}");
        }
        assert_eq!(v("6.12.107-1~deb12u1").upstream(), "6.12.107");
        assert_eq!(v("6.12.107-1~deb12u1").series(), "6.12");
    }

    #[test]
    fn madison_lines_are_read_and_source_entries_left_out() {
        let text = " linux-source-6.1 |  6.1.192-2 | http://h/debian bookworm/main amd64 Packages\n\
                    linux-source-6.1 | 6.1.1-1 | http://h/debian bookworm/main Sources\nnonsense\n";
        assert_eq!(parse_madison(text), [Version("6.1.192-2".to_owned())]);
    }
}
