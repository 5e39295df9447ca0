//! Whole kernels: two linked images (or two `vmlinux.o`) in, what differs between them out.
//!
//! ```text
//! image    bytes -> Whole            areas, spans, relocated fields; debug information stays in the file
//! scan     Whole -> Uses             every reference of every function, by decoding
//! pair     old x new -> Twins        which span is which
//! same     Twins -> Candidates       pairs that are not proven the same, reference by reference
//! extract  -> two symbolize::Object  everything the ordinary phases need about the candidates
//! ```
//!
//! Words of this folder:
//!
//! | word | what it is |
//! |---|---|
//! | whole | one image as one flat address space, its file mapped |
//! | area | a stretch with one kind of content, called as its section is in object files |
//! | span | what a symbol covers: a function with its padding, an object, a nameless chunk of code |
//! | head | the code of a vmlinux that runs before the kernel's own symbols begin |
//! | place | where a value leads: into a span, to an edge of one, to content no symbol covers, nowhere |
//! | use | a reference of a span, found by decoding or in the tables |
//! | twin | the span of the other image that is the same thing |
//! | rung | the step of the ladder that made two spans twins |
//! | family | a function and the pieces the compiler split off it |
//! | edge | an address that two neighbours share, the end of one and the beginning of the other |
//! | fit | sizes and labels that an image without them takes from the other one |
//! | candidate | a pair of twins that is not proven the same |
//! | extract | the candidates, written as an object with relocations |
//!
//! The scan proves almost everything the same, in time linear in the text; what is left goes through the phases every pair
//! of objects goes through (`compare` and later), so that all forms of input give the same answer.

mod area;
mod content;
mod extract;
mod families;
mod fit;
mod flow;
mod image;
mod kfuncs;
mod labels;
mod meaning;
mod open;
mod pair;
mod place;
mod replacement;
mod same;
mod scan;
mod side;
mod spans;
mod tables;

use rustc_hash::FxHashMap;

use crate::isa::reloc;
use crate::symbolize::Cover;

pub use area::Area;
pub use extract::{Extract, Unproven};
pub use flow::{Scanned, extract_pair, scan_pair};
pub use open::{Backing, is_whole};
pub use pair::{Rung, Twins};
pub use place::{by_twins, of_kernel};
pub use same::Compared;
pub use scan::{Use, Uses};
pub use spans::{Span, SpanKind, Spans};

/// Name of the area undefined symbols are in.
pub(crate) const EXTERN_AREA: &str = "*UND*";

/// Index of a span in [`Whole::spans`]; meaningful only together with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

/// What kind of file it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `vmlinux`: addresses are the kernel's.
    Linked,
    /// `vmlinux.o`: addresses are made up.
    Relocatable,
}

/// How certain it is which fields hold addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// There are no relocations: fields are recognised by their value and by the instruction around them.
    None,
    /// All fields that move with the kernel are known, per-CPU offsets are not.
    Addresses,
    /// All are known.
    All,
}

/// A symbol of a loaded section.
#[derive(Clone, Copy, Debug)]
pub struct ImageSymbol<'d> {
    /// Name.
    pub name: &'d str,
    /// Address.
    pub value: u64,
    /// Bytes; 0 when nobody says.
    pub size: u64,
    /// `STT_*`
    pub kind: u8,
    /// `STB_*`
    pub bind: u8,
    /// Source file of local symbols, an index into [`Whole::files`]; else 0.
    pub file: u32,
    /// A number that was computed or written down, not a place in a section (`SHN_ABS`).
    pub absolute: bool,
}

/// A field that holds an address.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its address.
    pub at: u64,
    /// `R_X86_64_*`
    pub kind: u8,
}

/// A field that only the symbol it names says something about: that is a number, or a place outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named<'d> {
    /// Its address.
    pub at: u64,
    /// The symbol.
    pub name: &'d str,
    /// What is added to it.
    pub addend: i64,
    /// The number, when the symbol is one.
    pub number: Option<u64>,
}

/// A kernel in one flat address space.
#[derive(Debug)]
pub struct Whole<'d> {
    /// File name, for messages.
    pub name: String,
    /// What it was.
    pub form: Form,
    /// By address.
    pub areas: Vec<Area<'d>>,
    /// Symbols of loaded sections.
    pub symbols: Vec<ImageSymbol<'d>>,
    /// Names of source files as `STT_FILE` gives them; the first is empty.
    pub files: Vec<&'d str>,
    /// Fields with absolute addresses, and in data also relative ones, by address.
    pub fields: Vec<Field>,
    /// Those of them that mean numbers or lead outside the image, by address.
    pub named: Vec<Named<'d>>,
    /// Are those all of them?
    pub proof: Proof,
    /// Functions and data objects, by address.
    pub spans: Vec<Span>,
    aliases: Vec<(SpanId, u32)>,
    markers: Vec<(u64, u32)>,
    /// Where the only one of each name is, and of each name in a source file; nowhere when there are several.
    only: FxHashMap<(&'d str, Option<&'d str>), Option<u64>>,
    /// Fields of a relocatable file that lead outside the section they are about, and its address: by field.
    strays: Vec<(u64, u64)>,
    /// Do its symbols say no sizes?
    sizeless: bool,
    /// Address of each section of the file that is loaded, by its index.
    sections: Vec<Option<u64>>,
    /// First span that can hold a place, by area and [`BUCKET`].
    index: Vec<Vec<u32>>,
    /// How far the spans reach.
    cover: Cover,
    /// How far the areas reach.
    area_cover: Cover,
    /// Addresses of the image itself, per-CPU areas apart.
    range: (u64, u64),
    /// One past the last per-CPU offset.
    percpu_end: u64,
    /// Where the initial copy of that area is.
    percpu_load: Option<u64>,
}

/// Bytes that share an entry of the index.
const BUCKET: u64 = 128;

/// A name of a place that is no function or object: the linker script's, or assembly's.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'d> {
    /// Where it is.
    pub addr: u64,
    /// The name.
    pub name: &'d str,
    /// The source file, which local names need: two files may have one each. Empty where it is not known.
    pub file: &'d str,
    /// Is it unknown to other files?
    pub local: bool,
    /// Is it a number rather than a place?
    pub absolute: bool,
}

impl Mark<'_> {
    /// Does assembly call something by it? What the linker script names is global.
    pub fn is_label(&self) -> bool {
        self.local || !self.absolute && !spans::is_of_script(self.name, false)
    }
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Inside (or at the start of) a span.
    Span(SpanId, u64),
    /// In an area, between spans.
    Gap(u16),
    /// Nowhere.
    Outside,
}

impl<'d> Whole<'d> {
    #[expect(clippy::too_many_arguments, reason = "the one place it is made")]
    fn assemble(
        name: String,
        form: Form,
        areas: Vec<Area<'d>>,
        symbols: Vec<ImageSymbol<'d>>,
        files: Vec<&'d str>,
        fields: Vec<Field>,
        (mut named, mut strays): (Vec<Named<'d>>, Vec<(u64, u64)>),
        proof: Proof,
        spans: Spans,
    ) -> Self {
        let of_image = |a: &&Area<'_>| a.addr >= crate::kernel::IMAGE_BASE;
        let first = areas.iter().find(of_image).map_or(0, |a| a.addr);
        let last = areas.iter().filter(of_image).map(Area::end).max().unwrap_or(0);
        let percpu_end = areas.iter().filter(|a| a.addr < crate::kernel::IMAGE_BASE).map(Area::end).max().unwrap_or(0);
        named.sort_unstable();
        strays.sort_unstable();
        let mut whole = Self {
            strays,
            sections: Vec::new(),
            sizeless: false,
            named,
            name,
            form,
            areas,
            symbols,
            files,
            fields,
            proof,
            spans: spans.list,
            aliases: spans.aliases,
            markers: spans.markers,
            only: FxHashMap::default(),
            index: Vec::new(),
            cover: Cover::default(),
            area_cover: Cover::default(),
            range: (first, last),
            percpu_end,
            percpu_load: None,
        };
        whole.percpu_load = whole.address_of("__per_cpu_load");
        whole.aliases.sort_unstable();
        whole.count_marks();
        whole.build_index();
        whole
    }

    /// To be done again whenever markers have changed.
    fn count_marks(&mut self) {
        self.only.clear();
        for (addr, symbol) in &self.markers {
            let symbol = &self.symbols[*symbol as usize];
            let file = self.files.get(symbol.file as usize).copied().unwrap_or_default();
            for key in [(symbol.name, None), (symbol.name, Some(file))] {
                self.only.entry(key).and_modify(|a| *a = a.filter(|a| a == addr)).or_insert(Some(*addr));
            }
        }
    }

    /// To be done again whenever spans have changed.
    fn build_index(&mut self) {
        self.index = self.buckets();
        self.cover = Cover::of(self.spans.iter().map(|s| (s.addr, s.end)));
        // Empty areas hold nothing.
        let place = |a: &Area<'_>| if a.size > 0 { (a.addr, a.end()) } else { (0, 0) };
        self.area_cover = Cover::of(self.areas.iter().map(place));
    }

    fn buckets(&self) -> Vec<Vec<u32>> {
        let mut out = Vec::with_capacity(self.areas.len());
        for area in &self.areas {
            let mut at = self.spans.partition_point(|s| s.addr <= area.addr);
            let mut buckets = Vec::with_capacity((area.size / BUCKET) as usize + 2);
            if area.is_code() || area.is_data() || area.name == EXTERN_AREA {
                let mut bucket = area.addr;
                while bucket < area.end() + BUCKET {
                    // Behind the last span that begins at or before the bucket.
                    while self.spans.get(at).is_some_and(|s| s.addr <= bucket) {
                        at += 1;
                    }
                    buckets.push(at as u32);
                    bucket += if area.name == EXTERN_AREA { image::EXTERN_STEP } else { BUCKET };
                }
            }
            out.push(buckets);
        }
        out
    }

    /// Address of a section of the file.
    pub fn section_address(&self, index: usize) -> Option<u64> {
        self.sections.get(index).copied().flatten()
    }

    /// The area that holds an address.
    pub fn area_at(&self, addr: u64) -> Option<(u16, &Area<'d>)> {
        let after = self.areas.partition_point(|a| a.addr <= addr);
        let area = |i: usize| (i as u16, &self.areas[i]);
        match after.checked_sub(1) {
            Some(last) if self.areas[last].contains(addr) => Some(area(last)),
            // Empty areas, or areas inside others.
            _ => self.area_cover.last_beyond(after, addr).map(area).filter(|a| a.1.contains(addr)),
        }
    }

    /// What is at an address.
    pub fn locate(&self, addr: u64) -> Location {
        let Some((area_id, area)) = self.area_at(addr) else { return Location::Outside };
        let step = if area.name == EXTERN_AREA { image::EXTERN_STEP } else { BUCKET };
        let Some(first) = self.index[area_id as usize].get(((addr - area.addr) / step) as usize) else {
            return Location::Gap(area_id);
        };
        let mut at = *first as usize;
        // Behind the last one that begins here or before: a few steps, unless many begin at one place.
        const STEPS: usize = 32;
        let near = at + STEPS;
        while at < near && self.spans.get(at).is_some_and(|s| s.addr <= addr) {
            at += 1;
        }
        if at == near {
            at += self.spans[at..].partition_point(|s| s.addr <= addr);
        }
        // Nearly always the one right before it.
        let holds = |s: &Span| addr < s.end || s.addr == s.end && addr == s.addr;
        let found = match at.checked_sub(1) {
            Some(last) if holds(&self.spans[last]) => Some(last),
            _ => self.cover.last_beyond(at, addr),
        };
        match found {
            Some(i) if self.spans[i].area == area_id => Location::Span(SpanId(i as u32), addr - self.spans[i].addr),
            _ => Location::Gap(area_id),
        }
    }

    /// Spans of a range of addresses that begin there.
    pub fn spans_from(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        self.spans.partition_point(|s| s.addr < from)..self.spans.partition_point(|s| s.addr < to)
    }

    /// The span.
    pub fn span(&self, id: SpanId) -> &Span {
        &self.spans[id.0 as usize]
    }
    /// The area of a span.
    pub fn area_of(&self, id: SpanId) -> &Area<'d> {
        &self.areas[self.span(id).area as usize]
    }
    /// Its name.
    pub fn name_of(&self, id: SpanId) -> &'d str {
        self.symbols[self.span(id).symbol as usize].name
    }
    /// The source file it is from, as its symbols say.
    pub fn file_of(&self, id: SpanId) -> &'d str {
        self.files.get(self.span(id).file as usize).copied().unwrap_or_default()
    }
    /// Its other names.
    pub fn aliases_of(&self, id: SpanId) -> impl Iterator<Item = &'d str> + '_ {
        let first = self.aliases.partition_point(|a| a.0 < id);
        self.aliases[first..].iter().take_while(move |a| a.0 == id).map(|a| self.symbols[a.1 as usize].name)
    }
    /// Its bytes; empty for zeroed data.
    pub fn bytes_of(&self, id: SpanId) -> &[u8] {
        let s = self.span(id);
        self.areas[s.area as usize].bytes(s.addr, s.size()).unwrap_or(&[])
    }
    /// `len` bytes at an address, if one area has them all.
    pub fn bytes(&self, addr: u64, len: u64) -> Option<&[u8]> {
        self.area_at(addr)?.1.bytes(addr, len)
    }
    /// Names the linker script or assembly gives to an address.
    pub fn markers_at(&self, addr: u64) -> impl Iterator<Item = &'d str> + '_ {
        let first = self.markers.partition_point(|m| m.0 < addr);
        self.markers[first..].iter().take_while(move |m| m.0 == addr).map(|m| self.symbols[m.1 as usize].name)
    }
    /// Is it a place assembly names for itself, without saying that it is an object, in read-only data? What is there counts.
    pub fn is_label(&self, addr: u64) -> bool {
        self.area_at(addr).is_some_and(|(_, a)| a.class == crate::symbolize::Class::Rodata)
            && self.marks_at(addr).any(|m| m.local)
    }
    /// The same with all that is known of each.
    pub fn marks_at(&self, addr: u64) -> impl Iterator<Item = Mark<'d>> + '_ {
        let first = self.markers.partition_point(|m| m.0 < addr);
        self.marks_from(first).take_while(move |m| m.addr == addr)
    }
    /// All of them.
    pub fn marks(&self) -> impl Iterator<Item = Mark<'d>> + '_ {
        self.marks_from(0)
    }
    fn marks_from(&self, first: usize) -> impl Iterator<Item = Mark<'d>> + '_ {
        self.markers.get(first..).unwrap_or(&[]).iter().map(|(addr, symbol)| {
            let symbol = &self.symbols[*symbol as usize];
            let file = self.files.get(symbol.file as usize).copied().unwrap_or_default();
            let local = symbol.bind == object::elf::STB_LOCAL.0;
            Mark { addr: *addr, name: symbol.name, file, local, absolute: symbol.absolute }
        })
    }
    /// The next place after an address that has such a name.
    pub fn next_mark(&self, addr: u64) -> Option<u64> {
        self.markers.get(self.markers.partition_point(|m| m.0 <= addr)).map(|m| m.0)
    }
    /// Is it the only place of this name, as far as `file` can tell?
    pub fn is_only_mark(&self, addr: u64, name: &str, file: Option<&str>) -> bool {
        let file = file.filter(|f| !f.is_empty());
        self.only.get(&(name, file)) == Some(&Some(addr))
    }
    /// The same around an address: names and where they are.
    pub fn markers_near(&self, addr: u64, distance: u64) -> impl Iterator<Item = (&'d str, u64)> + '_ {
        let first = self.markers.partition_point(|m| m.0 < addr.saturating_sub(distance));
        let near = self.marks_from(first).take_while(move |m| m.addr <= addr.saturating_add(distance));
        near.filter(|m| !m.absolute).map(|m| (m.name, m.addr))
    }
    /// The address of the only symbol of this name.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let mut found = self.symbols.iter().filter(|s| s.name == name).map(|s| s.value);
        let first = found.next()?;
        found.all(|v| v == first).then_some(first)
    }
    /// The area a field is about that leads outside of it.
    pub fn home_of(&self, place: u64) -> Option<(u16, &Area<'d>)> {
        let i = self.strays.binary_search_by_key(&place, |n| n.0).ok()?;
        self.area_at(self.strays[i].1)
    }
    /// What is known of a field that means a number or leads outside the image.
    pub fn named_at(&self, place: u64) -> Option<&Named<'d>> {
        let i = self.named.binary_search_by_key(&place, |n| n.at).ok()?;
        self.named.get(i)
    }
    /// Fields that hold addresses in a range.
    pub fn fields_in(&self, from: u64, to: u64) -> &[Field] {
        let a = self.fields.partition_point(|f| f.at < from);
        let b = a + self.fields[a..].partition_point(|f| f.at < to);
        &self.fields[a..b]
    }
    /// What a field holds: the address meant, without the distance to the end of an instruction.
    pub fn field_value(&self, f: Field) -> Option<u64> {
        let width = reloc::width(u32::from(f.kind))?;
        let bytes = self.bytes(f.at, width)?;
        let value = match *bytes {
            [a, b, c, d] if u32::from(f.kind) == reloc::ABS32 => u64::from(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])) as u64,
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => return None,
        };
        Some(if reloc::is_pc_relative(u32::from(f.kind)) { value.wrapping_add(f.at) } else { value })
    }
    /// Is it an address of the image?
    pub fn is_address(&self, value: u64) -> bool {
        value >= self.range.0 && value <= self.range.1
    }
    /// The per-CPU offset of an address in the initial copy of that area.
    pub fn percpu_offset(&self, addr: u64) -> Option<u64> {
        let offset = addr.checked_sub(self.percpu_load?)?;
        self.is_percpu(offset).then_some(offset)
    }
    /// May it be a per-CPU offset?
    pub fn is_percpu(&self, value: u64) -> bool {
        value < self.percpu_end
    }
}
