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

use crate::accept::{Acceptances, Accepted};
use crate::bind::{Bound, Resolved};
use crate::closure::{Dest, Edge, Item, ObjectPair, PatchSet, Role};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::manifest::{Callbacks, Jump, Manifest, Mode};
use crate::promises::Promise;
use crate::sites::Site;

use writer::{Base, Writer};

/// What the user decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the patch and its module.
    pub name: String,
    /// Version, see [`crate::manifest::is_plain`].
    pub version: String,
    /// What it is for, in one line.
    pub description: String,
    /// When to switch; decided by what is replaced when nothing is said.
    pub mode: Option<Mode>,
    /// Names of patches this one may lie on top of.
    pub after: Vec<String>,
    /// Names of patches this one takes the place of.
    pub replaces: Vec<String>,
    /// Milliseconds to try; by the mode when nothing is said.
    pub deadline_ms: Option<u32>,
    /// Milliseconds before tasks in user space are disturbed.
    pub patience_ms: u32,
    /// Form of the jumps.
    pub jump: Jump,
    /// Never reverted.
    pub oneshot: bool,
    /// Functions of the patch that the runtime calls.
    pub callbacks: Callbacks,
    /// What the author answers for.
    pub accept: Acceptances,
    /// Do unchanged lines have the same numbers in both builds, and no others (`source/lines.rs`)?
    pub lines_kept: bool,
}

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

impl Options {
    /// The deadline of a patch that switches like this.
    pub fn deadline(&self, mode: Mode) -> u32 {
        self.deadline_ms.unwrap_or(mode.to_abi().default_deadline_ms(self.patience_ms))
    }
}

/// Writes both files.
pub fn emit(input: Input<'_>, options: &Options) -> Result<Output> {
    let mut writer = Writer::new();
    let layout = content::write(&mut writer, input)?;
    records::write(&mut writer, input, options, &layout)?;
    let mut manifest = manifest::describe(input, options, &layout)?;
    let patch_o = writer.finish().map_err(|e| Error::new(codes::LP1000, Place::object("patch.o"), e))?;
    manifest.patch.object_sha256 = Some(crate::pipeline::digest(&patch_o));
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

/// All edges of an item.
fn all_edges(item: &Item) -> impl Iterator<Item = &Edge> {
    item.edges.iter().chain(item.entries.iter().flat_map(|e| e.edges.iter().chain(&e.replacement)))
}

fn is_code(item: &Item) -> bool {
    !matches!(item.role, Role::Data)
}
