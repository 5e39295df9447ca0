//! What debug information says about an analysis: source lines, inlined functions, types that mean something else.
//!
//! Input: judged pairs of objects, or of whole images, and their DWARF. Output: refusals, for images also a [`Note`] for each
//! replaced function. Only the units of carried functions are parsed. Refused here: types whose existing objects would no longer
//! fit (LP2015), functions that unpatched code calls in another way (LP2019), inline functions that changed for only some of
//! their users (LP2020).

mod inlined;
mod inlines;
mod lines;
mod sides;
mod signatures;
pub mod summary;
mod types;

pub use lines::{of_images as lines_of_images, of_objects as lines_of_objects};

use crate::plan::Note;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Instant;

use rayon::prelude::*;

use crate::compare::Ignored;
use crate::correlate::Files;
use crate::debuginfo::DebugInfo;
use crate::error::Problem;
use crate::kernel::Symvers;
use crate::parallel;
use crate::plan::{Analysis, Source};
use crate::plan::{ObjectPair, PairId, PatchSet, Role};
use crate::symbolize::{AtomId, Object};
use crate::whole::{Scanned, Whole};
use sides::Sides;

/// Debug information of both sides.
#[derive(Clone, Copy, Debug)]
pub struct Debug<'a, 'd> {
    /// Of the old image.
    pub old: &'a DebugInfo<'d>,
    /// Of the new image.
    pub new: &'a DebugInfo<'d>,
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

/// Adds notes, refusals because of types, and the summary to the analysis of whole images, which are the first pair.
pub fn whole(analysis: &mut Analysis, images: Images<'_, '_>, scanned: &Scanned<'_, '_>) {
    let start = Instant::now();
    let Some((pair, others)) = analysis.pairs.split_first_mut() else { return };
    if let Some(debug) = images.debug {
        analysis.notes = notes(debug, images.old, images.new, pair, &analysis.set);
        let old_at = |id| address(images.old, &pair.old, id);
        let new_at = |id| address(images.new, &pair.new, id);
        let sides = Sides { debug, pair, id: PairId(0), old_at: &old_at, new_at: &new_at };
        let (refused, ignored) = types::compare(sides, &analysis.set);
        analysis.refused.extend(refused);
        analysis.refused.extend(signatures::compare(sides, &analysis.set, Rest::Image { old: images.old }));
        analysis.refused.sort();
        pair.verdicts.ignored.extend(ignored);
        pair.verdicts.ignored.sort();
        for note in &analysis.notes {
            if let (Some(inlined), Some(item)) = (&note.inlined, analysis.set.items.get_mut(note.item)) {
                item.inlined = Some(inlined.clone());
            }
        }
    } else if analysis.set.items.iter().any(|i| i.pair == PairId(0)) {
        analysis.untyped.push(pair.name.clone());
    }
    let of_others = |p: &&Problem| others.iter().any(|o| p.place.object.as_deref() == Some(&*o.name));
    let refused: Vec<Problem> = analysis.refused.iter().filter(|p| !of_others(p)).cloned().collect();
    let directories = [images.debug.map(|d| Directories::of(d.old)), images.debug.map(|d| Directories::of(d.new))];
    let directory = |is_old: bool, addr: u64| directories[usize::from(!is_old)].as_ref()?.at(addr);
    analysis.summary = Some(summary::of(scanned, pair, &analysis.set, &refused, &directory));
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

/// Notes on all carried functions of images, which are the first pair.
pub fn notes(debug: Debug<'_, '_>, old: &Whole<'_>, new: &Whole<'_>, pair: &ObjectPair, set: &PatchSet) -> Vec<Note> {
    let items: Vec<_> = set.items.iter().enumerate().filter(|(_, i)| i.pair == PairId(0)).collect();
    let note = |(index, item): &(usize, &crate::plan::Item)| {
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

/// What is known of the kernel beside the objects that differ.
#[derive(Clone, Copy, Debug)]
pub enum Rest<'s> {
    /// Nothing but the objects that were given, those without a difference as well.
    Unknown {
        /// All of them.
        sources: &'s [Source],
    },
    /// Every other object of the image was compiled from the new source or does not read what changed.
    Built {
        /// What is exported, whichever object says so.
        exports: &'s Symvers,
        /// What became of objects of modules.
        left: Left<'s>,
    },
    /// The whole image was compared.
    Image {
        /// The one that runs.
        old: &'s Whole<'s>,
    },
    /// The whole image and the modules beside it were compared.
    Beside {
        /// The image that runs.
        old: &'s Whole<'s>,
        /// Modules that differ.
        sources: &'s [Source],
    },
}

/// Objects of modules that keep the code they have.
#[derive(Clone, Copy, Debug)]
pub enum Left<'s> {
    /// There are none.
    Nothing,
    /// Some that can come out otherwise, and nobody compared them: they may call what is exported, and have any inline function of a header.
    Unknown {
        /// The headers that are changed, and the lines of the definitions that change.
        edited: &'s EditedHeaders,
    },
}

/// Lines by header.
pub type EditedHeaders = BTreeMap<String, Vec<RangeInclusive<u64>>>;

/// Adds what debug information says of pairs of objects: refusals, and which pairs have none. `first` is the first pair of objects.
pub fn objects(analysis: &mut Analysis, first: u32, debug: &[Files<'_>], rest: Rest<'_>) {
    let start = Instant::now();
    let set = &analysis.set;
    let objects = analysis.pairs.iter().skip(first as usize);
    let numbered: Vec<(u32, (&ObjectPair, &Files<'_>))> = (first..).zip(objects.zip(debug)).collect();
    let found: Vec<Found> = parallel::map(&numbered, |(index, (pair, files))| {
        let id = PairId(*index);
        if !set.items.iter().any(|i| i.pair == id && i.is_code()) {
            return Found::default();
        }
        let Some([old, new]) = files.both() else {
            return Found { without: true, ..Found::default() };
        };
        let old_at = |id| sides::object_address(&pair.old, id);
        let new_at = |id| sides::object_address(&pair.new, id);
        let sides = Sides { debug: Debug { old, new }, pair, id, old_at: &old_at, new_at: &new_at };
        let (mut refused, ignored) = types::compare(sides, set);
        refused.extend(signatures::compare(sides, set, rest));
        let bodies = if rest.has_other_users() { inlines::bodies(sides, set, rest) } else { inlines::Bodies::new() };
        Found { without: false, refused, ignored, bodies }
    });
    let mut all_bodies = Vec::new();
    for (pair, found) in analysis.pairs.iter_mut().skip(first as usize).zip(found) {
        analysis.refused.extend(found.refused);
        pair.verdicts.ignored.extend(found.ignored);
        pair.verdicts.ignored.sort();
        if found.without {
            analysis.untyped.push(pair.name.clone());
        }
        all_bodies.push(found.bodies);
    }
    analysis.refused.extend(inlines::judge(
        analysis.pairs.get(first as usize..).unwrap_or_default(),
        &all_bodies,
        rest,
    ));
    analysis.timings.push(("annotate", start.elapsed()));
}

impl Rest<'_> {
    /// May an inline function have users that are not compared?
    fn has_other_users(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Built { left, .. } => matches!(left, Left::Unknown { .. }),
            Self::Image { .. } | Self::Beside { .. } => false,
        }
    }
}

/// What was found out about one pair.
#[derive(Default)]
struct Found {
    /// A side has no debug information.
    without: bool,
    refused: Vec<Problem>,
    ignored: Vec<Ignored>,
    /// Inline functions of headers that changed.
    bodies: inlines::Bodies,
}
