//! LP63xx: changes of the source that no live patch can make, told before anything is compiled.

use super::Severity::Refused;

codes! {
    LP6301 {
        class: Refused,
        title: "code that the running kernel does not execute itself",
        why: "Boot code is gone or copied elsewhere once the kernel runs, and the vDSO is mapped into processes; neither is \
              reached through a function of the kernel. A file they share with the kernel would be changed in the kernel's \
              copy alone.",
        advice: "leave these files out (--leave-out FILE), or restart with a fixed kernel",
    }
    LP6302 {
        class: Refused,
        title: "only code of the kernel's start is changed",
        why: "Functions marked __init run once and their memory is freed (free_initmem); __exit functions of built-in code \
              are dropped by the linker.",
        advice: "leave it out (--leave-out FILE, or FILE:HUNK), and change what that code set up by a callback; or restart with a fixed kernel (docs/authors.md#an-init-only-change)",
    }
    LP6303 {
        class: Refused,
        title: "the configuration or the build system itself is changed",
        why: "Kconfig files, the top Makefile and the architecture's Makefile decide about every object at once; the \
              result would be another kernel, not a patch of this one.",
        advice: "make the change in the source files themselves, or leave this part out (--leave-out FILE)",
    }
    LP6304 {
        class: Refused,
        title: "a file that others are generated from",
        why: "Linker scripts, tables, grammars, Rust sources, programs of the build and the rules of Makefiles are turned into other files, or \
              decide about addresses.",
        advice: "change the C source that uses the result",
    }
    LP6305 {
        class: Refused,
        title: "a generated header would change",
        why: "asm-offsets.h, bounds.h and the like hold sizes and offsets of structures, which all of the kernel was built with.",
        advice: "do not change the layout of structures; use shadow variables for new fields \
                 (docs/authors.md#a-new-field)",
    }
    LP6306 {
        class: Refused,
        title: "an object would leave the kernel or move",
        why: "A Makefile may bring new objects of vmlinux; it cannot take one out of the running kernel, nor put one \
              between kernel and module.",
        advice: "leave the change of that Makefile out (--leave-out FILE)",
    }
    LP6307 {
        class: Refused,
        title: "an object of several modules is changed",
        why: "Each of the modules has its own copy of the object's code and data (`modname` of scripts/Makefile.lib); a pair of \
              objects stands for one of them.",
        advice: "reload the fixed modules; or, if they can keep their old code, patch the rest with --leave-modules",
    }
}
