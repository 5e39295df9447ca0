//! Folders that are kept as they were: a farm of hard links, and a copy that says what a build has changed since.
//!
//! A file counts as unchanged while its size and its time of modification (in nanoseconds) are those of the copy: make
//! itself trusts no more than that.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What happens to the files of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The same file under another name. Whoever changes one has to replace it, not to write into it.
    Link,
    /// A file of its own, with the time of the other.
    Copy,
}

/// Brings a tree to another place, which must not exist.
pub(super) fn duplicate(from: &Path, to: &Path, how: How) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let (at, kind) = (to.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            duplicate(&entry.path(), &at, how)?;
        } else {
            bring(&entry.path(), &at, how)?;
        }
    }
    Ok(())
}

/// Brings one file or symbolic link to a place where nothing is.
pub(super) fn bring(from: &Path, to: &Path, how: How) -> Result<()> {
    let told = || format!("{} to {}", from.display(), to.display());
    if let Ok(target) = fs::read_link(from) {
        return symlink(target, to).with_context(|| format!("link {}", told()));
    }
    if how == How::Link && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).with_context(|| format!("copy {}", told()))?;
    let modified = fs::metadata(from)?.modified()?;
    // The time comes last: a copy that was interrupted counts as changed.
    let file = File::options().write(true).open(to).or_else(|_| File::open(to))?;
    file.set_times(FileTimes::new().set_modified(modified)).with_context(|| format!("date {}", to.display()))
}

/// Relative paths of the files of `now` that are not as in `then`, and of those only `then` has.
pub(super) fn changed(then: &Path, now: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for (from, other) in [(now, then), (then, now)] {
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(from.join(&dir)).with_context(|| format!("read {}", from.join(&dir).display()))? {
                let entry = entry?;
                let path = dir.join(entry.file_name());
                let there = stamp(&other.join(&path))?;
                if entry.file_type()?.is_dir() && there.is_none_or(|s| s == Stamp::Folder) {
                    todo.push(path);
                } else if there != stamp(&entry.path())? {
                    paths.insert(path);
                }
            }
            if !other.join(&dir).is_dir() && !dir.as_os_str().is_empty() {
                // An empty folder that only one side has is a difference as well.
                paths.insert(dir);
            }
        }
    }
    Ok(paths)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Folder,
    Link,
    File { size: u64, seconds: i64, nanoseconds: i64 },
}

fn stamp(path: &Path) -> Result<Option<Stamp>> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => Ok(Some(Stamp::Folder)),
        Ok(m) if m.is_symlink() => Ok(Some(Stamp::Link)),
        Ok(m) => Ok(Some(Stamp::File { size: m.size(), seconds: m.mtime(), nanoseconds: m.mtime_nsec() })),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("look at {}", path.display())),
    }
}

/// Makes `now` what `then` is, touching only what differs; `how` says for a relative path how it comes back.
pub(super) fn restore(then: &Path, now: &Path, how: impl Fn(&Path) -> How) -> Result<()> {
    let differs = changed(then, now)?;
    // What is too much goes first, the deepest first; then what is missing comes, folders before what is in them.
    for path in differs.iter().rev() {
        remove(&now.join(path))?;
    }
    for path in &differs {
        let (from, to) = (then.join(path), now.join(path));
        match stamp(&from)? {
            None => {}
            Some(Stamp::Folder) => fs::create_dir_all(&to)?,
            Some(_) => {
                fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
                bring(&from, &to, how(path))?;
            }
        }
    }
    Ok(())
}

/// Removes a file or a folder, or nothing.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match stamp(path)? {
        None => return Ok(()),
        Some(Stamp::Folder) => fs::remove_dir_all(path),
        Some(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_found_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (then, now) = (dir.path().join("then"), dir.path().join("now"));
        for (path, text) in [("a", "1"), ("d/b", "2"), ("d/e/c", "3"), ("d/e/same", "4")] {
            fs::create_dir_all(then.join(path).parent().unwrap()).unwrap();
            fs::write(then.join(path), text).unwrap();
        }
        symlink("a", then.join("link")).unwrap();
        duplicate(&then, &now, How::Copy).unwrap();
        assert!(changed(&then, &now).unwrap().is_empty());

        fs::write(now.join("a"), "9").unwrap();
        fs::remove_dir_all(now.join("d/e")).unwrap();
        fs::create_dir_all(now.join("new/empty")).unwrap();
        fs::write(now.join("new/f"), "5").unwrap();
        fs::remove_file(now.join("link")).unwrap();
        let paths = changed(&then, &now).unwrap();
        for path in ["a", "d/e/c", "new/f", "new/empty", "link"] {
            assert!(paths.contains(Path::new(path)), "{path} is not in {paths:?}");
        }
        assert!(!paths.contains(Path::new("d/b")));

        restore(&then, &now, |_| How::Copy).unwrap();
        assert!(changed(&then, &now).unwrap().is_empty());
        assert_eq!(fs::read(now.join("a")).unwrap(), b"1");
        assert!(!now.join("new").exists() && now.join("link").is_symlink());
    }

    #[test]
    fn replacing_a_linked_file_leaves_the_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::write(a.join("f"), "1").unwrap();
        duplicate(&a, &b, How::Link).unwrap();
        crate::cache::write_atomic(&b.join("f"), b"2").unwrap();
        assert_eq!(fs::read(a.join("f")).unwrap(), b"1");
    }
}
