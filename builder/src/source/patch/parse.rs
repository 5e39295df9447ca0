//! The text of a patch -> [`FilePatch`]es: unified diffs with or without git headers, one file or many, mail around them.
//!
//! Broken (LP6101): hunks whose lines do not add up or that belong to no file, combined diffs, a patch without any hunk.
//! Refused: removed (LP6104), renamed and copied files (LP6105), modes and links (LP6106), binary parts (LP6107), paths
//! that lead outside (LP6108).

use crate::codes;
use std::path::{Component, Path};

/// One line of a hunk, with its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HunkLine {
    /// On both sides.
    Context(Vec<u8>),
    /// Only in the old file.
    Removed(Vec<u8>),
    /// Only in the new file.
    Added(Vec<u8>),
}

/// One hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// Line of the patch file with its header, from 1.
    pub at: usize,
    /// The header as it is written.
    pub header: String,
    /// First line in the old file, from 1; 0 when the old side is empty.
    pub old_start: usize,
    /// Its lines.
    pub lines: Vec<HunkLine>,
    /// Which it is of those of its file, from 1, over all patches.
    pub number: usize,
    /// Parts of the file that come before it were left out: it fits where it says, or in one place.
    pub strict: bool,
}

impl Hunk {
    /// Lines of the old side.
    pub fn old_lines(&self) -> Vec<&[u8]> {
        let keep = |l: &'_ HunkLine| !matches!(l, HunkLine::Added(_));
        self.lines.iter().filter(|l| keep(l)).map(HunkLine::text).collect()
    }
    /// Lines of the new side.
    pub fn new_lines(&self) -> Vec<&[u8]> {
        let keep = |l: &'_ HunkLine| !matches!(l, HunkLine::Removed(_));
        self.lines.iter().filter(|l| keep(l)).map(HunkLine::text).collect()
    }
    /// Lines of context in front of and behind the change.
    pub fn context(&self) -> (usize, usize) {
        let context = |l: &&HunkLine| matches!(l, HunkLine::Context(_));
        (self.lines.iter().take_while(context).count(), self.lines.iter().rev().take_while(context).count())
    }
    /// The hunk that takes the change back.
    pub fn reversed(&self) -> Hunk {
        let swap = |l: &HunkLine| match l {
            HunkLine::Context(t) => HunkLine::Context(t.clone()),
            HunkLine::Removed(t) => HunkLine::Added(t.clone()),
            HunkLine::Added(t) => HunkLine::Removed(t.clone()),
        };
        Hunk { lines: self.lines.iter().map(swap).collect(), ..self.clone() }
    }
}

impl HunkLine {
    /// The text with its line end.
    pub fn text(&self) -> &[u8] {
        match self {
            HunkLine::Context(t) | HunkLine::Removed(t) | HunkLine::Added(t) => t,
        }
    }
}

/// What a patch does to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePatch {
    /// Path in the source; for a plain diff of differently named files the two names, the new one first.
    pub paths: Vec<String>,
    /// The patch says the file is a new one.
    pub added: bool,
    /// In the order of the patch.
    pub hunks: Vec<Hunk>,
}

/// Why a patch is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// LP61xx.
    pub code: &'static codes::Code,
    /// Line of the patch file, from 1.
    pub line: usize,
    /// The file of the source, when it is known; of a renamed one both names.
    pub paths: Vec<String>,
    /// Hunks that the file has besides.
    pub hunks: usize,
    /// What was found.
    pub what: String,
}

type Result<T> = std::result::Result<T, Complaint>;

/// Reads the patch `text`. A file that is complained about is passed over where `passed` says so.
pub fn parse(text: &[u8], passed: &mut dyn FnMut(&Complaint) -> bool) -> Result<Vec<FilePatch>> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    // A mailer or an editor gave the whole patch CRLF ends when even its headers have them.
    let headers = |l: &&&[u8]| [&b"--- "[..], b"+++ ", b"@@ -"].iter().any(|h| l.starts_with(h));
    let crlf = lines.iter().filter(headers).count() > 0 && lines.iter().filter(headers).all(|l| l.ends_with(b"\r\n"));
    let unix: Vec<Vec<u8>>;
    if crlf {
        unix = lines.iter().map(|l| l.strip_suffix(b"\r\n").map_or(l.to_vec(), |l| [l, b"\n"].concat())).collect();
        lines = unix.iter().map(Vec::as_slice).collect();
    }
    let mut parser = Parser { lines, at: 0 };
    let (mut files, mut any) = (Vec::new(), false);
    while parser.at < parser.lines.len() {
        let start = parser.at;
        if parser.starts("From ") && is_mail(parser.line()) {
            parser.skip_message();
        } else if parser.starts("diff --git ") {
            match parser.git() {
                Ok(file) => files.extend(file),
                Err(mut complaint) => {
                    complaint.hunks = parser.pass(start, &complaint.paths);
                    if !passed(&complaint) {
                        return Err(complaint);
                    }
                    any = true;
                }
            }
        } else if parser.is_pair() {
            match parser.plain() {
                Ok(file) => files.push(file),
                // All its hunks were read.
                Err(mut complaint) if complaint.code.id == codes::LP6104.id => {
                    complaint.hunks = 1;
                    if !passed(&complaint) {
                        return Err(complaint);
                    }
                    any = true;
                }
                Err(complaint) => return Err(complaint),
            }
        } else if parser.starts("@@ -") && numbers(parser.line()).is_some() {
            return Err(parser.broken("this hunk belongs to no file, or follows one whose line counts are wrong"));
        } else if parser.starts("@@@ -") || parser.starts("diff --cc ") || parser.starts("diff --combined ") {
            return Err(parser.broken("the diff of a merge cannot be applied"));
        } else if parser.starts("Binary files ") && parser.line().ends_with(b" differ\n") {
            let complaint = parser.binary();
            if !passed(&complaint) {
                return Err(complaint);
            }
            any = true;
            parser.at += 1;
        } else {
            parser.at += 1;
        }
    }
    if files.is_empty() && !any {
        return Err(Complaint {
            code: codes::LP6101,
            line: 1,
            paths: Vec::new(),
            hunks: 0,
            what: "there is no hunk in it".into(),
        });
    }
    Ok(files)
}

/// `From 0123abcd... Mon Sep 17 00:00:00 2001`: a message of `git format-patch` begins.
fn is_mail(line: &[u8]) -> bool {
    line.get(5..).is_some_and(|l| l.len() > 40 && l[..40].iter().all(u8::is_ascii_hexdigit))
}

/// What git writes between its header and the contents.
const EXTENDED: [&str; 12] = [
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "copy from ",
    "copy to ",
    "rename from ",
    "rename to ",
    "similarity index ",
    "dissimilarity index ",
    "index ",
    "old file mode ",
];

struct Parser<'t> {
    lines: Vec<&'t [u8]>,
    at: usize,
}

impl<'t> Parser<'t> {
    fn get(&self, at: usize) -> &'t [u8] {
        self.lines.get(at).copied().unwrap_or_default()
    }

    fn line(&self) -> &'t [u8] {
        self.get(self.at)
    }

    fn starts(&self, prefix: &str) -> bool {
        self.line().starts_with(prefix.as_bytes())
    }

    fn rest(&self, prefix: &str) -> Option<String> {
        let line = self.line().strip_prefix(prefix.as_bytes())?;
        Some(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned())
    }

    fn complaint(&self, code: &'static codes::Code, path: Option<&str>, what: impl Into<String>) -> Complaint {
        Complaint {
            code,
            line: self.at + 1,
            paths: path.map(str::to_owned).into_iter().collect(),
            hunks: 0,
            what: what.into(),
        }
    }

    fn broken(&self, what: impl Into<String>) -> Complaint {
        self.complaint(codes::LP6101, None, what)
    }

    /// To the `---` behind the message, or to the diff when there is none.
    fn skip_message(&mut self) {
        let diff = |p: &Self| p.starts("diff --git ") || p.starts("Index: ") || p.is_pair();
        self.at += 1;
        while self.at < self.lines.len() && self.line() != b"---\n" && !diff(self) {
            self.at += 1;
        }
    }

    /// `---` and `+++` lines with a hunk behind them.
    fn is_pair(&self) -> bool {
        let (to, hunk) = (self.get(self.at + 1), self.get(self.at + 2));
        self.starts("--- ") && to.starts_with(b"+++ ") && hunk.starts_with(b"@@ -")
    }

    /// One `diff --git` part; nothing when it has no effect.
    fn git(&mut self) -> Result<Option<FilePatch>> {
        let start = self.at;
        let mut added = false;
        let path = self.git_path(start);
        let name = path.as_deref();
        self.at += 1;
        while self.at < self.lines.len() {
            let mode = |p: &Self, what: &str| p.rest(what).filter(|m| !m.starts_with("100"));
            if self.starts("rename ") || self.starts("copy ") {
                return Err(self.renamed());
            } else if self.starts("deleted file mode ") {
                return Err(self.complaint(codes::LP6104, name, "the file is deleted"));
            } else if self.starts("old mode ") || self.starts("new mode ") {
                return Err(self.complaint(codes::LP6106, name, self.rest("").unwrap_or_default()));
            } else if let Some(m) = mode(self, "new file mode ") {
                return Err(self.complaint(codes::LP6106, name, format!("the new file is a link, of mode {m}")));
            } else if self.starts("new file mode ") {
                added = true;
            } else if self.starts("GIT binary patch") || self.starts("Binary files ") {
                return Err(self.complaint(codes::LP6107, name, "the file is binary"));
            } else if let Some(index) = self.rest("index ") {
                if index.ends_with(" 120000") || index.ends_with(" 160000") {
                    return Err(self.complaint(codes::LP6106, name, "the file is a symbolic link or a submodule"));
                }
            } else if !self.starts("similarity index ") && !self.starts("dissimilarity index ") {
                break;
            }
            self.at += 1;
        }
        // A pair of another name is a file of its own.
        if self.is_pair() && path.as_ref().is_none_or(|path| self.pair().contains(path)) {
            let mut file = self.plain()?;
            file.added |= added;
            if file.paths.len() > 1 {
                self.at = start;
                return Err(self.complaint(codes::LP6105, Some(&file.paths[0]), format!("it was {}", file.paths[1])));
            }
            return Ok(Some(file));
        }
        // A new file without content has no hunks.
        match path {
            Some(path) if added => Ok(Some(FilePatch { paths: vec![path], added, hunks: Vec::new() })),
            _ if !self.is_pair() && (self.starts("--- ") || self.starts("@@ -")) => {
                Err(self.broken("--- and +++ lines, then a hunk, belong here"))
            }
            _ => Ok(None),
        }
    }

    /// `rename from`, `copy from`, and the line behind it.
    fn renamed(&self) -> Complaint {
        let mut complaint = self.complaint(codes::LP6105, None, self.rest("").unwrap_or_default());
        for line in [self.get(self.at), self.get(self.at + 1)] {
            let text = String::from_utf8_lossy(line);
            let name =
                ["rename from ", "rename to ", "copy from ", "copy to "].iter().find_map(|h| text.strip_prefix(h));
            complaint.paths.extend(name.map(|n| n.trim_end().to_owned()).filter(|n| is_plain(n)));
        }
        complaint
    }

    /// `Binary files OLD and NEW differ`.
    fn binary(&self) -> Complaint {
        let mut complaint = self.complaint(codes::LP6107, None, "a file is binary");
        let line = self.rest("Binary files ").unwrap_or_default();
        let names = line.strip_suffix(" differ").and_then(|l| l.split_once(" and "));
        let names = names.into_iter().flat_map(|(old, new)| [new, old]).filter(|n| *n != "/dev/null");
        complaint.paths = names.filter_map(|n| Some(n.split_once('/')?.1.to_owned())).filter(|n| is_plain(n)).collect();
        complaint
    }

    /// Behind what a git header begins: its extended lines, binary data, and the hunks of a file that it names. What follows is of others.
    /// How many hunks.
    fn pass(&mut self, start: usize, paths: &[String]) -> usize {
        let names: Vec<String> = self.git_path(start).into_iter().chain(paths.iter().cloned()).collect();
        self.at = start + 1;
        while EXTENDED.iter().any(|header| self.starts(header)) {
            self.at += 1;
        }
        if self.starts("GIT binary patch") {
            self.at += 1;
            // Each block ends with an empty line.
            while self.starts("literal ") || self.starts("delta ") {
                while self.at < self.lines.len() && !matches!(self.line(), b"\n" | b"\r\n") {
                    self.at += 1;
                }
                self.at += 1;
            }
        } else if self.starts("Binary files ") {
            self.at += 1;
        }
        if !self.is_pair() || !self.pair().iter().any(|name| names.contains(name)) {
            return 0;
        }
        self.at += 2;
        let mut hunks = 0;
        while self.starts("@@ -") && self.hunk().is_ok() {
            hunks += 1;
        }
        hunks
    }

    /// The names behind `---` and `+++`.
    fn pair(&self) -> Vec<String> {
        let next = Self { lines: self.lines.clone(), at: self.at + 1 };
        let names = [self.path("--- "), next.path("+++ ")];
        names.into_iter().filter_map(|name| name.ok()?.0).collect()
    }

    /// `diff --git a/PATH b/PATH`, when both are the same.
    fn git_path(&self, at: usize) -> Option<String> {
        let text = String::from_utf8_lossy(self.get(at)).into_owned();
        let names = text.trim_end().strip_prefix("diff --git ")?;
        let half = names.split_at_checked(names.len() / 2)?;
        let (old, new) = (half.0, half.1.strip_prefix(' ')?);
        let path = old.split_once('/')?.1;
        (new.split_once('/')?.1 == path && is_plain(path)).then(|| path.to_owned())
    }

    /// `---`, `+++` and the hunks.
    fn plain(&mut self) -> Result<FilePatch> {
        let (old, old_is_new) = self.path("--- ")?;
        self.at += 1;
        let (new, new_is_gone) = self.path("+++ ")?;
        self.at += 1;
        let mut hunks = Vec::new();
        while self.starts("@@ -") {
            hunks.push(self.hunk()?);
        }
        let whole = |empty: fn(&Hunk) -> bool| hunks.len() == 1 && empty(&hunks[0]);
        let removed = new.is_none() || new_is_gone && whole(|h| h.new_lines().is_empty());
        let added = old.is_none() || old_is_new && whole(|h| h.old_lines().is_empty());
        let mut paths: Vec<String> = [new, old].into_iter().flatten().collect();
        if removed {
            let path = paths.last().cloned();
            return Err(self.complaint(codes::LP6104, path.as_deref(), "the file is deleted"));
        }
        paths.dedup();
        if added {
            paths.truncate(1);
        }
        if paths.is_empty() {
            return Err(self.broken("both names are /dev/null"));
        }
        Ok(FilePatch { paths, added, hunks })
    }

    /// The path behind `prefix` without its leading folder (nothing for /dev/null), and whether its time is the epoch, by
    /// which `diff -N` marks a file that does not exist.
    fn path(&self, prefix: &str) -> Result<(Option<String>, bool)> {
        let line = self.rest(prefix).unwrap_or_default();
        let (name, time) = match line.strip_prefix('"') {
            Some(quoted) => (unquote(quoted).ok_or_else(|| self.broken("the quoted name is not ended"))?, ""),
            None => match line.split_once('\t') {
                Some((name, time)) => (name.to_owned(), time),
                None => (line.trim_end().to_owned(), ""),
            },
        };
        if name == "/dev/null" {
            return Ok((None, true));
        }
        if !is_plain(&name) {
            let what = format!("{}: a name with control characters", name.escape_default());
            return Err(self.complaint(codes::LP6108, None, what));
        }
        let outside = |what: String| Err(self.complaint(codes::LP6108, None, what));
        let Some((_, path)) = name.split_once('/').filter(|_| !name.starts_with('/')) else {
            return outside(format!("{name}: expected a path behind one leading folder (a/, b/)"));
        };
        let path = path.trim_start_matches('/');
        if path.is_empty()
            || !Path::new(&name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return outside(format!("{name}: expected a path below the source"));
        }
        let path: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        Ok((Some(path.join("/")), time.starts_with("1970-01-01") || time.starts_with("1969-12-31")))
    }

    fn hunk(&mut self) -> Result<Hunk> {
        let at = self.at + 1;
        let header = self.rest("").unwrap_or_default();
        let Some((old_start, old_len, new_len)) = numbers(self.line()) else {
            return Err(self.broken(format!("{header}: not the header of a hunk")));
        };
        self.at += 1;
        let (mut old, mut new) = (0, 0);
        let mut lines: Vec<HunkLine> = Vec::new();
        while old < old_len || new < new_len || self.starts("\\ ") {
            let text = self.line();
            let Some((kind, rest)) = text.split_first() else {
                return Err(self.broken(format!("{header}: the patch ends within this hunk")));
            };
            match kind {
                b' ' => lines.push(HunkLine::Context(rest.to_vec())),
                // An empty line of context whose space was stripped.
                b'\n' => lines.push(HunkLine::Context(text.to_vec())),
                b'-' => lines.push(HunkLine::Removed(rest.to_vec())),
                b'+' => lines.push(HunkLine::Added(rest.to_vec())),
                b'\\' => match lines.last_mut() {
                    Some(HunkLine::Context(t) | HunkLine::Removed(t) | HunkLine::Added(t)) if t.ends_with(b"\n") => {
                        t.pop();
                    }
                    _ => return Err(self.broken("no line before this one to be without an end")),
                },
                _ => {
                    return Err(
                        self.broken(format!("{header}: this line of the hunk begins with none of space, - and +"))
                    );
                }
            }
            if *kind != b'\\' {
                old += usize::from(*kind != b'+');
                new += usize::from(*kind != b'-');
            }
            if old > old_len || new > new_len {
                return Err(self.broken(format!("{header}: more lines than the header says")));
            }
            self.at += 1;
        }
        let more =
            self.starts("+") || self.starts("-") && !["-- ", "--- ", "---\n", "--\n"].iter().any(|s| self.starts(s));
        if more {
            return Err(self.broken(format!("{header}: more lines than the header says")));
        }
        // The last line of a patch file without a line end is whole all the same.
        if let Some(HunkLine::Context(t) | HunkLine::Removed(t) | HunkLine::Added(t)) = lines.last_mut()
            && self.at == self.lines.len()
            && !self.get(self.at - 1).starts_with(b"\\")
            && !t.ends_with(b"\n")
        {
            t.push(b'\n');
        }
        Ok(Hunk { at, header, old_start, lines, number: 0, strict: false })
    }
}

/// `@@ -START[,LEN] +START[,LEN] @@`: start and length of the old side, length of the new one.
fn numbers(line: &[u8]) -> Option<(usize, usize, usize)> {
    let text = std::str::from_utf8(line.get(..line.len().min(100))?)
        .or_else(|e| std::str::from_utf8(&line[..e.valid_up_to()]))
        .ok()?;
    let (ranges, _) = text.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| match text.split_once(',') {
        Some((start, len)) => Some((start.parse().ok()?, len.parse().ok()?)),
        None => Some((text.parse().ok()?, 1)),
    };
    let (old, new): ((usize, usize), (usize, usize)) = (range(old)?, range(new)?);
    Some((old.0, old.1, new.1))
}

/// Nothing that a terminal obeys or that turns text round.
fn is_plain(name: &str) -> bool {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !name.chars().any(|c| c.is_control() || turns(c))
}

/// A name as git quotes it, behind the opening quote.
fn unquote(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    loop {
        match bytes.next()? {
            b'"' => return String::from_utf8(out).ok(),
            b'\\' => match bytes.next()? {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                a @ b'0'..=b'3' => {
                    let digit = |b: u8| (b'0'..=b'7').contains(&b).then(|| b - b'0');
                    out.push((digit(a)? << 6) | (digit(bytes.next()?)? << 3) | digit(bytes.next()?)?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
