//! `lpbuild load`, `unload`, `status`, `inspect`: what they are told, and what they print.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use lpbuild::error::Result;
use lpbuild::host::{Failure, Host, LoadOptions, UnloadOptions, finish, inspect, load, status, unload};
use lpbuild_abi::Mode;

/// `lpbuild load`
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// The module lpbuild made.
    pub module: PathBuf,
    /// How the switch is made: all at one instant with no task inside (stop-machine), every new call at once (drain), or
    /// task by task (transition) [default: as packed].
    #[arg(long, value_name = "MODE", value_parser = mode())]
    pub mode: Option<Mode>,
    /// Give up after so many milliseconds when tasks stay inside the functions to replace; with drain, stop waiting for the
    /// last of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub deadline_ms: Option<u32>,
    /// With transition: wait so many milliseconds before tasks that sleep in system calls are disturbed, as by a signal
    /// [default: as packed].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub patience_ms: Option<u32>,
    /// Check everything and list all that stands against it, tasks included; apply nothing. Exit code 0: it would be
    /// applied now.
    #[arg(long)]
    pub dry_run: bool,
    /// With transition: when the deadline has passed, switch the tasks that are left where they stand, instead of giving up.
    /// A call of one of them can then run old and new code mixed.
    #[arg(long, conflicts_with = "dry_run")]
    pub force: bool,
    /// Keep the patch until the next boot: it is never reverted.
    #[arg(long)]
    pub oneshot: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild unload`
#[derive(Clone, Debug, clap::Args)]
pub struct UnloadArgs {
    /// Name of the patch, as `lpbuild status` shows it.
    pub name: String,
    /// How the old code comes back: all at one instant (stop-machine), every new call at once (drain), or task by task
    /// (transition) [default: as it was applied].
    #[arg(long, value_name = "MODE", value_parser = mode())]
    pub mode: Option<Mode>,
    /// Give up after so many milliseconds when tasks stay inside the new functions. With drain only the waiting ends: the
    /// revert goes on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub deadline_ms: Option<u32>,
    /// With transition: wait so many milliseconds before tasks that sleep in system calls are disturbed, as by a signal
    /// [default: as packed, or as loaded].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub patience_ms: Option<u32>,
    /// With transition: when the deadline has passed, switch the tasks that are left back where they stand. One of them can
    /// then run old and new code mixed.
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild status`
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Only this patch.
    pub name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `lpbuild inspect`
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// The module lpbuild made.
    pub module: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl LoadArgs {
    /// Loads the module and reports.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        let (mode, deadline_ms, patience_ms) = (self.mode, self.deadline_ms, self.patience_ms);
        let (dry_run, force, oneshot) = (self.dry_run, self.force, self.oneshot);
        let options = LoadOptions { mode, deadline_ms, patience_ms, dry_run, force, oneshot };
        finish(load(host, &self.module, &options), self.json, out)
    }
}

impl UnloadArgs {
    /// Reverts and removes the patch and reports.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        let (mode, deadline_ms, patience_ms, force) = (self.mode, self.deadline_ms, self.patience_ms, self.force);
        finish(unload(host, &self.name, &UnloadOptions { mode, deadline_ms, patience_ms, force }), self.json, out)
    }
}

impl StatusArgs {
    /// Reports every patch, or one.
    pub fn run(&self, host: &Host, out: &mut dyn Write) -> Result<()> {
        finish(status(host, self.name.as_deref()).map_err(Failure::from), self.json, out)
    }
}

impl InspectArgs {
    /// Reports what a module would do.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        finish(inspect(&self.module).map_err(Failure::from), self.json, out)
    }
}

/// The modes by their names.
fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::name))
        .try_map(|name| Mode::ALL.into_iter().find(|m| m.name() == name).ok_or("no such mode"))
}
