//! A kernel of our own built with a source patch, in the folder it was built in, and that folder brought back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{How, OwnKernel, folder, make, short};
use crate::change::Change;
use crate::tree::Pair;
use crate::{cache, cmd, progress};

/// The same kernel with a patch.
#[derive(Clone, Debug)]
pub struct Patched {
    /// The linked kernel, with symbols.
    pub vmlinux: PathBuf,
    /// What it was linked from, without debug information.
    pub vmlinux_o: PathBuf,
    /// The objects that were compiled again and came out different, as they were and as they are; may be none.
    pub objects: Pair,
}

impl OwnKernel {
    /// Builds the kernel with a patch (`-p1`), once; a second time it comes from the cache.
    ///
    /// Only `vmlinux` is made. It holds the same version and date as the unpatched one, but another build id.
    pub fn patched(&self, patch: &Path) -> Result<Patched> {
        let text = fs::read_to_string(patch).with_context(|| format!("read {}", patch.display()))?;
        self.patched_text(&text).with_context(|| patch.display().to_string())
    }

    /// The same for the text of a patch.
    pub fn patched_text(&self, patch: &str) -> Result<Patched> {
        let mut hash = Sha256::new();
        hash.update(patch);
        let entry = cache::publish(&self.root.join("patched").join(short(hash)), |dir| {
            let _lock = cache::lock(&self.root)?;
            let change = Change::from_patch(&self.stock_source, patch)?;
            progress(format!("building the {} kernel with a patch", self.variant.name()));
            self.changed_for_a_while(&change, || {
                self.make_vmlinux(&change)?;
                self.collect(dir)
            })
        })?;
        let listed = fs::read_to_string(entry.join("objects")).context("the list of objects")?;
        let objects = listed.lines().map(str::to_owned).collect();
        Ok(Patched {
            vmlinux: entry.join("vmlinux"),
            vmlinux_o: entry.join("vmlinux.o"),
            objects: Pair { old: entry.join("old"), new: entry.join("new"), objects },
        })
    }

    /// The `O=` folder builds go on in.
    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Changes the source, does `what`, and brings source and work folder back to what they were, also when it fails. The
    /// kernel has to be locked.
    pub(super) fn changed_for_a_while<T>(&self, change: &Change, what: impl FnOnce() -> Result<T>) -> Result<T> {
        self.clean_up()?;
        let paths: String = change.files().map(|(path, _)| format!("{path}\n")).collect();
        cache::write_atomic(&self.root.join("dirty"), paths.as_bytes())?;
        let done = (|| {
            for (path, content) in change.files() {
                // As a new file: the old one is that of the stock source as well.
                cache::write_atomic(&self.source.join(path), content)?;
            }
            what()
        })();
        let cleaned = self.clean_up();
        let done = done?;
        cleaned.map(|()| done)
    }

    /// Brings back source and work folder after a build that changed them, or was interrupted. The kernel has to be locked.
    pub(super) fn clean_up(&self) -> Result<()> {
        let dirty = self.root.join("dirty");
        let Ok(paths) = fs::read_to_string(&dirty) else { return Ok(()) };
        for path in paths.lines() {
            let (stock, mine) = (self.stock_source.join(path), self.source.join(path));
            folder::remove(&mine)?;
            if stock.exists() {
                folder::bring(&stock, &mine, How::Link)?;
            }
        }
        folder::restore(&self.build, &self.work(), how_back)?;
        fs::remove_file(&dirty).with_context(|| format!("remove {}", dirty.display()))
    }

    /// Half of the work of a small change is make walking through all folders: where only objects of their own change, they
    /// are made by name, and the link is told that they did.
    fn make_vmlinux(&self, change: &Change) -> Result<()> {
        let work = self.work();
        let make = |what: &[&str]| make(self.variant, &self.source, &work, what);
        let objects: Option<Vec<String>> = change.files().map(|(path, _)| self.object_of(path)).collect();
        let Some(objects) = objects.filter(|o| !o.is_empty()) else { return make(&["vmlinux"]) };
        make(&objects.iter().map(String::as_str).collect::<Vec<_>>())?;
        // The archives are thin: they hold names of objects, and which those are is as it was.
        let archive = fs::File::options().write(true).open(work.join("vmlinux.a")).context("vmlinux.a")?;
        archive.set_modified(SystemTime::now()).context("date vmlinux.a")?;
        make(&["vmlinux", "build-dirs="])
    }

    /// The object a source file alone becomes; not for libraries, which have a table of symbols, nor for what others include.
    fn object_of(&self, source: &str) -> Option<String> {
        let object = format!("{}.o", source.strip_suffix(".c")?);
        let of_library = source.split('/').any(|folder| folder == "lib");
        (!of_library && self.build.join(&object).exists()).then_some(object)
    }

    /// Copies out what the build in the work folder made.
    fn collect(&self, dir: &Path) -> Result<()> {
        let work = self.work();
        let linked = cmd::output(cmd::command("ar").args(["t", "vmlinux.a"]).current_dir(&work))?;
        let linked: BTreeSet<&Path> = linked.lines().map(|l| Path::new(l.trim_start_matches("./"))).collect();
        let mut objects = String::new();
        for path in folder::changed(&self.build, &work)?.iter().filter(|p| linked.contains(p.as_path())) {
            let (old, new) = (self.build.join(path), work.join(path));
            // An object only one of the two kernels has is in the linked kernels; there is no pair of it.
            if !old.exists() || !new.exists() || fs::read(&old)? == fs::read(&new)? {
                continue;
            }
            for (from, side) in [(old, "old"), (new, "new")] {
                let to = dir.join(side).join(path);
                fs::create_dir_all(to.parent().context("an object is in a folder")?)?;
                fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            }
            objects += &format!("{}\n", path.display());
        }
        for side in ["old", "new"] {
            fs::create_dir_all(dir.join(side))?;
        }
        fs::write(dir.join("objects"), objects)?;
        // The work folder gets the old one back anyhow.
        fs::rename(work.join("vmlinux"), dir.join("vmlinux")).context("keep vmlinux")?;
        let mut strip = cmd::command("objcopy");
        strip.arg("--strip-debug").arg(work.join("vmlinux.o")).arg(dir.join("vmlinux.o"));
        cmd::output(&mut strip).map(drop)
    }
}

/// What the linker writes is large, and the linker replaces its output instead of writing into it (bfd_open_file); tools
/// that work on objects, and the shell, do not.
fn how_back(path: &Path) -> How {
    let outputs =
        ["vmlinux", "vmlinux.o", ".tmp_vmlinux.kallsyms1", ".tmp_vmlinux.kallsyms2", ".tmp_vmlinux.kallsyms3"];
    if outputs.iter().any(|o| path == Path::new(o)) { How::Link } else { How::Copy }
}
