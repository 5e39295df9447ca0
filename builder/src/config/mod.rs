//! `livepatch.toml`: what to build, for which kernel, and how it is applied. Described in docs/livepatch.md.
//!
//! Input: the file, or only patch files. Output: [`Config`], plain data with absolute paths. Refused: LP60xx, each with
//! line, column and the line itself; all problems of the values are reported at once.

mod expected;
mod resolve;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod text;

use std::path::{Path, PathBuf};

use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::pack::Signer;
use crate::plan::Options;
use crate::plan::manifest::NAME_MAX;

pub use expected::check_expected;
pub use template::Template;

/// Everything a build is asked for. What is `None` is found by itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from, if there is one.
    pub file: Option<PathBuf>,
    /// What is said about the patch itself.
    pub options: Options,
    /// Source patches in the order they are applied; never empty; absolute.
    pub patches: Vec<PathBuf>,
    /// What of them is left out: `FILE`, `FILE:HUNK` or `FOLDER/`.
    pub leave_out: Vec<String>,
    /// The functions that must change, no more and no fewer: `symbol` or `path/file.o:symbol`.
    pub functions: Option<Vec<String>>,
    /// The kernel it is for.
    pub kernel: KernelChoice,
    /// The external modules it is for; nothing for a patch of the kernel's own source.
    pub external: Option<ExternalModules>,
    /// Extra options of the compiler, for the old and the new build, each a word that needs no quoting.
    pub flags: Vec<String>,
    /// Who signs the module.
    pub sign: Option<Signer>,
}

/// The kernel a patch is for. Paths are absolute and exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelChoice {
    /// As `uname -r` prints it.
    pub release: Option<String>,
    /// vmlinux or vmlinuz.
    pub image: Option<PathBuf>,
    /// Folder of the headers, for building the module.
    pub headers: Option<PathBuf>,
    /// Folder of the source tree.
    pub source: Option<PathBuf>,
    /// The configuration the kernel was built with.
    pub config: Option<PathBuf>,
    /// The compiler as in `CC=`, a launcher in front included; programs are names in PATH or absolute.
    pub compiler: Option<String>,
    /// Where the files of modules are looked for first: a folder as `/lib/modules/RELEASE`.
    pub module_dir: Option<PathBuf>,
}

/// Modules that are not part of the kernel's source. Paths are absolute and exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalModules {
    /// The folder that `make -C HEADERS M=` takes; the patches are relative to it.
    pub source: PathBuf,
    /// Files of modules that are not found by themselves, or not alone.
    pub files: Vec<PathBuf>,
}

/// Reads a `livepatch.toml`. Relative paths in it start from its folder.
pub fn load(path: &Path) -> Result<Config> {
    let shown = path.display().to_string();
    let bytes = bounded::read(path, bounded::TEXT)?;
    let content = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Error::new(codes::LP6001, Place::object(format!("{shown}:{line}:1")), "not UTF-8")
    })?;
    let text = text::Text { path: &shown, text: &content };
    let file: schema::File = toml::from_str(&content).map_err(|e| text.parse_error(&e))?;
    resolve::resolve(text, file, path)
}

impl Config {
    /// A build of these patches for the running kernel, everything else as when left out. The name is
    /// [`name_from_patch`] of the first one.
    pub fn default_for(patches: &[PathBuf]) -> Result<Config> {
        let first = patches.first().ok_or_else(|| Error::new(codes::LP6004, Place::default(), "no patch is given"))?;
        let mut absolute = Vec::new();
        let mut problems = Vec::new();
        for patch in patches {
            match resolve::existing_file(patch) {
                Ok(path) => absolute.push(path),
                Err(problem) => problems.push(problem),
            }
        }
        crate::error::refuse(problems)?;
        Ok(Config {
            file: None,
            options: Options::named(name_from_patch(first)),
            patches: absolute,
            leave_out: Vec::new(),
            functions: None,
            kernel: KernelChoice::default(),
            external: None,
            flags: Vec::new(),
            sign: None,
        })
    }
}

/// The name a patch file suggests: without folder and extension, in lower case; what is not a letter or digit becomes one
/// `_`; what comes before the first letter (the number of `git format-patch`) is dropped; at most 48 bytes. `livepatch` when
/// nothing is left.
pub fn name_from_patch(patch: &Path) -> String {
    let stem = patch.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = [".patch", ".diff"].iter().find_map(|e| stem.strip_suffix(e)).unwrap_or(&stem).to_ascii_lowercase();
    let mut name = String::new();
    for c in stem.chars() {
        if c.is_ascii_lowercase() || (c.is_ascii_digit() && !name.is_empty()) {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    name.truncate(NAME_MAX);
    let name = name.trim_end_matches('_');
    if name.is_empty() { "livepatch".to_owned() } else { name.to_owned() }
}
