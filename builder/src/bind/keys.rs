//! Static keys that are read-only once the kernel has started.
//!
//! The module loader puts the jumps of a module on a list in their key (`jump_label_add_module`, kernel/jump_label.c). For a key between
//! `__start_ro_after_init` and `__end_ro_after_init` that faults, unless the kernel seals such keys (`jump_label_init_ro`, since 6.10).
//! Refused (LP2025): a carried jump of such a key.

use super::{Bound, Resolved};
use crate::codes;
use crate::error::{Place, Problem};
use crate::kernel::KernelImage;
use crate::plan::{Item, ObjectPair};
use crate::symbolize::Table;

/// The range of an image that does not seal them.
#[derive(Debug)]
pub struct ReadOnly {
    range: (u64, u64),
}

impl ReadOnly {
    /// Nothing where such keys can be used.
    pub fn of(kernel: &KernelImage) -> Option<Self> {
        let at = |name: &str| super::resolve::by_name(kernel, name);
        let sealed = kernel.kallsyms().named("jump_label_init_ro").len() > 0;
        let range = at("__start_ro_after_init").zip(at("__end_ro_after_init"))?;
        (!sealed).then_some(Self { range })
    }

    /// The jumps of one carried function.
    pub fn check(&self, bound: &Bound<'_>, pairs: &[ObjectPair], item: &Item, out: &mut Vec<Problem>) {
        let pair = &pairs[item.pair.0 as usize];
        for entry in &item.entries {
            if pair.new.entries.get(entry.entry.0 as usize).is_none_or(|e| e.table != Table::Jumps) {
                continue;
            }
            for edge in &entry.edges {
                // Two bits of the field are flags.
                let Some(Resolved::Image(address, _)) = bound.of(item.pair, &edge.dest) else { continue };
                let key = address & !3;
                if (self.range.0..self.range.1).contains(&key) {
                    let name =
                        bound.holder.image.kallsyms().at(key).first().map(|s| s.name.to_string()).unwrap_or_default();
                    let place = Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name);
                    out.push(Problem::new(codes::LP2025, place, format!("it has a jump of the key {name}")));
                }
            }
        }
    }
}
