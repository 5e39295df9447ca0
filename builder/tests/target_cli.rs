//! The target commands against trees that look like a host; nothing here reaches the running kernel.
//!
//! The system calls themselves, and the runtime's answers, are tested in a VM.

/// What the binary is told.
#[path = "../src/cli/host.rs"]
mod host;

use std::fs;
use std::path::{Path, PathBuf};

use host::{InspectArgs, LoadArgs, StatusArgs, UnloadArgs};
use lpbuild::error::Error;
use lpbuild::host::{Host, parse_log};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};
use serde_json::Value;
use tempfile::TempDir;

const RELEASE: &str = "6.1.0-test-amd64";
const BUILD_ID: &str = "00112233445566778899aabbccddeeff00112233";

const MANIFEST: &str = r#"
schema = 1

[patch]
name = "fix_one"
version = "1.2"
mode = "stop-machine"
deadline-ms = 3000

[kernel]
release = "6.1.0-test-amd64"
build-id = "00112233445566778899aabbccddeeff00112233"
anchor = "_printk"
anchor-address = "0xffffffff81000000"

[[function]]
object = "vmlinux"
source = "fs/proc/cmdline.o"
symbol = "cmdline_proc_show"
sympos = 0
anchor-offset = 4096
old-size = 60
new-size = 70
why = "changed"

[function.site]
offset = 5
size = 7
jump = "rel32"
original = "48896c2408ffc0"
instructions = ["mov %rbp,0x8(%rsp)", "inc %eax"]
rule = "after-fentry"

[[function.piece]]
symbol = "cmdline_proc_show.cold"
anchor-offset = 8192
size = 12

[[function]]
object = "vmlinux"
source = "fs/proc/cmdline.o"
symbol = "twin"
sympos = 2
anchor-offset = 5000
old-size = 60
new-size = 70
why = "changed"

[function.site]
offset = 0
size = 12
jump = "abs64"
original = "909090909090909090909090"
instructions = ["nop"]
rule = "entry"
"#;

/// A fake host that would take the fake module, and the module.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let b = Self { dir: TempDir::new().unwrap() };
        b.put("proc/sys/kernel/osrelease", format!("{RELEASE}\n"));
        b.put("proc/sys/kernel/arch", "x86_64\n");
        b.put("proc/sys/kernel/modules_disabled", "0\n");
        b.put("proc/self/status", "Name:\tlpbuild\nCapEff:\t000001ffffffffff\n");
        b.notes(BUILD_ID);
        b.module(MANIFEST, &modinfo());
        b
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn put(&self, relative: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(relative).parent().unwrap()).unwrap();
        fs::write(self.path(relative), text).unwrap();
    }

    /// Xen notes first, as on distribution kernels.
    fn notes(&self, build_id: &str) {
        let mut notes = Vec::new();
        let id = lpbuild::hash::from_hex(build_id).unwrap();
        for (owner, kind, text) in
            [(b"Xen\0", 6u32, b"linux\0".to_vec()), (b"Xen\0", 7, b"2.6\0".to_vec()), (b"GNU\0", 3, id)]
        {
            for n in [4, text.len() as u32, kind] {
                notes.extend(n.to_le_bytes());
            }
            notes.extend(owner);
            notes.extend(&text);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        self.put("sys/kernel/notes", notes);
    }

    fn module(&self, manifest: &str, modinfo: &str) {
        self.put("fix_one.ko", module(&[(".lpbuild.manifest", manifest), (".modinfo", modinfo)]));
    }

    fn patch(&self, name: &str, files: &[(&str, &str)]) {
        let plain = [
            ("state", "applied\n"),
            ("version", "1.2\n"),
            ("mode", "stop-machine\n"),
            ("functions", "cmdline_proc_show site=+0x5/7 jump=rel32 applied\n"),
            ("attempts", "2\n"),
            ("pause_ns", "123456\n"),
            ("deadline_ms", "50\n"),
            ("enabled", "1\n"),
            ("last_error", ""),
            ("blockers", ""),
        ];
        for (file, text) in plain.iter().chain(files) {
            self.put(&format!("sys/kernel/lpbuild/{name}/{file}"), text);
        }
    }

    fn host(&self) -> Host {
        Host::at(self.dir.path())
    }

    fn load(&self) -> Answer {
        self.load_with(&[])
    }

    fn load_with(&self, options: &[&str]) -> Answer {
        let ko = self.path("fix_one.ko");
        let args = parsed::<LoadArgs>(&[&["--json", ko.to_str().unwrap()], options].concat());
        answer(|out| args.run(&self.host(), out))
    }

    fn unload(&self, name: &str) -> Answer {
        self.unload_with(name, &["--deadline-ms", "1000"])
    }

    fn unload_with(&self, name: &str, options: &[&str]) -> Answer {
        let args = parsed::<UnloadArgs>(&[&["--json", name], options].concat());
        answer(|out| args.run(&self.host(), out))
    }

    fn read(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.path(&format!("sys/kernel/lpbuild/{name}/{file}"))).unwrap().trim().to_owned()
    }

    fn status(&self, name: Option<&str>, json: bool) -> Answer {
        let args = StatusArgs { name: name.map(Into::into), json };
        answer(|out| args.run(&self.host(), out))
    }
}

/// Arguments as the command line gives them.
fn parsed<A: clap::Args>(args: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
    A::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
}

/// Exit code, codes of the problems, what was printed.
struct Answer {
    exit: u8,
    codes: Vec<&'static str>,
    text: String,
    error: String,
}

fn answer(run: impl FnOnce(&mut dyn std::io::Write) -> Result<(), Error>) -> Answer {
    let mut out = Vec::new();
    let result = run(&mut out);
    let text = String::from_utf8(out).unwrap();
    match result {
        Ok(()) => Answer { exit: 0, codes: Vec::new(), text, error: String::new() },
        Err(e) => {
            let codes = e.problems.iter().map(|p| p.code.id).collect();
            Answer { exit: e.exit_code(), codes, text, error: e.to_string() }
        }
    }
}

impl Answer {
    #[track_caller]
    fn refused(&self, codes: &[&str]) {
        assert_eq!((self.exit, self.codes.as_slice()), (4, codes), "{}", self.error);
        let json: Value = serde_json::from_str(&self.text).unwrap();
        let found: Vec<&str> =
            json["refused"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
        assert_eq!(found, codes);
    }
}

fn modinfo() -> String {
    format!(
        "name=fix_one\0vermagic={RELEASE} SMP preempt mod_unload modversions \0license=GPL\0parmtype=mode:charp\0\
         parmtype=dry_run:bool\0parmtype=oneshot:bool\0\
         parmtype=patience_ms:uint\0"
    )
}

fn module(sections: &[(&str, &str)]) -> Vec<u8> {
    let mut o = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    for (name, text) in sections {
        let id =
            o.add_section(o.segment_name(StandardSegment::Data).to_vec(), name.as_bytes().to_vec(), SectionKind::Data);
        o.set_section_data(id, text.as_bytes().to_vec(), 1);
    }
    o.write().unwrap()
}

#[test]
fn all_checks_pass_and_the_system_call_is_next() {
    // A tree is no kernel: the system call answers ENOSYS, which shows that everything before it was fine.
    let b = Bench::new();
    let a = b.load();
    a.refused(&["LP5112"]);
    assert!(a.error.contains("not implemented"), "{}", a.error);
}

#[test]
fn identity() {
    let b = Bench::new();
    b.put("proc/sys/kernel/osrelease", "6.1.0-other-amd64");
    b.load().refused(&["LP5103"]);

    let b = Bench::new();
    b.module(MANIFEST, "name=fix_one\0vermagic=6.1.0-other SMP\0");
    b.load().refused(&["LP5103"]);

    let b = Bench::new();
    b.notes("ffffffffffffffffffffffffffffffffffffffff");
    let a = b.load();
    a.refused(&["LP5104"]);
    assert!(a.error.contains(BUILD_ID) && a.error.contains("ffffffff"), "{}", a.error);

    let b = Bench::new();
    fs::remove_file(b.path("sys/kernel/notes")).unwrap();
    b.load().refused(&["LP5105"]);
    b.put("sys/kernel/notes", b"\x04\0\0\0\xff\xff\xff\xff\x03\0\0\0GNU\0");
    b.load().refused(&["LP5105"]);

    let b = Bench::new();
    b.put("proc/sys/kernel/arch", "aarch64");
    b.load().refused(&["LP5102"]);

    let b = Bench::new();
    let (head, rest) = MANIFEST.split_once("[kernel]").unwrap();
    let (_, functions) = rest.split_once("[[function]]").unwrap();
    b.module(&format!("{head}[[function]]{functions}"), &modinfo());
    b.load().refused(&["LP5117"]);
}

/// As the running kernel shows it, moved by KASLR.
fn kallsyms(functions: &[(u64, &str)]) -> String {
    let slide = 0xffff_ffff_8d00_0000u64;
    let line = |(offset, name): &(u64, &str)| format!("{:016x} t {name}\n", slide + offset);
    let mut text: String = functions.iter().map(line).collect();
    text.push_str("ffffffffc0000000 t cmdline_proc_show\t[some_module]\n");
    text
}

#[test]
fn functions_are_where_the_running_kernel_has_them() {
    let right = [
        (0, "_printk"),
        (4096, "cmdline_proc_show"),
        (4200, "other"),
        (4900, "twin"),
        (5000, "twin"),
        (8192, "cmdline_proc_show.cold"),
    ];
    let b = Bench::new();
    b.put("proc/kallsyms", kallsyms(&right));
    b.load().refused(&["LP5112"]);
    for (i, name) in [(1, "cmdline_proc_show"), (3, "twin"), (4, "twin"), (5, "cmdline_proc_show.cold")] {
        let mut wrong = right;
        // The first of the twins may be anywhere, as long as it is the first.
        wrong[i].0 += if i == 3 { 200 } else { 16 };
        b.put("proc/kallsyms", kallsyms(&wrong));
        let a = b.load();
        a.refused(&["LP5123"]);
        assert!(a.error.contains(name), "{}", a.error);
    }
    b.put("proc/kallsyms", kallsyms(&right[..4]));
    b.load().refused(&["LP5123"]);
    // Addresses hidden, no anchor, no file: nothing is compared, the build id has to do.
    let hidden = kallsyms(&right).lines().map(|l| format!("{:016x}{}\n", 0, &l[16..])).collect::<String>();
    for text in [hidden.as_str(), "0 t x\n", ""] {
        b.put("proc/kallsyms", text);
        b.load().refused(&["LP5112"]);
    }
}

#[test]
fn records_that_say_something_else_than_the_manifest() {
    let b = Bench::new();
    b.module(MANIFEST, &format!("{}lpbuild_abi={}\0", modinfo(), lpbuild_abi::ABI_VERSION));
    let a = b.load();
    assert!(a.exit == 4 && a.codes.iter().all(|c| *c == "LP5118"), "{:?} {}", a.codes, a.error);
    assert!(a.error.contains("no record for this function"), "{}", a.error);
    // Of another layout: the runtime beside them knows it.
    b.module(MANIFEST, &format!("{}lpbuild_abi=1\0", modinfo()));
    b.load().refused(&["LP5112"]);
}

#[test]
fn not_our_module() {
    let b = Bench::new();
    b.put("fix_one.ko", module(&[(".modinfo", "name=ext4\0")]));
    b.load().refused(&["LP5101"]);
    b.put("fix_one.ko", "text");
    b.load().refused(&["LP5102"]);
    b.put("fix_one.ko", b"\x1f\x8b\x08\0");
    let a = b.load();
    a.refused(&["LP5102"]);
    assert!(a.error.contains("compressed"), "{}", a.error);
    let mut other = module(&[(".lpbuild.manifest", MANIFEST)]);
    other[18] = 183;
    b.put("fix_one.ko", other);
    b.load().refused(&["LP5102"]);
    b.module(MANIFEST, "name=another\0");
    b.load().refused(&["LP5118"]);
    b.module("schema = 2", &modinfo());
    assert_eq!((b.load().exit, b.load().codes), (1, vec!["LP1101"]));
    fs::remove_file(b.path("fix_one.ko")).unwrap();
    assert_eq!((b.load().exit, b.load().codes), (1, vec!["LP1004"]));
}

#[test]
fn already_there() {
    let b = Bench::new();
    b.patch("fix_one", &[]);
    b.load().refused(&["LP5106"]);
    let b = Bench::new();
    fs::create_dir_all(b.path("sys/module/fix_one")).unwrap();
    b.load().refused(&["LP5106"]);
}

#[test]
fn functions_that_are_taken() {
    let b = Bench::new();
    b.patch("other", &[("functions", "twin site=+0x0/12 jump=abs64 applied\n")]);
    b.load().refused(&["LP5112"]); // a duplicate name says nothing; the runtime compares bytes
    b.patch("other", &[]);
    let a = b.load();
    a.refused(&["LP5107"]);
    assert!(a.error.contains("cmdline_proc_show") && a.error.contains("the patch other"), "{}", a.error);
    for state in ["reverted\n", "replaced\n"] {
        b.patch("other", &[("state", state)]);
        b.load().refused(&["LP5112"]);
    }
    b.patch("other", &[]);
    for key in ["after", "replaces"] {
        b.module(
            &MANIFEST.replace("deadline-ms = 3000", &format!("deadline-ms = 3000\n{key} = [\"other\"]")),
            &modinfo(),
        );
        b.load().refused(&["LP5112"]);
    }

    let b = Bench::new();
    fs::create_dir_all(b.path("sys/kernel/livepatch/klp/vmlinux/twin,1")).unwrap();
    fs::create_dir_all(b.path("sys/kernel/livepatch/klp/ext4/cmdline_proc_show,1")).unwrap();
    b.put("sys/kernel/livepatch/klp/enabled", "1");
    b.load().refused(&["LP5112"]); // another position, another object
    fs::create_dir_all(b.path("sys/kernel/livepatch/klp/vmlinux/twin,2")).unwrap();
    fs::create_dir_all(b.path("sys/kernel/livepatch/klp/vmlinux/cmdline_proc_show,1")).unwrap();
    b.load().refused(&["LP5108", "LP5108"]);
}

#[test]
fn permission() {
    let b = Bench::new();
    b.put("proc/self/status", "CapEff:\t0000000000000000\n");
    b.put("proc/sys/kernel/modules_disabled", "1\n");
    b.put("sys/module/module/parameters/sig_enforce", "Y\n");
    b.load().refused(&["LP5109", "LP5110", "LP5111"]);
    b.patch("fix_one", &[]);
    b.unload("fix_one").refused(&["LP5109"]);

    let b = Bench::new();
    b.put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    let a = b.load();
    a.refused(&["LP5111"]);
    assert!(a.error.contains("lockdown=integrity"), "{}", a.error);
    sign(&b.path("fix_one.ko"));
    b.load().refused(&["LP5112"]);
}

fn sign(path: &Path) {
    let mut data = fs::read(path).unwrap();
    data.extend([0x30; 300]);
    data.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 44]);
    data.extend(b"~Module signature appended~\n");
    fs::write(path, data).unwrap();
}

#[test]
fn unload_refusals() {
    let b = Bench::new();
    b.unload("nosuch").refused(&["LP5113"]);
    b.unload("../notes").refused(&["LP5113"]);
    b.unload("").refused(&["LP5113"]);
    fs::create_dir_all(b.path("sys/module/ext4")).unwrap();
    let a = b.unload("ext4");
    a.refused(&["LP5113"]);
    assert!(a.error.contains("not a patch"), "{}", a.error);

    // Busy: the state stays `applied`, and the runtime says who is in the way.
    b.patch(
        "fix_one",
        &[
            ("last_error", "LP5013: tasks were inside the new functions until the deadline\n"),
            ("blockers", "812 cat seq_read+0x1f\n7 kworker/0:1 unreliable-stack\nand 3 more\n"),
        ],
    );
    let a = b.unload("fix_one");
    assert_eq!(a.exit, 4);
    let json: Value = serde_json::from_str(&a.text).unwrap();
    assert_eq!(json["blockers"][0]["pid"], 812);
    assert_eq!(json["blockers"][0]["place"], "seq_read+0x1f");
    assert_eq!(json["refused"][0]["blockers"], json["blockers"]);
    assert!(json["refused"][0]["message"].as_str().unwrap().starts_with("LP5013: fix_one: tasks were inside"));
    assert_eq!(json["blockers"][1]["comm"], "kworker/0:1");
    assert!(a.error.contains("812 (cat) in seq_read+0x1f, 7 (kworker/0:1) in unreliable-stack"), "{}", a.error);
    assert_eq!(fs::read_to_string(b.path("sys/kernel/lpbuild/fix_one/enabled")).unwrap().trim(), "0");
    assert_eq!(fs::read_to_string(b.path("sys/kernel/lpbuild/fix_one/deadline_ms")).unwrap().trim(), "1000");

    b.patch("fix_one", &[("last_error", "LP5098: a reason of the future\n")]);
    assert_eq!(b.unload("fix_one").codes, ["LP5119"]);
    b.patch("fix_one", &[]);
    b.unload("fix_one").refused(&["LP5114"]);
    b.patch("fix_one", &[("state", "reverted\n")]);
    b.put("sys/module/fix_one/refcnt", "2\n");
    let a = b.unload("fix_one");
    a.refused(&["LP5115"]);
    assert!(a.error.contains("references: 2"), "{}", a.error);
}

#[test]
fn who_holds_the_function() {
    let b = Bench::new();
    b.patch("other", &[]);
    let a = b.load();
    let json: Value = serde_json::from_str(&a.text).unwrap();
    let first = &json["refused"][0];
    assert_eq!((first["function"].as_str(), first["owner"].as_str()), (Some("cmdline_proc_show"), Some("other")));
    // The kernel can say more about it, and is asked in a dry run.
    let a = b.load_with(&["--dry-run"]);
    a.refused(&["LP5107", "LP5112"]);

    // The same from the runtime: the function leads, the owner is in brackets or a patch there is.
    for text in
        ["LP5012: cmdline_proc_show: its code jumps to x+0x0 [other]", "LP5012: cmdline_proc_show: other is on top"]
    {
        b.patch("fix_one", &[("last_error", text)]);
        let json: Value = serde_json::from_str(&b.unload("fix_one").text).unwrap();
        let first = &json["refused"][0];
        assert_eq!((first["function"].as_str(), first["owner"].as_str()), (Some("cmdline_proc_show"), Some("other")));
        assert!(first["blockers"].as_array().unwrap().is_empty());
    }
}

#[test]
fn options_of_the_runtime() {
    let b = Bench::new();
    let patience = &["--patience-ms", "500"][..];
    for options in
        [&["--mode", "drain"][..], &["--dry-run"], &["--oneshot"], &["--mode", "transition", "--force"], patience]
    {
        b.load_with(options).refused(&["LP5112"]); // all is well as far as can be seen without a kernel
    }
    // Force is for transitions: as packed, or as asked for.
    b.load_with(&["--force"]).refused(&["LP5121"]);
    b.load_with(&["--force", "--mode", "drain"]).refused(&["LP5121"]);
    b.patch("fix_one", &[]);
    b.unload_with("fix_one", &["--force"]).refused(&["LP5121"]);
    assert_eq!(b.read("fix_one", "enabled"), "1");

    // An older runtime has none of it, and the kernel would not say so.
    let b = Bench::new();
    b.module(MANIFEST, "name=fix_one\0license=GPL\0parmtype=deadline_ms:uint\0parm=mode:charp\0");
    for options in [&["--mode", "stop-machine"][..], &["--dry-run"], &["--oneshot"], patience] {
        b.load_with(options).refused(&["LP5120"]);
    }
    b.load_with(&["--deadline-ms", "5"]).refused(&["LP5112"]);
}

#[test]
fn unload_in_another_mode_or_by_force() {
    let b = Bench::new();
    b.patch("fix_one", &[("last_error", "LP5013: busy")]);
    b.unload_with("fix_one", &["--mode", "transition", "--force", "--deadline-ms", "1500"]).refused(&["LP5013"]);
    assert_eq!(b.read("fix_one", "mode"), "transition");
    assert_eq!(b.read("fix_one", "deadline_ms"), "31500", "it must not give up before it can be forced");
    assert_eq!(b.read("fix_one", "enabled"), "0");

    // Nothing is asked of a patch that does nothing any more, and its module goes; after force as well.
    for (state, force) in [("reverted", "0"), ("reverted", "1\n"), ("replaced", "0"), ("checked", "0")] {
        b.patch("fix_one", &[("state", state), ("enabled", "1"), ("force", force)]);
        b.unload_with("fix_one", &[]).refused(&["LP5115"]); // a tree has no system call
        assert_eq!(b.read("fix_one", "enabled"), "1");
    }

    // A patch of another mode that says nothing of its end has one behind the patience.
    let patient = [("last_error", "LP5013: busy"), ("deadline_ms", "10000"), ("patience_ms", "15000")];
    for (options, patience, deadline) in [
        (&["--mode", "transition"][..], "15000", "30000"),
        (&["--mode", "transition", "--patience-ms", "2000"], "2000", "17000"),
        (&["--patience-ms", "7"], "7", "10000"),
    ] {
        b.patch("fix_one", &patient);
        b.unload_with("fix_one", options).refused(&["LP5013"]);
        assert_eq!(
            (b.read("fix_one", "patience_ms"), b.read("fix_one", "deadline_ms")),
            (patience.into(), deadline.into())
        );
    }

    // A drain has no deadline of its own: only the waiting ends.
    b.patch(
        "fix_one",
        &[("state", "reverting"), ("mode", "drain"), ("force", "0"), ("blockers", "7 sh pipe_read+0x1\n")],
    );
    let a = b.unload_with("fix_one", &["--deadline-ms", "30"]);
    a.refused(&["LP5122"]);
    assert!(a.error.contains("7 (sh) in pipe_read+0x1"), "{}", a.error);
    // One that still drains has been told, and is not ill.
    b.patch("fix_one", &[("state", "draining"), ("mode", "drain"), ("force", "0"), ("blockers", "")]);
    b.unload_with("fix_one", &["--deadline-ms", "30"]).refused(&["LP5122"]);
    // Our own task among those in the way is the kernel's loader.
    let own = format!("{} lpbuild do_init_module+0x1\n", std::process::id());
    b.patch("fix_one", &[("state", "reverting"), ("mode", "drain"), ("force", "0"), ("blockers", &own)]);
    let a = b.unload_with("fix_one", &["--deadline-ms", "30"]);
    assert!(a.error.contains("one of them is this lpbuild"), "{}", a.error);
}

/// Standard output whose other end does this.
struct Out(std::io::ErrorKind);

impl std::io::Write for Out {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Err(self.0.into())
    }
}

#[test]
fn a_closed_pipe_changes_nothing_and_a_full_disk_is_said() {
    use std::io::ErrorKind::{BrokenPipe, StorageFull};
    let b = Bench::new();
    b.patch("fix_one", &[]);
    let (ko, host) = (b.path("fix_one.ko"), b.host());
    let (load, inspect) = (parsed::<LoadArgs>(&[ko.to_str().unwrap()]), parsed::<InspectArgs>(&[ko.to_str().unwrap()]));
    for json in [false, true] {
        let status = StatusArgs { name: None, json };
        assert!(status.run(&host, &mut Out(BrokenPipe)).is_ok());
        assert_eq!(status.run(&host, &mut Out(StorageFull)).unwrap_err().problems[0].code.id, "LP1006");
    }
    assert!(inspect.run(&mut Out(BrokenPipe)).is_ok());
    // What was refused stays refused.
    assert_eq!(load.run(&host, &mut Out(BrokenPipe)).unwrap_err().problems[0].code.id, "LP5106");
}

#[test]
fn without_sysfs_nothing_is_said_of_patches() {
    let b = Bench::new();
    fs::remove_dir_all(b.path("sys")).unwrap();
    for json in [false, true] {
        for name in [None, Some("fix_one")] {
            let a = b.status(name, json);
            assert_eq!((a.exit, a.codes.as_slice()), (1, &["LP5124"][..]), "{}", a.text);
        }
    }
    assert_eq!(b.unload("fix_one").codes, ["LP5124"]);
    // An empty folder is what is there before it is mounted.
    fs::create_dir_all(b.path("sys")).unwrap();
    assert_eq!(b.status(None, false).codes, ["LP5124"]);
}

#[test]
fn a_deadline_of_nothing() {
    let b = Bench::new();
    b.module(&MANIFEST.replace("deadline-ms = 3000", "deadline-ms = 0"), &modinfo());
    let a = b.load();
    assert_eq!((a.exit, a.codes.as_slice()), (1, &["LP1101"][..]));
    assert!(a.error.contains("deadline"), "{}", a.error);
    b.module(&MANIFEST.replace("deadline-ms = 3000", "deadline-ms = 3000\npatience-ms = 0"), &modinfo());
    assert!(b.load().error.contains("patience"));
}

#[test]
fn status_of_nothing_one_and_many() {
    let b = Bench::new();
    assert_eq!(b.status(None, false).text, "no patches\n");
    assert_eq!(b.status(None, true).text.split_whitespace().collect::<String>(), r#"{"patches":[]}"#);
    b.status(Some("fix_one"), true).refused(&["LP5113"]);

    b.patch(
        "zeta",
        &[("functions", "a_long_name site=+0x9/5 jump=rel32 applied\nb site=+0x0/12 jump=abs64 applied\nbroken\n")],
    );
    b.patch("fix_one", &[("last_error", "LP5013: busy\n"), ("blockers", "1 init do_wait+0x1\nand 2 more\n")]);
    fs::create_dir_all(b.path("sys/kernel/lpbuild/empty")).unwrap();
    fs::create_dir_all(b.path("sys/kernel/livepatch/klp/vmlinux/cmdline_proc_show,1")).unwrap();
    let a = b.status(None, false);
    assert_eq!(
        a.text,
        "fix_one 1.2: applied, stop-machine (attempts 2, pause 123 us)\n\
         \x20 cmdline_proc_show  +0x5/7  rel32  applied\n\
         \x20 last error: LP5013: busy\n\
         \x20 blocker: 1 (init) in do_wait+0x1\n\
         \x20 and 2 more\n\
         \x20 warning: cmdline_proc_show is also replaced by the livepatch klp, whose version runs\n\
         zeta 1.2: applied, stop-machine (attempts 2, pause 123 us)\n\
         \x20 a_long_name  +0x9/5  rel32  applied\n\
         \x20 b            +0x0/12  abs64  applied\n"
    );
    let json: Value = serde_json::from_str(&b.status(Some("fix_one"), true).text).unwrap();
    assert_eq!(json["patches"].as_array().unwrap().len(), 1);
    let p = &json["patches"][0];
    assert_eq!(
        (p["name"].as_str(), p["state"].as_str(), p["pause_ns"].as_u64()),
        (Some("fix_one"), Some("applied"), Some(123_456))
    );
    assert_eq!(p["functions"][0]["site_offset"], 5);
    assert_eq!(p["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn status_of_patches_on_their_way() {
    let b = Bench::new();
    b.patch(
        "one",
        &[
            ("state", "draining"),
            ("mode", "drain"),
            ("blockers", "7 sh pipe_read+0x1\n"),
            ("after", "zero base\n"),
            ("replaces", "old\n"),
        ],
    );
    b.patch("two", &[("state", "applying"), ("mode", "transition"), ("switched", "118/120\n"), ("force", "1\n")]);
    b.patch("zero", &[("state", "replaced"), ("switched", "0/0\n")]);
    assert_eq!(
        b.status(None, false).text,
        "one 1.2: draining, drain (attempts 2, pause 123 us)\n\
         \x20 cmdline_proc_show  +0x5/7  rel32  applied\n\
         \x20 after: zero base\n\
         \x20 replaces: old\n\
         \x20 still in old code: 7 (sh) in pipe_read+0x1\n\
         two 1.2: applying, transition, forced, 118 of 120 tasks switched (attempts 2, pause 123 us)\n\
         \x20 cmdline_proc_show  +0x5/7  rel32  applied\n\
         zero 1.2: replaced, stop-machine (attempts 2, pause 123 us)\n\
         \x20 cmdline_proc_show  +0x5/7  rel32  applied\n\
         \x20 warning: it does nothing any more; lpbuild unload zero removes its module\n"
    );
    let json: Value = serde_json::from_str(&b.status(None, true).text).unwrap();
    let [one, two] = [&json["patches"][0], &json["patches"][1]];
    assert_eq!((one["after"][1].as_str(), one["replaces"][0].as_str()), (Some("base"), Some("old")));
    assert_eq!((two["switched"]["tasks"].as_u64(), two["switched"]["of"].as_u64()), (Some(118), Some(120)));
    assert_eq!((one["forced"].as_bool(), two["forced"].as_bool()), (Some(false), Some(true)));
}

#[test]
fn inspect_decodes_the_sites() {
    let b = Bench::new();
    sign(&b.path("fix_one.ko"));
    let run = |json| answer(|out| InspectArgs { module: b.path("fix_one.ko"), json }.run(out));
    let text = run(false).text;
    for wanted in [
        "patch      fix_one 1.2\n",
        "signature  PKCS#7, 300 bytes (not verified)\n",
        "  site     +0x5/7 at 0xffffffff81001005, after-fentry\n",
        "    +0x05  48 89 6c 24 08  mov %rbp,8(%rsp)\n",
        "    +0x0a  ff c0           inc %eax\n",
        "  becomes  jmp <new cmdline_proc_show>; nop of 2 bytes\n",
        "  becomes  movabs $<new twin>,%rax; jmp *%rax\n",
        "  piece    cmdline_proc_show.cold\n",
        "  vermagic=6.1.0-test-amd64 SMP preempt mod_unload modversions \n",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in\n{text}");
    }
    let json: Value = serde_json::from_str(&run(true).text).unwrap();
    assert_eq!(json["kernel"]["build_id"], BUILD_ID);
    assert_eq!(json["functions"][0]["site"]["address"], "0xffffffff81001005");
    assert_eq!(json["functions"][0]["site"]["original"][1]["text"], "inc %eax");
    assert_eq!(json["signature"]["size"], 300);
}

#[test]
fn damaged_modules_do_not_panic() {
    let b = Bench::new();
    let whole = fs::read(b.path("fix_one.ko")).unwrap();
    for keep in (0..whole.len()).step_by(17) {
        b.put("fix_one.ko", &whole[..keep]);
        assert!(b.load().exit != 0);
    }
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x81;
        b.put("fix_one.ko", altered);
        assert!(b.load().exit != 0, "no system call is made for a tree");
    }
}

#[test]
fn the_log() {
    let records = "3,900,1,-;lpbuild: fix_one: LP5007: tasks were inside the replaced functions, or had not changed over, until the deadline\n\
        3,901,2,-;lpbuild: fix_one: blocker pid=77 comm=my?task at=do_work+0x10\n SUBSYSTEM=cpu\n DEVICE=c1:1\n\
        3,902,2,-;lpbuild: fix_one: blocker pid=0 comm=swapper/1 at=unreliable-stack\n\
        3,903,2,-;lpbuild: fix_one: and 4 more blockers\n\
        3,904,2,-;lpbuild: other: LP5002: not ours\n\
        4,905,3,-,caller=T1;fix_one: disagrees about version of symbol module_layout\n\
        garbage\n";
    let found = parse_log(records, "fix_one");
    assert_eq!(found.refusals.len(), 1);
    assert_eq!(found.refusals[0].0, "LP5007");
    let blockers: Vec<String> = found.blockers.iter().map(ToString::to_string).collect();
    assert_eq!(blockers, ["77 (my?task) in do_work+0x10", "0 (swapper/1) in unreliable-stack"]);
    assert_eq!(found.loader, ["disagrees about version of symbol module_layout"]);
    assert_eq!(parse_log("", "x"), Default::default());
}
