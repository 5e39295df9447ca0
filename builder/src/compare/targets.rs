//! Do two references mean the same thing?

use crate::correlate::{NewAtom, OldAtom, Pairs};
use crate::ingest::SectionId;
use crate::isa::reloc;
use crate::symbolize::{AtomId, Class, Meaning, Object, Ref, RefKind, Target, Usage};

/// Both objects and which atom is which.
#[derive(Clone, Copy, Debug)]
pub struct Comparer<'a> {
    /// The old object.
    pub old: &'a Object,
    /// The new object.
    pub new: &'a Object,
    /// Which is which.
    pub pairs: &'a Pairs,
}

impl Comparer<'_> {
    /// Same kind of field, same meaning.
    pub fn same_ref(&self, o: &Ref, n: &Ref) -> bool {
        same_kind(o, n) && self.same_target(o.target, n.target)
    }

    /// Same meaning. What holds the offset decides, not what ends there: `next` behind `values` is not the end of
    /// `values` behind which something else lies now. Where only the end agrees, the function counts as changed, and closure
    /// refuses it if it cannot tell which is meant.
    pub fn same_target(&self, o: Target, n: Target) -> bool {
        match (o, n) {
            (Target::Extern(so, ao), Target::Extern(sn, an)) => {
                let (a, b) = (self.old.image.symbols.get(so.0 as usize), self.new.image.symbols.get(sn.0 as usize));
                let same_number =
                    a.zip(b).is_none_or(|(a, b)| a.place == b.place && a.value == b.value && a.size == b.size);
                // Numbers and tentative definitions have a value of their own.
                ao == an && self.old.symbol_name(so) == self.new.symbol_name(sn) && same_number
            }
            (Target::Section(so, oo), Target::Section(sn, on)) => self.same_place((so, oo), (sn, on)),
            _ => false,
        }
    }

    /// The first relocation that differs, without knowing the instructions: fields in code that does not decode.
    pub fn raw_difference(&self, o: OldAtom, n: NewAtom) -> Option<u64> {
        let relocs = |object: &'_ Object, id: AtomId| {
            let atom = object.atom(id);
            let all = object.section(atom.section).relocs.iter().filter(|r| (atom.start..atom.end).contains(&r.offset));
            all.map(|r| (r.offset - atom.start, r.kind, object.raw_target(r))).collect::<Vec<_>>()
        };
        let (a, b) = (relocs(self.old, o.0), relocs(self.new, n.0));
        let differs = a.iter().zip(&b).find(|(x, y)| x.0 != y.0 || x.1 != y.1 || !self.same_target(x.2, y.2));
        differs.map(|(x, _)| x.0).or_else(|| (a.len() != b.len()).then_some(0))
    }

    fn same_place(&self, o: (SectionId, i64), n: (SectionId, i64)) -> bool {
        let classes = (self.old.class(o.0), self.new.class(n.0));
        if let (Class::Strings | Class::Constants, Class::Strings | Class::Constants) = classes {
            let (a, b) = (self.old.constant_at(o.0, o.1), self.new.constant_at(n.0, n.1));
            return a.is_some() && a == b;
        }
        if let (Some(a), Some(b)) = (self.old.holder(o.0, o.1), self.new.holder(n.0, n.1)) {
            return self.same_meaning(&a, &b);
        }
        let (mo, mn) = (self.old.meanings_around(o.0, o.1), self.new.meanings_around(n.0, n.1));
        if mo.is_empty() && mn.is_empty() {
            return o.1 == n.1 && self.old.section(o.0).name == self.new.section(n.0).name;
        }
        // Biased bases and ends with nothing behind them.
        mo.iter().any(|a| mn.iter().any(|b| self.same_meaning(a, b)))
    }

    fn same_meaning(&self, o: &Meaning, n: &Meaning) -> bool {
        if self.pairs.new_of(OldAtom(o.atom)) != Some(NewAtom(n.atom)) {
            return false;
        }
        match (insn_index(self.old, o), insn_index(self.new, n)) {
            (Some(a), Some(b)) => a == b,
            _ => o.delta == n.delta,
        }
    }
}

/// Offsets in code are compared as instruction numbers, so that a jump that became longer shifts nothing.
pub fn insn_index(object: &Object, m: &Meaning) -> Option<usize> {
    let code = object.atom(m.atom).code.as_ref()?;
    code.index_at(u64::try_from(m.delta).ok()?)
}

fn same_kind(o: &Ref, n: &Ref) -> bool {
    let plain = |r: &Ref| match r.kind {
        RefKind::Resolved => reloc::PC32,
        RefKind::Reloc(reloc::PLT32) => reloc::PC32,
        RefKind::Reloc(k) => k,
    };
    o.usage == n.usage && plain(o) == plain(n) && (o.usage == Usage::Branch || o.width == n.width)
}
