//! ingest .. compare: the bytes of one object in both builds become a compared pair.

use std::time::{Duration, Instant};

use crate::correlate::Files;
use crate::error::Result;
use crate::holder::HolderName;
use crate::plan::{ObjectPair, Source};
use crate::symbolize::Object;
use crate::{compare, correlate, ingest};

/// ingest .. compare with the time each phase takes, and the debug information as far as it was opened; `lines_kept` as in
/// [`crate::plan::Options`].
pub(crate) fn compared<'s>(source: &'s Source, lines_kept: bool, t: &mut Timer) -> Result<(ObjectPair, Files<'s>)> {
    let old = t.time("ingest", || ingest::read(&source.name, &source.old))?;
    let new = t.time("ingest", || ingest::read(&source.name, &source.new))?;
    let old = t.time("symbolize", || Object::new(old))?;
    let new = t.time("symbolize", || Object::new(new))?;
    let debug = Files::new(&source.old, &source.new, lines_kept);
    let pairs = t.time("correlate", || correlate::correlate_with(&old, &new, &debug));
    let mut verdicts = t.time("compare", || compare::compare(&old, &new, &pairs));
    if source.holder != HolderName::Vmlinux {
        verdicts.of_module();
    }
    let (name, holder) = (source.name.clone(), source.holder.clone());
    Ok((ObjectPair { name, old, new, pairs, verdicts, holder, placement: None }, debug))
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
