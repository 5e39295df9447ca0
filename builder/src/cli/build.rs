//! `lpbuild build`: from source patches to a module.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use lpbuild::backend::detour::Runtime;
use lpbuild::config::{self, Config, ExternalModules};
use lpbuild::error::{Error, Place, Result};
use lpbuild::explain::{Explanation, SubjectAnswer};
use lpbuild::flow::patches::{self, BuildOptions, Built};
use lpbuild::flow::{Outcome, Verdict, folder, savedir};
use lpbuild::pack::{PackOptions, PackReport, Signer, pack};
use lpbuild::plan::Leave;
use lpbuild::plan::manifest::{Jump, LeftOut, Mode, check_others};
use lpbuild::report::Report;
use lpbuild::tool::Log;
use serde::Serialize;

use super::diff::{AcceptArgs, MoreArgs, mode, patch_name};
use super::progress::Bars;
use super::report::ReportArg;
use super::terminal;
use lpbuild::codes;

/// Make a live patch of source patches: compile the objects they touch, compare, prove that it fits, pack.
///
/// Without arguments the livepatch.toml of this folder says what to build. Options given here go before what it says. The
/// kernel is the running one unless named; its image, headers, source, configuration and compiler are found by themselves
/// on Debian and Ubuntu, if need be fetched by apt into the cache.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Source patches (unified diffs, applied with -p1 in this order), or one livepatch.toml.
    #[arg(value_name = "PATCH")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    kernel: KernelArgs,
    /// Source of modules that are not the kernel's, as `make -C HEADERS M=DIR` builds them (DKMS: /usr/src/NAME-VERSION); the patches are
    /// relative to it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "leave_modules"])]
    module_source: Option<PathBuf>,
    /// File of such a module as it runs, for one that is not in updates/ or extra/ of the folder of modules, or not alone; repeatable.
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,
    /// Name of the patch and of its module: [a-z][a-z0-9_]* [default: from the first patch file].
    #[arg(long, value_name = "NAME", value_parser = patch_name)]
    name: Option<String>,
    /// Version of the patch, free text.
    #[arg(long = "patch-version", value_name = "VERSION")]
    version: Option<String>,
    /// Milliseconds after which applying or reverting gives up when the functions are busy [default: 10000, with transition
    /// 15000 more than the patience].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    deadline_ms: Option<u32>,
    /// Milliseconds before a transition disturbs tasks that sleep in user space's system calls, as by a signal [default: 15000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    patience_ms: Option<u32>,
    /// When the switch is made: drain, transition or stop-machine [default: drain for one function, transition for several,
    /// stop-machine where the old code cannot be entered any more].
    #[arg(long, value_name = "MODE", value_parser = mode)]
    mode: Option<Mode>,
    /// Form of the jumps: rel32 (5 bytes) or abs64 (12 bytes, any distance) [default: rel32].
    #[arg(long, value_parser = ["rel32", "abs64"])]
    jump: Option<String>,
    /// Folder for NAME.ko, manifest.toml and build.log [default: NAME].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Compilers at a time [default: the number of CPUs].
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Sign the module with this private key and X.509 certificate.
    #[arg(long, num_args = 2, value_names = ["KEY", "CERT"])]
    sign: Option<Vec<PathBuf>>,
    /// Leave out a file of the patches, one hunk of it (counted from 1 over all patches), or what is below FOLDER/: documentation, init
    /// code, exports, what cannot be applied. Kept in the manifest.
    #[arg(long, value_name = "FILE[:HUNK]", value_parser = leave_out)]
    leave_out: Vec<String>,
    /// Compile and compare nothing of modules: they keep the code they have, whatever calls or inlines what changes.
    #[arg(long)]
    leave_modules: bool,
    /// Compile every object that may read a changed header, also those that cannot come out otherwise.
    #[arg(long)]
    compile_all: bool,
    #[command(flatten)]
    more: MoreArgs,
    #[command(flatten)]
    accept: AcceptArgs,
    /// Also keep patch.o and the compared objects in the output folder.
    #[arg(long)]
    keep: bool,
    /// Also save everything the result depends on, with a script that repeats it, for bug reports.
    #[arg(long, value_name = "DIR")]
    save_dir: Option<PathBuf>,
    /// For the tests of this project: calls of the kernel can be made to fail.
    #[arg(long, hide = true)]
    test_hooks: bool,
    #[command(flatten)]
    report: ReportArg,
    /// Say of each function what lpbuild why says.
    #[arg(short, long)]
    verbose: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

/// The kernel a patch is for.
#[derive(Debug, Default, clap::Args)]
pub struct KernelArgs {
    /// Release of the kernel, as uname -r prints it [default: the running kernel].
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Its image: vmlinuz or vmlinux.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Its headers: the folder for `make -C`.
    #[arg(long, value_name = "DIR")]
    pub headers: Option<PathBuf>,
    /// Its source tree; only read.
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// The configuration it was built with.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Compiler as in CC=, perhaps behind a launcher: "ccache gcc-12" [default: CC, else the one the configuration names].
    #[arg(long, value_name = "COMMAND")]
    pub compiler: Option<String>,
    /// Where the files of its modules are looked for first: a folder as /lib/modules/RELEASE.
    #[arg(long, value_name = "DIR")]
    pub module_dir: Option<PathBuf>,
}

impl KernelArgs {
    /// Puts what was given into the place of what `target` says.
    fn apply(&self, target: &mut config::KernelChoice) -> Result<()> {
        let absolute = |p: &Path| p.canonicalize().map_err(|e| Error::io(p, &e));
        for (given, place) in [
            (&self.image, &mut target.image),
            (&self.headers, &mut target.headers),
            (&self.source, &mut target.source),
            (&self.config, &mut target.config),
            (&self.module_dir, &mut target.module_dir),
        ] {
            if let Some(path) = given {
                *place = Some(absolute(path)?);
            }
        }
        for (given, place) in [(&self.release, &mut target.release), (&self.compiler, &mut target.compiler)] {
            if given.is_some() {
                place.clone_from(given);
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    release: &'a str,
    build_id: &'a str,
    compiled: &'a [String],
    objects: &'a [String],
    unused: &'a [lpbuild::source::touched::Unused],
    wide: &'a [lpbuild::source::concern::WideHeader],
    moved: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    left_out: &'a [LeftOut],
    modules_left: &'a [String],
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Vec<SubjectAnswer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a PackReport>,
    phases_us: Vec<(&'static str, u64)>,
}

/// Runs the command.
pub fn run(args: &BuildArgs) -> Result<ExitCode> {
    lpbuild::interrupt::watch();
    args.report.clear()?;
    let config = configuration(args)?;
    let log = Log::default();
    let bars = Bars::new();
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let jobs = args.jobs.unwrap_or(cpus);
    let how = BuildOptions { jobs, leave_modules: args.leave_modules, compile_all: args.compile_all };
    let dir = args.output.clone().unwrap_or_else(|| PathBuf::from(&config.options.name));
    folder::may_write(&dir)?;
    args.report.check(Some(&dir), &[])?;
    let mut built = Built::default();
    let outcome = patches::build(&config, &how, &log, &bars, &mut built).and_then(|()| {
        let Some(output) = built.outcome.as_ref().and_then(|o| o.patch.as_ref()) else { return Ok(None) };
        let started = Instant::now();
        let module = finish(&config, &built, output, &dir, args, &log, &bars)?;
        built.phases.push(("pack", started.elapsed()));
        Ok(Some(module))
    });
    bars.clear();
    // What failed behind the comparison can be repeated as well.
    match &args.save_dir {
        Some(dir) if outcome.is_err() && built.sources.is_empty() => savedir::inputs(dir, &config, &log)?,
        Some(dir) => savedir::all(dir, &config, &built, &log)?,
        None => {}
    }
    let module = match outcome {
        Ok(module) => module,
        Err(e) => {
            args.report.failed(&config.options, built.outcome.as_ref(), &e, facts(&built, None))?;
            return Err(e);
        }
    };
    if let Some(outcome) = &built.outcome {
        args.report.outcome(&config.options, outcome, facts(&built, module.as_ref()))?;
    }
    let report = built.outcome.as_ref().map(Outcome::report).unwrap_or_default();
    let explained = built.outcome.as_ref().filter(|_| args.verbose).map(Outcome::explanation);
    if args.json {
        print_json(&config, &built, &report, explained.as_ref(), module.as_ref())?;
    } else {
        terminal::print(|out| {
            explained.iter().try_for_each(|e| write!(out, "{}", e.text()))?;
            print(&built, &report, module.as_ref(), out)
        })?;
    }
    let verdict = built.outcome.as_ref().map_or(Verdict::Nothing, Outcome::verdict);
    terminal::conclude(verdict, &report, config.options.jump, || nothing(&built))
}

/// What the head of the report says beside the manifest.
fn facts(built: &Built, module: Option<&PackReport>) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !built.compiled.is_empty() {
        let differ = match built.objects.as_slice() {
            [] => "none differs".to_owned(),
            some => format!("{} differ: {}", some.len(), some.join(", ")),
        };
        facts.push(("Objects", format!("{} compiled in both versions, {differ}", built.compiled.len())));
    }
    if !built.left.is_empty() {
        facts.push(("Left as they are", built.left.join(", ")));
    }
    facts.extend(built.moved.iter().map(|hunk| ("Moved", hunk.clone())));
    facts.extend(built.unused.iter().map(|u| ("Not used", format!("{}: {}", u.file, u.why))));
    if let Some(m) = module {
        let signed = if m.signed { ", signed" } else { "" };
        let name = m.module.file_name().unwrap_or_default().to_string_lossy();
        facts.push(("File", format!("{name}, {} bytes{signed}", m.size)));
        facts.push(("SHA-256", m.sha256.clone()));
    }
    facts
}

fn nothing(built: &Built) -> String {
    if built.compiled.is_empty() {
        "no object of this kernel is made from the changed files".to_owned()
    } else {
        format!("no function differs in the {} objects compiled", built.compiled.len())
    }
}

/// livepatch.toml, or patches; then the options of the command line.
fn configuration(args: &BuildArgs) -> Result<Config> {
    let toml = |p: &PathBuf| p.extension().is_some_and(|e| e == "toml");
    let mut config = match args.patches.as_slice() {
        [] => {
            let path = Path::new("livepatch.toml");
            if !path.exists() {
                let what = "there is no livepatch.toml in this folder, and no patch is named";
                return Err(Error::new(codes::LP6004, Place::default(), what));
            }
            config::load(path)?
        }
        [one] if toml(one) => config::load(one)?,
        patches => Config::default_for(patches)?,
    };
    for (given, place) in [(&args.name, &mut config.options.name), (&args.version, &mut config.options.version)] {
        if let Some(given) = given {
            place.clone_from(given);
        }
    }
    config.options.mode = args.mode.or(config.options.mode);
    args.more.apply(&mut config.options);
    if let Err(detail) = check_others(&config.options.name, &config.options.after, &config.options.replaces) {
        return Err(Error::new(codes::LP6005, Place::object("the name"), detail));
    }
    config.options.deadline_ms = args.deadline_ms.or(config.options.deadline_ms);
    config.options.patience_ms = args.patience_ms.unwrap_or(config.options.patience_ms);
    match args.jump.as_deref() {
        Some("abs64") => config.options.jump = Jump::Abs64,
        Some(_) => config.options.jump = Jump::Rel32,
        None => {}
    }
    for name in &args.leave_out {
        if !config.leave_out.contains(name) {
            config.leave_out.push(name.clone());
        }
    }
    args.accept.add_to(&mut config.options.accept);
    args.kernel.apply(&mut config.kernel)?;
    external(args, &mut config)?;
    if let Some([key, cert]) = args.sign.as_deref() {
        config.sign = Some(Signer { key: key.clone(), cert: cert.clone() });
    }
    Ok(config)
}

/// Sources and files of modules that are not the kernel's.
fn external(args: &BuildArgs, config: &mut Config) -> Result<()> {
    let absolute = |p: &PathBuf| p.canonicalize().map_err(|e| Error::io(p, &e));
    if let Some(dir) = &args.module_source {
        let source = absolute(dir)?;
        if !source.is_dir() {
            return Err(Error::new(codes::LP6216, Place::object(source.display().to_string()), "it is no folder"));
        }
        let files = config.external.take().map_or_else(Vec::new, |e| e.files);
        config.external = Some(ExternalModules { source, files });
    }
    if args.modules.is_empty() {
        return Ok(());
    }
    let Some(external) = &mut config.external else {
        let what = "--module names the file of a module whose source is named with --module-source";
        return Err(Error::new(codes::LP6005, Place::object("--module"), what));
    };
    external.files = args.modules.iter().map(absolute).collect::<Result<_>>()?;
    Ok(())
}

/// Packs the module and puts the output folder in its place, whole.
fn finish(
    config: &Config,
    built: &Built,
    output: &lpbuild::emit::Output,
    dir: &Path,
    args: &BuildArgs,
    log: &Log,
    bars: &Bars,
) -> Result<PackReport> {
    use lpbuild::source::Progress;
    bars.status("packing");
    let temp = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
    let patch = temp.path().join("patch");
    folder::write(&patch, output, if args.keep { &built.sources } else { &[] })?;
    let options =
        PackOptions { headers: Some(built.headers.clone()), output: None, sign: config.sign.clone(), log: log.clone() };
    let mut report = pack(&Runtime { test_hooks: args.test_hooks, ..Runtime::default() }, &patch, &options)?;
    let put = |name: &str, text: &str| {
        let path = patch.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io(&path, &e))
    };
    put("build.log", &log.text())?;
    if !args.keep {
        let path = patch.join("patch.o");
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, &e))?;
    }
    folder::replace(dir, &patch)?;
    report.module = dir.join(format!("{}.ko", config.options.name));
    Ok(report)
}

fn print(built: &Built, report: &Report, module: Option<&PackReport>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "kernel   {} (build id {})", built.release, built.build_id)?;
    for l in &built.left_out {
        writeln!(out, "left out {}: {} ({})", l.file, l.what, l.patch)?;
    }
    for hunk in &built.moved {
        writeln!(out, "moved    {hunk}")?;
    }
    for unused in &built.unused {
        writeln!(out, "unused   {}: {}", unused.file, unused.why)?;
    }
    for wide in &built.wide {
        let (some, all) = (wide.concerned, wide.included_by);
        writeln!(out, "header   {}: {some} of the {all} objects that read it can come out otherwise", wide.file)?;
    }
    let differ = match built.objects.as_slice() {
        [] => "none differs".to_owned(),
        some => format!("{} differ: {}", some.len(), some.join(" ")),
    };
    writeln!(out, "objects  {} compiled in both versions, {differ}", built.compiled.len())?;
    if !built.left.is_empty() {
        let (n, names) = (built.left.len(), built.left.join(" "));
        writeln!(out, "left     {n} objects of modules were not compared and keep the code they have: {names}")?;
    }
    write!(out, "{}", report.text())?;
    if let Some(m) = module {
        let signed = if m.signed { ", signed" } else { "" };
        let (path, size) = (m.module.display(), m.size);
        writeln!(out, "module   {path}: {size} bytes, {} function(s), sha256 {}{signed}", m.functions, m.sha256)?;
    }
    let phases: Vec<String> =
        built.phases.iter().map(|(name, time)| format!("{name} {:.2}", time.as_secs_f64())).collect();
    writeln!(out, "seconds  {}", phases.join(", "))?;
    Ok(())
}

fn print_json(
    config: &Config,
    built: &Built,
    report: &Report,
    explained: Option<&Explanation>,
    module: Option<&PackReport>,
) -> Result<()> {
    let output = Output {
        name: &config.options.name,
        release: &built.release,
        build_id: &built.build_id,
        compiled: &built.compiled,
        objects: &built.objects,
        unused: &built.unused,
        wide: &built.wide,
        moved: &built.moved,
        left_out: &built.left_out,
        modules_left: &built.left,
        report,
        why: explained.map(Explanation::everything),
        module,
        phases_us: built.phases.iter().map(|(n, d)| (*n, d.as_micros() as u64)).collect(),
    };
    terminal::json(&output)
}

fn leave_out(name: &str) -> std::result::Result<String, String> {
    Leave::parse(name).map(|_| name.to_owned())
}
