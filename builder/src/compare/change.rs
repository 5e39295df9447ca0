//! What differs first in a function, as data; the words are for people.

use std::fmt;

/// The first difference between the two builds of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in a section of another kind: freed after boot, or never to be probed, on one side only.
    Section {
        /// Name of the old section.
        from: String,
        /// Name of the new one.
        to: String,
    },
    /// Another number of instructions.
    Instructions {
        /// In the old build.
        old: usize,
        /// In the new one.
        new: usize,
    },
    /// Call padding of another length or content, in bytes.
    Padding {
        /// In the old build.
        old: u64,
        /// In the new one.
        new: u64,
    },
    /// Other bytes, in code that does not decode.
    Bytes,
    /// Another relocation, in code that does not decode.
    Relocation {
        /// Offset in the function.
        at: u64,
    },
    /// Another instruction.
    Instruction {
        /// Offset in the new function.
        at: u64,
    },
    /// The same instruction with another meaning of a field.
    Reference {
        /// Offset of the instruction in the new function.
        at: u64,
    },
    /// A constant it refers to has another content.
    Constant {
        /// Its name.
        name: String,
    },
    /// Another number of entries of special sections.
    Entries {
        /// In the old build.
        old: usize,
        /// In the new one.
        new: usize,
        /// The section of the first one.
        table: String,
    },
    /// Another entry of a special section.
    Entry {
        /// Its section.
        table: String,
        /// Offset in the new function of what it is about.
        at: i64,
    },
    /// A constant that an entry refers to has another content.
    EntryConstant {
        /// The section of the entry.
        table: String,
        /// Name of the constant.
        name: String,
    },
    /// The compiler split off a piece that the old build does not have.
    NewPiece {
        /// Its name.
        name: String,
    },
    /// The difference is in a piece that the compiler split off.
    InPiece {
        /// Its name.
        name: String,
        /// What differs there.
        change: Box<Change>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Section { from, to } => write!(f, "it moved from {from} to {to}"),
            Self::Instructions { old, new } => write!(f, "{old} instructions became {new}"),
            Self::Padding { old, new } => write!(f, "{old} bytes of call padding became {new}"),
            Self::Bytes => f.write_str("its bytes differ"),
            Self::Relocation { at } => {
                write!(f, "not all of it could be decoded, and the relocation at +{at:#x} differs")
            }
            Self::Instruction { at } => write!(f, "the instruction at +{at:#x} differs"),
            Self::Reference { at } => write!(f, "the instruction at +{at:#x} refers to something else"),
            Self::Constant { name } => write!(f, "it refers to {name}, whose content changed"),
            Self::Entries { old, new, table } => write!(f, "{old} table entries became {new} ({table} ...)"),
            Self::Entry { table, at } => write!(f, "its {table} entry at +{at:#x} differs"),
            Self::EntryConstant { table, name } => {
                write!(f, "its {table} entry refers to {name}, whose content changed")
            }
            Self::NewPiece { name } => write!(f, "{name} is new"),
            Self::InPiece { name, change } => write!(f, "{name}: {change}"),
        }
    }
}
