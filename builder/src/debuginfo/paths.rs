//! Paths of source files as people know them: relative to the folder of the sources or of the build.
//!
//! Debug information has them as the compiler was called (DWARF 5, 3.1.1 `DW_AT_name`, `DW_AT_comp_dir`): `fs/exec.c`,
//! `../fs/exec.c` from a build folder, or `/usr/src/linux/fs/exec.c`. kbuild calls it in the build folder.

/// Folders at the top of the kernel's sources; no source folder is looked for below one.
const TOP: [&str; 22] = [
    "arch", "block", "certs", "crypto", "drivers", "fs", "include", "init", "io_uring", "ipc", "kernel", "lib", "mm",
    "net", "rust", "samples", "scripts", "security", "sound", "tools", "usr", "virt",
];

/// `name` in `folder`, which counts only when `name` is relative.
pub(super) fn join(folder: &str, name: &str) -> String {
    if name.starts_with('/') || folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The path below the build folder or, if it is absolute and elsewhere, below the folder of the sources.
pub(super) fn relative<'r>(path: &str, build: &str, sources: impl FnOnce() -> &'r str) -> String {
    let path = clean(path);
    let build = clean(build);
    if let Some(rest) = below(&path, &build) {
        return rest.to_owned();
    }
    if path.starts_with('/')
        && let Some(rest) = below(&path, sources())
    {
        return rest.to_owned();
    }
    path
}

/// The folder of the sources, from names and build folders of the units; empty when no name is absolute.
///
/// Where kbuild runs in a folder of the sources, that is what names and build folders have in common. Where it runs beside
/// them, it is more: as long as all names agree, but not beyond a folder of [`TOP`].
pub(super) fn source_root<'a>(units: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut names: Option<Vec<String>> = None;
    let mut both: Option<usize> = None;
    for (name, build) in units.filter(|u| u.0.starts_with('/')) {
        let (name, build) = (clean(name), clean(build));
        if below(&name, &build).is_some() {
            continue;
        }
        let folders = &name[..name.rfind('/').unwrap_or(0)];
        let folders: Vec<String> = folders.split('/').map(str::to_owned).collect();
        let shared = folders.iter().zip(build.split('/')).take_while(|(a, b)| a == b).count();
        both = Some(both.map_or(shared, |b| b.min(shared)));
        names = Some(match names {
            None => folders,
            Some(have) => have.into_iter().zip(folders).take_while(|(a, b)| a == b).map(|(a, _)| a).collect(),
        });
    }
    let (Some(names), Some(both)) = (names, both) else { return String::new() };
    let more = names.iter().skip(both).take_while(|f| !TOP.contains(&f.as_str())).count();
    names[..(both + more).min(names.len())].join("/")
}

/// What is left of a clean path below a clean folder.
fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    path.strip_prefix(folder).filter(|_| !folder.is_empty())?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// Without `.`, `..` and empty parts, and without `..` in front.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_folders() {
        let no_sources = || "";
        assert_eq!(relative("./include/linux/../linux/fs.h", "/b", no_sources), "include/linux/fs.h");
        assert_eq!(relative("../fs/exec.c", "/src/linux/build", no_sources), "fs/exec.c");
        assert_eq!(relative("/b/include/generated/a.h", "/b", no_sources), "include/generated/a.h");
        assert_eq!(relative("/bb/a.c", "/b", no_sources), "/bb/a.c");
        assert_eq!(relative("debian/b/include/a.h", "debian/b", no_sources), "include/a.h");
        assert_eq!(relative("/src/linux/fs/exec.c", "/b", || "/src/linux"), "fs/exec.c");
        assert_eq!(relative("../../..", "/", no_sources), "");
    }

    #[test]
    fn sources_are_where_the_names_say() {
        let root = |units: &[(&str, &str)]| source_root(units.iter().copied());
        // A build folder below the sources, and a few absolute names, all of one folder.
        let inside = "/b/linux-6.1/debian/build";
        assert_eq!(root(&[("/b/linux-6.1/arch/x86/a.S", inside), ("fs/exec.c", inside)]), "/b/linux-6.1");
        // Beside them.
        let beside = "/home/me/build";
        assert_eq!(
            root(&[("/home/me/linux/fs/exec.c", beside), ("/home/me/linux/mm/mmap.c", beside)]),
            "/home/me/linux"
        );
        assert_eq!(root(&[("/home/me/linux/fs/exec.c", beside)]), "/home/me/linux");
        assert_eq!(root(&[("fs/exec.c", beside)]), "");
        assert_eq!(root(&[("/", "/")]), "");
    }
}
