//! A change to the kernel's source as a loadable module: objects, `lpbuild diff`, `lpbuild pack`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::change::Change;
use crate::kernels::Kernel;
use crate::tree::{Flags, Pair, Tree};
use crate::{cache, cmd, workspace_root};

/// Names a run of all tests in their environment: within one, a module is made once, however many processes use it.
pub const RUN: &str = "LPBUILD_RUN";

/// Among the options of a module: calls that can fail can be made to (`fail_call`).
pub const TEST_HOOKS: &str = "--test-hooks";

/// A finished module.
#[derive(Clone, Debug)]
pub struct Module {
    /// Name of the patch and of the module.
    pub name: String,
    /// The folder `lpbuild diff` wrote: patch.o and manifest.toml.
    pub dir: PathBuf,
    /// The module.
    pub ko: PathBuf,
    /// What `lpbuild diff` and `lpbuild pack` printed.
    pub report: String,
}

/// What a module is made with.
#[derive(Clone, Copy, Debug)]
pub struct Maker<'a> {
    /// The static binary.
    pub lpbuild: &'a Path,
    /// The kernel it is for.
    pub kernel: &'a Kernel,
    /// Its prepared tree.
    pub tree: &'a Tree,
}

impl Maker<'_> {
    /// Compiles old and new objects of `change` with plain flags, compares, binds and packs them.
    pub fn make(&self, name: &str, change: &Change) -> Result<Module> {
        self.make_of(name, &self.tree.pair(change, Flags::Plain)?, &[])
    }

    /// The same from finished objects, with more options for `lpbuild diff`. The result is in `target/modules/NAME-KEY`.
    pub fn make_of(&self, name: &str, pair: &Pair, options: &[String]) -> Result<Module> {
        self.make_in(name, name, pair, options)
    }

    /// The same in `target/modules/FOLDER-KEY`, for modules of one name.
    pub fn make_in(&self, folder: &str, name: &str, pair: &Pair, options: &[String]) -> Result<Module> {
        let objects = format!("{} {}", pair.new.display(), pair.objects.join(" "));
        let inputs = [&[name.to_owned(), objects], options].concat();
        once(folder, name, &inputs, |dir, ko| {
            let of_pack = |o: &&String| *o == TEST_HOOKS;
            let options_of_diff = options.iter().filter(|o| !of_pack(o));
            let mut report = cmd::output(self.diff(pair, dir).args(["--name", name]).args(options_of_diff))?;
            let mut pack = cmd::command(self.lpbuild);
            pack.arg("pack")
                .args(options.iter().filter(of_pack))
                .arg(dir)
                .arg("--headers")
                .arg(&self.kernel.headers)
                .arg("-o")
                .arg(ko);
            report += &cmd::output(&mut pack)?;
            Ok(report)
        })
    }

    /// `lpbuild diff OLD NEW --kernel IMAGE -o DIR`, not yet started; for cases that expect a refusal.
    pub fn diff(&self, pair: &Pair, dir: &Path) -> std::process::Command {
        let mut c = cmd::command(self.lpbuild);
        c.arg("diff").args([&pair.old, &pair.new]).arg("--kernel").arg(&self.kernel.vmlinuz).arg("-o").arg(dir);
        c
    }

    /// `lpbuild build` with arguments, for this kernel, not yet started; the result goes to `dir`.
    pub fn build(&self, what: &[&Path], dir: &Path) -> std::process::Command {
        let mut c = cmd::command(self.lpbuild);
        c.arg("build").args(what).arg("-o").arg(dir).arg("--image").arg(&self.kernel.vmlinuz);
        c.arg("--headers").arg(&self.kernel.headers).arg("--source").arg(self.kernel.old_source());
        c.arg("--config").arg(&self.kernel.config);
        c
    }

    /// The module of a source patch, or of a livepatch.toml, in `target/modules/NAME-KEY`.
    pub fn make_patch(&self, name: &str, patch: &Path) -> Result<Module> {
        self.make_patch_in(name, name, patch, &[])
    }

    /// The same in `target/modules/FOLDER-KEY`, with more options.
    pub fn make_patch_in(&self, folder: &str, name: &str, patch: &Path, options: &[&str]) -> Result<Module> {
        let text = fs::read_to_string(patch).with_context(|| format!("read {}", patch.display()))?;
        let inputs = [patch.display().to_string(), text, self.kernel.release.clone()];
        let given: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let inputs = [&inputs[..], &fixes(patch)?, &given].concat();
        once(folder, name, &inputs, |dir, _| {
            cmd::output(self.build(&[patch], dir).args(["--name", name, "--keep"]).args(options))
        })
    }

    /// The module of an example, as its livepatch.toml says.
    pub fn example(&self, example: &Path) -> Result<Module> {
        let toml = example.join("livepatch.toml");
        let name = lpbuild::config::load(&toml)?.options.name;
        self.make_patch(&name, &toml)
    }
}

/// What lies beside a livepatch.toml.
fn fixes(patch: &Path) -> Result<Vec<String>> {
    let beside = patch.with_file_name("fix.patch");
    if beside == patch || !beside.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![fs::read_to_string(&beside).with_context(|| format!("read {}", beside.display()))?])
}

/// The module NAME in `target/modules/FOLDER-KEY`, where the key stands for `inputs`: tests that run side by side can use one
/// name for different modules. `make` fills the empty folder, puts the module where it is told, and returns a report. What
/// another process of this run has made is taken as it is; outside of a run everything is made again, as `lpbuild` may have
/// changed.
pub fn once(
    folder: &str,
    name: &str,
    inputs: &[String],
    make: impl FnOnce(&Path, &Path) -> Result<String>,
) -> Result<Module> {
    let mut hash = Sha256::new();
    for part in inputs {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let key: String = hash.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect();
    let folder = format!("{folder}-{key}");
    let dir = workspace_root().join("target/modules").join(&folder);
    // Not in the folder: `lpbuild build` renews that as a whole.
    let stamp = workspace_root().join("target/modules").join(format!("{folder}.made"));
    let _lock = cache::lock(&dir)?;
    let ko = dir.join(format!("{name}.ko"));
    let run = std::env::var(RUN).unwrap_or_default();
    if let Ok(text) = fs::read_to_string(&stamp)
        && let Some((of, report)) = text.split_once('\n')
        && !run.is_empty()
        && of == run
    {
        return Ok(Module { name: name.to_string(), dir, ko, report: report.to_owned() });
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let report = make(&dir, &ko)?;
    cache::write_atomic(&stamp, format!("{run}\n{report}").as_bytes())?;
    Ok(Module { name: name.to_string(), dir, ko, report })
}
