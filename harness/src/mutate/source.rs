//! Edits of a source file: one token of one line, so that no line moves. Whether the result compiles is for the compiler to
//! say, and what it means for the comparison of the objects.

use super::random::Random;

/// A changed source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// All of it.
    pub text: String,
    /// What was done.
    pub what: String,
}

type Rule = fn(&[&str], usize, &mut Random) -> Option<Vec<String>>;

/// Rules by name. Each gives the new lines that stand for the line, and perhaps the next one.
const RULES: &[(&str, Rule)] = &[
    ("number", number),
    ("operator", operator),
    ("operator", operator),
    ("without", without),
    ("twice", twice),
    ("exchanged", exchanged),
    ("text", text),
    ("condition", condition),
];

/// Tries before a file is given up.
const TRIES: usize = 400;

/// One edit; nothing when no rule finds anything.
pub fn edit(source: &str, random: &mut Random) -> Option<Edit> {
    let lines: Vec<&str> = source.split('\n').collect();
    let code = code_lines(&lines);
    for _ in 0..TRIES {
        let (name, rule) = random.pick(RULES)?;
        let at = *random.pick(&code)?;
        let Some(new) = rule(&lines, at, random) else { continue };
        let old = &lines[at..at + new.len()];
        if old.iter().zip(&new).all(|(a, b)| a == b) {
            continue;
        }
        let mut all: Vec<&str> = lines.clone();
        for (i, line) in new.iter().enumerate() {
            all[at + i] = line;
        }
        let what = format!("{name}: line {}: `{}` became `{}`", at + 1, old[0].trim(), new[0].trim());
        return Some(Edit { text: all.join("\n"), what });
    }
    None
}

/// Indented lines that are neither comment nor directive.
fn code_lines(lines: &[&str]) -> Vec<usize> {
    let (mut comment, mut directive) = (false, false);
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let (inside, was_directive) = (comment, directive);
        let trimmed = line.trim_start();
        directive = (was_directive || trimmed.starts_with('#')) && line.ends_with('\\');
        if let Some(open) = line.rfind("/*") {
            comment = !line[open..].contains("*/");
        } else if line.contains("*/") {
            comment = false;
        }
        let plain =
            !inside && !was_directive && !trimmed.starts_with('#') && !line.contains("/*") && !line.contains("//");
        if plain && line.starts_with('\t') && !line.ends_with('\\') {
            found.push(i);
        }
    }
    found
}

/// Places of `what` outside quotes.
fn places(line: &str, what: &str) -> Vec<usize> {
    let mut quoted = None;
    let mut escaped = false;
    let mut found = Vec::new();
    for (i, c) in line.char_indices() {
        if quoted.is_none() && line[i..].starts_with(what) {
            found.push(i);
        }
        match (quoted, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(q), c) if c == q && !escaped => quoted = None,
            (None, '"' | '\'') => quoted = Some(c),
            _ => {}
        }
        escaped = false;
    }
    found
}

/// A literal that is one more.
fn number(lines: &[&str], at: usize, random: &mut Random) -> Option<Vec<String>> {
    let line = lines[at];
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    let bytes = line.as_bytes();
    let digits: Vec<usize> = (0..10)
        .flat_map(|d| places(line, &d.to_string()))
        .filter(|i| *i == 0 || !word(bytes[i - 1]))
        .filter(|i| bytes[*i..].iter().take_while(|b| word(**b)).all(u8::is_ascii_digit))
        .collect();
    let from = *random.pick(&digits)?;
    let to = from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let value: u64 = line[from..to].parse().ok()?;
    Some(vec![format!("{}{}{}", &line[..from], value.checked_add(1)?, &line[to..])])
}

const OPERATORS: &[(&str, &str)] = &[
    (" < ", " <= "),
    (" > ", " >= "),
    (" <= ", " < "),
    (" >= ", " > "),
    (" == ", " != "),
    (" != ", " == "),
    (" && ", " || "),
    (" || ", " && "),
    (" + ", " - "),
    (" - ", " + "),
    (" | ", " & "),
    (" & ", " | "),
    (" << ", " >> "),
    ("++;", "--;"),
    (" += ", " -= "),
];

fn operator(lines: &[&str], at: usize, random: &mut Random) -> Option<Vec<String>> {
    let line = lines[at];
    let found: Vec<(usize, &str, &str)> =
        OPERATORS.iter().flat_map(|(a, b)| places(line, a).into_iter().map(move |i| (i, *a, *b))).collect();
    let (i, a, b) = *random.pick(&found)?;
    Some(vec![format!("{}{b}{}", &line[..i], &line[i + a.len()..])])
}

/// A condition that is never asked.
fn condition(lines: &[&str], at: usize, random: &mut Random) -> Option<Vec<String>> {
    let line = lines[at];
    let open = line.find("if (")? + 4;
    let new = if random.below(2) == 0 { "!(" } else { "1 || (" };
    let close = line.rfind(')')?;
    let balanced = line[open..close].matches('(').count() == line[open..close].matches(')').count();
    (balanced && close > open).then(|| vec![format!("{}{new}{}){}", &line[..open], &line[open..close], &line[close..])])
}

/// Is it a whole statement that is no declaration, no label, no return?
fn is_statement(line: &str) -> bool {
    let t = line.trim();
    let begins = t.starts_with(|c: char| c.is_ascii_lowercase() || c == '_' || c == '*');
    let call_or_store = t.ends_with(");") || t.contains(" = ") || t.ends_with("++;") || t.contains(" |= ");
    let keyword =
        ["return", "goto", "if", "for", "while", "do", "else", "case", "static", "const", "struct", "unsigned"];
    let first = t.split([' ', '(', ';']).next().unwrap_or("");
    let balanced = t.matches('(').count() == t.matches(')').count();
    begins && t.ends_with(';') && call_or_store && balanced && !keyword.contains(&first)
}

/// Does the statement stand alone, not under an `if` without braces or on the second line of another?
fn stands_alone(lines: &[&str], at: usize) -> bool {
    let before = at.checked_sub(1).map_or("", |i| lines[i].trim_end());
    before.is_empty() || before.ends_with([';', '{', '}', ':'])
}

fn without(lines: &[&str], at: usize, _: &mut Random) -> Option<Vec<String>> {
    let alone = is_statement(lines[at]) && stands_alone(lines, at);
    alone.then(|| vec!["\t;".to_owned()])
}

fn twice(lines: &[&str], at: usize, _: &mut Random) -> Option<Vec<String>> {
    let alone = is_statement(lines[at]) && stands_alone(lines, at);
    alone.then(|| vec![format!("{} {}", lines[at], lines[at].trim())])
}

fn exchanged(lines: &[&str], at: usize, _: &mut Random) -> Option<Vec<String>> {
    let next = lines.get(at + 1)?;
    let both = is_statement(lines[at]) && is_statement(next) && stands_alone(lines, at);
    both.then(|| vec![(*next).to_owned(), lines[at].to_owned()])
}

/// A letter of a string.
fn text(lines: &[&str], at: usize, random: &mut Random) -> Option<Vec<String>> {
    let line = lines[at];
    let open = line.find('"')? + 1;
    let close = open + line[open..].find('"')?;
    let letters: Vec<usize> = (open..close)
        .filter(|i| line.as_bytes()[*i].is_ascii_lowercase() && !matches!(line.as_bytes()[i - 1], b'\\' | b'%' | b'l'))
        .filter(|i| !line[open..*i].ends_with(|c: char| c.is_ascii_digit()))
        .collect();
    let i = *random.pick(&letters)?;
    Some(vec![format!("{}Q{}", &line[..i], &line[i + 1..])])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#define X(a) \\\n\ta + 1\n/*\n\tx = 1;\n */\nint f(int a)\n{\n\tif (a < 3)\n\t\treturn 1;\n\tg(\"text 1\");\n\th(a);\n\treturn 0;\n}\n";

    #[test]
    fn only_code_is_edited_and_lines_stay_where_they_are() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..200 {
            let edit = edit(SOURCE, &mut Random::of(7, number)).unwrap();
            assert_eq!(edit.text.lines().count(), SOURCE.lines().count(), "{}", edit.what);
            assert_ne!(edit.text, SOURCE);
            for (i, (a, b)) in SOURCE.lines().zip(edit.text.lines()).enumerate() {
                assert!(a == b || (7..12).contains(&i), "line {} is no code: {}", i + 1, edit.what);
            }
            seen.insert(edit.what.split(':').next().unwrap().to_owned());
        }
        assert!(seen.len() >= 6, "{seen:?}");
    }

    #[test]
    fn what_is_quoted_is_not_an_operator() {
        assert_eq!(places("\tx(\"a < b\") < '<'", "<").len(), 1);
    }
}
