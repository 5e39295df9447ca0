//! What compilers and macros number, without the numbers; kept apart from lpbuild's own rules on purpose.

/// The name without numbers that a later build may give otherwise: `x.12`, `foo.isra.0`, `__UNIQUE_ID_ddebug411.7`.
pub fn normal(name: &str) -> String {
    if name.starts_with("__UNIQUE_ID_") || name.starts_with("__BTF_ID__") {
        return name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_')).to_owned();
    }
    if name.starts_with("__initcall__") {
        return name.split('_').filter(|w| !is_number(w)).collect::<Vec<_>>().join("_");
    }
    let mut words = name.split('.');
    let first = words.next().unwrap_or_default().to_owned();
    words.filter(|w| !is_number(w)).fold(first, |name, word| name + "." + word)
}

/// The function that a piece split off it (`.cold`) belongs to, of a name without numbers.
pub fn parent(name: &str) -> &str {
    name.split(".cold").next().unwrap_or(name)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stay_and_numbers_go() {
        assert_eq!(normal("x.12"), "x");
        assert_eq!(normal("foo.isra.0.cold"), "foo.isra.cold");
        assert_eq!(parent("foo.isra.cold"), "foo.isra");
        assert_eq!(normal("__UNIQUE_ID_ddebug411.7"), "__UNIQUE_ID_ddebug");
        assert_eq!(normal("__initcall__kmod_a__12_34_init4"), normal("__initcall__kmod_a__56_7_init4"));
        assert_eq!(normal("plain_2"), "plain_2");
    }
}
