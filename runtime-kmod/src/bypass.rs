//! Calls that would not come to a patch on top.
//!
//! Code of a patch calls the new functions of the same patch directly and not by way of their sites. A patch that lies on top of one of
//! these, and not on the caller, would not be called from there: its change would be lost in silence.
//!
//! Input: the code of the patch below. Output: the address of such a call or jump. Code that cannot be read is taken for one.

use crate::kernel::Kernel;

/// Bytes looked at in one piece, and the most that an instruction begins before its end: `0f 8x rel32`.
const PIECE: usize = 256;
const LONGEST: usize = 6;

/// The first direct call of `target`, or jump to it, in the code from `start` to `end`, that `counts`.
///
/// Every byte may begin an instruction, so none is missed; that other bytes look like one happens once in 2^32 times.
pub fn find<K: Kernel>(k: &K, (start, end): (u64, u64), target: u64, counts: impl Fn(u64) -> bool) -> Option<u64> {
    let mut piece = [0u8; PIECE];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).map_or(PIECE, |n| n.min(PIECE));
        let piece = piece.get_mut(..len)?;
        if !k.read(at, piece) {
            return Some(at);
        }
        let found = (0..len).find_map(|i| {
            let rel_at = match piece.get(i..)? {
                [0xe8 | 0xe9, ..] => i + 1,
                [0x0f, 0x80..=0x8f, ..] => i + 2,
                _ => return None,
            };
            let rel = i32::from_le_bytes(*piece.get(rel_at..)?.first_chunk()?);
            let leads = (at + rel_at as u64 + 4).wrapping_add_signed(rel.into()) == target;
            (leads && counts(at + i as u64)).then_some(at + i as u64)
        });
        if found.is_some() {
            return found;
        }
        if len < PIECE {
            return None;
        }
        // What reaches over the end is looked at again.
        at += (PIECE - LONGEST) as u64;
    }
    None
}
