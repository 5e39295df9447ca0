//! Linked kernels with symbols: those of the two newest stock releases of a series that have a `-dbg` package.

use std::path::PathBuf;

use anyhow::{Result, bail};
use lpbuild::source::debian::{Archive, Version};
use lpbuild::tool::Log;

use crate::kernels::Said;

/// The older and the newer one; downloads about 300 MB each, once.
pub fn newest_two(series: &str) -> Result<[PathBuf; 2]> {
    let log = Log::default();
    let archive = Archive::new(&log, &Said)?;
    let mut found: Vec<(Version, String)> = Vec::new();
    for name in archive.names(&format!("linux-image-{series}."))? {
        let release = name.strip_prefix("linux-image-").and_then(|n| n.strip_suffix("-dbg"));
        let Some(release) = release.filter(|r| r.ends_with("-cloud-amd64")) else { continue };
        if let Some(version) = archive.versions(&name)?.pop() {
            found.push((version, release.to_owned()));
        }
    }
    found.sort();
    // Of several packages of one upstream version, the newest.
    found.dedup_by(|b, a| {
        let same = a.0.upstream() == b.0.upstream();
        if same {
            std::mem::swap(a, b);
        }
        same
    });
    let [.., old, new] = &found[..] else { bail!("the archive has no two -dbg packages of {series}") };
    Ok([archive.debug_image(&old.1, &old.0)?, archive.debug_image(&new.1, &new.0)?])
}
