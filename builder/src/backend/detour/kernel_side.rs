//! What pack asks of the detour.

use std::path::Path;

use lpbuild_abi as abi;
use object::{Object, ObjectSection};

use super::{image, parts, verify};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::holder::Running;
use crate::pack::{KernelSide, PatchFolder, Reread};
use crate::plan::manifest::Manifest;

/// The runtime of this project as a part of the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runtime<'r> {
    /// Its object; the one inside lpbuild when nothing is given.
    pub object: Option<&'r [u8]>,
    /// Calls that can fail can be made to: for the tests of this project, never in what is handed out.
    pub test_hooks: bool,
}

impl KernelSide for Runtime<'_> {
    fn check(&self, input: &PatchFolder, path: &Path) -> Result<()> {
        check_object(&input.object, &input.manifest, path)
    }
    fn contradictions(&self, manifest: &Manifest, running: Running<'_>) -> Vec<Problem> {
        image::contradictions(manifest, running)
    }
    fn parts(&self, input: &PatchFolder) -> Result<Vec<(String, Vec<u8>)>> {
        parts::all(input, self.object, self.test_hooks)
    }
    fn verify(&self, module: &mut Reread<'_>, input: &PatchFolder) {
        verify::records(module, input);
    }
    fn called_indirectly(&self, module: &Reread<'_>, input: &PatchFolder) -> Vec<((usize, u64), String)> {
        verify::called_indirectly(module, &input.manifest.functions)
    }
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
