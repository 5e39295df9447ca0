//! What lies below a site: the patches this one lies on or takes the place of, and under them the kernel.
//!
//! Input: the patches named in `after` and `replaces`, the bytes at a site. Output: [`Beneath`]; jumps in the patch's own code that
//! lead to what is below. Refused: a patch in whose place this one would come without holding what that lies on (LP5019), or that has functions in modules (LP5032), a
//! site that does not fit on the one below (LP5006), a patch below that would call its own function all the same (LP5027). A jump of somebody else is found by the check of the sites.
//!
//! The order is in the bytes: the uppermost is the one whose jump is there now, and what that one gives back is the jump of the
//! next. It cannot change while this patch is there. A patch below is held, so it is neither reverted (LP5020) nor replaced by a
//! third (LP5019), and one whose place this one takes lies on nothing that this one does not hold as well.

use core::{
    iter::Zip,
    slice,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use lpbuild_abi::{DISPATCH_LEN, FuncRecord, MAX_SITE};

use crate::{
    board::Board,
    bypass,
    kernel::{Guard, Kernel},
    record::{MAX_OTHERS, Patch, site_addr},
    refusal::Refusal,
    reroute,
    site::{Route, Site},
    sites::Sites,
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
        let Some(layer) = layers().find(|l| l.site.addr == addr && l.site.bytes(Route::New) == found.rest) else {
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
    /// Its sites.
    pub sites: &'p Sites<A>,
    /// What its dispatchers look at.
    pub board: &'p Board,
}

/// The patches that one lies on or takes the place of, held until it has left. Those that stay come first.
#[derive(Debug)]
pub struct Layers<'p, A> {
    sites: [&'p [Site<A>]; MOST],
    funcs: [&'p [FuncRecord]; MOST],
    others: [Other<'p>; MOST],
    n: AtomicUsize,
}

impl<'p, A> Layers<'p, A> {
    /// None.
    pub const fn new() -> Self {
        let none = Other { text: (0, 0), ranges: &[], replaced: None };
        Self { sites: [&[]; MOST], funcs: [&[]; MOST], others: [none; MOST], n: AtomicUsize::new(0) }
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
            let room = (self.sites.get_mut(i), self.funcs.get_mut(i), self.others.get_mut(i));
            let (Some(sites), Some(funcs), Some(slot)) = room else { return Err(Refusal::NoOther { other }) };
            let text = (peer.patch.record.text_start, peer.patch.record.text_end);
            (*sites, *funcs) = (peer.sites.own(), peer.patch.funcs);
            *slot = Other { text, ranges: peer.patch.kernel_ranges(), replaced: replaces.then_some(peer.board) };
            self.n.store(i + 1, SeqCst);
        }
        Ok(())
    }

    /// Those that are held.
    pub fn others(&self) -> &[Other<'p>] {
        self.others.get(..self.n.load(SeqCst)).unwrap_or(&[])
    }
    fn all(&self) -> All<'_, 'p, A> {
        All { held: self.others().iter().zip(&self.sites), sites: [].iter(), replaced: false }
    }
    /// The sites of those whose place is taken.
    pub fn replaced(&self) -> impl Iterator<Item = &Site<A>> {
        self.all().filter(|l| l.replaced).map(|l| l.site)
    }
    /// What is below a site that holds these bytes.
    pub fn beneath<'l>(&'l self, addr: u64, now: &'l [u8]) -> Beneath<'l, A> {
        beneath(addr, now, || self.all())
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
        let mut now = [0u8; MAX_SITE];
        let now = now.get_mut(..s.len).unwrap_or_default();
        if !k.read(s.addr, now) || now == s.bytes(Route::Original) {
            return Ok(());
        }
        let below = self.beneath(s.addr, now);
        // What is there otherwise, the check of the sites says.
        let Some(top) = below.top else { return Ok(()) };
        if !s.lay_over(top) {
            return Err(Refusal::Altered { func });
        }
        if self.bypasses(k, patch, s.addr) {
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
    fn bypasses<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, addr: u64) -> bool {
        let held = self.others().iter().zip(self.sites.iter().zip(&self.funcs));
        held.filter(|(o, _)| o.replaced.is_none()).any(|(other, (sites, funcs))| {
            let Some(below) = sites.iter().find(|s| s.addr == addr) else { return false };
            // Dispatchers jump to the new function, and functions that have another version now do not run but as `lp_original`.
            let same = |f: &FuncRecord, own: &FuncRecord| f.anchor == 0 && site_addr(own) == site_addr(f);
            let ours = |f: &FuncRecord| patch.kernel_funcs().iter().any(|own| same(f, own));
            let within = |start: u64, len: u64, at: u64| at.wrapping_sub(start) < len;
            let left_alone = |at: u64| {
                !funcs.iter().any(|f| {
                    within(f.dispatch, DISPATCH_LEN as u64, at) || ours(f) && within(f.new, f.new_size.into(), at)
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
    held: Zip<slice::Iter<'l, Other<'p>>, slice::Iter<'l, &'p [Site<A>]>>,
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
            let (other, sites) = self.held.next()?;
            (self.sites, self.replaced) = (sites.iter(), other.replaced.is_some());
        }
    }
}

impl<A> Default for Layers<'_, A> {
    fn default() -> Self {
        Self::new()
    }
}
