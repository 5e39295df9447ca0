//! The folder made by emit: `patch.o` and `manifest.toml`, and that the two belong together.
//!
//! Refused: a symbolic patch (LP4002), another patch.o than the manifest was written for (LP4013), records that do not fit
//! the manifest (LP4009).

use std::{fs, path::Path};

use lpbuild_abi as abi;

use super::KernelSide;
use crate::bounded;
use crate::codes;
use crate::explain::stored;
use crate::{
    error::{Error, Place, Result},
    plan::manifest::{self, Kernel, Manifest},
};

/// A patch that can be packed.
#[derive(Clone, Debug)]
pub struct PatchFolder {
    /// What the patch does.
    pub manifest: Manifest,
    /// `manifest.toml` as it is; goes into the module unchanged.
    pub manifest_text: String,
    /// `why.json`, if the folder has one; goes into the module unchanged.
    pub why: Option<Vec<u8>>,
    /// The kernel the patch is bound to.
    pub kernel: Kernel,
    /// `patch.o`
    pub object: Vec<u8>,
}

pub(super) fn read(dir: &Path, side: &dyn KernelSide) -> Result<PatchFolder> {
    let path = dir.join("manifest.toml");
    let manifest_text = fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
    let manifest = Manifest::parse(&manifest_text, &path.display().to_string())?;
    let Some(kernel) = manifest.kernel.clone() else {
        return Err(Error::new(
            codes::LP4002,
            Place::object(path.display().to_string()),
            "the manifest has no [kernel]",
        ));
    };
    check_texts(&manifest, &kernel, &path)?;
    let path = dir.join("patch.o");
    let object = fs::read(&path).map_err(|e| Error::io(&path, &e))?;
    check_hash(&object, &manifest, &path)?;
    let why = why(dir, &manifest)?;
    let input = PatchFolder { manifest, manifest_text, why, kernel, object };
    side.check(&input, &path)?;
    Ok(input)
}

/// What explains the patch, of exactly this manifest.
fn why(dir: &Path, manifest: &Manifest) -> Result<Option<Vec<u8>>> {
    let path = dir.join(stored::FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = bounded::read(&path, bounded::TEXT)?;
    stored::parse(&bytes, manifest, &path.display().to_string())?;
    Ok(Some(bytes))
}

/// The manifest is of exactly this patch.o.
pub(super) fn check_hash(object: &[u8], manifest: &Manifest, path: &Path) -> Result<()> {
    let is = crate::hash::digest(object);
    let detail = match &manifest.patch.object_sha256 {
        Some(says) if *says == is => return Ok(()),
        Some(says) => format!("its sha256 is {is}, the manifest says {says}"),
        None => format!("the manifest, of schema {}, does not say what its sha256 is", manifest.schema),
    };
    Err(Error::new(codes::LP4013, Place::object(path.display().to_string()), detail))
}

/// These go into C source and make files as they are.
fn check_texts(manifest: &Manifest, kernel: &Kernel, path: &Path) -> Result<()> {
    for (what, text, max) in [
        ("version", &manifest.patch.version, manifest::VERSION_MAX),
        ("release", &kernel.release, manifest::RELEASE_MAX),
        ("build-id", &kernel.build_id, 2 * abi::MAX_BUILD_ID),
    ] {
        if !manifest::is_plain(text, max) {
            let detail = format!("{what} {text:?} is not {}", manifest::plain_rule(max));
            return Err(Error::new(codes::LP1101, Place::object(path.display().to_string()), detail));
        }
    }
    Ok(())
}
