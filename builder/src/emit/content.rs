//! Carried code and data, and the special-section entries that belong to it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use lpbuild_abi as abi;

use super::writer::{Access, Base, Late, Writer};
use super::{BackEnd, Draft, Outside, Spot, holders, is_listed, outside};
use crate::closure::BIAS_WINDOW;
use crate::codes;
use crate::correlate::NewAtom;
use crate::error::{Error, Place, Problem, Result};
use crate::holder::HolderName;
use crate::ingest::SectionId;
use crate::isa::reloc;
use crate::kernel::KernelSection;
use crate::plan::{Dest, Edge, Item, ItemEntry, PairId, Role};
use crate::symbolize::{Class, Entry, Object, RefKind, Table, Target, Usage, boot_constant, known_sections};

/// Tables that are handed to the kernel when a module is here: whose, and where each is.
pub type KeptTables = BTreeMap<(HolderName, abi::Kept), (object::write::SectionId, Range<u64>)>;

/// Where everything went.
#[derive(Debug, Default)]
pub struct Layout {
    /// Carried atoms.
    pub items: HashMap<(PairId, NewAtom), Spot>,
    /// Strings and constants brought along: by content, with the first item that needs them.
    pub constants: BTreeMap<Vec<u8>, (Spot, usize)>,
    /// Beginning of the original of each replaced function that has one.
    pub originals: HashMap<(PairId, NewAtom), Spot>,
    /// Jumps of static keys and static calls that a module has: the kernel's entries, those of a kind together in a section.
    pub kept: KeptTables,
}

const ORC_ENTRY: usize = 6;

/// Writes all content of the patch.
pub fn write(w: &mut Writer, input: Draft<'_>, back_end: &mut dyn BackEnd) -> Result<Layout> {
    let mut layout = Layout::default();
    let mut islands: Vec<Islands> = Vec::new();
    islands.resize_with(input.items().len(), Islands::default);
    let mut run = None;
    let text = w.section(abi::SEC_TEXT, Access::Code);
    // The code of one holder lies together: what a module's coming writes to is nobody else's.
    for holder in holders(input) {
        for (item, islands) in input.items().iter().zip(&mut islands) {
            if input.pair(item.pair).holder != holder {
                continue;
            }
            if matches!(item.role, Role::InPlace(_)) {
                place_new_content(w, input, item, &mut layout);
            } else if item.is_code() {
                *islands = place_code(w, input, item, &mut layout)?;
            } else {
                place_data(w, input, item, &mut run, &mut layout);
            }
        }
        // One byte behind the last function, so that its ORC terminator has an address of its own. The terminator goes on for
        // what follows: the unwinder gives up there.
        w.append_code(text, &[0xcc], 1);
        if input.bound.is_some() {
            layout.originals.extend(back_end.entrances(w, &layout, &holder)?);
        }
    }
    let back_end = &*back_end;
    place_constants(w, input, back_end, &mut layout)?;
    let linker = Linker { input, back_end, layout: &layout };
    let mut waiting = BTreeMap::new();
    for (item, islands) in input.items().iter().zip(&islands) {
        let spot = layout.items[&(item.pair, item.atom)];
        let before = w.lates().len();
        for edge in &item.edges {
            let island = islands.of(edge);
            let offset = island.unwrap_or(spot.offset + edge.field.at);
            let at = if island.is_some() { At::Island } else { At::Item };
            linker.link(w, item, edge, Spot { section: spot.section, offset }, at)?;
        }
        let waits = linker.write_entries(w, item, spot, islands, &mut waiting)?;
        if item.is_code() && (waits || w.lates().len() > before) {
            w.no_kprobes(spot.section, spot.offset);
        }
    }
    let kept = linker.write_waiting(w, waiting)?;
    layout.kept = kept;
    Ok(layout)
}

/// Trampolines for two-byte jumps that leave a function.
#[derive(Default)]
struct Islands {
    /// Offset in the section of the 32-bit displacement, by the offset of the short jump's field in the atom.
    fields: BTreeMap<u64, u64>,
    /// First byte before and one past the last byte behind the function, offsets in the section.
    span: Option<(u64, u64)>,
}

impl Islands {
    fn of(&self, edge: &Edge) -> Option<u64> {
        self.fields.get(&edge.field.at).copied()
    }
}

const ISLAND: u64 = 5;

fn place_code(w: &mut Writer, input: Draft<'_>, item: &Item, layout: &mut Layout) -> Result<Islands> {
    let object = &input.pair(item.pair).new;
    let atom = object.atom(item.atom.0);
    let mut bytes = object.bytes(item.atom.0).to_vec();
    for constant in atom.entries.iter().filter_map(|e| boot_constant(object, &object.entries[e.0 as usize])) {
        let at = constant.at as usize;
        bytes[at..at + constant.code.len()].copy_from_slice(&constant.code);
    }
    for edge in &item.edges {
        if !stays(item, edge) {
            blank(&mut bytes, edge);
        }
    }
    let short: Vec<&Edge> = item.edges.iter().filter(|e| e.field.width == 1 && !stays(item, e)).collect();
    let size = bytes.len() as u64;
    let prefix = object.prefix_bytes(item.atom.0);
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for edge in &short {
        let next = edge.field.at + u64::from(edge.field.bias);
        // Behind the function when the jump reaches that far, else before it.
        let at = size + behind.len() as u64 * ISLAND;
        if at - next <= 127 {
            bytes[edge.field.at as usize] = (at - next) as u8;
            behind.push(edge.field.at);
        } else if next + atom.prefix + (before.len() as u64 + 1) * ISLAND <= 128 {
            let back = next + atom.prefix + (before.len() as u64 + 1) * ISLAND;
            bytes[edge.field.at as usize] = (back as u8).wrapping_neg();
            before.push(edge.field.at);
        } else {
            let place = Place::symbol(&object.image.name, &atom.name).at(edge.field.at);
            return Err(Error::new(codes::LP2012, place, "a short jump leaves the function"));
        }
    }
    let text = w.section(abi::SEC_TEXT, Access::Code);
    // int3 behind every function: the ORC terminator has an address of its own.
    w.append_code(text, &[0xcc], 1);
    // The function begins at a multiple of 16; its call padding and, before that, its islands lead up to it.
    let lead = (before.len() as u64 * ISLAND + atom.prefix).next_multiple_of(16);
    let head = w.append_code(text, &vec![0xcc; lead as usize], 16);
    let start = w.append_code(text, &bytes, 16);
    w.patch(text, start - atom.prefix, prefix);
    let mut islands = Islands::default();
    for (i, field) in before.iter().enumerate() {
        islands.fields.insert(*field, start - atom.prefix - (i as u64 + 1) * ISLAND + 1);
    }
    for field in behind {
        let at = w.append_code(text, &[0xe9, 0, 0, 0, 0], 1);
        islands.fields.insert(field, at + 1);
    }
    islands.span = Some((if before.is_empty() { start - atom.prefix } else { head }, w.len(text)));
    for at in islands.fields.values().filter(|at| **at < start) {
        w.patch(text, at - 1, &[0xe9, 0, 0, 0, 0]);
    }
    if !atom.name.contains('+') {
        w.define(&atom.name, text, start, size, true, false);
        if atom.prefix > 0 {
            w.define(&format!("__pfx_{}", atom.name), text, start - atom.prefix, atom.prefix, true, false);
        }
    }
    layout.items.insert((item.pair, item.atom), Spot { section: text, offset: start });
    Ok(islands)
}

/// Data objects that lie close together in the new object and stay so: an address between them means the same for all.
#[derive(Clone, Copy, Debug)]
struct Run {
    pair: PairId,
    section: SectionId,
    /// Offset in the new object's section of what the patch's section has at its offset 0.
    shift: i64,
    /// Where the last one ends, in the new object's section.
    end: u64,
}

fn place_data(w: &mut Writer, input: Draft<'_>, item: &Item, run: &mut Option<Run>, layout: &mut Layout) {
    let object = &input.pair(item.pair).new;
    let atom = object.atom(item.atom.0);
    let own = object.section(atom.section);
    // Walked by the module loader under this name: an array without holes.
    let carried_as = known_sections::carried_as(&own.name);
    let (section, zeroed) = match object.class(atom.section) {
        _ if carried_as.is_some() => (w.section(&own.name, Access::Writable), false),
        Class::Rodata => (data_of(w, Brought::Rodata, &input.pair(item.pair).holder), false),
        Class::Bss => (data_of(w, Brought::Bss, &input.pair(item.pair).holder), true),
        Class::Percpu => (w.section(".data..percpu", Access::Writable), false),
        _ => (data_of(w, Brought::Data, &input.pair(item.pair).holder), false),
    };
    let zeroes = |w: &mut Writer, size: u64, align: u64| {
        if zeroed { w.append_zeroed(section, size, align) } else { w.append(section, &vec![0; size as usize], align) }
    };
    let align = own.align.min(4096);
    if carried_as.is_some() {
        *run = None;
        zeroes(w, 0, align);
    } else if let Some(r) = run.filter(|r| {
        r.pair == item.pair && r.section == atom.section && atom.start.wrapping_sub(r.end) <= BIAS_WINDOW as u64
    }) {
        zeroes(w, atom.start - r.end, 1);
        *run = Some(Run { end: atom.end, ..r });
    } else {
        let start = zeroes(w, atom.start % align, align) + atom.start % align;
        *run = Some(Run {
            pair: item.pair,
            section: atom.section,
            shift: atom.start as i64 - start as i64,
            end: atom.end,
        });
    }
    let offset = if zeroed {
        w.append_zeroed(section, atom.size(), 1)
    } else {
        let mut bytes = object.bytes(item.atom.0).to_vec();
        bytes.resize(atom.size() as usize, 0);
        for edge in &item.edges {
            blank(&mut bytes, edge);
        }
        w.append(section, &bytes, 1)
    };
    debug_assert!(run.is_none_or(|r| offset as i64 + r.shift == atom.start as i64), "a run keeps its distances");
    if !atom.name.contains('+') {
        w.define(&atom.name, section, offset, atom.size(), false, false);
    }
    layout.items.insert((item.pair, item.atom), Spot { section, offset });
}

/// What a constant of the kernel is to hold: it lies beside the record of it.
fn place_new_content(w: &mut Writer, input: Draft<'_>, item: &Item, layout: &mut Layout) {
    let section = w.section(abi::SEC_DATA, Access::ReadOnly);
    let mut bytes = input.pair(item.pair).new.bytes(item.atom.0).to_vec();
    for edge in &item.edges {
        blank(&mut bytes, edge);
    }
    let offset = w.append(section, &bytes, 8);
    layout.items.insert((item.pair, item.atom), Spot { section, offset });
}

/// What is brought along beside code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// Variables.
    Data,
    /// Those that begin as zeroes.
    Bss,
    /// Constants.
    Rodata,
}

impl Brought {
    /// Its section; what belongs to a module has one of its own, because it begins anew with each coming of that.
    pub fn section(self, holder: &HolderName) -> String {
        let name = match self {
            Self::Data => ".data.lpbuild",
            Self::Bss => ".bss.lpbuild",
            Self::Rodata => ".rodata.lpbuild",
        };
        match holder {
            HolderName::Vmlinux => name.to_owned(),
            HolderName::Module(module) => format!("{name}.{module}"),
        }
    }
    fn access(self) -> Access {
        match self {
            Self::Data => Access::Writable,
            Self::Bss => Access::Zeroed,
            Self::Rodata => Access::ReadOnly,
        }
    }
}

fn data_of(w: &mut Writer, what: Brought, holder: &HolderName) -> object::write::SectionId {
    let section = w.section(&what.section(holder), what.access());
    if *holder != HolderName::Vmlinux {
        // As the records promise.
        if what == Brought::Bss {
            w.append_zeroed(section, 0, 8)
        } else {
            w.append(section, &[], 8)
        };
    }
    section
}

/// A resolved branch within the function needs no relocation: the function moves as one piece.
fn stays(item: &Item, edge: &Edge) -> bool {
    edge.field.kind == RefKind::Resolved
        && matches!(edge.dest, Dest::Carried(p, n, _) if p == item.pair && n == item.atom)
}

fn blank(bytes: &mut [u8], edge: &Edge) {
    let at = edge.field.at as usize;
    if let Some(field) = bytes.get_mut(at..at + usize::from(edge.field.width)) {
        field.fill(0);
    }
}

/// Strings and constants the kernel image does not hold, or that cannot be found in it.
fn place_constants(w: &mut Writer, input: Draft<'_>, back_end: &dyn BackEnd, layout: &mut Layout) -> Result<()> {
    for (index, item) in input.items().iter().enumerate() {
        let own = item.edges.iter().map(|e| (e, is_listed(input, item)));
        let entries = item.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement)).map(|e| (e, true));
        for (edge, table) in own.chain(entries) {
            let Dest::Constant(bytes) = &edge.dest else { continue };
            if layout.constants.contains_key(bytes) || outside(input, back_end, item, &edge.dest, table)?.is_some() {
                continue;
            }
            let section = w.section(".rodata.lpbuild", Access::ReadOnly);
            let align = if bytes.len().is_power_of_two() && bytes.len() <= 64 { bytes.len() as u64 } else { 1 };
            let offset = w.append(section, bytes, align);
            layout.constants.insert(bytes.clone(), (Spot { section, offset }, index));
        }
    }
    Ok(())
}

/// What a field is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A function, or data.
    Item,
    /// A trampoline: it is the displacement.
    Island,
    /// An entry of a table, or replacement instructions.
    Table,
    /// An entry of a table that is handed to the kernel when the module is here.
    Kept,
}

/// Entries that wait for the module of their key, with whose they are.
type Waiting<'i> = BTreeMap<(HolderName, abi::Kept), Vec<(&'i Item, &'i ItemEntry)>>;

/// What a reference needs to find its destination.
struct Linker<'a> {
    input: Draft<'a>,
    back_end: &'a dyn BackEnd,
    layout: &'a Layout,
}

impl Linker<'_> {
    /// Writes the relocation of one reference.
    fn link(&self, w: &mut Writer, item: &Item, edge: &Edge, at: Spot, part: At) -> Result<()> {
        if stays(item, edge) {
            return Ok(());
        }
        let table = matches!(part, At::Table | At::Kept) || is_listed(self.input, item);
        let (found, delta) = self.destination(item, &edge.dest, table)?;
        let (kind, bias) = match edge.field.kind {
            _ if part == At::Island => (reloc::PLT32, 4),
            RefKind::Reloc(kind) => (kind, i64::from(edge.field.bias)),
            RefKind::Resolved if edge.field.usage == Usage::Branch => (reloc::PLT32, i64::from(edge.field.bias)),
            RefKind::Resolved => (reloc::PC32, i64::from(edge.field.bias)),
        };
        let addend = delta.wrapping_sub(bias);
        match found {
            Outside::Symbol(base, offset) => {
                w.relocate(at.section, at.offset, kind, &base, offset.wrapping_add(addend));
            }
            Outside::Late(to) => {
                let branch = edge.field.usage == Usage::Branch && kind == reloc::PC32;
                let kind = if branch { Some(abi::FieldKind::Plt32) } else { reloc::late_kind(kind) };
                let Some(kind) = kind.filter(|_| part != At::Table) else {
                    return Err(self.odd(item, "a field that cannot be filled in later").into());
                };
                let Spot { section, offset } = at;
                w.late(Late { pair: item.pair, section, offset, kind, to, addend });
            }
        }
        Ok(())
    }

    fn odd(&self, item: &Item, what: &str) -> Problem {
        let pair = self.input.pair(item.pair);
        Problem::new(codes::LP1000, Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name), what)
    }

    fn destination(&self, item: &Item, dest: &Dest, table: bool) -> Result<(Outside, i64), Problem> {
        let (input, layout) = (self.input, self.layout);
        if let Some(found) = outside(input, self.back_end, item, dest, table)? {
            return Ok(found);
        }
        let missing = || self.odd(item, "a reference leads nowhere");
        let (spot, delta) = match dest {
            Dest::Carried(pair, atom, delta) => {
                let spot = layout.items.get(&(*pair, *atom)).ok_or_else(missing)?;
                (*spot, *delta)
            }
            Dest::Original(pair, atom) => {
                let spot = layout.originals.get(&(*pair, *atom)).ok_or_else(|| {
                    let own = input.pair(item.pair);
                    let place = Place::symbol(&own.name, &own.new.atom(item.atom.0).name);
                    let name = &input.pair(*pair).new.atom(atom.0).name;
                    Problem::new(codes::LP2018, place, format!("the beginning of {name} cannot be executed elsewhere"))
                })?;
                (*spot, 0)
            }
            Dest::Constant(bytes) => {
                let (spot, _) = layout.constants.get(bytes).ok_or_else(missing)?;
                (*spot, 0)
            }
            Dest::Old(..) | Dest::Kernel(..) | Dest::Runtime(_) => return Err(missing()),
        };
        Ok((Outside::Symbol(Base::Section(spot.section), spot.offset as i64), delta))
    }

    /// The table in which an entry waits for the module that has its key.
    fn waits(&self, item: &Item, entry: &Entry, edges: &[Edge]) -> Result<Option<abi::Kept>, Problem> {
        let table = match entry.table {
            Table::Jumps => abi::Kept::Jumps,
            Table::StaticCalls => abi::Kept::Calls,
            _ => return Ok(None),
        };
        for edge in edges {
            if let Outside::Late(to) = self.destination(item, &edge.dest, true)?.0 {
                let modules = self.input.bound.and_then(|b| b.running.module_at(to));
                let sealed = modules.and_then(|m| m.image.part_at(to)).is_some_and(KernelSection::is_sealed);
                return Ok(Some(if sealed { abi::Kept::Sealed } else { table }));
            }
        }
        Ok(None)
    }

    /// The entries of what waits. They lie in what is brought for a module, behind everything else in there: they begin anew with each
    /// coming as it does, and the module loader does not see them.
    fn write_waiting<'i>(&self, w: &mut Writer, waiting: Waiting<'i>) -> Result<KeptTables> {
        let mut all = BTreeMap::new();
        for ((holder, kept), entries) in waiting {
            let section = data_of(w, Brought::Data, &holder);
            let start = w.append(section, &[], 8);
            for (item, carried) in entries {
                let entry = &self.input.pair(item.pair).new.entries[carried.entry.0 as usize];
                let mut bytes = entry.bytes.clone();
                for edge in &carried.edges {
                    blank(&mut bytes, edge);
                }
                if bytes.len() != kept.entry_len() || holder == HolderName::Vmlinux {
                    return Err(self.odd(item, "an entry of a key that cannot be handed to the kernel").into());
                }
                let at = w.append(section, &bytes, 1);
                for edge in &carried.edges {
                    self.link(w, item, edge, Spot { section, offset: at + edge.field.at }, At::Kept)?;
                }
            }
            let end = w.append(section, &[], 1);
            all.insert((holder, kept), (section, start..end));
        }
        Ok(all)
    }

    /// The entries that belong to an item, but those that wait; whether any does.
    fn write_entries<'i>(
        &self,
        w: &mut Writer,
        item: &'i Item,
        spot: Spot,
        islands: &Islands,
        waiting: &mut Waiting<'i>,
    ) -> Result<bool> {
        let input = self.input;
        let object = &input.pair(item.pair).new;
        let mut waits = false;
        for carried in &item.entries {
            let entry = &object.entries[carried.entry.0 as usize];
            if entry.table == Table::OrcIp {
                continue;
            }
            if let Some(kept) = self.waits(item, entry, &carried.edges)? {
                let holder = input.pair(item.pair).holder.clone();
                waiting.entry((holder, kept)).or_default().push((item, carried));
                waits = true;
                continue;
            }
            let own = object.section(entry.section);
            let mut bytes = entry.bytes.clone();
            for edge in &carried.edges {
                blank(&mut bytes, edge);
            }
            let section = w.section(&own.name, if own.is_write() { Access::Writable } else { Access::ReadOnly });
            let at = w.append(section, &bytes, own.align.min(16));
            for edge in &carried.edges {
                self.link(w, item, edge, Spot { section, offset: at + edge.field.at }, At::Table)?;
            }
            if let Some(replacement) = &entry.replacement {
                let code = w.section(".altinstr_replacement", Access::Code);
                let mut bytes = replacement.bytes.clone();
                for edge in &carried.replacement {
                    blank(&mut bytes, edge);
                }
                let there = w.append_code(code, &bytes, 1);
                for edge in &carried.replacement {
                    self.link(w, item, edge, Spot { section: code, offset: there + edge.field.at }, At::Table)?;
                }
                w.relocate(section, at + 4, reloc::PC32, &Base::Section(code), there as i64);
            }
        }
        if item.is_code() {
            write_orc(w, object, item, spot, islands);
        }
        Ok(waits)
    }
}

/// Unwind entries of a function: the state at its start, its own, and a terminator behind it.
fn write_orc(w: &mut Writer, object: &Object, item: &Item, spot: Spot, islands: &Islands) {
    let atom = object.atom(item.atom.0);
    let orc = |e: &Entry| e.bytes.get(4..4 + ORC_ENTRY).map(<[u8]>::to_vec);
    let own: Vec<(u64, Vec<u8>)> = item
        .entries
        .iter()
        .map(|e| &object.entries[e.entry.0 as usize])
        .filter(|e| e.table == Table::OrcIp)
        .filter_map(|e| Some((e.owner?.delta as u64, orc(e)?)))
        .collect();
    let all = object.entries.iter().filter(|e| e.table == Table::OrcIp);
    // The last entry at or before the start: objtool writes one only where the state changes.
    let before = all
        .filter_map(|e| match e.refs.first()?.target {
            Target::Section(s, o) if s == atom.section && o <= atom.start as i64 => Some((o, e)),
            _ => None,
        })
        .max_by_key(|(o, e)| (*o, e.start))
        .and_then(|(_, e)| orc(e));
    let Some(at_start) = own.first().filter(|(d, _)| *d == 0).map(|(_, b)| b.clone()).or(before) else { return };
    let (head, end) = islands.span.unwrap_or((spot.offset, spot.offset + atom.size()));
    let mut entries = vec![(head, at_start.clone())];
    entries.extend(own.into_iter().map(|(d, b)| (spot.offset + d, b)).filter(|(a, _)| *a != head));
    if end > spot.offset + atom.size() {
        entries.push((spot.offset + atom.size(), at_start));
    }
    entries.push((end, vec![0; ORC_ENTRY]));
    let ip = w.section(".orc_unwind_ip", Access::ReadOnly);
    let unwind = w.section(".orc_unwind", Access::ReadOnly);
    for (address, bytes) in entries {
        let at = w.append(ip, &[0; 4], 4);
        w.relocate(ip, at, reloc::PC32, &Base::Section(spot.section), address as i64);
        w.append(unwind, &bytes, 1);
    }
}
