//! A function and its pieces as a graph of instructions: who follows whom, which operands are the followed references.
//!
//! Besides branches, an instruction is followed by the target of its jump label (`__jump_table`: the bytes are a nop), by the
//! place its exception leads to (`__ex_table`), and the first one of an alternative by its replacement.

use rustc_hash::FxHashMap;

use crate::isa::is_near_branch;

use crate::isa::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::state::{END, HELD, TOP, number};
use super::{Callee, Part, Seed};
use crate::symbolize::{AtomId, Entry, EntryId, Object, Ref, Table, Target, Usage};

/// Where control goes.
#[derive(Clone, Debug)]
pub enum FlowGraph {
    /// To the next instruction.
    Next,
    /// To this node.
    Jump(usize),
    /// To this node, or on.
    Branch(usize),
    /// Out of the function for good.
    Tail(Callee),
    /// Out of the function, or on.
    TailIf(Callee),
    /// A call.
    Call(Callee),
    /// An indirect jump: to a label of the function where it has a table of them, else out of it.
    Indirect,
    /// Back to the caller.
    Return,
    /// Nowhere.
    End,
}

/// Memory an instruction uses.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub base: Register,
    pub index: Register,
    pub reads: bool,
    pub writes: bool,
    /// Is it the one the operand names? Its displacement counts.
    pub named: bool,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Node {
    pub atom: AtomId,
    pub at: u64,
    pub insn: Instruction,
    /// What the displacement is: [`HELD`], [`END`] and [`TOP`].
    pub disp: u8,
    /// What the immediate is.
    pub imm: u8,
    /// What is read at the memory operand.
    pub kept: u8,
    /// What the memory operand names.
    pub memory_target: Option<Target>,
    /// General registers whose value is read, memory addresses apart.
    pub reads: u16,
    /// General registers that are used in any way as a source.
    pub touches: u16,
    /// General registers that are written.
    pub writes: u16,
    pub memory: Vec<Memory>,
    pub flow: FlowGraph,
    pub next: Option<usize>,
    /// Where control may go besides.
    pub more: Vec<usize>,
    /// Rewritten by the kernel, or part of what replaces it: a call here is one of inline assembly.
    pub alternative: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub entry: Option<usize>,
    /// Places that data points to.
    pub labels: Vec<usize>,
    /// It was compiled with -pg: it calls the tracer.
    pub profiled: bool,
    /// Something of it could not be decoded.
    pub trouble: Option<(AtomId, String)>,
}

/// Makes the graph of a function and its pieces; nothing when its code is not there.
pub fn graph(object: &Object, function: AtomId, seed: Seed<'_>) -> Option<Graph> {
    object.atom(function).code.as_ref()?;
    let mut g = Graph { nodes: Vec::new(), entry: None, labels: Vec::new(), profiled: false, trouble: None };
    let mut at = FxHashMap::default();
    let mut factory = InstructionInfoFactory::new();
    let family = object.family(function);
    for id in &family {
        let atom = object.atom(*id);
        let Some(code) = &atom.code else { continue };
        if let Some(what) = &code.trouble {
            g.trouble.get_or_insert_with(|| (*id, what.clone()));
        }
        let bytes = object.bytes(*id);
        let first = g.nodes.len();
        let mut refs = atom.refs.iter().peekable();
        for insn in &code.insns {
            let end = u64::from(insn.at) + u64::from(insn.len);
            let mut own = Vec::new();
            while let Some(r) = refs.next_if(|r| r.at < end) {
                own.push(r);
            }
            let Some(raw) = bytes.get(insn.at as usize..end as usize) else { continue };
            let ip = atom.start + u64::from(insn.at);
            let Some(node) = node(&mut factory, *id, u64::from(insn.at), raw, ip, &own, u64::from(insn.at), seed)
            else {
                continue;
            };
            at.insert((*id, u64::from(insn.at)), g.nodes.len());
            g.nodes.push(node);
        }
        let last = g.nodes.len();
        for n in first..last {
            g.nodes[n].next = (n + 1 < last).then_some(n + 1);
        }
    }
    g.entry = at.get(&(function, 0)).copied();
    // Where the branches lead is known when all nodes are.
    let place = |target: Target| match target {
        Target::Section(s, o) => {
            let m = object.containing(s, o)?;
            at.get(&(m.atom, u64::try_from(m.delta).ok()?)).copied()
        }
        Target::Extern(..) => None,
    };
    for id in &family {
        let atom = object.atom(*id);
        for r in atom.refs.iter().filter(|r| r.usage == Usage::Branch) {
            let Some(n) = atom.code.as_ref().and_then(|c| c.covering(r.at)).and_then(|i| at.get(&(*id, i.at.into())))
            else {
                continue;
            };
            g.nodes[*n].flow = flow(object, &g.nodes[*n].insn, r.target, place(r.target));
        }
        g.labels.extend(atom.interior_pointers.iter().filter_map(|(_, offset)| at.get(&(*id, *offset)).copied()));
    }
    let to_tracer = |n: &Node| matches!(&n.flow, FlowGraph::Call(Callee::Extern(name)) if name == "__fentry__");
    let is_fentry = |e: &EntryId| object.entries[e.0 as usize].table == Table::Fentry;
    g.profiled = g.nodes.iter().any(to_tracer) || object.atom(function).entries.iter().any(is_fentry);
    for id in &family {
        for e in &object.atom(*id).entries {
            attach(object, &mut g, &mut factory, &object.entries[e.0 as usize], &at, &place, seed);
        }
    }
    Some(g)
}

/// What a table entry says about the flow.
fn attach(
    object: &Object,
    g: &mut Graph,
    factory: &mut InstructionInfoFactory,
    entry: &Entry,
    at: &FxHashMap<(AtomId, u64), usize>,
    place: &dyn Fn(Target) -> Option<usize>,
    seed: Seed<'_>,
) {
    let Some(owner) = entry.owner else { return };
    let Some(n) = u64::try_from(owner.delta).ok().and_then(|d| at.get(&(owner.atom, d))).copied() else { return };
    match entry.table {
        Table::Jumps | Table::Exceptions => {
            // A jump that the kernel turns into a nop (`arch_static_branch_jump`, arch/x86/include/asm/jump_label.h) goes on
            // behind it as well.
            if entry.table == Table::Jumps {
                let flow = std::mem::replace(&mut g.nodes[n].flow, FlowGraph::Next);
                g.nodes[n].flow = match flow {
                    FlowGraph::Jump(to) => FlowGraph::Branch(to),
                    FlowGraph::Tail(callee) => FlowGraph::TailIf(callee),
                    other => other,
                };
            }
            if let Some(to) = entry.refs.iter().find(|r| r.at == 4).and_then(|r| place(r.target)) {
                g.nodes[n].more.push(to);
            }
        }
        // WARN goes on behind its ud2.
        Table::Bugs => g.nodes[n].flow = FlowGraph::Next,
        Table::Paravirt => g.nodes[n].alternative = true,
        Table::Alternatives => {
            let end = owner.delta as u64 + entry.patched_len().unwrap_or(0);
            let mut behind = Some(n);
            while let Some(i) = behind.filter(|i| g.nodes[*i].at < end) {
                g.nodes[i].alternative = true;
                behind = g.nodes[i].next;
            }
            let Some(replacement) = &entry.replacement else { return };
            let mut decoder = Decoder::with_ip(64, &replacement.bytes, 0, DecoderOptions::NONE);
            let first = g.nodes.len();
            while decoder.can_decode() {
                let from = decoder.position();
                if decoder.decode().is_invalid() {
                    break;
                }
                let to = decoder.position();
                let inside = |r: &&Ref| (from as u64..to as u64).contains(&r.at);
                let own: Vec<&Ref> = replacement.refs.iter().filter(inside).collect();
                let bytes = &replacement.bytes[from..to];
                let Some(mut node) =
                    node(factory, owner.atom, owner.delta as u64, bytes, from as u64, &own, from as u64, seed)
                else {
                    break;
                };
                if let Some(r) = own.iter().find(|r| r.usage == Usage::Branch) {
                    node.flow = flow(object, &node.insn, r.target, place(r.target));
                } else if is_near_branch(&node.insn) {
                    // A loop within the replacement: it ends behind it.
                    node.flow = FlowGraph::Next;
                }
                node.alternative = true;
                g.nodes.push(node);
            }
            let last = g.nodes.len();
            for i in first..last {
                g.nodes[i].next = if i + 1 < last { Some(i + 1) } else { behind };
            }
            g.nodes[n].more.extend((first < last).then_some(first).or(behind));
        }
        _ => {}
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place nodes are made")]
fn node(
    factory: &mut InstructionInfoFactory,
    atom: AtomId,
    at: u64,
    bytes: &[u8],
    ip: u64,
    refs: &[&Ref],
    base: u64,
    seed: Seed<'_>,
) -> Option<Node> {
    let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() {
        return None;
    }
    let fields = decoder.get_constant_offsets(&insn);
    let (mut disp, mut imm, mut kept, mut memory_target) = (0, 0, 0, None);
    for r in refs.iter().filter(|r| r.usage != Usage::Branch) {
        let flags = match seed(atom, r) {
            Some(Part::Inside) => HELD,
            Some(Part::End) => END | TOP,
            Some(Part::Near) => END,
            Some(Part::Kept) => {
                kept = HELD;
                0
            }
            None => 0,
        };
        if fields.has_displacement() && r.at - base.min(r.at) == fields.displacement_offset() as u64 {
            disp |= flags;
            memory_target = Some(r.target);
        } else {
            imm |= flags;
        }
    }
    let info = factory.info(&insn);
    let is_read =
        |a: OpAccess| matches!(a, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite);
    let is_write = |a: OpAccess| {
        matches!(a, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    };
    let bit = |r: Register| number(r).map_or(0u16, |n| 1 << n);
    let (mut touches, mut writes, mut reads, mut addresses) = (0u16, 0u16, 0u16, 0u16);
    for r in info.used_registers() {
        touches |= if is_read(r.access()) { bit(r.register()) } else { 0 };
        writes |= if is_write(r.access()) { bit(r.register()) } else { 0 };
    }
    let mut memory = Vec::new();
    let has_operand = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    if has_operand {
        addresses |= bit(insn.memory_base()) | bit(insn.memory_index());
    }
    for m in info.used_memory() {
        addresses |= bit(m.base()) | bit(m.index());
        let no_base = m.base() == Register::None && insn.is_ip_rel_memory_operand();
        let named = has_operand && (m.base() == insn.memory_base() || no_base) && m.index() == insn.memory_index();
        let (reads, writes) = (is_read(m.access()), is_write(m.access()));
        memory.push(Memory { base: m.base(), index: m.index(), reads, writes, named });
    }
    let mut explicit = 0;
    for i in 0..insn.op_count() {
        if insn.op_kind(i) == OpKind::Register {
            explicit |= bit(insn.op_register(i));
            reads |= if is_read(info.op_access(i)) { bit(insn.op_register(i)) } else { 0 };
        }
    }
    reads |= touches & !addresses & !explicit;
    let flow = match insn.flow_control() {
        FlowControl::Return => FlowGraph::Return,
        FlowControl::IndirectBranch => FlowGraph::Indirect,
        FlowControl::IndirectCall => FlowGraph::Call(Callee::Indirect),
        // Where direct ones lead their references say.
        FlowControl::Call => FlowGraph::Call(Callee::Extern(String::from("something"))),
        FlowControl::Exception | FlowControl::UnconditionalBranch => FlowGraph::End,
        _ if insn.mnemonic() == Mnemonic::Int3 => FlowGraph::End,
        _ => FlowGraph::Next,
    };
    Some(Node {
        atom,
        at,
        insn,
        disp,
        imm,
        kept,
        memory_target,
        reads,
        touches,
        writes,
        memory,
        flow,
        next: None,
        more: Vec::new(),
        alternative: false,
    })
}

/// What a direct branch does.
fn flow(object: &Object, insn: &Instruction, target: Target, node: Option<usize>) -> FlowGraph {
    let name = name_of(object, target);
    let is = |prefix: &str| name.is_some_and(|n| n.starts_with(prefix));
    let callee = || match target {
        Target::Extern(s, _) => Callee::Extern(object.symbol_name(s).to_owned()),
        Target::Section(s, o) => match object.containing(s, o) {
            Some(m) if m.delta == 0 => Callee::Function(m.atom),
            Some(m) => Callee::Extern(format!("the inside of {}", object.atom(m.atom).name)),
            None => Callee::Extern(object.section(s).name.clone()),
        },
    };
    match insn.flow_control() {
        FlowControl::Call if is("__x86_indirect_") => FlowGraph::Call(Callee::Indirect),
        FlowControl::Call => FlowGraph::Call(callee()),
        FlowControl::UnconditionalBranch if is("__x86_return_thunk") => FlowGraph::Return,
        FlowControl::UnconditionalBranch if is("__x86_indirect_") => FlowGraph::Indirect,
        FlowControl::UnconditionalBranch => node.map_or_else(|| FlowGraph::Tail(callee()), FlowGraph::Jump),
        _ => node.map_or_else(|| FlowGraph::TailIf(callee()), FlowGraph::Branch),
    }
}

fn name_of(object: &Object, target: Target) -> Option<&str> {
    match target {
        Target::Extern(s, 0) => Some(object.symbol_name(s)),
        Target::Section(s, o) => {
            object.containing(s, o).filter(|m| m.delta == 0).map(|m| object.atom(m.atom).name.as_str())
        }
        Target::Extern(..) => None,
    }
}
