//! The command line.

pub mod build;
pub mod cache;
pub mod diff;
pub mod folder;
pub mod init;
pub mod pack;
pub mod progress;
pub mod savedir;
pub mod sources;

use std::process::ExitCode;

use lpbuild::codes;
use lpbuild::error::{Error, Place, Result};

/// Malformed input, I/O or a bug.
pub const EXIT_BROKEN: u8 = 1;
/// The two builds do not differ.
pub const EXIT_NOTHING: u8 = 3;
/// Understood, and cannot be live-patched.
pub const EXIT_REFUSED: u8 = 4;

/// Explain a code of the form LPnnnn; without one, list them all.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The code, as errors print it.
    code: Option<String>,
}

/// Runs `lpbuild explain`.
pub fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    let Some(id) = &args.code else {
        for c in codes::all() {
            println!("{}  {}", c.id, c.title);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(code) = codes::find(id) else {
        return Err(Error::new("LP1102", Place::default(), format!("there is no code {id}")));
    };
    let class = match code.class {
        codes::Class::Broken => "broken (exit 1)",
        codes::Class::Refused => "refused (exit 4)",
    };
    println!("{}: {}\n{class}\n\n{}\n\nWhat to do: {}.", code.id, code.title, code.why, code.advice);
    Ok(ExitCode::SUCCESS)
}
