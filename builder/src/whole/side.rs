//! One image -> [`Object`]: every area becomes a section and every span an atom; what is wanted gets its references, as
//! relocations, and its table entries.

use crate::holder::HolderName;
use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::content::{extent, nameless_pointers, string_at};
use super::{Location, Proof, SpanId, SpanKind, Use, Uses, Whole, image::EXTERN_STEP, replacement, tables};
use crate::ingest::{Image, LineInfo, Reloc, Section, SectionId, Symbol, SymbolId, SymbolPlace};
use crate::isa::reloc;
use crate::symbolize::{
    Atom, AtomId, AtomKind, Class, Entry, Incoming, Meaning, Object, Parts, Ref, RefKind, Sources, Table, Target, Usage,
};

/// What comes out besides the object.
pub struct Extra {
    pub gaps: Vec<AtomId>,
    pub constants: HashMap<Vec<u8>, u64>,
    pub externs: HashMap<String, u64>,
}

/// One side being made.
pub struct Side<'a, 'd> {
    whole: &'a Whole<'d>,
    uses: &'a Uses,
    cuts: &'a [u64],
    proof: Proof,
    wanted: &'a [bool],
    parents: &'a [SpanId],
    paired: &'a (dyn Fn(SpanId) -> bool + Sync),
    /// Sections: the null section, the areas, then a string section for each area that has strings no symbol covers.
    sections: Vec<Section>,
    classes: Vec<Class>,
    strings: HashMap<u16, SectionId>,
    symbols: Vec<Symbol>,
    by_symbol: HashMap<String, SymbolId>,
    atoms: Vec<Atom>,
    gap_at: BTreeMap<u64, AtomId>,
    extra: Extra,
}

impl<'a, 'd> Side<'a, 'd> {
    pub fn new(
        whole: &'a Whole<'d>,
        uses: &'a Uses,
        cuts: &'a [u64],
        proof: Proof,
        wanted: &'a [bool],
        parents: &'a [SpanId],
        paired: &'a (dyn Fn(SpanId) -> bool + Sync),
    ) -> Self {
        let mut sections = vec![null_section()];
        let mut classes = vec![Class::Ignored("no section")];
        for area in &whole.areas {
            let contents = area.is_data() || matches!(area.class, Class::Text(_) | Class::Strings | Class::Constants);
            sections.push(area.as_section(contents));
            classes.push(area.class);
        }
        let mut side = Self {
            whole,
            uses,
            cuts,
            proof,
            wanted,
            parents,
            paired,
            sections,
            classes,
            strings: HashMap::new(),
            symbols: vec![symbol(String::new(), SymbolPlace::Undefined, 0)],
            by_symbol: HashMap::new(),
            atoms: Vec::new(),
            gap_at: BTreeMap::new(),
            extra: Extra { gaps: Vec::new(), constants: HashMap::new(), externs: HashMap::new() },
        };
        side.atoms = (0..whole.spans.len() as u32).map(|i| side.atom(SpanId(i))).collect();
        side
    }

    fn atom(&self, id: SpanId) -> Atom {
        let span = self.whole.span(id);
        let area = self.whole.area_of(id);
        let kind = match span.kind {
            SpanKind::Function => AtomKind::Function,
            SpanKind::Chunk => AtomKind::Chunk,
            SpanKind::Data | SpanKind::Extern => AtomKind::Data,
        };
        Atom {
            id: AtomId(id.0),
            section: SectionId(u32::from(span.area) + 1),
            start: span.addr - area.addr,
            end: span.end - area.addr,
            prefix: u64::from(span.prefix),
            kind,
            name: self.whole.name_of(id).to_owned(),
            aliases: self.whole.aliases_of(id).map(str::to_owned).collect(),
            inner: Vec::new(),
            global: span.global,
            weak: span.weak,
            refs: Vec::new(),
            code: None,
            entries: Vec::new(),
            interior_pointers: Vec::new(),
        }
    }

    pub fn build(mut self) -> (Object, Extra) {
        let whole = self.whole;
        let wanted: Vec<AtomId> = (0..whole.spans.len())
            .filter(|i| self.wanted[*i] && whole.spans[*i].is_code())
            .map(|i| AtomId(i as u32))
            .collect();
        for (i, span) in whole.spans.iter().enumerate() {
            let id = SpanId(i as u32);
            match span.kind {
                SpanKind::Data => {
                    for u in self.uses.of(id) {
                        self.relocate(id, u);
                    }
                }
                SpanKind::Function | SpanKind::Chunk if self.wanted[i] => {
                    for u in self.uses.of(id) {
                        self.relocate(id, u);
                    }
                }
                _ => {}
            }
        }
        let slots = tables::read(whole, |_| true, |s| self.wanted[s.0 as usize]);
        let mut entries: Vec<(SpanId, Entry)> = Vec::with_capacity(slots.list.len());
        for slot in slots.list.iter().filter(|s| s.table != Table::OrcIp) {
            let entry = self.entry(slot);
            entries.push((slot.span, entry));
        }
        self.unwind_entries(&slots.list, &mut entries);
        // By table and offset within each function, as `symbolize` has them.
        entries.sort_by_key(|(span, e)| (*span, e.table, e.owner.map(|o| o.delta), e.start));
        let entries: Vec<Entry> = entries.into_iter().map(|e| e.1).collect();
        let odd_tables = slots.odd.into_iter().map(|(area, what)| (SectionId(u32::from(area) + 1), what)).collect();
        let mut incoming = self.incoming(&wanted);
        incoming.shrink_to_fit();
        self.relocate_gaps();
        for section in &mut self.sections {
            section.relocs.sort_unstable_by_key(|r| r.offset);
        }
        let mut parents: Vec<AtomId> = self.parents.iter().map(|p| AtomId(p.0)).collect();
        parents.extend(self.extra.gaps.iter().copied());
        let image = Image {
            name: HolderName::Vmlinux.to_string(),
            sections: self.sections,
            symbols: self.symbols,
            line_info: LineInfo::default(),
        };
        let sources = Sources {
            names: whole.files.iter().map(|f| (*f).to_owned()).collect(),
            of: whole.spans.iter().map(|s| s.file).collect(),
        };
        let parts = Parts {
            sources,
            image,
            classes: self.classes,
            atoms: self.atoms,
            wanted,
            entries,
            odd_tables,
            parents,
            incoming,
        };
        (Object::assemble(parts), self.extra)
    }

    /// References to what matters, from code that is not decoded here.
    fn incoming(&self, wanted: &[AtomId]) -> Vec<Incoming> {
        let whole = self.whole;
        let mut asked = vec![false; whole.spans.len()];
        for id in wanted {
            asked[id.0 as usize] = true;
            // What wanted code refers to is asked about as well: who else takes the address.
            for s in self.uses.of(SpanId(id.0)).iter().filter_map(Use::span) {
                asked[s.0 as usize] = true;
            }
        }
        for (i, span) in whole.spans.iter().enumerate().filter(|(_, s)| s.kind == SpanKind::Data) {
            let _ = span;
            let points = self.uses.of(SpanId(i as u32)).iter().filter_map(Use::span).any(|s| self.wanted[s.0 as usize]);
            asked[i] |= points;
        }
        (0..whole.spans.len())
            .into_par_iter()
            .filter(|i| whole.spans[*i].is_code() && !self.wanted[*i])
            .flat_map_iter(|i| {
                let from = AtomId(i as u32);
                let asked = &asked;
                self.uses.of(SpanId(i as u32)).iter().filter_map(move |u| {
                    let s = u.span().filter(|s| asked[s.0 as usize])?;
                    let area = whole.span(s).area;
                    let to = u.target.wrapping_sub(whole.areas[area as usize].addr) as i64;
                    let section = SectionId(u32::from(area) + 1);
                    Some(Incoming { section, to, from, usage: u.usage, call: u.call })
                })
            })
            .collect()
    }

    /// Writes a reference as a relocation, unless the decoder finds it by itself: a branch or address within one section.
    fn relocate(&mut self, id: SpanId, u: &Use) {
        let span = *self.whole.span(id);
        let pc = reloc::is_pc_relative(u32::from(u.kind));
        if span.is_code() && pc && self.whole.area_of(id).contains(u.target) {
            return;
        }
        let place = span.addr + u64::from(u.at);
        let (symbol, addend) = match self.whole.named_at(place) {
            Some(named) => {
                // Only the same number has the same name; that of the kernel is the old one.
                let name = match named.number.filter(|n| self.whole.percpu_offset(*n).is_none()) {
                    Some(number) => format!("{} ({number:#x})", named.name),
                    None => named.name.to_owned(),
                };
                let addend = named.addend;
                self.extra.externs.entry(name.clone()).or_insert(u.target.wrapping_sub(addend as u64));
                (self.named_symbol(name, SymbolPlace::Undefined, 0), addend)
            }
            None => match self.whole.home_of(place).filter(|_| self.whole.locate(u.target) == Location::Outside) {
                Some((index, area)) => {
                    (self.section_symbol(SectionId(u32::from(index) + 1)), u.target.wrapping_sub(area.addr) as i64)
                }
                None => self.symbolic(u.target, u.usage, u.size),
            },
        };
        let offset = place - self.whole.area_of(id).addr;
        // A short jump has no relocation type; it does not leave its section.
        let addend = addend.wrapping_sub(if pc && span.is_code() { i64::from(u.bias) } else { 0 });
        let reloc = Reloc { offset, kind: u32::from(u.kind), symbol, addend };
        self.sections[usize::from(span.area) + 1].relocs.push(reloc);
    }

    /// Symbol and addend for an address.
    fn symbolic(&mut self, target: u64, usage: Usage, size: u8) -> (SymbolId, i64) {
        match self.resolve(target, usage, size) {
            Where::Section(section, offset) => (self.section_symbol(section), offset),
            Where::Name(name, addend, place) => {
                let value = if place == SymbolPlace::Absolute { target } else { 0 };
                (self.named_symbol(name, place, value), addend)
            }
        }
    }

    /// What an address is in terms of sections and names.
    fn resolve(&mut self, target: u64, usage: Usage, size: u8) -> Where {
        let whole = self.whole;
        match whole.locate(target) {
            Location::Span(s, _) if whole.span(s).kind == SpanKind::Extern => {
                let addend = target.wrapping_sub(whole.span(s).addr + EXTERN_STEP / 2) as i64;
                Where::Name(whole.name_of(s).to_owned(), addend, SymbolPlace::Undefined)
            }
            Location::Span(s, delta) => {
                if delta == 0
                    && !whole.span(s).is_code()
                    && !(self.paired)(s)
                    && let Some(name) = whole.markers_at(target).next()
                {
                    return self.marker(name, target);
                }
                let area = whole.span(s).area;
                Where::Section(SectionId(u32::from(area) + 1), (target - whole.areas[usize::from(area)].addr) as i64)
            }
            Location::Gap(index) => {
                let area = &whole.areas[usize::from(index)];
                let section = SectionId(u32::from(index) + 1);
                let offset = (target - area.addr) as i64;
                let read_only = matches!(area.class, Class::Rodata | Class::InitData);
                if matches!(area.class, Class::Strings | Class::Constants) {
                    return Where::Section(section, offset);
                }
                if !whole.is_label(target) {
                    if let Some(name) = whole.markers_at(target).next() {
                        return self.marker(name, target);
                    }
                    if let Some(name) = whole.markers_at(target + 1).next() {
                        return self.before_marker(name, target);
                    }
                }
                if !read_only {
                    return Where::Section(section, offset);
                }
                if usage != Usage::Access
                    && let Some(text) = string_at(whole, self.cuts, target)
                {
                    self.extra.constants.entry(text.to_vec()).or_insert(target);
                    return Where::Section(self.string_section(index), offset);
                }
                let len = extent(whole, self.cuts, target).max(u64::from(size));
                self.gap(section, area.addr, target, len.min(area.end() - target));
                Where::Section(section, offset)
            }
            Location::Outside => match whole.markers_at(target).next() {
                Some(name) => self.marker(name, target),
                None => match whole.markers_at(target.wrapping_add(1)).next() {
                    Some(name) => self.before_marker(name, target),
                    None => Where::Name(format!("{target:#x}"), 0, SymbolPlace::Absolute),
                },
            },
        }
    }

    /// The last byte before a place the linker script names.
    fn before_marker(&mut self, name: &str, target: u64) -> Where {
        match self.marker(name, target.wrapping_add(1)) {
            Where::Name(name, addend, SymbolPlace::Undefined) => Where::Name(name, addend - 1, SymbolPlace::Undefined),
            _ => Where::Name(format!("{target:#x}"), 0, SymbolPlace::Absolute),
        }
    }

    fn marker(&mut self, name: &str, target: u64) -> Where {
        let mut name = name.to_owned();
        let number = || Where::Name(format!("{target:#x}"), 0, SymbolPlace::Absolute);
        let mark = self.whole.marks_at(target).find(|m| m.name == name);
        // A number the linker script has not computed from a place.
        if mark.is_some_and(|m| m.absolute) && self.whole.percpu_offset(target).is_none() {
            return number();
        }
        if !self.whole.is_only_mark(target, &name, None) {
            // A label of assembly: those of several files may have one name.
            let file = mark.map_or("", |m| m.file);
            if !self.whole.is_only_mark(target, &name, Some(file)) {
                return number();
            }
            name = format!("{name} of {file}");
        }
        // Something else may be known by this name.
        if *self.extra.externs.entry(name.clone()).or_insert(target) != target {
            return number();
        }
        Where::Name(name, 0, SymbolPlace::Undefined)
    }

    fn gap(&mut self, section: SectionId, base: u64, addr: u64, len: u64) {
        if self.gap_at.contains_key(&addr) || len == 0 {
            return;
        }
        let id = AtomId(self.atoms.len() as u32);
        self.gap_at.insert(addr, id);
        let start = addr - base;
        let name = format!("{}+{start:#x}", self.sections[section.0 as usize].name);
        self.extra.gaps.push(id);
        self.atoms.push(Atom {
            id,
            section,
            start,
            end: start + len,
            prefix: 0,
            kind: AtomKind::Gap,
            name,
            aliases: Vec::new(),
            inner: Vec::new(),
            global: false,
            weak: false,
            refs: Vec::new(),
            code: None,
            entries: Vec::new(),
            interior_pointers: Vec::new(),
        });
    }

    /// Pointers in constants without a name; what they point to may be another one.
    fn relocate_gaps(&mut self) {
        let mut next = 0;
        while let Some(id) = self.extra.gaps.get(next).copied() {
            next += 1;
            let (section, start, size) = {
                let atom = &self.atoms[id.0 as usize];
                (atom.section, atom.start, atom.size())
            };
            let addr = self.whole.areas[section.0 as usize - 1].addr + start;
            for (at, target) in nameless_pointers(self.whole, self.proof, addr, size) {
                let (symbol, addend) = self.symbolic(target, Usage::Pointer, 0);
                self.push_reloc(section, Reloc { offset: start + at, kind: reloc::ABS64, symbol, addend });
            }
        }
    }

    fn string_section(&mut self, area: u16) -> SectionId {
        if let Some(id) = self.strings.get(&area) {
            return *id;
        }
        let id = SectionId(self.sections.len() as u32);
        let of = &self.whole.areas[usize::from(area)];
        let flags = object::elf::SHF_ALLOC.0 | object::elf::SHF_MERGE.0 | object::elf::SHF_STRINGS.0;
        let name = format!("{}.str", of.name);
        self.sections.push(Section { name, flags, entsize: 1, ..of.as_section(true) });
        self.classes.push(Class::Strings);
        self.strings.insert(area, id);
        id
    }

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        self.named_symbol(format!("*{}", section.0), SymbolPlace::Section(section), 0)
    }

    fn named_symbol(&mut self, name: String, place: SymbolPlace, value: u64) -> SymbolId {
        if let Some(id) = self.by_symbol.get(&name) {
            return *id;
        }
        let id = SymbolId(self.symbols.len() as u32);
        self.by_symbol.insert(name.clone(), id);
        let shown = if matches!(place, SymbolPlace::Section(_)) { String::new() } else { name };
        self.symbols.push(symbol(shown, place, value));
        id
    }

    fn target(&mut self, addr: u64, flags: i64, usage: Usage) -> Target {
        match self.resolve(addr, usage, 0) {
            Where::Section(section, offset) => Target::Section(section, offset + flags),
            Where::Name(name, addend, place) => {
                let value = if place == SymbolPlace::Absolute { addr } else { 0 };
                Target::Extern(self.named_symbol(name, place, value), addend + flags)
            }
        }
    }

    fn entry(&mut self, slot: &tables::Slot) -> Entry {
        let area = &self.whole.areas[usize::from(slot.area)];
        let bytes = area.bytes(slot.at, u64::from(slot.size)).unwrap_or(&[]).to_vec();
        let start = slot.at - area.addr;
        let mut refs = Vec::new();
        for (i, field) in tables::fields_of(slot.table, slot.size).iter().enumerate() {
            let Some(value) = tables::value(self.whole, slot.at, *field) else { continue };
            // Flags are in the low bits of the key's address.
            let has_flags = matches!((slot.table, i), (Table::Jumps, 2) | (Table::StaticCalls, 1));
            let flags = if has_flags { value & 3 } else { 0 };
            let target = if (slot.table, i) == (Table::Alternatives, 1) {
                self.replacement(value, bytes.last().copied().unwrap_or(0))
            } else {
                self.target(value - flags, flags as i64, Usage::Pointer)
            };
            let width = reloc::width(field.1).unwrap_or(0) as u8;
            refs.push(Ref {
                at: u64::from(field.0),
                width,
                kind: RefKind::Reloc(field.1),
                target,
                bias: 0,
                usage: Usage::Pointer,
            });
        }
        let owner = Some(Meaning { atom: AtomId(slot.span.0), delta: i64::from(slot.delta) });
        let section = SectionId(u32::from(slot.area) + 1);
        Entry { table: slot.table, section, start, bytes, refs, owner, replacement: None }
    }

    /// The replacement instructions of an alternative: their references become relocations.
    fn replacement(&mut self, addr: u64, len: u8) -> Target {
        let whole = self.whole;
        let Some((index, area)) = whole.area_at(addr) else { return self.target(addr, 0, Usage::Pointer) };
        let section = SectionId(u32::from(index) + 1);
        let start = addr - area.addr;
        // What cannot be decoded is seen, and refused, by whoever reads the object.
        for x in replacement::operands(whole, self.proof, addr, u64::from(len)).unwrap_or_default() {
            let pc = reloc::is_pc_relative(x.kind);
            let inside = x.target >= addr && x.target <= addr + u64::from(len);
            // A short branch has no relocation type.
            if pc && (inside || x.width != 4) {
                continue;
            }
            let (symbol, addend) = self.symbolic(x.target, x.usage, 0);
            let bias = if pc { (x.end - x.at) as i64 } else { 0 };
            let offset = start + x.at as u64;
            self.push_reloc(section, Reloc { offset, kind: x.kind, symbol, addend: addend.wrapping_sub(bias) });
        }
        Target::Section(section, start as i64)
    }

    fn push_reloc(&mut self, section: SectionId, r: Reloc) {
        let list = &mut self.sections[section.0 as usize].relocs;
        // Several alternatives may share their replacement.
        if !list.iter().rev().take(16).any(|x| x.offset == r.offset) {
            list.push(r);
        }
    }

    /// Unwind entries: those in each wanted function, and for each the state at its start.
    fn unwind_entries(&mut self, slots: &[tables::Slot], out: &mut Vec<(SpanId, Entry)>) {
        let whole = self.whole;
        let area = |table: Table| whole.areas.iter().position(|a| a.class == Class::Table(table));
        let (Some(ip), Some(orc)) = (area(Table::OrcIp), area(Table::Orc)) else { return };
        const ORC: u64 = 6;
        let (ip_area, orc_area) = (&whole.areas[ip], &whole.areas[orc]);
        let section = SectionId(ip as u32 + 1);
        let mut make = |span: SpanId, at: u64, target: u64, owner: Option<Meaning>| {
            let start = at - ip_area.addr;
            let mut bytes = ip_area.bytes(at, 4).unwrap_or(&[]).to_vec();
            bytes.extend_from_slice(orc_area.bytes(orc_area.addr + start / 4 * ORC, ORC).unwrap_or(&[]));
            let Some((index, of)) = whole.area_at(target) else { return };
            let target = Target::Section(SectionId(u32::from(index) + 1), (target - of.addr) as i64);
            let r = Ref { at: 0, width: 4, kind: RefKind::Reloc(reloc::PC32), target, bias: 0, usage: Usage::Pointer };
            let entry = Entry { table: Table::OrcIp, section, start, bytes, refs: vec![r], owner, replacement: None };
            out.push((span, entry));
        };
        let mut first: BTreeMap<SpanId, u32> = BTreeMap::new();
        for slot in slots.iter().filter(|s| s.table == Table::OrcIp) {
            let owner = Meaning { atom: AtomId(slot.span.0), delta: i64::from(slot.delta) };
            make(slot.span, slot.at, whole.span(slot.span).addr + u64::from(slot.delta), Some(owner));
            first.entry(slot.span).and_modify(|d| *d = slot.delta.min(*d)).or_insert(slot.delta);
        }
        // The build sorts the table (scripts/sorttable.c); objtool writes an entry only where the state changes.
        let place = |i: u64| tables::value(whole, ip_area.addr + i * 4, (0, reloc::PC32)).unwrap_or(0);
        let count = ip_area.size / 4;
        // In a relocatable file it is as objtool left it, section by section.
        let mut by_place: Vec<(u64, u64)> = Vec::new();
        if whole.form == super::Form::Relocatable {
            by_place = (0..count).map(|i| (place(i), i)).collect();
            by_place.sort_unstable();
        }
        for i in (0..whole.spans.len()).filter(|i| self.wanted[*i] && whole.spans[*i].is_code()) {
            let id = SpanId(i as u32);
            if first.get(&id) == Some(&0) {
                continue;
            }
            if let Some((target, i)) =
                by_place.partition_point(|p| p.0 <= whole.spans[i].addr).checked_sub(1).map(|k| by_place[k])
            {
                make(id, ip_area.addr + i * 4, target, None);
                continue;
            }
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = (low + high) / 2;
                if place(middle) <= whole.spans[i].addr { low = middle + 1 } else { high = middle }
            }
            if let Some(before) = low.checked_sub(1) {
                make(id, ip_area.addr + before * 4, place(before), None);
            }
        }
    }
}

/// Where an address is.
enum Where {
    Section(SectionId, i64),
    Name(String, i64, SymbolPlace),
}

fn symbol(name: String, place: SymbolPlace, value: u64) -> Symbol {
    Symbol { name, place, value, size: 0, kind: 0, bind: 0 }
}

fn null_section() -> Section {
    Section {
        name: String::new(),
        kind: 0,
        flags: 0,
        align: 1,
        entsize: 0,
        size: 0,
        data: Vec::new(),
        relocs: Vec::new(),
    }
}
