//! What the author of a patch decides.

use super::manifest::{Callbacks, Jump, Mode};
use crate::accept::Acceptances;

/// What the user decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the patch and its module.
    pub name: String,
    /// Version, see [`super::manifest::is_plain`].
    pub version: String,
    /// What it is for, in one line.
    pub description: String,
    /// When to switch; decided by what is replaced when nothing is said.
    pub mode: Option<Mode>,
    /// Names of patches this one may lie on top of.
    pub after: Vec<String>,
    /// Names of patches this one takes the place of.
    pub replaces: Vec<String>,
    /// Milliseconds to try; by the mode when nothing is said.
    pub deadline_ms: Option<u32>,
    /// Milliseconds before tasks in user space are disturbed.
    pub patience_ms: u32,
    /// Form of the jumps.
    pub jump: Jump,
    /// Never reverted.
    pub oneshot: bool,
    /// Functions of the patch that the runtime calls.
    pub callbacks: Callbacks,
    /// What the author answers for.
    pub accept: Acceptances,
    /// Do unchanged lines have the same numbers in both builds, and no others (`source/lines.rs`)?
    pub lines_kept: bool,
}

impl Options {
    /// The deadline of a patch that switches like this.
    pub fn deadline(&self, mode: Mode) -> u32 {
        self.deadline_ms.unwrap_or(mode.to_abi().default_deadline_ms(self.patience_ms))
    }
}
