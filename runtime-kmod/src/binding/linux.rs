//! [`Kernel`] for a running Linux.

use core::{
    ffi::{c_int, c_void},
    ptr, slice,
};

use lpbuild_abi::Region;

use super::ffi;
use crate::kernel::{Kernel, Level, Rest, Seen, Unreliable, View, Who, Work};
use crate::wire;

/// The kernel this module is loaded into.
pub(super) struct Linux;

/// A task. The pointer stays valid while the machine is stopped or the task is held: nothing can free it.
#[derive(Clone, Copy)]
pub(super) struct TaskRef(*mut ffi::Task);

/// Address of the first byte of a site in a writable mapping made by `lpb_map`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alias(u64);

extern "C" fn on_cpu<F: Fn() + Sync>(data: *mut c_void) -> c_int {
    // SAFETY: `stop` passes a pointer to an `F` that outlives the stop, and `F: Sync`.
    unsafe { (*data.cast::<F>().cast_const())() };
    0
}

extern "C" fn on_task<F: FnMut(TaskRef)>(data: *mut c_void, task: *mut ffi::Task) {
    // SAFETY: `for_each_task` passes a pointer to an `F` that it owns and does not touch meanwhile.
    unsafe { (*data.cast::<F>())(TaskRef(task)) };
}

extern "C" fn at_last<L: FnOnce()>(data: *mut c_void) {
    // SAFETY: `census` passes a pointer to an `Option<L>` that it owns and does not touch meanwhile.
    if let Some(last) = unsafe { (*data.cast::<Option<L>>()).take() } {
        last();
    }
}

/// What `lpb_look` calls. Flags of [`wire`].
extern "C" fn on_view<F: FnMut(View<'_>)>(
    data: *mut c_void,
    frames: *const u64,
    n: c_int,
    flags: c_int,
    switches: u64,
) {
    let frames = match usize::try_from(n) {
        // SAFETY: `lpb_look` has written `n` frames.
        Ok(n) => Ok(unsafe { slice::from_raw_parts(frames, n) }),
        Err(_) => Err(Unreliable::Unwind),
    };
    let view = View { frames, blocked: flags & wire::BLOCKED != 0, switches, kernel: flags & wire::KERNEL != 0 };
    // SAFETY: `look` passes a pointer to an `F` that it owns and does not touch meanwhile.
    unsafe { (*data.cast::<F>())(view) };
}

impl Kernel for Linux {
    type Task = TaskRef;
    type Alias = Alias;

    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        // SAFETY: `buf` is writable for its length; copy_from_kernel_nofault accepts any source address.
        unsafe { ffi::lpb_read(addr, buf.as_mut_ptr(), buf.len()) != 0 }
    }
    fn probe_at(&self, addr: u64) -> bool {
        // SAFETY: the address is only compared.
        unsafe { ffi::lpb_probe_at(addr) != 0 }
    }
    fn is_redirected(&self, addr: u64) -> bool {
        // SAFETY: the address is only compared.
        unsafe { ffi::lpb_is_redirected(addr) != 0 }
    }
    fn now_ns(&self) -> u64 {
        // SAFETY: ktime_get_mono_fast_ns can be called in any context.
        unsafe { ffi::lpb_now_ns() }
    }
    fn symbol(&self, addr: u64, out: &mut [u8]) -> usize {
        // SAFETY: at most `out.len()` bytes are written.
        unsafe { ffi::lpb_symbol(addr, out.as_mut_ptr(), out.len()) }
    }
    fn log(&self, level: Level, line: &[u8]) {
        // SAFETY: `line` is readable for its length.
        unsafe { ffi::lpb_log(level as c_int, line.as_ptr(), line.len()) };
    }
    fn map(&self, addr: u64, len: usize) -> Option<Alias> {
        // SAFETY: any address: what is not backed by a page is refused with 0.
        let alias = unsafe { ffi::lpb_map(addr, len) };
        (alias != 0).then_some(Alias(alias))
    }
    fn unmap(&self, alias: Alias) {
        // SAFETY: an `Alias` is only made by `map`, and only the owner of the sites gives it back.
        unsafe { ffi::lpb_unmap(alias.0) };
    }
    fn write(&self, alias: Alias, offset: usize, bytes: &[u8]) {
        let to = (alias.0 as *mut u8).wrapping_add(offset);
        for (i, &b) in bytes.iter().enumerate() {
            // SAFETY: the alias spans what it was asked for, and writes are only inside that. Volatile single bytes: each store
            // is seen whole, in this order (x86 keeps stores in order).
            unsafe { ptr::write_volatile(to.wrapping_add(i), b) };
        }
    }
    fn change(&self, alias: Alias, bytes: &[u8]) {
        let to = alias.0 as *mut u8;
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = to.wrapping_add(bytes.len() - rest.len());
            match rest.split_first_chunk::<8>().filter(|_| (at as usize).is_multiple_of(8)) {
                Some((word, behind)) => {
                    // SAFETY: the alias spans what it was asked for; the place is aligned.
                    unsafe { ptr::write_volatile(at.cast::<u64>(), u64::from_le_bytes(*word)) };
                    rest = behind;
                }
                None => {
                    // SAFETY: as above.
                    unsafe { ptr::write_volatile(at, rest.first().copied().unwrap_or(0)) };
                    rest = rest.get(1..).unwrap_or(&[]);
                }
            }
        }
    }
    fn serialize(&self) {
        // SAFETY: sync_core can be called in any context.
        unsafe { ffi::lpb_sync_core() };
    }
    fn serialize_all(&self) {
        // SAFETY: called by the kernel thread only, with interrupts on.
        unsafe { ffi::lpb_sync_core_all() };
    }
    fn module(&self, name: &[u8]) -> Option<usize> {
        let mut whole = 0;
        // SAFETY: the name is only compared; under the lock of the steps.
        let found = unsafe { ffi::lpb_find_module(name.as_ptr(), name.len(), &mut whole) };
        (found != 0 && whole != 0).then_some(found)
    }
    fn module_symbol(&self, module: usize, name: &[u8], position: u32, count: u32) -> Option<u64> {
        // SAFETY: the module stays while the lock of the steps is held; the name is only compared.
        let found = unsafe { ffi::lpb_module_symbol(module, name.as_ptr(), name.len(), position, count) };
        (found != 0).then_some(found)
    }
    fn module_region(&self, module: usize, region: Region) -> (u64, u64) {
        let (mut start, mut len) = (0, 0);
        // SAFETY: the module stays while the lock of the steps is held; both numbers are writable.
        unsafe { ffi::lpb_module_region(module, region as c_int, &mut start, &mut len) };
        (start, len)
    }
    fn synchronize(&self) {
        // SAFETY: called where one may sleep.
        unsafe { ffi::lpb_synchronize() };
    }

    fn online_cpus(&self) -> usize {
        // SAFETY: reads a counter; the hotplug lock is held.
        unsafe { ffi::lpb_online_cpus() }
    }
    fn this_cpu(&self) -> usize {
        // SAFETY: called with interrupts off.
        unsafe { ffi::lpb_this_cpu() }
    }
    fn current(&self) -> usize {
        // SAFETY: reads a per-CPU variable.
        unsafe { ffi::lpb_current() }
    }
    fn stop<F: Fn() + Sync>(&self, f: &F) -> bool {
        // SAFETY: `on_cpu::<F>` matches the type behind the pointer; `f` outlives the call, which returns when every
        // CPU has left the callback. The kernel thread holds the hotplug lock.
        unsafe { ffi::lpb_stop(on_cpu::<F>, ptr::from_ref(f).cast_mut().cast()) == 0 }
    }
    fn relax(&self) {
        // SAFETY: pause, and stores to per-CPU watchdog state.
        unsafe { ffi::lpb_relax() };
    }
    fn for_each_task<F: FnMut(TaskRef)>(&self, mut f: F) {
        // SAFETY: `on_task::<F>` matches the type behind the pointer, which lives until the call returns. Only used
        // while the machine is stopped, so the task list does not change.
        unsafe { ffi::lpb_for_each_task(on_task::<F>, ptr::from_mut(&mut f).cast()) };
    }
    fn task_id(&self, task: TaskRef) -> usize {
        task.0 as usize
    }
    fn task_cpu(&self, task: TaskRef) -> usize {
        // SAFETY: a `TaskRef` points to a task while the machine is stopped.
        unsafe { ffi::lpb_task_cpu(task.0) }
    }
    fn is_operator(&self, task: TaskRef) -> bool {
        // SAFETY: only compares the pointer.
        unsafe { ffi::lpb_is_operator(task.0) != 0 }
    }
    fn stack(&self, task: TaskRef, frames: &mut [u64]) -> Result<usize, Unreliable> {
        // SAFETY: the task exists and is not running (running tasks are left out by their seat); at most
        // `frames.len()` entries are written.
        let n = unsafe { ffi::lpb_stack(task.0, frames.as_mut_ptr(), frames.len()) };
        usize::try_from(n).map_err(|_| Unreliable::Unwind)
    }
    fn who(&self, task: TaskRef) -> Who {
        let mut who = Who::default();
        // SAFETY: the task exists; `who` is writable and has the layout of `struct lpb_who`.
        unsafe { ffi::lpb_who(task.0, &mut who) };
        who
    }

    fn allocate(&self, bytes: usize) -> Option<*mut u8> {
        // SAFETY: called by the operating thread, which may sleep; zeroed, and aligned as kvmalloc aligns.
        let memory = unsafe { ffi::lpb_alloc(bytes) }.cast::<u8>();
        (!memory.is_null()).then_some(memory)
    }
    fn free(&self, memory: *mut u8) {
        // SAFETY: from `allocate`.
        unsafe { ffi::lpb_free(memory.cast()) };
    }
    fn count_tasks(&self) -> usize {
        // SAFETY: walks the task list under RCU.
        unsafe { ffi::lpb_count_tasks() }
    }
    fn census<F: FnMut(TaskRef), L: FnOnce()>(&self, mut f: F, last: L) {
        let mut last = Some(last);
        let (data, last_data) = (ptr::from_mut(&mut f).cast(), ptr::from_mut(&mut last).cast());
        // SAFETY: both functions match the types behind the pointers, which live until the call returns.
        unsafe { ffi::lpb_census(on_task::<F>, data, at_last::<L>, last_data) };
    }
    fn hold(&self, task: usize) {
        // SAFETY: the caller has the task from the locked task list, or is the task.
        unsafe { ffi::lpb_hold(task as *mut ffi::Task) };
    }
    fn release(&self, task: usize) {
        // SAFETY: held by `hold`.
        unsafe { ffi::lpb_release(task as *mut ffi::Task) };
    }
    fn held(&self, task: usize) -> TaskRef {
        TaskRef(task as *mut ffi::Task)
    }
    fn look<F: FnMut(View<'_>)>(&self, task: usize, frames: &mut [u64], mut f: F) -> Seen {
        let data = ptr::from_mut(&mut f).cast();
        // SAFETY: the task is held, the hotplug lock too; `on_view::<F>` matches the type behind the pointer, and at most
        // `frames.len()` entries are written.
        let seen =
            unsafe { ffi::lpb_look(task as *mut ffi::Task, frames.as_mut_ptr(), frames.len(), on_view::<F>, data) };
        match seen {
            0 => Seen::Looked,
            1 => Seen::Running,
            2 => Seen::Dead,
            _ => Seen::Offline,
        }
    }
    fn rest(&self, task: usize, frames: &mut [u64]) -> Rest {
        let mut count = 0;
        // SAFETY: the task is held, the hotplug lock too; at most `frames.len()` entries are written.
        let rests =
            unsafe { ffi::lpb_rests(task as *mut ffi::Task, frames.as_mut_ptr(), frames.len(), &mut count) != 0 };
        if rests { Rest::Rests } else { Rest::Works(count.max(1)) }
    }
    fn send_to_boundary(&self, task: usize, work: *mut Work, urgent: bool) -> bool {
        // SAFETY: the task is held; `work` stays until it was called or recalled.
        unsafe { ffi::lpb_send(task as *mut ffi::Task, work, c_int::from(urgent)) == 0 }
    }
    fn recall(&self, task: usize, work: *mut Work) -> bool {
        // SAFETY: the task is held; `work` is only compared.
        unsafe { ffi::lpb_recall(task as *mut ffi::Task, work) != 0 }
    }
    fn nudge(&self, task: usize) {
        // SAFETY: the task is held.
        unsafe { ffi::lpb_nudge(task as *mut ffi::Task) };
    }
    fn breathe(&self) {
        // SAFETY: the operating thread holds no spinlock here.
        unsafe { ffi::lpb_breathe() };
    }
}
