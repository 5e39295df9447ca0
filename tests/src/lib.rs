//! Corpus cases, command line cases and VM runs: what the files under `tests/` share.
//!
//! Tests that need a kernel, a prepared tree or the finished `lpbuild` ask [`Env::find`]; it gives nothing, and prints
//! why, where `cargo xtask setup` has not run. `cargo xtask test` sets up first, so that there nothing is left out, and
//! counts what was left out all the same.

pub mod bench;
pub mod external;
pub mod fixes;
pub mod ko_pair;
pub mod own;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use harness::kernels::Kernel;
use harness::module::Maker;
use harness::skip;
use harness::tree::Tree;

/// Series of the kernel the tests run on.
pub const SERIES: &str = "6.1";

/// What setup has made.
#[derive(Clone, Debug)]
pub struct Env {
    /// The stock kernel.
    pub kernel: Kernel,
    /// Its prepared build folder.
    pub tree: Tree,
}

impl Env {
    /// The environment, or a printed reason why the test `name` is skipped.
    pub fn find(name: &str) -> Option<Self> {
        Self::find_series(name, SERIES)
    }

    /// The same for the kernel of another series.
    pub fn find_series(name: &str, series: &str) -> Option<Self> {
        match Self::look(series) {
            Ok(env) => Some(env),
            Err(why) => {
                skip(name, &format!("{why:#}"));
                None
            }
        }
    }

    fn look(series: &str) -> Result<Self> {
        let hint = "run `cargo xtask setup`";
        let kernel = Kernel::locate(series)?.with_context(|| format!("no stock kernel in the cache: {hint}"))?;
        let tree = Tree::locate(&kernel)?.with_context(|| format!("no prepared build folder in the cache: {hint}"))?;
        for program in ["qemu-system-x86_64", "busybox", "gcc-12", "make"] {
            if !harness::cmd::found(program) {
                bail!("{program} is not installed: {hint}");
            }
        }
        Ok(Self { kernel, tree })
    }

    /// Makes modules of changes with the given binary.
    pub fn maker<'a>(&'a self, lpbuild: &'a Path) -> Maker<'a> {
        Maker { lpbuild, kernel: &self.kernel, tree: &self.tree }
    }

    /// As [`Env::find`], with the static `lpbuild` binary that `cargo xtask build` makes (`LPBUILD_BIN` names another).
    pub fn with_lpbuild(name: &str) -> Option<(Self, PathBuf)> {
        Self::series_with_lpbuild(name, SERIES)
    }

    /// The same for the kernel of another series.
    pub fn series_with_lpbuild(name: &str, series: &str) -> Option<(Self, PathBuf)> {
        let env = Self::find_series(name, series)?;
        let binary = lpbuild_bin();
        if !binary.exists() {
            skip(name, &format!("no {}: run `cargo xtask build`", binary.display()));
            return None;
        }
        Some((env, binary))
    }
}

/// The static binary, whether it has been built or not.
pub fn lpbuild_bin() -> PathBuf {
    match std::env::var_os("LPBUILD_BIN") {
        Some(path) => PathBuf::from(path),
        None => harness::workspace_root().join("target/static/bin/lpbuild"),
    }
}

/// The binary of this build of the tests: no runtime inside, linked as the target is by default.
pub fn built_lpbuild() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // `cargo xtask test` has built it already.
        if let Some(built) = std::env::var_os("LPBUILD_BUILT") {
            return built.into();
        }
        // target/PROFILE/deps/TEST-HASH -> target/PROFILE
        let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "-p", "lpbuild", "--manifest-path"]).arg(in_checkout("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        profile.join("lpbuild")
    })
}

/// A file of the checkout.
pub fn in_checkout(path: impl AsRef<Path>) -> PathBuf {
    harness::workspace_root().join(path)
}
