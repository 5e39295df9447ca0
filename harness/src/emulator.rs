//! The QEMU that guests of tests run in.
//!
//! Input: the machine's QEMU, and apt's sources when it is older than [`qemu::THREADS_SINCE`]: then the one of the backports
//! suite is unpacked into the cache, never installed. Output: the program. A machine whose sources lead to no newer one keeps
//! its own, and guests take longer; that is said.
//!
//! ```text
//! qemu/bin/qemu-system-x86_64   a script that starts the program with its own libraries and firmware
//! qemu/root/                    the unpacked packages
//! ```

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use lpbuild::trial::programs::Programs;
use lpbuild::trial::qemu;

use crate::{cache, cmd, packages, progress};

/// Name of the program, in the package of the same beginning.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// What the archive's own keys are in, where apt does not trust them anyway.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The folder of the unpacked one.
fn entry() -> Result<PathBuf> {
    Ok(cache::root()?.join("qemu"))
}

/// The QEMU to use: the unpacked one if there is one, else the machine's.
pub fn find() -> Result<PathBuf> {
    let own = entry()?.join("bin").join(PROGRAM);
    if own.exists() { Ok(own) } else { Ok(Programs::find()?.qemu) }
}

/// PATH with the folder of [`find`] first, for programs that look for QEMU themselves.
pub fn path() -> Result<OsString> {
    let folder = find()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&old)))?)
}

/// Makes sure of the best there is, once; a machine without backports keeps what it has.
pub fn ensure() -> Result<PathBuf> {
    let machines = Programs::find()?.qemu;
    if qemu::has_threads(&machines) || entry()?.exists() {
        return find();
    }
    progress(format!("{} is old; looking for a newer one in backports", machines.display()));
    if let Err(why) = cache::publish(&entry()?, unpack) {
        progress(format!("no newer QEMU, so the CPUs of a guest take turns and tests take longer: {why:#}"));
    }
    find()
}

/// Fills the folder: packages, and the script.
fn unpack(dir: &Path) -> Result<()> {
    packages::ensure_lists()?;
    let apt = Apt::of_backports(&dir.join("apt"))?;
    cmd::output(apt.get().args(["update", "-q"]))?;
    let mut download = apt.get();
    download.args(["install", "--download-only", "--yes", "-q", "--no-install-recommends", PACKAGE]);
    cmd::output(download.args(["--target-release", &apt.suite]))?;
    let root = dir.join("root");
    for file in fs::read_dir(apt.root.join("archives")).context("read the downloaded packages")?.flatten() {
        if file.path().extension().is_some_and(|e| e == "deb") {
            cmd::output(cmd::command("dpkg-deb").arg("-x").arg(file.path()).arg(&root))?;
        }
    }
    fs::remove_dir_all(&apt.root).context("remove the downloaded packages")?;
    ensure!(root.join("usr/bin").join(PROGRAM).is_file(), "{} has no {PACKAGE} that is newer", apt.suite);
    let bin = dir.join("bin");
    fs::create_dir(&bin).context("create a folder")?;
    let script = bin.join(PROGRAM);
    // The folder is going to be renamed.
    let at = entry()?.join("root");
    fs::write(&script, starter(&at)).context("write the script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("make the script executable")?;
    let unpacked = root.join("usr/bin").join(PROGRAM);
    let mut version = cmd::command(&unpacked);
    cmd::output(version.arg("--version").env("LD_LIBRARY_PATH", root.join(LIBRARIES)))?;
    Ok(())
}

/// Libraries and firmware that are not of these packages are the machine's.
fn starter(root: &Path) -> String {
    format!(
        "#!/bin/sh\nroot='{}'\nexport LD_LIBRARY_PATH=\"$root/{LIBRARIES}\" QEMU_MODULE_DIR=\"$root/{LIBRARIES}/qemu\"\n\
         exec \"$root/usr/bin/{PROGRAM}\" -L \"$root/usr/share/qemu\" -L \"$root/usr/share/seabios\" \"$@\"\n",
        root.display()
    )
}

/// apt with sources and state of its own; what is installed on the machine counts as installed.
struct Apt {
    root: PathBuf,
    suite: String,
}

impl Apt {
    /// The machine's archive, and the suite of backports beside it.
    fn of_backports(root: &Path) -> Result<Self> {
        let format = "--format=$(SITE)|$(CODENAME)|$(RELEASE)|$(ORIGIN)|$(COMPONENT)";
        let targets = cmd::output(cmd::command("apt-get").args(["indextargets", format, "Created-By: Packages"]))?;
        let (site, name) = archive(&targets).context("apt's sources name no main archive of Debian")?;
        let signed = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        let suite = format!("{name}-backports");
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(root.join(folder)).with_context(|| format!("create {}", root.display()))?;
        }
        let line = |suite: &str| format!("deb {signed}{site} {suite} main\n");
        fs::write(root.join("sources.list"), line(&name) + &line(&suite)).context("write apt's sources")?;
        Ok(Self { root: root.to_owned(), suite })
    }

    fn get(&self) -> std::process::Command {
        let mut c = cmd::command("apt-get");
        let set = |c: &mut std::process::Command, key: &str, value: &Path| {
            c.arg("-o").arg(format!("{key}={}", value.display()));
        };
        set(&mut c, "Dir::Etc::sourcelist", &self.root.join("sources.list"));
        set(&mut c, "Dir::Etc::sourceparts", Path::new("/dev/null"));
        set(&mut c, "Dir::State", &self.root);
        set(&mut c, "Dir::State::status", Path::new("/var/lib/dpkg/status"));
        set(&mut c, "Dir::Cache", &self.root);
        // Nothing is installed, so nothing has to be locked; root would hand downloads to the user _apt, who cannot write here.
        c.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]);
        c.env("DEBIAN_FRONTEND", "noninteractive");
        c
    }
}

/// Address and code name of the archive a release is installed from: not its updates, not another distribution's.
fn archive(targets: &str) -> Result<(String, String)> {
    for line in targets.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        if let [site, codename, release, "Debian", "main"] = fields[..]
            && !codename.contains('-')
            && (release == codename || !release.contains('-'))
        {
            return Ok((site.to_owned(), codename.to_owned()));
        }
    }
    bail!("none of {} sources is one", targets.lines().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_that_of_the_release() {
        let targets = "http://h/x|trixie|stable|Another|main\nhttp://h/s|bookworm-security|bookworm-security|Debian|main\n\
                       http://h/d/|bookworm|bookworm|Debian|contrib\nhttp://h/d/|bookworm|oldstable|Debian|main\n";
        assert_eq!(archive(targets).unwrap(), ("http://h/d/".to_owned(), "bookworm".to_owned()));
        assert!(archive("").is_err());
    }
}
