//! The records the runtime reads: abi::PatchRecord, FuncRecord, RangeRecord, and the imports.

use std::collections::BTreeMap;
use std::mem::offset_of;

use lpbuild_abi as abi;
use object::write::SectionId;

use super::Lowering;
use super::constants;
use super::fields::{LooseField, loose};
use super::functions::pieces;
use super::modules::{self, Modules, SiteField};
use super::needs::Needs;
use super::sites::is_one_instruction;
use crate::bind::Bound;
use crate::codes;
use crate::correlate::OldAtom;
use crate::emit::{Access, Base, Layout, Writer};
use crate::error::{Place, Problem, Result};
use crate::holder::HolderName;
use crate::isa::NOP5;
use crate::isa::reloc;
use crate::plan::{Analysis, Item, JumpSite, ObjectPair, Options, Role, Rule};

/// Writes all records. Without a kernel there are none: `pack --kernel` emits the patch again.
pub fn write(w: &mut Writer, low: &Lowering<'_>, layout: &Layout) -> Result<Modules> {
    let (analysis, options) = (low.analysis, low.options);
    let Some((bound, needs)) = low.bound.zip(low.needs.as_ref()) else { return Ok(Modules::default()) };
    let anchor = Base::Extern(bound.holder.anchor.symbol.into());
    let strings = w.section(abi::SEC_STRINGS, Access::ReadOnly);
    let funcs = w.section(abi::SEC_FUNCS, Access::ReadOnly);
    let ranges = w.section(abi::SEC_RANGES, Access::ReadOnly);
    let patch = w.section(abi::SEC_PATCH, Access::ReadOnly);
    let text = w.section(abi::SEC_TEXT, Access::Code);
    let replaced = replaced(analysis, bound);
    let addresses = replaced.iter().flat_map(|r| {
        let pieces =
            pieces(r.pair, r.old).into_iter().filter_map(|(id, _)| bound.old_address(r.item.pair, OldAtom(id)));
        let fields = r.loose.iter().map(|f| f.symbol);
        pieces.chain(fields).map(|address| (&r.pair.holder, address))
    });
    let modules = Modules::of(analysis, bound, w.lates(), addresses)?;
    let (mut n_funcs, mut n_ranges) = (0u32, 0u32);
    let mut counts: BTreeMap<HolderName, (u32, u32)> = BTreeMap::new();
    let mut site_fields = Vec::new();
    let mut said = Said::default();
    for r in &replaced {
        let before = n_ranges;
        let func = write_function(w, low, layout, &modules, r, n_funcs, &mut site_fields)?;
        said.funcs.push((func, r.name().as_bytes()));
        for (atom, _) in pieces(r.pair, r.old) {
            let atom = r.pair.old.atom(atom);
            let address = bound.old_address(r.item.pair, OldAtom(atom.id)).unwrap_or(0);
            let (start, section) = located(&modules, address);
            let mut bytes = vec![0; 8];
            bytes.extend_from_slice(&(atom.size() as u32).to_le_bytes());
            bytes.extend_from_slice(&n_funcs.to_le_bytes());
            bytes.extend_from_slice(&section.to_le_bytes());
            bytes.resize(size_of::<abi::RangeRecord>(), 0);
            let at = w.append(ranges, &bytes, 8);
            address_of_old(w, bound, ranges, at, address, start, section);
            let len = atom.size() as u32;
            said.ranges.push(abi::RangeRecord { start, len, func: n_funcs, anchor: section, zero: 0 });
            n_ranges += 1;
        }
        n_funcs += 1;
        let own = counts.entry(r.pair.holder.clone()).or_default();
        *own = (own.0 + 1, own.1 + n_ranges - before);
    }
    let (n_kernel_funcs, n_kernel_ranges) = counts.get(&HolderName::Vmlinux).copied().unwrap_or_default();
    said.data = constants::write(w, analysis, bound, layout)?;
    let n_data = said.data.len() as u32;
    said.modules = modules::write(w, analysis, &modules, &counts, &site_fields, layout)?;
    let [n_holders, n_anchors, n_relocs] = said.modules.counts();
    let name = c_string(w, strings, &options.name);
    let version = c_string(w, strings, &options.version);
    let mut build_id = bound.holder.image.build_id().to_vec();
    let build_id_len = build_id.len().min(abi::MAX_BUILD_ID);
    build_id.resize(abi::MAX_BUILD_ID, 0);
    let mut r = Vec::with_capacity(size_of::<abi::PatchRecord>());
    r.extend_from_slice(&abi::MAGIC.to_le_bytes());
    r.extend_from_slice(&abi::ABI_VERSION.to_le_bytes());
    r.push(analysis.detour.mode.to_abi() as u8);
    r.push(build_id_len as u8);
    r.extend_from_slice(&flags(options).to_le_bytes());
    r.extend_from_slice(&build_id);
    for word in [options.deadline(analysis.detour.mode), n_funcs, n_ranges, options.patience_ms] {
        r.extend_from_slice(&word.to_le_bytes());
    }
    let pointers = r.len() as u64;
    r.resize(size_of::<abi::PatchRecord>(), 0);
    for (field, count) in [
        (offset_of!(abi::PatchRecord, n_after), options.after.len() as u32),
        (offset_of!(abi::PatchRecord, n_replaces), options.replaces.len() as u32),
        (offset_of!(abi::PatchRecord, n_holders), n_holders),
        (offset_of!(abi::PatchRecord, n_anchors), n_anchors),
        (offset_of!(abi::PatchRecord, n_relocs), n_relocs),
        (offset_of!(abi::PatchRecord, n_kernel_funcs), n_kernel_funcs),
        (offset_of!(abi::PatchRecord, n_kernel_ranges), n_kernel_ranges),
        (offset_of!(abi::PatchRecord, n_data), n_data),
    ] {
        r[field..field + 4].copy_from_slice(&count.to_le_bytes());
    }
    let text_end = w.len(text);
    let record = abi::PatchRecord {
        magic: abi::MAGIC,
        abi_version: abi::ABI_VERSION,
        mode: analysis.detour.mode.to_abi() as u8,
        build_id_len: build_id_len as u8,
        flags: flags(options),
        build_id: build_id.try_into().unwrap_or_default(),
        deadline_ms: options.deadline(analysis.detour.mode),
        n_funcs,
        n_ranges,
        patience_ms: options.patience_ms,
        funcs: 0,
        ranges: 0,
        name: 0,
        version: 0,
        notes_start: needs.notes.0,
        notes_end: needs.notes.1,
        text_start: TEXT,
        text_end: TEXT.wrapping_add(text_end),
        after: 0,
        replaces: 0,
        n_after: options.after.len() as u32,
        n_replaces: options.replaces.len() as u32,
        digest: 0,
        holders: 0,
        anchors: 0,
        relocs: 0,
        n_holders,
        n_anchors,
        n_relocs,
        n_kernel_funcs,
        n_kernel_ranges,
        n_data,
        data: 0,
    };
    let digest = offset_of!(abi::PatchRecord, digest);
    r[digest..digest + 8].copy_from_slice(&said.digest(&record, options).to_le_bytes());
    let at = w.append(patch, &r, 8);
    for (field, names) in [
        (offset_of!(abi::PatchRecord, after), &options.after),
        (offset_of!(abi::PatchRecord, replaces), &options.replaces),
    ] {
        if let Some((list, offset)) = other_patches(w, strings, names) {
            w.pointer(patch, at + field as u64, &Base::Section(list), offset as i64);
        }
    }
    let targets: [(Base, i64); 8] = [
        (Base::Section(funcs), 0),
        (Base::Section(ranges), 0),
        (Base::Section(strings), name as i64),
        (Base::Section(strings), version as i64),
        (anchor.clone(), bound.holder.anchored(needs.notes.0)),
        (anchor.clone(), bound.holder.anchored(needs.notes.1)),
        (Base::Section(text), 0),
        (Base::Section(text), text_end as i64),
    ];
    for (i, (base, addend)) in targets.iter().enumerate() {
        w.pointer(patch, at + pointers + i as u64 * 8, base, *addend);
    }
    for (field, section) in [
        (offset_of!(abi::PatchRecord, holders), abi::SEC_HOLDERS),
        (offset_of!(abi::PatchRecord, anchors), abi::SEC_ANCHORS),
        (offset_of!(abi::PatchRecord, relocs), abi::SEC_RELOCS),
    ] {
        if let Some((section, _)) = w.extent(section) {
            w.pointer(patch, at + field as u64, &Base::Section(section), 0);
        }
    }
    let data = w.extent(abi::SEC_DATA).and_then(|(id, len)| Some((id, constants::records_at(len, n_data)?)));
    if let Some((section, offset)) = data {
        w.pointer(patch, at + offset_of!(abi::PatchRecord, data) as u64, &Base::Section(section), offset as i64);
    }
    w.define(abi::SYM_PATCH, patch, at, size_of::<abi::PatchRecord>() as u64, false, true);
    w.define(abi::SYM_TEXT_START, text, 0, 0, false, true);
    w.define(abi::SYM_TEXT_END, text, text_end, 0, false, true);
    imports(w, bound, needs, &anchor);
    callbacks(w, analysis, layout);
    Ok(modules)
}

/// A function that is replaced, and what is known of its site.
struct Replaced<'a> {
    item: &'a Item,
    pair: &'a ObjectPair,
    old: OldAtom,
    site: &'a JumpSite,
    address: u64,
    original: &'a [u8],
    loose: Vec<LooseField>,
}

impl<'a> Replaced<'a> {
    fn name(&self) -> &'a str {
        &self.pair.old.atom(self.old.0).name
    }
}

/// All of them in the order of the manifest: the kernel's first.
fn replaced<'a>(analysis: &'a Analysis, bound: &'a Bound<'_>) -> Vec<Replaced<'a>> {
    let mut all: Vec<Replaced<'a>> = analysis
        .detour
        .sites
        .iter()
        .filter_map(|(index, site)| {
            let item = &analysis.set.items[*index];
            let Role::Replaces(old) = item.role else { return None };
            let pair = &analysis.pairs[item.pair.0 as usize];
            let address = bound.old_address(item.pair, old).unwrap_or(0);
            let original = running(bound, address, site);
            let loose = loose(bound, pair, old, address, site, original);
            Some(Replaced { item, pair, old, site, address, original, loose })
        })
        .collect();
    let key = |r: &Replaced<'a>| (&r.pair.holder, r.pair.name.as_str(), r.name());
    all.sort_by(|a, b| key(a).cmp(&key(b)));
    all
}

/// What the records have of the address of old code: itself, and 0; in a module the distance from a section, and its number.
fn located(modules: &Modules, address: u64) -> (u64, u32) {
    match modules.find(address) {
        Some((index, _, distance)) => (distance.cast_unsigned(), index + 1),
        None => (address, 0),
    }
}

/// Writes that address.
fn address_of_old(
    w: &mut Writer,
    bound: &Bound<'_>,
    section: SectionId,
    at: u64,
    address: u64,
    distance: u64,
    anchor: u32,
) {
    if anchor == 0 {
        w.pointer(section, at, &Base::Extern(bound.holder.anchor.symbol.into()), bound.holder.anchored(address));
    } else {
        w.patch(section, at, &distance.to_le_bytes());
    }
}

fn write_function(
    w: &mut Writer,
    low: &Lowering<'_>,
    layout: &Layout,
    modules: &Modules,
    replaced: &Replaced<'_>,
    index: u32,
    site_fields: &mut Vec<SiteField>,
) -> Result<abi::FuncRecord> {
    let Replaced { item, pair, old, site, address, original, loose } = replaced;
    let Some(bound) = low.bound else { return Err(lost(replaced).into()) };
    let (atom, new) = (pair.old.atom(old.0), pair.new.atom(item.atom.0));
    let strings = w.section(abi::SEC_STRINGS, Access::ReadOnly);
    let funcs = w.section(abi::SEC_FUNCS, Access::ReadOnly);
    let name = c_string(w, strings, &atom.name);
    let (distance, section) = located(modules, *address);
    let mut r = Vec::with_capacity(size_of::<abi::FuncRecord>());
    r.extend_from_slice(&[0; 24]);
    r.extend_from_slice(&(atom.size() as u32).to_le_bytes());
    r.extend_from_slice(&(new.size() as u32).to_le_bytes());
    r.extend_from_slice(&site.offset.to_le_bytes());
    r.push(site.size);
    r.push(site.jump.to_abi() as u8);
    r.push(u8::from(site.rule == Rule::OverFentry));
    r.extend_from_slice(&without(original, loose));
    r.resize(size_of::<abi::FuncRecord>(), 0);
    let single = u8::from(is_one_instruction(original));
    r[offset_of!(abi::FuncRecord, single)] = single;
    r[offset_of!(abi::FuncRecord, anchor)..][..4].copy_from_slice(&section.to_le_bytes());
    let at = w.append(funcs, &r, 8);
    let anchor = Base::Extern(bound.holder.anchor.symbol.into());
    for field in loose {
        let in_record = offset_of!(abi::FuncRecord, original) as u64 + field.at as u64;
        if !field.is_late() {
            if field.is_relative() {
                return Err(from_module_to_kernel(replaced, field).into());
            }
            w.relocate(funcs, at + in_record, field.kind, &anchor, bound.holder.anchored(field.value));
            continue;
        }
        let kind = reloc::late_kind(field.kind).ok_or_else(|| lost(replaced))?;
        let addend = field.value.wrapping_sub(field.symbol).cast_signed();
        site_fields.push(SiteField { func: index, at: field.at as u64, kind, to: field.symbol, addend });
    }
    let spot = layout.items[&(item.pair, item.atom)];
    let entrances = low.entrances.get(&(item.pair, item.atom));
    address_of_old(w, bound, funcs, at, *address, distance, section);
    w.pointer(funcs, at + 8, &Base::Section(spot.section), spot.offset as i64);
    w.pointer(funcs, at + 16, &Base::Section(strings), name as i64);
    if let Some(entrances) = entrances {
        for (field, spot) in [
            (offset_of!(abi::FuncRecord, resume), entrances.resume),
            (offset_of!(abi::FuncRecord, dispatch), entrances.dispatch),
        ] {
            w.pointer(funcs, at + field as u64, &Base::Section(spot.section), spot.offset as i64);
        }
    }
    let place = |offset: u64| TEXT.wrapping_add(offset);
    Ok(abi::FuncRecord {
        old: distance,
        new: place(spot.offset),
        name: 0,
        old_size: atom.size() as u32,
        new_size: new.size() as u32,
        site_offset: site.offset,
        site_size: site.size,
        jump_kind: site.jump.to_abi() as u8,
        covers_fentry: u8::from(site.rule == Rule::OverFentry),
        original: [0; abi::MAX_SITE],
        single,
        resume: entrances.map_or(0, |e| place(e.resume.offset)),
        dispatch: entrances.map_or(0, |e| place(e.dispatch.offset)),
        anchor: section,
        zero: 0,
    })
}

fn lost(r: &Replaced<'_>) -> Problem {
    Problem::new(codes::LP1000, Place::symbol(&r.pair.name, r.name()), "the bytes expected of it cannot be written")
}

/// The records have no way to say what such a field holds.
fn from_module_to_kernel(r: &Replaced<'_>, field: &LooseField) -> Problem {
    let at = u64::from(r.site.offset) + field.at as u64;
    let what =
        "the jump covers an operand that counts from the module to the kernel, and that is another number each time";
    Problem::new(codes::LP2026, Place::symbol(&r.pair.name, r.name()).at(at), what)
}

/// Bytes with these fields zero.
fn without(bytes: &[u8], loose: &[LooseField]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for field in loose {
        bytes[field.at..field.at + field.width].fill(0);
    }
    bytes
}

/// What the manifest says of the site of the function at `address`: of the kernel's as the image is linked, of a module's without
/// the fields that are others each time.
pub fn expected(bound: &Bound<'_>, pair: &ObjectPair, old: OldAtom, address: u64, site: &JumpSite) -> Vec<u8> {
    let original = running(bound, address, site);
    match bound.module_at(address) {
        None => original.to_vec(),
        Some(_) => without(original, &loose(bound, pair, old, address, site, original)),
    }
}

/// Where the code of the patch is taken to begin: 0 stands for no address.
const TEXT: u64 = 1 << 40;

/// What the records say, for their digest.
#[derive(Default)]
struct Said<'a> {
    funcs: Vec<(abi::FuncRecord, &'a [u8])>,
    ranges: Vec<abi::RangeRecord>,
    data: Vec<(abi::DataRecord, &'a [u8])>,
    modules: modules::Said,
}

impl Said<'_> {
    fn digest(&self, patch: &abi::PatchRecord, options: &Options) -> u64 {
        let start = abi::Digest::default().patch(patch, options.name.as_bytes(), options.version.as_bytes());
        let others = options.after.iter().chain(&options.replaces).fold(start, |d, name| d.text(name.as_bytes()));
        let funcs = self.funcs.iter().fold(others, |d, (f, name)| d.func(f, name, patch));
        let ranges = self.ranges.iter().fold(funcs, |d, r| d.range(r, patch));
        let data = self.data.iter().fold(ranges, |d, (r, name)| d.data(r, name, patch));
        self.modules.digest(data, patch).finish()
    }
}

/// What the site of the function at `address` holds when anything runs: the image has a call of `__fentry__` where the kernel
/// puts a nop as it boots.
pub fn running<'b>(bound: &'b Bound<'_>, address: u64, site: &'b JumpSite) -> &'b [u8] {
    match site.rule {
        Rule::OverFentry => &NOP5,
        Rule::AfterFentry | Rule::Entry => {
            bound.read(address.wrapping_add(site.offset.into()), site.size.into()).unwrap_or(&site.original)
        }
    }
}

/// The addresses of the names, in an array; nothing for no names.
fn other_patches(w: &mut Writer, strings: SectionId, names: &[String]) -> Option<(SectionId, u64)> {
    if names.is_empty() {
        return None;
    }
    let list = w.section(NAMES, Access::ReadOnly);
    let start = w.append(list, &vec![0; names.len() * 8], 8);
    for (i, name) in names.iter().enumerate() {
        let text = c_string(w, strings, name);
        w.pointer(list, start + i as u64 * 8, &Base::Section(strings), text as i64);
    }
    Some((list, start))
}

/// Section of the pointers to the names of other patches.
const NAMES: &str = ".lpbuild.names";

/// Appends a string with its NUL.
pub fn c_string(w: &mut Writer, section: SectionId, text: &str) -> u64 {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    w.append(section, &bytes, 1)
}

fn flags(options: &Options) -> u16 {
    let oneshot = if options.oneshot { abi::FLAG_ONESHOT } else { 0 };
    options.callbacks.all().fold(oneshot, |flags, (callback, _)| flags | callback.flag())
}

/// Thunks `lpbuild_call_KIND: jmp FUNCTION`: direct, as those of the imports; one that returns 0 where there is no function.
fn callbacks(w: &mut Writer, analysis: &Analysis, layout: &Layout) {
    let code = w.section(abi::SEC_IMPORT, Access::Code);
    let text = w.section(abi::SEC_TEXT, Access::Code);
    for callback in abi::Callback::ALL {
        let root = analysis.set.callbacks.iter().find(|(c, _)| *c == callback);
        let spot = root.and_then(|(_, key)| layout.items.get(key));
        let bytes: &[u8] = if spot.is_some() { JUMP } else { RETURN_0 };
        // Padding as before any function that is called (call depth tracking writes there).
        w.append_code(code, &[0x90; 16], 16);
        let at = w.append_code(code, bytes, 16);
        if let Some(spot) = spot {
            w.relocate(code, at + 1, reloc::PLT32, &Base::Section(text), spot.offset as i64 - 4);
        }
        w.define(callback.symbol(), code, at, bytes.len() as u64, true, true);
    }
}

/// `jmp rel32`
const JUMP: &[u8] = &[0xe9, 0, 0, 0, 0];
/// `xor %eax,%eax; ret`
const RETURN_0: &[u8] = &[0x31, 0xc0, 0xc3];

/// Thunks `lpk_NAME: jmp NAME` (direct, so that a sealed ENDBR at the target does not matter) and pointers.
fn imports(w: &mut Writer, bound: &Bound<'_>, needs: &Needs, anchor: &Base) {
    let code = w.section(abi::SEC_IMPORT, Access::Code);
    let data = w.section(abi::SEC_IMPORT_PTR, Access::ReadOnly);
    for (import, address) in &needs.imports {
        match import.kind {
            abi::ImportKind::Call => {
                let bytes = if address.is_some() { JUMP } else { RETURN_0 };
                // Padding as before any function that is called (call depth tracking writes there).
                w.append_code(code, &[0x90; 16], 16);
                let at = w.append_code(code, bytes, 16);
                if let Some(address) = address {
                    w.relocate(code, at + 1, reloc::PLT32, anchor, bound.holder.anchored(*address).wrapping_sub(4));
                }
                let name = format!("{}{}", abi::IMPORT_CALL_PREFIX, import.name);
                w.define(&name, code, at, bytes.len() as u64, true, true);
            }
            abi::ImportKind::Pointer => {
                let at = w.append(data, &[0; 8], 8);
                if let Some(address) = address {
                    w.pointer(data, at, anchor, bound.holder.anchored(*address));
                }
                let name = format!("{}{}", abi::IMPORT_PTR_PREFIX, import.name);
                w.define(&name, data, at, 8, false, true);
            }
        }
    }
}
