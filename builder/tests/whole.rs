//! Small images linked as kernels are: what counts as changed with and without relocations, in another order, per-CPU
//! variables, constants; and damage of any kind, which must never be more than an error.

mod support;

use std::path::PathBuf;

use lpbuild::whole::{Backing, Proof};
use support::{analyse, changed, compile, link, try_analyse};
use tempfile::TempDir;

const SCRIPT: &str = r#"
SECTIONS {
    . = 0xffffffff81000000;
    .text : { _text = .; *(.text .text.*) _etext = .; }
    . = ALIGN(4096);
    .rodata : { *(.rodata .rodata.*) __start___jump_table = .; KEEP(*(__jump_table)) __stop___jump_table = .; }
    . = ALIGN(4096);
    .data : { *(.data .data.*) }
    .data..percpu 0 : AT(ADDR(.data) + SIZEOF(.data)) { . = . + 0x1000; *(.percpu) }
    . = ADDR(.data) + SIZEOF(.data) + 0x2000;
    .bss : { *(.bss) }
    _end = .;
}
"#;

const FIRST: &str = r#"
#define percpu __attribute__((section(".percpu")))
typedef unsigned long u64;
extern int shared, twice(int);
static int counter;
static const char *const names[] = { "one", "two", "three" };
unsigned long this_cpu_off percpu;
int own percpu;
int other percpu;
static const struct { int a, b; } table[] = { { 1, 2 }, { 3, LAST } };
int total(int i) { counter += table[i].a * table[i].b; return counter; }
const char *name(int i) { return names[i & 3]; }
int say(const char *s);
int hello(void) { return say("hello, " WORLD); }
int both(void) { return twice(shared) + 1; }
u64 mine(void) { u64 at; asm("mov $own, %0\n\tadd %%gs:this_cpu_off, %0" : "=r"(at)); return at; }
__attribute__((noinline)) static int quiet(int x) { return x * FACTOR; }
int loud(int x) { return quiet(x) + quiet(x + 1); }
"#;

const SECOND: &str = r#"
int shared = 7;
#ifdef MORE
int more(int x) { return x * x + 17; }
int gap[64];
#endif
__attribute__((noinline)) int twice(int x) { return x * 2 + shared; }
int say(const char *s) { return s[shared]; }
static int counter = 5;
int count(void) { return counter++; }
"#;

struct Case {
    folder: TempDir,
}

/// How an image is made.
#[derive(Clone, Copy)]
struct How<'a> {
    defines: &'a [&'a str],
    relocations: bool,
    reversed: bool,
}

const PLAIN: How<'_> = How { defines: &[], relocations: false, reversed: false };

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let case = Self { folder };
        for (name, text) in [("k.lds", SCRIPT), ("first.c", FIRST), ("second.c", SECOND)] {
            std::fs::write(case.path(name), text).unwrap();
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, name: &str, how: How<'_>) -> PathBuf {
        let folder = self.folder.path();
        let defined = |n: &str| how.defines.iter().any(|d| d.starts_with(n));
        let mut defines: Vec<String> = how.defines.iter().map(|d| format!("-D{d}")).collect();
        for (define, value) in [("LAST", "4"), ("WORLD", "\"world\""), ("FACTOR", "3")] {
            if !defined(define) {
                defines.push(format!("-D{define}={value}"));
            }
        }
        for source in ["first", "second"] {
            compile(folder, &format!("{source}.c"), &format!("{source}.o"), &defines);
        }
        let mut objects = ["first.o".to_owned(), "second.o".to_owned()];
        if how.reversed {
            objects.reverse();
        }
        link(folder, name, &objects, how.relocations)
    }
}

#[test]
fn the_same_answer_with_and_without_relocations() {
    let case = Case::new();
    for relocations in [false, true] {
        let old = case.image("old", How { relocations, ..PLAIN });
        let backing = Backing::open(&old).unwrap();
        let expected = if relocations { Proof::All } else { Proof::None };
        assert_eq!(backing.whole().unwrap().proof, expected, "otherwise this test compares nothing");
        for (define, names) in [
            ("WORLD=\"moon\"", &["hello"][..]),
            ("FACTOR=5", &["quiet"]),
            // Only the table differs: the function has to bring it along.
            ("LAST=9", &["total"]),
            // Everything moves, nothing changes.
            ("MORE", &[]),
        ] {
            let new = case.image("new", How { defines: &[define], relocations, reversed: false });
            let analysis = analyse(&old, &new);
            assert_eq!(changed(&analysis), names, "{define}, relocations: {relocations}");
            // A table reached through an index may be the one behind it: carrying it needs -fdata-sections.
            let allowed = match define {
                "LAST=9" => "LP2008",
                // The new text goes to a function that may sleep, by a jump.
                _ if define.starts_with("WORLD") => "LP2021",
                _ => "",
            };
            assert!(analysis.refused.iter().all(|p| p.code.id == allowed), "{define}: {:?}", analysis.refused);
        }
    }
}

#[test]
fn another_order_of_the_objects_changes_nothing() {
    let case = Case::new();
    for relocations in [false, true] {
        let old = case.image("old", How { relocations, ..PLAIN });
        let new = case.image("new", How { relocations, reversed: true, ..PLAIN });
        assert_ne!(std::fs::read(&old).unwrap(), std::fs::read(&new).unwrap());
        let analysis = analyse(&old, &new);
        assert!(analysis.set.items.is_empty() && analysis.refused.is_empty(), "{:?}", analysis.refused);
        let summary = analysis.summary.unwrap();
        assert!(summary.total.moved > 0 && summary.total.changed == 0, "{summary:?}");
    }
}

/// Two files have a static `counter`: the new code must get the one of its own file.
#[test]
fn duplicate_names_are_told_apart_by_their_file() {
    let case = Case::new();
    let old = case.image("old", PLAIN);
    let text = SECOND.replace("return counter++;", "return counter += 3;");
    std::fs::write(case.path("second.c"), text).unwrap();
    let new = case.image("new", How { reversed: true, ..PLAIN });
    let analysis = analyse(&old, &new);
    assert_eq!(changed(&analysis), ["count"]);
    let pair = &analysis.pairs[0];
    let edges = &analysis.set.items[0].edges;
    let lpbuild::plan::Dest::Old(_, atom, 0) = edges[0].dest else { panic!("{edges:?}") };
    assert_eq!(pair.old.atom(atom.0).name, "counter");
    assert_eq!(pair.old.source_of(atom.0), Some("second.c"));
}

/// A per-CPU variable that moves changes the number in `mine`, and that number is the address it is.
#[test]
fn per_cpu_variables_are_addresses_where_the_instruction_says_so() {
    let case = Case::new();
    for relocations in [false, true] {
        let old = case.image("old", How { relocations, ..PLAIN });
        std::fs::write(
            case.path("first.c"),
            FIRST.replace("int other percpu;", "int other percpu; long before[4] percpu;"),
        )
        .unwrap();
        let new = case.image("new", How { relocations, ..PLAIN });
        std::fs::write(case.path("first.c"), FIRST).unwrap();
        let analysis = analyse(&old, &new);
        assert_eq!(changed(&analysis), [""; 0], "relocations: {relocations}");
    }
}

/// Without relocations, a number that is the offset of a per-CPU variable may be one, in a function that computes with such.
#[test]
fn numbers_that_may_be_addresses_are_refused() {
    let case = Case::new();
    let numbers = |add: u32| {
        FIRST.replace(
            "mov $own, %0\\n\\tadd %%gs:this_cpu_off, %0",
            &format!("xor %0, %0\\n\\tadd %%gs:this_cpu_off, %0\\n\\tadd $other, %0\\n\\tadd ${add}, %0"),
        )
    };
    std::fs::write(case.path("first.c"), numbers(1)).unwrap();
    let old = case.image("old", PLAIN);
    let moved = numbers(2).replace("int other percpu;", "int other percpu; long before[4] percpu;");
    std::fs::write(case.path("first.c"), moved).unwrap();
    let new = case.image("new", PLAIN);
    let analysis = analyse(&old, &new);
    assert_eq!(changed(&analysis), ["mine"]);
    let codes: Vec<&str> = analysis.refused.iter().map(|p| p.code.id).collect();
    assert_eq!(codes, ["LP2016"]);
    // With relocations it is known.
    let old = case.image("old", How { relocations: true, ..PLAIN });
    assert_eq!(changed(&analyse(&old, &case.image("new", How { relocations: true, ..PLAIN }))), [""; 0]);
}

#[test]
fn damage_is_an_error_and_never_more() {
    let case = Case::new();
    let old = case.image("old", How { relocations: true, ..PLAIN });
    let good =
        std::fs::read(case.image("new", How { defines: &["FACTOR=5"], relocations: true, reversed: true })).unwrap();
    let bad = case.path("bad");
    // The same places every time: a small generator of numbers.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut errors, mut read) = (0, 0);
    for round in 0..600 {
        let mut bytes = good.clone();
        match round % 3 {
            0 => bytes.truncate(next(good.len())),
            1 => {
                let at = next(good.len());
                bytes[at] = next(256) as u8;
            }
            // Headers, symbols and relocations are at both ends.
            _ => {
                let end = if next(2) == 0 { 0 } else { good.len() - 4096 };
                for _ in 0..8 {
                    let at = end + next(4096.min(good.len()));
                    bytes[at] = next(256) as u8;
                }
            }
        }
        std::fs::write(&bad, &bytes).unwrap();
        match (try_analyse(&old, &bad), try_analyse(&bad, &old)) {
            (Err(_), _) | (_, Err(_)) => errors += 1,
            _ => read += 1,
        }
    }
    assert!(errors > 100 && read > 100, "{errors} errors, {read} read: the damage is too much or too little");
}
