//! Source patches and a source folder -> [`SourceChange`]: old and new contents of every file the patches touch.
//!
//! Patches are unified diffs (`-p1`), applied in order in memory: the source is only read. Lines may have moved, which is
//! noted; every line of context must match. Refused: what does not apply (LP6102, LP6103), removed (LP6104) and renamed
//! files (LP6105), modes and links (LP6106), binary parts (LP6107), paths that lead outside (LP6108).

mod leave;
mod parse;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::bounded;
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::plan::manifest::LeftOut;
use leave::Leaving;
use parse::{FilePatch, HunkLine};

/// What patches make of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceChange {
    /// By path relative to the source. Files that are the same after all patches are not listed.
    pub files: BTreeMap<String, FileChange>,
    /// Hunks that were found at another line than their header says, in the order they were applied.
    pub moved: Vec<MovedHunk>,
    /// What the author left out of the patches.
    pub left_out: Vec<LeftOut>,
    /// By file, for each line of the new content: the line of the patch that it is from, if it is from one.
    pub written: BTreeMap<String, Vec<Option<PatchLine>>>,
}

/// A line of a patch file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchLine {
    /// The patch.
    pub patch: PathBuf,
    /// From 1.
    pub line: usize,
}

/// One file in both versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Path relative to the source.
    pub path: String,
    /// Content in the source; nothing for an added file.
    pub old: Option<Vec<u8>>,
    /// Content with all patches applied; nothing for a removed file (which [`apply`] refuses).
    pub new: Option<Vec<u8>>,
    /// What differs, in order, by a comparison of the two contents.
    pub ranges: Vec<LineRange>,
}

/// Lines that differ. Starts are line numbers from 1; with a length of 0 the lines stand in front of that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRange {
    /// First line in the old content.
    pub old_start: usize,
    /// Number of lines in the old content.
    pub old_len: usize,
    /// First line in the new content.
    pub new_start: usize,
    /// Number of lines in the new content.
    pub new_len: usize,
}

/// A hunk that was applied at another line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedHunk {
    /// The patch.
    pub patch: PathBuf,
    /// The file.
    pub path: String,
    /// The header of the hunk.
    pub hunk: String,
    /// Lines it was moved by.
    pub offset: isize,
    /// Places in which it fits; the nearest was taken.
    pub places: usize,
}

impl fmt::Display for MovedHunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { patch, path, hunk, offset, places } = self;
        write!(f, "{}: {path}: {hunk} applies {offset:+} lines away", patch.display())?;
        if *places > 1 { write!(f, ", the nearest of {places} places where it fits") } else { Ok(()) }
    }
}

impl FileChange {
    /// A file with its contents; finds the ranges.
    pub fn new(path: impl Into<String>, old: Option<Vec<u8>>, new: Option<Vec<u8>>) -> Self {
        let ranges = ranges(&split(old.as_deref().unwrap_or_default()), &split(new.as_deref().unwrap_or_default()));
        Self { path: path.into(), old, new, ranges }
    }
}

impl SourceChange {
    /// A change made of contents: path, old content, new content. Files that are the same are left out.
    pub fn from_contents(files: impl IntoIterator<Item = (String, Option<Vec<u8>>, Option<Vec<u8>>)>) -> Self {
        let differing = files.into_iter().filter(|(_, old, new)| old != new);
        let files = differing.map(|(path, old, new)| (path.clone(), FileChange::new(path, old, new))).collect();
        Self { files, ..Self::default() }
    }

    /// SHA-256 over all paths and contents, old and new, in lower-case hex.
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for file in self.files.values() {
            part(0, file.path.as_bytes());
            for (tag, content) in [(1, &file.old), (2, &file.new)] {
                if let Some(content) = content {
                    part(tag, content);
                }
            }
        }
        crate::hash::to_hex(&hash.finalize())
    }
}

/// Applies `patches` in order to the files below `source`, which is only read.
pub fn apply(source: &Path, patches: &[PathBuf], leave_out: &[String]) -> Result<SourceChange> {
    let mut state = State { source, files: BTreeMap::new(), moved: Vec::new(), written: BTreeMap::new() };
    let (all, left_out) = files_of(patches, leave_out)?;
    for (patch, files) in patches.iter().zip(&all) {
        state.apply(patch, files)?;
    }
    let contents = state.files.into_iter().map(|(path, (old, new))| (path, old, new));
    Ok(SourceChange { moved: state.moved, written: state.written, left_out, ..SourceChange::from_contents(contents) })
}

/// Reads `patches` and says what is wrong with them by themselves, before there is a source.
pub fn check(patches: &[PathBuf], leave_out: &[String]) -> Result<()> {
    files_of(patches, leave_out).map(drop)
}

/// The files of each patch, without what is left out.
fn files_of(patches: &[PathBuf], leave_out: &[String]) -> Result<(Vec<Vec<FilePatch>>, Vec<LeftOut>)> {
    let mut leaving = Leaving::of(leave_out)?;
    let mut all = Vec::new();
    for patch in patches {
        let text = bounded::read(patch, bounded::TEXT)?;
        let files = parse::parse(&text, &mut |complaint| leaving.complaint(patch, complaint)).map_err(|c| {
            let at = format!("line {} of {}: {}", c.line, patch.display(), c.what);
            Error::new(c.code, c.paths.into_iter().next().map(Place::object).unwrap_or_default(), at)
        })?;
        all.push(leaving.rest(patch, files));
    }
    Ok((all, leaving.finish(patches)?))
}

/// Old and present content of one file.
type Contents = (Option<Vec<u8>>, Option<Vec<u8>>);

struct State<'s> {
    source: &'s Path,
    files: BTreeMap<String, Contents>,
    moved: Vec<MovedHunk>,
    written: BTreeMap<String, Vec<Option<PatchLine>>>,
}

impl State<'_> {
    /// One patch file. All hunks that do not fit are reported, then the patch counts as not applied.
    fn apply(&mut self, patch: &Path, files: &[FilePatch]) -> Result<()> {
        let mut problems = Vec::new();
        let mut reverse = true;
        for file in files {
            let path = self.choose(file)?;
            let Some((_, content)) = self.files.get(&path) else { continue };
            let present = content.clone();
            let bytes = present.as_deref().unwrap_or_default();
            let lines = split(bytes);
            reverse &= applied_already(file, present.as_deref());
            let place = Place::object(&path);
            if file.added && present.is_some() {
                let what = format!("{} adds this file, but it exists", patch.display());
                problems.push(Problem::new(codes::LP6102, place, what));
                continue;
            }
            if !file.added && present.is_none() {
                let mut what = format!("{} changes this file, but the source does not have it", patch.display());
                if let Some(whole) = self.without_prefix(&path) {
                    what.push_str(&format!(
                        "; it has {whole}: where that is meant, the names in the patch lack the first folder, which -p1 takes \
                         away, as in a/{whole} and b/{whole}"
                    ));
                }
                problems.push(Problem::new(codes::LP6102, place, what));
                continue;
            }
            match self.hunks(patch, &path, file, &lines) {
                Ok(new) => {
                    if let Some(entry) = self.files.get_mut(&path) {
                        entry.1 = Some(new);
                    }
                }
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        if reverse {
            let place = problems.first().map(|p| p.place.clone()).unwrap_or_default();
            let what = format!("{} does not apply, but it can be taken back", patch.display());
            return Err(Error::new(codes::LP6103, place, what));
        }
        Err(Error { problems })
    }

    /// The new content.
    fn hunks(&mut self, patch: &Path, path: &str, file: &FilePatch, lines: &[&[u8]]) -> Result<Vec<u8>, Vec<Problem>> {
        let (mut out, mut done, mut shift) = (Vec::new(), 0, 0);
        let before = self.written.get(path).cloned().unwrap_or_default();
        let from = |line: usize| before.get(line).cloned().flatten();
        let mut written = Vec::new();
        let (mut moved, mut problems) = (Vec::new(), Vec::new());
        for hunk in &file.hunks {
            let Some(fit) = place::find(lines, hunk, done, shift) else {
                let already = place::find(lines, &hunk.reversed(), 0, shift).is_some();
                let what = format!(
                    "{}, line {}: hunk {} ({}){}: {}",
                    patch.display(),
                    hunk.at,
                    hunk.number,
                    hunk.header,
                    if already { " seems to be applied already" } else { "" },
                    place::explain(lines, hunk, shift)
                );
                problems.push(Problem::new(codes::LP6102, Place::object(path), what));
                continue;
            };
            if hunk.strict && fit.places > 1 {
                let what = format!(
                    "{}, line {}: hunk {} ({}) fits in {} places, and parts of the file before it were left out: which is meant is not certain",
                    patch.display(),
                    hunk.at,
                    hunk.number,
                    hunk.header,
                    fit.places
                );
                problems.push(Problem::new(codes::LP6102, Place::object(path), what));
                continue;
            }
            shift = shift.saturating_add(fit.offset);
            if shift != 0 {
                let (patch, path, hunk) = (patch.to_owned(), path.to_owned(), hunk.header.clone());
                moved.push(MovedHunk { patch, path, hunk, offset: shift, places: fit.places });
            }
            for line in lines[done..fit.at].iter().copied().chain(hunk.new_lines()) {
                out.extend_from_slice(line);
            }
            written.extend((done..fit.at).map(from));
            let mut old = fit.at;
            for (i, line) in hunk.lines.iter().enumerate() {
                match line {
                    HunkLine::Added(_) => {
                        written.push(Some(PatchLine { patch: patch.to_owned(), line: hunk.at + 1 + i }));
                        continue;
                    }
                    HunkLine::Context(_) => written.push(from(old)),
                    HunkLine::Removed(_) => {}
                }
                old += 1;
            }
            done = fit.at + hunk.old_lines().len();
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        lines[done..].iter().for_each(|l| out.extend_from_slice(l));
        written.extend((done..lines.len()).map(from));
        self.written.insert(path.to_owned(), written);
        self.moved.extend(moved);
        Ok(out)
    }

    /// The file of the source whose first folder was taken for the one in front of all names.
    fn without_prefix(&self, path: &str) -> Option<String> {
        let folders = std::fs::read_dir(self.source).ok()?.flatten();
        let names = folders.filter_map(|f| Some(format!("{}/{path}", f.file_name().to_str()?)));
        names.filter(|n| self.source.join(n).is_file()).min()
    }

    /// The name of a patched file that exists, read if it is not yet known.
    fn choose(&mut self, file: &FilePatch) -> Result<String> {
        for path in &file.paths {
            if !self.files.contains_key(path) {
                let content = read(self.source, path)?;
                self.files.insert(path.clone(), (content.clone(), content));
            }
            if self.files[path].1.is_some() {
                return Ok(path.clone());
            }
        }
        Ok(file.paths.first().cloned().unwrap_or_default())
    }
}

/// Would taking the patch back give a file it applies to?
fn applied_already(file: &FilePatch, present: Option<&[u8]>) -> bool {
    let Some(present) = present else { return false };
    let lines = split(present);
    if file.added {
        let new = file.hunks.first().map(|h| h.new_lines()).unwrap_or_default();
        return new == lines;
    }
    let (mut done, mut shift) = (0, 0);
    let mut grown = 0_isize;
    file.hunks.iter().all(|hunk| {
        // The header's numbers are those of the old side.
        let reversed = hunk.reversed();
        let Some(fit) = place::find(&lines, &reversed, done, shift + grown) else { return false };
        shift += fit.offset;
        grown += hunk.new_lines().len() as isize - hunk.old_lines().len() as isize;
        done = fit.at + reversed.old_lines().len();
        true
    })
}

/// The content of a file of the source, if there is one; links are refused.
fn read(source: &Path, path: &str) -> Result<Option<Vec<u8>>> {
    let full = source.join(path);
    let broken = |e: std::io::Error| Error::io(&full, &e);
    match full.symlink_metadata() {
        Ok(m) if m.is_symlink() => {
            Err(Error::new(codes::LP6106, Place::object(path), "it is a symbolic link in the source"))
        }
        Ok(_) => std::fs::read(&full).map(Some).map_err(broken),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(broken(e)),
    }
}

/// Lines with their ends.
fn split(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|b| *b == b'\n').collect()
}

fn ranges(old: &[&[u8]], new: &[&[u8]]) -> Vec<LineRange> {
    // What both ends share needs no search.
    let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - front;
    let back = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let ops = capture_diff_slices(Algorithm::Myers, &old[front..old.len() - back], &new[front..new.len() - back]);
    let changed = ops.into_iter().filter(|op| !matches!(op, DiffOp::Equal { .. }));
    changed
        .map(|op| LineRange {
            old_start: front + op.old_range().start + 1,
            old_len: op.old_range().len(),
            new_start: front + op.new_range().start + 1,
            new_len: op.new_range().len(),
        })
        .collect()
}
