//! `cargo xtask soak`: what `cargo xtask test` does in part, at length: the same tests with other numbers, and mutants. Hours
//! rather than minutes; for a change of the runtime, of the binding or of the comparison before it is relied on.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::Parser;

use crate::{mutate, test};

/// Long runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", no_binary_name = true)]
struct Args {
    /// Only these: model, damage, guests, images, references, mutants.
    part: Vec<String>,
    /// Schedules of each test of the model.
    #[arg(long, default_value_t = 1_000_000)]
    schedules: u64,
    /// Damaged records given to the runtime.
    #[arg(long, default_value_t = 1_000_000)]
    damages: u64,
    /// Rounds of each loop in a guest.
    #[arg(long, default_value_t = 100)]
    cycles: u32,
    /// Minutes of mutants, for each kernel.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Of the mutants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A part that is tests: its name, the tests (`PROGRAM TEST` contains one of these), and what makes them long.
struct Part {
    name: &'static str,
    tests: &'static [&'static str],
    variable: &'static str,
    value: fn(&Args) -> String,
}

const PARTS: &[Part] = &[
    Part { name: "model", tests: &["model "], variable: "LPBUILD_SCHEDULES", value: |a| a.schedules.to_string() },
    Part { name: "damage", tests: &["host damage"], variable: "LPBUILD_DAMAGES", value: |a| a.damages.to_string() },
    Part {
        name: "guests",
        tests: &["vm_modes ", "vm_neighbours ", "vm_stacking ", "vm_modules ", "vm_module_fixes "],
        variable: "LPBUILD_CYCLES",
        value: |a| a.cycles.to_string(),
    },
    Part {
        name: "images",
        tests: &["whole_images ", "own_kernels "],
        variable: "LPBUILD_OWN_FIXES",
        value: |_| "all".to_owned(),
    },
    Part {
        name: "references",
        tests: &["redirected "],
        variable: "LPBUILD_TEST_REDIRECT_ALL",
        value: |_| "1".to_owned(),
    },
];
const MUTANTS: &str = "mutants";

pub fn task(args: &[String]) -> Result<()> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    let known = |name: &String| name == MUTANTS || PARTS.iter().any(|p| p.name == name);
    if let Some(other) = args.part.iter().find(|p| !known(p)) {
        let names: Vec<&str> = PARTS.iter().map(|p| p.name).chain([MUTANTS]).collect();
        bail!("no part {other:?}; there are: {}", names.join(", "));
    }
    let asked = |name: &str| args.part.is_empty() || args.part.iter().any(|p| p == name);
    let mut failed = Vec::new();
    // One part that fails does not keep the others from being tried.
    let mut note = |name: &str, result: Result<()>| {
        if let Err(why) = result {
            eprintln!("xtask: {name}: {why:#}");
            failed.push(name.to_owned());
        }
    };
    for part in PARTS.iter().filter(|p| asked(p.name)) {
        let tests: Vec<String> = part.tests.iter().map(ToString::to_string).collect();
        let value = (part.value)(&args);
        println!("{}: {}={value}", part.name, part.variable);
        note(part.name, test::run(&tests, &[(part.variable.to_owned(), OsString::from(value))]));
    }
    if asked(MUTANTS) {
        for wanted in harness::kernels::wanted()? {
            let (minutes, seed) = (args.minutes.to_string(), args.seed.to_string());
            let list = ["--series", &wanted.series, "--minutes", &minutes, "--seed", &seed].map(str::to_owned);
            note(MUTANTS, mutate::task(&list));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}
