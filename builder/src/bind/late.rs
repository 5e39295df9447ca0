//! What cannot be written before a module is loaded.
//!
//! The sections of a module lie anywhere, each on its own since 6.4 (`module_memory_alloc` of kernel/module/main.c), and a symbol
//! it does not export no module loader finds: neither its functions nor anything a reference leads to in it has an address
//! that a relocation of the patch could stand for. Refused (LP2026): a replaced function of a module, and a reference of
//! carried code or data into one.

use std::collections::BTreeSet;

use super::{Bound, Resolved};
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::HolderName;
use crate::plan::{Item, ObjectPair, Role};

/// One item: the first thing that is late says it for all of it.
pub(super) fn check(bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, out: &mut Vec<Problem>) {
    let pair = &pairs[item.pair.0 as usize];
    let place = || Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name);
    if let (Role::Replaces(_), HolderName::Module(module)) = (&item.role, &pair.holder) {
        let what = format!("it is a function of the module {module}");
        out.push(Problem::new(codes::LP2026, place(), what));
        return;
    }
    let mut modules = BTreeSet::new();
    for edge in item.all_edges() {
        let (Resolved::Image(address, _) | Resolved::Percpu(address, _)) = (match bound.of(item.pair, &edge.dest) {
            Some(found) => found,
            None => continue,
        }) else {
            continue;
        };
        modules.extend(bound.module_at(address));
    }
    for module in modules {
        out.push(Problem::new(codes::LP2026, place(), format!("it refers to something in the module {module}")));
    }
}
