//! The text of a header -> what it defines, and by which words.
//!
//! Input: C source as the kernel's headers have it. Output: [`HeaderItem`]s in order: definitions, declarations, macros and directives, each with
//! the names it gives and all words in it; nothing when braces do not balance in every branch of the conditions, where one item
//! cannot be told from the next. What an item means is not asked: where it cannot be told that it only names something, it is said to
//! put code or data into every object that reads it.

use std::collections::BTreeSet;

/// A piece of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderItem<'t> {
    /// All words in order: identifiers, numbers, punctuation; without white space and comments.
    pub tokens: Vec<&'t [u8]>,
    /// What others refer to it by.
    pub names: BTreeSet<&'t [u8]>,
    /// What a macro glues together (`##`), in order; nothing stands for what it is given.
    pub glued: Vec<Vec<Option<&'t [u8]>>>,
    /// It is a macro.
    pub is_macro: bool,
    /// What it is.
    pub kind: ItemKind,
    /// Conditions inside it begin or end outside.
    pub uneven: bool,
}

/// What is known of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ItemKind {
    /// An object has nothing of it that does not use one of its names.
    #[default]
    Named,
    /// Code or data for every object that reads it, for all that can be told.
    Emits,
    /// `#if`, `#ifdef`, `#ifndef`.
    If,
    /// `#else`, `#elif`.
    Else,
    /// `#endif`.
    EndIf,
    /// `#include` and everything else that acts on what follows.
    Acts,
}

/// Words in front of a parenthesis that name no function.
const ATTRIBUTES: &[&[u8]] = &[
    b"__attribute__",
    b"__attribute",
    b"__printf",
    b"__scanf",
    b"__aligned",
    b"__section",
    b"__acquires",
    b"__releases",
    b"__must_hold",
    b"__cond_acquires",
    b"__alloc_size",
    b"__nonnull",
    b"__counted_by",
    b"__assume_aligned",
    b"asm",
    b"__asm__",
    b"__diagnose_as",
    b"__realloc_size",
    b"__no_sanitize",
    b"typeof",
    b"__typeof__",
    b"sizeof",
    b"alignof",
    b"_Alignof",
    b"__alignof__",
    b"_Static_assert",
    b"static_assert",
    b"__bpf_kfunc",
    b"__assume",
    b"__guarded_by",
];
const TAGS: &[&[u8]] = &[b"struct", b"union", b"enum"];
const INLINE: &[&[u8]] = &[b"inline", b"__inline", b"__inline__", b"__always_inline"];
const KEYWORDS: &[&[u8]] = &[
    b"const",
    b"volatile",
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
    b"unsigned",
    b"float",
    b"double",
    b"_Bool",
    b"bool",
    b"restrict",
    b"__restrict",
    b"_Atomic",
];

/// The items of a header; nothing when they cannot be told apart.
pub fn items(text: &[u8]) -> Option<Vec<HeaderItem<'_>>> {
    let mut parser = Parser::default();
    let mut at = 0;
    while let Some((token, next)) = token(text, at) {
        match token {
            Token::Directive(line) => parser.directive(line)?,
            Token::Word(w) => parser.word(w),
            Token::String(s) => words(s, |w| parser.hidden(w)),
            Token::Mark(m) => parser.mark(m)?,
        }
        at = next;
    }
    parser.finish()
}

/// Calls `found` with every word (identifier or number) of a source that is in no comment.
pub fn words<'t>(text: &'t [u8], mut found: impl FnMut(&'t [u8])) {
    let mut at = 0;
    while let Some((token, next)) = token_in(text, at, false) {
        match token {
            Token::Word(w) => found(w),
            Token::String(s) => s.split(|b| !is_word(*b)).filter(|w| !w.is_empty()).for_each(&mut found),
            _ => {}
        }
        at = next;
    }
}

#[derive(Clone, Copy, Debug)]
enum Token<'t> {
    Word(&'t [u8]),
    /// What is between the quotes.
    String(&'t [u8]),
    Mark(&'t [u8]),
    /// Behind the `#`, up to the end of its last line.
    Directive(&'t [u8]),
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$'
}

fn token(text: &[u8], at: usize) -> Option<(Token<'_>, usize)> {
    token_in(text, at, true)
}

/// The token at or behind `at`, and where the next may begin.
fn token_in(text: &[u8], mut at: usize, directives: bool) -> Option<(Token<'_>, usize)> {
    let mut fresh_line = text.get(..at)?.iter().rev().take_while(|b| **b != b'\n').all(u8::is_ascii_whitespace);
    loop {
        let rest = text.get(at..)?;
        let first = *rest.first()?;
        match first {
            b'\n' => {
                fresh_line = true;
                at += 1;
            }
            _ if first.is_ascii_whitespace() => at += 1,
            b'\\' if matches!(rest.get(1), Some(b'\n' | b'\r')) => at += 2,
            b'/' if rest.get(1) == Some(&b'*') => {
                let end = memchr::memmem::find(rest.get(2..)?, b"*/").map_or(rest.len(), |n| n + 4);
                at += end;
            }
            b'/' if rest.get(1) == Some(&b'/') => at += memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            b'#' if fresh_line && directives => {
                let len = logical_line(rest);
                return Some((Token::Directive(rest.get(1..len)?), at + len));
            }
            b'"' | b'\'' => {
                let len = quoted(rest, first);
                return Some((Token::String(rest.get(1..len.max(2) - 1).unwrap_or_default()), at + len));
            }
            _ if is_word(first) => {
                let len = rest.iter().take_while(|b| is_word(**b)).count();
                return Some((Token::Word(rest.get(..len)?), at + len));
            }
            b'#' if rest.get(1) == Some(&b'#') => return Some((Token::Mark(rest.get(..2)?), at + 2)),
            _ => return Some((Token::Mark(rest.get(..1)?), at + 1)),
        }
    }
}

/// Length of a string or character with its quotes; an apostrophe in assembly ends with the line.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(b) = rest.get(at) {
        match b {
            b'\\' => at += 1,
            b'\n' => return at,
            _ if *b == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// Length of a directive with its continued lines; a comment may go on behind the end of one.
fn logical_line(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(b) = rest.get(at) {
        match b {
            b'\n' if rest.get(at.saturating_sub(1)) != Some(&b'\\') => return at,
            b'/' if rest.get(at + 1) == Some(&b'*') => {
                let behind = rest.get(at + 2..).unwrap_or_default();
                at += memchr::memmem::find(behind, b"*/").map_or(behind.len(), |n| n + 3);
            }
            b'"' => at += quoted(rest.get(at..).unwrap_or_default(), b'"').saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

/// Braces and parentheses that are open.
type Depth = (usize, usize);

#[derive(Debug)]
struct Branches {
    before: Depth,
    /// Behind the first branch, when that is over.
    after: Option<Depth>,
    has_else: bool,
}

#[derive(Debug, Default)]
struct Parser<'t> {
    done: Vec<HeaderItem<'t>>,
    open: HeaderItem<'t>,
    /// Depth of each of the open item's tokens.
    depths: Vec<Depth>,
    depth: Depth,
    conditions: Vec<Branches>,
    /// A brace of depth 0 of the open item opens the body of a function.
    body: bool,
    /// Conditions that the open item has begun and not ended.
    inside: isize,
}

impl<'t> Parser<'t> {
    fn push(&mut self, token: &'t [u8]) {
        self.open.tokens.push(token);
        self.depths.push(self.depth);
    }

    fn word(&mut self, w: &'t [u8]) {
        self.push(w);
    }

    /// A word in a string: it counts as a word, but is none of the grammar.
    fn hidden(&mut self, w: &'t [u8]) {
        self.open.tokens.push(w);
        self.depths.push((usize::MAX, 0));
    }

    fn mark(&mut self, m: &'t [u8]) -> Option<()> {
        match m {
            b"{" => {
                if self.depth == (0, 0) {
                    self.body = self.is_function();
                }
                self.push(m);
                self.depth.0 += 1;
            }
            b"}" => {
                self.depth.0 = self.depth.0.checked_sub(1)?;
                self.push(m);
                if self.depth == (0, 0) && self.body {
                    self.end();
                }
            }
            b"(" => {
                self.push(m);
                self.depth.1 += 1;
            }
            b")" => {
                self.depth.1 = self.depth.1.checked_sub(1)?;
                self.push(m);
            }
            b";" if self.depth == (0, 0) => {
                self.push(m);
                self.end();
            }
            _ => self.push(m),
        }
        Some(())
    }

    fn directive(&mut self, line: &'t [u8]) -> Option<()> {
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some((token, next)) = token_in(line, at, false) {
            match token {
                Token::Word(w) | Token::Mark(w) => tokens.push(w),
                Token::String(s) => words(s, |w| tokens.push(w)),
                Token::Directive(_) => {}
            }
            at = next;
        }
        let kind = match tokens.first().copied() {
            Some(b"define" | b"undef") => ItemKind::Named,
            Some(b"if" | b"ifdef" | b"ifndef") => {
                self.conditions.push(Branches { before: self.depth, after: None, has_else: false });
                ItemKind::If
            }
            Some(b"else" | b"elif" | b"elifdef" | b"elifndef") => {
                let c = self.conditions.last_mut()?;
                if c.after.is_some_and(|d| d != self.depth) {
                    return None;
                }
                c.after = Some(self.depth);
                c.has_else |= tokens.first() == Some(&b"else".as_slice());
                self.depth = c.before;
                ItemKind::Else
            }
            Some(b"endif") => {
                let c = self.conditions.pop()?;
                let other = if c.has_else { c.after } else { Some(c.before) };
                if other != Some(self.depth) || c.after.is_some_and(|d| d != self.depth) {
                    return None;
                }
                ItemKind::EndIf
            }
            None => return Some(()),
            Some(_) => ItemKind::Acts,
        };
        if kind != ItemKind::Named {
            // Inside an item it is a part of that; what acts on the rest stands for itself as well.
            if !self.open.tokens.is_empty() {
                for t in &tokens {
                    self.hidden(t);
                }
                self.inside += match kind {
                    ItemKind::If => 1,
                    ItemKind::EndIf => -1,
                    _ => 0,
                };
            }
            if self.open.tokens.is_empty() || kind == ItemKind::Acts {
                self.done.push(HeaderItem { tokens, kind, ..HeaderItem::default() });
            }
            return Some(());
        }
        let mut item = HeaderItem { kind, ..HeaderItem::default() };
        item.names.extend(tokens.get(1));
        let parameters: BTreeSet<&[u8]> = match tokens.get(2) {
            Some(b) if *b == b"(" => tokens.iter().skip(3).take_while(|t| **t != b")").copied().collect(),
            _ => BTreeSet::new(),
        };
        let part = |t: &'t [u8]| (!parameters.contains(t) && t != b"__VA_ARGS__").then_some(t);
        let mut chain: Vec<Option<&[u8]>> = Vec::new();
        for (i, t) in tokens.iter().enumerate() {
            if *t != b"##" {
                continue;
            }
            let sides = [i.checked_sub(1).and_then(|p| tokens.get(p)), tokens.get(i + 1)];
            let [Some(left), Some(right)] = sides else { continue };
            if chain.is_empty() {
                chain.push(part(left));
            }
            chain.push(part(right));
            if tokens.get(i + 2).is_none_or(|t| *t != b"##") {
                item.glued.push(std::mem::take(&mut chain));
            }
        }
        item.is_macro = true;
        item.tokens = tokens;
        self.done.push(item);
        Some(())
    }

    /// Tokens at depth 0 with their places, up to a brace.
    fn head(&self) -> impl Iterator<Item = (usize, &'t [u8])> + '_ {
        let all = self.open.tokens.iter().zip(&self.depths).enumerate();
        all.filter(|(_, (_, d))| **d == (0, 0)).map(|(i, (t, _))| (i, *t))
    }

    /// Words in front of a parenthesis that are no attribute, at depth 0.
    fn called(&self) -> Vec<&'t [u8]> {
        let next = |i: usize| self.open.tokens.get(i + 1).is_some_and(|t| *t == b"(");
        self.head().filter(|(i, t)| is_name(t) && !ATTRIBUTES.contains(t) && next(*i)).map(|(_, t)| t).collect()
    }

    fn has(&self, word: &[u8]) -> bool {
        self.head().any(|(_, t)| t == word)
    }

    fn is_function(&self) -> bool {
        !self.has(b"=") && !self.called().is_empty() && !self.has(b"typedef")
    }

    fn end(&mut self) {
        self.describe();
        let mut item = std::mem::take(&mut self.open);
        item.uneven = self.inside != 0;
        self.inside = 0;
        self.depths.clear();
        self.body = false;
        if item.tokens != [b";"] {
            self.done.push(item);
        }
    }

    fn describe(&mut self) {
        let called = self.called();
        let first = self.open.tokens.first().copied().unwrap_or_default();
        let invoked = called.first().is_some_and(|c| *c == first) || called.iter().any(|w| is_shouted(w));
        let grammar = |t: &[u8]| KEYWORDS.contains(&t) || TAGS.contains(&t);
        let all = self.open.tokens.iter().copied().filter(|t| is_name(t) && !grammar(t));
        if self.has(b"__used") || first == b"asm" || first == b"__asm__" {
            self.open.kind = ItemKind::Emits;
        } else if invoked {
            // A macro: only some are known to declare and no more.
            let declares = called.iter().all(|c| c.starts_with(b"DECLARE_"));
            self.open.kind = if declares { ItemKind::Named } else { ItemKind::Emits };
            self.open.names = if declares { all.collect() } else { BTreeSet::new() };
        } else if self.body {
            let inline = self.head().any(|(_, t)| INLINE.contains(&t)) && (self.has(b"static") || self.has(b"extern"));
            self.open.kind = if inline { ItemKind::Named } else { ItemKind::Emits };
            self.open.names = called.into_iter().collect();
        } else {
            self.open.names = self.declared();
            let prototype = !called.is_empty();
            let silent = self.has(b"extern") || self.has(b"typedef") || prototype || self.only_type();
            self.open.kind = if silent && !self.has(b"=") { ItemKind::Named } else { ItemKind::Emits };
            // What it gives could not be told, so nobody can be seen to use it.
            if self.open.names.is_empty() {
                self.open.kind = ItemKind::Emits;
            }
            if matches!(first, b"static_assert" | b"_Static_assert") {
                self.open.kind = ItemKind::Named;
            }
        }
    }

    /// `struct tag;`, or `struct tag { .. };` without a variable.
    fn only_type(&self) -> bool {
        let head: Vec<&[u8]> = self.head().map(|(_, t)| t).filter(|t| !KEYWORDS.contains(t)).collect();
        match head.as_slice() {
            [tag, name, b";"] | [tag, name, b"{", b"}", b";"] => TAGS.contains(tag) && is_name(name),
            [tag, b"{", b"}", b";"] => TAGS.contains(tag),
            // Attributes behind the brace.
            [tag, name, b"{", b"}", rest @ .., b";"] if TAGS.contains(tag) && is_name(name) => {
                rest.iter().all(|t| t.starts_with(b"__") || matches!(*t, b"(" | b")" | b","))
            }
            _ => false,
        }
    }

    /// Tags that get a body, enumerators, and whatever stands where a declarator does.
    fn declared(&self) -> BTreeSet<&'t [u8]> {
        let tokens = &self.open.tokens;
        let mut names = BTreeSet::new();
        let at = |i: usize| tokens.get(i).copied().unwrap_or_default();
        let mut enumeration = false;
        for (i, t) in tokens.iter().enumerate() {
            if TAGS.contains(t) {
                let behind = tokens.iter().skip(i + 1).take_while(|t| is_name(t)).count();
                let tags = tokens.get(i + 1..i + 1 + behind).unwrap_or_default();
                // `struct tag {`, perhaps with attributes between, and `struct tag;`.
                match at(i + 1 + behind) {
                    b"{" => names.extend(tags),
                    b";" if behind == 1 => names.extend(tags),
                    _ => {}
                }
            }
            enumeration |= *t == b"enum";
            let depth = self.depths.get(i).copied().unwrap_or_default();
            let after_tag = i > 0 && TAGS.contains(&at(i - 1));
            if !is_name(t) || KEYWORDS.contains(t) || TAGS.contains(t) || ATTRIBUTES.contains(t) || after_tag {
                continue;
            }
            // Attributes may stand between the name and the end: `extern int x __read_mostly;`
            let next = at(i + 1);
            let declares = matches!(next, b"(" | b";" | b"," | b"=" | b"[" | b":" | b")")
                || next.starts_with(b"__")
                || is_shouted(next);
            let pointer = depth == (0, 1) && i > 1 && at(i - 1) == b"*" && at(i - 2) == b"(";
            let enumerator = enumeration && depth.0 > 0 && matches!(at(i - 1), b"{" | b",");
            if depth == (0, 0) && declares || pointer || enumerator {
                names.insert(*t);
            }
        }
        names
    }

    fn finish(mut self) -> Option<Vec<HeaderItem<'t>>> {
        if self.depth != (0, 0) || !self.conditions.is_empty() {
            return None;
        }
        if !self.open.tokens.is_empty() {
            // Something without its end: a macro that stands alone.
            self.open.kind = ItemKind::Emits;
            self.done.push(self.open);
        }
        Some(self.done)
    }
}

/// In capitals, as names of macros are.
fn is_shouted(token: &[u8]) -> bool {
    token.iter().any(u8::is_ascii_uppercase) && !token.iter().any(u8::is_ascii_lowercase)
}

fn is_name(token: &[u8]) -> bool {
    token.first().is_some_and(|b| is_word(*b) && !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<Vec<String>> {
        let word = |w: &&[u8]| String::from_utf8_lossy(w).into_owned();
        let item = |i: &HeaderItem<'_>| {
            let names: Vec<String> = i.names.iter().map(word).collect();
            format!("{:?} {}", i.kind, names.join(" "))
        };
        Some(items(text.as_bytes())?.iter().map(item).collect())
    }

    fn one(text: &str) -> String {
        let all = shown(text).unwrap();
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all[0].clone()
    }

    #[test]
    fn definitions_and_declarations_have_names() {
        for (text, want) in [
            ("static inline int f(struct a *x)\n{\n\treturn g(x) ? 1 : 0;\n}\n", "Named f"),
            ("static __always_inline __must_check bool f(void) { return h; }", "Named f"),
            ("static inline __attribute__((const)) struct t *f(int a) { return 0; }", "Named f"),
            ("extern struct net *dev_net(const struct net_device *dev) __printf(1, 2);", "Named dev_net"),
            ("int f(int (*callback)(void *), void *x);", "Named f"),
            ("struct foo;", "Named foo"),
            ("struct foo { int a; struct in { int b; } c; } __packed;", "Named __packed foo in"),
            ("typedef int (*handler_t)(struct foo *);", "Named handler_t"),
            ("typedef struct { int counter; } atomic_t;", "Named atomic_t"),
            ("enum kind { A, B = 2, C };", "Named A B C kind"),
            ("enum { A, B };", "Named A B"),
            ("#define F(a, b) a##_x##b \\\n\tg(a)\n", "Named F"),
            ("extern int a, b[3];", "Named a b"),
            ("extern struct foo a __read_mostly;", "Named __read_mostly a"),
            ("extern void (*hooks[2])(struct foo *);", "Named hooks"),
            ("static_assert(sizeof(struct foo) == 8);", "Named "),
            ("DECLARE_PER_CPU(int, x);", "Named DECLARE_PER_CPU x"),
        ] {
            assert_eq!(one(text), want, "{text}");
        }
    }

    #[test]
    fn what_may_be_in_every_object_is_said_to_be() {
        for text in [
            "int f(void) { return 1; }",
            "static int f(void) { return 1; }",
            "static const int table[] = { 1, 2 };",
            "struct foo { int a; } x;",
            "int x;",
            "late_initcall(f);",
            "TRACE_EVENT(x, TP_PROTO(int a), TP_ARGS(a));",
            "static DEFINE_SPINLOCK(lock);",
            "build_read(readb, \"b\") static inline int f(void) { return 0; }",
            "asm(\"nop\");",
            "static inline __used int f(void) { return 0; }",
            "LONELY",
        ] {
            assert!(one(text).starts_with("Emits"), "{text}: {}", one(text));
        }
    }

    #[test]
    fn branches_that_differ_in_depth_cannot_be_told_apart() {
        assert_eq!(shown("#ifdef __cplusplus\nextern \"C\" {\n#endif\nint a(void);\n"), None);
        assert_eq!(shown("int f(void) {\n#ifdef A\nif (x) {\n#else\n#endif\n}\n"), None);
        assert_eq!(shown("static inline int f(void) {"), None);
        let both = "#ifdef A\nstatic inline int f(int a)\n#else\nstatic inline int f(void)\n#endif\n{ return 0; }\n";
        assert!(shown(both).is_some_and(|all| all.len() == 2 && all[1] == "Named f"), "{:?}", shown(both));
        let guarded = "#ifndef G\n#define G\nint a(void);\n#endif\n";
        assert_eq!(shown(guarded).unwrap(), ["If ", "Named G", "Named a", "EndIf "]);
        assert_eq!(shown("#include <x.h>\n").unwrap(), ["Acts "]);
    }

    #[test]
    fn comments_are_no_words_and_strings_are() {
        let mut found = Vec::new();
        words(b"a /* b */ \"c %d d\" // e\n f 'g' 8x", |w| found.push(w.to_vec()));
        assert_eq!(found, ["a", "c", "d", "d", "f", "g", "8x"].map(|w| w.as_bytes().to_vec()));
        let glued = items(b"#define F(x) vlan_##x##_get y##x z\n").unwrap();
        let parts = |i: usize| glued[0].glued[i].iter().map(|p| p.map(String::from_utf8_lossy)).collect::<Vec<_>>();
        assert_eq!(parts(0), [Some("vlan_".into()), None, Some("_get".into())]);
        assert_eq!(parts(1), [Some("y".into()), None]);
    }
}
