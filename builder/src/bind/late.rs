//! What of a module has to wait until that is loaded, and what cannot wait.
//!
//! The sections of a module lie anywhere, each on its own since 6.4 (`module_memory_alloc` of kernel/module/main.c), and a symbol it
//! does not export no module loader finds. Fields of carried code and data that refer to a module are therefore filled in by the
//! runtime, each time the module comes, before any CPU can reach them. What the loader itself reads or writes when it loads the
//! patch cannot wait. Jumps of static keys and static calls that the module has do: the runtime hands their entries to the kernel
//! when it is here, and fills in the call before that.
//! Refused (LP2026): other entries of tables that refer to a module; fields in instructions that the loader rewrites, static keys and
//! per-CPU variables that the patch adds for a module, callbacks among its functions, and references into a module from the kernel,
//! or from another module that does not import from it: who imports something keeps the exporter here.

use lpbuild_abi as abi;

use super::{Bound, Resolved};
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::{HolderName, ModuleHolder};
use crate::isa::reloc;
use crate::kernel::module::is_in_area;
use crate::plan::{Dest, Edge, Item, ItemEntry, ObjectPair, PatchSet};
use crate::symbolize::{Class, Entry, RefKind, Table, Usage, known_sections};

/// One item.
pub(super) fn check(bound: &Bound<'_>, pairs: &[ObjectPair], set: &PatchSet, item: &Item, out: &mut Vec<Problem>) {
    let late = Late { bound, pairs, item, pair: &pairs[item.pair.0 as usize] };
    let mut found: Vec<(Option<u64>, String)> = Vec::new();
    for edge in &item.edges {
        found.extend(late.field(edge).map(|what| (Some(edge.field.at), what)));
    }
    for entry in &item.entries {
        let name = late.table(entry);
        for edge in &entry.edges {
            found.extend(late.entry(entry, edge).map(|what| (None, format!("its entry of {name} {what}"))));
        }
        for edge in entry.replacement.iter().filter(|e| late.address(e).is_some()) {
            found.push((None, format!("replacement instructions in {name} refer to {}", late.name(edge))));
        }
    }
    found.extend(late.itself(set).map(|what| (None, what)));
    for (at, what) in found {
        let place = Place::symbol(&late.pair.name, &late.pair.new.atom(item.atom.0).name);
        let place = if let Some(at) = at { place.at(at) } else { place };
        out.push(Problem::new(codes::LP2026, place, what));
    }
}

/// An entry as the object has it.
fn entry_of<'a>(pair: &'a ObjectPair, entry: &ItemEntry) -> Option<&'a Entry> {
    pair.new.entries.get(entry.entry.0 as usize)
}

struct Late<'a> {
    bound: &'a Bound<'a>,
    pairs: &'a [ObjectPair],
    item: &'a Item,
    pair: &'a ObjectPair,
}

impl Late<'_> {
    /// Where a reference leads, if a module has that.
    fn address(&self, edge: &Edge) -> Option<u64> {
        match self.bound.of(self.item.pair, &edge.dest)? {
            Resolved::Image(address, _) | Resolved::Percpu(address, _) => Some(address).filter(|a| is_in_area(*a)),
            Resolved::InPatch => None,
        }
    }

    fn name(&self, edge: &Edge) -> String {
        match &edge.dest {
            Dest::Kernel(name, _) => name.clone(),
            Dest::Old(p, o, _) => self.pairs[p.0 as usize].old.atom(o.0).name.clone(),
            Dest::Carried(p, n, _) | Dest::Original(p, n) => self.pairs[p.0 as usize].new.atom(n.0).name.clone(),
            Dest::Runtime(name) => (*name).to_owned(),
            Dest::Constant(_) => "a constant".to_owned(),
        }
    }

    fn section(&self) -> &str {
        &self.pair.new.section(self.pair.new.atom(self.item.atom.0).section).name
    }

    fn table(&self, entry: &ItemEntry) -> String {
        let name = |e: &Entry| self.pair.new.section(e.section).name.clone();
        entry_of(self.pair, entry).map_or_else(String::new, name)
    }

    /// A field of the item itself.
    fn field(&self, edge: &Edge) -> Option<String> {
        let address = self.address(edge)?;
        let name = self.name(edge);
        let listed = known_sections::carried_as(self.section()).is_some() && !self.item.is_code();
        if listed && matches!(edge.dest, Dest::Constant(_)) {
            return None;
        }
        let Some(module) = self.bound.running.module_at(address) else {
            return Some(format!("it refers to {name}, which a module has that it does not belong to"));
        };
        let depends = |own: &ModuleHolder| own.depends_on(&module.name) && matches!(edge.dest, Dest::Kernel(..));
        let depends = self.bound.running.module(&self.pair.holder).is_some_and(depends);
        if module.name != self.pair.holder && !depends {
            return Some(format!("it refers to {name} of the module {}", module.name));
        }
        let init = module.image.module().is_some_and(|m| m.init.iter().any(|r| r.contains(&address)));
        if init {
            return Some(format!("it refers to {name}, which the module {} frees when its init is over", module.name));
        }
        if listed {
            return Some(format!(
                "it is an entry of {}, and refers to {name} of the module {}",
                self.section(),
                module.name
            ));
        }
        let branch = edge.field.usage == Usage::Branch;
        let fits = match edge.field.kind {
            RefKind::Reloc(kind) => reloc::late_kind(kind).is_some() || edge.field.width == 1 && branch,
            RefKind::Resolved => edge.field.width == 4 || edge.field.width == 1 && branch,
        };
        if !fits {
            return Some(format!("a field of this kind cannot be filled in later; it refers to {name}"));
        }
        let clash = self.rewriting(edge).any(|(table, waits)| table != Table::StaticCalls || !waits);
        clash.then(|| format!("the module loader rewrites the instruction, which refers to {name}"))
    }

    /// The entries for which the instruction with a field is rewritten: their tables, and whether they wait for a module.
    fn rewriting(&self, edge: &Edge) -> impl Iterator<Item = (Table, bool)> {
        let (from, to) = (edge.field.at, edge.field.at + u64::from(edge.field.width));
        let object = &self.pair.new;
        object.atom(self.item.atom.0).entries.iter().filter_map(move |id| {
            let entry = object.entries.get(id.0 as usize)?;
            object.rewritten_for(self.item.atom.0, entry).filter(|r| r.start < to && from < r.end)?;
            let own = self.item.entries.iter().find(|e| e.entry == *id);
            let waits = own.is_some_and(|own| own.edges.iter().any(|e| self.address(e).is_some()));
            Some((entry.table, waits))
        })
    }

    /// A field of a table, which the loader reads when the patch is loaded.
    fn entry(&self, entry: &ItemEntry, edge: &Edge) -> Option<String> {
        let table = entry_of(self.pair, entry).map(|e| e.table);
        let keys = matches!(table, Some(Table::Jumps | Table::StaticCalls));
        if let (true, HolderName::Module(module), Dest::Carried(p, n, _)) = (keys, &self.pair.holder, &edge.dest) {
            // What the patch brings for a module begins anew, and the kernel would have put something in it. A descriptor of
            // pr_debug is the patch's own.
            let object = &self.pairs[p.0 as usize].new;
            let atom = object.atom(n.0);
            let own = known_sections::carried_as(&object.section(atom.section).name).is_some();
            return (!atom.is_code() && !own)
                .then(|| format!("is of the key {}, which the patch adds for the module {module}", atom.name));
        }
        let address = self.address(edge)?;
        if matches!(edge.dest, Dest::Constant(_)) {
            return None;
        }
        let name = self.name(edge);
        let Some(module) = self.bound.running.module_at(address).filter(|m| m.name == self.pair.holder) else {
            let module = self.bound.module_at(address).unwrap_or("another one");
            return Some(format!("refers to {name} of the module {module}"));
        };
        let kept = match table {
            Some(Table::Jumps) => abi::Kept::Jumps,
            Some(Table::StaticCalls) => abi::Kept::Calls,
            _ => return Some(format!("refers to {name} of the module {}", module.name)),
        };
        // Handed to the kernel when the module is here, which puts them on a list in the key.
        let section = module.image.part_at(address).filter(|s| s.is_writable());
        let init = module.image.module().is_some_and(|m| m.init.iter().any(|r| r.contains(&address)));
        if init || section.is_none_or(|s| s.is_sealed() && kept == abi::Kept::Calls) {
            return Some(format!(
                "is of the key {name}, which is constant or gone when the init of {} is over",
                module.name
            ));
        }
        let (at, kind) = kept.key();
        let RefKind::Reloc(of) = edge.field.kind else {
            return Some(format!("refers to {name} of the module {}, and not as its key", module.name));
        };
        if edge.field.at != at as u64 || reloc::late_kind(of) != Some(kind) {
            return Some(format!("refers to {name} of the module {}, and not as its key", module.name));
        }
        // What it calls has to wait as the key does, or the kernel would find the call of another one.
        let calls = |e: &&Edge| self.address(e).is_some() && e.field.usage == Usage::Branch;
        let start = entry_of(self.pair, entry).and_then(|e| e.owner).map_or(0, |o| o.delta as u64);
        let by = |e: &Edge| (1..=2).contains(&e.field.at.wrapping_sub(start));
        let waits = self.item.edges.iter().filter(calls).any(by);
        (kept == abi::Kept::Calls && !waits).then(|| format!("calls something else than {name}"))
    }

    /// What the item is.
    fn itself(&self, set: &PatchSet) -> Option<String> {
        let HolderName::Module(module) = &self.pair.holder else { return None };
        let object = &self.pair.new;
        let class = object.class(object.atom(self.item.atom.0).section);
        if class == Class::Percpu && !self.item.is_code() {
            return Some(format!("a per-CPU variable that the patch adds for the module {module}"));
        }
        let own = (self.item.pair, self.item.atom);
        let callback = set.callbacks.iter().find(|(_, key)| *key == own)?;
        Some(format!(
            "it is the {} callback, and may be called when the module {module} is not here",
            callback.0.name()
        ))
    }
}
