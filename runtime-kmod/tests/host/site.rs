//! The bytes of jumps, and what is made of bytes that are not the expected ones.

use lpbuild_abi::MAX_SITE;
use lpbuild_runtime::{
    refusal::Refusal,
    site::{Route, check, site},
};

use crate::sim::{Fixture, NEW, OLD, SITE};

/// The bytes for a site of `size` bytes that jumps to `new`.
fn jump(kind: u8, size: u8, new: u64) -> Result<Vec<u8>, Refusal> {
    let mut f = Fixture::new(1, 1);
    f.funcs[0].jump_kind = kind;
    f.funcs[0].site_size = size;
    f.funcs[0].original.iter_mut().skip(size.into()).for_each(|b| *b = 0);
    f.funcs[0].new = new;
    (f.record.text_start, f.record.text_end) = (new, new + 0x100);
    Ok(site(&f.patch(), 0, OLD + 5, ())?.bytes(Route::New).to_vec())
}

#[test]
fn rel32_reaches_two_gigabytes_both_ways() {
    let next = OLD + 10;
    assert_eq!(jump(1, 5, NEW).unwrap(), [0xe9, 0xf6, 0xff, 0xff, 0x3e]);
    assert_eq!(jump(1, 5, next - 0x8000_0000).unwrap(), [0xe9, 0, 0, 0, 0x80]);
    assert_eq!(jump(1, 5, next - 0x8000_0001), Err(Refusal::OutOfReach { func: 0 }));
}

#[test]
fn abs64_reaches_everything() {
    let mut want = vec![0x48, 0xb8];
    want.extend(0x1234_5678_9abc_def0u64.to_le_bytes());
    want.extend([0xff, 0xe0]);
    assert_eq!(jump(2, 12, 0x1234_5678_9abc_def0).unwrap(), want);
}

#[test]
fn the_rest_is_one_nop() {
    for (kind, len) in [(1u8, 5usize), (2, 12)] {
        for size in len..=len + 14 {
            let bytes = jump(kind, size as u8, NEW).unwrap();
            assert_eq!(bytes.len(), size);
            let rest = &bytes[len..];
            // Intel SDM, NOP: 90, 66 90, or 0f 1f /0 with any 66 prefixes and zero displacement.
            let body: Vec<u8> = rest.iter().copied().skip_while(|&b| b == 0x66).collect();
            let ok = match body.as_slice() {
                [] => rest.is_empty(),
                [0x90] => rest.len() <= 2,
                [0x0f, 0x1f, modrm, tail @ ..] => {
                    tail.len()
                        == match modrm {
                            0x00 => 0,
                            0x40 => 1,
                            0x44 => 2,
                            0x80 => 4,
                            0x84 => 5,
                            _ => 99,
                        }
                        && tail.iter().all(|&b| b == 0)
                }
                _ => false,
            };
            assert!(ok, "{size}: {rest:02x?}");
        }
    }
    assert_eq!(jump(2, MAX_SITE as u8, NEW).unwrap().len(), MAX_SITE);
}

#[test]
fn a_foreign_jump_and_an_alteration_are_told_apart() {
    let f = Fixture::new(1, 1);
    let sites = f.sites();
    assert_eq!(check(&f.sim, &sites, Route::Original), Ok(()));
    f.sim.put(OLD + 5, &[0xe9, 0x10, 0, 0, 0]);
    let target = OLD + 5 + 5 + 0x10;
    assert_eq!(check(&f.sim, &sites, Route::Original), Err(Refusal::AlreadyPatched { func: 0, target }));
    f.sim.put(OLD + 5, &SITE);
    f.sim.put(OLD + 12, &[0]);
    assert_eq!(check(&f.sim, &sites, Route::Original), Err(Refusal::Altered { func: 0 }));
    f.sim.world().memory.remove(&(OLD + 8));
    assert_eq!(check(&f.sim, &sites, Route::Original), Err(Refusal::Altered { func: 0 }));
}

#[test]
fn a_foreign_abs64_jump_is_recognised() {
    let mut f = Fixture::new(1, 1);
    f.funcs[0].site_size = 12;
    let mut jump = vec![0x48, 0xb8];
    jump.extend(0x1122_3344_5566_7788u64.to_le_bytes());
    jump.extend([0xff, 0xe0]);
    f.sim.put(OLD + 5, &jump);
    let want = Err(Refusal::AlreadyPatched { func: 0, target: 0x1122_3344_5566_7788 });
    assert_eq!(check(&f.sim, &f.sites(), Route::Original), want);
}

#[test]
fn a_kprobe_on_any_byte_or_reaching_into_the_site_is_found() {
    let at = OLD + 5;
    for addr in at - 4..at + SITE.len() as u64 {
        let f = Fixture::new(1, 1);
        f.sim.world().probes = vec![addr];
        assert_eq!(check(&f.sim, &f.sites(), Route::Original), Err(Refusal::Probed { func: 0, addr }));
    }
    for addr in [at - 5, at + SITE.len() as u64] {
        let f = Fixture::new(1, 1);
        f.sim.world().probes = vec![addr];
        assert_eq!(check(&f.sim, &f.sites(), Route::Original), Ok(()));
    }
}
