//! `lpbuild pack DIR`: makes the module. When a kernel is given, a symbolic patch is bound to it first, and a bound one
//! checked against it.

use std::path::PathBuf;
use std::process::ExitCode;

use lpbuild::backend::detour::Runtime;
use lpbuild::error::{Error, Result};
use lpbuild::flow::folder;
use lpbuild::pack::{PackOptions, Signer, pack};
use lpbuild::tool::Log;

use super::terminal;

/// Arguments of `lpbuild pack`.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Folder with patch.o and manifest.toml
    pub dir: PathBuf,
    /// Kernel image (vmlinux or vmlinuz) to bind a symbolic patch to, or to check a bound one against
    #[arg(long, value_name = "IMAGE")]
    pub kernel: Option<PathBuf>,
    /// Kernel headers [default: /lib/modules/RELEASE/build or /usr/src/linux-headers-RELEASE]
    #[arg(long, value_name = "DIR")]
    pub headers: Option<PathBuf>,
    /// File of a kernel module that the patch has functions of, to check it against [default: those of the release, installed or in
    /// the cache]
    #[arg(long = "module", value_name = "FILE", requires = "kernel")]
    pub modules: Vec<PathBuf>,
    /// Where the module is written [default: NAME.ko in DIR]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Sign the module with this private key and X.509 certificate
    #[arg(long, num_args = 2, value_names = ["KEY", "CERT"])]
    pub sign: Option<Vec<PathBuf>>,
    /// For the tests of this project: calls of the kernel can be made to fail
    #[arg(long, hide = true)]
    pub test_hooks: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

impl PackArgs {
    /// The same as options of [`pack`].
    pub fn options(&self) -> PackOptions {
        let sign = match self.sign.as_deref() {
            Some([key, cert]) => Some(Signer { key: key.clone(), cert: cert.clone() }),
            _ => None,
        };
        PackOptions { headers: self.headers.clone(), output: self.output.clone(), sign, log: Log::default() }
    }
}

/// Runs the command.
pub fn run(args: &PackArgs) -> Result<ExitCode> {
    let mut options = args.options();
    let runtime = Runtime { test_hooks: args.test_hooks, ..Runtime::default() };
    let report = match &args.kernel {
        None => pack(&runtime, &args.dir, &options)?,
        Some(image) if folder::manifest(&args.dir)?.kernel.is_some() => {
            folder::check(&args.dir, image, args.headers.as_deref(), &args.modules)?;
            pack(&runtime, &args.dir, &options)?
        }
        Some(image) => {
            let output = folder::bind(&args.dir, image)?;
            let name = format!("{}.ko", output.manifest.patch.name);
            let bound = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
            let dir = bound.path().join("patch");
            folder::write(&dir, &output, &[])?;
            options.output.get_or_insert_with(|| args.dir.join(name));
            pack(&runtime, &dir, &options)?
        }
    };
    if args.json {
        terminal::json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal::print(|out| {
        writeln!(
            out,
            "{}: {} bytes for {}, {} function(s), sha256 {}{}",
            report.module.display(),
            report.size,
            report.release,
            report.functions,
            report.sha256,
            if report.signed { ", signed" } else { "" },
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
