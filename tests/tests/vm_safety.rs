//! The runtime's safety claims on the stock kernel: busy functions, identity, owners of the bytes.
//!
//! Two subjects: `cmdline_proc_show` (short, hot) and `pipe_read` (tasks sleep in it). The scripts for the latter must not use
//! `$(..)` around `lpbuild`: the shell would itself sleep in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::change::Change;
use harness::edits::{Edit, PIPE, SHORT};
use harness::module::Module;
use harness::mutate::elf::{Elf, put_reloc};
use harness::vm::Vm;
use lpbuild::backend::detour;
use lpbuild::hash::from_hex;
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::Env;

fn module(env: &Env, lpbuild: &Path, name: &str, (file, old, new): Edit) -> Module {
    let change = Change::none().edit(&env.tree.source, file, old, new).unwrap();
    env.maker(lpbuild).make(name, &change).unwrap()
}

fn boot(name: &str, env: &Env, lpbuild: &Path, modules: &[&Path], script: &str) {
    // Hundreds of cycles take minutes on a host that does other things as well.
    let limit = Duration::from_secs(1800);
    let mut vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(script).overtime(limit);
    for module in modules {
        vm = vm.file(&format!("/{}", module.file_name().unwrap().to_string_lossy()), module);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn a_task_asleep_in_the_old_function_blocks_loading() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_task_asleep_in_the_old_function_blocks_loading") else { return };
    let sleepy = module(&env, &lpbuild, "sleepy_old", PIPE);
    let script = r#"
ktext save /tmp/text
mkfifo /tmp/fifo
pipe-sleeper /tmp/fifo & sleeper=$!
sleep 1
status=0; lpbuild load --mode stop-machine --deadline-ms 700 /sleepy_old.ko > /tmp/out 2>&1 || status=$?
out=$(cat /tmp/out); echo "$out"
expect status 4 $status
expect_in code LP5007 "$out"
expect_in blocker "$sleeper" "$out"
expect_in place pipe_read+ "$out"
ktext diff /tmp/text
[ ! -e /sys/module/sleepy_old ] || fail 'the refused module stayed'
echo wake > /tmp/fifo
wait $sleeper
lpbuild load /sleepy_old.ko
dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null 2>/tmp/out && fail 'the new function does not run'
expect_in errno 'rotocol error' "$(cat /tmp/out)"
lpbuild unload sleepy_old
dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null
ktext diff /tmp/text
"#;
    boot("asleep-old", &env, &lpbuild, &[&sleepy.ko], script);
}

#[test]
fn a_task_asleep_in_the_new_function_blocks_unloading() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_task_asleep_in_the_new_function_blocks_unloading") else { return };
    let sleepy = module(&env, &lpbuild, "sleepy_new", PIPE);
    let script = r#"
ktext save /tmp/text
mkfifo /tmp/fifo
lpbuild load --mode stop-machine /sleepy_new.ko
refused rmmod sleepy_new
pipe-sleeper /tmp/fifo > /tmp/fed & sleeper=$!
sleep 1
status=0; lpbuild unload --deadline-ms 700 sleepy_new > /tmp/out 2>&1 || status=$?
out=$(cat /tmp/out); echo "$out"
expect status 4 $status
expect_in code LP5013 "$out"
expect_in blocker "$sleeper" "$out"
expect state applied "$(cat /sys/kernel/lpbuild/sleepy_new/state)"
expect_in blockers "$sleeper" "$(cat /sys/kernel/lpbuild/sleepy_new/blockers)"
expect_in place pipe_read+ "$(cat /sys/kernel/lpbuild/sleepy_new/blockers)"
refused rmmod sleepy_new
dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null && fail 'the new function no longer runs'
echo wake > /tmp/fifo
wait $sleeper
expect_in fed fed=wake "$(cat /tmp/fed)"
lpbuild unload sleepy_new
ktext diff /tmp/text
"#;
    boot("asleep-new", &env, &lpbuild, &[&sleepy.ko], script);
}

#[test]
fn removal_by_force_reverts_first() {
    let Some((env, lpbuild)) = Env::with_lpbuild("removal_by_force_reverts_first") else { return };
    let (hot, sleepy) = (module(&env, &lpbuild, "forced_hot", SHORT), module(&env, &lpbuild, "forced_sleepy", PIPE));
    let script = r#"
ktext save /tmp/text
lpbuild load --mode stop-machine /forced_hot.ko
expect_in patched patched "$(cat /proc/cmdline)"
rmmod -f forced_hot
[ ! -e /sys/module/forced_hot ] || fail 'the module stayed'
ktext diff /tmp/text
cat /proc/cmdline
mkfifo /tmp/fifo
lpbuild load --mode stop-machine --deadline-ms 300 /forced_sleepy.ko
pipe-sleeper /tmp/fifo > /tmp/fed & sleeper=$!
sleep 1
rmmod -f forced_sleepy & remover=$!
sleep 3
kill -0 $remover || fail 'the module went away under a task that sleeps in it'
expect_in blocker "pid=$sleeper" "$(dmesg | tail -20)"
echo wake > /tmp/fifo
wait $sleeper
expect_in fed fed=wake "$(cat /tmp/fed)"
wait $remover || fail 'rmmod failed'
[ ! -e /sys/module/forced_sleepy ] || fail 'the module stayed'
[ ! -e /sys/kernel/lpbuild ] || fail 'the folder of the patches is still there'
ktext diff /tmp/text
"#;
    boot("forced", &env, &lpbuild, &[&hot.ko, &sleepy.ko], script);
}

#[test]
fn another_owner_of_the_bytes_refuses_the_patch() {
    let Some((env, lpbuild)) = Env::with_lpbuild("another_owner_of_the_bytes_refuses_the_patch") else { return };
    let (one, two) = (module(&env, &lpbuild, "owner_one", SHORT), module(&env, &lpbuild, "owner_two", SHORT));
    let manifest = Manifest::parse(&fs::read_to_string(one.dir.join("manifest.toml")).unwrap(), "manifest").unwrap();
    let site = &manifest.functions[0].site;
    let script = format!(
        r#"
ktext save /tmp/text
events=/sys/kernel/tracing/kprobe_events
echo 'p:lp/site cmdline_proc_show+{offset}' > $events
# Registered, but not armed yet: the bytes are still the original ones.
if out=$(lpbuild load /owner_one.ko 2>&1); then fail "loaded over an unarmed kprobe: $out"; else expect status 4 $?; fi
expect_in kprobe LP5005 "$out"
echo 1 > /sys/kernel/tracing/events/lp/enable
if out=$(lpbuild load /owner_one.ko 2>&1); then fail "loaded over a kprobe: $out"; else expect status 4 $?; fi
expect_in kprobe LP5005 "$out"
[ ! -e /sys/module/owner_one ] || fail 'the refused module stayed'
echo 0 > /sys/kernel/tracing/events/lp/enable
echo '-:lp/site' >> $events
lpbuild load /owner_one.ko
if out=$(lpbuild load /owner_two.ko 2>&1); then fail "loaded a second patch: $out"; else expect status 4 $?; fi
expect_in user LP5107 "$out"
if insmod /owner_two.ko 2>/tmp/err; then fail 'inserted a second patch'; fi
expect_in runtime LP5004 "$(dmesg | tail -5)"
expect_in owner owner_one "$(dmesg | tail -5)"
[ ! -e /sys/module/owner_two ] || fail 'the refused module stayed'
expect_in first patched "$(cat /proc/cmdline)"
lpbuild unload owner_one
ktext diff /tmp/text
lpbuild load /owner_two.ko
lpbuild unload owner_two
ktext diff /tmp/text
"#,
        offset = site.offset
    );
    boot("owners", &env, &lpbuild, &[&one.ko, &two.ko], &script);
}

#[test]
fn of_two_patches_loaded_at_once_one_is_applied() {
    let Some((env, lpbuild)) = Env::with_lpbuild("of_two_patches_loaded_at_once_one_is_applied") else { return };
    let (one, two) = (module(&env, &lpbuild, "race_one", SHORT), module(&env, &lpbuild, "race_two", SHORT));
    let script = r#"
ktext save /tmp/text
hammer /proc/cmdline forever console patched > /tmp/hammer &
hammer=$!
for round in 1 2 3 4 5 6 7 8 9 10; do
    insmod /race_one.ko 2>/dev/null & one=$!
    insmod /race_two.ko 2>/dev/null & two=$!
    in=0
    wait $one && in=$((in + 1))
    wait $two && in=$((in + 1))
    expect "patches applied in round $round" 1 $in
    expect_in patched patched "$(cat /proc/cmdline)"
    for name in race_one race_two; do
        [ ! -e /sys/module/$name ] || lpbuild unload $name
    done
    ktext diff /tmp/text
done
[ ! -e /sys/kernel/lpbuild ] || fail 'the folder of the patches is still there'
kill -0 $hammer || fail 'the load ended early'
kill $hammer
"#;
    boot("race", &env, &lpbuild, &[&one.ko, &two.ko], script);
}

/// A copy of the module with bytes replaced wherever they occur.
fn altered(ko: &Path, name: &str, edits: &[(Vec<u8>, Vec<u8>)]) -> PathBuf {
    let mut bytes = fs::read(ko).unwrap();
    for (old, new) in edits {
        assert_eq!(old.len(), new.len());
        let places: Vec<usize> = (0..bytes.len() - old.len()).filter(|i| bytes[*i..].starts_with(old)).collect();
        assert!(!places.is_empty(), "nothing to alter");
        for at in places {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
    let path = ko.with_file_name(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn another_kernel_or_other_bytes_refuse_the_patch() {
    let Some((env, lpbuild)) = Env::with_lpbuild("another_kernel_or_other_bytes_refuse_the_patch") else { return };
    let hot = module(&env, &lpbuild, "identity", SHORT);
    let manifest = Manifest::parse(&fs::read_to_string(hot.dir.join("manifest.toml")).unwrap(), "manifest").unwrap();
    let kernel = manifest.kernel.clone().unwrap();
    let id = from_hex(&kernel.build_id).unwrap();
    let other: Vec<u8> = id.iter().map(|b| b ^ 1).collect();
    let hex = |b: &[u8]| lpbuild::hash::to_hex(b).into_bytes();
    // The record and every text that names the build: for `lpbuild load`. The record alone: for the runtime.
    let everywhere = altered(&hot.ko, "build_text.ko", &[(hex(&id), hex(&other)), (id.clone(), other.clone())]);
    let record = altered(&hot.ko, "build_record.ko", &[(id, other)]);
    let unsealed = record.with_file_name("unsealed.ko");
    fs::copy(&record, &unsealed).unwrap();
    fs::write(&record, detour::reseal(&fs::read(&record).unwrap(), &kernel).unwrap()).unwrap();
    // FuncRecord: site offset, size, jump kind and the fentry flag lead the expected bytes.
    let site = &manifest.functions[0].site;
    let original = site.original_bytes().unwrap();
    let mut expected = site.offset.to_le_bytes().to_vec();
    expected.extend_from_slice(&[site.size, 1, 0]);
    expected.extend_from_slice(&original);
    let mut wrong = expected.clone();
    *wrong.last_mut().unwrap() ^= 0x10;
    let site = altered(&hot.ko, "site.ko", &[(expected, wrong)]);
    let script = r#"
ktext save /tmp/text
if out=$(lpbuild load /build_text.ko 2>&1); then fail "loaded for another build: $out"; else expect status 4 $?; fi
expect_in user LP5104 "$out"
refused insmod /unsealed.ko
expect_in digest 'another digest' "$(dmesg | tail -3)"
refused insmod /build_record.ko
expect_in runtime LP5002 "$(dmesg | tail -3)"
refused insmod /site.ko
expect_in bytes LP5006 "$(dmesg | tail -3)"
expect modules '' "$(cat /proc/modules)"
[ ! -e /sys/kernel/lpbuild ] || fail 'the folder of the patches is still there'
ktext diff /tmp/text
lpbuild load /identity.ko
lpbuild unload identity
"#;
    boot("identity", &env, &lpbuild, &[&hot.ko, &everywhere, &record, &unsealed, &site], script);
}

#[test]
fn tracers_and_probes_of_the_function_keep_working() {
    let Some((env, lpbuild)) = Env::with_lpbuild("tracers_and_probes_of_the_function_keep_working") else { return };
    let hot = module(&env, &lpbuild, "traced", SHORT);
    // The fentry nop stays where it is, so whoever uses it does so before, with and after the patch.
    let script = r#"
t=/sys/kernel/tracing
hits() { grep -c "$1" $t/trace || true; }
echo 'p:lp/entry cmdline_proc_show' > $t/kprobe_events
echo 'r:lp/back cmdline_proc_show' >> $t/kprobe_events
echo cmdline_proc_show > $t/set_ftrace_filter
echo 1 > $t/events/lp/enable
echo function > $t/current_tracer
cat /proc/cmdline > /dev/null
expect traced 1 $(hits 'cmdline_proc_show <-')
expect entry 1 $(hits 'entry: (cmdline_proc_show')
lpbuild load /traced.ko
expect_in during patched "$(cat /proc/cmdline)"
expect traced 2 $(hits 'cmdline_proc_show <-')
expect entry 2 $(hits 'entry: (cmdline_proc_show')
expect back 2 $(hits 'back: (')
echo function_graph > $t/current_tracer
expect_in graph patched "$(cat /proc/cmdline)"
[ $(hits 'cmdline_proc_show()') -ge 1 ] || fail 'the graph tracer saw nothing'
echo nop > $t/current_tracer
echo function > $t/current_tracer
lpbuild unload traced
expect_not_in after patched "$(cat /proc/cmdline)"
[ $(hits 'cmdline_proc_show <-') -ge 1 ] || fail 'the function tracer lost its function'
echo nop > $t/current_tracer
echo 0 > $t/events/lp/enable
echo > $t/kprobe_events
"#;
    boot("neighbours", &env, &lpbuild, &[&hot.ko], script);
}

/// Modules whose records were damaged, half of them with the digest of what they have now, are refused or can be reverted.
fn damaged_records(test: &str, series: &str) {
    const MODULES: usize = 150;
    let Some((env, lpbuild)) = Env::series_with_lpbuild(test, series) else { return };
    let name = format!("damaged{}", series.replace('.', ""));
    let made = module(&env, &lpbuild, &name, SHORT);
    let manifest = Manifest::parse(&fs::read_to_string(made.dir.join("manifest.toml")).unwrap(), "manifest").unwrap();
    let kernel = manifest.kernel.unwrap();
    let whole = fs::read(&made.ko).unwrap();
    let folder = made.dir.join("damaged");
    fs::create_dir_all(&folder).unwrap();
    // xorshift64
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut paths = Vec::new();
    while paths.len() < MODULES {
        let mut bytes = whole.clone();
        let elf = Elf::read(bytes.clone()).unwrap();
        let kinds = [lpbuild_abi::SEC_PATCH, lpbuild_abi::SEC_FUNCS, lpbuild_abi::SEC_RANGES, lpbuild_abi::SEC_STRINGS];
        let kind = kinds[random(4)];
        let section = elf.sections.iter().position(|s| s.name == kind).unwrap();
        let relocs = elf.relocs(section, 0, u64::MAX).to_vec();
        if random(3) == 0 && !relocs.is_empty() {
            // Where an address leads.
            let mut reloc = relocs[random(relocs.len())].clone();
            reloc.addend = [1 << random(40), -(1 << random(40)), reloc.addend ^ 8][random(3)];
            put_reloc(&mut bytes, &reloc);
        } else {
            let start = elf.sections[section].file.start;
            for _ in 0..=random(3) {
                let at = start + random(elf.data(section).len());
                bytes[at] ^= 1 << random(8);
            }
        }
        if random(2) == 0
            && let Some(sealed) = detour::reseal(&bytes, &kernel)
        {
            bytes = sealed;
        }
        let path = folder.join(format!("damaged-{:03}.ko", paths.len()));
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    let script = r#"
ktext save /tmp/text
in=0
for ko in /damaged-*.ko; do
    if insmod $ko 2> /dev/null; then
        in=$((in + 1))
        name=$(sed -n '1s/ .*//p' /proc/modules)
        lpbuild unload $name > /dev/null || fail "$ko cannot be unloaded"
    fi
    expect modules '' "$(cat /proc/modules)"
done
echo "$in were harmless"
ktext diff /tmp/text
refused_oops=$(dmesg | grep -c 'BUG:\|Oops\|general protection' || true)
expect oopses 0 $refused_oops
lpbuild load /NAME.ko
lpbuild unload NAME
"#
    .replace("NAME", &name);
    let mut all: Vec<&Path> = vec![&made.ko];
    all.extend(paths.iter().map(|p| p.as_path()));
    boot(&name, &env, &lpbuild, &all, &script);
}

#[test]
fn damaged_records_never_break_the_kernel() {
    damaged_records("damaged_records_never_break_the_kernel", "6.1");
}

#[test]
fn damaged_records_never_break_a_newer_kernel() {
    damaged_records("damaged_records_never_break_a_newer_kernel", "6.12");
}
