//! Kernel configuration -> how a compiled object gets the shape its code has in the image: objtool's arguments.
//!
//! objtool finishes what the compiler leaves: ORC data, sites of returns, retpolines, calls and static calls, jump labels
//! as nops, prefix symbols. Where the configuration delays it (IBT, LTO), kbuild runs it on the linked `vmlinux.o` only, so
//! that an object by itself is not what the image was made of; it has to be brought through the same step first. Where it
//! is not delayed, kbuild has already run it on the object, and it must not run again.
//!
//! Sources: `objtool-args-y` and `delay-objtool` in scripts/Makefile.lib, `vmlinux-objtool-args` in
//! scripts/Makefile.vmlinux_o, of 6.1 and 6.12. The mitigations' options were renamed in 6.9 (`CONFIG_RETPOLINE` became
//! `CONFIG_MITIGATION_RETPOLINE`). `--noinstr`, `--unret` and what else only checks is left out: it changes no object.

/// Options of any of which objtool gets the argument, in the order of scripts/Makefile.lib.
const ARGUMENTS: &[(&[&str], &str)] = &[
    (&["HAVE_JUMP_LABEL_HACK"], "--hacks=jump_label"),
    (&["HAVE_NOINSTR_HACK"], "--hacks=noinstr"),
    (&["CALL_DEPTH_TRACKING", "MITIGATION_CALL_DEPTH_TRACKING"], "--hacks=skylake"),
    (&["X86_KERNEL_IBT"], "--ibt"),
    (&["FINEIBT"], "--cfi"),
    (&["FTRACE_MCOUNT_USE_OBJTOOL"], "--mcount"),
    (&["UNWINDER_ORC"], "--orc"),
    (&["RETPOLINE", "MITIGATION_RETPOLINE"], "--retpoline"),
    (&["RETHUNK", "MITIGATION_RETHUNK"], "--rethunk"),
    (&["SLS", "MITIGATION_SLS"], "--sls"),
    (&["STACK_VALIDATION"], "--stackval"),
    (&["HAVE_STATIC_CALL_INLINE"], "--static-call"),
    (&["HAVE_UACCESS_VALIDATION"], "--uaccess"),
    (&["GCOV_KERNEL", "KCOV"], "--no-unreachable"),
];

/// Does kbuild leave objtool to the link of `vmlinux.o`? `config` is the text of `.config` or `auto.conf`.
pub fn is_delayed(config: &str) -> bool {
    is_set(config, "OBJTOOL") && ["LTO_CLANG", "X86_KERNEL_IBT"].iter().any(|o| is_set(config, o))
}

/// What objtool is to be run with on a single built-in object as the compiler left it; empty when kbuild has already done
/// so. The object's path follows.
pub fn objtool_args(config: &str) -> Vec<String> {
    if !is_delayed(config) {
        return Vec::new();
    }
    let mut args: Vec<String> = Vec::new();
    for (options, argument) in ARGUMENTS {
        if options.iter().any(|o| is_set(config, o)) {
            args.push((*argument).to_owned());
        }
        // Only beside `--mcount`, which objtool insists on.
        if *argument == "--mcount" && args.iter().any(|a| a == "--mcount") && is_set(config, "HAVE_OBJTOOL_NOP_MCOUNT")
        {
            args.push("--mnop".to_owned());
        }
    }
    if let Some(bytes) = value(config, "FUNCTION_PADDING_BYTES").filter(|_| is_set(config, "PREFIX_SYMBOLS")) {
        args.push(format!("--prefix={bytes}"));
    }
    args.push("--link".to_owned());
    args
}

fn is_set(config: &str, option: &str) -> bool {
    value(config, option) == Some("y")
}

fn value<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    config.lines().find_map(|l| l.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of Debian's 6.12 cloud kernel that matter here.
    const DEBIAN_6_12: &str = "CONFIG_OBJTOOL=y\nCONFIG_HAVE_JUMP_LABEL_HACK=y\nCONFIG_HAVE_NOINSTR_HACK=y\n\
        CONFIG_MITIGATION_CALL_DEPTH_TRACKING=y\nCONFIG_X86_KERNEL_IBT=y\n# CONFIG_FINEIBT is not set\n\
        CONFIG_FTRACE_MCOUNT_USE_CC=y\nCONFIG_HAVE_OBJTOOL_NOP_MCOUNT=y\nCONFIG_UNWINDER_ORC=y\n\
        CONFIG_MITIGATION_RETPOLINE=y\nCONFIG_MITIGATION_RETHUNK=y\nCONFIG_MITIGATION_SLS=y\n\
        CONFIG_HAVE_STACK_VALIDATION=y\nCONFIG_HAVE_STATIC_CALL_INLINE=y\nCONFIG_HAVE_UACCESS_VALIDATION=y\n\
        CONFIG_PREFIX_SYMBOLS=y\nCONFIG_FUNCTION_PADDING_BYTES=16\nCONFIG_FUNCTION_PADDING_CFI=11\n";

    #[test]
    fn a_kernel_with_ibt_wants_what_its_vmlinux_got() {
        let want = "--hacks=jump_label --hacks=noinstr --hacks=skylake --ibt --orc --retpoline --rethunk --sls \
                    --static-call --uaccess --prefix=16 --link";
        assert_eq!(objtool_args(DEBIAN_6_12).join(" "), want);
    }

    #[test]
    fn a_kernel_without_ibt_and_lto_has_had_objtool_already() {
        let config =
            "CONFIG_OBJTOOL=y\nCONFIG_UNWINDER_ORC=y\nCONFIG_RETPOLINE=y\n# CONFIG_X86_KERNEL_IBT is not set\n";
        assert!(!is_delayed(config) && objtool_args(config).is_empty());
        let lto = format!("{config}CONFIG_LTO_CLANG=y\n");
        assert_eq!(objtool_args(&lto), ["--orc", "--retpoline", "--link"]);
    }

    #[test]
    fn nops_for_fentry_only_when_objtool_records_it() {
        let own = DEBIAN_6_12.replace("CONFIG_FTRACE_MCOUNT_USE_CC=y", "CONFIG_FTRACE_MCOUNT_USE_OBJTOOL=y");
        assert!(objtool_args(&own).join(" ").contains("--mcount --mnop --orc"));
        assert!(!objtool_args(DEBIAN_6_12).iter().any(|a| a == "--mnop"));
    }
}
