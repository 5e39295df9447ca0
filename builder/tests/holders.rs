//! Names of the kernel and of modules: each is linked by itself, so that a name means what its own holder has.

mod support;

use lpbuild::holder::HolderName;
use lpbuild::pipeline;
use lpbuild::plan::{Analysis, Dest, Options, PairId, Source};

fn object(text: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.c"), text).unwrap();
    support::compile(dir.path(), "a.c", "a.o", &["-fno-inline".into()]);
    std::fs::read(dir.path().join("a.o")).unwrap()
}

fn source(name: &str, holder: HolderName, old: &str, new: &str) -> Source {
    Source {
        name: name.into(),
        old_path: name.into(),
        new_path: name.into(),
        old: object(old),
        new: object(new),
        holder,
    }
}

fn analyse(sources: &[Source]) -> Analysis {
    pipeline::analyse(sources, &support::options()).unwrap()
}

/// What stands against a patch, but for that there is no room for a jump: the functions here are small.
fn refused(analysis: &Analysis) -> Vec<String> {
    let others = analysis.refused.iter().filter(|p| p.code.id != "LP2101");
    others.map(ToString::to_string).collect()
}

/// Where the branches of a function of a pair lead.
fn calls(analysis: &Analysis, pair: u32, function: &str) -> Vec<Dest> {
    let pair = PairId(pair);
    let object = &analysis.pairs[pair.0 as usize].new;
    let mut items = analysis.set.items.iter();
    let item = items.find(|i| i.pair == pair && object.atom(i.atom.0).name == function).unwrap();
    item.edges.iter().map(|e| e.dest.clone()).collect()
}

const OLD: &str = "int f(int x) { return x + 1; }";
const NEW: &str = "int helper(int x) { return x * 7; } int f(int x) { return helper(x) + 2; }";

fn module(name: &str) -> HolderName {
    HolderName::module(name)
}

#[test]
fn each_holder_calls_its_own_function() {
    let names = ["kernel/a.o", "drivers/b.o", "drivers/c.o"];
    let holders = [HolderName::Vmlinux, module("b"), module("c")];
    let sources: Vec<_> = names.iter().zip(holders).map(|(n, h)| source(n, h, OLD, NEW)).collect();
    let analysis = analyse(&sources);
    assert_eq!(refused(&analysis), [""; 0]);
    for pair in 0..3 {
        let calls = calls(&analysis, pair, "f");
        assert!(matches!(calls[..], [Dest::Carried(of, _, 0)] if of == PairId(pair)), "{pair}: {calls:?}");
    }
}

#[test]
fn what_is_new_in_the_kernel_is_for_modules_too_and_what_is_new_in_a_module_for_itself() {
    let uses = "extern int helper(int); int g(int x) { return helper(x) + 2; }";
    let before = "int g(int x) { return x + 1; }";
    // What is carried for the kernel is there whenever something is carried for a module.
    let sources = [source("a.o", HolderName::Vmlinux, OLD, NEW), source("b.o", module("b"), before, uses)];
    let analysis = analyse(&sources);
    assert_eq!(refused(&analysis), [""; 0]);
    assert!(matches!(calls(&analysis, 1, "g")[..], [Dest::Carried(PairId(0), _, 0)]));
    // What is carried for a module waits for that.
    let sources = [source("a.o", module("a"), OLD, NEW), source("b.o", module("b"), before, uses)];
    let found = refused(&analyse(&sources));
    assert!(found.len() == 1 && found[0].contains("LP2026") && found[0].contains("new in a"), "{found:?}");
    // To the kernel the names of modules are nothing.
    let sources = [source("a.o", HolderName::Vmlinux, before, uses), source("b.o", module("b"), OLD, NEW)];
    let analysis = analyse(&sources);
    assert_eq!(refused(&analysis), [""; 0]);
    assert!(matches!(&calls(&analysis, 0, "g")[..], [Dest::Kernel(name, 0)] if name == "helper"));
}

#[test]
fn a_function_that_another_holder_replaces_is_called_by_its_old_address() {
    let exported = "int shared(int x) { return x + 1; }";
    let changed = "int shared(int x) { return x + 2; }";
    let user = "extern int shared(int); int g(int x) { return shared(x) + 1; }";
    let other = "extern int shared(int); int g(int x) { return shared(x) + 3; }";
    let pair = |holder: HolderName| {
        [source("a.o", HolderName::Vmlinux, exported, changed), source("b.o", holder, user, other)]
    };
    let apart = analyse(&pair(module("b")));
    assert_eq!(refused(&apart), [""; 0]);
    assert!(matches!(&calls(&apart, 1, "g")[..], [Dest::Kernel(name, 0)] if name == "shared"));
    let together = analyse(&pair(HolderName::Vmlinux));
    assert!(matches!(calls(&together, 1, "g")[..], [Dest::Carried(PairId(0), _, 0)]));
}

#[test]
fn a_name_moves_within_a_holder_only() {
    let with = "int x_name(int x) { return x + 1; } int f(int x) { return x; }";
    let without = "int f(int x) { return x; }";
    let moved = |holder: HolderName| {
        let sources = [source("a.o", HolderName::Vmlinux, with, without), source("b.o", holder, without, with)];
        refused(&analyse(&sources)).iter().any(|r| r.contains("LP2022"))
    };
    assert!(moved(HolderName::Vmlinux), "of one holder it is now another object's");
    assert!(!moved(module("b")), "each holder has its own");
}

#[test]
fn exit_code_runs_in_a_module_alone() {
    let leave = |n: u32| {
        format!(
            "int f(int x) {{ return x; }} __attribute__((section(\".exit.text\"))) int leave(int x) {{ return x + {n}; }}"
        )
    };
    let changed = |holder: HolderName| analyse(&[source("a.o", holder, &leave(1), &leave(2))]);
    let kernel = changed(HolderName::Vmlinux);
    assert_eq!((refused(&kernel), kernel.pairs[0].verdicts.ignored.len()), (vec![], 1));
    let of_module = refused(&changed(module("a")));
    assert!(of_module.len() == 1 && of_module[0].contains("LP2003") && of_module[0].contains("leave"), "{of_module:?}");
}

#[test]
fn functions_of_modules_are_patched_over_other_patches_and_in_their_place() {
    let (old, new) = (work(1), work(2));
    for (after, replaces) in [(&["earlier"][..], &[][..]), (&[][..], &["earlier"][..])] {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect();
        let options = Options { after: names(after), replaces: names(replaces), ..support::options() };
        for holder in [HolderName::Vmlinux, module("a")] {
            let found = pipeline::analyse(&[source("a.o", holder, &old, &new)], &options).unwrap();
            assert_eq!(refused(&found), [""; 0]);
        }
    }
}

/// A function with room for a jump.
fn work(n: u32) -> String {
    format!("extern int take(int); int f(int x) {{ take(x); take(x + {n}); take(x * {n}); return x; }}")
}
