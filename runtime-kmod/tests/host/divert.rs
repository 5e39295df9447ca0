//! Where an int3 hit continues.

use std::sync::atomic::Ordering::SeqCst;

use lpbuild_runtime::{
    machine::Step,
    refusal::Refusal,
    site::{Diverted, divert},
};

use crate::sim::{Fixture, NEW, OLD, run};

#[test]
fn every_site_leads_to_its_own_new_function_while_armed() {
    let f = Fixture::new(2, 3);
    f.with(|m| {
        m.apply();
        let armed = f.armed.load(SeqCst);
        for i in 0..3 {
            let at = OLD + i * 0x100 + 5;
            assert_eq!(divert(&f.sim, m.sites(), armed, at + 1), Diverted::To(NEW + i * 0x100));
            // The trap reports the address behind the int3.
            assert_eq!(divert(&f.sim, m.sites(), armed, at), Diverted::NotOurs);
        }
    });
}

#[test]
fn a_late_hit_goes_back_to_the_finished_site() {
    let f = Fixture::new(2, 1);
    f.with(|m| {
        run(&f.sim, || m.apply());
        assert_eq!(divert(&f.sim, m.sites(), f.armed.load(SeqCst), OLD + 6), Diverted::Again(OLD + 5));
    });
}

#[test]
fn the_int3_of_a_kprobe_on_the_jump_is_left_to_the_kprobe() {
    let f = Fixture::new(2, 1);
    f.with(|m| {
        run(&f.sim, || m.apply());
        f.sim.put(OLD + 5, &[0xcc]);
        assert_eq!(divert(&f.sim, m.sites(), f.armed.load(SeqCst), OLD + 6), Diverted::NotOurs);
    });
}

#[test]
fn a_hit_on_the_int3_of_another_patch_is_left_to_that_patch() {
    // Two patches of one function are loaded at once; the other one is ahead. The simulation fails when hits are
    // diverted while this one still asks for the stop; from there on it stands before the other's int3.
    let f = Fixture::new(2, 1);
    f.sim.put(OLD + 5, &[0xcc]);
    f.with(|m| {
        assert_eq!(m.apply(), Step::Refused(Refusal::Altered { func: 0 }));
        assert_eq!(f.sim.stops.load(SeqCst), 1);
        assert_eq!(divert(&f.sim, m.sites(), f.armed.load(SeqCst), OLD + 6), Diverted::NotOurs);
    });
}
