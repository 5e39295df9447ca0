//! The host: its /sys, /proc and /dev, and the two system calls for modules.
//!
//! Input: a root folder, `/` for the running host. Output: texts and names; a file that is not there reads as `None`.
//! Refused: system calls for any root but `/`, so that a tree made for a test never reaches the running kernel.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::codes;
use crate::error::{Place, Problem};

/// Folder of the patches.
pub(super) const PATCHES: &str = "sys/kernel/lpbuild";
/// What the kernel itself shows.
const KERNEL: &str = "sys/kernel";
/// SYSFS_MAGIC (include/uapi/linux/magic.h).
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;
/// Largest text read: files of sysfs and procfs are a page or little more.
const MAX_TEXT: u64 = 1 << 20;
/// Bit of CAP_SYS_MODULE in a capability set (include/uapi/linux/capability.h).
const CAP_SYS_MODULE: u32 = 16;

/// A host, seen through its file system.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The host this process runs on.
    pub fn running() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A tree that looks like a host. Nothing is ever loaded into or removed from a kernel.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// `relative` on this host.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// True when there is such a file or folder.
    pub fn exists(&self, relative: &str) -> bool {
        self.path(relative).exists()
    }

    /// A short file as bytes.
    pub(super) fn bytes(&self, relative: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        File::open(self.path(relative)).ok()?.take(MAX_TEXT).read_to_end(&mut out).ok()?;
        Some(out)
    }

    /// A short file as text, without the white space around it.
    pub(super) fn text(&self, relative: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes(relative)?).trim().to_owned())
    }

    /// The running kernel's symbols, 10 MB and more.
    pub(super) fn kallsyms(&self) -> Option<String> {
        std::fs::read_to_string(self.path("proc/kallsyms")).ok().filter(|t| !t.is_empty())
    }

    /// Writes to a file that exists.
    pub(super) fn write(&self, relative: &str, text: &str) -> io::Result<()> {
        use std::io::Write;
        std::fs::OpenOptions::new().write(true).truncate(true).open(self.path(relative))?.write_all(text.as_bytes())
    }

    /// Names in a folder, sorted; a folder that is not there is empty.
    pub(super) fn names(&self, relative: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(relative)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Whether what the kernel shows of patches can be seen: without sysfs there is nothing to read, which is not nothing loaded.
    pub(super) fn sysfs(&self) -> Result<(), Problem> {
        let refuse = |detail: String| Err(Problem::new(codes::LP5124, Place::object(format!("/{KERNEL}")), detail));
        let at = self.path(KERNEL);
        match rustix::fs::statfs(&at) {
            Err(e) => return refuse(e.to_string()),
            Ok(fs) if self.is_running() && fs.f_type != SYSFS_MAGIC => return refuse("is no sysfs".to_owned()),
            Ok(_) => {}
        }
        match std::fs::read_dir(self.path(PATCHES)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Problem::new(codes::LP5124, Place::object(format!("/{PATCHES}")), e.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// As `uname -r` prints it.
    pub fn release(&self) -> String {
        let uname = || rustix::system::uname().release().to_string_lossy().into_owned();
        self.text("proc/sys/kernel/osrelease").unwrap_or_else(uname)
    }

    /// As `uname -m` prints it.
    pub fn machine(&self) -> String {
        let uname = || rustix::system::uname().machine().to_string_lossy().into_owned();
        self.text("proc/sys/kernel/arch").unwrap_or_else(uname)
    }

    /// True when this process may load and remove modules.
    pub(super) fn may_load(&self) -> bool {
        let status = self.text("proc/self/status");
        let effective = status.as_deref().and_then(|s| s.lines().find_map(|l| l.strip_prefix("CapEff:")));
        match effective.and_then(|e| u64::from_str_radix(e.trim(), 16).ok()) {
            Some(set) => set >> CAP_SYS_MODULE & 1 == 1,
            None => rustix::process::geteuid().is_root(),
        }
    }

    /// True when the kernel takes signed modules only: `sig_enforce`, or lockdown in a mode that implies it.
    pub(super) fn wants_signatures(&self) -> bool {
        let enforced = self.text("sys/module/module/parameters/sig_enforce");
        enforced.is_some_and(|e| e.starts_with(['Y', '1'])) || self.lockdown().is_some_and(|l| l != "none")
    }

    /// The lockdown mode, when the kernel has lockdown: the word in brackets.
    pub(super) fn lockdown(&self) -> Option<String> {
        let text = self.text("sys/kernel/security/lockdown")?;
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(mode, _)| mode.to_owned())
    }

    /// finit_module(2)
    pub(super) fn insert(&self, file: &File, parameters: &str) -> Result<(), Errno> {
        if !self.is_running() {
            return Err(Errno::NOSYS);
        }
        let parameters = CString::new(parameters).map_err(|_| Errno::INVAL)?;
        rustix::system::finit_module(file, &parameters, 0)
    }

    /// delete_module(2), without waiting for the module to become unused.
    pub(super) fn remove(&self, name: &str) -> Result<(), Errno> {
        if !self.is_running() {
            return Err(Errno::NOSYS);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        rustix::system::delete_module(&name, rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
    }
}
