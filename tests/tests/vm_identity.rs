//! Constants that change, on both kernels: a table that is only indexed is carried as a copy, and user space sees it come and
//! go; operations that open files hold the address of are refused, whether old code stores it or compares it.

use std::path::{Path, PathBuf};

use harness::change::Change;
use harness::cmd;
use harness::vm::Vm;
use lpbuild_tests::Env;

const BOTH: [&str; 2] = ["6.1", "6.12"];

/// `fs/proc/array.c`: names of states, indexed by the state of a task.
#[test]
fn a_table_that_is_only_indexed_comes_and_goes() {
    for series in BOTH {
        let name = "a_table_that_is_only_indexed_comes_and_goes";
        let Some((env, lpbuild)) = Env::series_with_lpbuild(name, series) else { return };
        let (old, new) = ("\t\"R (running)\",", "\t\"R (on a processor)\",");
        let change = Change::none().edit(&env.tree.source, "fs/proc/array.c", old, new).unwrap();
        let module = format!("states_{}", series.replace('.', ""));
        let made = env.maker(&lpbuild).make(&module, &change).unwrap_or_else(|e| panic!("{e:#}"));
        let script = format!(
            r#"
state() {{ grep ^State: /proc/self/status; }}
ktext save /tmp/text
expect_in before 'R (running)' "$(state)"
for mode in drain transition stop-machine; do
    lpbuild load --mode $mode /{module}.ko
    expect_in during 'R (on a processor)' "$(state)"
    lpbuild unload --mode $mode {module}
    expect_in after 'R (running)' "$(state)"
    ktext diff /tmp/text
done
"#
        );
        let vm = Vm::new(&format!("identity-{series}"), &env.kernel).file("/bin/lpbuild", &lpbuild);
        let vm = vm.file(&format!("/{module}.ko"), &made.ko).case(&script);
        vm.run().unwrap().require_pass().unwrap_or_else(|e| panic!("{series}: {e:#}"));
    }
}

/// Operations of files that are open: which function stores the address, and which compares it.
const OPERATIONS: &[(&str, &str, &str, &[&str])] = &[
    // file, a line before the one that changes, the table, what is said
    ("fs/timerfd.c", "static const struct file_operations timerfd_fops", "timerfd_fops", &["timerfd", "its address"]),
    ("fs/eventpoll.c", "static const struct file_operations eventpoll_fops", "eventpoll_fops", &["ep_", "its address"]),
    (
        "fs/signalfd.c",
        "static const struct file_operations signalfd_fops",
        "signalfd_fops",
        &["do_signalfd4", "its address"],
    ),
];

#[test]
fn operations_of_open_files_are_refused() {
    for series in BOTH {
        let Some((env, lpbuild)) = Env::series_with_lpbuild("operations_of_open_files_are_refused", series) else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        for (file, behind, table, said) in OPERATIONS {
            let patch = other_seek(dir.path(), &env.kernel.old_source(), file, behind);
            let out = env.maker(&lpbuild).build(&[&patch], &dir.path().join("out")).output().unwrap();
            let text = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(4), "{series} {file}: {text}");
            assert!(text.contains("[LP2001]") && text.contains(table), "{series} {file}: {text}");
            assert!(said.iter().all(|s| text.contains(s)), "{series} {file}: {text}");
        }
    }
}

/// A patch that gives the first operations behind a line another `.llseek`.
fn other_seek(dir: &Path, source: &Path, file: &str, behind: &str) -> PathBuf {
    let text = std::fs::read_to_string(source.join(file)).unwrap();
    let (head, tail) = text.split_at(text.find(behind).unwrap());
    let changed = format!("{head}{}", tail.replacen("= noop_llseek,", "= generic_file_llseek,", 1));
    assert_ne!(changed, text, "{file}");
    for (side, text) in [("a", &text), ("b", &changed)] {
        let path = dir.join(side).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut diff = cmd::command("diff");
    diff.current_dir(dir).args(["-u", &format!("a/{file}"), &format!("b/{file}")]);
    let patch = dir.join(format!("{}.patch", file.replace('/', "-")));
    std::fs::write(&patch, diff.output().unwrap().stdout).unwrap();
    patch
}
