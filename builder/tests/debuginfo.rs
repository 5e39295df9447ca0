//! Debug information of small C programs, as gcc makes it: linked and relocatable, with and without `.debug_aranges`, packed.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use lpbuild::debuginfo::{DebugInfo, TypeChange, User, changed_types};
use object::{Object, ObjectSection, ObjectSymbol};
use support::run;
use tempfile::TempDir;

/// A folder with compiled files.
struct Case {
    folder: TempDir,
}

/// One compiled file.
struct Built {
    bytes: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compiles `text` as `name`, in the folder.
    fn build(&self, name: &str, text: &str, options: &[&str]) -> Built {
        let source = self.path(name);
        std::fs::create_dir_all(source.parent().unwrap()).unwrap();
        std::fs::write(&source, text).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.current_dir(self.folder.path()).args(["-g", "-O2", "-fno-pie", "-no-pie", "-nostdlib", "-Wl,-e,entry"]);
        run(gcc.args(options).args(["-o", "out", name]));
        Built { bytes: std::fs::read(self.path("out")).unwrap() }
    }

    fn objcopy(&self, built: &Built, options: &[&str]) -> Built {
        std::fs::write(self.path("in"), &built.bytes).unwrap();
        run(Command::new("objcopy").current_dir(self.folder.path()).args(options).args(["in", "copy"]));
        Built { bytes: std::fs::read(self.path("copy")).unwrap() }
    }
}

impl Built {
    /// Address of a symbol; of a relocatable file the address [`place`] gives it.
    fn address(&self, name: &str) -> u64 {
        let file = object::File::parse(&*self.bytes).unwrap();
        let base = |s: &object::Symbol<'_, '_>| {
            if file.kind() == object::ObjectKind::Relocatable { place(s.section_index().unwrap().0) } else { Some(0) }
        };
        let symbol = file.symbols().find(|s| s.name().is_ok_and(|n| n == name || n.starts_with(&format!("{name}."))));
        let symbol = symbol.unwrap_or_else(|| panic!("no symbol {name}"));
        symbol.address() + base(&symbol).unwrap()
    }

    fn info(&self) -> DebugInfo<'_> {
        DebugInfo::open_relocatable(&self.bytes, &place).expect("has debug information")
    }

    fn has(&self, section: &str) -> bool {
        object::File::parse(&*self.bytes).unwrap().section_by_name(section).is_some()
    }

    fn is_packed(&self, section: &str) -> bool {
        let file = object::File::parse(&*self.bytes).unwrap();
        let section = file.section_by_name(section).unwrap();
        section.compressed_data().unwrap().format != object::CompressionFormat::None
    }
}

/// Sections far from each other.
#[expect(clippy::unnecessary_wraps, reason = "the signature the library asks for")]
fn place(section: usize) -> Option<u64> {
    Some((section as u64) << 32)
}

/// Lines matter.
const LINES: &str = r#"
static volatile int sink;
static inline __attribute__((always_inline)) void inner(int a)
{
	sink = a * 3;
}
static inline __attribute__((always_inline)) void outer(int a)
{
	sink = 1;
	inner(a);
}
__attribute__((noinline)) int counted(int a)
{
	static int hits = 5;
	hits += a;
	outer(a);
	return hits;
}
__attribute__((noinline)) int other(int a)
{
	static int hits = 7;
	hits ^= a;
	return hits;
}
int at_file[4] = { 1, 2, 3, 4 };
void entry(void)
{
	sink = counted(sink) + other(sink) + at_file[sink];
}
"#;

/// Everything a build of [`LINES`] must answer.
fn check_lines(built: &Built) {
    let info = built.info();
    let (counted, other) = (built.address("counted"), built.address("other"));
    let unit = info.unit_at(counted).expect("a unit");
    assert_eq!(info.unit_at(other), Some(unit));
    assert_eq!(info.unit_name(unit), Some("sub/lines.c"));
    let units = info.units();
    assert_eq!(units.len(), 1);
    assert!(units[0].ranges.iter().any(|r| r.contains(&counted)), "{units:?}");

    let line = info.line(counted).unwrap();
    assert_eq!(line.file, "sub/lines.c");
    assert!((13..=17).contains(&line.line), "{line:?}");

    let function = info.function_at(counted).unwrap();
    assert_eq!((function.name.as_str(), function.line), ("counted", Some(12)));
    assert_eq!(function.file.as_deref(), Some("sub/lines.c"));
    assert_eq!(function.ranges[0].start, counted);
    let names: Vec<_> = function.inlined.iter().map(|i| (i.name.as_str(), i.depth, i.call_line, i.line)).collect();
    assert_eq!(names, [("outer", 1, Some(16), Some(7)), ("inner", 2, Some(10), Some(3))]);
    assert!(info.function_at(other).unwrap().inlined.is_empty());
    assert!(info.function_at(counted + 1).unwrap().name == "counted");

    let inner = function.inlined[1].ranges[0].start;
    let chain: Vec<_> = info.inlined_at(inner).into_iter().map(|i| i.name).collect();
    assert_eq!(chain, ["outer", "inner"]);
    assert_eq!(info.line(inner).unwrap().line, 5);
    assert!(info.inlined_at(counted).is_empty());

    let file = object::File::parse(&*built.bytes).unwrap();
    let mut scopes: Vec<_> = file
        .symbols()
        .filter(|s| s.name().is_ok_and(|n| n.starts_with("hits.")))
        .map(|s| {
            let relocatable = file.kind() == object::ObjectKind::Relocatable;
            let base = if relocatable { place(s.section_index().unwrap().0).unwrap() } else { 0 };
            let scope = info.variable_scope(s.address() + base).expect("a scope");
            assert_eq!(scope.unit, unit);
            (scope.name, scope.function.unwrap(), scope.line.unwrap())
        })
        .collect();
    scopes.sort();
    let hits = |function: &str, line| ("hits".to_owned(), function.to_owned(), line);
    assert_eq!(scopes, [hits("counted", 14), hits("other", 21)]);
    let at_file = built.address("at_file");
    for address in [at_file, at_file + 15] {
        let scope = info.variable_scope(address).unwrap();
        assert_eq!((scope.name.as_str(), scope.function), ("at_file", None));
        assert_eq!(info.unit_at(address), Some(unit));
    }
    assert!(info.variable_scope(at_file + 16).is_none_or(|s| s.name != "at_file"));

    let nowhere = u64::MAX - 1;
    assert_eq!((info.unit_at(nowhere), info.line(nowhere)), (None, None));
    assert!(info.function_at(nowhere).is_none() && info.variable_scope(nowhere).is_none());
}

#[test]
fn a_linked_file_answers() {
    let case = Case::new();
    for version in ["-gdwarf-5", "-gdwarf-4"] {
        check_lines(&case.build("sub/lines.c", LINES, &[version]));
    }
}

#[test]
fn a_relocatable_file_answers() {
    let case = Case::new();
    for options in [&["-c"][..], &["-c", "-gdwarf-4"], &["-c", "-ffunction-sections", "-fdata-sections"]] {
        check_lines(&case.build("sub/lines.c", LINES, options));
    }
}

#[test]
fn units_are_found_without_aranges() {
    let case = Case::new();
    let built = case.build("sub/lines.c", LINES, &[]);
    assert!(built.has(".debug_aranges"));
    let stripped = case.objcopy(&built, &["-R", ".debug_aranges"]);
    assert!(!stripped.has(".debug_aranges"));
    check_lines(&stripped);
    let object = case.build("sub/lines.c", LINES, &["-c"]);
    check_lines(&case.objcopy(&object, &["-R", ".debug_aranges", "-R", ".rela.debug_aranges"]));
}

#[test]
fn packed_sections_are_unpacked() {
    let case = Case::new();
    for options in [&["-gz=zlib"][..], &["-gz=zlib", "-c"]] {
        let built = case.build("sub/lines.c", LINES, options);
        assert!(built.is_packed(".debug_info"));
        check_lines(&built);
    }
    let built = case.build("sub/lines.c", LINES, &[]);
    std::fs::write(case.path("in"), &built.bytes).unwrap();
    let zstd = Command::new("objcopy")
        .current_dir(case.folder.path())
        .args(["--compress-debug-sections=zstd", "in", "copy"])
        .output()
        .unwrap();
    if !zstd.status.success() {
        eprintln!("skipped: this objcopy cannot pack with zstd");
        return;
    }
    let packed = Built { bytes: std::fs::read(case.path("copy")).unwrap() };
    assert!(packed.is_packed(".debug_info"));
    check_lines(&packed);
}

#[test]
fn cold_pieces_belong_to_their_function() {
    let case = Case::new();
    let text = r#"
        __attribute__((cold, noinline)) void bad(int a) { __asm__ volatile("" :: "r"(a)); }
        __attribute__((noinline)) int split(int a)
        {
            if (__builtin_expect(a < 0, 0)) { bad(a); bad(a + 1); bad(a * 7); __builtin_trap(); }
            return a * 3;
        }
        volatile int sink;
        void entry(void) { sink = split(sink); }
    "#;
    let built = case.build("split.c", text, &["-freorder-blocks-and-partition"]);
    let info = built.info();
    let cold = built.address("split.cold");
    let function = info.function_at(cold).unwrap();
    assert_eq!(function.name, "split");
    assert_eq!(function.ranges.len(), 2);
}

/// What changes when `old` becomes `new`; `f` is what changed.
fn types(old: &str, new: &str) -> Vec<TypeChange> {
    let case = Case::new();
    let linked = compare(&case, old, new, &[]);
    assert_eq!(linked, compare(&case, old, new, &["-gdwarf-4"]));
    assert_eq!(linked, compare(&case, old, new, &["-c", "-ffunction-sections"]));
    // Older forms of locations and bit-fields.
    assert_eq!(linked, compare(&case, old, new, &["-gdwarf-2", "-gstrict-dwarf"]));
    assert_eq!(compare(&case, old, old, &[]), []);
    linked
}

fn compare(case: &Case, old: &str, new: &str, options: &[&str]) -> Vec<TypeChange> {
    let text = |types: &str| format!("{types}\nvoid entry(void) {{}}\n");
    let old = case.build("t.c", &text(old), options);
    let new = case.build("t.c", &text(new), options);
    let user = |name| User { old: Some(old.address(name)), new: new.address(name), globals: Vec::new() };
    let f = User { globals: vec!["global".into()], ..user("f") };
    changed_types(&old.info(), &new.info(), &[user("entry"), f])
}

/// What a function leads to.
fn texts(changes: &[TypeChange]) -> Vec<(&str, &str, bool)> {
    let changes: Vec<_> = changes.iter().filter(|c| c.distance.is_some()).collect();
    assert!(changes.iter().all(|c| c.function == 1), "{changes:?}");
    changes.into_iter().map(|c| (c.name.as_str(), c.what.as_str(), c.additive)).collect()
}

#[test]
fn members_are_compared() {
    let f = "long f(struct s *s) { return s->b; }";
    let moved = types(
        &format!("struct s {{ long a; int b; char pad[4]; long c; }}; {f}"),
        &format!("struct s {{ long a; char pad[4]; int b; long c; }}; {f}"),
    );
    let what = "member `b` moved from 8 to 12 bytes, member `pad` moved from 12 to 8 bytes";
    assert_eq!(texts(&moved), [("struct s", what, false)]);
    let grown =
        types(&format!("struct s {{ long a; int b; }}; {f}"), &format!("struct s {{ long a; int b; long c; }}; {f}"));
    assert_eq!(texts(&grown), [("struct s", "16 bytes became 24, member `c` is new", false)]);
    let padding =
        types(&format!("struct s {{ long a; int b; }}; {f}"), &format!("struct s {{ long a; int b; int c; }}; {f}"));
    assert_eq!(texts(&padding), [("struct s", "member `c` is new", true)]);
    let retyped =
        types(&format!("struct s {{ long a; int b; }}; {f}"), &format!("struct s {{ long a; unsigned b; }}; {f}"));
    assert_eq!(texts(&retyped), [("struct s", "member `b` was `int` and is `unsigned int`", false)]);
    let renamed = types(
        &format!("typedef unsigned int u32; struct s {{ const u32 a; int b; }}; {f}"),
        &format!("struct s {{ volatile unsigned a; int b; }}; {f}"),
    );
    assert_eq!(texts(&renamed), []);
    let many = types(
        &format!("struct s {{ int b; int c, d, e, g, h, i; }}; {f}"),
        &format!("struct s {{ int b; long x; int c, d, e, g, h, i; }}; {f}"),
    );
    assert!(many[0].what.ends_with(", and 4 more"), "{many:?}");
}

#[test]
fn bit_fields_are_compared() {
    let f = "int f(struct s *s) { return s->b; }";
    let moved = types(
        &format!("struct s {{ unsigned a:3, b:4; }}; {f}"),
        &format!("struct s {{ unsigned a:3, x:1, b:4; }}; {f}"),
    );
    assert_eq!(texts(&moved), [("struct s", "member `x` is new, member `b` moved from bit 3 to 4", false)]);
    let wider =
        types(&format!("struct s {{ unsigned a:3, b:4; }}; {f}"), &format!("struct s {{ unsigned a:3, b:5; }}; {f}"));
    assert_eq!(texts(&wider), [("struct s", "member `b` was `unsigned int:4` and is `unsigned int:5`", false)]);
}

#[test]
fn enumerations_are_compared() {
    let f = "int f(enum e e) { return e; }";
    let changed = types(&format!("enum e {{ A, B = -2 }}; {f}"), &format!("enum e {{ A, B = -3 }}; {f}"));
    assert_eq!(texts(&changed), [("enum e", "`B` was -2 and is -3", false)]);
    let more = types(&format!("enum e {{ A, B }}; {f}"), &format!("enum e {{ A, B, C }}; {f}"));
    assert_eq!(texts(&more), [("enum e", "`C` is new", true)]);
}

#[test]
fn nameless_types_are_taken_apart() {
    let f = "int f(struct s *s) { return s->a; }";
    let in_union = types(
        &format!("struct s {{ int a; union {{ int u; struct {{ char v, w; }}; }}; }}; {f}"),
        &format!("struct s {{ int a; union {{ int u; struct {{ char v, x, w; }}; }}; }}; {f}"),
    );
    assert_eq!(texts(&in_union), [("struct s", "member `x` is new, member `w` moved from 5 to 6 bytes", false)]);
    let named = types(
        &format!("struct s {{ int a; struct {{ short b, c; }} part[2]; }}; {f}"),
        &format!("struct s {{ int a; struct {{ short c, b; }} part[2]; }}; {f}"),
    );
    let what = "member `part[].b` moved from 4 to 6 bytes, member `part[].c` moved from 6 to 4 bytes";
    assert_eq!(texts(&named), [("struct s", what, false)]);
    // One that only a typedef names is compared by that name.
    let typedef = types(
        &format!("typedef struct {{ int n; }} count_t; struct s {{ int a; count_t *c; }}; {f}"),
        &format!("typedef struct {{ int n, m; }} count_t; struct s {{ int a; count_t *c; }}; {f}"),
    );
    assert_eq!(texts(&typedef), [("count_t", "4 bytes became 8, member `m` is new", false)]);
}

/// No variable has the type: the unit is what tells of it.
#[test]
fn numbers_without_an_enumeration_are_compared() {
    let f = "int f(int n) { return n == A; }";
    let constants = |old: &str, new: &str| {
        let changed = types(&format!("{old} {f}"), &format!("{new} {f}"));
        assert!(changed.iter().all(|c| c.always && c.distance.is_none() && c.users == [0, 1]), "{changed:?}");
        changed.into_iter().map(|c| (c.name, c.what, c.numbers)).collect::<Vec<_>>()
    };
    let swapped = ("enum of A".to_owned(), "`A` was 1 and is 2, `B` was 2 and is 1".to_owned(), vec![1, 2]);
    assert_eq!(constants("enum { A = 1, B = 2 };", "enum { B = 1, A = 2 };"), [swapped]);
    let moved = ("enum of A".to_owned(), "`A` was 1 and is 2".to_owned(), vec![1, 2]);
    assert_eq!(constants("enum { A = 1, B = 5 };", "enum { B = 5 }; enum named { A = 2 };")[..1], [moved]);
    assert_eq!(constants("enum { A = 1, B };", "enum { A = 1, B, C };"), []);
    assert_eq!(constants("enum { A = 1, B };", "enum { A = 1 }; enum { B = 2 };"), []);
    // Told once, by what has it.
    let state =
        |of: &str| format!("struct s {{ enum {{ {of} }} state; }}; int f(struct s *s) {{ return s->state == A; }}");
    let changed = types(&state("A = 1, B = 2"), &state("B = 1, A = 2"));
    assert_eq!(changed.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["struct s"]);
}

#[test]
fn types_without_a_name_go_by_what_has_them() {
    let of = |text: &str| {
        let body = |part: &str| text.replace("PART", part);
        let changed = types(&body("int a; int b;"), &body("int b; int a;"));
        changed.into_iter().filter(|c| c.distance.is_some()).map(|c| (c.name, c.what)).collect::<Vec<_>>()
    };
    let moved =
        |front: &str| format!("member `{front}a` moved from 0 to 4 bytes, member `{front}b` moved from 4 to 0 bytes");
    for (text, name, front) in [
        ("struct { PART } global; int f(void) { return global.b; }", "struct of global", ""),
        ("static volatile struct { PART } global[3]; int f(int n) { return global[n].b; }", "struct of global", ""),
        ("struct { PART } *global; int f(void) { return global->b; }", "struct of global", ""),
        ("typedef struct { PART } *p_t; p_t global; int f(void) { return global->b; }", "struct of global", ""),
        ("struct { struct { PART } *in; } global; int f(void) { return global.in->b; }", "struct of global", "in->"),
        ("int f(int n) { static struct { PART } s; s.a += n; return s.b++; }", "struct of f.s", ""),
        ("int f(struct { PART } *p) { return p->b; }", "struct of f.p", ""),
        ("struct s { struct { PART } *in; }; int f(struct s *s) { return s->in->b; }", "struct s", "in->"),
        (
            "typedef struct { PART } a_t[2]; struct s { a_t in; }; int f(struct s *s) { return s->in->b; }",
            "struct s",
            "in[].",
        ),
    ] {
        assert_eq!(of(text), [(name.to_owned(), moved(front))], "{text}");
    }
    // An object on the stack is of no other build.
    assert_eq!(of("void q(void *p) {} int f(void) { struct { PART } s; q(&s); return s.b; }"), []);
}

#[test]
fn types_are_reached_through_pointers() {
    let f = "int f(struct s *s) { return s->a; }";
    let far = |t: &str| {
        format!(
            "struct t {{ {t} struct t *next; struct s *back; }}; struct m {{ struct t **t[3]; }}; struct s {{ int a; const struct m *m; }}; {f}"
        )
    };
    let changed = types(&far("int x;"), &far("long x;"));
    assert_eq!(texts(&changed), [("struct t", "member `x` was `int` and is `long int`", false)]);
    assert_eq!(changed[0].distance, Some(2));
    // A function pointer has a type of its own, but what its parameters lead to is not used here.
    let called =
        |t: &str, p: &str| format!("struct t {{ {t} }}; struct s {{ int a; void (*call)(struct t *{p}); }}; {f}");
    assert_eq!(texts(&types(&called("int x;", ""), &called("long x;", ""))), []);
    let more = types(&called("int x;", ""), &called("int x;", ", int"));
    let what = "member `call` was `void (*)(struct t *)` and is `void (*)(struct t *, int)`";
    assert_eq!(texts(&more), [("struct s", what, false)]);
}

#[test]
fn types_of_inlined_functions_count() {
    let text = |t: &str| {
        format!(
            "struct t {{ {t} int y; }}; extern void *p;
             static inline __attribute__((always_inline)) int g(void *v) {{ struct t *t = v; return t->y; }}
             int f(void *v) {{ return g(v); }}"
        )
    };
    let changed = types(&text("int x;"), &text("int x, z;"));
    assert_eq!(changed[0].name, "struct t");
    assert_eq!(changed[0].distance, Some(0));
}

/// Through a variable of the file, the result of a function that is called, and the result of a call through a pointer.
#[test]
fn types_without_a_variable_of_the_function_count() {
    let ways = [
        "struct t *global; int f(void) { return global->y; }",
        "extern struct t *global; int f(void) { return global->y; }",
        "struct t *get(void); int f(void) { return get()->y; }",
        "struct ops { struct t *(*get)(void); }; int f(struct ops *o) { return o->get()->y; }",
    ];
    for way in ways {
        let case = Case::new();
        let text = |t: &str| format!("struct t {{ {t} int y; }}; {way}");
        let changed = compare(&case, &text("int x;"), &text("long x;"), &["-c"]);
        assert_eq!(texts(&changed).iter().map(|c| c.0).collect::<Vec<_>>(), ["struct t"], "{way}");
    }
    // A cast is not told; what the unit defines is.
    let cast = |t: &str| format!("struct t {{ {t} int y; }}; int f(void *v) {{ return ((struct t *)v)->y; }}");
    let changed = types(&cast("int x;"), &cast("long x;"));
    assert_eq!((changed[0].name.as_str(), changed[0].distance), ("struct t", None));
    assert_eq!(changed[0].users, [0, 1]);
    let back = |n: u64| n.wrapping_neg();
    assert_eq!(changed[0].numbers, [0, 4, 8, 16, back(8), back(4)]);
}

#[test]
fn variables_that_live_are_compared() {
    let f = "int f(void) { static VAR count = 1; return global[0] + ++count; }";
    let text = |global: &str, of: &str| format!("{global}; {}", f.replace("VAR", of));
    let changed = types(&text("int global[2]", "int"), &text("unsigned global[3]", "unsigned"));
    let what = "the variable was `int[2]` and is `unsigned int[3]`";
    let count = "the variable was `int` and is `unsigned int`";
    assert_eq!(texts(&changed), [("count", count, false), ("global", what, false)]);
    assert_eq!(types(&text("int global[2]", "int"), &text("int global[3]", "int")), []);
}

/// Both builds have the same types one by one, but not for the same things.
#[test]
fn the_same_types_elsewhere_are_others() {
    let both = "struct { int a, b; } x; struct { int b, a; } y;";
    let text = |which: &str| format!("{both} __typeof__({which}) global; int f(void) {{ return global.a; }}");
    let changed = types(&text("x"), &text("y"));
    assert_eq!(texts(&changed).iter().map(|c| c.0).collect::<Vec<_>>(), ["struct of global"]);
    assert_eq!(types(&text("x"), &text("x")), []);
    let within = |which: &str| {
        format!(
            "struct t {{ int a; }} t; struct u {{ int a; }} u; struct s {{ struct {which} in; }} s;
             int f(struct s *s) {{ return s->in.a; }}"
        )
    };
    let changed = types(&within("t"), &within("u"));
    assert_eq!(texts(&changed), [("struct s", "member `in` was `struct t` and is `struct u`", false)]);
    // One that a function has for itself is not among those at the top.
    let local = |of: &str| {
        format!("int f(void *v) {{ struct own {{ {of} int y; }}; static struct own *o; o = v; return o->y; }}")
    };
    let changed = types(&local("int x;"), &local("long x;"));
    assert_eq!(texts(&changed).iter().map(|c| c.0).collect::<Vec<_>>(), ["struct own"]);
}

#[test]
fn both_layouts_are_shown() {
    let f = "long f(struct s *s) { return s->b; }";
    let changed = types(
        &format!("struct s {{ long x, y, a; int b:3, c:5; long d, e; }}; {f}"),
        &format!("struct s {{ long x, y, a; int b:4, c:4; long d, e; }}; {f}"),
    );
    let shown = "  old, 48 bytes:
        ...
         16   long int a
    *    24.0 int b:3
    *    24.3 int c:5
         32   long int d
        ... 1 more
  new, 48 bytes:
        ...
         16   long int a
    *    24.0 int b:4
    *    24.4 int c:4
         32   long int d
        ... 1 more";
    assert_eq!(changed[0].shown, shown);
    let f = "int f(enum e e) { return e; }";
    let changed = types(&format!("enum e {{ A, B, C }}; {f}"), &format!("enum e {{ A, X, B, C }}; {f}"));
    let shown = "  old, 4 bytes:\n      A = 0\n    * B = 1\n    * C = 2\n  new, 4 bytes:\n      A = 0\n    * X = 1\n    * B = 2\n    * C = 3";
    assert_eq!(changed[0].shown, shown);
    assert!(!changed[0].more_values);
    assert!(types(&format!("enum e {{ A, B }}; {f}"), &format!("enum e {{ A, B, C }}; {f}"))[0].more_values);
}

#[test]
fn a_declared_type_is_not_known() {
    let f = "struct s; struct t { int n; struct s *s; }; int f(struct t *t) { return t->n; }";
    let defined = "struct s { int a; };";
    assert_eq!(texts(&types(f, &format!("{f} {defined} struct s *q(struct s *s) {{ return s; }}"))), []);
}

#[test]
fn a_type_only_new_code_uses_is_compared_as_well() {
    let text = |t: &str, f: &str| {
        format!("struct t {{ {t} int y; }}; int g(struct t *t) {{ return t->y; }} int f(void *v) {{ {f} }}")
    };
    let changed = types(&text("int x;", "return 0;"), &text("long x;", "struct t *t = v; return t->y + 1;"));
    assert_eq!(texts(&changed).iter().map(|c| c.0).collect::<Vec<_>>(), ["struct t"]);
}

#[test]
fn damaged_files_answer_nothing() {
    let case = Case::new();
    assert!(DebugInfo::open(b"").is_none());
    assert!(DebugInfo::open(b"\x7fELF").is_none());
    let none = case.build("sub/lines.c", LINES, &["-g0"]);
    assert!(DebugInfo::open(&none.bytes).is_none());
    for options in [&[][..], &["-c"], &["-gdwarf-4"]] {
        let built = case.build("sub/lines.c", LINES, options);
        let addresses: Vec<u64> =
            ["counted", "other", "at_file", "sink"].iter().map(|name| built.address(name)).collect();
        for (start, size) in debug_sections(&built) {
            // Every byte of small sections, some of large ones; each with few values.
            for at in (start..start + size).step_by((size / 400).max(1)) {
                for value in [0x00, 0x7f, 0xff] {
                    let mut bytes = built.bytes.clone();
                    bytes[at] = value;
                    ask_everything(&bytes, &addresses);
                }
            }
        }
        for cut in (0..built.bytes.len()).step_by(built.bytes.len() / 300 + 1) {
            ask_everything(&built.bytes[..cut], &addresses);
        }
    }
}

fn debug_sections(built: &Built) -> Vec<(usize, usize)> {
    let file = object::File::parse(&*built.bytes).unwrap();
    let debug = file.sections().filter(|s| s.name().is_ok_and(|n| n.contains(".debug_")));
    debug.filter_map(|s| s.file_range()).map(|(at, size)| (at as usize, size as usize)).collect()
}

/// Answers do not matter, but there must be an end, and no panic.
fn ask_everything(bytes: &[u8], addresses: &[u64]) {
    let Some(info) = DebugInfo::open_relocatable(bytes, &place) else { return };
    info.units();
    for address in addresses.iter().copied().chain([0, u64::MAX]) {
        let _ = info.unit_at(address).and_then(|u| info.unit_name(u));
        let _ = (info.line(address), info.function_at(address), info.inlined_at(address), info.variable_scope(address));
    }
    let pairs: Vec<_> =
        addresses.iter().map(|a| User { old: Some(*a), new: *a, globals: vec!["at_file".into()] }).collect();
    let _ = changed_types(&info, &info, &pairs);
}

#[test]
fn paths_lose_the_folder_of_the_build() {
    let case = Case::new();
    let source = case.path("tree/fs/proc/one.c");
    std::fs::create_dir_all(source.parent().unwrap()).unwrap();
    std::fs::write(&source, "void entry(void) {}\n").unwrap();
    let build = |from: &str, name: &str| {
        let from = case.path(from);
        std::fs::create_dir_all(&from).unwrap();
        run(Command::new("gcc").current_dir(&from).args(["-g", "-c", "-o", "out.o", name]));
        let bytes = std::fs::read(from.join("out.o")).unwrap();
        let info = DebugInfo::open(&bytes).unwrap();
        let name = info.units()[0].name.unwrap().to_owned();
        assert_eq!(info.function_at(0).unwrap().file.as_deref(), Some(name.as_str()));
        name
    };
    let absolute = source.to_str().unwrap();
    for (from, name) in [
        ("tree", "fs/proc/one.c"),
        ("tree", absolute),
        ("tree/build", "../fs/proc/one.c"),
        ("tree/build", absolute),
        ("beside", absolute),
    ] {
        assert_eq!(build(from, name), "fs/proc/one.c", "{from} {name}");
    }
    assert!(Path::new(absolute).is_absolute());
}
