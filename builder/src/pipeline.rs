//! The whole flow on one screen. Step name = folder = timing label.

use crate::annotate::Images;
use crate::backend::detour::{self, Lowering, Needs};
use crate::error::Error;
use crate::error::refuse;
use crate::hash::digest;
use crate::holder::{HolderName, Running};
use crate::pairing::{self, Timer};
use crate::plan::{Analysis, Source};

use crate::accept::Accept;
use crate::annotate::{self, Rest};
use crate::bind::{self, Bound};
use crate::closure::{self};
use crate::compare;
use crate::correlate::Files;
use crate::emit::{self, Output};
use crate::error::Result;
use crate::explain::stored;
use crate::kernel::KernelImage;
use crate::marks;
use crate::owners;
use crate::plan::Options;
use crate::plan::{ObjectPair, PatchSet};
use crate::promises::{self};
use crate::whole::{self};

/// ingest .. annotate, of objects that are all there is to know.
pub fn analyse(sources: &[Source], options: &Options) -> Result<Analysis> {
    analyse_in(sources, Rest::Unknown { sources }, options)
}

/// The same with what is known of the rest of the kernel.
pub fn analyse_in(sources: &[Source], rest: Rest<'_>, options: &Options) -> Result<Analysis> {
    let (mut analysis, debug) = judged(sources, options)?;
    analysis.refused.extend(pairing::undeclared(&analysis.pairs, options));
    annotate::objects(&mut analysis, 0, &debug, rest);
    if options.explain {
        analysis.lines = annotate::lines_of_objects(&analysis, 0, &debug);
    }
    analysis.settle(&options.accept);
    analysis.accepted.splice(0..0, options.accepted.iter().cloned());
    analysis.unneeded = options.accept.unneeded(&analysis.accepted);
    // Only a patch tells what it was made of.
    if analysis.refused.is_empty() && !analysis.set.items.is_empty() {
        let mut t = Timer::new();
        let differing = sources.iter().filter(|s| s.old != s.new);
        analysis.digests = t.time("digest", || differing.map(|s| (digest(&s.old), digest(&s.new))).collect());
        analysis.timings.extend(t.phases);
    }
    Ok(analysis)
}

/// ingest .. sites, with the debug information of each pair.
fn judged<'s>(sources: &'s [Source], options: &Options) -> Result<(Analysis, Vec<Files<'s>>)> {
    let mut t = Timer::new();
    let (pairs, debug) = compared(sources, options, &mut t)?;
    let names = owners::moved(sources, &pairs);
    let mut analysis = judge(pairs, t, options);
    analysis.refused.extend(names);
    analysis.refused.extend(bind::init_references(&analysis.pairs, &analysis.set));
    Ok((analysis, debug))
}

/// The pairs that differ, with the debug information of each.
fn compared<'s>(sources: &'s [Source], options: &Options, t: &mut Timer) -> Result<(Vec<ObjectPair>, Vec<Files<'s>>)> {
    /// Of more pairs, what was read for one is not kept while the others are compared.
    const KEPT: usize = 8;
    let (mut pairs, mut debug) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(|s| s.old != s.new) {
        let (pair, opened) = pairing::compared(source, options, t)?;
        let kept = pairs.len() < KEPT;
        debug.push(if kept { opened } else { Files::new(&source.old, &source.new, options.lines_kept) });
        pairs.push(pair);
    }
    Ok((pairs, debug))
}

/// The same for whole images and what differs of modules beside them: scan .. annotate. The images are the first pair. The digests
/// are left to the caller.
pub fn analyse_whole(images: Images<'_, '_>, modules: &[Source], options: &Options) -> Result<Analysis> {
    let mut t = Timer::new();
    let scanned = t.time("scan", || whole::scan_pair(images.old, images.new));
    let mut parts = t.time("extract", || whole::extract_pair(&scanned, images.kernel));
    let verdicts = t.time("compare", || compare::compare(&parts.old, &parts.new, &parts.pairs, &options.data));
    let placement = parts.placement.take();
    let holder = HolderName::Vmlinux;
    let name = holder.to_string();
    let pair = ObjectPair { name, old: parts.old, new: parts.new, pairs: parts.pairs, verdicts, holder, placement };
    let (objects, debug) = compared(modules, options, &mut t)?;
    let names = owners::moved(modules, &objects);
    let mut analysis = judge(std::iter::once(pair).chain(objects).collect(), t, options);
    analysis.refused.extend(names);
    analysis.refused.extend(scanned.compared.without_atoms());
    analysis.refused.extend(pairing::undeclared(&analysis.pairs, options));
    analysis.refused.sort();
    annotate::whole(&mut analysis, images, &scanned);
    annotate::objects(&mut analysis, 1, &debug, Rest::Beside { old: images.old, sources: modules });
    if options.explain {
        analysis.lines = annotate::lines_of_images(&analysis, images);
        analysis.lines.extend(annotate::lines_of_objects(&analysis, 1, &debug));
    }
    analysis.settle(&options.accept);
    Ok(analysis)
}

fn judge(pairs: Vec<ObjectPair>, mut t: Timer, options: &Options) -> Analysis {
    let (options, marks) = marks::applied(&pairs, options);
    let set = t.time("closure", || closure::close(&pairs, &options.callbacks));
    let (detour, mut refused) = t.time("sites", || detour::judge(&pairs, &set, &options));
    refused.extend(pairs.iter().flat_map(|p| p.verdicts.refused.iter().cloned()).chain(set.refused.iter().cloned()));
    let promises = t.time("promises", || promises::find(&pairs, &set, &promises::new_texts(&pairs)));
    refused.extend(marks);
    refused.extend(promises::refusals(&promises, &options));
    let given_back = promises::given_back(&promises, &options);
    refused.sort();
    refused.dedup();
    let (accepted, unneeded, untyped, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Those who make a patch of it fill them in.
    let digests = vec![(String::new(), String::new()); pairs.len()];
    let (summary, timings, lines) = (None, t.phases, Vec::new());
    Analysis {
        pairs,
        digests,
        set,
        detour,
        refused,
        accepted,
        unneeded,
        untyped,
        given_back,
        options,
        promises,
        notes,
        lines,
        summary,
        timings,
    }
}

/// Whether the two builds differ in anything that runs, or the new one has something other objects can refer to, if only
/// under another name; debug information and the like do not count.
pub fn differs(source: &Source, options: &Options) -> Result<bool> {
    let (found, _) = judged(std::slice::from_ref(source), options)?;
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
    check_names_on(analysis, kernel.into(), options);
}

/// The same with modules.
pub fn check_names_on(analysis: &mut Analysis, running: Running<'_>, options: &Options) {
    // Of whole images, which come first, all names were compared.
    let objects = usize::from(analysis.summary.is_some());
    let mut moved = owners::moved_in(analysis.pairs.get(objects..).unwrap_or_default(), running);
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
    produce_on(analysis, kernel.map(Running::from), options)
}

/// The same with modules.
pub fn produce_on(analysis: &mut Analysis, running: Option<Running<'_>>, options: &Options) -> Result<Output> {
    let mut t = Timer::new();
    let options = &Options { accept: options.accept.clone(), ..analysis.options.clone() };
    if let Some(running) = running {
        check_names_on(analysis, running, options);
        refuse(std::mem::take(&mut analysis.refused))?;
    }
    let bound: Option<(Bound<'_>, Needs)> = match running {
        Some(k) => Some(t.time("bind", || bind_to(&analysis.pairs, &analysis.set, k))?),
        None => None,
    };
    if let Some((bound, _)) = &bound {
        let in_patch = |pair, dest: &_| bound.of(pair, dest) == Some(bind::Resolved::InPatch);
        refuse(detour::lasting(&analysis.pairs, &analysis.set, options, &in_patch))?;
        let promises = t.time("promises", || {
            promises::find(&analysis.pairs, &analysis.set, &|pair, text| bound.brings(pair, text))
        });
        let mut refused = promises::refusals(&promises, options);
        let mut accepted = options.accept.settle(&mut refused);
        refuse(refused)?;
        accepted.extend(promises::given_back(&promises, options));
        analysis.accepted.retain(|a| a.kind != Accept::Promise);
        analysis.accepted.extend(accepted);
        analysis.accepted.sort();
        analysis.unneeded = options.accept.unneeded(&analysis.accepted);
        analysis.promises = promises;
    }
    let mut output = t.time("emit", || {
        let mut back_end = Lowering::new(analysis, bound.as_ref().map(|(b, n)| (b, n.clone())), options);
        emit::emit(emit::Draft { analysis, bound: bound.as_ref().map(|b| &b.0), options }, &mut back_end)
    })?;
    if options.explain {
        output.why = Some(stored::text(analysis, &output.manifest)?);
    }
    analysis.timings.extend(t.phases);
    Ok(output)
}

/// Binds the patch, and the runtime, to a kernel.
fn bind_to<'k>(pairs: &[ObjectPair], set: &PatchSet, running: Running<'k>) -> Result<(Bound<'k>, Needs)> {
    let (needs, missing) = Needs::of(running.kernel);
    let bound = bind::bind(pairs, set, running);
    let mut problems = bound.as_ref().err().map_or(Vec::new(), |e| e.problems.clone());
    problems.extend(missing);
    problems.sort();
    problems.dedup();
    match bound {
        Ok(bound) if problems.is_empty() => Ok((bound, needs)),
        _ => Err(Error { problems }),
    }
}
