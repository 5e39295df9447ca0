//! Changed headers -> the objects that can be concerned, of all that include them.
//!
//! Input: a change, and who includes whom. Output: for each changed header, the objects whose text mentions what is changed, or
//! something that mentions it, and so on; the others come out of the compiler as before. Every object that includes the header is
//! concerned when more than names changes: directives that act on what follows, conditions that do not end where they begin, code or data
//! that every reader gets ([`super::items`]).
//!
//! ```text
//! change of a header   old items, new items            what was added, removed, altered: its names
//! all headers          item mentions a name            its own names join them, until none does
//!                      .. and is in every reader       all who include that header are concerned
//! source of an object  mentions a name                 concerned
//! ```
//!
//! A name can be glued together by a macro (`a##b`): a text mentions it also by its pieces, if it has those that such a macro does not
//! bring along, and leads to that macro.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::includes::IncludeIndex;
use super::items::{self, HeaderItem, ItemKind};
use super::patch::SourceChange;

/// Names of more than this are not followed: every object that includes the header is concerned.
const MOST_NAMES: usize = 1_000;
/// Ways of gluing one name together that are tried, for one macro; with more, whoever includes the header is concerned.
const MOST_WAYS: usize = 10_000;

/// A word, by number.
type Word = u32;

/// A piece of a header, in numbers.
#[derive(Debug)]
struct Piece {
    file: u32,
    names: Box<[Word]>,
    /// Sorted, each once.
    words: Box<[Word]>,
    emits: bool,
    is_macro: bool,
}

/// A way in which a macro glues a word together; nothing stands for what the macro is given.
#[derive(Debug)]
struct Glue {
    by: Word,
    parts: Box<[Option<Box<[u8]>>]>,
}

/// What a text has to have so that a macro glues a name together of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pieces {
    /// One of these.
    leads: Rc<FxHashSet<Word>>,
    /// And all of these.
    given: Vec<Box<[u8]>>,
}

/// A name that is glued together of what a macro is given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Split {
    /// The macro.
    by: Word,
    given: Vec<Box<[u8]>>,
}

/// What all headers define.
#[derive(Debug, Default)]
pub struct Mentions {
    numbers: FxHashMap<Box<[u8]>, Word>,
    texts: Vec<Box<[u8]>>,
    pieces: Vec<Piece>,
    /// By word: the pieces that have it.
    with: FxHashMap<Word, Vec<u32>>,
    glues: Vec<Glue>,
}

/// Who is concerned by a changed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// Whoever includes it.
    All,
    /// Whoever mentions one of these names, or includes one of these files.
    Of(Followed),
}

/// Names that lead to what has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    names: FxHashSet<Word>,
    /// By the first piece: all pieces, and the words that lead to the macro.
    splits: FxHashMap<Box<[u8]>, Vec<Pieces>>,
    /// Files that give code or data to all who include them.
    pub emitters: BTreeSet<u32>,
}

impl Mentions {
    /// Reads all headers of the index, and the new text of those that change.
    pub fn read(index: &IncludeIndex, source: &Path, build: &Path, change: &SourceChange) -> Self {
        let mut all = Self::default();
        for (id, path) in index.included() {
            let text = std::fs::read(source.join(path)).or_else(|_| std::fs::read(build.join(path)));
            all.add(id, path, &text.unwrap_or_default());
            if let Some(new) = change.files.get(path).and_then(|f| f.new.as_ref()) {
                all.add(id, path, new);
            }
        }
        for (i, piece) in all.pieces.iter().enumerate() {
            for word in &piece.words {
                all.with.entry(*word).or_default().push(u32::try_from(i).unwrap_or(u32::MAX));
            }
        }
        all
    }

    fn number(&mut self, text: &[u8]) -> Word {
        if let Some(n) = self.numbers.get(text) {
            return *n;
        }
        let n = Word::try_from(self.texts.len()).unwrap_or(Word::MAX);
        self.numbers.insert(text.into(), n);
        self.texts.push(text.into());
        n
    }

    fn add(&mut self, file: u32, path: &str, text: &[u8]) {
        // What a source included by another one defines is in that one in any case.
        let found = if path.ends_with(".c") || path.ends_with(".S") { None } else { items::items(text) };
        let Some(found) = found else {
            let mut all = BTreeSet::new();
            items::words(text, |w| {
                all.insert(self.number(w));
            });
            let words = all.into_iter().collect();
            self.pieces.push(Piece { file, names: Box::default(), words, emits: true, is_macro: false });
            return;
        };
        for item in found {
            let words: BTreeSet<Word> = item.tokens.iter().filter(|t| is_word(t)).map(|t| self.number(t)).collect();
            // All who could use the names of what is in every reader are concerned by that.
            let emits = item.kind == ItemKind::Emits;
            let names = if emits { Box::default() } else { item.names.iter().map(|t| self.number(t)).collect() };
            if let Some(by) = item.names.first().map(|n| self.number(n)) {
                let parts = |g: &Vec<Option<&[u8]>>| g.iter().map(|p| p.map(Box::from)).collect();
                self.glues.extend(item.glued.iter().map(|g| Glue { by, parts: parts(g) }));
            }
            if emits || item.kind == ItemKind::Named {
                let words = words.into_iter().collect();
                self.pieces.push(Piece { file, names, words, emits, is_macro: item.is_macro });
            }
        }
    }

    /// Who is concerned when a header changes from one text to another.
    pub fn concerned(&self, old: &[u8], new: &[u8]) -> Concerned {
        let (Some(old), Some(new)) = (items::items(old), items::items(new)) else { return Concerned::All };
        let Some(names) = changed_names(&old, &new) else { return Concerned::All };
        let mut followed = Followed::default();
        let mut todo: Vec<Word> = Vec::new();
        let mut joined: FxHashSet<u32> = FxHashSet::default();
        // A name that no text has is mentioned by none.
        todo.extend(names.iter().filter_map(|n| self.numbers.get(*n)));
        followed.names.extend(&todo);
        let mut leads = FxHashMap::default();
        while let Some(name) = todo.pop() {
            if followed.names.len() > MOST_NAMES {
                return Concerned::All;
            }
            let mut found: Vec<u32> = self.with.get(&name).cloned().unwrap_or_default();
            let Some(splits) = self.splits(name) else { return Concerned::All };
            for split in splits {
                let Some(first) = split.given.first() else {
                    // The macro brings everything along.
                    todo.extend(followed.names.insert(split.by).then_some(split.by));
                    continue;
                };
                let to = leads.entry(split.by).or_insert_with(|| Rc::new(self.leads_to(split.by)));
                let with = self.numbers.get(first).and_then(|w| self.with.get(w)).into_iter().flatten().copied();
                found.extend(with.filter(|p| {
                    let Some(p) = self.pieces.get(*p as usize) else { return false };
                    let has = |w: &Word| p.words.binary_search(w).is_ok();
                    split.given.iter().all(|g| self.numbers.get(g).is_some_and(has))
                        && p.words.iter().any(|w| to.contains(w))
                }));
                let pieces = Pieces { leads: Rc::clone(to), given: split.given.clone() };
                followed.splits.entry(first.clone()).or_default().push(pieces);
            }
            for piece in found {
                let Some(p) = self.pieces.get(piece as usize).filter(|_| joined.insert(piece)) else { continue };
                if p.emits {
                    followed.emitters.insert(p.file);
                }
                todo.extend(p.names.iter().filter(|n| followed.names.insert(**n)));
            }
        }
        Concerned::Of(followed)
    }

    /// Whether a text mentions one of the names.
    pub fn mentions(&self, text: &[u8], followed: &Followed) -> bool {
        let mut words = FxHashSet::default();
        items::words(text, |w| {
            words.insert(w);
        });
        let known: FxHashSet<Word> = words.iter().filter_map(|w| self.numbers.get(*w)).copied().collect();
        let glued =
            |p: &Pieces| p.given.iter().all(|g| words.contains(&**g)) && known.iter().any(|w| p.leads.contains(w));
        known.iter().any(|w| followed.names.contains(w))
            || words.iter().filter_map(|w| followed.splits.get(*w)).flatten().any(glued)
    }

    /// A macro, and all macros that lead to it.
    fn leads_to(&self, name: Word) -> FxHashSet<Word> {
        let mut all = FxHashSet::from_iter([name]);
        let mut todo = vec![name];
        while let Some(name) = todo.pop() {
            for piece in self.with.get(&name).into_iter().flatten() {
                let Some(p) = self.pieces.get(*piece as usize).filter(|p| p.is_macro) else { continue };
                todo.extend(p.names.iter().filter(|n| all.insert(**n)));
            }
        }
        all
    }

    /// The ways in which a name is glued together; nothing when they are too many to try.
    fn splits(&self, name: Word) -> Option<Vec<Split>> {
        let mut found = Vec::new();
        let text = self.texts.get(name as usize)?;
        for glue in &self.glues {
            let mut ways = MOST_WAYS;
            let take = &mut |given| found.push(Split { by: glue.by, given });
            split(text, &glue.parts, &mut Vec::new(), &mut ways, take)?;
        }
        Some(found)
    }
}

/// Calls `found` with what has to be given so that the parts make the text; nothing when that takes more than so many `ways`.
fn split(
    text: &[u8],
    parts: &[Option<Box<[u8]>>],
    given: &mut Vec<Box<[u8]>>,
    ways: &mut usize,
    found: &mut impl FnMut(Vec<Box<[u8]>>),
) -> Option<()> {
    *ways = ways.checked_sub(1)?;
    match parts {
        [] => {
            if text.is_empty() {
                found(given.clone());
            }
        }
        [Some(word), rest @ ..] => {
            if let Some(text) = text.strip_prefix(&**word) {
                split(text, rest, given, ways, found)?;
            }
        }
        // The last one is given all that is left.
        [None] => {
            if text.is_empty() {
                found(given.clone());
            } else {
                given.push(text.into());
                found(given.clone());
                given.pop();
            }
        }
        [None, rest @ ..] => {
            // Nothing may be given as well.
            for len in 0..=text.len() {
                let (head, tail) = text.split_at(len);
                if !head.is_empty() {
                    given.push(head.into());
                }
                split(tail, rest, given, ways, found)?;
                if !head.is_empty() {
                    given.pop();
                }
            }
        }
    }
    Some(())
}

fn is_word(token: &[u8]) -> bool {
    token.first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'$')
}

/// The names of what differs; nothing when that acts on what follows, or is in every object.
fn changed_names<'t>(old: &[HeaderItem<'t>], new: &[HeaderItem<'t>]) -> Option<BTreeSet<&'t [u8]>> {
    let keys = |items: &[HeaderItem<'t>]| -> Vec<Vec<&'t [u8]>> { items.iter().map(|i| i.tokens.clone()).collect() };
    let mut names = BTreeSet::new();
    for op in capture_diff_slices(Algorithm::Myers, &keys(old), &keys(new)) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let sides = [old.get(op.old_range())?, new.get(op.new_range())?];
        for run in sides {
            let mut depth = 0_usize;
            for item in run {
                match item.kind {
                    ItemKind::If => depth += 1,
                    ItemKind::EndIf => depth = depth.checked_sub(1)?,
                    ItemKind::Else if depth > 0 => {}
                    ItemKind::Named if !item.uneven => names.extend(&item.names),
                    _ => return None,
                }
            }
            if depth != 0 {
                return None;
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(headers: &[&str]) -> Mentions {
        let mut all = Mentions::default();
        for (i, text) in headers.iter().enumerate() {
            all.add(i as u32, "x.h", text.as_bytes());
        }
        for (i, piece) in all.pieces.iter().enumerate() {
            for word in &piece.words {
                all.with.entry(*word).or_default().push(i as u32);
            }
        }
        all
    }

    const OLD: &str =
        "static inline int get(int a)\n{\n\treturn a;\n}\n#define TWICE(x) (get(x) + get(x))\nextern int other(int);\n";

    /// Who of these texts is concerned.
    fn who(headers: &[&str], new: &str, sources: &[&str]) -> Option<Vec<bool>> {
        let texts: Vec<&str> = [OLD, new].into_iter().chain(headers.iter().copied()).collect();
        let all = all(&texts);
        match all.concerned(OLD.as_bytes(), new.as_bytes()) {
            Concerned::All => None,
            Concerned::Of(f) if !f.emitters.is_empty() => None,
            Concerned::Of(f) => Some(sources.iter().map(|s| all.mentions(s.as_bytes(), &f)).collect()),
        }
    }

    #[test]
    fn an_inline_function_concerns_who_mentions_it_or_who_does() {
        let new = OLD.replace("return a;", "return a + 1;");
        let headers = ["static inline int both(int a) { return TWICE(a); }"];
        let sources = ["x = get(1);", "y = TWICE(2);", "z = both(3);", "other(4);", "/* get */", "p->get = 1;"];
        assert_eq!(who(&headers, &new, &sources), Some(vec![true, true, true, false, false, true]));
    }

    #[test]
    fn what_is_only_added_concerns_nobody_who_does_not_use_it() {
        let new = format!(
            "{OLD}struct fresh;\nint newly(struct fresh *f);\n#ifdef CONFIG_X\n#define FRESH 1\n#else\n#define FRESH 2\n#endif\n"
        );
        assert_eq!(who(&[], &new, &["get(1);", "newly(0);", "FRESH"]), Some(vec![false, true, true]));
    }

    #[test]
    fn what_acts_on_the_rest_concerns_all() {
        for new in [
            format!("#include <linux/x.h>\n{OLD}"),
            format!("{OLD}#pragma pack(1)\n"),
            format!("#ifdef A\n{OLD}#endif\n"),
            format!("{OLD}static const int table[] = {{ 1 }};\n"),
            format!("{OLD}int f(void) {{ return 1; }}\n"),
            format!("{OLD}extern \"C\" {{\n"),
        ] {
            assert_eq!(who(&[], &new, &["get"]), None, "{new}");
        }
        // A table in another header is in every object that includes that.
        let new = OLD.replace("return a;", "return a + 1;");
        assert_eq!(who(&["static const int table[] = { TWICE(1) };"], &new, &["x"]), None);
    }

    #[test]
    fn a_type_leads_to_whatever_is_declared_with_it() {
        let old = "struct inner { int a; };";
        let new = "struct inner { long a; };";
        let headers =
            [old, new, "struct outer { struct inner i; };", "struct outer *find(void);", "extern int plain(int);"];
        let all = all(&headers);
        let Concerned::Of(f) = all.concerned(old.as_bytes(), new.as_bytes()) else { panic!("names only") };
        let sees = |s: &str| all.mentions(s.as_bytes(), &f);
        assert!(sees("find()->i.a") && sees("struct outer o;") && !sees("plain(1)"));
    }

    #[test]
    fn names_that_are_glued_together_count() {
        let new = OLD.replace("return a;", "return a + 1;");
        let headers = [
            "#define CALL(x) g##x(1)",
            "#define PASTE(a, b) a##b",
            "extern int et;",
            "extern int ge;",
            "extern int t;",
        ];
        let sources = ["CALL(et)", "PASTE(ge, t)", "PASTE(x, t)", "et"];
        // The last one has no macro, but is not looked at so closely.
        assert_eq!(who(&headers, &new, &sources), Some(vec![true, true, false, false]));
        // Through another macro, which brings a piece along.
        let headers = ["#define CALL(x) g##x(1)", "#define AGAIN() CALL(et)", "#define PASS(x) CALL(x)"];
        assert_eq!(who(&headers, &new, &["AGAIN()", "PASS(et)", "PASS(x)"]), Some(vec![true, true, false]));
    }

    #[test]
    fn a_macro_that_could_glue_anything_together_concerns_all() {
        let new =
            OLD.replace("return a;", "return a + 1;").replace("get", "a_name_that_is_rather_long_and_has_many_parts");
        let old = OLD.replace("get", "a_name_that_is_rather_long_and_has_many_parts");
        let all = all(&[&old, &new, "#define ANY(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h"]);
        assert_eq!(all.concerned(old.as_bytes(), new.as_bytes()), Concerned::All);
    }

    #[test]
    fn a_last_part_that_is_given_nothing_is_found() {
        let mut found = Vec::new();
        let parts = [Some(b"ge".as_slice().into()), Some(b"t".as_slice().into()), None];
        split(b"get", &parts, &mut Vec::new(), &mut 100, &mut |given| found.push(given)).unwrap();
        assert_eq!(found, [Vec::<Box<[u8]>>::new()]);
    }
}
