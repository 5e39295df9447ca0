//! The small kernels of our own, from the command line.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use harness::own::{OwnKernel, Variant};

pub fn task(args: &[String]) -> Result<()> {
    let usage = "usage: cargo xtask own full|bare|bare-size|bare-clang [PATCH]..";
    let (name, rest) = args.split_first().context(usage)?;
    let variant = Variant::ALL.into_iter().find(|v| v.name() == name.as_str()).context(usage)?;
    let started = Instant::now();
    let kernel = OwnKernel::ensure(variant)?;
    println!("kernel   {} ({:.1} s)", kernel.release, started.elapsed().as_secs_f64());
    println!("image    {}", kernel.bzimage.display());
    println!("vmlinux  {}", kernel.vmlinux.display());
    println!("headers  {}", kernel.build.display());
    for arg in rest {
        let started = Instant::now();
        match arg.as_str() {
            "elsewhere" => println!("{arg}  {}", kernel.elsewhere()?.display()),
            "reordered" => println!("{arg}  {}", kernel.reordered()?.display()),
            patch => {
                let patched = kernel.patched(Path::new(patch))?;
                println!("patched  {}", patched.vmlinux.display());
                println!("objects  {}", patched.objects.objects.join(" "));
            }
        }
        println!("time     {:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}
