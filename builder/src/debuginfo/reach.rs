//! The types functions use: those of their parameters, variables and results, of what is inlined into them, of what they
//! call, and of the variables they refer to; and from there on through members, pointers, arrays and typedefs.
//!
//! One without a name goes by the variable that has it or leads to it (`struct of nohz`), or is a part of the type it is a member of.
//!
//! Not followed: the parameters of functions that are called through a pointer (a structure of operations would lead to
//! everything), and references to other units, which only a link-time optimisation makes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use gimli::{AttributeValue, DwTag, constants};
use rustc_hash::{FxHashMap, FxHashSet};

use super::alike::Alike;
use super::entries::{Entry, Reader, Step, every, is_unit, of_types};
use super::layout::{Layout, behind};
use super::spelling::{Spelling, keyword};

/// `struct`, `union`, `enum` and the name; nothing and the name when only a typedef has one. `of nohz` when nothing but the
/// variable `nohz` has it, `of f.p` when that is one of the function `f`, `of f()` for its result.
pub(super) type Key<'a> = (&'static str, Cow<'a, str>);

/// A type some function uses.
pub(super) struct Reached<'a> {
    /// Index of the function that reaches it first.
    pub(super) function: usize,
    /// Structures on the way.
    pub(super) distance: u32,
    /// Its definitions; several when functions have a type of the same name of their own.
    pub(super) layouts: Vec<Layout<'a>>,
}

/// A function to begin at.
#[derive(Clone, Copy)]
pub(super) struct Start<'u> {
    /// Its index in the question.
    pub(super) index: usize,
    /// Its entry.
    pub(super) entry: usize,
    /// Variables it refers to, by name.
    pub(super) globals: &'u [String],
}

/// What is to be looked at: a type, the function it is reached from and the structures on the way.
struct Next<'a> {
    offset: usize,
    /// What a type without a name goes by.
    key: Option<Key<'a>>,
    function: usize,
    distance: u32,
}

/// The types of one unit.
pub(super) struct Types<'r, 'a> {
    reader: &'r Reader<'a>,
    spelling: Spelling<'r, 'a>,
    /// Entries that were looked at.
    seen: FxHashSet<usize>,
    /// Nearest first.
    queue: VecDeque<Next<'a>>,
    /// Types without a name that were looked at, and by which.
    by_variable: FxHashSet<(usize, Key<'a>)>,
    pub(super) reached: FxHashMap<Key<'a>, Reached<'a>>,
    /// How the variables that live as long as the kernel are spelled, by the index of a function that uses one and name.
    pub(super) variables: BTreeMap<(usize, String), Rc<str>>,
    /// What is at the top of the unit, when somebody asked.
    tops: Option<Vec<Top<'a>>>,
    /// Definitions there.
    defined: Option<FxHashMap<Key<'a>, Vec<usize>>>,
}

impl<'r, 'a> Types<'r, 'a> {
    /// What the functions name; [`Self::follow`] finds the rest.
    pub(super) fn of(reader: &'r Reader<'a>, functions: &[Start<'_>]) -> Self {
        let mut types = Self {
            reader,
            spelling: Spelling::new(reader),
            seen: FxHashSet::default(),
            queue: VecDeque::new(),
            by_variable: FxHashSet::default(),
            reached: FxHashMap::default(),
            variables: BTreeMap::new(),
            tops: None,
            defined: None,
        };
        let globals = if functions.iter().any(|f| !f.globals.is_empty()) {
            globals(types.tops.get_or_insert_with(|| tops(reader)))
        } else {
            FxHashMap::default()
        };
        for function in functions {
            types.used_by(function.index, function.entry);
            for name in function.globals {
                let Some(entry) = globals.get(name.as_str()).and_then(|offset| reader.entry(*offset)) else { continue };
                types.variable(function.index, name.clone(), &entry);
                types.nameless(function.index, &entry, true, || name.clone());
            }
        }
        types
    }

    /// Does everything begin at types that both units have in the same way? Those without a name must also be the same ones for
    /// each variable they go by.
    pub(super) fn begin_alike(&self, new: &Types<'_, '_>, alike: &Alike) -> bool {
        let (was, is) = (self.by_variables(), new.by_variables());
        let same = |key: &Key<'_>, was: &BTreeSet<usize>| {
            is.get(key).is_none_or(|is| was.iter().filter_map(|o| alike.new_of(*o)).eq(is.iter().copied()))
        };
        self.queue.iter().all(|next| alike.new_of(next.offset).is_some())
            && new.queue.iter().all(|next| alike.has_new(next.offset))
            && was.iter().all(|(key, was)| same(key, was))
    }

    /// The types without a name that were found, by what each goes by.
    fn by_variables(&self) -> BTreeMap<Key<'a>, BTreeSet<usize>> {
        let mut out: BTreeMap<Key<'a>, BTreeSet<usize>> = BTreeMap::new();
        for next in &self.queue {
            if let Some(key) = &next.key {
                out.entry(key.clone()).or_default().insert(next.offset);
            }
        }
        out
    }

    /// Goes on from where the functions lead to.
    pub(super) fn follow(&mut self) {
        while let Some(next) = self.queue.pop_front() {
            self.look_at(&next);
        }
    }

    /// Every type the unit defines at its top.
    pub(super) fn names(&mut self) -> Vec<Key<'a>> {
        self.definitions().keys().cloned().collect()
    }

    fn definitions(&mut self) -> &FxHashMap<Key<'a>, Vec<usize>> {
        let reader = self.reader;
        let tops = self.tops.get_or_insert_with(|| tops(reader));
        self.defined.get_or_insert_with(|| definitions(reader, tops))
    }

    /// A variable that lives as long as the kernel.
    fn variable(&mut self, function: usize, name: String, entry: &Entry<'a>) {
        let Some(offset) = self.reader.reference(entry, constants::DW_AT_type) else { return };
        self.queue.push_back(Next { offset, key: None, function, distance: 0 });
        self.variables.insert((function, name), self.spelling.of(entry));
    }

    /// Queues a type without a name that what `entry` is about has or leads to. Which one has it by value is asked only where it
    /// lives on: an object on the stack is of no other build.
    fn nameless(&mut self, function: usize, entry: &Entry<'a>, lives: bool, name: impl FnOnce() -> String) {
        let of = self.reader.reference(entry, constants::DW_AT_type);
        let Some(found) = of.and_then(|offset| self.spelling.nameless(offset)) else { return };
        let keyword = self.reader.type_entry(found.offset).and_then(|e| keyword(e.tag));
        if let Some(keyword) = keyword.filter(|_| lives || found.pointer) {
            let key = Some((keyword, format!("of {}", name()).into()));
            self.queue.push_back(Next { offset: found.offset, key, function, distance: 0 });
        }
    }

    /// The definitions of a type that was not reached.
    pub(super) fn defined(&mut self, key: &Key<'a>) -> Vec<Layout<'a>> {
        let offsets = self.definitions().get(key).cloned().unwrap_or_default();
        let entries = offsets.into_iter().filter_map(|o| self.reader.type_entry(o));
        entries.map(|e| Layout::read(&mut self.spelling, &e, &mut |_| {})).collect()
    }

    /// The enumerations at the top of the unit in their order, with the keys of those that have one.
    pub(super) fn enumerations(&mut self) -> Vec<(Option<Key<'a>>, Layout<'a>)> {
        let defined = self.definitions();
        let keys: FxHashMap<usize, Key<'a>> =
            defined.iter().flat_map(|(key, offsets)| offsets.iter().map(move |o| (*o, key.clone()))).collect();
        let tops = self.tops.as_deref().unwrap_or_default();
        let enumerations = tops.iter().filter(|t| t.tag == constants::DW_TAG_enumeration_type);
        let entries = enumerations.filter_map(|t| self.reader.type_entry(t.offset));
        entries.map(|e| (keys.get(&e.offset.0).cloned(), Layout::read(&mut self.spelling, &e, &mut |_| {}))).collect()
    }

    /// Queues the types the function itself names, and those of the functions it was made of.
    fn used_by(&mut self, function: usize, entry: usize) {
        let mut parts = vec![entry];
        while let Some(part) = parts.pop() {
            if !self.seen.insert(part) {
                continue;
            }
            let wanted = |tag| {
                matches!(
                    tag,
                    constants::DW_TAG_subprogram
                        | constants::DW_TAG_inlined_subroutine
                        | constants::DW_TAG_lexical_block
                        | constants::DW_TAG_formal_parameter
                        | constants::DW_TAG_variable
                        | constants::DW_TAG_call_site
                        | constants::DW_TAG_GNU_call_site
                )
            };
            let reader = self.reader;
            let owner = || reader.entry(part).and_then(|e| reader.name(&e)).unwrap_or_default();
            let local = |entry: &Entry<'a>| format!("{}.{}", owner(), reader.name(entry).unwrap_or_default());
            let _ = reader.walk(part, wanted, every, |entry, depth| {
                if depth == 0 && entry.tag != constants::DW_TAG_subprogram {
                    return Step::Over;
                }
                if matches!(entry.tag, constants::DW_TAG_call_site | constants::DW_TAG_GNU_call_site) {
                    let callee = reader.reference(entry, constants::DW_AT_call_origin);
                    let callee = callee.or_else(|| reader.reference(entry, constants::DW_AT_abstract_origin));
                    self.called(function, callee);
                    return Step::Over;
                }
                if let Some(offset) = reader.reference(entry, constants::DW_AT_type) {
                    self.queue.push_back(Next { offset, key: None, function, distance: 0 });
                    match entry.tag {
                        constants::DW_TAG_subprogram => {
                            self.nameless(function, entry, true, || format!("{}()", owner()))
                        }
                        constants::DW_TAG_variable => self.nameless(function, entry, is_static(entry), || local(entry)),
                        _ => self.nameless(function, entry, true, || local(entry)),
                    }
                }
                if entry.tag == constants::DW_TAG_variable && is_static(entry) {
                    let name = reader.name(entry).unwrap_or_default();
                    let named =
                        |r: &Reader<'a>, e: &Entry<'a>| e.has_attr(constants::DW_AT_type).then(|| (r.id, e.clone()));
                    if let Some((unit, of)) = reader.origins(entry, named)
                        && unit == reader.id
                    {
                        self.variable(function, name, &of);
                        if !is_static(&of) {
                            self.nameless(function, &of, true, || local(&of));
                        }
                    }
                }
                if entry.tag == constants::DW_TAG_subprogram || entry.tag == constants::DW_TAG_inlined_subroutine {
                    parts.extend(reader.reference(entry, constants::DW_AT_abstract_origin));
                }
                Step::Into
            });
        }
    }

    /// Queues the types of the result and of the parameters of a function that is called.
    fn called(&mut self, function: usize, callee: Option<usize>) {
        let reader = self.reader;
        let Some(entry) = callee.and_then(|offset| reader.type_entry(offset)) else { return };
        let name = || reader.name(&entry).unwrap_or_default();
        let result = reader.reference(&entry, constants::DW_AT_type);
        self.queue.extend(result.map(|offset| Next { offset, key: None, function, distance: 0 }));
        self.nameless(function, &entry, true, || format!("{}()", name()));
        let mut count = 0;
        reader.children(entry.offset.0, of_types, |child| {
            if child.tag == constants::DW_TAG_formal_parameter {
                let of = reader.reference(child, constants::DW_AT_type);
                self.queue.extend(of.map(|offset| Next { offset, key: None, function, distance: 0 }));
                // One that is only declared has parameters without names.
                count += 1;
                let parameter = || reader.name(child).unwrap_or_else(|| count.to_string());
                self.nameless(function, child, true, || format!("{}.{}", name(), parameter()));
            }
        });
    }

    fn look_at(&mut self, next: &Next<'a>) {
        if let Some(key) = &next.key {
            if self.by_variable.insert((next.offset, key.clone()))
                && let Some(entry) = self.reader.type_entry(next.offset)
            {
                self.define(Some(key.clone()), &entry, next);
            }
            return;
        }
        if !self.seen.insert(next.offset) {
            return;
        }
        let Some(entry) = self.reader.type_entry(next.offset) else { return };
        if let Some(keyword) = keyword(entry.tag) {
            let name = self.reader.string(&entry, constants::DW_AT_name);
            let key = name.map(|n| (keyword, n));
            self.define(key, &entry, next);
            return;
        }
        let Some(offset) = self.reader.reference(&entry, constants::DW_AT_type) else { return };
        if entry.tag == constants::DW_TAG_typedef
            && let Some(nameless) = behind(self.reader, offset)
        {
            if self.seen.insert(nameless.offset.0) {
                let key = self.reader.string(&entry, constants::DW_AT_name).map(|n| ("", n));
                self.define(key, &nameless, next);
            }
            return;
        }
        // As near as this one: what a pointer, an array or a call through a pointer leads to.
        self.queue.push_front(Next { offset, key: None, ..*next });
    }

    fn define(&mut self, key: Option<Key<'a>>, entry: &Entry<'a>, next: &Next<'a>) {
        if entry.has_attr(constants::DW_AT_declaration) {
            return;
        }
        let (function, distance) = (next.function, next.distance.saturating_add(1));
        let queue = &mut self.queue;
        let mut reach = |offset| queue.push_back(Next { offset, key: None, function, distance });
        let layout = Layout::read(&mut self.spelling, entry, &mut reach);
        let Some(key) = key else { return };
        let new = || Reached { function, distance: next.distance, layouts: Vec::new() };
        let reached = self.reached.entry(key).or_insert_with(new);
        if !reached.layouts.contains(&layout) {
            reached.layouts.push(layout);
        }
    }
}

/// A type or a variable at the top of a unit.
struct Top<'a> {
    tag: DwTag,
    offset: usize,
    name: Option<Cow<'a, str>>,
    /// Is it only declared?
    declaration: bool,
    /// The type it has.
    of: Option<usize>,
}

fn tops<'a>(reader: &Reader<'a>) -> Vec<Top<'a>> {
    let wanted = |tag| {
        let named = tag == constants::DW_TAG_typedef || tag == constants::DW_TAG_variable;
        named || is_unit(tag) || keyword(tag).is_some()
    };
    let keep =
        |attribute| matches!(attribute, constants::DW_AT_name | constants::DW_AT_declaration | constants::DW_AT_type);
    let mut out = Vec::new();
    let _ = reader.walk(reader.unit.header.root_offset().0, wanted, keep, |entry, depth| {
        if depth == 0 {
            return Step::Into;
        }
        out.push(Top {
            tag: entry.tag,
            offset: entry.offset.0,
            name: reader.string(entry, constants::DW_AT_name),
            declaration: entry.has_attr(constants::DW_AT_declaration),
            of: reader.reference(entry, constants::DW_AT_type),
        });
        Step::Over
    });
    out
}

/// Variables at the top of a unit: declarations and definitions.
fn globals<'a>(tops: &[Top<'a>]) -> FxHashMap<Cow<'a, str>, usize> {
    let variables = tops.iter().filter(|t| t.tag == constants::DW_TAG_variable);
    variables.filter_map(|t| Some((t.name.clone()?, t.offset))).collect()
}

/// Has a variable a place of its own (DWARF 5, 2.6.1.1.2: `DW_OP_addr`)?
fn is_static(entry: &Entry<'_>) -> bool {
    match entry.attr_value(constants::DW_AT_location) {
        Some(AttributeValue::Exprloc(expression)) => expression.0.slice().first() == Some(&constants::DW_OP_addr.0),
        _ => false,
    }
}

/// The definitions at the top of a unit.
fn definitions<'a>(reader: &Reader<'a>, tops: &[Top<'a>]) -> FxHashMap<Key<'a>, Vec<usize>> {
    let mut out: FxHashMap<Key<'a>, Vec<usize>> = FxHashMap::default();
    for top in tops {
        let Some(name) = &top.name else { continue };
        let found = match keyword(top.tag) {
            Some(keyword) if !top.declaration => Some((keyword, top.offset)),
            None if top.tag == constants::DW_TAG_typedef => {
                top.of.and_then(|o| behind(reader, o)).map(|e| ("", e.offset.0))
            }
            _ => None,
        };
        if let Some((keyword, offset)) = found {
            out.entry((keyword, name.clone())).or_default().push(offset);
        }
    }
    out
}
