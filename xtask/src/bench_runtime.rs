//! The runtime: what a call costs, how long the machine stops, how long a switch takes, each beside the kernel's livepatch or
//! the plain way. Under `-icount` a nanosecond of the guest is an instruction, so that a run can be repeated anywhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::change::Change;
use harness::edits::{CLONE, Edit, SHORT, SYNC};
use harness::kernels::Kernel;
use harness::module::{Maker, Module};
use harness::tree::{Flags, Tree};
use harness::vm::{Clock, Run, Vm};
use harness::workspace_root;

/// `int_sqrt`: the bits are not set yet, so the new function does the same in as many instructions.
const SQRT: Edit = (
    "lib/math/int_sqrt.c",
    "\t\t\ty += m;\n\t\t}\n\t\tm >>= 2;\n\t}\n\n\treturn y;\n}\nEXPORT_SYMBOL(int_sqrt);",
    "\t\t\ty |= m;\n\t\t}\n\t\tm >>= 2;\n\t}\n\n\treturn y;\n}\nEXPORT_SYMBOL(int_sqrt);",
);

/// Sleeping threads beside which the machine is stopped.
const THREADS: [u32; 3] = [100, 1_000, 10_000];
/// How often each kind of switch is made.
pub const ROUNDS: u32 = 5;
const MODES: [&str; 3] = ["stop-machine", "drain", "transition"];

const FUNCTIONS: &str = r#"
cost() { read -r cost < /sys/module/lpb_meter/parameters/per_call; result $1 $cost; }
klp() { echo /sys/kernel/livepatch/$1/transition; }
klp_gone() {
    echo 0 > /sys/kernel/livepatch/$1/enabled
    while [ -e /sys/kernel/livepatch/$1 ]; do sleep 0.1; done
    rmmod $1
}
insmod /lpb_meter.ko
"#;

struct Bench<'a> {
    series: &'static str,
    lpbuild: &'a Path,
    kernel: Kernel,
    tree: Tree,
    /// The folder of the modules in tests/bench.
    modules: PathBuf,
}

/// All of it, or only how long a load takes where nobody is in the way.
pub fn run(lpbuild: &Path, all: bool) -> Result<()> {
    for series in ["6.1", "6.12"] {
        let (kernel, tree) = crate::setup::run(series)?;
        let from = workspace_root().join("tests/bench/modules");
        let modules = tree.external_modules(&kernel, &format!("bench-{series}"), &from)?;
        let bench = Bench { series, lpbuild, kernel, tree, modules };
        if all {
            bench.calls()?;
            bench.stops()?;
            bench.switches()?;
        }
        bench.loads()?;
    }
    Ok(())
}

impl Bench<'_> {
    fn patch(&self, name: &str, edits: &[Edit], options: &[&str]) -> Result<Module> {
        let maker = Maker { lpbuild: self.lpbuild, kernel: &self.kernel, tree: &self.tree };
        let change =
            edits.iter().try_fold(Change::none(), |c, (f, old, new)| c.edit(&self.tree.source, f, old, new))?;
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        maker.make_of(name, &self.tree.pair(&change, Flags::Plain)?, &options)
    }

    fn vm(&self, name: &str, patches: &[&Module], script: &str) -> Vm {
        let mut vm = Vm::new(&format!("bench-{name}-{}", self.series), &self.kernel).file("/bin/lpbuild", self.lpbuild);
        for module in patches {
            vm = vm.file(&format!("/{}.ko", module.name), &module.ko);
        }
        for name in ["lpb_meter", "klp_sqrt", "klp_cmdline"] {
            let file = format!("{name}.ko");
            vm = vm.file(&format!("/{file}"), self.modules.join(&file));
        }
        let long = Duration::from_secs(1800);
        vm.case(&format!("{FUNCTIONS}{script}")).clock(Clock::Instructions).silence(long).overtime(long)
    }

    /// Instructions per call, the loop of the caller included.
    fn calls(&self) -> Result<()> {
        let one = self.patch("bench_sqrt", &[SQRT], &[])?;
        let open = self.patch("bench_open", &[SQRT, CLONE], &[])?;
        let script = r#"
cost unpatched
lpbuild load /bench_sqrt.ko; cost patched; lpbuild unload bench_sqrt
cost reverted
insmod /klp_sqrt.ko
wait-for $(klp klp_sqrt) 0 100
cost klp
klp_gone klp_sqrt
sleepers 1 > /tmp/sleeping & sleeper=$!
wait-for /tmp/sleeping sleeping= 10; sleep 0.5
insmod /klp_sqrt.ko open=1; sleep 2
read -r open < $(klp klp_sqrt); expect open 1 $open
cost klp_switched
kill -9 $sleeper; wait $sleeper || true
wait-for $(klp klp_sqrt) 0 100
klp_gone klp_sqrt
vforker > /tmp/vforker & holder=$!
wait-for /tmp/vforker vforking= 10
step transition
dd if=/sys/module/lpb_meter/parameters/watch of=/tmp/watch bs=4096 2> /dev/null & watch=$!
sleep 0.2
lpbuild load --mode transition --deadline-ms 60000 /bench_open.ko > /tmp/load 2>&1 & load=$!
wait $watch
cat /tmp/watch
result watch "$(echo $(cat /tmp/watch))"
cost switched
result newborn $(dd bs=4096 2> /dev/null if=/sys/module/lpb_meter/parameters/per_call)
read -r state < /sys/kernel/lpbuild/bench_open/state; expect state applying $state
kill -9 $holder; wait $holder || true
wait $load
cost applied
lpbuild unload --mode transition bench_open
step stop-machine
vforker > /tmp/vforker & holder=$!
wait-for /tmp/vforker vforking= 10
lpbuild load --mode stop-machine --deadline-ms 5000 /bench_open.ko > /tmp/load 2>&1 & load=$!
wait-for /sys/kernel/lpbuild/bench_open/blockers kernel_clone 10
cost tracking
kill -9 $holder; wait $holder || true
wait $load
lpbuild unload bench_open
"#;
        let run = self.vm("calls", &[&one, &open], script).run()?;
        run.require_pass()?;
        let unpatched = run.number("unpatched")?;
        let say = |what: &str, n: f64, more: &str| {
            let (series, added, ratio) = (self.series, n - unpatched, n / unpatched);
            println!("call {series}, {what}: {n:.2} instructions ({added:+.2}, ratio {ratio:.2}{more})");
        };
        say("unpatched, with the loop around it", unpatched, "");
        say("patched", run.number("patched")?, "; goal: +2, with ENDBR +3");
        say("patched by a transition", run.number("applied")?, "; goal: as above");
        say("kernel livepatch", run.number("klp")?, "");
        // As it was, the int3, and what the dispatcher answers: for everybody, for the task before and after it has switched.
        let watched = run.result("watch")?;
        let costs = watched.split(' ').map(|n| Ok(n.parse()?)).collect::<Result<Vec<f64>>>()?;
        let int3 = costs.iter().copied().fold(0.0, f64::max);
        let behind: Vec<f64> = costs.iter().copied().skip_while(|n| *n != int3).skip(1).collect();
        ensure!(behind.len() >= 2, "the meter saw no transition: {watched}");
        say("while the jump is written (int3)", int3, "");
        say("in transition, task not switched", behind[behind.len() - 2], "");
        say("in transition, task switched", run.number("switched")?, "");
        say("in transition, task born since", run.number("newborn")?, "");
        say("in stop-machine's attempts", run.number("tracking")?, "");
        say("kernel livepatch, in transition, task switched", run.number("klp_switched")?, "");
        Ok(())
    }

    /// How long the machine stands still.
    fn stops(&self) -> Result<()> {
        let asked = self.patch("bench_cmdline", &[SHORT], &[])?;
        let walked = self.patch("bench_sync", &[SYNC], &["--mode", "stop-machine"])?;
        let mut script = String::from(
            "pause() { lpbuild load --mode stop-machine --deadline-ms 60000 /$2.ko; read -r ns < /sys/kernel/lpbuild/$2/pause_ns\n\
             result $1 $ns; lpbuild unload --mode stop-machine --deadline-ms 60000 $2; }\n",
        );
        for n in THREADS {
            script += &format!(
                "sleepers {n} > /tmp/sleeping & sleeper=$!\nwait-for /tmp/sleeping sleeping= 1000; sleep 1\n\
                 pause asked_{n} bench_cmdline; pause walked_{n} bench_sync\n\
                 hot 4 /proc/cmdline > /dev/null & hot=$!\nsleep 1; pause busy_{n} bench_cmdline; kill -9 $hot; wait $hot || true\n\
                 kill -9 $sleeper; wait $sleeper || true\n"
            );
        }
        let run = self.vm("stops", &[&asked, &walked], &script).memory_mib(2048).run()?;
        run.require_pass()?;
        for (what, key, goal) in [
            ("stop-machine", "asked", "; goal: below 1.5 from 100 to 10,000 threads"),
            ("the plain walk of all stacks, where a function has no dispatcher", "walked", ""),
            (
                "stop-machine, 4 processes call the function without a pause",
                "busy",
                "; those that ran since are looked at",
            ),
        ] {
            let first = run.number(&format!("{key}_{}", THREADS[0]))?;
            for n in THREADS {
                let ns = run.number(&format!("{key}_{n}"))?;
                let ratio = ns / first;
                println!("pause {}, {what}, {n} threads: {ns:.0} instructions (ratio {ratio:.2}{goal})", self.series);
            }
        }
        Ok(())
    }

    /// From the start of insmod until everybody runs the new code.
    fn switches(&self) -> Result<()> {
        let patch = self.patch("bench_cmdline", &[SHORT], &[])?;
        let start = format!("{TIMED}hot 8 /proc/cmdline > /dev/null & hot=$!\nsleep 1\n");
        let (mut ours, mut klp) = (start.clone(), start);
        for round in 0..ROUNDS {
            for mode in MODES {
                ours += &format!(
                    "timed {mode}{round} /sys/kernel/lpbuild/bench_cmdline/state applied \
                     insmod /bench_cmdline.ko mode={mode} deadline_ms=60000\n\
                     lpbuild unload --mode {mode} --deadline-ms 60000 bench_cmdline\n"
                );
            }
            klp += &format!("timed klp{round} $(klp klp_cmdline) 0 insmod /klp_cmdline.ko\nklp_gone klp_cmdline\n");
        }
        let guests = [
            ("1 CPU under -icount", Clock::Instructions),
            ("2 CPUs by the host's clock, for information", Clock::Host),
        ];
        for (what, clock) in guests {
            let vm = |name: &str, script: &str| {
                self.vm(&format!("{name}-{clock:?}"), &[&patch], &format!("{script}kill -9 $hot\n"))
                    .append("preempt=full")
                    .clock(clock)
                    .silence(Duration::from_secs(120))
                    .run()
            };
            let run = vm("klp", &klp)?;
            run.require_pass()?;
            let beside = Times::of(&run, "klp")?;
            println!("switch {}, {what}, kernel livepatch: {beside} (ratio 1)", self.series);
            let run = vm("modes", &ours)?;
            run.require_pass()?;
            for mode in MODES {
                let times = Times::of(&run, mode)?;
                let ratio = times.median() / beside.median();
                println!("switch {}, {what}, {mode}: {times} (ratio {ratio:.2})", self.series);
            }
        }
        Ok(())
    }

    /// From the start of insmod until a call of a bystander runs the new code, and until the patch is applied: where nobody is in
    /// the way, with few tasks and with many.
    fn loads(&self) -> Result<()> {
        let patch = self.patch("bench_cmdline", &[SHORT], &[])?;
        let threads = [0, 4_000];
        let (mut ours, mut klp) = (TIMED.to_owned(), TIMED.to_owned());
        for n in threads {
            let (start, end) = match n {
                0 => ("sleep 1\n".to_owned(), ""),
                n => (
                    format!(
                        "sleepers {n} > /tmp/sleeping & sleeper=$!\nwait-for /tmp/sleeping sleeping= 1000; sleep 1\n"
                    ),
                    "kill -9 $sleeper; wait $sleeper || true\n",
                ),
            };
            ours += &start;
            klp += &start;
            for round in 0..ROUNDS {
                for mode in MODES {
                    ours += &format!(
                        "timed {mode}_{n}_{round} /sys/kernel/lpbuild/bench_cmdline/state applied \
                         insmod /bench_cmdline.ko mode={mode} deadline_ms=60000\n\
                         lpbuild unload --mode {mode} --deadline-ms 60000 bench_cmdline\n"
                    );
                }
                klp += &format!(
                    "timed klp_{n}_{round} $(klp klp_cmdline) 0 insmod /klp_cmdline.ko\nklp_gone klp_cmdline\n"
                );
            }
            ours += end;
            klp += end;
        }
        let vm = |name: &str, script: &str| {
            let vm = self.vm(&format!("loads-{name}"), &[&patch], script).memory_mib(1024);
            vm.silence(Duration::from_secs(600)).run()
        };
        let run = vm("klp", &klp)?;
        run.require_pass()?;
        let beside = |n: u32| {
            Ok::<_, anyhow::Error>((
                Times::of(&run, &format!("effect_klp_{n}_"))?,
                Times::of(&run, &format!("klp_{n}_"))?,
            ))
        };
        let own = vm("modes", &ours)?;
        own.require_pass()?;
        for n in threads {
            let (effect, applied) = beside(n)?;
            println!(
                "load {}, {n} threads asleep, kernel livepatch: in effect after {effect}, for all after {applied} (ratio 1)",
                self.series
            );
            for mode in MODES {
                let [e, a] = [format!("effect_{mode}_{n}_"), format!("{mode}_{n}_")].map(|key| Times::of(&own, &key));
                let (e, a) = (e?, a?);
                let ratio = |t: &Times| t.median() / applied.median();
                println!(
                    "load {}, {n} threads asleep, {mode}: in effect after {e} (ratio {:.2}), applied after {a} (ratio {:.2})",
                    self.series,
                    ratio(&e),
                    ratio(&a)
                );
            }
        }
        Ok(())
    }
}

/// KEY STATE TEXT COMMAND..
pub const TIMED: &str = r#"
timed() {
    key=$1; shift
    elapsed /proc/cmdline patched "$@" > /tmp/elapsed || fail "$*"
    sed "s/elapsed_ms/$key/; s/effect_ms/effect_$key/" /tmp/elapsed
}
"#;

/// Milliseconds, in order.
pub struct Times(Vec<f64>);

impl Times {
    pub fn of(run: &Run, key: &str) -> Result<Self> {
        let mut all = (0..ROUNDS).map(|i| run.number(&format!("{key}{i}"))).collect::<Result<Vec<_>>>()?;
        all.sort_by(f64::total_cmp);
        Ok(Self(all))
    }

    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (least, most) = (self.0.first().copied().unwrap_or_default(), self.0.last().copied().unwrap_or_default());
        write!(f, "{:.0} ms, {least:.0} to {most:.0} in {ROUNDS} rounds", self.median())
    }
}
