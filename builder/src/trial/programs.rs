//! Programs of the host that a trial needs, and what a program needs to run in the guest.
//!
//! Input: PATH, the ELF file of a program. Output: paths. Refused: programs and libraries that are not there (LP6401,
//! LP6406); nothing is executed to find out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;

use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::tool;

/// Emulator, and the Debian package that has it.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// Everything a guest's user space needs besides lpbuild, and the Debian package that has it.
const BUSYBOX: (&str, &str) = ("busybox", "busybox-static");
/// Where the dynamic loader of the usual distributions looks without being told.
const LIBRARY_FOLDERS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

/// What a trial runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// QEMU for x86-64.
    pub qemu: PathBuf,
    /// busybox, static or not.
    pub busybox: PathBuf,
}

impl Programs {
    /// Finds them in PATH, or says which packages have them.
    pub fn find() -> Result<Self> {
        let mut missing = Vec::new();
        let mut look = |(program, package): (&str, &str)| {
            let found = tool::find(program).ok();
            if found.is_none() {
                let detail = format!("not found in PATH; the package {package} has it (apt install {package})");
                missing.push(Problem::new(codes::LP6401, Place::object(program), detail));
            }
            found.unwrap_or_default()
        };
        let (qemu, busybox) = (look(QEMU), look(BUSYBOX));
        if missing.is_empty() { Ok(Self { qemu, busybox }) } else { Err(Error { problems: missing }) }
    }
}

/// The loader and every library a dynamically linked program needs; nothing for a static one, or for no ELF at all.
/// `content` is that of the file.
pub fn libraries(program: &Path, content: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut todo = vec![(program.to_path_buf(), needs(program, content))];
    let mut folders: Vec<PathBuf> = LIBRARY_FOLDERS.iter().map(PathBuf::from).collect();
    while let Some((path, needs)) = todo.pop() {
        folders.extend(needs.folders);
        if let Some(loader) = needs.loader
            && found.insert(loader.clone())
        {
            todo.push(read_needs(loader)?);
        }
        for name in needs.libraries {
            let at = folders.iter().map(|d| d.join(&name)).find(|p| p.is_file()).ok_or_else(|| {
                let detail = format!("needs the library {name}, which is in none of the usual folders");
                Error::new(codes::LP6406, Place::object(path.display().to_string()), detail)
            })?;
            if found.insert(at.clone()) {
                todo.push(read_needs(at)?);
            }
        }
    }
    Ok(found.into_iter().collect())
}

#[derive(Default)]
struct Needs {
    loader: Option<PathBuf>,
    libraries: Vec<String>,
    folders: Vec<PathBuf>,
}

fn read_needs(path: PathBuf) -> Result<(PathBuf, Needs)> {
    let data = std::fs::read(&path).map_err(|e| Error::io(&path, &e))?;
    let needs = needs(&path, &data);
    Ok((path, needs))
}

fn needs(path: &Path, data: &[u8]) -> Needs {
    if !data.starts_with(b"\x7fELF") {
        return Needs::default();
    }
    // Kernel modules and objects have no program headers and so no needs; what goblin cannot read, the guest cannot run.
    let Ok(elf) = Elf::parse(data) else { return Needs::default() };
    let origin = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let folders = elf.runpaths.iter().chain(&elf.rpaths).flat_map(|p| p.split(':'));
    Needs {
        loader: elf.interpreter.map(PathBuf::from),
        libraries: elf.libraries.iter().map(ToString::to_string).collect(),
        folders: folders.map(|f| PathBuf::from(f.replace("$ORIGIN", &origin))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_comes_with_loader_and_libc_and_a_text_with_nothing() {
        // The test binary itself is linked dynamically, unless the target is told otherwise.
        let own = std::env::current_exe().unwrap();
        let content = std::fs::read(&own).unwrap();
        let elf_needs = needs(&own, &content);
        let all = libraries(&own, &content).unwrap();
        assert_eq!(elf_needs.loader.is_some(), !all.is_empty());
        if let Some(loader) = elf_needs.loader {
            assert!(all.contains(&loader), "{all:?}");
            assert!(all.iter().any(|p| p.to_string_lossy().contains("libc.so")), "{all:?}");
        }
        assert!(libraries(Path::new("/some/text"), b"[package]").unwrap().is_empty());
        assert_eq!(read_needs("/no/such/file".into()).err().unwrap().problems[0].code.id, "LP1004");
    }
}
