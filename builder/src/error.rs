//! The one error type of the library: *broken* (exit 1) or *refused* (exit 4), always with a code, a place and a way out.
//!
//! Broken: malformed input, I/O, a bug. Refused: the input is understood, but it cannot be live-patched safely.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::{self, Code};

/// Where a problem is. Every part that is known is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Object file, module or kernel image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Section name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Symbol name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Offset in bytes from the symbol, or from the section when no symbol is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl Place {
    /// Only the object is known.
    pub fn object(object: impl Into<String>) -> Self {
        Self { object: Some(object.into()), ..Self::default() }
    }
    /// A symbol of an object.
    pub fn symbol(object: impl Into<String>, symbol: impl Into<String>) -> Self {
        Self { object: Some(object.into()), symbol: Some(symbol.into()), ..Self::default() }
    }
    /// The same place with a section.
    pub fn in_section(mut self, section: impl Into<String>) -> Self {
        self.section = Some(section.into());
        self
    }
    /// The same place with an offset in bytes.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for part in [&self.object, &self.section, &self.symbol].into_iter().flatten() {
            write!(f, "{sep}{part}")?;
            sep = ": ";
        }
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        Ok(())
    }
}

/// One problem: a code of the table in [`codes`], a place and what was found there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Entry of the code table: its class decides the exit code.
    pub code: &'static Code,
    /// Where.
    pub place: Place,
    /// What was found, in one sentence without a full stop. Lines after the first (of a text file, of a tool's output) are
    /// shown below the message.
    pub detail: String,
    /// The name under which the author may accept it, for the few that can be.
    pub accept: Option<Box<Acceptable>>,
}

impl Problem {
    /// A problem with a code of the table.
    pub fn new(code: &'static Code, place: Place, detail: impl Into<String>) -> Self {
        Self { code, place, detail: detail.into(), accept: None }
    }
    /// The same problem, which the author may accept by this name ([`crate::accept`]).
    #[must_use]
    pub fn acceptable(mut self, kind: Accept, name: impl Into<String>) -> Self {
        self.accept = Some(Box::new(Acceptable { kind, name: name.into() }));
        self
    }
    /// The same problem with lines to show below it.
    #[must_use]
    pub fn with_lines(mut self, lines: &str) -> Self {
        self.detail.push('\n');
        self.detail.push_str(lines);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code.id)?;
        let place = self.place.to_string();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        let (sentence, lines) = self.detail.split_once('\n').unwrap_or((&self.detail, ""));
        write!(f, "{sentence} [{}]; {}", self.code.title, self.code.advice)?;
        if let Some(accept) = self.accept.as_deref() {
            write!(f, "; or answer for it: {accept}")?;
        }
        if !lines.is_empty() {
            write!(f, "\n{}", lines.trim_end_matches('\n'))?;
        }
        Ok(())
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            code: &'a str,
            #[serde(flatten)]
            place: &'a Place,
            reason: &'a str,
            detail: &'a str,
            advice: &'a str,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            accept: Option<String>,
        }
        Flat {
            code: self.code.id,
            place: &self.place,
            reason: self.code.title,
            detail: &self.detail,
            advice: self.code.advice,
            message: self.to_string(),
            accept: self.accept.as_ref().map(|a| format!("{}={}", a.kind.name(), a.name)),
        }
        .serialize(s)
    }
}

/// One or more problems that ended an operation.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// Never empty; in the order they were found.
    pub problems: Vec<Problem>,
}

impl Error {
    /// One problem.
    pub fn new(code: &'static Code, place: Place, detail: impl Into<String>) -> Self {
        Self { problems: vec![Problem::new(code, place, detail)] }
    }
    /// A file that could not be read or written: LP1001, or a code that says what stands in the way.
    pub fn io(path: &std::path::Path, e: &std::io::Error) -> Self {
        Self::io_at(Place::object(path.display().to_string()), e)
    }
    /// The same for what has no path.
    pub fn io_at(place: Place, e: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let code = match e.kind() {
            Kind::NotFound => codes::LP1004,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => codes::LP1005,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => codes::LP1006,
            Kind::IsADirectory | Kind::NotADirectory => codes::LP1007,
            _ => codes::LP1001,
        };
        Self::new(code, place, e.to_string())
    }
    /// Is nothing broken, only refused?
    pub fn is_refusal(&self) -> bool {
        self.exit_code() != 1
    }
    /// The process exit code: 1 when anything is broken, else 4.
    pub fn exit_code(&self) -> u8 {
        if self.problems.iter().any(|p| p.code.class == codes::Severity::Broken) { 1 } else { 4 }
    }
}

impl From<Problem> for Error {
    fn from(p: Problem) -> Self {
        Self { problems: vec![p] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{p}")?;
        }
        Ok(())
    }
}

/// Result of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The problems as an error, if there are any.
pub fn refuse(problems: Vec<Problem>) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
}

/// Kinds of what can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// A type whose layout or meaning differs: only the changed functions use it, or none of its objects exist.
    Type,
    /// A constant that is carried as a copy: nobody stores or compares its address.
    Constant,
    /// A section of entries that is read by its name: what differs has no effect, and need have none.
    List,
    /// A function with another signature: whoever calls it unpatched does so rightly.
    Signature,
    /// An inline function that changed for only some of its users.
    Inline,
    /// An address of the patch that the kernel keeps: the author takes it back before the patch goes.
    Promise,
    /// A name that other objects know and that moved to another function: they go on as they are.
    Name,
    /// A static variable of which it cannot be told which old one it is, or that stands in another kind of section: the patch
    /// begins with one of its own (or, of whole images, uses the one it was taken for). Or one that is read-only after boot in the kernel alone: nobody writes to it.
    State,
    /// A file that also belongs to code the kernel does not execute as its own, which keeps its old version.
    Outside,
}

impl Accept {
    /// Every kind.
    pub const ALL: [Accept; 9] = [
        Self::Type,
        Self::Constant,
        Self::List,
        Self::Signature,
        Self::Inline,
        Self::Promise,
        Self::Name,
        Self::State,
        Self::Outside,
    ];

    /// As `--accept` and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Constant => "constant",
            Self::List => "list",
            Self::Signature => "signature",
            Self::Inline => "inline",
            Self::Promise => "promise",
            Self::Name => "name",
            Self::State => "state",
            Self::Outside => "outside",
        }
    }
    /// The key in `[accept]` of livepatch.toml.
    pub fn key(self) -> &'static str {
        match self {
            Self::Type => "types",
            Self::Constant => "constants",
            Self::List => "lists",
            Self::Signature => "signatures",
            Self::Inline => "inlines",
            Self::Promise => "promises",
            Self::Name => "names",
            Self::State => "states",
            Self::Outside => "outside",
        }
    }
    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// Under which name a problem can be accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acceptable {
    /// What kind of thing.
    pub kind: Accept,
    /// Its name, for types with `struct`, `union` or `enum`.
    pub name: String,
}

impl fmt::Display for Acceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name } = self;
        write!(f, "--accept '{}={name}', or {} = [{name:?}] under [accept]", kind.name(), kind.key())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error as Io, ErrorKind};

    use super::*;

    #[test]
    fn what_stands_in_the_way_of_a_file_has_a_code() {
        for (kind, code) in [
            (ErrorKind::NotFound, "LP1004"),
            (ErrorKind::PermissionDenied, "LP1005"),
            (ErrorKind::ReadOnlyFilesystem, "LP1005"),
            (ErrorKind::StorageFull, "LP1006"),
            (ErrorKind::QuotaExceeded, "LP1006"),
            (ErrorKind::IsADirectory, "LP1007"),
            (ErrorKind::NotADirectory, "LP1007"),
            (ErrorKind::UnexpectedEof, "LP1001"),
        ] {
            let e = Error::io("/a/b".as_ref(), &Io::from(kind));
            assert_eq!((e.problems[0].code.id, e.exit_code()), (code, 1), "{kind}");
            assert_eq!(e.problems[0].place, Place::object("/a/b"));
        }
    }
}
