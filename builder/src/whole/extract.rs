//! Candidates -> two [`Object`]s and their pairs: what the ordinary phases need, in the form they know.
//!
//! Code is decoded, and table entries are taken apart, only for the candidates, their pieces, and what has no twin.
//! References are written as relocations, as an assembler would have left them: to strings by their content, to places only
//! the linker script names by that name.

use std::collections::HashMap;

use super::families::{self, parents};
use super::same::ImageSides;
use super::side::{Extra, Side};
use super::{Compared, Location, SpanId, Use, Whole};
use crate::correlate::{Level, NewAtom, OldAtom, Pairs};
use crate::kernel::IMAGE_BASE;
use crate::symbolize::{AtomId, Object};

/// Both sides, ready for `compare` and what follows.
#[derive(Debug)]
pub struct Extract {
    /// What matters of the old image.
    pub old: Object,
    /// What matters of the new image.
    pub new: Object,
    /// Which is which; pairs that are proven the same are marked.
    pub pairs: Pairs,
    /// Functions of which it cannot be told whether they changed.
    pub unproven: Vec<Unproven>,
    /// Addresses of strings the old functions refer to, by content.
    pub constants: HashMap<Vec<u8>, u64>,
    /// Addresses of what only the linker script names, and of undefined symbols.
    pub externs: HashMap<String, u64>,
}

/// A function with a constant that may be an address.
#[derive(Clone, Debug)]
pub struct Unproven {
    /// The new one.
    pub span: SpanId,
    /// Offset of the instruction, in bytes.
    pub at: u32,
    /// The constant.
    pub value: u64,
}

/// Makes the two objects.
pub fn extract(s: ImageSides<'_, '_>, compared: &Compared) -> Extract {
    let (old_parents, new_parents) = rayon::join(|| parents(s.old, s.old_uses), || parents(s.new, s.new_uses));
    let [mut old_wanted, mut new_wanted] = families::wanted(&s, &compared.code, [&old_parents, &new_parents]);
    let (olds, news): (Vec<SpanId>, Vec<SpanId>) = compared.data.iter().copied().unzip();
    families::who_may_get(s.old, s.old_uses, &old_parents, &olds, &mut old_wanted);
    families::who_may_get(s.new, s.new_uses, &new_parents, &news, &mut new_wanted);
    let mut unproven = Vec::new();
    for (span, at, value) in s.new_uses.unproven.iter().filter(|u| new_wanted[u.0.0 as usize]) {
        // A variable that has not moved has the same offset, and a number is the same number: the bytes mean the same.
        let same = match (s.old.locate(*value), s.new.locate(*value)) {
            (Location::Span(o, d), Location::Span(n, e)) if *value < IMAGE_BASE => {
                s.twins.new_of(o) == Some(n) && d == e
            }
            _ => s.old.markers_at(*value).any(|a| s.new.markers_at(*value).any(|b| a == b)),
        };
        if !same {
            unproven.push(Unproven { span: *span, at: *at, value: *value });
        }
    }
    let paired_old = |id: SpanId| s.twins.new_of(id).is_some();
    let paired_new = |id: SpanId| s.twins.old_of(id).is_some();
    let ((old, old_extra), (mut new, new_extra)) = rayon::join(
        || Side::new(s.old, s.old_uses, s.old_cuts, s.proof, &old_wanted, &old_parents, &paired_old).build(),
        || Side::new(s.new, s.new_uses, s.new_cuts, s.proof, &new_wanted, &new_parents, &paired_new).build(),
    );
    let mut pairs = Pairs::default();
    for (o, n) in s.twins.iter() {
        pairs.pair(OldAtom(AtomId(o.0)), NewAtom(AtomId(n.0)), s.twins.rung(o));
    }
    let candidates = compared.code.iter().chain(&compared.data);
    pairs.prove_all_but(candidates.map(|(o, _)| OldAtom(AtomId(o.0))).collect());
    pair_gaps(&s, compared, (&old, &old_extra), (&new, &new_extra), &mut pairs);
    doubt(&s, &unproven, &mut new);
    pairs.ambiguous = s.twins.ambiguous.iter().map(|i| NewAtom(AtomId(i.0))).collect();
    Extract { old, new, pairs, unproven, constants: old_extra.constants, externs: old_extra.externs }
}

/// Pairs constants without a name that corresponding operands of the candidates refer to and that are the same.
fn pair_gaps(
    s: &ImageSides<'_, '_>,
    compared: &Compared,
    (old, old_extra): (&Object, &Extra),
    (new, new_extra): (&Object, &Extra),
    pairs: &mut Pairs,
) {
    let by_address = |whole: &Whole<'_>, object: &Object, extra: &Extra| -> HashMap<u64, AtomId> {
        let at = |id: &AtomId| {
            let atom = object.atom(*id);
            (whole.areas[atom.section.0 as usize - 1].addr + atom.start, *id)
        };
        extra.gaps.iter().map(at).collect()
    };
    let (olds, news) = (by_address(s.old, old, old_extra), by_address(s.new, new, new_extra));
    if olds.is_empty() || news.is_empty() {
        return;
    }
    for (o, n) in compared.code.iter().chain(&compared.data) {
        let (a, b) = (s.old_uses.of(*o), s.new_uses.of(*n));
        // Where operands came or went, any of the old function may be the one.
        let aligned = a.len() == b.len();
        for (i, y) in b.iter().enumerate().filter(|(_, y)| news.contains_key(&y.target)) {
            let candidates = if aligned { &a[i..=i] } else { a };
            let same = |x: &&Use| olds.contains_key(&x.target) && s.same_address(x.target, y.target, y.usage, y.size);
            if let Some(x) = candidates.iter().find(same) {
                pairs.pair(OldAtom(olds[&x.target]), NewAtom(news[&y.target]), Level::Content);
            }
        }
    }
}

/// Notes what cannot be told about the new functions.
fn doubt(s: &ImageSides<'_, '_>, unproven: &[Unproven], new: &mut Object) {
    for u in unproven {
        let what = match s.new.locate(u.value) {
            Location::Span(id, _) if u.value < IMAGE_BASE => {
                format!("the offset of the per-CPU variable {}", s.new.name_of(id))
            }
            _ => format!("the physical address of {}", s.new.markers_at(u.value).next().unwrap_or("something")),
        };
        new.doubt(AtomId(u.span.0), u64::from(u.at), what);
    }
}
