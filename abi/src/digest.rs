//! A number over all that the records say, so that one that was shortened, exchanged or changed is noticed.
//!
//! Addresses differ from boot to boot and count as distances: those of the kernel from [`PatchRecord::notes_start`], those of the
//! patch from [`PatchRecord::text_start`]. The bytes expected at a site do not count, since the kernel's own relocation changes
//! addresses among them; they are compared with the kernel's code before anything is written. This finds damage, not
//! intent: whoever can change a record can write another number. All of it is inlined: the runtime is the code of one crate.

use crate::{FuncRecord, PatchRecord, RangeRecord};

/// The number so far (FNV-1a, 64 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    #[inline]
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// What [`PatchRecord::digest`] holds.
    #[inline]
    pub const fn finish(self) -> u64 {
        self.0
    }

    /// A string, without the NUL.
    #[inline]
    pub fn text(self, text: &[u8]) -> Self {
        self.bytes(text).number(text.len() as u64)
    }

    /// The patch itself, with its name and version. The names of the other patches follow, then functions, then ranges.
    #[inline]
    pub fn patch(self, r: &PatchRecord, name: &[u8], version: &[u8]) -> Self {
        let numbers = [
            r.magic,
            r.abi_version.into(),
            r.mode.into(),
            r.build_id_len.into(),
            r.flags.into(),
            r.deadline_ms.into(),
            r.patience_ms.into(),
            r.n_funcs.into(),
            r.n_ranges.into(),
            r.n_after.into(),
            r.n_replaces.into(),
            r.notes_end.wrapping_sub(r.notes_start),
            r.text_end.wrapping_sub(r.text_start),
        ];
        let all = numbers.into_iter().fold(self, Digest::number);
        all.bytes(&r.build_id).text(name).text(version)
    }

    /// A function; `patch` has the addresses that distances are counted from.
    #[inline]
    pub fn func(self, f: &FuncRecord, name: &[u8], patch: &PatchRecord) -> Self {
        let carried = |address: u64| match address {
            0 => u64::MAX,
            a => a.wrapping_sub(patch.text_start),
        };
        let numbers = [
            f.old.wrapping_sub(patch.notes_start),
            carried(f.new),
            carried(f.resume),
            carried(f.dispatch),
            f.old_size.into(),
            f.new_size.into(),
            f.site_offset.into(),
            f.site_size.into(),
            f.jump_kind.into(),
            f.covers_fentry.into(),
            f.single.into(),
        ];
        numbers.into_iter().fold(self, Digest::number).text(name)
    }

    /// A range.
    #[inline]
    pub fn range(self, r: &RangeRecord, patch: &PatchRecord) -> Self {
        self.number(r.start.wrapping_sub(patch.notes_start)).number(r.len.into()).number(r.func.into())
    }

    #[inline]
    fn number(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    #[inline]
    fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)))
    }
}
