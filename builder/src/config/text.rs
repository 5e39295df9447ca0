//! The text of a `livepatch.toml`, for messages: byte ranges become line, column and the line itself with a mark.

use std::ops::Range;

use crate::codes;
use crate::error::{Place, Problem};

use super::schema::TABLES;

/// Longer lines are cut around the mark.
const WIDTH: usize = 120;

/// The file as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// As the user named it.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

impl Text<'_> {
    /// A problem with the code `id` at a byte range of the file.
    pub fn problem(&self, code: &'static codes::Code, span: Range<usize>, detail: impl Into<String>) -> Problem {
        let start = floor(self.text, span.start);
        let end = floor(self.text, span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or("");
        let number = self.text[..line_start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count();
        let marked = self.text[start..end].lines().next().unwrap_or("").chars().count().max(1);
        let place = Place::object(format!("{}:{number}:{}", self.path, column + 1));
        Problem::new(code, place, detail).with_lines(&excerpt(number, line, column, marked))
    }

    /// What serde or the parser found.
    pub fn parse_error(&self, e: &toml::de::Error) -> Problem {
        let message = e.message().lines().collect::<Vec<_>>().join(", ");
        let span = e.span().unwrap_or(0..0);
        let (id, detail) = if let Some(key) = quoted_after(&message, "unknown field") {
            let known = expected(&message);
            let hint = suggest(key, &known).unwrap_or_default();
            (codes::LP6002, format!("there is no key `{key}` here{hint}; known: {}", known.join(", ")))
        } else if let Some(key) = quoted_after(&message, "missing field") {
            (codes::LP6004, format!("the key `{key}` is missing"))
        } else if message.starts_with("invalid type") {
            (codes::LP6003, message.replace("expected i64", "expected an integer"))
        } else if message.starts_with("invalid value") || message.starts_with("invalid length") {
            (codes::LP6005, message)
        } else {
            (codes::LP6001, message)
        };
        self.problem(id, span, detail)
    }
}

/// `, did you mean ...?` for a misspelt word, if one of the known ones is near.
pub(super) fn nearest(word: &str, known: &[&str]) -> Option<String> {
    let distance = |k: &str| strsim::osa_distance(&word.to_ascii_lowercase().replace('_', "-"), k);
    let best = known.iter().min_by_key(|k| distance(k))?;
    (distance(best) <= (best.len() / 3).max(1)).then(|| format!(", did you mean `{best}`?"))
}

/// The same for a key, which may also stand in the wrong table.
fn suggest(key: &str, known: &[&str]) -> Option<String> {
    let elsewhere = || {
        let (table, _) = TABLES.iter().find(|(_, keys)| keys.contains(&key))?;
        Some(format!(", it belongs in [{table}]"))
    };
    elsewhere().or_else(|| nearest(key, known))
}

fn quoted_after<'m>(message: &'m str, what: &str) -> Option<&'m str> {
    message.strip_prefix(what)?.split('`').nth(1)
}

/// The names of ``unknown field `a`, expected one of `b`, `c` ``.
fn expected(message: &str) -> Vec<&str> {
    let list = message.split_once(", expected").map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2).collect()
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// ```text
///   |
/// 4 | deadline = 5
///   | ^^^^^^^^
/// ```
fn excerpt(number: usize, line: &str, column: usize, marked: usize) -> String {
    let skip = if column + marked > WIDTH { column.saturating_sub(WIDTH / 4) } else { 0 };
    // One column for each character, so that the mark stands where it belongs; no escape sequences reach the terminal.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = line.chars().skip(skip).take(WIDTH).map(plain).collect();
    let column = column - skip;
    let marked = marked.min(WIDTH.saturating_sub(column).max(1));
    let number = number.to_string();
    let gutter = " ".repeat(number.len());
    format!("{gutter} |\n{number} | {shown}\n{gutter} | {}{}", " ".repeat(column), "^".repeat(marked))
}
