//! What there is: code, CPUs, tasks and their stacks, and who may do what at a moment.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use lpbuild_abi::Callback;
use lpbuild_runtime::{
    kernel::{Unreliable, Work},
    site::INT3,
};

use crate::{
    coroutine::Coroutine,
    plan::{Plan, Shape},
    rng::Rng,
    target::Target,
};

/// Where the old functions begin; they are 0x100 apart.
pub const OLD: u64 = 0xffff_ffff_8100_0000;
/// Where the carried code of the first patch begins: per function, 0x100 apart, the new version, the copied beginning, the
/// dispatcher. That of the others is 0x10000 apart.
pub const NEW: u64 = 0xffff_ffff_c000_0000;
/// The runtime's own code.
pub const RUNTIME: u64 = 0xffff_ffff_c100_0000;
/// Memory of kernel modules: `struct module` and constants; data.
pub const MODULE: u64 = 0xffff_ffff_a000_0000;
pub const DATA: u64 = 0xffff_ffff_b000_0000;
/// In the carried code of a function of a module, a field with the address of its data.
pub const FIELD: u64 = 0x40;
/// Behind the carried code of a patch, 8 bytes for each module that the patch brings; what the first of them begins with.
pub const BROUGHT: u64 = 0x8000;
pub const BEGINS: u8 = 7;
/// A constant of the kernel, which the first patch may change; what it holds, what that makes of it, and somebody else.
pub const CONSTANT: u64 = 0xffff_ffff_8200_0000;
pub const CONTENTS: [[u8; 16]; 3] = [[1; 16], [2; 16], [9; 16]];
/// Code that nobody patches.
pub const KERNEL: u64 = 0xffff_ffff_8000_0000;
/// Bytes of an old function.
pub const LEN: u32 = 0x40;
/// Distance of the site from the entry.
pub const SITE_OFFSET: u64 = 5;
/// The instructions at a site: 1, 7 and 7 bytes. An abs64 jump covers all of them, a rel32 jump two.
pub const SITE: [u8; 15] = [0x53, 0x48, 0x8b, 0x35, 1, 2, 3, 4, 0x48, 0x8b, 0x0d, 5, 6, 7, 8];
/// The same where the first instruction has 8 bytes: a rel32 jump covers that one alone.
pub const SINGLE: [u8; 15] = [0x48, 0x8b, 0x84, 0x24, 1, 2, 3, 4, 0x48, 0x8b, 0x0d, 5, 6, 7, 8];
/// Places in the body of a function.
pub const BODY: u8 = 3;
/// Where tasks are in memory.
const TASKS: usize = 0x8880_0000;
/// The thread of the operation.
pub const OPERATOR: usize = 0;
/// Tasks and stacks at most.
pub const SLOTS: usize = 32;
/// Functions and patches at most.
pub const FUNCS: usize = 3;
pub const PATCHES: usize = 3;

/// Whose code a function is, by number: 0 is the kernel's, patch `p` has `p + 1`.
pub type Version = usize;
/// The version of each function.
pub type Versions = [Version; FUNCS];

pub fn of(p: usize) -> Version {
    p + 1
}

pub const MS: u64 = 1_000_000;

pub fn id(slot: usize) -> usize {
    TASKS + slot * 64
}
pub fn slot(id: usize) -> usize {
    (id - TASKS) / 64
}
pub fn text(p: usize) -> (u64, u64) {
    let start = NEW + p as u64 * 0x1_0000;
    (start, start + FUNCS as u64 * 0x100)
}
pub fn new_addr(p: usize, f: usize) -> u64 {
    text(p).0 + f as u64 * 0x100
}
pub fn resume_addr(p: usize, f: usize) -> u64 {
    new_addr(p, f) + 0x80
}
pub fn dispatch_addr(p: usize, f: usize) -> u64 {
    new_addr(p, f) + 0xc0
}
/// Where the runtime may write a jump: in the dispatcher, in the copied beginning.
pub fn slots(p: usize, f: usize) -> [u64; 2] {
    [
        dispatch_addr(p, f) + (lpbuild_abi::DISPATCH_LEN - lpbuild_abi::JUMP_REL32_LEN) as u64,
        resume_addr(p, f) + lpbuild_abi::RESUME_SLOT as u64,
    ]
}
pub fn site_addr(f: usize) -> u64 {
    OLD + f as u64 * 0x100 + SITE_OFFSET
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Level {
    Soft,
    Hard,
    Nmi,
}

/// Where a call of a replaced function is.
#[derive(Debug)]
pub enum At {
    Entry,
    /// So many bytes into the site, and what an abs64 jump has loaded.
    Site(u8, Option<u64>),
    /// In the int3 handler of a patch, interrupts off; what it has read of `armed`.
    Trap(usize, Option<bool>),
    Dispatch(usize),
    Choosing(usize, Coroutine, Rc<Cell<Option<bool>>>, usize),
    Chosen(usize, bool),
    /// In the copied beginning that a patch has.
    Resume(usize, u8),
    Old(u8),
    New(usize, u8),
}

#[derive(Debug)]
pub struct Call {
    pub f: usize,
    pub at: At,
    /// When it was called.
    pub since: u64,
    /// The version it runs, once it does.
    pub version: Option<Version>,
    /// It was called as `lp_original`, or directly by one that was: it is meant to be what is below.
    pub below: bool,
}

/// The work of an entry of a patch's table, in a list of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(pub *mut Work, pub usize);

#[derive(Debug)]
pub enum Kind {
    /// A system call, with so many things still to do.
    Syscall(u8),
    /// One that works until then without a pause.
    Work(u64),
    Thread,
    Idle,
    Operator,
    /// Loads and removes a module.
    Loader(usize),
    Stopper,
    Interrupt(Level, u8),
    /// Task works: those taken from the list, and the one that is being called.
    Works(Vec<Asked>, Option<(Coroutine, Asked)>),
    Exit(u8),
    Call(Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Ready,
    /// Until a time; interruptible.
    Asleep(u64, bool),
    Dead,
}

#[derive(Debug)]
pub struct Task {
    /// There is a task in this memory.
    pub exists: bool,
    pub listed: bool,
    pub run: Run,
    pub cpu: usize,
    pub on_cpu: bool,
    /// Outermost first; empty: in user mode.
    pub frames: Vec<Kind>,
    pub holds: usize,
    pub switches: u64,
    pub voluntary: u64,
    /// Since when it has neither slept nor been in user mode.
    pub restless: u64,
    pub kernel: bool,
    pub idle: bool,
    pub stopper: bool,
    pub works: Vec<Asked>,
    pub works_over: bool,
    pub exiting: bool,
    /// It has left the task list: what it runs is the documented residual.
    pub exempt: bool,
    /// The version it has run in this system call.
    pub seen: Option<bool>,
    /// It has a CPU of its own and does not leave it.
    pub pinned: bool,
}

impl Task {
    pub fn none() -> Self {
        Self {
            exists: false,
            listed: false,
            run: Run::Dead,
            cpu: 0,
            on_cpu: false,
            frames: Vec::new(),
            holds: 0,
            switches: 0,
            voluntary: 0,
            restless: 0,
            kernel: false,
            idle: false,
            stopper: false,
            works: Vec::new(),
            works_over: false,
            exiting: false,
            exempt: false,
            seen: None,
            pinned: false,
        }
    }
    /// The innermost interrupt.
    pub fn level(&self) -> Option<Level> {
        self.frames.iter().rev().find_map(|k| if let Kind::Interrupt(l, _) = k { Some(*l) } else { None })
    }
    /// Whether an interrupt of another CPU would be taken.
    pub fn interruptible(&self) -> bool {
        !self.frames.iter().any(|k| match k {
            Kind::Interrupt(l, _) => *l != Level::Soft,
            Kind::Call(c) => matches!(c.at, At::Trap(..)),
            _ => false,
        })
    }
    /// Whether another task could run instead.
    pub fn preemptible(&self) -> bool {
        self.interruptible() && self.level().is_none()
    }
    /// The addresses on the stack, the innermost first.
    pub fn walk(&self, shape: Shape) -> Result<Vec<u64>, Unreliable> {
        if shape.lost {
            return Err(Unreliable::Unwind);
        }
        let mut out = Vec::with_capacity(self.frames.len() + 4);
        for k in self.frames.iter().rev() {
            match k {
                Kind::Operator => return Err(Unreliable::Unwind),
                Kind::Stopper if self.on_cpu => return Err(Unreliable::Unwind),
                Kind::Call(c) => {
                    let carried = matches!(c.at, At::Dispatch(_) | At::Choosing(..) | At::Chosen(..) | At::Resume(..));
                    if carried && shape.gaps {
                        return Err(Unreliable::Unwind);
                    }
                    if matches!(c.at, At::Choosing(..)) {
                        out.push(RUNTIME);
                    }
                    out.push(c.address(shape));
                }
                Kind::Works(_, Some(_)) => out.extend([RUNTIME + 0x100, KERNEL + 0x100]),
                _ => out.push(KERNEL),
            }
        }
        Ok(out)
    }
    /// Whether something of a patch is on the stack: carried code, or the runtime on behalf of the task.
    pub fn in_module(&self, shape: Shape, p: usize) -> bool {
        let (start, end) = text(p);
        self.frames.iter().any(|k| match k {
            Kind::Call(c) => (start..end).contains(&c.address(shape)),
            Kind::Works(list, now) => list.iter().any(|a| a.1 == p) || now.as_ref().is_some_and(|n| n.1.1 == p),
            _ => false,
        })
    }
}

impl Call {
    /// Where it is, or where it goes on.
    pub fn address(&self, shape: Shape) -> u64 {
        let old = OLD + self.f as u64 * 0x100;
        match &self.at {
            At::Entry => old,
            At::Site(o, _) => site_addr(self.f) + u64::from(*o),
            At::Trap(..) => site_addr(self.f) + 1,
            At::Dispatch(p) => dispatch_addr(*p, self.f),
            At::Choosing(p, ..) | At::Chosen(p, _) => dispatch_addr(*p, self.f) + 9,
            At::Resume(p, n) => resume_addr(*p, self.f) + u64::from(*n),
            // Behind a call that never returns is the end of the function.
            At::Old(p) if *p == BODY => old + u64::from(LEN),
            At::Old(p) => site_addr(self.f) + shape.site_len + u64::from(*p) * 4,
            At::New(p, n) => new_addr(*p, self.f) + u64::from(*n) * 4,
        }
    }
}

#[derive(Debug)]
pub struct Cpu {
    pub online: bool,
    pub current: usize,
    /// The code as this CPU knows it.
    pub view: Vec<[u8; 15]>,
    /// Somebody waits for it to serialise.
    pub ipi: bool,
    /// It was seen outside of interrupts.
    pub quiet: bool,
}

/// A stop of the machine.
pub struct Stop {
    pub arrived: Vec<bool>,
    pub done: Vec<bool>,
    pub bodies: Vec<Option<Coroutine>>,
    pub running: bool,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

/// What must hold at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// When the operation began, and what every function is before it and shall be behind it.
    pub begun: u64,
    pub initial: Versions,
    pub goal: Versions,
    /// No stack has both versions on it.
    pub strict: bool,
    /// No system call runs both.
    pub by_task: bool,
    /// All change at once.
    pub at_once: bool,
    /// The first one runs the goal.
    pub flipped: bool,
    /// Calls from then on run these.
    pub from: Option<(u64, Versions)>,
    /// When a table was published first.
    pub published: Option<u64>,
    /// Nobody is made to trap who would do so for long: since when whoever is there must have rested, before the first int3.
    pub rested: Option<u64>,
    /// From then on no call traps.
    pub untrapped: Option<u64>,
    /// The constant changes with the code, in the same stop.
    pub together: bool,
}

impl Rules {
    /// Whether a version is the goal of the operation, or what was before; nothing when the function stays as it is.
    pub fn side(&self, f: usize, version: Version) -> Option<bool> {
        match (self.initial[f], self.goal[f]) {
            (from, to) if from == to => None,
            (_, to) if version == to => Some(true),
            (from, _) if version == from => Some(false),
            _ => None,
        }
    }
}

/// What there is of a patch besides its records.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Its code is there.
    pub module: bool,
    pub notifier: bool,
    /// It is told of modules that come and go.
    pub registered: bool,
    /// Its outermost lock.
    pub holders_held: bool,
    /// It is applied, and nothing is being done to it.
    pub applied: bool,
    /// Another one takes its place.
    pub taken: bool,
    /// Patches that lie on it.
    pub on_top: usize,
    /// Those it holds.
    pub holds: Vec<usize>,
    /// What the jumps of its dispatchers and copied beginnings are; none: as they were made.
    pub jumps: [[Option<[u8; 5]>; 2]; FUNCS],
    /// What `lp_original` of its functions shall lead to.
    pub below: Versions,
    /// Callbacks called in this operation.
    pub called: Vec<Callback>,
}

#[derive(Debug)]
pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub now: u64,
    /// Nobody who sleeps is to wake earlier.
    pub due: u64,
    pub steps: u64,
    pub code: Vec<[u8; 15]>,
    pub cpus: Vec<Cpu>,
    pub tasks: Vec<Task>,
    /// The CPU that executes this micro-step.
    pub here: usize,
    pub stop: Option<Stop>,
    pub hotplug_held: bool,
    pub text_mutex: bool,
    pub list_held: bool,
    /// How many call the chain of the modules' notifiers.
    pub chain: usize,
    pub targets: Vec<Target>,
    /// Tasks that load and remove them.
    pub loaders: Vec<usize>,
    /// Carried bytes that were written: fields, and what is brought for modules.
    pub written: BTreeMap<u64, u8>,
    /// What a kprobe has replaced by its int3.
    pub probes: Vec<Option<u8>>,
    /// What the constant holds, and what somebody else has replaced by his own.
    pub constant: [u8; 16],
    pub spoilt: Option<[u8; 16]>,
    pub patches: Vec<Life>,
    /// The patch whose operation is under way.
    pub operating: usize,
    /// The version of each function, outside of an operation.
    pub versions: Versions,
    /// Writable views, and whose.
    pub views: Vec<(u64, usize)>,
    pub finished: bool,
    /// Tasks were switched wherever they were: they may run both versions for good.
    pub forced: bool,
    pub rules: Rules,
    /// Memory, and whose.
    pub blocks: Vec<(usize, Box<[u64]>, usize)>,
    pub freed: Vec<Box<[u64]>>,
    pub failure: Option<String>,
    pub log: Vec<String>,
    pub trace: bool,
    pub outcomes: Vec<&'static str>,
}

/// What a CPU makes of the bytes it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    Int3,
    /// One of the original instructions; the next one is so many bytes into the site.
    Original(u8),
    /// The first half of an abs64 jump.
    Load(u64),
    Jump(u64),
    Torn,
}

impl World {
    pub fn fail(&mut self, what: String) {
        if self.trace {
            self.note(|| format!("FAILURE {what}"));
        }
        self.failure.get_or_insert(what);
    }
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace {
            let line = format!("{:>7} {:>10}us cpu{} {}", self.steps, self.now / 1000, self.here, what());
            self.log.push(line);
        }
    }
    pub fn current(&mut self) -> &mut Task {
        let at = self.cpus[self.here].current;
        &mut self.tasks[at]
    }
    pub fn serialize(&mut self, cpu: usize) {
        self.cpus[cpu].view.clone_from(&self.code);
    }
    /// Time goes by, and who slept until then is ready.
    pub fn pass(&mut self, ns: u64) {
        self.now += ns;
        if self.now < self.due {
            return;
        }
        self.due = u64::MAX;
        for t in &mut self.tasks {
            match t.run {
                Run::Asleep(until, _) if until <= self.now => t.run = Run::Ready,
                Run::Asleep(until, _) => self.due = self.due.min(until),
                _ => {}
            }
        }
    }
    /// The bytes this CPU sees: of those that have changed since it serialised, any may be the new ones already.
    pub fn fetch(&mut self, f: usize, offset: u8, first: Option<u8>, loaded: Option<u64>) -> Decoded {
        let view = &mut self.cpus[self.here].view[f];
        if *view != self.code[f] {
            for (seen, &is) in view.iter_mut().zip(&self.code[f]) {
                if *seen != is && self.rng.one_in(2) {
                    *seen = is;
                }
            }
        }
        let mut bytes = *view;
        if let Some(b) = first {
            bytes[0] = b;
        }
        decode(&bytes, f, offset, loaded)
    }
    pub fn free_slot(&self) -> Option<usize> {
        self.tasks.iter().position(|t| !t.exists)
    }
    /// The memory of a task goes when nobody wants it any more.
    pub fn reap(&mut self, slot: usize) {
        let t = &mut self.tasks[slot];
        if t.exists && t.run == Run::Dead && !t.listed && t.holds == 0 && !t.on_cpu {
            *t = Task::none();
        }
    }
}

fn decode(bytes: &[u8; 15], f: usize, offset: u8, loaded: Option<u64>) -> Decoded {
    let is_target = |t: u64| (0..PATCHES).any(|p| t == new_addr(p, f) || t == dispatch_addr(p, f));
    match offset {
        0 if bytes[0] == INT3 => Decoded::Int3,
        0 if bytes[0] == SITE[0] => Decoded::Original(1),
        0 if bytes[..8] == SINGLE[..8] => Decoded::Original(8),
        0 if bytes[0] == 0xe9 => {
            let rel = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
            let to = (site_addr(f) + 5).wrapping_add_signed(rel.into());
            if is_target(to) { Decoded::Jump(to) } else { Decoded::Torn }
        }
        0 if bytes[..2] == [0x48, 0xb8] => {
            let to = u64::from_le_bytes(bytes[2..10].try_into().unwrap_or_default());
            if is_target(to) { Decoded::Load(to) } else { Decoded::Torn }
        }
        1 if bytes[1..8] == SITE[1..8] => Decoded::Original(8),
        8 if bytes[8..15] == SITE[8..15] => Decoded::Original(15),
        10 if bytes[10..12] == [0xff, 0xe0] => loaded.map_or(Decoded::Torn, Decoded::Jump),
        _ => Decoded::Torn,
    }
}

impl World {
    /// Whether an address is in memory that was given back.
    pub fn freed_at(&self, addr: usize) -> bool {
        self.freed.iter().any(|b| (b.as_ptr() as usize..b.as_ptr() as usize + b.len() * 8).contains(&addr))
    }
}

impl World {
    /// A byte of the carried code: nothing but calls of the patch's own functions, of which each function has one of each.
    pub fn carried(&self, at: u64) -> Option<u8> {
        let (p, offset) = (((at - NEW) >> 16) as usize, (at & 0xffff) as usize);
        let (f, inside) = (offset / 0x100, offset % 0x100);
        if let Some(byte) = self.written.get(&at) {
            return Some(*byte);
        }
        if let Some(n) = (offset as u64).checked_sub(BROUGHT).filter(|n| *n < 8 * self.targets.len() as u64) {
            return Some(if n % 8 == 0 { BEGINS } else { 0 });
        }
        if self.plan.target[f.min(FUNCS - 1)].is_some() && (FIELD..FIELD + 8).contains(&(inside as u64)) {
            return Some(0);
        }
        let plan = self.plan.patches.get(p).filter(|_| f < FUNCS)?;
        let (g, byte) = (inside / 8, inside % 8);
        if g >= FUNCS || !plan.direct[f][g] || byte > 4 {
            return Some(0x90);
        }
        let next = new_addr(p, f) + g as u64 * 8 + 5;
        let rel = (new_addr(p, g) as i64 - next as i64) as i32;
        Some([&[0xe8][..], &rel.to_le_bytes()].concat()[byte])
    }
    /// Where a jump of a patch's own code leads: that of the dispatcher (0), or that in the copied beginning (1).
    pub fn jump(&self, p: usize, f: usize, which: usize) -> Option<u64> {
        let bytes = self.patches[p].jumps[f][which]?;
        let rel = i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        Some((slots(p, f)[which] + 5).wrapping_add_signed(rel.into()))
    }
    /// A byte of one of them is written; `false`: there is none.
    pub fn write_jump(&mut self, alias: u64, offset: usize, byte: u8) -> bool {
        let all = (0..self.patches.len()).flat_map(|p| (0..FUNCS).flat_map(move |f| [(p, f, 0), (p, f, 1)]));
        let Some((p, f, which)) = all.clone().find(|&(p, f, which)| slots(p, f)[which] == alias) else { return false };
        let inside = |c: &Call| {
            c.f == f
                && match c.at {
                    At::Dispatch(q) | At::Choosing(q, ..) | At::Chosen(q, _) => q == p && which == 0,
                    At::Resume(q, _) => q == p && which == 1,
                    _ => false,
                }
        };
        let there = |t: &Task| t.frames.iter().any(|k| matches!(k, Kind::Call(c) if inside(c)));
        if let Some(slot) = self.tasks.iter().position(there) {
            self.fail(format!("a jump in the code of patch {p} changes while task {slot} is there"));
        }
        let jump = &mut self.patches[p].jumps[f][which];
        match (offset, byte) {
            (0, 0xe9) => *jump = Some([0xe9, 0, 0, 0, 0]),
            // What was there before.
            (0, _) => *jump = None,
            _ => {
                if let Some(bytes) = jump {
                    bytes[offset] = byte;
                }
            }
        }
        true
    }
}
