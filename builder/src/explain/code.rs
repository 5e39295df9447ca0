//! Code for people: the instructions of a function with the names of what they refer to, and two builds side by side.
//!
//! Input: atoms of both builds. Output: lines of text. Which instruction differs first is said by compare; what is marked in a
//! listing is where the texts differ, with jumps inside the function left aside, whose distance changes with everything else.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::CodeAt;
use crate::correlate::NewAtom;
use crate::isa::{Decoder, DecoderOptions, Disassembler, Style, is_near_branch};
use crate::plan::{CodeLines, ObjectPair};
use crate::symbolize::{Atom, AtomId, Insn, Object, Ref, Target, Usage};

/// Letters of a string that are shown.
const SHOWN: usize = 40;
/// Instructions of both sides together beyond which only what is before and behind the difference is put beside each other.
const MANY: usize = 20_000;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCode {
    /// Distance from the start of the function.
    pub at: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// AT&T syntax, with the names of what it refers to.
    pub text: String,
    /// `file:line`.
    pub line: Option<String>,
    /// What is compared.
    key: String,
}

/// A row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingRow {
    /// The old instruction.
    pub old: Option<ListedCode>,
    /// The new one.
    pub new: Option<ListedCode>,
    /// They are the same.
    pub same: bool,
}

/// How a reference is named: an atom of the object, as it is compared.
type Naming<'n> = &'n dyn Fn(AtomId) -> String;

/// Both builds of a function side by side; of one that is new, one of them.
pub fn listing(pair: &ObjectPair, new: NewAtom, lines: Option<&CodeLines>) -> Vec<ListingRow> {
    let old = pair.pairs.old_of(new);
    let of = |object: &Object, id: AtomId, naming: Naming<'_>, is_old: bool| -> Vec<ListedCode> {
        let line = |at: u64| lines.and_then(|l| l.line(is_old, at));
        all(object, id, naming).into_iter().map(|s| ListedCode { line: line(s.at), ..s }).collect()
    };
    let by_old = |id: AtomId| {
        let was = pair.pairs.old_of(NewAtom(id));
        was.map_or_else(|| pair.new.atom(id).name.clone(), |o| pair.old.atom(o.0).name.clone())
    };
    let own = |id: AtomId| pair.old.atom(id).name.clone();
    let old = old.map(|o| of(&pair.old, o.0, &own, true)).unwrap_or_default();
    beside(old, of(&pair.new, new.0, &by_old, false))
}

fn beside(old: Vec<ListedCode>, new: Vec<ListedCode>) -> Vec<ListingRow> {
    let (a, b): (Vec<&str>, Vec<&str>) =
        (old.iter().map(|s| s.key.as_str()).collect(), new.iter().map(|s| s.key.as_str()).collect());
    let ops = if a.len() + b.len() <= MANY { capture_diff_slices(Algorithm::Myers, &a, &b) } else { ends(&a, &b) };
    let mut rows = Vec::new();
    for op in ops {
        let same = matches!(op, DiffOp::Equal { .. });
        let (was, is) = (op.old_range(), op.new_range());
        for i in 0..was.len().max(is.len()) {
            let side = |list: &[ListedCode], range: &std::ops::Range<usize>| {
                range.clone().nth(i).and_then(|at| list.get(at)).cloned()
            };
            rows.push(ListingRow { old: side(&old, &was), new: side(&new, &is), same });
        }
    }
    rows
}

/// What both begin with, what both end with, and one difference between.
fn ends(a: &[&str], b: &[&str]) -> Vec<DiffOp> {
    let before = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let behind = a[before..].iter().rev().zip(b[before..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (old_len, new_len) = (a.len() - before - behind, b.len() - before - behind);
    vec![
        DiffOp::Equal { old_index: 0, new_index: 0, len: before },
        DiffOp::Replace { old_index: before, old_len, new_index: before, new_len },
        DiffOp::Equal { old_index: before + old_len, new_index: before + new_len, len: behind },
    ]
}

/// One instruction of a function.
pub fn at(object: &Object, id: AtomId, offset: u64, line: Option<String>) -> Option<CodeAt> {
    let atom = object.atom(id);
    let insn = atom.code.as_ref()?.insns.iter().find(|i| u64::from(i.at) == offset)?;
    let own = |id: AtomId| object.atom(id).name.clone();
    let shown = one(&mut Disassembler::new(Style::Listing), object, atom, insn, &own)?;
    Some(CodeAt { at: shown.at, text: shown.text, line })
}

fn all(object: &Object, id: AtomId, naming: Naming<'_>) -> Vec<ListedCode> {
    let atom = object.atom(id);
    let insns = atom.code.as_ref().map_or(&[][..], |c| &c.insns[..]);
    let mut writer = Disassembler::new(Style::Listing);
    insns.iter().filter_map(|i| one(&mut writer, object, atom, i, naming)).collect()
}

fn one(writer: &mut Disassembler, object: &Object, atom: &Atom, insn: &Insn, naming: Naming<'_>) -> Option<ListedCode> {
    let at = u64::from(insn.at);
    let end = at + u64::from(insn.len);
    let bytes = object.bytes(atom.id).get(insn.at as usize..end as usize)?.to_vec();
    let decoded = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
    let refs = atom.refs.iter().filter(|r| r.at >= at && r.at < end);
    let (mut names, mut keys) = (Vec::new(), Vec::new());
    for r in refs {
        let (name, key) = named(object, atom, r, naming);
        names.push(name);
        keys.push(key);
    }
    let branch = is_near_branch(&decoded);
    let text = match (branch, names.as_slice()) {
        (true, [target]) => format!("{} {target}", writer.mnemonic(&decoded)),
        (_, []) => writer.text(&decoded),
        (_, some) => format!("{}  # {}", writer.text(&decoded), some.join(", ")),
    };
    let key = match (branch, keys.as_slice()) {
        (true, [target]) => format!("{} {target}", writer.mnemonic(&decoded)),
        (_, some) => format!("{}#{}", blanked(writer, &bytes, atom, insn), some.join(",")),
    };
    Some(ListedCode { at, bytes, text, line: None, key })
}

/// The text with the fields of references blanked: what they hold is how far something is away.
fn blanked(writer: &mut Disassembler, bytes: &[u8], atom: &Atom, insn: &Insn) -> String {
    let (at, end) = (u64::from(insn.at), u64::from(insn.at) + u64::from(insn.len));
    let mut bytes = bytes.to_vec();
    for r in atom.refs.iter().filter(|r| r.at >= at && r.at < end) {
        let from = (r.at - at) as usize;
        if let Some(field) = bytes.get_mut(from..from + usize::from(r.width)) {
            field.fill(0);
        }
    }
    // At 0, so that the same bytes give the same text.
    writer.text(&Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode())
}

/// What a reference leads to, for people and for comparing.
fn named(object: &Object, from: &Atom, r: &Ref, naming: Naming<'_>) -> (String, String) {
    let plus = |name: &str, delta: i64| match delta {
        0 => name.to_owned(),
        1.. => format!("{name}+{delta:#x}"),
        _ => format!("{name}-{:#x}", delta.unsigned_abs()),
    };
    match r.target {
        Target::Extern(symbol, delta) => {
            let name = plus(object.symbol_name(symbol), delta);
            (name.clone(), name)
        }
        Target::Section(section, offset) => {
            if let Some(bytes) = object.constant_at(section, offset) {
                let text = constant(bytes);
                return (text.clone(), text);
            }
            match object.containing(section, offset) {
                Some(m) if m.atom == from.id && r.usage == Usage::Branch && m.delta != 0 => {
                    (format!("+{:#x}", m.delta), "within".to_owned())
                }
                Some(m) => (plus(&object.atom(m.atom).name, m.delta), plus(&naming(m.atom), m.delta)),
                None => {
                    let name = plus(&object.section(section).name, offset);
                    (name.clone(), name)
                }
            }
        }
    }
}

fn constant(bytes: &[u8]) -> String {
    match bytes.split_last() {
        Some((0, text)) if std::str::from_utf8(text).is_ok() => {
            let text = String::from_utf8_lossy(text);
            let short: String = text.chars().take(SHOWN).collect();
            let more = if short.len() < text.len() { ".." } else { "" };
            format!("{:?}", format!("{short}{more}"))
        }
        _ => crate::hash::to_hex(bytes.get(..SHOWN).unwrap_or(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: &[&str]) -> Vec<ListedCode> {
        let one = |(i, key): (usize, &&str)| ListedCode {
            at: i as u64,
            bytes: vec![0x90],
            text: (*key).to_owned(),
            line: None,
            key: (*key).to_owned(),
        };
        keys.iter().enumerate().map(one).collect()
    }

    fn marked(old: &[&str], new: &[&str]) -> Vec<(Option<String>, Option<String>, bool)> {
        let rows = beside(shown(old), shown(new));
        rows.into_iter().map(|r| (r.old.map(|s| s.text), r.new.map(|s| s.text), r.same)).collect()
    }

    #[test]
    fn what_is_new_stands_alone_and_what_changed_stands_beside_what_it_was() {
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(
            marked(&["push", "mov", "ret"], &["push", "test", "mov", "ret"]),
            [
                (text("push"), text("push"), true),
                (None, text("test"), false),
                (text("mov"), text("mov"), true),
                (text("ret"), text("ret"), true),
            ]
        );
        assert_eq!(marked(&["a", "x", "z"], &["a", "y", "z"])[1], (text("x"), text("y"), false));
        assert!(marked(&[], &[]).is_empty());
    }

    #[test]
    fn long_functions_are_put_beside_each_other_by_their_ends() {
        let a = ["p", "q", "x", "r"];
        let b = ["p", "q", "y", "y", "r"];
        let ops = ends(&a, &b);
        assert_eq!(ops[1], DiffOp::Replace { old_index: 2, old_len: 1, new_index: 2, new_len: 2 });
        assert_eq!(ends(&a, &a)[0], DiffOp::Equal { old_index: 0, new_index: 0, len: 4 });
    }

    #[test]
    fn a_constant_is_a_string_where_it_can_be_one() {
        assert_eq!(constant(b"a\"b\0"), "\"a\\\"b\"");
        assert_eq!(constant(&[0xff, 0xfe, 0]), "fffe00");
        let long = [b'x'; 100].iter().chain(&[0]).copied().collect::<Vec<u8>>();
        assert_eq!(constant(&long).len(), SHOWN + 4);
    }
}
