//! `lpbuild pack DIR`: makes the module. When a kernel is given, a symbolic patch is bound to it first, and a bound one
//! checked against it.

use std::process::ExitCode;

use lpbuild::accept::Acceptances;
use lpbuild::backend::detour::Runtime;
use lpbuild::error::Result;
use lpbuild::kernel::KernelImage;
use lpbuild::pack::{PackArgs, check, check_hash, pack};
use lpbuild::pipeline;
use lpbuild::plan::Options;
use lpbuild::plan::manifest::{Jump, Manifest};

use super::{folder, sources::io, terminal};

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
            let manifest = folder::manifest(&args.dir)?;
            check_hash(&args.dir, &manifest)?;
            let objects = folder::objects(&args.dir, &manifest)?;
            let patch = patch_options(&manifest);
            let mut analysis = pipeline::analyse(&objects, &patch)?;
            lpbuild::error::refuse(std::mem::take(&mut analysis.refused))?;
            // The objects are what is bound; the manifest is what somebody read.
            folder::same(&args.dir, &manifest, &pipeline::produce(&mut analysis, None, &patch)?.manifest)?;
            let kernel = KernelImage::open(image)?;
            let output = pipeline::produce(&mut analysis, Some(&kernel), &patch)?;
            let bound = tempfile::tempdir().map_err(|e| io(&std::env::temp_dir(), &e))?;
            let dir = bound.path().join("patch");
            folder::write(&dir, &output, &[])?;
            let name = format!("{}.ko", manifest.patch.name);
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

/// The options a manifest was made with.
fn patch_options(m: &Manifest) -> Options {
    let mut accept = Acceptances::default();
    for accepted in &m.accepted {
        accept.add(accepted.kind, accepted.name.clone());
    }
    let abs64 = m.functions.iter().any(|f| f.site.jump == Jump::Abs64);
    Options {
        name: m.patch.name.clone(),
        version: m.patch.version.clone(),
        description: m.patch.description.clone(),
        mode: Some(m.patch.mode),
        after: m.patch.after.clone(),
        replaces: m.patch.replaces.clone(),
        deadline_ms: Some(m.patch.deadline_ms),
        patience_ms: m.patch.patience_ms,
        jump: if abs64 { Jump::Abs64 } else { Jump::Rel32 },
        oneshot: m.patch.oneshot,
        callbacks: m.callbacks.clone(),
        accept,
        lines_kept: false,
    }
}
