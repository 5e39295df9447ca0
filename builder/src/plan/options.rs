//! What the author of a patch decides.

use super::manifest::{Callbacks, Jump, LeftOut, Manifest, Mode};
use crate::accept::{Acceptances, Accepted};

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
    /// Constants that change in their place: names, or `path/file.o:NAME`.
    pub data: Vec<String>,
    /// What of the source patches was left out.
    pub left_out: Vec<LeftOut>,
    /// What was accepted of them before anything was compared.
    pub accepted: Vec<Accepted>,
    /// What the author answers for.
    pub accept: Acceptances,
    /// Addresses that a callback gives back: object and name. With one of them every other wants its own.
    pub given_back: Vec<(String, String)>,
    /// Do unchanged lines have the same numbers in both builds, and no others (`source/lines.rs`)?
    pub lines_kept: bool,
    /// Is the patch to be explained (`explain/`)? Then the source lines of what is carried are read.
    pub explain: bool,
}

impl Options {
    /// Those of a patch of which nothing but the name is said.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: "1".to_owned(),
            description: String::new(),
            mode: None,
            after: Vec::new(),
            replaces: Vec::new(),
            deadline_ms: None,
            patience_ms: lpbuild_abi::PATIENCE_MS,
            jump: Jump::Rel32,
            oneshot: false,
            callbacks: Callbacks::default(),
            data: Vec::new(),
            left_out: Vec::new(),
            accepted: Vec::new(),
            accept: Acceptances::default(),
            given_back: Vec::new(),
            lines_kept: false,
            explain: false,
        }
    }

    /// Those a manifest was made with.
    pub fn of(m: &Manifest) -> Self {
        let mut accept = Acceptances::default();
        for accepted in &m.accepted {
            accept.add(accepted.kind, accepted.name.clone());
        }
        let abs64 = m.functions.iter().any(|f| f.site.jump == Jump::Abs64);
        Self {
            version: m.patch.version.clone(),
            description: m.patch.description.clone(),
            mode: Some(m.patch.mode),
            after: m.patch.after.clone(),
            replaces: m.patch.replaces.clone(),
            deadline_ms: Some(m.patch.deadline_ms),
            patience_ms: m.patch.patience_ms,
            jump: if abs64 { Jump::Abs64 } else { Jump::Rel32 },
            oneshot: m.patch.oneshot,
            callbacks: m.callbacks.clone(),
            data: m.data.iter().map(|d| format!("{}:{}", d.source, d.symbol)).collect(),
            left_out: m.left_out.clone(),
            accept,
            ..Self::named(m.patch.name.clone())
        }
    }

    /// The deadline of a patch that switches like this.
    pub fn deadline(&self, mode: Mode) -> u32 {
        self.deadline_ms.unwrap_or(mode.to_abi().default_deadline_ms(self.patience_ms))
    }
}
