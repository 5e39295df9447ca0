//! `cargo xtask demo`: a fix becomes a module, goes into a stock kernel in a VM, and out again.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use harness::module::Maker;
use harness::{cmd, workspace_root};

/// The example run when none is named.
const FIRST: &str = "01-proc-cmdline";

pub fn task(args: &[String]) -> Result<()> {
    let name = args.first().map_or(FIRST, String::as_str);
    harness::progress(format!("demo {name}: kernel and build folder, lpbuild, the module, then a VM that loads it"));
    let example = workspace_root().join("examples").join(name);
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    harness::progress(format!("lpbuild build of {}", example.display()));
    let module = Maker { lpbuild: &lpbuild, kernel: &kernel, tree: &tree }.example(&example)?;
    print!("{}", module.report);
    let show = example.join("show.sh");
    ensure!(show.is_file(), "an example has a show.sh that shows its effect");
    let log = workspace_root().join("target/vm/demo.log");
    fs::create_dir_all(workspace_root().join("target/vm"))?;
    let mut trial = Command::new(&lpbuild);
    trial.arg("try").arg(&module.ko).arg("--image").arg(&kernel.vmlinuz).arg("--strict");
    trial.arg("--script").arg(&show).arg("--log").arg(&log);
    println!("{}", cmd::describe(&trial));
    if !trial.status().with_context(|| format!("start {}", lpbuild.display()))?.success() {
        bail!("the trial failed; log: {}", log.display());
    }
    Ok(())
}
