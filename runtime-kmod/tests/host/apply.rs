//! Applying: what it writes, and everything that must keep it from writing.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use lpbuild_runtime::{
    board::Board,
    constants::Constants,
    kernel::Unreliable,
    machine::{Machine, Parts, Step},
    refusal::Refusal,
    sites::SiteSet,
    stack::Where,
    status::State,
    switch::Other,
};

use crate::sim::{Fixture, LEN, NEW, OLD, SITE, Sim, run};

fn refused(f: &Fixture, why: Refusal) {
    let (end, _) = f.with(|m| {
        let end = run(&f.sim, || m.apply());
        assert_eq!(m.status().state, State::Refused);
        end
    });
    assert_eq!(end, Step::Refused(why));
    assert!(!f.armed.load(SeqCst), "int3 hits are still diverted");
}

#[test]
fn writes_the_jump_and_one_nop_at_every_site() {
    let f = Fixture::new(4, 3);
    f.with(|m| {
        assert_eq!(run(&f.sim, || m.apply()).0, Step::Done);
        assert_eq!((m.status().state, m.status().attempts), (State::Applied, 1));
    });
    for i in 0..3u64 {
        let rel = (NEW + i * 0x100).wrapping_sub(OLD + i * 0x100 + 10) as u32;
        let mut want = vec![0xe9];
        want.extend(rel.to_le_bytes());
        want.extend([0x0f, 0x1f, 0x00]);
        assert_eq!(f.bytes(i as usize), want);
    }
    assert!(!f.armed.load(SeqCst));
}

#[test]
fn switches_by_int3_in_the_stop_and_touches_tails_only_after_rcu_tasks() {
    let f = Fixture::new(2, 2);
    f.with(|m| {
        assert_eq!(m.apply(), Step::RcuTasks);
        for i in 0..2 {
            assert_eq!(f.bytes(i)[0], 0xcc);
            assert_eq!(f.bytes(i)[1..], SITE[1..], "a task can still be preempted in there");
        }
        assert!(f.armed.load(SeqCst), "an int3 would be fatal");
        assert_eq!(m.status().state, State::Applying);
        assert_eq!(m.apply(), Step::Done);
        assert_eq!(f.bytes(0)[0], 0xe9);
    });
}

#[test]
fn a_task_inside_old_code_blocks_until_it_leaves() {
    for addr in [OLD, OLD + 9, OLD + u64::from(LEN) - 1, OLD + u64::from(LEN)] {
        let f = Fixture::new(2, 1);
        f.sim.task(42, Ok(vec![1, addr, 2]));
        f.with(|m| {
            assert!(matches!(m.apply(), Step::Again(_)), "{addr:#x}");
            assert_eq!(m.status().blockers.kept()[0].who.pid, 42);
            assert!(f.original() && f.sim.writes() == 0);
            f.sim.remove_task(42);
            assert_eq!(run(&f.sim, || m.apply()).0, Step::Done);
        });
    }
}

#[test]
fn a_task_beside_old_code_does_not_block() {
    let f = Fixture::new(2, 1);
    f.sim.task(42, Ok(vec![OLD - 1, OLD + u64::from(LEN) + 1]));
    f.with(|m| assert_eq!(m.apply(), Step::RcuTasks));
}

#[test]
fn pieces_elsewhere_are_guarded_too() {
    let mut f = Fixture::new(2, 1);
    f.ranges.push(lpbuild_abi::RangeRecord { start: 0x7000, len: 0x10, func: 0, anchor: 0, zero: 0 });
    f.record.ranges = f.ranges.as_ptr() as u64;
    (f.record.n_ranges, f.record.n_kernel_ranges) = (2, 2);
    f.sim.task(42, Ok(vec![0x7004]));
    refused(&f, Refusal::Busy);
    assert_eq!(f.sim.writes(), 0);
}

#[test]
fn a_stack_that_cannot_be_walked_or_is_too_deep_blocks() {
    for stack in [Err(Unreliable::Unwind), Ok(vec![1; 16])] {
        let f = Fixture::new(2, 1);
        f.sim.task(42, stack);
        refused(&f, Refusal::Busy);
        assert_eq!(f.sim.writes(), 0);
    }
}

#[test]
fn only_the_stopper_that_is_in_the_rendezvous_is_left_out() {
    // A second task on the same CPU that cannot be walked is no stopper.
    let f = Fixture::new(2, 1);
    f.sim.world().tasks.push(crate::sim::Task { id: 101 + 50, cpu: 1, stack: Err(Unreliable::Unwind) });
    refused(&f, Refusal::Busy);
}

#[test]
fn gives_up_at_the_deadline_with_growing_waits() {
    let f = Fixture::new(2, 1);
    f.sim.task(42, Ok(vec![OLD + 1]));
    let (end, waits) = f.with(|m| run(&f.sim, || m.apply()));
    assert_eq!(end, Step::Refused(Refusal::Busy));
    assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 64, 100]);
    let total: u64 = waits.iter().sum();
    assert!((900..=1000).contains(&total), "waited {total} ms of 1000");
    assert!(f.original() && f.sim.writes() == 0);
}

#[test]
fn tries_at_least_once() {
    let mut f = Fixture::new(2, 1);
    f.record.deadline_ms = 1;
    assert_eq!(f.with(|m| run(&f.sim, || m.apply()).0), Step::Done);
}

#[test]
fn bytes_that_change_between_the_checks_are_seen_in_the_stop() {
    let f = Fixture::new(2, 2);
    f.sim.world().on_stop = vec![(OLD + 0x100 + 5 + 3, 0x99)];
    refused(&f, Refusal::Altered { func: 1 });
    assert_eq!(f.sim.writes(), 0);
    assert_eq!(f.sim.stops.load(SeqCst), 1, "waiting does not help");
}

#[test]
fn a_kprobe_that_comes_between_the_checks_is_seen_in_the_stop() {
    let f = Fixture::new(2, 1);
    f.sim.world().probe_on_stop = Some(OLD + 6);
    refused(&f, Refusal::Probed { func: 0, addr: OLD + 6 });
    assert_eq!(f.sim.writes(), 0);
}

#[test]
fn a_cpu_that_does_not_come_stops_nothing_for_good() {
    let f = Fixture::new(3, 1);
    f.sim.late.store(2, SeqCst);
    refused(&f, Refusal::CpusMissing);
    assert!(f.original() && f.sim.writes() == 0);
}

#[test]
fn a_cpu_that_does_not_answer_makes_the_int3_go_again() {
    let f = Fixture::new(3, 2);
    f.sim.mute.store(1, SeqCst);
    refused(&f, Refusal::CpusMissing);
    assert!(f.original());
    assert!(f.sim.writes() >= 4, "this test is about int3s that were written");
}

#[test]
fn a_stop_that_does_not_happen_is_a_refusal() {
    let mut f = Fixture::new(2, 1);
    f.sim.stop_fails = true;
    refused(&f, Refusal::CpusMissing);
    assert!(f.original());
}

/// A fixture of which only the second function has a dispatcher, and what a machine of it does.
fn half_dispatched(others: &[Other<'_>], test: impl FnOnce(&Fixture, &Board, &mut Machine<'_, Sim>)) {
    let mut f = Fixture::new(2, 2);
    (f.funcs[1].resume, f.funcs[1].dispatch) = (NEW + 0x190, NEW + 0x1c0);
    let (sites, mut frames, board) = (f.sites(), [0; 16], Board::new());
    let no = AtomicBool::new(false);
    let parts = Parts {
        sites: SiteSet::new(&sites, &[]),
        located: &[],
        others,
        constants: &Constants::new(),
        armed: &f.armed,
        board: &board,
        cancel: &no,
        force: &no,
        seats: &f.seats,
        frames: &mut frames,
    };
    test(&f, &board, &mut Machine::new(&f.sim, f.patch(), parts));
}

#[test]
fn dispatchers_follow_in_the_stop_where_others_have_none() {
    half_dispatched(&[], |f, board, m| {
        f.sim.task(42, Ok(vec![OLD + 0x20]));
        assert!(matches!(m.apply(), Step::Again(_)));
        assert!(!board.chooses_new(&f.sim, 500), "nothing is decided yet");
        f.sim.remove_task(42);
        assert_eq!(m.apply(), Step::RcuTasks);
        assert!(board.chooses_new(&f.sim, 500), "one function is new, the other old");
    });
}

#[test]
fn without_a_dispatcher_no_other_patch_is_replaced() {
    let replaced = Board::new();
    replaced.settle(true);
    let other = Other { text: (0x9000, 0x9100), ranges: &[], replaced: Some(&replaced) };
    half_dispatched(&[other], |f, _, m| {
        assert_eq!(m.apply(), Step::Refused(Refusal::NoDispatcher { func: 0 }));
        assert!(f.original() && f.sim.writes() == 0 && replaced.chooses_new(&f.sim, 500));
    });
}

#[test]
fn a_kprobe_that_comes_behind_the_int3_is_waited_for() {
    let f = Fixture::new(2, 1);
    f.with(|m| {
        assert_eq!(m.apply(), Step::RcuTasks);
        f.sim.world().probes.push(OLD + 6);
        assert!(matches!(m.apply(), Step::Again(_)), "the probe would put its byte back into the jump");
        assert_eq!(f.bytes(0)[1..], SITE[1..]);
        assert!(f.armed.load(SeqCst), "an int3 would be fatal");
        f.sim.world().probes.clear();
        assert_eq!(run(&f.sim, || m.apply()).0, Step::Done);
        assert_eq!((f.bytes(0)[0], m.status().refusal), (0xe9, None));
    });
}

/// Kernel threads are woken after a second; who is in a system call has as long as the patch says.
#[test]
fn who_sleeps_in_user_space_is_left_alone_until_the_patience_is_over() {
    for patience in [1, 3_000, 15_000] {
        let mut f = Fixture::new(2, 1);
        (f.funcs[0].resume, f.funcs[0].dispatch) = (NEW + 0x90, NEW + 0xc0);
        (f.record.mode, f.record.deadline_ms, f.record.patience_ms) = (3, 30_000, patience);
        f.sim.task(42, Ok(vec![OLD + 0x20]));
        f.sim.task(43, Ok(vec![OLD + 0x20]));
        f.sim.world().threads.push(43);
        assert_eq!(f.with(|m| run(&f.sim, || m.apply()).0), Step::Refused(Refusal::Busy));
        let w = f.sim.world();
        for (task, first) in [(42, u64::from(patience)), (43, 1000)] {
            let at: Vec<u64> = w.disturbed.iter().filter(|d| d.0 == task).map(|d| d.1).collect();
            assert!((first..first + 250).contains(&at[0]), "{patience}: {task} at {at:?}");
            assert!(at.windows(2).all(|w| w[1] - w[0] >= 5000), "{patience}: {task} at {at:?}");
        }
        // Everybody else has changed over by then, where it is more than two seconds.
        let others = w.disturbed.iter().any(|d| d.0 != 42 && d.0 != 43);
        assert_eq!(others, patience == 1, "{patience}: {:?}", w.disturbed);
    }
}

/// The dispatchers of a replaced patch are still in use, so it must not go.
#[test]
fn a_kprobe_on_the_jump_keeps_a_replaced_patch() {
    let mut f = Fixture::new(2, 1);
    (f.funcs[0].resume, f.funcs[0].dispatch) = (NEW + 0x90, NEW + 0xc0);
    f.record.mode = 3;
    f.record.deadline_ms = 60_000;
    let (sites, mut frames, board, replaced) = (f.sites(), [0; 16], Board::new(), Board::new());
    replaced.settle(true);
    let no = AtomicBool::new(false);
    let others = [Other { text: (0x9000, 0x9100), ranges: &[], replaced: Some(&replaced) }];
    let parts = Parts {
        sites: SiteSet::new(&sites, &[]),
        located: &[],
        others: &others,
        constants: &Constants::new(),
        armed: &f.armed,
        board: &board,
        cancel: &no,
        force: &no,
        seats: &f.seats,
        frames: &mut frames,
    };
    let mut m = Machine::new(&f.sim, f.patch(), parts);
    let mut step = |f: &Fixture| {
        let step = m.apply();
        if let Step::Again(ms) = step {
            f.sim.pass(ms);
        }
        step
    };
    while step(&f) != Step::RcuTasks {}
    step(&f);
    assert_eq!(f.bytes(0)[0], 0xe9, "the jump to the dispatcher");
    f.sim.world().probes.push(OLD + 5);
    for _ in 0..200 {
        assert_ne!(step(&f), Step::Replaced, "it would be freed while a site leads into it");
    }
    f.sim.world().probes.clear();
    assert!((0..200).any(|_| step(&f) == Step::Replaced));
}

/// Drains a fixture whose functions are one instruction each, or not; until what was asked for.
fn drains(single: [u8; 2], test: impl FnOnce(&Fixture, &mut dyn FnMut() -> Step)) {
    let mut f = Fixture::new(2, 2);
    for (i, s) in single.into_iter().enumerate() {
        let base = NEW + i as u64 * 0x100;
        (f.funcs[i].resume, f.funcs[i].dispatch, f.funcs[i].single) = (base + 0x90, base + 0xc0, s);
    }
    f.record.mode = 2;
    f.with(|m| test(&f, &mut || m.apply()));
}

#[test]
fn one_instruction_is_written_over_at_once() {
    drains([1, 1], |f, step| {
        assert_eq!(step(), Step::Again(0), "the locks are left");
        assert_eq!((f.bytes(0)[0], f.bytes(1)[0]), (0xe9, 0xe9));
        assert!(!f.armed.load(SeqCst), "no call traps");
        assert_eq!(step(), Step::Effective);
        assert_eq!(step(), Step::RcuTasks, "an exiting task may be in old code");
        assert_eq!(step(), Step::Done);
    });
}

#[test]
fn one_function_of_several_instructions_makes_all_wait() {
    drains([1, 0], |f, step| {
        assert_eq!(step(), Step::RcuTasks);
        assert_eq!((&f.bytes(0)[..1], &f.bytes(1)[1..]), (&[0xcc][..], &SITE[1..]));
        assert_eq!(step(), Step::Again(0));
        assert_eq!(step(), Step::Effective);
        assert_eq!(step(), Step::Again(0), "whoever was in old code is out of it");
        assert_eq!(step(), Step::Done);
    });
}

/// Somebody works in the kernel without a pause: nothing is written until he rests, or nothing at all.
#[test]
fn who_would_be_waited_for_is_waited_for_before_the_int3() {
    drains([1, 0], |f, step| {
        f.sim.world().restless.push(500);
        for _ in 0..5 {
            assert!(matches!(step(), Step::Again(_)));
            f.sim.pass(100);
        }
        assert_eq!(f.sim.writes(), 0);
        f.sim.world().restless.clear();
        assert_eq!((step(), step()), (Step::Again(0), Step::RcuTasks));
        assert_eq!(f.bytes(0)[0], 0xcc);
    });
    let mut f = Fixture::new(2, 2);
    for mode in [1, 2, 3] {
        f.record.mode = mode;
        for i in 0..2 {
            (f.funcs[i].resume, f.funcs[i].dispatch) = (NEW + i as u64 * 0x100 + 0x90, NEW + i as u64 * 0x100 + 0xc0);
        }
        f.sim.world().restless = vec![500];
        f.with(|m| {
            let (end, waits) = run(&f.sim, || m.apply());
            assert_eq!(end, Step::Refused(Refusal::Restless));
            assert!((900..=1000).contains(&waits.iter().sum::<u64>()), "{waits:?}");
            assert_eq!(m.status().blockers.kept()[0].at, Where::Restless);
            assert_eq!(m.status().blockers.kept()[0].who.pid, 500);
        });
        assert!(f.original() && f.sim.writes() == 0);
    }
}

/// Where nothing would wait with calls trapped, nobody is asked.
#[test]
fn one_instruction_asks_nobody() {
    drains([1, 1], |f, step| {
        f.sim.world().restless.push(500);
        assert_eq!((step(), step()), (Step::Again(0), Step::Effective));
    });
}

/// The wait behind the int3 lasts beyond the deadline all the same: what is there goes again.
#[test]
fn an_int3_goes_at_the_deadline() {
    for mode in [1, 2, 3] {
        let mut f = Fixture::new(2, 1);
        (f.funcs[0].resume, f.funcs[0].dispatch) = (NEW + 0x90, NEW + 0xc0);
        f.record.mode = mode;
        f.with(|m| {
            while m.apply() != Step::RcuTasks {}
            assert_eq!((f.bytes(0)[0], m.wait_ms()), (0xcc, Some(1000)));
            f.sim.pass(1000);
            // Whose int3 is it, when a kprobe has come to a later instruction?
            f.sim.world().probes.push(OLD + 6);
            assert_eq!(m.overdue(), None);
            f.sim.world().probes.clear();
            assert_eq!((m.wait_ms(), m.overdue()), (Some(0), Some(Step::Again(0))));
            assert!(f.original() && !f.armed.load(SeqCst), "{mode}");
            // It has to wait before it goes, and nobody waits for that longer than once more.
            while m.apply() != Step::RcuTasks {}
            f.sim.pass(1000);
            assert_eq!(m.overdue(), Some(Step::Effective), "{mode}");
            assert_eq!(m.status().state, State::Reverting);
            assert_eq!((m.wait_ms(), m.overdue()), (None, None));
            assert_eq!(run(&f.sim, || m.apply()).0, Step::Refused(Refusal::Restless));
        });
        assert!(f.original() && !f.armed.load(SeqCst));
    }
}
