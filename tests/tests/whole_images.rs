//! Two whole kernels in, a patch out: linked images with and without relocations, `vmlinux.o`, `vmlinuz`; the same answer
//! as the pairs of objects give; nothing where nothing changed.

use std::collections::BTreeSet;
use std::path::Path;

use harness::cmd;
use harness::own::{OwnKernel, Variant};
use lpbuild_tests::Env;
use lpbuild_tests::own::{self, Expect, Fix};
use serde_json::Value;

/// What `lpbuild diff --json` says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: i32,
    changed: BTreeSet<String>,
    new: BTreeSet<String>,
    codes: BTreeSet<String>,
}

fn ask(lpbuild: &Path, old: &Path, new: &Path, more: &[&str]) -> Answer {
    let mut c = cmd::command(lpbuild);
    let out = c.arg("diff").args([old, new]).args(more).arg("--json").output().unwrap();
    let json: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    let names = |list: &str, key: &str| {
        let all = json[list].as_array().unwrap().iter();
        all.map(|r| r[key].as_str().unwrap().to_owned()).collect()
    };
    Answer {
        status: out.status.code().unwrap(),
        changed: names("changed", "symbol"),
        new: names("new", "symbol"),
        codes: names("refused", "code"),
    }
}

fn kernel(variant: Variant) -> OwnKernel {
    OwnKernel::ensure(variant).unwrap_or_else(|e| panic!("{e:#}"))
}

fn fixes(variant: Variant) -> Vec<Fix> {
    own::chosen(variant).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Every fix that shows in the guest, from a pair of linked kernels: in, seen, out.
fn load_all(name: &str, variant: Variant) {
    let Some((_, lpbuild)) = Env::with_lpbuild(name) else { return };
    let (kernel, fixes) = (kernel(variant), fixes(variant));
    let made: Vec<_> = fixes
        .iter()
        .filter(|f| f.is_seen())
        .map(|f| (f, f.from_images(&kernel, &lpbuild, &kernel.vmlinux).unwrap_or_else(|e| panic!("{}: {e:#}", f.name))))
        .collect();
    assert!(made.len() >= 10, "only {} fixes can be seen", made.len());
    own::load(&format!("images-{}", variant.name()), &kernel, &lpbuild, &made).unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn linked_kernels_with_relocations_make_patches_that_load() {
    load_all("linked_kernels_with_relocations_make_patches_that_load", Variant::Full);
}

#[test]
fn linked_kernels_without_relocations_make_patches_that_load() {
    load_all("linked_kernels_without_relocations_make_patches_that_load", Variant::Bare);
}

/// What is wrong with the answer about a fix.
fn wrong(fix: &Fix, answer: &Answer) -> Option<String> {
    let good = match fix.expect {
        Expect::Patch => answer.status == 0,
        Expect::Nothing => answer.status == 3,
        Expect::Refused => answer.status == 4 && answer.codes.contains(fix.code.as_deref().unwrap_or("")),
    };
    (!good).then(|| format!("{}: {answer:?}", fix.name))
}

/// Without ftrace, kprobes, relocations: what other compilers and levels of optimisation make of the fixes gets the verdict
/// that is listed.
fn verdicts(name: &str, variant: Variant) {
    let Some((_, lpbuild)) = Env::with_lpbuild(name) else { return };
    let (kernel, fixes) = (kernel(variant), fixes(variant));
    let seen = fixes.iter().filter(|f| f.is_seen()).count();
    assert!(seen >= 10 && fixes.iter().any(|f| f.expect == Expect::Refused), "only {seen} fixes can be seen");
    let mut all_wrong = Vec::new();
    for fix in &fixes {
        let new = kernel.patched(&fix.patch()).unwrap_or_else(|e| panic!("{}: {e:#}", fix.name));
        all_wrong.extend(wrong(fix, &ask(&lpbuild, &kernel.vmlinux, &new.vmlinux, &[])));
    }
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

#[test]
fn the_bare_kernel_gets_the_listed_verdicts() {
    verdicts("the_bare_kernel_gets_the_listed_verdicts", Variant::Bare);
}

#[test]
fn a_kernel_optimised_for_size_gets_the_listed_verdicts() {
    verdicts("a_kernel_optimised_for_size_gets_the_listed_verdicts", Variant::BareSize);
}

#[test]
fn a_kernel_built_by_clang_gets_the_listed_verdicts() {
    verdicts("a_kernel_built_by_clang_gets_the_listed_verdicts", Variant::BareClang);
}

/// Objects, `vmlinux.o`, `vmlinux` and the compressed image find the same functions, those that are listed among them, and
/// give the verdict that is listed.
#[test]
fn all_forms_give_the_same_answer() {
    let Some((_, lpbuild)) = Env::with_lpbuild("all_forms_give_the_same_answer") else { return };
    let kernel = kernel(Variant::Full);
    // Not every form has debug information, and with it types to compare.
    let without_types = |mut a: Answer| {
        a.codes.remove("LP2015");
        a
    };
    let (fixes, mut all_wrong) = (fixes(Variant::Full), Vec::new());
    for fix in &fixes {
        let new = kernel.patched(&fix.patch()).unwrap_or_else(|e| panic!("{}: {e:#}", fix.name));
        let bind = ["--kernel", kernel.vmlinux.to_str().unwrap()];
        let linked = ask(&lpbuild, &kernel.vmlinux, &new.vmlinux, &[]);
        let relocatable = ask(&lpbuild, &kernel.vmlinux_o, &new.vmlinux_o, &bind);
        let compressed = ask(&lpbuild, &kernel.bzimage, &new.vmlinux, &[]);
        let mut all = vec![("vmlinux.o", relocatable), ("vmlinuz", compressed)];
        if fix.objects.is_none() && !new.objects.objects.is_empty() {
            all.push(("objects", ask(&lpbuild, &new.objects.old, &new.objects.new, &bind)));
        }
        all_wrong.extend(wrong(fix, &linked));
        if fix.expect == Expect::Patch && !fix.changed.iter().all(|f| linked.changed.contains(f)) {
            all_wrong.push(format!("{}: not {:?} but {linked:?}", fix.name, fix.changed));
        }
        let linked = without_types(linked);
        for (form, answer) in all.into_iter().map(|(form, a)| (form, without_types(a))).filter(|(_, a)| *a != linked) {
            all_wrong.push(format!("{}: vmlinux {linked:?}\n    {form} {answer:?}", fix.name));
        }
    }
    assert!(fixes.len() >= 32, "only {} fixes", fixes.len());
    assert!(all_wrong.is_empty(), "{}", all_wrong.join("\n"));
}

/// The module of each form does the same.
#[test]
fn modules_of_all_forms_behave_the_same() {
    let Some((_, lpbuild)) = Env::with_lpbuild("modules_of_all_forms_behave_the_same") else { return };
    let (kernel, fixes) = (kernel(Variant::Full), fixes(Variant::Full));
    let mut made = Vec::new();
    for fix in fixes.iter().filter(|f| f.is_seen()).take(6) {
        let image = fix.from_images(&kernel, &lpbuild, &kernel.bzimage);
        let relocatable = fix.from_relocatable(&kernel, &lpbuild);
        let objects = fix.from_objects(&kernel, &lpbuild);
        for module in [image, relocatable, objects] {
            made.push((fix, module.unwrap_or_else(|e| panic!("{}: {e:#}", fix.name))));
        }
    }
    own::load("images-forms", &kernel, &lpbuild, &made).unwrap_or_else(|e| panic!("{e:#}"));
}

fn nothing(lpbuild: &Path, old: &Path, new: &Path) {
    let answer = ask(lpbuild, old, new, &[]);
    assert_eq!(answer.status, 3, "{}: {answer:?}", new.display());
}

#[test]
fn the_same_tree_in_another_folder_changes_nothing() {
    let Some((_, lpbuild)) = Env::with_lpbuild("the_same_tree_in_another_folder_changes_nothing") else { return };
    let kernel = kernel(Variant::Bare);
    let elsewhere = kernel.elsewhere().unwrap_or_else(|e| panic!("{e:#}"));
    let [ours, theirs] = [&kernel.vmlinux, &elsewhere].map(|path| std::fs::read(path).unwrap());
    let has = |image: &[u8], text: &str| image.windows(text.len()).any(|w| w == text.as_bytes());
    for (ours_says, theirs_says) in [("lpbuild@lpbuild", "a-stranger@some.other.host"), ("#1 SMP", "#23 SMP")] {
        assert!(has(&ours, ours_says) && !has(&ours, theirs_says));
        assert!(has(&theirs, theirs_says) && !has(&theirs, ours_says));
    }
    nothing(&lpbuild, &kernel.vmlinux, &elsewhere);
}

#[test]
fn another_order_of_the_objects_changes_nothing() {
    let Some((_, lpbuild)) = Env::with_lpbuild("another_order_of_the_objects_changes_nothing") else { return };
    for variant in [Variant::Full, Variant::Bare] {
        let kernel = kernel(variant);
        nothing(&lpbuild, &kernel.vmlinux, &kernel.reordered().unwrap_or_else(|e| panic!("{e:#}")));
    }
}

#[test]
fn types_with_another_layout_are_refused_or_accepted() {
    let Some((_, lpbuild)) = Env::with_lpbuild("types_with_another_layout_are_refused_or_accepted") else { return };
    let (kernel, fixes) = (kernel(Variant::Full), fixes(Variant::Full));
    let fix = fixes.iter().find(|f| f.name == "64-refused-layout").unwrap();
    let new = kernel.patched(&fix.patch()).unwrap_or_else(|e| panic!("{e:#}")).vmlinux;
    assert!(ask(&lpbuild, &kernel.vmlinux, &new, &[]).codes.contains("LP2015"));
    assert!(!ask(&lpbuild, &kernel.vmlinux, &new, &["--no-debug-info"]).codes.contains("LP2015"));
    let accepted = ask(&lpbuild, &kernel.vmlinux, &new, &["--accept-type", "struct console_cmdline"]);
    assert!(!accepted.codes.contains("LP2015"), "{accepted:?}");
}

/// A relocatable file has no addresses, and another image has others.
#[test]
fn only_the_running_kernel_will_do() {
    let Some((_, lpbuild)) = Env::with_lpbuild("only_the_running_kernel_will_do") else { return };
    let (kernel, fixes) = (kernel(Variant::Bare), fixes(Variant::Bare));
    let new = kernel.patched(&fixes[0].patch()).unwrap_or_else(|e| panic!("{e:#}"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = ["-o", out.to_str().unwrap()];
    let answer = ask(&lpbuild, &kernel.vmlinux_o, &new.vmlinux_o, &output);
    assert_eq!(answer.codes, BTreeSet::from(["LP3007".to_owned()]));
    let other = [output[0], output[1], "--kernel", new.vmlinux.to_str().unwrap()];
    let answer = ask(&lpbuild, &kernel.vmlinux, &new.vmlinux, &other);
    assert_eq!(answer.codes, BTreeSet::from(["LP3007".to_owned()]));
    assert!(!out.exists());
}
