//! Holders: who has the old code, the kernel image or a module. All else asks a holder and does not know which it is.

mod file;
mod modules;
mod placement;

use std::fmt;
use std::sync::Arc;

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::KernelImage;

pub use file::{ModuleBinary, unpacked_module};
pub use modules::{ModuleFinder, ModuleHolder, ModuleImages};
pub use placement::{Doubt, Exact, Placement, RunPre};

/// What the kernel image is called, in reports, in the manifest and in `Module.symvers`.
pub const VMLINUX: &str = "vmlinux";

/// What a holder is called, in reports and in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HolderName {
    /// The kernel image.
    #[default]
    Vmlinux,
    /// A module, by the name /sys/module has.
    Module(Arc<str>),
}

impl HolderName {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Vmlinux => VMLINUX,
            Self::Module(name) => name,
        }
    }
    /// A module; in its name a dash is an underscore (`name-fix` of scripts/Makefile.lib).
    pub fn module(name: &str) -> Self {
        Self::Module(name.replace('-', "_").into())
    }
    /// The module whose file kbuild calls so, without `.ko`.
    pub fn of_file(modfile: &str) -> Self {
        Self::module(modfile.rsplit('/').next().unwrap_or(modfile))
    }
    /// The holder of a name in a manifest.
    pub fn named(name: &str) -> Self {
        if name == VMLINUX { Self::Vmlinux } else { Self::Module(name.into()) }
    }
}

impl fmt::Display for HolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A symbol that the module loader finds by itself: addresses of a holder are distances from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its name.
    pub symbol: &'static str,
    /// Its address as the holder is linked.
    pub address: u64,
}

/// One holder and what is known of it.
#[derive(Clone, Debug)]
pub struct Holder<'a> {
    /// What it is called.
    pub name: HolderName,
    /// Its file: names, code and the build id that tells it from others.
    pub image: &'a KernelImage,
    /// What its addresses are relative to.
    pub anchor: Anchor,
}

/// What runs: a kernel, and those of its modules that have old code.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// The kernel's image.
    pub kernel: &'a KernelImage,
    /// The modules.
    pub modules: &'a [ModuleHolder],
}

impl<'a> Running<'a> {
    /// A module of that name.
    pub fn module(&self, name: &HolderName) -> Option<&'a ModuleHolder> {
        self.modules.iter().find(|m| m.name == *name)
    }
    /// The image of a holder.
    pub fn image(&self, name: &HolderName) -> Option<&'a KernelImage> {
        match name {
            HolderName::Vmlinux => Some(self.kernel),
            HolderName::Module(_) => self.module(name).map(|m| &m.image),
        }
    }
    /// The module that has something at an address.
    pub fn module_at(&self, address: u64) -> Option<&'a ModuleHolder> {
        self.modules.iter().find(|m| m.image.holds(address))
    }
    /// The image that has something at an address; the kernel's where none has.
    pub fn image_at(&self, address: u64) -> &'a KernelImage {
        self.module_at(address).map_or(self.kernel, |m| &m.image)
    }
}

impl<'a> From<&'a KernelImage> for Running<'a> {
    fn from(kernel: &'a KernelImage) -> Self {
        Self { kernel, modules: &[] }
    }
}

/// Exported in every kernel since 5.15 resp. 2.6 (kernel/printk/printk.c).
const ANCHORS: &[&str] = &["_printk", "printk"];

impl<'a> Holder<'a> {
    /// The kernel: KASLR moves the image as one piece (arch/x86/kernel/head64.c), so one anchor is enough.
    ///
    /// # Errors
    /// LP3005 when it has no symbol to anchor at.
    pub fn kernel(image: &'a KernelImage) -> Result<Self> {
        let anchor = ANCHORS.iter().find_map(|symbol| Some(Anchor { symbol, address: image.by_name(symbol)? }));
        let none = "neither _printk nor printk is in kallsyms exactly once";
        let anchor = anchor.ok_or_else(|| Error::new(codes::LP3005, Place::object(image.name()), none))?;
        Ok(Self { name: HolderName::Vmlinux, image, anchor })
    }

    /// Distance from the anchor.
    pub fn anchored(&self, address: u64) -> i64 {
        address.wrapping_sub(self.anchor.address) as i64
    }
}
