//! Running programs: an error names the program, its arguments, its exit status and the end of what it wrote.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command in the C locale, without the make and compiler variables of the caller: what is built must not depend on them.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.env("LC_ALL", "C").stdin(Stdio::null());
    for name in ["MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS", "MAKELEVEL", "KCFLAGS", "KAFLAGS", "CFLAGS", "LDFLAGS"] {
        c.env_remove(name);
    }
    for name in ["ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT", "LOCALVERSION", "O", "V", "W"] {
        c.env_remove(name);
    }
    c
}

/// Runs to the end and returns what it wrote to stdout; a failure carries the last lines of both streams.
pub fn output(c: &mut Command) -> Result<String> {
    let name = describe(c);
    let out = c.output().with_context(|| format!("cannot start `{name}`"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("`{name}` failed ({})\n{}{}", out.status, tail(&stdout, 20), tail(&stderr, 40));
    }
    Ok(stdout)
}

/// Like [`output`] in a folder, for a program and plain arguments.
pub fn run_in(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    output(command(program).args(args).current_dir(dir))
}

/// The command line as a reader would type it.
pub fn describe(c: &Command) -> String {
    let mut text = c.get_program().to_string_lossy().into_owned();
    for a in c.get_args() {
        text.push(' ');
        text.push_str(&a.to_string_lossy());
    }
    text
}

/// The last `n` lines, each ended by a newline.
pub fn tail(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| format!("{l}\n")).collect()
}

/// Whether a program is found in PATH.
pub fn found(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).is_file()))
}
