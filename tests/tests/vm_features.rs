//! What kernel functions are made of, carried into the stock kernel and seen at work from user space: jump labels, static
//! calls, alternatives, WARN, exception tables, static locals, cold pieces; and real fixes of the distribution.

use std::path::Path;

use harness::change::Change;
use harness::module::Module;
use harness::vm::Vm;
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::Env;

fn boot(name: &str, env: &Env, lpbuild: &Path, modules: &[&Module], allow: &[&str], script: &str) {
    let mut vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(script);
    for module in modules {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    for text in allow {
        vm = vm.allow(text);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

fn edited(env: &Env, lpbuild: &Path, name: &str, edits: &[(&str, &str, &str)]) -> Module {
    let change =
        edits.iter().fold(Change::none(), |c, (file, old, new)| c.edit(&env.tree.source, file, old, new).unwrap());
    env.maker(lpbuild).make(name, &change).unwrap()
}

fn manifest(module: &Module) -> Manifest {
    Manifest::parse(&std::fs::read_to_string(module.dir.join("manifest.toml")).unwrap(), "manifest").unwrap()
}

/// Which sections of the module have contents.
fn sections(module: &Module) -> Vec<String> {
    use object::{Object as _, ObjectSection as _};
    let data = std::fs::read(module.dir.join("patch.o")).unwrap();
    let file = object::File::parse(&*data).unwrap();
    file.sections().filter(|s| s.size() > 0).filter_map(|s| Some(s.name().ok()?.to_owned())).collect()
}

fn assert_sections(module: &Module, wanted: &[&str]) {
    let have = sections(module);
    for name in wanted {
        assert!(have.iter().any(|h| h == name), "{}: no {name} in {have:?}", module.name);
    }
}

#[test]
fn jump_labels_static_calls_cold_pieces_and_static_locals() {
    let Some((env, lpbuild)) = Env::with_lpbuild("jump_labels_static_calls_cold_pieces_and_static_locals") else {
        return;
    };
    let oom = edited(
        &env,
        &lpbuild,
        "feature_oom",
        &[(
            "fs/proc/base.c",
            "\tmutex_lock(&oom_adj_mutex);\n\tif (legacy) {\n",
            "\tif (oom_adj > 500)\n\t\toom_adj = 500;\n\tmutex_lock(&oom_adj_mutex);\n\tif (legacy) {\n",
        )],
    );
    assert_sections(
        &oom,
        &["__jump_table", ".static_call_sites", ".smp_locks", ".return_sites", "__mcount_loc", ".orc_unwind"],
    );
    let function = &manifest(&oom).functions[0];
    assert!(function.symbol.contains("__set_oom_adj"), "{}", function.symbol);
    assert!(function.pieces.iter().any(|p| p.symbol.ends_with(".cold")), "no cold piece: {function:?}");
    // The deprecation warning sits in the cold piece and fires once per boot: in the new code here, and, since the flag
    // stays the kernel's own, not again in the old code afterwards.
    let script = r#"
ktext save /tmp/text
set_adj() { sh -c "echo $1 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"; }
legacy() { sh -c 'echo 1 > /proc/self/oom_adj'; }
warned() { dmesg | grep -c 'oom_adj is deprecated' || true; }
expect before 900 "$(set_adj 900)"
lpbuild load /feature_oom.ko
expect during 500 "$(set_adj 900)"
expect small 300 "$(set_adj 300)"
expect unwarned 0 "$(warned)"
legacy; legacy
expect warned 1 "$(warned)"
# The tracepoint's jump label in the new code, switched on and off while it runs.
echo 1 > /sys/kernel/tracing/events/oom/oom_score_adj_update/enable
expect traced 500 "$(set_adj 700)"
echo 0 > /sys/kernel/tracing/events/oom/oom_score_adj_update/enable
expect_in trace oom_score_adj=500 "$(cat /sys/kernel/tracing/trace)"
lpbuild unload feature_oom
expect after 900 "$(set_adj 900)"
legacy
expect once 1 "$(warned)"
ktext diff /tmp/text
"#;
    boot("feature-oom", &env, &lpbuild, &[&oom], &[], script);
}

#[test]
fn alternatives() {
    let Some((env, lpbuild)) = Env::with_lpbuild("alternatives") else { return };
    let meminfo = edited(
        &env,
        &lpbuild,
        "feature_alternatives",
        &[("fs/proc/meminfo.c", "\"MemTotal:       \", i.totalram", "\"MemPatched:     \", i.totalram")],
    );
    assert_sections(&meminfo, &[".altinstructions", ".altinstr_replacement"]);
    let script = r#"
ktext save /tmp/text
grep -q MemTotal: /proc/meminfo
lines=$(wc -l < /proc/meminfo)
lpbuild load /feature_alternatives.ko
grep -q MemPatched: /proc/meminfo
expect lines $lines $(wc -l < /proc/meminfo)
lpbuild unload feature_alternatives
grep -q MemTotal: /proc/meminfo
ktext diff /tmp/text
"#;
    boot("feature-alternatives", &env, &lpbuild, &[&meminfo], &[], script);
}

#[test]
fn a_warning_in_new_code_names_the_new_function() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_warning_in_new_code_names_the_new_function") else { return };
    let warn = edited(
        &env,
        &lpbuild,
        "feature_warn",
        &[(
            "fs/proc/base.c",
            "\tif (copy_from_user(buffer, buf, count > maxlen ? maxlen : count))\n\t\treturn -EFAULT;\n\n\tp = get_proc_task(inode);\n\tif (!p)\n\t\treturn -ESRCH;\n\n\tif (same_thread_group(current, p)) {\n",
            "\tif (copy_from_user(buffer, buf, count > maxlen ? maxlen : count))\n\t\treturn -EFAULT;\n\tWARN(buffer[0] == '!', \"odd name\\n\");\n\n\tp = get_proc_task(inode);\n\tif (!p)\n\t\treturn -ESRCH;\n\n\tif (same_thread_group(current, p)) {\n",
        )],
    );
    assert_sections(&warn, &["__bug_table"]);
    let script = r#"
name() { sh -c 'printf "%s" "$0" > /proc/self/comm; cat /proc/self/comm' "$1"; }
name '!old' > /dev/null
lpbuild load /feature_warn.ko
name plain > /dev/null
expect_not_in quiet WARNING: "$(dmesg)"
name '!new' > /dev/null
expect_in warning 'fs/proc/base.c' "$(dmesg | grep WARNING:)"
expect_in function 'comm_write+0x' "$(dmesg | grep WARNING:)"
expect_in module 'feature_warn' "$(dmesg | grep WARNING:)"
expect_in text 'odd name' "$(dmesg)"
expect_in unwound vfs_write "$(dmesg)"
lpbuild unload feature_warn
name '!old' > /dev/null
expect one 1 "$(dmesg | grep -c WARNING:)"
"#;
    boot("feature-warn", &env, &lpbuild, &[&warn], &["WARNING: CPU"], script);
}

#[test]
fn a_fault_in_new_code_reaches_its_fixup() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_fault_in_new_code_reaches_its_fixup") else { return };
    let readdir = edited(
        &env,
        &lpbuild,
        "feature_fault",
        &[(
            "fs/readdir.c",
            "\tint reclen = ALIGN(offsetof(struct linux_dirent64, d_name) + namlen + 1,\n\t\tsizeof(u64));\n\tint prev_reclen;\n\n",
            "\tint reclen = ALIGN(offsetof(struct linux_dirent64, d_name) + namlen + 1,\n\t\tsizeof(u64));\n\tint prev_reclen;\n\n\tif (namlen == 14 && !memcmp(name, \"lpbuild-hidden\", 14))\n\t\treturn true;\n",
        )],
    );
    assert_sections(&readdir, &["__ex_table"]);
    let script = r#"
ktext save /tmp/text
mkdir /tmp/d; touch /tmp/d/lpbuild-hidden /tmp/d/seen
expect before 'lpbuild-hidden seen' "$(echo $(ls /tmp/d))"
lpbuild load /feature_fault.ko
expect during seen "$(echo $(ls /tmp/d))"
expect_in efault errno=14 "$(faulting-getdents /tmp/d)"
expect again seen "$(echo $(ls /tmp/d))"
lpbuild unload feature_fault
expect after 'lpbuild-hidden seen' "$(echo $(ls /tmp/d))"
ktext diff /tmp/text
"#;
    boot("feature-fault", &env, &lpbuild, &[&readdir], &[], script);
}

#[test]
fn a_static_local_keeps_its_state() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_static_local_keeps_its_state") else { return };
    let syslog = edited(
        &env,
        &lpbuild,
        "feature_static",
        &[(
            "kernel/printk/printk.c",
            "\t\terror = log_buf_len;\n\t\tbreak;\n\tdefault:",
            "\t\terror = 4242;\n\t\tbreak;\n\tdefault:",
        )],
    );
    // syslog(2) keeps the console level of action 6 in a static local and puts it back with action 7.
    let script = r#"
level() { cut -f1 /proc/sys/kernel/printk; }
before=$(klogctl 10)
echo 5 > /proc/sys/kernel/printk
klogctl 6
expect off 1 "$(level)"
lpbuild load /feature_static.ko
expect_in during klogctl=4242 "$(klogctl 10)"
klogctl 7
expect 'level saved by the old code' 5 "$(level)"
echo 3 > /proc/sys/kernel/printk
klogctl 6
lpbuild unload feature_static
klogctl 7
expect 'level saved by the new code' 3 "$(level)"
expect after "$before" "$(klogctl 10)"
"#;
    boot("feature-static", &env, &lpbuild, &[&syslog], &[], script);
}

/// Files whose fixes between the pinned versions are known, and where others are looked for on another pair.
const FIXED: [(&str, &str); 2] = [("fix_sys", "kernel/sys.c"), ("fix_exec", "fs/exec.c")];
const FOLDERS: &[&str] =
    &["kernel", "kernel/time", "kernel/sched", "mm", "fs", "fs/proc", "lib", "net/core", "net/ipv4"];

#[test]
fn real_fixes_of_the_distribution() {
    let Some((env, lpbuild)) = Env::with_lpbuild("real_fixes_of_the_distribution") else { return };
    let kernel = &env.kernel;
    if (kernel.version.upstream(), kernel.new_version.upstream()) != ("6.1.187", "6.1.190") {
        return fixes_of_another_pair(&env, &lpbuild);
    }
    let newer = kernel.new_source();
    let mut modules = Vec::new();
    for (name, file) in FIXED {
        let change = Change::none().file_from(&newer, file).unwrap();
        modules.push(env.maker(&lpbuild).make(name, &change).unwrap());
    }
    // prctl(PR_SET_MM_AUXV) with a short vector left the rest of the old one in place before the fix in kernel/sys.c.
    let script = r#"
ktext save /tmp/text
auxv() { short-auxv | sed 's/.*=//'; }
before=$(auxv)
[ $before -gt 32 ] || fail "the old kernel already keeps $before bytes"
lpbuild load /fix_sys.ko
lpbuild load /fix_exec.ko
expect during 32 "$(auxv)"
for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'exec true'; done
expect_in status begin_new_exec "$(lpbuild status fix_exec)"
lpbuild unload fix_exec
lpbuild unload fix_sys
expect after $before "$(auxv)"
sh -c 'exec true'
ktext diff /tmp/text
"#;
    boot("real-fixes", &env, &lpbuild, &modules.iter().collect::<Vec<_>>(), &[], script);
}

/// The archive has moved on: the first files that differ and can be patched, with no effect known beforehand.
fn fixes_of_another_pair(env: &Env, lpbuild: &Path) {
    let (older, newer) = (env.kernel.old_source(), env.kernel.new_source());
    let mut modules = Vec::new();
    let mut files: Vec<String> = Vec::new();
    for folder in FOLDERS {
        let mut names: Vec<_> =
            std::fs::read_dir(older.join(folder)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        files.extend(
            names.iter().filter_map(|n| Some(format!("{folder}/{}", n.to_str()?))).filter(|n| n.ends_with(".c")),
        );
    }
    for file in files {
        let same = std::fs::read(older.join(&file)).ok() == std::fs::read(newer.join(&file)).ok();
        if same || modules.len() == 5 {
            continue;
        }
        // Not built in this configuration, changes nothing, or is refused: the next one.
        let name = format!("fix_{}", modules.len());
        let change = Change::none().file_from(&newer, &file).unwrap();
        match env.maker(lpbuild).make(&name, &change) {
            Ok(module) => modules.push(module),
            Err(e) => println!("{file}: {e:#}"),
        }
    }
    assert!(modules.len() >= 2, "no two fixes between the two versions can be patched");
    // Of a function that some task always sleeps in (do_wait) the patch is refused, and that is right.
    let script = r#"
ktext save /tmp/text
loaded=
for ko in /fix_*.ko; do
    status=0; lpbuild load --deadline-ms 2000 $ko || status=$?
    case $status in 0) loaded="$loaded $(basename $ko .ko)" ;; 4) ;; *) fail "load ended with $status" ;; esac
done
set -- $loaded
[ $# -ge 2 ] || fail "only $# fixes could be applied"
sh -c 'exec true'
for name; do lpbuild unload $name; done
ktext diff /tmp/text
"#;
    boot("real-fixes", env, lpbuild, &modules.iter().collect::<Vec<_>>(), &[], script);
}
