//! Whether the running kernel has its functions where the patch was made for.
//!
//! Input: the manifest of a module, /proc/kallsyms. Output: what could not be compared, as a note. Refused: a function, a
//! piece of one or an import at another distance from the anchor (LP5123). The build id has been compared before; this
//! catches a manifest that was changed afterwards, and a build id that says less than it should. With kptr_restrict, or
//! without the right to see them, all addresses are zero, and nothing is compared.

use std::collections::BTreeMap;

use super::failure::{Failure, Obstacle};
use super::module::ModuleFile;
use super::system::Host;
use crate::codes;
use crate::error::{Place, Problem};

/// Compares the distances; a note says what was not compared.
pub(super) fn check(host: &Host, module: &ModuleFile) -> Result<Option<String>, Failure> {
    let manifest = &module.manifest;
    let Some(kernel) = &manifest.kernel else { return Ok(None) };
    // Name, position among those of its name, distance from the anchor.
    let mut wanted: Vec<(&str, Option<u32>, i64)> = Vec::new();
    for f in &manifest.functions {
        wanted.extend(f.anchor_offset.map(|o| (f.symbol.as_str(), f.sympos, o)));
        wanted.extend(f.pieces.iter().filter_map(|p| Some((p.symbol.as_str(), None, p.anchor_offset?))));
    }
    wanted.extend(manifest.imports.iter().filter_map(|i| Some((i.symbol.as_str(), None, i.anchor_offset?))));
    let mut found: BTreeMap<&str, Vec<u64>> = wanted.iter().map(|w| (w.0, Vec::new())).collect();
    found.insert(&kernel.anchor, Vec::new());
    let Some(text) = host.kallsyms() else {
        return Ok(Some("/proc/kallsyms cannot be read: addresses were not compared with it".to_owned()));
    };
    for line in text.lines() {
        // Address, letter, name; a fourth word is the module.
        let mut words = line.split_ascii_whitespace();
        let (address, _, name, None) = (words.next(), words.next(), words.next(), words.next()) else { continue };
        if let Some(list) = name.and_then(|n| found.get_mut(n))
            && let Some(address) = address.and_then(|a| u64::from_str_radix(a, 16).ok())
        {
            list.push(address);
        }
    }
    let anchor = match found.get(kernel.anchor.as_str()).map(Vec::as_slice) {
        Some([one]) if *one != 0 => *one,
        _ => {
            let why = "/proc/kallsyms hides the addresses (kernel.kptr_restrict): they were not compared with it";
            return Ok(Some(why.to_owned()));
        }
    };
    let mut causes: Vec<Obstacle> = Vec::new();
    for (name, sympos, offset) in wanted {
        let mut listed = found.get(name).cloned().unwrap_or_default();
        listed.sort_unstable();
        let distances: Vec<i64> = listed.iter().map(|a| a.wrapping_sub(anchor).cast_signed()).collect();
        let right = match sympos {
            // Code without a symbol of its own, and data without CONFIG_KALLSYMS_ALL, are not listed.
            None => distances.is_empty() || distances.contains(&offset),
            Some(n) => distances.get(n.saturating_sub(1) as usize) == Some(&offset) && (n > 0 || distances.len() == 1),
        };
        if !right {
            let detail = format!("it is {distances:?} bytes from {}, the manifest says {offset}", kernel.anchor);
            causes.push(Problem::new(codes::LP5123, Place::symbol(&module.path, name), detail).into());
        }
    }
    if causes.is_empty() { Ok(None) } else { Err(Failure { causes }) }
}
