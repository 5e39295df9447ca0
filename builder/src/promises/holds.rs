//! Which data of the patch holds addresses of the patch: by its initial value, or because carried code puts them there.

use std::collections::{BTreeMap, BTreeSet};

use super::sightings::{Sighting, Way};
use super::{Thing, World};
use crate::plan::Role;

/// What each data object holds, itself apart.
#[derive(Debug, Default)]
pub struct Holds {
    held: BTreeMap<Thing, BTreeSet<Thing>>,
    /// Where it holds them: the offset, or none where code puts them.
    fields: BTreeMap<Thing, Vec<(Option<i64>, Thing)>>,
    /// Of each, the function that is reached first.
    code: BTreeMap<Thing, Thing>,
}

impl Holds {
    /// Initial values and stores.
    pub fn of(world: &World<'_>, sightings: &[Sighting]) -> Self {
        let mut holds = Self::default();
        for item in world.set.items.iter().filter(|i| i.role == Role::Data) {
            let own = Thing::Carried(item.pair, item.atom);
            for edge in &item.edges {
                let Some(thing) = world.thing(item.pair, &edge.dest).filter(|t| *t != own) else { continue };
                holds.add(own.clone(), Some(edge.field.at as i64), thing);
            }
        }
        for seen in sightings {
            if let Way::InPatch(place) = &seen.way
                && *place != seen.thing
            {
                holds.add(place.clone(), None, seen.thing.clone());
            }
        }
        let all: Vec<Thing> = holds.held.keys().cloned().collect();
        for thing in all {
            if let Some(code) = holds.reach(&thing, |t| world.is_code(t)) {
                holds.code.insert(thing, code);
            }
        }
        holds
    }

    fn add(&mut self, place: Thing, at: Option<i64>, thing: Thing) {
        self.held.entry(place.clone()).or_default().insert(thing.clone());
        self.fields.entry(place).or_default().push((at, thing));
    }

    /// The first thing that is reached from `from` and fits.
    fn reach(&self, from: &Thing, fits: impl Fn(&Thing) -> bool) -> Option<Thing> {
        let mut seen = BTreeSet::from([from]);
        let mut todo = vec![from];
        while let Some(next) = todo.pop() {
            for thing in self.held.get(next).into_iter().flatten() {
                if fits(thing) {
                    return Some(thing.clone());
                }
                if seen.insert(thing) {
                    todo.push(thing);
                }
            }
        }
        None
    }

    /// What may be read from a place at an offset, or at any.
    pub fn at(&self, place: &Thing, offset: Option<i64>) -> impl Iterator<Item = &Thing> {
        let fits = move |at: &Option<i64>| at.is_none() || offset.is_none() || *at == offset;
        let fields = self.fields.get(place).into_iter().flatten();
        fields.filter(move |(at, _)| fits(at)).map(|(_, thing)| thing)
    }
    /// Does the initial value have an address of the patch at this offset?
    pub fn at_offset(&self, place: &Thing, offset: i64) -> bool {
        self.fields.get(place).is_some_and(|fields| fields.iter().any(|(at, _)| *at == Some(offset)))
    }
    /// Anything of the patch whose address it holds.
    pub fn any(&self, place: &Thing) -> Option<&Thing> {
        self.held.get(place)?.first()
    }
    /// A function whose address is found from this thing.
    pub fn code(&self, thing: &Thing) -> Option<&Thing> {
        self.code.get(thing)
    }
}
