//! What a manifest says of a kernel and of its modules, held against the image of that kernel and the files of those.
//!
//! Input: a bound manifest, an image, modules. Output: every contradiction (LP4014); a module without its file: LP3009. Addresses are held against kallsyms, covered
//! bytes and what stands before them against the code, the runtime's imports against the names they are of. What patch.o
//! itself refers to is not read here: its hash is in the manifest, and its records are compared with it (`verify`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hash::{from_hex, to_hex};
use lpbuild_abi as abi;

use crate::bind::{Blacklist, IMAGE_BASE};
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::{HolderName, Running};
use crate::isa::{self, ENDBR64, NOP5, reloc};
use crate::kernel::{KernelImage, ModuleField};
use crate::plan::Rule;
use crate::plan::manifest::{Function, HolderEntry, HolderSection, Kernel, Manifest};

/// Everything in which the manifest contradicts the images.
pub fn contradictions(manifest: &Manifest, running: Running<'_>) -> Vec<Problem> {
    let Some(kernel) = &manifest.kernel else { return Vec::new() };
    let black = match Blacklist::of(running.kernel) {
        Ok(black) => black,
        Err(problem) => return vec![problem],
    };
    let image = running.kernel;
    let mut c = Check { image, kernel, running, black: BTreeMap::new(), problems: Vec::new() };
    c.black.insert(HolderName::Vmlinux, black);
    if !c.identity() {
        return c.problems;
    }
    manifest.holders.iter().for_each(|h| c.holder(h));
    manifest.functions.iter().for_each(|f| c.function(f));
    manifest.data.iter().for_each(|d| c.constant(d));
    c.image = running.kernel;
    c.imports(manifest);
    c.symbols(manifest);
    c.problems.sort();
    c.problems.dedup();
    c.problems
}

struct Check<'a> {
    /// Of the holder that is looked at.
    image: &'a KernelImage,
    kernel: &'a Kernel,
    running: Running<'a>,
    black: BTreeMap<HolderName, Arc<Blacklist>>,
    problems: Vec<Problem>,
}

/// Bytes functions are aligned to at least (`CONFIG_FUNCTION_ALIGNMENT`, arch/x86/Kconfig).
const FUNCTION_ALIGN: u64 = 16;

impl Check<'_> {
    fn problem(&mut self, symbol: &str, detail: impl Into<String>) {
        self.problems.push(Problem::new(codes::LP4014, Place::symbol(self.image.name(), symbol), detail));
    }

    fn address(&self, anchor_offset: i64) -> u64 {
        self.kernel.anchor_address.wrapping_add_signed(anchor_offset)
    }

    /// Where something is said to be, in the holder that is looked at.
    fn place(&self, anchor_offset: Option<i64>, section: Option<&str>, offset: Option<u64>) -> Option<u64> {
        match (anchor_offset, section, offset) {
            (Some(distance), None, None) if self.image.module().is_none() => Some(self.address(distance)),
            (None, Some(section), Some(offset)) if self.image.module().is_some() => {
                let section = self.image.section_named(section).filter(|s| offset <= s.size)?;
                Some(section.addr + offset)
            }
            _ => None,
        }
    }

    /// The file of a module is the one it says, and its sections are found as it says.
    fn holder(&mut self, h: &HolderEntry) {
        let name = HolderName::named(&h.name);
        let Some(module) = self.running.module(&name) else {
            let what = "its file was not given";
            return self.problems.push(Problem::new(codes::LP3009, Place::object(&h.name), what));
        };
        self.image = &module.image;
        let facts = module.image.module();
        let (id, hash) = (to_hex(module.image.build_id()), facts.map_or("", |f| &f.sha256));
        for (what, says, is) in [("build id", &h.build_id, id.as_str()), ("hash", &h.file_sha256, hash)] {
            if says != is {
                let what = format!("the {what} of {} is {is}, the manifest says {says}", h.name);
                return self.problems.push(Problem::new(codes::LP4014, Place::object(self.image.name()), what));
            }
        }
        self.black.insert(name, Arc::new(Blacklist::of_module(&module.image)));
        for section in &h.sections {
            self.section(section);
        }
    }

    fn section(&mut self, s: &HolderSection) {
        let Some(there) = self.image.section_named(&s.name) else {
            return self.problem(&s.name, "there is no such section");
        };
        if s.size != there.size.max(1) {
            self.problem(&s.name, format!("its size is {}, the manifest says {}", there.size, s.size));
        }
        for symbol in s.symbol.iter().chain(&s.witness) {
            let all = self.image.module().map_or(&[][..], |m| &m.symbols);
            let named: Vec<u64> = all.iter().filter(|n| *n.0 == *symbol.name).map(|n| n.1).collect();
            let there = (there.addr + symbol.offset, named.len());
            if (named.get(symbol.position as usize).copied().unwrap_or(0), symbol.count as usize) != there {
                self.problem(&symbol.name, format!("it is not at {:#x} of {}", symbol.offset, s.name));
            }
        }
        let Some(field) = &s.field else { return };
        let facts = self.image.module();
        let host = self.image.section_named(&field.section);
        let at = host.and_then(|h| h.addr.checked_add(field.offset));
        let found = facts.zip(at).and_then(|(m, at)| m.fields_in(at..at.saturating_add(1)).first().copied());
        let right = found.is_some_and(|f| {
            let means = self.image.part_at(f.symbol).is_some_and(|s| s.addr == there.addr);
            let raw = field_value(self.image, &f);
            means && raw == Some(there.addr.wrapping_add_signed(field.delta))
        });
        if !right {
            let what = format!(
                "the field at {:#x} of {} does not refer to it as the manifest says",
                field.offset, field.section
            );
            self.problem(&s.name, what);
        }
    }

    /// A constant that changes in its place must be there, and hold what the manifest says.
    fn constant(&mut self, c: &crate::plan::manifest::Constant) {
        self.image = self.running.kernel;
        let Some(address) = c.anchor_offset.map(|o| self.address(o)) else {
            return self.problem(&c.symbol, "the manifest gives no address");
        };
        if !self.image.kallsyms().at(address).is_empty()
            && !self.image.kallsyms().at(address).iter().any(|s| *s.name == *c.symbol)
        {
            return self.problem(&c.symbol, format!("the image has something else at {address:#x}"));
        }
        let there = self.image.read(address, c.size as usize).map(crate::hash::digest);
        if there.is_none() || there != c.original_sha256 {
            self.problem(&c.symbol, format!("the image has another content at {address:#x}"));
        }
    }

    /// Another kernel altogether: the rest would say nothing.
    fn identity(&mut self) -> bool {
        let build_id = to_hex(self.image.build_id());
        for (what, says, is) in [
            ("release", &self.kernel.release[..], self.image.release()),
            ("build id", &self.kernel.build_id, &build_id),
        ] {
            if says != is {
                let place = Place::object(self.image.name());
                let detail = format!("the {what} is {is}, the manifest says {says}");
                self.problems.push(Problem::new(codes::LP4014, place, detail));
                return false;
            }
        }
        let (anchor, says) = (self.kernel.anchor.clone(), self.kernel.anchor_address);
        match self.image.by_name(&anchor) {
            Some(is) if is == says => true,
            Some(is) => {
                self.problem(&anchor, format!("the anchor is at {is:#x}, the manifest says {says:#x}"));
                false
            }
            None => {
                self.problem(&anchor, "the anchor is not in kallsyms exactly once");
                false
            }
        }
    }

    fn function(&mut self, f: &Function) {
        let holder = HolderName::named(&f.object);
        let Some(image) = self.running.image(&holder).filter(|_| self.black.contains_key(&holder)) else {
            // Said of the holder, if that is one.
            self.image = self.running.kernel;
            return self.problem(&f.symbol, format!("it is said to be in {}, and nothing is known of that", f.object));
        };
        self.image = image;
        let Some(address) = self.place(f.anchor_offset, f.section.as_deref(), f.section_offset) else {
            return self.problem(&f.symbol, "the manifest gives no address");
        };
        let kallsyms = self.image.kallsyms();
        let Some(symbol) = kallsyms.at(address).iter().find(|s| *s.name == *f.symbol) else {
            let there = kallsyms.at(address).first().map_or("no symbol", |s| &s.name).to_owned();
            return self.problem(&f.symbol, format!("the manifest says {address:#x}, where the image has {there}"));
        };
        let sympos = kallsyms.sympos(symbol).filter(|_| self.image.module().is_none());
        if f.sympos != sympos {
            self.problem(&f.symbol, format!("its position is {sympos:?}, the manifest says {:?}", f.sympos));
        }
        if let Some(why) = self.black.get(&holder).and_then(|b| b.why(address, f.old_size.into())) {
            self.problems.push(Problem::new(codes::LP2007, Place::symbol(self.image.name(), &f.symbol), why));
        }
        self.size(&f.symbol, address, f.old_size);
        self.site(f, address);
        for piece in &f.pieces {
            let Some(at) = self.place(piece.anchor_offset, piece.section.as_deref(), piece.section_offset) else {
                self.problem(&piece.symbol, "the manifest gives no address");
                continue;
            };
            // Code without a symbol of its own is named after its section.
            let mut named = self.image.kallsyms().named(&piece.symbol);
            let other = named.len() == 0 && !piece.symbol.contains('+') && !self.image.kallsyms().at(at).is_empty();
            if other || named.len() > 0 && !named.any(|s| s.addr == at) {
                self.problem(&piece.symbol, format!("the image does not have it at {at:#x}, as the manifest says"));
            } else {
                self.size(&piece.symbol, at, piece.size);
            }
        }
    }

    /// Behind the code nothing but padding may come before the next symbol, or before the next place where a function can
    /// begin: a weak function that another one overrides is still there, without a name.
    fn size(&mut self, symbol: &str, address: u64, size: u32) {
        let end = address.wrapping_add(size.into());
        let in_code = self.image.section_at(address).is_some_and(|s| s.is_code() && end <= s.range().end);
        if size == 0 || !in_code {
            return self.problem(symbol, format!("{size} bytes at {address:#x} are not code of the image"));
        }
        // Code without a symbol goes on with more of its kind.
        if self.image.kallsyms().at(address).is_empty() {
            return;
        }
        let Some(next) = self.image.kallsyms().next_above(address).filter(|n| *n > end) else { return };
        let next = next.min(end.next_multiple_of(FUNCTION_ALIGN));
        let rest = usize::try_from(next - end).ok().and_then(|len| self.image.read(end, len));
        if rest.is_some_and(|r| !is_padding(r)) {
            self.problem(symbol, format!("it is longer than the {size} bytes of the manifest"));
        }
    }

    fn site(&mut self, f: &Function, address: u64) {
        let site = &f.site;
        let Some(original) = site.original_bytes() else {
            return self.problem(&f.symbol, "the original bytes are not hex");
        };
        let at = address.wrapping_add(site.offset.into());
        if u32::from(site.offset) + u32::from(site.size) > f.old_size {
            self.problem(&f.symbol, "the site reaches past the end of the function");
        }
        if site.instructions != isa::disassemble(&original, site.offset.into()) {
            self.problem(&f.symbol, "the instructions are not those of the original bytes");
        }
        let over = site.rule == Rule::OverFentry.name();
        let there = if over { Some(NOP5.to_vec()) } else { self.covered(at, original.len()) };
        if there.as_ref() != Some(&original) {
            let there = there.map_or("nothing".to_owned(), |b| to_hex(&b));
            self.problem(&f.symbol, format!("the image has {there} at the site, the manifest says {}", site.original));
        }
        // The call of __fentry__, which the kernel makes a nop when it boots.
        let endbr = self.image.read(address, ENDBR64.len()) == Some(&ENDBR64[..]);
        let entry = if endbr { ENDBR64.len() as u64 } else { 0 };
        let fentry = self.calls_fentry(address.wrapping_add(entry));
        let rule = match u64::from(site.offset).checked_sub(entry) {
            Some(5) if fentry => Rule::AfterFentry,
            Some(0) if fentry => Rule::OverFentry,
            Some(0) => Rule::Entry,
            _ => return self.problem(&f.symbol, format!("no site begins at +{:#x} of it", site.offset)),
        };
        if rule.name() != site.rule {
            self.problem(&f.symbol, format!("its site is {}, the manifest says {}", rule.name(), site.rule));
        }
    }

    /// Bytes of the image; of a module without what depends on where its sections are loaded.
    fn covered(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = self.image.read(at, len)?.to_vec();
        let Some(facts) = self.image.module() else { return Some(bytes) };
        let section = |address: u64| self.image.part_at(address).map(|s| s.addr);
        for f in facts.fields_in(at..at.saturating_add(len as u64)) {
            let relative = reloc::is_pc_relative(f.kind);
            let fixed = if relative {
                section(f.symbol) == section(at)
            } else {
                f.symbol < IMAGE_BASE && section(f.symbol).is_none()
            };
            let (from, width) = ((f.at - at) as usize, reloc::width(f.kind)? as usize);
            if !fixed {
                bytes.get_mut(from..from + width)?.fill(0);
            }
        }
        Some(bytes)
    }

    fn calls_fentry(&self, at: u64) -> bool {
        let there = self.image.read(at, NOP5.len());
        if there == Some(&NOP5[..]) {
            return true;
        }
        let Some([0xe8, a, b, c, d]) = there else { return false };
        let to = at.wrapping_add(5).wrapping_add_signed(i32::from_le_bytes([*a, *b, *c, *d]).into());
        self.image.kallsyms().at(to).iter().any(|s| &*s.name == "__fentry__")
    }

    fn imports(&mut self, manifest: &Manifest) {
        let names = |i: &crate::plan::manifest::BoundImport| i.symbol.clone();
        let says: Vec<String> = manifest.imports.iter().map(names).collect();
        if says.iter().ne(abi::IMPORTS.iter().map(|i| i.name)) {
            let place = Place::object(self.image.name());
            let detail = "the imports are not those of this lpbuild's runtime";
            self.problems.push(Problem::new(codes::LP4014, place, detail));
        }
        for import in &manifest.imports {
            let (is, says) = (self.image.by_name(&import.symbol), import.anchor_offset);
            if is != says.map(|o| self.address(o)) {
                let detail = format!("the image has it at {is:#x?}, the manifest says {says:?} from the anchor");
                self.problem(&import.symbol, detail);
            }
        }
    }

    fn symbols(&mut self, manifest: &Manifest) {
        for s in &manifest.symbols {
            let holder = s.object.as_deref().map_or(HolderName::Vmlinux, HolderName::named);
            let Some(image) = self.running.image(&holder) else { continue };
            self.image = image;
            let percpu = s.resolved == "percpu";
            let said = match s.anchor_offset {
                Some(offset) if percpu && s.section.is_none() => Some(offset.cast_unsigned()),
                _ => self.place(s.anchor_offset, s.section.as_deref(), s.section_offset),
            };
            let Some(address) = said else {
                self.problem(&s.symbol, "the manifest gives no address");
                continue;
            };
            let percpu = percpu || image.module().is_some() && address < IMAGE_BASE;
            let known = ["run-pre", "section", "kallsyms", "percpu"].contains(&s.resolved.as_str());
            let mut named = self.image.kallsyms().named(&s.symbol);
            let right = if !known || percpu != (address < IMAGE_BASE) {
                false
            } else if named.len() > 0 {
                named.any(|k| k.addr == address)
            } else if let Some(text) = s.symbol.strip_prefix('"') {
                self.holds_text(address, text)
            } else {
                let content = from_hex(&s.symbol).filter(|c| !c.is_empty());
                // A place inside a section has the section's name, and an offset.
                let nameless = s.symbol.contains('+') || self.image.kallsyms().at(address).is_empty();
                let inside = nameless && s.resolved != "kallsyms" && (percpu || self.image.holds(address));
                content.map_or(inside, |c| self.image.read(address, c.len()) == Some(&c[..]))
            };
            if !right {
                self.problem(&s.symbol, format!("the image does not have it at {address:#x} ({})", s.resolved));
            }
        }
    }

    /// Is the string of the image the one that is written like this, the first quote taken off?
    fn holds_text(&self, address: u64, written: &str) -> bool {
        // As it is written, a string is at least as long as it is; characters of two bytes have zeroes inside.
        let longest = (1..=written.len()).rev().find_map(|len| self.image.read(address, len)).unwrap_or(&[]);
        let ends = longest.iter().enumerate().filter(|(_, b)| **b == 0).map(|(i, _)| i);
        let mut texts = ends.filter_map(|end| longest.get(..end));
        texts.any(|t| format!("{:?}", String::from_utf8_lossy(t)).strip_prefix('"') == Some(written))
    }
}

/// What a field of a module says, without what its kind adds.
fn field_value(image: &KernelImage, f: &ModuleField) -> Option<u64> {
    let bytes = image.read(f.at, reloc::width(f.kind)? as usize)?;
    let low = bytes.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let signed =
        if bytes.len() == 4 && f.kind != reloc::ABS32 { i64::from(low as u32 as i32).cast_unsigned() } else { low };
    Some(if reloc::is_pc_relative(f.kind) { signed.wrapping_add(f.at) } else { signed })
}

/// Bytes that fill up to the next function.
fn is_padding(bytes: &[u8]) -> bool {
    let mut decoder = crate::isa::Decoder::new(64, bytes, crate::isa::DecoderOptions::NONE);
    while decoder.can_decode() {
        let insn = decoder.decode();
        if !matches!(insn.mnemonic(), crate::isa::Mnemonic::Nop | crate::isa::Mnemonic::Int3) {
            return false;
        }
    }
    true
}
