//! The kernel's headers: found, of the right release, and usable wherever they were unpacked.
//!
//! Debian splits them: `linux-headers-R` (generated files) includes the Makefile of `linux-headers-ABI-common` by an
//! absolute path, and both reach `scripts` and `tools` of `linux-kbuild-V` by links made for `/usr`. When packages
//! were only unpacked, neither path leads anywhere. So kbuild is given a shadow: two temporary folders of links to the
//! real entries, with `scripts` and `tools` pointing where they really are, and make is told the Makefile directly.
//! The headers themselves are never changed.
//!
//! Refused: none found, or incomplete (LP4003), another release (LP4004).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::config as kernel_config;
use crate::tool;

/// What kbuild reads at the top of the headers, beside `scripts`, `tools` and `arch/x86`.
const READ_BY_KBUILD: &[&str] =
    &[".config", "Kbuild", "Makefile", "Module.symvers", "include/config/auto.conf", "include/config/kernel.release"];

/// Usable headers of one release.
pub(super) struct Headers {
    /// The folder `make -C` would be given; holds `.config` and `Module.symvers`.
    objects: PathBuf,
    /// The folder of the kernel's Makefile; the same as `objects` for headers that are not split.
    source: PathBuf,
    /// Folder with the `scripts` and `tools` to use, when the links in the headers lead nowhere.
    kbuild: Option<PathBuf>,
    /// The compiler the kernel was built with, as a path.
    pub(super) compiler: PathBuf,
    /// Hash that `CONFIG_MODULE_SIG_HASH` names, `sha256` if none.
    pub(super) sign_hash: String,
    /// Does kbuild leave objtool to the linked module?
    pub(super) delayed_objtool: bool,
    /// Do indirect calls have to lead to an ENDBR (CONFIG_X86_KERNEL_IBT)?
    pub(super) ibt: bool,
    /// Symbols modules may use.
    pub(super) exported: BTreeSet<String>,
}

pub(super) fn find(release: &str, given: Option<&Path>) -> Result<Headers> {
    let candidates = match given {
        Some(dir) => vec![dir.to_path_buf()],
        None => vec![
            PathBuf::from(format!("/lib/modules/{release}/build")),
            PathBuf::from(format!("/usr/src/linux-headers-{release}")),
        ],
    };
    let Some(objects) = candidates.iter().find(|d| d.join("Makefile").is_file()) else {
        let list: Vec<String> = candidates.iter().map(|d| d.display().to_string()).collect();
        return Err(Error::new(codes::LP4003, Place::default(), format!("no Makefile in {}", list.join(" or "))));
    };
    let objects = objects.canonicalize().map_err(|e| Error::io(objects, &e))?;
    check_release(&objects, release)?;
    let source = source_of(&objects)?;
    let kbuild = kbuild_of(&source)?;
    let config = read(&objects, ".config").or_else(|_| read(&objects, "include/config/auto.conf"))?;
    let compiler = find_compiler(&config)?;
    tool::find("make")?;
    tool::find("ld")?;
    tool::find("objcopy")?;
    let sign_hash = kernel_config::string(&config, "CONFIG_MODULE_SIG_HASH").unwrap_or("sha256").to_owned();
    let exported =
        read(&objects, "Module.symvers")?.lines().filter_map(|l| l.split('\t').nth(1)).map(str::to_owned).collect();
    let delayed_objtool = is_objtool_delayed(&config);
    let ibt = config.lines().any(|l| l == "CONFIG_X86_KERNEL_IBT=y");
    Ok(Headers { objects, source, kbuild, compiler, sign_hash, delayed_objtool, ibt, exported })
}

impl Headers {
    /// Its Module.symvers.
    pub(super) fn symvers(&self) -> Result<String> {
        read(&self.objects, "Module.symvers")
    }

    /// Makes the shadow in the empty folder `dir`. Returns the folder for `make -C` and the Makefile for `make -f`.
    pub(super) fn shadow(&self, dir: &Path) -> Result<(PathBuf, PathBuf)> {
        let source = dir.join("source");
        self.link(&self.source, &source)?;
        let objects = if self.objects == self.source {
            source.clone()
        } else {
            let objects = dir.join("objects");
            self.link(&self.objects, &objects)?;
            objects
        };
        Ok((objects, source.join("Makefile")))
    }

    /// A folder of links to the entries of `from`.
    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::create_dir(to).map_err(|e| Error::io(to, &e))?;
        for entry in fs::read_dir(from).map_err(|e| Error::io(from, &e))? {
            let entry = entry.map_err(|e| Error::io(from, &e))?;
            let name = entry.file_name();
            let target = match (&self.kbuild, name.to_str()) {
                (Some(kbuild), Some(part @ ("scripts" | "tools"))) => kbuild.join(part),
                // With a vmlinux, kbuild would add BTF, and the module would depend on its being there.
                (_, Some("vmlinux")) => continue,
                _ => entry.path(),
            };
            let link = to.join(&name);
            symlink(target, &link).map_err(|e| Error::io(&link, &e))?;
        }
        Ok(())
    }

    /// Stands for where they are and how they are used; not for what is in them.
    pub(super) fn key(&self) -> String {
        let kbuild = self.kbuild.clone().unwrap_or_default();
        let paths = [&self.objects, &self.source, &kbuild, &self.compiler].map(|p| p.display().to_string());
        format!("{}\0{}", paths.join("\0"), self.delayed_objtool)
    }

    /// Files that kbuild reads or runs for a module beside what the compiler reads.
    pub(super) fn read_by_kbuild(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for root in [Some(&self.objects), Some(&self.source), self.kbuild.as_ref()].into_iter().flatten() {
            files.extend(READ_BY_KBUILD.iter().map(|name| root.join(name)));
            let arch = fs::read_dir(root.join("arch/x86")).into_iter().flatten().flatten().map(|e| e.path());
            files.extend(arch.filter(|p| p.is_file()));
            for folder in ["scripts", "tools/objtool"] {
                files_below(&root.join(folder), &mut files);
            }
        }
        files
    }

    /// A script of the kernel's build system.
    pub(super) fn script(&self, name: &str) -> PathBuf {
        let root = self.kbuild.as_ref().unwrap_or(&self.source);
        let in_source = root.join("scripts").join(name);
        // Programs are built into the object folder when the two are split.
        if in_source.is_file() { in_source } else { self.objects.join("scripts").join(name) }
    }
}

/// All files below a folder, which itself may be a link.
fn files_below(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), out),
            Ok(_) => out.push(entry.path()),
            Err(_) => {}
        }
    }
}

/// The compiler of a configuration. gcc says its name first ("gcc-12 (Debian ..."), clang the distribution's ("Debian clang
/// version 14.0.6"); a version of clang that is not the default has its number in the name.
fn find_compiler(config: &str) -> Result<PathBuf> {
    if kernel_config::value(config, "CONFIG_CC_IS_CLANG") == Some("y") {
        let version = kernel_config::value(config, "CONFIG_CLANG_VERSION").and_then(|v| v.parse::<u32>().ok());
        let numbered = version.and_then(|v| tool::find(&format!("clang-{}", v / 10000)).ok());
        return numbered.map_or_else(|| tool::find("clang"), Ok);
    }
    let text = kernel_config::string(config, "CONFIG_CC_VERSION_TEXT");
    tool::find(text.and_then(|text| text.split_whitespace().next()).unwrap_or("gcc"))
}

fn read(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(|e| {
        Error::new(codes::LP4003, Place::object(path.display().to_string()), format!("the headers are incomplete: {e}"))
    })
}

fn check_release(objects: &Path, release: &str) -> Result<()> {
    let text = read(objects, "include/generated/utsrelease.h")?;
    let have = text.split('"').nth(1).unwrap_or("");
    if have == release {
        return Ok(());
    }
    let place = Place::object(objects.display().to_string());
    Err(Error::new(codes::LP4004, place, format!("these are of {have}, the patch is for {release}")))
}

/// The folder of the real Makefile: `objects` itself, or the one its Makefile includes, there or beside it.
fn source_of(objects: &Path) -> Result<PathBuf> {
    let own = read(objects, "Makefile")?;
    let Some(included) = own.lines().find_map(|l| l.strip_prefix("include ")).filter(|_| own.lines().count() < 10)
    else {
        return Ok(objects.to_path_buf());
    };
    let included = Path::new(included.trim());
    let folder = included.parent().unwrap_or(included);
    // As unpacked below another root: the folder of the same name beside this one comes first.
    let beside = folder.file_name().and_then(|name| Some(objects.parent()?.join(name)));
    let candidates = [beside, Some(objects.join(folder))];
    let found = candidates.into_iter().flatten().find(|d| d.join("Makefile").is_file());
    found.map(|d| d.canonicalize().unwrap_or(d)).ok_or_else(|| {
        let place = Place::object(objects.display().to_string());
        Error::new(codes::LP4003, place, format!("its Makefile includes {}, which is not there", included.display()))
    })
}

/// The package with `scripts` and `tools`, when the link in the headers leads nowhere.
fn kbuild_of(source: &Path) -> Result<Option<PathBuf>> {
    let scripts = source.join("scripts");
    if scripts.join("Makefile.build").is_file() {
        return Ok(None);
    }
    let lost = || {
        let place = Place::object(scripts.display().to_string());
        Error::new(codes::LP4003, place, "the kernel's build scripts are not there; on Debian install linux-kbuild")
    };
    // ../../lib/linux-kbuild-6.1/scripts: made for /usr/src, so the same below /usr is what it means.
    let link = fs::read_link(&scripts).map_err(|_| lost())?;
    let package = link.parent().and_then(Path::file_name).ok_or_else(lost)?;
    let kbuild = Path::new("/usr/lib").join(package);
    if kbuild.join("scripts/Makefile.build").is_file() { Ok(Some(kbuild)) } else { Err(lost()) }
}

/// Does kbuild leave objtool to the link of `vmlinux.o` (`delay-objtool` in scripts/Makefile.lib)?
fn is_objtool_delayed(config: &str) -> bool {
    let set = |option: &str| kernel_config::value(config, option) == Some("y");
    set("CONFIG_OBJTOOL") && (set("CONFIG_LTO_CLANG") || set("CONFIG_X86_KERNEL_IBT"))
}
