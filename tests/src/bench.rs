//! A kernel, modules of edits to its source, and the shell functions that the scripts of VM tests share.
//!
//! A module is made once per process, however many tests use it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use harness::change::Change;
use harness::edits::Edit;
use harness::module::TEST_HOOKS;
use harness::module::{Module, once};
use harness::tree::Flags;
use harness::vm::{Run, Vm};

use crate::Env;

/// By the runtime's own files, so that what the runtime says is what is seen. `refuses CODE MODULE [OPTION..]` and
/// `stays CODE MODULE`: the kernel's answer, and that it left everything as it was.
const FUNCTIONS: &str = r#"
of() { cat /sys/kernel/lpbuild/$1/$2; }
is() { expect "state of $1" "$2" "$(of $1 state)"; }
# Until `state` is one of the words.
until_is() {
    patch=$1; shift
    for turn in $(seq 600); do
        state=$(of $patch state)
        for word; do [ "$state" != $word ] || return 0; done
        sleep 0.05
    done
    of $patch blockers; of $patch last_error
    fail "$patch is still $state, not $*"
}
load() { patch=$1; shift; insmod /$patch.ko "$@" || fail "insmod $patch $*: $(dmesg | tail -3)"; until_is $patch applied; }
refuses() {
    code=$1 patch=$2; shift 2
    if insmod /$patch.ko "$@" 2> /tmp/err; then fail "not refused: $patch $*"; fi
    expect_in "why $patch is refused" "$code" "$(dmesg | tail -3)"
    [ ! -e /sys/module/$patch ] || fail "the refused $patch stayed"
}
revert() { echo 0 > /sys/kernel/lpbuild/$1/enabled; until_is $1 reverted; }
unload() { revert $1; rmmod $1 || fail "rmmod $1"; }
stays() {
    (echo 0 > /sys/kernel/lpbuild/$2/enabled) 2> /dev/null || true
    until_is $2 applied
    expect_in "why $2 stays" "$1" "$(of $2 last_error)"
    if rmmod $2 2> /dev/null; then fail "$2 could be removed"; fi
}
patched() { expect_in effect patched "$(cat /proc/cmdline)"; }
original() { expect_not_in effect patched "$(cat /proc/cmdline)"; }
background() { "$@" & pids="${pids:-} $!"; }
# A function with what nobody else wants of the CPUs: a step of the script takes no longer for it.
idly() { sh -c 'renice 19 $PPID' > /dev/null; "$@"; }
stop() { kill -0 $pids || fail 'the load ended early'; kill $pids; for pid in $pids; do wait $pid || true; done; pids=; }
ktext save /tmp/text
clean() { ktext diff /tmp/text > /tmp/diff 2>&1 || fail "$(cat /tmp/diff)"; }
"#;

/// What a test works with.
#[derive(Debug)]
pub struct Bench {
    /// Kernel and tree.
    pub env: Env,
    lpbuild: PathBuf,
    series: &'static str,
    modules: Vec<(String, Arc<Module>)>,
    others: Vec<(String, PathBuf)>,
}

impl Bench {
    /// Nothing, and a printed reason, where setup has not run.
    pub fn find(name: &str, series: &'static str) -> Option<Self> {
        let (env, lpbuild) = Env::series_with_lpbuild(&format!("{name} on {series}"), series)?;
        Some(Self { env, lpbuild, series, modules: Vec::new(), others: Vec::new() })
    }

    /// A module called `name`.
    #[must_use]
    pub fn module(self, name: &str, edits: &[Edit]) -> Self {
        self.module_as(name, name, edits, &[])
    }

    /// A module called `name`, in the guest `/FILE.ko`, with options of `lpbuild diff`. One name can have several files.
    #[must_use]
    pub fn module_as(mut self, file: &str, name: &str, edits: &[Edit], options: &[&str]) -> Self {
        let make = || {
            let source = &self.env.tree.source;
            let edit = |c: Change, (file, old, new): &Edit| c.edit(source, file, old, new).unwrap();
            let change = edits.iter().fold(Change::none(), edit);
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let pair = self.env.tree.pair(&change, Flags::Plain).unwrap();
            let folder = format!("{}/{file}", self.series);
            Arc::new(self.env.maker(&self.lpbuild).make_in(&folder, name, &pair, &options).unwrap())
        };
        let made = made_once(self.series, file, make);
        self.modules.push((file.to_owned(), made));
        self
    }

    /// The module in `/FILE.ko`.
    pub fn made(&self, file: &str) -> &Module {
        let found = self.modules.iter().find(|(f, _)| f == file);
        found.map(|(_, m)| &**m).unwrap_or_else(|| panic!("no module {file}"))
    }

    /// The file in `/NAME.ko` of a module that is no patch.
    pub fn file(&self, name: &str) -> &Path {
        let found = self.others.iter().find(|(n, _)| n == name);
        found.map(|(_, ko)| ko.as_path()).unwrap_or_else(|| panic!("no module {name}"))
    }

    /// A module of one C file that is no patch.
    #[must_use]
    pub fn other(mut self, name: &str, source: &str) -> Self {
        let made = module_of(&self.env, self.series, name, source);
        self.others.push((name.to_owned(), made));
        self
    }

    /// The patch that `lpbuild diff` makes of two builds of a module, in the guest `/NAME.ko`.
    #[must_use]
    pub fn between(self, name: &str, old: &Path, new: &Path) -> Self {
        self.between_with(name, old, new, &[])
    }

    /// The same, with options of `lpbuild diff`.
    #[must_use]
    pub fn between_with(self, name: &str, old: &Path, new: &Path, options: &[&str]) -> Self {
        self.between_trees(name, [old, new], &[old], options)
    }

    /// The same of two trees; `modules` are those of the old one that differ.
    #[must_use]
    pub fn between_trees(mut self, name: &str, sides: [&Path; 2], modules: &[&Path], options: &[&str]) -> Self {
        let [old, new] = sides;
        let make = || {
            let kernel = &self.env.kernel;
            let inputs = sides.map(|p| p.display().to_string());
            let made = once(&format!("{}/{name}", self.series), name, &inputs, |dir, ko| {
                let mut diff = harness::cmd::command(&self.lpbuild);
                diff.arg("diff")
                    .args([old, new])
                    .arg("--kernel")
                    .arg(&kernel.vmlinuz)
                    .arg("--headers")
                    .arg(&kernel.headers)
                    .args(options);
                let report = harness::cmd::output(diff.arg("-o").arg(dir).args(["--name", name]))?;
                let mut pack = harness::cmd::command(&self.lpbuild);
                pack.arg("pack").arg(dir).arg("--kernel").arg(&kernel.vmlinuz).arg("--headers").arg(&kernel.headers);
                for module in modules {
                    pack.arg("--module").arg(module);
                }
                Ok(report + &harness::cmd::output(pack.arg("-o").arg(ko))?)
            });
            Arc::new(made.unwrap())
        };
        let made = made_once(self.series, name, make);
        self.modules.push((name.to_owned(), made));
        self
    }

    /// The module that `lpbuild build` makes of edits, in the guest `/NAME.ko`. `accept`: the table of livepatch.toml.
    #[must_use]
    pub fn fix(self, name: &str, edits: &[Edit], accept: &str) -> Self {
        self.fix_with(name, edits, accept, &[])
    }

    /// The same, of which every call that can fail can be made to.
    #[must_use]
    pub fn failing_fix(self, name: &str, edits: &[Edit], accept: &str) -> Self {
        self.fix_with(name, edits, accept, &[TEST_HOOKS])
    }

    fn fix_with(mut self, name: &str, edits: &[Edit], accept: &str, options: &[&str]) -> Self {
        let make = || {
            let key = format!("{}-{name}", self.series);
            let dir = harness::workspace_root().join("target/fixes").join(&key);
            let (old, new) = (dir.join("a"), dir.join("b"));
            for (file, from, to) in edits {
                let text = std::fs::read_to_string(self.env.tree.source.join(file)).unwrap();
                assert_eq!(text.matches(from).count(), 1, "{file}: {from:?}");
                for (side, text) in [(&old, text.clone()), (&new, text.replace(from, to))] {
                    let path = side.join(file);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, text).unwrap();
                }
            }
            // One difference is exit code 1.
            let diff = harness::cmd::command("diff").args(["-ru", "a", "b"]).current_dir(&dir).output().unwrap();
            std::fs::write(dir.join("fix.patch"), &diff.stdout).unwrap();
            let toml = format!("[patch]\nname = \"{name}\"\nversion = \"1\"\npatches = [\"fix.patch\"]\n{accept}");
            std::fs::write(dir.join("livepatch.toml"), toml).unwrap();
            Arc::new(
                self.env.maker(&self.lpbuild).make_patch_in(&key, name, &dir.join("livepatch.toml"), options).unwrap(),
            )
        };
        let made = made_once(self.series, name, make);
        self.modules.push((name.to_owned(), made));
        self
    }

    /// The static program.
    pub fn lpbuild(&self) -> &std::path::Path {
        &self.lpbuild
    }

    /// A module of the kernel itself, in the guest `/NAME.ko`.
    #[must_use]
    pub fn stock(mut self, modfile: &str) -> Self {
        let name = modfile.rsplit('/').next().unwrap();
        let kernel = harness::runpre::RunPre::of(&self.env.kernel).unwrap();
        let file = lpbuild::holder::ModuleFinder::file(kernel.files(), modfile).unwrap();
        let ko = if file.extension().is_some_and(|e| e == "xz") {
            let to = harness::workspace_root().join("target/fixes").join(format!("{}-{name}.ko", self.series));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            let plain = harness::cmd::command("xz").arg("-dc").arg(&file).output().unwrap();
            // Another test may be at it.
            let new = to.with_extension(format!("{:?}", std::thread::current().id()));
            std::fs::write(&new, plain.stdout).unwrap();
            std::fs::rename(&new, &to).unwrap();
            to
        } else {
            file
        };
        self.others.push((name.to_owned(), ko));
        self
    }

    /// A file of the host in the guest `/NAME.ko`.
    #[must_use]
    pub fn ko(mut self, name: &str, ko: PathBuf) -> Self {
        self.others.push((name.to_owned(), ko));
        self
    }

    /// A guest with `lpbuild` and the modules; `$modes` in the script are those to try.
    pub fn vm(&self, name: &str, script: &str) -> Vm {
        let mut vm = Vm::new(&format!("{name}-{}", self.series), &self.env.kernel).file("/bin/lpbuild", &self.lpbuild);
        for (file, module) in &self.modules {
            vm = vm.file(&format!("/{file}.ko"), &module.ko);
        }
        for (name, ko) in &self.others {
            vm = vm.file(&format!("/{name}.ko"), ko);
        }
        let script = format!("modes='transition stop-machine drain'\n{FUNCTIONS}{script}");
        vm.case(&script).silence(Duration::from_secs(180)).overtime(Duration::from_secs(1800))
    }
}

/// A module of one C file, built outside of the kernel's tree.
pub fn module_of(env: &Env, series: &str, name: &str, source: &str) -> PathBuf {
    let made = once(&format!("{series}/{name}"), name, &[source.to_owned()], |dir, _| {
        std::fs::write(dir.join(format!("{name}.c")), source)?;
        std::fs::write(dir.join("Kbuild"), format!("obj-m := {name}.o\n"))?;
        let mut make = harness::cmd::command("make");
        harness::cmd::output(make.arg("-C").arg(&env.kernel.headers).arg(format!("M={}", dir.display())).arg("modules"))
    });
    made.unwrap().ko
}

/// Modules of several files, `Kbuild` among them, built outside of the kernel's tree; the folder they are in.
pub fn modules_of(env: &Env, series: &'static str, name: &str, files: &[(&str, String)]) -> PathBuf {
    let texts: Vec<String> = files.iter().map(|(_, text)| text.clone()).collect();
    let make = |dir: &Path, _: &Path| {
        for (file, text) in files {
            std::fs::write(dir.join(file), text)?;
        }
        let mut make = harness::cmd::command("make");
        harness::cmd::output(make.arg("-C").arg(&env.kernel.headers).arg(format!("M={}", dir.display())).arg("modules"))
    };
    let once = || Arc::new(once(&format!("{series}/{name}"), name, &texts, make).unwrap());
    made_once(series, &texts.concat(), once).dir.clone()
}

/// What tests of this process share, by the name of the file in the guest.
fn made_once(series: &'static str, file: &str, make: impl FnOnce() -> Arc<Module>) -> Arc<Module> {
    type Made = Mutex<BTreeMap<(&'static str, String), Arc<OnceLock<Arc<Module>>>>>;
    static MADE: OnceLock<Made> = OnceLock::new();
    let place = {
        let mut made = MADE.get_or_init(Made::default).lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(made.entry((series, file.to_owned())).or_default())
    };
    Arc::clone(place.get_or_init(make))
}

/// Runs to the end, which must be a pass.
#[track_caller]
pub fn passes(vm: &Vm) -> Run {
    let run = vm.run().unwrap();
    run.require_pass().unwrap_or_else(|e| panic!("{e:#}"));
    run
}

/// Rounds of what a test repeats: as `LPBUILD_CYCLES` says.
pub fn cycles(default: u32) -> u32 {
    std::env::var("LPBUILD_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Each scenario once per kernel.
#[macro_export]
macro_rules! on_both {
    ($($scenario:ident)*) => {
        mod on_6_1 { $(#[test] fn $scenario() { super::$scenario("6.1"); })* }
        mod on_6_12 { $(#[test] fn $scenario() { super::$scenario("6.12"); })* }
    };
}
