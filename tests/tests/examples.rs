//! Every example does in a VM what its README says: another output with the fix, the first one again without it.

use std::fs;

use harness::vm::Vm;
use lpbuild_tests::{Env, in_checkout, on_both};

on_both! { examples_take_effect_and_leave_no_trace }

/// Lines of `series`: the kernels an example is for, where it is not for all.
fn is_for(example: &std::path::Path, series: &str) -> bool {
    fs::read_to_string(example.join("series")).map_or(true, |list| list.lines().any(|line| line == series))
}

fn examples_take_effect_and_leave_no_trace(series: &'static str) {
    let name = format!("examples on {series}");
    let Some((env, lpbuild)) = Env::series_with_lpbuild(&name, series) else { return };
    let mut examples: Vec<_> = fs::read_dir(in_checkout("examples")).unwrap().map(|e| e.unwrap().path()).collect();
    examples.retain(|e| e.join("fix.patch").exists() && is_for(e, series));
    examples.sort();
    assert!(!examples.is_empty());
    let mut vm = Vm::new(&format!("examples-{series}"), &env.kernel).file("/bin/lpbuild", &lpbuild);
    let mut script = String::new();
    for example in examples {
        let module = env.maker(&lpbuild).example(&example).unwrap();
        let name = &module.name;
        let script_of = |file: &str| fs::read_to_string(example.join(file));
        vm = vm.file(&format!("/{name}.ko"), &module.ko).text(&format!("/{name}.sh"), &script_of("show.sh").unwrap());
        // What is to be there when the patch comes.
        let around = script_of("around.sh").unwrap_or_default();
        script += &format!(
            "step {name}\n{around}\nktext save /tmp/text; before=$(sh /{name}.sh)\n\
             lpbuild load /{name}.ko; during=$(sh /{name}.sh); lpbuild unload {name}\n\
             expect after \"$before\" \"$(sh /{name}.sh)\"; ktext diff /tmp/text\n\
             [ \"$before\" != \"$during\" ] || fail 'the fix of {name} has no effect'\n",
        );
    }
    vm.case(&script).run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}
