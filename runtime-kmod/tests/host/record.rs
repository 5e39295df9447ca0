//! Records that contradict themselves.

use lpbuild_abi::{FuncRecord, PatchRecord, RangeRecord};
use lpbuild_runtime::{record::Patch, refusal::Refusal};

use crate::sim::{Fixture, NEW, OLD};

fn rejected(change: impl FnOnce(&mut PatchRecord, &mut [FuncRecord], &mut [RangeRecord])) -> &'static str {
    let mut f = Fixture::new(1, 2);
    change(&mut f.record, &mut f.funcs, &mut f.ranges);
    // SAFETY: the vectors and strings behind the addresses live as long as the fixture.
    match unsafe { Patch::new(&f.record) } {
        Err(Refusal::BadRecord(rule)) => rule,
        other => panic!("accepted, or refused for another reason: {:?}", other.err()),
    }
}

#[test]
fn every_rule_of_the_patch_record() {
    assert_eq!(rejected(|p, _, _| p.magic ^= 1), "no lpbuild patch");
    assert_eq!(rejected(|p, _, _| p.abi_version += 1), "another version of the records");
    assert_eq!(rejected(|p, _, _| p.mode = 9), "unknown mode");
    for flag in 5..16 {
        assert_eq!(rejected(|p, _, _| p.flags = 1 << flag), "unknown flags");
    }
    for len in [0, 33] {
        assert_eq!(rejected(|p, _, _| p.build_id_len = len), "length of the build id");
    }
    assert_eq!(rejected(|p, _, _| p.deadline_ms = 0), "a deadline of 0 ms");
    assert_eq!(rejected(|p, _, _| p.patience_ms = 0), "a patience of 0 ms");
    for n in [0, 1 << 20] {
        assert_eq!(rejected(|p, _, _| p.n_funcs = n), "number of functions or ranges");
    }
    assert_eq!(rejected(|p, _, _| p.n_ranges = u32::MAX), "number of functions or ranges");
    assert_eq!(rejected(|p, _, _| p.funcs = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.ranges = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.name = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.funcs += 4), "a misaligned array");
    assert_eq!(rejected(|p, _, _| p.text_end = p.text_start - 1), "an inverted range");
    assert_eq!(rejected(|p, _, _| p.notes_end = p.notes_start - 1), "an inverted range");
    let long = [b'x'; 80];
    assert_eq!(rejected(|p, _, _| p.name = long.as_ptr() as u64), "a string without end");
}

#[test]
fn every_rule_of_a_function() {
    assert_eq!(rejected(|_, f, _| f[1].jump_kind = 0), "unknown jump");
    for size in [0, 4, 27] {
        assert_eq!(rejected(|_, f, _| f[1].site_size = size), "size of a jump site");
    }
    // abs64 needs 12 bytes.
    assert_eq!(rejected(|_, f, _| f[1].jump_kind = 2), "size of a jump site");
    assert_eq!(rejected(|_, f, _| f[1].old = 0), "address of a function");
    assert_eq!(rejected(|_, f, _| f[1].old = u64::MAX - 8), "address of a function");
    for new in [NEW - 1, NEW + 0x200, OLD, u64::MAX] {
        assert_eq!(rejected(|_, f, _| f[1].new = new), "a new function outside the patch's code");
    }
    assert_eq!(rejected(|_, f, _| f[1].new_size = 0x1000), "a new function outside the patch's code");
}

#[test]
fn code_that_nothing_guards() {
    assert_eq!(rejected(|p, _, _| p.n_ranges = 1), "a function without a range");
    assert_eq!(rejected(|_, _, r| r[1].func = 0), "a function without a range");
    assert_eq!(rejected(|_, _, r| r[1].len = 12), "a function without a range");
    assert_eq!(rejected(|_, _, r| r[1].func = 2), "a range outside its function's code");
    assert_eq!(rejected(|_, _, r| r[1].len = 0), "a range outside its function's code");
}

#[test]
fn two_jumps_into_the_same_bytes() {
    let rule = rejected(|_, f, r| {
        f[1].old = f[0].old + 7;
        r[1].start = f[1].old;
    });
    assert_eq!(rule, "overlapping jump sites");
}
