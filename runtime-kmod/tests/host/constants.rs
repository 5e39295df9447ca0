//! Constants that change in their place: when, whole, and only where they are what they should be.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_abi::DataRecord;
use lpbuild_runtime::{
    constants::Constants,
    machine::Step,
    record::{Memory, Patch},
    refusal::Refusal,
    site::Route,
    status::State,
};

use crate::sim::{CONSTANT, Fixture, NEW_CONTENT, OLD_CONTENT, run};

/// The last step, a draining's end included.
fn end(f: &Fixture, mut step: impl FnMut() -> Step) -> Step {
    loop {
        match run(&f.sim, &mut step).0 {
            Step::Effective => {}
            last => return last,
        }
    }
}

/// A fixture whose functions have dispatchers, in a mode.
fn dispatched(mode: u8) -> Fixture {
    let mut f = Fixture::with_constant(2, 1);
    let new = f.funcs[0].new;
    (f.funcs[0].resume, f.funcs[0].dispatch, f.record.mode) = (new + 0x90, new + 0xc0, mode);
    f
}

fn altered(f: &Fixture) -> Vec<u8> {
    f.sim.put(CONSTANT + 40, &[9]);
    f.content()
}

#[test]
fn each_mode_changes_them_and_puts_them_back() {
    // Without a dispatcher all is done in one stop.
    let bare = Fixture::with_constant(2, 1);
    for f in [dispatched(1), dispatched(2), dispatched(3), bare] {
        f.with(|m| {
            assert_eq!(end(&f, || m.apply()), Step::Done);
            assert_eq!((f.content(), m.status().state), (NEW_CONTENT.to_vec(), State::Applied));
            assert_eq!(end(&f, || m.revert()), Step::Done);
            assert_eq!(f.content(), OLD_CONTENT);
            assert_eq!(f.sim.world().constants, 2, "once there and once back");
        });
        assert_eq!((f.sim.blocks(), f.sim.world().views), (0, 0));
    }
}

#[test]
fn old_code_never_meets_them() {
    // Whoever is in old code keeps a draining from its end.
    let f = dispatched(2);
    f.sim.task(42, Ok(vec![crate::sim::OLD + 0x20]));
    f.with(|m| {
        while m.apply() != Step::Effective {}
        assert_eq!((m.route(), f.content()), (Route::New, OLD_CONTENT.to_vec()), "new calls run new code");
        f.sim.remove_task(42);
        assert_eq!(end(&f, || m.apply()), Step::Done);
        assert_eq!(f.content(), NEW_CONTENT);
        // Back before the first int3.
        f.sim.task(42, Ok(vec![crate::sim::NEW + 0x20]));
        let step = m.revert();
        assert!(f.content() == OLD_CONTENT, "{step:?}");
    });
}

#[test]
fn nothing_is_done_where_somebody_has_changed_one() {
    let f = dispatched(1);
    f.sim.put(CONSTANT + 83, &[9]);
    let constants = Constants::new();
    let prepared = constants.prepare(&f.sim, &f.patch());
    assert_eq!(prepared, Err(Refusal::DataAltered { data: 0 }));
    assert_eq!(f.patch().subject(Refusal::DataAltered { data: 0 }), b"demo");
    constants.clear(&f.sim);
    assert_eq!((f.sim.blocks(), f.sim.world().views), (0, 0));
    for mode in 1..=3 {
        let f = dispatched(mode);
        f.with(|m| {
            let is = altered(&f);
            assert_eq!(m.rehearse(), Err(Refusal::DataAltered { data: 0 }));
            assert_eq!(end(&f, || m.apply()), Step::Refused(Refusal::DataAltered { data: 0 }));
            assert!(f.original() && f.content() == is && f.sim.writes() == 0);
        });
    }
}

#[test]
fn another_owners_change_keeps_the_patch() {
    for mode in 1..=3 {
        let f = dispatched(mode);
        f.with(|m| {
            assert_eq!(end(&f, || m.apply()), Step::Done);
            let is = altered(&f);
            assert_eq!(end(&f, || m.revert()), Step::Refused(Refusal::DataAltered { data: 0 }));
            assert_eq!((m.status().state, f.content()), (State::Applied, is));
            assert!(!f.armed.load(SeqCst) && !f.original());
            f.sim.put(CONSTANT, &NEW_CONTENT);
            assert_eq!(end(&f, || m.revert()), Step::Done);
            assert_eq!(f.content(), OLD_CONTENT);
        });
    }
}

#[test]
fn a_change_while_the_machine_comes_to_a_stop_is_not_overwritten() {
    for mode in 1..=3 {
        let f = dispatched(mode);
        f.with(|m| {
            f.sim.world().on_stop.push((CONSTANT + 3, 9));
            for _ in 0..200 {
                match m.apply() {
                    Step::Again(ms) => f.sim.pass(ms),
                    Step::RcuTasks | Step::Effective => {}
                    // In the stop nothing has changed over yet.
                    step => {
                        assert_eq!((mode, step), (1, Step::Refused(Refusal::DataAltered { data: 0 })));
                        break;
                    }
                }
            }
            assert_eq!(f.content()[3], 9, "mode {mode}");
            assert_eq!(m.status().refusal, Some(Refusal::DataAltered { data: 0 }), "mode {mode}");
            // Whose it is takes it away.
            f.sim.world().on_stop.clear();
            f.sim.put(CONSTANT, &OLD_CONTENT);
            assert_eq!(end(&f, || m.apply()), Step::Done, "mode {mode}");
            assert_eq!((f.content(), m.status().refusal), (NEW_CONTENT.to_vec(), None));
        });
    }
}

#[test]
fn a_stop_without_all_cpus_changes_nothing() {
    let mut f = Fixture::with_constant(2, 1);
    f.sim.stop_fails = true;
    f.with(|m| {
        assert_eq!(end(&f, || m.apply()), Step::Refused(Refusal::CpusMissing));
        assert_eq!((f.content(), f.sim.world().constants), (OLD_CONTENT.to_vec(), 0));
    });
}

#[test]
fn a_patch_of_constants_alone() {
    for mode in 1..=3 {
        let mut f = Fixture::with_constant(2, 0);
        f.record.mode = mode;
        (f.record.text_end, f.record.ranges) = (f.record.text_start + 0x100, 0);
        f.with(|m| {
            assert_eq!(end(&f, || m.apply()), Step::Done);
            assert_eq!(f.content(), NEW_CONTENT);
            assert_eq!(end(&f, || m.revert()), Step::Done);
            assert_eq!(f.content(), OLD_CONTENT);
        });
    }
}

/// The memory of the module, without its constants.
struct Without;

impl Memory for Without {
    fn holds(&self, addr: u64, _: u64) -> bool {
        addr != NEW_CONTENT.as_ptr() as u64
    }
}

#[test]
fn every_rule_of_a_constant() {
    let rejected = |change: &dyn Fn(&mut DataRecord)| {
        let mut f = Fixture::with_constant(1, 1);
        change(&mut f.data[0]);
        // SAFETY: the vectors and strings behind the addresses live as long as the fixture.
        match unsafe { Patch::unsealed(&f.record, &crate::sim::Everything) } {
            Err(Refusal::BadRecord(rule)) => rule,
            other => panic!("accepted, or refused for another reason: {:?}", other.err()),
        }
    };
    let place = "address or length of a constant";
    assert_eq!(rejected(&|d| d.len = 0), place);
    assert_eq!(rejected(&|d| d.len = lpbuild_abi::MAX_DATA + 1), place);
    assert_eq!(rejected(&|d| d.addr = 0), place);
    assert_eq!(rejected(&|d| d.addr = u64::MAX - 3), place);
    assert_eq!(rejected(&|d| d.zero = 1), "bytes of no use");
    assert_eq!(rejected(&|d| d.name = 0), "a string without end");
    let f = Fixture::with_constant(1, 1);
    // SAFETY: as above.
    let outside = unsafe { Patch::unsealed(&f.record, &Without) }.err();
    assert_eq!(outside, Some(Refusal::BadRecord("content of a constant outside of the module")));
    let mut f = Fixture::with_constant(1, 1);
    let (old, new) = (f.data[0].old, f.data[0].new);
    let name = f.data[0].name;
    f.data.push(DataRecord { addr: CONSTANT + 83, old, new, name, len: 8, zero: 0 });
    (f.record.data, f.record.n_data) = (f.data.as_ptr() as u64, 2);
    // SAFETY: as above.
    let both = unsafe { Patch::unsealed(&f.record, &crate::sim::Everything) }.err();
    assert_eq!(both, Some(Refusal::BadRecord("overlapping constants")));
}
