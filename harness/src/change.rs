//! A change to a kernel source tree: whole new contents of a few files, from a patch, from a newer tree or by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::cmd;

/// New contents of files, by path relative to the source tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    files: BTreeMap<String, Vec<u8>>,
}

impl Change {
    /// Changes nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a file with its whole new content.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_string(), content.into());
        self
    }

    /// Adds a file as another source tree has it.
    pub fn file_from(self, tree: &Path, path: &str) -> Result<Self> {
        let from = tree.join(path);
        let content = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        Ok(self.file(path, content))
    }

    /// Replaces `old`, which must occur exactly once, by `new`; edits of the same file add up.
    pub fn edit(self, source: &Path, path: &str, old: &str, new: &str) -> Result<Self> {
        let text = match self.files.get(path) {
            Some(content) => String::from_utf8(content.clone()).with_context(|| format!("{path} is not UTF-8"))?,
            None => {
                fs::read_to_string(source.join(path)).with_context(|| format!("read {path} in {}", source.display()))?
            }
        };
        match text.matches(old).count() {
            1 => Ok(self.file(path, text.replace(old, new))),
            n => bail!("{path}: the text to replace occurs {n} times, not once:\n{old}"),
        }
    }

    /// What `patch -p1` makes of the stock files, without fuzz.
    pub fn from_patch(source: &Path, patch: &str) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let paths = patched_paths(patch)?;
        for path in &paths {
            let to = temp.path().join(path);
            fs::create_dir_all(to.parent().context("a relative path has a folder")?)?;
            if source.join(path).exists() {
                fs::copy(source.join(path), &to).with_context(|| format!("copy {path} from {}", source.display()))?;
            }
        }
        let file = temp.path().join("fix.patch");
        fs::write(&file, patch)?;
        let mut c = cmd::command("patch");
        c.args(["-p1", "--batch", "--silent", "--fuzz=0", "--no-backup-if-mismatch", "-i"]).arg(&file);
        cmd::output(c.current_dir(temp.path())).context("the patch does not apply to the stock source")?;
        let mut change = Self::none();
        for path in paths {
            if !temp.path().join(&path).exists() {
                bail!("the patch removes {path}: only changed and added files can be built");
            }
            change = change.file_from(temp.path(), &path)?;
        }
        Ok(change)
    }

    /// Paths and contents, in path order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(p, c)| (p.as_str(), c.as_slice()))
    }

    /// The objects compiled from the changed source files; changed headers name none.
    pub fn objects(&self) -> Vec<String> {
        let stem = |p: &String| p.strip_suffix(".c").or(p.strip_suffix(".S")).map(|s| format!("{s}.o"));
        self.files.keys().filter_map(stem).collect()
    }

    /// Identifies the change; the first 16 digits of a SHA-256.
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        for (path, content) in &self.files {
            for part in [path.as_bytes(), content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// The `+++ b/PATH` lines of a unified diff.
fn patched_paths(patch: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in patch.lines() {
        let Some(name) = line.strip_prefix("+++ ") else { continue };
        let name = name.split('\t').next().unwrap_or(name).trim();
        let path = name.split_once('/').map_or("", |(_, p)| p);
        let plain = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
        if path.is_empty() || !Path::new(path).components().all(plain) {
            bail!("the patch names {name:?}; expected a/PATH and b/PATH (`patch -p1`), and no removed files");
        }
        paths.push(path.to_string());
    }
    if paths.is_empty() {
        bail!("no `+++ b/PATH` line in the patch");
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "--- a/d/f.c\n+++ b/d/f.c\n@@ -1,3 +1,3 @@\n one\n-two\n+deux\n three\n";

    #[test]
    fn patch_file_and_edit_give_the_same_change() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("d")).unwrap();
        fs::write(source.path().join("d/f.c"), "one\ntwo\nthree\n").unwrap();
        let a = Change::from_patch(source.path(), PATCH).unwrap();
        let b = Change::none().edit(source.path(), "d/f.c", "two", "deux").unwrap();
        assert_eq!(a, b);
        assert_eq!(a.key(), b.key());
        assert_eq!(a.objects(), ["d/f.o"]);
        assert_ne!(a.key(), Change::none().key());
        assert_eq!(fs::read(source.path().join("d/f.c")).unwrap(), b"one\ntwo\nthree\n", "the source stays as it was");
    }

    #[test]
    fn what_does_not_apply_or_leads_outside_is_an_error() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("d")).unwrap();
        fs::write(source.path().join("d/f.c"), "something else\n").unwrap();
        assert!(Change::from_patch(source.path(), PATCH).is_err());
        assert!(Change::from_patch(source.path(), "+++ b/../x\n").is_err());
        assert!(Change::from_patch(source.path(), "no diff").is_err());
        assert!(Change::none().edit(source.path(), "d/f.c", "e", "x").is_err());
    }
}
