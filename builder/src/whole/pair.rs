//! Two images -> [`Twins`]: which span is which. The ladder of `correlate`, with the source file as scope.
//!
//! 1. `name`       the same name, once on each side
//! 2. `file`       the same name, once in a source file of the same name; files of one name are told apart by what else
//!    they share
//! 3. `base-name`  the same without numbers, once in the file; clones of functions by their full names
//! 4. `reference`  referred to at the same place of a pair of functions; those of the same shape decide first
//! 5. `neighbour`  the same name right behind a pair, where no symbol says the file; then references once more
//! 6. `content`    the same content, once in the file
//! 7. `order`      as many with the same sizes in the same order: the weak rung
//!
//! A wrong pair of functions does no harm, they count as changed. Of writable data it would mix up state: what has no pair, or
//! only one by neighbour, by order, as one of several a changed function refers to, or by its name while other functions use it,
//! is remembered as ambiguous.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};

use super::spans::AUX_NAME;
use super::{SpanId, SpanKind, Use, Uses, Whole};
use crate::correlate::Level;
use crate::symbolize::base_name;
use crate::symbolize::{Class, Usage, known_sections};

/// The rung that paired two spans; those of `correlate` and what only whole images need.
pub type Rung = Level;

/// Which is which.
#[derive(Debug)]
pub struct Twins {
    to_new: Vec<u32>,
    to_old: Vec<u32>,
    rung: Vec<Rung>,
    /// Source files: index of the new one, by that of the old one; 0 when there is none.
    pub files: Vec<u32>,
    /// New data that may or may not be one of several old objects, also where one of them was taken for it.
    pub ambiguous: BTreeSet<SpanId>,
}

const NONE: u32 = u32::MAX;

impl Twins {
    /// The new span of an old one.
    pub fn new_of(&self, old: SpanId) -> Option<SpanId> {
        self.to_new.get(old.0 as usize).filter(|n| **n != NONE).map(|n| SpanId(*n))
    }
    /// The old span of a new one.
    pub fn old_of(&self, new: SpanId) -> Option<SpanId> {
        self.to_old.get(new.0 as usize).filter(|n| **n != NONE).map(|n| SpanId(*n))
    }
    /// How an old span was paired.
    pub fn rung(&self, old: SpanId) -> Rung {
        self.rung.get(old.0 as usize).copied().unwrap_or(Rung::Order)
    }
    /// All pairs in the order of the old spans.
    pub fn iter(&self) -> impl Iterator<Item = (SpanId, SpanId)> + '_ {
        self.to_new.iter().enumerate().filter(|(_, n)| **n != NONE).map(|(o, n)| (SpanId(o as u32), SpanId(*n)))
    }
    fn add(&mut self, o: SpanId, n: SpanId, rung: Rung) {
        if self.to_new[o.0 as usize] == NONE && self.to_old[n.0 as usize] == NONE {
            self.to_new[o.0 as usize] = n.0;
            self.to_old[n.0 as usize] = o.0;
            self.rung[o.0 as usize] = rung;
        }
    }
}

/// Both images and what they refer to.
struct Pairing<'a, 'd> {
    old: &'a Whole<'d>,
    new: &'a Whole<'d>,
    old_uses: &'a Uses,
    new_uses: &'a Uses,
    /// Do the symbols of both say the source file?
    scoped: bool,
    twins: Twins,
}

/// Pairs the spans of two images.
pub fn pair<'d>(old: &Whole<'d>, new: &Whole<'d>, old_uses: &Uses, new_uses: &Uses) -> Twins {
    let twins = Twins {
        to_new: vec![NONE; old.spans.len()],
        to_old: vec![NONE; new.spans.len()],
        rung: vec![Rung::Name; old.spans.len()],
        files: vec![0; old.files.len()],
        ambiguous: BTreeSet::new(),
    };
    // An image whose symbols do not say the file (strip --strip-debug takes that away) leaves none for the other either.
    let scoped = old.files.len() > 1 && new.files.len() > 1;
    let mut p = Pairing { old, new, old_uses, new_uses, scoped, twins };
    p.by_unique(Rung::Name, |_, _| 0, |w, i| name_hash(w.name_of(i)));
    p.pair_files();
    let twin_files = p.twins.files.clone();
    // Files by one number on both sides: that of the new one. Old files without a twin get numbers nobody has.
    let file = move |w: &Whole<'_>, i: SpanId, is_old: bool| {
        let f = if scoped { w.span(i).file } else { 0 };
        match (is_old, f) {
            (_, 0) => 0,
            (false, f) => f,
            (true, f) => twin_files.get(f as usize).copied().filter(|t| *t > 0).unwrap_or(f | 1 << 31),
        }
    };
    p.by_unique(Rung::Name, |s, i| file(s.0, i, s.1), |w, i| name_hash(w.name_of(i)));
    p.by_alias();
    p.by_unique_base(&file, scoped);
    p.by_reference();
    p.by_neighbour(&file);
    p.by_reference();
    p.leftovers(&file);
    p.doubt_users();
    p.twins
}

type Hasher64 = BuildHasherDefault<DefaultHasher>;

/// Old and new spans by file, class and name without numbers.
type Groups = BTreeMap<(u32, u8, String), (Vec<SpanId>, Vec<SpanId>)>;

fn name_hash(name: &str) -> u64 {
    rustc_hash::FxBuildHasher.hash_one(name)
}

fn is_numbered(name: &str) -> bool {
    base_name(name) != name
}

/// What must agree besides the name: code or data, and the kind of section.
fn class_key(whole: &Whole<'_>, id: SpanId) -> u8 {
    match (whole.span(id).kind, whole.area_of(id).class) {
        (SpanKind::Function | SpanKind::Chunk, _) => 0,
        (SpanKind::Extern, _) => 7,
        // A variable that gains or loses its initial value moves between these; it is still the same variable.
        (_, Class::Data | Class::Bss) => 1,
        (_, Class::Rodata) => 2,
        (_, Class::Percpu) => 3,
        (_, Class::InitData) => 4,
        (_, Class::Registered) => 5,
        _ => 6,
    }
}

/// Does it hold what must not be mixed up? Not empty objects, nor what only decides whether a message is printed: ratelimit
/// states (include/linux/ratelimit.h), and descriptors of debug messages, whose content is compared.
fn has_state(whole: &Whole<'_>, id: SpanId) -> bool {
    let area = whole.area_of(id);
    let carried = known_sections::carried_as(&area.name).is_some();
    let writable = matches!(area.class, Class::Data | Class::Bss | Class::Percpu) && !carried;
    let of_message = is_once(whole, id) || base_name(whole.name_of(id)) == "_rs";
    writable && whole.span(id).kind == SpanKind::Data && whole.span(id).size() > 0 && !of_message
}

/// One-shot flags and lock class keys: a fresh one only means one more message.
fn is_once(whole: &Whole<'_>, id: SpanId) -> bool {
    matches!(whole.area_of(id).name.as_str(), ".data.once" | ".data..once")
        || matches!(&*base_name(whole.name_of(id)), "__key" | "__already_done" | "__warned")
}

impl<'d> Pairing<'_, 'd> {
    fn unpaired_old(&self) -> impl Iterator<Item = SpanId> + '_ {
        (0..self.old.spans.len() as u32).map(SpanId).filter(|i| self.twins.new_of(*i).is_none())
    }
    fn unpaired_new(&self) -> impl Iterator<Item = SpanId> + '_ {
        (0..self.new.spans.len() as u32).map(SpanId).filter(|i| self.twins.old_of(*i).is_none())
    }

    /// Adds a pair that may be wrong.
    fn add_weak(&mut self, o: SpanId, n: SpanId, rung: Rung) {
        self.twins.add(o, n, rung);
        if self.twins.new_of(o) == Some(n) && has_state(self.new, n) {
            self.twins.ambiguous.insert(n);
        }
    }

    /// Pairs what has a key once on each side. The scope sees the image and whether it is the old one.
    fn by_unique(
        &mut self,
        rung: Rung,
        scope: impl Fn((&Whole<'d>, bool), SpanId) -> u32,
        key: impl Fn(&Whole<'d>, SpanId) -> u64,
    ) {
        let of = |w: &Whole<'d>, is_old: bool, i: SpanId| {
            (key(w, i) ^ (u64::from(class_key(w, i)) << 56), scope((w, is_old), i), i)
        };
        // The number of a variable means nothing, not even within one file.
        let named = |w: &Whole<'d>, i: &SpanId| w.span(*i).is_code() || !is_numbered(w.name_of(*i));
        let mut o: Vec<_> = self.unpaired_old().filter(|i| named(self.old, i)).map(|i| of(self.old, true, i)).collect();
        let mut n: Vec<_> =
            self.unpaired_new().filter(|i| named(self.new, i)).map(|i| of(self.new, false, i)).collect();
        rayon::join(|| o.sort_unstable(), || n.sort_unstable());
        let (mut i, mut j) = (0, 0);
        while i < o.len() && j < n.len() {
            let (a, b) = ((o[i].0, o[i].1), (n[j].0, n[j].1));
            let (next_i, next_j) = (run(&o, i), run(&n, j));
            match a.cmp(&b) {
                std::cmp::Ordering::Less => i = next_i,
                std::cmp::Ordering::Greater => j = next_j,
                std::cmp::Ordering::Equal => {
                    if next_i - i == 1 && next_j - j == 1 {
                        self.twins.add(o[i].2, n[j].2, rung);
                    }
                    (i, j) = (next_i, next_j);
                }
            }
        }
    }

    /// Files of one name on each side are the same; where there are several, those that share most.
    fn pair_files(&mut self) {
        let mut votes: HashMap<(u32, u32), u32, Hasher64> = HashMap::default();
        for (o, n) in self.twins.iter() {
            let (a, b) = (self.old.span(o).file, self.new.span(n).file);
            if a > 0 && b > 0 {
                *votes.entry((a, b)).or_default() += 1;
            }
        }
        let mut ranked: Vec<((u32, u32), u32)> = votes.into_iter().collect();
        ranked.sort_unstable_by_key(|(pair, n)| (std::cmp::Reverse(*n), *pair));
        let mut taken = vec![false; self.new.files.len()];
        for ((a, b), _) in ranked {
            let same = self.old.files[a as usize] == self.new.files[b as usize];
            if same && self.twins.files[a as usize] == 0 && !taken[b as usize] {
                self.twins.files[a as usize] = b;
                taken[b as usize] = true;
            }
        }
        // Without anything in common: by name and order, if there are as many on both sides.
        let mut left: BTreeMap<&str, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        for (i, name) in self.old.files.iter().enumerate().skip(1).filter(|(i, _)| self.twins.files[*i] == 0) {
            left.entry(name).or_default().0.push(i as u32);
        }
        for (i, name) in self.new.files.iter().enumerate().skip(1).filter(|(i, _)| !taken[*i]) {
            left.entry(name).or_default().1.push(i as u32);
        }
        for (o, n) in left.into_values().filter(|(o, n)| o.len() == n.len()) {
            for (a, b) in o.into_iter().zip(n) {
                self.twins.files[a as usize] = b;
            }
        }
    }

    /// Another name of one place may stand for it on the other side.
    fn by_alias(&mut self) {
        let mut named: HashMap<&str, Option<SpanId>> = HashMap::new();
        for i in self.unpaired_new() {
            for name in std::iter::once(self.new.name_of(i)).chain(self.new.aliases_of(i)) {
                named.entry(name).and_modify(|s| *s = None).or_insert(Some(i));
            }
        }
        let waiting: Vec<SpanId> = self.unpaired_old().filter(|i| self.old.span(*i).is_code()).collect();
        for o in waiting {
            let names = std::iter::once(self.old.name_of(o)).chain(self.old.aliases_of(o));
            let found = names.filter_map(|n| named.get(n).copied().flatten()).find(|n| self.new.span(*n).is_code());
            if let Some(n) = found {
                self.twins.add(o, n, Rung::Name);
            }
        }
    }

    /// What is left, by file, class and name without numbers.
    fn groups(&self, file: &impl Fn(&Whole<'_>, SpanId, bool) -> u32) -> Groups {
        let mut groups: BTreeMap<_, (Vec<SpanId>, Vec<SpanId>)> = BTreeMap::new();
        let key = |w: &Whole<'_>, i: SpanId, is_old| {
            (file(w, i, is_old), class_key(w, i), base_name(w.name_of(i)).into_owned())
        };
        for i in self.unpaired_old() {
            groups.entry(key(self.old, i, true)).or_default().0.push(i);
        }
        for i in self.unpaired_new() {
            groups.entry(key(self.new, i, false)).or_default().1.push(i);
        }
        groups
    }

    fn by_unique_base(&mut self, file: &impl Fn(&Whole<'_>, SpanId, bool) -> u32, scoped: bool) {
        for ((file, ..), (o, n)) in self.groups(file) {
            if let ([o], [n]) = (&o[..], &n[..])
                && (file > 0 || !scoped)
            {
                self.twins.add(*o, *n, Rung::BaseName);
                continue;
            }
            for o in &o {
                let name = self.old.name_of(*o);
                let numbered = is_numbered(name);
                let mut found = n.iter().filter(|n| self.new.name_of(**n) == name);
                if let (Some(n), None) = (found.next(), found.next())
                    && (self.old.span(*o).is_code() || !numbered)
                {
                    self.twins.add(*o, *n, if numbered { Rung::CloneName } else { Rung::Name });
                }
            }
        }
    }

    /// Several of one name: the one right behind the same pair.
    fn by_neighbour(&mut self, file: &impl Fn(&Whole<'_>, SpanId, bool) -> u32) {
        let waiting: Vec<SpanId> = self.unpaired_old().collect();
        let mut previous: Option<SpanId> = None;
        let mut at = 0;
        for o in waiting {
            // The last pair before it.
            while at < o.0 {
                if self.twins.new_of(SpanId(at)).is_some() {
                    previous = Some(SpanId(at));
                }
                at += 1;
            }
            let name = self.old.name_of(o);
            if name == AUX_NAME {
                // All of them have this name: only who jumps there tells them apart.
                continue;
            }
            let numbered = is_numbered(name) && !self.old.span(o).is_code();
            let of = file(self.old, o, true);
            if numbered && of > 0 {
                continue;
            }
            let area = self.old.span(o).area;
            let before = previous.filter(|p| o.0 - p.0 <= 8 && self.old.span(*p).area == area);
            // Or the start of the section.
            let (before, there) = match before.and_then(|p| Some((p.0, self.twins.new_of(p)?.0))) {
                Some((a, b)) => (a + 1, b + 1),
                None => match self.area_starts(o) {
                    Some(starts) if o.0 - starts.0 < 8 => starts,
                    _ => continue,
                },
            };
            let base = base_name(name);
            let same =
                |w: &Whole<'_>, i: SpanId| base_name(w.name_of(i)) == base && class_key(w, i) == class_key(self.old, o);
            // Only the first of its name behind the pair, on both sides.
            if (before..o.0).any(|i| same(self.old, SpanId(i))) {
                continue;
            }
            let last = (there + 8).min(self.new.spans.len() as u32);
            let found = (there..last).map(SpanId).find(|i| same(self.new, *i));
            if let Some(n) = found.filter(|n| self.twins.old_of(*n).is_none()) {
                let other = file(self.new, n, false);
                if of == 0 || other == 0 || of == other {
                    self.add_weak(o, n, Rung::Order);
                }
            }
        }
    }

    /// The first spans of the section an old one is in, on both sides.
    fn area_starts(&self, o: SpanId) -> Option<(u32, u32)> {
        let area = self.old.area_of(o);
        let there = self.new.areas.iter().find(|a| a.name == area.name)?;
        let first = |w: &Whole<'_>, addr: u64| w.spans.partition_point(|s| s.addr < addr) as u32;
        Some((first(self.old, area.addr), first(self.new, there.addr)))
    }

    fn by_reference(&mut self) {
        let mut functions: Vec<(SpanId, SpanId)> =
            self.twins.iter().filter(|(o, _)| self.old.span(*o).is_code()).collect();
        let open_old = |t: &Twins, u: &Use| u.span().filter(|s| t.new_of(*s).is_none());
        let open_new = |t: &Twins, u: &Use| u.span().filter(|s| t.old_of(*s).is_none());
        for round in 0..3 {
            let mut more = Vec::new();
            for (o, n) in &functions {
                let (a, b) = (self.old_uses.of(*o), self.new_uses.of(*n));
                let alike = self.old.span(*o).size() == self.new.span(*n).size() && a.len() == b.len();
                if alike && round < 2 {
                    let is_same = blanked(self.old, self.old_uses, *o) == blanked(self.new, self.new_uses, *n);
                    for (x, y) in a.iter().zip(b).filter(|(x, y)| x.at == y.at) {
                        let (Some(s), Some(t)) = (open_old(&self.twins, x), open_new(&self.twins, y)) else { continue };
                        if self.may_pair(s, t) && x.target - self.old.span(s).addr == y.target - self.new.span(t).addr {
                            // Of several in a function that changed, one may have taken the place of another.
                            if is_same || self.is_alone(s, *o) {
                                self.twins.add(s, t, Rung::Reference);
                            } else {
                                self.add_weak(s, t, Rung::Reference);
                            }
                            if self.old.span(s).is_code() {
                                more.push((s, t));
                            }
                        }
                    }
                } else if !alike && round > 0 {
                    self.appearances(*o, *n, &mut more);
                }
            }
            functions.extend(more);
        }
    }

    /// Does the old function refer to no other variable of this kind and name?
    fn is_alone(&self, variable: SpanId, function: SpanId) -> bool {
        let key = |i: SpanId| (class_key(self.old, i), base_name(self.old.name_of(i)));
        let own = key(variable);
        self.old_uses.of(function).iter().filter_map(Use::span).all(|i| i == variable || key(i) != own)
    }

    /// A numbered variable that was paired by its name or content alone: another one, it seems, when it is used by other functions
    /// than the old one.
    fn doubt_users(&mut self) {
        let doubtful = |(o, n): &(SpanId, SpanId)| {
            let weak = matches!(self.twins.rung(*o), Rung::BaseName | Rung::Content);
            weak && is_numbered(self.old.name_of(*o)) && has_state(self.new, *n)
        };
        let pairs: Vec<(SpanId, SpanId)> = self.twins.iter().filter(doubtful).collect();
        let olds: BTreeSet<SpanId> = pairs.iter().map(|p| p.0).collect();
        let news: BTreeSet<SpanId> = pairs.iter().map(|p| p.1).collect();
        let (old_users, new_users) = (users(self.old, self.old_uses, &olds), users(self.new, self.new_uses, &news));
        for (o, n) in pairs {
            let (Some(a), Some(b)) = (old_users.get(&o), new_users.get(&n)) else { continue };
            if a.is_disjoint(b) {
                self.twins.ambiguous.insert(n);
            }
        }
    }

    fn may_pair(&self, o: SpanId, n: SpanId) -> bool {
        let (a, b) = (self.old.span(o).file, self.new.span(n).file);
        let same_file = !self.scoped || a == 0 || b == 0 || self.twins.files.get(a as usize) == Some(&b);
        same_file
            && class_key(self.old, o) == class_key(self.new, n)
            && base_name(self.old.name_of(o)) == base_name(self.new.name_of(n))
            && (self.old.span(o).is_code() || self.old.span(o).size() == self.new.span(n).size())
    }

    /// Functions that do not look alike: what both refer to first is the same, if they refer to as many of the kind.
    fn appearances(&mut self, o: SpanId, n: SpanId, more: &mut Vec<(SpanId, SpanId)>) {
        let list = |w: &Whole<'_>, uses: &[Use], open: &dyn Fn(SpanId) -> bool| {
            let mut seen: BTreeMap<(u8, String), Vec<SpanId>> = BTreeMap::new();
            for s in uses.iter().filter(|u| u.usage != Usage::Branch).filter_map(Use::span).filter(|s| open(*s)) {
                let key = (class_key(w, s), base_name(w.name_of(s)).into_owned());
                let of_kind = seen.entry(key).or_default();
                if !of_kind.contains(&s) {
                    of_kind.push(s);
                }
            }
            seen
        };
        let a = list(self.old, self.old_uses.of(o), &|s| self.twins.new_of(s).is_none());
        let b = list(self.new, self.new_uses.of(n), &|s| self.twins.old_of(s).is_none());
        for (key, olds) in a {
            let Some(news) = b.get(&key).filter(|l| l.len() == olds.len()) else { continue };
            if olds.iter().zip(news).all(|(o, n)| self.may_pair(*o, *n)) {
                // Of several in a function that changed, one may have taken the place of another.
                let several = olds.len() > 1;
                for (o, n) in olds.into_iter().zip(news) {
                    if several {
                        self.add_weak(o, *n, Rung::Reference);
                    } else {
                        self.twins.add(o, *n, Rung::Reference);
                    }
                    if self.old.span(o).is_code() {
                        more.push((o, *n));
                    }
                }
            }
        }
    }

    fn leftovers(&mut self, file: &impl Fn(&Whole<'_>, SpanId, bool) -> u32) {
        for (_, (o, n)) in self.groups(file) {
            if o.is_empty() || n.is_empty() {
                continue;
            }
            let mut sides: BTreeMap<u64, (Vec<SpanId>, Vec<SpanId>)> = BTreeMap::new();
            for i in &o {
                sides.entry(content(self.old, self.old_uses, *i)).or_default().0.push(*i);
            }
            for i in &n {
                sides.entry(content(self.new, self.new_uses, *i)).or_default().1.push(*i);
            }
            for (o, n) in sides.into_values() {
                if let ([o], [n]) = (&o[..], &n[..]) {
                    self.twins.add(*o, *n, Rung::Content);
                }
            }
            let o: Vec<SpanId> = o.into_iter().filter(|i| self.twins.new_of(*i).is_none()).collect();
            let n: Vec<SpanId> = n.into_iter().filter(|i| self.twins.old_of(*i).is_none()).collect();
            let sizes = o.iter().zip(&n).all(|(o, n)| self.old.span(*o).size() == self.new.span(*n).size());
            let is_data = o.first().is_some_and(|i| !self.old.span(*i).is_code());
            if o.len() == n.len() && sizes && is_data {
                for (o, n) in o.iter().zip(&n) {
                    self.add_weak(*o, *n, Rung::Order);
                }
            } else if is_data {
                self.twins.ambiguous.extend(n.iter().filter(|i| !is_once(self.new, **i)));
            }
        }
    }
}

/// Functions that refer to each of these, by the names they have in the source: pieces and clones are their function.
fn users<'w>(whole: &'w Whole<'_>, uses: &Uses, of: &BTreeSet<SpanId>) -> BTreeMap<SpanId, BTreeSet<&'w str>> {
    let mut found: BTreeMap<SpanId, BTreeSet<&str>> = BTreeMap::new();
    if of.is_empty() {
        return found;
    }
    for i in (0..whole.spans.len() as u32).map(SpanId).filter(|i| whole.span(*i).is_code()) {
        for used in uses.of(i).iter().filter_map(Use::span).filter(|s| of.contains(s)) {
            found.entry(used).or_default().insert(whole.name_of(i).split('.').next().unwrap_or_default());
        }
    }
    found
}

/// The bytes of a span with references blanked.
fn blanked(whole: &Whole<'_>, uses: &Uses, id: SpanId) -> Vec<u8> {
    let mut bytes = whole.bytes_of(id).to_vec();
    for u in uses.of(id) {
        if let Some(field) = bytes.get_mut(u.at as usize..u.at as usize + usize::from(u.width)) {
            field.fill(0);
        }
    }
    bytes
}

/// End of the run of equal keys that begins at `at`.
fn run(list: &[(u64, u32, SpanId)], at: usize) -> usize {
    let key = (list[at].0, list[at].1);
    at + list[at..].iter().take_while(|x| (x.0, x.1) == key).count()
}

/// A number for the content of a span: its bytes with references blanked, and what those are called.
fn content(whole: &Whole<'_>, uses: &Uses, id: SpanId) -> u64 {
    let mut bytes = whole.bytes_of(id).to_vec();
    let mut hasher = DefaultHasher::new();
    whole.span(id).size().hash(&mut hasher);
    for u in uses.of(id) {
        if let Some(field) = bytes.get_mut(u.at as usize..u.at as usize + usize::from(u.width)) {
            field.fill(0);
        }
        match u.span() {
            Some(s) => {
                base_name(whole.name_of(s)).hash(&mut hasher);
                (u.target - whole.span(s).addr).hash(&mut hasher);
            }
            None => super::content::text_at(whole, u.target).hash(&mut hasher),
        }
    }
    crate::correlate::blank_line_number(&whole.area_of(id).name, &mut bytes);
    bytes.hash(&mut hasher);
    hasher.finish()
}
