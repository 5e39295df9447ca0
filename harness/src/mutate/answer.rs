//! What lpbuild says of a pair of objects, and whether that is true.
//!
//! *Missed*: something differs and lpbuild neither replaces it nor refuses it by name. *False*: it reports something that is
//! the same. *Unsure*: only the comparison's blind spot (see `reading`) speaks against lpbuild.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lpbuild::holder::HolderName;
use lpbuild::pipeline::{self};
use lpbuild::plan::Options;
use lpbuild::plan::Source;

use super::difference::Difference;
use super::names::{normal, parent};
use super::reading::Names;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Its code.
    pub code: String,
    /// What it names.
    pub name: Option<String>,
    /// The section it names.
    pub section: Option<String>,
    /// All of it.
    pub text: String,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Functions to replace.
    pub changed: BTreeSet<String>,
    /// Constants that are carried anew.
    pub constants: BTreeSet<String>,
    /// Everything that is carried.
    pub carried: BTreeSet<String>,
    /// Refusals.
    pub refused: Vec<Refusal>,
    /// Ignored, and why.
    pub ignored: Vec<(String, String)>,
    /// It did not answer at all.
    pub broken: Option<String>,
}

/// Options of every question.
pub fn options() -> Options {
    Options { deadline_ms: Some(10_000), ..Options::named("mutant") }
}

/// A pair of objects as lpbuild takes it.
pub fn source(name: &str, old: &[u8], new: &[u8]) -> Source {
    Source {
        name: name.into(),
        old_path: name.into(),
        new_path: name.into(),
        old: old.to_vec(),
        new: new.to_vec(),
        holder: HolderName::Vmlinux,
    }
}

/// Asks lpbuild. Names are as in `names`, pieces count as their function.
pub fn ask(object: &str, old: &[u8], new: &[u8], names: Names) -> Answer {
    let sources = [source(object, old, new)];
    let analysis = match catch_unwind(AssertUnwindSafe(|| pipeline::analyse(&sources, &options()))) {
        Ok(Ok(analysis)) => analysis,
        Ok(Err(e)) => return Answer { broken: Some(e.to_string()), ..Answer::default() },
        Err(_) => return Answer { broken: Some("a panic".into()), ..Answer::default() },
    };
    let key = |name: &str| match names {
        Names::Normal => parent(&normal(name)).to_owned(),
        Names::Exact => parent(name).to_owned(),
    };
    let mut answer = Answer::default();
    for pair in &analysis.pairs {
        let name = |id| {
            let atom = pair.new.atom(id);
            // What has no name is called by its section and offset.
            let section = &pair.new.section(atom.section).name;
            if atom.name.strip_prefix(section.as_str()).is_some_and(|r| r.starts_with("+0x")) {
                format!("({section})")
            } else {
                key(&atom.name)
            }
        };
        answer.changed.extend(pair.verdicts.changed.keys().map(|n| name(n.0)));
        answer.constants.extend(pair.verdicts.changed_constants.iter().map(|n| name(n.0)));
        let ignored = pair.verdicts.ignored.iter().map(|i| (key(&i.symbol), i.reason.clone()));
        answer.ignored.extend(ignored);
    }
    for item in &analysis.set.items {
        answer.carried.insert(key(&analysis.pairs[item.pair.0 as usize].new.atom(item.atom.0).name));
    }
    answer.refused = analysis
        .refused
        .iter()
        .map(|p| Refusal {
            code: p.code.id.to_owned(),
            name: p.place.symbol.as_deref().map(key),
            section: p.place.section.clone(),
            text: p.to_string(),
        })
        .collect();
    answer
}

/// How an answer is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A difference passed in silence.
    Missed,
    /// Something that is the same is reported.
    False,
    /// The comparison is not able to tell.
    Unsure,
}

/// Everything that is wrong with an answer.
pub fn judge(truth: &Difference, answer: &Answer) -> Vec<(Fault, String)> {
    let answer = &answer.in_names_of(truth);
    if let Some(why) = &answer.broken {
        return vec![(Fault::Missed, format!("no answer: {why}"))];
    }
    let mut faults = Vec::new();
    for (name, why) in &truth.functions {
        let told = answer.changed.contains(name)
            || answer.refuses(name)
            || answer.ignores(name, "exit code of a built-in object never runs")
            // A difference of data it refers to, and that is refused, is told.
            || truth.data.keys().chain(&truth.inner).any(|d| answer.refuses(d) && truth.reaches(name, d));
        if !told {
            faults.push((Fault::Missed, format!("{name} differs ({why})")));
        }
    }
    for (name, why) in &truth.data {
        let constant = answer.constants.contains(name);
        let told = constant
            || answer.refuses(name)
            || answer.ignores(name, "read only through the printk index")
            || answer.ignores(name, "nothing refers to it") && !truth.mentions.values().any(|m| m.contains(name))
            // Or what differs is something without a name that it refers to.
            || truth.inner.iter().any(|i| answer.refuses(i) && truth.reaches(name, i));
        if !told {
            faults.push((Fault::Missed, format!("{name} differs ({why})")));
        }
    }
    for name in &answer.changed {
        let by_constant =
            truth.data.keys().chain(&truth.inner).any(|d| answer.constants.contains(d) && truth.reaches(name, d));
        if truth.functions.contains_key(name) || truth.added.contains(name) || by_constant {
            continue;
        }
        let fault = if truth.unsure.contains(name) { Fault::Unsure } else { Fault::False };
        faults.push((fault, format!("{name} is reported as changed, and is the same")));
    }
    for refusal in &answer.refused {
        if !is_due(truth, answer, refusal) {
            faults.push((Fault::False, format!("refused: {}", refusal.text)));
        }
    }
    faults
}

/// Is a refusal about something that differs, or about what a carried function needs?
fn is_due(truth: &Difference, answer: &Answer, refusal: &Refusal) -> bool {
    let section = refusal.section.as_ref().map(|s| format!("({s})"));
    let differs = |name: &str| {
        truth.functions.contains_key(name)
            || truth.data.contains_key(name)
            || truth.inner.contains(name)
            || truth.added.contains(name)
            || truth.gone.contains(name)
    };
    if truth.is_empty() {
        return false;
    }
    let Some(name) = &refusal.name else { return true };
    differs(name)
        || section.as_deref().is_some_and(differs)
        // Who uses a changed constant is replaced, and may be what cannot be.
        || truth.data.keys().chain(&truth.inner).any(|d| answer.constants.contains(d) && truth.reaches(name, d))
        || answer.carried.contains(name)
        || answer.carried.iter().any(|c| truth.mentions.get(c).is_some_and(|m| m.contains(name)))
}

impl Answer {
    /// The same, where something has several names by the one the comparison uses.
    fn in_names_of(&self, truth: &Difference) -> Self {
        let own = |n: &String| truth.own(n).to_owned();
        let mut answer = self.clone();
        answer.changed = self.changed.iter().map(own).collect();
        answer.constants = self.constants.iter().map(own).collect();
        answer.carried = self.carried.iter().map(own).collect();
        answer.ignored.iter_mut().for_each(|i| i.0 = own(&i.0));
        for r in &mut answer.refused {
            r.name = r.name.as_ref().map(own);
        }
        answer
    }

    fn refuses(&self, name: &str) -> bool {
        self.refused
            .iter()
            .any(|r| r.name.as_deref() == Some(name) || r.section.as_ref().is_some_and(|s| name == format!("({s})")))
    }

    fn ignores(&self, name: &str, reason: &str) -> bool {
        self.ignored.iter().any(|(n, why)| n == name && why.starts_with(reason))
    }
}
