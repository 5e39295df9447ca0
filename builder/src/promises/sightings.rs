//! Where carried code takes an address of the patch, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use super::holds::Holds;
use super::{Thing, World};
use crate::correlate::NewAtom;
use crate::plan::{Dest, Edge, PairId};
use crate::symbolize::{AtomId, Ref, Usage};
use crate::uses::{self, AddressHolder, AddressUse, Callee, Copy, Found, Part};

/// What is done with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Stored in memory that is neither the stack nor the patch.
    Stored,
    /// Stored on the stack.
    OnStack,
    /// Stored in a data object of the patch.
    InPatch(Thing),
    /// An argument of a call; no name: through a pointer; no number: over the stack.
    Passed {
        /// The function.
        callee: Option<String>,
        /// Number of the argument, from 0.
        argument: Option<u8>,
        /// It is a function of the same object that other objects do not see.
        own: bool,
    },
    /// A function that may sleep has it while no function of the patch is on the stack; no name: through a pointer.
    Left(Option<String>),
    /// What is there is copied.
    Copied(Copy),
    /// The value of a function that is called from elsewhere.
    Returned,
    /// Not followed, and why.
    Unclear(String),
}

/// One thing, one use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose code does it.
    pub pair: PairId,
    /// The function or piece.
    pub function: AtomId,
    /// Offset of the instruction in it.
    pub at: u64,
    /// Whose address.
    pub thing: Thing,
    /// What it does.
    pub way: Way,
}

/// Places where an address is taken, or read from where it is kept.
type Places = BTreeMap<(PairId, Thing), BTreeMap<(AtomId, u64), Part>>;

/// Every use of an address of the patch that starts in carried code; reading, writing and comparing apart.
pub fn all(world: &World<'_>) -> Vec<Sighting> {
    let mut taken = Places::new();
    let mut found = Vec::new();
    for item in &world.set.items {
        let atom = world.pair(item.pair).new.atom(item.atom.0);
        if !atom.is_code() {
            continue;
        }
        for edge in item.edges.iter().filter(|e| !matches!(e.field.usage, Usage::Branch | Usage::Access)) {
            if let Some(thing) = world.thing(item.pair, &edge.dest) {
                taken.entry((item.pair, thing)).or_default().insert((atom.id, edge.field.at), Part::Inside);
            }
        }
        for edge in item.entries.iter().flat_map(|e| &e.replacement) {
            let takes = matches!(edge.field.usage, Usage::Address | Usage::Indexed);
            if let Some(thing) = world.thing(item.pair, &edge.dest).filter(|_| takes) {
                let way = Way::Unclear("in a replacement of an alternative".into());
                found.push(Sighting { pair: item.pair, function: atom.id, at: 0, thing, way });
            }
        }
    }
    found.extend(world.follow(&taken, None));
    let holds = Holds::of(world, &found);
    found.extend(world.follow(&read_again(world, &holds), None));
    // What is done with the table itself is known.
    let mut loaded = world.follow(&taken, Some(&holds));
    loaded.retain(|l| !found.iter().any(|f| (f.pair, f.function, f.at) == (l.pair, l.function, l.at)));
    found.extend(loaded);
    found
}

/// Where carried code reads an address back from data of the patch that it names: from the field that is read, or, with an
/// index, from any.
fn read_again(world: &World<'_>, holds: &Holds) -> Places {
    let mut places = Places::new();
    for item in &world.set.items {
        let atom = world.pair(item.pair).new.atom(item.atom.0);
        let reads = |e: &&Edge| matches!(e.field.usage, Usage::Access | Usage::Indexed);
        for edge in item.edges.iter().filter(reads).filter(|_| atom.is_code()) {
            let (Some(from), Dest::Carried(_, _, delta)) = (world.thing(item.pair, &edge.dest), &edge.dest) else {
                continue;
            };
            let at = (edge.field.usage == Usage::Access).then_some(*delta);
            for thing in holds.at(&from, at) {
                let place = (atom.id, edge.field.at);
                places.entry((item.pair, thing.clone())).or_default().insert(place, Part::Kept);
            }
        }
    }
    places
}

impl World<'_> {
    /// Follows the addresses; with `tables`, what is loaded through those of tables of addresses instead.
    fn follow(&self, places: &Places, tables: Option<&Holds>) -> Vec<Sighting> {
        let mut found = Vec::new();
        for ((pair, thing), places) in places {
            let Some(thing) = tables.map_or(Some(thing), |holds| self.entry_of_table(thing, holds)) else { continue };
            let object = &self.pair(*pair).new;
            let functions: BTreeSet<AtomId> = places.keys().map(|(atom, _)| object.parent(*atom)).collect();
            let seed = |atom: AtomId, r: &Ref| places.get(&(atom, r.at)).copied();
            let carried = |atom: AtomId| self.carries((*pair, NewAtom(atom)));
            let awaited = |atom: AtomId| self.set.callbacks.iter().any(|(_, key)| *key == (*pair, NewAtom(atom)));
            let patch = uses::InPatch { carried: &carried, awaited: &awaited, deep: tables.is_some() };
            for seen in uses::trace_carried(object, &functions, &seed, patch) {
                if let Some(way) = self.way(*pair, &seen) {
                    found.push(Sighting { pair: *pair, function: seen.atom, at: seen.at, thing: thing.clone(), way });
                }
            }
        }
        found
    }

    /// Something that a table of nothing but addresses of the patch holds.
    fn entry_of_table<'h>(&self, thing: &Thing, holds: &'h Holds) -> Option<&'h Thing> {
        let Thing::Carried(pair, atom) = thing else { return None };
        let size = self.pair(*pair).new.atom(atom.0).size() as i64;
        let full = size > 0 && (0..size).step_by(8).all(|at| holds.at_offset(thing, at));
        if full { holds.any(thing) } else { None }
    }

    /// What an edge leads to, if it is something of the patch that can outlive it.
    pub(super) fn thing(&self, from: PairId, dest: &Dest) -> Option<Thing> {
        match dest {
            Dest::Carried(pair, n, delta) => {
                let object = &self.pair(*pair).new;
                let atom = object.atom(n.0);
                // Labels of a function are for itself: tables of a switch, `_THIS_IP_`. Only where one is stored it stays.
                let is_label = atom.is_code() && (*delta != 0 || object.parent(n.0) != n.0);
                if is_label {
                    return Some(Thing::Label(*pair, NewAtom(object.parent(n.0))));
                }
                // The loader registers descriptors of pr_debug and takes them back (ddebug_remove_module).
                let is_descriptor = object.section(atom.section).name == "__dyndbg";
                (!is_descriptor && atom.size() > 0).then_some(Thing::Carried(*pair, *n))
            }
            Dest::Original(pair, n) => Some(Thing::Original(*pair, *n)),
            Dest::Constant(bytes) => (self.in_patch)(from, bytes).then(|| Thing::Text(bytes.clone())),
            Dest::Old(..) | Dest::Kernel(..) | Dest::Runtime(_) => None,
        }
    }

    fn way(&self, pair: PairId, seen: &Found) -> Option<Way> {
        Some(match seen.what.clone() {
            AddressUse::Read | AddressUse::Written | AddressUse::Compared => return None,
            AddressUse::Copied(how) => Way::Copied(how),
            // A function of another object of the patch is as good as one of this.
            AddressUse::Left { callee: Callee::Extern(name) } if self.carried_global(&name).is_some() => return None,
            AddressUse::Left { callee } => Way::Left(self.callee(pair, callee)),
            AddressUse::Stored(AddressHolder::Stack) => Way::OnStack,
            AddressUse::Stored(AddressHolder::Variable(v)) => self.stored_in((pair, NewAtom(v))),
            AddressUse::Stored(AddressHolder::Extern(name)) => match self.carried_global(&name) {
                Some(key) => self.stored_in(key),
                None => Way::Stored,
            },
            AddressUse::Stored(AddressHolder::Memory) => Way::Stored,
            AddressUse::Passed { callee, argument } => {
                let own = matches!(callee, Callee::Function(f) if !self.pair(pair).new.atom(f).global);
                Way::Passed { callee: self.callee(pair, callee), argument, own }
            }
            AddressUse::Returned => Way::Returned,
            AddressUse::Unknown(why) => Way::Unclear(why),
        })
    }

    fn callee(&self, pair: PairId, callee: Callee) -> Option<String> {
        match callee {
            Callee::Function(f) => Some(self.pair(pair).new.atom(f).name.clone()),
            Callee::Extern(name) => Some(name),
            Callee::Indirect => None,
        }
    }

    fn carries(&self, key: (PairId, NewAtom)) -> bool {
        self.set.items.iter().any(|i| (i.pair, i.atom) == key)
    }

    /// A variable of the patch goes with it; one of the kernel stays.
    fn stored_in(&self, key: (PairId, NewAtom)) -> Way {
        if self.carries(key) { Way::InPatch(Thing::Carried(key.0, key.1)) } else { Way::Stored }
    }

    /// The variable of another object of the patch.
    fn carried_global(&self, name: &str) -> Option<(PairId, NewAtom)> {
        let named = |i: &&crate::plan::Item| {
            let atom = self.pair(i.pair).new.atom(i.atom.0);
            atom.global && (atom.name == name || atom.aliases.iter().any(|a| a == name))
        };
        self.set.items.iter().find(named).map(|i| (i.pair, i.atom))
    }
}
