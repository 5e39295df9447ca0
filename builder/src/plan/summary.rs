//! Two whole images in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

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
