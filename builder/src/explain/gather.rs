//! An analysis -> [`Record`]: what the phases decided about each item, in words where it is only shown.
//!
//! Nothing is decided here: the rung is that of correlate, the difference that of compare, the cause that of closure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Differs, Pull, Record, SCHEMA, SameIn, Subject, SubjectRole, TypeFact, code};
use crate::codes;
use crate::compare::{Change, changes_of, first_difference, parent_of};
use crate::correlate::{NewAtom, OldAtom};
use crate::plan::manifest::Manifest;
use crate::plan::{Analysis, Cause, CodeLines, Dest, Item, ObjectPair, PairId, Role};
use crate::symbolize::{AtomId, AtomKind};

/// Names of unchanged functions that are listed, of all objects together. More is a change of a header that everybody reads.
const LISTED: usize = 4096;

/// What is known of an analysis.
pub fn of(analysis: &Analysis) -> Record {
    let places: BTreeMap<(PairId, NewAtom), u32> =
        (0..).zip(&analysis.set.items).map(|(i, item)| ((item.pair, item.atom), i)).collect();
    let items = analysis.set.items.iter().enumerate();
    let (same, same_not_listed) = same(analysis);
    let mut ignored: Vec<_> = analysis.pairs.iter().flat_map(|p| p.verdicts.ignored.iter().cloned()).collect();
    ignored.sort();
    Record {
        schema: SCHEMA,
        object_sha256: None,
        subjects: items.map(|(index, item)| subject(analysis, index, item, &places)).collect(),
        types: types(analysis),
        ignored,
        same,
        same_not_listed,
    }
}

fn subject(analysis: &Analysis, index: usize, item: &Item, places: &BTreeMap<(PairId, NewAtom), u32>) -> Subject {
    let pair = &analysis.pairs[item.pair.0 as usize];
    let new = pair.new.atom(item.atom.0);
    let old = pair.pairs.old_of(item.atom).map(|o| pair.old.atom(o.0));
    let place = |key: &(PairId, NewAtom)| places.get(key).copied();
    let (pull, by) = match &item.cause {
        Cause::Changed(_) => (Pull::Changed, None),
        Cause::PieceOf(pair, of) => (Pull::PieceOf, place(&(*pair, *of))),
        Cause::Callback(_) => (Pull::Callback, None),
        Cause::ReferredTo { by, .. } => (Pull::ReferredTo, place(by)),
        Cause::Declared => (Pull::Declared, None),
    };
    let (mut carried, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for edge in item.all_edges() {
        match &edge.dest {
            Dest::Carried(p, n, _) | Dest::Original(p, n) => carried.extend(place(&(*p, *n))),
            Dest::Old(p, o, _) => drop(outside.insert(analysis.pairs[p.0 as usize].old.atom(o.0).name.clone())),
            Dest::Kernel(name, _) => drop(outside.insert(name.clone())),
            Dest::Runtime(name) => drop(outside.insert((*name).to_owned())),
            Dest::Constant(_) => {}
        }
    }
    carried.remove(&(index as u32));
    let note = analysis.notes.iter().find(|n| n.item == index).and_then(|n| n.source.clone());
    let difference = match &item.cause {
        Cause::Changed(change) => differs(analysis, item.pair, item.atom, change),
        _ => None,
    };
    Subject {
        object: pair.name.clone(),
        symbol: new.name.clone(),
        part: match item.role {
            Role::Replaces(_) => SubjectRole::Replaced,
            Role::Piece => SubjectRole::Piece,
            Role::NewFunction => SubjectRole::NewFunction,
            Role::Data => SubjectRole::Data,
            Role::InPlace(_) => SubjectRole::InPlace,
        },
        old_symbol: old.map(|o| o.name.clone()).filter(|name| *name != new.name),
        matched: pair.pairs.level(item.atom),
        old_size: old.map(|o| o.size()),
        new_size: new.size(),
        source: note.or_else(|| analysis.code_lines(index)?.line(false, 0)),
        pull,
        by,
        why: item.why(&analysis.pairs),
        difference,
        changes: match item.role {
            Role::InPlace(old) => changes_of(&pair.comparer(), old, item.atom),
            _ => Vec::new(),
        },
        carried: carried.into_iter().collect(),
        outside: outside.into_iter().collect(),
    }
}

/// The instruction in which a function differs first, on both sides; nothing where the difference is in no instruction.
fn differs(analysis: &Analysis, id: PairId, n: NewAtom, change: &Change) -> Option<Differs> {
    let pair = &analysis.pairs[id.0 as usize];
    let old = pair.pairs.old_of(n)?;
    let lines = analysis.set.items.iter().position(|i| i.pair == id && i.atom == n);
    let lines = lines.and_then(|index| analysis.code_lines(index));
    match change {
        Change::InPiece { name, change } => {
            let piece = pair.new.pieces(n.0).iter().find(|p| pair.new.atom(**p).name == *name)?;
            let found = differs(analysis, id, NewAtom(*piece), change)?;
            Some(Differs { piece: Some(name.clone()), ..found })
        }
        Change::Instruction { .. } | Change::Reference { .. } | Change::Instructions { .. } => {
            first(pair, old, n, lines)
        }
        Change::Entry { at, .. } => {
            let at = u64::try_from(*at).ok()?;
            let insn = pair.new.atom(n.0).code.as_ref()?.covering(at)?.at;
            let line = lines.and_then(|l| l.line(false, u64::from(insn)));
            Some(Differs { new: code::at(&pair.new, n.0, u64::from(insn), line), ..Differs::default() })
        }
        Change::Section { .. }
        | Change::Padding { .. }
        | Change::Bytes
        | Change::Relocation { .. }
        | Change::Constant { .. }
        | Change::Entries { .. }
        | Change::EntryConstant { .. }
        | Change::NewPiece { .. } => None,
    }
}

fn first(pair: &ObjectPair, old: OldAtom, new: NewAtom, lines: Option<&CodeLines>) -> Option<Differs> {
    let (was, is) = first_difference(&pair.comparer(), old, new)?;
    let line = |is_old: bool, at: u64| lines.and_then(|l| l.line(is_old, at));
    let mut found = Differs {
        piece: None,
        old: code::at(&pair.old, old.0, was, line(true, was)),
        new: code::at(&pair.new, new.0, is, line(false, is)),
    };
    // All that both have is the same, and one of them goes on.
    let count =
        |object: &crate::symbolize::Object, id: AtomId| object.atom(id).code.as_ref().map_or(0, |c| c.insns.len());
    let (olds, news) = (count(&pair.old, old.0), count(&pair.new, new.0));
    let last = |object: &crate::symbolize::Object, id: AtomId, at: u64| {
        object.atom(id).code.as_ref().and_then(|c| c.insns.last()).is_some_and(|i| u64::from(i.at) == at)
    };
    if olds != news && last(&pair.old, old.0, was) && last(&pair.new, new.0, is) {
        let behind = |object: &crate::symbolize::Object, id: AtomId, index: usize| {
            object.atom(id).code.as_ref().and_then(|c| c.insns.get(index)).map(|i| u64::from(i.at))
        };
        if olds < news {
            found.old = None;
            found.new = behind(&pair.new, new.0, olds).and_then(|at| code::at(&pair.new, new.0, at, line(false, at)));
        } else {
            found.new = None;
            found.old = behind(&pair.old, old.0, news).and_then(|at| code::at(&pair.old, old.0, at, line(true, at)));
        }
    }
    Some(found)
}

/// Types whose change stands against the patch, or would, and the function that shows it.
fn types(analysis: &Analysis) -> Vec<TypeFact> {
    let mut found = BTreeSet::new();
    for p in analysis.refused.iter().filter(|p| p.code.id == codes::LP2015.id) {
        if let (Some(object), Some(function)) = (&p.place.object, &p.place.symbol) {
            let what = p.detail.lines().next().unwrap_or_default().to_owned();
            found.insert(TypeFact { object: object.clone(), function: function.clone(), what });
        }
    }
    for a in analysis.accepted.iter().filter(|a| a.code == codes::LP2015.id) {
        if let Some((object, function)) = a.place.split_once(": ") {
            found.insert(TypeFact { object: object.to_owned(), function: function.to_owned(), what: a.what.clone() });
        }
    }
    found.into_iter().collect()
}

/// Functions that both builds have and that are the same.
fn same(analysis: &Analysis) -> (Vec<SameIn>, bool) {
    // Of whole images that is nearly all of them.
    if analysis.summary.is_some() {
        return (Vec::new(), true);
    }
    let carried: BTreeSet<(PairId, NewAtom)> = analysis.set.items.iter().map(|i| (i.pair, i.atom)).collect();
    let mut out = Vec::new();
    for (id, pair) in (0..).map(PairId).zip(&analysis.pairs) {
        let ignored: BTreeSet<&str> = pair.verdicts.ignored.iter().map(|i| i.symbol.as_str()).collect();
        let refused = analysis.refused.iter().filter(|p| p.place.object.as_ref() == Some(&pair.name));
        let refused: BTreeSet<&str> = refused.filter_map(|p| p.place.symbol.as_deref()).collect();
        let is_same = |o: OldAtom, n: NewAtom| {
            let atom = pair.old.atom(o.0);
            let name = atom.name.as_str();
            atom.kind == AtomKind::Function
                && parent_of(&pair.old, o.0) == o.0
                && !carried.contains(&(id, n))
                && !ignored.contains(name)
                && !refused.contains(name)
        };
        let names = pair.pairs.iter().filter(|(o, n)| is_same(*o, *n)).map(|(o, _)| pair.old.atom(o.0).name.clone());
        let functions: Vec<String> = names.collect::<BTreeSet<_>>().into_iter().collect();
        if !functions.is_empty() {
            out.push(SameIn { object: pair.name.clone(), functions });
        }
    }
    if out.iter().map(|s| s.functions.len()).sum::<usize>() > LISTED {
        return (Vec::new(), true);
    }
    out.sort_by(|a, b| a.object.cmp(&b.object));
    (out, false)
}

/// What a manifest tells by itself.
pub fn of_manifest(m: &Manifest) -> Record {
    let bare = |object: &str, symbol: &str, part: SubjectRole, pull: Pull, why: &str, new_size: u32| Subject {
        object: object.to_owned(),
        symbol: symbol.to_owned(),
        part,
        old_symbol: None,
        matched: None,
        old_size: None,
        new_size: u64::from(new_size),
        source: None,
        pull,
        by: None,
        why: why.to_owned(),
        difference: None,
        changes: Vec::new(),
        carried: Vec::new(),
        outside: Vec::new(),
    };
    let replaced = m.functions.iter().map(|f| Subject {
        old_size: Some(u64::from(f.old_size)),
        ..bare(&f.source, &f.symbol, SubjectRole::Replaced, Pull::Changed, &f.why, f.new_size)
    });
    let brought = m.carried.iter().map(|c| {
        let (part, pull) = match c.kind.as_str() {
            "function" => (SubjectRole::NewFunction, Pull::ReferredTo),
            "cold" => (SubjectRole::Piece, Pull::PieceOf),
            _ => (SubjectRole::Data, Pull::ReferredTo),
        };
        bare(&c.source, &c.symbol, part, pull, &c.why, c.size)
    });
    let in_place = m.data.iter().map(|d| Subject {
        changes: d.changes.clone(),
        ..bare(&d.source, &d.symbol, SubjectRole::InPlace, Pull::Declared, "its content changes in its place", d.size)
    });
    Record {
        schema: SCHEMA,
        object_sha256: m.patch.object_sha256.clone(),
        subjects: replaced.chain(in_place).chain(brought).collect(),
        same_not_listed: true,
        ..Record::default()
    }
}
