//! The kernel's own build system links the module: version information, return thunks, retpolines and whatever else
//! a release wants of a module come out as for any other.
//!
//! The result has no debug information and no path in it: the same input gives the same bytes in any folder, for any
//! user, at any time. Asking kbuild costs seconds, nearly all of it for what is the same in every module of a kernel, so its
//! commands are kept ([`super::recipe`]) and only those repeated that depend on the patch.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{KernelSide, headers::Headers, input::PatchFolder, recipe};
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

/// Name of what explains the patch, beside the parts.
const WHY: &str = "lp-why.json";

/// What a module is made of: name and content of each file.
pub(super) type Parts = Vec<(String, Vec<u8>)>;

/// Makes the module and returns its bytes.
pub(super) fn build(input: &PatchFolder, headers: &Headers, side: &dyn KernelSide, log: &Log) -> Result<Vec<u8>> {
    let parts = side.parts(input)?;
    let name = &input.manifest.patch.name;
    if let Some(recipe) = recipe::find(input, &parts, headers, side, log)? {
        let room = Room::new(headers, &parts)?;
        let followed = recipe.follow(&room, name, &parts, log).and_then(|made| embed(&made, input, &room, log));
        match followed {
            Err(e) if !is_interrupted(&e) => log.note("# that did not work, so kbuild is asked"),
            other => return other,
        }
    }
    let room = Room::new(headers, &parts)?;
    room.make(headers, log)?;
    embed(&room.module.join(format!("{name}.ko")), input, &room, log)
}

/// Was it the user who ended it?
pub(super) fn is_interrupted(e: &Error) -> bool {
    e.problems.iter().any(|p| p.code.id == codes::LP6215.id)
}

/// A temporary folder with the parts and the shadow of the headers.
pub(super) struct Room {
    /// All is below it; removed with this.
    temp: tempfile::TempDir,
    /// Where make and the commands of kbuild run.
    pub(super) objects: PathBuf,
    /// The kernel's Makefile.
    makefile: PathBuf,
    /// The folder of the parts.
    pub(super) module: PathBuf,
}

impl Room {
    pub(super) fn new(headers: &Headers, parts: &Parts) -> Result<Self> {
        let temp = tempfile::Builder::new()
            .prefix("lpbuild-pack-")
            .tempdir()
            .map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
        let root = temp.path();
        if root.to_str().is_none_or(|p| p.contains([' ', ':', '\t'])) {
            let detail = "the path of the temporary folder has a blank or colon in it";
            return Err(Error::new(codes::LP1008, Place::object(root.display().to_string()), detail));
        }
        let module = root.join("module");
        fs::create_dir(&module).map_err(|e| Error::io(&module, &e))?;
        let (objects, makefile) = headers.shadow(root)?;
        let room = Self { temp, objects, makefile, module };
        for (file, content) in parts {
            room.write(file, content)?;
        }
        Ok(room)
    }

    pub(super) fn root(&self) -> &Path {
        self.temp.path()
    }

    /// Writes a file beside the parts.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.module.join(name);
        fs::write(&path, content).map_err(|e| Error::io(&path, &e))
    }

    /// Has kbuild do everything.
    pub(super) fn make(&self, headers: &Headers, log: &Log) -> Result<()> {
        let mut make = tool::command("make");
        make.arg("-C").arg(&self.objects).arg("-f").arg(&self.makefile).arg(format!("M={}", self.module.display()));
        let jobs = std::thread::available_parallelism().map_or(2, usize::from);
        make.args(["ARCH=x86", "--no-print-directory", &format!("-j{jobs}")]);
        make.arg(format!("CC={}", headers.compiler.display()));
        // Behind the kernel's own flags: no debug information, in the file that modpost writes either, and no path.
        if headers.delayed_objtool {
            make.args(OBJTOOL_PER_OBJECT);
        }
        let flags = format!("-g0 -ffile-prefix-map={0}/= -ffile-prefix-map={0}=.", self.root().display());
        make.arg(format!("KCFLAGS={flags}")).arg("KAFLAGS=-g0").arg("modules");
        log.run(&mut make, codes::LP4006).map(drop)
    }
}

/// Adds the manifest, and what explains the patch, as sections that are not loaded, and returns the module. After modpost, which warns
/// about sections it does not know.
fn embed(module: &Path, input: &PatchFolder, room: &Room, log: &Log) -> Result<Vec<u8>> {
    let mut objcopy = tool::command("objcopy");
    let mut add = |section: &str, file: &str| {
        objcopy.arg("--add-section").arg(format!("{section}={}", room.module.join(file).display()));
        objcopy.arg("--set-section-flags").arg(format!("{section}=noload,readonly"));
    };
    add(lpbuild_abi::SEC_MANIFEST, MANIFEST);
    if let Some(why) = &input.why {
        room.write(WHY, why)?;
        add(lpbuild_abi::SEC_WHY, WHY);
    }
    log.run(objcopy.arg(module), codes::LP4006)?;
    fs::read(module).map_err(|e| Error::io(module, &e))
}
