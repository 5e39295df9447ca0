//! A change that only reaches code which is gone after boot: told from the text, so that nothing is compiled in vain.
//!
//! The kernel's style is relied on: a definition begins in the first column and ends with a `}` in the first column. When
//! that does not answer the question, the answer is no and the analysis decides on the compiled code.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::patch::{FileChange, SourceChange};

/// The headers of a change, and the lines of the old version of each that its definitions which change have: all lines where anything
/// else changes, a macro say.
pub fn edited_headers(change: &SourceChange) -> BTreeMap<String, Vec<RangeInclusive<u64>>> {
    const ALL: RangeInclusive<u64> = 0..=u64::MAX;
    let headers = change.files.iter().filter(|(path, _)| path.ends_with(".h"));
    let lines = |file: &FileChange| -> Vec<RangeInclusive<u64>> {
        let Some(Ok(old)) = file.old.as_deref().map(std::str::from_utf8) else { return vec![ALL] };
        let all = definitions(old);
        let of = |start: usize, len: usize| {
            let last = start + len.max(1) - 1;
            // In front of the first line is outside.
            let inside = |d: &&Definition| d.first <= start && last <= d.last && (len > 0 || d.first < start);
            all.iter().find(inside).map_or(ALL, |d| d.first as u64..=d.last as u64)
        };
        file.ranges.iter().map(|r| of(r.old_start, r.old_len)).collect()
    };
    headers.map(|(path, file)| (path.clone(), lines(file))).collect()
}

/// Whether every changed line is inside a definition marked `__init` or `__exit`.
pub fn only_init(file: &FileChange) -> bool {
    let (Some(old), Some(new)) = (&file.old, &file.new) else { return false };
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else { return false };
    let (old, new) = (definitions(old), definitions(new));
    let inside = |of: &[Definition], start: usize, len: usize| {
        // Lines are counted from 1; an insertion has no line of its own on one side.
        let (first, last) = (start, start + len.max(1) - 1);
        of.iter().any(|d| d.init && d.first <= first && last <= d.last)
    };
    !file.ranges.is_empty()
        && file.ranges.iter().all(|r| {
            (r.old_len == 0 || inside(&old, r.old_start, r.old_len))
                && (r.new_len == 0 || inside(&new, r.new_start, r.new_len))
        })
}

/// Lines of one definition, from 1, both included.
struct Definition {
    first: usize,
    last: usize,
    init: bool,
}

fn definitions(text: &str) -> Vec<Definition> {
    let mut found = Vec::new();
    // The lines since the last one that ended something: a return type may stand above the name.
    let mut head: Option<usize> = None;
    let mut open: Option<(usize, bool)> = None;
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let first = line.chars().next();
        match open {
            Some((start, init)) if first == Some('}') => {
                found.push(Definition { first: start, last: number, init });
                (open, head) = (None, None);
            }
            Some(_) => {}
            None if *line == "{" => {
                let start = head.unwrap_or(number);
                let text = lines.get(start.saturating_sub(1)..index).unwrap_or_default().join(" ");
                let marks = ["__init", "__exit"];
                let init = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|w| marks.contains(&w));
                open = Some((start, init));
            }
            // What ends a declaration, a directive or a comment is no part of the next definition.
            None if line.is_empty()
                || line.ends_with(';')
                || matches!(first, Some('#' | '}' | '/'))
                || line.starts_with(" *") =>
            {
                head = None;
            }
            None => head = head.or(Some(number)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "static int x;\n\nstatic int __init setup(void)\n{\n\treturn 1;\n}\n\nstatic int run(int __initial)\n{\n\treturn 2;\n}\n";

    fn change(new: &str) -> FileChange {
        FileChange::new("a.c", Some(OLD.into()), Some(new.into()))
    }

    #[test]
    fn only_lines_inside_init_code_count() {
        assert!(only_init(&change(&OLD.replace("return 1", "return 3"))));
        assert!(!only_init(&change(&OLD.replace("return 2", "return 3"))));
        assert!(!only_init(&change(&OLD.replace("return 1", "return 3").replace("return 2", "return 4"))));
        assert!(!only_init(&change(&OLD.replace("static int x;", "static int y;"))));
        assert!(only_init(&change(&OLD.replace("\treturn 1;\n", "\tx = 2;\n\treturn 1;\n"))));
    }

    #[test]
    fn of_a_changed_header_the_definitions_are_told_apart() {
        let old = "#define A 1\n\nstatic inline int f(void)\n{\n\treturn 1;\n}\n\nstatic inline int\ng(void)\n{\n\treturn A;\n}\n";
        let lines = |new: String| {
            let file = ("a.h".to_owned(), Some(old.as_bytes().to_vec()), Some(new.into_bytes()));
            edited_headers(&SourceChange::from_contents([file]))["a.h"].clone()
        };
        assert_eq!(lines(old.replace("return 1", "return 2")), [3..=6]);
        assert_eq!(lines(old.replace("\treturn A;", "\tint a = A;\n\n\treturn a;")), [8..=12]);
        assert_eq!(lines(old.replace("{\n\treturn A;", "{\n\tbarrier();\n\treturn A;")), [8..=12]);
        assert_eq!(lines(old.replace("A 1", "A 2")), [0..=u64::MAX], "whoever uses it has it");
        assert_eq!(lines(format!("{old}int x;\n")), [0..=u64::MAX]);
    }
}
