//! Names across objects: which of them a name belongs to when all are linked.
//!
//! The linker takes the strong definition of a name, of weak ones the first, and gives a weak reference that nobody defines
//! the address zero (System V gABI, "Symbol Binding"). Everybody in the kernel has what that was when it was linked, and a patch
//! cannot link it again. Input: the names of all objects in both builds, or, where only some objects are known, the names
//! of the image. Refused (LP2022): a name that would belong to another object, one that would be found although a weak
//! reference found nothing, one that would not be found any more. A name that nobody had or asked for is new, and no harm.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSymbol, elf};

use crate::accept::Accept;
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::{HolderName, Running};
use crate::ingest::{Image, SymbolPlace};
use crate::plan::ObjectPair;
use crate::plan::Source;

/// Names that come and go with another one: of exports and their versions (LP2005), of what stands before a function.
const COMPANIONS: &[&str] =
    &["__crc_", "__ksymtab_", "__kstrtab_", "__kstrtabns_", "__export_symbol_", "__pfx_", "__cfi_"];

/// What an object has under a name that others can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    /// A definition.
    Strong,
    /// One that a strong one overrides; tentative ones are no different here.
    Weak,
    /// A weak reference.
    Asks,
}

/// Who has a name in one build.
#[derive(Default)]
struct Side<'a> {
    strong: BTreeSet<&'a str>,
    weak: BTreeSet<&'a str>,
    asks: BTreeSet<&'a str>,
}

impl<'a> Side<'a> {
    fn add(&mut self, object: &'a str, has: Has) {
        let set = match has {
            Has::Strong => &mut self.strong,
            Has::Weak => &mut self.weak,
            Has::Asks => &mut self.asks,
        };
        set.insert(object);
    }
    /// The objects one of which the linker takes it from.
    fn owners(&self) -> &BTreeSet<&'a str> {
        if self.strong.is_empty() { &self.weak } else { &self.strong }
    }
}

fn counts(name: &str) -> bool {
    !name.is_empty() && !COMPANIONS.iter().any(|c| name.starts_with(c))
}

/// The visible names of an object.
fn names(image: &Image) -> BTreeMap<&str, Has> {
    let visible = image.symbols.iter().filter(|s| s.bind != elf::STB_LOCAL.0 && s.kind != elf::STT_FILE.0);
    let has = visible.filter(|s| counts(&s.name)).filter_map(|s| {
        let is_weak = s.bind == elf::STB_WEAK.0;
        let has = match s.place {
            SymbolPlace::Undefined if is_weak => Has::Asks,
            SymbolPlace::Undefined => return None,
            SymbolPlace::Common => Has::Weak,
            _ if is_weak => Has::Weak,
            _ => Has::Strong,
        };
        Some((s.name.as_str(), has))
    });
    has.collect()
}

/// Defined under this name in one build, and not so in the other.
fn changed<'a>(old: &BTreeMap<&'a str, Has>, new: &BTreeMap<&'a str, Has>) -> Vec<&'a str> {
    let defined = |has: Option<&Has>| has.is_some_and(|h| *h != Has::Asks);
    let all: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let differs = |n: &&str| old.get(n) != new.get(n) && (defined(old.get(n)) || defined(new.get(n)));
    all.into_iter().filter(differs).collect()
}

/// Does the new object define a name that the old one did not, or in another way?
pub fn defines_more(pair: &ObjectPair) -> bool {
    let (old, new) = (names(&pair.old.image), names(&pair.new.image));
    changed(&old, &new).into_iter().any(|n| new.get(n).is_some_and(|h| *h != Has::Asks))
}

/// Names that would belong to another of the objects. `pairs` are those of `sources` that differ.
pub fn moved(sources: &[Source], pairs: &[ObjectPair]) -> Vec<Problem> {
    let named: Vec<_> = pairs.iter().map(|p| (p, names(&p.old.image), names(&p.new.image))).collect();
    let mut all: HashMap<(&HolderName, &str), [Side<'_>; 2]> = HashMap::new();
    for (pair, old, new) in &named {
        all.extend(changed(old, new).into_iter().map(|n| ((&pair.holder, n), Default::default())));
    }
    if all.is_empty() {
        return Vec::new();
    }
    for (pair, old, new) in &named {
        for (side, names) in [old, new].into_iter().enumerate() {
            for (name, has) in names {
                if let Some(sides) = all.get_mut(&(&pair.holder, *name)) {
                    sides[side].add(&pair.name, *has);
                }
            }
        }
    }
    for source in sources.iter().filter(|s| s.old == s.new) {
        // One that is no object of this machine belongs to another program.
        let Ok(file) = ElfFile64::<object::LittleEndian>::parse(&source.old[..]) else { continue };
        for symbol in file.symbols().filter(|s| !s.is_local()) {
            let has = match (symbol.is_undefined(), symbol.is_weak() || symbol.is_common()) {
                (true, true) => Has::Asks,
                (true, false) => continue,
                (false, true) => Has::Weak,
                (false, false) => Has::Strong,
            };
            if let Some(sides) = symbol.name().ok().and_then(|n| all.get_mut(&(&source.holder, n))) {
                sides.iter_mut().for_each(|s| s.add(&source.name, has));
            }
        }
    }
    all.iter().filter_map(|((_, name), [old, new])| judge(name, old, new)).collect()
}

fn judge(name: &str, old: &Side<'_>, new: &Side<'_>) -> Option<Problem> {
    let (was, is) = (old.owners(), new.owners());
    let gained = is.difference(was).next();
    let lost = was.difference(is).next();
    // In the object itself every reference that has another meaning counts as a change.
    let (asked, asks) = (old.asks.difference(is).next(), new.asks.difference(was).next());
    let (object, what) = match (was.first(), is.first()) {
        (None, Some(owner)) => (owner, format!("{} asked for it and there was none", asked?)),
        (Some(owner), None) => (owner, format!("there is none any more, and {} still asks for it", asks?)),
        (Some(was_of), Some(is_of)) => {
            // Two strong ones that stay are of different programs: each module has its own.
            let strong = !old.strong.is_empty() && !new.strong.is_empty();
            if strong && (gained.is_none() || lost.is_none()) || gained.is_none() && lost.is_none() {
                return None;
            }
            let (from, to) = (lost.unwrap_or(was_of), gained.unwrap_or(is_of));
            let kind = |side: &Side<'_>| if side.strong.is_empty() { "the weak one" } else { "that" };
            (to, format!("it was {} of {from} and is now {} of {to}", kind(old), kind(new)))
        }
        (None, None) => return None,
    };
    Some(Problem::new(codes::LP2022, Place::symbol(*object, name), what).acceptable(Accept::Name, name))
}

/// Names that none of the old objects of a holder defines, a new one does, and the holder's image has from another object, or
/// imports. What is static there nobody else knows.
pub fn moved_in(pairs: &[ObjectPair], running: Running<'_>) -> Vec<Problem> {
    let olds: Vec<_> = pairs.iter().map(|p| (&p.holder, names(&p.old.image))).collect();
    let known = |holder: &HolderName, name: &str| {
        olds.iter().any(|(h, o)| *h == holder && o.get(name).is_some_and(|h| *h != Has::Asks))
    };
    let mut problems = Vec::new();
    for pair in pairs {
        let Some(image) = running.image(&pair.holder) else { continue };
        let defined = names(&pair.new.image).into_iter().filter(|(_, h)| *h != Has::Asks);
        for (name, has) in defined.filter(|(n, _)| !known(&pair.holder, n)) {
            let there = image.kallsyms().named(name).find(|s| !s.is_local());
            let Some(there) = there else { continue };
            let is_weak = matches!(there.kind, b'W' | b'w' | b'V' | b'v');
            // A strong one stays what a weak one would have been.
            if has == Has::Weak && !is_weak {
                continue;
            }
            let kind = if is_weak { "a weak one" } else { "one" };
            let what = match &pair.holder {
                HolderName::Vmlinux => format!("the kernel image has {kind} of another object, at {:#x}", there.addr),
                HolderName::Module(module) => {
                    format!("the module {module} has {kind} of another object, or imports it")
                }
            };
            problems.push(
                Problem::new(codes::LP2022, Place::symbol(&pair.name, name), what).acceptable(Accept::Name, name),
            );
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side<'a>(has: &[(&'a str, Has)]) -> Side<'a> {
        let mut side = Side::default();
        has.iter().for_each(|(object, has)| side.add(object, *has));
        side
    }

    #[test]
    fn a_name_moves_when_the_linker_would_take_it_from_elsewhere() {
        use Has::{Asks, Strong, Weak};
        type Names = &'static [(&'static str, Has)];
        let cases: &[(Names, Names, bool)] = &[
            (&[("a", Weak)], &[("a", Weak), ("b", Strong)], true),
            (&[("a", Weak), ("b", Strong)], &[("a", Weak)], true),
            (&[("a", Strong), ("b", Weak)], &[("a", Weak), ("b", Strong)], true),
            (&[("a", Strong)], &[("b", Strong)], true),
            // Which of two weak ones is first, the objects do not say.
            (&[("a", Weak)], &[("a", Weak), ("b", Weak)], true),
            (&[("a", Weak), ("b", Weak)], &[("a", Weak)], true),
            (&[("a", Asks)], &[("a", Asks), ("b", Strong)], true),
            (&[("a", Asks), ("b", Strong)], &[("a", Asks)], true),
            // Nobody else had or has it.
            (&[], &[("b", Strong)], false),
            (&[("b", Strong)], &[], false),
            (&[("b", Weak)], &[("b", Strong)], false),
            (&[("b", Strong)], &[("b", Weak)], false),
            (&[("b", Asks)], &[("b", Strong)], false),
            (&[("b", Strong)], &[("b", Asks)], false),
            // A strong one stays what it was.
            (&[("a", Strong)], &[("a", Strong), ("b", Weak)], false),
            (&[("a", Strong), ("b", Weak)], &[("a", Strong)], false),
            // Of different modules.
            (&[("a", Strong)], &[("a", Strong), ("b", Strong)], false),
            (&[("a", Strong), ("b", Strong)], &[("b", Strong)], false),
        ];
        for (old, new, moves) in cases {
            assert_eq!(judge("n", &side(old), &side(new)).is_some(), *moves, "{old:?} {new:?}");
        }
    }
}
