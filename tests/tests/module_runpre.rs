//! Objects of stock modules, compiled as `lpbuild build` compiles the old side, are what was shipped: code, read-only data and the
//! entries of every table. `cargo xtask runpre --all N` looks at any number of modules; here are small ones of each kind.

use harness::runpre::RunPre;
use lpbuild_tests::Env;

/// Of one object and of several, with and without dependencies, with jump labels, alternatives, bugs and static calls.
const MODULES: &[&str] = &[
    "fs/binfmt_misc",
    "drivers/net/dummy",
    "net/8021q/8021q",
    "drivers/md/dm-bufio",
    "net/sched/sch_codel",
    "net/netfilter/nfnetlink_log",
];

fn matched(name: &str, series: &str) {
    let Some(env) = Env::find_series(name, series) else { return };
    let kernel = RunPre::of(&env.kernel).unwrap();
    let mut several = 0;
    for module in MODULES {
        let found = kernel.module(module).unwrap();
        assert_eq!(found.others, [""; 0], "{module}");
        // objtool sees the linked module where it is delayed: no ENDBR is sealed of a function that another object takes the
        // address of, and the end of one object needs no entry where the next begins.
        let fewer = |t: &(&str, usize, usize)| [".ibt_endbr_seal", ".orc_unwind_ip"].contains(&t.0) && t.1 > t.2;
        assert_eq!(found.odd_tables().filter(|t| !fewer(t)).collect::<Vec<_>>(), [], "{module}");
        assert!(found.functions > 5 && found.objects > 0, "{found:?}");
        // Without its tables an object has the same code all the same, and the stacks that lead through it are not reliable.
        for table in [".orc_unwind_ip", ".return_sites"] {
            assert!(found.tables.get(table).is_some_and(|n| n.0 > found.functions / 2), "{module}: {:?}", found.tables);
        }
        several += usize::from(found.objects > 1);
    }
    assert!(several > 0, "a module of several objects is among them");
}

#[test]
fn objects_of_stock_modules_are_what_was_shipped() {
    matched("objects_of_stock_modules_are_what_was_shipped", "6.1");
}

#[test]
fn objects_of_stock_modules_are_what_was_shipped_612() {
    matched("objects_of_stock_modules_are_what_was_shipped_612", "6.12");
}
