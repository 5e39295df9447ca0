//! `lpbuild pack DIR`: makes the module. When a kernel is given, a symbolic patch is bound to it first, and a bound one
//! checked against it.

use std::process::ExitCode;

use lpbuild::backend::detour::Runtime;
use lpbuild::error::{Error, Result};
use lpbuild::flow::folder;
use lpbuild::kernel::KernelImage;
use lpbuild::pack::{PackArgs, check, pack};

use super::terminal;

/// Runs the command.
pub fn run(args: &PackArgs) -> Result<ExitCode> {
    let mut options = args.options();
    let report = match &args.kernel {
        None => pack(&Runtime::default(), &args.dir, &options)?,
        Some(image) if folder::manifest(&args.dir)?.kernel.is_some() => {
            check(&Runtime::default(), &args.dir, &KernelImage::open(image)?)?;
            pack(&Runtime::default(), &args.dir, &options)?
        }
        Some(image) => {
            let output = folder::bind(&args.dir, image)?;
            let name = format!("{}.ko", output.manifest.patch.name);
            let bound = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), &e))?;
            let dir = bound.path().join("patch");
            folder::write(&dir, &output, &[])?;
            options.output.get_or_insert_with(|| args.dir.join(name));
            pack(&Runtime::default(), &dir, &options)?
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
