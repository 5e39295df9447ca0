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
