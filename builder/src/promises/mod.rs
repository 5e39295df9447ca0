//! What outlives the patch: addresses of what it carries that carried code hands to the kernel.
//!
//! Input: pairs and patch set. Output: every [`Promise`], certain ones and those that only may be one. An address is followed
//! from where carried code takes it to where it is stored, passed, or returned. What carried data holds counts with it: who is
//! given a work item is given its function.
//!
//! Refused by [`refusals`]: LP2021, an address the kernel certainly keeps, unless the patch has a callback that can take it back, is
//! never reverted, or the author accepts it by name.
//!
//! No case are addresses of replaced functions (they stay the old ones), strings the kernel has as well, entries of tables that
//! the module loader makes known and takes back by itself (jump labels, bug and exception tables, descriptors of pr_debug), and
//! empty objects: a lock class key without lockdep.

mod callees;
mod holds;
mod sightings;

use crate::plan::Promise;
use std::collections::BTreeSet;

use crate::accept::{Accept, Accepted};
use crate::codes;
use crate::correlate::NewAtom;
use crate::error::{Place, Problem};
use crate::plan::Options;
use crate::plan::{ObjectPair, PairId, PatchSet};
use crate::symbolize::{Class, Ref, Target, Usage};
use crate::uses::{self, Copy};

use callees::{Effect, What};
use holds::Holds;
use sightings::{Sighting, Way};

/// Something of the patch whose address can be given away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Thing {
    /// A carried function or data object.
    Carried(PairId, NewAtom),
    /// The original of a replaced function: a copy of its first instructions.
    Original(PairId, NewAtom),
    /// A place in a carried function.
    Label(PairId, NewAtom),
    /// A string the kernel does not have.
    Text(Vec<u8>),
}

/// Everything that outlives the patch, or may. `in_patch` says of a string whether the patch brings it along.
pub fn find(pairs: &[ObjectPair], set: &PatchSet, in_patch: &dyn Fn(PairId, &[u8]) -> bool) -> Vec<Promise> {
    let world = World { pairs, set, in_patch };
    let sightings = sightings::all(&world);
    let holds = Holds::of(&world, &sightings);
    let mut found: Vec<Promise> = sightings.iter().filter_map(|s| world.promise(s, &holds)).collect();
    found.sort_by(|a, b| key(a).cmp(&key(b)).then(b.certain.cmp(&a.certain)).then(a.offset.cmp(&b.offset)));
    // One line for a function and a thing, the certain ones first; everything that keeps it is in it.
    found.dedup_by(|next, first| {
        let same = key(next) == key(first);
        if same && next.certain && !first.what.contains(&next.what) {
            first.what.push_str(&format!("; {}", next.what));
        }
        first.on_a_stack |= same && next.on_a_stack;
        same
    });
    found
}

fn key(p: &Promise) -> (&str, &str, &str) {
    (&p.object, &p.function, &p.symbol)
}

/// What stands against the patch. A promise is one the author can keep when a callback runs at the revert; a patch that stays
/// has none to keep.
pub fn refusals(promises: &[Promise], options: &Options) -> Vec<Problem> {
    if options.oneshot {
        return Vec::new();
    }
    let taken_back = takes_back(options) && options.given_back.is_empty();
    let refuse = |p: &Promise| {
        let place = Place::symbol(&p.object, &p.function).at(p.offset);
        let name = marked_as(p);
        Problem::new(codes::LP2021, place, p.what.clone()).acceptable(Accept::Promise, name)
    };
    let stands = |p: &&Promise| p.certain && (p.on_a_stack || !taken_back && !is_given_back(p, options));
    promises.iter().filter(stands).map(refuse).collect()
}

fn takes_back(options: &Options) -> bool {
    options.callbacks.pre_revert.is_some() || options.callbacks.post_revert.is_some()
}

/// The name it is marked and accepted by: its own, or of a string that of its function.
fn marked_as(p: &Promise) -> &str {
    stem(if p.symbol.starts_with('"') { &p.function } else { &p.symbol })
}

/// Is it marked in the source? What is on a stack no callback can take back.
fn is_given_back(p: &Promise, options: &Options) -> bool {
    let name = marked_as(p);
    let marked = options.given_back.iter().any(|(object, mark)| *object == p.object && mark == name);
    marked && takes_back(options) && !p.on_a_stack
}

/// What the author has marked so, as the manifest says it.
pub fn given_back(promises: &[Promise], options: &Options) -> Vec<Accepted> {
    let marked = promises.iter().filter(|p| p.certain && !options.oneshot && is_given_back(p, options));
    let accepted = |p: &Promise| Accepted {
        kind: Accept::Promise,
        name: marked_as(p).to_owned(),
        code: codes::LP2021.id.to_owned(),
        place: Place::symbol(&p.object, &p.function).at(p.offset).to_string(),
        what: format!("{}; LPB_GIVEN_BACK says that a callback takes it back", p.what),
    };
    marked.map(accepted).collect()
}

/// Marks under whose name the patch gives nothing away: misspelt, or no longer needed. `object: name`.
pub fn marked_without_need(promises: &[Promise], options: &Options) -> Vec<String> {
    let named = |object: &str, mark: &str| promises.iter().any(|p| p.object == object && marked_as(p) == mark);
    let idle = options.given_back.iter().filter(|(object, mark)| !named(object, mark));
    idle.map(|(object, mark)| format!("{object}: {mark}")).collect()
}

/// As long as no kernel is known: a string is new when nothing old of the pair refers to it.
pub fn new_texts(pairs: &[ObjectPair]) -> impl Fn(PairId, &[u8]) -> bool {
    let of = |pair: &ObjectPair| -> BTreeSet<Vec<u8>> {
        if let Some(placement) = &pair.placement {
            return placement.constants().keys().cloned().collect();
        }
        let refs = pair.old.atoms.iter().flat_map(|a| &a.refs);
        let text = |r: &Ref| match r.target {
            Target::Section(s, o) => pair.old.constant_at(s, o).map(<[u8]>::to_vec),
            Target::Extern(..) => None,
        };
        refs.filter_map(text).collect()
    };
    let known: Vec<BTreeSet<Vec<u8>>> = pairs.iter().map(of).collect();
    move |pair, text| !known.get(pair.0 as usize).is_some_and(|k| k.contains(text))
}

/// What the search works on.
struct World<'a> {
    pairs: &'a [ObjectPair],
    set: &'a PatchSet,
    in_patch: &'a dyn Fn(PairId, &[u8]) -> bool,
}

impl World<'_> {
    fn pair(&self, id: PairId) -> &ObjectPair {
        &self.pairs[id.0 as usize]
    }

    fn is_code(&self, thing: &Thing) -> bool {
        match thing {
            Thing::Carried(pair, atom) => self.pair(*pair).new.atom(atom.0).is_code(),
            Thing::Original(..) | Thing::Label(..) => true,
            Thing::Text(_) => false,
        }
    }

    /// Writable data: what the kernel is given to work with, not only to read.
    fn is_writable(&self, thing: &Thing) -> bool {
        let Thing::Carried(pair, atom) = thing else { return false };
        matches!(self.pair(*pair).new.class_of(atom.0), Class::Data | Class::Bss | Class::Percpu)
    }

    /// Text, or the name of a function as `__func__` has it.
    fn is_text(&self, thing: &Thing) -> bool {
        match thing {
            Thing::Text(_) => true,
            Thing::Carried(..) => ["__func__", "__PRETTY_FUNCTION__"].contains(&stem(&self.name(thing))),
            Thing::Original(..) | Thing::Label(..) => false,
        }
    }

    fn name(&self, thing: &Thing) -> String {
        match thing {
            Thing::Carried(pair, atom) => self.pair(*pair).new.atom(atom.0).name.clone(),
            Thing::Original(pair, atom) => {
                format!("{}{}", lpbuild_abi::ORIGINAL_PREFIX, self.pair(*pair).new.atom(atom.0).name)
            }
            Thing::Label(pair, atom) => self.pair(*pair).new.atom(atom.0).name.clone(),
            Thing::Text(bytes) => text_of(bytes),
        }
    }

    /// What a sighting means.
    fn promise(&self, seen: &Sighting, holds: &Holds) -> Option<Promise> {
        let symbol = self.name(&seen.thing);
        // A place of its own is mostly only told: to lockdep, to a trace.
        if matches!(seen.thing, Thing::Label(..)) && !matches!(seen.way, Way::Stored) {
            return None;
        }
        let held = holds.code(&seen.thing).map(|code| self.name(code));
        let with = held.as_ref().map_or(String::new(), |code| format!(", which holds the address of {code},"));
        let (certain, what) = match &seen.way {
            Way::Stored if self.is_read_at_once(&seen.thing) => {
                (false, format!("stores the address of {symbol}, which is read before the request ends"))
            }
            Way::Stored => (true, format!("stores the address of {symbol}{with} in memory of the kernel")),
            Way::OnStack => match self.copier(seen).filter(|_| held.is_some() || self.is_code(&seen.thing)) {
                Some(callee) => {
                    (true, format!("stores the address of {symbol}{with} on its stack for {callee}, which copies it"))
                }
                None => (false, format!("stores the address of {symbol}{with} on its stack")),
            },
            Way::InPatch(_) => return None,
            Way::Copied(to) => {
                let any = self.name(holds.any(&seen.thing)?);
                let to = match to {
                    Copy::Stack => "its stack",
                    Copy::Allocated => "memory that is allocated for it",
                    Copy::Memory => "memory of the kernel",
                };
                (to != "its stack", format!("copies {symbol}, which holds the address of {any}, to {to}"))
            }
            Way::Left(callee) => {
                let callee = callee.as_deref().unwrap_or("a function through a pointer");
                let what = format!(
                    "jumps to {callee} with the address of {symbol}{with} at its end: while that sleeps, no function of the \
                     patch is on the stack"
                );
                (true, what)
            }
            Way::Unclear(why) if why == uses::SECOND_RESULT => {
                (true, format!("returns the address of {symbol}{with} to its caller, as the second half of its result"))
            }
            Way::Returned => (true, format!("returns the address of {symbol}{with} to its caller")),
            Way::Unclear(why) => (false, format!("uses the address of {symbol}{with} in a way not followed: {why}")),
            Way::Passed { callee, argument, own } => {
                let what = match &seen.thing {
                    _ if self.is_text(&seen.thing) => What::Text,
                    thing if self.is_code(thing) => What::Code,
                    _ => What::Data,
                };
                let effect = match callee.as_deref().filter(|_| !own) {
                    Some(callee) => callees::effect(callee, *argument, what),
                    None => Effect::Unknown,
                };
                let callee = callee.as_deref().unwrap_or("a function it calls through a pointer");
                match effect {
                    Effect::Forgets => return None,
                    Effect::Keeps => (true, format!("passes {symbol}{with} to {callee}, which keeps its address")),
                    // Writable data with a function in it is what work, timers and notifiers are made of.
                    Effect::Unknown => {
                        let armed = held.is_some() && self.is_writable(&seen.thing);
                        (armed, format!("passes {symbol}{with} to {callee}"))
                    }
                }
            }
        };
        let pair = self.pair(seen.pair);
        let function = pair.new.atom(seen.function).name.clone();
        let on_a_stack = matches!(seen.way, Way::Left(_));
        Some(Promise { object: pair.name.clone(), function, offset: seen.at, symbol, what, certain, on_a_stack })
    }

    /// A function that copies what it is given, called where the sighting is.
    fn copier(&self, seen: &Sighting) -> Option<String> {
        let new = &self.pair(seen.pair).new;
        let refs = new.family(seen.function).into_iter().flat_map(|id| &new.atom(id).refs);
        let called = refs.filter_map(|r| match r.target {
            Target::Extern(symbol, _) if r.usage == Usage::Branch => Some(new.symbol_name(symbol)),
            _ => None,
        });
        called.into_iter().find(|name| callees::copies(name)).map(str::to_owned)
    }

    /// The text of NL_SET_ERR_MSG (include/linux/netlink.h): its place is on the stack of the request that is answered, and
    /// netlink_ack copies it.
    fn is_read_at_once(&self, thing: &Thing) -> bool {
        matches!(thing, Thing::Carried(..)) && stem(&self.name(thing)) == "__msg" && !self.is_writable(thing)
    }
}

/// A name without what the compiler adds to it: `__func__.12`, `f.isra.0`.
fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A string as messages show it.
fn text_of(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{:?}...", &text[..at]),
        None => format!("{text:?}"),
    }
}
