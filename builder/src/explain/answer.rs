//! [`Explanation`] x symbol -> [`Answer`]: how it was matched, where it differs, what brought it, how it is bound, which rule chose
//! its site; or that it is the same, or that nobody knows it, and which names are near.

use std::fmt::Write;

use serde::Serialize;

use super::{Differs, Explanation, Pull, Subject, SubjectRole};
use crate::correlate::Level;
use crate::holder::VMLINUX;
use crate::isa::{Decoder, DecoderOptions};
use crate::plan::manifest::{BoundSymbol, Function, HolderSection, Manifest, Site};

/// Near names that are shown.
const NEAR: usize = 5;

/// What is known of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The patch replaces or carries it.
    InPatch,
    /// It stays in the kernel, and the patch refers to it.
    ReferredTo,
    /// It differs in something that has no meaning.
    Ignored,
    /// Both builds have the same.
    Same,
    /// Nothing here has this name.
    No,
}

/// Everything about one symbol.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// As it was asked for.
    pub symbol: String,
    /// In a word.
    pub known: Standing,
    /// Carried functions and data of this name.
    pub subjects: Vec<SubjectAnswer>,
    /// What the patch refers to under this name.
    pub bound: Vec<Binding>,
    /// Objects in which it is the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub same_in: Vec<String>,
    /// Differences that have no meaning: the object, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<crate::compare::Ignored>,
    /// Near names, where nothing has this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
    /// Which functions are the same was not kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub same_not_listed: bool,
}

/// One carried function or data object.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectAnswer {
    /// Path of the compared object.
    pub object: String,
    /// Its name.
    pub symbol: String,
    /// What it is in the patch.
    pub part: SubjectRole,
    /// How the old one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
    /// Where it begins in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Bytes.
    pub new_size: u64,
    /// The first instruction that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Differs>,
    /// Of a constant that changes in its place: what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Types that mean something else and that it uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// The same of other functions of its object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types_nearby: Vec<String>,
    /// What brought it, from itself to what differs.
    pub chain: Vec<Link>,
    /// How the old code was found in what runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
    /// The jump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteAnswer>,
    /// Carried things that it refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<String>,
    /// Symbols outside that it refers to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
}

/// How a pair was found.
#[derive(Clone, Debug, Serialize)]
pub struct Matched {
    /// The rung of the ladder.
    pub rule: Level,
    /// In words.
    pub how: &'static str,
    /// The old name, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_symbol: Option<String>,
}

/// A link of the chain.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The symbol.
    pub symbol: String,
    /// How it came in.
    pub pull: Pull,
    /// In words.
    pub why: String,
}

/// A symbol outside of the patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// Its name.
    pub symbol: String,
    /// Path of the compared object that refers to it.
    pub object: String,
    /// As in the manifest: `run-pre`, `section`, `kallsyms`, `percpu`, `symbolic`.
    pub resolved: String,
    /// In words.
    pub how: &'static str,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Who of the patch refers to it.
    pub by: Vec<String>,
}

/// Where the jump goes, and why there.
#[derive(Clone, Debug, Serialize)]
pub struct SiteAnswer {
    /// Bytes from the start of the function.
    pub offset: u16,
    /// Bytes of whole instructions.
    pub size: u8,
    /// Bytes that the jump itself takes.
    pub jump: usize,
    /// As in the manifest.
    pub rule: String,
    /// In words.
    pub how: String,
    /// The covered instructions.
    pub instructions: Vec<String>,
}

/// The rung of the ladder in words.
pub fn rung(level: Level) -> &'static str {
    match level {
        Level::Name => "both builds have it under one of its own names",
        Level::BaseName => "the same name but for the compiler's number, once in each build",
        Level::CloneName => "one of several clones: the same full name",
        Level::Declared => "declared at the same place, says the debug information",
        Level::Reference => "referred to at the same place of an unchanged neighbourhood",
        Level::Content => "the same bytes and references, unique in both builds",
        Level::Order => "as many in both builds, of the same sizes, in the same order",
    }
}

/// A way of finding an address in words.
pub fn resolved(how: &str) -> &'static str {
    match how {
        "run-pre" => "read back from a field of code that matches what runs",
        "section" => "its section was placed by matching code with what runs",
        "kallsyms" => "by its name, which the image has once",
        "percpu" => "its offset in the per-CPU area, which does not move",
        "symbolic" => "by name; the patch is not bound to a kernel yet",
        _ => "in a way this lpbuild does not know",
    }
}

/// The rule of a site in words.
pub fn site_rule(rule: &str) -> &'static str {
    match rule {
        "after-fentry" => "behind the fentry nop, so that tracers keep their place",
        "entry" => "at the entry: the function has no fentry nop",
        "over-fentry" => {
            "over the fentry nop: behind it there is no room, and tracers cannot use the function meanwhile"
        }
        _ => "by a rule this lpbuild does not know",
    }
}

/// How the runtime finds a section of a module.
fn section_found(s: &HolderSection) -> String {
    match (s.found.as_str(), &s.symbol, &s.field) {
        ("symbol", Some(symbol), _) => {
            let (name, at, of) = (&symbol.name, symbol.position + 1, symbol.count);
            format!("the section by the module's symbol table: {name}, number {at} of {of} of this name")
        }
        ("field", _, Some(field)) => format!("the section by a field of {} at {:#x}", field.section, field.offset),
        ("module", ..) => "it is the module's own structure".to_owned(),
        ("percpu", ..) => "the module's per-CPU area".to_owned(),
        (other, ..) => format!("the section by {other:?}"),
    }
}

fn place(m: &Manifest, object: &str, anchor: Option<i64>, section: Option<(&str, u64)>) -> Option<String> {
    if let Some((section, offset)) = section {
        let holder = m.holders.iter().find(|h| h.name == object);
        let found = holder.and_then(|h| h.sections.iter().find(|s| s.name == section)).map(section_found);
        let found = found.map_or(String::new(), |f| format!("; {f}"));
        return Some(format!("{section}+{offset:#x} of {object}{found}"));
    }
    let (kernel, offset) = (m.kernel.as_ref()?, anchor?);
    let sign = if offset < 0 { '-' } else { '+' };
    Some(format!("{}{sign}{:#x}", kernel.anchor, offset.unsigned_abs()))
}

impl Explanation {
    /// Everything about a symbol. One name of the form `object:symbol` asks for that object alone.
    pub fn answer(&self, asked: &str) -> Answer {
        let (object, symbol) = match asked.rsplit_once(':') {
            Some((object, symbol)) => (Some(object), symbol),
            None => (None, asked),
        };
        let here = |o: &str| object.is_none_or(|wanted| wanted == o);
        let named = |s: &&Subject| here(&s.object) && (s.symbol == symbol || s.old_symbol.as_deref() == Some(symbol));
        let subjects: Vec<SubjectAnswer> = self.record.subjects.iter().filter(named).map(|s| self.about(s)).collect();
        let bound: Vec<Binding> =
            self.bindings().into_iter().filter(|b| b.symbol == symbol && here(&b.object)).collect();
        let same = self.record.same.iter().filter(|s| here(&s.object));
        let same_in: Vec<String> =
            same.filter(|s| s.functions.iter().any(|f| f == symbol)).map(|s| s.object.clone()).collect();
        let ignored: Vec<_> =
            self.record.ignored.iter().filter(|i| i.symbol == symbol && here(&i.object)).cloned().collect();
        let known = match () {
            () if !subjects.is_empty() => Standing::InPatch,
            () if !ignored.is_empty() => Standing::Ignored,
            () if !bound.is_empty() => Standing::ReferredTo,
            () if !same_in.is_empty() => Standing::Same,
            () => Standing::No,
        };
        let near = if known == Standing::No { self.near(symbol) } else { Vec::new() };
        let same_not_listed = self.record.same_not_listed;
        Answer { symbol: asked.to_owned(), known, subjects, bound, same_in, ignored, near, same_not_listed }
    }

    fn near(&self, symbol: &str) -> Vec<String> {
        let record = &self.record;
        let mut names: Vec<&str> = record.subjects.iter().map(|s| s.symbol.as_str()).collect();
        names.extend(record.same.iter().flat_map(|s| s.functions.iter().map(String::as_str)));
        names.extend(record.ignored.iter().map(|i| i.symbol.as_str()));
        names.extend(self.manifest.iter().flat_map(|m| m.symbols.iter().map(|s| s.symbol.as_str())));
        let score = |name: &str| strsim::jaro_winkler(name, symbol);
        let mut near: Vec<(f64, &str)> =
            names.into_iter().map(|n| (score(n), n)).filter(|(s, n)| *s > 0.8 || n.contains(symbol)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        near.dedup();
        near.into_iter().take(NEAR).map(|(_, n)| n.to_owned()).collect()
    }

    /// Everything about everything that is carried: what is replaced first.
    pub fn everything(&self) -> Vec<SubjectAnswer> {
        let first = |s: &&Subject| matches!(s.part, SubjectRole::Replaced | SubjectRole::InPlace);
        let (replaced, brought): (Vec<&Subject>, Vec<&Subject>) = self.record.subjects.iter().partition(first);
        replaced.into_iter().chain(brought).map(|s| self.about(s)).collect()
    }

    /// The same for people.
    pub fn text(&self) -> String {
        self.everything().iter().map(|s| s.text() + "\n").collect()
    }

    /// Everything about a subject.
    pub fn about(&self, s: &Subject) -> SubjectAnswer {
        let chain = self.chain(s);
        let link = |s: &&Subject| Link { symbol: s.symbol.clone(), pull: s.pull, why: s.why.clone() };
        let types = |own: bool| {
            let all = self.record.types.iter().filter(|t| t.object == s.object);
            let found = all.filter(|t| (t.function == s.symbol) == own).map(|t| t.what.clone());
            found.collect::<Vec<String>>()
        };
        let function = self.function(s);
        let code = s.part == SubjectRole::Replaced;
        let name = |i: &u32| Some(self.record.subjects.get(*i as usize)?.symbol.clone());
        SubjectAnswer {
            object: s.object.clone(),
            symbol: s.symbol.clone(),
            part: s.part,
            matched: s.matched.map(|rule| Matched { rule, how: rung(rule), old_symbol: s.old_symbol.clone() }),
            source: s.source.clone(),
            old_size: s.old_size,
            new_size: s.new_size,
            difference: s.difference.clone(),
            changes: s.changes.clone(),
            types: types(true),
            types_nearby: if code { types(false) } else { Vec::new() },
            chain: chain.iter().map(link).collect(),
            bound: match (function, &self.manifest) {
                (Some(f), Some(m)) => Some(bound_function(f, m)),
                (None, Some(m)) if s.part == SubjectRole::InPlace => bound_constant(s, m),
                _ => None,
            },
            site: function.map(|f| site(&f.site)),
            carried: s.carried.iter().filter_map(name).collect(),
            outside: s.outside.clone(),
        }
    }

    /// Every symbol outside of the patch, how its address was found, and who refers to it.
    pub fn bindings(&self) -> Vec<Binding> {
        let Some(m) = &self.manifest else { return Vec::new() };
        let binding = |s: &BoundSymbol| {
            let users = self.record.subjects.iter().filter(|u| u.object == s.source && u.outside.contains(&s.symbol));
            let object = s.object.as_deref().unwrap_or_default();
            let section = s.section.as_deref().zip(s.section_offset);
            Binding {
                symbol: s.symbol.clone(),
                object: s.source.clone(),
                resolved: s.resolved.clone(),
                how: resolved(&s.resolved),
                place: match s.resolved.as_str() {
                    "percpu" => s.anchor_offset.map(|o| format!("{o:#x}")),
                    _ => place(m, object, s.anchor_offset, section),
                },
                by: users.map(|u| u.symbol.clone()).collect(),
            }
        };
        m.symbols.iter().map(binding).collect()
    }
}

fn bound_function(f: &Function, m: &Manifest) -> String {
    let section = f.section.as_deref().zip(f.section_offset);
    let Some(place) = place(m, &f.object, f.anchor_offset, section) else {
        return "by name; the patch is not bound to a kernel yet".to_owned();
    };
    let number = match f.sympos {
        Some(0) => "; its name is there once".to_owned(),
        Some(n) => format!("; number {n} of its name"),
        None => String::new(),
    };
    format!("its code, relocated fields masked and then proven, is what {} has at {place}{number}", f.object)
}

fn bound_constant(s: &Subject, m: &Manifest) -> Option<String> {
    let old = s.old_symbol.as_ref().unwrap_or(&s.symbol);
    let constant = m.data.iter().find(|d| d.source == s.object && d.symbol == *old)?;
    let place = place(m, VMLINUX, constant.anchor_offset, None)?;
    Some(format!("it is at {place}, with the content of the old build"))
}

fn site(s: &Site) -> SiteAnswer {
    let jump = s.jump.len();
    let rest = usize::from(s.size).saturating_sub(jump);
    let how = match rest {
        0 => format!("{}; the jump takes all {jump} bytes", site_rule(&s.rule)),
        n => format!("{}; the jump takes {jump} bytes, and {n} more end the last instruction", site_rule(&s.rule)),
    };
    SiteAnswer { offset: s.offset, size: s.size, jump, rule: s.rule.clone(), how, instructions: s.instructions.clone() }
}

/// Lengths of the instructions of a site, in order.
pub fn borders(s: &Site) -> Vec<usize> {
    let bytes = s.original_bytes().unwrap_or_default();
    let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
    let mut out = Vec::new();
    while decoder.can_decode() {
        out.push(decoder.decode().len());
    }
    out
}

impl Answer {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for s in &self.subjects {
            out += &s.text();
        }
        for i in &self.ignored {
            let _ =
                writeln!(out, "{} ({}): not in the patch; it differs, and that does not matter", i.symbol, i.object);
            let _ = writeln!(out, "  because   {}", i.reason);
        }
        for b in &self.bound {
            let _ = writeln!(out, "{} ({}): stays in the kernel; the patch refers to it", b.symbol, b.object);
            let place = b.place.as_ref().map_or(String::new(), |p| format!(" ({p})"));
            let _ = writeln!(out, "  bound     {}: {}{place}", b.resolved, b.how);
            if !b.by.is_empty() {
                let _ = writeln!(out, "  used by   {}", b.by.join(", "));
            }
        }
        if self.known == Standing::Same {
            for object in &self.same_in {
                let _ = writeln!(out, "{} ({object}): not in the patch; it is the same in both builds", self.symbol);
            }
        }
        out
    }
}

impl SubjectAnswer {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |head: &str, text: &str| {
            let _ = writeln!(out, "  {head:<9} {text}");
        };
        if let Some(m) = &self.matched {
            let old = m.old_symbol.as_ref().map_or(String::new(), |o| format!(", where it is {o}"));
            line("matched", &format!("{}: {}{old}", kebab(&m.rule), m.how));
        }
        if self.chain.len() > 1 {
            let words: Vec<String> = self.chain.iter().map(Link::text).collect();
            line("because", &words.join(", "));
        } else if let Some(first) = self.chain.first() {
            line(if first.pull == Pull::Changed { "changed" } else { "because" }, &first.why);
        }
        if let Some(d) = &self.difference {
            let of = d.piece.as_ref().map_or(String::new(), |p| format!("{p} "));
            for (side, code) in [("old", &d.old), ("new", &d.new)] {
                match code {
                    Some(c) => {
                        let at = c.line.as_ref().map_or(String::new(), |l| format!("    {l}"));
                        line(side, &format!("{of}+{:#x}  {}{at}", c.at, c.text));
                    }
                    None => line(side, "has nothing there"),
                }
            }
        }
        self.changes.iter().for_each(|c| line("content", c));
        self.types.iter().for_each(|t| line("type", t));
        if !self.types_nearby.is_empty() {
            let names: Vec<&str> = self.types_nearby.iter().map(|t| t.split(": ").next().unwrap_or(t)).collect();
            line("nearby", &format!("other functions of the object use types that changed: {}", names.join(", ")));
        }
        if let Some(bound) = &self.bound {
            line("bound", bound);
        }
        if let Some(s) = &self.site {
            line("site", &format!("+{:#x}, {} bytes, {}: {}", s.offset, s.size, s.rule, s.how));
            line("covers", &s.instructions.join("; "));
        }
        if !self.carried.is_empty() {
            line("with", &self.carried.join(", "));
        }
        if !self.outside.is_empty() {
            line("refers to", &self.outside.join(", "));
        }
        let what = match self.part {
            SubjectRole::Replaced => "replaced",
            SubjectRole::Piece => "carried, a piece of a function",
            SubjectRole::NewFunction => "carried, a new function",
            SubjectRole::Data => "carried, data",
            SubjectRole::InPlace => "changed in its place",
        };
        let sizes = self.old_size.map_or(String::new(), |o| format!("{o} -> "));
        let at = self.source.as_ref().map_or(String::new(), |s| format!(", {s}"));
        format!("{} ({}): {what}, {sizes}{} bytes{at}\n{out}", self.symbol, self.object, self.new_size)
    }
}

impl Link {
    fn text(&self) -> String {
        match self.pull {
            Pull::Changed => format!("and {} differs ({})", self.symbol, self.why),
            Pull::Callback => format!("and {} is the {}", self.symbol, self.why),
            Pull::Declared => format!("and of {} {}", self.symbol, self.why),
            Pull::PieceOf | Pull::ReferredTo => self.why.clone(),
        }
    }
}

/// As JSON names it.
pub fn kebab(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
