//! `cargo xtask corpus`: every changed source file between two versions of a kernel, one patch each, through
//! `lpbuild build`; a table of what became of them.
//!
//! A file that does not compile without changed headers gets those of them that it reads as well. When so many objects read
//! them that building would take too long, the file is left out, and counted as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use harness::kernels::Kernel;
use harness::module::Maker;
use harness::tree::Tree;
use harness::{cmd, workspace_root};
use lpbuild::source::includes::IncludeIndex;
use lpbuild::source::kbuild::ObjectPart;
use serde_json::Value;

/// Objects at most that a patch of a file with its headers may concern.
const MANY: usize = 80;

/// Builds a live patch of every built-in source file that changed between two versions.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask corpus", no_binary_name = true)]
struct Args {
    /// Kernel series.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Begin no further file after this many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only files whose path contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the table to this file as well.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Built { functions: usize },
    Nothing,
    Refused(Vec<String>),
    Broken(String),
    LeftOut,
}

pub fn task(args: &[String]) -> Result<()> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    let (kernel, tree) = crate::setup::run(&args.series)?;
    let lpbuild = crate::build::lpbuild()?;
    let maker = Maker { lpbuild: &lpbuild, kernel: &kernel, tree: &tree };
    let layout = tree.layout();
    let index = IncludeIndex::read(&tree.source, &tree.build, layout);
    let headers = changed_headers(&kernel)?;
    let sources = layout.objects.iter().filter(|(_, part)| **part == ObjectPart::Builtin);
    let mut files: Vec<String> = Vec::new();
    for (object, _) in sources {
        let file = format!("{}.c", object.trim_end_matches(".o"));
        if file.contains(&args.only) && differs(&kernel, &file) {
            files.push(file);
        }
    }
    println!("{} built-in source files differ between {} and {}", files.len(), kernel.version, kernel.new_version);
    let until = Instant::now() + Duration::from_secs(args.minutes * 60);
    let todo = Mutex::new(files.iter());
    let done: Mutex<BTreeMap<String, Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let Some(file) = todo.lock().expect("no thread panics").next() else { return Ok(()) };
                if Instant::now() > until {
                    return Ok(());
                }
                let run = Run { maker, kernel: &kernel, tree: &tree, index: &index, headers: &headers };
                let outcome = run.file(file)?;
                println!("{file}: {outcome:?}");
                done.lock().expect("no thread panics").insert(file.clone(), outcome);
            }
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().expect("no thread panics"))
    })?;
    let done = done.into_inner().expect("no thread panics");
    let table = table(&kernel, files.len(), &done);
    println!("\n{table}");
    if let Some(path) = &args.write {
        fs::write(path, &table).with_context(|| format!("write {}", path.display()))?;
    }
    if done.values().any(|o| matches!(o, Outcome::Broken(_))) {
        bail!("some files are broken");
    }
    Ok(())
}

struct Run<'a> {
    maker: Maker<'a>,
    kernel: &'a Kernel,
    tree: &'a Tree,
    index: &'a IncludeIndex,
    headers: &'a BTreeSet<String>,
}

impl Run<'_> {
    fn file(&self, file: &str) -> Result<Outcome> {
        let alone = self.build(file, &[file.to_string()])?;
        if !matches!(&alone, Outcome::Broken(code) if code == "LP6213") {
            return Ok(alone);
        }
        // It uses something that a changed header brings.
        let object = format!("{}.o", file.trim_end_matches(".c"));
        let layout = self.tree.layout();
        let reads = |h: &&String| self.index.dependents(layout, [*h]).objects.contains_key(&object);
        let needed: Vec<String> = self.headers.iter().filter(reads).cloned().collect();
        let concerned = self.index.dependents(layout, &needed).objects;
        if concerned.len() > MANY {
            return Ok(Outcome::LeftOut);
        }
        // What else of their objects changed belongs to the same change.
        let mut all: BTreeSet<String> = needed.into_iter().chain([file.to_string()]).collect();
        let others = concerned.keys().map(|o| format!("{}.c", o.trim_end_matches(".o")));
        all.extend(others.filter(|f| differs(self.kernel, f)));
        self.build(file, &all.into_iter().collect::<Vec<_>>())
    }

    fn build(&self, file: &str, files: &[String]) -> Result<Outcome> {
        let dir = workspace_root().join("target/corpus").join(file.replace(['/', '.', '-'], "_"));
        fs::create_dir_all(&dir)?;
        let patch = dir.join("fix.patch");
        fs::write(&patch, diff(self.kernel, files)?)?;
        let out = dir.join("out");
        let mut c = self.maker.build(&[&patch], &out);
        c.args(["--json", "--jobs", "1", "--name", "corpus"]);
        let output = c.output().with_context(|| format!("start {}", self.maker.lpbuild.display()))?;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&output.stderr);
        fs::write(dir.join("stderr"), stderr.as_bytes())?;
        let codes = || -> Vec<String> {
            let words = stderr.split(|c: char| !c.is_ascii_alphanumeric());
            let found: BTreeSet<&str> = words.filter(|w| w.len() == 6 && w.starts_with("LP")).collect();
            found.into_iter().map(str::to_string).collect()
        };
        Ok(match output.status.code() {
            Some(0) => Outcome::Built { functions: report["changed"].as_array().map_or(0, Vec::len) },
            Some(3) => Outcome::Nothing,
            Some(4) => Outcome::Refused(codes()),
            _ => Outcome::Broken(codes().first().cloned().unwrap_or_else(|| "no code".into())),
        })
    }
}

fn differs(kernel: &Kernel, file: &str) -> bool {
    let (old, new) = (fs::read(kernel.old_source().join(file)), fs::read(kernel.new_source().join(file)));
    matches!((old, new), (Ok(old), Ok(new)) if old != new)
}

/// A patch that makes the named files what they are in the newer version.
fn diff(kernel: &Kernel, files: &[String]) -> Result<String> {
    let mut text = String::new();
    for file in files {
        let (old, new) = (kernel.old_source().join(file), kernel.new_source().join(file));
        let mut c = cmd::command("diff");
        let old_label = if old.exists() { format!("a/{file}") } else { "/dev/null".into() };
        c.args(["-u", "-N", "--label", &old_label, "--label", &format!("b/{file}")]).arg(&old).arg(&new);
        let out = c.output().context("start diff")?;
        text += &String::from_utf8_lossy(&out.stdout);
    }
    Ok(text)
}

/// Headers that differ, those that only the newer version has included.
fn changed_headers(kernel: &Kernel) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let root = kernel.new_source();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))?.flatten() {
            let path = folder.join(entry.file_name());
            let other = path.starts_with("arch") && path.components().count() > 1 && !path.starts_with("arch/x86");
            if entry.file_type()?.is_dir() {
                if !other && !["tools", "Documentation", "samples"].iter().any(|d| path == Path::new(d)) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "h")
                && fs::read(root.join(&path)).ok() != fs::read(kernel.old_source().join(&path)).ok()
            {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

fn table(kernel: &Kernel, all: usize, done: &BTreeMap<String, Outcome>) -> String {
    let count = |f: &dyn Fn(&Outcome) -> bool| done.values().filter(|o| f(o)).count();
    let functions: usize =
        done.values().map(|o| if let Outcome::Built { functions } = o { *functions } else { 0 }).sum();
    let mut by_code: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, outcome) in done {
        if let Outcome::Refused(codes) = outcome {
            for code in codes {
                by_code.entry(code).or_default().push(file);
            }
        }
    }
    let mut text = format!(
        "{} {} -> {}: {} of {all} changed built-in source files tried\n\n| outcome | files |\n|---|---|\n",
        kernel.release,
        kernel.version,
        kernel.new_version,
        done.len()
    );
    text += &format!("| built | {} ({functions} functions) |\n", count(&|o| matches!(o, Outcome::Built { .. })));
    text += &format!("| nothing changed | {} |\n", count(&|o| *o == Outcome::Nothing));
    text += &format!("| refused | {} |\n", count(&|o| matches!(o, Outcome::Refused(_))));
    text += &format!(
        "| left out: needs headers that more than {MANY} objects read | {} |\n",
        count(&|o| *o == Outcome::LeftOut)
    );
    text += &format!("| broken | {} |\n\n", count(&|o| matches!(o, Outcome::Broken(_))));
    text += "| refused with | files | for example |\n|---|---|---|\n";
    for (code, files) in by_code {
        let title = lpbuild::codes::find(code).map_or("", |c| c.title);
        text += &format!("| {code} {title} | {} | {} |\n", files.len(), files[0]);
    }
    text
}
