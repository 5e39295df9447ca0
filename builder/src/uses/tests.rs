//! What is found about small C and assembly.

use std::process::Command;

use super::{Found, of_data};
use crate::ingest;
use crate::symbolize::Object;

const HEAD: &str = r#"
#define noinline __attribute__((noinline))
#define noipa __attribute__((noipa))
struct ops { int (*f)(long); long n; };
int impl_a(long); int impl_b(long);
static const struct ops table[4] = { { impl_a, 1 }, { impl_b, 2 }, { impl_a, 3 }, { impl_b, 4 } };
static const struct ops other[4] = { { impl_a, 1 }, { impl_b, 2 }, { impl_a, 3 }, { impl_b, 5 } };
static const char text[] = "a text that is long";
static const char *const names[] = { "one", "two", "three" };
int _printk(const char *, ...); int keep(const void *); int two(long, const void *); int seven(long, long, long, long, long, long, const void *);
void *memcpy(void *, const void *, unsigned long);
char *strchr(const char *, int);
extern const struct ops *current_ops;
"#;

fn object(body: &str, more: &[&str]) -> Object {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.c"), format!("{HEAD}{body}")).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.current_dir(folder.path()).args(["-c", "-O2", "-mcmodel=kernel", "-fno-pic", "-fno-pie", "-mno-red-zone"]);
    gcc.args(["-mno-sse", "-ffreestanding", "-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-w"]);
    gcc.args([
        "-fcf-protection=none",
        "-pg",
        "-mfentry",
        "-mindirect-branch=thunk-extern",
        "-mindirect-branch-register",
    ]);
    gcc.args(["-mfunction-return=thunk-extern", "-fno-jump-tables"]).args(more).args(["a.c", "-o", "a.o"]);
    let out = gcc.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let bytes = std::fs::read(folder.path().join("a.o")).unwrap();
    Object::new(ingest::read("a.o", &bytes).unwrap()).unwrap()
}

fn uses_of(body: &str, name: &str) -> (Object, Vec<Found>) {
    let object = object(body, &[]);
    let id = object.named(name).unwrap_or_else(|| panic!("no {name}"));
    let found = of_data(&object, id);
    (object, found)
}

/// The escapes of `table`, in words without offsets.
fn escapes(body: &str) -> Vec<String> {
    escapes_of(body, "table")
}

fn escapes_of(body: &str, name: &str) -> Vec<String> {
    let (object, found) = uses_of(body, name);
    let text = |f: &Found| f.text(&object).split(" at +").next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = found.iter().filter(|f| f.escapes()).map(text).collect();
    all.dedup();
    // Nobody knows that a function without a result returns nothing.
    if all.len() > 1 {
        all.retain(|text| !text.ends_with("returns its address"));
    }
    all
}

/// Read, and nothing else.
fn only_read(body: &str) {
    let (object, found) = uses_of(body, "table");
    assert!(!found.is_empty(), "nothing was found");
    for f in &found {
        assert!(f.is_read(), "{}", f.text(&object));
    }
}

#[test]
fn what_is_indexed_is_read() {
    only_read("long f(unsigned i) { return table[i & 3].n; }");
    only_read("int f(unsigned i) { return table[i & 3].f(7); }");
    only_read("int f(unsigned i, long x) { if (x > 3) return table[i].f(x); return keep((void *)x); }");
    only_read("long f(void) { long s = 0; for (int i = 0; i < 4; i++) s += table[i].n * keep((void *)s); return s; }");
}

#[test]
fn a_loop_to_the_end_is_read() {
    only_read(
        "long f(long k) { for (const struct ops *p = table; p != table + 4; p++) if (p->n == k) return p->f(k); return 0; }",
    );
    only_read(
        "long f(long k) { for (const struct ops *p = table; p < table + 4; p++) k += keep((void *)p->n); return k; }",
    );
    only_read(
        "long f(long k) { const struct ops *p = table + 3; do k += keep((void *)p->n); while (p-- != table); return k; }",
    );
    // Too many values that live over calls: it is spilled and loaded again.
    only_read(
        "extern long v[6]; void f(void) { long a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], g = v[5]; \
         for (const struct ops *p = table; p < table + 4; p++) \
         { a += keep((void *)p->n); b ^= a; c += b; d ^= c; e += d; g ^= e; } v[0] = a + b + c + d + e + g; }",
    );
}

#[test]
fn the_difference_of_two_addresses_of_it_is_a_number() {
    only_read("long f(long k) { const struct ops *p = table; while (p->n != k) p++; return p - table; }");
}

#[test]
fn readers_read() {
    only_read("void f(void *to) { memcpy(to, table, sizeof(table)); keep(to); }");
    only_read("int f(void) { return _printk(\"%s\", (const char *)table) + 1; }");
    only_read("int f(void) { return _printk(\"%d %d %d %d %d %d %s\", 1, 2, 3, 4, 5, 6, (const char *)table) + 1; }");
    only_read("int f(int c) { return *strchr((const char *)table, c); }");
    assert_eq!(
        escapes("int f(int c) { return keep(strchr((const char *)table, c)) + 1; }"),
        ["f passes its address to keep as argument 1"]
    );
}

#[test]
fn stored() {
    assert_eq!(escapes("void f(const void **to) { *to = table; }"), ["f stores its address"]);
    assert_eq!(escapes("void f(void) { current_ops = table; }"), ["f stores its address in current_ops"]);
    assert_eq!(escapes("void f(const struct ops **to, int i) { to[i] = &table[i]; }"), ["f stores its address"]);
    assert_eq!(
        escapes("static const struct ops *mine; void f(void) { mine = table; } long g(void) { return mine->n; }"),
        ["f stores its address in mine"]
    );
    assert_eq!(escapes("void f(const void **to, long k) { *to = k ? table : other; }"), ["f stores its address"]);
    assert_eq!(escapes("void f(const struct ops **to) { __atomic_store_n(to, table, 5); }"), ["f stores its address"]);
    assert_eq!(
        escapes("void *f(const void **to) { return (void *)__atomic_exchange_n(to, table, 5); }"),
        ["f stores its address"]
    );
    assert_eq!(
        escapes(
            "int f(const struct ops **to) { const struct ops *x = 0; return __atomic_compare_exchange_n(to, &x, table, 0, 5, 5); }"
        ),
        ["f stores its address"]
    );
}

#[test]
fn passed() {
    assert_eq!(escapes("int f(void) { return keep(table) + 1; }"), ["f passes its address to keep as argument 1"]);
    assert_eq!(escapes("int f(void) { return keep(table); }"), ["f passes its address to keep as argument 1"]);
    assert_eq!(
        escapes("int f(long n) { return two(n, &table[n]) + 1; }"),
        ["f passes its address to two as argument 2"]
    );
    assert_eq!(
        escapes("int f(int (*g)(const void *)) { return g(table) + 1; }"),
        ["f passes its address to a function pointer as argument 1"]
    );
    assert_eq!(
        escapes("int f(long n) { return seven(1, 2, 3, 4, 5, n, table) + 1; }"),
        ["f passes its address to seven"]
    );
    assert_eq!(
        escapes(
            "int f(long n) { for (const struct ops *p = table; p < table + 4; p++) if (p->n == n) return two(n, p); return 0; }"
        ),
        ["f passes its address to two as argument 2"]
    );
}

#[test]
fn a_leftover_is_not_passed() {
    // The register of a later argument is no argument when an earlier one has not been set.
    only_read(
        "long nothing(void); long f(long k) { const struct ops *p = table; asm volatile(\"\" : \"+S\"(p)); k = p->n; \
         asm volatile(\"call nothing\" ::: \"rax\", \"rcx\", \"rdx\", \"rdi\", \"r8\", \"r9\", \"r10\", \"r11\", \"memory\"); return k; }",
    );
}

#[test]
fn compared() {
    assert_eq!(escapes("int f(const void *p) { return p == table; }"), ["f compares its address"]);
    assert_eq!(escapes("int f(const void **p) { return *p == table ? keep(p) : 3; }"), ["f compares its address"]);
    assert_eq!(escapes("long f(const struct ops *p) { return p - table; }"), ["f compares its address"]);
    assert_eq!(
        escapes(
            "int f(const struct ops *p, int k) { const struct ops *q = k ? table : p; return keep(0) + (q == table); }"
        )
        .len(),
        1
    );
    // Both sides are the table.
    only_read(
        "long f(void) { long n = 0; for (const struct ops *p = table; p != &table[4]; p++) n += p->n * keep((void *)n); return n; }",
    );
    // No address: NULL and error codes.
    only_read("long f(int k) { const struct ops *p = table; asm volatile(\"\" : \"+r\"(p)); return p ? p->n : 0; }");
    only_read(
        "long f(int k) { const struct ops *p = table; asm volatile(\"\" : \"+r\"(p)); return (unsigned long)p >= -4095ul ? 0 : p->n; }",
    );
}

#[test]
fn returned() {
    assert_eq!(escapes("const void *f(void) { return table; }"), ["f returns its address"]);
    assert_eq!(escapes("const void *f(long n) { return n > 4 ? 0 : &table[n]; }"), ["f returns its address"]);
    assert_eq!(
        escapes("noipa static const void *get(void) { return table; } void f(const void **to) { *to = get(); }"),
        ["f stores its address"]
    );
    only_read(
        "noipa static const struct ops *get(int i) { return &table[i]; } long f(int i) { return get(i)->n + 1; }",
    );
    // Known by its address: anybody may call it.
    assert_eq!(
        escapes(
            "noipa static const void *get(void) { return table; } void *p = get; long f(void) { return *(long *)get(); }"
        ),
        ["get returns its address"]
    );
}

#[test]
fn followed_into_functions_of_the_object() {
    only_read(
        "noipa static long sum(const struct ops *p) { return p[0].n + p[1].n; } long f(void) { return sum(table) + 1; }",
    );
    only_read(
        "noipa static long sum(long a, const struct ops *p) { return a + p->n; } long f(long k) { return sum(k, &table[k]); }",
    );
    assert_eq!(
        escapes(
            "noipa static void put(const void **to, const void *p) { *to = p; } void f(const void **to) { put(to, table); keep(to); }"
        ),
        ["put stores its address"]
    );
    assert_eq!(
        escapes(
            "noipa static const void *pass(const void *p) { return p; } void f(void) { current_ops = pass(table); }"
        ),
        ["f stores its address in current_ops"]
    );
    // Round in a circle, and deeper than is followed.
    only_read(
        "noipa static long walk(const struct ops *p, long n) { return n ? p->n + walk(p, n - 1) * 3 : 0; } long f(long n) { return walk(table, n) + 1; }",
    );
    assert_eq!(
        escapes(
            "noipa static long a(const struct ops *p) { return p->n; } noipa static long b(const struct ops *p) { return a(p) + 1; } \
             noipa static long c(const struct ops *p) { return b(p) + 1; } noipa static long d(const struct ops *p) { return c(p) + 1; } \
             noipa static long e(const struct ops *p) { return d(p) + 1; } long f(void) { return e(table) + 1; }"
        ),
        ["b passes its address to a as argument 1"]
    );
    // Another definition may replace a weak one.
    assert_eq!(
        escapes(
            "__attribute__((weak)) long sum(const struct ops *p) { return p->n; } long f(void) { return sum(table) + 1; }"
        ),
        ["f passes its address to sum as argument 1"]
    );
}

#[test]
fn in_an_object_on_the_stack() {
    let found =
        escapes("int f(long n) { struct { long n; const void *p; } box = { n, table }; return keep(&box) + 1; }");
    assert_eq!(found.first().map(String::as_str), Some("f stores its address in a local object"));
    assert!(
        !escapes("int f(long n) { const void *all[3] = { 0, table, other }; return keep(all[n]) + 1; }").is_empty()
    );
}

#[test]
fn in_pieces_of_the_function() {
    assert_eq!(
        escapes(
            "__attribute__((cold)) int bad(const void *); int f(long n) { if (__builtin_expect(n == 3, 0)) { bad(0); current_ops = table; } return n; }"
        ),
        ["f.cold stores its address in current_ops"]
    );
}

#[test]
fn over_jump_labels_and_alternatives() {
    let label = "#define KEY ({ __label__ yes, out; int t = 0; asm goto(\"1: .byte 0x0f, 0x1f, 0x44, 0, 0\\n.pushsection __jump_table, \\\"aw\\\"\\n\
        .balign 8\\n.long 1b - ., %l[yes] - .\\n.quad key - .\\n.popsection\" : : : : yes); goto out; yes: t = 1; out: t; })\nextern long key;\n";
    assert_eq!(
        escapes(&format!("{label}int f(long n) {{ if (KEY) return keep(table) + 1; return n; }}")),
        ["f passes its address to keep as argument 1"]
    );
    only_read(&format!("{label}long f(long n) {{ if (KEY) return table[n].n; return n; }}"));
    // The other way round: a jump that the kernel turns into a nop.
    let jump = label
        .replacen(".byte 0x0f, 0x1f, 0x44, 0, 0", "jmp %l[yes]", 1)
        .replace("goto out; yes: t = 1;", "t = 1; goto out; yes:");
    assert_eq!(
        escapes(&format!("{jump}int f(long n) {{ if (KEY) return keep(table) + 1; return n; }}")),
        ["f passes its address to keep as argument 1"]
    );
    let alternative = |new: &str| {
        format!(
            "long f(long n) {{ const struct ops *p = &table[n]; asm volatile(\"661: nop\\n nop\\n nop\\n nop\\n nop\\n nop\\n nop\\n 662:\\n\
             .pushsection .altinstructions, \\\"a\\\"\\n.long 661b - ., 663f - .\\n.word 3\\n.byte 662b - 661b, 664f - 663f\\n.popsection\\n\
             .pushsection .altinstr_replacement, \\\"ax\\\"\\n663: {new}\\n664:\\n.popsection\" : : \"a\"(p), \"d\"(&current_ops) : \"memory\"); return p->n; }}"
        )
    };
    only_read(&alternative("nop"));
    only_read(&alternative("mov 8(%%rax), %%rcx"));
    assert_eq!(escapes(&alternative("mov %%rax, (%%rdx)")), ["f stores its address"]);
    assert_eq!(escapes(&alternative("bswap %%rax")).len(), 1);
}

#[test]
fn a_pointer_into_the_frame_in_rbp() {
    // Two addresses on the stack, and %rbp that walks over them.
    let walk = "long f(long n) { asm volatile(\"sub $0x18, %%rsp\\n mov %0, %%rax\\n mov %%rax, 8(%%rsp)\\n lea 8(%%rsp), %%rbp\\n\
                1: mov (%%rbp), %%rdi\\n add $8, %%rbp\\n call keep\\n test %%rax, %%rax\\n jne 1b\\n add $0x18, %%rsp\" : : \"i\"(table) : \"memory\", \
                \"rax\", \"rdi\"); return n; }";
    assert!(!escapes(walk).is_empty());
}

#[test]
fn what_is_not_understood_counts() {
    let with = |what: &str| {
        format!(
            "long f(long n) {{ const void *p = table; asm volatile(\"{what}\" : \"+a\"(p) : : \"memory\", \"rcx\"); return n; }}"
        )
    };
    for what in [
        "bswap %%rax",
        "shr $3, %%rax",
        "xor %%rcx, %%rax",
        "mov %%eax, %%ecx",
        "imul $3, %%rax",
        "movq %%rax, %%xmm0",
        "neg %%rax",
    ] {
        assert_eq!(escapes(&with(what)).len(), 1, "{what}");
    }
    for what in [
        "mov %%eax, (%%rcx)",
        "push %%rax; call *%%rcx",
        "xchg %%rax, (%%rcx)",
        "lock xadd %%rax, (%%rcx)",
        "stosq",
        "scasq",
    ] {
        assert!(!escapes(&with(what)).is_empty(), "{what}");
    }
    for what in [
        "mov %%rax, %%rcx",
        "push %%rax; pop %%rcx",
        "mov (%%rax), %%rcx",
        "cmp $0, %%rax",
        "test %%rax, %%rax",
        "and $-16, %%rax",
        "xor %%eax, %%eax",
        "lea 8(%%rax,%%rax), %%rcx",
    ] {
        assert_eq!(escapes(&with(what)), [""; 0], "{what}");
    }
}

#[test]
fn the_neighbour_is_another_object() {
    let body = "long g(long n) { return table[n].n + other[n].n; } int f(const void *p) { return p == other; }";
    assert_eq!(escapes(body), [""; 0]);
    assert_eq!(escapes_of(body, "other"), ["f compares its address"]);
}

#[test]
fn strings_and_tables_of_strings() {
    assert_eq!(escapes_of("int f(int i) { return _printk(\"%s\", names[i]) + 1; }", "names"), [""; 0]);
    assert_eq!(
        escapes_of("int f(void) { return _printk(text) + 1; } int g(int i) { return text[i]; }", "text"),
        [""; 0]
    );
    assert_eq!(
        escapes_of("int f(void) { return keep(text) + 1; }", "text"),
        ["f passes its address to keep as argument 1"]
    );
}
