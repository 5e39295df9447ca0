//! LP20xx, LP21xx: changes and sites that cannot be live-patched.

use super::Severity::Refused;

codes! {
    LP2001 {
        class: Refused,
        title: "existing data changed",
        why: "A variable of the running kernel holds state; a new initial value in the object never reaches it, and code \
              that expects it would read the old one. A constant is carried as a copy by the functions that use it, but only \
              where every use of its address, before and after, is a read through it: an address that is stored, passed on, \
              returned or compared (operations of a file, as in file->f_op == &fops) tells the copy from the original, and \
              what the kernel keeps of it outlives the patch.",
        advice: "set the value from a pre-apply callback and put the old one back in post-revert (docs/authors.md#a-changed-default), or leave the \
                 data as it was; of operations, change the function a field leads to; a constant of the same size changes in its place when it \
                 is named in data = [..] (--data NAME)",
    }
    LP2002 {
        class: Refused,
        title: "existing data changed its size or kind",
        why: "The object lives in the running kernel with its old size and in its old place: new code would read or write past it, or \
              write to what is read-only since the boot (__ro_after_init, include/linux/cache.h; mark_rodata_ro).",
        advice: "add a new object beside the old one instead of reshaping it (docs/authors.md#a-table-entry)",
    }
    LP2003 {
        class: Refused,
        title: "init code or data changed",
        why: "__init code ran at boot and its memory is freed (init/main.c, free_initmem); a new version would never run. With a \
              kernel image, what lies between its __init_begin and __init_end counts, whatever its section is called. New \
              code must not refer to anything there either, nor to what a compared object has in .init or .exit \
              sections, unless the code it replaces does. __exit code of a module runs when it is removed, and is not replaced either.",
        advice: "repeat the effect in a pre-apply callback (callbacks alone are a patch) or in code that runs later, and leave its hunk out (build \
                 --leave-out FILE:HUNK); or reboot into the new kernel (docs/authors.md#an-init-only-change)",
    }
    LP2004 {
        class: Refused,
        title: "object files do not pair up",
        why: "An object exists only in one build, so it cannot be compared with its counterpart; or a module's file is the same in both \
              and the objects it is linked from are not, so that one of the two is not what was built.",
        advice: "give both builds the same set of objects; leave out the ones that were added or removed, or modules that were not linked again",
    }
    LP2005 {
        class: Refused,
        title: "registration changed",
        why: "Initcalls, parameters, exports, trace events and the like are walked once at boot or when a module is loaded \
              (include/asm-generic/vmlinux.lds.h); an entry added by a patch has no effect.",
        advice: "register from code, or leave the registration out of the patch (build --leave-out FILE:HUNK) (docs/authors.md#a-table-entry)",
    }
    LP2006 {
        class: Refused,
        title: "static variable cannot be told apart",
        why: "Several static variables of this name exist and the old and new ones cannot be paired with certainty; the \
              wrong pair would mix up their state. What tells them apart is the place of their declaration (debug \
              information; for `lpbuild diff` where the function has as many lines as before), or a reference from the same place of code that did not change around it.",
        advice: "leave a variable where it is declared; give a new one beside it a name of its own; compile both objects with -g, if \
                 they are not",
    }
    LP2007 {
        class: Refused,
        title: "code that must not be replaced",
        why: "noinstr, entry and kprobe-blacklisted code runs in the path of the int3 handler that guards the poke, or where \
              no handler can run at all (include/linux/compiler_types.h, kernel/kprobes.c); stop_machine and the stopper \
              threads carry out the switch itself. The same holds for what an int3 runs, what tracers run for that before they notice \
              that they are in themselves, and what a CPU runs before it has an IDT; these are found in the image.",
        advice: "have the callers that matter call a repaired function of another name, which the patch brings along; what an int3 or a tracer \
                 runs by itself (lpbuild explain --unpatchable IMAGE says who calls it) changes with another kernel only",
    }
    LP2008 {
        class: Refused,
        title: "ambiguous reference",
        why: "A section-relative reference can mean more than one object, and these lead to different places once the patch \
              is loaded.",
        advice: "compile both builds with -fdata-sections, which names every object (lpbuild build does); where the source names the section of \
                 a variable (DEFINE_PER_CPU, __read_mostly), let one function use the new one and another one what lies beside it",
    }
    LP2009 {
        class: Refused,
        title: "code or relocation not understood",
        why: "The bytes do not decode as x86-64 instructions, or a relocation is of a type the module loader does not know \
              (arch/x86/kernel/module.c).",
        advice: "leave this function as it was, and put what is new into one of its own that its callers use instead",
    }
    LP2010 {
        class: Refused,
        title: "pointer into the middle of a replaced function",
        why: "Data that stays in the kernel holds the address of an instruction of this function; after the switch it would \
              still lead into the old code.",
        advice: "leave this function as it was, and put what is new into one of its own that its callers use instead",
    }
    LP2011 {
        class: Refused,
        title: "special section not understood",
        why: "A table of instruction addresses has an unknown shape, so its entries for the carried code cannot be carried.",
        advice: "report the kernel version and the section; lpbuild needs to learn it",
    }
    LP2012 {
        class: Refused,
        title: "short jump cannot reach",
        why: "A two-byte jump leads to a function that is not carried beside this one, and no trampoline fits within its \
              reach of 127 bytes.",
        advice: "build both objects with -ffunction-sections",
    }
    LP2013 {
        class: Refused,
        title: "existing data removed",
        why: "The variable stays in the running kernel, and code outside this object or state it holds may go on using it; the \
              new code would no longer keep it up to date.",
        advice: "leave the variable in place in the patch",
    }
    LP2014 {
        class: Refused,
        title: "a callback is not a new function of the patch",
        why: "A callback is carried although nothing refers to it, so it must be one function that the patch adds to an object               it touches. The compiler drops a static function that nothing calls, and one that is in the old build belongs to               the running kernel.",
        advice: "add the function in the patch, not static, marked __used, or named by a macro of lpbuild.h \
                 (docs/authors.md#lpbuildh), with a name no other object has",
    }
    LP2015 {
        class: Refused,
        title: "type in use means something else",
        why: "The objects of this type that exist were made by the old code, and code that is not replaced goes on using them, \
              also after the patch is gone. New code that expects another layout reads and writes at the wrong places; a field \
              that is new, even in what was padding, has no value in them; a number that now has another name was stored as what \
              it was (Documentation/livepatch/shadow-vars.rst). Both layouts are shown near the difference.",
        advice: "keep what is there as it is: put new fields into a shadow variable \
                 (docs/authors.md#a-new-field), new numbers behind the others",
    }
    LP2016 {
        class: Refused,
        title: "a number that may be an address",
        why: "The linked image keeps no relocations. Most addresses are recognised by the instruction around them, but a number \
              equal to the offset of a per-CPU variable, or to the physical address of a symbol of the linker script, may be \
              either, and that place is not the same in both builds.",
        advice: "compare images linked with --emit-relocs (CONFIG_RANDOMIZE_BASE), vmlinux.o files, or the object files",
    }
    LP2017 {
        class: Refused,
        title: "the original of what is not replaced",
        why: "lp_original_NAME is the function NAME as it was before this patch, in new code of the patch that replaces it. This patch replaces no \
              function of this name, or several in other objects. A static function may have been inlined, or split by the \
              compiler under another name (NAME.isra.0).",
        advice: "call a function that is not replaced by its own name; compare with the functions the report says changed",
    }
    LP2018 {
        class: Refused,
        title: "the original cannot be called",
        why: "The instructions that the jump covers are executed elsewhere when the original is called, and one of these cannot \
              be: a call would leave an address on the stack that belongs to no function.",
        advice: "give the new function a copy of what it needs of the original, under another name",
    }
    LP2019 {
        class: Refused,
        title: "unpatched code calls it otherwise",
        why: "The new version of a function takes other parameters, or has another result, and somebody calls it who is not \
              replaced and does so as before: any module, when it is exported; whoever got its address; code of modules that \
              was left uncompared; objects that were not given. Or carried code calls a function otherwise that stays as it is. Both \
              prototypes are shown.",
        advice: "leave the function as it is and give the new parameter to a new function (docs/authors.md#an-exported-function); or compare all objects that call it",
    }
    LP2020 {
        class: Refused,
        title: "an inline function changed for only some of its users",
        why: "Each object has its own copy of an inline function of a header. Where one of them is patched and another is not, or \
              may not be, both versions run at once for as long as the patch is loaded.",
        advice: "compare all objects that have it (lpbuild build finds them by itself, docs/authors.md#an-inline-function-of-a-header); patch modules that have it as well",
    }
    LP2021 {
        class: Refused,
        title: "the kernel keeps an address of the patch",
        why: "What a patch carries is freed when it is unloaded. An address of it that new code stored in memory of the kernel, or \
              gave to a function that keeps it (a timer, work, a notifier, a list, operations, an RCU callback), is still there \
              then, and leads to freed memory. Before the module goes it is proven that no task is inside it, not that nobody \
              kept such an address (kernel/module/main.c, free_module). A task that sleeps in a function of the kernel counts \
              as inside only while a function of the patch is on its stack: not when the patch has jumped there, or returned.",
        advice: "take it back in a pre-revert or post-revert callback (docs/authors.md#what-the-kernel-keeps), or make the patch oneshot; where a function of the patch \
                 ends with a jump, let it do something behind the call",
    }
    LP2022 {
        class: Refused,
        title: "a name moved to another place",
        why: "Code outside the patch has the address that an alias, a weak function, a variable or a label of this name had when the \
              kernel was linked, or its number. A patch can give a function another body, but it cannot make one of its names lead \
              elsewhere, in it or in a table, and the other names must not follow. A label in the middle of a function that \
              is replaced leads into the old code, past the jump at its beginning. It is the same across objects: one that \
              begins to override a weak function or variable of another, or does so no longer; a definition for a weak \
              reference that found none. Of objects that are not compared the names of the kernel image tell.",
        advice: "leave the name where it is, and change the body of the function it stands for; or give the name a function of \
                 its own in the next kernel only; what is new needs another name",
    }
    LP2023 {
        class: Refused,
        title: "ids for BPF changed",
        why: "The ids of .BTF_ids are written when vmlinux is linked (resolve_btfids), and the kernel has given the functions and \
              flags of its sets to BPF as it booted (include/linux/btf_ids.h). A patch has no ids for new entries, and the \
              verifier goes on with the old sets.",
        advice: "leave the set as it was and check in the function what the flag would have made the verifier check",
    }
    LP2024 {
        class: Refused,
        title: "physical address of something the patch brings",
        why: "The physical address of a variable of the kernel is its address minus a number (__pa, \
              arch/x86/include/asm/page_64.h). The memory of modules is mapped page by page: what the patch brings lies \
              elsewhere, and the number would be the address of other memory.",
        advice: "take memory from the kernel (kmalloc, alloc_pages) when the patch is applied, or use a variable that the kernel \
                 already has",
    }
    LP2025 {
        class: Refused,
        title: "static key that the kernel has made read-only",
        why: "The module loader puts the jumps of a module on a list in the key (jump_label_add_module, kernel/jump_label.c). A key that \
              is read-only after init (DEFINE_STATIC_KEY_FALSE_RO) cannot be written any more: kernels before 6.10 fault there, newer ones \
              seal such keys and leave them out.",
        advice: "leave the function out of the patch, or change its caller",
    }
    LP2026 {
        class: Refused,
        title: "reference to a module that cannot wait for it",
        why: "The sections of a module lie wherever there was room when it was loaded (module_memory_alloc, kernel/module/main.c), and \
              what it does not export no module loader finds. Fields that refer to one are filled in by the patch itself whenever the \
              module comes. That is too late for what the loader reads or rewrites when the patch is loaded: alternatives \
              that refer to the module, and jump labels and static calls of keys of another one (those of its own, and so its \
              tracepoints, are handed to the kernel when it is here); for what the kernel keeps beyond \
              the module's going: static keys and per-CPU variables that the patch adds for it; and for what runs without it: callbacks, and code of the \
              kernel or of a module that does not import from it. What the patch adds for one module is not for another one.",
        advice: "do the same in another way (a plain variable for a key, memory from the kernel for a per-CPU variable); else reload the \
                 fixed module; or, if it can keep its old code, patch the kernel alone with --leave-modules",
    }
    LP2028 {
        class: Refused,
        title: "lpbuild.h used otherwise than it says",
        why: "What the macros of lpbuild.h leave in an object is read when the patch is built: marks that name callbacks and \
              addresses that are given back, and the declarations of shadow variables, whose names and sizes the runtime must \
              know before code of the patch runs. What is not as this lpbuild's own header makes it has a meaning that nobody \
              knows. The functions of the runtime can be called, and their addresses cannot be taken: where the kernel has IBT, an \
              indirect call of them would end in a trap.",
        advice: "use the macros, of the header of this lpbuild (`lpbuild header`); declare a shadow variable with the same type \
                 everywhere",
    }
    LP2030 {
        class: Refused,
        title: "constant that cannot change in its place",
        why: "A constant named in `data` gets its new content where it is, for everybody who reads it. That can be done with what the kernel \
              never writes, in the same number of bytes: the kernel's own read-only data, as an object that is compared has it. What it \
              holds must not lead into the middle of functions that are replaced, since the code that stays reads it as well.",
        advice: "take the name out of `data`, or write it as the object has it (a static local is NAME.1; path/file.o:NAME where several have it); a \
                 variable is changed by a callback (post-apply), which knows what it holds",
    }
    LP2031 {
        class: Refused,
        title: "a constant that changes in its place leads into the patch",
        why: "Whoever reads a pointer in it may keep it, and nothing shows when he has called it for the last time. So what it leads to must be \
              there when the patch is gone.",
        advice: "change the function that the entry names now: it is replaced, and its address stays; or let the patch stay until the next \
                 boot (oneshot = true, --oneshot)",
    }
    LP2101 {
        class: Refused,
        title: "no room for a jump",
        why: "The function is shorter than a jump, or branches lead between the instructions a jump would cover, or they \
              are rewritten by the kernel itself (alternatives, jump labels, static calls, paravirt).",
        advice: "have the callers that matter call a repaired function of another name, which the patch brings along; of a function that is \
                 called from everywhere, or by a pointer, the rest keeps the old one",
    }
    LP2102 {
        class: Refused,
        title: "the original cannot be entered in this mode",
        why: "In the modes drain and transition some callers still get the old function while the new one is in use. They run a \
              copy of the instructions that the jump covers, and one of these cannot be executed elsewhere: a call would leave \
              an address on the stack that belongs to no function.",
        advice: "use mode = \"stop-machine\" (--mode stop-machine), or leave the key out",
    }
}
