//! Kernel modules that a patch has functions of: which they are, how their sections are found in memory, and which fields of the
//! patch are filled in when they are here.
//!
//! The module loader knows nothing of it: most modules export nothing, and none may be pinned. Everything of one holder lies
//! together: its run of functions, ranges, anchors and relocations follows that of the holder before it.

use core::mem::offset_of;

/// The most modules that one patch can name: a bit for each in [`HolderRecord::needs`].
pub const MAX_HOLDERS: u32 = 63;
/// Bytes of `struct jump_entry` (include/linux/jump_label.h): where the jump is and leads to, distances of four bytes each from
/// themselves, and the distance of the key, with two flags.
pub const JUMP_ENTRY_LEN: usize = 16;
/// Where that has the key.
pub const JUMP_ENTRY_KEY: usize = 8;
/// Bytes of `struct static_call_site` (include/linux/static_call_types.h): where the call is, and the distance of the key, with
/// two flags.
pub const CALL_SITE_LEN: usize = 8;
/// Where that has the key.
pub const CALL_SITE_KEY: usize = 4;
/// The most fields accepted: a bound for damaged records, not a limit of the design.
pub const MAX_RELOCS: u32 = 65_536;

/// A module.
#[repr(C)]
#[derive(Debug)]
pub struct HolderRecord {
    /// Address of its NUL-terminated name, as /proc/modules has it.
    pub name: u64,
    /// Variables that the patch brings for it, which begin anew whenever it comes; 0: none.
    pub data: u64,
    /// One past them.
    pub data_end: u64,
    /// The same for those that begin as zeros.
    pub bss: u64,
    /// One past them.
    pub bss_end: u64,
    /// Constants that the patch brings for it and that have fields of [`LateReloc`]; 0: none.
    pub rodata: u64,
    /// One past them.
    pub rodata_end: u64,
    /// Jumps of static keys that the module has, as the kernel's `struct jump_entry`, in `data`: handed to the kernel when the module is
    /// here. 0: none.
    pub jumps: u64,
    /// One past them.
    pub jumps_end: u64,
    /// The same of static calls that the module has, its tracepoints among them, as the kernel's `struct static_call_site`.
    pub calls: u64,
    /// One past them.
    pub calls_end: u64,
    /// The same of jumps of keys that are constant when the init of the module is over.
    pub sealed: u64,
    /// One past them.
    pub sealed_end: u64,
    /// A bit for each other holder to which it refers: one that exports something to it, and so is there as long as it is.
    pub needs: u64,
    /// GNU build id of the module this patch fits.
    pub build_id: [u8; crate::MAX_BUILD_ID],
    /// Its functions, behind those of the holders before it. 0: the patch only refers to it.
    pub n_funcs: u32,
    /// Its ranges.
    pub n_ranges: u32,
    /// Its anchors.
    pub n_anchors: u32,
    /// Its relocations: those of what the patch carries for it.
    pub n_relocs: u32,
    /// Bytes used of `build_id`.
    pub build_id_len: u8,
    /// 0.
    pub zero: [u8; 7],
}

/// Entries of the kernel's tables that are handed to it when the module is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// [`HolderRecord::jumps`].
    Jumps,
    /// [`HolderRecord::calls`].
    Calls,
    /// [`HolderRecord::sealed`].
    Sealed,
}

impl Kept {
    /// Every table.
    pub const ALL: [Kept; 3] = [Kept::Jumps, Kept::Calls, Kept::Sealed];

    /// Bytes of an entry.
    pub const fn entry_len(self) -> usize {
        match self {
            Kept::Jumps | Kept::Sealed => JUMP_ENTRY_LEN,
            Kept::Calls => CALL_SITE_LEN,
        }
    }
    /// Where that has its key, and what the field there holds.
    pub const fn key(self) -> (usize, FieldKind) {
        match self {
            Kept::Jumps | Kept::Sealed => (JUMP_ENTRY_KEY, FieldKind::Pc64),
            Kept::Calls => (CALL_SITE_KEY, FieldKind::Pc32),
        }
    }
    /// Where its keys are.
    pub const fn region(self) -> Region {
        match self {
            Kept::Jumps | Kept::Calls => Region::Data,
            Kept::Sealed => Region::RoAfterInit,
        }
    }
    /// The first byte of those of a module, and one past the last.
    pub const fn of(self, h: &HolderRecord) -> (u64, u64) {
        match self {
            Kept::Jumps => (h.jumps, h.jumps_end),
            Kept::Calls => (h.calls, h.calls_end),
            Kept::Sealed => (h.sealed, h.sealed_end),
        }
    }
    /// Where a record says so.
    pub const fn fields(self) -> (usize, usize) {
        match self {
            Kept::Jumps => (offset_of!(HolderRecord, jumps), offset_of!(HolderRecord, jumps_end)),
            Kept::Calls => (offset_of!(HolderRecord, calls), offset_of!(HolderRecord, calls_end)),
            Kept::Sealed => (offset_of!(HolderRecord, sealed), offset_of!(HolderRecord, sealed_end)),
        }
    }
}

/// How a section of a module is found.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorKind {
    /// It is its `struct module` (`THIS_MODULE`).
    Module = 1,
    /// By a symbol of the module.
    Symbol = 2,
    /// It is its per-CPU variables.
    Percpu = 3,
    /// By a field that the loader has filled in, in a section that is found already.
    Field = 4,
}

impl AnchorKind {
    /// Every kind.
    pub const ALL: [AnchorKind; 4] = [AnchorKind::Module, AnchorKind::Symbol, AnchorKind::Percpu, AnchorKind::Field];
}

/// What of a module's memory a section lies in, by the masks of the loader (`layout_sections`, kernel/module/main.c).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Code.
    Text = 1,
    /// Constants.
    Rodata = 2,
    /// What is constant when init is over.
    RoAfterInit = 3,
    /// Variables.
    Data = 4,
    /// Per-CPU variables.
    Percpu = 5,
}

impl Region {
    /// Every region.
    pub const ALL: [Region; 5] = [Region::Text, Region::Rodata, Region::RoAfterInit, Region::Data, Region::Percpu];
}

/// A section of a module.
#[repr(C)]
#[derive(Debug)]
pub struct AnchorRecord {
    /// [`AnchorKind::Symbol`]: address of the symbol's NUL-terminated name.
    pub name: u64,
    /// The same of a second symbol, which must lead to the same place; 0: there is none.
    pub witness: u64,
    /// The section begins this much before what was found.
    pub delta: i64,
    /// This much before the second symbol.
    pub witness_delta: i64,
    /// [`AnchorKind::Field`]: distance of the field from the section it is in.
    pub at: i64,
    /// Index of the [`HolderRecord`] of the module.
    pub owner: u32,
    /// Place among all symbols of that name outside of the module's init, in the order of its table.
    pub position: u32,
    /// How many there are.
    pub count: u32,
    /// The same of the second symbol.
    pub witness_position: u32,
    /// The same of the second symbol.
    pub witness_count: u32,
    /// [`AnchorKind::Field`]: index of the anchor of the section it is in, which comes before this one.
    pub of: u32,
    /// Bytes of the section.
    pub size: u32,
    /// [`AnchorKind`]
    pub kind: u8,
    /// [`AnchorKind::Field`]: [`FieldKind`] of the field.
    pub field: u8,
    /// [`Region`]
    pub region: u8,
    /// 0.
    pub zero: u8,
}

/// What a field holds.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// An address, 8 bytes.
    Abs64 = 1,
    /// An address, 4 bytes, with its sign.
    Abs32S = 2,
    /// A distance from the field, 4 bytes.
    Pc32 = 3,
    /// The same, of a branch.
    Plt32 = 4,
    /// An address, 4 bytes, without a sign.
    Abs32 = 5,
    /// A distance from the field, 8 bytes.
    Pc64 = 6,
}

impl FieldKind {
    /// Every kind.
    pub const ALL: [FieldKind; 6] =
        [FieldKind::Abs64, FieldKind::Abs32S, FieldKind::Pc32, FieldKind::Plt32, FieldKind::Abs32, FieldKind::Pc64];

    /// Bytes of the field.
    pub const fn width(self) -> u64 {
        match self {
            FieldKind::Abs64 | FieldKind::Pc64 => 8,
            FieldKind::Abs32S | FieldKind::Pc32 | FieldKind::Plt32 | FieldKind::Abs32 => 4,
        }
    }
}

/// A field that is filled in when the module is here, before any CPU can reach it.
#[repr(C)]
#[derive(Debug)]
pub struct LateReloc {
    /// Address of the field: in the carried code, in the holder's `data` or `rodata`, or, with `site_of`, in
    /// [`FuncRecord::original`](crate::FuncRecord::original). Those of each of these are in the order of the addresses.
    pub at: u64,
    /// Distance of what it refers to from the section, with what the field's kind adds.
    pub addend: i64,
    /// Index of the [`AnchorRecord`] of the section it refers to.
    pub anchor: u32,
    /// 0; or one more than the index of a function of the holder, to whose expected bytes the field belongs: then its place is
    /// that in the module's code.
    pub site_of: u32,
    /// [`FieldKind::Plt32`]: address of [`JUMP_ABS64_LEN`](crate::JUMP_ABS64_LEN) bytes of carried code for a jump, where the field does not
    /// reach; 0: there are none.
    pub stub: u64,
    /// [`FieldKind`]
    pub kind: u8,
    /// 0.
    pub zero: [u8; 7],
}

/// Where a [`LateReloc`] writes, as the digest counts it: sections of the patch lie apart, so a distance is one within a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// So far behind [`PatchRecord::text_start`](crate::PatchRecord::text_start).
    Text(u64),
    /// So far behind [`HolderRecord::data`].
    Data(u64),
    /// So far behind [`HolderRecord::rodata`].
    Rodata(u64),
    /// So far behind the beginning of the expected bytes.
    Site(u64),
}

const _: () = assert!(size_of::<HolderRecord>() == 168);
const _: () = assert!(size_of::<AnchorRecord>() == 72);
const _: () = assert!(size_of::<LateReloc>() == 40);
