//! The stretches of a linked image that were sections of their own in the objects.
//!
//! The linker script gathers them into few output sections, and puts symbols around those somebody has to find again
//! (include/asm-generic/vmlinux.lds.h, arch/x86/kernel/vmlinux.lds.S). An *area* has the name the object files give such a
//! section, so that one classification serves both forms.

use std::borrow::Cow;

use crate::ingest::Section;
use crate::symbolize::{Class, TextKind, classify};

/// A section, or a part of one that has a meaning of its own.
#[derive(Debug)]
pub struct Area<'d> {
    /// Its name in object files.
    pub name: String,
    /// What it is.
    pub class: Class,
    /// Link-time address; made up for relocatable files.
    pub addr: u64,
    /// Bytes in memory.
    pub size: u64,
    /// Bytes in the file; none for `.bss`.
    pub data: Cow<'d, [u8]>,
    /// `SHT_*`
    pub kind: u32,
    /// `SHF_*`
    pub flags: u64,
    /// Entry size in bytes, 0 when there is none.
    pub entsize: u64,
    /// Alignment in bytes.
    pub align: u64,
}

impl<'d> Area<'d> {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.addr + self.size
    }
    /// Does it hold the address?
    pub fn contains(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.addr) < self.size
    }
    /// Code that is decoded in its own right?
    pub fn is_code(&self) -> bool {
        matches!(self.class, Class::Text(kind) if kind != TextKind::AltReplacement)
    }
    /// Data whose content counts?
    pub fn is_data(&self) -> bool {
        matches!(
            self.class,
            Class::Rodata | Class::Data | Class::Bss | Class::Percpu | Class::InitData | Class::Registered
        )
    }
    /// `len` bytes at `addr`.
    pub fn bytes(&self, addr: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(addr.checked_sub(self.addr)?).ok()?;
        self.data.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
    fn classified(mut self) -> Self {
        self.class = class_of(&self.as_section(false));
        self
    }

    /// The same as a section of an object, with a copy of the contents if wanted.
    pub fn as_section(&self, contents: bool) -> Section {
        Section {
            name: self.name.clone(),
            kind: self.kind,
            flags: self.flags,
            align: self.align.max(1),
            entsize: self.entsize,
            size: self.size,
            data: if contents { self.data.to_vec() } else { Vec::new() },
            relocs: Vec::new(),
        }
    }
}

/// The class of a section of an image.
pub fn class_of(section: &Section) -> Class {
    match classify(section) {
        // They are filled in: what they were made of is no longer there (`kfuncs` compares what is).
        Class::Ids => Class::Ignored("filled in when vmlinux is linked"),
        class => class,
    }
}

/// Symbol at the start, symbol at the end, name of the section in object files. Later ones lie inside earlier ones.
const MARKERS: &[(&str, &str, &str)] = &[
    ("__start_ro_after_init", "__end_ro_after_init", ".data..ro_after_init"),
    ("__start___jump_table", "__stop___jump_table", "__jump_table"),
    ("__start_static_call_sites", "__stop_static_call_sites", ".static_call_sites"),
    ("__start_static_call_tramp_key", "__stop_static_call_tramp_key", ".static_call_tramp_key"),
    ("__start___tracepoints_ptrs", "__stop___tracepoints_ptrs", "__tracepoints_ptrs"),
    ("__start_builtin_fw", "__end_builtin_fw", ".builtin_fw"),
    ("__start___dyndbg", "__stop___dyndbg", "__dyndbg"),
    ("__start___dyndbg_classes", "__stop___dyndbg_classes", "__dyndbg_classes"),
    ("__start___trace_bprintk_fmt", "__stop___trace_bprintk_fmt", "__trace_printk_fmt"),
    ("__start___tracepoint_str", "__stop___tracepoint_str", "__tracepoint_str"),
    ("__start_once", "__end_once", ".data.once"),
    ("__start__bpf_raw_tp", "__stop__bpf_raw_tp", "__bpf_raw_tp_map"),
    ("__start_kprobe_blacklist", "__stop_kprobe_blacklist", "_kprobe_blacklist"),
    ("__start_error_injection_whitelist", "__stop_error_injection_whitelist", "_error_injection_whitelist"),
    ("__start_mcount_loc", "__stop_mcount_loc", "__mcount_loc"),
    ("__start_ftrace_events", "__stop_ftrace_events", "_ftrace_events"),
    ("__start_ftrace_eval_maps", "__stop_ftrace_eval_maps", "_ftrace_eval_map"),
    ("__start_syscalls_metadata", "__stop_syscalls_metadata", "__syscalls_metadata"),
    ("__setup_start", "__setup_end", ".init.setup"),
    ("__initcall_start", "__initcall_end", ".initcall.init"),
    ("__con_initcall_start", "__con_initcall_end", ".con_initcall.init"),
    ("__start_lsm_info", "__end_lsm_info", ".lsm_info.init"),
    ("__start_early_lsm_info", "__end_early_lsm_info", ".early_lsm_info.init"),
    ("__earlycon_table", "__earlycon_table_end", "__earlycon_table"),
    ("__kunit_suites_start", "__kunit_suites_end", ".kunit_test_suites"),
    ("__irqchip_acpi_probe_table", "__irqchip_acpi_probe_table_end", "__irqchip_acpi_probe_table"),
    ("__timer_acpi_probe_table", "__timer_acpi_probe_table_end", "__timer_acpi_probe_table"),
    ("__governor_thermal_table", "__governor_thermal_table_end", "__governor_thermal_table"),
    ("__dtb_start", "__dtb_end", ".dtb.init.rodata"),
    ("__start_runtime_ptr_USER_PTR_MAX", "__stop_runtime_ptr_USER_PTR_MAX", "runtime_ptr_USER_PTR_MAX"),
    ("__kprobes_text_start", "__kprobes_text_end", ".kprobes.text"),
    ("__sched_text_start", "__sched_text_end", ".sched.text"),
    ("__softirqentry_text_start", "__softirqentry_text_end", ".softirqentry.text"),
    ("__entry_text_start", "__entry_text_end", ".entry.text"),
    ("__irqentry_text_start", "__irqentry_text_end", ".irqentry.text"),
    ("__noinstr_text_start", "__noinstr_text_end", ".noinstr.text"),
    ("__cpuidle_text_start", "__cpuidle_text_end", ".cpuidle.text"),
    ("__static_call_text_start", "__static_call_text_end", ".static_call.text"),
];

/// Code of `.head.text`: runs before there are page tables, and has no symbol behind it.
const HEAD: &[&str] = &[
    "startup_64",
    "secondary_startup_64",
    "secondary_startup_64_no_verify",
    "start_cpu0",
    "soft_restart_cpu",
    "vc_boot_ghcb",
    "__startup_64",
    "startup_64_setup_env",
    "startup_64_setup_gdt_idt",
];

/// Cuts the output sections of a linked image at the symbols the linker script puts around their parts. `head` is where the
/// code that runs without page tables begins and ends.
pub fn split<'d>(
    sections: Vec<Area<'d>>,
    symbol: &dyn Fn(&str) -> Option<u64>,
    head: Option<(u64, u64)>,
) -> Vec<Area<'d>> {
    let mut parts: Vec<(u64, u64, &str)> = Vec::new();
    parts.extend(head.map(|(a, b)| (a, b, ".head.text")));
    for (start, end, name) in MARKERS {
        if let (Some(a), Some(b)) = (symbol(start), symbol(end))
            && a < b
        {
            parts.push((a, b, name));
        }
    }
    let mut out = Vec::new();
    for section in sections {
        if !matches!(section.name.as_str(), ".text" | ".rodata" | ".data" | ".init.data") {
            out.push(section.classified());
            continue;
        }
        let mut cuts = vec![section.addr, section.end()];
        for (a, b, _) in &parts {
            cuts.extend([*a, *b].into_iter().filter(|x| *x > section.addr && *x < section.end()));
        }
        cuts.sort_unstable();
        cuts.dedup();
        for pair in cuts.windows(2) {
            let [from, to] = *pair else { continue };
            let inner = parts.iter().rev().find(|(a, b, _)| *a <= from && to <= *b);
            let at = (from - section.addr) as usize;
            let data = match &section.data {
                Cow::Borrowed(d) if !d.is_empty() => {
                    Cow::Borrowed(d.get(at..(to - section.addr) as usize).unwrap_or(&[]))
                }
                Cow::Owned(d) if !d.is_empty() => {
                    Cow::Owned(d.get(at..(to - section.addr) as usize).unwrap_or(&[]).to_vec())
                }
                _ => Cow::Borrowed(&[][..]),
            };
            // The linker calls .rodata writable because parts of it are until boot has ended.
            let read_only = section.name == ".rodata" && inner.is_none_or(|p| p.2 != MARKERS[0].2);
            let flags = if read_only { section.flags & !object::elf::SHF_WRITE.0 } else { section.flags };
            let name = inner.map_or(section.name.clone(), |p| p.2.to_owned());
            out.push(
                Area { name, addr: from, size: to - from, data, flags, class: section.class, ..empty(&section) }
                    .classified(),
            );
        }
    }
    out.sort_by_key(|a| (a.addr, a.size));
    out
}

fn empty<'d>(like: &Area<'_>) -> Area<'d> {
    Area {
        name: String::new(),
        class: like.class,
        addr: 0,
        size: 0,
        data: Cow::Borrowed(&[]),
        kind: like.kind,
        flags: like.flags,
        entsize: like.entsize,
        align: like.align,
    }
}

/// Is it code that runs before there are page tables?
pub fn is_head(name: &str) -> bool {
    HEAD.contains(&name)
}
