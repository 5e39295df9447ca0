//! What became of every function of two whole images, in numbers: by directory, and by what could be live-patched.

use crate::plan::{Counts, Summary};
use std::collections::{BTreeMap, BTreeSet};

use crate::compare::parent_of;
use crate::error::Problem;
use crate::plan::{ObjectPair, PairId, PatchSet, Role};
use crate::symbolize::{AtomId, AtomKind, Object};
use crate::whole::{Scanned, SpanId};

/// Counts of the images, which are the first pair. `directory` knows where a new function (or, for gone ones, an old one) comes from: the side and its address.
pub fn of(
    scanned: &Scanned<'_, '_>,
    pair: &ObjectPair,
    set: &PatchSet,
    refused: &[Problem],
    directory: &dyn Fn(bool, u64) -> Option<String>,
) -> Summary {
    let mut s = Summary::default();
    let count = |s: &mut Summary, is_old: bool, addr: u64, add: &dyn Fn(&mut Counts)| {
        add(&mut s.total);
        if let Some(dir) = directory(is_old, addr) {
            add(s.directories.entry(dir).or_default());
        }
    };
    let whole_function =
        |object: &Object, id: AtomId| object.atom(id).kind == AtomKind::Function && parent_of(object, id) == id;
    let own = set.items.iter().filter(|i| i.pair == PairId(0));
    let replaced: BTreeSet<AtomId> = own.filter(|i| matches!(i.role, Role::Replaces(_))).map(|i| i.atom.0).collect();
    let ignored: BTreeSet<&str> = pair.verdicts.ignored.iter().map(|i| i.symbol.as_str()).collect();
    for (i, span) in scanned.old.spans.iter().enumerate() {
        let id = AtomId(i as u32);
        if !whole_function(&pair.old, id) {
            continue;
        }
        s.functions += 1;
        let Some(n) = scanned.twins.new_of(SpanId(i as u32)) else {
            count(&mut s, true, span.addr, &|c| c.gone += 1);
            continue;
        };
        let new = scanned.new.span(n);
        if replaced.contains(&AtomId(n.0)) {
            count(&mut s, false, new.addr, &|c| c.changed += 1);
        } else if !pair.pairs.is_proven(crate::correlate::OldAtom(id)) && ignored.contains(scanned.new.name_of(n)) {
            count(&mut s, false, new.addr, &|c| c.ignored += 1);
        } else {
            s.same += 1;
            if new.addr != span.addr {
                count(&mut s, false, new.addr, &|c| c.moved += 1);
            }
        }
    }
    for (i, span) in scanned.new.spans.iter().enumerate() {
        if whole_function(&pair.new, AtomId(i as u32)) && scanned.twins.old_of(SpanId(i as u32)).is_none() {
            count(&mut s, false, span.addr, &|c| c.new += 1);
        }
    }
    // A refusal that names a changed function stands against that function, any other against the change as a whole.
    let names: BTreeSet<&str> = replaced.iter().map(|id| pair.new.atom(*id).name.as_str()).collect();
    let mut against: BTreeMap<&str, &'static str> = BTreeMap::new();
    for problem in refused {
        match problem.place.symbol.as_deref().filter(|n| names.contains(n)) {
            Some(name) => {
                against.entry(name).or_insert(problem.code.id);
            }
            None => *s.beyond.entry(problem.code.id).or_default() += 1,
        }
    }
    for id in &replaced {
        match against.get(pair.new.atom(*id).name.as_str()) {
            Some(code) => *s.unpatchable.entry(code).or_default() += 1,
            None => s.patchable += 1,
        }
    }
    s
}
