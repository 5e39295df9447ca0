//! `cargo xtask bench`: the figures the project promises, one per line.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use harness::change::Change;
use harness::cmd;
use harness::tree::{Flags, Tree};

/// Large objects; the biggest the tests use.
const LARGE: &[&str] = &["net/core/dev.c", "kernel/sys.c"];
/// What can be asked for alone.
const PARTS: &[&str] = &["objects", "images", "build", "runtime", "loads"];

pub fn task(parts: &[String]) -> Result<()> {
    if let Some(part) = parts.iter().find(|p| !PARTS.contains(&p.as_str())) {
        bail!("no part {part:?}; there are: {}", PARTS.join(", "));
    }
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    if asked("objects") {
        diff_speed(&tree, &lpbuild)?;
    }
    if asked("images") {
        crate::bench_images::run(&lpbuild)?;
    }
    if asked("build") {
        crate::bench_build::run(&kernel, &tree, &lpbuild)?;
    }
    // The second is part of the first.
    if asked("runtime") || asked("loads") {
        crate::bench_runtime::run(&lpbuild, asked("runtime"))?;
    }
    Ok(())
}

/// The time to compare an object with one compiled from shifted lines, per MB of both.
fn diff_speed(tree: &Tree, lpbuild: &std::path::Path) -> Result<()> {
    for source in LARGE {
        // A blank line on top moves every __LINE__, and so many functions.
        let text = fs::read(tree.source.join(source)).with_context(|| format!("read {source}"))?;
        let change = Change::none().file(source, [b"\n".as_slice(), &text].concat());
        let pair = tree.pair(&change, Flags::Plain)?;
        let (old, new) = pair.files(&pair.objects[0]);
        let bytes = fs::metadata(&old)?.len() + fs::metadata(&new)?.len();
        let out = tempfile::tempdir()?;
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let mut c = cmd::command(lpbuild);
            c.arg("diff").args([&old, &new]).arg("-o").arg(out.path());
            let started = Instant::now();
            // Refusals are fine here: all phases up to the verdict have run.
            let status = c.output().with_context(|| format!("start {}", lpbuild.display()))?.status;
            anyhow::ensure!(matches!(status.code(), Some(0 | 3 | 4)), "lpbuild diff of {source}: {status}");
            best = best.min(started.elapsed().as_secs_f64());
        }
        let mb = bytes as f64 / 1e6;
        println!("diff {source}: {:.0} ms for {mb:.2} MB, {:.0} ms/MB", best * 1e3, best * 1e3 / mb);
    }
    Ok(())
}
