//! Functions of `c/`. Signatures there and here must agree; a change is made in both.

use core::ffi::{c_int, c_void};

use lpbuild_abi::PatchRecord;

use crate::kernel::{Who, Work};

/// `struct task_struct`, opaque.
#[repr(C)]
pub(super) struct Task {
    _opaque: [u8; 0],
}

/// What patches show to each other: `struct lpb_info`.
#[repr(C)]
pub(super) struct Info {
    pub(super) magic: u64,
    pub(super) abi: u32,
    /// Which runtime it is: two that differ do not touch each other's sites and boards.
    pub(super) runtime: u64,
    /// [`crate::sites::Sites`] of [`super::linux::Alias`].
    pub(super) sites: *const c_void,
    /// What is in modules, as `SEEN` in entry.rs.
    pub(super) seen: *const c_void,
    /// [`crate::board::Board`].
    pub(super) board: *const c_void,
    pub(super) record: *const PatchRecord,
}

unsafe extern "C" {
    pub(super) fn lpb_read(addr: u64, buf: *mut u8, len: usize) -> c_int;
    pub(super) fn lpb_probe_at(addr: u64) -> c_int;
    pub(super) fn lpb_is_redirected(addr: u64) -> c_int;
    pub(super) fn lpb_now_ns() -> u64;
    pub(super) fn lpb_symbol(addr: u64, out: *mut u8, len: usize) -> usize;
    pub(super) fn lpb_log(level: c_int, line: *const u8, len: usize);
    pub(super) fn lpb_map(addr: u64, len: usize) -> u64;
    pub(super) fn lpb_unmap(alias: u64);
    pub(super) fn lpb_sync_core();
    pub(super) fn lpb_sync_core_all();
    pub(super) fn lpb_online_cpus() -> usize;
    pub(super) fn lpb_possible_cpus() -> usize;
    pub(super) fn lpb_this_cpu() -> usize;
    pub(super) fn lpb_current() -> usize;
    pub(super) fn lpb_stop(f: extern "C" fn(*mut c_void) -> c_int, data: *mut c_void) -> c_int;
    pub(super) fn lpb_relax();
    pub(super) fn lpb_for_each_task(f: extern "C" fn(*mut c_void, *mut Task), data: *mut c_void);
    pub(super) fn lpb_task_cpu(task: *mut Task) -> usize;
    pub(super) fn lpb_is_operator(task: *mut Task) -> c_int;
    pub(super) fn lpb_stack(task: *mut Task, frames: *mut u64, len: usize) -> c_int;
    pub(super) fn lpb_who(task: *mut Task, who: *mut Who);
    pub(super) fn lpb_take_other(name: *const u8, len: usize, replaces: c_int, info: *mut *const Info) -> c_int;
    pub(super) fn lpb_count_tasks() -> usize;
    pub(super) fn lpb_census(
        f: extern "C" fn(*mut c_void, *mut Task),
        data: *mut c_void,
        last: extern "C" fn(*mut c_void),
        last_data: *mut c_void,
    );
    pub(super) fn lpb_hold(task: *mut Task);
    pub(super) fn lpb_release(task: *mut Task);
    pub(super) fn lpb_look(
        task: *mut Task,
        frames: *mut u64,
        len: usize,
        f: extern "C" fn(*mut c_void, *const u64, c_int, c_int, u64),
        data: *mut c_void,
    ) -> c_int;
    pub(super) fn lpb_rests(task: *mut Task, frames: *mut u64, len: usize, count: *mut u64) -> c_int;
    pub(super) fn lpb_send(task: *mut Task, work: *mut Work, urgent: c_int) -> c_int;
    pub(super) fn lpb_recall(task: *mut Task, work: *mut Work) -> c_int;
    pub(super) fn lpb_nudge(task: *mut Task);
    pub(super) fn lpb_breathe();
    pub(super) fn lpb_find_module(name: *const u8, len: usize, whole: *mut c_int) -> usize;
    pub(super) fn lpb_module_symbol(module: usize, name: *const u8, len: usize, position: u32, count: u32) -> u64;
    pub(super) fn lpb_module_region(module: usize, region: c_int, start: *mut u64, len: *mut u64);
    pub(super) fn lpb_synchronize();
    pub(super) fn lpb_owns(addr: u64, len: u64) -> c_int;
    pub(super) fn lpb_alloc(size: usize) -> *mut c_void;
    pub(super) fn lpb_free(memory: *mut c_void);
}
