//! The kernel side of lpbuild: checks a patch against the running kernel, applies it, takes it out again.
//!
//! Input: the records of `lpbuild-abi`, filled in by the module loader. Output: jumps at the sites of the replaced
//! functions, a status, log lines. Refused, with nothing written: everything in [`refusal::Refusal`].
//!
//! The modules follow one operation from top to bottom:
//!
//! ```text
//! record      the records, validated once                      refusal    why it was not done: code, errno, text
//! identity    is this the kernel the patch was bound to?        text       lines built without core::fmt
//! site        do the bytes fit? which bytes will be written?    status     what /sys/kernel/lpbuild/NAME shows
//! layers      which patches lie below, and what is theirs?      sites      all sites of a patch, made before anything is done
//! reroute     jumps in the patch's own code                 bypass     calls that would not come to a patch on top
//! stack       which task is inside old (or new) code?           kernel     the trait everything above is generic over
//! rendezvous  all CPUs in one place, in lockstep                binding    that trait, in a real kernel
//! board       which version does a task run?                    switch      who may change over, and when
//! poke        int3, tails, first bytes                          machine     the steps of apply and revert
//! holders     parts that belong to kernel modules                late        fields that are filled in when those are here
//! keys        jumps of static keys that those have              constants   data that changes in its place
//! wire        numbers of both halves
//! ```
//!
//! Everything but `binding` is also built for the host, where `tests/` drives it against a simulated kernel.
#![no_std]

pub mod board;
pub mod bypass;
pub mod constants;
pub mod holders;
pub mod identity;
pub mod kernel;
pub mod keys;
pub mod late;
pub mod layers;
pub mod machine;
pub mod poke;
pub mod record;
pub mod refusal;
pub mod rendezvous;
pub mod reroute;
pub mod site;
pub mod sites;
pub mod stack;
pub mod status;
pub mod survey;
pub mod switch;
pub mod text;
pub mod wire;

#[cfg(lpbuild_kernel)]
mod binding;
