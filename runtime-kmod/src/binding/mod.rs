//! The runtime in a real kernel. Only built with `--cfg lpbuild_kernel`, freestanding (`cargo xtask runtime`).
//!
//! `ffi` declares the functions of `c/`, `linux` implements [`crate::kernel::Kernel`] with them, `memory`
//! says what is the module's own, `entry` and `show` are what `c/` calls.
//!
//! Rust code has no ORC data, so the unwinder calls a task unreliable while a frame of this crate is on its stack.
//! That is sound: it can only make an attempt of another patch wait. It is also rare: the kernel thread takes its steps
//! while it holds `text_mutex`, as the other patch would, and every wait of the protocol (for locks, for time, for RCU
//! tasks) is made by C code. What remains are the checks at insertion, readers of the files, and the lines of the log.

mod entry;
mod ffi;
mod linux;
mod memory;
mod show;
