//! Copies of the source of external modules: kbuild makes what it generates beside the sources, and nothing is written to those.
//!
//! Left out is what kbuild has made there before, which has a file `.NAME.cmd` beside it (`if_changed` of scripts/Kbuild.include), and
//! what belongs to version control. Links within the folder lead to the copy, others to where they led.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::source::patch::SourceChange;
use crate::source::shadow;

/// Folders of version control.
const APART: &[&str] = &[".git", ".hg", ".svn"];

/// Files that are not text: what a program of the build host is, or an object.
const ELF: &[u8] = b"\x7fELF";

/// The files and links of a folder, by path relative to it, and the folders.
#[derive(Debug, Default)]
pub(super) struct Listing {
    folders: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Listing {
    /// Everything that is source.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut found = Self::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(folder) = todo.pop() {
            let here = root.join(&folder);
            for entry in fs::read_dir(&here).map_err(|e| Error::io(&here, &e))? {
                let entry = entry.map_err(|e| Error::io(&here, &e))?;
                let kind = entry.file_type().map_err(|e| Error::io(&entry.path(), &e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let made =
                    here.join(format!(".{name}.cmd")).exists() || name.starts_with('.') && name.ends_with(".cmd");
                if made || APART.contains(&name.as_str()) {
                    continue;
                }
                let path = folder.join(entry.file_name());
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_file() || kind.is_symlink() {
                    found.files.insert(path);
                }
            }
            found.folders.insert(folder);
        }
        Ok(found)
    }

    /// The files with one of these endings, as text.
    pub(super) fn named(&self, endings: &[&str]) -> BTreeSet<String> {
        let names = self.files.iter().filter_map(|p| p.to_str());
        names.filter(|p| endings.iter().any(|e| p.ends_with(e))).map(str::to_owned).collect()
    }

    /// Puts a copy of what was listed in `from` into the empty folder `to`.
    pub(super) fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        cache::empty_dir(to)?;
        let top = from.canonicalize().map_err(|e| Error::io(from, &e))?;
        for folder in &self.folders {
            let folder = to.join(folder);
            fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
        }
        for path in &self.files {
            let (source, target) = (from.join(path), to.join(path));
            let Ok(link) = fs::read_link(&source) else {
                fs::copy(&source, &target).map_err(|e| Error::io(&source, &e))?;
                continue;
            };
            let leads = match source.canonicalize() {
                Ok(real) => match real.strip_prefix(&top) {
                    Ok(within) => to.join(within),
                    Err(_) => real,
                },
                Err(_) => link,
            };
            symlink(leads, &target).map_err(|e| Error::io(&target, &e))?;
        }
        Ok(())
    }

    /// What is in a copy and was not listed: kbuild has made it since. Programs that make other files are left out, as what they
    /// make is there as well.
    pub(super) fn made_in(&self, copy: &Path) -> Result<BTreeSet<PathBuf>> {
        let mut found = Self::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(folder) = todo.pop() {
            let here = copy.join(&folder);
            for entry in fs::read_dir(&here).map_err(|e| Error::io(&here, &e))? {
                let entry = entry.map_err(|e| Error::io(&here, &e))?;
                let path = folder.join(entry.file_name());
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() && !entry.path().is_symlink() {
                    todo.push(path);
                } else if !(name.starts_with('.') && (name.ends_with(".cmd") || name.ends_with(".d"))) {
                    found.files.insert(path);
                }
            }
        }
        let is_program = |p: &PathBuf| fs::read(copy.join(p)).is_ok_and(|data| data.starts_with(ELF));
        Ok(found.files.into_iter().filter(|p| !self.files.contains(p) && !is_program(p)).collect())
    }
}

/// Makes the change in a copy, as it stands in the patch.
pub(super) fn make_change(copy: &Path, change: &SourceChange) -> Result<()> {
    for (path, file) in &change.files {
        let target = copy.join(path);
        match &file.new {
            Some(new) => put(copy, path, new)?,
            None => fs::remove_file(&target).map_err(|e| Error::io(&target, &e))?,
        }
    }
    Ok(())
}

/// A file in the place of what is there.
pub(super) fn put(copy: &Path, path: &str, content: &[u8]) -> Result<()> {
    let folder = copy.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
    shadow::replace(copy, path, content)
}

/// Refuses files that kbuild has generated otherwise from the change: the old objects were made from the old ones, and which of the
/// others were cannot be told (LP6305).
pub(super) fn compare_generated(listing: &Listing, stock: &Path, changed: &Path, change: &SourceChange) -> Result<()> {
    let (from, to) = (changed.to_string_lossy(), stock.to_string_lossy());
    let text = |root: &Path, path: &Path| {
        let data = fs::read(root.join(path)).unwrap_or_default();
        match String::from_utf8(data) {
            Ok(text) => text.replace(&*from, &to).into_bytes(),
            Err(e) => e.into_bytes(),
        }
    };
    let (old, mut new) = (listing.made_in(stock)?, listing.made_in(changed)?);
    new.retain(|p| !p.to_str().is_some_and(|p| change.files.contains_key(p)));
    let mut problems = Vec::new();
    for path in old.union(&new) {
        let what = match (old.contains(path), new.contains(path)) {
            (true, false) => "with the change it is not generated any more",
            (false, true) => "it is generated with the change alone",
            _ if text(stock, path) != text(changed, path) => "with the change kbuild generates another one",
            _ => continue,
        };
        problems.push(Problem::new(codes::LP6305, Place::object(path.display().to_string()), what));
    }
    crate::error::refuse(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kbuild_has_made_stays_behind_and_links_lead_to_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (from, stock, changed) = (dir.path().join("from"), dir.path().join("a"), dir.path().join("b"));
        let write = |root: &Path, path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in ["m.c", "sub/n.c", "m.ko", ".m.ko.cmd", ".git/HEAD", "blob.o"] {
            write(&from, path, path);
        }
        symlink("sub/n.c", from.join("own")).unwrap();
        symlink(dir.path(), from.join("out")).unwrap();
        let listing = Listing::of(&from).unwrap();
        listing.copy(&from, &stock).unwrap();
        listing.copy(&from, &changed).unwrap();
        assert!(stock.join("blob.o").is_file() && !stock.join("m.ko").exists() && !stock.join(".git").exists());
        assert_eq!(fs::read_link(stock.join("own")).unwrap(), stock.canonicalize().unwrap().join("sub/n.c"));
        assert_eq!(fs::read_link(stock.join("out")).unwrap(), dir.path().canonicalize().unwrap());
        let change = SourceChange::from_contents([("m.c".into(), Some(b"m.c".to_vec()), Some(b"new".to_vec()))]);
        make_change(&changed, &change).unwrap();
        assert_eq!(
            (fs::read(stock.join("m.c")).unwrap(), fs::read(changed.join("m.c")).unwrap()),
            (b"m.c".into(), b"new".into())
        );
        write(&stock, "gen.h", &format!("{}/x 1", stock.display()));
        write(&changed, "gen.h", &format!("{}/x 1", changed.display()));
        compare_generated(&listing, &stock, &changed, &change).unwrap();
        write(&changed, "gen.h", "2");
        let e = compare_generated(&listing, &stock, &changed, &change).unwrap_err();
        assert!(e.to_string().contains("LP6305") && e.to_string().contains("gen.h"), "{e}");
    }
}
