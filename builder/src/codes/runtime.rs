//! LP50xx: refusals by the runtime inside the kernel (runtime-kmod/src/refusal.rs). Each also ends `insmod` with an errno.

use super::Severity::{Broken, Refused};

codes! {
    LP5001 {
        class: Broken,
        title: "the module's records are not valid",
        why: "Magic, version of the records, counts, addresses or sizes contradict each other (EINVAL).",
        advice: "pack the module again; patch.o and runtime must come from one lpbuild",
    }
    LP5002 {
        class: Refused,
        title: "wrong kernel",
        why: "The running kernel's GNU build id is not that of the kernel the patch was bound to. The same version string is \
              not enough: every address in the patch is that of one build (ENOEXEC).",
        advice: "bind and pack the patch for the kernel that runs",
    }
    LP5003 {
        class: Refused,
        title: "the kernel has no build id where it is expected",
        why: "The notes of the kernel, read with fault-safe copies, hold no GNU build id: another kernel runs, or one linked \
              without --build-id (ENOEXEC).",
        advice: "bind and pack the patch for the kernel that runs",
    }
    LP5004 {
        class: Refused,
        title: "the function is live-patched already",
        why: "The jump site holds a jump to somewhere else. A second jump would take the first patch out without its \
              knowledge, and reverting them in the wrong order would leave a jump into freed memory (EADDRINUSE).",
        advice: "unload the other patch first, or make one patch of both; --after stacks patches whose jumps are of one kind \
                 (--jump)",
    }
    LP5005 {
        class: Refused,
        title: "a kprobe is set on the jump site",
        why: "The kprobe has put int3 or a jump into the bytes and keeps the originals to itself; both would restore over each \
              other (EADDRINUSE).",
        advice: "remove the probe, apply, and set it again: on the jump itself, or on the entry of the function",
    }
    LP5006 {
        class: Refused,
        title: "the code at the jump site was altered",
        why: "The bytes are neither the expected ones nor a known kind of patch; what lies under the site is not the code that \
              was analysed (EILSEQ). The jump of a patch with the other kind of jump (rel32, abs64) is among the unknown ones.",
        advice: "if lpbuild status lists a patch of this function, unload it, or build both with the same --jump; else find out \
                 who changed the function; after a reboot the patch can be applied",
    }
    LP5007 {
        class: Refused,
        title: "functions were busy until the deadline",
        why: "Until the deadline some task had a replaced function on its stack, had a stack that cannot be walked reliably, or (with \
              transition) had not come back to user space. Nothing was changed (EBUSY).",
        advice: "load it with --mode transition, where each task changes over by itself; raise --deadline-ms (in a transition beyond \
                 --patience-ms: then who sleeps there is sent out as by a signal); wake or end the tasks listed as blockers; or try later",
    }
    LP5008 {
        class: Refused,
        title: "the new function is out of reach of a rel32 jump",
        why: "Kernel and modules share 2 GiB of address space, but this module was loaded too far away (ERANGE).",
        advice: "make the patch with the abs64 form of jump",
    }
    LP5009 {
        class: Refused,
        title: "not every CPU could be stopped",
        why: "A CPU did not arrive within a second although the machine was stopped: firmware or the hypervisor keeps it away \
              (EAGAIN).",
        advice: "try again when the machine is less loaded",
    }
    LP5010 {
        class: Refused,
        title: "no memory for the patch",
        why: "Memory for the sites or a writable mapping of the kernel's code could not be had (ENOMEM).",
        advice: "free memory and try again",
    }
    LP5011 {
        class: Refused,
        title: "the patch's folder, notifier or thread could not be made",
        why: "sysfs, the die notifier or the kernel thread was refused by the kernel; the errno is in the log line.",
        advice: "look for a module or folder of the same name below /sys/kernel/lpbuild",
    }
    LP5012 {
        class: Refused,
        title: "the jump is gone",
        why: "On revert, the site does not hold the jump this patch wrote. Someone else has changed it; writing the original \
              bytes could undo their work or hide damage (EILSEQ). The patch stays applied.",
        advice: "undo what changed the site, then revert again",
    }
    LP5013 {
        class: Refused,
        title: "new functions were busy until the deadline",
        why: "At every attempt some task had the new code on its stack, or a stack that cannot be walked reliably. The patch \
              stays applied (EBUSY).",
        advice: "raise deadline_ms (in a transition beyond patience_ms: then who sleeps there is sent out as by a signal), wake or end \
                 the tasks listed as blockers, or try later",
    }
    LP5014 {
        class: Refused,
        title: "a oneshot patch is not reverted",
        why: "Whoever made the patch said so: what its new code does cannot be taken back while the kernel runs, or must not be \
              (EPERM). The module holds a reference on itself for good.",
        advice: "boot without it; to be able to unload such a patch, build it without oneshot",
    }
    LP5015 {
        class: Refused,
        title: "the pre-apply callback refused the patch",
        why: "The patch brings a function that looks at the kernel before anything is written, and it did not return 0. A \
              negative errno is also what `insmod` returns, any other value becomes EINVAL.",
        advice: "the callback's author knows what it wants; dmesg has what it printed",
    }
    LP5016 {
        class: Refused,
        title: "cancelled while it was being applied",
        why: "Writing 0 to `enabled`, or a removal by force, asked for a revert before the patch was applied. What had been \
              switched was switched back; the module is not loaded (ECANCELED).",
        advice: "load it again when it is wanted",
    }
    LP5017 {
        class: Refused,
        title: "the mode cannot replace this function",
        why: "In `transition` and `drain` calls come to a dispatcher, which has to run the beginning of the old function at \
              another place. The instructions under this jump site only work where they are, so that the function has no \
              dispatcher (EOPNOTSUPP).",
        advice: "load it with mode=stop-machine, which replaces functions without dispatcher while the machine is stopped",
    }
    LP5019 {
        class: Refused,
        title: "the other patch is not applied, or not free",
        why: "A patch named in `after` or `replaces` is not in the kernel, or is not applied (yet, or any more). Or it cannot \
              be replaced: another patch lies on it or is taking its place, or it lies on a patch that this one does not \
              name in `after` (ESRCH).",
        advice: "look at lpbuild status; load the patch below first, or unload what lies on the one to be replaced",
    }
    LP5020 {
        class: Refused,
        title: "another patch lies on top of this one",
        why: "That patch's old version is this one's new code, and its jump comes back to this one's. Or it is just taking \
              the place of this one (EBUSY). The patch stays applied.",
        advice: "unload the patch on top first",
    }
    LP5021 {
        class: Refused,
        title: "the other patch was packed by another lpbuild",
        why: "Patches that lie on each other or replace each other work with each other's tables, which only one version of \
              the runtime knows (EOPNOTSUPP).",
        advice: "unload the other patch, or pack both with one lpbuild",
    }
    LP5023 {
        class: Refused,
        title: "ftrace sends the function's calls elsewhere",
        why: "A user of ftrace that may change where a call continues has the function, as the kernel's own livepatch does. \
              Its redirection comes before the jump site, so the new code would never run (EADDRINUSE).",
        advice: "disable that livepatch first; lpbuild status names livepatches that came later",
    }
    LP5024 {
        class: Refused,
        title: "there is no such mode",
        why: "The parameter `mode` of the module is none of stop-machine, drain and transition (EINVAL).",
        advice: "correct mode=, or leave it out: then the patch's own mode counts",
    }
    LP5025 {
        class: Refused,
        title: "a time of 0 ms",
        why: "A parameter of the module that says how long something lasts is 0 (EINVAL). Whoever writes 0 may mean no time or \
              no end, and gets neither.",
        advice: "give at least 1, or leave the parameter out: then what the patch says counts",
    }
    LP5026 {
        class: Refused,
        title: "tasks worked in the kernel without a pause until the deadline",
        why: "A site of several instructions is written when synchronize_rcu_tasks has returned: nobody is in the middle of them then. \
              It waits for every task that neither sleeps nor comes back to user mode, and all the time every call of the functions \
              would trap. So that is found out first; nothing was changed (EBUSY). At the deadline an int3 that is there already is \
              taken back.",
        advice: "raise deadline_ms, end the tasks listed as blockers, or try later",
    }
    LP5027 {
        class: Refused,
        title: "a patch below calls its own version directly",
        why: "New code calls the new functions of its own patch directly. A patch named in `after` does that with a function which \
              this patch replaces as well, from one that this patch leaves alone: such calls would not come to this patch, and \
              what it changes would be lost for them (EOPNOTSUPP).",
        advice: "make one patch of both changes that names the one below in `replaces`; or let this one replace the callers as well",
    }
    LP5028 {
        class: Refused,
        title: "a kernel module is another build",
        why: "The patch has functions of a kernel module, and the one of that name that is here has another build id, or none. Nothing of it is \
              where the patch expects it (ENOEXEC). The log has both build ids. If such a module comes later it is loaded, unpatched, and \
              /sys/kernel/lpbuild/NAME/holders says so.",
        advice: "build the patch for the module that is loaded, or load the module that the patch was built for",
    }
    LP5029 {
        class: Refused,
        title: "a reference to a kernel module cannot be resolved",
        why: "The module has the right build id, and still a symbol by which the patch finds one of its sections is not there, is there more often \
              or less often than in the file, leads elsewhere than a second one, or out of that part of the module; or a module that it \
              needs is not here. Nothing was written to the module (ENOENT).",
        advice: "please report this with the output of lpbuild inspect and the module's file",
    }
    LP5030 {
        class: Refused,
        title: "the loading of a kernel module is refused",
        why: "The patch is loaded and has functions of a kernel module that comes, and these cannot be patched, for the reason that the line before \
              says. A module with the fault that the patch is for does not come in without a word, as with the kernel's own livepatch \
              (`klp_module_coming`). Another build of it (LP5028) is loaded, unpatched.",
        advice: "remove the cause and load the module again; with lenient=1 for the patch it is loaded unpatched",
    }
    LP5031 {
        class: Refused,
        title: "a kernel module was being loaded until the deadline",
        why: "The patch was loaded while a module of which it has functions was half loaded. Until that is over nothing shows whether the module's code \
              may be running already, so it is waited for (EAGAIN).",
        advice: "load the patch again, or raise deadline_ms; a module that does not finish loading waits in its parameters or its init",
    }
    LP5032 {
        class: Refused,
        title: "a patch with functions in modules cannot be replaced",
        why: "A patch named in `replaces` has functions in kernel modules. Those come and go, and which of the two patches a module that \
              comes in the middle of the exchange belongs to is not decided (EOPNOTSUPP).",
        advice: "name it in `after` instead, so that this one lies on it; or unload it, then load this one without `replaces`",
    }
    LP5033 {
        class: Refused,
        title: "a constant of the kernel does not hold what it should",
        why: "The patch changes a constant in its place, and somebody else has changed it: before, so that it is not what the patch was made \
              for, or since, so that putting back what was there would undo the other one's change (EILSEQ). Nothing is written.",
        advice: "unload the other patch that changes it first; two patches for one constant have to be made one",
    }
    LP5034 {
        class: Refused,
        title: "a patch that has changed constants cannot be replaced",
        why: "A patch named in `replaces` has changed constants in their place, and who is to put back which content is not decided \
              (EOPNOTSUPP).",
        advice: "unload that patch, then load this one without `replaces`",
    }
}
