//! A second reader of relocatable objects: functions, references and table entries, written apart from the builder's.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, OpKind};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags, SymbolSection};

#[derive(Clone, Debug)]
pub struct Sec {
    pub name: String,
    pub flags: u64,
    pub data: Vec<u8>,
    pub size: u64,
    pub align: u64,
    pub entsize: u64,
    /// Offset, type, target, addend.
    pub relocs: Vec<(u64, u32, Target)>,
}

#[derive(Clone, Debug)]
pub struct Sym {
    pub name: String,
    pub section: Option<usize>,
    pub absolute: bool,
    pub value: u64,
    pub size: u64,
    pub function: bool,
    pub global: bool,
}

/// `S + A`, the relocation's own bias still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Section(usize, i64),
    Extern(String, i64),
    Absolute(u64),
}

impl Target {
    pub fn plus(&self, n: i64) -> Self {
        match self {
            Target::Section(s, o) => Target::Section(*s, o + n),
            Target::Extern(s, o) => Target::Extern(s.clone(), o + n),
            Target::Absolute(v) => Target::Absolute(v.wrapping_add(n as u64)),
        }
    }
}

#[derive(Debug)]
pub struct Elf {
    pub sections: Vec<Sec>,
    pub symbols: Vec<Sym>,
}

/// A reference of an instruction.
#[derive(Clone, Debug)]
pub struct Ref {
    pub branch: bool,
    pub width: usize,
    pub kind: u32,
    pub target: Target,
}

/// An instruction with its reference fields blanked.
#[derive(Clone, Debug)]
pub struct Insn {
    pub at: u64,
    pub len: usize,
    pub bytes: Vec<u8>,
    pub refs: Vec<Ref>,
}

impl Elf {
    pub fn read(bytes: &[u8]) -> Self {
        let file: ElfFile64<'_, object::LittleEndian> = ElfFile64::parse(bytes).expect("an ELF file");
        let mut places = BTreeMap::new();
        for (i, s) in file.sections().enumerate() {
            places.insert(s.index().0, i);
        }
        let symbols: Vec<Sym> = file
            .symbols()
            .map(|s| Sym {
                name: s.name().unwrap_or("").to_owned(),
                section: match s.section() {
                    SymbolSection::Section(i) => places.get(&i.0).copied(),
                    _ => None,
                },
                absolute: s.section() == SymbolSection::Absolute,
                value: s.address(),
                size: s.size(),
                function: s.kind() == object::SymbolKind::Text,
                global: s.is_global(),
            })
            .collect();
        let by_index: BTreeMap<_, _> = file.symbols().map(|s| s.index().0).zip(&symbols).collect();
        let sections = file
            .sections()
            .map(|s| {
                let mut relocs: Vec<(u64, u32, Target)> = s
                    .relocations()
                    .map(|(at, r)| {
                        let RelocationFlags::Elf { r_type } = r.flags() else { panic!("no ELF relocation") };
                        let target = match r.target() {
                            RelocationTarget::Symbol(i) => match by_index.get(&i.0) {
                                Some(Sym { section: Some(place), value, .. }) => {
                                    Target::Section(*place, *value as i64 + r.addend())
                                }
                                Some(s) if s.absolute => Target::Absolute(s.value.wrapping_add(r.addend() as u64)),
                                Some(s) => Target::Extern(s.name.clone(), r.addend()),
                                None => panic!("a relocation names no symbol"),
                            },
                            _ => Target::Absolute(r.addend() as u64),
                        };
                        (at, r_type.0, target)
                    })
                    .collect();
                relocs.sort_by_key(|r| r.0);
                let SectionFlags::Elf { sh_flags, .. } = s.flags() else { panic!("no ELF section") };
                Sec {
                    name: s.name().unwrap_or("").to_owned(),
                    flags: sh_flags.0,
                    data: s.data().unwrap_or(&[]).to_vec(),
                    size: s.size(),
                    align: s.align(),
                    entsize: s.elf_section_header().sh_entsize.get(object::LittleEndian),
                    relocs,
                }
            })
            .collect();
        Self { sections, symbols }
    }

    pub fn section(&self, name: &str) -> Option<(usize, &Sec)> {
        self.sections.iter().enumerate().find(|(_, s)| s.name == name)
    }

    /// The function or object of this name, ignoring compiler numbers.
    pub fn named(&self, name: &str) -> Option<&Sym> {
        self.symbols.iter().find(|s| s.section.is_some() && s.name == name)
    }

    /// Every named thing that can be at this place: name and offset in it.
    pub fn names_at(&self, section: usize, offset: i64) -> Vec<(String, i64)> {
        self.symbols
            .iter()
            .filter(|s| s.section == Some(section) && !s.name.is_empty() && s.name != self.sections[section].name)
            .filter(|s| s.value as i64 <= offset && offset <= (s.value + s.size) as i64)
            .map(|s| (s.name.clone(), offset - s.value as i64))
            .collect()
    }

    /// The list of BTF ids that holds an offset: its label, which has no size.
    pub fn list_at(&self, section: usize, offset: i64) -> Option<(String, i64)> {
        let labels = self.symbols.iter().filter(|s| s.section == Some(section) && !s.name.is_empty());
        let labels = labels.filter(|s| !s.name.starts_with("__BTF_ID__") && s.name != ".BTF_ids");
        let last = labels.filter(|s| s.value as i64 <= offset).max_by_key(|s| s.value)?;
        Some((last.name.clone(), offset - last.value as i64))
    }

    /// Decodes a stretch of code; panics when a relocation is no operand.
    pub fn code(&self, section: usize, start: u64, size: u64) -> Vec<Insn> {
        let s = &self.sections[section];
        let bytes = &s.data[start as usize..(start + size) as usize];
        let mut relocs = s.relocs.iter().filter(|r| r.0 >= start && r.0 < start + size).peekable();
        let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
        let mut out = Vec::new();
        while decoder.can_decode() {
            let at = decoder.position();
            let insn = decoder.decode();
            assert!(!insn.is_invalid(), "{}+{:#x} does not decode", s.name, start + at as u64);
            let end = start + (at + insn.len()) as u64;
            let fields = decoder.get_constant_offsets(&insn);
            let branch = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::NearBranch64);
            let mut blank = bytes[at..at + insn.len()].to_vec();
            let mut refs = Vec::new();
            while let Some((place, kind, target)) = relocs.next_if(|r| r.0 < end) {
                let field = (place - start) as usize - at;
                let operand = fields.has_displacement() && field == fields.displacement_offset()
                    || fields.has_immediate() && field == fields.immediate_offset();
                assert!(operand, "{}+{place:#x}: a relocation is no operand", s.name);
                let width = width(*kind);
                assert!(
                    place + width as u64 <= end,
                    "{}+{place:#x}: a relocation reaches past its instruction",
                    s.name
                );
                blank[field..field + width].fill(0);
                let bias = if pc_relative(*kind) { (end - place) as i64 } else { 0 };
                refs.push(Ref { branch, width, kind: *kind, target: target.plus(bias) });
            }
            if refs.is_empty() && branch {
                let field = fields.immediate_offset();
                blank.truncate(field);
                refs.push(Ref {
                    branch,
                    width: insn.len() - field,
                    kind: 0,
                    target: Target::Section(section, insn.near_branch64() as i64),
                });
            } else if branch {
                blank.truncate(fields.immediate_offset());
            } else if refs.is_empty() && insn.is_ip_rel_memory_operand() {
                let field = fields.displacement_offset();
                blank[field..field + 4].fill(0);
                let target = Target::Section(section, insn.ip_rel_memory_address() as i64);
                refs.push(Ref { branch, width: 4, kind: 0, target });
            }
            out.push(Insn { at: start + at as u64, len: insn.len(), bytes: near_form(blank), refs });
        }
        assert!(relocs.next().is_none());
        out
    }
}

/// Two-byte branches as their near form, so that only the meaning counts.
fn near_form(bytes: Vec<u8>) -> Vec<u8> {
    match bytes[..] {
        [0xeb] => vec![0xe9],
        [cc @ 0x70..=0x7f] => vec![0x0f, cc + 0x10],
        _ => bytes,
    }
}

pub fn width(kind: u32) -> usize {
    match kind {
        1 | 24 => 8,
        2 | 4 | 10 | 11 => 4,
        _ => panic!("relocation type {kind} is not one the module loader knows"),
    }
}

pub fn pc_relative(kind: u32) -> bool {
    matches!(kind, 2 | 4 | 24)
}

/// Entry size of the tables.
pub fn stride(name: &str, elf: &Elf) -> Option<u64> {
    Some(match name {
        ".altinstructions" => {
            let (_, s) = elf.section(name)?;
            // The first of 12 and 14 at which every entry begins with a relocation.
            let fits = |n: u64| s.size % n == 0 && (0..s.size / n).all(|i| s.relocs.iter().any(|r| r.0 == i * n));
            [12, 14].into_iter().find(|n| fits(*n))?
        }
        ".parainstructions" | "__jump_table" => 16,
        ".smp_locks" | ".retpoline_sites" | ".return_sites" | ".call_sites" => 4,
        "__bug_table" => {
            // 16 bytes have three fields with relocations, 12 have two.
            let (_, s) = elf.section(name)?;
            if s.relocs.iter().any(|r| r.0 == 8) { 16 } else { 12 }
        }
        "__ex_table" => 12,
        ".static_call_sites" | "__mcount_loc" => 8,
        _ => return None,
    })
}
