//! `--report`: one file with everything a reviewer asks for, whatever the outcome; nothing of an input can be more than text in it; and a
//! browser opens it without a complaint.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lpbuild_tests::{built_lpbuild, in_checkout};
use support::compile::{Recipe, Variant, compile, sources};

const MARK: &str = "<!DOCTYPE html><!-- lpbuild report -->";
/// Text that would be more than text where it is not escaped.
const HOSTILE: &str = "</code><script>alert(1)</script><img src=x onerror='alert(2)'>\"&";

/// A case of the corpus with debug information, below `dir`.
fn trees(source: &Path, dir: &Path) {
    let recipe = Recipe { variant: Variant::Plain, fentry: true, flags: vec!["-g".into()] };
    for (side, define) in [("old", ""), ("new", "NEW")] {
        for source in sources(source) {
            let folder = dir.join(side).join("sub");
            std::fs::create_dir_all(&folder).unwrap();
            let out = folder.join(format!("{}.o", source.file_stem().unwrap().to_string_lossy()));
            compile(&source, &recipe, define, &out);
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn of(case: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        trees(&in_checkout("tests/corpus").join(case), dir.path());
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(built_lpbuild()).args(args).current_dir(self.dir.path()).output().unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn page(&self) -> String {
        std::fs::read_to_string(self.at("report.html")).unwrap()
    }

    /// Exit code and page.
    fn diff(&self, more: &[&str]) -> (i32, String) {
        let o = self.run(&[&["diff", "old", "new", "--report", "report.html"], more].concat());
        (o.status.code().unwrap(), self.page())
    }
}

/// Names of elements, and of their attributes, by a reading of its own.
fn elements(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut tags, mut attributes) = (BTreeSet::new(), BTreeSet::new());
    let style = page.find("<style>").unwrap()..page.find("</style>").unwrap();
    let page = format!("{}{}", &page[..style.start], &page[style.end..]);
    let mut rest = page.strip_prefix(MARK).unwrap();
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').unwrap();
        let inside = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let (tag, mut more) = inside.split_once(' ').unwrap_or((inside, ""));
        tags.insert(tag.trim_start_matches('/').to_owned());
        while let Some((name, value)) = more.split_once("=\"") {
            attributes.insert(name.trim().to_owned());
            more = value.split_once('"').unwrap().1;
        }
    }
    (tags, attributes)
}

/// Nothing is fetched or run, and every element is one of ours.
fn harmless(page: &str) {
    assert!(page.starts_with(MARK), "{}", &page[..80]);
    let (tags, attributes) = elements(page);
    let ours = "html head meta title style body main header h1 h2 h3 h4 small span p dl dt dd a code pre div section table thead tr \
                th td svg rect text path ol ul li i b u details summary footer";
    let ours: BTreeSet<&str> = ours.split_whitespace().collect();
    assert!(tags.iter().all(|t| ours.contains(t.as_str())), "{tags:?}");
    let known = "lang charset name content http-equiv rel href class id width height viewBox role aria-label x y rx d text-anchor data-h";
    let known: BTreeSet<&str> = known.split_whitespace().collect();
    assert!(attributes.iter().all(|a| known.contains(a.as_str())), "{attributes:?}");
    for part in page.split("href=\"").skip(1) {
        assert!(part.starts_with("#"), "{}", &part[..30]);
    }
    for never in ["http://", "https://", "url(", "@import", "javascript:"] {
        assert!(!page.contains(never), "{never}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_patch_is_shown_with_its_code_its_site_and_what_it_brings() {
    let b = Bench::of("26-new-function");
    let (exit, page) = b.diff(&["--name", "fix", "--patch-description", "what it is for", "-o", "patch"]);
    assert_eq!(exit, 0);
    harmless(&page);
    for part in [
        "a patch was made",
        "what it is for",
        "6 instructions became 22",
        "both builds have it under one of its own names",
        "Behind the fentry nop",
        "vet",
        "case.c:8",
        "what brought what into the patch",
        "the jump takes bytes +0x5 to +0xa",
        "What comes along",
        "Symbols outside of the patch",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // The same again, elsewhere.
    let c = Bench::of("26-new-function");
    assert!(c.diff(&["--name", "fix", "--patch-description", "what it is for", "-o", "patch"]).1 == page);
}

#[test]
fn a_refusal_is_shown_and_so_is_what_the_author_accepts() {
    let b = Bench::of("150-type-grew");
    let (exit, page) = b.diff(&[]);
    assert_eq!(exit, 4);
    harmless(&page);
    for part in [
        "refused: there is no patch",
        "LP2015",
        "struct middle: 16 bytes became 24",
        "through_others",
        "mov 8(%rdi), %rdi",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let types = ["middle", "end", "hole", "far"].map(|t| format!("struct {t}"));
    let accept: Vec<&str> = types.iter().flat_map(|t| ["--accept-type", t]).collect();
    let (exit, page) = b.diff(&accept);
    assert_eq!(exit, 0);
    for part in
        ["a patch was made", "What the author answers for", "would be refused with LP2015", "type=struct middle"]
    {
        assert!(page.contains(part), "{part}");
    }
    let b = Bench::of("140-promise-stored");
    let (exit, page) = b.diff(&[]);
    assert!(exit == 4 && page.contains("Addresses of the patch that leave it"), "{exit}");
}

#[test]
fn nothing_and_what_is_broken_are_said_as_well() {
    let b = Bench::of("04-moved");
    let (exit, page) = b.diff(&[]);
    assert!(exit == 3 && page.contains("nothing changed"), "{exit}");
    harmless(&page);
    std::fs::write(b.at("new/sub/case.o"), "no object").unwrap();
    let (exit, page) = b.diff(&[]);
    assert!(exit == 1 && page.contains("broken: there is no patch") && page.contains("LP1002"), "{exit}");
    // A trial that could not be made says so, too: no report of before may stand there.
    let o = b.run(&["try", "missing.ko", "--report", "report.html"]);
    assert_eq!(o.status.code(), Some(1));
    let page = b.page();
    assert!(page.contains("missing.ko") && page.contains("LP1004"), "{page}");
    harmless(&page);
}

#[test]
fn a_place_that_cannot_be_is_said_before_anything_is_done() {
    let b = Bench::of("26-new-function");
    std::fs::write(b.at("mine.html"), "<!DOCTYPE html>mine").unwrap();
    std::fs::write(b.at("fix.patch"), "no patch").unwrap();
    for (place, code) in [
        ("mine.html", "LP1113"),
        ("old", "LP1113"),
        ("old/sub/case.o", "LP1113"),
        ("no/such/report.html", "LP1004"),
        ("out/report.html", "LP1113"),
    ] {
        std::fs::create_dir_all(b.at("out")).unwrap();
        for command in [&["diff", "old", "new", "-o", "out"][..], &["build", "fix.patch", "-o", "out"]] {
            let o = b.run(&[command, &["--report", place]].concat());
            let said = String::from_utf8_lossy(&o.stderr).into_owned();
            assert_eq!(o.status.code(), Some(1), "{place}: {said}");
            assert!(said.contains(code) && !said.contains("LP6101"), "{place}: {said}");
        }
        assert_eq!(std::fs::read_dir(b.at("out")).unwrap().count(), 0, "{place}");
    }
    assert_eq!(std::fs::read_to_string(b.at("mine.html")).unwrap(), "<!DOCTYPE html>mine");
    let o = b.run(&["try", "m.ko", "--log", "report.html", "--report", "report.html"]);
    assert!(String::from_utf8_lossy(&o.stderr).contains("LP1113"), "{}", String::from_utf8_lossy(&o.stderr));
    assert!(!b.at("report.html").exists());
}

/// Names of symbols, of source files, of objects, strings in code and descriptions are whatever somebody wrote.
#[test]
fn what_comes_from_inputs_is_text_and_nothing_else() {
    let b = Bench { dir: tempfile::tempdir().unwrap() };
    let source = b.at("case");
    std::fs::create_dir(&source).unwrap();
    let quoted = HOSTILE.replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!(
        "#line 1 \"{}\"\nextern void say(const char *); extern void more(void);\n\
         __attribute__((noinline)) static void helper(int n) {{ if (n) say(\"{quoted}\\n\"); }}\n\
         void check(int n) {{\n#ifdef NEW\n\thelper(n);\n#endif\n\tmore();\n}}\n",
        HOSTILE.replace('"', "").replace('/', "|")
    );
    std::fs::write(source.join("case.c"), text).unwrap();
    trees(&source, b.dir.path());
    for side in ["old", "new"] {
        let object = b.at(side).join("sub/case.o");
        let renamed = b.at(side).join("sub/<b>&'case.o");
        let mut c = Command::new("objcopy");
        for (from, to) in
            [("check", "<script>check"), ("helper", "<img src=x onerror=alert(1)>"), ("more", "</svg><u>\"more")]
        {
            c.arg("--redefine-sym").arg(format!("{from}={to}"));
        }
        assert!(c.arg(&object).arg(&renamed).status().unwrap().success());
        std::fs::remove_file(object).unwrap();
    }
    let description = format!("{HOSTILE} \u{202e}gnp.exe");
    let (exit, page) = b.diff(&["--patch-description", &description]);
    assert_eq!(exit, 0, "{page}");
    harmless(&page);
    for part in [
        "&lt;script&gt;check",
        "&lt;img src=x onerror=alert(1)&gt;",
        "&lt;|code&gt;",
        "\\u{202e}gnp",
        "&lt;b&gt;&amp;'case.o",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains('\u{202e}'));
}

/// A browser without a window: what it shows, and what it complains about.
fn chromium(page: &Path, args: &[&str]) -> Option<(String, String)> {
    let home = tempfile::tempdir().unwrap();
    let mut c = Command::new("chromium");
    c.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--enable-logging=stderr",
        "--log-level=0",
    ]);
    c.arg(format!("--user-data-dir={}", home.path().display())).env("HOME", home.path()).args(args);
    let o = c.arg(format!("file://{}", page.display())).output().ok()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Some((text(&o.stdout), text(&o.stderr)))
}

#[test]
fn a_browser_opens_it_without_a_complaint() {
    if !harness::cmd::found("chromium") {
        harness::skip("a_browser_opens_it_without_a_complaint", "chromium is not installed");
        return;
    }
    let b = Bench::of("26-new-function");
    assert_eq!(b.diff(&["--name", "fix"]).0, 0);
    let (dom, said) = chromium(&b.at("report.html"), &["--dump-dom"]).unwrap();
    for part in ["Replaced functions", "6 instructions became 22", "<svg"] {
        assert!(dom.contains(part), "{part}: {dom}\n{said}");
    }
    assert!(!said.contains("CONSOLE"), "{said}");
    // What it says when something is wrong, so that silence means something.
    let bad = b.page().replace("<footer>", "<script>console.error('x')</script><footer>");
    std::fs::write(b.at("bad.html"), bad).unwrap();
    let (_, said) = chromium(&b.at("bad.html"), &["--dump-dom"]).unwrap();
    assert!(said.contains("CONSOLE") && said.contains("Content Security Policy"), "{said}");
}
