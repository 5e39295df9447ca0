//! Functions that unpatched code calls in another way than the new build (LP2019).
//!
//! Callers in compared objects are no case: one whose code differs is replaced itself, one whose code is the same calls as the
//! new build does. Unpatched are callers nobody compared: by address, of an exported function (those in modules that are left
//! behind come to it in no other way), and in objects that were not given. The other way round, carried code may call a function that was not given and that its
//! new declaration has otherwise.

use std::collections::BTreeSet;

use object::{Object as _, ObjectSymbol as _};

use super::Rest;
use super::sides::{CarriedFunction, Sides};
use crate::accept::Accept;
use crate::codes;
use crate::debuginfo::{DebugInfo, Prototype, Signatures, section_address};
use crate::error::{Place, Problem};
use crate::plan::PatchSet;
use crate::plan::Source;
use crate::symbolize::{AtomId, Class, Object, Target, Usage};

/// What stands against the patch.
pub fn compare(sides: Sides<'_, '_>, set: &PatchSet, rest: Rest<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for carried in sides.carried(set) {
        problems.extend(called(sides, carried, rest));
        match rest {
            Rest::Unknown { sources } => problems.extend(calls(sides, carried, sources, &|_| false)),
            Rest::Beside { old, sources } => {
                let in_image = |name: &str| old.symbols.iter().any(|s| s.name == name);
                problems.extend(calls(sides, carried, sources, &in_image));
            }
            Rest::Image { .. } | Rest::Built { .. } => {}
        }
    }
    problems
}

fn problem(place: Place, why: &str, old: &Prototype, new: &Prototype) -> Problem {
    let problem = Problem::new(codes::LP2019, place, why).with_lines(&format!("  old: {old}\n  new: {new}"));
    problem.acceptable(Accept::Signature, &new.name)
}

/// A replaced function, seen from its callers.
fn called(sides: Sides<'_, '_>, carried: CarriedFunction, rest: Rest<'_>) -> Option<Problem> {
    let old = carried.old?;
    let was = sides.debug.old.signature_at((sides.old_at)(old.0)?)?;
    let is = sides.debug.new.signature_at((sides.new_at)(carried.new.0)?)?;
    if was.agrees(&is) {
        return None;
    }
    let why = unpatched(sides, carried, (&was, &is), rest)?;
    Some(problem(Place::symbol(&sides.pair.name, &sides.pair.new.atom(carried.new.0).name), &why, &was, &is))
}

fn unpatched(
    sides: Sides<'_, '_>,
    carried: CarriedFunction,
    signatures: (&Prototype, &Prototype),
    rest: Rest<'_>,
) -> Option<String> {
    let (pair, old) = (sides.pair, carried.old?);
    let names = |object: &Object, id: AtomId| -> Vec<String> {
        let atom = object.atom(id);
        std::iter::once(&atom.name).chain(&atom.aliases).cloned().collect()
    };
    let names: BTreeSet<String> = names(&pair.old, old.0).into_iter().chain(names(&pair.new, carried.new.0)).collect();
    if names.iter().any(|n| is_exported(&pair.old, n) || is_exported_by(rest, n)) {
        return Some("it is exported, so any module may call it as before".into());
    }
    let taken = [(&pair.old, old.0), (&pair.new, carried.new.0)].into_iter().find_map(|(o, id)| taken_by(o, id));
    if let Some(by) = taken {
        return Some(format!("{by} has its address, and who calls it there does so as before"));
    }
    if !pair.old.atom(old.0).global {
        return None;
    }
    match rest {
        Rest::Image { .. } | Rest::Beside { .. } | Rest::Built { .. } => None,
        Rest::Unknown { sources } => {
            let others = sources.iter().filter(|s| s.name != pair.name);
            let callers: Vec<&Source> = others.filter(|s| names.iter().any(|n| needs(&s.old, n))).collect();
            if callers.is_empty() {
                return Some("who else calls it is not known: no other object was given that does".into());
            }
            let stale = callers.into_iter().find(|source| {
                let info = DebugInfo::open_relocatable(&source.new, &section_address);
                let declared = info.and_then(|i| names.iter().find_map(|n| i.signature_named(n)));
                match declared.map(|d| (d.agrees(signatures.0), d.agrees(signatures.1))) {
                    Some((false, true)) => false,
                    Some((_, false)) => true,
                    // A declaration has no names of parameters.
                    Some((true, true)) | None => source.old == source.new,
                }
            })?;
            Some(format!("{} calls it as before", stale.name))
        }
    }
}

/// `EXPORT_SYMBOL` (include/linux/export.h, include/linux/export-internal.h; before 6.5 the entry itself, since then a note for
/// modpost).
fn is_exported(object: &Object, name: &str) -> bool {
    let marks = [format!("__ksymtab_{name}"), format!("__export_symbol_{name}")];
    object.image.symbols.iter().any(|s| marks.contains(&s.name))
}

/// The same by what is known of the whole kernel: another object can have the mark.
fn is_exported_by(rest: Rest<'_>, name: &str) -> bool {
    match rest {
        Rest::Image { old } | Rest::Beside { old, .. } => {
            old.symbols.iter().any(|s| s.name.strip_prefix("__ksymtab_") == Some(name))
        }
        Rest::Built { exports, .. } => exports.exporter(name).is_some(),
        Rest::Unknown { .. } => false,
    }
}

/// Code or data that holds the address of a function.
fn taken_by(object: &Object, id: AtomId) -> Option<String> {
    let atom = object.atom(id);
    let is_taken =
        |from: AtomId| matches!(object.class_of(from), Class::Text(_) | Class::Rodata | Class::Data | Class::Percpu);
    let all = object.incoming(atom.section, atom.start as i64, atom.start as i64 + 1).iter();
    let by = all.filter(|i| i.usage != Usage::Branch && is_taken(i.from)).map(|i| object.atom(i.from).name.clone());
    by.min()
}

/// Does an object refer to a symbol of another one?
fn needs(bytes: &[u8], name: &str) -> bool {
    let Ok(file) = object::File::parse(bytes) else { return true };
    file.symbols().any(|s| s.is_undefined() && s.name().is_ok_and(|n| n == name))
}

/// Functions of objects that were not given, which carried code calls otherwise than the old build. `compared` knows those of more
/// than `sources`.
fn calls(
    sides: Sides<'_, '_>,
    carried: CarriedFunction,
    sources: &[Source],
    compared: &dyn Fn(&str) -> bool,
) -> Vec<Problem> {
    let pair = sides.pair;
    let family = pair.new.family(carried.new.0);
    let refs = family.iter().flat_map(|id| &pair.new.atom(*id).refs).filter(|r| r.usage == Usage::Branch);
    let callees: BTreeSet<&str> = refs
        .filter_map(|r| match r.target {
            Target::Extern(symbol, 0) => Some(pair.new.symbol_name(symbol)),
            _ => None,
        })
        .collect();
    let (mut before, mut after) = (Signatures::of(sides.debug.old), Signatures::of(sides.debug.new));
    let mut problems = Vec::new();
    for callee in callees {
        let (Some(was), Some(is)) = (before.named(callee), after.named(callee)) else { continue };
        if was.agrees(&is) || compared(callee) || sources.iter().any(|s| s.name != pair.name && defines(&s.new, callee))
        {
            continue;
        }
        let place = Place::symbol(&pair.name, &pair.new.atom(carried.new.0).name);
        let why = format!("it calls {callee}, which no object that was given defines, otherwise than the old build");
        problems.push(problem(place, &why, &was, &is));
    }
    problems
}

fn defines(bytes: &[u8], name: &str) -> bool {
    let Ok(file) = object::File::parse(bytes) else { return false };
    file.symbols().any(|s| s.is_definition() && s.is_global() && s.name().is_ok_and(|n| n == name))
}
