//! Every example does in a VM what its README says: another output with the fix, the first one again without it.

use std::fs;

use harness::vm::Vm;
use lpbuild_tests::{Env, in_checkout};

#[test]
fn examples_take_effect_and_leave_no_trace() {
    let Some((env, lpbuild)) = Env::with_lpbuild("examples_take_effect_and_leave_no_trace") else { return };
    let mut examples: Vec<_> = fs::read_dir(in_checkout("examples")).unwrap().map(|e| e.unwrap().path()).collect();
    examples.retain(|e| e.join("fix.patch").exists());
    examples.sort();
    assert!(!examples.is_empty());
    let mut vm = Vm::new("examples", &env.kernel).file("/bin/lpbuild", &lpbuild);
    let mut script = String::new();
    for example in examples {
        let module = env.maker(&lpbuild).example(&example).unwrap();
        let name = &module.name;
        vm = vm
            .file(&format!("/{name}.ko"), &module.ko)
            .text(&format!("/{name}.sh"), &fs::read_to_string(example.join("show.sh")).unwrap());
        script += &format!(
            "step {name}\nktext save /tmp/text; before=$(sh /{name}.sh)\n\
             lpbuild load /{name}.ko; during=$(sh /{name}.sh); lpbuild unload {name}\n\
             expect after \"$before\" \"$(sh /{name}.sh)\"; ktext diff /tmp/text\n\
             [ \"$before\" != \"$during\" ] || fail 'the fix of {name} has no effect'\n",
        );
    }
    vm.case(&script).run().unwrap().require_pass().unwrap_or_else(|e| panic!("{e:#}"));
}
