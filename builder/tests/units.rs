//! Which changes of a header a source is concerned by, told behind gcc's own preprocessor: what mentions nothing of a change by its
//! words in the source text, and yet comes out otherwise, and the other way round.

use std::fs;
use std::path::Path;
use std::process::Command;

use lpbuild::source::unit;

fn preprocessed(dir: &Path, header: &str, source: &str) -> Vec<u8> {
    fs::write(dir.join("h.h"), header).unwrap();
    fs::write(dir.join("s.c"), source).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-E", "-P", "-Wno-builtin-macro-redefined", "-D__COUNTER__=0", "s.c"]).current_dir(dir);
    let out = gcc.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Whether a source that includes a header is concerned when that changes.
fn concerned(old: &str, new: &str, source: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    unit::differs(&preprocessed(dir.path(), old, source), &preprocessed(dir.path(), new, source))
}

#[test]
fn a_source_that_comes_out_otherwise_is_concerned_however_it_gets_there() {
    for (what, old, new, source) in [
        (
            "a condition of another header asks for a name that is new",
            "\n",
            "#define HAVE_X 1\n",
            "#include \"h.h\"\n#ifdef HAVE_X\nint x;\n#endif\nint code(void) { return 1; }\n",
        ),
        (
            "a condition compares with a value",
            "#define LEVEL 1\n",
            "#define LEVEL 2\n",
            "#include \"h.h\"\n#define AT_LEAST(n) (LEVEL >= n)\nint code(void) {\n#if AT_LEAST(2)\nreturn 2;\n#endif\nreturn 1; }\n",
        ),
        (
            "the source glues the name together",
            "static inline int get_tag(void) { return 1; }\n",
            "static inline int get_tag(void) { return 2; }\n",
            "#include \"h.h\"\n#define GET(x) get_##x()\nint code(void) { return GET(tag); }\n",
        ),
        (
            "in three steps",
            "static inline int get_the_tag(void) { return 1; }\n",
            "static inline int get_the_tag(void) { return 2; }\n",
            "#include \"h.h\"\n#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nint code(void) { return Q(Q(g, et_), Q(the, _tag))(); }\n",
        ),
        (
            "a macro gives another name to what is defined",
            "#define get real_get\nstatic inline int get(void) { return 1; }\n#undef get\n",
            "#define get real_get\nstatic inline int get(void) { return 2; }\n#undef get\n",
            "#include \"h.h\"\nint code(void) { return real_get(); }\n",
        ),
        (
            "a macro in small letters defines a function",
            "#define build(x, n) static inline int x(void) { return n; }\nbuild(read_it, 1)\n",
            "#define build(x, n) static inline int x(void) { return n; }\nbuild(read_it, 2)\n",
            "#include \"h.h\"\nint code(void) { return read_it(); }\n",
        ),
        (
            "a macro in small letters defines a variable",
            "#define holds(x, n) int x = n;\nholds(it, 1)\n",
            "#define holds(x, n) int x = n;\nholds(it, 2)\n",
            "#include \"h.h\"\n",
        ),
        (
            "the file that is included is computed",
            "#define WHICH \"stddef.h\"\n",
            "#define WHICH \"stdarg.h\"\n",
            "#include \"h.h\"\n#include WHICH\nint code(void) { return sizeof(__builtin_va_list); }\n#ifdef va_arg\nint more;\n#endif\n",
        ),
        (
            "a macro of assembly",
            "asm(\".macro m\\nnop\\n.endm\");\n",
            "asm(\".macro m\\nud2\\n.endm\");\n",
            "#include \"h.h\"\nint code(void) { asm(\"m\"); return 1; }\n",
        ),
        (
            "a type by way of a member of another",
            "struct in { int a; };\n",
            "struct in { long a; };\n",
            "#include \"h.h\"\nstruct out { struct in in; };\nextern struct out *get(void);\nlong code(void) { return get()->in.a; }\n",
        ),
        (
            "an enumerator in front of another",
            "enum { A, B };\n",
            "enum { A, N, B };\n",
            "#include \"h.h\"\nint code(void) { return B; }\n",
        ),
        (
            "an attribute of a declaration",
            "extern int f(void);\n",
            "extern int f(void) __attribute__((noreturn));\n",
            "#include \"h.h\"\nint code(void) { return f(); }\n",
        ),
        (
            "alignment of all types that follow",
            "\n",
            "#pragma pack(1)\n",
            "#include \"h.h\"\nstruct s { char a; int b; } s;\n",
        ),
        (
            "a declaration where there was none",
            "\n",
            "#define f(x) g(x)\nint g(int);\n",
            "#include \"h.h\"\nint f(int);\nint code(void) { return f(1); }\n",
        ),
    ] {
        assert!(concerned(old, new, source), "{what}");
    }
}

#[test]
fn a_source_that_comes_out_the_same_is_not() {
    let source = "#include \"h.h\"\n#define GET(x) get_##x()\nstatic inline int get_tag(void) { return tag(); }\n\
                  #define UNIQUE_(n) unique_##n\n#define UNIQUE(n) UNIQUE_(n)\n\
                  int code(void) { return FLAG + __LINE__; }\nstatic int UNIQUE(__COUNTER__) = 1;\n";
    let old = "#define FLAG 1\n#define UNUSED 1\nextern int tag(void);\nstruct a { int a; };\n\
               static inline int f(struct a *a) { return a->a; }\n";
    for (what, new) in [
        ("comments and white space", old.replace(' ', "  /* more */ ")),
        ("a macro nobody expands", old.replace("UNUSED 1", "UNUSED 2")),
        ("a declaration only of what nobody uses", old.replace("int tag(void)", "int tag(int)")),
        ("a type only of what nobody uses", old.replace("{ int a; }", "{ long b, a; }")),
        ("a function nobody calls", old.replace("a->a; }", "a->a + __COUNTER__; }")),
        ("more of all kinds", format!("{old}#define MORE 1\nstruct more; extern int more(void);\nenum {{ K }};\n")),
    ] {
        assert!(!concerned(old, &new, source), "{what}");
    }
    assert!(concerned(old, &old.replace("FLAG 1", "FLAG 2"), source));
}
