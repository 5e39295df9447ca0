//! An initramfs in the kernel's `newc` cpio format, written in memory.
//!
//! Input: texts, and files of the host with the libraries they need. Output: the archive; every entry has owner root and
//! time 0, so that the same content gives the same bytes. Refused: guest paths that are not absolute (LP6406), files of
//! 4 GiB and more (LP6406), files that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::programs;
use crate::codes;
use crate::error::{Error, Place, Result};

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Link(String),
    Char { major: u32, minor: u32 },
}

/// Files by absolute guest path.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    nodes: BTreeMap<String, Node>,
    library_folders: BTreeSet<String>,
}

impl Initramfs {
    /// The mount points and device nodes every case needs before devtmpfs is mounted.
    pub fn new() -> Self {
        let mut fs = Self::default();
        for dir in ["/dev", "/proc", "/sys", "/tmp", "/run", "/etc", "/root", "/bin", "/sbin"] {
            fs.add(dir, Node::Directory);
        }
        fs.add("/dev/console", Node::Char { major: 5, minor: 1 });
        fs.add("/dev/null", Node::Char { major: 1, minor: 3 });
        fs
    }

    /// Adds a file; existing content is replaced.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.add(path, Node::File { mode, content: content.into() })
    }

    /// Adds a file of the host, executable if it is so there.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        self.copied(path, from)?;
        Ok(self)
    }

    /// Adds a file of the host and says what is in it: a pipe can be read once only.
    fn copied(&mut self, path: &str, from: &Path) -> Result<Vec<u8>> {
        use std::os::unix::fs::PermissionsExt;
        let content = fs::read(from).map_err(|e| Error::io(from, &e))?;
        let executable = fs::metadata(from).map_err(|e| Error::io(from, &e))?.permissions().mode() & 0o111 != 0;
        self.file(path, if executable { 0o755 } else { 0o644 }, content.clone());
        Ok(content)
    }

    /// Adds a file of the host and, when it is a dynamically linked program, its loader and libraries at the paths they
    /// have on the host.
    pub fn program(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let content = self.copied(path, from)?;
        for library in programs::libraries(from, &content)? {
            let at = library.to_string_lossy().into_owned();
            if let Some((folder, _)) = at.rsplit_once('/') {
                self.library_folders.insert(folder.to_owned());
            }
            if !self.nodes.contains_key(&at) {
                self.copy(&at, &library)?;
            }
        }
        Ok(self)
    }

    /// The folders of all libraries, for LD_LIBRARY_PATH: the guest has no cache of the loader.
    pub fn library_folders(&self) -> impl Iterator<Item = &str> {
        self.library_folders.iter().map(String::as_str)
    }

    /// Adds a file of the host as [`Initramfs::program`] does, or a folder with everything below it. Links to
    /// files are followed; links to folders, links that lead nowhere and what is neither file nor folder are left out.
    pub fn tree(&mut self, path: &str, from: &Path) -> Result<&mut Self> {
        let mut todo = vec![(path.trim_end_matches('/').to_string(), from.to_path_buf())];
        while let Some((at, host)) = todo.pop() {
            if !host.is_dir() {
                self.program(&at, &host)?;
                continue;
            }
            self.add(&at, Node::Directory);
            for entry in fs::read_dir(&host).map_err(|e| Error::io(&host, &e))? {
                let entry = entry.map_err(|e| Error::io(&host, &e))?.path();
                let linked_folder = entry.is_symlink() && entry.is_dir();
                if (entry.is_file() || entry.is_dir()) && !linked_folder {
                    let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    todo.push((format!("{at}/{name}"), entry));
                }
            }
        }
        Ok(self)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.add(path, Node::Link(to.to_string()))
    }

    /// Adds busybox and a link for each of its applets.
    pub fn busybox(&mut self, binary: &Path) -> Result<&mut Self> {
        self.program("/bin/busybox", binary)?;
        let listed = Command::new(binary).arg("--list").stdin(Stdio::null()).output();
        let listed = listed.map_err(|e| Error::io(binary, &e))?;
        let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
        for applet in applets.lines().filter(|a| *a != "busybox" && !a.contains('/')) {
            self.link(&format!("/bin/{applet}"), "busybox");
        }
        Ok(self)
    }

    fn add(&mut self, path: &str, node: Node) -> &mut Self {
        self.nodes.insert(path.trim_end_matches('/').to_string(), node);
        self
    }

    /// The archive.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut nodes = self.nodes.clone();
        let mut parents = BTreeSet::new();
        for path in nodes.keys() {
            if !path.starts_with('/') || path.contains("/../") {
                let detail = format!("{path:?} is not an absolute path without `..`");
                return Err(Error::new(codes::LP6406, Place::default(), detail));
            }
            parents.extend(path.match_indices('/').map(|(i, _)| path[..i].to_string()).filter(|p| !p.is_empty()));
        }
        for parent in parents {
            nodes.entry(parent).or_insert(Node::Directory);
        }
        let mut out = Vec::new();
        for (inode, (path, node)) in nodes.iter().enumerate() {
            let name = path.trim_start_matches('/');
            let inode = inode as u32 + 1;
            match node {
                Node::Directory => entry(&mut out, name, inode, 0o040_755, (0, 0), &[])?,
                Node::File { mode, content } => entry(&mut out, name, inode, 0o100_000 | mode, (0, 0), content)?,
                Node::Link(to) => entry(&mut out, name, inode, 0o120_777, (0, 0), to.as_bytes())?,
                Node::Char { major, minor } => entry(&mut out, name, inode, 0o020_600, (*major, *minor), &[])?,
            }
        }
        entry(&mut out, "TRAILER!!!", 0, 0, (0, 0), &[])?;
        Ok(out)
    }
}

/// One record: magic, 13 fields of 8 hex digits, name, content; name and content padded to 4 bytes.
fn entry(out: &mut Vec<u8>, name: &str, inode: u32, mode: u32, rdev: (u32, u32), content: &[u8]) -> Result<()> {
    let too_big = |_| Error::new(codes::LP6406, Place::object(name), "an initramfs holds no file of 4 GiB or more");
    let size = u32::try_from(content.len()).map_err(too_big)?;
    let namesize = u32::try_from(name.len() + 1).map_err(too_big)?;
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, rdev.0, rdev.1, namesize, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_back_what_was_written() {
        let mut fs = Initramfs::default();
        fs.file("/a/b/three", 0o755, "123").file("/four", 0o644, "1234").link("/l", "four");
        let archive = fs.archive().unwrap();
        assert_eq!(archive, fs.archive().unwrap());
        assert_eq!(archive.len() % 4, 0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.cpio"), archive).unwrap();
        let mut cpio = match Command::new("cpio").args(["-id", "--quiet", "-F", "x.cpio"]).current_dir(&dir).spawn() {
            Ok(child) => child,
            Err(e) => return eprintln!("LPBUILD-SKIP: cpio_reads_back_what_was_written: cpio: {e}"),
        };
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("a/b/three")).unwrap(), b"123");
        assert_eq!(std::fs::read(dir.path().join("l")).unwrap(), b"1234");
    }

    #[test]
    fn a_tree_comes_with_its_folders_and_a_dangling_link_does_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/empty")).unwrap();
        std::fs::write(dir.path().join("a/f"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("a/dangling")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("a/up")).unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("a/link")).unwrap();
        let mut fs = Initramfs::default();
        fs.tree("/t/", dir.path()).unwrap();
        let paths: Vec<&String> = fs.nodes.keys().collect();
        assert_eq!(paths, ["/t", "/t/a", "/t/a/empty", "/t/a/f", "/t/a/link"]);
    }

    #[test]
    fn a_path_that_is_not_absolute_is_refused() {
        for path in ["x", "/a/../b"] {
            let e = Initramfs::default().file(path, 0o644, "").archive().unwrap_err();
            assert_eq!(e.problems[0].code.id, "LP6406");
        }
    }
}
