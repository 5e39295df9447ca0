//! `cargo xtask mutate` in small: a fixed seed on one object of the kernel. And that its comparison sees what was planted,
//! and a run fails when lpbuild misses something or reports too much.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use harness::change::Change;
use harness::mutate::answer::{self, Answer, Fault, Refusal};
use harness::mutate::random::Random;
use harness::mutate::reading::Names;
use harness::mutate::trial::Base;
use lpbuild_tests::Env;

const SOURCE: &str = "
extern int outside(int), other(int);
extern void say(const char *);
int count = 3;
static const int table[] = { 1, 2, 3, 4 };
int lookup(int i) { return table[i & 3] + LOOKUP; }
int step(int a) { static int calls; calls++; say(TEXT); return CALLED(a) + count; }
int twice(int a) { static int calls; calls += 2; return outside(a) COMPARED 7 ? calls : 0; }
int choose(int a) { switch (a) { case 0: say(\"a\"); case 1: return outside(1); case 2: return CASE; case 3: say(\"d\");
case 4: return outside(5); case 5: say(\"f\"); } return other(a); }
int shared(void) { say(TEXT); return count; }
";

/// What can be planted, as it is in the old object.
const OLD: &[(&str, &str)] =
    &[("LOOKUP", "0"), ("TEXT", "\"text\""), ("CALLED", "outside"), ("COMPARED", "<"), ("CASE", "outside(2)")];

fn compile(dir: &Path, change: Option<(&str, &str)>, source: &str) -> Vec<u8> {
    let (c, o) = (dir.join("a.c"), dir.join("a.o"));
    std::fs::write(&c, source).unwrap();
    let mut gcc = Command::new("gcc-12");
    gcc.args(["-O2", "-fdata-sections", "-mcmodel=kernel", "-fno-pic", "-ffreestanding", "-pg", "-mfentry"]);
    gcc.args(["-mno-sse", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-inline", "-fjump-tables"]);
    for (name, value) in OLD {
        let value = change.filter(|c| c.0 == *name).map_or(*value, |c| c.1);
        gcc.arg(format!("-D{name}={value}"));
    }
    assert!(gcc.args(["-c", "-o"]).arg(&o).arg(&c).status().unwrap().success());
    std::fs::read(&o).unwrap()
}

fn names<'a>(list: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a str> {
    list.into_iter().map(String::as_str).collect()
}

#[test]
fn the_comparison_sees_each_planted_change_and_lpbuild_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::of("a.o", compile(dir.path(), None, SOURCE)).unwrap();
    for (change, functions) in [
        (("LOOKUP", "1"), vec!["lookup"]),
        (("TEXT", "\"test\""), vec!["shared", "step"]),
        (("CALLED", "other"), vec!["step"]),
        (("COMPARED", "<="), vec!["twice"]),
        (("CASE", "other(9)"), vec!["choose"]),
        (("CASE", "outside(2)"), vec![]),
    ] {
        let new = compile(dir.path(), Some(change), SOURCE);
        let truth = base.difference(&new, Names::Normal).unwrap();
        assert_eq!(names(truth.functions.keys()), functions.iter().copied().collect(), "{change:?}");
        assert!(truth.data.is_empty() && truth.added.is_empty() && truth.gone.is_empty(), "{change:?}");
        let outcome = base.judged(String::new(), new, &truth, Names::Normal);
        assert_eq!(outcome.faults, [], "{change:?}");
    }
    // Data that one function alone reads, and live data.
    let new = compile(dir.path(), None, &SOURCE.replace("3, 4", "3, 5"));
    let truth = base.difference(&new, Names::Normal).unwrap();
    assert_eq!(names(truth.data.keys()), ["table"].into());
    assert_eq!(base.judged(String::new(), new, &truth, Names::Normal).faults, []);
    let new = compile(dir.path(), None, &SOURCE.replace("count = 3", "count = 4"));
    let truth = base.difference(&new, Names::Normal).unwrap();
    assert_eq!(names(truth.data.keys()), ["count"].into());
    assert_eq!(base.judged(String::new(), new, &truth, Names::Normal).faults, []);
}

#[test]
fn a_missed_change_and_a_false_one_are_faults() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::of("a.o", compile(dir.path(), None, SOURCE)).unwrap();
    let new = compile(dir.path(), Some(("CALLED", "other")), SOURCE);
    let truth = base.difference(&new, Names::Normal).unwrap();
    let kinds = |answer: &Answer| answer::judge(&truth, answer).into_iter().map(|f| f.0).collect::<Vec<_>>();
    let changed =
        |names: &[&str]| Answer { changed: names.iter().map(|n| n.to_string()).collect(), ..Answer::default() };
    assert_eq!(kinds(&changed(&["step"])), []);
    assert_eq!(kinds(&changed(&[])), [Fault::Missed]);
    assert_eq!(kinds(&changed(&["lookup", "step"])), [Fault::False]);
    let refused = |name: &str| Refusal {
        code: "LP2007".into(),
        name: Some(name.into()),
        section: None,
        text: format!("LP2007: a.o: {name}"),
    };
    assert_eq!(kinds(&Answer { refused: vec![refused("step")], ..Answer::default() }), []);
    assert_eq!(
        kinds(&Answer { refused: vec![refused("table")], ..Answer::default() }),
        [Fault::Missed, Fault::False],
        "a refusal of something else tells nothing of the change"
    );
    // A line number is an excuse for shifted lines only.
    let ignored = vec![("step".to_string(), "line number".to_string())];
    assert_eq!(kinds(&Answer { ignored, ..Answer::default() }), [Fault::Missed]);
    assert_eq!(kinds(&Answer { broken: Some("a panic".into()), ..Answer::default() }), [Fault::Missed]);
}

#[test]
fn numbers_of_a_fixed_seed_find_nothing() {
    let Some(env) = Env::find("numbers_of_a_fixed_seed_find_nothing") else { return };
    let bytes = env.tree.built("fs/pipe.o", &Change::none()).unwrap().unwrap();
    let base = Base::of("fs/pipe.o", bytes).unwrap();
    let (mut tried, mut same) = (0, 0);
    for number in 0..250 {
        let outcome = base.binary(&mut Random::of(12, number)).unwrap().expect("there is something to change");
        assert_eq!(outcome.faults, [], "mutant {number}: {}: {}", outcome.what, outcome.truth);
        tried += 1;
        same += usize::from(outcome.is_same);
    }
    assert!(tried == 250 && (5..125).contains(&same), "{same} of {tried} mutants differ in nothing");
}
