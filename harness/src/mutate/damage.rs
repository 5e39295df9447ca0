//! Damaged *old* objects against run-pre matching: an object that claims another code, or other references, than the kernel
//! that runs must be refused wherever that matters.
//!
//! The new object is the old one with one function fixed. The same damage is done to both, so that lpbuild sees the fix
//! alone. In the function that is fixed any damage that leads elsewhere must be refused. In another one it may pass only when
//! the patch means the same as without it (`patches`).

use std::collections::BTreeSet;

use anyhow::Result;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline;

use super::answer::{self, Fault};
use super::binary::{fix_of, functions, redirected};
use super::elf::{At, Elf, Reloc, flags, put_reloc, reloc};
use super::names::parent;
use super::patches;
use super::random::Random;
use super::reading::{Entity, Names, Reading};
use super::trial::Base;

/// What became of one damage.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was fixed and what was damaged.
    pub what: String,
    /// What lpbuild made of it.
    pub verdict: Verdict,
    /// The damaged old object and its new one.
    pub objects: (Vec<u8>, Vec<u8>),
}

/// What lpbuild made of a damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refused, with the first reason.
    Refused(String),
    /// Accepted, and the patch means what that of the object without damage does.
    Harmless,
    /// Accepted although it leads elsewhere.
    Accepted(String),
}

/// Tries to find a fix that can be built.
const TRIES: usize = 12;

/// One damage; nothing when this object has no function that can be fixed, or the damage means nothing.
pub fn trial(base: &Base, kernel: &KernelImage, random: &mut Random) -> Result<Option<Trial>> {
    let reading = &base.reading;
    let normal = functions(reading).into_iter().filter(|e| {
        let e = &reading.entities[*e];
        reading.elf.sections[e.section].name == ".text" && !e.key.contains(".cold")
    });
    let normal: Vec<usize> = normal.collect();
    for _ in 0..TRIES {
        let Some(function) = random.pick(&normal).copied() else { return Ok(None) };
        let Some(fix) = fix_of(reading, function, random) else { continue };
        let Ok(patch) = built(&base.name, &base.bytes, &fix.bytes, kernel) else { continue };
        let own = random.below(2) == 0;
        let all = functions(reading);
        let Some(at) = (if own { Some(function) } else { random.pick(&all).copied() }) else { return Ok(None) };
        let Some(Damage { bytes: old, what, touched }) = damaged(reading, at, at == function, kernel, random) else {
            continue;
        };
        // Behind the end is what the damage added.
        let changed = |a: &[u8], b: &[u8]| (0..a.len()).filter(|i| a[*i] != b[*i]).collect::<Vec<_>>();
        let (places, fixed) = (changed(&base.bytes, &old), changed(&base.bytes, &fix.bytes));
        let near = |a: &usize| fixed.iter().any(|b| a.abs_diff(*b) < 16);
        if places.iter().any(near) || base.difference(&old, Names::Exact)?.is_empty() {
            continue;
        }
        let mut new = fix.bytes.clone();
        for i in places {
            new[i] = old[i];
        }
        new.extend_from_slice(old.get(new.len()..).unwrap_or(&[]));
        let what = format!("fixed: {}; damaged: {what}", fix.what);
        // A piece of the function is replaced with it.
        let family = |e: usize| parent(&reading.entities[e].key) == reading.entities[function].key;
        let own = touched.into_iter().any(family);
        let verdict = match built(&base.name, &old, &new, kernel) {
            Err(why) => Verdict::Refused(why),
            Ok(_) if own => Verdict::Accepted("the function that is replaced is not what runs".into()),
            Ok(out) => match patches::difference(&patch, &out, kernel)? {
                None => Verdict::Harmless,
                Some(what) => Verdict::Accepted(format!("the patch refers to other places: {what}")),
            },
        };
        return Ok(Some(Trial { what, verdict, objects: (old, new) }));
    }
    Ok(None)
}

impl Trial {
    /// As of a mutant.
    pub fn faults(&self) -> Vec<(Fault, String)> {
        match &self.verdict {
            Verdict::Accepted(why) => vec![(Fault::Missed, format!("accepted although it leads elsewhere: {why}"))],
            Verdict::Refused(_) | Verdict::Harmless => Vec::new(),
        }
    }
}

/// The finished patch, or why there is none.
fn built(name: &str, old: &[u8], new: &[u8], kernel: &KernelImage) -> Result<Vec<u8>, String> {
    let options = answer::options();
    let first = |e: lpbuild::error::Error| e.problems.first().map_or_else(String::new, ToString::to_string);
    let mut analysis = pipeline::analyse(&[answer::source(name, old, new)], &options).map_err(first)?;
    if let Some(problem) = analysis.refused.first() {
        return Err(problem.to_string());
    }
    if analysis.set.items.is_empty() {
        return Err("nothing changed".into());
    }
    pipeline::produce(&mut analysis, Some(kernel), &options).map(|o| o.patch_o).map_err(first)
}

/// An object that claims other things than the kernel has.
struct Damage {
    bytes: Vec<u8>,
    what: String,
    /// Entities that claim something else now.
    touched: BTreeSet<usize>,
}

fn damaged(
    reading: &Reading,
    function: usize,
    fixed: bool,
    kernel: &KernelImage,
    random: &mut Random,
) -> Option<Damage> {
    match random.below(8) {
        0 | 1 => {
            let mutant = fix_of(reading, function, random)?;
            Some(Damage { bytes: mutant.bytes, what: mutant.what, touched: [function].into() })
        }
        2..=4 => one_reference(reading, function, fixed, kernel, random),
        5 => exchanged_names(reading, function, kernel, random),
        6 => renamed(reading, function, kernel, random),
        _ => exchanged_sections(reading, function, random),
    }
}

/// One reference of a function leads elsewhere.
fn one_reference(
    reading: &Reading,
    function: usize,
    fixed: bool,
    kernel: &KernelImage,
    random: &mut Random,
) -> Option<Damage> {
    let e = &reading.entities[function];
    let r = random.pick(reading.elf.relocs(e.section, e.start, e.end))?;
    // Only the jump to a block of `.altinstr_aux` says where the block before it ends, which another function may need: the
    // patch then brings both, of which the second is never reached.
    let aux = |s: usize| reading.elf.sections[s].name == ".altinstr_aux";
    if !fixed && matches!(reading.elf.symbols[r.symbol].at, At::Section(s) if aux(s)) {
        return None;
    }
    let (bytes, what) = redirected(reading, e.section, r, random)?;
    if reloc::width(r.kind) == 0 {
        return None;
    }
    let new = Elf::read(bytes.clone()).ok()?;
    let changed = new.sections[e.section].relocs.iter().find(|n| n.record == r.record)?;
    let undefined = reading.elf.symbols[r.symbol].at == At::Undefined;
    if undefined && same_place(kernel, &reading.elf.symbols[r.symbol].name, &new.symbols[changed.symbol].name) {
        return None;
    }
    let name = e.names.first().unwrap_or(&e.key);
    let what = format!("{name}+{:#x} {what}", r.at - e.start);
    Some(Damage { bytes, what, touched: [function].into() })
}

/// Two names of one place are no damage.
fn same_place(kernel: &KernelImage, a: &str, b: &str) -> bool {
    let places = |name: &str| kernel.kallsyms().named(name).map(|s| s.addr).collect::<BTreeSet<_>>();
    !places(a).is_disjoint(&places(b))
}

/// Entities that refer to one of the symbols.
fn users(reading: &Reading, symbols: &[usize]) -> BTreeSet<usize> {
    let uses = |e: &Entity| reading.elf.relocs(e.section, e.start, e.end).iter().any(|r| symbols.contains(&r.symbol));
    (0..reading.entities.len()).filter(|i| uses(&reading.entities[*i])).collect()
}

/// Symbols of other objects that the code of a function refers to.
fn undefined_of(reading: &Reading, function: usize) -> Vec<usize> {
    let e = &reading.entities[function];
    let all = reading.elf.relocs(e.section, e.start, e.end).iter().map(|r| r.symbol);
    let mut all: Vec<usize> = all.filter(|s| reading.elf.symbols[*s].at == At::Undefined).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Two symbols of other objects have each other's name: every reference agrees with every other.
fn exchanged_names(reading: &Reading, function: usize, kernel: &KernelImage, random: &mut Random) -> Option<Damage> {
    let a = *random.pick(&undefined_of(reading, function))?;
    let all = 1..reading.elf.symbols.len();
    let others: Vec<usize> = all
        .filter(|s| reading.elf.symbols[*s].at == At::Undefined && !reading.elf.symbols[*s].name.is_empty())
        .collect();
    let b = *random.pick(&others)?;
    let (x, y) = (&reading.elf.symbols[a], &reading.elf.symbols[b]);
    if a == b || same_place(kernel, &x.name, &y.name) {
        return None;
    }
    let mut bytes = reading.elf.bytes.clone();
    for (to, from) in [(x, y), (y, x)] {
        bytes[to.record..to.record + 4].copy_from_slice(&reading.elf.bytes[from.record..from.record + 4]);
    }
    let what = format!("{} and {} have each other's name", x.name, y.name);
    Some(Damage { bytes, what, touched: users(reading, &[a, b]) })
}

/// A symbol of another object has the name of something else of the kernel, or one that the kernel does not have.
fn renamed(reading: &Reading, function: usize, kernel: &KernelImage, random: &mut Random) -> Option<Damage> {
    let symbol = *random.pick(&undefined_of(reading, function))?;
    let was = &reading.elf.symbols[symbol];
    let all = kernel.kallsyms();
    if random.below(3) == 0 {
        const UNKNOWN: &str = "no_such_name";
        if all.named(&was.name).len() == 0 {
            return None;
        }
        let bytes = reading.elf.with_name(symbol, UNKNOWN)?;
        let what = format!("{} is called {UNKNOWN}", was.name);
        return Some(Damage { bytes, what, touched: users(reading, &[symbol]) });
    }
    let new = all.iter().nth(random.below(all.len()))?;
    if new.is_local() || all.named(&new.name).len() != 1 || same_place(kernel, &was.name, &new.name) {
        return None;
    }
    let bytes = reading.elf.with_name(symbol, &new.name)?;
    let what = format!("{} is called {}", was.name, new.name);
    Some(Damage { bytes, what, touched: users(reading, &[symbol]) })
}

/// Two variables of the object have each other's references.
fn exchanged_sections(reading: &Reading, function: usize, random: &mut Random) -> Option<Damage> {
    let elf = &reading.elf;
    let e = &reading.entities[function];
    let writable = |symbol: usize| match elf.symbols[symbol].at {
        At::Section(s) => {
            elf.symbols[symbol].is_section() && elf.sections[s].is(flags::WRITE) && elf.sections[s].size > 0
        }
        _ => false,
    };
    let own: Vec<usize> =
        elf.relocs(e.section, e.start, e.end).iter().map(|r| r.symbol).filter(|s| writable(*s)).collect();
    let a = *random.pick(&own)?;
    let others: Vec<usize> = (0..elf.symbols.len()).filter(|s| *s != a && writable(*s)).collect();
    let b = *random.pick(&others)?;
    let mut bytes = elf.bytes.clone();
    for section in elf.sections.iter().filter(|s| s.is(flags::ALLOC)) {
        for r in &section.relocs {
            let to = match r.symbol {
                s if s == a => b,
                s if s == b => a,
                _ => continue,
            };
            put_reloc(&mut bytes, &Reloc { symbol: to, ..r.clone() });
        }
    }
    let name = |s: usize| match elf.symbols[s].at {
        At::Section(s) => elf.sections[s].name.clone(),
        _ => String::new(),
    };
    let what = format!("what refers to {} refers to {} and the reverse", name(a), name(b));
    Some(Damage { bytes, what, touched: users(reading, &[a, b]) })
}
