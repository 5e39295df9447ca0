//! lpbuild: from two builds of a kernel object to a live patch that is proven to fit one kernel.
//!
//! `pipeline.rs` is the architecture; one folder per phase.

pub mod accept;
pub mod annotate;
pub mod backend;
pub mod bind;
pub mod closure;
pub mod codes;
pub mod compare;
pub mod config;
pub mod correlate;
pub mod debuginfo;
pub mod emit;
pub mod error;
pub mod flow;
pub mod hash;
pub mod holder;
pub mod host;
pub mod ingest;
pub mod interrupt;
pub mod isa;
pub mod kernel;
pub mod owners;
pub mod pack;
pub mod pairing;
pub mod pipeline;
pub mod plan;
pub mod promises;
pub mod report;
pub mod source;
pub mod style;
pub mod symbolize;
pub mod tool;
pub mod trial;
pub mod uses;
pub mod whole;
