//! The report for reviewers: one HTML file with everything that was decided, which needs nothing else to be read.
//!
//! Input: [`ReportPage`]. Output: the text of the file; the same input gives the same bytes. There are no scripts, fonts or styles from
//! elsewhere, and the page forbids the browser to fetch any. Whatever comes from inputs (names, source lines, descriptions, output of
//! scripts) is escaped by the templates, and characters that are not seen or turn the direction of the text are written as numbers.
//!
//! ```text
//! file      path -> ()           asked before the work, written at once
//! picture   sites, causes -> SVG
//! code      listings -> HTML     both builds side by side
//! ```

mod code;
mod file;
mod picture;
mod trial;

use maud::{Markup, PreEscaped, html};

use crate::error::Problem;
use crate::explain::answer::{SubjectAnswer, kebab};
use crate::explain::code::ListingRow;
use crate::explain::{Explanation, Subject, SubjectRole};
use crate::plan::Promise;
use crate::trial::TrialReport;

pub use file::{check, clear, write};

const STYLE: &str = include_str!("style.css");
/// Bindings that are shown without being asked for.
const FEW: usize = 12;

/// How it ended, for the head of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is a patch.
    Made,
    /// Something stands against it.
    Refused,
    /// No function differs.
    Nothing,
    /// Something is broken.
    Broken,
    /// The trial passed.
    Passed,
    /// The trial failed.
    Failed,
}

/// Everything that is shown.
#[derive(Debug)]
pub struct ReportPage<'a> {
    /// Name of the patch.
    pub name: &'a str,
    /// Version of the patch.
    pub version: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// How it ended.
    pub ending: Ending,
    /// More for the head: what it is, and its value.
    pub facts: Vec<(&'static str, String)>,
    /// What was decided; nothing when it did not come to that.
    pub explanation: Option<&'a Explanation>,
    /// Code of the subjects, by their number; empty where there are no objects.
    pub listings: Vec<(usize, Vec<ListingRow>)>,
    /// What stands against it.
    pub refused: &'a [Problem],
    /// Addresses of the patch that the kernel keeps, or may.
    pub promises: &'a [Promise],
    /// The trial.
    pub trial: Option<&'a TrialReport>,
}

impl Ending {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Made => ("good", "a patch was made"),
            Self::Refused => ("bad", "refused: there is no patch"),
            Self::Nothing => ("plain", "nothing changed"),
            Self::Broken => ("bad", "broken: there is no patch"),
            Self::Passed => ("good", "trial passed"),
            Self::Failed => ("bad", "trial failed"),
        }
    }
}

impl ReportPage<'_> {
    /// The text of the file.
    pub fn html(&self) -> String {
        let (class, words) = self.ending.words();
        let page = html! {
            (PreEscaped(file::MARK))
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    // Nothing is fetched or run, whatever stands in the page.
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                    meta name="referrer" content="no-referrer";
                    title { (self.name) " " (self.version) ": " (words) }
                    style { (PreEscaped(STYLE)) }
                }
                body { main {
                    header {
                        h1 { (self.name) " " small { (self.version) } }
                        span.verdict.(class) { (words) }
                    }
                    @if !self.description.is_empty() { p { (self.description) } }
                    (self.head())
                    (self.refusals())
                    @if let Some(e) = self.explanation {
                        (self.functions(e))
                        (in_place(e))
                        (self.answers_for(e))
                        (brought(e))
                        (self.details(e))
                        (bindings(e))
                        (ignored(e))
                    }
                    @if let Some(t) = self.trial { (trial::section(t)) }
                    footer { "Written by lpbuild " (env!("CARGO_PKG_VERSION")) "." }
                } }
            }
        };
        visible(&page.into_string())
    }

    fn head(&self) -> Markup {
        let manifest = self.explanation.and_then(|e| e.manifest.as_ref());
        html! {
            dl {
                @if let Some(m) = manifest {
                    @if let Some(k) = &m.kernel {
                        dt { "Kernel" } dd { (k.release) }
                        dt { "Build id" } dd { code { (k.build_id) } }
                    } @else { dt { "Kernel" } dd { "not bound to one yet" } }
                    @for h in &m.holders {
                        dt { "Module" } dd { (h.name) " " span.dim { "build id " code { (h.build_id) } } }
                    }
                    dt { "Switch" } dd { (m.patch.mode.name()) ", gives up after " (m.patch.deadline_ms) " ms"
                        @if m.patch.oneshot { ", stays until the next boot" } }
                    @for (callback, function) in m.callbacks.all() {
                        dt { "Callback" } dd { (callback.name()) ": " code { (function) } }
                    }
                    @for s in &m.shadows {
                        dt { "Shadow variable" } dd { code { (s.name) } ", " (s.size) " bytes" }
                    }
                    @for (what, names) in [("Lies on", &m.patch.after), ("Replaces", &m.patch.replaces)] {
                        @if !names.is_empty() { dt { (what) } dd { (names.join(", ")) } }
                    }
                }
                @for (what, value) in &self.facts { dt { (what) } dd { (value) } }
            }
        }
    }

    fn refusals(&self) -> Markup {
        html! {
            @if !self.refused.is_empty() {
                h2 #against { "What stands against it" }
                @for p in self.refused {
                    div.card {
                        h3 { (p.code.id) ": " (p.code.title) }
                        @let place = p.place.to_string();
                        @if !place.is_empty() { p { code { (place) } } }
                        pre { (p.detail) }
                        p { "What to do: " (p.code.advice) "."
                            @if let Some(a) = &p.accept { " Or answer for it: " code { (a) } "." } }
                    }
                }
            }
        }
    }

    fn functions(&self, e: &Explanation) -> Markup {
        let replaced: Vec<(usize, &Subject)> =
            e.record.subjects.iter().enumerate().filter(|(_, s)| s.part == SubjectRole::Replaced).collect();
        html! {
            h2 #functions { "Replaced functions" }
            @if replaced.is_empty() { p.lead { "None." } }
            @else {
                div.wide { table.stack {
                    thead { tr { th { "Function" } th { "Object" } th { "Source" } th.n { "Bytes" } th { "Jump" } th { "What differs first" } } }
                    @for (i, s) in replaced {
                        tr {
                            td { a href=(format!("#s{i}")) { code { (s.symbol) } } }
                            td { (s.object) }
                            td data-h="source" { (s.source.as_deref().unwrap_or("–")) }
                            td.n data-h="bytes" { @if let Some(o) = s.old_size { (o) " → " } (s.new_size) }
                            td.k data-h="jump" {
                                @match e.function(s) {
                                    Some(f) => { (format!("+{:#x}", f.site.offset)) ", " (f.site.size) " bytes" }
                                    None => { "no site" }
                                }
                            }
                            td { (s.why) }
                        }
                    }
                } }
            }
        }
    }

    fn answers_for(&self, e: &Explanation) -> Markup {
        let kept = e.manifest.as_ref().map_or(&[][..], |m| &m.promises[..]);
        let told: Vec<(&str, &str, &str, bool)> = match self.promises {
            [] => kept.iter().map(|k| (k.source.as_str(), k.function.as_str(), k.what.as_str(), true)).collect(),
            some => some.iter().map(|p| (p.object.as_str(), p.function.as_str(), p.what.as_str(), p.certain)).collect(),
        };
        html! {
            @let left_out = e.manifest.as_ref().map_or(&[][..], |m| &m.left_out[..]);
            @if !e.accepted.is_empty() || !told.is_empty() || !left_out.is_empty() {
                h2 #author { "What the author answers for" }
            }
            @if !left_out.is_empty() {
                p.lead { "Parts of the source patches were left out." }
                div.wide { table.stack {
                    thead { tr { th { "File" } th { "What" } th { "Patch" } } }
                    @for l in left_out {
                        tr { td { code { (l.file) } } td { (l.what) } td data-h="patch" { (l.patch) } }
                    }
                } }
            }
            @if !e.accepted.is_empty() {
                p.lead { "These would be refused, and were accepted by name." }
                @for a in &e.accepted {
                    div.card.warn {
                        h3 { code { (a.kind.name()) "=" (a.name) } " " small { "would be refused with " (a.code) } }
                        p { code { (a.place) } }
                        p { (a.what) }
                    }
                }
            }
            @if !told.is_empty() {
                p.lead { "Addresses of the patch that leave it. What the kernel keeps must be taken back before the patch goes." }
                div.wide { table.stack {
                    thead { tr { th { "" } th { "Function" } th { "What it does" } } }
                    @for (object, function, what, certain) in told {
                        tr {
                            td.k { @if certain { span.tag.warn { "promise" } } @else { span.tag { "note" } } }
                            td { code { (function) } " " span.dim { (object) } }
                            td { (what) }
                        }
                    }
                } }
            }
        }
    }

    fn details(&self, e: &Explanation) -> Markup {
        let order = |part: SubjectRole| part != SubjectRole::Replaced;
        let mut subjects: Vec<(usize, &Subject)> = e.record.subjects.iter().enumerate().collect();
        subjects.sort_by_key(|(i, s)| (order(s.part), *i));
        let code = |part: SubjectRole| !matches!(part, SubjectRole::Data | SubjectRole::InPlace);
        html! {
            @if subjects.iter().any(|(_, s)| code(s.part)) { h2 #code { "Function by function" } }
            @for (i, s) in subjects.into_iter().filter(|(_, s)| code(s.part)) {
                section { (self.detail(e, i, s)) }
            }
        }
    }

    fn detail(&self, e: &Explanation, index: usize, s: &Subject) -> Markup {
        let a = e.about(s);
        let rows = self.listings.iter().find(|(i, _)| *i == index).map_or(&[][..], |(_, rows)| &rows[..]);
        html! {
            h3 id=(format!("s{index}")) { code { (s.symbol) } " " small { (s.object) ", " (part(s.part))
                @if let Some(source) = &s.source { ", " (source) } } }
            (facts(&a))
            @if let Some(f) = e.function(s) {
                h4 { "The jump" }
                p { (sentence(a.site.as_ref().map_or("", |s| s.how.as_str()))) "." }
                (picture::site(&f.site, rows))
            }
            @if rows.is_empty() { (code::first(&a)) } @else { h4 { "Code" } (code::listing(rows)) }
        }
    }
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn part(part: SubjectRole) -> &'static str {
    match part {
        SubjectRole::Replaced => "replaced",
        SubjectRole::Piece => "a piece of a function",
        SubjectRole::NewFunction => "a new function",
        SubjectRole::Data => "data",
        SubjectRole::InPlace => "a constant that changes in its place",
    }
}

/// Matched, changed, brought, bound.
fn facts(a: &SubjectAnswer) -> Markup {
    html! {
        dl {
            @if let Some(m) = &a.matched {
                dt { "Matched" } dd { span.tag { (kebab(&m.rule)) } " " (m.how)
                    @if let Some(old) = &m.old_symbol { "; in the old build it is " code { (old) } } }
            }
            @if let Some(first) = a.chain.first() {
                dt { @if a.chain.len() > 1 { "Why it is here" } @else { "What differs" } } dd { (first.why) }
            }
            @for link in a.chain.iter().skip(1) {
                dt { "and" } dd { code { (link.symbol) } ": " (link.why) }
            }
            @for t in &a.types { dt { "Type" } dd { (t) } }
            @if let Some(b) = &a.bound { dt { "Found in what runs" } dd { (b) } }
            @if !a.carried.is_empty() { dt { "Brings or calls" } dd { code { (a.carried.join(", ")) } } }
        }
    }
}

fn in_place(e: &Explanation) -> Markup {
    let constants: Vec<&Subject> = e.record.subjects.iter().filter(|s| s.part == SubjectRole::InPlace).collect();
    html! {
        @if !constants.is_empty() {
            h2 #constants { "Constants that change in their place" }
            p.lead { "Everybody who has the address of one reads the new content while the patch is applied." }
            @for s in constants {
                h3 { code { (s.symbol) } " " small { (s.object) ", " (s.new_size) " bytes" } }
                @if let Some(bound) = e.about(s).bound { p { (sentence(&bound)) "." } }
                pre { @for change in &s.changes { (change) "\n" } }
            }
        }
    }
}

fn brought(e: &Explanation) -> Markup {
    let more: Vec<&Subject> =
        e.record.subjects.iter().filter(|s| !matches!(s.part, SubjectRole::Replaced | SubjectRole::InPlace)).collect();
    let constants: Vec<_> = e
        .manifest
        .iter()
        .flat_map(|m| &m.carried)
        .filter(|c| ["string", "constant"].contains(&c.kind.as_str()))
        .collect();
    html! {
        @if !more.is_empty() || !constants.is_empty() {
            h2 #brought { "What comes along" }
            @if let Some(picture) = picture::brought(e) {
                p.lead { "At the left what differs or was named, to the right of each what it brought." }
                (picture)
            }
            div.wide { table.stack {
                thead { tr { th { "Symbol" } th { "What" } th { "Object" } th.n { "Bytes" } th { "Why" } } }
                @for s in more {
                    tr { td { code { (s.symbol) } } td { (part(s.part)) } td { (s.object) } td.n data-h="bytes" { (s.new_size) } td { (s.why) } }
                }
                @for c in constants {
                    tr { td { code { (c.symbol) } } td { (c.kind) } td { (c.source) } td.n data-h="bytes" { (c.size) } td { (c.why) } }
                }
            } }
        }
    }
}

fn bindings(e: &Explanation) -> Markup {
    let all = e.bindings();
    let table = html! {
        div.wide { table.stack {
            thead { tr { th { "Symbol" } th { "Where" } th { "How it was found" } th { "Used by" } } }
            @for b in &all {
                tr {
                    td { code { (b.symbol) } }
                    td { @if let Some(p) = &b.place { code { (p) } } @else { "–" } }
                    td { span.tag { (b.resolved) } " " (b.how) }
                    td data-h="used by" { @if b.by.is_empty() { span.dim { (b.object) } } @else { code { (b.by.join(", ")) } } }
                }
            }
        } }
    };
    html! {
        @if !all.is_empty() {
            h2 #symbols { "Symbols outside of the patch" }
            @if all.len() <= FEW { (table) }
            @else { details { summary { (all.len()) " symbols, and how each was found" } (table) } }
        }
    }
}

fn ignored(e: &Explanation) -> Markup {
    html! {
        @if !e.record.ignored.is_empty() {
            h2 #ignored { "Differences without a meaning" }
            div.wide { table.stack {
                thead { tr { th { "Symbol" } th { "Object" } th { "Why it does not matter" } } }
                @for i in &e.record.ignored { tr { td { code { (i.symbol) } } td { (i.object) } td { (i.reason) } } }
            } }
        }
    }
}

/// What cannot be seen, or makes text look like other text, as a number: control characters, marks of direction, invisible ones.
fn visible(page: &str) -> String {
    let hidden = |c: char| match c {
        '\n' => false,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    };
    if !page.contains(hidden) {
        return page.to_owned();
    }
    let mut out = String::with_capacity(page.len());
    for c in page.chars() {
        match c {
            '\t' => out.push_str("    "),
            c if hidden(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}
