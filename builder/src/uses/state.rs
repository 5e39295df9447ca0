//! What registers and stack slots hold at one instruction.

use std::collections::BTreeMap;

use crate::isa::Register;

/// It may hold the address, or the address and something added.
pub const HELD: u8 = 1;
/// It may hold the end of the object, where something else begins.
pub const END: u8 = 2;
/// It may also hold something else.
pub const MIXED: u8 = 4;
/// With [`END`]: it is the very end of the object, so that what lies below is in it.
pub const TOP: u8 = 16;
/// It may be an address of the function's own stack.
pub const STACK: u8 = 32;
/// Something was added to it: a pointer that walks.
pub const WALKED: u8 = 64;
/// What is told of a value wherever it goes.
pub const VALUE: u8 = HELD | END | MIXED | TOP | STACK | WALKED;
/// What makes a value worth following.
const TRACKED: u8 = HELD | END | STACK;
/// A register: nothing has read it since it was written. A slot: a push made it.
pub const FRESH: u8 = 8;

/// Numbers of registers as the instruction set has them.
pub const RAX: usize = 0;
pub const RDX: usize = 2;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
/// Registers of the first six arguments (System V ABI, 3.2.3).
pub const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Registers a call of C may change.
pub const CALLER_SAVED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// Slots that are told apart; more than that is not understood.
const MOST_SLOTS: usize = 256;

/// The state before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    regs: [u8; 16],
    /// Registers that something may have written since the last call.
    pub defined: u16,
    /// By distance from the stack pointer at the entry.
    slots: BTreeMap<i32, u8>,
    /// The stack pointer, counted from the entry; nothing when it is not known.
    pub rsp: Option<i32>,
    /// The same of the frame pointer; nothing when it is none.
    pub rbp: Option<i32>,
}

impl State {
    /// At the entry of a function; `arguments` as in [`State::arguments`].
    pub fn entry(arguments: u32) -> Self {
        let mut state = Self { regs: [0; 16], defined: u16::MAX, slots: BTreeMap::new(), rsp: Some(0), rbp: None };
        for (n, reg) in ARGUMENTS.into_iter().enumerate() {
            let held = if arguments >> n & 1 != 0 { HELD } else { 0 };
            let end = if arguments >> (n + 6) & 1 != 0 { END } else { 0 };
            let mixed = if arguments >> (n + 12) & 1 != 0 { MIXED } else { 0 };
            let top = if arguments >> (n + 18) & 1 != 0 { TOP } else { 0 };
            state.regs[reg] = held | end | mixed | top;
        }
        state
    }
    /// Somewhere in the middle, reached in a way that is not known.
    pub fn unknown() -> Self {
        Self { rsp: None, ..Self::entry(0) }
    }
    /// Which arguments a callee gets: bit n held, n + 6 end, n + 12 mixed, n + 18 the very end.
    pub fn arguments(&self) -> u32 {
        let mut all = 0;
        for (n, reg) in ARGUMENTS.into_iter().enumerate().filter(|(n, _)| self.may_be_argument(*n)) {
            let flags = self.regs[reg];
            all |= u32::from(flags & HELD != 0) << n;
            all |= u32::from(flags & END != 0) << (n + 6);
            all |= u32::from(flags & MIXED != 0) << (n + 12);
            all |= u32::from(flags & TOP != 0) << (n + 18);
        }
        all
    }
    /// An argument comes with all before it: one whose register nothing has written since the last call is none.
    pub fn may_be_argument(&self, n: usize) -> bool {
        ARGUMENTS[..=n].iter().all(|r| self.defined >> r & 1 != 0)
    }
    /// What a register holds, by number.
    pub fn reg(&self, n: usize) -> u8 {
        self.regs.get(n).copied().unwrap_or(0)
    }
    /// What a register of any width holds; 0 for those that hold no addresses.
    pub fn of(&self, r: Register) -> u8 {
        number(r).map_or(0, |n| self.reg(n))
    }
    /// A register gets another value.
    pub fn set(&mut self, n: usize, flags: u8) {
        let Some(reg) = self.regs.get_mut(n) else { return };
        *reg = if flags & TRACKED != 0 { flags | FRESH } else { 0 };
        self.defined |= 1 << n;
    }
    /// A register is read.
    pub fn read(&mut self, n: usize) {
        if let Some(reg) = self.regs.get_mut(n) {
            *reg &= !FRESH;
        }
    }
    /// A register holds nothing any more, and nobody has written it.
    pub fn forget(&mut self, n: usize) {
        if let Some(reg) = self.regs.get_mut(n) {
            *reg = 0;
            self.defined &= !(1 << n);
        }
    }
    /// What a slot holds.
    pub fn slot(&self, at: i32) -> u8 {
        self.slots.get(&at).copied().unwrap_or(0)
    }
    /// A slot gets another value. False when there are too many.
    pub fn set_slot(&mut self, at: i32, flags: u8) -> bool {
        if flags & TRACKED == 0 {
            self.slots.remove(&at);
            return true;
        }
        self.slots.insert(at, flags);
        self.slots.len() <= MOST_SLOTS
    }
    /// Slots that hold it.
    pub fn slots(&self) -> impl Iterator<Item = (i32, u8)> + '_ {
        self.slots.iter().map(|(at, flags)| (*at, *flags))
    }
    /// Does any slot hold it?
    pub fn any_slot(&self) -> u8 {
        self.slots.values().fold(0, |a, b| a | b) & (HELD | END)
    }
    /// What lies below the stack pointer is gone.
    pub fn pop_to(&mut self, rsp: Option<i32>) {
        self.rsp = rsp;
        if let Some(rsp) = rsp {
            self.slots = self.slots.split_off(&rsp);
        }
    }
    /// What may be when two ways meet. True when that is more than before.
    pub fn join(&mut self, other: &State) -> bool {
        let before = self.clone();
        let meet = |a: u8, b: u8| {
            let differ = |kind: u8| (a & kind != 0) != (b & kind != 0);
            let mixed = if differ(HELD | END) || differ(STACK) { MIXED } else { 0 };
            a | b | mixed
        };
        for (a, b) in self.regs.iter_mut().zip(other.regs) {
            *a = meet(*a, b);
        }
        let keys: Vec<i32> = self.slots.keys().chain(other.slots.keys()).copied().collect();
        for at in keys {
            let flags = meet(self.slot(at), other.slot(at));
            self.slots.insert(at, flags);
        }
        self.defined |= other.defined;
        if self.rsp != other.rsp {
            self.rsp = None;
        }
        if self.rbp != other.rbp {
            self.rbp = None;
        }
        *self != before
    }
}

/// The number of the general register that holds `r`.
pub fn number(r: Register) -> Option<usize> {
    r.is_gpr().then(|| r.full_register().number())
}
