//! A number over all that the records say, so that one that was shortened, exchanged or changed is noticed.
//!
//! Addresses differ from boot to boot and count as distances: those of the kernel from [`PatchRecord::notes_start`], those of the
//! patch from [`PatchRecord::text_start`]. The bytes expected at a site do not count, since the kernel's own relocation changes
//! addresses among them; they are compared with the kernel's code before anything is written. This finds damage, not
//! intent: whoever can change a record can write another number. All of it is inlined: the runtime is the code of one crate.

use crate::{AnchorRecord, DataRecord, FuncRecord, HolderRecord, Kept, LateReloc, PatchRecord, RangeRecord, Spot};

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

    /// The patch itself, with its name and version. The names of the other patches follow, then functions, ranges, constants,
    /// holders, anchors and relocations.
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
            r.n_holders.into(),
            r.n_anchors.into(),
            r.n_relocs.into(),
            r.n_kernel_funcs.into(),
            r.n_kernel_ranges.into(),
            r.n_data.into(),
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
            old(f.anchor, f.old, patch),
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
            f.anchor.into(),
            f.zero.into(),
        ];
        numbers.into_iter().fold(self, Digest::number).text(name)
    }

    /// A range.
    #[inline]
    pub fn range(self, r: &RangeRecord, patch: &PatchRecord) -> Self {
        let numbers = [old(r.anchor, r.start, patch), r.len.into(), r.func.into(), r.anchor.into(), r.zero.into()];
        numbers.into_iter().fold(self, Digest::number)
    }

    /// A constant that changes in its place. Its contents lie in the section of the record; what they are does not count, as above.
    #[inline]
    pub fn data(self, r: &DataRecord, name: &[u8], patch: &PatchRecord) -> Self {
        let content = |at: u64| at.wrapping_sub(patch.data);
        let numbers =
            [r.addr.wrapping_sub(patch.notes_start), content(r.old), content(r.new), r.len.into(), r.zero.into()];
        numbers.into_iter().fold(self, Digest::number).text(name)
    }

    /// A holder.
    #[inline]
    pub fn holder(self, h: &HolderRecord, name: &[u8]) -> Self {
        let pieces = [(h.data, h.data_end), (h.bss, h.bss_end), (h.rodata, h.rodata_end)];
        let with = pieces.into_iter().fold(self, |d, (start, end)| {
            // Where it is, nobody knows before it is loaded.
            d.number(if start == 0 { u64::MAX } else { end.wrapping_sub(start) })
        });
        // Those lie in the data.
        let with = Kept::ALL.into_iter().map(|kept| kept.of(h)).fold(with, |d, (start, end)| {
            let at = if start == 0 { u64::MAX } else { start.wrapping_sub(h.data) };
            d.number(at).number(end.wrapping_sub(start))
        });
        let numbers = [
            h.needs,
            h.n_funcs.into(),
            h.n_ranges.into(),
            h.n_anchors.into(),
            h.n_relocs.into(),
            h.build_id_len.into(),
        ];
        numbers.into_iter().fold(with, Digest::number).bytes(&h.build_id).bytes(&h.zero).text(name)
    }

    /// An anchor; of one that is not found by a symbol the names are empty.
    #[inline]
    pub fn anchor(self, a: &AnchorRecord, name: &[u8], witness: &[u8]) -> Self {
        let numbers = [
            a.delta.cast_unsigned(),
            a.witness_delta.cast_unsigned(),
            a.at.cast_unsigned(),
            a.owner.into(),
            a.position.into(),
            a.count.into(),
            a.witness_position.into(),
            a.witness_count.into(),
            a.of.into(),
            a.size.into(),
            a.kind.into(),
            a.field.into(),
            a.region.into(),
            a.zero.into(),
        ];
        numbers.into_iter().fold(self, Digest::number).text(name).text(witness)
    }

    /// A relocation, and where it writes.
    #[inline]
    pub fn reloc(self, r: &LateReloc, spot: Spot, patch: &PatchRecord) -> Self {
        let (which, distance) = match spot {
            Spot::Text(n) => (0, n),
            Spot::Data(n) => (1, n),
            Spot::Rodata(n) => (2, n),
            Spot::Site(n) => (3, n),
        };
        let stub = if r.stub == 0 { u64::MAX } else { r.stub.wrapping_sub(patch.text_start) };
        let numbers =
            [which, distance, r.addend.cast_unsigned(), r.anchor.into(), r.site_of.into(), stub, r.kind.into()];
        numbers.into_iter().fold(self, Digest::number).bytes(&r.zero)
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

/// What counts of the address of old code.
#[inline]
fn old(anchor: u32, address: u64, patch: &PatchRecord) -> u64 {
    if anchor == 0 { address.wrapping_sub(patch.notes_start) } else { address }
}
