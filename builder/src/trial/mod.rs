//! Trials.

pub mod console;
pub mod initramfs;
pub mod programs;
pub mod qemu;
