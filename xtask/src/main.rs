//! Development tasks: one table. `cargo xtask` lists it, `cargo xtask NAME ARGS` runs an entry.

mod bench;
mod bench_build;
mod bench_images;
mod bench_modules;
mod bench_objects;
mod bench_runtime;
mod build;
mod check;
mod corpus;
mod demo;
mod init_text;
mod mutate;
mod own;
mod runpre;
mod runtime;
mod setup;
mod sites;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::{Result, bail};

type Task = fn(&[String]) -> Result<()>;

/// Name, function, help.
const TASKS: &[(&str, Task, &str)] = &[
    (
        "setup",
        setup::task,
        "install packages, fetch QEMU and the stock kernels, prepare their build folders (all cached)",
    ),
    ("runtime", build::runtime_task, "compile the in-kernel runtime and print its path"),
    ("build", build::task, "build the static lpbuild binary and print its path"),
    ("demo", demo::task, "[EXAMPLE] patch a stock kernel in a VM with a fix and take it out again"),
    ("test", test::task, "[FILTER].. all tests, side by side; ends with the slowest ten and one line of totals"),
    ("soak", soak::task, "[PART].. [--minutes M] .. the same tests at length, and mutants: hours (docs/tests.md)"),
    ("vm", vm::task, "--case FILE [--add GUEST=HOST].. boot a stock kernel and run a shell script in it"),
    ("runpre", runpre::task, "MODULE.. | --all N: are the objects of stock modules, compiled again, what was shipped?"),
    (
        "own",
        own::task,
        "NAME [PATCH].. build a small kernel of our own (tests/own), and again with patches; all cached",
    ),
    ("corpus", corpus::task, "every changed file between two kernel versions through lpbuild build; a table"),
    (
        "mutate",
        mutate::task,
        "[--seed N] [--minutes M] changed objects and sources: does lpbuild see each change, and nothing else?",
    ),
    ("bench", bench::task, "[objects|images|build|runtime|loads|modules].. measure what the README promises"),
    ("fmt", check::fmt, "format all code"),
    ("lint", check::lint, "formatting and clippy, warnings are errors"),
    ("ci", check::ci, "lint, then test"),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((name, rest)) = args.split_first() else {
        for (name, _, help) in TASKS {
            println!("cargo xtask {name:8} {help}");
        }
        return Ok(());
    };
    match TASKS.iter().find(|(n, ..)| n == name) {
        Some((_, task, _)) => task(rest),
        None => bail!("no task {name:?}; `cargo xtask` lists them"),
    }
}
