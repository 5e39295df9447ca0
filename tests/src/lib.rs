//! Corpus cases, command line cases and VM runs.
