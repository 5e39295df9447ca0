//! Callbacks and oneshot: what is called when, what is undone, and what stays.

use lpbuild_abi::{Callback, FLAG_ONESHOT};
use lpbuild_runtime::{
    machine::{Machine, Step},
    refusal::Refusal,
    status::State,
};

use crate::sim::{Fixture, NEW, OLD, Sim};

/// A patch with all callbacks.
fn fixture() -> Fixture {
    let mut f = Fixture::new(2, 2);
    f.record.flags = Callback::ALL.iter().fold(0, |flags, c| flags | c.flag());
    f
}

/// One operation. What pre-apply returns is `veto`; each call is noted with the state and whether the sites hold jumps.
fn operate(f: &Fixture, m: &mut Machine<'_, Sim>, revert: bool, veto: i32) -> (Step, Vec<String>) {
    let mut seen = Vec::new();
    for _ in 0..1000 {
        match if revert { m.revert() } else { m.apply() } {
            Step::Again(ms) => f.sim.pass(ms),
            Step::RcuTasks => seen.push("rcu".into()),
            Step::Call(callback) => {
                let code = if f.original() { "old" } else { "new" };
                seen.push(format!("{} {} {code}", callback.name(), m.status().state.name()));
                m.called(callback, if callback == Callback::PreApply { veto } else { -1 });
            }
            end => return (end, seen),
        }
    }
    panic!("it never ends");
}

#[test]
fn each_is_called_once_in_its_place() {
    let f = fixture();
    f.with(|m| {
        let (end, seen) = operate(&f, m, false, 0);
        assert_eq!((end, m.status().state), (Step::Done, State::Applied));
        assert_eq!(seen, ["pre-apply applying old", "rcu", "post-apply applying new"]);
        let (end, seen) = operate(&f, m, true, 0);
        assert_eq!((end, m.status().state), (Step::Done, State::Reverting));
        assert_eq!(seen, ["pre-revert reverting new", "rcu", "post-revert reverting old"]);
        m.released();
        assert_eq!(m.status().state, State::Reverted);
    });
}

#[test]
fn a_patch_without_them_is_asked_for_nothing() {
    let f = Fixture::new(2, 1);
    f.with(|m| {
        assert_eq!(operate(&f, m, false, 0), (Step::Done, vec!["rcu".into()]));
        assert_eq!(operate(&f, m, true, 0), (Step::Done, vec!["rcu".into()]));
    });
    for only in Callback::ALL {
        let mut f = Fixture::new(2, 1);
        f.record.flags = only.flag();
        f.with(|m| {
            let (_, mut seen) = operate(&f, m, false, 0);
            seen.extend(operate(&f, m, true, 0).1);
            let calls: Vec<&String> = seen.iter().filter(|s| *s != "rcu").collect();
            assert_eq!(calls.len(), 1);
            assert!(calls[0].starts_with(only.name()));
        });
    }
}

#[test]
fn pre_apply_that_does_not_return_0_ends_it_before_anything() {
    for (value, errno) in [(-19, 19), (-1, 1), (-4095, 4095), (-4096, 22), (1, 22), (i32::MIN, 22)] {
        let f = fixture();
        f.with(|m| {
            let (end, seen) = operate(&f, m, false, value);
            let why = Refusal::Vetoed { value };
            assert_eq!((end, why.errno(), why.code()), (Step::Refused(why), errno, 5015));
            assert_eq!((m.status().state, m.status().attempts), (State::Refused, 0));
            assert_eq!(m.status().refusal, Some(why));
            assert_eq!(seen, ["pre-apply applying old"], "nothing was done, so nothing is undone");
        });
        assert!(f.original() && f.sim.writes() == 0);
    }
}

#[test]
fn an_apply_that_is_refused_undoes_what_pre_apply_did() {
    let f = fixture();
    f.sim.task(42, Ok(vec![OLD + 1]));
    f.with(|m| {
        let (end, seen) = operate(&f, m, false, 0);
        assert_eq!((end, m.status().state), (Step::Refused(Refusal::Busy), State::Refused));
        assert_eq!(seen, ["pre-apply applying old", "post-revert applying old"], "once each, whatever the attempts");
        assert!(m.status().attempts > 5);
    });
    // The kernel calls post_unpatch as well when there is no pre_patch.
    let mut f = Fixture::new(2, 1);
    f.record.flags = Callback::PostRevert.flag();
    f.sim.task(42, Ok(vec![OLD + 1]));
    f.with(|m| assert_eq!(operate(&f, m, false, 0).1, ["post-revert applying old"]));
}

#[test]
fn a_revert_that_is_refused_undoes_what_pre_revert_did() {
    let f = fixture();
    f.with(|m| {
        operate(&f, m, false, 0);
        f.sim.task(43, Ok(vec![NEW + 1]));
        let (end, seen) = operate(&f, m, true, 0);
        assert_eq!((end, m.status().state), (Step::Refused(Refusal::StillInside), State::Applied));
        assert_eq!(seen, ["pre-revert reverting new", "post-apply reverting new"]);
        assert_eq!(m.status().refusal, Some(Refusal::StillInside));
        f.sim.remove_task(43);
        let (end, seen) = operate(&f, m, true, 0);
        assert_eq!(end, Step::Done);
        assert_eq!(seen, ["pre-revert reverting new", "rcu", "post-revert reverting old"], "from the beginning again");
        assert_eq!(m.status().refusal, None);
    });
}

#[test]
fn time_in_a_callback_does_not_count_to_the_deadline() {
    let f = fixture();
    f.sim.task(42, Ok(vec![OLD + 1]));
    f.with(|m| {
        assert_eq!(m.apply(), Step::Call(Callback::PreApply));
        f.sim.pass(60_000);
        m.called(Callback::PreApply, 0);
        for _ in 0..5 {
            assert!(matches!(m.apply(), Step::Again(_)), "the deadline is one second of attempts");
        }
    });
}

#[test]
fn only_pre_apply_decides_anything() {
    let f = fixture();
    f.with(|m| {
        for callback in [Callback::PostApply, Callback::PreRevert, Callback::PostRevert] {
            m.called(callback, -5);
        }
        assert_eq!(operate(&f, m, false, 0).0, Step::Done);
    });
}

#[test]
fn oneshot_is_not_reverted() {
    let mut f = fixture();
    f.record.flags |= FLAG_ONESHOT;
    f.with(|m| {
        assert_eq!(operate(&f, m, false, 0).0, Step::Done);
        for _ in 0..2 {
            let (end, seen) = operate(&f, m, true, 0);
            assert_eq!((end, m.status().state), (Step::Refused(Refusal::Oneshot), State::Applied));
            assert!(seen.is_empty(), "no callback for what will not happen");
            assert_eq!((Refusal::Oneshot.code(), Refusal::Oneshot.errno()), (5014, 1));
        }
        assert!(!f.original());
        // The module goes away by force: better without its jumps than with them.
        m.force();
        let (end, seen) = operate(&f, m, true, 0);
        assert_eq!((end, seen.len()), (Step::Done, 3));
        assert!(f.original());
    });
}
