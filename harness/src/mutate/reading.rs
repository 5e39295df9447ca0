//! An object, taken apart: functions, data, entries of tables, and where every reference leads. `content` says what each
//! entity means, as text; two builds mean the same where the texts are equal.
//!
//! Blind spots. Padding between functions, unwind tables and ENDBR seals are not read: they follow from the rest. Of several
//! variables whose names differ in the compiler's number only, one cannot be told from another where they have no content:
//! a reference to one is marked with [`UNSURE`], except when names are taken exactly ([`Names::Exact`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::Result;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::elf::{At, Elf, Reloc, flags, reloc};
use super::names::normal;

/// Marks a reference that may mean another variable of the same name.
pub const UNSURE: char = '\u{bf}';

/// Tables whose entries belong to instructions: name and sizes an entry may have.
const TABLES: &[(&str, &[u64])] = &[
    (".altinstructions", &[12, 14]),
    ("__jump_table", &[16]),
    ("__bug_table", &[12]),
    ("__ex_table", &[12]),
    (".parainstructions", &[16]),
    (".smp_locks", &[4]),
    (".static_call_sites", &[8]),
    (".retpoline_sites", &[4]),
    (".return_sites", &[4]),
    (".call_sites", &[4]),
    ("__mcount_loc", &[8]),
];

/// Read by tools, made by the linker, or following from the code.
const NOT_READ: &[&str] = &[
    ".discard.",
    ".modinfo",
    ".printk_index",
    "__patchable_function_entries",
    ".exitcall",
    ".fini_array",
    ".dtors",
    ".tracedata",
    "__versions",
    ".gnu.linkonce.this_module",
    ".static_call_tramp_key",
    ".orc_",
    ".ibt_endbr_seal",
    "__kcrctab",
    "___kcrctab",
    ".note",
    "__ksymtab_strings",
];

/// Whether numbers in names count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They do: both objects are from one run of the compiler.
    Exact,
    /// They do not.
    Normal,
}

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Code; a piece that was split off a function is an entity of its own.
    Code,
    /// Data with a name.
    Data,
    /// Data or code without one.
    Unnamed,
}

/// A function, an object, or a stretch without a name.
#[derive(Clone, Debug)]
pub struct Entity {
    /// The name it is compared by; `(SECTION)` when it has none.
    pub key: String,
    /// All names, as they are.
    pub names: Vec<String>,
    /// What it is.
    pub kind: Kind,
    /// Index of its section.
    pub section: usize,
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Does a reference lead to it?
    pub is_used: bool,
    /// Its instructions.
    pub insns: Vec<Insn>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Insn {
    /// Offset in the section.
    pub at: u64,
    /// Decoded, with that as its address.
    pub decoded: Instruction,
}

impl Insn {
    /// Behind its last byte.
    pub fn end(&self) -> u64 {
        self.at + self.decoded.len().max(1) as u64
    }

    /// Does it branch by a distance?
    pub fn is_branch(&self) -> bool {
        let d = &self.decoded;
        d.op_count() > 0
            && d.op0_kind() == iced_x86::OpKind::NearBranch64
            && matches!(
                d.flow_control(),
                FlowControl::Call | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            )
    }
}

/// Where a reference leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To something outside the object.
    Outside(String, i64),
    /// To an offset in a section.
    In(usize, i64),
}

/// An entry of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Section of the table.
    pub section: usize,
    /// Offset of the entry.
    pub start: u64,
    /// Size of the entry.
    pub size: u64,
    /// Entity it belongs to.
    pub owner: usize,
    /// Offset in that entity's section it is about.
    pub about: u64,
}

/// An object, understood.
#[derive(Debug)]
pub struct Reading {
    /// The object.
    pub elf: Elf,
    /// By section and offset.
    pub entities: Vec<Entity>,
    /// All that belong to an entity.
    pub entries: Vec<Entry>,
    names: Names,
    by_section: Vec<Vec<usize>>,
    pub(super) by_owner: HashMap<usize, Vec<usize>>,
    pub(super) several: HashSet<String>,
    /// Bytes from a field to the end of its instruction.
    behind: HashMap<(usize, u64), i64>,
}

impl Reading {
    /// Reads an object.
    pub fn of(bytes: Vec<u8>, names: Names) -> Result<Self> {
        let elf = Elf::read(bytes)?;
        let mut own = Self {
            by_section: vec![Vec::new(); elf.sections.len()],
            entities: Vec::new(),
            entries: Vec::new(),
            names,
            by_owner: HashMap::new(),
            several: HashSet::new(),
            behind: HashMap::new(),
            elf,
        };
        own.named();
        own.decode_all();
        own.decode_replacements();
        own.unnamed();
        own.tables();
        let mut seen = HashSet::new();
        for e in own.entities.iter().filter(|e| e.kind != Kind::Unnamed) {
            if !seen.insert(e.key.clone()) {
                own.several.insert(e.key.clone());
            }
        }
        Ok(own)
    }

    /// Is the section read at all, as entities?
    pub fn is_read(&self, section: usize) -> bool {
        let s = &self.elf.sections[section];
        s.is(flags::ALLOC)
            && !s.is(flags::MERGE)
            && !NOT_READ.iter().any(|n| s.name.starts_with(n))
            && !TABLES.iter().any(|t| t.0 == s.name)
            && s.name != ".altinstr_replacement"
    }

    fn key(&self, name: &str) -> String {
        match self.names {
            Names::Exact => name.to_owned(),
            Names::Normal => normal(name),
        }
    }

    /// Entities with names.
    fn named(&mut self) {
        let mut places: BTreeMap<(usize, u64), Vec<usize>> = BTreeMap::new();
        for (i, s) in self.elf.symbols.iter().enumerate() {
            let At::Section(section) = s.at else { continue };
            let is_name = !s.name.is_empty() && !s.name.starts_with(".L") && !s.name.starts_with("__pfx_");
            if is_name && s.kind < 3 && self.is_read(section) {
                places.entry((section, s.value)).or_default().push(i);
            }
        }
        let starts: Vec<(usize, u64)> = places.keys().copied().collect();
        for (i, ((section, start), mut list)) in places.into_iter().enumerate() {
            let exec = self.elf.sections[section].is(flags::EXEC);
            let symbols = &self.elf.symbols;
            // The name of the largest stands for all.
            list.sort_by_key(|s| (std::cmp::Reverse(symbols[*s].size), symbols[*s].bind != 1, *s));
            let size = symbols[list[0]].size;
            let previous = self.by_section[section].last().copied().map(|e| self.entities[e].end);
            if previous.is_some_and(|end| end > start) {
                continue;
            }
            let next = starts.get(i + 1).filter(|n| n.0 == section).map_or(self.elf.sections[section].size, |n| n.1);
            let end = if size == 0 && exec { next } else { start + size };
            let names: Vec<String> = list.iter().map(|s| symbols[*s].name.clone()).collect();
            let key = self.key(&names[0]);
            let kind = if exec { Kind::Code } else { Kind::Data };
            self.push(Entity { key, names, kind, section, start, end, is_used: false, insns: Vec::new() });
        }
    }

    fn push(&mut self, entity: Entity) {
        self.by_section[entity.section].push(self.entities.len());
        self.entities.push(entity);
    }

    fn decode_all(&mut self) {
        for i in 0..self.entities.len() {
            let e = &self.entities[i];
            if self.elf.sections[e.section].is(flags::EXEC) && e.insns.is_empty() {
                let (section, start, end) = (e.section, e.start, e.end);
                self.entities[i].insns = self.decode(section, start, end);
            }
        }
    }

    fn decode(&mut self, section: usize, start: u64, end: u64) -> Vec<Insn> {
        let code = self.elf.data(section).get(start as usize..end as usize).unwrap_or(&[]);
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let mut insns = Vec::new();
        while decoder.can_decode() {
            let at = decoder.ip();
            let decoded = decoder.decode();
            insns.push(Insn { at, decoded });
        }
        for insn in &insns {
            for r in self.elf.relocs(section, insn.at, insn.end()) {
                self.behind.insert((section, r.at), (insn.end() - r.at) as i64);
            }
        }
        insns
    }

    /// Replacement instructions are decoded for the sake of their fields.
    fn decode_replacements(&mut self) {
        for (section, start, size) in self.table_entries() {
            if self.is_alternatives(section)
                && let Some((at, from, len)) = self.replacement(section, start, size)
            {
                self.decode(at, from, from + len);
            }
        }
    }

    pub(super) fn is_alternatives(&self, section: usize) -> bool {
        self.elf.sections[section].name == ".altinstructions"
    }

    /// Section, offset and length of an alternative's replacement.
    pub fn replacement(&self, section: usize, start: u64, size: u64) -> Option<(usize, u64, u64)> {
        let len = u64::from(*self.elf.data(section).get((start + size - 1) as usize)?);
        let field = self.elf.relocs(section, start + 4, start + 5).first()?;
        match self.target(section, field) {
            Place::In(s, o) if o >= 0 => Some((s, o as u64, len)),
            _ => None,
        }
    }

    /// Where a relocation leads.
    pub fn target(&self, section: usize, r: &Reloc) -> Place {
        let symbol = &self.elf.symbols[r.symbol];
        let exec = self.elf.sections[section].is(flags::EXEC);
        let behind = if exec && reloc::is_relative(r.kind) {
            self.behind.get(&(section, r.at)).copied().unwrap_or(4)
        } else {
            0
        };
        let offset = r.addend + behind;
        match symbol.at {
            At::Section(s) => Place::In(s, symbol.value as i64 + offset),
            At::Undefined => Place::Outside(symbol.name.clone(), offset),
            At::Number => Place::Outside(format!("{}={:#x}", symbol.name, symbol.value), offset),
        }
    }

    /// Section, offset and size of every entry of the tables.
    fn table_entries(&self) -> Vec<(usize, u64, u64)> {
        let mut found = Vec::new();
        for (index, s) in self.elf.sections.iter().enumerate() {
            let Some((_, sizes)) = TABLES.iter().find(|t| t.0 == s.name) else { continue };
            let fits = |size: u64| {
                let begins = |i: u64| self.elf.relocs(index, i * size, i * size + 1).len() == 1;
                s.size.is_multiple_of(size) && (0..s.size / size).all(begins)
            };
            if let Some(size) = sizes.iter().copied().find(|n| fits(*n)) {
                found.extend((0..s.size / size).map(|i| (index, i * size, size)));
            }
        }
        found
    }

    fn tables(&mut self) {
        for (section, start, size) in self.table_entries() {
            let Some(first) = self.elf.relocs(section, start, start + 1).first() else { continue };
            let Place::In(s, o) = self.target(section, first) else { continue };
            let Some((owner, _)) = self.holder(s, o) else { continue };
            self.by_owner.entry(owner).or_default().push(self.entries.len());
            self.entries.push(Entry { section, start, size, owner, about: o as u64 });
        }
    }

    /// What no name covers, cut where something refers to it.
    fn unnamed(&mut self) {
        let mut cuts: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); self.elf.sections.len()];
        for (index, s) in self.elf.sections.iter().enumerate() {
            if !s.is(flags::ALLOC) || s.name.starts_with(".orc_") || s.name.starts_with(".discard.") {
                continue;
            }
            for r in &s.relocs {
                if let Place::In(to, offset) = self.target(index, r)
                    && offset >= 0
                {
                    cuts[to].insert(offset as u64);
                }
            }
        }
        for (section, cuts) in cuts.iter().enumerate() {
            if !self.is_read(section) {
                continue;
            }
            let s = &self.elf.sections[section];
            let (exec, size, name) = (s.is(flags::EXEC), s.size, format!("({})", s.name));
            let mut free = Vec::new();
            let mut covered = 0;
            for e in &self.by_section[section] {
                let e = &self.entities[*e];
                if e.start > covered {
                    free.push((covered, e.start));
                }
                covered = covered.max(e.end);
            }
            if covered < size {
                free.push((covered, size));
            }
            for (from, to) in free {
                let mut points: Vec<u64> = cuts.range(from..to).copied().collect();
                if points.first() != Some(&from) {
                    points.insert(0, from);
                }
                for (i, start) in points.iter().enumerate() {
                    let end = points.get(i + 1).copied().unwrap_or(to);
                    let is_used = cuts.contains(start);
                    let content = self.elf.data(section).get(*start as usize..end as usize).unwrap_or(&[]);
                    let is_empty = content.iter().all(|b| *b == 0) && self.elf.relocs(section, *start, end).is_empty();
                    if !is_used && (exec || is_empty) {
                        continue;
                    }
                    let (key, kind) = (name.clone(), Kind::Unnamed);
                    let names = Vec::new();
                    self.push(Entity { key, names, kind, section, start: *start, end, is_used, insns: Vec::new() });
                }
            }
        }
        for list in &mut self.by_section {
            list.sort_by_key(|e| self.entities[*e].start);
        }
        for (section, cuts) in cuts.iter().enumerate() {
            for cut in cuts {
                if let Some((e, _)) = self.holder(section, *cut as i64) {
                    self.entities[e].is_used = true;
                }
            }
        }
        self.decode_all();
    }

    /// The entity that holds an offset, and how far in it that is.
    pub fn holder(&self, section: usize, offset: i64) -> Option<(usize, i64)> {
        let list = self.by_section.get(section)?;
        let after = list.partition_point(|e| self.entities[*e].start as i64 <= offset);
        let e = *list.get(after.checked_sub(1)?)?;
        let entity = &self.entities[e];
        (offset < entity.end.max(entity.start + 1) as i64).then(|| (e, offset - entity.start as i64))
    }

    /// The same, or what is nearest for an offset that nothing holds: ends of objects and biased bases.
    pub(super) fn nearest(&self, section: usize, offset: i64) -> Option<(usize, i64)> {
        let list = self.by_section.get(section)?;
        let after = list.partition_point(|e| self.entities[*e].start as i64 <= offset);
        let e = after.checked_sub(1).and_then(|i| list.get(i)).or(list.first())?;
        Some((*e, offset - self.entities[*e].start as i64))
    }

    /// Every name, and the key of what it names.
    pub fn aliases(&self) -> impl Iterator<Item = (String, &str)> {
        self.entities.iter().flat_map(|e| e.names.iter().map(|n| (self.key(n), e.key.as_str())))
    }
}
