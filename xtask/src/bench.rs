//! `cargo xtask bench`: the figures the project promises, one per line.

use anyhow::{Result, bail};

/// What can be asked for alone.
const PARTS: &[&str] = &["objects", "images", "build", "runtime", "loads", "modules"];

pub fn task(parts: &[String]) -> Result<()> {
    if let Some(part) = parts.iter().find(|p| !PARTS.contains(&p.as_str())) {
        bail!("no part {part:?}; there are: {}", PARTS.join(", "));
    }
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    if asked("objects") {
        crate::bench_objects::run(&tree, &lpbuild)?;
    }
    if asked("images") {
        crate::bench_images::run(&lpbuild)?;
    }
    if asked("build") {
        crate::bench_build::run(&kernel, &tree, &lpbuild)?;
    }
    // The second is part of the first.
    if asked("runtime") || asked("loads") {
        crate::bench_runtime::run(&lpbuild, asked("runtime"))?;
    }
    if asked("modules") {
        crate::bench_modules::run(&lpbuild)?;
    }
    Ok(())
}
