//! What lies below a site: the patches this one lies on or takes the place of, and under them the kernel.
//!
//! Input: the patches named in `after` and `replaces`, the bytes at a site. Output: [`Beneath`]; jumps in the patch's own code that
//! lead to what is below. Refused: a patch in whose place this one would come without holding what that lies on (LP5019), or that has functions in modules (LP5032), a
//! site that does not fit on the one below (LP5006), a patch below that would call its own function all the same (LP5027). A jump of somebody else is found by the check of the sites.
//!
//! Sites in a module are laid over those of patches below whenever it comes ([`Layers::lay_in`]). The part of a patch below has joined then,
//! and leaves behind this one's: patches are told of a module that comes from the lowest up, and of one that goes from the uppermost down.
//! So where the module is looked at, what a patch below has of it does not change.
//!
//! The order is in the bytes: the uppermost is the one whose jump is there now, and what that one gives back is the jump of the
//! next. It cannot change while this patch is there. A patch below is held, so it is neither reverted (LP5020) nor replaced by a
//! third (LP5019), and one whose place this one takes lies on nothing that this one does not hold as well.

use core::{
    slice,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use lpbuild_abi::{DISPATCH_LEN, FuncRecord, MAX_SITE};

use crate::{
    board::Board,
    bypass, holders,
    kernel::{Guard, Kernel},
    record::{MAX_OTHERS, Patch, site_addr},
    refusal::Refusal,
    reroute,
    site::{Route, Site},
    sites::{Shown, Sites},
    switch::Other,
};

/// As many as a patch can name.
const MOST: usize = 2 * MAX_OTHERS as usize;

/// A site of a patch below.
#[derive(Debug)]
pub struct Layer<'l, A> {
    /// The site.
    pub site: &'l Site<A>,
    /// Its patch goes when this one is applied.
    pub replaced: bool,
}

/// What this patch finds at a site.
#[derive(Debug)]
pub struct Beneath<'l, A> {
    /// The uppermost: whoever runs the old version of the function runs this one's.
    pub top: Option<&'l Site<A>>,
    /// The uppermost that stays. To it leads `lp_original_NAME`: it is what would run if this patch had not come and those it
    /// replaces were gone. `None`: the kernel's function.
    pub original: Option<&'l Site<A>>,
    /// The bytes that the site comes back to when those that are replaced are gone.
    pub rest: &'l [u8],
    /// The lowest of those that are replaced: what it has found is there then.
    pub gone: Option<&'l Site<A>>,
}

/// Follows the jumps from the one that is there `now` down. Each layer is met at most once, whatever damaged ones say.
pub fn beneath<'l, A: 'l, I>(addr: u64, now: &'l [u8], layers: impl Fn() -> I) -> Beneath<'l, A>
where
    I: Iterator<Item = Layer<'l, A>>,
{
    let mut found = Beneath { top: None, original: None, rest: now, gone: None };
    for _ in layers() {
        let Some(layer) = layers().find(|l| l.site.addr == addr && l.site.applied(found.rest).is_some()) else {
            break;
        };
        found.top = found.top.or(Some(layer.site));
        if !layer.replaced {
            found.original = Some(layer.site);
            break;
        }
        found.rest = layer.site.bytes(Route::Original);
        found.gone = Some(layer.site);
    }
    found
}

/// A patch that is there already, as it shows itself.
#[derive(Debug)]
pub struct Peer<'p, A> {
    /// Its records.
    pub patch: Patch<'p>,
    /// Its sites in the kernel.
    pub sites: &'p Sites<A>,
    /// Those in each module that it has functions of.
    pub shown: &'p [Shown<A>],
    /// What its dispatchers look at.
    pub board: &'p Board,
}

/// The patches that one lies on or takes the place of, held until it has left. Those that stay come first.
#[derive(Debug)]
pub struct Layers<'p, A> {
    sites: [&'p [Site<A>]; MOST],
    shown: [&'p [Shown<A>]; MOST],
    patches: [Option<Patch<'p>>; MOST],
    others: [Other<'p>; MOST],
    n: AtomicUsize,
}

impl<'p, A> Layers<'p, A> {
    /// None.
    pub const fn new() -> Self {
        let none = Other { text: (0, 0), ranges: &[], replaced: None };
        let (shown, patches) = ([&[] as &[_]; MOST], [None; MOST]);
        Self { sites: [&[]; MOST], shown, patches, others: [none; MOST], n: AtomicUsize::new(0) }
    }

    /// Takes hold of the patches that `patch` names: `hold` does so by number, and refuses those that are not applied or not
    /// free. What was held before something was refused is the caller's to give back.
    pub fn take<K: Kernel<Alias = A>>(
        &mut self,
        k: &K,
        patch: &Patch<'_>,
        mut hold: impl FnMut(usize) -> Result<Peer<'p, A>, Refusal>,
    ) -> Result<(), Refusal> {
        for other in 0..patch.others() {
            let (replaces, peer) = (patch.replaces(other), hold(other)?);
            // What a replaced patch lies on must stay below this one.
            let stays = |name| (0..patch.others()).any(|i| !patch.replaces(i) && patch.other_name(i) == name);
            let mut lies_on = (0..peer.patch.others()).filter(|&i| !peer.patch.replaces(i));
            if replaces && k.guard(Guard::HoldWhatIsBelow) && !lies_on.all(|i| stays(peer.patch.other_name(i))) {
                return Err(Refusal::NoOther { other });
            }
            if replaces && peer.patch.record.n_holders != 0 {
                return Err(Refusal::HasModules { other });
            }
            if replaces && peer.patch.record.n_data != 0 {
                return Err(Refusal::HasData { other });
            }
            let i = self.n.load(SeqCst);
            // A valid record names no more than there is room for.
            let room = (self.sites.get_mut(i), self.shown.get_mut(i), self.patches.get_mut(i), self.others.get_mut(i));
            let (Some(sites), Some(shown), Some(its), Some(slot)) = room else {
                return Err(Refusal::NoOther { other });
            };
            let text = (peer.patch.record.text_start, peer.patch.record.text_end);
            (*sites, *shown, *its) = (peer.sites.own(), peer.shown, Some(peer.patch));
            *slot = Other { text, ranges: peer.patch.kernel_ranges(), replaced: replaces.then_some(peer.board) };
            self.n.store(i + 1, SeqCst);
        }
        Ok(())
    }

    /// Those that are held.
    pub fn others(&self) -> &[Other<'p>] {
        self.others.get(..self.n.load(SeqCst)).unwrap_or(&[])
    }
    /// Sites of the patch at a place: those in the kernel, or in a module by its name.
    fn sites_in(&self, i: usize, module: &[u8]) -> &'p [Site<A>] {
        if module.is_empty() {
            return self.sites.get(i).copied().unwrap_or(&[]);
        }
        let part = self.patches.get(i).and_then(Option::as_ref).and_then(|p| holders::named(p, module));
        let shown = part.and_then(|part| self.shown.get(i)?.get(part));
        shown.map_or(&[], Shown::get)
    }
    fn all<'l>(&'l self, module: &'l [u8]) -> All<'l, 'p, A> {
        All { layers: self, module, next: 0, sites: [].iter(), replaced: false }
    }
    /// The sites in the kernel of those whose place is taken.
    pub fn replaced(&self) -> impl Iterator<Item = &Site<A>> {
        self.all(b"").filter(|l| l.replaced).map(|l| l.site)
    }
    /// What is below a site in the kernel that holds these bytes.
    pub fn beneath<'l>(&'l self, addr: u64, now: &'l [u8]) -> Beneath<'l, A> {
        beneath(addr, now, || self.all(b""))
    }

    /// Lays the site of function `func` over that of a patch below: it comes back to what that wrote, the dispatcher leads to its
    /// function, and `lp_original_NAME` to the uppermost that stays. Nobody is in the patch's code.
    pub fn lay<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        func: usize,
        s: &mut Site<A>,
    ) -> Result<(), Refusal> {
        self.lay_over(k, patch, (b"", &[]), func, s)
    }

    /// The same for a function of a module that is here, and what the patch has of it; `own` are all sites there.
    pub fn lay_in<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        module: &[u8],
        own: &[Site<A>],
        s: &mut Site<A>,
    ) -> Result<(), Refusal> {
        self.lay_over(k, patch, (module, own), s.func, s)
    }

    fn lay_over<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        (module, own): (&[u8], &[Site<A>]),
        func: usize,
        s: &mut Site<A>,
    ) -> Result<(), Refusal> {
        let mut now = [0u8; MAX_SITE];
        let now = now.get_mut(..s.len).unwrap_or_default();
        if !k.read(s.addr, now) || now == s.bytes(Route::Original) {
            return Ok(());
        }
        let below = beneath(s.addr, now, || self.all(module));
        // What is there otherwise, the check of the sites says.
        let Some(top) = below.top else { return Ok(()) };
        if !s.lay_over(top, now) {
            return Err(Refusal::Altered { func });
        }
        if self.bypasses(k, patch, (module, own), s.addr) {
            return Err(Refusal::Bypassed { func });
        }
        if k.guard(Guard::OldIsBelow) {
            reroute::dispatcher(k, patch, func, top.target)?;
        }
        match below.original {
            Some(original) if k.guard(Guard::OriginalIsBelow) => reroute::original(k, patch, func, original.target),
            _ => Ok(()),
        }
    }

    /// Whether one that stays has another function at this site, and calls it directly from code that this patch leaves alone.
    fn bypasses<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        (module, own): (&[u8], &[Site<A>]),
        addr: u64,
    ) -> bool {
        let held = self.others().iter().enumerate().zip(&self.patches);
        held.filter(|((_, o), _)| o.replaced.is_none()).any(|((i, other), its)| {
            let sites = self.sites_in(i, module);
            let Some(below) = sites.iter().find(|s| s.addr == addr) else { return false };
            let funcs = its.as_ref().map_or(&[][..], |p| p.funcs);
            // Dispatchers jump to the new function, and functions that have another version now do not run but as `lp_original`.
            let same = |f: &FuncRecord, own: &FuncRecord| f.anchor == 0 && site_addr(own) == site_addr(f);
            let here = |n: usize| sites.iter().any(|s| s.func == n && own.iter().any(|o| o.addr == s.addr));
            let ours = |n: usize, f: &FuncRecord| here(n) || patch.kernel_funcs().iter().any(|own| same(f, own));
            let within = |start: u64, len: u64, at: u64| at.wrapping_sub(start) < len;
            let left_alone = |at: u64| {
                !funcs.iter().enumerate().any(|(n, f)| {
                    within(f.dispatch, DISPATCH_LEN as u64, at) || within(f.new, f.new_size.into(), at) && ours(n, f)
                })
            };
            k.guard(Guard::NoBypass) && bypass::find(k, other.text, below.target, left_alone).is_some()
        })
    }

    /// Nobody is inside the replaced patches: the sites are this patch's alone, and lead back to what was below those.
    pub fn let_go<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, sites: &Sites<A>) {
        for (func, s) in sites.own().iter().enumerate() {
            let below = self.beneath(s.addr, s.bytes(Route::Original));
            if below.rest == s.bytes(Route::Original) || !k.guard(Guard::OldAfterwards) {
                continue;
            }
            let old = below.original.map_or_else(|| patch.funcs.get(func).map_or(0, |f| f.resume), |o| o.target);
            // It was in reach before, and memory for one page can be had at last.
            while reroute::dispatcher(k, patch, func, old) == Err(Refusal::NoMemory) {
                k.breathe();
            }
        }
        sites.use_later();
        self.n.store(self.others().iter().take_while(|o| o.replaced.is_none()).count(), SeqCst);
    }
}

/// What [`Layers::all`] gives; not inlined, as [`sites::Iter`](crate::sites::Iter).
struct All<'l, 'p, A> {
    layers: &'l Layers<'p, A>,
    module: &'l [u8],
    next: usize,
    sites: slice::Iter<'l, Site<A>>,
    replaced: bool,
}

impl<'l, A> Iterator for All<'l, '_, A> {
    type Item = Layer<'l, A>;

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(site) = self.sites.next() {
                return Some(Layer { site, replaced: self.replaced });
            }
            let other = self.layers.others().get(self.next)?;
            self.sites = self.layers.sites_in(self.next, self.module).iter();
            (self.next, self.replaced) = (self.next + 1, other.replaced.is_some());
        }
    }
}

impl<A> Default for Layers<'_, A> {
    fn default() -> Self {
        Self::new()
    }
}
