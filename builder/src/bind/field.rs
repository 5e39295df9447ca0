//! Relocated fields of the image: the address each one means, and bytes compared around them.

use super::resolve::by_name;
use crate::isa::reloc;
use crate::kernel::{KernelImage, KernelSymbol};
use crate::symbolize::{Class, Object, Ref, RefKind, Target};

/// The address that the field at `at` of the image means, decoded as this reference of the object is.
pub(super) fn means(kernel: &KernelImage, r: &Ref, at: u64) -> Option<u64> {
    decoded(kernel.read(at, usize::from(r.width))?, r, at)
}

/// The same of the bytes of the field.
pub(super) fn decoded(field: &[u8], r: &Ref, at: u64) -> Option<u64> {
    let RefKind::Reloc(kind) = r.kind else { return None };
    let value = match *field {
        [a, b, c, d] if kind == reloc::ABS32 => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])) as u64,
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return None,
    };
    Some(if reloc::is_pc_relative(kind) { value.wrapping_add(at).wrapping_add(u64::from(r.bias)) } else { value })
}

/// How the image's bytes at `address` differ from these, relocated fields masked.
pub(super) fn other_bytes(kernel: &KernelImage, bytes: &[u8], refs: &[Ref], address: u64) -> Option<String> {
    let Some(image) = kernel.read(address, bytes.len()) else {
        return Some(format!("{} bytes at {address:#x} are not in {}", bytes.len(), kernel.called()));
    };
    let mut masked = vec![false; bytes.len()];
    for r in refs.iter().filter(|r| matches!(r.kind, RefKind::Reloc(_))) {
        if let Some(m) = masked.get_mut(r.at as usize..(r.at + u64::from(r.width)) as usize) {
            m.fill(true);
        }
    }
    let at = (0..bytes.len()).find(|i| !masked[*i] && bytes[*i] != image[*i])?;
    Some(format!(
        "the byte at +{at:#x} is {:02x} in the old object and {:02x} in {}",
        bytes[at],
        image[at],
        kernel.called()
    ))
}

/// The string or constant of a mergeable section that is meant: it has no place of its own, only content.
pub(super) fn constant<'o>(object: &'o Object, r: &Ref) -> Option<&'o [u8]> {
    let Target::Section(section, offset) = r.target else { return None };
    let mergeable = matches!(object.class(section), Class::Strings | Class::Constants);
    object.constant_at(section, offset).filter(|_| mergeable)
}

/// The read-only data of an image that lists where it begins and ends.
fn rodata(kernel: &KernelImage) -> Option<std::ops::Range<u64>> {
    let range = by_name(kernel, "__start_rodata")?..by_name(kernel, "__end_rodata")?;
    (!range.is_empty()).then_some(range)
}

/// Up to here, equal content can be a coincidence.
const SHORT: usize = 8;

/// Where the field at `at` refers to another string or constant than the object does.
pub(super) fn other_constant(object: &Object, kernel: &KernelImage, r: &Ref, at: u64) -> Option<String> {
    let Target::Section(section, _) = r.target else { return None };
    if !matches!(object.class(section), Class::Strings | Class::Constants) {
        return None;
    }
    let Some(bytes) = constant(object, r) else {
        // Behind the end of its section, or before it: nothing there to be held against the image.
        let name = &object.section(section).name;
        return Some(format!("the field at +{:#x} refers to no constant of {name} in the old object", r.at));
    };
    let there = means(kernel, r, at)?;
    let name = &object.section(section).name;
    // The linker script keeps them together (RO_DATA, include/asm-generic/vmlinux.lds.h).
    let outside = rodata(kernel).is_some_and(|range| name.starts_with(".rodata") && !range.contains(&there));
    if outside {
        return Some(format!(
            "the field at +{:#x} refers to a constant in the old object and to no read-only data of the kernel image",
            r.at
        ));
    }
    // What the linker merges has no name: what begins where the image has something this object names is that. A label of a
    // constant (`.LC0`), which modules keep, is no such name.
    let own = |s: &KernelSymbol| !s.name.starts_with(".L") && object.image.symbols.iter().any(|o| *o.name == *s.name);
    let named = bytes.len() <= SHORT && kernel.kallsyms().at(there).iter().any(own);
    let same = kernel.read(there, bytes.len()) == Some(bytes) && !named;
    (!same).then(|| {
        let text = String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned();
        format!(
            "the field at +{:#x} refers to {text:?} in the old object and to something else in {}",
            r.at,
            kernel.called()
        )
    })
}
