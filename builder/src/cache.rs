//! The user's cache: where it is, how entries are made once, and how two runs keep out of each other's way.
//!
//! ```text
//! kernels/RELEASE/...      image and headers of a release, unpacked from the distribution's packages
//! sources/PACKAGE_VERSION  kernel source trees, never written to
//! trees/RELEASE-KEY        prepared build folders
//! recipes/RELEASE-KEY      how a module for some headers is made, and its parts that are the same for every patch
//! work/...                 folders of running builds; what an interrupted one left is removed by the next
//! ```
//!
//! An entry is made in a temporary folder beside its final place and renamed; a lock file per entry makes the second of
//! two runs wait and then find the finished entry. An interrupted run leaves only a temporary folder, which the next one
//! replaces.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::codes;
use crate::error::{Error, Place, Result};

/// `$XDG_CACHE_HOME/lpbuild`, or `~/.cache/lpbuild`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(dir) => dir,
        None => std::env::home_dir()
            .ok_or_else(|| Error::new(codes::LP6201, Place::default(), "no home folder: set XDG_CACHE_HOME"))?
            .join(".cache"),
    };
    Ok(base.join("lpbuild"))
}

/// A held lock; released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits for the lock named after `path` (the file `path` + `.lock`).
pub fn lock(path: &Path) -> Result<Lock> {
    let (name, file) = open_lock(path)?;
    file.lock().map_err(|e| Error::io(&name, &e))?;
    Ok(Lock { _file: file })
}

/// The lock named after `path` if nobody holds it.
pub fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let (name, file) = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(Error::io(&name, &e)),
    }
}

fn open_lock(path: &Path) -> Result<(PathBuf, File)> {
    let name = sibling(path, ".lock");
    if let Some(dir) = name.parent() {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, &e))?;
    }
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&name);
    let file = file.map_err(|e| Error::io(&name, &e))?;
    Ok((name, file))
}

/// Returns `entry`, making it with `make` first if it is absent. `make` fills the empty folder it is given.
pub fn publish(entry: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if entry.exists() {
        return Ok(entry.to_path_buf());
    }
    let _lock = lock(entry)?;
    if entry.exists() {
        return Ok(entry.to_path_buf());
    }
    let temp = sibling(entry, ".partial");
    empty_dir(&temp)?;
    if let Err(e) = make(&temp) {
        // The error that matters is the first one; what is left is replaced next time.
        let _ = fs::remove_dir_all(&temp);
        return Err(e);
    }
    fs::rename(&temp, entry).map_err(|e| Error::io(entry, &e))?;
    Ok(entry.to_path_buf())
}

/// What `load` finds in the folder `entry`. When it finds nothing there, `make` fills an empty folder that takes its place.
pub fn renew<T>(
    entry: &Path,
    load: impl Fn(&Path) -> Option<T>,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<Option<T>> {
    if let Some(found) = load(entry) {
        return Ok(Some(found));
    }
    let _lock = lock(entry)?;
    // Another run may have made it meanwhile.
    if let Some(found) = load(entry) {
        return Ok(Some(found));
    }
    let temp = sibling(entry, ".partial");
    empty_dir(&temp)?;
    let made = make(&temp).and_then(|()| {
        if entry.exists() {
            fs::remove_dir_all(entry).map_err(|e| Error::io(entry, &e))?;
        }
        fs::rename(&temp, entry).map_err(|e| Error::io(entry, &e))
    });
    if let Err(e) = made {
        let _ = fs::remove_dir_all(&temp);
        return Err(e);
    }
    Ok(load(entry))
}

/// Makes `dir` an empty folder, whatever was there.
pub fn empty_dir(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|e| Error::io(dir, &e))?;
    }
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, &e))
}

/// Writes a file so that readers see the old or the new content, never half of it.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let temp = tempfile::NamedTempFile::new_in(dir)?;
        fs::write(temp.path(), content)?;
        temp.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| Error::io(path, &e))
}

/// `path` with something behind its name.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn an_entry_is_made_once_by_two_threads_and_a_failed_one_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("a/b");
        assert!(publish(&entry, |_| Err(Error::new(codes::LP1001, Place::default(), "broken"))).is_err());
        assert!(!entry.exists());
        let made = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    publish(&entry, |d| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        fs::write(d.join("f"), "x").map_err(|e| Error::io(d, &e))
                    })
                    .unwrap()
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read(entry.join("f")).unwrap(), b"x");
    }

    #[test]
    fn what_an_interrupted_run_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("e");
        fs::create_dir(sibling(&entry, ".partial")).unwrap();
        fs::write(sibling(&entry, ".partial").join("half"), "x").unwrap();
        publish(&entry, |d| fs::write(d.join("whole"), "x").map_err(|e| Error::io(d, &e))).unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
    }
}
