//! Whether two units have the same types: a quick way to see that nothing about types needs to be asked.
//!
//! The types at the top of both units are read side by side, entry by entry with all that is below them. They are the same when
//! each entry has the same tag, depth and attributes of [`of_types`] as the one beside it, where a reference counts as the same
//! when it leads to entries that were read side by side. Functions and variables are left out. What is not understood, or
//! differs in as much as the form of a number, says no: then the types are compared one by one.

use gimli::{AttributeValue, DwTag, EntriesRaw, UnitOffset, constants};

use super::entries::{Bytes, Entry, Reader, of_types, read_kept};

/// The entries of types of two units that are the same.
pub(super) struct Alike {
    /// Offsets in both, in the order of either.
    pairs: Vec<(usize, usize)>,
}

impl Alike {
    /// Nothing when some type differs.
    pub(super) fn of<'o, 'n>(old: &Reader<'o>, new: &Reader<'n>) -> Option<Self> {
        let (mut a, mut b) = (Cursor::new(old)?, Cursor::new(new)?);
        let mut alike = Self { pairs: Vec::new() };
        let mut references: Vec<(usize, usize)> = Vec::new();
        loop {
            match (a.next()?, b.next()?) {
                (None, None) => break,
                (Some(depth), Some(other)) if depth == other => {
                    compare((old, &a.entry), (new, &b.entry), &mut references)?;
                    alike.pairs.push((a.entry.offset.0, b.entry.offset.0));
                }
                _ => return None,
            }
        }
        references.iter().all(|(o, n)| alike.new_of(*o) == Some(*n)).then_some(alike)
    }

    /// What stands beside an old entry.
    pub(super) fn new_of(&self, old: usize) -> Option<usize> {
        let at = self.pairs.binary_search_by_key(&old, |p| p.0).ok()?;
        Some(self.pairs[at].1)
    }

    /// Is it one of the new entries?
    pub(super) fn has_new(&self, new: usize) -> bool {
        self.pairs.binary_search_by_key(&new, |p| p.1).is_ok()
    }
}

/// Nothing when they differ; where they refer to is noted.
fn compare<'o, 'n>(
    (old, a): (&Reader<'o>, &Entry<'o>),
    (new, b): (&Reader<'n>, &Entry<'n>),
    references: &mut Vec<(usize, usize)>,
) -> Option<()> {
    if a.tag != b.tag || a.attrs.len() != b.attrs.len() {
        return None;
    }
    for (x, y) in a.attrs.iter().zip(&b.attrs) {
        if x.name() != y.name() {
            return None;
        }
        if x.name() == constants::DW_AT_sibling {
            continue;
        }
        let same = match (x.raw_value(), y.raw_value()) {
            (AttributeValue::UnitRef(o), AttributeValue::UnitRef(n)) => {
                references.push((o.0, n.0));
                true
            }
            (o, n) if x.name() == constants::DW_AT_name => {
                let (o, n) = (old.dwarf.attr_string(&old.unit, o), new.dwarf.attr_string(&new.unit, n));
                matches!((o, n), (Ok(o), Ok(n)) if o.slice() == n.slice())
            }
            (AttributeValue::Exprloc(o), AttributeValue::Exprloc(n)) => o.0.slice() == n.0.slice(),
            (AttributeValue::Block(o), AttributeValue::Block(n)) => o.slice() == n.slice(),
            (AttributeValue::Data1(o), AttributeValue::Data1(n)) => o == n,
            (AttributeValue::Data2(o), AttributeValue::Data2(n)) => o == n,
            (AttributeValue::Data4(o), AttributeValue::Data4(n)) => o == n,
            (AttributeValue::Data8(o), AttributeValue::Data8(n)) => o == n,
            (AttributeValue::Udata(o), AttributeValue::Udata(n)) => o == n,
            (AttributeValue::Sdata(o), AttributeValue::Sdata(n)) => o == n,
            (AttributeValue::Flag(o), AttributeValue::Flag(n)) => o == n,
            _ => false,
        };
        if !same {
            return None;
        }
    }
    Some(())
}

/// What an entry at the top of a unit of C is.
enum Kind {
    Type,
    Code,
    Unknown,
}

fn kind(tag: DwTag) -> Kind {
    match tag {
        constants::DW_TAG_subprogram | constants::DW_TAG_variable | constants::DW_TAG_dwarf_procedure => Kind::Code,
        constants::DW_TAG_structure_type
        | constants::DW_TAG_union_type
        | constants::DW_TAG_enumeration_type
        | constants::DW_TAG_typedef
        | constants::DW_TAG_pointer_type
        | constants::DW_TAG_array_type
        | constants::DW_TAG_subroutine_type
        | constants::DW_TAG_base_type
        | constants::DW_TAG_unspecified_type
        | constants::DW_TAG_const_type
        | constants::DW_TAG_volatile_type
        | constants::DW_TAG_restrict_type
        | constants::DW_TAG_atomic_type => Kind::Type,
        _ => Kind::Unknown,
    }
}

/// The entries of the types of a unit, one after the other.
struct Cursor<'r, 'a> {
    reader: &'r Reader<'a>,
    raw: EntriesRaw<'r, Bytes<'a>>,
    /// Depth of `raw` when it began.
    base: isize,
    /// The last one.
    entry: Entry<'a>,
}

impl<'r, 'a> Cursor<'r, 'a> {
    fn new(reader: &'r Reader<'a>) -> Option<Self> {
        let mut raw = reader.unit.entries_raw(None).ok()?;
        let root = raw.read_abbreviation().ok()??;
        raw.skip_attributes(root.attributes()).ok()?;
        Some(Self { reader, raw, base: 0, entry: Entry::null() })
    }

    /// Reads the next entry and returns its depth, nothing in it at the end; nothing at all when something is not understood.
    fn next(&mut self) -> Option<Option<isize>> {
        // Within something that is left out and does not say where it ends.
        let mut over = false;
        while !self.raw.is_empty() {
            let depth = self.base.checked_add(self.raw.next_depth())?;
            let offset = self.raw.next_offset();
            let Some(abbreviation) = self.raw.read_abbreviation().ok()? else { continue };
            if depth <= 0 {
                return None;
            }
            over &= depth > 1;
            let kind = if depth == 1 { kind(abbreviation.tag()) } else { Kind::Type };
            match kind {
                Kind::Unknown => return None,
                Kind::Type if !over => {
                    self.entry.tag = abbreviation.tag();
                    self.entry.offset = offset;
                    read_kept(&mut self.raw, abbreviation.attributes(), of_types, &mut self.entry.attrs).ok()?;
                    return Some(Some(depth));
                }
                Kind::Type => self.raw.skip_attributes(abbreviation.attributes()).ok()?,
                Kind::Code => {
                    read_kept(&mut self.raw, abbreviation.attributes(), |_| false, &mut self.entry.attrs).ok()?;
                    if abbreviation.has_children() {
                        match self.entry.attr_value(constants::DW_AT_sibling) {
                            Some(AttributeValue::UnitRef(next)) if next > offset => self.go_to(next)?,
                            _ => over = true,
                        }
                    }
                }
            }
        }
        Some(None)
    }

    fn go_to(&mut self, next: UnitOffset) -> Option<()> {
        self.raw = self.reader.unit.entries_raw(Some(next)).ok()?;
        self.base = 1;
        Some(())
    }
}
