//! `functions = [...]`: the change set the author expects, compared with the one that was found.
//!
//! An entry is `symbol`, of whatever object, or `path/file.o:symbol`. A symbol without a suffix of the compiler
//! (`.isra.0`, `.constprop.0`, `.part.0`) also means the function with one: the source has no other name for it.

use crate::codes;
use crate::error::{Place, Problem};

/// What differs between the functions that were expected to change and those that did: `(object, symbol)`, the symbol as the
/// old build names it. One problem for each function too many (LP6008) and each too few (LP6009).
pub fn check_expected(expected: &[impl AsRef<str>], changed: &[(impl AsRef<str>, impl AsRef<str>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (object, symbol) in changed {
        let (object, symbol) = (object.as_ref(), symbol.as_ref());
        if !expected.iter().any(|entry| means(entry.as_ref(), object, symbol)) {
            let detail = "this function changes as well and is not among the expected ones";
            problems.push(Problem::new(codes::LP6008, Place::symbol(object, symbol), detail));
        }
    }
    for entry in expected.iter().map(AsRef::as_ref) {
        if !changed.iter().any(|(object, symbol)| means(entry, object.as_ref(), symbol.as_ref())) {
            let place = match entry.split_once(':') {
                Some((object, symbol)) => Place::symbol(object, symbol),
                None => Place { symbol: Some(entry.to_owned()), ..Place::default() },
            };
            problems.push(Problem::new(codes::LP6009, place, "this function was expected to change and does not"));
        }
    }
    problems
}

/// Whether a string can be an entry of the list at all.
pub(super) fn is_entry(entry: &str) -> bool {
    let symbol = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && s.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.$".contains(&c))
    };
    match entry.split_once(':') {
        None => symbol(entry),
        Some((object, s)) => {
            let plain = object.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            plain && object.ends_with(".o") && symbol(s)
        }
    }
}

fn means(entry: &str, object: &str, symbol: &str) -> bool {
    let (in_object, name) = match entry.split_once(':') {
        Some((o, name)) => (o == object, name),
        None => (true, entry),
    };
    let source_name = symbol.split('.').next().unwrap_or(symbol);
    in_object && (name == symbol || name == source_name)
}
