//! The kernel image a trial boots: the very build the module was made for.
//!
//! Input: the kernel of the manifest, and an image when the user names one. Output: its path. Refused: no image anywhere
//! (LP6403), an image with another build id (LP6404), and what [`KernelImage::open`] refuses.

use std::path::{Path, PathBuf};

use crate::error::{Error, Place, Problem, Result};
use crate::kernel::KernelImage;
use crate::manifest::{Kernel, to_hex};

/// The image the user named, once it is known to be the right build, or the first one that is found and is.
pub fn image(named: Option<&Path>, kernel: &Kernel) -> Result<PathBuf> {
    match named {
        Some(path) => match check(path, kernel)? {
            None => Ok(path.to_path_buf()),
            Some(other) => Err(other.into()),
        },
        None => find_image(kernel),
    }
}

/// Looks for the image of a release where distributions and lpbuild keep it, and takes the first of the right build.
/// Images of the same release and another build are passed over; when there is nothing else they are the reason.
pub fn find_image(kernel: &Kernel) -> Result<PathBuf> {
    let places = places(&kernel.release);
    let mut problems = Vec::new();
    for path in places.iter().filter(|p| p.exists()) {
        match check(path, kernel) {
            Ok(None) => return Ok(path.clone()),
            Ok(Some(other)) => problems.push(other),
            // Ubuntu's images are readable by root only; another copy may do.
            Err(e) => problems.extend(e.problems),
        }
    }
    if problems.is_empty() {
        let list: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        problems.push(Problem::new("LP6403", Place::object(&kernel.release), format!("none of {}", list.join(", "))));
    }
    Err(Error { problems })
}

/// Where the image of a release may be, in the order of preference.
fn places(release: &str) -> Vec<PathBuf> {
    // A release is one component of a path; a manifest that says otherwise leads nowhere.
    if release.is_empty() || release.contains('/') || release.starts_with('.') {
        return Vec::new();
    }
    let mut all = vec![
        PathBuf::from(format!("/boot/vmlinuz-{release}")),
        PathBuf::from(format!("/usr/lib/modules/{release}/vmlinuz")),
        PathBuf::from(format!("/lib/modules/{release}/vmlinuz")),
    ];
    if let Some(cache) = cache() {
        all.push(cache.join(format!("kernels/{release}/image/boot/vmlinuz-{release}")));
    }
    all
}

/// The user's cache of lpbuild.
pub(super) fn cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    Some(base.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("lpbuild"))
}

/// Nothing when the image is the one the manifest names, else what it is.
fn check(path: &Path, kernel: &Kernel) -> Result<Option<Problem>> {
    let image = KernelImage::open(path)?;
    let build_id = to_hex(image.build_id());
    if build_id == kernel.build_id {
        return Ok(None);
    }
    let detail = format!(
        "it is {} with build id {build_id}, the module was made for {} with {}",
        image.release(),
        kernel.release,
        kernel.build_id
    );
    Ok(Some(Problem::new("LP6404", Place::object(path.display().to_string()), detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel { release: release.into(), build_id: "00".into(), anchor: "_printk".into(), anchor_address: 0 }
    }

    #[test]
    fn no_image_says_where_it_was_looked_for() {
        let e = find_image(&kernel("6.1.0-no-such-kernel")).unwrap_err();
        assert_eq!((e.problems[0].code.id, e.exit_code()), ("LP6403", 1));
        assert!(e.to_string().contains("/boot/vmlinuz-6.1.0-no-such-kernel"), "{e}");
        for odd in ["", "../../etc", ".."] {
            assert_eq!(find_image(&kernel(odd)).unwrap_err().problems[0].code.id, "LP6403");
        }
    }
}
