//! What an atom holds, in a form that can be compared between two builds.

use crate::symbolize::{AtomId, Class, Object, Target};

/// Bytes that stand for the content of an atom: its own with reference fields blanked, then what they refer to by name or
/// by content. Line numbers of dynamic debug descriptors are blanked (include/linux/dynamic_debug.h, struct _ddebug).
pub fn signature(object: &Object, id: AtomId) -> Vec<u8> {
    let atom = object.atom(id);
    let mut out = object.bytes(id).to_vec();
    if out.is_empty() {
        out.extend_from_slice(&atom.size().to_le_bytes());
    }
    blank_line_number(&object.section(atom.section).name, &mut out);
    for r in &atom.refs {
        if let Some(field) = out.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
            field.fill(0);
        }
    }
    for r in &atom.refs {
        out.extend_from_slice(&r.at.to_le_bytes());
        match r.target {
            Target::Extern(s, addend) => {
                out.extend_from_slice(object.symbol_name(s).as_bytes());
                out.extend_from_slice(&addend.to_le_bytes());
            }
            Target::Section(s, offset) => match object.class(s) {
                Class::Strings | Class::Constants => {
                    out.extend_from_slice(object.constant_at(s, offset).unwrap_or(b"?"))
                }
                _ => {
                    if let Some(m) = object.containing(s, offset) {
                        out.extend_from_slice(super::base_name(&object.atom(m.atom).name).as_bytes());
                        out.extend_from_slice(&m.delta.to_le_bytes());
                    }
                }
            },
        }
    }
    out
}

/// `lineno:18` of struct _ddebug sits behind four pointers, in the low bits of a 32-bit word.
pub fn blank_line_number(section: &str, bytes: &mut [u8]) {
    if section != "__dyndbg" {
        return;
    }
    for entry in bytes.chunks_mut(56) {
        if let Some([a, b, c]) = entry.get_mut(32..35).and_then(|s| <&mut [u8; 3]>::try_from(s).ok()) {
            (*a, *b) = (0, 0);
            *c &= !3;
        }
    }
}
