//! The header for the source of patches, which no kernel has: where a build finds it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Name of the header.
pub const NAME: &str = "lpbuild.h";
/// Its text.
pub const HEADER: &str = include_str!("../../../runtime-kmod/include/lpbuild.h");

/// The folder of a build that has the header and nothing else.
pub(super) fn folder(work: &Path) -> PathBuf {
    work.join("include")
}

/// Puts the header there.
pub(super) fn put(work: &Path) -> Result<()> {
    let folder = folder(work);
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
    let file = folder.join(NAME);
    fs::write(&file, HEADER).map_err(|e| Error::io(&file, &e))
}
