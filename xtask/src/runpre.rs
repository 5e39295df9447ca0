//! `cargo xtask runpre`: the objects of stock modules, compiled as `lpbuild build` compiles the old side, held against the files of
//! those modules.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Result, bail};
use clap::Parser;
use harness::runpre::{Found, RunPre};

/// Compiles the objects of modules and compares them with the shipped files.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask runpre", no_binary_name = true)]
struct Args {
    /// Kernel series.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// This many modules, spread over all of them.
    #[arg(long, value_name = "N", conflicts_with = "module")]
    all: Option<usize>,
    /// Modules at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Names or paths of modules: binfmt_misc, fs/binfmt_misc.
    #[arg(required_unless_present = "all")]
    module: Vec<String>,
}

pub fn task(args: &[String]) -> Result<()> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    let (kernel, _) = crate::setup::run(&args.series)?;
    let kernel = RunPre::of(&kernel)?;
    let mut modules = Vec::new();
    for name in &args.module {
        let named = kernel.named(Some(name));
        if named.is_empty() {
            bail!("this kernel has no module {name}");
        }
        modules.extend(named);
    }
    if let Some(n) = args.all {
        let all = kernel.named(None);
        let step = all.len().div_ceil(n.max(1)).max(1);
        modules.extend(all.into_iter().step_by(step));
    }
    let todo = Mutex::new(modules.iter());
    let done: Mutex<(Vec<Found>, Vec<String>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(module) = todo.lock().expect("no thread panics").next() else { return };
                    let found = kernel.module(module);
                    print(module, &found);
                    let mut done = done.lock().expect("no thread panics");
                    match found {
                        Ok(found) => done.0.push(found),
                        Err(e) => done.1.push(format!("{module}: {e:#}")),
                    }
                }
            });
        }
    });
    let (found, failed) = done.into_inner().expect("no thread panics");
    summary(&found, &failed);
    Ok(())
}

fn print(module: &str, found: &Result<Found>) {
    match found {
        Ok(f) => {
            let (n, all) = (f.functions, f.functions + f.constants + f.others.len());
            println!(
                "{module}: {} objects, {n} functions and {} of constants, {} of {all} not",
                f.objects,
                f.constants,
                f.others.len()
            );
            for other in &f.others {
                println!("    {other}");
            }
            for (name, here, there) in f.odd_tables() {
                println!("    {name}: {here} entries in the objects, {there} in the file");
            }
        }
        Err(e) => println!("{module}: {e:#}"),
    }
}

fn summary(found: &[Found], failed: &[String]) {
    let sum = |f: &dyn Fn(&Found) -> usize| found.iter().map(f).sum::<usize>();
    println!("\n{} modules of {} objects; {} not looked at", found.len(), sum(&|f| f.objects), failed.len());
    println!("{} functions and {} of constant data are what was shipped", sum(&|f| f.functions), sum(&|f| f.constants));
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for other in found.iter().flat_map(|f| &f.others) {
        *reasons.entry(kind(other)).or_default() += 1;
    }
    for (reason, n) in reasons {
        println!("{n:6} not: {reason}");
    }
    let mut tables: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for (name, n) in found.iter().flat_map(|f| &f.tables) {
        let sum = tables.entry(name).or_default();
        *sum = (sum.0 + n.0, sum.1 + n.1, sum.2 + usize::from(n.0 != n.1));
    }
    for (name, (here, there, odd)) in tables {
        println!("{name}: {here} entries in the objects, {there} in the files, not the same number in {odd} modules");
    }
}

/// A reason without names and numbers.
fn kind(other: &str) -> String {
    let why = other.splitn(3, ": ").skip(1).collect::<Vec<_>>().join(" ");
    let words = why.split_whitespace().map(|w| {
        let plain = w.chars().all(|c| c.is_ascii_lowercase() || ",.;:".contains(c));
        if plain || w.starts_with("LP") { w } else { "_" }
    });
    let mut words: Vec<&str> = words.collect();
    words.dedup();
    words.join(" ")
}
