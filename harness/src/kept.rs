//! Guests that go on from a boot that was kept: a second or two instead of five for each.
//!
//! Input: a [`Machine`] whose PID 1 finds no case and so waits for one, and the archive of the case's files. Output: the same
//! machine, to be started where the kept one waited. Every guest has its own copy of the memory (a private mapping of the
//! file), so none sees what another did; they only share where the kernel put itself. An error: files that cannot be
//! written. A machine that cannot be kept (an old QEMU) is booted each time.
//!
//! ```text
//! target/kept/NAME-HASH/ram     the guest's memory
//! target/kept/NAME-HASH/state   its devices and CPUs, as QEMU's migration writes them
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lpbuild::trial::qemu::{ImageSource, Machine, Watch, version_of};
use sha2::{Digest, Sha256};

use crate::{cache, progress, workspace_root};

/// The first QEMU this was seen with is 10.0; older ones with a thread per CPU should do.
const SINCE: (u32, u32) = (8, 1);
/// Of the memory, what the host puts the case in.
const SHARED_MIB: u64 = 64;
const SHARED: u64 = SHARED_MIB << 20;
/// The file of the memory with the case.
const CASE: &str = "case.shared";
/// For QEMU's monitor: memory in files that others can map is not part of the stream.
const IGNORE_SHARED: &str = "migrate_set_capability x-ignore-shared on";
/// What the guest's PID 1 says and looks for (`tests/guest/src/init.rs`).
const WAITING: &str = "LPBUILD-GUEST: waiting";
const READY: &[u8; 8] = b"LPB-CASE";

/// A kept boot.
#[derive(Debug)]
pub struct KeptBoot {
    dir: PathBuf,
}

impl KeptBoot {
    /// The boot of this machine, made now if it is the first of its kind; nothing where it cannot be kept.
    pub fn of(machine: &Machine) -> Result<Option<Self>> {
        if version_of(&machine.qemu).is_none_or(|v| v < SINCE) {
            return Ok(None);
        }
        let (name, key) = key(machine)?;
        let dir = workspace_root().join("target/kept").join(format!("{name}-{key}"));
        let made = cache::publish(&dir, |dir| {
            remove_older(dir, &name)?;
            keep(machine, dir)
        });
        match made {
            Ok(dir) => Ok(Some(Self { dir })),
            Err(why) => {
                progress(format!("this boot cannot be kept, so guests take longer: {why:#}"));
                Ok(None)
            }
        }
    }

    /// The machine, going on from here with a case. `dir` takes the file of the shared memory.
    pub fn with(&self, machine: &Machine, dir: &Path, archive: &[u8]) -> Result<Option<Machine>> {
        if archive.len() as u64 > SHARED - 16 {
            return Ok(None);
        }
        let shared = dir.join(CASE);
        let file = shared_memory(&shared)?;
        let content = [READY, (archive.len() as u64).to_le_bytes().as_slice(), archive].concat();
        (&file).write_all(&content).with_context(|| format!("write {}", shared.display()))?;
        let mut machine = in_files(machine, &self.dir.join("ram"), false, &shared);
        let commands = dir.join("monitor.commands");
        let state = self.dir.join("state");
        let text = format!("{IGNORE_SHARED}\nmigrate_incoming \"exec:cat '{}'\"\n", state.display());
        fs::write(&commands, text).with_context(|| format!("write {}", commands.display()))?;
        let monitor = format!("file,id=monitor,path=/dev/null,input-path={}", comma(&commands));
        machine.extra.extend(["-chardev", &monitor, "-mon", "monitor", "-incoming", "defer"].map(str::to_owned));
        Ok(Some(machine))
    }
}

/// Removes the case from the folder [`KeptBoot::with`] was given.
pub fn remove_case(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join(CASE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("remove the case"),
        _ => Ok(()),
    }
}

/// What the memory and the devices of a kept machine depend on.
fn key(machine: &Machine) -> Result<(String, String)> {
    let image = fs::read(&machine.image).with_context(|| format!("read {}", machine.image.display()))?;
    let name = machine.image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{name}-{}-{}", machine.cpus, machine.memory_mib);
    let mut hash = Sha256::new();
    let Machine { qemu, append, extra, .. } = machine;
    hash.update(format!("{qemu:?} {:?} {append} {extra:?}", version_of(qemu)));
    hash.update(Sha256::digest(&image));
    hash.update(&machine.initramfs);
    Ok((name, hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()))
}

/// Removes what another guest program or kernel of the same name left, unless it is very new: it may be in use.
fn remove_older(dir: &Path, name: &str) -> Result<()> {
    let Some(all) = dir.parent() else { return Ok(()) };
    for entry in fs::read_dir(all).context("list kept boots")?.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|e| e > OLD));
        if other.starts_with(&format!("{name}-")) && old && entry.path().join("state").exists() {
            fs::remove_dir_all(entry.path()).context("remove a kept boot")?;
        }
    }
    Ok(())
}

/// Longer than QEMU takes to write its state, between two answers.
const SAVING: Duration = Duration::from_secs(30);
/// Longer than any run of the tests.
const OLD: Duration = Duration::from_secs(3 * 3600);

/// Boots until PID 1 waits, and writes memory and state.
fn keep(machine: &Machine, dir: &Path) -> Result<()> {
    progress(format!("keeping a boot of {} with {} CPUs", machine.image.display(), machine.cpus));
    let sockets = tempfile::tempdir().context("a folder for a socket")?;
    let monitor = sockets.path().join("monitor");
    let shared = sockets.path().join("shared");
    shared_memory(&shared)?;
    let mut booting = in_files(machine, &dir.join("ram"), true, &shared);
    booting.extra.extend(["-monitor".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
    let mut saver = Saver { monitor, state: dir.join("state"), error: None };
    let end = booting.boot(sockets.path(), &sockets.path().join("console.log"), &mut saver)?;
    if let Some(e) = saver.error {
        return Err(e);
    }
    let state = fs::metadata(dir.join("state")).map_or(0, |m| m.len());
    anyhow::ensure!(state > 0, "the guest ended with {:?} before it was kept", end.verdict);
    Ok(())
}

/// The machine with its memory in two files: what the kernel uses, and behind it what the host puts the case in. For QEMU
/// they are those of two NUMA nodes; the kernel is told of neither the nodes nor the second.
fn in_files(machine: &Machine, ram: &Path, written: bool, shared: &Path) -> Machine {
    let mut machine = machine.clone();
    let (own, all) = (u64::from(machine.memory_mib) - SHARED_MIB, machine.memory_mib);
    let share = if written { "on" } else { "off" };
    let ram = format!("memory-backend-file,id=ram,size={own}M,mem-path={},share={share}", comma(ram));
    let case = format!("memory-backend-file,id=case,size={SHARED_MIB}M,mem-path={},share=on", comma(shared));
    let nodes = ["node,nodeid=0,memdev=ram", "node,nodeid=1,memdev=case"];
    machine.extra.extend(["-object", &ram, "-object", &case, "-numa", nodes[0], "-numa", nodes[1]].map(str::to_owned));
    machine.append += &format!(" numa=off mem={own}M lpbuild_case={own}M-{all}M");
    machine
}

/// A comma in a path begins the next option, unless it is doubled.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn shared_memory(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(SHARED).with_context(|| format!("extend {}", path.display()))?;
    Ok(file)
}

/// Has QEMU write its state and end, when the guest waits.
struct Saver {
    monitor: PathBuf,
    state: PathBuf,
    error: Option<anyhow::Error>,
}

impl Saver {
    fn save(&self) -> Result<()> {
        let mut monitor = UnixStream::connect(&self.monitor).context("connect to QEMU's monitor")?;
        // One that hangs fails the read, and the guest is stopped as one that is silent.
        monitor.set_read_timeout(Some(SAVING)).context("limit the wait for QEMU's monitor")?;
        let commands = format!("{IGNORE_SHARED}\nmigrate \"exec:cat > '{}'\"\nquit\n", self.state.display());
        monitor.write_all(commands.as_bytes()).context("write to QEMU's monitor")?;
        // What it answers is of no interest, but it ends when nobody listens.
        std::io::copy(&mut monitor, &mut std::io::sink()).context("read from QEMU's monitor")?;
        Ok(())
    }
}

impl Watch for Saver {
    fn line(&mut self, _: ImageSource, line: &str) {
        if line.trim() == WAITING && self.error.is_none() {
            self.error = self.save().err();
        }
    }
    fn silence(&self) -> Duration {
        Duration::from_secs(60)
    }
}
