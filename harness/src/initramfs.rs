//! An initramfs in the kernel's `newc` cpio format, written in memory.
//!
//! Every entry has owner root and time 0: the same content gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

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
        use std::os::unix::fs::PermissionsExt;
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let executable = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
        Ok(self.file(path, if executable { 0o755 } else { 0o644 }, content))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.add(path, Node::Link(to.to_string()))
    }

    /// Adds busybox and a link for each of its applets.
    pub fn busybox(&mut self, binary: &Path) -> Result<&mut Self> {
        self.copy("/bin/busybox", binary)?;
        let applets = crate::cmd::output(crate::cmd::command(binary).arg("--list"))?;
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
                bail!("{path:?} is not an absolute guest path");
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
    let size = u32::try_from(content.len()).with_context(|| format!("{name} is too big for an initramfs"))?;
    let namesize = u32::try_from(name.len() + 1)?;
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
        if !crate::cmd::found("cpio") {
            crate::skip("cpio_reads_back_what_was_written", "the program cpio is not installed");
            return;
        }
        let mut fs = Initramfs::default();
        fs.file("/a/b/three", 0o755, "123").file("/four", 0o644, "1234").link("/l", "four");
        let archive = fs.archive().unwrap();
        assert_eq!(archive, fs.archive().unwrap());
        assert_eq!(archive.len() % 4, 0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.cpio"), archive).unwrap();
        crate::cmd::run_in(dir.path(), "cpio", &["-id", "--quiet", "-F", "x.cpio"]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b/three")).unwrap(), b"123");
        assert_eq!(std::fs::read(dir.path().join("l")).unwrap(), b"1234");
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(Initramfs::default().file("x", 0o644, "").archive().is_err());
    }
}
