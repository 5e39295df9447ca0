//! Whole images: what a wrong or a missing pair would do to the state of a running kernel. Variables of one name, numbers
//! that have a name, and what assembly names without saying that it is an object.

mod support;

use std::collections::BTreeSet;

use support::{both, changed, codes, pair};

/// Two variables of one name in a function that changed: which is which is a guess.
#[test]
fn variables_told_apart_by_order_are_not_bound() {
    let one = "int f(int x) { static int n; n += x; return n * 3; }
        int g(int x) { static int n; n -= x; return n * 5; }";
    let two = "int f(int x) { int y; { static int n; n += x; y = n; } { static int n; n -= x; y ^= n; } return y * 7; }
        int g(int x) { return x * 5; }";
    for relocations in [true, false] {
        let analysis = pair(one, two, relocations);
        assert_eq!(changed(&analysis), ["f", "g"], "relocations: {relocations}");
        let codes: BTreeSet<&str> = codes(&analysis).into_iter().collect();
        assert_eq!(codes, BTreeSet::from(["LP2006"]), "relocations: {relocations}");
    }
}

/// A function of the same size that uses two variables of one name the other way round.
#[test]
fn variables_that_changed_places_in_a_function_of_the_same_size_are_not_bound() {
    let text = "int f(int x) { int *p, *q; { static int n; p = &n; } { static int n; q = &n; } *p += x; *q -= 3; return *p * *q; }";
    let other = text.replace("*p += x; *q -= 3", "*q += x; *p -= 3");
    for relocations in [true, false] {
        let analysis = pair(text, &other, relocations);
        if !changed(&analysis).is_empty() {
            let codes: BTreeSet<&str> = codes(&analysis).into_iter().collect();
            assert_eq!(codes, BTreeSet::from(["LP2006"]), "relocations: {relocations}");
        }
        // The same where a number beside them changed: the order is all there is.
        let analysis = both(text, "-= 3", "-= 5", relocations);
        let codes: BTreeSet<&str> = codes(&analysis).into_iter().collect();
        assert_eq!(codes, BTreeSet::from(["LP2006"]), "relocations: {relocations}");
    }
}

/// One function loses its variable, another gets one of the same name: it begins with what the first has left there.
#[test]
fn a_variable_of_another_function_is_not_bound() {
    let one = "int f(int x) { static int n; n += x; return n * 3; }
        int g(int x) { return x * 5; }";
    let two = "int f(int x) { return x * 3; }
        int g(int x) { static int n; n -= x; return n * 5; }";
    for relocations in [true, false] {
        let analysis = pair(one, two, relocations);
        assert_eq!(changed(&analysis), ["f", "g"], "relocations: {relocations}");
        assert!(codes(&analysis).contains(&"LP2006"), "relocations: {relocations}");
    }
}

/// The same where both functions that use them are the same: nothing is carried, and nothing is refused. Where only
/// messages depend on them, nothing is refused either.
#[test]
fn variables_told_apart_by_who_uses_them_are_bound() {
    let text = "int f(int x) { static int n; n += x; return n * 3; }
        int g(int x) { static int n; n -= x; return n * 5; }
        int h(int x) { { static int _rs; _rs += x; } { static int _rs; _rs -= x; } return x * FACTOR; }";
    let text = text.replace("FACTOR", "11");
    for relocations in [true, false] {
        let analysis = both(&text, "n * 5", "n * 6", relocations);
        assert_eq!((changed(&analysis), codes(&analysis)), (vec!["g".into()], vec![]), "relocations: {relocations}");
        let analysis = both(&text, "x * 11", "x * 13", relocations);
        assert_eq!((changed(&analysis), codes(&analysis)), (vec!["h".into()], vec![]), "relocations: {relocations}");
    }
}

/// `NAME = 17` in assembly: whoever uses the name uses the number.
#[test]
fn a_number_with_a_name_is_the_number() {
    let text = r#"
        extern char LIMIT[];
        long limit(void) { return (long)LIMIT; }
        long other(void) { return 3; }
        //NEXT
        asm(".globl LIMIT\nLIMIT = NUMBER");
    "#;
    for relocations in [true, false] {
        for (old, new) in [("17", "18"), ("0xffffffffa0000000", "0xffffffffa0000010")] {
            let text = text.replace("NUMBER", old);
            let analysis = both(&text, old, new, relocations);
            assert_eq!(changed(&analysis), ["limit"], "{old} became {new}, relocations: {relocations}");
            let analysis = both(&text, "return 3", "return 4", relocations);
            assert_eq!(changed(&analysis), ["other"], "{old}, relocations: {relocations}");
        }
    }
}

/// The initial value of what assembly names in writable data, and a template of code it names for other files.
#[test]
fn labels_without_type_are_compared() {
    let text = r#"
        int one(int x) { return x * 17; }
        int two(int x) { return x * 19; }
        asm(".pushsection .data\n.balign 8\nslot: .quad 1, one\nnext: .quad 5\n.popsection");
        asm(".pushsection .rodata\n.globl template\ntemplate: nop\ncall one\nret\n.popsection");
        long get(void) { long x; asm volatile("mov slot(%%rip), %0" : "=r"(x)); return x; }
        extern const char template[];
        const char *code(void) { return template; }
        int MORE;
    "#;
    for relocations in [true, false] {
        for (from, to, expected) in [
            (".quad 1, one", ".quad 2, one", 1),
            (".quad 1, one", ".quad 1, two", 1),
            (".quad 1, one\\nnext:", ".quad 1, one, 3\\nnext:", 1),
            (".quad 5", ".quad 6", 1),
            ("call one", "call two", 1),
            ("nop", "cld", 1),
            // Everything moves.
            ("int one", "int more(int x) { return x * 23; }\nint one", 0),
            ("int MORE;", "int MORE; int more[99] = { 1 };", 0),
        ] {
            let analysis = both(text, from, to, relocations);
            assert_eq!(codes(&analysis), vec!["LP2001"; expected], "{to}, relocations: {relocations}");
            assert_eq!(changed(&analysis), [""; 0], "{to}, relocations: {relocations}");
        }
    }
}

/// What `BTF_ID_FLAGS` makes: numbers of types and flags, sorted by the numbers. Only the flags mean something.
#[test]
fn flags_of_kernel_functions_are_compared() {
    let text = r#"
        int one(int x) { return x * 17; }
        asm(".pushsection .BTF_ids,\"a\"\n.balign 4\n__BTF_ID__set8__them: .long 2, 0, 71, 4, 95, 1\n"
            ".size __BTF_ID__set8__them, .-__BTF_ID__set8__them\n.popsection");
    "#;
    for (from, to, expected) in [
        ("71, 4, 95, 1", "81, 1, 85, 4", 0),
        ("71, 4, 95, 1", "71, 4, 95, 9", 1),
        ("2, 0, 71, 4, 95, 1", "3, 0, 71, 4, 95, 1, 99, 4", 1),
    ] {
        let analysis = both(text, from, to, true);
        assert_eq!(codes(&analysis), vec!["LP2023"; expected], "{to}");
    }
}

/// The byte before a label is where that label is, also if there are two of that name.
#[test]
fn places_before_labels_of_one_name_are_not_mixed_up() {
    let text = r#"
        asm(".pushsection .data\n.balign 64\nslot: .quad 1\n.popsection");
        char *first(void) { char *at; asm volatile("lea slot-1(%%rip), %0" : "=r"(at)); return at + FIRST; }
        //NEXT
        asm(".pushsection .data\n.balign 64\nslot: .quad 2\n.popsection");
        char *second(void) { char *at; asm volatile("lea slot-1(%%rip), %0" : "=r"(at)); return at + SECOND; }
    "#;
    let text = text.replace("FIRST", "1000");
    for relocations in [true, false] {
        let (old, new) = (text.replace("SECOND", "2000"), text.replace("1000", "1001").replace("SECOND", "2001"));
        let analysis = pair(&old, &new, relocations);
        assert_eq!(changed(&analysis), ["first", "second"]);
        let places: BTreeSet<_> =
            analysis.set.items.iter().flat_map(|i| &i.edges).map(|e| format!("{:?}", e.dest)).collect();
        assert_eq!(places.len(), 2, "{places:?}");
    }
}

/// The replacement of an alternative holds an absolute address that stays the same while what is there does not.
#[test]
fn absolute_addresses_in_replacements_mean_what_is_there() {
    let text = r#"
        __attribute__((aligned(64))) long one[8] = { 1 };
        __attribute__((aligned(64))) long other[8] = { 2 };
        long site(void) {
            long x;
            asm volatile("661:\n\t.byte 0x0f, 0x1f, 0x80, 0, 0, 0, 0\n662:\n"
                ".pushsection .altinstructions,\"a\"\n\t.long 661b - ., 663f - .\n\t.word 5, 0\n\t.byte 7, 7\n\t.popsection\n"
                ".pushsection .altinstr_replacement,\"ax\"\n663:\tmov $one, %0\n\t.popsection" : "=a"(x));
            return x;
        }
    "#;
    // The two change places, and names.
    let new = text.replace("mov $one", "mov $THIS").replace("one[8] = { 1 }", "tmp[8] = { 2 }");
    let new = new.replace("other[8] = { 2 }", "one[8] = { 1 }").replace("tmp[8]", "other[8]").replace("THIS", "other");
    for relocations in [true, false] {
        assert_eq!(changed(&pair(text, &new, relocations)), ["site"], "relocations: {relocations}");
    }
}
