//! Real fixes of the distribution through `lpbuild build` into the stock kernel of the version before: each is loaded, its
//! new code is entered, and it is taken out again, many of them side by side; where a fix changes what user space sees,
//! that is seen without it, with it, and without it again. Which fixes, and what for another pair of versions:
//! tests/fixes and src/fixes.rs.

use harness::vm::Vm;
use lpbuild_tests::Env;
use lpbuild_tests::fixes::{self, Fix, Fixes, List};

const SETUP: &str = r#"
ip link set lo up
mkdir /tmp/d /tmp/cg
touch /tmp/f
mount -t cgroup2 cgroup2 /tmp/cg
echo +memory > /tmp/cg/cgroup.subtree_control
# The first group turns static keys of the allocators on, some for good, some (`memcg_bpf_enabled_key`, 6.12) until the last
# one has been freed, some time after it is removed; without one that stays the text would differ afterwards.
mkdir /tmp/cg/first
"#;

/// Makes the fixes of a list that `which` names and runs them.
fn run(name: &str, series: &str, prefix: &str, which: &dyn Fn(&Fix) -> bool, wanted: usize) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
    let list = List::read(series).unwrap();
    let fixes = list.make(&env.maker(&lpbuild), prefix, which, wanted).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(fixes.made.len() >= wanted, "{} fixes of {wanted}", fixes.made.len());
    let mut vm = Vm::new(&name.replace('_', "-"), &env.kernel).file("/bin/lpbuild", &lpbuild);
    for made in &fixes.made {
        vm = vm.file(&format!("/{}.ko", made.module.name), &made.module.ko);
    }
    vm.case(&fixes::script(&fixes, SETUP)).run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

fn is_seen(fix: &Fix) -> bool {
    fix.seen.is_some()
}

#[test]
fn fixes_that_user_space_sees() {
    run("fixes_that_user_space_sees", "6.1", "seen", &is_seen, 4);
}

#[test]
fn fixes_of_every_part_of_the_kernel() {
    run("fixes_of_every_part_of_the_kernel", "6.1", "fix", &|f| !is_seen(f), 8);
}

#[test]
fn fixes_of_a_newer_series() {
    run("fixes_of_a_newer_series", "6.12", "newer", &|_| true, 4);
}

#[test]
fn the_lists_hold_what_they_promise() {
    for (series, all, seen) in [("6.1", 12, 4), ("6.12", 4, 1)] {
        let list = List::read(series).unwrap();
        assert!(list.fix.len() >= all && list.fix.iter().filter(|f| is_seen(f)).count() >= seen, "{series}");
        for (i, fix) in list.fix.iter().enumerate() {
            assert!(!fix.entered.is_empty() && !fix.workload.trim().is_empty(), "{series} {}", fix.name);
            assert!(list.fix[..i].iter().all(|f| f.name != fix.name && f.file != fix.file), "{series} {}", fix.name);
        }
    }
    let parts: std::collections::BTreeSet<String> = List::read("6.1")
        .unwrap()
        .fix
        .iter()
        .map(|f| f.file.split('/').next().unwrap_or_default().to_owned())
        .collect();
    for part in ["drivers", "fs", "io_uring", "kernel", "mm", "net", "security"] {
        assert!(parts.contains(part), "no fix of {part}: {parts:?}");
    }
}

/// As when the archive has moved on: the list is for other versions, and what it names is the same in both.
#[test]
fn a_fix_that_is_not_in_the_pair_is_replaced_by_another() {
    let name = "a_fix_that_is_not_in_the_pair_is_replaced_by_another";
    let Some((env, lpbuild)) = Env::with_lpbuild(name) else { return };
    let mut list = List::read("6.1").unwrap();
    list.old = "6.1.1".into();
    list.fix.truncate(1);
    list.fix[0].file = "fs/proc/version.c".into();
    let maker = env.maker(&lpbuild);
    let first = list.make(&maker, "replacing", &|_| true, 1).unwrap();
    assert!(!first.known && first.made.len() == 1);
    assert!(first.made[0].fix.is_none() && !first.made[0].functions.is_empty(), "{first:?}");
    let script = fixes::script(&Fixes { known: false, made: first.made.clone() }, "");
    assert!(script.contains(&format!("load {} {}", first.made[0].module.name, first.made[0].functions[0])), "{script}");
    let difference = |hunks| {
        let (old, new) = (env.kernel.old_source(), env.kernel.new_source());
        fixes::difference(&old, &new, "fs/proc/version.c", hunks)
    };
    assert!(difference(None).is_err() && difference(Some("version_proc_show")).is_err());
}
