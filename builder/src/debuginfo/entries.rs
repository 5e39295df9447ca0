//! One unit open for reading: entries, their attributes, and the entries these refer to (DWARF 5, 2 and 7.5).

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;

use gimli::{
    Attribute, AttributeSpecification, AttributeValue, DebugInfoOffset, DebuggingInformationEntry, DwAt, DwTag, Dwarf,
    EndianSlice, EntriesRaw, LittleEndian, SectionId, UnitOffset, constants,
};

use super::sections::Kind;
use super::{DebugInfo, Unit, paths};

/// Bytes of a section.
pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
/// One entry.
pub(super) type Entry<'a> = DebuggingInformationEntry<Bytes<'a>>;

/// From an entry to the one it was made of (`DW_AT_abstract_origin`, `DW_AT_specification`) and so on.
const ORIGINS: usize = 8;

/// Is it the root of a unit (DWARF 5, 3.1)?
pub(super) fn is_unit(tag: DwTag) -> bool {
    matches!(
        tag,
        constants::DW_TAG_compile_unit
            | constants::DW_TAG_partial_unit
            | constants::DW_TAG_type_unit
            | constants::DW_TAG_skeleton_unit
    )
}

/// All attributes.
pub(super) fn every(_: DwAt) -> bool {
    true
}

/// The attributes that say what a type is, and what its parts are: names, types, places and numbers.
pub(super) fn of_types(attribute: DwAt) -> bool {
    matches!(
        attribute,
        constants::DW_AT_name
            | constants::DW_AT_type
            | constants::DW_AT_byte_size
            | constants::DW_AT_declaration
            | constants::DW_AT_external
            | constants::DW_AT_data_member_location
            | constants::DW_AT_data_bit_offset
            | constants::DW_AT_bit_offset
            | constants::DW_AT_bit_size
            | constants::DW_AT_const_value
            | constants::DW_AT_count
            | constants::DW_AT_upper_bound
            | constants::DW_AT_abstract_origin
            | constants::DW_AT_specification
    )
}

/// Reads the attributes that are to be kept, and what leads to the next sibling; passes over the others.
pub(super) fn read_kept<'a>(
    raw: &mut EntriesRaw<'_, Bytes<'a>>,
    all: &[AttributeSpecification],
    keep: impl Fn(DwAt) -> bool,
    out: &mut Vec<Attribute<Bytes<'a>>>,
) -> gimli::Result<()> {
    out.clear();
    let mut rest = 0;
    for (i, one) in all.iter().enumerate() {
        if keep(one.name()) || one.name() == constants::DW_AT_sibling {
            raw.skip_attributes(&all[rest..i])?;
            out.push(raw.read_attribute(*one)?);
            rest = i + 1;
        }
    }
    raw.skip_attributes(&all[rest..])
}

/// What a walk does with the children of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Into,
    Over,
}

/// A unit and the sections it refers to.
pub(super) struct Reader<'a> {
    pub(super) info: &'a DebugInfo<'a>,
    pub(super) id: Unit,
    pub(super) dwarf: Dwarf<Bytes<'a>>,
    pub(super) unit: gimli::Unit<Bytes<'a>>,
}

impl<'a> Reader<'a> {
    /// Opens a unit that is worth remembering.
    pub(super) fn new(info: &'a DebugInfo<'_>, id: Unit) -> Option<Self> {
        Self::open(info, id, true)
    }

    /// Opens a unit only once.
    pub(super) fn once(info: &'a DebugInfo<'_>, id: Unit) -> Option<Self> {
        Self::open(info, id, false)
    }

    fn open(info: &'a DebugInfo<'_>, id: Unit, keep: bool) -> Option<Self> {
        let dwarf = info.dwarf();
        let cell = info.cell(id)?;
        let header = dwarf.unit_header(DebugInfoOffset(cell.offset)).ok()?;
        let parse = || dwarf.abbreviations(&header).ok();
        let abbreviations = match cell.abbreviations.get() {
            Some(known) => known.clone(),
            None if keep => cell.abbreviations.get_or_init(parse).clone(),
            None => parse(),
        }?;
        let unit = gimli::Unit::new_with_abbreviations(&dwarf, header, Arc::clone(&abbreviations)).ok()?;
        Some(Self { info, id, dwarf, unit })
    }

    pub(super) fn entry(&self, offset: usize) -> Option<Entry<'a>> {
        let mut entry = Entry::null();
        self.read(offset, &mut entry).then_some(entry)
    }

    /// Reads an entry into one that is there.
    pub(super) fn read(&self, offset: usize, entry: &mut Entry<'a>) -> bool {
        let raw = self.unit.entries_raw(Some(UnitOffset(offset)));
        raw.is_ok_and(|mut raw| raw.read_entry(entry).is_ok_and(|some| some))
    }

    /// As [`Self::entry`], with the attributes of types only.
    pub(super) fn type_entry(&self, offset: usize) -> Option<Entry<'a>> {
        let mut raw = self.unit.entries_raw(Some(UnitOffset(offset))).ok()?;
        let abbreviation = raw.read_abbreviation().ok()??;
        let mut entry = Entry::null();
        entry.tag = abbreviation.tag();
        entry.has_children = abbreviation.has_children();
        entry.offset = UnitOffset(offset);
        read_kept(&mut raw, abbreviation.attributes(), of_types, &mut entry.attrs).ok()?;
        Some(entry)
    }

    pub(super) fn root(&self) -> Option<Entry<'a>> {
        self.entry(self.unit.header.root_offset().0)
    }

    /// Visits the entry at `start` and what is below it, in the order of the section; `visit` gets the depth below `start`.
    /// Entries `wanted` has no use for are passed over with their children; the others have the attributes that `keep` names.
    pub(super) fn walk(
        &self,
        start: usize,
        wanted: impl Fn(DwTag) -> bool,
        keep: impl Fn(DwAt) -> bool,
        mut visit: impl FnMut(&Entry<'a>, usize) -> Step,
    ) -> Option<()> {
        let mut raw = self.unit.entries_raw(Some(UnitOffset(start))).ok()?;
        let mut entry = Entry::null();
        // Depth of `raw` when it began: it begins anew behind each sibling.
        let mut base = 0_isize;
        // Entries deeper than this are passed over.
        let mut over: Option<isize> = None;
        while !raw.is_empty() {
            let depth = base.checked_add(raw.next_depth())?;
            let offset = raw.next_offset();
            if depth <= 0 && offset.0 != start {
                break;
            }
            let abbreviation = raw.read_abbreviation().ok()?;
            let Some(abbreviation) = abbreviation else { continue };
            over = over.filter(|o| depth > *o);
            let (tag, has_children) = (abbreviation.tag(), abbreviation.has_children());
            let wanted = over.is_none() && wanted(tag);
            if !wanted && !has_children {
                raw.skip_attributes(abbreviation.attributes()).ok()?;
                continue;
            }
            entry.tag = tag;
            entry.has_children = has_children;
            entry.offset = offset;
            let specifications = abbreviation.attributes();
            if wanted {
                read_kept(&mut raw, specifications, &keep, &mut entry.attrs).ok()?;
            } else {
                read_kept(&mut raw, specifications, |_| false, &mut entry.attrs).ok()?;
            }
            if wanted && visit(&entry, usize::try_from(depth).ok()?) == Step::Into || !has_children {
                continue;
            }
            if offset.0 == start {
                break;
            }
            match entry.attr_value(constants::DW_AT_sibling) {
                Some(AttributeValue::UnitRef(next)) if next > offset => {
                    raw = self.unit.entries_raw(Some(next)).ok()?;
                    base = depth;
                }
                _ => over = over.or(Some(depth)),
            }
        }
        Some(())
    }

    /// Where an attribute refers to, if that is in this unit.
    pub(super) fn reference(&self, entry: &Entry<'a>, attribute: DwAt) -> Option<usize> {
        match entry.attr_value(attribute)? {
            AttributeValue::UnitRef(offset) => Some(offset.0),
            AttributeValue::DebugInfoRef(offset) => Some(offset.to_unit_offset(&self.unit.header)?.0),
            _ => None,
        }
    }

    pub(super) fn string(&self, entry: &Entry<'a>, attribute: DwAt) -> Option<Cow<'a, str>> {
        let bytes = self.dwarf.attr_string(&self.unit, entry.attr_value(attribute)?).ok()?;
        Some(std::str::from_utf8(bytes.slice()).map_or_else(|_| bytes.to_string_lossy(), Cow::Borrowed))
    }

    pub(super) fn number(entry: &Entry<'a>, attribute: DwAt) -> Option<u64> {
        entry.attr_value(attribute)?.udata_value()
    }

    /// Visits the children of the entry at `parent`.
    pub(super) fn children(&self, parent: usize, keep: impl Fn(DwAt) -> bool, mut visit: impl FnMut(&Entry<'a>)) {
        let _ = self.walk(
            parent,
            |_| true,
            keep,
            |entry, depth| {
                if depth == 0 {
                    return Step::Into;
                }
                visit(entry);
                Step::Over
            },
        );
    }

    /// Elements in each dimension of an array (DWARF 5, 5.5 and 5.13); nothing where it is open.
    pub(super) fn dimensions(&self, array: &Entry<'a>) -> Vec<Option<u64>> {
        let mut out = Vec::new();
        let wanted = |tag| tag == constants::DW_TAG_array_type || tag == constants::DW_TAG_subrange_type;
        let _ = self.walk(array.offset.0, wanted, of_types, |entry, depth| {
            if depth == 1 {
                let count = Self::number(entry, constants::DW_AT_count);
                let bound = || Self::number(entry, constants::DW_AT_upper_bound)?.checked_add(1);
                out.push(count.or_else(bound));
            }
            Step::Into
        });
        out
    }

    /// The code of an entry (DWARF 5, 2.17), empty ranges left out.
    pub(super) fn ranges(&self, entry: &Entry<'a>) -> Vec<Range<u64>> {
        self.try_ranges(entry).unwrap_or_default()
    }

    fn try_ranges(&self, entry: &Entry<'a>) -> Option<Vec<Range<u64>>> {
        let mut out = Vec::new();
        if let Some(list) = entry.attr_value(constants::DW_AT_ranges) {
            let mut list = self.dwarf.attr_ranges(&self.unit, list).ok()??;
            while let Ok(Some(range)) = list.next() {
                out.push(range.begin..range.end);
            }
        } else {
            let address = |value| self.dwarf.attr_address(&self.unit, value).ok()?;
            let low = address(entry.attr_value(constants::DW_AT_low_pc)?)?;
            let high = match entry.attr_value(constants::DW_AT_high_pc)? {
                AttributeValue::Udata(size) => low.checked_add(size)?,
                value => address(value)?,
            };
            if !self.unit.header.is_tombstone_address(low) {
                out.push(low..high);
            }
        }
        out.retain(|r| r.start < r.end);
        Some(out)
    }

    /// Name of the file an attribute has the number of.
    pub(super) fn file(&self, entry: &Entry<'a>, attribute: DwAt) -> Option<String> {
        let number = match entry.attr_value(attribute)? {
            AttributeValue::FileIndex(index) => index,
            value => value.udata_value()?,
        };
        self.file_name(self.unit.line_program.as_ref()?.header(), number)
    }

    /// Name of a file of the line table (DWARF 5, 6.2.4).
    pub(super) fn file_name(&self, header: &gimli::LineProgramHeader<Bytes<'a>>, number: u64) -> Option<String> {
        let text = |value| Some(self.dwarf.attr_string(&self.unit, value).ok()?.to_string_lossy());
        let file = header.file(number)?;
        let comp_dir = self.unit.comp_dir.as_ref().map(|c| c.to_string_lossy()).unwrap_or_default();
        let name = text(file.path_name())?;
        // Folder 0 is the build folder.
        let folder = match file.directory_index() {
            0 => Cow::Borrowed(""),
            _ => file.directory(header).and_then(text).unwrap_or_default(),
        };
        Some(self.info.tidy(&paths::join(&folder, &name), &comp_dir))
    }

    /// Looks at an entry and then at those it was made of (DWARF 5, 3.3.8.1), until `ask` has an answer.
    pub(super) fn origins<T>(
        &self,
        entry: &Entry<'a>,
        ask: impl Fn(&Reader<'a>, &Entry<'a>) -> Option<T>,
    ) -> Option<T> {
        let mut entry = entry.clone();
        let mut other: Option<Reader<'a>> = None;
        for _ in 0..ORIGINS {
            let reader = other.as_ref().unwrap_or(self);
            if let Some(answer) = ask(reader, &entry) {
                return Some(answer);
            }
            let origin = entry.attr_value(constants::DW_AT_abstract_origin);
            match origin.or_else(|| entry.attr_value(constants::DW_AT_specification))? {
                AttributeValue::UnitRef(offset) => entry = reader.entry(offset.0)?,
                AttributeValue::DebugInfoRef(offset) => {
                    let next = Reader::new(self.info, self.info.unit_of_offset(offset.0)?)?;
                    entry = next.entry(offset.to_unit_offset(&next.unit.header)?.0)?;
                    other = Some(next);
                }
                _ => return None,
            }
        }
        None
    }

    /// The name of an entry or of what it was made of.
    pub(super) fn name(&self, entry: &Entry<'a>) -> Option<String> {
        self.origins(entry, |r, e| r.string(e, constants::DW_AT_name).map(Cow::into_owned))
    }

    /// File and line of the declaration.
    pub(super) fn declared(&self, entry: &Entry<'a>) -> (Option<String>, Option<u64>) {
        let file = self.origins(entry, |r, e| r.file(e, constants::DW_AT_decl_file));
        (file, self.origins(entry, |_, e| Self::number(e, constants::DW_AT_decl_line)))
    }
}

impl DebugInfo<'_> {
    /// The sections as gimli takes them. Those no question needs stay empty.
    fn dwarf(&self) -> Dwarf<Bytes<'_>> {
        let load = |id: SectionId| -> Result<Bytes<'_>, Infallible> {
            let kind = match id {
                SectionId::DebugInfo => Some(Kind::Info),
                SectionId::DebugAbbrev => Some(Kind::Abbrev),
                SectionId::DebugLine => Some(Kind::Line),
                SectionId::DebugStr => Some(Kind::Str),
                SectionId::DebugLineStr => Some(Kind::LineStr),
                SectionId::DebugStrOffsets => Some(Kind::StrOffsets),
                SectionId::DebugAddr => Some(Kind::Addr),
                SectionId::DebugRngLists => Some(Kind::RngLists),
                SectionId::DebugRanges => Some(Kind::Ranges),
                SectionId::DebugLocLists => Some(Kind::LocLists),
                SectionId::DebugLoc => Some(Kind::Loc),
                _ => None,
            };
            Ok(EndianSlice::new(kind.map_or(&[], |k| self.sections.bytes(k)), LittleEndian))
        };
        match Dwarf::load(load) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }
}
