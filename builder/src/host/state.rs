//! What the runtime shows in /sys/kernel/lpbuild/NAME, and what the kernel's own livepatch holds.
//!
//! Input: the files. Output: [`PatchState`]. Lines that do not parse are left out; a patch that goes away while it is
//! read shows with the state `gone`. Nothing is refused.

use std::io::Write;

use serde::Serialize;

use super::system::{Host, PATCHES};

/// A patch in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchState {
    /// Name of the patch and of its module.
    pub name: String,
    /// Version of the patch.
    pub version: String,
    /// As the runtime names it, see [`States`].
    pub state: String,
    /// Mode of the running operation, or of the revert.
    pub mode: String,
    /// The replaced functions.
    pub functions: Vec<FunctionState>,
    /// Kernel modules that some of them are in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderState>,
    /// Attempts of the current or last operation.
    pub attempts: u64,
    /// Longest stop of the machine by that operation, nanoseconds.
    pub pause_ns: u64,
    /// Deadline of operations, milliseconds.
    pub deadline_ms: Option<u64>,
    /// Milliseconds before tasks in user space are disturbed by a transition.
    pub patience_ms: Option<u64>,
    /// It is never reverted.
    pub oneshot: bool,
    /// Tasks were switched by force: calls that were inside may run old and new code mixed.
    pub forced: bool,
    /// Tasks that have changed over, while a transition goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched: Option<Switched>,
    /// Patches it may lie on top of.
    pub after: Vec<String>,
    /// Patches it took the place of.
    pub replaces: Vec<String>,
    /// `LP50nn: text` of the last operation, if it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Tasks that stood in its way: inside code that must be empty, or not yet changed over.
    pub blockers: Vec<Blocker>,
    /// How many more there were than the runtime keeps.
    pub more_blockers: u64,
}

/// What the runtime calls the states of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum States {
    /// `applying`: not in effect yet, or not for all tasks.
    Applying,
    /// `draining`: every new call runs the new code, tasks are still inside the old.
    Draining,
    /// `applied`
    Applied,
    /// `reverting`
    Reverting,
    /// `reverted`: the module may go.
    Reverted,
    /// `replaced`: another patch took its place; the module may go.
    Replaced,
    /// `checked`: a dry run is over; the module may go.
    Checked,
    /// `refused`, `gone`, and what a runtime of the future says.
    Other,
}

impl States {
    /// Nothing of the patch is in effect, and nothing will be.
    pub fn is_idle(self) -> bool {
        matches!(self, States::Reverted | States::Replaced | States::Checked)
    }
}

/// `N/M`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// Tasks that have changed over.
    pub tasks: u64,
    /// All tasks.
    pub of: u64,
}

/// One replaced function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionState {
    /// Name in kallsyms.
    pub symbol: String,
    /// Distance of the jump site from the function's first byte.
    pub site_offset: u64,
    /// Bytes covered.
    pub site_size: u64,
    /// `rel32` or `abs64`.
    pub jump: String,
    /// As of the patch.
    pub state: String,
}

/// A kernel module that has functions of the patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HolderState {
    /// Its name.
    pub name: String,
    /// `waiting`: it is not here. `leaving`, `needed`, `refused LP50nn: ..`; else as of the patch.
    pub state: String,
}

/// A task that stood in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// Process id.
    pub pid: i64,
    /// Name of the task; bytes that are not printable are `?`.
    pub comm: String,
    /// `function+0xOFF`, or `unreliable-stack`.
    pub place: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) in {}", self.pid, self.comm, self.place)
    }
}

impl PatchState {
    /// A line for each kernel module.
    pub(super) fn holders(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.holders.iter().try_for_each(|h| writeln!(out, "  module {}: {}", h.name, h.state))
    }

    /// Names of the patches in the kernel.
    pub fn names(host: &Host) -> Vec<String> {
        host.names(PATCHES).into_iter().filter(|n| host.exists(&format!("{PATCHES}/{n}/state"))).collect()
    }

    /// Reads one patch; `None` when there is none of this name.
    pub fn read(host: &Host, name: &str) -> Option<Self> {
        // A name is one component of a path.
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return None;
        }
        let text = |file: &str| host.text(&format!("{PATCHES}/{name}/{file}"));
        if !host.exists(&format!("{PATCHES}/{name}/state")) {
            return None;
        }
        let number = |file: &str| text(file).and_then(|t| t.parse().ok());
        let words = |file: &str| text(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let blockers = text("blockers").unwrap_or_default();
        Some(Self {
            name: name.to_owned(),
            version: text("version").unwrap_or_default(),
            state: text("state").filter(|s| !s.is_empty()).unwrap_or_else(|| "gone".to_owned()),
            mode: text("mode").unwrap_or_default(),
            functions: text("functions").unwrap_or_default().lines().filter_map(function).collect(),
            holders: text("holders").unwrap_or_default().lines().filter_map(holder).collect(),
            attempts: number("attempts").unwrap_or(0),
            pause_ns: number("pause_ns").unwrap_or(0),
            deadline_ms: number("deadline_ms"),
            patience_ms: number("patience_ms"),
            oneshot: text("oneshot").as_deref() == Some("1"),
            forced: text("force").as_deref() == Some("1"),
            switched: text("switched").as_deref().and_then(switched),
            after: words("after"),
            replaces: words("replaces"),
            last_error: text("last_error").filter(|t| !t.is_empty()),
            blockers: blockers.lines().filter_map(blocker).collect(),
            more_blockers: blockers.lines().find_map(more).unwrap_or(0),
        })
    }

    /// The state by its word.
    pub fn states(&self) -> States {
        match self.state.as_str() {
            "applying" => States::Applying,
            "draining" => States::Draining,
            "applied" => States::Applied,
            "reverting" => States::Reverting,
            "reverted" => States::Reverted,
            "replaced" => States::Replaced,
            "checked" => States::Checked,
            _ => States::Other,
        }
    }

    /// A line for each task, with what it is to this patch as it stands.
    pub(super) fn tasks(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let what = if self.states() == States::Draining { "still in old code" } else { "blocker" };
        self.blockers.iter().try_for_each(|b| writeln!(out, "  {what}: {b}"))?;
        if self.more_blockers > 0 { writeln!(out, "  and {} more", self.more_blockers) } else { Ok(()) }
    }
}

/// `N/M`; nothing while there is nothing to switch.
fn switched(text: &str) -> Option<Switched> {
    let (tasks, of) = text.split_once('/')?;
    let of = of.trim().parse().ok().filter(|of| *of > 0)?;
    Some(Switched { tasks: tasks.trim().parse().ok()?, of })
}

/// A line of `holders`: a name, and what is known of the module.
fn holder(line: &str) -> Option<HolderState> {
    let (name, state) = line.trim().split_once(' ')?;
    Some(HolderState { name: name.to_owned(), state: state.trim().to_owned() })
}

/// `SYMBOL site=+0xOFF/SIZE jump=rel32 STATE`
fn function(line: &str) -> Option<FunctionState> {
    let mut words = line.split_whitespace();
    let symbol = words.next()?.to_owned();
    let (offset, size) = words.next()?.strip_prefix("site=+0x")?.split_once('/')?;
    Some(FunctionState {
        symbol,
        site_offset: u64::from_str_radix(offset, 16).ok()?,
        site_size: size.parse().ok()?,
        jump: words.next()?.strip_prefix("jump=")?.to_owned(),
        state: words.next()?.to_owned(),
    })
}

/// `PID COMM PLACE`; the runtime leaves no white space in a name.
fn blocker(line: &str) -> Option<Blocker> {
    let mut words = line.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let (comm, place) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Blocker { pid, comm, place })
}

/// `and N more`
fn more(line: &str) -> Option<u64> {
    line.strip_prefix("and ")?.strip_suffix(" more")?.parse().ok()
}

/// A function the kernel's own livepatch replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Livepatched {
    pub patch: String,
    pub object: String,
    pub symbol: String,
    /// Position among the symbols of this name, from 1.
    pub sympos: u32,
}

/// Every function in /sys/kernel/livepatch/PATCH/OBJECT/FUNCTION,SYMPOS.
pub(super) fn livepatched(host: &Host) -> Vec<Livepatched> {
    const ROOT: &str = "sys/kernel/livepatch";
    let mut out = Vec::new();
    for patch in host.names(ROOT) {
        for object in host.names(&format!("{ROOT}/{patch}")) {
            for entry in host.names(&format!("{ROOT}/{patch}/{object}")) {
                let Some((symbol, sympos)) = entry.rsplit_once(',') else { continue };
                let Ok(sympos) = sympos.parse() else { continue };
                let (patch, object) = (patch.clone(), object.clone());
                out.push(Livepatched { patch, object, symbol: symbol.to_owned(), sympos });
            }
        }
    }
    out
}
