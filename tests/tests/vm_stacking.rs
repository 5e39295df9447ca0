//! Patches on top of others (`after`) and in their place (`replaces`), on the stock kernels.
//!
//! `low` and `high` replace `cmdline_proc_show`, `low` also `pipe_read`. What runs can be seen in `/proc/cmdline`.

use std::path::PathBuf;

use harness::edits::{Edit, LOADAVG, PIPE, SHORT, SYNC};
use harness::module::Module;
use iced_x86::{Code, Decoder, DecoderOptions};
use lpbuild_tests::bench::{Bench, cycles, passes};
use lpbuild_tests::on_both;
use object::{Object, ObjectSection, ObjectSymbol};

/// In place of what `low` shows: the source below a patch is always the kernel's.
const HIGH: Edit = (
    "fs/proc/cmdline.c",
    "\tseq_puts(m, saved_command_line);\n",
    "\tseq_puts(m, \"higher \");\n\tseq_puts(m, saved_command_line);\n",
);

/// Shows the word and what was shown without it.
macro_rules! before_the_original {
    ($word:literal) => {
        (
            "fs/proc/cmdline.c",
            "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n\tseq_puts(m, saved_command_line);\n\
             \tseq_putc(m, '\\n');\n\treturn 0;\n",
            concat!(
                "extern int lp_original_cmdline_proc_show(struct seq_file *m, void *v);\n\
                 static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n\tseq_printf(m, \"",
                $word,
                " \");\n\treturn lp_original_cmdline_proc_show(m, v);\n"
            ),
        )
    };
}

/// `proc_pid_status` and a function it calls: one system call.
const FIRST: [Edit; 2] = [
    ("fs/proc/array.c", "seq_puts(m, \"State:\\t\");", "seq_puts(m, \"AAAAA:\\t\");"),
    ("fs/proc/task_mmu.c", "SEQ_PUT_DEC(\"VmPeak:\\t\"", "SEQ_PUT_DEC(\"AAAAAA:\\t\""),
];
/// One function is kept, one dropped, one added.
const SECOND: [Edit; 2] = [
    ("fs/proc/array.c", "seq_puts(m, \"State:\\t\");", "seq_puts(m, \"BBBBB:\\t\");"),
    ("kernel/cgroup/cpuset.c", "\"Mems_allowed:\\t%*pb\\n\"", "\"BBBB_allowed:\\t%*pb\\n\""),
];
/// The function that is called, alone and with its caller.
const CALLED: [Edit; 2] = [
    ("fs/proc/task_mmu.c", "SEQ_PUT_DEC(\"VmPeak:\\t\"", "SEQ_PUT_DEC(\"CCCCCC:\\t\""),
    ("fs/proc/array.c", "seq_puts(m, \"State:\\t\");", "seq_puts(m, \"CCCCC:\\t\");"),
];
const PIECES: &str = "AAAAA:=BBBBB: AAAAAA:=VmPeak: Mems_allowed:=BBBB_allowed:";

const SEEN: &str = r#"
begins() { cut -d' ' -f1 /proc/cmdline; }
shows() { expect 'version that runs' "$1" "$(begins)"; }
first=$(begins)
odd() { dd if=/dev/zero bs=4242 count=1 2>/dev/null | dd bs=4242 count=1 of=/dev/null 2>/dev/null; }
pipe_is() { if odd; then pipe=original; else pipe=new; fi; expect pipe_read $1 $pipe; }
"#;

on_both! {
    the_original_of_a_patch_on_top_is_the_one_below
    a_patch_on_top_of_another
    a_patch_in_the_place_of_another
    a_replacement_under_load_is_one_switch
    what_is_not_for_each_other
}

fn stack(name: &str, series: &'static str) -> Option<Bench> {
    let bench = Bench::find(name, series)?.module("low", &[SHORT, PIPE]);
    let bench = bench.module_as("high", "high", &[HIGH], &["--after", "low"]);
    Some(bench.module_as("instead", "instead", &[HIGH], &["--replaces", "low"]))
}

fn a_patch_on_top_of_another(series: &'static str) {
    let Some(bench) = stack("a_patch_on_top_of_another", series) else { return };
    let script = r#"
step 'not without the one below'
refuses LP5019 high
if out=$(lpbuild load /high.ko 2>&1); then fail "loaded: $out"; else expect status 4 $?; fi
expect_in code LP5019 "$out"
expect_in which low "$out"
clean

for mode in $modes; do
    step $mode
    load low mode=$mode
    shows patched
    ktext save /tmp/with_low
    load high mode=$mode
    shows higher
    pipe_is new
    expect_in after low "$(of high after)"
    stays LP5020 low
    if out=$(lpbuild unload low 2>&1); then fail "unloaded: $out"; else expect status 4 $?; fi
    expect_in code LP5020 "$out"
    shows higher
    unload high
    shows patched
    pipe_is new
    # The lower one's jump, byte for byte.
    ktext diff /tmp/with_low
    unload low
    shows $first
    pipe_is original
    clean
done

step 'the lower one is reverted, but still there'
load low
revert low
refuses LP5019 high
rmmod low

step 'patches of different functions go in any order'
load low
load loadavg
load high
expect_in loadavg patched "$(cat /proc/loadavg)"
unload loadavg
expect_not_in loadavg patched "$(cat /proc/loadavg)"
load loadavg
unload high
unload low
shows $first
expect_in loadavg patched "$(cat /proc/loadavg)"
unload loadavg
clean

step 'the upper one is removed by force'
load low
load high
rmmod -f high
shows patched
unload low
clean
"#;
    passes(&bench.module("loadavg", &[LOADAVG]).vm("stack-on-top", &format!("{SEEN}{script}")));
}

/// `lp_original_NAME`, in each mode and whatever the order: the lower fix is never lost, not for one reader.
fn the_original_of_a_patch_on_top_is_the_one_below(series: &'static str) {
    const TOP: Edit = before_the_original!("top");
    const NEXT: Edit = before_the_original!("next");
    let Some(bench) = Bench::find("the_original_of_a_patch_on_top_is_the_one_below", series) else { return };
    let bench = bench
        .module("low", &[SHORT, PIPE])
        .module("loadavg", &[LOADAVG])
        .module_as("top", "top", &[TOP], &["--after", "low"])
        .module_as("next", "next", &[NEXT], &["--after", "low", "--after", "top"])
        .module_as("top_alone", "top_alone", &[TOP], &["--after", "loadavg"])
        .module_as("next_for_low", "next_for_low", &[NEXT], &["--replaces", "low"])
        .module_as("next_for_top", "next_for_top", &[NEXT], &["--replaces", "top", "--after", "low"]);
    let script = r#"
read -r boot < /proc/cmdline
exactly() { read -r line < /proc/cmdline; expect 'what is shown' "$1$boot" "$line"; }
# Readers that come all the time see one of these, whatever happens.
watch() {
    rm -f /tmp/stop
    (while [ ! -e /tmp/stop ]; do
        read -r line < /proc/cmdline
        good=
        for may; do [ "$line" != "$may$boot" ] || good=1; done
        [ $good ] || { echo "$line" >> /tmp/wrong; break; }
    done) & watcher=$!
}
watched() { echo > /tmp/stop; wait $watcher; [ ! -e /tmp/wrong ] || fail "a reader saw: $(cat /tmp/wrong)"; }

for mode in $modes; do
    step "$mode, on top"
    load low mode=$mode
    exactly 'patched '
    watch 'patched ' 'top patched ' 'next top patched '
    load top mode=$mode
    exactly 'top patched '
    load next mode=$mode
    exactly 'next top patched '
    stays LP5020 low
    stays LP5020 top
    exactly 'next top patched '
    unload next
    exactly 'top patched '
    unload top
    watched
    exactly 'patched '
    step "$mode, in the place of the upper one"
    load top mode=$mode
    watch 'top patched ' 'next patched ' 'patched '
    load next_for_top mode=$mode
    exactly 'next patched '
    rmmod top
    exactly 'next patched '
    stays LP5020 low
    unload next_for_top
    watched
    exactly 'patched '
    step "$mode, in the place of the lower one"
    watch 'patched ' 'next '
    load next_for_low mode=$mode
    exactly 'next '
    rmmod low
    watched
    exactly 'next '
    unload next_for_low
    exactly ''
    step "$mode, below has another function"
    load loadavg
    load top_alone mode=$mode
    exactly 'top '
    unload top_alone
    unload loadavg
    exactly ''
    clean
done
step 'the upper one is removed by force'
load low
load top
rmmod -f top
exactly 'patched '
unload low
clean
"#;
    let preempt = if series == "6.12" { "preempt=full" } else { "" };
    passes(&bench.vm("stack-original", script).append(preempt));
}

fn a_patch_in_the_place_of_another(series: &'static str) {
    let Some(bench) = stack("a_patch_in_the_place_of_another", series) else { return };
    let script = r#"
refuses LP5019 instead
for mode in $modes; do
    step $mode
    load low mode=$mode
    pipe_is new
    load instead mode=$mode
    is low replaced
    shows higher
    # Not in the new set.
    pipe_is original
    expect_in replaces low "$(of instead replaces)"
    if [ $mode = drain ]; then lpbuild unload low; else rmmod low; fi
    shows higher
    pipe_is original
    unload instead
    shows $first
    clean
done

step 'the replaced one goes last'
load low
load instead
unload instead
is low replaced
shows $first
rmmod low
clean

step 'not while another lies on it'
load low
load high
refuses LP5019 instead
shows higher
pipe_is new
is low applied
unload high
# The attempt has left nothing behind that would be in the way now.
load instead
rmmod low
unload instead
clean

step 'a replacement that is refused leaves the other applied'
load low
mkfifo /tmp/fifo
pipe-sleeper /tmp/fifo > /tmp/fed & sleeper=$!
sleep 0.5
refuses LP5007 instead mode=stop-machine deadline_ms=500
is low applied
shows patched
pipe_is new
kill -0 $sleeper
echo wake > /tmp/fifo
wait $sleeper
load instead mode=stop-machine
pipe_is original
rmmod low
unload instead
clean
"#;
    passes(&bench.vm("stack-instead", &format!("{SEEN}{script}")));
}

/// Two sets of functions take turns; readers see the one or the other in a system call.
fn a_replacement_under_load_is_one_switch(series: &'static str) {
    let Some(bench) = Bench::find("a_replacement_under_load_is_one_switch", series) else { return };
    let bench = bench
        .module_as("turn_first", "turn_a", &FIRST, &[])
        .module_as("turn_a", "turn_a", &FIRST, &["--replaces", "turn_b"])
        .module_as("turn_b", "turn_b", &SECOND, &["--replaces", "turn_a"]);
    let script = format!(
        r#"
background forkstorm forever
for mode in $modes; do
    step $mode
    insmod /turn_first.ko mode=$mode
    until_is turn_a applied
    consistent /proc/self/status {seconds} {PIECES} > /tmp/consistent & reader=$!
    while kill -0 $reader 2> /dev/null; do
        load turn_b mode=$mode deadline_ms=60000
        is turn_a replaced
        rmmod turn_a
        load turn_a mode=$mode deadline_ms=60000
        is turn_b replaced
        rmmod turn_b
    done
    wait $reader
    cat /tmp/consistent
    # Each function by itself is switched at once in a drain, so there a call may see both.
    [ $mode = drain ] || grep -q 'mixed=0$' /tmp/consistent || fail "$mode: a system call saw two versions"
    grep -q '^RESULT new=[1-9]' /tmp/consistent || fail "$mode: the second version was never seen"
    grep -q '^RESULT old=[1-9]' /tmp/consistent || fail "$mode: the first version was never seen"
    unload turn_a
    clean
done
stop
"#,
        seconds = 2 * cycles(2),
    );
    passes(&bench.vm("stack-load", &script));
}

/// The module as another version of lpbuild would have packed it: `lpbuild_describe` tells which runtime it has.
fn with_another_runtime(module: &Module) -> PathBuf {
    let mut bytes = std::fs::read(&module.ko).unwrap();
    let at = {
        let file = object::File::parse(&*bytes).unwrap();
        let describe = file.symbol_by_name("lpbuild_describe").unwrap();
        let section = file.section_by_index(describe.section_index().unwrap()).unwrap();
        let (start, _) = section.file_range().unwrap();
        let code = &section.data().unwrap()[describe.address() as usize..][..describe.size() as usize];
        let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
        let mut found = Vec::new();
        while decoder.can_decode() {
            let insn = decoder.decode();
            if insn.code() == Code::Mov_r64_imm64 && insn.immediate64() != lpbuild_abi::MAGIC {
                let field = decoder.get_constant_offsets(&insn).immediate_offset();
                found.push(start + describe.address() + insn.ip() + field as u64);
            }
        }
        let [at] = found[..] else { panic!("{} numbers that may be the runtime's", found.len()) };
        at as usize
    };
    bytes[at] ^= 1;
    let ko = module.dir.join("another_runtime.ko");
    std::fs::write(&ko, bytes).unwrap();
    ko
}

fn what_is_not_for_each_other(series: &'static str) {
    let Some(bench) = stack("what_is_not_for_each_other", series) else { return };
    let stop = ["--mode", "stop-machine"];
    let bench = bench.module_as("sync", "sync", &[SYNC], &stop).module_as(
        "both",
        "both",
        &[HIGH, SYNC],
        &[&stop[..], &["--replaces", "low"]].concat(),
    );
    let bench = bench.module("calls", &FIRST).module_as("past", "past", &CALLED[..1], &["--after", "calls"]);
    let bench = bench.module_as("whole", "whole", &CALLED, &["--after", "calls"]);
    let bench = bench.module_as("rather", "rather", &CALLED[..1], &["--replaces", "calls"]);
    let [above, instead] = ["high", "instead"].map(|name| with_another_runtime(bench.made(name)));
    let script = r#"
step 'a mode there is not'
refuses LP5024 low mode=nonsense
clean

step 'another runtime'
load low
with=$(cat /sys/kernel/lpbuild/low/functions)
refuses LP5021 foreign_high
refuses LP5021 foreign_instead
if out=$(lpbuild load /foreign_high.ko 2>&1); then fail "loaded: $out"; else expect status 4 $?; fi
expect_in code LP5021 "$out"
expect_in which low "$out"
is low applied
expect functions "$with" "$(cat /sys/kernel/lpbuild/low/functions)"
# The hold on the other patch was given back.
load high
unload high
unload low
clean

step 'no dispatcher'
for mode in drain transition; do
    refuses LP5017 sync mode=$mode
    if out=$(lpbuild load --dry-run --mode $mode /sync.ko 2>&1); then fail "$mode: $out"; else expect status 4 $?; fi
    expect_in "$mode, dry run" LP5017 "$out"
    [ ! -e /sys/module/sync ] || fail 'the dry run left something'
done
clean
load sync
sync
unload sync
clean

step 'the one below calls its own function, past the one on top'
names='^(State|AAAAA|CCCCC|VmPeak|AAAAAA|CCCCCC):'
status() { expect 'in the same file' "$1 $2 " "$(grep -oE "$names" /proc/self/status | tr '\n' ' ')"; }
load calls
status AAAAA: AAAAAA:
refuses LP5027 past
if out=$(lpbuild load /past.ko 2>&1); then fail "loaded: $out"; else expect status 4 $?; fi
expect_in code LP5027 "$out"
expect_in which task_mem "$out"
status AAAAA: AAAAAA:
load whole
status CCCCC: CCCCCC:
unload whole
status AAAAA: AAAAAA:
load rather
status State: CCCCCC:
unload rather
rmmod calls
status State: VmPeak:
clean

step 'no dispatcher, in the place of another'
load low
refuses LP5017 both
is low applied
shows patched
pipe_is new
unload low
shows $first
clean
"#;
    let vm = bench.vm("stack-refused", &format!("{SEEN}{script}"));
    passes(&vm.file("/foreign_high.ko", &above).file("/foreign_instead.ko", &instead));
}
