//! Whole images: differences that hide where no symbol is, behind numbers that look like distances, and in strings that are
//! none.

mod support;

use lpbuild::plan::Analysis;
use support::{SCRIPT, analyse, both, changed, codes, image, image_by, pair};

/// 16 and 20 bytes behind `limit` there is padding: that makes neither of them a distance.
#[test]
fn a_number_that_reads_as_a_distance_to_padding_is_a_number() {
    let text = r#"
        int limit = 16;
        long list[8] __attribute__((aligned(64))) = { 1, 2, 3 };
        int get(int i) { return i < limit ? list[i] : 0; }
    "#;
    for relocations in [true, false] {
        let analysis = both(text, "limit = 16", "limit = 20", relocations);
        assert_eq!(codes(&analysis), ["LP2001"], "relocations: {relocations}");
    }
}

/// Assembly names its tables without type and size.
#[test]
fn tables_of_assembly_are_compared_by_content() {
    let text = r#"
        asm(".pushsection .rodata\n.balign 16\nK256: .quad 11, 12, 13, 14\n.popsection");
        long rounds(int i) { const long *at; asm("lea K256(%%rip), %0" : "=r"(at)); return at[i]; }
        long third(void) { long x; asm("mov K256+16(%%rip), %0" : "=r"(x)); return x; }
    "#;
    for relocations in [true, false] {
        let analysis = both(text, "11, 12", "11, 19", relocations);
        assert_eq!(changed(&analysis), ["rounds"], "relocations: {relocations}");
        assert_eq!(codes(&analysis), [""; 0], "relocations: {relocations}");
        assert!(analysis.set.items.len() > 1, "the table comes along");
    }
}

/// The compiler copies a variable's initial value from a constant without a name; that it begins as a string does not make
/// it one.
const INITIAL: &str = r#"
    struct s { char name[8]; int v[40]; };
    void use(struct s *s);
    void fill(void) {
        struct s x = { NAME, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
            27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 700 } };
        use(&x);
    }
    __attribute__((noinline)) void use(struct s *s) { asm volatile("" :: "r"(s) : "memory"); }
"#;

/// What `fill` and its constant became, with more or less text in front of the numbers.
fn initial(from: &str, to: &str) {
    for name in ["{ 0 }", "\"a\"", "\"abcdefg\""] {
        for relocations in [true, false] {
            let analysis = both(&INITIAL.replace("NAME", name), from, to, relocations);
            assert_eq!(changed(&analysis), ["fill"], "{name}, relocations: {relocations}");
            let atoms = analysis.set.items.iter().map(|i| analysis.pairs[0].new.atom(i.atom.0));
            let bytes: u64 = atoms.filter(|a| !a.is_code()).map(|a| a.size()).sum();
            assert!(bytes >= 168, "{bytes} bytes of constants for {name}, relocations: {relocations}");
        }
    }
}

#[test]
fn what_is_behind_the_text_of_a_constant_counts() {
    initial("700", "800");
}

#[test]
fn a_constant_that_begins_with_text_is_carried_whole() {
    initial("700 } };", "800 } }; use(&x);");
}

/// A table of pointers without a name, where every byte of an address could be text, and a field of a constant that is read
/// alone: what they point to has moved.
#[test]
fn pointers_without_a_name_are_compared_by_what_they_point_to() {
    let text = r#"
        asm(".pushsection .rodata.a\n.balign 8\n.Ltable: .quad .Lone, .Ltwo, .Lone\n.Lpair: .quad 3, .Ltwo\n.popsection");
        asm(".pushsection .rodata.b\n.balign 64\n.skip 48, 1\n/* MORE */.Lone: .asciz \"one\"\n.Ltwo: .asciz \"two\"\n.popsection");
        const char *pick(long i) { const char *s; asm("mov .Ltable(,%1,8), %0" : "=r"(s) : "r"(i)); return s; }
        const char *second(void) { const char *s; asm("mov .Lpair+8(%%rip), %0" : "=r"(s)); return s; }
        int other(int x) { return x * 3; }
    "#;
    let script =
        SCRIPT.replace("0xffffffff81000000", "0xffffffff8181c000").replace("*(.rodata .rodata.*)", "*(.rodata.*)");
    for relocations in [true, false] {
        let analysis = |from: &str, to: &str| {
            let folder = tempfile::tempdir().unwrap();
            let [old, new] = [("old", text.to_owned()), ("new", text.replace(from, to))]
                .map(|(name, text)| image_by(&script, &folder, name, &text, relocations));
            changed(&analyse(&old, &new))
        };
        assert_eq!(analysis("/* MORE */", ".skip 16, 1\\n"), [""; 0], "relocations: {relocations}");
        assert_eq!(analysis("x * 3", "x * 5"), ["other"], "relocations: {relocations}");
        assert_eq!(
            analysis(".Lone: .asciz", ".Lone: .asciz \\\"a\\\"\\n.asciz"),
            ["pick"],
            "relocations: {relocations}"
        );
        assert_eq!(analysis("\\\"two", "\\\"too"), ["pick", "second"], "relocations: {relocations}");
    }
}

/// Nameless data that points to itself.
#[test]
fn circles_of_constants_end() {
    let text = r#"
        asm(".pushsection .rodata\n.balign 256\n.Lring: .quad .Lnext, 5\n.Lnext: .quad .Lring, NUMBER\n.popsection");
        const void *ring(void) { const void *at; asm("mov $.Lring, %0" : "=r"(at)); return at; }
        int other(int x) { return x * FACTOR; }
    "#;
    let text = text.replace("FACTOR", "3");
    for relocations in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let old = image(&folder, "old", &text.replace("NUMBER", "6"), relocations);
        let same = image(
            &folder,
            "same",
            &text.replace("NUMBER", "6").replace("int other", "int more;int other"),
            relocations,
        );
        assert_eq!(changed(&analyse(&old, &same)), [""; 0]);
        let new = image(&folder, "new", &text.replace("NUMBER", "7"), relocations);
        assert_eq!(changed(&analyse(&old, &new)), ["ring"], "relocations: {relocations}");
    }
}

/// Old and new image of functions of which one has another name and meaning in the new one.
fn renamed(text: &str, relocations: bool) -> Analysis {
    pair(text, &text.replace("one", "two").replace("17", "19"), relocations)
}

/// Replacement instructions that call what took the place of something else.
#[test]
fn replacements_that_lead_to_the_same_distance_lead_to_something() {
    let text = r#"
        int zero(void) { return 0; }
        __attribute__((noinline)) int one(int x) { return x * 17; }
        int site(int x) {
            asm volatile("661:\n\t.byte 0x0f, 0x1f, 0x44, 0, 0\n662:\n"
                ".pushsection .altinstructions,\"a\"\n\t.long 661b - ., 663f - .\n\t.word 5, 0\n\t.byte 5, 5\n\t.popsection\n"
                ".pushsection .altinstr_replacement,\"ax\"\n663:\tcall one\n\t.popsection" : "+r"(x));
            return x;
        }
    "#;
    for relocations in [true, false] {
        assert_eq!(changed(&renamed(text, relocations)), ["site"], "relocations: {relocations}");
    }
}

/// The first function of a section is where the linker script has a name.
#[test]
fn a_call_of_the_first_function_is_no_call_of_the_section() {
    let text = r#"
        __attribute__((noinline)) int one(int x) { return x * 17; }
        int caller(int x) { return one(x) + 1; }
    "#;
    for relocations in [true, false] {
        assert_eq!(changed(&renamed(text, relocations)), ["caller"], "relocations: {relocations}");
    }
}

/// Labels of assembly in writable data are known by name only; two files may have the same.
#[test]
fn labels_of_one_name_are_not_mixed_up() {
    let text = r#"
        asm(".pushsection .data\n.balign 8\nslot: .quad 1\n.popsection");
        long first(void) { long x; asm volatile("mov slot(%%rip), %0" : "=r"(x)); return x + FIRST; }
        //NEXT
        asm(".pushsection .data\n.balign 8\nslot: .quad 2\n.popsection");
        long second(void) { long x; asm volatile("mov slot(%%rip), %0" : "=r"(x)); return x + SECOND; }
    "#;
    let text = text.replace("FIRST", "1000");
    for relocations in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let old = image(&folder, "old", &text.replace("SECOND", "2000"), relocations);
        let new = image(&folder, "new", &text.replace("1000", "1001").replace("SECOND", "2001"), relocations);
        let analysis = analyse(&old, &new);
        assert_eq!(changed(&analysis), ["first", "second"]);
        let names: std::collections::BTreeSet<_> =
            analysis.set.items.iter().flat_map(|i| &i.edges).map(|e| e.dest.clone()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

/// Assembly registers without a symbol (`_ASM_NOKPROBE`).
#[test]
fn entries_of_lists_count_without_a_name() {
    let text = r#"
        int one(int x) { return x * 17; }
        int two(int x) { return x * 19; }
        asm(".pushsection _kprobe_blacklist,\"aw\"\n.quad one\n.popsection");
        int MORE;
    "#;
    for relocations in [true, false] {
        for (from, to, expected) in
            [("quad one", "quad one, two", 1), ("quad one", "quad two", 1), ("MORE;", "MORE; int more[99];", 0)]
        {
            let analysis = both(text, from, to, relocations);
            assert_eq!(codes(&analysis), vec!["LP2005"; expected], "{to}, relocations: {relocations}");
        }
    }
}
