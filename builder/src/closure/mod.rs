//! Verdicts -> [`PatchSet`]: what the patch carries, what stays in the kernel, and the edge that pulled each item in.
//!
//! Starts from the changed functions and follows their references: new functions, new data, changed constants and pieces
//! come along; everything else is referred to where it is. The address *taken* of a replaced function stays that of the
//! old one (it leads to the new one by the jump and survives unloading); calls go to the new one directly.
//!
//! Refused here: references that can mean two things (LP2008), code that cannot be decoded (LP2009), pointers into the
//! middle of a replaced function (LP2010), static locals that cannot be told apart (LP2006), tables that are not understood
//! (LP2011), new registrations (LP2005), callbacks that are no new function (LP2014), originals of functions that are not
//! replaced (LP2017).

mod resolve;
mod shadows;

pub use resolve::BIAS_WINDOW;

use crate::plan::Cause;
use crate::plan::{Dest, Item, ItemEntry, ObjectPair, PairId, PatchSet, Role};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustc_hash::FxHashMap;

use crate::accept::Accept;
use crate::codes;
use crate::compare::parent_of;
use crate::correlate::{NewAtom, OldAtom};
use crate::error::{Place, Problem};
use crate::holder::HolderName;
use crate::plan::manifest::{Callback, Callbacks};
use crate::symbolize::{Atom, AtomKind, Class, Ref, Table, TextKind, Usage};

/// Work in progress.
struct Closure<'a> {
    pairs: &'a [ObjectPair],
    /// Changed functions and their pieces, known from the start.
    replaced: BTreeSet<(PairId, NewAtom)>,
    /// Global names defined in the new objects, by who has them, and how far inside the atom they are.
    globals: FxHashMap<(&'a HolderName, &'a str), (PairId, NewAtom, i64)>,
    queue: VecDeque<(PairId, NewAtom)>,
    cause: BTreeMap<(PairId, NewAtom), Cause>,
    refused: Vec<Problem>,
}

/// Computes the patch set. Where no function changes there is a patch only if one of the callbacks is new here.
pub fn close(pairs: &[ObjectPair], callbacks: &Callbacks) -> PatchSet {
    let mut c = Closure {
        pairs,
        replaced: BTreeSet::new(),
        globals: FxHashMap::default(),
        queue: VecDeque::new(),
        cause: BTreeMap::new(),
        refused: Vec::new(),
    };
    for (i, pair) in pairs.iter().enumerate() {
        let id = PairId(i as u32);
        for atom in pair.new.atoms.iter().filter(|a| a.global && !a.weak) {
            c.globals.entry((&pair.holder, atom.name.as_str())).or_insert((id, NewAtom(atom.id), 0));
        }
        for atom in pair.new.atoms.iter().filter(|a| a.global && !a.weak) {
            for alias in &atom.aliases {
                c.globals.entry((&pair.holder, alias.as_str())).or_insert((id, NewAtom(atom.id), 0));
            }
        }
        for atom in &pair.new.atoms {
            for inner in atom.inner.iter().filter(|i| i.global) {
                c.globals.entry((&pair.holder, inner.name.as_str())).or_insert((id, NewAtom(atom.id), inner.at as i64));
            }
        }
        for (n, why) in &pair.verdicts.changed {
            c.add_function(id, *n, Cause::Changed(why.clone()));
        }
        for n in &pair.verdicts.in_place {
            c.add((id, *n), Cause::Declared);
        }
    }
    let mut roots = Vec::new();
    // Of a single object, compared to see whether it differs, nobody expects the callbacks of another.
    if !c.queue.is_empty() || callbacks.all().any(|(_, name)| c.named(name).iter().any(|key| c.is_new(*key))) {
        for (callback, name) in callbacks.all() {
            roots.extend(c.callback(callback, name).map(|key| (callback, key)));
        }
    }
    let mut items = Vec::new();
    while let Some((pair, atom)) = c.queue.pop_front() {
        items.push(c.item(pair, atom));
    }
    for item in &items {
        c.check_interior_pointers(item);
    }
    items.sort_by_key(|i| (i.pair, i.atom));
    let shadows = c.shadows(&items);
    c.refused.sort();
    c.refused.dedup();
    PatchSet { items, callbacks: roots, shadows, refused: c.refused }
}

/// LP2014 for each callback, where the objects have none of them and nothing else is in the patch: [`close`] takes no offence at that, as
/// it is asked of single objects as well.
pub fn no_callbacks(callbacks: &Callbacks) -> Vec<Problem> {
    callbacks.all().map(|(callback, name)| no_such_callback(callback, name)).collect()
}

fn no_such_callback(callback: Callback, name: &str) -> Problem {
    let detail = format!("no changed object has this function for the {} callback", callback.name());
    Problem::new(codes::LP2014, Place { symbol: Some(name.to_owned()), ..Place::default() }, detail)
}

impl Closure<'_> {
    fn pair(&self, id: PairId) -> &ObjectPair {
        &self.pairs[id.0 as usize]
    }

    /// What a name means to the code of a pair: what its own holder has; else, to a module, what the kernel or another module
    /// exports. Modules are linked each by itself, and names of one are nothing to the kernel (scripts/Makefile.modfinal).
    fn global(&self, id: PairId, name: &str) -> Option<(PairId, NewAtom, i64)> {
        let own = &self.pair(id).holder;
        if let Some(found) = self.globals.get(&(own, name)) {
            return Some(*found);
        }
        if *own == HolderName::Vmlinux {
            return None;
        }
        let mut others = self.pairs.iter().map(|p| &p.holder).filter(|h| *h != own);
        others.find_map(|h| self.globals.get(&(h, name)).copied())
    }

    /// A function and all its pieces.
    fn add_function(&mut self, id: PairId, n: NewAtom, cause: Cause) {
        let pair = &self.pairs[id.0 as usize];
        for piece in pair.new.pieces(n.0) {
            self.replaced.insert((id, NewAtom(*piece)));
            self.add((id, NewAtom(*piece)), Cause::PieceOf(id, n));
        }
        self.replaced.insert((id, n));
        self.add((id, n), cause);
    }

    fn add(&mut self, key: (PairId, NewAtom), cause: Cause) {
        if let Entry::Vacant(slot) = self.cause.entry(key) {
            slot.insert(cause);
            self.queue.push_back(key);
        }
    }

    /// New code of a name.
    fn named(&self, name: &str) -> Vec<(PairId, NewAtom)> {
        let mut found = Vec::new();
        for (i, pair) in self.pairs.iter().enumerate() {
            let named = |a: &&Atom| a.is_code() && (a.name == name || a.aliases.iter().any(|alias| alias == name));
            found.extend(pair.new.atoms.iter().filter(named).map(|a| (PairId(i as u32), NewAtom(a.id))));
        }
        found
    }

    fn is_new(&self, (id, n): (PairId, NewAtom)) -> bool {
        self.pair(id).pairs.old_of(n).is_none()
    }

    /// A callback is a root of its own: nothing refers to it.
    fn callback(&mut self, callback: Callback, name: &str) -> Option<(PairId, NewAtom)> {
        let found = self.named(name);
        let problem = match found.as_slice() {
            [(id, n)] if self.is_new((*id, *n)) => {
                self.add((*id, *n), Cause::Callback(callback));
                return Some((*id, *n));
            }
            [(id, _)] => {
                let detail = format!("the {} callback is a function the old build has as well", callback.name());
                Problem::new(codes::LP2014, Place::symbol(&self.pair(*id).name, name), detail)
            }
            [] => no_such_callback(callback, name),
            [(a, _), .., (b, _)] => {
                let (a, b) = (&self.pair(*a).name, &self.pair(*b).name);
                let detail = format!("{a} and {b} both have a function for the {} callback", callback.name());
                Problem::new(codes::LP2014, Place { symbol: Some(name.to_owned()), ..Place::default() }, detail)
            }
        };
        self.refused.push(problem);
        None
    }

    fn refuse(&mut self, id: PairId, n: NewAtom, code: &'static codes::Code, at: Option<u64>, what: impl Into<String>) {
        let pair = self.pair(id);
        let mut place = Place::symbol(&pair.name, &pair.new.atom(n.0).name);
        place.offset = at;
        self.refused.push(Problem::new(code, place, what));
    }

    fn item(&mut self, id: PairId, n: NewAtom) -> Item {
        let pair = &self.pairs[id.0 as usize];
        let atom = pair.new.atom(n.0);
        let cause = self.cause.get(&(id, n)).cloned().unwrap_or_else(|| {
            self.refuse(id, n, codes::LP1000, None, "nothing says why it is in the patch");
            Cause::PieceOf(id, n)
        });
        if let Some(trouble) = atom.code.as_ref().and_then(|c| c.trouble.clone()) {
            self.refuse(id, n, codes::LP2009, None, trouble);
        }
        if let Some((at, what)) = pair.new.doubt_of(n.0) {
            self.refuse(id, n, codes::LP2016, Some(at), format!("the number there may be {what}"));
        }
        for r in atom.refs.iter().filter(|r| !atom.is_code() && r.width == 0) {
            self.refuse(id, n, codes::LP2009, Some(r.at), format!("a relocation of type {:?}", r.kind));
        }
        let role = match (atom.is_code(), pair.pairs.old_of(n)) {
            (true, _) if parent_of(&pair.new, atom.id) != atom.id => Role::Piece,
            (true, Some(old)) => Role::Replaces(old),
            (true, None) => Role::NewFunction,
            (false, Some(old)) if pair.verdicts.in_place.contains(&n) => Role::InPlace(old),
            (false, _) => Role::Data,
        };
        self.check_section(id, n, role);
        let mut edges = self.edges(id, n, &atom.refs);
        let mut entries = Vec::new();
        for e in &atom.entries {
            let entry = &pair.new.entries[e.0 as usize];
            match entry.table {
                // Sealing is a decision about everything that is linked together; without it an ENDBR stays.
                Table::EndbrSeal => continue,
                Table::BootConstant | Table::BootShift => {
                    edges.extend(self.boot_constant(id, n, entry));
                    continue;
                }
                _ => {}
            }
            // The field that points to the replacement is written when the replacement has its place.
            let written_later = |r: &Ref| entry.table == Table::Alternatives && r.at == 4;
            let fields: Vec<Ref> = entry.refs.iter().filter(|r| !written_later(r)).cloned().collect();
            let own = self.edges(id, n, &fields);
            let replacement = match &entry.replacement {
                Some(r) => {
                    if let Some(trouble) = &r.trouble {
                        let at = entry.owner.map(|m| m.delta as u64);
                        self.refuse(id, n, codes::LP2009, at, format!("replacement of an alternative: {trouble}"));
                    }
                    self.edges(id, n, &r.refs)
                }
                None if entry.table == Table::Alternatives => {
                    let at = entry.owner.map(|m| m.delta as u64);
                    self.refuse(id, n, codes::LP2011, at, "an alternative without replacement instructions");
                    Vec::new()
                }
                None => Vec::new(),
            };
            entries.push(ItemEntry { entry: *e, edges: own, replacement });
        }
        Item { pair: id, atom: n, role, cause, inlined: None, edges, entries }
    }

    fn check_section(&mut self, id: PairId, n: NewAtom, role: Role) {
        let pair = &self.pairs[id.0 as usize];
        let section = pair.new.section(pair.new.atom(n.0).section).name.clone();
        if let Some(domain) = srcu_domain(pair, n) {
            let place = Place::symbol(&pair.name, &pair.new.atom(n.0).name);
            let what = format!("nobody cleans up the SRCU domain {domain} when the patch goes");
            self.refused.push(Problem::new(codes::LP2005, place, what).acceptable(Accept::List, domain));
        }
        match pair.new.class_of(n.0) {
            Class::Text(TextKind::Normal | TextKind::AltAux)
            | Class::Rodata
            | Class::Data
            | Class::Bss
            | Class::Percpu => {}
            Class::Registered => self.refuse(id, n, codes::LP2005, None, format!("it is in {section}")),
            Class::Text(TextKind::Init | TextKind::Exit) | Class::InitData => {
                self.refuse(id, n, codes::LP2003, None, format!("carried code refers to it and it is in {section}"));
            }
            _ => self.refuse(id, n, codes::LP2007, None, format!("it is in {section}")),
        }
        if matches!(role, Role::Replaces(_) | Role::Piece | Role::NewFunction) {
            // The old ones as well: without them nothing says what the kernel rewrites where the jump goes.
            for object in [&pair.new, &pair.old] {
                for (odd, what) in &object.odd_tables {
                    let name = object.section(*odd).name.clone();
                    self.refuse(id, n, codes::LP2011, None, format!("{name}: {what}"));
                }
            }
        }
    }

    /// A list of instructions in a section of unknown name: nobody refers to it, and it points into the function.
    fn check_unknown_tables(&mut self, item: &Item) {
        let pair = &self.pairs[item.pair.0 as usize];
        let new = pair.new.atom(item.atom.0);
        let old = pair.pairs.old_of(item.atom).map(|o| pair.old.atom(o.0));
        let both = [Some((&pair.new, new)), old.map(|o| (&pair.old, o))];
        let mut found = BTreeSet::new();
        for (object, atom) in both.into_iter().flatten() {
            for (from, _) in &atom.interior_pointers {
                let table = object.atom(*from);
                if table.kind == AtomKind::Gap && !object.is_referred_to(*from) {
                    found.insert(object.section(table.section).name.clone());
                }
            }
        }
        for name in found {
            self.refuse(item.pair, item.atom, codes::LP2011, None, format!("{name} lists instructions of it"));
        }
    }

    /// Code that stays would find places of the new code in a constant that changes for everybody.
    fn check_in_place(&mut self, item: &Item) {
        for edge in &item.edges {
            let Dest::Carried(pair, n, _) = edge.dest else { continue };
            if self.replaced.contains(&(pair, n)) && !self.is_new((pair, n)) {
                let what = format!("it points into {}, which is replaced", self.pair(pair).new.atom(n.0).name);
                self.refuse(item.pair, item.atom, codes::LP2030, Some(edge.field.at), what);
            }
        }
    }

    /// Code that stays in the kernel must not jump into the middle of a function that is replaced: it would go on in the
    /// old code.
    fn check_jumps_into(&mut self, item: &Item, old: OldAtom) {
        let pair = &self.pairs[item.pair.0 as usize];
        let into = pair.old.atom(old.0);
        let mut found = Vec::new();
        for i in pair.old.incoming(into.section, into.start as i64 + 1, into.end as i64) {
            let atom = pair.old.atom(i.from);
            if i.usage != Usage::Branch || !atom.is_code() {
                continue;
            }
            let overlaps = atom.section == into.section && atom.start < into.end && into.start < atom.end;
            let parent = OldAtom(parent_of(&pair.old, atom.id));
            let replaced = pair.pairs.new_of(parent).is_some_and(|n| self.replaced.contains(&(item.pair, n)));
            if !overlaps && !replaced {
                found.push((i.to as u64 - into.start, format!("{} jumps there and stays as it is", atom.name)));
            }
        }
        for (at, what) in found {
            self.refuse(item.pair, item.atom, codes::LP2010, Some(at), what);
        }
    }

    /// Is this old data known to replaced functions only?
    fn only_replaced_use(&self, id: PairId, data: OldAtom) -> bool {
        let pair = self.pair(id);
        let own = pair.old.atom(data.0);
        let mut users = pair.old.incoming(own.section, own.start as i64, own.end as i64).iter();
        let mut users = users.by_ref().map(|i| pair.old.atom(i.from)).filter(|a| a.id != own.id);
        !own.global
            && users.all(|a| {
                let parent = OldAtom(parent_of(&pair.old, a.id));
                a.is_code() && pair.pairs.new_of(parent).is_some_and(|n| self.replaced.contains(&(id, n)))
            })
    }

    /// Data that stays in the kernel must not point into the middle of a function that is replaced.
    fn check_interior_pointers(&mut self, item: &Item) {
        if let Role::InPlace(_) = item.role {
            self.check_in_place(item);
        }
        if item.is_code() {
            self.check_unknown_tables(item);
        }
        let Role::Replaces(old) = item.role else { return };
        let pair = &self.pairs[item.pair.0 as usize];
        let atom = pair.old.atom(old.0);
        self.check_jumps_into(item, old);
        for (from, at) in &atom.interior_pointers {
            let private =
                pair.old.class_of(*from) == Class::Rodata && self.only_replaced_use(item.pair, OldAtom(*from));
            if !private {
                let name = pair.old.section(pair.old.atom(*from).section).name.clone();
                self.refuse(item.pair, item.atom, codes::LP2010, Some(*at), format!("{name} points there"));
            }
        }
    }
}

/// The SRCU domain whose per-CPU data is new. The loader readies and cleans up the domains it finds in `___srcu_struct_ptrs`
/// (kernel/rcu/srcutree.c, srcu_module_going); an object that is not compiled as a module has no such list.
fn srcu_domain(pair: &ObjectPair, n: NewAtom) -> Option<&str> {
    let atom = pair.new.atom(n.0);
    let name = atom.name.split('.').next()?.strip_suffix("_srcu_data")?;
    (pair.new.class_of(n.0) == Class::Percpu && pair.pairs.old_of(n).is_none()).then_some(name)
}
