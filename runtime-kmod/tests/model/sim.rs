//! The kernel as the runtime sees it. Every call is a moment at which everybody else may go on.

use std::{
    cell::{Cell, RefCell, RefMut, UnsafeCell},
    sync::atomic::{AtomicBool, AtomicUsize},
};

use lpbuild_abi::Region;
use lpbuild_runtime::{
    board::Board,
    constants::Constants,
    holders::{Holders, Joining},
    kernel::{Guard, Kernel, Level, Rest, Seen, Unreliable, View, Who, Work},
    layers::Layers,
    record::Patch,
    refusal::Refusal,
    site::INT3,
    sites::{SiteSet, Sites},
    stack::Located,
};

use crate::{
    coroutine::{Coroutine, pause},
    plan::Cut,
    target,
    world::{
        Asked, CONSTANT, DATA, FUNCS, MODULE, NEW, OLD, OPERATOR, PATCHES, Run, Stop, Task, World, id, site_addr, slot,
        text,
    },
};

/// What of a writable view is the address; the rest says whose it is.
const ADDRESS: u64 = 0xffff_ffff_ffff;

/// The statics of a module: what of its runtime the CPUs share with the operation.
#[derive(Debug)]
pub struct Module {
    pub patch: Patch<'static>,
    pub board: Board,
    pub armed: AtomicBool,
    pub cancel: AtomicBool,
    pub force: AtomicBool,
    pub sites: Sites<u64>,
    pub constants: Constants<u64>,
    layers: UnsafeCell<Layers<'static, u64>>,
    holders: UnsafeCell<Holders<u64>>,
    /// What a module that comes gets, as it was behind the last step.
    pub joining: Cell<Joining>,
}

impl Module {
    pub fn new(patch: Patch<'static>) -> Self {
        let no = || AtomicBool::new(false);
        Self {
            patch,
            board: Board::new(),
            armed: no(),
            cancel: no(),
            force: no(),
            sites: Sites::new(),
            constants: Constants::new(),
            layers: UnsafeCell::new(Layers::new()),
            holders: UnsafeCell::new(Holders::new()),
            joining: Cell::new(target::BEFORE),
        }
    }
    pub fn holders(&self) -> &Holders<u64> {
        // SAFETY: whoever changes them holds the lock under which they are looked at.
        unsafe { &*self.holders.get() }
    }
    #[expect(clippy::mut_from_ref, reason = "as the static of a module, kept by a lock")]
    pub fn holders_mut(&self) -> &mut Holders<u64> {
        // SAFETY: as above, but where that lock is taken away.
        unsafe { &mut *self.holders.get() }
    }
    pub fn all_sites(&self) -> SiteSet<'_, u64> {
        // SAFETY: not behind the end of the module.
        SiteSet::new(self.sites.all(), unsafe { self.holders().shown() })
    }
    pub fn located(&self) -> &[Located] {
        // SAFETY: not behind the end of the module.
        unsafe { self.holders().located() }
    }
    pub fn layers(&self) -> &Layers<'static, u64> {
        // SAFETY: changed by `prepare` alone.
        unsafe { &*self.layers.get() }
    }
    /// Setup, in which `hold` takes hold of the patches below.
    pub fn prepare(
        &self,
        sim: &Sim,
        hold: impl FnMut(usize) -> Result<lpbuild_runtime::layers::Peer<'static, u64>, Refusal>,
    ) -> Result<(), Refusal> {
        // SAFETY: nobody looks at the layers before the first operation.
        self.sites.prepare(sim, &self.patch, unsafe { &mut *self.layers.get() }, hold)?;
        self.constants.prepare(sim, &self.patch)?;
        self.holders_mut().prepare(sim, &self.patch)
    }
}

/// The world and the modules.
#[derive(Debug)]
pub struct Sim {
    world: RefCell<World>,
    pub seats: Vec<AtomicUsize>,
    pub patches: Vec<Module>,
    pub cut: Cut,
}

// SAFETY: one thread; CPUs are coroutines.
unsafe impl Sync for Sim {}

impl Sim {
    pub fn new(world: World, patches: Vec<Module>) -> Self {
        Self {
            seats: (0..world.cpus.len()).map(|_| AtomicUsize::new(0)).collect(),
            cut: world.plan.cut,
            world: RefCell::new(world),
            patches,
        }
    }
    /// The table that dispatchers of a patch read: its own, or that of the patch which is taking its place. They have one each
    /// at most, and only one of them has one.
    pub fn table(&self, p: usize) -> usize {
        let of = |m: &Module| m.board.table().map(|t| std::ptr::from_ref(t) as usize);
        of(&self.patches[p]).or_else(|| self.patches.iter().find_map(of)).unwrap_or_default()
    }
    pub fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }
    /// Pauses until something is so.
    pub fn wait(&self, mut until: impl FnMut(&mut World) -> bool) {
        while !until(&mut self.world()) {
            pause();
        }
    }
    /// Once in a while, others go on.
    fn yields(&self) {
        let n = self.world().rng.below(4);
        for _ in 0..n.saturating_sub(1) {
            pause();
        }
    }
    /// The memory of a task; it must be there.
    fn task(&self, id: usize, what: &str) -> RefMut<'_, Task> {
        let mut w = self.world();
        if !w.tasks[slot(id)].exists {
            w.fail(format!("{what}: the memory of task {} is gone", slot(id)));
        }
        RefMut::map(w, |w| &mut w.tasks[slot(id)])
    }
    fn is_work(&self, id: usize, work: *mut Work, what: &str) {
        let mut w = self.world();
        let known = w.blocks.iter().any(|(at, b, _)| (*at..*at + b.len() * 8).contains(&(work as usize)));
        if !known {
            w.fail(format!("{what}: a request of task {} in memory that is gone", slot(id)));
        }
    }
}

/// A piece of a module's constants, which are the note of its build id.
fn note(w: &World, addr: u64, buf: &mut [u8]) -> bool {
    let t = target::of_module(addr as usize);
    let id = if w.targets[t].other { 8 } else { 9 };
    let head = [4u32, 20, 3].into_iter().flat_map(u32::to_le_bytes).chain(*b"GNU\0");
    let all: Vec<u8> = head.chain([id; 20]).collect();
    let from = (addr - target::rodata(t)) as usize;
    let piece = all.get(from..from + buf.len()).filter(|_| w.targets[t].is_there());
    piece.is_some_and(|p| {
        buf.copy_from_slice(p);
        true
    })
}

impl Kernel for Sim {
    type Task = usize;
    type Alias = u64;

    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let w = self.world();
        if addr >= NEW {
            return (addr..).zip(buf).all(|(at, b)| w.carried(at).map(|is| *b = is).is_some());
        }
        if (MODULE..DATA).contains(&addr) {
            return note(&w, addr, buf);
        }
        if (CONSTANT..CONSTANT + 16).contains(&addr) {
            let from = (addr - CONSTANT) as usize;
            buf.copy_from_slice(&w.constant[from..from + buf.len()]);
            return true;
        }
        let Some(f) = (0..w.code.len()).find(|&f| (site_addr(f)..site_addr(f) + 15).contains(&addr)) else {
            return false;
        };
        if w.target(f).is_some_and(|t| !t.is_there()) {
            return false;
        }
        let from = (addr - site_addr(f)) as usize;
        buf.copy_from_slice(&w.code[f][from..from + buf.len()]);
        drop(w);
        self.yields();
        true
    }
    fn probe_at(&self, addr: u64) -> bool {
        let w = self.world();
        (0..w.code.len()).any(|f| site_addr(f) == addr && w.probes[f].is_some())
    }
    fn now_ns(&self) -> u64 {
        self.world().now
    }
    fn symbol(&self, _: u64, _: &mut [u8]) -> usize {
        0
    }
    fn log(&self, _: Level, _: &[u8]) {}
    fn map(&self, addr: u64, _: usize) -> Option<u64> {
        let mut w = self.world();
        if w.plan.no_memory && w.rng.one_in(6) {
            return None;
        }
        // A module that comes does so on a CPU of its own.
        let loader = w.loaders.iter().position(|s| *s == w.cpus[w.here].current);
        let p = loader.and_then(|t| w.targets[t].joins).unwrap_or(w.operating);
        let f = (0..w.code.len()).find(|&f| site_addr(f) == addr);
        if f.and_then(|f| w.target(f)).is_some_and(|t| !t.is_there()) {
            return None;
        }
        let alias = addr & ADDRESS | (p as u64) << 48;
        w.views.push((alias, p));
        Some(alias)
    }
    fn unmap(&self, alias: u64) {
        let mut w = self.world();
        match w.views.iter().rposition(|v| v.0 == alias) {
            Some(i) => _ = w.views.swap_remove(i),
            None => w.fail("a view is given back that was not had".into()),
        }
    }
    fn write(&self, alias: u64, offset: usize, bytes: &[u8]) {
        for (i, &b) in bytes.iter().enumerate() {
            let mut w = self.world();
            if !w.views.iter().any(|v| v.0 == alias) {
                w.fail("something is written that cannot be".into());
            }
            let addr = alias | !ADDRESS;
            if addr >= NEW && w.write_jump(addr, offset + i, b) {
                continue;
            }
            if !w.text_mutex {
                w.fail("code is written without text_mutex".into());
            }
            if (NEW..text(PATCHES).0).contains(&addr) {
                w.written.insert(addr + (offset + i) as u64, b);
                continue;
            }
            if offset == 0 && bytes == [INT3] && w.here == w.cpus.len() - 1 {
                crate::check::traps(&mut w);
            }
            let f = w.code.iter().enumerate().position(|(f, _)| site_addr(f) == addr).unwrap_or_default();
            match w.target(f).map(|t| (t.is_there(), t.other)) {
                Some((false, _)) => w.fail("a module is written that is gone".into()),
                Some((_, true)) => w.fail("another build of a module is written".into()),
                _ => {}
            }
            w.code[f][offset + i] = b;
            if offset + i == 0 {
                w.note(|| format!("site {f}: first byte {b:#x}"));
            }
            drop(w);
            self.yields();
        }
    }
    fn change(&self, alias: u64, bytes: &[u8]) {
        let mut w = self.world();
        if !w.views.iter().any(|v| v.0 == alias) || alias | !ADDRESS != CONSTANT {
            w.fail("something is written that cannot be".into());
        }
        if !w.stop.as_ref().is_some_and(|s| s.running) {
            w.fail("a constant changes while the machine runs".into());
        }
        if w.spoilt.is_some() {
            w.fail("what somebody else has written to the constant is overwritten".into());
        }
        w.constant.copy_from_slice(bytes);
        w.note(|| format!("the constant is {}", bytes[0]));
    }
    fn serialize(&self) {
        let mut w = self.world();
        let here = w.here;
        w.serialize(here);
    }
    fn serialize_all(&self) {
        self.serialize();
        if self.cut == Cut::SerializeAll {
            return;
        }
        let mut w = self.world();
        let here = w.here;
        for c in 0..w.cpus.len() {
            w.cpus[c].ipi = w.cpus[c].online && c != here;
        }
        drop(w);
        self.wait(|w| w.cpus.iter().all(|c| !c.ipi));
        self.world().note(|| "all have serialised".into());
    }

    fn module(&self, _: &[u8]) -> Option<usize> {
        None
    }
    fn module_symbol(&self, module: usize, name: &[u8], _: u32, _: u32) -> Option<u64> {
        let t = target::of_module(module);
        let w = self.world();
        if !w.targets[t].is_there() {
            drop(w);
            self.world().fail("a module is looked at that is gone".into());
            return None;
        }
        Some(if name == b"text" { OLD } else { target::data(&w, t) })
    }
    fn module_region(&self, module: usize, region: Region) -> (u64, u64) {
        let t = target::of_module(module);
        match region {
            Region::Text => (OLD, FUNCS as u64 * 0x100),
            Region::Data => (target::data(&self.world(), t), 0x1000),
            _ => (target::rodata(t), 36),
        }
    }
    fn synchronize(&self) {
        // Whoever is in an int3 handler has interrupts off.
        let n = self.world().cpus.len();
        for c in 0..n {
            self.wait(|w| c == w.here || !w.cpus[c].online || w.tasks[w.cpus[c].current].interruptible());
        }
    }

    fn online_cpus(&self) -> usize {
        self.world().cpus.iter().filter(|c| c.online).count()
    }
    fn this_cpu(&self) -> usize {
        self.world().here
    }
    fn current(&self) -> usize {
        let w = self.world();
        id(w.cpus[w.here].current)
    }
    fn stop<F: Fn() + Sync>(&self, f: &F) -> bool {
        self.yields();
        let mut w = self.world();
        if w.rng.one_in(50) {
            return false;
        }
        let bodies = w
            .cpus
            .iter()
            .map(|c| {
                // SAFETY: `f` lives until this function returns, and that is behind the end of all of them.
                c.online.then(|| unsafe { Coroutine::new(f) })
            })
            .collect();
        let done = w.cpus.iter().map(|c| !c.online).collect::<Vec<_>>();
        w.stop = Some(Stop { arrived: done.clone(), done, bodies, running: false });
        w.tasks[OPERATOR].run = Run::Asleep(u64::MAX, false);
        drop(w);
        pause();
        self.wait(|w| w.stop.is_none());
        true
    }
    fn relax(&self) {
        pause();
    }

    fn for_each_task<F: FnMut(usize)>(&self, mut f: F) {
        let w = self.world();
        if !w.stop.as_ref().is_some_and(|s| s.running) {
            drop(w);
            return self.world().fail("the task list is walked while the machine runs".into());
        }
        let there = |s: &usize| w.tasks[*s].listed || w.tasks[*s].idle && w.cpus[w.tasks[*s].cpu].online;
        let all: Vec<usize> = (0..w.tasks.len()).filter(there).map(id).collect();
        drop(w);
        all.into_iter().for_each(&mut f);
    }
    fn task_id(&self, task: usize) -> usize {
        task
    }
    fn task_cpu(&self, task: usize) -> usize {
        self.task(task, "cpu").cpu
    }
    fn is_operator(&self, task: usize) -> bool {
        task == id(OPERATOR)
    }
    fn stack(&self, task: usize, frames: &mut [u64]) -> Result<usize, Unreliable> {
        let shape = self.world().plan.shape();
        let t = self.task(task, "stack");
        if t.on_cpu {
            drop(t);
            self.world().fail(format!("the stack of task {} is walked while it runs", slot(task)));
            return Err(Unreliable::Unwind);
        }
        let found = t.walk(shape)?;
        frames.get_mut(..found.len() + 1).ok_or(Unreliable::Unwind)?[..found.len()].copy_from_slice(&found);
        Ok(found.len())
    }
    fn who(&self, task: usize) -> Who {
        drop(self.task(task, "name"));
        Who { pid: slot(task) as i32, ..Who::default() }
    }

    fn allocate(&self, bytes: usize) -> Option<*mut u8> {
        let mut w = self.world();
        if w.plan.no_memory && w.rng.one_in(4) {
            return None;
        }
        // Where there is nothing, each piece has an address of its own as well.
        let mut block = vec![0u64; bytes.div_ceil(8).max(1)].into_boxed_slice();
        let (start, p) = (block.as_mut_ptr(), w.operating);
        w.blocks.push((start as usize, block, p));
        drop(w);
        self.yields();
        Some(start.cast())
    }
    fn free(&self, memory: *mut u8) {
        let mut w = self.world();
        let Some(i) = w.blocks.iter().position(|(at, ..)| *at == memory as usize) else {
            return w.fail("memory is freed that was not had".into());
        };
        let (at, block, _) = w.blocks.swap_remove(i);
        let gone = at..at + block.len() * 8;
        // Kept, so that whoever reads it finds what was there, and not a crash.
        w.freed.push(block);
        if let Some(why) = crate::check::users(&w, &gone) {
            w.fail(why);
        }
    }
    fn count_tasks(&self) -> usize {
        // "Roughly".
        let mut w = self.world();
        let n = w.tasks.iter().filter(|t| t.exists).count();
        if w.plan.tight { w.rng.below(n + 1) } else { n }
    }
    fn spare_entries(&self) -> usize {
        if self.world().plan.tight { 0 } else { 64 }
    }
    fn census<F: FnMut(usize), L: FnOnce()>(&self, mut f: F, last: L) {
        self.yields();
        let mut w = self.world();
        w.list_held = true;
        let all: Vec<usize> = (0..w.tasks.len()).filter(|&s| w.tasks[s].listed || w.tasks[s].idle).map(id).collect();
        drop(w);
        for t in all {
            f(t);
            self.yields();
        }
        if self.cut == Cut::CensusGap {
            self.world().list_held = false;
            for _ in 0..40 {
                pause();
            }
        }
        last();
        let mut w = self.world();
        w.list_held = false;
        let now = w.now;
        w.rules.published.get_or_insert(now);
        w.note(|| "census".into());
        drop(w);
        self.yields();
    }
    fn hold(&self, task: usize) {
        if self.cut != Cut::Hold {
            self.task(task, "hold").holds += 1;
        }
    }
    fn release(&self, task: usize) {
        if self.cut != Cut::Hold {
            let mut t = self.task(task, "release");
            if t.holds == 0 {
                drop(t);
                return self.world().fail(format!("task {} is released but not held", slot(task)));
            }
            t.holds -= 1;
            drop(t);
            self.world().reap(slot(task));
        }
    }
    fn held(&self, task: usize) -> usize {
        drop(self.task(task, "held"));
        task
    }
    fn look<F: FnMut(View<'_>)>(&self, task: usize, _: &mut [u64], mut f: F) -> Seen {
        let shape = self.world().plan.shape();
        for _ in 0..3 {
            self.yields();
            // The unwinder gives up now and then, wherever the task is.
            let shape = if self.world().rng.one_in(20) { shape.lost() } else { shape };
            let t = self.task(task, "look");
            if !t.on_cpu {
                if t.run == Run::Dead {
                    return Seen::Dead;
                }
                let (found, blocked) = (t.walk(shape), t.run != Run::Ready || t.idle);
                let (switches, kernel) = (t.switches, t.kernel);
                drop(t);
                f(View { frames: found.as_deref().map_err(|e| *e), blocked, switches, kernel });
                return Seen::Looked;
            }
            let (cpu, idle) = (t.cpu, t.idle);
            drop(t);
            if !self.world().cpus[cpu].online {
                return if idle { Seen::Offline } else { Seen::Running };
            }
            let late = self.world().rng.one_in(6) || self.cut == Cut::Rule(Guard::AskWhoWasSeen);
            for _ in 0..if late { 60 } else { 0 } {
                pause();
            }
            // In an interrupt of that CPU, on top of whatever runs there by then.
            let clean = self.cut == Cut::LookClean;
            self.wait(|w| clean || w.tasks[w.cpus[cpu].current].interruptible());
            let w = self.world();
            let now = if clean { slot(task) } else { w.cpus[cpu].current };
            if id(now) == task || clean {
                let t = &w.tasks[now];
                let found = if clean { Ok(Vec::new()) } else { t.walk(shape) };
                let (blocked, switches, kernel) = (t.idle, t.switches, t.kernel);
                drop(w);
                f(View { frames: found.as_deref().map_err(|e| *e), blocked, switches, kernel });
                return Seen::Looked;
            }
        }
        Seen::Running
    }
    fn rest(&self, task: usize, _: &mut [u64]) -> Rest {
        self.yields();
        let t = self.task(task, "rest");
        let rests = t.run != Run::Ready || t.idle || t.frames.is_empty();
        if rests { Rest::Rests } else { Rest::Works(t.voluntary + 1) }
    }
    fn send_to_boundary(&self, task: usize, work: *mut Work, urgent: bool) -> bool {
        self.is_work(task, work, "send");
        if urgent {
            let mut w = self.world();
            let patience = u64::from(w.plan.patience_ms) * crate::world::MS;
            if w.rules.published.is_none_or(|then| w.now - then < patience) {
                w.fail(format!("task {} is disturbed too early", slot(task)));
            }
        }
        let p = self.world().operating;
        let mut t = self.task(task, "send");
        if t.works_over {
            return false;
        }
        let thread = t.kernel;
        t.works.push(Asked(work, p));
        if urgent && matches!(t.run, Run::Asleep(_, true)) {
            t.run = Run::Ready;
        }
        drop(t);
        if thread {
            self.world().fail(format!("thread {} is sent to user mode", slot(task)));
        }
        self.yields();
        true
    }
    fn recall(&self, task: usize, work: *mut Work) -> bool {
        self.is_work(task, work, "recall");
        let mut t = self.task(task, "recall");
        let before = t.works.len();
        t.works.retain(|w| w.0 != work);
        let taken = t.works.len() != before;
        drop(t);
        self.yields();
        taken || self.cut == Cut::Recall
    }
    fn nudge(&self, task: usize) {
        let mut t = self.task(task, "nudge");
        if matches!(t.run, Run::Asleep(_, true)) {
            t.run = Run::Ready;
        }
    }
    fn breathe(&self) {
        pause();
    }
    fn guard(&self, guard: Guard) -> bool {
        self.cut != Cut::Rule(guard)
    }
    fn moment(&self) {
        self.yields();
    }
}
