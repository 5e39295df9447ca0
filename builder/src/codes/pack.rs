//! LP40xx: making the module.

use super::Severity::{Broken, Refused};

codes! {
    LP4001 {
        class: Broken,
        title: "this lpbuild has no runtime inside",
        why: "A module needs the in-kernel runtime, a freestanding object that plain `cargo build` does not compile.",
        advice: "`cargo xtask build` makes a complete lpbuild",
    }
    LP4002 {
        class: Refused,
        title: "the patch is not bound to a kernel",
        why: "The manifest has no [kernel]: addresses of old code and of kernel-internal symbols are not known yet.",
        advice: "give the kernel image with --kernel, to diff or to pack",
    }
    LP4003 {
        class: Broken,
        title: "no kernel headers",
        why: "A module is linked by the kernel's own build system, with the headers of exactly the kernel it is for.",
        advice: "install the headers package of this release, or name its folder with --headers",
    }
    LP4004 {
        class: Refused,
        title: "the headers are those of another kernel",
        why: "The module loader compares the release in vermagic (same_magic, kernel/module/version.c); a module made with \
              other headers would not load, or would have the wrong layout of kernel structures.",
        advice: "use the headers of the release that the manifest names",
    }
    LP4005 {
        class: Broken,
        title: "a tool is missing",
        why: "Packing runs make, the compiler the kernel was built with (CONFIG_CC_VERSION_TEXT) and binutils.",
        advice: "install the tool; on Debian: make, binutils and the gcc version of the kernel",
    }
    LP4006 {
        class: Broken,
        title: "the kernel's build system failed",
        why: "kbuild could not compile or link the module; the end of its output is shown.",
        advice: "look at the end of its output; headers, compiler and binutils must be those of the kernel",
    }
    LP4007 {
        class: Broken,
        title: "the finished module is not what was asked for",
        why: "Every module is read again with a second ELF reader and compared with the manifest before it is handed out.",
        advice: "report this: it is a bug in lpbuild, or patch.o was changed by hand",
    }
    LP4008 {
        class: Broken,
        title: "the module could not be signed",
        why: "scripts/sign-file of the kernel headers failed, or is not there.",
        advice: "check key and certificate; on Debian sign-file is in the linux-kbuild package",
    }
    LP4009 {
        class: Broken,
        title: "patch.o and manifest.toml do not belong together",
        why: "The records in patch.o name other functions, sites or bytes than the manifest.",
        advice: "write both again with lpbuild diff",
    }
    LP4010 {
        class: Refused,
        title: "the module needs a symbol the kernel does not export",
        why: "An undefined symbol is not in Module.symvers, so the module loader would say `Unknown symbol`.",
        advice: "bind the patch again; every unexported symbol must be reached through the anchor",
    }
    LP4011 {
        class: Refused,
        title: "a relocation the module loader rejects",
        why: "__apply_relocate_add of arch/x86/kernel/module.c knows seven types and wants the relocated field to be zero.",
        advice: "build the objects with the kernel's own flags (-mcmodel=kernel, no PIC)",
    }
    LP4012 {
        class: Refused,
        title: "an indirect branch would fault",
        why: "The kernel is built with CONFIG_X86_KERNEL_IBT, and a function whose address is taken does not begin with \
              ENDBR: on a CPU with indirect branch tracking the first call through the pointer is a control protection \
              fault.",
        advice: "build the objects with the kernel's own flags (-fcf-protection=branch), and leave --jump at rel32",
    }
    LP4013 {
        class: Refused,
        title: "patch.o is not the one the manifest describes",
        why: "The manifest holds the SHA-256 of patch.o. Another file may refer to other addresses, of which nothing in the \
              manifest would tell. Manifests of schema 1 have no hash.",
        advice: "write both again with lpbuild diff or lpbuild build; neither is edited by hand",
    }
    LP4014 {
        class: Refused,
        title: "the manifest does not fit the kernel image",
        why: "Release, build id, anchor, the address, size, position and site of every function, the imports of the runtime and \
              the symbols referred to are held against the image. A manifest that says otherwise was written for another \
              kernel, or changed afterwards.",
        advice: "give the image the patch was bound to, or write the patch again with lpbuild diff or lpbuild build",
    }
    LP4015 {
        class: Refused,
        title: "the name of a function or variable is too long for the kernel",
        why: "KSYM_NAME_LEN is 512 bytes (include/linux/kallsyms.h). Where a kernel prints an address inside a module's \
              function with a longer name, in any backtrace, newer kernels write over their own stack \
              (module_address_lookup, kernel/module/kallsyms.c).",
        advice: "give the function or variable a shorter name",
    }
}
