//! One schedule: a kernel, a patch and a random order of everything that happens.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_abi::{ABI_VERSION, FuncRecord, MAGIC, MAX_SITE, Mode, PatchRecord, RangeRecord};
use lpbuild_runtime::{
    kernel::Guard,
    machine::{Machine, Parts},
    record::Patch,
    site::{INT3, site},
};

use crate::{
    coroutine::Coroutine,
    cpu, operator,
    rng::Rng,
    sim::Sim,
    world::{
        Cpu, Cut, Kind, LEN, MS, NEW, OLD, OPERATOR, Plan, Rules, Run, SITE_OFFSET, SLOTS, Task, World, dispatch_addr,
        new_addr, resume_addr, site_addr,
    },
};

/// Micro-steps after which a schedule that has not come to an end never will.
const LIMIT: u64 = 600_000;

/// How a schedule ended.
#[derive(Debug)]
pub struct End {
    pub failure: Option<String>,
    pub steps: u64,
    pub outcome: &'static str,
    pub log: Vec<String>,
    pub plan: Plan,
}

fn plan(rng: &mut Rng, cut: Cut, mode: Option<Mode>) -> Plan {
    let modes = [Mode::StopMachine, Mode::Drain, Mode::Transition];
    let apply = mode.unwrap_or_else(|| rng.pick(&modes));
    let funcs = rng.below(3) + 1;
    let mut without = vec![false; funcs];
    if apply == Mode::StopMachine && rng.one_in(4) {
        without.iter_mut().for_each(|w| *w = rng.one_in(2));
    }
    let abs64 = rng.one_in(4);
    let mut single = vec![!abs64 && rng.one_in(2); funcs];
    if !abs64 && rng.one_in(4) {
        single.iter_mut().for_each(|s| *s = rng.one_in(2));
    }
    let mut plan = Plan {
        cpus: rng.below(3) + 1,
        funcs,
        abs64,
        single,
        gaps: rng.one_in(2),
        without,
        apply,
        revert: if rng.one_in(2) { apply } else { rng.pick(&modes) },
        deadline_ms: rng.pick(&[20, 50, 300, 3000]),
        patience_ms: rng.pick(&[1000, 1000, 2200, 15_000]),
        hotplug: rng.one_in(3) || cut == Cut::Hotplug,
        probes: rng.one_in(3),
        no_memory: rng.one_in(8),
        cancel: rng.one_in(6),
        force: rng.one_in(8),
        heat: rng.pick(&[2, 3, 8, 30]),
        mortal: rng.pick(&[15, 60, 200]),
        sleepy: rng.pick(&[4, 10, 30]),
        work_ms: rng.pick(&[0, 0, 0, 100, 4000]),
        tasks: rng.below(6) + 1,
        cut,
    };
    // Where what is missing matters.
    match cut {
        Cut::Rule(Guard::MarkBeforeRead | Guard::StopLooks) => {
            (plan.apply, plan.revert, plan.heat) = (Mode::StopMachine, Mode::StopMachine, 30);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::Survey | Guard::TakeBack) => {
            (plan.work_ms, plan.deadline_ms, plan.probes) = (4000, rng.pick(&[20, 50, 300]), false);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::RcuBeforeLeave) => (plan.mortal, plan.heat) = (10, 3),
        Cut::Rule(guard @ (Guard::RcuBeforeStop | Guard::RcuBeforeDrained)) => {
            // Many that exit, and one CPU for all of them: who is put off there stays so for long.
            plan.apply = if guard == Guard::RcuBeforeStop { Mode::StopMachine } else { Mode::Drain };
            (plan.cpus, plan.tasks, plan.mortal, plan.heat, plan.abs64) = (1, 9, 3, 8, false);
            (plan.revert, plan.deadline_ms, plan.cancel) = (plan.apply, 3000, false);
            plan.single.fill(true);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::FreezeTable) => {
            (plan.apply, plan.revert, plan.deadline_ms) = (Mode::Transition, Mode::Transition, 20);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::FreshClock) => {
            (plan.apply, plan.revert, plan.probes) = (Mode::Transition, Mode::Transition, true);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::AskWhoWasSeen | Guard::RecallBeforeFree) | Cut::Recall => {
            (plan.apply, plan.revert) = (Mode::Transition, Mode::Transition);
            plan.without.fill(false);
        }
        Cut::Rule(Guard::Undisturbed) => {
            (plan.apply, plan.revert, plan.patience_ms) = (Mode::Transition, Mode::Transition, 15_000);
            plan.without.fill(false);
        }
        _ => {}
    }
    plan
}

fn world(mut rng: Rng, plan: Plan, trace: bool) -> World {
    let cpus = plan.cpus + 1;
    let mut tasks: Vec<Task> = (0..SLOTS).map(|_| Task::none()).collect();
    let base = |frames| Task { exists: true, run: Run::Ready, frames, ..Task::none() };
    tasks[OPERATOR] = Task { listed: true, kernel: true, on_cpu: true, cpu: cpus - 1, ..base(vec![Kind::Operator]) };
    let mut next = OPERATOR + 1;
    for cpu in 0..cpus {
        let on_cpu = cpu != cpus - 1;
        tasks[next] = Task { kernel: true, idle: true, cpu, on_cpu, ..base(vec![Kind::Idle]) };
        let asleep = Run::Asleep(u64::MAX, false);
        let stopper = base(vec![Kind::Stopper]);
        tasks[next + 1] = Task { kernel: true, listed: true, stopper: true, cpu, run: asleep, ..stopper };
        next += 2;
    }
    for _ in 0..plan.tasks {
        let kernel = rng.one_in(4);
        let frames = if kernel { vec![Kind::Thread] } else { Vec::new() };
        tasks[next] = Task { listed: true, kernel, cpu: rng.below(plan.cpus), ..base(frames) };
        next += 1;
    }
    let code: Vec<_> = (0..plan.funcs).map(|f| plan.site(f)).collect();
    let cpu = |c: usize| Cpu {
        online: true,
        current: if c == cpus - 1 { OPERATOR } else { OPERATOR + 1 + 2 * c },
        view: code.clone(),
        ipi: false,
        quiet: false,
    };
    World {
        rng,
        now: 10 * MS,
        due: 0,
        steps: 0,
        cpus: (0..cpus).map(cpu).collect(),
        code,
        tasks,
        here: 0,
        stop: None,
        hotplug_held: false,
        text_mutex: false,
        list_held: false,
        probes: vec![None; plan.funcs],
        notifier: true,
        module: true,
        finished: false,
        forced: false,
        rules: Rules::default(),
        blocks: Vec::new(),
        freed: Vec::new(),
        failure: None,
        log: Vec::new(),
        trace,
        outcome: "nothing",
        plan,
    }
}

/// Runs one schedule.
pub fn run(seed: u64, cut: Cut, mode: Option<Mode>, trace: bool) -> End {
    let mut rng = Rng::new(seed);
    let plan = plan(&mut rng, cut, mode);
    let mut sim = Sim::new(world(rng, plan.clone(), trace));
    let len = plan.site_len();
    let original = |f| {
        let mut bytes = [0; MAX_SITE];
        bytes[..len].copy_from_slice(&plan.site(f)[..len]);
        bytes
    };
    let funcs: Vec<FuncRecord> = (0..plan.funcs)
        .map(|f| FuncRecord {
            old: OLD + f as u64 * 0x100,
            new: new_addr(f),
            name: c"function".as_ptr() as u64,
            old_size: LEN,
            new_size: 0x80,
            site_offset: SITE_OFFSET as u16,
            site_size: len as u8,
            jump_kind: if plan.abs64 { 2 } else { 1 },
            covers_fentry: 0,
            original: original(f),
            single: u8::from(plan.single[f]),
            resume: if plan.without[f] { 0 } else { resume_addr(f) },
            dispatch: if plan.without[f] { 0 } else { dispatch_addr(f) },
        })
        .collect();
    let ranges: Vec<RangeRecord> =
        (0..plan.funcs).map(|f| RangeRecord { start: OLD + f as u64 * 0x100, len: LEN, func: f as u32 }).collect();
    let record = PatchRecord {
        magic: MAGIC,
        abi_version: ABI_VERSION,
        mode: plan.apply as u8,
        build_id_len: 20,
        flags: 0,
        build_id: [7; 32],
        deadline_ms: plan.deadline_ms,
        n_funcs: plan.funcs as u32,
        n_ranges: plan.funcs as u32,
        patience_ms: plan.patience_ms,
        funcs: funcs.as_ptr() as u64,
        ranges: ranges.as_ptr() as u64,
        name: c"model".as_ptr() as u64,
        version: c"1".as_ptr() as u64,
        notes_start: 0x9000,
        notes_end: 0x9000,
        text_start: NEW,
        text_end: NEW + plan.funcs as u64 * 0x100,
        after: 0,
        replaces: 0,
        n_after: 0,
        n_replaces: 0,
        digest: 0,
    };
    // SAFETY: vectors and strings behind the addresses live until the end of this function.
    let patch = unsafe { Patch::unsealed(&record, &Everything) }.expect("a valid patch");
    sim.sites = (0..plan.funcs).map(|f| site(&patch, f, site_addr(f)).expect("in reach")).collect();
    sim.patch = (&raw const patch).cast();
    let sim = &sim;
    let mut frames = [0; 32];
    let parts = Parts {
        sites: &sim.sites,
        others: &[],
        armed: &sim.armed,
        board: &sim.board,
        cancel: &sim.cancel,
        force: &sim.force,
        seats: &sim.seats,
        frames: &mut frames,
    };
    let mut machine = Machine::new(sim, patch, parts);
    // SAFETY: everything it refers to lives until the end of this function; it is dropped before.
    let mut operator = unsafe { Coroutine::new(|| operator::life(sim, &mut machine)) };
    drive(sim, &mut operator);
    let mut w = sim.world();
    // Coroutines refer to the simulation.
    for t in &mut w.tasks {
        t.frames.clear();
    }
    w.stop = None;
    let (failure, log) = (w.failure.take(), std::mem::take(&mut w.log));
    End { failure, steps: w.steps, outcome: w.outcome, log, plan: w.plan.clone() }
}

fn drive(sim: &Sim, operator: &mut Coroutine) {
    loop {
        let (cpu, n) = {
            let mut w = sim.world();
            if w.failure.is_some() || w.finished {
                return;
            }
            if w.steps > LIMIT {
                return w.fail("it does not come to an end".into());
            }
            if w.rng.one_in(30) {
                others(sim, &mut w);
            }
            let cpus = w.cpus.len();
            let cpu = w.rng.below(cpus);
            (cpu, w.rng.below(8) + 1)
        };
        for _ in 0..n {
            if cpu::step(sim, cpu, operator) {
                return;
            }
            if sim.world().failure.is_some() {
                return;
            }
        }
    }
}

/// What happens beside.
fn others(sim: &Sim, w: &mut World) {
    match w.rng.below(6) {
        0 if w.plan.hotplug && !w.hotplug_held => hotplug(w),
        1 if w.plan.probes && !w.text_mutex => {
            let f = w.rng.below(w.plan.funcs);
            probe(w, f);
        }
        2 if w.plan.cancel && w.rng.one_in(8) && w.steps > 200 => {
            sim.cancel.store(true, SeqCst);
            w.note(|| "cancel".into());
        }
        3 if w.plan.force && w.rng.one_in(8) && w.steps > 200 => {
            sim.force.store(true, SeqCst);
            w.note(|| "force".into());
            w.forced = true;
        }
        4 if !w.list_held => {
            for s in 0..w.tasks.len() {
                if w.tasks[s].exists && w.tasks[s].run == Run::Dead && w.tasks[s].listed {
                    w.tasks[s].listed = false;
                    w.reap(s);
                }
            }
        }
        5 if !w.list_held && w.rng.one_in(4) => cpu::fork(w),
        _ => {}
    }
}

fn hotplug(w: &mut World) {
    let cpu = w.rng.below(w.plan.cpus);
    w.here = cpu;
    let idle = w.tasks.iter().position(|t| t.idle && t.cpu == cpu).unwrap_or_default();
    if !w.cpus[cpu].online {
        w.serialize(cpu);
        w.cpus[cpu].online = true;
        w.cpus[cpu].ipi = false;
        w.tasks[idle].frames.push(Kind::Idle);
        return w.note(|| "online".into());
    }
    let others = w.cpus.iter().filter(|c| c.online).count();
    if !w.current().preemptible() || others <= 2 || w.tasks[w.cpus[cpu].current].stopper {
        return;
    }
    let t = w.current();
    t.on_cpu = false;
    t.switches += 1;
    w.cpus[cpu].current = idle;
    w.tasks[idle].on_cpu = true;
    w.tasks[idle].frames.clear();
    w.cpus[cpu].online = false;
    w.note(|| "offline".into());
}

/// Another one sets or takes away a kprobe at a site, with the kernel's own poking, which is not the question here.
pub fn probe(w: &mut World, f: usize) {
    // The kernel's poking waits until no CPU is in the handler.
    let hit = |k: &Kind| matches!(k, Kind::Call(c) if c.f == f && matches!(c.at, crate::world::At::Trap(_)));
    if w.tasks.iter().any(|t| t.frames.iter().any(hit)) {
        return;
    }
    let byte = match w.probes[f].take() {
        Some(first) => first,
        None if w.code[f][0] == INT3 => return,
        None => {
            w.probes[f] = Some(w.code[f][0]);
            INT3
        }
    };
    w.code[f][0] = byte;
    for c in &mut w.cpus {
        c.view[f][0] = byte;
    }
    w.note(|| format!("a probe at {f}: {}", byte == INT3));
}

/// All of the memory there is.
struct Everything;

impl lpbuild_runtime::record::Memory for Everything {
    fn holds(&self, _: u64, _: u64) -> bool {
        true
    }
}
