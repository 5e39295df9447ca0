//! Callbacks and oneshot on the stock kernel: order, effect, what is undone, what is refused.

use std::path::Path;

use harness::change::Change;
use harness::module::Module;
use harness::tree::Flags;
use harness::vm::Vm;
use lpbuild_tests::Env;

const ALL: &[&str] = &[
    "--callback",
    "pre-apply=lpt_pre_apply",
    "--callback",
    "post-apply=lpt_post_apply",
    "--callback",
    "pre-revert=lpt_pre_revert",
    "--callback",
    "post-revert=lpt_post_revert",
];

/// Four callbacks that count, sleep and write to the log; `value` is what pre-apply returns. One of them is static.
fn callbacks(value: i32) -> String {
    format!(
        "#include <linux/delay.h>\n\
         static int lpt_calls;\n\
         int lpt_pre_apply(void) {{ msleep(20); lpt_calls++; pr_info(\"lpt: pre-apply %d\\n\", lpt_calls); return {value}; }}\n\
         static void __used lpt_post_apply(void) {{ msleep(20); lpt_calls++; pr_info(\"lpt: post-apply %d\\n\", lpt_calls); }}\n\
         void lpt_pre_revert(void) {{ msleep(20); lpt_calls++; pr_info(\"lpt: pre-revert %d\\n\", lpt_calls); }}\n\
         void lpt_post_revert(void) {{ msleep(20); lpt_calls++; pr_info(\"lpt: post-revert %d\\n\", lpt_calls); }}\n"
    )
}

/// `/proc/cmdline` begins with `patched` and, with callbacks, how often they were called.
fn hot(env: &Env, value: i32) -> Change {
    let file = "fs/proc/cmdline.c";
    let show = "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n";
    let new = format!("{}\n{show}\tseq_printf(m, \"patched %d \", lpt_calls);\n", callbacks(value));
    Change::none().edit(&env.tree.source, file, show, &new).unwrap()
}

/// Tasks sleep in `pipe_read`.
fn sleepy(env: &Env) -> Change {
    let (file, null) = ("fs/pipe.c", "\t/* Null read succeeds. */\n");
    let head = "static ssize_t\npipe_read(struct kiocb *iocb, struct iov_iter *to)\n{\n";
    let change = Change::none().edit(&env.tree.source, file, head, &format!("{}\n{head}", callbacks(0))).unwrap();
    let new = format!("\tif (total_len == 4242)\n\t\treturn -EPROTO;\n{null}");
    change.edit(&env.tree.source, file, null, &new).unwrap()
}

fn make(env: &Env, lpbuild: &Path, name: &str, change: &Change, options: &[&str]) -> Module {
    let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
    env.maker(lpbuild).make_of(name, &env.tree.pair(change, Flags::Plain).unwrap(), &options).unwrap()
}

fn boot(name: &str, env: &Env, lpbuild: &Path, modules: &[&Module], script: &str) {
    // `said`: what the callbacks wrote since the last time, in one line.
    let script = format!(
        "lines=0\nsaid() {{ dmesg | sed -n 's/.*lpt: //p' > /tmp/said; tail -n +$((lines + 1)) /tmp/said | tr '\\n' ','; \
         lines=$(wc -l < /tmp/said); }}\n{script}"
    );
    let mut vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(&script);
    for module in modules {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

#[test]
fn callbacks_are_called_in_their_places() {
    let Some((env, lpbuild)) = Env::with_lpbuild("callbacks_are_called_in_their_places") else { return };
    let order = make(&env, &lpbuild, "cb_order", &hot(&env, 0), ALL);
    let script = r#"
ktext save /tmp/text
for round in 1 2; do
    lpbuild load /cb_order.ko
    said > /tmp/now; expect apply 'pre-apply 1,post-apply 2,' "$(cat /tmp/now)"
    expect_in effect 'patched 2 ' "$(cat /proc/cmdline)"
    lpbuild unload cb_order
    said > /tmp/now; expect revert 'pre-revert 3,post-revert 4,' "$(cat /tmp/now)"
    [ ! -e /sys/module/cb_order ] || fail 'the module stayed'
    ktext diff /tmp/text
done
expect order "pre-apply post-apply applied pre-revert post-revert reverted pre-apply post-apply applied pre-revert post-revert reverted " \
    "$(dmesg | sed -n 's/.*lpt: \([a-z-]*\).*/\1/p; s/.*lpbuild: cb_order: \(applied\|reverted\) .*/\1/p' | tr '\n' ' ')"
"#;
    boot("callbacks-order", &env, &lpbuild, &[&order], script);
}

/// What changes no function can still be a patch: a value that only data has, set while it is applied and put back.
#[test]
fn callbacks_alone_are_a_patch() {
    let Some((env, lpbuild)) = Env::with_lpbuild("callbacks_alone_are_a_patch") else { return };
    let (file, head) = ("fs/file.c", "static void __free_fdtable(struct fdtable *fdt)\n{\n");
    let code = "static int __used lpt_begin(void)\n{\n\tif (sysctl_nr_open != 1024 * 1024)\n\t\treturn -EBUSY;\n\t\
                sysctl_nr_open = 2048 * 1024;\n\treturn 0;\n}\n\
                static void __used lpt_end(void)\n{\n\tsysctl_nr_open = 1024 * 1024;\n}\n";
    let change = Change::none().edit(&env.tree.source, file, head, &format!("{code}\n{head}")).unwrap();
    let options = ["--callback", "pre-apply=lpt_begin", "--callback", "post-revert=lpt_end"];
    let alone = make(&env, &lpbuild, "cb_alone", &change, &options);
    let script = r#"
ktext save /tmp/text
before=$(cat /proc/sys/fs/nr_open)
expect before 1048576 "$before"
for mode in drain transition stop-machine; do
    lpbuild load --mode $mode /cb_alone.ko
    expect "$mode during" 2097152 "$(cat /proc/sys/fs/nr_open)"
    expect_in "$mode status" applied "$(lpbuild status)"
    lpbuild unload cb_alone
    expect "$mode after" "$before" "$(cat /proc/sys/fs/nr_open)"
    [ ! -e /sys/module/cb_alone ] || fail 'the module stayed'
done
echo 65536 > /proc/sys/fs/nr_open
refused lpbuild load /cb_alone.ko
expect 'refused by its callback' 65536 "$(cat /proc/sys/fs/nr_open)"
ktext diff /tmp/text
"#;
    boot("callbacks-alone", &env, &lpbuild, &[&alone], script);
}

#[test]
fn pre_apply_refuses_the_patch() {
    let Some((env, lpbuild)) = Env::with_lpbuild("pre_apply_refuses_the_patch") else { return };
    let veto = make(&env, &lpbuild, "cb_veto", &hot(&env, -19), ALL);
    let script = r#"
ktext save /tmp/text
status=0; lpbuild load /cb_veto.ko > /tmp/out 2>&1 || status=$?
out=$(cat /tmp/out); echo "$out"
expect status 4 $status
expect_in code LP5015 "$out"
expect_in value 'returned -19' "$out"
said > /tmp/now; expect said 'pre-apply 1,' "$(cat /tmp/now)"
insmod /cb_veto.ko 2> /tmp/out && fail 'inserted'
expect_in errno 'o such device' "$(cat /tmp/out)"
[ ! -e /sys/module/cb_veto ] || fail 'the refused module stayed'
[ ! -e /sys/kernel/lpbuild ] || fail 'its folder stayed'
ktext diff /tmp/text
case $(cat /proc/cmdline) in patched*) fail 'the new code runs' ;; esac
"#;
    boot("callbacks-veto", &env, &lpbuild, &[&veto], script);
}

#[test]
fn what_was_begun_is_undone() {
    let Some((env, lpbuild)) = Env::with_lpbuild("what_was_begun_is_undone") else { return };
    let sleepy = make(&env, &lpbuild, "cb_sleepy", &sleepy(&env), ALL);
    let script = r#"
ktext save /tmp/text
mkfifo /tmp/fifo
pipe-sleeper /tmp/fifo & sleeper=$!
sleep 1
status=0; lpbuild load --mode stop-machine --deadline-ms 300 /cb_sleepy.ko > /tmp/out 2>&1 || status=$?
expect status 4 $status
expect_in code LP5007 "$(cat /tmp/out)"
said > /tmp/now; expect refused-apply 'pre-apply 1,post-revert 2,' "$(cat /tmp/now)"
ktext diff /tmp/text
echo wake > /tmp/fifo
wait $sleeper
lpbuild load --mode stop-machine /cb_sleepy.ko
pipe-sleeper /tmp/fifo > /tmp/fed & sleeper=$!
sleep 1
status=0; lpbuild unload --deadline-ms 300 cb_sleepy > /tmp/out 2>&1 || status=$?
expect status 4 $status
expect_in code LP5013 "$(cat /tmp/out)"
expect state applied "$(cat /sys/kernel/lpbuild/cb_sleepy/state)"
said > /tmp/now; expect refused-revert 'pre-apply 1,post-apply 2,pre-revert 3,post-apply 4,' "$(cat /tmp/now)"
echo wake > /tmp/fifo
wait $sleeper
lpbuild unload cb_sleepy
said > /tmp/now; expect revert 'pre-revert 5,post-revert 6,' "$(cat /tmp/now)"
ktext diff /tmp/text
"#;
    boot("callbacks-undo", &env, &lpbuild, &[&sleepy], script);
}

#[test]
fn a_oneshot_patch_stays() {
    let Some((env, lpbuild)) = Env::with_lpbuild("a_oneshot_patch_stays") else { return };
    let options = ["--oneshot", "--callback", "post-apply=lpt_post_apply", "--callback", "post-revert=lpt_post_revert"];
    let once = make(&env, &lpbuild, "cb_once", &hot(&env, 0), &options);
    let script = r#"
ktext save /tmp/text
lpbuild load /cb_once.ko
expect_in status oneshot "$(lpbuild status)"
expect file 1 "$(cat /sys/kernel/lpbuild/cb_once/oneshot)"
for try in 1 2; do
    status=0; lpbuild unload cb_once > /tmp/out 2>&1 || status=$?
    cat /tmp/out
    expect status 4 $status
    expect_in code LP5014 "$(cat /tmp/out)"
    expect_in why oneshot "$(cat /tmp/out)"
    expect state applied "$(cat /sys/kernel/lpbuild/cb_once/state)"
done
expect_in last_error LP5014 "$(cat /sys/kernel/lpbuild/cb_once/last_error)"
refused rmmod cb_once
expect_in effect 'patched 1 ' "$(cat /proc/cmdline)"
said > /tmp/now; expect callbacks 'post-apply 1,' "$(cat /tmp/now)"
# By force it goes all the same, without a jump into freed memory.
rmmod -f cb_once
[ ! -e /sys/module/cb_once ] || fail 'the module stayed'
said > /tmp/now; expect callbacks 'post-revert 2,' "$(cat /tmp/now)"
ktext diff /tmp/text
cat /proc/cmdline
"#;
    boot("oneshot", &env, &lpbuild, &[&once], script);
}
