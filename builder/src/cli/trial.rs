//! `lpbuild try NAME.ko`: a trial of a module on its own kernel, in QEMU.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lpbuild::error::Result;
use lpbuild::trial::{self, Scripts, TrialOptions};

use super::progress::Bars;
use super::report::ReportArg;
use super::{EXIT_REFUSED, terminal};

/// Try a module in QEMU: boot its kernel, load it, run checks, unload it, print the verdict.
///
/// Needs qemu-system-x86 and busybox-static, and no root. Inside the guest this very lpbuild loads and unloads the module as
/// on a production host. The trial fails when a command or a script fails, when the guest hangs or dies, and when the kernel
/// logs an oops, a warning, a lockup or a stall.
///
/// Scripts are run by busybox sh with the phase as $1: before, during or after. Each must end with status 0.
///
/// Exit codes: 0 PASS, 4 FAIL, 1 when QEMU or the image is broken or missing.
#[derive(Debug, clap::Args)]
pub struct TryArgs {
    /// The patch: a module lpbuild made
    module: PathBuf,
    /// Kernel image to boot, of the build the module was made for [default: installed, in the cache, or fetched by apt]
    #[arg(long, value_name = "VMLINUZ")]
    image: Option<PathBuf>,
    /// One script for all phases; its outputs are shown side by side, before and after are compared
    #[arg(long, value_name = "FILE", conflicts_with_all = ["before", "during", "after"])]
    script: Option<PathBuf>,
    /// Script to run before the patch is loaded
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Script to run while the patch is applied, in every cycle
    #[arg(long, value_name = "FILE")]
    during: Option<PathBuf>,
    /// Script to run when the patch is gone
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Fail when --script prints something else after the unload than before the load
    #[arg(long, requires = "script")]
    strict: bool,
    /// Emulate, even where this user may use KVM
    #[arg(long)]
    no_kvm: bool,
    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Memory of the guest [default: 1024, more when much is added]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(128..))]
    memory: Option<u32>,
    /// More kernel parameters
    #[arg(long, value_name = "PARAMETERS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,
    /// The kernel's module folder (lib/modules/RELEASE), for modprobe in scripts [what the patch has functions of is brought without]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// File of a kernel module that the patch has functions of, or that one of these needs, where it is not found by itself: one built
    /// beside the kernel; repeatable
    #[arg(long = "module", value_name = "FILE")]
    targets: Vec<PathBuf>,
    /// Put a file or folder of this host at a path of the guest; programs come with their libraries
    #[arg(long, value_name = "GUEST=HOST", value_parser = added)]
    add: Vec<(String, PathBuf)>,
    /// Lines of the kernel log with this text are no failure
    #[arg(long, value_name = "TEXT")]
    allow: Vec<String>,
    /// Stop the guest after so many seconds [default: 300, and 5 for each further cycle]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Stop the guest when it prints nothing for so many seconds while it boots or a command of lpbuild runs; scripts may be
    /// silent until --timeout [default: 90 and the deadline of the patch; 20 to the first word with KVM]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    silence: Option<u64>,
    /// Load and unload so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cycles: u32,
    #[command(flatten)]
    report: ReportArg,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
    /// Keep the console log: lines of the kernel begin with `k| `, those of the guest's programs with `c| `
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// `GUEST=HOST`; anything else is a usage error.
fn added(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((guest, host)) if guest.starts_with('/') && guest.len() > 1 && !host.is_empty() => {
            if guest.split('/').any(|part| part == "..") {
                return Err("the guest path has `..` in it".into());
            }
            Ok((guest.to_owned(), PathBuf::from(host)))
        }
        _ => Err("expected GUEST=HOST with an absolute guest path".into()),
    }
}

/// Runs the command.
pub fn run(args: &TryArgs) -> Result<ExitCode> {
    args.report.check(None, &args.log.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let scripts = match &args.script {
        Some(script) => Scripts::one(script.clone()),
        None => {
            Scripts { before: args.before.clone(), during: args.during.clone(), after: args.after.clone(), same: false }
        }
    };
    let options = TrialOptions {
        module: args.module.clone(),
        image: args.image.clone(),
        scripts,
        emulate: args.no_kvm,
        cpus: args.cpus,
        memory_mib: args.memory,
        append: args.append.clone(),
        modules: args.modules.clone(),
        targets: args.targets.clone(),
        add: args.add.clone(),
        allow: args.allow.clone(),
        timeout: args.timeout.map(Duration::from_secs),
        silence: args.silence.map(Duration::from_secs),
        cycles: args.cycles,
        strict: args.strict,
        log: args.log.clone(),
    };
    let bars = Bars::new();
    let report = trial::run(&options, &bars);
    bars.clear();
    let report = match report {
        Ok(report) => report,
        Err(e) => {
            args.report.untried(&args.module, &e)?;
            return Err(e);
        }
    };
    args.report.trial(&report)?;
    if args.json {
        terminal::json(&report)?;
    } else {
        terminal::print(|out| report.text(terminal::width(), out))?;
    }
    if report.refused.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &report.refused {
        terminal::problem("refused", problem);
    }
    Ok(ExitCode::from(EXIT_REFUSED))
}
