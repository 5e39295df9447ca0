//! How functions are called: result and parameters as declared (DWARF 5, 3.3 "Subroutine and Entry Point Entries").
//!
//! Of a clone (`.isra.0`, `.constprop.0`) it is the signature of the function it was made of. Typedefs and qualifiers are left
//! out of the types.

use std::rc::Rc;

use gimli::constants;

use super::DebugInfo;
use super::entries::{Entry, Reader};
use super::spelling::Spelling;

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
        self.ids().find_map(|unit| {
            let reader = Reader::new(self, unit)?;
            let mut found = None;
            reader.children(reader.unit.header.root_offset().0, |entry| {
                let is_it = entry.tag == constants::DW_TAG_subprogram
                    && reader.string(entry, constants::DW_AT_name).is_some_and(|n| n == name);
                if is_it && found.is_none() {
                    found = read(&reader, entry);
                }
            });
            found
        })
    }
}

/// Nothing when the entry leaves its name, and with it the rest, to the one it was made of.
fn read<'a>(reader: &Reader<'a>, entry: &Entry<'a>) -> Option<Prototype> {
    let name = reader.string(entry, constants::DW_AT_name)?.into_owned();
    let mut spelling = Spelling::new(reader);
    let text = |spelled: Rc<str>| spelled.to_string();
    let result = text(spelling.of(entry));
    let mut parameters = Vec::new();
    reader.children(entry.offset.0, |child| match child.tag {
        constants::DW_TAG_formal_parameter => {
            let name = reader.string(child, constants::DW_AT_name).map(|n| n.into_owned());
            parameters.push((text(spelling.of(child)), name));
        }
        constants::DW_TAG_unspecified_parameters => parameters.push(("...".to_owned(), Some(String::new()))),
        _ => {}
    });
    Some(Prototype { name, result, parameters })
}
