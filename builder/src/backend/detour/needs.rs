//! What the runtime needs of the kernel: the symbols it is bound to, and where the build id is.

use lpbuild_abi as abi;

use crate::codes;
use crate::error::{Place, Problem};
use crate::kernel::KernelImage;

/// Addresses of an image that only the records of the runtime refer to.
#[derive(Clone, Debug)]
pub struct Needs {
    /// In the order of [`abi::IMPORTS`]; optional ones may be missing.
    pub imports: Vec<(abi::Import, Option<u64>)>,
    /// `__start_notes` and `__stop_notes`.
    pub notes: (u64, u64),
}

impl Needs {
    /// Finds them; with what is missing (LP3005).
    pub fn of(kernel: &KernelImage) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut imports = Vec::new();
        for import in abi::IMPORTS {
            let address = kernel.by_name(import.name);
            if address.is_none() && !import.optional {
                let place = Place::symbol(kernel.name(), import.name);
                let what = "the runtime calls it and kallsyms does not have it exactly once";
                problems.push(Problem::new(codes::LP3005, place, what));
            }
            imports.push((*import, address));
        }
        let notes = match (kernel.by_name("__start_notes"), kernel.by_name("__stop_notes")) {
            (Some(a), Some(b)) if a < b => (a, b),
            _ => {
                let place = Place::symbol(kernel.name(), "__start_notes");
                problems.push(Problem::new(codes::LP3005, place, "the notes that hold the build id cannot be found"));
                (0, 0)
            }
        };
        (Self { imports, notes }, problems)
    }
}
