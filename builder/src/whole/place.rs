//! Where the old atoms are in the kernel: at their own addresses when the old image is the kernel, else where the pairs of
//! another scan say.

use std::collections::HashMap;

use super::{Extract, SpanId, Twins, Use, Uses, Whole};
use crate::holder::{Exact, Placement};
use crate::symbolize::Atom;

/// The old image is the kernel: nothing has to be found.
pub fn of_kernel(old: &Whole<'_>, extract: &mut Extract) -> Placement {
    let address = |a: &Atom| {
        let area = old.areas.get((a.section.0 as usize).checked_sub(1)?)?;
        Some((area.addr + a.start, true))
    };
    let atoms = extract.old.atoms.iter().map(address).collect();
    Placement::Exact(Exact {
        atoms,
        externs: std::mem::take(&mut extract.externs),
        constants: std::mem::take(&mut extract.constants),
    })
}

/// The old image was compared with the kernel: `twins` and `same` are of that comparison.
pub fn by_twins(
    old: &Whole<'_>,
    kernel: &Whole<'_>,
    (old_uses, kernel_uses): (&Uses, &Uses),
    twins: &Twins,
    same: impl Fn(SpanId, SpanId) -> bool,
    extract: &mut Extract,
) -> Placement {
    let mut address: Vec<Option<(u64, bool)>> = vec![None; extract.old.atoms.len()];
    let (mut externs, mut constants): (HashMap<String, u64>, HashMap<Vec<u8>, u64>) = Default::default();
    // A pair that may be wrong shows nothing: code that refers to the variable does.
    for (o, k) in twins.iter().filter(|(_, k)| !twins.ambiguous.contains(k)) {
        address[o.0 as usize] = Some((kernel.span(k).addr, same(o, k)));
    }
    // Fields of matching code show where the rest is.
    for (o, k) in twins.iter().filter(|(o, _)| old.span(*o).is_code()) {
        if !address[o.0 as usize].is_some_and(|a| a.1) {
            continue;
        }
        for (a, b) in old_uses.of(o).iter().zip(kernel_uses.of(k)) {
            learn(old, kernel, a, b, &mut address, &mut externs, &mut constants);
        }
    }
    Placement::Exact(Exact { atoms: address, externs, constants })
}

fn learn(
    old: &Whole<'_>,
    kernel: &Whole<'_>,
    a: &Use,
    b: &Use,
    address: &mut [Option<(u64, bool)>],
    externs: &mut HashMap<String, u64>,
    constants: &mut HashMap<Vec<u8>, u64>,
) {
    match a.span() {
        Some(s) if old.span(s).kind == super::SpanKind::Extern => {
            let addend = a.target.wrapping_sub(old.span(s).addr + super::image::EXTERN_STEP / 2);
            externs.entry(old.name_of(s).to_owned()).or_insert(b.target.wrapping_sub(addend));
        }
        Some(s) => {
            let at = b.target.wrapping_sub(a.target - old.span(s).addr);
            address[s.0 as usize].get_or_insert((at, !old.span(s).is_code()));
        }
        None => {
            if let (Some(x), Some(y)) =
                (super::content::text_at(old, a.target), super::content::text_at(kernel, b.target))
                && x == y
            {
                constants.entry(x.to_vec()).or_insert(b.target);
            }
        }
    }
}
