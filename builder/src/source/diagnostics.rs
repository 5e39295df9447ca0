//! What a compiler says of a changed source -> the same, with the places a person knows: files of the source, lines of the changed
//! file and of the patch, instead of those of the copy that was compiled.

use std::path::Path;

use super::lines::extra_base;
use super::patch::{FileChange, PatchLine, SourceChange};
use crate::codes;
use crate::error::Error;

/// The same of an error of the compiler's.
pub fn in_patch(mut error: Error, shadow: &Path, change: &SourceChange) -> Error {
    for p in error.problems.iter_mut().filter(|p| p.code == codes::LP6213) {
        p.detail = placed(&p.detail, shadow, change);
    }
    error
}

/// The line of a changed file that was compiled under a number; any other number is as it is.
pub fn line_of(change: &SourceChange, path: &str, number: u64) -> u64 {
    let file = change.files.get(path.strip_prefix("./").unwrap_or(path));
    let real = file.zip(usize::try_from(number).ok()).and_then(|(file, number)| real_line(file, number));
    real.map_or(number, |line| line as u64)
}

/// Replaces the names below `shadow`, and the line numbers that [`super::lines`] gave.
fn placed(text: &str, shadow: &Path, change: &SourceChange) -> String {
    let prefix = format!("{}/", shadow.display());
    let lines: Vec<String> = text.lines().map(|line| placed_line(line, &prefix, change)).collect();
    lines.join("\n")
}

fn placed_line(line: &str, prefix: &str, change: &SourceChange) -> String {
    let line = line.replace(prefix, "");
    // `path:line:column: what`
    let mut parts = line.splitn(3, ':');
    let (Some(path), Some(number), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return line };
    let (Some(file), Ok(number)) = (change.files.get(path), number.parse::<usize>()) else { return line };
    let Some(real) = real_line(file, number) else { return line };
    let from = real.checked_sub(1).and_then(|i| change.written.get(path)?.get(i)?.as_ref());
    match from {
        Some(PatchLine { patch, line: at }) => {
            let patch = patch.file_name().unwrap_or_default().to_string_lossy();
            format!("{path}:{real}:{rest} ({patch}:{at})")
        }
        None => format!("{path}:{real}:{rest}"),
    }
}

/// The line of the changed file that was compiled under this number: lines that are new have theirs behind a round number, and the others
/// that of the old file.
fn real_line(file: &FileChange, number: usize) -> Option<usize> {
    let Some(old) = file.old.as_deref() else { return Some(number) };
    let new = file.new.as_deref()?;
    let lines = new.split_inclusive(|b| *b == b'\n').count();
    let base = extra_base(old.split_inclusive(|b| *b == b'\n').count());
    if let Some(line) = number.checked_sub(base).filter(|l| *l > 0) {
        return (line <= lines).then_some(line);
    }
    let mut shift = 0isize;
    for range in &file.ranges {
        if number < range.old_start {
            break;
        }
        let within = number - range.old_start;
        if within < range.old_len {
            // It stands for one that it replaces.
            return (within < range.new_len).then_some(range.new_start + within);
        }
        shift += isize::try_from(range.new_len).ok()? - isize::try_from(range.old_len).ok()?;
    }
    number.checked_add_signed(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_numbers_of_the_changed_file() {
        let text = |s: &str| Some(s.as_bytes().to_vec());
        let change = SourceChange::from_contents([("a.c".to_owned(), text("1\n2\n3\n"), text("1\nnew\n2\n3\n"))]);
        let at = |number| line_of(&change, "./a.c", number);
        assert_eq!([at(1), at(10_002), at(2), at(3)], [1, 2, 3, 4]);
        assert_eq!((at(10_009), line_of(&change, "b.c", 10_002)), (10_009, 10_002));
    }

    #[test]
    fn lines_are_those_of_the_changed_file_and_of_the_patch() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("fs")).unwrap();
        std::fs::write(dir.path().join("fs/a.c"), "one\ntwo\nthree\nfour\n").unwrap();
        let patch = dir.path().join("fix.patch");
        let text =
            "A fix.\n\n--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,4 +1,6 @@\n one\n-two\n+zwei\n+new\n+more\n three\n four\n";
        std::fs::write(&patch, text).unwrap();
        let change = super::super::patch::apply(dir.path(), &[patch], &[]).unwrap();
        let said = |text: &str| placed(text, Path::new("/w/source"), &change);
        // `zwei` has the number of what it replaces; `new` and `more` have one of their own.
        assert_eq!(said("/w/source/fs/a.c:2:5: error: x: y"), "fs/a.c:2:5: error: x: y (fix.patch:8)");
        assert_eq!(said("/w/source/fs/a.c:10003:5: error: x"), "fs/a.c:3:5: error: x (fix.patch:9)");
        assert_eq!(said("/w/source/fs/a.c:10004:1: error: x"), "fs/a.c:4:1: error: x (fix.patch:10)");
        assert_eq!(said("/w/source/fs/a.c:4: warning: x"), "fs/a.c:6: warning: x");
        assert_eq!(said("/w/source/fs/a.c: In function 'f':"), "fs/a.c: In function 'f':");
        assert_eq!(said("In file included from /w/source/fs/b.c:1:"), "In file included from fs/b.c:1:");
    }
}
