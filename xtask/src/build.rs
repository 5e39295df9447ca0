//! The static `lpbuild` binary with the in-kernel runtime inside.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::{cmd, guest, workspace_root};

/// Tells the builder's build which runtime object to embed.
const RUNTIME_ENV: &str = "LPBUILD_RUNTIME_OBJ";

pub fn task(_: &[String]) -> Result<()> {
    println!("{}", lpbuild()?.display());
    Ok(())
}

pub fn runtime_task(_: &[String]) -> Result<()> {
    println!("{}", crate::runtime::build()?.display());
    Ok(())
}

/// Builds `target/static/bin/lpbuild`.
pub fn lpbuild() -> Result<PathBuf> {
    if let Some(finished) = std::env::var_os("LPBUILD_BIN") {
        return Ok(finished.into());
    }
    let runtime = crate::runtime::build()?;
    harness::progress("building the static lpbuild");
    let env = [(RUNTIME_ENV, runtime.as_os_str())];
    let target = workspace_root().join("target/static");
    let binary = guest::static_build("lpbuild", &target, &env)?.join("lpbuild");
    anyhow::ensure!(binary.exists(), "cargo built no lpbuild binary");
    ship(&binary, &target.join("bin"))
}

/// The program as it is handed out: without debug information, a sixth of the size; that lies beside it and is found by its
/// `.gnu_debuglink` (objcopy(1)).
fn ship(built: &Path, dir: &Path) -> Result<PathBuf> {
    let (program, debug) = (dir.join("lpbuild"), dir.join("lpbuild.debug"));
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if changed(&program).zip(changed(built)).is_some_and(|(shipped, built)| shipped >= built) && debug.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    cmd::output(cmd::command("objcopy").arg("--only-keep-debug").arg(built).arg(&debug))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let new = dir.join("lpbuild.new");
    cmd::output(cmd::command("objcopy").args(["--strip-all", &link]).arg(built).arg(&new))?;
    std::fs::rename(&new, &program).with_context(|| format!("replace {}", program.display()))?;
    Ok(program)
}
