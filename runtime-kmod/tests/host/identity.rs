//! The build id among the kernel's notes.

use lpbuild_runtime::{identity, refusal::Refusal};

use crate::sim::Fixture;

const NOTES: u64 = 0xffff_ffff_8200_0000;

fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut n = Vec::new();
    for v in [name.len() as u32, desc.len() as u32, kind] {
        n.extend(v.to_le_bytes());
    }
    for part in [name, desc] {
        n.extend(part);
        n.resize(n.len().next_multiple_of(4), 0);
    }
    n
}

fn check(notes: &[u8]) -> Result<(), Refusal> {
    let mut f = Fixture::new(1, 1);
    f.record.notes_start = NOTES;
    f.record.notes_end = NOTES + notes.len() as u64;
    f.sim.put(NOTES, notes);
    identity::check(&f.sim, &f.patch())
}

#[test]
fn is_found_behind_other_notes() {
    let mut notes = note(b"Xen\0", 6, b"linux\0");
    notes.extend(note(b"Xen\0", 3, &[7; 20]));
    notes.extend(note(b"Linux\0", 0x101, &[0]));
    notes.extend(note(b"GNU\0", 5, &[7; 20]));
    assert_eq!(check(&notes), Err(Refusal::NoBuildId));
    notes.extend(note(b"GNU\0", 3, &[7; 20]));
    assert_eq!(check(&notes), Ok(()));
}

#[test]
fn another_or_a_longer_or_shorter_id_is_another_kernel() {
    let mut id = [7; 20];
    id[19] ^= 1;
    assert_eq!(check(&note(b"GNU\0", 3, &id)), Err(Refusal::WrongKernel));
    assert_eq!(check(&note(b"GNU\0", 3, &[7; 19])), Err(Refusal::WrongKernel));
    assert_eq!(check(&note(b"GNU\0", 3, &[7; 24])), Err(Refusal::WrongKernel));
    assert_eq!(check(&note(b"GNU\0", 3, &[7; 400])), Err(Refusal::NoBuildId));
}

#[test]
fn damaged_or_unmapped_notes_are_refused_without_a_fault() {
    assert_eq!(check(&[]), Err(Refusal::NoBuildId));
    let whole = note(b"GNU\0", 3, &[7; 20]);
    for cut in 0..whole.len() {
        assert_eq!(check(&whole[..cut]), Err(Refusal::NoBuildId), "cut at {cut}");
    }
    assert_eq!(check(&[0xff; 64]), Err(Refusal::NoBuildId));
    // What lies behind the notes is none of them, even where it can be read.
    for cut in 0..whole.len() {
        let mut f = Fixture::new(1, 1);
        f.sim.put(NOTES, &whole);
        (f.record.notes_start, f.record.notes_end) = (NOTES, NOTES + cut as u64);
        assert_eq!(identity::check(&f.sim, &f.patch()), Err(Refusal::NoBuildId), "end at {cut}");
    }
    let mut f = Fixture::new(1, 1);
    for (start, end) in [(NOTES, NOTES + 64), (8, 1 << 20), (u64::MAX - 64, u64::MAX)] {
        (f.record.notes_start, f.record.notes_end) = (start, end);
        assert_eq!(identity::check(&f.sim, &f.patch()), Err(Refusal::NoBuildId));
    }
}

/// Of a module it is looked for among its constants, which are read in pieces; wherever it is there, it is one.
#[test]
fn of_a_module_is_found_once_wherever_it_is() {
    let size = 800;
    for at in (0..=size - 36).step_by(4) {
        let f = Fixture::new(1, 1);
        let mut constants = vec![0; size];
        constants[at..at + 36].copy_from_slice(&note(b"GNU\0", 3, &[7; 20]));
        f.sim.put(NOTES, &constants);
        let mut found = identity::Id::none();
        assert!(identity::is_module(&f.sim, (NOTES, size as u64), &[7; 20], &mut found), "at {at}");
        assert!(!identity::is_module(&f.sim, (NOTES, size as u64), &[8; 20], &mut found), "at {at}");
        assert_eq!(found.bytes(), [7; 20], "at {at}");
    }
}
