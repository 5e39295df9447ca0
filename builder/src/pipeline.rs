//! The whole flow on one screen. Step name = folder = timing label.

use crate::annotate::Images;
use crate::error::refuse;
use crate::hash::digest;
use crate::pairing::{self, Timer};
use crate::plan::{Analysis, Source};

use crate::accept::Accept;
use crate::annotate::{self, Rest};
use crate::bind::{self, Bound};
use crate::closure::{self};
use crate::codes;
use crate::compare;
use crate::emit::{self, Output};
use crate::error::{Place, Problem, Result};
use crate::kernel::KernelImage;
use crate::owners;
use crate::plan::Options;
use crate::plan::manifest::Mode;
use crate::plan::{Dest, ObjectPair, PatchSet, Role};
use crate::promises::{self};
use crate::sites::{self, Site};
use crate::whole::{self};

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
        pairs.push(pairing::compared(source, options.lines_kept, &mut t)?);
        digests.push((digest(&source.old), digest(&source.new)));
    }
    let names = owners::moved(sources, &pairs);
    let mut analysis = judge(pairs, digests, t, options);
    analysis.refused.extend(names);
    analysis.refused.extend(bind::init_references(&analysis.pairs, &analysis.set));
    Ok(analysis)
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
    let fixed = |to: (crate::plan::PairId, crate::correlate::NewAtom)| {
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
