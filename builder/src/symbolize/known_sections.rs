//! Sections that mean something by their name: what becomes of what a patch has in them, and why.
//!
//! [`KNOWN`] is the one table. It covers every name the module loader looks for (`find_module_sections` and its neighbours,
//! kernel/module/main.c; `module_finalize`, arch/x86/kernel/module.c), which a test of the `tests` crate compares with the
//! sources of the kernels it finds, and the names by which the linker script of vmlinux collects lists
//! (include/asm-generic/vmlinux.lds.h, arch/x86/kernel/vmlinux.lds.S). A section that is not here and has no name of ordinary
//! code or data is a list somebody may walk ([`is_list`]): whatever differs in it is refused.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::sections::Table;

/// Where modpost puts `struct module`, of the name `__this_module`.
pub const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// What becomes of the contents of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its entries belong to instructions and are carried with them, under the name of the section.
    Entries(Table),
    /// Its objects are carried under the name of the section, and the module loader does for them what was done for the
    /// kernel's own at boot.
    Carried,
    /// Only a place for code or data, which is carried or refused for what it is.
    Place,
    /// Sets of BTF ids, which are filled in when vmlinux is linked; carried code uses those of the kernel.
    Ids,
    /// The kernel walks it once, at boot or when a module is loaded: what is new or changed there is refused.
    Walked,
    /// Init or exit data.
    Init,
    /// What it says about carried code cannot be carried: objects that have it are refused.
    Unsupported,
    /// Nothing that runs reads it.
    Dropped,
    /// Shown to whoever asks and without effect; a difference is reported.
    Shown,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Name of the section; with `*` behind it, of all that begin so.
    pub name: &'static str,
    /// What becomes of its contents.
    pub fate: Fate,
    /// Why.
    pub why: &'static str,
}

const fn known(name: &'static str, fate: Fate, why: &'static str) -> Known {
    Known { name, fate, why }
}

/// The entry for a section; a whole name goes before the beginning of one, a longer beginning before a shorter one.
pub fn find(section: &str) -> Option<&'static Known> {
    static BY_NAME: OnceLock<FxHashMap<&'static str, &'static Known>> = OnceLock::new();
    /// The first letters of a beginning and which of them there are, the beginning, and its entry.
    type Beginning = (u32, u32, &'static str, &'static Known);
    static BEGINNINGS: OnceLock<Vec<Beginning>> = OnceLock::new();
    // Asked of every section, and of many things that lie in one. The first of a name counts.
    let by_name = BY_NAME.get_or_init(|| KNOWN.iter().rev().map(|k| (k.name, k)).collect());
    if let Some(exact) = by_name.get(section) {
        return Some(exact);
    }
    let beginnings = BEGINNINGS.get_or_init(|| {
        let stems = KNOWN.iter().filter_map(|k| Some((k.name.strip_suffix('*')?, k)));
        let mut all: Vec<Beginning> =
            stems.map(|(stem, k)| (first_letters(stem), which_letters(stem), stem, k)).collect();
        // The longest first; of equal ones, which there are none of, the last.
        all.reverse();
        all.sort_by_key(|(_, _, stem, _)| std::cmp::Reverse(stem.len()));
        all
    });
    // Most differ in the first letters.
    let own = first_letters(section);
    let found = beginnings.iter().find(|(first, which, stem, _)| own & which == *first && section.starts_with(stem));
    found.map(|(_, _, _, known)| *known)
}

/// The first four bytes of a name, zeroes behind a shorter one.
fn first_letters(name: &str) -> u32 {
    let mut letters = [0; 4];
    letters.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    u32::from_le_bytes(letters)
}

/// All bits of those that a name has.
fn which_letters(name: &str) -> u32 {
    let mut which = [0; 4];
    which.iter_mut().take(name.len()).for_each(|to| *to = u8::MAX);
    u32::from_le_bytes(which)
}

/// The name under which data of this section is carried, if the module loader looks for it.
pub fn carried_as(section: &str) -> Option<&'static str> {
    find(section).filter(|k| k.fate == Fate::Carried).map(|k| k.name)
}

/// A section of its own name, whose entries somebody may walk from one end to the other: the linker defines `__start_NAME` and
/// `__stop_NAME`, or a linker script collects it.
pub fn is_list(section: &str) -> bool {
    find(section).is_none() && !ORDINARY.iter().any(|p| begins_with(section, p))
}

/// May code refer to `__start_NAME` without anybody having written a linker script?
pub fn has_bounds(section: &str) -> bool {
    let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    section.chars().all(word) && !section.starts_with(|c: char| c.is_ascii_digit())
}

/// A section that is not loaded by its flags, under a name that no tool gives to what only tools read: a linker script can make
/// it part of the kernel all the same.
pub fn may_be_collected(section: &str) -> bool {
    is_list(section) && !TOOLS.iter().any(|p| section.starts_with(p))
}

fn begins_with(section: &str, base: &str) -> bool {
    section.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || base.ends_with('.'))
}

/// Names of ordinary code and data (`TEXT_MAIN`, `DATA_MAIN`, `SDATA_MAIN`, `BSS_MAIN` and their like), alone or with a dot and
/// more behind them.
const ORDINARY: &[&str] = &[
    ".text",
    ".rodata",
    ".rodata1",
    ".data",
    ".data1",
    ".bss",
    ".ref.text",
    ".ref.data",
    ".ref.rodata",
    ".sched.text",
    ".spinlock.text",
    ".fixup",
    ".ltext",
    ".lrodata",
    ".ldata",
    ".lbss",
    ".sdata",
    ".sbss",
    ".dynbss",
    ".brk",
    ".brk_reservation",
    ".bss_decrypted",
    ".data_nosave",
    ".vvar",
    ".head.data",
];

/// What compilers, assemblers and debuggers leave for tools.
const TOOLS: &[&str] = &[
    ".debug",
    ".zdebug",
    ".gdb",
    ".stab",
    ".line",
    ".comment",
    ".GCC.",
    ".gnu.",
    ".llvm",
    ".eh_frame",
    ".gcc_except_table",
    ".group",
    ".symtab",
    ".strtab",
    ".shstrtab",
    ".rel",
    ".crel",
    ".annobin",
    ".SUNW",
    ".lpbuild",
];

use Fate::{Carried, Dropped, Entries, Ids, Init, Place, Shown, Unsupported, Walked};

/// The table. Names of the module loader first.
pub const KNOWN: &[Known] = &[
    // Tables of instructions: read by the module loader, or by objtool's part of it.
    known(".altinstructions", Entries(Table::Alternatives), "struct alt_instr, applied by module_finalize"),
    known(
        ".parainstructions",
        Entries(Table::Paravirt),
        "struct paravirt_patch_site, applied by module_finalize to 6.7",
    ),
    known(".smp_locks", Entries(Table::SmpLocks), "lock prefixes, kept by module_finalize"),
    known(".retpoline_sites", Entries(Table::Retpolines), "indirect branches, applied by module_finalize"),
    known(".return_sites", Entries(Table::Returns), "returns, applied by module_finalize"),
    known(".call_sites", Entries(Table::Calls), "calls, for call depth tracking"),
    known(".ibt_endbr_seal", Entries(Table::EndbrSeal), "not carried: without it an ENDBR stays"),
    known("__bug_table", Entries(Table::Bugs), "struct bug_entry, registered by module_bug_finalize"),
    known("__ex_table", Entries(Table::Exceptions), "struct exception_table_entry"),
    known("__jump_table", Entries(Table::Jumps), "struct jump_entry"),
    known(".static_call_sites", Entries(Table::StaticCalls), "struct static_call_site"),
    known("__mcount_loc", Entries(Table::Fentry), "fentry sites"),
    known(".orc_unwind_ip", Entries(Table::OrcIp), "addresses of unwind entries"),
    known(".orc_unwind", Entries(Table::Orc), "unwind entries"),
    known(
        "runtime_ptr_*",
        Entries(Table::BootConstant),
        "written at boot, for the image only: carried code loads the variable",
    ),
    known("runtime_shift_*", Entries(Table::BootShift), "written at boot, for the image only"),
    known(".cfi_sites", Unsupported, "preambles of kernel control flow integrity (clang): rewritten at boot"),
    known(".kcfi_traps", Unsupported, "traps of kernel control flow integrity (clang)"),
    // Data the module loader registers.
    known("__dyndbg", Carried, "struct _ddebug: in dynamic_debug/control as of the patch's module"),
    known(
        "__trace_printk_fmt",
        Carried,
        "formats of trace_printk: copied by the loader, so that the trace outlives the module",
    ),
    known(".data..percpu", Place, "the loader gives a module its own per-CPU area"),
    known(".data..percpu*", Place, "the same; how it is aligned inside the kernel's area does not matter in a module"),
    known(
        ".data..ro_after_init*",
        Place,
        "a new variable is carried as a writable one; a change of the kind is refused",
    ),
    known(".noinstr.text*", Place, "code on the path of the int3 handler: never replaced, never carried"),
    known(".kprobes.text*", Place, "code that kprobes must not touch: never replaced, never carried"),
    known(".init.text*", Place, "code that ran at boot"),
    known(".exit.text*", Place, "code that never runs in a built-in object"),
    known(".meminit.text*", Place, "code; whether it is gone after the start, the image's init range says"),
    known(".memexit.text*", Place, "code; whether it is gone after the start, the image's init range says"),
    known(".entry*", Place, "entry code: never replaced"),
    known(".cpuidle.text*", Place, "code the idle loop is in: never replaced"),
    known(".irqentry.text*", Place, "interrupt entry code: never replaced"),
    known(".softirqentry.text*", Place, "interrupt entry code: never replaced"),
    known(".head.text*", Place, "code that ran before there were page tables"),
    known(".head64.text", Place, "code that ran before there were page tables"),
    known(".inittext", Place, "code of the decompressor"),
    known(".static_call.text*", Place, "trampolines of static calls: the kernel writes them"),
    known(".altinstr_replacement", Place, "carried with the alternative"),
    known(".altinstr_aux", Place, "carried with the function that jumps there"),
    known(".init.*", Init, "freed once the kernel runs"),
    known(".meminit.*", Place, "data; whether it is gone after the start, the image's init range says"),
    known(".memexit.*", Place, "data; whether it is gone after the start, the image's init range says"),
    known(".exit.*", Init, "never used in a built-in object"),
    known(".exitcall.exit", Dropped, "a built-in object never exits"),
    known(".BTF_ids", Ids, "filled in by resolve_btfids when vmlinux is linked (include/linux/btf_ids.h)"),
    // Lists the module loader registers, which objects of the kernel image have for its boot.
    known("__param*", Walked, "parameters"),
    known("__obsparm*", Walked, "parameters of old modules"),
    known("__modver*", Walked, "versions of built-in modules"),
    known("__ksymtab*", Walked, "exported symbols"),
    known("___ksymtab*", Walked, "exported symbols"),
    known(".export_symbol*", Walked, "exported symbols, read by modpost"),
    known("__kflagstab*", Walked, "flags of exported symbols"),
    known("___kflagstab*", Walked, "flags of exported symbols"),
    known("__ksymtab_strings", Place, "names of exported symbols; what refers to them is refused"),
    known(".ctors*", Walked, "constructors"),
    known(".init_array*", Walked, "constructors"),
    known(".preinit_array*", Walked, "constructors"),
    known(".fini_array*", Dropped, "destructors, discarded by the linker"),
    known(".dtors*", Dropped, "destructors, discarded by the linker"),
    known("__tracepoints_ptrs*", Walked, "tracepoints"),
    known("__tracepoints", Place, "struct tracepoint: registered by __tracepoints_ptrs"),
    known("__tracepoints_strings", Place, "names of tracepoints"),
    known("__tracepoint_str*", Walked, "strings of tracepoints, shown as printk_formats"),
    known(
        "___srcu_struct_ptrs*",
        Walked,
        "SRCU domains of a module; an object of the image has none (include/linux/srcutree.h)",
    ),
    known("__bpf_raw_tp_map*", Walked, "raw tracepoints for BPF"),
    known("_ftrace_events*", Walked, "trace events"),
    known("_ftrace_eval_map*", Walked, "names of enumerators in trace events"),
    known("_ftrace_annotated_branch", Place, "counters of branches; those of carried code are not shown"),
    known("_ftrace_branch", Place, "counters of branches; those of carried code are not shown"),
    known("_error_injection_whitelist*", Walked, "functions that may fail on request"),
    known("_kprobe_blacklist*", Walked, "functions that kprobes must not touch"),
    known(".kunit_test_suites*", Walked, "test suites"),
    known(".kunit_init_test_suites*", Walked, "test suites that run at boot"),
    known("__dyndbg_class*", Walked, "classes of debug messages"),
    known("alloc_tags*", Walked, "places of allocation, counted by CONFIG_MEM_ALLOC_PROFILING"),
    known(".codetag.*", Walked, "places of code that are counted, in modules"),
    known(".klp.*", Walked, "parts of the kernel's own live patches"),
    known(".printk_index", Shown, "index of printk formats, for debugfs only"),
    known(".modinfo*", Dropped, "module information of a built-in object, in modules.builtin.modinfo"),
    known("__versions", Dropped, "versions of what a module imports"),
    known("__version_ext_crcs", Dropped, "versions of what a module imports"),
    known("__version_ext_names", Dropped, "names of what a module imports"),
    known(THIS_MODULE, Dropped, "the module itself, made by modpost"),
    known("__kcrctab*", Dropped, "checksums of exported symbols"),
    known("___kcrctab*", Dropped, "checksums of exported symbols"),
    known(".BTF", Dropped, "types for BPF, made when vmlinux is linked"),
    known(".BTF.base", Dropped, "types for BPF, made when a module is linked"),
    // On x86 fentry sites are in __mcount_loc; the linker script drops this list of where padding begins.
    known("__patchable_function_entries", Dropped, "places of call padding, discarded by the linker"),
    known(".static_call_tramp_key", Dropped, "made when vmlinux is linked"),
    known(".orc_lookup", Dropped, "made when vmlinux is linked"),
    known(".orc_header", Dropped, "says which objtool made the unwind entries, to tools"),
    known(".discard", Dropped, "annotation for objtool, discarded by the linker"),
    known(".discard.*", Dropped, "annotation for objtool, discarded by the linker"),
    known(".debug*", Dropped, "debug information, not loaded"),
    known(".note", Dropped, "notes"),
    known(".note.*", Dropped, "notes"),
    known(".notes", Dropped, "notes"),
    known(".eh_frame*", Dropped, "unwind tables of the compiler, discarded by the linker"),
    // Lists that only the kernel image has.
    known(".initcall*", Walked, "initcalls"),
    known(".con_initcall*", Walked, "initcalls of consoles"),
    known(".init.setup*", Walked, "parameters of the command line"),
    known("__syscalls_metadata*", Walked, "system calls, for tracing"),
    known(".pci_fixup*", Walked, "quirks of PCI devices"),
    known(".rela.dyn", Walked, "relocations of the image"),
    known("__irqchip*", Walked, "interrupt controllers"),
    known("__earlycon*", Walked, "early consoles"),
    known(".builtin_fw*", Walked, "built-in firmware"),
    known("__clk_of_table*", Walked, "clocks of the device tree"),
    known("__reservedmem_of_table*", Walked, "reserved memory of the device tree"),
    known("__timer_of_table*", Walked, "timers of the device tree"),
    known("__timer_acpi_probe_table*", Walked, "timers of ACPI"),
    known(".x86_cpu_dev.init*", Walked, "vendors of CPUs"),
    known(".x86_intel_mid_dev*", Walked, "Intel MID platforms"),
    known(".iommu_table*", Walked, "IOMMUs"),
    known(".apicdrivers*", Walked, "drivers of APICs"),
    known("__lsm_info*", Walked, "security modules"),
    known(".lsm_info*", Walked, "security modules"),
    known(".early_lsm_info*", Walked, "security modules"),
    known("__dtb*", Walked, "device trees"),
    known(".dtb*", Walked, "device trees"),
    known("__thermal_table*", Walked, "thermal governors"),
    known("__governor_thermal_table*", Walked, "thermal governors"),
    known("__sched_class*", Walked, "scheduling classes, by their place"),
    known("__stop_sched*", Walked, "scheduling classes, by their place"),
    known("__kentry*", Walked, "entries of kentry"),
    known("___kentry*", Walked, "entries of kentry"),
    known(".tracedata", Shown, "places of TRACE_RESUME, named after a resume that failed"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_decides() {
        let fate = |name: &str| find(name).map(|k| k.fate);
        assert_eq!(fate("__ksymtab_strings"), Some(Place));
        assert_eq!(fate("__ksymtab_gpl"), Some(Walked));
        assert_eq!(fate("___ksymtab_gpl+unlock_page"), Some(Walked));
        assert_eq!(fate("__dyndbg"), Some(Carried));
        assert_eq!(fate("__dyndbg_classes"), Some(Walked));
        assert_eq!(fate(".init.text.setup"), Some(Place));
        assert_eq!(fate(".init.setup"), Some(Walked));
        assert_eq!(fate(".init.rodata"), Some(Init));
        assert_eq!(fate(".init_array.00100"), Some(Walked));
        assert_eq!(fate(".kunit_init_test_suites"), Some(Walked));
        assert_eq!(fate("runtime_ptr_USER_PTR_MAX"), Some(Entries(Table::BootConstant)));
        assert_eq!(fate(".notebook"), None);
        assert_eq!(carried_as("__trace_printk_fmt"), Some("__trace_printk_fmt"));
        assert_eq!(carried_as(".printk_index"), None);
    }

    #[test]
    fn an_unknown_name_is_a_list() {
        for name in
            ["my_table", ".my_table", "rodata", ".rodatax", ".data_table", ".notebook", "__tracepoints2", ".bss2"]
        {
            assert!(is_list(name), "{name}");
        }
        for name in [
            ".text",
            ".text.foo",
            ".text..lpbuild",
            ".rodata",
            ".rodata.str1.8",
            ".rodata..L0",
            ".data.rel.ro.local",
            ".data..once",
            ".data..read_mostly",
            ".bss..page_aligned",
            ".ref.data",
            ".data.foo",
            "__tracepoints",
            ".smp_locks",
            ".note.Xen",
        ] {
            assert!(!is_list(name), "{name}");
        }
        assert!(has_bounds("my_table") && !has_bounds(".my_table") && !has_bounds("..strange") && !has_bounds("1st"));
        assert!(may_be_collected("quiet") && !may_be_collected(".debug_info") && !may_be_collected(".comment"));
    }

    #[test]
    fn every_entry_says_why_and_none_is_there_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for k in KNOWN {
            assert!(seen.insert(k.name) && !k.why.is_empty(), "{}", k.name);
        }
    }
}
