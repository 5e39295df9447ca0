//! The steps in order: two images scanned and paired, candidates found, and what matters taken out.

use super::same::{self, Compared, ImageSides};
use super::tables::{self, Slots};
use super::{Extract, Form, Proof, Twins, Uses, Whole, extract, pair, place, scan};
use crate::holder::Placement;

/// Two images, everything compared.
#[derive(Debug)]
pub struct Scanned<'a, 'd> {
    /// The old image.
    pub old: &'a Whole<'d>,
    /// The new image.
    pub new: &'a Whole<'d>,
    old_side: Side,
    new_side: Side,
    /// Which is which.
    pub twins: Twins,
    /// What is not proven the same.
    pub compared: Compared,
}

#[derive(Debug)]
struct Side {
    uses: Uses,
    slots: Slots,
    cuts: Vec<u64>,
}

impl Side {
    fn of(whole: &Whole<'_>, proof: Proof) -> Self {
        let (uses, slots) =
            rayon::join(|| scan::scan(whole, proof), || tables::read(whole, same::is_compared, |_| true));
        let cuts = same::cuts(whole, &uses, &slots);
        Self { uses, slots, cuts }
    }
}

impl<'d> Scanned<'_, 'd> {
    /// Everything known about both.
    pub fn sides(&self) -> ImageSides<'_, 'd> {
        ImageSides {
            old: self.old,
            new: self.new,
            old_uses: &self.old_side.uses,
            new_uses: &self.new_side.uses,
            old_slots: &self.old_side.slots,
            new_slots: &self.new_side.slots,
            twins: &self.twins,
            proof: self.old.proof.min(self.new.proof),
            old_cuts: &self.old_side.cuts,
            new_cuts: &self.new_side.cuts,
        }
    }
}

/// Scans, pairs and compares two images.
pub fn scan_pair<'a, 'd>(old: &'a Whole<'d>, new: &'a Whole<'d>) -> Scanned<'a, 'd> {
    let proof = old.proof.min(new.proof);
    let (old_side, new_side) = rayon::join(|| Side::of(old, proof), || Side::of(new, proof));
    let twins = pair::pair(old, new, &old_side.uses, &new_side.uses);
    let mut scanned = Scanned { old, new, old_side, new_side, twins, compared: Compared::default() };
    scanned.compared = same::compare(scanned.sides());
    scanned
}

/// What the ordinary phases need.
#[derive(Debug)]
pub struct Extracted {
    /// What matters of the old image.
    pub old: crate::symbolize::Object,
    /// What matters of the new image.
    pub new: crate::symbolize::Object,
    /// Which is which.
    pub pairs: crate::correlate::Pairs,
    /// Where the old atoms are in the kernel, when that is known.
    pub placement: Option<Placement>,
}

/// Takes out what matters. A linked old image is the kernel; for another one, `kernel` may be given.
pub fn extract_pair(scanned: &Scanned<'_, '_>, kernel: Option<&Whole<'_>>) -> Extracted {
    let mut parts: Extract = extract::extract(scanned.sides(), &scanned.compared);
    let placement = match (scanned.old.form, kernel) {
        (Form::Linked, _) => Some(place::of_kernel(scanned.old, &mut parts)),
        (Form::Relocatable, None) => None,
        (Form::Relocatable, Some(kernel)) => {
            let proof = scanned.old.proof.min(kernel.proof);
            let (side, own) = rayon::join(|| Side::of(kernel, proof), || Side::of(scanned.old, proof));
            let twins = pair::pair(scanned.old, kernel, &own.uses, &side.uses);
            let sides = ImageSides {
                new: kernel,
                old_uses: &own.uses,
                old_slots: &own.slots,
                old_cuts: &own.cuts,
                proof,
                new_uses: &side.uses,
                new_slots: &side.slots,
                new_cuts: &side.cuts,
                twins: &twins,
                ..scanned.sides()
            };
            let uses = (&own.uses, &side.uses);
            Some(place::by_twins(scanned.old, kernel, uses, &twins, |o, k| sides.same(o, k), &mut parts))
        }
    };
    Extracted { old: parts.old, new: parts.new, pairs: parts.pairs, placement }
}
