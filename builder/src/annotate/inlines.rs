//! Inline functions of headers that changed for only some of their users (LP2020).
//!
//! `lpbuild build` compiles every user, so only modules that are left behind can keep the old version, and may: nobody compares
//! them. What changed is then told from the text of the header as well. Objects that
//! are compared alone, or some of a tree, say nothing of the other users: there, an inline function whose own body changed is
//! refused unless every other object that inlines it is patched as well.
//!
//! That its body changed is only said when its definition differs (parameters, variables, blocks and on which of its lines), when
//! other lines of it have code, or when nothing but code of inline functions of headers differs, with registers and jumps left
//! out, while the arguments have the same numbers. A function that is not inlined but declared in a header is compared as a function.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::isa::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::sides::{CarriedFunction, Sides};
use super::{EditedHeaders, Left, Rest, sides};
use crate::accept::Accept;
use crate::codes;
use crate::correlate::NewAtom;
use crate::debuginfo::{DebugInfo, Inlined, section_address};
use crate::error::{Place, Problem};
use crate::plan::{ObjectPair, PatchSet, Source};
use crate::symbolize::{AtomId, Class, Object, Target};

/// An inline function and the header it is declared in.
pub type Helper = (String, String);

/// The inline functions whose own body changed, and a function of the pair each is in.
pub type Bodies = BTreeMap<Helper, NewAtom>;

/// Those of the carried functions of a pair.
pub fn bodies(sides: Sides<'_, '_>, set: &PatchSet, rest: Rest<'_>) -> Bodies {
    let mut out = Bodies::new();
    let lines = OnceCell::new();
    for carried in sides.carried(set) {
        let edited = match rest {
            Rest::Built { left: Left::Unknown { edited }, .. } => edited_in(sides, carried, edited),
            _ => BTreeSet::new(),
        };
        for helper in changed_in(sides, carried, &lines).into_iter().flatten().chain(edited) {
            out.entry(helper).or_insert(carried.new);
        }
    }
    out
}

/// The inline functions in either version of a function that lie where their header is changed.
fn edited_in(sides: Sides<'_, '_>, carried: CarriedFunction, edited: &EditedHeaders) -> BTreeSet<Helper> {
    let was = carried.old.and_then(|old| sides.debug.old.function_in_full((sides.old_at)(old.0)?));
    let is = (sides.new_at)(carried.new.0).and_then(|at| sides.debug.new.function_in_full(at));
    let inlined = was.iter().chain(&is).flat_map(|f| &f.inlined);
    let found = inlined.filter_map(|i| {
        let file = i.file.as_ref()?;
        let of = |path: &str| file.strip_suffix(path).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
        let lines = edited.iter().find(|(path, _)| of(path)).map(|(_, lines)| lines)?;
        let line: Option<u64> = i.line;
        line.is_none_or(|l| lines.iter().any(|r| r.contains(&l))).then(|| (i.name.clone(), file.clone()))
    });
    found.collect()
}

fn open(bytes: &[u8]) -> Option<DebugInfo<'_>> {
    DebugInfo::open_relocatable(bytes, &section_address)
}

/// What stands against the patch; `all` has the bodies that changed in each pair.
pub fn judge(pairs: &[ObjectPair], all: &[Bodies], rest: Rest<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |pair: &ObjectPair, (name, file): &Helper, at: NewAtom, why: &str| {
        let place = Place::symbol(&pair.name, &pair.new.atom(at.0).name);
        let what = format!("{name} of {file}, which is inlined into it, changed; {why}");
        problems.push(Problem::new(codes::LP2020, place, what).acceptable(Accept::Inline, name));
    };
    match rest {
        Rest::Image { .. } | Rest::Beside { .. } => {}
        Rest::Built { left: Left::Nothing, .. } => {}
        Rest::Built { left: Left::Unknown { .. }, .. } => {
            for (pair, bodies) in pairs.iter().zip(all) {
                for (helper, at) in bodies {
                    add(pair, helper, *at, "objects of modules were left uncompared, and may keep its old version");
                }
            }
        }
        Rest::Unknown { sources } => {
            let mut known: BTreeMap<&str, Option<Names>> = BTreeMap::new();
            for (pair, bodies) in pairs.iter().zip(all) {
                for (helper, at) in bodies {
                    let others = sources.iter().filter(|s| s.name != pair.name);
                    let patched =
                        |s: &Source| pairs.iter().zip(all).any(|(p, b)| p.name == s.name && b.contains_key(helper));
                    let unpatched = others.filter(|s| !patched(s)).find(|source| {
                        let inlined = known
                            .entry(&source.name)
                            .or_insert_with(|| open(&source.new).map(|info| info.inlined_functions()));
                        inlined.as_ref().is_none_or(|all| all.contains(&(helper.0.clone(), Some(helper.1.clone()))))
                    });
                    if sources.len() == 1 {
                        add(pair, helper, *at, "which other objects have it is not known");
                    } else if let Some(other) = unpatched {
                        add(pair, helper, *at, &format!("{} keeps its old version", other.name));
                    }
                }
            }
        }
    }
    problems
}

/// Inline functions and the files they are declared in.
type Names = BTreeSet<(String, Option<String>)>;

/// A function's code by who owns it, innermost: nobody but the function itself, or an inline function.
type Owned = BTreeMap<Option<(String, Option<String>)>, Vec<String>>;

/// The inline functions of headers whose bodies changed in a function; nothing when that cannot be said.
fn changed_in(
    sides: Sides<'_, '_>,
    carried: CarriedFunction,
    lines: &OnceCell<[Lines; 2]>,
) -> Option<BTreeSet<Helper>> {
    let old = carried.old?;
    let (was, is) = (
        sides.debug.old.function_in_full((sides.old_at)(old.0)?)?,
        sides.debug.new.function_in_full((sides.new_at)(carried.new.0)?)?,
    );
    let mut found = BTreeSet::new();
    if let Some(file) = is.file.filter(|f| is_header(f)) {
        // Its own copy of an inline function that the compiler did not inline.
        found.insert((is.name, file));
    }
    let key = |i: &Inlined| (i.name.clone(), i.file.clone());
    for (helper, new) in by_helper(&is.inlined, key) {
        let Some(file) = helper.1.filter(|f| is_header(f)) else { continue };
        let old: Vec<&Inlined> = was.inlined.iter().filter(|i| i.name == helper.0).collect();
        if !old.is_empty() && new.iter().any(|n| old.iter().all(|o| o.shape != n.shape)) {
            found.insert((helper.0, file));
        }
    }
    let was_owned = owned(&sides.pair.old, old.0, sides.old_at, &was.inlined)?;
    let is_owned = owned(&sides.pair.new, carried.new.0, sides.new_at, &is.inlined)?;
    let differing: BTreeSet<_> =
        was_owned.keys().chain(is_owned.keys()).filter(|k| was_owned.get(*k) != is_owned.get(*k)).collect();
    let arguments = |list: &[Inlined], name: &str| -> Vec<BTreeSet<u64>> {
        let mut all: Vec<_> = list.iter().filter(|i| i.name == name).map(|i| i.arguments.clone()).collect();
        all.sort();
        all
    };
    let of_header = |owner: &Option<(String, Option<String>)>| match owner {
        Some((name, Some(file))) if is_header(file) => Some((name.clone(), file.clone())),
        _ => None,
    };
    let helpers: Vec<Helper> = differing.iter().filter_map(|owner| of_header(owner)).collect();
    let same_arguments = |h: &Helper| arguments(&was.inlined, &h.0) == arguments(&is.inlined, &h.0);
    let only_headers = helpers.len() == differing.len();
    let other_lines = |helper: &Helper| {
        let [old, new] = lines.get_or_init(|| {
            [
                lines_of(&sides.pair.old, sides.debug.old, sides.old_at),
                lines_of(&sides.pair.new, sides.debug.new, sides.new_at),
            ]
        });
        matches!((old.get(helper), new.get(helper)), (Some(a), Some(b)) if a != b)
    };
    let (certain, other): (Vec<Helper>, Vec<Helper>) =
        helpers.into_iter().filter(same_arguments).partition(|h| found.contains(h) || other_lines(h));
    found.extend(certain);
    // What a changed function inlines is compiled anew with it, and need not have changed by itself.
    let explained = |h: &Helper| lies_within(&was.inlined, h, &found) && lies_within(&is.inlined, h, &found);
    let other: Vec<Helper> = other.into_iter().filter(|h| only_headers && !explained(h)).collect();
    found.extend(other);
    Some(found)
}

/// Whether all code of an inline function lies within that of the others.
fn lies_within(inlined: &[Inlined], helper: &Helper, others: &BTreeSet<Helper>) -> bool {
    let is = |i: &Inlined, h: &Helper| i.name == h.0 && i.file.as_ref() == Some(&h.1);
    let holds = |outer: &Inlined, inner: &Inlined| {
        inner.ranges.iter().all(|r| outer.ranges.iter().any(|o| o.start <= r.start && r.end <= o.end))
    };
    let holders: Vec<&Inlined> = inlined.iter().filter(|i| others.iter().any(|h| is(i, h))).collect();
    inlined.iter().filter(|i| is(i, helper)).all(|i| holders.iter().any(|outer| holds(outer, i)))
}

/// The lines of inline functions of headers that have code somewhere in an object, counted from their declarations.
type Lines = BTreeMap<Helper, BTreeSet<i64>>;

fn lines_of(object: &Object, debug: &DebugInfo<'_>, at: &sides::Address<'_>) -> Lines {
    let mut out = Lines::new();
    for atom in &object.atoms {
        let (Some(base), Some(code)) = (at(atom.id), &atom.code) else { continue };
        let Some(function) = debug.function_at(base) else { continue };
        for insn in &code.insns {
            let here = base.saturating_add(u64::from(insn.at));
            let owner = function.inlined.iter().rev().find(|i| i.ranges.iter().any(|r| r.contains(&here)));
            let Some((owner, file, first)) = owner.and_then(|o| Some((o, o.file.clone()?, o.line?))) else { continue };
            let Some(line) = debug.line(here).filter(|l| is_header(&file) && l.file == file && l.line > 0) else {
                continue;
            };
            let lines = out.entry((owner.name.clone(), file)).or_default();
            lines.insert(line.line as i64 - first as i64);
        }
    }
    out
}

fn is_header(file: &str) -> bool {
    file.ends_with(".h")
}

fn by_helper<K: Ord>(list: &[Inlined], key: impl Fn(&Inlined) -> K) -> BTreeMap<K, Vec<&Inlined>> {
    let mut out: BTreeMap<K, Vec<&Inlined>> = BTreeMap::new();
    for inlined in list {
        out.entry(key(inlined)).or_default().push(inlined);
    }
    out
}

/// The instructions of a function and its pieces, without what the choice of registers and the order of blocks bring.
fn owned(object: &Object, function: AtomId, at: &sides::Address<'_>, inlined: &[Inlined]) -> Option<Owned> {
    let mut out = Owned::new();
    for id in object.family(function) {
        let atom = object.atom(id);
        let (bytes, base) = (object.bytes(id), at(id)?);
        let mut refs = atom.refs.iter().peekable();
        for insn in &atom.code.as_ref()?.insns {
            let (start, end) = (u64::from(insn.at), u64::from(insn.at) + u64::from(insn.len));
            let mut targets = Vec::new();
            while let Some(r) = refs.next_if(|r| r.at < end) {
                targets.push(r.target);
            }
            let decoded = Decoder::new(64, bytes.get(start as usize..end as usize)?, DecoderOptions::NONE).decode();
            let Some(text) = meaning(object, id, &decoded, &targets) else { continue };
            let here = base.checked_add(start)?;
            // Those that hold others come first.
            let owner = inlined.iter().rev().find(|i| i.ranges.iter().any(|r| r.contains(&here)));
            out.entry(owner.map(|i| (i.name.clone(), i.file.clone()))).or_default().push(text);
        }
    }
    out.values_mut().for_each(|list| list.sort());
    Some(out)
}

/// What an instruction does, in words; nothing for one that only moves values about or goes elsewhere in the function.
fn meaning(object: &Object, id: AtomId, insn: &Instruction, targets: &[Target]) -> Option<String> {
    let registers_only = (0..insn.op_count()).all(|i| insn.op_kind(i) == OpKind::Register);
    let moves = match insn.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Ret => true,
        // The text that a user hands over is the user's, wherever the compiler says the instruction belongs.
        Mnemonic::Mov | Mnemonic::Lea if !targets.is_empty() && insn.op0_kind() == OpKind::Register => {
            targets.iter().all(|t| matches!(t, Target::Section(s, _) if object.class(*s) == Class::Strings))
        }
        Mnemonic::Mov | Mnemonic::Movsxd | Mnemonic::Xor => registers_only,
        _ => insn.op0_register() == Register::RSP,
    };
    let named: Vec<String> = targets.iter().filter_map(|t| name_of(object, id, *t)).collect();
    if moves || insn.flow_control() == FlowControl::UnconditionalBranch && named.is_empty() {
        return None;
    }
    let mut text = match insn.flow_control() {
        // A jump and its opposite are the same question.
        FlowControl::ConditionalBranch => {
            let mut opposite = *insn;
            opposite.negate_condition_code();
            format!("{:?}", insn.mnemonic().min(opposite.mnemonic()))
        }
        _ => format!("{:?}", insn.mnemonic()),
    };
    if targets.is_empty() && !insn.is_jmp_short_or_near() && !insn.is_jcc_short_or_near() {
        for i in 0..insn.op_count() {
            match insn.op_kind(i) {
                OpKind::Memory if insn.memory_base() == Register::RSP => text.push_str(" stack"),
                OpKind::Memory => text.push_str(&format!(" [{:x}]", insn.memory_displacement64())),
                _ => {
                    if let Ok(number) = insn.try_immediate(i) {
                        text.push_str(&format!(" {number:x}"));
                    }
                }
            }
        }
    }
    for name in named {
        text.push(' ');
        text.push_str(&name);
    }
    Some(text)
}

/// What a reference leads to; nothing within the function itself.
fn name_of(object: &Object, id: AtomId, target: Target) -> Option<String> {
    match target {
        Target::Extern(symbol, addend) => Some(format!("{}+{addend}", object.symbol_name(symbol))),
        Target::Section(section, offset) => {
            if let Some(bytes) = object.constant_at(section, offset) {
                return Some(format!("{bytes:?}"));
            }
            let meaning = object.containing(section, offset)?;
            (object.parent(meaning.atom) != object.parent(id))
                .then(|| format!("{}+{}", object.atom(meaning.atom).name, meaning.delta))
        }
    }
}
