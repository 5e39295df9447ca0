//! The replaced functions, as the manifest describes them.

use lpbuild_abi as abi;

use super::records::running;
use crate::bind::Bound;
use crate::correlate::OldAtom;
use crate::plan::manifest as m;
use crate::plan::{Analysis, JumpSite, ObjectPair, Role};
use crate::symbolize::AtomId;
use crate::{hash, isa};

/// All of them.
pub fn describe(analysis: &Analysis, bound: Option<&Bound<'_>>) -> Vec<m::Function> {
    analysis.detour.sites.iter().filter_map(|(i, s)| function(analysis, bound, *i, s)).collect()
}

/// The old function and its pieces: everything no task may be inside.
pub fn pieces(pair: &ObjectPair, old: OldAtom) -> Vec<(AtomId, bool)> {
    pair.old.family(old.0).into_iter().map(|id| (id, id == old.0)).collect()
}

fn function(analysis: &Analysis, bound: Option<&Bound<'_>>, index: usize, site: &JumpSite) -> Option<m::Function> {
    let item = &analysis.set.items[index];
    let Role::Replaces(old) = item.role else { return None };
    let pair = &analysis.pairs[item.pair.0 as usize];
    let atom = pair.old.atom(old.0);
    let address = bound.and_then(|b| b.old_address(item.pair, old));
    let anchored = |id: AtomId| bound.and_then(|b| Some(b.holder.anchored(b.old_address(item.pair, OldAtom(id))?)));
    let original =
        bound.zip(address).map_or(&site.original[..], |(bound, address)| running(bound, address, site)).to_vec();
    let sympos = address.and_then(|a| {
        let kallsyms = bound?.holder.image.kallsyms();
        let symbol = kallsyms.at(a).iter().find(|s| *s.name == *atom.name)?;
        kallsyms.sympos(symbol)
    });
    let mut others: Vec<m::Piece> = pieces(pair, old)
        .into_iter()
        .filter(|(_, parent)| !parent)
        .map(|(id, _)| m::Piece {
            symbol: pair.old.atom(id).name.clone(),
            anchor_offset: anchored(id),
            size: pair.old.atom(id).size() as u32,
        })
        .collect();
    others.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    Some(m::Function {
        object: pair.holder.to_string(),
        source: pair.name.clone(),
        symbol: atom.name.clone(),
        sympos,
        anchor_offset: anchored(old.0),
        old_size: atom.size() as u32,
        new_size: pair.new.atom(item.atom.0).size() as u32,
        why: item.why(&analysis.pairs),
        site: m::Site {
            offset: site.offset,
            size: site.size,
            jump: site.jump,
            instructions: isa::disassemble(&original, u64::from(site.offset)),
            original: hash::to_hex(&original),
            rule: site.rule.name().to_owned(),
        },
        pieces: others,
    })
}

const _: () = assert!(abi::MAX_SITE <= u8::MAX as usize);
