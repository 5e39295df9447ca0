//! `cargo xtask mutate`: mutants of random objects of the kernel, and what lpbuild says of them, against a comparison of its
//! own (`harness::mutate`). Ends with an error when anything was missed, or reported without being so.
//!
//! Mutants are numbered: [`GROUP`] in a row are of one object. What mutant K is depends on the seed and K alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use harness::change::Change;
use harness::mutate::answer::Fault;
use harness::mutate::damage::{self, Verdict};
use harness::mutate::random::Random;
use harness::mutate::reading::Names;
use harness::mutate::source;
use harness::mutate::trial::Base;
use harness::tree::Tree;
use harness::workspace_root;
use lpbuild::kernel::KernelImage;
use lpbuild::source::kbuild::ObjectPart;

/// Mutants of one object.
const GROUP: u64 = 200;
/// Of these, how many are edits of the source, which take seconds each.
const SOURCES: u64 = 8;
/// And how many are damaged old objects.
const DAMAGES: u64 = 48;

/// Mutants of objects against a comparison of their meaning.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask mutate", no_binary_name = true)]
struct Args {
    /// Where all choices come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin no further mutant after this many minutes.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Kernel series.
    #[arg(long, default_value = "6.1")]
    series: String,
    /// Only mutants of this kind.
    #[arg(long)]
    kind: Option<Kind>,
    /// Only this mutant.
    #[arg(long, value_name = "K")]
    only: Option<u64>,
    /// Objects worked on at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Kind {
    /// An edited source file.
    Source,
    /// A changed object.
    Binary,
    /// A damaged old object against the kernel's image.
    Damage,
}

impl Kind {
    fn of(number: u64) -> Self {
        match number % GROUP {
            n if n < SOURCES => Kind::Source,
            n if n < SOURCES + DAMAGES => Kind::Damage,
            _ => Kind::Binary,
        }
    }
}

/// What came of the mutants of one kind.
#[derive(Clone, Debug, Default)]
struct Count {
    tried: u64,
    /// Nothing differs, and nothing was reported.
    same: u64,
    faults: BTreeMap<Fault, u64>,
    /// Sources that do not compile, objects that have nothing to change.
    without: u64,
    refused: u64,
    harmless: u64,
}

struct Run<'a> {
    args: &'a Args,
    tree: &'a Tree,
    image: &'a KernelImage,
    objects: &'a [String],
    counts: &'a Mutex<BTreeMap<Kind, Count>>,
}

pub fn task(args: &[String]) -> Result<()> {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => e.exit(),
    };
    let (kernel, tree) = crate::setup::run(&args.series)?;
    let image = KernelImage::open(&kernel.vmlinuz)?;
    let objects = objects(&tree);
    println!("{}: {} objects; seed {}", kernel.release, objects.len(), args.seed);
    let counts = Mutex::default();
    let run = Run { args: &args, tree: &tree, image: &image, objects: &objects, counts: &counts };
    match args.only {
        Some(number) => run.group(number / GROUP, &mut || false)?,
        None => {
            let until = Instant::now() + Duration::from_secs(args.minutes * 60);
            let next = AtomicU64::new(0);
            std::thread::scope(|scope| {
                let work = || -> Result<()> {
                    while Instant::now() < until {
                        run.group(next.fetch_add(1, Ordering::Relaxed), &mut || Instant::now() >= until)?;
                    }
                    Ok(())
                };
                let threads: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
                threads.into_iter().try_for_each(|t| t.join().expect("no thread panics"))
            })?;
        }
    }
    let counts = counts.into_inner().expect("no thread panics");
    let mut wrong = 0;
    for (kind, c) in &counts {
        let faults = |f: Fault| c.faults.get(&f).copied().unwrap_or(0);
        wrong += faults(Fault::Missed) + faults(Fault::False);
        if *kind == Kind::Damage {
            let (n, refused, harmless) = (c.tried, c.refused, c.harmless);
            println!(
                "damaged: {n}, refused: {refused}, without effect on the patch: {harmless}, accepted although they lead elsewhere: {}",
                faults(Fault::Missed)
            );
            continue;
        }
        println!(
            "{kind:?}: {} mutants, {} of them without a difference, missed: {}, false: {}, unsure: {} ({} gave nothing to try)",
            c.tried,
            c.same,
            faults(Fault::Missed),
            faults(Fault::False),
            faults(Fault::Unsure),
            c.without
        );
    }
    if wrong > 0 {
        bail!("{wrong} findings");
    }
    Ok(())
}

/// Built-in objects made of C, in order.
fn objects(tree: &Tree) -> Vec<String> {
    let own = tree.layout().objects.iter().filter(|(_, part)| **part == ObjectPart::Builtin).map(|(name, _)| name);
    // What is made for another world than the kernel's text.
    let apart = ["arch/x86/entry/vdso/", "arch/x86/boot/", "arch/x86/realmode/", "arch/x86/purgatory/"];
    let is_c =
        |o: &&String| !apart.iter().any(|a| o.starts_with(a)) && tree.source.join(o.replace(".o", ".c")).is_file();
    own.filter(is_c).cloned().collect()
}

impl Run<'_> {
    /// All mutants of one object.
    fn group(&self, group: u64, stop: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut random = Random::of(self.args.seed, u64::MAX - group);
        let object = random.pick(self.objects).context("the kernel has no objects of C")?;
        let Some(bytes) = self.tree.built(object, &Change::none())? else { return Ok(()) };
        let base = Base::of(object, bytes).with_context(|| format!("read {object}"))?;
        for number in group * GROUP..(group + 1) * GROUP {
            let kind = Kind::of(number);
            let wanted = self.args.only.map_or(self.args.kind.is_none_or(|k| k == kind), |only| only == number);
            if !wanted {
                continue;
            }
            if stop() {
                break;
            }
            self.mutant(&base, kind, number)?;
        }
        Ok(())
    }

    fn mutant(&self, base: &Base, kind: Kind, number: u64) -> Result<()> {
        let mut random = Random::of(self.args.seed, number);
        let (what, truth, faults, objects, is_same) = match kind {
            Kind::Damage => {
                let Some(trial) = damage::trial(base, self.image, &mut random)? else { return self.without(kind) };
                let mut counts = self.counts.lock().expect("no thread panics");
                let count = counts.entry(kind).or_default();
                let verdict = match &trial.verdict {
                    Verdict::Refused(why) => {
                        count.refused += 1;
                        format!("refused: {why}")
                    }
                    Verdict::Harmless => {
                        count.harmless += 1;
                        "without effect".into()
                    }
                    Verdict::Accepted(_) => "accepted".into(),
                };
                (trial.what.clone(), verdict, trial.faults(), trial.objects, false)
            }
            Kind::Binary => {
                let Some(outcome) = base.binary(&mut random)? else { return self.without(kind) };
                (outcome.what, outcome.truth, outcome.faults, (base.bytes.clone(), outcome.bytes), outcome.is_same)
            }
            Kind::Source => {
                let path = base.name.replace(".o", ".c");
                let text = fs::read(self.tree.source.join(&path)).with_context(|| format!("read {path}"))?;
                let Some(edit) = source::edit(&String::from_utf8_lossy(&text), &mut random) else {
                    return self.without(kind);
                };
                let Some(new) = self.tree.built(&base.name, &Change::none().file(&path, edit.text))? else {
                    return self.without(kind);
                };
                let truth = base.difference(&new, Names::Normal)?;
                let outcome = base.judged(edit.what, new, &truth, Names::Normal);
                (outcome.what, outcome.truth, outcome.faults, (base.bytes.clone(), outcome.bytes), outcome.is_same)
            }
        };
        let mut counts = self.counts.lock().expect("no thread panics");
        let count = counts.entry(kind).or_default();
        count.tried += 1;
        count.same += u64::from(is_same && faults.is_empty());
        for (fault, _) in &faults {
            *count.faults.entry(*fault).or_default() += 1;
        }
        drop(counts);
        if self.args.only.is_some() {
            println!("{number} {}: {what}\n    truth: {truth}", base.name);
        }
        if !faults.is_empty() || self.args.only.is_some() {
            let kept = self.keep(number, &objects)?;
            for (fault, text) in &faults {
                println!("{fault:?} {number} {}: {what}\n    truth: {truth}\n    {text}", base.name);
            }
            let (seed, series) = (self.args.seed, &self.args.series);
            println!(
                "    again: cargo xtask mutate --series {series} --seed {seed} --only {number}; objects: {}",
                kept.display()
            );
        }
        Ok(())
    }

    fn without(&self, kind: Kind) -> Result<()> {
        self.counts.lock().expect("no thread panics").entry(kind).or_default().without += 1;
        Ok(())
    }

    /// Keeps a pair of objects to look at.
    fn keep(&self, number: u64, (old, new): &(Vec<u8>, Vec<u8>)) -> Result<PathBuf> {
        let (seed, series) = (self.args.seed, &self.args.series);
        let dir = workspace_root().join("target/mutate").join(format!("{series}-{seed}-{number}"));
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        fs::write(dir.join("old.o"), old)?;
        fs::write(dir.join("new.o"), new)?;
        Ok(dir)
    }
}
