//! Patch set -> jump sites: where each jump goes in the old function, how many bytes, which instructions it covers.
//!
//! Default: the first whole instructions behind the fentry nop (and ENDBR), so that ftrace, BPF trampolines and fentry
//! kprobes keep working. Else the entry of functions without fentry. Else, reported, the fentry nop itself.
//!
//! Refused (LP2101): no such place. A site must not be branched into, must not hold a return address in its middle, and
//! no byte of it may be rewritten by the kernel itself later.

use crate::isa::{Decoder, DecoderOptions, FlowControl, Instruction};
use crate::isa::{ENDBR64, NOP5, disassemble, moved};
use crate::plan::{JumpSite, Rule};
use lpbuild_abi as abi;

use crate::codes;
use crate::error::{Place, Problem};
use crate::plan::manifest::Jump;
use crate::symbolize::{AtomId, Insn, Meaning, Object, Ref, Table, Target, Usage};

/// Chooses the site of the function `id` of the old object.
pub fn choose(object: &Object, id: AtomId, jump: Jump) -> Result<JumpSite, Problem> {
    let atom = object.atom(id);
    let refuse = |why: String| Problem::new(codes::LP2101, Place::symbol(&object.image.name, &atom.name), why);
    let Some(code) = &atom.code else { return Err(refuse("it is not code".into())) };
    if code.insns.is_empty() {
        return Err(refuse("it is empty".into()));
    }
    let bytes = object.bytes(id);
    let entry = if bytes.starts_with(&ENDBR64) { ENDBR64.len() } else { 0 };
    let has_fentry = atom.entries.iter().any(|e| {
        let e = &object.entries[e.0 as usize];
        e.table == Table::Fentry && e.owner.is_some_and(|m| m.delta == entry as i64)
    });
    if has_fentry && !is_fentry(object, id, entry) {
        return Err(refuse("its fentry site is neither the 5-byte nop nor a call of __fentry__".into()));
    }
    let places: &[(usize, Rule)] = if has_fentry {
        &[(entry + NOP5.len(), Rule::AfterFentry), (entry, Rule::OverFentry)]
    } else {
        &[(entry, Rule::Entry)]
    };
    let mut reasons = Vec::new();
    for (offset, rule) in places {
        match attempt(object, id, *offset, *rule, jump) {
            Ok(site) => return Ok(site),
            Err(why) => reasons.push(format!("{}: {why}", rule.name())),
        }
    }
    Err(refuse(reasons.join("; ")))
}

fn is_fentry(object: &Object, id: AtomId, at: usize) -> bool {
    let bytes = object.bytes(id);
    let is_named = |target: Target| match target {
        Target::Extern(s, 0) => object.symbol_name(s) == "__fentry__",
        Target::Section(s, o) => {
            object.containing(s, o).is_some_and(|m| m.delta == 0 && object.atom(m.atom).name == "__fentry__")
        }
        Target::Extern(..) => false,
    };
    let calls = |r: &Ref| r.at == at as u64 + 1 && is_named(r.target);
    bytes.get(at..at + 5) == Some(&NOP5[..]) || bytes.get(at) == Some(&0xe8) && object.atom(id).refs.iter().any(calls)
}

fn attempt(object: &Object, id: AtomId, offset: usize, rule: Rule, jump: Jump) -> Result<JumpSite, String> {
    let atom = object.atom(id);
    let insns = atom.code.as_ref().map_or(&[][..], |c| &c.insns[..]);
    let from = insns.partition_point(|i| (i.at as usize) < offset);
    if insns.get(from).is_none_or(|i| i.at as usize != offset) {
        return Err(format!("no instruction begins at +{offset:#x}"));
    }
    let mut end = offset;
    let mut ended: Option<&Insn> = None;
    for insn in &insns[from..] {
        if end - offset >= jump.len() {
            break;
        }
        if ended.is_some_and(|i| i.is_call) {
            return Err(format!("a call at +{:#x} returns into the site", ended.map_or(0, |i| i.at)));
        }
        ended = Some(insn);
        end = insn.at as usize + usize::from(insn.len);
    }
    let padding = padding_behind(object, id);
    if end - offset < jump.len() {
        if !insns.last().is_some_and(|i| i.ends_flow) || end - offset + padding < jump.len() {
            return Err(format!("only {} bytes before the end of the function", end - offset));
        }
        end = offset + jump.len();
    }
    if rule == Rule::OverFentry && end - offset != NOP5.len() {
        return Err(format!("a jump of {} bytes is longer than the fentry nop", jump.len()));
    }
    if end - offset > abi::MAX_SITE {
        return Err(format!("the instructions there take {} bytes, more than {}", end - offset, abi::MAX_SITE));
    }
    conflicts(object, id, offset as u64, end as u64, rule)?;
    moving_percpu(object, id, offset as u64, end as u64)?;
    let section = object.section(atom.section);
    let original = section.data.get(atom.start as usize + offset..atom.start as usize + end);
    let original = original.ok_or("it reaches past the end of its section")?.to_vec();
    let fixed = if rule == Rule::OverFentry { None } else { fixed(object, id, offset as u64, &original) };
    Ok(JumpSite { offset: offset as u16, size: (end - offset) as u8, jump, rule, original, fixed })
}

/// The covered instruction that has no copy, as text. The image has the bytes in the end; here relocated fields are zero,
/// but the instructions are the same.
fn fixed(object: &Object, id: AtomId, offset: u64, original: &[u8]) -> Option<String> {
    let moved::Fixed { at, why } = moved::encode(original, offset).err()?;
    let at = offset + at as u64;
    let rest = original.get((at - offset) as usize..).unwrap_or_default();
    let mut text = disassemble(rest, at).into_iter().next().unwrap_or_default();
    // Of a call that is relocated the name says more than the distance.
    let atom = object.atom(id);
    let field = atom.refs.iter().find(|r| r.usage == Usage::Branch && r.at == at + 1 && rest.first() == Some(&0xe8));
    if let Some(r) = field {
        let name = match r.target {
            Target::Extern(symbol, _) => Some(object.symbol_name(symbol)),
            Target::Section(s, o) => object.containing(s, o).map(|m| object.atom(m.atom).name.as_str()),
        };
        text = name.map_or(text, |name| format!("call {name}"));
    }
    Some(format!("`{text}` at +{at:#x}: {why}"))
}

/// Bytes of padding (int3 or nop) behind the function that belong to nobody.
fn padding_behind(object: &Object, id: AtomId) -> usize {
    let atom = object.atom(id);
    let list = object.atoms_of(atom.section);
    // The padding before the next function is that function's.
    let next = list.iter().map(|a| object.atom(*a)).find(|a| a.start >= atom.end).map(|a| a.start - a.prefix);
    let until = next.unwrap_or(object.section(atom.section).size);
    let bytes = object.section(atom.section).data.get(atom.end as usize..until as usize).unwrap_or(&[]);
    if bytes.iter().all(|b| *b == 0xcc) {
        return bytes.len();
    }
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    decoder.iter().take_while(|i| i.mnemonic() == crate::isa::Mnemonic::Nop).map(|i| i.len()).sum()
}

/// Does anything lead into the site, or rewrite it?
fn conflicts(object: &Object, id: AtomId, from: u64, to: u64, rule: Rule) -> Result<(), String> {
    let atom = object.atom(id);
    for i in object.incoming(atom.section, (atom.start + from) as i64, (atom.start + to) as i64) {
        let at = i.to - atom.start as i64;
        // The start of the function may be called by anyone, the function itself included. A jump of its own to its
        // start may be a loop, with registers that are no arguments.
        let entry = at == 0 && (i.usage != Usage::Branch || i.from != id || i.call);
        if !entry {
            return Err(format!("{} leads to +{at:#x}", object.atom(i.from).name));
        }
    }
    // Calls are rewritten for call depth tracking at boot or never (arch/x86/kernel/callthunks.c): where that has happened
    // the bytes are not the expected ones, and the runtime refuses before it writes anything.
    let is_passive = |table: Table| matches!(table, Table::OrcIp | Table::EndbrSeal | Table::Calls);
    for (to, entry) in object.entries_into(atom.section, (atom.start + from) as i64, (atom.start + to) as i64) {
        let entry = &object.entries[entry.0 as usize];
        if !is_passive(entry.table) && entry.table != Table::Fentry {
            let (name, at) = (&object.section(entry.section).name, to - atom.start as i64);
            return Err(format!("{name} names the instruction at +{at:#x}"));
        }
    }
    for entry in atom.entries.iter().map(|e| &object.entries[e.0 as usize]).filter(|e| !is_passive(e.table)) {
        let Some(Meaning { atom: owner, delta }) = entry.owner else { continue };
        let start = delta as u64;
        if entry.table == Table::Fentry {
            if start >= from && start < to && rule != Rule::OverFentry {
                return Err("the fentry nop lies in it".into());
            }
            continue;
        }
        let insn_len = object.atom(owner).code.as_ref().and_then(|c| c.covering(start)).map_or(1, |i| u64::from(i.len));
        let len = entry.patched_len().unwrap_or(insn_len);
        if start < to && start + len > from {
            let name = &object.section(entry.section).name;
            return Err(format!("{name} rewrites the instruction at +{start:#x}"));
        }
    }
    Ok(())
}

/// `%gs:variable(%rip)`: the per-CPU area does not move with the image, so KASLR changes the displacement and the bytes
/// are not known before boot (arch/x86/tools/relocs.c, per_cpu_load_addr).
fn moving_percpu(object: &Object, id: AtomId, from: u64, to: u64) -> Result<(), String> {
    const GS_PREFIX: u8 = 0x65;
    let atom = object.atom(id);
    for r in atom.refs.iter().filter(|r| r.at >= from && r.at < to && r.bias != 0) {
        let insn = atom.code.as_ref().and_then(|c| c.covering(r.at));
        if insn.is_some_and(|i| object.bytes(id).get(i.at as usize) == Some(&GS_PREFIX)) {
            return Err(format!("the per-CPU displacement at +{:#x} depends on where the kernel is loaded", r.at));
        }
    }
    Ok(())
}

/// Whether nobody can stand behind the first of the bytes, but at their end: one instruction takes them all, or the first one ends
/// the flow and the rest is never executed.
pub fn is_one_instruction(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let first = decoder.decode();
    !first.is_invalid() && (first.len() == bytes.len() || ends_flow(&first))
}

/// Not `ud2`: behind that of a warning it goes on (handle_bug, arch/x86/kernel/traps.c).
fn ends_flow(insn: &Instruction) -> bool {
    matches!(insn.flow_control(), FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return)
}

#[cfg(test)]
mod tests {
    use super::is_one_instruction;

    #[test]
    fn one_instruction_takes_all_bytes_or_ends_the_flow() {
        let one: &[&[u8]] = &[
            &[0x0f, 0x1f, 0x44, 0, 0],
            &[0x48, 0x81, 0xec, 0, 1, 0, 0],
            &[0xe8, 1, 2, 3, 4],
            &[0xe9, 1, 2, 3, 4, 0x90],
            &[0xc3, 0xcc, 0xcc, 0xcc, 0xcc],
        ];
        let several: &[&[u8]] = &[
            &[0x53, 0x48, 0x8b, 0x35, 1, 2, 3, 4],
            &[0x31, 0xc0, 0xc3, 0xcc, 0xcc],
            // Behind a call somebody comes back, behind `ud2` a warning goes on.
            &[0xe8, 1, 2, 3, 4, 0x90],
            &[0x0f, 0x0b, 0x90, 0x90, 0x90],
            &[0x74, 3, 0x90, 0x90, 0x90],
            &[],
            &[0x48, 0x81, 0xec, 0, 1],
        ];
        assert!(one.iter().all(|b| is_one_instruction(b)));
        assert!(!several.iter().any(|b| is_one_instruction(b)));
    }
}
