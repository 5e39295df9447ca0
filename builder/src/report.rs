//! What an analysis found, as commands print it: text for people, JSON for programs.

use serde::Serialize;

use crate::accept::Accepted;
use crate::compare::Ignored;
use crate::error::Problem;
use crate::plan::Analysis;
use crate::plan::Promise;
use crate::plan::Role;
use crate::plan::Summary;
use crate::plan::manifest::Jump;
use crate::promises;

/// Changed, new and ignored functions, and what stands against the patch.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Functions that are replaced.
    pub changed: Vec<Changed>,
    /// Functions and data that come with them.
    pub new: Vec<New>,
    /// Constants that change in their place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataChange>,
    /// Differences without a meaning, and why.
    pub ignored: Vec<Ignored>,
    /// What stands against the patch.
    pub refused: Vec<Problem>,
    /// What would stand against it and the author answers for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// Names the author accepts and nothing needs, `KIND=NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unneeded: Vec<String>,
    /// What the source marks as given back and the patch gives to nobody, `object: name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marked_without_need: Vec<String>,
    /// Objects with changed functions and no debug information: types, signatures and inline functions were not compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types_not_compared: Vec<String>,
    /// Addresses of the patch that the kernel keeps, or may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<Promise>,
    /// Modules beside two kernels that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleReport>,
    /// Everything in numbers, for whole images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// The most memory this process had in use.
    pub peak_kib: PeakMemory,
    /// Microseconds each phase took.
    pub timings_us: Vec<(&'static str, u64)>,
}

/// A module that is in no patch, because one of the trees or both do not have it.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleReport {
    /// File name.
    pub module: String,
    /// The side that has it: `old`, `new`, or `neither`, where kbuild's list of its objects is all that is there.
    pub only_in: &'static str,
}

/// A replaced function.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// The object it is in.
    pub object: String,
    /// Its name.
    pub symbol: String,
    /// Why it is replaced.
    pub reason: String,
    /// Where it is in the source, `file:line`, when debug information says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Bytes.
    pub old_size: u64,
    /// Bytes.
    pub new_size: u64,
    /// Where the jump goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteRecord>,
}

/// A jump site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteRecord {
    /// Bytes from the function's entry.
    pub offset: u16,
    /// Bytes of whole instructions it covers.
    pub size: u8,
    /// Form of the jump.
    pub jump: Jump,
    /// The rule that chose it.
    pub rule: &'static str,
}

/// A constant that changes in its place.
#[derive(Clone, Debug, Serialize)]
pub struct DataChange {
    /// The object it is in.
    pub object: String,
    /// Its name.
    pub symbol: String,
    /// Bytes.
    pub size: u64,
    /// What changes, in words.
    pub changes: Vec<String>,
}

/// Something the patch adds.
#[derive(Clone, Debug, Serialize)]
pub struct New {
    /// The object it is in.
    pub object: String,
    /// Its name.
    pub symbol: String,
    /// What pulled it in.
    pub reason: String,
    /// Bytes.
    pub new_size: u64,
}

impl Report {
    /// The report of an analysis.
    pub fn of(analysis: &Analysis) -> Self {
        let mut report = Self {
            ignored: analysis.pairs.iter().flat_map(|p| p.verdicts.ignored.iter().cloned()).collect(),
            refused: analysis.refused.clone(),
            accepted: analysis.accepted.clone(),
            unneeded: analysis.unneeded.clone(),
            marked_without_need: promises::marked_without_need(&analysis.promises, &analysis.options),
            types_not_compared: analysis.untyped.clone(),
            promises: analysis.promises.clone(),
            timings_us: analysis.timings.iter().map(|(n, d)| (*n, d.as_micros() as u64)).collect(),
            summary: analysis.summary.clone(),
            peak_kib: PeakMemory,
            ..Self::default()
        };
        for (index, item) in analysis.set.items.iter().enumerate() {
            let pair = &analysis.pairs[item.pair.0 as usize];
            let atom = pair.new.atom(item.atom.0);
            let note = analysis.notes.iter().find(|n| n.item == index);
            let unit = note.and_then(|n| n.unit.as_deref()).or_else(|| pair.new.source_of(item.atom.0));
            let object = unit.unwrap_or(&pair.name).to_owned();
            let (symbol, reason) = (atom.name.clone(), item.why(&analysis.pairs));
            match item.role {
                Role::Replaces(old) => {
                    let site = analysis.detour.sites.iter().find(|(i, _)| *i == index);
                    report.changed.push(Changed {
                        object,
                        symbol,
                        reason,
                        source: note.and_then(|n| n.source.clone()),
                        old_size: pair.old.atom(old.0).size(),
                        new_size: atom.size(),
                        site: site.map(|(_, s)| SiteRecord {
                            offset: s.offset,
                            size: s.size,
                            jump: s.jump,
                            rule: s.rule.name(),
                        }),
                    });
                }
                Role::Piece => {}
                Role::InPlace(old) => report.data.push(DataChange {
                    object,
                    symbol,
                    size: atom.size(),
                    changes: crate::compare::changes_of(&pair.comparer(), old, item.atom),
                }),
                Role::NewFunction | Role::Data => {
                    report.new.push(New { object, symbol, reason, new_size: atom.size() });
                }
            }
        }
        report
    }

    /// Only refusals are known.
    pub fn refusal(problems: &[Problem]) -> Self {
        Self { refused: problems.to_vec(), ..Self::default() }
    }

    /// One line for each function; refusals are left to the caller, since they belong on stderr.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for c in &self.changed {
            let site = c.site.as_ref();
            let site =
                site.map_or(String::new(), |s| format!(", jump at +{:#x} ({} bytes, {})", s.offset, s.size, s.rule));
            let sizes = format!("{} -> {} bytes", c.old_size, c.new_size);
            let at = c.source.as_ref().map_or(String::new(), |s| format!(", {s}"));
            text += &format!("changed  {}: {}: {}; {sizes}{site}{at}\n", c.object, c.symbol, c.reason);
        }
        for d in &self.data {
            text += &format!("data     {}: {}: changes in its place, {} bytes\n", d.object, d.symbol, d.size);
            text += &d.changes.iter().map(|c| format!("         {c}\n")).collect::<String>();
        }
        for n in &self.new {
            text += &format!("new      {}: {}: {}; {} bytes\n", n.object, n.symbol, n.reason, n.new_size);
        }
        for i in &self.ignored {
            text += &format!("ignored  {}: {}: {}\n", i.object, i.symbol, i.reason);
        }
        for a in &self.accepted {
            text += &format!("accepted {}={}: {}: {} ({})\n", a.kind.name(), a.name, a.place, a.what, a.code);
        }
        for p in &self.promises {
            text += &format!("{:<8} {p}\n", if p.certain { "promise" } else { "note" });
        }
        for m in &self.modules {
            let whose = if m.only_in == "neither" {
                "it was not compared: neither tree has it, or an object of it".to_owned()
            } else {
                format!("only in the {} tree", m.only_in)
            };
            text += &format!("module   {}: {whose}\n", m.module);
        }
        if let Some(summary) = &self.summary {
            text += &summary.text();
        }
        text
    }
}

/// In KiB (`VmHWM` of /proc/self/status, proc(5)), asked for when it is written; 0 when nobody says.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakMemory;

impl Serialize for PeakMemory {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
        serializer.serialize_u64(kib.unwrap_or(0))
    }
}
