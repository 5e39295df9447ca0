//! Why an operation was not done. Every entry has a code of the table `LP50nn`, an errno for `insmod`, and a text.

use crate::{
    kernel::Kernel,
    text::{LINE, Text},
};

/// A refusal. Nothing has been changed, or everything has been put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// LP5001: a record contradicts the ABI; which rule.
    BadRecord(&'static str),
    /// LP5002: the running kernel has another build id.
    WrongKernel,
    /// LP5003: the kernel's notes cannot be read or hold no GNU build id.
    NoBuildId,
    /// LP5004: the site holds a jump to the given address already.
    AlreadyPatched {
        /// Index of the function.
        func: usize,
        /// Where the jump leads.
        target: u64,
    },
    /// LP5005: a kprobe sits on the site.
    Probed {
        /// Index of the function.
        func: usize,
        /// Where the kprobe is.
        addr: u64,
    },
    /// LP5006: the site's bytes are not the expected ones.
    Altered {
        /// Index of the function.
        func: usize,
    },
    /// LP5007: tasks were inside the replaced functions, or had not changed over, until the deadline.
    Busy,
    /// LP5026: tasks neither slept nor came back to user mode until the deadline, so that a wait for them would not have ended.
    Restless,
    /// LP5008: the new function is out of reach of a `rel32` jump.
    OutOfReach {
        /// Index of the function.
        func: usize,
    },
    /// LP5009: not every CPU took part in the stop.
    CpusMissing,
    /// LP5010: no memory, or no writable alias of the text.
    NoMemory,
    /// LP5012: on revert, the site no longer holds the jump of this patch.
    JumpGone {
        /// Index of the function.
        func: usize,
    },
    /// LP5012: on revert, the site holds a jump to the given address instead.
    Overlaid {
        /// Index of the function.
        func: usize,
        /// Where the jump leads.
        target: u64,
    },
    /// LP5013: tasks were inside the new functions until the deadline.
    StillInside,
    /// LP5014: a oneshot patch is not reverted.
    Oneshot,
    /// LP5016: a revert was asked for while the patch was being applied.
    Cancelled,
    /// LP5017: the mode needs a dispatcher, and the function has none.
    NoDispatcher {
        /// Index of the function.
        func: usize,
    },
    /// LP5019: a patch named in `after` or `replaces` is not applied, or not free to be taken.
    NoOther {
        /// Index among the others.
        other: usize,
    },
    /// LP5020: a patch lies on top of this one, or is taking its place.
    OnTop,
    /// LP5021: a patch named in `after` or `replaces` has another runtime.
    OtherRuntime {
        /// Index among the others.
        other: usize,
    },
    /// LP5023: ftrace sends calls of the function elsewhere, before they come to the site.
    Redirected {
        /// Index of the function.
        func: usize,
    },
    /// LP5027: a patch below calls its own version of the function directly, so that this one's would not be called.
    Bypassed {
        /// Index of the function.
        func: usize,
    },
    /// LP5028: a kernel module that has functions of the patch is another build.
    OtherModule {
        /// Index of the module.
        holder: usize,
    },
    /// LP5029: a section of a module is not found where the patch expects it.
    Unresolved {
        /// Index of the module.
        holder: usize,
        /// Index of the section.
        anchor: usize,
    },
    /// LP5008: a reference to a module is out of reach.
    TooFar {
        /// Index of the module.
        holder: usize,
    },
    /// LP5031: a module was being loaded until the deadline.
    HalfLoaded {
        /// Index of the module.
        holder: usize,
    },
    /// LP5032: a patch named in `replaces` has functions in modules.
    HasModules {
        /// Index among the others.
        other: usize,
    },
    /// LP5033: a constant of the kernel does not hold what it should: somebody else has changed it.
    DataAltered {
        /// Index of the constant.
        data: usize,
    },
    /// LP5034: a patch named in `replaces` has changed constants in their place.
    HasData {
        /// Index among the others.
        other: usize,
    },
    /// LP5015: the pre-apply callback does not want the patch applied.
    Vetoed {
        /// What it returned; not 0.
        value: i32,
    },
}

// Values of include/uapi/asm-generic/errno{-base,}.h.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENOEXEC: i32 = 8;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const EILSEQ: i32 = 84;
const EADDRINUSE: i32 = 98;
const EOPNOTSUPP: i32 = 95;
const ECANCELED: i32 = 125;
/// The largest errno (include/linux/err.h).
const MAX_ERRNO: i32 = 4095;

impl Refusal {
    /// Code in the table of lpbuild, printed with `LP` before it.
    #[inline(never)]
    pub fn code(self) -> u16 {
        match self {
            Refusal::BadRecord(_) => 5001,
            Refusal::WrongKernel => 5002,
            Refusal::NoBuildId => 5003,
            Refusal::AlreadyPatched { .. } => 5004,
            Refusal::Probed { .. } => 5005,
            Refusal::Altered { .. } => 5006,
            Refusal::Busy => 5007,
            Refusal::OutOfReach { .. } => 5008,
            Refusal::CpusMissing => 5009,
            Refusal::NoMemory => 5010,
            Refusal::JumpGone { .. } | Refusal::Overlaid { .. } => 5012,
            Refusal::StillInside => 5013,
            Refusal::Oneshot => 5014,
            Refusal::Vetoed { .. } => 5015,
            Refusal::Cancelled => 5016,
            Refusal::NoDispatcher { .. } => 5017,
            Refusal::NoOther { .. } => 5019,
            Refusal::Redirected { .. } => 5023,
            Refusal::OnTop => 5020,
            Refusal::Restless => 5026,
            Refusal::OtherRuntime { .. } => 5021,
            Refusal::Bypassed { .. } => 5027,
            Refusal::OtherModule { .. } => 5028,
            Refusal::Unresolved { .. } => 5029,
            Refusal::TooFar { .. } => 5008,
            Refusal::HalfLoaded { .. } => 5031,
            Refusal::HasModules { .. } => 5032,
            Refusal::DataAltered { .. } => 5033,
            Refusal::HasData { .. } => 5034,
        }
    }

    /// Positive errno that module init returns negated.
    pub fn errno(self) -> i32 {
        match self {
            Refusal::BadRecord(_) => EINVAL,
            Refusal::WrongKernel | Refusal::NoBuildId | Refusal::OtherModule { .. } => ENOEXEC,
            Refusal::Unresolved { .. } => ENOENT,
            Refusal::AlreadyPatched { .. } | Refusal::Probed { .. } | Refusal::Redirected { .. } => EADDRINUSE,
            Refusal::Altered { .. }
            | Refusal::JumpGone { .. }
            | Refusal::Overlaid { .. }
            | Refusal::DataAltered { .. } => EILSEQ,
            Refusal::Busy | Refusal::StillInside | Refusal::Restless => EBUSY,
            Refusal::OutOfReach { .. } | Refusal::TooFar { .. } => ERANGE,
            Refusal::CpusMissing | Refusal::HalfLoaded { .. } => EAGAIN,
            Refusal::NoMemory => ENOMEM,
            Refusal::Oneshot => EPERM,
            Refusal::Cancelled => ECANCELED,
            Refusal::NoDispatcher { .. }
            | Refusal::OtherRuntime { .. }
            | Refusal::Bypassed { .. }
            | Refusal::HasModules { .. }
            | Refusal::HasData { .. } => EOPNOTSUPP,
            Refusal::NoOther { .. } => ESRCH,
            Refusal::OnTop => EBUSY,
            Refusal::Vetoed { value } if (-MAX_ERRNO..0).contains(&value) => -value,
            Refusal::Vetoed { .. } => EINVAL,
        }
    }

    /// Whether waiting can help: tasks move on, CPUs come back.
    pub fn is_transient(self) -> bool {
        matches!(self, Refusal::Busy | Refusal::StillInside | Refusal::CpusMissing)
    }

    /// Index of the function it is about.
    pub fn func(self) -> Option<usize> {
        match self {
            Refusal::AlreadyPatched { func, .. }
            | Refusal::Probed { func, .. }
            | Refusal::Altered { func }
            | Refusal::OutOfReach { func }
            | Refusal::NoDispatcher { func }
            | Refusal::Bypassed { func }
            | Refusal::Redirected { func }
            | Refusal::JumpGone { func }
            | Refusal::Overlaid { func, .. } => Some(func),
            _ => None,
        }
    }

    /// Index of the other patch it is about.
    pub fn other(self) -> Option<usize> {
        match self {
            Refusal::NoOther { other }
            | Refusal::OtherRuntime { other }
            | Refusal::HasModules { other }
            | Refusal::HasData { other } => Some(other),
            _ => None,
        }
    }

    /// Index of the module it is about.
    pub fn holder(self) -> Option<usize> {
        match self {
            Refusal::OtherModule { holder }
            | Refusal::Unresolved { holder, .. }
            | Refusal::TooFar { holder }
            | Refusal::HalfLoaded { holder } => Some(holder),
            _ => None,
        }
    }

    /// Index of the constant it is about.
    pub fn data(self) -> Option<usize> {
        match self {
            Refusal::DataAltered { data } => Some(data),
            _ => None,
        }
    }

    /// `LP50nn: text`; `name` is that of the function or patch it is about.
    pub fn describe<K: Kernel>(self, k: &K, name: &[u8], out: &mut Text<'_>) {
        out.str("LP").dec(self.code().into()).str(": ");
        let of = [self.func(), self.other(), self.holder(), self.data()];
        if of.iter().any(Option::is_some) {
            out.bytes(name).str(": ");
        }
        out.str(self.text());
        match self {
            Refusal::BadRecord(rule) => out.str(rule),
            Refusal::AlreadyPatched { target: at, .. }
            | Refusal::Overlaid { target: at, .. }
            | Refusal::Probed { addr: at, .. } => symbol(k, at, true, out),
            Refusal::Unresolved { anchor, .. } => out.dec(anchor as u64),
            Refusal::Vetoed { value } => out.int(i64::from(value)),
            _ => out,
        };
    }

    /// What is always said. Apart from the rest, so that it is a table.
    #[inline(never)]
    fn text(self) -> &'static str {
        match self {
            Refusal::BadRecord(_) => "the records of the module are not valid: ",
            Refusal::WrongKernel => "this is not the kernel the patch was made for, its build id differs",
            Refusal::NoBuildId => "no GNU build id where the patch expects the kernel's notes",
            Refusal::AlreadyPatched { .. } => "is live-patched already, its code jumps to ",
            Refusal::Probed { .. } => "a kprobe is set on the jump site, at ",
            Refusal::Altered { .. } => "the bytes at the jump site are not those the patch was made for",
            Refusal::Busy => "tasks were inside the replaced functions, or had not changed over, until the deadline",
            Refusal::Restless => {
                "tasks neither slept nor came back to user mode until the deadline, so that calls would have been held up"
            }
            Refusal::OutOfReach { .. } => "the new function is more than 2 GiB away from the jump site",
            Refusal::CpusMissing => "not every CPU took part in stopping the machine",
            Refusal::NoMemory => "no memory, or no writable mapping of the kernel's code",
            Refusal::JumpGone { .. } => "the jump site no longer holds this patch's jump",
            Refusal::Overlaid { .. } => "the jump site no longer holds this patch's jump, it jumps to ",
            Refusal::StillInside => "tasks were inside the new functions until the deadline",
            Refusal::Oneshot => "the patch was made with oneshot, it stays until the next boot",
            Refusal::Cancelled => "a revert was asked for while it was being applied",
            Refusal::NoDispatcher { .. } => {
                "the beginning of the function cannot be run elsewhere, only mode stop-machine can replace it"
            }
            Refusal::Redirected { .. } => {
                "ftrace sends its calls elsewhere, as the kernel's own livepatch does; the jump would never be reached"
            }
            Refusal::NoOther { .. } => "no applied patch of this name, or another one is on it already",
            Refusal::OnTop => "another patch lies on top of this one, unload that first",
            Refusal::OtherRuntime { .. } => "was packed by another version of lpbuild",
            Refusal::OtherModule { .. } => "is another build of the module than the patch was made for",
            Refusal::Unresolved { .. } => "nothing of the module is where the patch expects it, section ",
            Refusal::TooFar { .. } => "the module is out of reach of a field of the patch",
            Refusal::HalfLoaded { .. } => "was being loaded until the deadline",
            Refusal::HasModules { .. } => "has functions in kernel modules, no other patch can take its place",
            Refusal::DataAltered { .. } => "the constant does not hold what the patch was made for, or has left there",
            Refusal::HasData { .. } => "has changed constants in their place, no other patch can take its place",
            Refusal::Bypassed { .. } => {
                "a patch below calls its own version directly, this one's would not be called from there"
            }
            Refusal::Vetoed { .. } => "the pre-apply callback returned ",
        }
    }
}

/// Appends `function+0xOFF [module]`, or the address when it has no symbol; `with_module` keeps the module's name.
pub fn symbol<'a, 'b, K: Kernel>(k: &K, addr: u64, with_module: bool, out: &'a mut Text<'b>) -> &'a mut Text<'b> {
    // Longer names (they can have 511 bytes) are cut off, as lines are.
    let mut buf = [0u8; LINE];
    let len = k.symbol(addr, &mut buf).min(buf.len());
    let full = buf.get(..len).unwrap_or(&[]);
    if full.is_empty() {
        return out.hex(addr);
    }
    let mut parts = full.splitn(2, |&b| b == b'/');
    out.bytes(parts.next().unwrap_or(&[]));
    if with_module
        && let Some(at) = parts.next().and_then(|rest| rest.iter().position(|&b| b == b' ').map(|i| (rest, i)))
    {
        out.bytes(at.0.get(at.1..).unwrap_or(&[]));
    }
    out
}
