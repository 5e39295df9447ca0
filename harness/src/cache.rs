//! The cache outside the checkout: where it is, how entries are made once, and how two runs keep out of each other's way.
//!
//! An entry is made in a temporary folder beside its final place and renamed; a lock file per entry makes the second of
//! two runs wait and then find the finished entry. An interrupted run leaves only a temporary folder, which the next one
//! removes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$XDG_CACHE_HOME/lpbuild`, or `~/.cache/lpbuild`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(dir) => dir,
        None => std::env::home_dir().context("no home folder: set XDG_CACHE_HOME")?.join(".cache"),
    };
    Ok(base.join("lpbuild"))
}

/// A held lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits for the lock named after `path` (the file `path` + `.lock`).
pub fn lock(path: &Path) -> Result<Lock> {
    let name = sibling(path, ".lock");
    let file = open_lock(&name)?;
    file.lock().with_context(|| format!("lock {}", name.display()))?;
    Ok(Lock { _file: file })
}

/// Takes the first free of `n` numbered locks `name.0` .. `name.n-1`, waiting for one when all are held.
pub fn slot(name: &str, n: usize) -> Result<Lock> {
    let dir = root()?.join("slots");
    loop {
        for i in 0..n.max(1) {
            let file = open_lock(&dir.join(format!("{name}.{i}")))?;
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(e)) => return Err(e).context("lock a slot"),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn open_lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open lock file {}", path.display()))
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
    if temp.exists() {
        fs::remove_dir_all(&temp).with_context(|| format!("remove {}", temp.display()))?;
    }
    fs::create_dir_all(&temp).with_context(|| format!("create {}", temp.display()))?;
    make(&temp)?;
    fs::rename(&temp, entry).with_context(|| format!("rename {} to {}", temp.display(), entry.display()))?;
    Ok(entry.to_path_buf())
}

/// Writes a file so that readers see the old or the new content, never half of it.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let temp = tempfile::NamedTempFile::new_in(dir).with_context(|| format!("temporary file in {}", dir.display()))?;
    fs::write(temp.path(), content).with_context(|| format!("write {}", temp.path().display()))?;
    temp.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
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
        assert!(publish(&entry, |_| anyhow::bail!("broken")).is_err());
        assert!(!entry.exists());
        let made = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    publish(&entry, |d| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        fs::write(d.join("f"), "x").map_err(Into::into)
                    })
                    .unwrap()
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read(entry.join("f")).unwrap(), b"x");
    }
}
