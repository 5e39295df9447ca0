//! A function and its pieces as steps that can be compared between two builds, and the neighbourhood of each reference.
//!
//! A step is an instruction with the fields of its references blanked and what they mean in their place. Of a reference to
//! something that is still to be paired only the kind is in it. A conditional jump counts as the same when it was turned
//! round, as compilers do when blocks move: where it leads is told by its two ways.

use std::hash::{DefaultHasher, Hash, Hasher};

use rustc_hash::FxHashMap;

use crate::isa::{Decoder, DecoderOptions};

use super::{content, group_key};
use crate::symbolize::{AtomId, Class, Object, Ref, Table, Target, Usage};

/// One side of the comparison.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The object.
    pub object: &'a Object,
    /// Is this still to be paired?
    pub open: &'a dyn Fn(AtomId) -> bool,
    /// A number for what has a pair, the same on both sides.
    pub pair: &'a dyn Fn(AtomId) -> Option<u32>,
}

/// A reference to something that is still to be paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What it refers to.
    pub atom: AtomId,
    /// Can it mean nothing else?
    pub certain: bool,
}

/// A reference and the steps right behind it.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// What is mentioned.
    pub mention: Mention,
    /// A number for the steps.
    pub behind: u64,
}

/// How control goes on behind a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Turn {
    /// To the next one.
    Next,
    /// Elsewhere.
    Jump,
    /// Both, by the condition with this number.
    If(u8),
}

#[derive(Debug)]
struct Step {
    token: u64,
    /// The same without the immediate operand, which may be a line number.
    shape: u64,
    turn: Turn,
    /// The step a branch leads to.
    to: Option<usize>,
    mentions: Vec<Mention>,
    /// Does it do nothing? Assemblers put such where something has to be aligned.
    padding: bool,
}

/// A function with its pieces.
#[derive(Debug)]
pub struct Flow {
    steps: Vec<Step>,
    /// First step of each piece, the function first.
    pieces: Vec<(AtomId, usize)>,
    /// First step of each block, and one past the last step.
    blocks: Vec<usize>,
    /// Where control comes from: block and way. Nothing where that is not known.
    from: Vec<Option<Vec<(usize, u8)>>>,
}

const FALL: u8 = 0xff;
const ENTRY: u8 = 0xfe;
const STATIC_BRANCH: u8 = 0xfd;
/// Steps in front of a branch that say what it decides.
const TAIL: usize = 2;
/// Blocks without steps of their own are looked through.
const DEPTH: usize = 4;
/// Steps behind a reference that belong to its neighbourhood.
const BEHIND: usize = 1;
/// The same where there is no branch in front of it.
const WINDOW: usize = 2;

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Flow {
    /// The function `id` and its pieces; nothing when not all of it could be decoded.
    pub fn of(view: View<'_>, id: AtomId) -> Option<Self> {
        let family = view.object.family(id);
        let mut flow = Self { steps: Vec::new(), pieces: Vec::new(), blocks: Vec::new(), from: Vec::new() };
        // Pieces in the order in which they are jumped to; the others behind.
        let mut targets: Vec<Vec<(AtomId, u64)>> = Vec::new();
        let mut waiting = vec![id];
        let mut static_ways: Vec<(usize, (AtomId, u64))> = Vec::new();
        let mut opaque: Vec<(AtomId, u64)> = Vec::new();
        let mut rest = family.iter().filter(|a| **a != id);
        let mut at = 0;
        while at < waiting.len() {
            let atom = waiting[at];
            at += 1;
            flow.pieces.push((atom, flow.steps.len()));
            let first = flow.steps.len();
            flow.add(view, atom, &family, &mut targets)?;
            opaque.extend(view.object.atom(atom).interior_pointers.iter().map(|(_, o)| (atom, *o)));
            flow.add_entries(view, atom, first, &family, &mut static_ways);
            for (piece, _) in targets[first..].iter().flatten() {
                if !waiting.contains(piece) {
                    waiting.push(*piece);
                }
            }
            if at == waiting.len() {
                let next = rest.find(|a| !waiting.contains(a)).copied();
                waiting.extend(next);
            }
        }
        flow.connect(view.object, &targets, &static_ways, &opaque);
        Some(flow)
    }

    fn add(
        &mut self,
        view: View<'_>,
        id: AtomId,
        family: &[AtomId],
        targets: &mut Vec<Vec<(AtomId, u64)>>,
    ) -> Option<()> {
        let atom = view.object.atom(id);
        let code = atom.code.as_ref().filter(|c| c.trouble.is_none())?;
        let bytes = view.object.bytes(id);
        let mut refs = atom.refs.iter().peekable();
        for insn in &code.insns {
            let (from, to) = (insn.at as usize, insn.at as usize + usize::from(insn.len));
            let mut own = bytes.get(from..to)?.to_vec();
            let (mut mentions, mut leads, mut branch, mut meant) = (Vec::new(), Vec::new(), false, Vec::new());
            while let Some(r) = refs.next_if(|r| (r.at as usize) < to) {
                let field = (r.at as usize).checked_sub(from)?;
                if r.usage == Usage::Branch {
                    branch = true;
                    own.truncate(field);
                } else {
                    own.get_mut(field..field + usize::from(r.width))?.fill(0);
                }
                match within(view.object, r, family) {
                    Some(place) if r.usage == Usage::Branch => leads.push(place),
                    _ => meant.push(meaning(view, r, &mut mentions)),
                }
            }
            let padding = mentions.is_empty() && leads.is_empty() && meant.is_empty() && is_padding(&own);
            let turn = turn_of(&mut own, branch, insn.is_call, insn.ends_flow);
            let shape = hash((without_immediate(&own), branch, &meant));
            self.steps.push(Step { token: hash((own, branch, meant)), shape, turn, to: None, mentions, padding });
            targets.push(leads);
        }
        Some(())
    }

    /// Table entries belong to the instruction they are about.
    fn add_entries(
        &mut self,
        view: View<'_>,
        id: AtomId,
        first: usize,
        family: &[AtomId],
        ways: &mut Vec<(usize, (AtomId, u64))>,
    ) {
        let atom = view.object.atom(id);
        for entry in atom.entries.iter().map(|e| &view.object.entries[e.0 as usize]) {
            let Some(owner) = entry.owner.filter(|_| !matches!(entry.table, Table::OrcIp | Table::EndbrSeal)) else {
                continue;
            };
            let index = atom.code.as_ref().and_then(|c| c.index_at(u64::try_from(owner.delta).ok()?));
            let Some(step) = index.map(|i| first + i).filter(|i| *i < self.steps.len()) else { continue };
            let mut meant = vec![hash(entry.table)];
            let fields = entry.refs.iter().filter(|r| !(entry.table == Table::Alternatives && r.at == 4));
            for r in fields.chain(entry.replacement.iter().flat_map(|r| &r.refs)) {
                match within(view.object, r, family) {
                    Some(place) => ways.push((step, place)),
                    None => meant.push(meaning(view, r, &mut self.steps[step].mentions)),
                }
            }
            let step = &mut self.steps[step];
            step.token = hash((step.token, meant));
            step.padding = false;
        }
    }

    /// Blocks, and the ways between them.
    fn connect(
        &mut self,
        object: &Object,
        targets: &[Vec<(AtomId, u64)>],
        ways: &[(usize, (AtomId, u64))],
        opaque: &[(AtomId, u64)],
    ) {
        let pieces = self.pieces.clone();
        let step_at = |(atom, offset): (AtomId, u64)| {
            let first = pieces.iter().find(|p| p.0 == atom)?.1;
            Some(first + object.atom(atom).code.as_ref()?.index_at(offset)?)
        };
        let mut starts: Vec<usize> = pieces.iter().map(|p| p.1).collect();
        for (i, leads) in targets.iter().enumerate() {
            if self.steps[i].turn != Turn::Next {
                starts.push(i + 1);
                self.steps[i].to = leads.first().and_then(|t| step_at(*t));
                starts.extend(self.steps[i].to);
            }
        }
        let ways: Vec<(usize, usize)> =
            ways.iter().filter_map(|(i, t)| Some((*i, step_at(*t)?))).filter(|w| w.0 != w.1).collect();
        starts.extend(ways.iter().map(|w| w.1));
        let opaque: Vec<usize> = opaque.iter().filter_map(|t| step_at(*t)).collect();
        starts.extend(&opaque);
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|s| *s < self.steps.len());
        self.from = vec![Some(Vec::new()); starts.len()];
        self.blocks = starts;
        self.blocks.push(self.steps.len());
        let mut add = |to: usize, way: (usize, u8)| {
            if let Some(Some(list)) = self.from.get_mut(to) {
                list.push(way);
            }
        };
        let block_of = |step: usize| self.blocks.partition_point(|b| *b <= step).saturating_sub(1);
        add(0, (0, ENTRY));
        for block in 0..self.blocks.len() - 1 {
            let last = self.blocks[block + 1] - 1;
            let step = &self.steps[last];
            let ends_piece = pieces.iter().any(|p| p.1 == last + 1);
            let (next, there) = match step.turn {
                Turn::Next => (Some(FALL), None),
                Turn::Jump => (None, Some(FALL)),
                Turn::If(condition) => (Some(condition ^ 1), Some(condition)),
            };
            if let Some(way) = next.filter(|_| !ends_piece && last + 1 < self.steps.len()) {
                add(block + 1, (block, way));
            }
            if let (Some(way), Some(to)) = (there, step.to) {
                add(block_of(to), (block, way));
            }
        }
        for (from, to) in ways {
            add(block_of(to), (block_of(from), STATIC_BRANCH));
        }
        // Padding that nothing leads to leads nowhere.
        for block in 1..self.from.len() {
            let steps = &self.steps[self.blocks[block]..self.blocks[block + 1]];
            if self.from[block].as_ref().is_some_and(Vec::is_empty) && steps.iter().all(|s| s.padding) {
                self.from.iter_mut().flatten().for_each(|list| list.retain(|way| way.0 != block));
            }
        }
        for step in opaque {
            self.from[block_of(step)] = None;
        }
    }

    /// The pieces; those of two that are alike correspond.
    pub fn pieces(&self) -> impl Iterator<Item = AtomId> + '_ {
        self.pieces.iter().map(|p| p.0)
    }

    /// Everything that is mentioned, step by step.
    pub fn mentions(&self) -> impl Iterator<Item = &[Mention]> {
        self.steps.iter().map(|s| &s.mentions[..])
    }

    /// The same but for what is still to be paired.
    pub fn is_alike(&self, other: &Self) -> bool {
        let steps = || self.steps.iter().zip(&other.steps);
        self.steps.len() == other.steps.len()
            && self.pieces.iter().map(|p| p.1).eq(other.pieces.iter().map(|p| p.1))
            && steps().all(|(a, b)| {
                a.token == b.token && a.turn == b.turn && a.to == b.to && a.mentions.len() == b.mentions.len()
            })
    }

    /// The same but for that and for immediate operands.
    pub fn is_shaped_like(&self, other: &Self) -> bool {
        let steps = || self.steps.iter().zip(&other.steps);
        self.steps.len() == other.steps.len()
            && self.pieces.iter().map(|p| p.1).eq(other.pieces.iter().map(|p| p.1))
            && steps().all(|(a, b)| {
                a.shape == b.shape && a.turn == b.turn && a.to == b.to && a.mentions.len() == b.mentions.len()
            })
    }

    /// What is mentioned in each neighbourhood: the steps from the start of the block to the reference, and the ways that
    /// lead into the block. A block of which it is not known who leads there has none.
    pub fn neighbourhoods(&self) -> FxHashMap<(u64, usize), Vec<Neighbour>> {
        let mut found: FxHashMap<(u64, usize), Vec<Neighbour>> = FxHashMap::default();
        for (block, bounds) in self.blocks.windows(2).enumerate() {
            let steps: Vec<&Step> = self.steps[bounds[0]..bounds[1]].iter().filter(|s| !s.padding).collect();
            if steps.iter().all(|s| s.mentions.is_empty()) {
                continue;
            }
            let Some(ways) = self.ways_into(block, DEPTH) else { continue };
            for (i, step) in steps.iter().enumerate().filter(|(_, s)| !s.mentions.is_empty()) {
                let tokens: Vec<u64> = steps[..=i].iter().map(|s| s.token).collect();
                // Whether a jump is needed behind it is a matter of layout.
                let behind = steps[i + 1..].iter().take(BEHIND).filter(|s| s.turn != Turn::Jump).map(|s| s.token);
                let behind = hash(behind.collect::<Vec<u64>>());
                let key = hash((tokens, &ways));
                for (n, mention) in step.mentions.iter().enumerate() {
                    found.entry((key, n)).or_default().push(Neighbour { mention: *mention, behind });
                }
            }
        }
        found
    }

    /// What decides whether control gets to a block: the last steps before each branch that leads there, and the way taken.
    fn ways_into(&self, block: usize, depth: usize) -> Option<Vec<u64>> {
        let from = self.from.get(block)?.as_ref().filter(|f| !f.is_empty())?;
        let mut ways = Vec::new();
        for (before, way) in from {
            if *way == ENTRY {
                ways.push(hash(ENTRY));
                continue;
            }
            let mut steps = &self.steps[self.blocks[*before]..self.blocks[*before + 1]];
            if steps.last().is_some_and(|s| s.turn != Turn::Next) {
                steps = &steps[..steps.len() - 1];
            }
            let tail: Vec<u64> = steps.iter().rev().filter(|s| !s.padding).take(TAIL).map(|s| s.token).collect();
            let more = if tail.len() < TAIL && depth > 0 && *before != block {
                self.ways_into(*before, depth - 1)?
            } else {
                Vec::new()
            };
            ways.push(hash((tail, way, more)));
        }
        ways.sort_unstable();
        Some(ways)
    }

    /// Mentions that every run of the function comes by, with the steps from there to the end of the function: what lies in
    /// front of them may differ.
    pub fn unconditional<'f>(&'f self, other: &'f Self) -> Vec<(&'f [Mention], &'f [Mention])> {
        let end = |f: &Self| f.pieces.get(1).map_or(f.steps.len(), |p| p.1);
        let straight = |f: &Self| f.steps[..end(f)].iter().position(|s| s.turn != Turn::Next).unwrap_or(end(f));
        let (a, b) = (&self.steps[..end(self)], &other.steps[..end(other)]);
        let same = |x: &Step, y: &Step| {
            let back = |f: &Self, s: &Step| s.to.filter(|t| *t < end(f)).map(|t| end(f) - t);
            x.token == y.token
                && x.turn == y.turn
                && back(self, x) == back(other, y)
                && x.mentions.len() == y.mentions.len()
        };
        let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| same(x, y)).count();
        let from = straight(self).min(a.len()).saturating_sub(1);
        let window =
            |steps: &[Step], at: usize| -> Vec<u64> { steps[at..].iter().take(1 + WINDOW).map(|s| s.token).collect() };
        let mut found = Vec::new();
        for back in 1..=suffix {
            let (i, j) = (a.len() - back, b.len() - back);
            if i > from || j >= straight(other) || a[i].mentions.is_empty() || back <= WINDOW {
                continue;
            }
            // The same steps elsewhere, about something else: which is which cannot be told.
            let twice = |steps: &[Step], at: usize| {
                let own = window(steps, at);
                (0..steps.len()).any(|k| k != at && steps[k].mentions != steps[at].mentions && window(steps, k) == own)
            };
            if !twice(a, i) && !twice(b, j) {
                found.push((&a[i].mentions[..], &b[j].mentions[..]));
            }
        }
        found
    }
}

/// The place of a branch within the family.
fn within(object: &Object, r: &Ref, family: &[AtomId]) -> Option<(AtomId, u64)> {
    let Target::Section(section, offset) = r.target else { return None };
    let m = object.containing(section, offset)?;
    Some((m.atom, u64::try_from(m.delta).ok()?)).filter(|_| family.contains(&m.atom))
}

/// The nops of assemblers (Intel SDM vol. 2, NOP), with any prefixes.
/// The bytes of an instruction with its immediate operand blanked.
fn without_immediate(bytes: &[u8]) -> Vec<u8> {
    let mut own = bytes.to_vec();
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    let at = decoder.get_constant_offsets(&insn);
    if at.has_immediate()
        && let Some(field) = own.get_mut(at.immediate_offset()..at.immediate_offset() + at.immediate_size())
    {
        field.fill(0);
    }
    own
}

fn is_padding(bytes: &[u8]) -> bool {
    let opcode = bytes.iter().position(|b| !matches!(b, 0x66 | 0x2e)).and_then(|at| bytes.get(at..));
    matches!(opcode, Some([0x90] | [0x0f, 0x1f, ..]))
}

/// How control goes on; what is left of the opcode does not tell a condition from its opposite.
fn turn_of(opcode: &mut Vec<u8>, branch: bool, call: bool, ends: bool) -> Turn {
    if ends {
        if branch {
            opcode.clear();
        }
        return Turn::Jump;
    }
    if call || !branch {
        return Turn::Next;
    }
    let condition = match opcode[..] {
        [.., 0x0f, cc @ 0x80..=0x8f] | [.., cc @ 0x70..=0x7f] => cc & 0xf,
        // loop, jrcxz: never turned round.
        [.., other] => return Turn::If(0x10 | (other & 0x7) << 1),
        [] => return Turn::Next,
    };
    opcode.clear();
    // Which of the two flags decide.
    opcode.push(condition >> 1);
    Turn::If(condition)
}

/// A number for what a reference means.
fn meaning(view: View<'_>, r: &Ref, mentions: &mut Vec<Mention>) -> u64 {
    let object = view.object;
    let width = if r.usage == Usage::Branch { 0 } else { r.width };
    let how = (r.usage as u8, width);
    let (section, offset) = match r.target {
        Target::Extern(symbol, addend) => return hash((how, 0, object.symbol_name(symbol), addend)),
        Target::Section(section, offset) => (section, offset),
    };
    if matches!(object.class(section), Class::Strings | Class::Constants) {
        return hash((how, 1, object.constant_at(section, offset)));
    }
    let all = object.meanings_around(section, offset);
    let Some(first) = all.first().copied() else { return hash((how, 2, &object.section(section).name)) };
    let atom = object.atom(first.atom);
    let delta = match atom.code.as_ref().and_then(|c| c.index_at(u64::try_from(first.delta).ok()?)) {
        Some(index) => index as i64,
        None => first.delta,
    };
    if (view.open)(first.atom) {
        let inside = (0..atom.size().max(1) as i64).contains(&first.delta);
        let certain = inside && (r.usage == Usage::Access || all.len() == 1 || first.delta > 0);
        mentions.push(Mention { atom: first.atom, certain });
        return hash((how, 3, group_key(object, first.atom), delta));
    }
    match (view.pair)(first.atom) {
        Some(number) => hash((how, 4, number, delta)),
        None if object.class(section) == Class::Rodata => hash((how, 5, content::signature(object, first.atom), delta)),
        None => hash((how, 6, group_key(object, first.atom), delta)),
    }
}
