//! What one instruction does with the address: the rules for each kind of instruction.
//!
//! A part of an address is one in disguise: it is not understood, and what becomes of it is followed all the same. The lower half
//! is the whole, since the upper one is that of every address of the kernel. An AND (aligning) and adding keep an address, the
//! difference of two addresses of the object is a number.

use std::collections::BTreeSet;

use crate::isa::{Instruction, Mnemonic, OpKind, Register};

use super::graph::Node;
use super::state::{ARGUMENTS, END, HELD, MIXED, RBP, RSP, STACK, State, TOP, VALUE, WALKED, number};
use super::{AddressHolder, AddressUse, Copy};
use crate::symbolize::{Object, Target};

/// Where a stack operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// It is no stack operand.
    No,
    /// This slot.
    Slot(i32),
    /// Some slot.
    Somewhere,
}

/// What a function does with its stack, slots counted from the entry.
#[derive(Debug, Default)]
pub struct Stack {
    /// Addresses that are taken.
    taken: BTreeSet<i32>,
    /// Slots that are loaded somewhere.
    loaded: BTreeSet<i32>,
}

impl Stack {
    /// Is the slot part of a local object whose address is taken? Where such an object ends is not known.
    fn is_taken(&self, at: i32) -> bool {
        self.taken.range(..=at).next().is_some()
    }
    /// What is never loaded again was put there for somebody else.
    pub fn is_loaded(&self, at: i32) -> bool {
        self.loaded.contains(&at)
    }
}

/// One instruction being carried out.
pub struct UseStep<'a> {
    pub object: &'a Object,
    pub node: &'a Node,
    pub state: &'a mut State,
    pub stack: &'a mut Stack,
    /// What is loaded through the address counts as one.
    pub deep: bool,
    /// What was found, in the pass that reports.
    pub out: Option<&'a mut Vec<AddressUse>>,
}

impl UseStep<'_> {
    fn report(&mut self, what: AddressUse) {
        if let Some(out) = &mut self.out {
            out.push(what);
        }
    }
    fn unknown(&mut self, flags: u8, what: &str) {
        if flags & HELD != 0 {
            self.report(AddressUse::Unknown(what.to_owned()));
        }
    }

    /// Everything but calls, returns and jumps out of the function.
    pub fn run(mut self) {
        use Mnemonic as M;
        let node = self.node;
        let insn = &node.insn;
        self.memory();
        for n in (0..16).filter(|n| node.touches >> n & 1 != 0) {
            self.state.read(n);
        }
        let same = insn.op_count() == 2
            && insn.op_kind(0) == OpKind::Register
            && insn.op_kind(1) == OpKind::Register
            && insn.op_register(0) == insn.op_register(1);
        match insn.mnemonic() {
            M::Nop | M::Endbr64 | M::Pause | M::Lfence | M::Mfence | M::Sfence => {}
            M::Mov => {
                let flags = self.value(1);
                let stack = self.copy_of_stack_pointer();
                self.assign(0, flags | stack);
            }
            M::Lea => self.lea(),
            M::Add | M::And | M::Or if !same => self.arithmetic(),
            M::Inc | M::Dec | M::Adc | M::Sbb if !same => self.arithmetic(),
            M::Sub if !same => self.subtract(),
            M::Xor | M::Sub | M::Sbb if same => self.assign(0, 0),
            M::Cmp => self.compare(),
            M::Test => {
                // A check for 0, or for low bits.
                let (a, b) = (self.value(0), self.value(1));
                if !same && insn.op_kind(1) == OpKind::Register && (a | b) & HELD != 0 {
                    self.report(AddressUse::Compared);
                }
            }
            M::Xchg => {
                let (a, b) = (self.value(0), self.value(1));
                self.assign(0, b);
                self.assign(1, a);
            }
            M::Cmpxchg => {
                let (place, wanted, value) = (self.value(0), self.state.of(Register::RAX), self.value(1));
                self.same_object(place, wanted);
                self.assign(0, value | place);
                self.state.set(0, place);
            }
            M::Xadd => {
                let (place, value) = (self.value(0), self.value(1));
                self.assign(0, value | place);
                self.assign(1, place);
            }
            M::Push => {
                let flags = self.value(0);
                self.push(flags);
            }
            M::Pop => {
                let rsp = self.state.rsp;
                let flags = match rsp {
                    Some(rsp) => self.state.slot(rsp),
                    None => self.state.any_slot() | MIXED,
                };
                self.state.pop_to(rsp.and_then(|r| r.checked_add(8)));
                self.assign(0, flags);
            }
            M::Leave => {
                let rbp = self.state.rbp;
                let flags = rbp.map_or(0, |at| self.state.slot(at));
                self.state.pop_to(rbp.and_then(|r| r.checked_add(8)));
                self.state.rbp = None;
                self.state.set(RBP, flags);
            }
            m if is_cmov(m) => {
                let (old, new) = (self.state.of(insn.op0_register()), self.value(1));
                let mixed = if (old ^ new) & (HELD | END) != 0 { MIXED } else { 0 };
                self.assign(0, old | new | mixed);
            }
            _ if insn.is_string_instruction() => {
                // Source, destination and count move on; what is stored or compared is in rax.
                let rax = self.state.of(Register::RAX);
                let uses_rax = node.touches & 1 != 0;
                if uses_rax && rax & HELD != 0 {
                    let stores = node.memory.iter().any(|m| m.writes);
                    self.report(if stores { AddressUse::Stored(AddressHolder::Memory) } else { AddressUse::Compared });
                }
                if node.writes & 1 != 0 {
                    self.state.set(0, 0);
                }
                if matches!(insn.mnemonic(), M::Movsb | M::Movsw | M::Movsd | M::Movsq) {
                    let [to, from] = [ARGUMENTS[0], ARGUMENTS[1]].map(|r| self.state.reg(r));
                    let uses = copied(self.state, to, from);
                    uses.into_iter().for_each(|u| self.report(u));
                }
            }
            _ => self.other(),
        }
    }

    /// What is read and written through the address.
    fn memory(&mut self) {
        if self.node.insn.mnemonic() == Mnemonic::Lea || self.node.insn.mnemonic() == Mnemonic::Nop {
            return;
        }
        for m in &self.node.memory {
            let disp = if m.named { self.node.disp } else { 0 };
            if (self.state.of(m.base) | self.state.of(m.index) | disp) & HELD == 0 {
                continue;
            }
            if m.writes {
                self.report(AddressUse::Written);
            }
            if m.reads {
                self.report(AddressUse::Read);
            }
        }
    }

    /// What an operand that is read holds.
    fn value(&mut self, operand: u32) -> u8 {
        let insn = &self.node.insn;
        match insn.op_kind(operand) {
            OpKind::Register => {
                let r = insn.op_register(operand);
                let Some(n) = number(r).filter(|n| self.node.reads >> n & 1 != 0) else { return 0 };
                let flags = self.state.reg(n) & VALUE;
                if r.size() == 8 {
                    return flags;
                }
                self.unknown(flags, "part of it is used");
                part(flags)
            }
            OpKind::Memory => match self.frame() {
                Frame::No if insn.memory_size().size() == 8 => self.node.kept | self.loaded(),
                Frame::No => 0,
                Frame::Slot(at) if insn.memory_size().size() == 8 => {
                    self.stack.loaded.insert(at);
                    self.state.slot(at) & VALUE
                }
                Frame::Slot(at) => {
                    self.unknown(self.state.slot(at), "part of it is used");
                    part(self.state.slot(at))
                }
                Frame::Somewhere => self.state.any_slot() | MIXED,
            },
            _ => self.node.imm,
        }
    }

    /// What is read through the address.
    fn loaded(&self) -> u8 {
        let insn = &self.node.insn;
        let base = self.state.of(insn.memory_base()) | self.state.of(insn.memory_index()) | self.node.disp;
        if self.deep { base & HELD } else { 0 }
    }

    /// An operand gets a value.
    fn assign(&mut self, operand: u32, flags: u8) {
        let insn = &self.node.insn;
        match insn.op_kind(operand) {
            OpKind::Register => {
                let r = insn.op_register(operand);
                let Some(n) = number(r) else {
                    self.unknown(flags, "it goes into a register that holds no addresses");
                    return;
                };
                if n == RSP || n == RBP {
                    self.frame_register(n);
                }
                if r.size() == 8 {
                    self.state.set(n, flags);
                } else {
                    self.unknown(flags, "part of it is used");
                    // A write of 8 or 16 bits leaves the rest of the register.
                    let rest = if r.size() < 4 { self.state.reg(n) } else { 0 };
                    self.state.set(n, part(flags | rest));
                }
            }
            OpKind::Memory => match self.frame() {
                Frame::Slot(at) if insn.memory_size().size() == 8 => {
                    if flags & HELD != 0 && self.stack.is_taken(at) {
                        self.report(AddressUse::Stored(AddressHolder::Stack));
                    }
                    if !self.state.set_slot(at, flags) {
                        self.unknown(flags, "it is in too many places of the stack");
                    }
                }
                Frame::Slot(at) => {
                    self.unknown(flags, "part of it is stored");
                    let rest = self.state.slot(at);
                    if flags & HELD != 0 && !self.state.set_slot(at, part(flags | rest)) {
                        self.unknown(flags, "it is in too many places of the stack");
                    }
                }
                Frame::Somewhere if flags & HELD != 0 => self.report(AddressUse::Stored(AddressHolder::Stack)),
                Frame::No if flags & HELD != 0 => {
                    let holder = self.holder();
                    self.report(AddressUse::Stored(holder));
                }
                Frame::Somewhere | Frame::No => {}
            },
            _ => {}
        }
    }

    /// The variable a memory operand names.
    fn holder(&self) -> AddressHolder {
        let plain = self.node.insn.memory_index() == Register::None;
        match self.node.memory_target.filter(|_| plain) {
            Some(Target::Section(s, o)) => {
                self.object.containing(s, o).map_or(AddressHolder::Memory, |m| AddressHolder::Variable(m.atom))
            }
            Some(Target::Extern(s, _)) => AddressHolder::Extern(self.object.symbol_name(s).to_owned()),
            None => AddressHolder::Memory,
        }
    }

    /// Where the memory operand is, if it is on the stack.
    fn frame(&self) -> Frame {
        let insn = &self.node.insn;
        let base = match number(insn.memory_base()) {
            Some(RSP) => Some(self.state.rsp),
            Some(RBP) if self.state.rbp.is_some() => Some(self.state.rbp),
            _ => None,
        };
        let Some(base) = base else { return Frame::No };
        if insn.memory_index() != Register::None {
            return Frame::Somewhere;
        }
        let at = base.and_then(|b| b.checked_add(insn.memory_displacement64() as i32));
        at.map_or(Frame::Somewhere, Frame::Slot)
    }

    /// The stack or frame pointer is written.
    fn frame_register(&mut self, n: usize) {
        let insn = &self.node.insn;
        let restored = matches!(insn.mnemonic(), Mnemonic::Pop | Mnemonic::Leave | Mnemonic::Mov);
        if n == RBP && self.state.rbp.is_some() && !restored {
            // A pointer into the frame that moves: without frame pointers %rbp is a register like any other.
            self.take(i32::MIN);
        }
        let from = match (insn.mnemonic(), insn.op1_kind()) {
            (Mnemonic::Mov, OpKind::Register) => match number(insn.op1_register()) {
                Some(RSP) => self.state.rsp,
                Some(RBP) => self.state.rbp,
                _ => None,
            },
            (Mnemonic::Lea, _) => match self.frame() {
                Frame::Slot(at) => Some(at),
                _ => None,
            },
            (Mnemonic::Add | Mnemonic::Sub, OpKind::Immediate8to64 | OpKind::Immediate32to64) if n == RSP => {
                let by = i32::try_from(insn.immediate(1) as i64).ok();
                let by = if insn.mnemonic() == Mnemonic::Sub { by.and_then(i32::checked_neg) } else { by };
                self.state.rsp.and_then(|r| r.checked_add(by?))
            }
            _ => None,
        };
        if n == RSP { self.state.pop_to(from) } else { self.state.rbp = from }
    }

    fn lea(&mut self) {
        let insn = &self.node.insn;
        let mut flags = self.state.of(insn.memory_base()) | self.state.of(insn.memory_index()) | self.node.disp;
        let back = insn.memory_index() != Register::None || (insn.memory_displacement64() as i64) < 0;
        if back && self.node.disp == 0 {
            flags = lowered(flags);
        }
        if self.frame() != Frame::No {
            flags |= STACK;
        }
        match self.frame() {
            Frame::Slot(at) if !self.writes_frame() => self.take(at),
            Frame::Somewhere if !self.writes_frame() => self.take(i32::MIN),
            _ => {}
        }
        // `lea table(%rip)` is the address itself.
        if self.node.disp == 0 && (insn.memory_index() != Register::None || insn.memory_displacement64() != 0) {
            flags = walked(flags);
        }
        self.assign(0, flags & VALUE);
    }

    /// A copy of the stack or frame pointer is an address of the stack.
    fn copy_of_stack_pointer(&mut self) -> u8 {
        let insn = &self.node.insn;
        if insn.op0_kind() == OpKind::Register && self.writes_frame() || insn.op1_kind() != OpKind::Register {
            return 0;
        }
        match number(insn.op1_register()) {
            Some(RSP) => self.take(self.state.rsp.unwrap_or(i32::MIN)),
            Some(RBP) if self.state.rbp.is_some() => self.take(self.state.rbp.unwrap_or(i32::MIN)),
            _ => return 0,
        }
        STACK
    }

    fn writes_frame(&self) -> bool {
        matches!(number(self.node.insn.op0_register()), Some(RSP | RBP))
    }

    fn take(&mut self, at: i32) {
        self.stack.taken.insert(at);
    }

    fn push(&mut self, flags: u8) {
        let rsp = self.state.rsp.and_then(|r| r.checked_sub(8));
        self.state.rsp = rsp;
        match rsp {
            Some(at) => {
                let pushed = if flags & (HELD | END) != 0 { flags | super::state::FRESH } else { 0 };
                if !self.state.set_slot(at, pushed) {
                    self.unknown(flags, "it is in too many places of the stack");
                }
            }
            None => self.unknown(flags, "it is pushed to an unknown place of the stack"),
        }
    }

    /// ADD, AND, OR and the like: the address stays one.
    fn arithmetic(&mut self) {
        let insn = &self.node.insn;
        if self.node.insn.op0_kind() == OpKind::Register && self.writes_frame() {
            self.frame_register(number(insn.op0_register()).unwrap_or(RSP));
            return;
        }
        let a = self.value(0);
        let b = if insn.op_count() > 1 { self.value(1) } else { 0 };
        if !matches!(insn.mnemonic(), Mnemonic::Add | Mnemonic::Inc | Mnemonic::Dec) {
            self.unknown(b, "an operation that is not understood");
        }
        // A number and an address make an address, two addresses do not.
        if a & b & HELD != 0 {
            self.unknown(a, "two addresses are added");
        }
        let up = insn.mnemonic() == Mnemonic::Inc || is_number(insn, 1) && (insn.immediate(1) as i64) >= 0;
        let sum = if insn.mnemonic() == Mnemonic::And { a | b } else { walked(a | b) };
        self.assign(0, if up { sum } else { lowered(sum) });
    }

    fn subtract(&mut self) {
        let insn = &self.node.insn;
        if insn.op0_kind() == OpKind::Register && self.writes_frame() {
            self.frame_register(number(insn.op0_register()).unwrap_or(RSP));
            return;
        }
        let (a, b) = (self.value(0), self.value(1));
        if b & (HELD | END) == 0 {
            self.assign(0, walked(lowered(a)));
        } else {
            self.same_object(a, b);
            self.assign(0, 0);
        }
    }

    fn compare(&mut self) {
        let (a, b) = (self.value(0), self.value(1));
        // A number that is no address: an error code, or 0.
        let number = !matches!(self.node.insn.op1_kind(), OpKind::Register | OpKind::Memory) && self.node.imm == 0;
        if !number {
            self.same_object(a, b);
        }
    }

    fn has_memory(&self) -> bool {
        (0..self.node.insn.op_count()).any(|i| self.node.insn.op_kind(i) == OpKind::Memory)
    }

    /// Two values are compared: fine when both are addresses of the one object, for certain.
    fn same_object(&mut self, a: u8, b: u8) {
        let both = a & (HELD | END) != 0 && b & (HELD | END) != 0 && (a | b) & MIXED == 0;
        if (a | b) & HELD != 0 && !both {
            self.report(AddressUse::Compared);
        }
    }

    /// Instructions without a rule: nothing that is read may hold the address.
    fn other(&mut self) {
        let node = self.node;
        let insn = &node.insn;
        let read = (0..16).filter(|n| node.reads >> n & 1 != 0).fold(0, |all, n| all | self.state.reg(n));
        self.unknown(read | node.imm, "an instruction that is not understood");
        let slot = match self.frame() {
            Frame::Slot(at) if self.has_memory() => self.state.slot(at),
            Frame::Somewhere if self.has_memory() => self.state.any_slot(),
            _ => 0,
        };
        let reads_slot = node.memory.iter().any(|m| m.named && m.reads);
        // What it reads may be what it writes.
        if (read | node.imm) & HELD != 0 && node.memory.iter().any(|m| m.writes) && self.frame() == Frame::No {
            let holder = self.holder();
            self.report(AddressUse::Stored(holder));
        }
        if reads_slot {
            self.unknown(slot, "an instruction that is not understood");
        }
        if insn.is_stack_instruction() && node.writes >> RSP & 1 != 0 {
            let by = insn.stack_pointer_increment();
            let to = self.state.rsp.and_then(|r| r.checked_add(by));
            if by < 0 {
                self.state.rsp = to;
            } else {
                self.state.pop_to(to);
            }
        } else if node.writes >> RSP & 1 != 0 {
            self.state.rsp = None;
        }
        if node.writes >> RBP & 1 != 0 {
            self.state.rbp = None;
        }
        // An address in disguise: mangled, or the number of its page.
        let disguised = if (read | node.imm) & HELD != 0 && is_disguise(insn.mnemonic()) { HELD | MIXED } else { 0 };
        for n in (0..16).filter(|n| *n != RSP && node.writes >> n & 1 != 0) {
            self.state.set(n, disguised);
        }
    }
}

/// Half of an address, or less of it.
fn part(flags: u8) -> u8 {
    if flags & HELD != 0 { HELD | MIXED } else { 0 }
}

fn walked(flags: u8) -> u8 {
    if flags & (HELD | END) != 0 { flags | WALKED } else { flags }
}

/// Does an address that goes through this come out as one that can be brought back?
fn is_disguise(m: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(m, M::Xor | M::Not | M::Neg | M::Rol | M::Ror | M::Bswap | M::Shl | M::Shr | M::Sar | M::Shld | M::Shrd)
}

/// The end of an object, and something is taken from it: an address of the object.
fn lowered(flags: u8) -> u8 {
    if flags & TOP != 0 { flags | HELD } else { flags }
}

fn is_number(insn: &Instruction, operand: u32) -> bool {
    operand < insn.op_count() && insn.try_immediate(operand).is_ok()
}

/// What a copy of memory does with the address: the object is copied, or a local object that holds the address.
pub fn copied(state: &State, to: u8, from: u8) -> Vec<AddressUse> {
    let to_stack = to & STACK != 0 && to & MIXED == 0;
    let mut uses = Vec::new();
    if from & HELD != 0 {
        uses.push(AddressUse::Copied(if to_stack { Copy::Stack } else { Copy::Memory }));
    }
    if from & STACK != 0 && state.any_slot() & HELD != 0 {
        uses.push(AddressUse::Stored(if to_stack { AddressHolder::Stack } else { AddressHolder::Memory }));
    }
    uses
}

fn is_cmov(m: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        m,
        M::Cmova
            | M::Cmovae
            | M::Cmovb
            | M::Cmovbe
            | M::Cmove
            | M::Cmovg
            | M::Cmovge
            | M::Cmovl
            | M::Cmovle
            | M::Cmovne
            | M::Cmovno
            | M::Cmovnp
            | M::Cmovns
            | M::Cmovo
            | M::Cmovp
            | M::Cmovs
    )
}
