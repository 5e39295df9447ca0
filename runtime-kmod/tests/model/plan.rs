//! What a schedule is about: which patches there are, what happens beside, and what is missing.

use lpbuild_abi::{Callback, Mode};
use lpbuild_runtime::kernel::Guard;

use crate::{
    rng::Rng,
    world::{FUNCS, PATCHES, SINGLE, SITE},
};

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Nothing,
    /// A rule of the runtime.
    Rule(Guard),
    /// `synchronize_rcu_tasks` returns at once.
    RcuTasks,
    /// Nobody else serialises.
    SerializeAll,
    /// The table is published when the task list can grow again.
    CensusGap,
    /// A task that runs is said to have nothing on its stack.
    LookClean,
    /// Tasks are not held.
    Hold,
    /// Requests are said to be taken back always.
    Recall,
    /// CPUs come and go during a step.
    Hotplug,
    /// Modules come and go during a step.
    HoldersLock,
    /// Modules that are here are looked for before those that come are told of.
    RegisterFirst,
    /// A module that is half loaded is taken for one that is here.
    OnlyPassed,
    /// And one that is going.
    NotGoing,
    /// What comes while a patch leaves is joined.
    CloseFirst,
    /// Of a module that goes the lower patches are told first.
    UpperFirst,
}

/// What a patch has to do with one that was loaded before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    None,
    After,
    Replaces,
}

/// A patch.
#[derive(Clone, Debug)]
pub struct PatchPlan {
    /// The functions it has.
    pub has: [bool; FUNCS],
    /// Functions without a dispatcher: none, some, all.
    pub without: [bool; FUNCS],
    pub relations: [Relation; PATCHES],
    /// Which function's new version calls which directly.
    pub direct: [[bool; FUNCS]; FUNCS],
    pub apply: Mode,
    pub revert: Mode,
    /// Callbacks, as in the record.
    pub flags: u16,
    /// What pre-apply returns.
    pub veto: i32,
}

/// What a schedule is about; made from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub cpus: usize,
    pub funcs: usize,
    pub abs64: bool,
    /// Functions whose site is one instruction.
    pub single: Vec<bool>,
    /// Stacks with a dispatcher or a copied beginning cannot be walked.
    pub gaps: bool,
    pub patches: Vec<PatchPlan>,
    pub deadline_ms: u32,
    /// When tasks in user space are disturbed.
    pub patience_ms: u32,
    pub hotplug: bool,
    pub probes: bool,
    pub no_memory: bool,
    /// Tables have hardly more room than there are tasks, or less.
    pub tight: bool,
    pub cancel: bool,
    pub force: bool,
    /// A task in the kernel calls a replaced function once in so many steps.
    pub heat: usize,
    /// The same for exits.
    pub mortal: usize,
    /// How often tasks sleep.
    pub sleepy: usize,
    /// System calls that take up to so long, milliseconds; 0: none.
    pub work_ms: usize,
    pub tasks: usize,
    /// The kernel module that has a function; how many there are.
    pub target: [Option<usize>; FUNCS],
    pub targets: usize,
    /// Now and then a module is another build.
    pub other_builds: bool,
    /// The first patch changes a constant.
    pub constant: bool,
    pub cut: Cut,
}

/// What of a plan decides how a stack looks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub gaps: bool,
    pub site_len: u64,
    pub lost: bool,
}

impl Shape {
    /// The same, and nothing can be walked.
    pub fn lost(self) -> Self {
        Self { lost: true, ..self }
    }
}

impl Plan {
    pub fn site_len(&self) -> usize {
        if self.abs64 { 15 } else { 8 }
    }
    pub fn site(&self, f: usize) -> [u8; 15] {
        if self.single[f] { SINGLE } else { SITE }
    }
    pub fn shape(&self) -> Shape {
        Shape { gaps: self.gaps, site_len: self.site_len() as u64, lost: false }
    }
}

fn patch(rng: &mut Rng, p: usize, funcs: usize, mode: Option<Mode>) -> PatchPlan {
    let modes = [Mode::StopMachine, Mode::Drain, Mode::Transition];
    let apply = mode.unwrap_or_else(|| rng.pick(&modes));
    let mut has: [bool; FUNCS] = std::array::from_fn(|f| f < funcs && !rng.one_in(3));
    if !has.contains(&true) {
        has[rng.below(funcs)] = true;
    }
    let bare = apply == Mode::StopMachine && rng.one_in(4);
    let without = std::array::from_fn(|f| has[f] && bare && rng.one_in(2));
    let which = [Relation::None, Relation::After, Relation::After, Relation::Replaces, Relation::Replaces];
    let relations = std::array::from_fn(|q| if q < p { rng.pick(&which) } else { Relation::None });
    let often = rng.pick(&[2, 6, 30]);
    let direct = std::array::from_fn(|f| std::array::from_fn(|g| has[f] && has[g] && rng.one_in(often)));
    let calls = rng.one_in(3);
    let flags = Callback::ALL.iter().map(|c| if calls && !rng.one_in(3) { c.flag() } else { 0 }).sum();
    let revert = if rng.one_in(2) { apply } else { rng.pick(&modes) };
    let veto = if rng.one_in(6) { -5 } else { 0 };
    PatchPlan { has, without, relations, direct, apply, revert, flags, veto }
}

/// Patches that lie on each other, some functions of which are in one or two modules.
fn modules(rng: &mut Rng, plan: &mut Plan, stacked: bool) {
    if !stacked {
        plan.patches.truncate(1);
    }
    for (p, it) in plan.patches.iter_mut().enumerate() {
        it.relations = std::array::from_fn(|q| if q < p { Relation::After } else { Relation::None });
    }
    plan.targets = rng.below(2) + 1;
    // The code that is carried for one lies together.
    let mut last = 0;
    for f in 0..plan.funcs {
        last = if rng.one_in(2) { last } else { plan.targets - 1 };
        plan.target[f] = if rng.one_in(3) { None } else { Some(last) };
    }
    if plan.target == [None; FUNCS] {
        plan.target[0] = Some(0);
    }
    plan.other_builds = rng.one_in(6);
    // The code of a module calls what is there as long as it is: itself and the kernel.
    let target = plan.target;
    for it in &mut plan.patches {
        for (f, row) in it.direct.iter_mut().enumerate() {
            for (g, calls) in row.iter_mut().enumerate() {
                *calls &= target[g].is_none() || target[g] == target[f];
            }
        }
    }
}

/// The plan that a seed stands for.
pub fn plan(rng: &mut Rng, cut: Cut, mode: Option<Mode>) -> Plan {
    let funcs = rng.below(FUNCS) + 1;
    let n = rng.pick(&[1, 1, 2, 2, PATCHES]);
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
        patches: (0..n).map(|p| patch(rng, p, funcs, mode)).collect(),
        deadline_ms: rng.pick(&[20, 50, 300, 3000]),
        patience_ms: rng.pick(&[1000, 1000, 2200, 15_000]),
        hotplug: rng.one_in(3) || cut == Cut::Hotplug,
        probes: rng.one_in(3),
        no_memory: rng.one_in(8),
        tight: rng.one_in(5),
        cancel: rng.one_in(6),
        force: rng.one_in(8),
        heat: rng.pick(&[2, 3, 8, 30]),
        mortal: rng.pick(&[15, 60, 200]),
        sleepy: rng.pick(&[4, 10, 30]),
        work_ms: rng.pick(&[0, 0, 0, 100, 4000]),
        tasks: rng.below(6) + 1,
        target: [None; FUNCS],
        targets: 0,
        other_builds: false,
        constant: false,
        cut,
    };
    if n > 1 {
        // So that the first of them get as far as to have others on top.
        (plan.deadline_ms, plan.heat) = (rng.pick(&[50, 300, 3000, 3000]), rng.pick(&[3, 8, 30, 30]));
        (plan.cancel, plan.force) = (rng.one_in(12), rng.one_in(16));
    }
    let wanted =
        matches!(cut, Cut::HoldersLock | Cut::RegisterFirst | Cut::OnlyPassed | Cut::NotGoing | Cut::CloseFirst)
            || matches!(
                cut,
                Cut::Rule(
                    Guard::ModuleId
                        | Guard::FieldsAnew
                        | Guard::DataAnew
                        | Guard::LateSites
                        | Guard::JoinAsOthers
                        | Guard::RestoreAtGoing
                        | Guard::TailAtGoing
                )
            );
    let stacks = cut == Cut::UpperFirst;
    if stacks && plan.patches.len() < 2 {
        plan.patches.push(patch(rng, 1, funcs, mode));
    }
    if wanted || stacks || cut == Cut::Nothing && rng.one_in(3) {
        let stacked = stacks || !wanted && rng.one_in(2);
        modules(rng, &mut plan, stacked);
    }
    let data = [Guard::CheckData, Guard::DataBehindOldCode, Guard::DataBeforeOldCode, Guard::DataInTheStop];
    plan.constant = data.map(Cut::Rule).contains(&cut) || cut == Cut::Nothing && rng.one_in(3);
    let all = |plan: &mut Plan, mode| {
        for p in &mut plan.patches {
            (p.apply, p.revert, p.without) = (mode, mode, [false; FUNCS]);
        }
    };
    // Where what is missing matters.
    match cut {
        Cut::Rule(Guard::MarkBeforeRead | Guard::StopLooks) => {
            all(&mut plan, Mode::StopMachine);
            plan.heat = 30;
        }
        Cut::Rule(Guard::Survey | Guard::TakeBack) => {
            (plan.work_ms, plan.deadline_ms, plan.probes) = (4000, rng.pick(&[20, 50, 300]), false);
            plan.patches.iter_mut().for_each(|p| p.without = [false; FUNCS]);
        }
        Cut::Rule(Guard::RcuBeforeLeave) => {
            (plan.mortal, plan.heat) = (10, 3);
            plan.patches.truncate(1);
        }
        Cut::Rule(guard @ (Guard::RcuBeforeStop | Guard::RcuBeforeDrained)) => {
            // Many that exit, and one CPU for all of them: who is put off there stays so for long.
            all(&mut plan, if guard == Guard::RcuBeforeStop { Mode::StopMachine } else { Mode::Drain });
            (plan.cpus, plan.tasks, plan.mortal, plan.heat, plan.abs64) = (1, 9, 3, 8, false);
            (plan.deadline_ms, plan.cancel) = (3000, false);
            plan.single.fill(true);
            plan.patches.truncate(1);
        }
        Cut::Rule(Guard::RcuBeforeReplaced) => {
            all(&mut plan, Mode::Drain);
            (plan.mortal, plan.heat, plan.abs64, plan.deadline_ms) = (10, 3, false, 3000);
            plan.patches.iter_mut().skip(1).for_each(|p| p.relations[0] = Relation::Replaces);
        }
        Cut::Rule(Guard::HoldWhatIsBelow) => {
            plan.patches.iter_mut().skip(1).for_each(|p| p.relations[0] = Relation::After);
            plan.patches
                .iter_mut()
                .skip(2)
                .for_each(|p| p.relations = [Relation::None, Relation::Replaces, Relation::None]);
        }
        Cut::Rule(Guard::FreezeTable) => {
            all(&mut plan, Mode::Transition);
            plan.deadline_ms = 20;
            plan.patches.truncate(1);
        }
        Cut::Rule(Guard::FreshClock) => {
            all(&mut plan, Mode::Transition);
            plan.probes = true;
        }
        Cut::Rule(Guard::AskWhoWasSeen | Guard::RecallBeforeFree) | Cut::Recall => all(&mut plan, Mode::Transition),
        Cut::Rule(Guard::Undisturbed) => {
            all(&mut plan, Mode::Transition);
            plan.patience_ms = 15_000;
        }
        Cut::Rule(Guard::NoticeFull) => {
            all(&mut plan, Mode::StopMachine);
            plan.tight = true;
        }
        Cut::Rule(Guard::WholeCensus | Guard::WholeWatch) => plan.tight = true,
        Cut::Rule(Guard::ModuleId) => plan.other_builds = true,
        Cut::Rule(Guard::LateSites | Guard::CheckData) => plan.probes = true,
        Cut::Rule(Guard::TailAtGoing) => {
            (plan.abs64, plan.probes) = (true, false);
            plan.single.fill(false);
        }
        _ => {}
    }
    plan
}
