//! What README shows of the commands is what they print: the same lines in the same order, whatever the figures in them.
//!
//! `#` begins a line of output; `...` stands for what is left out. Numbers, digests, release names and units of time are any.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lpbuild_tests::{Env, in_checkout};
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

    /// `lpbuild build NAME.patch` in a folder of its own: status, stdout, stderr.
    fn build(&self, patch: &Path) -> (Option<i32>, String, String) {
        self.run(self.env.maker(&self.lpbuild).build(&[patch], Path::new(patch.file_stem().unwrap())))
    }

    fn run(&self, mut c: Command) -> (Option<i32>, String, String) {
        let out = c.current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }
}

/// The lines of output in README behind the line that begins with a command, or those of a whole block that begins with it.
fn shown(begins: &str) -> Vec<String> {
    let readme = fs::read_to_string(in_checkout("README.md")).unwrap();
    let mut lines = readme.lines().skip_while(|l| !l.starts_with(begins));
    let first = lines.next().unwrap_or_else(|| panic!("README has no line that begins with {begins:?}"));
    let output: Vec<String> = if first.starts_with("lpbuild ") {
        lines.map_while(|l| l.strip_prefix("#")).map(str::to_owned).collect()
    } else {
        std::iter::once(first).chain(lines).take_while(|l| !l.starts_with("```")).map(str::to_owned).collect()
    };
    assert!(!output.is_empty(), "nothing behind {begins:?}");
    output
}

/// A line without its figures.
fn shape(line: &str) -> String {
    let hex = |w: &str| w.len() >= 8 && w.bytes().all(|b| b.is_ascii_hexdigit());
    let mut out = String::new();
    for word in line.split_whitespace() {
        // A path is known by its last part.
        let word = if word.starts_with('/') { word.rsplit('/').next().unwrap_or(word) } else { word };
        let mut digits = false;
        let (word, end) = match word.find("...") {
            Some(at) => (&word[..at], "..."),
            None => (word, ""),
        };
        if hex(word.trim_matches(['(', ')', ','])) {
            out += "HEX";
        } else {
            for c in word.chars() {
                match (c.is_ascii_digit() || (digits && c == '.'), digits) {
                    (true, false) => out.push('N'),
                    (true, true) => {}
                    (false, _) => out.push(c),
                }
                digits = c.is_ascii_digit() || (digits && c == '.');
            }
        }
        out += end;
        out.push(' ');
    }
    // Milliseconds here are seconds on another host.
    out.replace(" ms ", " TIME ").replace(" s ", " TIME ").replace("attempts", "attempt").trim().to_owned()
}

/// Whether a line that was printed is one that README shows.
fn is(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (shape(shown), shape(printed));
    let mut rest = printed.as_str();
    let parts: Vec<&str> = shown.split("...").map(|p| p.trim().trim_end_matches("HEX")).collect();
    for (n, part) in parts.iter().enumerate() {
        match rest.find(part) {
            Some(at) if n > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    parts.len() > 1 || rest.is_empty() || rest == "HEX"
}

/// Every line of README is printed, in its order.
#[track_caller]
fn agrees(begins: &str, printed: &str) {
    let mut lines = printed.lines();
    for line in shown(begins) {
        let blank = line.trim().is_empty() || line.trim_matches([' ', '|']) == "...";
        assert!(
            blank || lines.any(|l| is(&line, l)),
            "README shows, in this place:\n{line}\n{}\nprinted:\n{printed}",
            shape(&line)
        );
    }
}

#[test]
fn a_build_and_a_trial_print_what_readme_shows() {
    let Some(b) = Bench::find("a_build_and_a_trial_print_what_readme_shows") else { return };
    let patch = b.dir.path().join("fix.patch");
    fs::copy(in_checkout("examples/01-proc-cmdline/fix.patch"), &patch).unwrap();
    let (status, out, err) = b.build(&patch);
    assert_eq!(status, Some(0), "{out}{err}");
    agrees("lpbuild build fix.patch ", &out);

    fs::write(b.dir.path().join("check.sh"), "cat /proc/cmdline\n").unwrap();
    let mut c = Command::new(&b.lpbuild);
    c.arg("try").arg(b.dir.path().join("fix/fix.ko")).args(["--script", "check.sh", "--strict", "--image"]);
    c.arg(&b.env.kernel.vmlinuz).env("PATH", harness::emulator::path().unwrap());
    let _slot = harness::vm::Place::wait_for(2).unwrap();
    let (status, out, err) = b.run(c);
    assert_eq!(status, Some(0), "{out}{err}");
    agrees("lpbuild try fix.ko --script check.sh", &out);
}

#[test]
fn an_error_of_the_compiler_is_shown_as_in_readme() {
    let Some(b) = Bench::find("an_error_of_the_compiler_is_shown_as_in_readme") else { return };
    let fix = fs::read_to_string(in_checkout("examples/01-proc-cmdline/fix.patch")).unwrap();
    let broken = fix.replacen(r"live-patched\n", r#"live-patched" undeclared_thing "\n"#, 1);
    let patch = b.dir.path().join("syntax.patch");
    fs::write(&patch, broken).unwrap();
    let (status, out, err) = b.build(&patch);
    assert_eq!(status, Some(1), "{out}{err}");
    agrees("error[LP6213]", &err);
}

#[test]
fn figures_and_paths_do_not_count() {
    assert!(is(
        "load           362 ms     122 ms  applied, 1 attempt, pause 0 ns",
        "load 2.10 s 43 ms applied, 3 attempts, pause 7 ns"
    ));
    assert!(!is("load           362 ms     122 ms  applied", "unload 2.10 s 43 ms applied"));
    assert!(is(
        "module   fix/fix.ko: 284576 bytes, 1 function(s), sha256 82b6ac6b...",
        "module   fix/fix.ko: 1 bytes, 1 function(s), sha256 0011223344"
    ));
    assert!(!is("changed  a.o: f: 11 instructions", "changed  a.o: g: 11 instructions"));
    assert!(!is("objects  1 compiled", "objects  1 compiled in both versions"));
}
