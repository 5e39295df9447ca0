//! Jumps of static keys and static calls that a module has. Their entries are the patch's, and lie among what it brings for the module.
//!
//! Input: an entry as the builder has written it. Output: the code that belongs to it, as it was before the kernel saw it. Refused: an entry
//! of anything but a jump, a nop, or a call, of the carried code.
//!
//! The module loader must not see these entries: it would look for the key when the patch is loaded. So they are handed to the
//! kernel by `jump_label_module_notify` and `static_call_module_notify` when the module is here, and taken back when it goes. The
//! kernel sorts what it gets, marks it, and takes the code for untouched (`jump_label_add_module`, kernel/jump_label.c;
//! `__static_call_init`, kernel/static_call_inline.c; `__jump_label_patch` and `__static_call_validate` of arch/x86/kernel stop the
//! machine where they find something else). So before each coming both are what they were: the entries as all data that is
//! brought for a module, the code by what is kept here.
//!
//! A key that is constant behind the init of its module is on no list from then on: the lists are in the keys. Who comes later
//! writes what it says.

use lpbuild_abi::{CALL_SITE_KEY, HolderRecord, JUMP_ENTRY_KEY, JUMP_ENTRY_LEN, Kept};

use crate::kernel::Kernel;

/// The longest of them: a conditional jump.
const LONGEST: usize = 6;
/// What an instruction is that does not jump.
const NOPS: [&[u8]; 2] = [&[0x66, 0x90], &[0x0f, 0x1f, 0x44, 0x00, 0x00]];
/// The flag of an entry whose code is a jump unless its key is on, and that of a call at the end of a function.
const FLAG: u64 = 1;
/// The flags in the field of a key.
const FLAGS: u64 = 3;

/// An instruction that the kernel turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Where it is.
    pub code: u64,
    /// Where its entry is.
    entry: u64,
    /// Where a jump leads.
    target: u64,
    kept: Kept,
    bytes: [u8; LONGEST],
    len: usize,
}

/// All entries of a holder.
pub fn entries(h: &HolderRecord) -> impl Iterator<Item = (Kept, u64)> {
    let all = |kept: Kept| {
        let (start, end) = kept.of(h);
        (start..end).step_by(kept.entry_len()).map(move |at| (kept, at))
    };
    Kept::ALL.into_iter().flat_map(all)
}

/// What a distance of four bytes leads to.
fn from(place: u64, distance: &[u8]) -> Option<u64> {
    Some(place.wrapping_add_signed(i32::from_le_bytes(*distance.first_chunk()?).into()))
}

impl Turned {
    /// None.
    pub const fn none() -> Self {
        Self { code: 0, entry: 0, target: 0, kept: Kept::Jumps, bytes: [0; LONGEST], len: 0 }
    }

    /// That of the entry at `at`; `text`: the carried code. Before the kernel has seen it.
    pub fn of<K: Kernel>(k: &K, kept: Kept, at: u64, text: (u64, u64)) -> Option<Self> {
        let mut room = [0u8; JUMP_ENTRY_LEN];
        let entry = room.get_mut(..kept.entry_len())?;
        if !k.read(at, entry) || entry.get(kept.key().0..)?.iter().any(|b| *b != 0) {
            return None;
        }
        let code = from(at, entry)?;
        let inside = |at: u64, len: usize| text.0 <= at && at < text.1 && text.1 - at >= len as u64;
        let read = |bytes: &mut [u8]| inside(code, bytes.len()) && k.read(code, bytes);
        let mut bytes = [0u8; LONGEST];
        if !read(bytes.first_chunk_mut::<5>()?) {
            return None;
        }
        let (target, len) = match kept {
            Kept::Jumps | Kept::Sealed => {
                let target = from(at + 4, entry.get(4..)?)?;
                (target, Self::jump(&bytes, code, target).filter(|_| inside(target, 1))?)
            }
            Kept::Calls => (0, Self::call(&bytes)?),
        };
        if !read(bytes.get_mut(..len)?) {
            return None;
        }
        Some(Self { code, entry: at, target, kept, bytes, len })
    }

    /// How long a jump there, or a nop, is.
    fn jump(bytes: &[u8; LONGEST], code: u64, target: u64) -> Option<usize> {
        let distance = |len: u64| target.wrapping_sub(code + len).cast_signed();
        match *bytes {
            [0x66, 0x90, ..] => Some(2),
            [0xeb, by, ..] if i64::from(by.cast_signed()) == distance(2) => Some(2),
            [0x0f, 0x1f, 0x44, 0x00, 0x00, _] => Some(5),
            [0xe9, a, b, c, d, _] if i64::from(i32::from_le_bytes([a, b, c, d])) == distance(5) => Some(5),
            _ => None,
        }
    }

    /// How long a call is, or a jump to what would be called.
    fn call(bytes: &[u8; LONGEST]) -> Option<usize> {
        match *bytes {
            [0xe8 | 0xe9, ..] => Some(5),
            [0x0f, 0x80..=0x8f, ..] => Some(6),
            _ => None,
        }
    }

    /// What the code was.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Whether the key is constant when the init of its module is over.
    pub fn is_sealed(&self) -> bool {
        self.kept == Kept::Sealed
    }

    /// Whether the key, which is filled in, says what the code is; `__static_call_validate` stops the machine if not.
    pub fn agrees<K: Kernel>(&self, k: &K) -> bool {
        let mut key = [0u8; 4];
        let at = self.entry + CALL_SITE_KEY as u64;
        let tail = if self.bytes.first() == Some(&0xe8) { 0 } else { FLAG };
        self.kept != Kept::Calls || k.read(at, &mut key) && from(at, &key).is_some_and(|key| key & FLAGS == tail)
    }

    /// What the code is for good, if the key is constant already: its count does not change any more. Nothing: it cannot be read.
    pub fn settled<K: Kernel>(&self, k: &K) -> Option<([u8; LONGEST], usize)> {
        let (mut key, mut count) = ([0u8; 8], [0u8; 4]);
        let at = self.entry + JUMP_ENTRY_KEY as u64;
        if self.kept != Kept::Sealed || !k.read(at, &mut key) {
            return None;
        }
        let key = at.wrapping_add(u64::from_le_bytes(key));
        if !k.read(key & !FLAGS, &mut count) {
            return None;
        }
        let jumps = (count != [0; 4]) != (key & FLAG != 0);
        let distance = self.target.wrapping_sub(self.code + self.len as u64);
        let mut out = [0u8; LONGEST];
        if !jumps {
            let nop = NOPS.into_iter().find(|n| n.len() == self.len)?;
            out.get_mut(..self.len)?.copy_from_slice(nop);
        } else {
            let (first, rest) = out.split_first_mut()?;
            *first = if self.len == 2 { 0xeb } else { 0xe9 };
            rest.iter_mut().zip(distance.to_le_bytes()).for_each(|(to, from)| *to = from);
            // A short one must reach, as it did when it was compiled.
            let short = i8::try_from(distance.cast_signed()).is_ok();
            if self.len == 2 && !short {
                return None;
            }
        }
        Some((out, self.len))
    }
}
