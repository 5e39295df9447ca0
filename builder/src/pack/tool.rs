//! Running make, sign-file and the like: without the caller's make and compiler variables, and with errors that show
//! the end of what the tool wrote.

use std::{
    env,
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::error::{Error, Place, Result};

/// Lines of a tool's output that an error shows.
const TAIL: usize = 25;

/// A command with a clean environment: only what finds programs and places temporary files is kept, so that the
/// result cannot depend on the rest.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = env::var_os(name) {
            c.env(name, value);
        }
    }
    c.env("LC_ALL", "C").env("TZ", "UTC");
    c
}

/// Runs to the end; a failure is the error `code` with the last lines of both streams.
pub(super) fn run(c: &mut Command, code: &str) -> Result<()> {
    let program = c.get_program().to_string_lossy().into_owned();
    let out =
        c.output().map_err(|e| Error::new("LP4005", Place::object(&program), format!("cannot be started: {e}")))?;
    if out.status.success() {
        return Ok(());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or(&[]).join("\n");
    Err(Error::new(code, Place::object(program), format!("{}\n{tail}\n", out.status)))
}

/// Where a program is found in PATH.
pub(super) fn find(program: &str) -> Result<PathBuf> {
    let dirs = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&dirs)
        .map(|d| d.join(program))
        .find(|p| p.is_file())
        .ok_or_else(|| Error::new("LP4005", Place::object(program), "not found in PATH"))
}
