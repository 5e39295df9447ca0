//! The layout of one structure, union or enumeration, and how two of them differ (DWARF 5, 5.7 and 5.8).
//!
//! Members without a name (anonymous structures and unions) are taken apart into theirs. What a member with a name but a type
//! without one holds or points to is named behind it: `a.b`, `a[].b`, `a->b`.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use gimli::{AttributeValue, Operation, constants};

use super::entries::{Entry, Reader, of_types};
use super::spelling::{DEPTH, Spelling, is_qualifier, keyword};

/// Layout of a definition. Equal ones are used in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout<'a> {
    size: Option<u64>,
    members: Vec<Member<'a>>,
    values: Vec<(Cow<'a, str>, i128)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member<'a> {
    name: Cow<'a, str>,
    /// Offset in bits.
    at: u64,
    /// Bits of a bit-field.
    bits: Option<u64>,
    spelled: Rc<str>,
}

/// What a nameless part is in.
struct Outer {
    /// In front of the names.
    prefix: String,
    /// Offset in bits.
    at: u64,
    /// How many more there may be within each other.
    depth: usize,
}

/// How two layouts differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) what: String,
    /// All there was is where it was.
    pub(super) additive: bool,
    /// Only an enumeration got more values: no object changes its meaning.
    pub(super) more_values: bool,
    /// Code that uses the type can differ without showing one of the numbers: they stand in it as a factor, a bit, a mask or
    /// the width of an access.
    pub(super) unseen: bool,
    /// Both layouts near the difference.
    pub(super) shown: String,
    /// Offsets, sizes and values that only one of the two has: what code that uses the type has to change.
    pub(super) numbers: Vec<u64>,
}

/// Nameless parts that are taken apart; only a circle has more.
const NAMELESS: usize = 1 << 10;

/// Words in the names of what is no number of an enumeration but how many there are.
const BOUNDS: &[&str] = &["NR", "MAX", "NUM", "COUNT", "CNT", "LAST", "END", "LIMIT", "SIZE", "TOTAL"];

/// Differences that are named; the others are counted.
const NAMED: usize = 4;

/// Members whose distances from each other are looked at.
const FROM_OTHERS: usize = 256;

/// Lines of a layout that are shown; the others are counted.
const SHOWN: usize = 8;

impl<'a> Layout<'a> {
    /// Numbers alone.
    pub(super) fn of_values(values: Vec<(Cow<'a, str>, i128)>) -> Self {
        Self { size: None, members: Vec::new(), values }
    }

    /// The numbers of an enumeration, and of those without a name in a structure.
    pub(super) fn values(&self) -> &[(Cow<'a, str>, i128)] {
        &self.values
    }

    /// The layout of the definition `entry`; the types of its members are handed to `reach`.
    pub(super) fn read(spelling: &mut Spelling<'_, 'a>, entry: &Entry<'a>, reach: &mut dyn FnMut(usize)) -> Self {
        let size = Reader::number(entry, constants::DW_AT_byte_size);
        let mut layout = Self { size, members: Vec::new(), values: Vec::new() };
        let mut left = NAMELESS;
        let outer = Outer { prefix: String::new(), at: 0, depth: DEPTH };
        layout.take_apart(spelling, entry.offset.0, &outer, &mut left, reach);
        layout
    }

    fn take_apart(
        &mut self,
        spelling: &mut Spelling<'_, 'a>,
        offset: usize,
        outer: &Outer,
        left: &mut usize,
        reach: &mut dyn FnMut(usize),
    ) {
        let reader = spelling.reader;
        reader.children(offset, of_types, |child| match child.tag {
            constants::DW_TAG_enumerator => {
                let name = reader.string(child, constants::DW_AT_name).unwrap_or_default();
                self.values.push((name, value(child)));
            }
            // A static member, as in C++, has no place.
            constants::DW_TAG_member if !child.has_attr(constants::DW_AT_external) => {
                let (at, bits) = place(reader, child);
                let at = outer.at.saturating_add(at);
                let of = reader.reference(child, constants::DW_AT_type);
                let inner = of.and_then(|t| spelling.nameless(t));
                let mut prefix = outer.prefix.clone();
                if let Some(name) = reader.string(child, constants::DW_AT_name) {
                    if let Some(inner) = &inner {
                        let array = if inner.array { "[]" } else { "" };
                        prefix = format!("{prefix}{name}{array}{}", if inner.pointer { "->" } else { "." });
                    }
                    let name = if outer.prefix.is_empty() { name } else { format!("{}{name}", outer.prefix).into() };
                    self.members.push(Member { name, at, bits, spelled: spelling.of(child) });
                }
                match (inner, outer.depth.checked_sub(1).filter(|_| *left > 0)) {
                    (Some(inner), Some(depth)) => {
                        *left -= 1;
                        let at = if inner.pointer { 0 } else { at };
                        self.take_apart(spelling, inner.offset, &Outer { prefix, at, depth }, left, reach);
                    }
                    (Some(_), None) => {}
                    (None, _) => of.into_iter().for_each(&mut *reach),
                }
            }
            _ => {}
        });
    }

    /// How `new` differs from this one; nothing when it does not.
    pub(super) fn difference(&self, new: &Self) -> Option<Difference> {
        if self == new {
            return None;
        }
        let mut found: Vec<String> = Vec::new();
        let mut additive = self.size == new.size;
        if self.size != new.size {
            let text = |size: Option<u64>| size.map_or("unknown".to_owned(), |s| s.to_string());
            found.push(format!("{} bytes became {}", text(self.size), text(new.size)));
        }
        let (gone, kept, added) = pair(&self.members, &new.members, |m| &m.name);
        additive &= gone.is_empty();
        found.extend(added.iter().map(|m| format!("member `{}` is new", m.name)));
        found.extend(gone.iter().map(|m| format!("member `{}` is gone", m.name)));
        let (retyped, rest): (Vec<_>, Vec<_>) =
            kept.into_iter().filter(|(o, n)| o != n).partition(|(o, n)| o.spelled != n.spelled || o.bits != n.bits);
        additive &= retyped.is_empty() && rest.is_empty();
        found.extend(retyped.iter().map(|(o, n)| {
            let text = |m: &Member<'_>| match m.bits {
                Some(bits) => format!("{}:{bits}", m.spelled),
                None => m.spelled.to_string(),
            };
            format!("member `{}` was `{}` and is `{}`", o.name, text(o), text(n))
        }));
        found.extend(rest.iter().map(|(o, n)| format!("member `{}` {}", o.name, moved(o, n))));
        let more_values = additive && added.is_empty();
        let (gone, kept, added) = pair(&self.values, &new.values, |v| &v.0);
        let other: Vec<_> = kept.into_iter().filter(|(o, n)| o != n).collect();
        additive &= gone.is_empty() && other.is_empty();
        found.extend(other.iter().map(|(o, n)| format!("`{}` was {} and is {}", o.0, o.1, n.1)));
        found.extend(gone.iter().map(|v| format!("`{}` is gone", v.0)));
        found.extend(added.iter().map(|v| format!("`{}` is new", v.0)));
        if found.is_empty() {
            // The same parts in another order.
            return None;
        }
        let more = found.len().saturating_sub(NAMED);
        if more > 1 {
            found.truncate(NAMED);
            found.push(format!("and {more} more"));
        }
        let shown = format!("{}\n{}", self.show("old", new), new.show("new", self));
        let last = |l: &Self| l.values.iter().map(|v| v.1).max();
        // `NR_ITEMS` behind the new ones: a bound, which code has as it is. The last of the others is a number like them.
        let grew = i128::try_from(added.len()).unwrap_or(0);
        let is_bound = |name: &str, o: i128, n: i128| {
            Some(o) == last(self)
                && Some(n) == last(new)
                && n - o == grew
                && name.split('_').any(|word| BOUNDS.contains(&word))
        };
        let only_more = more_values && gone.is_empty() && other.iter().all(|(o, n)| is_bound(&o.0, o.1, n.1));
        let more_values = more_values && additive;
        let unseen = !additive && !only_more;
        Some(Difference { what: found.join(", "), additive, more_values, unseen, shown, numbers: self.numbers(new) })
    }

    /// The parts that the other one does not have in the same way, each with its neighbours, one a line.
    fn show(&self, side: &str, other: &Self) -> String {
        let (own, theirs) = (self.lines(), other.lines());
        let theirs: FxHashSet<&String> = theirs.iter().collect();
        let differs = |i: usize| own.get(i).is_some_and(|l| !theirs.contains(l));
        let near = |i: usize| differs(i) || differs(i + 1) || i.checked_sub(1).is_some_and(differs);
        let mut text = match self.size {
            Some(size) => format!("  {side}, {size} bytes:"),
            None => format!("  {side}:"),
        };
        let (mut left, mut skipped) = (SHOWN, 0);
        for (i, line) in own.iter().enumerate() {
            if !near(i) || left == 0 {
                skipped += 1;
                continue;
            }
            if skipped > 0 {
                text.push_str("\n        ...");
                skipped = 0;
            }
            left -= 1;
            text.push_str(&format!("\n    {} {line}", if differs(i) { '*' } else { ' ' }));
        }
        if skipped > 0 {
            text.push_str(&format!("\n        ... {skipped} more"));
        }
        text
    }

    /// Each part in its order, as text.
    fn lines(&self) -> Vec<String> {
        let mut parts: Vec<&Member<'_>> = self.members.iter().collect();
        parts.sort_by_key(|m| m.at);
        let place = |m: &Member<'_>| match m.bits {
            Some(bits) => format!("{:>5}.{} {} {}:{bits}", m.at / 8, m.at % 8, m.spelled, m.name),
            None => format!("{:>5}   {} {}", m.at / 8, m.spelled, m.name),
        };
        let values = self.values.iter().map(|(name, value)| format!("{name} = {value}"));
        parts.into_iter().map(place).chain(values).collect()
    }

    /// What code that uses the type counts with and only one of the two has: offsets in bytes, from the start and from another
    /// member (as `container_of` has them), size and values. Negative numbers as their complement.
    fn numbers(&self, other: &Self) -> Vec<u64> {
        let mut out = BTreeSet::new();
        if self.size != other.size {
            out.extend([self.size, other.size].into_iter().flatten());
        }
        for (one, two) in [(self, other), (other, self)] {
            let own = one.members.iter().filter(|m| !two.members.contains(m));
            for at in own.take(FROM_OTHERS).map(|m| m.at / 8) {
                out.insert(at);
                let others = one.members.iter().take(FROM_OTHERS).map(|m| m.at / 8).filter(|o| *o != at);
                out.extend(others.flat_map(|o| [at.wrapping_sub(o), o.wrapping_sub(at)]));
            }
            out.extend(one.values.iter().filter(|v| !two.values.contains(v)).map(|v| v.1 as u64));
        }
        out.into_iter().collect()
    }
}

/// What is only on the left, on both sides, only on the right. Parts of the same name are taken in their order.
fn pair<'x, 'a, T>(
    old: &'x [T],
    new: &'x [T],
    name: impl Fn(&T) -> &Cow<'a, str>,
) -> (Vec<&'x T>, Vec<(&'x T, &'x T)>, Vec<&'x T>) {
    let mut right: FxHashMap<&str, VecDeque<usize>> = FxHashMap::default();
    for (i, part) in new.iter().enumerate() {
        right.entry(name(part)).or_default().push_back(i);
    }
    let (mut gone, mut kept, mut taken) = (Vec::new(), Vec::new(), vec![false; new.len()]);
    for part in old {
        match right.get_mut(&**name(part)).and_then(VecDeque::pop_front) {
            Some(i) => {
                taken[i] = true;
                kept.push((part, &new[i]));
            }
            None => gone.push(part),
        }
    }
    let added = new.iter().zip(taken).filter(|(_, taken)| !taken).map(|(part, _)| part).collect();
    (gone, kept, added)
}

/// An offset, in bits where it has to be.
fn moved(old: &Member<'_>, new: &Member<'_>) -> String {
    if [old, new].iter().all(|m| m.at.is_multiple_of(8) && m.bits.is_none()) {
        format!("moved from {} to {} bytes", old.at / 8, new.at / 8)
    } else {
        format!("moved from bit {} to {}", old.at, new.at)
    }
}

/// A type without a name.
#[derive(Clone, Copy)]
pub(super) struct Nameless {
    pub(super) offset: usize,
    /// There are arrays in front.
    array: bool,
    /// There are pointers in front.
    pub(super) pointer: bool,
}

/// The type without a name behind qualifiers, arrays and pointers, if it is one. A typedef of it is a name.
pub(super) fn nameless(reader: &Reader<'_>, mut offset: usize) -> Option<Nameless> {
    let (mut array, mut pointer) = (false, false);
    for _ in 0..DEPTH {
        let entry = reader.type_entry(offset)?;
        if keyword(entry.tag).is_some() {
            return (!entry.has_attr(constants::DW_AT_name)).then_some(Nameless { offset, array, pointer });
        }
        let next = reader.reference(&entry, constants::DW_AT_type)?;
        match entry.tag {
            constants::DW_TAG_array_type => array = true,
            constants::DW_TAG_pointer_type => pointer = true,
            constants::DW_TAG_typedef if behind(reader, next).is_none() => {}
            tag if is_qualifier(tag) => {}
            _ => return None,
        }
        offset = next;
    }
    None
}

/// The type without a name a typedef gives one to.
pub(super) fn behind<'a>(reader: &Reader<'a>, mut offset: usize) -> Option<Entry<'a>> {
    for _ in 0..DEPTH {
        let entry = reader.type_entry(offset)?;
        if keyword(entry.tag).is_some() {
            return (!entry.has_attr(constants::DW_AT_name)).then_some(entry);
        }
        if !is_qualifier(entry.tag) {
            return None;
        }
        offset = reader.reference(&entry, constants::DW_AT_type)?;
    }
    None
}

/// Offset in bits, and the bits of a bit-field (DWARF 5, 5.7.6; `DW_AT_bit_offset` counts from the other end, DWARF 3, 5.5.5).
fn place(reader: &Reader<'_>, member: &Entry<'_>) -> (u64, Option<u64>) {
    let bits = Reader::number(member, constants::DW_AT_bit_size);
    let bytes = match member.attr_value(constants::DW_AT_data_member_location) {
        Some(AttributeValue::Exprloc(expression)) => match expression.operations(reader.unit.encoding()).next() {
            Ok(Some(Operation::PlusConstant { value })) => value,
            Ok(Some(Operation::UnsignedConstant { value })) => value,
            _ => 0,
        },
        Some(value) => value.udata_value().unwrap_or(0),
        None => 0,
    };
    let mut at = bytes.saturating_mul(8);
    if let Some(offset) = Reader::number(member, constants::DW_AT_data_bit_offset) {
        at = at.saturating_add(offset);
    } else if let Some(offset) = Reader::number(member, constants::DW_AT_bit_offset) {
        let storage = Reader::number(member, constants::DW_AT_byte_size).unwrap_or(0).saturating_mul(8);
        at = at.saturating_add(storage.saturating_sub(offset).saturating_sub(bits.unwrap_or(0)));
    }
    (at, bits)
}

/// The value of an enumerator, signed if it is written so.
fn value(enumerator: &Entry<'_>) -> i128 {
    match enumerator.attr_value(constants::DW_AT_const_value) {
        Some(AttributeValue::Sdata(value)) => value.into(),
        Some(value) => value.udata_value().map_or(0, i128::from),
        None => 0,
    }
}
