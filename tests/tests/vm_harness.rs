//! The VM harness on a stock kernel: every way a guest can end is told apart, and the helpers do what they say.

use std::time::Duration;

use harness::vm::{Clock, Vm};
use lpbuild::trial::console::ConsoleVerdict;
use lpbuild_tests::Env;

#[test]
fn a_case_that_passes() {
    let Some(env) = Env::find("a_case_that_passes") else { return };
    let script = "result release $(uname -r); result cpus $(nproc); step done; mount | grep -q tracefs";
    let run = Vm::new("harness-pass", &env.kernel).case(script).run().unwrap();
    run.require_pass().unwrap();
    assert_eq!(run.result("release").unwrap(), env.kernel.release);
    assert_eq!(run.number("cpus").unwrap(), 2.0);
    assert!(run.kernel_said("lpbuild-case: done"), "{}", run.log_end(40));
}

#[test]
fn a_case_that_fails_gives_its_reason() {
    let Some(env) = Env::find("a_case_that_fails_gives_its_reason") else { return };
    let run = Vm::new("harness-fail", &env.kernel).case("expect colour red blue").run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::Fail("colour: expected 'red', got 'blue'".into()), "{}", run.log_end(40));
    let shown = run.require_pass().unwrap_err().to_string();
    assert!(shown.contains("LPBUILD-VERDICT: FAIL"), "{shown}");

    let run = Vm::new("harness-fail", &env.kernel).case("echo before; (exit 7); echo after").run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::Fail("the case exited with status 7".into()), "{}", run.log_end(40));
    assert!(!run.transcript.case.iter().any(|l| l == "after"));
}

#[test]
fn a_panic_is_seen() {
    let Some(env) = Env::find("a_panic_is_seen") else { return };
    let run = Vm::new("harness-panic", &env.kernel).case("echo c > /proc/sysrq-trigger").run().unwrap();
    assert!(matches!(&run.verdict, ConsoleVerdict::Fault(_)), "{:?}\n{}", run.verdict, run.log_end(40));
    assert!(run.kernel_said("sysrq triggered crash"), "{}", run.log_end(40));
}

#[test]
fn a_fault_counts_even_when_the_case_passes_unless_it_is_allowed() {
    let Some(env) = Env::find("a_fault_counts_even_when_the_case_passes") else { return };
    let vm = Vm::new("harness-warn", &env.kernel).case("echo '<4>WARNING: CPU: made up' > /dev/kmsg");
    let run = vm.run().unwrap();
    assert!(matches!(&run.verdict, ConsoleVerdict::Fault(line) if line.contains("made up")), "{}", run.log_end(40));
    vm.allow("WARNING: CPU: made up").run().unwrap().require_pass().unwrap();
}

#[test]
fn a_silent_guest_is_stopped() {
    let Some(env) = Env::find("a_silent_guest_is_stopped") else { return };
    let limit = Duration::from_secs(20);
    let run = Vm::new("harness-silent", &env.kernel).case("sleep 1000").silence(limit).run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::Silent(limit), "{}", run.log_end(40));
    assert!(run.took < limit * 4, "{:?}", run.took);
}

#[test]
fn a_guest_that_talks_forever_is_stopped() {
    let Some(env) = Env::find("a_guest_that_talks_forever_is_stopped") else { return };
    let limit = Duration::from_secs(25);
    let script = "while true; do echo x; sleep 1; done";
    let run = Vm::new("harness-overtime", &env.kernel).case(script).overtime(limit).run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::Overtime(limit), "{}", run.log_end(40));
}

#[test]
fn two_verdicts_are_none() {
    let Some(env) = Env::find("two_verdicts_are_none") else { return };
    let run = Vm::new("harness-two", &env.kernel).case("echo LPBUILD-VERDICT: PASS").run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::Several(2), "{}", run.log_end(40));
}

#[test]
fn no_verdict_is_no_pass() {
    let Some(env) = Env::find("no_verdict_is_no_pass") else { return };
    let run = Vm::new("harness-none", &env.kernel).case("poweroff -f; sleep 100").run().unwrap();
    assert_eq!(run.verdict, ConsoleVerdict::None, "{}", run.log_end(40));
}

#[test]
fn the_helpers_do_what_they_say() {
    let Some(env) = Env::find("the_helpers_do_what_they_say") else { return };
    let script = r"
        hammer /proc/uptime 1
        refused hammer /proc/uptime 1 'no such text'
        hammer /proc/uptime forever & H=$!
        sleep 1; kill $H
        mkfifo /tmp/fifo
        pipe-sleeper /tmp/fifo & P=$!
        wait-for /proc/$P/wchan pipe_read 10
        expect comm pipe-sleeper $(cat /proc/$P/comm)
        echo food > /tmp/fifo
        wait $P
        slabsum before
        result entry $(kmem cmdline_proc_show 5)
        refused kmem no_such_symbol 5
        refused wait-for /proc/version 'no such text' 0.1
        ktext save /tmp/text
        ktext diff /tmp/text
        expect 'address' 0x$(grep ' T _etext$' /proc/kallsyms | cut -d' ' -f1) $(address _etext)
        expect 'size of the text' $(($(address _etext) - $(address _text))) $(wc -c < /tmp/text)
        echo 'p:lp cmdline_proc_show+5' > /sys/kernel/tracing/kprobe_events
        echo 1 > /sys/kernel/tracing/events/kprobes/lp/enable
        refused ktext diff /tmp/text
        faulting-usercopy /proc/version read
    ";
    let run = Vm::new("harness-helpers", &env.kernel).case(script).run().unwrap();
    run.require_pass().unwrap();
    assert!(run.number("hammered").unwrap() > 100.0);
    assert_eq!(run.result("fed").unwrap(), "food");
    assert_eq!(run.result("entry").unwrap(), "0f1f440000");
    assert_eq!(run.result("errno").unwrap(), "14", "EFAULT");
    assert!(run.number("before_slab_kb").unwrap() > 1000.0);
    // One byte of a breakpoint, or five of the jump that the kernel makes of it a moment later.
    assert!(run.transcript.case.iter().any(|l| l.contains("cmdline_proc_show+0x5..")), "{}", run.log_end(60));
}

#[test]
fn a_module_made_with_the_headers_loads() {
    let Some(env) = Env::find("a_module_made_with_the_headers_loads") else { return };
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <linux/module.h>\n\
                  static int __init hello(void) { pr_info(\"hello from the module\\n\"); return 0; }\n\
                  static void __exit bye(void) { }\n\
                  module_init(hello);\nmodule_exit(bye);\nMODULE_LICENSE(\"GPL\");\n";
    std::fs::write(dir.path().join("hello.c"), source).unwrap();
    std::fs::write(dir.path().join("Kbuild"), "obj-m := hello.o\n").unwrap();
    let mut make = harness::cmd::command("make");
    make.arg("-C").arg(&env.kernel.headers).arg(format!("M={}", dir.path().display())).arg("modules");
    harness::cmd::output(&mut make).unwrap();
    let script = "insmod /hello.ko; lsmod | grep -q ^hello; rmmod hello; refused grep hello /proc/modules";
    let run = Vm::new("harness-module", &env.kernel)
        .file("/hello.ko", dir.path().join("hello.ko"))
        .case(script)
        .run()
        .unwrap();
    run.require_pass().unwrap();
    assert!(run.kernel_said("hello from the module"), "{}", run.log_end(40));
}

#[test]
fn instructions_are_counted_alike_in_two_runs() {
    let Some(env) = Env::find("instructions_are_counted_alike_in_two_runs") else { return };
    let cost = || {
        let vm = Vm::new("harness-icount", &env.kernel).clock(Clock::Instructions);
        let run = vm.case("read-cost /proc/cmdline 1000").run().unwrap();
        run.require_pass().unwrap().number("ns_per_read").unwrap()
    };
    let (a, b) = (cost(), cost());
    assert!(a > 100.0 && (a - b).abs() < 0.01, "{a} and {b} instructions per read");
}
