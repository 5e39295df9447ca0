//! The kernel's own build system links the module: version information, return thunks, retpolines and whatever else
//! a release wants of a module come out as for any other.
//!
//! The result has no debug information and no path in it: the same input gives the same bytes in any folder, for any
//! user, at any time.

use std::{fs, path::Path};

use super::{KernelSide, headers::Headers, input::PatchFolder, io_error};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::tool::{self, Log};

/// Where kbuild leaves objtool to the linked module (scripts/Makefile.build, `multi-obj-m`), it is to take the parts one
/// by one instead, as it does elsewhere: the patch has been through it before the functions were chosen, and objtool
/// neither adds to sections that are there ("file already has .orc_unwind") nor knows the runtime's Rust. What compiled
/// parts need of it they get; `--ibt` insists on `--link`.
const OBJTOOL_PER_OBJECT: [&str; 2] = ["delay-objtool=", "objtool-args=$(objtool-args-y) --link --module"];

/// Name of the manifest among the parts.
pub const MANIFEST: &str = "lp-manifest.toml";

/// Makes the module and returns its bytes.
pub(super) fn build(input: &PatchFolder, headers: &Headers, side: &dyn KernelSide, log: &Log) -> Result<Vec<u8>> {
    let temp =
        tempfile::Builder::new().prefix("lpbuild-pack-").tempdir().map_err(|e| io_error(&std::env::temp_dir(), &e))?;
    // make cannot handle blanks and colons in paths.
    let root = temp.path();
    if root.to_str().is_none_or(|p| p.contains([' ', ':', '\t'])) {
        let detail =
            "the path of the temporary folder has a blank or colon in it, which make cannot handle; set TMPDIR";
        return Err(Error::new(codes::LP1001, Place::object(root.display().to_string()), detail));
    }
    let module = root.join("module");
    fs::create_dir(&module).map_err(|e| io_error(&module, &e))?;
    let name = &input.manifest.patch.name;
    for (file, content) in side.parts(input)? {
        write(&module, &file, &content)?;
    }

    let (objects, makefile) = headers.shadow(root)?;
    let mut make = tool::command("make");
    make.arg("-C").arg(&objects).arg("-f").arg(&makefile).arg(format!("M={}", module.display()));
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    make.args(["ARCH=x86", "--no-print-directory", &format!("-j{jobs}")]);
    make.arg(format!("CC={}", headers.compiler.display()));
    // Behind the kernel's own flags: no debug information, in the file that modpost writes either, and no path.
    if headers.delayed_objtool {
        make.args(OBJTOOL_PER_OBJECT);
    }
    let flags = format!("-g0 -ffile-prefix-map={0}/= -ffile-prefix-map={0}=.", root.display());
    make.arg(format!("KCFLAGS={flags}")).arg("KAFLAGS=-g0").arg("modules");
    log.run(&mut make, codes::LP4006)?;
    let made = module.join(format!("{name}.ko"));
    embed_manifest(&made, &module.join(MANIFEST), log)?;
    fs::read(&made).map_err(|e| io_error(&made, &e))
}

/// Adds the manifest as a section that is not loaded. After modpost, which warns about sections it does not know.
fn embed_manifest(module: &Path, manifest: &Path, log: &Log) -> Result<()> {
    let section = lpbuild_abi::SEC_MANIFEST;
    let mut objcopy = tool::command("objcopy");
    objcopy.arg("--add-section").arg(format!("{section}={}", manifest.display()));
    objcopy.arg("--set-section-flags").arg(format!("{section}=noload,readonly"));
    log.run(objcopy.arg(module), codes::LP4006).map(drop)
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).map_err(|e| io_error(&path, &e))
}
