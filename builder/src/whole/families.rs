//! Which pieces belong to which function: `.cold` parts by name and by who jumps to them, chunks of `.altinstr_aux` by where
//! they jump back to. What matters, matters as a family.

use rustc_hash::{FxHashMap, FxHashSet};

use super::same::ImageSides;
use super::{SpanId, SpanKind, Use, Uses, Whole};
use crate::symbolize::{Class, TextKind, Usage};

/// The function each span belongs to; itself for most.
pub fn parents(whole: &Whole<'_>, uses: &Uses) -> Vec<SpanId> {
    let mut out: Vec<SpanId> = (0..whole.spans.len() as u32).map(SpanId).collect();
    // Cold pieces and the names of their functions.
    let mut colds: Vec<(SpanId, String)> = Vec::new();
    for id in code(whole) {
        let name = whole.name_of(id);
        if crate::symbolize::is_cold(name) {
            let stem: Vec<&str> = name.split('.').take_while(|p| *p != "cold").collect();
            colds.push((id, stem.join(".")));
        } else if whole.span(id).kind == SpanKind::Chunk && whole.area_of(id).class == Class::Text(TextKind::AltAux) {
            let back = uses.of(id).iter().find_map(|u| u.span().filter(|s| *s != id && whole.span(*s).is_code()));
            out[id.0 as usize] = back.unwrap_or(id);
        }
    }
    by_name(whole, uses, &colds, &mut out);
    // A chunk may jump back into a piece.
    for i in 0..out.len() {
        for _ in 0..LONGEST {
            out[i] = out[out[i].0 as usize];
        }
    }
    out
}

/// Steps from a piece of a piece to its function.
const LONGEST: usize = 3;

fn code<'w>(whole: &'w Whole<'_>) -> impl Iterator<Item = SpanId> + 'w {
    (0..whole.spans.len() as u32).map(SpanId).filter(|i| whole.span(*i).is_code())
}

/// What the functions of one name have to do with their cold pieces.
#[derive(Default)]
struct Named {
    /// Their number, and the first one.
    count: u32,
    first: Option<SpanId>,
    /// The first one of each file.
    of_file: FxHashMap<u32, SpanId>,
}

/// Finds the function of each cold piece: the only one of the name, else one that jumps there, one it jumps to, or the one
/// of its file.
fn by_name(whole: &Whole<'_>, uses: &Uses, colds: &[(SpanId, String)], out: &mut [SpanId]) {
    if colds.is_empty() {
        return;
    }
    let mut named: FxHashMap<&str, Named> = colds.iter().map(|c| (c.1.as_str(), Named::default())).collect();
    let stem_of: FxHashMap<SpanId, &str> = colds.iter().map(|c| (c.0, c.1.as_str())).collect();
    let mut names: FxHashSet<(SpanId, &str)> = FxHashSet::default();
    let mut from: FxHashMap<SpanId, SpanId> = FxHashMap::default();
    for id in code(whole) {
        let mut any = false;
        for name in std::iter::once(whole.name_of(id)).chain(whole.aliases_of(id)) {
            let Some(named) = named.get_mut(name) else { continue };
            any = true;
            names.insert((id, name));
            named.count += u32::from(named.first != Some(id));
            named.first.get_or_insert(id);
            named.of_file.entry(whole.span(id).file).or_insert(id);
        }
        for cold in uses.of(id).iter().filter(|u| any && u.usage == Usage::Branch).filter_map(Use::span) {
            if stem_of.get(&cold).is_some_and(|stem| names.contains(&(id, *stem))) {
                from.entry(cold).or_insert(id);
            }
        }
    }
    for (id, stem) in colds {
        let Some(named) = named.get(stem.as_str()) else { continue };
        let into = || {
            let targets = uses.of(*id).iter().filter(|u| u.usage == Usage::Branch).filter_map(Use::span);
            targets.filter(|t| names.contains(&(*t, stem.as_str()))).min()
        };
        let found = match named.count {
            1 => named.first,
            _ => from.get(id).copied().or_else(into).or_else(|| named.of_file.get(&whole.span(*id).file).copied()),
        };
        out[id.0 as usize] = found.unwrap_or(*id);
    }
}

/// What matters of both sides: candidates, what has no twin, and the families of both, on both sides.
pub fn wanted(s: &ImageSides<'_, '_>, candidates: &[(SpanId, SpanId)], parents: [&[SpanId]; 2]) -> [Vec<bool>; 2] {
    let alone = |w: &Whole<'_>, paired: &dyn Fn(SpanId) -> bool| -> Vec<bool> {
        (0..w.spans.len() as u32).map(SpanId).map(|i| w.span(i).is_code() && !paired(i)).collect()
    };
    let mut both = [alone(s.old, &|i| s.twins.new_of(i).is_some()), alone(s.new, &|i| s.twins.old_of(i).is_some())];
    for (o, n) in candidates {
        (both[0][o.0 as usize], both[1][n.0 as usize]) = (true, true);
    }
    for _ in 0..2 {
        for (parents, wanted) in parents.into_iter().zip(&mut both) {
            spread(parents, wanted);
        }
        for (o, n) in s.twins.iter() {
            let either = both[0][o.0 as usize] || both[1][n.0 as usize];
            (both[0][o.0 as usize], both[1][n.0 as usize]) = (either, either);
        }
    }
    both
}

/// Functions that may get the address of a constant that differs, from those that refer to one: what they do with it decides
/// whether it can be carried (`uses/`).
pub fn who_may_get(whole: &Whole<'_>, uses: &Uses, parents: &[SpanId], changed: &[SpanId], wanted: &mut [bool]) {
    let constants: FxHashSet<SpanId> =
        changed.iter().copied().filter(|id| whole.area_of(*id).class == Class::Rodata).collect();
    if constants.is_empty() {
        return;
    }
    let takes = |id: &SpanId| {
        let address = |u: &Use| matches!(u.usage, Usage::Address | Usage::Indexed);
        uses.of(*id).iter().any(|u| address(u) && u.span().is_some_and(|s| constants.contains(&s)))
    };
    let first: FxHashSet<SpanId> = code(whole).filter(takes).map(|id| parents[id.0 as usize]).collect();
    let called = |id: SpanId| uses.of(id).iter().filter(|u| u.usage == Usage::Branch).filter_map(Use::span);
    // Those that are called, some calls deep, and those that get it as the result of one.
    let calls_one = |id: &SpanId| called(*id).any(|s| first.contains(&s) && !whole.span(s).global);
    let callers: Vec<SpanId> = code(whole).filter(calls_one).collect();
    let mut ring: Vec<SpanId> = first.iter().copied().chain(callers).collect();
    let mut seen: FxHashSet<SpanId> = FxHashSet::default();
    for _ in 0..=crate::uses::DEPTH {
        ring.retain(|id| seen.insert(*id));
        let next: Vec<SpanId> = ring.iter().flat_map(|id| called(*id)).filter(|s| whole.span(*s).is_code()).collect();
        ring = next.into_iter().filter(|s| !crate::uses::is_reader(whole.name_of(*s))).collect();
    }
    for id in seen {
        wanted[id.0 as usize] = true;
    }
    spread(parents, wanted);
}

/// A wanted piece makes its function wanted, and a function all its pieces.
fn spread(parents: &[SpanId], wanted: &mut [bool]) {
    for (i, parent) in parents.iter().enumerate() {
        if wanted[i] {
            wanted[parent.0 as usize] = true;
        }
    }
    for (i, parent) in parents.iter().enumerate() {
        if wanted[parent.0 as usize] {
            wanted[i] = true;
        }
    }
}
