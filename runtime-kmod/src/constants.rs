//! Constants of the kernel that get another content in their place: whoever has the address of one, old code included, reads it there.
//!
//! Nothing can be sent to another version of data task by task, so what is kept is an order. The new content is written when nobody runs old
//! code any more and nobody can enter it, and goes before anybody can run that again: old code never meets it. New code meets the
//! old content while an operation is under way, but in `stop-machine`, where both change in the same stop.
//!
//! It is always written while the machine is stopped, so that no CPU is in the middle of reading. A task that was preempted, or sleeps, between
//! two reads has the first from before and the second from behind; an NMI may come in the middle of the writing, and sees each aligned eight
//! bytes whole. Compared in the same stop: what somebody else has written there is never overwritten.

use core::{
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst},
};

use crate::{
    kernel::{Guard, Kernel},
    record::Patch,
    refusal::Refusal,
    rendezvous::Rendezvous,
};

/// Bytes compared at a time.
const CHUNK: usize = 64;

/// The constants of one patch: writable views of them, and which content is there.
#[derive(Debug)]
pub struct Constants<A> {
    views: AtomicPtr<A>,
    made: AtomicUsize,
    new: AtomicBool,
}

impl<A> Constants<A> {
    /// None.
    pub const fn new() -> Self {
        const { assert!(align_of::<A>() <= 8, "as memory of `Kernel::allocate` is") };
        Self { views: AtomicPtr::new(ptr::null_mut()), made: AtomicUsize::new(0), new: AtomicBool::new(false) }
    }
    /// Whether the content of the patch is there.
    pub fn is_new(&self) -> bool {
        self.new.load(SeqCst)
    }
}

impl<A: Copy + Sync> Constants<A> {
    /// Makes the views, and compares what is there with what is expected. Whatever comes of it, [`Constants::clear`] gives back
    /// what was had.
    ///
    /// # Errors
    /// No memory, another content.
    pub fn prepare<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>) -> Result<(), Refusal> {
        if patch.data.is_empty() {
            return Ok(());
        }
        let views = k.allocate(size_of::<A>() * patch.data.len());
        let views = views.ok_or(Refusal::NoMemory)?.cast::<A>();
        self.views.store(views, SeqCst);
        for (i, d) in patch.data.iter().enumerate() {
            let view = k.map(d.addr, d.len as usize).ok_or(Refusal::NoMemory)?;
            // SAFETY: there is room for all of them.
            unsafe { views.add(i).write(view) };
            self.made.store(i + 1, SeqCst);
        }
        self.check(k, patch)
    }

    /// Whether each holds what was left there.
    ///
    /// # Errors
    /// Somebody else has changed one.
    pub fn check<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>) -> Result<(), Refusal> {
        if !k.guard(Guard::CheckData) {
            return Ok(());
        }
        for (data, d) in patch.data.iter().enumerate() {
            let (old, new) = patch.contents(data);
            let want = if self.is_new() { new } else { old };
            for (at, piece) in (d.addr..).step_by(CHUNK).zip(want.chunks(CHUNK)) {
                let mut now = [0u8; CHUNK];
                let now = now.get_mut(..piece.len()).unwrap_or_default();
                if !k.read(at, now) || now != piece {
                    return Err(Refusal::DataAltered { data });
                }
            }
        }
        Ok(())
    }

    /// The other content, if it is not there. The machine is stopped.
    ///
    /// # Errors
    /// As of [`Constants::check`]; nothing is written.
    pub fn change_stopped<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, new: bool) -> Result<(), Refusal> {
        if self.is_new() == new || patch.data.is_empty() {
            return Ok(());
        }
        self.check(k, patch)?;
        let views = self.views.load(SeqCst);
        for i in 0..self.made.load(SeqCst) {
            let (without, with) = patch.contents(i);
            // SAFETY: that many were made.
            k.change(unsafe { *views.add(i) }, if new { with } else { without });
        }
        self.new.store(new, SeqCst);
        Ok(())
    }

    /// The same in a stop of its own.
    ///
    /// # Errors
    /// As of [`Constants::check`], and a stop that some CPU did not come to.
    pub fn change<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        seats: &[AtomicUsize],
        new: bool,
    ) -> Result<(), Refusal> {
        if self.is_new() == new || patch.data.is_empty() {
            return Ok(());
        }
        let meeting = Rendezvous::new(k.online_cpus(), seats, Err(Refusal::CpusMissing));
        let ran = k.stop(&|| meeting.enter(k, |result, _| *result = self.change_stopped(k, patch, new)));
        let result = meeting.finish();
        if ran { result } else { Err(Refusal::CpusMissing) }
    }

    /// Gives views and memory back.
    pub fn clear<K: Kernel<Alias = A>>(&self, k: &K) {
        let views = self.views.swap(ptr::null_mut(), SeqCst);
        for i in 0..self.made.swap(0, SeqCst) {
            // SAFETY: that many were made.
            k.unmap(unsafe { *views.add(i) });
        }
        if !views.is_null() {
            k.free(views.cast());
        }
    }
}

impl<A> Default for Constants<A> {
    fn default() -> Self {
        Self::new()
    }
}
