//! What a manifest says of a kernel, held against the image of that kernel.
//!
//! Input: a bound manifest, an image. Output: every contradiction (LP4014). Addresses are held against kallsyms, covered
//! bytes and what stands before them against the code, the runtime's imports against the names they are of. What patch.o
//! itself refers to is not read here: its hash is in the manifest, and its records are compared with it (`verify`).

use crate::hash::{from_hex, to_hex};
use lpbuild_abi as abi;

use crate::bind::{Blacklist, IMAGE_BASE};
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::HolderName;
use crate::isa::{self, ENDBR64, NOP5};
use crate::kernel::KernelImage;
use crate::plan::Rule;
use crate::plan::manifest::{Function, Kernel, Manifest};

/// Everything in which the manifest contradicts the image.
pub fn contradictions(manifest: &Manifest, image: &KernelImage) -> Vec<Problem> {
    let Some(kernel) = &manifest.kernel else { return Vec::new() };
    let black = match Blacklist::of(image) {
        Ok(black) => black,
        Err(problem) => return vec![problem],
    };
    let mut c = Check { image, kernel, black, problems: Vec::new() };
    if !c.identity() {
        return c.problems;
    }
    manifest.functions.iter().for_each(|f| c.function(f));
    c.imports(manifest);
    c.symbols(manifest);
    c.problems.sort();
    c.problems.dedup();
    c.problems
}

struct Check<'a> {
    image: &'a KernelImage,
    kernel: &'a Kernel,
    black: std::sync::Arc<Blacklist>,
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
        if HolderName::named(&f.object).is_none() {
            self.problem(&f.symbol, format!("it is said to be in {}, not in {}", f.object, HolderName::Vmlinux));
        }
        let Some(address) = f.anchor_offset.map(|o| self.address(o)) else {
            return self.problem(&f.symbol, "the manifest gives no address");
        };
        let kallsyms = self.image.kallsyms();
        let Some(symbol) = kallsyms.at(address).iter().find(|s| *s.name == *f.symbol) else {
            let there = kallsyms.at(address).first().map_or("no symbol", |s| &s.name).to_owned();
            return self.problem(&f.symbol, format!("the manifest says {address:#x}, where the image has {there}"));
        };
        let sympos = kallsyms.sympos(symbol);
        if f.sympos != sympos {
            self.problem(&f.symbol, format!("its position is {sympos:?}, the manifest says {:?}", f.sympos));
        }
        if let Some(why) = self.black.why(address, f.old_size.into()) {
            self.problems.push(Problem::new(codes::LP2007, Place::symbol(self.image.name(), &f.symbol), why));
        }
        self.size(&f.symbol, address, f.old_size);
        self.site(f, address);
        for piece in &f.pieces {
            let Some(at) = piece.anchor_offset.map(|o| self.address(o)) else {
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
        let there = if over { Some(&NOP5[..]) } else { self.image.read(at, original.len()) };
        if there != Some(&original[..]) {
            let there = there.map_or("nothing".to_owned(), to_hex);
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
            let Some(offset) = s.anchor_offset else {
                self.problem(&s.symbol, "the manifest gives no address");
                continue;
            };
            let percpu = s.resolved == "percpu";
            let address = if percpu { offset.cast_unsigned() } else { self.address(offset) };
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
                let inside =
                    nameless && s.resolved != "kallsyms" && (percpu || self.image.section_at(address).is_some());
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
