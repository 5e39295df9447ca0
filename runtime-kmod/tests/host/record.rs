//! Records that contradict themselves.

use lpbuild_abi::{Callback, FLAG_ONESHOT, FuncRecord, PatchRecord, RangeRecord};
use lpbuild_runtime::{
    record::{Memory, Patch},
    refusal::Refusal,
};

use crate::sim::{Everything, Fixture, NEW, OLD};

fn rejected(change: impl FnOnce(&mut PatchRecord, &mut [FuncRecord], &mut [RangeRecord])) -> &'static str {
    let mut f = Fixture::new(1, 2);
    change(&mut f.record, &mut f.funcs, &mut f.ranges);
    // SAFETY: the vectors and strings behind the addresses live as long as the fixture.
    match unsafe { Patch::new(&f.record, &Everything) } {
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
    assert_eq!(rejected(|p, _, _| p.n_funcs = 1 << 20), "number of functions, ranges or constants");
    assert_eq!(rejected(|p, _, _| p.n_funcs = 0), "no functions");
    // Code that a callback does not make harmless, and a flag that is no callback.
    let callback = Callback::PreApply.flag();
    assert_eq!(rejected(|p, _, _| (p.n_funcs, p.flags) = (0, callback)), "no functions");
    assert_eq!(rejected(|p, _, _| (p.n_funcs, p.n_ranges, p.flags) = (0, 0, FLAG_ONESHOT)), "no functions");
    assert_eq!(rejected(|p, _, _| p.n_ranges = u32::MAX), "number of functions, ranges or constants");
    assert_eq!(rejected(|p, _, _| p.n_data = u32::MAX), "number of functions, ranges or constants");
    assert_eq!(rejected(|p, _, _| p.n_data = 1), "a missing address");
    assert_eq!(rejected(|p, _, _| p.data = 8), "an address of nothing");
    assert_eq!(rejected(|p, _, _| (p.data, p.n_data) = (p.funcs + 4, 1)), "a misaligned array");
    assert_eq!(rejected(|p, _, _| p.funcs = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.ranges = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.name = 0), "a missing address");
    assert_eq!(rejected(|p, _, _| p.after = 8), "an address of nothing");
    assert_eq!(rejected(|p, _, _| p.replaces = 8), "an address of nothing");
    assert_eq!(rejected(|p, _, _| p.build_id[31] = 1), "bytes behind the build id");
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
    assert_eq!(rejected(|_, f, _| f[1].original[9] = 1), "bytes behind a jump site");
    assert_eq!(rejected(|_, f, _| f[1].old = 0), "address of a function");
    assert_eq!(rejected(|_, f, _| f[1].old = u64::MAX - 8), "address of a function");
    for new in [NEW - 1, NEW + 0x200, OLD, u64::MAX] {
        assert_eq!(rejected(|_, f, _| f[1].new = new), "a new function outside the patch's code");
    }
    assert_eq!(rejected(|_, f, _| f[1].new_size = 0x1000), "a new function outside the patch's code");
}

#[test]
fn code_that_nothing_guards() {
    assert_eq!(rejected(|p, _, _| (p.n_ranges, p.n_kernel_ranges) = (1, 1)), "a function without a range");
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

/// Pieces of memory, each of which may be read in one part.
struct Pieces(Vec<(u64, u64)>);

impl Memory for Pieces {
    fn holds(&self, addr: u64, len: u64) -> bool {
        self.0.iter().any(|(at, size)| addr >= *at && len <= *size && addr - at <= size - len)
    }
}

impl Pieces {
    /// Those that a fixture is made of.
    fn of(f: &Fixture) -> Self {
        let piece = |at: u64, size: usize| (at, size as u64);
        let mut all = vec![
            piece(f.funcs.as_ptr() as u64, size_of_val(&*f.funcs)),
            piece(f.ranges.as_ptr() as u64, size_of_val(&*f.ranges)),
            (f.record.text_start, f.record.text_end - f.record.text_start),
        ];
        all.extend(f.names().iter().map(|n| piece(n.as_ptr() as u64, n.as_bytes_with_nul().len())));
        Self(all)
    }
}

/// What the whole record says of itself is its digest.
fn sealed(f: &mut Fixture) {
    f.record.digest = f.patch().digest();
}

#[test]
fn nothing_outside_of_the_module_is_read() {
    let refused = |change: &dyn Fn(&mut Fixture)| {
        let mut f = Fixture::new(1, 2);
        sealed(&mut f);
        let memory = Pieces::of(&f);
        change(&mut f);
        // SAFETY: what the pieces hold lives as long as the fixture.
        match unsafe { Patch::new(&f.record, &memory) } {
            Err(Refusal::BadRecord(rule)) => rule,
            other => panic!("accepted, or refused for another reason: {:?}", other.err()),
        }
    };
    // Addresses that a read of would fault.
    let nowhere = 0x1000;
    assert_eq!(refused(&|f| f.record.funcs = nowhere), "an array outside of the module");
    assert_eq!(refused(&|f| f.record.ranges = nowhere), "an array outside of the module");
    for change in [|f: &mut Fixture| f.record.n_funcs += 1, |f: &mut Fixture| f.record.n_ranges = 4_000] {
        assert_eq!(refused(&change), "an array outside of the module");
    }
    for n in [1, 3] {
        assert_eq!(refused(&|f| (f.record.after, f.record.n_after) = (nowhere, n)), "an array outside of the module");
        let replaces = |f: &mut Fixture| (f.record.replaces, f.record.n_replaces) = (nowhere, n);
        assert_eq!(refused(&replaces), "an array outside of the module");
    }
    // A name in the list that is none.
    let list = |f: &mut Fixture| (f.record.after, f.record.n_after) = (f.funcs.as_ptr() as u64, 1);
    assert_eq!(refused(&list), "a string without end");
    assert_eq!(refused(&|f| f.record.name = nowhere), "a string without end");
    assert_eq!(refused(&|f| f.record.version = nowhere), "a string without end");
    assert_eq!(refused(&|f| f.funcs[1].name = nowhere), "a string without end");
    assert_eq!(refused(&|f| f.record.text_end += 1), "code outside of the module");
    assert_eq!(refused(&|f| f.record.text_start -= 1), "code outside of the module");
}

#[test]
fn what_was_changed_or_left_out_is_noticed() {
    let mut f = Fixture::new(1, 3);
    sealed(&mut f);
    let memory = Pieces::of(&f);
    // SAFETY: what the pieces hold lives as long as the fixture.
    assert!(unsafe { Patch::new(&f.record, &memory) }.is_ok());
    let changes: &[fn(&mut Fixture)] = &[
        // A shorter range: the rest of the old function would not be guarded.
        |f| f.ranges[1].len -= 1,
        |f| f.ranges[1].start -= 1,
        |f| f.record.n_ranges -= 1,
        |f| f.record.n_funcs -= 1,
        |f| f.funcs[0].new = f.funcs[1].new,
        |f| f.funcs[0].new_size -= 1,
        |f| f.funcs[2].old_size += 1,
        |f| f.funcs[2].covers_fentry = 1,
        // Half an instruction would be executed.
        |f| f.funcs[2].single = 1,
        |f| f.funcs[2].name = f.funcs[1].name,
        |f| f.record.deadline_ms += 1,
        |f| f.record.mode = 2,
        |f| f.record.flags ^= 1,
        |f| f.record.build_id[3] ^= 1,
        |f| f.record.notes_end += 1,
        |f| f.record.version = f.record.name,
        |f| f.record.digest ^= 1,
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut f = Fixture::new(1, 3);
        sealed(&mut f);
        let memory = Pieces::of(&f);
        change(&mut f);
        // SAFETY: as above.
        let found = unsafe { Patch::new(&f.record, &memory) };
        assert!(found.is_err(), "change {i} was not noticed");
    }
    // The same everywhere: what the boot adds to all addresses of the kernel does not count.
    let mut moved = Fixture::new(1, 3);
    sealed(&mut moved);
    for (func, range) in moved.funcs.iter_mut().zip(&mut moved.ranges) {
        (func.old, range.start) = (func.old + 0x1000_0000, range.start + 0x1000_0000);
    }
    (moved.record.notes_start, moved.record.notes_end) =
        (moved.record.notes_start + 0x1000_0000, moved.record.notes_end + 0x1000_0000);
    assert_eq!(moved.patch().digest(), moved.record.digest);
}
