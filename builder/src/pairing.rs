//! ingest .. compare: the bytes of one object in both builds become a compared pair.

use std::time::{Duration, Instant};

use crate::codes;
use crate::correlate::Files;
use crate::error::{Place, Problem, Result};
use crate::holder::HolderName;
use crate::plan::{ObjectPair, Options, Source};
use crate::symbolize::Object;
use crate::{compare, correlate, ingest};

/// ingest .. compare with the time each phase takes, and the debug information as far as it was opened.
pub(crate) fn compared<'s>(source: &'s Source, options: &Options, t: &mut Timer) -> Result<(ObjectPair, Files<'s>)> {
    let old = t.time("ingest", || ingest::read(&source.name, &source.old))?;
    let new = t.time("ingest", || ingest::read(&source.name, &source.new))?;
    let old = t.time("symbolize", || Object::new(old))?;
    let new = t.time("symbolize", || Object::new(new))?;
    let debug = Files::new(&source.old, &source.new, options.lines_kept);
    let pairs = t.time("correlate", || correlate::correlate_with(&old, &new, &debug));
    let mut verdicts = t.time("compare", || compare::compare(&old, &new, &pairs, &options.data));
    if source.holder != HolderName::Vmlinux {
        verdicts.of_module();
    }
    let (name, holder) = (source.name.clone(), source.holder.clone());
    Ok((ObjectPair { name, old, new, pairs, verdicts, holder, placement: None }, debug))
}

/// Names of constants that no compared object has, or several have, or a module.
pub(crate) fn undeclared(pairs: &[ObjectPair], options: &Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in &options.data {
        let has = |p: &&ObjectPair| p.new.atoms.iter().any(|a| compare::means_constant(name, &p.name, a));
        let found: Vec<&ObjectPair> = pairs.iter().filter(has).collect();
        let what = match found.as_slice() {
            [one] if one.holder == HolderName::Vmlinux => continue,
            [one] => format!("it is of the module {}: only constants of the kernel change in their place", one.holder),
            [] => {
                let wanted = name.rsplit(':').next().unwrap_or(name);
                let base = |a: &str| a.split('.').next() == Some(wanted);
                let like = pairs.iter().flat_map(|p| &p.new.atoms).filter(|a| !a.is_code() && base(&a.name));
                let mut like: Vec<&str> = like.map(|a| a.name.as_str()).take(4).collect();
                like.dedup();
                let hint = if like.is_empty() { String::new() } else { format!("; they have {}", like.join(", ")) };
                format!("no object that differs has data of this name{hint}")
            }
            [a, .., b] => format!("{} and {} both have one of this name: write {}:{name}", a.name, b.name, a.name),
        };
        problems.push(Problem::new(codes::LP2030, Place { symbol: Some(name.clone()), ..Place::default() }, what));
    }
    problems
}

/// Time by phase.
pub(crate) struct Timer {
    pub(crate) phases: Vec<(&'static str, Duration)>,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { phases: Vec::new() }
    }
    pub(crate) fn time<T>(&mut self, phase: &'static str, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = f();
        let spent = start.elapsed();
        match self.phases.iter_mut().find(|p| p.0 == phase) {
            Some(p) => p.1 += spent,
            None => self.phases.push((phase, spent)),
        }
        out
    }
}
