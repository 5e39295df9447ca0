//! Finds where a hunk belongs in a file, and says why it belongs nowhere.
//!
//! Every line of the old side must match. A hunk that is not where its header says belongs to the nearest place where it
//! fits; one with little context is refused when there are several.

use super::parse::{Hunk, HunkLine};

/// Where a hunk fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Index of its first line.
    pub at: usize,
    /// Lines it is away from where its header says, after the shift of the hunks before it.
    pub offset: isize,
    /// In how many places it fits.
    pub places: usize,
}

/// Finds the place of `hunk` in `lines` at or behind `from`; `shift` is how far the hunk before it was moved.
pub fn find(lines: &[&[u8]], hunk: &Hunk, from: usize, shift: isize) -> Option<Fit> {
    let old = hunk.old_lines();
    let stated = stated(hunk).checked_add_signed(shift).unwrap_or(0);
    let fits = |at: usize| at >= from && lines.get(at..at + old.len()).is_some_and(|l| l == old.as_slice());
    if old.is_empty() {
        // Nothing to recognise the place by: only a file that is empty so far.
        return lines.is_empty().then_some(Fit { at: 0, offset: 0, places: 1 });
    }
    if fits(stated) {
        return Some(Fit { at: stated, offset: 0, places: 1 });
    }
    let all: Vec<usize> = (from..=lines.len().saturating_sub(old.len())).filter(|at| fits(*at)).collect();
    let at = all.iter().copied().min_by_key(|at| at.abs_diff(stated))?;
    let (front, back) = hunk.context();
    let weak = front == 0 || back == 0;
    if weak && all.len() > 1 {
        return None;
    }
    let offset = isize::try_from(at).ok()? - isize::try_from(stated).ok()?;
    Some(Fit { at, offset, places: all.len() })
}

/// Index of the line the header names. With an empty old side the header names the line before.
fn stated(hunk: &Hunk) -> usize {
    hunk.old_start.saturating_sub(usize::from(!hunk.old_lines().is_empty()))
}

/// Both sides of a hunk that does not fit: what it expects, and what the source has where most of its lines match.
pub fn explain(lines: &[&[u8]], hunk: &Hunk, shift: isize) -> String {
    let old = hunk.old_lines();
    if old.is_empty() {
        return "it has no line of context and the file is not empty, so its place is unknown".into();
    }
    let stated = stated(hunk).checked_add_signed(shift).unwrap_or(0);
    let matching = |at: usize| old.iter().zip(lines.get(at..).unwrap_or_default()).filter(|(a, b)| *a == *b).count();
    let last = lines.len().saturating_sub(old.len().min(lines.len()));
    let best = (0..=last).max_by_key(|at| (matching(*at), std::cmp::Reverse(at.abs_diff(stated)))).unwrap_or(0);
    if matching(best) == old.len() {
        return "it fits in several places, and has too little context to tell which is meant".into();
    }
    let mut out = String::from("the patch expects");
    for (index, line) in hunk.lines.iter().filter(|l| !matches!(l, HunkLine::Added(_))).enumerate() {
        let differs = lines.get(best + index) != Some(&line.text());
        push(&mut out, differs, if matches!(line, HunkLine::Removed(_)) { '-' } else { ' ' }, line.text());
    }
    if lines.is_empty() {
        out.push_str("\n  but the file is empty\n ");
        return out;
    }
    out.push_str(&format!("\n  but line {} and following of the source are", best + 1));
    for (line, old) in lines[best..].iter().zip(&old) {
        push(&mut out, line != old, ' ', line);
    }
    if best + old.len() > lines.len() {
        out.push_str("\n    (end of file)");
    }
    // The code's title and advice follow on a line of their own.
    out.push_str("\n ");
    out
}

fn push(out: &mut String, differs: bool, sign: char, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = match text.strip_suffix('\n') {
        Some(t) => t.replace('\r', "\\r"),
        None => format!("{text} (no line end)"),
    };
    out.push_str(&format!("\n  {} {sign}{text}", if differs { '>' } else { ' ' }));
}
