//! Why a patch is what it is: one model of all that was decided, for `lpbuild why`, `-v` and the report.
//!
//! Input: an analysis ([`gather`]), or what a patch folder or a module keeps of one ([`stored`]), and the manifest where there is a
//! patch. Output: [`Explanation`]; from it the answer about one symbol ([`answer`]). Nothing is decided or compared here once more:
//! rungs, differences, causes, sites and addresses are those that the phases left. Refused: a record that is damaged or of another
//! patch (LP1112).
//!
//! What the manifest says already (sites, addresses, promises, acceptances) is not in the [`Record`].

pub mod answer;
pub mod code;
pub mod gather;
pub mod stored;

use serde::{Deserialize, Serialize};

use crate::accept::Accepted;
use crate::compare::Ignored;
use crate::correlate::Level;
use crate::plan::manifest::{Function, Manifest};

pub use answer::{Answer, Standing, SubjectAnswer};
pub use stored::FILE;

/// Version of [`Record`].
pub const SCHEMA: u32 = 1;

/// What is kept beside a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// Version of this schema.
    pub schema: u32,
    /// SHA-256 of the patch.o it is about; none where there is no patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_sha256: Option<String>,
    /// What is carried, by object and place.
    pub subjects: Vec<Subject>,
    /// Types that mean something else in the new build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<TypeFact>,
    /// Differences without a meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// Functions of the compared objects that are the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same: Vec<SameIn>,
    /// There are too many of those to list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_not_listed: bool,
}

/// Functions of an object that are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SameIn {
    /// Path of the object.
    pub object: String,
    /// Their names, in order.
    pub functions: Vec<String>,
}

/// A type that means something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TypeFact {
    /// Path of the object.
    pub object: String,
    /// A carried function that uses it.
    pub function: String,
    /// Which, and how it differs.
    pub what: String,
}

/// What an item is in the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectRole {
    /// A function that is replaced.
    Replaced,
    /// A piece of a carried function.
    Piece,
    /// A function that the old build does not have.
    NewFunction,
    /// Data.
    Data,
    /// The new content of a constant that changes in its place.
    InPlace,
}

/// How it came into the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// It differs.
    Changed,
    /// It was split off a carried function.
    PieceOf,
    /// livepatch.toml names it.
    Callback,
    /// Something carried refers to it.
    ReferredTo,
    /// The author has it change in its place.
    Declared,
}

/// One carried function or data object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Subject {
    /// Path of the compared object.
    pub object: String,
    /// Name in the new build.
    pub symbol: String,
    /// What it is there.
    pub part: SubjectRole,
    /// Name in the old build, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_symbol: Option<String>,
    /// The rung of the ladder that found the old one; none when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Level>,
    /// Bytes; none when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Bytes.
    pub new_size: u64,
    /// Where it begins in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How it came into the patch.
    pub pull: Pull,
    /// The subject that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<u32>,
    /// The same in words.
    pub why: String,
    /// The first instruction that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Differs>,
    /// Of a constant that changes in its place: places, and what they hold before and after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Carried subjects that it refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<u32>,
    /// Symbols outside the patch that it refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
}

/// The first instruction that differs, on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Differs {
    /// The piece of the function it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<String>,
    /// In the old build; none where the new one goes on longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<CodeAt>,
    /// In the new build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<CodeAt>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CodeAt {
    /// Distance from the start of the function, in bytes.
    pub at: u64,
    /// AT&T syntax, with the names of what it refers to.
    pub text: String,
    /// `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// All that is known of a patch, or of why there is none.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// What is kept; of a module without one, what its manifest tells.
    pub record: Record,
    /// The patch.
    pub manifest: Option<Manifest>,
    /// Replaced functions with their sites: those of the manifest, or, where there is no patch, those that were chosen.
    pub functions: Vec<Function>,
    /// What the author answers for.
    pub accepted: Vec<Accepted>,
    /// The record was not kept: there are no rungs, instructions or chains.
    pub without_record: bool,
}

impl Explanation {
    /// Of a patch.
    pub fn of(manifest: Manifest, record: Option<Record>) -> Self {
        let without_record = record.is_none();
        let record = record.unwrap_or_else(|| gather::of_manifest(&manifest));
        let (functions, accepted) = (manifest.functions.clone(), manifest.accepted.clone());
        Self { record, functions, accepted, manifest: Some(manifest), without_record }
    }

    /// The replaced function of a subject.
    pub fn function(&self, subject: &Subject) -> Option<&Function> {
        let old = subject.old_symbol.as_ref().unwrap_or(&subject.symbol);
        let own = |f: &&Function| f.source == subject.object && f.symbol == *old;
        self.functions.iter().find(own).filter(|_| subject.part == SubjectRole::Replaced)
    }

    /// From a subject to what differs or was named: each was brought by the next one.
    pub fn chain<'e>(&'e self, subject: &'e Subject) -> Vec<&'e Subject> {
        let mut chain = vec![subject];
        let mut at = subject;
        while let Some(by) = at.by.and_then(|i| self.record.subjects.get(i as usize)) {
            // A record from a file may lead in a circle.
            if chain.iter().any(|c| std::ptr::eq(*c, by)) {
                break;
            }
            chain.push(by);
            at = by;
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(symbol: &str, pull: Pull, by: Option<u32>) -> Subject {
        Subject {
            object: "a.o".into(),
            symbol: symbol.into(),
            part: SubjectRole::NewFunction,
            old_symbol: None,
            matched: None,
            old_size: None,
            new_size: 1,
            source: None,
            pull,
            by,
            why: format!("why {symbol}"),
            difference: None,
            changes: Vec::new(),
            carried: Vec::new(),
            outside: Vec::new(),
        }
    }

    fn explained(subjects: Vec<Subject>) -> Explanation {
        Explanation { record: Record { subjects, ..Record::default() }, ..Explanation::default() }
    }

    #[test]
    fn a_chain_ends_at_what_differs_and_a_circle_ends_as_well() {
        let names = |e: &Explanation, i: usize| -> Vec<String> {
            e.chain(&e.record.subjects[i]).iter().map(|s| s.symbol.clone()).collect()
        };
        let e = explained(vec![
            subject("root", Pull::Changed, None),
            subject("middle", Pull::ReferredTo, Some(0)),
            subject("leaf", Pull::ReferredTo, Some(1)),
        ]);
        assert_eq!(names(&e, 2), ["leaf", "middle", "root"]);
        let e = explained(vec![
            subject("a", Pull::ReferredTo, Some(1)),
            subject("b", Pull::ReferredTo, Some(0)),
            subject("c", Pull::ReferredTo, Some(9)),
        ]);
        assert_eq!(names(&e, 0), ["a", "b"]);
        assert_eq!(names(&e, 2), ["c"]);
    }

    #[test]
    fn a_name_of_an_object_asks_for_that_one_and_near_names_are_few() {
        let many = (0..20).map(|i| subject(&format!("timer_{i:02}"), Pull::Changed, None)).collect();
        let mut e = explained(many);
        assert_eq!(e.answer("a.o:timer_03").known, Standing::InPatch);
        assert_eq!(e.answer("b.o:timer_03").known, Standing::No);
        let near = e.answer("timer_3").near;
        assert!(near.len() == 5 && near.contains(&"timer_03".to_owned()), "{near:?}");
        e.record.same.push(SameIn { object: "a.o".into(), functions: vec!["idle".into()] });
        assert_eq!(e.answer("idle").known, Standing::Same);
        assert!(e.answer("zzz").near.is_empty());
    }

    #[test]
    fn a_record_is_the_same_when_it_is_read_again() {
        let e = explained(vec![subject("a", Pull::Callback, None)]);
        let text = serde_json::to_string(&e.record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), e.record);
        assert!(!text.contains("null"), "{text}");
    }
}
