//! The records of a finished module, held against its manifest: LP4009, and LP4007 for what modinfo shows.

use std::collections::BTreeSet;
use std::mem::offset_of;

use goblin::elf::{
    Elf,
    reloc::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32},
};
use lpbuild_abi as abi;

use super::parts;
use super::verify_modules::anchor_of;
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::VMLINUX;
use crate::isa::{Decoder, DecoderOptions, FlowControl, Mnemonic, is_near_branch};
use crate::pack::{PatchFolder, Reread, int};
use crate::plan::manifest::{Function, Jump, Kernel, Manifest, Mode};

/// Looks at everything that is the detour's.
pub(super) fn records(v: &mut Reread<'_>, input: &PatchFolder) {
    v.all_records(input);
    // patch.o does not have it, nor a module of an lpbuild before there were any.
    v.list_of_shadows(input);
}

/// Everything in which the records of a finished module contradict the manifest inside it, without the headers it was made with.
pub fn record_contradictions(name: &str, module: &[u8], text: &str, manifest: &Manifest) -> Vec<Problem> {
    let Some(kernel) = manifest.kernel.clone() else { return Vec::new() };
    let input = PatchFolder {
        manifest: manifest.clone(),
        manifest_text: text.to_owned(),
        why: None,
        kernel,
        object: Vec::new(),
    };
    let elf = match Elf::parse(module) {
        Ok(elf) => elf,
        Err(e) => return vec![Problem::new(codes::LP4007, Place::object(name), format!("goblin cannot read it: {e}"))],
    };
    let mut v = Reread::new(module, &elf, name.to_owned());
    v.all_records(&input);
    if v.defined(abi::SYM_SHADOWS).is_some() {
        v.list_of_shadows(&input);
    }
    v.problems
}

/// A module whose records were changed, with the digest they have now: for tests of what else the runtime looks at. Nothing when
/// they cannot be read.
pub fn reseal(module: &[u8], kernel: &Kernel) -> Option<Vec<u8>> {
    let elf = Elf::parse(module).ok()?;
    let v = Reread::new(module, &elf, String::new());
    let at = usize::try_from(v.section(abi::SEC_PATCH)?.1.sh_offset).ok()? + offset_of!(abi::PatchRecord, digest);
    let digest = v.digest_of_records(kernel)?;
    let mut sealed = module.to_vec();
    sealed.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&digest.to_le_bytes());
    Some(sealed)
}

/// The digest of the records of a module, as the runtime will find it.
#[cfg(test)]
pub(crate) fn digest(module: &[u8], kernel: &Kernel) -> Option<u64> {
    let elf = Elf::parse(module).ok()?;
    Reread::new(module, &elf, String::new()).digest_of_records(kernel)
}

/// New functions that are reached by an indirect jump: section and offset, and by what.
pub(super) fn called_indirectly(v: &Reread<'_>, functions: &[Function]) -> Vec<((usize, u64), String)> {
    let new = |(i, f): (usize, &Function)| {
        let field = i * size_of::<abi::FuncRecord>() + offset_of!(abi::FuncRecord, new);
        let target = v.pointer(abi::SEC_FUNCS, field as u64).filter(|_| f.site.jump == Jump::Abs64)?;
        let by = format!("the jump of {} is an indirect one (--jump abs64)", f.symbol);
        Some(((target.section, target.offset.cast_unsigned()), by))
    };
    functions.iter().enumerate().filter_map(new).collect()
}

impl<'a> Reread<'a> {
    fn all_records(&mut self, input: &PatchFolder) {
        self.modinfo(input);
        self.patch_record(input);
        for (i, f) in input.manifest.functions.iter().enumerate() {
            self.function(i, f, input);
            self.entrances(i, f, input);
        }
        self.modules(input);
        self.ranges(input);
        self.constants(input);
        self.digest(input);
        self.imports(input);
        self.callbacks(input);
        self.shadows(input);
    }

    fn modinfo(&mut self, input: &PatchFolder) {
        let text = self.content(".modinfo");
        let m = &input.manifest.patch;
        let abi = abi::ABI_VERSION.to_string();
        let description = parts::description(&input.manifest);
        for (key, want) in [
            ("license", "GPL"),
            ("version", &m.version),
            ("description", &description),
            ("name", &m.name),
            ("lpbuild_name", &m.name),
            ("lpbuild_build_id", &input.kernel.build_id),
            ("lpbuild_abi", &abi),
        ] {
            let have = modinfo(text, key).unwrap_or("").to_owned();
            let place = self.place().in_section(".modinfo");
            self.expect(codes::LP4007, place, key, have.as_str(), want);
        }
        let release = modinfo(text, "vermagic").and_then(|v| v.split(' ').next()).unwrap_or("");
        let place = self.place().in_section(".modinfo");
        self.expect(codes::LP4007, place, "the release in vermagic", release, &input.kernel.release);
    }

    fn patch_record(&mut self, input: &PatchFolder) {
        let r = self.content(abi::SEC_PATCH);
        let place = || Place::object(&input.manifest.patch.name).in_section(abi::SEC_PATCH);
        let m = &input.manifest.patch;
        for (list, count, names) in [
            (offset_of!(abi::PatchRecord, after), offset_of!(abi::PatchRecord, n_after), &m.after),
            (offset_of!(abi::PatchRecord, replaces), offset_of!(abi::PatchRecord, n_replaces), &m.replaces),
        ] {
            self.expect(codes::LP4009, place(), "names of other patches", int(r, count, 4), names.len() as u64);
            let have = self.names(list as u64, names.len());
            let want = Some(names.iter().map(String::as_str).collect());
            self.expect(codes::LP4009, place().at(list as u64), "names of other patches", have, want);
            if names.is_empty() {
                let there = self.pointer(abi::SEC_PATCH, list as u64).is_some() || int(r, list, 8) != 0;
                self.expect(codes::LP4009, place().at(list as u64), "an address of nothing", there, false);
            }
        }
        self.expect(codes::LP4009, place(), "size", r.len(), size_of::<abi::PatchRecord>());
        self.expect(codes::LP4009, place(), "magic", int(r, 0, 8), abi::MAGIC);
        self.expect(codes::LP4009, place(), "abi version", int(r, 8, 4), u64::from(abi::ABI_VERSION));
        self.expect(codes::LP4009, place(), "mode", int(r, 12, 1), m.mode.to_abi() as u64);
        let oneshot = if m.oneshot { abi::FLAG_ONESHOT } else { 0 };
        let flags = input.manifest.callbacks.all().fold(oneshot, |flags, (callback, _)| flags | callback.flag());
        self.expect(codes::LP4009, place(), "flags", int(r, 14, 2), u64::from(flags));
        let id = r.get(16..16_usize.saturating_add(int(r, 13, 1) as usize)).unwrap_or(&[]);
        let id = crate::hash::to_hex(id);
        self.expect(codes::LP4009, place(), "build id", id.as_str(), &input.kernel.build_id);
        self.expect(codes::LP4009, place(), "deadline", int(r, 48, 4), u64::from(m.deadline_ms));
        self.expect(codes::LP4009, place(), "patience", int(r, 60, 4), u64::from(m.patience_ms));
        self.expect(codes::LP4009, place(), "functions", int(r, 52, 4), input.manifest.functions.len() as u64);
        let pieces: usize = input.manifest.functions.iter().map(|f| 1 + f.pieces.len()).sum();
        self.expect(codes::LP4009, place(), "ranges", int(r, 56, 4), pieces as u64);
        for (offset, section) in [(64, abi::SEC_FUNCS), (72, abi::SEC_RANGES)] {
            let leads = self.pointer(abi::SEC_PATCH, offset).and_then(|t| {
                let h = self.elf.section_headers.get(t.section)?;
                Some((self.section_name(h), t.offset))
            });
            self.expect(codes::LP4009, place().at(offset), "array", leads, Some((section, 0)));
        }
        for (offset, want) in [(80, m.name.as_str()), (88, m.version.as_str())] {
            let have = self.pointer(abi::SEC_PATCH, offset).and_then(|t| self.string(&t));
            self.expect(codes::LP4009, place().at(offset), "string", have, Some(want));
        }
    }

    /// The strings an array of pointers leads to, when the record has the address of one.
    fn names(&self, field: u64, count: usize) -> Option<Vec<&'a str>> {
        let Some(list) = self.pointer(abi::SEC_PATCH, field) else { return (count == 0).then(Vec::new) };
        let section = self.section_name(self.elf.section_headers.get(list.section)?);
        let pointers = (0..count).map(|i| self.pointer(section, list.offset.cast_unsigned() + i as u64 * 8));
        pointers.map(|p| self.string(&p?)).collect()
    }

    /// The original's beginning and the dispatcher: both or none, and none only where the machine is stopped.
    fn entrances(&mut self, i: usize, f: &Function, input: &PatchFolder) {
        let place = || Place::symbol(f.object.clone(), f.symbol.clone()).in_section(abi::SEC_TEXT);
        let Some((index, code)) = self.section(abi::SEC_TEXT).and_then(|(i, h)| Some((i, self.bytes(h)?))) else {
            return self.problem(codes::LP4009, place(), "the section is missing");
        };
        let at = (i * size_of::<abi::FuncRecord>()) as u64;
        let leads = |field: usize| {
            let target = self.pointer(abi::SEC_FUNCS, at + field as u64).filter(|t| t.section == index);
            target.and_then(|t| usize::try_from(t.offset).ok())
        };
        let new = leads(offset_of!(abi::FuncRecord, new));
        match (leads(offset_of!(abi::FuncRecord, resume)), leads(offset_of!(abi::FuncRecord, dispatch)), new) {
            (None, None, _) if input.manifest.patch.mode == Mode::StopMachine => {}
            (Some(resume), Some(dispatch), Some(new)) => {
                let calls = self.relocation(index, dispatch as u64 + 5).and_then(|r| self.target(&r));
                let calls = calls.filter(|t| t.symbol == abi::SYM_CHOOSES_NEW && t.addend == -4);
                let have = code.get(dispatch..dispatch.saturating_add(abi::DISPATCH_LEN));
                let want = dispatcher(dispatch, new, resume);
                if calls.is_none() || have != Some(&want[..]) {
                    self.problem(codes::LP4009, place().at(dispatch as u64), "the dispatcher is not as specified");
                }
                let copy = (index, code.get(resume..).unwrap_or_default(), resume);
                let back = self.beginning(i, copy, f, input);
                if let Err(why) = back {
                    let detail = format!("the copy of the original's beginning is not its equal: {why}");
                    self.problem(codes::LP4009, place().at(resume as u64), detail);
                }
            }
            (resume, dispatch, _) => {
                let detail = format!("original at {resume:x?}, dispatcher at {dispatch:x?}");
                self.problem(codes::LP4009, place(), detail);
            }
        }
    }

    /// The same instructions as at the site, with the same operands once the loader, and for a module the runtime, has filled them
    /// in, and a jump behind it. `copy`: index of its section, its bytes, where it is there.
    fn beginning(
        &self,
        func: usize,
        copy: (usize, &[u8], usize),
        f: &Function,
        input: &PatchFolder,
    ) -> Result<(), String> {
        let (kernel, (section, code, at)) = (&input.kernel, copy);
        // Within reach of the kernel, and of none of its addresses; the sections of modules lie behind.
        let base = kernel.anchor_address.wrapping_add(0x2000_0000);
        let section_at = |anchor: u32| base.wrapping_add(0x800_0000).wrapping_add(u64::from(anchor) << 22);
        let mut code = code.get(..code.len().min(256)).unwrap_or_default().to_vec();
        for offset in 0..code.len() {
            let Some(r) = self.relocation(section, (at + offset) as u64) else { continue };
            let Some(target) = self.target(&r).filter(|t| t.symbol == kernel.anchor) else { continue };
            let address = kernel.anchor_address.wrapping_add_signed(target.addend);
            let relative = matches!(r.r_type, R_X86_64_PC32 | R_X86_64_PLT32);
            let value = address.wrapping_sub(if relative { base.wrapping_add(offset as u64) } else { 0 });
            let width = if r.r_type == R_X86_64_64 { 8 } else { 4 };
            if let Some(field) = code.get_mut(offset..offset + width) {
                field.copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
        let old = match anchor_of(&input.manifest, &f.object, f.section.as_deref()).ok_or("it is in no section")? {
            0 => kernel.anchor_address.wrapping_add_signed(f.anchor_offset.ok_or("it has no address")?),
            n => section_at(n - 1).wrapping_add(f.section_offset.ok_or("it has no address")?),
        };
        let site = old.wrapping_add(f.site.offset.into());
        let mut original = f.site.original_bytes().ok_or("no bytes are given")?;
        let in_record = (func * size_of::<abi::FuncRecord>() + offset_of!(abi::FuncRecord, original)) as u64;
        if f.object != VMLINUX {
            self.complete(in_record, &mut original, kernel);
        }
        for late in self.lates() {
            let (bytes, start, address) = if late.site_of as usize == func + 1 {
                (&mut original, in_record, site)
            } else if late.site_of == 0 && late.section == section {
                (&mut code, at as u64, base)
            } else {
                continue;
            };
            let Some(offset) = late.offset.checked_sub(start).and_then(|o| usize::try_from(o).ok()) else { continue };
            let value = late.bytes(address.wrapping_add(offset as u64), section_at).unwrap_or_default();
            if let Some(field) = offset.checked_add(value.len()).and_then(|end| bytes.get_mut(offset..end)) {
                field.copy_from_slice(&value);
            }
        }
        let mut there = Decoder::with_ip(64, &original, site, DecoderOptions::NONE);
        let mut here = Decoder::with_ip(64, &code, base, DecoderOptions::NONE);
        if here.decode().mnemonic() != Mnemonic::Endbr64 {
            return Err("it does not begin with ENDBR".into());
        }
        while there.can_decode() {
            let (a, b) = (there.decode(), here.decode());
            let branches = is_near_branch(&a) && is_near_branch(&b);
            let same = branches && a.mnemonic() == b.mnemonic() && a.near_branch_target() == b.near_branch_target();
            if a.is_invalid() || a != b && !same {
                return Err(format!("{b} instead of {a}"));
            }
            let ends = [
                FlowControl::UnconditionalBranch,
                FlowControl::IndirectBranch,
                FlowControl::Return,
                FlowControl::Exception,
            ];
            if ends.contains(&a.flow_control()) {
                break;
            }
        }
        let (back, behind) = (here.decode(), site.wrapping_add(f.site.size.into()));
        if back.mnemonic() == Mnemonic::Jmp && is_near_branch(&back) && back.near_branch_target() == behind {
            Ok(())
        } else {
            Err(format!("{back} instead of a jump behind the site"))
        }
    }

    fn function(&mut self, i: usize, f: &Function, input: &PatchFolder) {
        let kernel = &input.kernel;
        let anchor = kernel.anchor.as_str();
        let section = anchor_of(&input.manifest, &f.object, f.section.as_deref());
        const SIZE: usize = size_of::<abi::FuncRecord>();
        let Some(r) = self.section(abi::SEC_FUNCS).and_then(|(_, h)| self.bytes(h)?.get(i * SIZE..(i + 1) * SIZE))
        else {
            let place = Place::symbol(&self.name, &f.symbol).in_section(abi::SEC_FUNCS);
            return self.problem(codes::LP4009, place, "no record for this function");
        };
        let at = (i * SIZE) as u64;
        let place = || Place::symbol(f.object.clone(), f.symbol.clone()).in_section(abi::SEC_FUNCS);
        let name = self.pointer(abi::SEC_FUNCS, at + 16).and_then(|t| self.string(&t));
        self.expect(codes::LP4009, place(), "name", name, Some(f.symbol.as_str()));
        let old = self.pointer(abi::SEC_FUNCS, at).map(|t| (t.symbol, t.addend));
        self.expect(codes::LP4009, place(), "address", old, f.anchor_offset.map(|o| (anchor, o)));
        let distance = f.section_offset.unwrap_or(0);
        self.expect(codes::LP4009, place(), "distance from its section", int(r, 0, 8), distance);
        let new = self
            .pointer(abi::SEC_FUNCS, at + 8)
            .and_then(|t| self.elf.section_headers.get(t.section).map(|h| self.section_name(h)));
        self.expect(codes::LP4009, place(), "section of the new function", new, Some(abi::SEC_TEXT));
        for (what, offset, len, want) in [
            ("old size", 24, 4, u64::from(f.old_size)),
            ("new size", 28, 4, u64::from(f.new_size)),
            ("site offset", 32, 2, u64::from(f.site.offset)),
            ("site size", 34, 1, u64::from(f.site.size)),
            ("jump", 35, 1, f.site.jump.to_abi() as u64),
            ("section of a module", offset_of!(abi::FuncRecord, anchor), 4, section.map_or(u64::MAX, u64::from)),
            ("bytes of no use", offset_of!(abi::FuncRecord, zero), 4, 0),
        ] {
            self.expect(codes::LP4009, place(), what, int(r, offset, len), want);
        }
        // Whether the site is on the fentry nop itself.
        let over = f.site.rule == crate::plan::Rule::OverFentry.name();
        self.expect(codes::LP4009, place(), "rule", int(r, 36, 1), u64::from(over));
        let mut bytes = r.get(37..37 + usize::from(f.site.size)).unwrap_or(&[]).to_vec();
        // Of a module the manifest has nothing of what is filled in.
        if section == Some(0) {
            self.complete(at + 37, &mut bytes, kernel);
        }
        // Where it says so nobody is waited for who stands in the middle.
        let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
        let (first, more) = (decoder.decode(), decoder.can_decode());
        let ends = [FlowControl::UnconditionalBranch, FlowControl::IndirectBranch, FlowControl::Return];
        let single = !first.is_invalid() && (!more || ends.contains(&first.flow_control()));
        let said = int(r, offset_of!(abi::FuncRecord, single), 1);
        self.expect(codes::LP4009, place(), "whether it is one instruction", said, u64::from(single));
        let rest = r.get(37 + bytes.len()..37 + abi::MAX_SITE).unwrap_or(&[]);
        self.expect(codes::LP4009, place(), "bytes behind the site", rest.iter().any(|b| *b != 0), false);
        let bytes = crate::hash::to_hex(&bytes);
        self.expect(codes::LP4009, place(), "original bytes", bytes.as_str(), &f.site.original);
    }

    /// Absolute addresses among the original bytes are filled in by the module loader; here as the image is linked.
    fn complete(&self, offset: u64, bytes: &mut [u8], kernel: &Kernel) {
        let Some((index, _)) = self.section(abi::SEC_FUNCS) else { return };
        let own = |i: &usize| self.elf.section_headers.get(*i).is_some_and(|h| h.sh_info as usize == index);
        for r in self.elf.shdr_relocs.iter().filter(|(i, _)| own(i)).flat_map(|(_, relocs)| relocs.iter()) {
            let width = if r.r_type == R_X86_64_64 { 8 } else { 4 };
            let at = r.r_offset.wrapping_sub(offset) as usize;
            let anchored = self.target(&r).filter(|t| t.symbol == kernel.anchor);
            let field = at.checked_add(width).and_then(|end| bytes.get_mut(at..end));
            if let (Some(target), Some(field)) = (anchored, field) {
                let value = kernel.anchor_address.wrapping_add_signed(target.addend).to_le_bytes();
                field.copy_from_slice(&value[..width]);
            }
        }
    }

    /// Every function and every other piece of old code must be guarded.
    fn ranges(&mut self, input: &PatchFolder) {
        const SIZE: usize = size_of::<abi::RangeRecord>();
        let section = self.content(abi::SEC_RANGES);
        for (i, r) in section.chunks_exact(SIZE).enumerate() {
            let place = Place::object(&input.manifest.patch.name).in_section(abi::SEC_RANGES).at((i * SIZE) as u64);
            let zero = int(r, offset_of!(abi::RangeRecord, zero), 4);
            self.expect(codes::LP4009, place, "bytes of no use", zero, 0);
        }
        let have: Vec<(Option<i64>, u64, u64, u64, u64)> = section
            .chunks_exact(SIZE)
            .enumerate()
            .map(|(i, r)| {
                let start = self.pointer(abi::SEC_RANGES, (i * SIZE) as u64);
                let start = start.filter(|t| t.symbol == input.kernel.anchor).map(|t| t.addend);
                let anchor = int(r, offset_of!(abi::RangeRecord, anchor), 4);
                (start, int(r, 0, 8), int(r, 8, 4), int(r, 12, 4), anchor)
            })
            .collect();
        for (i, f) in input.manifest.functions.iter().enumerate() {
            let own = std::iter::once((&f.symbol, f.anchor_offset, &f.section, f.section_offset, f.old_size));
            let pieces = f.pieces.iter().map(|p| (&p.symbol, p.anchor_offset, &p.section, p.section_offset, p.size));
            for (symbol, start, section, offset, size) in own.chain(pieces) {
                let anchor = anchor_of(&input.manifest, &f.object, section.as_deref()).map_or(u64::MAX, u64::from);
                let want = (start, offset.unwrap_or(0), u64::from(size), i as u64, anchor);
                if !have.contains(&want) {
                    let place = Place::symbol(f.object.clone(), symbol.clone()).in_section(abi::SEC_RANGES);
                    self.problem(codes::LP4009, place, "no range guards this code");
                }
            }
        }
    }

    /// The digest is that of what the module holds.
    fn digest(&mut self, input: &PatchFolder) {
        let place = Place::object(&input.manifest.patch.name).in_section(abi::SEC_PATCH);
        let field = offset_of!(abi::PatchRecord, digest);
        let have = int(self.content(abi::SEC_PATCH), field, 8);
        match self.digest_of_records(&input.kernel) {
            Some(digest) => self.expect(codes::LP4009, place, "digest of the records", have, digest),
            // Mostly something has been said of what is missing.
            None if self.problems.is_empty() => self.problem(codes::LP4009, place, "the records are not complete"),
            None => {}
        }
    }

    fn digest_of_records(&self, kernel: &Kernel) -> Option<u64> {
        // Where the code is taken to begin: 0 stands for no address.
        const TEXT: i64 = 1 << 40;
        let bytes = |name: &str| self.section(name).and_then(|(_, h)| self.bytes(h));
        let in_kernel = |section: &str, at: usize| {
            let target = self.pointer(section, at as u64).filter(|t| t.symbol == kernel.anchor)?;
            Some(kernel.anchor_address.wrapping_add_signed(target.addend))
        };
        let string = |section: &str, at: usize| self.string(&self.pointer(section, at as u64)?);
        let r = bytes(abi::SEC_PATCH)?;
        let start = self.pointer(abi::SEC_PATCH, offset_of!(abi::PatchRecord, text_start) as u64)?;
        let in_text = |section: &str, at: usize| {
            let target = self.pointer(section, at as u64);
            let offset = target.filter(|t| t.section == start.section)?.offset.wrapping_sub(start.offset);
            Some(TEXT.wrapping_add(offset).cast_unsigned())
        };
        let patch_int = |at: usize, len: usize| int(r, at, len);
        let [n_after, n_replaces] = [offset_of!(abi::PatchRecord, n_after), offset_of!(abi::PatchRecord, n_replaces)]
            .map(|at| patch_int(at, 4) as u32);
        let patch = abi::PatchRecord {
            magic: patch_int(offset_of!(abi::PatchRecord, magic), 8),
            abi_version: patch_int(offset_of!(abi::PatchRecord, abi_version), 4) as u32,
            mode: patch_int(offset_of!(abi::PatchRecord, mode), 1) as u8,
            build_id_len: patch_int(offset_of!(abi::PatchRecord, build_id_len), 1) as u8,
            flags: patch_int(offset_of!(abi::PatchRecord, flags), 2) as u16,
            build_id: r.get(offset_of!(abi::PatchRecord, build_id)..)?.first_chunk().copied()?,
            deadline_ms: patch_int(offset_of!(abi::PatchRecord, deadline_ms), 4) as u32,
            n_funcs: patch_int(offset_of!(abi::PatchRecord, n_funcs), 4) as u32,
            n_ranges: patch_int(offset_of!(abi::PatchRecord, n_ranges), 4) as u32,
            patience_ms: patch_int(offset_of!(abi::PatchRecord, patience_ms), 4) as u32,
            funcs: 0,
            ranges: 0,
            name: 0,
            version: 0,
            notes_start: in_kernel(abi::SEC_PATCH, offset_of!(abi::PatchRecord, notes_start))?,
            notes_end: in_kernel(abi::SEC_PATCH, offset_of!(abi::PatchRecord, notes_end))?,
            text_start: TEXT.cast_unsigned(),
            text_end: in_text(abi::SEC_PATCH, offset_of!(abi::PatchRecord, text_end))?,
            after: 0,
            replaces: 0,
            n_after,
            n_replaces,
            digest: 0,
            holders: 0,
            anchors: 0,
            relocs: 0,
            n_holders: patch_int(offset_of!(abi::PatchRecord, n_holders), 4) as u32,
            n_anchors: patch_int(offset_of!(abi::PatchRecord, n_anchors), 4) as u32,
            n_relocs: patch_int(offset_of!(abi::PatchRecord, n_relocs), 4) as u32,
            n_kernel_funcs: patch_int(offset_of!(abi::PatchRecord, n_kernel_funcs), 4) as u32,
            n_kernel_ranges: patch_int(offset_of!(abi::PatchRecord, n_kernel_ranges), 4) as u32,
            n_data: patch_int(offset_of!(abi::PatchRecord, n_data), 4) as u32,
            data: 0,
        };
        let name = string(abi::SEC_PATCH, offset_of!(abi::PatchRecord, name))?;
        let version = string(abi::SEC_PATCH, offset_of!(abi::PatchRecord, version))?;
        let mut digest = abi::Digest::default().patch(&patch, name.as_bytes(), version.as_bytes());
        for (field, n) in
            [(offset_of!(abi::PatchRecord, after), n_after), (offset_of!(abi::PatchRecord, replaces), n_replaces)]
        {
            for other in self.names(field as u64, n as usize)? {
                digest = digest.text(other.as_bytes());
            }
        }
        const FUNC: usize = size_of::<abi::FuncRecord>();
        for (i, f) in bytes(abi::SEC_FUNCS)?.chunks_exact(FUNC).enumerate() {
            let at = |field: usize| i * FUNC + field;
            let func = abi::FuncRecord {
                old: match int(f, offset_of!(abi::FuncRecord, anchor), 4) {
                    0 => in_kernel(abi::SEC_FUNCS, at(offset_of!(abi::FuncRecord, old)))?,
                    _ => int(f, offset_of!(abi::FuncRecord, old), 8),
                },
                new: in_text(abi::SEC_FUNCS, at(offset_of!(abi::FuncRecord, new)))?,
                name: 0,
                old_size: int(f, offset_of!(abi::FuncRecord, old_size), 4) as u32,
                new_size: int(f, offset_of!(abi::FuncRecord, new_size), 4) as u32,
                site_offset: int(f, offset_of!(abi::FuncRecord, site_offset), 2) as u16,
                site_size: int(f, offset_of!(abi::FuncRecord, site_size), 1) as u8,
                jump_kind: int(f, offset_of!(abi::FuncRecord, jump_kind), 1) as u8,
                covers_fentry: int(f, offset_of!(abi::FuncRecord, covers_fentry), 1) as u8,
                original: [0; abi::MAX_SITE],
                single: int(f, offset_of!(abi::FuncRecord, single), 1) as u8,
                resume: in_text(abi::SEC_FUNCS, at(offset_of!(abi::FuncRecord, resume))).unwrap_or(0),
                dispatch: in_text(abi::SEC_FUNCS, at(offset_of!(abi::FuncRecord, dispatch))).unwrap_or(0),
                anchor: int(f, offset_of!(abi::FuncRecord, anchor), 4) as u32,
                zero: int(f, offset_of!(abi::FuncRecord, zero), 4) as u32,
            };
            let name = string(abi::SEC_FUNCS, at(offset_of!(abi::FuncRecord, name)))?;
            digest = digest.func(&func, name.as_bytes(), &patch);
        }
        const RANGE: usize = size_of::<abi::RangeRecord>();
        for (i, r) in bytes(abi::SEC_RANGES)?.chunks_exact(RANGE).enumerate() {
            let number = |field: usize| int(r, field, 4) as u32;
            let start = match number(offset_of!(abi::RangeRecord, anchor)) {
                0 => in_kernel(abi::SEC_RANGES, i * RANGE + offset_of!(abi::RangeRecord, start))?,
                _ => int(r, offset_of!(abi::RangeRecord, start), 8),
            };
            let (len, func) = (number(offset_of!(abi::RangeRecord, len)), number(offset_of!(abi::RangeRecord, func)));
            let (anchor, zero) =
                (number(offset_of!(abi::RangeRecord, anchor)), number(offset_of!(abi::RangeRecord, zero)));
            digest = digest.range(&abi::RangeRecord { start, len, func, anchor, zero }, &patch);
        }
        let digest = self.digest_of_constants(digest, &patch, kernel)?;
        Some(self.digest_of_modules(digest, &patch)?.finish())
    }

    /// Each thunk and pointer of the runtime must lead where the manifest says, and there must be no other.
    fn imports(&mut self, input: &PatchFolder) {
        let place = |symbol: &str| Place::symbol(&input.manifest.patch.name, symbol);
        let mut known = Vec::new();
        for import in &input.manifest.imports {
            let Some(known_import) = abi::IMPORTS.iter().find(|i| i.name == import.symbol) else {
                self.problem(codes::LP4009, place(&import.symbol), "the runtime has no such import");
                continue;
            };
            let (prefix, field, bias) = match known_import.kind {
                abi::ImportKind::Call => (abi::IMPORT_CALL_PREFIX, 1, -4),
                abi::ImportKind::Pointer => (abi::IMPORT_PTR_PREFIX, 0, 0),
            };
            let symbol = format!("{prefix}{}", import.symbol);
            let defined = self.defined(&symbol);
            let target = defined.and_then(|(index, at)| self.target(&self.relocation(index, at + field)?));
            let leads = target.filter(|t| t.symbol == input.kernel.anchor).map(|t| t.addend.wrapping_sub(bias));
            if defined.is_none() || leads != import.anchor_offset {
                let detail = format!("it leads to {leads:?} from the anchor, expected {:?}", import.anchor_offset);
                self.problem(codes::LP4009, place(&symbol), detail);
            }
            known.push(symbol);
        }
        let strtab = &self.elf.strtab;
        let defined = self.elf.syms.iter().filter(|s| s.st_shndx != 0).filter_map(|s| strtab.get_at(s.st_name));
        let more = defined.filter(|n| n.starts_with(abi::IMPORT_CALL_PREFIX) && !known.iter().any(|k| k == n));
        for symbol in more.map(str::to_owned).collect::<Vec<_>>() {
            self.problem(codes::LP4009, place(&symbol), "the manifest does not have this import");
        }
    }

    /// Each thunk must jump to the function of that name among the carried code, or return when there is none.
    fn callbacks(&mut self, input: &PatchFolder) {
        for callback in abi::Callback::ALL {
            let place = || Place::symbol(&input.manifest.patch.name, callback.symbol());
            let Some((index, value)) = self.defined(callback.symbol()) else {
                self.problem(codes::LP4009, place(), "the thunk is missing");
                continue;
            };
            let target = self.relocation(index, value + 1).and_then(|r| self.target(&r));
            // The displacement counts from behind the jump.
            let leads: Option<Vec<&str>> = target.map(|t| self.functions_at(t.section, t.offset.wrapping_add(4)));
            match (input.manifest.callbacks.get(callback), leads) {
                (None, None) => {}
                (Some(function), Some(names)) if names.contains(&function) => {}
                (function, leads) => {
                    let detail = format!("the thunk leads to {leads:?}, expected {function:?}");
                    self.problem(codes::LP4009, place(), detail);
                }
            }
        }
    }

    /// The carried declarations of shadow variables must be those of the manifest.
    fn shadows(&mut self, input: &PatchFolder) {
        let [size, _, name] = abi::SHADOW_FIELDS;
        let named = |s: &&goblin::elf::Sym| {
            let symbol = self.elf.strtab.get_at(s.st_name);
            s.st_shndx != 0 && symbol.is_some_and(|n| n.starts_with(abi::SHADOW_PREFIX))
        };
        let read = |s: &goblin::elf::Sym| {
            let bytes = self.bytes(self.elf.section_headers.get(s.st_shndx)?)?;
            let bytes = bytes.get(usize::try_from(s.st_value).ok()?..)?.get(..abi::SHADOW_LEN)?;
            let text = bytes.get(name..)?.split(|b| *b == 0).next()?;
            Some((String::from_utf8_lossy(text).into_owned(), int(bytes, size, 4) as u32))
        };
        let found: BTreeSet<_> = self.elf.syms.iter().filter(|s| named(&s)).map(|s| read(&s)).collect();
        let want = input.manifest.shadows.iter().map(|s| Some((s.name.clone(), s.size))).collect();
        if found != want {
            let detail = format!("it declares the shadow variables {found:?}, expected {want:?}");
            self.problem(codes::LP4009, self.place(), detail);
        }
    }

    /// The list that the runtime has must be the manifest's (templates/module.c.in): for each the size and the name, then zeros.
    fn list_of_shadows(&mut self, input: &PatchFolder) {
        let mut want = Vec::new();
        for shadow in &input.manifest.shadows {
            want.extend(shadow.size.to_le_bytes());
            want.extend(shadow.name.bytes().chain(std::iter::repeat(0)).take(abi::SHADOW_NAME));
        }
        want.resize(want.len() + 4 + abi::SHADOW_NAME, 0);
        let found = self.defined(abi::SYM_SHADOWS).and_then(|(index, at)| {
            let header = self.elf.section_headers.get(index)?;
            self.bytes(header)?.get(usize::try_from(at).ok()?..)?.get(..want.len())
        });
        if found != Some(&want[..]) {
            let place = Place::symbol(&input.manifest.patch.name, abi::SYM_SHADOWS);
            self.problem(codes::LP4009, place, "it is not the list of shadow variables that the manifest has");
        }
    }

    /// Names of the functions that begin at an offset of the carried code.
    fn functions_at(&self, section: usize, offset: i64) -> Vec<&'a str> {
        let carried = self.elf.section_headers.get(section).is_some_and(|h| self.section_name(h) == abi::SEC_TEXT);
        let here = |s: &goblin::elf::Sym| carried && s.st_shndx == section && s.st_value.cast_signed() == offset;
        let functions = self.elf.syms.iter().filter(|s| here(s) && s.is_function());
        functions.filter_map(|s| self.elf.strtab.get_at(s.st_name)).collect()
    }
}

/// The bytes of a dispatcher that is at `at`, before its call is relocated.
fn dispatcher(at: usize, new: usize, resume: usize) -> [u8; abi::DISPATCH_LEN] {
    let mut code = [0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0, 0x0f, 0x85, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
    for (field, to) in [(11, new), (16, resume)] {
        let distance = (to as i64).wrapping_sub((at + field + 4) as i64) as i32;
        code[field..field + 4].copy_from_slice(&distance.to_le_bytes());
    }
    code
}

/// The value of `key=` in `.modinfo`.
fn modinfo<'a>(text: &'a [u8], key: &str) -> Option<&'a str> {
    text.split(|&b| b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
}
