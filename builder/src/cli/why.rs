//! `lpbuild why SYMBOL DIR|KO`: what was decided about a symbol, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use lpbuild::codes;
use lpbuild::error::{Error, Place, Result};
use lpbuild::explain::{Answer, Explanation, Standing};
use lpbuild::flow::folder;
use lpbuild::host::ModuleFile;

use super::{EXIT_NOTHING, terminal};

/// Say why a function or variable is in a patch: how it was matched, where it differs, what brought it, how it is bound, and
/// which rule chose the place of its jump.
///
/// Exit codes: 0 it is in the patch, or the patch refers to it; 3 it is not: it is the same, or differs in what has no meaning; 1 nothing
/// of this name is known.
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// A function or variable; `path/file.o:NAME` for that of one object.
    symbol: String,
    /// The output folder of diff or build, or a module made by lpbuild.
    #[arg(value_name = "DIR|KO")]
    patch: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &WhyArgs) -> Result<ExitCode> {
    let explanation = match args.patch.is_dir() {
        true => folder::explanation(&args.patch)?,
        false => ModuleFile::open(&args.patch)?.explanation()?,
    };
    let answer = explanation.answer(&args.symbol);
    if answer.known == Standing::No {
        let place = Place::symbol(args.patch.display().to_string(), &args.symbol);
        return Err(Error::new(codes::LP1111, place, unknown(&answer, &explanation)));
    }
    if args.json {
        terminal::json(&answer)?;
    } else {
        terminal::print(|out| write!(out, "{}", answer.text()))?;
    }
    if explanation.without_record {
        terminal::note("it was packed without why.json: how symbols were matched and where they differ is not known");
    }
    Ok(match answer.known {
        Standing::InPatch | Standing::ReferredTo | Standing::No => ExitCode::SUCCESS,
        Standing::Ignored | Standing::Same => ExitCode::from(EXIT_NOTHING),
    })
}

/// The patch has nothing of this name; if functions that are the same were not listed, it may be one of them.
fn unknown(answer: &Answer, explanation: &Explanation) -> String {
    let mut what = match explanation.record.same_not_listed {
        true => "it is not in the patch, and which functions are the same was not kept".to_owned(),
        false => "nothing of the compared objects has this name".to_owned(),
    };
    if !answer.near.is_empty() {
        what.push_str(&format!("; near names: {}", answer.near.join(", ")));
    }
    what
}
