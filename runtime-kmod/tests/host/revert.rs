//! Reverting: the exact bytes come back, but not while anyone is inside the new code.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_runtime::{machine::Step, refusal::Refusal, site::Route, status::State};

use crate::sim::{Fixture, NEW, OLD, run};

fn refused(f: &Fixture, prepare: impl FnOnce(), why: Refusal) {
    f.with(|m| {
        assert_eq!(run(&f.sim, || m.apply()).0, Step::Done);
        let jumps = f.bytes(0);
        prepare();
        let before = f.sim.writes();
        assert_eq!(run(&f.sim, || m.revert()).0, Step::Refused(why));
        assert_eq!(m.status().state, State::Applied);
        assert!(f.sim.writes() == before || f.bytes(0) == jumps);
        assert!(!f.armed.load(SeqCst));
    });
}

#[test]
fn brings_every_byte_back_and_can_be_repeated() {
    let f = Fixture::new(4, 3);
    f.with(|m| {
        assert_eq!(run(&f.sim, || m.apply()).0, Step::Done);
        assert_eq!(m.revert(), Step::Again(0), "the locks are left");
        assert!(f.original(), "all of it happens in the stop");
        assert_eq!(m.revert(), Step::RcuTasks);
        assert_eq!(m.status().state, State::Reverting, "exiting tasks may still be inside");
        assert_eq!(m.revert(), Step::Done);
        m.released();
        assert_eq!(m.status().state, State::Reverted);
    });
    assert!(!f.armed.load(SeqCst));
}

#[test]
fn a_task_inside_new_code_blocks_until_it_leaves() {
    for addr in [NEW, NEW + 0x55, NEW + 0x100] {
        let f = Fixture::new(2, 1);
        refused(&f, || f.sim.task(43, Ok(vec![addr])), Refusal::StillInside);
    }
    let f = Fixture::new(2, 1);
    f.with(|m| {
        run(&f.sim, || m.apply());
        f.sim.task(43, Ok(vec![NEW + 4]));
        assert!(matches!(m.revert(), Step::Again(_)));
        assert_eq!(m.status().state, State::Reverting);
        f.sim.remove_task(43);
        assert_eq!(run(&f.sim, || m.revert()).0, Step::Done);
    });
    assert!(f.original());
}

#[test]
fn a_task_in_the_middle_of_the_jump_blocks() {
    // Between the two instructions of an abs64 jump.
    let f = Fixture::new(2, 1);
    refused(&f, || f.sim.task(43, Ok(vec![OLD + 5 + 4])), Refusal::StillInside);
    // Before the jump it has not begun; it will execute what is there then.
    let f = Fixture::new(2, 1);
    f.with(|m| {
        run(&f.sim, || m.apply());
        f.sim.task(43, Ok(vec![OLD + 5]));
        assert_eq!(run(&f.sim, || m.revert()).0, Step::Done);
    });
}

#[test]
fn a_jump_that_someone_changed_stays() {
    let f = Fixture::new(2, 2);
    refused(&f, || f.sim.put(OLD + 0x100 + 5, &[0x90]), Refusal::JumpGone { func: 1 });
    let f = Fixture::new(2, 2);
    let elsewhere = [0xe9, 0x10, 0, 0, 0];
    let target = OLD + 0x100 + 5 + 5 + 0x10;
    refused(&f, || f.sim.put(OLD + 0x100 + 5, &elsewhere), Refusal::Overlaid { func: 1, target });
    let f = Fixture::new(2, 1);
    refused(&f, || f.sim.world().on_stop = vec![(OLD + 5, 0xcc)], Refusal::JumpGone { func: 0 });
}

#[test]
fn a_kprobe_on_the_jump_keeps_it() {
    let f = Fixture::new(2, 1);
    refused(&f, || f.sim.world().probes.push(OLD + 5), Refusal::Probed { func: 0, addr: OLD + 5 });
}

#[test]
fn a_cpu_that_does_not_answer_leaves_the_jumps() {
    let f = Fixture::new(3, 1);
    refused(&f, || f.sim.mute.store(2, SeqCst), Refusal::CpusMissing);
    assert_eq!(f.bytes(0), f.sites()[0].bytes(Route::New));
}
