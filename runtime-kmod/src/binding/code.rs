//! Jumps that the runtime writes into the patch's own code: what stands below decides where a dispatcher and
//! `lp_original_NAME` lead.

use super::linux::Linux;
use crate::{kernel::Kernel, record::Patch, refusal::Refusal};

/// Lets the dispatcher of a function lead to `old` for the old version.
pub(super) fn lead_to(patch: &Patch<'static>, func: usize, old: u64) -> Result<(), Refusal> {
    let Some(f) = patch.funcs.get(func).filter(|f| f.dispatch != 0) else { return Ok(()) };
    jump(f.dispatch + (lpbuild_abi::DISPATCH_LEN - lpbuild_abi::JUMP_REL32_LEN) as u64, old, func)
}

/// Lets `lp_original_NAME` lead to `below` and not into the kernel's function. Nobody has called it yet.
pub(super) fn originally(patch: &Patch<'static>, func: usize, below: u64) -> Result<(), Refusal> {
    let Some(f) = patch.funcs.get(func).filter(|f| f.resume != 0) else { return Ok(()) };
    jump(f.resume + lpbuild_abi::RESUME_SLOT as u64, below, func)
}

/// Writes a jump to `to` at `slot`, in the patch's own code, where nobody is.
fn jump(slot: u64, to: u64, func: usize) -> Result<(), Refusal> {
    let len = lpbuild_abi::JUMP_REL32_LEN as u64;
    let rel = i32::try_from(to.wrapping_sub(slot + len) as i64).map_err(|_| Refusal::OutOfReach { func })?;
    let alias = Linux.map(slot, len as usize).ok_or(Refusal::NoMemory)?;
    Linux.write(alias, 0, &[0xe9]);
    Linux.write(alias, 1, &rel.to_le_bytes());
    Linux.serialize_all();
    Linux.unmap(alias);
    Ok(())
}
