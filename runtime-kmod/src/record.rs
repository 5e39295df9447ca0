//! The records of the patch, validated once. Everything behind this module can rely on them. Those of kernel modules: `modules`.

mod modules;

use core::slice;

use lpbuild_abi::{
    ABI_VERSION, AnchorRecord, Callback, DISPATCH_LEN, DataRecord, Digest, FLAG_ONESHOT, FLAGS, FuncRecord,
    HolderRecord, JUMP_ABS64_LEN, JUMP_REL32_LEN, JumpKind, LateReloc, MAGIC, MAX_BUILD_ID, MAX_DATA, MAX_HOLDERS,
    MAX_RELOCS, MAX_SITE, Mode, PatchRecord, RESUME_SLOT, RangeRecord,
};

pub use modules::{Run, anchor_kind, field_kind, region};
pub(crate) use modules::{pieces, text_of};

use crate::refusal::Refusal;

/// The most functions or ranges accepted: a bound for damaged records, not a limit of the design.
pub const MAX_RECORDS: u32 = 4_096;
/// The most patches that one can name.
pub const MAX_OTHERS: u32 = 16;
/// A site lies less than this behind the start of its function: 16 bits of offset, 8 of size.
const SITE_REACH: u64 = 0x1_0000 + 0x100;
/// The longest patch name in bytes.
pub const MAX_NAME: usize = 48;
/// The longest name of a kernel module in bytes (`MODULE_NAME_LEN` - 1, include/linux/moduleparam.h).
pub const MAX_MODULE: usize = 55;
/// The longest function name in bytes (`KSYM_NAME_LEN` - 1 of 6.1, include/linux/kallsyms.h).
pub const MAX_SYMBOL: usize = 511;

/// The module's own memory.
pub trait Memory {
    /// Does the whole piece belong to one part of it, code or data, that stays when the module has been set up?
    fn holds(&self, addr: u64, len: u64) -> bool;
}

/// A valid patch.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a> {
    /// The record itself.
    pub record: &'a PatchRecord,
    /// Replaced functions, at least one. The kernel's come first.
    pub funcs: &'a [FuncRecord],
    /// Old code no task may be inside; every one belongs to a function.
    pub ranges: &'a [RangeRecord],
    /// Constants that change in their place.
    pub data: &'a [DataRecord],
    /// Kernel modules.
    pub holders: &'a [HolderRecord],
    /// Their sections.
    pub anchors: &'a [AnchorRecord],
    /// Fields that are filled in when they are here.
    pub relocs: &'a [LateReloc],
    /// Name without the NUL.
    pub name: &'a [u8],
    /// Version without the NUL.
    pub version: &'a [u8],
}

impl<'a> Patch<'a> {
    /// Validates a record: whatever it holds, nothing outside of `memory` is read.
    ///
    /// # Safety
    /// What `memory` holds can be read for `'a`, and does not change.
    pub unsafe fn new(record: &'a PatchRecord, memory: &impl Memory) -> Result<Self, Refusal> {
        // SAFETY: the caller vouches for the memory.
        let patch = unsafe { Self::unsealed(record, memory) }?;
        if patch.digest() == record.digest { Ok(patch) } else { Err(Refusal::BadRecord("another digest")) }
    }

    /// The same without a look at the digest.
    ///
    /// # Safety
    /// As of [`Patch::new`].
    pub unsafe fn unsealed(record: &'a PatchRecord, memory: &impl Memory) -> Result<Self, Refusal> {
        let bad = |rule| Err(Refusal::BadRecord(rule));
        if record.magic != MAGIC {
            return bad("no lpbuild patch");
        }
        if record.abi_version != ABI_VERSION {
            return bad("another version of the records");
        }
        if mode(record.mode).is_none() {
            return bad("unknown mode");
        }
        if record.flags & !FLAGS != 0 {
            return bad("unknown flags");
        }
        if record.build_id_len == 0 || usize::from(record.build_id_len) > MAX_BUILD_ID {
            return bad("length of the build id");
        }
        if record.deadline_ms == 0 {
            return bad("a deadline of 0 ms");
        }
        if record.patience_ms == 0 {
            return bad("a patience of 0 ms");
        }
        if record.n_funcs > MAX_RECORDS || record.n_ranges > MAX_RECORDS || record.n_data > MAX_RECORDS {
            return bad("number of functions, ranges or constants");
        }
        // A patch that replaces nothing is there for its constants or callbacks.
        let other_use = record.n_data != 0 || record.flags & !FLAG_ONESHOT != 0;
        if record.n_funcs == 0 && (record.n_ranges != 0 || !other_use) {
            return bad("no functions");
        }
        if record.funcs == 0 || record.name == 0 || record.version == 0 || (record.ranges == 0 && record.n_ranges != 0)
        {
            return bad("a missing address");
        }
        if record.n_after > MAX_OTHERS || record.n_replaces > MAX_OTHERS {
            return bad("number of other patches");
        }
        if (record.after == 0 && record.n_after != 0) || (record.replaces == 0 && record.n_replaces != 0) {
            return bad("a missing address");
        }
        if record.n_holders > MAX_HOLDERS || record.n_anchors > MAX_RECORDS || record.n_relocs > MAX_RELOCS {
            return bad("number of modules, of their sections, or of fields");
        }
        // What means nothing is zero: nothing else would notice what happened to it.
        let late = [
            (record.holders, record.n_holders),
            (record.anchors, record.n_anchors),
            (record.relocs, record.n_relocs),
            (record.data, record.n_data),
        ];
        if late.iter().any(|&(at, n)| at == 0 && n != 0) {
            return bad("a missing address");
        }
        if late.iter().any(|&(at, n)| at != 0 && n == 0) {
            return bad("an address of nothing");
        }
        if late.iter().any(|(at, _)| !at.is_multiple_of(8)) {
            return bad("a misaligned array");
        }
        if (record.after != 0 && record.n_after == 0) || (record.replaces != 0 && record.n_replaces == 0) {
            return bad("an address of nothing");
        }
        if record.build_id.iter().skip(record.build_id_len.into()).any(|b| *b != 0) {
            return bad("bytes behind the build id");
        }
        if !record.after.is_multiple_of(8) || !record.replaces.is_multiple_of(8) {
            return bad("a misaligned array");
        }
        let misaligned = |at: u64, n: u32| n != 0 && !at.is_multiple_of(8);
        if misaligned(record.funcs, record.n_funcs) || misaligned(record.ranges, record.n_ranges) {
            return bad("a misaligned array");
        }
        if record.text_start > record.text_end || record.notes_start > record.notes_end {
            return bad("an inverted range");
        }
        let holds = |addr: u64, n: u32, size: usize| n == 0 || memory.holds(addr, u64::from(n) * size as u64);
        if !holds(record.funcs, record.n_funcs, size_of::<FuncRecord>())
            || !holds(record.ranges, record.n_ranges, size_of::<RangeRecord>())
            || !holds(record.after, record.n_after, size_of::<u64>())
            || !holds(record.replaces, record.n_replaces, size_of::<u64>())
            || !holds(record.holders, record.n_holders, size_of::<HolderRecord>())
            || !holds(record.anchors, record.n_anchors, size_of::<AnchorRecord>())
            || !holds(record.relocs, record.n_relocs, size_of::<LateReloc>())
            || !holds(record.data, record.n_data, size_of::<DataRecord>())
        {
            return bad("an array outside of the module");
        }
        let code = record.text_end - record.text_start;
        if code == 0 || !memory.holds(record.text_start, code) {
            return bad("code outside of the module");
        }
        // SAFETY: the arrays are in the module; counts were bounded, null and alignment checked above.
        let (funcs, ranges) = unsafe { (array(record.funcs, record.n_funcs), array(record.ranges, record.n_ranges)) };
        // SAFETY: as above.
        let (holders, anchors) =
            unsafe { (array(record.holders, record.n_holders), array(record.anchors, record.n_anchors)) };
        // SAFETY: as above.
        let (relocs, data) = unsafe { (array(record.relocs, record.n_relocs), array(record.data, record.n_data)) };
        let (name, version) = (string(record.name, MAX_NAME, memory), string(record.version, 32, memory));
        let (Some(name), Some(version)) = (name, version) else {
            return bad("a string without end");
        };
        let patch = Self { record, funcs, ranges, data, holders, anchors, relocs, name, version };
        let others = patch.other_addresses();
        if !others.clone().all(|a| a != 0 && string(a, MAX_NAME, memory).is_some()) {
            return bad("a string without end");
        }
        for f in funcs {
            patch.check_func(f)?;
            if string(f.name, MAX_SYMBOL, memory).is_none() {
                return bad("a string without end");
            }
        }
        for r in ranges {
            if r.func >= record.n_funcs || r.len == 0 || r.start.checked_add(u64::from(r.len)).is_none() {
                return bad("a range outside its function's code");
            }
            if r.zero != 0 {
                return bad("bytes of no use");
            }
        }
        patch.check_data(memory)?;
        modules::check(&patch, memory)?;
        // A function whose old code is not guarded could be switched under a task that is inside it.
        for i in 0..record.n_funcs {
            if !ranges.iter().any(|r| r.func == i && covers(r, &funcs[i as usize])) {
                return bad("a function without a range");
            }
        }
        // Two jumps into the same bytes would each restore the other's.
        for (i, a) in funcs.iter().enumerate() {
            if funcs.iter().skip(i + 1).any(|b| overlap(a, b)) {
                return bad("overlapping jump sites");
            }
        }
        Ok(patch)
    }

    /// What [`PatchRecord::digest`] has to be.
    pub fn digest(&self) -> u64 {
        let r = self.record;
        let patch = Digest::default().patch(r, self.name, self.version);
        let others = (0..self.others()).fold(patch, |d, i| d.text(self.other_name(i)));
        let funcs = self.funcs.iter().enumerate().fold(others, |d, (i, f)| d.func(f, self.func_name(i), r));
        let ranges = self.ranges.iter().fold(funcs, |d, range| d.range(range, r));
        let data = self.data.iter().enumerate().fold(ranges, |d, (i, data)| d.data(data, self.data_name(i), r));
        modules::digest(self, data).finish()
    }

    fn check_data(&self, memory: &impl Memory) -> Result<(), Refusal> {
        let bad = |rule| Err(Refusal::BadRecord(rule));
        for (i, d) in self.data.iter().enumerate() {
            if d.len == 0 || d.len > MAX_DATA || d.addr == 0 || d.addr.checked_add(d.len.into()).is_none() {
                return bad("address or length of a constant");
            }
            if d.zero != 0 {
                return bad("bytes of no use");
            }
            if !memory.holds(d.old, d.len.into()) || !memory.holds(d.new, d.len.into()) {
                return bad("content of a constant outside of the module");
            }
            if d.name == 0 || string(d.name, MAX_SYMBOL, memory).is_none() {
                return bad("a string without end");
            }
            let apart = |o: &DataRecord| d.addr >= o.addr + u64::from(o.len) || o.addr >= d.addr + u64::from(d.len);
            if !self.data.iter().take(i).all(apart) {
                return bad("overlapping constants");
            }
        }
        Ok(())
    }

    fn check_func(&self, f: &FuncRecord) -> Result<(), Refusal> {
        let bad = |rule| Err(Refusal::BadRecord(rule));
        let Some(kind) = jump_kind(f) else { return bad("unknown jump") };
        let size = usize::from(f.site_size);
        if f.single > 1 {
            return bad("number of instructions of a jump site");
        }
        if size < jump_len(kind) || size > MAX_SITE {
            return bad("size of a jump site");
        }
        if f.original.iter().skip(size).any(|b| *b != 0) {
            return bad("bytes behind a jump site");
        }
        if f.name == 0 || (f.anchor == 0 && f.old == 0) || f.old.checked_add(SITE_REACH).is_none() {
            return bad("address of a function");
        }
        if f.zero != 0 {
            return bad("bytes of no use");
        }
        let inside = f.new >= self.record.text_start
            && f.new.checked_add(u64::from(f.new_size)).is_some_and(|end| end <= self.record.text_end);
        if !inside || f.new_size == 0 {
            return bad("a new function outside the patch's code");
        }
        let carried = |a: u64, len: usize| {
            a >= self.record.text_start && a.checked_add(len as u64).is_some_and(|end| end <= self.record.text_end)
        };
        match (f.resume, f.dispatch) {
            (0, 0) => {}
            (resume, dispatch) if carried(resume, RESUME_SLOT + JUMP_REL32_LEN) && carried(dispatch, DISPATCH_LEN) => {}
            _ => return bad("a dispatcher outside the patch's code"),
        }
        Ok(())
    }

    /// The functions of the kernel.
    pub fn kernel_funcs(&self) -> &'a [FuncRecord] {
        self.funcs.get(..self.record.n_kernel_funcs as usize).unwrap_or(&[])
    }
    /// Their code.
    pub fn kernel_ranges(&self) -> &'a [RangeRecord] {
        self.ranges.get(..self.record.n_kernel_ranges as usize).unwrap_or(&[])
    }
    /// Name of the function `i`; empty when there is none.
    pub fn func_name(&self, i: usize) -> &'a [u8] {
        let Some(f) = self.funcs.get(i) else { return &[] };
        string(f.name, MAX_SYMBOL, &Checked).unwrap_or(&[])
    }

    /// Name of constant `i`; empty when there is none.
    pub fn data_name(&self, i: usize) -> &'a [u8] {
        let Some(d) = self.data.get(i) else { return &[] };
        string(d.name, MAX_SYMBOL, &Checked).unwrap_or(&[])
    }
    /// What constant `i` holds without the patch, and with it.
    pub fn contents(&self, i: usize) -> (&'a [u8], &'a [u8]) {
        let Some(d) = self.data.get(i) else { return (&[], &[]) };
        // SAFETY: `new` has found both in the module; they do not change. Bytes have no alignment.
        unsafe { (array(d.old, d.len), array(d.new, d.len)) }
    }

    /// Patches named in `after`, then those in `replaces`.
    pub fn others(&self) -> usize {
        (self.record.n_after + self.record.n_replaces) as usize
    }
    /// Whether the patch takes the place of other `i`.
    pub fn replaces(&self, i: usize) -> bool {
        i >= self.record.n_after as usize
    }
    /// Name of other `i`; empty when there is none.
    pub fn other_name(&self, i: usize) -> &'a [u8] {
        match self.other_addresses().nth(i) {
            Some(name) if name != 0 => string(name, MAX_NAME, &Checked).unwrap_or(&[]),
            _ => &[],
        }
    }
    fn other_addresses(&self) -> impl Iterator<Item = u64> + Clone + use<'a> {
        let r = self.record;
        // SAFETY: `new` has checked that the arrays are in the module, and their alignment.
        let (after, replaces) = unsafe { (array::<u64>(r.after, r.n_after), array::<u64>(r.replaces, r.n_replaces)) };
        after.iter().chain(replaces).copied()
    }
    /// Name of what a refusal is about.
    pub fn subject(&self, why: Refusal) -> &'a [u8] {
        match (why.func(), why.other(), why.holder(), why.data()) {
            (Some(i), ..) => self.func_name(i),
            (None, Some(i), ..) => self.other_name(i),
            (None, None, Some(i), _) => self.holder_name(i),
            (None, None, None, Some(i)) => self.data_name(i),
            _ => &[],
        }
    }

    /// Whether the patch is never reverted.
    pub fn is_oneshot(&self) -> bool {
        self.record.flags & FLAG_ONESHOT != 0
    }

    /// Whether the patch has a callback.
    pub fn has(&self, callback: Callback) -> bool {
        self.record.flags & callback.flag() != 0
    }

    /// The build id expected.
    pub fn build_id(&self) -> &'a [u8] {
        self.record.build_id.get(..usize::from(self.record.build_id_len)).unwrap_or(&[])
    }
}

/// The mode of a number.
pub fn mode(number: u8) -> Option<Mode> {
    Mode::ALL.into_iter().find(|m| *m as u8 == number)
}

/// First byte of the jump site of a function of the kernel; of a module's, its distance from the section.
pub fn site_addr(f: &FuncRecord) -> u64 {
    f.old.wrapping_add(u64::from(f.site_offset))
}

/// Form of the jump, if it is a known one.
pub fn jump_kind(f: &FuncRecord) -> Option<JumpKind> {
    match f.jump_kind {
        x if x == JumpKind::Rel32 as u8 => Some(JumpKind::Rel32),
        x if x == JumpKind::Abs64 as u8 => Some(JumpKind::Abs64),
        _ => None,
    }
}

/// Bytes of a jump.
pub fn jump_len(kind: JumpKind) -> usize {
    match kind {
        JumpKind::Rel32 => JUMP_REL32_LEN,
        JumpKind::Abs64 => JUMP_ABS64_LEN,
    }
}

/// Whether the range holds the function's whole jump site.
fn covers(r: &RangeRecord, f: &FuncRecord) -> bool {
    let site = site_addr(f);
    r.anchor == f.anchor && r.start <= site && site + u64::from(f.site_size) <= r.start + u64::from(r.len)
}

fn overlap(a: &FuncRecord, b: &FuncRecord) -> bool {
    let (start_a, start_b) = (site_addr(a), site_addr(b));
    a.anchor == b.anchor && start_a < start_b + u64::from(b.site_size) && start_b < start_a + u64::from(a.site_size)
}

/// # Safety
/// `addr` is the aligned, not null address of `n` values of `T`, valid for `'a`; or `n` is 0.
unsafe fn array<'a, T>(addr: u64, n: u32) -> &'a [T] {
    if n == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for address and length.
    unsafe { slice::from_raw_parts(addr as *const T, n as usize) }
}

/// Addresses of strings of a patch that [`Patch::new`] has looked at.
struct Checked;

impl Memory for Checked {
    fn holds(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// The string at `addr`; nothing when it does not end in the module, or within `max` bytes.
fn string<'a>(addr: u64, max: usize, memory: &impl Memory) -> Option<&'a [u8]> {
    let start = addr as *const u8;
    for len in 0..=max {
        if !memory.holds(addr.wrapping_add(len as u64), 1) {
            return None;
        }
        // SAFETY: the byte is in the module.
        if unsafe { *start.add(len) } == 0 {
            // SAFETY: `len` bytes were just read.
            return Some(unsafe { slice::from_raw_parts(start, len) });
        }
    }
    None
}
