//! Old and new content of a C file -> the new content with `#line` directives, so that a line that did not change keeps
//! its number.
//!
//! `__LINE__` is in the code: WARN, BUG, might_sleep, ext4_error and many more pass it on. With the numbers kept, a patch
//! that adds a line at the top of a file changes no other function.
//!
//! - An unchanged line has its old number, a line that replaces an old one has that one's. Lines beyond that have their
//!   number in the new file plus a round number behind the end of the old file ([`extra_base`]): 21234 is line 1234 of the
//!   patched file. So no two lines with code share a number, and names made of `__LINE__` cannot clash.
//! - A directive stands in front of the first line with code that would have another number, and never inside a comment,
//!   behind a backslash, or between a name and its opening parenthesis. Within the arguments of a macro it may stand: GCC
//!   promises that ("Directives Within Macro Arguments"). A group of lines that cannot be split and has no single right
//!   number is numbered like lines that are new.
//! - A directive in a branch of `#if` may be skipped: then the other branches and what follows `#endif` have their own.
//!
//! Not handled: files with `#line` directives of their own (scanners and parsers) are returned as they are.
//! `#line` without a name leaves `__FILE__` and the file of the debug information alone.

use super::patch::FileChange;

/// Are `#line` directives for the file `path`? Assembly and what is not C is left alone.
pub fn applies_to(path: &str) -> bool {
    path.ends_with(".c") || path.ends_with(".h")
}

/// `new` with directives that keep the numbers `old` has.
pub fn keep_lines(old: &str, new: &str) -> String {
    let change = FileChange::new("", Some(old.as_bytes().to_vec()), Some(new.as_bytes().to_vec()));
    let kept = keep_lines_of(&change).unwrap_or_default();
    // Only whole lines of ASCII were added.
    String::from_utf8(kept).unwrap_or_else(|_| new.to_owned())
}

/// The new content of `change` with directives that keep the numbers of the old one; nothing for a removed file. An added
/// file is as it is.
pub fn keep_lines_of(change: &FileChange) -> Option<Vec<u8>> {
    let new = change.new.as_deref()?;
    let Some(old) = change.old.as_deref().filter(|o| !o.is_empty()) else { return Some(new.to_vec()) };
    let lines = scan(new);
    if change.ranges.is_empty() || has_own_numbers(&scan(old)) || has_own_numbers(&lines) {
        return Some(new.to_vec());
    }
    let base = extra_base(old.split_inclusive(|b| *b == b'\n').count());
    let wanted = wanted(change, base, lines.len());
    let mut out = Vec::with_capacity(new.len() + 1024);
    let mut count = Count { now: Some(1), open: Vec::new() };
    for (start, end) in units(&lines) {
        let number = number_of(&lines[start..end], &wanted[start..end], base + start + 1);
        if let Some(number) = number.filter(|n| count.now != Some(*n)) {
            out.extend_from_slice(format!("#line {number}\n").as_bytes());
            count.set(number);
        }
        for line in &lines[start..end] {
            out.extend_from_slice(line.text);
            count.pass(line);
        }
    }
    Some(out)
}

/// The number that is added to the line numbers of lines that are new, for an old file of `lines` lines. A WARN has 16
/// bits for its line (include/asm-generic/bug.h), which is enough for files of 30000 lines.
pub fn extra_base(lines: usize) -> usize {
    let step = if lines < 20_000 { 10_000 } else { 1_000 };
    (lines + 1).next_multiple_of(step)
}

/// What kind of directive a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    If,
    Else,
    Endif,
    Line,
    Other,
}

/// One physical line.
#[derive(Clone, Debug)]
struct Line<'t> {
    text: &'t [u8],
    /// The line before it goes on here: a block comment or a backslash.
    goes_on: bool,
    /// It is part of a directive.
    in_directive: bool,
    /// The directive that begins here.
    directive: Option<Directive>,
    /// First and last byte of code: neither space nor comment.
    code: Option<(u8, u8)>,
}

impl Line<'_> {
    /// Does its number matter?
    fn matters(&self) -> bool {
        self.code.is_some() && !self.in_directive
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    Comment,
    LineComment,
    Quote(u8),
}

/// Splits `content` into lines and finds where comments, strings and directives begin and end.
fn scan(content: &[u8]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let (mut within, mut spliced, mut in_directive) = (Within::Code, false, false);
    for text in content.split_inclusive(|b| *b == b'\n') {
        let goes_on = spliced || within == Within::Comment;
        in_directive &= goes_on;
        let body = text.strip_suffix(b"\n").unwrap_or(text).trim_ascii_end();
        // GCC takes a backslash with spaces behind it as well.
        let (body, splice) = body.strip_suffix(b"\\").map_or((body, false), |b| (b, true));
        let mut line = Line { text, goes_on, in_directive, directive: None, code: None };
        let mut at = 0;
        while let Some(byte) = body.get(at) {
            let next = body.get(at + 1);
            at += 1;
            match within {
                Within::Comment if *byte == b'*' && next == Some(&b'/') => {
                    within = Within::Code;
                    at += 1;
                }
                Within::Comment | Within::LineComment => {}
                Within::Quote(quote) => {
                    if *byte == b'\\' {
                        at += 1;
                    } else if *byte == quote {
                        within = Within::Code;
                    }
                    line.code = Some((line.code.map_or(*byte, |c| c.0), *byte));
                }
                Within::Code => match (byte, next) {
                    (b'/', Some(b'*')) => {
                        within = Within::Comment;
                        at += 1;
                    }
                    (b'/', Some(b'/')) => within = Within::LineComment,
                    (b, _) if b.is_ascii_whitespace() => {}
                    (b, _) => {
                        if *b == b'#' && line.code.is_none() && !spliced && !in_directive {
                            in_directive = true;
                            line.in_directive = true;
                            line.directive = Some(directive(&body[at..]));
                        }
                        if *b == b'"' || *b == b'\'' {
                            within = Within::Quote(*b);
                        }
                        line.code = Some((line.code.map_or(*b, |c| c.0), *b));
                    }
                },
            }
        }
        // A quote without an end (an apostrophe in a skipped branch) ends with its line.
        if !splice && within != Within::Comment {
            within = Within::Code;
        }
        spliced = splice;
        lines.push(line);
    }
    lines
}

fn directive(rest: &[u8]) -> Directive {
    let rest = rest.trim_ascii_start();
    let word = rest.split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
    match word {
        b"if" | b"ifdef" | b"ifndef" => Directive::If,
        b"else" | b"elif" | b"elifdef" | b"elifndef" => Directive::Else,
        b"endif" => Directive::Endif,
        b"line" => Directive::Line,
        _ if word.first().is_some_and(u8::is_ascii_digit) => Directive::Line,
        _ => Directive::Other,
    }
}

fn has_own_numbers(lines: &[Line<'_>]) -> bool {
    lines.iter().any(|l| l.directive == Some(Directive::Line))
}

/// The number each new line should have.
fn wanted(change: &FileChange, base: usize, new_lines: usize) -> Vec<usize> {
    let mut out = Vec::with_capacity(new_lines);
    let mut old = 1;
    for range in &change.ranges {
        // Unchanged up to here.
        let same = (range.new_start - 1).saturating_sub(out.len());
        out.extend(old..old + same);
        let replaced = range.old_len.min(range.new_len);
        out.extend(range.old_start..range.old_start + replaced);
        out.extend((replaced..range.new_len).map(|i| base + range.new_start + i));
        old = range.old_start + range.old_len;
    }
    out.extend(old..old + new_lines.saturating_sub(out.len()));
    out
}

/// Groups of lines between which a directive may stand, as ranges of indexes.
fn units(lines: &[Line<'_>]) -> Vec<(usize, usize)> {
    let mut starts: Vec<usize> = Vec::new();
    // The last line with code and whether it ends with a name.
    let mut named: Option<usize> = None;
    for (index, line) in lines.iter().enumerate() {
        let opens = line.matters() && line.code.is_some_and(|c| c.0 == b'(');
        if let Some(from) = named.filter(|_| opens) {
            while starts.last().is_some_and(|s| *s > from) {
                starts.pop();
            }
        } else if !line.goes_on || index == 0 {
            starts.push(index);
        }
        if line.matters() {
            let name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'$';
            named = line.code.filter(|c| name(c.1)).map(|_| index);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    starts.iter().copied().zip(ends).collect()
}

/// The number of the first line of a group, if any number in it matters; `extra` when no number is right for all lines.
fn number_of(lines: &[Line<'_>], wanted: &[usize], extra: usize) -> Option<usize> {
    let matters = || lines.iter().zip(wanted).enumerate().filter(|(_, (line, _))| line.matters());
    let (first, (_, number)) = matters().next()?;
    let start = number.checked_sub(first).filter(|n| *n > 0);
    start.filter(|start| matters().all(|(i, (_, wanted))| start + i == *wanted)).or(Some(extra))
}

/// The number the compiler gives the next line.
struct Count {
    /// Nothing when it depends on which branch was taken.
    now: Option<usize>,
    /// For each `#if` that is open, whether there is a directive in one of its branches.
    open: Vec<bool>,
}

impl Count {
    fn set(&mut self, number: usize) {
        self.now = Some(number);
        self.open.iter_mut().for_each(|o| *o = true);
    }

    fn pass(&mut self, line: &Line<'_>) {
        self.now = self.now.map(|n| n + 1);
        let numbered = match line.directive {
            Some(Directive::If) => {
                self.open.push(false);
                false
            }
            Some(Directive::Else) => self.open.last().copied().unwrap_or(true),
            Some(Directive::Endif) => self.open.pop().unwrap_or(true),
            _ => false,
        };
        if numbered {
            self.now = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number every line with code gets, as a compiler counts that takes all branches for which `take` holds.
    fn numbers(text: &str, take: &dyn Fn(&str) -> bool) -> Vec<(String, usize)> {
        let (mut now, mut out, mut open) = (1, Vec::new(), vec![true]);
        for line in scan(text.as_bytes()) {
            let content = String::from_utf8_lossy(line.text).trim().to_owned();
            let active = open.iter().all(|o| *o);
            match line.directive {
                Some(Directive::Line) if active => {
                    now = content[6..].parse().unwrap();
                    continue;
                }
                Some(Directive::Line) => now += 1,
                Some(Directive::If) => open.push(take(&content)),
                Some(Directive::Else) => {
                    let was = open.pop().unwrap();
                    open.push(!was);
                }
                Some(Directive::Endif) => drop(open.pop()),
                _ if active && line.matters() => out.push((content, now)),
                _ => {}
            }
            // A directive in a skipped branch is a line like any other, but not one of the file.
            if line.directive != Some(Directive::Line) {
                now += 1;
            }
        }
        out
    }

    fn kept(old: &str, new: &str) -> String {
        let text = keep_lines(old, new);
        assert_eq!(
            text.lines().filter(|l| !l.starts_with("#line")).collect::<Vec<_>>(),
            new.lines().collect::<Vec<_>>()
        );
        text
    }

    #[test]
    fn a_line_at_the_top_moves_nothing() {
        assert_eq!(kept("a;\nb;\nc;\n", "/* x */\na;\nb;\nc;\n"), "/* x */\n#line 1\na;\nb;\nc;\n");
        assert_eq!(kept("a;\nb;\nc;\n", "a;\nb;\nc;\n"), "a;\nb;\nc;\n");
        assert_eq!(kept("a;\nb;\nc;\n", "a;\nB;\nc;\n"), "a;\nB;\nc;\n", "replaced in place");
        assert_eq!(kept("a;\nb;\nc;\n", "a;\nb;\nc;\n/* end */\n"), "a;\nb;\nc;\n/* end */\n", "nothing behind it");
        assert_eq!(kept("a;\nb;\nc;\nd;\n", "a;\nd;\n"), "a;\n#line 4\nd;\n");
        assert_eq!(keep_lines("", "x;\n"), "x;\n");
        assert_eq!(keep_lines("x;\n", ""), "");
    }

    #[test]
    fn new_lines_have_numbers_of_their_own_that_lead_to_them() {
        assert_eq!(kept("a;\nb;\n", "a;\nNEW;\nNEW2;\nb;\n"), "a;\n#line 10002\nNEW;\nNEW2;\n#line 2\nb;\n");
        // The first of them takes the number of the line it replaces.
        assert_eq!(kept("a;\nb;\nc;\n", "a;\nX;\nY;\nc;\n"), "a;\nX;\n#line 10003\nY;\n#line 3\nc;\n");
        assert_eq!(
            [extra_base(0), extra_base(9_998), extra_base(10_000), extra_base(23_456)],
            [10_000, 10_000, 20_000, 24_000]
        );
    }

    #[test]
    fn no_directive_where_it_would_not_be_one() {
        // In a comment, and behind it only when code follows on another line.
        assert_eq!(kept("a; /* 1\n 2 */\nb;\n", "a; /* 1\n new\n 2 */\nb;\n"), "a; /* 1\n new\n 2 */\n#line 3\nb;\n");
        assert_eq!(
            kept("/* 1\n 2 */ a;\nb;\n", "/* 1\n new\n 2 */ a;\nb;\n"),
            "#line 10001\n/* 1\n new\n 2 */ a;\n#line 3\nb;\n"
        );
        // In a macro of several lines.
        let old = "#define M(x) \\\n do { \\\n } while (x)\nb;\n";
        let new = old.replace(" do", " new \\\n do");
        assert_eq!(kept(old, &new), new.replace("b;", "#line 4\nb;"));
        // Between a name and its arguments.
        assert_eq!(kept("M\n(x);\n", "M\n\n\n(x);\n"), "#line 10001\nM\n\n\n(x);\n");
        assert_eq!(kept("a = M\n(x)\n;\n", "/**/\na = M\n(x)\n;\n"), "/**/\n#line 1\na = M\n(x)\n;\n");
        // Strings and character constants hide what looks like a comment.
        assert_eq!(kept("f(\"/*\", '\"');\nb;\n", "\nf(\"/*\", '\"');\nb;\n"), "\n#line 1\nf(\"/*\", '\"');\nb;\n");
        assert_eq!(kept("f(\"\\\"/*\");\nb;\n", "f(\"\\\"/*\");\n\nb;\n"), "f(\"\\\"/*\");\n\n#line 2\nb;\n");
        assert_eq!(kept("// it's /*\nb;\n", "// it's /*\n\nb;\n"), "// it's /*\n\n#line 2\nb;\n");
        // Within the arguments of a macro it may stand.
        assert_eq!(kept("M(a,\n  b);\n", "M(a,\n\n  b);\n"), "M(a,\n\n#line 2\n  b);\n");
        // A file with numbers of its own.
        assert_eq!(keep_lines("# 1 \"x.y\"\na;\n", "# 1 \"x.y\"\n\na;\n"), "# 1 \"x.y\"\n\na;\n");
    }

    #[test]
    fn every_branch_has_its_own() {
        let old = "#if A\na;\n#elif B\nb;\n#else\nc;\n#endif\nd;\n";
        let text = kept(old, &format!("\n{old}"));
        for which in ["A", "", "never"] {
            let got = numbers(&text, &|c| which != "never" && c.ends_with(which));
            assert_eq!(got, numbers(old, &|c| which != "never" && c.ends_with(which)), "{text}");
        }
        assert_eq!(text.matches("#line").count(), 4);
        // No directive in it: the count goes on.
        let text = kept("#if A\na;\n#endif\nb;\n", "#if A\na;\n#endif\nb;\n\nc;\n");
        assert_eq!(text, "#if A\na;\n#endif\nb;\n\n#line 10006\nc;\n");
    }

    /// Pseudo-random edits: unchanged lines keep their numbers, and no two lines share one.
    #[test]
    fn unchanged_lines_keep_their_numbers_whatever_changes() {
        let mut seed = 1_u64;
        let mut random = move |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        let pieces =
            ["call(%);", "/* % */", "", "M(a%,", "b%);", "/* %", "*/ c%;", "#if A%", "#else", "#endif", "(p%)", "N%"];
        for _ in 0..300 {
            let mut old: Vec<String> = Vec::new();
            for i in 0..30 {
                old.push(pieces[random(pieces.len())].replace('%', &i.to_string()));
            }
            // Conditionals must be balanced, or there is no telling what a compiler would do.
            let mut depth: usize = 0;
            old.retain(|l| match l.as_str() {
                "#endif" if depth == 0 => false,
                "#endif" => {
                    depth -= 1;
                    true
                }
                "#else" => false,
                l if l.starts_with("#if") => {
                    depth += 1;
                    true
                }
                _ => true,
            });
            old.extend(std::iter::repeat_n("*/\n#endif".to_owned(), depth));
            let mut new = old.clone();
            for i in 0..=random(4) {
                let at = random(new.len());
                match random(3) {
                    0 => new.insert(at, String::new()),
                    1 => new.insert(at, format!("new{i};")),
                    _ => new[at] += " ",
                }
            }
            let text = |lines: &[String]| lines.join("\n") + "\n";
            let (old, new) = (text(&old), text(&new));
            let kept = kept(&old, &new);
            for take in [true, false] {
                let (was, is) = (numbers(&old, &|_| take), numbers(&kept, &|_| take));
                let mut seen = std::collections::BTreeSet::new();
                assert!(is.iter().all(|n| seen.insert(n.1)), "twice in\n{kept}");
                // A line has its old number, or one behind the end of the old file.
                for (line, number) in &is {
                    assert!(
                        *number >= 10_000 || was.contains(&(line.clone(), *number)) || line.starts_with("new"),
                        "{line} {number}\n{kept}"
                    );
                }
            }
        }
    }
}
