//! `cargo xtask demo`: a fix becomes a module, goes into a stock kernel in a VM, and out again.
//!
//! Also the one place that runs `lpbuild diff` and `lpbuild pack` on an example, for demo and bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::change::Change;
use harness::kernels::Kernel;
use harness::tree::{Flags, Tree};
use harness::vm::Vm;
use harness::{cmd, workspace_root};

/// The example run when none is named.
const FIRST: &str = "01-proc-cmdline";

/// An example's module.
#[derive(Debug)]
pub struct Module {
    /// Name of the patch, from its manifest.
    pub name: String,
    /// The module.
    pub ko: PathBuf,
}

pub fn task(args: &[String]) -> Result<()> {
    let example = workspace_root().join("examples").join(args.first().map_or(FIRST, String::as_str));
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    let module = module(&example, &kernel, &tree, &lpbuild)?;
    let show = fs::read_to_string(example.join("show.sh")).context("an example has a show.sh that shows its effect")?;
    let script = format!(
        "before=$(sh /show.sh); step before; echo \"$before\"\n\
         step load; lpbuild load /patch.ko; lpbuild status\n\
         during=$(sh /show.sh); step 'with the fix'; echo \"$during\"\n\
         step unload; lpbuild unload {name}; lpbuild status\n\
         after=$(sh /show.sh); step after; echo \"$after\"\n\
         [ \"$before\" != \"$during\" ] || fail 'the fix has no effect'\n\
         expect 'after unload' \"$before\" \"$after\"\n",
        name = module.name
    );
    println!("booting {} and loading {}", kernel.release, module.ko.display());
    let run = Vm::new("demo", &kernel)
        .file("/bin/lpbuild", &lpbuild)
        .file("/patch.ko", &module.ko)
        .text("/show.sh", &show)
        .case(&script)
        .run()?;
    for line in &run.transcript.case {
        println!("  {line}");
    }
    run.require_pass()?;
    println!("done in {:.1} s; log: {}", run.took.as_secs_f64(), run.log.display());
    Ok(())
}

/// Builds the objects of an example with and without its fix, and the module from them.
pub fn module(example: &Path, kernel: &Kernel, tree: &Tree, lpbuild: &Path) -> Result<Module> {
    let patch = fs::read_to_string(example.join("fix.patch")).with_context(|| format!("{}", example.display()))?;
    let change = Change::from_patch(&tree.source, &patch)?;
    let pair = tree.pair(&change, Flags::Plain)?;
    let name = example.file_name().context("an example is a folder")?;
    let out = workspace_root().join("target/examples").join(name);
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let mut diff = cmd::command(lpbuild);
    diff.arg("diff").args([&pair.old, &pair.new]).arg("--kernel").arg(&kernel.vmlinuz).arg("-o").arg(&out);
    diff.args(patch_options(example)?);
    print!("{}", cmd::output(&mut diff)?);
    let manifest = fs::read_to_string(out.join("manifest.toml")).context("lpbuild diff left no manifest")?;
    let manifest: toml::Table = manifest.parse().context("manifest.toml")?;
    let name = manifest.get("patch").and_then(|p| p.get("name")).and_then(toml::Value::as_str);
    let name = name.context("the manifest has no patch.name")?.to_string();
    let ko = out.join(format!("{name}.ko"));
    let mut pack = cmd::command(lpbuild);
    pack.arg("pack").arg(&out).arg("--headers").arg(&kernel.headers).arg("-o").arg(&ko);
    print!("{}", cmd::output(&mut pack)?);
    Ok(Module { name, ko })
}

/// The `[patch]` table of an example's livepatch.toml as options of `lpbuild diff`; an example may do without.
fn patch_options(example: &Path) -> Result<Vec<String>> {
    let path = example.join("livepatch.toml");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let toml: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let patch = toml.get("patch").and_then(toml::Value::as_table).context("livepatch.toml has no [patch]")?;
    let mut options = Vec::new();
    for (key, option) in [("name", "--name"), ("version", "--patch-version"), ("deadline-ms", "--deadline-ms")] {
        if let Some(value) = patch.get(key) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            options.extend([option.to_string(), value]);
        }
    }
    Ok(options)
}
