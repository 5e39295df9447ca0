//! What an author answers for: refusals that may be accepted by name.
//!
//! Some rules cannot see what the author knows: that only the changed functions use a type, that nobody compares the address
//! of a table. Such a [`Problem`] says under which name it can be accepted ([`Problem::acceptable`]); a name under `[accept]` in
//! livepatch.toml, or `--accept KIND=NAME`, turns it into an [`Accepted`], which reports and the manifest keep. Nothing else can
//! be accepted, and a name that nothing needs is said.

use serde::{Deserialize, Serialize};

use crate::error::Problem;
pub use crate::error::{Accept, Acceptable};

/// What the author accepts: kinds and names, each `NAME` or `path/file.o:NAME`; of types with or without `struct`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptances(Vec<(Accept, String)>);

/// A problem that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Accepted {
    /// What kind of thing.
    pub kind: Accept,
    /// As the author names it.
    pub name: String,
    /// The code it would be refused with.
    pub code: String,
    /// Where, in words.
    pub place: String,
    /// What was found there.
    pub what: String,
}

impl Acceptances {
    /// Adds a name.
    pub fn add(&mut self, kind: Accept, name: impl Into<String>) {
        let entry = (kind, name.into());
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }
    /// Kinds and names in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (Accept, &str)> {
        self.0.iter().map(|(kind, name)| (*kind, name.as_str()))
    }
    /// The name under which a problem is accepted, if it is.
    fn name_for(&self, problem: &Problem) -> Option<&str> {
        let acceptable = problem.accept.as_ref()?;
        let place = &problem.place;
        // What a function gives away is answered for by its own name as well: a string has none.
        let by = place.symbol.iter().filter(|_| acceptable.kind == Accept::Promise);
        let by = by.map(|f| Acceptable { kind: acceptable.kind, name: f.clone() });
        let names: Vec<Acceptable> = std::iter::once((**acceptable).clone()).chain(by).collect();
        let means = |given: &str| names.iter().any(|a| matches(given, place.object.as_deref(), a));
        self.iter().find(|(kind, name)| *kind == acceptable.kind && means(name)).map(|(_, n)| n)
    }
    /// Takes what is accepted out of `problems`.
    pub fn settle(&self, problems: &mut Vec<Problem>) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        problems.retain(|problem| {
            let (Some(name), Some(acceptable)) = (self.name_for(problem), &problem.accept) else { return true };
            accepted.push(Accepted {
                kind: acceptable.kind,
                name: name.to_owned(),
                code: problem.code.id.to_owned(),
                place: problem.place.to_string(),
                what: problem.detail.lines().next().unwrap_or_default().to_owned(),
            });
            false
        });
        accepted
    }
    /// Names that nothing needed, as `KIND=NAME`.
    pub fn unneeded(&self, accepted: &[Accepted]) -> Vec<String> {
        let used = |kind: Accept, name: &str| accepted.iter().any(|a| a.kind == kind && a.name == name);
        self.iter().filter(|(k, n)| !used(*k, n)).map(|(k, n)| format!("{}={n}", k.name())).collect()
    }
}

fn matches(given: &str, object: Option<&str>, acceptable: &Acceptable) -> bool {
    let bare = |name: &str| -> String {
        let tagged = ["struct ", "union ", "enum "].iter().find_map(|tag| name.strip_prefix(tag));
        tagged.filter(|_| acceptable.kind == Accept::Type).unwrap_or(name).to_owned()
    };
    // One that is named with its tag is meant with its tag; the source has no other name for `state.3` and `f.isra.0`.
    let in_source = acceptable.name.split('.').next().filter(|_| acceptable.kind == Accept::Promise);
    let same = |name: &str| name == acceptable.name || name == bare(&acceptable.name) || Some(name) == in_source;
    if same(given) {
        return true;
    }
    given.split_once(':').is_some_and(|(of, name)| object == Some(of) && same(name))
}

/// `KIND=NAME` of the command line.
pub fn parse(text: &str) -> Result<(Accept, String), String> {
    let known = || Accept::ALL.map(Accept::name).join(", ");
    let (kind, name) = text.split_once('=').ok_or_else(|| format!("expected KIND=NAME, KIND one of {}", known()))?;
    let kind = Accept::named(kind).ok_or_else(|| format!("{kind:?} is none of {}", known()))?;
    if !is_name(name) {
        return Err(format!("{name:?} is no name"));
    }
    Ok((kind, name.to_owned()))
}

/// Can it be the name of something that is accepted? One line without quotes, not empty, no blanks around it.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && !name.contains(['"', '\\']) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;
    use crate::error::Place;

    fn problem(kind: Accept, name: &str) -> Problem {
        Problem::new(codes::LP2015, Place::symbol("fs/timerfd.o", "timerfd_read"), "it grew\nold\nnew")
            .acceptable(kind, name)
    }

    #[test]
    fn only_what_says_so_is_accepted_and_only_by_its_own_kind_and_name() {
        let other = Problem::new(codes::LP2002, Place::symbol("fs/timerfd.o", "ctx"), "it grew");
        for (given, accepted) in [
            ((Accept::Type, "struct ctx"), true),
            ((Accept::Type, "ctx"), true),
            ((Accept::Type, "fs/timerfd.o:ctx"), true),
            ((Accept::Type, "fs/pipe.o:ctx"), false),
            ((Accept::Type, "union ctx"), false),
            ((Accept::Constant, "ctx"), false),
            ((Accept::Type, "ct"), false),
        ] {
            let mut names = Acceptances::default();
            names.add(given.0, given.1);
            let mut problems = vec![other.clone(), problem(Accept::Type, "struct ctx")];
            let found = names.settle(&mut problems);
            assert_eq!(found.len(), usize::from(accepted), "{given:?}");
            assert_eq!(problems.len(), 2 - found.len(), "{given:?}");
            assert_eq!(problems[0], other);
            assert_eq!(names.unneeded(&found).is_empty(), accepted, "{given:?}");
            assert!(found.iter().all(|a| a.what == "it grew" && a.code == "LP2015"));
        }
        // A promise goes by the function too, and by the names of the source.
        let promise = |given: &str| {
            let mut names = Acceptances::default();
            names.add(Accept::Promise, given);
            let place = Place::symbol("fs/timerfd.o", "timerfd_arm.isra.0");
            let kept = Problem::new(codes::LP2021, place, "keeps it").acceptable(Accept::Promise, "state.3");
            names.settle(&mut vec![kept]).len()
        };
        let right = ["state.3", "state", "timerfd_arm", "timerfd_arm.isra.0", "fs/timerfd.o:state"];
        assert!(right.into_iter().all(|given| promise(given) == 1));
        assert!(["state.4", "stat", "timerfd", "fs/pipe.o:state"].into_iter().all(|given| promise(given) == 0));
        // Of a constant the whole name counts.
        let mut names = Acceptances::default();
        names.add(Accept::Constant, "ctx");
        assert!(names.settle(&mut vec![problem(Accept::Constant, "struct ctx")]).is_empty());
    }

    #[test]
    fn words_of_the_command_line_are_a_kind_and_a_name() {
        assert_eq!(parse("type=struct foo"), Ok((Accept::Type, "struct foo".into())));
        assert_eq!(parse("list=.BTF_ids"), Ok((Accept::List, ".BTF_ids".into())));
        for bad in ["foo", "types=foo", "type=", "type= foo", "type=a\nb", "=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Accept::ALL.into_iter().all(|a| Accept::named(a.name()) == Some(a)));
    }
}
