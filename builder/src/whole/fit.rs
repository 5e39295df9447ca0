//! Symbols without sizes (kallsyms) beside an image that has them.
//!
//! kallsyms tells neither objects from places the linker script names, nor functions from labels inside them, nor where
//! anything ends. The other image of the pair does, by name, for nearly everything; what fits into the place there is gets
//! its size, and what is a mere place there becomes one here.

use std::collections::{HashMap, HashSet};

use super::{Span, SpanId, Whole};

impl Whole<'_> {
    /// Fits the spans of an image without sizes to another one with.
    pub fn fit(&mut self, other: &Whole<'_>) {
        if !self.sizeless || other.sizeless {
            return;
        }
        self.demote(other);
        // Several of one name are taken in their order, when there are as many.
        let mut sizes: HashMap<(&str, bool), Vec<u64>> = HashMap::with_capacity(other.spans.len());
        for (i, span) in other.spans.iter().enumerate() {
            let id = SpanId(i as u32);
            for name in std::iter::once(other.name_of(id)).chain(other.aliases_at_start(id)) {
                sizes.entry((name, span.is_code())).or_default().push(span.size());
            }
        }
        let mut counts: HashMap<(&str, bool), (usize, usize)> = HashMap::new();
        for (i, span) in self.spans.iter().enumerate() {
            counts.entry((self.name_of(SpanId(i as u32)), span.is_code())).or_default().0 += 1;
        }
        for i in 0..self.spans.len() {
            let span = self.spans[i];
            let key = (self.name_of(SpanId(i as u32)), span.is_code());
            let (Some(known), Some((count, nth))) = (sizes.get(&key), counts.get_mut(&key)) else { continue };
            *nth += 1;
            let same = known.iter().all(|s| *s == known[0]);
            let Some(size) = known.get(if same { 0 } else { *nth - 1 }).filter(|_| same || known.len() == *count)
            else {
                continue;
            };
            let size = *size;
            let next = self.spans.get(i + 1).map_or(u64::MAX, |s| s.addr - u64::from(s.prefix));
            let end = span.addr.saturating_add(size);
            let next = next.min(self.areas[usize::from(span.area)].end());
            let fits = end <= next;
            // Code was cut before what looks like padding; int3 behind a return is part of it. Shorter than the place is fine:
            // a function that is the same up to the end of the other one never gets to what is behind.
            let padding = || {
                let cut = self.bytes(span.end, end.saturating_sub(span.end));
                cut.is_some_and(|b| b.iter().all(|x| matches!(x, 0xcc | 0x90)))
            };
            if fits && (!span.is_code() || padding()) {
                self.spans[i].end = end;
            }
        }
        self.build_index();
    }

    /// Makes other names and places of what is no function or object in the other image.
    fn demote(&mut self, other: &Whole<'_>) {
        let proper: HashSet<&str> = (0..other.spans.len() as u32)
            .map(SpanId)
            .flat_map(|i| std::iter::once(other.name_of(i)).chain(other.aliases_at_start(i)))
            .collect();
        let inner: HashSet<&str> = other
            .aliases
            .iter()
            .filter(|(id, s)| other.symbols[*s as usize].value != other.span(*id).addr)
            .map(|(_, s)| other.symbols[*s as usize].name)
            .collect();
        let places: HashSet<&str> = other.markers.iter().map(|m| other.symbols[m.1 as usize].name).collect();
        let sizes = |w: &Whole<'_>, wanted: fn(u64) -> bool| -> HashSet<String> {
            let all = (0..w.spans.len() as u32).map(SpanId).filter(|i| wanted(w.span(*i).size()));
            all.flat_map(|i| std::iter::once(w.name_of(i)).chain(w.aliases_at_start(i))).map(str::to_owned).collect()
        };
        let (sized, empty) = (sizes(other, |s| s > 0), sizes(other, |s| s == 0));
        let (mut kept, mut aliases): (Vec<Span>, Vec<(SpanId, u32)>) =
            (Vec::with_capacity(self.spans.len()), Vec::new());
        for (i, span) in self.spans.iter().enumerate() {
            let id = SpanId(i as u32);
            let first = self.aliases.partition_point(|a| a.0 < id);
            let others = self.aliases[first..].iter().take_while(|a| a.0 == id).map(|a| a.1);
            let mut own: Vec<u32> = std::iter::once(span.symbol).chain(others).collect();
            let name = |s: &u32| self.symbols[*s as usize].name;
            let known = own.iter().any(|s| proper.contains(name(s)));
            if !known && own.iter().any(|s| inner.contains(name(s))) && span.is_code() && !kept.is_empty() {
                aliases.extend(own.iter().map(|s| (SpanId(kept.len() as u32 - 1), *s)));
                continue;
            }
            if !known && own.iter().any(|s| places.contains(name(s))) && !span.is_code() {
                self.markers.extend(own.iter().map(|s| (span.addr, *s)));
                continue;
            }
            // What is empty there shares the place with what follows.
            let is_empty = |s: &u32| !span.is_code() && empty.contains(name(s)) && !sized.contains(name(s));
            let (empties, mut rest): (Vec<u32>, Vec<u32>) = own.drain(..).partition(is_empty);
            kept.extend(empties.iter().map(|s| Span { symbol: *s, end: span.addr, ..*span }));
            rest.sort_by_key(|s| !sized.contains(name(s)));
            if let Some((best, more)) = rest.split_first() {
                aliases.extend(more.iter().map(|s| (SpanId(kept.len() as u32), *s)));
                kept.push(Span { symbol: *best, ..*span });
            }
        }
        // What a label has cut short goes on to the next function.
        for (id, symbol) in &aliases {
            if self.symbols[*symbol as usize].value == kept[id.0 as usize].addr {
                continue;
            }
            let next = kept.get(id.0 as usize + 1).map_or(u64::MAX, |s| s.addr);
            let end = self.areas[usize::from(kept[id.0 as usize].area)].end().min(next);
            kept[id.0 as usize].end = end;
        }
        aliases.sort_unstable();
        self.markers.sort_unstable();
        (self.spans, self.aliases) = (kept, aliases);
        self.count_marks();
        self.build_index();
    }

    fn aliases_at_start(&self, id: SpanId) -> impl Iterator<Item = &str> + '_ {
        let addr = self.span(id).addr;
        let first = self.aliases.partition_point(|a| a.0 < id);
        let own = self.aliases[first..].iter().take_while(move |a| a.0 == id);
        own.map(|a| &self.symbols[a.1 as usize]).filter(move |s| s.value == addr).map(|s| s.name)
    }
}
