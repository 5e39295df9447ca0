//! Constants that change in their place, on both kernels and in each mode, with user space looking before, during and after.

use std::path::Path;

use harness::change::Change;
use harness::module::Module;
use harness::tree::Flags;
use harness::vm::Vm;
use lpbuild_tests::Env;

const FILE: &str = "fs/eventpoll.c";
const SEEK: &str = "\t.llseek\t\t= noop_llseek,\n";

/// The operations of epoll files, which open files have the address of, with another function for lseek(2).
fn table(env: &Env, seek: &str) -> Change {
    Change::none().edit(&env.tree.source, FILE, SEEK, &format!("\t.llseek\t\t= {seek},\n")).unwrap()
}

/// The same, and a function of another object.
fn both(env: &Env) -> Change {
    let new = "\tseq_puts(m, \" and patched\\n\");\n";
    table(env, "default_llseek").edit(&env.tree.source, "fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n", new).unwrap()
}

/// The entry leads to a function that the patch brings.
fn brought(env: &Env) -> Change {
    let head = "/* File callbacks that implement the eventpoll file behaviour */\n";
    let code = "static loff_t lpt_seek(struct file *file, loff_t at, int whence)\n{\n\treturn at * 6;\n}\n\n";
    table(env, "lpt_seek").edit(&env.tree.source, FILE, head, &format!("{code}{head}")).unwrap()
}

fn make(env: &Env, lpbuild: &Path, name: &str, change: &Change, options: &[&str]) -> Module {
    let all = ["--data", "eventpoll_fops"].iter().chain(options).map(|o| (*o).to_owned()).collect::<Vec<_>>();
    env.maker(lpbuild).make_of(name, &env.tree.pair(change, Flags::Plain).unwrap(), &all).unwrap()
}

fn boot(name: &str, env: &Env, lpbuild: &Path, modules: &[&Module], script: &str) {
    let script = format!(
        "epoll-seeker /tmp & seeker=$!\nsleep 1\n\
         seeks() {{ touch /tmp/ask; while [ -e /tmp/ask ]; do sleep 0.1; done; cat /tmp/answer; }}\n{script}\nkill $seeker\n"
    );
    let mut vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(&script);
    for module in modules {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}

fn on(series: &str, test: &str) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild(test, series) else { return };
    let alone = make(&env, &lpbuild, "data_alone", &table(&env, "default_llseek"), &[]);
    let together = make(&env, &lpbuild, "data_both", &both(&env), &[]);
    let other = make(&env, &lpbuild, "data_other", &table(&env, "generic_file_llseek"), &[]);
    let stays = make(&env, &lpbuild, "data_stays", &brought(&env), &["--oneshot"]);
    let script = r#"
ktext save /tmp/text
operations=$(kmem eventpoll_fops 280)
expect before '0 true' "$(seeks)"
for mode in drain transition stop-machine; do
    for name in data_alone data_both; do
        lpbuild load --dry-run --mode $mode /$name.ko
        expect "$name $mode untouched" "$operations" "$(kmem eventpoll_fops 280)"
        lpbuild load --mode $mode /$name.ko
        # Of a file that was opened before the load.
        expect "$name $mode during" '7 true' "$(seeks)"
        expect_in "$name $mode status" applied "$(lpbuild status)"
        refused lpbuild load /data_other.ko
        expect_in "$name $mode code" LP5033 "$(dmesg | tail -5)"
        expect "$name $mode still" '7 true' "$(seeks)"
        [ $name = data_alone ] || expect_in "$name $mode code" 'and patched' "$(cat /proc/cmdline)"
        lpbuild unload $name
        expect "$name $mode after" '0 true' "$(seeks)"
        expect "$name $mode as before" "$operations" "$(kmem eventpoll_fops 280)"
        [ ! -e /sys/module/$name ] || fail 'the module stayed'
    done
done
# Each in its turn.
lpbuild load /data_other.ko
lpbuild unload data_other
ktext diff /tmp/text
# A patch whose function the operations lead to stays.
lpbuild load /data_stays.ko
expect brought '42 true' "$(seeks)"
refused lpbuild unload data_stays
refused rmmod data_stays
expect 'stays' '42 true' "$(seeks)"
"#;
    boot(&format!("data-{series}"), &env, &lpbuild, &[&alone, &together, &other, &stays], script);
}

#[test]
fn constants_change_in_their_place() {
    on("6.1", "constants_change_in_their_place");
}

#[test]
fn constants_change_in_their_place_on_6_12() {
    on("6.12", "constants_change_in_their_place_on_6_12");
}
