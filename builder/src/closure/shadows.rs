//! Shadow variables that the patch declares (runtime-kmod/include/lpbuild.h).
//!
//! Input: the carried data called `lpb_shadow_of_NAME`. Output: names and sizes, which the runtime is told. Refused: a declaration
//! that is not as the header makes it, and two of one name with other sizes (LP2028).

use std::collections::BTreeMap;

use lpbuild_abi as abi;

use super::Closure;
use crate::codes;
use crate::plan::manifest::{ShadowVariable, is_identifier};
use crate::plan::{Item, Role};
use crate::symbolize::Class;

impl Closure<'_> {
    /// Those that carried code uses; the others are not carried.
    pub(super) fn shadows(&mut self, items: &[Item]) -> Vec<ShadowVariable> {
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for item in items.iter().filter(|i| i.role == Role::Data) {
            let pair = &self.pairs[item.pair.0 as usize];
            let atom = pair.new.atom(item.atom.0);
            if !atom.name.starts_with(abi::SHADOW_PREFIX) {
                continue;
            }
            let section = pair.new.section(atom.section);
            let is_plain = pair.new.class_of(item.atom.0) == Class::Data && item.edges.is_empty();
            let bytes = section.data.get(atom.start as usize..atom.end as usize).filter(|_| is_plain);
            let what = match bytes.and_then(declared).filter(|v| is_named_for(&atom.name, &v.name)) {
                None => "it is not what LPB_SHADOW of lpbuild.h declares".to_owned(),
                Some(v) => match *found.entry(v.name).or_insert(v.size) {
                    size if size == v.size => continue,
                    size => format!("another object declares it with {size} bytes in the place of {}", v.size),
                },
            };
            self.refuse(item.pair, item.atom, codes::LP2028, None, what);
        }
        found.into_iter().map(|(name, size)| ShadowVariable { name, size }).collect()
    }
}

/// `lpb_shadow_of_NAME`, perhaps with what a compiler puts behind a static name.
fn is_named_for(symbol: &str, name: &str) -> bool {
    let rest = symbol.strip_prefix(abi::SHADOW_PREFIX).and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What a `struct lpb_shadow` declares.
fn declared(bytes: &[u8]) -> Option<ShadowVariable> {
    let [size, layout, name] = abi::SHADOW_FIELDS;
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let text = bytes.get(name..).filter(|t| t.len() == abi::SHADOW_NAME)?;
    let end = text.iter().position(|b| *b == 0)?;
    let name = std::str::from_utf8(&text[..end]).ok().filter(|n| is_identifier(n))?;
    let found = ShadowVariable { name: name.to_owned(), size: number(size)? };
    let is_known = bytes.len() == abi::SHADOW_LEN
        && bytes.iter().take(size).all(|b| *b == 0)
        && text[end..].iter().all(|b| *b == 0)
        && number(layout)? == abi::SHADOW_LAYOUT
        && (1..=abi::SHADOW_MAX).contains(&found.size);
    is_known.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: u32, layout: u32, name: &[u8]) -> Vec<u8> {
        let mut all = vec![0; 8];
        all.extend(size.to_le_bytes());
        all.extend(layout.to_le_bytes());
        all.extend(name);
        all.resize(abi::SHADOW_LEN, 0);
        all
    }

    #[test]
    fn only_what_the_header_makes_is_a_declaration() {
        let hits = ShadowVariable { name: "hits".into(), size: 24 };
        assert_eq!(declared(&bytes(24, 1, b"hits")), Some(hits));
        assert_eq!(declared(&bytes(0, 1, b"hits")), None);
        assert_eq!(declared(&bytes(65537, 1, b"hits")), None);
        assert_eq!(declared(&bytes(24, 2, b"hits")), None);
        assert_eq!(declared(&bytes(24, 1, b"")), None);
        assert_eq!(declared(&bytes(24, 1, b"a b")), None);
        assert_eq!(declared(&bytes(24, 1, b"hits\0more")), None);
        assert_eq!(declared(&bytes(24, 1, &[b'x'; 48])), None);
        assert_eq!(declared(&bytes(24, 1, b"hits")[..63]), None);
        let mut set = bytes(24, 1, b"hits");
        set[3] = 1;
        assert_eq!(declared(&set), None);
        assert!(is_named_for("lpb_shadow_of_hits", "hits") && is_named_for("lpb_shadow_of_hits.3", "hits"));
        assert!(!is_named_for("lpb_shadow_of_hits2", "hits") && !is_named_for("hits", "hits"));
    }
}
