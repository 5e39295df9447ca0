//! Compiles a case the way kbuild compiles the kernel: every `.c` and `.S` file of its folder, old and new.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What kbuild gives gcc-12 for x86-64, as far as it changes code.
const KERNEL_FLAGS: &[&str] = &[
    "-O2",
    "-std=gnu11",
    "-ffreestanding",
    "-mcmodel=kernel",
    "-fno-pic",
    "-fno-pie",
    "-fno-asynchronous-unwind-tables",
    "-mno-red-zone",
    "-mno-sse",
    "-mno-mmx",
    "-mno-avx",
    "-fno-strict-aliasing",
    "-fno-common",
    "-fshort-wchar",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-fno-jump-tables",
    "-fno-delete-null-pointer-checks",
    "-mindirect-branch=thunk-extern",
    "-mindirect-branch-register",
    "-mfunction-return=thunk-extern",
    "-falign-functions=16",
    "-Wno-attributes",
];
const FENTRY: &[&str] = &["-pg", "-mfentry", "-mrecord-mcount"];

/// With which flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As kbuild does it.
    Plain,
    /// With `-ffunction-sections -fdata-sections`.
    Sections,
}

impl Variant {
    pub const ALL: [Variant; 2] = [Variant::Plain, Variant::Sections];
    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Sections => "sections",
        }
    }
}

/// What is compiled.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub variant: Variant,
    pub fentry: bool,
    pub flags: Vec<String>,
}

/// The source files of a folder, by name.
pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "c" || e == "S"))
        .collect();
    all.sort();
    all
}

/// Compiles one file; `define` is `NEW`, `IMAGE` or empty.
pub fn compile(source: &Path, recipe: &Recipe, define: &str, out: &Path) -> Vec<u8> {
    let mut gcc = Command::new("gcc-12");
    // The folder is not part of the object: __FILE__ is the bare name.
    gcc.current_dir(source.parent().unwrap()).arg("-c").arg(source.file_name().unwrap()).arg("-o").arg(out);
    gcc.args(KERNEL_FLAGS).arg("-I").arg(source.parent().unwrap().parent().unwrap());
    if recipe.fentry && source.extension().is_some_and(|e| e == "c") {
        gcc.args(FENTRY);
    }
    if recipe.variant == Variant::Sections {
        gcc.args(["-ffunction-sections", "-fdata-sections"]);
    }
    gcc.args(&recipe.flags);
    if !define.is_empty() {
        gcc.arg(format!("-D{define}"));
    }
    let done = gcc.output().expect("gcc-12 is installed");
    assert!(done.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&done.stderr));
    std::fs::read(out).unwrap()
}
