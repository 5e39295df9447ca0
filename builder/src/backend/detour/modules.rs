//! The records of kernel modules: which they are, how their sections are found, and the fields that are filled in when they are here.
//!
//! Input: everything in the patch that refers to a module. Output: what the manifest says of it, and [`abi::HolderRecord`],
//! [`abi::AnchorRecord`], [`abi::LateReloc`], those of one module together. Refused: LP3003.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

use lpbuild_abi as abi;
use object::write::SectionId;

use super::anchors::{self, By, SectionAnchor};
use super::records::c_string;
use crate::bind::Bound;
use crate::codes;
use crate::emit::{Access, Base, Brought, Late, Layout, Writer};
use crate::error::{Place, Problem, Result};
use crate::hash::to_hex;
use crate::holder::{HolderName, ModuleHolder};
use crate::plan::manifest as m;
use crate::plan::{Analysis, ObjectPair};

/// One module that the patch has functions of, or that exports something to one of those.
#[derive(Clone, Debug)]
pub struct Module {
    /// What it is called.
    pub name: HolderName,
    /// Its build id.
    pub build_id: Vec<u8>,
    /// SHA-256 of its file.
    pub sha256: String,
    /// How its sections are found.
    pub anchors: Vec<SectionAnchor>,
    /// Other modules that what the patch has for it refers to.
    pub needs: BTreeSet<HolderName>,
}

/// All of them, by name.
#[derive(Clone, Debug, Default)]
pub struct Modules(Vec<Module>);

/// A field of the expected bytes of a function: which, and where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteField {
    /// Index of the record of the function.
    pub func: u32,
    /// Offset in the expected bytes.
    pub at: u64,
    /// What it holds.
    pub kind: abi::FieldKind,
    /// Something in the section that is meant.
    pub to: u64,
    /// What is meant, less that.
    pub addend: i64,
}

impl Modules {
    /// Finds the sections of every module that something refers to. `addresses`: of old code, and in it, by whose it is.
    ///
    /// # Errors
    /// LP3003.
    pub fn of<'a>(
        analysis: &'a Analysis,
        bound: &Bound<'_>,
        lates: &[Late],
        addresses: impl Iterator<Item = (&'a HolderName, u64)>,
    ) -> Result<Self, Problem> {
        let pairs: &[ObjectPair] = &analysis.pairs;
        let mut wanted: BTreeMap<&HolderName, (&ModuleHolder, BTreeSet<u64>)> = BTreeMap::new();
        let mut needs: BTreeMap<&HolderName, BTreeSet<HolderName>> = BTreeMap::new();
        let lates = lates.iter().map(|l| (&pairs[l.pair.0 as usize].holder, l.to));
        for (by, address) in lates.chain(addresses) {
            let Some(module) = bound.running.module_at(address) else { continue };
            wanted.entry(&module.name).or_insert((module, BTreeSet::new())).1.insert(address);
            if *by != module.name {
                needs.entry(by).or_default().insert(module.name.clone());
            }
        }
        let mut all = Vec::new();
        for (name, (module, addresses)) in wanted {
            let anchors = anchors::find(bound, pairs, module, &addresses)?;
            let sha256 = module.image.module().map_or_else(String::new, |m| m.sha256.clone());
            let needs = needs.remove(name).unwrap_or_default();
            all.push(Module { name: name.clone(), build_id: module.image.build_id().to_vec(), sha256, anchors, needs });
        }
        Self::numbered(all)
    }

    /// A record has a bit for each.
    fn numbered(all: Vec<Module>) -> Result<Self, Problem> {
        if all.len() > abi::MAX_HOLDERS as usize {
            let what =
                format!("the patch concerns {} modules, and at most {} can be told apart", all.len(), abi::MAX_HOLDERS);
            return Err(Problem::new(codes::LP2026, Place::default(), what));
        }
        Ok(Self(all))
    }

    /// Each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Module)> {
        (0u32..).zip(&self.0)
    }

    /// A bit for each module that one needs.
    fn bits(&self, module: &Module) -> u64 {
        self.iter().filter(|(_, m)| module.needs.contains(&m.name)).fold(0, |bits, (i, _)| bits | 1 << i)
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The anchor of the section that has something at an address, counted over all modules, and the distance from that section.
    pub fn find(&self, address: u64) -> Option<(u32, &SectionAnchor, i64)> {
        let all = self.0.iter().flat_map(|m| &m.anchors).zip(0u32..);
        let within = |a: &SectionAnchor| a.address <= address && address - a.address <= a.size;
        let (anchor, index) = all.into_iter().find(|(a, _)| within(a))?;
        Some((index, anchor, address.wrapping_sub(anchor.address).cast_signed()))
    }

    /// As the manifest describes them.
    pub fn describe(&self) -> Vec<m::HolderEntry> {
        let sections = |module: &Module| module.anchors.iter().map(|a| section(a, &module.anchors)).collect();
        let holder = |module: &Module| m::HolderEntry {
            name: module.name.to_string(),
            build_id: to_hex(&module.build_id),
            file_sha256: module.sha256.clone(),
            needs: module.needs.iter().map(HolderName::to_string).collect(),
            sections: sections(module),
        };
        self.0.iter().map(holder).collect()
    }
}

fn section(a: &SectionAnchor, all: &[SectionAnchor]) -> m::HolderSection {
    let by = |by: &str| by.to_owned();
    let named = |n: &anchors::AnchorSymbol| m::SectionSymbol {
        name: n.name.clone(),
        offset: n.offset,
        position: n.position,
        count: n.count,
    };
    let mut out = m::HolderSection {
        name: a.section.clone(),
        size: a.size,
        found: by("symbol"),
        symbol: None,
        witness: None,
        field: None,
    };
    match &a.by {
        By::Module => out.found = by("module"),
        By::Percpu => out.found = by("percpu"),
        By::Symbol(first, second) => {
            out.symbol = Some(named(first));
            out.witness = second.as_ref().map(named);
        }
        By::Field { of, at, delta, .. } => {
            out.found = by("field");
            let of = all.get(*of).map_or_else(String::new, |a| a.section.clone());
            out.field = Some(m::SectionField { section: of, offset: *at, delta: *delta });
        }
    }
    out
}

/// What the records say of modules, for their digest.
#[derive(Debug, Default)]
pub struct Said {
    holders: Vec<(abi::HolderRecord, String)>,
    anchors: Vec<(abi::AnchorRecord, [String; 2])>,
    relocs: Vec<(abi::LateReloc, abi::Spot)>,
}

impl Said {
    /// Goes on with a digest.
    pub fn digest(&self, so_far: abi::Digest, patch: &abi::PatchRecord) -> abi::Digest {
        let holders = self.holders.iter().fold(so_far, |d, (h, name)| d.holder(h, name.as_bytes()));
        let anchors = self
            .anchors
            .iter()
            .fold(holders, |d, (a, [name, witness])| d.anchor(a, name.as_bytes(), witness.as_bytes()));
        self.relocs.iter().fold(anchors, |d, (r, spot)| d.reloc(r, *spot, patch))
    }
    /// How many holders, anchors and relocations there are.
    pub fn counts(&self) -> [u32; 3] {
        [self.holders.len() as u32, self.anchors.len() as u32, self.relocs.len() as u32]
    }
}

/// Writes all of it. `funcs`: numbers of functions and ranges of each module.
///
/// # Errors
/// LP1000: something does not fit together.
pub fn write(
    w: &mut Writer,
    analysis: &Analysis,
    modules: &Modules,
    funcs: &BTreeMap<HolderName, (u32, u32)>,
    sites: &[SiteField],
    layout: &Layout,
) -> Result<Said, Problem> {
    let mut said = Said::default();
    if modules.is_empty() {
        return Ok(said);
    }
    let strings = w.section(abi::SEC_STRINGS, Access::ReadOnly);
    let records = w.section(abi::SEC_HOLDERS, Access::ReadOnly);
    let lates = w.lates().to_vec();
    for (index, module) in modules.iter() {
        let first = said.anchors.len();
        for anchor in &module.anchors {
            write_anchor(w, strings, index, first, anchor, &mut said);
        }
        let n_anchors = module.anchors.len() as u32;
        let own = lates.iter().filter(|l| analysis.pairs[l.pair.0 as usize].holder == module.name);
        let n_relocs = write_relocs(w, modules, module, own, sites, funcs, &mut said)?;
        let (n_funcs, n_ranges) = funcs.get(&module.name).copied().unwrap_or_default();
        let mut build_id = module.build_id.clone();
        let build_id_len = build_id.len().min(abi::MAX_BUILD_ID) as u8;
        build_id.resize(abi::MAX_BUILD_ID, 0);
        let pieces = [Brought::Data, Brought::Bss, Brought::Rodata].map(|b| w.extent(&b.section(&module.name)));
        let kept = abi::Kept::ALL.map(|kept| layout.kept.get(&(module.name.clone(), kept)));
        let [jumps, calls, sealed] = kept.map(|k| k.map_or((0, 0), |(_, r)| (8 + r.start, 8 + r.end)));
        let record = abi::HolderRecord {
            name: 0,
            data: said_start(pieces[0]),
            data_end: said_end(pieces[0]),
            bss: said_start(pieces[1]),
            bss_end: said_end(pieces[1]),
            rodata: said_start(pieces[2]),
            rodata_end: said_end(pieces[2]),
            jumps: jumps.0,
            jumps_end: jumps.1,
            calls: calls.0,
            calls_end: calls.1,
            sealed: sealed.0,
            sealed_end: sealed.1,
            needs: modules.bits(module),
            build_id: build_id.clone().try_into().unwrap_or_default(),
            n_funcs,
            n_ranges,
            n_anchors,
            n_relocs,
            build_id_len,
            zero: [0; 7],
        };
        let mut r = vec![0; offset_of!(abi::HolderRecord, needs)];
        r.extend_from_slice(&record.needs.to_le_bytes());
        r.extend_from_slice(&build_id);
        for n in [n_funcs, n_ranges, n_anchors, n_relocs] {
            r.extend_from_slice(&n.to_le_bytes());
        }
        r.push(build_id_len);
        r.resize(size_of::<abi::HolderRecord>(), 0);
        let at = w.append(records, &r, 8);
        let name = c_string(w, strings, module.name.as_str());
        w.pointer(records, at + offset_of!(abi::HolderRecord, name) as u64, &Base::Section(strings), name as i64);
        let fields = [
            offset_of!(abi::HolderRecord, data),
            offset_of!(abi::HolderRecord, bss),
            offset_of!(abi::HolderRecord, rodata),
        ];
        for (field, piece) in fields.into_iter().zip(pieces) {
            let Some((section, len)) = piece else { continue };
            w.pointer(records, at + field as u64, &Base::Section(section), 0);
            w.pointer(records, at + field as u64 + 8, &Base::Section(section), len as i64);
        }
        for (which, kept) in abi::Kept::ALL.into_iter().zip(kept) {
            let Some((section, range)) = kept else { continue };
            for (field, to) in [(which.fields().0, range.start), (which.fields().1, range.end)] {
                w.pointer(records, at + field as u64, &Base::Section(*section), to as i64);
            }
        }
        said.holders.push((record, module.name.to_string()));
    }
    Ok(said)
}

/// Of a piece only its length counts, and whether it is there.
fn said_start(piece: Option<(SectionId, u64)>) -> u64 {
    if piece.is_some() { 8 } else { 0 }
}

fn said_end(piece: Option<(SectionId, u64)>) -> u64 {
    piece.map_or(0, |(_, len)| 8 + len)
}

fn write_anchor(w: &mut Writer, strings: SectionId, owner: u32, first: usize, anchor: &SectionAnchor, said: &mut Said) {
    let section = w.section(abi::SEC_ANCHORS, Access::ReadOnly);
    let mut a = abi::AnchorRecord {
        name: 0,
        witness: 0,
        delta: 0,
        witness_delta: 0,
        at: 0,
        owner,
        position: 0,
        count: 0,
        witness_position: 0,
        witness_count: 0,
        of: 0,
        size: anchor.size as u32,
        kind: abi::AnchorKind::Symbol as u8,
        field: 0,
        region: anchor.region as u8,
        zero: 0,
    };
    let mut names = [String::new(), String::new()];
    match &anchor.by {
        By::Module => a.kind = abi::AnchorKind::Module as u8,
        By::Percpu => a.kind = abi::AnchorKind::Percpu as u8,
        By::Symbol(n, second) => {
            (a.delta, a.position, a.count) = (n.offset.cast_signed(), n.position, n.count);
            names[0].clone_from(&n.name);
            if let Some(n) = second {
                (a.witness_delta, a.witness_position, a.witness_count) = (n.offset.cast_signed(), n.position, n.count);
                names[1].clone_from(&n.name);
            }
        }
        By::Field { of, at, kind, delta } => {
            a.kind = abi::AnchorKind::Field as u8;
            (a.of, a.at, a.field, a.delta) = ((first + of) as u32, at.cast_signed(), *kind as u8, *delta);
        }
    }
    let mut r = vec![0; 16];
    for n in [a.delta, a.witness_delta, a.at] {
        r.extend_from_slice(&n.to_le_bytes());
    }
    for n in [a.owner, a.position, a.count, a.witness_position, a.witness_count, a.of, a.size] {
        r.extend_from_slice(&n.to_le_bytes());
    }
    r.extend_from_slice(&[a.kind, a.field, a.region, a.zero]);
    let at = w.append(section, &r, 8);
    for (field, name) in
        [(offset_of!(abi::AnchorRecord, name), &names[0]), (offset_of!(abi::AnchorRecord, witness), &names[1])]
    {
        if !name.is_empty() {
            let text = c_string(w, strings, name);
            w.pointer(section, at + field as u64, &Base::Section(strings), text as i64);
        }
    }
    said.anchors.push((a, names));
}

/// A relocation on its way into the records: where it writes, as the digest counts and as the file does.
struct Placed {
    order: (u8, u64),
    spot: abi::Spot,
    section: SectionId,
    offset: u64,
    site_of: u32,
    kind: abi::FieldKind,
    to: u64,
    addend: i64,
}

fn write_relocs<'l>(
    w: &mut Writer,
    modules: &Modules,
    module: &Module,
    lates: impl Iterator<Item = &'l Late>,
    sites: &[SiteField],
    funcs: &BTreeMap<HolderName, (u32, u32)>,
    said: &mut Said,
) -> Result<u32, Problem> {
    let odd = |what: &str| Problem::new(codes::LP1000, Place::object(module.name.as_str()), what);
    let text = w.section(abi::SEC_TEXT, Access::Code);
    let records = w.section(abi::SEC_FUNCS, Access::ReadOnly);
    let data = w.extent(&Brought::Data.section(&module.name)).map(|d| d.0);
    let rodata = w.extent(&Brought::Rodata.section(&module.name)).map(|d| d.0);
    let mut all = Vec::new();
    for l in lates {
        let (rank, spot) = match l.section {
            s if s == text => (0, abi::Spot::Text(l.offset)),
            s if Some(s) == data => (1, abi::Spot::Data(l.offset)),
            s if Some(s) == rodata => (2, abi::Spot::Rodata(l.offset)),
            _ => return Err(odd("a field to be filled in later is in none of the sections for it")),
        };
        let Late { section, offset, kind, to, addend, .. } = *l;
        all.push(Placed { order: (rank, offset), spot, section, offset, site_of: 0, kind, to, addend });
    }
    // Functions of one module lie together.
    let before = funcs.range(..&module.name).map(|(_, n)| n.0).sum::<u32>();
    let own = before..before + funcs.get(&module.name).map_or(0, |n| n.0);
    for s in sites.iter().filter(|s| own.contains(&s.func)) {
        let original = u64::from(s.func) * size_of::<abi::FuncRecord>() as u64
            + offset_of!(abi::FuncRecord, original) as u64
            + s.at;
        all.push(Placed {
            order: (3, original),
            spot: abi::Spot::Site(s.at),
            section: records,
            offset: original,
            site_of: s.func + 1,
            kind: s.kind,
            to: s.to,
            addend: s.addend,
        });
    }
    all.sort_by_key(|p| p.order);
    let section = w.section(abi::SEC_RELOCS, Access::ReadOnly);
    for p in &all {
        let (anchor, _, distance) =
            modules.find(p.to).ok_or_else(|| odd("nothing is known of what a field refers to"))?;
        let addend = distance.wrapping_add(p.addend);
        if i32::try_from(addend).is_err() {
            return Err(odd("a field refers to something that is too far from its section"));
        }
        let r = abi::LateReloc { at: 0, addend, anchor, site_of: p.site_of, stub: 0, kind: p.kind as u8, zero: [0; 7] };
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&r.addend.to_le_bytes());
        bytes.extend_from_slice(&r.anchor.to_le_bytes());
        bytes.extend_from_slice(&r.site_of.to_le_bytes());
        bytes.extend_from_slice(&r.stub.to_le_bytes());
        bytes.push(r.kind);
        bytes.resize(size_of::<abi::LateReloc>(), 0);
        let at = w.append(section, &bytes, 8);
        w.pointer(section, at, &Base::Section(p.section), p.offset as i64);
        said.relocs.push((r, p.spot));
    }
    Ok(all.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bit_for_each_module_that_one_needs() {
        let name = |i: u32| HolderName::Module(format!("m{i:02}").into());
        let module = |i: u32| Module {
            name: name(i),
            build_id: Vec::new(),
            sha256: String::new(),
            anchors: Vec::new(),
            needs: BTreeSet::from([name(0), name(i + 1)]),
        };
        let made = |n: u32| Modules::numbered((0..n).map(module).collect());
        let most = made(abi::MAX_HOLDERS).unwrap();
        for (i, m) in most.iter() {
            let next = if i + 1 < abi::MAX_HOLDERS { 2 << i } else { 0 };
            assert_eq!(most.bits(m), 1 | next, "{i}");
        }
        let refused = made(abi::MAX_HOLDERS + 1).unwrap_err().to_string();
        assert!(refused.contains("LP2026") && refused.contains("at most 63"), "{refused}");
    }
}
