//! `cargo xtask bench`: the figures the project promises, one per line.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use harness::change::Change;
use harness::cmd;
use harness::kernels::Kernel;
use harness::module::Maker;
use harness::tree::{Flags, Tree};
use harness::vm::{Clock, Vm};
use harness::workspace_root;

/// Large objects; the biggest the tests use.
const LARGE: &[&str] = &["net/core/dev.c", "kernel/sys.c"];
/// Its `show` function does as much with the fix as without.
const SAME_WORK: &str = "bench-same-work";

pub fn task(_: &[String]) -> Result<()> {
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    diff_speed(&tree, &lpbuild)?;
    crate::bench_images::run(&lpbuild)?;
    crate::bench_build::run(&kernel, &tree, &lpbuild)?;
    call_cost(&kernel, &tree, &lpbuild)
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

/// Instructions per read of a file before and with a patch that replaces its show function by an equal one.
fn call_cost(kernel: &Kernel, tree: &Tree, lpbuild: &std::path::Path) -> Result<()> {
    let example = workspace_root().join("tests/bench").join(SAME_WORK);
    let vm = |case: &str| Vm::new("bench", kernel).clock(Clock::Instructions).case(case);
    let module = Maker { lpbuild, kernel, tree }.example(&example)?;
    let script = format!(
        "result before $(read-cost /proc/cmdline 2000 | sed 's/.*=//'); lpbuild load /patch.ko\n\
         result with $(read-cost /proc/cmdline 2000 | sed 's/.*=//')\n\
         result pause_ns $(cat /sys/kernel/lpbuild/{0}/pause_ns); lpbuild unload {0}\n",
        module.name
    );
    let patched = |vm: Vm| vm.file("/bin/lpbuild", lpbuild).file("/patch.ko", &module.ko).run();
    let run = patched(vm(&script))?;
    run.require_pass()?;
    let (before, with) = (run.number("before")?, run.number("with")?);
    println!("call of a patched function: {:+.2} instructions ({before:.2} before, {with:.2} with)", with - before);
    let run = patched(Vm::new("bench-pause", kernel).case(&script))?;
    let pause = run.require_pass()?.number("pause_ns")?;
    println!("pause in stop_machine: {:.0} us on 2 emulated CPUs", pause / 1e3);
    Ok(())
}
