//! What a section is, by its name and flags. Names that mean something are in [`known_sections`].
//!
//! Sources: include/asm-generic/vmlinux.lds.h, arch/x86/kernel/vmlinux.lds.S, arch/x86/kernel/module.c (6.1 to 6.12).

use object::elf;

use super::known_sections::{self, Fate};
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
    /// Sets of BTF ids (`.BTF_ids`): zeroes until vmlinux is linked; what an entry is, its symbol says.
    Ids,
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
            // 16 with a format (since 6.19), 8 without CONFIG_DEBUG_BUGVERBOSE.
            Table::Bugs => &[12, 16, 8],
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
    let known = known_sections::find(name);
    // What a linker script collects by its name is part of the kernel whatever its flags are; a table of symbols or
    // relocations is not.
    let contents = matches!(
        section.kind,
        k if k == elf::SHT_PROGBITS.0
            || k == elf::SHT_NOBITS.0
            || k == elf::SHT_INIT_ARRAY.0
            || k == elf::SHT_FINI_ARRAY.0
            || k == elf::SHT_PREINIT_ARRAY.0
    );
    match known.map(|k| (k.fate, k.why)) {
        Some((Fate::Dropped | Fate::Shown | Fate::Unsupported, why)) => return Class::Ignored(why),
        Some((Fate::Walked, _)) if contents => return Class::Registered,
        Some((Fate::Ids, _)) if contents => return Class::Ids,
        _ => {}
    }
    if !section.is_alloc() {
        return Class::Ignored(NOT_LOADED);
    }
    match known.map(|k| k.fate) {
        Some(Fate::Entries(table)) => return Class::Table(table),
        Some(Fate::Init) if !section.is_exec() => return Class::InitData,
        _ => {}
    }
    // Arrays of constructors under another name than their own.
    if [elf::SHT_INIT_ARRAY.0, elf::SHT_FINI_ARRAY.0, elf::SHT_PREINIT_ARRAY.0].contains(&section.kind) {
        return Class::Registered;
    }
    if section.kind == elf::SHT_NOTE.0 && known.is_none() {
        return Class::Registered;
    }
    if section.is_exec() {
        return Class::Text(text_kind(name));
    }
    if name.starts_with(".data..percpu") {
        return Class::Percpu;
    }
    // The linker merges sections of one name; entries of a list stay what they are.
    if section.is_merge() && !known_sections::is_list(name) {
        // String sections hold one string after another; the others entries of `entsize` bytes.
        let strings = section.flags & elf::SHF_STRINGS.0 != 0;
        return if strings || name == "__ksymtab_strings" { Class::Strings } else { Class::Constants };
    }
    if name == "__ksymtab_strings" {
        return Class::Strings;
    }
    if section.kind == elf::SHT_NOBITS.0 {
        return Class::Bss;
    }
    if section.is_write() { Class::Data } else { Class::Rodata }
}

/// Why a section that is not loaded does not count.
pub const NOT_LOADED: &str = "not part of the running kernel";

fn text_kind(name: &str) -> TextKind {
    match name {
        ".altinstr_replacement" => TextKind::AltReplacement,
        ".altinstr_aux" => TextKind::AltAux,
        ".noinstr.text" | ".entry.text" | ".kprobes.text" | ".cpuidle.text" | ".irqentry.text"
        | ".softirqentry.text" | ".head.text" | ".head64.text" | ".inittext" => TextKind::Untouchable,
        _ if name.starts_with(".noinstr.text") || name.starts_with(".entry.") => TextKind::Untouchable,
        _ if name.starts_with(".static_call.text") => TextKind::StaticCallTrampoline,
        _ if name.starts_with(".init.text") => TextKind::Init,
        _ if name.starts_with(".exit.text") => TextKind::Exit,
        _ => TextKind::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, flags: u64) -> Section {
        Section {
            name: name.into(),
            kind: elf::SHT_PROGBITS.0,
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
        assert_eq!(classify(&section(".meminit.text", 6)), Class::Text(TextKind::Normal));
        assert_eq!(classify(&section(".meminit.data", 3)), Class::Data);
        assert_eq!(classify(&section(".init.data", 3)), Class::InitData);
        assert_eq!(classify(&section(".noinstr.text", 6)), Class::Text(TextKind::Untouchable));
        assert_eq!(classify(&section(".initcall4.init", 2)), Class::Registered);
        assert_eq!(classify(&section("runtime_ptr_USER_PTR_MAX", 2)), Class::Table(Table::BootConstant));
    }

    #[test]
    fn flags_do_not_hide_what_a_name_means() {
        const ALLOC: u64 = 2;
        const WRITE: u64 = 3;
        const MERGE: u64 = 0x12;
        const MERGE_STRINGS: u64 = 0x32;
        let class = |name: &str, flags: u64| classify(&section(name, flags));
        assert_eq!(class(".BTF_ids", ALLOC), Class::Ids);
        assert_eq!(class("__dyndbg", WRITE), Class::Data);
        assert_eq!(class("__trace_printk_fmt", WRITE), Class::Data);
        assert_eq!(class(".initcall4.init", 0), Class::Registered, "a linker script collects it");
        assert_eq!(class(".comment", 0x30), Class::Ignored(NOT_LOADED));
        assert_eq!(class("my_strings", MERGE_STRINGS), Class::Rodata, "a list is not merged away");
        assert_eq!(class(".rodata.str1.8", MERGE_STRINGS), Class::Strings);
        assert_eq!(class(".rodata.cst16", MERGE), Class::Constants);
        assert_eq!(class(".init.data", WRITE), Class::InitData);
        assert_eq!(class(".init.text", 6), Class::Text(TextKind::Init));
        let typed = |name: &str, kind: u32| classify(&Section { kind, ..section(name, ALLOC) });
        assert_eq!(typed("my_constructors", elf::SHT_INIT_ARRAY.0), Class::Registered);
        assert_eq!(typed("my_notes", elf::SHT_NOTE.0), Class::Registered);
        assert!(matches!(typed(".note.Xen", elf::SHT_NOTE.0), Class::Ignored(_)));
    }
}
