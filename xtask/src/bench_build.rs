//! The build part of `cargo xtask bench`: from patch to module, beside the bare time of compiling the objects twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use harness::cmd;
use harness::kernels::Kernel;
use harness::module::Maker;
use harness::tree::Tree;
use serde_json::Value;

/// Files whose whole difference between the two versions makes a patch; of various sizes, from all over the kernel.
const FIXES: &[&str] = &[
    "kernel/sys.c",
    "kernel/signal.c",
    "mm/migrate.c",
    "fs/exec.c",
    "fs/ext4/inode.c",
    "io_uring/io-wq.c",
    "net/unix/af_unix.c",
    "drivers/tty/tty_io.c",
    "mm/vmscan.c",
    "net/packet/af_packet.c",
    // These stand in for those that are the same in both versions, or do not compile alone.
    "kernel/workqueue.c",
    "kernel/bpf/syscall.c",
    "security/landlock/fs.c",
];
/// How many of them are measured.
const WANTED: usize = 10;

/// One line per fix, then the first preparation of a tree.
pub fn run(kernel: &Kernel, tree: &Tree, lpbuild: &Path) -> Result<()> {
    let maker = Maker { lpbuild, kernel, tree };
    let temp = tempfile::tempdir()?;
    let (mut worst_rest, mut worst_analysis, mut worst_memory) = (0f64, 0f64, 0u64);
    let mut measured = 0;
    for file in FIXES {
        let Some(patch) = patch(kernel, temp.path(), file)? else { continue };
        // Stock objects are made anew, so that both sides are compiled as in the bare run.
        let object = format!("{}.o", file.trim_end_matches(".c"));
        forget_stock(tree, &object)?;
        let bare = twice(tree, &object)?;
        let log = temp.path().join("time");
        let mut c = maker.build(&[&patch], &temp.path().join("out"));
        c.args(["--json", "--name", "bench"]);
        let mut timed = cmd::command("/usr/bin/time");
        timed.args(["-f", "%M", "-o"]).arg(&log).arg(c.get_program()).args(c.get_args());
        let started = Instant::now();
        let out = timed.output().context("start /usr/bin/time (package time)")?;
        let all = started.elapsed().as_secs_f64();
        if !matches!(out.status.code(), Some(0 | 3 | 4)) {
            println!("build {file}: left out, it does not build alone");
            continue;
        }
        let report: Value = serde_json::from_slice(&out.stdout)?;
        let phase = |name: &str| -> f64 {
            let phases = report["phases_us"].as_array();
            let found = phases.into_iter().flatten().find(|p| p[0] == name);
            found.and_then(|p| p[1].as_f64()).unwrap_or(0.0) / 1e6
        };
        let analysis: f64 =
            ["ingest", "symbolize", "correlate", "compare", "closure", "sites", "bind", "emit"].map(phase).iter().sum();
        let memory: u64 =
            fs::read_to_string(&log)?.lines().last().and_then(|l| l.trim().parse().ok()).unwrap_or(0) / 1024;
        let rest = all - bare;
        println!(
            "build {file}: {all:.2} s, of it compiling twice {bare:.2} s, the rest {rest:.2} s (analysis {analysis:.2} s, \
             pack {:.2} s), {memory} MiB, exit {}",
            phase("pack"),
            out.status.code().unwrap_or(-1)
        );
        worst_rest = worst_rest.max(rest);
        worst_analysis = worst_analysis.max(analysis);
        worst_memory = worst_memory.max(memory);
        measured += 1;
        if measured == WANTED {
            break;
        }
    }
    if measured < WANTED {
        bail!("only {measured} of the named files differ and build; name others");
    }
    println!(
        "build, worst of {measured}: rest {worst_rest:.2} s, diff to emit {worst_analysis:.2} s, {worst_memory} MiB"
    );
    packing(kernel, &maker, temp.path())?;
    preparation(kernel, tree, &maker, temp.path())
}

/// CPU seconds of `lpbuild pack` when nothing is kept for these headers, and when all is.
fn packing(kernel: &Kernel, maker: &Maker<'_>, temp: &Path) -> Result<()> {
    let dir = temp.join("packed");
    let fix = harness::workspace_root().join("examples/01-proc-cmdline/fix.patch");
    cmd::output(maker.build(&[&fix], &dir).args(["--keep", "--name", "packed"]))?;
    let seconds = || -> Result<f64> {
        let log = temp.join("time");
        let mut c = cmd::command("/usr/bin/time");
        c.args(["-f", "%U %S", "-o"]).arg(&log).arg(maker.lpbuild).arg("pack").arg(&dir);
        c.arg("--headers").arg(&kernel.headers).env("XDG_CACHE_HOME", temp.join("pack-cache"));
        cmd::output(&mut c)?;
        Ok(fs::read_to_string(&log)?.split_whitespace().filter_map(|n| n.parse::<f64>().ok()).sum())
    };
    let (cold, warm) = (seconds()?, seconds()?);
    println!("pack: {cold:.2} s of CPU the first time, {warm:.2} s from then on: {:.0} times", cold / warm);
    Ok(())
}

/// Seconds of compiling an object twice at the same time, as a build does for its old and new version.
fn twice(tree: &Tree, object: &str) -> Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| tree.bare_compile(object));
        tree.bare_compile(object)?;
        other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    Ok(started.elapsed().as_secs_f64())
}

/// The whole difference of a file, if there is one.
fn patch(kernel: &Kernel, dir: &Path, file: &str) -> Result<Option<PathBuf>> {
    let path = dir.join("fix.patch");
    let (old, new) = (kernel.old_source().join(file), kernel.new_source().join(file));
    let mut c = cmd::command("diff");
    c.args(["-u", "--label", &format!("a/{file}"), "--label", &format!("b/{file}")]).arg(&old).arg(&new);
    let text = c.output().context("start diff")?.stdout;
    fs::write(&path, &text)?;
    Ok((!text.is_empty()).then_some(path))
}

fn forget_stock(tree: &Tree, object: &str) -> Result<()> {
    let root = tree.build.join("lpbuild-objects");
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        let path = entry.path().join(object);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// A build in an empty cache, and what building the whole kernel would take.
fn preparation(kernel: &Kernel, tree: &Tree, maker: &Maker<'_>, temp: &Path) -> Result<()> {
    let patch = FIXES.iter().find_map(|f| patch(kernel, temp, f).transpose()).context("no file differs")??;
    let mut c = maker.build(&[&patch], &temp.join("first"));
    c.args(["--json", "--name", "first"]).env("XDG_CACHE_HOME", temp.join("cache"));
    let out = c.output().context("start lpbuild")?;
    let report: Value = serde_json::from_slice(&out.stdout).context("lpbuild build in an empty cache")?;
    let phases = report["phases_us"].as_array();
    let prepare =
        phases.into_iter().flatten().find(|p| p[0] == "tree").and_then(|p| p[1].as_f64()).unwrap_or(0.0) / 1e6;
    // A sample of all objects, evenly spread.
    let objects: Vec<&String> = tree.layout().objects.keys().collect();
    let sample: BTreeSet<&String> = (0..20).map(|i| objects[i * objects.len() / 20]).collect();
    let started = Instant::now();
    for object in &sample {
        tree.bare_compile(object)?;
    }
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let each = started.elapsed().as_secs_f64() / sample.len() as f64;
    println!(
        "first preparation: {prepare:.1} s; compiling all {} objects would take about {:.0} min on {cpus} CPUs ({each:.2} s each)",
        objects.len(),
        each * objects.len() as f64 / cpus as f64 / 60.0
    );
    Ok(())
}
