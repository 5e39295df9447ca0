//! The records the runtime reads: abi::PatchRecord, FuncRecord, RangeRecord, and the imports.

use crate::plan::Options;
use std::mem::offset_of;

use lpbuild_abi as abi;

use super::Lowering;
use super::functions::pieces;
use super::needs::Needs;
use super::sites::is_one_instruction;
use crate::bind::{Bound, IMAGE_BASE};
use crate::correlate::OldAtom;
use crate::emit::{Access, Base, Layout, Writer};
use crate::error::Result;
use crate::isa::NOP5;
use crate::isa::reloc;
use crate::plan::{Analysis, JumpSite, Rule};
use crate::plan::{ObjectPair, Role};
use crate::symbolize::RefKind;

/// Writes all records. Without a kernel there are none: `pack --kernel` emits the patch again.
pub fn write(w: &mut Writer, low: &Lowering<'_>, layout: &Layout) -> Result<()> {
    let (analysis, options) = (low.analysis, low.options);
    let Some((bound, needs)) = low.bound.zip(low.needs.as_ref()) else { return Ok(()) };
    let anchor = Base::Extern(bound.holder.anchor.symbol.into());
    let strings = w.section(abi::SEC_STRINGS, Access::ReadOnly);
    let funcs = w.section(abi::SEC_FUNCS, Access::ReadOnly);
    let ranges = w.section(abi::SEC_RANGES, Access::ReadOnly);
    let patch = w.section(abi::SEC_PATCH, Access::ReadOnly);
    let text = w.section(abi::SEC_TEXT, Access::Code);
    let (mut n_funcs, mut n_ranges) = (0u32, 0u32);
    let mut said = Said::default();
    // In the order of the manifest.
    let mut sites: Vec<&(usize, JumpSite)> = analysis.detour.sites.iter().collect();
    let name = |i: usize| {
        let item = &analysis.set.items[i];
        let pair = &analysis.pairs[item.pair.0 as usize];
        let old = pair.pairs.old_of(item.atom).map(|o| pair.old.atom(o.0).name.as_str());
        (pair.name.as_str(), old.unwrap_or_default())
    };
    sites.sort_by_key(|(i, _)| name(*i));
    for (index, site) in sites {
        let item = &analysis.set.items[*index];
        let Role::Replaces(old) = item.role else { continue };
        let pair = &analysis.pairs[item.pair.0 as usize];
        let atom = pair.old.atom(old.0);
        let new = pair.new.atom(item.atom.0);
        let address = bound.old_address(item.pair, old).unwrap_or(0);
        let name = c_string(w, strings, &atom.name);
        let original = running(bound, address, site);
        let mut r = Vec::with_capacity(size_of::<abi::FuncRecord>());
        r.extend_from_slice(&[0; 24]);
        r.extend_from_slice(&(atom.size() as u32).to_le_bytes());
        r.extend_from_slice(&(new.size() as u32).to_le_bytes());
        r.extend_from_slice(&site.offset.to_le_bytes());
        r.push(site.size);
        r.push(site.jump.to_abi() as u8);
        r.push(u8::from(site.rule == Rule::OverFentry));
        let moving = moving_fields(pair, old, site, original);
        let mut fixed = original.to_vec();
        for field in &moving {
            fixed[field.at..field.at + field.width].fill(0);
        }
        r.extend_from_slice(&fixed);
        r.resize(size_of::<abi::FuncRecord>(), 0);
        let single = u8::from(is_one_instruction(original));
        r[offset_of!(abi::FuncRecord, single)] = single;
        let at = w.append(funcs, &r, 8);
        for field in &moving {
            let offset = at + offset_of!(abi::FuncRecord, original) as u64 + field.at as u64;
            w.relocate(funcs, offset, field.kind, &anchor, bound.holder.anchored(field.value));
        }
        let spot = layout.items[&(item.pair, item.atom)];
        let entrances = low.entrances.get(&(item.pair, item.atom));
        let place = |offset: u64| TEXT.wrapping_add(offset);
        let func = abi::FuncRecord {
            old: address,
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
            anchor: 0,
            zero: 0,
        };
        said.funcs.push((func, atom.name.as_bytes()));
        w.pointer(funcs, at, &anchor, bound.holder.anchored(address));
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
        for (atom, _) in pieces(pair, old) {
            let atom = pair.old.atom(atom);
            let address = bound.old_address(item.pair, OldAtom(atom.id)).unwrap_or(0);
            let mut r = vec![0; 8];
            r.extend_from_slice(&(atom.size() as u32).to_le_bytes());
            r.extend_from_slice(&n_funcs.to_le_bytes());
            r.resize(size_of::<abi::RangeRecord>(), 0);
            let at = w.append(ranges, &r, 8);
            w.pointer(ranges, at, &anchor, bound.holder.anchored(address));
            let len = atom.size() as u32;
            said.ranges.push(abi::RangeRecord { start: address, len, func: n_funcs, anchor: 0, zero: 0 });
            n_ranges += 1;
        }
        n_funcs += 1;
    }
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
        (offset_of!(abi::PatchRecord, n_kernel_funcs), n_funcs),
        (offset_of!(abi::PatchRecord, n_kernel_ranges), n_ranges),
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
        n_holders: 0,
        n_anchors: 0,
        n_relocs: 0,
        n_kernel_funcs: n_funcs,
        n_kernel_ranges: n_ranges,
        zero: 0,
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
    w.define(abi::SYM_PATCH, patch, at, size_of::<abi::PatchRecord>() as u64, false, true);
    w.define(abi::SYM_TEXT_START, text, 0, 0, false, true);
    w.define(abi::SYM_TEXT_END, text, text_end, 0, false, true);
    imports(w, bound, needs, &anchor);
    callbacks(w, analysis, layout);
    Ok(())
}

/// Where the code of the patch is taken to begin: 0 stands for no address.
const TEXT: u64 = 1 << 40;

/// What the records say, for their digest.
#[derive(Default)]
struct Said<'a> {
    funcs: Vec<(abi::FuncRecord, &'a [u8])>,
    ranges: Vec<abi::RangeRecord>,
}

impl Said<'_> {
    fn digest(&self, patch: &abi::PatchRecord, options: &Options) -> u64 {
        let start = abi::Digest::default().patch(patch, options.name.as_bytes(), options.version.as_bytes());
        let others = options.after.iter().chain(&options.replaces).fold(start, |d, name| d.text(name.as_bytes()));
        let funcs = self.funcs.iter().fold(others, |d, (f, name)| d.func(f, name, patch));
        self.ranges.iter().fold(funcs, |d, r| d.range(r, patch)).finish()
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

/// A field of the covered instructions that holds an absolute address: KASLR changes it together with the image, so the
/// expected bytes are completed by the module loader as well.
pub struct MovingField {
    /// Offset in the covered bytes.
    pub at: usize,
    /// Width in bytes.
    pub width: usize,
    /// Type of the relocation.
    pub kind: u32,
    /// The address as the image is linked.
    pub value: u64,
}

/// All of them among the covered instructions.
pub fn moving_fields(pair: &ObjectPair, old: OldAtom, site: &JumpSite, original: &[u8]) -> Vec<MovingField> {
    let mut out = Vec::new();
    for r in &pair.old.atom(old.0).refs {
        let RefKind::Reloc(kind) = r.kind else { continue };
        let Some(at) = r.at.checked_sub(u64::from(site.offset)).map(|a| a as usize) else { continue };
        let width = usize::from(r.width);
        let Some(field) = original.get(at..at + width).filter(|_| !reloc::is_pc_relative(kind)) else { continue };
        let value = match *field {
            [a, b, c, d] if kind == reloc::ABS32S => i64::from(i32::from_le_bytes([a, b, c, d])) as u64,
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => continue,
        };
        // Per-CPU offsets are absolute and stay.
        if value >= IMAGE_BASE {
            out.push(MovingField { at, width, kind, value });
        }
    }
    out
}

/// The addresses of the names, in an array; nothing for no names.
fn other_patches(
    w: &mut Writer,
    strings: object::write::SectionId,
    names: &[String],
) -> Option<(object::write::SectionId, u64)> {
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

fn c_string(w: &mut Writer, section: object::write::SectionId, text: &str) -> u64 {
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
