//! What no symbol covers: strings up to their end, pointers, and everything else up to the next place anything refers to.

use super::{Area, Location, Proof, Whole};
use crate::symbolize::Class;

/// Words of an area that are in no span, but for zeroes.
pub fn nameless_words(whole: &Whole<'_>, area: &Area<'_>) -> Vec<u64> {
    let mut out = Vec::new();
    let mut at = area.addr.next_multiple_of(8);
    while at < area.end() {
        match whole.locate(at) {
            Location::Span(s, _) => at = whole.span(s).end.max(at + 1).next_multiple_of(8),
            _ => {
                if whole.bytes(at, 8).is_some_and(|b| b.iter().any(|x| *x != 0)) {
                    out.push(at);
                }
                at += 8;
            }
        }
    }
    out
}

/// 64-bit pointers in data no symbol covers: where, and what they mean.
pub fn nameless_pointers(whole: &Whole<'_>, proof: Proof, addr: u64, len: u64) -> Vec<(u64, u64)> {
    if proof >= Proof::Addresses {
        let fields = whole.fields_in(addr, addr + len).iter();
        let wide = fields.filter(|f| u32::from(f.kind) == crate::isa::reloc::ABS64);
        return wide.filter_map(|f| Some((f.at - addr, whole.field_value(*f)?))).collect();
    }
    let skew = addr.wrapping_neg() % 8;
    let words = (skew..len.saturating_sub(7)).step_by(8);
    words
        .filter_map(|at| {
            let word = <[u8; 8]>::try_from(whole.bytes(addr + at, 8)?).ok()?;
            let value = u64::from_le_bytes(word);
            whole.is_address(value).then_some((at, value))
        })
        .collect()
}

/// The string at an address, its NUL included: printable text, tabs, line ends, the marks of printk levels and colours, or
/// UTF-8, that ends before the next span.
pub fn text_at<'w>(whole: &'w Whole<'_>, addr: u64) -> Option<&'w [u8]> {
    const LONGEST: u64 = 1 << 16;
    let (_, area) = whole.area_at(addr)?;
    if area.class == Class::Constants {
        let unit = area.entsize.max(1);
        return area.bytes(addr, unit - (addr - area.addr) % unit);
    }
    let next = whole.spans.partition_point(|s| s.addr <= addr);
    let limit = whole.spans.get(next).map_or(area.end(), |s| s.addr.min(area.end()));
    let bytes = area.bytes(addr, (limit - addr).min(LONGEST))?;
    let unit = if area.class == Class::Strings { area.entsize.max(1) as usize } else { 1 };
    if unit > 1 {
        let len = bytes.chunks_exact(unit).position(|c| c.iter().all(|b| *b == 0))?;
        return bytes.get(..(len + 1) * unit);
    }
    let len = memchr::memchr(0, bytes)?;
    let is_text = |b: &u8| matches!(b, 0x01..=0x0d | 0x1b | 0x20..=0x7e | 0x80..);
    // The bytes of a table of pointers are no text: 0xff is in every address of the kernel, and never in UTF-8.
    let text = |b: &[u8]| b.iter().all(is_text) && std::str::from_utf8(b).is_ok();
    (area.class == Class::Strings || text(&bytes[..len])).then(|| &bytes[..=len])
}

/// As [`text_at`], unless what is behind it, up to the next place anything refers to, can be no strings: the constant a
/// variable is initialised from may begin as one.
pub fn string_at<'w>(whole: &'w Whole<'_>, cuts: &[u64], addr: u64) -> Option<&'w [u8]> {
    let text = text_at(whole, addr)?;
    if whole.area_at(addr).is_some_and(|(_, a)| matches!(a.class, Class::Strings | Class::Constants)) {
        return Some(text);
    }
    let rest = extent(whole, cuts, addr).saturating_sub(text.len() as u64);
    let rest = whole.bytes(addr + text.len() as u64, rest)?;
    let is_text = |(i, b): (usize, &u8)| match b {
        0x01 => rest.get(i + 1).is_some_and(u8::is_ascii_alphanumeric),
        _ => matches!(b, 0 | b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..=0xf4),
    };
    rest.iter().enumerate().all(is_text).then_some(text)
}

/// Bytes from an address to the next one that a span has or anything refers to.
pub fn extent(whole: &Whole<'_>, cuts: &[u64], addr: u64) -> u64 {
    const LONGEST: u64 = 1 << 16;
    let Some((_, area)) = whole.area_at(addr) else { return 0 };
    let span = whole.spans.get(whole.spans.partition_point(|s| s.addr <= addr)).map_or(u64::MAX, |s| s.addr);
    let cut = cuts.get(cuts.partition_point(|c| *c <= addr)).copied().unwrap_or(u64::MAX);
    span.min(cut).min(area.end()).saturating_sub(addr).min(LONGEST)
}
