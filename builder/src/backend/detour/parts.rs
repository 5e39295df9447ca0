//! What kbuild makes the module of, beside patch.o: the runtime, its C half, and the text that describes the patch.

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::pack::{MANIFEST, PatchFolder};
use crate::plan::manifest::Manifest;

include!(concat!(env!("OUT_DIR"), "/runtime.rs"));

const KBUILD: &str = include_str!("../../../../templates/Kbuild.in");
const MODULE: &str = include_str!("../../../../templates/module.c.in");
/// What all of the C half includes.
const HEADER: &str = "lp-runtime.h";
/// The C half of the runtime, as templates/Kbuild.in lists it.
const HELPERS: [(&str, &str); 8] = [
    (HEADER, include_str!("../../../../runtime-kmod/c/lp-runtime.h")),
    ("lp-kernel.c", include_str!("../../../../runtime-kmod/c/kernel.c")),
    ("lp-operate.c", include_str!("../../../../runtime-kmod/c/operate.c")),
    ("lp-files.c", include_str!("../../../../runtime-kmod/c/files.c")),
    ("lp-modules.c", include_str!("../../../../runtime-kmod/c/modules.c")),
    ("lp-shadow.c", include_str!("../../../../runtime-kmod/c/shadow.c")),
    ("lp-others.c", include_str!("../../../../runtime-kmod/c/others.c")),
    ("lp-init.c", include_str!("../../../../runtime-kmod/c/init.c")),
];

/// Name and content of each.
///
/// # Errors
/// LP4001 for a build of lpbuild without a runtime.
pub(super) fn all(input: &PatchFolder, runtime: Option<&[u8]>, test_hooks: bool) -> Result<Vec<(String, Vec<u8>)>> {
    let runtime = runtime
        .or(RUNTIME)
        .ok_or_else(|| Error::new(codes::LP4001, Place::default(), "pack has no runtime to put in"))?;
    let own = [
        ("Kbuild", render(KBUILD, input).into_bytes()),
        ("lp-module.c", render(MODULE, input).into_bytes()),
        (MANIFEST, input.manifest_text.clone().into_bytes()),
        ("lp-runtime.o_shipped", runtime.to_vec()),
        ("lp-patch.o_shipped", input.object.clone()),
        // modpost reads the command file of every part; these two were not compiled here.
        (".lp-runtime.o.cmd", Vec::new()),
        (".lp-patch.o.cmd", Vec::new()),
    ];
    let hooks: &[u8] = if test_hooks { b"#define LPB_TEST_HOOKS 1\n" } else { b"" };
    let of = |file: &str| if file == HEADER { hooks } else { b"" };
    let helpers = HELPERS.iter().map(|(file, text)| (*file, [of(file), text.as_bytes()].concat()));
    Ok(own.into_iter().chain(helpers).map(|(file, content)| (file.to_owned(), content)).collect())
}

fn render(template: &str, input: &PatchFolder) -> String {
    template
        .replace("@NAME@", &input.manifest.patch.name)
        .replace("@VERSION@", &input.manifest.patch.version)
        .replace("@BUILD_ID@", &input.kernel.build_id)
        .replace("@ABI@", &lpbuild_abi::ABI_VERSION.to_string())
        .replace("@SHADOWS@", &shadows(&input.manifest))
        .replace("@DESCRIPTION@", &c_text(&description(&input.manifest)))
}

/// Entries of `lpb_kinds`; the names are C identifiers.
fn shadows(manifest: &Manifest) -> String {
    manifest.shadows.iter().map(|s| format!("\t{{ {}, \"{}\" }},\n", s.size, s.name)).collect()
}

/// What `modinfo` shows.
pub(super) fn description(manifest: &Manifest) -> String {
    match manifest.patch.description.as_str() {
        "" => format!("lpbuild live patch {}", manifest.patch.name),
        text => text.to_owned(),
    }
}

/// The inside of a C string; what is not ASCII stays as it is.
pub(crate) fn c_text(text: &str) -> String {
    let escaped = |c: char| if matches!(c, '"' | '\\' | '?') { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escaped).collect()
}
