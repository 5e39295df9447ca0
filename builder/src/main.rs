//! `lpbuild`: the command line.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lpbuild::error::Result;
use lpbuild::target::{Host, InspectArgs, LoadArgs, StatusArgs, UnloadArgs};

/// Declarative live-patch build system for x86-64 Linux.
///
/// Exit codes: 0 done, 1 broken (I/O, malformed input, bug), 2 usage, 3 nothing changed, 4 refused.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(cli::build::BuildArgs),
    Init(cli::init::InitArgs),
    Diff(cli::diff::DiffArgs),
    /// Make a kernel module of a patch folder; --kernel binds a symbolic one first.
    Pack(lpbuild::pack::PackArgs),
    /// Apply a patch on this host: check that it fits, insert the module, say how it went.
    Load(LoadArgs),
    /// Revert a patch on this host and remove its module.
    Unload(UnloadArgs),
    /// List the patches of this host, their functions and who blocks them.
    Status(StatusArgs),
    /// Show what a module would do: manifest, sites with disassembly, module information.
    Inspect(InspectArgs),
    Cache(cli::cache::CacheArgs),
    Explain(cli::ExplainArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            let word = if e.exit_code() == cli::EXIT_BROKEN { "error" } else { "refused" };
            for problem in &e.problems {
                eprintln!("{word}: {problem}");
            }
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let host = Host::running();
    let out = &mut std::io::stdout();
    let done = |()| ExitCode::SUCCESS;
    match &cli.command {
        Command::Build(args) => cli::build::run(args),
        Command::Init(args) => cli::init::run(args, &host),
        Command::Diff(args) => cli::diff::run(args),
        Command::Pack(args) => cli::pack::run(args),
        Command::Load(args) => args.run(&host, out).map(done),
        Command::Unload(args) => args.run(&host, out).map(done),
        Command::Status(args) => args.run(&host, out).map(done),
        Command::Inspect(args) => args.run(out).map(done),
        Command::Cache(args) => cli::cache::run(args),
        Command::Explain(args) => cli::explain(args),
    }
}
