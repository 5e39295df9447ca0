//! Values of a kernel configuration (`.config`, `config-RELEASE`).

/// The value of `option`, as written: `y`, `m`, a number, a quoted string.
pub fn value<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    config.lines().find_map(|l| l.strip_prefix(option)?.strip_prefix('='))
}

/// The value of a string option, without its quotes.
pub fn string<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    value(config, option)?.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_not_mistaken_for_a_longer_one() {
        let config = "CONFIG_A_B=y\nCONFIG_A=m\n# CONFIG_C is not set\nCONFIG_S=\"x y\"\n";
        assert_eq!(value(config, "CONFIG_A"), Some("m"));
        assert_eq!(value(config, "CONFIG_C"), None);
        assert_eq!(string(config, "CONFIG_S"), Some("x y"));
    }
}
