//! Jumps that the runtime writes into the patch's own code: what stands below decides where a dispatcher and
//! `lp_original_NAME` lead.
//!
//! Refused: a target out of reach, no writable view of the code. Nobody may be in the code meanwhile.

use lpbuild_abi::{DISPATCH_LEN, JUMP_REL32_LEN, RESUME_SLOT};

use crate::{kernel::Kernel, record::Patch, refusal::Refusal};

/// Lets the dispatcher of a function lead to `old` for the old version.
pub fn dispatcher<K: Kernel>(k: &K, patch: &Patch<'_>, func: usize, old: u64) -> Result<(), Refusal> {
    let Some(f) = patch.funcs.get(func).filter(|f| f.dispatch != 0) else { return Ok(()) };
    jump(k, f.dispatch + (DISPATCH_LEN - JUMP_REL32_LEN) as u64, old, func)
}

/// Lets `lp_original_NAME` lead to `below` and not into the kernel's function. Nobody has called it yet.
pub fn original<K: Kernel>(k: &K, patch: &Patch<'_>, func: usize, below: u64) -> Result<(), Refusal> {
    let Some(f) = patch.funcs.get(func).filter(|f| f.resume != 0) else { return Ok(()) };
    jump(k, f.resume + RESUME_SLOT as u64, below, func)
}

/// As many bytes of the beginning of `lp_original_NAME` as the jump takes.
pub type Slot = [u8; JUMP_REL32_LEN];

/// What is there before anything is laid over another patch.
pub fn slot<K: Kernel>(k: &K, patch: &Patch<'_>, func: usize) -> Option<Slot> {
    let mut bytes = Slot::default();
    let f = patch.funcs.get(func)?;
    (f.resume == 0 || k.read(f.resume + RESUME_SLOT as u64, &mut bytes)).then_some(bytes)
}

/// Lets the dispatcher lead to the function itself again, and `lp_original_NAME` be its beginning. Nobody may be in the code.
pub fn back<K: Kernel>(k: &K, patch: &Patch<'_>, func: usize, was: &Slot) -> Result<(), Refusal> {
    let Some(f) = patch.funcs.get(func).filter(|f| f.resume != 0) else { return Ok(()) };
    dispatcher(k, patch, func, f.resume)?;
    let alias = k.map(f.resume + RESUME_SLOT as u64, was.len()).ok_or(Refusal::NoMemory)?;
    k.write(alias, 0, was);
    k.serialize_all();
    k.unmap(alias);
    Ok(())
}

/// Writes a jump to `to` at `slot`.
fn jump<K: Kernel>(k: &K, slot: u64, to: u64, func: usize) -> Result<(), Refusal> {
    let len = JUMP_REL32_LEN as u64;
    let rel = i32::try_from(to.wrapping_sub(slot + len) as i64).map_err(|_| Refusal::OutOfReach { func })?;
    let alias = k.map(slot, len as usize).ok_or(Refusal::NoMemory)?;
    k.write(alias, 0, &[0xe9]);
    k.write(alias, 1, &rel.to_le_bytes());
    k.serialize_all();
    k.unmap(alias);
    Ok(())
}
