//! Holders: who has the old code. Today that is the kernel image; all else asks a holder and does not know which it is.

mod placement;

use std::fmt;

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::kernel::KernelImage;

pub use placement::{Doubt, Exact, Placement, RunPre};

/// What a holder is called, in reports and in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HolderName {
    /// The kernel image.
    #[default]
    Vmlinux,
}

impl HolderName {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
        }
    }
    /// The holder of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Vmlinux].into_iter().find(|h| h.as_str() == name)
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
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// What it is called.
    pub name: HolderName,
    /// Its file: names, code and the build id that tells it from others.
    pub image: &'a KernelImage,
    /// What its addresses are relative to.
    pub anchor: Anchor,
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
