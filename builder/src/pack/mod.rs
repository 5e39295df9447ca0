//! `patch.o` and `manifest.toml` become `NAME.ko`.
//!
//! Input: a folder made by emit, bound to a kernel; that kernel's headers. Output: one module, the same bytes every
//! time, in place only when a second ELF reader has found in it what the manifest says. Refused: LP40xx.
//!
//! ```text
//! input     folder -> Input            patch.o, manifest, and that they belong together
//! headers   release -> Headers         found, of the right release; compiler and signing hash they want
//! kbuild    Input, Headers -> bytes    a temporary folder, the kernel's own build system
//! recipe    part of kbuild: what it does for every module of a kernel, kept and repeated
//! stamps    part of recipe: whether headers and programs are as they were
//! verify    bytes -> ()                read again with goblin, compared with manifest and Module.symvers
//! endbr     bytes -> problems          part of verify: indirect branches of kernels with IBT
//! sign      bytes -> bytes             last, since a signature covers everything before it
//! ```

mod endbr;
mod headers;
mod input;
mod kbuild;
mod reader;
mod recipe;
mod sign;
mod stamps;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::codes;
use crate::error::{Error, Place, Problem, Result, refuse};
use crate::holder::Running;
use crate::kernel::Symvers;
use crate::plan::manifest::Manifest;
use crate::tool::Log;

pub use input::PatchFolder;
pub use kbuild::MANIFEST;
pub use reader::{Reached, Reread, int};

/// What a back end adds to the module, and looks at in the finished one.
pub trait KernelSide {
    /// A cheap look at a patch folder before anything is compiled.
    ///
    /// # Errors
    /// LP1002, LP1003, LP4009.
    fn check(&self, input: &PatchFolder, path: &Path) -> Result<()>;
    /// Everything in which a manifest contradicts the image of its kernel, and the files of modules.
    fn contradictions(&self, manifest: &Manifest, running: Running<'_>) -> Vec<Problem>;
    /// Name and content of the files kbuild makes the module of, the manifest among them ([`MANIFEST`]).
    ///
    /// # Errors
    /// LP4001.
    fn parts(&self, input: &PatchFolder) -> Result<Vec<(String, Vec<u8>)>>;
    /// Notes what is wrong with its own sections of the finished module.
    fn verify(&self, module: &mut Reread<'_>, input: &PatchFolder);
    /// Places that are reached by indirect branches of its own, and by which: they must begin with ENDBR.
    fn called_indirectly(&self, module: &Reread<'_>, input: &PatchFolder) -> Vec<((usize, u64), String)>;
}

/// Options of [`pack`]; the default packs unsigned into the folder of the patch.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// Folder of the kernel headers.
    pub headers: Option<PathBuf>,
    /// The file to write.
    pub output: Option<PathBuf>,
    /// Who signs.
    pub sign: Option<Signer>,
    /// Where the commands that are run are noted.
    pub log: Log,
}

/// A key pair for module signing.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Private key, PEM, or a PKCS#11 URI.
    pub key: PathBuf,
    /// X.509 certificate, DER or PEM.
    pub cert: PathBuf,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PackReport {
    /// The module.
    pub module: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Kernel release it loads on.
    pub release: String,
    /// Number of functions it replaces.
    pub functions: usize,
    /// Whether it carries a signature.
    pub signed: bool,
}

/// Does the folder hold the patch.o that its manifest was written for, and does the manifest fit what runs?
///
/// # Errors
/// LP1101, LP3009, LP4002, LP4009, LP4013, LP4014.
pub fn check(side: &dyn KernelSide, dir: &Path, running: Running<'_>) -> Result<()> {
    refuse(side.contradictions(&input::read(dir, side)?.manifest, running))
}

/// What the kernel of these headers and its modules export.
///
/// # Errors
/// LP4003, LP4004.
pub fn symvers(release: &str, headers: Option<&Path>) -> Result<Symvers> {
    Ok(Symvers::parse(&headers::find(release, headers)?.symvers()?))
}

/// Does the folder, bound or not, hold the patch.o that its manifest was written for?
pub fn check_hash(dir: &Path, manifest: &Manifest) -> Result<()> {
    let path = dir.join("patch.o");
    let object = std::fs::read(&path).map_err(|e| Error::io(&path, &e))?;
    input::check_hash(&object, manifest, &path)
}

/// Makes the module of the patch in `dir`.
///
/// # Errors
/// LP40xx; then there is no new module.
pub fn pack(side: &dyn KernelSide, dir: &Path, opts: &PackOptions) -> Result<PackReport> {
    let input = input::read(dir, side)?;
    let headers = headers::find(&input.kernel.release, opts.headers.as_deref())?;
    let mut module = kbuild::build(&input, &headers, side, &opts.log)?;
    verify::verify(&module, &input, &headers, side)?;
    if let Some(signer) = &opts.sign {
        module = sign::sign(&module, &headers, signer, &opts.log)?;
    }
    let name = &input.manifest.patch.name;
    let path = opts.output.clone().unwrap_or_else(|| dir.join(format!("{name}.ko")));
    write_atomic(&path, &module)?;
    Ok(PackReport {
        module: path,
        size: module.len() as u64,
        sha256: crate::hash::digest(&module),
        release: input.kernel.release.clone(),
        functions: input.manifest.functions.len(),
        signed: opts.sign.is_some(),
    })
}

/// Either the whole new file or what was there before; readable by all as files of a build are.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    // A link stands for the file it leads to; a device or a pipe is nobody's module.
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    if path.exists() && !path.is_file() {
        let what = "the output is there already and is no regular file; it was left alone";
        return Err(Error::new(codes::LP1007, Place::object(path.display().to_string()), what));
    }
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut temp = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o644)).tempfile_in(dir)?;
        temp.write_all(content)?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| Error::io(path, &e))
}

#[cfg(test)]
mod output {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_replaced_and_a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.ko"), dir.path().join("link.ko"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        let null = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        let e = write_atomic(&null, b"new").unwrap_err();
        assert!(e.to_string().contains("no regular file"), "{e}");
        assert!(!Path::new("/dev/null").is_file());
    }
}
