//! Functions that can stop in the middle and go on later, each on a stack of its own.
//!
//! So the real code of the runtime can be interrupted at every call of the [`lpbuild_runtime::kernel::Kernel`], preempted for as
//! long as the schedule likes, and given up, all in one thread and in an order that depends on the seed alone.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

const STACK: usize = 128 * 1024;

std::arch::global_asm!(
    // lpbuild_model_switch(save: rdi, to: rsi): what a callee has to keep goes on the stack, then the stack is changed.
    ".pushsection .text",
    ".globl lpbuild_model_switch",
    "lpbuild_model_switch:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".globl lpbuild_model_start",
    "lpbuild_model_start:",
    "mov rdi, r12",
    "call r13",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    fn lpbuild_model_switch(save: *mut usize, to: usize);
    fn lpbuild_model_start();
}

thread_local! {
    static RUNNING: Cell<*mut Inner> = const { Cell::new(ptr::null_mut()) };
    static POOL: RefCell<Vec<Box<[u128]>>> = const { RefCell::new(Vec::new()) };
}

struct Inner {
    sp: usize,
    resumer: usize,
    done: bool,
    panic: Option<Box<dyn Any + Send>>,
    body: Option<Box<dyn FnOnce()>>,
    stack: Option<Box<[u128]>>,
}

/// One of them. When it is dropped before its end, what is on its stack is forgotten.
pub struct Coroutine(Box<Inner>);

impl std::fmt::Debug for Coroutine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coroutine")
    }
}

unsafe extern "C" fn main(inner: *mut Inner) {
    // SAFETY: `resume` keeps the coroutine alive while it runs, and touches it only while it does not.
    unsafe {
        if let Some(body) = (*inner).body.take()
            && let Err(why) = catch_unwind(AssertUnwindSafe(body))
        {
            (*inner).panic = Some(why);
        }
        (*inner).done = true;
        let mut nowhere = 0;
        lpbuild_model_switch(&raw mut nowhere, (*inner).resumer);
    }
}

impl Coroutine {
    /// # Safety
    /// Whatever `body` refers to lives until the coroutine has ended or is dropped.
    pub unsafe fn new<'a>(body: impl FnOnce() + 'a) -> Self {
        let body: Box<dyn FnOnce() + 'a> = Box::new(body);
        // SAFETY: only the lifetime changes; the caller vouches for it.
        let body: Box<dyn FnOnce() + 'static> = unsafe { std::mem::transmute(body) };
        let mut stack = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0u128; STACK / 16].into_boxed_slice());
        let top = stack.as_mut_ptr_range().end as usize;
        let mut inner = Box::new(Inner { sp: 0, resumer: 0, done: false, panic: None, body: Some(body), stack: None });
        // r15, r14, r13, r12, rbx, rbp, where to return to, and one word so that the stack is aligned there.
        let at = top - 9 * 8;
        let start: [usize; 8] = [
            0,
            0,
            main as *const () as usize,
            &raw mut *inner as usize,
            0,
            0,
            lpbuild_model_start as *const () as usize,
            0,
        ];
        // SAFETY: inside the stack just made.
        unsafe { ptr::with_exposed_provenance_mut::<[usize; 8]>(at).write(start) };
        inner.sp = at;
        inner.stack = Some(stack);
        Self(inner)
    }

    /// Whether it has run at all.
    pub fn begun(&self) -> bool {
        self.0.body.is_none()
    }

    /// Runs it until it pauses or ends; `true`: it has ended.
    pub fn resume(&mut self) -> bool {
        let inner = &raw mut *self.0;
        assert!(RUNNING.get().is_null() && !self.0.done, "one at a time, and none twice");
        RUNNING.set(inner);
        // SAFETY: `sp` is where it paused, on its own stack; this thread runs nothing else meanwhile.
        unsafe { lpbuild_model_switch(&raw mut (*inner).resumer, (*inner).sp) };
        RUNNING.set(ptr::null_mut());
        if let Some(why) = self.0.panic.take() {
            std::panic::resume_unwind(why);
        }
        self.0.done
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        if let Some(stack) = self.0.stack.take() {
            POOL.with_borrow_mut(|p| p.push(stack));
        }
    }
}

/// Back to whoever resumed this coroutine; nothing outside of one.
pub fn pause() {
    let inner = RUNNING.get();
    if !inner.is_null() {
        // SAFETY: the coroutine that is running is this one; its resumer waits in `resume`.
        unsafe { lpbuild_model_switch(&raw mut (*inner).sp, (*inner).resumer) };
    }
}
