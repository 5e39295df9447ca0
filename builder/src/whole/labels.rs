//! Labels assembly gives to data without saying that it is an object: no span covers them. Local ones in read-only data are
//! constants, which are compared where they are used; what all the others name is live, and its content is compared here.

use std::collections::BTreeMap;

use super::same::ImageSides;
use super::{Location, Mark, Proof, Use, Whole, scan};
use crate::symbolize::Class;

impl ImageSides<'_, '_> {
    /// Names of labels whose content differs.
    pub(super) fn labels(&self) -> Vec<String> {
        let (old, new) = (labels(self.old), labels(self.new));
        let differs = |(name, a): (&str, &Vec<Mark<'_>>)| {
            // What is only on one side is new or gone: whoever refers to it has changed.
            let b = new.get(name)?;
            let same = match_up(a, b).is_some_and(|pairs| pairs.iter().all(|(o, n)| self.same_value(*o, *n)));
            (!same).then(|| name.to_owned())
        };
        old.iter().filter_map(|(name, a)| differs((name, a))).collect()
    }

    fn same_value(&self, o: u64, n: u64) -> bool {
        let (lo, ln) = (reach(self.old, o), reach(self.new, n));
        let bytes = |w: &Whole<'_>, at: u64, len: u64| w.bytes(at, len).unwrap_or(&[]).to_vec();
        let (mut a, mut b) = (bytes(self.old, o, lo), bytes(self.new, n, ln));
        // What is behind it is padding, if the next thing is at another distance. Zeroed data has no bytes.
        let len = lo.min(ln) as usize;
        if a.iter().skip(len).chain(b.iter().skip(len)).any(|x| *x != 0) {
            return false;
        }
        a.resize(len, 0);
        b.resize(len, 0);
        let uses = |w: &Whole<'_>, at: u64| {
            let mut uses: Vec<Use> = Vec::new();
            if let Some((_, area)) = w.area_at(at) {
                scan::pointers(w, self.proof, area, (at, at + len as u64), &mut uses);
            }
            uses
        };
        let (ua, ub) = (uses(self.old, o), uses(self.new, n));
        // Templates are instructions that are copied from there (arch/x86/kernel/callthunks.c, arch/x86/kernel/kprobes/opt.c).
        self.same_fields((o, n), &a, &b, &ua, &ub)
            || self.proof < Proof::All && self.same_words(o, n, &mut a, &mut b, &ua, &ub)
            || self.same_instructions(o, n, len as u64)
    }
}

/// Labels that lie in no object, by name.
fn labels<'w>(whole: &'w Whole<'_>) -> BTreeMap<&'w str, Vec<Mark<'w>>> {
    let mut found: BTreeMap<&str, Vec<Mark<'_>>> = BTreeMap::new();
    for mark in whole.marks().filter(Mark::is_label) {
        if let Location::Gap(area) = whole.locate(mark.addr)
            && let class = whole.areas[usize::from(area)].class
            && (matches!(class, Class::Data | Class::Bss | Class::Percpu) || class == Class::Rodata && !mark.local)
        {
            found.entry(mark.name).or_default().push(mark);
        }
    }
    found
}

/// Which is which: those of one file in their order, then the others. Nothing when it is not as many on both sides.
fn match_up(old: &[Mark<'_>], new: &[Mark<'_>]) -> Option<Vec<(u64, u64)>> {
    if old.len() != new.len() {
        return None;
    }
    let by_file = |marks: &[Mark<'_>]| -> BTreeMap<String, Vec<u64>> {
        let mut files: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for m in marks {
            files.entry(m.file.to_owned()).or_default().push(m.addr);
        }
        files
    };
    let (mut a, mut b) = (by_file(old), by_file(new));
    let mut pairs = Vec::new();
    for (file, olds) in &mut a {
        if let Some(news) = b.get_mut(file).filter(|n| n.len() == olds.len()) {
            pairs.extend(olds.drain(..).zip(news.drain(..)));
        }
    }
    let left = |files: BTreeMap<String, Vec<u64>>| {
        let mut left: Vec<u64> = files.into_values().flatten().collect();
        left.sort_unstable();
        left
    };
    pairs.extend(left(a).into_iter().zip(left(b)));
    Some(pairs)
}

/// Bytes up to the next thing that has a name.
fn reach(whole: &Whole<'_>, addr: u64) -> u64 {
    const LONGEST: u64 = 1 << 24;
    let Some((_, area)) = whole.area_at(addr) else { return 0 };
    let span = whole.spans.get(whole.spans.partition_point(|s| s.addr <= addr)).map_or(u64::MAX, |s| s.addr);
    let mark = whole.next_mark(addr).unwrap_or(u64::MAX);
    span.min(mark).min(area.end()).saturating_sub(addr).min(LONGEST)
}
