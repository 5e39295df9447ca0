//! Formatting, lints, and what continuous integration runs.

use std::process::Command;

use anyhow::{Result, bail};
use harness::{cmd, workspace_root};

pub fn fmt(_: &[String]) -> Result<()> {
    cargo(&["fmt", "--all"])
}

pub fn lint(_: &[String]) -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // What is compiled for the kernel alone (`runtime.rs`), by the compiler of the workspace: types and lints do not depend on
    // the target.
    cargo(&["clippy", "--package", "lpbuild-runtime", "--lib", "--", "-D", "warnings", "--cfg", "lpbuild_kernel"])
}

pub fn ci(_: &[String]) -> Result<()> {
    lint(&[])?;
    crate::test::task(&[])
}

fn cargo(args: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut c = Command::new(program);
    c.args(args).current_dir(workspace_root());
    // Stands for the hash that `runtime.rs` makes.
    c.env("LPBUILD_RUNTIME", "0123456789abcdef");
    if !c.status()?.success() {
        bail!("`{}` failed", cmd::describe(&c));
    }
    Ok(())
}
