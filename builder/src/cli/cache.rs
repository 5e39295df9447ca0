//! `lpbuild cache`: what is kept from build to build, and removing it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lpbuild::cache;
use lpbuild::error::{Error, Place, Result};
use lpbuild::source::tree;

use super::terminal;
use lpbuild::codes;

/// List or remove the prepared kernel trees and what was fetched for them.
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: Option<CacheCommand>,
    /// Print one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum CacheCommand {
    /// List the prepared trees and fetched kernels (what lpbuild cache does by itself).
    List,
    /// Remove entries by name; the next build makes them again.
    Remove {
        /// Names as the list shows them, or --all.
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Everything that no build is using.
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
}

/// Runs the command.
pub fn run(args: &CacheArgs) -> Result<ExitCode> {
    let entries = tree::list()?;
    match &args.command {
        None | Some(CacheCommand::List) if args.json => {
            terminal::json(&serde_json::json!({ "cache": cache::root()?, "entries": entries }))?;
        }
        None | Some(CacheCommand::List) => {
            let root = cache::root()?;
            terminal::print(|out| print(&root, &entries, out))?;
        }
        Some(CacheCommand::Remove { names, all }) => {
            for name in names {
                if !entries.iter().any(|e| e.name == *name) {
                    let what = "there is no such entry; lpbuild cache lists them";
                    return Err(Error::new(codes::LP6202, Place::object(name), what));
                }
            }
            let mut removed = Vec::new();
            for entry in entries.iter().filter(|e| *all || names.contains(&e.name)) {
                let Some(_lock) = cache::try_lock(&entry.path)? else {
                    if *all {
                        continue;
                    }
                    return Err(Error::new(codes::LP6202, Place::object(&entry.name), "a build is using it right now"));
                };
                std::fs::remove_dir_all(&entry.path).map_err(|e| Error::io(&entry.path, &e))?;
                removed.push(&entry.name);
            }
            if args.json {
                terminal::json(&serde_json::json!({ "removed": removed }))?;
            } else {
                terminal::print(|out| removed.iter().try_for_each(|name| writeln!(out, "removed {name}")))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(root: &Path, entries: &[tree::CachedTree], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "cache    {}", root.display())?;
    for e in entries {
        let mib = e.size as f64 / (1 << 20) as f64;
        let state = match (&e.stamp, e.busy) {
            (_, true) => "in use".to_owned(),
            (Some(s), _) => format!("{} for {} (build id {})", e.kind.name(), s.release, s.build_id),
            (None, _) if e.kind == tree::TreeKind::Tree => "unfinished, goes on with the next build".to_owned(),
            (None, _) => e.kind.name().to_owned(),
        };
        writeln!(out, "{:8} {:52} {mib:8.1} MiB  {state}", e.kind.name(), e.name)?;
    }
    Ok(())
}
