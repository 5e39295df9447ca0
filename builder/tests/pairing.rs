//! Which static variable of the new build is which old one: never the wrong one. The initial values, which pairing does not
//! look at, say which is which.

use std::collections::BTreeMap;
use std::process::Command;

use lpbuild::correlate::{self, Files, Level, NewAtom, OldAtom, Pairs};
use lpbuild::ingest;
use lpbuild::symbolize::Object;

struct Case {
    old: Object,
    new: Object,
    pairs: Pairs,
}

/// Compiles both sides (`NEW` is defined for the new one) and pairs them.
fn case(text: &str, flags: &[&str], lines_kept: bool) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let object = |define: &str| {
        std::fs::write(folder.path().join("case.c"), text).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.current_dir(folder.path()).args(["-c", "-O2", "-mcmodel=kernel", "-fno-pic", "-fno-pie", "-mno-red-zone"]);
        gcc.args(["-ffreestanding", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fdata-sections"]);
        let out = gcc.args(flags).args([define, "case.c", "-o", "case.o"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::read(folder.path().join("case.o")).unwrap()
    };
    let (a, b) = (object("-DOLD"), object("-DNEW"));
    let read = |bytes: &[u8]| Object::new(ingest::read("case.o", bytes).unwrap()).unwrap();
    let (old, new) = (read(&a), read(&b));
    let pairs = correlate::correlate_with(&old, &new, &Files::new(&a, &b, lines_kept));
    Case { old, new, pairs }
}

impl Case {
    /// The initial value of each new variable `seen`, that of the old one it is taken for, and how that was found.
    fn seen(&self) -> BTreeMap<i32, Option<(i32, Level)>> {
        let value = |object: &Object, id| i32::from_le_bytes(object.bytes(id).try_into().unwrap());
        let variables = self.new.atoms.iter().filter(|a| !a.is_code() && a.name.starts_with("seen."));
        let found = variables.map(|a| {
            let old = self.pairs.old_of(NewAtom(a.id)).map(|OldAtom(o)| value(&self.old, o));
            (value(&self.new, a.id), old.zip(self.pairs.level(NewAtom(a.id))))
        });
        found.collect()
    }

    /// Are all of these paired with themselves?
    fn kept(&self, values: &[i32], level: Level) {
        let expected: BTreeMap<_, _> = values.iter().map(|v| (*v, Some((*v, level)))).collect();
        assert_eq!(self.seen(), expected);
    }

    /// Are all of these open, and remembered as such?
    fn open(&self, values: &[i32]) {
        let expected: BTreeMap<_, _> = values.iter().map(|v| (*v, None)).collect();
        assert_eq!(self.seen(), expected);
        assert_eq!(self.pairs.ambiguous.len(), values.len());
    }
}

const HEAD: &str = "int take(long a, long b); int handle(void *p);
#ifdef NEW
#define N(old, new) new
#else
#define N(old, new) old
#endif
#define TURNS(x) __builtin_expect(!!(x), N(1, 0))
";

fn paired(body: &str) -> Case {
    case(&format!("{HEAD}{body}"), &[], false)
}

#[test]
fn blocks_that_change_places_keep_theirs() {
    let text = "int f(long n) {
        if (TURNS(n == 3)) { static int seen = 1; seen |= n; return take(n, 1); }
        if (TURNS(n == 4)) { static int seen = 2; seen ^= n; return take(n, 1) + 1; }
        if (TURNS(n == 5)) { static int seen = 3; seen |= n; return take(n, 1); }
        return handle(&n); }";
    paired(text).kept(&[1, 2, 3], Level::Reference);
}

/// The same in functions that did not change, with numbers that moved.
#[test]
fn functions_that_are_the_same_keep_theirs() {
    let text = "
        #ifdef NEW
        int a(long n) { static int seen = 9; return seen += n; }
        #endif
        int f(long n) { { static int seen = 1; seen += take(n, 1); } { static int seen = 2; seen += take(n, 1); } return 3; }
        int g(long n) { static int seen = 3; return seen += n; }";
    let case = paired(text);
    let expected = [
        (1, Some((1, Level::Reference))),
        (2, Some((2, Level::Reference))),
        (3, Some((3, Level::Reference))),
        (9, None),
    ];
    assert_eq!(case.seen(), expected.into());
    assert!(case.pairs.ambiguous.is_empty());
}

/// Two blocks exchange what they do: what is around them says one thing, what is in them the other.
#[test]
fn blocks_that_exchange_what_they_do_are_not_crossed() {
    let text = "int f(long n) {
        if (n == 3) { static int seen = 1; seen N(+=, -=) 1; return take(seen, n); }
        if (n == 4) { static int seen = 2; seen N(-=, +=) 1; return take(seen, n); }
        return 0; }";
    for (new, old) in paired(text).seen() {
        assert!(old.is_none_or(|(old, _)| old == new));
    }
    for (new, old) in case(&format!("{HEAD}{text}"), &["-g"], true).seen() {
        assert!(old.is_none_or(|(old, _)| old == new));
    }
}

#[test]
fn one_lost_and_one_gained_is_no_pair() {
    let branches = "int f(long a, long b) {
        if (a) { N(static int seen = 1; seen += 2; return take(seen, 7), return 1); }
        if (b) { N(return 1, static int seen = 2; seen += 2; return take(seen, 7)); }
        return 2; }";
    paired(branches).open(&[2]);
    let straight = "int f(long n) {
        N(static int seen = 1; seen += take(n, 1), take(n, 1));
        { N(take(n, 2), static int seen = 2; seen += take(n, 2)); }
        return 2; }";
    paired(straight).open(&[2]);
}

/// Lines that are kept tell them apart, whatever happens to the code.
#[test]
fn lines_tell_apart_what_the_code_does_not() {
    let text = "int f(long n) {
        if (take(n, 1)) { static int seen = 1; handle(&seen); seen += n N(, * 3); }
        if (take(n, 1)) { static int seen = 2; handle(&seen); seen += n N(, * 5); }
        if (n == 4) { static int seen = 3; seen N(+=, -=) n; }
        return 0; }";
    paired(text).open(&[1, 2, 3]);
    case(&format!("{HEAD}{text}"), &["-g"], true).kept(&[1, 2, 3], Level::Declared);
}

/// Where lines move, one number may be that of another declaration.
#[test]
fn lines_that_are_not_kept_are_no_evidence() {
    let text = "int f(long n) {
        #ifdef NEW
        if (take(n, 1)) { static int seen = 7; handle(&seen); seen += n * 3; }
        #line 9
        if (take(n, 1)) { static int seen = 1; handle(&seen); seen += n * 3; }
        #else
        #line 9
        if (take(n, 1)) { static int seen = 2; handle(&seen); seen += n * 2; }
        if (take(n, 1)) { static int seen = 1; handle(&seen); seen += n * 2; }
        #endif
        return 0; }";
    case(&format!("{HEAD}{text}"), &["-g"], false).open(&[1, 7]);
}

/// Variables of functions that are not the same are no pair; but the one may have moved to the other.
#[test]
fn debug_information_keeps_functions_apart() {
    let text = "N(int f(long n) { static int seen = 1; return take(seen += n, 1); },
        int g(long n) { static int seen = 1; return take(seen += n, 1); })
        int h(long n) { return take(n, 3); }";
    let without = paired(text);
    without.open(&[1]);
    let with = case(&format!("{HEAD}{text}"), &["-g"], true);
    assert_eq!(with.seen(), [(1, None)].into());
    assert_eq!((with.pairs.ambiguous.len(), with.pairs.instead_of.len()), (1, 1));
}

/// An alias takes neither its function nor its variable along.
#[test]
fn names_that_move_leave_the_function_where_it_is() {
    let text = "int long_one(long n) { return take(n, 1) + N(1, 3); }
        int long_two(long n) { return take(n, 2) + 2; }
        int f(long n) __attribute__((alias(N(\"long_one\", \"long_two\"))));
        int v1[2] = { 1, 2 }, v2[2] = { 3, 4 };
        extern int v[2] __attribute__((alias(N(\"v1\", \"v2\"))));
        int own_body(long n) N({ return take(n, 5); }, __attribute__((alias(\"long_two\"))));";
    let case = paired(text);
    for name in ["long_one", "long_two", "v1", "v2"] {
        let (o, n) = (case.old.named(name).unwrap(), case.new.named(name).unwrap());
        assert_eq!(case.pairs.new_of(OldAtom(o)), Some(NewAtom(n)), "{name}");
    }
    assert_eq!(case.pairs.new_of(OldAtom(case.old.named("own_body").unwrap())), None);
}
