//! Changed files -> the objects they concern, before anything is compiled.
//!
//! A file is the source of an object, is included by objects, belongs to no object of this configuration (said, not
//! refused), or is one that no live patch can change (refused, LP63xx).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::elsewhere::{self, BOOT, PURGATORY, REAL_MODE, VDSO};
use super::includes::{IncludeIndex, object_of};
use super::kbuild::ObjectPart;
use super::makefiles;
use super::outline;
use super::patch::{FileChange, SourceChange};
use super::tree::Tree;
use crate::accept::{Acceptances, Accepted};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};

/// What a change concerns.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Objects of vmlinux.
    pub objects: BTreeSet<String>,
    /// Those of them for which it is only supposed that they read a changed file.
    pub supposed: BTreeSet<String>,
    /// Objects of modules that may read a changed file.
    pub modules: BTreeSet<String>,
    /// Objects of other programs that may read changed files, and which.
    pub elsewhere: BTreeMap<String, BTreeSet<String>>,
    /// Files without a part in this kernel, and why.
    pub unused: Vec<Unused>,
    /// Folders whose Makefiles are changed: objects may come, go or be compiled otherwise.
    pub folders: BTreeSet<String>,
}

/// A changed file that has no part in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// Relative to the tree.
    pub file: String,
    /// Why.
    pub why: String,
}

/// Refuses files that no live patch can change, whatever the configuration; returns what the author answers for.
pub fn screen(change: &SourceChange, accept: &Acceptances) -> Result<Vec<Accepted>> {
    let problem = |(path, file): (&String, &FileChange)| match impossible(path) {
        _ if outside(path).is_some() && !path.starts_with("scripts/") => None,
        Some((code, what)) => Some(Problem::new(code, Place::object(path), what)),
        None => elsewhere::own_header(path, file),
    };
    let mut problems: Vec<Problem> = change.files.iter().filter_map(problem).collect();
    let accepted = accept.settle(&mut problems);
    if problems.is_empty() { Ok(accepted) } else { Err(Error { problems }) }
}

/// Is a file compiled by itself?
fn is_source(path: &str) -> bool {
    path.ends_with(".c") || path.ends_with(".S")
}

/// Does another changed file have its name, or that of its object?
fn is_named(change: &SourceChange, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let object = name.rsplit_once('.').map_or_else(|| name.to_owned(), |(stem, _)| format!("{stem}.o"));
    let others = change.files.values().filter(|f| f.path != path).filter_map(|f| f.new.as_deref());
    let has = |text: &[u8], what: &str| text.windows(what.len()).any(|w| w == what.as_bytes());
    others.into_iter().any(|text| has(text, name) || has(text, &object))
}

/// Finds the objects of a change, with all that may include a changed header.
pub fn touched(tree: &Tree, change: &SourceChange) -> Result<Touched> {
    let mut found = Touched::default();
    let mut problems = Vec::new();
    let mut included = BTreeSet::new();
    let mut files = BTreeSet::new();
    for (path, file) in &change.files {
        if let Some(why) = outside(path) {
            found.unused.push(Unused { file: path.clone(), why: why.into() });
        } else if is_makefile(path) || tree.layout.read_for.contains_key(path) {
            files.insert(path.clone());
        } else if tree.layout.host_sources.contains(path) {
            let what = "a program is built from it that makes other files while the kernel is built";
            problems.push(Problem::new(codes::LP6304, Place::object(path), what));
        } else if let Some((object, part)) = object_of(&tree.layout, path) {
            if outline::only_init(file) {
                let what = "every changed line is in __init or __exit code, which is gone once the kernel has booted";
                problems.push(Problem::new(codes::LP6302, Place::object(path), what));
            }
            match part {
                ObjectPart::Builtin => drop(found.objects.insert(object)),
                ObjectPart::Module => drop(found.modules.insert(object)),
            }
        } else {
            included.insert(path.clone());
        }
    }
    let (folders, unread) = makefiles::folders(&tree.layout, &files);
    found.folders = folders;
    files.retain(|f| unread.iter().all(|u| u.file != *f));
    found.unused.extend(unread);
    problems.extend(makefiles::screen(change, &files));
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    for (object, of) in &tree.layout.elsewhere {
        if change.files.contains_key(&of.source) {
            found.elsewhere.entry(object.clone()).or_default().insert(of.source.clone());
        }
    }
    // A source file can be included by another one as well.
    included.extend(change.files.keys().filter(|p| tree.layout.included_sources.contains(*p)).cloned());
    if included.is_empty() {
        return Ok(found);
    }
    let index = IncludeIndex::read(&tree.source, &tree.build, &tree.layout);
    for path in included {
        let added = change.files.get(&path).is_some_and(|f| f.old.is_none());
        let dependents = index.dependents(&tree.layout, [&path]);
        if dependents.objects.is_empty() && dependents.elsewhere.is_empty() && !added {
            let why = "no object of this configuration is made from it".into();
            found.unused.push(Unused { file: path.clone(), why });
        }
        if added && is_source(&path) && !is_named(change, &path) {
            let why = "it is new, and no changed Makefile or file names it".into();
            found.unused.push(Unused { file: path.clone(), why });
        }
        for object in dependents.elsewhere {
            found.elsewhere.entry(object).or_default().insert(path.clone());
        }
        for (object, part) in dependents.objects {
            match part {
                ObjectPart::Builtin if found.objects.insert(object.clone()) => drop(found.supposed.insert(object)),
                ObjectPart::Builtin => {}
                ObjectPart::Module => drop(found.modules.insert(object)),
            }
        }
    }
    Ok(found)
}

/// Files that end up in no kernel object on any machine.
fn outside(path: &str) -> Option<&'static str> {
    const FOLDERS: &[(&str, &str)] = &[
        ("Documentation/", "documentation"),
        ("tools/", "a program that runs outside the kernel"),
        ("samples/", "an example"),
        ("LICENSES/", "a licence"),
        ("scripts/", "part of the build system"),
        ("usr/", "part of the initial ramdisk"),
    ];
    if let Some((_, why)) = FOLDERS.iter().find(|(f, _)| path.starts_with(f)) {
        return Some(why);
    }
    if path.strip_prefix("arch/").is_some_and(|rest| !rest.starts_with("x86/")) {
        return Some("code of another architecture");
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let texts = ["MAINTAINERS", "CREDITS", "README", ".gitignore", ".mailmap", "COPYING"];
    // The decoder's tables are made from arch/x86/lib/x86-opcode-map.txt.
    if texts.contains(&name) || name.ends_with(".rst") || name.ends_with(".txt") && !path.starts_with("arch/x86/lib/") {
        return Some("not code");
    }
    None
}

/// Files that no live patch can change, whatever is in them.
fn impossible(path: &str) -> Option<(&'static codes::Code, &'static str)> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if path.starts_with("arch/x86/entry/vdso/") && !["vma.c", "extable.c", "vdso32-setup.c"].contains(&name) {
        return Some((codes::LP6301, VDSO));
    }
    for (folder, what) in [
        ("arch/x86/boot/", BOOT),
        ("drivers/firmware/efi/libstub/", BOOT),
        ("arch/x86/realmode/rm", REAL_MODE),
        ("arch/x86/purgatory/", PURGATORY),
        ("lib/vdso/", VDSO),
        // Code of the kernel that runs at another address than its own, or before the kernel can be patched.
        ("arch/x86/kernel/head_64.S", "the first code of the kernel, which runs before its page tables are set up"),
        ("arch/x86/kernel/relocate_kernel_64.S", "kexec copies this code to another page and runs the copy"),
        ("arch/x86/power/hibernate_asm_64.S", "resuming copies this code to another page and runs the copy"),
        ("arch/x86/kernel/ftrace_64.S", "ftrace copies this code into its trampolines"),
        ("arch/x86/mm/mem_encrypt_boot.S", "the kernel's start copies this code and runs the copy"),
    ] {
        if path.starts_with(folder) {
            return Some((codes::LP6301, what));
        }
    }
    if name.starts_with("Kconfig") || path.starts_with("arch/x86/configs/") {
        return Some((codes::LP6303, "another configuration is another kernel"));
    }
    let builds_all = ["Makefile", "Kbuild", "Kconfig"].iter().any(|p| name.starts_with(p));
    if path.starts_with("scripts/") && (builds_all || path.starts_with("scripts/gcc-plugins/")) {
        return Some((codes::LP6303, "it decides how every object is compiled"));
    }
    if name == "Makefile" && !path.contains('/') || path == "Kbuild" || path == "arch/x86/Makefile" {
        return Some((codes::LP6303, "it decides how every object is compiled"));
    }
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
    match extension {
        "rs" => Some((codes::LP6304, "Rust source")),
        "lds" => Some((codes::LP6304, "a linker script decides where everything is")),
        _ if name.ends_with(".lds.S") => Some((codes::LP6304, "a linker script decides where everything is")),
        "tbl" | "awk" | "y" | "l" | "asn1" | "dts" | "dtsi" | "pl" | "sh" | "py" | "txt" | "uni" | "map" | "hex" => {
            Some((codes::LP6304, "other files are generated from it"))
        }
        _ => None,
    }
}

fn is_makefile(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "Makefile" || name == "Kbuild" || name.starts_with("Makefile.") || name.starts_with("Kbuild.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_by_what_they_can_do() {
        let class = |p: &str| impossible(p).map(|c| c.0.id).or(outside(p).map(|_| "outside"));
        for (path, want) in [
            ("arch/x86/entry/vdso/vclock_gettime.c", Some("LP6301")),
            ("arch/x86/entry/vdso/vma.c", None),
            ("arch/x86/boot/compressed/misc.c", Some("LP6301")),
            ("drivers/firmware/efi/libstub/x86-stub.c", Some("LP6301")),
            ("arch/x86/kernel/relocate_kernel_64.S", Some("LP6301")),
            ("scripts/Makefile.lib", Some("LP6303")),
            ("scripts/mod/modpost.c", Some("outside")),
            ("net/Kconfig", Some("LP6303")),
            ("Makefile", Some("LP6303")),
            ("arch/x86/kernel/vmlinux.lds.S", Some("LP6304")),
            ("arch/x86/entry/syscalls/syscall_64.tbl", Some("LP6304")),
            ("arch/x86/lib/memcpy_64.S", None),
            ("arch/arm64/mm/fault.c", Some("outside")),
            ("tools/testing/selftests/x.c", Some("outside")),
            ("MAINTAINERS", Some("outside")),
            ("net/core/dev.c", None),
            ("arch/x86/lib/x86-opcode-map.txt", Some("LP6304")),
            ("drivers/tty/vt/cp437.uni", Some("LP6304")),
        ] {
            assert_eq!(class(path), want, "{path}");
        }
        assert!(is_makefile("net/core/Makefile") && is_makefile("arch/x86/Kbuild") && !is_makefile("net/core/dev.c"));
    }
}
