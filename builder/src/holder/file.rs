//! A file of a kernel module as the loader takes it.
//!
//! Input: a file, plain or compressed. Output: [`ModuleBinary`]: its content, unpacked, and what it says of itself. Refused: what is no
//! module (LP3009).

use std::path::Path;

use super::HolderName;
use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::ingest::{self, SymbolPlace};
use crate::kernel::{find_build_id, module, payload};

/// Marks of what a module exports (include/linux/export-internal.h).
const EXPORT: &str = "__ksymtab_";

/// A kernel module, unpacked.
#[derive(Clone, Debug)]
pub struct ModuleBinary {
    /// As `/sys/module` has it.
    pub name: String,
    /// The file's content.
    pub content: Vec<u8>,
    /// GNU build id; empty if it has none.
    pub build_id: Vec<u8>,
    /// Modules that have to be loaded before it.
    pub depends: Vec<String>,
    /// Can it be removed? A module with an init function and no exit stays.
    pub leaves: bool,
}

/// The content of a module's file, unpacked.
///
/// # Errors
/// LP3009.
pub fn unpacked_module(path: &Path, data: &[u8]) -> Result<Vec<u8>> {
    let found = payload::unpack_file(data, module::MAX_MODULE);
    let odd = |e: std::io::Error| {
        let what = format!("it cannot be unpacked, so it is cut short or damaged: {e}");
        Error::new(codes::LP3009, Place::object(path.display().to_string()), what)
    };
    Ok(found.map_err(odd)?.into_owned())
}

impl ModuleBinary {
    /// Reads one.
    ///
    /// # Errors
    /// Those of [`Error::io`]; LP3009, LP1002 and LP1003 for what is no module.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let data = bounded::read(path, bounded::LARGE)?;
        let odd = |what: String| Error::new(codes::LP3009, Place::object(&file), what);
        let content = unpacked_module(path, &data)?;
        let image = ingest::read(&file, &content)?;
        let info = |key: &str| module::modinfo(&image, key);
        let name = info("name").ok_or_else(|| odd("its .modinfo has no name".into()))?;
        let depends = info("depends").unwrap_or_default();
        let depends = depends.split(',').filter(|d| !d.is_empty());
        let depends = depends.map(|d| HolderName::module(d).to_string()).collect();
        let notes = image.sections.iter().filter(|s| s.name.starts_with(".note"));
        let build_id = notes.filter_map(|s| find_build_id(&s.data)).next().unwrap_or_default();
        let defines =
            |name: &str| image.symbols.iter().any(|s| s.name == name && matches!(s.place, SymbolPlace::Section(_)));
        let leaves = defines("cleanup_module") || !defines("init_module");
        Ok(Self { name: HolderName::module(&name).to_string(), content, build_id, depends, leaves })
    }

    /// What it exports; `path` is for messages.
    ///
    /// # Errors
    /// LP1002, LP1003.
    pub fn exports(&self, path: &Path) -> Result<Vec<String>> {
        let image = ingest::read(&path.display().to_string(), &self.content)?;
        let defined = image.symbols.iter().filter(|s| matches!(s.place, SymbolPlace::Section(_)));
        Ok(defined.filter_map(|s| s.name.strip_prefix(EXPORT)).map(str::to_owned).collect())
    }
}
