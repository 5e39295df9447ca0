//! Splits the areas along the symbols: functions, data objects, and which names a place has.
//!
//! The rules are those of `symbolize/atoms.rs`: names of one place are one span, a symbol without size in code reaches up to
//! the next one, a label inside a function is another name of it, call padding belongs to the function behind it. What
//! kallsyms knows has no sizes: there a span ends at the next one, and padding at its end is taken off.

use std::collections::HashMap;

use crate::isa::{Decoder, DecoderOptions, FlowControl};
use object::elf;

use super::area::Area;
use super::image::EXTERN_STEP;
use super::{EXTERN_AREA, ImageSymbol, SpanId};
use crate::symbolize::{Class, TextKind};

/// What a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A function, or a piece of one (`.cold`).
    Function,
    /// Code without a function symbol.
    Chunk,
    /// Data.
    Data,
    /// An undefined symbol of a relocatable file.
    Extern,
}

/// A function or data object.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// First byte.
    pub addr: u64,
    /// One past the last byte.
    pub end: u64,
    /// The symbol whose name it has.
    pub symbol: u32,
    /// Index of its area.
    pub area: u16,
    /// What it is.
    pub kind: SpanKind,
    /// Is a name of it visible to other files?
    pub global: bool,
    /// Are all its names weak?
    pub weak: bool,
    /// Bytes of call padding before it.
    pub prefix: u8,
    /// Source file, an index into [`super::Whole::files`]; 0 when it is not known.
    pub file: u32,
}

impl Span {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.end - self.addr
    }
    /// Is it code?
    pub fn is_code(&self) -> bool {
        matches!(self.kind, SpanKind::Function | SpanKind::Chunk)
    }
}

/// The spans of an image and what else its symbols say.
#[derive(Debug, Default)]
pub struct Spans {
    /// By address; those without size come before others of the same address.
    pub list: Vec<Span>,
    /// Other names: span and symbol.
    pub aliases: Vec<(SpanId, u32)>,
    /// Places the linker script or assembly names, without an object of their own: address and symbol, by address.
    pub markers: Vec<(u64, u32)>,
}

const PREFIX: &str = "__pfx_";

/// Builds the spans.
pub fn build(areas: &[Area<'_>], symbols: &[ImageSymbol<'_>], sizeless: bool) -> Spans {
    let mut order: Vec<u32> = (0..symbols.len() as u32).collect();
    order.sort_by_key(|i| symbols[*i as usize].value);
    let mut out = Spans::default();
    let mut from = 0;
    for (index, area) in areas.iter().enumerate() {
        while from < order.len() && symbols[order[from] as usize].value < area.addr {
            out.markers.push((symbols[order[from] as usize].value, order[from]));
            from += 1;
        }
        let count = order[from..].partition_point(|i| area.contains(symbols[*i as usize].value));
        let own = &order[from..from + count];
        if area.name == EXTERN_AREA {
            for i in own {
                let addr = symbols[*i as usize].value - EXTERN_STEP / 2;
                push(&mut out, index, addr, addr + EXTERN_STEP, SpanKind::Extern, &[*i], symbols, 0);
            }
        } else if area.class == Class::Text(TextKind::AltAux) {
            aux(&mut out, index, area, symbols);
            out.markers.extend(own.iter().map(|i| (symbols[*i as usize].value, *i)));
        } else if area.is_code() {
            code(&mut out, index, area, own, symbols, sizeless);
        } else if area.is_data() {
            data(&mut out, index, area, own, symbols, sizeless);
        } else {
            out.markers.extend(own.iter().map(|i| (symbols[*i as usize].value, *i)));
        }
        from += count;
    }
    out.markers.extend(order[from..].iter().map(|i| (symbols[*i as usize].value, *i)));
    // Labels the compiler made up (`.LC7`) mean nothing.
    out.markers.retain(|m| !is_ignored(symbols[m.1 as usize].name));
    out.markers.sort_unstable();
    guess_files(&mut out, symbols);
    out
}

/// Code no symbol names (`_static_cpu_has`, arch/x86/include/asm/cpufeature.h): a test, a conditional jump, a jump.
fn aux(out: &mut Spans, index: usize, area: &Area<'_>, symbols: &[ImageSymbol<'_>]) {
    let Some(name) = symbols.iter().position(|s| s.name == AUX_NAME) else { return };
    let mut decoder = Decoder::with_ip(64, &area.data, area.addr, DecoderOptions::NONE);
    let mut start = area.addr;
    while decoder.can_decode() {
        let insn = decoder.decode();
        if insn.is_invalid() {
            return;
        }
        if insn.flow_control() == FlowControl::UnconditionalBranch {
            push(out, index, start, insn.next_ip(), SpanKind::Chunk, &[name as u32], symbols, 0);
            start = insn.next_ip();
        }
    }
}

/// Stands for all chunks of `.altinstr_aux`; with the plus sign of names that are places.
pub const AUX_NAME: &str = ".altinstr_aux+";

/// Symbols of the linker script that lie in code without being any (arch/x86/kernel/vmlinux.lds.S). kallsyms does not tell
/// them from functions, so only their names do.
const IN_CODE: &[&str] = &[
    "_text",
    "_stext",
    "_etext",
    "_sinittext",
    "_einittext",
    "_end",
    "__init_begin",
    "__init_end",
    "__noinstr_text_start",
    "__noinstr_text_end",
    "__sched_text_start",
    "__sched_text_end",
    "__cpuidle_text_start",
    "__cpuidle_text_end",
    "__lock_text_start",
    "__lock_text_end",
    "__kprobes_text_start",
    "__kprobes_text_end",
    "__entry_text_start",
    "__entry_text_end",
    "__irqentry_text_start",
    "__irqentry_text_end",
    "__softirqentry_text_start",
    "__softirqentry_text_end",
    "__static_call_text_start",
    "__static_call_text_end",
    "__indirect_thunk_start",
    "__indirect_thunk_end",
];

/// The same in data: names without a prefix of their own (include/asm-generic/vmlinux.lds.h).
const IN_DATA: &[&str] = &[
    "_sdata",
    "_edata",
    "_end",
    "__bss_start",
    "__bss_stop",
    "__brk_base",
    "__brk_limit",
    "__initramfs_size",
    "__nosave_begin",
    "__nosave_end",
    "__setup_start",
    "__setup_end",
    "__per_cpu_start",
    "__per_cpu_end",
    "__initramfs_start",
    "__apicdrivers",
    "__apicdrivers_end",
    "__x86_cpu_dev_start",
    "__x86_cpu_dev_end",
    "__con_initcall_start",
    "__con_initcall_end",
    "__earlycon_table",
    "__earlycon_table_end",
    "init_stack",
    "__kunit_suites_start",
    "__kunit_suites_end",
    "__dtb_start",
    "__dtb_end",
    "__vvar_page",
    "jiffies",
    "__governor_thermal_table",
    "__governor_thermal_table_end",
    "__top_init_kernel_stack",
    "__vvar_beginning_hack",
    "__sched_class_highest",
    "__sched_class_lowest",
    "__irqchip_acpi_probe_table",
    "__timer_acpi_probe_table",
    "__irqchip_acpi_probe_table_end",
    "__timer_acpi_probe_table_end",
    "__init_scratch_begin",
    "__init_scratch_end",
    "__smp_locks",
    "__smp_locks_end",
    "init_thread_union",
];

/// Is it a name the linker script gives to a place in code, or in data?
pub fn is_of_script(name: &str, code: bool) -> bool {
    if code {
        return IN_CODE.contains(&name);
    }
    let prefixed = ["__start_", "__stop_", "__end_"].iter().any(|p| name.starts_with(p));
    let initcalls = name.starts_with("__initcall") && (name.ends_with("_start") || name.ends_with("_end"));
    // The tables of kallsyms itself have no sizes anywhere.
    const KALLSYMS: &[&str] = &[
        "addresses",
        "offsets",
        "relative_base",
        "num_syms",
        "names",
        "markers",
        "seqs_of_names",
        "token_table",
        "token_index",
    ];
    let kallsyms = name.strip_prefix("kallsyms_").is_some_and(|n| KALLSYMS.contains(&n));
    prefixed || initcalls || kallsyms || IN_DATA.contains(&name)
}

/// Groups of symbols of one place.
fn places<'s>(own: &'s [u32], symbols: &'s [ImageSymbol<'_>]) -> impl Iterator<Item = &'s [u32]> {
    own.chunk_by(|a, b| symbols[*a as usize].value == symbols[*b as usize].value)
}

fn is_ignored(name: &str) -> bool {
    name.is_empty() || name.starts_with(".L")
}

fn code(out: &mut Spans, index: usize, area: &Area<'_>, own: &[u32], symbols: &[ImageSymbol<'_>], sizeless: bool) {
    let names: HashMap<(&str, u64), ()> =
        own.iter().map(|i| ((symbols[*i as usize].name, symbols[*i as usize].value), ())).collect();
    // Where padding ends that belongs to the function behind it.
    let mut padding: HashMap<u64, u64> = HashMap::new();
    let mut kept: Vec<u32> = Vec::with_capacity(own.len());
    for (at, i) in own.iter().enumerate() {
        let symbol = &symbols[*i as usize];
        if let Some(name) = symbol.name.strip_prefix(PREFIX) {
            let behind = if sizeless {
                let mut later = own[at..].iter().map(|n| symbols[*n as usize].value);
                later.find(|v| *v > symbol.value).unwrap_or(symbol.value)
            } else {
                symbol.value + symbol.size
            };
            if behind > symbol.value && behind - symbol.value < 256 && names.contains_key(&(name, behind)) {
                padding.insert(behind, behind - symbol.value);
                continue;
            }
        }
        let bare = sizeless || symbol.kind == elf::STT_NOTYPE.0 && symbol.size == 0;
        if bare && is_of_script(symbol.name, true) {
            out.markers.push((symbol.value, *i));
        } else if !is_ignored(symbol.name) {
            kept.push(*i);
        }
    }
    let groups: Vec<&[u32]> = places(&kept, symbols).collect();
    let mut covered = area.addr;
    for (at, group) in groups.iter().enumerate() {
        let start = symbols[group[0] as usize].value;
        let next = groups.get(at + 1).map_or(area.end(), |g| {
            let v = symbols[g[0] as usize].value;
            v - padding.get(&v).copied().unwrap_or(0)
        });
        let size = group.iter().map(|i| symbols[*i as usize].size).max().unwrap_or(0);
        let is_function = group.iter().any(|i| symbols[*i as usize].kind == elf::STT_FUNC.0);
        let inside = start < covered;
        if inside && !is_function {
            if let Some(owner) = out.list.len().checked_sub(1) {
                out.aliases.extend(group.iter().map(|i| (SpanId(owner as u32), *i)));
            }
            continue;
        }
        let end = if sizeless {
            without_padding(area, start, next.max(start))
        } else if size > 0 {
            start + size
        } else if !inside {
            next.max(start)
        } else {
            start
        };
        let prefix = padding.get(&start).copied().filter(|p| start - p >= covered).unwrap_or(0);
        let kind = if is_function { SpanKind::Function } else { SpanKind::Chunk };
        push(out, index, start, end.min(area.end()), kind, group, symbols, prefix as u8);
        covered = covered.max(end);
    }
}

/// The end of a function whose size nobody says: before the int3 or nop bytes up to the next one.
fn without_padding(area: &Area<'_>, start: u64, next: u64) -> u64 {
    let Some(bytes) = area.bytes(start, next - start) else { return next };
    // int3 is padding and, behind a return, part of the function (SLS): which is decided when both builds are compared.
    let end = bytes.iter().rposition(|b| !matches!(b, 0xcc | 0x90)).map_or(0, |p| p + 1);
    const LONG_NOPS: &[&[u8]] = &[
        &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
        &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
        &[0x0f, 0x1f, 0x44, 0, 0],
        &[0x0f, 0x1f, 0x40, 0],
        &[0x0f, 0x1f, 0],
    ];
    let mut text = &bytes[..end];
    while let Some(shorter) = LONG_NOPS.iter().find_map(|n| text.strip_suffix(*n)) {
        text = shorter;
    }
    // A function that is only an fentry nop and a return ends with neither.
    start + if text.is_empty() { end } else { text.len() } as u64
}

fn data(out: &mut Spans, index: usize, area: &Area<'_>, own: &[u32], symbols: &[ImageSymbol<'_>], sizeless: bool) {
    // Entries of lists have names without sizes.
    let listed = area.class == Class::Registered;
    let kept: Vec<u32> = own.iter().copied().filter(|i| !is_ignored(symbols[*i as usize].name)).collect();
    let groups: Vec<&[u32]> = places(&kept, symbols).collect();
    for (at, group) in groups.iter().enumerate() {
        let start = symbols[group[0] as usize].value;
        let next = groups.get(at + 1).map_or(area.end(), |g| symbols[g[0] as usize].value);
        let is_object = |i: &u32| {
            let s = &symbols[*i as usize];
            if sizeless {
                return !is_of_script(s.name, false);
            }
            s.size > 0 || s.kind != elf::STT_NOTYPE.0 || listed && s.bind == elf::STB_LOCAL.0
        };
        let (objects, marks): (Vec<u32>, Vec<u32>) = group.iter().partition(|i| is_object(i));
        out.markers.extend(marks.iter().map(|i| (start, *i)));
        if sizeless {
            if !objects.is_empty() {
                push(out, index, start, next, SpanKind::Data, &objects, symbols, 0);
            }
            continue;
        }
        // Empty objects (lock class keys) share their place with what follows, and stay objects of their own.
        let (empty, sized): (Vec<u32>, Vec<u32>) =
            objects.iter().partition(|i| symbols[**i as usize].size == 0 && !listed);
        for i in empty {
            push(out, index, start, start, SpanKind::Data, &[i], symbols, 0);
        }
        if !sized.is_empty() {
            let size = sized.iter().map(|i| symbols[*i as usize].size).max().unwrap_or(0);
            let end = if size > 0 { start + size } else { next };
            push(out, index, start, end.min(area.end()), SpanKind::Data, &sized, symbols, 0);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place spans are made")]
fn push(
    out: &mut Spans,
    area: usize,
    addr: u64,
    end: u64,
    kind: SpanKind,
    group: &[u32],
    symbols: &[ImageSymbol<'_>],
    prefix: u8,
) {
    // The name that stands for it: an object rather than an empty lock class key, global, short.
    let order = |i: &&u32| {
        let s = &symbols[**i as usize];
        (s.size == 0, s.bind != elf::STB_GLOBAL.0, s.name.len(), s.name)
    };
    let Some(best) = group.iter().min_by_key(order).copied() else { return };
    let id = SpanId(out.list.len() as u32);
    let all = |f: &dyn Fn(&ImageSymbol<'_>) -> bool| group.iter().all(|i| f(&symbols[*i as usize]));
    out.list.push(Span {
        addr,
        end: end.max(addr),
        symbol: best,
        area: area as u16,
        kind,
        global: !all(&|s| s.bind == elf::STB_LOCAL.0),
        weak: all(&|s| s.bind == elf::STB_WEAK.0),
        prefix,
        file: group.iter().map(|i| symbols[*i as usize].file).find(|f| *f > 0).unwrap_or(0),
    });
    out.aliases.extend(group.iter().filter(|i| **i != best).map(|i| (id, *i)));
}

/// Global symbols do not say their file; one between two local ones of a file is of that file.
fn guess_files(spans: &mut Spans, symbols: &[ImageSymbol<'_>]) {
    let _ = symbols;
    let list = &mut spans.list;
    let mut before: Option<(u16, u32)> = None;
    let mut waiting: Vec<usize> = Vec::new();
    for i in 0..list.len() {
        let span = list[i];
        if span.file == 0 {
            waiting.push(i);
            continue;
        }
        if before == Some((span.area, span.file)) {
            for w in waiting.drain(..) {
                list[w].file = span.file;
            }
        }
        waiting.clear();
        before = Some((span.area, span.file));
    }
}
