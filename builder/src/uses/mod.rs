//! Function atoms and references that take an address -> what becomes of the address: read through, written through,
//! stored, passed on, returned, compared.
//!
//! A forward data flow over the instructions of a function and its pieces: which registers and stack slots hold the
//! address, or the address and something added to it. Functions of the same object that get it are followed; of others a
//! table says which only read ([`readers`]). What is loaded through the address is another value and not followed, unless the
//! seed says that the place read keeps the address ([`Part::Kept`]).
//!
//! Nothing is refused here. What is not understood is [`AddressUse::Unknown`], which counts as an escape, as does everything but
//! reading and writing through the address.

mod awake;
mod graph;
mod readers;
mod state;
mod step;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::ingest::SectionId;
use crate::symbolize::{AtomId, Object, Ref, Target, Usage};

/// What is done with an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressUse {
    /// What is there is read.
    Read,
    /// What is there is copied: whoever gets the copy has what it holds.
    Copied(Copy),
    /// What is there is written.
    Written,
    /// It is written down somewhere.
    Stored(AddressHolder),
    /// A function gets it.
    Passed {
        /// Which.
        callee: Callee,
        /// As which argument, counted from 0; none when it goes over the stack.
        argument: Option<u8>,
    },
    /// A function gets it by a jump: while it runs, the one that jumped is on no stack. Only [`trace_carried`] tells.
    Left {
        /// Which.
        callee: Callee,
    },
    /// The function returns it to callers that are not known, or, with [`trace_carried`], that are not of the patch.
    Returned,
    /// It is compared with, or subtracted from, something that is no address of the same object.
    Compared,
    /// Something else, in words.
    Unknown(String),
}

/// Where an address is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressHolder {
    /// A variable of the same object.
    Variable(AtomId),
    /// A variable of another object.
    Extern(String),
    /// A local object whose address is taken as well.
    Stack,
    /// Somewhere in memory.
    Memory,
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copy {
    /// The stack of the function.
    Stack,
    /// Memory made for it.
    Allocated,
    /// Somewhere in memory.
    Memory,
}

/// Who gets an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    /// A function of the same object.
    Function(AtomId),
    /// A function of another object.
    Extern(String),
    /// Whatever a pointer leads to.
    Indirect,
}

impl Callee {
    fn text<'a>(&'a self, object: &'a Object) -> &'a str {
        match self {
            Callee::Function(f) => object.atom(*f).name.as_str(),
            Callee::Extern(f) => f.as_str(),
            Callee::Indirect => "a function pointer",
        }
    }
}

/// One use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The function or piece.
    pub atom: AtomId,
    /// Offset of the instruction in it.
    pub at: u64,
    /// What it does.
    pub what: AddressUse,
}

impl Found {
    /// Can the address be known to anybody afterwards, or does it matter which of two equal objects it is?
    pub fn escapes(&self) -> bool {
        !self.is_read() && self.what != AddressUse::Written
    }

    /// Is what is there only read?
    pub fn is_read(&self) -> bool {
        matches!(self.what, AddressUse::Read | AddressUse::Copied(_))
    }

    /// In words: `ep_alloc stores its address at +0x1c`.
    pub fn text(&self, object: &Object) -> String {
        let (name, at) = (&object.atom(self.atom).name, self.at);
        match &self.what {
            AddressUse::Read => format!("{name} reads it at +{at:#x}"),
            AddressUse::Copied(_) => format!("{name} copies it at +{at:#x}"),
            AddressUse::Written => format!("{name} writes to it at +{at:#x}"),
            AddressUse::Stored(AddressHolder::Variable(v)) => {
                format!("{name} stores its address in {} at +{at:#x}", object.atom(*v).name)
            }
            AddressUse::Stored(AddressHolder::Extern(v)) => format!("{name} stores its address in {v} at +{at:#x}"),
            AddressUse::Stored(AddressHolder::Stack) => {
                format!("{name} stores its address in a local object at +{at:#x}")
            }
            AddressUse::Stored(AddressHolder::Memory) => format!("{name} stores its address at +{at:#x}"),
            AddressUse::Left { callee } => {
                format!("{name} goes on in {} with its address at +{at:#x}", callee.text(object))
            }
            AddressUse::Passed { callee, argument } => {
                let who = callee.text(object);
                let which = argument.map(|a| format!(" as argument {}", a + 1)).unwrap_or_default();
                format!("{name} passes its address to {who}{which} at +{at:#x}")
            }
            AddressUse::Returned => format!("{name} returns its address at +{at:#x}"),
            AddressUse::Compared => format!("{name} compares its address at +{at:#x}"),
            AddressUse::Unknown(what) => format!("{name} does something with its address at +{at:#x}: {what}"),
        }
    }
}

/// What a reference means for the object whose address is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An address of it.
    Inside,
    /// One past its end, where something else begins: a bound of a loop. Compared with an address of the object it is no
    /// more than that, and it is followed only once something is taken from it.
    End,
    /// An address of a neighbour, the bound of a loop over the object as well.
    Near,
    /// A place where an address of it is kept: what an instruction reads there is one.
    Kept,
}

/// Is a function of this name known to read only? Nobody has to look at its code.
pub fn is_reader(name: &str) -> bool {
    readers::reader(name).is_some()
}

/// What is said of an address in the second word of a result of two.
pub const SECOND_RESULT: &str = "it is the second half of the result";

/// How many calls deep an argument is followed.
pub const DEPTH: usize = 4;

/// Which references are followed: asked with the atom that holds the reference.
pub type Seed<'a> = &'a dyn Fn(AtomId, &Ref) -> Option<Part>;

/// Follows the references of `functions` that `seed` picks. By function and offset, without repetition.
pub fn trace(object: &Object, functions: &BTreeSet<AtomId>, seed: Seed<'_>) -> Vec<Found> {
    walk::Tracer::new(object, seed, None).run(functions)
}

/// What is known of a patch.
#[derive(Clone, Copy)]
pub(crate) struct InPatch<'a> {
    /// Does a function belong to it?
    pub carried: &'a dyn Fn(AtomId) -> bool,
    /// Is it called by the patch itself, which waits until it is through (a callback)?
    pub awaited: &'a dyn Fn(AtomId) -> bool,
    /// Is what is loaded through the address another one of the patch (a table of pointers)?
    pub deep: bool,
}

/// The same for functions of a patch: told as well is where an address goes on while no function of the
/// patch is on the stack, so that nothing keeps the patch from leaving. That is a return to a function that is not of the
/// patch, and a jump to one that may sleep.
pub(crate) fn trace_carried(
    object: &Object,
    functions: &BTreeSet<AtomId>,
    seed: Seed<'_>,
    patch: InPatch<'_>,
) -> Vec<Found> {
    walk::Tracer::new(object, seed, Some(patch)).run(functions)
}

/// What becomes of the address of the data object `of`, in all functions of the object that refer to it.
pub fn of_data(object: &Object, of: AtomId) -> Vec<Found> {
    let atom = object.atom(of);
    let (from, to) = (atom.start as i64 - BIAS, atom.end as i64 + BIAS);
    let mut functions = BTreeSet::new();
    let mut found = Vec::new();
    for i in object.incoming(atom.section, from, to) {
        let by = object.atom(i.from);
        if !by.is_code() || part_of(object, of, (i.section, i.to), i.usage) != Some(Part::Inside) {
            continue;
        }
        if by.code.is_some() {
            functions.insert(object.parent(i.from));
        } else if !matches!(i.usage, Usage::Access | Usage::Branch) {
            found.push(Found { atom: i.from, at: 0, what: AddressUse::Unknown("its code was not looked at".into()) });
        }
    }
    let around = neighbours(object, of);
    let seed = |_: AtomId, r: &Ref| match r.target {
        Target::Section(s, o) => part_of(object, of, (s, o), r.usage).or_else(|| {
            let near = s == atom.section && around.iter().any(|(from, to)| (*from..*to).contains(&o));
            (near && !matches!(r.usage, Usage::Branch | Usage::Access)).then_some(Part::Near)
        }),
        Target::Extern(..) => None,
    };
    found.extend(trace(object, &functions, &seed));
    found.sort();
    found.dedup();
    found
}

/// How far from an object a reference that means it may point, in bytes: biased bases of indexed accesses.
const BIAS: i64 = 4096;

fn part_of(object: &Object, of: AtomId, place: (SectionId, i64), usage: Usage) -> Option<Part> {
    let atom = object.atom(of);
    if place.0 != atom.section || usage == Usage::Branch {
        return None;
    }
    let means = object.certain(place.0, place.1);
    if means.iter().any(|m| m.atom == of) {
        return Some(Part::Inside);
    }
    (place.1 == atom.end as i64 && usage != Usage::Access).then_some(Part::End)
}

/// The objects right before and behind one: where one ends the next begins, so that the end of a loop over the one looks
/// like the address of the other.
fn neighbours(object: &Object, of: AtomId) -> Vec<(i64, i64)> {
    let atom = object.atom(of);
    let list = object.atoms_of(atom.section);
    let at = list.partition_point(|id| object.atom(*id).start < atom.start);
    let behind = list[at..].iter().find(|id| object.atom(**id).start >= atom.end);
    let before = list[..at].last();
    let range = |id: &AtomId| (object.atom(*id).start as i64, object.atom(*id).end as i64);
    before.into_iter().chain(behind).map(range).collect()
}
