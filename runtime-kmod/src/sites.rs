//! The sites of one patch in the kernel, and the memory they are in; with those in modules they make a [`SiteSet`].
//!
//! Input: the records and the patches below. Output: the sites, in the order of the functions; behind them those that only a replaced
//! patch has. Refused: no memory, a function out of reach, what [`Layers::lay`] refuses, sites that do not hold what they should.
//!
//! The int3 handler reads the sites on every CPU and in any context, and patches on top read them as well. So they do not change
//! once they are made: what they are when replaced patches are gone is made beforehand, and takes the place of the first in one store.

use core::{
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst},
};

use crate::{
    kernel::{Guard, Kernel},
    layers::{Layers, Peer},
    record::{Patch, site_addr},
    refusal::Refusal,
    site::{self, Route, Site},
};

/// The sites of the functions of one module: there, or not.
#[derive(Debug)]
pub struct Shown<A> {
    at: AtomicPtr<Site<A>>,
    len: AtomicUsize,
    /// Their int3s are diverted, whatever is done with the others.
    armed: AtomicBool,
}

impl<A> Shown<A> {
    /// None.
    pub const fn new() -> Self {
        Self { at: AtomicPtr::new(ptr::null_mut()), len: AtomicUsize::new(0), armed: AtomicBool::new(false) }
    }
    /// Whether hits on their int3s are diverted.
    pub fn arm(&self, armed: bool) {
        self.armed.store(armed, SeqCst);
    }
    /// Those that are there.
    pub fn get(&self) -> &[Site<A>] {
        let at = self.at.load(SeqCst);
        if at.is_null() {
            return &[];
        }
        // SAFETY: made, and not changed before everybody who has seen them has gone; the length was there before.
        unsafe { slice::from_raw_parts(at, self.len.load(SeqCst)) }
    }
    /// From now on they are seen.
    ///
    /// # Safety
    /// `at` is the address of `len` sites, which stay, and are written again only when they are hidden and nobody can look at them any
    /// more ([`Kernel::synchronize`]). It is always the same, as is `len`.
    pub unsafe fn show(&self, at: *mut Site<A>, len: usize) {
        self.len.store(len, SeqCst);
        self.at.store(at, SeqCst);
    }
    /// They are seen no more.
    pub fn hide(&self) {
        self.at.store(ptr::null_mut(), SeqCst);
    }
}

impl<A> Default for Shown<A> {
    fn default() -> Self {
        Self::new()
    }
}

/// All sites of a patch: its own in the kernel, and those in modules that are here. These come and go, but not during a step.
#[derive(Debug)]
pub struct SiteSet<'a, A> {
    own: &'a [Site<A>],
    parts: &'a [Shown<A>],
}

impl<A> Clone for SiteSet<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for SiteSet<'_, A> {}

impl<'a, A> SiteSet<'a, A> {
    /// Both together.
    pub const fn new(own: &'a [Site<A>], parts: &'a [Shown<A>]) -> Self {
        Self { own, parts }
    }
    /// All that are there.
    pub fn iter(self) -> Iter<'a, A> {
        Iter { sites: self.own.iter(), parts: self.parts.iter() }
    }
    /// The one at an address, and whether its module is going.
    pub fn at(self, addr: u64) -> Option<(&'a Site<A>, bool)> {
        let there = |sites: &'a [Site<A>]| sites.iter().find(|s| s.addr == addr);
        let own = there(self.own).map(|s| (s, false));
        own.or_else(|| self.parts.iter().find_map(|p| there(p.get()).map(|s| (s, p.armed.load(SeqCst)))))
    }
    /// Those in the kernel.
    pub fn own(self) -> &'a [Site<A>] {
        self.own
    }
}

/// What [`SiteSet::iter`] gives. A chain of slices is the same, and 2 KB more in the two dozen loops over it.
#[derive(Debug)]
pub struct Iter<'a, A> {
    sites: slice::Iter<'a, Site<A>>,
    parts: slice::Iter<'a, Shown<A>>,
}

impl<A> Clone for Iter<'_, A> {
    fn clone(&self) -> Self {
        Self { sites: self.sites.clone(), parts: self.parts.clone() }
    }
}

impl<'a, A> Iterator for Iter<'a, A> {
    type Item = &'a Site<A>;

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(site) = self.sites.next() {
                return Some(site);
            }
            self.sites = self.parts.next()?.get().iter();
        }
    }
}

/// The sites.
#[derive(Debug)]
pub struct Sites<A> {
    now: AtomicPtr<Site<A>>,
    /// Of those in `now`; where the pointer changes, after this.
    len: AtomicUsize,
    /// As many of the first are this patch's own, and their aliases too.
    own: AtomicUsize,
    /// Both pieces of memory.
    first: AtomicPtr<Site<A>>,
    later: AtomicPtr<Site<A>>,
}

impl<A> Sites<A> {
    /// None.
    pub const fn new() -> Self {
        const { assert!(align_of::<Site<u64>>() <= 8, "as memory of `Kernel::allocate` is") };
        Self {
            now: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            first: AtomicPtr::new(ptr::null_mut()),
            later: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// All that are in use.
    pub fn all(&self) -> &[Site<A>] {
        let now = self.now.load(SeqCst);
        // Behind the pointer: the later sites are not more than the first, and their number is stored before.
        let n = self.len.load(SeqCst);
        if now.is_null() {
            return &[];
        }
        // SAFETY: that many are made, and do not change; `clear` has its own contract.
        unsafe { slice::from_raw_parts(now, n) }
    }
    /// Those of the patch's own functions.
    pub fn own(&self) -> &[Site<A>] {
        self.all().get(..self.own.load(SeqCst)).unwrap_or(&[])
    }

    /// The replaced patches are gone: only the own ones, as they were made for this.
    pub fn use_later(&self) {
        let later = self.later.load(SeqCst);
        if !later.is_null() {
            self.len.store(self.own.load(SeqCst), SeqCst);
            self.now.store(later, SeqCst);
        }
    }

    fn room<K: Kernel>(k: &K, n: usize, at: &AtomicPtr<Site<A>>) -> Result<*mut Site<A>, Refusal> {
        let memory = k.allocate(n * size_of::<Site<A>>()).ok_or(Refusal::NoMemory)?.cast::<Site<A>>();
        at.store(memory, SeqCst);
        Ok(memory)
    }
}

impl<A: Copy> Sites<A> {
    /// Everything before the first operation: takes hold of the patches below, makes the sites, lays them over those below, and
    /// compares them with what is there. Whatever comes of it, [`Sites::clear`] gives back what was had, but for the patches held.
    ///
    /// Called once, while nobody knows the sites.
    pub fn prepare<'p, K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        layers: &mut Layers<'p, A>,
        hold: impl FnMut(usize) -> Result<Peer<'p, A>, Refusal>,
    ) -> Result<(), Refusal> {
        layers.take(k, patch, hold)?;
        self.make(k, patch, layers)?;
        site::check(k, SiteSet::new(self.all(), &[]).iter(), Route::Original)
    }

    fn make<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, layers: &Layers<'_, A>) -> Result<(), Refusal> {
        let own = patch.kernel_funcs().len();
        let dropped = || layers.replaced().filter(|d| !patch.kernel_funcs().iter().any(|f| site_addr(f) == d.addr));
        let all = own + dropped().count();
        let memory = Self::room(k, all, &self.first)?;
        for (i, f) in patch.kernel_funcs().iter().enumerate() {
            let addr = site_addr(f);
            let alias = k.map(addr, usize::from(f.site_size)).ok_or(Refusal::NoMemory)?;
            let made = site::site(patch, i, addr, alias).and_then(|mut s| layers.lay(k, patch, i, &mut s).map(|()| s));
            match made {
                // SAFETY: there is room for `all` of them.
                Ok(s) => unsafe { memory.add(i).write(s) },
                Err(why) => {
                    k.unmap(alias);
                    return Err(why);
                }
            }
            // So that `clear` finds the alias, whatever fails from here on.
            self.own.store(i + 1, SeqCst);
        }
        for (i, d) in dropped().enumerate() {
            // SAFETY: as above.
            unsafe { memory.add(own + i).write(Site { func: patch.funcs.len() + i, ..d.drop_to_original() }) };
        }
        self.len.store(all, SeqCst);
        self.now.store(memory, SeqCst);
        if layers.replaced().next().is_none() {
            return Ok(());
        }
        let memory = Self::room(k, own, &self.later)?;
        for (i, s) in self.own().iter().enumerate() {
            let gone = layers.beneath(s.addr, s.bytes(Route::Original)).gone;
            let gone = gone.filter(|_| k.guard(Guard::ComeBackToTheRest));
            // SAFETY: there is room for all of the own ones.
            unsafe { memory.add(i).write(s.come_back_to(gone)) };
        }
        Ok(())
    }

    /// Gives aliases and memory back.
    ///
    /// # Safety
    /// Nobody refers to a site any more.
    pub unsafe fn clear<K: Kernel<Alias = A>>(&self, k: &K) {
        self.now.store(ptr::null_mut(), SeqCst);
        self.len.store(0, SeqCst);
        let first = self.first.load(SeqCst);
        for i in 0..self.own.swap(0, SeqCst) {
            // SAFETY: that many were made.
            k.unmap(unsafe { (*first.add(i)).alias });
        }
        for memory in [&self.first, &self.later] {
            let memory = memory.swap(ptr::null_mut(), SeqCst);
            if !memory.is_null() {
                k.free(memory.cast());
            }
        }
    }
}

impl<A> Default for Sites<A> {
    fn default() -> Self {
        Self::new()
    }
}
