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
