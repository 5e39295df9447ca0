//! The address of each destination outside the patch, and how it was found.

use super::IMAGE_BASE;
use crate::codes;
use crate::error::{Place, Problem};
use crate::holder::{Placement, Running};
use crate::kernel::KernelImage;
use crate::plan::{Dest, ObjectPair, PairId};
use crate::symbolize::Class;

/// How an address was found; in the manifest as `resolved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// Read back from a field of matching code.
    RunPre,
    /// Its section was placed by run-pre matching.
    Section,
    /// By name, which the image holds once.
    Kallsyms,
}

impl FoundBy {
    /// As in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            FoundBy::RunPre => "run-pre",
            FoundBy::Section => "section",
            FoundBy::Kallsyms => "kallsyms",
        }
    }
}

/// Where a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// In the patch itself, or brought along as a constant.
    InPatch,
    /// Link-time address in the kernel image.
    Image(u64, FoundBy),
    /// Offset in the per-CPU area; does not move.
    Percpu(u64, FoundBy),
}

/// The address of the one symbol of this name; of several, of the only global one.
pub fn by_name(kernel: &KernelImage, name: &str) -> Option<u64> {
    kernel.by_name(name)
}

/// Where the references of a pair lead.
pub(super) struct Resolver<'r> {
    pub(super) running: Running<'r>,
    pub(super) pairs: &'r [ObjectPair],
    pub(super) placements: &'r [Placement],
}

impl<'r> Resolver<'r> {
    fn image(&self, pair: PairId) -> Option<&'r KernelImage> {
        self.running.image(&self.pairs[pair.0 as usize].holder)
    }

    /// The holder of a pair, for people.
    fn called(&self, pair: PairId) -> String {
        self.image(pair).map_or_else(String::new, KernelImage::called)
    }

    /// A symbol of another object that no old code refers to: the holder's own, else, to a module, what is exported to it. What is
    /// local to one object nobody else means.
    fn by_name(&self, from: PairId, name: &str) -> Result<Resolved, Problem> {
        let refused = |what: String| {
            let place = Place::symbol(&self.pairs[from.0 as usize].name, name);
            Err(Problem::new(codes::LP3003, place, what))
        };
        let image = self.image(from);
        let of = self.called(from);
        match image.and_then(|i| i.symbol_by_name(name)) {
            Some(s) if !s.is_local() => return Ok(image_or_percpu(s.addr, FoundBy::Kallsyms)),
            None if image.is_none_or(|i| i.module().is_none()) => {
                let n = image.map_or(0, |i| i.kallsyms().named(name).count());
                return refused(format!("{of} has {n} symbols of this name"));
            }
            _ => {}
        }
        match self.running.module(&self.pairs[from.0 as usize].holder) {
            Some(module) => match module.import(name, self.running.kernel) {
                Ok(address) => Ok(image_or_percpu(address, FoundBy::Kallsyms)),
                Err(why) => refused(format!("{of} has no global symbol of this name, and {why}")),
            },
            None => refused(format!("{of} has it only as a local symbol of another file")),
        }
    }

    pub(super) fn resolve(&self, from: PairId, dest: &Dest) -> Result<Resolved, Problem> {
        let (pairs, placement) = (self.pairs, &self.placements[from.0 as usize]);
        match dest {
            Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_) => Ok(Resolved::InPatch),
            Dest::Constant(bytes) => Ok(match placement.constants().get(bytes) {
                Some(address) => Resolved::Image(*address, FoundBy::RunPre),
                None => Resolved::InPatch,
            }),
            Dest::Kernel(name, _) => {
                if let Some((a, b)) = placement.contradiction(name) {
                    let place = Place::symbol(&pairs[from.0 as usize].name, name);
                    return Err(Problem::new(
                        codes::LP3002,
                        place,
                        format!("code that matches shows it both at {a:#x} and at {b:#x}"),
                    ));
                }
                if let Some(address) = placement.extern_address(name) {
                    return Ok(image_or_percpu(address, FoundBy::RunPre));
                }
                self.by_name(from, name)
            }
            Dest::Old(pair, old, _) => {
                let object = &pairs[pair.0 as usize].old;
                let placement = &self.placements[pair.0 as usize];
                let atom = object.atom(old.0);
                let place = Place::symbol(&pairs[pair.0 as usize].name, &atom.name);
                if atom.is_code()
                    && let Err((code, why)) = placement.check(old.0)
                {
                    // A weak function's callers reach the strong one; code that was not proven (a tail jump of another
                    // length) is still found by a name the image holds once.
                    let named = self.image(*pair).and_then(|i| i.by_name(&atom.name));
                    let named = named.filter(|_| code == codes::LP3004 || code == codes::LP3001);
                    let named = named.map(|address| Resolved::Image(address, FoundBy::Kallsyms));
                    return named.ok_or_else(|| Problem::new(code, place, why));
                }
                if !atom.is_code() {
                    let read_only = object.class(atom.section) == Class::Rodata;
                    let checked = placement.check_data(old.0, read_only);
                    checked.map_err(|(code, why)| Problem::new(code, place.clone(), why))?;
                }
                let Some(address) = placement.address(old.0) else {
                    let image = self.image(*pair);
                    return match image.and_then(|i| i.symbol_by_name(&atom.name)) {
                        Some(s) => Ok(image_or_percpu(s.addr, FoundBy::Kallsyms)),
                        None => {
                            let n = image.map_or(0, |i| i.kallsyms().named(&atom.name).count());
                            let of = self.called(*pair);
                            let what = format!("no code shows where it is and {of} has {n} symbols of this name");
                            Err(Problem::new(codes::LP3003, place, what))
                        }
                    };
                };
                let how = if placement.is_by_name(old.0) { FoundBy::Kallsyms } else { FoundBy::Section };
                if object.class(atom.section) == Class::Percpu {
                    return Ok(Resolved::Percpu(address, how));
                }
                Ok(image_or_percpu(address, how))
            }
        }
    }
}

/// Per-CPU offsets lie below the kernel image (arch/x86/kernel/vmlinux.lds.S places .data..percpu at 0).
fn image_or_percpu(address: u64, how: FoundBy) -> Resolved {
    if address < IMAGE_BASE { Resolved::Percpu(address, how) } else { Resolved::Image(address, how) }
}
