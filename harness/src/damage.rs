//! Relocatable objects damaged on purpose: one reference made to lead elsewhere.
//!
//! Input: the bytes of an x86-64 object. Output: its fields and symbols, and copies with one field redirected. Nothing is
//! checked beyond what is read: the objects come from a compiler.

/// A relocated field of a section.
#[derive(Clone, Debug)]
pub struct Field {
    /// Index of the section it is in.
    pub section: usize,
    /// Name of that section.
    pub section_name: String,
    /// Whether that section is part of the running kernel.
    pub loaded: bool,
    /// Offset in the section.
    pub offset: u64,
    /// `R_X86_64_*`
    pub kind: u32,
    /// Index of the symbol.
    pub symbol: u32,
    /// The addend.
    pub addend: i64,
    /// Where its entry is in the file.
    entry: usize,
}

/// A symbol.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// Its index.
    pub index: u32,
    /// Its name; that of the section for a section symbol.
    pub name: String,
    /// Index of its section; nothing when it is not of this object.
    pub section: Option<usize>,
    /// Offset in its section.
    pub value: u64,
    /// Whether it stands for a whole section.
    pub is_section: bool,
    /// Whether it has a place in the running kernel.
    pub loaded: bool,
}

struct Section {
    name: String,
    kind: u64,
    loaded: bool,
    at: usize,
    size: usize,
    link: usize,
    info: usize,
}

const SYMTAB: u64 = 2;
const RELA: u64 = 4;
const ALLOC: u64 = 2;

fn int(bytes: &[u8], at: usize, len: usize) -> u64 {
    let field = bytes.get(at..at + len).unwrap_or(&[]);
    field.iter().rev().fold(0, |value, b| value << 8 | u64::from(*b))
}

fn text(bytes: &[u8], at: usize) -> String {
    let rest = bytes.get(at..).unwrap_or(&[]);
    String::from_utf8_lossy(rest.split(|b| *b == 0).next().unwrap_or(&[])).into_owned()
}

fn sections(object: &[u8]) -> Vec<Section> {
    let (table, count, names) = (int(object, 40, 8) as usize, int(object, 60, 2) as usize, int(object, 62, 2) as usize);
    let header = |i: usize| table + i * 64;
    let strings = int(object, header(names) + 24, 8) as usize;
    (0..count)
        .map(|i| Section {
            name: text(object, strings + int(object, header(i), 4) as usize),
            kind: int(object, header(i) + 4, 4),
            loaded: int(object, header(i) + 8, 8) & ALLOC != 0,
            at: int(object, header(i) + 24, 8) as usize,
            size: int(object, header(i) + 32, 8) as usize,
            link: int(object, header(i) + 40, 4) as usize,
            info: int(object, header(i) + 44, 4) as usize,
        })
        .collect()
}

/// Every relocated field, by section and offset.
pub fn fields(object: &[u8]) -> Vec<Field> {
    let sections = sections(object);
    let mut all = Vec::new();
    for table in sections.iter().filter(|s| s.kind == RELA) {
        let Some(of) = sections.get(table.info) else { continue };
        for entry in (table.at..table.at + table.size).step_by(24) {
            all.push(Field {
                section: table.info,
                section_name: of.name.clone(),
                loaded: of.loaded,
                offset: int(object, entry, 8),
                kind: int(object, entry + 8, 4) as u32,
                symbol: int(object, entry + 12, 4) as u32,
                addend: int(object, entry + 16, 8).cast_signed(),
                entry,
            });
        }
    }
    all.sort_by_key(|f| (f.section, f.offset));
    all
}

/// Every symbol, by index.
pub fn symbols(object: &[u8]) -> Vec<Symbol> {
    let sections = sections(object);
    let Some(table) = sections.iter().find(|s| s.kind == SYMTAB) else { return Vec::new() };
    let strings = sections.get(table.link).map_or(0, |s| s.at);
    (table.at..table.at + table.size)
        .step_by(24)
        .zip(0..)
        .map(|(at, index)| {
            let place = int(object, at + 6, 2) as usize;
            let section = (place != 0 && place < 0xff00).then_some(place);
            let is_section = int(object, at + 4, 1) & 15 == 3;
            let name = match section.and_then(|s| sections.get(s)) {
                Some(s) if is_section => s.name.clone(),
                _ => text(object, strings + int(object, at, 4) as usize),
            };
            let loaded = section.and_then(|s| sections.get(s)).is_none_or(|s| s.loaded);
            Symbol { index, name, section, value: int(object, at + 8, 8), is_section, loaded }
        })
        .collect()
}

/// A copy in which the field refers to another symbol and addend.
pub fn redirect(object: &[u8], field: &Field, symbol: u32, addend: i64) -> Vec<u8> {
    let mut copy = object.to_vec();
    copy[field.entry + 12..field.entry + 16].copy_from_slice(&symbol.to_le_bytes());
    copy[field.entry + 16..field.entry + 24].copy_from_slice(&addend.to_le_bytes());
    copy
}
