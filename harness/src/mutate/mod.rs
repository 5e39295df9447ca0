//! Mutants of kernel objects and a comparison of its own: does lpbuild notice every change, and only changes?
//!
//! ```text
//! object          -> reading::Reading       what it means, as text, without lpbuild's own reader
//! Reading         -> binary::Mutant         one field changed, or things moved that mean the same
//! source file     -> source::Edit           one token changed; compiled by the kernel's own command
//! old x new       -> difference::Difference the truth
//! old x new       -> answer::Answer         what lpbuild says; answer::judge holds one against the other
//! damaged old     -> damage::Trial          run-pre matching must see what leads elsewhere than the running kernel
//! ```
//!
//! Every mutant depends on a seed and its number only (`random`), so that a finding can be made again.

pub mod answer;
pub mod binary;
mod content;
pub mod damage;
pub mod difference;
pub mod elf;
mod moves;
pub mod names;
pub mod patches;
pub mod random;
pub mod reading;
pub mod source;
pub mod trial;
