//! docs/refusals.md lists every code exactly as `lpbuild explain` prints it.

use std::fmt::Write;
use std::path::Path;

use lpbuild::codes::{self, Severity};

#[test]
fn refusals_page_is_complete() {
    let mut page = String::from(
        "# Codes\n\nEvery error of lpbuild has a code. *Broken* (exit 1): malformed input, I/O, a bug. *Refused* (exit 4): the \
         input is\nunderstood, but it cannot be live-patched safely, or not now. `lpbuild explain LPnnnn` prints an \
         entry.\n\nThis page is made from the table in `builder/src/codes/`; refresh it with\n`LPBUILD_BLESS=1 cargo test -p \
         lpbuild --test docs`.\n",
    );
    for c in codes::all() {
        let class = if c.class == Severity::Broken { "broken" } else { "refused" };
        let _ = write!(page, "\n## {}: {}\n\n*{class}* {}\n\nWhat to do: {}.\n", c.id, c.title, c.why, c.advice);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/refusals.md");
    if std::env::var_os("LPBUILD_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(have == page, "docs/refusals.md is not current: LPBUILD_BLESS=1 cargo test -p lpbuild --test docs");
}

/// Headings as links name them, on pages of GitHub.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    headings.map(|h| h.to_lowercase().replace(' ', "-").chars().filter(|c| kept(*c)).collect()).collect()
}

#[test]
fn chapters_for_authors_exist_and_so_do_their_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/authors.md")).unwrap();
    let anchors = anchors(&page);
    let mut linked = 0;
    let ends = |c: char| !(c.is_alphanumeric() || c == '-');
    for code in codes::all() {
        for (_, rest) in code.advice.match_indices("docs/authors.md#").map(|(at, m)| code.advice.split_at(at + m.len()))
        {
            let anchor = rest.split(ends).next().unwrap_or_default();
            assert!(anchors.iter().any(|a| a == anchor), "{}: docs/authors.md has no chapter {anchor}", code.id);
            linked += 1;
        }
    }
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap_or_default();
        assert!(anchors.iter().any(|a| a == anchor), "docs/authors.md has no chapter {anchor}");
    }
    for example in page.split("`examples/").skip(1) {
        let name = example.split('`').next().unwrap_or_default();
        assert!(root.join("examples").join(name).join("show.sh").exists(), "there is no examples/{name}");
    }
    assert!(linked >= 10, "{linked}");
}
