//! lpbuild: from two builds of a kernel object to a live patch that is proven to fit one kernel.
//!
//! Most people want the program `lpbuild`. A program of its own compares two objects and gets the manifest of the patch between
//! them like this; with a kernel image the patch is bound, and the old code proven to be what runs:
//!
//! ```no_run
//! use lpbuild::{Options, Outcome, Source, Verdict};
//!
//! # fn main() -> lpbuild::Result<()> {
//! let source = Source::read("fs/timerfd.o", "old/fs/timerfd.o".as_ref(), "new/fs/timerfd.o".as_ref())?;
//! let kernel = lpbuild::KernelImage::open("/boot/vmlinuz-6.1.0-53-cloud-amd64".as_ref())?;
//! let outcome: Outcome = lpbuild::diff(&[source], Some(&kernel), &Options::named("timerfd_fix"))?;
//! match outcome.verdict() {
//!     Verdict::Patch => {
//!         let patch = outcome.patch.as_ref().expect("the verdict says so");
//!         for function in &patch.manifest.functions {
//!             println!("{}: jump at +{:#x}, {} bytes", function.symbol, function.site.offset, function.site.size);
//!         }
//!         println!("{}", patch.manifest.to_toml()?);
//!     }
//!     Verdict::Nothing => println!("no function differs"),
//!     Verdict::Refused => outcome.analysis.refused.iter().for_each(|problem| println!("{problem}")),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is named above is the face of the library. The modules are public for the program, the tests and the tools of this
//! repository; they change without notice. `pipeline.rs` shows the phases in order, one folder each; docs/design.md says
//! why they are as they are, and `tests/layers.rs` who may import whom.
#![deny(missing_docs)]

#[doc(hidden)]
pub mod accept;
#[doc(hidden)]
pub mod annotate;
#[doc(hidden)]
pub mod backend;
#[doc(hidden)]
pub mod bind;
#[doc(hidden)]
pub mod bounded;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod closure;
#[doc(hidden)]
pub mod codes;
#[doc(hidden)]
pub mod compare;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod correlate;
#[doc(hidden)]
pub mod debuginfo;
#[doc(hidden)]
pub mod emit;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod explain;
#[doc(hidden)]
pub mod flow;
#[doc(hidden)]
pub mod hash;
#[doc(hidden)]
pub mod holder;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod ingest;
#[doc(hidden)]
pub mod interrupt;
#[doc(hidden)]
pub mod isa;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod marks;
#[doc(hidden)]
pub mod owners;
#[doc(hidden)]
pub mod pack;
#[doc(hidden)]
pub mod page;
#[doc(hidden)]
pub mod pairing;
pub mod parallel;
#[doc(hidden)]
pub mod pipeline;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod promises;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod style;
#[doc(hidden)]
pub mod symbolize;
#[doc(hidden)]
pub mod tool;
#[doc(hidden)]
pub mod toolchain;
#[doc(hidden)]
pub mod trial;
#[doc(hidden)]
pub mod uses;
#[doc(hidden)]
pub mod whole;

pub use emit::Output;
pub use error::{Error, Problem, Result};
pub use flow::{Outcome, Verdict};
pub use kernel::KernelImage;
pub use plan::manifest::Manifest;
pub use plan::{Options, Source};

/// Compares objects in both builds and makes the patch between them: bound to `kernel`, or symbolic without one.
///
/// # Errors
/// What cannot be read or compared at all. What stands against a patch is part of the outcome, each with its code.
pub fn diff(sources: &[Source], kernel: Option<&KernelImage>, options: &Options) -> Result<Outcome> {
    let mut analysis = pipeline::analyse(sources, options)?;
    if let Some(image) = kernel {
        pipeline::check_names(&mut analysis, image, options);
    }
    flow::conclude(analysis, || Ok(kernel), options)
}
