//! `cargo xtask test`: all tests, and one line of totals at the end.
//!
//! ```text
//! built    what cargo compiles -> Program     and the tests in it
//! pool     Jobs -> Dones                      side by side, the longest first
//! job      Job -> Done                        one test, one process
//! report   Dones -> text                      the slowest, the failed, totals
//! ```
//!
//! The kernels of our own are built meanwhile, at a low priority, from the moment their source is there; tests that need
//! one are begun when they are finished.

mod built;
mod job;
mod pool;
mod report;

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use harness::own::{self, OwnKernel, Variant};
use harness::{guest, module, packages, workspace_root};

use job::{Done, Job, Outcome};

/// Programs whose tests need the kernels of our own.
const NEED_OWN_KERNELS: &[&str] = &["own_kernels", "whole_images"];

/// Seconds a test is thought to take before it has ever run: one with a guest or one that compiles much, another.
const UNKNOWN: (f64, f64) = (60.0, 1.0);
/// Programs beside those with guests whose tests compile objects of the kernel.
const COMPILE: &[&str] = &["build", "build_cache", "corpus", "module_runpre", "mutants", "recipe", "redirected"];

pub fn task(args: &[String]) -> Result<()> {
    run(args, &[])
}

/// Runs the tests whose `PROGRAM TEST` contains one of the filters, all when there is none.
pub fn run(filters: &[String], more_env: &[(String, OsString)]) -> Result<()> {
    let what = if filters.is_empty() { "all tests".to_owned() } else { format!("tests named {}", filters.join(", ")) };
    harness::progress(format!("{what}: packages and kernels, then cargo compiles, then they run; output follows"));
    packages::ensure_packages(&[packages::NEEDED, packages::CLANG].concat())?;
    packages::offer_packages(packages::BROWSER);
    crate::setup::run(own::SERIES)?;
    let finished = Arc::new(AtomicBool::new(false));
    if filters.is_empty() {
        own_kernels(&finished);
    }
    crate::setup::task(&[])?;
    let env = [environment()?, more_env.to_vec()].concat();
    let (ready, waiting, mut done) = jobs(filters)?;
    // Of tests that are named, few need them.
    if !filters.is_empty() && !waiting.is_empty() {
        own_kernels(&finished);
    }
    let all: Vec<Job> = ready.iter().chain(&waiting).cloned().collect();
    let started = Instant::now();
    // More than there are CPUs: guests sleep at times, and wait for a place.
    let workers = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    done.extend(pool::run(ready, waiting, &finished, workers, &env));
    pool::again(&mut done, &all, &env);
    if filters.is_empty() {
        done.push(examples_in_comments()?);
    }
    if done.is_empty() {
        bail!("no test is named so");
    }
    report::remember(&done);
    println!("{}", report::end(&done, started.elapsed().as_secs_f64()));
    match report::Totals::of(&done).failed {
        0 => Ok(()),
        n => bail!("{n} tests failed"),
    }
}

/// Compiles what tests run, and tells them where it is: a test of its own asks cargo, thousands of times in a run.
fn environment() -> Result<Vec<(String, OsString)>> {
    let lpbuild = crate::build::lpbuild()?;
    let guest = guest::build()?;
    let mut c = built::cargo();
    // Linked for this host, without a runtime inside.
    if !c.args(["build", "--package", "lpbuild"]).status().context("start cargo")?.success() {
        bail!("lpbuild does not compile");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), Into::into);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("{}-{}", now.as_nanos(), std::process::id());
    let mut env = vec![
        ("LPBUILD_BIN".to_owned(), lpbuild.into()),
        (guest::FINISHED.to_owned(), guest.into()),
        ("LPBUILD_BUILT".to_owned(), target.join("debug/lpbuild").into()),
        (module::RUN.to_owned(), run.into()),
    ];
    env.extend(std::env::var_os("CARGO").map(|cargo| ("CARGO".to_owned(), cargo)));
    Ok(env)
}

/// What is to be run, the longest first; what is so once the kernels of our own are there; and what is not run at all.
fn jobs(filters: &[String]) -> Result<(Vec<Job>, Vec<Job>, Vec<Done>)> {
    let known = report::remembered();
    let (mut ready, mut waiting, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for program in built::programs()? {
        for test in program.tests()? {
            let job = Job { program: program.clone(), test: test.name };
            let name = job.name();
            if !filters.is_empty() && !filters.iter().any(|f| name.contains(f.as_str())) {
                continue;
            }
            if test.ignored {
                let (outcome, said) = (Outcome::Skipped, Vec::new());
                skipped.push(Done { name, outcome, took: 0.0, cpu: None, said, alone: false });
                continue;
            }
            let long = program.name.starts_with("vm_") || COMPILE.contains(&program.name.as_str());
            let unknown = if long { UNKNOWN.0 } else { UNKNOWN.1 };
            let time = known.get(&name).copied().unwrap_or(unknown);
            let list = if NEED_OWN_KERNELS.contains(&program.name.as_str()) { &mut waiting } else { &mut ready };
            list.push((time, job));
        }
    }
    let sorted = |mut jobs: Vec<(f64, Job)>| -> Vec<Job> {
        // Stable: what takes the same time stays in the order of names.
        jobs.sort_by(|a, b| b.0.total_cmp(&a.0));
        jobs.into_iter().map(|(_, job)| job).collect()
    };
    Ok((sorted(ready), sorted(waiting), skipped))
}

/// The examples in comments are compiled by rustdoc; they count as one test.
fn examples_in_comments() -> Result<Done> {
    let started = Instant::now();
    let mut c = built::cargo();
    c.args(["test", "--workspace", "--doc"]).stdin(Stdio::null());
    let success = c.status().context("start cargo test --doc")?.success();
    Ok(Done {
        name: "examples in comments".to_owned(),
        outcome: if success { Outcome::Passed } else { Outcome::Failed },
        took: started.elapsed().as_secs_f64(),
        cpu: None,
        said: Vec::new(),
        alone: false,
    })
}

/// Begins to build what `tests/` has in common of them; all of it is kept in the cache.
fn own_kernels(finished: &Arc<AtomicBool>) {
    let finished = Arc::clone(finished);
    let build = || -> Result<()> {
        for variant in Variant::ALL {
            OwnKernel::ensure(variant)?;
        }
        OwnKernel::ensure(Variant::Bare)?.elsewhere().map(drop)
    };
    std::thread::spawn(move || {
        if let Err(why) = build() {
            // The tests that need one will try again, and say so themselves.
            harness::progress(format!("no kernel of our own: {why:#}"));
        }
        finished.store(true, Ordering::Release);
    });
}
