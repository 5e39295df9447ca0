//! What a section is, by its name and flags: the one place that knows the kernel's section names.
//!
//! Sources: include/asm-generic/vmlinux.lds.h, arch/x86/kernel/vmlinux.lds.S, arch/x86/kernel/module.c (6.1 to 6.12).

use crate::ingest::Section;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Code. The inner value says whether it may be replaced.
    Text(TextKind),
    /// Strings the linker merges (`.rodata.str*`): compared and carried by content.
    Strings,
    /// Constants the linker merges (`.rodata.cst*`): compared and carried by content.
    Constants,
    /// Read-only data.
    Rodata,
    /// Writable data.
    Data,
    /// Zeroed data.
    Bss,
    /// Per-CPU variables.
    Percpu,
    /// A table whose entries belong to instructions; carried entry by entry.
    Table(Table),
    /// Objects the kernel registers by walking the section at boot: a new or changed entry has no effect when loaded later.
    Registered,
    /// Init or exit data: gone once the kernel runs.
    InitData,
    /// Has no effect on running code; the value says why.
    Ignored(&'static str),
}

/// Kinds of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// Ordinary code.
    Normal,
    /// `__init` code: freed after boot.
    Init,
    /// `__exit` code: never runs in a built-in object.
    Exit,
    /// Replacement instructions of alternatives.
    AltReplacement,
    /// Code that no symbol names, reached by jumps of the function it belongs to (`_static_cpu_has`).
    AltAux,
    /// Static call trampolines (include/linux/static_call_types.h): rewritten by the kernel itself.
    StaticCallTrampoline,
    /// `noinstr`, entry and `__kprobes` code: on the path of the int3 handler or of the kprobe blacklist.
    Untouchable,
}

/// Tables of per-instruction entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `.altinstructions`: struct alt_instr.
    Alternatives,
    /// `.parainstructions`: struct paravirt_patch_site.
    Paravirt,
    /// `.smp_locks`: addresses of lock prefixes.
    SmpLocks,
    /// `.retpoline_sites`: indirect branches.
    Retpolines,
    /// `.return_sites`: jumps to the return thunk.
    Returns,
    /// `.call_sites`: direct calls, for call depth tracking.
    Calls,
    /// `.ibt_endbr_seal`: ENDBRs nothing in the linked object needs, so that the kernel may remove them. Which are, a
    /// single object cannot know: neither compared nor carried.
    EndbrSeal,
    /// `__bug_table`: struct bug_entry (WARN, BUG).
    Bugs,
    /// `__ex_table`: struct exception_table_entry.
    Exceptions,
    /// `__jump_table`: struct jump_entry.
    Jumps,
    /// `.static_call_sites`: struct static_call_site.
    StaticCalls,
    /// `__mcount_loc`: fentry sites.
    Fentry,
    /// `runtime_ptr_NAME`: 64-bit immediates that hold the variable NAME as it was at boot
    /// (arch/x86/include/asm/runtime-const.h).
    BootConstant,
    /// `runtime_shift_NAME`: the same for shift counts.
    BootShift,
    /// `.orc_unwind_ip`, parallel to `.orc_unwind`.
    OrcIp,
    /// `.orc_unwind`: struct orc_entry.
    Orc,
}

impl Table {
    /// All of them, with their section names.
    pub const NAMES: &'static [(&'static str, Table)] = &[
        (".altinstructions", Table::Alternatives),
        (".parainstructions", Table::Paravirt),
        (".smp_locks", Table::SmpLocks),
        (".retpoline_sites", Table::Retpolines),
        (".return_sites", Table::Returns),
        (".call_sites", Table::Calls),
        (".ibt_endbr_seal", Table::EndbrSeal),
        ("__bug_table", Table::Bugs),
        ("__ex_table", Table::Exceptions),
        ("__jump_table", Table::Jumps),
        (".static_call_sites", Table::StaticCalls),
        ("__mcount_loc", Table::Fentry),
        (".orc_unwind_ip", Table::OrcIp),
        (".orc_unwind", Table::Orc),
    ];

    /// The table a section is, by its name.
    pub fn named(section: &str) -> Option<Self> {
        let exact = Self::NAMES.iter().find(|(n, _)| *n == section).map(|(_, t)| *t);
        let by_prefix = Self::PREFIXES.iter().find(|(p, _)| section.starts_with(p)).map(|(_, t)| *t);
        exact.or(by_prefix)
    }

    /// Tables of which there is one for each variable: the rest of the section's name is the variable's.
    pub const PREFIXES: &'static [(&'static str, Table)] =
        &[("runtime_ptr_", Table::BootConstant), ("runtime_shift_", Table::BootShift)];

    /// Entry sizes seen in kernels, in bytes.
    pub fn strides(self) -> &'static [u64] {
        match self {
            // 6.3 widened cpuid into cpuid and flags.
            Table::Alternatives => &[12, 14],
            Table::Paravirt => &[16],
            Table::SmpLocks | Table::Retpolines | Table::Returns | Table::Calls | Table::EndbrSeal | Table::OrcIp => {
                &[4]
            }
            Table::BootConstant | Table::BootShift => &[4],
            // 8 without CONFIG_DEBUG_BUGVERBOSE.
            Table::Bugs => &[12, 8],
            Table::Exceptions => &[12],
            Table::Jumps => &[16],
            Table::StaticCalls | Table::Fentry => &[8],
            Table::Orc => &[6],
        }
    }
}

/// Classifies a section of a kernel object.
pub fn classify(section: &Section) -> Class {
    let name = section.name.as_str();
    if name.starts_with(".discard.") {
        return Class::Ignored("annotation for objtool, discarded by the linker");
    }
    if !section.is_alloc() {
        return Class::Ignored("not part of the running kernel");
    }
    if let Some(table) = Table::named(name) {
        return Class::Table(table);
    }
    if section.is_exec() {
        return Class::Text(text_kind(name));
    }
    match name {
        ".modinfo" => return Class::Ignored("module information of a built-in object"),
        ".printk_index" => return Class::Ignored("index of printk formats, for debugfs only"),
        // On x86 fentry sites are in __mcount_loc; the linker script drops this list of where padding begins.
        "__patchable_function_entries" => return Class::Ignored("places of call padding, discarded by the linker"),
        ".BTF" => return Class::Ignored("types for BPF"),
        "__versions" => return Class::Ignored("versions of what a module imports"),
        ".gnu.linkonce.this_module" => return Class::Ignored("the module itself, made by modpost"),
        ".BTF_ids" => return Class::Ignored("filled in when vmlinux is linked"),
        ".static_call_tramp_key" | ".orc_lookup" | ".orc_header" => {
            return Class::Ignored("made when vmlinux is linked");
        }
        _ => {}
    }
    if name.starts_with("___kcrctab") || name.starts_with("__kcrctab") || name.starts_with(".note") {
        return Class::Ignored("checksums and notes");
    }
    if name == "__ksymtab_strings" {
        return Class::Strings;
    }
    if is_registered(name) {
        return Class::Registered;
    }
    if name.starts_with(".init.") || name.starts_with(".meminit.") || name.starts_with(".exit.") {
        return Class::InitData;
    }
    if name.starts_with(".data..percpu") {
        return Class::Percpu;
    }
    if section.is_merge() {
        // String sections hold one string after another; the others entries of `entsize` bytes.
        let strings = section.flags & object::elf::SHF_STRINGS.0 != 0;
        return if strings { Class::Strings } else { Class::Constants };
    }
    if section.kind == object::elf::SHT_NOBITS.0 {
        return Class::Bss;
    }
    if section.is_write() { Class::Data } else { Class::Rodata }
}

fn text_kind(name: &str) -> TextKind {
    match name {
        ".altinstr_replacement" => TextKind::AltReplacement,
        ".altinstr_aux" => TextKind::AltAux,
        ".noinstr.text" | ".entry.text" | ".kprobes.text" | ".cpuidle.text" | ".irqentry.text"
        | ".softirqentry.text" | ".head.text" | ".head64.text" | ".inittext" => TextKind::Untouchable,
        _ if name.starts_with(".noinstr.text") || name.starts_with(".entry.") => TextKind::Untouchable,
        _ if name.starts_with(".static_call.text") => TextKind::StaticCallTrampoline,
        _ if name.starts_with(".init.text") || name.starts_with(".meminit.text") => TextKind::Init,
        _ if name.starts_with(".exit.text") || name.starts_with(".memexit.text") => TextKind::Exit,
        _ => TextKind::Normal,
    }
}

/// Sections the kernel walks once: initcalls, parameters, exports, trace events, syscall metadata, kprobe blacklist ...
fn is_registered(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        ".initcall",
        ".con_initcall",
        ".init.setup",
        "___ksymtab",
        ".export_symbol",
        "__ksymtab",
        "__param",
        "__modver",
        "__tracepoints_ptrs",
        "_ftrace_events",
        "_ftrace_eval_map",
        "__syscalls_metadata",
        "_kprobe_blacklist",
        "_error_injection_whitelist",
        "__bpf_raw_tp_map",
        "__tracepoint_str",
        ".pci_fixup",
        ".rela.dyn",
        "__irqchip",
        "__earlycon",
        ".kunit_test_suites",
        ".builtin_fw",
        "__clk_of_table",
        "__reservedmem_of_table",
        "__timer_of_table",
        ".x86_cpu_dev.init",
        ".x86_intel_mid_dev",
        ".iommu_table",
        ".apicdrivers",
        "__lsm_info",
        ".lsm_info",
        ".early_lsm_info",
        "__dtb",
        ".dtb",
        "__thermal_table",
        "__governor_thermal_table",
        ".ctors",
        ".init_array",
        "__sched_class",
        "__stop_sched",
        "__kentry",
    ];
    PREFIXES.iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, flags: u64) -> Section {
        Section {
            name: name.into(),
            kind: object::elf::SHT_PROGBITS.0,
            flags,
            align: 1,
            entsize: 0,
            size: 0,
            data: vec![],
            relocs: vec![],
        }
    }

    #[test]
    fn names_of_function_sections_are_code() {
        for name in [".text", ".text.foo", ".text.unlikely", ".text.unlikely.foo", ".sched.text", ".ref.text"] {
            assert_eq!(classify(&section(name, 6)), Class::Text(TextKind::Normal), "{name}");
        }
        assert_eq!(classify(&section(".init.text", 6)), Class::Text(TextKind::Init));
        assert_eq!(classify(&section(".noinstr.text", 6)), Class::Text(TextKind::Untouchable));
        assert_eq!(classify(&section(".initcall4.init", 2)), Class::Registered);
        assert_eq!(classify(&section("runtime_ptr_USER_PTR_MAX", 2)), Class::Table(Table::BootConstant));
    }
}
