//! Kernel side of lpbuild.
