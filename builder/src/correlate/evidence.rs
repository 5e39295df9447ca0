//! What speaks for a pair: references at the same place of one unchanged neighbourhood, in a pair of functions or of data.
//!
//! Functions that are alike but for what is to be paired refer to it one by one. In a function that changed, a reference
//! counts when the steps before and behind it and the ways that lead there are the same in both builds, and nothing else is
//! referred to from a neighbourhood of that kind ([`Flow`]). The order in which things are first referred to says nothing.
//! Evidence that contradicts itself is none: both sides stay open.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{Flow, Mention, Neighbour, View};
use super::{GroupKey, Level, NewAtom, OldAtom, Pairs, is_once, kind_of};
use crate::symbolize::{AtomId, Object, Target};

/// Pairs that something speaks for.
#[derive(Debug, Default)]
pub struct Evidence {
    forth: BTreeMap<OldAtom, BTreeSet<NewAtom>>,
    back: BTreeMap<NewAtom, BTreeSet<OldAtom>>,
}

impl Evidence {
    /// From all pairs of functions that refer to something open.
    pub fn of_functions(old: &Object, new: &Object, open: [&BTreeSet<AtomId>; 2], pairs: &Pairs) -> Self {
        let users = [users(old, open[0]), users(new, open[1])];
        let (is_open_old, is_open_new) = (|a: AtomId| open[0].contains(&a), |a: AtomId| open[1].contains(&a));
        let number_old = |a: AtomId| pairs.new_of(OldAtom(a)).map(|n| n.0.0);
        let number_new = |a: AtomId| pairs.old_of(NewAtom(a)).map(|_| a.0);
        let old_view = View { object: old, open: &is_open_old, pair: &number_old };
        let new_view = View { object: new, open: &is_open_new, pair: &number_new };
        let mut evidence = Self::default();
        for (o, n) in pairs.iter().filter(|(o, n)| users[0].contains(&o.0) && users[1].contains(&n.0)) {
            let (Some(a), Some(b)) = (Flow::of(old_view, o.0), Flow::of(new_view, n.0)) else { continue };
            evidence.of_flows((old, &a), (new, &b));
        }
        evidence
    }

    fn of_flows(&mut self, (old, a): (&Object, &Flow), (new, b): (&Object, &Flow)) {
        if a.is_alike(b) {
            for (x, y) in a.pieces().zip(b.pieces()).skip(1) {
                self.add(old, x, new, y);
            }
            for (x, y) in a.mentions().zip(b.mentions()) {
                self.mentions((old, x), (new, y));
            }
            return;
        }
        if a.is_shaped_like(b) {
            // Only numbers differ, as when lines have moved. For a flag that stands for one message that is enough.
            let once = |x: &Mention, y: &Mention| is_once(old, x.atom) && is_once(new, y.atom);
            for (x, y) in a.mentions().flatten().zip(b.mentions().flatten()).filter(|(x, y)| once(x, y)) {
                self.mentions((old, &[*x]), (new, &[*y]));
            }
        }
        self.only_flags((old, a), (new, b));
        let (here, there) = (a.neighbourhoods(), b.neighbourhoods());
        for (key, x) in here {
            let Some(y) = there.get(&key) else { continue };
            if let (Some(o), Some(n)) = (sole(&x), sole(y))
                && x.iter().any(|x| y.iter().any(|y| x.behind == y.behind))
            {
                self.mentions((old, &[o]), (new, &[n]));
            }
        }
        for (x, y) in a.unconditional(b) {
            self.mentions((old, x), (new, y));
        }
    }

    /// Flags of messages: as many in both functions are the same ones in their order. One taken for another only means one
    /// message more or less.
    fn only_flags(&mut self, (old, a): (&Object, &Flow), (new, b): (&Object, &Flow)) {
        let flags = |object: &Object, flow: &Flow| {
            let mut found: BTreeMap<GroupKey, Vec<AtomId>> = BTreeMap::new();
            for mention in flow.mentions().flatten().filter(|m| is_once(object, m.atom)) {
                let list = found.entry(super::group_key(object, mention.atom)).or_default();
                if !list.contains(&mention.atom) {
                    list.push(mention.atom);
                }
            }
            found
        };
        let there = flags(new, b);
        for (key, x) in flags(old, a) {
            let Some(y) = there.get(&key).filter(|y| y.len() == x.len()) else { continue };
            for (x, y) in x.iter().zip(y) {
                self.add(old, *x, new, *y);
            }
        }
    }

    fn mentions(&mut self, (old, a): (&Object, &[Mention]), (new, b): (&Object, &[Mention])) {
        for (x, y) in a.iter().zip(b).filter(|(x, y)| x.certain && y.certain) {
            self.add(old, x.atom, new, y.atom);
        }
    }

    /// From pairs of data: the same field of both.
    pub fn of_data(old: &Object, new: &Object, open: [&BTreeSet<AtomId>; 2], pairs: &Pairs) -> Self {
        let mut evidence = Self::default();
        for (o, n) in pairs.iter().filter(|(o, _)| !old.atom(o.0).is_code() && !old.atom(o.0).refs.is_empty()) {
            let (a, b) = (&old.atom(o.0).refs, &new.atom(n.0).refs);
            for (x, y) in a.iter().zip(b).filter(|(x, y)| x.at == y.at) {
                let (Target::Section(s, i), Target::Section(t, j)) = (x.target, y.target) else { continue };
                let (Some(p), Some(q)) = (old.containing(s, i), new.containing(t, j)) else { continue };
                if p.delta == q.delta && open[0].contains(&p.atom) && open[1].contains(&q.atom) {
                    evidence.add(old, p.atom, new, q.atom);
                }
            }
        }
        evidence
    }

    /// Something speaks for this pair.
    pub fn add(&mut self, old: &Object, o: AtomId, new: &Object, n: AtomId) {
        if super::group_key(old, o) == super::group_key(new, n) && kind_of(old, o) == kind_of(new, n) {
            self.forth.entry(OldAtom(o)).or_default().insert(NewAtom(n));
            self.back.entry(NewAtom(n)).or_default().insert(OldAtom(o));
        }
    }

    /// Does nothing speak against this pair?
    pub fn is_for(&self, o: OldAtom, n: NewAtom) -> bool {
        self.forth.get(&o).is_none_or(|found| found.iter().eq([&n]))
            && self.back.get(&n).is_none_or(|found| found.iter().eq([&o]))
    }

    /// Pairs what is without contradiction, and those for which `allowed` holds.
    pub fn settle(&self, pairs: &mut Pairs, level: Level, allowed: impl Fn(OldAtom, NewAtom) -> bool) -> bool {
        let mut any = false;
        for (o, found) in &self.forth {
            let Some(n) = found.first().filter(|n| self.is_for(*o, **n)) else { continue };
            if pairs.new_of(*o).is_none() && pairs.old_of(*n).is_none() && allowed(*o, *n) {
                pairs.pair(*o, *n, level);
                any = true;
            }
        }
        any
    }
}

/// What is meant, if a neighbourhood is about one thing only.
fn sole(found: &[Neighbour]) -> Option<Mention> {
    let first = found.first()?.mention;
    found.iter().all(|m| m.mention == first).then_some(first)
}

/// Functions that refer to something open, themselves or by their pieces and table entries.
fn users(object: &Object, open: &BTreeSet<AtomId>) -> BTreeSet<AtomId> {
    let mut found = BTreeSet::new();
    for id in open {
        let atom = object.atom(*id);
        if atom.is_code() {
            found.insert(object.parent(*id));
        }
        let code = object.incoming_of(*id).iter().map(|i| i.from).filter(|a| object.atom(*a).is_code());
        found.extend(code.map(|a| object.parent(a)));
        let (from, to) = (atom.start as i64, atom.end.max(atom.start + 1) as i64);
        let owners = object.entries_into(atom.section, from, to);
        found.extend(owners.filter_map(|(_, e)| object.entries[e.0 as usize].owner).map(|m| object.parent(m.atom)));
    }
    found
}
