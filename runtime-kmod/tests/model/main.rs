//! The runtime against a kernel in which everything happens at once: random schedules, and rules that hold in all of them.
//!
//! The code under test is the real one, [`lpbuild_runtime::machine::Machine`] and what it calls, and what dispatchers, the int3
//! handler and task works call. `LPBUILD_SCHEDULES` sets how many schedules a test runs, `LPBUILD_SEED` runs one seed and
//! prints what happens in it.
#![cfg(target_arch = "x86_64")]

mod check;
mod coroutine;
mod cpu;
mod operator;
mod plan;
mod rng;
mod schedule;
mod sim;
mod target;
mod tests;
mod world;
