//! Whether a table has the layout of entries of a size: by where its relocations are, and by what its fields hold.
//!
//! Kernels differ in the size of an entry, and a section of 48 bytes is made of 3, 4 or 6 entries of a bug table. So a layout
//! is taken only when every entry has a relocation at each field that refers to something and nowhere else, and when what
//! only another layout would have is not there. Sources: the kernel header beside each layout.

use super::{Class, Object, Ref, Table, Target, TextKind};
use crate::ingest::SectionId;
use crate::isa::reloc;

/// Does the section consist of entries of `stride` bytes?
pub fn fits(object: &Object, id: SectionId, table: Table, stride: u64) -> bool {
    let section = object.section(id);
    let fields = fields(table, stride);
    let whole = section.size.is_multiple_of(stride) && section.data.len() as u64 == section.size;
    // In the order of the fields, each exactly once.
    let expected = (0..section.size / stride).flat_map(|entry| fields.iter().map(move |f| entry * stride + f));
    let found = section.relocs.iter().filter(|r| r.kind != reloc::NONE).map(|r| r.offset);
    whole && found.eq(expected) && holds(object, id, table, stride)
}

/// Where an entry refers to something, in bytes from its start.
fn fields(table: Table, stride: u64) -> &'static [u64] {
    match (table, stride) {
        // arch/x86/include/asm/alternative.h, struct alt_instr
        (Table::Alternatives, _) => &[0, 4],
        // include/asm-generic/bug.h, struct bug_entry: address, format since 6.19, file with CONFIG_DEBUG_BUGVERBOSE
        (Table::Bugs, 8) => &[0],
        (Table::Bugs, 16) => &[0, 4, 8],
        (Table::Bugs, _) => &[0, 4],
        // arch/x86/include/asm/extable.h: instruction, fixup, and a type that is a number since 5.16
        (Table::Exceptions, _) => &[0, 4],
        // include/linux/jump_label.h, struct jump_entry
        (Table::Jumps, _) => &[0, 4, 8],
        // include/linux/static_call_types.h, struct static_call_site
        (Table::StaticCalls, _) => &[0, 4],
        _ => &[0],
    }
}

/// Do the entries hold what the layout says?
fn holds(object: &Object, id: SectionId, table: Table, stride: u64) -> bool {
    let section = object.section(id);
    let entry = |start: u64| section.data.get(start as usize..(start + stride) as usize).unwrap_or(&[]);
    let refs = |start: u64| super::code::data_refs(object, id, start, start + stride);
    let zero = |bytes: &[u8], from: usize| bytes.get(from..).is_some_and(|b| b.iter().all(|x| *x == 0));
    (0..section.size / stride).map(|i| i * stride).all(|start| match (table, stride) {
        (Table::Bugs, 8) => zero(entry(start), 6),
        // A kernel with formats and without names of files has entries of 12 bytes as well.
        (Table::Bugs, 12) => refs(start).get(1).is_some_and(|r| is_file(object, r)),
        (Table::Bugs, 16) => refs(start).get(2).is_some_and(|r| is_file(object, r)),
        // What an alternative puts there is code of its own.
        (Table::Alternatives, _) => refs(start).get(1).is_some_and(
            |r| matches!(r.target, Target::Section(s, _) if object.class(s) == Class::Text(TextKind::AltReplacement)),
        ),
        _ => true,
    })
}

/// Does the field refer to the name of a source file (`__FILE__`)?
fn is_file(object: &Object, field: &Ref) -> bool {
    let Target::Section(section, offset) = field.target else { return false };
    let text = usize::try_from(offset).ok().and_then(|at| object.section(section).data.get(at..));
    let Some(text) = text.and_then(|t| t.split(|b| *b == 0).next()) else { return false };
    let name = text.rsplit(|b| *b == b'/').next().unwrap_or(text);
    let plain = text.iter().all(|b| b.is_ascii_graphic() || *b == b' ' || *b >= 0x80);
    plain && !object.section(section).is_exec() && name.contains(&b'.') && !name.ends_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Image, LineInfo, Reloc, Section, Symbol, SymbolId, SymbolPlace};

    /// A table `name` with `data` and PC-relative fields: offset, section of the target (1 code, 2 strings, 4 replacements), and
    /// offset there.
    fn object(name: &str, data: &[u8], fields: &[(u64, u32, i64)]) -> Object {
        let section = |name: &str, flags: u64, data: &[u8]| Section {
            name: name.into(),
            kind: if name.is_empty() { object::elf::SHT_NULL.0 } else { object::elf::SHT_PROGBITS.0 },
            flags,
            align: 1,
            entsize: 1,
            size: data.len() as u64,
            data: data.to_vec(),
            relocs: Vec::new(),
        };
        let mut table = section(name, 3, data);
        let reloc = |f: &(u64, u32, i64)| Reloc { offset: f.0, kind: reloc::PC32, symbol: SymbolId(f.1), addend: f.2 };
        table.relocs = fields.iter().map(reloc).collect();
        let symbol = |name: &str, at: u32, kind: u8, size: u64| Symbol {
            name: name.into(),
            place: if at == 0 { SymbolPlace::Undefined } else { SymbolPlace::Section(SectionId(at)) },
            value: 0,
            size,
            kind,
            bind: object::elf::STB_LOCAL.0,
        };
        let section_symbol = |at: u32| symbol("", at, object::elf::STT_SECTION.0, 0);
        let image = Image {
            name: "a.o".into(),
            sections: vec![
                section("", 0, &[]),
                section(".text", 6, &[0x90; 64]),
                section(".rodata.str1.1", 0x32, b"kernel/fork.c\0%d of %s\0\0"),
                table,
                section(".altinstr_replacement", 6, &[0x90; 16]),
            ],
            symbols: vec![
                symbol("", 0, 0, 0),
                section_symbol(1),
                section_symbol(2),
                section_symbol(3),
                section_symbol(4),
                symbol("f", 1, object::elf::STT_FUNC.0, 64),
            ],
            line_info: LineInfo::default(),
        };
        Object::new(image).unwrap()
    }

    fn sizes(object: &Object) -> Vec<usize> {
        object.entries.iter().map(|e| e.bytes.len()).collect()
    }

    const FILE: i64 = 0;
    const FORMAT: i64 = 14;
    const EMPTY: i64 = 23;

    #[test]
    fn bug_entries_of_each_size_are_told_apart() {
        let flags = |at: usize, size: usize| {
            let mut data = vec![0; size];
            data[at] = 1;
            data
        };
        // Three entries of 16 bytes are as long as four of 12 and six of 8.
        let with_format: Vec<_> = (0..3u64)
            .flat_map(|i| {
                [(i * 16, 1, i as i64), (i * 16 + 4, 2, [FORMAT, EMPTY, EMPTY][i as usize]), (i * 16 + 8, 2, FILE)]
            })
            .collect();
        assert_eq!(sizes(&object("__bug_table", &flags(14, 48), &with_format)), [16, 16, 16]);
        let with_file: Vec<_> = (0..4u64).flat_map(|i| [(i * 12, 1, i as i64), (i * 12 + 4, 2, FILE)]).collect();
        assert_eq!(sizes(&object("__bug_table", &flags(10, 48), &with_file)), [12; 4]);
        let plain: Vec<_> = (0..6u64).map(|i| (i * 8, 1, i as i64)).collect();
        assert_eq!(sizes(&object("__bug_table", &flags(4, 48), &plain)), [8; 6]);
    }

    #[test]
    fn what_no_layout_explains_is_odd() {
        let odd = |data: &[u8], fields: &[(u64, u32, i64)]| {
            let object = object("__bug_table", data, fields);
            assert!(object.entries.is_empty() && object.odd_tables.len() == 1, "{fields:?}");
        };
        // A format where the name of a file should be: entries of 12 bytes without names of files.
        odd(&[0; 12], &[(0, 1, 0), (4, 2, FORMAT)]);
        // Entries of 16 bytes, read as two of 8, would be these.
        odd(&[0; 16], &[(0, 1, 0), (4, 2, FORMAT), (8, 2, FORMAT)]);
        // Something behind the flags.
        odd(&[0, 0, 0, 0, 1, 0, 1, 0], &[(0, 1, 0)]);
        // Two fields too few, one too many.
        odd(&[0; 24], &[(0, 1, 0), (4, 2, FILE)]);
        odd(&[0; 12], &[(0, 1, 0), (4, 2, FILE), (8, 2, FILE)]);
        // The instruction is in no code.
        odd(&[0; 12], &[(0, 2, FILE), (4, 2, FILE)]);
    }

    #[test]
    fn alternatives_of_both_sizes_and_of_none() {
        let entries = |stride: u64, count: u64, to: u32| -> Vec<_> {
            (0..count).flat_map(|i| [(i * stride, 1, i as i64), (i * stride + 4, to, 0)]).collect()
        };
        // 84 bytes are seven entries of 12 bytes and six of 14.
        assert_eq!(sizes(&object(".altinstructions", &[0; 84], &entries(12, 7, 4))), [12; 7]);
        assert_eq!(sizes(&object(".altinstructions", &[0; 84], &entries(14, 6, 4))), [14; 6]);
        assert_eq!(object(".altinstructions", &[0; 12], &entries(12, 1, 1)).odd_tables.len(), 1);
        assert_eq!(object(".altinstructions", &[0; 13], &entries(13, 1, 4)).odd_tables.len(), 1);
    }
}
