//! The kernel image: container formats, notes, kallsyms, code.
