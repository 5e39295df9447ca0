//! What debug information says about an analysis: source lines, inlined functions, types with another layout.
//!
//! Input: a judged pair of whole images and their DWARF. Output: an [`Note`] for each replaced function, and refusals.
//! Only the units of replaced functions are parsed. Refused here: types whose existing objects would no longer fit (LP2015).

mod inlined;
pub mod summary;

use std::time::Instant;

use rayon::prelude::*;

use crate::accept::Accept;
use crate::closure::{ObjectPair, PatchSet, Role};
use crate::correlate::{NewAtom, OldAtom};
use crate::debuginfo::{DebugInfo, changed_types};
use crate::error::{Place, Problem};
use crate::pipeline::{Analysis, Images};
use crate::symbolize::{AtomId, Object};
use crate::whole::{Scanned, Whole};

/// What is known about one replaced or new function.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Index of the item in the patch set.
    pub item: usize,
    /// The file it was compiled from.
    pub unit: Option<String>,
    /// Where it begins in the source, `file:line`.
    pub source: Option<String>,
    /// The inlined function the difference is in.
    pub inlined: Option<String>,
}

/// Debug information of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Debug<'a, 'd> {
    /// Of the old image.
    pub old: &'a DebugInfo<'d>,
    /// Of the new image.
    pub new: &'a DebugInfo<'d>,
}

/// Adds notes, refusals because of types, and the summary to the analysis of whole images.
pub fn whole(analysis: &mut Analysis, images: Images<'_, '_>, scanned: &Scanned<'_, '_>) {
    let start = Instant::now();
    let [pair] = &mut analysis.pairs[..] else { return };
    if let Some(debug) = images.debug {
        analysis.notes = notes(debug, images.old, images.new, pair, &analysis.set);
        let (refused, ignored) = types(debug, images.old, images.new, pair, &analysis.set);
        analysis.refused.extend(refused);
        analysis.refused.sort();
        pair.verdicts.ignored.extend(ignored);
        pair.verdicts.ignored.sort();
        for note in &analysis.notes {
            if let (Some(inlined), Some(item)) = (&note.inlined, analysis.set.items.get_mut(note.item)) {
                item.why = format!("{}; {inlined}", item.why);
            }
        }
    }
    let directories = [images.debug.map(|d| Directories::of(d.old)), images.debug.map(|d| Directories::of(d.new))];
    let directory = |is_old: bool, addr: u64| directories[usize::from(!is_old)].as_ref()?.at(addr);
    analysis.summary = Some(summary::of(scanned, pair, &analysis.set, &analysis.refused, &directory));
    analysis.timings.push(("annotate", start.elapsed()));
}

/// Directories of code, by address.
struct Directories(Vec<(u64, u64, String)>);

impl Directories {
    fn of(debug: &DebugInfo<'_>) -> Self {
        let mut list = Vec::new();
        for unit in debug.units() {
            let Some(name) = unit.name else { continue };
            let dir = name.rsplit_once('/').map_or(".", |(d, _)| d);
            list.extend(unit.ranges.iter().map(|r| (r.start, r.end, dir.to_owned())));
        }
        list.sort_unstable();
        Self(list)
    }
    fn at(&self, addr: u64) -> Option<String> {
        let after = self.0.partition_point(|r| r.0 <= addr);
        let (_, end, dir) = self.0.get(after.checked_sub(1)?)?;
        (addr < *end).then(|| dir.clone())
    }
}

/// Address of an atom of an image; a made-up one in relocatable files, the same the debug information was opened with.
pub fn address(whole: &Whole<'_>, object: &Object, id: AtomId) -> Option<u64> {
    let atom = object.atom(id);
    let area = whole.areas.get((atom.section.0 as usize).checked_sub(1)?)?;
    Some(area.addr + atom.start)
}

/// Notes on all carried functions.
pub fn notes(debug: Debug<'_, '_>, old: &Whole<'_>, new: &Whole<'_>, pair: &ObjectPair, set: &PatchSet) -> Vec<Note> {
    let items: Vec<_> = set.items.iter().enumerate().collect();
    let note = |(index, item): &(usize, &crate::closure::Item)| {
        let at = address(new, &pair.new, item.atom.0)?;
        let function = debug.new.function_at(at);
        let unit = debug.new.unit_at(at).and_then(|u| debug.new.unit_name(u)).map(str::to_owned);
        let source = function.as_ref().and_then(|f| Some(format!("{}:{}", f.file.as_ref()?, f.line?)));
        let inlined = match item.role {
            Role::Replaces(o) => {
                let there = address(old, &pair.old, o.0)?;
                inlined::explain(debug, pair, (o, there), (item.atom, at))
            }
            _ => None,
        };
        Some(Note { item: *index, unit, source, inlined })
    };
    items.par_iter().filter_map(note).collect()
}

/// Types the replaced functions use and whose layout changed, and what does not matter of them, in words.
pub fn types(
    debug: Debug<'_, '_>,
    old: &Whole<'_>,
    new: &Whole<'_>,
    pair: &ObjectPair,
    set: &PatchSet,
) -> (Vec<Problem>, Vec<crate::compare::Ignored>) {
    let functions: Vec<(OldAtom, NewAtom)> = set
        .items
        .iter()
        .filter_map(|i| match i.role {
            Role::Replaces(o) => Some((o, i.atom)),
            _ => None,
        })
        .collect();
    let addresses: Vec<(u64, u64)> = functions
        .iter()
        .filter_map(|(o, n)| Some((address(old, &pair.old, o.0)?, address(new, &pair.new, n.0)?)))
        .collect();
    if addresses.len() != functions.len() {
        return (Vec::new(), Vec::new());
    }
    let (mut refused, mut ignored) = (Vec::new(), Vec::new());
    for change in changed_types(debug.old, debug.new, &addresses) {
        let Some((_, n)) = functions.get(change.function) else { continue };
        let name = pair.new.atom(n.0).name.clone();
        // A structure that is only reached through others is rarely touched; one the function names is.
        const NEAR: u32 = 1;
        if !change.additive && change.distance <= NEAR {
            let what = format!("{}: {}", change.name, change.what);
            let problem = Problem::new("LP2015", Place::symbol(&pair.name, &name), what);
            refused.push(problem.acceptable(Accept::Type, change.name));
        } else {
            let why = if change.additive { "nothing that was there moved" } else { "only reached through other types" };
            ignored.push(crate::compare::Ignored {
                object: pair.name.clone(),
                symbol: change.name,
                reason: format!("{}; {name} uses it; {why}", change.what),
            });
        }
    }
    (refused, ignored)
}
