//! The command line.

pub mod build;
pub mod cache;
pub mod diff;
pub mod host;
pub mod init;
pub mod pack;
pub mod progress;
pub mod report;
pub mod terminal;
pub mod trial;
pub mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use lpbuild::bind;
use lpbuild::codes::{self, Code};
use lpbuild::error::{Error, Place, Result};
use lpbuild::kernel::KernelImage;
use lpbuild::style::HEAD;
use serde::Serialize;

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
    /// List instead what of a kernel cannot be replaced, and why: a vmlinux or vmlinuz.
    #[arg(long, value_name = "IMAGE", conflicts_with = "code")]
    unpatchable: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs `lpbuild explain`.
pub fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct List {
        codes: Vec<&'static Code>,
    }
    if let Some(image) = &args.unpatchable {
        return unpatchable(&KernelImage::open(image)?, args.json);
    }
    let found = match &args.code {
        None => codes::all().collect(),
        Some(id) => match codes::find(id) {
            Some(code) => vec![code],
            None => return Err(Error::new(codes::LP1102, Place::default(), format!("there is no code {id}"))),
        },
    };
    match (args.json, found.as_slice()) {
        (true, _) => terminal::json(&List { codes: found })?,
        (false, [c]) => terminal::print(|out| {
            let class = match c.class {
                codes::Severity::Broken => "broken (exit 1)",
                codes::Severity::Refused => "refused (exit 4)",
            };
            writeln!(out, "{HEAD}{}: {}{HEAD:#}\n{class}\n\n{}\n\nWhat to do: {}.", c.id, c.title, c.why, c.advice)
        })?,
        (false, list) => terminal::print(|out| list.iter().try_for_each(|c| writeln!(out, "{}  {}", c.id, c.title)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `lpbuild header`.
pub fn header() -> Result<ExitCode> {
    terminal::print(|out| write!(out, "{}", lpbuild::source::authors::HEADER))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists what must not be replaced.
fn unpatchable(kernel: &KernelImage, json: bool) -> Result<ExitCode> {
    #[derive(Serialize)]
    struct Entry<'a> {
        symbol: &'a str,
        /// At link time.
        address: u64,
        why: &'a str,
    }
    #[derive(Serialize)]
    struct List<'a> {
        release: &'a str,
        unpatchable: Vec<Entry<'a>>,
    }
    let all = bind::unpatchable(kernel)?;
    if json {
        let entry = all.iter().map(|u| Entry { symbol: &u.name, address: u.address, why: &u.why });
        let list = List { release: kernel.release(), unpatchable: entry.collect() };
        terminal::json(&list)?;
    } else {
        terminal::print(|out| all.iter().try_for_each(|u| writeln!(out, "{:#x} {}: {}", u.address, u.name, u.why)))?;
    }
    Ok(ExitCode::SUCCESS)
}
