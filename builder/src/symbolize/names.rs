//! Names that compilers and macros number: what remains when the numbers without meaning are taken out.
//!
//! `x.123` (static locals), `foo.isra.0`, `foo.part.1`, `foo.cold` (GCC clones), `__UNIQUE_ID_ddebug17.3`
//! (include/linux/compiler.h), `__BTF_ID__func__foo__42` (include/linux/btf_ids.h), `__initcall__kmod_x__401_1515_f5`.

use std::borrow::Cow;

/// The name without meaningless numbers; the kind of a clone (`.isra`, `.cold` ...) stays.
pub fn base_name(name: &str) -> Cow<'_, str> {
    if name.starts_with("__UNIQUE_ID_") || name.starts_with("__BTF_ID__") {
        let end = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '_');
        return Cow::Borrowed(end);
    }
    if let Some(rest) = name.strip_prefix("__initcall__") {
        let words: Vec<&str> = rest.split('_').filter(|w| !is_number(w)).collect();
        return Cow::Owned(format!("__initcall__{}", words.join("_")));
    }
    if !name.split('.').skip(1).any(is_number) {
        return Cow::Borrowed(name);
    }
    let mut parts = name.split('.');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts.filter(|p| !is_number(p)) {
        out.push('.');
        out.push_str(part);
    }
    Cow::Owned(out)
}

/// The function a clone or piece was made from: the name up to the first dot.
pub fn parent_name(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Is it a piece the compiler split off a function and jumps to (`.cold`), not a function of its own?
pub fn is_cold(name: &str) -> bool {
    name.split('.').skip(1).any(|p| p == "cold")
}

fn is_number(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_and_kinds_stay() {
        for (name, base) in [
            ("foo", "foo"),
            ("x.123", "x"),
            ("foo.isra.0", "foo.isra"),
            ("foo.constprop.0.isra.0", "foo.constprop.isra"),
            ("foo.cold", "foo.cold"),
            ("__UNIQUE_ID_ddebug411.7", "__UNIQUE_ID_ddebug"),
            ("__BTF_ID__func__bpf_prog_put__41", "__BTF_ID__func__bpf_prog_put"),
            ("__initcall__kmod_pipe__401_1515_init_pipe_fs5", "__initcall__kmod_pipe__init_pipe_fs5"),
            ("CSWTCH.12", "CSWTCH"),
            ("v4l2.x", "v4l2.x"),
        ] {
            assert_eq!(base_name(name), base, "{name}");
        }
    }
}
