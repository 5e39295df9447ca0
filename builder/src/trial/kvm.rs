//! Whether KVM is worth trying on this host.
//!
//! Input: /dev/kvm, and what an earlier trial found out. Output: yes or no. A KVM that opens and yet does not run a kernel
//! (nested, or behind a broken hypervisor) costs a trial [`super::KVM_PATIENCE`]; it is remembered in the user's cache until
//! the host boots again. Nothing is refused.

use std::fs;
use std::path::PathBuf;

use crate::cache;

/// Holds the boot id of the host on which KVM did not run a guest.
const MEMORY: &str = "kvm-runs-no-guest";

/// True when this user may use KVM and it is not known to fail.
pub fn usable() -> bool {
    let opens = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    opens && boot_id().is_none_or(|id| memory().and_then(|m| fs::read_to_string(m).ok()).as_deref() != Some(&id))
}

/// An emulated guest came up where one with KVM did not.
pub(super) fn remember_that_it_fails() {
    if let (Some(file), Some(id)) = (memory(), boot_id()) {
        let _ = file.parent().map(fs::create_dir_all);
        // A cache that cannot be written costs the next trial the same patience again.
        let _ = fs::write(file, id);
    }
}

fn memory() -> Option<PathBuf> {
    Some(cache::root().ok()?.join(MEMORY))
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}
