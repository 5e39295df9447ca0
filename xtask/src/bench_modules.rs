//! Functions in modules: what the loading of a module costs while patches wait for one, how long a switch takes over many holders, what
//! a patch needs of memory. Instructions under `-icount`; the first line of each kind is what the others are held against.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::kernels::Kernel;
use harness::module::{Maker, Module};
use harness::runpre::RunPre;
use harness::tree::Tree;
use harness::vm::{Clock, Run, Vm};
use harness::{cmd, workspace_root};
use lpbuild::holder::ModuleFinder;

use crate::bench_runtime::{ROUNDS, TIMED, Times};

/// Holders of one patch.
const HOLDERS: [usize; 3] = [1, 5, 20];
/// Functions of the module that has several.
const FUNCTIONS: usize = 20;
const MODES: [&str; 3] = ["drain", "stop-machine", "transition"];
/// How often a module is loaded.
const LOADS: u32 = 15;

/// `@NAME@` shows a number that `@COUNT@` functions make of a static of the module.
const SOURCE: &str = r#"#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static unsigned int reads;
static struct proc_dir_entry *entry;
@FUNCTIONS@
static int lph_show(struct seq_file *m, void *unused)
{
	int n = 0;

	reads++;
@CALLS@	seq_printf(m, "lph %d\n", n / @COUNT@);
	return 0;
}

static int __init lph_init(void)
{
	entry = proc_create_single("@NAME@", 0, NULL, lph_show);
	return entry ? 0 : -ENOMEM;
}

static void __exit lph_exit(void)
{
	proc_remove(entry);
}

module_init(lph_init);
module_exit(lph_exit);
MODULE_LICENSE("GPL");
"#;

/// What is compared with the module of the kernel.
const STATUS: &str = "--- a/fs/binfmt_misc.c\n+++ b/fs/binfmt_misc.c\n";
/// Its text before and after.
const ENABLED: (&str, &str) = ("enabled ? \"enabled\\n\"", "enabled ? \"enabled, patched\\n\"");

struct Bench<'a> {
    series: &'static str,
    lpbuild: &'a Path,
    kernel: Kernel,
    tree: Tree,
    /// Modules of the old and the new build.
    built: [PathBuf; 2],
}

/// Both kernels.
pub fn run(lpbuild: &Path) -> Result<()> {
    for series in ["6.1", "6.12"] {
        let (kernel, tree) = crate::setup::run(series)?;
        let mut built = [PathBuf::new(), PathBuf::new()];
        for (place, (side, number)) in built.iter_mut().zip([("old", "1"), ("new", "m->size ? 2 : 3")]) {
            let from = workspace_root().join(format!("target/bench-modules/{series}-{side}"));
            write_sources(&from, number)?;
            *place = tree.external_modules(&kernel, &format!("bench-holders-{series}-{side}"), &from)?;
        }
        let bench = Bench { series, lpbuild, kernel, tree, built };
        bench.arrivals()?;
        bench.holders()?;
    }
    Ok(())
}

fn name(i: usize) -> String {
    format!("lph_{i:02}")
}

fn write_sources(dir: &Path, number: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let mut kbuild = String::new();
    let most = HOLDERS.iter().copied().max().unwrap_or_default();
    for (name, count) in (0..most).map(|i| (name(i), 1)).chain([("lph_many".to_owned(), FUNCTIONS)]) {
        let (mut functions, mut calls) = (String::new(), String::new());
        for i in 0..count {
            functions += &format!(
                "\nstatic noinline int lph_value_{i}(struct seq_file *m)\n{{\n\treturn seq_has_overflowed(m) ? -1 : ({number}) + 0 * reads + (reads == {i} + 1000000);\n}}\n"
            );
            calls += &format!("\tn += lph_value_{i}(m);\n");
        }
        let text = SOURCE.replace("@FUNCTIONS@", &functions).replace("@CALLS@", &calls);
        let text = text.replace("@NAME@", &name).replace("@COUNT@", &count.to_string());
        let path = dir.join(format!("{name}.c"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        kbuild += &format!("obj-m += {name}.o\n");
    }
    fs::write(dir.join("Kbuild"), kbuild)?;
    Ok(())
}

impl Bench<'_> {
    /// The patch of some of the modules.
    fn patch(&self, name: &str, modules: &[String]) -> Result<PathBuf> {
        let top = workspace_root().join(format!("target/bench-modules/{}-{name}", self.series));
        let _ = fs::remove_dir_all(&top);
        let sides = ["old", "new"].map(|side| top.join(side));
        for (from, to) in self.built.iter().zip(&sides) {
            fs::create_dir_all(to)?;
            for module in modules {
                fs::copy(from.join(format!("{module}.ko")), to.join(format!("{module}.ko")))?;
            }
        }
        let (dir, ko) = (top.join("patch"), top.join(format!("{name}.ko")));
        let mut diff = cmd::command(self.lpbuild);
        diff.arg("diff").args(&sides).arg("--kernel").arg(&self.kernel.vmlinuz).args(["--name", name]);
        cmd::output(diff.arg("--headers").arg(&self.kernel.headers).arg("-o").arg(&dir))?;
        let mut pack = cmd::command(self.lpbuild);
        cmd::output(pack.arg("pack").arg(&dir).arg("--headers").arg(&self.kernel.headers).arg("-o").arg(&ko))?;
        Ok(ko)
    }

    /// The patch of a module of the kernel.
    fn of_the_kernel(&self) -> Result<Module> {
        let path = self.tree.source.join("fs/binfmt_misc.c");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|l| l.contains(ENABLED.0)).context("binfmt_misc shows no state")?;
        let line = lines.get(at).copied().unwrap_or_default();
        let n = at.saturating_add(1);
        let hunk = format!("@@ -{n} +{n} @@\n-{line}\n+{}\n", line.replace(ENABLED.0, ENABLED.1));
        let dir = workspace_root().join(format!("target/bench-modules/{}-binfmt", self.series));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("fix.patch"), format!("{STATUS}{hunk}"))?;
        let toml = dir.join("livepatch.toml");
        let accept = "[accept]\npromises = [\"bm_status_read\"]\n";
        fs::write(
            &toml,
            format!("[patch]\nname = \"bench_binfmt\"\nversion = \"1\"\npatches = [\"fix.patch\"]\n{accept}"),
        )?;
        let maker = Maker { lpbuild: self.lpbuild, kernel: &self.kernel, tree: &self.tree };
        maker.make_patch_in(&format!("{}-bench_binfmt", self.series), "bench_binfmt", &toml, &[])
    }

    fn vm(&self, name: &str, files: &[(&str, &Path)], script: &str) -> Vm {
        let mut vm = Vm::new(&format!("bench-{name}-{}", self.series), &self.kernel);
        for (file, path) in files {
            vm = vm.file(&format!("/{file}.ko"), path);
        }
        let long = Duration::from_secs(1800);
        vm.case(script).clock(Clock::Instructions).silence(long).overtime(long)
    }

    /// finit_module(2) of a module: alone, and where patches wait, for another one or for this one.
    fn arrivals(&self) -> Result<()> {
        let all: Vec<String> = (0..HOLDERS[2]).map(name).collect();
        let (other, own, many) = (
            self.patch("bench_other", &all[19..])?,
            self.patch("bench_own", &all[..1])?,
            self.patch("bench_many", &["lph_many".to_owned()])?,
        );
        let twenty = self.patch("bench_all", &all)?;
        let binfmt = self.of_the_kernel()?;
        let stock = RunPre::of(&self.kernel)?.files().file("fs/binfmt_misc")?;
        let plain = workspace_root().join(format!("target/bench-modules/{}-binfmt_misc.ko", self.series));
        let unpacked = lpbuild::holder::ModuleBinary::read(&stock)?;
        fs::write(&plain, unpacked.content)?;
        let modules = ["lph_00", "lph_many"].map(|m| (m, self.built[0].join(format!("{m}.ko"))));
        let mut files: Vec<(&str, &Path)> = modules.iter().map(|(m, p)| (*m, p.as_path())).collect();
        files.extend([("bench_other", &*other), ("bench_own", &*own), ("bench_many", &*many), ("bench_all", &*twenty)]);
        files.extend([("bench_binfmt", &*binfmt.ko), ("binfmt_misc", &*plain)]);
        let cases = [
            ("binfmt_misc", "bench_binfmt", "1 function"),
            ("lph_00", "bench_own", "1 function"),
            ("lph_many", "bench_many", "20 functions"),
        ];
        let mut script = format!(
            "cost() {{ module-cost /$1.ko $1 {LOADS} > /tmp/cost; sed \"s/module_ns/$2_$1/\" /tmp/cost; }}\n\
             away() {{ echo 0 > /sys/kernel/lpbuild/$1/enabled; wait-for /sys/kernel/lpbuild/$1/state reverted 100; rmmod $1; }}\n\
             there() {{ insmod /$1.ko; wait-for /sys/kernel/lpbuild/$1/state applied 100; }}\n"
        );
        for (module, own, _) in cases {
            script += &format!(
                "cost {module} alone\nthere bench_other; cost {module} other; away bench_other\n\
                 there {own}; cost {module} own; away {own}\n"
            );
        }
        script += "there bench_all; cost binfmt_misc all; away bench_all\n";
        let run = self.vm("arrivals", &files, &script).run()?;
        run.require_pass()?;
        for (module, _, functions) in cases {
            let alone = run.number(&format!("alone_{module}"))?;
            let say = |what: &str, n: f64| {
                let (series, more) = (self.series, n - alone);
                println!(
                    "arrival {series}, {module}, {what}: {n:.0} instructions ({more:+.0}, ratio {:.3})",
                    n / alone
                );
            };
            say("no patch", alone);
            say("a patch waits for another module; goal: ratio below 1.01", run.number(&format!("other_{module}"))?);
            if module == "binfmt_misc" {
                say("a patch waits for 20 others", run.number("all_binfmt_misc")?);
            }
            say(&format!("its own patch waits, {functions}"), run.number(&format!("own_{module}"))?);
        }
        Ok(())
    }

    /// From the start of insmod until a patch of modules that are all here is applied; and what it occupies then.
    fn holders(&self) -> Result<()> {
        let all: Vec<String> = (0..HOLDERS[2]).map(name).collect();
        let patches = HOLDERS.map(|n| format!("bench_{n}"));
        let mut kos = Vec::new();
        for (n, patch) in HOLDERS.iter().zip(&patches) {
            kos.push((patch.as_str(), self.patch(patch, &all[..*n])?));
        }
        let many = self.patch("bench_many", &["lph_many".to_owned()])?;
        let held = all.iter().map(String::as_str).chain(["lph_many"]);
        let modules: Vec<(&str, PathBuf)> = held.map(|m| (m, self.built[0].join(format!("{m}.ko")))).collect();
        let mut files: Vec<(&str, &Path)> = kos.iter().chain(&modules).map(|(m, p)| (*m, p.as_path())).collect();
        files.push(("bench_many", &many));
        let mut script = TIMED.replace("/proc/cmdline patched", "/proc/$seen 'lph 2'");
        script += "away() { echo 0 > /sys/kernel/lpbuild/$1/enabled; wait-for /sys/kernel/lpbuild/$1/state reverted 100; rmmod $1; }\n";
        for (module, _) in &modules {
            script += &format!("insmod /{module}.ko\n");
        }
        let measured = patches.iter().map(|p| (p.as_str(), "lph_00")).chain([("bench_many", "lph_many")]);
        for (patch, seen) in measured {
            script += &format!("seen={seen}\n");
            for round in 0..ROUNDS {
                for mode in MODES {
                    script += &format!(
                        "timed {patch}_{mode}_{round} /sys/kernel/lpbuild/{patch}/state applied insmod /{patch}.ko mode={mode} deadline_ms=60000\n\
                         [ {round} != 0 ] || result {patch}_size $(cat /sys/module/{patch}/coresize)\naway {patch}\n"
                    );
                }
            }
        }
        let run = self.vm("holders", &files, &script).memory_mib(1024).run()?;
        run.require_pass()?;
        self.say_holders(&run, &patches)
    }

    fn say_holders(&self, run: &Run, patches: &[String; 3]) -> Result<()> {
        let series = self.series;
        for mode in MODES {
            let mut first = None;
            let labels = HOLDERS.map(|n| {
                if n == 1 { "1 function in 1 module".to_owned() } else { format!("{n} functions in {n} modules") }
            });
            let rows = patches.iter().zip(&labels).map(|(p, l)| (p.as_str(), l.as_str()));
            for (patch, what) in rows.chain([("bench_many", "20 functions in 1 module")]) {
                let times = Times::of(run, &format!("{patch}_{mode}_"))?;
                let ratio = times.median() / *first.get_or_insert(times.median());
                println!("holders {series}, {mode}, {what}: applied after {times} (ratio {ratio:.2})");
            }
        }
        let size = |patch: &str| run.number(&format!("{patch}_size"));
        let (one, apart, together) = (size("bench_1")?, size("bench_20")?, size("bench_many")?);
        let more = (FUNCTIONS - 1) as f64;
        println!("memory {series}, 1 function in 1 module: {one:.0} bytes of module memory (ratio 1)");
        for (what, n) in [("20 functions in 1 module", together), ("20 functions in 20 modules", apart)] {
            let (each, ratio) = ((n - one) / more, n / one);
            println!("memory {series}, {what}: {n:.0} bytes, {each:.0} for each further one (ratio {ratio:.2})");
        }
        Ok(())
    }
}
