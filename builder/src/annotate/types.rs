//! Types that carried functions use and that mean something else in the new build (LP2015).
//!
//! The objects that exist were made by the old code, and old code that stays goes on using them, also after the patch is gone.
//! So every difference counts: a member that moved, grew or changed its type; one that is new, even in what was padding, for
//! which the objects that exist have no value; a number of an enumeration that became another one. Only an enumeration that
//! got more numbers changes nothing that is there. An unchanged function is the same in both builds and agrees with both.
//!
//! A type that a function only names in a cast is not in its debug information, only in that of its unit, and nor is the enumeration
//! of a number. Such a one counts for every carried function of the unit, because what differs may stand in code as a factor, a bit, a mask or
//! the width of an access. Only where members or numbers came behind those that were there, it counts when the code of a carried function
//! differs in a number (an offset, a size, a value) in which the two layouts differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::isa::{Decoder, DecoderOptions, OpKind, Register};

use super::sides::{CarriedFunction, Sides};
use crate::codes;
use crate::compare::Ignored;
use crate::debuginfo::{TypeChange, User, changed_types};
use crate::error::{Place, Problem};
use crate::plan::PatchSet;
use crate::symbolize::{AtomId, Object};

/// Instructions have 32 bits of a number.
const LOW: u64 = u32::MAX as u64;

/// What stands against the patch, and what does not matter, in words.
pub fn compare(sides: Sides<'_, '_>, set: &PatchSet) -> (Vec<Problem>, Vec<Ignored>) {
    let users: Vec<(CarriedFunction, User)> =
        sides.carried(set).into_iter().filter_map(|c| Some((c, sides.user(c)?))).collect();
    let asked: Vec<User> = users.iter().map(|(_, user)| user.clone()).collect();
    let (mut refused, mut ignored) = (Vec::new(), Vec::new());
    let mut numbers: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for change in changed_types(sides.debug.old, sides.debug.new, &asked) {
        let mut by_code = |index: &usize| {
            let Some((carried, _)) = users.get(*index) else { return false };
            let differing = numbers.entry(*index).or_insert_with(|| differing_numbers(sides, *carried));
            let stands = |n: u64| differing.contains(&(n & LOW));
            let as_bit = |n: u64| change.always && n < u64::from(u32::BITS) && stands(1 << n);
            change.numbers.iter().any(|n| stands(*n) || as_bit(*n))
        };
        let shown = change.users.iter().copied().find(|i| by_code(i));
        let guessed = change.distance.is_none() && shown.is_none();
        let by = match change.distance {
            Some(_) => Some(change.function),
            None => shown.or_else(|| change.users.first().copied().filter(|_| change.always)),
        };
        let Some((carried, _)) = by.and_then(|index| users.get(index)) else { continue };
        let name = &sides.pair.new.atom(carried.new.0).name;
        if change.more_values {
            let reason = format!("{}; {name} uses it; all numbers that were there are the same", change.what);
            ignored.push(Ignored { object: sides.pair.name.clone(), symbol: change.name, reason });
        } else {
            refused.push(problem(change, guessed, Place::symbol(&sides.pair.name, name)));
        }
    }
    (refused, ignored)
}

fn problem(change: TypeChange, guessed: bool, place: Place) -> Problem {
    let mut what = format!("{}: {}", change.name, change.what);
    if change.additive {
        what.push_str(": the objects that exist have no value there");
    }
    if guessed {
        what.push_str("; what changed here may use it in a cast or as a number, which debug information does not tell");
    }
    let problem = Problem::new(codes::LP2015, place, what).with_lines(&change.shown);
    problem.acceptable(crate::accept::Accept::Type, change.name)
}

/// Displacements and immediates that the code of a function has more or less often in the new build. Of a new function there is
/// nothing to compare with.
fn differing_numbers(sides: Sides<'_, '_>, carried: CarriedFunction) -> BTreeSet<u64> {
    let mut count: BTreeMap<u64, i64> = BTreeMap::new();
    let Some(old) = carried.old else { return BTreeSet::new() };
    count_numbers(&sides.pair.old, old.0, -1, &mut count);
    count_numbers(&sides.pair.new, carried.new.0, 1, &mut count);
    count.into_iter().filter(|(_, n)| *n != 0).map(|(number, _)| number).collect()
}

fn count_numbers(object: &Object, function: AtomId, step: i64, count: &mut BTreeMap<u64, i64>) {
    for id in object.family(function) {
        let Some(code) = &object.atom(id).code else { continue };
        let bytes = object.bytes(id);
        for insn in &code.insns {
            let at = insn.at as usize;
            let Some(bytes) = bytes.get(at..at + usize::from(insn.len)) else { continue };
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            let on_stack = matches!(insn.memory_base(), Register::RSP | Register::RIP | Register::EIP);
            for operand in 0..insn.op_count() {
                let number = match insn.op_kind(operand) {
                    OpKind::Memory if !on_stack => Some(insn.memory_displacement64()),
                    _ if insn.op0_register() != Register::RSP => insn.try_immediate(operand).ok(),
                    _ => None,
                };
                if let Some(number) = number {
                    *count.entry(number & LOW).or_default() += step;
                }
            }
        }
    }
}
