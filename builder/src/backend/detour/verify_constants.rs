//! Records of constants that change in their place, as the second reader sees them: LP4009.

use std::mem::offset_of;

use goblin::elf::reloc::{R_X86_64_32S, R_X86_64_64};
use lpbuild_abi as abi;

use crate::codes;
use crate::error::Place;
use crate::hash;
use crate::pack::{PatchFolder, Reread, int};
use crate::plan::manifest::{Constant, Kernel};

const SIZE: usize = size_of::<abi::DataRecord>();

impl<'a> Reread<'a> {
    /// Each constant of the manifest, in its order, and none besides.
    pub(super) fn constants(&mut self, input: &PatchFolder) {
        let (all, name) = (&input.manifest.data, &input.manifest.patch.name);
        let field = offset_of!(abi::PatchRecord, n_data);
        let n = int(self.content(abi::SEC_PATCH), field, 4);
        let place = || Place::object(name).in_section(abi::SEC_PATCH).at(field as u64);
        self.expect(codes::LP4009, place(), "constants", n, all.len() as u64);
        let field = offset_of!(abi::PatchRecord, data);
        let there = self.pointer(abi::SEC_PATCH, field as u64).is_some();
        let there = there || int(self.content(abi::SEC_PATCH), field, 8) != 0 || self.section(abi::SEC_DATA).is_some();
        self.expect(codes::LP4009, place(), "a section of constants", there, !all.is_empty());
        for (i, constant) in all.iter().enumerate() {
            self.constant(i, constant, &input.kernel);
        }
    }

    fn constant(&mut self, i: usize, c: &Constant, kernel: &Kernel) {
        let place = || Place::symbol(&c.source, &c.symbol).in_section(abi::SEC_DATA);
        let Some((index, data, start)) = self.records() else {
            return self.problem(codes::LP4009, place(), "no record for this constant");
        };
        let at = start + i * SIZE;
        let field = |field: usize| (at + field) as u64;
        let address = self.pointer(abi::SEC_DATA, field(0)).filter(|t| t.symbol == kernel.anchor).map(|t| t.addend);
        self.expect(codes::LP4009, place(), "address", address, c.anchor_offset);
        let name = self.pointer(abi::SEC_DATA, field(offset_of!(abi::DataRecord, name))).and_then(|t| self.string(&t));
        self.expect(codes::LP4009, place(), "name", name, Some(c.symbol.as_str()));
        let len = int(data, at + offset_of!(abi::DataRecord, len), 4);
        self.expect(codes::LP4009, place(), "length", len, c.size.into());
        self.expect(codes::LP4009, place(), "bytes of no use", int(data, at + offset_of!(abi::DataRecord, zero), 4), 0);
        let content = |field_at: usize| {
            let target = self.pointer(abi::SEC_DATA, field(field_at)).filter(|t| t.section == index)?;
            let from = usize::try_from(target.offset).ok()?;
            Some((from, data.get(from..from.checked_add(c.size as usize)?)?))
        };
        let (old, new) = (content(offset_of!(abi::DataRecord, old)), content(offset_of!(abi::DataRecord, new)));
        let apart = old.zip(new).is_some_and(|(a, b)| a.0.abs_diff(b.0) >= c.size as usize);
        self.expect(codes::LP4009, place(), "places of both contents", apart, true);
        let linked = old.map(|(from, bytes)| hash::digest(&self.as_linked(index, from, bytes, kernel)));
        self.expect(codes::LP4009, place(), "sha256 of what is expected", linked, c.original_sha256.clone());
    }

    /// Bytes as the image has them: with the anchor where that is linked.
    fn as_linked(&self, index: usize, from: usize, bytes: &[u8], kernel: &Kernel) -> Vec<u8> {
        let mut linked = bytes.to_vec();
        for offset in 0..bytes.len() {
            let Some(r) = self.relocation(index, (from + offset) as u64) else { continue };
            let Some(target) = self.target(&r).filter(|t| t.symbol == kernel.anchor) else { continue };
            let value = kernel.anchor_address.wrapping_add_signed(target.addend).to_le_bytes();
            let width = match r.r_type {
                R_X86_64_64 => 8,
                R_X86_64_32S => 4,
                _ => continue,
            };
            if let (Some(field), Some(value)) = (linked.get_mut(offset..offset + width), value.get(..width)) {
                field.copy_from_slice(value);
            }
        }
        linked
    }

    /// The section, its content, and where the records begin, by the pointer of the patch record.
    fn records(&self) -> Option<(usize, &'a [u8], usize)> {
        let (index, header) = self.section(abi::SEC_DATA)?;
        let start = self.pointer(abi::SEC_PATCH, offset_of!(abi::PatchRecord, data) as u64)?;
        let start = usize::try_from(start.offset).ok().filter(|_| start.section == index)?;
        Some((index, self.bytes(header)?, start))
    }

    /// The digest, with the constants.
    pub(super) fn digest_of_constants(
        &self,
        digest: abi::Digest,
        patch: &abi::PatchRecord,
        kernel: &Kernel,
    ) -> Option<abi::Digest> {
        if patch.n_data == 0 {
            return Some(digest);
        }
        let (index, data, start) = self.records()?;
        let mut digest = digest;
        for (i, record) in data.get(start..)?.chunks_exact(SIZE).take(patch.n_data as usize).enumerate() {
            let field = |field: usize| (start + i * SIZE + field) as u64;
            let addr = self.pointer(abi::SEC_DATA, field(0)).filter(|t| t.symbol == kernel.anchor)?;
            // Distances from the first record.
            let content = |at: usize| {
                let target = self.pointer(abi::SEC_DATA, field(at)).filter(|t| t.section == index)?;
                Some(target.offset.cast_unsigned().wrapping_sub(start as u64))
            };
            let constant = abi::DataRecord {
                addr: kernel.anchor_address.wrapping_add_signed(addr.addend),
                old: content(offset_of!(abi::DataRecord, old))?,
                new: content(offset_of!(abi::DataRecord, new))?,
                name: 0,
                len: int(record, offset_of!(abi::DataRecord, len), 4) as u32,
                zero: int(record, offset_of!(abi::DataRecord, zero), 4) as u32,
            };
            let name = self.string(&self.pointer(abi::SEC_DATA, field(offset_of!(abi::DataRecord, name)))?)?;
            digest = digest.data(&constant, name.as_bytes(), patch);
        }
        Some(digest)
    }
}
