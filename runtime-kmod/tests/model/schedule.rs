//! One schedule: a kernel, a patch and a random order of everything that happens.

use std::{collections::BTreeMap, ffi::CStr, sync::atomic::Ordering::SeqCst};

use lpbuild_abi::{
    ABI_VERSION, AnchorKind, AnchorRecord, DataRecord, FieldKind, FuncRecord, HolderRecord, LateReloc, MAGIC, MAX_SITE,
    Mode, PatchRecord, RangeRecord, Region,
};
use lpbuild_runtime::{record::Patch, site::INT3};

use crate::{
    coroutine::Coroutine,
    cpu, operator,
    plan::{Cut, Plan, Relation, plan},
    rng::Rng,
    sim::{Module, Sim},
    target::{self, Target},
    world::{
        BROUGHT, CONSTANT, CONTENTS, Cpu, FIELD, FUNCS, Kind, LEN, Life, MS, OLD, OPERATOR, PATCHES, Rules, Run,
        SITE_OFFSET, SLOTS, Task, World, dispatch_addr, new_addr, resume_addr, text,
    },
};

/// Micro-steps after which a schedule that has not come to an end never will.
const LIMIT: u64 = 2_000_000;

/// How a schedule ended.
#[derive(Debug)]
pub struct End {
    pub failure: Option<String>,
    pub steps: u64,
    pub outcomes: Vec<&'static str>,
    pub log: Vec<String>,
    pub plan: Plan,
}

fn world(mut rng: Rng, plan: Plan, trace: bool) -> World {
    let cpus = plan.cpus + plan.targets + 1;
    let mut tasks: Vec<Task> = (0..SLOTS).map(|_| Task::none()).collect();
    let base = |frames| Task { exists: true, run: Run::Ready, frames, ..Task::none() };
    tasks[OPERATOR] = Task { listed: true, kernel: true, on_cpu: true, cpu: cpus - 1, ..base(vec![Kind::Operator]) };
    let mut next = OPERATOR + 1;
    for cpu in 0..cpus {
        let on_cpu = cpu < plan.cpus;
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
    let mut loaders = Vec::new();
    for t in 0..plan.targets {
        let loader = base(vec![Kind::Loader(t)]);
        tasks[next] = Task { listed: true, kernel: true, pinned: true, on_cpu: true, cpu: plan.cpus + t, ..loader };
        loaders.push(next);
        next += 1;
    }
    let code: Vec<_> = (0..plan.funcs).map(|f| plan.site(f)).collect();
    let cpu = |c: usize| Cpu {
        online: true,
        current: match c {
            _ if c == cpus - 1 => OPERATOR,
            _ if c >= plan.cpus => loaders[c - plan.cpus],
            _ => OPERATOR + 1 + 2 * c,
        },
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
        chain: 0,
        targets: (0..plan.targets).map(|_| Target::new()).collect(),
        written: BTreeMap::new(),
        probes: vec![None; plan.funcs],
        constant: CONTENTS[0],
        spoilt: None,
        patches: vec![Life::default(); plan.patches.len()],
        operating: 0,
        versions: [0; FUNCS],
        views: Vec::new(),
        finished: false,
        forced: false,
        rules: Rules::default(),
        blocks: Vec::new(),
        freed: Vec::new(),
        failure: None,
        log: Vec::new(),
        trace,
        outcomes: Vec::new(),
        loaders,
        plan,
    }
}

const NAMES: [&CStr; PATCHES] = [c"p0", c"p1", c"p2"];

/// The records of a patch.
struct Records {
    funcs: Vec<FuncRecord>,
    ranges: Vec<RangeRecord>,
    after: Vec<u64>,
    replaces: Vec<u64>,
    holders: Vec<HolderRecord>,
    anchors: Vec<AnchorRecord>,
    relocs: Vec<LateReloc>,
    data: Vec<DataRecord>,
    patch: Option<Box<PatchRecord>>,
}

fn records(plan: &Plan, p: usize) -> Records {
    let (it, len) = (&plan.patches[p], plan.site_len());
    let original = |f| {
        let mut bytes = [0; MAX_SITE];
        bytes[..len].copy_from_slice(&plan.site(f)[..len]);
        bytes
    };
    let mut has: Vec<usize> = (0..FUNCS).filter(|&f| it.has[f]).collect();
    has.sort_by_key(|&f| plan.target[f]);
    // Modules of which it has functions.
    let modules: Vec<usize> = (0..plan.targets).filter(|t| has.iter().any(|&f| plan.target[f] == Some(*t))).collect();
    let anchor = |f: usize| {
        let at = modules.iter().position(|t| plan.target[f] == Some(*t));
        at.map_or(0, |at| at as u32 * 2 + 1)
    };
    let base = |f: usize| if plan.target[f].is_some() { 0 } else { OLD };
    let func = |&f: &usize| FuncRecord {
        old: base(f) + f as u64 * 0x100,
        new: new_addr(p, f),
        name: c"function".as_ptr() as u64,
        old_size: LEN,
        new_size: 0x80,
        site_offset: SITE_OFFSET as u16,
        site_size: len as u8,
        jump_kind: if plan.abs64 { 2 } else { 1 },
        covers_fentry: 0,
        original: original(f),
        single: u8::from(plan.single[f]),
        resume: if it.without[f] { 0 } else { resume_addr(p, f) },
        dispatch: if it.without[f] { 0 } else { dispatch_addr(p, f) },
        anchor: anchor(f),
        zero: 0,
    };
    let range = |(i, f): (usize, &usize)| RangeRecord {
        start: base(*f) + *f as u64 * 0x100,
        len: LEN,
        func: i as u32,
        anchor: anchor(*f),
        zero: 0,
    };
    let named = |relation| -> Vec<u64> {
        let those = (0..p).filter(|&q| it.relations[q] == relation);
        those.map(|q| NAMES[q].as_ptr() as u64).collect()
    };
    let mut all = Records {
        funcs: has.iter().map(func).collect(),
        ranges: has.iter().enumerate().map(range).collect(),
        after: named(Relation::After),
        replaces: named(Relation::Replaces),
        holders: Vec::new(),
        anchors: Vec::new(),
        relocs: Vec::new(),
        data: Vec::new(),
        patch: None,
    };
    for (i, &t) in modules.iter().enumerate() {
        let own: Vec<usize> = has.iter().copied().filter(|&f| plan.target[f] == Some(t)).collect();
        all.holders.push(holder(p, t, own.len() as u32));
        all.anchors.extend([section(i, c"text", Region::Text), section(i, c"data", Region::Data)]);
        all.relocs.extend(own.iter().map(|&f| LateReloc {
            at: new_addr(p, f) + FIELD,
            addend: f as i64 * 8,
            anchor: i as u32 * 2 + 1,
            site_of: 0,
            stub: 0,
            kind: FieldKind::Abs64 as u8,
            zero: [0; 7],
        }));
    }
    if p == 0 && plan.constant {
        let [old, new] = [0, 1].map(|i| CONTENTS_AT[i].as_ptr() as u64);
        all.data.push(DataRecord { addr: CONSTANT, old, new, name: c"constant".as_ptr() as u64, len: 16, zero: 0 });
    }
    let in_kernel = has.iter().filter(|&&f| plan.target[f].is_none()).count() as u32;
    let address = |n: usize, at: u64| if n == 0 { 0 } else { at };
    all.patch = Some(Box::new(PatchRecord {
        magic: MAGIC,
        abi_version: ABI_VERSION,
        mode: it.apply as u8,
        build_id_len: 20,
        flags: it.flags,
        build_id: std::array::from_fn(|i| if i < 20 { 7 } else { 0 }),
        deadline_ms: plan.deadline_ms,
        n_funcs: all.funcs.len() as u32,
        n_ranges: all.ranges.len() as u32,
        patience_ms: plan.patience_ms,
        funcs: all.funcs.as_ptr() as u64,
        ranges: all.ranges.as_ptr() as u64,
        name: NAMES[p].as_ptr() as u64,
        version: c"1".as_ptr() as u64,
        notes_start: 0x9000,
        notes_end: 0x9000,
        text_start: text(p).0,
        text_end: text(p).1,
        after: if all.after.is_empty() { 0 } else { all.after.as_ptr() as u64 },
        replaces: if all.replaces.is_empty() { 0 } else { all.replaces.as_ptr() as u64 },
        n_after: all.after.len() as u32,
        n_replaces: all.replaces.len() as u32,
        digest: 0,
        holders: address(all.holders.len(), all.holders.as_ptr() as u64),
        anchors: address(all.anchors.len(), all.anchors.as_ptr() as u64),
        relocs: address(all.relocs.len(), all.relocs.as_ptr() as u64),
        n_holders: all.holders.len() as u32,
        n_anchors: all.anchors.len() as u32,
        n_relocs: all.relocs.len() as u32,
        n_kernel_funcs: in_kernel,
        n_kernel_ranges: in_kernel,
        n_data: all.data.len() as u32,
        data: address(all.data.len(), all.data.as_ptr() as u64),
    }));
    all
}

static CONTENTS_AT: [[u8; 16]; 3] = CONTENTS;

const MODULES: [&CStr; 2] = [c"t0", c"t1"];

/// The record of a module with `n` functions of the patch, which brings 8 bytes for it.
fn holder(p: usize, t: usize, n: u32) -> HolderRecord {
    let data = text(p).0 + BROUGHT + t as u64 * 8;
    HolderRecord {
        name: MODULES[t].as_ptr() as u64,
        data,
        data_end: data + 8,
        bss: 0,
        bss_end: 0,
        rodata: 0,
        rodata_end: 0,
        jumps: 0,
        jumps_end: 0,
        calls: 0,
        calls_end: 0,
        sealed: 0,
        sealed_end: 0,
        needs: 0,
        build_id: std::array::from_fn(|i| if i < 20 { 9 } else { 0 }),
        n_funcs: n,
        n_ranges: n,
        n_anchors: 2,
        n_relocs: n,
        build_id_len: 20,
        zero: [0; 7],
    }
}

fn section(owner: usize, name: &CStr, region: Region) -> AnchorRecord {
    AnchorRecord {
        name: name.as_ptr() as u64,
        witness: 0,
        delta: 0,
        witness_delta: 0,
        at: 0,
        owner: owner as u32,
        position: 0,
        count: 1,
        witness_position: 0,
        witness_count: 0,
        of: 0,
        size: FUNCS as u32 * 0x100,
        kind: AnchorKind::Symbol as u8,
        field: 0,
        region: region as u8,
        zero: 0,
    }
}

/// Runs one schedule.
pub fn run(seed: u64, cut: Cut, mode: Option<Mode>, trace: bool) -> End {
    let mut rng = Rng::new(seed);
    let plan = plan(&mut rng, cut, mode);
    let records: Vec<Records> = (0..plan.patches.len()).map(|p| records(&plan, p)).collect();
    let module = |r: &Records| {
        let record: *const PatchRecord = &raw const **r.patch.as_ref().expect("it was made");
        // SAFETY: records and strings behind the addresses live until the end of this function, as everybody who reads them.
        Module::new(unsafe { Patch::unsealed(&*record, &Everything) }.expect("a valid patch"))
    };
    let sim = Sim::new(world(rng, plan, trace), records.iter().map(module).collect());
    let sim = &sim;
    // SAFETY: everything it refers to lives until the end of this function; it is dropped before.
    let mut operator = unsafe { Coroutine::new(|| operator::life(sim)) };
    // SAFETY: as above.
    let mut loaders: Vec<_> =
        (0..sim.world().targets.len()).map(|t| unsafe { Coroutine::new(move || target::life(sim, t)) }).collect();
    drive(sim, &mut operator, &mut loaders);
    let mut w = sim.world();
    // Coroutines refer to the simulation.
    for t in &mut w.tasks {
        t.frames.clear();
    }
    w.stop = None;
    let (failure, log, outcomes) = (w.failure.take(), std::mem::take(&mut w.log), std::mem::take(&mut w.outcomes));
    End { failure, steps: w.steps, outcomes, log, plan: w.plan.clone() }
}

fn drive(sim: &Sim, operator: &mut Coroutine, loaders: &mut [Coroutine]) {
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
            if cpu::step(sim, cpu, operator, loaders) {
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
            if w.has_code(f) {
                probe(w, f);
            }
        }
        2 if w.plan.cancel && w.rng.one_in(8) && w.steps > 200 => {
            sim.patches[w.operating].cancel.store(true, SeqCst);
            w.note(|| "cancel".into());
        }
        3 if w.plan.force && w.rng.one_in(8) && w.steps > 200 => {
            sim.patches[w.operating].force.store(true, SeqCst);
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
        5 if w.plan.constant && w.plan.probes && w.stop.is_none() && w.rng.one_in(2) => spoil(w),
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

/// Somebody else changes the constant, or puts back what he found.
pub fn spoil(w: &mut World) {
    match w.spoilt.take() {
        Some(before) => w.constant = before,
        None => (w.spoilt, w.constant) = (Some(w.constant), CONTENTS[2]),
    }
    let now = w.constant[0];
    w.note(|| format!("somebody writes {now} to the constant"));
}

/// Another one sets or takes away a kprobe at a site, with the kernel's own poking, which is not the question here.
pub fn probe(w: &mut World, f: usize) {
    // The kernel's poking waits until no CPU is in the handler.
    let hit = |k: &Kind| matches!(k, Kind::Call(c) if c.f == f && matches!(c.at, crate::world::At::Trap(..)));
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
