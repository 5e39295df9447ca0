//! Which compiler, assembler and linker run: what everything that is kept of a kernel is kept under.
//!
//! A name and a version say little: another `gcc-12` that stands first in PATH, a wrapper that adds a flag, or an assembler of
//! another release make other objects. So each program is followed to its file, and that is what counts. Launchers
//! (`ccache gcc-12`) do not change what is made, so trees do not depend on them; the objects of one build have all gone
//! through the same. What the environment would add (CPATH, GCC_EXEC_PREFIX, KCFLAGS ...) does not reach any tool ([`crate::tool`]).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::codes;
use crate::error::{Error, Result};
use crate::hash::digest;
use crate::tool::{self, Log};

/// Programs that stand before the compiler in PATH under its name and call it.
const LAUNCHERS: &[&str] = &["ccache", "sccache", "distcc", "icecc", "colorgcc"];
/// What the compiler runs, if it is gcc.
const PARTS: &[&str] = &["cc1", "as", "ld"];

/// The programs that make objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The command of the compiler, every program with its path, as shell words.
    pub command: String,
    /// The compiler with its path; without a launcher.
    pub compiler: PathBuf,
    /// Stands for compiler, assembler and linker.
    pub key: String,
    /// Stands for all that and for the launchers.
    pub command_key: String,
}

impl Toolchain {
    /// Follows the words of a command to what they run; the last is the compiler.
    pub fn of(command: &str, log: &Log) -> Result<Self> {
        let mut words = command.split_whitespace();
        let compiler = absolute(words.next_back().unwrap_or(command))?;
        let launchers = words.map(absolute).collect::<Result<Vec<_>>>()?;

        let mut text = String::new();
        for program in chain(&compiler) {
            let content = fs::read(&program).map_err(|e| Error::io(&program, &e))?;
            text.push_str(&format!("{}\0{}\0", program.display(), digest(&content)));
        }
        for part in PARTS {
            // Without such an option (clang) the assembler is part of the compiler.
            let asked = log.run(tool::command(&compiler).arg(format!("-print-prog-name={part}")), codes::LP6207);
            let name = asked.ok().map(|out| out.trim().to_owned()).filter(|n| !n.is_empty() && !n.contains('\n'));
            if let Some(file) = name.and_then(|n| absolute(&n).ok()) {
                text.push_str(&stamp(&file)?);
            }
        }
        // kbuild calls it itself.
        if let Ok(ld) = absolute("ld") {
            text.push_str(&stamp(&ld)?);
        }
        let key = digest(text.as_bytes());
        let mut all = key.clone();
        for launcher in &launchers {
            all.push_str(&stamp(launcher)?);
        }
        let words: Vec<String> = launchers.iter().chain([&compiler]).map(|p| p.display().to_string()).collect();
        Ok(Self { command: words.join(" "), compiler, key, command_key: digest(all.as_bytes()) })
    }
}

/// Where a program is found: absolute, by the name it is called by, since some behave by it.
fn absolute(program: &str) -> Result<PathBuf> {
    let found = tool::find(program)?;
    std::path::absolute(&found).map_err(|e| Error::io(&found, &e))
}

/// The file a program is, and, if that is a launcher, those behind it in PATH that have its name.
fn chain(program: &Path) -> Vec<PathBuf> {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let is_launcher = |p: &Path| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| LAUNCHERS.contains(&n));
    let mut found = vec![real(program)];
    if found.iter().all(|p| is_launcher(p)) {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        for behind in std::env::split_paths(&dirs).filter_map(|d| Some(real(&d.join(program.file_name()?)))) {
            if behind.is_file() && !is_launcher(&behind) {
                found.push(behind);
                break;
            }
        }
    }
    found
}

/// A file by its path, size and the time it was written: too large to read each time.
fn stamp(file: &Path) -> Result<String> {
    let real = file.canonicalize().map_err(|e| Error::io(file, &e))?;
    let meta = real.metadata().map_err(|e| Error::io(&real, &e))?;
    Ok(format!("{}\0{}\0{}.{}\0", real.display(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn script(path: &Path, text: &str) -> String {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_compiler_is_what_its_file_is_and_launchers_are_told_apart_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::default();
        let of = |command: &str| Toolchain::of(command, &log).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        let cc = script(&dir.path().join("cc"), "echo");
        let same_elsewhere = script(&dir.path().join("other/cc"), "echo");
        let launcher = script(&dir.path().join("launch"), "exec \"$@\"");
        let link = dir.path().join("link");
        symlink(&cc, &link).unwrap();

        let plain = of(&cc);
        assert_eq!(plain.command, cc);
        assert_eq!(of(&link.display().to_string()).key, plain.key);
        assert_ne!(of(&same_elsewhere).key, plain.key);
        let launched = of(&format!("{launcher} {cc}"));
        assert_eq!((&launched.key, &launched.compiler), (&plain.key, &plain.compiler));
        assert_ne!(launched.command_key, plain.command_key);

        // The same name, path and answer, and another flag.
        script(&dir.path().join("cc"), "echo # -fno-inline");
        assert_ne!(of(&cc).key, plain.key);
        // An assembler of its own.
        let before = of(&cc).key;
        let assembler = script(&dir.path().join("as"), "");
        script(&dir.path().join("cc"), &format!("echo {assembler}"));
        let with = of(&cc).key;
        script(&dir.path().join("as"), "true");
        assert_ne!(with, before);
        assert_ne!(of(&cc).key, with);
        assert!(Toolchain::of("/nonexistent/cc", &log).is_err());
    }
}
