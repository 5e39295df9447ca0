//! The `livepatch.toml` that `lpbuild init` writes: every key explained, what is known filled in, the rest commented out.

use std::path::{Path, PathBuf};

use crate::codes;
use crate::error::{Error, Place, Result};

use super::name_from_patch;

const TEMPLATE: &str = include_str!("../../../templates/livepatch.toml.in");

/// What is filled in.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// Name of the patch; without one that of the first patch file, else that of the folder.
    pub name: Option<String>,
    /// As `uname -r` prints it.
    pub release: String,
    /// Patch files; those in the folder or below it are written relative to it.
    pub patches: Vec<PathBuf>,
}

impl Template {
    /// The text of a `livepatch.toml` in `folder`.
    pub fn text(&self, folder: &Path) -> Result<String> {
        let io = |e: std::io::Error| Error::io(folder, &e);
        let folder = std::path::absolute(folder).map_err(io)?;
        let name = match (&self.name, self.patches.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(patch)) => name_from_patch(patch),
            (None, None) => name_from_patch(&folder),
        };
        let mut patches = Vec::new();
        for patch in &self.patches {
            let path = super::resolve::existing_file(patch)?;
            let path = path.strip_prefix(&folder).unwrap_or(&path);
            patches.push(quoted(path.to_str().ok_or_else(|| {
                Error::new(codes::LP6005, Place::object(path.display().to_string()), "the path is not UTF-8")
            })?));
        }
        if patches.is_empty() {
            patches.push(quoted("fix.patch"));
        }
        let release = &self.release;
        Ok(TEMPLATE
            .replace("@NAME@", &quoted(&name))
            .replace("@PATCHES@", &format!("[{}]", patches.join(", ")))
            .replace("@RELEASE@", &quoted(release))
            .replace("@IMAGE@", &quoted(&format!("/boot/vmlinuz-{release}")))
            .replace("@HEADERS@", &quoted(&format!("/lib/modules/{release}/build")))
            .replace("@MODULES@", &quoted(&format!("/lib/modules/{release}")))
            .replace("@CONFIG@", &quoted(&format!("/boot/config-{release}"))))
    }
}

fn quoted(s: &str) -> String {
    toml::Value::from(s).to_string()
}
