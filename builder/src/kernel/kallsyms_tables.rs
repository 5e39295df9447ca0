//! The kallsyms tables inside a stripped image, as scripts/kallsyms.c writes them.
//!
//! Input: the image's read-only sections. Output: [`Kallsyms`]. No symbol says where the tables are, so they are found by
//! what they must look like, and every guess is proven against a second table before it is believed:
//!
//! ```text
//! 6.1 to 6.3: offsets, relative_base, num_syms, names, markers, [seqs_of_names], token_table, token_index
//! since 6.4:  num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names
//! ```
//! Every table begins at a multiple of 8. Refused: images without the tables (no CONFIG_KALLSYMS), other arrangements.

use std::ops::Range;

use super::elf::{KernelSection, memchr_all};
use super::kallsyms::{Kallsyms, KernelSymbol};
use crate::codes;
use crate::error::{Error, Place, Result};

/// Tokens in the table: one for each byte of a compressed name.
const TOKENS: usize = 256;
/// The tokens `0` to `9`, which always stand for themselves because every kernel has names with digits.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// Tokens before `0`.
const BEFORE_DIGITS: usize = b'0' as usize;
/// How far back the table may begin: 48 tokens, all but a few of one or two characters.
const MAX_BEFORE_DIGITS: usize = 4096;
/// Names between two markers.
const MARKER_EVERY: usize = 256;
/// Fewest and most symbols believed: kernels without CONFIG_KALLSYMS_ALL have tens of thousands, debug kernels 300,000.
const SYMBOLS: Range<usize> = 16..(1 << 23);
/// Longest name (KSYM_NAME_LEN is 512).
const MAX_NAME: usize = 512;

/// Finds and decodes the tables.
pub(super) fn read(name: &str, sections: &[KernelSection]) -> Result<Kallsyms> {
    let mut found_tokens = false;
    for section in sections.iter().filter(|s| !s.is_code()) {
        for digits in memchr_all(&section.data, DIGITS) {
            let Some(tokens) = Tokens::around(&section.data, digits) else { continue };
            found_tokens = true;
            let Some(names) = Names::before(&section.data, &tokens) else { continue };
            if let Some(symbols) = decode(&section.data, &tokens, &names) {
                return Ok(Kallsyms::new(symbols));
            }
        }
    }
    let place = Place::object(name);
    if found_tokens {
        Err(Error::new(codes::LP1209, place, "names, markers or offsets are not where they should be"))
    } else {
        Err(Error::new(codes::LP1208, place, "no kallsyms token table in its data"))
    }
}

/// kallsyms_token_table and kallsyms_token_index.
struct Tokens<'d> {
    text: Vec<&'d [u8]>,
    /// Offset of the token table in the section.
    start: usize,
    /// Offset behind the token index.
    end: usize,
}

impl<'d> Tokens<'d> {
    /// The table whose token `0` is at `digits`, proven by the index behind it.
    fn around(data: &'d [u8], digits: usize) -> Option<Self> {
        let lowest = digits.saturating_sub(MAX_BEFORE_DIGITS);
        let before = data.get(lowest..digits)?;
        // The 48 tokens before `0` end with a NUL each; the table begins behind the 49th, counted backwards.
        let ends =
            || before.iter().enumerate().rev().filter(|&(_, &c)| c == 0).map(|(at, _)| lowest.saturating_add(at));
        let first_end = ends().nth(BEFORE_DIGITS - 1)?;
        let floor = ends().nth(BEFORE_DIGITS).unwrap_or(lowest);
        let mut start = first_end & !7;
        loop {
            if let Some(tokens) = Self::at(data, start) {
                return Some(tokens);
            }
            start = start.checked_sub(8).filter(|&s| s >= floor)?;
        }
    }

    fn at(data: &'d [u8], start: usize) -> Option<Self> {
        let mut text = Vec::with_capacity(TOKENS);
        let mut offsets = Vec::with_capacity(TOKENS);
        let mut at = start;
        for _ in 0..TOKENS {
            let rest = data.get(at..)?;
            let len = rest.iter().take(MAX_NAME).position(|&c| c == 0)?;
            text.push(rest.get(..len)?);
            offsets.push(u16::try_from(at.checked_sub(start)?).ok()?);
            at = at.checked_add(len)?.checked_add(1)?;
        }
        let index = at.checked_next_multiple_of(8)?;
        let end = index.checked_add(TOKENS * 2)?;
        let (stored, _) = data.get(index..end)?.as_chunks::<2>();
        let proven = stored.iter().zip(&offsets).all(|(bytes, offset)| u16::from_le_bytes(*bytes) == *offset);
        proven.then_some(Self { text, start, end })
    }
}

/// kallsyms_num_syms, kallsyms_names and kallsyms_markers.
struct Names {
    /// Offset of num_syms in the section.
    num_syms: usize,
    count: usize,
}

impl Names {
    /// Searches backwards from the token table for a number that fits the names and markers behind it.
    fn before(data: &[u8], tokens: &Tokens<'_>) -> Option<Self> {
        let mut at = tokens.start;
        loop {
            at = at.checked_sub(8)?;
            let Some(count) = u64_at(data, at).and_then(|n| usize::try_from(n).ok()) else { continue };
            // A name has at least a length and one byte; names behind the token table cannot be meant.
            if !SYMBOLS.contains(&count) || count.saturating_mul(2) > tokens.start.saturating_sub(at) {
                continue;
            }
            if proven(data, at.checked_add(8)?, count, tokens.start) {
                return Some(Self { num_syms: at, count });
            }
        }
    }
}

/// True when `count` names begin at `names`, and the markers behind them say the same, all below `limit`.
fn proven(data: &[u8], names: usize, count: usize, limit: usize) -> bool {
    let walk = || -> Option<bool> {
        let mut markers = Vec::with_capacity(count.div_ceil(MARKER_EVERY));
        let mut at = names;
        for i in 0..count {
            if i.is_multiple_of(MARKER_EVERY) {
                markers.push(u32::try_from(at.checked_sub(names)?).ok()?);
            }
            let (len, behind) = name_len(data, at)?;
            at = behind.checked_add(len)?;
            if at > limit {
                return None;
            }
        }
        let start = at.checked_next_multiple_of(8)?;
        let end = start.checked_add(markers.len().checked_mul(4)?)?;
        let (stored, _) = data.get(start..end)?.as_chunks::<4>();
        Some(end <= limit && stored.iter().zip(&markers).all(|(bytes, marker)| u32::from_le_bytes(*bytes) == *marker))
    };
    walk().unwrap_or(false)
}

/// The length of the compressed name at `at`, and the offset of its first byte. One byte, or two as ULEB128 since 6.1.
fn name_len(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*data.get(at)?);
    let behind = at.checked_add(1)?;
    let (len, behind) = if low & 0x80 == 0 {
        (low, behind)
    } else {
        let high = usize::from(*data.get(behind)?);
        ((low & 0x7f) | (high << 7), behind.checked_add(1)?)
    };
    (len > 0 && len <= MAX_NAME).then_some((len, behind))
}

/// Names and addresses together.
fn decode(data: &[u8], tokens: &Tokens<'_>, names: &Names) -> Option<Vec<KernelSymbol>> {
    let addresses = addresses(data, tokens, names)?;
    let mut symbols = Vec::with_capacity(names.count);
    let mut at = names.num_syms.checked_add(8)?;
    let mut text = Vec::with_capacity(MAX_NAME);
    for addr in addresses {
        let (len, start) = name_len(data, at)?;
        at = start.checked_add(len)?;
        text.clear();
        for &token in data.get(start..at)? {
            text.extend_from_slice(tokens.text.get(usize::from(token))?);
            if text.len() > MAX_NAME {
                return None;
            }
        }
        let (&kind, name) = text.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        if name.is_empty() || !(kind.is_ascii_alphabetic() || kind == b'?') {
            return None;
        }
        symbols.push(KernelSymbol { addr, kind, name: name.into(), listed: true });
    }
    Some(symbols)
}

/// kallsyms_offsets and kallsyms_relative_base, in whichever of the two places they make sense.
fn addresses(data: &[u8], tokens: &Tokens<'_>, names: &Names) -> Option<Vec<u64>> {
    let len = names.count.checked_mul(4)?.checked_next_multiple_of(8)?;
    let behind =
        || Some((tokens.end.checked_next_multiple_of(8)?, tokens.end.checked_next_multiple_of(8)?.checked_add(len)?));
    let before = || {
        let base = names.num_syms.checked_sub(8)?;
        Some((base.checked_sub(len)?, base))
    };
    [before(), behind()].into_iter().flatten().find_map(|(offsets, base)| resolve(data, offsets, base, names.count))
}

/// The addresses at `offsets`, if the base is a kernel address and they are in order.
///
/// With CONFIG_KALLSYMS_ABSOLUTE_PERCPU (x86-64 SMP until 6.15) an offset that is not negative is an absolute value and a
/// negative one means `base - 1 - offset`. Without it, offsets are unsigned distances from the base, none of them near
/// 2 GiB. Nearly all symbols are in the image, so the majority tells the two apart.
fn resolve(data: &[u8], offsets: usize, base: usize, count: usize) -> Option<Vec<u64>> {
    let base = u64_at(data, base).filter(|&b| b >= 0xffff_ffff_8000_0000)?;
    let end = offsets.checked_add(count.checked_mul(4)?)?;
    let (raw, _) = data.get(offsets..end)?.as_chunks::<4>();
    let raw = || raw.iter().map(|b| i32::from_le_bytes(*b));
    let absolute_percpu = raw().filter(|&o| o < 0).count().saturating_mul(2) > count;
    let addr = |offset: i32| match offset {
        _ if !absolute_percpu => base.checked_add(u64::from(offset.cast_unsigned())),
        0.. => u64::try_from(offset).ok(),
        _ => base.checked_add(u64::try_from(-1 - i64::from(offset)).ok()?),
    };
    let addresses: Vec<u64> = raw().map(addr).collect::<Option<_>>()?;
    addresses.is_sorted().then_some(addresses)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}
