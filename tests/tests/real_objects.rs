//! Real pairs: every object below `LPBUILD_TEST_OBJECTS` (`old/` and `new/` trees built for one kernel), in both
//! directions, and bound to `LPBUILD_TEST_KERNEL` when that names the image of the old side. Each patch is read again and
//! compared with its source as in the corpus; the names at bound addresses come from kallsyms.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lpbuild::holder::HolderName;
use lpbuild::kernel::KernelImage;
use lpbuild::pipeline::{self};
use lpbuild::plan::Role;
use lpbuild::plan::Source;
use support::check::{Kernel, Patch};
use support::image::Image;
use support::read::Elf;

fn objects(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "o") {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn patches_of_real_objects_mean_what_the_new_objects_mean() {
    let Some(root) = std::env::var_os("LPBUILD_TEST_OBJECTS").map(PathBuf::from) else {
        println!("skipped: LPBUILD_TEST_OBJECTS does not name a folder with old/ and new/ trees");
        return;
    };
    let kernel = std::env::var_os("LPBUILD_TEST_KERNEL").map(|p| KernelImage::open(p.as_ref()).unwrap());
    let image = kernel.as_ref().map(|k| {
        let symbols: Vec<(String, u64)> = k.kallsyms().iter().map(|s| (s.name.to_string(), s.addr)).collect();
        let mut at: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (name, address) in &symbols {
            at.entry(*address).or_default().push(name.clone());
        }
        Image { file: Vec::new(), symbols, at }
    });
    let mut wrong = Vec::new();
    for name in objects(&root.join("old")) {
        let read = |side: &str| std::fs::read(root.join(side).join(&name)).unwrap();
        if !root.join("new").join(&name).exists() {
            continue;
        }
        let (old, new) = (read("old"), read("new"));
        for (from, to, forwards) in [(&old, &new, true), (&new, &old, false)] {
            let label = format!("{} {}", name.display(), if forwards { "forwards" } else { "backwards" });
            let source = Source {
                name: name.to_string_lossy().into_owned(),
                old_path: name.clone(),
                new_path: name.clone(),
                old: from.clone(),
                new: to.clone(),
                holder: HolderName::Vmlinux,
            };
            let options = support::options();
            let mut analysis = pipeline::analyse(&[source], &options).unwrap();
            if analysis.set.items.is_empty() || !analysis.refused.is_empty() {
                println!(
                    "{label}: {} items, refused {:?}",
                    analysis.set.items.len(),
                    analysis.refused.iter().map(ToString::to_string).collect::<Vec<_>>()
                );
                continue;
            }
            let replaced: BTreeSet<String> = analysis
                .set
                .items
                .iter()
                .filter(|i| matches!(i.role, Role::Replaces(_)))
                .map(|i| analysis.pairs[0].new.atom(i.atom.0).name.clone())
                .collect();
            let news = vec![(label.clone(), Elf::read(to))];
            for bind in [None, kernel.as_ref().filter(|_| forwards)] {
                let output = match pipeline::produce(&mut analysis, bind, &options) {
                    Ok(o) => o,
                    Err(e) => {
                        println!("{label}: {e}");
                        continue;
                    }
                };
                let kernel = bind.zip(image.as_ref()).map(|(read, image)| Kernel { image, read });
                let bound = kernel.is_some();
                let patch =
                    Patch { patch: Elf::read(&output.patch_o), news: &news, replaced: replaced.clone(), kernel };
                match patch.check() {
                    Ok(n) => println!("{label}: {n} references compared, bound {bound}"),
                    Err(e) => wrong.push(format!("{label}, bound {bound}: {e}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
