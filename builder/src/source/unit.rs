//! What the compiler reads of an object, before and after a change -> whether the object can come out otherwise.
//!
//! Input: both versions behind the preprocessor, which has followed every `#include`, decided every condition and expanded every macro, so
//! nothing is guessed of those. Output: no, where every piece that differs is a declaration or a `static inline` function that nothing
//! leads to which the compiler makes code or data of. In one pass the text is cut into its [`Item`]s at the outermost level, which are
//! compared as sequences; then the names are followed that are in what makes code or data, and in what has those names.
//!
//! ```text
//! static inline int f(void) { .. }    named: f        extern int f(void);   struct f { .. };   typedef .. f;   enum { f, g };
//! int f(void) { .. }                  makes code or data, as everything that is not certainly of the first kind
//! ```
//!
//! Whoever uses a name mentions it: C has no other way, and what gcc adds by itself is in [`BUILTIN`]. Text in strings (of `asm`, attributes)
//! counts as words. Assembly has no such items: it comes out as before where its text is the same.

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::hash::Hasher;

/// A piece of a unit at the outermost level.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item<'t> {
    text: &'t [u8],
    /// Of its words and marks.
    key: u64,
    kind: Kind,
    /// What others refer to it by.
    names: Vec<&'t [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// There is nothing of it in an object that does not lead to one of its names.
    Named,
    /// Code, data, or something that acts on what follows.
    Emits,
}

/// In front of a parenthesis these are no names, and what is inside declares nothing.
const ATTRIBUTES: &[&[u8]] = &[
    b"__attribute__",
    b"__attribute",
    b"asm",
    b"__asm__",
    b"__asm",
    b"typeof",
    b"__typeof__",
    b"__typeof",
    b"__typeof_unqual__",
    b"__auto_type",
    b"sizeof",
    b"alignof",
    b"_Alignof",
    b"__alignof__",
    b"_Alignas",
    b"_Static_assert",
];
const TAGS: &[&[u8]] = &[b"struct", b"union", b"enum"];
const INLINE: &[&[u8]] = &[b"inline", b"__inline", b"__inline__"];
const KEYWORDS: &[&[u8]] = &[
    b"const",
    b"__const",
    b"__const__",
    b"volatile",
    b"__volatile__",
    b"static",
    b"extern",
    b"typedef",
    b"register",
    b"void",
    b"char",
    b"short",
    b"int",
    b"long",
    b"signed",
    b"__signed__",
    b"unsigned",
    b"float",
    b"double",
    b"_Bool",
    b"restrict",
    b"__restrict",
    b"__restrict__",
    b"_Atomic",
    b"_Noreturn",
    b"_Thread_local",
    b"__thread",
    b"__extension__",
    b"__int128",
    b"__int128_t",
    b"inline",
    b"__inline",
    b"__inline__",
];
/// Attributes that keep a function or a symbol that nothing refers to, or make one of a declaration (gcc, "Common Function Attributes").
const KEEPS: &[&[u8]] = &[
    b"used",
    b"__used__",
    b"retain",
    b"__retain__",
    b"constructor",
    b"__constructor__",
    b"destructor",
    b"__destructor__",
    b"externally_visible",
    b"__externally_visible__",
    b"alias",
    b"__alias__",
    b"weakref",
    b"__weakref__",
    b"ifunc",
    b"__ifunc__",
    b"symver",
    b"__symver__",
];
/// What gcc calls without being told to, by the name and attributes of the declaration it has seen.
const BUILTIN: &[&[u8]] = &[
    b"memcpy",
    b"memmove",
    b"memset",
    b"memcmp",
    b"abort",
    b"strlen",
    b"strcpy",
    b"strcmp",
    b"strchr",
    b"printf",
    b"puts",
    b"putchar",
    b"__stack_chk_guard",
    b"__stack_chk_fail",
];

/// Pieces that only one version has; with more, nothing is looked at any closer.
const MOST: usize = 1_000;
/// Parentheses in parentheses that declarators are looked for in.
const DEEPEST: usize = 32;

/// Whether an object can come out otherwise, told from both versions of a C source behind the preprocessor (`gcc -E -P`).
pub fn differs(old: &[u8], new: &[u8]) -> bool {
    if old == new {
        return false;
    }
    let (Some(before), Some(after)) = (items(old), items(new)) else { return true };
    let keys = |items: &[Item<'_>]| items.iter().map(|i| i.key).collect::<Vec<_>>();
    let (old_keys, new_keys) = (keys(&before), keys(&after));
    let (old_set, new_set): (FxHashSet<u64>, FxHashSet<u64>) =
        (old_keys.iter().copied().collect(), new_keys.iter().copied().collect());
    if old_set.symmetric_difference(&new_set).count() > MOST {
        return true;
    }
    let mut changed: Vec<&Item<'_>> = Vec::new();
    let mut kept = vec![true; before.len()];
    for op in capture_diff_slices(Algorithm::Myers, &old_keys, &new_keys) {
        if let DiffOp::Equal { .. } = op {
            continue;
        }
        let (gone, come) = (op.old_range(), op.new_range());
        kept.get_mut(gone.clone()).into_iter().flatten().for_each(|k| *k = false);
        changed.extend(before.get(gone).into_iter().flatten());
        changed.extend(after.get(come).into_iter().flatten());
    }
    if changed.iter().any(|i| i.kind == Kind::Emits) {
        return true;
    }
    let unchanged = before.iter().zip(kept).filter(|(_, k)| *k).map(|(i, _)| i);
    leads_to(&unchanged.collect::<Vec<_>>(), &changed)
}

/// Whether what makes code or data leads to a name of one of the `changed`, by way of any others.
fn leads_to(unchanged: &[&Item<'_>], changed: &[&Item<'_>]) -> bool {
    let mut wanted: FxHashSet<&[u8]> = changed.iter().flat_map(|i| i.names.iter().copied()).collect();
    // What has no name of its own (a check of a size) is referred to by nobody.
    wanted.retain(|w| !w.is_empty());
    if BUILTIN.iter().any(|w| wanted.contains(w)) {
        return true;
    }
    let mut named: FxHashMap<&[u8], Vec<usize>> = FxHashMap::default();
    let mut todo: Vec<usize> = Vec::new();
    let mut seen = vec![false; unchanged.len()];
    for (at, item) in unchanged.iter().enumerate() {
        if item.kind == Kind::Emits {
            todo.push(at);
        }
        for name in &item.names {
            named.entry(name).or_default().push(at);
        }
    }
    for word in BUILTIN {
        todo.extend(named.get(word).into_iter().flatten());
    }
    while let Some(at) = todo.pop() {
        let (Some(item), Some(seen)) = (unchanged.get(at), seen.get_mut(at)) else { continue };
        if std::mem::replace(seen, true) {
            continue;
        }
        let mut found = false;
        words(item.text, |w| {
            found |= wanted.contains(w);
            // Whatever has this name now stands for the name.
            todo.extend(named.remove(w).into_iter().flatten());
        });
        if found {
            return true;
        }
    }
    false
}

/// Calls `found` with every word, those in strings included.
fn words<'t>(text: &'t [u8], mut found: impl FnMut(&'t [u8])) {
    text.split(|b| !is_word(*b)).filter(|w| is_name(w)).for_each(&mut found);
}

/// Cuts a unit into its items; nothing when its braces do not balance.
fn items(text: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut found = Vec::new();
    let mut open = Open::new(0);
    let mut at = 0;
    while let Some((token, start, end)) = token(text, at) {
        at = end;
        if token == b"#" && is_line_start(text, start) {
            // A pragma: what it says of warnings changes no code.
            at = memchr::memchr(b'\n', text.get(start..)?).map_or(text.len(), |n| start.saturating_add(n));
            let line = text.get(start..at)?;
            let mut said = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
            let warns = ["#pragma", "GCC", "diagnostic"].iter().all(|w| said.next() == Some(w.as_bytes()));
            if open.is_empty() && !warns {
                let mut hash = FxHasher::default();
                hash.write(line);
                found.push(Item { text: line, key: hash.finish(), kind: Kind::Emits, names: Vec::new() });
            } else if !warns {
                open.acts = true;
                open.hash.write(line);
            }
            continue;
        }
        if open.take(token, start)? {
            let done = std::mem::replace(&mut open, Open::new(end));
            found.extend(done.item(text, end));
        }
    }
    (open.is_empty()).then_some(found)
}

/// An item that is being read.
struct Open<'t> {
    start: usize,
    hash: FxHasher,
    /// Words and marks outside of braces.
    head: Vec<&'t [u8]>,
    /// What is read of it, for names inside of braces.
    last: [&'t [u8]; 2],
    names: Vec<&'t [u8]>,
    braces: usize,
    parens: usize,
    /// The brace that is open belongs to a function.
    body: bool,
    /// `=` outside of everything.
    assigned: bool,
    enumeration: bool,
    /// A directive is inside.
    acts: bool,
}

impl<'t> Open<'t> {
    fn new(start: usize) -> Self {
        Self {
            start,
            hash: FxHasher::default(),
            head: Vec::new(),
            last: [b"", b""],
            names: Vec::new(),
            braces: 0,
            parens: 0,
            body: false,
            assigned: false,
            enumeration: false,
            acts: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.head.is_empty() && !self.acts
    }

    /// Takes a token; says whether the item ends with it. Nothing when it closes what is not open.
    fn take(&mut self, token: &'t [u8], start: usize) -> Option<bool> {
        if self.head.is_empty() {
            self.start = start;
        }
        // With its length, so that two words are not one.
        self.hash.write(token);
        self.hash.write_usize(token.len());
        let outside = self.braces == 0;
        if outside {
            self.head.push(token);
        }
        let [before, last] = self.last;
        let mut ends = false;
        match token {
            b"{" => {
                if outside && self.parens == 0 {
                    self.body = !self.assigned && is_function(&self.head);
                }
                if !self.body && is_identifier(last) {
                    self.names.push(last);
                }
                self.braces = self.braces.saturating_add(1);
            }
            b"}" => {
                self.braces = self.braces.checked_sub(1)?;
                if self.braces == 0 {
                    self.head.push(token);
                    ends = self.body && self.parens == 0;
                }
            }
            b"(" if outside => self.parens = self.parens.saturating_add(1),
            b")" if outside => self.parens = self.parens.checked_sub(1)?,
            b";" if outside && self.parens == 0 => ends = true,
            b"=" if outside && self.parens == 0 => self.assigned = true,
            b"enum" => self.enumeration = true,
            _ => {}
        }
        if self.enumeration
            && !outside
            && matches!(before, b"{" | b",")
            && matches!(token, b"," | b"=" | b"}" | b"__attribute__" | b"__attribute")
            && is_identifier(last)
        {
            self.names.push(last);
        }
        self.last = [last, token];
        Some(ends)
    }

    fn item(mut self, text: &'t [u8], end: usize) -> Option<Item<'t>> {
        if self.head == [b";"] && !self.acts {
            return None;
        }
        let kind = self.describe();
        self.names.sort_unstable();
        self.names.dedup();
        Some(Item { text: text.get(self.start..end)?, key: self.hash.finish(), kind, names: self.names })
    }

    fn describe(&mut self) -> Kind {
        let has = |words: &[&[u8]]| self.head.iter().any(|t| words.contains(t));
        let kept = self.head.iter().any(|t| KEEPS.contains(t));
        let first = self.head.iter().copied().find(|t| *t != b"__extension__").unwrap_or_default();
        if first == b"_Static_assert" {
            return Kind::Named;
        }
        let (silent, inline, fixed, typedef) =
            (has(&[b"extern"]), has(&[b"static"]) && has(INLINE), has(TAGS), has(&[b"typedef"]));
        let mut declared = Vec::new();
        let understood = declarators(&self.head, 0, &mut declared);
        let functions = !declared.is_empty() && declared.iter().all(|d| d.called);
        let unnamed = declared.is_empty();
        self.names.extend(declared.into_iter().map(|d| d.name));
        let named = if !understood || kept || self.acts || matches!(first, b"asm" | b"__asm__" | b"__asm") {
            false
        } else if self.body {
            inline && functions
        } else if self.assigned {
            false
        } else if unnamed {
            fixed
        } else {
            typedef || silent || functions
        };
        if named { Kind::Named } else { Kind::Emits }
    }
}

/// A name that a declaration gives.
#[derive(Clone, Copy, Debug)]
struct Declared<'t> {
    name: &'t [u8],
    /// It has parameters.
    called: bool,
}

/// Whether a brace behind this is a function's: it has a list of parameters.
fn is_function(head: &[&[u8]]) -> bool {
    let mut declared = Vec::new();
    declarators(head, 0, &mut declared);
    declared.iter().any(|d| d.called)
}

/// The names that stand where C lets a declarator stand: what follows one is a list of parameters, a bound, the end of the declarator, or an
/// attribute before one of these; whether all of it was looked at. Names of types in front of it are followed by something else; of parameters nothing is looked at.
fn declarators<'t>(tokens: &[&'t [u8]], depth: usize, found: &mut Vec<Declared<'t>>) -> bool {
    if depth > DEEPEST {
        return false;
    }
    let at = |i: usize| tokens.get(i).copied().unwrap_or_default();
    let mut i = 0;
    while i < tokens.len() {
        let token = at(i);
        let before = i.checked_sub(1).map(at).unwrap_or_default();
        if token == b"(" {
            let Some(end) = closing(tokens, i) else { return false };
            let inside = tokens.get(i + 1..end).unwrap_or_default();
            let next = at(end + 1);
            let list = is_identifier(before) || matches!(before, b")" | b"]");
            let declares = !list || matches!(next, b"(" | b"[") || matches!(inside.first(), Some(&(b"*" | b"(")));
            match inside {
                _ if ATTRIBUTES.contains(&before) => {}
                // A name in parentheses, or the type of a parameter.
                [name] if list && is_identifier(name) => found.push(Declared { name, called: true }),
                _ if declares && !declarators(inside, depth + 1, found) => return false,
                _ => {}
            }
            i = end + 1;
            continue;
        }
        if is_identifier(token) && !TAGS.contains(&before) {
            let behind = behind_attributes(tokens, i + 1);
            let next = at(behind);
            if matches!(next, b"" | b"(" | b"[" | b"=" | b"," | b";" | b":" | b")") {
                // `type (*name)`, `type (name)(..)`: the type is no name, and what it seems to have is no list of parameters.
                let end = closing(tokens, behind).map(|end| at(end + 1)).unwrap_or_default();
                let called = next == b"(" && at(behind + 1) != b"*" && !matches!(end, b"(" | b"[");
                found.push(Declared { name: token, called });
            }
        }
        i += 1;
    }
    true
}

/// The first token from `i` on that belongs to no attribute.
fn behind_attributes(tokens: &[&[u8]], mut i: usize) -> usize {
    while tokens.get(i).is_some_and(|t| ATTRIBUTES.contains(t)) {
        match tokens.get(i + 1) {
            Some(&b"(") => i = closing(tokens, i + 1).map_or(tokens.len(), |end| end + 1),
            _ => i += 1,
        }
    }
    i
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[&[u8]], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match *token {
            b"(" => depth = depth.saturating_add(1),
            b")" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// The next word, string or mark, and where it begins and ends.
fn token(text: &[u8], from: usize) -> Option<(&[u8], usize, usize)> {
    let rest = text.get(from..)?;
    let start = from.checked_add(rest.iter().position(|b| !b.is_ascii_whitespace())?)?;
    let rest = text.get(start..)?;
    let first = *rest.first()?;
    let len = if is_word(first) {
        rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len())
    } else if matches!(first, b'"' | b'\'') {
        let mut len = 1;
        while let Some(b) = rest.get(len) {
            len += if *b == b'\\' { 2 } else { 1 };
            if *b == first {
                break;
            }
        }
        len.min(rest.len())
    } else {
        1
    };
    let end = start.checked_add(len)?;
    Some((text.get(start..end)?, start, end))
}

fn is_line_start(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let line = memchr::memrchr(b'\n', before).map_or(0, |n| n.saturating_add(1));
    before.get(line..).unwrap_or_default().iter().all(u8::is_ascii_whitespace)
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || b >= 0x80
}

fn is_name(token: &[u8]) -> bool {
    token.first().is_some_and(|b| is_word(*b) && !b.is_ascii_digit())
}

/// A word that can be the name of something.
fn is_identifier(token: &[u8]) -> bool {
    is_name(token) && !KEYWORDS.contains(&token) && !TAGS.contains(&token) && !ATTRIBUTES.contains(&token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let word = |w: &&[u8]| String::from_utf8_lossy(w).into_owned();
        let item = |i: &Item<'_>| format!("{:?} {}", i.kind, i.names.iter().map(word).collect::<Vec<_>>().join(" "));
        items(text.as_bytes()).unwrap().iter().map(item).collect()
    }

    fn one(text: &str) -> String {
        let all = shown(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all[0].clone()
    }

    #[test]
    fn what_only_names_something_has_all_its_names() {
        for (text, want) in [
            ("static inline int f(struct a *x)\n{\n\treturn g(x) ? 1 : 0;\n}\n", "Named f"),
            (
                "static inline __attribute__((__gnu_inline__)) __attribute__((__unused__)) u32 f(void) { return h; }",
                "Named f",
            ),
            (
                "static inline u32 __attribute__((__x__(1))) f(__attribute__((unused)) u32 a, int (*b)(u32)) { }",
                "Named f",
            ),
            ("static inline struct t *(*f(int a))(int b) { return 0; }", "Named f"),
            ("extern struct net *dev_net(const struct net_device *dev) __attribute__((x(1, 2)));", "Named dev_net"),
            ("int f(int (*callback)(void *), void *x);", "Named f"),
            ("extern int x asm(\"y\");", "Named x"),
            ("extern u32 (*hooks[2])(struct foo *), (*const one)(void), b[3];", "Named b hooks one u32"),
            ("struct foo;", "Named "),
            (
                "struct foo { int a; struct in { enum k { A, B = 2 } m; } c; } __attribute__((packed));",
                "Named A B foo in k",
            ),
            ("struct __attribute__((packed)) foo { int a, b; };", "Named foo"),
            ("typedef u32 (*handler_t)(struct foo *);", "Named handler_t u32"),
            ("typedef u32 (handler_t)(struct foo *);", "Named handler_t u32"),
            ("typedef struct { int counter; } atomic_t;", "Named atomic_t"),
            ("enum { A, B = 1, C };", "Named A B C"),
            ("enum __attribute__((packed)) e { A, B __attribute__((x)), };", "Named A B e"),
            ("extern __attribute__((section(\".data\"))) __typeof__(struct foo) x;", "Named x"),
            ("_Static_assert(sizeof(struct foo) == 8, \"f\");", "Named "),
        ] {
            assert_eq!(one(text), want, "{text}");
        }
    }

    #[test]
    fn what_can_be_code_or_data_is_taken_for_it() {
        for text in [
            "int f(void) { return 1; }",
            "static int f(void) { return 1; }",
            "static const int table[] = { 1, 2 };",
            "struct foo { int a; } x;",
            "u32 (*hook)(int);",
            "int x;",
            "int (x);",
            "asm(\"nop\");",
            "static inline __attribute__((__used__)) int f(void) { return 0; }",
            "extern int f(void) __attribute__((alias(\"g\")));",
            "int f(void), x;",
            "#pragma pack(push, 1)\n",
            "extern int x = 2;",
        ] {
            assert!(one(text).starts_with("Emits"), "{text}: {}", one(text));
        }
        assert_eq!(items(b"int f(void) { "), None);
        assert_eq!(items(b"int f(void) } "), None);
        // Deeper than anybody writes: not understood, and no end of the stack.
        let deep = format!("extern int {}f{}(void);", "(".repeat(200_000), ")".repeat(200_000));
        assert!(one(&deep).starts_with("Emits"));
        assert_eq!(shown("#pragma GCC diagnostic push\n;;int a; int f(void) { \"}\"; '}'; }"), ["Emits a", "Emits f"]);
    }

    const UNIT: &str = "struct s { int a; }; static inline int deep(struct s *s) { return s->a; } \
                        static inline int f(struct s *s) { return deep(s); } static inline int g(void) { return 1; } ";

    fn change(rest: &str, from: &str, to: &str) -> bool {
        assert!(UNIT.contains(from));
        differs(format!("{UNIT}{rest}").as_bytes(), format!("{}{rest}", UNIT.replace(from, to)).as_bytes())
    }

    #[test]
    fn names_are_followed_from_what_makes_code() {
        let uses_f = "int code(void *x) { return f(x); }";
        assert!(change(uses_f, "return s->a", "return s->a + 1"));
        assert!(change(uses_f, "{ int a; }", "{ int b, a; }"));
        assert!(!change(uses_f, "return 1", "return 2"));
        assert!(!change("int code(void) { return g(); }", "return s->a", "return s->a + 1"));
        assert!(change("int code(void) { return g(); }", "return 1", "return 2"));
        // In a string of assembly, in an attribute, by a pointer.
        assert!(change("asm(\"call g\");", "return 1", "return 2"));
        assert!(change("int (*p)(void) = g;", "return 1", "return 2"));
        // What is new and used by what is there already, or instead of something else.
        let old = "int f(int); static inline int h(int a) { return f(a); } int code(void) { return h(1); }";
        assert!(differs(old.as_bytes(), format!("static inline int f(int a) {{ return a; }} {old}").as_bytes()));
        assert!(!differs(old.as_bytes(), format!("static inline int k(int a) {{ return a; }} {old}").as_bytes()));
        // Something that acts on what follows.
        assert!(differs(old.as_bytes(), format!("#pragma pack(1)\n{old}").as_bytes()));
        assert!(!differs(old.as_bytes(), old.replace(' ', "\n  ").as_bytes()));
        // More of a change than is looked at.
        let many: String = (0..1_001).map(|i| format!("extern int x{i};")).collect();
        assert!(differs(old.as_bytes(), format!("{old}{many}").as_bytes()));
        // gcc calls it for an assignment.
        assert!(differs(b"void *memset(void *, int, long);", b"void *memset(void *, int, long) asm(\"other\");"));
    }
}
