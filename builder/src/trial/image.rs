//! The kernel image a trial boots: the very build the module was made for.
//!
//! Input: the kernel of the manifest, and an image when the user names one. Output: its path. Refused: no image anywhere
//! (LP6403), an image with another build id (LP6404), and what [`KernelImage::open`] refuses.

use crate::hash::to_hex;
use std::path::{Path, PathBuf};

use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::kernel::KernelImage;
use crate::plan::manifest::Kernel;
use crate::source::debian::Unpacked;
use crate::source::{Progress, locate};
use crate::tool::Log;

/// The image the user named, once it is known to be the right build, or the first one that is found and is.
pub fn image(named: Option<&Path>, kernel: &Kernel, progress: &dyn Progress) -> Result<PathBuf> {
    match named {
        Some(path) => match check(path, kernel)? {
            None => Ok(path.to_path_buf()),
            Some(other) => Err(other.into()),
        },
        None => find_image(kernel, progress),
    }
}

/// Looks for the image of a release where distributions and lpbuild keep it, and takes the first of the right build; when
/// there is none at all, it is fetched as `lpbuild build` does. Images of the same release and another build are passed
/// over; when there is nothing else they are the reason.
pub fn find_image(kernel: &Kernel, progress: &dyn Progress) -> Result<PathBuf> {
    let mut places = places(&kernel.release)?;
    let mut why = String::new();
    if !places.iter().any(|p| p.exists()) {
        match locate::find_image(&kernel.release, &Log::default(), progress) {
            Ok(fetched) => places.push(fetched),
            Err(e) => why = format!(", and it cannot be fetched: {e}"),
        }
    }
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
        problems.push(Problem::new(
            codes::LP6403,
            Place::object(&kernel.release),
            format!("none of {}{why}", list.join(", ")),
        ));
    }
    Err(Error { problems })
}

/// Where the image of a release may be, in the order of preference.
fn places(release: &str) -> Result<Vec<PathBuf>> {
    // A release is one component of a path; a manifest that says otherwise leads nowhere.
    if release.is_empty() || release.contains('/') || release.starts_with('.') {
        return Err(Error::new(codes::LP6403, Place::default(), format!("{release:?} is no kernel release")));
    }
    Ok(vec![
        PathBuf::from(format!("/boot/vmlinuz-{release}")),
        PathBuf::from(format!("/usr/lib/modules/{release}/vmlinuz")),
        PathBuf::from(format!("/lib/modules/{release}/vmlinuz")),
        Unpacked::of(release)?.image,
    ])
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
    Ok(Some(Problem::new(codes::LP6404, Place::object(path.display().to_string()), detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel { release: release.into(), build_id: "00".into(), anchor: "_printk".into(), anchor_address: 0 }
    }

    #[test]
    fn a_release_that_is_no_path_component_is_refused() {
        for odd in ["", "../../etc", "..", "a/b"] {
            let e = find_image(&kernel(odd), &crate::source::Silent).unwrap_err();
            assert_eq!((e.problems[0].code.id, e.exit_code()), ("LP6403", 1));
        }
    }
}
