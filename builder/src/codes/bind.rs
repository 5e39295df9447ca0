//! LP30xx: a patch that does not bind to the kernel image.

use super::Severity::Refused;

codes! {
    LP3001 {
        class: Refused,
        title: "the old code is not the running code",
        why: "Run-pre matching compares the old build of every replaced function with the kernel image: bytes, where each \
              relocated field leads, the table entries that belong to it, and the read-only data it refers to. The names \
              kallsyms lists say where a field must lead; a name it does not list cannot be of something that it lists under \
              another. A difference means another compiler, configuration or source.",
        advice: "build the old objects from this kernel's source and configuration with its compiler",
    }
    LP3002 {
        class: Refused,
        title: "contradictory address",
        why: "Different functions of the object show different addresses for the same thing in the kernel image, and the image \
              lists no name that says which is right.",
        advice: "check that the old objects belong to this kernel",
    }
    LP3003 {
        class: Refused,
        title: "symbol cannot be resolved",
        why: "The kernel image has no symbol of this name, or several, and no function of the old build shows which is meant. \
              Code of a module refers to what the module has, and to what the kernel or a module it depends on exports; code of the \
              kernel cannot refer to symbols of modules, which may not be loaded.",
        advice: "refer to a symbol that the kernel image, or the module, holds exactly once",
    }
    LP3004 {
        class: Refused,
        title: "weak function is overridden",
        why: "Another object defines this function strongly, so the code in this object is never called.",
        advice: "patch the definition that is used",
    }
    LP3005 {
        class: Refused,
        title: "this kernel lacks something lpbuild needs",
        why: "Every address is given relative to an exported symbol, and the runtime needs a few kernel functions \
              (stack_trace_save_tsk_reliable needs CONFIG_STACKTRACE and a reliable unwinder).",
        advice: "use a kernel with CONFIG_UNWINDER_ORC, CONFIG_STACKTRACE and CONFIG_KALLSYMS; without CONFIG_KALLSYMS_ALL \
                 give its vmlinux, whose symbol table has the names of data",
    }
    LP3006 {
        class: Refused,
        title: "the address of a kernel function that may not be called indirectly",
        why: "The kernel tracks indirect branches (CONFIG_X86_KERNEL_IBT): they must lead to an ENDBR. Nothing in the kernel \
              takes the address of this function, so it has none or loses it at boot, and a call through the pointer that \
              the patch makes of it would fault.",
        advice: "take the address of a new function that calls it",
    }
    LP3007 {
        class: Refused,
        title: "not the image the patch is for",
        why: "A linked old image is the running kernel: its addresses are the addresses of the patch, and another image has \
              others. A vmlinux.o has none at all, and modules refer to a kernel that is another file.",
        advice: "give the vmlinux or vmlinuz of the running kernel; --kernel is needed with vmlinux.o and with modules only",
    }
    LP3009 {
        class: Refused,
        title: "the file of a module cannot be used",
        why: "The code of a module is compared with its file as the kernel's with its image. The file is looked for under its path \
              below kernel/ of the folders of modules, never in updates/, unless it is given; that of an external module (--module-source) by its name \
              in updates/ and extra/ first, where it must be the only one. It must be of the same release, have a build id, and import only what the \
              kernel or another module has.",
        advice: "install the modules of this kernel (the package of its image has them), or give the file that the kernel has loaded",
    }
}
