//! `lpbuild try`: a good patch passes, and every way a trial can fail gives its exit code, its code and the reason.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harness::change::Change;
use harness::module::Module;
use harness::vm::Place;
use lpbuild_tests::{Env, built_lpbuild, in_checkout};
use serde_json::Value;
use tempfile::TempDir;

/// A read of exactly 4242 bytes fails in the new function.
const SLEEPY: (&str, &str, &str) = (
    "fs/pipe.c",
    "\t/* Null read succeeds. */\n",
    "\tif (total_len == 4242)\n\t\treturn -EPROTO;\n\t/* Null read succeeds. */\n",
);

/// A kernel, a finished module, and a folder for scripts and temporary files.
struct Bench {
    env: Env,
    lpbuild: PathBuf,
    module: Module,
    dir: TempDir,
}

impl Bench {
    /// With the module of the first example.
    fn find(name: &str) -> Option<Self> {
        let (env, lpbuild) = Env::with_lpbuild(name)?;
        // Made once: the tests run at the same time and share its folder.
        static MODULE: OnceLock<Module> = OnceLock::new();
        let make = || env.maker(&lpbuild).example(&in_checkout("examples/01-proc-cmdline")).unwrap();
        let module = MODULE.get_or_init(make).clone();
        Some(Self { env, lpbuild, module, dir: tempfile::tempdir().unwrap() })
    }

    /// Another module.
    fn make(&self, name: &str, (file, old, new): (&str, &str, &str), options: &[&str]) -> Module {
        let change = Change::none().edit(&self.env.tree.source, file, old, new).unwrap();
        let pair = self.env.tree.pair(&change, harness::tree::Flags::Plain).unwrap();
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        self.env.maker(&self.lpbuild).make_of(name, &pair, &options).unwrap()
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("check.sh");
        fs::write(&path, text).unwrap();
        path
    }

    /// `lpbuild try MODULE`, by the static binary, with a TMPDIR of its own.
    fn command(&self, module: &Path, args: &[&str]) -> Command {
        let tmp = self.dir.path().join("tmp");
        fs::create_dir_all(&tmp).unwrap();
        let mut c = Command::new(&self.lpbuild);
        c.arg("try").arg(module).arg("--image").arg(&self.env.kernel.vmlinuz).args(args);
        c.env("TMPDIR", tmp).env("PATH", harness::emulator::path().unwrap()).stdin(Stdio::null());
        c
    }

    /// Runs it, and sees that nothing is left in TMPDIR.
    fn run(&self, mut c: Command) -> Answer {
        let _slot = Place::wait_for(2).unwrap();
        let Output { status, stdout, stderr } = c.output().unwrap();
        self.nothing_left();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Answer { exit: status.code(), out: text(&stdout), err: text(&stderr) }
    }

    fn nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.dir.path().join("tmp")).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    fn try_with(&self, script: &str, args: &[&str]) -> Answer {
        let script = self.script(script);
        let all = [&["--json", "--script", script.to_str().unwrap()], args].concat();
        self.run(self.command(&self.module.ko, &all))
    }
}

struct Answer {
    exit: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }

    /// Exit 4, FAIL, and these codes, on stdout and stderr.
    #[track_caller]
    fn fails(&self, codes: &[&str]) -> Value {
        assert_eq!(self.exit, Some(4), "{}\n{}", self.out, self.err);
        let json = self.json();
        assert_eq!(json["verdict"], "fail");
        let found: Vec<&str> =
            json["refused"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
        assert_eq!(found, codes, "{}", self.err);
        for code in codes {
            assert!(self.err.contains(code), "{}", self.err);
        }
        json
    }

    /// Exit 1 with this code, before anything was booted.
    #[track_caller]
    fn broken(&self, code: &str, text: &str) {
        assert_eq!(self.exit, Some(1), "{}\n{}", self.out, self.err);
        assert!(self.err.contains(code) && self.err.contains(text), "{}", self.err);
        assert!(!self.err.contains("booting"), "{}", self.err);
    }
}

fn lines(value: &Value) -> Vec<&str> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|l| l.as_str().unwrap()).collect()
}

#[test]
fn a_good_patch_passes_and_its_effect_is_shown() {
    let Some(b) = Bench::find("a_good_patch_passes_and_its_effect_is_shown") else { return };
    let log = b.dir.path().join("console.log");
    let show = in_checkout("examples/01-proc-cmdline/show.sh");
    let report = b.dir.path().join("report.html");
    let args = ["--script", show.to_str().unwrap(), "--strict", "--log", log.to_str().unwrap()];
    let args = [&args[..], &["--report", report.to_str().unwrap()]].concat();
    let a = b.run(b.command(&b.module.ko, &args));
    assert_eq!(a.exit, Some(0), "{}\n{}", a.out, a.err);
    let last = a.out.lines().last().unwrap();
    assert!(last.starts_with("PASS  proc_cmdline 1 on ") && last.contains(&b.env.kernel.release), "{last}");
    for wanted in ["load ", "applied, ", "pause ", "unload ", "removed, ", "before, and after", "| live-patched"] {
        assert!(a.out.contains(wanted), "no {wanted:?} in\n{}", a.out);
    }
    assert!(a.out.contains("cmdline_proc_show  +0x5/8  rel32  applied"), "{}", a.out);
    assert!(!a.out.contains('\x1b') && !a.err.contains('\x1b'), "colour without a terminal");
    assert!(a.err.contains("booting"), "{}", a.err);
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().filter(|l| l.contains("LPBUILD-VERDICT: PASS")).count(), 1, "{log}");
    assert!(log.contains("k| ") && log.contains("c| live-patched"), "{log}");
    let report = fs::read_to_string(report).unwrap();
    for wanted in ["trial passed", "PASS", "cmdline_proc_show", "live-patched", "removed, ", "First difference"] {
        assert!(report.contains(wanted), "no {wanted:?} in\n{report}");
    }
}

/// With the binary of this build, which is linked dynamically: its loader and libraries go with it.
#[test]
fn a_dynamic_binary_cycles_and_everything_a_guest_can_be_given() {
    let Some(b) = Bench::find("a_dynamic_binary_cycles_and_everything_a_guest_can_be_given") else { return };
    let write = |name: &str, text: &str| {
        let path = b.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // A folder, and a program that needs libraries.
    fs::create_dir_all(b.dir.path().join("folder/below")).unwrap();
    write("folder/below/file", "from the host");
    let folder = format!("/data={}", b.dir.path().join("folder").display());
    let program = format!("/bin/own-lpbuild={}", built_lpbuild().display());
    let before = write(
        "before.sh",
        "cat /data/below/file; nproc; echo \"phase $1\"; own-lpbuild explain LP6401 | head -1\n\
         echo '<4>WARNING: made up' > /dev/kmsg",
    );
    let during = write("during.sh", "grep -c live-patched /proc/cmdline; printf 'no line end'");
    let after = write("after.sh", "cat /proc/cmdline; grep MemTotal /proc/meminfo");
    let mut c = b.command(&b.module.ko, &["--json", "--cycles", "3", "--cpus", "1", "--memory", "1600"]);
    c.args(["--before", &before, "--during", &during, "--after", &after, "--add", &folder, "--add", &program]);
    c.args(["--append", "lptest=1 --", "--allow", "WARNING: made up", "--no-kvm"]);
    let mut dynamic = Command::new(built_lpbuild());
    dynamic.args(c.get_args()).stdin(Stdio::null());
    dynamic.envs(c.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let a = b.run(dynamic);
    assert_eq!(a.exit, Some(0), "{}\n{}", a.out, a.err);
    let json = a.json();
    assert_eq!((json["verdict"].as_str(), json["accelerator"].as_str()), (Some("pass"), Some("tcg")));
    let before = lines(&json["outputs"]["before"]);
    assert_eq!(before[..3], ["from the host1", "phase before", before[2]], "{before:?}");
    assert!(before[2].starts_with("LP6401: "), "{before:?}");
    assert_eq!(lines(&json["outputs"]["during"]), ["1", "no line end"]);
    let after = lines(&json["outputs"]["after"]);
    let kib: u64 = after[1].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((1_300_000..1_638_400).contains(&kib), "{after:?}");
    assert!(after[0].ends_with("panic=-1 no_timer_check lptest=1 --"), "{after:?}");
    assert!(json["after_equals_before"].is_null(), "different scripts are not compared");
    let steps = json["steps"].as_array().unwrap();
    let of = |name: &str| steps.iter().filter(|s| s["step"] == name).collect::<Vec<_>>();
    assert_eq!((of("load").len(), of("unload").len(), of("during").len(), of("before").len()), (3, 3, 3, 1));
    for s in of("load").iter().chain(&of("unload")) {
        assert!(s["pause_ns"].as_u64().unwrap() > 0 && s["attempts"].as_u64().unwrap() > 0, "{s}");
    }
    assert_eq!(json["functions"][0]["symbol"], "cmdline_proc_show");
}

#[test]
fn a_script_that_fails_while_the_patch_is_applied_fails_the_trial() {
    let Some(b) = Bench::find("a_script_that_fails_while_the_patch_is_applied_fails_the_trial") else { return };
    let a = b.try_with("echo \"in $1\"; [ \"$1\" != during ] || { echo 'it is broken'; exit 3; }", &[]);
    let json = a.fails(&["LP6407"]);
    assert!(json["refused"][0]["detail"].as_str().unwrap().contains("during ended with status 3"), "{}", a.err);
    assert_eq!(lines(&json["outputs"]["during"]), ["in during", "it is broken"]);
    assert!(json["outputs"]["after"].is_null(), "nothing is done after a failure");
    // The same from a pipe, which can be read once.
    let inner = b.command(&b.module.ko, &["--json", "--script"]);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|w| format!("'{}'", w.to_string_lossy()))
        .collect();
    let mut c = Command::new("bash");
    c.arg("-c").arg(format!("{} <(echo '[ $1 != during ] || exit 3')", words.join(" ")));
    c.env("TMPDIR", b.dir.path().join("tmp")).stdin(Stdio::null());
    b.run(c).fails(&["LP6407"]);
}

#[test]
fn what_differs_after_the_unload_is_a_note_and_a_failure_when_strict() {
    let Some(b) = Bench::find("what_differs_after_the_unload_is_a_note_and_a_failure_when_strict") else { return };
    let script = "cat /proc/uptime; echo LPBUILD-STEP: 1 begin load 7";
    let a = b.try_with(script, &[]);
    assert_eq!(a.exit, Some(0), "{}\n{}", a.out, a.err);
    let json = a.json();
    assert_eq!(json["after_equals_before"], false);
    assert_eq!(lines(&json["notes"]).len(), 1);
    let a = b.try_with("cat /proc/uptime", &["--strict"]);
    assert_eq!(a.fails(&["LP6410"])["after_equals_before"], false);
}

#[test]
fn a_guest_that_panics_is_a_failure_with_the_kernels_last_words() {
    let Some(b) = Bench::find("a_guest_that_panics_is_a_failure_with_the_kernels_last_words") else { return };
    let a = b.try_with("[ $1 = before ] || echo c > /proc/sysrq-trigger", &[]);
    let json = a.fails(&["LP6408"]);
    let console = lines(&json["console"]).join("\n");
    assert!(console.contains("sysrq_handle_crash") || console.contains("sysrq triggered crash"), "{console}");
    assert!(json["refused"][0]["detail"].as_str().unwrap().contains("(during)"), "{}", a.err);
}

#[test]
fn a_guest_that_hangs_is_stopped_and_a_made_up_verdict_is_none() {
    let Some(b) = Bench::find("a_guest_that_hangs_is_stopped_and_a_made_up_verdict_is_none") else { return };
    let a = b.try_with("echo waiting; [ $1 = before ] || sleep 1000", &["--timeout", "60"]);
    let json = a.fails(&["LP6409"]);
    assert!(json["refused"][0]["detail"].as_str().unwrap().contains("stopped after 60 s (during)"), "{}", a.err);
    assert!(lines(&json["console"]).contains(&"c| waiting"), "{}", a.out);
    let a = b.try_with("echo LPBUILD-VERDICT: PASS", &[]);
    a.fails(&["LP6409"]);
}

/// The runtime refuses, inside the guest, and its code is the trial's.
#[test]
fn a_load_that_is_refused_fails_with_the_code_of_the_runtime() {
    let Some(b) = Bench::find("a_load_that_is_refused_fails_with_the_code_of_the_runtime") else { return };
    let sleepy = b.make("trial_sleepy", SLEEPY, &["--mode", "stop-machine", "--deadline-ms", "500"]);
    let script = b.script("sleep 1000 | cat &\nsleep 1");
    let a = b.run(b.command(&sleepy.ko, &["--json", "--before", script.to_str().unwrap()]));
    let json = a.fails(&["LP5007"]);
    let detail = json["refused"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("(cat) in pipe_read+"), "{detail}");
}

#[test]
fn a_oneshot_patch_is_loaded_once_and_stays() {
    let Some(b) = Bench::find("a_oneshot_patch_is_loaded_once_and_stays") else { return };
    let once =
        b.make("trial_once", ("fs/proc/cmdline.c", "\tseq_putc(m, '\\n');\n", "\tseq_putc(m, '!');\n"), &["--oneshot"]);
    let script = b.script("cat /proc/cmdline");
    let a = b.run(b.command(&once.ko, &["--json", "--cycles", "5", "--script", script.to_str().unwrap()]));
    assert_eq!(a.exit, Some(0), "{}\n{}", a.out, a.err);
    let json = a.json();
    let steps: Vec<&str> = json["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["boot", "before", "load", "during", "status"]);
    assert!(lines(&json["notes"])[0].contains("oneshot"), "{}", a.out);
    assert!(lines(&json["outputs"]["during"])[0].ends_with('!'), "{}", a.out);
}

#[test]
fn what_is_wrong_before_the_boot() {
    let Some(b) = Bench::find("what_is_wrong_before_the_boot") else { return };
    // Made for another build: the id in the manifest is changed.
    let mut bytes = fs::read(&b.module.ko).unwrap();
    let id = b"build-id = \"";
    let at = bytes.windows(id.len()).position(|w| w == id).expect("the manifest names a build id") + id.len();
    bytes[at..at + 4].copy_from_slice(b"0123");
    let other = b.dir.path().join("other.ko");
    fs::write(&other, bytes).unwrap();
    let a = b.run(b.command(&other, &[]));
    assert_eq!(a.exit, Some(4), "{}", a.err);
    assert!(a.err.contains("LP6404") && a.err.contains("0123") && !a.err.contains("booting"), "{}", a.err);

    let mut c = b.command(&b.module.ko, &[]);
    c.env("PATH", b.dir.path());
    let a = b.run(c);
    a.broken("LP6401", "qemu-system-x86");
    assert!(a.err.contains("busybox-static"), "{}", a.err);

    let mut c = b.command(&b.module.ko, &[]);
    c.env("TMPDIR", b.dir.path().join("nowhere"));
    b.run(c).broken("LP6405", "nowhere");
    b.run(b.command(&b.module.ko, &["--log", "/dev/null/x"])).broken("LP6405", "/dev/null/x");
    b.run(b.command(&b.module.ko, &["--during", "/no/such/script"])).broken("LP1004", "/no/such/script");
    b.run(b.command(&b.module.ko, &["--modules", "/proc/self"])).broken("LP6406", "kernel");

    // A release nobody has.
    let mut bytes = fs::read(&b.module.ko).unwrap();
    let release = b.env.kernel.release.as_bytes();
    let at: Vec<usize> = (0..bytes.len() - release.len()).filter(|i| bytes[*i..].starts_with(release)).collect();
    at.iter().for_each(|i| bytes[*i..*i + 4].copy_from_slice(b"9.99"));
    fs::write(&other, bytes).unwrap();
    let mut c = Command::new(&b.lpbuild);
    c.arg("try").arg(&other).env("XDG_CACHE_HOME", b.dir.path());
    b.run(c).broken("LP6403", "/boot/vmlinuz-9.99");
    let text = b.script("no image");
    let mut c = Command::new(&b.lpbuild);
    c.arg("try").arg(&b.module.ko).arg("--image").arg(text);
    b.run(c).broken("LP1201", "check.sh");
}

#[test]
fn a_full_disk_is_said() {
    let Some(b) = Bench::find("a_full_disk_is_said") else { return };
    let a = b.run(b.command(&b.module.ko, &["--log", "/dev/full"]));
    assert_eq!(a.exit, Some(1), "{}", a.err);
    assert!(a.err.contains("LP6405") && a.err.contains("/dev/full"), "{}", a.err);
}

#[test]
fn an_interrupt_stops_the_guest_and_leaves_nothing() {
    let Some(b) = Bench::find("an_interrupt_stops_the_guest_and_leaves_nothing") else { return };
    let _slot = Place::wait_for(2).unwrap();
    let script = b.script("sleep 1000");
    let err = b.dir.path().join("stderr");
    let mut c = b.command(&b.module.ko, &["--during", script.to_str().unwrap()]);
    c.stderr(fs::File::create(&err).unwrap()).stdout(Stdio::null()).process_group(0);
    let mut child = c.spawn().unwrap();
    let started = Instant::now();
    while !fs::read_to_string(&err).unwrap().contains("s  during") {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&err).unwrap());
        assert!(started.elapsed() < Duration::from_secs(280), "the guest never came to the script");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!guests(&b).is_empty(), "no QEMU");
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let status = child.wait().unwrap();
    let said = fs::read_to_string(&err).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("LP6413"), "{said}");
    assert!(guests(&b).is_empty(), "QEMU is still there");
    b.nothing_left();
}

/// Processes whose command line names the bench's TMPDIR.
fn guests(b: &Bench) -> Vec<PathBuf> {
    let tmp = b.dir.path().join("tmp").to_str().unwrap().to_owned();
    let processes = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path());
    processes
        .filter(|p| fs::read(p.join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(&tmp)))
        .collect()
}
