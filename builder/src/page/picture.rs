//! Two drawings: the site of a jump on its bytes, and what brought what into the patch.
//!
//! Input: the explanation. Output: SVG inside the page; colours are those of the style sheet.

use maud::{Markup, html};

use crate::explain::answer::borders;
use crate::explain::code::ListingRow;
use crate::explain::{Explanation, Pull, Subject};
use crate::plan::manifest::{Jump, Site};

/// Width and height of a byte.
const W: usize = 30;
const H: usize = 26;
/// Boxes that are drawn; more is a table only.
const BOXES: usize = 80;
/// Letters in a box.
const LETTERS: usize = 26;

/// An instruction on the drawing.
struct Block {
    at: usize,
    bytes: Vec<u8>,
    text: String,
}

/// The first bytes of a function, and which of them the jump takes.
pub fn site(site: &Site, listing: &[ListingRow]) -> Markup {
    let bytes = site.original_bytes().unwrap_or_default();
    let (from, to) = (usize::from(site.offset), usize::from(site.offset) + bytes.len());
    let old = |keep: &dyn Fn(usize) -> bool| -> Vec<Block> {
        let rows = listing.iter().filter_map(|r| r.old.as_ref()).filter(|i| keep(i.at as usize));
        rows.map(|i| Block { at: i.at as usize, bytes: i.bytes.clone(), text: i.text.clone() }).collect()
    };
    let mut blocks = old(&|at| at < from);
    let mut at = from;
    for (len, text) in borders(site).into_iter().zip(&site.instructions) {
        let own = bytes.get(at - from..at - from + len).unwrap_or_default().to_vec();
        // The listing has the names of what is referred to.
        let named = listing.iter().filter_map(|r| r.old.as_ref()).find(|i| i.at as usize == at);
        let text = named.map_or_else(|| text.clone(), |i| i.text.clone());
        blocks.push(Block { at, bytes: own, text });
        at += len;
    }
    blocks.extend(old(&|at| at >= to).into_iter().take(1));
    let first = blocks.first().map_or(from, |b| b.at);
    let count = blocks.last().map_or(0, |b| b.at + b.bytes.len()).saturating_sub(first);
    let jump = jump_bytes(site.jump);
    let x = |at: usize| (at - first) * W;
    let (width, height) = (count * W + 2, 2 * H + 46);
    html! {
        div.site {
            div.wide {
                svg width=(width) height=(height) viewBox=(format!("-1 0 {width} {height}")) role="img"
                    aria-label=(format!("the jump takes bytes +{from:#x} to +{:#x}", from + jump.len())) {
                    @for (n, block) in blocks.iter().enumerate() {
                        @for (i, byte) in block.bytes.iter().enumerate() {
                            @let at = block.at + i;
                            rect.(class(at, from, to, jump.len())) x=(x(at)) y="18" width=(W) height=(H) {}
                            text x=(x(at) + W / 2) y=(18 + 17) text-anchor="middle" { (format!("{byte:02x}")) }
                        }
                        path.border d=(format!("M{0} 12 V{1} M{2} 12 V{1}", x(block.at), 18 + H + 5,
                            x(block.at + block.bytes.len()))) {}
                        text.dimtext x=(x(block.at) + 4) y="11" { (n + 1) }
                    }
                    @for (i, byte) in jump.iter().chain(std::iter::repeat_n(&"90", to - from - jump.len().min(to - from))).enumerate() {
                        @let is_jump = i < jump.len();
                        rect.(if is_jump { "jump" } else { "rest" }) x=(x(from + i)) y=(18 + H + 10) width=(W) height=(H) {}
                        text.jumptext x=(x(from + i) + W / 2) y=(18 + H + 27) text-anchor="middle" { (byte) }
                    }
                }
            }
            ol {
                @for block in &blocks {
                    li { code { (format!("+{:#x}", block.at)) " " (block.text) }
                        @if block.at < from || block.at >= to { " " span.dim { "stays" } } }
                }
            }
        }
        div.key { span.kj { "the jump" } span.kn { "the rest of the last instruction" } span { "stays as it is" } }
    }
}

fn class(at: usize, from: usize, to: usize, jump: usize) -> &'static str {
    match at {
        _ if at < from || at >= to => "cell",
        _ if at < from + jump => "jump",
        _ => "rest",
    }
}

/// What is written; addresses are not known before the module is loaded.
fn jump_bytes(jump: Jump) -> Vec<&'static str> {
    match jump {
        Jump::Rel32 => vec!["e9", "··", "··", "··", "··"],
        Jump::Abs64 => ["48", "b8"].into_iter().chain(std::iter::repeat_n("··", 8)).chain(["ff", "e0"]).collect(),
    }
}

/// A box of the second drawing.
struct Drawn<'e> {
    subject: &'e Subject,
    column: usize,
    row: usize,
    by: Option<usize>,
}

/// What differs or was named at the left, and to the right of each what it brought.
pub fn brought(e: &Explanation) -> Option<Markup> {
    let subjects = &e.record.subjects;
    let brings = |of: u32| (0u32..).zip(subjects).filter(move |(_, s)| s.by == Some(of)).map(|(i, _)| i);
    if !subjects.iter().any(|s| s.by.is_some()) || subjects.len() > BOXES {
        return None;
    }
    let (mut drawn, mut rows): (Vec<Drawn<'_>>, usize) = (Vec::new(), 0);
    for (root, subject) in (0u32..).zip(subjects).filter(|(_, s)| s.by.is_none()) {
        // Nobody is brought twice, so that this ends.
        let mut todo = vec![(root, subject, 0, None)];
        let mut last_column = None;
        while let Some((index, subject, column, by)) = todo.pop() {
            if last_column.is_none_or(|l| column <= l) {
                rows += 1;
            }
            last_column = Some(column);
            let own = drawn.len();
            drawn.push(Drawn { subject, column, row: rows - 1, by });
            let mut next: Vec<u32> = brings(index).collect();
            next.reverse();
            todo.extend(next.into_iter().filter_map(|i| Some((i, subjects.get(i as usize)?, column + 1, Some(own)))));
        }
    }
    let (bw, bh, gap_x, gap_y) = (210, 30, 46, 12);
    let columns = drawn.iter().map(|d| d.column).max().unwrap_or(0) + 1;
    let (width, height) = (columns * (bw + gap_x) - gap_x + 2, rows * (bh + gap_y));
    let left = |d: &Drawn<'_>| d.column * (bw + gap_x);
    let top = |d: &Drawn<'_>| d.row * (bh + gap_y) + 1;
    let edge = |d: &Drawn<'_>| {
        let from = drawn.get(d.by?)?;
        let (x1, y1, x2, y2) = (left(from) + bw, top(from) + bh / 2, left(d), top(d) + bh / 2);
        let middle = x1 + gap_x / 2;
        Some(format!("M{x1} {y1} H{middle} V{y2} H{x2}"))
    };
    Some(html! {
        div.wide {
            svg width=(width) height=(height) viewBox=(format!("-1 -1 {width} {height}")) role="img"
                aria-label="what brought what into the patch" {
                @for path in drawn.iter().filter_map(edge) { path.edge d=(path) {} }
                @for d in &drawn {
                    rect.(if matches!(d.subject.pull, Pull::Changed | Pull::Declared) { "root" } else { "box" })
                        x=(left(d)) y=(top(d)) width=(bw) height=(bh) rx="4" {}
                    text x=(left(d) + 10) y=(top(d) + 19) {
                        (short(&d.subject.symbol))
                        title { (d.subject.symbol) ": " (d.subject.why) }
                    }
                }
            }
        }
    })
}

fn short(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(LETTERS - 1).collect();
    short.push('…');
    short
}
