//! Messages of `trace_printk` in carried code, on both kernels: the module loader copies their formats, so that the trace can
//! be read before, while and after the patch is there.

use std::path::Path;

use harness::change::Change;
use harness::module::Module;
use harness::vm::Vm;
use lpbuild_tests::Env;

fn boot(name: &str, env: &Env, lpbuild: &Path, module: &Module, case: &str) {
    let vm = Vm::new(name, &env.kernel).file("/bin/lpbuild", lpbuild).case(case);
    vm.file(&format!("/{}.ko", module.name), &module.ko)
        .run()
        .unwrap()
        .require_pass()
        .unwrap_or_else(|e| panic!("{e:#}"));
}

/// A constant text, one with numbers, one with a string that is gone when the trace is read, and one whose format is not
/// constant.
fn change(env: &Env) -> Change {
    let source = &env.tree.source;
    let (old, new) = (
        "\tget_avenrun(avnrun, FIXED_1/200, 0);\n",
        concat!(
            "\tget_avenrun(avnrun, FIXED_1/200, 0);\n",
            "\ttrace_printk(\"lp: plain\\n\");\n",
            "\ttrace_printk(\"lp: pid %d\\n\", current->pid);\n",
            "\t{\n",
            "\t\tchar text[8] = { 'm', 'o', 'd', 'e', 0 };\n",
            "\t\tconst char *format = current->pid < 0 ? \"lp: odd %s\\n\" : \"lp: free %s\\n\";\n",
            "\n",
            "\t\ttrace_printk(\"lp: in %s\\n\", text);\n",
            "\t\ttrace_printk(format, text);\n",
            "\t}\n",
        ),
    );
    let change = Change::none().edit(source, "fs/proc/loadavg.c", old, new).unwrap();
    change
        .edit(
            source,
            "fs/proc/cmdline.c",
            "\tseq_putc(m, '\\n');\n",
            "\tseq_putc(m, '\\n');\n\ttrace_puts(\"lp: puts\\n\");\n",
        )
        .unwrap()
}

const CASE: &str = r#"
trace=/sys/kernel/tracing/trace
look() {
    text=$(cat $trace)
    for line in 'lp: plain' 'lp: pid [0-9]' 'lp: in mode' 'lp: free mode' 'lp: puts'; do
        echo "$text" | grep -q "$line" || fail "$1: no $line in the trace: $text"
    done
    cat /sys/kernel/tracing/per_cpu/cpu0/trace /sys/kernel/tracing/per_cpu/cpu1/trace > /dev/null
}
cat $trace > /dev/null
expect_not_in before 'lp: ' "$(cat $trace)"
for mode in transition drain stop-machine transition; do
    # Somebody reads all the while: through the load, the calls and the unload.
    (while [ ! -e /tmp/enough ]; do cat $trace /sys/kernel/tracing/printk_formats > /dev/null; done) & reader=$!
    lpbuild load --mode $mode /traced.ko
    cat /proc/loadavg /proc/cmdline > /dev/null
    look during
    expect_in formats 'lp: pid %d' "$(cat /sys/kernel/tracing/printk_formats)"
    lpbuild unload --mode $mode traced
    # What the module took up is used by others.
    dd if=/dev/zero of=/tmp/filled bs=64k count=200 2> /dev/null; rm /tmp/filled
    look after
    touch /tmp/enough
    wait $reader
    rm /tmp/enough
    echo > $trace
    cat /proc/loadavg > /dev/null
    expect_not_in gone 'lp: ' "$(cat $trace)"
    # With the first such module the kernel makes its buffers and begins to note the names of tasks, for good: tracepoints of the
    # scheduler are on from then (kernel/trace/trace.c, trace_printk_init_buffers).
    [ -e /tmp/text ] || ktext save /tmp/text
done
ktext diff /tmp/text
"#;

fn on(series: &str, name: &str) {
    let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
    // Tests run side by side: each has a module of its own.
    let own = format!("traced_{}", series.replace('.', "_"));
    let module = env.maker(&lpbuild).make(&own, &change(&env)).unwrap();
    boot(name, &env, &lpbuild, &module, &CASE.replace("traced", &own));
}

#[test]
fn a_trace_outlives_the_patch_on_6_1() {
    on("6.1", "a_trace_outlives_the_patch_on_6_1");
}

#[test]
fn a_trace_outlives_the_patch_on_6_12() {
    on("6.12", "a_trace_outlives_the_patch_on_6_12");
}
