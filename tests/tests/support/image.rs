//! A kernel to bind to: the old objects linked at fixed addresses with `ld`, notes, banner and kallsyms added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::read::Elf;

#[path = "../../../builder/tests/kernel_image/synthetic.rs"]
#[expect(dead_code, reason = "of the hand-made kernel only the kallsyms tables are used here")]
mod synthetic;

const SCRIPT: &str = r#"
SECTIONS
{
	.data..percpu 0 : { __per_cpu_start = .; *(.data..percpu .data..percpu..*) __per_cpu_end = .; }
	. = 0xffffffff81000000;
	.text : {
		_text = .;
		_stext = .;
		*(.text .text.unlikely .text.unlikely.* .text.*)
		*(.static_call.text .altinstr_aux .altinstr_replacement)
		__noinstr_text_start = .; *(.noinstr.text) __noinstr_text_end = .;
		__kprobes_text_start = .; *(.kprobes.text) __kprobes_text_end = .;
		*(.init.text .exit.text)
		_etext = .;
	} = 0xcccccccc
	. = ALIGN(4096);
	.rodata : { *(.rodata .rodata.*) }
	SEALS
	.notes : { __start_notes = .; *(.note.gnu.build-id) __stop_notes = .; }
	_kprobe_blacklist : { __start_kprobe_blacklist = .; KEEP(*(_kprobe_blacklist)) __stop_kprobe_blacklist = .; }
	.tables : {
		__start___jump_table = .; KEEP(*(__jump_table)) __stop___jump_table = .;
		__start___bug_table = .; KEEP(*(__bug_table)) __stop___bug_table = .;
		__start_static_call_sites = .; KEEP(*(.static_call_sites)) __stop_static_call_sites = .;
		__alt_instructions = .; KEEP(*(.altinstructions)) __alt_instructions_end = .;
	}
	.boot : { *(runtime_ptr_* runtime_shift_*) }
	.data : { *(.data .data.once .data.[_a-zA-Z0-9]* .data..read_mostly .data..ro_after_init) }
	.bss : { *(.bss .bss.*) *(COMMON) _end = .; }
	. = 0xffffffff82000000;
	.kallsyms : { *(.kallsyms) }
	/DISCARD/ : { *(.comment) *(.note.GNU-stack) *(.note.gnu.property) *(.discard.*) *(.modinfo) }
}
"#;

/// Symbols the runtime binds to, the anchor, and where an int3 begins.
const RUNTIME: &[&str] = &[
    "exc_int3",
    "exc_nmi",
    "notify_die",
    "_printk",
    "stack_trace_save_tsk_reliable",
    "stop_machine_cpuslocked",
    "idle_task",
    "get_kprobe",
    "text_mutex",
    "task_call_func",
    "task_work_add",
    "task_work_cancel_match",
    "tasklist_lock",
];

/// Changes to the symbol table.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Left out of kallsyms.
    pub hide: Vec<String>,
    /// There twice: a second one elsewhere.
    pub twice: Vec<String>,
    /// No variable is there: a kernel without CONFIG_KALLSYMS_ALL.
    pub no_data: bool,
}

/// A kernel.
#[derive(Debug)]
pub struct Image {
    pub file: Vec<u8>,
    /// Name and address of everything, local symbols too.
    pub symbols: Vec<(String, u64)>,
    /// Names at an address.
    pub at: BTreeMap<u64, Vec<String>>,
}

/// Links `objects`; what they and `others` leave undefined is made up.
pub fn link(objects: &[Vec<u8>], others: &[Vec<u8>], names: &Names, work: &Path) -> Image {
    let elves: Vec<Elf> = objects.iter().map(|o| Elf::read(o)).collect();
    let new: Vec<Elf> = others.iter().map(|o| Elf::read(o)).collect();
    let defined = |elves: &[Elf]| -> BTreeSet<String> {
        let all = elves.iter().flat_map(|e| &e.symbols).filter(|s| s.section.is_some() && s.global);
        all.map(|s| s.name.clone()).collect()
    };
    let mut made: BTreeSet<String> = RUNTIME.iter().map(|s| (*s).to_owned()).collect();
    for elf in elves.iter().chain(&new) {
        made.extend(elf.symbols.iter().filter(|s| s.section.is_none() && !s.absolute).map(|s| s.name.clone()));
    }
    let (have, come) = (defined(&elves), defined(&new));
    made.retain(|n| !n.is_empty() && !n.starts_with("lp_original_") && !have.contains(n) && !come.contains(n));
    let mut stubs = String::from(".section .rodata.banner,\"a\"\n.globl linux_banner\nlinux_banner:\n");
    stubs.push_str(".asciz \"Linux version 6.1.0-corpus-amd64 (builder@host) (gcc) #1 SMP\\n\"\n.text\n");
    for name in &made {
        stubs.push_str(&format!(".p2align 4\n.globl {name}\n{name}: .fill 32, 1, 0x90\n"));
    }
    let path = |name: &str| work.join(name);
    // Only kernels with IBT have the list.
    let sealed = elves.iter().any(|e| e.section(".ibt_endbr_seal").is_some());
    let seals = ".ibt_endbr_seal : { __ibt_endbr_seal = .; *(.ibt_endbr_seal) __ibt_endbr_seal_end = .; }";
    let script = SCRIPT.replace("SEALS", if sealed { seals } else { "" });
    std::fs::write(path("image.lds"), script).unwrap();
    std::fs::write(path("stubs.S"), stubs).unwrap();
    run(Command::new("gcc-12").arg("-c").arg(path("stubs.S")).arg("-o").arg(path("stubs.o")));
    let mut inputs = vec![path("stubs.o")];
    for (i, object) in objects.iter().enumerate() {
        inputs.push(path(&format!("image{i}.o")));
        std::fs::write(inputs.last().unwrap(), object).unwrap();
    }
    let ld = |with: Option<&Path>| {
        let out = path("image");
        run(Command::new("ld")
            .args([
                "-m",
                "elf_x86_64",
                "-static",
                "--build-id=sha1",
                "-z",
                "max-page-size=4096",
                "--no-warn-rwx-segments",
                "-T",
            ])
            .arg(path("image.lds"))
            .args(&inputs)
            .args(with)
            .arg("-o")
            .arg(&out));
        std::fs::read(&out).unwrap()
    };
    let first = Elf::read(&ld(None));
    let mut symbols: Vec<(u64, u8, String)> = Vec::new();
    let mut all = Vec::new();
    for s in &first.symbols {
        let Some(section) = s.section else { continue };
        if s.name.is_empty() || s.name == first.sections[section].name || s.name.starts_with(".L") {
            continue;
        }
        all.push((s.name.clone(), s.value));
        if names.hide.contains(&s.name) {
            continue;
        }
        let letter = match first.sections[section].flags {
            _ if s.value < 0xffff_ffff_8000_0000 => b'a',
            f if f & 4 != 0 => b't',
            f if f & 1 != 0 => b'd',
            _ => b'r',
        };
        if names.no_data && matches!(letter, b'a' | b'd') {
            continue;
        }
        let letter = if s.global { letter.to_ascii_uppercase() } else { letter };
        symbols.push((s.value, letter, s.name.clone()));
        if names.twice.contains(&s.name) {
            symbols.push((s.value + 0x40, letter, s.name.clone()));
        }
    }
    symbols.push((0xffff_ffff_8200_0000, b'R', "kallsyms_begin".into()));
    symbols.sort_by_key(|s| s.0);
    std::fs::write(path("kallsyms.bin"), synthetic::kallsyms(synthetic::Layout::OffsetsFirst, &symbols)).unwrap();
    std::fs::write(path("kallsyms.S"), ".section .kallsyms,\"a\"\n.balign 8\n.incbin \"kallsyms.bin\"\n").unwrap();
    run(Command::new("gcc-12").current_dir(work).args(["-c", "kallsyms.S", "-o", "kallsyms.o"]));
    let _ = ld(Some(&path("kallsyms.o")));
    run(Command::new("strip").arg(path("image")));
    let file = std::fs::read(path("image")).unwrap();
    let mut at: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (name, address) in &all {
        at.entry(*address).or_default().push(name.clone());
    }
    Image { file, symbols: all, at }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
