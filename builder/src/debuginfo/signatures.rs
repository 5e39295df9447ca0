//! How functions are called: result and parameters as declared (DWARF 5, 3.3 "Subroutine and Entry Point Entries").
//!
//! Of a clone (`.isra.0`, `.constprop.0`) it is the signature of the function it was made of. Typedefs and qualifiers are left
//! out of the types.

use std::hash::Hasher;
use std::rc::Rc;

use gimli::constants;
use rustc_hash::{FxHashMap, FxHasher};

use super::entries::{Entry, Reader, Step, is_unit, of_types};
use super::spelling::Spelling;
use super::{DebugInfo, Unit};

/// Result and parameters of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Its name in the source.
    pub name: String,
    result: String,
    /// Type and, unless it is a declaration without, name.
    parameters: Vec<(String, Option<String>)>,
}

impl Prototype {
    /// Whether a call written for one is right for the other: the same types, and not the same names in another order.
    pub fn agrees(&self, other: &Self) -> bool {
        let types = |s: &Self| s.parameters.iter().map(|p| p.0.clone()).collect::<Vec<_>>();
        if self.result != other.result || types(self) != types(other) {
            return false;
        }
        let names = |s: &Self| s.parameters.iter().map(|p| p.1.clone()).collect::<Option<Vec<_>>>();
        let (Some(own), Some(theirs)) = (names(self), names(other)) else { return true };
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        own == theirs || sorted(&own) != sorted(&theirs)
    }
}

impl std::fmt::Display for Prototype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |(of, name): &(String, Option<String>)| match name {
            Some(name) => format!("{of} {name}"),
            None => of.clone(),
        };
        let all: Vec<String> = self.parameters.iter().map(one).collect();
        let all = if all.is_empty() { "void".to_owned() } else { all.join(", ") };
        write!(f, "{} {}({all})", self.result, self.name)
    }
}

impl DebugInfo<'_> {
    /// The signature of the function at this address.
    pub fn signature_at(&self, address: u64) -> Option<Prototype> {
        let (unit, offset) = self.function_place(address)?;
        let reader = Reader::new(self, unit)?;
        let entry = reader.entry(offset)?;
        reader.origins(&entry, read)
    }

    /// The signature a function of this name is declared or defined with; of several units, the first that has it.
    pub fn signature_named(&self, name: &str) -> Option<Prototype> {
        Signatures::of(self).named(name)
    }
}

/// Signatures by name, for many questions: the units that had an answer stay open.
pub struct Signatures<'a> {
    info: &'a DebugInfo<'a>,
    open: FxHashMap<Unit, Option<Reader<'a>>>,
}

impl std::fmt::Debug for Signatures<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signatures").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

impl<'a> Signatures<'a> {
    /// Those of `info`; nothing is read before the first question.
    pub fn of(info: &'a DebugInfo<'_>) -> Self {
        Self { info, open: FxHashMap::default() }
    }

    /// As [`DebugInfo::signature_named`].
    pub fn named(&mut self, name: &str) -> Option<Prototype> {
        let info = self.info;
        info.ids().find_map(|unit| {
            let named = info.cell(unit)?.signatures.get_or_init(|| names(info, unit).unwrap_or_default());
            let wanted = hash(name.as_bytes());
            let first = named.partition_point(|n| n.0 < wanted);
            let mut found = named[first..].iter().take_while(|n| n.0 == wanted).peekable();
            found.peek()?;
            let reader = self.open.entry(unit).or_insert_with(|| Reader::new(info, unit)).as_ref()?;
            found.find_map(|(_, offset)| {
                let entry = reader.entry(*offset)?;
                let is_it = reader.string(&entry, constants::DW_AT_name).is_some_and(|n| n == name);
                is_it.then(|| read(reader, &entry))?
            })
        })
    }
}

/// The functions at the top of a unit, by [`hash`] of their names; those of one name in their order.
pub(super) type Names = Vec<(u64, usize)>;

fn hash(name: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(name);
    hasher.finish()
}

fn names(info: &DebugInfo<'_>, unit: Unit) -> Option<Names> {
    let reader = Reader::new(info, unit)?;
    let mut out = Names::new();
    let top = |tag| is_unit(tag) || tag == constants::DW_TAG_subprogram;
    let _ = reader.walk(
        reader.unit.header.root_offset().0,
        top,
        |a| a == constants::DW_AT_name,
        |entry, depth| {
            if depth == 0 {
                return Step::Into;
            }
            if let Some(name) = reader.string(entry, constants::DW_AT_name) {
                out.push((hash(name.as_bytes()), entry.offset.0));
            }
            Step::Over
        },
    );
    out.sort_by_key(|n| n.0);
    Some(out)
}

/// Nothing when the entry leaves its name, and with it the rest, to the one it was made of.
fn read<'a>(reader: &Reader<'a>, entry: &Entry<'a>) -> Option<Prototype> {
    let name = reader.string(entry, constants::DW_AT_name)?.into_owned();
    let mut spelling = Spelling::new(reader);
    let text = |spelled: Rc<str>| spelled.to_string();
    let result = text(spelling.of(entry));
    let mut parameters = Vec::new();
    reader.children(entry.offset.0, of_types, |child| match child.tag {
        constants::DW_TAG_formal_parameter => {
            let name = reader.string(child, constants::DW_AT_name).map(|n| n.into_owned());
            parameters.push((text(spelling.of(child)), name));
        }
        constants::DW_TAG_unspecified_parameters => parameters.push(("...".to_owned(), Some(String::new()))),
        _ => {}
    });
    Some(Prototype { name, result, parameters })
}
