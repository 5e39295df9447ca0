//! Stock kernels from the archive, prepared trees, initramfs and QEMU runs.
