//! The cache outside the checkout is lpbuild's own (`lpbuild::source::cache`); here is what only tests need of it.

use anyhow::{Context, Result};
use lpbuild::error::{Error, Place};
pub use lpbuild::source::cache::{Lock, lock, root, sibling, try_lock, write_atomic};
use std::path::{Path, PathBuf};

/// Returns `entry`, making it with `make` first if it is absent. `make` fills the empty folder it is given.
pub fn publish(entry: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut why = None;
    let made = lpbuild::source::cache::publish(entry, |dir| {
        make(dir).map_err(|e| {
            // The other side knows its own errors only; this one is put back below.
            let stand_in = Error::new(lpbuild::codes::LP1001, Place::default(), e.to_string());
            why = Some(e);
            stand_in
        })
    });
    match why {
        Some(e) => Err(e),
        None => Ok(made?),
    }
}

/// Takes the first free of `n` numbered locks `name.0` .. `name.n-1`, waiting for one when all are held.
pub fn slot(name: &str, n: usize) -> Result<Lock> {
    let dir = root()?.join("slots");
    loop {
        for i in 0..n.max(1) {
            if let Some(lock) = try_lock(&dir.join(format!("{name}.{i}"))).context("lock a slot")? {
                return Ok(lock);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
