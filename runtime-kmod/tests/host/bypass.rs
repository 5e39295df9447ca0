//! Calls of a patch below that would go past the one on top.

use lpbuild_runtime::bypass::find;

use crate::sim::{NEW, Sim};

const LEN: u64 = 700;
const TARGET: u64 = NEW + 0x4_0000;

/// Code of nops with these bytes at an offset, and where a call of [`TARGET`] is found in it.
fn found(at: u64, opcode: &[u8], target: u64) -> Option<u64> {
    let sim = Sim::new(1);
    sim.put(NEW, &[0x90; LEN as usize]);
    let next = NEW + at + opcode.len() as u64 + 4;
    let rel = (target.wrapping_sub(next) as i64) as i32;
    let insn = [opcode, &rel.to_le_bytes()].concat();
    sim.put(NEW + at, &insn);
    find(&sim, (NEW, NEW + LEN), TARGET, |_| true).map(|a| a - NEW)
}

#[test]
fn calls_and_jumps_are_found_wherever_they_are() {
    for opcode in [&[0xe8][..], &[0xe9], &[0x0f, 0x84], &[0x0f, 0x8f]] {
        for at in 0..=LEN - opcode.len() as u64 - 4 {
            assert_eq!(found(at, opcode, TARGET), Some(at), "{opcode:x?}");
            assert_eq!(found(at, opcode, TARGET + 1), None, "{opcode:x?} at {at}");
        }
        // Its end is not in the code.
        assert_eq!(found(LEN - 4, opcode, TARGET), None);
    }
    assert_eq!(found(3, &[0x0f, 0x0b], TARGET), None);
    assert_eq!(found(3, &[0xeb], TARGET), None);
}

#[test]
fn only_those_that_count() {
    let sim = Sim::new(1);
    for at in [0, 0x200] {
        let rel = (TARGET - (NEW + at + 5)) as i32;
        sim.put(NEW + at, &[&[0xe8][..], &rel.to_le_bytes(), &[0x90; 0x1fb]].concat());
    }
    let ask = |counts: &dyn Fn(u64) -> bool| find(&sim, (NEW, NEW + 0x400), TARGET, counts);
    assert_eq!(ask(&|_| true), Some(NEW));
    assert_eq!(ask(&|a| a != NEW), Some(NEW + 0x200));
    assert_eq!(ask(&|_| false), None);
    // What cannot be read may be anything.
    assert_eq!(find(&sim, (NEW + 0x3f0, NEW + 0x410), TARGET, |_| true), Some(NEW + 0x3f0));
    assert_eq!(find(&sim, (NEW, NEW), TARGET, |_| true), None);
}
