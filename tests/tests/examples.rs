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
    for example in examples {
        let module = env.maker(&lpbuild).example(&example).unwrap();
        let script = format!(
            "ktext save /tmp/text; before=$(sh /show.sh)\n\
             lpbuild load /patch.ko; during=$(sh /show.sh); lpbuild unload {}\n\
             expect after \"$before\" \"$(sh /show.sh)\"; ktext diff /tmp/text\n\
             [ \"$before\" != \"$during\" ] || fail 'the fix has no effect'\n",
            module.name
        );
        let run = Vm::new(&format!("example-{}", module.name), &env.kernel)
            .file("/bin/lpbuild", &lpbuild)
            .file("/patch.ko", &module.ko)
            .text("/show.sh", &fs::read_to_string(example.join("show.sh")).unwrap())
            .case(&script)
            .run()
            .unwrap();
        run.require_pass().unwrap_or_else(|e| panic!("{}: {e:#}", example.display()));
    }
}
