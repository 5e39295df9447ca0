//! Patch set x kernel image -> [`Bound`]: the old code is the running code, and every address is proven or unambiguous.
//!
//! Run-pre matching places each section of the old objects in the image (`placement`), from there every reference of the
//! patch gets an address (`resolve`). Addresses are kept relative to an exported anchor symbol, because KASLR moves the
//! image as one piece (arch/x86/kernel/head64.c); per-CPU offsets are absolute and do not move.

mod blacklist;
mod bringup;
mod calls;
mod endbr;
mod field;
mod init;
mod int3;
mod keys;
mod names;
mod placement;
mod proof;
mod resolve;
mod tables;
mod tracing;

use crate::holder::Holder;
use crate::holder::Placement;
use crate::plan::PairId;
use std::collections::HashMap;

use crate::codes;
use crate::correlate::OldAtom;
use crate::error::{Error, Place, Problem, Result};
use crate::kernel::KernelImage;
use crate::plan::{Dest, Item, ObjectPair, PatchSet, Role};

pub use blacklist::{BY_HAND, Blacklist, Unpatchable};
pub use init::references as init_references;
pub use placement::place;
use resolve::Resolver;
pub use resolve::{FoundBy, Resolved};

/// Everything below is not part of the image but an offset in the per-CPU area (arch/x86/include/asm/page_64_types.h,
/// `__START_KERNEL_map`).
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// A patch set with addresses.
#[derive(Debug)]
pub struct Bound<'a> {
    /// Who holds the old code.
    pub holder: Holder<'a>,
    /// Where each pair's old sections are, by pair.
    pub placements: Vec<Placement>,
    /// Where each reference of each pair's carried code leads; each was resolved once.
    refs: Vec<HashMap<Dest, Resolved>>,
}

impl Bound<'_> {
    /// Address of an old atom.
    pub fn old_address(&self, pair: PairId, old: OldAtom) -> Option<u64> {
        self.placements[pair.0 as usize].address(old.0)
    }

    /// Bytes of the holder.
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.holder.image.read(address, len)
    }

    /// Does the patch bring this string along for the code of a pair? The kernel does not have it, or not where it can be found.
    pub fn brings(&self, pair: PairId, text: &[u8]) -> bool {
        !self.placements[pair.0 as usize].constants().contains_key(text)
    }

    /// Where a reference of a pair's carried code leads; nothing for one that was refused.
    pub fn of(&self, pair: PairId, dest: &Dest) -> Option<Resolved> {
        match dest {
            Dest::Carried(..) | Dest::Original(..) => Some(Resolved::InPatch),
            Dest::Kernel(..) | Dest::Old(..) | Dest::Constant(_) => self.refs.get(pair.0 as usize)?.get(dest).copied(),
        }
    }
}

/// Binds the patch set.
///
/// # Errors
/// LP2003, LP2007, LP2025, LP3001 to LP3006: everything that does not fit, at once.
pub fn bind<'a>(pairs: &[ObjectPair], set: &PatchSet, kernel: &'a KernelImage) -> Result<Bound<'a>> {
    let mut problems = Vec::new();
    let holder = Holder::kernel(kernel)?;
    let tables = tables::Tables::of(kernel);
    let placed = |p: &ObjectPair| p.placement.clone().unwrap_or_else(|| placement::place_with(&p.old, kernel, &tables));
    let placements: Vec<Placement> = pairs.iter().map(placed).collect();
    let blacklist = Blacklist::of(kernel)?;
    // An object that the patch adds has nothing to find.
    let is_new = |pair: PairId| !pairs[pair.0 as usize].old.atoms.iter().any(|a| a.is_code());
    let is_found = |item: &&Item| is_new(item.pair) || placements[item.pair.0 as usize].counts() != (0, 0);
    let mut refs: Vec<HashMap<Dest, Resolved>> = vec![HashMap::new(); pairs.len()];
    let resolver = Resolver { kernel, pairs, placements: &placements };
    for item in set.items.iter().filter(is_found) {
        for edge in item.all_edges() {
            if refs[item.pair.0 as usize].contains_key(&edge.dest) {
                continue;
            }
            match resolver.resolve(item.pair, &edge.dest) {
                Ok(found) => drop(refs[item.pair.0 as usize].insert(edge.dest.clone(), found)),
                Err(problem) => problems.push(problem),
            }
        }
    }
    let bound = Bound { holder, placements, refs };
    let seals = endbr::Seals::of(kernel);
    let init = init::Init::of(kernel);
    let sealed = keys::ReadOnly::of(kernel);
    for item in &set.items {
        if let Some(sealed) = &sealed {
            sealed.check(&bound, pairs, item, &mut problems);
        }
        if !is_new(item.pair) && bound.placements[item.pair.0 as usize].counts() == (0, 0) {
            // One sentence says more than a list of every symbol the object does not find.
            let what = "none of its functions is in the kernel image; is it part of a module?";
            problems.push(Problem::new(codes::LP3001, Place::object(&pairs[item.pair.0 as usize].name), what));
            continue;
        }
        check_old(&bound, pairs, item, &blacklist, &mut problems);
        if let Some(seals) = &seals {
            seals.check(&bound, pairs, item, &mut problems);
        }
        let Some(init) = &init else { continue };
        init.check_old(&bound, pairs, item, &mut problems);
        for edge in item.all_edges() {
            if let Some(found) = bound.of(item.pair, &edge.dest) {
                init.check_edge(found, pairs, set, item, &edge.dest, &mut problems);
            }
        }
    }
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(bound) } else { Err(Error { problems }) }
}

/// Everything of an image that must not be replaced: the kernel's own lists, what the runtime is built on, and the way from an
/// int3 to its handler.
///
/// # Errors
/// LP3005 when the image does not show that way.
pub fn unpatchable(kernel: &KernelImage) -> Result<Vec<Unpatchable>> {
    let black = Blacklist::of(kernel).map_err(|problem| Error { problems: vec![problem] })?;
    Ok(black.list(kernel))
}

/// The old function, and every piece of it, must be what runs.
fn check_old(bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, black: &Blacklist, out: &mut Vec<Problem>) {
    let Role::Replaces(old) = item.role else { return };
    let pair = &pairs[item.pair.0 as usize];
    let placement = &bound.placements[item.pair.0 as usize];
    for atom in pair.old.family(old.0).into_iter().map(|id| pair.old.atom(id)).filter(|a| a.is_code()) {
        let place = Place::symbol(&pair.name, &atom.name);
        match placement.check(atom.id) {
            Ok(()) => {}
            Err(problem) => {
                out.push(Problem::new(problem.0, place, problem.1));
                continue;
            }
        }
        let Some(address) = placement.address(atom.id) else { continue };
        if let Some(why) = black.why(address, atom.size()) {
            out.push(Problem::new(codes::LP2007, place, why));
        }
    }
}
