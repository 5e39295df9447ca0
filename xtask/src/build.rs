//! The static `lpbuild` binary with the in-kernel runtime inside.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use harness::{guest, workspace_root};

/// Tells the builder's build which runtime object to embed.
const RUNTIME_ENV: &str = "LPBUILD_RUNTIME_OBJ";

pub fn task(_: &[String]) -> Result<()> {
    println!("{}", lpbuild()?.display());
    Ok(())
}

pub fn runtime_task(_: &[String]) -> Result<()> {
    match runtime_object()? {
        Some(object) => println!("{}", object.display()),
        None => bail!("the runtime is not part of this checkout yet"),
    }
    Ok(())
}

/// Compiles the runtime; nothing while there is none to compile.
fn runtime_object() -> Result<Option<PathBuf>> {
    Ok(None)
}

/// Builds `target/static/.../lpbuild`.
pub fn lpbuild() -> Result<PathBuf> {
    let runtime = runtime_object()?;
    harness::progress("building the static lpbuild");
    let env: Vec<(&str, &OsStr)> = runtime.iter().map(|r| (RUNTIME_ENV, r.as_os_str())).collect();
    let binary = guest::static_build("lpbuild", &workspace_root().join("target/static"), &env)?.join("lpbuild");
    binary.exists().then_some(binary).context("cargo built no lpbuild binary")
}
