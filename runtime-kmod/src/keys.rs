//! Jumps of static keys that a module has. Their entries are the patch's, and lie among what it brings for the module.
//!
//! Input: an entry as the builder has written it. Output: the code that belongs to it, as it was before the kernel saw it. Refused: an entry
//! of anything but a jump, or a nop, of the carried code.
//!
//! The module loader must not see these entries: it would look for the key when the patch is loaded. So they are handed to the
//! kernel by `jump_label_module_notify` when the module is here, and taken back when it goes. The kernel sorts what it gets,
//! marks it, and takes the code for untouched (`jump_label_add_module`, kernel/jump_label.c; `__jump_label_patch`,
//! arch/x86/kernel/jump_label.c stops the machine where it finds something else). So before each coming both are what they were:
//! the entries as all data that is brought for a module, the code by what is kept here.

use lpbuild_abi::{JUMP_ENTRY_KEY, JUMP_ENTRY_LEN};

use crate::kernel::Kernel;

/// The longest of them.
const LONGEST: usize = 5;

/// One jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Where it is.
    pub code: u64,
    bytes: [u8; LONGEST],
    len: usize,
}

impl Jump {
    /// None.
    pub const fn none() -> Self {
        Self { code: 0, bytes: [0; LONGEST], len: 0 }
    }

    /// That of the entry at `at`; `text`: the carried code. Before the kernel has seen it.
    pub fn of<K: Kernel>(k: &K, at: u64, text: (u64, u64)) -> Option<Self> {
        let mut entry = [0u8; JUMP_ENTRY_LEN];
        if !k.read(at, &mut entry) {
            return None;
        }
        let [a, b, c, d, e, f, g, h, key @ ..] = entry;
        let from = |place: usize, n: [u8; 4]| (at + place as u64).wrapping_add_signed(i32::from_le_bytes(n).into());
        let (code, target) = (from(0, [a, b, c, d]), from(4, [e, f, g, h]));
        let inside = |at: u64, len: usize| text.0 <= at && at < text.1 && text.1 - at >= len as u64;
        let empty = key == [0; JUMP_ENTRY_LEN - JUMP_ENTRY_KEY];
        let mut bytes = [0u8; LONGEST];
        if !empty || !inside(code, LONGEST) || !inside(target, 1) || !k.read(code, &mut bytes) {
            return None;
        }
        let distance = |len: u64| target.wrapping_sub(code + len).cast_signed();
        let len = match bytes {
            [0x66, 0x90, ..] => 2,
            [0xeb, by, ..] if i64::from(by.cast_signed()) == distance(2) => 2,
            [0x0f, 0x1f, 0x44, 0x00, 0x00] => 5,
            [0xe9, by @ ..] if i64::from(i32::from_le_bytes(by)) == distance(5) => 5,
            _ => return None,
        };
        Some(Self { code, bytes, len })
    }

    /// What the code was.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}
