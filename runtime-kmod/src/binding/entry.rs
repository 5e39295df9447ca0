//! What `c/` calls, but for the text of the files (`show`). One patch per module, so the state is static.
//!
//! Who may call what, and when (`c/` keeps to it):
//! - `lpbuild_setup` once, first, from module init; nothing else when it fails, but `lpbuild_cleanup`.
//! - `lpbuild_apply`, `lpbuild_revert`, `lpbuild_overdue`, `lpbuild_rehearse` from the one kernel thread, under cpus_read_lock, and text_mutex
//!   when `lpbuild_pokes` says so; `lpbuild_called`, `lpbuild_wait_ms`, `lpbuild_begin`, `lpbuild_force_revert` from it, without locks.
//! - `lpbuild_module_*`, `lpbuild_modules_close` behind setup, from whoever has lpb_holders, which is held for every step too; joining, going
//!   and gone under cpus_read_lock and text_mutex as well. They know of the machine what the last step has left in `JOINING`.
//!   `lpbuild_modules`, `lpbuild_module_named`: by anyone behind setup. What `holders` shows, under lpb_holders too.
//! - `lpbuild_publish`, `lpbuild_show`, `lpbuild_released`, `lpbuild_state`, `lpbuild_show_reverting` under the status mutex;
//!   `lpbuild_publish` and `lpbuild_released` from the kernel thread.
//! - `lpbuild_set_*`, `lpbuild_cancel`, `lpbuild_force_switch` by anyone behind setup: they leave a wish that the kernel
//!   thread finds.
//! - `lpbuild_divert` from the die notifier and `lpbuild_chooses` from dispatchers, in any context, between setup and cleanup;
//!   `lpbuild_boundary` from the tasks it was asked of.
//! - `lpbuild_cleanup` when no thread and no notifier is left.

use core::{
    cell::UnsafeCell,
    ffi::c_int,
    mem::{MaybeUninit, size_of},
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering::SeqCst},
};

use lpbuild_abi::{Callback, Kept, Mode, PatchRecord};

use super::{
    ffi,
    linux::{Alias, Linux},
    memory::Whose,
};
use crate::{
    board::{Board, Entry},
    constants::Constants,
    holders::{self, Holders, Joining},
    identity,
    kernel::Unreliable,
    layers::{Layers, Peer},
    machine::{Machine, Parts, Step},
    record::{self, Patch},
    refusal::Refusal,
    site::{self, Diverted, Route},
    sites::{Shown, SiteSet, Sites},
    stack::Located,
    status::{self, State, Status},
    switch::Scan,
    wire::{CALL, DONE, EFFECTIVE, LET_GO, NOW, RCU_TASKS},
};

/// Frames of the deepest stack that is walked; a 16 KiB stack seldom holds more than 100.
const FRAMES: usize = 512;

/// A number that stands for the sources and the compiler of this runtime, C half included.
const RUNTIME: u64 = match u64::from_str_radix(env!("LPBUILD_RUNTIME"), 16) {
    Ok(n) => n,
    Err(_) => panic!("LPBUILD_RUNTIME has 16 hexadecimal digits"),
};

unsafe extern "C" {
    #[link_name = "lpbuild_patch"]
    static RECORD: PatchRecord;
}

/// A static whose users are kept apart by the rules in the head of this file.
pub(super) struct Global<T>(pub(super) UnsafeCell<T>);
// SAFETY: the rules in the head of this file: one thread at a time has access to each of them.
unsafe impl<T> Sync for Global<T> {}

pub(super) static LINUX: Linux = Linux;
static ARMED: AtomicBool = AtomicBool::new(false);
static BOARD: Board = Board::new();
static CANCEL: AtomicBool = AtomicBool::new(false);
static FORCE: AtomicBool = AtomicBool::new(false);
pub(super) static ONESHOT: AtomicBool = AtomicBool::new(false);
pub(super) static DEADLINE_MS: AtomicU32 = AtomicU32::new(0);
pub(super) static PATIENCE_MS: AtomicU32 = AtomicU32::new(0);
/// The mode of the next operation, as in the record.
pub(super) static MODE: AtomicU8 = AtomicU8::new(0);
pub(super) static SITES: Sites<Alias> = Sites::new();
static CONSTANTS: Constants<Alias> = Constants::new();
static HOLDERS: Global<Holders<Alias>> = Global(UnsafeCell::new(Holders::new()));
/// What of them everybody may look at. Written by setup alone.
static SEEN: Seen = Global(UnsafeCell::new((&[], &[])));
type Seen = Global<(&'static [Shown<Alias>], &'static [Located])>;
/// What a module that comes gets: the number of the route, and 4 for an int3 over it. Written behind each step, read under the lock of the steps.
static JOINING: AtomicU8 = AtomicU8::new(0);
static LAYERS: Global<Layers<'static, Alias>> = Global(UnsafeCell::new(Layers::new()));
static SEATS: AtomicPtr<AtomicUsize> = AtomicPtr::new(ptr::null_mut());
static FRAME_BUFFER: Global<[u64; FRAMES]> = Global(UnsafeCell::new([0; FRAMES]));
static MACHINE: Global<MaybeUninit<Machine<'static, Linux>>> = Global(UnsafeCell::new(MaybeUninit::uninit()));
static PATCH: Global<MaybeUninit<Patch<'static>>> = Global(UnsafeCell::new(MaybeUninit::uninit()));
/// Copy of the machine's status for readers, under the status mutex.
pub(super) static SHOWN: Global<Status> = Global(UnsafeCell::new(Status::new()));

/// Checks everything that can be checked without stopping anything, and prepares the sites. 0 or a negative errno.
///
/// # Safety
/// See the head of this file; `name` is the module's name, `len` bytes long.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_setup(name: *const u8, len: usize) -> c_int {
    // SAFETY: called once, before anything else.
    match unsafe { setup() } {
        Ok(()) => DONE,
        Err(why) => {
            // SAFETY: the module loader has relocated the record; names are only read when it is valid.
            let patch = unsafe { Patch::new(&RECORD, &Whose::Own) }.ok();
            // SAFETY: the caller vouches for both.
            let name = unsafe { slice::from_raw_parts(name, len) };
            let func = patch.map_or(b"".as_slice(), |p| p.subject(why));
            // SAFETY: nobody else uses the statics before setup has succeeded. No blockers yet, and not on the stack.
            let none = unsafe { &(*SHOWN.0.get()).blockers };
            status::log_refusal(&LINUX, name, func, why, none);
            -why.errno()
        }
    }
}

/// # Safety
/// See the head of this file.
unsafe fn setup() -> Result<(), Refusal> {
    // SAFETY: the module loader has relocated the record; what the module has behind its init stays as long as the module.
    let patch = unsafe { Patch::new(&RECORD, &Whose::Own) }?;
    identity::check(&LINUX, &patch)?;
    // From here on the kernel is the right one, so every bound address is what it is meant to be.
    // SAFETY: zeroed memory, given back by `lpbuild_cleanup`.
    let seats = unsafe {
        let n = ffi::lpb_possible_cpus();
        let seats = ffi::lpb_alloc(n * size_of::<AtomicUsize>()).cast::<AtomicUsize>();
        SEATS.store(seats, SeqCst);
        if seats.is_null() {
            return Err(Refusal::NoMemory);
        }
        slice::from_raw_parts(seats, n)
    };
    // SAFETY: nobody else uses the statics before setup has succeeded.
    unsafe {
        prepare(&patch)?;
        install(patch, seats);
    }
    Ok(())
}

/// # Safety
/// Nobody else uses the statics.
#[inline(never)]
unsafe fn prepare(patch: &Patch<'static>) -> Result<(), Refusal> {
    // SAFETY: the caller's contract.
    let layers = unsafe { &mut *LAYERS.0.get() };
    SITES.prepare(&LINUX, patch, layers, |other| {
        let (name, replaces) = (patch.other_name(other), patch.replaces(other));
        let mut info = ptr::null();
        // SAFETY: `name` is readable; `info` is writable, and lives as long as the other patch is held.
        let info: &'static ffi::Info = unsafe {
            match ffi::lpb_take_other(name.as_ptr(), name.len(), c_int::from(replaces), &mut info) {
                0 => &*info,
                2 => return Err(Refusal::OtherRuntime { other }),
                _ => return Err(Refusal::NoOther { other }),
            }
        };
        // SAFETY: the other patch is applied and held, and has the same runtime: these are its statics.
        let (its, sites, seen, board) = unsafe {
            (
                Patch::new(&*info.record, &Whose::Theirs),
                &*info.sites.cast::<Sites<Alias>>(),
                &*info.seen.cast::<Seen>(),
                &*info.board.cast::<Board>(),
            )
        };
        // SAFETY: written by its setup, which is over.
        let shown = unsafe { (*seen.0.get()).0 };
        Ok(Peer { patch: its.map_err(|_| Refusal::OtherRuntime { other })?, sites, shown, board })
    })?;
    CONSTANTS.prepare(&LINUX, patch)?;
    // SAFETY: the caller's contract; given back by `lpbuild_cleanup`.
    unsafe {
        let holders = holders();
        holders.prepare(&LINUX, patch)?;
        SEEN.0.get().write((holders.shown(), holders.located()));
    }
    Ok(())
}

/// Puts patch and machine in their places.
///
/// Not inlined, and calls nothing: the machine is twice on the stack here, 5 KB, and what setup calls (vmap, printk) goes
/// deep itself.
///
/// # Safety
/// Nobody else uses the statics.
#[inline(never)]
unsafe fn install(patch: Patch<'static>, seats: &'static [AtomicUsize]) {
    // SAFETY: the caller's contract.
    unsafe {
        let (sites, located, others) = (all_sites(), located(), layers().others());
        let frames = &mut *FRAME_BUFFER.0.get();
        (*PATCH.0.get()).write(patch);
        let (armed, board, cancel, force) = (&ARMED, &BOARD, &CANCEL, &FORCE);
        let constants = &CONSTANTS;
        let parts = Parts { sites, located, others, constants, armed, board, cancel, force, seats, frames };
        (*MACHINE.0.get()).write(Machine::new(&LINUX, patch, parts));
        MODE.store(patch.record.mode, SeqCst);
        DEADLINE_MS.store(patch.record.deadline_ms, SeqCst);
        PATIENCE_MS.store(patch.record.patience_ms, SeqCst);
        ONESHOT.store(patch.is_oneshot(), SeqCst);
    }
}

/// One step of applying: 0 done, `INT_MAX` wait for RCU tasks, [`CALL`] and a callback, positive milliseconds, negative
/// errno.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_apply() -> c_int {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    let m = unsafe { machine() };
    let step = m.apply();
    result(m, step)
}

/// One step of reverting; the same results.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_revert() -> c_int {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    let m = unsafe { machine() };
    let step = m.revert();
    result(m, step)
}

/// Under the lock of the steps.
fn result(m: &Machine<'_, Linux>, step: Step) -> c_int {
    let at = m.joining();
    JOINING.store(at.route as u8 | u8::from(at.trapped) << 2, SeqCst);
    match step {
        Step::Done => DONE,
        Step::RcuTasks => RCU_TASKS,
        Step::Effective => EFFECTIVE,
        Step::Replaced => LET_GO,
        Step::Call(callback) => CALL + callback as c_int,
        Step::Again(0) => NOW,
        Step::Again(ms) => c_int::try_from(ms).unwrap_or(1000).max(1),
        Step::Refused(why) => -why.errno(),
    }
}

/// What a callback returned.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_called(callback: c_int, value: c_int) {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    let m = unsafe { machine() };
    if let Some(&callback) = Callback::ALL.iter().find(|c| **c as c_int == callback) {
        m.called(callback, value);
    }
}

/// An operation is about to begin, with what was wished for until now.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_begin() {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    let m = unsafe { machine() };
    m.set_deadline(u64::from(DEADLINE_MS.load(SeqCst)));
    m.set_patience(u64::from(PATIENCE_MS.load(SeqCst)));
    if let Some(mode) = record::mode(MODE.load(SeqCst)) {
        m.set_mode(mode);
    }
    if ONESHOT.load(SeqCst) {
        m.set_oneshot();
    }
}

/// Whether the next step wants `text_mutex`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_pokes() -> c_int {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    c_int::from(unsafe { machine() }.pokes())
}

/// Milliseconds that a wait for RCU tasks may last before `lpbuild_overdue` is called; -1: as long as it takes.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_wait_ms() -> i64 {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    unsafe { machine() }.wait_ms().map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A wait for RCU tasks has not ended in time. -1: it goes on; else as a step.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_overdue() -> c_int {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    let m = unsafe { machine() };
    let step = m.overdue();
    step.map_or(-1, |step| result(m, step))
}

/// Every check and no change. 0 or a negative errno.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_rehearse() -> c_int {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    unsafe { machine() }.rehearse().map_or_else(|why| -why.errno(), |()| DONE)
}

/// What other patches may know.
///
/// # Safety
/// `info` is writable; called from module init, before and behind setup.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_describe(info: *mut ffi::Info) {
    // SAFETY: the caller vouches for `info`; the record is only named.
    unsafe {
        info.write(ffi::Info {
            magic: lpbuild_abi::MAGIC,
            abi: lpbuild_abi::ABI_VERSION,
            runtime: RUNTIME,
            sites: ptr::from_ref(&SITES).cast(),
            seen: ptr::from_ref(&SEEN).cast(),
            board: ptr::from_ref(&BOARD).cast(),
            record: &RECORD,
        });
    }
}

/// Nobody is inside the replaced patches: their sites are this one's now, and lead back to what was below them.
///
/// # Safety
/// See the head of this file; the replaced patches are held.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_replaced_others() {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    unsafe {
        layers().let_go(&LINUX, &patch(), &SITES);
        machine().replaced_others(all_sites(), layers().others());
    }
}

/// Another patch has taken the place of this one.
///
/// # Safety
/// See the head of this file; called by the other's thread while this one's has nothing to do.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_replaced() {
    // SAFETY: the caller's contract.
    unsafe { machine() }.replaced();
}

/// A revert was asked for that other patches forbid.
///
/// # Safety
/// See the head of this file; under the status mutex.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_refuse_on_top() {
    // SAFETY: under the status mutex.
    unsafe { (*SHOWN.0.get()).refusal = Some(Refusal::OnTop) };
}

/// The module goes away by force: a oneshot patch is reverted like any other.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_force_revert() {
    // SAFETY: setup has succeeded; only the kernel thread gets here.
    unsafe { machine() }.force();
}

/// An apply that is under way shall end as it began; one that is draining shall drain no longer.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_cancel() {
    CANCEL.store(true, SeqCst);
}

/// The tasks that are left shall be switched wherever they are.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_force_switch() {
    FORCE.store(true, SeqCst);
}

/// Whether `task`, which is the one that is running, shall run the new version.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_chooses(task: usize) -> bool {
    BOARD.chooses_new(&LINUX, task)
}

/// The running task is on its way back to user mode, as it was asked to with `work`; `n` frames of its stack, or an errno.
///
/// # Safety
/// See the head of this file; `work` is that of an entry, `frames` are readable.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_boundary(work: *const Entry, frames: *const u64, n: c_int) {
    // SAFETY: setup has succeeded, so the patch does not change; the caller vouches for the rest. The work is the first
    // field of its entry.
    let (patch, entry, frames) =
        unsafe { (patch(), &*work, usize::try_from(n).map(|n| slice::from_raw_parts(frames, n))) };
    // SAFETY: written by setup; what is located changes by stores that everybody may look at.
    let (others, located) = unsafe { (layers().others(), located()) };
    let scan = Scan { k: &LINUX, patch: &patch, others, located };
    BOARD.at_boundary(&LINUX, entry, frames.map_err(|_| Unreliable::Unwind), |new, a| scan.leaves(new, a));
}

/// Makes the machine's status visible.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_publish() {
    // SAFETY: the kernel thread, under the status mutex.
    let (m, shown) = unsafe { (machine(), &mut *SHOWN.0.get()) };
    let s = m.status();
    // The end of an operation is logged; that it goes on beyond its deadline, once.
    if s.state == State::Reverting
        && shown.refusal.is_none()
        && let Some(why @ Refusal::StillInside) = s.refusal
    {
        status::log_refusal(&LINUX, m.patch().name, m.patch().subject(why), why, &s.blockers);
    }
    shown.clone_from(s);
}

/// Deadline of operations that begin from now on, milliseconds.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_set_deadline(ms: u32) {
    DEADLINE_MS.store(ms, SeqCst);
}

/// When transitions that begin from now on disturb tasks in user space, milliseconds.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_set_patience(ms: u32) {
    PATIENCE_MS.store(ms, SeqCst);
}

/// The patch stays.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_set_oneshot() {
    ONESHOT.store(true, SeqCst);
}

/// Mode of operations that begin from now on, by its name and perhaps a newline. 0 or a negative errno.
///
/// # Safety
/// See the head of this file; `name` is readable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_set_mode(name: *const u8, len: usize) -> c_int {
    // SAFETY: the caller vouches for it.
    let name = unsafe { slice::from_raw_parts(name, len) };
    let Some(mode) = Mode::ALL.into_iter().find(|m| m.name().as_bytes() == name.trim_ascii_end()) else { return -22 };
    MODE.store(mode as u8, SeqCst);
    DONE
}

/// Writes the lines about the end of an operation to the log; `result` as returned by the last step.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_log_end(result: c_int) {
    // SAFETY: the kernel thread.
    let m = unsafe { machine() };
    let (patch, s) = (m.patch(), m.status());
    match s.refusal {
        Some(why) if result < 0 || s.state == State::Reverting => {
            status::log_refusal(&LINUX, patch.name, patch.subject(why), why, &s.blockers);
        }
        _ => status::log_success(
            &LINUX,
            patch,
            s,
            match s.state {
                State::Applied => "applied",
                State::Draining => "draining",
                _ => "reverted",
            },
        ),
    }
}

/// Nothing can be inside the new code any more, and the module's reference on itself is gone.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_released() {
    // SAFETY: the kernel thread.
    unsafe { machine() }.released();
}

/// Where an int3 at `ip - 1` continues; 0: it is none of ours.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_divert(ip: u64) -> u64 {
    // The sites are complete before the notifier is registered and stay until it is gone.
    // SAFETY: setup has succeeded; sites in modules come and go by stores that everybody may look at.
    match site::divert(&LINUX, unsafe { all_sites() }, ARMED.load(SeqCst), ip) {
        Diverted::NotOurs => 0,
        Diverted::To(addr) | Diverted::Again(addr) => addr,
    }
}

/// The state as shown, as a number: the place in [`State`]; c/lp-runtime.h has the same list.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_state() -> c_int {
    // SAFETY: under the status mutex.
    unsafe { (*SHOWN.0.get()).state as c_int }
}

/// The store to `enabled` returns before the thread has begun; readers must not see `applied` in between.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_show_reverting() {
    // SAFETY: under the status mutex, and no kernel thread is working.
    unsafe { (*SHOWN.0.get()).state = State::Reverting };
}

/// Gives the aliases and the memory back. Safe after a failed setup.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_cleanup() {
    // SAFETY: no longer referred to; the seats are from `lpb_alloc`, or null.
    unsafe {
        SITES.clear(&LINUX);
        CONSTANTS.clear(&LINUX);
        holders().clear(&LINUX);
        ffi::lpb_free(SEATS.swap(ptr::null_mut(), SeqCst).cast());
    }
}

/// What a module that comes now gets.
fn joining() -> Joining {
    let at = JOINING.load(SeqCst);
    let route = [Route::Original, Route::Dispatcher, Route::New].into_iter().find(|r| *r as u8 == at & 3);
    Joining { route: route.unwrap_or(Route::Original), trapped: at & 4 != 0 }
}

/// Number of parts of the patch that belong to kernel modules.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_modules() -> c_int {
    // SAFETY: setup has succeeded.
    unsafe { patch() }.holders.len() as c_int
}

/// The part that belongs to the module of that name, or -1.
///
/// # Safety
/// See the head of this file; `name` is readable for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_named(name: *const u8, len: usize) -> c_int {
    // SAFETY: setup has succeeded; the caller vouches for the name.
    let (patch, name) = unsafe { (patch(), slice::from_raw_parts(name, len)) };
    holders::named(&patch, name).map_or(-1, |i| i as c_int)
}

/// The module a part belongs to, if that is here and not going.
///
/// # Safety
/// See the head of this file; `whole` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_find(part: c_int, whole: *mut c_int) -> usize {
    // SAFETY: setup has succeeded; the caller vouches for `whole`.
    unsafe {
        let patch = patch();
        let name = patch.holder_name(part as usize);
        if holders::named(&patch, name).is_none() {
            // It is looked for when one that needs it is here.
            return 0;
        }
        ffi::lpb_find_module(name.as_ptr(), name.len(), whole)
    }
}

/// Whether the part has joined that module.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_is_here(part: c_int, module: usize) -> bool {
    // SAFETY: under the lock of the steps.
    unsafe { holders() }.is_here(part as usize, module)
}

/// A module is here, or `comes`. 0 or a negative errno; 0 as well if it comes, cannot be patched, and is to be loaded all the same.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_join(part: c_int, module: usize, live: bool, comes: bool, lenient: bool) -> c_int {
    // SAFETY: under the lock of the steps; setup has succeeded.
    let (holders, patch, layers, part) = unsafe { (holders(), patch(), layers(), part as usize) };
    let was_here = holders.is_here(part, module);
    let Err(why) = holders.join(&LINUX, (&patch, layers), part, module, joining(), live) else {
        if comes && !was_here && holders.is_here(part, module) {
            status::log_part(&LINUX, &patch, part, "has come, its functions are part of the patch");
        }
        return DONE;
    };
    // Another build is not what the patch was made for, and where another patch is, that has come first.
    let loads = comes && (lenient || matches!(why, Refusal::OtherModule { .. } | Refusal::AlreadyPatched { .. }));
    status::log_module(&LINUX, &patch, part, why, holders.found_id(part), comes && !loads);
    if loads { DONE } else { -why.errno() }
}

/// A module goes. Whether RCU tasks is to be waited for before `lpbuild_module_gone`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_going(part: c_int) -> bool {
    // SAFETY: under the lock of the steps.
    unsafe { holders() }.going(&LINUX, part as usize, joining())
}

/// Its code is as it was.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_gone(part: c_int) {
    // SAFETY: under the lock of the steps; setup has succeeded.
    unsafe { holders().gone(&LINUX, &patch(), part as usize, joining()) };
}

/// Nobody looks at the part any more when this returns. May sleep.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_left(part: c_int) {
    // SAFETY: under the lock of the steps; setup has succeeded.
    unsafe { holders().left(&LINUX, &patch(), part as usize) };
}

/// Where the entries of a table are that is handed to the kernel when the module is here, and how many; `table`: a place in
/// [`Kept::ALL`].
///
/// # Safety
/// See the head of this file; `first` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_kept(part: c_int, table: c_int, first: *mut u64) -> u32 {
    // SAFETY: setup has succeeded; the caller vouches for `first`.
    unsafe {
        let patch = patch();
        let Some((h, kept)) = patch.holders.get(part as usize).zip(Kept::ALL.get(table as usize)) else { return 0 };
        let (start, end) = kept.of(h);
        first.write(start);
        ((end - start) / kept.entry_len() as u64) as u32
    }
}

/// The kernel has no memory for the jumps of the keys of a module, or its static calls, which has left again. As `lpbuild_module_join`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_refused(part: c_int, comes: bool, lenient: bool) -> c_int {
    let why = Refusal::NoMemory;
    let loads = comes && lenient;
    // SAFETY: under the lock of the steps; setup has succeeded.
    unsafe {
        holders().refuse(part as usize, why);
        status::log_module(&LINUX, &patch(), part as usize, why, &[], comes && !loads);
    }
    if loads { DONE } else { -why.errno() }
}

/// A module was being loaded until the deadline: a negative errno.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_module_half(part: c_int) -> c_int {
    let why = Refusal::HalfLoaded { holder: part as usize };
    // SAFETY: setup has succeeded.
    status::log_module(&LINUX, &unsafe { patch() }, part as usize, why, &[], false);
    -why.errno()
}

/// Modules that come from now on are none of the patch's business.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_modules_close() {
    // SAFETY: under the lock of the steps.
    unsafe { holders() }.close();
}

/// Deadline of the operations that begin from now on, milliseconds.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn lpbuild_deadline() -> u32 {
    DEADLINE_MS.load(SeqCst)
}

/// # Safety
/// Under the lock of the steps, or before setup has succeeded, or when nobody else is left.
pub(super) unsafe fn holders() -> &'static mut Holders<Alias> {
    // SAFETY: the caller's contract.
    unsafe { &mut *HOLDERS.0.get() }
}

/// # Safety
/// Setup is over, or has come so far.
unsafe fn all_sites() -> SiteSet<'static, Alias> {
    // SAFETY: the caller's contract; given back by `lpbuild_cleanup`.
    SiteSet::new(SITES.all(), unsafe { (*SEEN.0.get()).0 })
}

/// # Safety
/// Setup is over, or has come so far.
unsafe fn located() -> &'static [Located] {
    // SAFETY: the caller's contract.
    unsafe { (*SEEN.0.get()).1 }
}

/// # Safety
/// Setup is over, or has come so far.
unsafe fn layers() -> &'static Layers<'static, Alias> {
    // SAFETY: written by setup alone.
    unsafe { &*LAYERS.0.get() }
}

/// # Safety
/// Setup has succeeded, and the rules of the head of this file keep others away while the reference is used.
unsafe fn machine() -> &'static mut Machine<'static, Linux> {
    // SAFETY: the caller's contract.
    unsafe { (*MACHINE.0.get()).assume_init_mut() }
}

/// # Safety
/// Setup has succeeded.
pub(super) unsafe fn patch() -> Patch<'static> {
    // SAFETY: written by setup and never changed.
    unsafe { *(*PATCH.0.get()).assume_init_ref() }
}
