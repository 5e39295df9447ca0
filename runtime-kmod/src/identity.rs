//! Is this the kernel, or the kernel module, that the patch was bound to? The GNU build id in the notes is searched and compared.
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

/// A build id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    bytes: [u8; lpbuild_abi::MAX_BUILD_ID],
    len: usize,
}

impl Id {
    /// None.
    pub const fn none() -> Self {
        Self { bytes: [0; lpbuild_abi::MAX_BUILD_ID], len: 0 }
    }
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// Whether a module whose constants are `len` bytes at `start` has the note of the build id `expected` among them, once. The kernel
/// says where its notes are, but not while a module comes (`notes_attrs`, kernel/module/sysfs.c). `found`: the first other build id.
pub fn is_module<K: Kernel>(k: &K, (start, len): (u64, u64), expected: &[u8], found: &mut Id) -> bool {
    const HEAD: u64 = 16;
    let mut buf = [0u8; 256];
    let (mut at, end, mut same) = (start, start.saturating_add(len), 0);
    while end.saturating_sub(at) >= HEAD {
        let n = (end - at).min(buf.len() as u64);
        let Some(piece) = buf.get_mut(..n as usize).filter(|_| n >= HEAD) else { break };
        if !k.read(at, piece) {
            return false;
        }
        for (i, head) in piece.windows(HEAD as usize).enumerate().step_by(4) {
            let size = head.get(4).copied().unwrap_or(0);
            if *head != [4, 0, 0, 0, size, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0] {
                continue;
            }
            let mut id = Id { len: usize::from(size), ..Id::none() };
            let Some(bytes) = id.bytes.get_mut(..id.len) else { continue };
            if !k.read(at + i as u64 + HEAD, bytes) {
                continue;
            }
            if bytes == expected {
                same += 1;
            } else if found.len == 0 {
                *found = id;
            }
        }
        // The next begins behind the last head of this one: a note that were seen twice would be two.
        at += if n < buf.len() as u64 { n } else { n - HEAD + 4 };
    }
    same == 1
}

/// Names and descriptors are padded to 4 bytes.
fn padded(size: u32) -> u64 {
    (u64::from(size) + 3) & !3
}

fn word<K: Kernel>(k: &K, addr: u64) -> Option<u32> {
    let mut b = [0u8; 4];
    k.read(addr, &mut b).then_some(u32::from_le_bytes(b))
}
