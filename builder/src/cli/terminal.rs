//! What every command prints, and where: results on stdout, progress and diagnostics on stderr; colour only on a terminal
//! and not with NO_COLOR; with `--json` one object on stdout, also when the command fails.

use std::io::{self, Write};
use std::process::ExitCode;

use lpbuild::error::{Error, Place, Problem, Result};
use lpbuild::flow::Verdict;
use lpbuild::plan::manifest::Jump;
use lpbuild::report::Report;
use lpbuild::style::{BAD, DIM, HEAD, NOTE};
use serde::Serialize;

use super::{EXIT_BROKEN, EXIT_NOTHING, EXIT_REFUSED};

/// Columns of a stream that is no terminal.
const WIDTH: usize = 120;

/// Writes a result to stdout. A reader that has gone away is no error: it has seen what it wanted.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io_at(Place::object("standard output"), &e)),
        _ => Ok(()),
    }
}

/// Writes one JSON object to stdout.
pub fn json(value: &impl Serialize) -> Result<()> {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// The object of a command that failed before it had anything to report.
pub fn failure_json(error: &Error) -> Result<()> {
    #[derive(Serialize)]
    struct Failure<'a> {
        refused: &'a [Problem],
    }
    json(&Failure { refused: &error.problems })
}

/// Says on stderr what is being done.
pub fn progress(text: &str) {
    to_stderr(format_args!("{DIM}{text}{DIM:#}"));
}

/// Says on stderr what speaks against it. `word` is `error` or `refused`.
pub fn problem(word: &str, problem: &Problem) {
    let Problem { code, place, detail, accept } = problem;
    let mut text = format!("{BAD}{word}[{}]:{BAD:#} {HEAD}{}{HEAD:#}\n", code.id, code.title);
    let place = place.to_string();
    if !place.is_empty() {
        text.push_str(&format!("{DIM}  -->{DIM:#} {place}\n"));
    }
    for line in detail.trim_end_matches('\n').lines() {
        text.push_str(&format!("{DIM}   |{DIM:#} {line}\n"));
    }
    text.push_str(&format!("{NOTE}help:{NOTE:#} {}", code.advice));
    if let Some(accept) = accept {
        text.push_str(&format!("\n{NOTE}help:{NOTE:#} or answer for it: {accept}"));
    }
    to_stderr(format_args!("{text}"));
}

/// Every problem of an error.
pub fn problems(error: &Error) {
    let word = if error.exit_code() == EXIT_BROKEN { "error" } else { "refused" };
    for p in &error.problems {
        problem(word, p);
    }
}

/// Says on stderr what is worth knowing.
pub fn note(text: &str) {
    to_stderr(format_args!("{NOTE}{text}{NOTE:#}"));
}

/// Says what the author accepts without need: what it was for is gone, or the name is misspelt.
fn unneeded(names: &[String]) {
    for name in names {
        note(&format!("accepted without need: nothing is refused under {name}"));
    }
}

/// Says in one line what was compared without debug information.
fn untyped(objects: &[String]) {
    let (Some(first), more) = (objects.first(), objects.len().saturating_sub(1)) else { return };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    note(&format!("types were not compared: no debug information in both builds of {first}{more} (compile with -g)"));
}

/// Says what the long form of jump costs: no retpoline guards it (Documentation/admin-guide/hw-vuln/spectre.rst).
fn jumps(jump: Jump) {
    if jump == Jump::Abs64 {
        note(
            "an abs64 jump is indirect and no retpoline guards it; where spectre_v2 is mitigated by retpolines, use rel32",
        );
    }
}

/// Says on stderr what is to be known of a report and how it ended; the exit code of that. `nothing`: what did not differ.
pub fn conclude(verdict: Verdict, report: &Report, jump: Jump, nothing: impl FnOnce() -> String) -> Result<ExitCode> {
    unneeded(&report.unneeded);
    for mark in &report.marked_without_need {
        note(&format!("marked as given back without need: the patch gives nobody the address of {mark}"));
    }
    untyped(&report.types_not_compared);
    jumps(jump);
    for refused in &report.refused {
        problem("refused", refused);
    }
    Ok(match verdict {
        Verdict::Patch => ExitCode::SUCCESS,
        Verdict::Refused => ExitCode::from(EXIT_REFUSED),
        Verdict::Nothing => {
            note(&format!("nothing changed: {}", nothing()));
            ExitCode::from(EXIT_NOTHING)
        }
    })
}

fn to_stderr(text: std::fmt::Arguments<'_>) {
    // There is nowhere left to complain about a closed stderr.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Columns of the terminal on stdout.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|s| usize::from(s.ws_col));
    size.filter(|w| *w > 0).unwrap_or(WIDTH)
}
