//! Twins -> [`Compared`]: which pairs are proven the same, which have to be looked at.
//!
//! A function is the same when its bytes are, apart from the fields of references, when each reference means the same, and
//! when its table entries do. Everything else is a candidate: the ordinary `compare` decides about those.
//!
//! What no symbol covers is compared by content: strings up to their end, operands as many bytes as the instruction reads,
//! the rest up to the next place anything refers to.

use std::collections::HashSet;

use rayon::prelude::*;

use super::tables::{self, Slot, Slots};
use super::{Place, Proof, SpanId, Twins, Use, Uses, Whole};
use crate::kernel::IMAGE_BASE;
use crate::symbolize::{Class, Table, Usage};

/// Pairs that are not proven the same, in the order of the old spans.
#[derive(Debug, Default)]
pub struct Compared {
    /// Functions and pieces of functions.
    pub code: Vec<(SpanId, SpanId)>,
    /// Data.
    pub data: Vec<(SpanId, SpanId)>,
    /// Data that names the build and nothing else.
    pub stamps: Vec<(SpanId, SpanId)>,
    /// Lists the kernel walks whose entries without a name differ.
    pub lists: Vec<String>,
}

/// Two images with everything that is known about them.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a, 'd> {
    /// The old one.
    pub old: &'a Whole<'d>,
    /// The new one.
    pub new: &'a Whole<'d>,
    /// References of the old one.
    pub old_uses: &'a Uses,
    /// References of the new one.
    pub new_uses: &'a Uses,
    /// Table entries of the old one.
    pub old_slots: &'a Slots,
    /// Table entries of the new one.
    pub new_slots: &'a Slots,
    /// Which is which.
    pub twins: &'a Twins,
    /// What is known of the fields of both.
    pub proof: Proof,
    /// Places outside of spans that something refers to in the old one, by address.
    pub old_cuts: &'a [u64],
    /// The same of the new one.
    pub new_cuts: &'a [u64],
}

/// Objects that hold the time, the host and the number of a build (init/version-timestamp.c, init/version.c).
const STAMPS: &[&str] = &["linux_banner", "linux_proc_banner", "init_uts_ns", "vermagic"];

/// Tables whose entries say something the code does not show. The others are made from the code by objtool.
pub fn is_compared(table: Table) -> bool {
    !matches!(table, Table::OrcIp | Table::Orc | Table::EndbrSeal | Table::Returns | Table::Retpolines | Table::Calls)
}

/// Places outside of spans that something refers to: code, data, and the names of files in the bug table.
pub fn cuts(whole: &Whole<'_>, uses: &Uses, slots: &Slots) -> Vec<u64> {
    let mut all: Vec<u64> = uses.all().iter().filter(|u| u.span().is_none()).map(|u| u.target).collect();
    let bugs = slots.list.iter().filter(|s| s.table == Table::Bugs && s.size == 12);
    all.extend(bugs.filter_map(|s| tables::value(whole, s.at, tables::fields(Table::Bugs)[1])));
    all.par_sort_unstable();
    all.dedup();
    all
}

/// Compares all twins.
pub fn compare(s: Sides<'_, '_>) -> Compared {
    let pairs: Vec<(SpanId, SpanId)> = s.twins.iter().collect();
    let differing: Vec<(SpanId, SpanId)> =
        pairs.par_chunks(512).flat_map_iter(|chunk| chunk.iter().copied().filter(|(o, n)| !s.same(*o, *n))).collect();
    let mut out = Compared::default();
    let differing = with_users(&s, differing);
    out.lists = s.lists();
    for (o, n) in differing {
        if s.old.span(o).is_code() {
            out.code.push((o, n));
        } else if STAMPS.contains(&s.old.name_of(o)) {
            out.stamps.push((o, n));
        } else {
            out.data.push((o, n));
        }
    }
    out
}

/// Functions that refer to a constant that differs are not the same, even if every instruction is: only they can bring the
/// new one along. So are constants that point to one.
fn with_users(s: &Sides<'_, '_>, mut differing: Vec<(SpanId, SpanId)>) -> Vec<(SpanId, SpanId)> {
    let constant = |n: SpanId| s.new.area_of(n).class == Class::Rodata;
    let mut marked = vec![false; s.new.spans.len()];
    let mut any = false;
    for (_, n) in differing.iter().filter(|(_, n)| constant(*n)) {
        (marked[n.0 as usize], any) = (true, true);
    }
    if !any {
        return differing;
    }
    let known: std::collections::BTreeSet<SpanId> = differing.iter().map(|p| p.0).collect();
    let mut added = std::collections::BTreeSet::new();
    loop {
        let before = added.len();
        for (o, n) in s.twins.iter().filter(|(o, _)| !known.contains(o)) {
            let is_code = s.new.span(n).is_code();
            let refers = s.new_uses.of(n).iter().filter_map(Use::span).any(|t| marked[t.0 as usize]);
            if refers && (is_code || constant(n)) && added.insert((o, n)) {
                marked[n.0 as usize] |= !is_code;
            }
        }
        if added.len() == before {
            break;
        }
    }
    differing.extend(added);
    differing.sort_unstable();
    differing
}

impl Sides<'_, '_> {
    /// Registrations that differ in what no symbol covers: assembly gives its entries no names (`_ASM_NOKPROBE`).
    fn lists(&self) -> Vec<String> {
        let registered = |w: &Whole<'_>, name: &str| -> Vec<u64> {
            let areas = w.areas.iter().filter(|a| a.class == Class::Registered && a.name == name);
            areas.flat_map(|a| nameless_words(w, a)).collect()
        };
        let names = |w: &Whole<'_>| -> Vec<String> {
            w.areas.iter().filter(|a| a.class == Class::Registered).map(|a| a.name.clone()).collect()
        };
        let all: std::collections::BTreeSet<String> = names(self.old).into_iter().chain(names(self.new)).collect();
        let word = |w: &Whole<'_>, at: u64| Some(u64::from_le_bytes(w.bytes(at, 8)?.try_into().ok()?));
        let same = |o: u64, n: u64| match (word(self.old, o), word(self.new, n)) {
            (Some(x), Some(y)) if self.old.is_address(x) && self.new.is_address(y) => {
                self.same_address(x, y, Usage::Pointer, 0)
            }
            (x, y) => x == y,
        };
        let differs = |name: &String| {
            let (a, b) = (registered(self.old, name), registered(self.new, name));
            // In any order: that of the objects.
            let mut left = b.clone();
            let mut gone = |o: &u64| match left.iter().position(|n| same(*o, *n)) {
                Some(at) => {
                    left.swap_remove(at);
                    false
                }
                None => true,
            };
            a.len() != b.len() || a.iter().any(&mut gone)
        };
        // Distances change when anything moves: of those, only what has a name is compared.
        let relative = |w: &Whole<'_>, name: &str| {
            let own = |a: &&super::Area<'_>| a.class == Class::Registered && a.name == name;
            let fields = w.areas.iter().filter(own).flat_map(|a| w.fields_in(a.addr, a.end()));
            fields.into_iter().any(|f| crate::ingest::reloc::is_pc_relative(u32::from(f.kind)))
        };
        let moves = |name: &String| super::scan::distances(name).is_some() || relative(self.old, name);
        all.into_iter().filter(|name| !moves(name) && differs(name)).collect()
    }

    /// Is the pair proven the same?
    pub fn same(&self, o: SpanId, n: SpanId) -> bool {
        let (so, sn) = (self.old.span(o), self.new.span(n));
        match (so.is_code(), sn.is_code()) {
            (true, true) => self.same_code(o, n),
            (false, false) => self.same_data(o, n),
            _ => false,
        }
    }

    fn same_code(&self, o: SpanId, n: SpanId) -> bool {
        let (so, sn) = (self.old.span(o), self.new.span(n));
        let (mut a, mut b) = (self.old.bytes_of(o), self.new.bytes_of(n));
        if self.old.area_of(o).class != self.new.area_of(n).class {
            return false;
        }
        if a.len() != b.len() {
            // Where nobody says how long a function is, int3 behind it may be part of it or not.
            let sizeless = |w: &Whole<'_>, i: SpanId| w.symbols[w.span(i).symbol as usize].size == 0;
            let len = a.len().min(b.len());
            let tail = a[len..].iter().chain(&b[len..]).all(|x| *x == 0xcc);
            if !tail || !(sizeless(self.old, o) || sizeless(self.new, n)) {
                return false;
            }
            (a, b) = (&a[..len], &b[..len]);
        }
        let prefix = |w: &Whole<'_>, at: u64, len: u8| w.bytes(at - u64::from(len), u64::from(len)).map(<[u8]>::to_vec);
        if so.prefix != sn.prefix
            || so.prefix > 0 && prefix(self.old, so.addr, so.prefix) != prefix(self.new, sn.addr, sn.prefix)
        {
            return false;
        }
        self.same_fields((so.addr, sn.addr), a, b, self.old_uses.of(o), self.new_uses.of(n))
            && self.same_slots(self.old_slots.of(o), self.new_slots.of(n))
            && self.old_uses.trouble.binary_search(&o).is_err()
    }

    /// Same bytes between the fields, same meaning of the fields.
    fn same_fields(&self, at: (u64, u64), a: &[u8], b: &[u8], ua: &[Use], ub: &[Use]) -> bool {
        if ua.len() != ub.len() || a.len() != b.len() {
            return false;
        }
        let mut from = 0;
        for (x, y) in ua.iter().zip(ub) {
            let places = (at.0 + u64::from(x.at), at.1 + u64::from(y.at));
            let at = x.at as usize;
            if x.at != y.at || x.width != y.width || x.usage != y.usage || at < from || at > a.len() {
                return false;
            }
            if !self.same_numbers(&a[from..at], &b[from..at]) || !self.same_use(places, x, y) {
                return false;
            }
            from = (at + usize::from(x.width)).min(a.len());
        }
        self.same_numbers(&a[from..], &b[from..])
    }

    /// Same bytes, or numbers that on both sides are the physical address of the same place.
    fn same_numbers(&self, a: &[u8], b: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = a[from..].iter().zip(&b[from..]).position(|(x, y)| x != y).map(|p| from + p) {
            let word = |s: &[u8], w: usize| {
                let bytes = <[u8; 4]>::try_from(s.get(w..w + 4)?).ok()?;
                Some(IMAGE_BASE.wrapping_add(u64::from(u32::from_le_bytes(bytes) & 0x7fff_ffff)))
            };
            let same = |x: u64, y: u64| {
                let (p, q) = (x - IMAGE_BASE, y - IMAGE_BASE);
                self.marked_around(x, y) || self.same_start(x, y) || self.same_variable(p, q) || self.marked(p, q)
            };
            let window = (at.saturating_sub(3).max(from)..=at)
                .find(|w| word(a, *w).zip(word(b, *w)).is_some_and(|(x, y)| same(x, y)));
            let Some(window) = window else { return false };
            from = window + 4;
        }
        true
    }

    /// Different numbers that on both sides are the same place of the same per-CPU variable, where no relocations say so.
    fn same_variable(&self, o: u64, n: u64) -> bool {
        if self.proof == Proof::All || o == n || o < FIRST_PERCPU || n < FIRST_PERCPU {
            return false;
        }
        match (self.old.locate(o), self.new.locate(n)) {
            (Place::Span(s, d), Place::Span(t, e)) => self.twins.new_of(s) == Some(t) && d == e,
            _ => false,
        }
    }

    fn same_data(&self, o: SpanId, n: SpanId) -> bool {
        let (so, sn) = (self.old.span(o), self.new.span(n));
        let (mut a, mut b) = (self.old.bytes_of(o).to_vec(), self.new.bytes_of(n).to_vec());
        let sizeless = |w: &Whole<'_>, i: SpanId| w.symbols[w.span(i).symbol as usize].size == 0;
        let mut len = so.size().max(sn.size()) as usize;
        if so.size() != sn.size() {
            // A size that is only the distance to the next symbol has padding in it.
            // It is before something whose address says how much that can be.
            let (large, small) = if so.size() > sn.size() { (so, sn) } else { (sn, so) };
            let guessed = if so.size() > sn.size() { sizeless(self.old, o) } else { sizeless(self.new, n) };
            let padding = 1 << large.end.trailing_zeros().min(12);
            if !guessed || large.size() - small.size() >= padding {
                return false;
            }
            len = small.size() as usize;
            if a.iter().skip(len).chain(b.iter().skip(len)).any(|x| *x != 0) {
                return false;
            }
        }
        let (ro, rn) = (&self.old.area_of(o).name, &self.new.area_of(n).name);
        let sealed = |name: &str| name.starts_with(".data..ro_after_init");
        if self.old.form == self.new.form && sealed(ro) != sealed(rn) {
            return false;
        }
        crate::correlate::blank_line_number(ro, &mut a);
        crate::correlate::blank_line_number(rn, &mut b);
        // Zeroed on one side, with bytes on the other.
        a.resize(len, 0);
        b.resize(len, 0);
        let (ua, ub) = (self.old_uses.of(o), self.new_uses.of(n));
        let ua = &ua[..ua.partition_point(|u| (u.at as usize) < len)];
        let ub = &ub[..ub.partition_point(|u| (u.at as usize) < len)];
        if self.proof == Proof::All {
            return self.same_fields((so.addr, sn.addr), &a, &b, ua, ub);
        }
        self.same_words(so.addr, sn.addr, &mut a, &mut b, ua, ub)
    }

    /// Data of an image that does not say where its fields are: fields both sides show are compared as such, and words that
    /// differ are the same if, read as distances from where they are, both mean the same.
    fn same_words(&self, ao: u64, an: u64, a: &mut [u8], b: &mut [u8], ua: &[Use], ub: &[Use]) -> bool {
        let mut other = ub.iter().peekable();
        for x in ua {
            while other.next_if(|y| y.at < x.at).is_some() {}
            let Some(y) = other.next_if(|y| y.at == x.at) else { continue };
            if !self.same_target(x, y) {
                return false;
            }
            let range = x.at as usize..x.at as usize + usize::from(x.width);
            if let (Some(p), Some(q)) = (a.get_mut(range.clone()), b.get_mut(range)) {
                p.fill(0);
                q.fill(0);
            }
        }
        self.blank_packed(a, b);
        let distance = |w: &[u8], at: u64| {
            let word = <[u8; 4]>::try_from(w).ok()?;
            Some(at.wrapping_add_signed(i64::from(i32::from_le_bytes(word))))
        };
        a.chunks(4).zip(b.chunks(4)).zip(0u64..).all(|((x, y), i)| {
            x == y
                || match (distance(x, ao + i * 4), distance(y, an + i * 4)) {
                    (Some(p), Some(q)) => self.same_start(p, q),
                    _ => false,
                }
        })
    }

    /// Blanks pointers that are not aligned (`struct desc_ptr` is packed) or to per-CPU variables, where the bytes differ and
    /// both mean the same.
    fn blank_packed(&self, a: &mut [u8], b: &mut [u8]) {
        let mut from = 0;
        while let Some(at) = a[from..].iter().zip(&b[from..]).position(|(x, y)| x != y).map(|p| from + p) {
            let word = |s: &[u8], w: usize| Some(u64::from_le_bytes(<[u8; 8]>::try_from(s.get(w..w + 8)?).ok()?));
            let same = |x: u64, y: u64| self.same_start(x, y) || self.same_variable(x, y) || self.marked(x, y);
            let found =
                (at.saturating_sub(7)..=at).find(|w| word(a, *w).zip(word(b, *w)).is_some_and(|(x, y)| same(x, y)));
            if let Some(w) = found {
                a[w..w + 8].fill(0);
                b[w..w + 8].fill(0);
            }
            from = at + 1;
        }
    }

    /// Are both the start of the same thing? A number that happens to be a distance to somewhere is a number.
    fn same_start(&self, o: u64, n: u64) -> bool {
        match (self.old.locate(o), self.new.locate(n)) {
            (Place::Span(s, 0), Place::Span(t, 0)) => self.old.is_address(o) && self.twins.new_of(s) == Some(t),
            _ => false,
        }
    }

    /// As [`Self::same_target`], also for fields that lead outside the image.
    fn same_use(&self, places: (u64, u64), x: &Use, y: &Use) -> bool {
        self.same_target(x, y)
            || matches!(x.usage, Usage::Address | Usage::Indexed) && self.same_edge(places, x.target, y.target)
            || x.span.min(y.span) == u32::MAX
                && self.old.named_at(places.0).is_some_and(|a| self.new.named_at(places.1) == Some(a))
    }

    /// Objects without size (lock class keys without lockdep) share the place of what follows, and so does the end of what
    /// lies before. Does the reference mean one of these, the same in both builds?
    fn same_edge(&self, places: (u64, u64), o: u64, n: u64) -> bool {
        // What no symbol covers has its content to be compared by.
        if matches!((self.old.locate(o), self.new.locate(n)), (Place::Gap(_), Place::Gap(_))) {
            return false;
        }
        // Strictly at the place; or, where the reference leads into the middle of something, at any distance a compiler
        // biases an address by (`table - 257`).
        let begins = |w: &Whole<'_>, at: u64| matches!(w.locate(at), Place::Span(_, 0));
        let strict = begins(self.old, o) || begins(self.new, n);
        let near = |w: &Whole<'_>, at: u64| -> Vec<(SpanId, u64)> {
            let behind = w.spans.partition_point(|s| s.addr <= at);
            let range = if strict {
                behind.saturating_sub(8)..behind
            } else {
                w.spans_from(at.saturating_sub(FARTHEST), at.saturating_add(FARTHEST))
            };
            let edge =
                |s: &super::Span| if strict { s.end == at && !s.is_code() } else { s.kind != super::Kind::Extern };
            range.filter(|i| edge(&w.spans[*i])).map(|i| (SpanId(i as u32), at.wrapping_sub(w.spans[i].addr))).collect()
        };
        let (a, b) = (near(self.old, o), near(self.new, n));
        let edges = a.iter().filter_map(|(s, d)| {
            let t = self.twins.new_of(*s).filter(|t| b.contains(&(*t, *d)))?;
            (self.old.span(*s).size() == self.new.span(t).size()).then_some((*s, t))
        });
        let edges: Vec<(SpanId, SpanId)> = edges.collect();
        let by_marker = edges.is_empty() && self.same_distance_from_marker(o, n);
        // May the function be of the file of the edge? And what follows must not be new or gone, nor known to be its own: then
        // both exist in both builds, only not side by side, and that a function went over from the one to the other just
        // when they changed places beside the same edge is no explanation.
        let means = |w: &Whole<'_>, place: u64, at: u64, edge: Option<SpanId>, is_old: bool| {
            let Place::Span(function, _) = w.locate(place) else { return false };
            let (first, last) = files_of(w, function).unwrap_or((0, u32::MAX));
            let of_file = |e: SpanId| {
                let edge = w.span(e);
                edge.global || edge.file == 0 || (first..=last).contains(&edge.file)
            };
            if !edge.is_none_or(of_file) {
                return false;
            }
            match w.locate(at) {
                Place::Span(s, _) if w.span(s).size() > 0 => {
                    let other = w.span(s);
                    let own = first == last && other.file == first;
                    let paired = if is_old { self.twins.new_of(s) } else { self.twins.old_of(s) };
                    !own && paired.is_some()
                }
                // Nothing else is there.
                Place::Span(s, _) => w.span(s).size() == 0,
                Place::Gap(_) | Place::Outside => true,
            }
        };
        let both = |x: Option<SpanId>, y: Option<SpanId>| {
            means(self.old, places.0, o, x, true) && means(self.new, places.1, n, y, false)
        };
        by_marker && both(None, None) || edges.iter().any(|(x, y)| both(Some(*x), Some(*y)))
    }

    /// A place the linker script or assembly names, as far away in both builds.
    fn same_distance_from_marker(&self, o: u64, n: u64) -> bool {
        let near = |w: &Whole<'_>, at: u64| -> Vec<(String, u64)> {
            w.markers_near(at, FARTHEST).map(|(name, m)| (name.to_owned(), at.wrapping_sub(m))).collect()
        };
        let (a, b) = (near(self.old, o), near(self.new, n));
        a.iter().any(|m| b.contains(m))
    }

    fn same_target(&self, x: &Use, y: &Use) -> bool {
        if let (Some(s), Some(t)) = (x.span(), y.span())
            && self.twins.new_of(s) == Some(t)
            && x.target - self.old.span(s).addr == y.target - self.new.span(t).addr
        {
            return true;
        }
        let both_out = x.span.max(y.span) == u32::MAX;
        (both_out || self.marked_around(x.target, y.target)) && self.same_address(x.target, y.target, x.usage, x.size)
    }

    fn marked(&self, o: u64, n: u64) -> bool {
        let same = |a: (&str, &str), b: (&str, &str)| a.0 == b.0 && (a.1.is_empty() || b.1.is_empty() || a.1 == b.1);
        self.old.marks_at(o).any(|a| self.new.marks_at(n).any(|b| same(a, b))) || self.tables_of_names(o, n)
    }

    /// The tables of kallsyms, which do not name themselves: where the symbols come from kallsyms, nothing has a name there.
    fn tables_of_names(&self, o: u64, n: u64) -> bool {
        let named = |w: &Whole<'_>, at: u64| w.markers_at(at).any(|m| m.starts_with("kallsyms_"));
        let nameless = |w: &Whole<'_>, at: u64| w.sizeless && matches!(w.locate(at), Place::Gap(_));
        nameless(self.old, o) && named(self.new, n) || named(self.old, o) && nameless(self.new, n)
    }

    /// As `marked`, also for the last byte before such a place, and for one that is going to be aligned to pages.
    fn marked_around(&self, o: u64, n: u64) -> bool {
        const TO_PAGE: u64 = 0xfff;
        self.marked(o, n)
            || self.marked(o.wrapping_add(1), n.wrapping_add(1))
            || self.marked(o.wrapping_sub(TO_PAGE), n.wrapping_sub(TO_PAGE))
    }

    /// Do two addresses mean the same? `size`: bytes an instruction reads or writes there.
    pub fn same_address(&self, o: u64, n: u64, usage: Usage, size: u8) -> bool {
        self.same_place(o, n, (usage, size), &mut HashSet::new())
    }

    /// `seen`: constants that are being compared; those may point to each other.
    fn same_place(&self, o: u64, n: u64, (usage, size): (Usage, u8), seen: &mut HashSet<(u64, u64)>) -> bool {
        match (self.old.locate(o), self.new.locate(n)) {
            (Place::Span(s, d), Place::Span(t, e)) if self.twins.new_of(s) == Some(t) && d == e => true,
            // Nobody jumps to where a section begins: that is the function that is first there.
            (Place::Span(..), Place::Span(..)) => usage != Usage::Branch && self.marked_around(o, n),
            (Place::Gap(_), Place::Gap(_)) if self.old.is_label(o) && self.new.is_label(n) => {
                self.same_content(o, n, (usage, size), seen)
            }
            _ if self.marked_around(o, n) => true,
            (Place::Gap(p), Place::Gap(q)) => {
                let (p, q) = (&self.old.areas[p as usize], &self.new.areas[q as usize]);
                if matches!(p.class, Class::Table(_) | Class::Ignored(_)) {
                    return p.name == q.name && o - p.addr == n - q.addr;
                }
                self.same_content(o, n, (usage, size), seen)
            }
            (Place::Outside, Place::Outside) if o < IMAGE_BASE && n < IMAGE_BASE && o != n => {
                // Physical addresses (arch/x86/include/asm/page_64.h, __START_KERNEL_map).
                let (o, n) = (o.wrapping_add(IMAGE_BASE), n.wrapping_add(IMAGE_BASE));
                o >= IMAGE_BASE && n >= IMAGE_BASE && self.same_place(o, n, (usage, size), seen)
            }
            (Place::Outside, Place::Outside) => o == n,
            _ => false,
        }
    }

    fn same_content(&self, o: u64, n: u64, (usage, size): (Usage, u8), seen: &mut HashSet<(u64, u64)>) -> bool {
        if usage == Usage::Access && size > 0 {
            let (a, b) = (self.old.bytes(o, u64::from(size)), self.new.bytes(n, u64::from(size)));
            return a.is_some() && a == b;
        }
        if !seen.insert((o, n)) {
            return true;
        }
        let (a, b) = (extent(self.old, self.old_cuts, o), extent(self.new, self.new_cuts, n));
        let strings = (string_at(self.old, self.old_cuts, o), string_at(self.new, self.new_cuts, n));
        if let (Some(x), Some(y)) = strings {
            // Small numbers can look like a short string with more behind it.
            let rest = |w: &Whole<'_>, at: u64, text: &[u8], extent: u64| {
                let from = text.len() as u64;
                w.bytes(at + from, extent.saturating_sub(from)).is_some_and(|r| r.iter().any(|b| *b != 0))
            };
            let certain = x.len() > SHORT || !rest(self.old, o, x, a) && !rest(self.new, n, y, b);
            if x != y || certain {
                return x == y;
            }
        }
        let (Some(x), Some(y)) = (self.old.bytes(o, a), self.new.bytes(n, b)) else { return a == b && a > 0 };
        let len = x.len().min(y.len());
        if len == 0 || x[len..].iter().chain(&y[len..]).any(|z| *z != 0) {
            return false;
        }
        let (mut x, mut y) = (x[..len].to_vec(), y[..len].to_vec());
        let (p, q) = (
            nameless_pointers(self.old, self.proof, o, len as u64),
            nameless_pointers(self.new, self.proof, n, len as u64),
        );
        let same = p.len() == q.len()
            && p.iter().zip(&q).all(|((i, t), (j, u))| i == j && self.same_place(*t, *u, (Usage::Pointer, 0), seen));
        for (at, _) in p {
            for side in [&mut x, &mut y] {
                if let Some(field) = side.get_mut(at as usize..at as usize + 8) {
                    field.fill(0);
                }
            }
        }
        same && x == y
    }

    fn same_slots(&self, a: &[Slot], b: &[Slot]) -> bool {
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(x, y)| x.table == y.table && x.delta == y.delta && x.size == y.size && self.same_entry(x, y))
    }

    fn same_entry(&self, x: &Slot, y: &Slot) -> bool {
        let (Some(a), Some(b)) = (self.old.bytes(x.at, u64::from(x.size)), self.new.bytes(y.at, u64::from(y.size)))
        else {
            return false;
        };
        if matches!(x.table, Table::BootConstant | Table::BootShift)
            && self.old.areas[x.area as usize].name != self.new.areas[y.area as usize].name
        {
            return false;
        }
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        for (i, field) in tables::fields_of(x.table, x.size).iter().enumerate() {
            let width = crate::ingest::reloc::width(field.1).unwrap_or(0) as usize;
            let range = usize::from(field.0)..usize::from(field.0) + width;
            a[range.clone()].fill(0);
            b[range].fill(0);
            let (Some(p), Some(q)) = (tables::value(self.old, x.at, *field), tables::value(self.new, y.at, *field))
            else {
                return false;
            };
            let same = match (x.table, i) {
                // The function itself: the offset has been compared.
                (_, 0) => true,
                (Table::Alternatives, 1) => self.same_replacement(p, q, a.last().copied().unwrap_or(0)),
                // Flags are in the low bits of the key's address.
                (Table::Jumps, 2) | (Table::StaticCalls, 1) => {
                    p & 3 == q & 3 && self.same_address(p & !3, q & !3, Usage::Pointer, 0)
                }
                _ => self.same_address(p, q, Usage::Pointer, 0),
            };
            if !same {
                return false;
            }
        }
        a == b
    }

    /// Replacement instructions of an alternative.
    fn same_replacement(&self, o: u64, n: u64, len: u8) -> bool {
        let len = u64::from(len);
        let (Some(a), Some(b)) = (self.old.bytes(o, len), self.new.bytes(n, len)) else { return false };
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        let (ta, tb) = (blank_targets(&mut a, o), blank_targets(&mut b, n));
        a == b
            && ta.len() == tb.len()
            && ta.iter().zip(&tb).all(|(p, q)| {
                // Within the replacement, or wherever it leads.
                let inside = p.1.wrapping_sub(o) <= len && p.1.wrapping_sub(o) == q.1.wrapping_sub(n);
                p.0 == q.0 && (inside || self.same_address(p.1, q.1, p.2, 0))
            })
    }
}

/// The source files a function can be of, first and last: symbols of one file lie together, and files are in the order they
/// were linked in.
fn files_of(w: &Whole<'_>, function: SpanId) -> Option<(u32, u32)> {
    let own = w.span(function);
    if own.file > 0 {
        return Some((own.file, own.file));
    }
    let at = function.0 as usize;
    let known = |s: &&super::Span| s.file > 0;
    let before = w.spans[..at].iter().rev().take_while(|s| s.area == own.area).find(known)?.file;
    let behind = w.spans[at..].iter().take_while(|s| s.area == own.area).find(known)?.file;
    (before <= behind).then_some((before, behind))
}

/// Words of an area that are in no span, but for zeroes.
fn nameless_words(whole: &Whole<'_>, area: &super::Area<'_>) -> Vec<u64> {
    let mut out = Vec::new();
    let mut at = area.addr.next_multiple_of(8);
    while at < area.end() {
        match whole.locate(at) {
            Place::Span(s, _) => at = whole.span(s).end.max(at + 1).next_multiple_of(8),
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

/// Blanks PC-relative fields and returns where they are and what they mean.
fn blank_targets(bytes: &mut [u8], addr: u64) -> Vec<(usize, u64, Usage)> {
    use iced_x86::{Decoder, DecoderOptions};
    let copy = bytes.to_vec();
    let mut decoder = Decoder::with_ip(64, &copy, addr, DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let at = decoder.position();
        let insn = decoder.decode();
        if insn.is_invalid() {
            break;
        }
        let fields = decoder.get_constant_offsets(&insn);
        let (field, width, target, usage) = if crate::symbolize::is_near_branch(&insn) {
            (fields.immediate_offset(), fields.immediate_size(), insn.near_branch_target(), Usage::Branch)
        } else if insn.is_ip_rel_memory_operand() {
            (fields.displacement_offset(), 4, insn.ip_rel_memory_address(), Usage::Address)
        } else {
            continue;
        };
        if let Some(f) = bytes.get_mut(at + field..at + field + width) {
            f.fill(0);
        }
        found.push((at + field, target, usage));
    }
    found
}

/// 64-bit pointers in data no symbol covers: where, and what they mean.
pub fn nameless_pointers(whole: &Whole<'_>, proof: Proof, addr: u64, len: u64) -> Vec<(u64, u64)> {
    if proof >= Proof::Addresses {
        let fields = whole.fields_in(addr, addr + len).iter();
        let wide = fields.filter(|f| u32::from(f.kind) == crate::ingest::reloc::ABS64);
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

/// The first page of the per-CPU area is the same in every kernel (struct fixed_percpu_data).
const FIRST_PERCPU: u64 = 0x1000;

/// Bytes by which a compiler biases an address.
const FARTHEST: u64 = 4096;

/// Characters up to which a string may be taken for numbers.
const SHORT: usize = 4;

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
    (area.class == Class::Strings || bytes[..len].iter().all(is_text)).then(|| &bytes[..=len])
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
        _ => matches!(b, 0 | b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..),
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
