//! Everything outside the checkout that builds and VM runs need; does nothing when all of it is there.

use anyhow::Result;
use harness::kernels::{self, Kernel};
use harness::packages;
use harness::tree::Tree;

pub fn task(_: &[String]) -> Result<()> {
    packages::ensure_packages(packages::NEEDED)?;
    println!("qemu     {}", harness::emulator::ensure()?.display());
    for series in kernels::wanted()? {
        let (kernel, tree) = run(&series.series)?;
        println!("kernel   {} ({}, fixes from {})", kernel.release, kernel.version, kernel.new_version);
        println!("image    {}", kernel.vmlinuz.display());
        println!("headers  {}", kernel.headers.display());
        println!("source   {}", tree.source.display());
        println!("build    {}", tree.build.display());
    }
    Ok(())
}

/// The kernel of a series with its prepared tree.
pub fn run(series: &str) -> Result<(Kernel, Tree)> {
    packages::ensure_packages(packages::NEEDED)?;
    if !crate::runtime::has_compiler() {
        packages::install(packages::RUST)?;
    }
    let kernel = Kernel::ensure(series)?;
    let tree = Tree::ensure(&kernel)?;
    Ok((kernel, tree))
}

/// The series demo and bench run on.
pub const SERIES: &str = "6.1";
