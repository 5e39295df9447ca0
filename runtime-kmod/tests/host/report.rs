//! What the log and the files say.

use lpbuild_runtime::{
    kernel::Unreliable,
    refusal::Refusal,
    status::{self, State, Status},
    text::Text,
};

use crate::sim::{Fixture, NEW, OLD, run};

fn text(write: impl FnOnce(&mut Text<'_>)) -> String {
    let mut buf = [0; 8192];
    let mut t = Text::new(&mut buf);
    write(&mut t);
    String::from_utf8(t.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_refusal_names_every_blocker_and_counts_the_rest() {
    let f = Fixture::new(2, 1);
    f.sim.task(42, Ok(vec![OLD + 0x11]));
    f.sim.task(43, Err(Unreliable::Unwind));
    for id in 1000..1070 {
        f.sim.task(id, Ok(vec![OLD]));
    }
    f.with(|m| {
        assert_eq!(run(&f.sim, || m.apply()).0, lpbuild_runtime::machine::Step::Refused(Refusal::Busy));
        status::log_refusal(&f.sim, b"demo", b"", Refusal::Busy, &m.status().blockers);
        let files = text(|t| status::blockers(&f.sim, m.status(), t));
        assert!(files.starts_with("42 t?ask old_0+0x11\n43 t?ask unreliable-stack\n"), "{files}");
        assert!(files.ends_with("\nand 8 more\n"));
        let error = text(|t| status::last_error(&f.sim, m.patch(), m.status(), t));
        assert_eq!(
            error,
            "LP5007: tasks were inside the replaced functions, or had not changed over, until the deadline\n"
        );
    });
    let log = &f.sim.world().log;
    assert_eq!(
        log[0],
        "lpbuild: demo: LP5007: tasks were inside the replaced functions, or had not changed over, until the deadline"
    );
    assert_eq!(log[1], "lpbuild: demo: blocker pid=42 comm=t?ask at=old_0+0x11");
    assert_eq!(log[2], "lpbuild: demo: blocker pid=43 comm=t?ask at=unreliable-stack");
    assert_eq!(log.len(), 1 + 64 + 1);
    assert_eq!(log[65], "lpbuild: demo: and 8 more blockers");
}

#[test]
fn a_refusal_names_its_function_and_who_is_there() {
    let f = Fixture::new(1, 1);
    let say = |r: Refusal| text(|t| r.describe(&f.sim, b"func_0", t));
    let foreign = say(Refusal::AlreadyPatched { func: 0, target: NEW + 0x8 });
    assert_eq!(foreign, "LP5004: func_0: is live-patched already, its code jumps to new_0+0x8 [other]");
    let unknown = say(Refusal::AlreadyPatched { func: 0, target: 0x10 });
    assert!(unknown.ends_with("jumps to 0x10"), "{unknown}");
    assert!(say(Refusal::Probed { func: 0, addr: OLD + 5 }).starts_with("LP5005: func_0: "));
    assert!(say(Refusal::BadRecord("unknown mode")).ends_with(": unknown mode"));
}

#[test]
fn files_and_the_line_of_success() {
    let f = Fixture::new(2, 2);
    f.with(|m| {
        run(&f.sim, || m.apply());
        let files = text(|t| status::functions(m.patch(), m.status(), t));
        assert_eq!(files, "func_0 site=+0x5/8 jump=rel32 applied\nfunc_1 site=+0x5/8 jump=rel32 applied\n");
        status::log_success(&f.sim, m.patch(), m.status(), "applied");
        assert_eq!(text(|t| status::last_error(&f.sim, m.patch(), m.status(), t)), "");
    });
    let line = f.sim.world().log[0].clone();
    let (start, pause) = line.split_once("pause_ns=").unwrap();
    assert_eq!(start, "lpbuild: demo: applied mode=stop-machine functions=2 attempts=1 ");
    assert!(pause.parse::<u64>().is_ok());
}

#[test]
fn numbers() {
    assert_eq!(
        text(|t| _ = t.dec(0).str(" ").dec(u64::MAX).str(" ").int(i64::MIN)),
        "0 18446744073709551615 -9223372036854775808"
    );
    assert_eq!(text(|t| _ = t.hex(0).hex(0xdead_beef).hex_bytes(&[0, 0xa5])), "0x00xdeadbeef00a5");
    let mut small = [0; 4];
    let mut t = Text::new(&mut small);
    t.str("abcdef").dec(1);
    assert_eq!((t.as_bytes(), t.room()), (b"abcd".as_slice(), 0));
}

#[test]
fn states() {
    let names = [State::Applying, State::Applied, State::Reverting, State::Reverted].map(State::name);
    assert_eq!(names, ["applying", "applied", "reverting", "reverted"]);
    assert_eq!(Status::new().state, State::Applying);
}
