//! Running make, compilers, apt, sign-file and the like: with a clean environment, with errors that show the end of what
//! the tool wrote, and with a log of every command.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::codes;
use crate::error::{Error, Place, Result};

/// Lines of a tool's output that an error shows.
const TAIL: usize = 25;

/// Commands run so far, in the order they ended; clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// One line per command: folder, command line, time and how it ended; what it wrote is indented below.
    pub fn text(&self) -> String {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        text.push('\n');
        text
    }

    /// Adds a line that is no command.
    pub fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }

    /// Runs to the end and returns stdout; a failure is the error `code` with the last lines of both streams.
    pub fn run(&self, c: &mut Command, code: &'static codes::Code) -> Result<String> {
        let program = c.get_program().to_string_lossy().into_owned();
        let interrupted = || Error::new(codes::LP6215, Place::object(&program), "a signal asked for the end");
        if crate::interrupt::requested() {
            return Err(interrupted());
        }
        let started = Instant::now();
        let out = c.output();
        let (status, stdout, stderr) = match &out {
            Ok(o) => (o.status.to_string(), String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)),
            Err(e) => (format!("cannot be started: {e}"), "".into(), "".into()),
        };
        let mut entry = format!("# {:.3} s, {status}\n{}", started.elapsed().as_secs_f64(), describe(c));
        for line in stderr.lines() {
            entry.push_str("\n    ");
            entry.push_str(line);
        }
        self.note(entry);
        let failed = match &out {
            Ok(o) if o.status.success() => return Ok(stdout.into_owned()),
            // A terminal sends the signal to the tool as well, which may notice it first.
            Ok(o) if crate::interrupt::requested() || crate::interrupt::ended(o.status) => return Err(interrupted()),
            Ok(_) => code,
            Err(_) => codes::LP4005,
        };
        let text = format!("{stdout}{stderr}");
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or(&[]).join("\n");
        Err(Error::new(failed, Place::object(program), format!("{status}\n{tail}\n")))
    }
}

/// The command as a shell would take it.
pub fn describe(c: &Command) -> String {
    let mut text = String::new();
    if let Some(dir) = c.get_current_dir() {
        text.push_str(&format!("cd {} && ", quote(&dir.to_string_lossy())));
    }
    text.push_str(&quote(&c.get_program().to_string_lossy()));
    for arg in c.get_args() {
        text.push(' ');
        text.push_str(&quote(&arg.to_string_lossy()));
    }
    text
}

/// A word as a shell takes it.
pub fn quote(arg: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_=./:+,@%".contains(&c);
    if !arg.is_empty() && arg.bytes().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', "'\\''")) }
}

/// A command with a clean environment: only what finds programs and places temporary files is kept, so that the
/// result cannot depend on the rest.
pub fn command(program: impl AsRef<OsStr>) -> Command {
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

/// Where a program is found in PATH.
pub fn find(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return if path.is_file() { Ok(path) } else { Err(missing(program)) };
    }
    let dirs = env::var_os("PATH").unwrap_or_default();
    // As a shell looks for it: what may not be executed is passed over.
    let runs = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    env::split_paths(&dirs).map(|d| d.join(program)).find(runs).ok_or_else(|| missing(program))
}

fn missing(program: &str) -> Error {
    Error::new(codes::LP4005, Place::object(program), "not found in PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_output_and_everything_is_in_the_log() {
        let log = Log::default();
        assert_eq!(log.run(command("echo").arg("it's"), codes::LP4006).unwrap(), "it's\n");
        let e = log.run(command("sh").args(["-c", "echo words >&2; exit 3"]), codes::LP4006).unwrap_err();
        assert!(e.to_string().contains("words") && e.to_string().contains("LP4006"), "{e}");
        let e = log.run(&mut command("/nonexistent/tool"), codes::LP4006).unwrap_err();
        assert!(e.to_string().contains("LP4005"), "{e}");
        let text = log.text();
        assert!(text.contains(r"echo 'it'\''s'") && text.contains("    words"), "{text}");
    }
}
