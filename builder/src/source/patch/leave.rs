//! What of the patches is left out: whole files, what is below a folder, or single hunks, by what the author names.
//!
//! Input: `FILE`, `FOLDER/`, or `FILE:N` for the N-th hunk of a file, counted over all patches in their order. Everything that is left out is
//! listed. Refused (LP6109): a name that leaves nothing out, and what leaves nothing of the patches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::parse::{Complaint, FilePatch};
use crate::codes;
use crate::error::{Error, Place, Problem, Result};
use crate::plan::Leave;
use crate::plan::manifest::LeftOut;

/// All names, and what each has left out.
pub(super) struct Leaving {
    names: Vec<(String, Leave, bool)>,
    /// Hunks met so far, by file.
    met: BTreeMap<String, usize>,
    /// Of patches before: where hunks of a file were left out, and the lines that they would have added.
    missing: BTreeMap<String, Vec<(usize, isize)>>,
    out: Vec<LeftOut>,
    /// Something is left of the patches.
    rest: bool,
}

impl Leaving {
    pub(super) fn of(names: &[String]) -> Result<Self> {
        let read = |name: &String| {
            let bad = |what| Error::new(codes::LP6109, Place::object(name.clone()), what);
            Ok((name.clone(), Leave::parse(name).map_err(bad)?, false))
        };
        let names = names.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Self { names, met: BTreeMap::new(), missing: BTreeMap::new(), out: Vec::new(), rest: false })
    }

    fn whole(&mut self, path: &str) -> bool {
        let mut found = false;
        for (_, _, used) in self.names.iter_mut().filter(|(_, l, _)| l.hunk.is_none() && l.has(path)) {
            (*used, found) = (true, true);
        }
        found
    }

    /// Is a part of a patch that cannot be applied left out?
    pub(super) fn complaint(&mut self, patch: &Path, complaint: &Complaint) -> bool {
        for path in &complaint.paths {
            *self.met.entry(path.clone()).or_default() += complaint.hunks;
        }
        let Some(path) = complaint.paths.iter().find(|p| self.whole(p)).cloned() else { return false };
        let what = match complaint.hunks {
            0 => complaint.what.clone(),
            n => format!("{}, and its {n} hunk(s)", complaint.what),
        };
        self.note(patch, &path, what);
        true
    }

    /// What is left of the files of a patch.
    pub(super) fn rest(&mut self, patch: &Path, files: Vec<FilePatch>) -> Vec<FilePatch> {
        let mut left = Vec::new();
        for mut file in files {
            let Some(path) = file.paths.first().cloned() else { continue };
            let before = *self.met.get(&path).unwrap_or(&0);
            self.met.insert(path.clone(), before + file.hunks.len());
            if file.paths.iter().any(|p| self.whole(p)) {
                let what = match file.hunks.len() {
                    1 => "its only hunk".to_owned(),
                    n => format!("all {n} hunks"),
                };
                self.note(patch, &path, what);
                continue;
            }
            let all = file.hunks.len();
            let mut number = before;
            let mut gone = Vec::new();
            let missing = self.missing.get(&path).cloned().unwrap_or_default();
            let mut later = Vec::new();
            for hunk in &mut file.hunks {
                number += 1;
                hunk.number = number;
                // It was written for a file with what is missing.
                let above =
                    missing.iter().filter(|(at, _)| *at <= hunk.old_start).map(|(_, lines)| lines).sum::<isize>();
                hunk.old_start = hunk.old_start.saturating_add_signed(above.saturating_neg());
                hunk.strict = !missing.is_empty();
            }
            file.hunks.retain(|hunk| {
                let number = hunk.number;
                let mut keep = true;
                for (_, leave, used) in &mut self.names {
                    if leave.hunk == Some(number) && file.paths.contains(&leave.path) {
                        (*used, keep) = (true, false);
                    }
                }
                if !keep {
                    let lines = hunk.new_lines().len() as isize - hunk.old_lines().len() as isize;
                    later.push((hunk.old_start, lines));
                    gone.push(format!("hunk {number} ({})", hunk.header));
                }
                keep
            });
            self.missing.entry(path.clone()).or_default().extend(later);
            for what in gone {
                self.note(patch, &path, what);
            }
            if !file.hunks.is_empty() || all == 0 {
                self.rest = true;
                left.push(file);
            }
        }
        left
    }

    fn note(&mut self, patch: &Path, path: &str, what: String) {
        let name = patch.file_name().unwrap_or(patch.as_os_str()).to_string_lossy().into_owned();
        self.out.push(LeftOut { patch: name, file: path.to_owned(), what });
    }

    /// What was left out, when all names have found something and something is left.
    pub(super) fn finish(self, patches: &[PathBuf]) -> Result<Vec<LeftOut>> {
        let unused = self.names.iter().filter(|n| !n.2).map(|(name, leave, _)| {
            let has = match (self.met.get(&leave.path), leave.hunk) {
                (Some(n), Some(hunk)) if hunk <= *n => {
                    "it is left out already, by another name or as a whole".to_owned()
                }
                (Some(n), _) => format!("the patches have {n} hunk(s) of this file"),
                _ => {
                    let files: Vec<&str> = self.met.keys().map(String::as_str).take(8).collect();
                    format!("the patches have no such file; they have {}", files.join(", "))
                }
            };
            Problem::new(codes::LP6109, Place::object(name.clone()), has)
        });
        let mut problems: Vec<Problem> = unused.collect();
        if problems.is_empty() && !self.rest && !self.names.is_empty() {
            let names: Vec<String> = patches.iter().map(|p| p.display().to_string()).collect();
            problems.push(Problem::new(codes::LP6109, Place::object(names.join(", ")), "nothing of it is left"));
        }
        if problems.is_empty() { Ok(self.out) } else { Err(Error { problems }) }
    }
}
