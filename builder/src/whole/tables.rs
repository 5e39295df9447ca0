//! The per-instruction tables of a whole image: their entries, by the function they belong to.
//!
//! In objects the relocations show where entries begin and what they refer to; here the layout of each structure does
//! (sources at [`fields`]). An area that does not have that layout is *odd*: nothing that could have entries in it is carried.

use super::{Location, SpanId, Whole};
use crate::isa::reloc;
use crate::symbolize::{Class, Table};

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The function its first field points into.
    pub span: SpanId,
    /// Which table.
    pub table: Table,
    /// Offset in the function.
    pub delta: u32,
    /// Index of its area.
    pub area: u16,
    /// Its address.
    pub at: u64,
    /// Bytes.
    pub size: u8,
}

/// The entries of the tables that are wanted, by function.
#[derive(Debug, Default)]
pub struct Slots {
    /// By function, table and offset.
    pub list: Vec<Slot>,
    /// Areas whose contents are no table of their kind.
    pub odd: Vec<(u16, String)>,
}

impl Slots {
    /// The entries of a function.
    pub fn of(&self, id: SpanId) -> &[Slot] {
        let a = self.list.partition_point(|s| s.span < id);
        let b = a + self.list[a..].partition_point(|s| s.span == id);
        &self.list[a..b]
    }
}

/// Offsets of the fields that hold addresses, and how.
pub fn fields(table: Table) -> &'static [(u8, u32)] {
    match table {
        // arch/x86/include/asm/alternative.h, struct alt_instr
        Table::Alternatives => &[(0, reloc::PC32), (4, reloc::PC32)],
        // arch/x86/include/asm/paravirt_types.h, struct paravirt_patch_site
        Table::Paravirt => &[(0, reloc::ABS64)],
        Table::SmpLocks | Table::Retpolines | Table::Returns | Table::Calls | Table::EndbrSeal | Table::OrcIp => {
            &[(0, reloc::PC32)]
        }
        Table::BootConstant | Table::BootShift => &[(0, reloc::PC32)],
        // include/asm-generic/bug.h, struct bug_entry: address, format since 6.19, file with CONFIG_DEBUG_BUGVERBOSE
        Table::Bugs => &[(0, reloc::PC32), (4, reloc::PC32), (8, reloc::PC32)],
        // arch/x86/include/asm/extable.h, struct exception_table_entry
        Table::Exceptions => &[(0, reloc::PC32), (4, reloc::PC32)],
        // include/linux/jump_label.h, struct jump_entry
        Table::Jumps => &[(0, reloc::PC32), (4, reloc::PC32), (8, reloc::PC64)],
        // include/linux/static_call_types.h, struct static_call_site
        Table::StaticCalls => &[(0, reloc::PC32), (4, reloc::PC32)],
        Table::Fentry => &[(0, reloc::ABS64)],
        Table::Orc => &[],
    }
}

/// The fields of an entry of `size` bytes.
pub fn fields_of(table: Table, size: u8) -> &'static [(u8, u32)] {
    match (table, size) {
        (Table::Bugs, 8) => &fields(table)[..1],
        (Table::Bugs, 12) => &fields(table)[..2],
        _ => fields(table),
    }
}

/// What a field of an entry means.
pub fn value(whole: &Whole<'_>, entry: u64, field: (u8, u32)) -> Option<u64> {
    let at = entry + u64::from(field.0);
    whole.field_value(super::Field { at, kind: field.1 as u8 })
}

/// Reads the tables for which `wanted` holds; entries for which `keep` does not are passed over.
pub fn read(whole: &Whole<'_>, wanted: impl Fn(Table) -> bool, keep: impl Fn(SpanId) -> bool) -> Slots {
    let mut out = Slots::default();
    for (index, area) in whole.areas.iter().enumerate() {
        let Class::Table(table) = area.class else { continue };
        if area.size == 0 || table == Table::Orc || !wanted(table) {
            continue;
        }
        match stride(whole, index as u16, table) {
            Some(stride) => {
                for at in (area.addr..area.end()).step_by(stride as usize) {
                    let Some(owner) = value(whole, at, fields(table)[0]) else { continue };
                    // Padding between functions, and entries the kernel's build has emptied, belong to nobody.
                    if let Location::Span(span, delta) = whole.locate(owner)
                        && keep(span)
                        && whole.span(span).is_code()
                    {
                        let (delta, size) = (delta as u32, stride as u8);
                        out.list.push(Slot { span, table, delta, area: index as u16, at, size });
                    }
                }
            }
            None => out.odd.push((index as u16, format!("{:#x} bytes are no table of this kind", area.size))),
        }
    }
    out.list.sort_unstable();
    out
}

/// The one entry size with which every entry belongs to code, and has in its other fields what is no code.
fn stride(whole: &Whole<'_>, area: u16, table: Table) -> Option<u64> {
    let area = &whole.areas[area as usize];
    // A sample from both ends is enough to tell the layouts apart.
    const SAMPLE: u64 = 256;
    if let [stride] = *table.strides() {
        return area.size.is_multiple_of(stride).then_some(stride);
    }
    let is_code = |addr: u64| whole.area_at(addr).is_some_and(|(_, a)| a.flags & object::elf::SHF_EXECINSTR.0 != 0);
    let is_image = |addr: u64| whole.area_at(addr).is_some();
    let fits = |stride: u64| {
        let count = area.size / stride;
        let entries = (0..count.min(SAMPLE)).chain(count.saturating_sub(SAMPLE)..count);
        // Sorting at build time moves entries of discarded code to the front, as zeroes (scripts/sorttable.c).
        let good = |at: u64| {
            let raw = whole.bytes(at, stride).unwrap_or(&[]);
            let others = || match table {
                Table::Bugs => {
                    let texts = fields_of(table, stride as u8)[1..].iter();
                    let text = |f: &(u8, u32)| value(whole, at, *f).is_some_and(|a| is_image(a) && !is_code(a));
                    texts.clone().all(text) && (stride != 8 || raw.get(6..8) == Some(&[0, 0]))
                }
                _ => true,
            };
            raw.iter().all(|b| *b == 0) || value(whole, at, fields(table)[0]).is_some_and(is_code) && others()
        };
        area.size.is_multiple_of(stride) && entries.clone().all(|i| good(area.addr + i * stride))
    };
    let mut matching = table.strides().iter().copied().filter(|s| fits(*s));
    matching.next().filter(|_| matching.next().is_none())
}
