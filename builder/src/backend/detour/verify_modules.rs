//! The records of kernel modules in a finished module, held against its manifest: LP4009.
//!
//! Input: what goblin sees. Output: findings, and the records for their digest. Every field that is filled in later is looked at in the
//! file: it must be zero, and nothing that the module loader fills in, but a branch, which leads to the trap until then.

use std::mem::offset_of;

use goblin::elf::reloc::{R_X86_64_PC32, R_X86_64_PLT32};
use lpbuild_abi as abi;

use crate::codes;
use crate::error::Place;
use crate::hash::to_hex;
use crate::holder::VMLINUX;
use crate::pack::{PatchFolder, Reread, int};
use crate::plan::manifest::{HolderEntry, HolderSection, Manifest};

/// A relocation of the records, and where it writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    /// The record.
    pub(super) kind: Option<abi::FieldKind>,
    /// Section of the patch, by index.
    pub(super) section: usize,
    /// Where it writes there.
    pub(super) offset: u64,
    /// Index of the anchor.
    pub(super) anchor: u32,
    /// Distance from the section.
    pub(super) addend: i64,
    /// 0, or one more than the index of a function.
    pub(super) site_of: u32,
}

impl Late {
    /// Its bytes when the field is at `place` and sections are where `section` says.
    pub(super) fn bytes(&self, place: u64, section: impl Fn(u32) -> u64) -> Option<Vec<u8>> {
        let kind = self.kind?;
        let to = section(self.anchor).wrapping_add_signed(self.addend);
        let value = match kind {
            abi::FieldKind::Pc32 | abi::FieldKind::Plt32 | abi::FieldKind::Pc64 => to.wrapping_sub(place),
            abi::FieldKind::Abs64 | abi::FieldKind::Abs32S | abi::FieldKind::Abs32 => to,
        };
        Some(value.to_le_bytes()[..kind.width() as usize].to_vec())
    }
}

/// What a record has of the section of something that the manifest says is in a module: one more than the index of its anchor. 0: it is in
/// the kernel; nothing when the manifest has no such section.
pub(super) fn anchor_of(manifest: &Manifest, object: &str, section: Option<&str>) -> Option<u32> {
    if object == VMLINUX {
        return Some(0);
    }
    let mut before = 0;
    for h in &manifest.holders {
        if h.name == object {
            let at = h.sections.iter().position(|s| Some(s.name.as_str()) == section)?;
            return Some((before + at) as u32 + 1);
        }
        before += h.sections.len();
    }
    None
}

const HOLDER: usize = size_of::<abi::HolderRecord>();
const ANCHOR: usize = size_of::<abi::AnchorRecord>();
const RELOC: usize = size_of::<abi::LateReloc>();

/// Fields of a holder with the pieces that are brought for it.
const PIECES: [(usize, usize); 3] = [
    (offset_of!(abi::HolderRecord, data), offset_of!(abi::HolderRecord, data_end)),
    (offset_of!(abi::HolderRecord, bss), offset_of!(abi::HolderRecord, bss_end)),
    (offset_of!(abi::HolderRecord, rodata), offset_of!(abi::HolderRecord, rodata_end)),
];

impl<'a> Reread<'a> {
    fn array(&self, name: &str) -> &'a [u8] {
        self.section(name).and_then(|(_, h)| self.bytes(h)).unwrap_or(&[])
    }

    /// Every relocation, in the order of the records.
    pub(super) fn lates(&self) -> Vec<Late> {
        let records = self.array(abi::SEC_RELOCS).chunks_exact(RELOC);
        let late = |(i, r): (usize, &[u8])| {
            let at = self.pointer(abi::SEC_RELOCS, (i * RELOC) as u64)?;
            let kind = int(r, offset_of!(abi::LateReloc, kind), 1);
            Some(Late {
                kind: abi::FieldKind::ALL.into_iter().find(|k| *k as u64 == kind),
                section: at.section,
                offset: at.offset.cast_unsigned(),
                anchor: int(r, offset_of!(abi::LateReloc, anchor), 4) as u32,
                addend: int(r, offset_of!(abi::LateReloc, addend), 8).cast_signed(),
                site_of: int(r, offset_of!(abi::LateReloc, site_of), 4) as u32,
            })
        };
        records.enumerate().filter_map(late).collect()
    }

    /// All that is about modules, but their functions and ranges.
    pub(super) fn modules(&mut self, input: &PatchFolder) {
        let manifest = &input.manifest;
        let place = || Place::object(&manifest.patch.name).in_section(abi::SEC_PATCH);
        let r = self.content(abi::SEC_PATCH);
        let holders = manifest.holders.len();
        let anchors: usize = manifest.holders.iter().map(|h| h.sections.len()).sum();
        let relocs = self.array(abi::SEC_RELOCS).len() / RELOC;
        let of_kernel = || manifest.functions.iter().filter(|f| f.object == VMLINUX);
        let ranges: usize = of_kernel().map(|f| 1 + f.pieces.len()).sum();
        // Without modules all of them are; how many that are has been compared.
        let (funcs, ranges) = match holders {
            0 => (int(r, offset_of!(abi::PatchRecord, n_funcs), 4), int(r, offset_of!(abi::PatchRecord, n_ranges), 4)),
            _ => (of_kernel().count() as u64, ranges as u64),
        };
        for (what, field, want) in [
            ("functions of the kernel", offset_of!(abi::PatchRecord, n_kernel_funcs), funcs),
            ("ranges of the kernel", offset_of!(abi::PatchRecord, n_kernel_ranges), ranges),
            ("kernel modules", offset_of!(abi::PatchRecord, n_holders), holders as u64),
            ("sections of kernel modules", offset_of!(abi::PatchRecord, n_anchors), anchors as u64),
            ("fields for kernel modules", offset_of!(abi::PatchRecord, n_relocs), relocs as u64),
        ] {
            self.expect(codes::LP4009, place().at(field as u64), what, int(r, field, 4), want);
        }
        for (field, section, count, size) in [
            (offset_of!(abi::PatchRecord, holders), abi::SEC_HOLDERS, holders, HOLDER),
            (offset_of!(abi::PatchRecord, anchors), abi::SEC_ANCHORS, anchors, ANCHOR),
            (offset_of!(abi::PatchRecord, relocs), abi::SEC_RELOCS, relocs, RELOC),
        ] {
            let at = place().at(field as u64);
            let leads = self.pointer(abi::SEC_PATCH, field as u64).and_then(|t| {
                let h = self.elf.section_headers.get(t.section)?;
                Some((self.section_name(h), t.offset))
            });
            let want = if count == 0 { None } else { Some((section, 0)) };
            self.expect(codes::LP4009, at.clone(), "array", leads, want);
            self.expect(codes::LP4009, at.clone(), "an address of nothing", int(r, field, 8), 0);
            self.expect(codes::LP4009, at, "size of the array", self.array(section).len(), count * size);
        }
        let (mut anchor, mut reloc) = (0, 0);
        for (i, h) in manifest.holders.iter().enumerate() {
            let relocs = self.holder(i, h, manifest);
            for s in &h.sections {
                self.anchor(anchor, i, s, h, anchor - h.sections.iter().position(|x| x == s).unwrap_or(0));
                anchor += 1;
            }
            let own = anchor - h.sections.len()..anchor;
            self.fields(i, h, manifest, reloc..reloc + relocs, &own);
            reloc += relocs;
        }
        self.expect(codes::LP4009, place(), "the sum of the fields of all modules", reloc, relocs);
        self.traps(input);
    }

    /// One holder; how many relocations it has.
    fn holder(&mut self, i: usize, h: &HolderEntry, manifest: &Manifest) -> usize {
        let r = self.array(abi::SEC_HOLDERS).get(i * HOLDER..(i + 1) * HOLDER).unwrap_or(&[]);
        let at = (i * HOLDER) as u64;
        let place = || Place::symbol(&manifest.patch.name, &h.name).in_section(abi::SEC_HOLDERS);
        let name = self.pointer(abi::SEC_HOLDERS, at).and_then(|t| self.string(&t));
        self.expect(codes::LP4009, place(), "name", name, Some(h.name.as_str()));
        let len = int(r, offset_of!(abi::HolderRecord, build_id_len), 1) as usize;
        let id = r.get(offset_of!(abi::HolderRecord, build_id)..).and_then(|r| r.get(..len.min(abi::MAX_BUILD_ID)));
        self.expect(codes::LP4009, place(), "build id", to_hex(id.unwrap_or(&[])).as_str(), &h.build_id);
        let own = || manifest.functions.iter().filter(|f| f.object == h.name);
        let ranges: usize = own().map(|f| 1 + f.pieces.len()).sum();
        for (what, field, want) in [
            ("functions", offset_of!(abi::HolderRecord, n_funcs), own().count()),
            ("ranges", offset_of!(abi::HolderRecord, n_ranges), ranges),
            ("sections", offset_of!(abi::HolderRecord, n_anchors), h.sections.len()),
        ] {
            self.expect(codes::LP4009, place(), what, int(r, field, 4), want as u64);
        }
        let needed = |(i, other): (usize, &HolderEntry)| h.needs.contains(&other.name).then_some(i);
        let want = manifest.holders.iter().enumerate().filter_map(needed).fold(0u64, |bits, i| bits | 1 << (i % 64));
        let needs = int(r, offset_of!(abi::HolderRecord, needs), 8);
        self.expect(codes::LP4009, place(), "other modules that it needs", needs, want);
        let zero = int(r, offset_of!(abi::HolderRecord, zero), 7);
        self.expect(codes::LP4009, place(), "bytes of no use", zero, 0);
        for (start, end) in PIECES {
            let [from, to] = [start, end].map(|field| self.pointer(abi::SEC_HOLDERS, at + field as u64));
            let whole = match (from, to) {
                (None, None) => int(r, start, 8) == 0 && int(r, end, 8) == 0,
                (Some(from), Some(to)) => {
                    let header = self.elf.section_headers.get(from.section);
                    let ours = header.is_some_and(|h| {
                        let name = self.section_name(h);
                        name.starts_with(".text") || name.starts_with(".lpbuild")
                    });
                    let end = header.map_or(0, |h| h.sh_size);
                    from.section == to.section
                        && !ours
                        && from.offset % 8 == 0
                        && (0..to.offset).contains(&from.offset)
                        && to.offset.cast_unsigned() <= end
                }
                _ => false,
            };
            self.expect(codes::LP4009, place().at(at + start as u64), "a piece that is brought for it", whole, true);
        }
        for kept in abi::Kept::ALL {
            self.kept(i, h, manifest, kept);
        }
        int(r, offset_of!(abi::HolderRecord, n_relocs), 4) as usize
    }

    /// Jumps of keys, and static calls, that the module has: whole entries among its data, of carried code, whose key is filled in
    /// later; what a static call calls as well.
    fn kept(&mut self, i: usize, h: &HolderEntry, manifest: &Manifest, kept: abi::Kept) {
        let place = || Place::symbol(&manifest.patch.name, &h.name).in_section(abi::SEC_HOLDERS);
        let r = self.array(abi::SEC_HOLDERS).get(i * HOLDER..(i + 1) * HOLDER).unwrap_or(&[]);
        let reach = |field: usize| self.pointer(abi::SEC_HOLDERS, (i * HOLDER + field) as u64);
        let fields = kept.fields();
        let whole = match (reach(fields.0), reach(fields.1)) {
            (None, None) => int(r, fields.0, 8) == 0 && int(r, fields.1, 8) == 0,
            (Some(from), Some(to)) => {
                let data = reach(PIECES[0].0).zip(reach(PIECES[0].1));
                let inside = data.is_some_and(|(data, end)| {
                    from.section == data.section
                        && to.section == data.section
                        && data.offset <= from.offset
                        && from.offset < to.offset
                        && to.offset <= end.offset
                });
                let size = kept.entry_len() as u64;
                let lates = self.lates();
                let end = self.elf.section_headers.get(from.section).map_or(0, |h| h.sh_size);
                let all = from.offset.cast_unsigned()..to.offset.cast_unsigned().min(end);
                inside
                    && from.offset % 8 == 0
                    && (to.offset - from.offset).cast_unsigned().is_multiple_of(size)
                    && all.step_by(kept.entry_len()).all(|at| self.is_entry(kept, from.section, at, &lates))
            }
            _ => false,
        };
        let what = match kept {
            abi::Kept::Jumps => "jumps of its keys",
            abi::Kept::Calls => "its static calls",
            abi::Kept::Sealed => "jumps of its constant keys",
        };
        self.expect(codes::LP4009, place().at((i * HOLDER + fields.0) as u64), what, whole, true);
    }

    /// Whether that is an entry of carried code, whose key is filled in later.
    fn is_entry(&self, kept: abi::Kept, section: usize, at: u64, lates: &[Late]) -> bool {
        let Some((text, header)) = self.section(abi::SEC_TEXT) else { return false };
        let carried = |at: u64| {
            let r = self.relocation(section, at).filter(|r| r.r_type == R_X86_64_PC32)?;
            self.target(&r).filter(|t| t.section == text).map(|t| t.offset)
        };
        let (key, kind) = kept.key();
        let end = at + kept.entry_len() as u64;
        let late = lates.iter().filter(|l| l.section == section && (at..end).contains(&l.offset));
        let late: Vec<_> = late.map(|l| (l.offset - at, l.kind, l.addend)).collect();
        let [(place, of, addend)] = late[..] else { return false };
        let (Some(code), true) = (carried(at), (place, of) == (key as u64, Some(kind))) else { return false };
        match kept {
            abi::Kept::Jumps | abi::Kept::Sealed => carried(at + 4).is_some(),
            abi::Kept::Calls => {
                // Keys are words: what is left of the distance are the flags.
                let bytes = usize::try_from(code).ok().and_then(|at| self.bytes(header)?.get(at..at + 2));
                let (field, tail) = match bytes {
                    Some([0xe8, _]) => (code + 1, 0),
                    Some([0xe9, _]) => (code + 1, 1),
                    Some([0x0f, 0x80..=0x8f]) => (code + 2, 1),
                    _ => return false,
                };
                let call = |l: &Late| {
                    let at = l.offset.cast_signed();
                    l.section == text && at == field && l.kind == Some(abi::FieldKind::Plt32) && l.site_of == 0
                };
                addend & 3 == tail && lates.iter().any(call)
            }
        }
    }

    fn anchor(&mut self, index: usize, owner: usize, s: &HolderSection, h: &HolderEntry, first: usize) {
        let r = self.array(abi::SEC_ANCHORS).get(index * ANCHOR..(index + 1) * ANCHOR).unwrap_or(&[]);
        let at = (index * ANCHOR) as u64;
        let place = || Place::symbol(&h.name, &s.name).in_section(abi::SEC_ANCHORS);
        let kind = match s.found.as_str() {
            "module" => abi::AnchorKind::Module,
            "percpu" => abi::AnchorKind::Percpu,
            "field" => abi::AnchorKind::Field,
            _ => abi::AnchorKind::Symbol,
        };
        let symbol = |s: &Option<crate::plan::manifest::SectionSymbol>| {
            s.as_ref().map_or((0, 0, 0), |s| (s.offset, u64::from(s.position), u64::from(s.count)))
        };
        let (offset, position, count) = symbol(&s.symbol);
        let (witness_offset, witness_position, witness_count) = symbol(&s.witness);
        let host = s.field.as_ref().and_then(|f| h.sections.iter().position(|x| x.name == f.section));
        let of = host.map_or(0, |host| (first + host) as u64);
        let delta = s.field.as_ref().map_or(offset, |f| f.delta.cast_unsigned());
        for (what, field, len, want) in [
            ("kind", offset_of!(abi::AnchorRecord, kind), 1, kind as u64),
            ("its module", offset_of!(abi::AnchorRecord, owner), 4, owner as u64),
            ("size", offset_of!(abi::AnchorRecord, size), 4, s.size),
            ("distance", offset_of!(abi::AnchorRecord, delta), 8, delta),
            ("distance of the second symbol", offset_of!(abi::AnchorRecord, witness_delta), 8, witness_offset),
            ("place of the field", offset_of!(abi::AnchorRecord, at), 8, s.field.as_ref().map_or(0, |f| f.offset)),
            ("section of the field", offset_of!(abi::AnchorRecord, of), 4, of),
            ("position", offset_of!(abi::AnchorRecord, position), 4, position),
            ("number of its name", offset_of!(abi::AnchorRecord, count), 4, count),
            ("position", offset_of!(abi::AnchorRecord, witness_position), 4, witness_position),
            ("number of its name", offset_of!(abi::AnchorRecord, witness_count), 4, witness_count),
            ("bytes of no use", offset_of!(abi::AnchorRecord, zero), 1, 0),
        ] {
            self.expect(codes::LP4009, place().at(at + field as u64), what, int(r, field, len), want);
        }
        if kind == abi::AnchorKind::Field {
            let known = |k: &abi::FieldKind| *k as u64 == int(r, offset_of!(abi::AnchorRecord, field), 1);
            let known = abi::FieldKind::ALL.iter().any(known) && host.is_some_and(|host| first + host < index);
            self.expect(codes::LP4009, place(), "whether there is such a field", known, true);
        }
        for (field, want) in
            [(offset_of!(abi::AnchorRecord, name), &s.symbol), (offset_of!(abi::AnchorRecord, witness), &s.witness)]
        {
            let have = self.pointer(abi::SEC_ANCHORS, at + field as u64).and_then(|t| self.string(&t));
            let want = want.as_ref().map(|s| s.name.as_str());
            self.expect(codes::LP4009, place().at(at + field as u64), "symbol", have, want);
        }
    }

    /// The fields of one holder: in what is carried for it, empty so far, and about its own sections.
    fn fields(
        &mut self,
        i: usize,
        h: &HolderEntry,
        manifest: &Manifest,
        own: std::ops::Range<usize>,
        anchors: &std::ops::Range<usize>,
    ) {
        let all = self.lates();
        let index = |name: &str| self.section(name).map(|(index, _)| index);
        let (text, funcs) = (index(abi::SEC_TEXT), index(abi::SEC_FUNCS));
        let pieces = PIECES.map(|(start, _)| self.pointer(abi::SEC_HOLDERS, (i * HOLDER + start) as u64));
        let pieces = pieces.map(|p| p.map(|p| p.section));
        let absent = self.defined(abi::SYM_ABSENT);
        let owner = |mut anchor: usize| {
            manifest.holders.iter().find(|h| {
                let own = anchor < h.sections.len();
                anchor = anchor.saturating_sub(h.sections.len());
                own
            })
        };
        let needed = |anchor: usize| owner(anchor).is_some_and(|other| h.needs.contains(&other.name));
        // How many the record says there are is no bound: the sum is compared with what the section has.
        for n in own.start..own.end.min(self.array(abi::SEC_RELOCS).len() / RELOC) {
            let place =
                || Place::symbol(&manifest.patch.name, &h.name).in_section(abi::SEC_RELOCS).at((n * RELOC) as u64);
            let Some((late, kind)) = all.get(n).and_then(|l| Some((l, l.kind?))) else {
                self.problem(codes::LP4009, place(), "no field, or one of no kind");
                continue;
            };
            let r = self.array(abi::SEC_RELOCS).get(n * RELOC..(n + 1) * RELOC).unwrap_or(&[]);
            let stub = self.pointer(abi::SEC_RELOCS, (n * RELOC + offset_of!(abi::LateReloc, stub)) as u64);
            let zero = int(r, offset_of!(abi::LateReloc, zero), 7) | int(r, offset_of!(abi::LateReloc, stub), 8);
            self.expect(codes::LP4009, place(), "bytes of no use", (zero, stub.is_some()), (0, false));
            let inside = if late.site_of != 0 {
                let func = late.site_of as usize - 1;
                let f = manifest.functions.get(func).filter(|f| f.object == h.name);
                let start = (func * size_of::<abi::FuncRecord>() + offset_of!(abi::FuncRecord, original)) as u64;
                let end = |size: u8| start + u64::from(size);
                Some(late.section) == funcs
                    && f.is_some_and(|f| {
                        start <= late.offset && late.offset.saturating_add(kind.width()) <= end(f.site.size)
                    })
            } else {
                let section = Some(late.section);
                section == text || section == pieces[0] || section == pieces[2]
            };
            self.expect(codes::LP4009, place(), "whether it is in what is carried for the module", inside, true);
            let leads = anchors.contains(&(late.anchor as usize)) || needed(late.anchor as usize);
            self.expect(codes::LP4009, place(), "whether it refers to the module, or one that it needs", leads, true);
            let bytes = self.elf.section_headers.get(late.section).and_then(|h| self.bytes(h));
            let at = usize::try_from(late.offset).unwrap_or(usize::MAX);
            let field = bytes.and_then(|b| b.get(at..at.checked_add(kind.width() as usize)?));
            let empty = field.is_some_and(|f| f.iter().all(|b| *b == 0));
            self.expect(codes::LP4009, place(), "whether the field is empty", empty, true);
            let trapped =
                (0..kind.width()).find_map(|o| Some((o, self.relocation(late.section, late.offset.checked_add(o)?)?)));
            let right = match (kind, trapped) {
                (abi::FieldKind::Plt32, Some((0, r))) if late.site_of == 0 => {
                    let to = self.target(&r).map(|t| (t.section, t.offset.wrapping_add(4).cast_unsigned()));
                    r.r_type == R_X86_64_PLT32 && to.is_some() && to == absent
                }
                (abi::FieldKind::Plt32, _) if late.site_of == 0 => false,
                (_, trapped) => trapped.is_none(),
            };
            self.expect(codes::LP4009, place(), "whether the module loader leaves it alone", right, true);
        }
    }

    /// Nothing leads to the trap for good.
    fn traps(&mut self, input: &PatchFolder) {
        let Some((trap, at)) = self.defined(abi::SYM_ABSENT) else { return };
        let lates = self.lates();
        let mut left = Vec::new();
        for (i, relocs) in &self.elf.shdr_relocs {
            let Some(section) = self.elf.section_headers.get(*i).map(|h| h.sh_info as usize) else { continue };
            for r in relocs.iter() {
                let to = self.target(&r).filter(|t| t.section == trap);
                let leads =
                    to.is_some_and(|t| t.offset.wrapping_add(4).cast_unsigned() == at && r.r_type == R_X86_64_PLT32);
                if leads && !lates.iter().any(|l| l.section == section && l.offset == r.r_offset) {
                    left.push(r.r_offset);
                }
            }
        }
        for offset in left {
            let place = Place::symbol(&input.manifest.patch.name, abi::SYM_ABSENT).at(offset);
            self.problem(codes::LP4009, place, "a branch that nothing fills in leads to it");
        }
    }

    /// Goes on with a digest of the records.
    pub(super) fn digest_of_modules(&self, so_far: abi::Digest, patch: &abi::PatchRecord) -> Option<abi::Digest> {
        let string = |section: &str, at: usize| match self.pointer(section, at as u64) {
            Some(t) => self.string(&t),
            None => Some(""),
        };
        let mut digest = so_far;
        let text = self.pointer(abi::SEC_PATCH, offset_of!(abi::PatchRecord, text_start) as u64);
        let mut pieces = Vec::new();
        let mut counts = Vec::new();
        for (i, r) in self.array(abi::SEC_HOLDERS).chunks_exact(HOLDER).enumerate() {
            let number = |field: usize| int(r, field, 4) as u32;
            let reach = |field: usize| self.pointer(abi::SEC_HOLDERS, (i * HOLDER + field) as u64);
            let extent = |(start, end): (usize, usize)| match (reach(start), reach(end)) {
                // Only the length counts, and whether there is any.
                (Some(from), Some(to)) => (8, 8 + to.offset.wrapping_sub(from.offset).cast_unsigned()),
                _ => (0, 0),
            };
            let [data, bss, rodata] = PIECES.map(extent);
            // Those lie in the data, and count from there.
            let data_at = reach(PIECES[0].0);
            let [jumps, calls, sealed] = abi::Kept::ALL.map(|kept| {
                let (start, end) = kept.fields();
                match (&data_at, reach(start), reach(end)) {
                    (Some(data), Some(from), Some(to)) => {
                        [from, to].map(|t| 8 + t.offset.wrapping_sub(data.offset).cast_unsigned()).into()
                    }
                    _ => (0, 0),
                }
            });
            let h = abi::HolderRecord {
                name: 0,
                data: data.0,
                data_end: data.1,
                bss: bss.0,
                bss_end: bss.1,
                rodata: rodata.0,
                rodata_end: rodata.1,
                jumps: jumps.0,
                jumps_end: jumps.1,
                calls: calls.0,
                calls_end: calls.1,
                sealed: sealed.0,
                sealed_end: sealed.1,
                needs: int(r, offset_of!(abi::HolderRecord, needs), 8),
                build_id: r.get(offset_of!(abi::HolderRecord, build_id)..)?.first_chunk().copied()?,
                n_funcs: number(offset_of!(abi::HolderRecord, n_funcs)),
                n_ranges: number(offset_of!(abi::HolderRecord, n_ranges)),
                n_anchors: number(offset_of!(abi::HolderRecord, n_anchors)),
                n_relocs: number(offset_of!(abi::HolderRecord, n_relocs)),
                build_id_len: int(r, offset_of!(abi::HolderRecord, build_id_len), 1) as u8,
                zero: r.get(offset_of!(abi::HolderRecord, zero)..)?.first_chunk().copied()?,
            };
            digest = digest.holder(&h, string(abi::SEC_HOLDERS, i * HOLDER)?.as_bytes());
            pieces.push((reach(PIECES[0].0), reach(PIECES[2].0)));
            counts.push(h.n_relocs as usize);
        }
        for (i, r) in self.array(abi::SEC_ANCHORS).chunks_exact(ANCHOR).enumerate() {
            let number = |field: usize| int(r, field, 4) as u32;
            let long = |field: usize| int(r, field, 8).cast_signed();
            let byte = |field: usize| int(r, field, 1) as u8;
            let a = abi::AnchorRecord {
                name: 0,
                witness: 0,
                delta: long(offset_of!(abi::AnchorRecord, delta)),
                witness_delta: long(offset_of!(abi::AnchorRecord, witness_delta)),
                at: long(offset_of!(abi::AnchorRecord, at)),
                owner: number(offset_of!(abi::AnchorRecord, owner)),
                position: number(offset_of!(abi::AnchorRecord, position)),
                count: number(offset_of!(abi::AnchorRecord, count)),
                witness_position: number(offset_of!(abi::AnchorRecord, witness_position)),
                witness_count: number(offset_of!(abi::AnchorRecord, witness_count)),
                of: number(offset_of!(abi::AnchorRecord, of)),
                size: number(offset_of!(abi::AnchorRecord, size)),
                kind: byte(offset_of!(abi::AnchorRecord, kind)),
                field: byte(offset_of!(abi::AnchorRecord, field)),
                region: byte(offset_of!(abi::AnchorRecord, region)),
                zero: byte(offset_of!(abi::AnchorRecord, zero)),
            };
            let [name, witness] = [offset_of!(abi::AnchorRecord, name), offset_of!(abi::AnchorRecord, witness)]
                .map(|field| string(abi::SEC_ANCHORS, i * ANCHOR + field));
            digest = digest.anchor(&a, name?.as_bytes(), witness?.as_bytes());
        }
        let lates = self.lates();
        let mut records = self.array(abi::SEC_RELOCS).chunks_exact(RELOC).zip(lates);
        for ((data, rodata), count) in pieces.into_iter().zip(counts) {
            for (r, late) in records.by_ref().take(count) {
                let within = |piece: Option<crate::pack::Reached<'_>>| {
                    let piece = piece.filter(|p| p.section == late.section)?;
                    Some(late.offset.wrapping_sub(piece.offset.cast_unsigned()))
                };
                let spot = match late.site_of.checked_sub(1) {
                    Some(func) => {
                        let original =
                            func as usize * size_of::<abi::FuncRecord>() + offset_of!(abi::FuncRecord, original);
                        abi::Spot::Site(late.offset.wrapping_sub(original as u64))
                    }
                    None => within(text)
                        .map(abi::Spot::Text)
                        .or(within(data).map(abi::Spot::Data))
                        .or(within(rodata).map(abi::Spot::Rodata))?,
                };
                let reloc = abi::LateReloc {
                    at: 0,
                    addend: late.addend,
                    anchor: late.anchor,
                    site_of: late.site_of,
                    stub: 0,
                    kind: int(r, offset_of!(abi::LateReloc, kind), 1) as u8,
                    zero: r.get(offset_of!(abi::LateReloc, zero)..)?.first_chunk().copied()?,
                };
                digest = digest.reloc(&reloc, spot, patch);
            }
        }
        Some(digest)
    }
}
