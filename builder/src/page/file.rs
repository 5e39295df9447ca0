//! The file of a report: asked before anything is done, written whole or not at all.
//!
//! Refused: a place that cannot be written (LP1001, LP1004 to LP1007), a file that is no report of lpbuild, or would not outlive the command (LP1113).

use std::io::Read;
use std::path::Path;

use crate::codes;
use crate::error::{Error, Place, Result};
use crate::pack::write_atomic;

/// What a report begins with.
pub const MARK: &str = "<!DOCTYPE html><!-- lpbuild report -->";

/// May the report be written there? `folder`: an output folder, which is replaced as a whole. `others`: files that the command writes.
///
/// # Errors
/// LP1001, LP1004 to LP1007, LP1113.
pub fn check(path: &Path, folder: Option<&Path>, others: &[&Path]) -> Result<()> {
    let refused = |what: &str| Err(Error::new(codes::LP1113, Place::object(path.display().to_string()), what));
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    // Beside it is where it is made.
    let beside = tempfile::Builder::new().prefix(".lpbuild-report-").tempfile_in(parent);
    beside.map(drop).map_err(|e| Error::io(path, &e))?;
    let whole = |p: &Path| p.canonicalize().unwrap_or_else(|_| std::path::absolute(p).unwrap_or_else(|_| p.to_owned()));
    let own = whole(parent).join(path.file_name().unwrap_or_default());
    if folder.is_some_and(|dir| own.starts_with(whole(dir))) {
        return refused("the output folder is replaced as a whole, and the report in it would go");
    }
    if others.iter().any(|other| whole(other) == whole(&own)) {
        return refused("the command writes another file there");
    }
    if !path.exists() {
        return Ok(());
    }
    if !path.is_file() {
        return refused("it is there already and is no file");
    }
    let mut begins = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    file.take(MARK.len() as u64).read_to_end(&mut begins).map_err(|e| Error::io(path, &e))?;
    if begins != MARK.as_bytes() {
        return refused("a file that is no report of lpbuild is there; it was left alone");
    }
    Ok(())
}

/// Takes away a report of before, so that it is not taken for what comes now; anything else stays.
///
/// # Errors
/// LP1001, LP1004 to LP1007.
pub fn clear(path: &Path) -> Result<()> {
    let mut begins = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(MARK.len() as u64).read_to_end(&mut begins));
    if path.is_file() && read.is_ok() && begins == MARK.as_bytes() {
        std::fs::remove_file(path).map_err(|e| Error::io(path, &e))?;
    }
    Ok(())
}

/// Writes it.
///
/// # Errors
/// LP1001, LP1004 to LP1007.
pub fn write(path: &Path, page: &str) -> Result<()> {
    write_atomic(path, page.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_a_report_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let code = |path: &Path, folder: Option<&Path>, others: &[&Path]| {
            check(path, folder, others).err().map(|e| e.problems[0].code.id)
        };
        let report = at("report.html");
        assert_eq!(code(&report, None, &[]), None);
        assert!(!report.exists(), "asking leaves nothing");
        write(&report, &format!("{MARK}old")).unwrap();
        assert_eq!(code(&report, None, &[]), None);
        std::fs::write(at("mine.html"), "<!DOCTYPE html>").unwrap();
        assert_eq!(code(&at("mine.html"), None, &[]), Some("LP1113"));
        assert_eq!(code(dir.path(), None, &[]), Some("LP1113"));
        assert_eq!(code(&at("no/such/report.html"), None, &[]), Some("LP1004"));
        let out = at("out");
        std::fs::create_dir(&out).unwrap();
        assert_eq!(code(&out.join("report.html"), Some(&out), &[]), Some("LP1113"));
        assert_eq!(code(&report, Some(&out), &[]), None);
        assert_eq!(code(&at("console.log"), None, &[&at("console.log")]), Some("LP1113"));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
