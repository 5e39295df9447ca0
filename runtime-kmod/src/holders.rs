//! The parts of a patch that belong to kernel modules. A part comes into effect when its module comes, and is out of effect when that goes.
//!
//! Input: the records, a module that is here, what the sites of the others hold. Output: sites that look as if they had been there all
//! the time; or, behind a module that goes, its code as it was. Refused, with nothing written to the module: another build (LP5028), a
//! reference that does not lead where it should (LP5029), one out of reach (LP5008), whatever is in the way of a site.
//!
//! All of it happens under the lock under which the machine takes its steps, so that the sites are the same throughout each of them. What
//! others look at without a lock is [`Shown`] and [`Located`]: one store makes it seen, and it is written again only when nobody can be
//! looking at it. No reference on a module is held, ever: while the lock is held, a module that was not going when that was taken
//! stays, because the notification of its going waits for the lock (`delete_module`, `do_init_module`, `load_module` store its
//! state before they call the chain).
//!
//! A module that comes cannot run before the notification has returned, so its code is written as any memory. One that is here at
//! setup gets nothing written: the machine has not begun then.

use core::{ptr, slice};

use lpbuild_abi::{AnchorKind, Region};

use crate::{
    identity::{self, Id},
    kernel::{Guard, Kernel},
    keys::{Turned, entries},
    late,
    layers::Layers,
    record::{Patch, Run, anchor_kind, field_kind, pieces, region, site_addr, text_of},
    refusal::Refusal,
    reroute::{self, Slot},
    site::{self, INT3, Route, Site},
    sites::{Shown, SiteSet},
    stack::Located,
};

/// Where a module is, for the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Not here.
    Waiting,
    /// Here, and part of what the machine works on.
    Here,
    /// Here, and left alone.
    Refused(Refusal),
    /// Going; what is written again is not yet.
    Leaving,
}

/// What the sites of the others hold between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// The bytes.
    pub route: Route,
    /// An int3 over the first of them.
    pub trapped: bool,
}

/// One module.
#[derive(Debug)]
pub struct Part<A> {
    presence: Presence,
    /// Its `struct module`.
    module: usize,
    /// Views of the carried code with fields, and of data, zeros and constants that are brought for it.
    views: [Option<A>; 4],
    /// The build id that was found instead.
    id: Id,
}

/// Memory for `len` of something.
#[derive(Debug)]
struct Room<T> {
    at: *mut T,
    len: usize,
}

impl<T> Room<T> {
    const fn none() -> Self {
        const { assert!(align_of::<T>() <= 8, "as memory of `Kernel::allocate` is") };
        Self { at: ptr::null_mut(), len: 0 }
    }
    fn had<K: Kernel>(&mut self, k: &K, len: usize, make: impl Fn(usize) -> T) -> Result<(), Refusal> {
        if len == 0 {
            return Ok(());
        }
        self.at = k.allocate(len * size_of::<T>()).ok_or(Refusal::NoMemory)?.cast();
        for i in 0..len {
            // SAFETY: there is room for `len` of them.
            unsafe { self.at.add(i).write(make(i)) };
        }
        self.len = len;
        Ok(())
    }
    /// # Safety
    /// Until it is given back; and nobody writes to what is looked at.
    unsafe fn all<'m>(&self) -> &'m [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: that many were made; the caller vouches for the rest.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
    fn give_back<K: Kernel>(&mut self, k: &K) {
        if !self.at.is_null() {
            k.free(self.at.cast());
        }
        *self = Self::none();
    }
}

/// All of a patch.
#[derive(Debug)]
pub struct Holders<A> {
    parts: Room<Part<A>>,
    shown: Room<Shown<A>>,
    /// Of all functions in modules.
    sites: Room<Site<A>>,
    located: Room<Located>,
    /// Where the section of each anchor begins.
    found: Room<u64>,
    /// What the data that is brought begins with, one holder's behind the other's.
    kept: Room<u8>,
    /// Jumps of keys and static calls that modules have, one holder's behind the other's.
    turned: Room<Turned>,
    /// How `lp_original_NAME` of each function begins, where there may be patches below it.
    slots: Room<Slot>,
    closed: bool,
}

// SAFETY: memory of its own, behind addresses.
unsafe impl<A: Send> Send for Holders<A> {}

impl<A> Holders<A> {
    /// None.
    pub const fn new() -> Self {
        Self {
            parts: Room::none(),
            shown: Room::none(),
            sites: Room::none(),
            located: Room::none(),
            found: Room::none(),
            kept: Room::none(),
            turned: Room::none(),
            slots: Room::none(),
            closed: false,
        }
    }
    /// What others see of the sites.
    ///
    /// # Safety
    /// Until [`Holders::clear`].
    pub unsafe fn shown<'m>(&self) -> &'m [Shown<A>] {
        // SAFETY: changed by stores that everybody may look at.
        unsafe { self.shown.all() }
    }
    /// What others see of the ranges.
    ///
    /// # Safety
    /// Until [`Holders::clear`].
    pub unsafe fn located<'m>(&self) -> &'m [Located] {
        // SAFETY: changed by stores that everybody may look at.
        unsafe { self.located.all() }
    }
    /// Where a module is.
    pub fn presence(&self, i: usize) -> Presence {
        self.part(i).map_or(Presence::Waiting, |p| p.presence)
    }
    /// Whether it is that module which is here.
    pub fn is_here(&self, i: usize, module: usize) -> bool {
        self.part(i).is_some_and(|p| p.presence == Presence::Here && p.module == module)
    }
    /// The build id that was found instead of the one of the records.
    pub fn found_id(&self, i: usize) -> &[u8] {
        self.part(i).map_or(&[], |p| p.id.bytes())
    }

    fn part(&self, i: usize) -> Option<&Part<A>> {
        // SAFETY: only changed by who has all of this exclusively.
        unsafe { self.parts.all() }.get(i)
    }
    fn part_mut(&mut self, i: usize) -> Option<&mut Part<A>> {
        // SAFETY: there are so many, and this is the only way to change one.
        (i < self.parts.len).then(|| unsafe { &mut *self.parts.at.add(i) })
    }
    fn set(&mut self, i: usize, presence: Presence) {
        if let Some(p) = self.part_mut(i) {
            p.presence = presence;
        }
    }
    fn seen(&self, i: usize) -> Option<&Shown<A>> {
        // SAFETY: as of `shown`.
        unsafe { self.shown.all() }.get(i)
    }
}

impl<A: Copy> Holders<A> {
    /// All memory that is wanted, but for views of modules. Whatever comes of it, [`Holders::clear`] gives back what was had.
    pub fn prepare<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>) -> Result<(), Refusal> {
        if patch.holders.is_empty() {
            return Ok(());
        }
        let in_kernel = (patch.kernel_funcs().len(), patch.kernel_ranges().len());
        self.shown.had(k, patch.holders.len(), |_| Shown::new())?;
        let len = |i: usize| patch.ranges.get(in_kernel.1 + i).map_or(0, |r| r.len);
        self.located.had(k, patch.ranges.len() - in_kernel.1, |i| Located::new(len(i)))?;
        self.found.had(k, patch.anchors.len(), |_| 0)?;
        let funcs = patch.funcs.len() - in_kernel.0;
        if funcs != 0 {
            self.sites.at = k.allocate(funcs * size_of::<Site<A>>()).ok_or(Refusal::NoMemory)?.cast();
            self.sites.len = funcs;
        }
        let kept = patch.holders.iter().map(|h| (h.data_end - h.data) as usize).sum();
        self.kept.had(k, kept, |_| 0)?;
        self.turned.had(k, patch.holders.iter().map(|h| entries(h).count()).sum(), |_| Turned::none())?;
        let text = (patch.record.text_start, patch.record.text_end);
        for (n, (kept, at)) in patch.holders.iter().flat_map(entries).enumerate() {
            let none = Refusal::BadRecord("a jump of a key, or a static call, that is none");
            let turned = Turned::of(k, kept, at, text).ok_or(none)?;
            // SAFETY: there is room for all of them, and nobody else looks.
            unsafe { self.turned.at.add(n).write(turned) };
        }
        if patch.others() != 0 {
            self.slots.had(k, funcs, |i| reroute::slot(k, patch, in_kernel.0 + i).unwrap_or_default())?;
        }
        let part = |_| Part { presence: Presence::Waiting, module: 0, views: [None; 4], id: Id::none() };
        self.parts.had(k, patch.holders.len(), part)?;
        for i in 0..patch.holders.len() {
            self.views(k, patch, i)?;
        }
        Ok(())
    }

    fn views<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>, i: usize) -> Result<(), Refusal> {
        let Some(h) = patch.holders.get(i) else { return Ok(()) };
        let [data, bss, rodata] = pieces(h);
        let text = self.text(patch, i);
        let mixed = |j: usize| {
            let other = self.text(patch, j);
            text.0 < other.1 && other.0 < text.1
        };
        if (0..i).any(mixed) {
            return Err(Refusal::BadRecord("carried code of two modules that is mixed"));
        }
        for (n, (start, end)) in [text, data, bss, rodata].into_iter().enumerate() {
            if start == end {
                continue;
            }
            let view = k.map(start, (end - start) as usize).ok_or(Refusal::NoMemory)?;
            if let Some(slot) = self.part_mut(i).and_then(|p| p.views.get_mut(n)) {
                *slot = Some(view);
            }
        }
        // As the loader has left it.
        let kept = self.kept_of(patch, i);
        if kept.is_empty() || k.read(h.data, kept) { Ok(()) } else { Err(Refusal::NoMemory) }
    }

    /// The carried code of a holder that is written to: fields, jumps of its keys, and its static calls.
    fn text(&self, patch: &Patch<'_>, i: usize) -> (u64, u64) {
        let Some(h) = patch.holders.get(i) else { return (0, 0) };
        let fields = text_of(patch, h, &patch.run(i));
        self.turned_of(patch, i).iter().fold(fields, |span, turned| {
            let (start, end) = (turned.code, turned.code + turned.bytes().len() as u64);
            if span.0 == span.1 { (start, end) } else { (span.0.min(start), span.1.max(end)) }
        })
    }

    /// The jumps of the keys of a holder, and its static calls.
    fn turned_of(&self, patch: &Patch<'_>, i: usize) -> &[Turned] {
        let before = patch.holders.iter().take(i).map(|h| entries(h).count()).sum::<usize>();
        let own = patch.holders.get(i).map_or(0, |h| entries(h).count());
        // SAFETY: written by `prepare` alone.
        unsafe { self.turned.all() }.get(before..before + own).unwrap_or(&[])
    }

    fn kept_of(&mut self, patch: &Patch<'_>, i: usize) -> &mut [u8] {
        let len = |h: &lpbuild_abi::HolderRecord| (h.data_end - h.data) as usize;
        let before: usize = patch.holders.iter().take(i).map(len).sum();
        let own = patch.holders.get(i).map_or(0, len);
        if own == 0 {
            return &mut [];
        }
        // SAFETY: there is room for all of them, and nobody else looks.
        unsafe { slice::from_raw_parts_mut(self.kept.at.add(before), own) }
    }

    /// A module that is here, or comes: what the patch has of it looks as `at` says from now on. Refused: the module is as it was.
    ///
    /// Under the lock of the steps, the hotplug lock and `text_mutex`. `module` is not going, and either it cannot run yet, or
    /// `at` says that the sites hold what they always did. `live`: its init is over, and what is constant from then on is. The patches below
    /// have joined it, as far as they do.
    pub fn join<K: Kernel<Alias = A>>(
        &mut self,
        k: &K,
        (patch, layers): (&Patch<'_>, &Layers<'_, A>),
        i: usize,
        module: usize,
        at: Joining,
        live: bool,
    ) -> Result<(), Refusal> {
        if self.closed || matches!(self.presence(i), Presence::Here | Presence::Leaving) {
            return Ok(());
        }
        if let Some(p) = self.part_mut(i) {
            p.module = module;
        }
        let joined = self.bring(k, (patch, layers), i, module, at, live);
        self.set(i, joined.map_or_else(Presence::Refused, |()| Presence::Here));
        joined
    }

    fn bring<K: Kernel<Alias = A>>(
        &mut self,
        k: &K,
        (patch, layers): (&Patch<'_>, &Layers<'_, A>),
        i: usize,
        module: usize,
        at: Joining,
        live: bool,
    ) -> Result<(), Refusal> {
        self.find(k, patch, i, module)?;
        for other in 0..patch.holders.len() {
            if patch.holders.get(i).is_some_and(|h| h.needs >> other & 1 != 0) {
                let anchor = patch.run(other).anchors.start;
                let lost = Refusal::Unresolved { holder: other, anchor };
                let exporter = k.module(patch.holder_name(other)).ok_or(lost)?;
                self.find(k, patch, other, exporter)?;
            }
        }
        let run = patch.run(i);
        // Before the fields, of which some may be where a jump was.
        self.stand_alone(k, patch, &run)?;
        self.fill(k, patch, i, live)?;
        let mut made = 0;
        let sites = self.make_sites(k, patch, &run, &mut made);
        let laid = sites.and_then(|()| self.lay(k, patch, i, &run, layers));
        let sites = laid.and_then(|()| self.check(k, patch, &run));
        if let Err(why) = sites {
            self.unmap(k, patch, &run, made);
            return Err(why);
        }
        self.show(patch, i, &run);
        let at = if k.guard(Guard::JoinAsOthers) { at } else { Joining { route: Route::New, trapped: false } };
        if at.route != Route::Original || at.trapped {
            for s in self.sites_of(patch, &run) {
                let bytes = s.bytes(at.route);
                k.write(s.alias, 1, bytes.get(1..).unwrap_or(&[]));
                k.write(s.alias, 0, if at.trapped { &[INT3] } else { bytes.get(..1).unwrap_or(&[]) });
            }
            k.serialize_all();
        }
        Ok(())
    }

    /// Is it the module that the patch was made for, and where are its sections?
    fn find<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>, i: usize, module: usize) -> Result<(), Refusal> {
        let mut id = Id::none();
        let same = identity::is_module(k, k.module_region(module, Region::Rodata), patch.holder_id(i), &mut id);
        if let Some(p) = self.part_mut(i) {
            p.id = id;
        }
        if !same && k.guard(Guard::ModuleId) {
            return Err(Refusal::OtherModule { holder: i });
        }
        for anchor in patch.run(i).anchors {
            let at = self.section(k, patch, anchor, module).ok_or(Refusal::Unresolved { holder: i, anchor })?;
            // SAFETY: there is room for all of them, and nobody else looks.
            unsafe { self.found.at.add(anchor).write(at) };
        }
        Ok(())
    }

    fn section<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, i: usize, module: usize) -> Option<u64> {
        let a = patch.anchors.get(i)?;
        let (start, len) = k.module_region(module, region(a)?);
        let [name, witness] = patch.anchor_names(a);
        let at = match anchor_kind(a)? {
            AnchorKind::Module => module as u64,
            AnchorKind::Percpu => start,
            AnchorKind::Symbol => k.module_symbol(module, name, a.position, a.count)?,
            AnchorKind::Field => {
                let place = self.found(a.of)?.wrapping_add_signed(a.at);
                late::read(k, field_kind(a.field)?, place)?
            }
        };
        let at = at.wrapping_add_signed(a.delta.wrapping_neg());
        if !witness.is_empty() {
            let second = k.module_symbol(module, witness, a.witness_position, a.witness_count)?;
            if second.wrapping_add_signed(a.witness_delta.wrapping_neg()) != at {
                return None;
            }
        }
        let inside = at >= start && u64::from(a.size) <= len && at - start <= len - u64::from(a.size);
        inside.then_some(at)
    }

    fn found(&self, anchor: u32) -> Option<u64> {
        // SAFETY: nobody changes one meanwhile.
        unsafe { self.found.all() }.get(anchor as usize).copied()
    }

    /// What is carried for the module, from the beginning: data, code that the kernel turns, then the fields. Nobody is in that code: nobody is in the module.
    fn fill<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>, i: usize, live: bool) -> Result<(), Refusal> {
        let (Some(h), Some(views)) = (patch.holders.get(i), self.part(i).map(|p| p.views)) else { return Ok(()) };
        let run = patch.run(i);
        let [text, data, bss, rodata] = views;
        if k.guard(Guard::DataAnew) {
            let kept = self.kept_of(patch, i);
            if let Some(view) = data {
                k.write(view, 0, kept);
            }
            if let Some(view) = bss {
                for at in 0..(h.bss_end - h.bss) as usize {
                    k.write(view, at, &[0]);
                }
            }
        }
        let spans = [self.text(patch, i), (h.data, h.data_end), (h.rodata, h.rodata_end)];
        let write = |at: u64, bytes: &[u8]| {
            for ((start, end), view) in spans.into_iter().zip([text, data, rodata]) {
                if let Some(view) = view.filter(|_| start <= at && at < end) {
                    k.write(view, (at - start) as usize, bytes);
                }
            }
            let mut now = [0u8; 12];
            let now = now.get_mut(..bytes.len()).unwrap_or_default();
            k.read(at, now) && now == bytes
        };
        // Behind these the fields: a call has one.
        let cannot = Refusal::BadRecord("a jump of a key, or a static call, that cannot be written");
        if self.turned_of(patch, i).iter().any(|turned| !write(turned.code, turned.bytes())) {
            return Err(cannot);
        }
        for r in patch.relocs_of(&run).iter().filter(|r| r.site_of == 0 && k.guard(Guard::FieldsAnew)) {
            let lost = Refusal::Unresolved { holder: i, anchor: r.anchor as usize };
            let section = self.found(r.anchor).ok_or(lost)?;
            let (value, stub) = late::resolve(r, r.at, section).ok_or(Refusal::TooFar { holder: i })?;
            // The jump first, what leads there then.
            if stub.is_some_and(|(at, jump)| !write(at, &jump)) || !write(r.at, value.bytes()) {
                return Err(lost);
            }
        }
        for turned in self.turned_of(patch, i) {
            let settled = if live { turned.settled(k) } else { None };
            let written = settled.is_none_or(|(bytes, len)| bytes.get(..len).is_some_and(|b| write(turned.code, b)));
            let wanted = live && turned.is_sealed();
            if !written || wanted && settled.is_none() || !turned.agrees(k) {
                return Err(cannot);
            }
        }
        k.serialize_all();
        Ok(())
    }

    fn make_sites<K: Kernel<Alias = A>>(
        &mut self,
        k: &K,
        patch: &Patch<'_>,
        run: &Run,
        made: &mut usize,
    ) -> Result<(), Refusal> {
        let none = Refusal::BadRecord("number of functions or ranges");
        for (n, func) in run.funcs.clone().enumerate() {
            let f = patch.funcs.get(func).ok_or(none)?;
            let section = f.anchor.checked_sub(1).and_then(|a| self.found(a)).ok_or(none)?;
            let addr = section.wrapping_add(site_addr(f));
            let alias = k.map(addr, usize::from(f.site_size)).ok_or(Refusal::NoMemory)?;
            *made = n + 1;
            let completed = site::site(patch, func, addr, alias).and_then(|s| self.complete(patch, run, s));
            let s = match completed {
                Ok(s) => s,
                Err(why) => {
                    k.unmap(alias);
                    *made = n;
                    return Err(why);
                }
            };
            let overlaps = |o: &Site<A>| o.addr < addr + s.len as u64 && addr < o.addr + o.len as u64;
            let before = self.sites_of(patch, run).iter().take(n).any(overlaps);
            // SAFETY: there is room for all of them; hidden, and nobody looks at them any more.
            unsafe { self.sites.at.add(func - patch.kernel_funcs().len()).write(s) };
            if before {
                return Err(Refusal::BadRecord("overlapping jump sites"));
            }
        }
        Ok(())
    }

    /// What was laid over a patch below when the module was here before, leads to the module's function again. Nobody is in that code.
    fn stand_alone<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, run: &Run) -> Result<(), Refusal> {
        let before = patch.kernel_funcs().len();
        for func in run.funcs.clone().filter(|_| k.guard(Guard::StandAlone)) {
            // SAFETY: written by `prepare` alone.
            if let Some(was) = unsafe { self.slots.all() }.get(func - before) {
                reroute::back(k, patch, func, was)?;
            }
        }
        Ok(())
    }

    /// Lays the sites over those of the patches below, as far as those have the same functions.
    fn lay<K: Kernel<Alias = A>>(
        &self,
        k: &K,
        patch: &Patch<'_>,
        i: usize,
        run: &Run,
        layers: &Layers<'_, A>,
    ) -> Result<(), Refusal> {
        let first = run.funcs.start - patch.kernel_funcs().len();
        for n in 0..run.funcs.len() {
            let own = self.sites_of(patch, run);
            let Some(mut s) = own.get(n).copied() else { break };
            layers.lay_in(k, patch, patch.holder_name(i), own, &mut s)?;
            // SAFETY: it was made; hidden, and nobody looks at it.
            unsafe { self.sites.at.add(first + n).write(s) };
        }
        Ok(())
    }

    /// Fills in the fields among the expected bytes.
    fn complete(&self, patch: &Patch<'_>, run: &Run, mut s: Site<A>) -> Result<Site<A>, Refusal> {
        let Some(f) = patch.funcs.get(s.func) else { return Ok(s) };
        for r in patch.relocs_of(run).iter().filter(|r| r.site_of as usize == s.func + 1) {
            let offset = r.at.wrapping_sub(f.original.as_ptr() as u64);
            let section = self.found(r.anchor);
            let resolved = section.and_then(|section| late::resolve(r, s.addr.wrapping_add(offset), section));
            let Some((value, None)) = resolved else { return Err(Refusal::Altered { func: s.func }) };
            let field = s.original.bytes.iter_mut().skip(offset as usize);
            field.zip(value.bytes()).for_each(|(to, from)| *to = *from);
        }
        Ok(s)
    }

    fn check<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, run: &Run) -> Result<(), Refusal> {
        if !k.guard(Guard::LateSites) {
            return Ok(());
        }
        let sites = self.sites_of(patch, run);
        let entry = |s: &Site<A>| Some(s.addr - u64::from(patch.funcs.get(s.func)?.site_offset));
        if let Some(s) = sites.iter().find(|s| entry(s).is_some_and(|at| k.is_redirected(at))) {
            return Err(Refusal::Redirected { func: s.func });
        }
        site::check(k, SiteSet::new(sites, &[]).iter(), Route::Original)
    }

    /// All sites of a module, made or not.
    fn sites_of(&self, patch: &Patch<'_>, run: &Run) -> &[Site<A>] {
        let first = run.funcs.start - patch.kernel_funcs().len();
        // SAFETY: who asks for more than have been made does not look at those; nobody changes one meanwhile.
        unsafe { self.sites.all() }.get(first..first + run.funcs.len()).unwrap_or(&[])
    }

    fn unmap<K: Kernel<Alias = A>>(&self, k: &K, patch: &Patch<'_>, run: &Run, made: usize) {
        for s in self.sites_of(patch, run).iter().take(made) {
            k.unmap(s.alias);
        }
    }

    /// Ranges first: whoever is diverted is looked for.
    fn show(&self, patch: &Patch<'_>, i: usize, run: &Run) {
        let first = patch.kernel_ranges().len();
        for n in run.ranges.clone() {
            // SAFETY: as of `located`.
            let located = unsafe { self.located.all() }.get(n - first);
            let range = patch.ranges.get(n);
            let section = range.and_then(|r| self.found(r.anchor.checked_sub(1)?));
            if let (Some(l), Some(r), Some(section)) = (located, range, section) {
                l.place(section.wrapping_add(r.start));
            }
        }
        if let Some(shown) = self.seen(i) {
            let sites = self.sites_of(patch, run);
            // SAFETY: written again by the next `join` alone, which comes behind `left`.
            unsafe { shown.show(sites.as_ptr().cast_mut(), sites.len()) };
        }
    }

    /// A module goes. Its code cannot be entered but by those who are in it already, so the first half of putting back what was there is an int3.
    /// `true`: `synchronize_rcu_tasks` has to come before [`Holders::gone`], because somebody may stand in the middle of a jump.
    ///
    /// Under the same locks as [`Holders::join`]; `at` is what the sites of all hold.
    pub fn going<K: Kernel<Alias = A>>(&mut self, k: &K, i: usize, at: Joining) -> bool {
        if self.presence(i) != Presence::Here {
            // What comes next may be the right one.
            if matches!(self.presence(i), Presence::Refused(_)) {
                self.set(i, Presence::Waiting);
            }
            return false;
        }
        self.set(i, Presence::Leaving);
        if !k.guard(Guard::RestoreAtGoing) {
            return false;
        }
        let Some(shown) = self.seen(i).filter(|_| at.route != Route::Original) else { return false };
        // An int3 that is not this patch's is diverted as well, a kprobe's: by now it has died. Where nothing is written, none is.
        shown.arm(true);
        let mut wait = false;
        for s in shown.get().iter().filter(|s| is_ours(k, s, at.route)) {
            k.write(s.alias, 0, &[INT3]);
            wait |= !s.is_single(at.route);
        }
        k.serialize_all();
        wait && k.guard(Guard::TailAtGoing)
    }

    /// The second half; from here on the part is seen no more.
    pub fn gone<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>, i: usize, at: Joining) {
        let Some(shown) = self.seen(i).filter(|_| self.presence(i) == Presence::Leaving) else { return };
        let changed = at.route != Route::Original;
        let written = changed || at.trapped;
        if written && k.guard(Guard::RestoreAtGoing) {
            for s in shown.get().iter().filter(|s| changed && is_ours(k, s, at.route)) {
                k.write(s.alias, 1, s.bytes(Route::Original).get(1..).unwrap_or(&[]));
            }
            k.serialize_all();
            for s in shown.get().iter().filter(|s| is_ours(k, s, Route::Original)) {
                k.write(s.alias, 0, s.bytes(Route::Original).get(..1).unwrap_or(&[]));
            }
            // Nobody is in the handler of one of these any more.
            k.serialize_all();
        }
        shown.arm(false);
        shown.hide();
        let first = patch.kernel_ranges().len();
        for n in patch.run(i).ranges {
            // SAFETY: as of `located`.
            if let Some(l) = unsafe { self.located.all() }.get(n - first).filter(|_| k.guard(Guard::RangesNowhere)) {
                l.lose();
            }
        }
    }

    /// Nobody looks at the part any more when this returns: it may come again. May sleep, without the locks of [`Holders::join`] but the first.
    pub fn left<K: Kernel<Alias = A>>(&mut self, k: &K, patch: &Patch<'_>, i: usize) {
        if self.presence(i) != Presence::Leaving {
            return;
        }
        if k.guard(Guard::HideBeforeReuse) {
            k.synchronize();
        }
        let run = patch.run(i);
        self.unmap(k, patch, &run, run.funcs.len());
        self.set(i, Presence::Waiting);
    }

    /// The kernel does not take the jumps of its keys, or its static calls: a part that has joined is none, once it has [`Holders::left`].
    pub fn refuse(&mut self, i: usize, why: Refusal) {
        if self.presence(i) == Presence::Waiting {
            self.set(i, Presence::Refused(why));
        }
    }

    /// The patch is out of effect: whatever comes from now on is none of its business.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Gives memory and views back.
    ///
    /// # Safety
    /// Nobody refers to any of it any more; every part has [`Holders::left`].
    pub unsafe fn clear<K: Kernel<Alias = A>>(&mut self, k: &K) {
        for i in 0..self.parts.len {
            let views = self.part_mut(i).map_or([None; 4], |p| core::mem::take(&mut p.views));
            views.into_iter().flatten().for_each(|v| k.unmap(v));
        }
        self.parts.give_back(k);
        self.shown.give_back(k);
        self.sites.give_back(k);
        self.located.give_back(k);
        self.found.give_back(k);
        self.kept.give_back(k);
        self.turned.give_back(k);
        self.slots.give_back(k);
    }
}

/// Number of the module of that name, if the patch has functions of it.
pub fn named(patch: &Patch<'_>, name: &[u8]) -> Option<usize> {
    let has = |i: &usize| patch.holder_name(*i) == name && patch.holders.get(*i).is_some_and(|h| h.n_funcs != 0);
    (0..patch.holders.len()).find(has)
}

/// Whether a site holds what this patch has written there, perhaps with an int3 over it: this one's, or that of a kprobe, which has
/// died with the module and leaves it. What another patch has written is left alone.
fn is_ours<K: Kernel<Alias = A>, A>(k: &K, s: &Site<A>, route: Route) -> bool {
    let mut now = [0u8; lpbuild_abi::MAX_SITE];
    let now = now.get_mut(..s.len).unwrap_or_default();
    let bytes = s.bytes(route);
    let first = |now: &[u8]| now.first() == Some(&INT3) || now.first() == bytes.first();
    k.read(s.addr, now) && first(now) && now.get(1..) == bytes.get(1..)
}

impl<A> Default for Holders<A> {
    fn default() -> Self {
        Self::new()
    }
}
