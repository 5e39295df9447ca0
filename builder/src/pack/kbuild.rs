//! The kernel's own build system links the module: version information, return thunks, retpolines and whatever else
//! a release wants of a module come out as for any other.
//!
//! The result has no debug information and no path in it: the same input gives the same bytes in any folder, for any
//! user, at any time.

use std::{fs, path::Path};

use super::{headers::Headers, input::Input, io_error};
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::plan::manifest::Manifest;
use crate::tool::{self, Log};

const KBUILD: &str = include_str!("../../../templates/Kbuild.in");
const MODULE: &str = include_str!("../../../templates/module.c.in");
/// The C half of the runtime, as templates/Kbuild.in lists it.
const HELPERS: [(&str, &str); 6] = [
    ("lp-runtime.h", include_str!("../../../runtime-kmod/c/lp-runtime.h")),
    ("lp-kernel.c", include_str!("../../../runtime-kmod/c/kernel.c")),
    ("lp-operate.c", include_str!("../../../runtime-kmod/c/operate.c")),
    ("lp-files.c", include_str!("../../../runtime-kmod/c/files.c")),
    ("lp-others.c", include_str!("../../../runtime-kmod/c/others.c")),
    ("lp-init.c", include_str!("../../../runtime-kmod/c/init.c")),
];

/// Where kbuild leaves objtool to the linked module (scripts/Makefile.build, `multi-obj-m`), it is to take the parts one
/// by one instead, as it does elsewhere: the patch has been through it before the functions were chosen, and objtool
/// neither adds to sections that are there ("file already has .orc_unwind") nor knows the runtime's Rust. What compiled
/// parts need of it they get; `--ibt` insists on `--link`.
const OBJTOOL_PER_OBJECT: [&str; 2] = ["delay-objtool=", "objtool-args=$(objtool-args-y) --link --module"];

/// Makes the module and returns its bytes.
pub(super) fn build(input: &Input, headers: &Headers, runtime: &[u8], log: &Log) -> Result<Vec<u8>> {
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
    for (file, content) in [
        ("Kbuild", render(KBUILD, input).as_bytes()),
        ("lp-module.c", render(MODULE, input).as_bytes()),
        ("lp-manifest.toml", input.manifest_text.as_bytes()),
        ("lp-runtime.o_shipped", runtime),
        ("lp-patch.o_shipped", &input.object),
        // modpost reads the command file of every part; these two were not compiled here.
        (".lp-runtime.o.cmd", b""),
        (".lp-patch.o.cmd", b""),
    ]
    .into_iter()
    .chain(HELPERS.iter().map(|(file, text)| (*file, text.as_bytes())))
    {
        write(&module, file, content)?;
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
    embed_manifest(&made, &module.join("lp-manifest.toml"), log)?;
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

fn render(template: &str, input: &Input) -> String {
    template
        .replace("@NAME@", &input.manifest.patch.name)
        .replace("@VERSION@", &input.manifest.patch.version)
        .replace("@BUILD_ID@", &input.kernel.build_id)
        .replace("@ABI@", &lpbuild_abi::ABI_VERSION.to_string())
        .replace("@DESCRIPTION@", &c_text(&description(&input.manifest)))
}

/// What `modinfo` shows.
pub(super) fn description(manifest: &Manifest) -> String {
    match manifest.patch.description.as_str() {
        "" => format!("lpbuild live patch {}", manifest.patch.name),
        text => text.to_owned(),
    }
}

/// The inside of a C string; what is not ASCII stays as it is.
pub(super) fn c_text(text: &str) -> String {
    let escaped = |c: char| if matches!(c, '"' | '\\' | '?') { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escaped).collect()
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).map_err(|e| io_error(&path, &e))
}
