//! Twins -> [`Compared`]: which pairs are proven the same, which have to be looked at.
//!
//! A function is the same when its bytes are, apart from the fields of references, when each reference means the same
//! (`meaning`), and when its table entries do. Everything else is a candidate: the ordinary `compare` decides about those.

use crate::holder::VMLINUX;
use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;

use super::content::nameless_words;
use super::tables::{self, Slot, Slots};
use super::{Location, Proof, SpanId, Twins, Use, Uses, Whole, kfuncs, replacement};
use crate::accept::Accept;
use crate::codes;
use crate::error::{Place, Problem};
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
    /// Labels of assembly without type whose content differs.
    pub labels: Vec<String>,
    /// Sets of kernel functions for BPF that differ.
    pub kfuncs: Vec<String>,
}

impl Compared {
    /// What differs in places that are no functions or objects, and so no part of what is extracted.
    pub fn without_atoms(&self) -> impl Iterator<Item = Problem> + '_ {
        let list = |name: &String| {
            Problem::new(codes::LP2005, Place::object(VMLINUX).in_section(name), "an entry without a name differs")
        };
        let label = |name: &String| {
            Problem::new(codes::LP2001, Place::symbol(VMLINUX, name), "what this label of assembly names differs")
        };
        let set = |name: &String| {
            let place = Place::symbol(VMLINUX, name).in_section(".BTF_ids");
            let what = "the functions of this set, or their flags, differ";
            Problem::new(codes::LP2023, place, what).acceptable(Accept::List, name)
        };
        self.lists.iter().map(list).chain(self.labels.iter().map(label)).chain(self.kfuncs.iter().map(set))
    }
}

/// Two images with everything that is known about them.
#[derive(Clone, Copy, Debug)]
pub struct ImageSides<'a, 'd> {
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
    let bugs = slots.list.iter().filter(|s| s.table == Table::Bugs);
    let texts = bugs.flat_map(|s| tables::fields_of(s.table, s.size)[1..].iter().map(|f| (s.at, *f)));
    all.extend(texts.filter_map(|(at, field)| tables::value(whole, at, field)));
    all.par_sort_unstable();
    all.dedup();
    all
}

/// Compares all twins.
pub fn compare(s: ImageSides<'_, '_>) -> Compared {
    let pairs: Vec<(SpanId, SpanId)> = s.twins.iter().collect();
    let differing: Vec<(SpanId, SpanId)> =
        pairs.par_chunks(512).flat_map_iter(|chunk| chunk.iter().copied().filter(|(o, n)| !s.same(*o, *n))).collect();
    let mut out = Compared::default();
    let differing = with_users(&s, differing);
    out.lists = s.lists();
    out.labels = s.labels();
    out.kfuncs = kfuncs::differing(s.old, s.new);
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
fn with_users(s: &ImageSides<'_, '_>, mut differing: Vec<(SpanId, SpanId)>) -> Vec<(SpanId, SpanId)> {
    let constant = |n: SpanId| s.new.area_of(n).class == Class::Rodata;
    let mut waiting: Vec<SpanId> = differing.iter().map(|p| p.1).filter(|n| constant(*n)).collect();
    if waiting.is_empty() {
        return differing;
    }
    // Constants and who refers to them.
    let pairs: Vec<(SpanId, SpanId)> = s.twins.iter().collect();
    let users_of = |(_, n): &(SpanId, SpanId)| {
        let n = *n;
        let counts = s.new.span(n).is_code() || constant(n);
        let targets = s.new_uses.of(n).iter().filter_map(Use::span).filter(move |t| counts && constant(*t));
        targets.map(move |t| (t, n))
    };
    let mut users: Vec<(SpanId, SpanId)> = pairs.par_iter().flat_map_iter(users_of).collect();
    users.par_sort_unstable();
    let mut known: Vec<bool> = vec![false; s.new.spans.len()];
    for (_, n) in &differing {
        known[n.0 as usize] = true;
    }
    while let Some(of) = waiting.pop() {
        let first = users.partition_point(|u| u.0 < of);
        for (_, n) in users[first..].iter().take_while(|u| u.0 == of) {
            if std::mem::replace(&mut known[n.0 as usize], true) {
                continue;
            }
            differing.extend(s.twins.old_of(*n).map(|o| (o, *n)));
            if !s.new.span(*n).is_code() {
                waiting.push(*n);
            }
        }
    }
    differing.sort_unstable();
    differing
}

impl ImageSides<'_, '_> {
    /// Registrations that differ in what no symbol covers: assembly gives its entries no names (`_ASM_NOKPROBE`).
    fn lists(&self) -> Vec<String> {
        let words = |w: &Whole<'_>, name: &str| -> Vec<u64> {
            let areas = w.areas.iter().filter(|a| a.class == Class::Registered && a.name == name);
            areas.flat_map(|a| nameless_words(w, a)).collect()
        };
        let names = |w: &Whole<'_>| -> Vec<String> {
            w.areas.iter().filter(|a| a.class == Class::Registered).map(|a| a.name.clone()).collect()
        };
        let all: BTreeSet<String> = names(self.old).into_iter().chain(names(self.new)).collect();
        let differs = |name: &String| !self.same_entries(&words(self.old, name), &words(self.new, name));
        // Distances change when anything moves: of those, only what has a name is compared.
        let relative = |w: &Whole<'_>, name: &str| {
            let own = |a: &&super::Area<'_>| a.class == Class::Registered && a.name == name;
            let fields = w.areas.iter().filter(own).flat_map(|a| w.fields_in(a.addr, a.end()));
            fields.into_iter().any(|f| crate::isa::reloc::is_pc_relative(u32::from(f.kind)))
        };
        let moves = |name: &String| super::scan::distances(name).is_some() || relative(self.old, name);
        all.into_iter().filter(|name| !moves(name) && differs(name)).collect()
    }

    /// The same words, in any order: that of the objects.
    fn same_entries(&self, old: &[u64], new: &[u64]) -> bool {
        /// What cannot be paired at once is compared each with each.
        const FEW: usize = 1000;
        let word = |w: &Whole<'_>, at: u64| Some(u64::from_le_bytes(w.bytes(at, 8)?.try_into().ok()?));
        // By what an address means, in terms of the new image; other words by what they are.
        let key = |w: &Whole<'_>, at: u64, span: &dyn Fn(SpanId) -> Option<SpanId>| {
            let value = word(w, at)?;
            match w.locate(value) {
                Location::Span(s, d) if w.is_address(value) => Some((Some(span(s)?), d)),
                _ if w.is_address(value) => None,
                _ => Some((None, value)),
            }
        };
        let mut waiting: HashMap<_, Vec<u64>> = HashMap::new();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for n in new {
            match key(self.new, *n, &|s| Some(s)) {
                Some(key) => waiting.entry(key).or_default().push(*n),
                None => b.push(*n),
            }
        }
        for o in old {
            let found = key(self.old, *o, &|s| self.twins.new_of(s));
            if found.and_then(|key| waiting.get_mut(&key)?.pop()).is_none() {
                a.push(*o);
            }
        }
        b.extend(waiting.into_values().flatten());
        b.sort_unstable();
        let same = |o: u64, n: u64| match (word(self.old, o), word(self.new, n)) {
            (Some(x), Some(y)) if self.old.is_address(x) && self.new.is_address(y) => {
                self.same_address(x, y, Usage::Pointer, 0)
            }
            (x, y) => x == y,
        };
        let mut taken = |o: &u64| b.iter().position(|n| same(*o, *n)).map(|at| b.swap_remove(at)).is_some();
        old.len() == new.len() && a.len() <= FEW && a.iter().all(&mut taken)
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
    pub(super) fn same_fields(&self, at: (u64, u64), a: &[u8], b: &[u8], ua: &[Use], ub: &[Use]) -> bool {
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
    pub(super) fn same_words(&self, ao: u64, an: u64, a: &mut [u8], b: &mut [u8], ua: &[Use], ub: &[Use]) -> bool {
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
            let width = crate::isa::reloc::width(field.1).unwrap_or(0) as usize;
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
                (Table::Alternatives, 1) => self.same_instructions(p, q, u64::from(a.last().copied().unwrap_or(0))),
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

    /// Instructions no function holds: replacements of alternatives, and templates.
    pub(super) fn same_instructions(&self, o: u64, n: u64, len: u64) -> bool {
        let (Some(a), Some(b)) = (self.old.bytes(o, len), self.new.bytes(n, len)) else { return false };
        let of = |w: &Whole<'_>, addr: u64| replacement::operands(w, self.proof, addr, len);
        let (Some(ua), Some(ub)) = (of(self.old, o), of(self.new, n)) else { return false };
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        for (bytes, operands) in [(&mut a, &ua), (&mut b, &ub)] {
            for x in operands {
                if let Some(field) = bytes.get_mut(x.at..x.at + x.width) {
                    field.fill(0);
                }
            }
        }
        a == b
            && ua.len() == ub.len()
            && ua.iter().zip(&ub).all(|(x, y)| {
                // Within, or wherever it leads.
                let (p, q) = (x.target.wrapping_sub(o), y.target.wrapping_sub(n));
                let same = p <= len && p == q || self.same_address(x.target, y.target, x.usage, 0);
                x.at == y.at && x.kind == y.kind && x.usage == y.usage && same
            })
    }
}
