//! Bound patch set -> `patch.o` and `manifest.toml`.
//!
//! `patch.o` holds the carried code and data, the entries of the special sections that belong to it, and the records of
//! the `abi` crate. References to the kernel are anchored: an exported symbol plus a distance, which the kernel's own
//! module loader resolves. Without a kernel the references keep their names and `lpbuild pack --kernel` binds them later.

mod content;
mod dispatch;
mod manifest;
mod records;
mod writer;

use crate::accept::Accepted;
use crate::bind::{Bound, Resolved};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::plan::Options;
use crate::plan::Promise;
use crate::plan::manifest::{Manifest, Mode};
use crate::plan::{Dest, Item, ObjectPair, PatchSet};
use crate::sites::Site;

use writer::{Base, Writer};

/// The two files.
#[derive(Debug)]
pub struct Output {
    /// `patch.o`
    pub patch_o: Vec<u8>,
    /// `manifest.toml`
    pub manifest: Manifest,
}

/// Everything emit works on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The compared objects.
    pub pairs: &'a [ObjectPair],
    /// What is carried.
    pub set: &'a PatchSet,
    /// Jump sites, one for each item that replaces a function, in the order of the items.
    pub sites: &'a [(usize, Site)],
    /// Addresses, if a kernel was given.
    pub bound: Option<&'a Bound<'a>>,
    /// When to switch.
    pub mode: Mode,
    /// SHA-256 of old and new objects, by pair.
    pub digests: &'a [(String, String)],
    /// What was accepted.
    pub accepted: &'a [Accepted],
    /// What outlives the patch.
    pub promises: &'a [Promise],
}

/// Writes both files.
pub fn emit(input: Input<'_>, options: &Options) -> Result<Output> {
    let mut writer = Writer::new();
    let layout = content::write(&mut writer, input)?;
    records::write(&mut writer, input, options, &layout)?;
    let mut manifest = manifest::describe(input, options, &layout)?;
    let patch_o = writer.finish().map_err(|e| Error::new(codes::LP1000, Place::object("patch.o"), e))?;
    manifest.patch.object_sha256 = Some(crate::hash::digest(&patch_o));
    Ok(Output { patch_o, manifest })
}

/// A place in the patch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub section: object::write::SectionId,
    pub offset: u64,
}

/// Symbol and offset a destination outside the patch is emitted as.
fn outside(input: Input<'_>, item: &Item, dest: &Dest) -> Result<Option<(Base, i64)>, Problem> {
    let Some(bound) = input.bound else { return Ok(symbolic(input, dest)) };
    let delta = match dest {
        Dest::Kernel(_, d) | Dest::Old(_, _, d) => *d,
        Dest::Carried(..) | Dest::Original(..) | Dest::Constant(_) => 0,
    };
    Ok(match bound.resolve(input.pairs, item, dest)? {
        Resolved::InPatch => None,
        Resolved::Image(address, _) => {
            Some((Base::Extern(bound.anchor.into()), bound.anchored(address).wrapping_add(delta)))
        }
        Resolved::Percpu(offset, _) => Some((Base::Absolute(percpu_name(input, dest), offset), delta)),
    })
}

fn percpu_name(input: Input<'_>, dest: &Dest) -> String {
    match dest {
        Dest::Kernel(name, _) => format!("percpu.{name}"),
        Dest::Old(p, o, _) => format!("percpu.{}", input.pairs[p.0 as usize].old.atom(o.0).name),
        Dest::Carried(..) | Dest::Original(..) | Dest::Constant(_) => "percpu".into(),
    }
}

/// Without a kernel, by name.
fn symbolic(input: Input<'_>, dest: &Dest) -> Option<(Base, i64)> {
    match dest {
        Dest::Kernel(name, d) => Some((Base::Extern(name.clone()), *d)),
        Dest::Old(p, o, d) => Some((Base::Extern(input.pairs[p.0 as usize].old.atom(o.0).name.clone()), *d)),
        Dest::Original(p, n) => {
            let name = &input.pairs[p.0 as usize].new.atom(n.0).name;
            Some((Base::Extern(format!("{}{name}", lpbuild_abi::ORIGINAL_PREFIX)), 0))
        }
        Dest::Carried(..) | Dest::Constant(_) => None,
    }
}
