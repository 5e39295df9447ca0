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
mod late;
mod names;
mod placement;
mod proof;
mod resolve;
mod tables;
mod tracing;

use crate::holder::{Holder, HolderName, Placement, Running};
use crate::plan::PairId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
    /// The kernel.
    pub holder: Holder<'a>,
    /// The same with its modules.
    pub running: Running<'a>,
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

    /// Bytes of the kernel, or of a module.
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.running.image_at(address).read(address, len)
    }

    /// The module that has something at an address.
    pub fn module_at(&self, address: u64) -> Option<&str> {
        self.running.image_at(address).module().map(|m| m.name.as_str())
    }

    /// The section of a module that something at an address belongs to, and where it is there.
    pub fn section_of(&self, address: u64) -> Option<(&str, u64)> {
        let section = self.running.image_at(address).part_at(address)?;
        Some((&section.name, address - section.addr))
    }

    /// Does the patch bring this string along for the code of a pair? The kernel does not have it, or not where it can be found.
    pub fn brings(&self, pair: PairId, text: &[u8]) -> bool {
        !self.placements[pair.0 as usize].constants().contains_key(text)
    }

    /// Where a reference of a pair's carried code leads; nothing for one that was refused.
    pub fn of(&self, pair: PairId, dest: &Dest) -> Option<Resolved> {
        match dest {
            Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_) => Some(Resolved::InPatch),
            Dest::Kernel(..) | Dest::Old(..) | Dest::Constant(_) => self.refs.get(pair.0 as usize)?.get(dest).copied(),
        }
    }
}

/// What is asked of a holder's image, beside its names.
struct Rules<'k> {
    blacklist: Arc<Blacklist>,
    seals: Option<endbr::Seals>,
    init: Option<init::Init>,
    tables: tables::Tables<'k>,
}

impl<'k> Rules<'k> {
    fn of(image: &'k KernelImage) -> Result<Self, Problem> {
        let of_module = || Ok(Arc::new(Blacklist::of_module(image)));
        let blacklist = if image.module().is_some() { of_module() } else { Blacklist::of(image) }?;
        let (seals, init, tables) = (endbr::Seals::of(image), init::Init::of(image), tables::Tables::of(image));
        Ok(Self { blacklist, seals, init, tables })
    }
}

/// Binds the patch set.
///
/// # Errors
/// LP2003, LP2007, LP2025, LP2026, LP3001 to LP3006, LP3009: everything that does not fit, at once.
pub fn bind<'a>(pairs: &[ObjectPair], set: &PatchSet, running: Running<'a>) -> Result<Bound<'a>> {
    let mut problems = Vec::new();
    let holder = Holder::kernel(running.kernel)?;
    let mut rules = BTreeMap::new();
    for name in pairs.iter().map(|p| &p.holder).chain([&HolderName::Vmlinux]) {
        let Some(image) = running.image(name) else {
            let what = "its file was not given";
            return Err(Error::new(codes::LP3009, Place::object(name.as_str()), what));
        };
        if !rules.contains_key(name) {
            rules.insert(name.clone(), (image, Rules::of(image)?));
        }
    }
    let of = |pair: PairId| &rules[&pairs[pair.0 as usize].holder];
    let placed = |p: &ObjectPair| {
        let (image, rules) = &rules[&p.holder];
        p.placement.clone().unwrap_or_else(|| placement::place_with(&p.old, image, &rules.tables))
    };
    let placements: Vec<Placement> = pairs.iter().map(placed).collect();
    // An object that the patch adds has nothing to find.
    let is_new = |pair: PairId| !pairs[pair.0 as usize].old.atoms.iter().any(|a| a.is_code());
    let is_found = |item: &&Item| is_new(item.pair) || placements[item.pair.0 as usize].counts() != (0, 0);
    let mut refs: Vec<HashMap<Dest, Resolved>> = vec![HashMap::new(); pairs.len()];
    let resolver = Resolver { running, pairs, placements: &placements };
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
    let bound = Bound { holder, running, placements, refs };
    let sealed = keys::ReadOnly::of(running.kernel);
    for item in &set.items {
        if let Some(sealed) = &sealed {
            sealed.check(&bound, pairs, item, &mut problems);
        }
        let pair = &pairs[item.pair.0 as usize];
        if !is_new(item.pair) && bound.placements[item.pair.0 as usize].counts() == (0, 0) {
            // One sentence says more than a list of every symbol the object does not find.
            let what = match &pair.holder {
                HolderName::Vmlinux => {
                    "none of its functions is in the kernel image; is it part of a module?".to_owned()
                }
                HolderName::Module(module) => format!("none of its functions is in the file of the module {module}"),
            };
            problems.push(Problem::new(codes::LP3001, Place::object(&pair.name), what));
            continue;
        }
        let (_, own) = of(item.pair);
        check_old(&bound, pairs, item, &own.blacklist, &mut problems);
        late::check(&bound, pairs, set, item, &mut problems);
        // What an address means is asked of who has it: an item of a module refers to the kernel as well.
        for (_, there) in rules.values() {
            if let Some(seals) = &there.seals {
                seals.check(&bound, pairs, item, &mut problems);
            }
            let Some(init) = &there.init else { continue };
            init.check_old(&bound, pairs, item, &mut problems);
            for edge in item.all_edges() {
                init.check_edge(&bound, pairs, set, item, &edge.dest, &mut problems);
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

/// The old function, and every piece of it, must be what runs; a constant that changes in its place what is there.
fn check_old(bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, black: &Blacklist, out: &mut Vec<Problem>) {
    let pair = &pairs[item.pair.0 as usize];
    if let Role::InPlace(old) = item.role
        && let Err((code, why)) = bound.placements[item.pair.0 as usize].check_content(old.0)
    {
        out.push(Problem::new(code, Place::symbol(&pair.name, &pair.old.atom(old.0).name), why));
    }
    let Role::Replaces(old) = item.role else { return };
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
