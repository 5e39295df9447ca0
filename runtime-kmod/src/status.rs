//! What /sys/kernel/lpbuild/NAME and the log show of a patch.

use lpbuild_abi::Mode;

use crate::{
    holders::Presence,
    kernel::{Kernel, Level},
    record::{Patch, jump_kind},
    refusal::{Refusal, symbol},
    stack::{Blocker, Blockers, Where},
    text::{LINE, Text, until_nul},
};

/// Where a patch is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting to be applied, or being applied.
    Applying,
    /// In effect, and no task is in old code that should not be.
    Applied,
    /// Waiting to be reverted, or being reverted.
    Reverting,
    /// Out of effect; the module can be removed.
    Reverted,
    /// Was never applied; the module is about to go.
    Refused,
    /// In effect for every new call; some tasks are still in old code.
    Draining,
    /// Everything was checked and nothing done.
    Checked,
    /// Another patch has taken its place; the module can be removed.
    Replaced,
}

impl State {
    /// As the file `state` shows it.
    pub fn name(self) -> &'static str {
        match self {
            State::Applying => "applying",
            State::Applied => "applied",
            State::Reverting => "reverting",
            State::Reverted => "reverted",
            State::Refused => "refused",
            State::Draining => "draining",
            State::Checked => "checked",
            State::Replaced => "replaced",
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where the patch is.
    pub state: State,
    /// Attempts of the current or last operation.
    pub attempts: u64,
    /// Longest time the machine was stopped by the current or last operation, nanoseconds.
    pub pause_ns: u64,
    /// Why the last operation was not done.
    pub refusal: Option<Refusal>,
    /// Who stood in the way at the last attempt.
    pub blockers: Blockers,
    /// How the current or last operation switched.
    pub mode: Mode,
    /// Tasks that have been switched, and all of them; mode `transition`.
    pub switched: (usize, usize),
    /// Tasks were switched that were inside: the module can never be removed.
    pub forced: bool,
}

impl Status {
    /// Of a patch that was just loaded.
    pub const fn new() -> Self {
        Self {
            state: State::Applying,
            attempts: 0,
            pause_ns: 0,
            refusal: None,
            blockers: Blockers::new(),
            mode: Mode::StopMachine,
            switched: (0, 0),
            forced: false,
        }
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

/// `functions`: one line `SYMBOL site=+0xOFF/SIZE jump=rel32|abs64 STATE` per function.
pub fn functions(patch: &Patch<'_>, status: &Status, out: &mut Text<'_>) {
    for (i, f) in patch.funcs.iter().enumerate() {
        out.bytes(patch.func_name(i)).str(" site=+").hex(u64::from(f.site_offset)).str("/").dec(u64::from(f.site_size));
        out.str(match jump_kind(f) {
            Some(lpbuild_abi::JumpKind::Abs64) => " jump=abs64 ",
            _ => " jump=rel32 ",
        });
        out.str(status.state.name()).str("\n");
    }
}

/// `holders`: one line `NAME STATE` per kernel module, and behind that why it is refused. The state of one that is here is that of
/// the patch.
pub fn holders<K: Kernel>(
    k: &K,
    patch: &Patch<'_>,
    presence: impl Fn(usize) -> Presence,
    status: &Status,
    out: &mut Text<'_>,
) {
    for (i, h) in patch.holders.iter().enumerate() {
        out.bytes(patch.holder_name(i)).str(" ");
        let out = &mut *out;
        match presence(i) {
            // It is only referred to.
            _ if h.n_funcs == 0 => out.str("needed"),
            Presence::Waiting => out.str("waiting"),
            Presence::Here => out.str(status.state.name()),
            Presence::Leaving => out.str("leaving"),
            Presence::Refused(why) => {
                why.describe(k, patch.subject(why), out.str("refused "));
                &mut *out
            }
        };
        out.str("\n");
    }
}

/// A kernel module is not patched: why; the build ids, if it is those; and what becomes of it.
pub fn log_module<K: Kernel>(k: &K, patch: &Patch<'_>, holder: usize, why: Refusal, found: &[u8], refused: bool) {
    line(k, Level::Error, patch.name, |t| why.describe(k, patch.subject(why), t));
    if why == (Refusal::OtherModule { holder }) {
        line(k, Level::Error, patch.name, |t| {
            t.str("build id of ").bytes(patch.holder_name(holder)).str(": ").hex_bytes(found);
            t.str(", the patch is for ").hex_bytes(patch.holder_id(holder));
        });
    }
    line(k, Level::Error, patch.name, |t| {
        if refused {
            t.str("LP5030: ")
                .bytes(patch.holder_name(holder))
                .str(": it is not loaded, because it would not be patched");
        } else {
            t.bytes(patch.holder_name(holder)).str(" is not patched");
        }
    });
}

/// A kernel module is patched as it comes, or is no longer because it goes.
pub fn log_part<K: Kernel>(k: &K, patch: &Patch<'_>, holder: usize, what: &str) {
    line(k, Level::Info, patch.name, |t| {
        t.bytes(patch.holder_name(holder)).str(" ").str(what);
    });
}

/// `blockers`: one line `PID COMM FUNC+0xOFF` per task that stood in the way, then how many more there were.
pub fn blockers<K: Kernel>(k: &K, status: &Status, out: &mut Text<'_>) {
    for b in status.blockers.kept() {
        out.int(i64::from(b.who.pid)).str(" ");
        comm(b, out);
        out.str(" ");
        place(k, b, out);
        out.str("\n");
    }
    let more = status.blockers.total() - status.blockers.kept().len();
    if more > 0 {
        out.str("and ").dec(more as u64).str(" more\n");
    }
}

/// `last_error`: the line of the last refusal, empty when the last operation succeeded.
pub fn last_error<K: Kernel>(k: &K, patch: &Patch<'_>, status: &Status, out: &mut Text<'_>) {
    if let Some(r) = status.refusal {
        r.describe(k, patch.subject(r), out);
        out.str("\n");
    }
}

/// The line that says that an operation succeeded.
pub fn log_success<K: Kernel>(k: &K, patch: &Patch<'_>, status: &Status, what: &str) {
    line(k, Level::Info, patch.name, |t| {
        t.str(what).str(" mode=").str(status.mode.name()).str(" functions=").dec(patch.funcs.len() as u64);
        t.str(" attempts=").dec(status.attempts).str(" pause_ns=").dec(status.pause_ns);
    });
}

/// A line that says why not, and one for every task that stood in the way.
pub fn log_refusal<K: Kernel>(k: &K, name: &[u8], func: &[u8], refusal: Refusal, found: &Blockers) {
    line(k, Level::Error, name, |t| refusal.describe(k, func, t));
    for b in found.kept() {
        line(k, Level::Error, name, |t| {
            t.str("blocker pid=").int(i64::from(b.who.pid)).str(" comm=");
            comm(b, t);
            t.str(" at=");
            place(k, b, t);
        });
    }
    let more = found.total() - found.kept().len();
    if more > 0 {
        line(k, Level::Error, name, |t| {
            t.str("and ").dec(more as u64).str(" more blockers");
        });
    }
}

/// `lpbuild: NAME: ` and the rest.
fn line<K: Kernel>(k: &K, level: Level, name: &[u8], rest: impl FnOnce(&mut Text<'_>)) {
    let mut buf = [0u8; LINE];
    let mut t = begin(&mut buf, name);
    rest(&mut t);
    k.log(level, t.as_bytes());
}

#[inline(never)]
fn begin<'b>(buf: &'b mut [u8; LINE], name: &[u8]) -> Text<'b> {
    let mut t = Text::new(buf);
    t.str("lpbuild: ").bytes(name).str(": ");
    t
}

/// Where a task was found; a task whose stack cannot be walked may be anywhere.
fn place<K: Kernel>(k: &K, b: &Blocker, out: &mut Text<'_>) {
    match b.at {
        Where::Inside(addr) => symbol(k, addr, false, out),
        Where::Unknown(_) => out.str("unreliable-stack"),
        Where::Running => out.str("running"),
        Where::Restless => out.str("restless-in-the-kernel"),
        Where::NotYet => out.str("not-back-in-user-mode"),
    };
}

/// The name of a task, which can hold any byte; those that would break the line or its columns become `?`.
fn comm(b: &Blocker, out: &mut Text<'_>) {
    for &c in until_nul(&b.who.comm) {
        out.bytes(&[if c.is_ascii_graphic() { c } else { b'?' }]);
    }
}
