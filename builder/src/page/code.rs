//! Both builds of a function side by side: what differs is marked, long stretches that are the same are folded.

use maud::{Markup, html};

use crate::explain::SubjectAnswer;
use crate::explain::code::{ListedCode, ListingRow};

/// Instructions that stay visible before and behind a difference.
const AROUND: usize = 6;
/// Fewer are not worth folding.
const FOLDED: usize = 4;
/// Instructions that are the same and are shown when unfolded, in one stretch.
const UNFOLDED: usize = 4_000;

/// The listing of a function. One that is new has one side.
pub fn listing(rows: &[ListingRow]) -> Markup {
    let one = rows.iter().all(|r| r.old.is_none()) || rows.iter().all(|r| r.new.is_none());
    let shown = |i: usize| {
        let (from, to) = (i.saturating_sub(AROUND), (i + AROUND + 1).min(rows.len()));
        one || rows[from..to].iter().any(|r| !r.same)
    };
    let (mut parts, mut at): (Vec<(bool, std::ops::Range<usize>)>, usize) = (Vec::new(), 0);
    while at < rows.len() {
        let open = shown(at);
        let end = (at..rows.len()).find(|i| shown(*i) != open).unwrap_or(rows.len());
        // A few are shown as well as they are folded.
        let open = open || rows.len() > AROUND && end - at < FOLDED;
        match parts.last_mut() {
            Some((true, last)) if open => last.end = end,
            _ => parts.push((open, at..end)),
        }
        at = end;
    }
    let differs = rows.iter().any(|r| !r.same);
    html! {
        @if !differs { p.dim { "The instructions are the same in both builds." } }
        div.code.one[one] {
            @if !one { div.r.head { div.c { i { "" } b { "old" } } div.c { i { "" } b { "new" } } } }
            @for (open, range) in parts {
                @if open { (plain(rows, range, one)) }
                @else {
                    details {
                        summary { (range.len()) " instructions are the same" }
                        @let end = range.end.min(range.start + UNFOLDED);
                        (plain(rows, range.start..end, one))
                        @if end < range.end { div.r { div.c { i { "" } b { "… " (range.end - end) " more" } } } }
                    }
                }
            }
        }
    }
}

fn plain(rows: &[ListingRow], range: std::ops::Range<usize>, one: bool) -> Markup {
    // A line is named where it begins.
    let line = |i: usize, side: &dyn Fn(&ListingRow) -> Option<&ListedCode>| -> Option<String> {
        let own = side(&rows[i])?.line.clone()?;
        let before = rows[range.start..i].iter().rev().find_map(side).and_then(|c| c.line.clone());
        (before.as_ref() != Some(&own)).then_some(own)
    };
    html! {
        @for i in range.clone() {
            @let row = &rows[i];
            div.r.same[row.same].d[!row.same && !one] {
                @if !one || row.old.is_some() { (cell(row.old.as_ref(), "o", line(i, &|r| r.old.as_ref()))) }
                @if !one || row.new.is_some() { (cell(row.new.as_ref(), "e", line(i, &|r| r.new.as_ref()))) }
            }
        }
    }
}

fn cell(code: Option<&ListedCode>, class: &str, line: Option<String>) -> Markup {
    html! {
        @match code {
            Some(c) => div.c.(class) { i { (format!("+{:#x}", c.at)) } b { (c.text) } @if let Some(l) = line { u { (l) } } },
            None => div.c.x {},
        }
    }
}

/// Without a listing: the first instruction that differs.
pub fn first(a: &SubjectAnswer) -> Markup {
    html! {
        @if let Some(d) = &a.difference {
            h4 { "First difference" @if let Some(p) = &d.piece { " (" (p) ")" } }
            div.code { div.r.d {
                @for (class, side) in [("o", &d.old), ("e", &d.new)] {
                    @match side {
                        Some(c) => div.c.(class) { i { (format!("+{:#x}", c.at)) } b { (c.text) } @if let Some(l) = &c.line { u { (l) } } },
                        None => div.c.x {},
                    }
                }
            } }
        }
    }
}
