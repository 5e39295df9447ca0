//! Is this the kernel the patch was bound to? The GNU build id in the kernel's notes is searched and compared.
//!
//! It is the first thing asked: on another kernel every other bound address, this one included, means something else.
//! So the notes are read with fault-safe copies, and nothing else of the kernel's internals is touched before.

use crate::{kernel::Kernel, record::Patch, refusal::Refusal};

/// `NT_GNU_BUILD_ID` of include/uapi/linux/elf.h and the gABI.
const NT_GNU_BUILD_ID: u32 = 3;
/// More notes than this are not a kernel's notes (they take under 1 KiB on 6.1).
const MAX_NOTES: u64 = 64 * 1024;

/// Compares the build ids.
pub fn check<K: Kernel>(k: &K, patch: &Patch<'_>) -> Result<(), Refusal> {
    let mut id = [0u8; lpbuild_abi::MAX_BUILD_ID];
    let len = find_build_id(k, patch.record.notes_start, patch.record.notes_end, &mut id).ok_or(Refusal::NoBuildId)?;
    if id.get(..len) == Some(patch.build_id()) { Ok(()) } else { Err(Refusal::WrongKernel) }
}

/// The GNU build id among the notes; Xen's and others (`Linux`, `PVH`) come before it and are skipped.
fn find_build_id<K: Kernel>(k: &K, start: u64, end: u64, id: &mut [u8]) -> Option<usize> {
    if end.checked_sub(start)? > MAX_NOTES {
        return None;
    }
    let mut at = start;
    while end.saturating_sub(at) >= 12 {
        let (namesz, descsz, kind) = (word(k, at)?, word(k, at + 4)?, word(k, at + 8)?);
        let name = at + 12;
        let desc = name.checked_add(padded(namesz))?;
        let next = desc.checked_add(padded(descsz))?;
        if next > end {
            return None;
        }
        if kind == NT_GNU_BUILD_ID && namesz == 4 && word(k, name)? == u32::from_le_bytes(*b"GNU\0") {
            let len = descsz as usize;
            return k.read(desc, id.get_mut(..len)?).then_some(len);
        }
        at = next;
    }
    None
}

/// Names and descriptors are padded to 4 bytes.
fn padded(size: u32) -> u64 {
    (u64::from(size) + 3) & !3
}

fn word<K: Kernel>(k: &K, addr: u64) -> Option<u32> {
    let mut b = [0u8; 4];
    k.read(addr, &mut b).then_some(u32::from_le_bytes(b))
}
