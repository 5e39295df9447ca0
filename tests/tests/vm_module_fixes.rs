//! Real fixes of the distribution in modules of the stock kernels, through `lpbuild build`: each is loaded when its module is away, which
//! then comes, goes and comes again, and when it is here; and taken out again. Where a fix changes what user space sees, that is seen
//! without it, with it, and without it again. Which fixes: tests/fixes/modules-*.toml. In one mode
//! each, in turn; `LPBUILD_CYCLES=1` tries each in all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use harness::vm::Vm;
use harness::workspace_root;
use lpbuild::holder::{HolderName, ModuleBinary};
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::Env;
use lpbuild_tests::bench::passes;
use lpbuild_tests::fixes::{Fixes, List};

/// `fix NAME MODE TARGET MODULE..`: the modules in the order they are loaded.
const FUNCTIONS: &str = r#"
of() { cat /sys/kernel/lpbuild/$1/$2; }
until_is() {
    for turn in $(seq 400); do
        [ "$(of $1 state)" != $2 ] || return 0
        sleep 0.05
    done
    of $1 blockers; of $1 last_error; fail "$1 is $(of $1 state), not $2"
}
load() { insmod /$1.ko mode=$2 || fail "insmod $1: $(dmesg | tail -3)"; until_is $1 applied; }
unload() { echo 0 > /sys/kernel/lpbuild/$1/enabled; until_is $1 reverted; rmmod $1 || fail "rmmod $1"; }
target() { expect_in "holders of $1" "$2 $3" "$(of $1 holders)"; }
up() { for module in $modules; do insmod /m/$module.ko || fail "insmod $module"; done; }
down() {
    back=; for module in $modules; do back="$module $back"; done
    for module in $back; do gone $module || fail "rmmod $module"; done
}
# Some are busy for a moment after they have come.
gone() {
    for turn in $(seq 100); do
        rmmod $1 2> /dev/null && return 0
        sleep 0.1
    done
    return 1
}
# What the workload of a fix prints on the stock kernel, and with the fix; without a workload nothing does.
work() { true; }
old= new=
looks() { expect "$name $1" "$2" "$(work 2>&1 | xargs)"; }
fix() {
    name=$1 mode=$2 target=$3; shift 3; modules="$*"
    step $name $mode
    # What the modules themselves, and what is done with them, leave in the kernel's text.
    up; looks 'before the load' "$old"; down; ktext save /tmp/text
    load $name $mode; target $name $target waiting
    up; target $name $target applied
    expect "references to $target" "$(cat /sys/module/$target/refcnt)" 0
    looks 'when the module has come' "$new"
    down; target $name $target waiting
    up; target $name $target applied
    unload $name; looks 'after the revert' "$old"
    load $name $mode; target $name $target applied; looks 'with the module here' "$new"; unload $name
    down
    ktext diff /tmp/text || fail "$name left something"
}
"#;

/// The modules that `name` needs, and itself, in the order they are loaded.
fn order(name: &str, known: &BTreeMap<String, PathBuf>, out: &mut Vec<ModuleBinary>) {
    if out.iter().any(|m| m.name == name) {
        return;
    }
    let path = known.get(name).unwrap_or_else(|| panic!("no module {name}"));
    let module = ModuleBinary::read(path).unwrap();
    for needed in &module.depends {
        order(needed, known, out);
    }
    out.push(module);
}

fn run(name: &str, series: &str, wanted: usize, seen: usize) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
    let list = List::read(&format!("modules-{series}")).unwrap();
    let maker = env.maker(&lpbuild);
    assert!(list.fix.len() >= wanted, "{series}");
    // The list is for one pair of versions.
    let Fixes { known: is_known, made } = list.make(&maker, "module", &|_| true, 0).unwrap_or_else(|e| panic!("{e:#}"));
    assert!(!is_known || made.len() == list.fix.len());
    assert!(list.fix.iter().filter(|f| f.seen.is_some()).count() >= seen, "{series}");
    let files = harness::runpre::RunPre::of(&env.kernel).unwrap();
    let finder = |modfile: &String| {
        let path = lpbuild::holder::ModuleFinder::file(files.files(), modfile).unwrap();
        (HolderName::of_file(modfile).to_string(), path)
    };
    let known: BTreeMap<String, PathBuf> = files.files().all().iter().map(finder).collect();
    let dir = workspace_root().join("target/fixes").join(format!("modules-{series}"));
    std::fs::create_dir_all(&dir).unwrap();
    let mut vm = Vm::new(&name.replace('_', "-"), &env.kernel).file("/bin/lpbuild", &lpbuild);
    vm = vm.device("virtio-balloon-pci");
    let mut script = FUNCTIONS.to_owned();
    let mut brought = Vec::new();
    let all = std::env::var_os("LPBUILD_CYCLES").is_some();
    for (i, fix) in made.iter().enumerate() {
        let listed = fix.fix.as_ref();
        let text = std::fs::read_to_string(fix.module.dir.join("manifest.toml")).unwrap();
        let manifest = Manifest::parse(&text, "manifest.toml").unwrap();
        let target = &manifest.functions[0].object;
        let mut modules = Vec::new();
        for more in listed.map_or(&[][..], |f| &f.with) {
            order(&HolderName::of_file(more).to_string(), &known, &mut modules);
        }
        order(target, &known, &mut modules);
        for module in &modules {
            if !brought.contains(&module.name) {
                let file = dir.join(format!("{}.ko", module.name));
                std::fs::write(&file, &module.content).unwrap();
                vm = vm.file(&format!("/m/{}.ko", module.name), &file);
                brought.push(module.name.clone());
            }
        }
        vm = vm.file(&format!("/{}.ko", fix.module.name), &fix.module.ko);
        let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
        let modes = ["transition", "stop-machine", "drain"];
        let some = if all { &modes[..] } else { std::slice::from_ref(&modes[i % 3]) };
        // What is seen is known of one pair of versions.
        match listed.and_then(|f| Some((&f.workload, f.seen.as_ref()?))).filter(|_| is_known) {
            Some((work, [old, new])) => {
                writeln!(script, "work() {{\n{}\n}}\nold='{old}' new='{new}'", work.trim()).unwrap();
            }
            None => writeln!(script, "work() {{ true; }}\nold= new=").unwrap(),
        }
        for mode in some {
            writeln!(script, "fix {} {mode} {target} {}", fix.module.name, names.join(" ")).unwrap();
        }
    }
    passes(&vm.case(&script).overtime(std::time::Duration::from_secs(900)));
}

#[test]
fn fixes_in_modules_of_61() {
    run("fixes_in_modules_of_61", "6.1", 18, 4);
}

#[test]
fn fixes_in_modules_of_612() {
    run("fixes_in_modules_of_612", "6.12", 16, 6);
}
