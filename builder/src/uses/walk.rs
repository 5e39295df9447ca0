//! The way through a function: states meet at branches until nothing changes, then everything is reported once.

use std::collections::BTreeSet;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::awake::is_awake;
use super::graph::{FlowGraph, Graph, Node, graph};
use super::readers::{from_assembly, reader};
use super::state::{ARGUMENTS, CALLER_SAVED, FRESH, HELD, MIXED, RAX, RDX, State, WALKED};
use super::step::{Stack, UseStep, copied};
use super::{AddressUse, Callee, Copy, DEPTH, Found, InPatch, Seed};
use crate::symbolize::{AtomId, Object, Usage};

/// Instructions carried out for one question, repeats included; beyond that nothing is known.
const BUDGET: u32 = 2_000_000;

/// Arguments that hold the address, or its end.
const FOLLOWED: u32 = 0x3f | 0x3f << 18;

/// What a function does.
#[derive(Clone, Debug, Default)]
struct Outcome {
    found: BTreeSet<Found>,
    /// It may return the address.
    returns: bool,
}

/// What is known when a function is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entered {
    function: AtomId,
    /// As in [`State::arguments`].
    arguments: u32,
    /// A function of the patch waits for it to return.
    guarded: bool,
}

/// Answers one question about one object.
pub struct Tracer<'a> {
    object: &'a Object,
    seed: Seed<'a>,
    patch: Option<InPatch<'a>>,
    graphs: FxHashMap<AtomId, Option<Rc<Graph>>>,
    done: FxHashMap<Entered, Outcome>,
    active: FxHashSet<Entered>,
    sleeps: FxHashMap<AtomId, bool>,
    /// The function that is looked at is guarded.
    guarded: bool,
    /// Functions that return the address, known to be called directly only.
    returning: BTreeSet<AtomId>,
    clobbers: FxHashMap<(AtomId, usize), bool>,
    left: u32,
}

impl<'a> Tracer<'a> {
    pub fn new(object: &'a Object, seed: Seed<'a>, patch: Option<InPatch<'a>>) -> Self {
        Self {
            object,
            seed,
            patch,
            sleeps: FxHashMap::default(),
            guarded: false,
            graphs: FxHashMap::default(),
            done: FxHashMap::default(),
            active: FxHashSet::default(),
            returning: BTreeSet::new(),
            clobbers: FxHashMap::default(),
            left: BUDGET,
        }
    }

    /// All uses in `functions`, and in those that get the address from them.
    pub fn run(mut self, functions: &BTreeSet<AtomId>) -> Vec<Found> {
        let mut asked = functions.clone();
        // A function that returns the address hands it to its callers.
        for round in 0.. {
            self.done.clear();
            let mut all = BTreeSet::new();
            let mut more = BTreeSet::new();
            for f in asked.clone() {
                let guarded = self.is_guarded(f);
                let outcome = self.function(Entered { function: f, arguments: 0, guarded }, 0);
                all.extend(outcome.found);
                if !outcome.returns {
                    continue;
                }
                let callers = self.callers(f).filter(|_| round < DEPTH);
                // To functions of the patch, and to ones that do not sleep while they have it; to others, when the patch may go.
                let mut known = callers.clone().unwrap_or_default();
                known.retain(|f| self.patch.is_none_or(|patch| (patch.carried)(*f)) || !self.may_sleep(*f, 0));
                if callers.is_none_or(|all| all.len() > known.len()) {
                    let at = self.return_of(f);
                    all.insert(Found { atom: f, at, what: AddressUse::Returned });
                }
                if !known.is_empty() && (self.returning.insert(f) || !known.is_subset(&asked)) {
                    more.extend(known);
                }
            }
            if more.is_empty() {
                return all.into_iter().collect();
            }
            asked.extend(more);
        }
        Vec::new()
    }

    /// Does a function of the patch always wait for this one to return?
    fn is_guarded(&mut self, f: AtomId) -> bool {
        let Some(patch) = self.patch else { return true };
        if (patch.awaited)(f) {
            return true;
        }
        let Some(callers) = self.callers(f).filter(|all| !all.is_empty()) else { return false };
        callers.iter().all(|by| {
            let leaves = |g: &Graph| {
                g.nodes.iter().any(|n| matches!(&n.flow, FlowGraph::Tail(Callee::Function(to)) | FlowGraph::TailIf(Callee::Function(to)) if *to == f))
            };
            (patch.carried)(*by) && self.graph(*by).is_some_and(|g| !leaves(&g))
        })
    }

    /// May a function of the same object sleep?
    fn may_sleep(&mut self, f: AtomId, depth: usize) -> bool {
        if let Some(known) = self.sleeps.get(&f) {
            return *known;
        }
        let Some(g) = self.graph(f).filter(|g| depth <= DEPTH && g.trouble.is_none()) else { return true };
        // While it is being found out, it does not.
        self.sleeps.insert(f, false);
        let sleeps = g.nodes.iter().any(|n| match &n.flow {
            FlowGraph::Call(callee) | FlowGraph::Tail(callee) | FlowGraph::TailIf(callee) => {
                self.callee_may_sleep(callee, depth)
            }
            FlowGraph::Indirect => g.labels.is_empty() || n.memory.is_empty(),
            _ => false,
        });
        self.sleeps.insert(f, sleeps);
        sleeps
    }

    fn callee_may_sleep(&mut self, callee: &Callee, depth: usize) -> bool {
        match callee {
            // In it a function of the patch is on the stack.
            Callee::Function(f) if self.patch.is_some_and(|patch| (patch.carried)(*f)) => false,
            Callee::Function(f) => {
                let atom = self.object.atom(*f);
                atom.weak || !(atom.global && is_awake(&atom.name)) && self.may_sleep(*f, depth + 1)
            }
            Callee::Extern(name) => !is_awake(name),
            Callee::Indirect => true,
        }
    }

    /// The functions that call `f`, if only direct calls of this object refer to it.
    fn callers(&self, f: AtomId) -> Option<BTreeSet<AtomId>> {
        let atom = self.object.atom(f);
        if atom.global {
            return None;
        }
        let mut callers = BTreeSet::new();
        for i in self.object.incoming_of(f) {
            let by = self.object.atom(i.from);
            if i.from == f {
                continue;
            }
            if !by.is_code() || i.usage != Usage::Branch || by.code.is_none() {
                return None;
            }
            callers.insert(self.object.parent(i.from));
        }
        Some(callers)
    }

    fn return_of(&mut self, f: AtomId) -> u64 {
        let graph = self.graph(f);
        let last = graph.iter().flat_map(|g| &g.nodes).find(|n| n.atom == f && matches!(n.flow, FlowGraph::Return));
        last.map_or(0, |n| n.at)
    }

    fn graph(&mut self, f: AtomId) -> Option<Rc<Graph>> {
        let (object, seed) = (self.object, self.seed);
        self.graphs.entry(f).or_insert_with(|| graph(object, f, seed).map(Rc::new)).clone()
    }

    fn function(&mut self, key: Entered, depth: usize) -> Outcome {
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        if !self.active.insert(key) {
            // It calls itself: what it does is found anyway.
            return Outcome { found: BTreeSet::new(), returns: key.arguments != 0 };
        }
        let before = std::mem::replace(&mut self.guarded, key.guarded);
        let outcome = self.walk(key.function, key.arguments, depth);
        self.guarded = before;
        self.active.remove(&key);
        self.done.insert(key, outcome.clone());
        outcome
    }

    fn walk(&mut self, f: AtomId, arguments: u32, depth: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let unknown =
            |at: u64, atom: AtomId, what: &str| Found { atom, at, what: AddressUse::Unknown(what.to_owned()) };
        let Some(g) = self.graph(f) else {
            outcome.found.insert(unknown(0, f, "its code was not looked at"));
            return outcome;
        };
        if let Some((atom, what)) = &g.trouble {
            outcome.found.insert(unknown(0, *atom, what));
        }
        let mut states: Vec<Option<State>> = vec![None; g.nodes.len()];
        let mut stack = Stack::default();
        let mut queue: BTreeSet<usize> = BTreeSet::new();
        if let Some(entry) = g.entry {
            states[entry] = Some(State::entry(arguments));
            queue.insert(entry);
        }
        loop {
            while let Some(n) = queue.pop_first() {
                let Some(left) = self.left.checked_sub(1) else {
                    outcome.found.insert(unknown(0, f, "the code is too large to follow"));
                    return outcome;
                };
                self.left = left;
                let Some(mut state) = states[n].clone() else { continue };
                let before = state.clone();
                self.node(&g, n, &mut state, &mut stack, None, depth);
                for (to, with) in self.successors(&g, n, &before, &state) {
                    let changed = match &mut states[to] {
                        Some(there) => there.join(with),
                        empty => {
                            *empty = Some(with.clone());
                            true
                        }
                    };
                    if changed {
                        queue.insert(to);
                    }
                }
            }
            // What was not reached but has references of its own is looked at by itself.
            let refers = |n: &super::graph::Node| n.disp | n.imm | n.kept != 0;
            let missed = (0..g.nodes.len()).find(|n| states[*n].is_none() && refers(&g.nodes[*n]));
            let Some(missed) = missed else { break };
            states[missed] = Some(State::unknown());
            queue.insert(missed);
        }
        for (n, node) in g.nodes.iter().enumerate() {
            let Some(mut state) = states[n].clone() else { continue };
            let mut uses = Vec::new();
            let mut inner = Outcome::default();
            self.node(&g, n, &mut state, &mut stack, Some((&mut uses, &mut inner)), depth);
            outcome.returns |= inner.returns;
            outcome.found.extend(inner.found);
            outcome.found.extend(uses.into_iter().map(|what| Found { atom: node.atom, at: node.at, what }));
        }
        outcome
    }

    /// Who may follow, and with which state.
    fn successors<'s>(&self, g: &Graph, n: usize, before: &'s State, after: &'s State) -> Vec<(usize, &'s State)> {
        let node = &g.nodes[n];
        let mut all: Vec<(usize, &State)> = Vec::new();
        let next = node.next.map(|to| (to, after));
        match &node.flow {
            FlowGraph::Next | FlowGraph::Call(_) | FlowGraph::TailIf(_) => all.extend(next),
            FlowGraph::Jump(to) => all.push((*to, after)),
            FlowGraph::Branch(to) => {
                all.push((*to, after));
                all.extend(next);
            }
            FlowGraph::Indirect => all.extend(g.labels.iter().map(|to| (*to, after))),
            FlowGraph::Tail(_) | FlowGraph::Return | FlowGraph::End => {}
        }
        for to in &node.more {
            all.push((*to, before));
            all.push((*to, after));
        }
        all
    }

    /// One instruction; what it does is reported in the last pass only.
    fn node(
        &mut self,
        g: &Graph,
        n: usize,
        state: &mut State,
        stack: &mut Stack,
        mut out: Option<(&mut Vec<AddressUse>, &mut Outcome)>,
        depth: usize,
    ) {
        let node = &g.nodes[n];
        match &node.flow {
            FlowGraph::Call(callee) => {
                through_memory(self.object, node, state, stack, &mut out);
                self.call(g, node, callee, false, state, stack, &mut out, depth);
            }
            FlowGraph::Tail(callee) | FlowGraph::TailIf(callee) => {
                let mut copy = state.clone();
                if self.name_of(callee).is_some_and(|n| n.starts_with("__x86_return_thunk")) {
                    leave(&copy, &mut out);
                } else {
                    self.call(g, node, callee, true, &mut copy, stack, &mut out, depth);
                    // What the other function returns, this one returns.
                    if copy.reg(RAX) & HELD != 0
                        && let Some((_, outcome)) = &mut out
                    {
                        outcome.returns = true;
                    }
                }
            }
            FlowGraph::Indirect => {
                through_memory(self.object, node, state, stack, &mut out);
                // Through a table in memory it is a switch, through a register it can be either.
                if g.labels.is_empty() || node.memory.is_empty() {
                    self.call(g, node, &Callee::Indirect, true, &mut state.clone(), stack, &mut out, depth);
                }
            }
            FlowGraph::Return => leave(state, &mut out),
            FlowGraph::Next | FlowGraph::Jump(_) | FlowGraph::Branch(_) | FlowGraph::End => {
                let out = out.map(|(uses, _)| uses);
                let deep = self.patch.is_some_and(|p| p.deep);
                UseStep { object: self.object, node, state, stack, deep, out }.run();
            }
        }
    }

    fn name_of<'n>(&self, callee: &'n Callee) -> Option<&'n str>
    where
        'a: 'n,
    {
        match callee {
            Callee::Function(f) => Some(self.object.atom(*f).name.as_str()),
            Callee::Extern(name) => Some(name),
            Callee::Indirect => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that is known at a call")]
    fn call(
        &mut self,
        g: &Graph,
        node: &Node,
        callee: &Callee,
        tail: bool,
        state: &mut State,
        stack: &Stack,
        out: &mut Option<(&mut Vec<AddressUse>, &mut Outcome)>,
        depth: usize,
    ) {
        let name = self.name_of(callee).map(str::to_owned);
        let assembly = name.as_deref().and_then(from_assembly);
        if let Some(what) = assembly {
            if let Some((uses, _)) = out {
                if what.copies && state.reg(ARGUMENTS[1]) & HELD != 0 {
                    uses.push(AddressUse::Read);
                }
                if what.copies && state.reg(ARGUMENTS[0]) & HELD != 0 {
                    uses.push(AddressUse::Written);
                }
                if what.gets.iter().any(|r| state.reg(usize::from(*r)) & HELD != 0) {
                    uses.push(AddressUse::Passed { callee: callee.clone(), argument: None });
                }
            }
            return;
        }
        let leaves = tail && !self.guarded;
        if let Some((to, from)) = name.as_deref().and_then(copier) {
            let to = to.map_or(0, |n| state.reg(ARGUMENTS[n]));
            let mut uses = copied(state, to, state.reg(ARGUMENTS[from]));
            if name.as_deref().is_some_and(|n| n.contains("dup")) {
                uses.iter_mut()
                    .filter(|u| matches!(u, AddressUse::Copied(_)))
                    .for_each(|u| *u = AddressUse::Copied(Copy::Allocated));
            }
            if let Some((all, _)) = out {
                all.extend(uses);
            }
        }
        // A static function of the same name is another one.
        let of_kernel = !matches!(callee, Callee::Function(f) if !self.object.atom(*f).global);
        let known = name.as_deref().filter(|_| of_kernel).and_then(reader);
        let own = match callee {
            Callee::Function(f) if !self.object.atom(*f).weak && known.is_none() => Some(*f),
            _ => None,
        };
        let arguments = state.arguments();
        let mut result = 0;
        let on_stack = {
            let rsp = state.rsp.unwrap_or(i32::MIN);
            let for_callee = |at: i32, flags: u8| flags & FRESH != 0 || !stack.is_loaded(at);
            // A tail jump leaves the frame behind: its arguments are where those of the function were, behind the return
            // address.
            let first = if tail { 8 } else { rsp };
            state.slots().any(|(at, flags)| flags & HELD != 0 && at >= first && for_callee(at, flags))
        };
        let stays = matches!(callee, Callee::Function(f) if self.patch.is_some_and(|patch| (patch.carried)(*f)));
        if leaves
            && !stays
            && (arguments & 0x3f != 0 || on_stack)
            && self.callee_may_sleep(callee, 0)
            && let Some((uses, _)) = out
        {
            uses.push(AddressUse::Left { callee: callee.clone() });
        }
        let follow = own.filter(|f| depth < DEPTH && self.object.atom(*f).code.is_some() && !on_stack);
        match follow {
            Some(function) if arguments & FOLLOWED != 0 => {
                // Once one of them waits, or after that one line, it does not matter any more.
                let guarded = self.guarded || !tail || !stays;
                let inner = self.function(Entered { function, arguments, guarded }, depth + 1);
                result = if inner.returns { HELD | MIXED } else { 0 };
                if let Some((_, outcome)) = out {
                    outcome.found.extend(inner.found);
                }
            }
            _ => {
                let held = (0..6u8).filter(|n| arguments >> n & 1 != 0).map(Some).chain(on_stack.then_some(None));
                for argument in held {
                    let only_read = known.is_some_and(|k| k.reads(argument));
                    if known.is_some_and(|k| k.returns_it) && only_read {
                        result = HELD | MIXED;
                    }
                    if let Some((uses, _)) = out {
                        uses.push(match only_read {
                            true => AddressUse::Read,
                            false => AddressUse::Passed { callee: callee.clone(), argument },
                        });
                    }
                }
            }
        }
        if let Callee::Function(f) = callee
            && self.returning.contains(f)
        {
            result = HELD | MIXED;
        }
        // Inline assembly says which registers its calls change; which, is not written down in the object.
        if !node.alternative {
            for n in CALLER_SAVED {
                let kept = match callee {
                    Callee::Function(f) if !g.profiled => !self.changes(*f, n, 0),
                    _ => false,
                };
                if !kept {
                    state.forget(n);
                }
            }
        }
        state.set(RAX, result);
        // The second half of a result.
        state.defined |= 1 << RDX;
    }

    /// Does a function of the same object change a register that calls may change? The compiler knows, unless it makes
    /// code for the tracer (GCC, -fipa-ra).
    fn changes(&mut self, f: AtomId, n: usize, depth: usize) -> bool {
        if let Some(known) = self.clobbers.get(&(f, n)) {
            return *known;
        }
        if depth > DEPTH {
            return false;
        }
        let Some(g) = self.graph(f) else { return true };
        // While it is being found out, it does not.
        self.clobbers.insert((f, n), false);
        let found = g.nodes.iter().any(|node| {
            node.writes >> n & 1 != 0
                || match &node.flow {
                    FlowGraph::Call(Callee::Function(other)) | FlowGraph::Tail(Callee::Function(other)) => {
                        self.changes(*other, n, depth + 1)
                    }
                    FlowGraph::Call(Callee::Extern(name)) => from_assembly(name).is_none() && !node.alternative,
                    FlowGraph::Call(Callee::Indirect) => !node.alternative,
                    FlowGraph::Tail(Callee::Extern(_)) => true,
                    _ => false,
                }
        });
        self.clobbers.insert((f, n), found);
        found
    }
}

/// A call or jump through memory reads it.
fn through_memory(
    object: &Object,
    node: &Node,
    state: &mut State,
    stack: &mut Stack,
    out: &mut Option<(&mut Vec<AddressUse>, &mut Outcome)>,
) {
    let mut copy = state.clone();
    let mut uses = Vec::new();
    UseStep { object, node, state: &mut copy, stack, deep: false, out: Some(&mut uses) }.run();
    if let Some((all, _)) = out {
        all.extend(uses);
    }
}

/// Functions that copy memory: the arguments where to and where from, counted from 0 (lib/string.c, mm/util.c,
/// drivers/base/devres.c).
fn copier(name: &str) -> Option<(Option<usize>, usize)> {
    match name {
        "memcpy" | "__memcpy" | "memmove" | "__memmove" => Some((Some(0), 1)),
        "kmemdup" | "kmemdup_noprof" | "kvmemdup" | "kmemdup_array" => Some((None, 0)),
        "devm_kmemdup" => Some((None, 1)),
        _ => None,
    }
}

/// The function ends.
fn leave(state: &State, out: &mut Option<(&mut Vec<AddressUse>, &mut Outcome)>) {
    let Some((uses, outcome)) = out else { return };
    outcome.returns |= state.reg(RAX) & HELD != 0;
    // Results of two words; what has been read, or has walked through the object, is a leftover.
    if state.reg(RDX) & HELD != 0 && state.reg(RDX) & FRESH != 0 && state.reg(RDX) & WALKED == 0 {
        uses.push(AddressUse::Unknown(super::SECOND_RESULT.into()));
    }
}
