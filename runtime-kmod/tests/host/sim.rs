//! A kernel of a few hundred bytes, some tasks and real threads for CPUs.
//!
//! Every write goes through [`Sim::write`], which checks the poke protocol as an NMI on another CPU would: tails change
//! only behind an int3 that all CPUs have seen, and an int3 goes only when all CPUs have seen the tail behind it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use lpbuild_abi::{ABI_VERSION, DataRecord, FuncRecord, MAGIC, PatchRecord, RangeRecord, Region};
use lpbuild_runtime::{
    board::Board,
    constants::Constants,
    kernel::{Kernel, Level, Rest, Seen, Unreliable, View, Who, Work},
    machine::{Machine, Parts, Step},
    record::Patch,
    site::{INT3, Site, site},
    sites::SiteSet,
};

/// Where the simulated old functions begin; they are 0x40 bytes long and 0x100 apart.
pub const OLD: u64 = 0xffff_ffff_8100_0000;
/// Where the new ones begin.
pub const NEW: u64 = 0xffff_ffff_c000_0000;
/// Bytes of an old function.
pub const LEN: u32 = 0x40;
/// The site of every function: behind a 5-byte fentry nop, two instructions, 8 bytes.
pub const SITE: [u8; 8] = [0x53, 0x48, 0x8b, 0x35, 1, 2, 3, 4];

/// A constant of the kernel, at no multiple of 8; what it holds without the patch, and with it.
pub const CONSTANT: u64 = 0xffff_ffff_8200_000c;
pub static OLD_CONTENT: [u8; 84] = [1; 84];
pub static NEW_CONTENT: [u8; 84] = [2; 84];

thread_local!(static CPU: Cell<usize> = const { Cell::new(0) });

/// A task: identity, CPU, stack.
#[derive(Clone, Debug)]
pub struct Task {
    pub id: usize,
    pub cpu: usize,
    pub stack: Result<Vec<u64>, Unreliable>,
}

/// A site as the write checks know it.
#[derive(Clone, Copy, Debug)]
struct Watched {
    addr: u64,
    int3_at: u64,
    tail_at: u64,
}

/// A kernel module.
#[derive(Debug, Clone, Default)]
pub struct FakeModule {
    pub name: &'static str,
    /// Symbols in the order of its table.
    pub symbols: Vec<(&'static str, u64)>,
    /// Text, constants, constant behind init, variables, per-CPU variables: first byte and length.
    pub regions: [(u64, u64); 5],
}

#[derive(Debug, Default)]
pub struct World {
    pub memory: BTreeMap<u64, u8>,
    pub probes: Vec<u64>,
    pub tasks: Vec<Task>,
    pub log: Vec<String>,
    /// Changes made while the machine is stopping, after all checks that come before.
    pub on_stop: Vec<(u64, u8)>,
    pub probe_on_stop: Option<u64>,
    /// Number of writes so far, and the count each CPU knows of.
    seq: u64,
    known: Vec<u64>,
    sites: Vec<Watched>,
    pub writes: usize,
    /// Constants written.
    pub constants: usize,
    memory_blocks: BTreeMap<usize, usize>,
    held: BTreeMap<usize, usize>,
    /// These tasks work in the kernel without a pause.
    pub restless: Vec<usize>,
    /// The code of modules.
    pub own_code: Vec<std::ops::Range<u64>>,
    /// Kernel modules that are here, by number.
    pub modules: BTreeMap<usize, FakeModule>,
    /// What was waited for.
    pub story: Vec<String>,
    /// Code of modules that cannot run yet: it is written as any memory.
    pub unborn: Vec<std::ops::Range<u64>>,
    /// Where nothing is to be written.
    pub forbidden: std::ops::Range<u64>,
    /// Writable views.
    pub views: usize,
    /// These tasks are kernel threads.
    pub threads: Vec<usize>,
    /// Tasks that were woken or sent to user mode as by a signal, and when, milliseconds.
    pub disturbed: Vec<(usize, u64)>,
}

#[derive(Debug)]
pub struct Sim {
    pub cpus: usize,
    pub world: Mutex<World>,
    time: AtomicU64,
    pub stops: AtomicUsize,
    /// This CPU comes only when everyone else has left.
    pub late: AtomicUsize,
    /// This CPU comes, but answers nothing until the primary has left.
    pub mute: AtomicUsize,
    pub stop_fails: bool,
    /// Whether int3 hits are diverted.
    pub armed: Arc<AtomicBool>,
    over: AtomicBool,
    waiting: AtomicBool,
    /// A CPU has failed an assertion: the others must not wait for it.
    doomed: AtomicBool,
    stopped_at: Mutex<Option<Instant>>,
    pub no_memory: AtomicBool,
    pub allocated: AtomicUsize,
}

/// Real time after which CPUs that still wait for each other fail the test.
const HANG: Duration = Duration::from_secs(20);

/// Dooms the others when its thread fails.
struct Doom<'a>(&'a AtomicBool);

impl Drop for Doom<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, SeqCst);
        }
    }
}

/// No CPU.
pub const NOBODY: usize = usize::MAX;
pub const OPERATOR: usize = 7;

impl Sim {
    pub fn new(cpus: usize) -> Self {
        // Stopper threads and the operator cannot be unwound, as in a real kernel.
        let unwalkable = |id, cpu| Task { id, cpu, stack: Err(Unreliable::Unwind) };
        let mut tasks: Vec<Task> = (0..cpus).map(|c| unwalkable(100 + c, c)).collect();
        tasks.push(unwalkable(OPERATOR, 0));
        tasks.push(Task { id: 500, cpu: 0, stack: Ok(vec![0x1234, 0x5678]) });
        let world = World { tasks, known: vec![0; cpus], ..World::default() };
        Self {
            cpus,
            world: Mutex::new(world),
            time: AtomicU64::new(0),
            stops: AtomicUsize::new(0),
            late: AtomicUsize::new(NOBODY),
            mute: AtomicUsize::new(NOBODY),
            stop_fails: false,
            armed: Arc::default(),
            over: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            stopped_at: Mutex::new(None),
            no_memory: AtomicBool::new(false),
            allocated: AtomicUsize::new(0),
        }
    }
    /// Fails instead of waiting for ever.
    fn check_hang(&self) {
        assert!(!self.doomed.load(SeqCst), "another CPU has failed");
        let since = *self.stopped_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(since.is_none_or(|t| t.elapsed() < HANG), "the CPUs wait for each other");
    }
    pub fn world(&self) -> MutexGuard<'_, World> {
        // A failed assertion in one thread must show as itself, not as a poisoned lock.
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    pub fn put(&self, addr: u64, bytes: &[u8]) {
        let mut w = self.world();
        for (i, &b) in bytes.iter().enumerate() {
            w.memory.insert(addr + i as u64, b);
        }
    }
    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        assert!(self.read(addr, &mut buf), "{addr:#x} is not mapped");
        buf
    }
    pub fn task(&self, id: usize, stack: Result<Vec<u64>, Unreliable>) {
        self.world().tasks.push(Task { id, cpu: 0, stack });
    }
    pub fn remove_task(&self, id: usize) {
        self.world().tasks.retain(|t| t.id != id);
    }
    pub fn pass(&self, ms: u64) {
        self.time.fetch_add(ms * 1_000_000, SeqCst);
    }
    /// Pieces of memory that were not given back.
    pub fn blocks(&self) -> usize {
        self.world().memory_blocks.len()
    }
    pub fn writes(&self) -> usize {
        self.world().writes
    }
}

impl Kernel for Sim {
    type Task = usize;
    type Alias = u64;

    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let w = self.world();
        for (i, b) in buf.iter_mut().enumerate() {
            let Some(&v) = addr.checked_add(i as u64).and_then(|a| w.memory.get(&a)) else { return false };
            *b = v;
        }
        true
    }
    fn probe_at(&self, addr: u64) -> bool {
        self.world().probes.contains(&addr)
    }
    fn now_ns(&self) -> u64 {
        self.time.load(SeqCst)
    }
    fn symbol(&self, addr: u64, out: &mut [u8]) -> usize {
        if addr < OLD {
            return 0;
        }
        let (base, name, module) = if addr < NEW { (OLD, "old", "") } else { (NEW, "new", " [other]") };
        let text = format!("{name}_{}+{:#x}/0x40{module}", (addr - base) / 0x100, (addr - base) % 0x100);
        out[..text.len()].copy_from_slice(text.as_bytes());
        text.len()
    }
    fn log(&self, _: Level, line: &[u8]) {
        self.world().log.push(String::from_utf8(line.to_vec()).expect("log lines are text"));
    }
    fn map(&self, addr: u64, len: usize) -> Option<u64> {
        // What is not there has no page.
        let mut w = self.world();
        let there = (0..len as u64).all(|i| w.memory.contains_key(&addr.wrapping_add(i)));
        w.views += usize::from(there);
        there.then_some(addr)
    }
    fn unmap(&self, _: u64) {
        self.world().views -= 1;
    }

    fn write(&self, alias: u64, offset: usize, bytes: &[u8]) {
        let mut w = self.world();
        w.seq += 1;
        w.writes += 1;
        let seq = w.seq;
        let last = alias + (offset + bytes.len()) as u64;
        let first = alias + offset as u64;
        assert!(last <= w.forbidden.start || w.forbidden.end <= first, "{first:#x} is not to be written");
        if w.own_code.iter().chain(&w.unborn).any(|r| r.contains(&alias)) {
            // Code of the patch itself, where nobody is.
            for (n, &b) in bytes.iter().enumerate() {
                w.memory.insert(alias + (offset + n) as u64, b);
            }
            return;
        }
        let all_know = |w: &World, at: u64| w.known.iter().all(|&k| k >= at);
        let i = w.sites.iter().position(|s| s.addr == alias).unwrap_or_else(|| {
            w.sites.push(Watched { addr: alias, int3_at: 0, tail_at: 0 });
            w.sites.len() - 1
        });
        let s = w.sites[i];
        if offset == 0 {
            assert_eq!(bytes.len(), 1, "the first byte is written alone");
            if bytes == [INT3] {
                assert!(self.armed.load(SeqCst), "an int3 that nobody diverts");
                w.sites[i].int3_at = seq;
            } else {
                assert_eq!(w.memory[&alias], INT3, "a first byte changed without an int3 before it");
                assert!(s.tail_at == 0 || all_know(&w, s.tail_at), "an int3 went before every CPU knew the tail");
                w.sites[i] = Watched { addr: alias, int3_at: 0, tail_at: 0 };
            }
        } else {
            assert_eq!(w.memory[&alias], INT3, "a tail changed without an int3 before it");
            assert!(s.int3_at != 0 && all_know(&w, s.int3_at), "a tail changed before every CPU knew the int3");
            w.sites[i].tail_at = seq;
        }
        for (n, &b) in bytes.iter().enumerate() {
            w.memory.insert(alias + (offset + n) as u64, b);
        }
        let me = CPU.get();
        let known = seq.max(w.known[me]);
        w.known[me] = known;
    }
    fn change(&self, alias: u64, bytes: &[u8]) {
        assert!(self.stopped_at.lock().is_ok_and(|t| t.is_some()), "a constant changes while the machine runs");
        let mut w = self.world();
        w.constants += 1;
        let last = alias + bytes.len() as u64;
        assert!(last <= w.forbidden.start || w.forbidden.end <= alias, "{alias:#x} is not to be written");
        for (at, &b) in (alias..).zip(bytes) {
            w.memory.insert(at, b);
        }
    }
    fn serialize(&self) {
        if self.mute.load(SeqCst) == CPU.get() {
            while !self.over.load(SeqCst) {
                self.check_hang();
                std::thread::yield_now();
            }
        }
        let mut w = self.world();
        let seq = w.seq;
        w.known[CPU.get()] = seq;
    }
    fn serialize_all(&self) {
        let mut w = self.world();
        let seq = w.seq;
        w.known.fill(seq);
    }

    fn module(&self, name: &[u8]) -> Option<usize> {
        self.world().modules.iter().find(|(_, m)| m.name.as_bytes() == name).map(|(at, _)| *at)
    }
    fn module_symbol(&self, module: usize, name: &[u8], position: u32, count: u32) -> Option<u64> {
        let w = self.world();
        let all: Vec<u64> = w.modules[&module].symbols.iter().filter(|s| s.0.as_bytes() == name).map(|s| s.1).collect();
        all.get(position as usize).copied().filter(|_| all.len() == count as usize)
    }
    fn module_region(&self, module: usize, region: Region) -> (u64, u64) {
        self.world().modules[&module].regions[region as usize - 1]
    }
    fn synchronize(&self) {
        self.world().story.push("synchronize".into());
    }

    fn online_cpus(&self) -> usize {
        self.cpus
    }
    fn this_cpu(&self) -> usize {
        CPU.get()
    }
    fn current(&self) -> usize {
        100 + CPU.get()
    }
    fn stop<F: Fn() + Sync>(&self, f: &F) -> bool {
        self.stops.fetch_add(1, SeqCst);
        // Until the machine stands still and the sites were compared, an int3 at one of them is another patch's.
        assert!(!self.armed.load(SeqCst), "diverts int3 hits before it knows whose they are");
        if self.stop_fails {
            return false;
        }
        {
            let mut w = self.world();
            for (addr, b) in std::mem::take(&mut w.on_stop) {
                w.memory.insert(addr, b);
            }
            let probe = w.probe_on_stop.take();
            w.probes.extend(probe);
        }
        self.over.store(false, SeqCst);
        self.waiting.store(false, SeqCst);
        *self.stopped_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        let left = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for cpu in 0..self.cpus {
                let left = &left;
                s.spawn(move || {
                    CPU.set(cpu);
                    let _doom = Doom(&self.doomed);
                    let others = self.cpus - 1;
                    while self.late.load(SeqCst) == cpu && left.load(SeqCst) < others {
                        self.check_hang();
                        std::thread::yield_now();
                    }
                    // A mute CPU must not be the primary.
                    while self.mute.load(SeqCst) == cpu && !self.waiting.load(SeqCst) {
                        self.check_hang();
                        std::thread::yield_now();
                    }
                    f();
                    // The primary is the first to leave; whoever is mute may answer from now on.
                    self.over.store(true, SeqCst);
                    left.fetch_add(1, SeqCst);
                });
            }
        });
        true
    }
    fn relax(&self) {
        self.check_hang();
        self.waiting.store(true, SeqCst);
        // Time runs fast only where someone is to be given up on, however slow the threads of the test are.
        let absent = self.late.load(SeqCst) != NOBODY || self.mute.load(SeqCst) != NOBODY;
        self.time.fetch_add(if absent { 100_000 } else { 10 }, SeqCst);
        std::thread::yield_now();
    }

    fn for_each_task<F: FnMut(usize)>(&self, mut f: F) {
        let ids: Vec<usize> = self.world().tasks.iter().map(|t| t.id).collect();
        ids.into_iter().for_each(&mut f);
    }
    fn task_id(&self, task: usize) -> usize {
        task
    }
    fn task_cpu(&self, task: usize) -> usize {
        self.world().tasks.iter().find(|t| t.id == task).map_or(0, |t| t.cpu)
    }
    fn is_operator(&self, task: usize) -> bool {
        task == OPERATOR
    }
    fn stack(&self, task: usize, frames: &mut [u64]) -> Result<usize, Unreliable> {
        let stack = self.world().tasks.iter().find(|t| t.id == task).expect("a listed task").stack.clone()?;
        // As the kernel: a stack that fills the buffer is an error.
        frames.get_mut(..stack.len() + 1).ok_or(Unreliable::Unwind)?[..stack.len()].copy_from_slice(&stack);
        Ok(stack.len())
    }
    fn who(&self, task: usize) -> Who {
        let mut who = Who { pid: task as i32, ..Who::default() };
        who.comm[..5].copy_from_slice(b"t ask");
        who
    }

    fn allocate(&self, bytes: usize) -> Option<*mut u8> {
        if self.no_memory.load(SeqCst) {
            return None;
        }
        let memory = vec![0u64; bytes.div_ceil(8)].into_boxed_slice();
        self.allocated.fetch_add(1, SeqCst);
        let start = Box::into_raw(memory);
        self.world().memory_blocks.insert(start.cast::<u8>() as usize, bytes.div_ceil(8));
        Some(start.cast())
    }
    fn free(&self, memory: *mut u8) {
        let len = self.world().memory_blocks.remove(&(memory as usize)).expect("freed once");
        // SAFETY: made by `allocate` with this length.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory.cast::<u64>(), len)) });
    }
    fn count_tasks(&self) -> usize {
        self.world().tasks.len()
    }
    fn census<F: FnMut(usize), L: FnOnce()>(&self, f: F, last: L) {
        self.for_each_task(f);
        last();
    }
    fn hold(&self, task: usize) {
        *self.world().held.entry(task).or_default() += 1;
    }
    fn release(&self, task: usize) {
        *self.world().held.get_mut(&task).expect("a held task") -= 1;
    }
    fn held(&self, task: usize) -> usize {
        task
    }
    fn look<F: FnMut(View<'_>)>(&self, task: usize, _: &mut [u64], mut f: F) -> Seen {
        let found = self.world().tasks.iter().find(|t| t.id == task).cloned();
        let Some(found) = found else { return Seen::Dead };
        // Stopper threads sleep outside of a stop.
        let stack = if task >= 100 && task < 100 + self.cpus { Ok(vec![]) } else { found.stack };
        let frames = match &stack {
            Ok(f) => Ok(f.as_slice()),
            Err(e) => Err(*e),
        };
        let kernel = self.world().threads.contains(&task);
        f(View { frames, blocked: true, switches: 1, kernel });
        Seen::Looked
    }
    fn rest(&self, task: usize, _: &mut [u64]) -> Rest {
        if self.world().restless.contains(&task) { Rest::Works(1) } else { Rest::Rests }
    }
    fn send_to_boundary(&self, task: usize, _: *mut Work, urgent: bool) -> bool {
        if urgent {
            self.nudge(task);
        }
        false
    }
    fn recall(&self, _: usize, _: *mut Work) -> bool {
        true
    }
    fn nudge(&self, task: usize) {
        let now = self.now_ns() / 1_000_000;
        self.world().disturbed.push((task, now));
    }
    fn breathe(&self) {}
}

/// All of the memory there is.
pub struct Everything;

impl lpbuild_runtime::record::Memory for Everything {
    fn holds(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// A patch of `n` functions, and everything a machine needs.
pub struct Fixture {
    pub sim: Sim,
    pub record: PatchRecord,
    pub funcs: Vec<FuncRecord>,
    pub ranges: Vec<RangeRecord>,
    pub data: Vec<DataRecord>,
    names: Vec<std::ffi::CString>,
    pub armed: Arc<AtomicBool>,
    pub seats: Vec<AtomicUsize>,
}

impl Fixture {
    pub fn new(cpus: usize, n: usize) -> Self {
        let sim = Sim::new(cpus);
        let name = |s: String| std::ffi::CString::new(s).expect("no NUL");
        let mut names = vec![name("demo".into()), name("1.0".into())];
        let (mut funcs, mut ranges) = (Vec::new(), Vec::new());
        for i in 0..n {
            names.push(name(format!("func_{i}")));
            let mut original = [0; lpbuild_abi::MAX_SITE];
            original[..SITE.len()].copy_from_slice(&SITE);
            let old = OLD + i as u64 * 0x100;
            sim.put(old, &[0x90; LEN as usize]);
            sim.put(old + 5, &SITE);
            funcs.push(FuncRecord {
                old,
                new: NEW + i as u64 * 0x100,
                name: names[i + 2].as_ptr() as u64,
                old_size: LEN,
                new_size: 0x80,
                site_offset: 5,
                site_size: SITE.len() as u8,
                jump_kind: 1,
                covers_fentry: 0,
                original,
                single: 0,
                resume: 0,
                dispatch: 0,
                anchor: 0,
                zero: 0,
            });
            ranges.push(RangeRecord { start: old, len: LEN, func: i as u32, anchor: 0, zero: 0 });
        }
        let record = PatchRecord {
            magic: MAGIC,
            abi_version: ABI_VERSION,
            mode: 1,
            build_id_len: 20,
            flags: 0,
            build_id: std::array::from_fn(|i| if i < 20 { 7 } else { 0 }),
            deadline_ms: 1000,
            n_funcs: n as u32,
            n_ranges: n as u32,
            patience_ms: 15_000,
            funcs: funcs.as_ptr() as u64,
            ranges: ranges.as_ptr() as u64,
            name: names[0].as_ptr() as u64,
            version: names[1].as_ptr() as u64,
            notes_start: 0x9000,
            notes_end: 0x9000,
            text_start: NEW,
            text_end: NEW + n as u64 * 0x100,
            after: 0,
            replaces: 0,
            n_after: 0,
            n_replaces: 0,
            digest: 0,
            holders: 0,
            anchors: 0,
            relocs: 0,
            n_holders: 0,
            n_anchors: 0,
            n_relocs: 0,
            n_kernel_funcs: n as u32,
            n_kernel_ranges: n as u32,
            n_data: 0,
            data: 0,
        };
        let seats = (0..cpus).map(|_| AtomicUsize::new(0)).collect();
        let armed = Arc::clone(&sim.armed);
        Self { sim, record, funcs, ranges, data: Vec::new(), names, armed, seats }
    }
    /// The same with a constant of the kernel that changes from `OLD_CONTENT` to `NEW_CONTENT`.
    pub fn with_constant(cpus: usize, n: usize) -> Self {
        let mut f = Self::new(cpus, n);
        f.sim.put(CONSTANT, &OLD_CONTENT);
        let name = f.names[0].as_ptr() as u64;
        let (old, new) = (OLD_CONTENT.as_ptr() as u64, NEW_CONTENT.as_ptr() as u64);
        f.data.push(DataRecord { addr: CONSTANT, old, new, name, len: OLD_CONTENT.len() as u32, zero: 0 });
        (f.record.data, f.record.n_data) = (f.data.as_ptr() as u64, 1);
        f
    }
    /// The constant as it is.
    pub fn content(&self) -> Vec<u8> {
        self.sim.get(CONSTANT, OLD_CONTENT.len())
    }
    /// The strings of the records.
    pub fn names(&self) -> &[std::ffi::CString] {
        &self.names
    }
    pub fn patch(&self) -> Patch<'_> {
        // SAFETY: the vectors and strings behind the addresses live as long as the fixture.
        unsafe { Patch::unsealed(&self.record, &Everything) }.expect("the fixture is valid")
    }
    pub fn sites(&self) -> Vec<Site<u64>> {
        let patch = self.patch();
        (0..patch.funcs.len())
            .map(|i| site(&patch, i, OLD + i as u64 * 0x100 + 5, OLD + i as u64 * 0x100 + 5).expect("in reach"))
            .collect()
    }
    /// Runs `f` with a machine.
    pub fn with<R>(&self, f: impl FnOnce(&mut Machine<'_, Sim>) -> R) -> R {
        let (sites, mut frames, board, constants) = (self.sites(), [0; 16], Board::new(), Constants::new());
        assert_eq!(constants.prepare(&self.sim, &self.patch()), Ok(()));
        let (cancel, force) = (AtomicBool::new(false), AtomicBool::new(false));
        let parts = Parts {
            sites: SiteSet::new(&sites, &[]),
            located: &[],
            others: &[],
            constants: &constants,
            armed: &self.armed,
            board: &board,
            cancel: &cancel,
            force: &force,
            seats: &self.seats,
            frames: &mut frames,
        };
        let out = f(&mut Machine::new(&self.sim, self.patch(), parts));
        constants.clear(&self.sim);
        out
    }
    /// Bytes at the site of function `i`.
    pub fn bytes(&self, i: usize) -> Vec<u8> {
        self.sim.get(OLD + i as u64 * 0x100 + 5, SITE.len())
    }
    pub fn original(&self) -> bool {
        (0..self.funcs.len()).all(|i| self.bytes(i) == SITE)
    }
}

/// Calls `step` until the operation ends, passing the time it asks for. Returns the last step and the waits.
pub fn run(sim: &Sim, mut step: impl FnMut() -> Step) -> (Step, Vec<u64>) {
    let mut waits = Vec::new();
    loop {
        match step() {
            Step::Again(ms) => {
                waits.push(ms);
                assert!(waits.len() < 1000, "it never gives up");
                sim.pass(ms);
            }
            Step::RcuTasks => {}
            end => return (end, waits),
        }
    }
}
