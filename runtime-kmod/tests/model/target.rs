//! Kernel modules that have functions of a patch: they come, fail, go, on CPUs of their own, whatever the patch is doing. As
//! `load_module`, `do_init_module` and `delete_module`, and as `c/modules.c`.

use lpbuild_runtime::{
    holders::{Joining, Presence, named},
    refusal::Refusal,
    site::Route,
};

use crate::{
    coroutine::pause,
    operator::{Grace, lock, unlock},
    plan::Cut,
    sim::Sim,
    world::{At, Call, DATA, FUNCS, Kind, MODULE, MS, PATCHES, World, site_addr},
};

/// How far a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Absent,
    /// Nobody finds it.
    Unformed,
    /// The notifiers are called, or about to be.
    Coming,
    /// They have been; its parameters are set, so its code may run.
    Passed,
    /// `sect_attrs` is set; init runs.
    Init,
    Live,
    /// It is not called any more, and waits until nobody is in it.
    Dying,
    /// `exit` runs; from here on the kernel says that it is going.
    Exit,
    /// The notifiers are called, and work that it has begun elsewhere may still call it.
    Going,
}

/// A module.
#[derive(Debug)]
pub struct Target {
    pub state: State,
    /// How often it has come: its data is elsewhere each time.
    pub generation: u64,
    /// It is another build.
    pub other: bool,
    /// The patch it comes to.
    pub joins: Option<usize>,
    /// Calls of the new code of each patch since it came.
    pub calls: [u8; PATCHES],
}

impl Target {
    pub fn new() -> Self {
        Self { state: State::Absent, generation: 0, other: false, joins: None, calls: [0; PATCHES] }
    }
    /// Whether its memory is there.
    pub fn is_there(&self) -> bool {
        self.state != State::Absent
    }
}

/// Address of `struct module`, and the module behind one.
pub fn module(t: usize) -> usize {
    MODULE as usize + t * 0x1000
}
pub fn of_module(module: usize) -> usize {
    (module - MODULE as usize) / 0x1000
}
/// Where its constants and data are.
pub fn rodata(t: usize) -> u64 {
    module(t) as u64 + 0x400
}
pub fn data(w: &World, t: usize) -> u64 {
    DATA + w.targets[t].generation * 0x1_0000 + t as u64 * 0x1000
}

impl World {
    /// The module that has a function.
    pub fn target(&self, f: usize) -> Option<&Target> {
        self.plan.target[f].map(|t| &self.targets[t])
    }
    /// Whether somebody may call a function; `Some(true)`: work of a module that goes, which is nobody's business any more.
    pub fn callable(&self, f: usize) -> Option<bool> {
        match self.target(f).map(|t| (t.state, t.other)) {
            None => Some(false),
            Some((State::Live, other)) => Some(other),
            Some((State::Going, _)) => Some(true),
            Some(_) => None,
        }
    }
    /// Its code is there, and may be probed.
    pub fn has_code(&self, f: usize) -> bool {
        self.target(f).is_none_or(|t| (State::Coming..State::Exit).contains(&t.state))
    }
}

/// A module comes and goes until all is over.
pub fn life(sim: &Sim, t: usize) {
    let late = sim.world().rng.one_in(2);
    if late {
        rest(sim, t, 60);
    }
    loop {
        rest(sim, t, 20);
        load(sim, t);
        // Nothing of it is left.
        sim.world().targets[t].state = State::Absent;
        rest(sim, t, 60);
    }
}

fn load(sim: &Sim, t: usize) {
    {
        let mut w = sim.world();
        let other = w.plan.other_builds && w.rng.one_in(3);
        let tgt = &mut w.targets[t];
        (tgt.state, tgt.other, tgt.calls) = (State::Unformed, other, [0; PATCHES]);
        tgt.generation += 1;
        for f in functions(&w, t) {
            let code = w.plan.site(f);
            (w.code[f], w.probes[f]) = (code, None);
            w.cpus.iter_mut().for_each(|c| c.view[f] = code);
        }
        w.note(|| format!("module {t} is loaded, other {other}"));
    }
    rest(sim, t, 10);
    state(sim, t, State::Coming);
    rest(sim, t, 10);
    // A notifier that comes before the patch's.
    let refused = sim.world().rng.one_in(8);
    if refused || !coming(sim, t) {
        // It is going, and nobody is told (`bug_cleanup`).
        state(sim, t, State::Unformed);
        rest(sim, t, 10);
        return outcome(sim, t, "module refused");
    }
    state(sim, t, State::Passed);
    let early = sim.world().rng.one_in(3);
    if early {
        call(sim, t);
    }
    rest(sim, t, 10);
    state(sim, t, State::Init);
    let calls = sim.world().rng.below(3);
    for _ in 0..calls {
        call(sim, t);
        rest(sim, t, 5);
    }
    let fails = sim.world().rng.one_in(4);
    if !fails {
        state(sim, t, State::Live);
        let turns = sim.world().rng.pick(&[5, 100, 1000, 4000]);
        rest(sim, t, turns);
        state(sim, t, State::Dying);
        empty(sim, t);
        state(sim, t, State::Exit);
        let late = sim.world().rng.one_in(3);
        if late {
            call(sim, t);
        }
    } else {
        outcome(sim, t, "init fails");
    }
    // `do_init_module` and `delete_module` store the state before they call anybody.
    state(sim, t, State::Exit);
    rest(sim, t, 5);
    state(sim, t, State::Going);
    going(sim, t);
    rest(sim, t, 20);
    state(sim, t, State::Exit);
    empty(sim, t);
    outcome(sim, t, "module gone");
}

fn functions(w: &World, t: usize) -> Vec<usize> {
    (0..w.plan.funcs).filter(|&f| w.plan.target[f] == Some(t)).collect()
}

fn outcome(sim: &Sim, t: usize, what: &'static str) {
    let mut w = sim.world();
    w.outcomes.push(what);
    w.note(|| format!("module {t}: {what}"));
}

fn state(sim: &Sim, t: usize, state: State) {
    let mut w = sim.world();
    w.targets[t].state = state;
    w.note(|| format!("module {t} is {state:?}"));
}

/// Waits as a task that sleeps: nobody waits for it.
fn wait(sim: &Sim, t: usize, mut until: impl FnMut(&mut World) -> bool) {
    while !until(&mut sim.world()) {
        asleep(sim, t);
        pause();
    }
}

fn asleep(sim: &Sim, t: usize) {
    let mut w = sim.world();
    let (slot, now) = (w.loaders[t], w.now);
    let task = &mut w.tasks[slot];
    (task.voluntary, task.switches, task.restless) = (task.voluntary + 1, task.switches + 1, now);
}

fn rest(sim: &Sim, t: usize, turns: usize) {
    let turns = sim.world().rng.below(turns) + 1;
    for _ in 0..turns {
        asleep(sim, t);
        pause();
    }
}

/// Code of the module calls one of its functions.
fn call(sim: &Sim, t: usize) {
    let here = |p: usize| part(sim, p, t).map(|i| sim.patches[p].holders().presence(i) == Presence::Here);
    let told = |p: usize| sim.world().patches[p].registered;
    let all: Vec<bool> = (0..sim.patches.len()).filter(|p| told(*p)).filter_map(here).collect();
    let patched = !all.is_empty() && all.iter().all(|here| *here);
    {
        let mut w = sim.world();
        let all = functions(&w, t);
        if all.is_empty() {
            return;
        }
        // One that was going when the patch came is none of its business.
        let (f, since) = (w.rng.pick(&all), w.steps);
        let below = w.targets[t].other || w.targets[t].state == State::Exit && !patched;
        let slot = w.loaders[t];
        w.tasks[slot].frames.push(Kind::Call(Call { f, at: At::Entry, since, version: None, below }));
    }
    // It goes on when the call is over: what is innermost on a CPU goes on alone.
    pause();
}

/// Nobody is in its code.
fn empty(sim: &Sim, t: usize) {
    wait(sim, t, |w| {
        let of = |k: &Kind| matches!(k, Kind::Call(c) if w.plan.target[c.f] == Some(t));
        !w.tasks.iter().any(|task| task.exists && task.frames.iter().any(of))
    });
}

/// The chain of notifiers, whose lock who registers waits for. `false`: it is not to be loaded.
fn coming(sim: &Sim, t: usize) -> bool {
    sim.world().chain += 1;
    rest(sim, t, 5);
    let mut fits = true;
    for p in 0..sim.patches.len() {
        if !sim.world().patches[p].registered {
            continue;
        }
        held(sim, p, Some(t));
        let joined = join(sim, p, t, Some(t));
        free(sim, p);
        sim.world().note(|| format!("module {t} comes to patch {p}: {joined:?}"));
        fits = matches!(joined, Ok(()) | Err(Refusal::OtherModule { .. } | Refusal::AlreadyPatched { .. }));
        if !fits {
            leaves(sim, t);
            break;
        }
    }
    sim.world().chain -= 1;
    fits
}

fn going(sim: &Sim, t: usize) {
    sim.world().chain += 1;
    rest(sim, t, 5);
    leaves(sim, t);
    sim.world().chain -= 1;
}

/// Patches are told from the uppermost down, each of which lies on all before it.
fn leaves(sim: &Sim, t: usize) {
    let mut all: Vec<usize> = (0..sim.patches.len()).collect();
    if sim.cut != Cut::UpperFirst {
        all.reverse();
    }
    for p in all {
        if sim.world().patches[p].registered {
            held(sim, p, Some(t));
            detach(sim, p, t, Some(t));
            free(sim, p);
        }
    }
}

/// Takes the outermost lock of a patch; who is a module that comes or goes sleeps meanwhile.
pub fn held(sim: &Sim, p: usize, t: Option<usize>) {
    let take = |w: &mut World| {
        let free = !w.patches[p].holders_held || w.plan.cut == Cut::HoldersLock;
        w.patches[p].holders_held = true;
        free
    };
    match t {
        Some(t) => wait(sim, t, take),
        None => sim.wait(take),
    }
}
pub fn free(sim: &Sim, p: usize) {
    sim.world().patches[p].holders_held = false;
}

/// What of a patch belongs to a module, if anything does.
fn part(sim: &Sim, p: usize, t: usize) -> Option<usize> {
    let name = [b't', b'0' + t as u8];
    named(&sim.patches[p].patch, &name)
}

/// `who`: the module that comes, on a CPU of its own.
fn join(sim: &Sim, p: usize, t: usize, who: Option<usize>) -> Result<(), Refusal> {
    let Some(i) = part(sim, p, t) else { return Ok(()) };
    lock(sim, true);
    let m = &sim.patches[p];
    if let Some(who) = who {
        sim.world().targets[who].joins = Some(p);
    }
    let joined = m.holders_mut().join(sim, (&m.patch, m.layers()), i, module(t), m.joining.get(), false);
    unlock(sim, true);
    joined
}

fn detach(sim: &Sim, p: usize, t: usize, who: Option<usize>) {
    let (Some(i), m) = (part(sim, p, t), &sim.patches[p]) else { return };
    let at = m.joining.get();
    lock(sim, true);
    let wait_for_tails = m.holders_mut().going(sim, i, at);
    if wait_for_tails {
        unlock(sim, true);
        let mut grace = Grace::begin(sim);
        while !grace.is_over(sim) {
            sim.world().pass(MS / 2);
            if let Some(t) = who {
                asleep(sim, t);
            }
            pause();
        }
        lock(sim, true);
    }
    m.holders_mut().gone(sim, &m.patch, i, at);
    unlock(sim, true);
    m.holders_mut().left(sim, &m.patch, i);
    sim.world().note(|| format!("module {t} has left patch {p}"));
}

/// As `lpb_add_modules`: whoever comes is told of first, then those that are here are looked for.
pub fn attach(sim: &Sim, p: usize) -> Result<(), Refusal> {
    let register = || {
        sim.wait(|w| w.chain == 0);
        sim.world().patches[p].registered = true;
    };
    let first = sim.cut != Cut::RegisterFirst;
    if first {
        register();
    }
    let (until, n) = {
        let w = sim.world();
        (w.now + u64::from(w.plan.deadline_ms) * MS, w.targets.len())
    };
    for t in 0..n {
        let Some(i) = part(sim, p, t) else { continue };
        loop {
            held(sim, p, None);
            let state = sim.world().targets[t].state;
            let whole = matches!(state, State::Init | State::Live | State::Dying)
                || matches!(state, State::Coming | State::Passed) && sim.cut == Cut::OnlyPassed
                || matches!(state, State::Exit | State::Going) && sim.cut == Cut::NotGoing;
            let half = matches!(state, State::Coming | State::Passed) && !whole;
            let here = sim.patches[p].holders().presence(i) == Presence::Here;
            let joined = if whole { join(sim, p, t, None) } else { Ok(()) };
            free(sim, p);
            if let Err(why) = joined {
                sim.world().note(|| format!("module {t} is here: {why:?}"));
                return Err(why);
            }
            if !half || here {
                break;
            }
            if sim.world().now > until {
                return Err(Refusal::HalfLoaded { holder: i });
            }
            sim.world().pass(MS);
            pause();
        }
    }
    if !first {
        for _ in 0..40 {
            pause();
        }
        register();
    }
    Ok(())
}

/// As `lpb_remove_modules`.
pub fn close(sim: &Sim, p: usize) {
    if !sim.world().patches[p].registered {
        // A scan that came first may have joined some.
        if sim.cut != Cut::RegisterFirst && sim.world().targets.is_empty() {
            return;
        }
    }
    held(sim, p, None);
    if sim.cut != Cut::CloseFirst {
        sim.patches[p].holders_mut().close();
    }
    let n = sim.world().targets.len();
    for t in 0..n {
        detach(sim, p, t, None);
    }
    free(sim, p);
    if sim.cut == Cut::CloseFirst {
        for _ in 0..40 {
            pause();
        }
    }
    sim.wait(|w| w.chain == 0);
    sim.world().patches[p].registered = false;
}

/// A patch is gone: what it had of modules is as it was, or what a patch below has there.
pub fn check(sim: &Sim, p: usize) {
    let mut w = sim.world();
    let jump = |w: &World, f: usize, t: usize| {
        let m = w.versions[f].checked_sub(1).map(|q| (q, &sim.patches[q]));
        let (q, m) = m.filter(|(q, _)| *q != p)?;
        let i = part(sim, q, t).filter(|i| m.holders().presence(*i) == Presence::Here)?;
        // SAFETY: not behind the end of the patch.
        let shown = unsafe { m.holders().shown() }.get(i)?;
        let site = shown.get().iter().find(|s| s.addr == site_addr(f))?;
        Some(site.bytes(m.joining.get().route).to_vec())
    };
    for f in 0..FUNCS.min(w.plan.funcs) {
        if !w.plan.patches[p].has[f] || w.plan.target[f].is_none() || !w.has_code(f) {
            continue;
        }
        let (len, mut is) = (w.plan.site_len(), w.code[f]);
        if let Some(first) = w.probes[f] {
            is[0] = first;
        }
        let t = w.plan.target[f].unwrap_or_default();
        if w.targets[t].state == State::Coming && sim.patches.len() > 1 {
            continue;
        }
        if is[..len] != jump(&w, f, t).unwrap_or_else(|| w.plan.site(f)[..len].to_vec())[..] {
            w.fail(format!("the bytes of function {f} of a module do not come back: {is:x?}"));
        }
    }
}

/// What a module that comes gets before the first step.
pub const BEFORE: Joining = Joining { route: Route::Original, trapped: false };
