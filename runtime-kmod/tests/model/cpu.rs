//! What a CPU does in one micro-step.

use std::{cell::Cell, rc::Rc, sync::atomic::Ordering::SeqCst};

use lpbuild_runtime::{
    board::Entry,
    site::{Diverted, divert},
    switch::Scan,
};

use crate::{
    check,
    coroutine::{Coroutine, pause},
    sim::Sim,
    world::{
        Asked, At, BODY, Call, Decoded, Kind, Level, MS, OPERATOR, Run, Task, World, dispatch_addr, id, new_addr, of,
        resume_addr, site_addr,
    },
};

/// One micro-step of a CPU. `operator` goes on when it is its turn; `true`: it has ended.
pub fn step(sim: &Sim, cpu: usize, operator: &mut Coroutine, loaders: &mut [Coroutine]) -> bool {
    let mut w = sim.world();
    if !w.cpus[cpu].online {
        return false;
    }
    w.here = cpu;
    w.steps += 1;
    let ns = 200 + w.rng.below(800) as u64;
    w.pass(ns);
    if w.current().level().is_none() {
        w.cpus[cpu].quiet = true;
    }
    if w.current().interruptible() && w.cpus[cpu].ipi && w.rng.one_in(3) {
        w.serialize(cpu);
        w.cpus[cpu].ipi = false;
        return false;
    }
    if in_stop(&mut w, cpu) {
        // The rendezvous is the only thing that goes on, but for NMIs.
        let nmi = w.current().level();
        if nmi.is_none() && !(w.rng.one_in(40) && interrupt(&mut w, Level::Nmi)) {
            let body = w.stop.as_mut().and_then(|s| s.bodies[cpu].take());
            drop(w);
            let Some(mut body) = body else { return false };
            let ended = body.resume();
            let mut w = sim.world();
            if let Some(s) = &mut w.stop {
                if ended {
                    s.done[cpu] = true;
                } else {
                    s.bodies[cpu] = Some(body);
                }
            }
            return false;
        }
    } else if w.rng.one_in(25) {
        let level = w.rng.pick(&[Level::Soft, Level::Hard, Level::Soft, Level::Nmi]);
        if interrupt(&mut w, level) {
            return false;
        }
    }
    run(sim, w, operator, loaders)
}

/// Begins an interrupt on this CPU, when it can come now.
fn interrupt(w: &mut World, level: Level) -> bool {
    let t = w.current();
    if t.level().is_some_and(|l| l >= level) || level != Level::Nmi && !t.interruptible() || t.frames.len() > 10 {
        return false;
    }
    let n = w.rng.below(3) as u8 + 1;
    w.current().frames.push(Kind::Interrupt(level, n));
    true
}

/// Takes this CPU into the stop of the machine and out of it; `true`: it is in it, interrupts off.
fn in_stop(w: &mut World, cpu: usize) -> bool {
    let Some(s) = &w.stop else { return false };
    let calm = |c: &crate::world::Cpu| !c.online || w.tasks[c.current].level().is_none();
    if s.running && s.done.iter().all(|d| *d) && w.cpus.iter().all(calm) {
        w.stop = None;
        w.tasks[OPERATOR].run = Run::Ready;
        for c in 0..w.cpus.len() {
            let now = w.cpus[c].current;
            if w.tasks[now].stopper {
                w.here = c;
                put_off(w, Run::Asleep(u64::MAX, false), true);
            }
        }
        w.here = cpu;
        return false;
    }
    if !s.arrived[cpu] {
        if w.current().preemptible() && w.rng.one_in(2) {
            let busy = w.tasks[w.cpus[cpu].current].run;
            let voluntary = busy != Run::Ready;
            leave_cpu(w, busy, voluntary);
            let stopper = w.tasks.iter().position(|t| t.stopper && t.cpu == cpu).unwrap_or_default();
            w.tasks[stopper].run = Run::Ready;
            enter_cpu(w, stopper);
            if let Some(s) = &mut w.stop {
                s.arrived[cpu] = true;
            }
        }
        return false;
    }
    let all_in = s.arrived.iter().all(|a| *a)
        && w.cpus.iter().zip(&s.done).all(|(c, done)| *done || !c.online || w.tasks[c.current].level().is_none());
    let running = s.running || all_in;
    if running && !s.running {
        w.note(|| "the machine stands still".into());
    }
    if let Some(s) = &mut w.stop {
        s.running = running;
    }
    running
}

/// The task that runs here does not any more.
fn leave_cpu(w: &mut World, run: Run, voluntary: bool) {
    if let Run::Asleep(until, _) = run {
        w.due = w.due.min(until);
    }
    let t = w.current();
    t.on_cpu = false;
    t.run = run;
    t.switches += 1;
    t.voluntary += u64::from(voluntary);
    if voluntary {
        t.restless = u64::MAX;
    }
}

fn enter_cpu(w: &mut World, slot: usize) {
    let (here, now) = (w.here, w.now);
    w.cpus[here].current = slot;
    let t = &mut w.tasks[slot];
    if t.restless == u64::MAX {
        t.restless = now;
    }
    w.tasks[slot].on_cpu = true;
    w.tasks[slot].cpu = here;
}

/// The same, and another task runs here.
pub fn put_off(w: &mut World, run: Run, voluntary: bool) {
    let here = w.here;
    let before = w.cpus[here].current;
    leave_cpu(w, run, voluntary);
    let ready = |w: &World, s: usize| {
        let t = &w.tasks[s];
        t.exists && t.run == Run::Ready && !t.on_cpu && !t.idle && !t.stopper && !t.pinned && s != OPERATOR
    };
    let next = if here >= w.plan.cpus {
        // The CPU of the operation runs nothing else, nor do those of the modules.
        if here == w.cpus.len() - 1 { OPERATOR } else { w.loaders[here - w.plan.cpus] }
    } else {
        let start = w.rng.below(w.tasks.len());
        let any = (0..w.tasks.len()).map(|i| (start + i) % w.tasks.len()).find(|&s| ready(w, s));
        any.unwrap_or_else(|| w.tasks.iter().position(|t| t.idle && t.cpu == here).unwrap_or_default())
    };
    enter_cpu(w, next);
    w.reap(before);
}

/// Goes on with what is innermost on this CPU.
fn run(sim: &Sim, mut w: std::cell::RefMut<'_, World>, operator: &mut Coroutine, loaders: &mut [Coroutine]) -> bool {
    let here = w.here;
    if w.current().preemptible() && here < w.plan.cpus && w.rng.one_in(12) && w.stop.is_none() {
        put_off(&mut w, Run::Ready, false);
        return false;
    }
    let now = w.now;
    let Some(top) = w.current().frames.last_mut() else {
        w.current().restless = now;
        user(&mut w);
        return false;
    };
    match top {
        Kind::Operator => {
            if w.tasks[OPERATOR].run == Run::Ready {
                drop(w);
                return operator.resume();
            }
        }
        Kind::Loader(t) => {
            let t = *t;
            drop(w);
            loaders[t].resume();
        }
        Kind::Stopper => {}
        Kind::Idle => {
            if w.rng.one_in(3) {
                put_off(&mut w, Run::Ready, true);
            }
        }
        Kind::Interrupt(_, left) => {
            if *left == 0 {
                w.current().frames.pop();
            } else {
                *left -= 1;
                let heat = w.plan.heat / 10 + 2;
                maybe_call(&mut w, heat);
            }
        }
        Kind::Syscall(0) => {
            if w.current().works.is_empty() {
                let t = w.current();
                t.frames.pop();
                t.seen = None;
            } else {
                w.current().frames.push(Kind::Works(Vec::new(), None));
            }
        }
        Kind::Syscall(left) => {
            *left -= 1;
            in_kernel(&mut w);
        }
        Kind::Work(until) => {
            if now >= *until {
                let t = w.current();
                t.frames.pop();
                t.seen = None;
            }
        }
        Kind::Thread => in_kernel(&mut w),
        Kind::Works(..) => works(sim, w),
        Kind::Exit(n) => {
            let stage = *n;
            *n += 1;
            exit(&mut w, stage);
        }
        Kind::Call(_) => call(sim, w),
    }
    false
}

/// In user mode.
fn user(w: &mut World) {
    if !w.current().works.is_empty() {
        // It was asked for with an interrupt.
        w.current().frames.push(Kind::Syscall(0));
    } else if w.plan.work_ms != 0 && w.rng.one_in(20) {
        let until = w.now + w.rng.below(w.plan.work_ms) as u64 * MS;
        w.current().frames.push(Kind::Work(until));
    } else if w.rng.one_in(2) {
        let n = w.rng.below(5) as u8 + 1;
        w.current().frames.push(Kind::Syscall(n));
    }
}

/// Code that nobody patches, on behalf of a task.
fn in_kernel(w: &mut World) {
    let (thread, heat, sleepy) = (w.current().kernel, w.plan.heat, w.plan.sleepy);
    if maybe_call(w, heat) {
        return;
    }
    if w.rng.one_in(sleepy) {
        return sleep(w);
    }
    if w.rng.one_in(12) {
        // As io_uring does in the middle of a system call.
        return w.current().frames.push(Kind::Works(Vec::new(), None));
    }
    if w.rng.one_in(40) && !w.list_held {
        return fork(w);
    }
    let mortal = w.plan.mortal;
    if !thread && w.rng.one_in(mortal) && w.current().frames.len() == 1 {
        let t = w.current();
        t.frames.clear();
        t.frames.push(Kind::Exit(0));
    }
}

fn sleep(w: &mut World) {
    let short = w.now + 1 + w.rng.below(300_000) as u64;
    let until = match w.rng.below(6) {
        0 => w.now + w.rng.below(400) as u64 * MS,
        1 if w.rng.one_in(4) => w.now + w.rng.below(4000) as u64 * MS,
        _ => short,
    };
    let signalled = w.rng.one_in(2);
    if until > short {
        // Long enough to be switched there.
        w.current().seen = None;
    }
    put_off(w, Run::Asleep(until, signalled), true);
}

pub fn fork(w: &mut World) {
    let Some(slot) =
        w.free_slot().filter(|_| w.tasks.iter().filter(|t| t.exists).count() < w.plan.tasks + w.plan.cpus * 2 + 4)
    else {
        return;
    };
    let kernel = w.rng.one_in(4);
    let frames = if kernel { vec![Kind::Thread] } else { Vec::new() };
    w.tasks[slot] =
        Task { exists: true, listed: true, run: Run::Ready, frames, kernel, restless: w.now, ..Task::none() };
    w.note(|| format!("task {slot} is born"));
}

fn exit(w: &mut World, stage: u8) {
    match stage {
        0 => w.current().exiting = true,
        1 => w.current().frames.push(Kind::Works(Vec::new(), None)),
        2 => {
            let t = w.current();
            t.works_over = t.works.is_empty();
            if !t.works_over {
                t.frames.pop();
                t.frames.push(Kind::Exit(1));
            }
        }
        3 | 4 => {
            maybe_call(w, 3);
        }
        5 => {
            if w.rng.one_in(2) && !w.list_held {
                // From here on nobody finds it, but it runs on for a while.
                let t = w.current();
                (t.listed, t.exempt) = (false, true);
            }
        }
        6 | 7 => {
            maybe_call(w, 3);
        }
        _ => {
            w.current().frames.clear();
            put_off(w, Run::Dead, true);
        }
    }
}

/// Calls a replaced function, once in `n` times.
fn maybe_call(w: &mut World, n: usize) -> bool {
    if !w.rng.one_in(n) || w.current().frames.len() > 7 {
        return false;
    }
    let (f, since) = (w.rng.below(w.plan.funcs), w.steps);
    let Some(below) = w.callable(f) else { return false };
    w.current().frames.push(Kind::Call(Call { f, at: At::Entry, since, version: None, below }));
    true
}

/// A piece of the body of a version of function `f`: what it does there. `patch`: whose code it is, if not the kernel's.
fn body(w: &mut World, f: usize, patch: Option<usize>, below: bool) {
    check::constant(w, f, patch.map_or(0, of), below);
    let calm = w.current().level().is_none() && !w.current().exempt && !w.current().pinned;
    let (sleepy, since, deep) = (w.plan.sleepy, w.steps, w.current().frames.len() > 7);
    if let Some(p) = patch
        && !deep
        && w.rng.one_in(8)
    {
        // New code calls new code directly.
        let g = w.rng.below(w.plan.funcs);
        if w.plan.patches[p].direct[f][g] && w.callable(g).is_some() {
            let version = Some(of(p));
            w.current().frames.push(Kind::Call(Call { f: g, at: At::New(p, 0), since, version, below }));
            if !below {
                check::arrives(w, g, of(p), None);
            }
        }
    } else if let Some(p) = patch
        && !deep
        && w.rng.one_in(8)
        && !w.plan.patches[p].without[f]
    {
        // The wrapper of a function calls that by the name `lp_original`.
        w.current().frames.push(Kind::Call(Call { f, at: At::Resume(p, 0), since, version: None, below: true }));
        if w.jump(p, f, 1).is_none() {
            check::original(w, p, f, 0);
        }
    } else if maybe_call(w, 6) {
    } else if calm && w.rng.one_in(sleepy) {
        sleep(w);
    } else if calm && w.rng.one_in(8) && !w.current().exiting {
        w.current().frames.push(Kind::Works(Vec::new(), None));
    }
}

/// The innermost call goes on there.
fn put(w: &mut World, at: At) {
    if let Some(Kind::Call(c)) = w.current().frames.last_mut() {
        c.at = at;
    }
}

/// It has come to a version.
fn arrive(w: &mut World, version: usize) {
    let Some(Kind::Call(c)) = w.current().frames.last_mut() else { return };
    let (f, since, below) = (c.f, c.since, c.below);
    c.version = Some(version);
    if !below {
        check::arrives(w, f, version, Some(since));
    }
}

/// It jumps to an address.
fn land(w: &mut World, f: usize, to: u64) {
    for p in 0..w.patches.len() {
        if to == dispatch_addr(p, f) {
            return put(w, At::Dispatch(p));
        }
        if to == new_addr(p, f) {
            put(w, At::New(p, 0));
            return arrive(w, of(p));
        }
        if to == resume_addr(p, f) {
            put(w, At::Resume(p, 0));
            return match w.jump(p, f, 1) {
                Some(_) => {}
                None => arrive(w, 0),
            };
        }
    }
    w.fail(format!("function {f} goes on at {to:#x}"));
}

/// A call of a replaced function.
fn call(sim: &Sim, mut w: std::cell::RefMut<'_, World>) {
    let Some(Kind::Call(c)) = w.current().frames.last_mut() else { return };
    let (f, below) = (c.f, c.below);
    let at = std::mem::replace(&mut c.at, At::Entry);
    let carried = match at {
        At::Dispatch(p) | At::Choosing(p, ..) | At::Chosen(p, _) | At::Resume(p, _) | At::New(p, _) => Some(p),
        _ => None,
    };
    if carried.is_some_and(|p| !w.patches[p].module) {
        return w.fail("code is executed that has been removed".into());
    }
    match at {
        At::Entry => put(&mut w, At::Site(0, None)),
        At::Site(o, _) if usize::from(o) == w.plan.site_len() => put(&mut w, At::Old(0)),
        At::Site(o, loaded) => {
            let seen = w.fetch(f, o, None, loaded);
            execute(&mut w, f, o, seen, loaded);
        }
        At::Trap(p, None) => {
            let armed = sim.patches[p].armed.load(SeqCst);
            put(&mut w, At::Trap(p, Some(armed)));
        }
        At::Trap(p, Some(armed)) => {
            let listens = w.patches[p].notifier;
            drop(w);
            let sites = sim.patches[p].all_sites();
            let what = if listens { divert(sim, sites, armed, site_addr(f) + 1) } else { Diverted::NotOurs };
            let mut w = sim.world();
            match what {
                Diverted::To(to) => land(&mut w, f, to),
                Diverted::Again(_) => put(&mut w, At::Site(0, None)),
                // The next in the chain.
                Diverted::NotOurs if p + 1 < w.patches.len() => put(&mut w, At::Trap(p + 1, None)),
                Diverted::NotOurs => {
                    // A kprobe executes what it has replaced.
                    let Some(first) = w.probes[f] else {
                        // It is gone as well; the kernel looks again (`kprobe_int3_handler`).
                        if w.code[f][0] == lpbuild_runtime::site::INT3 {
                            w.fail(format!("the int3 of function {f} belongs to nobody"));
                        }
                        return put(&mut w, At::Site(0, None));
                    };
                    let seen = w.fetch(f, 0, Some(first), None);
                    execute(&mut w, f, 0, seen, None);
                }
            }
        }
        At::Dispatch(p) => {
            let answer = Rc::new(Cell::new(None));
            let (to, task) = (Rc::clone(&answer), id(w.cpus[w.here].current));
            let table = sim.table(p);
            // SAFETY: the simulation outlives its coroutines.
            let body = unsafe { Coroutine::new(move || to.set(Some(sim.patches[p].board.chooses_new(sim, task)))) };
            put(&mut w, At::Choosing(p, body, answer, table));
        }
        At::Choosing(p, mut body, answer, mut table) => {
            put(&mut w, At::Dispatch(p));
            if body.begun() && table != 0 && w.freed_at(table) {
                return w.fail("a table is read that has been freed".into());
            }
            // The pointer is read when the body begins, which is not when it was made.
            if !body.begun() {
                table = sim.table(p);
            }
            drop(w);
            let ended = body.resume();
            let mut w = sim.world();
            match answer.get().filter(|_| ended) {
                Some(new) => put(&mut w, At::Chosen(p, new)),
                None => put(&mut w, At::Choosing(p, body, answer, table)),
            }
        }
        At::Chosen(p, true) => land(&mut w, f, new_addr(p, f)),
        At::Chosen(p, false) => {
            let to = w.jump(p, f, 0).unwrap_or(resume_addr(p, f));
            land(&mut w, f, to);
        }
        At::Resume(p, n) => match w.jump(p, f, 1) {
            Some(to) if n == 0 => {
                land(&mut w, f, to);
                let version = match w.current().frames.last() {
                    Some(Kind::Call(c)) => c.version,
                    _ => None,
                };
                if below {
                    check::original(&mut w, p, f, version.unwrap_or_default());
                }
            }
            _ if n < 2 => put(&mut w, At::Resume(p, n + 1)),
            _ => put(&mut w, At::Old(0)),
        },
        At::Old(BODY) | At::New(_, BODY) => {
            w.current().frames.pop();
        }
        At::Old(n) => {
            put(&mut w, At::Old(n + 1));
            body(&mut w, f, None, below);
        }
        At::New(p, n) => {
            put(&mut w, At::New(p, n + 1));
            check::refers(&mut w, p, f, n);
            body(&mut w, f, Some(p), below);
        }
    }
}

/// An instruction of a site.
fn execute(w: &mut World, f: usize, offset: u8, what: Decoded, loaded: Option<u64>) {
    match what {
        Decoded::Int3 => put(w, At::Trap(0, None)),
        Decoded::Original(next) => {
            put(w, At::Site(next, None));
            if offset == 0 {
                arrive(w, 0);
            }
        }
        Decoded::Load(to) => put(w, At::Site(10, Some(to))),
        Decoded::Jump(to) => land(w, f, to),
        Decoded::Torn => {
            let bare = w.plan.patches.iter().any(|p| p.without.contains(&true));
            if let Some(to) = loaded.filter(|_| w.current().exempt && offset == 10 && bare) {
                // Written down: an exiting task between the two instructions of an abs64 jump when that goes in a stop.
                return land(w, f, to);
            }
            let (sees, is) = (w.cpus[w.here].view[f], w.code[f]);
            w.fail(format!("no instruction at +{offset} of the site of function {f}: {sees:x?}, code {is:x?}"));
        }
    }
}

/// Task works: on the way to user mode, or wherever the kernel calls them.
fn works(sim: &Sim, mut w: std::cell::RefMut<'_, World>) {
    let slot = w.cpus[w.here].current;
    let leaving = w.current().exiting;
    let shape = w.plan.shape();
    let stack = w.current().walk(shape);
    let t = w.current();
    let more = std::mem::take(&mut t.works);
    let Some(Kind::Works(list, now)) = t.frames.last_mut() else { return };
    if let Some((mut body, work)) = now.take() {
        t.works = more;
        drop(w);
        let ended = body.resume();
        let mut w = sim.world();
        if ended {
            // Whoever was told that his system call may change has been.
            if w.tasks[slot].level().is_none() {
                w.tasks[slot].seen = None;
            }
        } else if let Some(Kind::Works(_, now)) = w.tasks[slot].frames.last_mut() {
            *now = Some((body, work));
        }
        return;
    }
    if !list.is_empty() && !leaving && w.rng.one_in(4) {
        // A work of somebody else, such as the last close of a file, waits for something.
        w.tasks[slot].works = more;
        return sleep(&mut w);
    }
    let t = w.current();
    let Some(Kind::Works(list, _)) = t.frames.last_mut() else { return };
    if let Some(work) = list.pop() {
        let frames = if leaving { Err(lpbuild_runtime::kernel::Unreliable::Unwind) } else { stack };
        let at = work.0 as usize;
        t.works = more;
        if w.freed_at(at) || !w.patches[work.1].module {
            return w.fail(format!("a request of task {slot} is called that has been freed"));
        }
        // SAFETY: the work is the first field of an entry, in memory that is kept until the simulation ends; the
        // simulation outlives its coroutines.
        let body = unsafe {
            Coroutine::new(move || {
                let (entry, m) = (&*work.0.cast::<Entry>(), &sim.patches[work.1]);
                let (others, located) = (m.layers().others(), m.located());
                let scan = Scan { k: sim, patch: &m.patch, others, located };
                m.board.at_boundary(sim, entry, frames.as_deref().map_err(|e| *e), |new, a| {
                    pause();
                    scan.leaves(new, a)
                });
            })
        };
        if let Some(Kind::Works(_, now)) = w.tasks[slot].frames.last_mut() {
            *now = Some((body, work));
        }
        return;
    }
    if more.is_empty() {
        t.frames.pop();
    } else {
        *list = more;
    }
}

/// Whether a list of works has one in a piece of memory.
pub fn within(list: &[Asked], memory: &std::ops::Range<usize>) -> bool {
    list.iter().any(|a| memory.contains(&(a.0 as usize)))
}
