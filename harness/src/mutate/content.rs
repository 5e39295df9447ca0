//! What an entity means, as text.
//!
//! ```text
//! instruction   its bytes with the fields of references blanked, then each reference; branches by their name
//! reference     NAME+4 outside; NAME#12 the 12th instruction of a function; "text" of a string; {content} of what has no
//!               name, so that a switch table or an unnamed constant counts where it is used
//! entry         of a table: hung on the instruction its first field points to
//! ```

use std::collections::BTreeSet;

use super::elf::{flags, reloc};
use super::reading::{Entity, Entry, Insn, Kind, Place, Reading, UNSURE};

impl Reading {
    /// What a place is, as text.
    pub fn show(&self, place: &Place, depth: u8) -> String {
        let (section, offset) = match place {
            Place::Outside(name, at) => return format!("{name}{at:+#x}"),
            Place::In(section, offset) => (*section, *offset),
        };
        let s = &self.elf.sections[section];
        if s.is(flags::MERGE) || s.name == "__ksymtab_strings" {
            return match self.constant(section, offset) {
                Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)) + &hex(bytes),
                None => format!("{}{offset:+#x}", s.name),
            };
        }
        let Some((e, delta)) = self.nearest(section, offset) else { return format!("{}{offset:+#x}", s.name) };
        let entity = &self.entities[e];
        if entity.kind == Kind::Unnamed {
            if depth == 0 {
                return format!("{{{}{delta:+#x}}}", entity.key);
            }
            return format!("{{{}}}{delta:+#x}", self.content_to(e, depth - 1).join("; "));
        }
        if entity.kind == Kind::Code {
            return match entity.insns.binary_search_by_key(&offset, |i| i.at as i64) {
                Ok(index) => format!("{}#{index}", entity.key),
                Err(_) => format!("{}{delta:+#x}", entity.key),
            };
        }
        if !self.several.contains(&entity.key) {
            return format!("{}{delta:+#x}", entity.key);
        }
        let constant = !s.is(flags::WRITE) || s.name == "__dyndbg";
        if constant && depth > 0 {
            return format!("{}{delta:+#x}{{{}}}", entity.key, self.content_to(e, depth - 1).join("; "));
        }
        format!("{UNSURE}{}{delta:+#x}", entity.key)
    }

    /// A string with its end, or an entry of a section of constants.
    fn constant(&self, section: usize, offset: i64) -> Option<&[u8]> {
        let s = &self.elf.sections[section];
        let rest = self.elf.data(section).get(usize::try_from(offset).ok()?..)?;
        if s.is(flags::STRINGS) || s.name == "__ksymtab_strings" {
            return rest.get(..=rest.iter().position(|b| *b == 0)?);
        }
        let size = s.entsize.max(1);
        rest.get(..(size - offset as u64 % size) as usize)
    }

    /// Everything an entity is made of, line by line.
    pub fn content(&self, entity: usize) -> Vec<String> {
        self.content_to(entity, 4)
    }

    fn content_to(&self, index: usize, depth: u8) -> Vec<String> {
        let e = &self.entities[index];
        let mut lines = vec![self.class(e)];
        if self.elf.sections[e.section].is(flags::EXEC) {
            lines.extend(e.insns.iter().map(|i| self.instruction(e.section, i, depth)));
            for entry in self.by_owner.get(&index).into_iter().flatten() {
                lines.push(self.entry(&self.entries[*entry], depth));
            }
            return lines;
        }
        if e.kind == Kind::Data {
            lines.push(format!("{} bytes", e.end - e.start));
        }
        let (masked, references) = self.stretch(e.section, e.start, e.end, depth);
        for (i, chunk) in masked.chunks(16).enumerate().filter(|(_, c)| c.iter().any(|b| *b != 0)) {
            lines.push(format!("+{:#x} {}", i * 16, hex(chunk)));
        }
        lines.extend(references);
        lines
    }

    /// What kind of memory it is in.
    fn class(&self, e: &Entity) -> String {
        let name = &self.elf.sections[e.section].name;
        for (class, of) in [(".text", "text"), (".rodata", "constant"), (".data", "writable"), (".bss", "writable")] {
            let is_class = name.strip_prefix(class).is_some_and(|r| r.is_empty() || !r.starts_with(".."));
            if is_class && !(class == ".data" && name.starts_with(".data..")) && name != ".data.once" {
                return of.into();
            }
        }
        name.clone()
    }

    /// Bytes of a stretch with fields blanked, and the fields.
    fn stretch(&self, section: usize, from: u64, to: u64, depth: u8) -> (Vec<u8>, Vec<String>) {
        let mut bytes = self.elf.data(section).get(from as usize..to as usize).unwrap_or(&[]).to_vec();
        let mut fields = Vec::new();
        for r in self.elf.relocs(section, from, to) {
            let at = (r.at - from) as usize;
            if let Some(field) = bytes.get_mut(at..at + reloc::width(r.kind)) {
                field.fill(0);
            }
            let kind = if r.kind == reloc::PLT32 { reloc::PC32 } else { r.kind };
            fields.push(format!("+{at:#x} {kind} {}", self.show(&self.target(section, r), depth)));
        }
        (bytes, fields)
    }

    fn instruction(&self, section: usize, insn: &Insn, depth: u8) -> String {
        if insn.is_branch() {
            let target = match self.elf.relocs(section, insn.at, insn.end()) {
                [r, ..] => self.target(section, r),
                [] => Place::In(section, insn.decoded.near_branch_target() as i64),
            };
            let bytes = self.elf.data(section).get(insn.at as usize..).unwrap_or(&[]);
            let prefixes =
                bytes.iter().take_while(|b| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x66 | 0xf0 | 0xf2 | 0xf3));
            let prefixes: Vec<u8> = prefixes.copied().collect();
            return format!("{}{:?} {}", hex(&prefixes), insn.decoded.mnemonic(), self.show(&target, depth));
        }
        let (bytes, fields) = self.stretch(section, insn.at, insn.end(), depth);
        format!("{} {}", hex(&bytes), fields.join(" "))
    }

    fn entry(&self, entry: &Entry, depth: u8) -> String {
        let name = &self.elf.sections[entry.section].name;
        let (mut bytes, mut fields) = self.stretch(entry.section, entry.start, entry.start + entry.size, depth);
        if name == "__bug_table" {
            // The line, which is printed and nothing else (include/asm-generic/bug.h).
            bytes[8..10].fill(0);
        }
        let owner = &self.entities[entry.owner];
        let index = owner.insns.partition_point(|i| i.at <= entry.about).saturating_sub(1);
        let into = owner.insns.get(index).map_or(0, |i| entry.about - i.at);
        fields[0] = format!("at #{index}+{into}");
        if self.is_alternatives(entry.section)
            && let Some((section, from, len)) = self.replacement(entry.section, entry.start, entry.size)
        {
            let (bytes, inner) = self.stretch(section, from, from + len, depth);
            fields[1] = format!("replacement {} {}", hex(&bytes), inner.join(" "));
        }
        format!("{name} {} {}", hex(&bytes), fields.join(" "))
    }

    /// Keys of everything an entity refers to itself, through entries and through what has no name.
    pub fn mentions(&self, index: usize) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.mention(index, 4, &mut found);
        found
    }

    fn mention(&self, index: usize, depth: u8, found: &mut BTreeSet<String>) {
        let e = &self.entities[index];
        let mut stretches = vec![(e.section, e.start, e.end)];
        for entry in self.by_owner.get(&index).into_iter().flatten().map(|i| &self.entries[*i]) {
            stretches.push((entry.section, entry.start, entry.start + entry.size));
            if self.is_alternatives(entry.section)
                && let Some((s, from, len)) = self.replacement(entry.section, entry.start, entry.size)
            {
                stretches.push((s, from, from + len));
            }
        }
        let branches = e.insns.iter().filter(|i| i.is_branch());
        let resolved = branches.map(|i| Place::In(e.section, i.decoded.near_branch_target() as i64));
        let fields = stretches
            .iter()
            .flat_map(|(s, from, to)| self.elf.relocs(*s, *from, *to).iter().map(|r| self.target(*s, r)));
        for place in fields.chain(resolved) {
            match place {
                Place::Outside(name, _) => {
                    found.insert(name);
                }
                Place::In(section, offset) => {
                    let Some((to, _)) = self.nearest(section, offset).filter(|(to, _)| *to != index) else { continue };
                    let new = found.insert(self.entities[to].key.clone());
                    if self.entities[to].kind == Kind::Unnamed && depth > 0 && (new || depth == 4) {
                        self.mention(to, depth - 1, found);
                    }
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
