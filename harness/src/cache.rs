//! The cache outside the checkout is lpbuild's own (`lpbuild::cache`); here is what only tests need of it.

use anyhow::{Context, Result};
pub use lpbuild::cache::{Lock, lock, root, sibling, try_lock, write_atomic};
use lpbuild::error::{Error, Place};
use std::path::{Path, PathBuf};

/// Returns `entry`, making it with `make` first if it is absent. `make` fills the empty folder it is given.
pub fn publish(entry: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut why = None;
    let made = lpbuild::cache::publish(entry, |dir| {
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

/// Takes `n` of the `all` numbered locks `name.0` .. `name.ALL-1`, waiting until as many are free; never more than there are.
/// Who waits comes before all who come later, so that one who needs many gets them.
pub fn slots(name: &str, n: usize, all: usize) -> Result<Vec<Lock>> {
    let dir = root()?.join("slots");
    let _turn = lock(&dir.join(format!("{name}.turn"))).context("wait for a turn")?;
    let mut held = Vec::new();
    loop {
        for i in 0..all.max(1) {
            if held.len() == n.clamp(1, all.max(1)) {
                return Ok(held);
            }
            held.extend(try_lock(&dir.join(format!("{name}.{i}"))).context("lock a slot")?);
        }
        if held.len() == n.clamp(1, all.max(1)) {
            return Ok(held);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
