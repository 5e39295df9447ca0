//! Whole kernels: time and memory of comparing two stock releases, with and without debug information, on one core and on
//! two, and against the size of the text. How much of the text differs is another matter: there each image is its own pair.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::own::{OwnKernel, Variant};
use harness::{cmd, debug_images};
use object::{Object, ObjectSection};

/// One comparison: best times of three in seconds, on the clock and of all CPUs, and the most memory in MiB.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s ({:.2} s of CPU), {:.0} MiB", self.seconds, self.cpu, self.peak_mib)
    }
}

pub fn run(lpbuild: &Path) -> Result<()> {
    let mut sizes = Vec::new();
    let own = OwnKernel::ensure(Variant::Bare)?;
    sizes.push(pair("own kernel", lpbuild, &own.vmlinux, &own.reordered()?)?);
    for series in ["6.1", "6.12"] {
        let [old, new] = debug_images::newest_two(series)?;
        sizes.push(pair(series, lpbuild, &old, &new)?);
    }
    println!(
        "images: CPU time of an image against itself, ms per MB of text on both sides: {}",
        sizes.iter().map(|s| format!("{s:.1}")).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// Prints the figures of a pair; returns the time per text where nothing differs.
fn pair(what: &str, lpbuild: &Path, old: &Path, new: &Path) -> Result<f64> {
    let text = text_of(old)? + text_of(new)?;
    let plain = measure(lpbuild, old, new, &["--no-debug-info"], None)?;
    let one = measure(lpbuild, old, new, &["--no-debug-info"], Some(1))?;
    let debug = measure(lpbuild, old, new, &[], None)?;
    let itself = measure(lpbuild, old, old, &["--no-debug-info"], None)?;
    println!(
        "images {what}: {plain} for {text:.1} MB of text (goal for two stock images: 1.0 s, 700 MiB); one core {one} ({:.2} times); with types and lines {debug} (goal: 4 s)",
        one.seconds / plain.seconds,
    );
    // CPU time, which other load on the host changes least.
    Ok(itself.cpu * 1e3 / (2.0 * text_of(old)?))
}

fn measure(lpbuild: &Path, old: &Path, new: &Path, more: &[&str], threads: Option<u32>) -> Result<Cost> {
    let mut best = Cost { seconds: f64::INFINITY, cpu: f64::INFINITY, peak_mib: 0.0 };
    let times = tempfile::NamedTempFile::new()?;
    for _ in 0..3 {
        let mut c = cmd::command("/usr/bin/time");
        c.args(["-q", "-f", "%U %S", "-o"]).arg(times.path()).arg(lpbuild);
        c.arg("diff").args([old, new]).args(more).arg("--json");
        if let Some(n) = threads {
            c.env("RAYON_NUM_THREADS", n.to_string());
        }
        let started = Instant::now();
        let out = c.output().context("start /usr/bin/time (package time)")?;
        let seconds = started.elapsed().as_secs_f64();
        // Refusals are fine: all phases up to the verdict have run.
        ensure!(matches!(out.status.code(), Some(0 | 3 | 4)), "lpbuild diff: {}", out.status);
        let json: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let peak = json["peak_kib"].as_u64().context("the report has no peak_kib")?;
        let cpu = std::fs::read_to_string(times.path())?;
        let cpu = cpu.split_whitespace().map(|t| Ok(t.parse::<f64>()?)).sum::<Result<f64>>()?;
        best.seconds = best.seconds.min(seconds);
        best.cpu = best.cpu.min(cpu);
        best.peak_mib = best.peak_mib.max(peak as f64 / 1024.0);
    }
    Ok(best)
}

/// MB of code.
fn text_of(image: &Path) -> Result<f64> {
    let bytes = std::fs::read(image).with_context(|| image.display().to_string())?;
    let file = object::File::parse(&*bytes)?;
    let code = file.sections().filter(|s| s.kind() == object::SectionKind::Text).map(|s| s.size());
    Ok(code.sum::<u64>() as f64 / 1e6)
}
