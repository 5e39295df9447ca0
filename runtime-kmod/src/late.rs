//! Fields of the carried code that refer to a module: their values, once it is known where the module is.
//!
//! Input: the records, the addresses of sections. Output: bytes. Refused: what does not fit into its field.

use lpbuild_abi::{FieldKind, JUMP_ABS64_LEN, LateReloc};

use crate::{kernel::Kernel, record::field_kind};

/// Bytes of a field; as many count as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    bytes: [u8; 8],
    width: usize,
}

impl Value {
    /// Those that count.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.width).unwrap_or(&[])
    }
}

/// What a field at `place` holds that refers to `to`, with what its kind adds. Nothing: it is out of reach.
pub fn value(kind: FieldKind, place: u64, to: u64) -> Option<Value> {
    let signed = |v: u64| i32::try_from(v.cast_signed()).ok().map(|v| u64::from(v.cast_unsigned()));
    let number = match kind {
        FieldKind::Abs64 => to,
        FieldKind::Pc64 => to.wrapping_sub(place),
        FieldKind::Abs32S => signed(to)?,
        FieldKind::Abs32 => u32::try_from(to).ok()?.into(),
        FieldKind::Pc32 | FieldKind::Plt32 => signed(to.wrapping_sub(place))?,
    };
    Some(Value { bytes: number.to_le_bytes(), width: kind.width() as usize })
}

/// What a field refers to, as it was read at `place`.
pub fn target(kind: FieldKind, place: u64, bytes: &[u8; 8]) -> u64 {
    let [a, b, c, d, ..] = *bytes;
    let low = u32::from_le_bytes([a, b, c, d]);
    let signed = i64::from(low.cast_signed()).cast_unsigned();
    match kind {
        FieldKind::Abs64 => u64::from_le_bytes(*bytes),
        FieldKind::Pc64 => place.wrapping_add(u64::from_le_bytes(*bytes)),
        FieldKind::Abs32S => signed,
        FieldKind::Abs32 => low.into(),
        FieldKind::Pc32 | FieldKind::Plt32 => place.wrapping_add(signed),
    }
}

/// What is read of a field.
pub fn read<K: Kernel>(k: &K, kind: FieldKind, place: u64) -> Option<u64> {
    let mut bytes = [0u8; 8];
    let field = bytes.get_mut(..kind.width() as usize)?;
    k.read(place, field).then(|| target(kind, place, &bytes))
}

/// A jump for a field that does not reach: where it is, and its bytes.
pub type Stub = (u64, [u8; JUMP_ABS64_LEN]);

/// A field at `place`, and the jump that it leads to where it does not reach, with the address of that.
pub fn resolve(r: &LateReloc, place: u64, section: u64) -> Option<(Value, Option<Stub>)> {
    let kind = field_kind(r.kind)?;
    let to = section.wrapping_add_signed(r.addend);
    if let Some(value) = value(kind, place, to) {
        return Some((value, None));
    }
    // A branch counts from behind its field.
    let by = (kind == FieldKind::Plt32 && r.stub != 0).then_some(r.stub)?;
    let mut jump = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0];
    jump.get_mut(2..10)?.copy_from_slice(&to.wrapping_add(4).to_le_bytes());
    Some((value(kind, place, by.wrapping_sub(4))?, Some((by, jump))))
}
