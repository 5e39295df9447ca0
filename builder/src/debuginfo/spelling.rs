//! How the type of a member is written, as far as it says how the bytes of the member are used (DWARF 5, 5.1 to 5.13).
//!
//! Qualifiers and typedefs are left out, so that `u32` and `unsigned int` are the same. What has a name ends the spelling: that
//! a `struct` changed is said where it is compared itself. Something without a name but with a typedef goes by that.

use std::borrow::Cow;
use std::rc::Rc;

use gimli::{DwTag, constants};
use rustc_hash::FxHashMap;

use super::entries::{Entry, Reader, of_types};
use super::layout::{Nameless, nameless};

/// Types within each other; a spelling ends there, also in a circle.
pub(super) const DEPTH: usize = 24;

/// Bytes of a spelling; functions that take functions that take functions may grow without bound.
const LENGTH: usize = 1 << 10;

/// `struct`, `union` or `enum`, if the tag is one of them.
pub(super) fn keyword(tag: DwTag) -> Option<&'static str> {
    match tag {
        constants::DW_TAG_structure_type => Some("struct"),
        constants::DW_TAG_union_type => Some("union"),
        constants::DW_TAG_class_type => Some("class"),
        constants::DW_TAG_enumeration_type => Some("enum"),
        _ => None,
    }
}

/// Is it a type that only adds a property to another one (DWARF 5, 5.3)?
pub(super) fn is_qualifier(tag: DwTag) -> bool {
    matches!(
        tag,
        constants::DW_TAG_const_type
            | constants::DW_TAG_volatile_type
            | constants::DW_TAG_restrict_type
            | constants::DW_TAG_atomic_type
            | constants::DW_TAG_immutable_type
    )
}

/// The spellings of one unit.
pub(super) struct Spelling<'r, 'a> {
    pub(super) reader: &'r Reader<'a>,
    known: FxHashMap<usize, Rc<str>>,
    /// The types without a name behind others, as far as they were looked for.
    nameless: FxHashMap<usize, Option<Nameless>>,
}

impl<'r, 'a> Spelling<'r, 'a> {
    pub(super) fn new(reader: &'r Reader<'a>) -> Self {
        Self { reader, known: FxHashMap::default(), nameless: FxHashMap::default() }
    }

    /// The type without a name behind the type at `offset`, as [`nameless`] finds it.
    pub(super) fn nameless(&mut self, offset: usize) -> Option<Nameless> {
        *self.nameless.entry(offset).or_insert_with(|| nameless(self.reader, offset))
    }

    /// The type an entry has.
    pub(super) fn of(&mut self, entry: &Entry<'a>) -> Rc<str> {
        self.type_of(entry, DEPTH)
    }

    fn type_of(&mut self, entry: &Entry<'a>, depth: usize) -> Rc<str> {
        match self.reader.reference(entry, constants::DW_AT_type) {
            Some(offset) => self.at(offset, depth),
            None if entry.has_attr(constants::DW_AT_type) => "?".into(),
            None => "void".into(),
        }
    }

    fn at(&mut self, offset: usize, depth: usize) -> Rc<str> {
        if let Some(known) = self.known.get(&offset) {
            return Rc::clone(known);
        }
        let Some(depth) = depth.checked_sub(1) else { return "?".into() };
        // What leads back to itself finds this.
        self.known.insert(offset, "?".into());
        let mut text = match self.reader.type_entry(offset) {
            Some(entry) => self.entry(&entry, depth),
            None => "?".into(),
        };
        if text.len() > LENGTH {
            text = format!("{}...", &text[..text.floor_char_boundary(LENGTH)]).into();
        }
        self.known.insert(offset, Rc::clone(&text));
        text
    }

    fn entry(&mut self, entry: &Entry<'a>, depth: usize) -> Rc<str> {
        let name = self.reader.string(entry, constants::DW_AT_name);
        if let Some(keyword) = keyword(entry.tag) {
            return name.map_or_else(|| format!("{keyword} {{...}}"), |n| format!("{keyword} {n}")).into();
        }
        match entry.tag {
            constants::DW_TAG_typedef => {
                let text = self.type_of(entry, depth);
                if text.ends_with(" {...}") { name.unwrap_or_default().into() } else { text }
            }
            tag if is_qualifier(tag) => self.type_of(entry, depth),
            constants::DW_TAG_pointer_type => {
                let text = self.type_of(entry, depth);
                // The parameters of a function stand behind.
                match text.split_once(" (") {
                    Some((result, rest)) if !rest.starts_with('*') && text.ends_with(')') => {
                        format!("{result} (*)({rest}").into()
                    }
                    _ if text.ends_with('*') => format!("{text}*").into(),
                    _ => format!("{text} *").into(),
                }
            }
            constants::DW_TAG_array_type => {
                let mut text = self.type_of(entry, depth).to_string();
                for count in self.reader.dimensions(entry) {
                    // `[0]` was how `[]` is written before it was in the language.
                    match count {
                        None | Some(0) => text.push_str("[]"),
                        Some(count) => text.push_str(&format!("[{count}]")),
                    }
                }
                text.into()
            }
            constants::DW_TAG_subroutine_type => {
                let mut parameters: Vec<Rc<str>> = Vec::new();
                self.reader.children(entry.offset.0, of_types, |parameter| match parameter.tag {
                    constants::DW_TAG_formal_parameter => parameters.push(self.type_of(parameter, depth)),
                    constants::DW_TAG_unspecified_parameters => parameters.push("...".into()),
                    _ => {}
                });
                format!("{} ({})", self.type_of(entry, depth), parameters.join(", ")).into()
            }
            _ => name.unwrap_or(Cow::Borrowed("?")).into(),
        }
    }
}
