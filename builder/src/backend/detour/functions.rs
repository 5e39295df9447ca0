//! The replaced functions, as the manifest describes them.

use lpbuild_abi as abi;

use super::records::expected;
use crate::bind::Bound;
use crate::correlate::OldAtom;
use crate::holder::HolderName;
use crate::plan::manifest as m;
use crate::plan::{Analysis, JumpSite, ObjectPair, Role};
use crate::symbolize::AtomId;
use crate::{hash, isa};

/// All of them.
pub fn describe(analysis: &Analysis, bound: Option<&Bound<'_>>) -> Vec<m::Function> {
    analysis.detour.sites.iter().filter_map(|(i, s)| function(analysis, bound, *i, s)).collect()
}

/// The same where there is no kernel, or no patch.
pub fn of_analysis(analysis: &Analysis) -> Vec<m::Function> {
    describe(analysis, None)
}

/// The old function and its pieces: everything no task may be inside.
pub fn pieces(pair: &ObjectPair, old: OldAtom) -> Vec<(AtomId, bool)> {
    pair.old.family(old.0).into_iter().map(|id| (id, id == old.0)).collect()
}

/// Where something is, as the manifest says it: from the kernel's anchor, or in a section of a module.
#[derive(Clone, Debug, Default)]
pub struct Where {
    /// Distance from the anchor of the kernel.
    pub anchor_offset: Option<i64>,
    /// A section of a module.
    pub section: Option<String>,
    /// Distance from that.
    pub section_offset: Option<u64>,
}

impl Where {
    /// Of an address of the kernel or of a module.
    pub fn of(bound: &Bound<'_>, address: u64) -> Self {
        match bound.section_of(address) {
            Some((section, offset)) => {
                Self { section: Some(section.to_owned()), section_offset: Some(offset), ..Self::default() }
            }
            None => Self { anchor_offset: Some(bound.holder.anchored(address)), ..Self::default() },
        }
    }
}

fn function(analysis: &Analysis, bound: Option<&Bound<'_>>, index: usize, site: &JumpSite) -> Option<m::Function> {
    let item = &analysis.set.items[index];
    let Role::Replaces(old) = item.role else { return None };
    let pair = &analysis.pairs[item.pair.0 as usize];
    let atom = pair.old.atom(old.0);
    let address = bound.and_then(|b| b.old_address(item.pair, old));
    let placed = |id: AtomId| bound.and_then(|b| Some(Where::of(b, b.old_address(item.pair, OldAtom(id))?)));
    let original = bound.zip(address).map_or_else(|| site.original.clone(), |(b, a)| expected(b, pair, old, a, site));
    // Of modules the records say it of the names by which sections are found.
    let sympos = address.filter(|_| pair.holder == HolderName::Vmlinux).and_then(|a| {
        let kallsyms = bound?.holder.image.kallsyms();
        let symbol = kallsyms.at(a).iter().find(|s| *s.name == *atom.name)?;
        kallsyms.sympos(symbol)
    });
    let mut others: Vec<m::Piece> = pieces(pair, old)
        .into_iter()
        .filter(|(_, parent)| !parent)
        .map(|(id, _)| {
            let Where { anchor_offset, section, section_offset } = placed(id).unwrap_or_default();
            let (symbol, size) = (pair.old.atom(id).name.clone(), pair.old.atom(id).size() as u32);
            m::Piece { symbol, anchor_offset, section, section_offset, size }
        })
        .collect();
    others.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    let Where { anchor_offset, section, section_offset } = placed(old.0).unwrap_or_default();
    Some(m::Function {
        object: pair.holder.to_string(),
        source: pair.name.clone(),
        symbol: atom.name.clone(),
        sympos,
        anchor_offset,
        section,
        section_offset,
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
