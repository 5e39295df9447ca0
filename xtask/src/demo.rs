//! `cargo xtask demo`: a fix becomes a module, goes into a stock kernel in a VM, and out again.

use std::fs;

use anyhow::{Context, Result};
use harness::module::Maker;
use harness::vm::Vm;
use harness::workspace_root;

/// The example run when none is named.
const FIRST: &str = "01-proc-cmdline";

pub fn task(args: &[String]) -> Result<()> {
    let example = workspace_root().join("examples").join(args.first().map_or(FIRST, String::as_str));
    let (kernel, tree) = crate::setup::run(crate::setup::SERIES)?;
    let lpbuild = crate::build::lpbuild()?;
    let module = Maker { lpbuild: &lpbuild, kernel: &kernel, tree: &tree }.example(&example)?;
    print!("{}", module.report);
    let show = fs::read_to_string(example.join("show.sh")).context("an example has a show.sh that shows its effect")?;
    let script = format!(
        "before=$(sh /show.sh); step before; echo \"$before\"\n\
         step load; lpbuild load /patch.ko; lpbuild status\n\
         during=$(sh /show.sh); step 'with the fix'; echo \"$during\"\n\
         step unload; lpbuild unload {name}; lpbuild status\n\
         after=$(sh /show.sh); step after; echo \"$after\"\n\
         [ \"$before\" != \"$during\" ] || fail 'the fix has no effect'\n\
         expect 'after unload' \"$before\" \"$after\"\n",
        name = module.name
    );
    println!("booting {} with {}", kernel.release, module.ko.display());
    let run = Vm::new("demo", &kernel)
        .file("/bin/lpbuild", &lpbuild)
        .file("/patch.ko", &module.ko)
        .text("/show.sh", &show)
        .case(&script)
        .run()?;
    for line in &run.transcript.case {
        println!("  {line}");
    }
    run.require_pass()?;
    println!("done in {:.1} s; log: {}", run.took.as_secs_f64(), run.log.display());
    Ok(())
}
