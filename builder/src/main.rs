//! `lpbuild`: the command line.

mod cli;
mod memory;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::host::{InspectArgs, LoadArgs, StatusArgs, UnloadArgs};
use cli::terminal;
use lpbuild::codes;
use lpbuild::error::{Error, Place, Result};
use lpbuild::host::{Host, PRICE_OF_FORCE};

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
    Build(Box<cli::build::BuildArgs>),
    Init(cli::init::InitArgs),
    Diff(cli::diff::DiffArgs),
    /// Make a kernel module of a patch folder; --kernel binds a symbolic one first.
    Pack(cli::pack::PackArgs),
    Try(cli::trial::TryArgs),
    /// Apply a patch on this host: check that it fits, insert the module, say how it went.
    Load(LoadArgs),
    /// Revert a patch on this host and remove its module.
    Unload(UnloadArgs),
    /// List the patches of this host, their functions and who blocks them.
    Status(StatusArgs),
    /// Show what a module would do: manifest, sites with disassembly, module information.
    Inspect(InspectArgs),
    Cache(cli::cache::CacheArgs),
    Why(cli::why::WhyArgs),
    /// Print lpbuild.h, which the source of a patch may include: lpbuild build finds it by itself.
    Header,
    Explain(cli::ExplainArgs),
}

impl Command {
    /// Whether a failure is to be printed as JSON here; the commands on the target print their own, with blockers.
    fn json(&self) -> bool {
        match self {
            Command::Build(args) => args.json,
            Command::Cache(args) => args.json,
            Command::Diff(args) => args.json,
            Command::Pack(args) => args.json,
            Command::Try(args) => args.json,
            Command::Why(args) => args.json,
            Command::Explain(args) => args.json,
            Command::Init(_)
            | Command::Load(_)
            | Command::Unload(_)
            | Command::Status(_)
            | Command::Inspect(_)
            | Command::Header => false,
        }
    }
}

fn main() -> ExitCode {
    memory::start();
    let cli = Cli::try_parse().unwrap_or_else(|e| {
        if e.use_stderr() && std::env::args_os().any(|a| a == "--json") {
            let what = e.render().to_string();
            let what = what.trim_start_matches("error: ").trim_end();
            let error = Error::new(codes::LP1104, Place::object("the command line"), what);
            // What is wrong is said below in any case.
            let _ = terminal::failure_json(&error);
        }
        e.exit()
    });
    match run(&cli) {
        Ok(code) => code,
        Err(e) => {
            if cli.command.json() {
                // What is wrong is said below in any case.
                let _ = terminal::failure_json(&e);
            }
            terminal::problems(&e);
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let host = Host::running();
    let out = &mut anstream::stdout();
    let done = |()| ExitCode::SUCCESS;
    if matches!(
        &cli.command,
        Command::Load(LoadArgs { force: true, .. }) | Command::Unload(UnloadArgs { force: true, .. })
    ) {
        terminal::note(PRICE_OF_FORCE);
    }
    match &cli.command {
        Command::Build(args) => cli::build::run(args),
        Command::Init(args) => cli::init::run(args, &host),
        Command::Diff(args) => cli::diff::run(args),
        Command::Pack(args) => cli::pack::run(args),
        Command::Try(args) => cli::trial::run(args),
        Command::Load(args) => args.run(&host, out).map(done),
        Command::Unload(args) => args.run(&host, out).map(done),
        Command::Status(args) => args.run(&host, out).map(done),
        Command::Inspect(args) => args.run(out).map(done),
        Command::Cache(args) => cli::cache::run(args),
        Command::Why(args) => cli::why::run(args),
        Command::Header => cli::header(),
        Command::Explain(args) => cli::explain(args),
    }
}
