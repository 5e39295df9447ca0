//! Stock kernels from the archive, prepared trees, and QEMU runs of test cases (`lpbuild::trial` is what boots).
//!
//! ```text
//! versions.toml -> kernels::Kernel   image, headers and sources of one stock kernel, cached outside the checkout
//! Kernel        -> tree::Tree        a configured build folder whose objects equal the shipped code
//! Tree + Change -> tree::Pair        the touched objects, as shipped and with the change, in two parallel folders
//! Pair          -> module::Module    the change as a loadable module, made by the lpbuild binary
//! Kernel + case -> vm::Run           one boot of the stock image: verdict, results, console log
//! source + configuration -> own::OwnKernel   a small kernel of our own, with and without patches
//! apt's sources -> emulator      a QEMU with a thread per CPU
//! ```
//!
//! Nothing here writes into the checkout except the guest program's own target folder; everything that is slow is kept
//! under `$XDG_CACHE_HOME/lpbuild` (`~/.cache/lpbuild`), and every entry there is either complete or absent.

pub mod archive;
pub mod cache;
pub mod change;
pub mod cmd;
pub mod damage;
pub mod debug_images;
pub mod edits;
pub mod emulator;
pub mod guest;
pub mod kept;
pub mod kernels;
pub mod module;
pub mod mutate;
pub mod own;
pub mod packages;
pub mod runpre;
pub mod tree;
pub mod vm;

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Begins a line on stderr for every test that was left out; `cargo xtask test` counts them.
pub const SKIP: &str = "LPBUILD-SKIP:";

/// Says that the test `name` is left out, past the capture of the test runner.
pub fn skip(name: &str, why: &str) {
    use std::io::Write;
    // One write, so that tests do not mix their lines; nothing can be done about a closed stderr.
    let _ = std::io::stderr().write_all(format!("{SKIP} {name}: {why}\n").as_bytes());
}

/// A progress line on stderr; bypasses the capture of the test runner so that long steps are seen.
pub fn progress(text: impl AsRef<str>) {
    use std::io::Write;
    // Progress is a courtesy: a closed stderr must not fail the work.
    let _ = std::io::stderr().write_all(format!("lpbuild-harness: {}\n", text.as_ref()).as_bytes());
}
