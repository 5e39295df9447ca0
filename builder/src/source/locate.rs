//! Which kernel is meant, and where its image, headers, source, configuration and compiler are.
//!
//! Each part is taken as named by the user, else found installed, else (Debian, Ubuntu) unpacked from the archive into the
//! cache. Parts that do not belong together are refused, saying which is which (LP6206, LP6207).

use std::path::{Path, PathBuf};

use super::Progress;
use super::debian::{Archive, Unpacked, Version, source_path};
use super::module_tree::ModuleTree;
use crate::codes;
use crate::config;
use crate::error::{Error, Place, Result};
use crate::kernel::KernelImage;
use crate::kernel::config as kernel_config;
use crate::tool::{self, Log};
use crate::toolchain::Toolchain;

/// A kernel and everything a patch for it is made from.
#[derive(Debug)]
pub struct TargetKernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// The image, unpacked.
    pub image: KernelImage,
    /// Where it was read from.
    pub image_path: PathBuf,
    /// Folder for `make -C`.
    pub headers: PathBuf,
    /// Kernel source tree.
    pub source: PathBuf,
    /// Its version, from its Makefile: `6.1.187`.
    pub source_version: String,
    /// The configuration.
    pub config: PathBuf,
    /// The compiler and what it runs.
    pub toolchain: Toolchain,
    /// The compiler's name as the configuration has it.
    pub compiler_name: String,
    /// Where the files of its modules are.
    pub modules: ModuleTree,
}

impl TargetKernel {
    /// Finds every part and checks that they belong together.
    pub fn find(wish: &config::KernelChoice, log: &Log, progress: &dyn Progress) -> Result<Self> {
        Self::find_parts(wish, true, log, progress)
    }

    /// The same without the kernel's source, which external modules are not compiled from: `source` is the headers.
    pub fn find_headers(wish: &config::KernelChoice, log: &Log, progress: &dyn Progress) -> Result<Self> {
        Self::find_parts(wish, false, log, progress)
    }

    fn find_parts(wish: &config::KernelChoice, with_source: bool, log: &Log, progress: &dyn Progress) -> Result<Self> {
        let release = match (&wish.release, &wish.image) {
            (Some(release), _) => Some(release.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(running()?),
        };
        let image_path = match (&wish.image, &release) {
            (Some(path), _) => path.clone(),
            (None, Some(release)) => find_image(release, log, progress)?,
            (None, None) => return Err(Error::new(codes::LP1000, Place::default(), "neither release nor image")),
        };
        let image = KernelImage::open(&image_path)?;
        let release = release.unwrap_or_else(|| image.release().to_owned());
        if image.release() != release {
            let what = format!("the image is of {}, asked for is {release}", image.release());
            return Err(mismatch(&image_path, what));
        }
        let version = package_version(image.banner());
        let archive = || Archive::new(log, progress);
        let need = |part: &'static str, option: &'static str| {
            version.clone().ok_or_else(|| {
                let what = format!(
                    "the {part} of {release} is not installed, and its banner names no distribution package to take \
                     it from; name it with {option}"
                );
                Error::new(codes::LP6203, Place::default(), what)
            })
        };
        let unpacked = Unpacked::of(&release)?;

        let config = match &wish.config {
            Some(path) => path.clone(),
            None => {
                let beside = image_path.parent().map(|d| d.join(format!("config-{release}")));
                let boot = PathBuf::from(format!("/boot/config-{release}"));
                let found = beside.into_iter().chain([boot, unpacked.config.clone()]).find(|p| p.is_file());
                match found {
                    Some(path) => path,
                    None => {
                        need("configuration", "--config")?;
                        archive()?.image(&release)?.config
                    }
                }
            }
        };
        // Before anything large is fetched.
        let text = std::fs::read_to_string(&config).map_err(|e| Error::io(&config, &e))?;
        let (toolchain, compiler_name) = compiler(wish, &config, &text, log)?;
        let headers = match &wish.headers {
            Some(path) => path.clone(),
            None => {
                let installed = [format!("/lib/modules/{release}/build"), format!("/usr/src/linux-headers-{release}")];
                let mut places = installed.iter().map(PathBuf::from).chain([unpacked.headers.clone()]);
                match places.find(|p| p.join("Makefile").is_file() && p.join("scripts/Makefile.build").is_file()) {
                    Some(path) => path,
                    None => archive()?.headers(&release, &need("headers package", "--headers")?)?,
                }
            }
        };
        let source = match &wish.source {
            _ if !with_source => headers.clone(),
            Some(path) => path.clone(),
            None => {
                let version = need("source", "--source")?;
                let cached = source_path(&version)?;
                if cached.is_dir() { cached } else { archive()?.source(&version)? }
            }
        };
        let source = source.canonicalize().map_err(|e| Error::io(&source, &e))?;
        let expected = version.as_ref().map_or(release.as_str(), Version::upstream);
        let source_version = if with_source { version_of(&source)? } else { expected.to_owned() };
        if !same_version(&source_version, expected) {
            let what = format!("this is the source of {source_version}, the image {release} was built from {expected}");
            return Err(mismatch(&source, what));
        }
        check_config(&config, &text, &source_version)?;
        let modules = ModuleTree::with(wish.module_dir.as_deref(), &release)?;
        Ok(Self {
            release,
            image,
            image_path,
            headers,
            source,
            source_version,
            config,
            toolchain,
            compiler_name,
            modules,
        })
    }
}

/// The image of a release: installed, or from the archive.
pub fn find_image(release: &str, log: &Log, progress: &dyn Progress) -> Result<PathBuf> {
    let installed = [format!("/boot/vmlinuz-{release}"), format!("/usr/lib/modules/{release}/vmlinuz")];
    let cached = Unpacked::of(release)?.image;
    match installed.iter().map(PathBuf::from).chain([cached]).find(|p| p.is_file()) {
        Some(path) => Ok(path),
        None => Ok(Archive::new(log, progress)?.image(release)?.image),
    }
}

/// The release of the running kernel.
pub fn running() -> Result<String> {
    let uname = rustix::system::uname();
    let release = uname.release().to_str();
    release.map(str::to_owned).map_err(|_| Error::new(codes::LP1000, Place::default(), "uname -r is not text"))
}

/// `Debian 6.1.187-1` in `linux_banner`, or the package version Ubuntu's banner ends with: `(Ubuntu 6.8.0-31.31-generic 6.8.1)`.
fn package_version(banner: &str) -> Option<Version> {
    let mut words = banner.split_whitespace();
    while let Some(word) = words.next() {
        match word.trim_start_matches('(') {
            "Debian" => {
                let version = words.next()?;
                // `gcc-12 (Debian 12.2.0-14) 12.2.0` in the same line is about the compiler.
                if version.starts_with(|c: char| c.is_ascii_digit())
                    && !version.ends_with(')')
                    && !version.ends_with("),")
                {
                    return Some(Version(version.to_owned()));
                }
            }
            "Ubuntu" if banner.contains("-Ubuntu ") => {
                let version = words.next()?;
                if let Some((version, _flavour)) = version.rsplit_once('-')
                    && version.contains('-')
                {
                    return Some(Version(version.to_owned()));
                }
            }
            _ => {}
        }
    }
    None
}

/// VERSION.PATCHLEVEL.SUBLEVEL of the top Makefile.
fn version_of(source: &Path) -> Result<String> {
    let makefile = source.join("Makefile");
    let no_source = |what: String| Error::new(codes::LP6208, Place::object(source.display().to_string()), what);
    let text = std::fs::read_to_string(&makefile).map_err(|e| no_source(format!("Makefile: {e}")))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.trim_start().strip_prefix('='));
        line.map(|v| v.trim().to_owned()).ok_or_else(|| no_source(format!("its Makefile has no {name}")))
    };
    let (version, level, sub) = (field("VERSION")?, field("PATCHLEVEL")?, field("SUBLEVEL")?);
    Ok(format!("{version}.{level}.{sub}{}", field("EXTRAVERSION").unwrap_or_default()))
}

/// Whether `6.1.187` is the version that `6.1.187-custom` or `6.1.187` names.
fn same_version(source: &str, expected: &str) -> bool {
    let numbers = |v: &str| v.split(|c: char| !c.is_ascii_digit()).take(3).map(str::to_owned).collect::<Vec<_>>();
    let (a, mut b) = (numbers(source), numbers(expected));
    // `6.12` and `6.12.0` are the same.
    while b.len() < a.len() {
        b.push("0".into());
    }
    a == b
}

/// The header line of a configuration names the version it was made for.
fn check_config(path: &Path, text: &str, version: &str) -> Result<()> {
    if kernel_config::value(text, "CONFIG_X86_64") != Some("y") {
        return Err(mismatch(path, "this is not the configuration of an x86-64 kernel".into()));
    }
    let made_for =
        text.lines().find_map(|l| l.strip_prefix("# Linux/x86")?.trim().strip_suffix(" Kernel Configuration"));
    match made_for {
        Some(made_for) if !same_version(version, made_for.trim()) => {
            Err(mismatch(path, format!("this is a configuration of {made_for}, the source is of {version}")))
        }
        _ => Ok(()),
    }
}

/// The compiler the configuration names, or the one the user names, if it is the same.
fn compiler(wish: &config::KernelChoice, config: &Path, text: &str, log: &Log) -> Result<(Toolchain, String)> {
    let wanted = kernel_config::string(text, "CONFIG_CC_VERSION_TEXT").ok_or_else(|| {
        Error::new(codes::LP6207, Place::object(config.display().to_string()), "it has no CONFIG_CC_VERSION_TEXT")
    })?;
    let name = wanted.split_whitespace().next().unwrap_or("gcc").to_owned();
    let from_environment = std::env::var("CC").ok().filter(|c| !c.trim().is_empty());
    let command = wish.compiler.clone().or(from_environment).unwrap_or_else(|| name.clone());
    // The last word is the compiler; what is before it starts it.
    let mut words = command.split_whitespace();
    let program = words.next_back().unwrap_or(&name).to_owned();
    for launcher in words {
        tool::find(launcher).map_err(|_| no_compiler(launcher, "the launcher in CC"))?;
    }
    tool::find(&program).map_err(|_| no_compiler(&program, &format!("the kernel was built by {wanted}")))?;
    let out = log.run(tool::command(&program).arg("--version"), codes::LP6207)?;
    let have = out.lines().next().unwrap_or("").trim();
    // The first word is how it was called.
    let rest = |t: &str| t.split_once(' ').map_or(String::new(), |(_, r)| r.trim().to_owned());
    if rest(have) != rest(wanted) {
        let what = format!("{program} is {have}, but the kernel was built by {wanted}");
        return Err(Error::new(codes::LP6207, Place::object(program), what));
    }
    Ok((Toolchain::of(&command, log)?, name))
}

fn no_compiler(program: &str, why: &str) -> Error {
    Error::new(codes::LP6207, Place::object(program), format!("not found in PATH; {why}"))
}

fn mismatch(path: &Path, what: String) -> Error {
    Error::new(codes::LP6206, Place::object(path.display().to_string()), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_version_comes_from_the_banner() {
        let debian = "Linux version 6.1.0-53-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) \
                      12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.187-1 (2026-07-01)";
        assert_eq!(package_version(debian), Some(Version("6.1.187-1".into())));
        let ubuntu = "Linux version 6.8.0-31-generic (buildd@h) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0, \
                      GNU ld (GNU Binutils for Ubuntu) 2.42) #31-Ubuntu SMP PREEMPT_DYNAMIC Sat Apr 20 (Ubuntu 6.8.0-31.31-generic 6.8.1)";
        assert_eq!(package_version(ubuntu), Some(Version("6.8.0-31.31".into())));
        assert_eq!(package_version("Linux version 6.5.3 (a@b) (gcc (GCC) 13.1) #1 SMP Mon"), None);
    }

    #[test]
    fn versions_of_source_and_image_are_compared_by_their_numbers() {
        assert!(same_version("6.1.187", "6.1.187") && same_version("6.5.3", "6.5.3-custom+"));
        assert!(same_version("6.12.0", "6.12"));
        assert!(!same_version("6.1.190", "6.1.187"));
    }

    #[test]
    fn a_configuration_of_another_version_is_refused() {
        let text = "# Linux/x86 6.1.190 Kernel Configuration\nCONFIG_X86_64=y\n";
        let e = check_config(Path::new("/boot/config"), text, "6.1.187").unwrap_err().to_string();
        assert!(e.contains("6.1.190") && e.contains("6.1.187") && e.contains("LP6206"), "{e}");
        assert!(check_config(Path::new("c"), text, "6.1.190").is_ok());
        assert!(check_config(Path::new("c"), "CONFIG_ARM64=y\n", "6.1.190").is_err());
    }
}
