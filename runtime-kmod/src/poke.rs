//! Changing the code at the sites while everybody may be running it.
//!
//! int3 first, all CPUs serialise, the tail, all CPUs serialise, the first byte, all CPUs serialise: at every moment a CPU
//! sees the old instructions, an int3 or the new ones, NMIs included (Intel SDM volume 3, "Cross-Modifying Code"; the
//! kernel's own `text_poke_bp_batch`, arch/x86/kernel/alternative.c, does the same). Whoever hits the int3 is diverted.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::{
    kernel::{Guard, Kernel},
    site::{INT3, Route},
    sites::SiteSet,
};

/// The sites of a patch. `text_mutex` is held.
#[derive(Debug)]
pub struct Poke<'p, K: Kernel> {
    /// The kernel.
    pub k: &'p K,
    /// All of them; they have been compared under the same `text_mutex`.
    pub sites: SiteSet<'p, K::Alias>,
    /// What the int3 handler looks at.
    pub armed: &'p AtomicBool,
}

impl<K: Kernel> Poke<'_, K> {
    /// int3 on every site, seen by every CPU.
    ///
    /// Diverting begins here and not earlier: until the sites have been compared, an int3 at one of them is that of
    /// another patch of the same function, and whoever hits it must not get into code that may be refused and freed.
    pub fn trap(&self) {
        self.int3();
        if self.k.guard(Guard::Int3Seen) {
            self.k.serialize_all();
        }
    }

    /// From int3 to the bytes of a route. Nobody is behind the first byte of a site.
    pub fn complete(&self, route: Route) {
        self.tails(route);
        if self.k.guard(Guard::TailSeen) {
            self.k.serialize_all();
        }
        self.first_bytes(route);
        self.disarm();
    }

    /// Late hits on an int3 that is already gone are sent back to the site, see [`crate::site::divert`].
    pub fn disarm(&self) {
        if self.k.guard(Guard::LateHits) {
            self.k.serialize_all();
        }
        self.armed.store(false, SeqCst);
    }

    /// Writes the int3s.
    pub fn int3(&self) {
        self.armed.store(true, SeqCst);
        if !self.k.guard(Guard::Int3First) {
            return;
        }
        for s in self.sites.iter() {
            self.k.write(s.alias, 0, &[INT3]);
        }
    }
    /// Writes everything behind the first bytes.
    pub fn tails(&self, route: Route) {
        for s in self.sites.iter() {
            self.k.write(s.alias, 1, s.bytes(route).get(1..).unwrap_or(&[]));
        }
    }
    /// Writes the first bytes.
    pub fn first_bytes(&self, route: Route) {
        for s in self.sites.iter() {
            self.k.write(s.alias, 0, s.bytes(route).get(..1).unwrap_or(&[]));
        }
    }
}
