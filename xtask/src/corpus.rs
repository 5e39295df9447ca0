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
const MANY: usize = 400;

/// Builds a live patch of every configured source file that changed between two versions.
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
    /// Only those of the kernel, or of modules.
    #[arg(long, value_parser = ["all", "builtin", "module"], default_value = "all")]
    part: String,
    /// So many of them, chosen by the seed; 0: all.
    #[arg(long, default_value_t = 0)]
    sample: usize,
    /// Of the choice, and of what is tried.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Load so many of those that are built, chosen by the seed, with `lpbuild try --strict`.
    #[arg(long, default_value_t = 0, value_name = "N")]
    trials: usize,
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
    let wanted = |part: ObjectPart| match args.part.as_str() {
        "builtin" => part == ObjectPart::Builtin,
        "module" => part == ObjectPart::Module,
        _ => true,
    };
    let mut parts: BTreeMap<String, ObjectPart> = BTreeMap::new();
    for (object, part) in layout.objects.iter().filter(|(_, part)| wanted(**part)) {
        let file = format!("{}.c", object.trim_end_matches(".o"));
        if file.contains(&args.only) && differs(&kernel, &file) {
            parts.insert(file, *part);
        }
    }
    let all = parts.len();
    println!("{all} source files differ between {} and {}", kernel.version, kernel.new_version);
    let mut files: Vec<String> = parts.keys().cloned().collect();
    if args.sample != 0 {
        choose(&mut files, args.sample, args.seed);
    }
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
    let mut table = table(&kernel, &parts, &done);
    if args.trials != 0 {
        table += &trials(&kernel, &lpbuild, &done, &args)?;
    }
    println!("\n{table}");
    if let Some(path) = &args.write {
        fs::write(path, &table).with_context(|| format!("write {}", path.display()))?;
    }
    if done.values().any(|o| matches!(o, Outcome::Broken(_))) {
        bail!("some files are broken");
    }
    Ok(())
}

/// Leaves `n` of the files, chosen by the seed, in their order.
fn choose(files: &mut Vec<String>, n: usize, seed: u64) {
    files.sort_by_key(|f| lpbuild::hash::digest(format!("{seed} {f}").as_bytes()));
    files.truncate(n);
    files.sort();
}

/// The folder of a file's patch.
fn folder(file: &str) -> PathBuf {
    workspace_root().join("target/corpus").join(file.replace(['/', '.', '-'], "_"))
}

/// Loads some of what was built in a guest, and unloads it.
fn trials(kernel: &Kernel, lpbuild: &Path, done: &BTreeMap<String, Outcome>, args: &Args) -> Result<String> {
    let built = done.iter().filter(|(_, o)| matches!(o, Outcome::Built { .. }));
    let mut files: Vec<String> = built.map(|(file, _)| file.clone()).collect();
    choose(&mut files, args.trials, args.seed);
    let mut failed = Vec::new();
    // Nothing is known of their effects.
    let script = workspace_root().join("target/corpus/nothing.sh");
    fs::write(&script, "true\n")?;
    for file in &files {
        let mut c = cmd::command(lpbuild);
        c.arg("try")
            .arg(folder(file).join("out/corpus.ko"))
            .arg("--image")
            .arg(&kernel.vmlinuz)
            .args(["--strict", "--json", "--script"])
            .arg(&script);
        let out = c.env("PATH", harness::emulator::path()?).output().context("start lpbuild try")?;
        fs::write(folder(file).join("trial"), [&out.stdout[..], &out.stderr[..]].concat())?;
        println!("{file}: {}", if out.status.success() { "passes" } else { "FAILS" });
        if !out.status.success() {
            failed.push(file.as_str());
        }
    }
    let mut text = format!(
        "\n{} of {} loaded and unloaded in a guest (seed {})\n",
        files.len() - failed.len(),
        files.len(),
        args.seed
    );
    for file in failed {
        text += &format!("- {file} failed\n");
    }
    Ok(text)
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
        let dir = folder(file);
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

/// The part of the tree that a file belongs to, for the table.
fn subsystem(file: &str) -> String {
    let mut parts = file.split('/');
    let first = parts.next().unwrap_or_default();
    match (first, parts.next(), parts.next()) {
        ("arch", _, Some(third)) => format!("arch/x86/{third}"),
        ("drivers" | "net" | "fs" | "sound", Some(second), Some(_)) => format!("{first}/{second}"),
        _ => first.to_owned(),
    }
}

/// Numbers of outcomes: built, nothing changed, refused, left out, broken.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([usize; 5]);

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        let at = match outcome {
            Outcome::Built { .. } => 0,
            Outcome::Nothing => 1,
            Outcome::Refused(_) => 2,
            Outcome::LeftOut => 3,
            Outcome::Broken(_) => 4,
        };
        self.0[at] += 1;
    }

    fn row(self, name: &str) -> String {
        let [built, nothing, refused, left, broken] = self.0;
        let all: usize = self.0.iter().sum();
        let share = 100 * (built + nothing) / all.max(1);
        format!("| {name} | {all} | {built} | {nothing} | {refused} | {left} | {broken} | {share} % |\n")
    }
}

fn table(kernel: &Kernel, parts: &BTreeMap<String, ObjectPart>, done: &BTreeMap<String, Outcome>) -> String {
    let mut by_part: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut by_subsystem: BTreeMap<String, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    let mut by_code: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut functions = 0;
    for (file, outcome) in done {
        let part = if parts.get(file) == Some(&ObjectPart::Module) { "modules" } else { "the kernel" };
        by_part.entry(part).or_default().add(outcome);
        by_subsystem.entry(subsystem(file)).or_default().add(outcome);
        all.add(outcome);
        match outcome {
            Outcome::Built { functions: n } => functions += n,
            Outcome::Refused(codes) => codes.iter().for_each(|code| by_code.entry(code).or_default().push(file)),
            Outcome::Nothing | Outcome::LeftOut | Outcome::Broken(_) => {}
        }
    }
    let mut text = format!(
        "{} {} -> {}: {} of {} changed source files tried, {functions} functions replaced\n\n",
        kernel.release,
        kernel.version,
        kernel.new_version,
        done.len(),
        parts.len()
    );
    text += "| files of | tried | built | nothing changed | refused | left out | broken | built or nothing |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    text += &by_part.iter().map(|(name, n)| n.row(name)).collect::<String>();
    text += &all.row("all");
    text += &by_subsystem.iter().map(|(name, n)| n.row(name)).collect::<String>();
    text += &format!("\nLeft out: needs headers that more than {MANY} objects read.\n\n");
    text += "| refused with | files | which |\n|---|---|---|\n";
    for (code, files) in by_code {
        let title = lpbuild::codes::find(code).map_or("", |c| c.title);
        text += &format!("| {code} {title} | {} | {} |\n", files.len(), files.join(", "));
    }
    text
}
