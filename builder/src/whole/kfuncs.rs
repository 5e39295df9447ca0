//! Sets of kernel functions BPF programs may call: how many, and with which flags (`BTF_ID_FLAGS`, include/linux/btf_ids.h).
//!
//! The numbers of the functions are those of BTF types, which differ from build to build and are what `resolve_btfids` has
//! sorted the sets by. So the flags of a set are compared without saying whose they are.

use std::collections::BTreeMap;

use super::Whole;

/// Before the name of a `struct btf_id_set8`: u32 count, u32 flags, and for each function u32 id, u32 flags.
const PREFIX: &str = "__BTF_ID__set8__";

/// Names of the sets of both images that differ.
pub fn differing(old: &Whole<'_>, new: &Whole<'_>) -> Vec<String> {
    let (old, new) = (sets(old), sets(new));
    let differs = |(name, flags): (&&str, &Vec<Vec<u32>>)| new.get(*name).is_some_and(|other| other != flags);
    old.iter().filter(|(name, flags)| differs((name, flags))).map(|(name, _)| (*name).to_owned()).collect()
}

/// The flags of each set, in their order; files may have sets of one name.
fn sets<'d>(whole: &Whole<'d>) -> BTreeMap<&'d str, Vec<Vec<u32>>> {
    let mut found: BTreeMap<&str, Vec<Vec<u32>>> = BTreeMap::new();
    for symbol in whole.symbols.iter().filter(|s| s.size >= 8) {
        let Some(name) = symbol.name.strip_prefix(PREFIX) else { continue };
        let Some(bytes) = whole.bytes(symbol.value, symbol.size) else { continue };
        let word = |b: &[u8]| b.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let (set, functions) = bytes.split_at(8);
        let mut flags: Vec<u32> = functions.chunks_exact(8).filter_map(word).collect();
        flags.sort_unstable();
        flags.extend(word(set));
        found.entry(name).or_default().push(flags);
    }
    for list in found.values_mut() {
        list.sort_unstable();
    }
    found
}
