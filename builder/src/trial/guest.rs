//! What runs inside the guest: busybox, the running lpbuild, the module, the check scripts, and a shell script as PID 1.
//!
//! Input: a [`Plan`]. Output: the initramfs. PID 1 prints a line of its own before and after each step
//! ([`super::steps`] reads them) and one verdict at the end; there is no compiled guest program. No step runs in a pipe or
//! in `$(..)`: the shell would sleep in a kernel function the patch may want to replace.
//! Refused: files that cannot be read, what [`Initramfs`] refuses.

use std::path::{Path, PathBuf};

use super::initramfs::Initramfs;
use super::programs::Programs;
use super::targets::Target;
use crate::codes;
use crate::error::{Error, Place, Result};

/// Folder of what only PID 1 uses.
const OWN: &str = "/lpbuild";
/// Begins each line of PID 1 about a step.
pub(super) const MARK: &str = "LPBUILD-STEP:";
/// Begins the line about a module that cannot be taken out: its name, and what rmmod said.
pub(super) const STAYED: &str = "stays:";

/// PID 1. `@NAME@` is the patch, `@CYCLES@` the number of cycles, `@STAYS@` is 1 for a patch that cannot be unloaded, `@MODULES@` and
/// `@LEAVING@` are names, `@STAYED@` is [`STAYED`].
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
@LIBRARIES@
cd /root
for m in proc:/proc sysfs:/sys devtmpfs:/dev tmpfs:/tmp tmpfs:/run debugfs:/sys/kernel/debug tracefs:/sys/kernel/tracing; do
	mount -t "${m%%:*}" "${m%%:*}" "${m#*:}"
done
echo 7 > /proc/sys/kernel/printk
exec < /dev/null > /dev/ttyS1 2>&1
stty -F /dev/ttyS1 -opost -echo

mark() {
	read -r now _ < /proc/uptime
	printf '\nLPBUILD-STEP: %s %s\n' "$now" "$*"
}

# The verdict has left the guest when stty returns: it waits until the line is empty.
verdict() {
	printf '\nLPBUILD-VERDICT: %s\n' "$*"
	stty -F /dev/ttyS1 opost
	poweroff -f
	while :; do sleep 1000; done
}

# STEP CYCLE COMMAND..: what the command prints is between two lines; when it fails there is nothing more to try.
step() {
	local name=$1 cycle=$2 status
	shift 2
	mark begin "$name" "$cycle"
	"$@"
	status=$?
	mark end "$name" "$cycle" "$status"
	[ "$status" = 0 ] || verdict "FAIL $name ended with status $status"
}

check() {
	[ ! -e "/lpbuild/$1.sh" ] || step "$1" "$2" sh "/lpbuild/$1.sh" "$1"
}

tainted() {
	read -r flags < /proc/sys/kernel/tainted
	echo "$flags"
}

gone() {
	[ ! -e "/sys/module/@NAME@" ] || { echo 'the module is still there'; return 1; }
	[ ! -e "/sys/kernel/lpbuild/@NAME@" ] || { echo 'the folder of the patch is still there'; return 1; }
}

# Modules that the patch has functions of and what they need, as they load; those that it has functions of and that may be able to go,
# as they go: the first time shows which of them do.
modules='@MODULES@'
leaving='@LEAVING@'

arrive() {
	local m
	for m in $modules; do
		[ -e "/sys/module/$m" ] || insmod "/lpbuild/modules/$m.ko" || return
	done
}

# Some are busy for a moment after they have come.
remove() {
	local turn
	for turn in 1 2 3 4 5 6 7 8 9 10; do
		rmmod "$1" 2> /run/why && return
		sleep 0.3
	done
	return 1
}

leave() {
	local m
	for m in $leaving; do
		remove "$m" || { cat /run/why; return 1; }
	done
}

# Nothing of the patch is here yet: who cannot go now holds itself, or is held by others, and stays from here on.
first() {
	local m why went=
	for m in $leaving; do
		if remove "$m"; then
			went="$went $m"
		else
			read -r why < /run/why
			echo "@STAYED@ $m $why"
		fi
	done
	leaving=$went
}

step boot 0 tainted
@SETUP@
[ -z "$modules" ] || step arrive 0 arrive
check before 0
removal=first
cycle=1
while [ "$cycle" -le @CYCLES@ ]; do
	# In every second cycle they are away when the patch is loaded, come, go and come again while it is applied.
	away=
	[ -z "$leaving" ] || [ $((cycle % 2)) = 0 ] || away=1
	[ -z "$away" ] || { step absent "$cycle" "$removal"; removal=leave; }
	[ -n "$leaving" ] || away=
	step load "$cycle" lpbuild load --json /lpbuild/@NAME@.ko
	if [ -n "$away" ]; then
		step arrive "$cycle" arrive
		check during "$cycle"
		step leave "$cycle" leave
		step return "$cycle" arrive
	fi
	check during "$cycle"
	step status "$cycle" lpbuild status --json @NAME@
	if [ @STAYS@ = 0 ]; then
		step unload "$cycle" lpbuild unload --json @NAME@
		step gone "$cycle" gone
	fi
	cycle=$((cycle + 1))
done
check after 0
step end 0 tainted
verdict PASS
"#;

/// What a trial does.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    /// Name of the patch.
    pub name: &'a str,
    /// The module.
    pub module: Vec<u8>,
    /// Scripts by phase: `before`, `during`, `after`.
    pub scripts: Vec<(&'static str, Vec<u8>)>,
    /// How often it is loaded and unloaded.
    pub cycles: u32,
    /// It pins itself: not unloaded.
    pub stays: bool,
    /// Modules that it has functions of, and what these need.
    pub targets: &'a [Target],
    /// Files and folders to be in the guest, by guest path.
    pub add: &'a [(String, PathBuf)],
    /// The kernel's modules on this host, and the release they are for.
    pub modules: Option<(&'a Path, &'a str)>,
}

impl Plan<'_> {
    /// The guest's files.
    pub(super) fn initramfs(self, programs: &Programs) -> Result<Vec<u8>> {
        let mut fs = Initramfs::new();
        fs.busybox(&programs.busybox)?;
        let own = std::env::current_exe().map_err(|e| Error::io_at(Place::object("/proc/self/exe"), &e))?;
        fs.program("/bin/lpbuild", &own)?;
        fs.file(&format!("{OWN}/{}.ko", self.name), 0o644, self.module);
        for (phase, script) in self.scripts {
            fs.file(&format!("{OWN}/{phase}.sh"), 0o644, script);
        }
        for target in self.targets {
            fs.file(&format!("{OWN}/modules/{}.ko", target.file.name), 0o644, target.file.content.clone());
        }
        let names = |list: Vec<&Target>| list.iter().map(|t| t.file.name.as_str()).collect::<Vec<_>>().join(" ");
        let modules = names(self.targets.iter().collect());
        let leaving = names(self.targets.iter().rev().filter(|t| t.patched && t.file.leaves).collect());
        let mut setup = "";
        if let Some((dir, release)) = self.modules {
            fs.tree(&format!("/lib/modules/{release}"), &modules_folder(dir, release)?)?;
            // A folder as the package has it was never seen by depmod.
            setup = "[ -e /lib/modules/*/modules.dep ] || step depmod 0 depmod";
        }
        for (guest, host) in self.add {
            fs.tree(guest, host)?;
        }
        let folders: Vec<&str> = fs.library_folders().collect();
        let libraries = match folders.as_slice() {
            [] => String::new(),
            some => format!("export LD_LIBRARY_PATH='{}'", some.join(":")),
        };
        let init = INIT
            .replace("@LIBRARIES@", &libraries)
            .replace("@SETUP@", setup)
            .replace("@NAME@", self.name)
            .replace("@MODULES@", &modules)
            .replace("@LEAVING@", &leaving)
            .replace("@STAYED@", STAYED)
            .replace("@CYCLES@", &self.cycles.to_string())
            .replace("@STAYS@", if self.stays { "1" } else { "0" });
        fs.file("/init", 0o755, init);
        fs.archive()
    }
}

/// `DIR` or `DIR/lib/modules/RELEASE`, whichever has the modules.
pub(super) fn modules_folder(dir: &Path, release: &str) -> Result<PathBuf> {
    let below = [PathBuf::new(), Path::new("lib/modules").join(release), Path::new("usr/lib/modules").join(release)];
    let found = below.iter().map(|b| dir.join(b)).find(|d| d.join("kernel").is_dir());
    found.ok_or_else(|| {
        let detail = format!("neither it nor lib/modules/{release} in it has a folder `kernel`");
        Error::new(codes::LP6406, Place::object(dir.display().to_string()), detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_pid_1_is_one_that_is_filled_in() {
        let known = ["LIBRARIES", "SETUP", "NAME", "CYCLES", "STAYS", "MODULES", "LEAVING", "STAYED"];
        let mut text = INIT.to_string();
        for name in known {
            assert!(text.contains(&format!("@{name}@")), "{name}");
            text = text.replace(&format!("@{name}@"), "");
        }
        // What is left are the shell's own `$@`.
        assert!(!text.replace("\"$@\"", "").contains('@'), "{text}");
        assert!(INIT.contains(MARK) && INIT.contains(super::super::console::VERDICT));
    }
}
