//! `lpbuild diff OLD NEW`: compares two builds and writes a patch folder.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lpbuild::accept::{self, Accept, Acceptances};
use lpbuild::error::{Error, Place, Problem, Result};
use lpbuild::explain::{Explanation, SubjectAnswer};
use lpbuild::flow::savedir::OfSource;
use lpbuild::flow::{self, Ask, Outcome, Verdict};
use lpbuild::plan::Options;
use lpbuild::plan::manifest::{Callback, Jump, Mode, check_name, check_others, is_identifier, is_line};
use lpbuild::report::Report;
use serde::Serialize;

use super::report::ReportArg;
use super::terminal;
use lpbuild::codes;

/// Compare two builds of kernel objects and describe the live patch between them.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The build that runs: a vmlinux or vmlinuz, a vmlinux.o, a module (.ko, compressed or not), an object file, or a tree with any of
    /// a vmlinux, objects and modules, which are one patch.
    pub(super) old: PathBuf,
    /// The fixed build.
    pub(super) new: PathBuf,
    /// Bind to this kernel image (vmlinux or vmlinuz): prove that the old code is what runs, and resolve every address.
    #[arg(long, value_name = "IMAGE")]
    pub(super) kernel: Option<PathBuf>,
    /// File of a module as it runs, for objects of modules: else it is in the old tree, installed or in the cache; repeatable.
    #[arg(long = "module", value_name = "FILE", requires = "kernel")]
    pub(super) modules: Vec<PathBuf>,
    /// Headers of that kernel, which say what its modules import; for modules [default: installed ones, or those in the cache].
    #[arg(long, value_name = "DIR")]
    pub(super) headers: Option<PathBuf>,
    /// Write patch.o and manifest.toml to this folder; without it only report.
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Whole images: leave debug information aside (no source lines, no comparison of types).
    #[arg(long)]
    pub(super) no_debug_info: bool,
    /// What was left out or accepted of source patches, as --save-dir of a build has written it.
    #[arg(long, hide = true, value_name = "FILE")]
    of_source: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArg,
    /// Say of each function what lpbuild why says.
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    patch: PatchArgs,
}

/// Properties of the patch.
#[derive(Debug, Clone, clap::Args)]
pub struct PatchArgs {
    /// Name of the patch and of its module: [a-z][a-z0-9_]*.
    #[arg(long, default_value = "livepatch", value_name = "NAME", value_parser = patch_name)]
    name: String,
    /// Version of the patch, free text.
    #[arg(long = "patch-version", default_value = "1", value_name = "VERSION")]
    version: String,
    /// Milliseconds after which applying or reverting gives up when the functions are busy [default: 10000, with transition
    /// 15000 more than the patience].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    deadline_ms: Option<u32>,
    /// Milliseconds before a transition disturbs tasks that sleep in user space's system calls, as by a signal.
    #[arg(long, default_value_t = lpbuild_abi::PATIENCE_MS, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    patience_ms: u32,
    /// Form of the jumps: rel32 (5 bytes) or abs64 (12 bytes, any distance).
    #[arg(long, default_value = "rel32", value_parser = ["rel32", "abs64"])]
    jump: String,
    /// When the switch is made: drain, transition or stop-machine [default: drain for one function, transition for several,
    /// stop-machine where the old code cannot be entered any more].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
    #[command(flatten)]
    more: MoreArgs,
    #[command(flatten)]
    accept: AcceptArgs,
}

/// What a patch is beside its code.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MoreArgs {
    /// What the patch is for, in one line.
    #[arg(long = "patch-description", value_name = "TEXT", value_parser = description)]
    description: Option<String>,
    /// The patch stays until the next boot: it cannot be reverted or unloaded.
    #[arg(long)]
    oneshot: bool,
    /// A patch this one may lie on top of, and must be loaded behind.
    #[arg(long, value_name = "NAME", value_parser = patch_name)]
    after: Vec<String>,
    /// A patch this one takes the place of.
    #[arg(long, value_name = "NAME", value_parser = patch_name)]
    replaces: Vec<String>,
    /// A constant of the kernel that changes in its place: its name, or path/file.o:NAME.
    #[arg(long = "data", value_name = "NAME", value_parser = constant)]
    data: Vec<String>,
    /// A function the patch adds and the module calls; KIND is pre-apply, post-apply, pre-revert or post-revert.
    #[arg(long = "callback", value_name = "KIND=FUNCTION", value_parser = callback)]
    callbacks: Vec<(Callback, String)>,
}

impl MoreArgs {
    /// Puts what was given into the place of what the options say.
    pub fn apply(&self, options: &mut Options) {
        if let Some(description) = &self.description {
            options.description.clone_from(description);
        }
        options.oneshot |= self.oneshot;
        for (given, place) in [(&self.after, &mut options.after), (&self.replaces, &mut options.replaces)] {
            if !given.is_empty() {
                place.clone_from(given);
            }
        }
        for name in &self.data {
            if !options.data.contains(name) {
                options.data.push(name.clone());
            }
        }
        for (kind, function) in &self.callbacks {
            options.callbacks.set(*kind, function.clone());
        }
    }
}

/// What the author answers for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AcceptArgs {
    /// Answer for something that would be refused; the message says its KIND and NAME: type, constant, list, signature,
    /// inline, promise, name, state or outside. Kept in the manifest.
    #[arg(long = "accept", value_name = "KIND=NAME", value_parser = accept::parse)]
    accept: Vec<(Accept, String)>,
    /// The same as --accept type=NAME.
    #[arg(long = "accept-type", value_name = "NAME", value_parser = type_name)]
    types: Vec<String>,
}

impl AcceptArgs {
    /// Adds what was given.
    pub fn add_to(&self, all: &mut Acceptances) {
        for (kind, name) in &self.accept {
            all.add(*kind, name.clone());
        }
        for name in &self.types {
            all.add(Accept::Type, name.clone());
        }
    }
}

fn type_name(name: &str) -> std::result::Result<String, String> {
    if accept::is_name(name) { Ok(name.to_owned()) } else { Err("not the name of a type".to_owned()) }
}

fn description(text: &str) -> std::result::Result<String, String> {
    if is_line(text) { Ok(text.to_owned()) } else { Err(format!("not {}", lpbuild::plan::manifest::LINE_RULE)) }
}

fn constant(name: &str) -> std::result::Result<String, String> {
    lpbuild::plan::manifest::check_data_name(name).map(|()| name.to_owned())
}

fn callback(text: &str) -> std::result::Result<(Callback, String), String> {
    let (kind, function) = text.split_once('=').ok_or("expected KIND=FUNCTION")?;
    let kind = Callback::ALL
        .into_iter()
        .find(|c| c.name() == kind)
        .ok_or_else(|| format!("{kind:?} is none of {}", Callback::ALL.map(Callback::name).join(", ")))?;
    if !is_identifier(function) {
        return Err(format!("{function:?} is not the name of a C function"));
    }
    Ok((kind, function.to_owned()))
}

/// A bad mode is a usage error: exit 2.
pub fn mode(name: &str) -> std::result::Result<Mode, String> {
    Mode::named(name).ok_or_else(|| format!("known: {}", Mode::ALL.map(Mode::name).join(", ")))
}

/// A bad name is a usage error: exit 2.
pub fn patch_name(name: &str) -> std::result::Result<String, String> {
    match check_name(name, "--name") {
        Ok(()) => Ok(name.to_owned()),
        Err(e) => Err(e.problems.iter().map(|p| p.detail.as_str()).collect()),
    }
}

impl PatchArgs {
    /// As the pipeline takes them.
    pub fn options(&self) -> Result<Options> {
        let mut accept = Acceptances::default();
        self.accept.add_to(&mut accept);
        let mut options = Options {
            version: self.version.clone(),
            mode: self.mode,
            deadline_ms: self.deadline_ms,
            patience_ms: self.patience_ms,
            jump: if self.jump == "abs64" { Jump::Abs64 } else { Jump::Rel32 },
            accept,
            ..Options::named(self.name.clone())
        };
        self.more.apply(&mut options);
        match check_others(&options.name, &options.after, &options.replaces) {
            Ok(()) => Ok(options),
            Err(detail) => Err(Error::new(codes::LP1104, Place::object("the command line"), detail)),
        }
    }
}

/// Runs the command.
pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    args.report.clear()?;
    let mut options = Options { explain: args.verbose || args.report.is_wanted(), ..args.patch.options()? };
    if let Some(path) = &args.of_source {
        OfSource::read(path)?.apply(&mut options);
    }
    args.report.check(args.output.as_deref(), &[])?;
    let ask = Ask {
        old: &args.old,
        new: &args.new,
        kernel: args.kernel.as_deref(),
        modules: &args.modules,
        headers: args.headers.as_deref(),
        output: args.output.as_deref(),
        no_debug_info: args.no_debug_info,
    };
    let outcome = match flow::diff(&ask, &options) {
        Ok(outcome) => outcome,
        Err(e) => {
            args.report.failed(&options, None, &e, Vec::new())?;
            return if args.json && e.is_refusal() { report_refused(&e.problems) } else { Err(e) };
        }
    };
    args.report.outcome(&options, &outcome, Vec::new())?;
    let report = outcome.report();
    let explained = args.verbose.then(|| outcome.explanation());
    if args.json {
        terminal::json(&Explained { report: &report, why: explained.as_ref().map(Explanation::everything) })?;
    } else {
        terminal::print(|out| {
            explained.iter().try_for_each(|e| write!(out, "{}", e.text()))?;
            print(&report, &outcome, args, out)
        })?;
    }
    let verdict = outcome.verdict();
    // The program ends: the kernel takes all of it back at once.
    std::mem::forget(outcome);
    terminal::conclude(verdict, &report, options.jump, || "no function differs".to_owned())
}

/// The report, with what `-v` adds.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Vec<SubjectAnswer>>,
}

/// Refused before anything was compared.
fn report_refused(problems: &[Problem]) -> Result<ExitCode> {
    let report = Report::refusal(problems);
    terminal::json(&report)?;
    terminal::conclude(Verdict::Refused, &report, Jump::Rel32, String::new)
}

fn print(report: &Report, outcome: &Outcome, args: &DiffArgs, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{}", report.text())?;
    let Some(patch) = &outcome.patch else { return Ok(()) };
    match &patch.manifest.kernel {
        Some(k) => writeln!(out, "bound to {} (build id {})", k.release, k.build_id)?,
        None if outcome.is_of_modules() => {
            writeln!(out, "not held against a kernel: name its image with --kernel")?;
        }
        None => writeln!(out, "symbolic: bind it with lpbuild pack --kernel IMAGE")?,
    }
    if let Some(dir) = &args.output {
        writeln!(out, "wrote {}", dir.display())?;
    }
    Ok(())
}
