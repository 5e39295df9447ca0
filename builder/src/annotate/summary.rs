//! What became of every function of two whole images, in numbers: by directory, and by what could be live-patched.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::closure::{ObjectPair, PatchSet, Role};
use crate::compare::parent_of;
use crate::error::Problem;
use crate::symbolize::{AtomId, AtomKind, Object};
use crate::whole::{Scanned, SpanId};

/// Numbers of functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Replaced by a patch.
    pub changed: usize,
    /// Only in the new build.
    pub new: usize,
    /// Only in the old build.
    pub gone: usize,
    /// The same at another address.
    pub moved: usize,
    /// With differences that have no meaning.
    pub ignored: usize,
}

/// Everything in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Functions of the old build.
    pub functions: usize,
    /// Functions that are the same.
    pub same: usize,
    /// Of all directories together.
    #[serde(flatten)]
    pub total: Counts,
    /// By directory, where debug information says it.
    pub directories: BTreeMap<String, Counts>,
    /// Changed functions nothing stands against.
    pub patchable: usize,
    /// Changed functions that cannot be replaced, by the first code that says so.
    pub unpatchable: BTreeMap<&'static str, usize>,
    /// What else cannot be live-patched, by code.
    pub beyond: BTreeMap<&'static str, usize>,
}

/// Counts. `directory` knows where a new function (or, for gone ones, an old one) comes from: the side and its address.
pub fn of(
    scanned: &Scanned<'_, '_>,
    pair: &ObjectPair,
    set: &PatchSet,
    refused: &[Problem],
    directory: &dyn Fn(bool, u64) -> Option<String>,
) -> Summary {
    let mut s = Summary::default();
    let count = |s: &mut Summary, is_old: bool, addr: u64, add: &dyn Fn(&mut Counts)| {
        add(&mut s.total);
        if let Some(dir) = directory(is_old, addr) {
            add(s.directories.entry(dir).or_default());
        }
    };
    let whole_function =
        |object: &Object, id: AtomId| object.atom(id).kind == AtomKind::Function && parent_of(object, id) == id;
    let replaced: BTreeSet<AtomId> =
        set.items.iter().filter(|i| matches!(i.role, Role::Replaces(_))).map(|i| i.atom.0).collect();
    let ignored: BTreeSet<&str> = pair.verdicts.ignored.iter().map(|i| i.symbol.as_str()).collect();
    for (i, span) in scanned.old.spans.iter().enumerate() {
        let id = AtomId(i as u32);
        if !whole_function(&pair.old, id) {
            continue;
        }
        s.functions += 1;
        let Some(n) = scanned.twins.new_of(SpanId(i as u32)) else {
            count(&mut s, true, span.addr, &|c| c.gone += 1);
            continue;
        };
        let new = scanned.new.span(n);
        if replaced.contains(&AtomId(n.0)) {
            count(&mut s, false, new.addr, &|c| c.changed += 1);
        } else if !pair.pairs.is_proven(crate::correlate::OldAtom(id)) && ignored.contains(scanned.new.name_of(n)) {
            count(&mut s, false, new.addr, &|c| c.ignored += 1);
        } else {
            s.same += 1;
            if new.addr != span.addr {
                count(&mut s, false, new.addr, &|c| c.moved += 1);
            }
        }
    }
    for (i, span) in scanned.new.spans.iter().enumerate() {
        if whole_function(&pair.new, AtomId(i as u32)) && scanned.twins.old_of(SpanId(i as u32)).is_none() {
            count(&mut s, false, span.addr, &|c| c.new += 1);
        }
    }
    // A refusal that names a changed function stands against that function, any other against the change as a whole.
    let names: BTreeSet<&str> = replaced.iter().map(|id| pair.new.atom(*id).name.as_str()).collect();
    let mut against: BTreeMap<&str, &'static str> = BTreeMap::new();
    for problem in refused {
        match problem.place.symbol.as_deref().filter(|n| names.contains(n)) {
            Some(name) => {
                against.entry(name).or_insert(problem.code.id);
            }
            None => *s.beyond.entry(problem.code.id).or_default() += 1,
        }
    }
    for id in &replaced {
        match against.get(pair.new.atom(*id).name.as_str()) {
            Some(code) => *s.unpatchable.entry(code).or_default() += 1,
            None => s.patchable += 1,
        }
    }
    s
}

impl Summary {
    /// A few lines, and a table of the directories.
    pub fn text(&self) -> String {
        let t = &self.total;
        let mut out = format!(
            "{} functions: {} the same ({} of them moved), {} changed, {} ignored, {} gone; {} new\n",
            self.functions, self.same, t.moved, t.changed, t.ignored, t.gone, t.new
        );
        let rows: Vec<(&String, &Counts)> =
            self.directories.iter().filter(|(_, c)| c.changed + c.new + c.gone + c.ignored > 0).collect();
        if !rows.is_empty() {
            let width = rows.iter().map(|(d, _)| d.len()).max().unwrap_or(0).max(9);
            out += &format!("{:width$}  changed  new  gone  moved  ignored\n", "directory");
            for (dir, c) in rows {
                out += &format!(
                    "{dir:width$}  {:7}  {:3}  {:4}  {:5}  {:7}\n",
                    c.changed, c.new, c.gone, c.moved, c.ignored
                );
            }
        }
        if t.changed > 0 {
            out += &format!("{} of {} changed functions could be replaced\n", self.patchable, t.changed);
        }
        for (what, codes) in [("cannot be replaced", &self.unpatchable), ("stands against the whole", &self.beyond)] {
            for (code, n) in codes {
                out += &format!("  {n:5}  {code}  {} ({what})\n", crate::codes::find(code).map_or("", |c| c.title));
            }
        }
        out
    }
}
