//! Patch set x kernel image -> [`Bound`]: the old code is the running code, and every address is proven or unambiguous.
//!
//! Run-pre matching places each section of the old objects in the image (`placement`), from there every reference of the
//! patch gets an address (`resolve`). Addresses are kept relative to an exported anchor symbol, because KASLR moves the
//! image as one piece (arch/x86/kernel/head64.c); per-CPU offsets are absolute and do not move.

mod blacklist;
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

use crate::holder::Placement;
use lpbuild_abi as abi;

use crate::codes;
use crate::correlate::OldAtom;
use crate::error::{Error, Place, Problem, Result};
use crate::kernel::KernelImage;
use crate::plan::{Dest, Item, ObjectPair, PatchSet, Role};

pub use blacklist::{Blacklist, Unpatchable};
pub use init::references as init_references;
pub use placement::place;
pub use resolve::{How, Resolved};

/// Exported in every kernel since 5.15 resp. 2.6 (kernel/printk/printk.c).
const ANCHORS: &[&str] = &["_printk", "printk"];

/// Everything below is not part of the image but an offset in the per-CPU area (arch/x86/include/asm/page_64_types.h,
/// `__START_KERNEL_map`).
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

/// A patch set with addresses.
#[derive(Debug)]
pub struct Bound<'a> {
    /// The image.
    pub kernel: &'a KernelImage,
    /// Name of the anchor.
    pub anchor: &'static str,
    /// Link-time address of the anchor.
    pub anchor_address: u64,
    /// Where each pair's old sections are, by pair.
    pub placements: Vec<Placement>,
    /// Kernel symbols the runtime needs, in the order of [`abi::IMPORTS`]; optional ones may be missing.
    pub imports: Vec<(abi::Import, Option<u64>)>,
    /// `__start_notes` and `__stop_notes`.
    pub notes: (u64, u64),
}

impl Bound<'_> {
    /// Distance from the anchor.
    pub fn anchored(&self, address: u64) -> i64 {
        address.wrapping_sub(self.anchor_address) as i64
    }

    /// Address of an old atom.
    pub fn old_address(&self, pair: crate::plan::PairId, old: OldAtom) -> Option<u64> {
        self.placements[pair.0 as usize].address(old.0)
    }

    /// Bytes of the image.
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.kernel.read(address, len)
    }

    /// Does the patch bring this string along for the code of a pair? The kernel does not have it, or not where it can be found.
    pub fn brings(&self, pair: crate::plan::PairId, text: &[u8]) -> bool {
        !self.placements[pair.0 as usize].constants().contains_key(text)
    }

    /// Resolves a destination outside the patch.
    pub fn resolve(&self, pairs: &[ObjectPair], from: &Item, dest: &Dest) -> Result<Resolved, Problem> {
        resolve::resolve(self, pairs, from, dest)
    }
}

/// Binds a patch set to a kernel, or says everything that does not fit.
pub fn bind<'a>(pairs: &[ObjectPair], set: &PatchSet, kernel: &'a KernelImage) -> Result<Bound<'a>> {
    let mut problems = Vec::new();
    let (anchor, anchor_address) = find_anchor(kernel)?;
    let tables = tables::Tables::of(kernel);
    let placed = |p: &ObjectPair| p.placement.clone().unwrap_or_else(|| placement::place_with(&p.old, kernel, &tables));
    let placements: Vec<Placement> = pairs.iter().map(placed).collect();
    let mut imports = Vec::new();
    for import in abi::IMPORTS {
        let address = resolve::by_name(kernel, import.name);
        if address.is_none() && !import.optional {
            let place = Place::symbol(kernel.name(), import.name);
            problems.push(Problem::new(
                codes::LP3005,
                place,
                "the runtime calls it and kallsyms does not have it exactly once",
            ));
        }
        imports.push((*import, address));
    }
    let notes = match (resolve::by_name(kernel, "__start_notes"), resolve::by_name(kernel, "__stop_notes")) {
        (Some(a), Some(b)) if a < b => (a, b),
        _ => {
            let place = Place::symbol(kernel.name(), "__start_notes");
            problems.push(Problem::new(codes::LP3005, place, "the notes that hold the build id cannot be found"));
            (0, 0)
        }
    };
    let bound = Bound { kernel, anchor, anchor_address, placements, imports, notes };
    let blacklist = match Blacklist::of(kernel) {
        Ok(blacklist) => blacklist,
        Err(problem) => {
            problems.push(problem);
            return Err(Error { problems });
        }
    };
    let seals = endbr::Seals::of(kernel);
    let init = init::Init::of(kernel);
    let sealed = keys::ReadOnly::of(kernel);
    for item in &set.items {
        if let Some(sealed) = &sealed {
            sealed.check(&bound, pairs, item, &mut problems);
        }
        // An object that the patch adds has nothing to find.
        let is_new = !pairs[item.pair.0 as usize].old.atoms.iter().any(|a| a.is_code());
        if !is_new && bound.placements[item.pair.0 as usize].counts() == (0, 0) {
            // One sentence says more than a list of every symbol the object does not find.
            let what = "none of its functions is in the kernel image; is it part of a module?";
            problems.push(Problem::new(codes::LP3001, Place::object(&pairs[item.pair.0 as usize].name), what));
            continue;
        }
        check_old(&bound, pairs, item, &blacklist, &mut problems);
        if let Some(init) = &init {
            init.check_old(&bound, pairs, item, &mut problems);
        }
        if let Some(seals) = &seals {
            seals.check(&bound, pairs, item, &mut problems);
        }
        let entry_edges = item.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement));
        for edge in item.edges.iter().chain(entry_edges) {
            match (bound.resolve(pairs, item, &edge.dest), &init) {
                (Err(p), _) => problems.push(p),
                (Ok(found), Some(init)) => init.check_edge(found, pairs, set, item, &edge.dest, &mut problems),
                (Ok(_), None) => {}
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

/// The address of the one symbol of this name; of several, of the only global one.
pub fn address_by_name(kernel: &KernelImage, name: &str) -> Option<u64> {
    resolve::by_name(kernel, name)
}

fn find_anchor(kernel: &KernelImage) -> Result<(&'static str, u64)> {
    for name in ANCHORS {
        if let Some(address) = resolve::by_name(kernel, name) {
            return Ok((name, address));
        }
    }
    Err(Error::new(
        codes::LP3005,
        Place::object(kernel.name()),
        "neither _printk nor printk is in kallsyms exactly once",
    ))
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
