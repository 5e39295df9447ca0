//! A patch beside everything else that changes code: tracers, probes, BPF, the kernel's own livepatch, jump labels, modules,
//! CPUs that go, a machine that sleeps.
//!
//! A tracer comes before the patch or after it, and goes before it or after it. Its hits are counted at every step while what
//! the function does is looked at, and the kernel's text is the same byte for byte at the end. A warning of the kernel ends
//! the test. `LPBUILD_CYCLES=50` tries all orders in all modes, and makes the cycles many.

use harness::edits::{Edit, SHORT};
use lpbuild::plan::manifest::Manifest;
use lpbuild_tests::bench::{Bench, cycles, passes};
use lpbuild_tests::on_both;

on_both! {
    function_tracer
    graph_tracer
    kprobe_and_kretprobe_of_the_function
    kprobe_in_the_body
    optimised_kprobe_in_the_body
    kprobe_on_the_jump
    bpf_on_entry_and_exit
    livepatch_of_the_kernel
    tracepoint_in_the_function
    cpus_that_go_and_come
    modules_that_come_and_go
    foreign_bytes_in_the_site
    machine_that_sleeps
}

/// The tests define `on`, `off` and `hits`, and in `where` which version is traced: `both`, `old` or `new`.
const ORDERS: &str = r#"
t=/sys/kernel/tracing
where=both
hit() { grep -c "$1" $t/trace || true; }
old=$(address cmdline_proc_show)
new() { echo 0x$(grep 'cmdline_proc_show.*\[short\]' /proc/kallsyms | head -1 | cut -d' ' -f1); }
traces() {
    case $where in both) want=1 ;; old) want=$((1 - loaded)) ;; new) want=$loaded ;; esac
    before=$(hits)
    if [ $loaded = 1 ]; then patched; else original; fi
    sleep 0.05
    after=$(hits)
    if [ $want = 1 ]; then [ $after -gt $before ] || fail "$mode, $order, $did: not traced: $before, $after"
    else expect "$mode, $order, $did: hits" $before $after; fi
}
order() {
    order=$* loaded=0 tracing=0
    for did; do
        case $did in
            on) on; tracing=1 ;;
            off) off; tracing=0 ;;
            load) load short mode=$mode; loaded=1 ;;
            unload) unload short; loaded=0 ;;
        esac
        if [ $tracing = 1 ]; then traces; elif [ $loaded = 1 ]; then patched; else original; fi
    done
    clean
}
orders() {
    if [ $all = 1 ]; then
        for mode in $modes; do every; done
    else
        set -- $modes; every "$@" $1
    fi
}
# The modes of the four orders; with none, the same one.
every() {
    mode=${1:-$mode}; order on load off unload
    mode=${2:-$mode}; order on load unload off
    mode=${3:-$mode}; order load on off unload
    mode=${4:-$mode}; order load on unload off
}
"#;

fn traced(name: &str, series: &'static str, script: &str) {
    let Some(bench) = Bench::find(name, series) else { return };
    let bench = bench.module("short", &[SHORT]);
    let (offset, size) = site(&bench, "short");
    let all = u8::from(std::env::var_os("LPBUILD_CYCLES").is_some());
    let script = format!("site={offset} size={size} all={all}\n{ORDERS}{script}");
    passes(&bench.vm(&format!("beside-{name}"), &script));
}

/// Distance from the function's beginning, and size.
fn site(bench: &Bench, module: &str) -> (u16, u8) {
    let text = std::fs::read_to_string(bench.made(module).dir.join("manifest.toml")).unwrap();
    let manifest = Manifest::parse(&text, "manifest").unwrap();
    (manifest.functions[0].site.offset, manifest.functions[0].site.size)
}

fn function_tracer(series: &'static str) {
    let script = r#"
on() { echo cmdline_proc_show > $t/set_ftrace_filter; echo function > $t/current_tracer; }
off() { echo nop > $t/current_tracer; echo > $t/set_ftrace_filter; }
hits() { hit 'cmdline_proc_show <-'; }
orders
"#;
    traced("function_tracer", series, script);
}

fn graph_tracer(series: &'static str) {
    let script = r#"
on() { echo cmdline_proc_show > $t/set_ftrace_filter; echo function_graph > $t/current_tracer; }
off() { echo nop > $t/current_tracer; echo > $t/set_ftrace_filter; }
hits() { hit 'cmdline_proc_show()'; }
orders
"#;
    traced("graph_tracer", series, script);
}

fn kprobe_and_kretprobe_of_the_function(series: &'static str) {
    let script = r#"
on() { echo "p:lp/entry $old" > $t/kprobe_events; echo "r:lp/back $old" >> $t/kprobe_events; echo 1 > $t/events/lp/enable; }
off() { echo 0 > $t/events/lp/enable; echo > $t/kprobe_events; }
hits() { in=$(hit ' entry: ('); out=$(hit ' back: ('); expect 'calls and returns' $in $out; echo $in; }
orders
"#;
    traced("kprobe_and_kretprobe_of_the_function", series, script);
}

/// `kmem` shows what follows the site: both versions have a load of ten there, five bytes that can be optimised.
const BODY: &str = r#"
# The first instruction `mov $0xa,%esi` of the function at $1.
body() { text=$(kmem $1 96); head=${text%%be0a000000*}; echo $((${#head} / 2)); }
in_old=$(body $old)
[ $in_old -ge $((site + size)) ] && [ $in_old -lt 48 ] || fail "no instruction to probe: $in_old"
on() {
    if [ $where = old ]; then at=$(printf '0x%x' $((old + in_old))); else at=short:cmdline_proc_show+$(body $(new)); fi
    echo "p:lp/body $at" > $t/kprobe_events
    echo 1 > $t/events/lp/enable
}
off() { echo 0 > $t/events/lp/enable; echo > $t/kprobe_events; }
hits() { hit ' body: ('; }
"#;

fn kprobe_in_the_body(series: &'static str) {
    let script = r#"
sysctl -w debug.kprobes-optimization=0
where=old
orders
# In the new code the probe can only come later; it does not keep the patch from going.
where=new
for mode in $modes; do order load on off unload; done
load short
on
revert short
original
rmmod short
off
clean
"#;
    traced("kprobe_in_the_body", series, &format!("{BODY}{script}"));
}

fn optimised_kprobe_in_the_body(series: &'static str) {
    let script = r#"
sysctl -w debug.kprobes-optimization=1
optimised() { wait-for /sys/kernel/debug/kprobes/list OPTIMIZED 10; }
where=old
on() {
    echo "p:lp/body $(printf '0x%x' $((old + in_old)))" > $t/kprobe_events
    echo 1 > $t/events/lp/enable
    optimised
}
orders
where=new
on() {
    echo "p:lp/body short:cmdline_proc_show+$(body $(new))" > $t/kprobe_events
    echo 1 > $t/events/lp/enable
    optimised
}
for mode in $modes; do order load on off unload; done
# Probes become jumps and int3 again while the patch comes and goes.
where=old
echo "p:lp/body $(printf '0x%x' $((old + in_old)))" > $t/kprobe_events
echo 1 > $t/events/lp/enable
flip() { while true; do sysctl -w debug.kprobes-optimization=0; sysctl -w debug.kprobes-optimization=1; done; }
idly flip > /dev/null & flipper=$!
for mode in $modes; do load short mode=$mode; patched; unload short; original; done
kill $flipper; wait $flipper || true
off
clean
"#;
    traced("optimised_kprobe_in_the_body", series, &format!("{BODY}{script}"));
}

fn kprobe_on_the_jump(series: &'static str) {
    let script = r#"
set_at() { echo "p:lp/site $(printf '0x%x' $((old + $1)))" > $t/kprobe_events; echo 1 > $t/events/lp/enable; }
hits() { hit ' site: ('; }
# The kernel turns optimised probes back with a delay, which it waits for when it is told to have none (unoptimize_all_kprobes,
# kernel/kprobes.c).
off() {
    echo 0 > $t/events/lp/enable
    echo > $t/kprobe_events
    allowed=$(cat /proc/sys/debug/kprobes-optimization)
    for on in 1 0 $allowed; do echo $on > /proc/sys/debug/kprobes-optimization; done
}
step 'before the patch: on the site, optimised or not'
for optimised in 0 1; do
    sysctl -w debug.kprobes-optimization=$optimised
    set_at $site
    [ $optimised = 0 ] || wait-for /sys/kernel/debug/kprobes/list OPTIMIZED 10
    for mode in $modes; do refuses LP5005 short mode=$mode; done
    before=$(hits); original; [ $(hits) -gt $before ] || fail 'the probe is not hit any more'
    off
    clean
done
for mode in $modes; do
    step "$mode: on the jump"
    load short mode=$mode
    ktext save /tmp/with
    set_at $site
    before=$(hits)
    patched
    [ $(hits) -gt $before ] || fail 'the probe is not hit'
    stays LP5005 short
    expect_in 'which function' cmdline_proc_show "$(of short last_error)"
    if out=$(lpbuild unload short 2>&1); then fail "unloaded: $out"; else expect status 4 $?; fi
    expect_in code LP5005 "$out"
    patched
    off
    ktext diff /tmp/with
    # In the NOP that fills the site up.
    if [ $size -gt 5 ]; then
        set_at $((site + 5))
        stays LP5005 short
        patched
        off
    fi
    unload short
    original
    clean
done
"#;
    traced("kprobe_on_the_jump", series, script);
}

fn bpf_on_entry_and_exit(series: &'static str) {
    let script = r#"
on() {
    rm -f /tmp/entry /tmp/exit
    bpf-count cmdline_proc_show entry /tmp/entry & bpf=$!
    bpf-count cmdline_proc_show exit /tmp/exit & bpf="$bpf $!"
    for place in entry exit; do
        for turn in $(seq 200); do [ ! -s /tmp/$place ] || break; sleep 0.05; done
        [ -s /tmp/$place ] || fail "no program on $place"
    done
}
off() { kill $bpf; wait $bpf || true; }
hits() {
    for turn in $(seq 50); do in=$(cat /tmp/entry); out=$(cat /tmp/exit); [ "$in" != "$out" ] || break; sleep 0.02; done
    expect 'calls and returns' "$in" "$out"
    echo $in
}
orders
"#;
    traced("bpf_on_entry_and_exit", series, script);
}

/// As samples/livepatch/livepatch-sample.c.
const KLP: &str = r#"
#include <linux/module.h>
#include <linux/livepatch.h>
#include <linux/seq_file.h>
static int lpt_klp_show(struct seq_file *m, void *v)
{
	seq_puts(m, "livepatched\n");
	return 0;
}
static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = lpt_klp_show, }, { } };
static struct klp_object objs[] = { { .funcs = funcs, }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
static int __init lpt_init(void)
{
	return klp_enable_patch(&patch);
}
static void __exit lpt_exit(void)
{
}
module_init(lpt_init);
module_exit(lpt_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"#;

fn livepatch_of_the_kernel(series: &'static str) {
    let Some(bench) = Bench::find("livepatch_of_the_kernel", series) else { return };
    let script = r#"
klp=/sys/kernel/livepatch/lpt_klp
settled() { for turn in $(seq 600); do [ "$(cat $klp/transition 2>/dev/null || echo 0)" = 0 ] && return 0; sleep 0.05; done; fail 'the livepatch does not settle'; }
klp_on() { insmod /lpt_klp.ko; settled; livepatched; }
klp_off() { echo 0 > $klp/enabled; settled; for turn in $(seq 100); do rmmod lpt_klp 2> /dev/null && return 0; sleep 0.05; done; fail 'rmmod lpt_klp'; }
livepatched() { expect livepatch livepatched "$(cat /proc/cmdline)"; }
for mode in $modes; do
    step "$mode: the livepatch is there first"
    klp_on
    refuses LP5023 short mode=$mode
    expect_in 'which function' cmdline_proc_show "$(dmesg | grep LP5023 | tail -1)"
    if out=$(lpbuild load /short.ko 2>&1); then fail "loaded: $out"; else expect status 4 $?; fi
    expect_in code LP5108 "$out"
    livepatched
    klp_off
    original
    clean
    load short mode=$mode
    patched

    step "$mode: it comes later, and goes first"
    klp_on
    out=$(lpbuild status)
    expect_in shown 'cmdline_proc_show is also replaced by the livepatch lpt_klp' "$out"
    klp_off
    patched
    expect_not_in shown lpt_klp "$(lpbuild status)"

    step "$mode: it comes later, and goes last"
    klp_on
    unload short
    livepatched
    klp_off
    original
    clean
done
"#;
    let bench = bench.module("short", &[SHORT]).other("lpt_klp", KLP);
    passes(&bench.vm("beside-livepatch", script).allow("tainting kernel"));
}

/// The tracepoint `oom_score_adj_update` is a jump label and a static call in `__set_oom_adj`.
const OOM: Edit = (
    "fs/proc/base.c",
    "\tmutex_lock(&oom_adj_mutex);\n\tif (legacy) {\n",
    "\tif (oom_adj > 500)\n\t\toom_adj = 500;\n\tmutex_lock(&oom_adj_mutex);\n\tif (legacy) {\n",
);

fn tracepoint_in_the_function(series: &'static str) {
    let Some(bench) = Bench::find("tracepoint_in_the_function", series) else { return };
    let script = r#"
event=/sys/kernel/tracing/events/oom/oom_score_adj_update/enable
adjusted() { sh -c "echo 900 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"; }
traced() { grep -c "oom_score_adj=$1\$" /sys/kernel/tracing/trace || true; }
toggle() { while true; do echo 1 > $event; sleep 0.02; echo 0 > $event; sleep 0.01; done; }
run() { while true; do echo 900 > /proc/self/oom_score_adj; echo 0 > /proc/self/oom_score_adj; done; }
background idly toggle
background idly run
for mode in $modes; do
    for round in $(seq $rounds); do
        load oom mode=$mode
        expect new 500 "$(adjusted)"
        unload oom
        expect old 900 "$(adjusted)"
    done
done
kill -0 $pids || fail 'the load ended early'
kill $pids; wait $pids || true; pids=
# Set before the patch, it traces in the new code; set in the new code, it traces in the old one.
for first in 0 1; do
    echo $first > $event
    load oom
    echo $((1 - first)) > $event
    adjusted > /dev/null
    echo 1 > $event
    before=$(traced 500); adjusted > /dev/null; after=$(traced 500)
    [ $after -gt $before ] || fail 'the tracepoint is not hit in the new code'
    unload oom
    before=$(traced 900); adjusted > /dev/null; after=$(traced 900)
    [ $after -gt $before ] || fail 'the tracepoint is not hit in the old code'
done
echo 0 > $event
sleep 0.2
clean
"#;
    let script = format!("rounds={}\n{script}", cycles(2));
    passes(&bench.module("oom", &[OOM]).vm("beside-tracepoint", &script));
}

/// Loads and unloads in every mode while something goes on in the background.
fn cycling(name: &str, bench: Bench, load: &str, after: &str) {
    let script = format!(
        r#"
background hot 2 /proc/cmdline
{load}
for mode in $modes; do
    for round in $(seq {rounds}); do
        load short mode=$mode
        patched
        unload short
        original
    done
done
stop
{after}
clean
"#,
        rounds = cycles(2)
    );
    let run = passes(&bench.module("short", &[SHORT]).vm(name, &script).cpus(4));
    println!("{name}: {:.1} s", run.took.as_secs_f64());
}

fn cpus_that_go_and_come(series: &'static str) {
    let Some(bench) = Bench::find("cpus_that_go_and_come", series) else { return };
    let after = "for cpu in 1 2 3; do echo 1 > /sys/devices/system/cpu/cpu$cpu/online || true; done";
    // The second one at another pace, so that they meet in all ways.
    let load = r#"
storm() { while true; do for on in 0 1; do echo $on > /sys/devices/system/cpu/cpu$1/online || true; sleep 0.0$2; done; done 2> /dev/null; }
background storm 1 3
background storm 2 7
"#;
    cycling("beside-hotplug", bench, load, after);
}

/// With a function to trace, a jump label and an alternative: each load changes the text of the module.
const PLAIN: &str = r#"
#include <linux/module.h>
#include <linux/jump_label.h>
static DEFINE_STATIC_KEY_FALSE(lpt_key);
noinline int lpt_plain(void)
{
	return static_branch_unlikely(&lpt_key) ? 1 : 0;
}
static int __init lpt_init(void)
{
	static_branch_enable(&lpt_key);
	return lpt_plain() == 1 ? 0 : -EINVAL;
}
static void __exit lpt_exit(void)
{
	static_branch_disable(&lpt_key);
}
module_init(lpt_init);
module_exit(lpt_exit);
MODULE_LICENSE("GPL");
"#;

fn modules_that_come_and_go(series: &'static str) {
    let Some(bench) = Bench::find("modules_that_come_and_go", series) else { return };
    cycling(
        "beside-modules",
        bench.other("lpt_plain", PLAIN),
        "background modstorm /lpt_plain.ko lpt_plain forever",
        "",
    );
}

/// Changes one byte of the kernel's text as long as it is loaded.
const POKE: &str = r#"
#include <linux/module.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
static unsigned long address;
module_param(address, ulong, 0);
static unsigned char *byte;
static int __init lpt_init(void)
{
	struct page *page = virt_to_page((void *)address);
	unsigned char *view = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!view)
		return -ENOMEM;
	byte = view + offset_in_page(address);
	*byte ^= 1;
	return 0;
}
static void __exit lpt_exit(void)
{
	*byte ^= 1;
	vunmap((void *)((unsigned long)byte & PAGE_MASK));
}
module_init(lpt_init);
module_exit(lpt_exit);
MODULE_LICENSE("GPL");
"#;

fn foreign_bytes_in_the_site(series: &'static str) {
    let Some(bench) = Bench::find("foreign_bytes_in_the_site", series) else { return };
    let bench = bench.module("short", &[SHORT]).other("lpt_poke", POKE);
    let (offset, size) = site(&bench, "short");
    assert!(size > 5, "no byte behind the jump that is never executed");
    let script = format!("at=$(($(address cmdline_proc_show) + {offset} + {size} - 1))");
    let script = script
        + r#"
poke() { insmod /lpt_poke.ko address=$(printf '0x%x' $at); }
for mode in $modes; do
    step $mode
    load short mode=$mode
    ktext save /tmp/with
    poke
    stays LP5012 short
    expect_in 'which function' cmdline_proc_show "$(of short last_error)"
    if out=$(lpbuild unload short 2>&1); then fail "unloaded: $out"; else expect status 4 $?; fi
    expect_in code LP5012 "$out"
    patched
    # Nothing was written over it.
    rmmod lpt_poke
    ktext diff /tmp/with
    unload short
    original
    clean
done
"#;
    passes(&bench.vm("beside-foreign", &script));
}

/// All CPUs but one go off, and that one goes through the firmware (`mem`, ACPI S3).
fn machine_that_sleeps(series: &'static str) {
    let Some(bench) = Bench::find("machine_that_sleeps", series) else { return };
    let script = r#"
rtc=/sys/class/rtc/rtc0
nap() {
    echo 0 > $rtc/wakealarm
    echo +2 > $rtc/wakealarm
    echo mem > /sys/power/state || fail "the machine does not sleep: $(dmesg | tail -5)"
    # It was asleep, and all CPUs are back.
    expect_in log 'Waking up from system sleep state S3' "$(dmesg | tail -40)"
    expect CPUs 0-1 "$(cat /sys/devices/system/cpu/online)"
}
step 'applied, and asleep'
load short
nap
patched
unload short
original
clean
# User mode is frozen, insmod included; the thread of the patch is not.
for mode in $modes; do
    step "asleep during $mode"
    (while [ ! -e /tmp/enough ]; do load short mode=$mode; unload short; done) & cycler=$!
    for turn in $(seq $naps); do sleep 0.3; nap; done
    touch /tmp/enough
    wait $cycler
    rm /tmp/enough
    original
    clean
done
"#;
    let script = format!("naps={}\n{script}", cycles(1));
    // The alarm of the clock is an event of ACPI, not of the HPET.
    // QEMU 10.0 with a thread per CPU now and then does not start the second CPU of a machine that wakes up, on a loaded host.
    passes(&bench.module("short", &[SHORT]).vm("beside-sleep", &script).append("hpet=disable").take_turns());
}
