//! The thread of the operation, and the life of a module: as in `c/`.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_abi::Mode;
use lpbuild_runtime::{
    machine::{Machine, Step},
    refusal::Refusal,
};

use crate::{
    check,
    coroutine::pause,
    sim::Sim,
    world::{Cut, MS, OPERATOR, Rules, Run, World},
};

/// Applies, reverts, goes.
pub fn life(sim: &Sim, m: &mut Machine<'_, Sim>) {
    let plan = sim.world().plan.clone();
    rest(10);
    begin(sim, true, plan.apply);
    let (end, stays) = operate(sim, m, false, true, plan.apply);
    sim.world().outcome = match end {
        Step::Done => "applied",
        _ if stays => "refused late",
        _ => "refused",
    };
    // What a draining that was cut short leaves behind, and what was forced.
    let loose = plan.apply == Mode::Drain && plan.cancel;
    if end == Step::Done {
        if plan.apply == Mode::Drain && !plan.cancel {
            check::drained(&mut sim.world());
        }
        settled(sim, true, loose);
        rest(30);
        if sim.world().rng.one_in(3) {
            sleep(sim, 2500);
        }
        for attempt in 0.. {
            let mode = if attempt < 2 { plan.revert } else { Mode::Drain };
            let mode = if plan.without.iter().any(|w| *w) { Mode::StopMachine } else { mode };
            m.set_mode(mode);
            // What is dispatched in the middle of the kernel's own probe is refused; that one goes some day.
            begin(sim, false, mode);
            let strict = !loose && sim.world().rules.strict;
            sim.world().rules.strict = strict;
            let (end, _) = operate(sim, m, true, true, mode);
            if end == Step::Done {
                break;
            }
            settled(sim, true, loose);
            if attempt == 6 {
                m.set_deadline(60_000);
                // Whoever is in the way goes some day.
                sim.wait(|w| {
                    (w.plan.probes, w.plan.heat) = (false, 200);
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
    }
    let mut w = sim.world();
    let len = w.plan.site_len();
    for f in 0..w.code.len() {
        let mut is = w.code[f];
        if let Some(first) = w.probes[f] {
            is[0] = first;
        }
        if is[..len] != w.plan.site(f)[..len] {
            w.fail(format!("the bytes of function {f} do not come back: {is:x?}"));
        }
    }
    if sim.armed.load(SeqCst) {
        w.fail("int3 hits are still diverted".into());
    }
    drop(w);
    settled(sim, false, true);
    sim.world().notifier = false;
    rest(5);
    check::gone(&mut sim.world());
    rest(60);
    sim.world().finished = true;
}

/// Lets others run.
fn rest(turns: usize) {
    for _ in 0..turns {
        pause();
    }
}

fn begin(sim: &Sim, apply: bool, mode: Mode) {
    let mut w = sim.world();
    w.note(|| format!("{} begins, {}", if apply { "apply" } else { "revert" }, mode.name()));
    let strict = mode != Mode::Drain;
    let at_once = (mode == Mode::StopMachine).then_some(apply);
    let by_task = mode == Mode::Transition;
    // Whether a wait comes with calls trapped or everybody marked; in the stop is another matter.
    let dispatched = !w.plan.without.contains(&true);
    let several = if apply { w.plan.single.contains(&false) } else { w.plan.abs64 };
    let waits = dispatched && (mode == Mode::StopMachine || several);
    let taken_back = apply && dispatched && !w.plan.abs64 && !w.plan.probes;
    let deadline = w.now + (u64::from(w.plan.deadline_ms) + 100) * MS;
    let (rested, untrapped) = (waits.then_some(w.now), taken_back.then_some(deadline));
    w.rules = Rules { strict, by_task, at_once, rested, untrapped, ..Rules::default() };
    for t in &mut w.tasks {
        t.seen = None;
    }
}

/// An operation is over: every new call runs this version.
fn settled(sim: &Sim, new: bool, loose: bool) {
    let mut w = sim.world();
    if w.rules.at_once == Some(!new) && w.rules.flipped {
        w.fail("the switch was made and refused".into());
    }
    let from = Some((w.steps, new));
    w.rules = Rules { strict: !loose && w.rules.strict, from, ..Rules::default() };
}

/// Steps until the end; also whether the module was to stay in between.
fn operate(sim: &Sim, m: &mut Machine<'_, Sim>, revert: bool, locks: bool, mode: Mode) -> (Step, bool) {
    let (mut stays, mut grace) = (false, None);
    for turn in 0.. {
        let pokes = m.pokes();
        lock(sim, pokes, locks);
        let step = if revert { m.revert() } else { m.apply() };
        {
            unlock(sim, pokes);
            let mut w = sim.world();
            w.note(|| format!("step {step:?}"));
            let taken_back = m.status().refusal == Some(Refusal::Restless);
            if mode == Mode::Drain && w.rules.from.is_none() && sim.armed.load(SeqCst) && !taken_back {
                // Behind the int3s every call runs the other version.
                w.rules.from = Some((w.steps, !revert));
            }
            if turn > 3000 {
                w.fail(format!("the operation does not end: {:?}", m.status()));
            }
        }
        match step {
            Step::Again(ms) => sleep(sim, ms.max(1)),
            Step::RcuTasks => {
                stays |= rcu_tasks(sim, m, &mut grace);
            }
            Step::Effective => stays = true,
            Step::Call(_) | Step::Replaced => {}
            Step::Done | Step::Refused(_) => return (step, stays),
        }
        pause();
    }
    unreachable!()
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
fn rcu_tasks(sim: &Sim, m: &mut Machine<'_, Sim>, grace: &mut Option<Grace>) -> bool {
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
                w.rules.untrapped.is_some_and(|t| w.now > t) && sim.armed.load(SeqCst)
            };
            if late {
                sim.world().fail("calls trap behind the deadline".into());
            }
            if m.wait_ms() != Some(0) {
                continue;
            }
            let pokes = m.pokes();
            lock(sim, pokes, true);
            // While int3s go, old code and new code run.
            let from = sim.world().rules.from.take();
            let step = m.overdue();
            if m.status().refusal != Some(Refusal::Restless) {
                sim.world().rules.from = from;
            }
            unlock(sim, pokes);
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
struct Grace {
    holdouts: Option<Vec<(usize, u64)>>,
    last: bool,
}

impl Grace {
    fn begin(sim: &Sim) -> Self {
        disquiet(sim);
        Self { holdouts: None, last: false }
    }

    fn is_over(&mut self, sim: &Sim) -> bool {
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

fn lock(sim: &Sim, pokes: bool, locks: bool) {
    sim.wait(|w| {
        let free = !w.text_mutex || !pokes;
        if free && locks {
            w.hotplug_held = w.plan.cut != Cut::Hotplug;
            w.text_mutex |= pokes;
        }
        free
    });
}

fn unlock(sim: &Sim, pokes: bool) {
    let mut w = sim.world();
    w.hotplug_held = false;
    if pokes {
        w.text_mutex = false;
    }
}
