//! One mutant of an object, compiled once, and what lpbuild made of it.

use anyhow::Result;

use super::answer::{self, Fault};
use super::binary::{Expect, mutate};
use super::difference::{BTF_ID, BTF_IDS, Difference, Side, compare};
use super::random::Random;
use super::reading::{Names, Reading};

/// An object that mutants are made of.
#[derive(Debug)]
pub struct Base {
    /// Its path in the tree.
    pub name: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// Read with exact names.
    pub reading: Reading,
    exact: Side,
    normal: Side,
}

/// What became of one mutant.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was changed.
    pub what: String,
    /// What really differs, in one line.
    pub truth: String,
    /// Nothing differs in truth.
    pub is_same: bool,
    /// Everything wrong with lpbuild's answer, or with the comparison's.
    pub faults: Vec<(Fault, String)>,
    /// The mutant.
    pub bytes: Vec<u8>,
}

impl Base {
    /// Reads the object.
    pub fn of(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let reading = Reading::of(bytes.clone(), Names::Exact)?;
        let exact = Side::of(&reading);
        let normal = Side::of(&Reading::of(bytes.clone(), Names::Normal)?);
        Ok(Self { name: name.into(), bytes, reading, exact, normal })
    }

    /// What differs between this object and another build of it.
    pub fn difference(&self, new: &[u8], names: Names) -> Result<Difference> {
        let new = Side::of(&Reading::of(new.to_vec(), names)?);
        Ok(compare(if names == Names::Exact { &self.exact } else { &self.normal }, &new))
    }

    /// Makes a binary mutant and asks lpbuild about it; nothing when the object has nothing to change.
    pub fn binary(&self, random: &mut Random) -> Result<Option<Outcome>> {
        let Some(mutant) = mutate(&self.reading, random) else { return Ok(None) };
        let truth = self.difference(&mutant.bytes, mutant.names)?;
        let mut outcome = self.judged(mutant.what, mutant.bytes, &truth, mutant.names);
        let agrees = match &mutant.expect {
            Expect::Compared => true,
            Expect::Nothing => truth.is_empty(),
            Expect::Changes(name) => {
                let name = if name.starts_with(BTF_ID) { BTF_IDS } else { super::names::parent(name) };
                let is_data = truth.data.contains_key(name) || truth.added.contains(name);
                truth.functions.contains_key(name) || is_data
            }
        };
        if !agrees {
            // A fault of this comparison counts as much as one of lpbuild's.
            let what = format!("the comparison does not see what was done: {:?}", mutant.expect);
            outcome.faults.push((Fault::Missed, what));
        }
        Ok(Some(outcome))
    }

    /// Holds lpbuild's answer about another build of this object against the truth.
    pub fn judged(&self, what: String, new: Vec<u8>, truth: &Difference, names: Names) -> Outcome {
        let answer = answer::ask(&self.name, &self.bytes, &new, names);
        let faults = answer::judge(truth, &answer);
        Outcome { what, truth: truth.summary(), is_same: truth.is_empty(), faults, bytes: new }
    }
}
