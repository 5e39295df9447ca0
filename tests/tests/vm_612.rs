//! The stock kernel of the 6.12 series: ENDBR, call padding, return thunks, constants written at boot, delayed objtool.
//!
//! Forms of a change, and who blocks; real fixes are in vm_fixes.rs. Emulators do not enforce indirect branch tracking;
//! `lpbuild pack` has proven the ENDBRs (LP4012).

use std::path::Path;

use harness::change::Change;
use harness::module::Module;
use harness::tree::Flags;
use harness::vm::Vm;
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::Env;

const SERIES: &str = "6.12";

fn boot(name: &str, env: &Env, lpbuild: &Path, modules: &[&Module], case: &str) {
    let mut vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(case);
    for module in modules {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn forms_of_a_change_on_6_12() {
    let Some((env, lpbuild)) = Env::series_with_lpbuild("forms_of_a_change_on_6_12", SERIES) else { return };
    let source = &env.tree.source;
    let new = "\tseq_puts(m, \" and patched\\n\");\n";
    let change = Change::none().edit(source, "fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n", new).unwrap();
    let maker = env.maker(&lpbuild);
    let plain = maker.make("plain_612", &change).unwrap();
    let sections = maker.make_of("sections_612", &env.tree.pair(&change, Flags::Sections).unwrap(), &[]).unwrap();
    let far = env.tree.pair(&change, Flags::Plain).unwrap();
    let far = maker.make_of("abs64_612", &far, &["--jump".into(), "abs64".into()]).unwrap();
    let script = r#"
ktext save /tmp/text
for ko in /*.ko; do
    name=$(basename $ko .ko)
    expect_not_in before 'and patched' "$(cat /proc/cmdline)"
    lpbuild load $ko
    expect_in patched 'and patched' "$(cat /proc/cmdline)"
    expect_in status applied "$(lpbuild status)"
    refused rmmod $name
    lpbuild unload $name
    expect_not_in after 'and patched' "$(cat /proc/cmdline)"
    ktext diff /tmp/text
done
"#;
    boot("forms-612", &env, &lpbuild, &[&plain, &sections, &far], script);
}

#[test]
fn a_task_asleep_in_the_function_blocks_on_6_12() {
    let Some((env, lpbuild)) = Env::series_with_lpbuild("a_task_asleep_in_the_function_blocks_on_6_12", SERIES) else {
        return;
    };
    let (old, new) = ("\t/* Null read succeeds. */\n", "\tif (total_len == 4242)\n\t\treturn -EPROTO;\n");
    let change = Change::none().edit(&env.tree.source, "fs/pipe.c", old, &format!("{new}{old}")).unwrap();
    let pair = env.tree.pair(&change, Flags::Plain).unwrap();
    let sleepy = env.maker(&lpbuild).make_of("sleepy_612", &pair, &["--mode".into(), "stop-machine".into()]).unwrap();
    let script = r#"
odd() { dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null 2>/dev/null; }
ktext save /tmp/text
mkfifo /tmp/fifo
pipe-sleeper /tmp/fifo & sleeper=$!
sleep 1
status=0; lpbuild load --mode stop-machine --deadline-ms 700 /sleepy_612.ko > /tmp/out 2>&1 || status=$?
out=$(cat /tmp/out); echo "$out"
expect status 4 $status
expect_in code LP5007 "$out"
expect_in blocker "$sleeper" "$out"
expect_in place pipe_read+ "$out"
ktext diff /tmp/text
echo wake > /tmp/fifo
wait $sleeper
lpbuild load --mode stop-machine /sleepy_612.ko
odd && fail 'the new function does not run'
pipe-sleeper /tmp/fifo > /tmp/fed & sleeper=$!
sleep 1
status=0; lpbuild unload --deadline-ms 700 sleepy_612 > /tmp/out 2>&1 || status=$?
out=$(cat /tmp/out); echo "$out"
expect status 4 $status
expect_in code LP5013 "$out"
expect_in blocker "$sleeper" "$out"
echo wake > /tmp/fifo
wait $sleeper
lpbuild unload sleepy_612
odd || fail 'the old function does not run'
ktext diff /tmp/text
"#;
    boot("asleep-612", &env, &lpbuild, &[&sleepy], script);
}

/// `version_proc_show` begins with an access to a per-CPU variable, which KASLR moves: the jump takes the place of the fentry
/// nop, which the image has as a call.
#[test]
fn a_jump_over_the_fentry_nop_on_6_12() {
    let Some((env, lpbuild)) = Env::series_with_lpbuild("a_jump_over_the_fentry_nop_on_6_12", SERIES) else { return };
    let (old, new) = ("\t\tutsname()->version);\n", "\t\tutsname()->version);\n\tseq_puts(m, \"patched\\n\");\n");
    let change = Change::none().edit(&env.tree.source, "fs/proc/version.c", old, new).unwrap();
    let over = env.maker(&lpbuild).make("over_612", &change).unwrap();
    let text = std::fs::read_to_string(over.dir.join("manifest.toml")).unwrap();
    assert_eq!(Manifest::parse(&text, "manifest").unwrap().functions[0].site.rule, "over-fentry");
    let script = r#"
ktext save /tmp/text
for mode in stop-machine drain transition; do
    lpbuild load --mode $mode /over_612.ko
    grep -q patched /proc/version || fail 'the new function does not run'
    lpbuild unload --mode $mode over_612
    refused grep -q patched /proc/version
    ktext diff /tmp/text
done
"#;
    boot("over-fentry-612", &env, &lpbuild, &[&over], script);
}
