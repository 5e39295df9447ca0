//! The lists and sets of `.BTF_ids` (include/linux/btf_ids.h): what an object says of ids that nobody knows yet.
//!
//! An object holds zeroes; the symbol of an entry says what `resolve_btfids` writes there when vmlinux is linked:
//! `__BTF_ID__func__foo__123`, where the number at the end has no meaning. One atom is one list (`BTF_ID_LIST`) or one set
//! (`BTF_SET_START`, `BTF_SET8_START`), from its label to the next one.

use object::elf;

use super::base_name;
use super::{AtomId, Object};
use crate::ingest::SymbolPlace;

/// Begins the name of every symbol of an entry.
pub const ENTRY: &str = "__BTF_ID__";
/// Begins the name of the symbol at the number of entries of a set.
const SET: &str = "__BTF_ID__set__";
/// The same of a set whose entries have flags.
const SET_WITH_FLAGS: &str = "__BTF_ID__set8__";

/// What a list of ids is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Entries are found by their place.
    List,
    /// A number of entries, and entries that are sorted when they are filled in.
    Set,
    /// The same, with flags of the set and of each entry.
    SetWithFlags,
}

/// The words of a list: what is written there, and what is there already.
pub type Words = Vec<(Vec<String>, u32)>;

/// Does the symbol name an entry, not a list?
pub fn is_entry(name: &str) -> bool {
    name.starts_with(ENTRY) && !is_head(name)
}

/// Does it name the number of entries of a set?
pub fn is_head(name: &str) -> bool {
    name.starts_with(SET) || name.starts_with(SET_WITH_FLAGS)
}

impl Object {
    /// What the list is.
    pub fn ids(&self, id: AtomId) -> Ids {
        let atom = self.atom(id);
        let any = |prefix: &str| std::iter::once(&atom.name).chain(&atom.aliases).any(|n| n.starts_with(prefix));
        match (any(SET), any(SET_WITH_FLAGS)) {
            (_, true) => Ids::SetWithFlags,
            (true, false) => Ids::Set,
            (false, false) => Ids::List,
        }
    }

    /// What the list will hold; the entries of a set in an order of their own.
    pub fn id_words(&self, id: AtomId) -> Words {
        let atom = self.atom(id);
        let words = self.bytes(id).chunks(4).map(|w| {
            let mut word = [0; 4];
            word[..w.len()].copy_from_slice(w);
            (Vec::new(), u32::from_le_bytes(word))
        });
        let mut words: Words = words.collect();
        for symbol in self.image.symbols.iter().filter(|s| s.kind != elf::STT_SECTION.0 && is_entry(&s.name)) {
            let here = symbol.place == SymbolPlace::Section(atom.section);
            let at = symbol.value.checked_sub(atom.start).filter(|_| here && symbol.value < atom.end);
            if let Some(word) = at.and_then(|at| words.get_mut((at / 4) as usize)) {
                // Not only the number: two entries that are none of one are not the same.
                word.0.push(format!("{}+{}", base_name(&symbol.name), symbol.value % 4));
            }
        }
        for word in &mut words {
            word.0.sort_unstable();
        }
        let (head, size) = match self.ids(id) {
            Ids::List => return words,
            Ids::Set => (1, 1),
            Ids::SetWithFlags => (2, 2),
        };
        let entries = words.split_off(head.min(words.len()));
        let mut entries: Vec<Words> = entries.chunks(size).map(<[_]>::to_vec).collect();
        entries.sort_unstable();
        words.extend(entries.into_iter().flatten());
        words
    }
}

/// The first difference of two lists, in words.
pub fn difference(old: &Words, new: &Words) -> Option<String> {
    let name = |word: &(Vec<String>, u32)| {
        let name = word.0.first().map(|n| n.trim_start_matches(ENTRY).split('+').next().unwrap_or_default());
        name.map_or_else(|| format!("{:#x}", word.1), |n| n.replacen("__", " ", 1))
    };
    if old == new {
        return None;
    }
    let at = (0..old.len().max(new.len())).find(|i| old.get(*i) != new.get(*i)).unwrap_or(0);
    // A word without a symbol belongs to the entry before it.
    let of = |words: &Words| words.get(..at).and_then(|w| w.iter().rev().find(|w| !w.0.is_empty())).map(name);
    Some(match (old.get(at), new.get(at)) {
        (Some(a), Some(b)) if a.0.is_empty() && b.0.is_empty() => match of(new) {
            Some(entry) => format!("the flags of {entry} are {:#x} instead of {:#x}", b.1, a.1),
            None => format!("its flags are {:#x} instead of {:#x}", b.1, a.1),
        },
        (_, Some(b)) if old.len() < new.len() => {
            format!("{} bytes became {}, with {}", old.len() * 4, new.len() * 4, name(b))
        }
        (Some(a), _) if old.len() > new.len() => {
            format!("{} bytes became {}, without {}", old.len() * 4, new.len() * 4, name(a))
        }
        (Some(a), Some(b)) => format!("it has {} where {} was", name(b), name(a)),
        _ => "its entries differ".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let word = |name: &str, value: u32| {
            let names = if name.is_empty() { vec![] } else { vec![format!("{ENTRY}{name}+0")] };
            (names, value)
        };
        let old = vec![word("", 0), word("", 0), word("func__a", 0), word("", 1), word("func__b", 0), word("", 2)];
        assert_eq!(difference(&old, &old), None);
        let mut new = old.clone();
        new[5].1 = 66;
        assert_eq!(difference(&old, &new).unwrap(), "the flags of func b are 0x42 instead of 0x2");
        new = old.clone();
        new[1].1 = 1;
        assert_eq!(difference(&old, &new).unwrap(), "its flags are 0x1 instead of 0x0");
        new = old.clone();
        new[2] = word("struct__c_d", 0);
        assert_eq!(difference(&old, &new).unwrap(), "it has struct c_d where func a was");
        assert_eq!(difference(&old, &old[..4].to_vec()).unwrap(), "24 bytes became 16, without func b");
        assert_eq!(difference(&old[..4].to_vec(), &old).unwrap(), "16 bytes became 24, with func b");
    }

    #[test]
    fn entries_are_no_lists() {
        assert!(is_entry("__BTF_ID__func__foo__12"));
        assert!(!is_entry("__BTF_ID__set8__foo") && !is_entry("__BTF_ID__set__foo") && !is_entry("foo"));
    }
}
