//! A manifest with one value changed.

use toml::Value;

/// Every leaf with its path, and the manifest with that leaf changed.
pub fn changed(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Table(table) => {
            let mut all = Vec::new();
            for (key, inner) in table {
                let mut gone = table.clone();
                gone.remove(key);
                all.push((format!("{key} (gone)"), gone.into()));
                for (path, other) in changed(inner) {
                    let mut copy = table.clone();
                    copy.insert(key.clone(), other);
                    let dot = if path.is_empty() || path.starts_with(' ') { "" } else { "." };
                    all.push((format!("{key}{dot}{path}"), copy.into()));
                }
            }
            all
        }
        Value::Array(list) => {
            let mut all = Vec::new();
            for (i, inner) in list.iter().enumerate() {
                let mut fewer = list.clone();
                fewer.remove(i);
                all.push((" (one less)".to_owned(), fewer.into()));
                for (path, other) in changed(inner) {
                    let mut copy = list.clone();
                    copy[i] = other;
                    all.push((path, copy.into()));
                }
            }
            all
        }
        Value::String(s) => {
            // One digit or letter on, of the same kind.
            let next = |c: char| match c {
                '0'..='8' | 'a'..='e' => char::from(c as u8 + 1),
                '9' => '0',
                _ => 'a',
            };
            let mut other: Vec<char> = s.chars().collect();
            let last = other.iter().rposition(|c| c.is_ascii_alphanumeric());
            match last {
                Some(i) => other[i] = next(other[i]),
                None => other.push('x'),
            }
            vec![(String::new(), Value::String(other.into_iter().collect()))]
        }
        Value::Integer(n) => [n + 1, n - 1, n + 0x1000].map(|n| (String::new(), Value::Integer(n))).to_vec(),
        Value::Boolean(b) => vec![(String::new(), Value::Boolean(!b))],
        Value::Float(_) | Value::Datetime(_) => Vec::new(),
    }
}
