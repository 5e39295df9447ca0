//! From a source change to the objects the analysis compares.

pub mod objtool;
pub mod patch;
