//! `cargo xtask vm`: boots a stock kernel with a script, shows what it printed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use harness::vm::{Clock, Vm};

/// Boots a stock kernel in QEMU and runs a shell script in it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask vm", no_binary_name = true)]
struct Args {
    /// Script for busybox sh, run under `set -eu` after the preamble of harness/src/vm.rs.
    #[arg(long)]
    case: PathBuf,
    /// A file of the host at a path of the guest; GUEST may be left out (then /NAME).
    #[arg(long, value_name = "[GUEST=]HOST")]
    add: Vec<String>,
    /// A text that is no fault in the kernel log.
    #[arg(long)]
    allow: Vec<String>,
    /// More kernel parameters.
    #[arg(long, default_value = "")]
    append: String,
    /// One CPU, guest time counts instructions.
    #[arg(long)]
    icount: bool,
    /// Kernel series.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Seconds without output after which the guest is stopped.
    #[arg(long, default_value_t = 60)]
    silence: u64,
    /// Seconds after which the guest is stopped.
    #[arg(long, default_value_t = 300)]
    overtime: u64,
}

pub fn task(args: &[String]) -> Result<()> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    let (kernel, _) = crate::setup::run(&args.series)?;
    let script = std::fs::read_to_string(&args.case).with_context(|| format!("read {}", args.case.display()))?;
    let mut vm = Vm::new("manual", &kernel)
        .case(&script)
        .append(&args.append)
        .silence(Duration::from_secs(args.silence))
        .overtime(Duration::from_secs(args.overtime))
        .clock(if args.icount { Clock::Instructions } else { Clock::Host });
    for add in &args.add {
        let (guest, host) = match add.split_once('=') {
            Some((guest, host)) => (guest.to_string(), PathBuf::from(host)),
            None => {
                let host = PathBuf::from(add);
                let name = host.file_name().context("--add needs a file")?.to_string_lossy().into_owned();
                (format!("/{name}"), host)
            }
        };
        vm = vm.file(&guest, host);
    }
    for text in &args.allow {
        vm = vm.allow(text);
    }
    let run = vm.run()?;
    print!("{}", run.log_end(usize::MAX));
    println!("{:?} after {:.1} s; log: {}", run.verdict, run.took.as_secs_f64(), run.log.display());
    run.require_pass().map(drop).map_err(|_| anyhow::anyhow!("the case did not pass"))
}
