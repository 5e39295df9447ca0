//! Shadow trees: a folder that looks like another one, made of links, in which a few folders are real.
//!
//! A file in a real folder can be replaced without touching the original, and keeps its relative name, which is what
//! `__FILE__` and the debug information record.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Fills the empty folder `to` with links into `from`; the folders `real` (relative) and those above them are made anew.
/// Entries for which `skip` holds (by relative path) are left out.
pub fn mirror(from: &Path, to: &Path, real: &BTreeSet<PathBuf>, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
    // Every real folder's ancestors, the root included.
    let opened: BTreeSet<&Path> = real.iter().flat_map(|p| p.ancestors()).chain([Path::new("")]).collect();
    for dir in opened {
        let (source, target) = (from.join(dir), to.join(dir));
        fs::create_dir_all(&target).map_err(|e| Error::io(&target, &e))?;
        if !source.exists() {
            continue;
        }
        for entry in fs::read_dir(&source).map_err(|e| Error::io(&source, &e))? {
            let name = dir.join(entry.map_err(|e| Error::io(&source, &e))?.file_name());
            let opened_below = real.iter().any(|r| r.starts_with(&name));
            if !opened_below && !skip(&name) {
                symlink(from.join(&name), to.join(&name)).map_err(|e| Error::io(&to.join(&name), &e))?;
            }
        }
    }
    Ok(())
}

/// Puts a real file in the place of a link; its folder must be a real one.
pub fn replace(tree: &Path, path: &str, content: &[u8]) -> Result<()> {
    let target = tree.join(path);
    if target.is_symlink() {
        fs::remove_file(&target).map_err(|e| Error::io(&target, &e))?;
    }
    fs::write(&target, content).map_err(|e| Error::io(&target, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_folders_are_real_and_the_original_is_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b/c")).unwrap();
        fs::create_dir_all(from.join("x/y")).unwrap();
        fs::write(from.join("a/b/f"), "old").unwrap();
        fs::write(from.join("a/b/skipped"), "").unwrap();
        let real = [PathBuf::from("a/b"), PathBuf::from("new/dir")].into();
        mirror(&from, &to, &real, &|p| p == Path::new("a/b/skipped")).unwrap();
        assert!(to.join("x").is_symlink() && to.join("a/b/c").is_symlink() && to.join("a/b/f").is_symlink());
        assert!(!to.join("a/b").is_symlink() && !to.join("a/b/skipped").exists() && to.join("new/dir").is_dir());
        replace(&to, "a/b/f", b"new").unwrap();
        assert_eq!(fs::read(to.join("a/b/f")).unwrap(), b"new");
        assert_eq!(fs::read(from.join("a/b/f")).unwrap(), b"old");
    }
}
