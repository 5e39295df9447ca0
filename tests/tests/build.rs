//! `lpbuild build` on the stock kernel's source: which objects it compiles, what it refuses before compiling, and that
//! host, source, cache and output folder are as they were when something goes wrong. What the modules do is seen in
//! tests/vm_fixes.rs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lpbuild_tests::Env;
use serde_json::Value;
use tempfile::TempDir;

struct Bench {
    env: Env,
    lpbuild: PathBuf,
    dir: TempDir,
}

impl Bench {
    fn find(name: &str) -> Option<Self> {
        let (env, lpbuild) = Env::with_lpbuild(name)?;
        Some(Self { env, lpbuild, dir: tempfile::tempdir().unwrap() })
    }

    /// A patch of edits; each replaces a text that occurs once.
    fn patch(&self, name: &str, edits: &[(&str, &str, &str)]) -> PathBuf {
        let (old, new) = (self.dir.path().join("a"), self.dir.path().join("b"));
        let mut text = String::new();
        for (file, from, to) in edits {
            let content = fs::read_to_string(self.env.tree.source.join(file)).unwrap_or_default();
            assert!(from.is_empty() || content.matches(from).count() == 1, "{file}: {from:?} once");
            let changed = if from.is_empty() { format!("{content}{to}") } else { content.replace(from, to) };
            text += &diff(&old, &new, file, &content, &changed);
        }
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn command(&self, what: &[&Path]) -> Command {
        let mut c = self.env.maker(&self.lpbuild).build(what, &self.out());
        c.arg("--json");
        c
    }

    fn run(&self, what: &[&Path], more: &[&str]) -> (i32, Value, String) {
        report(&self.command(what).args(more).output().unwrap())
    }
}

/// A unified diff of one file; an empty old content makes a new file of it.
fn diff(old: &Path, new: &Path, file: &str, before: &str, after: &str) -> String {
    for (root, content) in [(old, before), (new, after)] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let from = if before.is_empty() { "/dev/null".to_owned() } else { format!("a/{file}") };
    let out = Command::new("diff")
        .args(["-u", "--label", &from, "--label", &format!("b/{file}")])
        .args([old.join(file), new.join(file)])
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn report(out: &Output) -> (i32, Value, String) {
    let code = out.status.code().unwrap_or(-1);
    (
        code,
        serde_json::from_slice(&out.stdout).unwrap_or(Value::Null),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

fn strings(value: &Value, key: &str, field: &str) -> Vec<String> {
    let entries = value[key].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|e| if field.is_empty() { e.clone() } else { e[field].clone() })
        .map(|e| e.as_str().unwrap_or("").to_owned())
        .collect()
}

const CMDLINE: (&str, &str, &str) = (
    "fs/proc/cmdline.c",
    "seq_puts(m, saved_command_line);",
    "seq_puts(m, saved_command_line);\n\tseq_puts(m, \" built\");",
);
const VERSION: (&str, &str, &str) = ("fs/proc/version.c", "utsname()->version);", "utsname()->version + 1);");

#[test]
fn two_patches_to_one_file_and_the_same_bytes_in_any_folder() {
    let Some(b) = Bench::find("two_patches_to_one_file_and_the_same_bytes_in_any_folder") else { return };
    let first = b.patch("1-first.patch", &[CMDLINE]);
    let text = fs::read_to_string(&first).unwrap();
    // The second is made against the file with the first: the same place again.
    let second = b.dir.path().join("2-second.patch");
    fs::write(&second, text.replace("saved_command_line);\n-", "").replace(" built", " twice")).unwrap();
    let old = fs::read_to_string(b.env.tree.source.join(CMDLINE.0)).unwrap();
    let once = old.replace(CMDLINE.1, CMDLINE.2);
    let twice = once.replace(" built", " built and built again");
    let (a, c) = (b.dir.path().join("c"), b.dir.path().join("d"));
    fs::write(&second, diff(&a, &c, CMDLINE.0, &once, &twice)).unwrap();
    let (code, report, err) = b.run(&[&first, &second], &["--name", "twice"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(strings(&report, "changed", "symbol"), ["cmdline_proc_show"]);
    assert_eq!(strings(&report, "objects", ""), ["fs/proc/cmdline.o"]);
    for made in ["twice.ko", "manifest.toml", "why.json", "build.log"] {
        assert!(b.out().join(made).is_file(), "{made}");
    }
    let module = fs::read(b.out().join("twice.ko")).unwrap();
    assert!(module.windows(16).any(|w| w == b"built and built "), "both patches are in");

    // Folder and module tell the same.
    let why = |of: &Path, symbol: &str| {
        let o = Command::new(&b.lpbuild).args(["why", "--json", symbol]).arg(of).output().unwrap();
        (o.status.code(), serde_json::from_slice::<Value>(&o.stdout).unwrap())
    };
    let (code, told) = why(&b.out(), "cmdline_proc_show");
    assert_eq!(code, Some(0), "{told}");
    let subject = &told["subjects"][0];
    assert_eq!(subject["matched"]["rule"], "name", "{told}");
    assert_eq!(subject["site"]["rule"], "after-fentry", "{told}");
    assert!(subject["bound"].as_str().unwrap().contains("is what vmlinux has at"), "{told}");
    let line = subject["difference"]["new"]["line"].as_str().unwrap();
    assert!(line.starts_with("fs/proc/cmdline.c:"), "{told}");
    assert_eq!(why(&b.out().join("twice.ko"), "cmdline_proc_show").1, told);
    let (code, told) = why(&b.out().join("twice.ko"), "seq_puts");
    let bound = &told["bound"][0];
    assert!(code == Some(0) && bound["resolved"] == "run-pre" && bound["by"][0] == "cmdline_proc_show", "{told}");
    let (code, told) = why(&b.out().join("twice.ko"), "cmdline_proc_shaw");
    assert!(code == Some(1) && told["refused"][0]["code"] == "LP1111", "{told}");
    assert!(told["refused"][0]["detail"].as_str().unwrap().contains("near names: cmdline_proc_show"), "{told}");

    // Another output folder, temporary folder, working folder and user environment.
    let elsewhere = b.dir.path().join("a/much/longer/path/than/before");
    fs::create_dir_all(&elsewhere).unwrap();
    let mut again = b.env.maker(&b.lpbuild).build(&[&first, &second], &elsewhere.join("made"));
    again.args(["--name", "twice"]).current_dir(&elsewhere).env("TMPDIR", &elsewhere).env("USER", "somebody");
    again.env("KBUILD_BUILD_TIMESTAMP", "yesterday").env("LANG", "de_DE.UTF-8").env("SOURCE_DATE_EPOCH", "1");
    assert!(again.output().unwrap().status.success());
    assert!(fs::read(elsewhere.join("made/twice.ko")).unwrap() == module, "the module depends on where it was built");
    let why = |dir: &Path| fs::read(dir.join("why.json")).unwrap();
    assert_eq!(why(&elsewhere.join("made")), why(&b.out()));
}

#[test]
fn a_header_reaches_every_object_that_includes_it_and_only_those_that_differ_are_carried() {
    let Some(b) = Bench::find("a_header_reaches_every_object_that_includes_it") else { return };
    let header = b.patch(
        "header.patch",
        &[(
            "io_uring/io_uring.h",
            "- ctx->cached_sq_head;\n}",
            "- READ_ONCE(ctx->cached_sq_head) - (ctx->flags >> 31);\n}",
        )],
    );
    let (code, report, err) = b.run(&[&header], &["--name", "header", "--compile-all"]);
    assert_eq!(code, 0, "{err}");
    let compiled = strings(&report, "compiled", "");
    assert!(compiled.len() > 20, "{compiled:?}");
    // Those that mention nothing of it need no compiler, and the answer is the same.
    fs::remove_dir_all(b.out()).unwrap();
    let (code, some, err) = b.run(&[&header], &["--name", "header"]);
    assert_eq!(code, 0, "{err}");
    let fewer = strings(&some, "compiled", "");
    assert!(fewer.len() * 2 < compiled.len() && fewer.iter().all(|o| compiled.contains(o)), "{fewer:?}");
    for field in ["objects", "changed", "new", "ignored"] {
        assert_eq!(some[field], report[field], "{field}");
    }
    assert_eq!(some["module"]["sha256"], report["module"]["sha256"]);
    let objects = strings(&report, "objects", "");
    assert!(objects.len() >= 2 && objects.len() < 6, "{objects:?}");
    assert!(objects.contains(&"io_uring/sqpoll.o".to_owned()), "{objects:?}");
    assert!(strings(&report, "changed", "object").iter().all(|o| objects.contains(o)));
}

/// Empty lock class keys share the address of the next variable; one more variable must not make others of them.
#[test]
fn a_new_static_variable_changes_no_function_that_does_not_use_it() {
    let Some(b) = Bench::find("a_new_static_variable_changes_no_function_that_does_not_use_it") else { return };
    let counted = |f: &str, line: &str| (f.to_owned(), format!("static int lp_count;\n\t\tlp_count++;\n\t\t{line}"));
    for (file, function, line) in [
        ("kernel/fork.c", "nr_processes", "total += per_cpu(process_counts, cpu);"),
        ("net/core/sock.c", "sk_error_report", "sk->sk_error_report(sk);"),
        ("mm/backing-dev.c", "wb_wakeup_delayed", "timeout = msecs_to_jiffies(dirty_writeback_interval * 10);"),
    ] {
        let (file, with) = counted(file, line);
        let patch = b.patch("static.patch", &[(&file, line, &format!("{{ {with} }}"))]);
        let (code, report, err) = b.run(&[&patch], &["--name", function]);
        assert_eq!(code, 0, "{file}: {err}");
        assert_eq!(strings(&report, "changed", "symbol"), [function], "{file}");
        fs::remove_dir_all(b.out()).unwrap();
    }
}

#[test]
fn a_patch_may_add_a_source_file_and_a_header() {
    let Some(b) = Bench::find("a_patch_may_add_a_source_file_and_a_header") else { return };
    let added = "#include <linux/seq_file.h>\n#include \"added.h\"\nvoid lp_added(struct seq_file *m)\n{\n\tseq_puts(m, LP_ADDED);\n}\n";
    let patch = b.patch(
        "add.patch",
        &[
            ("fs/proc/added.c", "", added),
            (
                "fs/proc/added.h",
                "",
                "#define LP_ADDED \" from the added file\"\nstruct seq_file;\nvoid lp_added(struct seq_file *m);\n",
            ),
            ("fs/proc/Makefile", "proc-y\t+= cmdline.o\n", "proc-y\t+= cmdline.o added.o\n"),
            (CMDLINE.0, CMDLINE.1, "seq_puts(m, saved_command_line);\n\tlp_added(m);"),
            (CMDLINE.0, "#include <linux/fs.h>\n", "#include <linux/fs.h>\n#include \"added.h\"\n"),
        ][..3],
    );
    // Both edits of cmdline.c in one diff.
    let old = fs::read_to_string(b.env.tree.source.join(CMDLINE.0)).unwrap();
    let new = old.replace(CMDLINE.1, "seq_puts(m, saved_command_line);\n\tlp_added(m);");
    let new = format!("#include \"added.h\"\n{new}");
    let text = fs::read_to_string(&patch).unwrap()
        + &diff(&b.dir.path().join("a"), &b.dir.path().join("b"), CMDLINE.0, &old, &new);
    fs::write(&patch, text).unwrap();
    let (code, report, err) = b.run(&[&patch], &["--name", "add"]);
    assert_eq!(code, 0, "{err}");
    assert!(strings(&report, "objects", "").contains(&"fs/proc/added.o".to_owned()), "{report}");
    assert_eq!(strings(&report, "changed", "symbol"), ["cmdline_proc_show"]);
    assert_eq!(strings(&report, "new", "symbol"), ["lp_added"]);
    let module = fs::read(b.out().join("add.ko")).unwrap();
    assert!(module.windows(20).any(|w| w == b"from the added file\0"));
}

/// File, text that occurs once (nothing: the end), what is put in its place.
type Edit = (&'static str, &'static str, &'static str);

/// Exit code 3, or 4 with a code, and nothing compiled.
#[test]
fn what_cannot_be_patched_is_said_before_any_compile() {
    let Some(b) = Bench::find("what_cannot_be_patched_is_said_before_any_compile") else { return };
    let cases: &[(&str, &[Edit], i32, &str)] = &[
        ("docs", &[("tools/perf/builtin-help.c", "", "\nint x;\n")], 3, "outside the kernel"),
        ("arm", &[("arch/arm64/mm/fault.c", "", "\nint x;\n")], 3, "another architecture"),
        ("unbuilt", &[("drivers/gpio/gpio-zevio.c", "", "\nint x;\n")], 3, "no object of this configuration"),
        ("vdso", &[("arch/x86/entry/vdso/vclock_gettime.c", "", "\nint x;\n")], 4, "LP6301"),
        ("boot", &[("arch/x86/boot/main.c", "", "\nint x;\n")], 4, "LP6301"),
        ("stub", &[("drivers/firmware/efi/libstub/mem.c", "", "\nint x;\n")], 4, "LP6301"),
        ("vdso-header", &[("include/vdso/math64.h", "u32 ret = 0;", "u32 ret = 0 + 1 - 1;")], 4, "LP6301"),
        ("vdso-asm", &[("arch/x86/include/asm/vdso/processor.h", "rep; nop", "nop")], 4, "LP6301"),
        ("selftest", &[("tools/testing/selftests/net/fib_tests.sh", "", "\n# x\n")], 3, "outside the kernel"),
        ("flags", &[("scripts/Makefile.lib", "", "\n# x\n")], 4, "LP6303"),
        (
            "rule",
            &[("lib/Makefile", "hostprogs\t+= gen_crc64table\n", "hostprogs\t+= gen_crc64table x\n")],
            4,
            "LP6304",
        ),
        ("host", &[("lib/gen_crc32table.c", "", "\nint x;\n")], 4, "LP6304"),
        ("unread", &[("sound/soc/Makefile", "", "\nccflags-y += -O3\n")], 3, "no folder of this configuration"),
        ("init", &[("fs/proc/version.c", "\tpde_make_permanent(pde);\n", "")], 4, "LP6302"),
        ("kconfig", &[("mm/Kconfig", "", "\n# x\n")], 4, "LP6303"),
        ("table", &[("arch/x86/entry/syscalls/syscall_64.tbl", "", "\n# x\n")], 4, "LP6304"),
    ];
    for (name, edits, want, word) in cases {
        let patch = b.patch(&format!("{name}.patch"), edits);
        let (code, report, err) = b.run(&[&patch], &[]);
        assert_eq!(code, *want, "{name}: {err}");
        assert!(err.contains(word) || report.to_string().contains(word), "{name}: {err} {report}");
        assert!(strings(&report, "compiled", "").is_empty(), "{name}");
        assert!(!b.out().exists(), "{name}: the output folder was made");
    }
}

#[test]
fn code_of_a_module_waits_for_it_and_an_object_cannot_leave_the_kernel() {
    let Some(b) = Bench::find("code_of_a_module_waits_for_it") else { return };
    let module = b.patch(
        "module.patch",
        &[(
            "net/core/failover.c",
            "\tlag_upper_info.tx_type = NETDEV_LAG_TX_TYPE_ACTIVEBACKUP;\n",
            "\tlag_upper_info.tx_type = NETDEV_LAG_TX_TYPE_ACTIVEBACKUP;\n\tsmp_mb();\n",
        )],
    );
    let (code, report, err) = b.run(&[&module], &[]);
    assert!(code == 0 && !strings(&report, "changed", "symbol").is_empty(), "{code} {err} {report}");
    let manifest = fs::read_to_string(b.out().join("manifest.toml")).unwrap();
    assert!(manifest.contains("[[holder]]\nname = \"failover\"\n"), "{manifest}");
    let (code, report, err) = b.run(&[&module], &["--leave-modules"]);
    assert!(code == 3 && report["modules_left"] == serde_json::json!(["net/core/failover.o"]), "{code} {err} {report}");
    let gone = b.patch("gone.patch", &[("fs/proc/Makefile", "proc-y\t+= version.o\n", "")]);
    let (code, _, err) = b.run(&[&gone], &[]);
    assert!(code == 4 && err.contains("LP6306") && err.contains("fs/proc/version.o"), "{code} {err}");
}

/// Nothing of modules is compiled, so nobody knows what they call or have inlined.
#[test]
fn what_is_left_of_modules_is_not_compiled_and_may_be_anything() {
    let Some(b) = Bench::find("what_is_left_of_modules_is_not_compiled") else { return };
    // Inlined into mcast.o of the kernel and into the module bridge.
    let header = ("include/net/mld.h", "\treturn ret;\n}\n\n#endif", "\treturn ret + 1;\n}\n\n#endif");
    let inlined = b.patch("inline.patch", &[header]);
    let theirs = serde_json::json!(["net/bridge/br_multicast.o"]);
    let of_bridge = |report: &Value| strings(report, "compiled", "").iter().filter(|o| o.contains("bridge")).count();
    let (code, report, err) = b.run(&[&inlined], &["--leave-modules"]);
    assert!(code == 4 && err.contains("LP2020") && err.contains("--accept 'inline=mldv2_mrc'"), "{code} {err}");
    assert_eq!((of_bridge(&report), &report["modules_left"]), (0, &theirs));
    let (code, report, err) = b.run(&[&inlined], &["--leave-modules", "--accept", "inline=mldv2_mrc"]);
    assert!(code == 0 && report["modules_left"] == theirs, "{code} {err}");
    let (_, report, err) = b.run(&[&inlined], &[]);
    assert!(
        of_bridge(&report) > 0 && report["modules_left"] == serde_json::json!([]) && !err.contains("LP2020"),
        "{err}"
    );
    // Callers in modules would not compile.
    let (header, source) = ("include/linux/oid_registry.h", "lib/oid_registry.c");
    let mscode = "crypto/asymmetric_keys/mscode_parser.c";
    let certificates = ["x509_cert_parser", "pkcs7_parser"].map(|n| format!("crypto/asymmetric_keys/{n}.c"));
    let (from, to) =
        ("sprint_oid(value, vlen, buffer, sizeof(buffer));", "sprint_oid(value, vlen, '.', buffer, sizeof(buffer));");
    let signature = b.patch(
        "signature.patch",
        &[
            (header, "sprint_oid(const void *, size_t, char *", "sprint_oid(const void *, size_t, char, char *"),
            (
                source,
                "sprint_oid(const void *data, size_t datasize, char *",
                "sprint_oid(const void *data, size_t datasize, char sep, char *",
            ),
            (source, "\"%u.%u\", n / 40,", "\"%u%c%u\", n / 40, sep,"),
            (source, "\t\t\t buffer, bufsize);\n\tBUG_ON", "\t\t\t '.', buffer, bufsize);\n\tBUG_ON"),
            (&certificates[0], from, to),
            (&certificates[1], from, to),
            (
                mscode,
                "\t\tchar buffer[50];\n\n\t\tsprint_oid(value, vlen, buffer,",
                "\t\tchar buffer[50];\n\n\t\tsprint_oid(value, vlen, '.', buffer,",
            ),
            (
                mscode,
                "OID__NR:\n\t\tsprint_oid(value, vlen, buffer,",
                "OID__NR:\n\t\tsprint_oid(value, vlen, '.', buffer,",
            ),
        ],
    );
    let (code, _, err) = b.run(&[&signature], &["--leave-modules"]);
    assert!(code == 4 && err.contains("LP2019") && err.contains("it is exported"), "{code} {err}");
}

/// The file there is taken for what runs, so that one with another byte in the function does not fit.
#[test]
fn modules_are_looked_for_first_where_somebody_says() {
    let Some(b) = Bench::find("modules_are_looked_for_first") else { return };
    let line = "\tlag_upper_info.tx_type = NETDEV_LAG_TX_TYPE_ACTIVEBACKUP;\n";
    let fix = b.patch("module.patch", &[("net/core/failover.c", line, &format!("{line}\tsmp_mb();\n"))]);
    let kernel = harness::runpre::RunPre::of(&b.env.kernel).unwrap();
    let stock = lpbuild::holder::ModuleFinder::file(kernel.files(), "net/core/failover").unwrap();
    let mut bytes = fs::read(&stock).unwrap();
    let offset = {
        use object::{Object, ObjectSection, ObjectSymbol};
        let elf = object::File::parse(&*bytes).unwrap();
        let f = elf.symbols().find(|s| s.name() == Ok("failover_slave_register")).unwrap();
        let section = elf.section_by_index(f.section_index().unwrap()).unwrap();
        (section.file_range().unwrap().0 + f.address()) as usize
    };
    // Behind the call of __fentry__.
    bytes[offset + 5] ^= 1;
    let dir = b.dir.path().join("modules");
    fs::create_dir_all(dir.join("kernel/net/core")).unwrap();
    let given = ["--module-dir", dir.to_str().unwrap()];
    let (code, _, err) = b.run(&[&fix], &given);
    assert_eq!(code, 0, "what is not there is where it always is: {err}");
    fs::write(dir.join("kernel/net/core/failover.ko"), &bytes).unwrap();
    let (code, _, err) = b.run(&[&fix], &given);
    assert!(code == 4 && err.contains("LP3001") && err.contains("failover"), "{code} {err}");
    let toml = b.dir.path().join("livepatch.toml");
    let text = "[patch]\nname = \"f\"\npatches = [\"module.patch\"]\n[kernel]\nmodule-dir = \"modules\"\n";
    fs::write(&toml, text).unwrap();
    let (code, _, err) = b.run(&[&toml], &[]);
    assert!(code == 4 && err.contains("LP3001"), "{code} {err}");
    let (code, _, err) = b.run(&[&fix], &["--module-dir", "/nowhere"]);
    assert!(code == 1 && err.contains("/nowhere"), "{code} {err}");
}

/// What the kernel shares with programs that stay as they are: told by what the compiler makes of it.
#[test]
fn a_file_that_other_programs_are_made_from_is_refused_if_they_come_out_otherwise() {
    let Some(b) = Bench::find("a_file_that_other_programs_are_made_from_is_refused") else { return };
    let cases: &[(&str, Edit, &str)] = &[
        (
            "vdso",
            (
                "arch/x86/include/asm/vgtod.h",
                "#include <uapi/linux/time.h>\n",
                "#include <uapi/linux/time.h>\n#define LP 1\n",
            ),
            "",
        ),
        (
            "purgatory",
            ("lib/crypto/sha256.c", "sctx->count += len;", "sctx->count += len + (len == 0x12345);"),
            "arch/x86/purgatory/sha256.o",
        ),
        (
            "boot",
            ("arch/x86/lib/insn.c", "\tinsn->kaddr = kaddr;", "\tinsn->kaddr = kaddr + (buf_len == 7);"),
            "arch/x86/boot/",
        ),
        (
            "real-mode",
            ("arch/x86/include/asm/segment.h", "#define GDT_ENTRY_BOOT_TSS\t4\n", "#define GDT_ENTRY_BOOT_TSS\t5\n"),
            "arch/x86/",
        ),
    ];
    for (name, edit, object) in cases {
        let patch = b.patch(&format!("{name}.patch"), &[*edit]);
        let (code, report, err) = b.run(&[&patch], &[]);
        if object.is_empty() {
            assert_eq!(code, 3, "{name}: {err} {report}");
            continue;
        }
        assert!(code == 4 && err.contains("LP6301") && err.contains(object), "{name}: {code} {err}");
        assert!(err.contains(&format!("outside={}", edit.0)), "{name}: {err}");
    }
    // The author answers for the copy of the next kernel's start.
    let patch = b.patch("accepted.patch", &[cases[1].1]);
    let (code, report, err) = b.run(&[&patch], &["--name", "sha", "--accept", "outside=lib/crypto/sha256.c"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(strings(&report, "objects", ""), ["lib/crypto/sha256.o"]);
    assert_eq!(report["accepted"][0]["name"], "lib/crypto/sha256.c", "{report}");
}

/// The old object is the kernel's own, made by the old command; otherwise it would not be found in the image.
#[test]
fn a_changed_flag_is_a_change_of_what_it_compiles() {
    let Some(b) = Bench::find("a_changed_flag_is_a_change_of_what_it_compiles") else { return };
    let version = ("fs/proc/Makefile", "proc-y\t+= version.o\n");
    let built = |name: &str, line: &str, more: &[Edit]| {
        let to = format!("{}{line}\n", version.1);
        let mut edits: Vec<(&str, &str, &str)> = vec![(version.0, version.1, &to)];
        edits.extend(more);
        let patch = b.patch("flag.patch", &edits);
        let (code, report, err) = b.run(&[&patch], &["--name", name]);
        let _ = fs::remove_dir_all(b.out());
        (code, report, err)
    };
    let (code, report, err) = built("one", "CFLAGS_fd.o += -fno-inline-small-functions", &[]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(strings(&report, "objects", ""), ["fs/proc/fd.o"]);
    assert!(!strings(&report, "changed", "symbol").is_empty(), "{report}");
    // What no object of this configuration is compiled with.
    for (name, line) in [
        ("sanitized", "KASAN_SANITIZE := n\nUBSAN_SANITIZE_uptime.o := n"),
        ("removed", "CFLAGS_REMOVE_uptime.o = -DNONE"),
    ] {
        let (code, report, err) = built(name, line, &[]);
        assert_eq!(code, 3, "{name}: {err} {report}");
    }
    // Flag and source together, and for the whole folder.
    let (code, report, err) = built(
        "both",
        "CFLAGS_cmdline.o += -DLP_TWICE",
        &[(
            CMDLINE.0,
            CMDLINE.1,
            "seq_puts(m, saved_command_line);\n#ifdef LP_TWICE\n\tseq_puts(m, saved_command_line);\n#endif",
        )],
    );
    assert_eq!(code, 0, "{err}");
    assert_eq!(strings(&report, "changed", "symbol"), ["cmdline_proc_show"]);
    // Objects of a module: its init and exit functions come out otherwise as well.
    let module = b.patch(
        "module.patch",
        &[("net/core/Makefile", "obj-y := sock.o", "CFLAGS_failover.o += -O1\nobj-y := sock.o")],
    );
    let (code, _, err) = b.run(&[&module], &[]);
    assert!(code == 4 && err.contains("LP2003") && err.contains("failover"), "{code} {err}");
}

#[test]
fn a_header_that_offsets_are_generated_from_is_refused() {
    let Some(b) = Bench::find("a_header_that_offsets_are_generated_from_is_refused") else { return };
    let patch = b.patch(
        "offsets.patch",
        &[(
            "arch/x86/include/asm/suspend_64.h",
            "struct saved_context {\n",
            "struct saved_context {\n\tunsigned long first;\n",
        )],
    );
    let (code, _, err) = b.run(&[&patch], &[]);
    assert!(code == 4 && err.contains("LP6305") && err.contains("asm-offsets"), "{code} {err}");
}

#[test]
fn a_patch_that_does_not_apply_shows_the_hunk_and_a_broken_one_the_compiler() {
    let Some(b) = Bench::find("a_patch_that_does_not_apply_shows_the_hunk") else { return };
    let patch = b.patch("fix.patch", &[CMDLINE]);
    let text = fs::read_to_string(&patch).unwrap();
    fs::write(&patch, text.replace(" static int cmdline_proc_show", " static int another_name_show")).unwrap();
    let (code, _, err) = b.run(&[&patch], &[]);
    assert!(code == 1 || code == 4, "{code} {err}");
    assert!(err.contains("LP6102") && err.contains("another_name_show") && err.contains("cmdline_proc_show"), "{err}");
    let broken = b.patch("broken.patch", &[(CMDLINE.0, CMDLINE.1, "no_such_function(m);")]);
    let (code, _, err) = b.run(&[&broken], &[]);
    assert!(code == 1 && err.contains("LP6213") && err.contains("no_such_function"), "{code} {err}");
    assert!(!b.out().exists());
}

#[test]
fn a_missing_or_another_compiler_and_foreign_parts_are_told_apart() {
    let Some(b) = Bench::find("a_missing_or_another_compiler_and_foreign_parts_are_told_apart") else { return };
    let patch = b.patch("fix.patch", &[CMDLINE]);
    // A PATH with everything but the compiler.
    let bin = b.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for dir in ["/usr/bin", "/bin", "/usr/sbin"] {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().contains("gcc") {
                let _ = std::os::unix::fs::symlink(entry.path(), bin.join(name));
            }
        }
    }
    let (code, _, err) = report(&b.command(&[&patch]).env("PATH", &bin).env_remove("CC").output().unwrap());
    assert!(code == 1 && err.contains("LP6207") && err.contains("gcc-12"), "{code} {err}");
    // Another version under the right name.
    fs::write(bin.join("gcc-12"), "#!/bin/sh\necho 'gcc-12 (Debian 12.1.0-1) 12.1.0'\n").unwrap();
    fs::set_permissions(bin.join("gcc-12"), fs::Permissions::from_mode(0o755)).unwrap();
    let (code, _, err) = report(&b.command(&[&patch]).env("PATH", &bin).env_remove("CC").output().unwrap());
    assert!(code == 1 && err.contains("LP6207") && err.contains("12.1.0-1") && err.contains("12.2.0"), "{code} {err}");
    // The source of another version.
    let mut c = b.env.maker(&b.lpbuild).build(&[&patch], &b.out());
    let args: Vec<_> = c.get_args().map(ToOwned::to_owned).collect();
    let at = args.iter().position(|a| a == "--source").unwrap();
    let program = c.get_program().to_owned();
    c = Command::new(program);
    c.args(&args[..at + 1]).arg(b.env.kernel.new_source()).args(&args[at + 2..]);
    let (code, _, err) = report(&c.output().unwrap());
    let (old, new) = (b.env.kernel.version.upstream(), b.env.kernel.new_version.upstream());
    assert!(code == 4 && err.contains("LP6206") && err.contains(old) && err.contains(new), "{code} {err}");
    // The image of another release.
    let (code, _, err) = b.run(&[&patch], &["--release", "6.1.0-1-amd64"]);
    assert!(code == 4 && err.contains("LP6206") && err.contains("6.1.0-1-amd64"), "{code} {err}");
    assert!(!b.out().exists());
}

#[test]
fn livepatch_toml_decides_and_an_unexpected_function_fails_the_build() {
    let Some(b) = Bench::find("livepatch_toml_decides_and_an_unexpected_function_fails_the_build") else { return };
    b.patch("fix.patch", &[CMDLINE, VERSION]);
    let toml = b.dir.path().join("livepatch.toml");
    let write = |functions: &str| {
        let text = format!("[patch]\nname = \"declared\"\npatches = [\"fix.patch\"]\nfunctions = [{functions}]\n");
        fs::write(&toml, text).unwrap();
    };
    write("\"cmdline_proc_show\"");
    let (code, _, err) = b.run(&[&toml], &[]);
    assert!(code == 4 && err.contains("LP6008") && err.contains("version_proc_show"), "{code} {err}");
    write("\"cmdline_proc_show\", \"fs/proc/version.o:version_proc_show\", \"uptime_proc_show\"");
    let (code, _, err) = b.run(&[&toml], &[]);
    assert!(code == 4 && err.contains("LP6009") && err.contains("uptime_proc_show"), "{code} {err}");
    assert!(!b.out().exists());
    write("\"cmdline_proc_show\", \"fs/proc/version.o:version_proc_show\"");
    let (code, _, err) = b.run(&[&toml], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(b.out().join("declared.ko").is_file());
}

#[test]
fn two_builds_at_once_and_a_saved_one_can_be_repeated() {
    let Some(b) = Bench::find("two_builds_at_once_and_a_saved_one_can_be_repeated") else { return };
    let patch = b.patch("fix.patch", &[CMDLINE]);
    let saved = b.dir.path().join("saved");
    let start = |out: &Path, more: &[&str]| {
        let mut c = b.env.maker(&b.lpbuild).build(&[&patch], out);
        c.args(["--name", "both"]).args(more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (one, two) = (b.dir.path().join("one"), b.dir.path().join("two"));
    let first = start(&one, &["--save-dir", saved.to_str().unwrap()]);
    let second = start(&two, &["--keep"]);
    for child in [first, second] {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let module = fs::read(one.join("both.ko")).unwrap();
    assert!(module == fs::read(two.join("both.ko")).unwrap());
    assert!(two.join("patch.o").is_file() && two.join("objects/new/fs/proc/cmdline.o").is_file(), "--keep");
    let out = Command::new(saved.join("replay.sh")).env("LPBUILD", &b.lpbuild).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(fs::read(saved.join("replayed/both.ko")).unwrap() == module, "the replay gives another module");
    // What fails behind the comparison leaves its objects as well.
    let failed = b.dir.path().join("failed");
    let mut c = b.env.maker(&b.lpbuild).build(&[&patch], &b.dir.path().join("three"));
    let missing = b.dir.path().join("missing");
    let out = c.args(["--name", "both", "--sign"]).args([&missing, &missing]).arg("--save-dir").arg(&failed).output();
    assert!(!out.unwrap().status.success(), "signed with a key that is not there");
    assert!(failed.join("objects/new/fs/proc/cmdline.o").is_file() && failed.join("replay.sh").is_file());
}

#[test]
fn ccache_is_used_through_cc_and_hits_the_second_time() {
    let Some(b) = Bench::find("ccache_is_used_through_cc") else { return };
    if !harness::cmd::found("ccache") {
        return harness::skip("ccache_is_used_through_cc", "ccache is not installed: run `cargo xtask setup`");
    }
    let patch = b.patch("fix.patch", &[CMDLINE]);
    let cache = b.dir.path().join("ccache");
    let build = |out: &str| {
        let mut c = b.env.maker(&b.lpbuild).build(&[&patch], &b.dir.path().join(out));
        c.args(["--name", "cached"]).env("CC", "ccache gcc-12").env("CCACHE_DIR", &cache);
        let out = c.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let hits = || {
        let out = Command::new("ccache").arg("--print-stats").env("CCACHE_DIR", &cache).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let count =
            |key: &str| -> u64 { text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0) };
        (count("direct_cache_hit") + count("preprocessed_cache_hit"), count("cache_miss"))
    };
    build("one");
    let (before, misses) = hits();
    assert!(misses > 0, "ccache was not called");
    build("two");
    assert!(hits().0 > before, "the changed object was compiled again");
    let module = |dir: &str| fs::read(b.dir.path().join(dir).join("cached.ko")).unwrap();
    assert!(module("one") == module("two"));
}

#[test]
fn parts_of_a_patch_are_left_out_by_name_and_listed() {
    let Some(b) = Bench::find("parts_of_a_patch_are_left_out_by_name_and_listed") else { return };
    let fix = b.patch(
        "fix.patch",
        &[
            ("Documentation/admin-guide/README.rst", "What is Linux?\n", "What was Linux?\n"),
            CMDLINE,
            (
                "fs/proc/version.c",
                "static int __init proc_version_init(void)\n{\n",
                "static int __init proc_version_init(void)\n{\n\tpr_info(\"x\");\n",
            ),
        ],
    );
    let (code, _, err) = b.run(&[&fix], &["--name", "left"]);
    assert!(code == 4 && err.contains("LP6302") && err.contains("--leave-out"), "{code}: {err}");
    let leave = ["--name", "left", "--leave-out", "Documentation/", "--leave-out", "fs/proc/version.c:1"];
    let (code, report, err) = b.run(&[&fix], &leave);
    assert_eq!(code, 0, "{err}");
    assert_eq!(strings(&report, "left_out", "file"), ["Documentation/admin-guide/README.rst", "fs/proc/version.c"]);
    let manifest = fs::read_to_string(b.out().join("manifest.toml")).unwrap();
    assert!(manifest.contains("schema = 4") && manifest.contains("[[left-out]]\npatch = \"fix.patch\""), "{manifest}");
    let module = fs::read(b.out().join("left.ko")).unwrap();
    assert!(!module.windows(9).any(|w| w == b"fail_call"), "what is handed out has hooks of the tests");
    // Nothing is built for a name that means nothing, and nothing is written.
    fs::remove_dir_all(b.out()).unwrap();
    let (code, report, err) = b.run(&[&fix], &["--name", "left", "--leave-out", "fs/proc/version.c:2"]);
    assert!(code == 1 && report["code"] == "LP6109" || err.contains("LP6109"), "{code}: {report} {err}");
    assert!(!b.out().exists());
    let key = b.dir.path().join("livepatch.toml");
    fs::write(
        &key,
        "[patch]\nname = \"left\"\npatches = [\"fix.patch\"]\nleave-out = [\"Documentation/\",\n  \"a:0\"]\n",
    )
    .unwrap();
    let (code, _, err) = b.run(&[&key], &[]);
    assert!(code == 1 && err.contains("livepatch.toml:5:3"), "{code}: {err}");
}

/// A mark by whose name nothing is done is said: alone it would be a patch that does nothing.
#[test]
fn marks_that_lead_nowhere_are_said() {
    let Some(b) = Bench::find("marks_that_lead_nowhere_are_said") else { return };
    let from = "static int __init proc_cmdline_init(void)\n";
    let with = |mark: &str| {
        b.patch("fix.patch", &[("fs/proc/cmdline.c", from, &format!("#include <lpbuild.h>\n{mark}\n{from}"))])
    };
    let (code, report, err) = b.run(&[&with("LPB_POST_APPLY(no_such_function);")], &[]);
    assert_eq!((code, report["refused"][0]["code"].as_str()), (4, Some("LP2014")), "{err}");
    assert!(err.contains("no_such_function") && !b.out().exists(), "{err}");
    let takes_back =
        "static void take_back(void) { barrier(); }\nLPB_POST_REVERT(take_back);\nLPB_GIVEN_BACK(misspelt);";
    let (code, report, err) = b.run(&[&with(takes_back)], &[]);
    assert_eq!(
        (code, &report["marked_without_need"]),
        (0, &serde_json::json!(["fs/proc/cmdline.o: misspelt"])),
        "{err}"
    );
    assert!(err.contains("misspelt"), "{err}");
}
