//! The kernel image: what the patch is bound to.
//!
//! Input: a `vmlinux` (with or without symbols) or a `vmlinuz` (bzImage) in any compression kernels use.
//! Output: [`KernelImage`]: identity (build id, release), loaded sections by link-time address, and the names of
//! kallsyms, which is in every distribution kernel and needs no debug package. A `vmlinux` with a symbol table adds the
//! names of data, which kallsyms has with CONFIG_KALLSYMS_ALL only.
//! Refused: other architectures, images without a build id or without kallsyms, anything truncated or contradictory.
//!
//! ```no_run
//! # fn main() -> lpbuild::error::Result<()> {
//! let kernel = lpbuild::kernel::KernelImage::open("/boot/vmlinuz".as_ref())?;
//! for symbol in kernel.kallsyms().named("cmdline_proc_show") {
//!     println!("{:#x} {:?}", symbol.addr, kernel.read(symbol.addr, 16));
//! }
//! # Ok(())
//! # }
//! ```

mod bzimage;
pub mod config;
mod derived;
mod elf;
mod kallsyms;
mod kallsyms_tables;
pub mod module;
pub(crate) mod payload;
mod symtab;
mod symvers;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};

pub use elf::{KernelSection, find_build_id};
pub use kallsyms::{IMAGE_BASE, Kallsyms, KernelSymbol};
pub use module::{ModuleFacts, ModuleField};
pub use symvers::Symvers;

/// Largest file read, and largest kernel unpacked: debug images with DWARF are about 600 MB.
const MAX_FILE: u64 = 4 << 30;

/// A kernel image, unpacked and indexed.
#[derive(Debug)]
pub struct KernelImage {
    name: String,
    build_id: Vec<u8>,
    release: String,
    banner: String,
    sections: Vec<KernelSection>,
    kallsyms: Kallsyms,
    module: Option<ModuleFacts>,
    derived: derived::Derived,
}

/// Does the file begin as a bzImage?
pub fn is_bzimage(data: &[u8]) -> bool {
    bzimage::parse("", data).is_ok_and(|b| b.is_some())
}

/// The vmlinux inside a bzImage; nothing for an ELF file, which is one already.
pub fn unpacked(name: &str, data: &[u8]) -> Result<Option<Vec<u8>>> {
    if elf::is_elf(data) {
        return Ok(None);
    }
    match bzimage::parse(name, data)? {
        Some(boot) => Ok(Some(payload::unpack(name, boot.payload)?.into_owned())),
        None => Err(Error::new(codes::LP1201, Place::object(name), "neither an ELF file nor a bzImage")),
    }
}

/// What the kallsyms tables of a vmlinux hold, by address.
pub fn symbols_of(name: &str, vmlinux: &[u8]) -> Result<Vec<KernelSymbol>> {
    let sections = elf::sections(name, vmlinux)?;
    Ok(kallsyms_tables::read(name, &sections)?.into_symbols())
}

impl KernelImage {
    /// What somebody works out of this image, once: the value of this type, made when it is first asked for.
    pub(crate) fn derived<T: std::any::Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.derived.get(make)
    }

    /// The address of the one symbol of this name; of several, of the only global one.
    pub fn by_name(&self, name: &str) -> Option<u64> {
        self.symbol_by_name(name).map(|s| s.addr)
    }

    /// The one symbol of this name; of several, the only global one.
    pub fn symbol_by_name(&self, name: &str) -> Option<&KernelSymbol> {
        let all: Vec<&KernelSymbol> = self.kallsyms().named(name).collect();
        match &all[..] {
            [one] => Some(one),
            _ => {
                let mut global = all.into_iter().filter(|s| !s.is_local());
                let first = global.next()?;
                global.next().is_none().then_some(first)
            }
        }
    }

    /// Reads the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
        if size > MAX_FILE {
            let detail = format!("{size} bytes are more than any kernel image has");
            return Err(Error::new(codes::LP1201, Place::object(&name), detail));
        }
        let data = bounded::read(path, MAX_FILE)?;
        Self::from_bytes(&name, &data)
    }

    /// Reads an image from memory; `name` is for messages only.
    pub fn from_bytes(name: &str, data: impl AsRef<[u8]>) -> Result<Self> {
        let data = data.as_ref();
        let (vmlinux, boot_release) = if elf::is_elf(data) {
            (Cow::Borrowed(data), None)
        } else if let Some(boot) = bzimage::parse(name, data)? {
            (payload::unpack(name, boot.payload)?, boot.release)
        } else {
            let detail = "neither an ELF file nor a bzImage";
            return Err(Error::new(codes::LP1201, Place::object(name), detail));
        };
        let sections = elf::sections(name, &vmlinux)?;
        let build_id = elf::build_id(name, &sections)?;
        let banner = elf::banner(name, &sections)?;
        let release = elf::release(&banner).unwrap_or_default().to_owned();
        if let Some(boot) = boot_release
            && boot != release
        {
            let detail = format!("linux_banner says {release}, the boot header {boot}");
            return Err(Error::new(codes::LP1207, Place::object(name), detail));
        }
        let kallsyms = kallsyms_tables::read(name, &sections)?.with(symtab::read(name, &vmlinux)?);
        Ok(Self {
            name: name.to_owned(),
            build_id,
            release,
            banner,
            sections,
            kallsyms,
            module: None,
            derived: Default::default(),
        })
    }

    /// The name given to [`KernelImage::open`] or [`KernelImage::from_bytes`], for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The GNU build id; `/sys/kernel/notes` of the running kernel holds the same.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// What is known of it when it is a module and not the kernel: it then lies at addresses of our choice ([`module`]).
    pub fn module(&self) -> Option<&ModuleFacts> {
        self.module.as_ref()
    }

    /// What it is, for people.
    pub fn called(&self) -> String {
        self.module.as_ref().map_or_else(|| "the kernel image".to_owned(), |m| format!("the module {}", m.name))
    }

    /// Is something of it at this address, of a module or of a kernel?
    pub fn holds(&self, address: u64) -> bool {
        if self.module.is_some() { self.part_at(address).is_some() } else { self.section_at(address).is_some() }
    }

    /// The section of a module that something at this address belongs to: one past the end belongs to it as well, and in an empty
    /// section there are names. Behind each there is an empty page, so no two have the same.
    pub fn part_at(&self, address: u64) -> Option<&KernelSection> {
        let within = |s: &&KernelSection| s.addr <= address && address <= s.range().end;
        self.sections.iter().find(within).filter(|_| self.module.is_some())
    }

    /// The section of a module by its name.
    pub fn section_named(&self, name: &str) -> Option<&KernelSection> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// As `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// `linux_banner`, as `/proc/version` shows it: release, who built it, compiler, build number and date.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// `len` bytes at the link-time address `addr`, when one section of the file holds them all.
    pub fn read(&self, addr: u64, len: usize) -> Option<&[u8]> {
        let section = self.section_at(addr)?;
        let start = usize::try_from(addr.checked_sub(section.addr)?).ok()?;
        section.data.get(start..start.checked_add(len)?)
    }

    /// Every section that occupies memory, in the order of the file. Segments stand in when there is no section table.
    pub fn sections(&self) -> &[KernelSection] {
        &self.sections
    }

    /// The section that holds the link-time address `addr`.
    pub fn section_at(&self, addr: u64) -> Option<&KernelSection> {
        self.sections.iter().find(|s| s.contains(addr))
    }

    /// Every symbol kallsyms knows, and the data the file's symbol table knows besides.
    pub fn kallsyms(&self) -> &Kallsyms {
        &self.kallsyms
    }
}
