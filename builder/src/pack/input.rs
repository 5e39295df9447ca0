//! The folder made by emit: `patch.o` and `manifest.toml`, and that the two belong together.
//!
//! Refused: a symbolic patch (LP4002), another patch.o than the manifest was written for (LP4013), records that do not fit
//! the manifest (LP4009).

use std::{fs, path::Path};

use lpbuild_abi as abi;
use object::{Object, ObjectSection};

use super::io_error;
use crate::codes;
use crate::{
    error::{Error, Place, Result},
    plan::manifest::{self, Kernel, Manifest},
};

/// A patch that can be packed.
pub(super) struct Input {
    pub(super) manifest: Manifest,
    /// `manifest.toml` as it is; goes into the module unchanged.
    pub(super) manifest_text: String,
    /// The kernel the patch is bound to.
    pub(super) kernel: Kernel,
    /// `patch.o`
    pub(super) object: Vec<u8>,
}

pub(super) fn read(dir: &Path) -> Result<Input> {
    let path = dir.join("manifest.toml");
    let manifest_text = fs::read_to_string(&path).map_err(|e| io_error(&path, &e))?;
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
    let object = fs::read(&path).map_err(|e| io_error(&path, &e))?;
    check_hash(&object, &manifest, &path)?;
    check_object(&object, &manifest, &path)?;
    Ok(Input { manifest, manifest_text, kernel, object })
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

/// A cheap check before anything is compiled; `verify` looks at every field of the finished module.
fn check_object(bytes: &[u8], manifest: &Manifest, path: &Path) -> Result<()> {
    let place = || Place::object(path.display().to_string());
    let file = object::File::parse(bytes).map_err(|e| Error::new(codes::LP1003, place(), e.to_string()))?;
    if file.architecture() != object::Architecture::X86_64 || file.kind() != object::ObjectKind::Relocatable {
        return Err(Error::new(codes::LP1002, place(), "not an x86-64 relocatable object"));
    }
    let size = |name: &str| file.section_by_name(name).map(|s| s.size());
    let expected = [
        (abi::SEC_PATCH, Some(size_of::<abi::PatchRecord>())),
        (abi::SEC_FUNCS, Some(size_of::<abi::FuncRecord>() * manifest.functions.len())),
        (abi::SEC_TEXT, None),
    ];
    for (section, want) in expected {
        let fits = match (size(section), want) {
            (Some(have), Some(want)) => have == want as u64,
            (have, None) => have.is_some(),
            (None, Some(_)) => false,
        };
        if !fits {
            let detail = match size(section) {
                Some(have) => format!("{have} bytes, but {} functions in the manifest", manifest.functions.len()),
                None => "the section is missing".to_owned(),
            };
            return Err(Error::new(codes::LP4009, place().in_section(section), detail));
        }
    }
    Ok(())
}
