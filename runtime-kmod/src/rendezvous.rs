//! All CPUs in one place with interrupts off, and steps they take together.
//!
//! `stop_machine` runs a function on every CPU but has no steps inside it. Here the first CPU to arrive becomes the
//! primary and does the work; the others wait, and serialise (drop prefetched and decoded instructions) whenever the
//! primary asks. A CPU answers from its own context, so by then every NMI that interrupted it before has returned.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::kernel::Kernel;

/// How long the primary waits for the others to arrive, or to answer while the step can still be taken back.
/// With interrupts off everywhere only firmware or a hypervisor can keep a CPU away; one second is a generous pause.
pub const PATIENCE_NS: u64 = 1_000_000_000;

/// Value of `phase` that sends everyone home.
const OVER: usize = usize::MAX;

/// The meeting; `T` is what the primary works on.
pub struct Rendezvous<'a, T> {
    cpus: usize,
    seats: &'a [AtomicUsize],
    tickets: AtomicUsize,
    arrived: AtomicUsize,
    phase: AtomicUsize,
    answers: AtomicUsize,
    work: UnsafeCell<T>,
}

// SAFETY: `work` is touched only by the one CPU that drew ticket 0, and by the owner after everyone has left
// (`finish` takes `self`); everything else is atomic.
unsafe impl<T: Send> Sync for Rendezvous<'_, T> {}

impl<T> core::fmt::Debug for Rendezvous<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Rendezvous")
    }
}

impl<'a, T> Rendezvous<'a, T> {
    /// A meeting of `cpus` CPUs. `seats` (one per possible CPU) receives who represents each of them.
    pub fn new(cpus: usize, seats: &'a [AtomicUsize], work: T) -> Self {
        for s in seats {
            s.store(0, SeqCst);
        }
        let zero = || AtomicUsize::new(0);
        Self {
            cpus,
            seats,
            tickets: zero(),
            arrived: zero(),
            phase: zero(),
            answers: zero(),
            work: UnsafeCell::new(work),
        }
    }

    /// Called once by every CPU. One of them runs `primary` while the others wait; none leaves before it has ended.
    pub fn enter<K: Kernel>(&self, k: &K, primary: impl FnOnce(&mut T, &Lockstep<'_, 'a, K, T>)) {
        let first = self.tickets.fetch_add(1, SeqCst) == 0;
        if let Some(seat) = self.seats.get(k.this_cpu()) {
            seat.store(k.current(), SeqCst);
        }
        self.arrived.fetch_add(1, SeqCst);
        if !first {
            return self.follow(k);
        }
        let lockstep = Lockstep { k, meeting: self };
        if lockstep.wait(&self.arrived, self.cpus, Some(PATIENCE_NS)) {
            // SAFETY: only the holder of ticket 0 comes here, once, and `finish` needs ownership.
            primary(unsafe { &mut *self.work.get() }, &lockstep);
        }
        // Everyone serialises on the way out, so the last write needs no step of its own.
        self.phase.store(OVER, SeqCst);
        k.serialize();
    }

    /// The work, after the stop.
    pub fn finish(self) -> T {
        self.work.into_inner()
    }

    fn follow<K: Kernel>(&self, k: &K) {
        let mut seen = 0;
        loop {
            let phase = self.phase.load(SeqCst);
            if phase == OVER {
                // Whatever was written last is seen by this CPU from its next instruction on.
                return k.serialize();
            }
            if phase != seen {
                seen = phase;
                k.serialize();
                self.answers.fetch_add(1, SeqCst);
            }
            k.relax();
        }
    }
}

/// The primary's means to make all CPUs take a step.
pub struct Lockstep<'m, 'a, K: Kernel, T> {
    k: &'m K,
    meeting: &'m Rendezvous<'a, T>,
}

impl<K: Kernel, T> core::fmt::Debug for Lockstep<'_, '_, K, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Lockstep")
    }
}

impl<K: Kernel, T> Lockstep<'_, '_, K, T> {
    /// Every CPU executes a serialising instruction. `false`: one did not within [`PATIENCE_NS`]; take the step back.
    #[must_use]
    pub fn serialize_or_give_up(&self) -> bool {
        self.ask(Some(PATIENCE_NS))
    }

    /// The same past the point of no return. Every CPU has answered the step before, microseconds ago and with
    /// interrupts off; one that died since would keep `stop_machine` itself from ever ending
    /// (`multi_cpu_stop`, kernel/stop_machine.c).
    pub fn serialize(&self) {
        self.ask(None);
    }

    fn ask(&self, patience: Option<u64>) -> bool {
        self.meeting.answers.store(0, SeqCst);
        self.meeting.phase.fetch_add(1, SeqCst);
        self.k.serialize();
        self.wait(&self.meeting.answers, self.meeting.cpus - 1, patience)
    }

    fn wait(&self, counter: &AtomicUsize, until: usize, patience: Option<u64>) -> bool {
        let start = self.k.now_ns();
        while counter.load(SeqCst) < until {
            if patience.is_some_and(|p| self.k.now_ns().saturating_sub(start) > p) {
                return false;
            }
            self.k.relax();
        }
        true
    }
}
