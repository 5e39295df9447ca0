//! The manifest of a patch set.

use super::content::Layout;
use super::{BackEnd, Draft, found};
use crate::bind::{FoundBy, Resolved};
use crate::error::Result;
use crate::hash;
use crate::holder::HolderName;
use crate::plan::manifest as m;
use crate::plan::{Dest, Role};
use crate::symbolize::Class;

/// Describes the patch.
pub fn describe(input: Draft<'_>, back_end: &dyn BackEnd, layout: &Layout) -> Result<m::Manifest> {
    let (options, mode) = (input.options, input.analysis.detour.mode);
    let kernel = input.bound.map(|b| m::Kernel {
        release: b.holder.image.release().to_owned(),
        build_id: hash::to_hex(b.holder.image.build_id()),
        anchor: b.holder.anchor.symbol.to_owned(),
        anchor_address: b.holder.anchor.address,
    });
    let mut functions = back_end.functions();
    let key = |f: &m::Function| (HolderName::named(&f.object), f.source.clone(), f.symbol.clone());
    functions.sort_by_cached_key(key);
    let (holders, data) = (back_end.holders(), data(input));
    let mut inputs: Vec<m::Input> = input
        .analysis
        .pairs
        .iter()
        .zip(&input.analysis.digests)
        .map(|(p, (o, n))| m::Input { source: p.name.clone(), old_sha256: o.clone(), new_sha256: n.clone() })
        .collect();
    inputs.sort_by(|a, b| a.source.cmp(&b.source));
    Ok(m::Manifest {
        schema: match (
            data.is_empty() && options.left_out.is_empty() && input.analysis.set.shadows.is_empty(),
            holders.is_empty(),
        ) {
            (false, _) => m::SCHEMA,
            (true, false) => m::SCHEMA_OF_MODULES,
            (true, true) => m::SCHEMA_OF_KERNEL,
        },
        patch: m::Patch {
            name: options.name.clone(),
            version: options.version.clone(),
            description: options.description.clone(),
            mode,
            deadline_ms: options.deadline(mode),
            patience_ms: options.patience_ms,
            object_sha256: None,
            oneshot: options.oneshot,
            after: options.after.clone(),
            replaces: options.replaces.clone(),
        },
        callbacks: options.callbacks.clone(),
        kernel,
        holders,
        functions,
        data,
        left_out: options.left_out.clone(),
        carried: carried(input, layout),
        shadows: input.analysis.set.shadows.clone(),
        symbols: symbols(input)?,
        imports: back_end.imports(),
        inputs,
        accepted: input.analysis.accepted.clone(),
        promises: promises(input),
    })
}

/// The certain ones; what only may outlive the patch is in the report.
fn promises(input: Draft<'_>) -> Vec<m::KeptAddress> {
    let certain = input.analysis.promises.iter().filter(|p| p.certain);
    let entry = |p: &crate::plan::Promise| m::KeptAddress {
        source: p.object.clone(),
        function: p.function.clone(),
        symbol: p.symbol.clone(),
        what: p.what.clone(),
    };
    certain.map(entry).collect()
}

/// Constants that change in their place.
fn data(input: Draft<'_>) -> Vec<m::Constant> {
    let mut out = Vec::new();
    for item in input.items() {
        let Role::InPlace(old) = item.role else { continue };
        let pair = input.pair(item.pair);
        let (atom, size) = (pair.old.atom(old.0), pair.old.atom(old.0).size());
        let address = input.bound.and_then(|b| Some((b, b.old_address(item.pair, old)?)));
        let original = address.and_then(|(b, at)| b.read(at, size as usize)).map(hash::digest);
        out.push(m::Constant {
            source: pair.name.clone(),
            symbol: atom.name.clone(),
            anchor_offset: address.map(|(b, at)| b.holder.anchored(at)),
            size: size as u32,
            original_sha256: original,
            changes: crate::compare::changes_of(&pair.comparer(), old, item.atom),
        });
    }
    out.sort_by(|a, b| (&a.source, &a.symbol).cmp(&(&b.source, &b.symbol)));
    out
}

fn carried(input: Draft<'_>, layout: &Layout) -> Vec<m::Carried> {
    let mut out = Vec::new();
    for item in input.items() {
        if matches!(item.role, Role::Replaces(_) | Role::InPlace(_)) {
            continue;
        }
        let pair = input.pair(item.pair);
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
            why: item.why(&input.analysis.pairs),
        });
    }
    for (bytes, (_, index)) in &layout.constants {
        let item = &input.items()[*index];
        let pair = input.pair(item.pair);
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

fn symbols(input: Draft<'_>) -> Result<Vec<m::BoundSymbol>> {
    let mut out = Vec::new();
    for item in input.items() {
        for edge in item.all_edges() {
            let symbol = match &edge.dest {
                Dest::Kernel(name, _) => name.clone(),
                Dest::Old(p, o, _) => input.pair(*p).old.atom(o.0).name.clone(),
                // A string the kernel already holds.
                Dest::Constant(bytes) if bytes.last() == Some(&0) && bytes.len() > 1 => {
                    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len() - 1]))
                }
                Dest::Constant(bytes) => hash::to_hex(bytes),
                Dest::Carried(..) | Dest::Original(..) | Dest::Runtime(_) => continue,
            };
            let source = input.pair(item.pair).name.clone();
            let mut at = (None, None, None);
            let (resolved, anchor_offset) = match input.bound {
                None if matches!(edge.dest, Dest::Constant(_)) => continue,
                None => ("symbolic", None),
                Some(b) => match found(input, b, item, &edge.dest)? {
                    Resolved::InPatch => continue,
                    Resolved::Image(a, how) | Resolved::Percpu(a, how) if b.section_of(a).is_some() => {
                        // Brought along where the module loader reads it; else it is used as well.
                        if matches!(edge.dest, Dest::Constant(_)) && !item.edges.iter().any(|e| e.dest == edge.dest) {
                            continue;
                        }
                        let section = b.section_of(a);
                        let (name, offset) = section.map(|(n, o)| (n.to_owned(), o)).unzip();
                        at = (b.module_at(a).map(str::to_owned), name, offset);
                        (how.name(), None)
                    }
                    Resolved::Image(a, how) => (how.name(), Some(b.holder.anchored(a))),
                    Resolved::Percpu(o, FoundBy::Kallsyms | FoundBy::RunPre | FoundBy::Section) => {
                        ("percpu", Some(o as i64))
                    }
                },
            };
            let (object, section, section_offset) = at;
            let resolved = resolved.to_owned();
            out.push(m::BoundSymbol { symbol, source, resolved, anchor_offset, object, section, section_offset });
        }
    }
    fn key(s: &m::BoundSymbol) -> impl Ord + '_ {
        (&s.source, &s.symbol, s.anchor_offset, &s.object, &s.section, s.section_offset)
    }
    out.sort_by(|a, b| key(a).cmp(&key(b)));
    out.dedup();
    Ok(out)
}
