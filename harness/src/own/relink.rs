//! The objects of a kernel of our own, linked in another order.
//!
//! Objects with initcalls keep their places among each other and among all, as does the code that must come first; the
//! others are put into each other's places, the last first. So the kernel boots, and nearly every address differs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{OwnKernel, make};
use crate::change::Change;
use crate::{cache, cmd, progress};

impl OwnKernel {
    /// `vmlinux` of the same objects, linked in another order, once.
    pub fn reordered(&self) -> Result<PathBuf> {
        let entry = cache::publish(&self.root.join("reordered"), |dir| {
            let _lock = cache::lock(&self.root)?;
            progress(format!("linking the {} kernel in another order", self.variant.name()));
            self.changed_for_a_while(&Change::none(), || {
                let work = self.work();
                let objects = cmd::output(cmd::command("ar").args(["t", "vmlinux.a"]).current_dir(&work))?;
                let objects: Vec<&str> = objects.lines().collect();
                let heads = fs::read_to_string(self.source.join("scripts/head-object-list.txt"))?;
                let fixed = with_initcalls(&work, &objects)?;
                let order = permuted(&objects, |o| heads.contains(o) || fixed.contains(o));
                // Newer than what it is made of, by the same command: make takes it as it is.
                fs::remove_file(work.join("vmlinux.a"))?;
                let mut ar = cmd::command("ar");
                cmd::output(ar.args(["cDPrST", "vmlinux.a"]).args(&order).current_dir(&work))?;
                make(self.variant, &self.source, &work, &["vmlinux"])?;
                let linked = cmd::output(cmd::command("ar").args(["t", "vmlinux.a"]).current_dir(&work))?;
                if linked.lines().ne(order.iter().copied()) {
                    bail!("make has brought the old order of vmlinux.a back");
                }
                fs::rename(work.join("vmlinux"), dir.join("vmlinux")).context("keep vmlinux")
            })
        })?;
        Ok(entry.join("vmlinux"))
    }
}

/// Those of the objects that register initcalls, or anything else whose order is that of the link.
fn with_initcalls<'o>(work: &Path, objects: &[&'o str]) -> Result<BTreeSet<&'o str>> {
    let mut found = BTreeSet::new();
    for chunk in objects.chunks(200) {
        let mut readelf = cmd::command("readelf");
        let listed = cmd::output(readelf.args(["--section-headers", "--wide"]).args(chunk).current_dir(work))?;
        let mut current = None;
        for line in listed.lines() {
            if let Some(file) = line.strip_prefix("File: ") {
                current = chunk.iter().find(|o| **o == file.trim()).copied();
            } else if [".initcall", ".con_initcall", ".init.setup", "initcall"].iter().any(|s| line.contains(s)) {
                found.extend(current);
            }
        }
    }
    Ok(found)
}

/// What is not fixed, in reverse, in the places of what is not fixed.
fn permuted<'o>(objects: &[&'o str], fixed: impl Fn(&str) -> bool) -> Vec<&'o str> {
    let mut others = objects.iter().rev().filter(|o| !fixed(o));
    objects.iter().filter_map(|o| if fixed(o) { Some(*o) } else { others.next().copied() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_fixed_moves() {
        assert_eq!(
            permuted(&["H", "a", "b", "I", "c"], |o| o.starts_with(char::is_uppercase)),
            ["H", "c", "b", "I", "a"]
        );
    }
}
