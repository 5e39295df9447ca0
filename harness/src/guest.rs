//! The program that is PID 1 in the VM: built statically in a target folder of its own.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

use crate::{cache, cmd, workspace_root};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names the finished program in the environment of tests that run one process each.
pub const FINISHED: &str = "LPBUILD_GUEST";

/// Builds `tests/guest` (cargo sees for itself whether anything changed) and returns the binary.
pub fn build() -> Result<PathBuf> {
    if let Some(finished) = std::env::var_os(FINISHED) {
        return Ok(finished.into());
    }
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build_now().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn build_now() -> Result<PathBuf> {
    let root = workspace_root();
    let target_dir = root.join("target/guest");
    let _lock = cache::lock(&target_dir)?;
    static_build("guest", &target_dir, &[])?;
    let binary = target_dir.join(TARGET).join("release/guest");
    binary.exists().then_some(binary).context("cargo built no guest binary")
}

/// `cargo build --release -p PACKAGE`, linked statically; returns the folder of the binaries. What cargo says is shown: it can
/// take minutes.
pub fn static_build(package: &str, target_dir: &std::path::Path, env: &[(&str, &std::ffi::OsStr)]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut c = cmd::command(cargo);
    c.args(["build", "--release", "--target", TARGET, "--package", package]);
    c.arg("--target-dir").arg(target_dir).current_dir(workspace_root());
    c.env("RUSTFLAGS", "-C target-feature=+crt-static").envs(env.iter().copied());
    let status = c.status().with_context(|| format!("cannot start `{}`", cmd::describe(&c)))?;
    ensure!(status.success(), "`{}` failed ({status})", cmd::describe(&c));
    Ok(target_dir.join(TARGET).join("release"))
}
