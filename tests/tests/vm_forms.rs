//! One change in every form it can be given: plain objects, objects built with -ffunction-sections, bound by `diff` or by
//! `pack`, one object or a tree of several. All must do the same in the running kernel.

use std::fs;

use harness::change::Change;
use harness::cmd;
use harness::tree::Flags;
use harness::vm::Vm;
use lpbuild_tests::Env;

/// A string in one file and logic in another.
fn change(env: &Env) -> Change {
    Change::none()
        .edit(&env.tree.source, "fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n", "\tseq_puts(m, \" and patched\\n\");\n")
        .and_then(|c| {
            c.edit(
                &env.tree.source,
                "fs/proc/uptime.c",
                "\tfor_each_possible_cpu(i) {\n",
                "\tfor (i = 0; i < 0; i++) {\n",
            )
        })
        .unwrap()
}

const CHECK: &str = r#"
check() {
    idle=$(cut -d' ' -f2 /proc/uptime)
    line=$(cat /proc/cmdline)
    case $1 in
    patched) expect_in string 'and patched' "$line"; expect idle 0.00 "$idle" ;;
    stock) expect_not_in string 'and patched' "$line"; [ "$idle" != 0.00 ] || fail 'idle time stays 0' ;;
    esac
}
ktext save /tmp/text
check stock
for ko in /*.ko; do
    name=$(basename $ko .ko)
    lpbuild load $ko
    check patched
    lpbuild unload $name
    check stock
    ktext diff /tmp/text
done
"#;

#[test]
fn every_form_of_a_change_does_the_same() {
    let Some((env, lpbuild)) = Env::with_lpbuild("every_form_of_a_change_does_the_same") else { return };
    let change = change(&env);
    let maker = env.maker(&lpbuild);
    let pair = env.tree.pair(&change, Flags::Plain).unwrap();
    let plain = maker.make_of("form_plain", &pair, &[]).unwrap();
    let sections = env.tree.pair(&change, Flags::Sections).unwrap();
    let sections = maker.make_of("form_sections", &sections, &[]).unwrap();
    let abs64 = maker.make_of("form_abs64", &pair, &["--jump".into(), "abs64".into()]).unwrap();

    // Bound by pack instead of diff: the very same module.
    let dir = tempfile::tempdir().unwrap();
    let symbolic = dir.path().join("patch");
    let mut diff = cmd::command(&lpbuild);
    diff.arg("diff").args([&pair.old, &pair.new]).args(["--name", "form_plain", "-o"]).arg(&symbolic);
    cmd::output(&mut diff).unwrap();
    let packed = dir.path().join("packed.ko");
    let mut pack = cmd::command(&lpbuild);
    pack.arg("pack").arg(&symbolic).arg("--kernel").arg(&env.kernel.vmlinuz).arg("--headers").arg(&env.kernel.headers);
    cmd::output(pack.arg("-o").arg(&packed)).unwrap();
    assert!(fs::read(&plain.ko).unwrap() == fs::read(&packed).unwrap(), "the module depends on which step bound it");

    // Without a kernel pack has nothing to bind to.
    let mut unbound = cmd::command(&lpbuild);
    let refused = unbound.arg("pack").arg(&symbolic).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("LP4002"), "{refused:?}");

    let mut vm = Vm::new("forms", &env.kernel).file("/bin/lpbuild", &lpbuild).case(CHECK);
    for module in [&plain, &sections, &abs64] {
        vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
    }
    vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}
