//! The whole flow on one screen. Step name = folder = timing label.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::accept::{Accept, Acceptances, Accepted};
use crate::annotate::summary::Summary;
use crate::annotate::{self, Debug, Note, Rest};
use crate::bind::{self, Bound};
use crate::closure::{self, Dest, ObjectPair, PatchSet, Role};
use crate::codes;
use crate::compare;
use crate::correlate;
use crate::emit::{self, Options, Output};
use crate::error::{Error, Place, Problem, Result};
use crate::ingest;
use crate::kernel::KernelImage;
use crate::manifest::Mode;
use crate::owners;
use crate::promises::{self, Promise};
use crate::sites::{self, Site};
use crate::symbolize::Object;
use crate::whole::{self, Whole};

/// One object in both builds, as read from disk.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path relative to the tree, or the file name.
    pub name: String,
    /// Where the old object was read from, for messages.
    pub old_path: PathBuf,
    /// Where the new object was read from.
    pub new_path: PathBuf,
    /// The old build.
    pub old: Vec<u8>,
    /// The new build.
    pub new: Vec<u8>,
}

/// What the analysis found; nothing has been written yet.
#[derive(Debug)]
pub struct Analysis {
    /// The objects that differ.
    pub pairs: Vec<ObjectPair>,
    /// SHA-256 of each, old and new.
    pub digests: Vec<(String, String)>,
    /// What is carried.
    pub set: PatchSet,
    /// Jump sites: index of the item and the site.
    pub sites: Vec<(usize, Site)>,
    /// When the switch is made.
    pub mode: Mode,
    /// Everything that stands against the patch.
    pub refused: Vec<Problem>,
    /// What would stand against it and the author answers for.
    pub accepted: Vec<Accepted>,
    /// Names the author accepts and nothing needs, `KIND=NAME`.
    pub unneeded: Vec<String>,
    /// Objects with changed functions and no debug information: their types were not compared.
    pub untyped: Vec<String>,
    /// Addresses of the patch that the kernel keeps, or may.
    pub promises: Vec<Promise>,
    /// What debug information says about the carried functions.
    pub notes: Vec<Note>,
    /// Everything in numbers, for whole images.
    pub summary: Option<Summary>,
    /// Time of each phase.
    pub timings: Vec<(&'static str, Duration)>,
}

/// ingest .. annotate, of objects that are all there is to know.
pub fn analyse(sources: &[Source], options: &Options) -> Result<Analysis> {
    analyse_in(sources, Rest::Unknown { sources }, options)
}

/// The same with what is known of the rest of the kernel.
pub fn analyse_in(sources: &[Source], rest: Rest<'_>, options: &Options) -> Result<Analysis> {
    let mut analysis = judged(sources, options)?;
    annotate::objects(&mut analysis, sources, rest);
    analysis.settle(&options.accept);
    Ok(analysis)
}

/// ingest .. sites.
fn judged(sources: &[Source], options: &Options) -> Result<Analysis> {
    let mut t = Timer::new();
    let mut pairs = Vec::new();
    let mut digests = Vec::new();
    for source in sources.iter().filter(|s| s.old != s.new) {
        pairs.push(compared(source, options.lines_kept, &mut t)?);
        digests.push((digest(&source.old), digest(&source.new)));
    }
    let names = owners::moved(sources, &pairs);
    let mut analysis = judge(pairs, digests, t, options);
    analysis.refused.extend(names);
    analysis.refused.extend(bind::init_references(&analysis.pairs, &analysis.set));
    Ok(analysis)
}

/// ingest .. compare of an object that is not carried; `lines_kept` as in [`Options`].
pub fn compare_only(source: &Source, lines_kept: bool) -> Result<ObjectPair> {
    compared(source, lines_kept, &mut Timer::new())
}

fn compared(source: &Source, lines_kept: bool, t: &mut Timer) -> Result<ObjectPair> {
    let old = t.time("ingest", || ingest::read(&source.name, &source.old))?;
    let new = t.time("ingest", || ingest::read(&source.name, &source.new))?;
    let old = t.time("symbolize", || Object::new(old))?;
    let new = t.time("symbolize", || Object::new(new))?;
    let pairs = t.time("correlate", || {
        let debug = correlate::Files::new(&source.old, &source.new, lines_kept);
        correlate::correlate_with(&old, &new, &debug)
    });
    let verdicts = t.time("compare", || compare::compare(&old, &new, &pairs));
    Ok(ObjectPair { name: source.name.clone(), old, new, pairs, verdicts, placement: None })
}

/// Two whole images and what is known about them.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a, 'd> {
    /// The old image.
    pub old: &'a Whole<'d>,
    /// The new image.
    pub new: &'a Whole<'d>,
    /// The kernel a relocatable old image was linked to.
    pub kernel: Option<&'a Whole<'d>>,
    /// Debug information of both.
    pub debug: Option<Debug<'a, 'd>>,
}

/// The same for whole images: scan .. annotate. The digests are left to the caller.
pub fn analyse_whole(images: Images<'_, '_>, options: &Options) -> Analysis {
    let mut t = Timer::new();
    let scanned = t.time("scan", || whole::scan_pair(images.old, images.new));
    let mut parts = t.time("extract", || whole::extract_pair(&scanned, images.kernel));
    let verdicts = t.time("compare", || compare::compare(&parts.old, &parts.new, &parts.pairs));
    let placement = parts.placement.take();
    let name = "vmlinux".into();
    let pair = ObjectPair { name, old: parts.old, new: parts.new, pairs: parts.pairs, verdicts, placement };
    let mut analysis = judge(vec![pair], vec![(String::new(), String::new())], t, options);
    analysis.refused.extend(scanned.compared.without_atoms());
    analysis.refused.sort();
    annotate::whole(&mut analysis, images, &scanned);
    analysis.settle(&options.accept);
    analysis
}

impl Analysis {
    /// Sets aside what the author answers for. The last step: whatever is refused later cannot be accepted.
    fn settle(&mut self, accept: &Acceptances) {
        self.refused.sort();
        self.refused.dedup();
        self.accepted = accept.settle(&mut self.refused);
        self.unneeded = accept.unneeded(&self.accepted);
    }
}

fn judge(pairs: Vec<ObjectPair>, digests: Vec<(String, String)>, mut t: Timer, options: &Options) -> Analysis {
    let set = t.time("closure", || closure::close(&pairs, &options.callbacks));
    let (sites, mut refused) = t.time("sites", || choose_sites(&pairs, &set, options));
    refused.extend(pairs.iter().flat_map(|p| p.verdicts.refused.iter().cloned()).chain(set.refused.iter().cloned()));
    refused.extend(check_originals(&pairs, &set, &sites));
    let mode = choose_mode(&pairs, &set, &sites, options, &mut refused);
    let promises = t.time("promises", || promises::find(&pairs, &set, &promises::new_texts(&pairs)));
    refused.extend(promises::refusals(&promises, options));
    refused.sort();
    refused.dedup();
    let (accepted, unneeded, untyped, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (summary, timings) = (None, t.phases);
    Analysis {
        pairs,
        digests,
        set,
        sites,
        mode,
        refused,
        accepted,
        unneeded,
        untyped,
        promises,
        notes,
        summary,
        timings,
    }
}

/// Whether the two builds differ in anything that runs, or the new one has something other objects can refer to, if only
/// under another name; debug information and the like do not count.
pub fn differs(source: &Source, options: &Options) -> Result<bool> {
    let found = judged(std::slice::from_ref(source), options)?;
    let added = |p: &ObjectPair| {
        p.new.atoms.iter().any(|a| a.global && p.pairs.old_of(crate::correlate::NewAtom(a.id)).is_none())
    };
    Ok(!found.set.items.is_empty()
        || !found.refused.is_empty()
        || found.pairs.iter().any(|p| added(p) || owners::defines_more(p)))
}

/// Refuses, unless accepted, what the names of the kernel say against the patch; [`produce`] asks as well, but of an analysis
/// in which nothing changed only this does.
pub fn check_names(analysis: &mut Analysis, kernel: &KernelImage, options: &Options) {
    // Of whole images all names were compared.
    if analysis.summary.is_some() {
        return;
    }
    let mut moved = owners::moved_in(&analysis.pairs, kernel);
    analysis.accepted.extend(options.accept.settle(&mut moved));
    analysis.accepted.sort();
    analysis.accepted.dedup();
    analysis.unneeded = options.accept.unneeded(&analysis.accepted);
    analysis.refused.extend(moved);
    analysis.refused.sort();
    analysis.refused.dedup();
}

/// bind .. emit. Call only for an analysis that refused nothing.
pub fn produce(analysis: &mut Analysis, kernel: Option<&KernelImage>, options: &Options) -> Result<Output> {
    let mut t = Timer::new();
    if let Some(kernel) = kernel {
        check_names(analysis, kernel, options);
        refuse(std::mem::take(&mut analysis.refused))?;
    }
    let bound: Option<Bound<'_>> = match kernel {
        Some(k) => Some(t.time("bind", || bind::bind(&analysis.pairs, &analysis.set, k))?),
        None => None,
    };
    if let Some(bound) = &bound {
        let promises = t.time("promises", || {
            promises::find(&analysis.pairs, &analysis.set, &|pair, text| bound.brings(pair, text))
        });
        let mut refused = promises::refusals(&promises, options);
        let accepted = options.accept.settle(&mut refused);
        refuse(refused)?;
        analysis.accepted.retain(|a| a.kind != Accept::Promise);
        analysis.accepted.extend(accepted);
        analysis.accepted.sort();
        analysis.unneeded = options.accept.unneeded(&analysis.accepted);
        analysis.promises = promises;
    }
    let input = emit::Input {
        pairs: &analysis.pairs,
        set: &analysis.set,
        sites: &analysis.sites,
        mode: analysis.mode,
        bound: bound.as_ref(),
        digests: &analysis.digests,
        accepted: &analysis.accepted,
        promises: &analysis.promises,
    };
    let output = t.time("emit", || emit::emit(input, options))?;
    analysis.timings.extend(t.phases);
    Ok(output)
}

fn choose_sites(pairs: &[ObjectPair], set: &PatchSet, options: &Options) -> (Vec<(usize, Site)>, Vec<Problem>) {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for (index, item) in set.items.iter().enumerate() {
        let Role::Replaces(old) = item.role else { continue };
        match sites::choose(&pairs[item.pair.0 as usize].old, old.0, options.jump) {
            Ok(site) => found.push((index, site)),
            Err(problem) => refused.push(problem),
        }
    }
    (found, refused)
}

/// Originals that carried code or data refers to must have an entrance.
fn check_originals(pairs: &[ObjectPair], set: &PatchSet, sites: &[(usize, Site)]) -> Vec<Problem> {
    let fixed = |to: (closure::PairId, crate::correlate::NewAtom)| {
        let of = |index: usize| (set.items[index].pair, set.items[index].atom);
        sites.iter().find(|(index, _)| of(*index) == to)?.1.fixed.as_ref()
    };
    let mut problems = Vec::new();
    for item in &set.items {
        for edge in item.edges.iter().chain(item.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement))) {
            let Dest::Original(pair, atom) = edge.dest else { continue };
            let Some(why) = fixed((pair, atom)) else { continue };
            let own = &pairs[item.pair.0 as usize];
            let place = Place::symbol(&own.name, &own.new.atom(item.atom.0).name).at(edge.field.at);
            let name = &pairs[pair.0 as usize].new.atom(atom.0).name;
            problems.push(Problem::new(codes::LP2018, place, format!("the jump in {name} covers {why}")));
        }
    }
    problems
}

/// The mode that was asked for, else the least that keeps several functions together. Both modes that do not stop the
/// machine send calls to the original while old and new are in use, so it must have an entrance.
fn choose_mode(
    pairs: &[ObjectPair],
    set: &PatchSet,
    sites: &[(usize, Site)],
    options: &Options,
    refused: &mut Vec<Problem>,
) -> Mode {
    let fixed: Vec<(&str, &str, &String)> = sites
        .iter()
        .filter_map(|(index, site)| {
            let item = &set.items[*index];
            let Role::Replaces(old) = item.role else { return None };
            let pair = &pairs[item.pair.0 as usize];
            Some((pair.name.as_str(), pair.old.atom(old.0).name.as_str(), site.fixed.as_ref()?))
        })
        .collect();
    match options.mode {
        None if !fixed.is_empty() => Mode::StopMachine,
        None if sites.len() == 1 => Mode::Drain,
        None => Mode::Transition,
        Some(Mode::StopMachine) => Mode::StopMachine,
        Some(mode) => {
            refused.extend(fixed.into_iter().map(|(object, symbol, why)| {
                let what = format!("mode {}, and the jump covers {why}", mode.name());
                Problem::new(codes::LP2102, Place::symbol(object, symbol), what)
            }));
            mode
        }
    }
}

/// Lower-case hex SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    crate::manifest::to_hex(&sha2::Sha256::digest(bytes))
}

/// The problems as an error, if there are any.
pub fn refuse(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
}

struct Timer {
    phases: Vec<(&'static str, Duration)>,
}

impl Timer {
    fn new() -> Self {
        Self { phases: Vec::new() }
    }
    fn time<T>(&mut self, phase: &'static str, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = f();
        let spent = start.elapsed();
        match self.phases.iter_mut().find(|p| p.0 == phase) {
            Some(p) => p.1 += spent,
            None => self.phases.push((phase, spent)),
        }
        out
    }
}
