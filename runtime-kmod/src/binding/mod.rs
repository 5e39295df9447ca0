//! The runtime in a real kernel. Only built with `--cfg lpbuild_kernel`, freestanding (`cargo xtask runtime`).
//!
//! `ffi` declares the functions of `c/helpers.c`, `linux` implements [`crate::kernel::Kernel`] with them, `entry` is
//! what `helpers.c` calls.
//!
//! Rust code has no ORC data, so the unwinder calls a task unreliable while a frame of this crate is on its stack.
//! That is sound, and rare: the kernel thread enters Rust only while it holds `text_mutex`, and every wait of the
//! protocol (for locks, for time, for RCU tasks) is made by C code. So no task ever *sleeps* for long inside Rust, and two
//! patches that are loaded at the same time cannot keep each other from finding all stacks reliable.

mod entry;
mod ffi;
mod linux;
