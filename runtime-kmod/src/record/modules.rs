//! The records of kernel modules: functions whose address is known when the module is here, and fields that are filled in then.
//!
//! Whatever they hold, the runtime writes nothing but the carried code and what the patch brings for the module, and each field
//! once.

use core::ops::Range;

use lpbuild_abi::{
    AnchorKind, AnchorRecord, Digest, FieldKind, HolderRecord, JUMP_ABS64_LEN, Kept, LateReloc, MAX_BUILD_ID, Region,
    Spot,
};

use super::{Checked, MAX_MODULE, MAX_SYMBOL, Memory, Patch, string};
use crate::refusal::Refusal;

/// What belongs to one holder, as places in the arrays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Functions.
    pub funcs: Range<usize>,
    /// Ranges.
    pub ranges: Range<usize>,
    /// Anchors.
    pub anchors: Range<usize>,
    /// Relocations.
    pub relocs: Range<usize>,
}

impl<'a> Patch<'a> {
    /// What belongs to holder `i`.
    pub fn run(&self, i: usize) -> Run {
        let r = self.record;
        let mut run =
            Run { funcs: 0..r.n_kernel_funcs as usize, ranges: 0..r.n_kernel_ranges as usize, ..Run::default() };
        for h in self.holders.iter().take(i + 1) {
            let behind = |last: &Range<usize>, n: u32| last.end..last.end + n as usize;
            run = Run {
                funcs: behind(&run.funcs, h.n_funcs),
                ranges: behind(&run.ranges, h.n_ranges),
                anchors: behind(&run.anchors, h.n_anchors),
                relocs: behind(&run.relocs, h.n_relocs),
            };
        }
        run
    }
    /// The relocations of a holder.
    pub fn relocs_of(&self, run: &Run) -> &'a [LateReloc] {
        self.relocs.get(run.relocs.clone()).unwrap_or(&[])
    }
    /// Name of holder `i`; empty when there is none.
    pub fn holder_name(&self, i: usize) -> &'a [u8] {
        let Some(h) = self.holders.get(i) else { return &[] };
        string(h.name, MAX_MODULE, &Checked).unwrap_or(&[])
    }
    /// The build id expected of a module.
    pub fn holder_id(&self, i: usize) -> &'a [u8] {
        let Some(h) = self.holders.get(i) else { return &[] };
        h.build_id.get(..usize::from(h.build_id_len)).unwrap_or(&[])
    }
    /// The names by which an anchor is found: of its symbol, and of the second.
    pub fn anchor_names(&self, a: &AnchorRecord) -> [&'a [u8]; 2] {
        [a.name, a.witness].map(|at| if at == 0 { &[] } else { string(at, MAX_SYMBOL, &Checked).unwrap_or(&[]) })
    }
}

/// Kind of an anchor.
pub fn anchor_kind(a: &AnchorRecord) -> Option<AnchorKind> {
    AnchorKind::ALL.into_iter().find(|k| *k as u8 == a.kind)
}

/// Region of an anchor.
pub fn region(a: &AnchorRecord) -> Option<Region> {
    Region::ALL.into_iter().find(|r| *r as u8 == a.region)
}

/// Kind of a field.
pub fn field_kind(number: u8) -> Option<FieldKind> {
    FieldKind::ALL.into_iter().find(|k| *k as u8 == number)
}

/// Goes on with a digest: holders, anchors, relocations.
pub(super) fn digest(patch: &Patch<'_>, so_far: Digest) -> Digest {
    let holders = patch.holders.iter().enumerate().fold(so_far, |d, (i, h)| d.holder(h, patch.holder_name(i)));
    let anchors = patch.anchors.iter().fold(holders, |d, a| {
        let [name, witness] = patch.anchor_names(a);
        d.anchor(a, name, witness)
    });
    patch.holders.iter().enumerate().fold(anchors, |d, (i, h)| {
        let relocs = patch.relocs_of(&patch.run(i)).iter();
        relocs.fold(d, |d, r| d.reloc(r, spot(patch, h, r).unwrap_or(Spot::Text(0)), patch.record))
    })
}

/// Where a relocation of a holder writes; nothing when it may not write there.
pub(crate) fn spot(patch: &Patch<'_>, h: &HolderRecord, r: &LateReloc) -> Option<Spot> {
    let width = field_kind(r.kind)?.width();
    let end = r.at.checked_add(width)?;
    let within = |start: u64, stop: u64| (start != 0 && start <= r.at && end <= stop).then(|| r.at - start);
    if let Some(func) = r.site_of.checked_sub(1) {
        let f = patch.funcs.get(func as usize)?;
        let original = f.original.as_ptr() as u64;
        return within(original, original + u64::from(f.site_size)).map(Spot::Site);
    }
    let text = within(patch.record.text_start, patch.record.text_end).map(Spot::Text);
    text.or(within(h.data, h.data_end).map(Spot::Data)).or(within(h.rodata, h.rodata_end).map(Spot::Rodata))
}

fn bad<T>(rule: &'static str) -> Result<T, Refusal> {
    Err(Refusal::BadRecord(rule))
}

/// All of them.
pub(super) fn check(patch: &Patch<'_>, memory: &impl Memory) -> Result<(), Refusal> {
    let record = patch.record;
    let sum = |kernel: u32, of: fn(&HolderRecord) -> u32| {
        patch.holders.iter().fold(u64::from(kernel), |sum, h| sum + u64::from(of(h)))
    };
    let complete = sum(record.n_kernel_funcs, |h| h.n_funcs) == patch.funcs.len() as u64
        && sum(record.n_kernel_ranges, |h| h.n_ranges) == patch.ranges.len() as u64
        && sum(0, |h| h.n_anchors) == patch.anchors.len() as u64
        && sum(0, |h| h.n_relocs) == patch.relocs.len() as u64;
    if !complete {
        return bad("the sums of what belongs to each module");
    }
    let of_kernel = patch.kernel_funcs().iter().all(|f| f.anchor == 0)
        && patch.kernel_ranges().iter().all(|r| r.anchor == 0 && r.func < record.n_kernel_funcs);
    if !of_kernel {
        return bad("a function of the kernel in a module");
    }
    for (i, h) in patch.holders.iter().enumerate() {
        holder(patch, i, h, memory)?;
        let run = patch.run(i);
        functions(patch, &run)?;
        for at in run.anchors.clone() {
            anchor(patch, i, &run, at, memory)?;
        }
        relocs(patch, i, h, &run)?;
    }
    Ok(())
}

/// The pieces of memory that a patch brings for a module.
pub(crate) fn pieces(h: &HolderRecord) -> [(u64, u64); 3] {
    [(h.data, h.data_end), (h.bss, h.bss_end), (h.rodata, h.rodata_end)]
}

fn holder(patch: &Patch<'_>, i: usize, h: &HolderRecord, memory: &impl Memory) -> Result<(), Refusal> {
    let Some(name) = string(h.name, MAX_MODULE, memory).filter(|n| h.name != 0 && !n.is_empty()) else {
        return bad("a string without end");
    };
    // Each is somebody else, and was looked at before.
    if (0..i).any(|j| patch.holder_name(j) == name) {
        return bad("a module named twice");
    }
    let len = usize::from(h.build_id_len);
    if len == 0 || len > MAX_BUILD_ID {
        return bad("length of the build id");
    }
    if h.build_id.iter().skip(len).any(|b| *b != 0) {
        return bad("bytes behind the build id");
    }
    if h.zero != [0; 7] {
        return bad("bytes of no use");
    }
    if h.needs.checked_shr(patch.record.n_holders).unwrap_or(0) != 0 || h.needs >> i & 1 != 0 {
        return bad("a module that is needed and is none of the others");
    }
    let nothing = h.n_funcs == 0;
    if nothing && (h.n_ranges != 0 || h.n_relocs != 0 || h.needs != 0) {
        return bad("something for a module without functions");
    }
    let r = patch.record;
    for (n, &(start, end)) in pieces(h).iter().enumerate() {
        if start == 0 && end == 0 {
            continue;
        }
        if nothing || start == 0 || start >= end || !start.is_multiple_of(8) || !memory.holds(start, end - start) {
            return bad("something outside of the module, that it brings for another");
        }
        // What is written over and over is nothing else.
        let array = |at: u64, n: usize, size: usize| (at, at.wrapping_add((n * size) as u64));
        let records = [
            (r.text_start, r.text_end),
            array(core::ptr::from_ref(r) as u64, 1, size_of_val(r)),
            array(r.funcs, patch.funcs.len(), size_of::<lpbuild_abi::FuncRecord>()),
            array(r.ranges, patch.ranges.len(), size_of::<lpbuild_abi::RangeRecord>()),
            array(r.holders, patch.holders.len(), size_of::<HolderRecord>()),
            array(r.anchors, patch.anchors.len(), size_of::<AnchorRecord>()),
            array(r.relocs, patch.relocs.len(), size_of::<LateReloc>()),
        ];
        let before = patch.holders.iter().take(i).flat_map(pieces).filter(|p| p.0 != 0);
        let same = pieces(h).into_iter().take(n).filter(|p| p.0 != 0);
        if records.into_iter().chain(before).chain(same).any(|(s, e)| s < end && start < e) {
            return bad("something that is brought for two");
        }
    }
    Ok(())
}

fn functions(patch: &Patch<'_>, run: &Run) -> Result<(), Refusal> {
    // The section of a function or range of the holder.
    let section = |anchor: u32| {
        let at = (anchor as usize).checked_sub(1).filter(|at| run.anchors.contains(at))?;
        patch.anchors.get(at).filter(|a| a.region == Region::Text as u8)
    };
    for f in patch.funcs.get(run.funcs.clone()).unwrap_or(&[]) {
        let end = f.old.checked_add(u64::from(f.old_size));
        let site = super::site_addr(f).checked_add(u64::from(f.site_size));
        let fits = section(f.anchor).zip(end).zip(site).is_some_and(|((a, end), site)| end.max(site) <= a.size.into());
        if !fits {
            return bad("a function outside of its module's code");
        }
    }
    for r in patch.ranges.get(run.ranges.clone()).unwrap_or(&[]) {
        let end = r.start.checked_add(u64::from(r.len));
        let fits = section(r.anchor).zip(end).is_some_and(|(a, end)| end <= a.size.into());
        if !fits || !run.funcs.contains(&(r.func as usize)) {
            return bad("a range outside its function's code");
        }
    }
    Ok(())
}

fn anchor(patch: &Patch<'_>, i: usize, run: &Run, at: usize, memory: &impl Memory) -> Result<(), Refusal> {
    let Some(a) = patch.anchors.get(at) else { return bad("number of anchors") };
    let (Some(kind), Some(region)) = (anchor_kind(a), region(a)) else { return bad("unknown anchor") };
    if a.zero != 0 {
        return bad("bytes of no use");
    }
    if a.owner as usize != i || a.size == 0 || (kind == AnchorKind::Percpu) != (region == Region::Percpu) {
        return bad("a section of another module");
    }
    if kind == AnchorKind::Module && region != Region::Data {
        return bad("a section of another module");
    }
    let by_symbol = kind == AnchorKind::Symbol;
    let symbol = |name: u64, delta: i64, position: u32, count: u32| {
        let within = (0..=i64::from(a.size)).contains(&delta) && position < count;
        within && name != 0 && string(name, MAX_SYMBOL, memory).is_some_and(|n| !n.is_empty())
    };
    let no_symbol = |name: u64, position: u32, count: u32| name == 0 && position == 0 && count == 0;
    let first =
        if by_symbol { symbol(a.name, a.delta, a.position, a.count) } else { no_symbol(a.name, a.position, a.count) };
    let second = if by_symbol && a.witness != 0 {
        symbol(a.witness, a.witness_delta, a.witness_position, a.witness_count)
    } else {
        no_symbol(a.witness, a.witness_position, a.witness_count) && a.witness_delta == 0
    };
    if !first || !second {
        return bad("a symbol by which a section is found");
    }
    if kind == AnchorKind::Field {
        let of = a.of as usize;
        let holds = patch.anchors.get(of).filter(|_| run.anchors.contains(&of) && of < at);
        let holds = holds.filter(|h| h.region != Region::Percpu as u8);
        let Some((section, field)) = holds.zip(field_kind(a.field)) else {
            return bad("a field by which a section is found");
        };
        let end = a.at.checked_add(field.width() as i64).filter(|_| a.at >= 0);
        if end.is_none_or(|end| end > section.size.into()) || i32::try_from(a.delta).is_err() {
            return bad("a field by which a section is found");
        }
        return Ok(());
    }
    if a.at != 0 || a.of != 0 || a.field != 0 || (!by_symbol && a.delta != 0) {
        return bad("bytes of no use");
    }
    Ok(())
}

fn relocs(patch: &Patch<'_>, i: usize, h: &HolderRecord, run: &Run) -> Result<(), Refusal> {
    let all = patch.relocs_of(run);
    // Of code, data, constants and sites: which of them comes first in memory, the loader decides.
    let mut last = [0; 4];
    for r in all {
        let Some(kind) = field_kind(r.kind) else { return bad("unknown field") };
        if r.zero != [0; 7] {
            return bad("bytes of no use");
        }
        if r.site_of != 0 && !run.funcs.contains(&(r.site_of as usize - 1)) {
            return bad("a field at a site of another module");
        }
        let Some(spot) = spot(patch, h, r) else { return bad("a field outside of what is carried") };
        let last = match spot {
            Spot::Text(_) => &mut last[0],
            Spot::Data(_) => &mut last[1],
            Spot::Rodata(_) => &mut last[2],
            Spot::Site(_) => &mut last[3],
        };
        if r.at < *last {
            return bad("the order of the fields");
        }
        *last = r.at + kind.width();
        let Some(a) = patch.anchors.get(r.anchor as usize) else { return bad("a field that refers to nothing") };
        let known = a.owner as usize == i || h.needs.checked_shr(a.owner).unwrap_or(0) & 1 != 0;
        if !known || i32::try_from(r.addend).is_err() {
            return bad("a field that refers to nothing");
        }
        if r.stub != 0 {
            let end = r.stub.checked_add(JUMP_ABS64_LEN as u64);
            let carried = r.stub >= patch.record.text_start && end.is_some_and(|end| end <= patch.record.text_end);
            if kind != FieldKind::Plt32 || !carried || matches!(spot, Spot::Site(_)) {
                return bad("a jump for a field that needs none");
            }
        }
    }
    for kept in Kept::ALL {
        entries(patch, i, h, all, kept)?;
    }
    // One view for each, and nobody else's code is looked at through it.
    let (start, end) = text_of(patch, h, run);
    for j in 0..i {
        let Some(other) = patch.holders.get(j) else { continue };
        let (s, e) = text_of(patch, other, &patch.run(j));
        if start < e && s < end {
            return bad("carried code of two modules that is mixed");
        }
    }
    Ok(())
}

/// Whole entries among the data, in each of which the key is all that is filled in, and is a variable of the module: the kernel
/// writes to it. No two tables have a byte in common: their keys would not be in the same places, or not of the same kind.
fn entries(patch: &Patch<'_>, i: usize, h: &HolderRecord, relocs: &[LateReloc], kept: Kept) -> Result<(), Refusal> {
    let (start, end) = kept.of(h);
    if start == 0 && end == 0 {
        return Ok(());
    }
    let inside = h.data != 0 && h.data <= start && start < end && end <= h.data_end;
    if !inside || !start.is_multiple_of(8) || !(end - start).is_multiple_of(kept.entry_len() as u64) {
        return bad("jumps of keys, or static calls, outside of what is brought for the module");
    }
    let (key, kind) = kept.key();
    let mut keys = (start..end).step_by(kept.entry_len()).map(|at| at + key as u64);
    let within = |r: &&LateReloc| {
        let behind = r.at.saturating_add(field_kind(r.kind).map_or(0, FieldKind::width));
        r.site_of == 0 && behind > start && r.at < end
    };
    for r in relocs.iter().filter(within) {
        let own = patch.anchors.get(r.anchor as usize).filter(|a| a.owner as usize == i);
        let known = own.is_some_and(|a| a.region == kept.region() as u8);
        if keys.next() != Some(r.at) || r.kind != kind as u8 || !known {
            return bad("a jump, or a static call, of no key of the module");
        }
    }
    if keys.next().is_some() { bad("a jump, or a static call, of no key of the module") } else { Ok(()) }
}

/// The carried code with fields or jumps of a holder: first byte, and one past the last; equal, if there is none.
pub(crate) fn text_of(patch: &Patch<'_>, h: &HolderRecord, run: &Run) -> (u64, u64) {
    let mut span = (u64::MAX, 0);
    let mut add = |start: u64, len: u64| span = (span.0.min(start), span.1.max(start + len));
    for r in patch.relocs_of(run) {
        if matches!(spot(patch, h, r), Some(Spot::Text(_))) {
            add(r.at, field_kind(r.kind).map_or(0, FieldKind::width));
        }
        if r.stub != 0 {
            add(r.stub, JUMP_ABS64_LEN as u64);
        }
    }
    if span.0 < span.1 { span } else { (0, 0) }
}
