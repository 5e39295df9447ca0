//! The kernels of our own: they boot, are built again with a patch, and take patches made of their objects. Those of `full`
//! are loaded in whole_images.rs, beside the other forms.

use harness::own::{OwnKernel, Variant};
use lpbuild_tests::own;
use lpbuild_tests::{Env, in_checkout};

/// Two fixes, for a kernel that has nothing a patch could lean on: one object, and two of which one calls the other.
#[test]
fn the_bare_kernel_takes_patches_of_its_objects() {
    let Some((_, lpbuild)) = Env::with_lpbuild("the_bare_kernel_takes_patches_of_its_objects") else { return };
    let kernel = OwnKernel::ensure(Variant::Bare).unwrap_or_else(|e| panic!("{e:#}"));
    let fixes = own::chosen(Variant::Bare).unwrap_or_else(|e| panic!("{e:#}"));
    let made: Vec<_> = ["01-", "08-"]
        .map(|name| fixes.iter().find(|f| f.name.starts_with(name)).unwrap())
        .map(|f| (f, f.from_objects(&kernel, &lpbuild).unwrap_or_else(|e| panic!("{}: {e:#}", f.name))))
        .into();
    own::load("own-bare", &kernel, &lpbuild, &made).unwrap_or_else(|e| panic!("{e:#}"));
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
