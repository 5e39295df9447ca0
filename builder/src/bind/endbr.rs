//! Which functions of the image may be called through a pointer.
//!
//! With CONFIG_X86_KERNEL_IBT an indirect call must lead to an ENDBR. Functions whose address nobody takes have none, or
//! have it in `.ibt_endbr_seal`, and the kernel overwrites it at boot (`apply_seal_endbr`, arch/x86/kernel/alternative.c).
//! New code that takes the address of such a function would fault when it is called.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Bound;
use super::resolve::{Resolved, by_name};
use crate::codes;
use crate::error::{Place, Problem};
use crate::kernel::{KernelImage, KernelSection};
use crate::plan::{Dest, Edge, Item, ObjectPair};
use crate::symbolize::{Object, Target, Usage};

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// The seals of an image with IBT.
#[derive(Debug)]
pub struct Seals {
    sealed: BTreeSet<u64>,
    /// Where the image is: the rest of memory is another's.
    own: Vec<Range<u64>>,
}

impl Seals {
    /// Reads the list; nothing for a kernel without IBT.
    pub fn of(kernel: &KernelImage) -> Option<Self> {
        let (start, end) = match kernel.module() {
            // The loader looks for the section (module_finalize, arch/x86/kernel/module.c).
            Some(_) => kernel.section_named(".ibt_endbr_seal").map(|s| (s.addr, s.addr.saturating_add(s.size)))?,
            None => (by_name(kernel, "__ibt_endbr_seal")?, by_name(kernel, "__ibt_endbr_seal_end")?),
        };
        let list = kernel.read(start, usize::try_from(end.checked_sub(start)?).ok()?)?;
        let fields = list.chunks_exact(4).map(|c| i64::from(i32::from_le_bytes([c[0], c[1], c[2], c[3]])));
        let sealed = (start..).step_by(4).zip(fields).map(|(at, distance)| at.wrapping_add_signed(distance)).collect();
        let own = kernel.sections().iter().filter(|s| s.is_code()).map(KernelSection::range).collect();
        Some(Self { sealed, own })
    }

    /// Refuses addresses that carried code or data takes and that may not be called.
    pub fn check(&self, bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, out: &mut Vec<Problem>) {
        let pair = &pairs[item.pair.0 as usize];
        for edge in item.edges.iter().filter(|e| matches!(e.field.usage, Usage::Address | Usage::Pointer)) {
            let Some(Resolved::Image(address, _)) = bound.of(item.pair, &edge.dest) else { continue };
            let Some(name) = taken(pairs, edge) else { continue };
            if !self.own.iter().any(|r| r.contains(&address)) {
                continue;
            }
            let is_function = bound.running.image_at(address).kallsyms().at(address).iter().any(|s| s.is_text());
            if !is_function || takes_it(&pair.old, pairs, &edge.dest) {
                continue;
            }
            let why = match bound.read(address, ENDBR64.len()) {
                Some(bytes) if bytes != ENDBR64 => "it does not begin with ENDBR",
                _ if self.sealed.contains(&address) => "the kernel removes its ENDBR at boot",
                _ => continue,
            };
            let mut place = Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name);
            place.offset = Some(edge.field.at);
            out.push(Problem::new(codes::LP3006, place, format!("it takes the address of {name}: {why}")));
        }
    }
}

/// The function whose first byte the reference means.
fn taken<'p>(pairs: &'p [ObjectPair], edge: &'p Edge) -> Option<&'p str> {
    match &edge.dest {
        Dest::Kernel(name, 0) => Some(name),
        Dest::Old(pair, old, 0) => {
            let atom = pairs[pair.0 as usize].old.atom(old.0);
            atom.is_code().then_some(atom.name.as_str())
        }
        _ => None,
    }
}

/// Does the old object take this address as well, so that the image was linked with that in mind?
fn takes_it(old: &Object, pairs: &[ObjectPair], dest: &Dest) -> bool {
    match dest {
        Dest::Kernel(name, _) => {
            let same = |target: Target| matches!(target, Target::Extern(s, 0) if old.symbol_name(s) == name);
            old.atoms.iter().flat_map(|a| &a.refs).any(|r| r.usage != Usage::Branch && same(r.target))
        }
        Dest::Old(pair, atom, _) if std::ptr::eq(&pairs[pair.0 as usize].old, old) => {
            let atom = old.atom(atom.0);
            let start = atom.start as i64;
            old.incoming(atom.section, start, start + 1).iter().any(|i| i.usage != Usage::Branch)
        }
        _ => false,
    }
}
