//! Small images linked as kernels, and what an analysis says about two of them.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use lpbuild::annotate::Images;
use lpbuild::pipeline::{self};
use lpbuild::plan::Analysis;
use lpbuild::plan::Options;
use lpbuild::whole::Backing;
use tempfile::TempDir;

/// The parts of a kernel's linker script that matter.
pub const SCRIPT: &str = r#"
SECTIONS {
    . = 0xffffffff81000000;
    .text : { _text = .; *(.text .text.*) _etext = .; }
    . = ALIGN(4096);
    .rodata : { *(.rodata .rodata.*) __start___jump_table = .; KEEP(*(__jump_table)) __stop___jump_table = .; }
    .altinstructions : { *(.altinstructions) }
    .BTF_ids : { *(.BTF_ids) }
    . = ALIGN(4096);
    .data : { *(.data .data.*) }
    .altinstr_replacement : { *(.altinstr_replacement) }
    .bss : { *(.bss) }
    _end = .;
}
"#;

/// Runs a tool that has to succeed.
pub fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Compiles `source` in `folder` as kernels are.
pub fn compile(folder: &Path, source: &str, object: &str, more: &[String]) {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(folder).args(["-c", "-O2", "-mcmodel=kernel", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mno-sse"]);
    gcc.args(["-ffreestanding", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-stack-protector"]);
    run(gcc.args(more).arg(source).args(["-o", object]));
}

/// Links objects in `folder` with the script `k.lds`.
pub fn link(folder: &Path, name: &str, objects: &[String], relocations: bool) -> PathBuf {
    let mut ld = Command::new("ld");
    ld.current_dir(folder).args(["-T", "k.lds", "-static", "--no-warn-rwx-segments", "-o", name]).args(objects);
    run(if relocations { ld.arg("--emit-relocs") } else { &mut ld });
    folder.join(name)
}

/// Links source files, with `//NEXT` between them, as a kernel.
pub fn image(folder: &TempDir, name: &str, text: &str, relocations: bool) -> PathBuf {
    image_by(SCRIPT, folder, name, text, relocations)
}

/// The same with a linker script of its own.
pub fn image_by(script: &str, folder: &TempDir, name: &str, text: &str, relocations: bool) -> PathBuf {
    let at = folder.path();
    std::fs::write(at.join("k.lds"), script).unwrap();
    let mut objects = Vec::new();
    for (i, text) in text.split("//NEXT").enumerate() {
        let (source, object) = (format!("{i}.c"), format!("{i}.o"));
        std::fs::write(at.join(&source), text).unwrap();
        compile(at, &source, &object, &["-fno-toplevel-reorder".into()]);
        objects.push(object);
    }
    link(at, name, &objects, relocations)
}

pub fn options() -> Options {
    Options { deadline_ms: Some(1000), ..Options::named("test") }
}

/// What differs, or why that cannot be told.
pub fn try_analyse(old: &Path, new: &Path) -> lpbuild::error::Result<Analysis> {
    let (old, new) = (Backing::open(old)?, Backing::open(new)?);
    let (old, new) = (old.whole()?, new.whole()?);
    let images = Images { old: &old, new: &new, kernel: None, debug: None };
    pipeline::analyse_whole(images, &[], &options())
}

pub fn analyse(old: &Path, new: &Path) -> Analysis {
    try_analyse(old, new).unwrap()
}

/// An image of `text`, and one in which `from` became `to` each time.
pub fn both(text: &str, from: &str, to: &str, relocations: bool) -> Analysis {
    assert!(text.contains(from));
    pair(text, &text.replace(from, to), relocations)
}

/// Images of two texts.
pub fn pair(old: &str, new: &str, relocations: bool) -> Analysis {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (image(&folder, "old", old, relocations), image(&folder, "new", new, relocations));
    analyse(&old, &new)
}

/// Functions that are replaced.
pub fn changed(analysis: &Analysis) -> Vec<String> {
    let items = analysis.set.items.iter();
    let replaced = items.filter(|i| matches!(i.role, lpbuild::plan::Role::Replaces(_)));
    let mut names: Vec<String> = replaced.map(|i| analysis.pairs[0].new.atom(i.atom.0).name.clone()).collect();
    names.sort();
    names
}

/// Codes of everything that is refused.
pub fn codes(analysis: &Analysis) -> Vec<&str> {
    analysis.refused.iter().map(|p| p.code.id).collect()
}
