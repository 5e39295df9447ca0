//! Debian packages the tools of this workspace need on the host: which are missing, and installing them as root.

use anyhow::{Result, bail};

use crate::cmd;

/// Building kernel objects and modules, and booting them.
pub const NEEDED: &[&str] = &[
    "bc",
    "binutils",
    "bison",
    "busybox-static",
    "ccache",
    "dwarves",
    "flex",
    "gcc-12",
    "kmod",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "patch",
    "qemu-system-x86",
    "time",
    "xz-utils",
];

/// The other compiler, for the kernel of our own that is made with it.
pub const CLANG: &[&str] = &["clang-14"];

/// What opens reports; without it that test is left out.
pub const BROWSER: &[&str] = &["chromium"];

/// A compiler with the library source, for the in-kernel runtime; only when no other toolchain will do.
pub const RUST: &[&str] = &["rustc-web", "rust-web-src"];

/// Those of `names` that are not installed.
pub fn missing(names: &[&str]) -> Vec<String> {
    let installed = |name: &str| {
        let mut c = cmd::command("dpkg-query");
        c.args(["-W", "-f", "${db:Status-Status}", name]);
        cmd::output(&mut c).is_ok_and(|s| s == "installed")
    };
    names.iter().filter(|n| !installed(n)).map(ToString::to_string).collect()
}

/// Installs what is missing when run as root, saying so; otherwise fails and names the command.
pub fn ensure_packages(names: &[&str]) -> Result<()> {
    let missing = missing(names);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        bail!("Debian packages are missing; run:\n  sudo apt-get install --no-install-recommends {list}");
    }
    install(&missing.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Installs what is missing where that can be done, and goes on without it where it cannot.
pub fn offer_packages(names: &[&str]) {
    let missing = missing(names);
    if missing.is_empty() {
        return;
    }
    let all: Vec<&str> = missing.iter().map(String::as_str).collect();
    if let Err(why) = install(&all) {
        crate::progress(format!("without {}: {why:#}", all.join(" ")));
    }
}

/// Installs or upgrades packages as root, from fresh lists: those of an image can be old, or lack half of the archive.
pub fn install(names: &[&str]) -> Result<()> {
    if !is_root() {
        bail!(
            "Debian packages are missing or too old; run:\n  sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    crate::progress(format!("installing Debian packages: {}", names.join(" ")));
    update_lists()?;
    let mut c = cmd::command("apt-get");
    c.args(["install", "-y", "--no-install-recommends"]).args(names).env("DEBIAN_FRONTEND", "noninteractive");
    cmd::output(&mut c).map(drop)
}

/// Makes sure apt knows the archive: the source package of the first series stands for the lists as a whole.
pub fn ensure_lists() -> Result<()> {
    let mut probe = cmd::command("apt-cache");
    probe.args(["pkgnames", "linux-source-"]);
    if cmd::output(&mut probe).is_ok_and(|s| !s.trim().is_empty()) {
        return Ok(());
    }
    update_lists()
}

/// `apt-get update`, or the request to run it.
pub fn update_lists() -> Result<()> {
    if !is_root() {
        bail!("apt has no (or outdated) package lists; run:\n  sudo apt-get update");
    }
    crate::progress("apt-get update");
    cmd::output(cmd::command("apt-get").args(["update", "-q"])).map(drop)
}

/// Whether this process may install packages.
pub fn is_root() -> bool {
    cmd::output(cmd::command("id").arg("-u")).is_ok_and(|s| s.trim() == "0")
}
