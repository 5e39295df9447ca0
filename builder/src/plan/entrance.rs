//! How the detour leaves each old function: the jump sites, and when the switch is made.

use super::manifest::{Jump, Mode};

/// What the detour decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Jump sites, one for each item that replaces a function, in the order of the items: its index, and the site.
    pub sites: Vec<(usize, JumpSite)>,
    /// When the switch is made.
    pub mode: Mode,
}

/// A place for a jump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JumpSite {
    /// Offset from the start of the function, in bytes.
    pub offset: u16,
    /// Bytes covered.
    pub size: u8,
    /// Form of the jump.
    pub jump: Jump,
    /// The rule that chose it.
    pub rule: Rule,
    /// The covered bytes in the object; relocated fields hold what the object holds.
    pub original: Vec<u8>,
    /// The covered instruction that cannot be executed elsewhere, and why: the original cannot be entered any more.
    pub fixed: Option<String>,
}

/// The rule that chose a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Behind the fentry nop.
    AfterFentry,
    /// At the entry (behind ENDBR) of a function without fentry.
    Entry,
    /// The fentry nop: ftrace cannot be used on the function while patched.
    OverFentry,
}

impl Rule {
    /// As in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Rule::AfterFentry => "after-fentry",
            Rule::Entry => "entry",
            Rule::OverFentry => "over-fentry",
        }
    }
}
