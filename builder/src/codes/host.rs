//! LP51xx: refusals by the commands on the target, before the kernel sees the module.

use super::Severity::{Broken, Refused};

codes! {
    LP5101 {
        class: Refused,
        title: "not a module made by lpbuild",
        why: "The module has no .lpbuild.manifest section, so nothing says which kernel it fits or what it replaces.",
        advice: "make it with lpbuild pack; ordinary modules are loaded with insmod",
    }
    LP5102 {
        class: Refused,
        title: "not an x86-64 kernel module, or not an x86-64 host",
        why: "Patches are ELF64 relocatable files for EM_X86_64, uncompressed, and run on 64-bit x86 kernels only.",
        advice: "give the .ko as lpbuild pack left it, on the host it was made for",
    }
    LP5103 {
        class: Refused,
        title: "made for another kernel release",
        why: "The release in the manifest or in vermagic differs from uname -r; addresses of one kernel mean nothing in another.",
        advice: "build the patch for the running release, or boot the kernel it was made for",
    }
    LP5104 {
        class: Refused,
        title: "made for another build of this release",
        why: "The GNU build id in the manifest differs from the one in /sys/kernel/notes: same release, other binary.",
        advice: "build the patch from the vmlinuz of the running kernel",
    }
    LP5105 {
        class: Refused,
        title: "the running kernel cannot be identified",
        why: "The build id of the running kernel comes from /sys/kernel/notes, and without it no patch can be proven to fit.",
        advice: "mount sysfs on /sys; if it is mounted, the kernel was linked without a build id and cannot be patched",
    }
    LP5106 {
        class: Refused,
        title: "already loaded",
        why: "A patch or module of the same name is in the kernel; two modules cannot have one name.",
        advice: "see lpbuild status, and unload it first, or give the new patch another name",
    }
    LP5107 {
        class: Refused,
        title: "the function is replaced by another patch",
        why: "One jump site holds one jump: a second patch on the same function would have to patch the first one's code.",
        advice: "unload the other patch, or build one patch with both fixes",
    }
    LP5108 {
        class: Refused,
        title: "the function is held by the kernel's livepatch",
        why: "Kernel livepatch redirects at the fentry site, before the jump of this patch, so its version would silently win.",
        advice: "disable that livepatch first (echo 0 > /sys/kernel/livepatch/NAME/enabled)",
    }
    LP5109 {
        class: Refused,
        title: "not permitted to load or remove modules",
        why: "finit_module(2) and delete_module(2) need CAP_SYS_MODULE.",
        advice: "run the command as root, outside of containers that drop the capability",
    }
    LP5110 {
        class: Refused,
        title: "module loading is disabled",
        why: "kernel.modules_disabled is set; the kernel does not take it back before the next boot.",
        advice: "reboot into the fixed kernel, or boot without that sysctl",
    }
    LP5111 {
        class: Refused,
        title: "the kernel wants a signature it trusts",
        why: "With module.sig_enforce, secure boot or lockdown the kernel takes only modules signed by a key in its keyrings, or enrolled as a MOK.",
        advice: "sign the module with such a key: lpbuild pack --sign KEY CERT",
    }
    LP5112 {
        class: Refused,
        title: "the kernel did not take the module",
        why: "finit_module(2) failed before the patch could say why; what the module loader logged is in the message.",
        advice: "see dmesg; build the module with the headers of exactly this kernel",
    }
    LP5113 {
        class: Refused,
        title: "no such patch",
        why: "Loaded patches have a folder in /sys/kernel/lpbuild.",
        advice: "lpbuild status lists the patches in the kernel",
    }
    LP5114 {
        class: Refused,
        title: "the patch does not revert",
        why: "The runtime did not take the request, as for a patch that pins itself, or gave up without a reason.",
        advice: "see dmesg; a patch built to stay goes with the next boot",
    }
    LP5115 {
        class: Refused,
        title: "the module cannot be removed",
        why: "The patch is reverted and does nothing any more, but something still holds a reference to its module.",
        advice: "close what uses it (lsmod shows it) and run lpbuild unload again",
    }
    LP5116 {
        class: Broken,
        title: "the runtime does not answer as it should",
        why: "/sys/kernel/lpbuild/NAME is missing after a successful load, or its state does not change long after the deadline.",
        advice: "see dmesg and report it with the module",
    }
    LP5117 {
        class: Refused,
        title: "the patch is not bound to a kernel",
        why: "A patch made without a kernel image has symbolic references only; the module loader could not resolve them.",
        advice: "pack it with --kernel IMAGE",
    }
    LP5118 {
        class: Refused,
        title: "the module contradicts its manifest",
        why: "The name in .modinfo and the name of the patch differ, or a record that the runtime goes by says something else \
              than the manifest, which lpbuild goes by: another address, size, site, import or callback.",
        advice: "make the module again with lpbuild pack; a module is not changed by editing it",
    }
    LP5119 {
        class: Refused,
        title: "the runtime refused for a reason this lpbuild does not know",
        why: "The module carries the runtime of the lpbuild that packed it; a newer one can have codes an older one lacks.",
        advice: "use the lpbuild that made the module, whose explain knows the code",
    }
    LP5120 {
        class: Refused,
        title: "the runtime in the module does not know the option",
        why: "A module carries the runtime of the lpbuild that packed it. The kernel passes over module parameters it does not \
              find, so an older module would apply its patch in a dry run, or in another mode than asked for.",
        advice: "pack the patch again with this lpbuild, or load it without the option",
    }
    LP5121 {
        class: Refused,
        title: "only a transition can be forced",
        why: "To force is to switch the remaining tasks where they stand. In stop-machine and drain no task has a version of \
              its own, and code with tasks inside cannot be taken away from them.",
        advice: "use --mode transition, or end or wake the tasks that are in the way",
    }
    LP5122 {
        class: Refused,
        title: "the revert is not finished",
        why: "Tasks are still inside the new functions, so the module has to stay. New calls run the old code, or each task that \
              was switched does, and the revert goes on without being waited for. Where nobody is listed, RCU-tasks waits for a task \
              that has been in the kernel since before without sleeping, or the patch still drains and reverts behind that.",
        advice: "end or wake the tasks that lpbuild status lists, if any, and run lpbuild unload again",
    }
    LP5123 {
        class: Refused,
        title: "the running kernel has a function elsewhere",
        why: "The distance of every replaced function and of every kernel function of the runtime from the anchor is in the \
              manifest, and does not change with KASLR. /proc/kallsyms shows another one, although the build id is the same.",
        advice: "make the module again for the running kernel, and load it as it was packed",
    }
    LP5124 {
        class: Broken,
        title: "the kernel's patches cannot be seen",
        why: "Patches are seen and reverted through /sys/kernel/lpbuild. Without sysfs nothing can be said about them, which does \
              not mean that there are none.",
        advice: "mount sysfs on /sys (mount -t sysfs sysfs /sys), or run it as root outside of the container",
    }
    LP5125 {
        class: Refused,
        title: "a loaded kernel module is another build",
        why: "The patch has functions of that module, and was made for a file of it with another build id: the code of the one that is \
              loaded may be another one. Where the module is not loaded yet this is found when it comes (LP5028).",
        advice: "make the patch for the module that is loaded; or unload that, and load the one the patch was made for",
    }
}
