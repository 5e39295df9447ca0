//! Where a reference of carried code leads: the rules for ambiguous section offsets, and what gets pulled in.

use crate::plan::Cause;
use crate::plan::{Dest, Edge, ObjectPair, PairId};
use lpbuild_abi::{FOR_AUTHORS, ORIGINAL_PREFIX};

use crate::accept::Accept;
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::HolderName;

use super::Closure;
use crate::compare::{identity_matters, name_stays, parent_of};
use crate::correlate::{NewAtom, OldAtom};
use crate::ingest::{SectionId, SymbolId, SymbolPlace};
use crate::isa::reloc;
use crate::symbolize::{
    AtomId, BIAS, Class, DISPLACEMENT, Entry, Ids, Meaning, Object, Ref, RefKind, Target, TextKind, Usage,
    boot_constant, known_sections,
};

/// Larger than any distance in the kernel image (KERNEL_IMAGE_SIZE of arch/x86/include/asm/page_64_types.h).
const IMAGE_SIZE: u64 = 1 << 30;

/// How far below an object a biased base (`table-8*k(,%rax,8)`) is looked for, in bytes.
pub const BIAS_WINDOW: i64 = 256;

impl Closure<'_> {
    /// Resolves references of the atom `n` (its own, or those of one of its table entries).
    pub(super) fn edges(&mut self, id: PairId, n: NewAtom, refs: &[Ref]) -> Vec<Edge> {
        let mut out = Vec::with_capacity(refs.len());
        for r in refs {
            match self.resolve(id, n, r) {
                Some(dest) => out.push(Edge { field: r.clone(), dest }),
                None => continue,
            }
        }
        out
    }

    fn resolve(&mut self, id: PairId, from: NewAtom, r: &Ref) -> Option<Dest> {
        let dest = self.leads_to(id, from, r)?;
        if let Dest::Carried(of, atom, delta) = dest
            && delta.unsigned_abs() >= IMAGE_SIZE
        {
            let what = format!(
                "it refers to {}{delta:+#x}, as for a physical address (__pa); the patch brings this along, and module memory \
                 has no such physical address",
                self.pair(of).new.atom(atom.0).name,
            );
            self.refuse(id, from, codes::LP2024, Some(r.at), what);
            return None;
        }
        Some(dest)
    }

    fn leads_to(&mut self, id: PairId, from: NewAtom, r: &Ref) -> Option<Dest> {
        match r.target {
            Target::Extern(symbol, addend) => {
                let name = self.pair(id).new.symbol_name(symbol).to_owned();
                if self.global(id, &name).is_some() {
                    return Some(self.resolve_extern(id, from, r, name, addend));
                }
                if let Some(of) = name.strip_prefix(ORIGINAL_PREFIX) {
                    return self.original(id, from, r, of, addend);
                }
                match FOR_AUTHORS.iter().find(|known| **known == name) {
                    Some(known) => self.runtime(id, from, r, known),
                    None => Some(self.resolve_extern(id, from, r, name, addend)),
                }
            }
            Target::Section(section, offset) => self.resolve_section(id, from, r, section, offset),
        }
    }

    /// The variable an instruction loads in the place of a constant written at boot (see `symbolize/boot.rs`).
    pub(super) fn boot_constant(&mut self, id: PairId, from: NewAtom, entry: &Entry) -> Option<Edge> {
        let new = &self.pairs[id.0 as usize].new;
        let Some(constant) = boot_constant(new, entry) else {
            let at = entry.owner.map(|m| m.delta as u64);
            let what = format!("{} names an instruction the kernel rewrites at boot", new.section(entry.section).name);
            self.refuse(id, from, codes::LP2011, at, what);
            return None;
        };
        let own = new.named(&constant.variable).map(|a| new.atom(a));
        let field = Ref {
            at: constant.at + DISPLACEMENT,
            width: 4,
            kind: RefKind::Reloc(reloc::PC32),
            // A variable of another object need not be among the symbols of this one.
            target: own.map_or(Target::Extern(SymbolId(0), 0), |a| Target::Section(a.section, a.start as i64)),
            bias: BIAS,
            usage: Usage::Access,
        };
        let dest = match field.target {
            Target::Section(section, offset) => self.resolve_section(id, from, &field, section, offset)?,
            Target::Extern(..) => self.resolve_extern(id, from, &field, constant.variable, 0),
        };
        Some(Edge { field, dest })
    }

    /// A symbol of another object: the new version when that object is part of the patch and changes or adds it.
    fn resolve_extern(&mut self, id: PairId, from: NewAtom, r: &Ref, name: String, addend: i64) -> Dest {
        let Some((other, atom, at)) = self.global(id, &name) else {
            self.check_made_by_linker(id, from, r, &name);
            return Dest::Kernel(name, addend);
        };
        let inside = addend.saturating_add(at);
        let target = self.pair(other);
        let old = target.pairs.old_of(atom);
        let address_taken = r.usage != Usage::Branch && inside == 0;
        let of_other = target.holder != self.pair(id).holder;
        // What is carried for the kernel is there as long as the patch; what is carried for a module waits for it.
        if old.is_none() && of_other && target.holder != HolderName::Vmlinux {
            let what = format!("it refers to {name}, which is new in {}", target.holder);
            self.refuse(id, from, codes::LP2026, Some(r.at), what);
            return Dest::Kernel(name, addend);
        }
        let Some(old) = old else {
            let why = Cause::ReferredTo { by: (id, from), from_outside: true };
            if target.new.atom(atom.0).is_code() {
                self.add_function(other, atom, why);
            } else {
                self.add((other, atom), why);
            }
            return Dest::Carried(other, atom, inside);
        };
        // What another holder has is in effect when that is here: its old function leads to what then counts.
        if self.replaced.contains(&(other, atom)) && !address_taken && !of_other {
            return Dest::Carried(other, atom, inside);
        }
        if !name_stays(&target.comparer(), &name) {
            // The kernel's own table of names says where it was.
            let delta = old_delta(target, &Meaning { atom: atom.0, delta: at }, old);
            return Dest::Old(other, old, delta.saturating_add(addend));
        }
        Dest::Kernel(name, addend)
    }

    /// `lp_original_NAME`: of the functions NAME that are replaced, the one of the same object, else the only one.
    fn original(&mut self, id: PairId, from: NewAtom, r: &Ref, name: &str, addend: i64) -> Option<Dest> {
        let mut found = Vec::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            let replaced = pair.verdicts.changed.keys().copied();
            let named = |n: &NewAtom| {
                let old = pair.pairs.old_of(*n).map(|old| pair.old.atom(old.0));
                old.is_some_and(|a| a.name == name || a.aliases.iter().any(|alias| alias == name))
            };
            found.extend(replaced.filter(named).map(|n| (PairId(index as u32), n)));
        }
        if found.iter().filter(|f| f.0 == id).count() == 1 {
            found.retain(|f| f.0 == id);
        }
        let what = match found.as_slice() {
            [(pair, n)] if addend == 0 => return Some(Dest::Original(*pair, *n)),
            [_] => format!("it refers to the inside of {ORIGINAL_PREFIX}{name}"),
            [] => format!("the patch replaces no function {name}, so there is no {ORIGINAL_PREFIX}{name}"),
            some => format!("the patch replaces {} functions {name}, in other objects", some.len()),
        };
        self.refuse(id, from, codes::LP2017, Some(r.at), what);
        None
    }

    /// A function of the runtime. It is only called: its ENDBR is gone where the kernel has IBT (objtool, `--ibt`).
    fn runtime(&mut self, id: PairId, from: NewAtom, r: &Ref, name: &'static str) -> Option<Dest> {
        if r.usage == Usage::Branch {
            return Some(Dest::Runtime(name));
        }
        let what = format!("it takes the address of {name}, which can only be called");
        self.refuse(id, from, codes::LP2028, Some(r.at), what);
        None
    }

    /// Numbers and tentative definitions are symbols only the linker gives a meaning.
    fn check_made_by_linker(&mut self, id: PairId, from: NewAtom, r: &Ref, name: &str) {
        let Target::Extern(symbol, _) = r.target else { return };
        let pair = &self.pairs[id.0 as usize];
        let what = match pair.new.image.symbols.get(symbol.0 as usize).map(|s| s.place) {
            Some(SymbolPlace::Absolute) => format!("{name} is a number, not an address"),
            Some(SymbolPlace::Common) if !pair.old.image.symbols.iter().any(|s| s.name == name) => {
                format!("{name} is a new tentative definition (-fcommon)")
            }
            _ if name.is_empty() => "it refers to a symbol without a name".into(),
            _ => return,
        };
        self.refuse(id, from, codes::LP2009, Some(r.at), what);
    }

    fn resolve_section(&mut self, id: PairId, from: NewAtom, r: &Ref, section: SectionId, offset: i64) -> Option<Dest> {
        let pair = &self.pairs[id.0 as usize];
        let new = &pair.new;
        match new.class(section) {
            Class::Strings | Class::Constants => {
                let Some(bytes) = new.constant_at(section, offset) else {
                    let what = format!("no constant begins at {}+{offset:#x}", new.section(section).name);
                    self.refuse(id, from, codes::LP2008, Some(r.at), what);
                    return None;
                };
                return Some(Dest::Constant(bytes.to_vec()));
            }
            Class::Text(TextKind::AltReplacement) => {
                self.refuse(
                    id,
                    from,
                    codes::LP2009,
                    Some(r.at),
                    "it refers to replacement instructions of an alternative",
                );
                return None;
            }
            // In a module's file modpost has put `struct module` beside the code that calls it THIS_MODULE: it is the one of the
            // running module, as where an object has the name alone.
            Class::Ignored(_) if new.section(section).name == known_sections::THIS_MODULE => {
                return Some(Dest::Kernel("__this_module".into(), offset));
            }
            _ => {}
        }
        let mut candidates = candidates(new, from.0, r, section, offset);
        candidates.extend(only_object(pair, r, section, offset).filter(|_| candidates.is_empty()));
        let Some(first) = candidates.first().copied() else {
            let name = &new.section(section).name;
            let (code, what) = match new.class(section) {
                // Since 6.19 WARN with a message hands its entry to the function that prints it.
                Class::Table(_) => (codes::LP2011, format!("it refers to an entry of {name} itself")),
                Class::Ignored(why) => (codes::LP2011, format!("it refers to {name}+{offset:#x}: {why}")),
                _ => (codes::LP2008, format!("nothing is known at {name}+{offset:#x}")),
            };
            self.refuse(id, from, code, Some(r.at), what);
            return None;
        };
        let place = place_of(pair, self, id, &first);
        if let Some(other) = candidates[1..].iter().find(|m| place_of(pair, self, id, m) != place) {
            let what = format!(
                "{}+{offset:#x} can mean {}{:+#x} or {}{:+#x}, and these lead to different places",
                new.section(section).name,
                new.atom(first.atom).name,
                first.delta,
                new.atom(other.atom).name,
                other.delta,
            );
            self.refuse(id, from, codes::LP2008, Some(r.at), what);
            return None;
        }
        // All of them come along when one does: only side by side do they stay one place.
        for other in &candidates[1..] {
            self.destination(id, from, r, *other);
        }
        self.destination(id, from, r, first)
    }

    fn destination(&mut self, id: PairId, from: NewAtom, r: &Ref, m: Meaning) -> Option<Dest> {
        let pair = &self.pairs[id.0 as usize];
        let target = NewAtom(m.atom);
        let atom = pair.new.atom(m.atom);
        let why = || Cause::ReferredTo { by: (id, from), from_outside: false };
        if pair.pairs.ambiguous.contains(&target)
            && matches!(pair.new.class_of(m.atom), Class::Data | Class::Bss | Class::Percpu)
        {
            let mut place = Place::symbol(&pair.name, &pair.new.atom(from.0).name);
            place.offset = Some(r.at);
            let what = match pair.pairs.instead_of.get(&target) {
                Some(old) => format!(
                    "it refers to {}, which may be {} of the kernel in another place; carried, it would be another variable and begin anew",
                    atom.name,
                    pair.old.atom(old.0).name
                ),
                None => format!("it refers to {}", atom.name),
            };
            let problem = Problem::new(codes::LP2006, place, what);
            let Some(_) = pair.pairs.old_of(target) else {
                // One of its own is carried, if the author answers for it.
                self.refused.push(problem.acceptable(Accept::State, atom.name.as_str()));
                self.add((id, target), why());
                return Some(Dest::Carried(id, target, m.delta));
            };
            // The author may know that it is the one it was taken for.
            self.refused.push(problem.acceptable(Accept::State, atom.name.as_str()));
        }
        if pair.new.class_of(m.atom) == Class::Ids {
            let old = pair.pairs.old_of(target);
            // A set says how many entries it has; of a list only who uses it knows which is where.
            let shifted = pair.verdicts.changed_ids.contains(&target) && pair.new.ids(m.atom) == Ids::List;
            let what = match old {
                Some(old) if !shifted => return Some(Dest::Old(id, old, m.delta)),
                Some(_) => format!("it refers to {}, whose entries are others in the kernel", atom.name),
                None => {
                    format!("it refers to {}, which the kernel does not have; nobody would fill in the ids", atom.name)
                }
            };
            self.refuse(id, from, codes::LP2023, Some(r.at), what);
            return None;
        }
        let Some(old) = pair.pairs.old_of(target) else {
            if atom.is_code() && parent_of(&pair.new, m.atom) == m.atom {
                self.add_function(id, target, why());
            } else {
                self.add((id, target), why());
            }
            return Some(Dest::Carried(id, target, m.delta));
        };
        if atom.is_code() {
            let replaced = self.replaced.contains(&(id, target));
            let own =
                target == from || parent_of(&pair.new, from.0) == m.atom || parent_of(&pair.new, m.atom) == from.0;
            // The address taken of a replaced function stays the old one; calls, places inside it and the table entries
            // of this very copy mean the new one.
            let entry_of_own = own && r.usage == Usage::Pointer;
            // Pieces have no address of their own that anybody could keep.
            let is_piece = parent_of(&pair.new, m.atom) != m.atom;
            let address_taken = r.usage != Usage::Branch && m.delta == 0 && !entry_of_own && !is_piece;
            if replaced && !address_taken {
                return Some(Dest::Carried(id, target, m.delta));
            }
            return Some(Dest::Old(id, old, old_delta(pair, &m, old)));
        }
        if pair.verdicts.changed_constants.contains(&target) || self.points_into_replaced(id, m.atom) {
            let why = why();
            self.check_copy(id, old, target);
            self.add((id, target), why);
            return Some(Dest::Carried(id, target, m.delta));
        }
        Some(Dest::Old(id, old, m.delta))
    }

    /// The old constant stays where it is, for whoever has its address.
    fn check_copy(&mut self, id: PairId, old: OldAtom, target: NewAtom) {
        let pair = self.pair(id);
        // A changed one is judged where it is compared.
        if self.cause.contains_key(&(id, target)) || pair.verdicts.changed_constants.contains(&target) {
            return;
        }
        let Some(uses) = identity_matters(&pair.comparer(), Some(old), Some(target)) else { return };
        let atom = pair.new.atom(target.0);
        let place = Place::symbol(&pair.name, &atom.name).in_section(&pair.new.section(atom.section).name);
        let what = format!("it points into a function that is replaced, and {uses}");
        let problem = Problem::new(codes::LP2001, place, what).acceptable(Accept::Constant, &atom.name);
        self.refused.push(problem);
    }

    /// A constant with pointers into the middle of replaced functions (a table of labels) goes along with them.
    fn points_into_replaced(&self, id: PairId, data: AtomId) -> bool {
        let new = &self.pair(id).new;
        if new.class_of(data) != Class::Rodata {
            return false;
        }
        new.atom(data).refs.iter().any(|r| match r.target {
            Target::Section(s, o) if matches!(new.class(s), Class::Text(_)) => new.containing(s, o).is_some_and(|m| {
                let inside = m.delta != 0 || parent_of(new, m.atom) != m.atom;
                inside && self.replaced.contains(&(id, NewAtom(m.atom)))
            }),
            _ => false,
        })
    }
}

/// Everything the reference can mean, the most likely first.
///
/// The atom that holds the offset; the atom that ends there, if the same function refers to that one elsewhere (a loop's
/// end pointer comes with its start); for bases of indexed accesses that do not begin an object, the objects behind it.
fn candidates(new: &Object, from: AtomId, r: &Ref, section: SectionId, offset: i64) -> Vec<Meaning> {
    let mut all = new.meanings(section, offset);
    if r.kind == RefKind::Resolved || r.usage == Usage::Pointer || matches!(new.class(section), Class::Text(_)) {
        all.truncate(1);
        return all;
    }
    let carried = known_sections::carried_as(&new.section(section).name).is_some();
    if r.usage == Usage::Access || carried || new.class(section) == Class::Ids {
        // An access lies inside its object, and nobody counts past the end of a descriptor or of a list of ids.
        all.truncate(1);
    }
    if all.len() > 1 {
        let first = all[0];
        let refers_elsewhere = |m: &Meaning| {
            let parent = parent_of(new, from);
            let family = new.family(parent);
            family.iter().flat_map(|a| &new.atom(*a).refs).any(|other| match other.target {
                Target::Section(s, o) => {
                    s == section && o != offset && new.containing(s, o).is_some_and(|x| x.atom == m.atom)
                }
                Target::Extern(..) => false,
            })
        };
        all.retain(|m| *m == first || refers_elsewhere(m));
    }
    let at_start = all.first().is_some_and(|m| m.delta == 0);
    if r.usage == Usage::Indexed && !at_start {
        for id in new.atoms_of(section) {
            let start = new.atom(*id).start as i64;
            if start > offset && start - offset <= BIAS_WINDOW {
                all.push(Meaning { atom: *id, delta: offset - start });
            }
        }
    }
    if all.is_empty() {
        // A base above everything around it: the objects that end below it.
        let ends = |id: &&AtomId| (0..=BIAS_WINDOW).contains(&(offset - new.atom(**id).end as i64));
        let below = new.atoms_of(section).iter().filter(ends);
        all.extend(below.map(|id| Meaning { atom: *id, delta: offset - new.atom(*id).start as i64 }));
    }
    all
}

/// What a number far outside of a section counts from, where that holds one object, in the old build as well: the address of
/// it plus the number. `__pa` of a variable adds 0x80000000, modulo 2^64 minus __START_KERNEL_map
/// (arch/x86/include/asm/page_64.h). Nothing is read or called there.
fn only_object(pair: &ObjectPair, r: &Ref, section: SectionId, offset: i64) -> Option<Meaning> {
    let alone = |object: &Object, section: SectionId| match object.atoms_of(section) {
        [one] => Some(*one),
        _ => None,
    };
    let taken = matches!(r.usage, Usage::Address | Usage::Indexed | Usage::Pointer);
    let data = matches!(pair.new.class(section), Class::Rodata | Class::Data | Class::Bss);
    let atom = alone(&pair.new, section).filter(|_| taken && data)?;
    let old = pair.pairs.old_of(NewAtom(atom)).map(|old| pair.old.atom(old.0).section);
    if old.is_some_and(|s| alone(&pair.old, s).is_none()) {
        return None;
    }
    Some(Meaning { atom, delta: offset - pair.new.atom(atom).start as i64 })
}

/// A key that is equal when two meanings lead to the same place in the running kernel or the patch.
fn place_of(pair: &ObjectPair, c: &Closure<'_>, id: PairId, m: &Meaning) -> (bool, SectionId, i64) {
    let target = NewAtom(m.atom);
    match pair.pairs.old_of(target) {
        Some(OldAtom(old))
            if !pair.verdicts.changed_constants.contains(&target) && !c.points_into_replaced(id, m.atom) =>
        {
            let atom = pair.old.atom(old);
            (false, atom.section, atom.start as i64 + m.delta)
        }
        _ => {
            let atom = pair.new.atom(m.atom);
            // Neighbours stay neighbours (emit/content.rs keeps runs together).
            (true, atom.section, atom.start as i64 + m.delta)
        }
    }
}

/// The same instruction in the old build.
fn old_delta(pair: &ObjectPair, m: &Meaning, old: OldAtom) -> i64 {
    if m.delta == 0 {
        return 0;
    }
    let index = pair.new.atom(m.atom).code.as_ref().and_then(|c| c.index_at(u64::try_from(m.delta).ok()?));
    let there = index.and_then(|i| pair.old.atom(old.0).code.as_ref()?.insns.get(i).map(|x| i64::from(x.at)));
    there.unwrap_or(m.delta)
}
