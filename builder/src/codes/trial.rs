//! LP64xx: trials of a module in a virtual machine (`lpbuild try`).

use super::Severity::{Broken, Refused};

codes! {
    LP6401 {
        class: Broken,
        title: "a program for the trial is missing",
        why: "A trial boots the kernel in QEMU, with busybox as its user space.",
        advice: "install the packages: apt install qemu-system-x86 busybox-static",
    }
    LP6402 {
        class: Broken,
        title: "QEMU does not run the guest",
        why: "QEMU could not be started, or ended without a line of the guest; what it said is shown.",
        advice: "run qemu-system-x86_64 --version, lower --memory, and check that --image is a kernel",
    }
    LP6403 {
        class: Broken,
        title: "no image of the module's kernel",
        why: "The module names the release it was made for; its image is looked for in /boot, below /usr/lib/modules and in \
              the user's cache.",
        advice: "name the vmlinuz with --image, or install the kernel's image package",
    }
    LP6404 {
        class: Refused,
        title: "the image is another build than the module was made for",
        why: "The GNU build id of the image differs from the one in the module's manifest: the module would not load, and a \
              trial on another kernel says nothing about this one.",
        advice: "give the vmlinuz the patch was bound to with --image, or build the patch for this image",
    }
    LP6405 {
        class: Broken,
        title: "a file of the trial cannot be written",
        why: "The guest's initramfs and its output are files in a folder of their own below TMPDIR, gone after the trial.",
        advice: "set TMPDIR to a folder that can be written to and has room; a trial needs 20 MB and whatever is added to it",
    }
    LP6406 {
        class: Broken,
        title: "the guest's files cannot be put together",
        why: "The initramfs holds busybox, lpbuild, the module, the scripts and what --add and --modules name.",
        advice: "give absolute guest paths to --add, and install the libraries that a program needs",
    }
    LP6407 {
        class: Refused,
        title: "a check script failed",
        why: "A script that ends with another status than 0 says that something is not as it should be in this phase.",
        advice: "see what it printed; run the same script on a machine without the patch",
    }
    LP6408 {
        class: Refused,
        title: "the kernel complained",
        why: "An oops, a warning, a lockup, an RCU stall or a hung task in the kernel's log during a trial would have been one \
              in production.",
        advice: "see the lines of the log; when the kernel says the same without the patch, --allow TEXT lets it pass",
    }
    LP6409 {
        class: Refused,
        title: "the trial could not be done to its end",
        why: "A trial ends with one verdict of the guest and its power-off. Silence, a time limit and an end without verdict are \
              failures, and so is a module that does not come, or that no longer goes although it went before the patch was loaded.",
        advice: "see what the step printed and the end of the console; raise --timeout when the scripts take long, --silence when the host is slow",
    }
    LP6410 {
        class: Refused,
        title: "the script's output after the unload is not the one before",
        why: "With --strict, what the check script prints must be the same before the patch is loaded and after it is gone.",
        advice: "leave out of the output what changes by itself (times, counters), or drop --strict",
    }
    LP6411 {
        class: Refused,
        title: "lpbuild failed inside the guest",
        why: "lpbuild load, status or unload ended without saying why in a form that can be read.",
        advice: "see the end of the console; take the same lpbuild that packed the module",
    }
    LP6412 {
        class: Refused,
        title: "the patch is not in the state it should be in",
        why: "After the load the patch is applied, and after the unload neither module nor patch is there any more.",
        advice: "see the end of the console for what the kernel said, and report it with the module",
    }
    LP6413 {
        class: Broken,
        title: "interrupted",
        why: "A signal asked lpbuild to end; the guest was stopped and its files were removed.",
        advice: "run it again when you want the result",
    }
    LP6414 {
        class: Broken,
        title: "the image does not boot",
        why: "The guest ended or was stopped before its first program ran, twice; the patch has no part in that.",
        advice: "see the end of the console; give the guest more --memory, or other parameters with --append",
    }
    LP6415 {
        class: Refused,
        title: "the patch cannot be tried",
        why: "A trial needs a patch that is bound to a kernel: its image is what is booted.",
        advice: "pack it with --kernel IMAGE",
    }
    LP6416 {
        class: Broken,
        title: "the guest had no time to boot",
        why: "The time given with --timeout or --silence was over before the guest's first program ran; nothing is known about patch or \
              kernel.",
        advice: "give it more: a guest that is emulated takes 10 s and more to boot",
    }
}
