//! Functions of the kernel that only read through a pointer they get and do not keep it, and calls from inline assembly,
//! which leave other registers alone than calls of C do.
//!
//! Not listed, because they keep the pointer: `kstrdup_const` (mm/util.c, returns it when it is in .rodata),
//! `kobject_set_name_vargs`, `proc_create*`, `sysfs_create_*`, `register_*`, `kmem_cache_create` (its name), and everything
//! that takes operations.

/// Which arguments are only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Bit n: argument n, counted from 0. The highest one stands for all behind it, those on the stack too.
    arguments: u8,
    /// The result may point into what was passed.
    pub returns_it: bool,
}

impl Reader {
    /// Is argument `n` only read? None stands for one on the stack.
    pub fn reads(self, n: Option<u8>) -> bool {
        let n = n.unwrap_or(7).min(7);
        let from_top = self.arguments >> 7 != 0;
        self.arguments >> n & 1 != 0 || (from_top && n == 7)
    }
}

const fn only(arguments: u8) -> Reader {
    Reader { arguments, returns_it: false }
}
const fn within(arguments: u8) -> Reader {
    Reader { arguments, returns_it: true }
}

/// All of them: what is printed is read at once (lib/vsprintf.c), whichever argument it is.
const ANY: u8 = 0xff;

/// By exact name.
const EXACT: &[(&str, Reader)] = &[
    // Printing: kernel/printk/printk.c, lib/vsprintf.c, fs/seq_file.c, drivers/base/core.c, kernel/panic.c.
    ("_printk", only(ANY)),
    ("printk", only(ANY)),
    ("vprintk", only(ANY)),
    ("_printk_deferred", only(ANY)),
    ("panic", only(ANY)),
    ("__warn_printk", only(ANY)),
    ("__stack_chk_fail", only(ANY)),
    ("fortify_panic", only(ANY)),
    ("__fortify_panic", only(ANY)),
    ("__warn", only(ANY)),
    ("warn_slowpath_fmt", only(ANY)),
    ("early_printk", only(ANY)),
    ("sprintf", only(ANY)),
    ("snprintf", only(ANY)),
    ("scnprintf", only(ANY)),
    ("vsnprintf", only(ANY)),
    ("vscnprintf", only(ANY)),
    ("vsprintf", only(ANY)),
    ("kasprintf", only(ANY)),
    ("kvasprintf", only(ANY)),
    ("sysfs_emit", only(ANY)),
    ("sysfs_emit_at", only(ANY)),
    ("seq_printf", only(ANY)),
    ("seq_puts", only(0b10)),
    ("__seq_puts", only(0b10)),
    ("seq_write", only(0b10)),
    ("seq_escape_mem", only(0b1_0010)),
    ("seq_put_decimal_ull", only(0b10)),
    ("seq_put_decimal_ll", only(0b10)),
    ("seq_put_hex_ll", only(0b10)),
    ("print_hex_dump", only(ANY)),
    ("__trace_printk", only(0b1111_1110)),
    ("__trace_puts", only(0b10)),
    ("trace_seq_printf", only(ANY)),
    ("trace_seq_puts", only(0b10)),
    ("trace_print_symbols_seq", only(0b100)),
    ("trace_print_flags_seq", only(0b1000)),
    ("do_trace_netlink_extack", only(0b1)),
    ("___ratelimit", only(0b10)),
    ("__printk_ratelimit", only(0b1)),
    ("audit_log_format", only(ANY)),
    ("audit_log", only(ANY)),
    ("__dynamic_pr_debug", only(0b1111_1110)),
    ("__dynamic_dev_dbg", only(0b1111_1100)),
    ("__dynamic_netdev_dbg", only(0b1111_1100)),
    // Messages of file systems and the network: formats and what they print (fs/ext4/super.c, net/core/dev.c, ...).
    // Of an error the superblock keeps the name of the function (save_error_info).
    ("__ext4_error", only(0b1111_1100)),
    ("__ext4_error_inode", only(0b1111_1100)),
    ("__ext4_error_file", only(0b1111_1100)),
    ("__ext4_std_error", only(0b1111_1100)),
    ("__ext4_warning", only(0b1111_1110)),
    ("__ext4_warning_inode", only(0b1111_1110)),
    ("__ext4_msg", only(0b1111_1110)),
    ("__ext4_grp_locked_error", only(0b1100_0000)),
    ("_btrfs_printk", only(0b1111_1110)),
    // Sleeping in atomic context (kernel/sched/core.c): the file's name is printed.
    ("__might_sleep", only(0b1)),
    ("__might_resched", only(0b1)),
    // Strings and memory: lib/string.c, lib/string_helpers.c, mm/util.c, include/linux/uaccess.h.
    ("strcmp", only(0b11)),
    ("strncmp", only(0b11)),
    ("strcasecmp", only(0b11)),
    ("strncasecmp", only(0b11)),
    ("strlen", only(0b1)),
    ("strnlen", only(0b1)),
    ("strspn", only(0b11)),
    ("strcspn", only(0b11)),
    ("strchr", within(0b1)),
    ("strnchr", within(0b1)),
    ("strrchr", within(0b1)),
    ("strchrnul", within(0b1)),
    ("strstr", within(0b1)),
    ("strpbrk", within(0b1)),
    ("strcpy", only(0b10)),
    ("strncpy", only(0b10)),
    ("strlcpy", only(0b10)),
    ("strscpy", only(0b10)),
    ("strscpy_pad", only(0b10)),
    ("sized_strscpy", only(0b10)),
    ("strcat", only(0b10)),
    ("strncat", only(0b10)),
    ("strlcat", only(0b10)),
    ("memcmp", only(0b11)),
    ("bcmp", only(0b11)),
    ("memcpy", only(0b10)),
    ("__memcpy", only(0b10)),
    ("memmove", only(0b10)),
    ("__memmove", only(0b10)),
    ("memcpy_fromio", only(0b10)),
    ("memcpy_toio", only(0b10)),
    ("memchr", within(0b1)),
    ("memchr_inv", within(0b1)),
    ("memscan", within(0b1)),
    ("__crypto_memneq", only(0b11)),
    ("kstrdup", only(0b1)),
    ("kstrndup", only(0b1)),
    ("kmemdup", only(0b1)),
    ("kmemdup_noprof", only(0b1)),
    ("kmemdup_nul", only(0b1)),
    ("devm_kmemdup", only(0b10)),
    ("devm_kstrdup", only(0b10)),
    ("_copy_to_user", only(0b10)),
    ("copy_to_user_nofault", only(0b10)),
    ("_copy_to_iter", only(0b1)),
    ("simple_read_from_buffer", only(0b1000)),
    ("memory_read_from_buffer", only(0b1000)),
    ("nla_put", only(0b1000)),
    ("hex_dump_to_buffer", only(0b1)),
    ("kstrtoull", only(0b1)),
    ("kstrtoint", only(0b1)),
    ("kstrtouint", only(0b1)),
    ("sscanf", only(0b11)),
    ("__check_object_size", only(0b1)),
    // Tables that are searched, the index returned: lib/string_helpers.c, drivers/base, fs/fs_parser.c, lib/parser.c.
    ("match_string", only(0b101)),
    ("__sysfs_match_string", only(0b101)),
    ("sysfs_streq", only(0b11)),
    // What was found points into the text.
    ("match_token", only(0b10)),
    // One of the entries is returned: lib/bsearch.c.
    ("bsearch", within(0b11)),
    // Sums over bytes: lib/crc32.c, lib/crc16.c, fs/namei.c. (Policies of lib/nlattr.c are kept: extack->policy.)
    ("crc32_le", only(0b10)),
    ("crc32_be", only(0b10)),
    ("__crc32c_le", only(0b10)),
    ("crc16", only(0b10)),
    ("full_name_hash", only(0b10)),
    ("hashlen_string", only(0b10)),
    // With fewer arguments than registers may hold something: a leftover is no argument.
    ("get_pid_task", only(0b1111_1100)),
    ("refcount_warn_saturate", only(0b1111_1100)),
    // A report that names a place (kernel/locking/lockdep.c).
    ("lockdep_rcu_suspicious", only(0b101)),
];

/// By the beginning of the name.
const PREFIXES: &[(&str, Reader)] = &[
    // dev_err and its like: _dev_err, _dev_warn, _dev_printk ... (drivers/base/core.c); the first argument is the device.
    ("_dev_", only(0b1111_1110)),
    // drivers/acpi/acpica/utxface.c and its like: name of the module, line, format.
    ("acpi_error", only(ANY)),
    ("acpi_exception", only(ANY)),
    ("acpi_warning", only(ANY)),
    ("acpi_info", only(ANY)),
    ("acpi_bios_", only(ANY)),
    ("dev_err_probe", only(0b1111_1100)),
    ("dev_printk", only(0b1111_1110)),
    ("netdev_", only(0b1111_1110)),
    // Tracepoints hand their arguments to probes, which copy what they record (include/linux/tracepoint.h).
    ("__SCT__tp_func_", only(ANY)),
    ("__traceiter_", only(ANY)),
    ("__bpf_trace_", only(ANY)),
];

/// Tracepoints that record a pointer to text, which is read when the trace is (`__field(const char *, ...)`, include/trace/events/).
const KEEPING_TRACEPOINTS: &[&str] =
    &["rcu_", "ext4_error", "wbt_", "ipi_", "ma_", "host1x_", "clock_", "power_domain"];

fn keeps_text(name: &str) -> bool {
    let of = ["__SCT__tp_func_", "__traceiter_", "__bpf_trace_"].iter().find_map(|p| name.strip_prefix(p));
    of.is_some_and(|event| KEEPING_TRACEPOINTS.iter().any(|p| event.starts_with(p)))
}

/// What is known about a function of this name.
pub fn reader(name: &str) -> Option<Reader> {
    if keeps_text(name) {
        return None;
    }
    let netdev = name.strip_prefix("netdev_");
    let exact = EXACT.iter().find(|(n, _)| *n == name).map(|(_, r)| *r);
    exact.or_else(|| PREFIXES.iter().find(|(p, _)| *p != "netdev_" && name.starts_with(p)).map(|(_, r)| *r)).or_else(
        || {
            // net/core/dev.c, define_netdev_printk_level.
            const LEVELS: &[&str] = &["emerg", "alert", "crit", "err", "warn", "notice", "info", "printk"];
            netdev.filter(|level| LEVELS.contains(level)).map(|_| only(0b1111_1110))
        },
    )
}

/// What a function called from inline assembly does; it leaves all other registers as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromAssembly {
    /// It reads from the address in %rsi and writes to that in %rdi.
    pub copies: bool,
    /// It gets something in these registers, by number.
    pub gets: &'static [u8],
}

const NOTHING: FromAssembly = FromAssembly { copies: false, gets: &[] };
const COPIES: FromAssembly = FromAssembly { copies: true, gets: &[] };

/// arch/x86/lib/{getuser,putuser,copy_user_64,clear_page_64,hweight}.S, arch/x86/entry/thunk_64.S, paravirt.h (6.1 to 6.12).
const ASSEMBLY: &[(&str, FromAssembly)] = &[
    ("__fentry__", NOTHING),
    ("__get_user_*", NOTHING),
    ("__put_user_*", FromAssembly { copies: false, gets: &[0] }),
    ("copy_user_generic_unrolled", COPIES),
    ("copy_user_generic_string", COPIES),
    ("copy_user_enhanced_fast_string", COPIES),
    ("copy_user_fast_string", COPIES),
    ("__copy_user_nocache", COPIES),
    ("rep_movs_alternative", COPIES),
    ("clear_user_original", COPIES),
    ("clear_user_rep_good", COPIES),
    ("clear_user_erms", COPIES),
    ("rep_stos_alternative", COPIES),
    ("clear_page_orig", COPIES),
    ("clear_page_rep", COPIES),
    ("clear_page_erms", COPIES),
    ("copy_page", COPIES),
    ("__sw_hweight*", NOTHING),
    ("preempt_schedule_thunk", NOTHING),
    ("preempt_schedule_notrace_thunk", NOTHING),
    ("__SCT__preempt_schedule*", NOTHING),
    ("__raw_callee_save_*", FromAssembly { copies: false, gets: &[7] }),
];

/// What is known about a function that inline assembly calls.
pub fn from_assembly(name: &str) -> Option<FromAssembly> {
    let is = |p: &str| p.strip_suffix('*').map_or(name == p, |stem| name.starts_with(stem));
    ASSEMBLY.iter().find(|(p, _)| is(p)).map(|(_, f)| *f)
}
