//! Do two references, or two addresses, mean the same thing?
//!
//! The same offset of a pair; the same name where only the linker script or assembly has one; the same content where nothing
//! has a name; and the edges of objects, which share their place with what lies beside them.

use std::collections::HashSet;

use super::content::{extent, nameless_pointers, string_at};
use super::same::ImageSides;
use super::{Location, Mark, Proof, SpanId, Use, Whole};
use crate::kernel::IMAGE_BASE;
use crate::symbolize::{Class, Usage};

/// The first page of the per-CPU area is the same in every kernel (struct fixed_percpu_data).
const FIRST_PERCPU: u64 = 0x1000;

/// Bytes by which a compiler biases an address.
const FARTHEST: u64 = 4096;

/// Characters up to which a string may be taken for numbers.
const SHORT: usize = 4;

impl ImageSides<'_, '_> {
    /// Different numbers that on both sides are the same place of the same per-CPU variable, where no relocations say so.
    pub(super) fn same_variable(&self, o: u64, n: u64) -> bool {
        if self.proof == Proof::All || o == n || o < FIRST_PERCPU || n < FIRST_PERCPU {
            return false;
        }
        match (self.old.locate(o), self.new.locate(n)) {
            (Location::Span(s, d), Location::Span(t, e)) => self.twins.new_of(s) == Some(t) && d == e,
            _ => false,
        }
    }

    /// Are both the start of the same thing? A number that happens to be a distance to somewhere is a number.
    pub(super) fn same_start(&self, o: u64, n: u64) -> bool {
        match (self.old.locate(o), self.new.locate(n)) {
            (Location::Span(s, 0), Location::Span(t, 0)) => self.old.is_address(o) && self.twins.new_of(s) == Some(t),
            _ => false,
        }
    }

    /// As [`Self::same_target`], also for fields that lead outside the image.
    pub(super) fn same_use(&self, places: (u64, u64), x: &Use, y: &Use) -> bool {
        let named = self.old.named_at(places.0).zip(self.new.named_at(places.1));
        let named = named.map(|(a, b)| (a.number, b.number, (a.name, a.addend) == (b.name, b.addend)));
        if let Some((Some(a), Some(b), same_name)) = named {
            // A number by whatever name; or one that follows from where the kernel is.
            return x.target == y.target && same_name || a != b && same_name && self.same_address(a, b, x.usage, 0);
        }
        self.same_target(x, y)
            || matches!(x.usage, Usage::Address | Usage::Indexed) && self.same_edge(places, x.target, y.target)
            || x.span.min(y.span) == u32::MAX && matches!(named, Some((None, None, true)))
    }

    /// Objects without size (lock class keys without lockdep) share the place of what follows, and so does the end of what
    /// lies before. Does the reference mean one of these, the same in both builds?
    fn same_edge(&self, places: (u64, u64), o: u64, n: u64) -> bool {
        // What no symbol covers has its content to be compared by.
        if matches!((self.old.locate(o), self.new.locate(n)), (Location::Gap(_), Location::Gap(_))) {
            return false;
        }
        // Strictly at the place; or, where the reference leads into the middle of something, at any distance a compiler
        // biases an address by (`table - 257`).
        let begins = |w: &Whole<'_>, at: u64| matches!(w.locate(at), Location::Span(_, 0));
        let strict = begins(self.old, o) || begins(self.new, n);
        let near = |w: &Whole<'_>, at: u64| -> Vec<(SpanId, u64)> {
            let behind = w.spans.partition_point(|s| s.addr <= at);
            let range = if strict {
                behind.saturating_sub(8)..behind
            } else {
                w.spans_from(at.saturating_sub(FARTHEST), at.saturating_add(FARTHEST))
            };
            let edge =
                |s: &super::Span| if strict { s.end == at && !s.is_code() } else { s.kind != super::SpanKind::Extern };
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
            let Location::Span(function, _) = w.locate(place) else { return false };
            let (first, last) = files_of(w, function).unwrap_or((0, u32::MAX));
            let of_file = |e: SpanId| {
                let edge = w.span(e);
                edge.global || edge.file == 0 || (first..=last).contains(&edge.file)
            };
            if !edge.is_none_or(of_file) {
                return false;
            }
            match w.locate(at) {
                Location::Span(s, _) if w.span(s).size() > 0 => {
                    let other = w.span(s);
                    let own = first == last && other.file == first;
                    let paired = if is_old { self.twins.new_of(s) } else { self.twins.old_of(s) };
                    !own && paired.is_some()
                }
                // Nothing else is there.
                Location::Span(s, _) => w.span(s).size() == 0,
                Location::Gap(_) | Location::Outside => true,
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

    pub(super) fn same_target(&self, x: &Use, y: &Use) -> bool {
        if let (Some(s), Some(t)) = (x.span(), y.span())
            && self.twins.new_of(s) == Some(t)
            && x.target - self.old.span(s).addr == y.target - self.new.span(t).addr
        {
            return true;
        }
        let both_out = x.span.max(y.span) == u32::MAX;
        (both_out || self.marked_around(x.target, y.target)) && self.same_address(x.target, y.target, x.usage, x.size)
    }

    pub(super) fn marked(&self, o: u64, n: u64) -> bool {
        let same = |a: &Mark<'_>, b: &Mark<'_>| {
            a.name == b.name
                && (a.file.is_empty() || b.file.is_empty() || a.file == b.file)
                && (!a.absolute && !b.absolute || self.same_computed(o, n))
        };
        self.old.marks_at(o).any(|a| self.new.marks_at(n).any(|b| same(&a, &b))) || self.tables_of_names(o, n)
    }

    /// Absolute symbols of one name: the same number, or one the linker script computed from the same place
    /// (`INIT_PER_CPU`, arch/x86/kernel/vmlinux.lds.S).
    fn same_computed(&self, o: u64, n: u64) -> bool {
        let offsets = self.old.percpu_offset(o).zip(self.new.percpu_offset(n));
        o == n
            || offsets.is_some_and(|(p, q)| match (self.old.locate(p), self.new.locate(q)) {
                (Location::Span(s, d), Location::Span(t, e)) => self.twins.new_of(s) == Some(t) && d == e,
                _ => false,
            })
    }

    /// The tables of kallsyms, which do not name themselves: where the symbols come from kallsyms, nothing has a name there.
    fn tables_of_names(&self, o: u64, n: u64) -> bool {
        let named = |w: &Whole<'_>, at: u64| w.markers_at(at).any(|m| m.starts_with("kallsyms_"));
        let nameless = |w: &Whole<'_>, at: u64| w.sizeless && matches!(w.locate(at), Location::Gap(_));
        nameless(self.old, o) && named(self.new, n) || named(self.old, o) && nameless(self.new, n)
    }

    /// As `marked`, also for the last byte before such a place, and for one that is going to be aligned to pages.
    pub(super) fn marked_around(&self, o: u64, n: u64) -> bool {
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
            (Location::Span(s, d), Location::Span(t, e)) if self.twins.new_of(s) == Some(t) && d == e => true,
            // Nobody jumps to where a section begins: that is the function that is first there.
            (Location::Span(..), Location::Span(..)) => usage != Usage::Branch && self.marked_around(o, n),
            (Location::Gap(_), Location::Gap(_)) if self.old.is_label(o) && self.new.is_label(n) => {
                self.same_content(o, n, (usage, size), seen)
            }
            _ if self.marked_around(o, n) => true,
            (Location::Gap(p), Location::Gap(q)) => {
                let (p, q) = (&self.old.areas[p as usize], &self.new.areas[q as usize]);
                if matches!(p.class, Class::Table(_) | Class::Ignored(_)) {
                    return p.name == q.name && o - p.addr == n - q.addr;
                }
                self.same_content(o, n, (usage, size), seen)
            }
            (Location::Outside, Location::Outside) if o < IMAGE_BASE && n < IMAGE_BASE && o != n => {
                // Physical addresses (arch/x86/include/asm/page_64.h, __START_KERNEL_map).
                let (o, n) = (o.wrapping_add(IMAGE_BASE), n.wrapping_add(IMAGE_BASE));
                o >= IMAGE_BASE && n >= IMAGE_BASE && self.same_place(o, n, (usage, size), seen)
            }
            (Location::Outside, Location::Outside) => o == n,
            _ => false,
        }
    }

    fn same_content(&self, o: u64, n: u64, (usage, size): (Usage, u8), seen: &mut HashSet<(u64, u64)>) -> bool {
        if usage == Usage::Access && size > 0 {
            let size = u64::from(size);
            let known = self.old.bytes(o, size).is_some() && self.new.bytes(n, size).is_some();
            return known && self.same_bytes((o, size), (n, size), seen);
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
        self.same_bytes((o, a), (n, b), seen)
    }

    /// Bytes at an address, zeroes behind the shorter of them, and pointers among them that mean the same.
    fn same_bytes(&self, (o, a): (u64, u64), (n, b): (u64, u64), seen: &mut HashSet<(u64, u64)>) -> bool {
        let (x, y) = match (self.old.bytes(o, a), self.new.bytes(n, b)) {
            (Some(x), Some(y)) => (x, y),
            // Neither has content; what has some on one side only is not the same.
            (x, y) => return x.is_none() && y.is_none() && a == b && a > 0,
        };
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
