//! The manifest of a patch set.

use crate::hash;
use crate::plan::Options;
use lpbuild_abi as abi;

use super::Input;
use super::content::Layout;
use super::records::running;
use crate::bind::{How, Resolved};
use crate::correlate::OldAtom;
use crate::error::Result;
use crate::plan::manifest as m;
use crate::plan::{Dest, ObjectPair, Role};
use crate::sites;
use crate::symbolize::{AtomId, Class};

/// The old function and its pieces: everything no task may be inside.
pub fn pieces(pair: &ObjectPair, old: OldAtom) -> Vec<(AtomId, bool)> {
    pair.old.family(old.0).into_iter().map(|id| (id, id == old.0)).collect()
}

/// Describes the patch.
pub fn describe(input: Input<'_>, options: &Options, layout: &Layout) -> Result<m::Manifest> {
    let kernel = input.bound.map(|b| m::Kernel {
        release: b.kernel.release().to_owned(),
        build_id: hash::to_hex(b.kernel.build_id()),
        anchor: b.anchor.to_owned(),
        anchor_address: b.anchor_address,
    });
    let mut functions: Vec<m::Function> = input.sites.iter().filter_map(|(i, s)| function(input, *i, s)).collect();
    functions.sort_by(|a, b| (&a.source, &a.symbol).cmp(&(&b.source, &b.symbol)));
    let mut inputs: Vec<m::Input> = input
        .pairs
        .iter()
        .zip(input.digests)
        .map(|(p, (o, n))| m::Input { source: p.name.clone(), old_sha256: o.clone(), new_sha256: n.clone() })
        .collect();
    inputs.sort_by(|a, b| a.source.cmp(&b.source));
    let mut imports = Vec::new();
    if let Some(b) = input.bound {
        for (import, address) in &b.imports {
            let anchor_offset = address.map(|a| b.anchored(a));
            imports.push(m::BoundImport { symbol: import.name.to_owned(), anchor_offset });
        }
    }
    Ok(m::Manifest {
        schema: m::SCHEMA,
        patch: m::Patch {
            name: options.name.clone(),
            version: options.version.clone(),
            description: options.description.clone(),
            mode: input.mode,
            deadline_ms: options.deadline(input.mode),
            patience_ms: options.patience_ms,
            object_sha256: None,
            oneshot: options.oneshot,
            after: options.after.clone(),
            replaces: options.replaces.clone(),
        },
        callbacks: options.callbacks.clone(),
        kernel,
        functions,
        carried: carried(input, layout),
        symbols: symbols(input)?,
        imports,
        inputs,
        accepted: input.accepted.to_vec(),
        promises: promises(input),
    })
}

/// The certain ones; what only may outlive the patch is in the report.
fn promises(input: Input<'_>) -> Vec<m::Promise> {
    let certain = input.promises.iter().filter(|p| p.certain);
    let entry = |p: &crate::plan::Promise| m::Promise {
        source: p.object.clone(),
        function: p.function.clone(),
        symbol: p.symbol.clone(),
        what: p.what.clone(),
    };
    certain.map(entry).collect()
}

fn function(input: Input<'_>, index: usize, site: &sites::Site) -> Option<m::Function> {
    let item = &input.set.items[index];
    let Role::Replaces(old) = item.role else { return None };
    let pair = &input.pairs[item.pair.0 as usize];
    let atom = pair.old.atom(old.0);
    let address = input.bound.and_then(|b| b.old_address(item.pair, old));
    let anchored = |id: AtomId| input.bound.and_then(|b| Some(b.anchored(b.old_address(item.pair, OldAtom(id))?)));
    let bound = input.bound.zip(address);
    let original = bound.map_or(&site.original[..], |(bound, address)| running(bound, address, site)).to_vec();
    let sympos = address.and_then(|a| {
        let kallsyms = input.bound?.kernel.kallsyms();
        let symbol = kallsyms.at(a).iter().find(|s| *s.name == *atom.name)?;
        kallsyms.sympos(symbol)
    });
    let mut others: Vec<m::Piece> = pieces(pair, old)
        .into_iter()
        .filter(|(_, parent)| !parent)
        .map(|(id, _)| m::Piece {
            symbol: pair.old.atom(id).name.clone(),
            anchor_offset: anchored(id),
            size: pair.old.atom(id).size() as u32,
        })
        .collect();
    others.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    Some(m::Function {
        object: "vmlinux".into(),
        source: pair.name.clone(),
        symbol: atom.name.clone(),
        sympos,
        anchor_offset: anchored(old.0),
        old_size: atom.size() as u32,
        new_size: pair.new.atom(item.atom.0).size() as u32,
        why: item.why.clone(),
        site: m::Site {
            offset: site.offset,
            size: site.size,
            jump: site.jump,
            instructions: sites::disassemble(&original, u64::from(site.offset)),
            original: hash::to_hex(&original),
            rule: site.rule.name().to_owned(),
        },
        pieces: others,
    })
}

fn carried(input: Input<'_>, layout: &Layout) -> Vec<m::Carried> {
    let mut out = Vec::new();
    for item in &input.set.items {
        if matches!(item.role, Role::Replaces(_)) {
            continue;
        }
        let pair = &input.pairs[item.pair.0 as usize];
        let atom = pair.new.atom(item.atom.0);
        let kind = match (item.role, pair.new.class(atom.section)) {
            (Role::NewFunction, _) => "function",
            (_, _) if item.is_code() => "cold",
            (_, Class::Rodata) => "rodata",
            (_, Class::Bss) => "bss",
            (_, Class::Percpu) => "percpu",
            _ if pair.new.section(atom.section).name.starts_with("__") => pair.new.section(atom.section).name.as_str(),
            _ => "data",
        };
        out.push(m::Carried {
            source: pair.name.clone(),
            symbol: atom.name.clone(),
            kind: kind.to_owned(),
            size: atom.size() as u32,
            why: item.why.clone(),
        });
    }
    for (bytes, (_, index)) in &layout.constants {
        let item = &input.set.items[*index];
        let pair = &input.pairs[item.pair.0 as usize];
        let (symbol, kind) = match bytes.split_last() {
            Some((0, text)) if !text.is_empty() => (format!("{:?}", String::from_utf8_lossy(text)), "string"),
            _ => (hash::to_hex(bytes), "constant"),
        };
        out.push(m::Carried {
            source: pair.name.clone(),
            symbol,
            kind: kind.to_owned(),
            size: bytes.len() as u32,
            why: format!("{} refers to it", pair.new.atom(item.atom.0).name),
        });
    }
    out.sort_by(|a, b| (&a.source, &a.kind, &a.symbol).cmp(&(&b.source, &b.kind, &b.symbol)));
    out
}

fn symbols(input: Input<'_>) -> Result<Vec<m::BoundSymbol>> {
    let mut out = Vec::new();
    for item in &input.set.items {
        for edge in item.all_edges() {
            let symbol = match &edge.dest {
                Dest::Kernel(name, _) => name.clone(),
                Dest::Old(p, o, _) => input.pairs[p.0 as usize].old.atom(o.0).name.clone(),
                // A string the kernel already holds.
                Dest::Constant(bytes) if bytes.last() == Some(&0) && bytes.len() > 1 => {
                    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len() - 1]))
                }
                Dest::Constant(bytes) => hash::to_hex(bytes),
                Dest::Carried(..) | Dest::Original(..) => continue,
            };
            let source = input.pairs[item.pair.0 as usize].name.clone();
            let (resolved, anchor_offset) = match input.bound {
                None if matches!(edge.dest, Dest::Constant(_)) => continue,
                None => ("symbolic", None),
                Some(b) => match b.resolve(input.pairs, item, &edge.dest)? {
                    Resolved::InPatch => continue,
                    Resolved::Image(a, how) => (how.name(), Some(b.anchored(a))),
                    Resolved::Percpu(o, How::Kallsyms | How::RunPre | How::Section) => ("percpu", Some(o as i64)),
                },
            };
            out.push(m::BoundSymbol { symbol, source, resolved: resolved.to_owned(), anchor_offset });
        }
    }
    out.sort_by(|a, b| (&a.source, &a.symbol, a.anchor_offset).cmp(&(&b.source, &b.symbol, b.anchor_offset)));
    out.dedup();
    Ok(out)
}

const _: () = assert!(abi::MAX_SITE <= u8::MAX as usize);
