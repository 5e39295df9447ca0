//! What is below a site, by the bytes that are there.

use lpbuild_runtime::{
    layers::{Beneath, Layer, beneath},
    site::Site,
};

use crate::sim::{Fixture, OLD, SITE};

const ADDR: u64 = OLD + 5;

/// Sites of patches at the same place, the lowest first: each was laid over the one before.
fn tower(n: usize) -> Vec<Site<u64>> {
    let f = Fixture::new(1, 1);
    let mut all: Vec<Site<u64>> = Vec::new();
    for i in 0..n {
        let mut s = f.sites()[0];
        s.target += 0x1000 * (i as u64 + 1);
        let rel = (s.target.wrapping_sub(s.addr + 5) as i64) as i32;
        s.jump.bytes[1..5].copy_from_slice(&rel.to_le_bytes());
        if let Some(below) = all.last() {
            assert!(s.lay_over(below, &below.jump.bytes[..SITE.len()]));
        }
        all.push(s);
    }
    all
}

/// Indices of the uppermost and of what `lp_original` leads to. The order of the layers is not that of the tower.
fn found(tower: &[Site<u64>], replaced: &[usize], now: &[u8], addr: u64) -> (Option<usize>, Option<usize>) {
    let layers = || tower.iter().enumerate().rev().map(|(i, site)| Layer { site, replaced: replaced.contains(&i) });
    let Beneath { top, original, .. } = beneath(addr, now, layers);
    let index = |s: &Site<u64>| tower.iter().position(|t| t.target == s.target).unwrap();
    (top.map(index), original.map(index))
}

#[test]
fn the_original_is_the_uppermost_that_stays() {
    let t = tower(4);
    let now = |i: usize| &t[i].jump.bytes[..SITE.len()];
    assert_eq!(found(&t[..1], &[], now(0), ADDR), (Some(0), Some(0)));
    assert_eq!(found(&t, &[], now(3), ADDR), (Some(3), Some(3)), "all of them lie below");
    // Whose place is taken is not what runs when it is gone.
    assert_eq!(found(&t[..1], &[0], now(0), ADDR), (Some(0), None), "the kernel's function");
    assert_eq!(found(&t, &[3], now(3), ADDR), (Some(3), Some(2)));
    assert_eq!(found(&t, &[3, 2], now(3), ADDR), (Some(3), Some(1)));
    assert_eq!(found(&t, &[0, 1, 2, 3], now(3), ADDR), (Some(3), None));
}

/// A probe on the site has kept the jump of a patch from being written: its dispatcher gives the answer for good.
#[test]
fn a_patch_whose_sites_have_stayed_with_the_dispatchers_is_below_as_well() {
    let mut t = tower(2);
    let mut dispatched = t[0].jump;
    dispatched.bytes[1] ^= 0x40;
    let now = &dispatched.bytes[..SITE.len()];
    t[0].detour = dispatched;
    assert_eq!(found(&t, &[], now, ADDR), (None, None), "it has no dispatcher");
    t[0].dispatcher = t[0].target + 0x40;
    assert_eq!(found(&t, &[], now, ADDR), (Some(0), Some(0)));
    let (below, s) = (t[0], &mut t[1]);
    assert!(s.lay_over(&below, now));
    assert_eq!(&s.original.bytes[..SITE.len()], now, "it comes back to what was there");
    assert!(!s.lay_over(&below, &SITE));
}

#[test]
fn what_is_not_there_is_below_nothing() {
    let mut t = tower(2);
    assert_eq!(found(&t, &[], &SITE, ADDR), (None, None), "the kernel's own bytes");
    assert_eq!(found(&t, &[], &t[1].jump.bytes[..SITE.len()], ADDR + 0x100), (None, None), "another function");
    assert_eq!(found(&t[..1], &[], &t[1].jump.bytes[..SITE.len()], ADDR), (None, None), "somebody else's jump");
    // Two that claim to lie on each other: it ends.
    t[0].original = t[1].jump;
    assert_eq!(found(&t, &[0, 1], &t[1].jump.bytes[..SITE.len()], ADDR), (Some(1), None));
}
