//! A compared pair of objects together with its debug information: where its functions are there, and what they refer to.
//!
//! The one view that all rules about debug information have, be the pair two objects or the unproven part of two images.

use std::collections::BTreeSet;

use super::Debug;
use crate::correlate::{NewAtom, OldAtom};
use crate::debuginfo::{User, section_address};
use crate::plan::{ObjectPair, PairId, PatchSet, Role};
use crate::symbolize::{AtomId, Object, Target};

/// Address of an atom in the debug information of its side.
pub type Address<'s> = dyn Fn(AtomId) -> Option<u64> + Sync + 's;

/// A pair and what is known of it.
#[derive(Clone, Copy)]
pub struct Sides<'s, 'd> {
    /// Debug information of both.
    pub debug: Debug<'s, 'd>,
    /// The pair.
    pub pair: &'s ObjectPair,
    /// Its number.
    pub id: PairId,
    /// Where old atoms are.
    pub old_at: &'s Address<'s>,
    /// Where new atoms are.
    pub new_at: &'s Address<'s>,
}

/// The address that gives an atom of a relocatable object.
pub fn object_address(object: &Object, id: AtomId) -> Option<u64> {
    let atom = object.atom(id);
    section_address(atom.section.0 as usize)?.checked_add(atom.start)
}

/// A carried function.
#[derive(Clone, Copy, Debug)]
pub struct CarriedFunction {
    /// What it replaces; nothing when it is new.
    pub old: Option<OldAtom>,
    /// The function.
    pub new: NewAtom,
}

impl Sides<'_, '_> {
    /// The functions of the pair that are carried, pieces apart.
    pub fn carried(&self, set: &PatchSet) -> Vec<CarriedFunction> {
        let own = set.items.iter().filter(|i| i.pair == self.id);
        let carried = own.filter_map(|i| match i.role {
            Role::Replaces(old) => Some(CarriedFunction { old: Some(old), new: i.atom }),
            Role::NewFunction => Some(CarriedFunction { old: None, new: i.atom }),
            Role::Piece | Role::Data | Role::InPlace(_) => None,
        });
        carried.collect()
    }

    /// The same as debug information is asked about it.
    pub fn user(&self, carried: CarriedFunction) -> Option<User> {
        let old = match carried.old {
            Some(old) => Some((self.old_at)(old.0)?),
            None => None,
        };
        let mut globals = BTreeSet::new();
        if let Some(old) = carried.old {
            variables(&self.pair.old, old.0, &mut globals);
        }
        variables(&self.pair.new, carried.new.0, &mut globals);
        Some(User { old, new: (self.new_at)(carried.new.0)?, globals: globals.into_iter().collect() })
    }
}

/// Names of the data a function and its pieces refer to, as in the source.
fn variables(object: &Object, function: AtomId, out: &mut BTreeSet<String>) {
    for r in object.family(function).iter().flat_map(|id| &object.atom(*id).refs) {
        let name = match r.target {
            Target::Extern(symbol, _) => object.symbol_name(symbol),
            Target::Section(section, offset) => match object.containing(section, offset) {
                Some(meaning) if !object.atom(meaning.atom).is_code() => &object.atom(meaning.atom).name,
                _ => continue,
            },
        };
        let name = name.split('.').next().unwrap_or_default();
        if !name.is_empty() {
            out.insert(name.to_owned());
        }
    }
}
