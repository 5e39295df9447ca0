//! Bound patch set -> `patch.o` and `manifest.toml`.
//!
//! `patch.o` holds the carried code and data, the entries of the special sections that belong to it, and the records of
//! the `abi` crate. References to the kernel are anchored: an exported symbol plus a distance, which the kernel's own
//! module loader resolves. Without a kernel the references keep their names and `lpbuild pack --kernel` binds them later.

mod content;
mod manifest;
mod writer;

use crate::bind::{Bound, Resolved};
use crate::codes;
use crate::correlate::NewAtom;
use crate::error::{Error, Place, Problem, Result};
use crate::holder::HolderName;
use crate::plan::Options;
use crate::plan::manifest::Manifest;
use crate::plan::{Analysis, PairId, manifest as m};
use crate::plan::{Dest, Item, ObjectPair};
use crate::symbolize::known_sections;
use std::collections::{BTreeSet, HashMap};

pub use content::{Brought, Layout};
pub use writer::{Access, Base, Late, Writer};

/// The two files.
#[derive(Debug)]
pub struct Output {
    /// `patch.o`
    pub patch_o: Vec<u8>,
    /// `manifest.toml`
    pub manifest: Manifest,
    /// `why.json`, where somebody wants it: written by `explain/`, which emit knows nothing of.
    pub why: Option<String>,
}

/// Everything emit works on.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What was decided.
    pub analysis: &'a Analysis,
    /// Addresses, if a kernel was given.
    pub bound: Option<&'a Bound<'a>>,
    /// What the author decided.
    pub options: &'a Options,
}

impl<'a> Draft<'a> {
    /// One of the pairs.
    pub fn pair(&self, id: PairId) -> &'a ObjectPair {
        &self.analysis.pairs[id.0 as usize]
    }
    /// What is carried.
    pub fn items(&self) -> &'a [Item] {
        &self.analysis.set.items
    }
}

/// What stands for an address of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// A symbol the module loader knows, and a distance from it.
    Symbol(Base, i64),
    /// Nothing before its module is loaded ([`Late`]).
    Late(u64),
}

/// What a back end adds. Without a kernel there are only the functions of the manifest.
pub trait BackEnd {
    /// Writes code behind the carried functions of a holder; where the original of each of those that are replaced can be called, by
    /// new function.
    ///
    /// # Errors
    /// Refused: a function that the kernel cannot be led away from.
    fn entrances(
        &mut self,
        w: &mut Writer,
        layout: &Layout,
        holder: &HolderName,
    ) -> Result<HashMap<(PairId, NewAtom), Spot>>;
    /// What stands for an address.
    fn outside(&self, address: u64) -> Outside;
    /// Writes what tells the kernel's side about the patch.
    ///
    /// # Errors
    /// What [`Self::entrances`] has.
    fn records(&mut self, w: &mut Writer, layout: &Layout) -> Result<()>;
    /// The replaced functions, as the manifest describes them.
    fn functions(&self) -> Vec<m::Function>;
    /// The modules that the patch has functions of, and how their sections are found.
    fn holders(&self) -> Vec<m::HolderEntry>;
    /// Kernel symbols its kernel's side is bound to, and their distance from the anchor.
    fn imports(&self) -> Vec<m::BoundImport>;
}

/// Writes both files.
///
/// # Errors
/// Refusals of the back end, and LP2012, LP2018.
pub fn emit(input: Draft<'_>, back_end: &mut dyn BackEnd) -> Result<Output> {
    let mut writer = Writer::new();
    let layout = content::write(&mut writer, input, back_end)?;
    if input.bound.is_some() {
        back_end.records(&mut writer, &layout)?;
    }
    let mut manifest = manifest::describe(input, back_end, &layout)?;
    let patch_o = writer.finish().map_err(|e| Error::new(codes::LP1000, Place::object("patch.o"), e))?;
    manifest.patch.object_sha256 = Some(crate::hash::digest(&patch_o));
    Ok(Output { patch_o, manifest, why: None })
}

/// A place in the patch.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Its section.
    pub section: object::write::SectionId,
    /// Offset in the section.
    pub offset: u64,
}

/// What a destination outside the patch is emitted as. `table`: of a field in a section that the module loader reads when the patch
/// is loaded, perhaps before any module is here; a constant is brought along for it.
fn outside(
    input: Draft<'_>,
    back_end: &dyn BackEnd,
    item: &Item,
    dest: &Dest,
    table: bool,
) -> Result<Option<(Outside, i64)>, Problem> {
    // The linker of the module leads it to the runtime.
    if let Dest::Runtime(name) = dest {
        return Ok(Some((Outside::Symbol(Base::Extern((*name).to_owned()), 0), 0)));
    }
    let Some(bound) = input.bound else {
        return Ok(symbolic(input, dest).map(|(base, addend)| (Outside::Symbol(base, addend), 0)));
    };
    let delta = match dest {
        Dest::Kernel(_, d) | Dest::Old(_, _, d) => *d,
        Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_) | Dest::Constant(_) => 0,
    };
    Ok(match found(input, bound, item, dest)? {
        Resolved::InPatch => None,
        Resolved::Image(address, _) => match back_end.outside(address) {
            Outside::Late(_) if table && matches!(dest, Dest::Constant(_)) => None,
            found => Some((found, delta)),
        },
        Resolved::Percpu(offset, _) => match back_end.outside(offset) {
            late @ Outside::Late(_) => Some((late, delta)),
            Outside::Symbol(..) => Some((Outside::Symbol(Base::Absolute(percpu_name(input, dest), offset), 0), delta)),
        },
    })
}

/// Is a data item an entry of a list that the module loader reads when the patch is loaded?
fn is_listed(input: Draft<'_>, item: &Item) -> bool {
    let object = &input.pair(item.pair).new;
    let section = object.section(object.atom(item.atom.0).section);
    !item.is_code() && known_sections::carried_as(&section.name).is_some()
}

/// Everybody whose code or data is carried: the kernel first, then modules by their names.
fn holders(input: Draft<'_>) -> Vec<HolderName> {
    let all: BTreeSet<&HolderName> = input.items().iter().map(|i| &input.pair(i.pair).holder).collect();
    all.into_iter().cloned().collect()
}

/// Where a reference leads, as bind has found it.
fn found(input: Draft<'_>, bound: &Bound<'_>, item: &Item, dest: &Dest) -> Result<Resolved, Problem> {
    bound.of(item.pair, dest).ok_or_else(|| {
        let pair = input.pair(item.pair);
        let place = Place::symbol(&pair.name, &pair.new.atom(item.atom.0).name);
        Problem::new(codes::LP1000, place, "a reference was not bound")
    })
}

fn percpu_name(input: Draft<'_>, dest: &Dest) -> String {
    match dest {
        Dest::Kernel(name, _) => format!("percpu.{name}"),
        Dest::Old(p, o, _) => format!("percpu.{}", input.pair(*p).old.atom(o.0).name),
        Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_) | Dest::Constant(_) => "percpu".into(),
    }
}

/// Without a kernel, by name.
fn symbolic(input: Draft<'_>, dest: &Dest) -> Option<(Base, i64)> {
    match dest {
        Dest::Kernel(name, d) => Some((Base::Extern(name.clone()), *d)),
        Dest::Old(p, o, d) => Some((Base::Extern(input.pair(*p).old.atom(o.0).name.clone()), *d)),
        Dest::Original(p, n) => {
            let name = &input.pair(*p).new.atom(n.0).name;
            Some((Base::Extern(format!("{}{name}", lpbuild_abi::ORIGINAL_PREFIX)), 0))
        }
        Dest::Carried(..) | Dest::Runtime(_) | Dest::Constant(_) => None,
    }
}
