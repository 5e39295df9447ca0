//! The thread of an operation, and the lives of modules: as in `c/`.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_abi::{Callback, Mode};
use lpbuild_runtime::{
    layers::Peer,
    machine::{Machine, Parts, Step},
    refusal::Refusal,
    site::Route,
};

use crate::{
    check,
    coroutine::pause,
    plan::{Cut, Relation},
    sim::{Module, Sim},
    target,
    world::{At, CONTENTS, FUNCS, Kind, MS, OPERATOR, PATCHES, Rules, Run, Versions, World, of, site_addr},
};

/// The patches that are applied.
struct Applied<'a> {
    sim: &'a Sim,
    up: Vec<(usize, Machine<'a, Sim>)>,
    /// Somebody may still be in code that was left in a hurry.
    loose: bool,
}

/// Every patch is loaded, and taken out again.
pub fn life(sim: &Sim) {
    let mut frames = [[0; 32]; PATCHES];
    let mut all = Applied { sim, up: Vec::new(), loose: false };
    rest(10);
    for (p, frames) in frames.iter_mut().take(sim.patches.len()).enumerate() {
        all.load(p, frames);
        if sim.world().rng.one_in(4) {
            all.revert();
        }
        rest(10);
    }
    while !all.up.is_empty() && sim.world().failure.is_none() {
        all.revert();
    }
    sim.world().finished = true;
}

impl<'a> Applied<'a> {
    fn load(&mut self, p: usize, frames: &'a mut [u64]) {
        let (sim, m) = (self.sim, &self.sim.patches[p]);
        let plan = {
            let mut w = sim.world();
            w.operating = p;
            w.patches[p].module = true;
            w.note(|| format!("patch {p} is inserted"));
            w.plan.patches[p].clone()
        };
        let prepared = m.prepare(sim, |other| hold(sim, m, p, other));
        if let Err(why) = prepared.and_then(|()| target::attach(sim, p)) {
            let mut w = sim.world();
            w.note(|| format!("patch {p} is refused: {why:?}"));
            w.outcomes.push(match why {
                Refusal::NoOther { .. } => "not held",
                Refusal::Bypassed { .. } => "bypassed",
                _ => "not prepared",
            });
            drop(w);
            return self.leave(p, true);
        }
        let (initial, goal) = {
            let mut w = sim.world();
            let replaced = |v: usize| v != 0 && plan.relations[v - 1] == Relation::Replaces;
            let versions = w.versions;
            let below = versions.map(|v| v);
            let rest: Vec<usize> = (0..FUNCS)
                .map(|f| if replaced(below[f]) { w.patches[below[f] - 1].below[f] } else { below[f] })
                .collect();
            w.patches[p].below.copy_from_slice(&rest);
            let goal = std::array::from_fn(|f| if plan.has[f] { of(p) } else { rest[f] });
            w.patches[p].notifier = true;
            (versions, goal)
        };
        let parts = Parts {
            sites: m.all_sites(),
            located: m.located(),
            others: m.layers().others(),
            constants: &m.constants,
            armed: &m.armed,
            board: &m.board,
            cancel: &m.cancel,
            force: &m.force,
            seats: &sim.seats,
            frames,
        };
        let mut machine = Machine::new(sim, m.patch, parts);
        rest(10);
        begin(sim, p, goal, plan.apply, false, self.loose);
        let (end, stays) = self.operate(p, &mut machine, false, plan.apply);
        let outcome = match end {
            Step::Done => "applied",
            _ if stays => "refused late",
            _ => "refused",
        };
        sim.world().outcomes.push(outcome);
        // What a draining that was cut short leaves behind, and what was forced.
        self.loose |= plan.apply == Mode::Drain && sim.world().plan.cancel;
        if end != Step::Done {
            settled(sim, false, true);
            came_back(sim, p, initial);
            return self.leave(p, true);
        }
        if plan.apply == Mode::Drain && !sim.world().plan.cancel {
            check::drained(&mut sim.world());
        }
        settled(sim, true, self.loose);
        sim.world().patches[p].applied = true;
        self.up.push((p, machine));
        rest(30);
        if sim.world().rng.one_in(3) {
            sleep(sim, 2500);
        }
    }

    /// One of those on which no other lies.
    fn revert(&mut self) {
        let sim = self.sim;
        let free: Vec<usize> = (0..self.up.len()).filter(|&i| sim.world().patches[self.up[i].0].on_top == 0).collect();
        if free.is_empty() {
            return;
        }
        let at = sim.world().rng.pick(&free);
        let (p, mut machine) = self.up.remove(at);
        let (plan, initial) = {
            let mut w = sim.world();
            w.operating = p;
            w.patches[p].applied = false;
            (w.plan.patches[p].clone(), w.versions)
        };
        let below = sim.world().patches[p].below;
        let goal = std::array::from_fn(|f| if plan.has[f] { below[f] } else { initial[f] });
        for attempt in 0.. {
            let mode = if attempt < 2 { plan.revert } else { Mode::Drain };
            let mode = if plan.without.contains(&true) { Mode::StopMachine } else { mode };
            machine.set_mode(mode);
            // What is dispatched in the middle of the kernel's own probe is refused; that one goes some day.
            begin(sim, p, goal, mode, true, self.loose);
            let (end, _) = self.operate(p, &mut machine, true, mode);
            if end == Step::Done {
                break;
            }
            settled(sim, false, self.loose);
            if attempt == 6 {
                machine.set_deadline(60_000);
                // Whoever is in the way goes some day.
                sim.wait(|w| {
                    (w.plan.probes, w.plan.heat) = (false, 200);
                    if w.spoilt.is_some() {
                        crate::schedule::spoil(w);
                    }
                    for f in 0..w.code.len() {
                        if w.probes[f].is_some() {
                            crate::schedule::probe(w, f);
                        }
                    }
                    w.probes.iter().all(Option::is_none)
                });
            }
            if attempt > 40 {
                return sim.world().fail(format!("the revert is refused for ever: {end:?}"));
            }
            rest(20);
        }
        settled(sim, true, true);
        came_back(sim, p, goal);
        self.leave(p, true);
    }

    /// A module that is out of effect goes.
    fn leave(&self, p: usize, alone: bool) {
        let (sim, m) = (self.sim, &self.sim.patches[p]);
        if m.armed.load(SeqCst) {
            sim.world().fail("int3 hits are still diverted".into());
        }
        target::close(sim, p);
        target::check(sim, p);
        sim.world().patches[p].notifier = false;
        // As `unregister_die_notifier`, which waits for those who are in it.
        let trapped = |k: &Kind| matches!(k, Kind::Call(c) if matches!(c.at, At::Trap(q, Some(_)) if q == p));
        sim.wait(|w| !w.tasks.iter().any(|t| t.frames.iter().any(trapped)));
        release(sim, p);
        rest(5);
        // SAFETY: the notifier is gone, and whoever held the patch below has let it go.
        unsafe {
            m.sites.clear(sim);
            m.holders_mut().clear(sim);
        }
        m.constants.clear(sim);
        check::gone(&mut sim.world(), p, alone);
        // Its memory is used for something else.
        m.board.settle(true);
        rest(60);
    }

    /// Steps until the end; also whether the module was to stay in between.
    fn operate(&mut self, p: usize, m: &mut Machine<'a, Sim>, revert: bool, mode: Mode) -> (Step, bool) {
        let (sim, module) = (self.sim, &self.sim.patches[p]);
        let (mut stays, mut grace) = (false, None);
        for turn in 0.. {
            target::held(sim, p, None);
            let pokes = m.pokes();
            lock(sim, pokes);
            let step = if revert { m.revert() } else { m.apply() };
            module.joining.set(m.joining());
            {
                unlock(sim, pokes);
                target::free(sim, p);
                let mut w = sim.world();
                w.note(|| format!("step {step:?}"));
                let taken_back = m.status().refusal == Some(Refusal::Restless);
                if mode == Mode::Drain && w.rules.from.is_none() && module.armed.load(SeqCst) && !taken_back {
                    // Behind the int3s every call runs the other version.
                    w.rules.from = Some((w.steps, w.rules.goal));
                }
                if turn > 3000 {
                    w.fail(format!("the operation does not end: {:?}", m.status()));
                }
            }
            match step {
                Step::Again(ms) => sleep(sim, ms.max(1)),
                Step::RcuTasks => stays |= rcu_tasks(sim, p, m, &mut grace),
                Step::Effective => stays = true,
                Step::Call(callback) => m.called(callback, call(sim, p, callback, revert)),
                Step::Replaced => {
                    module.layers().let_go(sim, &module.patch, &module.sites);
                    m.replaced_others(module.all_sites(), module.layers().others());
                    self.let_replaced_go(p);
                }
                Step::Done | Step::Refused(_) => {
                    ended(sim, p, step, revert);
                    return (step, stays);
                }
            }
            pause();
        }
        unreachable!()
    }

    fn let_replaced_go(&mut self, p: usize) {
        let plan = self.sim.world().plan.patches[p].clone();
        let held = std::mem::take(&mut self.sim.world().patches[p].holds);
        for q in held {
            if plan.relations[q] != Relation::Replaces {
                self.sim.world().patches[p].holds.push(q);
                continue;
            }
            self.up.retain_mut(|(at, machine)| {
                if *at == q {
                    machine.replaced();
                }
                *at != q
            });
            self.sim.world().outcomes.push("replaced");
            self.leave(q, false);
        }
    }
}

/// As `lpb_take_other`.
fn hold(sim: &Sim, m: &Module, p: usize, other: usize) -> Result<Peer<'static, u64>, Refusal> {
    let q = usize::from(m.patch.other_name(other).last().map_or(0, |b| b - b'0'));
    let mut w = sim.world();
    let (replaces, life) = (m.patch.replaces(other), &mut w.patches[q]);
    if !life.applied || life.taken || replaces && life.on_top != 0 {
        return Err(Refusal::NoOther { other });
    }
    life.taken |= replaces;
    life.on_top += usize::from(!replaces);
    w.patches[p].holds.push(q);
    // SAFETY: modules live as long as the simulation, and nobody looks at one behind that.
    let it = unsafe { &*std::ptr::from_ref(&sim.patches[q]) };
    // SAFETY: as above.
    let shown = unsafe { it.holders().shown() };
    Ok(Peer { patch: it.patch, sites: &it.sites, shown, board: &it.board })
}

/// As `lpb_release_others`.
fn release(sim: &Sim, p: usize) {
    let mut w = sim.world();
    for q in std::mem::take(&mut w.patches[p].holds) {
        match w.plan.patches[p].relations[q] {
            Relation::Replaces => w.patches[q].taken = false,
            _ => w.patches[q].on_top -= 1,
        }
    }
}

/// The sites of a patch that is out of effect hold what was there before.
fn came_back(sim: &Sim, p: usize, versions: Versions) {
    let mut w = sim.world();
    let constant = w.spoilt.unwrap_or(w.constant);
    if p == 0 && constant != CONTENTS[0] {
        w.fail(format!("the constant does not come back: {}", constant[0]));
    }
    let len = w.plan.site_len();
    for s in sim.patches[p].sites.all() {
        let f = (0..FUNCS).find(|&f| site_addr(f) == s.addr).unwrap_or_default();
        let mut is = w.code[f];
        if let Some(first) = w.probes[f] {
            is[0] = first;
        }
        let below = |v: usize| sim.patches[v - 1].sites.own().iter().find(|o| o.addr == s.addr);
        let kernel = w.plan.site(f);
        let should = match versions[f] {
            0 => Some(&kernel[..len]),
            v => below(v).map(|o| o.bytes(sim.patches[v - 1].joining.get().route)),
        };
        if should != Some(&is[..len]) {
            w.fail(format!("the bytes of function {f} do not come back: {is:x?}, not {should:x?}"));
        }
    }
}

/// A callback of the patch is called, takes its time, and says what it says.
fn call(sim: &Sim, p: usize, callback: Callback, revert: bool) -> i32 {
    {
        let mut w = sim.world();
        w.note(|| callback.name().into());
        if w.patches[p].called.contains(&callback) {
            w.fail(format!("{} is called twice", callback.name()));
        }
        w.patches[p].called.push(callback);
        let (goal, initial, steps) = (w.rules.goal, w.rules.initial, w.steps);
        match callback {
            // Nothing has happened yet.
            Callback::PreApply | Callback::PreRevert => w.rules.from = Some((steps, initial)),
            // From here on everybody runs the new version, or runs it still.
            Callback::PostApply => w.rules.from = Some((steps, if revert { initial } else { goal })),
            Callback::PostRevert => {
                w.rules.from = Some((steps, if revert { goal } else { initial }));
                let inside = |t: &crate::world::Task| t.exists && !t.exempt && t.in_module(w.plan.shape(), p);
                if let Some(slot) = w.tasks.iter().position(inside) {
                    w.fail(format!("post-revert is called while task {slot} is inside"));
                }
            }
        }
    }
    let turns = sim.world().rng.below(40);
    rest(turns);
    let mut w = sim.world();
    if matches!(callback, Callback::PreApply | Callback::PreRevert) {
        w.rules.from = None;
    }
    match callback {
        Callback::PreApply => w.plan.patches[p].veto,
        // Of no meaning.
        _ => -1,
    }
}

/// Which callbacks an operation that ended like this has called.
fn ended(sim: &Sim, p: usize, step: Step, revert: bool) {
    let mut w = sim.world();
    let all: &[Callback] = match (step, revert) {
        (Step::Refused(Refusal::Vetoed { .. }), _) => &[Callback::PreApply],
        (Step::Done, false) => &[Callback::PreApply, Callback::PostApply],
        (_, false) => &[Callback::PreApply, Callback::PostRevert],
        (Step::Done, true) => &[Callback::PreRevert, Callback::PostRevert],
        (_, true) => &[Callback::PreRevert, Callback::PostApply],
    };
    let flags = w.plan.patches[p].flags;
    let all: Vec<Callback> = all.iter().copied().filter(|c| flags & c.flag() != 0).collect();
    let called = std::mem::take(&mut w.patches[p].called);
    let refused = flags & Callback::PreApply.flag() != 0 && w.plan.patches[p].veto != 0;
    if !revert && refused && step == Step::Done {
        w.fail("pre-apply did not want it, and it was done".into());
    } else if called != all {
        w.fail(format!("{step:?}: {called:?} were called, and not {all:?}"));
    }
}

/// Lets others run.
fn rest(turns: usize) {
    for _ in 0..turns {
        pause();
    }
}

fn begin(sim: &Sim, p: usize, goal: Versions, mode: Mode, revert: bool, loose: bool) {
    let mut w = sim.world();
    w.note(|| format!("patch {p}, {} begins: {goal:?}", mode.name()));
    // Whether a wait comes with calls trapped or everybody marked; in the stop is another matter.
    let sites = sim.patches[p].sites.all();
    let now = if revert { Route::New } else { Route::Original };
    let dispatched = sim.patches[p].patch.funcs.iter().all(|f| f.dispatch != 0);
    let dispatched = dispatched && sites.iter().all(|s| s.dispatcher != 0);
    let waits =
        !sites.is_empty() && dispatched && (mode == Mode::StopMachine || sites.iter().any(|s| !s.is_single(now)));
    let taken_back = !revert && dispatched && !w.plan.abs64 && !w.plan.probes;
    let deadline = w.now + (u64::from(w.plan.deadline_ms) + 100) * MS;
    w.rules = Rules {
        begun: w.steps,
        initial: w.versions,
        goal,
        strict: mode != Mode::Drain && !loose,
        by_task: mode == Mode::Transition,
        at_once: mode == Mode::StopMachine,
        rested: waits.then_some(w.now),
        untrapped: taken_back.then_some(deadline),
        together: mode == Mode::StopMachine && p == 0 && sim.patches[0].constants.is_new() == revert,
        ..Rules::default()
    };
    for t in &mut w.tasks {
        t.seen = None;
    }
}

/// An operation is over: every new call runs what it was to lead to, or what was before.
fn settled(sim: &Sim, done: bool, loose: bool) {
    let mut w = sim.world();
    if w.rules.at_once && w.rules.flipped && !done {
        w.fail("the switch was made and refused".into());
    }
    if done {
        w.versions = w.rules.goal;
    }
    let (versions, strict) = (w.versions, !loose && w.rules.strict);
    let (begun, from) = (w.steps, Some((w.steps, versions)));
    w.rules = Rules { begun, initial: versions, goal: versions, strict, from, ..Rules::default() };
}

fn sleep(sim: &Sim, ms: u64) {
    let turns = sim.world().rng.below(30);
    rest(turns);
    for _ in 0..4 {
        sim.world().pass(ms * MS / 4);
        pause();
    }
}

/// A wait for RCU tasks, until it is over or the operation takes another way; `true`: the module is to stay. As in c/operate.c.
fn rcu_tasks(sim: &Sim, p: usize, m: &mut Machine<'_, Sim>, grace: &mut Option<Grace>) -> bool {
    let mut stays = false;
    if sim.cut == Cut::RcuTasks {
        return stays;
    }
    loop {
        let fresh = grace.is_none();
        let now = grace.get_or_insert_with(|| Grace::begin(sim));
        while !now.is_over(sim) {
            sim.world().pass(MS / 2);
            pause();
            let late = {
                let w = sim.world();
                w.rules.untrapped.is_some_and(|t| w.now > t) && sim.patches[p].armed.load(SeqCst)
            };
            if late {
                sim.world().fail("calls trap behind the deadline".into());
            }
            if m.wait_ms() != Some(0) {
                continue;
            }
            target::held(sim, p, None);
            let pokes = m.pokes();
            lock(sim, pokes);
            // While int3s go, old code and new code run.
            let from = sim.world().rules.from.take();
            let step = m.overdue();
            if m.status().refusal != Some(Refusal::Restless) {
                sim.world().rules.from = from;
            }
            sim.patches[p].joining.set(m.joining());
            unlock(sim, pokes);
            target::free(sim, p);
            sim.world().note(|| format!("overdue {step:?}"));
            match step {
                Some(Step::Effective) => stays = true,
                Some(_) => return stays,
                None => sleep(sim, 100),
            }
        }
        *grace = None;
        if fresh {
            sim.world().note(|| "rcu tasks".into());
            return stays;
        }
    }
}

/// What RCU tasks waits for: everybody who is in the kernel, on a CPU or preempted, has to sleep, or to be in user mode; before and
/// behind that, interrupts that are under way have to end.
pub struct Grace {
    holdouts: Option<Vec<(usize, u64)>>,
    last: bool,
}

impl Grace {
    pub fn begin(sim: &Sim) -> Self {
        disquiet(sim);
        Self { holdouts: None, last: false }
    }

    pub fn is_over(&mut self, sim: &Sim) -> bool {
        let quiet = {
            let w = sim.world();
            w.cpus.iter().enumerate().all(|(c, cpu)| c == w.here || cpu.quiet || !cpu.online)
        };
        if self.last || self.holdouts.is_none() {
            if quiet && !self.last {
                let w = sim.world();
                let all = w.tasks.iter().enumerate().filter(|(s, _)| holds_up(&w, *s));
                self.holdouts = Some(all.map(|(s, t)| (s, t.voluntary)).collect());
            }
            return quiet && self.last;
        }
        let w = sim.world();
        let left = |&(s, voluntary): &(usize, u64)| holds_up(&w, s) && w.tasks[s].voluntary == voluntary;
        let holdouts = self.holdouts.get_or_insert_default();
        holdouts.retain(left);
        if holdouts.is_empty() {
            drop(w);
            disquiet(sim);
            self.last = true;
        }
        false
    }
}

fn holds_up(w: &World, slot: usize) -> bool {
    let t = &w.tasks[slot];
    t.exists && t.run == Run::Ready && !t.idle && slot != OPERATOR && !t.frames.is_empty()
}

fn disquiet(sim: &Sim) {
    for c in &mut sim.world().cpus {
        c.quiet = false;
    }
}

pub fn lock(sim: &Sim, pokes: bool) {
    sim.wait(|w| {
        let free = !w.text_mutex || !pokes;
        if free {
            w.hotplug_held = w.plan.cut != Cut::Hotplug;
            w.text_mutex |= pokes;
        }
        free
    });
}

pub fn unlock(sim: &Sim, pokes: bool) {
    let mut w = sim.world();
    w.hotplug_held = false;
    if pokes {
        w.text_mutex = false;
    }
}
