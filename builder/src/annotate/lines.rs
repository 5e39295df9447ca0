//! The source lines of what is carried, for whoever explains it.

use super::sides::object_address;
use super::{Images, address};
use crate::correlate::Files;
use crate::debuginfo::DebugInfo;
use crate::parallel;
use crate::plan::{Analysis, CodeLines, Item, ObjectPair};
use crate::symbolize::{AtomId, Object};

/// Of pairs of objects; `first` is the first of them.
pub fn of_objects(analysis: &Analysis, first: usize, debug: &[Files<'_>]) -> Vec<CodeLines> {
    let items: Vec<(usize, &Item)> = analysis.set.items.iter().enumerate().filter(|(_, i)| i.is_code()).collect();
    // Most of the time goes into the line tables, one for each object: threads pay where there are several.
    let found = parallel::map_if(debug.len() > 1, &items, |(index, item)| {
        let pair = analysis.pairs.get(item.pair.0 as usize)?;
        let [old, new] = debug.get((item.pair.0 as usize).checked_sub(first)?)?.both()?;
        let old_at = |id| object_address(&pair.old, id);
        let new_at = |id| object_address(&pair.new, id);
        Some(of_item(*index, item, pair, [old, new], [&old_at, &new_at]))
    });
    found.into_iter().flatten().collect()
}

/// Of whole images, which are the first pair.
pub fn of_images(analysis: &Analysis, images: Images<'_, '_>) -> Vec<CodeLines> {
    let (Some(debug), Some(pair)) = (images.debug, analysis.pairs.first()) else { return Vec::new() };
    let code = |i: &Item| i.is_code() && i.pair.0 == 0;
    let items: Vec<(usize, &Item)> = analysis.set.items.iter().enumerate().filter(|(_, i)| code(i)).collect();
    let old_at = |id| address(images.old, &pair.old, id);
    let new_at = |id| address(images.new, &pair.new, id);
    parallel::map(&items, |(index, item)| of_item(*index, item, pair, [debug.old, debug.new], [&old_at, &new_at]))
}

/// Where an atom is in the debug information.
type Address<'a> = &'a dyn Fn(AtomId) -> Option<u64>;

fn of_item(
    index: usize,
    item: &Item,
    pair: &ObjectPair,
    [old, new]: [&DebugInfo<'_>; 2],
    [old_at, new_at]: [Address<'_>; 2],
) -> CodeLines {
    let mut lines = CodeLines { item: index, ..CodeLines::default() };
    if let Some(o) = pair.pairs.old_of(item.atom) {
        add(&mut lines, true, &pair.old, o.0, old, old_at);
    }
    add(&mut lines, false, &pair.new, item.atom.0, new, new_at);
    lines
}

fn add(lines: &mut CodeLines, is_old: bool, object: &Object, id: AtomId, debug: &DebugInfo<'_>, at: Address<'_>) {
    let (Some(code), Some(start)) = (&object.atom(id).code, at(id)) else { return };
    for insn in &code.insns {
        let Some(line) = debug.line(start + u64::from(insn.at)) else { continue };
        lines.add(is_old, u64::from(insn.at), line.file, line.line);
    }
}
