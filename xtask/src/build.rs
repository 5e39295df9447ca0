//! The static `lpbuild` binary with the in-kernel runtime inside.

use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::{guest, workspace_root};

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

/// Builds `target/static/.../lpbuild`.
pub fn lpbuild() -> Result<PathBuf> {
    if let Some(finished) = std::env::var_os("LPBUILD_BIN") {
        return Ok(finished.into());
    }
    let runtime = crate::runtime::build()?;
    harness::progress("building the static lpbuild");
    let env = [(RUNTIME_ENV, runtime.as_os_str())];
    let binary = guest::static_build("lpbuild", &workspace_root().join("target/static"), &env)?.join("lpbuild");
    binary.exists().then_some(binary).context("cargo built no lpbuild binary")
}
