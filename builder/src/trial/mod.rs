//! Trials: a module on its own kernel, in a virtual machine, before it goes to production.
//!
//! Input: [`TrialOptions`]: a finished module, perhaps an image, check scripts. Output: a [`TrialReport`] that says PASS or FAIL, with
//! every step, its times, the length of the pauses and what the scripts printed. Refused before anything is booted: an
//! image of another build (LP6404), a patch without a kernel (LP6415). A trial that fails is no error of this function: the
//! report has the problems (LP64xx, and the LP50xx and LP51xx of `lpbuild load` and `unload` as they came).
//!
//! ```text
//! image      manifest -> vmlinuz       found, of the module's build
//! targets    manifest -> modules       those it has functions of, and what they need
//! guest      Plan -> initramfs         busybox, this lpbuild, module, scripts, PID 1
//! qemu       Machine -> End            one boot, followed line by line
//! kvm        whether to try it
//! steps      lines -> Steps            what ran when, with which status and output
//! report     Steps, End -> Report      problems, table, JSON
//! ```
//!
//! The VM tests of this project boot with the same parts.

pub mod console;
mod guest;
pub mod image;
pub mod initramfs;
mod kvm;
pub mod programs;
pub mod qemu;
mod report;
pub mod stale;
mod steps;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use report::{Outputs, StepReport, TrialReport};

use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Result};
use crate::host::ModuleFile;
use crate::interrupt;
use crate::source::Progress;
use crate::source::module_tree::ModuleTree;
use console::ConsoleVerdict;
use programs::Programs;
use qemu::{Accel, End, Machine, unwritable};
use steps::Steps;

/// How long the guest may print nothing, beyond the deadline of the patch, while no script runs.
const QUIET: Duration = Duration::from_secs(90);
/// Time for a trial of one cycle, and for each further one, unless told.
const TIMEOUT: Duration = Duration::from_secs(300);
const TIMEOUT_PER_CYCLE: Duration = Duration::from_secs(5);
/// How long a guest may take to its first word with KVM, which takes a second or two when it works.
const KVM_PATIENCE: Duration = Duration::from_secs(20);
/// Memory unless told: this much, or what the files of the guest need while they are unpacked.
const MEMORY_MIB: u32 = 1024;

/// Scripts for busybox sh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts {
    /// Before the patch is loaded.
    pub before: Option<PathBuf>,
    /// While it is applied, in every cycle.
    pub during: Option<PathBuf>,
    /// When it is gone.
    pub after: Option<PathBuf>,
    /// They are one script: what it prints before and after is compared.
    pub same: bool,
}

impl Scripts {
    /// One script for all phases.
    pub fn one(path: PathBuf) -> Self {
        Self { before: Some(path.clone()), during: Some(path.clone()), after: Some(path), same: true }
    }

    /// What each phase runs. A file is read once, however many phases it is for: from a pipe, as the shell's `<(...)` is one,
    /// a second reading would get nothing, and a script with nothing in it never fails.
    fn read(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut read: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
        let mut out = Vec::new();
        for (phase, path) in [("before", &self.before), ("during", &self.during), ("after", &self.after)] {
            let Some(path) = path else { continue };
            let text = match read.get(path.as_path()) {
                Some(text) => text.clone(),
                None => script(path)?,
            };
            read.insert(path, text.clone());
            out.push((phase, text));
        }
        Ok(out)
    }
}

/// The text of a script. A pipe that has nothing in it was read by somebody else: that is not what was meant to be run.
fn script(path: &Path) -> Result<Vec<u8>> {
    let place = || Place::object(path.display().to_string());
    let io = |e: std::io::Error| Error::io_at(place(), &e);
    let mut file = File::open(path).map_err(io)?;
    let mut text = Vec::new();
    (&mut file).take(bounded::TEXT.saturating_add(1)).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > bounded::TEXT {
        return Err(Error::new(codes::LP6406, place(), "it is longer than any script"));
    }
    if text.is_empty() && file.metadata().map_err(io)?.file_type().is_fifo() {
        return Err(Error::new(codes::LP6406, place(), "this script is a pipe with nothing in it, or was read before"));
    }
    Ok(text)
}

/// A trial.
#[derive(Clone, Debug)]
pub struct TrialOptions {
    /// The module.
    pub module: PathBuf,
    /// The kernel's image; found by itself when not named.
    pub image: Option<PathBuf>,
    /// What is run around it.
    pub scripts: Scripts,
    /// Emulate even where KVM can be used.
    pub emulate: bool,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Memory of the guest in MiB.
    pub memory_mib: Option<u32>,
    /// More kernel parameters.
    pub append: String,
    /// The kernel's modules, for modprobe in scripts, and those that the patch has functions of; these are found by themselves
    /// when it is not named.
    pub modules: Option<PathBuf>,
    /// Files of modules that the patch has functions of, and of those these need: before those of the folder.
    pub targets: Vec<PathBuf>,
    /// Files and folders of this host by guest path; programs come with their libraries.
    pub add: Vec<(String, PathBuf)>,
    /// Lines of the kernel log with one of these texts are no faults.
    pub allow: Vec<String>,
    /// The guest is stopped after this long.
    pub timeout: Option<Duration>,
    /// The guest is stopped when it prints nothing for this long, while no script runs.
    pub silence: Option<Duration>,
    /// How often the patch is loaded and unloaded.
    pub cycles: u32,
    /// The script must print the same after the unload as before the load.
    pub strict: bool,
    /// Where the console log is kept.
    pub log: Option<PathBuf>,
}

/// Runs the trial; `progress` gets a line for each step as it begins.
pub fn run(options: &TrialOptions, progress: &dyn Progress) -> Result<TrialReport> {
    let (module, content) = ModuleFile::read(&options.module)?;
    let scripts = options.scripts.read()?;
    let Some(kernel) = &module.manifest.kernel else {
        return Err(Error::new(codes::LP6415, Place::object(&module.path), "its manifest names no kernel"));
    };
    interrupt::watch();
    let programs = Programs::find()?;
    let image = image::image(options.image.as_deref(), kernel, progress)?;
    let patch = &module.manifest.patch;
    // A patch of the kernel alone needs no folder of modules, and no place for a cache.
    let tree = match &options.modules {
        Some(dir) => ModuleTree { roots: vec![guest::modules_folder(dir, &kernel.release)?] },
        None if module.manifest.holders.is_empty() => ModuleTree::default(),
        None => ModuleTree::of(&kernel.release)?,
    };
    let targets = targets::find(&module.manifest, &tree, &options.targets)?;
    // Once with the modules away when it is loaded, and once with them here.
    let cycles = if targets.is_empty() { options.cycles } else { options.cycles.max(2) };
    let options = &TrialOptions { cycles, ..options.clone() };
    let plan = guest::Plan {
        targets: &targets,
        name: &patch.name,
        module: content,
        // What cannot be taken out is loaded once, and there is no time after it.
        scripts: scripts.into_iter().filter(|(p, _)| *p != "after" || !patch.oneshot).collect(),
        cycles: if patch.oneshot { 1 } else { options.cycles },
        stays: patch.oneshot,
        add: &options.add,
        modules: options.modules.as_deref().map(|dir| (dir, kernel.release.as_str())),
    };
    let initramfs = plan.initramfs(&programs)?;
    let temp = tempfile::Builder::new().prefix("lpbuild-try-").tempdir();
    let temp = temp.map_err(|e| unwritable(&std::env::temp_dir(), &e))?;
    let log = options.log.clone().unwrap_or_else(|| temp.path().join("console.log"));
    File::create(&log).map_err(|e| unwritable(&log, &e))?;
    let needed = u32::try_from(initramfs.len() >> 20).unwrap_or(u32::MAX).saturating_mul(3).saturating_add(512);
    let mut machine = Machine {
        qemu: programs.qemu,
        image,
        initramfs,
        accel: if options.emulate { Accel::Emulated } else { Accel::Any },
        cpus: options.cpus,
        memory_mib: options.memory_mib.unwrap_or(needed.max(MEMORY_MIB)),
        append: options.append.clone(),
        allowed: options.allow.clone(),
        overtime: options
            .timeout
            .unwrap_or(TIMEOUT.saturating_add(TIMEOUT_PER_CYCLE.saturating_mul(options.cycles.saturating_sub(1)))),
        extra: Vec::new(),
    };
    let quiet = options.silence.unwrap_or(QUIET.saturating_add(Duration::from_millis(patch.deadline_ms.into())));
    let emulated = machine.emulated();
    let with = if emulated { "emulated" } else { "with KVM" };
    let (cpus, mib) = (machine.cpus, machine.memory_mib);
    progress.status(&format!(
        "booting {} {with} ({cpus} CPUs, {mib} MiB): {}",
        kernel.release,
        machine.image.display()
    ));
    let first_word = if emulated { quiet } else { options.silence.unwrap_or(KVM_PATIENCE) };
    let mut steps = Steps::new([first_word, quiet, machine.overtime], options.cycles, progress);
    let first = match machine.boot(temp.path(), &log, &mut steps) {
        // A QEMU that gives up on a KVM it could open (a register of the host's CPU it cannot set) may still emulate.
        Err(e) if !emulated && e.problems.iter().all(|p| p.code == codes::LP6402) => None,
        other => Some(other?),
    };
    let mut end = first;
    if steps.steps.is_empty() {
        // On a loaded host emulation now and then loses the start of the second CPU.
        let how = end.as_ref().map_or("QEMU gave up on KVM".into(), |e| report::ended(&e.verdict));
        progress.status(&format!("{how}, before its first program ran; booting once more, emulated"));
        machine.accel = Accel::Emulated;
        steps = Steps::new([quiet, quiet, machine.overtime], options.cycles, progress);
        let again = machine.boot(temp.path(), &log, &mut steps)?;
        if steps.steps.is_empty() {
            return Err(does_not_boot(options, &machine, &again, &steps));
        }
        end = Some(again);
        if !emulated {
            kvm::remember_that_it_fails();
        }
    }
    let Some(mut end) = end else {
        return Err(Error::new(codes::LP1000, Place::default(), "a guest that did not run took steps"));
    };
    if let Some(place) = stale::int3_not_in_memory(&end.transcript.kernel)
        && end.emulated
    {
        progress.status(&format!(
            "an int3 at {place} that is not in memory any more: the emulator's fault, if any; once more, with CPUs that take turns"
        ));
        machine.accel = Accel::Turns;
        machine.overtime = machine.overtime.saturating_mul(2);
        steps = Steps::new([quiet, quiet, machine.overtime], options.cycles, progress);
        end = machine.boot(temp.path(), &log, &mut steps)?;
    }
    Ok(report::report(options, &module, kernel, &targets, &machine, &end, &steps))
}

fn does_not_boot(options: &TrialOptions, machine: &Machine, end: &End, steps: &Steps<'_>) -> Error {
    let console: String = steps.tail.iter().map(|l| format!("\n{l}")).collect();
    let detail = format!("{}{console}", report::ended(&end.verdict));
    Error::new(
        unbooted(options.timeout, options.silence, &end.verdict),
        Place::object(machine.image.display().to_string()),
        detail,
    )
}

/// Whose fault it is that the guest's first program did not run: that of the time, where somebody has set that.
fn unbooted(timeout: Option<Duration>, silence: Option<Duration>, verdict: &ConsoleVerdict) -> &'static codes::Code {
    match verdict {
        ConsoleVerdict::Overtime(_) if timeout.is_some() => codes::LP6416,
        ConsoleVerdict::Silent(_) if silence.is_some() => codes::LP6416,
        _ => codes::LP6414,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_time_says_nothing_about_the_image() {
        let second = Duration::from_secs(1);
        for (verdict, timeout, silence) in [
            (ConsoleVerdict::Overtime(second), Some(second), None),
            (ConsoleVerdict::Silent(second), None, Some(second)),
        ] {
            assert_eq!(unbooted(timeout, silence, &verdict).id, "LP6416");
            assert_eq!(unbooted(silence, timeout, &verdict).id, "LP6414");
            assert_eq!(unbooted(timeout, silence, &ConsoleVerdict::None).id, "LP6414");
        }
    }

    #[test]
    fn a_script_from_a_pipe_is_there_in_every_phase() {
        let text = b"[ $1 = during ] && exit 3\ntrue\n";
        let (read, mut write) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut write, text).unwrap();
        drop(write);
        let path = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read)));
        let all = Scripts::one(path.clone()).read().unwrap();
        assert_eq!(all.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), ["before", "during", "after"]);
        assert!(all.iter().all(|(_, t)| t == text), "{all:?}");
        // Now it is empty, and that is not what was meant.
        let again = Scripts { during: Some(path), ..Scripts::default() }.read().unwrap_err();
        assert_eq!(again.problems[0].code.id, "LP6406");
        assert_eq!(Scripts::one("/no/such".into()).read().unwrap_err().problems[0].code.id, "LP1004");
    }
}
