//! The kernels of our own: they boot, are built again with a patch, and take patches made of their objects.

use harness::own::{OwnKernel, Variant};
use lpbuild_tests::own::{self, Expect, Fix};
use lpbuild_tests::{Env, in_checkout};

/// Loads fixes that can be seen: two of them, or all with `LPBUILD_OWN_FIXES=all`, or those named there.
fn run(name: &str, variant: Variant) {
    let Some((_, lpbuild)) = Env::with_lpbuild(name) else { return };
    let kernel = OwnKernel::ensure(variant).unwrap_or_else(|e| panic!("{e:#}"));
    let wanted = std::env::var("LPBUILD_OWN_FIXES").unwrap_or("01- 08-".into());
    let is_wanted = |f: &&Fix| wanted == "all" || wanted.split_whitespace().any(|w| f.name.starts_with(w));
    let fixes = own::fixes().unwrap_or_else(|e| panic!("{e:#}"));
    let seen = |f: &&Fix| f.expect == Expect::Patch && f.objects.is_none() && f.check.is_some() && f.is_for(variant);
    let fixes: Vec<&Fix> = fixes.iter().filter(seen).filter(is_wanted).collect();
    let mut made = Vec::new();
    for fix in &fixes {
        let module = fix.from_objects(&kernel, &lpbuild).unwrap_or_else(|e| panic!("{}: {e:#}", fix.name));
        if variant == Variant::Full {
            for function in &fix.changed {
                assert!(module.report.contains(&format!(": {function}: ")), "{}:\n{}", fix.name, module.report);
            }
        }
        made.push((*fix, module));
    }
    own::load(&format!("own-{}", variant.name()), &kernel, &lpbuild, &made).unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn the_full_kernel_takes_patches_of_its_objects() {
    run("the_full_kernel_takes_patches_of_its_objects", Variant::Full);
}

#[test]
fn the_bare_kernel_takes_patches_of_its_objects() {
    run("the_bare_kernel_takes_patches_of_its_objects", Variant::Bare);
}

#[test]
fn every_patch_is_listed_once() {
    let fixes = own::fixes().unwrap_or_else(|e| panic!("{e:#}"));
    let mut listed: Vec<String> = fixes.iter().map(|f| format!("{}.patch", f.name)).collect();
    let there = std::fs::read_dir(in_checkout("tests/own/fixes")).unwrap();
    let mut there: Vec<String> = there.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
}
