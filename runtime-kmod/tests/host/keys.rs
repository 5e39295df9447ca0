//! Jumps of static keys and static calls that a module has: what the kernel gets, and what it must not get.

use lpbuild_runtime::{
    holders::{Holders, Presence},
    layers::Layers,
    refusal::Refusal,
};

use crate::sim::{OLD, Sim};

/// The module: its `struct module`, and its memory.
use crate::modules::*;

/// The kernel sorts and marks the entries, and turns the code: neither is there when it gets them again.
#[test]
fn the_jumps_of_its_keys_and_its_static_calls_begin_anew_with_each_coming() {
    let m = Modules::new();
    let (sim, mut all) = (m.sim(), m.prepared());
    for turn in 0..3 {
        all.join(sim, (&m.patch(), &Layers::new()), 0, MODULE, NONE, false).expect("joins");
        assert_eq!(sim.get(JUMP, 5), NOP, "{turn}");
        let made = entry(JUMP, JUMP + 0x10);
        assert_eq!(sim.get(ENTRY, 8), made[..8], "{turn}");
        assert_eq!(m.word(ENTRY + 8), (KEY + 1).wrapping_sub(ENTRY + 8), "{turn}");
        // The call, which leads to the module's own code, and its entry.
        assert_eq!(sim.get(CALL, 1), [0xe8], "{turn}");
        assert_eq!(m.half(CALL + 1), (TEXT + 0x20 - 4).wrapping_sub(CALL + 1) as u32, "{turn}");
        assert_eq!(sim.get(SITE_OF_CALL, 4), call_site(CALL)[..4], "{turn}");
        assert_eq!(m.half(SITE_OF_CALL + 4), CALL_KEY.wrapping_sub(SITE_OF_CALL + 4) as u32, "{turn}");
        // What the key says, the kernel looks at.
        assert_eq!(sim.get(SETTLED, 2), [0x66, 0x90], "{turn}");
        assert_eq!(m.word(SETTLED_ENTRY + 8), CONSTANT_KEY.wrapping_sub(SETTLED_ENTRY + 8), "{turn}");
        sim.put(JUMP, &[0xe9, 0x0b, 0, 0, 0]);
        sim.put(CALL, &NOP);
        sim.put(SETTLED, &[0xeb, 6]);
        sim.put(ENTRY, &[turn; 40]);
        all.going(sim, 0, NONE);
        all.gone(sim, &m.patch(), 0, NONE);
        all.left(sim, &m.patch(), 0);
    }
    // The kernel had no memory for them: what comes next may be taken.
    all.refuse(0, Refusal::NoMemory);
    assert_eq!(all.presence(0), Presence::Refused(Refusal::NoMemory));
    all.join(sim, (&m.patch(), &Layers::new()), 0, MODULE, NONE, false).expect("joins");
    all.refuse(0, Refusal::NoMemory);
    assert_eq!(all.presence(0), Presence::Here, "of one that is here nothing is known to have failed");
    all.going(sim, 0, NONE);
    all.gone(sim, &m.patch(), 0, NONE);
    all.left(sim, &m.patch(), 0);
    m.clear(all);
}

/// The init of the module is over: a key that is constant now says what the code is, and the kernel is told nothing.
#[test]
fn a_key_that_is_constant_already_says_what_the_code_is() {
    let jumps = |count: i32, branch: i64, was: &[u8], live: bool| {
        let mut m = Modules::new();
        m.relocs.iter_mut().filter(|r| r.at == SETTLED_ENTRY + 8).for_each(|r| r.addend += branch);
        let sim = m.sim();
        sim.put(SETTLED, was);
        sim.put(CONSTANT_KEY, &count.to_le_bytes());
        let mut all = m.prepared();
        all.join(sim, (&m.patch(), &Layers::new()), 0, MODULE, NONE, live).expect("joins");
        let now = sim.get(SETTLED, was.len());
        all.going(sim, 0, NONE);
        all.gone(sim, &m.patch(), 0, NONE);
        all.left(sim, &m.patch(), 0);
        m.clear(all);
        now
    };
    let (nop, short, long) = (&[0x66, 0x90][..], &[0xeb, 6][..], &[0xe9, 3, 0, 0, 0][..]);
    for was in [nop, short, &NOP, long] {
        let (nop, jump) = if was.len() == 2 { (nop, short) } else { (&NOP[..], long) };
        for (count, branch, now) in [(0, 0, nop), (1, 0, jump), (0, 1, jump), (1, 1, nop), (7, 0, jump), (-1, 0, jump)]
        {
            assert_eq!(jumps(count, branch, was, true), now, "{was:x?} {count} {branch}");
            // Of one that is being loaded the kernel takes care.
            assert_eq!(jumps(count, branch, was, false), was, "{was:x?} {count} {branch}");
        }
    }
    // A short jump that cannot be made, because it would not reach.
    let m = Modules::new();
    m.sim().put(SETTLED_ENTRY, &entry_at(SETTLED_ENTRY, SETTLED, SETTLED + 0x90));
    m.sim().put(CONSTANT_KEY, &[1]);
    let mut all = m.prepared();
    let cannot = Refusal::BadRecord("a jump of a key, or a static call, that cannot be written");
    assert_eq!(all.join(m.sim(), (&m.patch(), &Layers::new()), 0, MODULE, NONE, true), Err(cannot));
    m.clear(all);
}

/// The kernel stops the machine where the key says something else than the code (`__static_call_validate`).
#[test]
fn a_static_call_is_what_its_key_says() {
    let joined = |code: &[u8], flags: i64| {
        let mut m = Modules::new();
        for r in &mut m.relocs {
            r.addend += if r.at == SITE_OF_CALL + 4 { flags } else { 0 };
            // Behind the opcode.
            r.at += if r.at == CALL + 1 && code[0] == 0x0f { 1 } else { 0 };
        }
        m.sim().put(CALL, code);
        let mut all = m.prepared();
        let joined = all.join(m.sim(), (&m.patch(), &Layers::new()), 0, MODULE, NONE, false);
        if joined.is_ok() {
            all.going(m.sim(), 0, NONE);
            all.gone(m.sim(), &m.patch(), 0, NONE);
            all.left(m.sim(), &m.patch(), 0);
        }
        m.clear(all);
        joined
    };
    let cannot = Err(Refusal::BadRecord("a jump of a key, or a static call, that cannot be written"));
    let (call, jump, conditional) = ([0xe8, 0, 0, 0, 0], [0xe9, 0, 0, 0, 0], [0x0f, 0x85, 0, 0, 0, 0]);
    for (code, right) in [(&call[..], 0), (&jump[..], 1), (&conditional[..], 1)] {
        for flags in 0..4 {
            let want = if flags == right { Ok(()) } else { cannot };
            assert_eq!(joined(code, flags), want, "{code:x?} {flags}");
        }
    }
}

/// What the kernel would write to, or stop the machine for, is looked at before anything is handed to it.
#[test]
fn an_entry_that_is_no_jump_or_call_of_carried_code_is_refused() {
    let refuses = |what: &str, change: &dyn Fn(&Sim)| {
        let m = Modules::new();
        change(m.sim());
        let mut all = Holders::new();
        let why = all.prepare(m.sim(), &m.patch());
        let none = Refusal::BadRecord("a jump of a key, or a static call, that is none");
        assert_eq!(why, Err(none), "{what}");
        m.clear(all);
    };
    let holds = |at: u64, bytes: &[u8]| {
        let m = Modules::new();
        m.sim().put(at, bytes);
        m.clear(m.prepared());
    };
    holds(JUMP, &[0x66, 0x90]);
    holds(JUMP, &[0xeb, 0x0e]);
    holds(JUMP, &[0xe9, 0x0b, 0, 0, 0]);
    holds(CALL, &[0xe9, 0, 0, 0, 0]);
    holds(CALL, &[0x0f, 0x84, 0, 0, 0, 0]);
    refuses("another instruction", &|s| s.put(JUMP, &[0x90; 5]));
    refuses("the beginning of a nop", &|s| s.put(JUMP, &[0x0f, 0x1f, 0x44, 0, 1]));
    refuses("a jump elsewhere", &|s| s.put(JUMP, &[0xe9, 0x0c, 0, 0, 0]));
    refuses("a short jump elsewhere", &|s| s.put(JUMP, &[0xeb, 0x0f]));
    refuses("a call by a register", &|s| s.put(CALL, &[0xff, 0xd0]));
    refuses("a call that is none any more", &|s| s.put(CALL, &NOP));
    refuses("a short jump of a call", &|s| s.put(CALL, &[0x74, 0x10]));
    let patch = Modules::new();
    let (start, end) = (patch.f.record.text_start, patch.f.record.text_end);
    refuses("code of the kernel", &|s| s.put(ENTRY, &entry(OLD, JUMP)));
    refuses("before the carried code", &|s| s.put(ENTRY, &entry(start - 1, JUMP)));
    refuses("over the end of the carried code", &|s| s.put(ENTRY, &entry(end - 4, JUMP)));
    refuses("to somewhere else", &|s| s.put(ENTRY, &entry(JUMP, end)));
    refuses("a key already", &|s| s.put(ENTRY + 8, &[1]));
    refuses("a call of the kernel's code", &|s| s.put(SITE_OF_CALL, &call_site(OLD)));
    refuses("a call over the end", &|s| {
        s.put(end - 4, &[0xe8]);
        s.put(SITE_OF_CALL, &call_site(end - 4));
    });
    refuses("a long call over the end", &|s| {
        s.put(end - 5, &[0x0f, 0x84]);
        s.put(SITE_OF_CALL, &call_site(end - 5));
    });
    refuses("the key of a call already", &|s| s.put(SITE_OF_CALL + 4, &[1]));
    refuses("a constant key already", &|s| s.put(SETTLED_ENTRY + 15, &[1]));
}
