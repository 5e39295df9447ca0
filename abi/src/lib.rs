//! Records the builder writes into a patch module and the runtime reads inside the kernel.
//!
//! Everything here is plain old data with a fixed layout; the builder serialises it by hand (little endian, ELF64) and
//! the runtime reads it in place. Pointers are filled in by the kernel's module loader through ordinary RELA relocations.
//!
//! ```text
//! .lpbuild.patch   one PatchRecord, symbol `lpbuild_patch`
//! .lpbuild.funcs   FuncRecord[n_funcs]
//! .lpbuild.ranges  RangeRecord[n_ranges]     old code: the pieces (parent, .cold, .part) no task may be inside
//! .lpbuild.data    DataRecord[n_data]        constants of the kernel that get another content in their place; before the records,
//!                                            what those hold without the patch, and with it
//! .lpbuild.holders HolderRecord[n_holders]   kernel modules that the patch has functions of, or refers to
//! .lpbuild.anchors AnchorRecord[n_anchors]   how a section of such a module is found in memory
//! .lpbuild.relocs  LateReloc[n_relocs]       fields that are filled in when the module is here
//! .lpbuild.strings NUL-terminated names the records point to
//! .lpbuild.import  PatchImport thunks `lpk_NAME: jmp NAME` and pointers `lpk_ptr_NAME: .quad NAME`,
//!                  and one thunk `lpbuild_call_KIND: jmp FUNCTION` for each [`Callback`]
//! .text.lpbuild    between `lpbuild_text_start` and `lpbuild_text_end`: every function carried by the patch, and behind
//!                  them, for each replaced function, the original's beginning and the dispatcher (see [`FuncRecord`])
//! ```
#![no_std]

mod digest;
mod holder;
mod unpatchable;

pub use digest::Digest;
pub use holder::{
    AnchorKind, AnchorRecord, CALL_SITE_KEY, CALL_SITE_LEN, FieldKind, HolderRecord, JUMP_ENTRY_KEY, JUMP_ENTRY_LEN,
    Kept, LateReloc, MAX_HOLDERS, MAX_RELOCS, Region, Spot,
};
pub use unpatchable::UNPATCHABLE;

/// First field of [`PatchRecord`]; the ASCII bytes `lpbuild` and a NUL, read as a little-endian integer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"lpbuild\0");
/// Raised whenever the layout of any record changes.
pub const ABI_VERSION: u32 = 8;

/// Section of the one [`PatchRecord`].
pub const SEC_PATCH: &str = ".lpbuild.patch";
/// Section of the [`FuncRecord`] array.
pub const SEC_FUNCS: &str = ".lpbuild.funcs";
/// Section of the [`RangeRecord`] array.
pub const SEC_RANGES: &str = ".lpbuild.ranges";
/// Section of the [`DataRecord`] array, and of the bytes that those lead to.
pub const SEC_DATA: &str = ".lpbuild.data";
/// Section of the [`HolderRecord`] array.
pub const SEC_HOLDERS: &str = ".lpbuild.holders";
/// Section of the [`AnchorRecord`] array.
pub const SEC_ANCHORS: &str = ".lpbuild.anchors";
/// Section of the [`LateReloc`] array.
pub const SEC_RELOCS: &str = ".lpbuild.relocs";
/// Section of the names.
pub const SEC_STRINGS: &str = ".lpbuild.strings";
/// Section (code) of the import thunks.
pub const SEC_IMPORT: &str = ".text.lpbuild.import";
/// Section (data) of the import pointers.
pub const SEC_IMPORT_PTR: &str = ".lpbuild.import.ptr";
/// Section of all carried functions.
pub const SEC_TEXT: &str = ".text.lpbuild";
/// Section (not loaded) that holds the text of `manifest.toml` in the finished module.
pub const SEC_MANIFEST: &str = ".lpbuild.manifest";
/// What explains the patch (`why.json`); not loaded, and may be absent.
pub const SEC_WHY: &str = ".lpbuild.why";

/// Symbol of the [`PatchRecord`].
pub const SYM_PATCH: &str = "lpbuild_patch";
/// First byte of [`SEC_TEXT`].
pub const SYM_TEXT_START: &str = "lpbuild_text_start";
/// One past the last byte of [`SEC_TEXT`].
pub const SYM_TEXT_END: &str = "lpbuild_text_end";
/// Where branches of carried code lead that are filled in when a module is here: a trap, in [`SEC_IMPORT`].
pub const SYM_ABSENT: &str = "lpbuild_absent";
/// Prefix of an import thunk: code, reached by a direct call.
pub const IMPORT_CALL_PREFIX: &str = "lpk_";
/// Prefix of an import pointer: a `u64` that holds the address of a kernel object.
pub const IMPORT_PTR_PREFIX: &str = "lpk_ptr_";

/// The most bytes a jump site may cover: an `abs64` jump (12) plus the rest of the longest instruction (15 - 1).
pub const MAX_SITE: usize = 26;
/// Bytes of an `e9 rel32` jump.
pub const JUMP_REL32_LEN: usize = 5;
/// Bytes of a `movabs $target,%rax; jmp *%rax` jump.
pub const JUMP_ABS64_LEN: usize = 12;
/// Bytes of a dispatcher: `endbr64` (4), `call rel32` (5), `jne rel32` (6), `jmp rel32` (5).
pub const DISPATCH_LEN: usize = 20;
/// Where the runtime may write a jump into a function's copied beginning: behind its `endbr64`.
pub const RESUME_SLOT: usize = 4;
/// What a dispatcher calls: keeps every register but the flags, and clears the zero flag when the new function is to be run.
pub const SYM_CHOOSES_NEW: &str = "lpbuild_chooses_new";
/// Prefix of the name by which a patch calls the original of a function it replaces.
pub const ORIGINAL_PREFIX: &str = "lp_original_";
/// The longest constant that is changed in its place, in bytes.
pub const MAX_DATA: u32 = 0x1_0000;
/// Functions of the runtime that a patch calls (runtime-kmod/include/lpbuild.h).
pub const FOR_AUTHORS: [&str; 4] =
    ["lpb_shadow_get", "lpb_shadow_attach", "lpb_shadow_detach", "lpb_shadow_detach_all"];
/// Prefix of the variables that declare shadow variables (`struct lpb_shadow` there).
pub const SHADOW_PREFIX: &str = "lpb_shadow_of_";
/// Size of such a variable.
pub const SHADOW_LEN: usize = 64;
/// Offsets in it: the size of a value, the layout of the variable, and its name, with a zero behind.
pub const SHADOW_FIELDS: [usize; 3] = [8, 12, 16];
/// Bytes of the name, with the zero.
pub const SHADOW_NAME: usize = 48;
/// The layout.
pub const SHADOW_LAYOUT: u32 = 1;
/// The runtime's list of them.
pub const SYM_SHADOWS: &str = "lpb_kinds";
/// The largest value.
pub const SHADOW_MAX: u32 = 65536;
/// The longest build id accepted, in bytes (GNU build ids are 20).
pub const MAX_BUILD_ID: usize = 32;

/// Milliseconds after which an apply or revert gives up, when nothing else is said: in `stop-machine` and `drain`, and in
/// `transition` behind the patience.
pub const DEADLINE_MS: u32 = 10_000;
/// Milliseconds before tasks in user space are sent there as by a signal, when nothing else is said: as patient as the kernel's
/// own livepatch, which looks once a second and does so at every 15th look (SIGNALS_TIMEOUT, kernel/livepatch/transition.c).
pub const PATIENCE_MS: u32 = 15_000;

/// How the site transfers control.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JumpKind {
    /// `e9 rel32`, 5 bytes; the target must be within 2 GiB.
    Rel32 = 1,
    /// `48 b8 imm64 ff e0`, 12 bytes; clobbers `%rax`, so only for functions where `%rax` holds no argument (not variadic).
    Abs64 = 2,
}

/// How the switch is made.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All functions at one instant inside `stop_machine`, if no task's stack holds a replaced function.
    StopMachine = 1,
    /// Every new call at once, without stopping anything; then the tasks that are still in old code are waited for.
    Drain = 2,
    /// Task by task: each keeps the version it has until its stack is clean.
    Transition = 3,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 3] = [Mode::StopMachine, Mode::Drain, Mode::Transition];

    /// As livepatch.toml, the manifest, the module parameter and `/sys/kernel/lpbuild/NAME/mode` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::StopMachine => "stop-machine",
            Mode::Drain => "drain",
            Mode::Transition => "transition",
        }
    }

    /// The deadline when none is said. In a transition those who sleep inside come out when the patience is over, so that has
    /// to lie before the end.
    pub const fn default_deadline_ms(self, patience_ms: u32) -> u32 {
        match self {
            Mode::StopMachine | Mode::Drain => DEADLINE_MS,
            Mode::Transition => patience_ms.saturating_add(PATIENCE_MS),
        }
    }
}

/// When the runtime calls a function of the patch.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// Before anything is written; what it returns decides whether the patch is applied.
    PreApply = 0,
    /// When the new code is in effect.
    PostApply = 1,
    /// Before reverting begins.
    PreRevert = 2,
    /// When the new code is out of effect, or was refused after [`Callback::PreApply`] had agreed.
    PostRevert = 3,
}

impl Callback {
    /// Every callback, in the order of a patch's life.
    pub const ALL: [Callback; 4] = [Callback::PreApply, Callback::PostApply, Callback::PreRevert, Callback::PostRevert];

    /// As livepatch.toml, the manifest and `--callback` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Callback::PreApply => "pre-apply",
            Callback::PostApply => "post-apply",
            Callback::PreRevert => "pre-revert",
            Callback::PostRevert => "post-revert",
        }
    }
    /// The thunk in [`SEC_IMPORT`] that jumps to the function, or returns 0 when the patch has none.
    pub const fn symbol(self) -> &'static str {
        match self {
            Callback::PreApply => "lpbuild_call_pre_apply",
            Callback::PostApply => "lpbuild_call_post_apply",
            Callback::PreRevert => "lpbuild_call_pre_revert",
            Callback::PostRevert => "lpbuild_call_post_revert",
        }
    }
    /// Set in [`PatchRecord::flags`] when the patch has this callback.
    pub const fn flag(self) -> u16 {
        2 << self as u8
    }
}

/// Set in [`PatchRecord::flags`] when the patch is never reverted.
pub const FLAG_ONESHOT: u16 = 1;
/// Every flag there is.
pub const FLAGS: u16 = 0x1f;

/// The patch as a whole.
#[repr(C)]
#[derive(Debug)]
pub struct PatchRecord {
    /// [`MAGIC`]
    pub magic: u64,
    /// [`ABI_VERSION`]
    pub abi_version: u32,
    /// [`Mode`] as written by the builder.
    pub mode: u8,
    /// Bytes used of `build_id`.
    pub build_id_len: u8,
    /// [`FLAG_ONESHOT`] and [`Callback::flag`]s.
    pub flags: u16,
    /// GNU build id of the kernel this patch fits.
    pub build_id: [u8; MAX_BUILD_ID],
    /// Milliseconds after which an apply or revert that finds the functions busy gives up.
    pub deadline_ms: u32,
    /// Number of [`FuncRecord`]s.
    pub n_funcs: u32,
    /// Number of [`RangeRecord`]s.
    pub n_ranges: u32,
    /// Milliseconds before tasks in user space that have not been switched are sent there as by a signal.
    pub patience_ms: u32,
    /// Address of the first [`FuncRecord`].
    pub funcs: u64,
    /// Address of the first [`RangeRecord`].
    pub ranges: u64,
    /// Address of the NUL-terminated patch name.
    pub name: u64,
    /// Address of the NUL-terminated patch version.
    pub version: u64,
    /// Run-time address of the kernel's notes (`__start_notes`), searched for the GNU build id.
    pub notes_start: u64,
    /// One past the kernel's notes (`__stop_notes`).
    pub notes_end: u64,
    /// First byte of the carried functions.
    pub text_start: u64,
    /// One past the carried functions.
    pub text_end: u64,
    /// Address of the addresses of the names of patches this one may lie on top of, and must be loaded behind.
    pub after: u64,
    /// Address of the addresses of the names of patches this one takes the place of.
    pub replaces: u64,
    /// Number of names in `after`.
    pub n_after: u32,
    /// Number of names in `replaces`.
    pub n_replaces: u32,
    /// [`Digest`] of all records.
    pub digest: u64,
    /// Address of the first [`HolderRecord`].
    pub holders: u64,
    /// Address of the first [`AnchorRecord`].
    pub anchors: u64,
    /// Address of the first [`LateReloc`].
    pub relocs: u64,
    /// Number of [`HolderRecord`]s.
    pub n_holders: u32,
    /// Number of [`AnchorRecord`]s.
    pub n_anchors: u32,
    /// Number of [`LateReloc`]s.
    pub n_relocs: u32,
    /// How many of the functions are the kernel's. They come first; behind them, those of the first holder, of the second, ..
    pub n_kernel_funcs: u32,
    /// How many of the ranges belong to those.
    pub n_kernel_ranges: u32,
    /// Number of [`DataRecord`]s.
    pub n_data: u32,
    /// Address of the first [`DataRecord`].
    pub data: u64,
}

/// One replaced function.
#[repr(C)]
#[derive(Debug)]
pub struct FuncRecord {
    /// Run-time address of the first byte of the old function (anchored relocation); of a module's, its distance from `anchor`.
    pub old: u64,
    /// Run-time address of the new function.
    pub new: u64,
    /// Address of the NUL-terminated name of the function.
    pub name: u64,
    /// Size of the old function in bytes, without trailing padding.
    pub old_size: u32,
    /// Size of the new function in bytes.
    pub new_size: u32,
    /// Distance of the jump site from `old`, in bytes.
    pub site_offset: u16,
    /// Bytes covered by the site: whole instructions, at least as long as the jump.
    pub site_size: u8,
    /// [`JumpKind`]
    pub jump_kind: u8,
    /// 1 when the site covers the fentry nop, so that ftrace cannot be used on the function.
    pub covers_fentry: u8,
    /// The bytes expected at the site before the patch; the first `site_size` count.
    pub original: [u8; MAX_SITE],
    /// 1 when those bytes are one instruction, so that nobody stands behind the first of them; what lies behind the end of the
    /// flow does not count.
    pub single: u8,
    /// Address of the function's beginning as it was: the instructions the site covers, encoded again, and a jump to the
    /// first byte behind the site. What `lp_original_NAME` calls: where the function of a patch below was there before, the
    /// runtime writes a jump to that at [`RESUME_SLOT`]. 0: they cannot be executed elsewhere (a call among them), and only
    /// [`Mode::StopMachine`] will do.
    pub resume: u64,
    /// Address of the dispatcher: `endbr64; call lpbuild_chooses_new; jne NEW; jmp RESUME`, [`DISPATCH_LEN`] bytes, the last
    /// [`JUMP_REL32_LEN`] of which the runtime may rewrite while nobody can be inside. 0 when `resume` is.
    pub dispatch: u64,
    /// 0: a function of the kernel; else one more than the index of the [`AnchorRecord`] of its section.
    pub anchor: u32,
    /// 0.
    pub zero: u32,
}

/// One piece of old code that no task may be inside when the patch is applied.
#[repr(C)]
#[derive(Debug)]
pub struct RangeRecord {
    /// Run-time address of the first byte (anchored relocation); in a module, its distance from `anchor`.
    pub start: u64,
    /// Length in bytes.
    pub len: u32,
    /// Index of the [`FuncRecord`] it belongs to.
    pub func: u32,
    /// 0: code of the kernel; else one more than the index of the [`AnchorRecord`] of its section.
    pub anchor: u32,
    /// 0.
    pub zero: u32,
}

/// One constant of the kernel that gets another content in its place: old code and whoever has its address read it there.
#[repr(C)]
#[derive(Debug)]
pub struct DataRecord {
    /// Run-time address of its first byte (anchored relocation).
    pub addr: u64,
    /// Address of the bytes expected there, in the patch: completed by the module loader, as those at a site.
    pub old: u64,
    /// Address of the new bytes, in the patch.
    pub new: u64,
    /// Address of its NUL-terminated name.
    pub name: u64,
    /// Length in bytes, at most [`MAX_DATA`].
    pub len: u32,
    /// 0.
    pub zero: u32,
}

/// A kernel symbol the runtime needs and the kernel does not export; bound by `pack` from the kernel image's kallsyms.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    /// Name in kallsyms.
    pub name: &'static str,
    /// Code (thunk `lpk_NAME`) or data (pointer `lpk_ptr_NAME`).
    pub kind: ImportKind,
    /// Kernels without it: a missing optional function becomes a thunk that returns 0, a missing object the pointer 0.
    pub optional: bool,
}

/// Code or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// Reached by `call lpk_NAME`.
    Call,
    /// `lpk_ptr_NAME` holds its address.
    Pointer,
}

/// Everything the runtime imports that way.
pub const IMPORTS: &[Import] = &[
    Import { name: "stack_trace_save_tsk_reliable", kind: ImportKind::Call, optional: false },
    Import { name: "stop_machine_cpuslocked", kind: ImportKind::Call, optional: false },
    Import { name: "idle_task", kind: ImportKind::Call, optional: false },
    Import { name: "get_kprobe", kind: ImportKind::Call, optional: true },
    Import { name: "task_call_func", kind: ImportKind::Call, optional: false },
    Import { name: "task_work_add", kind: ImportKind::Call, optional: false },
    Import { name: "task_work_cancel_match", kind: ImportKind::Call, optional: false },
    Import { name: "wake_up_state", kind: ImportKind::Call, optional: true },
    Import { name: "ftrace_ops_test", kind: ImportKind::Call, optional: true },
    Import { name: "ftrace_ops_list", kind: ImportKind::Pointer, optional: true },
    Import { name: "jump_label_module_notify", kind: ImportKind::Call, optional: true },
    Import { name: "static_call_module_notify", kind: ImportKind::Call, optional: true },
    Import { name: "tasklist_lock", kind: ImportKind::Pointer, optional: false },
    Import { name: "text_mutex", kind: ImportKind::Pointer, optional: false },
];

const _: () = assert!(Callback::PostRevert.flag() | FLAGS == FLAGS && FLAG_ONESHOT < Callback::PreApply.flag());
const _: () = assert!(size_of::<PatchRecord>() == 216);
const _: () = assert!(size_of::<FuncRecord>() == 88);
const _: () = assert!(size_of::<RangeRecord>() == 24);
const _: () = assert!(size_of::<DataRecord>() == 40);
